//! What the size of the host process costs: touched memory, open descriptors.

use crate::rows::{self, Entry, FLOOR, Row, SHIM};
use crate::stats::{Sample, value};
use crate::world::World;
use crate::{Targets, peers};
use belljar::Init;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

const GIB: usize = 1 << 30;
const FDS: usize = 10_000;

fn running(entries: impl IntoIterator<Item = Entry>) -> Vec<Row> {
    entries.into_iter().filter_map(|entry| if let Entry::Row(row) = entry { Some(row) } else { None }).collect()
}

/// Medians of `rounds` × 10 runs of each row.
fn medians(rows: &mut [Row], rounds: usize) -> Vec<f64> {
    let mut samples = vec![Sample::default(); rows.len()];
    for _ in 0..rounds {
        for (row, sample) in rows.iter_mut().zip(&mut samples) {
            row.time();
            (0..10).for_each(|_| sample.push(row.time()));
        }
    }
    samples.iter().map(Sample::median).collect()
}

/// 4 GiB of touched memory against none, in this process.
pub fn memory(world: &World, rounds: usize, targets: &mut Targets) {
    let size = 4 * GIB;
    println!("## A host with 4 GiB of touched memory\n");
    let free = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| value(&text, "MemAvailable:"));
    if free.is_some_and(|kib| (kib as usize) < (size + GIB) / 1024) {
        return println!("not run: {} MiB are available\n", free.unwrap_or(0) / 1024);
    }
    let mut rows = running([
        rows::floor(world, true),
        rows::belljar(world, Init::Shim, true),
        rows::belljar(world, Init::Payload, true),
        peers::plain(world),
        peers::pre_exec(world),
    ]);
    // the row that forks copies the page tables at each run: a few runs of it say enough
    let forks = rows.pop();
    let without = medians(&mut rows, rounds);
    let forked_without = forks.map(|mut row| (medians(std::slice::from_mut(&mut row), 2), row));
    let Ok(memory) = Touched::new(size) else { return println!("not run: no memory\n") };
    let with = medians(&mut rows, rounds);
    let forked = forked_without.map(|(without, mut row)| {
        let with = medians(std::slice::from_mut(&mut row), 2);
        (row.name, without[0], with[0])
    });
    drop(memory);
    println!("| | without | with | ratio |\n| --- | ---: | ---: | ---: |");
    let all =
        rows.iter().zip(without.iter().zip(&with)).map(|(row, (without, with))| (row.name.clone(), *without, *with));
    for (name, without, with) in all.chain(forked) {
        println!("| {name} | {without:.0} | {with:.0} | {:.2} |", with / without);
        if name == SHIM {
            targets.at_most("4 GiB of touched memory", with / without, 1.1);
        }
    }
    println!();
}

/// Anonymous memory, each page of it written.
struct Touched(*mut libc::c_void, usize);

impl Touched {
    fn new(size: usize) -> io::Result<Touched> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping that nothing else refers to; each write is inside it.
        unsafe {
            let at = libc::mmap(std::ptr::null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            if at == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            libc::madvise(at, size, libc::MADV_NOHUGEPAGE); // page tables as a heap has them
            for offset in (0..size).step_by(4096) {
                at.cast::<u8>().add(offset).write_volatile(1);
            }
            Ok(Touched(at, size))
        }
    }
}

impl Drop for Touched {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`.
        unsafe { libc::munmap(self.0, self.1) };
    }
}

/// When the descriptors of the host are opened.
const WHEN: [(&str, &str); 3] =
    [("none", "no others"), ("before", "10,000, before the first spawn"), ("after", "10,000, after the first spawn")];

/// 10,000 open descriptors against none, each in a process of its own.
pub fn descriptors(rounds: usize, targets: &mut Targets) {
    println!("## A host with 10,000 open descriptors\n");
    let mut samples = vec![(Sample::default(), Sample::default()); WHEN.len()];
    for _ in 0..3 {
        for ((when, _), (floor, shim)) in WHEN.iter().zip(&mut samples) {
            match fresh(when, rounds.div_ceil(3)) {
                Ok((own_floor, own_shim)) => {
                    floor.push(own_floor);
                    shim.push(own_shim);
                }
                Err(e) => return println!("not run: {e}\n"),
            }
        }
    }
    println!("| | {FLOOR} | {SHIM} | ratio of {SHIM} to none |\n| --- | ---: | ---: | ---: |");
    let none = samples[0].1.median();
    for ((when, name), (floor, shim)) in WHEN.iter().zip(&samples) {
        let ratio = shim.median() / none;
        println!("| {name} | {:.0} | {:.0} | {ratio:.2} |", floor.median(), shim.median());
        if *when != "none" {
            targets.at_most(&format!("{name} (descriptors)"), ratio, 1.3);
        }
    }
    println!();
}

/// Runs this program anew for one measurement.
fn fresh(when: &str, rounds: usize) -> io::Result<(f64, f64)> {
    let output = Command::new(std::env::current_exe()?)
        .args(["descriptors-in-child", when, &rounds.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(floor)), Some(Ok(shim))) => Ok((floor, shim)),
        _ => Err(io::Error::other(format!("the child process ended with {}", output.status))),
    }
}

/// The child's part: prints the two medians.
pub fn in_child(when: &str, rounds: usize) -> io::Result<()> {
    let world = World::new()?;
    let mut open = Vec::new();
    if when == "before" {
        open = open_many()?;
    }
    let mut rows = running([rows::floor(&world, true), rows::belljar(&world, Init::Shim, true)]);
    if when == "after" {
        open = open_many()?;
    }
    let medians = medians(&mut rows, rounds);
    drop(open);
    match medians[..] {
        [floor, shim] => println!("{floor} {shim}"),
        _ => println!("a row does not run"),
    }
    Ok(())
}

/// Copies of the null device, and sockets.
fn open_many() -> io::Result<Vec<OwnedFd>> {
    let null: OwnedFd = std::fs::File::open("/dev/null")?.into();
    let mut open = Vec::with_capacity(FDS);
    while open.len() < FDS {
        if open.len() % 10 == 0 {
            let (one, other) = UnixDatagram::pair()?;
            open.extend([OwnedFd::from(one), other.into()]);
        } else {
            open.push(null.try_clone()?);
        }
    }
    open.push(null); // leaves no low number free
    debug_assert!(open.iter().any(|fd| fd.as_raw_fd() >= FDS as i32));
    Ok(open)
}

/// Lets this process open as many descriptors as it may.
pub fn raise_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes and reads one `rlimit`.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}
