//! The handle: waiting, signals, killing, dropping, detaching, and what the host may do meanwhile.

use crate::common::*;
use crate::harness::{Need, Test};
use belljar::{Child, ErrorKind, Init, KillScope, Mount, Mounts, Namespaces, Pid, Verdict};
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

pub fn tests() -> Vec<Test> {
    const USER: &[Need] = &[Need::UserNamespaces];
    vec![
        Test::new("child::exit_codes_and_signals", USER, exit_codes_and_signals),
        Test::new("child::usage", USER, usage),
        Test::new("child::wait_is_repeatable", USER, wait_is_repeatable),
        Test::new("child::wait_timeout", USER, wait_timeout),
        Test::new("child::pidfd_is_pollable", USER, pidfd_is_pollable),
        Test::new("child::signals_reach_the_payload", USER, signals_reach_the_payload),
        Test::new("child::signals_to_the_shim_are_forwarded", USER, signals_to_the_shim_are_forwarded),
        Test::new("child::kill_ends_the_whole_tree", USER, kill_ends_the_whole_tree),
        Test::new("child::kill_without_a_pid_namespace", USER, kill_without_a_pid_namespace),
        Test::new("child::kill_of_a_stopped_tree", USER, kill_of_a_stopped_tree),
        Test::new("child::drop_kills", USER, drop_kills),
        Test::new("child::drop_of_a_payload_as_init", USER, drop_of_a_payload_as_init),
        Test::new("child::detach_outlives_the_handle", USER, detach_outlives_the_handle),
        Test::new("child::what_cannot_be_detached_is_ended", USER, not_detached),
        Test::new("child::orphans_are_reaped", USER, orphans_are_reaped),
        Test::new("child::output_with_a_grandchild_that_holds_the_pipe", USER, output_with_a_grandchild),
        Test::new("child::output_of_both_streams_at_once", USER, output_of_both_streams),
        Test::new("child::a_host_that_reaps_everything", USER, a_host_that_reaps_everything),
        Test::new("child::a_spawning_thread_that_ends", USER, a_spawning_thread_that_ends),
        Test::new("child::the_host_dies", USER, the_host_dies),
        Test::new("child::the_host_dies_while_it_spawns", USER, the_host_dies_while_it_spawns),
        Test::new("child::a_thread_that_reaps_everything", USER, a_thread_that_reaps_everything),
        Test::new("child::threads_spawn_at_once", USER, threads_spawn_at_once),
        Test::new("child::payload_as_init", USER, payload_as_init),
    ]
}

fn exit_codes_and_signals() -> Fallible<()> {
    for init in [Init::Shim, Init::Payload] {
        let sandbox = host().init(init).build()?;
        for code in [0, 1, 125, 126, 127, 128, 255] {
            assert_eq!(sandbox.status(&sh(&format!("exit {code}")))?.code(), Some(code), "{init:?}");
        }
    }
    let sandbox = host().build()?;
    for signal in [1, 2, 6, 9, 11, 15, 34] {
        let exit = sandbox.status(&sh(&format!("ulimit -c 0; kill -{signal} $$")))?;
        assert_eq!((exit.code(), exit.signal()), (None, Some(signal)));
    }
    Ok(())
}

fn usage() -> Fallible<()> {
    let uncounted = host().limits(belljar::CgroupLimits::none()).build()?;
    let exit = uncounted.status(&sh("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"))?;
    let cpu = exit.usage.user.ok_or("no user time")? + exit.usage.system.ok_or("no system time")?;
    assert!(cpu > Duration::from_millis(5) && cpu < exit.usage.wall + Duration::from_millis(50), "{:?}", exit.usage);
    let rss = exit.usage.max_rss.ok_or("no max_rss")?.get();
    assert!((100_000..100_000_000).contains(&rss), "{:?}", exit.usage);
    assert!(exit.usage.voluntary_switches.is_some() && exit.usage.block_read.is_some());
    assert_eq!((exit.usage.memory_peak, exit.usage.processes_peak), (None, None), "nobody counted them");
    // an orphan that outlives the payload counts too
    let burn = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
    let both = host().build()?.status(&sh(&format!("(setsid sh -c '{burn}; sleep 60' &); {burn}; sleep 1")))?;
    assert!(both.usage.user > exit.usage.user.map(|one| one * 3 / 2), "{:?} {:?}", both.usage, exit.usage);
    // of a payload that is PID 1 the kernel's own record tells, but for the memory
    let alone = host().init(Init::Payload).build()?.status(&sh(burn))?;
    assert!(alone.usage.user.is_some_and(|user| user > Duration::from_millis(5)), "{:?}", alone.usage);
    assert_eq!(alone.usage.max_rss, None, "the kernel counts the host's memory in it");
    Ok(())
}

fn wait_is_repeatable() -> Fallible<()> {
    let mut child = host().build()?.spawn(&sh("exit 3"))?;
    let first = child.wait()?;
    assert_eq!(child.wait()?, first);
    assert_eq!(child.try_wait()?, Some(first));
    assert_kind_ended(&child)
}

fn assert_kind_ended(child: &Child) -> Fallible<()> {
    assert_eq!(refused(child.signal(15))?.kind(), ErrorKind::NotFound);
    Ok(())
}

fn wait_timeout() -> Fallible<()> {
    let mut child = host().build()?.spawn(&sh("sleep 60"))?;
    let start = Instant::now();
    assert_eq!(child.try_wait()?, None);
    assert!(start.elapsed() < Duration::from_millis(100));
    assert_eq!(child.wait_timeout(Duration::from_millis(200))?, None);
    assert!(start.elapsed() >= Duration::from_millis(200) && start.elapsed() < Duration::from_secs(5));
    child.kill(KillScope::Tree)?;
    let exit = child.wait_timeout(Duration::from_secs(10))?.ok_or("it lives on")?;
    assert!(!exit.success());
    Ok(())
}

fn pidfd_is_pollable() -> Fallible<()> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut child = host().build()?.spawn(&sh("sleep 0.2"))?;
    let ready = |timeout: PollTimeout| poll(&mut [PollFd::new(child.as_fd(), PollFlags::POLLIN)], timeout);
    assert_eq!(ready(PollTimeout::ZERO)?, 0);
    assert_eq!(ready(PollTimeout::from(10_000u16))?, 1);
    assert!(child.try_wait()?.is_some_and(|exit| exit.success()));
    Ok(())
}

const TRAP: &str =
    "trap 'echo got TERM; exit 5' TERM; trap 'echo got USR1' USR1; echo ready; while :; do sleep 0.05; done";

fn signals_reach_the_payload() -> Fallible<()> {
    let (mut child, mut lines) = ready(host(), TRAP)?;
    let mut line = String::new();
    child.signal(10)?;
    lines.read_line(&mut line)?;
    child.signal(15)?;
    lines.read_line(&mut line)?;
    assert_eq!(line, "got USR1\ngot TERM\n");
    assert_eq!(child.wait()?.code(), Some(5));
    // a payload without a handler dies, for it is not PID 1
    let (mut child, _lines) = ready(host(), "echo ready; exec sleep 60")?;
    child.signal(15)?;
    assert_eq!(child.wait()?.signal(), Some(15));
    assert_eq!(refused(host().build()?.spawn(&sh("true"))?.signal(0))?.raw_os_error(), Some(22));
    Ok(())
}

fn signals_to_the_shim_are_forwarded() -> Fallible<()> {
    let (mut child, mut lines) = ready(host(), TRAP)?;
    let kill = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal);
    if kill(nix::sys::signal::Signal::SIGUSR1).is_err() {
        // root's sandbox belongs to another id; an ordinary user's to its own
        return Err("the shim cannot be signalled from the host".into());
    }
    let mut line = String::new();
    lines.read_line(&mut line)?;
    assert_eq!(line, "got USR1\n");
    kill(nix::sys::signal::Signal::SIGTERM)?;
    assert_eq!(child.wait()?.code(), Some(5));
    Ok(())
}

fn tree(marker: &str) -> String {
    // a child, a grandchild of its own session, and a double-forked orphan
    format!(
        "sleep {marker} & (setsid sh -c 'sleep {marker} & sleep {marker}' &) ; (setsid setsid sleep {marker} &); \
         sleep 0.2; echo ready; sleep {marker}"
    )
}

/// Waits until so many processes have this argument: a shell that has said `ready` may still be starting them.
fn until_alive(marker: &str, wanted: usize) -> Fallible<()> {
    let start = Instant::now();
    while alive(marker) < wanted {
        if start.elapsed() > Duration::from_secs(10) {
            return Err(format!("{} of {wanted} processes {marker}", alive(marker)).into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn kill_ends_the_whole_tree() -> Fallible<()> {
    let (mut child, _lines) = ready(host(), &tree("7770001"))?;
    until_alive("7770001", 4)?;
    child.kill(KillScope::Tree)?;
    let exit = child.wait()?;
    assert!(!exit.success());
    assert!(gone_within("7770001", Duration::ZERO));
    Ok(())
}

fn kill_without_a_pid_namespace() -> Fallible<()> {
    // not /proc: a new one would belong to a pid namespace of its own
    let mounts = || Mounts::none().mount(Mount::dev("/dev"));
    let builder = || host().mounts(mounts()).namespaces(Namespaces::isolated().pid(Pid::Inherit));
    let (mut child, _lines) = ready(builder(), &tree("7770002"))?;
    until_alive("7770002", 4)?;
    child.kill(KillScope::Tree)?;
    child.wait()?;
    assert!(gone_within("7770002", Duration::ZERO));
    // and when the payload exits by itself
    let (mut child, _lines) = ready(builder(), "sleep 7770003 & (setsid sleep 7770003 &); echo ready; exit 4")?;
    assert_eq!(child.wait()?.code(), Some(4));
    assert!(gone_within("7770003", Duration::ZERO));
    Ok(())
}

fn kill_of_a_stopped_tree() -> Fallible<()> {
    let (mut child, _lines) = ready(host(), "sleep 7770004 & echo ready; kill -STOP $! $$")?;
    std::thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    child.kill(KillScope::Tree)?;
    child.wait()?;
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(gone_within("7770004", Duration::ZERO));
    Ok(())
}

fn drop_kills() -> Fallible<()> {
    let (child, _lines) = ready(host(), &tree("7770005"))?;
    drop(child);
    assert!(gone_within("7770005", Duration::ZERO));
    Ok(())
}

fn drop_of_a_payload_as_init() -> Fallible<()> {
    let (child, _lines) = ready(host().init(Init::Payload), &tree("7770006"))?;
    drop(child);
    assert!(gone_within("7770006", Duration::ZERO));
    Ok(())
}

fn detach_outlives_the_handle() -> Fallible<()> {
    for init in [Init::Shim, Init::Payload] {
        let (child, _lines) = ready(host().init(init), "echo ready; sleep 7770007")?;
        let pidfd = belljar::sys::pidfd::PidFd::from(child.detach()?);
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(alive("7770007"), 1);
        pidfd.send_signal(9)?;
        pidfd.wait()?;
        assert!(gone_within("7770007", Duration::from_secs(1)));
    }
    belljar::sweep();
    Ok(())
}

fn orphans_are_reaped() -> Fallible<()> {
    let script = "i=0; while [ $i -lt 1000 ]; do (true &); i=$((i+1)); done; sleep 0.3; \
                  grep -l '^State:.*Z' /proc/[0-9]*/status 2>/dev/null | wc -l";
    // more at a time, on a busy machine, than the default allows
    assert_eq!(prints(&host().limits(belljar::CgroupLimits::none()).build()?, script)?, "0");
    Ok(())
}

fn output_with_a_grandchild() -> Fallible<()> {
    let start = Instant::now();
    let output = host().build()?.output(&sh("echo said; (setsid sleep 7770008 &)"))?;
    assert_eq!(output.stdout, b"said\n");
    assert!(start.elapsed() < Duration::from_secs(3));
    // a process outside of the sandbox holds the pipe: the output is what there is
    let (mut reader, writer) = std::io::pipe()?;
    let held = writer.try_clone()?;
    let mut command = sh("echo out; echo err >&2");
    command.stdout(writer);
    let output = host().build()?.output(&command)?;
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b""[..], &b"err\n"[..]));
    drop((held, command));
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut reader, &mut rest)?;
    assert_eq!(rest, "out\n");
    Ok(())
}

fn output_of_both_streams() -> Fallible<()> {
    let script = "head -c 3000000 /dev/zero; head -c 2000000 /dev/zero >&2; head -c 1000000 /dev/zero";
    let output = host().build()?.output(&sh(script))?;
    assert_eq!((output.stdout.len(), output.stderr.len()), (4_000_000, 2_000_000));
    Ok(())
}

fn a_host_that_reaps_everything() -> Fallible<()> {
    use nix::sys::wait::{WaitPidFlag, waitpid};
    let reap = |child: &Child| -> Fallible<()> {
        // as a supervisor with waitpid(-1) does
        while child.as_fd().try_clone_to_owned().is_ok() {
            match waitpid(None, Some(WaitPidFlag::empty())) {
                Ok(_) => break,
                Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    };
    // the shim has told: nothing is lost
    let mut child = host().build()?.spawn(&sh("exit 42"))?;
    reap(&child)?;
    assert_eq!(child.wait()?.code(), Some(42));
    // without a shim it is, and says so
    let mut child = host().init(Init::Payload).build()?.spawn(&sh("exit 42"))?;
    reap(&child)?;
    let exit = child.wait()?;
    assert_eq!((exit.verdict, exit.status, exit.success()), (Verdict::StatusLost, None, false));
    Ok(())
}

fn a_spawning_thread_that_ends() -> Fallible<()> {
    let spawn = || host().build().and_then(|sandbox| sandbox.spawn(&sh("sleep 0.3; exit 6")));
    let mut child = std::thread::spawn(spawn).join().map_err(|_| "the thread panicked")??;
    assert_eq!(child.wait()?.code(), Some(6));
    Ok(())
}

/// A host process (this program, run anew) that is killed by SIGKILL with a sandbox running.
/// A host that is run anew in this role, and has a sandbox or is making some.
fn doomed_host(role: &str) -> Fallible<std::process::Child> {
    let mut host = std::process::Command::new(std::env::current_exe()?)
        .env("BELLJAR_TEST_HOST_DIES", role)
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(host.stdout.as_mut().ok_or("no stdout")?).read_line(&mut line)?;
    assert_eq!(line, "running\n");
    Ok(host)
}

/// What hosts leave behind becomes a child of this process, until this is dropped.
struct Subreaper;

impl Subreaper {
    fn new() -> Fallible<Subreaper> {
        nix::sys::prctl::set_child_subreaper(true)?;
        Ok(Subreaper)
    }

    /// Kills a host; a second later nothing is left of what it had.
    fn kill(&self, mut host: std::process::Child, what: &str) -> Fallible<()> {
        use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
        let start = Instant::now();
        host.kill()?;
        host.wait()?;
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Err(nix::errno::Errno::ECHILD) => return Ok(()),
                Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(1)),
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let bound = patience(Duration::from_secs(1));
            assert!(start.elapsed() < bound, "{what}: {:?}", children_of(std::process::id()));
        }
    }
}

impl Drop for Subreaper {
    fn drop(&mut self) {
        let _ = nix::sys::prctl::set_child_subreaper(false); // the leak check would tell
    }
}

fn the_host_dies() -> Fallible<()> {
    let reaper = Subreaper::new()?;
    for pid_namespace in ["new", "inherited"] {
        let marker = if pid_namespace == "new" { "7770009" } else { "7770010" };
        let host = doomed_host(pid_namespace)?;
        assert!(alive(marker) >= 1);
        reaper.kill(host, pid_namespace)?;
        assert!(gone_within(marker, Duration::ZERO), "{pid_namespace}");
    }
    belljar::sweep();
    Ok(())
}

/// At any moment of any step: a second later there is nothing left of what it was making.
fn the_host_dies_while_it_spawns() -> Fallible<()> {
    let reaper = Subreaper::new()?;
    for round in 0..20u64 {
        let host = doomed_host("spawning")?;
        std::thread::sleep(Duration::from_micros(round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50));
        reaper.kill(host, &format!("round {round}"))?;
        assert!(gone_within("7770011", Duration::ZERO), "round {round}");
    }
    // the empty groups that it could not remove any more; what is left in spite of it the leak check tells
    belljar::sweep();
    Ok(())
}

/// A thread with waitpid(-1), all the time, beside others that spawn.
fn a_thread_that_reaps_everything() -> Fallible<()> {
    use nix::sys::wait::waitpid;
    use std::sync::atomic::{AtomicBool, Ordering};
    let (shim, payload) = (host().build()?, host().init(Init::Payload).build()?);
    let stop = AtomicBool::new(false);
    let mut lost = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if waitpid(None, None).is_err() {
                    std::thread::yield_now(); // ECHILD
                }
            }
        });
        let mut all = || -> Fallible<()> {
            for code in 0..40 {
                assert_eq!(shim.status(&sh(&format!("exit {code}")))?.verdict, Verdict::Exited(code));
                match payload.status(&sh(&format!("exit {code}")))? {
                    exit if exit.verdict == Verdict::StatusLost => lost += 1,
                    exit => assert_eq!(exit.verdict, Verdict::Exited(code)),
                }
                let mut child = shim.spawn(&sh("sleep 60"))?;
                child.kill(KillScope::Tree)?;
                assert_eq!(child.wait()?.verdict, Verdict::KilledByHandle);
                // a set-up that fails is undone, whoever reaps
                assert!(shim.spawn(&belljar::Command::new("/no/such")).is_err());
            }
            Ok(())
        };
        let _stop = Stop(&stop);
        all()
    })?;
    assert!(lost > 0, "control: the other thread reaps");
    Ok(())
}

/// What dies in `the_host_dies_while_it_spawns`.
fn spawn_for_ever() -> Fallible<()> {
    // with a layer, so that there are mounts and trees to make
    let sandbox = host().mount(Mount::tmpfs("/tmp").bytes(belljar::Bytes::mib(1))).build()?;
    drop(sandbox.spawn(&sh("sleep 7770011 & sleep 7770011"))?);
    println!("running");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| while sandbox.spawn(&sh("sleep 7770011 & sleep 7770011")).is_ok() {});
        }
    });
    Ok(())
}

/// The other side of `the_host_dies`.
pub fn host_that_dies(pid_namespace: &str) -> Fallible<()> {
    if pid_namespace == "spawning" {
        return spawn_for_ever();
    }
    let builder = match pid_namespace {
        "new" => host(),
        _ => {
            host().mounts(Mounts::none().mount(Mount::dev("/dev"))).namespaces(Namespaces::isolated().pid(Pid::Inherit))
        }
    };
    let marker = if pid_namespace == "new" { "7770009" } else { "7770010" };
    let (_child, _lines) = ready(builder, &tree(marker))?;
    println!("running");
    std::thread::sleep(Duration::from_secs(60));
    Ok(())
}

fn threads_spawn_at_once() -> Fallible<()> {
    let sandbox = host().build()?;
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (sandbox, failed) = (&sandbox, &failed);
            scope.spawn(move || {
                for i in 0..25 {
                    let expected = format!("{thread}.{i} 0 1 2 3");
                    let script = format!("cd /proc/self/fd; echo {thread}.{i} *");
                    match prints(sandbox, &script) {
                        Ok(seen) if seen == expected => {}
                        other => failed.lock().expect("no test panics with it").push(format!("{other:?}")),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner()?;
    assert!(failed.is_empty(), "{failed:?}");
    Ok(())
}

fn payload_as_init() -> Fallible<()> {
    let sandbox = host().init(Init::Payload).build()?;
    assert_eq!(prints(&sandbox, "echo $$; cat /proc/1/comm")?, "1\nsh");
    let (mut child, _lines) = ready(host().init(Init::Payload), TRAP)?;
    child.signal(15)?;
    assert_eq!(child.wait()?.code(), Some(5));
    Ok(())
}

/// There is always somebody who can end it.
fn not_detached() -> Fallible<()> {
    let child = host().build()?.spawn(&sh("sleep 7771901"))?;
    let few = Exhausted::but(0)?;
    let error = refused(child.detach());
    drop(few);
    assert_eq!(error?.kind(), ErrorKind::LimitReached);
    assert!(gone_within("7771901", Duration::from_secs(1)));
    Ok(())
}
