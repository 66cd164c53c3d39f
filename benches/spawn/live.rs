//! 500 sandboxes that live at the same time: how long starting them takes, and what each holds.

use crate::Targets;
use crate::floor::{self, Floor};
use crate::rows::{self, FLOOR, SHIM};
use crate::stats::{Sample, value};
use crate::world::World;
use belljar::{Command, Init};
use std::error::Error;
use std::time::{Duration, Instant};

const COUNT: usize = 500;
const PAUSE: Duration = Duration::from_millis(1500);

/// What one run of belljar's found.
struct Found {
    seconds: f64,
    /// KiB of each shim.
    pss: Sample,
    page_tables: Sample,
    fds: f64,
    threads: f64,
}

pub fn run(world: &World, targets: &mut Targets) {
    println!("## {COUNT} live sandboxes, started one after the other\n");
    if let Err(e) = try_run(world, targets) {
        println!("not run: {e}\n");
    }
}

fn try_run(world: &World, targets: &mut Targets) -> Result<(), Box<dyn Error>> {
    let mut floor = Sample::default();
    let mut found = Vec::new();
    for _ in 0..3 {
        // the kernel takes a while to clean up behind hundreds of network namespaces
        std::thread::sleep(PAUSE);
        floor.push(start_floor(world)?);
        std::thread::sleep(PAUSE);
        found.push(start(world)?);
    }
    let seconds: Sample = found.iter().map(|found| found.seconds).collect();
    let Some(last) = found.pop() else { return Ok(()) };
    println!(
        "| | seconds | PSS of the shim, KiB | its page tables, KiB | descriptors of the host | threads of the host |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    println!("| {FLOOR} | {:.2} | | | | |", floor.median());
    println!(
        "| {SHIM} | {:.2} | {:.0} | {:.0} | {:.2} each | {:.2} each |\n",
        seconds.median(),
        last.pss.median(),
        last.page_tables.median(),
        last.fds,
        last.threads
    );
    targets.at_most("500 live sandboxes: × floor's time", seconds.median() / floor.median(), 1.3);
    targets.at_most("500 live sandboxes: KiB of PSS each", last.pss.median(), 60.0);
    targets.at_most("500 live sandboxes: descriptors each", last.fds, 4.0);
    targets.at_most("500 live sandboxes: threads each", last.threads, 0.0);
    Ok(())
}

fn start_floor(world: &World) -> std::io::Result<f64> {
    let mut floor = Floor::new(world, "/sleep", true);
    let start = Instant::now();
    let pids = (0..COUNT).map(|_| floor.spawn()).collect::<Result<Vec<_>, _>>()?;
    let seconds = start.elapsed().as_secs_f64();
    for pid in &pids {
        // SAFETY: the pid of a child of ours that has not been waited for.
        unsafe { libc::kill(*pid, libc::SIGKILL) };
    }
    let killed =
        pids.iter().try_fold(true, |all, pid| Ok::<_, std::io::Error>(all & (floor::wait(*pid)? == libc::SIGKILL)))?;
    if killed { Ok(seconds) } else { Err(std::io::Error::other("a payload of the floor has not run")) }
}

fn start(world: &World) -> Result<Found, Box<dyn Error>> {
    let sandbox = rows::sandbox(world, Init::Shim, true)?;
    let command = Command::new("/sleep");
    drop(sandbox.spawn(&command)?); // what the library opens once
    let (fds, threads) = (entries("/proc/self/fd"), entries("/proc/self/task"));
    let start = Instant::now();
    let children = (0..COUNT).map(|_| sandbox.spawn(&command)).collect::<Result<Vec<_>, _>>()?;
    let seconds = start.elapsed().as_secs_f64();
    let each = |now: usize, before: usize| (now as f64 - before as f64) / COUNT as f64;
    let read = |file: &str, name: &str| -> Sample {
        let files = children.iter().map(|child| std::fs::read_to_string(format!("/proc/{}/{file}", child.id())));
        files.filter_map(|text| Some(value(&text.ok()?, name)? as f64)).collect()
    };
    Ok(Found {
        seconds,
        pss: read("smaps_rollup", "Pss:"),
        page_tables: read("status", "VmPTE:"),
        fds: each(entries("/proc/self/fd"), fds),
        threads: each(entries("/proc/self/task"), threads),
    })
}

fn entries(directory: &str) -> usize {
    std::fs::read_dir(directory).map_or(0, Iterator::count)
}
