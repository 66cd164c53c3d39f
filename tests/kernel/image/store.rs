//! The store: collection, verification, sizes, interrupted and simultaneous imports.

use super::archives::{Fallible, LayerBlob, Tar, layout};
use super::import::tree_of;
use crate::harness::{Outcome, TempDir, Test};
use belljar::image::{Durability, Import, Store};
use belljar::{Bytes, FlawKind};
use serde_json::json;
use std::fs;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("image::store::gc_removes_what_nothing_refers_to", &[], gc_removes_what_nothing_refers_to),
        Test::new("image::store::verify_finds_every_change", &[], verify_finds_every_change),
        Test::new("image::store::sizes", &[], sizes),
        Test::new("image::store::torn_records", &[], torn_records),
        Test::new("image::store::links_and_others_in_the_store", &[], links_and_others_in_the_store),
        Test::new("image::store::two_processes_import_at_once", &[], two_processes_import_at_once),
        Test::new(
            "image::store::killed_imports_and_commits_leave_nothing",
            &[],
            killed_imports_and_commits_leave_nothing,
        ),
    ]
}

fn rootfs(archive: Vec<u8>) -> Import<'static> {
    Import::rootfs_from("test.tar", Cursor::new(archive)).durability(Durability::Process)
}

fn three_layers() -> Vec<LayerBlob> {
    let layer = |name: &str, count: usize| {
        let mut tar = Tar::new().directory(name);
        for i in 0..count {
            tar = tar.file(&format!("{name}/{i}"), format!("{name} {i}").repeat(100).as_bytes());
        }
        LayerBlob::gzip(tar.end())
    };
    vec![layer("a", 300), layer("b", 200), layer("c", 100)]
}

fn gc_removes_what_nothing_refers_to() -> Outcome {
    let dir = TempDir::new()?;
    let store = Store::open(dir.path().join("store"))?;
    let at = dir.path().join("layout");
    layout(&at, &three_layers(), json!({}))?;
    let image = store.import(Import::oci_layout(&at).durability(Durability::Process), "three")?;
    store.import(rootfs(three_layers().remove(0).archive), "first")?;
    assert_eq!(store.gc()?.layers, 0);
    let sizes = store.sizes("three")?;
    store.remove("three")?;
    let collected = store.gc()?;
    assert_eq!((collected.layers, collected.size), (2, sizes.own));
    assert!(tree_of(&store, &image, 0).exists());
    assert_eq!(fs::read_dir(store.root().join("configs"))?.count(), 1);
    store.remove("first")?;
    assert_eq!(store.gc()?.layers, 1);
    for part in ["layers", "configs", "images", "leases", "locks", "tmp"] {
        assert_eq!(fs::read_dir(store.root().join(part))?.count(), 0, "{part}");
    }
    Ok(())
}

fn verify_finds_every_change() -> Outcome {
    let dir = TempDir::new()?;
    let store = Store::open(dir.path().join("store"))?;
    let archive = || {
        Tar::new()
            .directory("d")
            .file("d/f", b"content")
            .hard_link("h", "d/f")
            .symlink("s", "d/f")
            .pax(&[("SCHILY.xattr.user.note", b"yes")])
            .file("x", b"")
            .file("d/.wh.gone", b"")
            .file("implicit/y", b"")
            .end()
    };
    let image = store.import(rootfs(archive()), "image")?;
    assert!(store.verify()?.is_empty(), "{:?}", store.verify()?);
    let again = || -> Fallible<()> {
        store.remove("image")?;
        store.gc()?;
        store.import(rootfs(archive()), "image")?;
        Ok(())
    };
    let tree = tree_of(&store, &image, 0);
    type Change = fn(&Path) -> std::io::Result<()>;
    let keep_time = |path: &Path, change: &dyn Fn(&Path) -> std::io::Result<()>| -> std::io::Result<()> {
        let time = fs::metadata(path)?.modified()?;
        change(path)?;
        fs::File::options().write(true).open(path)?.set_modified(time)
    };
    let changes: [(&str, Change); 8] = [
        ("mode", |tree| fs::set_permissions(tree.join("d/f"), fs::Permissions::from_mode(0o600))),
        ("time", |tree| {
            fs::File::options().write(true).open(tree.join("x"))?.set_modified(std::time::SystemTime::now())
        }),
        ("length", |tree| fs::write(tree.join("d/f"), "content!")),
        ("link", |tree| {
            fs::remove_file(tree.join("s"))?;
            std::os::unix::fs::symlink("/etc/passwd", tree.join("s"))
        }),
        ("hard link", |tree| {
            fs::copy(tree.join("h"), tree.join("h2"))?;
            fs::rename(tree.join("h2"), tree.join("h"))
        }),
        ("missing", |tree| fs::remove_file(tree.join("x"))),
        ("too many", |tree| fs::write(tree.join("implicit/z"), "")),
        ("kind", |tree| {
            fs::remove_file(tree.join("x"))?;
            fs::create_dir(tree.join("x"))
        }),
    ];
    for (what, change) in changes {
        change(&tree)?;
        let damage = store.verify()?;
        assert_eq!(damage.len(), 1, "{what}");
        assert_eq!(damage[0].flaw().map(|f| f.kind()), Some(FlawKind::Damaged), "{what}: {}", damage[0]);
        again()?;
        assert!(store.verify()?.is_empty(), "after {what}");
    }
    // one bit of content, everything else as it was
    keep_time(&tree.join("d/f"), &|path| fs::write(path, "contenT"))?;
    assert_eq!(store.verify()?.len(), 1);
    fs::remove_dir_all(store.root().join("layers").join(image.layers()[0].hex()))?;
    assert_eq!(store.verify()?.len(), 1);
    Ok(())
}

fn sizes() -> Outcome {
    let dir = TempDir::new()?;
    let store = Store::open(dir.path().join("store"))?;
    let at = dir.path().join("layout");
    layout(&at, &three_layers(), json!({}))?;
    let image = store.import(Import::oci_layout(&at), "three")?;
    let alone = store.sizes("three")?;
    assert_eq!((alone.own, alone.shared), (alone.r#virtual, Default::default()));
    store.tag("three", "same")?;
    assert_eq!(store.sizes("three")?, alone, "another name is no other image");
    store.import(rootfs(three_layers().remove(0).archive), "first")?;
    let shared = store.sizes("three")?;
    assert_eq!(shared.r#virtual, alone.r#virtual);
    assert_eq!(shared.shared, store.sizes("first")?.r#virtual);
    let bytes: u64 = (0..300).map(|i| format!("a {i}").len() as u64 * 100).sum();
    assert_eq!(shared.shared.bytes, Bytes::new(bytes));
    let du = Command::new("du").args(["-s", "--block-size=1"]).arg(tree_of(&store, &image, 0)).output()?;
    let du: u64 = String::from_utf8(du.stdout)?.split_whitespace().next().ok_or("du says nothing")?.parse()?;
    assert_eq!(shared.shared.blocks, Bytes::new(du));
    Ok(())
}

/// What a power failure or a full disk may leave: told, and mended by a new import.
fn torn_records() -> Outcome {
    let dir = TempDir::new()?;
    let store = Store::open(dir.path().join("store"))?;
    let archive = || three_layers().remove(0).archive;
    store.import(rootfs(archive()), "torn")?;
    let image = store.import(rootfs(archive()), "whole")?;
    let root = store.root();
    let record = root.join("images/torn:latest");
    let config = root.join("configs").join(image.id().hex());
    let (good_record, good_config) = (fs::read(&record)?, fs::read(&config)?);
    for (path, good, wrong) in [(&record, &good_record, 1), (&config, &good_config, 2)] {
        for torn in [&good[..good.len() / 2], b"", b"null", b"\xff\xfe"] {
            fs::write(path, torn)?;
            assert_eq!(store.verify()?.len(), wrong, "{path:?}: {torn:?}");
            let error = store.gc().err().ok_or("gc believes a torn record")?;
            assert!(error.flaw().is_some(), "{error}");
            fs::write(path, good)?;
            assert!(store.verify()?.is_empty());
        }
    }
    fs::remove_file(&config)?;
    assert_eq!(store.verify()?.len(), 2);
    assert!(store.gc().is_err());
    // a new import brings back what it needs
    store.import(rootfs(archive()), "whole")?;
    assert!(store.verify()?.is_empty());
    fs::write(&record, b"")?;
    store.remove("torn")?;
    // a lease that holds nothing would not hold
    let held = belljar::RootFs::image(&store, "whole")?;
    let lease = root.join("leases").join(image.id().hex());
    drop(held);
    fs::write(&lease, b"")?;
    let held = belljar::RootFs::image(&store, "whole")?;
    store.remove("whole")?;
    assert_eq!(store.gc()?.layers, 0);
    drop(held);
    assert_eq!(store.gc()?.layers, 1);
    Ok(())
}

/// A store in which somebody else could have a hand is not used.
fn links_and_others_in_the_store() -> Outcome {
    let dir = TempDir::new()?;
    let root = dir.path().join("store");
    let kind = || Store::open(&root).err().map(|error| error.kind());
    assert_eq!(kind(), None);
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir(&elsewhere)?;
    fs::remove_dir(root.join("tmp"))?;
    std::os::unix::fs::symlink(&elsewhere, root.join("tmp"))?;
    assert_eq!(kind(), Some(belljar::ErrorKind::NotPermitted));
    fs::remove_file(root.join("tmp"))?;
    for path in [&root, &root.join("layers")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
        assert_eq!(kind(), Some(belljar::ErrorKind::NotPermitted), "{path:?}");
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    assert_eq!(kind(), None);
    // what somebody has put below tmp stops nothing
    std::os::unix::fs::symlink("/etc", root.join("tmp/link"))?;
    nix::unistd::mkfifo(&root.join("tmp/fifo"), nix::sys::stat::Mode::S_IRWXU)?;
    assert_eq!(kind(), None);
    assert!(Path::new("/etc/passwd").exists());
    Ok(())
}

/// This program again, as one that imports: see `main`.
pub fn importer(arguments: &str) -> ExitCode {
    let (store, layout) = arguments.split_once('|').unwrap_or_default();
    if let Some(archive) = layout.strip_prefix("measure:") {
        return super::memory::measured(store, archive);
    }
    if let Some(upper) = layout.strip_prefix("upper:") {
        let commit = || belljar::image::Commit::upper(upper).parent("image").durability(Durability::Process);
        let committed = Store::open(store).and_then(|store| store.commit(commit(), "committed"));
        return ExitCode::from(u8::from(committed.is_err()));
    }
    let imported = Store::open(store)
        .and_then(|store| store.import(Import::oci_layout(layout).durability(Durability::Process), "image"));
    match imported {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn import_elsewhere(store: &Path, layout: &Path) -> Fallible<std::process::Child> {
    let arguments = format!("{}|{}", store.display(), layout.display());
    let mut command = Command::new(std::env::current_exe()?);
    Ok(command.env("BELLJAR_TEST_IMPORTER", arguments).stdout(Stdio::null()).spawn()?)
}

fn two_processes_import_at_once() -> Outcome {
    let dir = TempDir::new()?;
    let (at, root) = (dir.path().join("layout"), dir.path().join("store"));
    layout(&at, &three_layers(), json!({}))?;
    let mut importers = (0..4).map(|_| import_elsewhere(&root, &at)).collect::<Result<Vec<_>, _>>()?;
    for importer in &mut importers {
        assert!(importer.wait()?.success());
    }
    let store = Store::open(&root)?;
    assert_eq!(fs::read_dir(root.join("layers"))?.count(), 3);
    assert_eq!(fs::read_dir(root.join("tmp"))?.count(), 0);
    assert!(store.verify()?.is_empty());
    Ok(())
}

fn killed_imports_and_commits_leave_nothing() -> Outcome {
    let dir = TempDir::new()?;
    let (at, root) = (dir.path().join("layout"), dir.path().join("store"));
    layout(&at, &three_layers(), json!({}))?;
    // how long an undisturbed one takes: the kills are spread over that
    let started = std::time::Instant::now();
    assert!(import_elsewhere(&dir.path().join("control"), &at)?.wait()?.success());
    let whole = started.elapsed().max(Duration::from_millis(5));
    let mut killed = 0;
    for i in 0..20 {
        let mut importer = import_elsewhere(&root, &at)?;
        std::thread::sleep(whole * i / 20);
        importer.kill()?;
        killed += u32::from(!importer.wait()?.success());
        // whatever it was doing, the store is sound, and its leavings go
        let store = Store::open(&root)?;
        assert!(store.verify()?.is_empty());
        if i % 3 == 0 {
            let _ = store.remove("image"); // or there is nothing to resume
            store.gc()?;
            assert_eq!(fs::read_dir(root.join("layers"))?.count(), 0);
        }
        let left: Vec<_> = fs::read_dir(root.join("tmp"))?.flatten().filter(|e| e.path().is_dir()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    assert!(killed > 5, "only {killed} were killed in time");
    assert!(import_elsewhere(&root, &at)?.wait()?.success());
    let store = Store::open(&root)?;
    assert!(store.verify()?.is_empty());
    assert_eq!(store.image("image")?.layers().len(), 3);
    // and commits
    let upper = dir.path().join("upper/upper");
    fs::create_dir_all(&upper)?;
    for i in 0..300 {
        fs::write(upper.join(i.to_string()), vec![b'x'; 2000])?;
    }
    let started = std::time::Instant::now();
    let upper_of = format!("upper:{}", dir.path().join("upper").display());
    assert!(import_elsewhere(&root, Path::new(&upper_of))?.wait()?.success());
    let whole = started.elapsed().max(Duration::from_millis(5));
    let id = store.image("committed")?.id();
    for i in 0..10 {
        store.remove("committed")?;
        store.gc()?;
        let mut committer = import_elsewhere(&root, Path::new(&upper_of))?;
        std::thread::sleep(whole * i / 10);
        committer.kill()?;
        committer.wait()?;
        assert!(Store::open(&root)?.verify()?.is_empty());
        assert!(import_elsewhere(&root, Path::new(&upper_of))?.wait()?.success());
        assert_eq!(store.image("committed")?.id(), id);
    }
    assert!(store.verify()?.is_empty());
    Ok(())
}
