//! What a sandbox costs, beside the least that the kernel asks for the same work and
//! beside its peers.
//!
//! ```text
//! cargo bench --bench spawn [-- [--rounds N] [spawn] [memory] [descriptors] [live] [storm]]
//! ```
//! Without names all sections run, in less than three minutes on two cores. They print
//! Markdown; the comparison is also drawn, as `target/spawn.svg`. `BELLJAR_BENCH_SPAWNS`
//! sets the number of spawns of `storm` (10,000). What this user or this machine cannot
//! run is reported as «not run». `RUSTFLAGS="--cfg peer_hakoniwa"` adds a peer that is a crate
//! (LGPL, so not built otherwise).

mod floor;
mod host;
mod live;
mod peers;
mod plot;
mod raw;
mod rows;
mod stats;
mod storm;
mod world;

use std::error::Error;
use std::path::Path;
use world::World;

const SECTIONS: [&str; 5] = ["spawn", "memory", "descriptors", "live", "storm"];

/// What was measured beside what is wanted.
#[derive(Default)]
struct Targets(Vec<(String, f64, &'static str, f64)>);

impl Targets {
    fn at_most(&mut self, what: &str, measured: f64, wanted: f64) {
        self.0.push((what.to_owned(), measured, "≤", wanted));
    }

    fn at_least(&mut self, what: &str, measured: f64, wanted: f64) {
        self.0.push((what.to_owned(), measured, "≥", wanted));
    }

    fn print(&self) {
        println!("## Targets\n\n| | measured | wanted | |\n| --- | ---: | ---: | --- |");
        for (what, measured, relation, wanted) in &self.0 {
            let met = if *relation == "≤" { measured <= wanted } else { measured >= wanted };
            println!("| {what} | {measured:.2} | {relation} {wanted} | {} |", if met { "met" } else { "missed" });
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut rounds = 60;
    let mut chosen = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bench" => {} // cargo's own
            "--rounds" => rounds = args.next().ok_or("--rounds takes a number")?.parse()?,
            "descriptors-in-child" => {
                let (when, rounds) = (args.next().unwrap_or_default(), args.next().unwrap_or_default());
                host::raise_limit();
                return Ok(host::in_child(&when, rounds.parse()?)?);
            }
            name if SECTIONS.contains(&name) => chosen.push(arg),
            other => return Err(format!("{other:?} is no section: {}", SECTIONS.join(", ")).into()),
        }
    }
    let wants = |name: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name);
    let spawns = std::env::var("BELLJAR_BENCH_SPAWNS").map_or(Ok(10_000), |text| text.parse())?;

    host::raise_limit();
    let world = World::new()?;
    let mut targets = Targets::default();
    println!("# spawn\n\n{}. `cargo bench --bench spawn`\n", stats::machine());
    if wants("spawn") {
        spawn(&world, rounds, &mut targets);
    }
    if wants("memory") {
        host::memory(&world, rounds, &mut targets);
    }
    if wants("descriptors") {
        host::descriptors(rounds, &mut targets);
    }
    if wants("live") {
        live::run(&world, &mut targets);
    }
    if wants("storm") {
        storm::run(&world, spawns);
    }
    peers::clean(&world);
    targets.print();
    Ok(())
}

fn spawn(world: &World, rounds: usize, targets: &mut Targets) {
    println!(
        "## Spawn an empty program, wait for its end: microseconds\n\n\
         Each row: mount, pid, uts, ipc, network and user namespaces, an overlay of two layers on\n\
         disk with a tmpfs upper, /proc, pivot_root, exec, exit, wait.\n"
    );
    let mut comparison = rows::Comparison::new(world);
    comparison.measure(rounds);
    comparison.print();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("spawn.svg");
    if let Err(e) = plot::write(&comparison, &path) {
        println!("not drawn: {e}\n");
    }
    let ratio = |of, to| comparison.ratio(of, to).unwrap_or(f64::NAN);
    targets.at_most("belljar: × floor", ratio(rows::SHIM, rows::FLOOR), 1.25);
    targets.at_most("belljar, Init::Payload: × floor", ratio(rows::PAYLOAD, rows::FLOOR), 1.15);
    for (peer, wanted) in [("bwrap", 2.5), ("crun", 6.0)] {
        if let Some(times) = comparison.ratio(peer, rows::SHIM) {
            targets.at_least(&format!("belljar faster than {peer}: times"), times, wanted);
        }
    }
}
