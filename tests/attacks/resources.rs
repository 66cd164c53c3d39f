//! Attacks on what is shared: limits of processes. What control groups bound is tested beside them.

use super::*;
use crate::harness::Need;
use belljar::{Bytes, Rlimits};

const USER: &[Need] = &[Need::UserNamespaces];

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("attacks::resources_limits_of_processes", USER, limits_of_processes),
        Test::new("attacks::resources_limits_are_only_lowered", USER, only_lowered),
    ]
}

// <asm-generic/resource.h>: fsize 1, core 4, nofile 7, memlock 8, msgqueue 12, rtprio 14.

fn own(resource: usize) -> Fallible<u64> {
    let text = std::fs::read_to_string("/proc/self/limits")?;
    let line = text.lines().nth(1 + resource).ok_or("no such limit")?;
    let hard = line[26..].split_whitespace().nth(1).ok_or("no value")?;
    Ok(if hard == "unlimited" { u64::MAX } else { hard.parse()? })
}

fn limits_of_processes() -> Fallible<()> {
    let attempts = ["rlimit=1", "rlimit=4", "rlimit=7", "rlimit=8", "rlimit=12", "rlimit=14"];
    let seen = inside(&attempts)?;
    let standard = [4u64 << 30, 1, 1024, 8 << 20, 800 << 10, 0];
    for ((attempt, most), resource) in attempts.iter().zip(standard).zip([1, 4, 7, 8, 12, 14]) {
        assert_eq!(seen[*attempt], format!("ok {}", most.min(own(resource)?)), "{attempt}");
    }
    // nobody inside raises one again
    refused_inside(&[("rlimit-raise=7", "EPERM"), ("rlimit-raise=4", "EPERM"), ("realtime", "EPERM")])?;
    // control: the caller's
    let inherited = with(Security::new().rlimits(Rlimits::inherited()), &["rlimit=7"])?;
    assert_eq!(inherited["rlimit=7"], format!("ok {}", own(7)?));
    // a file that is too large
    let small = Security::new().rlimits(Rlimits::standard().fsize(Bytes::mib(2)));
    assert_eq!(signal_of(&bare().security(small).build()?, "fill=/dev/shm/x")?, Some(25)); // SIGXFSZ
    Ok(())
}

fn only_lowered() -> Fallible<()> {
    let most = own(7)?;
    let wide = Security::new().rlimits(Rlimits::standard().nofile(u32::MAX));
    let seen = with(wide, &["rlimit=7"])?;
    assert_eq!(seen["rlimit=7"], format!("ok {}", most.min(u32::MAX.into())));
    Ok(())
}
