//! Root file systems: layers, whiteouts, the init layer, uppers.

use crate::common::*;
use crate::harness::{Need, TempDir, Test};
use belljar::testing::feature;
use belljar::{Bytes, ErrorKind, Init, Mount, Mounts, Namespaces, RootFs, Sandbox, Upper, User};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

pub fn tests() -> Vec<Test> {
    const OVERLAY: &[Need] = &[Need::UserNamespaces, Need::UserOverlay];
    const USER: &[Need] = &[Need::UserNamespaces];
    const ROOT: &[Need] = &[Need::Root];
    vec![
        Test::new("rootfs::host_is_read_only_with_all_mounts", USER, host_is_read_only),
        Test::new("rootfs::directory_read_only", USER, directory_read_only),
        Test::new("rootfs::empty_holds_only_the_mounts", USER, empty_holds_only_the_mounts),
        Test::new("rootfs::layers_merge_and_are_never_written", OVERLAY, layers_merge),
        Test::new("rootfs::layers_merge_in_the_hosts_user_namespace", ROOT, layers_merge_as_root),
        Test::new("rootfs::directories_of_layers_can_be_replaced", OVERLAY, directories_of_layers_can_be_replaced),
        Test::new("rootfs::whiteouts_and_opaque_directories", OVERLAY, whiteouts),
        Test::new("rootfs::whiteouts_in_the_hosts_user_namespace", ROOT, whiteouts_as_root),
        Test::new("rootfs::whiteouts_follow_links_of_the_layers", OVERLAY, whiteouts_follow_links),
        Test::new("rootfs::init_layer_entries", OVERLAY, init_layer_entries),
        Test::new("rootfs::entries_below_directories_of_others", OVERLAY, entries_below_others),
        Test::new("rootfs::discard_is_bounded", OVERLAY, discard_is_bounded),
        Test::new("rootfs::persist_keeps_and_locks", OVERLAY, persist_keeps_and_locks),
        Test::new("rootfs::persist_is_locked_while_the_payload_is_init", OVERLAY, persist_locked_for_payload_init),
        Test::new("rootfs::none_is_read_only", OVERLAY, none_is_read_only),
        Test::new(
            "rootfs::roots_layers_are_id_mapped",
            &[Need::Root, Need::UserOverlay, Need::Kernel(5, 19)],
            id_mapped,
        ),
        Test::new("rootfs::without_id_mapping_files_are_nobodys", &[Need::Root, Need::UserOverlay], not_id_mapped),
        Test::new("rootfs::layers_of_any_number", OVERLAY, layers_of_any_number),
        Test::new("rootfs::layers_of_any_path", OVERLAY, layers_of_any_path),
        Test::new("rootfs::fallbacks_give_the_same", OVERLAY, fallbacks_give_the_same),
        Test::new("rootfs::fallbacks_of_plain_roots", USER, fallbacks_of_plain_roots),
        Test::new("rootfs::missing_targets_are_made_in_the_init_layer", OVERLAY, missing_targets),
        Test::new("rootfs::a_layer_that_is_not_there", USER, absent_layer),
        Test::new("rootfs::old_root_is_gone", USER, old_root_is_gone),
    ]
}

/// `lower`: shared/a low, only/low; `upper`: shared/a high, shared/b.
struct Layers {
    _dir: TempDir,
    low: PathBuf,
    high: PathBuf,
}

impl Layers {
    fn new() -> Fallible<Layers> {
        let dir = TempDir::new()?;
        let (low, high) = (dir.path().join("low"), dir.path().join("high"));
        for layer in [&low, &high] {
            program_directories(layer)?;
            fs::create_dir_all(layer.join("shared"))?;
        }
        for (path, content) in [
            (low.join("shared/a"), "low"),
            (low.join("shared/only-low"), "low"),
            (high.join("shared/a"), "high"),
            (high.join("shared/b"), "high"),
            (low.join("etc/secret"), "secret"),
        ] {
            fs::write(path, content)?;
        }
        fs::create_dir_all(low.join("deep/er"))?;
        fs::write(low.join("deep/er/file"), "deep")?;
        symlink("/deep", low.join("link"))?;
        Ok(Layers { _dir: dir, low, high })
    }

    fn root(&self) -> RootFs {
        RootFs::overlay([&self.low, &self.high])
    }

    fn sandbox(&self, root: RootFs) -> Fallible<Sandbox> {
        Ok(with_programs(Sandbox::builder(root)).build()?)
    }

    /// Everything in both layers: path, mode, size, mtime, ctime.
    fn state(&self) -> Fallible<Vec<(PathBuf, [i64; 4])>> {
        let mut all = Vec::new();
        let mut todo = vec![self.low.clone(), self.high.clone()];
        while let Some(path) = todo.pop() {
            let meta = fs::symlink_metadata(&path)?;
            if meta.is_dir() {
                for entry in fs::read_dir(&path)? {
                    todo.push(entry?.path());
                }
            }
            all.push((path, [meta.mode().into(), meta.len() as i64, meta.mtime_nsec(), meta.ctime_nsec()]));
        }
        all.sort();
        Ok(all)
    }
}

fn host_is_read_only() -> Fallible<()> {
    let sandbox = host().build()?;
    let output = sandbox.output(&sh("ls /; touch /file /usr/file /var/file; echo $?"))?;
    assert!(text(&output).contains("usr\n") && text(&output).contains("Read-only file system"), "{}", text(&output));
    // each mount of the host is there, and each read-only but for those of the plan
    let mounts = prints(&sandbox, "cat /proc/self/mountinfo")?;
    let writable: Vec<_> =
        mounts.lines().filter(|l| l.split(' ').nth(5).is_some_and(|o| o.starts_with("rw"))).collect();
    for line in writable {
        let point = line.split(' ').nth(4).unwrap_or_default();
        assert!(point.starts_with("/proc") || point.starts_with("/dev") || point == "/tmp", "{line}");
    }
    Ok(())
}

fn directory_read_only() -> Fallible<()> {
    let layers = Layers::new()?;
    let sandbox = layers.sandbox(RootFs::dir(&layers.low).read_only())?;
    assert_eq!(prints(&sandbox, "cat /shared/a; ! touch /x 2>/dev/null")?, "low");
    let sandbox = with_programs(Sandbox::builder(RootFs::dir(&layers.low).read_only())).build()?;
    assert!(!sandbox.explain(&sh("true"))?.to_string().contains("overlay"));
    Ok(())
}

fn empty_holds_only_the_mounts() -> Fallible<()> {
    let sandbox = with_programs(Sandbox::builder(RootFs::empty().file("/etc/motd", "hello"))).build()?;
    let seen = prints(&sandbox, "ls / | tr '\\n' ' '; cat /etc/motd; touch /new && echo ' written'")?;
    let expected = ["bin ", "dev ", "etc ", "lib "];
    assert!(
        expected.iter().all(|e| seen.contains(e)) && !seen.contains("home") && seen.ends_with("hello written"),
        "{seen}"
    );
    let sandbox = with_programs(Sandbox::builder(RootFs::empty().read_only())).build()?;
    assert_eq!(prints(&sandbox, "! touch /new 2>/dev/null; touch /tmp/new && echo ok")?, "ok");
    Ok(())
}

fn check_merge(layers: &Layers, sandbox: &Sandbox) -> Fallible<()> {
    let before = layers.state()?;
    let script = "cat /shared/a /shared/only-low /shared/b; echo new > /shared/a; rm /shared/only-low; \
                  mkdir /made; ls /shared | tr '\\n' ' '; cat /shared/a";
    assert_eq!(prints(sandbox, script)?, "highlowhigha b new");
    // and true for that sandbox only
    assert_eq!(prints(sandbox, "cat /shared/a; ls /deep")?, "higher");
    assert_eq!(layers.state()?, before);
    Ok(())
}

fn layers_merge() -> Fallible<()> {
    let layers = Layers::new()?;
    check_merge(&layers, &layers.sandbox(layers.root())?)
}

/// Removing a directory of a layer, and making one in its place, takes attributes that
/// tmpfs has since Linux 6.6; a persistent upper has them anyway.
fn directories_of_layers_can_be_replaced() -> Fallible<()> {
    let layers = Layers::new()?;
    let upper = TempDir::new()?;
    let mut uppers = vec![Upper::Persist(upper.path().into())];
    if Need::Kernel(6, 6).probe().is_ok() {
        uppers.push(Upper::DEFAULT);
    }
    for upper in uppers {
        let sandbox = layers.sandbox(layers.root().upper(upper))?;
        assert_eq!(
            prints(&sandbox, "rm -r /deep; ls /deep 2>/dev/null || echo gone; mkdir -p /deep/er; ls /deep/er")?,
            "gone"
        );
    }
    Ok(())
}

fn in_hosts_user_namespace(root: RootFs) -> Fallible<Sandbox> {
    let namespaces = Namespaces::isolated().user(User::Inherit);
    // tests of the file system: with the power over it that root has without a user namespace
    let keep = belljar::Capabilities::keep([belljar::Capability::DacOverride, belljar::Capability::Fowner]);
    let security = belljar::Security::new().capabilities(keep);
    Ok(with_programs(Sandbox::builder(root)).namespaces(namespaces).security(security).build()?)
}

fn layers_merge_as_root() -> Fallible<()> {
    let layers = Layers::new()?;
    check_merge(&layers, &in_hosts_user_namespace(layers.root())?)
}

fn hidden(root: RootFs) -> RootFs {
    root.hide("/etc/secret").hide("/deep/er").hide("/not/there").opaque("/shared")
}

fn check_hidden(layers: &Layers, sandbox: &Sandbox) -> Fallible<()> {
    let before = layers.state()?;
    let script = "ls /etc /shared; ls /deep; test -d /shared && echo dir; echo x > /shared/mine; cat /shared/mine; \
                  mkdir /deep/er && ls /deep/er; cat /etc/secret 2>/dev/null || echo hidden";
    assert_eq!(prints(sandbox, script)?, "/etc:\n\n/shared:\ndir\nx\nhidden");
    assert_eq!(layers.state()?, before);
    Ok(())
}

fn whiteouts() -> Fallible<()> {
    let layers = Layers::new()?;
    // control: without it the secret is seen
    assert_eq!(prints(&layers.sandbox(layers.root())?, "cat /etc/secret")?, "secret");
    let sandbox = layers.sandbox(hidden(layers.root()))?;
    if prints(&sandbox, "mkdir /deep/er 2>/dev/null && echo made || echo refused")? == "refused" {
        // before Linux 6.6 (no user attributes on tmpfs) a directory cannot be made over a whiteout of one
        let script = "ls /etc /shared; ls /deep; cat /etc/secret 2>/dev/null || echo hidden";
        assert_eq!(prints(&sandbox, script)?, "/etc:\n\n/shared:\nhidden");
        return Ok(());
    }
    check_hidden(&layers, &sandbox)?;
    without(feature::TMPFS_XATTR, || check_hidden(&layers, &sandbox))
}

fn whiteouts_as_root() -> Fallible<()> {
    let layers = Layers::new()?;
    check_hidden(&layers, &in_hosts_user_namespace(hidden(layers.root()))?)
}

fn whiteouts_follow_links() -> Fallible<()> {
    let layers = Layers::new()?;
    let sandbox = layers.sandbox(layers.root().hide("/link/er/file").file("/link/er/new", "n"))?;
    assert_eq!(prints(&sandbox, "ls /deep/er; readlink /link")?, "new\n/deep");
    // the last component is not followed: the link itself is hidden
    let sandbox = layers.sandbox(layers.root().hide("/link"))?;
    assert_eq!(prints(&sandbox, "ls /deep; test -L /link || echo hidden")?, "er\nhidden");
    // neither `..` nor a link leads out
    symlink("../../../../../../../../tmp", layers.low.join("out"))?;
    let sandbox = layers.sandbox(layers.root().file("/out/made-inside", "x").file("/../../up", "y"))?;
    assert_eq!(prints(&sandbox, "cat /up")?, "y");
    assert!(!Path::new("/tmp/made-inside").exists() && !Path::new("/up").exists());
    Ok(())
}

fn init_layer_entries() -> Fallible<()> {
    let layers = Layers::new()?;
    let root = layers
        .root()
        .hosts([("10.0.0.7".parse()?, "peer")])
        .hostname("box")
        .resolv_conf(["10.0.0.1".parse()?])
        .directory("/srv/a/b")
        .file_mode("/srv/a/b/script", 0o755, "#!/bin/sh\necho ran\n")
        .file("/shared/a", "init")
        .symlink("/srv/link", "a/b/script")
        .file("/big", vec![b'x'; 3 << 20]);
    let sandbox = layers.sandbox(root)?;
    let script = "tail -1 /etc/hosts | tr '\\t' ' '; cat /etc/hostname /etc/resolv.conf; /srv/link; cat /shared/a; echo; \
                  ls -ld /srv/a | cut -c1-10; wc -c < /big; id -u";
    let seen = prints(&sandbox, script)?;
    assert_eq!(seen, "10.0.0.7 peer\nbox\nnameserver 10.0.0.1\nran\ninit\ndrwxr-xr-x\n3145728\n0");
    let error = refused(layers.sandbox(layers.root().file("/shared", "a file over a directory"))?.spawn(&sh("true")))?;
    assert_eq!(error.raw_os_error(), Some(21), "{error}"); // EISDIR
    assert_kind(&error, ErrorKind::InvalidSpec);
    Ok(())
}

/// Directories of a layer whose owner the sandbox's map does not know: the host's, for an
/// ordinary user; without id mapping for root too.
fn entries_below_others() -> Fallible<()> {
    // a directory of root's with directories of root's, and no mount below
    let layer = Path::new("/usr/share");
    let mut names = Vec::new();
    for entry in fs::read_dir(layer)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.metadata()?.uid() == 0 && fs::read_dir(entry.path())?.count() > 0 {
            names.push(entry.file_name().into_string().map_err(|_| "a name that is not UTF-8")?);
        }
    }
    let [hidden, entered, emptied, ..] = names.as_slice() else {
        return Err(format!("{} has too few directories", layer.display()).into());
    };
    let root = || {
        let file = format!("/{entered}/a/b/mine");
        RootFs::overlay([layer]).hide(format!("/{hidden}")).file(file, "mine").opaque(format!("/{emptied}"))
    };
    let check = || -> Fallible<()> {
        let sandbox = with_programs(Sandbox::builder(root())).build()?;
        let script =
            format!("test -e /{hidden} || echo hidden; ls /{emptied}; cat /{entered}/a/b/mine; ls /{entered} | wc -l");
        let seen = prints(&sandbox, &script)?;
        let count = fs::read_dir(layer.join(entered))?.count() + 1;
        assert_eq!(seen, format!("hidden\nmine{count}"));
        Ok(())
    };
    check()?;
    without(feature::IDMAPPED, check)
}

fn discard_is_bounded() -> Fallible<()> {
    let layers = Layers::new()?;
    let upper = Upper::Discard { bytes: Bytes::mib(4), inodes: 100 };
    let sandbox = layers.sandbox(layers.root().upper(upper))?;
    let output = sandbox.output(&sh("head -c 20000000 /dev/zero > /big; wc -c < /big"))?;
    assert!(text(&output).contains("No space left"), "{}", text(&output));
    let output = sandbox.output(&sh("for i in $(seq 1000); do touch /f$i 2>/dev/null || break; done; ls / | wc -l"))?;
    let count: u32 = String::from_utf8(output.stdout)?.trim().parse()?;
    assert!((50..500).contains(&count), "{count}");
    Ok(())
}

fn persist_keeps_and_locks() -> Fallible<()> {
    let layers = Layers::new()?;
    let upper = TempDir::new()?;
    let sandbox = layers.sandbox(layers.root().upper(Upper::Persist(upper.path().into())))?;
    prints(&sandbox, "echo kept > /kept; rm /shared/a")?;
    assert_eq!(
        prints(&sandbox, "cat /kept; ls /shared | tr '\\n' ' '; ls -ln /kept | cut -d' ' -f3")?,
        "kept\nb only-low 0"
    );
    assert!(upper.path().join("upper/kept").exists());
    // the init layer's entries and the mount targets are not in it
    let names: Vec<_> = fs::read_dir(upper.path().join("upper"))?.collect::<Result<Vec<_>, _>>()?;
    assert_eq!(names.len(), 2, "{names:?}");
    let mut first = sandbox.spawn(&sh("sleep 60"))?;
    let error = refused(sandbox.spawn(&sh("true")))?;
    assert_kind(&error, ErrorKind::Busy);
    first.kill(belljar::KillScope::Tree)?;
    first.wait()?;
    drop(first);
    assert_eq!(prints(&sandbox, "cat /kept")?, "kept");
    Ok(())
}

fn persist_locked_for_payload_init() -> Fallible<()> {
    let layers = Layers::new()?;
    let upper = TempDir::new()?;
    let root = layers.root().upper(Upper::Persist(upper.path().into()));
    let sandbox = with_programs(Sandbox::builder(root)).init(Init::Payload).build()?;
    let first = sandbox.spawn(&sh("sleep 60"))?;
    assert_kind(&refused(sandbox.spawn(&sh("true")))?, ErrorKind::Busy);
    drop(first);
    assert!(sandbox.status(&sh("true"))?.success());
    Ok(())
}

fn none_is_read_only() -> Fallible<()> {
    let layers = Layers::new()?;
    let sandbox = layers.sandbox(layers.root().read_only().file("/etc/init", "init"))?;
    assert_eq!(prints(&sandbox, "cat /shared/a /etc/init; ! touch /shared/a 2>/dev/null")?, "highinit");
    Ok(())
}

fn id_mapped() -> Fallible<()> {
    let layers = Layers::new()?;
    fs::set_permissions(layers.low.join("etc/secret"), fs::Permissions::from_mode(0o600))?;
    let sandbox = layers.sandbox(layers.root())?;
    let mut child = sandbox.spawn(&sh("exit 0"))?;
    let notes = child.notes().to_vec();
    child.wait()?;
    if !notes.is_empty() {
        return Err(format!("the temporary directory cannot be id-mapped: {notes:?}").into());
    }
    assert_eq!(prints(&sandbox, "stat -c %u:%g /etc/secret; cat /etc/secret")?, "0:0\nsecret");
    // the host's own root is never mapped
    let sandbox = Sandbox::builder(RootFs::dir("/").read_only()).mounts(Mounts::none()).build()?;
    assert_eq!(prints(&sandbox, "stat -c %u /bin/sh")?, "65534");
    Ok(())
}

fn not_id_mapped() -> Fallible<()> {
    let layers = Layers::new()?;
    without(feature::IDMAPPED, || {
        let sandbox = layers.sandbox(layers.root())?;
        assert_eq!(prints(&sandbox, "stat -c %u /etc/secret; cat /shared/a")?, "65534\nhigh");
        Ok(())
    })
}

fn layers_of_any_number() -> Fallible<()> {
    let dir = TempDir::new()?;
    let layers: Vec<_> = (0..500).map(|i| dir.path().join(format!("layer-{i:03}"))).collect();
    for (i, layer) in layers.iter().enumerate() {
        fs::create_dir(layer)?;
        fs::write(layer.join("top"), i.to_string())?;
        fs::write(layer.join(format!("of-{i}")), "")?;
    }
    program_directories(&layers[0])?;
    for features in [0, feature::LOWERDIR_FD] {
        without(features, || {
            for count in [1, 2, 128, 500] {
                let root = RootFs::overlay(&layers[..count]);
                let sandbox = with_programs(Sandbox::builder(root)).build()?;
                let seen = prints(&sandbox, "cat /top; ls / | grep -c of-")?;
                assert_eq!(seen, format!("{}{}", count - 1, count));
            }
            Ok(())
        })?;
    }
    let more = layers.iter().chain([&layers[0]]);
    assert_kind(&refused(Sandbox::builder(RootFs::overlay(more)).build())?, ErrorKind::InvalidSpec);
    Ok(())
}

fn layers_of_any_path() -> Fallible<()> {
    let dir = TempDir::new()?;
    let names =
        ["with space", "with:colon", "with,comma", "with\\backslash", "ünïcode", "lowerdir=x", &"n".repeat(250)];
    let mut layers = Vec::new();
    for name in names {
        let layer = dir.path().join(name);
        program_directories(&layer)?;
        fs::write(layer.join(format!("of-{}", layers.len())), "")?;
        layers.push(layer);
    }
    // longer than the kernel takes at once: made by its own depth
    let mut deep = dir.path().to_owned();
    let step = "d".repeat(200);
    for _ in 0..5 {
        deep.push(&step);
        fs::create_dir(&deep)?;
    }
    let count = layers.len() + 1;
    fs::write(deep.join("of-deep"), "")?;
    layers.push(deep);
    for features in [0, feature::LOWERDIR_FD, feature::MOUNT_API] {
        without(features, || {
            let sandbox = with_programs(Sandbox::builder(RootFs::overlay(&layers))).build()?;
            assert_eq!(prints(&sandbox, "ls / | grep -c of-")?, count.to_string());
            Ok(())
        })?;
    }
    Ok(())
}

const EACH: [u32; 9] = [
    feature::MOUNT_API,
    feature::MOUNT_SETATTR,
    feature::OPENAT2,
    feature::LOWERDIR_FD,
    feature::IDMAPPED,
    feature::MEMFD_EXEC,
    feature::PIVOT_ROOT,
    feature::THREAD,
    !0,
];

fn fallbacks_give_the_same() -> Fallible<()> {
    let layers = Layers::new()?;
    for features in EACH {
        without(features, || {
            let root = layers.root().hide("/etc/secret").file("/etc/mine", "mine");
            let sandbox = layers.sandbox(root).map_err(|e| format!("without {features:#x}: {e}"))?;
            let script = "ls /etc; cat /shared/a /etc/mine; echo; ls /dev/null /dev/pts/ptmx /proc/self/status | wc -l; \
                          ! touch /usr/x 2>/dev/null; ! echo x 2>/dev/null > /proc/sys/kernel/hostname; cat /proc/keys";
            let seen = prints(&sandbox, script).map_err(|e| format!("without {features:#x}: {e}"))?;
            assert_eq!(seen, "mine\nhighmine\n3", "without {features:#x}");
            Ok(())
        })?;
    }
    Ok(())
}

fn fallbacks_of_plain_roots() -> Fallible<()> {
    let layers = Layers::new()?;
    for features in EACH {
        without(features, || {
            let explain = |e| format!("without {features:#x}: {e}");
            let sandbox = host().build()?;
            let mounts = prints(&sandbox, "cat /proc/self/mountinfo").map_err(explain)?;
            for line in mounts.lines() {
                let fields: Vec<_> = line.split(' ').collect();
                let own = ["/proc", "/dev", "/tmp"].iter().any(|own| fields[4].starts_with(own));
                assert!(own || fields[5].starts_with("ro"), "without {features:#x}: {line}");
            }
            let sandbox = layers.sandbox(RootFs::dir(&layers.low).read_only())?;
            assert_eq!(prints(&sandbox, "cat /shared/a; ! touch /x 2>/dev/null").map_err(explain)?, "low");
            let sandbox = with_programs(Sandbox::builder(RootFs::empty().file("/f", "f").read_only())).build()?;
            assert_eq!(prints(&sandbox, "cat /f; ! touch /x 2>/dev/null").map_err(explain)?, "f");
            Ok(())
        })?;
    }
    Ok(())
}

fn missing_targets() -> Fallible<()> {
    let layers = Layers::new()?;
    let before = layers.state()?;
    let upper = TempDir::new()?;
    for kind in [Upper::None, Upper::Persist(upper.path().into())] {
        let root = RootFs::dir(&layers.low).upper(kind);
        let builder = with_programs(Sandbox::builder(root));
        let sandbox = builder
            .mount(Mount::bind("/etc/passwd", "/new/place/file"))
            .mount(Mount::tmpfs("/another/new/dir"))
            .build()?;
        let seen = prints(&sandbox, "head -c 4 /new/place/file; touch /another/new/dir/x && echo ok")?;
        assert_eq!(seen, "rootok");
    }
    assert_eq!(fs::read_dir(upper.path().join("upper"))?.count(), 0);
    assert_eq!(layers.state()?, before);
    Ok(())
}

fn absent_layer() -> Fallible<()> {
    let sandbox = Sandbox::builder(RootFs::overlay(["/no/such/layer"])).build()?;
    let error = refused(sandbox.spawn(&sh("true")))?;
    assert_kind(&error, ErrorKind::NotFound);
    assert!(error.to_string().contains("/no/such/layer"), "{error}");
    let sandbox = Sandbox::builder(RootFs::dir("/etc/passwd")).build()?;
    assert_eq!(refused(sandbox.spawn(&sh("true")))?.raw_os_error(), Some(20)); // ENOTDIR
    Ok(())
}

fn old_root_is_gone() -> Fallible<()> {
    let layers = Layers::new()?;
    let dir = layers.low.display().to_string();
    let sandbox = layers.sandbox(RootFs::dir(&layers.low).read_only())?;
    let mounts = prints(&sandbox, "cat /proc/self/mountinfo")?;
    let roots: Vec<_> = mounts.lines().filter(|l| l.split(' ').nth(4) == Some("/")).collect();
    assert_eq!(roots.len(), 1, "{mounts}");
    assert!(mounts.lines().all(|l| !l.contains("/sys/fs/cgroup")), "{mounts}");
    assert_eq!(
        prints(&sandbox, &format!("ls {dir} 2>/dev/null || echo absent; cd ..; cd ../..; ls -d shared"))?,
        "absent\nshared"
    );
    Ok(())
}
