//! Says whether sandboxes can be started here, and what stands in the way if not.
//!
//! `cargo run --example doctor` prints a report of one line a finding, with the remedy
//! below where something is lacking; a `!` marks what the default settings need. With
//! `--problems` it prints only findings that do not simply work. The exit status is 0 if
//! a sandbox with the default settings can be started, 1 if not, 2 for a wrong argument.

use belljar::{Doctor, Outcome};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let report = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => |doctor: &Doctor| doctor.to_string(),
        ["--problems"] => problems,
        _ => {
            eprintln!("usage: doctor [--problems]");
            return ExitCode::from(2);
        }
    };
    let doctor = belljar::doctor();
    // whoever closes the pipe has read enough; the status counts
    let _ = std::io::stdout().write_all(report(&doctor).as_bytes());
    if doctor.can_spawn() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn problems(doctor: &Doctor) -> String {
    let problems = doctor.findings().iter().filter(|finding| finding.outcome() != Outcome::Works);
    problems.map(|finding| format!("{finding}\n")).collect()
}
