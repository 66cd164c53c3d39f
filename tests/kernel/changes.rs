//! What a run has changed: told, and copied out.

use crate::common::*;
use crate::harness::{Need, TempDir, Test};
use belljar::sys::path::FileKind;
use belljar::{
    Bytes, Capabilities, Capability, Change, ChangeKind, Changes, Child, ErrorKind, IdMap, InInitLayer, Init, Keep,
    KillScope, Mount, Mounts, Namespaces, RootFs, Sandbox, Security, Stdio, Upper, User, testing::feature,
};
use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub fn tests() -> Vec<Test> {
    const USER: &[Need] = &[Need::UserNamespaces, Need::UserOverlay];
    const OPAQUE: &[Need] = &[Need::UserNamespaces, Need::UserOverlay, Need::Kernel(6, 6)];
    const SETFATTR: Need = Need::Program("setfattr");
    const ATTRIBUTES: &[Need] = &[Need::UserNamespaces, Need::UserOverlay, Need::Kernel(6, 6), SETFATTR];
    const XWHITEOUTS: &[Need] = &[Need::UserNamespaces, Need::UserOverlay, Need::Kernel(6, 8), SETFATTR];
    vec![
        Test::new("changes::every_kind", USER, every_kind),
        Test::new("changes::opaque_directories", OPAQUE, opaque_directories),
        Test::new("changes::of_several_layers", OPAQUE, several_layers),
        Test::new("changes::applied_they_give_what_was_seen", OPAQUE, applied),
        Test::new("changes::in_the_hosts_user_namespace", &[Need::Root], trusted_marks),
        Test::new("changes::nothing_changed", USER, nothing_changed),
        Test::new("changes::owners_through_an_id_map", &[Need::Root, Need::UserOverlay], owners),
        Test::new("changes::attributes", ATTRIBUTES, attributes),
        Test::new("changes::attribute_whiteouts", XWHITEOUTS, attribute_whiteouts),
        Test::new("changes::of_the_init_layer", USER, init_layer),
        Test::new("changes::while_it_runs", USER, while_it_runs),
        Test::new("changes::outlive_the_child", USER, outlive),
        Test::new("changes::of_a_persistent_upper", USER, persistent),
        Test::new("changes::marks_of_the_payload_are_files", ATTRIBUTES, forged_marks),
        Test::new("changes::deep_trees", USER, deep_trees),
        Test::new("changes::refused", USER, refusals),
        Test::new("changes::kept_files", USER, kept_files),
        Test::new("changes::planted_results", USER, planted),
        Test::new("changes::planted_in_the_destination", USER, planted_destination),
        Test::new("changes::swapped_while_copied", USER, swapped),
        Test::new("changes::bounded", USER, bounded),
        Test::new("changes::closed_to_the_caller", &[Need::OrdinaryUser, Need::NewUidmap, Need::UserOverlay], closed),
    ]
}

const BASE: &[&str] =
    &["keep", "edit", "meta", "gone", "same", "touch", "dir/one", "dir/two", "tree/deep/leaf", "kind"];

/// A layer to change.
fn layer(dir: &TempDir) -> Fallible<PathBuf> {
    let layer = dir.path().join("layer");
    program_directories(&layer)?;
    for name in BASE {
        let path = layer.join("data").join(name);
        fs::create_dir_all(path.parent().ok_or("no parent")?)?;
        fs::write(path, format!("content of {name}"))?;
    }
    symlink("keep", layer.join("data/link"))?;
    fs::set_permissions(&layer, Permissions::from_mode(0o755))?;
    Ok(layer)
}

fn run(root: RootFs, script: &str) -> Fallible<Child> {
    run_in(with_programs(Sandbox::builder(root)).build()?, script)
}

fn run_in(sandbox: Sandbox, script: &str) -> Fallible<Child> {
    let mut child = sandbox.spawn(sh(script).stderr(Stdio::Piped))?;
    let exit = child.wait_timeout(Duration::from_secs(60))?.ok_or("it lives on")?;
    let mut errors = String::new();
    child.stderr.take().ok_or("no stderr")?.read_to_string(&mut errors)?;
    assert!(exit.success() && errors.is_empty(), "{exit}: {errors}");
    Ok(child)
}

/// `A /path f 4 644`, one a line.
fn list(changes: &Changes) -> Fallible<Vec<String>> {
    changes.iter().map(|change| Ok(line(&change?))).collect()
}

fn line(change: &Change) -> String {
    let kind = match change.kind {
        ChangeKind::Added => 'A',
        ChangeKind::Modified => 'M',
        ChangeKind::Deleted => 'D',
        ChangeKind::MetadataChanged => 'm',
        ChangeKind::Opaque => 'O',
        _ => '?',
    };
    let file = match change.file {
        FileKind::Regular => 'f',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
        _ => '?',
    };
    let size = change.size.map_or("-".to_owned(), |size| size.to_string());
    format!("{kind} {} {file} {size} {:o}", change.path.display(), change.mode)
}

const EVERY_KIND: &str = "cd /data; umask 022
    printf new > added; mkdir -p fresh/sub; printf x > fresh/sub/leaf; ln -s /etc/passwd fresh/link; mkfifo fresh/fifo
    printf longer-content > edit; chmod 600 meta; touch -d @1000000 touch; rm gone; rm dir/one; ln -sfn edit link
    : >> same; printf x > temporary; rm temporary; chmod 4755 added";
/// A directory in the place of something takes an opaque mark.
const NEW_KIND: &str = "rm kind; mkdir kind; printf y > kind/inside";

fn every_kind_of(root: RootFs) -> Fallible<(Child, Vec<String>)> {
    let marks = Need::Kernel(6, 6).probe().is_ok();
    let child = run(root, &format!("{EVERY_KIND}; {}", if marks { NEW_KIND } else { "" }))?;
    let lines = EVERY_LINE.iter().filter(|line| marks || !line.contains("/data/kind"));
    Ok((child, sorted(&lines.copied().collect::<Vec<_>>())))
}

const EVERY_LINE: &[&str] = &[
    "A /data/added f 3 4755",
    "M /data/edit f 14 644",
    "D /data/dir/one f 18 644",
    "A /data/fresh d - 755",
    "A /data/fresh/fifo p - 644",
    "A /data/fresh/link l 11 777",
    "A /data/fresh/sub d - 755",
    "A /data/fresh/sub/leaf f 1 644",
    "D /data/gone f 15 644",
    "M /data/kind d - 755",
    "A /data/kind/inside f 1 644",
    "M /data/link l 4 777",
    "m /data/meta f 15 600",
    "m /data/touch f 16 644",
];

fn sorted(lines: &[&str]) -> Vec<String> {
    let mut lines: Vec<_> = lines.iter().map(|line| line.to_string()).collect();
    lines.sort_by(|a, b| a[2..].cmp(&b[2..]));
    lines
}

fn every_kind() -> Fallible<()> {
    // root's layers are not id-mapped without the mount API, and so nobody's to write
    let old = if Need::Root.probe().is_ok() { 0 } else { feature::MOUNT_API };
    for features in [0, feature::OPENAT2, feature::LOWERDIR_FD, old] {
        without(features, || {
            let dir = TempDir::new()?;
            let (child, wanted) = every_kind_of(RootFs::dir(layer(&dir)?).track_changes())?;
            let mut seen = list(&child.changes()?)?;
            seen.sort_by(|a, b| a[2..].cmp(&b[2..]));
            assert_eq!(seen, wanted, "without {features}");
            assert_eq!(
                fs::read_to_string(dir.path().join("layer/data/edit"))?,
                "content of edit",
                "the layer is as it was"
            );
            Ok(())
        })?;
    }
    Ok(())
}

fn opaque_directories() -> Fallible<()> {
    let dir = TempDir::new()?;
    let script = "cd /data; rm -r dir tree; mkdir dir; printf x > dir/two; mkdir -m 700 other";
    let child = run(RootFs::dir(layer(&dir)?).track_changes(), script)?;
    let wanted = ["O /data/dir d - 755", "A /data/dir/two f 1 644", "A /data/other d - 700", "D /data/tree d - 755"];
    assert_eq!(list(&child.changes()?)?, wanted);
    Ok(())
}

/// Layers and an init layer whose own marks hide what is below them, merged as the kernel does it.
fn several_layers() -> Fallible<()> {
    let dir = TempDir::new()?;
    let bottom = layer(&dir)?;
    let (middle, top) = (dir.path().join("middle"), dir.path().join("top"));
    for (root, name) in [(&middle, "data/dir/three"), (&middle, "data/edit/now/a/directory"), (&top, "data/dir/two")] {
        let path = root.join(name);
        fs::create_dir_all(path.parent().ok_or("no parent")?)?;
        fs::write(path, "of a higher layer")?;
    }
    let root = || {
        RootFs::overlay([&bottom, &middle, &top])
            .hide("/data/gone")
            .hide("/data/tree")
            .file("/data/init", "init")
            .track_changes()
    };
    let child = run(
        root(),
        "cd /data; rm dir/three; printf 1 > dir/one; printf 2 > dir/two; rm -r edit; printf 3 > gone; mkdir tree",
    )?;
    let wanted = [
        "M /data/dir/one f 1 644",
        "D /data/dir/three f 17 644",
        "M /data/dir/two f 1 644",
        "D /data/edit d - 755",
        "A /data/gone f 1 644",
        "A /data/tree d - 755",
    ];
    assert_eq!(list(&child.changes()?)?, wanted);
    Ok(())
}

type Tree = std::collections::BTreeMap<PathBuf, (char, u32, Option<u64>, Option<String>)>;

/// What a sandbox sees below /data, after a script: kind, mode, size and (of files) a digest.
fn seen(root: RootFs, namespaces: Namespaces, script: &str) -> Fallible<(Tree, Child)> {
    const LIST: &str =
        "exec 3>&1; cd /; find /data -printf '%p\\t%y\\t%m\\t%s\\n' >&3; find /data -type f -exec md5sum {} +";
    let sandbox = with_programs(Sandbox::builder(root)).namespaces(namespaces).build()?;
    let mut child = sandbox.spawn(sh(&format!("{script}\n{LIST}")).stdout(Stdio::Piped))?;
    let mut text = String::new();
    child.stdout.take().ok_or("no stdout")?.read_to_string(&mut text)?;
    assert!(child.wait()?.success(), "{text}");
    let mut tree = Tree::new();
    for line in text.lines() {
        match line.split('\t').collect::<Vec<_>>()[..] {
            [path, kind, mode, size] => {
                let size = matches!(kind, "f" | "l").then(|| size.parse()).transpose()?;
                let kind = kind.chars().next().ok_or("no kind")?;
                tree.insert(path.into(), (kind, u32::from_str_radix(mode, 8)?, size, None));
            }
            _ => {
                let (digest, path) = line.split_once("  ").ok_or(line)?;
                tree.get_mut(Path::new(path)).ok_or(line)?.3 = Some(digest.to_owned());
            }
        }
    }
    Ok((tree, child))
}

/// Many operations in no sensible order, on three layers: the changes, applied to what the layers show, give what
/// the sandbox saw, and no file that is not among them has another content.
fn applied() -> Fallible<()> {
    let in_hosts = Namespaces::isolated().user(User::Inherit);
    let root_too = Need::Root.probe().is_ok().then_some(in_hosts);
    for (round, namespaces) in [Some(Namespaces::isolated()), root_too].into_iter().flatten().enumerate() {
        for seed in 1..=4 {
            let dir = TempDir::new()?;
            let mut random = Random(seed * 7919 + round as u64);
            let layers = [layer(&dir)?, dir.path().join("second"), dir.path().join("third")];
            for layer in &layers {
                fs::create_dir_all(layer.join("data"))?;
                for _ in 0..12 {
                    let path = layer.join("data").join(random.path());
                    if fs::create_dir_all(path.parent().ok_or("no parent")?).is_ok() && !path.exists() {
                        fs::write(path, random.path())?;
                    }
                }
            }
            let root = || RootFs::overlay(&layers).track_changes().hide(format!("/data/{}", Random(seed).path()));
            let (mut tree, _child) = seen(root(), namespaces.clone(), "")?;
            let before = tree.clone();
            let script: String = (0..60).map(|_| random.operation()).collect();
            let (after, child) = seen(root(), namespaces.clone(), &format!("cd /data; exec 2>/dev/null\n{script}"))?;
            let mut touched = std::collections::BTreeSet::new();
            for change in &child.changes()? {
                let change = change?;
                if change.path == Path::new("/data") {
                    continue; // its own mode is the layers'
                }
                assert!(change.path.starts_with("/data"), "{change:?}");
                if change.kind != ChangeKind::MetadataChanged {
                    tree.retain(|path, _| !path.starts_with(&change.path));
                    touched.insert(change.path.clone());
                }
                if change.kind != ChangeKind::Deleted {
                    let kind = line(&change).split(' ').nth(2).and_then(|kind| kind.chars().next()).ok_or("no kind")?;
                    let digest = after.get(&change.path).and_then(|entry| entry.3.clone());
                    tree.insert(change.path, (kind, change.mode, change.size, digest));
                }
            }
            let what = || format!("round {round} seed {seed}: {script}\n{:#?}", list(&child.changes().unwrap()));
            for (path, entry) in &after {
                assert_eq!(tree.get(path), Some(entry), "{} {}", path.display(), what());
                let same = before.get(path).is_some_and(|was| was.3 == entry.3 && was.0 == entry.0);
                assert!(same || touched.contains(path), "{} is not among {}", path.display(), what());
            }
            assert_eq!(tree.len(), after.len(), "{}", what());
            assert!(!touched.is_empty(), "{}", what());
        }
    }
    Ok(())
}

/// Numbers that look like chance, the same each time (Knuth's MMIX).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }

    fn path(&mut self) -> String {
        let depth = 1 + self.below(3);
        (0..depth).map(|_| ["a", "b", "dir", "tree", "keep"][self.below(5) as usize]).collect::<Vec<_>>().join("/")
    }

    fn operation(&mut self) -> String {
        let (one, other) = (self.path(), self.path());
        match self.below(9) {
            0 => format!("rm -rf {one}\n"),
            1 => format!("mkdir -p {one}\n"),
            2 => format!("mkdir -p $(dirname {one}); echo {other} > {one}\n"),
            3 => format!("rm -f {one}; ln -sn {other} {one}\n"),
            4 => format!("chmod 7{}5 {one}\n", self.below(8)),
            5 => format!("mv -T {one} {other}\n"),
            6 => format!("rm -rf {one}; mkdir -p {one}; echo x > {one}/{}\n", self.path().replace('/', "")),
            7 => format!("true >> {one}\n"),
            _ => format!("ln {one} {other}\n"),
        }
    }
}

/// With `trusted.` attributes, and without redirects and metacopies whatever the kernel's defaults are.
fn trusted_marks() -> Fallible<()> {
    for features in [0, feature::LOWERDIR_FD] {
        without(features, || {
            let dir = TempDir::new()?;
            let sandbox = with_programs(Sandbox::builder(RootFs::dir(layer(&dir)?).track_changes()))
                .namespaces(Namespaces::isolated().user(User::Inherit))
                .build()?;
            let child = run_in(sandbox, "cd /data; rm -r dir; mkdir dir; chmod 600 meta; mv tree moved")?;
            let seen = list(&child.changes()?)?;
            let wanted = [
                "O /data/dir d - 755",
                "m /data/meta f 15 600",
                "A /data/moved d - 755",
                "A /data/moved/deep d - 755",
                "A /data/moved/deep/leaf f 25 644",
                "D /data/tree d - 755",
            ];
            assert_eq!(seen, wanted);
            Ok(())
        })?;
    }
    Ok(())
}

fn nothing_changed() -> Fallible<()> {
    let dir = TempDir::new()?;
    // copied up, and yet as it was
    let script = "cd /data; : >> same; chmod 644 meta; chmod 755 dir; cat keep; printf x > t; rm t; mkdir d; rmdir d";
    let child = run(RootFs::dir(layer(&dir)?).track_changes(), script)?;
    assert_eq!(list(&child.changes()?)?, Vec::<String>::new());
    // the control: content is compared, not only size and time
    let script = "cd /data; printf 'CONTENT of same' > same; touch -r keep same";
    let dir = TempDir::new()?;
    let child = run(RootFs::dir(layer(&dir)?).track_changes(), script)?;
    assert_eq!(list(&child.changes()?)?, ["M /data/same f 15 644"]);
    Ok(())
}

/// root's sandbox shows the layers' files under other ids; the owner counts as changed only when it was.
fn owners() -> Fallible<()> {
    let dir = TempDir::new()?;
    let script = "cd /data; chown 5:6 meta; : >> same; chown 0:0 same; chmod 600 touch; chmod 644 touch";
    let sandbox = with_programs(Sandbox::builder(RootFs::dir(layer(&dir)?).track_changes())).security(may_chown());
    let child = run_in(sandbox.build()?, script)?;
    assert_eq!(list(&child.changes()?)?, ["m /data/meta f 15 644"]);
    Ok(())
}

fn may_chown() -> Security {
    Security::new().capabilities(Capabilities::keep([Capability::Chown, Capability::DacOverride, Capability::Fowner]))
}

fn attributes() -> Fallible<()> {
    let dir = TempDir::new()?;
    let script =
        "setfattr -n user.note -v x /data/dir; setfattr -n user.note -v y /data/meta; touch -r /data/keep /data/meta";
    let child = run(RootFs::dir(layer(&dir)?).track_changes(), script)?;
    assert_eq!(list(&child.changes()?)?, ["m /data/dir d - 755", "m /data/meta f 15 644"]);
    Ok(())
}

/// Whiteouts that are attributes, as a layer may have them since Linux 6.7: what they hide is not there to be
/// modified.
fn attribute_whiteouts() -> Fallible<()> {
    let dir = TempDir::new()?;
    let (bottom, top) = (layer(&dir)?, dir.path().join("top"));
    fs::create_dir_all(top.join("data/dir"))?;
    let set = |name: &str, value: &str, path: &str| -> Fallible<()> {
        let path = top.join(path);
        if !path.exists() {
            fs::write(&path, "")?;
        }
        let mut setfattr = std::process::Command::new("setfattr");
        assert!(setfattr.args(["-n", &format!("user.overlay.{name}"), "-v", value]).arg(path).status()?.success());
        Ok(())
    };
    set("opaque", "x", "data")?;
    set("whiteout", "y", "data/gone")?;
    set("whiteout", "y", "data/dir/one")?; // to a lookup it is one without a mark on data/dir, too
    fs::write(top.join("data/empty"), "")?;
    let root = || RootFs::overlay([&bottom, &top]).track_changes();
    // what the kernel makes of it
    let sandbox = with_programs(Sandbox::builder(root())).build()?;
    let there = prints(&sandbox, "cd /data; for n in gone dir/one keep empty; do test -e $n && echo $n; done")?;
    assert_eq!(there, "keep\nempty");
    let child = run(root(), "cd /data; printf new > gone; printf new > dir/one; printf new > keep; printf x > empty")?;
    let wanted = ["A /data/dir/one f 3 644", "M /data/empty f 1 644", "A /data/gone f 3 644", "M /data/keep f 3 644"];
    assert_eq!(list(&child.changes()?)?, wanted);
    Ok(())
}

fn init_layer() -> Fallible<()> {
    let dir = TempDir::new()?;
    let layer = layer(&dir)?;
    let root = || {
        let root = RootFs::dir(&layer).file("/etc/hosts", "init").directory("/work").file("/opt/x", "x");
        root.hide("/data/gone").track_changes()
    };
    let sandbox = |root| with_programs(Sandbox::builder(root)).mount(Mount::tmpfs("/mnt/target")).build();
    let child = run_in(sandbox(root())?, "cat /etc/hosts; printf x > /mnt/target/x")?;
    assert_eq!(list(&child.changes()?)?, Vec::<String>::new(), "what the init layer has is no change");
    let child =
        run_in(sandbox(root())?, "printf mine > /etc/hosts; rm /opt/x; printf y > /work/y; printf n > /data/gone")?;
    let told: Vec<_> = child.changes()?.iter().collect::<Result<_, _>>()?;
    let seen: Vec<_> = told.iter().map(|change| (line(change), change.in_init_layer)).collect();
    let wanted = [
        ("A /data/gone f 1 644", InInitLayer::No),
        ("M /etc/hosts f 4 644", InInitLayer::Yes),
        ("D /opt/x f 1 644", InInitLayer::Yes),
        ("A /work/y f 1 644", InInitLayer::No),
    ];
    assert_eq!(seen, wanted.map(|(line, init)| (line.to_owned(), init)));
    Ok(())
}

fn while_it_runs() -> Fallible<()> {
    let dir = TempDir::new()?;
    let script = "printf 1 > /data/first; echo ready; read line; printf 2 > /data/second; echo ready; read line";
    let sandbox = with_programs(Sandbox::builder(RootFs::dir(layer(&dir)?).track_changes())).build()?;
    let mut child = sandbox.spawn(sh(script).stdin(Stdio::Piped).stdout(Stdio::Piped))?;
    let mut ready = [0; 6];
    child.stdout.as_mut().ok_or("no stdout")?.read_exact(&mut ready)?;
    let changes = child.changes()?;
    assert_eq!(list(&changes)?, ["A /data/first f 1 644"]);
    std::io::Write::write_all(child.stdin.as_mut().ok_or("no stdin")?, b"\n")?;
    child.stdout.as_mut().ok_or("no stdout")?.read_exact(&mut ready)?;
    assert_eq!(list(&changes)?.len(), 2, "each iteration looks anew");
    child.kill(KillScope::Tree)?;
    child.wait()?;
    assert_eq!(list(&changes)?.len(), 2);
    Ok(())
}

fn outlive() -> Fallible<()> {
    let dir = TempDir::new()?;
    let root = RootFs::dir(layer(&dir)?).track_changes();
    let changes = run(root, "printf new > /data/added")?.changes()?; // the child is dropped
    assert_eq!(list(&changes)?, ["A /data/added f 3 644"]);
    let out = dir.path().join("out");
    let told: Vec<_> = changes.iter().collect::<Result<_, _>>()?;
    assert_eq!(changes.keep(&told, &out, Keep::regular_files())?.files, 1);
    assert_eq!(fs::read_to_string(out.join("data/added"))?, "new");
    // also when the payload is PID 1 itself
    let root = RootFs::dir(dir.path().join("layer")).track_changes();
    let child = run_in(with_programs(Sandbox::builder(root)).init(Init::Payload).build()?, "printf new > /data/added")?;
    assert_eq!(list(&child.changes()?)?, ["A /data/added f 3 644"]);
    // two sandboxes of one template are told apart
    let sandbox = with_programs(Sandbox::builder(RootFs::dir(dir.path().join("layer")).track_changes())).build()?;
    let both = ["one", "two"].map(|name| -> Fallible<Vec<String>> {
        let mut child = sandbox.spawn(&sh(&format!("printf x > /data/{name}")))?;
        child.wait()?;
        list(&child.changes()?)
    });
    let [one, two] = both;
    assert_eq!((one?, two?), (vec!["A /data/one f 1 644".to_owned()], vec!["A /data/two f 1 644".to_owned()]));
    Ok(())
}

fn persistent() -> Fallible<()> {
    let dir = TempDir::new()?;
    let upper = dir.path().join("upper");
    let root = |tracked: bool| -> Fallible<RootFs> {
        let root = RootFs::dir(dir.path().join("layer")).upper(Upper::Persist(upper.clone())).directory("/work");
        Ok(if tracked { root.track_changes() } else { root })
    };
    let layer = layer(&dir)?;
    fs::set_permissions(&layer, Permissions::from_mode(0o751))?;
    let sandbox = with_programs(Sandbox::builder(root(false)?)).build()?;
    assert_kind(&refused(sandbox.changes())?, ErrorKind::NotFound);
    let umask = nix::sys::stat::umask(nix::sys::stat::Mode::S_IRWXO | nix::sys::stat::Mode::S_IRWXG);
    let mode = prints(&sandbox, "stat -c %a /");
    nix::sys::stat::umask(umask);
    assert_eq!(mode?, "751", "the root looks like its topmost layer, whatever the umask");
    let child = run_in(sandbox, "printf 1 > /data/first; rm /data/gone")?;
    assert_eq!(
        list(&child.changes()?)?,
        ["A /data/first f 1 644", "D /data/gone f 15 644"],
        "a host directory needs no handle"
    );
    drop(child);
    let child = run(root(true)?, "printf 22 > /data/second; printf 3 > /work/third")?;
    let tracked = ["A /data/first f 1 644", "A /data/second f 2 644", "D /data/gone f 15 644", "A /work/third f 1 644"];
    let mut seen = list(&child.changes()?)?;
    seen.sort_by(|a, b| a[2..].cmp(&b[2..]));
    assert_eq!(seen, sorted(&tracked));
    drop(child);
    // without a child: of both runs, and the init layer's directory is not known to be one
    let sandbox = with_programs(Sandbox::builder(root(false)?)).build()?;
    let changes = sandbox.changes()?;
    let all = list(&changes)?;
    assert!(all.contains(&"A /work d - 755".to_owned()) && all.len() == 5, "{all:?}");
    assert!(changes.iter().flatten().all(|change| change.in_init_layer == InInitLayer::Unknown));
    let second: Vec<_> = changes.iter().flatten().filter(|change| change.path.ends_with("second")).collect();
    changes.keep(&second, dir.path().join("out"), Keep::regular_files())?;
    assert_eq!(fs::read_to_string(dir.path().join("out/data/second"))?, "22");
    Ok(())
}

/// Attributes that the payload sets are not overlayfs's, and cannot hide a change.
fn forged_marks() -> Fallible<()> {
    let dir = TempDir::new()?;
    let script = "cd /data; mkdir fake; printf x > fake/hidden; : > white
        for n in user.overlay.opaque user.overlay.whiteout user.overlay.redirect; do
            setfattr -n $n -v y fake 2>/dev/null; setfattr -n $n -v y white 2>/dev/null; done
        setfattr -n user.other -v y white
        mknod device c 0 0 2>/dev/null; true";
    let child = run(RootFs::dir(layer(&dir)?).track_changes(), script)?;
    let seen = list(&child.changes()?)?;
    assert_eq!(seen, ["A /data/fake d - 755", "A /data/fake/hidden f 1 644", "A /data/white f 0 644"]);
    Ok(())
}

/// Deeper than a path can be: told as an error of that place, and the rest is told all the same.
fn deep_trees() -> Fallible<()> {
    let dir = TempDir::new()?;
    let script = "cd /data; i=0; while [ $i -lt 60 ]; do
            mkdir aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
            cd -P aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 2>/dev/null || exit 0
            i=$((i+1)); done; : > leaf";
    let child = run(RootFs::dir(layer(&dir)?).track_changes(), script)?;
    let start = Instant::now();
    let told: Vec<_> = child.changes()?.iter().collect();
    let errors: Vec<_> = told.iter().filter_map(|change| change.as_ref().err()).collect();
    let directories = told.iter().flatten().count();
    assert!(directories > 40 && errors.len() == 1, "{directories} directories, {errors:?}");
    assert!(errors.iter().all(|error| error.raw_os_error() == Some(36)), "ENAMETOOLONG: {errors:?}");
    assert!(start.elapsed() < Duration::from_secs(20));
    Ok(())
}

fn refusals() -> Fallible<()> {
    let dir = TempDir::new()?;
    let layer = layer(&dir)?;
    for root in [RootFs::host(), RootFs::empty(), RootFs::inherit(), RootFs::dir(&layer).read_only()] {
        let mounts = Mounts::none();
        let error = refused(Sandbox::builder(root.track_changes()).mounts(mounts).build())?;
        assert_kind(&error, ErrorKind::InvalidSpec);
        assert!(error.to_string().contains("tracked"), "{error}");
    }
    let child = run(RootFs::dir(&layer), "true")?;
    let error = refused(child.changes())?;
    assert_kind(&error, ErrorKind::InvalidSpec);
    assert!(error.to_string().contains("track_changes"), "{error}");
    let error = refused(Sandbox::builder(RootFs::dir(&layer)).build()?.changes())?;
    assert_kind(&error, ErrorKind::InvalidSpec);
    // the layers must still be there
    let child = run(RootFs::dir(&layer).track_changes(), "true")?;
    fs::rename(&layer, dir.path().join("moved"))?;
    assert_kind(&refused(child.changes())?, ErrorKind::NotFound);
    Ok(())
}

fn told(child: &Child) -> Fallible<(Changes, Vec<Change>)> {
    let changes = child.changes()?;
    let told = changes.iter().collect::<Result<_, _>>()?;
    Ok((changes, told))
}

fn kept_files() -> Fallible<()> {
    let dir = TempDir::new()?;
    let out = dir.path().join("out");
    let (child, _) = every_kind_of(RootFs::dir(layer(&dir)?).track_changes())?;
    let (changes, told) = told(&child)?;
    let kind = told.iter().filter(|change| change.path.starts_with("/data/kind")).count() as u64; // 0 or 2
    let files = || told.iter().filter(|change| change.file == FileKind::Regular && change.kind != ChangeKind::Deleted);
    let totals = changes.keep(files(), &out, Keep::regular_files())?;
    let inside = kind / 2;
    assert_eq!((totals.files, totals.bytes), (5 + inside, 3 + 14 + 1 + 15 + 16 + inside));
    assert_eq!(fs::read_to_string(out.join("data/fresh/sub/leaf"))?, "x");
    let added = fs::metadata(out.join("data/added"))?;
    assert_eq!(added.mode() & 0o7777, 0o755, "no set-uid bit unless asked for");
    assert_eq!((added.uid(), added.gid()), (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()));
    // again at the same place: nothing is overwritten, and nothing of the attempt is left
    fs::remove_file(out.join("data/added"))?;
    let error = refused(changes.keep(files(), &out, Keep::regular_files()))?;
    assert_kind(&error, ErrorKind::Busy);
    assert!(!out.join("data/added").exists(), "all or nothing");
    // asked for
    let more = Keep::regular_files().directories().symlinks().set_id_bits();
    let other = told.iter().filter(|change| change.kind != ChangeKind::Deleted && change.file != FileKind::Fifo);
    let everything = dir.path().join("everything");
    let totals = changes.keep(other, &everything, more)?;
    assert_eq!((totals.files, totals.directories, totals.symlinks), (5 + inside, 2 + inside, 2));
    assert_eq!(fs::read_link(everything.join("data/fresh/link"))?, Path::new("/etc/passwd"));
    assert_eq!(fs::metadata(everything.join("data/added"))?.mode() & 0o7777, 0o4755);
    Ok(())
}

/// CVE-2024-28185, CVE-2024-28189: results that are links, FIFOs, sockets.
fn planted() -> Fallible<()> {
    let dir = TempDir::new()?;
    let secret = dir.path().join("secret");
    fs::write(&secret, "of the host")?;
    let script = format!(
        "mkdir /out; cd /out; ln -s {0} link; ln -s {1} parent; mkfifo fifo; ln -s / root; printf fine > file",
        secret.display(),
        dir.path().display()
    );
    let child = run(RootFs::dir(layer(&dir)?).track_changes(), &script)?;
    let (changes, told) = told(&child)?;
    let out = dir.path().join("results");
    let one =
        |name: &str| told.iter().find(|change| change.path == Path::new("/out").join(name)).cloned().ok_or("not told");
    let start = Instant::now();
    for name in ["link", "parent", "fifo", "root"] {
        let error = refused(changes.keep([&one(name)?], &out, Keep::regular_files()))?;
        assert_kind(&error, ErrorKind::InvalidSpec);
    }
    let all = Keep::regular_files().symlinks().directories();
    assert_kind(&refused(changes.keep([&one("fifo")?], &out, all))?, ErrorKind::InvalidSpec);
    // whatever the caller makes of a path: through a link, and out of the upper
    for path in ["/out/link", "/out/parent/secret", "/out/root/etc/passwd", "/out/../../../etc/passwd", "/", "out/file"]
    {
        let mut forged = one("file")?;
        forged.path = path.into();
        let error = refused(changes.keep([&forged], &out, Keep::regular_files()))?;
        assert!(matches!(error.raw_os_error(), None | Some(2 | 18 | 20 | 40)), "{path}: {error}");
    }
    assert!(start.elapsed() < Duration::from_secs(10), "nothing waited");
    assert_eq!(fs::read_dir(&out)?.count(), 0, "nothing came out");
    // the control
    assert_eq!(changes.keep([&one("file")?], &out, Keep::regular_files())?.files, 1);
    Ok(())
}

fn planted_destination() -> Fallible<()> {
    let dir = TempDir::new()?;
    let (outside, out) = (dir.path().join("outside"), dir.path().join("results"));
    fs::create_dir(&outside)?;
    fs::create_dir(&out)?;
    symlink(&outside, out.join("data"))?; // as an earlier run may have left it
    let child = run(RootFs::dir(layer(&dir)?).track_changes(), "printf x > /data/added")?;
    let (changes, told) = told(&child)?;
    assert_kind(&refused(changes.keep(&told, &out, Keep::regular_files()))?, ErrorKind::Busy);
    fs::remove_file(out.join("data"))?;
    fs::create_dir(out.join("data"))?;
    symlink(outside.join("target"), out.join("data/added"))?;
    assert_kind(&refused(changes.keep(&told, &out, Keep::regular_files()))?, ErrorKind::Busy);
    assert_eq!(fs::read_dir(&outside)?.count(), 0);
    Ok(())
}

/// A payload that swaps its result for a link to the host's file, and back, as fast as it can.
fn swapped() -> Fallible<()> {
    let dir = TempDir::new()?;
    let secret = dir.path().join("secret");
    fs::write(&secret, "of the host")?;
    let script = format!(
        "mkdir /out /out/d; cd /out; printf mine > file; ln -s {0} link; mkfifo fifo; printf mine > d/secret; ln -s {1} dl; echo ready
         while :; do mv -T link x; mv -T file link; mv -T x file; mv -T d y; mv -T dl d; mv -T y dl
                     mv -T fifo z; mv -T file fifo; mv -T z file; done",
        secret.display(),
        dir.path().display()
    );
    let sandbox = with_programs(Sandbox::builder(RootFs::dir(layer(&dir)?).track_changes())).build()?;
    let mut command = sh(&script);
    command.stdout(Stdio::Piped);
    let mut child = sandbox.spawn(&command)?;
    child.stdout.as_mut().ok_or("no stdout")?.read_exact(&mut [0; 6])?;
    let changes = child.changes()?;
    let (mut copied, start, mut round) = (0, Instant::now(), 0);
    while start.elapsed() < Duration::from_millis(1500) {
        for change in changes.iter().flatten().filter(|change| change.file == FileKind::Regular) {
            round += 1;
            let out = dir.path().join(format!("out-{round}"));
            if changes.keep([&change], &out, Keep::regular_files()).is_ok() {
                copied += 1;
                let text = fs::read_to_string(out.join(change.path.strip_prefix("/")?))?;
                assert_eq!(text, "mine", "never the host's");
            }
            fs::remove_dir_all(&out)?;
        }
    }
    assert!(copied > 0, "it was never quick enough to see a file in {round} rounds");
    Ok(())
}

fn bounded() -> Fallible<()> {
    let dir = TempDir::new()?;
    let child = run(
        RootFs::dir(layer(&dir)?).track_changes(),
        "cd /data; truncate -s 900M hole; head -c 60000 /dev/zero > one; head -c 60000 /dev/zero > two",
    )?;
    let (changes, told) = told(&child)?;
    let out = dir.path().join("out");
    let named =
        |names: &'static [&str]| told.iter().filter(|change| names.iter().any(|name| change.path.ends_with(name)));
    let start = Instant::now();
    for names in [&["hole"][..], &["one", "two"]] {
        let error = refused(changes.keep(named(names), &out, Keep::regular_files().bytes(Bytes::new(100_000))))?;
        assert_kind(&error, ErrorKind::LimitReached);
        assert_eq!(fs::read_dir(&out)?.count(), 0, "nothing is left of it");
    }
    assert!(start.elapsed() < Duration::from_secs(10));
    let exact = Keep::regular_files().bytes(Bytes::new(120_000));
    assert_eq!(changes.keep(named(&["one", "two"]), &out, exact)?.bytes, 120_000);
    Ok(())
}

/// Files of other ids of an ordinary user's range, closed to it: told as errors, one for each.
fn closed() -> Fallible<()> {
    let dir = TempDir::new()?;
    let sandbox = with_programs(Sandbox::builder(RootFs::dir(layer(&dir)?).track_changes()))
        .namespaces(Namespaces::isolated().user(User::New(IdMap::subordinate())))
        .security(may_chown())
        .build()?;
    let script = "mkdir /open /shut; printf x > /open/file; chmod 600 /open/file; chown 7 /open/file; chmod 700 /shut; chown 7 /shut";
    let child = run_in(sandbox, script)?;
    let changes = child.changes()?;
    let (mut seen, mut errors) = (Vec::new(), Vec::new());
    for change in &changes {
        match change {
            Ok(change) => seen.push(change),
            Err(error) => errors.push(error),
        }
    }
    assert_eq!(seen.iter().map(line).collect::<Vec<_>>(), ["A /open d - 755", "A /open/file f 1 600"]);
    assert!(errors.len() == 1 && errors[0].to_string().contains("/shut"), "{errors:?}");
    assert_kind(&errors[0], ErrorKind::NotPermitted);
    let error = refused(changes.keep(&seen[1..], dir.path().join("out"), Keep::regular_files()))?;
    assert_kind(&error, ErrorKind::NotPermitted);
    Ok(())
}
