//! Importing: formats, what becomes of each entry, two at once, interrupted ones.

use super::archives::{Fallible, LayerBlob, Tar, layout};
use crate::harness::{Need, Outcome, TempDir, Test};
use belljar::image::{Devices, Durability, Image, Import, Platform, Store};
use belljar::sys::tree;
use belljar::{ErrorKind, FlawKind};
use serde_json::json;
use std::fs::{self, File};
use std::io::Cursor;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use tar::EntryType;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("image::import::every_kind_of_entry", &[], every_kind_of_entry),
        Test::new("image::import::owners_as_root", &[Need::Root], owners_as_root),
        Test::new("image::import::owners_as_a_user", &[Need::OrdinaryUser], owners_as_a_user),
        Test::new("image::import::whiteouts_become_overlay_marks", &[], whiteouts_become_overlay_marks),
        Test::new("image::import::layouts_and_archives", &[], layouts_and_archives),
        Test::new("image::import::digests_are_verified", &[], digests_are_verified),
        Test::new("image::import::platforms_and_references", &[], platforms_and_references),
        Test::new("image::import::zstd_of_several_frames", &[Need::Program("zstd")], zstd_of_several_frames),
        Test::new("image::import::stores_of_others", &[], stores_of_others),
    ]
}

pub fn tree_of(store: &Store, image: &Image, layer: usize) -> PathBuf {
    store.root().join("layers").join(image.layers()[layer].hex()).join("tree")
}

fn rootfs(archive: Vec<u8>) -> Import<'static> {
    Import::rootfs_from("test.tar", Cursor::new(archive)).durability(Durability::Process)
}

fn store() -> Fallible<(TempDir, Store)> {
    let dir = TempDir::new()?;
    let store = Store::open(dir.path().join("store"))?;
    Ok((dir, store))
}

fn every_kind_of_entry() -> Outcome {
    let (_dir, store) = store()?;
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let archive = Tar::new()
        .directory("./")
        .directory("d/")
        .file("./d/f", b"content")
        .hard_link("a-link", "./d/f")
        .symlink("s", "../../anywhere")
        .hard_link("s2", "s")
        .raw(Tar::header(EntryType::Fifo, b"fifo", b"", 0), b"")
        .raw(Tar::header(EntryType::Continuous, b"continuous", b"", 3), b"abc")
        .pax(&[("path", long.as_bytes()), ("mtime", b"-1.25"), ("SCHILY.xattr.user.note", b"a\0b\n=c")])
        .file("short", b"long")
        .raw(Tar::header(EntryType::GNULongName, b"././@LongLink", b"", 151), &[vec![b'g'; 150], vec![0]].concat())
        .file("gggg", b"gnu")
        .raw(Tar::header(EntryType::GNULongLink, b"././@LongLink", b"", 151), &[vec![b'g'; 150], vec![0]].concat())
        .hard_link("h", "ggg")
        .file("implicit/parents/x", b"")
        .end();
    let image = store.import(rootfs(archive), "kinds:1")?;
    assert_eq!(image.name(), "kinds:1");
    let tree = tree_of(&store, &image, 0);
    assert_eq!(fs::read(tree.join("d/f"))?, b"content");
    assert_eq!(fs::metadata(tree.join("a-link"))?.ino(), fs::metadata(tree.join("d/f"))?.ino());
    assert_eq!(fs::read_link(tree.join("s"))?, Path::new("../../anywhere"));
    assert_eq!(fs::symlink_metadata(tree.join("s2"))?.ino(), fs::symlink_metadata(tree.join("s"))?.ino());
    assert!(fs::symlink_metadata(tree.join("fifo"))?.file_type().is_fifo());
    assert_eq!(fs::read(tree.join("continuous"))?, b"abc");
    let meta = fs::metadata(tree.join(&long))?;
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (-2, 750_000_000));
    let note = tree::attribute(File::open(tree.join(&long))?.as_fd(), c"user.note")?;
    assert_eq!(note.as_deref(), Some(&b"a\0b\n=c"[..]));
    assert_eq!(fs::metadata(tree.join("g".repeat(150)))?.nlink(), 2);
    let implicit = fs::metadata(tree.join("implicit/parents"))?;
    assert_eq!((implicit.mode() & 0o7777, implicit.mtime()), (0o755, 0));
    assert_eq!(fs::metadata(tree.join("d"))?.mtime(), 1_600_000_000);
    assert_eq!(fs::metadata(&tree)?.mtime(), 1_600_000_000);
    // the umask of the host has no say
    assert_eq!(fs::metadata(tree.join("d"))?.mode() & 0o777, 0o755);
    assert_eq!(fs::metadata(store.root())?.permissions().mode() & 0o777, 0o700);
    Ok(())
}

fn owned() -> Vec<u8> {
    let mut header = Tar::header(EntryType::Regular, b"su", b"", 0);
    header.set_mode(0o4111);
    header.set_uid(33);
    header.set_gid(44);
    let mut directory = Tar::header(EntryType::Directory, b"closed", b"", 0);
    directory.set_mode(0o2055);
    directory.set_uid(70000);
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Tar::new()
        .raw(header, b"")
        .raw(directory, b"")
        .file("closed/inside", b"made all the same")
        .pax(&[("SCHILY.xattr.security.capability", &capability)])
        .file("capable", b"")
        .device("null", EntryType::Char, 1, 3)
        .end()
}

fn owners_as_root() -> Outcome {
    let (_dir, store) = store()?;
    let image = store.import(rootfs(owned()).devices(Devices::Create), "owned")?;
    let tree = tree_of(&store, &image, 0);
    let meta = fs::metadata(tree.join("su"))?;
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o4111, 33, 44));
    let meta = fs::metadata(tree.join("closed"))?;
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o2055, 70000, 0));
    assert_eq!(fs::metadata(tree.join("closed/inside"))?.gid(), 0);
    let capability = tree::attribute(File::open(tree.join("capable"))?.as_fd(), c"security.capability")?;
    assert_eq!(capability.map(|c| c.len()), Some(20));
    assert_eq!(fs::metadata(tree.join("null"))?.rdev(), 0x103);
    assert_eq!(store.layer(image.layers()[0])?.left_out, Default::default());
    Ok(())
}

fn owners_as_a_user() -> Outcome {
    let (_dir, store) = store()?;
    let image = store.import(rootfs(owned()), "owned")?;
    let tree = tree_of(&store, &image, 0);
    let own = nix::unistd::geteuid().as_raw();
    for (name, mode, stat) in [("su", 0o4511, "33 44 4111"), ("closed", 0o2755, "70000 0 2055")] {
        let meta = fs::metadata(tree.join(name))?;
        assert_eq!((meta.mode() & 0o7777, meta.uid()), (mode, own), "{name}");
        let kept = tree::attribute(File::open(tree.join(name))?.as_fd(), c"user.belljar.stat")?;
        assert_eq!(kept.as_deref(), Some(stat.as_bytes()));
    }
    let left_out = store.layer(image.layers()[0])?.left_out;
    assert_eq!((left_out.devices, left_out.attributes, left_out.owners), (1, 1, 2));
    let refused = store.import(rootfs(owned()).devices(Devices::Create), "devices");
    assert_eq!(refused.err().map(|e| e.kind()), Some(ErrorKind::NotPermitted));
    Ok(())
}

fn whiteouts_become_overlay_marks() -> Outcome {
    let (_dir, store) = store()?;
    let archive = Tar::new()
        .directory("d")
        .file("d/.wh.gone", b"")
        .file(".wh.top", b"")
        .directory("o")
        .file("o/.wh.redundant", b"")
        .file("o/new", b"")
        .file("o/.wh..wh..opq", b"")
        .file("o/.wh.redundant2", b"")
        // removed and made again, in either order
        .file(".wh.again", b"")
        .directory("again")
        .directory("before")
        .file(".wh.before", b"")
        .file(".wh.file", b"")
        .file("file", b"new")
        .file(".wh.made", b"")
        .file("made/below", b"")
        .end();
    let image = store.import(rootfs(archive), "marks")?;
    let tree = tree_of(&store, &image, 0);
    for path in ["d/gone", "top"] {
        let meta = fs::symlink_metadata(tree.join(path))?;
        assert!(meta.file_type().is_char_device() && meta.rdev() == 0, "{path}");
    }
    let opaque = |path: &str| -> Fallible<bool> {
        let value = tree::attribute(File::open(tree.join(path))?.as_fd(), c"user.overlay.opaque")?;
        Ok(value.as_deref() == Some(b"y"))
    };
    let found = ["d", "o", "again", "before", "made"].map(|path| opaque(path).ok());
    assert_eq!(found, [Some(false), Some(true), Some(true), Some(true), Some(true)]);
    assert_eq!(fs::read_dir(tree.join("o"))?.count(), 1);
    assert_eq!(fs::read(tree.join("file"))?, b"new");
    assert!(tree.join("made/below").exists());
    if nix::unistd::geteuid().is_root() {
        let value = tree::attribute(File::open(tree.join("o"))?.as_fd(), c"trusted.overlay.opaque")?;
        assert_eq!(value.as_deref(), Some(&b"y"[..]));
    }
    Ok(())
}

pub fn two_layers() -> Vec<LayerBlob> {
    let base = Tar::new().directory("etc").file("etc/a", b"1").file("etc/b", b"1").end();
    let top = Tar::new().directory("etc").file("etc/.wh.a", b"").file("etc/b", b"2").end();
    vec![LayerBlob::gzip(base), LayerBlob { blob: top.clone(), archive: top }]
}

fn layouts_and_archives() -> Outcome {
    let (dir, store) = store()?;
    let at = dir.path().join("layout");
    let config = layout(&at, &two_layers(), json!({ "Env": ["A=1"], "Cmd": ["sh"] }))?;
    let told = AtomicU64::new(0);
    let observer = |progress: &belljar::image::Progress| {
        told.fetch_add(u64::from(progress.done), Ordering::Relaxed);
        assert_eq!(progress.layers, 2);
    };
    let import = Import::oci_layout(&at).durability(Durability::Process).progress(&observer);
    let image = store.import(import, "localhost:5000/team/app:v1")?;
    assert_eq!((image.id(), image.layers().len()), (config, 2));
    assert_eq!(told.load(Ordering::Relaxed), 2);
    assert_eq!(image.configuration().config().as_ref().and_then(|c| c.env().clone()), Some(vec!["A=1".to_owned()]));
    // the same as an archive, with a link among the blobs
    let tar = dir.path().join("layout.tar");
    let made = std::process::Command::new("tar").arg("-C").arg(&at).arg("-cf").arg(&tar).arg(".").status()?;
    assert!(made.success());
    let again = store.import(Import::detect(&tar).reference("v1"), "again")?;
    assert_eq!((again.id(), again.name()), (config, "again:latest"));
    // docker save, with a symbolic link for a layer
    let layers = two_layers();
    let configuration = fs::read(at.join("blobs/sha256").join(config.hex()))?;
    let manifest = json!([{ "Config": "c.json", "RepoTags": ["x:1"], "Layers": ["1/layer.tar", "2/layer.tar"] }]);
    let docker = Tar::new()
        .file("c.json", &configuration)
        .file("base.tar", &layers[0].archive)
        .symlink("1/layer.tar", "../base.tar")
        .file("2/layer.tar", &layers[1].archive)
        .file("manifest.json", manifest.to_string().as_bytes())
        .end();
    let path = dir.path().join("docker.tar");
    fs::write(&path, docker)?;
    let elsewhere = Store::open(dir.path().join("elsewhere"))?;
    let docker = elsewhere.import(Import::detect(&path).reference("x:1").durability(Durability::Process), "docker")?;
    assert_eq!((docker.id(), docker.layers()), (config, image.layers()));
    let names: Vec<String> = store.images()?.iter().map(|i| i.name().to_owned()).collect();
    assert_eq!(names, ["again:latest", "localhost:5000/team/app:v1"]);
    // stored once, and nothing left over
    assert_eq!(fs::read_dir(store.root().join("layers"))?.count(), 2);
    assert_eq!(fs::read_dir(store.root().join("tmp"))?.count(), 0);
    store.remove("again")?;
    assert_eq!(store.image("again").err().map(|e| e.kind()), Some(ErrorKind::NotFound));
    Ok(())
}

fn digests_are_verified() -> Outcome {
    let (dir, store) = store()?;
    let flaw = |layers: &[LayerBlob], damage: &dyn Fn(&Path) -> Fallible<()>| -> Fallible<FlawKind> {
        let at = dir.path().join("layout");
        layout(&at, layers, json!({}))?;
        damage(&at)?;
        let error = store.import(Import::oci_layout(&at), "damaged").err().ok_or("it was taken")?;
        fs::remove_dir_all(at)?;
        Ok(error.flaw().ok_or_else(|| error.to_string())?.kind())
    };
    // the blob of another archive under the diff-id of the first
    let mut swapped = two_layers();
    swapped[1].blob = Tar::new().file("evil", b"").end();
    assert_eq!(flaw(&swapped, &|_| Ok(()))?, FlawKind::Digest);
    let tail = |blob: &[u8]| [blob, &[0; 512]].concat();
    let damage = |at: &Path| -> Fallible<()> {
        let blob = at.join("blobs/sha256").join(belljar::image::Digest::of(&two_layers()[1].blob).hex());
        Ok(fs::write(&blob, tail(&fs::read(&blob)?))?)
    };
    assert_eq!(flaw(&two_layers(), &damage)?, FlawKind::Digest);
    let config = |at: &Path| -> Fallible<()> {
        for entry in fs::read_dir(at.join("blobs/sha256"))? {
            let path = entry?.path();
            let text = fs::read(&path)?;
            if text.starts_with(b"{")
                && !text.windows(6).any(|w| w == b"layers\"".get(..6).unwrap_or_default() && text.len() > 600)
            {
                fs::write(&path, String::from_utf8_lossy(&text).replace("linux", "linuy"))?;
            }
        }
        Ok(())
    };
    assert_eq!(flaw(&two_layers(), &config)?, FlawKind::Digest);
    assert_eq!(fs::read_dir(store.root().join("images"))?.count(), 0);
    assert_eq!(fs::read_dir(store.root().join("tmp"))?.count(), 0);
    Ok(())
}

fn platforms_and_references() -> Outcome {
    let (dir, store) = store()?;
    let at = dir.path().join("layout");
    layout(&at, &two_layers(), json!({}))?;
    let edit = |change: &dyn Fn(&mut serde_json::Value)| -> Fallible<()> {
        let path = at.join("index.json");
        let mut index: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
        change(&mut index);
        Ok(fs::write(path, index.to_string())?)
    };
    let import = |reference: Option<&str>, platform: Platform| {
        let import = Import::oci_layout(&at).platform(platform).durability(Durability::Process);
        let import = match reference {
            Some(reference) => import.reference(reference),
            None => import,
        };
        store.import(import, "x").map_err(|e| e.kind())
    };
    let riscv = Platform { os: "linux".into(), architecture: "riscv64".into(), variant: None };
    assert!(import(Some("v1"), Platform::host()).is_ok());
    assert_eq!(import(Some("v2"), Platform::host()).err(), Some(ErrorKind::NotFound));
    edit(&|index| index["manifests"][0]["platform"] = json!({ "os": "linux", "architecture": "riscv64" }))?;
    assert_eq!(import(None, Platform::host()).err(), Some(ErrorKind::NotFound));
    assert!(import(None, riscv).is_ok());
    // two of one platform: which?
    edit(&|index| {
        let mut second = index["manifests"][0].clone();
        second["annotations"]["org.opencontainers.image.ref.name"] = json!("v2");
        second["platform"] = json!({ "os": "linux", "architecture": Platform::host().architecture });
        index["manifests"][0]["platform"] = second["platform"].clone();
        index["manifests"] = json!([index["manifests"][0], second]);
    })?;
    assert!(import(Some("v2"), Platform::host()).is_ok());
    Ok(())
}

fn zstd_of_several_frames() -> Outcome {
    let (dir, store) = store()?;
    let archive = Tar::new().file("x", &vec![b'x'; 300_000]).file("y", b"").end();
    let zstd = |bytes: &[u8]| -> Fallible<Vec<u8>> {
        let path = dir.path().join("part");
        fs::write(&path, bytes)?;
        Ok(std::process::Command::new("zstd").arg("-q").arg("-c").arg(&path).output()?.stdout)
    };
    let (first, second) = archive.split_at(100_000);
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 5, 0, 0, 0][..], b"table"].concat();
    let stream = [zstd(first)?, skippable.clone(), zstd(second)?, skippable].concat();
    let image = store.import(rootfs(stream.clone()), "zstd")?;
    let plain = store.import(rootfs(archive), "plain")?;
    assert_eq!(image.layers(), plain.layers());
    let mut damaged = stream;
    damaged[200] ^= 0xff;
    let error = store.import(rootfs(damaged), "damaged").err().ok_or("it was taken")?;
    assert!(error.flaw().is_some(), "{error}");
    Ok(())
}

fn stores_of_others() -> Outcome {
    let dir = TempDir::new()?;
    fs::write(dir.path().join("something"), "")?;
    assert_eq!(Store::open(dir.path()).err().map(|e| e.kind()), Some(ErrorKind::NotSupported));
    let at = dir.path().join("store");
    Store::open(&at)?;
    fs::write(at.join("version"), "belljar image store 99\n")?;
    assert_eq!(Store::open(&at).err().map(|e| e.kind()), Some(ErrorKind::NotSupported));
    let foreign = if nix::unistd::geteuid().is_root() {
        let path = dir.path().join("foreign");
        fs::create_dir(&path)?;
        std::os::unix::fs::chown(&path, Some(1), Some(1))?;
        path
    } else {
        PathBuf::from("/usr")
    };
    assert_eq!(Store::open(foreign).err().map(|e| e.kind()), Some(ErrorKind::NotPermitted));
    for name in ["", "../x", "a b", "a//b"] {
        let import = rootfs(Tar::new().end());
        let store = Store::open(dir.path().join("names"))?;
        assert_eq!(store.import(import, name).err().map(|e| e.kind()), Some(ErrorKind::InvalidSpec));
    }
    Ok(())
}
