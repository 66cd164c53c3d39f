//! The payload's process: program, arguments, environment, streams, descriptors.

use crate::common::*;
use crate::harness::{Need, TempDir, Test};
use belljar::{Command, ErrorKind, Init, Mounts, RootFs, Sandbox, Stdio, testing::feature};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

pub fn tests() -> Vec<Test> {
    const USER: &[Need] = &[Need::UserNamespaces];
    vec![
        Test::new("process::program_is_looked_up_inside", USER, lookup),
        Test::new("process::arguments_and_environment", USER, arguments),
        Test::new("process::many_arguments", USER, many_arguments),
        Test::new("process::working_directory", USER, working_directory),
        Test::new("process::working_directory_is_no_way_out", USER, working_directory_is_no_way_out),
        Test::new("process::streams", USER, streams),
        Test::new("process::streams_in_any_order", USER, streams_in_any_order),
        Test::new("process::no_other_descriptors", USER, no_other_descriptors),
        Test::new("process::signals_and_masks_are_reset", USER, signals_are_reset),
        Test::new("process::session_and_umask", USER, session_and_umask),
        Test::new("process::streams_by_their_names", USER, streams_by_their_names),
        Test::new("process::nothing_of_the_host_in_pid_1", USER, nothing_of_the_host),
        Test::new("process::pid_1_cannot_be_touched", USER, pid_1_cannot_be_touched),
        Test::new("process::large_program", USER, large_program),
        Test::new("process::shim_from_a_file_runs_too", USER, shim_from_a_file),
    ]
}

fn lookup() -> Fallible<()> {
    let sandbox = host().build()?;
    assert!(sandbox.status(&Command::new("true"))?.success());
    assert_eq!(sandbox.status(&Command::new("false"))?.code(), Some(1));
    for (program, kind) in [
        ("no-such-program", ErrorKind::ProgramNotFound),
        ("/no/such/program", ErrorKind::ProgramNotFound),
        ("/etc/passwd", ErrorKind::ProgramNotExecutable),
        ("/etc", ErrorKind::ProgramNotExecutable),
    ] {
        for init in [Init::Shim, Init::Payload] {
            let error = refused(host().init(init).build()?.spawn(&Command::new(program)))?;
            assert_kind(&error, kind);
            assert!(error.to_string().contains(program), "{error}");
        }
    }
    // a script without an interpreter in the sandbox
    let root = RootFs::empty().file_mode("/script", 0o755, "#!/no/interpreter\n").file_mode("/junk", 0o755, "\0junk");
    let sandbox = Sandbox::builder(root).mounts(Mounts::none()).build()?;
    assert_kind(&refused(sandbox.spawn(&Command::new("/script")))?, ErrorKind::ProgramNotFound);
    assert_kind(&refused(sandbox.spawn(&Command::new("/junk")))?, ErrorKind::ProgramNotExecutable);
    // not found in the PATH that is given
    let error = refused(host().build()?.spawn(Command::new("true").env("PATH", "/etc:/var")))?;
    assert_kind(&error, ErrorKind::ProgramNotFound);
    Ok(())
}

fn arguments() -> Fallible<()> {
    let sandbox = host().build()?;
    let mut command = sh("printf '[%s]' \"$0\" \"$@\"; env | sort");
    command.args(["zero", "with space", "", "quo'te", "ünïcode"]).env("A", "1").env("B", "two words").env_remove("C");
    let seen = text(&sandbox.output(&command)?);
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert!(seen.starts_with("[zero][with space][][quo'te][ünïcode]A=1\nB=two words\n"), "{seen}");
    assert!(seen.contains(path) && !seen.contains("HOME=") && !seen.contains("CARGO"), "{seen}");
    let mut command = Command::new("/usr/bin/env");
    command.env_clear().env("ONLY", "me").arg0("another-name");
    assert_eq!(text(&sandbox.output(&command)?), "ONLY=me\n");
    for bad in [Command::new("tr\0ue"), Command::new("")] {
        assert_kind(&refused(sandbox.spawn(&bad))?, ErrorKind::InvalidSpec);
    }
    assert_kind(
        &refused(sandbox.spawn(Command::new("true").arg("a\0b").env("x=y", "z").current_dir("rel")))?,
        ErrorKind::InvalidSpec,
    );
    Ok(())
}

fn many_arguments() -> Fallible<()> {
    let sandbox = host().build()?;
    let mut command = sh("echo $#");
    command.args((0..6000).map(|i| format!("argument-{i}")));
    assert_eq!(text(&sandbox.output(&command)?), "5999\n");
    let mut command = Command::new("true");
    command.arg("x".repeat(200_000)); // more than MAX_ARG_STRLEN
    let error = refused(sandbox.spawn(&command))?;
    assert_kind(&error, ErrorKind::InvalidSpec);
    Ok(())
}

fn working_directory() -> Fallible<()> {
    let sandbox = host().build()?;
    assert_eq!(text(&sandbox.output(sh("pwd").current_dir("/usr/../usr/bin/."))?), "/usr/bin\n");
    assert_eq!(prints(&sandbox, "pwd")?, "/");
    let error = refused(sandbox.spawn(sh("pwd").current_dir("/no/such")))?;
    assert_kind(&error, ErrorKind::NotFound);
    assert_eq!(error.step().map(|s| s.name()), Some("working-directory"), "{error}");
    Ok(())
}

/// CVE-2024-21626: a descriptor of the host as the working directory.
fn working_directory_is_no_way_out() -> Fallible<()> {
    let _held = File::open("/")?;
    for features in [0, feature::OPENAT2] {
        without(features, || {
            for fd in 0..40 {
                let directory = format!("/proc/self/fd/{fd}");
                for init in [Init::Shim, Init::Payload] {
                    let sandbox = host().init(init).build()?;
                    assert!(sandbox.spawn(sh("pwd").current_dir(&directory)).is_err(), "{directory}");
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn streams() -> Fallible<()> {
    let sandbox = host().build()?;
    let mut command = sh("cat; echo err >&2");
    command.stdin(Stdio::Piped).stdout(Stdio::Piped).stderr(Stdio::Piped);
    let mut child = sandbox.spawn(&command)?;
    child.stdin.take().ok_or("no stdin")?.write_all(b"through")?;
    let output = child.wait_with_output()?;
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"through"[..], &b"err\n"[..]));
    // null: no input, and output that goes nowhere
    let output = sandbox.output(&sh("cat; readlink /proc/self/fd/0"))?;
    assert_eq!(text(&output), "/dev/null\n");
    assert!(sandbox.status(&sh("cat; echo lost; echo lost >&2"))?.success());
    // a descriptor of the caller's, used twice and for two spawns
    let dir = TempDir::new()?;
    let file = File::create(dir.path().join("log"))?;
    let mut command = sh("echo one; echo two >&2");
    command.stdout(file.try_clone()?).stderr(file);
    assert!(sandbox.status(&command)?.success() && sandbox.status(&command)?.success());
    assert_eq!(std::fs::read_to_string(dir.path().join("log"))?, "one\ntwo\none\ntwo\n");
    Ok(())
}

/// The payload's descriptors 0, 1, 2 given from descriptors that have such numbers themselves.
fn streams_in_any_order() -> Fallible<()> {
    let (mut out_reader, out_writer) = std::io::pipe()?;
    let (in_reader, mut in_writer) = std::io::pipe()?;
    in_writer.write_all(b"input")?;
    drop(in_writer);
    let mut command = sh("cat; echo to-out; echo to-err >&2");
    let err: OwnedFd = out_writer.as_fd().try_clone_to_owned()?;
    command.stdin(in_reader).stdout(out_writer).stderr(err);
    let exit = host().build()?.status(&command)?;
    assert!(exit.success());
    drop(command);
    let mut seen = String::new();
    out_reader.read_to_string(&mut seen)?;
    assert_eq!(seen, "inputto-out\nto-err\n");
    Ok(())
}

/// Programs that log to /dev/stdout open the pipe anew.
fn streams_by_their_names() -> Fallible<()> {
    let script = "cat /dev/stdin; echo out >/dev/stdout; echo err >/dev/stderr";
    let sandbox = host().build()?;
    let child = sandbox.spawn(&sh("sleep 60"))?;
    let mut users = vec![None];
    if nix::unistd::geteuid().is_root() {
        users.push(Some(33));
    }
    for user in users {
        let mut command = sh(script);
        command.stdin(Stdio::Piped).stdout(Stdio::Piped).stderr(Stdio::Piped);
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        for mut child in [sandbox.spawn(&command)?, child.enter(&command)?] {
            child.stdin.take().ok_or("no stdin")?.write_all(b"in ")?;
            let output = child.wait_with_output()?;
            let said = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert_eq!((said.0.as_ref(), said.1.as_ref()), ("in out\n", "err\n"), "{user:?}");
        }
    }
    Ok(())
}

fn no_other_descriptors() -> Fallible<()> {
    // descriptors of the host that would be inherited: not close-on-exec
    let mut held = Vec::new();
    for _ in 0..50 {
        let file = File::open("/etc/passwd")?;
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
        held.push(file);
    }
    for init in [Init::Shim, Init::Payload] {
        let sandbox = host().init(init).build()?;
        // 3 is the shell's own, for the directory that it lists
        assert_eq!(prints(&sandbox, "cd /proc/self/fd; echo *")?, "0 1 2 3", "{init:?}");
    }
    Ok(())
}

fn signals_are_reset() -> Fallible<()> {
    let sandbox = host().build()?;
    // the Rust runtime ignores SIGPIPE, and a thread may block signals
    let mut old = nix::sys::signal::SigSet::empty();
    let all = nix::sys::signal::SigSet::all();
    nix::sys::signal::pthread_sigmask(nix::sys::signal::SigmaskHow::SIG_SETMASK, Some(&all), Some(&mut old))?;
    let seen = prints(&sandbox, "grep -E '^Sig(Blk|Ign)' /proc/self/status | cut -f2");
    nix::sys::signal::pthread_sigmask(nix::sys::signal::SigmaskHow::SIG_SETMASK, Some(&old), None)?;
    assert_eq!(seen?, "0000000000000000\n0000000000000000");
    let own = std::fs::read_to_string("/proc/self/status")?;
    let ignored = own.lines().find_map(|l| l.strip_prefix("SigIgn:\t")).ok_or("no SigIgn")?;
    assert!(u64::from_str_radix(ignored, 16)? & 1 << 12 != 0, "control: the host ignores SIGPIPE");
    Ok(())
}

fn session_and_umask() -> Fallible<()> {
    let seen =
        prints(&host().build()?, "umask; echo $$ $$ $$; cut -d' ' -f1,5,6 /proc/$$/stat; cut -d' ' -f7 /proc/$$/stat")?;
    let lines: Vec<_> = seen.lines().collect();
    assert_eq!((lines[0], lines[3]), ("0022", "0")); // no terminal
    assert_eq!(lines[1], lines[2]); // its own group and session
    Ok(())
}

fn nothing_of_the_host() -> Fallible<()> {
    let sandbox = host().build()?;
    let mut child = sandbox.spawn(&sh("sleep 60"))?;
    let pid = child.id();
    let read =
        |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).map(|b| String::from_utf8_lossy(&b).into_owned());
    assert_eq!(read("comm")?, "belljar\n");
    if nix::unistd::geteuid().is_root() {
        assert_eq!((read("cmdline")?.trim_matches('\0'), read("environ")?.as_str()), ("", ""));
        let mut fds: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd"))?
            .map(|fd| fd.and_then(|fd| std::fs::read_link(fd.path())).map(|p| p.display().to_string()))
            .collect::<Result<_, _>>()?;
        fds.sort();
        // the lock on its block of ids, in an empty file
        let leases = fds.iter().filter(|name| name.ends_with("/belljar-ids")).count();
        assert_eq!(leases, usize::from(nix::unistd::geteuid().is_root()), "{fds:?}");
        fds.retain(|name| !name.ends_with("/belljar-ids"));
        // the root of the sandbox's own devpts, pidfd of the host, signalfd, control socket
        assert_eq!(fds.len(), 4, "{fds:?}");
        assert_eq!(fds[..3], ["/dev/pts", "anon_inode:[pidfd]", "anon_inode:[signalfd]"]);
        assert!(fds[3].starts_with("socket:"), "{fds:?}");
        assert!(read("maps")?.lines().count() < 15);
    }
    child.kill(belljar::KillScope::Tree)?;
    child.wait()?;
    Ok(())
}

fn pid_1_cannot_be_touched() -> Fallible<()> {
    let script = "cat /proc/1/environ 2>/dev/null; readlink /proc/1/exe /proc/1/fd/*; cat /proc/1/fd/*; ls /proc/1/cwd/; cat /proc/1/maps; \
                  echo x > /proc/1/exe; kill -9 1; kill -STOP 1; sleep 0.1; echo alive";
    let output = host().build()?.output(&sh(script))?;
    let seen = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(seen, "alive\n", "{}", text(&output));
    assert!(output.exit.success());
    Ok(())
}

/// A Program of more than one packet, and more than fits the shim's first buffer.
fn large_program() -> Fallible<()> {
    for size in [30_000, 33_000, 64_000, 70_000, 5_000_000] {
        let root = RootFs::empty().file("/large", vec![b'x'; size]);
        let sandbox = with_programs(Sandbox::builder(root)).build()?;
        assert_eq!(prints(&sandbox, "wc -c < /large")?, size.to_string());
    }
    Ok(())
}

fn shim_from_a_file() -> Fallible<()> {
    without(feature::MEMFD_EXEC, || {
        let sandbox = host().build()?;
        let child = sandbox.spawn(&sh("sleep 60"))?;
        let exe = std::fs::read_link(format!("/proc/{}/exe", child.id()));
        if let Ok(exe) = exe {
            // an ordinary user may not look
            assert!(exe.display().to_string().contains("(deleted)") && !exe.starts_with("/memfd:"), "{exe:?}");
        }
        assert_eq!(prints(&sandbox, "echo ok")?, "ok");
        Ok(())
    })
}
