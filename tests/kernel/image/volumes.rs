//! Volumes: made on first use, filled from the image, kept while used.

use super::archives::{Fallible, Tar};
use crate::common::{assert_kind, prints, refused, sh, with_programs};
use crate::harness::{Need, Outcome, TempDir, Test};
use belljar::image::{Durability, Import, Store, Volume, VolumeUsage};
use belljar::{ErrorKind, RootFs, Sandbox};
use std::fs;
use std::io::Cursor;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("image::volumes::named", &[Need::UserOverlay], named),
        Test::new("image::volumes::anonymous", &[Need::UserOverlay], anonymous),
        Test::new("image::volumes::names", &[], names),
    ]
}

fn store() -> Fallible<(TempDir, Store)> {
    let dir = TempDir::new()?;
    let store = Store::open(dir.path().join("store"))?;
    let mut tar = Tar::new();
    for directory in ["usr", "bin", "lib", "lib64", "sbin", "proc", "dev", "tmp", "etc", "srv", "srv/data"] {
        tar = tar.directory(directory);
    }
    let mut owned = Tar::header(tar::EntryType::Regular, b"srv/data/owned", b"", 5);
    owned.set_uid(7);
    owned.set_mode(0o640);
    let tar = tar.raw(owned, b"owned").hard_link("srv/data/link", "srv/data/owned").symlink("srv/data/sym", "owned");
    store.import(Import::rootfs_from("base", Cursor::new(tar.end())).durability(Durability::Process), "base")?;
    Ok((dir, store))
}

fn sandbox(store: &Store, volume: &Volume) -> Fallible<Sandbox> {
    Ok(with_programs(Sandbox::builder(RootFs::image(store, "base")?)).mount(volume.mount("/srv/data")).build()?)
}

fn named() -> Outcome {
    let (_dir, store) = store()?;
    let root = nix::unistd::geteuid().is_root();
    {
        let volume = store.volume("data")?;
        volume.fill(&RootFs::image(&store, "base")?, "/srv/data")?;
        let sandbox = sandbox(&store, &volume)?;
        let owner = if root { "7:0 640 2" } else { "0:0 640 2" };
        assert_eq!(
            prints(&sandbox, "cd /srv/data; stat -c '%u:%g %a %h' owned; readlink sym")?,
            format!("{owner}\nowned")
        );
        assert_eq!(prints(&sandbox, "echo written > /srv/data/new; rm /srv/data/owned")?, "");
    }
    // what was written stays, and is not filled over; another sandbox shares it
    let volume = store.volume("data")?;
    volume.fill(&RootFs::image(&store, "base")?, "/srv/data")?;
    let sandbox = sandbox(&store, &volume)?;
    assert_eq!(
        prints(&sandbox, "cat /srv/data/new; ls /srv/data; stat -c %u /srv/data/new")?,
        "written\nlink\nnew\nsym\n0"
    );
    let own = if root { 0 } else { nix::unistd::geteuid().as_raw() };
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(volume.path().join("new"))?), own);
    let listed = store.volumes()?;
    assert_eq!((listed.len(), &*listed[0].name, listed[0].usage), (1, "data", VolumeUsage::InUse));
    assert_eq!(listed[0].size.bytes.get(), 13);
    // not removed while a handle, a sandbox or a child uses it
    assert_kind(&refused(store.remove_volume("data"))?, ErrorKind::Busy);
    drop(volume);
    assert_kind(&refused(store.remove_volume("data"))?, ErrorKind::Busy);
    let mut child = sandbox.spawn(&sh("sleep 60"))?;
    drop(sandbox);
    assert_kind(&refused(store.remove_volume("data"))?, ErrorKind::Busy);
    child.kill(belljar::KillScope::Tree)?;
    child.wait()?;
    drop(child);
    assert_eq!(store.volumes()?[0].usage, VolumeUsage::Free);
    store.remove_volume("data")?;
    assert_eq!(store.volumes()?, []);
    assert_eq!(store.remove_volume("data").err().map(|e| e.kind()), Some(ErrorKind::NotFound));
    Ok(())
}

fn anonymous() -> Outcome {
    let (_dir, store) = store()?;
    let volume = store.anonymous_volume()?;
    volume.fill(&RootFs::image(&store, "base")?, "/srv/data")?;
    let path = volume.path();
    let sandbox = sandbox(&store, &volume)?;
    drop(volume);
    assert_eq!(prints(&sandbox, "touch /srv/data/x; ls /srv/data")?, "link\nowned\nsym\nx");
    assert!(path.join("x").exists() && store.volumes()?.is_empty());
    // outlives the sandbox's owner with the sandbox, and is swept after it
    let child = sandbox.spawn(&sh("sleep 60"))?;
    drop(sandbox);
    assert!(path.exists());
    let pidfd = belljar::sys::pidfd::PidFd::from(child.detach()?);
    assert!(path.exists(), "a detached sandbox has lost its volume");
    Store::open(store.root())?;
    assert!(path.exists());
    pidfd.send_signal(9)?;
    pidfd.wait()?;
    belljar::sweep();
    Store::open(store.root())?;
    assert!(!path.exists());
    // the usual end
    let volume = store.anonymous_volume()?;
    let path = volume.path();
    prints(&self::sandbox(&store, &volume)?, "touch /srv/data/y")?;
    drop(volume);
    assert!(!path.exists());
    assert_eq!(fs::read_dir(store.root().join("volumes"))?.count(), 0);
    Ok(())
}

fn names() -> Outcome {
    let (_dir, store) = store()?;
    for name in ["", ".", "..", "../x", "/etc", "a/b", ".hidden"] {
        assert_kind(&refused(store.volume(name))?, ErrorKind::InvalidSpec);
        assert_kind(&refused(store.remove_volume(name))?, ErrorKind::InvalidSpec);
    }
    let error = refused(store.volume("x")?.fill(&RootFs::host(), "/"))?;
    assert_kind(&error, ErrorKind::InvalidSpec);
    Ok(())
}
