//! The mount plan: kinds, options, targets that links lead astray.

use crate::common::*;
use crate::harness::{Need, TempDir, Test};
use belljar::testing::feature;
use belljar::{
    Bytes, CgroupLimits, ErrorKind, HidePids, Landlock, Missing, Mount, Mounts, ProcSubset, Propagation, RootFs,
    Sandbox, SandboxBuilder, Security, Stdio,
};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

pub fn tests() -> Vec<Test> {
    const USER: &[Need] = &[Need::UserNamespaces];
    const OVERLAY: &[Need] = &[Need::UserNamespaces, Need::UserOverlay];
    vec![
        Test::new("mounts::standard_is_what_a_program_expects", USER, standard),
        Test::new("mounts::masks_and_read_only_paths", USER, masks),
        Test::new("mounts::bind_read_only_and_writable", USER, binds),
        Test::new("mounts::bind_read_only_is_recursive", &[Need::Root], recursive_read_only),
        Test::new("mounts::relative_sources", USER, relative_sources),
        Test::new("mounts::bind_of_a_file", USER, bind_of_a_file),
        Test::new("mounts::tmpfs_options", USER, tmpfs_options),
        Test::new("mounts::noexec", USER, noexec),
        Test::new("mounts::devices_do_not_open", &[Need::Root], devices),
        Test::new("mounts::each_kind", USER, each_kind),
        Test::new("mounts::idmapped_bind", &[Need::Root, Need::Kernel(5, 12)], idmapped_bind),
        Test::new("mounts::proc_of_processes_alone", USER, proc_subset),
        Test::new("mounts::proc_hides_the_processes_of_others", USER, proc_hides),
        Test::new("mounts::missing_error_skip_create", USER, missing),
        Test::new("mounts::targets_never_leave_the_root", OVERLAY, targets_stay_inside),
        Test::new("mounts::proc_over_a_link_of_the_layer", OVERLAY, proc_over_a_link),
        Test::new("mounts::nothing_is_made_in_a_bound_directory", USER, nothing_made_in_binds),
        Test::new("mounts::sockets_are_refused_unless_named", USER, sockets),
        Test::new("mounts::nothing_propagates_to_the_host", &[Need::Root], no_propagation),
        Test::new("mounts::order_is_kept", USER, order),
        Test::new("mounts::a_racing_link_never_leads_out", OVERLAY, racing_link),
    ]
}

fn empty(mounts: impl IntoIterator<Item = Mount>) -> Fallible<Sandbox> {
    let builder = with_programs(Sandbox::builder(RootFs::empty()));
    Ok(mounts.into_iter().fold(builder, |builder, mount| builder.mount(mount)).build()?)
}

fn standard() -> Fallible<()> {
    let sandbox = empty([])?;
    let script = "for d in null zero full random urandom tty; do test -c /dev/$d && echo $d; done; \
                  head -c 3 /dev/zero | wc -c; head -c 8 /dev/urandom | wc -c; echo x > /dev/null; \
                  echo x 2>/dev/null > /dev/full || echo full; \
                  readlink /dev/fd /dev/stdin /dev/stdout /dev/stderr /dev/ptmx; test -c /dev/pts/ptmx && echo pts; \
                  touch /dev/shm/x /tmp/y && echo shm; test -d /dev/mqueue && echo mqueue; test -d /proc/self && echo proc; \
                  stat -c %a /tmp /dev/shm; test -d /sys || echo no sys";
    let expected = "null\nzero\nfull\nrandom\nurandom\ntty\n3\n8\nfull\n/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n\
                    /proc/self/fd/2\npts/ptmx\npts\nshm\nmqueue\nproc\n1777\n1777\nno sys";
    assert_eq!(prints(&sandbox, script)?, expected);
    // processes of its own only
    assert_eq!(prints(&sandbox, "set -- /proc/[0-9]*; echo $1; test $# -lt 5 && echo few")?, "/proc/1\nfew");
    Ok(())
}

fn masks() -> Fallible<()> {
    let sandbox = empty([])?;
    let script = "for f in interrupts keys timer_list sysrq-trigger; do test ! -e /proc/$f || test ! -s /proc/$f || echo $f; done; \
                  for f in acpi scsi; do test ! -e /proc/$f || ls /proc/$f; done; \
                  for f in /proc/sys/kernel/hostname /proc/sys/net/ipv4/ip_forward; do echo 1 2>/dev/null > $f && echo $f; done; \
                  umount /proc/keys 2>/dev/null && echo unmounted; cat /proc/keys";
    assert_eq!(prints(&sandbox, script)?, "");
    // control: a plain proc shows the lines
    let plain = with_programs(Sandbox::builder(RootFs::empty()).mounts(Mounts::none().mount(Mount::proc("/proc"))));
    assert!(!prints(&plain.build()?, "cat /proc/interrupts")?.is_empty());
    // masks of one's own, over a file and a directory
    let root = Sandbox::builder(RootFs::empty().file("/etc/secret", "secret").file("/data/file", "x"));
    let sandbox = with_programs(root).mount(Mount::mask("/etc/secret")).mount(Mount::mask("/data")).build()?;
    assert_eq!(prints(&sandbox, "cat /etc/secret; ls /data; ! touch /data/x 2>/dev/null")?, "");
    let sandbox = empty([Mount::tmpfs("/data"), Mount::read_only_path("/data"), Mount::read_only_path("/nothing")])?;
    assert_eq!(prints(&sandbox, "! touch /data/x 2>/dev/null; echo ok")?, "ok");
    Ok(())
}

fn open_dir() -> Fallible<TempDir> {
    let dir = TempDir::new()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777))?;
    Ok(dir)
}

fn binds() -> Fallible<()> {
    let dir = open_dir()?;
    fs::write(dir.path().join("file"), "content")?;
    let sandbox = empty([Mount::bind(dir.path(), "/ro").read_only(), Mount::bind(dir.path(), "/rw")])?;
    let seen = prints(&sandbox, "cat /ro/file; ! touch /ro/x 2>/dev/null; echo new > /rw/new; cat /ro/new")?;
    assert_eq!(seen, "contentnew");
    assert_eq!(fs::read_to_string(dir.path().join("new"))?, "new\n");
    // a source that is not there, and a path that is longer than the kernel takes
    let error = refused(empty([Mount::bind("/no/such", "/x")])?.spawn(&sh("true")))?;
    assert_kind(&error, ErrorKind::NotFound);
    Ok(())
}

/// `dir/sub` is a mount of its own in the host, for as long as the guard lives.
struct Submount(std::path::PathBuf);
impl Submount {
    fn new(dir: &Path) -> Fallible<Submount> {
        let sub = dir.join("sub");
        fs::create_dir(&sub)?;
        let status = std::process::Command::new("mount").args(["-t", "tmpfs", "belljar-test"]).arg(&sub).status()?;
        if !status.success() {
            return Err("cannot mount a tmpfs".into());
        }
        Ok(Submount(sub))
    }
}
impl Drop for Submount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status(); // the leak check tells
    }
}

fn recursive_read_only() -> Fallible<()> {
    let dir = open_dir()?;
    let sub = Submount::new(dir.path())?;
    fs::write(sub.0.join("file"), "below")?;
    fs::set_permissions(&sub.0, fs::Permissions::from_mode(0o777))?;
    for features in [0, feature::MOUNT_SETATTR, feature::MOUNT_API] {
        without(features, || {
            let sandbox = empty([Mount::bind(dir.path(), "/ro").read_only(), Mount::bind(dir.path(), "/rw")])?;
            let seen = prints(&sandbox, "cat /ro/sub/file; ! touch /ro/sub/x 2>/dev/null; touch /rw/sub/x && echo +")?;
            assert_eq!(seen, "below+", "without {features:#x}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Taken from the working directory of `build`, whatever happens on the way to the mount.
fn relative_sources() -> Fallible<()> {
    let dir = open_dir()?;
    fs::write(dir.path().join("file"), "relative")?;
    let up = std::env::current_dir()?.components().skip(1).map(|_| "../").collect::<String>();
    let relative = Path::new(&up).join(dir.path().strip_prefix("/")?);
    for features in [0, feature::MOUNT_API] {
        without(features, || {
            let sandbox = empty([Mount::tmpfs("/first"), Mount::bind(&relative, "/d")])?;
            assert_eq!(prints(&sandbox, "cat /d/file")?, "relative");
            Ok(())
        })?;
    }
    Ok(())
}

fn bind_of_a_file() -> Fallible<()> {
    let dir = open_dir()?;
    let file = dir.path().join("file");
    fs::write(&file, "one")?;
    let sandbox = empty([Mount::bind(&file, "/deep/in/here").read_only()])?;
    assert_eq!(prints(&sandbox, "cat /deep/in/here; ! echo x 2>/dev/null > /deep/in/here")?, "one");
    // a directory over a file is refused
    let root = RootFs::empty().file("/plain", "x");
    let sandbox = Sandbox::builder(root).mount(Mount::bind(dir.path(), "/plain")).build()?;
    let error = refused(sandbox.spawn(&sh("true")))?;
    assert_kind(&error, ErrorKind::NotFound);
    assert_eq!(error.step().map(|s| s.name()), Some("attach"), "{error}");
    Ok(())
}

fn tmpfs_options() -> Fallible<()> {
    let mount = Mount::tmpfs("/t").bytes(Bytes::mib(2)).inodes(50).mode(0o700);
    let sandbox = empty([mount.clone()])?;
    let script = "stat -c %a /t; head -c 5000000 /dev/zero 2>/dev/null > /t/big; test $(stat -c %s /t/big) -le 2097152 && echo bytes; \
                  rm /t/big; for i in $(seq 200); do touch /t/$i 2>/dev/null || break; done; ls /t | wc -l";
    let output = sandbox.output(&sh(script))?;
    let seen = String::from_utf8(output.stdout)?;
    assert!(seen.starts_with("700\nbytes\n"), "{seen}");
    let count: u32 = seen.lines().nth(2).unwrap_or_default().parse()?;
    assert!((30..=50).contains(&count), "{count}");
    for bad in [mount.clone().bytes(Bytes::new(0)), mount.clone().inodes(0), mount.mode(0o17777)] {
        assert_kind(&refused(Sandbox::builder(RootFs::empty()).mount(bad).build())?, ErrorKind::InvalidSpec);
    }
    Ok(())
}

fn noexec() -> Fallible<()> {
    let script = "cp /bin/echo /t/echo && /t/echo ran";
    assert_eq!(prints(&empty([Mount::tmpfs("/t")])?, script)?, "ran");
    let output = empty([Mount::tmpfs("/t").noexec()])?.output(&sh(script))?;
    assert!(text(&output).contains("ermission denied"), "{}", text(&output));
    let output = empty([])?.output(&sh("cp /bin/echo /dev/shm/echo && /dev/shm/echo ran"))?;
    assert!(text(&output).contains("ermission denied"), "{}", text(&output));
    Ok(())
}

fn devices() -> Fallible<()> {
    let dir = open_dir()?;
    let node = dir.path().join("zero");
    let made = std::process::Command::new("mknod").arg(&node).args(["c", "1", "5"]).status()?;
    assert!(made.success());
    fs::set_permissions(&node, fs::Permissions::from_mode(0o666))?;
    // control: outside it opens
    assert!(fs::File::open(&node).is_ok());
    let sandbox = empty([Mount::bind(dir.path(), "/d")])?;
    let output = sandbox.output(&sh("head -c 1 /d/zero; mknod /tmp/mine c 1 5"))?;
    let seen = text(&output);
    let refusals = ["mknod: /tmp/mine: Operation not permitted", "mknod: /tmp/mine: Permission denied"]; // kernel, or Landlock
    assert!(
        seen.contains("'/d/zero' for reading: Permission denied") && refusals.iter().any(|r| seen.contains(r)),
        "{seen}"
    );
    let sandbox = empty([Mount::bind(dir.path(), "/d").allow_devices()])?;
    assert_eq!(prints(&sandbox, "head -c 1 /d/zero | wc -c")?, "1");
    Ok(())
}

fn each_kind() -> Fallible<()> {
    let mounts = [Mount::sysfs("/sys"), Mount::mqueue("/mq"), Mount::devpts("/pts")];
    let sandbox = empty(mounts)?;
    let script = "ls /sys/class/net | grep -x lo; test -z \"$(ls /sys/firmware 2>/dev/null)\" && echo masked; \
                  test -c /pts/ptmx && echo pts; grep -c ' /mq mqueue ' /proc/mounts; \
                  ! echo 1 2>/dev/null > /sys/class/net/lo/mtu";
    assert_eq!(prints(&sandbox, script)?, "lo\nmasked\npts\n1");
    Ok(())
}

fn idmapped_bind() -> Fallible<()> {
    let dir = TempDir::new()?;
    fs::write(dir.path().join("mine"), "root's")?;
    fs::set_permissions(dir.path().join("mine"), fs::Permissions::from_mode(0o600))?;
    let sandbox = empty([Mount::bind(dir.path(), "/d").idmapped()])?;
    let seen = prints(&sandbox, "cat /d/mine; echo new > /d/new; stat -c %u /d/new")?;
    assert_eq!(seen, "root's0");
    assert_eq!(fs::metadata(dir.path().join("new"))?.uid(), 0);
    // control: without it, the file is somebody else's
    let output = empty([Mount::bind(dir.path(), "/d")])?.output(&sh("cat /d/mine"))?;
    assert!(text(&output).contains("Permission denied"), "{}", text(&output));
    Ok(())
}

fn missing() -> Fallible<()> {
    let mount = |missing| Mount::tmpfs("/no/such/place").missing(missing);
    let error = refused(empty([mount(Missing::Error)])?.spawn(&sh("true")))?;
    assert_kind(&error, ErrorKind::NotFound);
    assert!(error.to_string().contains("/no/such/place"), "{error}");
    assert_eq!(prints(&empty([mount(Missing::Skip)])?, "test -e /no || echo skipped")?, "skipped");
    assert_eq!(prints(&empty([mount(Missing::Create)])?, "touch /no/such/place/x && echo made")?, "made");
    // never in the host's root
    let error = refused(host().mount(mount(Missing::Create)).build()?.spawn(&sh("true")))?;
    assert_kind(&error, ErrorKind::NotFound);
    assert!(!Path::new("/no/such").exists());
    Ok(())
}

fn targets_stay_inside() -> Fallible<()> {
    let layer = TempDir::new()?;
    program_directories(layer.path())?;
    let outside = open_dir()?;
    let up = "../".repeat(20);
    for (name, target) in [
        ("absolute", outside.path().display().to_string()),
        ("relative", format!("{up}{}", outside.path().display())),
        ("magic", "/proc/1/root".into()),
    ] {
        symlink(target, layer.path().join(name))?;
    }
    for features in [0, feature::OPENAT2, feature::MOUNT_API] {
        without(features, || {
            for name in ["absolute", "relative"] {
                let target = format!("/{name}/sub");
                let root = RootFs::dir(layer.path());
                let sandbox = with_programs(Sandbox::builder(root)).mount(Mount::tmpfs(&target)).build()?;
                let inside = prints(
                    &sandbox,
                    &format!("touch {target}/x && grep -c '{} ' /proc/mounts", outside.path().join("sub").display()),
                )?;
                assert_eq!(inside, "1", "the link's target was made inside");
            }
            Ok(())
        })?;
    }
    assert_eq!(fs::read_dir(outside.path())?.count(), 0);
    let root = RootFs::dir(layer.path());
    let sandbox =
        with_programs(Sandbox::builder(root)).mount(Mount::tmpfs("/magic/tmp").missing(Missing::Error)).build()?;
    assert!(refused(sandbox.spawn(&sh("true")))?.step().is_some());
    Ok(())
}

fn proc_over_a_link() -> Fallible<()> {
    let layer = TempDir::new()?;
    program_directories(layer.path())?;
    fs::remove_dir(layer.path().join("proc"))?;
    fs::create_dir(layer.path().join("elsewhere"))?;
    symlink("elsewhere", layer.path().join("proc"))?;
    // the link is followed inside the root, and what is mounted is proc
    let sandbox = with_programs(Sandbox::builder(RootFs::dir(layer.path()))).build()?;
    assert_eq!(prints(&sandbox, "test -d /proc/self && test -d /elsewhere/self && echo proc")?, "proc");
    Ok(())
}

fn nothing_made_in_binds() -> Fallible<()> {
    let dir = open_dir()?;
    let sandbox = empty([Mount::bind(dir.path(), "/d"), Mount::tmpfs("/d/new/sub")])?;
    let error = refused(sandbox.spawn(&sh("true")))?;
    assert_kind(&error, ErrorKind::NotFound);
    assert_eq!(fs::read_dir(dir.path())?.count(), 0);
    fs::create_dir_all(dir.path().join("new/sub"))?;
    assert_eq!(prints(&sandbox, "touch /d/new/sub/x && echo ok")?, "ok");
    assert_eq!(fs::read_dir(dir.path().join("new/sub"))?.count(), 0);
    Ok(())
}

fn sockets() -> Fallible<()> {
    let dir = TempDir::new()?;
    let path = dir.path().join("socket");
    let _listener = UnixListener::bind(&path)?;
    let error = refused(empty([Mount::bind(&path, "/socket")])?.spawn(&sh("true")))?;
    assert!(error.to_string().contains("Mount::socket"), "{error}");
    assert_eq!(prints(&empty([Mount::socket(&path, "/socket")])?, "test -S /socket && echo socket")?, "socket");
    Ok(())
}

fn no_propagation() -> Fallible<()> {
    let before = fs::read_to_string("/proc/self/mountinfo")?;
    let keep = belljar::Capabilities::keep([belljar::Capability::SysAdmin]);
    for propagation in [Propagation::Private, Propagation::Slave, Propagation::Shared, Propagation::Unbindable] {
        let sandbox = with_programs(Sandbox::builder(RootFs::empty()))
            .mount(Mount::bind("/usr", "/data").propagation(propagation))
            .security(belljar::Security::new().capabilities(keep))
            .build()?;
        let seen = prints(
            &sandbox,
            "mount -t tmpfs none /data && mount -t tmpfs none /tmp && grep -c ' / /data ' /proc/self/mountinfo",
        )?;
        assert_eq!(seen, "1", "{propagation:?}: the mount inside was made");
    }
    assert_eq!(fs::read_to_string("/proc/self/mountinfo")?, before);
    Ok(())
}

fn order() -> Fallible<()> {
    let mounts = [
        Mount::tmpfs("/a"),
        Mount::tmpfs("/a/b").mode(0o711),
        Mount::bind("/etc/passwd", "/a/b/file"),
        Mount::tmpfs("/a").mode(0o700),
    ];
    assert_eq!(prints(&empty(mounts[..3].to_vec())?, "stat -c %a /a /a/b; head -c 4 /a/b/file")?, "755\n711\nroot");
    assert_eq!(prints(&empty(mounts)?, "stat -c %a /a; ls /a")?, "700");
    Ok(())
}

/// CVE-2021-30465: a link in a directory that an attacker writes, swapped while mounts
/// are made below it.
fn racing_link() -> Fallible<()> {
    let shared = open_dir()?;
    let outside = open_dir()?;
    fs::create_dir(shared.path().join("real"))?;
    fs::create_dir(shared.path().join("real/sub"))?;
    fs::create_dir(outside.path().join("sub"))?;
    let name = shared.path().join("name");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let sandbox =
        empty([Mount::bind(shared.path(), "/shared"), Mount::tmpfs("/shared/name/sub").missing(Missing::Skip)])?;
    let mut mounted = 0;
    std::thread::scope(|scope| -> Fallible<()> {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            let swap = shared.path().join("swap");
            for i in 0.. {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                let target = if i % 2 == 0 { shared.path().join("real") } else { outside.path().to_owned() };
                let target = if i % 4 < 2 { Path::new("real").to_owned() } else { target };
                let swapped = symlink(target, &swap).and_then(|()| fs::rename(&swap, &name));
                if swapped.is_err() {
                    break;
                }
            }
        });
        for _ in 0..races() {
            // whatever was there at that moment, it was beneath the sandbox's root
            match sandbox.output(&sh("grep -c ' /shared/' /proc/mounts")) {
                Ok(output) => mounted += u32::from(text(&output).trim() != "0"),
                Err(error) => assert!(error.step().is_some_and(|s| s.name() == "new-fs"), "{error}"),
            }
        }
        Ok(())
    })?;
    assert!(mounted > 0, "the race was never won either way");
    assert_eq!(fs::read_dir(outside.path().join("sub"))?.count(), 0);
    Ok(())
}

/// `/proc`, `/dev` and nothing else.
fn with_proc(proc: Mount) -> SandboxBuilder {
    host().mounts(Mounts::none().mount(proc).mount(Mount::dev("/dev")))
}

fn proc_subset() -> Fallible<()> {
    const SHOW: &str = "cd /proc; ls | grep -v '^[0-9]'; for f in cpuinfo meminfo sys/kernel/hostname; do
        test -e $f && echo $f; done; read pid rest < /proc/self/stat && test $pid -gt 1 && echo own";
    for features in [0, feature::MOUNT_API] {
        without(features, || {
            for proc in [Mount::proc("/proc"), Mount::proc("/proc").or_empty()] {
                let sandbox = with_proc(proc.subset(ProcSubset::Pids)).build()?;
                assert_eq!(prints(&sandbox, SHOW)?, "self\nthread-self\nown");
                let masks = sandbox.enforcement().get("proc-masks").map(|one| one.enforced);
                assert_eq!(masks, Some(belljar::Enforced::Yes), "nothing is left to mask");
            }
            Ok(())
        })?;
    }
    let explained = with_proc(Mount::proc("/proc").subset(ProcSubset::Pids)).build()?.explain(&sh("true"))?;
    assert!(explained.to_string().contains("mount a new proc on /proc, nosuid, nodev, noexec, subset=pid"));
    // control
    let all = prints(&with_proc(Mount::proc("/proc")).build()?, SHOW)?;
    assert!(all.contains("cpuinfo\nmeminfo\nsys/kernel/hostname\nown"), "{all}");
    Ok(())
}

/// The sandbox's init belongs to nobody; as root also the process of another user inside.
fn proc_hides() -> Fallible<()> {
    let root = nix::unistd::geteuid().is_root();
    let show = |hide: Option<HidePids>| -> Fallible<String> {
        let proc = Mount::proc("/proc");
        let sandbox = with_proc(match hide {
            Some(hide) => proc.hide_pids(hide),
            None => proc,
        });
        // nor can processes of different Landlock domains be traced
        let sandbox = sandbox.security(Security::new().landlock(Landlock::none()));
        let child = sandbox.build()?.spawn(&sh("exec sleep 60"))?;
        let mut command = sh("cd /proc; test -d 1 && echo init; test -r 1/stat && echo read
            for p in 2 3 4 5 6 7; do test $p = $$ || test ! -d $p || { echo other; test -r $p/stat && echo read; }; done
            test -r $$/stat && echo own");
        if root {
            command.uid(1000).gid(1000);
        }
        let output = child.enter(command.stdout(Stdio::Piped))?.wait_with_output()?;
        Ok(text(&output).replace('\n', " "))
    };
    let (hidden, all) = ("own ", "init read other read own ");
    // one user has but one, whose processes all can trace each other
    let other = if root { "" } else { "other read " };
    for hide in [HidePids::Invisible, HidePids::Ptraceable] {
        assert_eq!(show(Some(hide))?, format!("{other}{hidden}"), "{hide:?}");
    }
    let other = if root { "other " } else { other };
    assert_eq!(show(Some(HidePids::NoAccess))?, format!("init {other}{hidden}"));
    assert_eq!(show(None)?, all, "control");
    // the init could not count what it does not see: an error, and not a limit that does not hold
    let hidden = || with_proc(Mount::proc("/proc").hide_pids(HidePids::Invisible));
    let mut command = sh("true");
    command.cpu_time(std::time::Duration::from_secs(1));
    let error = refused(hidden().limits(CgroupLimits::none()).build()?.spawn(&command))?;
    assert_kind(&error, ErrorKind::InvalidSpec);
    assert!(hidden().build()?.enforcement().get("hidden-processes").is_some());
    assert!(hidden().limits(CgroupLimits::none()).build()?.status(&sh("true"))?.success(), "control");
    Ok(())
}
