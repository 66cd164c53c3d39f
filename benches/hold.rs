//! What it costs to hold a sandbox: how soon and how often `wait` wakes, what a shim does
//! while nothing happens, and how fast another process enters.
//!
//! ```text
//! cargo bench --bench hold [-- --rounds N]
//! ```
//! Prints Markdown, in less than half a minute on two cores.

#[allow(dead_code)] // its other users are in the benchmark beside this one
#[path = "spawn/stats.rs"]
mod stats;

use belljar::{Child, Command, KillScope, RootFs, Sandbox, Stdio};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use stats::{Sample, micros, value};
use std::error::Error;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

type Fallible<T> = Result<T, Box<dyn Error>>;

/// As many end at once.
const CROWD: usize = 100;

fn main() -> Fallible<()> {
    let mut rounds = 200;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bench" => {} // cargo's own
            "--rounds" => rounds = args.next().ok_or("--rounds takes a number")?.parse()?,
            other => return Err(format!("unknown argument {other:?}").into()),
        }
    }
    let sandbox = Sandbox::builder(RootFs::host()).build()?;
    println!("# hold\n\n{}. `cargo bench --bench hold`\n", stats::machine());
    wait(&sandbox, rounds)?;
    crowd(&sandbox)?;
    idle(&sandbox)?;
    enter(&sandbox, rounds)
}

/// A payload that ends when its standard input does.
fn reader(sandbox: &Sandbox) -> Fallible<Child> {
    Ok(sandbox.spawn(Command::new("/bin/cat").stdin(Stdio::Piped))?)
}

fn switches(path: &str) -> Fallible<u64> {
    Ok(value(&std::fs::read_to_string(path)?, "voluntary_ctxt_switches:").ok_or("no voluntary_ctxt_switches")?)
}

fn wait(sandbox: &Sandbox, rounds: usize) -> Fallible<()> {
    let (mut by_itself, mut killed) = (Sample::default(), Sample::default());
    let mut wakeups = 0;
    for _ in 0..rounds {
        let mut child = reader(sandbox)?;
        let before = switches("/proc/thread-self/status")?;
        let start = Instant::now();
        let exit = child.wait()?; // closes the pipe first
        by_itself.push(micros(start.elapsed()));
        wakeups += switches("/proc/thread-self/status")? - before;
        if !exit.success() {
            return Err(format!("the payload {exit}").into());
        }
        let mut child = reader(sandbox)?;
        let start = Instant::now();
        child.kill(KillScope::Tree)?;
        child.wait()?;
        killed.push(micros(start.elapsed()));
    }
    println!("## The end of one, to the return of `wait`: microseconds\n");
    println!("| | median | p99 | wakeups of the waiting thread |\n| --- | ---: | ---: | ---: |");
    let each = wakeups as f64 / rounds as f64;
    println!("| its input ends, it exits | {:.0} | {:.0} | {each:.2} |", by_itself.median(), by_itself.p99());
    println!("| `kill(KillScope::Tree)` | {:.0} | {:.0} | |\n", killed.median(), killed.p99());
    Ok(())
}

/// All end at once, and one thread with one poll(2) waits for them.
fn crowd(sandbox: &Sandbox) -> Fallible<()> {
    let mut children = (0..CROWD).map(|_| reader(sandbox)).collect::<Fallible<Vec<_>>>()?;
    let before = switches("/proc/thread-self/status")?;
    let start = Instant::now();
    children.iter_mut().for_each(|child| child.stdin = None);
    let mut wakeups = 0;
    while !children.is_empty() {
        let mut fds: Vec<_> = children.iter().map(|child| PollFd::new(child.as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut fds, PollTimeout::NONE)?;
        wakeups += 1;
        let ended: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        let mut ended = ended.into_iter();
        let mut failed = None;
        children.retain_mut(|child| {
            if ended.next() != Some(true) {
                return true;
            }
            match child.try_wait() {
                Ok(exit) => exit.is_none(),
                Err(error) => {
                    failed = Some(error);
                    false
                }
            }
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
    }
    let (time, slept) = (start.elapsed(), switches("/proc/thread-self/status")? - before);
    println!("## {CROWD} end at once, one thread polls their pidfds\n");
    println!("| ends a second | microseconds each | returns of poll | sleeps of the thread |");
    println!("| ---: | ---: | ---: | ---: |");
    let each = micros(time) / CROWD as f64;
    println!("| {:.0} | {each:.0} | {wakeups} | {slept} |\n", 1e6 / each);
    Ok(())
}

/// What the shim does for a payload that sleeps.
fn idle(sandbox: &Sandbox) -> Fallible<()> {
    const SPAN: Duration = Duration::from_secs(3);
    let sleep = |script: &str| {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script);
        command
    };
    let mut wall = sleep("exec sleep 60");
    wall.wall_time(Duration::from_secs(60));
    let mut cpu = sleep("exec sleep 60");
    cpu.cpu_time(Duration::from_secs(60));
    let mut spent = sleep("i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; exec sleep 60");
    spent.cpu_time(Duration::from_millis(150));
    println!("## Wakeups of an idle shim\n\n| limit | a second |\n| --- | ---: |");
    let plain = sleep("exec sleep 60");
    let rows = [("none", plain), ("wall_time", wall), ("cpu_time, 60 s left", cpu), ("cpu_time, nearly spent", spent)];
    let children = rows.iter().map(|(_, command)| sandbox.spawn(command)).collect::<Result<Vec<_>, _>>()?;
    std::thread::sleep(Duration::from_secs(1));
    let count = |child: &Child| switches(&format!("/proc/{}/status", child.id()));
    let before = children.iter().map(count).collect::<Fallible<Vec<_>>>()?;
    std::thread::sleep(SPAN);
    for ((name, _), (child, before)) in rows.iter().zip(children.iter().zip(before)) {
        let rate = (count(child)? - before) as f64 / SPAN.as_secs_f64();
        println!("| {name} | {rate:.1} |");
    }
    println!();
    Ok(())
}

/// Another process in a running sandbox, beside a sandbox for each.
fn enter(sandbox: &Sandbox, rounds: usize) -> Fallible<()> {
    let running = sandbox.spawn(Command::new("/bin/sleep").arg("60"))?;
    let command = Command::new("/bin/true");
    let (mut entered, mut spawned) = (Sample::default(), Sample::default());
    for _ in 0..rounds {
        let start = Instant::now();
        let exit = running.enter(&command)?.wait()?;
        entered.push(micros(start.elapsed()));
        let start = Instant::now();
        let other = sandbox.status(&command)?;
        spawned.push(micros(start.elapsed()));
        if !exit.success() || !other.success() {
            return Err(format!("the payloads {exit}, {other}").into());
        }
    }
    println!(
        "## Run `/bin/true` and wait for it: microseconds\n\n| | median | p99 | a second |\n| --- | ---: | ---: | ---: |"
    );
    for (name, sample) in [("`Child::enter`", entered), ("`Sandbox::spawn`", spawned)] {
        println!("| {name} | {:.0} | {:.0} | {:.0} |", sample.median(), sample.p99(), 1e6 / sample.median());
    }
    Ok(())
}
