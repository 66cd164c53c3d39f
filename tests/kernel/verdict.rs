//! Why a sandbox ended, as the kernel and our own record tell it.

use crate::common::*;
use crate::harness::{Need, Test};
use belljar::{
    Bytes, Command, Exit, Init, KillScope, Sandbox, Seccomp, SeccompAction, SeccompProfile, Security, Verdict,
};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub fn tests() -> Vec<Test> {
    const USER: &[Need] = &[Need::UserNamespaces];
    vec![
        Test::new("verdict::signals_of_its_own_are_no_kill_of_ours", USER, own_signals),
        Test::new("verdict::a_filter_that_kills", USER, a_filter_that_kills),
        Test::new("verdict::mixed_endings", USER, mixed_endings),
        Test::new("verdict::the_host_died", USER, the_host_died),
    ]
}

fn own_signals() -> Fallible<()> {
    for init in [Init::Shim, Init::Payload] {
        let sandbox = host().init(init).build()?;
        assert_eq!(sandbox.status(&sh("exit 137"))?.verdict, Verdict::Exited(137));
        for scope in [KillScope::Init, KillScope::Tree] {
            let mut child = sandbox.spawn(&sh("sleep 60 & sleep 60"))?;
            child.kill(scope)?;
            assert_eq!(child.wait()?.verdict, Verdict::KilledByHandle, "{init:?} {scope:?}");
            // one that has exited before is not killed
            let mut child = sandbox.spawn(&sh("exit 3"))?;
            child.wait_timeout(std::time::Duration::from_secs(10))?;
            child.kill(scope)?;
            assert_eq!(child.wait()?.verdict, Verdict::Exited(3), "{init:?} {scope:?}");
        }
        let child = sandbox.spawn(&sh("sleep 60"))?;
        child.signal(9)?;
        let mut child = child;
        assert_eq!(child.wait()?.verdict, Verdict::KilledByHandle, "{init:?}");
    }
    // SIGSYS, where no filter can have sent it
    let sandbox = host().security(Security::new().seccomp(Seccomp::Unconfined)).build()?;
    for signal in [9, 15, 24, 31] {
        let exit = sandbox.status(&sh(&format!("ulimit -c 0; kill -{signal} $$; sleep 60")))?;
        assert_eq!(exit.verdict, Verdict::Signaled(signal));
    }
    Ok(())
}

/// A filter for which making a directory is death.
fn deadly() -> Security {
    let profile = SeccompProfile::otherwise(SeccompAction::Allow).set(["mkdir", "mkdirat"], SeccompAction::Kill);
    Security::new().seccomp(Seccomp::Custom(profile))
}

fn a_filter_that_kills() -> Fallible<()> {
    let sandbox = host().security(deadly()).build()?;
    let exit = sandbox.status(&sh("ulimit -c 0; exec mkdir /tmp/x"))?;
    assert_eq!((exit.verdict, exit.signal()), (Verdict::SeccompKilled, Some(31)));
    // a child of the payload is not the payload
    let exit = sandbox.status(&sh("ulimit -c 0; mkdir /tmp/x; exit $(($? == 159 ? 4 : 5))"))?;
    assert_eq!(exit.verdict, Verdict::Exited(4));
    assert_eq!(sandbox.status(&sh("kill -9 $$"))?.verdict, Verdict::Signaled(9));
    Ok(())
}

/// Many runs that end in every way, also in two ways at once: none is told wrongly. 400, or
/// as many as `BELLJAR_TEST_RUNS` says.
fn mixed_endings() -> Fallible<()> {
    let runs: u64 = std::env::var("BELLJAR_TEST_RUNS").ok().map_or(Ok(400), |runs| runs.parse())?;
    let plain = host().build()?;
    let deadly = host().security(deadly()).build()?;
    let alone = host().init(Init::Payload).build()?;
    // where the host lets groups be made
    let small = Need::Groups.probe().is_ok().then(|| {
        let limits = crate::cgroup::limits().memory_max(Bytes::mib(16));
        host().limits(limits).build()
    });
    let small = small.transpose()?;
    let next = AtomicU64::new(0);
    let wrong = Mutex::new(Vec::new());
    let seen = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= runs {
                        return;
                    }
                    let said = match ending(number, &plain, &deadly, &alone, small.as_ref()) {
                        Ok((exit, allowed)) if allowed.contains(&(exit.verdict, exit.code(), exit.signal())) => {
                            let name = format!("{:?}", exit.verdict);
                            let name = name.split('(').next().unwrap_or_default().to_owned();
                            *seen.lock().expect("nobody panics with it").entry(name).or_insert(0u64) += 1;
                            continue;
                        }
                        Ok((exit, allowed)) => format!("run {number}: {exit:?}, not one of {allowed:?}"),
                        Err(error) => format!("run {number}: {error}"),
                    };
                    wrong.lock().expect("nobody panics with it").push(said);
                }
            });
        }
    });
    let (wrong, seen) = (wrong.into_inner()?, seen.into_inner()?);
    assert!(wrong.is_empty(), "{} of {runs} runs: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    assert_eq!(seen.len(), if small.is_some() { 8 } else { 7 }, "{seen:?}");
    if runs > 400 {
        println!("{runs} runs, none misclassified: {seen:?}");
    }
    Ok(())
}

type Ending = (Verdict, Option<i32>, Option<i32>);

/// One run, and what may truly be said of its end.
fn ending(
    number: u64,
    plain: &Sandbox,
    deadly: &Sandbox,
    alone: &Sandbox,
    small: Option<&Sandbox>,
) -> Fallible<(Exit, Vec<Ending>)> {
    const MS: Duration = Duration::from_millis(1);
    let chance = |n: u64| (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) % n;
    let killed = |verdict| (verdict, None, Some(9));
    let exited = |code| (Verdict::Exited(code), Some(code), None);
    let scope = if chance(2) == 0 { KillScope::Tree } else { KillScope::Init };
    let kill_after = |sandbox: &Sandbox, command: &Command, delay| -> Fallible<Exit> {
        let mut child = sandbox.spawn(command)?;
        std::thread::sleep(delay);
        child.kill(scope)?;
        Ok(child.wait()?)
    };
    let code = chance(256) as i32;
    let some_time = Duration::from_micros(chance(6000));
    let exit = sh(&format!("exit {code}"));
    if let (Some(small), 16) = (small, number % 17) {
        // one that reads a line without end into its memory; and one that is killed beside it
        return Ok(match chance(4) {
            0 => (small.status(&sh("kill -9 $$"))?, vec![killed(Verdict::Signaled(9))]),
            1 => (kill_after(small, &sh("exec sleep 60"), some_time)?, vec![killed(Verdict::KilledByHandle)]),
            _ => (small.status(&sh("exec tail /dev/zero"))?, vec![killed(Verdict::OomKilled)]),
        });
    }
    Ok(match number % 17 % 16 {
        0 => (plain.status(&exit)?, vec![exited(code)]),
        1 => {
            let signal = [1, 2, 3, 6, 9, 11, 15, 34][chance(8) as usize];
            let exit = plain.status(&sh(&format!("ulimit -c 0; kill -{signal} $$; sleep 60")))?;
            (exit, vec![(Verdict::Signaled(signal), None, Some(signal))])
        }
        2 => (kill_after(plain, &sh("sleep 60 & exec sleep 60"), some_time)?, vec![killed(Verdict::KilledByHandle)]),
        3 => {
            let exit = plain.status(sh("exec sleep 60").wall_time(5 * MS + some_time))?;
            (exit, vec![killed(Verdict::WallTimeLimit)])
        }
        4 => {
            let exit = plain.status(sh("while :; do :; done").cpu_time(MS + some_time))?;
            (exit, vec![killed(Verdict::CpuTimeLimit)])
        }
        5 => {
            let output = plain.output(sh("exec yes").output_max(Bytes::new(chance(5000))))?;
            (output.exit, vec![killed(Verdict::OutputLimit)])
        }
        6 => {
            let exit = deadly.status(&sh("ulimit -c 0; exec mkdir /tmp/x"))?;
            (exit, vec![(Verdict::SeccompKilled, None, Some(31))])
        }
        // exits by itself just when it is killed
        7 => (kill_after(plain, &exit, some_time / 4)?, vec![exited(code), killed(Verdict::KilledByHandle)]),
        // or when its time is over
        8 => {
            let limit = MS + some_time / 2;
            let exit = plain.status(sh(&format!("sleep 0.00{}; exit {code}", chance(5))).wall_time(limit))?;
            (exit, vec![exited(code), killed(Verdict::WallTimeLimit)])
        }
        // or kills itself
        9 => {
            let exit = kill_after(plain, &sh("kill -9 $$"), some_time / 4)?;
            (exit, vec![killed(Verdict::Signaled(9)), killed(Verdict::KilledByHandle)])
        }
        10 => {
            let child = plain.spawn(&sh("exec sleep 60"))?;
            child.signal(9)?;
            let mut child = child;
            (child.wait()?, vec![killed(Verdict::KilledByHandle)])
        }
        11 => {
            let script = format!("trap 'exit {code}' TERM; while :; do sleep 0.001; done");
            let exit = plain.status(sh(&script).wall_time(10 * MS + some_time).grace(Duration::from_secs(60)))?;
            // SIGTERM comes before the trap is set, on a busy machine
            (exit, vec![(Verdict::WallTimeLimit, Some(code), None), (Verdict::WallTimeLimit, None, Some(15))])
        }
        12 => {
            let exit =
                plain.status(sh("trap '' TERM; while :; do sleep 0.01; done").wall_time(5 * MS).grace(5 * MS))?;
            (exit, vec![killed(Verdict::WallTimeLimit), (Verdict::WallTimeLimit, None, Some(15))])
        }
        13 => (alone.status(&exit)?, vec![exited(code)]),
        14 => (kill_after(alone, &sh("exec sleep 60"), some_time)?, vec![killed(Verdict::KilledByHandle)]),
        _ => (kill_after(alone, &exit, some_time / 4)?, vec![exited(code), killed(Verdict::KilledByHandle)]),
    })
}

/// A host that becomes a daemon after it has spawned: the process that spawned is gone, and
/// the one that goes on holds the handle.
fn the_host_died() -> Fallible<()> {
    let output = std::process::Command::new(std::env::current_exe()?).env("BELLJAR_TEST_DAEMON", "1").output()?;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "HostDied None Some(9)\n", "{output:?}");
    Ok(())
}

/// The other side of `the_host_died`.
pub fn daemon() -> Fallible<()> {
    let mut child = host().build()?.spawn(&sh("sleep 60 & sleep 60"))?;
    nix::unistd::daemon(true, true)?;
    let exit = child.wait_timeout(Duration::from_secs(10))?.ok_or("it lives on")?;
    println!("{:?} {:?} {:?}", exit.verdict, exit.code(), exit.signal());
    Ok(())
}
