//! Layers, images and volumes (cargo feature `image`).

mod archives;
mod attacks;
mod import;
mod layouts;
mod memory;
mod random;
mod run;
mod store;
mod tools;
mod tree;
mod volumes;

use crate::harness::Test;
use std::process::ExitCode;

pub fn tests() -> Vec<Test> {
    [
        attacks::tests,
        layouts::tests,
        memory::tests,
        import::tests,
        store::tests,
        run::tests,
        volumes::tests,
        tools::tests,
        random::tests,
    ]
    .into_iter()
    .flat_map(|tests| tests())
    .collect()
}

/// This program again, as one that is to be killed.
pub fn another_process() -> Option<ExitCode> {
    let arguments = std::env::var("BELLJAR_TEST_IMPORTER").ok()?;
    Some(store::importer(&arguments))
}
