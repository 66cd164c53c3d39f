//! Control groups: limits from birth on, verdicts, figures, and that nothing is left.

mod control;
mod figures;
mod rare;
mod scope;

use crate::common::*;
use crate::harness::{Need, Test};
use belljar::{
    Bytes, CgroupLimits, CgroupParent, Child, ErrorKind, KillScope, Limit, Mount, OomKill, SandboxBuilder, Verdict,
    Weight, testing,
};
use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;

pub use rare::{attempt as attempt_spare_v1, with_v1_mounted};
pub use scope::in_a_scope;

pub fn tests() -> Vec<Test> {
    const GROUPS: &[Need] = &[Need::UserNamespaces, Need::Groups];
    vec![
        Test::new("cgroup::born_in_its_own_group", GROUPS, born_in_its_own_group),
        Test::new("cgroup::limits_are_written", GROUPS, limits_are_written),
        Test::new("cgroup::default_is_128_processes", GROUPS, default_is_128_processes),
        Test::new("cgroup::out_of_memory", GROUPS, out_of_memory),
        Test::new("cgroup::out_of_memory_without_descriptors", GROUPS, out_of_memory_without_descriptors),
        Test::new("cgroup::out_of_memory_in_one_that_entered", GROUPS, out_of_memory_in_one_that_entered),
        Test::new("cgroup::a_fifth_of_a_cpu", GROUPS, figures::a_fifth_of_a_cpu),
        Test::new("cgroup::cpus_as_affinity", GROUPS, cpus_as_affinity),
        Test::new("cgroup::fork_bomb", GROUPS, control::fork_bomb),
        Test::new("cgroup::stats_agree_with_getrusage", GROUPS, figures::stats_agree_with_getrusage),
        Test::new("cgroup::stats_of_memory_and_processes", GROUPS, figures::stats_of_memory_and_processes),
        Test::new("cgroup::update_both_ways", GROUPS, control::update_both_ways),
        Test::new("cgroup::update_is_all_or_nothing", GROUPS, control::update_is_all_or_nothing),
        Test::new("cgroup::random_limits_are_read_back", GROUPS, control::random_limits_are_read_back),
        Test::new("cgroup::denied_devices", &[Need::Root, Need::Groups], control::denied_devices),
        Test::new(
            "cgroup::devices_take_a_privilege",
            &[Need::OrdinaryUser, Need::Groups],
            control::devices_take_a_privilege,
        ),
        Test::new("cgroup::freeze_stops_the_clock", GROUPS, control::freeze_stops_the_clock),
        Test::new("cgroup::kill_without_a_pid_namespace", GROUPS, control::kill_without_a_pid_namespace),
        Test::new("cgroup::kill_without_cgroup_kill", GROUPS, control::kill_without_cgroup_kill),
        Test::new(
            "cgroup::freeze_and_kill_without_the_v2_tree",
            &[Need::Root, Need::Groups],
            control::freeze_and_kill_without_the_v2_tree,
        ),
        Test::new("cgroup::sweep_takes_the_dead_only", GROUPS, control::sweep_takes_the_dead_only),
        Test::new("cgroup::events_are_told", GROUPS, figures::events_are_told),
        Test::new("cgroup::events_end_with_a_group_that_is_gone", GROUPS, figures::events_end_with_the_group),
        Test::new("cgroup::pressure_is_told", GROUPS, figures::pressure_is_told),
        Test::new(
            "cgroup::io_max_holds",
            &[Need::Vm, Need::Root, Need::Groups, Need::Kernel(5, 12)],
            figures::io_max_holds,
        ),
        Test::new("cgroup::systemd_scope", &[Need::Systemd], scope::systemd_scope),
        Test::new("cgroup::each_step_fails_cleanly", GROUPS, each_step_fails_cleanly),
        Test::new("cgroup::huge_pages", &[Need::Root, Need::Groups], rare::huge_pages),
        Test::new(
            "cgroup::pages_and_devices_that_are_not_there",
            &[Need::Root, Need::Groups],
            rare::pages_and_devices_that_are_not_there,
        ),
        Test::new("cgroup::of_v1_only", &[Need::Root, Need::SpareV1], rare::of_v1_only),
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

fn cpus_as_affinity() -> Fallible<()> {
    let seen = |limits: CgroupLimits| -> Fallible<usize> { Ok(prints(&limited(limits).build()?, "nproc")?.parse()?) };
    let all = std::thread::available_parallelism()?.get();
    assert_eq!(seen(limits().cpus(0.2).cpus_as_affinity())?, 1);
    assert_eq!(seen(limits().cpus(0.2))?, all, "control");
    assert_eq!(seen(limits().cpus(all as f64).cpus_as_affinity())?, all);
    Ok(())
}

const HOG: &str = "x=a; while :; do x=$x$x; done";

/// The evidence is at hand when nothing more can be opened.
fn out_of_memory_without_descriptors() -> Fallible<()> {
    let mut child = limited(limits().memory_max(Bytes::mib(24))).build()?.spawn(&sh(HOG))?;
    let few = Exhausted::but(0)?;
    let exit = child.wait();
    drop(few);
    assert_eq!(exit?.verdict, Verdict::OomKilled);
    Ok(())
}

fn out_of_memory_in_one_that_entered() -> Fallible<()> {
    let one = if has_v1("memory") { limits() } else { limits().oom(OomKill::Process) };
    let mut child = limited(one.memory_max(Bytes::mib(24))).build()?.spawn(&sh("exec sleep 60"))?;
    assert_eq!(child.enter(&sh(HOG))?.wait()?.verdict, Verdict::OomKilled);
    // and one that is killed otherwise, after that
    assert_eq!(child.enter(&sh("kill -9 $$"))?.wait()?.verdict, Verdict::Signaled(9));
    assert_eq!(child.try_wait()?, None);
    Ok(())
}
