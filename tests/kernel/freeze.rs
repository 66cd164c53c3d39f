//! Standing still, and what still holds then.

use crate::common::*;
use crate::harness::{Need, Test};
use belljar::{CgroupLimits, Child, ErrorKind, Init, KillScope, Mounts, Namespaces, Pid, Stdio, Verdict};
use std::io::{BufRead, BufReader, PipeReader};
use std::time::{Duration, Instant};

pub fn tests() -> Vec<Test> {
    const USER: &[Need] = &[Need::UserNamespaces];
    vec![
        Test::new("freeze::nobody_runs", USER, nobody_runs),
        Test::new("freeze::a_frozen_sandbox_is_killed", USER, a_frozen_sandbox_is_killed),
        Test::new("freeze::limits_hold", USER, limits_hold),
        Test::new("freeze::a_fork_bomb", USER, a_fork_bomb),
        Test::new("freeze::by_the_control_group", &[Need::UserNamespaces, Need::Groups], by_the_control_group),
        Test::new("freeze::refusals", USER, refusals),
        Test::new("freeze::a_shim_that_is_stopped", USER, a_shim_that_is_stopped),
    ]
}

fn counting() -> Fallible<(Child, BufReader<PipeReader>)> {
    // both a child and an orphan in a session of its own
    let script = "(setsid sh -c 'while :; do echo o; sleep 0.002; done' &); while :; do echo p; sleep 0.002; done";
    let mut command = sh(script);
    let mut child = host().build()?.spawn(command.stdout(Stdio::Piped))?;
    let lines = BufReader::new(child.stdout.take().ok_or("no stdout")?);
    Ok((child, lines))
}

/// How many bytes come within a time.
fn coming(lines: &BufReader<PipeReader>, within: Duration) -> Fallible<usize> {
    use std::os::fd::AsFd;
    let fd = lines.get_ref().as_fd();
    let start = belljar::sys::socket::readable_bytes(fd)?;
    std::thread::sleep(within);
    Ok(belljar::sys::socket::readable_bytes(fd)? - start)
}

fn nobody_runs() -> Fallible<()> {
    let (mut child, mut lines) = counting()?;
    lines.read_line(&mut String::new())?;
    let shim = child.id();
    {
        let _frozen = child.freeze()?;
        standstill(shim)?;
        assert_eq!(coming(&lines, Duration::from_millis(150))?, 0);
    }
    let mut seen = String::new();
    let start = Instant::now();
    while !(seen.contains('o') && seen.contains('p')) || coming(&lines, Duration::from_millis(20))? == 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "it does not go on");
        lines.read_line(&mut seen)?;
    }
    child.freeze()?.thaw()?;
    assert_ne!(coming(&lines, Duration::from_millis(500))?, 0);
    Ok(())
}

fn a_frozen_sandbox_is_killed() -> Fallible<()> {
    for scope in [KillScope::Tree, KillScope::Init] {
        let (mut child, _lines) = counting()?;
        let mut frozen = child.freeze()?;
        let start = Instant::now();
        frozen.child().kill(scope)?;
        assert_eq!(frozen.child().wait()?.verdict, Verdict::KilledByHandle);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        assert_kind_of(frozen.thaw(), ErrorKind::NotFound);
    }
    let (mut child, _lines) = counting()?;
    std::mem::forget(child.freeze()?);
    let start = Instant::now();
    drop(child);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    Ok(())
}

fn assert_kind_of<T: std::fmt::Debug>(result: belljar::Result<T>, kind: ErrorKind) {
    assert_eq!(result.expect_err("it was accepted").kind(), kind);
}

fn limits_hold() -> Fallible<()> {
    let sandbox = host().build()?;
    for grace in [Duration::ZERO, Duration::from_millis(100)] {
        let mut child = sandbox.spawn(sh("sleep 60").wall_time(Duration::from_millis(300)).grace(grace))?;
        let mut frozen = child.freeze()?;
        let exit = frozen.child().wait_timeout(Duration::from_secs(10))?.ok_or("it lives on")?;
        assert_eq!((exit.verdict, exit.signal()), (Verdict::WallTimeLimit, Some(9)));
    }
    Ok(())
}

/// Where the payload is PID 1.
fn by_the_control_group() -> Fallible<()> {
    let sandbox = host().init(Init::Payload).limits(crate::cgroup::limits().pids_max(50)).build()?;
    let mut command = sh("while :; do echo p; sleep 0.002; done");
    let mut child = sandbox.spawn(command.stdout(Stdio::Piped))?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?);
    lines.read_line(&mut String::new())?;
    let frozen = child.freeze()?;
    assert_eq!(coming(&lines, Duration::from_millis(150))?, 0);
    frozen.thaw()?;
    assert_ne!(coming(&lines, Duration::from_millis(500))?, 0);
    let mut frozen = child.freeze()?;
    let start = Instant::now();
    frozen.child().kill(KillScope::Tree)?;
    assert_eq!(frozen.child().wait()?.verdict, Verdict::KilledByHandle);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    drop(frozen);
    let mut child = sandbox.spawn(&sh("sleep 60"))?;
    std::mem::forget(child.freeze()?);
    let start = Instant::now();
    drop(child);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    Ok(())
}

/// Nobody slips through while forking.
fn a_fork_bomb() -> Fallible<()> {
    let mut command = sh("for i in 1 2 3 4 5 6 7 8; do (while :; do (:); done) & done; wait");
    let mut child = host().build()?.spawn(command.wall_time(Duration::from_secs(30)))?;
    std::thread::sleep(Duration::from_millis(100));
    for _ in 0..20 {
        let shim = child.id();
        let _frozen = child.freeze()?;
        assert!(standstill(shim)? >= 8);
        let cpu = || descendants_of(shim).iter().filter_map(|pid| ticks(*pid)).sum::<u64>();
        let before = cpu();
        std::thread::sleep(Duration::from_millis(10));
        assert_eq!(cpu(), before);
    }
    child.kill(KillScope::Tree)?;
    Ok(())
}

/// Waits until nobody below the shim runs, and says how many they are: a signal takes
/// effect at the next return from the kernel. In `D` a parent waits for its vfork child's exec.
fn standstill(shim: u32) -> Fallible<usize> {
    let start = Instant::now();
    loop {
        let states: Vec<_> = descendants_of(shim).into_iter().filter_map(state_of).collect();
        if states.iter().all(|state| matches!(state, 'T' | 'Z' | 'X' | 'D')) {
            return Ok(states.len());
        }
        if start.elapsed() > Duration::from_secs(2) {
            return Err(format!("they run: {states:?}").into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn descendants_of(pid: u32) -> Vec<u32> {
    let children = children_of(pid);
    children.iter().copied().chain(children.iter().flat_map(|child| descendants_of(*child))).collect()
}

fn ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn refusals() -> Fallible<()> {
    let builder = host().init(Init::Payload).limits(CgroupLimits::none());
    let mut child = builder.build()?.spawn(&sh("sleep 60"))?;
    assert_kind(&refused(child.freeze())?, ErrorKind::NotSupported);
    let child = host().build()?.spawn(&sh("sleep 60"))?;
    let mut entered = child.enter(&sh("sleep 60"))?;
    assert_kind(&refused(entered.freeze())?, ErrorKind::NotSupported);
    assert_eq!(entered.try_wait()?, None);
    let builder = host().mounts(Mounts::none()).namespaces(Namespaces::isolated().pid(Pid::Inherit));
    let mut child = builder.build()?.spawn(&sh("sleep 60"))?;
    assert_kind(&refused(child.freeze())?, ErrorKind::NotSupported);
    let mut child = host().build()?.spawn(&sh("true"))?;
    child.wait()?;
    assert_kind_of(child.freeze(), ErrorKind::NotFound);
    Ok(())
}

/// By somebody on the host: nothing waits for it without bound.
fn a_shim_that_is_stopped() -> Fallible<()> {
    use nix::sys::signal::{Signal, kill};
    let mut child = host().build()?.spawn(&sh("sleep 60"))?;
    kill(nix::unistd::Pid::from_raw(child.id() as i32), Signal::SIGSTOP)?;
    assert_kind(&refused(child.freeze())?, ErrorKind::Busy);
    for _ in 0..2000 {
        let _ = child.signal(10); // as many as the socket holds, and then an error
    }
    let start = Instant::now();
    child.kill(KillScope::Tree)?;
    assert_eq!(child.wait()?.verdict, Verdict::KilledByHandle);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    Ok(())
}
