//! The control group hierarchies that the caller sees, and its own group in each.
//!
//! A host has v1 hierarchies, each with its controllers, one v2 hierarchy, or both
//! (hybrid). A mount may show only a part of one, as in a container.
//!
//! Contract: cgroups(7), proc_pid_mountinfo(5), cgroup_namespaces(7).

use procfs::process::MountInfo;
use procfs::{FromRead, ProcessCGroup, ProcessCGroups};
use std::path::{Path, PathBuf};

/// A hierarchy, and the caller's group in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// What a v1 hierarchy controls; empty for v2, whose groups say so themselves.
    pub controllers: Vec<String>,
    pub v2: bool,
    /// Where it is mounted.
    pub root: PathBuf,
    /// The caller's group.
    pub own: PathBuf,
}

/// The hierarchies in which the calling thread's group can be seen.
pub(crate) fn visible() -> Vec<Hierarchy> {
    hierarchies(&super::mountinfo::mounts().unwrap_or_default())
}

/// The same, of mounts that are at hand.
pub(super) fn hierarchies(mounts: &[MountInfo]) -> Vec<Hierarchy> {
    let own = ProcessCGroups::from_file("/proc/thread-self/cgroup");
    of(mounts, &own.map_or_else(|_| Vec::new(), |ProcessCGroups(own)| own))
}

fn of(mounts: &[MountInfo], own: &[ProcessCGroup]) -> Vec<Hierarchy> {
    let mounts = mounts.iter().filter(|mount| matches!(mount.fs_type.as_str(), "cgroup" | "cgroup2"));
    let mut found: Vec<Hierarchy> = Vec::new();
    for hierarchy in mounts.filter_map(|mount| hierarchy(mount, own)) {
        // a hierarchy may be mounted more than once
        if !found.iter().any(|other| other.v2 == hierarchy.v2 && other.controllers == hierarchy.controllers) {
            found.push(hierarchy);
        }
    }
    found
}

fn hierarchy(mount: &MountInfo, own: &[ProcessCGroup]) -> Option<Hierarchy> {
    let v2 = mount.fs_type == "cgroup2";
    let member = own.iter().find(|member| match (v2, member.hierarchy) {
        (true, 0) => true,
        (false, 1..) => !member.controllers.is_empty() && member.controllers.iter().all(|name| has_option(mount, name)),
        _ => false,
    })?;
    // a mount may show a part of the hierarchy, and the group may be outside of it, or of
    // the cgroup namespace (`/..`)
    let path = Path::new(&member.pathname);
    if path.starts_with("/..") {
        return None;
    }
    let inner = path.strip_prefix(&mount.root).ok()?;
    let controllers = if v2 { Vec::new() } else { member.controllers.clone() };
    let root = mount.mount_point.clone();
    let mut own = root.clone();
    own.extend(inner);
    Some(Hierarchy { controllers, v2, root, own })
}

/// `name=systemd` is an option with a value.
fn has_option(mount: &MountInfo, name: &str) -> bool {
    match name.split_once('=') {
        None => mount.super_options.contains_key(name),
        Some((key, value)) => mount.super_options.get(key).is_some_and(|v| v.as_deref() == Some(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directories(mountinfo: &[&str], cgroup: &str) -> Vec<(bool, String)> {
        let mounts: Vec<_> = mountinfo.iter().map(|line| MountInfo::from_line(line).expect("a line")).collect();
        let ProcessCGroups(own) = ProcessCGroups::from_read(cgroup.as_bytes()).expect("lines of cgroup");
        of(&mounts, &own).into_iter().map(|h| (h.v2, h.own.display().to_string())).collect()
    }

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate";

    #[test]
    fn a_pure_v2_hierarchy() {
        assert_eq!(directories(&[V2], "0::/user.slice/a b\n"), [(true, "/sys/fs/cgroup/user.slice/a b".into())]);
        assert_eq!(directories(&[V2], "0::/\n"), [(true, "/sys/fs/cgroup".into())]);
    }

    #[test]
    fn a_hybrid_by_controllers_whatever_their_order() {
        let mounts = [
            "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
            "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd",
            "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
        ];
        let found = directories(&mounts, "3:cpuacct,cpu:/a\n1:name=systemd:/b\n0::/c\n2:pids:/d\n");
        let expected = [(false, "cpu,cpuacct/a"), (false, "systemd/b"), (true, "unified/c")];
        assert_eq!(found, expected.map(|(v2, path)| (v2, format!("/sys/fs/cgroup/{path}"))));
    }

    #[test]
    fn what_a_mount_does_not_show_is_not_guessed() {
        const PART: &str = "30 23 0:26 /docker/1 /sys/fs/cgroup ro - cgroup2 cgroup2 rw";
        assert_eq!(directories(&[PART], "0::/docker/1/x\n"), [(true, "/sys/fs/cgroup/x".into())]);
        assert_eq!(directories(&[PART], "0::/docker/2\n"), []);
        assert_eq!(directories(&[V2], "0::/../other\n"), []);
        assert_eq!(directories(&[], "0::/\n"), []);
        assert_eq!(directories(&[V2, V2], "0::/a\n").len(), 1, "one group, however often it is mounted");
    }
}
