//! Spawning from many threads, while others allocate, format, and change the environment.

use crate::rows;
use crate::stats::{Sample, micros};
use crate::world::World;
use belljar::{Child, Command, Init, Sandbox, Stdio};
use std::io::Read;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SPAWNERS: usize = 8;
const OTHERS: usize = 40;
/// Nothing here takes as long, unless it hangs.
const HANGS: Duration = Duration::from_secs(60);

static DONE: AtomicUsize = AtomicUsize::new(0);
static OVER: AtomicBool = AtomicBool::new(false);

/// Ends this process when no spawn has finished for too long.
fn watchdog() {
    let (mut seen, mut since) = (0, Instant::now());
    while !OVER.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50));
        let done = DONE.load(Ordering::Relaxed);
        if done != seen {
            (seen, since) = (done, Instant::now());
        } else if since.elapsed() > HANGS {
            eprintln!("hung after {done} spawns");
            std::process::abort();
        }
    }
}

/// What else a program does in its threads: takes locks of the allocator, of stderr, of the
/// environment, some of which a forked child would find taken.
fn other(number: usize) {
    let mut kept = Vec::new();
    for round in 0usize.. {
        if OVER.load(Ordering::Relaxed) {
            return;
        }
        let size = 1 << (4 + (round * 7 + number) % 14);
        kept.push(vec![round as u8; size]);
        if kept.len() > 32 {
            kept.swap_remove(round % 32);
        }
        let line = format!("thread {number} round {round}: {} buffers, {:?}\n", kept.len(), Instant::now());
        let _ = std::io::Write::write_all(&mut std::io::sink(), line.as_bytes());
        let name = format!("BELLJAR_BENCH_{}", number % 4);
        // SAFETY: this process reads and writes its environment by `std` alone, which locks it.
        unsafe { std::env::set_var(&name, line.trim_end()) };
        std::hint::black_box(std::env::var_os(&name));
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// One sandbox, whose payload writes one byte and ends. Its pipe must then be at its end:
/// it is not, if another sandbox holds the other end of it.
fn one(sandbox: &Sandbox) -> Result<(), String> {
    let mut command = Command::new("/write");
    command.stdout(Stdio::Piped);
    let mut child = sandbox.spawn(&command).map_err(|e| e.to_string())?;
    let exit = child.wait().map_err(|e| e.to_string())?;
    if !exit.success() {
        return Err(format!("{exit:?}"));
    }
    let mut pipe = child.stdout.take().ok_or("no pipe")?;
    let mut byte = [0u8; 2];
    for expected in [1, 0] {
        let ready = belljar::sys::socket::wait_readable(pipe.as_fd(), Some(Duration::from_secs(5)));
        if !ready.map_err(|errno| format!("{errno:?}"))? {
            return Err("another sandbox holds this one's pipe".into());
        }
        let read = pipe.read(&mut byte).map_err(|e| e.to_string())?;
        if read != expected {
            return Err(format!("{read} bytes for {expected}"));
        }
    }
    Ok(())
}

pub fn run(world: &World, spawns: usize) {
    println!("## {spawns} spawns from {SPAWNERS} threads, while {OTHERS} allocate, format and call setenv\n");
    let sandbox = match rows::sandbox(world, Init::Shim, true) {
        Ok(sandbox) => sandbox,
        Err(e) => return println!("not run: {e}\n"),
    };
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let times = Mutex::new(Vec::with_capacity(spawns));
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(watchdog);
        (0..OTHERS).for_each(|number| drop(scope.spawn(move || other(number))));
        let spawner = || {
            // these live till the end, with whatever they were given
            let mut living: Vec<Child> = Vec::new();
            let mut own = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= spawns {
                    break;
                }
                if number.is_multiple_of((spawns / 64).max(1)) {
                    living.extend(sandbox.spawn(&Command::new("/sleep")).ok());
                }
                let begun = Instant::now();
                match one(&sandbox) {
                    Ok(()) => own.push(micros(begun.elapsed())),
                    Err(e) => failures.lock().expect("no panic holds it").push(e),
                }
                DONE.fetch_add(1, Ordering::Relaxed);
            }
            times.lock().expect("no panic holds it").append(&mut own);
        };
        let spawners: Vec<_> = (0..SPAWNERS).map(|_| scope.spawn(spawner)).collect();
        spawners.into_iter().for_each(|thread| drop(thread.join()));
        OVER.store(true, Ordering::Relaxed);
    });
    let seconds = start.elapsed().as_secs_f64();
    let times: Sample = times.into_inner().expect("no panic holds it").into_iter().collect();
    let failures = failures.into_inner().expect("no panic holds it");
    println!("| spawns | seconds | a second | median, µs | p99, µs | failures, hangs, foreign descriptors |");
    println!("| ---: | ---: | ---: | ---: | ---: | ---: |");
    println!(
        "| {} | {seconds:.1} | {:.0} | {:.0} | {:.0} | {} |\n",
        times.len(),
        times.len() as f64 / seconds,
        times.median(),
        times.p99(),
        failures.len()
    );
    assert!(failures.is_empty(), "the first failure: {}", failures[0]);
    assert_eq!(times.len(), spawns, "a thread has ended early");
}
