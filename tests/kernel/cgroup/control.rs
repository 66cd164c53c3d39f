//! What is done with groups that exist: new limits, freezing, killing, sweeping, and what they hold.

use super::figures::{BUSY, cpu_usage};
use super::*;
use crate::common::*;
use crate::harness::Need;
use belljar::{
    Bytes, CgroupLimits, Child, Cpus, DeviceAccess, DeviceKind, DeviceNumbers, Devices, ErrorKind, KillScope, Limit,
    Mount, Namespaces, Pid, Weight, testing,
};
use std::fs;
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

/// Reaches the limit, and is gone in an instant.
pub fn fork_bomb() -> Fallible<()> {
    // copies of the shell itself, as in a real one; each waits for a line that nobody writes
    // (dash gives up at the first EAGAIN: in a shell of its own)
    let bomb = "mkfifo /tmp/f; exec 9<>/tmp/f; echo ready; \
                (i=0; while [ $i -lt 2000 ]; do (read x <&9) & i=$((i+1)); done) 2>/dev/null; exec sleep 60";
    // An emulated machine is many times slower, and one that does other work too by how much of it there is.
    let load = fs::read_to_string("/proc/loadavg")?.split(' ').next().map(str::parse::<f64>).ok_or("no load")??;
    let busy = (load / std::thread::available_parallelism()?.get() as f64).max(1.0);
    let (bound, tries) = if Need::Vm.probe().is_ok() { (10_000.0, 1) } else { (250.0 * busy, 5) };
    let bound = Duration::from_secs_f64(bound / 1000.0);
    let mut spans = Vec::new();
    for _ in 0..tries {
        let (mut child, _lines) = ready(limited(limits().pids_max(1000).cpu_weight(Weight::new(10_000))), bomb)?;
        let mut most = 0;
        let deadline = Instant::now() + Duration::from_secs(60);
        while most < 990 && Instant::now() < deadline && child.try_wait()?.is_none() {
            most = most.max(child.stats()?.pids.current.unwrap_or(0));
        }
        assert!((900..=1000).contains(&most), "{most}");
        let groups = groups_of(child.id())?;
        let start = Instant::now();
        child.kill(KillScope::Tree)?;
        child.wait()?;
        spans.push(start.elapsed());
        for group in &groups {
            assert_eq!(fs::read_to_string(group.join("cgroup.procs"))?, "", "{}", group.display());
        }
        if start.elapsed() < bound {
            return Ok(());
        }
    }
    Err(format!("1,000 processes ended within {spans:?}, not {bound:?}").into())
}

pub fn update_both_ways() -> Fallible<()> {
    let (mut child, _lines) = ready(limited(limits().memory_max(Bytes::mib(64)).cpus(0.2)), BUSY)?;
    let memory = if has_v1("memory") { "memory.limit_in_bytes" } else { "memory.max" };
    for mib in [32, 128, 16, 64] {
        child.update(&CgroupLimits::new().memory_max(Bytes::mib(mib)))?;
        assert_eq!(file(&child, memory)?, (mib << 20).to_string());
        if has_v1("memory") {
            assert_eq!(file(&child, "memory.memsw.limit_in_bytes")?, (mib << 20).to_string(), "no swap, as before");
        }
    }
    assert_eq!(file(&child, "pids.max")?, "128", "what is not set stays");
    let percent = |child: &Child| -> Fallible<f64> {
        let (start, before) = (Instant::now(), cpu_usage(child)?);
        std::thread::sleep(Duration::from_millis(1500));
        Ok(100.0 * (cpu_usage(child)? - before).as_secs_f64() / start.elapsed().as_secs_f64())
    };
    child.update(&CgroupLimits::new().cpus(Limit::Max))?;
    let free = percent(&child)?;
    child.update(&CgroupLimits::new().cpus(Cpus::quota(Duration::from_millis(2), Duration::from_millis(20))))?;
    let bound = percent(&child)?;
    assert!(free > 25.0 && bound < 16.0, "{free:.1} %, {bound:.1} %");
    Ok(())
}

pub fn update_is_all_or_nothing() -> Fallible<()> {
    let (mut child, _lines) =
        ready(limited(limits().memory_max(Bytes::mib(64)).cpus(0.2)), "echo ready; exec sleep 60")?;
    let names: &[&str] = match has_v1("memory") {
        true => &[
            "memory.limit_in_bytes",
            "memory.memsw.limit_in_bytes",
            "cpu.cfs_quota_us",
            "cpu.cfs_period_us",
            "pids.max",
        ],
        false => &["memory.max", "cpu.max", "pids.max", "cpu.weight"],
    };
    let all = |child: &Child| names.iter().map(|name| file(child, name)).collect::<Fallible<Vec<_>>>();
    let before = all(&child)?;
    // the raw key comes last, and no kernel has it
    let limits = CgroupLimits::new().memory_max(Bytes::mib(96)).cpus(1.5).cpu_weight(Weight::new(7)).pids_max(50);
    let error = refused(child.update(&limits.clone().unified("memory.no_such_file", "1")))?;
    assert!(error.hint().is_some(), "{error}");
    assert_eq!(all(&child)?, before);
    // control: without it they are taken
    child.update(&limits)?;
    assert_ne!(all(&child)?, before);
    assert_kind(&refused(child.update(&CgroupLimits::new().pids_max(0)))?, ErrorKind::InvalidSpec);
    let error = refused(child.update(&CgroupLimits::new().cpuset_cpus([0])))?;
    assert_kind(&error, ErrorKind::NotSupported);
    Ok(())
}

/// Random limits in range, each read back from the kernel's own files.
pub fn random_limits_are_read_back() -> Fallible<()> {
    let (mut child, _lines) =
        ready(limited(limits().memory_max(Bytes::gib(1)).cpus(1.0)), "echo ready; exec sleep 60")?;
    let v1 = has_v1("memory");
    let page = 4096;
    let seed = std::process::id() as u64 ^ Instant::now().elapsed().as_nanos() as u64;
    let mut state = seed | 1;
    let mut random = |below: u64| {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) % below
    };
    for round in 0..200 {
        let memory = (8 << 20) + random(1 << 40);
        let swap = random(1 << 40);
        let (quota, period) = (1000 + random(10_000_000), 1000 + random(999_001));
        let weight = 1 + random(10_000) as u32;
        let pids = 2 + random(4_000_000) as u32;
        let limits = CgroupLimits::new()
            .memory_max(Bytes::new(memory))
            .swap_max(Bytes::new(swap))
            .cpus(Cpus::quota(Duration::from_micros(quota), Duration::from_micros(period)))
            .cpu_weight(Weight::new(weight))
            .pids_max(pids);
        child.update(&limits).map_err(|error| format!("seed {seed:x}, round {round}: {error}: {limits:?}"))?;
        let pages = |bytes: u64| (bytes / page * page).to_string();
        let expected: Vec<(&str, String)> = match v1 {
            true => vec![
                ("memory.limit_in_bytes", pages(memory)),
                ("memory.memsw.limit_in_bytes", pages(memory + swap)),
                ("cpu.cfs_quota_us", quota.to_string()),
                ("cpu.cfs_period_us", period.to_string()),
                ("cpu.shares", ((weight * 1024 + 50) / 100).to_string()),
                ("pids.max", pids.to_string()),
            ],
            false => vec![
                ("memory.max", pages(memory)),
                ("memory.swap.max", pages(swap)),
                ("cpu.max", format!("{quota} {period}")),
                ("cpu.weight", weight.to_string()),
                ("pids.max", pids.to_string()),
            ],
        };
        for (name, value) in expected {
            assert_eq!(file(&child, name)?, value, "{name}, seed {seed:x}, round {round}");
        }
    }
    Ok(())
}

/// A device that the sandbox can reach by a bind, once with and once without a rule for it.
pub fn denied_devices() -> Fallible<()> {
    // 1:5 is /dev/zero, which the mounts allow
    let open = "dd if=/dev/zero of=/dev/null bs=1 count=1 2>/dev/null && echo opened; echo ran";
    let zero = DeviceNumbers::One(belljar::sys::path::Device { major: 1, minor: 5 });
    let null = DeviceNumbers::One(belljar::sys::path::Device { major: 1, minor: 3 });
    let all = DeviceAccess::READ | DeviceAccess::WRITE;
    let only_null = Devices::none().allow(DeviceKind::Character, null, all);
    let run = |devices: Devices| -> Fallible<String> {
        let output = limited(limits().devices(devices)).build()?.output(&sh(open))?;
        Ok(String::from_utf8(output.stdout)?)
    };
    assert_eq!(run(only_null.clone())?, "ran\n");
    // controls: with a rule, and by the standard
    assert_eq!(run(only_null.clone().allow(DeviceKind::Character, zero, DeviceAccess::READ))?, "opened\nran\n");
    assert_eq!(run(Devices::standard())?, "opened\nran\n");
    // for reading is not for writing
    let write = "dd if=/dev/null of=/dev/zero 2>/dev/null && echo written; echo ran";
    let output = limited(limits().devices(only_null.allow(DeviceKind::Character, zero, DeviceAccess::READ)));
    assert_eq!(output.build()?.output(&sh(write))?.stdout, b"ran\n");
    Ok(())
}

pub fn devices_take_a_privilege() -> Fallible<()> {
    let sandbox = limited(limits().devices(Devices::standard())).build()?;
    let error = refused(sandbox.spawn(&sh("true")))?;
    assert_kind(&error, ErrorKind::NotPermitted);
    Ok(())
}

/// By the freezer of the group, where there is no PID 1 to do it.
pub fn freeze_stops_the_clock() -> Fallible<()> {
    let (mut child, _lines) = ready(limited(limits()).init(belljar::Init::Payload), BUSY)?;
    let used = |child: &Child| cpu_usage(child);
    let mut frozen = child.freeze()?;
    let before = used(frozen.child())?;
    std::thread::sleep(Duration::from_millis(300));
    let after = used(frozen.child())?;
    assert!(after - before < Duration::from_millis(5), "{:?}", after - before);
    frozen.thaw()?;
    std::thread::sleep(Duration::from_millis(300));
    assert!(used(&child)? - after > Duration::from_millis(20), "control: {:?}", used(&child)? - after);
    // a frozen one can be killed
    let mut frozen = child.freeze()?;
    frozen.child().kill(KillScope::Tree)?;
    assert!(frozen.child().wait_timeout(Duration::from_secs(10))?.is_some());
    drop(frozen);
    Ok(())
}

pub fn freeze_and_kill_without_the_v2_tree() -> Fallible<()> {
    if !has_v1("freezer") {
        return Ok(()); // pure v2 has no other tree
    }
    without(testing::feature::CGROUP_V2, freeze_stops_the_clock)?;
    without(testing::feature::CGROUP_V2, kill_without_a_pid_namespace)
}

/// A process that the shim cannot find: it has left the session, and its parent has ended.
pub fn kill_without_a_pid_namespace() -> Fallible<()> {
    let namespaces = Namespaces::isolated().pid(Pid::Inherit);
    // /proc is the host's then, and cannot be mounted
    let mounts = belljar::Mounts::none().mount(Mount::dev("/dev"));
    let builder = limited(limits()).namespaces(namespaces).mounts(mounts).init(belljar::Init::Payload);
    let (mut child, _lines) = ready(builder, "(setsid sleep 60 >/dev/null 2>&1 &); echo ready; exec sleep 60")?;
    let groups = groups_of(child.id())?;
    let count = || -> Fallible<usize> { Ok(fs::read_to_string(groups[0].join("cgroup.procs"))?.lines().count()) };
    assert_eq!(count()?, 2);
    child.kill(KillScope::Tree)?;
    assert_eq!(count()?, 0);
    child.wait()?;
    Ok(())
}

pub fn kill_without_cgroup_kill() -> Fallible<()> {
    without(testing::feature::CGROUP_KILL, kill_without_a_pid_namespace)
}

/// The groups of a host that has been killed go; those of one that lives stay.
pub fn sweep_takes_the_dead_only() -> Fallible<()> {
    let mut host = std::process::Command::new(std::env::current_exe()?)
        .env("BELLJAR_TEST_HOST_DIES", "new")
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(host.stdout.as_mut().ok_or("no stdout")?).read_line(&mut line)?;
    assert_eq!(line, "running\n");
    let theirs = groups_named(host.id());
    let (own, _lines) = ready(limited(limits()), "echo ready; exec sleep 60")?;
    let ours = groups_of(own.id())?;
    assert!(!ours.is_empty());
    let swept = belljar::sweep();
    assert!(theirs.iter().chain(&ours).all(|group| group.exists()), "all owners live: {swept:?}");
    host.kill()?;
    host.wait()?;
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut removed = Vec::new();
    while theirs.iter().any(|group| group.exists()) && Instant::now() < deadline {
        removed.extend(belljar::sweep().removed);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(theirs.iter().all(|group| removed.contains(group)), "{theirs:?} {removed:?}");
    assert!(ours.iter().all(|group| group.exists()));
    Ok(())
}
