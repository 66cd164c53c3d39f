//! What the payload may do: the filter of system calls, capabilities, limits.

use crate::common::*;
use crate::harness::{Need, Test};
use belljar::{
    Argument, Capabilities, Capability, Command, ErrorKind, Init, Seccomp, SeccompAction, SeccompProfile, Security, sys,
};

pub fn tests() -> Vec<Test> {
    const USER: &[Need] = &[Need::UserNamespaces];
    vec![
        Test::new("security::programs_work_under_the_filter", USER, programs_work),
        Test::new("security::python_works_under_the_filter", &[Need::UserNamespaces, Need::Program("python3")], python),
        Test::new("security::git_works_under_the_filter", &[Need::UserNamespaces, Need::Program("git")], git),
        Test::new("security::filter_binds_every_payload", USER, filter_binds),
        Test::new("security::filter_without_no_new_privs", USER, filter_without_no_new_privs),
        Test::new("security::custom_filters", USER, custom_filters),
        Test::new("security::defects_of_filters", &[], defects),
        Test::new("security::profiles", USER, profiles),
        Test::new("security::enforcement_report", USER, enforcement_report),
        Test::new("security::capabilities_to_the_kernels_last", &[], capabilities_to_the_last),
    ]
}

fn with(seccomp: Seccomp) -> Security {
    Security::new().seccomp(seccomp)
}

/// The shell, coreutils, and what package managers do with files and processes.
fn programs_work() -> Fallible<()> {
    let sandbox = host().mount(belljar::Mount::tmpfs("/tmp")).build()?;
    let script = r#"set -e; cd /tmp
        mkdir -p a/b; echo one > a/b/f; cp -a a c; mv c d; ln d/b/f d/hard; ln -s f d/b/soft; chmod 600 d/hard; touch -d @1 d/hard
        tar cf x.tar d && mkdir e && tar xf x.tar -C e && cmp e/d/b/f a/b/f; mkfifo p; (echo through > p &) ; cat p
        seq 1000 | sort -n | tail -1 | tr 0 x; find . -type f | wc -l; dd if=/dev/zero of=z bs=64k count=4 2> /dev/null
        stat -c %s z; df . > /dev/null; sleep 0.01; nice -n 1 timeout 5 true; (ulimit -n 64); date > /dev/null; id > /dev/null
        flock x.tar true; install -m 755 x.tar y; truncate -s 5 y; sync y; uname -m > /dev/null; ps > /dev/null 2>&1 || :
        ! command -v dpkg > /dev/null || dpkg-deb --version > /dev/null
        ! command -v apt-config > /dev/null || apt-config dump > /dev/null
        ! command -v perl > /dev/null || perl -e 'fork; wait' "#;
    assert_eq!(prints(&sandbox, script)?, "through\n1xxx\n6\n262144");
    // a Rust program with threads, sockets and processes: this one
    let program = std::env::current_exe()?;
    let sandbox = host()
        .mount(belljar::Mount::tmpfs("/tmp"))
        .mount(belljar::Mount::bind(&program, "/tmp/program").read_only())
        .build()?;
    let output = sandbox.output(Command::new("/tmp/program").env("BELLJAR_TEST_THREADS", "1"))?;
    assert_eq!(text(&output), "36\n", "{}", output.exit);
    Ok(())
}

/// What `programs_work` runs in the sandbox.
pub fn threads() -> Fallible<()> {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = std::thread::spawn(move || {
        (0..8).try_for_each(|_| {
            let (mut stream, _) = listener.accept()?;
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            stream.write_all(&[byte[0] + 1])
        })
    });
    let clients: Vec<_> = (0..8u8)
        .map(|n| {
            std::thread::spawn(move || -> std::io::Result<u8> {
                let mut stream = TcpStream::connect(address)?;
                stream.write_all(&[n])?;
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                Ok(byte[0])
            })
        })
        .collect();
    let mut sum = 0u32;
    for client in clients {
        sum += u32::from(client.join().map_err(|_| "a thread panicked")??);
    }
    server.join().map_err(|_| "the server panicked")??;
    assert!(std::process::Command::new("/bin/true").status()?.success());
    std::fs::write("/tmp/file", "x")?;
    println!("{sum}");
    Ok(())
}

fn python() -> Fallible<()> {
    let sandbox = host().mount(belljar::Mount::tmpfs("/tmp")).build()?;
    let script = "
import threading, subprocess, socket, tempfile, os, select, multiprocessing, time
total = []
threads = [threading.Thread(target=lambda n=n: total.append(n)) for n in range(20)]
[t.start() for t in threads]; [t.join() for t in threads]
a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'
assert subprocess.run(['/bin/echo', 'y'], capture_output=True).stdout == b'y\\n'
with tempfile.NamedTemporaryFile() as f: f.write(b'z'); f.flush(); os.fsync(f.fileno())
p = select.epoll(); p.close()
with multiprocessing.Pool(2) as pool: assert pool.map(abs, [-1, -2]) == [1, 2]
try: socket.getaddrinfo('localhost', 80)
except socket.gaierror: pass
print(sum(total))";
    let output = sandbox.output(Command::new("/usr/bin/python3").arg("-c").arg(script))?;
    assert_eq!(text(&output), "190\n");
    Ok(())
}

fn git() -> Fallible<()> {
    let sandbox = host().mount(belljar::Mount::tmpfs("/tmp")).build()?;
    let script = "export HOME=/tmp PATH=/usr/local/bin:/usr/bin:/bin; cd /tmp && git init -q r && cd r && echo x > f && git add f &&
        git -c user.name=n -c user.email=e commit -qm m && git clone -q . ../s && git -C ../s log --format=%s && git gc -q";
    assert_eq!(prints(&sandbox, script)?, "m");
    Ok(())
}

const MODE: &str = "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | cut -f2";

fn filter_binds() -> Fallible<()> {
    for init in [Init::Shim, Init::Payload] {
        assert_eq!(prints(&host().init(init).build()?, MODE)?, "1\n2", "{init:?}");
        let open = host().init(init).security(with(Seccomp::Unconfined)).build()?;
        assert_eq!(prints(&open, MODE)?, "1\n0", "control: {init:?}");
        // what the payload starts, and another user than root
        let sandbox = host().init(init).build()?;
        assert_eq!(prints(&sandbox, &format!("sh -c \"sh -c \\\"{MODE}\\\"\""))?, "1\n2");
    }
    if nix::unistd::geteuid().is_root() {
        let output = host().build()?.output(sh(MODE).uid(1000).gid(1000))?;
        assert_eq!(text(&output), "1\n2\n");
    }
    // the shim itself has none: it needs calls that a payload does not
    let child = host().build()?.spawn(&sh("sleep 60"))?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    assert!(status.contains("Seccomp:\t0"), "{status}");
    Ok(())
}

fn filter_without_no_new_privs() -> Fallible<()> {
    for init in [Init::Shim, Init::Payload] {
        let sandbox = host().init(init).security(Security::new().allow_new_privileges()).build()?;
        assert_eq!(prints(&sandbox, MODE)?, "0\n2");
        assert_eq!(prints(&sandbox, "grep ^CapEff /proc/self/status")?, "CapEff:\t0000000000000000");
    }
    Ok(())
}

fn custom_filters() -> Fallible<()> {
    let answer = SeccompAction::Errno(sys::Errno(95));
    let profile = SeccompProfile::standard().set(["chmod", "fchmodat", "fchmodat2"], answer);
    let sandbox = host().mount(belljar::Mount::tmpfs("/tmp")).security(with(Seccomp::Custom(profile))).build()?;
    let output = sandbox.output(&sh("touch /tmp/f; chmod 600 /tmp/f"))?;
    assert!(!output.exit.success() && text(&output).contains("not supported"), "{}", text(&output));
    // killed: the payload ends by SIGSYS
    let profile = SeccompProfile::standard().set(["chmod", "fchmodat", "fchmodat2"], SeccompAction::Kill);
    let sandbox = host().security(with(Seccomp::Custom(profile))).build()?;
    let mut chmod = Command::new("chmod");
    chmod.arg("600").arg("/dev/null");
    assert_eq!(sandbox.status(&chmod)?.signal(), Some(31));
    assert_eq!(host().build()?.status(&chmod)?.signal(), None, "control");
    // by argument: the lower 32 bits of the protocol
    let profile = SeccompProfile::standard().rule("openat", [Argument::int(2).masked(0o3, 0o1)], answer);
    let sandbox = host().security(with(Seccomp::Custom(profile))).build()?;
    assert_eq!(prints(&sandbox, "cat /proc/self/comm; (echo > /dev/null) 2>&1 | grep -o supported")?, "cat\nsupported");
    Ok(())
}

fn defects() -> Fallible<()> {
    let profile = SeccompProfile::otherwise(SeccompAction::Kill).allow(["raed", "write"]);
    let error = refused(host().security(with(Seccomp::Custom(profile))).build())?;
    assert_kind(&error, ErrorKind::InvalidSpec);
    assert_eq!(error.defects().len(), 2, "{error}");
    assert!(error.to_string().contains("\"raed\""), "{error}");
    Ok(())
}

fn capabilities_to_the_last() -> Fallible<()> {
    let last: u32 = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap")?.trim().parse()?;
    assert_eq!(Capability::ALL.last().map(|c| c.number()), Some(last.max(40)));
    let all = Capabilities::keep(Capability::ALL.iter().copied());
    assert_eq!(all.bits().count_ones(), 41);
    Ok(())
}

/// No opt-out is reachable by a default-constructed value, and none stays unsaid.
fn enforcement_report() -> Fallible<()> {
    use belljar::*;
    let bare = || Sandbox::builder(RootFs::empty());
    let defaults = bare()
        .namespaces(Namespaces::default())
        .security(Security::default())
        .mounts(Mounts::standard())
        .init(Init::default())
        .security(Security::new().seccomp(Seccomp::default()).abi(Abi::default()).keyring(Keyring::default()))
        .security(
            Security::new()
                .rlimits(Rlimits::default())
                .landlock(Landlock::default())
                .capabilities(Capabilities::default()),
        )
        .build()?;
    let report = defaults.enforcement();
    assert_eq!(report.opted_out().count(), 0, "{report}");
    assert!(report.iter().count() > 18, "{report}");
    for one in report.iter().filter(|one| one.enforce == Enforce::Required) {
        assert_eq!(one.enforced, Enforced::Yes, "{report}");
    }
    assert_eq!(Profile::default().security(), Security::default());
    assert_eq!((ProcSubset::default(), Missing::default()), (ProcSubset::All, Missing::Create));
    let child = with_programs(bare()).build()?.spawn(sh("sleep 60").schedule(Schedule::default()))?;
    assert_eq!(child.enforcement().opted_out().count(), 0, "{}", child.enforcement());
    assert!(child.enforcement().iter().count() >= report.iter().count());
    let root = nix::unistd::geteuid().is_root();
    let mapped = || if root { Mount::bind("/etc", "/x").idmapped() } else { Mount::bind("/etc", "/x") };
    let new = Security::new;
    let spaces = Namespaces::isolated;
    for (builder, name) in [
        (bare().namespaces(spaces().net(Net::Inherit)), "network-namespace"),
        (bare().namespaces(spaces().pid(Pid::Inherit)), "pid-namespace"),
        (bare().namespaces(spaces().ipc(Ipc::Inherit)), "ipc-namespace"),
        (bare().namespaces(spaces().uts(Uts::Inherit)), "uts-namespace"),
        (bare().namespaces(spaces().cgroup(Cgroup::Inherit)), "cgroup-namespace"),
        (bare().namespaces(spaces().time(Time::Inherit)), "time-namespace"),
        (bare().namespaces(spaces().user(User::Inherit)), "user-namespace"),
        (bare().namespaces(spaces().user(User::Inherit)), "unprivileged-ids"),
        (bare().security(new().capabilities(Capabilities::keep([Capability::Kill]))), "capabilities"),
        (bare().security(new().allow_new_privileges()), "no-new-privileges"),
        (bare().security(new().seccomp(Seccomp::Unconfined)), "seccomp"),
        (bare().security(new().seccomp(Seccomp::Unconfined)), "native-abi"),
        (bare().security(new().abi(Abi::Legacy)), "native-abi"),
        (bare().security(new().allow_nested_namespaces()), "nested-namespaces"),
        (bare().security(new().allow_nested_namespaces()), "user-namespace-limit"),
        (bare().security(new().rlimits(Rlimits::inherited())), "rlimits"),
        (bare().security(new().landlock(Landlock::none())), "landlock-files"),
        (bare().security(new().keyring(Keyring::Inherit)), "keyring"),
        (bare().init(Init::Payload), "init"),
        (bare().mounts(Mounts::none().mount(Mount::proc("/proc"))), "proc-masks"),
        (bare().mount(Mount::bind("/etc", "/x")), "read-only-binds"),
        (bare().mount(Mount::bind("/etc", "/x").read_only().allow_suid()), "nosuid"),
        // only root's can be mapped at all
        (bare().mount(mapped()), if root { "bind-ownership" } else { "read-only-binds" }),
        (bare().mount(Mount::bind("/etc", "/x").read_only().allow_devices()), "nodev"),
        (bare().mount(Mount::socket("/run/s", "/x")), "sockets"),
        (Sandbox::builder(RootFs::inherit()), "root"),
        (Sandbox::builder(RootFs::inherit()), "mount-namespace"),
        (Sandbox::builder(RootFs::dir("/usr").upper(Upper::Persist("/srv/up".into()))), "discarded-upper"),
    ] {
        let sandbox = builder.build()?;
        let report = sandbox.enforcement();
        assert!(report.opted_out().any(|one| one.name == name), "{name} in\n{report}");
        assert!(
            report.to_string().lines().any(|line| line.starts_with(name) && line.contains("opted out")),
            "{report}"
        );
    }
    Ok(())
}

fn profiles() -> Fallible<()> {
    use belljar::{Profile, RootFs, Sandbox};
    assert_eq!(Profile::default().security(), Security::default());
    let run = |profile: Profile, script: &str| -> Fallible<String> {
        prints(&with_programs(Sandbox::builder(RootFs::empty())).security(profile).build()?, script)
    };
    let status = "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | cut -f2; ulimit -c -H";
    let limit = "ulimit -c -H";
    assert!(run(Profile::Plugin, status)?.starts_with("0000000000000000\n1\n2"));
    // docker run debian grep CapEff /proc/self/status
    assert!(run(Profile::Container, status)?.starts_with("00000000a80425fb\n0\n2"));
    assert!(run(Profile::Trusted, status)?.starts_with("000001ffffffffff\n0\n0"));
    let own = std::process::Command::new("/bin/sh").args(["-c", limit]).output()?;
    assert_eq!(run(Profile::Trusted, limit)?, String::from_utf8(own.stdout)?.trim());
    assert_eq!(run(Profile::Trusted, "unshare --user --map-root-user id -u")?, "0");
    Ok(())
}
