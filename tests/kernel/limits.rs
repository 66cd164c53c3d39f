//! Limits of time: held by the shim, whether or not anybody waits.

use crate::common::*;
use crate::harness::{Need, Test};
use belljar::{CgroupLimits, Child, Command, ErrorKind, Init, Mounts, Namespaces, Pid, Stdio, Verdict};
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

pub fn tests() -> Vec<Test> {
    const USER: &[Need] = &[Need::UserNamespaces];
    vec![
        Test::new("limits::wall_time", USER, wall_time),
        Test::new("limits::wall_time_of_a_stopped_payload", USER, wall_time_of_a_stopped_payload),
        Test::new("limits::wall_time_without_a_waiter", USER, wall_time_without_a_waiter),
        Test::new("limits::grace", USER, grace),
        Test::new("limits::terminate", USER, terminate),
        Test::new("limits::cpu_time_of_one", USER, cpu_time_of_one),
        Test::new("limits::cpu_time_of_a_tree", USER, cpu_time_of_a_tree),
        Test::new("limits::cpu_time_of_short_lives", USER, cpu_time_of_short_lives),
        Test::new(
            "limits::cpu_time_that_nobody_reaps",
            &[Need::Groups, Need::Program("perl")],
            cpu_time_that_nobody_reaps,
        ),
        Test::new("limits::cpu_time_without_proc_or_pid_namespace", USER, cpu_time_without_proc),
        Test::new("limits::cpu_time_in_the_kernels_hands", USER, cpu_time_in_the_kernels_hands),
        Test::new("limits::a_limit_of_its_own_is_no_limit_of_ours", USER, own_limit),
        Test::new("limits::a_limit_wakes_nobody", USER, a_limit_wakes_nobody),
        Test::new("limits::refusals", &[], refusals),
    ]
}

const MS: Duration = Duration::from_millis(1);
/// For the shell to begin, also in a VM without hardware support.
const BEGIN: Duration = Duration::from_millis(800);
const BURN: &str = "while :; do :; done";

fn wall_time() -> Fallible<()> {
    let sandbox = host().build()?;
    let start = Instant::now();
    let exit = sandbox.status(sh("sleep 60 & sleep 60").wall_time(100 * MS))?;
    assert_eq!((exit.verdict, exit.signal()), (Verdict::WallTimeLimit, Some(9)));
    assert!(start.elapsed() >= 100 * MS && start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let exit = sandbox.status(sh("exit 3").wall_time(Duration::from_secs(60)))?;
    assert_eq!(exit.verdict, Verdict::Exited(3));
    let exit = sandbox.status(sh("exit 3").wall_time(Duration::MAX).grace(Duration::MAX))?;
    assert_eq!(exit.verdict, Verdict::Exited(3));
    // without a pid namespace too
    let sandbox = inherited().build()?;
    let exit = sandbox.status(sh("sleep 60 & sleep 60").wall_time(100 * MS))?;
    assert_eq!((exit.verdict, exit.signal()), (Verdict::WallTimeLimit, Some(9)));
    Ok(())
}

fn inherited() -> belljar::SandboxBuilder {
    host().mounts(Mounts::none()).namespaces(Namespaces::isolated().pid(Pid::Inherit))
}

fn wall_time_of_a_stopped_payload() -> Fallible<()> {
    let sandbox = host().build()?;
    for grace in [Duration::ZERO, Duration::from_secs(60)] {
        let exit = sandbox.status(sh("trap 'exit 6' TERM; kill -STOP $$").wall_time(BEGIN).grace(grace))?;
        assert_eq!(exit.verdict, Verdict::WallTimeLimit);
        let code = if grace.is_zero() { None } else { Some(6) };
        assert_eq!(exit.code(), code, "it is continued to hear SIGTERM");
    }
    Ok(())
}

fn wall_time_without_a_waiter() -> Fallible<()> {
    let sandbox = host().build()?;
    let mut child = sandbox.spawn(sh("sleep 7771001 & sleep 7771001").wall_time(100 * MS))?;
    assert!(gone_within("7771001", Duration::from_secs(10)));
    let exit = child.wait()?;
    assert_eq!(exit.verdict, Verdict::WallTimeLimit);
    // nor with a handle
    let child = sandbox.spawn(sh("sleep 7771002 & sleep 7771002").wall_time(100 * MS))?;
    let pidfd = belljar::sys::pidfd::PidFd::from(child.detach()?);
    assert!(pidfd.wait_exited(Some(Duration::from_secs(10)))?);
    pidfd.wait()?;
    assert!(gone_within("7771002", Duration::ZERO));
    belljar::sweep();
    Ok(())
}

const TRAP: &str = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done";
const DEAF: &str = "trap '' TERM; echo ready; while :; do sleep 0.01; done";

fn grace() -> Fallible<()> {
    let sandbox = host().build()?;
    let run = |script: &str, grace| sandbox.status(sh(script).wall_time(BEGIN).grace(grace));
    let exit = run(TRAP, Duration::from_secs(60))?;
    assert_eq!((exit.verdict, exit.code()), (Verdict::WallTimeLimit, Some(5)), "it ended when asked");
    let exit = run("exec sleep 60", Duration::from_secs(60))?;
    assert_eq!((exit.verdict, exit.signal()), (Verdict::WallTimeLimit, Some(15)));
    let start = Instant::now();
    let exit = run(DEAF, 200 * MS)?;
    assert_eq!((exit.verdict, exit.signal()), (Verdict::WallTimeLimit, Some(9)), "it ignored SIGTERM");
    assert!(start.elapsed() >= BEGIN + 200 * MS, "{:?}", start.elapsed());
    let exit = sandbox.status(sh(&format!("trap 'exit 5' TERM; {BURN}")).cpu_time(100 * MS).grace(60_000 * MS))?;
    assert_eq!((exit.verdict, exit.code()), (Verdict::CpuTimeLimit, Some(5)));
    Ok(())
}

fn ready(command: &mut belljar::Command, sandbox: &belljar::Sandbox) -> Fallible<Child> {
    let mut child = sandbox.spawn(command.stdout(Stdio::Piped))?;
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().ok_or("no stdout")?).read_line(&mut line)?;
    assert_eq!(line, "ready\n");
    Ok(child)
}

fn terminate() -> Fallible<()> {
    let sandbox = host().build()?;
    let mut child = ready(&mut sh(TRAP), &sandbox)?;
    child.terminate(Duration::from_secs(60))?;
    let exit = child.wait()?;
    assert_eq!((exit.verdict, exit.code()), (Verdict::KilledByHandle, Some(5)));
    child.terminate(Duration::from_secs(60))?; // it has ended
    let mut child = ready(&mut sh(DEAF), &sandbox)?;
    child.terminate(Duration::from_secs(60))?;
    assert_eq!(child.wait_timeout(100 * MS)?, None);
    child.terminate(50 * MS)?; // sooner
    let exit = child.wait_timeout(Duration::from_secs(10))?.ok_or("it lives on")?;
    assert_eq!((exit.verdict, exit.signal()), (Verdict::KilledByHandle, Some(9)));
    let mut child = ready(&mut sh(DEAF), &sandbox)?;
    child.terminate(Duration::ZERO)?;
    assert_eq!(child.wait()?.verdict, Verdict::KilledByHandle);
    let mut child = host().init(Init::Payload).build()?.spawn(&sh("sleep 60"))?;
    assert_kind(&refused(child.terminate(MS))?, ErrorKind::NotSupported);
    Ok(())
}

fn cpu(exit: &belljar::Exit) -> Duration {
    exit.usage.user.unwrap_or_default() + exit.usage.system.unwrap_or_default()
}

/// Asserts that a limit was held, by the kernel's own account.
fn assert_held(exit: &belljar::Exit, limit: Duration) {
    assert_eq!(exit.verdict, Verdict::CpuTimeLimit, "{exit:?}");
    let used = cpu(exit);
    assert!(used >= limit - 10 * MS && used < limit + 250 * MS, "{used:?} of {limit:?}");
}

fn cpu_time_of_one() -> Fallible<()> {
    let limit = 200 * MS;
    let exit = host().build()?.status(sh(BURN).cpu_time(limit))?;
    assert_held(&exit, limit);
    Ok(())
}

fn cpu_time_of_a_tree() -> Fallible<()> {
    let limit = 400 * MS;
    // four that burn while the payload sleeps, one of them an orphan; none uses the limit alone
    let script = format!("for i in 1 2 3; do ({BURN}) & done; (setsid sh -c '{BURN}' &); exec sleep 60");
    let exit = host().build()?.status(sh(&script).cpu_time(limit))?;
    assert_held(&exit, limit);
    Ok(())
}

fn cpu_time_of_short_lives() -> Fallible<()> {
    let limit = 300 * MS;
    let script = "while :; do sh -c 'i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done'; done";
    let exit = host().build()?.status(sh(script).cpu_time(limit))?;
    assert_held(&exit, limit);
    Ok(())
}

/// Children that vanish with what they used, for their parent ignores SIGCHLD: a control
/// group counts them all the same. One at a time, so that the living never have used the limit.
fn cpu_time_that_nobody_reaps() -> Fallible<()> {
    let script = "$SIG{CHLD} = 'IGNORE'; \
                  while (1) { if (fork) { wait } else { $i = 0; $i++ while $i < 100000; exit } }";
    let run = |limits: CgroupLimits, cpu, wall| {
        let mut command = Command::new("perl");
        command.arg("-e").arg(script).cpu_time(cpu).wall_time(wall);
        host().limits(limits).build().and_then(|sandbox| sandbox.status(&command))
    };
    let exit = run(crate::cgroup::limits(), 400 * MS, Duration::from_secs(60))?;
    assert_eq!(exit.verdict, Verdict::CpuTimeLimit, "{exit:?}");
    // control: the same is not to be seen without, but for what the forks take of the parent's time
    let exit = run(CgroupLimits::none(), 1000 * MS, 1500 * MS)?;
    assert_eq!(exit.verdict, Verdict::WallTimeLimit, "{exit:?}");
    Ok(())
}

fn cpu_time_without_proc() -> Fallible<()> {
    let limit = 200 * MS;
    // the host's root brings its /proc, which is not the sandbox's
    let exit = host().mounts(Mounts::none()).build()?.status(sh(BURN).cpu_time(limit))?;
    assert_held(&exit, limit);
    let exit = inherited().build()?.status(sh(BURN).cpu_time(limit))?;
    assert_held(&exit, limit);
    Ok(())
}

/// RLIMIT_CPU holds when the shim does not get to run.
fn cpu_time_in_the_kernels_hands() -> Fallible<()> {
    use nix::sys::signal::{Signal, kill};
    let sandbox = host().build()?;
    assert_eq!(prints_with(&sandbox, sh("ulimit -St; ulimit -Ht").cpu_time(900 * MS))?, "2\n3");
    let mut child = sandbox.spawn(sh(&format!("ulimit -c 0; {BURN}")).cpu_time(500 * MS))?;
    let shim = nix::unistd::Pid::from_raw(child.id() as i32);
    kill(shim, Signal::SIGSTOP)?;
    std::thread::sleep(200 * MS);
    let payload = children_of(child.id());
    let [payload] = payload[..] else { return Err(format!("children: {payload:?}").into()) };
    let start = Instant::now();
    while state_of(payload) != Some('Z') {
        assert!(start.elapsed() < Duration::from_secs(60), "the kernel does not end it");
        std::thread::sleep(20 * MS);
    }
    kill(shim, Signal::SIGCONT)?;
    let exit = child.wait()?;
    assert_eq!((exit.verdict, exit.signal()), (Verdict::CpuTimeLimit, Some(24)), "SIGXCPU, {:?}", exit.usage);
    assert!(cpu(&exit) >= 1500 * MS, "{:?}", exit.usage);
    Ok(())
}

fn prints_with(sandbox: &belljar::Sandbox, command: &mut belljar::Command) -> Fallible<String> {
    Ok(String::from_utf8(sandbox.output(command)?.stdout)?.trim_end().to_owned())
}

fn own_limit() -> Fallible<()> {
    let exit = host().build()?.status(&sh(&format!("ulimit -c 0; ulimit -St 1; {BURN}")))?;
    assert_eq!(exit.verdict, Verdict::Signaled(24));
    Ok(())
}

/// The shim of a sandbox that does nothing does next to nothing, whatever its limits.
fn a_limit_wakes_nobody() -> Fallible<()> {
    let sandbox = host().build()?;
    let mut all = sh("sleep 60");
    all.wall_time(Duration::from_secs(60)).cpu_time(Duration::from_secs(60));
    let mut spent = sh("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 60");
    spent.cpu_time(200 * MS);
    for (command, most) in [(sh("sleep 60"), 2), (all, 4), (spent, 300)] {
        let child = sandbox.spawn(&command)?;
        std::thread::sleep(500 * MS);
        let before = wakeups(child.id())?;
        std::thread::sleep(Duration::from_secs(1));
        let woken = wakeups(child.id())? - before;
        assert!(woken <= most, "{woken} wakeups in a second, of {most}: {command:?}");
    }
    Ok(())
}

/// How often a process has waited and gone on.
fn wakeups(pid: u32) -> Fallible<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    Ok(line.ok_or("no voluntary_ctxt_switches")?.trim().parse()?)
}

fn refusals() -> Fallible<()> {
    let sandbox = host().init(Init::Payload).build()?;
    for command in [sh("true").wall_time(MS), sh("true").cpu_time(MS)] {
        let error = refused(sandbox.spawn(command))?;
        assert_kind(&error, ErrorKind::InvalidSpec);
        assert!(error.to_string().contains("Init::Shim"), "{error}");
    }
    let sandbox = host().build()?;
    let error = refused(sandbox.spawn(sh("true").wall_time(Duration::ZERO).cpu_time(MS / 2)))?;
    assert_eq!(error.defects().len(), 2, "{error}");
    Ok(())
}
