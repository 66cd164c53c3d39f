//! Attacks on the file system.

use super::*;
use crate::harness::Need;
use belljar::{Bytes, Capabilities, Capability, Mount, Upper};
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const USER: &[Need] = &[Need::UserNamespaces];
const OVERLAY: &[Need] = &[Need::UserNamespaces, Need::UserOverlay];

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("attacks::files_source_swapped_in_a_race", USER, source_swapped),
        Test::new("attacks::files_target_swapped_in_a_race", OVERLAY, target_swapped),
        Test::new("attacks::files_proc_of_the_image_is_a_link", OVERLAY, proc_is_a_link),
        Test::new("attacks::files_fake_devices_of_the_image", OVERLAY, fake_devices),
        Test::new("attacks::files_host_tree_is_untouched", OVERLAY, host_tree_is_untouched),
        Test::new("attacks::files_propagation", USER, propagation),
        Test::new("attacks::files_pivot_remnants", USER, pivot_remnants),
        Test::new("attacks::files_device_nodes", USER, device_nodes),
        Test::new("attacks::files_handles", USER, handles),
        Test::new("attacks::files_planted_setuid", USER, planted_setuid),
        Test::new(
            "attacks::files_planted_for_an_owner",
            &[Need::Root, Need::UserNamespaces, Need::Kernel(5, 12)],
            planted_for_an_owner,
        ),
        Test::new("attacks::files_overlay_attributes", OVERLAY, overlay_attributes),
        Test::new("attacks::files_socket_in_a_bind", USER, socket_in_a_bind),
        Test::new("attacks::files_sockets_of_the_host_root", USER, sockets_of_the_host_root),
        Test::new("attacks::files_sys_of_the_host_root", USER, sys_of_the_host_root),
        Test::new("attacks::files_disk_and_inodes", USER, disk_and_inodes),
    ]
}

/// Swaps a path between a directory and a link out while `body` runs: many times at once, then with the directory in
/// place for longer and longer (to 32 ms), so that on any machine some attempts see a swap and some see none.
fn while_swapping<T>(
    shared: &std::path::Path,
    outside: &std::path::Path,
    body: impl FnOnce() -> Fallible<T>,
) -> Fallible<T> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| -> std::io::Result<u64> {
            let (here, away, link) = (shared.join("data"), shared.join("away"), shared.join("link"));
            let mut swaps = 0;
            let mut pauses =
                [Duration::ZERO; 48].into_iter().chain((0..16).map(|k| Duration::from_micros(1 << k))).cycle();
            while !stop.load(Ordering::Relaxed) {
                std::fs::rename(&here, &away)?;
                symlink(outside, &link)?;
                std::fs::rename(&link, &here)?;
                std::thread::yield_now();
                std::fs::remove_file(&here)?;
                std::fs::rename(&away, &here)?;
                std::thread::sleep(pauses.next().unwrap_or_default());
                swaps += 1;
            }
            Ok(swaps)
        });
        let stopping = Stop(&stop);
        let done = body();
        drop(stopping);
        let swaps = swapper.join().map_err(|_| "the swapper panicked")??;
        assert!(swaps > 10, "marker: only {swaps} swaps");
        done
    })
}

/// CVE-2021-30465, CVE-2024-23651: the source of a bind is replaced by a link to a secret. Whoever names a source
/// in a directory of an attacker's gets what is there; but never a mixture: what was looked at is what is mounted.
fn source_swapped() -> Fallible<()> {
    let (shared, secret) = (TempDir::new()?, TempDir::new()?);
    let data = shared.path().join("data");
    std::fs::create_dir(&data)?;
    std::fs::write(data.join("plain"), "")?;
    std::fs::write(secret.path().join("secret"), "")?;
    // a source of the kind that was seen: a directory, never the file or socket that a link leads to
    let socket = secret.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket)?;
    while_swapping(shared.path(), &socket, || {
        let (mut mounted, mut refused) = (0, 0);
        for _ in 0..races() {
            let sandbox = bare().mount(Mount::bind(&data, "/data").read_only()).build()?;
            match attack(&sandbox, &["list=/data", "connect=/data"]) {
                Ok(seen) => {
                    assert_eq!(seen["list=/data"], "plain", "{seen:?}");
                    assert_ne!(seen["connect=/data"], "ok", "the socket was mounted");
                    mounted += 1;
                }
                Err(_) => refused += 1,
            }
        }
        assert!(mounted > 0 && refused + mounted == races(), "{mounted} mounted, {refused} refused");
        Ok(())
    })
}

/// The target of a mount, in a layer that others can write, is replaced by a link to the host.
fn target_swapped() -> Fallible<()> {
    let (shared, outside) = (TempDir::new()?, TempDir::new()?);
    std::fs::create_dir(shared.path().join("data"))?;
    write_payload(&shared.path().join("attack"))?;
    for dir in ["proc", "dev", "tmp"] {
        std::fs::create_dir(shared.path().join(dir))?;
    }
    let host = |path: &std::path::Path| -> Fallible<String> {
        // others of this machine may mount meanwhile, but not there
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let there = |line: &&str| [path, shared.path()].iter().any(|dir| line.contains(&dir.display().to_string()));
        Ok(format!("{:?} {:?}", mounts.lines().filter(there).collect::<Vec<_>>(), std::fs::read_dir(path)?.count()))
    };
    let before = host(outside.path())?;
    while_swapping(shared.path(), outside.path(), || {
        let mut ran = 0;
        for _ in 0..races() {
            let sandbox = Sandbox::builder(RootFs::dir(shared.path())).mount(Mount::tmpfs("/data/inner")).build()?;
            // an error when the target goes away in between; a mount nowhere but in the sandbox
            ran += usize::from(attack(&sandbox, &["create=/data/inner/f"]).is_ok());
        }
        assert!(ran > 0);
        Ok(())
    })?;
    assert_eq!(host(outside.path())?, before);
    Ok(())
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-54867.
fn proc_is_a_link() -> Fallible<()> {
    for (name, to) in [("proc", "tmp/fake"), ("proc", "/proc/../tmp"), ("dev", "tmp"), ("sys", "proc")] {
        let layer = TempDir::new()?;
        write_payload(&layer.path().join("attack"))?;
        for dir in ["proc", "dev", "tmp", "sys", "tmp/fake"].into_iter().filter(|dir| *dir != name) {
            std::fs::create_dir_all(layer.path().join(dir))?;
        }
        symlink(to, layer.path().join(name))?;
        let sandbox = Sandbox::builder(RootFs::dir(layer.path())).mount(Mount::sysfs("/sys")).build()?;
        // either refused, or masked where it really is
        if let Ok(seen) =
            attack(&sandbox, &["open-write=/proc/sys/kernel/core_pattern", "open-write=/proc/sysrq-trigger"])
        {
            let refusals = "EACCES|EROFS|ENOENT|ENOTDIR";
            expect(
                &seen,
                &[("open-write=/proc/sys/kernel/core_pattern", refusals), ("open-write=/proc/sysrq-trigger", refusals)],
            );
        }
    }
    Ok(())
}

/// CVE-2025-31133, CVE-2025-62161: /dev/null of the image, with which masks would be made.
fn fake_devices() -> Fallible<()> {
    let layer = TempDir::new()?;
    write_payload(&layer.path().join("attack"))?;
    for dir in ["proc", "dev", "tmp"] {
        std::fs::create_dir(layer.path().join(dir))?;
    }
    symlink("/proc/sys/kernel/core_pattern", layer.path().join("dev/null"))?;
    std::fs::write(layer.path().join("dev/zero"), "not zero")?;
    let sandbox = Sandbox::builder(RootFs::dir(layer.path())).build()?;
    let seen = attack(
        &sandbox,
        &["open-write=/dev/null", "read=/dev/null", "read=/dev/zero", "read=/proc/kcore", "read=/proc/keys"],
    )?;
    expect(
        &seen,
        &[
            ("open-write=/dev/null", "ok"),
            ("read=/dev/null", "ok 0"),
            ("read=/dev/zero", "ok 4096"),
            ("read=/proc/kcore", "ok 0|ENOENT"),
            ("read=/proc/keys", "ok 0|ENOENT"),
        ],
    );
    Ok(())
}

/// All names, inodes, sizes and times below a directory.
fn tree(dir: &std::path::Path) -> Fallible<Vec<String>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let found = std::fs::symlink_metadata(&path)?;
        all.push(format!(
            "{} {} {} {} {}",
            path.display(),
            found.ino(),
            found.len(),
            found.mtime_nsec(),
            found.ctime_nsec()
        ));
        if found.is_dir() {
            all.extend(tree(&path)?);
        }
    }
    all.sort();
    Ok(all)
}

/// CVE-2024-45310, CVE-2024-23652: stubs of mount points, made and removed in the host's tree.
fn host_tree_is_untouched() -> Fallible<()> {
    let (layer, bind) = (TempDir::new()?, TempDir::new()?);
    write_payload(&layer.path().join("attack"))?;
    std::fs::write(bind.path().join("file"), "x")?;
    let before = (tree(layer.path())?, tree(bind.path())?);
    let builder = || Sandbox::builder(RootFs::dir(layer.path())).mount(Mount::bind(bind.path(), "/a/b/c").read_only());
    let sandbox = builder().mount(Mount::tmpfs("/d/e")).build()?;
    let seen = attack(&sandbox, &["create=/attack2", "mkdir=/d/f", "create=/a/b/c/file2", "open-write=/attack"])?;
    expect(
        &seen,
        &[
            ("create=/attack2", "ok"),
            ("mkdir=/d/f", "ok"),
            ("create=/a/b/c/file2", "EROFS"),
            ("open-write=/attack", "ok|EACCES|ETXTBSY"),
        ],
    );
    // a target below a bind would have to be made in the host's directory
    let stub = builder().mount(Mount::tmpfs("/a/b/c/stub")).build()?;
    assert!(stub.spawn(&payload(&[])).is_err());
    assert_eq!((tree(layer.path())?, tree(bind.path())?), before);
    Ok(())
}

fn propagation() -> Fallible<()> {
    // where the payloads mount
    let mounts = || -> Fallible<usize> {
        let text = std::fs::read_to_string("/proc/self/mountinfo")?;
        let points = text.lines().filter_map(|line| line.split(' ').nth(4));
        Ok(points.filter(|point| ["/tmp", "/dev/shm", "/var", "/usr"].contains(point)).count())
    };
    let before = mounts()?;
    let keep = Security::new().capabilities(Capabilities::keep([Capability::SysAdmin]));
    let seen = with(keep.clone(), &["mount=/tmp", "mount=/dev/shm"])?;
    expect(&seen, &[("mount=/tmp", "ok"), ("mount=/dev/shm", "ok")]);
    // the host's root with all its mounts
    let (dir, path) = payload_file()?;
    let sandbox = host().mount(Mount::bind(dir.path(), "/tmp")).security(keep).build()?;
    let mut command = Command::new("/tmp/attack");
    let output = sandbox.output(command.args(["mount=/tmp", "mount=/var", "mount=/usr"]))?;
    expect(&parse(&text(&output))?, &[("mount=/tmp", "ok"), ("mount=/var", "ok"), ("mount=/usr", "ok")]);
    assert!(path.exists());
    assert_eq!(mounts()?, before);
    Ok(())
}

fn pivot_remnants() -> Fallible<()> {
    let output = bare().mount(Mount::tmpfs("/tmp")).build()?.output(&payload(&[
        "read=/proc/self/mountinfo",
        "double-chroot",
        "walk-up",
    ]))?;
    let seen = parse(&text(&output))?;
    expect(&seen, &[("double-chroot", "EPERM")]);
    // even with the capability the walk ends in the sandbox
    let keep = Security::new().capabilities(Capabilities::keep([Capability::SysChroot]));
    let seen = with(keep, &["double-chroot", "list=/"])?;
    expect(&seen, &[("double-chroot", "ok")]);
    let mut names: Vec<_> = seen["list=/"].split(' ').collect();
    names.sort_unstable();
    assert_eq!(names.join(" "), "attack dev proc tmp");
    // nothing of the host in mountinfo, but for what was asked for
    let mounts = prints(
        &host().mounts(belljar::Mounts::none().mount(Mount::proc("/proc"))).build()?,
        "cat /proc/self/mountinfo",
    )?;
    assert!(!mounts.contains("belljar") && mounts.lines().any(|l| l.contains(" / / ")), "{mounts}");
    Ok(())
}

fn device_nodes() -> Fallible<()> {
    let dir = TempDir::new()?;
    let root = nix::unistd::geteuid().is_root();
    if root {
        // a device file that the host has, in a directory that is bound
        let made = std::process::Command::new("mknod").arg(dir.path().join("null")).args(["c", "1", "3"]).status()?;
        assert!(made.success());
        std::fs::set_permissions(dir.path().join("null"), std::fs::Permissions::from_mode(0o666))?;
    }
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777))?;
    let builder = || bare().mount(Mount::tmpfs("/tmp").mode(0o777));
    let attempts = ["mknod=/tmp/a", "mknod=/bind/b", "mknod-block=/tmp/c", "open-read=/bind/null"];
    let seen = attack(&builder().mount(Mount::bind(dir.path(), "/bind")).build()?, &attempts)?;
    expect(
        &seen,
        &[
            ("mknod=/tmp/a", "EPERM|EACCES"),
            ("mknod=/bind/b", "EPERM|EACCES"),
            ("mknod-block=/tmp/c", "EPERM|EACCES"),
            ("open-read=/bind/null", "EACCES|ENOENT"),
        ],
    );
    if root {
        expect(&seen, &[("open-read=/bind/null", "EACCES")]);
        // control: with devices allowed there
        let sandbox = builder().mount(Mount::bind(dir.path(), "/bind").allow_devices()).build()?;
        expect(&attack(&sandbox, &["open-read=/bind/null"])?, &[("open-read=/bind/null", "ok")]);
    }
    Ok(())
}

/// "shocker": files by their inode numbers, past all paths.
fn handles() -> Fallible<()> {
    refused_inside(&[("by-handle", "EPERM")])?;
    let open = Security::new().seccomp(belljar::Seccomp::Unconfined);
    expect(&with(open, &["by-handle"])?, &[("by-handle", "EPERM")]);
    if nix::unistd::geteuid().is_root() && Need::Root.probe().is_ok() {
        // control: outside the handle is looked at
        assert_ne!(outside(&["by-handle"])?["by-handle"], "EPERM");
    }
    Ok(())
}

/// A set-uid program planted through a writable bind, for somebody outside to run.
fn planted_setuid() -> Fallible<()> {
    let dir = TempDir::new()?;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777))?;
    let sandbox = bare().mount(Mount::bind(dir.path(), "/bind")).build()?;
    expect(
        &attack(&sandbox, &["plant-setuid=/bind/planted", "uid"])?,
        &[("plant-setuid=/bind/planted", "ok"), ("uid", "ok 0")],
    );
    let found = std::fs::metadata(dir.path().join("planted"))?;
    assert_ne!(found.uid(), 0, "root's: {:o}", found.mode());
    Ok(())
}

/// A bind is seen by the payload as its owner sees it, and never as the host's root does.
fn planted_for_an_owner() -> Fallible<()> {
    use std::os::unix::fs::chown;
    const OWNER: u32 = 54_321;
    const ROOT_INSIDE: u32 = 1_879_048_192;
    let run = |owner: u32, mount: fn(Mount) -> Mount| -> Fallible<(Seen, u32, u32)> {
        let dir = TempDir::new()?;
        for (name, id) in [("own", owner), ("root", 0), ("other", OWNER + 1)] {
            let path = dir.path().join(name);
            std::fs::write(&path, "x")?;
            chown(&path, Some(id), Some(id))?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        }
        chown(dir.path(), Some(owner), Some(owner))?;
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777))?;
        let sandbox = bare().mount(mount(Mount::bind(dir.path(), "/bind"))).build()?;
        let child = sandbox.spawn(&payload(&["sleep=60"]))?;
        assert!(child.notes().iter().all(|note| !note.contains("id-mapped")), "{:?}", child.notes());
        let attempts = [
            "plant-setuid=/bind/planted",
            "open-read=/bind/own",
            "open-write=/bind/root",
            "open-read=/bind/root",
            "open-read=/bind/other",
        ];
        let seen = attack(&sandbox, &attempts)?;
        let found = std::fs::metadata(dir.path().join("planted"));
        let (uid, gid) = found.map_or((u32::MAX, u32::MAX), |found| (found.uid(), found.gid()));
        Ok((seen, uid, gid))
    };
    let foreign =
        [("open-write=/bind/root", "EACCES"), ("open-read=/bind/root", "EACCES"), ("open-read=/bind/other", "EACCES")];
    let own = "open-read=/bind/own";
    // the owner's, and readable; nobody else's, root's least of all
    let (seen, uid, gid) = run(OWNER, |mount| mount)?;
    expect(&seen, &[&foreign[..], &[(own, "ok"), ("plant-setuid=/bind/planted", "ok")]].concat());
    assert_eq!((uid, gid), (OWNER, OWNER));
    // a source of the host's root: as it is
    let (seen, uid, gid) = run(0, |mount| mount)?;
    expect(&seen, &[&foreign[..], &[(own, "EACCES"), ("plant-setuid=/bind/planted", "ok")]].concat());
    assert_eq!((uid, gid), (ROOT_INSIDE, ROOT_INSIDE));
    // controls: the opt-out, and a bind that cannot be written, which shows nothing private
    let (seen, uid, _) = run(OWNER, Mount::keep_owner)?;
    expect(&seen, &[&foreign[..], &[(own, "EACCES"), ("plant-setuid=/bind/planted", "ok")]].concat());
    assert_eq!(uid, ROOT_INSIDE);
    let (seen, ..) = run(OWNER, Mount::read_only)?;
    expect(&seen, &[(own, "EACCES"), ("plant-setuid=/bind/planted", "EROFS|EACCES")]);
    let (seen, ..) = run(OWNER, |mount| mount.read_only().map_owner())?;
    expect(&seen, &[(own, "ok"), ("plant-setuid=/bind/planted", "EROFS|EACCES")]);
    // required of a source that root owns, or of ids that cannot be mapped: an error
    let error = refused(bare().mount(Mount::bind("/usr", "/bind").map_owner()).build()?.spawn(&payload(&[])))?;
    assert_kind(&error, belljar::ErrorKind::InvalidSpec);
    let inherited = belljar::Namespaces::isolated().user(belljar::User::Inherit);
    let error = refused(bare().namespaces(inherited).mount(Mount::bind("/usr", "/bind").map_owner()).build())?;
    assert_kind(&error, belljar::ErrorKind::InvalidSpec);
    Ok(())
}

/// CVE-2021-3493, CVE-2023-0386, CVE-2023-32629: marks that make another file system of a layer.
fn overlay_attributes() -> Fallible<()> {
    let layer = TempDir::new()?;
    write_payload(&layer.path().join("attack"))?;
    let root = RootFs::dir(layer.path()).upper(Upper::Discard { bytes: Bytes::mib(8), inodes: 100 });
    let sandbox = Sandbox::builder(root).build()?;
    let seen = attack(&sandbox, &["mkdir=/d", "xattr=/d", "list=/"])?;
    expect(&seen, &[("mkdir=/d", "ok"), ("xattr=/d", "EPERM|EOPNOTSUPP")]);
    Ok(())
}

/// The host's /sys tells of its hardware, its control groups, its network.
fn sys_of_the_host_root() -> Fallible<()> {
    let count = |builder: SandboxBuilder| -> Fallible<u32> {
        Ok(text(&builder.build()?.output(&sh("ls /sys | wc -l"))?).trim().parse()?)
    };
    assert_eq!(count(Sandbox::builder(RootFs::host()))?, 0);
    // controls: a plan of one's own, and a sysfs that is asked for
    assert!(count(Sandbox::builder(RootFs::host()).mounts(belljar::Mounts::none()))? > 3);
    assert!(count(Sandbox::builder(RootFs::host()).mount(Mount::sysfs("/sys")))? > 3);
    Ok(())
}

/// Connecting takes no write access: a read-only bind does not protect what listens there.
fn socket_in_a_bind() -> Fallible<()> {
    let dir = TempDir::new()?;
    let path = dir.path().join("s");
    let _listener = std::os::unix::net::UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))?;
    let error = refused(bare().mount(Mount::bind(&path, "/s").read_only()).build()?.spawn(&payload(&["connect=/s"])))?;
    assert!(error.to_string().contains("Mount::socket"), "{error}");
    // control: asked for by its name it is there
    let sandbox = bare().mount(Mount::socket(&path, "/s")).build()?;
    expect(&attack(&sandbox, &["connect=/s"])?, &[("connect=/s", "ok")]);
    // below a directory, also by way of a link
    let (link, inner) = (TempDir::new()?, TempDir::new()?);
    symlink(dir.path(), link.path().join("link"))?;
    let via = dir.path().parent().ok_or("no parent")?;
    for source in [dir.path(), &link.path().join("link"), via] {
        let error = refused(bare().mount(Mount::bind(source, "/d").read_only()).build()?.spawn(&payload(&[])))?;
        assert_kind(&error, belljar::ErrorKind::InvalidSpec);
        assert!(error.to_string().contains("exposes the socket"), "{error}");
    }
    let sandbox = bare().mount(Mount::socket(dir.path(), "/d")).build()?;
    expect(&attack(&sandbox, &["connect=/d/s"])?, &[("connect=/d/s", "ok")]);
    // nothing is exposed where something lies over it, or elsewhere
    let sandbox = bare().mount(Mount::bind(dir.path(), "/d").read_only()).mount(Mount::mask("/d/s")).build()?;
    expect(&attack(&sandbox, &["connect=/d/s"])?, &[("connect=/d/s", "ECONNREFUSED|EACCES")]);
    assert!(bare().mount(Mount::bind(inner.path(), "/d")).build()?.spawn(&payload(&[])).is_ok());
    Ok(())
}

/// The host's own root holds what listens on the host: the bus of a user's session runs programs outside.
fn sockets_of_the_host_root() -> Fallible<()> {
    let dir = TempDir::new()?;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777))?;
    let path = dir.path().join("s");
    let _listener = std::os::unix::net::UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))?;
    let (_payload, file) = payload_file()?;
    let connect = format!("connect={}", path.display());
    let open = format!("open-read={}", path.display());
    // without the plan's tmpfs on /tmp
    let mounts = belljar::Mounts::none().mount(Mount::proc("/proc"));
    let sandbox = host().mounts(mounts).build()?;
    let output = sandbox.output(Command::new(&file).args([connect.as_str(), &open]))?;
    expect(&parse(&text(&output))?, &[(connect.as_str(), "ECONNREFUSED|EACCES"), (open.as_str(), "EACCES|ENXIO|ok")]);
    // control
    expect(&outside(&[&connect])?, &[(connect.as_str(), "ok")]);
    Ok(())
}

fn disk_and_inodes() -> Fallible<()> {
    let root = RootFs::empty().file_mode("/attack", 0o755, PAYLOAD);
    let root = root.upper(Upper::Discard { bytes: Bytes::mib(8), inodes: 500 });
    let sandbox = Sandbox::builder(root).mount(Mount::tmpfs("/small").bytes(Bytes::mib(3)).inodes(50)).build()?;
    let seen = attack(&sandbox, &["fill=/x", "fill=/small/x", "fill=/dev/shm/x", "fill=/dev/x"])?;
    expect(&seen, &[("fill=/small/x", "ok 3"), ("fill=/dev/shm/x", "ok 64"), ("fill=/dev/x", "ok 0")]);
    assert!(matches!(seen["fill=/x"].as_str(), "ok 7" | "ok 8" | "EROFS"), "{seen:?}");
    let seen = attack(&sandbox, &["inodes=/small", "inodes=/tmp"])?;
    for (place, most) in [("inodes=/small", 50), ("inodes=/tmp", 8192)] {
        let count: u64 = seen[place].trim_start_matches("ok ").parse()?;
        assert!(count > most / 2 && count <= most, "{seen:?}");
    }
    Ok(())
}
