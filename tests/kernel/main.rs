//! The tests on the real kernel: one binary, run one test after the other.
//!
//! A domain has its file here, with `pub fn tests() -> Vec<Test>`, and its line
//! in [`main`]. What a test needs of the machine, and how that is made
//! mandatory, is told in `harness.rs`; what it must not leave behind in
//! `leaks.rs`.
#![forbid(unsafe_code)]

#[path = "../attacks/mod.rs"]
mod attacks;
mod cgroup;
mod changes;
mod child;
mod common;
mod enter;
mod entry;
mod errors;
mod fds;
mod freeze;
mod harness;
mod hostile;
mod hosts;
mod identity;
#[cfg(feature = "image")]
mod image;
#[cfg(not(feature = "image"))]
mod image {
    //! Not built: an optional feature.
    pub fn tests() -> Vec<crate::harness::Test> {
        Vec::new()
    }
    pub fn another_process() -> Option<std::process::ExitCode> {
        None
    }
}
mod label;
mod leaks;
mod limits;
mod mounts;
mod namespace;
mod notify;
mod output;
mod process;
mod pty;
mod rootfs;
mod schedule;
mod security;
mod source;
#[cfg(feature = "tokio")]
mod tokio;
mod verdict;

use std::process::ExitCode;

fn main() -> ExitCode {
    entry::dispatch();
    if let Some(code) = image::another_process() {
        return code;
    }
    if let Ok(pid_namespace) = std::env::var("BELLJAR_TEST_HOST_DIES") {
        return match child::host_that_dies(&pid_namespace) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    if let Ok(role) = std::env::var("BELLJAR_TEST_PEER") {
        return match namespace::peer(&role) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE, // nobody there: what some want to see
        };
    }
    if std::env::var_os("BELLJAR_TEST_DAEMON").is_some() {
        return verdict::daemon().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    if std::env::var_os("BELLJAR_TEST_SPAWN_ONCE").is_some() {
        errors::spawn_once();
        return ExitCode::SUCCESS;
    }
    if let Some(path) = std::env::var_os("BELLJAR_TEST_PAYLOAD") {
        return attacks::write_payload(path.as_ref()).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    if std::env::var_os("BELLJAR_TEST_KEYS").is_some() {
        return attacks::kernel_interfaces::keys_in_a_session().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    if std::env::var_os("BELLJAR_TEST_THREADS").is_some() {
        return security::threads().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    if std::env::var_os("BELLJAR_TEST_SPAWN_LABELLED").is_some() {
        return label::spawn_labelled().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    if let Ok(role) = std::env::var("BELLJAR_TEST_NOTIFY") {
        return notify::payload(&role).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    if std::env::var_os("BELLJAR_TEST_SCOPE").is_some() {
        return cgroup::in_a_scope();
    }
    if std::env::var_os("BELLJAR_TEST_V1").is_some() {
        return cgroup::with_v1_mounted();
    }
    if std::env::var_os("BELLJAR_TEST_PRIORITY").is_some() {
        return schedule::with_priority().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    if let Ok(kind) = std::env::var("BELLJAR_TEST_HOG") {
        cgroup::hog(&kind);
    }
    // The memfds of the shim and of this program, and the files in their place, are made once for the process: before
    // the first leak check. What fails here fails in the tests, with its reason.
    for features in [0, belljar::testing::feature::MEMFD_EXEC] {
        belljar::testing::disable(features);
        drop(common::host().build().and_then(|sandbox| sandbox.status(&common::sh("true"))));
        drop(entry::once());
    }
    belljar::testing::disable(0);
    #[cfg(feature = "tokio")]
    drop(tokio::once());
    // So does the move out of a v2 group that is to hand down controllers.
    cgroup::prepare();
    harness::run(&[
        harness::tests,
        leaks::tests,
        source::tests,
        namespace::tests,
        identity::tests,
        rootfs::tests,
        image::tests,
        security::tests,
        notify::tests,
        label::tests,
        mounts::tests,
        process::tests,
        schedule::tests,
        child::tests,
        cgroup::tests,
        verdict::tests,
        fds::tests,
        changes::tests,
        pty::tests,
        limits::tests,
        output::tests,
        freeze::tests,
        #[cfg(feature = "tokio")]
        tokio::tests,
        enter::tests,
        entry::tests,
        errors::tests,
        hostile::tests,
        hosts::tests,
        attacks::tests,
    ])
}
