//! A scope of systemd's, for a process that was not started in one.

use super::{file, limited, ready};
use crate::common::*;
use belljar::CgroupLimits;
use std::process::{Command, ExitCode};

/// What this program does, run anew with `BELLJAR_TEST_SCOPE`: it is moved, so not in the tests' own process.
pub fn in_a_scope() -> ExitCode {
    match moved_to_a_scope() {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(feature = "systemd")]
fn moved_to_a_scope() -> Fallible<String> {
    let parent = belljar::CgroupParent::systemd_scope()?;
    assert_eq!(belljar::CgroupParent::systemd_scope()?, parent, "it is there already");
    let limits = CgroupLimits::new().parent(parent).memory_max(belljar::Bytes::mib(64)).cpus(0.5);
    let (child, _lines) = ready(limited(limits), "echo ready; exec sleep 60")?;
    let max = file(&child, "memory.max")?;
    Ok(format!("{max} {}", std::fs::read_to_string("/proc/self/cgroup")?.trim()))
}

#[cfg(not(feature = "systemd"))]
fn moved_to_a_scope() -> Fallible<String> {
    let (_, _, _) = (file, ready, limited(CgroupLimits::new()));
    Err("built without the feature systemd".into())
}

pub fn systemd_scope() -> Fallible<()> {
    let again = || {
        let mut command = Command::new(std::env::current_exe()?);
        command.env("BELLJAR_TEST_SCOPE", "1");
        std::io::Result::Ok(command)
    };
    let text = String::from_utf8(again()?.output()?.stdout)?;
    assert!(text.starts_with("67108864 ") && text.contains(".scope/belljar-caller-"), "{text}");
    // where there is no systemd, it is said: here, without a way to the bus
    let nowhere = "unix:path=/no/such/bus";
    let output = again()?.env("DBUS_SESSION_BUS_ADDRESS", nowhere).env("DBUS_SYSTEM_BUS_ADDRESS", nowhere).output()?;
    let text = String::from_utf8(output.stdout)?;
    assert!(text.contains("ask systemd for belljar-") && text.contains("try: "), "{text}");
    Ok(())
}
