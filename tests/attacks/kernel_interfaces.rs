//! Attacks on interfaces of the kernel: system calls, terminals, sockets, namespaces, /proc.

use super::*;
use crate::harness::Need;
use belljar::{
    Abi, Capabilities, Capability, Enforced, Init, Keyring, Mount, Mounts, Namespaces, Net, Seccomp, SeccompAction,
    SeccompProfile, User, testing::feature,
};

const USER: &[Need] = &[Need::UserNamespaces];
const ROOT: &[Need] = &[Need::UserNamespaces, Need::Root];

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("attacks::kernel_nested_namespaces", USER, nested_namespaces),
        Test::new("attacks::kernel_nested_namespaces_without_the_filter", USER, nested_without_the_filter),
        Test::new("attacks::kernel_mount_calls", USER, mount_calls),
        Test::new("attacks::kernel_terminal_input", USER, terminal_input),
        Test::new("attacks::kernel_foreign_abis", USER, foreign_abis),
        Test::new("attacks::kernel_dangerous_calls", USER, dangerous_calls),
        Test::new("attacks::kernel_shared_memory", USER, shared_memory_of_the_kernel),
        Test::new("attacks::kernel_message_queues", USER, message_queues),
        Test::new("attacks::kernel_keyrings", USER, keyrings),
        Test::new("attacks::kernel_other_processes", USER, other_processes),
        Test::new("attacks::kernel_socket_families", USER, socket_families),
        Test::new("attacks::kernel_frames_of_others", USER, frames_of_others),
        Test::new("attacks::kernel_abstract_sockets", USER, abstract_sockets),
        Test::new("attacks::kernel_networks", USER, networks),
        Test::new("attacks::kernel_clock_and_names", USER, clock_and_names),
        Test::new("attacks::kernel_proc_and_sys", USER, proc_and_sys),
        Test::new("attacks::kernel_proc_of_a_root_that_is_mapped", ROOT, proc_of_a_mapped_root),
        Test::new("attacks::kernel_terminals_of_the_host", USER, terminals_of_the_host),
        Test::new("attacks::kernel_path_exchanged_after_a_notice", USER, path_exchanged),
        Test::new("attacks::kernel_cost_of_the_filter", USER, cost_of_the_filter),
    ]
}

/// What a pointer of a notified call points to is exchanged after the handler has looked: who then lets the call through
/// lets another one through; who does himself what he has read does that.
fn path_exchanged() -> Fallible<()> {
    use belljar::{Answer, Grounds, Inject, Notification};
    let dir = crate::harness::TempDir::new()?;
    let good = dir.path().join("good");
    std::fs::write(&good, "allowed")?;
    let profile = SeccompProfile::standard().notify(["openat"]);
    let root = RootFs::empty().file_mode("/attack", 0o755, PAYLOAD);
    let root = root.file("/allowed", "allowed").file("/secrets", "secrets");
    let sandbox = Sandbox::builder(root).security(Security::new().seccomp(Seccomp::Custom(profile))).build()?;
    let raced = |count: usize, yes: &(dyn Fn(&mut Notification) -> Answer + Sync)| -> Fallible<(u64, u64)> {
        let attempt = format!("race-path={count}");
        let mut child = sandbox.spawn(payload(&[&attempt]).stdout(Stdio::Piped))?;
        let calls = child.notifications.take().ok_or("nothing is notified")?;
        let output = std::thread::scope(|scope| {
            let handler = scope.spawn(move || {
                calls.serve(|call| match call.read_c_string(call.arguments()[1], 64) {
                    Ok(path) if path.as_c_str() == c"/allowed" => yes(call),
                    _ => Answer::Errno(belljar::sys::Errno::EPERM),
                })
            });
            let output = child.wait_with_output();
            handler.join().map(|served| served.and(output))
        });
        let seen = parse(&text(&output.map_err(|_| "the handler panicked")??))?;
        let total: u64 = seen.get(&attempt).and_then(|saw| saw.strip_prefix("ok ")).ok_or("no total")?.parse()?;
        Ok((total / 1_000_000, total % 1_000_000))
    };
    let (opened, secrets) = raced(races(), &|_| match std::fs::File::open(&good) {
        Ok(file) => Answer::InjectFd(Inject::new(file)),
        Err(_) => Answer::Errno(belljar::sys::Errno::EIO),
    })?;
    assert!(opened > 0 && secrets == 0, "{secrets} of {opened}");
    // control: whose answer takes a while, as any may; beaten sooner or later
    let mut all = 0;
    for _ in 0..50 {
        let (opened, secrets) = raced(races() / 10, &|call| {
            let start = std::time::Instant::now();
            let path = |call: &mut Notification| call.read_c_string(call.arguments()[1], 64);
            while start.elapsed().as_secs() < 1 && path(call).is_ok_and(|path| path.as_c_str() == c"/allowed") {}
            Answer::Allow(Grounds::RacyMemory)
        })?;
        if secrets > 0 {
            return Ok(());
        }
        all += opened;
    }
    Err(format!("control: none of {all}").into())
}

fn open() -> Security {
    Security::new().seccomp(Seccomp::Unconfined)
}

/// The bases of many escalations: a user namespace in which one has all capabilities.
fn nested_namespaces() -> Fallible<()> {
    for init in [Init::Shim, Init::Payload] {
        let seen = attack(
            &bare().init(init).build()?,
            &["unshare-user", "clone-user", "clone3-user", "clone3", "setns", "unshare-mount", "unshare-fs", "clone"],
        )?;
        expect(
            &seen,
            &[
                ("unshare-user", "EPERM"),
                ("clone-user", "EPERM"),
                ("clone3-user", "ENOSYS"),
                ("clone3", "ENOSYS"),
                ("setns", "EPERM"),
                ("unshare-mount", "EPERM"),
                ("unshare-fs", "ok"),
                ("clone", "ok"),
            ],
        );
    }
    let control =
        with(Security::new().allow_nested_namespaces(), &["clone-user", "clone3-user", "clone3", "unshare-user"])?;
    expect(&control, &[("clone-user", "ok"), ("clone3-user", "ok"), ("clone3", "ok"), ("unshare-user", "ok")]);
    Ok(())
}

/// Behind the filter stands the limit of the sandbox's own user namespace, and the host's stays as it is.
fn nested_without_the_filter() -> Fallible<()> {
    let limit = || std::fs::read_to_string("/proc/sys/user/max_user_namespaces");
    let before = limit()?;
    let attempts = ["clone-user", "clone3-user", "unshare-user", "open-write=/proc/sys/user/max_user_namespaces"];
    let refused = [
        ("clone-user", "ENOSPC"),
        ("clone3-user", "ENOSPC"),
        ("unshare-user", "ENOSPC"),
        ("open-write=/proc/sys/user/max_user_namespaces", "EROFS|EACCES"),
    ];
    for init in [Init::Shim, Init::Payload] {
        let sandbox = bare().init(init).security(open()).build()?;
        expect(&attack(&sandbox, &attempts)?, &refused);
        let line = sandbox.enforcement().get("user-namespace-limit").map(|one| one.enforced);
        assert_eq!(line, Some(Enforced::Yes));
    }
    // a process that enters is in the same namespace
    let child = bare().security(open()).build()?.spawn(&payload(&["sleep=60"]))?;
    let output = child.enter(payload(&attempts).stdout(Stdio::Piped))?.wait_with_output()?;
    expect(&parse(&text(&output))?, &refused);
    // controls: the typed opt-out; a host that does not let it be written, which is told
    let nested = [("clone-user", "ok"), ("clone3-user", "ok"), ("unshare-user", "ok")];
    let attempts = nested.map(|(attempt, _)| attempt);
    expect(&with(open().allow_nested_namespaces(), &attempts)?, &nested);
    crate::common::without(feature::USER_LIMITS, || {
        expect(&with(open(), &attempts)?, &nested);
        let report = bare().security(open()).build()?.spawn(&payload(&[]))?.enforcement();
        assert!(report.unavailable().any(|one| one.name == "user-namespace-limit"), "{report}");
        Ok(())
    })?;
    // where the default filter stands it is not needed, and not paid for
    let line = bare().build()?.enforcement().get("user-namespace-limit").map(|one| one.enforced);
    assert_eq!(line, Some(Enforced::NotNeeded));
    // never in a namespace that is not the sandbox's own
    if nix::unistd::geteuid().is_root() {
        let inherited = || bare().namespaces(Namespaces::isolated().user(User::Inherit));
        expect(&attack(&inherited().security(open()).build()?, &["clone-user"])?, &[("clone-user", "ok")]);
        assert!(
            !inherited()
                .security(open())
                .build()?
                .explain(&payload(&[]))?
                .to_string()
                .contains("no user namespaces below")
        );
    }
    assert_eq!(limit()?, before);
    Ok(())
}

fn mount_calls() -> Fallible<()> {
    let attempts = [
        "mount=/tmp",
        "fsopen",
        "open-tree",
        "umount=/proc/kcore",
        "umount=/proc/sys",
        "umount=/proc",
        "pivot",
        "chroot=/tmp",
        "double-chroot",
        "size=/proc/kcore",
    ];
    let seen = inside(&attempts)?;
    expect(&seen, &attempts[..9].iter().map(|a| (*a, "EPERM")).collect::<Vec<_>>());
    // without the filter it is the kernel that refuses, for want of a capability
    let open = with(open(), &attempts)?;
    expect(&open, &attempts[..9].iter().map(|a| (*a, "EPERM|EINVAL|ENOENT")).collect::<Vec<_>>());
    // control: with the capability they succeed, in the sandbox's own mount namespace; also the umount of a mask
    let keep = Security::new().capabilities(Capabilities::keep([Capability::SysAdmin, Capability::SysChroot]));
    expect(
        &with(keep, &["fsopen", "mount=/tmp", "chroot=/tmp"])?,
        &[("fsopen", "ok"), ("mount=/tmp", "ok"), ("chroot=/tmp", "ok")],
    );
    Ok(())
}

/// CVE-2017-5226; CVE-2019-10063 by the upper half of the register.
fn terminal_input() -> Fallible<()> {
    let attempts = ["tty-input", "tty-input-high", "tty-linux", "tty-discipline", "tty-size"];
    let denied = [
        ("tty-input", "EPERM"),
        ("tty-input-high", "EPERM"),
        ("tty-linux", "EPERM"),
        ("tty-discipline", "EPERM"),
        ("tty-size", "ok"),
    ];
    refused_inside(&denied)?;
    let control = with(open(), &attempts)?;
    expect(
        &control,
        &[
            ("tty-input", "ok|EIO"),
            ("tty-input-high", "ok|EIO"),
            ("tty-linux", "ENOTTY|EINVAL"),
            ("tty-discipline", "ok|EINVAL"),
            ("tty-size", "ok"),
        ],
    );
    Ok(())
}

/// A second entrance, that a filter of the first one's numbers does not see.
fn foreign_abis() -> Fallible<()> {
    for init in [Init::Shim, Init::Payload] {
        let sandbox = bare().init(init).build()?;
        if cfg!(target_arch = "x86_64") {
            assert_eq!(signal_of(&sandbox, "i386")?, Some(31), "{init:?}");
            assert_eq!(signal_of(&sandbox, "x32")?, Some(31), "{init:?}");
        }
        expect(&attack(&sandbox, &["unknown"])?, &[("unknown", "ENOSYS")]);
    }
    // control: let in, the 32-bit call is made, unless the kernel has none
    let legacy = bare().security(Security::new().abi(Abi::Legacy)).build()?;
    let control = outside(&["i386"])?;
    if cfg!(target_arch = "x86_64") && control.get("i386").is_some_and(|saw| saw == "ok") {
        expect(&attack(&legacy, &["i386"])?, &[("i386", "ok")]);
        assert_eq!(signal_of(&legacy, "x32")?, Some(31));
    }
    Ok(())
}

fn dangerous_calls() -> Fallible<()> {
    let attempts = [
        "bpf",
        "perf",
        "userfaultfd",
        "io-uring",
        "reboot",
        "swapon=/none",
        "init-module=/none",
        "kexec",
        "acct=/none",
        "by-handle",
        "personality=262144",
        "realtime",
    ];
    let seen = inside(&attempts)?;
    expect(&seen, &attempts.map(|attempt| (attempt, "EPERM")));
    // control: these are answers of the filter, and not of the kernel
    let open = with(open(), &["io-uring", "personality=262144", "bpf"])?;
    expect(&open, &[("personality=262144", "ok")]);
    expect(&inside(&["personality=-1", "personality=0"])?, &[("personality=-1", "ok"), ("personality=0", "ok")]);
    Ok(())
}

/// What all processes of the machine have to share, however small their sandboxes are.
fn shared_memory_of_the_kernel() -> Fallible<()> {
    let wanted = [
        ("socket-filter=26", "EPERM"),
        ("socket-filter=50", "EPERM"),
        ("socket-filter=51", "EPERM"),
        ("socket-filter=52", "EPERM"),
        ("aio", "ENOSYS"),
        ("lease", "EPERM"),
        ("terminals=200", "ok 64"),
    ];
    refused_inside(&wanted)?;
    // an option of the same number at another level is none of these
    let seen = with(open(), &["socket-filter=26", "aio", "lease"])?;
    expect(&seen, &[("socket-filter=26", "ok"), ("aio", "ok")]);
    assert_ne!(seen["lease"], "ENOSYS");
    // another sandbox has terminals of its own
    let (_child, seen) = holding(&bare().build()?, &["terminals=200"])?;
    expect(&seen, &[("terminals=200", "ok 64")]);
    refused_inside(&[("terminals=1", "without")])
}

/// Message queues are files that no path beneath the root leads to.
fn message_queues() -> Fallible<()> {
    refused_inside(&[("mq-open=q", "ok"), ("open-read=/dev/mqueue/q", "ok")])?;
    let host = host().mount(Mount::tmpfs("/tmp"));
    let seen = {
        let (dir, path) = payload_file()?;
        let sandbox = host.mount(Mount::bind(dir.path(), "/tmp/p").read_only()).build()?;
        let _ = path;
        parse(&text(&sandbox.output(Command::new("/tmp/p/attack").arg("mq-open=q"))?))?
    };
    expect(&seen, &[("mq-open=q", "ok")]);
    Ok(())
}

/// Keys are credentials: of file systems, of Kerberos. The host has one in its session keyring, for which this
/// program is run anew in one of its own.
fn keyrings() -> Fallible<()> {
    let (_dir, path) = payload_file()?;
    let this = format!("key-exec={}", std::env::current_exe()?.display());
    let output = std::process::Command::new(path).arg(this).env("BELLJAR_TEST_KEYS", "1").output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(said.ends_with("keys: seen\n"), "{said}");
    Ok(())
}

/// What `keyrings` runs anew.
pub fn keys_in_a_session() -> Fallible<()> {
    let search = "key-search=belljar-test";
    refused_inside(&[("keyctl-session", "EPERM"), (search, "EPERM"), ("key-add=x", "EPERM")])?;
    // without the filter it is the new keyring that has no such key
    let own = with(open(), &["keyctl-session", search, "key-add=x"])?;
    expect(&own, &[("keyctl-session", "ok"), (search, "ENOKEY"), ("key-add=x", "ok")]);
    // control: the caller's keyring has it
    expect(&with(open().keyring(Keyring::Inherit), &[search])?, &[(search, "ok")]);
    println!("keys: seen");
    Ok(())
}

/// Of PID 1, which belongs to the library, and of others.
fn other_processes() -> Fallible<()> {
    let attempts = [
        "ptrace=1",
        "vm-read=1",
        "fd-steal=1",
        "ptrace-child",
        "open-write=/proc/1/exe",
        "open-read=/proc/1/mem",
        "open-read=/proc/1/environ",
        "open-read=/proc/1/fd/0",
        "open-read=/proc/1/fd/3",
        "kill=1",
    ];
    let first = [("ptrace=1", "EPERM"), ("vm-read=1", "EPERM"), ("fd-steal=1", "EPERM")];
    let second = [
        ("open-write=/proc/1/exe", "EACCES|EPERM"),
        ("open-read=/proc/1/mem", "EACCES"),
        ("open-read=/proc/1/environ", "EACCES|EPERM"),
        // their numbers are to be seen (of a process that is not dumpable, /proc is of its user namespace's root), and no more
        ("open-read=/proc/1/fd/0", "EACCES|ENOENT"),
        ("open-read=/proc/1/fd/3", "EACCES"),
    ];
    let seen = inside(&attempts)?;
    expect(&seen, &first);
    expect(&seen, &second);
    expect(&seen, &[("ptrace-child", "EPERM")]);
    // the shim itself withstands without the filter
    let open = with(open(), &attempts)?;
    expect(&open, &first);
    expect(&open, &second);
    // control: a process of one's own can be traced
    expect(&open, &[("ptrace-child", "ok")]);
    Ok(())
}

/// VSOCK, ALG (CVE-2026-31431), PACKET, NETLINK beyond routes, and whatever else there is.
fn socket_families() -> Fallible<()> {
    let denied: Vec<String> = (0..=46u32)
        .filter(|family| ![1, 2, 10, 16].contains(family))
        .map(|family| format!("socket={family},1,0"))
        .chain(["socket=16,3,9".into(), "socket=16,3,12".into(), "socket=16,3,15".into()])
        .collect();
    let wanted: Vec<_> = denied.iter().map(|attempt| (attempt.as_str(), "EAFNOSUPPORT")).collect();
    refused_inside(&wanted)?;
    refused_inside(&[
        ("socket=1,1,0", "ok"),
        ("socket=2,1,0", "ok"),
        ("socket=2,2,0", "ok"),
        ("socket=16,3,0", "ok"),
        ("socket=2,3,1", "EPERM|EACCES"),
    ])?;
    // control: other answers without the filter
    expect(&with(open(), &["socket=16,3,9", "socket=17,3,0"])?, &[("socket=16,3,9", "ok"), ("socket=17,3,0", "EPERM")]);
    Ok(())
}

/// ARP spoofing on a bridge, and listening there: frames take CAP_NET_RAW, by any of the names of a packet socket (17 is
/// AF_PACKET, with ETH_P_ARP or ETH_P_ALL in network order; 10 is SOCK_PACKET, its old name within AF_INET).
fn frames_of_others() -> Fallible<()> {
    let attempts = ["socket=17,3,1544", "socket=17,2,1544", "socket=17,3,768", "socket=2,10,1544", "socket=2,3,255"];
    let by_filter = ["EAFNOSUPPORT", "EAFNOSUPPORT", "EAFNOSUPPORT", "EPERM|EAFNOSUPPORT|EACCES", "EPERM|EACCES"];
    refused_inside(&attempts.into_iter().zip(by_filter).collect::<Vec<_>>())?;
    // without the filter it is the missing capability; also in a network that belongs to others
    let none = attempts.map(|attempt| (attempt, "EPERM|EACCES"));
    expect(&with(open(), &attempts)?, &none);
    let shared = || bare().namespaces(Namespaces::isolated().net(Net::Inherit));
    expect(&attack(&shared().security(open()).build()?, &attempts)?, &none);
    // a capability of the sandbox's user namespace counts for nothing there
    let keep = || open().capabilities(Capabilities::keep([Capability::NetRaw]));
    expect(&attack(&shared().security(keep()).build()?, &attempts)?, &none);
    // control: in a network of its own it does
    let own = with(keep(), &attempts)?;
    expect(&own, &attempts.map(|attempt| (attempt, "ok")));
    Ok(())
}

fn abstract_sockets() -> Fallible<()> {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("belljar-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name)?;
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address)?;
    let connect = format!("connect-abstract={name}");
    refused_inside(&[(connect.as_str(), "ECONNREFUSED|EPERM")])?;
    expect(&outside(&[&connect])?, &[(connect.as_str(), "ok")]);
    Ok(())
}

/// Loopback of the host, the metadata address of clouds, link-local neighbours.
fn networks() -> Fallible<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let connect = format!("connect-ipv4={}", listener.local_addr()?.port());
    refused_inside(&[
        (connect.as_str(), "ECONNREFUSED"),
        ("connect-ipv4=-80", "ENETUNREACH"),
        ("connect-ipv6=80", "ENETUNREACH|EAFNOSUPPORT|EINVAL|ENODEV"),
    ])?;
    expect(&outside(&[&connect])?, &[(connect.as_str(), "ok")]);
    let host_net = bare().namespaces(Namespaces::isolated().net(Net::Inherit)).build()?;
    expect(&attack(&host_net, &[&connect])?, &[(connect.as_str(), "ok")]);
    Ok(())
}

fn clock_and_names() -> Fallible<()> {
    let name = || std::fs::read_to_string("/proc/sys/kernel/hostname");
    let before = name()?;
    refused_inside(&[("sethostname=owned", "EPERM"), ("settime", "EPERM")])?;
    let keep = Security::new().capabilities(Capabilities::keep([Capability::SysAdmin, Capability::SysTime]));
    // control: with the capability the sandbox's own name changes, and the clock, which is the host's, does not
    expect(&with(keep, &["sethostname=owned", "settime"])?, &[("sethostname=owned", "ok"), ("settime", "EPERM")]);
    assert_eq!(name()?, before);
    Ok(())
}

const SWITCHES: &[&str] = &[
    "open-write=/proc/sys/kernel/core_pattern",
    "open-write=/proc/sys/kernel/modprobe",
    "open-write=/proc/sys/vm/drop_caches",
    "open-write=/proc/sys/fs/binfmt_misc/register",
    "open-write=/proc/sys/user/max_user_namespaces",
    "open-write=/proc/sysrq-trigger",
    "open-write=/proc/irq/default_smp_affinity",
    "open-write=/sys/kernel/uevent_helper",
    "open-write=/sys/kernel/mm/transparent_hugepage/enabled",
    "mkdir=/sys/fs/cgroup/x",
];

/// CVE-2022-0492 among others: files that act on the whole host.
fn proc_and_sys() -> Fallible<()> {
    let refusals = "EACCES|EROFS|ENOENT|EPERM";
    refused_inside(&SWITCHES.iter().map(|switch| (*switch, refusals)).collect::<Vec<_>>())?;
    // what is masked gives nothing
    let seen = inside(&[
        "read=/proc/kcore",
        "read=/proc/keys",
        "read=/proc/timer_list",
        "read=/proc/interrupts",
        "list=/proc/acpi",
        "list=/proc/scsi",
        "read=/proc/self/status",
    ])?;
    expect(
        &seen,
        &[
            ("read=/proc/kcore", "ok 0|ENOENT"),
            ("read=/proc/keys", "ok 0|ENOENT"),
            ("read=/proc/timer_list", "ok 0|ENOENT"),
            ("read=/proc/interrupts", "ok 0"),
        ],
    );
    for directory in ["list=/proc/acpi", "list=/proc/scsi"] {
        assert!(matches!(seen[directory].as_str(), "" | "ENOENT"), "{seen:?}");
    }
    assert!(seen["read=/proc/self/status"].starts_with("ok ") && seen["read=/proc/self/status"] != "ok 0", "marker");
    // control: without the masks there is something to read
    let plain = bare().mounts(Mounts::none().mount(Mount::proc("/proc"))).build()?;
    let control = attack(&plain, &["read=/proc/interrupts"])?;
    assert!(control["read=/proc/interrupts"] != "ok 0", "{control:?}");
    // with /sys asked for
    let sys = bare().mount(Mount::sysfs("/sys")).build()?;
    let seen = attack(&sys, SWITCHES)?;
    expect(&seen, &SWITCHES.iter().map(|switch| (*switch, refusals)).collect::<Vec<_>>());
    expect(&attack(&sys, &["list=/sys/firmware"])?, &[("list=/sys/firmware", "|ENOENT")]);
    Ok(())
}

/// A map of the host's id 0 made core_pattern writable: what stands then is the read-only mount.
fn proc_of_a_mapped_root() -> Fallible<()> {
    use belljar::{IdMap, IdRange};
    let range = [IdRange { inside: 0, outside: 0, count: 65536 }];
    let map = || User::New(IdMap::ranges(range, range).allow_host_root());
    let pattern = "open-write=/proc/sys/kernel/core_pattern";
    let standing = bare().namespaces(Namespaces::isolated().user(map())).build()?;
    expect(&attack(&standing, &[pattern])?, &[(pattern, "EROFS")]);
    // control
    let open = bare()
        .namespaces(Namespaces::isolated().user(map()))
        .mounts(Mounts::none().mount(Mount::proc("/proc")))
        .build()?;
    expect(&attack(&open, &[pattern])?, &[(pattern, "ok")]);
    Ok(())
}

fn terminals_of_the_host() -> Fallible<()> {
    let seen = inside(&[
        "list=/dev/pts",
        "open-write=/dev/pts/0",
        "list=/dev",
        "open-write=/dev/console",
        "open-read=/dev/mem",
        "open-read=/dev/kmsg",
    ])?;
    assert_eq!(seen["list=/dev/pts"], "ptmx", "{seen:?}");
    let mut names: Vec<_> = seen["list=/dev"].split(' ').collect();
    names.sort_unstable();
    assert_eq!(names.join(" "), "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero");
    expect(
        &seen,
        &[
            ("open-write=/dev/pts/0", "ENOENT"),
            ("open-write=/dev/console", "ENOENT"),
            ("open-read=/dev/mem", "ENOENT"),
            ("open-read=/dev/kmsg", "ENOENT"),
        ],
    );
    Ok(())
}

/// Any filter costs the entry into the kernel by its slow path. What the profile costs beyond one that allows
/// everything is at most 5 % of the cheapest call: the kernel keeps a bitmap of what no argument decides (5.11).
fn cost_of_the_filter() -> Fallible<()> {
    let any = Seccomp::Custom(SeccompProfile::otherwise(SeccompAction::Allow));
    let securities = [open(), Security::new().seccomp(any), Security::new()];
    let sandboxes = securities.map(|security| bare().security(security).build());
    let mut best = [u64::MAX; 3];
    // interleaved, and the best of all: a loaded machine makes all slower, but not always
    for _ in 0..8 {
        for (sandbox, best) in sandboxes.iter().zip(&mut best) {
            let seen = attack(sandbox.as_ref().map_err(|e| e.to_string())?, &["getppid=20000"])?;
            *best = seen["getppid=20000"].trim_start_matches("ok ").parse::<u64>()?.min(*best);
        }
    }
    let [none, any, profile] = best;
    let percent = 100.0 * (profile as f64 / any as f64 - 1.0);
    let text = format!(
        "getppid: {none} ps, with a filter that allows all {any} ps, with the profile {profile} ps: {percent:+.1} %"
    );
    println!("{text}");
    // before the bitmap it is some ten instructions
    let bound = if Need::Kernel(5, 11).probe().is_ok() { 5.0 } else { 100.0 };
    assert!(percent <= bound, "{text}");
    Ok(())
}
