//! Control groups: limits from birth on, verdicts, figures, and that nothing is left.

use crate::common::*;
use crate::harness::{Need, Test};
use belljar::{
    Bytes, CgroupLimits, CgroupParent, Child, Cpus, DeviceAccess, DeviceKind, DeviceNumbers, Devices, ErrorKind, Event,
    IoMax, KillScope, Limit, Mount, Namespaces, OomKill, Pid, PressureTrigger, Resource, SandboxBuilder, Stdio,
    Verdict, Weight, testing,
};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub fn tests() -> Vec<Test> {
    const GROUPS: &[Need] = &[Need::UserNamespaces, Need::Groups];
    vec![
        Test::new("cgroup::born_in_its_own_group", GROUPS, born_in_its_own_group),
        Test::new("cgroup::limits_are_written", GROUPS, limits_are_written),
        Test::new("cgroup::default_is_128_processes", GROUPS, default_is_128_processes),
        Test::new("cgroup::out_of_memory", GROUPS, out_of_memory),
        Test::new("cgroup::a_fifth_of_a_cpu", GROUPS, a_fifth_of_a_cpu),
        Test::new("cgroup::cpus_as_affinity", GROUPS, cpus_as_affinity),
        Test::new("cgroup::fork_bomb", GROUPS, fork_bomb),
        Test::new("cgroup::stats_agree_with_getrusage", GROUPS, stats_agree_with_getrusage),
        Test::new("cgroup::stats_of_memory_and_processes", GROUPS, stats_of_memory_and_processes),
        Test::new("cgroup::update_both_ways", GROUPS, update_both_ways),
        Test::new("cgroup::update_is_all_or_nothing", GROUPS, update_is_all_or_nothing),
        Test::new("cgroup::random_limits_are_read_back", GROUPS, random_limits_are_read_back),
        Test::new("cgroup::denied_devices", &[Need::Root, Need::Groups], denied_devices),
        Test::new("cgroup::devices_take_a_privilege", &[Need::OrdinaryUser, Need::Groups], devices_take_a_privilege),
        Test::new("cgroup::freeze_stops_the_clock", GROUPS, freeze_stops_the_clock),
        Test::new("cgroup::kill_without_a_pid_namespace", GROUPS, kill_without_a_pid_namespace),
        Test::new("cgroup::kill_without_cgroup_kill", GROUPS, kill_without_cgroup_kill),
        Test::new(
            "cgroup::freeze_and_kill_without_the_v2_tree",
            &[Need::Root, Need::Groups],
            freeze_and_kill_without_the_v2_tree,
        ),
        Test::new("cgroup::sweep_takes_the_dead_only", GROUPS, sweep_takes_the_dead_only),
        Test::new("cgroup::events_are_told", GROUPS, events_are_told),
        Test::new("cgroup::pressure_is_told", GROUPS, pressure_is_told),
        Test::new("cgroup::io_max_holds", &[Need::Vm, Need::Root, Need::Groups, Need::Kernel(5, 12)], io_max_holds),
        Test::new("cgroup::each_step_fails_cleanly", GROUPS, each_step_fails_cleanly),
        Test::new("cgroup::refused_with_a_remedy", &[Need::UserNamespaces], refused_with_a_remedy),
        Test::new("cgroup::without_the_v2_tree", &[Need::Root, Need::Groups], without_the_v2_tree),
        Test::new("cgroup::threads_make_groups_at_once", GROUPS, threads_make_groups_at_once),
    ]
}

/// Limits in a group for which the caller may be moved, as [`prepare`] has done.
pub fn limits() -> CgroupLimits {
    CgroupLimits::new().parent(CgroupParent::own().move_caller())
}

fn limited(limits: CgroupLimits) -> SandboxBuilder {
    host().limits(limits)
}

/// What `Need::Groups` asks for.
pub fn attempt() -> Result<(), String> {
    let limits = limits().memory_max(Bytes::mib(64)).cpus(0.5).pids_max(64);
    let attempt = limited(limits).build().and_then(|sandbox| sandbox.status(&sh("true")));
    attempt.map(drop).map_err(|error| error.to_string())
}

/// Lets the move of this process, where it takes one, happen before the first leak check.
pub fn prepare() {
    drop(attempt());
}

/// A sandbox that has said `ready`, and its output.
fn ready(builder: SandboxBuilder, script: &str) -> Fallible<(Child, BufReader<std::io::PipeReader>)> {
    let mut command = sh(script);
    command.stdout(Stdio::Piped);
    let mut child = builder.build()?.spawn(&command)?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    assert_eq!(line, "ready\n");
    Ok((child, lines))
}

/// The directories of a process's groups that belljar has made.
fn groups_of(pid: u32) -> Fallible<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mut found = Vec::new();
    for line in fs::read_to_string(format!("/proc/{pid}/cgroup"))?.lines() {
        let mut fields = line.splitn(3, ':');
        let (number, names, path) = (fields.next(), fields.next(), fields.next().unwrap_or_default());
        let Some(at) = path.find("belljar-").filter(|at| !path[*at..].starts_with("belljar-caller-")) else { continue };
        assert!(at > 0);
        let mount = mounts.lines().find(|mount| match number {
            Some("0") => mount.contains(" - cgroup2 "),
            _ => {
                mount.contains(" - cgroup ")
                    && mount.split(' ').next_back() == Some(&format!("rw,{}", names.unwrap_or_default()))
            }
        });
        let mount = mount.ok_or(format!("no mount for {line}"))?;
        found.push(PathBuf::from(format!("{}{path}", mount.split(' ').nth(4).unwrap_or_default())));
    }
    Ok(found)
}

/// The content of the file of this name in one of its groups.
fn file(child: &Child, name: &str) -> Fallible<String> {
    let groups = groups_of(child.id())?;
    let found = groups.iter().find_map(|group| fs::read_to_string(group.join(name)).ok());
    Ok(found.ok_or(format!("{name} is in none of {groups:?}"))?.trim().to_owned())
}

fn has_v1(controller: &str) -> bool {
    fs::read_to_string("/proc/self/mountinfo").is_ok_and(|text| {
        text.lines().any(|l| {
            l.contains(" - cgroup ") && l.rsplit(' ').next().is_some_and(|o| o.split(',').any(|c| c == controller))
        })
    })
}

fn born_in_its_own_group() -> Fallible<()> {
    // the namespace's root is the sandbox's own group, in every hierarchy that it has one in
    let limits = limits().memory_max(Bytes::mib(64)).cpus(0.5);
    let (mut child, mut lines) = ready(limited(limits), "echo ready; cat /proc/self/cgroup; sleep 0.2")?;
    let groups = groups_of(child.id())?;
    assert!(!groups.is_empty());
    let mut inside = String::new();
    lines.read_to_string(&mut inside)?;
    for controller in ["memory", "pids", "cpu"] {
        let line = inside.lines().find(|l| match has_v1(controller) {
            true => l.split(':').nth(1).is_some_and(|names| names.split(',').any(|n| n == controller)),
            false => l.starts_with("0::"),
        });
        assert!(line.is_some_and(|line| line.ends_with(":/")), "{controller}: {inside}");
    }
    // the payload's pid and the shim's are both there
    assert!(child.wait()?.success());
    drop(child);
    for group in groups {
        assert!(!group.exists(), "{}", group.display());
    }
    Ok(())
}

fn limits_are_written() -> Fallible<()> {
    let limits = limits().memory_max(Bytes::mib(48)).cpus(0.2).pids_max(77).cpu_weight(Weight::new(50));
    let (child, _lines) = ready(limited(limits), "echo ready; exec sleep 60")?;
    let expected: [(&str, &str, &str); 4] = match has_v1("memory") {
        true => [
            ("memory.limit_in_bytes", "50331648", ""),
            ("cpu.cfs_quota_us", "20000", ""),
            ("cpu.shares", "512", ""),
            ("pids.max", "77", ""),
        ],
        false => [
            ("memory.max", "50331648", ""),
            ("cpu.max", "20000 100000", ""),
            ("cpu.weight", "50", ""),
            ("pids.max", "77", ""),
        ],
    };
    for (name, value, _) in expected {
        assert_eq!(file(&child, name)?, value, "{name}");
    }
    assert_eq!(child.notes(), [""; 0]);
    Ok(())
}

/// Starts processes until it may not.
const BOMB: &str = "i=0; while [ $i -lt 300 ]; do sleep 60 & i=$((i+1)); done 2>/dev/null; echo all";

fn default_is_128_processes() -> Fallible<()> {
    // the shell gives up when fork(2) says EAGAIN
    let default = host().limits(limits());
    let output = default.build()?.output(&sh(BOMB))?;
    assert!(!text(&output).contains("all"), "{}", text(&output));
    let output = host().limits(limits().pids_max(Limit::Max)).build()?.output(&sh(BOMB))?;
    assert!(text(&output).contains("all"), "control: {}", text(&output));
    // a sandbox that says nothing has the same, or a note
    let child = host().build()?.spawn(&sh("sleep 60"))?;
    match file(&child, "pids.max") {
        Ok(max) => assert_eq!((max.as_str(), child.notes().len()), ("128", 0)),
        Err(_) => assert!(child.notes().iter().any(|note| note.contains("128 processes")), "{:?}", child.notes()),
    }
    let child = host().limits(CgroupLimits::none()).build()?.spawn(&sh("sleep 60"))?;
    assert_eq!((groups_of(child.id())?.len(), child.notes().len()), (0, 0));
    Ok(())
}

/// What this program does in a sandbox, run anew with `BELLJAR_TEST_HOG`.
pub fn hog(kind: &str) -> ! {
    let block = vec![1u8; 1 << 20];
    match kind {
        "heap" => {
            let mut all = Vec::new();
            loop {
                all.push(block.clone());
            }
        }
        _ => {
            let flags = nix::sys::memfd::MFdFlags::empty();
            let mut file = fs::File::from(nix::sys::memfd::memfd_create(c"hog", flags).expect("a memfd"));
            loop {
                file.write_all(&block).expect("memory, or death");
            }
        }
    }
}

fn out_of_memory() -> Fallible<()> {
    let program = std::env::current_exe()?;
    let small = || {
        limited(limits().memory_max(Bytes::mib(24)))
            .mount(Mount::tmpfs("/tmp").bytes(Bytes::gib(1)))
            .mount(Mount::bind(&program, "/tmp/hog").read_only())
    };
    let (mut neighbour, _lines) = ready(small(), "echo ready; exec sleep 60")?;
    for kind in ["heap", "tmpfs", "memfd"] {
        let mut command = match kind {
            "tmpfs" => sh("exec dd if=/dev/zero of=/tmp/file bs=1M"),
            _ => belljar::Command::new("/tmp/hog"),
        };
        command.env("BELLJAR_TEST_HOG", kind);
        let exit = small().build()?.status(&command)?;
        assert_eq!(exit.verdict, Verdict::OomKilled, "{kind}: {exit}");
    }
    assert_eq!(neighbour.try_wait()?, None);
    neighbour.kill(KillScope::Tree)?;
    assert_eq!(neighbour.wait()?.verdict, Verdict::KilledByHandle);
    // control: the same with enough
    let limits = limits().memory_max(Bytes::mib(256));
    let exit = limited(limits)
        .mount(Mount::tmpfs("/tmp").bytes(Bytes::gib(1)))
        .build()?
        .status(&sh("exec dd if=/dev/zero of=/tmp/file bs=1M count=50"))?;
    assert_eq!(exit.verdict, Verdict::Exited(0));
    Ok(())
}

fn each_step_fails_cleanly() -> Fallible<()> {
    struct Faults;
    impl Drop for Faults {
        fn drop(&mut self) {
            testing::fail_at(None);
        }
    }
    let sandbox = limited(limits().memory_max(Bytes::mib(64)).cpus(0.5)).build()?;
    assert!(sandbox.status(&sh("true"))?.success(), "control");
    let steps = sandbox.explain(&sh("true"))?.to_string().lines().count() as u32;
    let _restore = Faults;
    for index in 0..steps {
        testing::fail_at(Some(index));
        let error = refused(sandbox.spawn(&sh("true")))?;
        assert_eq!(error.step().map(|step| step.number()), Some(index + 1), "{error}");
        let left = groups_named(std::process::id());
        assert!(left.is_empty(), "after step {index}: {left:?}");
    }
    Ok(())
}

/// Groups that a process of this number has made here, by their names.
fn groups_named(pid: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with(&format!("belljar-{pid}-")) {
                    found.push(entry.path());
                }
                pending.push(entry.path());
            }
        }
    }
    found
}

fn refused_with_a_remedy() -> Fallible<()> {
    let limits = CgroupLimits::new().memory_max(Bytes::mib(64)).parent(CgroupParent::at("/belljar/no/such/group"));
    let error = match limited(limits).build() {
        Ok(sandbox) => refused(sandbox.spawn(&sh("true")))?,
        Err(error) => error, // v2: the group has no controllers
    };
    assert!([ErrorKind::NotFound, ErrorKind::NotSupported].contains(&error.kind()), "{error}");
    assert!(error.hint().is_some(), "{error}");
    let error = refused(limited(CgroupLimits::new().pids_max(0).cpus(0.001)).build())?;
    assert_kind(&error, ErrorKind::InvalidSpec);
    assert_eq!(error.defects().len(), 2, "{error}");
    // too few for the shim and the payload
    if Need::Groups.probe().is_ok() {
        let error = refused(limited(self::limits().pids_max(1)).build()?.spawn(&sh("true")))?;
        assert_kind(&error, ErrorKind::LimitReached);
    }
    Ok(())
}

/// As on a host with v1 alone.
fn without_the_v2_tree() -> Fallible<()> {
    if !has_v1("memory") {
        return Ok(()); // pure v2 has no other tree
    }
    without(testing::feature::CGROUP_V2, || {
        let (child, _lines) = ready(limited(limits().memory_max(Bytes::mib(64))), "echo ready; exec sleep 60")?;
        let groups = groups_of(child.id())?;
        assert!(groups.iter().all(|group| !group.starts_with("/sys/fs/cgroup/unified")), "{groups:?}");
        assert!(groups.iter().any(|group| group.starts_with("/sys/fs/cgroup/freezer")), "{groups:?}");
        Ok(())
    })
}

fn threads_make_groups_at_once() -> Fallible<()> {
    let sandbox = limited(limits().memory_max(Bytes::mib(64))).build()?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..64)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..3 {
                        let exit = sandbox.status(&sh("exit 7")).map_err(|error| error.to_string())?;
                        if exit.code() != Some(7) {
                            return Err(exit.to_string());
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "panicked".to_owned())?)
    })?;
    let left = groups_named(std::process::id());
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

const BUSY: &str = "echo ready; while :; do :; done";

fn cpu_usage(child: &Child) -> Fallible<Duration> {
    Ok(child.stats()?.cpu.usage.ok_or("no usage of CPU time")?)
}

/// Quota 20000 of each 100000, over three seconds, by accounting.
fn a_fifth_of_a_cpu() -> Fallible<()> {
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

/// Reaches the limit, and is gone in an instant.
fn fork_bomb() -> Fallible<()> {
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

fn stats_agree_with_getrusage() -> Fallible<()> {
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

fn stats_of_memory_and_processes() -> Fallible<()> {
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

fn update_both_ways() -> Fallible<()> {
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

fn update_is_all_or_nothing() -> Fallible<()> {
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
fn random_limits_are_read_back() -> Fallible<()> {
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
fn denied_devices() -> Fallible<()> {
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

fn devices_take_a_privilege() -> Fallible<()> {
    let sandbox = limited(limits().devices(Devices::standard())).build()?;
    let error = refused(sandbox.spawn(&sh("true")))?;
    assert_kind(&error, ErrorKind::NotPermitted);
    Ok(())
}

/// By the freezer of the group, where there is no PID 1 to do it.
fn freeze_stops_the_clock() -> Fallible<()> {
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

fn freeze_and_kill_without_the_v2_tree() -> Fallible<()> {
    if !has_v1("freezer") {
        return Ok(()); // pure v2 has no other tree
    }
    without(testing::feature::CGROUP_V2, freeze_stops_the_clock)?;
    without(testing::feature::CGROUP_V2, kill_without_a_pid_namespace)
}

/// A process that the shim cannot find: it has left the session, and its parent has ended.
fn kill_without_a_pid_namespace() -> Fallible<()> {
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

fn kill_without_cgroup_kill() -> Fallible<()> {
    without(testing::feature::CGROUP_KILL, kill_without_a_pid_namespace)
}

/// The groups of a host that has been killed go; those of one that lives stay.
fn sweep_takes_the_dead_only() -> Fallible<()> {
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

fn events_are_told() -> Fallible<()> {
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

fn pressure_is_told() -> Fallible<()> {
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
fn io_max_holds() -> Fallible<()> {
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

fn cpus_as_affinity() -> Fallible<()> {
    let seen = |limits: CgroupLimits| -> Fallible<usize> { Ok(prints(&limited(limits).build()?, "nproc")?.parse()?) };
    let all = std::thread::available_parallelism()?.get();
    assert_eq!(seen(limits().cpus(0.2).cpus_as_affinity())?, 1);
    assert_eq!(seen(limits().cpus(0.2))?, all, "control");
    assert_eq!(seen(limits().cpus(all as f64).cpus_as_affinity())?, all);
    Ok(())
}
