//! System calls that the payload's filter leaves to the host.

use crate::common::*;
use crate::harness::{Need, Test};
use belljar::{
    Answer, Argument, Child, Command, Delivery, ErrorKind, Grounds, Init, Inject, KillScope, Mount, Notification,
    Notifications, Sandbox, SandboxBuilder, Seccomp, SeccompAction, SeccompProfile, Security, Stdio, Verdict,
    sys::Errno, testing::feature,
};
use std::fs::File;
use std::io::Write;
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub fn tests() -> Vec<Test> {
    const USER: &[Need] = &[Need::UserNamespaces];
    vec![
        Test::new("notify::answers", USER, answers),
        Test::new("notify::a_descriptor_for_an_open", USER, injected),
        Test::new("notify::unanswered_is_denied", USER, unanswered),
        Test::new("notify::nobody_listens", USER, nobody_listens),
        Test::new("notify::killed_while_it_waits", USER, killed),
        Test::new("notify::interrupted_while_it_waits", USER, interrupted),
        Test::new("notify::threads_and_processes_at_once", USER, at_once),
        Test::new("notify::memory_of_the_payload", USER, memory),
        Test::new("notify::grounds", USER, grounds),
        Test::new("notify::descriptors_of_the_payload", USER, descriptors),
        Test::new("notify::nothing_of_it_in_the_payload", USER, nothing_in_the_payload),
        Test::new("notify::by_arguments_and_beside_others", USER, by_arguments),
        Test::new("notify::enter", USER, enter),
        Test::new("notify::each_step_fails_cleanly", USER, each_step_fails),
        Test::new("notify::one_listener_for_a_process", USER, one_listener),
        Test::new("notify::defects", &[], defects),
        #[cfg(feature = "tokio")]
        Test::new("notify::tokio", USER, tokio::test),
    ]
}

const LONG: Duration = Duration::from_secs(10);

fn profile(names: &[&str]) -> SeccompProfile {
    SeccompProfile::standard().notify(names.iter().copied())
}

fn security(profile: SeccompProfile) -> Security {
    Security::new().seccomp(Seccomp::Custom(profile))
}

/// A sandbox whose filter leaves these calls to the host.
fn notified(names: &[&str]) -> SandboxBuilder {
    host().mount(Mount::tmpfs("/tmp")).security(security(profile(names)))
}

fn piped(script: &str) -> Command {
    let mut command = sh(script);
    command.stdout(Stdio::Piped).stderr(Stdio::Piped);
    command
}

type Calls = JoinHandle<Threaded<Vec<String>>>;
/// For threads.
type Threaded<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Answers all calls in a thread of its own; gives their names.
fn served(calls: Notifications, mut handler: impl FnMut(&mut Notification) -> Answer + Send + 'static) -> Calls {
    thread::spawn(move || {
        let mut names = Vec::new();
        calls.serve(|call| {
            names.push(call.name().unwrap_or("?").to_owned());
            handler(call)
        })?;
        Ok(names)
    })
}

fn joined(thread: Calls) -> Fallible<Vec<String>> {
    thread.join().map_err(|_| "the handler panicked")?.map_err(|error| error.to_string().into())
}

/// What a script prints while these answers are given, and which calls there were.
fn with_answers(
    sandbox: &Sandbox,
    script: &str,
    handler: impl FnMut(&mut Notification) -> Answer + Send + 'static,
) -> Fallible<(String, Vec<String>)> {
    // only a shim can hold to a time
    let mut child = sandbox.spawn(piped(script).wall_time(LONG)).or_else(|_| sandbox.spawn(&piped(script)))?;
    let thread = served(child.notifications.take().ok_or("nothing is notified")?, handler);
    let output = child.wait_with_output()?;
    let names = joined(thread)?;
    assert!(matches!(output.exit.verdict, Verdict::Exited(_)), "{}", output.exit);
    Ok((text(&output).trim_end().to_owned(), names))
}

fn next(calls: &Notifications) -> Fallible<Notification> {
    match calls.next_within(LONG)? {
        Poll::Ready(Some(call)) => Ok(call),
        other => Err(format!("{other:?}").into()),
    }
}

const MKDIR: &[&str] = &["mkdir", "mkdirat"];

fn answers() -> Fallible<()> {
    const SCRIPT: &str = "mkdir /tmp/a; ls /tmp; id -u";
    for init in [Init::Shim, Init::Payload] {
        let sandbox = notified(MKDIR).init(init).build()?;
        let denied = |_: &mut Notification| Answer::Errno(Errno::EXDEV);
        let (said, names) = with_answers(&sandbox, SCRIPT, denied)?;
        assert!(said.contains("Invalid cross-device link") && !said.contains("a\n0"), "{said}");
        assert!(names.len() == 1 && MKDIR.contains(&names[0].as_str()), "{names:?}");
        let (said, _) = with_answers(&sandbox, SCRIPT, |_| Answer::Allow(Grounds::Registers))?;
        assert!(said.starts_with("a\n"), "{said}");
        // a value: it did nothing, and says that it did
        let (said, _) = with_answers(&sandbox, SCRIPT, |_| Answer::Value(0))?;
        assert!(!said.contains('a'), "{said}");
        let sandbox = notified(&["geteuid"]).init(init).build()?;
        let (said, names) = with_answers(&sandbox, SCRIPT, |_| Answer::Value(4242))?;
        assert_eq!(said, "a\n4242");
        assert!(!names.is_empty() && names.iter().all(|name| name == "geteuid"), "{names:?}");
        let report = sandbox.enforcement();
        assert!(report.get("notified-calls").is_some_and(|line| line.detail.contains("geteuid")), "{report}");
    }
    let control = host().mount(Mount::tmpfs("/tmp")).build()?;
    assert!(prints(&control, SCRIPT)?.starts_with("a\n"));
    assert!(control.spawn(&sh("true"))?.notifications.is_none());
    assert!(control.enforcement().get("notified-calls").is_none());
    Ok(())
}

/// Opens what the payload cannot see; all else it opens itself.
fn broker(call: &mut Notification) -> Answer {
    match call.read_c_string(call.arguments()[1], 4096) {
        Ok(path) if path.as_c_str() == c"/broker/version" => match File::open("/proc/version") {
            Ok(file) => Answer::InjectFd(Inject::new(file)),
            Err(_) => Answer::Errno(Errno::EIO),
        },
        Ok(path) if path.as_c_str() == c"/broker/ninth" => match File::open("/proc/version") {
            Ok(file) => Answer::InjectFd(Inject::new(file).number(9).close_on_exec()),
            Err(_) => Answer::Errno(Errno::EIO),
        },
        Ok(_) => Answer::Allow(Grounds::RacyMemory),
        Err(_) => Answer::Errno(Errno::EPERM),
    }
}

fn injected() -> Fallible<()> {
    let version = std::fs::read_to_string("/proc/version")?;
    let sandbox = notified(&["openat"]).build()?;
    for features in [0, feature::ADDFD_SEND, feature::WAIT_KILLABLE] {
        without(features, || {
            let (said, names) = with_answers(&sandbox, "cat /broker/version /proc/self/comm", broker)?;
            assert_eq!(said, format!("{version}cat"), "{features}");
            assert!(names.len() > 2);
            assert_eq!(with_answers(&sandbox, "exec 3< /broker/ninth; cat <&3", broker)?.0, version.trim_end());
            // no room: the payload's own failure
            for (script, why) in [
                ("ulimit -n 3; : < /broker/version", "Too many open files"),
                ("ulimit -n 8; : < /broker/ninth", "Bad file descriptor"),
            ] {
                let (said, _) = with_answers(&sandbox, script, broker)?;
                assert!(said.contains(why), "{script}: {said}");
            }
            Ok(())
        })?;
    }
    let control = host().build()?.output(&sh("cat /broker/version"))?;
    assert!(!control.exit.success() && text(&control).contains("No such file"), "{}", text(&control));
    Ok(())
}

fn unanswered() -> Fallible<()> {
    let sandbox = notified(MKDIR).build()?;
    let mut child = sandbox.spawn(&piped("mkdir /tmp/a; mkdir /tmp/b"))?;
    let calls = child.notifications.take().ok_or("nothing is notified")?;
    drop(next(&calls)?);
    // also by a handler that panics
    let thread = thread::spawn(move || {
        let _call = next(&calls);
        std::panic::resume_unwind(Box::new(()));
    });
    let output = child.wait_with_output()?;
    assert_eq!(text(&output).matches("Operation not permitted").count(), 2, "{}", text(&output));
    assert!(thread.join().is_err());
    Ok(())
}

fn nobody_listens() -> Fallible<()> {
    let sandbox = notified(MKDIR).build()?;
    let no_call = |output: belljar::Output| {
        assert!(text(&output).contains("Function not implemented"), "{}", text(&output));
        assert_eq!(output.exit.code(), Some(1));
    };
    const SCRIPT: &str = "mkdir /tmp/a || exit 1";
    no_call(sandbox.output(&sh(SCRIPT))?);
    no_call(sandbox.spawn(&piped(SCRIPT))?.wait_with_output()?);
    assert_eq!(sandbox.status(&sh(SCRIPT))?.code(), Some(1));
    let mut child = sandbox.spawn(&sh(SCRIPT))?;
    // it waits, as long as the handle has them
    assert!(child.wait_timeout(Duration::from_millis(200))?.is_none());
    assert_eq!(child.wait()?.code(), Some(1));
    // given up while a call waits, received or not
    for received in [false, true] {
        let mut child = sandbox.spawn(&piped(SCRIPT))?;
        let calls = child.notifications.take().ok_or("nothing is notified")?;
        assert!(belljar::sys::socket::wait_readable(std::os::fd::AsFd::as_fd(&calls), Some(LONG))?);
        let call = if received { Some(next(&calls)?) } else { None };
        drop(calls);
        match call {
            // received, it can still be answered
            Some(call) => {
                assert_eq!(call.answer(Answer::Errno(Errno::ENOSYS))?, Delivery::Delivered);
                no_call(child.wait_with_output()?);
            }
            None => no_call(child.wait_with_output()?),
        }
    }
    // a sandbox that is dropped while its call waits
    let start = Instant::now();
    let child = sandbox.spawn(&sh(SCRIPT))?;
    assert!(start.elapsed() < LONG);
    drop(child);
    assert!(start.elapsed() < LONG);
    Ok(())
}

fn killed() -> Fallible<()> {
    for (features, init) in [(0, Init::Shim), (0, Init::Payload), (feature::WAIT_KILLABLE, Init::Shim)] {
        without(features, || {
            let sandbox = notified(MKDIR).init(init).build()?;
            let mut child = sandbox.spawn(&sh("mkdir /tmp/a"))?;
            let calls = child.notifications.take().ok_or("nothing is notified")?;
            let mut call = next(&calls)?;
            assert!(call.is_waiting()?);
            let process = call.process()?;
            assert!(calls.next_within(Duration::from_millis(50))?.is_pending());
            child.kill(KillScope::Tree)?;
            assert_eq!(child.wait()?.verdict, Verdict::KilledByHandle);
            assert!(process.wait_exited(Some(LONG))?);
            assert!(!call.is_waiting()?);
            assert_kind(&refused(call.read(0, &mut [0]))?, ErrorKind::NotFound);
            assert_kind(&refused(call.process())?, ErrorKind::NotFound);
            assert_eq!(call.answer(Answer::Value(0))?, Delivery::Gone);
            assert!(matches!(calls.next_within(LONG)?, Poll::Ready(None)));
            Ok(())
        })?;
        // killed before anybody has looked
        let sandbox = notified(MKDIR).init(init).build()?;
        let mut child = sandbox.spawn(&sh("mkdir /tmp/a"))?;
        let mut calls = child.notifications.take().ok_or("nothing is notified")?;
        assert!(belljar::sys::socket::wait_readable(std::os::fd::AsFd::as_fd(&calls), Some(LONG))?);
        child.kill(KillScope::Tree)?;
        child.wait()?;
        assert!(calls.next().is_none());
    }
    // by a time limit, with a call that waits
    let mut child = notified(&["umask"]).build()?.spawn(sh("umask").wall_time(Duration::from_secs(1)))?;
    let calls = child.notifications.take().ok_or("nothing is notified")?;
    let call = next(&calls)?;
    assert_eq!(child.wait()?.verdict, Verdict::WallTimeLimit);
    assert_eq!(call.answer(Answer::Value(0))?, Delivery::Gone);
    Ok(())
}

/// A signal with a handler: before Linux 5.19 it ends the wait; the kernel then tells so, or makes the call anew.
fn interrupted() -> Fallible<()> {
    let sandbox = notified(&["umask"]).build()?;
    let signalled = |features, bound: Duration| {
        without(features, || {
            let mut child = sandbox.spawn(&piped("trap : USR1; umask"))?;
            let calls = child.notifications.take().ok_or("nothing is notified")?;
            let call = next(&calls)?;
            child.signal(libc::SIGUSR1)?;
            let start = Instant::now();
            while call.is_waiting()? && start.elapsed() < bound {
                thread::sleep(Duration::from_millis(5));
            }
            let delivery = call.answer(Answer::Value(0o27))?;
            let thread = served(calls, |_| Answer::Value(0));
            let said = text(&child.wait_with_output()?);
            joined(thread)?;
            Ok((delivery, said))
        })
    };
    assert_eq!(signalled(feature::WAIT_KILLABLE, LONG)?.0, Delivery::Gone);
    if Need::Kernel(5, 19).probe().is_ok() {
        let (delivery, said) = signalled(0, Duration::from_millis(200))?;
        assert_eq!((delivery, said.as_str()), (Delivery::Delivered, "0027\n"));
    }
    Ok(())
}

/// What the test's own program does in the sandbox.
pub fn payload(role: &str) -> Fallible<()> {
    use nix::unistd::{Pid, getsid};
    let right = |n: i32| getsid(Some(Pid::from_raw(n))).map(Pid::as_raw) == Ok(n + 500_000);
    if let Some(n) = role.strip_prefix("child ") {
        let n: i32 = n.parse()?;
        return (0..50).all(|i| right(10_000 * (n + 1) + i)).then_some(()).ok_or("a wrong answer".into());
    }
    let threads: Vec<_> =
        (0..8).map(|thread| thread::spawn(move || (0..50).all(|n| right(1000 * thread + n)))).collect();
    let children: Vec<_> = (0..4)
        .map(|n| {
            let program = std::env::current_exe()?;
            std::process::Command::new(program).env("BELLJAR_TEST_NOTIFY", format!("child {n}")).spawn()
        })
        .collect::<Result<_, _>>()?;
    let mut good = threads.into_iter().filter_map(|thread| thread.join().ok()).filter(|good| *good).count();
    for mut child in children {
        good += usize::from(child.wait()?.success());
    }
    println!("{good}");
    Ok(())
}

fn at_once() -> Fallible<()> {
    let program = std::env::current_exe()?;
    let sandbox = notified(&["getsid"]).mount(Mount::bind(&program, "/tmp/program").read_only()).build()?;
    let mut command = Command::new("/tmp/program");
    command.env("BELLJAR_TEST_NOTIFY", "threads").stdout(Stdio::Piped).stderr(Stdio::Piped);
    let mut child = sandbox.spawn(&command)?;
    let calls = child.notifications.take().ok_or("nothing is notified")?;
    // three threads receive, and answer out of order
    let (count, seen) = thread::scope(|scope| {
        let receivers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| -> Threaded<(usize, Vec<u32>)> {
                    let (mut kept, mut count, mut threads) = (None::<Notification>, 0, Vec::new());
                    let answer = |call: Notification| {
                        let value = i64::from(call.arguments()[0] as i32) + 500_000;
                        call.answer(Answer::Value(value))
                    };
                    loop {
                        match calls.next_within(if kept.is_some() { Duration::from_millis(1) } else { LONG })? {
                            Poll::Ready(Some(call)) => {
                                count += 1;
                                threads.push(call.thread());
                                match kept.take() {
                                    // the later one first
                                    Some(earlier) => {
                                        answer(call)?;
                                        answer(earlier)?;
                                    }
                                    None => kept = Some(call),
                                }
                            }
                            Poll::Ready(None) => return Ok((count, threads)),
                            Poll::Pending => match kept.take() {
                                Some(earlier) => drop(answer(earlier)?),
                                None => return Err("no call came".into()),
                            },
                        }
                    }
                })
            })
            .collect();
        let mut all = (0, std::collections::BTreeSet::new());
        for receiver in receivers {
            let (count, threads) = receiver.join().map_err(|_| "a receiver panicked")??;
            all.0 += count;
            all.1.extend(threads);
        }
        Threaded::Ok(all)
    })
    .map_err(|error| error.to_string())?;
    assert_eq!((count, seen.len()), (12 * 50, 12));
    let output = child.wait_with_output()?;
    assert_eq!(text(&output), "12\n", "{}", output.exit);
    Ok(())
}

/// `struct utsname` as uname(2) fills it: six fields of 65 bytes.
fn utsname(call: &mut Notification) -> Fallible<()> {
    let at = call.arguments()[0];
    let mut record = [0u8; 6 * 65];
    for (field, text) in record.chunks_exact_mut(65).zip(["Bell", "jar", "9.9", "#1", "none", "-"]) {
        field[..text.len()].copy_from_slice(text.as_bytes());
    }
    call.write(at, &record)?;
    let mut back = [0u8; 6 * 65];
    call.read(at, &mut back)?;
    assert_eq!(back, record);
    // nothing is there
    let error = refused(call.read(16, &mut [0; 8]))?;
    assert_eq!(error.raw_os_error(), Some(libc::EFAULT), "{error}");
    assert!(refused(call.read(u64::MAX - 3, &mut [0; 8])).is_ok());
    assert!(refused(call.read_c_string(16, 100)).is_ok());
    Ok(())
}

fn memory() -> Fallible<()> {
    let sandbox = notified(&["uname"]).build()?;
    let handler = |call: &mut Notification| match utsname(call) {
        Ok(()) => Answer::Value(0),
        Err(error) => panic!("{error}"),
    };
    let (said, _) = with_answers(&sandbox, "uname -snr", handler)?;
    assert_eq!(said, "Bell jar 9.9");
    // strings of any length, up to a bound
    let sandbox = notified(MKDIR).build()?;
    let name = |len: usize| format!("/tmp/{}", "x".repeat(len - 5));
    let handler = move |call: &mut Notification| {
        let at = call.arguments()[usize::from(call.name() == Some("mkdirat"))];
        match call.read_c_string(at, 3000) {
            Ok(path) => Answer::Errno(Errno(if path.to_bytes() == name(2999).as_bytes() { libc::EDOM } else { 1 })),
            Err(error) => Answer::Errno(Errno(error.raw_os_error().unwrap_or(libc::EIO))),
        }
    };
    for (len, said) in [(2999, "out of domain"), (3000, "too long"), (2000, "not permitted")] {
        let (heard, _) = with_answers(&sandbox, &format!("mkdir {} 2>&1", name(len)), handler)?;
        assert!(heard.contains(said), "{len}: {}", &heard[heard.len() - 40..]);
    }
    Ok(())
}

fn grounds() -> Fallible<()> {
    let sandbox = notified(MKDIR).build()?;
    let mut child = sandbox.spawn(&piped("mkdir /tmp/a || mkdir /tmp/b || mkdir /tmp/c; ls /tmp"))?;
    let calls = child.notifications.take().ok_or("nothing is notified")?;
    let mut call = next(&calls)?;
    let at = call.arguments()[usize::from(call.name() == Some("mkdirat"))];
    assert_eq!(call.read_c_string(at, 100)?.as_c_str(), c"/tmp/a");
    assert_kind(&refused(call.answer(Answer::Allow(Grounds::Registers)))?, ErrorKind::InvalidSpec);
    for errno in [0, -1, 4096] {
        let call = next(&calls)?;
        assert_kind(&refused(call.answer(Answer::Errno(Errno(errno))))?, ErrorKind::InvalidSpec);
        if errno == 0 {
            // the next of the three is let through, by whoever knows what that means
            let mut call = next(&calls)?;
            call.read(call.instruction_pointer(), &mut [0; 1])?;
            assert_eq!(call.answer(Answer::Allow(Grounds::RacyMemory))?, Delivery::Delivered);
            break;
        }
    }
    drop(calls);
    let said = text(&child.wait_with_output()?);
    assert!(said.starts_with("c\n") && said.matches("not permitted").count() == 2, "{said}");
    // directories of the host
    let sandbox = notified(&["geteuid"]).build()?;
    let mut child = sandbox.spawn(&piped("id -u; exec 3< /proc/self/comm; id -u"))?;
    let calls = child.notifications.take().ok_or("nothing is notified")?;
    let call = next(&calls)?;
    let directory = Inject::new(File::open("/etc")?);
    assert_kind(&refused(call.answer(Answer::InjectFd(directory)))?, ErrorKind::InvalidSpec);
    let call = next(&calls)?;
    let directory = Inject::directory(File::open("/etc")?);
    assert_eq!(call.answer(Answer::InjectFd(directory))?, Delivery::Delivered);
    drop(calls);
    child.wait()?;
    Ok(())
}

fn descriptors() -> Fallible<()> {
    let sandbox = notified(&["geteuid"]).build()?;
    let mut command = piped("id -u; read line; echo heard $line");
    let mut child = sandbox.spawn(command.stdin(Stdio::Piped))?;
    let calls = child.notifications.take().ok_or("nothing is notified")?;
    let mut call = next(&calls)?;
    let mut out = File::from(call.descriptor(1)?);
    assert_eq!(refused(call.descriptor(999))?.raw_os_error(), Some(libc::EBADF));
    writeln!(out, "by the host")?;
    drop(out);
    let process = call.process()?;
    assert!(!process.wait_exited(Some(Duration::ZERO))?);
    assert!(call.thread() > 1 && call.to_string().starts_with("geteuid("), "{call}");
    assert!(call.number() > 0 && call.instruction_pointer() > 0 && call.arch() & 0xc000_0000 == 0xc000_0000);
    // what was copied can be exchanged, too
    assert_kind(&refused(call.answer(Answer::Allow(Grounds::Registers)))?, ErrorKind::InvalidSpec);
    let thread = served(calls, |_| Answer::Value(7));
    child.stdin.take().ok_or("piped")?.write_all(b"it\n")?;
    let said = text(&child.wait_with_output()?);
    assert!(said.starts_with("by the host\n") && said.ends_with("heard it\n"), "{said}");
    joined(thread)?;
    Ok(())
}

fn nothing_in_the_payload() -> Fallible<()> {
    const LOOK: &str = "ls -l /proc/self/fd | grep -c seccomp; ls /proc/self/fd | wc -l; ls -l /proc/1/fd 2> /dev/null | grep -c seccomp";
    for init in [Init::Shim, Init::Payload] {
        let (said, _) = with_answers(&notified(MKDIR).init(init).build()?, LOOK, |_| Answer::Value(0))?;
        let control = host().init(init).build()?.output(&sh(LOOK))?;
        assert_eq!(said, text(&control).trim_end(), "{init:?}");
        assert!(said.starts_with("0\n4\n"), "{said}");
    }
    // the filter that notifies is one more
    let (said, _) = with_answers(
        &notified(MKDIR).build()?,
        "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; grep ^Seccomp_filters /proc/self/status || echo ':\t2'",
        |_| Answer::Value(0),
    )?;
    assert_eq!(said.split_whitespace().filter(|word| word.parse::<u8>().is_ok()).collect::<Vec<_>>(), ["1", "2", "2"]);
    // and the host has it
    let child = notified(MKDIR).build()?.spawn(&sh("sleep 60"))?;
    let fds = std::fs::read_dir("/proc/self/fd")?.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
    assert_eq!(fds.filter(|to| to.to_string_lossy().contains("seccomp")).count(), 1);
    drop(child);
    Ok(())
}

fn by_arguments() -> Fallible<()> {
    // one request of one call; the rest of the profile holds: errors come before notices, notices before what is allowed
    let profile = SeccompProfile::standard()
        .rule("kill", [Argument::int(1).is(0)], SeccompAction::Notify)
        .deny(["getsid"])
        .notify(["getpgid"]);
    let sandbox = host().security(security(profile)).build()?;
    let script = "kill -0 $$ && echo signalled; kill -CONT $$ && echo continued";
    let (said, names) = with_answers(&sandbox, script, |call| {
        assert_eq!(call.arguments()[1] as i32, 0);
        Answer::Errno(Errno::EPERM)
    })?;
    assert!(!said.contains("signalled") && said.contains("continued"), "{said}");
    assert_eq!(names, ["kill"]);
    // in the form of the OCI specification
    #[cfg(feature = "serde")]
    {
        let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]}"#;
        let security = Security::new().seccomp(Seccomp::Json(text.into()));
        let sandbox = host().mount(Mount::tmpfs("/tmp")).security(security).build()?;
        let (said, _) = with_answers(&sandbox, "mkdir /tmp/a; ls /tmp", |_| Answer::Value(0))?;
        assert_eq!(said, "");
    }
    // with namespaces of its own allowed, what is notified stays so
    let profile = SeccompProfile::standard().notify(["unshare"]);
    let sandbox = host().security(security(profile).allow_nested_namespaces()).build()?;
    let (said, names) = with_answers(&sandbox, "unshare --uts true", |_| Answer::Errno(Errno::EDQUOT))?;
    assert!(said.contains("quota") && names == ["unshare"], "{said}");
    Ok(())
}

fn enter() -> Fallible<()> {
    let sandbox = notified(MKDIR).build()?;
    let mut child = sandbox.spawn(piped("read x; mkdir /tmp/payload").stdin(Stdio::Piped))?;
    let own = child.notifications.take().ok_or("nothing is notified")?;
    // each has a listener of its own
    let mut entered = child.enter(&piped("mkdir /tmp/entered; ls /tmp"))?;
    let calls = entered.notifications.take().ok_or("nothing is notified")?;
    let call = next(&calls)?;
    assert!(own.next_within(Duration::from_millis(50))?.is_pending());
    assert_eq!(call.answer(Answer::Errno(Errno::EXDEV))?, Delivery::Delivered);
    assert!(text(&entered.wait_with_output()?).contains("cross-device"));
    assert!(matches!(calls.next_within(LONG)?, Poll::Ready(None)));
    // of a tighter one, too, but not of both
    let tighter = security(profile(&["rmdir"]));
    let error = refused(child.enter_tighter(&sh("true"), &tighter))?;
    assert_kind(&error, ErrorKind::InvalidSpec);
    assert!(error.to_string().contains("one listener"), "{error}");
    let plain = host().mount(Mount::tmpfs("/tmp")).build()?.spawn(sh("read x").stdin(Stdio::Piped))?;
    let says = |child: &Child, security: &Security| -> Fallible<String> {
        let mut entered = child.enter_tighter(&piped("mkdir /tmp/a; rmdir /tmp/a; ls /tmp"), security)?;
        let thread = served(entered.notifications.take().ok_or("nothing is notified")?, |_| Answer::Value(0));
        let said = text(&entered.wait_with_output()?);
        joined(thread)?;
        Ok(said)
    };
    assert_eq!(says(&plain, &security(profile(&["rmdir", "unlinkat"])))?, "a\n");
    // what the tighter filter denies is denied, not notified, and all files may be notified before its own steps
    let all = ["openat", "statx", "newfstatat", "read", "mmap", "landlock_create_ruleset", "fcntl"];
    let everything = notified(&all).build()?.spawn(&sh("true"));
    let mut everything = everything?;
    let calls = everything.notifications.take().ok_or("nothing is notified")?;
    let thread = thread::spawn(move || calls.serve(|_| Answer::Allow(Grounds::Registers)).map_err(|e| e.to_string()));
    assert!(everything.wait()?.success());
    thread.join().map_err(|_| "panicked")??;
    let slow = notified(&all).build()?.spawn(&sh("read x"))?;
    let deny = security(SeccompProfile::standard().deny(MKDIR.iter().copied()));
    let mut entered = slow.enter_tighter(&piped("mkdir /tmp/a"), &deny)?;
    let thread =
        served(entered.notifications.take().ok_or("nothing is notified")?, |_| Answer::Allow(Grounds::RacyMemory));
    assert!(text(&entered.wait_with_output()?).contains("not permitted"));
    assert!(joined(thread)?.len() > 10);
    drop((slow, child));
    Ok(())
}

fn each_step_fails() -> Fallible<()> {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            belljar::testing::fail_at(None);
        }
    }
    let sandbox = notified(&["openat", "read"]).build()?;
    let program = sandbox.explain(&sh("true"))?.to_string();
    let listen = program.lines().position(|line| line.contains("leave system calls to the host")).ok_or("no step")?;
    assert!(program.lines().nth(listen + 1).is_some_and(|line| line.contains("filter system calls")), "{program}");
    let _restore = Restore;
    for step in listen..listen + 3 {
        belljar::testing::fail_at(Some(step as u32));
        let error = refused(sandbox.spawn(&sh("true")))?;
        assert_eq!((error.step().map(|s| s.number()), error.raw_os_error()), (Some(step as u32 + 1), Some(libc::EIO)));
    }
    belljar::testing::fail_at(None);
    let error = refused(sandbox.spawn(&Command::new("/no/such/program")))?;
    assert_kind(&error, ErrorKind::ProgramNotFound);
    Ok(())
}

/// Under a listener of somebody else's there can be no second one.
fn one_listener() -> Fallible<()> {
    let sandbox = notified(MKDIR).build()?;
    let error = thread::spawn(move || -> Threaded<belljar::Error> {
        nix::sys::prctl::set_no_new_privs()?;
        // one instruction: everything is allowed
        let allow = [&6u16.to_ne_bytes()[..], &[0, 0], &0x7fff_0000u32.to_ne_bytes()].concat();
        let _listener = belljar::sys::seccomp::Listener::install(&allow)?;
        sandbox.spawn(&sh("true")).err().ok_or("it was spawned".into())
    });
    let error = error.join().map_err(|_| "panicked")?.map_err(|error| error.to_string())?;
    assert_kind(&error, ErrorKind::NotSupported);
    assert_eq!((error.step().map(|s| s.name()), error.raw_os_error()), (Some("listen"), Some(libc::EBUSY)), "{error}");
    Ok(())
}

fn defects() -> Fallible<()> {
    let refused = |security: Security| -> Fallible<belljar::Error> {
        let error = refused(host().security(security).build())?;
        assert_kind(&error, ErrorKind::InvalidSpec);
        Ok(error)
    };
    for name in
        ["close", "execve", "execveat", "exit", "exit_group", "prlimit64", "rt_sigprocmask", "seccomp", "sendmsg"]
    {
        let error = refused(security(profile(&[name])))?;
        assert!(error.defects().len() == 1 && error.to_string().contains(name), "{error}");
        // also where only some arguments are notified
        let some = SeccompProfile::standard().rule(name, [Argument::int(0).is(7)], SeccompAction::Notify);
        assert_eq!(refused(security(some))?.defects().len(), 1);
    }
    let error = refused(security(SeccompProfile::otherwise(SeccompAction::Notify)))?;
    assert_eq!(error.defects().len(), 9, "{error}");
    let named = SeccompProfile::otherwise(SeccompAction::Notify).allow(["execve", "close"]);
    assert_eq!(refused(security(named))?.defects().len(), 7);
    let error = refused(security(profile(MKDIR)).allow_new_privileges())?;
    assert!(error.to_string().contains("new privileges"), "{error}");
    assert!(refused(security(profile(&["opneat"])))?.to_string().contains("opneat"));
    Ok(())
}

#[cfg(feature = "tokio")]
mod tokio {
    use super::*;
    use ::tokio::time::timeout;

    pub fn test() -> Fallible<()> {
        ::tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run())
    }

    async fn run() -> Fallible<()> {
        for init in [Init::Shim, Init::Payload] {
            let sandbox = notified(MKDIR).init(init).build()?;
            let script = "mkdir /tmp/a; mkdir /tmp/b & mkdir /tmp/c & wait; ls /tmp";
            let mut child = sandbox.spawn_async(&piped(script))?;
            let mut calls = child.notifications.take().ok_or("nothing is notified")?;
            // cancel-safe: given up and asked again
            let first = timeout(LONG, calls.next()).await??.ok_or("a call")?;
            for _ in 0..3 {
                assert!(timeout(Duration::from_millis(20), calls.next()).await.is_err());
            }
            first.answer(Answer::Errno(Errno::EXDEV))?;
            let server = ::tokio::spawn(async move {
                let mut answered = 0;
                while let Some(call) = calls.next().await? {
                    answered += 1;
                    // by a task of its own
                    ::tokio::spawn(async move {
                        ::tokio::time::sleep(Duration::from_millis(20)).await;
                        call.answer(Answer::Allow(Grounds::Registers))
                    });
                }
                Ok::<_, belljar::Error>(answered)
            });
            let output = timeout(LONG, child.wait_with_output()).await??;
            assert!(text(&output).starts_with("b\nc\n") && text(&output).contains("cross-device"), "{}", text(&output));
            assert_eq!(timeout(LONG, server).await???, 2);
            // nobody listens
            let output = timeout(LONG, sandbox.spawn_async(&piped("mkdir /tmp/a"))?.wait_with_output()).await??;
            assert!(text(&output).contains("not implemented"), "{}", text(&output));
            // killed while one waits
            let mut child = sandbox.spawn_async(&piped("mkdir /tmp/a"))?;
            let mut calls = child.notifications.take().ok_or("nothing is notified")?;
            let call = timeout(LONG, calls.next()).await??.ok_or("a call")?;
            timeout(LONG, child.kill(KillScope::Tree)).await??;
            assert_eq!(call.answer(Answer::Value(0))?, Delivery::Gone);
            assert!(timeout(LONG, calls.next()).await??.is_none());
        }
        Ok(())
    }
}
