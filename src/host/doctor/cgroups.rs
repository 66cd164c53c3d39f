//! Control groups: which hierarchies there are, and whether the caller may make groups
//! below its own, attempted by making one and removing it.
//!
//! Contract: cgroups(7), `Documentation/admin-guide/cgroup-v2.rst`.

use super::remote::Remote;
use super::{Bench, Finding, Outcome, Topic};
use crate::host::cgroups::{Hierarchy as Group, hierarchies};
use crate::host::mountinfo;
use crate::sys::Errno;
use crate::sys::namespace::NamespaceFlags;
use procfs::process::MountInfo;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

pub(super) fn examine(bench: &mut Bench) {
    let mounts = mountinfo::mounts().unwrap_or_default();
    let groups = hierarchies(&mounts);
    bench.push(layout(&mounts, &groups));
    let limiting = groups.iter().filter(|group| !group.controllers.iter().any(|name| name.contains('=')));
    let made: Vec<_> = limiting.map(|group| (group, Made::new(&group.own))).collect();
    bench.push(making(&made));
    let v2 = made.iter().find(|(group, _)| group.v2);
    bench.push(starting(bench, v2));
    bench.push(controllers(v2));
}

fn layout(mounts: &[MountInfo], groups: &[Group]) -> Finding {
    const NAME: &str = "layout";
    let has = |fstype| mounts.iter().any(|mount| mount.fs_type == fstype);
    let v1: Vec<_> = groups.iter().filter(|group| !group.v2).map(|group| group.controllers.join(",")).collect();
    let v2 = groups.iter().find(|group| group.v2).map(|group| group.own.display().to_string());
    let v2 = v2.unwrap_or_else(|| "a part of the hierarchy that is not mounted here".into());
    let (outcome, detail) = match (has("cgroup"), has("cgroup2")) {
        (false, true) => (Outcome::Works, format!("v2; the caller is in {v2}")),
        (true, true) => (Outcome::Works, format!("hybrid: v1 for {}, and v2; the caller is in {v2}", v1.join(" "))),
        (true, false) => (Outcome::Restricted, format!("v1 only: {}", v1.join(" "))),
        (false, false) => (Outcome::Missing, "no cgroup file system is mounted".into()),
    };
    let finding = Finding::new(Topic::Cgroups, NAME, outcome, detail);
    match outcome {
        Outcome::Works => finding,
        Outcome::Missing => finding.with_remedy("mount -t cgroup2 cgroup2 /sys/fs/cgroup, or sandboxes without limits"),
        _ => finding.with_remedy(
            "mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified (Linux 4.5), to kill and freeze whole groups",
        ),
    }
}

/// A group made for an attempt; removed when dropped.
struct Made(PathBuf);

impl Made {
    /// By a name that no other thread, process or container has, nor one that was killed here.
    fn new(parent: &Path) -> io::Result<Made> {
        let mut last = io::Error::from_raw_os_error(libc::EEXIST);
        for number in 0..16 {
            let path = parent.join(format!("belljar-doctor-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Made(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // a process that has just ended can keep it for a moment (EBUSY)
        for _ in 0..100 {
            match fs::remove_dir(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                _ => return,
            }
        }
    }
}

fn making(made: &[(&Group, io::Result<Made>)]) -> Finding {
    const NAME: &str = "own groups";
    let name = |group: &Group| if group.v2 { "v2".to_owned() } else { group.controllers.join(",") };
    let good: Vec<_> = made.iter().filter(|(_, made)| made.is_ok()).map(|(group, _)| name(group)).collect();
    let bad: Vec<_> = made.iter().filter_map(|(group, made)| Some((*group, made.as_ref().err()?))).collect();
    let Some((group, error)) = bad.first() else {
        let detail = format!("mkdir(2) below the caller's: {}", good.join(" "));
        return match good.is_empty() {
            true => Finding::untried(Topic::Cgroups, NAME, "the caller's groups are not to be seen here"),
            false => Finding::new(Topic::Cgroups, NAME, Outcome::Works, detail),
        };
    };
    let errno = error.raw_os_error().map_or_else(|| error.to_string(), |e| Errno(e).to_string());
    let outcome = if good.is_empty() { Outcome::Refused } else { Outcome::Restricted };
    let names: Vec<_> = bad.iter().map(|(group, _)| name(group)).collect();
    let detail = format!("mkdir(2) in {}: {errno}; refused for {}", group.own.display(), names.join(" "));
    let remedy = match (group.v2, error.raw_os_error()) {
        (_, Some(libc::EROFS)) => "a writable /sys/fs/cgroup: in Docker --cgroupns=private with a writable bind of it",
        (true, _) => "systemd-run --user --scope -p Delegate=yes, or Delegate=yes for the service",
        (false, _) => "root, or a directory of each hierarchy given to the user",
    };
    Finding::new(Topic::Cgroups, NAME, outcome, detail).with_remedy(format!("{remedy}; or sandboxes without limits"))
}

fn starting(bench: &Bench, v2: Option<&(&Group, io::Result<Made>)>) -> Finding {
    const NAME: &str = "start in a group";
    let (Some((_, Ok(Made(path)))), Some(program)) = (v2, &bench.program) else {
        return Finding::untried(Topic::Cgroups, NAME, "there is no v2 group of the caller's own to start one in");
    };
    let started = File::open(path)
        .map_err(Errno::of)
        .and_then(|group| Remote::start(program.as_fd(), NamespaceFlags::empty(), Some(group.as_fd())));
    let tried = "clone3(2) with CLONE_INTO_CGROUP";
    Finding::attempt(Topic::Cgroups, NAME, tried, started.map(drop), |errno| match errno {
        Errno::EACCES | Errno::EPERM => {
            "write access to cgroup.procs of the nearest group around both: start from within the delegated group"
                .into()
        }
        Errno::EBUSY => "a group whose subtree_control is empty".into(),
        _ => "Linux 5.7; processes are moved after their start meanwhile".into(),
    })
}

/// The controllers that limits are set by.
const LIMITS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

fn controllers(v2: Option<&(&Group, io::Result<Made>)>) -> Finding {
    const NAME: &str = "controllers";
    let Some((group, Ok(Made(path)))) = v2 else {
        return Finding::untried(Topic::Cgroups, NAME, "there is no v2 group of the caller's own");
    };
    let words = |path: PathBuf| -> Vec<String> {
        fs::read_to_string(path).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let (own, around) = (words(path.join("cgroup.controllers")), words(group.own.join("cgroup.controllers")));
    let files = ["cgroup.kill", "cgroup.freeze"].map(|file| (file, path.join(file).exists()));
    let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(" ") };
    let kill: Vec<_> = files.iter().map(|(name, there)| format!("{}{name}", if *there { "" } else { "no " })).collect();
    let detail = format!("v2 below the caller's: {}; in it: {}; {}", list(&own), list(&around), kill.join(", "));
    let finding = |outcome| Finding::new(Topic::Cgroups, NAME, outcome, detail.clone());
    let useful = around.iter().filter(|name| LIMITS.contains(&name.as_str()) && !own.contains(name));
    let missing: Vec<_> = useful.map(|name| format!("+{name}")).collect();
    if !missing.is_empty() {
        return finding(Outcome::Restricted).with_remedy(format!(
            "echo {} > {}/cgroup.subtree_control, once no process is in that group itself",
            missing.join(" "),
            group.own.display()
        ));
    }
    if files.iter().any(|(_, there)| !there) {
        return finding(Outcome::Restricted).with_remedy(
            "Linux 5.14 for cgroup.kill, 5.2 for cgroup.freeze; processes are killed one by one meanwhile",
        );
    }
    finding(Outcome::Works)
}
