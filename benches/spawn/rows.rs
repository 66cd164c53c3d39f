//! The comparison: every row in turn, in an order drawn anew each round, so that what the
//! machine does meanwhile, and what one row leaves behind for the next, falls on all alike.

use crate::floor::Floor;
use crate::peers;
use crate::stats::{Sample, micros};
use crate::world::World;
use belljar::{
    Bytes, Cgroup, CgroupLimits, Command, Init, Keyring, Landlock, Mount, Mounts, Namespaces, Net, Rlimits, RootFs,
    Sandbox, SandboxBuilder, Seccomp, Security, Time, Upper,
};
use std::io;
use std::time::{Duration, Instant};

pub const FLOOR: &str = "floor";
const FLOOR_WITHOUT_NET: &str = "floor, without net";
pub const SHIM: &str = "belljar";
/// Not to begin with another row's name: rows are found by it.
const DEFAULT: &str = "default profile (seccomp, rlimits, keyring, pids limit)";
pub const PAYLOAD: &str = "belljar, Init::Payload";

/// One way of starting the payload and waiting for its end.
pub struct Row {
    pub name: String,
    run: Box<dyn FnMut() -> io::Result<()>>,
    /// The name of the row that this one is divided by.
    floor: &'static str,
    pub tight: Sample,
    pub idle: Sample,
}

/// A row, or why there is none.
pub enum Entry {
    Row(Row),
    NotRun { name: String, why: String },
}

impl Entry {
    pub fn not_run(name: &str, why: impl Into<String>) -> Entry {
        Entry::NotRun { name: name.into(), why: why.into() }
    }

    fn over(mut self, floor: &'static str) -> Entry {
        if let Entry::Row(row) = &mut self {
            row.floor = floor;
        }
        self
    }
}

impl Row {
    /// A row that has run once.
    pub fn probe(name: &str, mut run: impl FnMut() -> io::Result<()> + 'static) -> Entry {
        match run() {
            Ok(()) => Entry::Row(Row {
                name: name.into(),
                run: Box::new(run),
                floor: FLOOR,
                tight: Sample::default(),
                idle: Sample::default(),
            }),
            Err(e) => Entry::not_run(name, e.to_string()),
        }
    }

    /// Runs it once and gives the time in microseconds.
    pub fn time(&mut self) -> f64 {
        let start = Instant::now();
        if let Err(e) = (self.run)() {
            panic!("{}: {e}", self.name);
        }
        micros(start.elapsed())
    }
}

/// The sandbox of every belljar row: the floor's namespaces, layers, upper and `/proc`; the floor
/// and the peers have no filter of system calls, no Landlock, no resource limits, no control groups, and no limit of
/// user namespaces inside.
pub fn sandbox(world: &World, init: Init, net: bool) -> belljar::Result<Sandbox> {
    let security = Security::new()
        .seccomp(Seccomp::Unconfined)
        .allow_nested_namespaces()
        .landlock(Landlock::none())
        .rlimits(Rlimits::inherited())
        .keyring(Keyring::Inherit);
    builder(world, init, net).security(security).limits(CgroupLimits::none()).build()
}

/// The same with all that a sandbox has unless it is opted out of.
fn default_profile(world: &World) -> Entry {
    let command = Command::new("/true");
    match builder(world, Init::Shim, true).build() {
        Err(e) => Entry::not_run(DEFAULT, e.to_string()),
        Ok(sandbox) => Row::probe(DEFAULT, move || run(&sandbox, &command)),
    }
}

fn run(sandbox: &Sandbox, command: &Command) -> io::Result<()> {
    let exit = sandbox.status(command).map_err(io::Error::other)?;
    if exit.success() { Ok(()) } else { Err(io::Error::other(format!("{exit:?}"))) }
}

fn builder(world: &World, init: Init, net: bool) -> SandboxBuilder {
    let upper = Upper::Discard { bytes: Bytes::mib(16), inodes: 1024 };
    let namespaces = Namespaces::isolated()
        .net(if net { Net::New } else { Net::Inherit })
        .time(Time::Inherit)
        .cgroup(Cgroup::Inherit);
    Sandbox::builder(RootFs::overlay(world.layers.clone()).upper(upper))
        .namespaces(namespaces)
        .mounts(Mounts::none().mount(Mount::proc("/proc")))
        .init(init)
}

pub fn floor(world: &World, net: bool) -> Entry {
    let mut floor = Floor::new(world, "/true", net);
    Row::probe(if net { FLOOR } else { FLOOR_WITHOUT_NET }, move || floor.run())
}

/// The same with `lo` up, which is part of every sandbox's network namespace.
fn floor_with_lo(world: &World) -> Entry {
    let mut floor = Floor::new(world, "/true", true).with_lo();
    Row::probe("floor, lo up", move || floor.run())
}

pub fn belljar(world: &World, init: Init, net: bool) -> Entry {
    let name = match (init, net) {
        (Init::Shim, true) => SHIM,
        (Init::Payload, true) => PAYLOAD,
        (Init::Shim, false) => "belljar, without net",
        (Init::Payload, false) => "belljar, Init::Payload, without net",
    };
    let command = Command::new("/true");
    match sandbox(world, init, net) {
        Err(e) => Entry::not_run(name, e.to_string()),
        Ok(sandbox) => Row::probe(name, move || run(&sandbox, &command)),
    }
}

/// All rows, measured.
pub struct Comparison {
    pub rows: Vec<Row>,
    pub not_run: Vec<(String, String)>,
}

/// A row that takes longer than this is run less often.
const SLOW: f64 = 2_000.0;

impl Comparison {
    pub fn new(world: &World) -> Comparison {
        let entries = [
            floor(world, true),
            floor_with_lo(world),
            belljar(world, Init::Shim, true),
            belljar(world, Init::Payload, true),
            default_profile(world),
            floor(world, false).over(FLOOR_WITHOUT_NET),
            belljar(world, Init::Shim, false).over(FLOOR_WITHOUT_NET),
            belljar(world, Init::Payload, false).over(FLOOR_WITHOUT_NET),
            peers::plain(world),
            peers::pre_exec(world),
            peers::hakoniwa(world),
            peers::bwrap(world),
            peers::crun(world),
        ];
        let (mut rows, mut not_run) = (Vec::new(), Vec::new());
        for entry in entries {
            match entry {
                Entry::Row(row) => rows.push(row),
                Entry::NotRun { name, why } => not_run.push((name, why)),
            }
        }
        Comparison { rows, not_run }
    }

    /// `rounds` in a tight loop, then a third of them after 50 ms of idleness each.
    pub fn measure(&mut self, rounds: usize) {
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        let mut shuffle = |order: &mut Vec<usize>| {
            for i in (1..order.len()).rev() {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                order.swap(i, (random >> 33) as usize % (i + 1));
            }
        };
        for _ in 0..rounds {
            shuffle(&mut order);
            for row in &order {
                let row = &mut self.rows[*row];
                // the first ones pay for what the row before has left to clean up
                let repeat = if row.time() > SLOW { 3 } else { 20 };
                for _ in 0..repeat / 4 {
                    row.time();
                }
                for _ in 0..repeat {
                    let time = row.time();
                    row.tight.push(time);
                }
            }
        }
        for _ in 0..rounds.div_ceil(3) {
            shuffle(&mut order);
            for row in &order {
                std::thread::sleep(Duration::from_millis(50));
                let time = self.rows[*row].time();
                self.rows[*row].idle.push(time);
            }
        }
    }

    /// The table.
    pub fn print(&self) {
        println!("| | tight loop: median | p99 | × floor | after 50 ms idle: median | p99 | × floor |");
        println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
        for row in &self.rows {
            let floor = self.rows.iter().find(|floor| floor.name == row.floor);
            let cells = |sample: fn(&Row) -> &Sample| {
                let own = sample(row);
                let ratio = floor.map_or("–".into(), |floor| format!("{:.2}", own.median() / sample(floor).median()));
                format!("{:.0} | {:.0} | {ratio}", own.median(), own.p99())
            };
            println!("| {} | {} | {} |", row.name, cells(|row| &row.tight), cells(|row| &row.idle));
        }
        for (name, why) in &self.not_run {
            println!("| {name} | not run: {why} | | | | | |");
        }
        println!();
    }

    /// How many times longer one row takes than another, by the medians of the tight loop.
    pub fn ratio(&self, of: &str, to: &str) -> Option<f64> {
        let median = |name: &str| Some(self.rows.iter().find(|row| row.name.starts_with(name))?.tight.median());
        Some(median(of)? / median(to)?)
    }
}
