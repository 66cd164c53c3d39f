//! The tests on the real kernel: one binary, run one test after the other.
//!
//! A domain has its file here, with `pub fn tests() -> Vec<Test>`, and its line
//! in [`main`]. What a test needs of the machine, and how that is made
//! mandatory, is told in `harness.rs`; what it must not leave behind in
//! `leaks.rs`.
#![forbid(unsafe_code)]

mod harness;
mod leaks;

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::run(&[
        harness::tests,
        leaks::tests,
        // One line for each domain: namespace::tests, rootfs::tests ...
    ])
}
