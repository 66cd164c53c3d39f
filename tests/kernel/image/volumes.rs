//! Volumes: made on first use, filled from the image, kept while used.

use super::archives::{Fallible, LayerBlob, Tar, layout};
use crate::common::{assert_kind, prints, refused, sh, with_programs};
use crate::harness::{Need, Outcome, TempDir, Test};
use belljar::image::{Durability, Import, Store, Volume, VolumeLimit, VolumeUsage};
use belljar::{Bytes, ErrorKind, RootFs, Sandbox, Upper};
use serde_json::json;
use std::fs;
use std::io::Cursor;
use std::process::Command;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("image::volumes::named", &[Need::UserOverlay], named),
        Test::new("image::volumes::anonymous", &[Need::UserOverlay], anonymous),
        Test::new("image::volumes::names", &[], names),
        Test::new("image::volumes::declared_by_the_image", &[Need::UserOverlay], declared_by_the_image),
        Test::new(
            "image::volumes::filled_under_a_running_sandbox",
            &[Need::UserOverlay],
            filled_under_a_running_sandbox,
        ),
        Test::new("image::volumes::filling_goes_on_where_it_was_interrupted", &[], filling_goes_on),
        Test::new("image::volumes::limit_without_quotas", &[], limit_without_quotas),
        // Debian's kernels have the quota format, and a machine of one's own a file system to mount with it
        Test::new(
            "image::volumes::limit",
            &[Need::Vm, Need::Root, Need::Kernel(5, 14), Need::Program("mkfs.ext4")],
            limit,
        ),
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

fn declared_by_the_image() -> Outcome {
    let (dir, store) = store()?;
    let blob = LayerBlob::gzip(
        ["usr", "bin", "lib", "lib64", "sbin", "proc", "dev", "tmp", "etc", "srv", "srv/data"]
            .iter()
            .fold(Tar::new(), |tar, directory| tar.directory(directory))
            .file("srv/data/seed", b"seed")
            .end(),
    );
    let at = dir.path().join("layout");
    layout(&at, &[blob], json!({ "Volumes": { "/srv/data": {}, "/srv/data/below": {}, "/made": {} } }))?;
    store.import(Import::oci_layout(&at).durability(Durability::Process), "app")?;
    let root = RootFs::image(&store, "app")?.upper(Upper::None);
    let mut builder = with_programs(Sandbox::builder(root));
    for mount in store.declared_volumes("app")? {
        builder = builder.mount(mount);
    }
    let sandbox = builder.build()?;
    let script = "cat /srv/data/seed; echo x > /srv/data/x; echo y > /srv/data/below/y; echo z > /made/z; ls /srv/data";
    assert_eq!(prints(&sandbox, script)?, "seedbelow\nseed\nx");
    // each sandbox has its own, which goes with it
    assert_eq!(fs::read_dir(store.root().join("volumes"))?.count(), 3);
    let again = store.declared_volumes("app")?;
    assert_eq!((again.len(), fs::read_dir(store.root().join("volumes"))?.count()), (3, 6));
    drop(again);
    drop(sandbox);
    assert_eq!(fs::read_dir(store.root().join("volumes"))?.count(), 0);
    // a link of the image's is no way out of the volume around
    fs::remove_dir_all(&at)?;
    let outside = dir.path().join("outside");
    fs::create_dir(&outside)?;
    let link = Tar::new().directory("srv").symlink("srv/below", outside.to_str().ok_or("not UTF-8")?);
    layout(&at, &[LayerBlob::gzip(link.end())], json!({ "Volumes": { "/srv": {}, "/srv/below/x": {} } }))?;
    store.import(Import::oci_layout(&at).durability(Durability::Process), "link")?;
    refused(store.declared_volumes("link"))?;
    assert_eq!(fs::read_dir(&outside)?.count(), 0);
    for path in ["relative", "/", "/../x", ""] {
        fs::remove_dir_all(&at)?;
        let blob = LayerBlob::gzip(Tar::new().end());
        layout(&at, &[blob], json!({ "Volumes": { path: {} } }))?;
        store.import(Import::oci_layout(&at).durability(Durability::Process), "odd")?;
        assert_kind(&refused(store.declared_volumes("odd"))?, ErrorKind::InvalidImage);
    }
    assert_eq!(fs::read_dir(store.root().join("volumes"))?.count(), 0);
    Ok(())
}

/// One that has an empty volume mounted goes on using the same one when another fills it.
fn filled_under_a_running_sandbox() -> Outcome {
    let (_dir, store) = store()?;
    let volume = store.volume("data")?;
    let sandbox = sandbox(&store, &volume)?;
    let mut child =
        sandbox.spawn(&sh("while [ ! -e /srv/data/owned ]; do sleep 0.05; done; echo seen > /srv/data/mine"))?;
    volume.fill(&RootFs::image(&store, "base")?, "/srv/data")?;
    assert!(child.wait()?.success());
    assert_eq!(fs::read(volume.path().join("mine"))?, b"seen\n");
    Ok(())
}

fn filling_goes_on() -> Outcome {
    let (_dir, store) = store()?;
    let volume = store.volume("data")?;
    let root = RootFs::image(&store, "base")?;
    volume.fill(&root, "/srv/data")?;
    let whole = super::tree::describe(&volume.path())?;
    let marker = volume.path().with_file_name("filling");
    assert_eq!(fs::metadata(&marker)?.len(), 0);
    // as a kill in the middle leaves it
    fs::write(&marker, "!")?;
    fs::remove_file(volume.path().join("sym"))?;
    volume.fill(&root, "/srv/data")?;
    assert_eq!(super::tree::describe(&volume.path())?, whole);
    fs::remove_file(volume.path().join("sym"))?;
    volume.fill(&root, "/srv/data")?;
    assert!(!volume.path().join("sym").exists(), "a volume that is not empty was filled");
    Ok(())
}

fn limit_without_quotas() -> Outcome {
    let (_dir, store) = store()?;
    let volume = store.volume("data")?;
    let error = refused(volume.limit(Bytes::mib(1), 10))?;
    assert!(matches!(error.kind(), ErrorKind::NotSupported | ErrorKind::NotPermitted), "{error}");
    assert!(error.hint().is_some(), "{error}");
    assert_eq!(store.volumes()?[0].limit, None);
    // tmpfs has no projects at all
    if nix::unistd::geteuid().is_root() && std::path::Path::new("/dev/shm").exists() {
        let dir = std::path::PathBuf::from(format!("/dev/shm/belljar-limit-{}", std::process::id()));
        let store = Store::open(&dir)?;
        let error = refused(store.volume("data")?.limit(Bytes::mib(1), 10));
        fs::remove_dir_all(&dir)?;
        let error = error?;
        assert_kind(&error, ErrorKind::NotSupported);
        assert!(error.to_string().contains("prjquota"), "{error}");
    }
    Ok(())
}

/// A file system of one's own, with quotas.
struct Quotas(TempDir);

impl Quotas {
    fn new() -> Fallible<Quotas> {
        let dir = TempDir::new()?;
        let script = "modprobe -q quota_v2; modprobe -q loop; truncate -s 64M image
            mkfs.ext4 -q -O quota,project -E quotatype=prjquota image; mkdir m; mount -o loop,prjquota image m";
        let output = Command::new("/bin/sh").args(["-ec", script]).current_dir(dir.path()).output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(Quotas(dir))
    }
}

impl Drop for Quotas {
    fn drop(&mut self) {
        let _reported = Command::new("umount").arg(self.0.path().join("m")).status(); // by the leak check
    }
}

fn limit() -> Outcome {
    let quotas = Quotas::new()?;
    let store = Store::open(quotas.0.path().join("m/store"))?;
    let mut tar = Tar::new();
    for directory in
        ["usr", "bin", "lib", "lib64", "sbin", "proc", "dev", "tmp", "etc", "srv", "srv/data", "srv/data/d"]
    {
        tar = tar.directory(directory);
    }
    let tar = tar.file("srv/data/d/seed", &[b'x'; 200_000]);
    store.import(Import::rootfs_from("base", Cursor::new(tar.end())).durability(Durability::Process), "base")?;
    let (volume, free) = (store.volume("data")?, store.volume("free")?);
    volume.limit(Bytes::mib(2), 20)?;
    volume.fill(&RootFs::image(&store, "base")?, "/srv/data")?;
    let info = store.volumes()?.remove(0);
    assert_eq!(info.limit, Some(VolumeLimit { bytes: Bytes::mib(2), inodes: 20 }));
    let of = |volume: &Volume| -> Fallible<Sandbox> { sandbox(&store, volume) };
    let write = "dd if=/dev/zero of=/srv/data/large bs=64k count=48 2>/dev/null && echo written || echo full; stat -c %s /srv/data/large";
    // the control: without a limit there is room
    assert_eq!(prints(&of(&free)?, write)?, "written\n3145728");
    let limited = of(&volume)?;
    let shown = prints(&limited, write)?;
    let size: u64 = shown.strip_prefix("full\n").ok_or_else(|| shown.clone())?.parse()?;
    assert!(size < (2 << 20) - 200_000, "what was filled in does not count: {size}");
    let inodes = "rm /srv/data/large; i=0; while touch /srv/data/d/$i 2>/dev/null; do i=$((i+1)); done; echo $i";
    let made: u32 = prints(&limited, inodes)?.parse()?;
    assert!((10..20).contains(&made), "{made}");
    // more, for all who use it
    volume.limit(Bytes::mib(8), 100)?;
    assert_eq!(prints(&limited, write)?, "written\n3145728");
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
