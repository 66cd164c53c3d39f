//! How a payload is scheduled: what is asked for is seen inside, and nothing better than ordinary is inherited.

use crate::common::*;
use crate::harness::{Need, Test};
use belljar::{
    Capabilities, Capability, Command, Enforced, ErrorKind, Init, IoPriority, Namespaces, Sandbox, SchedPolicy,
    Schedule, Security, User,
};
use std::time::Duration;

pub fn tests() -> Vec<Test> {
    const USER: &[Need] = &[Need::UserNamespaces];
    vec![
        Test::new(
            "schedule::is_seen_inside",
            &[Need::UserNamespaces, Need::OrdinaryPriority, Need::Program("ionice")],
            is_seen_inside,
        ),
        Test::new("schedule::more_than_the_host_gives", USER, more_than_the_host_gives),
        Test::new("schedule::what_the_host_may_give", &[Need::Root, Need::Program("chrt")], what_the_host_may_give),
        Test::new("schedule::values_out_of_range", USER, values_out_of_range),
        Test::new("schedule::enforcement", USER, enforcement),
        Test::new(
            "schedule::nothing_better_than_ordinary_is_inherited",
            &[Need::Root, Need::UserNamespaces, Need::OrdinaryPriority, Need::Program("chrt"), Need::Program("ionice")],
            nothing_better_is_inherited,
        ),
        Test::new(
            "schedule::spared_when_memory_runs_out",
            &[Need::Root, Need::UserNamespaces, Need::SysResource, Need::Program("choom")],
            spared_when_memory_runs_out,
        ),
    ]
}

/// Policy (0 other, 1 fifo, 2 rr, 3 batch, 5 idle, 6 deadline), nice value, oom_score_adj, I/O priority. The shell
/// itself is asked, not a child of it.
const SHOW: &str = "read stat < /proc/$$/stat; set -- $stat; echo ${41} ${19}; read score < /proc/$$/oom_score_adj; \
                    echo $score; ionice -p $$";

fn background() -> Schedule {
    Schedule::standard().policy(SchedPolicy::Batch).nice(10).io_priority(IoPriority::BestEffort(6)).oom_score_adj(500)
}

fn is_seen_inside() -> Fallible<()> {
    const CPUS: &str = "; grep Cpus_allowed_list /proc/$$/status | cut -f2; umask";
    let seen = "3 10\n500\nbest-effort: prio 6\n0\n0077\n";
    let command = || {
        let mut command = sh(&format!("{SHOW}{CPUS}"));
        command.schedule(background().cpus([0])).umask(0o077);
        command
    };
    for init in [Init::Shim, Init::Payload] {
        assert_eq!(text(&host().init(init).build()?.output(&command())?), seen, "{init:?}");
    }
    // for a process that enters it is its own
    let child = host().build()?.spawn(&sh("sleep 60"))?;
    let output = child.enter(command().stdout(belljar::Stdio::Piped))?.wait_with_output()?;
    assert_eq!(text(&output), seen);
    let output = child.enter(sh("read score < /proc/1/oom_score_adj; echo $score").stdout(belljar::Stdio::Piped))?;
    assert_eq!(text(&output.wait_with_output()?), "0\n", "PID 1 keeps its own");
    // control: what is there without
    let plain = prints(&host().build()?, SHOW)?;
    assert!(!plain.starts_with("3 10\n500"), "{plain}");
    // idle, and the idle class
    let mut command = sh(SHOW);
    command.schedule(Schedule::standard().policy(SchedPolicy::Idle).io_priority(IoPriority::Idle));
    assert!(text(&host().build()?.output(&command)?).starts_with("5 0\n0\nidle"));
    let explained = host().build()?.explain(sh("true").schedule(background().cpus([0])).umask(0))?.to_string();
    for line in ["schedule as batch, nice 10", "I/O priority best effort, level 6", "run on CPU 0", "oom_score_adj 500"]
    {
        assert!(explained.contains(line), "{explained}");
    }
    Ok(())
}

/// A user namespace gives no power over the others of the machine: an error of spawn, that names the step.
fn more_than_the_host_gives() -> Fallible<()> {
    let new = Schedule::standard;
    let sandbox = host().build()?;
    let all = Security::new().capabilities(Capabilities::keep(Capability::ALL.iter().copied()));
    let with_all = host().security(all).build()?;
    for (schedule, step, kind) in [
        (new().policy(SchedPolicy::Fifo(1)), "schedule", ErrorKind::NotPermitted),
        (new().policy(SchedPolicy::RoundRobin(99)), "schedule", ErrorKind::NotPermitted),
        (new().nice(-5), "schedule", ErrorKind::NotPermitted),
        (new().io_priority(IoPriority::RealTime(0)), "io-priority", ErrorKind::NotPermitted),
        (new().oom_score_adj(-500), "oom-score-adj", ErrorKind::NotPermitted),
        (new().cpus([0, 8191]), "cpus", ErrorKind::InvalidSpec),
    ] {
        for sandbox in [&sandbox, &with_all] {
            let error = refused(sandbox.spawn(sh("true").schedule(schedule.clone())))?;
            assert_kind(&error, kind);
            assert_eq!(error.step().map(|step| step.name()), Some(step), "{error}");
        }
        let child = sandbox.spawn(&sh("sleep 60"))?;
        let error = refused(child.enter(sh("true").schedule(schedule)))?;
        assert_kind(&error, kind);
    }
    // without a /proc there is no file to write
    let bare = host().mounts(belljar::Mounts::none().mount(belljar::Mount::mask("/proc"))).build()?;
    let error = refused(bare.spawn(sh("true").schedule(new().oom_score_adj(5))))?;
    assert_kind(&error, ErrorKind::NotFound);
    Ok(())
}

/// Root without a user namespace of the sandbox's own.
fn what_the_host_may_give() -> Fallible<()> {
    let sandbox = host().namespaces(Namespaces::isolated().user(User::Inherit)).build()?;
    let new = Schedule::standard;
    let millis = Duration::from_millis;
    let deadline = SchedPolicy::Deadline { runtime: millis(1), deadline: millis(50), period: millis(100) };
    for (schedule, seen) in [
        (new().policy(SchedPolicy::Fifo(3)), "1 3"),
        (new().policy(SchedPolicy::RoundRobin(4)), "2 4"),
        (new().policy(deadline), "6 0"),
        (new().nice(-5), "0 0"),
    ] {
        let mut command = sh("read stat < /proc/$$/stat; set -- $stat; echo ${41} ${40}");
        assert_eq!(text(&sandbox.output(command.schedule(schedule))?), format!("{seen}\n"));
    }
    Ok(())
}

/// To lower `oom_score_adj`, and what is inherited of a negative one.
fn spared_when_memory_runs_out() -> Fallible<()> {
    let sandbox = host().namespaces(Namespaces::isolated().user(User::Inherit)).build()?;
    let mut command = sh("read score < /proc/$$/oom_score_adj; echo $score");
    assert_eq!(text(&sandbox.output(command.schedule(Schedule::standard().oom_score_adj(-500)))?), "-500\n");
    let said = run_anew(&["choom", "-n", "-500", "--"])?;
    assert_eq!(scores(&said), ["0", "0", "-500", "-500"], "{said}");
    Ok(())
}

fn values_out_of_range() -> Fallible<()> {
    let sandbox = host().build()?;
    let schedule = Schedule::standard().policy(SchedPolicy::Fifo(0)).nice(20).cpus([]).oom_score_adj(1001);
    let error = refused(sandbox.spawn(sh("true").schedule(schedule).umask(0o1000)))?;
    assert_kind(&error, ErrorKind::InvalidSpec);
    assert_eq!(error.defects().len(), 5, "{error}");
    Ok(())
}

fn enforcement() -> Fallible<()> {
    let sandbox = host().build()?;
    for name in ["umask", "ordinary-priority"] {
        assert_eq!(sandbox.enforcement().get(name).map(|one| one.enforced), Some(Enforced::Yes), "{name}");
    }
    assert_eq!(sandbox.spawn(&sh("true"))?.enforcement().opted_out().count(), 0);
    let mut command = sh("true");
    command.schedule(Schedule::inherited()).umask(0).directory_fd(5, std::fs::File::open("/usr")?);
    let report = sandbox.spawn(&command)?.enforcement();
    let names: Vec<_> = report.opted_out().map(|one| one.name).collect();
    assert_eq!(names, ["umask", "ordinary-priority", "directory-descriptors"], "{report}");
    Ok(())
}

/// A daemon of the host may run before all others: not what it starts here.
fn nothing_better_is_inherited() -> Fallible<()> {
    for (policy, control) in [(["chrt", "--fifo", "7"], "1 0"), (["nice", "-n", "-5"], "0 -5")] {
        let said = run_anew(&[&["ionice", "-c", "1", "-n", "3"], &policy[..]].concat())?;
        let lines: Vec<_> = said.lines().collect();
        let [ordinary, _, io, _, inherited, _, inherited_io, _] = lines[..] else { return Err(said.into()) };
        assert_eq!((ordinary, inherited), ("0 0", control), "{said}");
        assert!(io.starts_with("none") && inherited_io == "realtime: prio 3", "{said}");
    }
    Ok(())
}

/// This program once more, by these words.
fn run_anew(by: &[&str]) -> Fallible<String> {
    let mut command = std::process::Command::new(by[0]);
    let command = command.args(&by[1..]).arg(std::env::current_exe()?).env("BELLJAR_TEST_PRIORITY", "1");
    let output = command.output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

/// The scores of payload and PID 1, by default and inherited.
fn scores(said: &str) -> Vec<&str> {
    said.lines().enumerate().filter(|(at, _)| at % 2 == 1).map(|(_, line)| line).collect()
}

/// What `nothing_better_is_inherited` and others run anew: the default, and the opt-out.
pub fn with_priority() -> Fallible<()> {
    const PID_1: &str = "; read score < /proc/1/oom_score_adj; echo $score";
    let show = |sandbox: &Sandbox, schedule: Schedule| -> Fallible<()> {
        let mut command: Command = sh(&format!("{SHOW}{PID_1}"));
        print!("{}", text(&sandbox.output(command.schedule(schedule))?));
        Ok(())
    };
    let sandbox = host().build()?;
    show(&sandbox, Schedule::standard())?;
    show(&sandbox, Schedule::inherited())
}
