//! What control groups add to a spawn: made, limited, joined and removed by belljar, and by
//! a hand-written loop of the same file operations, interleaved in one run.
//!
//! `cargo bench --bench cgroup`. Each number is the lower quartile, for other work on the machine only adds: of the
//! spawn with groups less that of the spawn without, belljar's of its own spawn, the floor's of clone3(2) and
//! execve(2). Both make and join the groups of the same limits: 64 MiB without
//! swap, 64 processes; none of CPU time, for a group's share of it is what other work changes most.
//!
//! Then what it takes to ask a hundred idle sandboxes for their figures, over and over.

#[path = "../spawn/stats.rs"]
#[allow(dead_code)]
mod stats;

use belljar::{Bytes, CgroupLimits, Command, Init, Namespaces, RootFs, Sandbox};
use stats::{machine, micros};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const ROUNDS: usize = 600;
/// Sandboxes that are asked for their figures.
const LIVE: usize = 100;

fn main() -> Fallible<()> {
    let limits = CgroupLimits::new().memory_max(Bytes::mib(64)).pids_max(64);
    // the least of everything else, so that the groups can be told from it
    let builder = || Sandbox::builder(RootFs::inherit()).namespaces(Namespaces::inherited()).init(Init::Payload);
    let (plain, limited) = (builder().limits(CgroupLimits::none()).build()?, builder().limits(limits.clone()).build()?);
    let default = builder().build()?;
    let command = Command::new("/bin/true");
    let floor = Floor::find(&limited.explain(&command)?.to_string())?;

    let mut samples = [const { Vec::new() }; 5];
    for round in 0..ROUNDS {
        let runs: [&dyn Fn() -> Fallible<()>; 5] = [
            &|| Ok(plain.status(&command).map(drop)?),
            &|| Ok(limited.status(&command).map(drop)?),
            &|| Ok(default.status(&command).map(drop)?),
            &|| floor.spawn(&[], None),
            &|| floor.run(round),
        ];
        for (run, sample) in runs.iter().zip(&mut samples) {
            let start = Instant::now();
            run()?;
            sample.push(micros(start.elapsed()));
        }
    }
    let [plain, limited, default, bare, grouped] = samples.map(|mut sample: Vec<f64>| {
        sample.sort_by(f64::total_cmp);
        sample[sample.len() / 4]
    });
    println!("{}", machine());
    println!(
        "{} groups, {} files of limits; lower quartiles of {ROUNDS}, in microseconds\n",
        floor.groups.len(),
        floor.files()
    );
    println!("| | spawn | with groups | the groups add |");
    println!("| --- | ---: | ---: | ---: |");
    println!("| file operations by hand | {bare:.0} | {grouped:.0} | {:.0} |", grouped - bare);
    println!("| belljar | {plain:.0} | {limited:.0} | {:.0} |", limited - plain);
    println!("| belljar, the default group | {plain:.0} | {default:.0} | {:.0} |", default - plain);
    println!("\nratio {:.2}", (limited - plain) / (grouped - bare));
    poll(&builder().limits(limits).build()?)
}

/// The figures of many sandboxes, each asked in turn as a monitor would: the processor's caches hold none of them.
fn poll(sandbox: &Sandbox) -> Fallible<()> {
    let children =
        (0..LIVE).map(|_| sandbox.spawn(Command::new("/bin/sleep").arg("1000"))).collect::<Result<Vec<_>, _>>()?;
    for child in &children {
        child.stats()?; // opens the files
    }
    let mut sample = Vec::new();
    for child in children.iter().cycle().take(100 * LIVE) {
        let start = Instant::now();
        child.stats()?;
        sample.push(micros(start.elapsed()));
    }
    sample.sort_by(f64::total_cmp);
    let median = sample[sample.len() / 2];
    println!(
        "\nstats() of {LIVE} sandboxes in turn: median {median:.1} microseconds, p99 {:.1}",
        sample[sample.len() * 99 / 100]
    );
    println!("1,000 a second take {:.1} % of one CPU", median / 10.0);
    Ok(())
}

/// The same groups by hand: what belljar says it would do, read from its own explanation.
struct Floor {
    groups: Vec<Group>,
}

/// One group: where it is made, what is written in it, and the file by which it is joined.
struct Group {
    parent: PathBuf,
    settings: Vec<(String, String)>,
    /// Of a v2 group none: the child is born in it, as belljar's is. (A write to `cgroup.procs` would wait for RCU, 10 ms.)
    join: Option<&'static str>,
}

impl Floor {
    fn find(explained: &str) -> Fallible<Floor> {
        let mut groups: Vec<Group> = Vec::new();
        for line in explained.lines() {
            let line = line.trim_start().split_once("  ").map_or("", |(_, text)| text);
            if let Some(path) = line.strip_prefix("make the group ") {
                let path = Path::new(path.split(',').next().unwrap_or_default());
                let parent = path.parent().ok_or("a group without a parent")?.to_owned();
                let join = (!parent.join("cgroup.controllers").exists()).then_some("tasks");
                groups.push(Group { parent, settings: Vec::new(), join });
            } else if let Some((value, file)) = line.strip_prefix("write \"").and_then(|rest| rest.split_once("\" to "))
            {
                let file = file.split(',').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
                let group = groups.last_mut().ok_or("a limit before a group")?;
                group.settings.push((file.to_owned(), value.to_owned()));
            }
        }
        if groups.is_empty() { Err("belljar makes no groups here".into()) } else { Ok(Floor { groups }) }
    }

    fn files(&self) -> usize {
        self.groups.iter().map(|group| group.settings.len()).sum()
    }

    fn run(&self, round: usize) -> Fallible<()> {
        let name = format!("belljar-bench-{}-{round}", std::process::id());
        let (mut joins, mut birth) = (Vec::new(), None);
        for group in &self.groups {
            let directory = group.parent.join(&name);
            fs::create_dir(&directory)?;
            for (file, value) in &group.settings {
                match fs::OpenOptions::new().write(true).open(directory.join(file)) {
                    Ok(mut file) => file.write_all(value.as_bytes())?,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {} // no swap here
                    Err(error) => return Err(error.into()),
                }
            }
            match group.join {
                Some(file) => joins.push(fs::OpenOptions::new().write(true).open(directory.join(file))?),
                None => birth = Some(File::open(&directory)?),
            }
        }
        let spawned = self.spawn(&joins, birth.as_ref());
        drop((joins, birth));
        for group in &self.groups {
            while let Err(error) = fs::remove_dir(group.parent.join(&name)) {
                if error.kind() != io::ErrorKind::ResourceBusy {
                    return Err(error.into());
                }
            }
        }
        spawned
    }

    /// A process that is born in this v2 group, and writes itself into these files before it executes its program.
    fn spawn(&self, joins: &[File], birth: Option<&File>) -> Fallible<()> {
        /// `struct clone_args` of Linux 5.7: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls,
        /// set_tid, set_tid_size, cgroup.
        type CloneArgs = [u64; 11];
        let mut args: CloneArgs = [libc::CLONE_VFORK as u64, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0, 0, 0, 0];
        if let Some(group) = birth {
            args[0] |= 0x2_0000_0000; // CLONE_INTO_CGROUP, which does not fit the constant of libc
            args[10] = group.as_raw_fd() as u64;
        }
        let argv = [c"/bin/true".as_ptr(), std::ptr::null()];
        let mut status = 0;
        // SAFETY: without CLONE_VM the child has a copy of this memory; it makes system calls only, and ends in execve
        // or _exit. The kernel reads the arguments and writes one int.
        let ended = unsafe {
            let pid = libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of::<CloneArgs>()) as i32;
            if pid == 0 {
                if joins.iter().all(|file| libc::write(file.as_raw_fd(), c"0".as_ptr().cast(), 1) == 1) {
                    libc::execve(argv[0], argv.as_ptr(), [std::ptr::null()].as_ptr());
                }
                libc::_exit(127);
            }
            pid > 0 && libc::waitpid(pid, &mut status, 0) == pid
        };
        if ended && status == 0 {
            Ok(())
        } else {
            Err(format!("true(1): {status}, {}", io::Error::last_os_error()).into())
        }
    }
}
