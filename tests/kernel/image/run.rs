//! Images in sandboxes and back: running, committing, exporting, comparing.

use super::archives::{Fallible, LayerBlob, Tar, layout};
use super::import::tree_of;
use super::tree::{describe, differences};
use crate::common::{assert_kind, prints, refused, sh, text, with_programs, without};
use crate::harness::{Need, Outcome, TempDir, Test};
use belljar::image::{Commit, Compression, DifferenceKind, Durability, Image, Import, Store};
use belljar::testing::feature;
use belljar::{Command, ErrorKind, IdMap, IdRange, RootFs, Sandbox, Upper};
use serde_json::json;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("image::run::configuration_is_the_default", &[Need::UserOverlay], configuration_is_the_default),
        Test::new("image::run::users_by_name", &[Need::UserOverlay], users_by_name),
        Test::new("image::run::deletions_hide", &[Need::UserOverlay], deletions_hide),
        Test::new("image::run::leases_outlive_names", &[Need::UserOverlay], leases_outlive_names),
        Test::new("image::commit::of_changes", &[Need::UserOverlay, Need::Kernel(6, 6)], commit_of_changes),
        Test::new("image::commit::of_a_persistent_upper", &[Need::UserOverlay], commit_of_a_persistent_upper),
        Test::new("image::commit::of_uppers_with_other_maps", &[Need::Root, Need::Kernel(5, 11)], commit_of_other_maps),
        Test::new("image::commit::is_reproducible", &[Need::UserOverlay], commit_is_reproducible),
        Test::new("image::export::round_trips", &[], export_round_trips),
        Test::new("image::squash_shows_the_same", &[], squash_shows_the_same),
        Test::new("image::diff_of_two_images", &[], diff_of_two_images),
    ]
}

fn base() -> Vec<u8> {
    let mut tar = Tar::new();
    for directory in ["usr", "bin", "lib", "lib64", "sbin", "proc", "dev", "tmp", "etc", "srv"] {
        tar = tar.directory(directory);
    }
    tar.file("etc/passwd", b"root:x:0:0::/:/bin/sh\nworker:x:7:8::/:/bin/sh\n")
        .file("etc/group", b"root:x:0:\nwork:x:8:\nextra:x:9:worker\n")
        .directory("old")
        .file("old/1", b"1")
        .file("old/2", b"2")
        .file("srv/gone", b"")
        .file("srv/kept", b"kept")
        .hard_link("srv/linked", "srv/kept")
        .end()
}

fn top() -> Vec<u8> {
    Tar::new()
        .directory("srv")
        .file("srv/.wh.gone", b"")
        .directory("old")
        .file("old/.wh..wh..opq", b"")
        .file("old/3", b"3")
        .end()
}

fn store_with(config: serde_json::Value) -> Fallible<(TempDir, Store, Image)> {
    let dir = TempDir::new()?;
    let store = Store::open(dir.path().join("store"))?;
    let at = dir.path().join("layout");
    layout(&at, &[LayerBlob::gzip(base()), LayerBlob::gzip(top())], config)?;
    let image = store.import(Import::oci_layout(&at).durability(Durability::Process), "app:1")?;
    Ok((dir, store, image))
}

fn sandbox(store: &Store, name: &str) -> Fallible<Sandbox> {
    Ok(with_programs(Sandbox::builder(RootFs::image(store, name)?)).build()?)
}

fn configuration_is_the_default() -> Outcome {
    let config = json!({
        "Env": ["PATH=/usr/bin:/bin", "GREETING=hello world"],
        "WorkingDir": "/srv",
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": ["echo $GREETING from $PWD"],
    });
    let (_dir, store, _) = store_with(config)?;
    let sandbox = sandbox(&store, "app:1")?;
    let output = sandbox.output(&Command::entrypoint())?;
    assert_eq!(text(&output), "hello world from /srv\n");
    let output =
        sandbox.output(Command::entrypoint().arg("echo $GREETING; pwd").env("GREETING", "bye").current_dir("/"))?;
    assert_eq!(text(&output), "bye\n/\n");
    assert_eq!(prints(&sandbox, "echo $PATH")?, "/usr/bin:/bin");
    let output = sandbox.output(sh("echo ${GREETING-none}").env_clear())?;
    assert_eq!(text(&output), "none\n");
    // an image that names no program; a root that is none
    let (_dir, store, _) = store_with(json!({}))?;
    let error = refused(self::sandbox(&store, "app:1")?.spawn(&Command::entrypoint()))?;
    assert_kind(&error, ErrorKind::InvalidSpec);
    assert!(error.to_string().contains("app:1"), "{error}");
    Ok(())
}

fn users_by_name() -> Outcome {
    let root = nix::unistd::geteuid().is_root();
    for (user, ids) in
        [("worker", "7 8 8 9"), ("worker:root", "7 0 0"), ("7:9", "7 9 9"), ("7", "7 8 8 9"), ("99", "99 0 0")]
    {
        let (_dir, store, _) = store_with(json!({ "User": user }))?;
        let sandbox = sandbox(&store, "app:1")?;
        if root {
            assert_eq!(prints(&sandbox, "echo $(id -u) $(id -g) $(id -G)")?, ids, "{user}");
            let own = sandbox.output(sh("id -u").uid(3).gid(3))?;
            assert_eq!(text(&own), "3\n");
        } else {
            // one id only: never silently another
            assert_kind(&refused(sandbox.spawn(&sh("true")))?, ErrorKind::InvalidSpec);
            assert_eq!(text(&sandbox.output(sh("id -u").uid(0).gid(0))?), "0\n");
        }
    }
    for user in ["nobody", "root:nobody", "-1", "0x0", "+0", "worker "] {
        let (_dir, store, _) = store_with(json!({ "User": user }))?;
        assert_kind(&refused(RootFs::image(&store, "app:1"))?, ErrorKind::NotFound);
    }
    Ok(())
}

fn deletions_hide() -> Outcome {
    let (_dir, store, _) = store_with(json!({}))?;
    let sandbox = sandbox(&store, "app:1")?;
    assert_eq!(prints(&sandbox, "cd /; echo old/* srv/*")?, "old/3 srv/kept srv/linked");
    // root is root of its files, whoever started it
    assert_eq!(prints(&sandbox, "stat -c %u:%g /srv/kept /old")?, "0:0\n0:0");
    assert_eq!(prints(&sandbox, "echo changed > /srv/kept; cat /srv/kept")?, "changed");
    assert_eq!(prints(&sandbox, "cat /srv/kept")?, "kept");
    Ok(())
}

fn leases_outlive_names() -> Outcome {
    let (_dir, store, image) = store_with(json!({}))?;
    let tree = tree_of(&store, &image, 0);
    // with two locks to be held: the layers' and the upper's
    let upper = TempDir::new()?;
    let root = RootFs::image(&store, "app:1")?.upper(Upper::Persist(upper.path().join("upper")));
    store.remove("app:1")?;
    assert_eq!(store.gc()?.layers, 0, "a root holds its layers");
    let sandbox = with_programs(Sandbox::builder(root)).build()?;
    assert_eq!(store.gc()?.layers, 0, "a sandbox holds its layers");
    let child = sandbox.spawn(sh("sleep 60").stdin(belljar::Stdio::Null))?;
    drop(sandbox);
    assert_eq!(store.gc()?.layers, 0, "a running child holds its layers");
    assert!(tree.exists());
    // one that no process of ours holds any more
    let pidfd = belljar::sys::pidfd::PidFd::from(child.detach()?);
    assert_eq!(store.gc()?.layers, 0, "a detached child holds its layers");
    assert!(tree.exists());
    pidfd.send_signal(9)?;
    pidfd.wait()?;
    belljar::sweep(); // what nobody is left to remove
    assert_eq!(store.gc()?.layers, 2);
    assert!(!tree.exists());
    Ok(())
}

/// What a run changes, in each way.
const CHANGES: &str =
    "cd /srv; echo new > added; ln added added2; rm kept; mkdir -p d/e; echo x > d/e/f; ln -s ../anywhere link
    rm -r /old; mkdir /old; echo y > /old/y; chmod 711 /etc; mkfifo pipe; chmod 4755 d/e/f";

fn changed(sandbox: &Sandbox) -> Fallible<String> {
    prints(sandbox, "cd /; find srv old etc -printf '%p %y %m %U:%G %n %s %l\\n' | sort; cat srv/added srv/d/e/f old/y")
}

fn commit_of_changes() -> Outcome {
    let (_dir, store, image) = store_with(json!({ "Env": ["A=1"] }))?;
    let root = RootFs::image(&store, "app:1")?.hosts([("10.0.0.1".parse()?, "other")]).track_changes();
    let writer = with_programs(Sandbox::builder(root)).build()?;
    let mut child = writer.spawn(&sh(&format!("set -e; {CHANGES}; echo 10.0.0.2 more >> /etc/hosts")))?;
    assert!(child.wait()?.success());
    let changes = child.changes()?;
    let commit = Commit::changes(&changes)
        .parent("app:1")
        .author("somebody")
        .created_by("a test")
        .cmd(["/bin/true"])
        .env(["A=2"])
        .label("k", "v")
        .durability(Durability::Process);
    let committed = store.commit(commit, "app:2")?;
    drop((changes, child));
    assert_eq!(committed.layers()[..2], *image.layers());
    assert_eq!(committed.layers().len(), 3);
    let config = committed.configuration().config().clone().ok_or("no config")?;
    assert_eq!(
        (config.env().clone(), config.cmd().clone()),
        (Some(vec!["A=2".into()]), Some(vec!["/bin/true".into()]))
    );
    assert!(store.verify()?.is_empty(), "{:?}", store.verify()?);
    // the init layer stays out
    assert!(!tree_of(&store, &committed, 2).join("etc/hosts").exists());
    let shown = changed(&sandbox(&store, "app:2")?)?;
    for line in [
        "srv/added f 644 0:0 2 4",
        "srv/d/e/f f 4755 0:0 1 2",
        "old/y f 644 0:0 1 2",
        "srv/pipe p 644 0:0 1 0",
        "etc d 711 0:0 ",
    ] {
        assert!(shown.contains(line), "{line:?} is not in {shown}");
    }
    for line in ["srv/kept", "old/3"] {
        assert!(!shown.contains(line), "{line:?} is in {shown}");
    }
    assert!(shown.contains("srv/link l ") && shown.contains("../anywhere"));
    // what was committed is what the second run sees as unchanged
    let kinds: Vec<_> = store.diff("app:1", "app:2")?.iter().map(|d| format!("{d}")).collect();
    for line in ["A /srv/added", "D /srv/kept", "A /srv/d/e/f", "D /old/3", "A /old/y", "M /etc"] {
        assert!(kinds.iter().any(|kind| kind == line), "{line:?} is not in {kinds:?}");
    }
    Ok(())
}

fn commit_of_a_persistent_upper() -> Outcome {
    let (dir, store, _) = store_with(json!({}))?;
    let upper = dir.path().join("upper");
    let root = RootFs::image(&store, "app:1")?.upper(Upper::Persist(upper.clone()));
    // an init layer: written to, and removed, and not committed
    let own = root.clone().hosts([("10.0.0.1".parse()?, "other")]).file("/srv/own", "1").file("/srv/removed", "2");
    let with_own = with_programs(Sandbox::builder(own)).build()?;
    assert_eq!(prints(&with_own, "echo more >> /etc/hosts; echo 3 > /srv/own; rm /srv/removed")?, "");
    assert!(upper.join("upper/etc/hosts").exists() && upper.join("upper/srv/own").exists());
    drop(with_own);
    let writer = with_programs(Sandbox::builder(root)).build()?;
    assert_eq!(prints(&writer, CHANGES)?, "");
    let before: String = changed(&writer)?
        .lines()
        .filter(|line| !line.contains("/own") && !line.contains("etc/hosts"))
        .map(|line| format!("{line}\n"))
        .collect();
    drop(writer);
    store.commit(Commit::upper(&upper).parent("app:1").except("/srv/pipe").durability(Durability::Process), "app:2")?;
    let after = changed(&sandbox(&store, "app:2")?)?;
    let without_pipe: Vec<&str> = before.lines().filter(|line| !line.contains("srv/pipe")).collect();
    let fields = |line: &str| {
        // the length of a directory is the file system's affair
        if line.contains(" d ") { line.split(' ').take(4).collect::<Vec<_>>().join(" ") } else { line.to_owned() }
    };
    assert_eq!(after.lines().map(fields).collect::<Vec<_>>(), without_pipe.into_iter().map(fields).collect::<Vec<_>>());
    Ok(())
}

/// Files that have ids of the host, and those that have the ids inside: a commit gives both back as the sandbox saw them,
/// whatever its map was.
fn commit_of_other_maps() -> Outcome {
    let dir = TempDir::new()?;
    let store = Store::open(dir.path().join("store"))?;
    let ranges = |outside| [IdRange { inside: 0, outside, count: 1000 }];
    let maps = [(0x7000_0000, IdMap::automatic()), (500, IdMap::ranges(ranges(500), ranges(500)))];
    for (number, (outside, map)) in maps.iter().enumerate() {
        for lacking in [0, feature::IDMAPPED] {
            // what is nobody's in the sandbox cannot be copied up
            let mut open = Tar::header(tar::EntryType::Directory, b"open", b"", 0);
            open.set_mode(0o1777);
            let mapped = lacking == 0 && Need::Kernel(5, 19).probe().is_ok();
            let owner = if mapped { 0 } else { *outside };
            open.set_uid(owner);
            open.set_gid(owner);
            let archive = Tar(base()[..base().len() - 1024].to_vec()).raw(open, b"").end();
            let import = Import::rootfs_from("base", std::io::Cursor::new(archive)).durability(Durability::Process);
            store.import(import, "app:1")?;
            let upper = dir.path().join(format!("upper{number}-{lacking}"));
            let root = RootFs::image(&store, "app:1")?.upper(Upper::Persist(upper.clone()));
            let namespaces = belljar::Namespaces::isolated().user(belljar::User::New(map.clone()));
            let write = || -> Outcome {
                let builder = with_programs(Sandbox::builder(root)).namespaces(namespaces);
                let sandbox = builder.build()?;
                // 501 inside is an id that the second map has outside too
                for id in [0, 7, 501] {
                    let output = sandbox.output(sh(&format!("echo {id} > /open/{id}")).uid(id).gid(id))?;
                    assert!(output.exit.success(), "{}", String::from_utf8_lossy(&output.stderr));
                }
                Ok(())
            };
            without(lacking, write)?;
            assert_eq!(upper.join("ids").exists(), !mapped, "map {number} without {lacking}");
            let commit = Commit::upper(&upper).parent("app:1").durability(Durability::Process);
            let image = store.commit(commit, "app:2")?;
            let tree = tree_of(&store, &image, 1);
            for id in [0, 7, 501] {
                let meta = fs::metadata(tree.join(format!("open/{id}")))?;
                assert_eq!((meta.uid(), meta.gid()), (id, id), "map {number} without {lacking}");
            }
        }
    }
    Ok(())
}

fn commit_is_reproducible() -> Outcome {
    let (dir, store, _) = store_with(json!({}))?;
    let mut ids = Vec::new();
    for run in 0..2 {
        let upper = dir.path().join(format!("upper{run}"));
        let root = RootFs::image(&store, "app:1")?.upper(Upper::Persist(upper.clone()));
        let writer = with_programs(Sandbox::builder(root)).build()?;
        // in another order, at another time
        let names = if run == 0 { "a b c" } else { "c b a" };
        prints(&writer, &format!("for i in {names}; do echo $i > /srv/$i; done"))?;
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let commit = Commit::upper(&upper).parent("app:1").latest_mtime(std::time::Duration::from_secs(1_600_000_000));
        ids.push(store.commit(commit.durability(Durability::Process), &format!("run:{run}"))?.id());
    }
    assert_eq!(ids[0], ids[1]);
    Ok(())
}

fn export_round_trips() -> Outcome {
    let (dir, store, image) = store_with(json!({ "Cmd": ["x"] }))?;
    let second = Store::open(dir.path().join("second"))?;
    let same = |import: Import<'_>, name: &str| -> Outcome {
        let copy = second.import(import.durability(Durability::Process), name)?;
        assert_eq!((copy.id(), copy.layers()), (image.id(), image.layers()), "{name}");
        for layer in 0..2 {
            let differ =
                differences(&describe(&tree_of(&store, &image, layer))?, &describe(&tree_of(&second, &copy, layer))?);
            assert!(differ.is_empty(), "{name}: {differ:#?}");
        }
        second.remove(name)?;
        second.gc()?;
        Ok(())
    };
    let at = dir.path().join("exported");
    store.export_oci("app:1", &at, Compression::Gzip)?;
    same(Import::oci_layout(&at).reference("1"), "gzip")?;
    store.export_oci("app:1", &at, Compression::None)?;
    same(Import::detect(&at), "none")?;
    let tar = dir.path().join("exported.tar");
    store.export_oci_archive("app:1", File::create(&tar)?, Compression::Gzip)?;
    same(Import::detect(&tar), "oci-archive")?;
    store.export_docker("app:1", File::create(&tar)?)?;
    same(Import::detect(&tar).reference("app:1"), "docker-archive")?;
    // a layer that has been changed is not given away under its old name
    fs::write(tree_of(&store, &image, 0).join("srv/kept"), "KEPT")?;
    for error in [
        refused(store.export_docker("app:1", File::create(&tar)?))?,
        refused(store.export_oci("app:1", &at, Compression::Gzip))?,
    ] {
        assert_eq!(error.flaw().map(|f| f.kind()), Some(belljar::FlawKind::Damaged), "{error}");
    }
    assert_eq!(fs::read_dir(store.root().join("tmp"))?.count(), 0);
    Ok(())
}

fn squash_shows_the_same() -> Outcome {
    let (_dir, store, _) = store_with(json!({ "Cmd": ["x"] }))?;
    let squashed = store.squash("app:1", "flat:1")?;
    assert_eq!(squashed.layers().len(), 1);
    assert_eq!(squashed.configuration().config().as_ref().and_then(|c| c.cmd().clone()), Some(vec!["x".into()]));
    assert_eq!(store.diff("app:1", "flat:1")?, []);
    let tree = tree_of(&store, &squashed, 0);
    assert!(!tree.join("srv/gone").exists() && !tree.join("old/1").exists() && tree.join("old/3").exists());
    assert_eq!(describe(&tree)?.values().filter(|line| line.contains("overlay") || line.contains("device")).count(), 0);
    assert!(store.verify()?.is_empty());
    // the same again is the same
    assert_eq!(store.squash("app:1", "flat:2")?.layers(), squashed.layers());
    Ok(())
}

fn diff_of_two_images() -> Outcome {
    let (_dir, store, _) = store_with(json!({}))?;
    let rootfs = |name: &str, tar: Tar| -> Outcome {
        let stream = std::io::Cursor::new(tar.end());
        store.import(Import::rootfs_from(name, stream).durability(Durability::Process), name)?;
        Ok(())
    };
    rootfs(
        "a",
        Tar::new()
            .directory("d")
            .file("d/same", b"1")
            .file("d/content", b"1")
            .file("kind", b"")
            .directory("gone")
            .file("gone/x", b""),
    )?;
    let touched = {
        let mut header = Tar::header(tar::EntryType::Regular, b"d/same", b"", 1);
        header.set_mode(0o600);
        header
    };
    rootfs(
        "b",
        Tar::new()
            .directory("d")
            .raw(touched, b"1")
            .file("d/content", b"2")
            .directory("kind")
            .file("kind/y", b"")
            .symlink("l", "d"),
    )?;
    let found: Vec<_> = store.diff("a", "b")?.into_iter().map(|d| (d.kind, d.path)).collect();
    let expected = [
        (DifferenceKind::Modified, "/d/content"),
        (DifferenceKind::MetadataChanged, "/d/same"),
        (DifferenceKind::Removed, "/gone"),
        (DifferenceKind::Modified, "/kind"),
        (DifferenceKind::Added, "/kind/y"),
        (DifferenceKind::Added, "/l"),
    ];
    assert_eq!(found, expected.map(|(kind, path)| (kind, Path::new(path).to_owned())));
    assert_eq!(store.diff("a", "a")?, []);
    assert_eq!(store.diff("b", "a")?.len(), 6);
    Ok(())
}
