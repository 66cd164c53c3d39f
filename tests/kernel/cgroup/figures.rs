//! Figures and events: what the groups count, and what they tell.

use super::*;
use crate::common::*;
use crate::harness::Need;
use belljar::{
    Bytes, CgroupLimits, Child, ErrorKind, Event, IoMax, KillScope, Limit, Mount, OomKill, PressureTrigger, Resource,
    Weight,
};
use std::fs;
use std::time::{Duration, Instant};

pub const BUSY: &str = "echo ready; while :; do :; done";

pub fn cpu_usage(child: &Child) -> Fallible<Duration> {
    Ok(child.stats()?.cpu.usage.ok_or("no usage of CPU time")?)
}

/// Quota 20000 of each 100000, over three seconds, by accounting.
pub fn a_fifth_of_a_cpu() -> Fallible<()> {
    // the weight: also on a machine that is busy otherwise
    let heavy = || limits().cpu_weight(Weight::new(10_000));
    let (child, _lines) = ready(limited(heavy().cpus(0.2)), BUSY)?;
    let (start, before) = (Instant::now(), cpu_usage(&child)?);
    std::thread::sleep(Duration::from_secs(3));
    let (span, used) = (start.elapsed(), cpu_usage(&child)? - before);
    let percent = 100.0 * used.as_secs_f64() / span.as_secs_f64();
    assert!((17.0..=23.0).contains(&percent), "{percent:.1} % of {span:?}");
    let cpu = child.stats()?.cpu;
    assert!(
        cpu.throttled_periods.is_some_and(|n| n > 5) && cpu.throttled.is_some_and(|t| t > Duration::ZERO),
        "{cpu:?}"
    );
    // control: without the quota it takes more
    let (child, _lines) = ready(limited(heavy()), BUSY)?;
    let (start, before) = (Instant::now(), cpu_usage(&child)?);
    std::thread::sleep(Duration::from_secs(1));
    let percent = 100.0 * (cpu_usage(&child)? - before).as_secs_f64() / start.elapsed().as_secs_f64();
    assert!(percent > 25.0, "control: {percent:.1} %");
    Ok(())
}

pub fn stats_agree_with_getrusage() -> Fallible<()> {
    let script = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; dd if=/dev/zero of=/dev/null bs=64k count=20000 2>&1 | tail -1";
    let mut child = limited(limits()).build()?.spawn(&sh(script))?;
    let exit = child.wait()?;
    let rusage = exit.usage.user.ok_or("no user")? + exit.usage.system.ok_or("no system")?;
    let group = cpu_usage(&child)?;
    let (a, b) = (rusage.as_secs_f64(), group.as_secs_f64());
    assert!(a > 0.1, "{rusage:?}");
    // the group has the shim's own time too: a few milliseconds of set-up
    assert!((b - a).abs() / a < 0.05 || (b - a).abs() < 0.015, "getrusage {rusage:?}, group {group:?}");
    Ok(())
}

pub fn stats_of_memory_and_processes() -> Fallible<()> {
    let builder = limited(limits().memory_max(Bytes::mib(200))).mount(Mount::tmpfs("/tmp").bytes(Bytes::mib(100)));
    let script = "dd if=/dev/zero of=/tmp/file bs=1M count=32 2>/dev/null; sleep 60 & sleep 60 & echo ready; wait";
    let (mut child, _lines) = ready(builder, script)?;
    let stats = child.stats()?;
    // old kernels gather the figures of their CPUs lazily
    let (low, high) = (Bytes::mib(31), Bytes::mib(64));
    for bytes in [stats.memory.current, stats.memory.file] {
        assert!(bytes.is_some_and(|bytes| bytes >= low && bytes < high), "{:?}", stats.memory);
    }
    assert!(stats.memory.anon.is_some_and(|bytes| bytes > Bytes::kib(100)), "{:?}", stats.memory);
    assert!(stats.memory.events.oom_kill == Some(0), "{:?}", stats.memory);
    // the shim, the shell, two sleeps
    assert_eq!((stats.pids.current, stats.pids.refused), (Some(4), Some(0)));
    assert_eq!(stats.io, None, "no controller of it was asked for");
    // the same descriptors again
    let open = fs::read_dir("/proc/self/fd")?.count();
    for _ in 0..3 {
        child.stats()?;
    }
    assert_eq!(fs::read_dir("/proc/self/fd")?.count(), open);
    child.kill(KillScope::Tree)?;
    let usage = child.wait()?.usage;
    // Linux 5.19 on v2
    let peak = has_v1("memory") || Need::Kernel(5, 19).probe().is_ok();
    assert!(!peak || usage.memory_peak.is_some_and(|bytes| bytes >= low), "{usage:?}");
    let error = refused(host().limits(CgroupLimits::none()).build()?.spawn(&sh("sleep 9"))?.stats())?;
    assert_kind(&error, ErrorKind::NotSupported);
    Ok(())
}

pub fn events_are_told() -> Fallible<()> {
    let builder = limited(limits().memory_max(Bytes::mib(24)).oom(OomKill::Process).pids_max(20));
    let builder = if has_v1("memory") { limited(limits().memory_max(Bytes::mib(24)).pids_max(20)) } else { builder };
    let builder = builder.mount(Mount::tmpfs("/tmp").bytes(Bytes::gib(1)));
    let script = "echo ready; sleep 0.3; (dd if=/dev/zero of=/tmp/file bs=1M); rm -f /tmp/file
                  (i=0; while [ $i -lt 50 ]; do sleep 1 & i=$((i+1)); done) 2>/dev/null; wait";
    let (child, _lines) = ready(builder, script)?;
    let mut events = child.events(&[])?;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let polled = |timeout| poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLIN)], timeout);
    assert_eq!(polled(PollTimeout::ZERO)?, 0);
    assert_eq!(polled(PollTimeout::from(30_000u16))?, 1);
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut seen = Vec::new();
    while !seen.contains(&Event::Empty) && Instant::now() < deadline {
        seen.extend(events.next_timeout(Some(Duration::from_secs(1)))?);
    }
    assert_eq!(events.next().map(|event| event.is_ok()), None, "behind the last");
    assert!(seen.contains(&Event::OutOfMemory), "{seen:?}");
    assert!(seen.iter().any(|event| matches!(event, Event::OomKill(1..))), "{seen:?}");
    assert!(seen.contains(&Event::PidsMax), "{seen:?} {:?}", child.stats()?);
    assert_eq!(seen.last(), Some(&Event::Empty));
    Ok(())
}

/// It may be gone before it has told that nobody is left, and its end is no want of memory.
pub fn events_end_with_the_group() -> Fallible<()> {
    let sandbox = limited(limits().memory_max(Bytes::mib(64))).build()?;
    for _ in 0..20 {
        let child = sandbox.spawn(&sh("sleep 60"))?;
        let mut events = child.events(&[])?;
        drop(child);
        assert_eq!(events.next_timeout(Some(Duration::from_secs(10)))?, Some(Event::Empty));
        assert_eq!(events.next_timeout(Some(Duration::from_secs(10)))?, None);
    }
    Ok(())
}

pub fn pressure_is_told() -> Fallible<()> {
    // two busy loops on a twentieth of a CPU wait nearly always
    let busy = "(while :; do :; done) & echo ready; while :; do :; done";
    let (child, _lines) = ready(limited(limits().cpus(0.05)), busy)?;
    let trigger = PressureTrigger::some(Resource::Cpu, Duration::from_millis(100), Duration::from_secs(2));
    let mut events = child.events(&[trigger])?;
    assert_eq!(events.next_timeout(Some(Duration::from_secs(20)))?, Some(Event::Pressure(trigger)));
    let pressure = child.stats()?.pressure.cpu.ok_or("no pressure")?;
    assert!(pressure.some.total > Duration::from_millis(100), "{pressure:?}");
    Ok(())
}

/// A real disk, at 1 MiB a second.
pub fn io_max_holds() -> Fallible<()> {
    let dir = crate::harness::TempDir::new()?;
    let run = |limits: CgroupLimits| -> Fallible<(Duration, Option<Vec<belljar::IoStats>>)> {
        let mut child = limited(limits)
            .mount(Mount::bind(dir.path(), "/mnt").idmapped())
            .build()?
            .spawn(&sh("exec dd if=/dev/zero of=/mnt/file bs=256k count=16 oflag=direct 2>/dev/null"))?;
        let start = Instant::now();
        let exit = child.wait()?;
        assert!(exit.success(), "{exit}");
        Ok((start.elapsed(), child.stats()?.io))
    };
    let bound = IoMax::device(dir.path()).write(Bytes::mib(1));
    let (slow, stats) = run(limits().io_max(bound.clone()))?;
    assert!(slow > Duration::from_secs(3) && slow < Duration::from_secs(20), "4 MiB in {slow:?}");
    let written = stats.ok_or("no io")?.iter().filter_map(|disk| disk.written).map(Bytes::get).sum::<u64>();
    assert!(written >= 4 << 20, "{written}");
    let (fast, _) = run(limits().io_max(bound.write(Limit::Max)))?;
    assert!(fast < Duration::from_secs(2), "control: {fast:?}");
    Ok(())
}
