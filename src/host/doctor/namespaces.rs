//! Namespaces, each made and thrown away again, and the id map of a user namespace.
//!
//! An ordinary user can make the other kinds inside a new user namespace only, which root's
//! sandboxes have as well: so they are attempted there, and without one only where there
//! is no other way. Contract: namespaces(7), user_namespaces(7), time_namespaces(7).

use super::kernel::NO_PROCESS;
use super::remote::{Arg, Remote};
use super::{Bench, Finding, Outcome, Topic};
use crate::host::Host;
use crate::sys::kernel::raw::nr;
use crate::sys::namespace::NamespaceFlags;
use crate::sys::{Errno, Result};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsFd;

/// A kind of namespace.
struct Kind {
    name: &'static str,
    flag: NamespaceFlags,
    /// As `CONFIG_…_NS` and `user.max_…_namespaces` name it.
    word: &'static str,
    /// How a sandbox does without a new one.
    without: &'static str,
}

/// Those that clone3(2) makes.
const BY_CLONE: [Kind; 5] = [
    // not an option of the kernel's configuration: there since Linux 2.4.19
    Kind { name: "mount namespace", flag: NamespaceFlags::MOUNT, word: "mnt", without: "RootFs::inherit()" },
    Kind { name: "pid namespace", flag: NamespaceFlags::PID, word: "pid", without: "Pid::Inherit" },
    Kind { name: "network namespace", flag: NamespaceFlags::NET, word: "net", without: "Net::Inherit" },
    Kind { name: "IPC namespace", flag: NamespaceFlags::IPC, word: "ipc", without: "Ipc::Inherit" },
    Kind { name: "UTS namespace", flag: NamespaceFlags::UTS, word: "uts", without: "Uts::Inherit" },
];

/// Those that a process makes for itself: time cannot be made by clone3(2) with shared memory,
/// and cgroup is rooted where its maker is.
const BY_UNSHARE: [Kind; 2] = [
    Kind { name: "cgroup namespace", flag: NamespaceFlags::CGROUP, word: "cgroup", without: "Cgroup::Inherit" },
    Kind { name: "time namespace", flag: NamespaceFlags::TIME, word: "time", without: "Time::Inherit" },
];

const USER: &str = "user namespace";
const TOGETHER: &str = "namespaces together";
const ID_MAP: &str = "id map";

/// Gives a process in as many new namespaces as there can be, root there.
pub(super) fn examine(bench: &mut Bench) -> Option<Remote> {
    let Some(program) = bench.program.clone() else {
        bench.push(Finding::untried(Topic::Namespaces, USER, NO_PROCESS).needed());
        untried(bench, NO_PROCESS);
        return None;
    };
    let start = |kinds| Remote::start(program.as_fd(), kinds, None);
    let user = start(NamespaceFlags::USER).map(drop);
    let finding = Finding::attempt(Topic::Namespaces, USER, "clone3(2) with CLONE_NEWUSER", user, |errno| {
        let inherit =
            if bench.host.may_mount { "; or User::Inherit, which is no boundary for root inside" } else { "" };
        bench.policy.user_namespace(errno) + inherit
    });
    bench.push(finding.needed());
    let (base, within) = match user {
        Ok(()) => (NamespaceFlags::USER, "in a new user namespace"),
        Err(_) if bench.host.may_mount => (NamespaceFlags::empty(), "without a user namespace"),
        Err(_) => {
            untried(bench, "without a user namespace it takes CAP_SYS_ADMIN");
            return None;
        }
    };

    let mut working = base;
    for kind in &BY_CLONE {
        let answer = start(base | kind.flag).map(drop);
        if answer.is_ok() {
            working |= kind.flag;
        }
        bench.push(kind.finding(bench, &format!("clone3(2) {within}"), answer));
    }
    let inside = start(working);
    let answer = inside.as_ref().map(drop).map_err(|errno| *errno);
    let tried = format!("clone3(2) with {} kinds at once", working.iter().count());
    let remedy = |errno| bench.policy.namespace("user", errno);
    bench.push(Finding::attempt(Topic::Namespaces, TOGETHER, &tried, answer, remedy).needed());

    if let Ok(inside) = &inside {
        bench.push(match base.is_empty() {
            true => Finding::untried(Topic::Namespaces, ID_MAP, "there is no user namespace to map ids for"),
            false => id_map(bench, inside),
        });
    }
    for kind in &BY_UNSHARE {
        let unshare = |inside: &Remote| inside.call(nr::unshare, &[Arg::Int(kind.flag.bits())]).map(drop);
        bench.push(match &inside {
            Ok(inside) => kind.finding(bench, &format!("unshare(2) {within}"), unshare(inside)),
            Err(_) => Finding::untried(Topic::Namespaces, kind.name, NO_PROCESS).needed(),
        });
    }
    let kinds = BY_CLONE.iter().map(|kind| kind.flag).collect();
    bench.push(privileged(bench, start(kinds).map(drop)));
    inside.ok()
}

fn untried(bench: &mut Bench, why: &str) {
    let kinds = BY_CLONE.iter().chain(&BY_UNSHARE).map(|kind| kind.name);
    for name in kinds.chain([TOGETHER, ID_MAP]) {
        bench.push(Finding::untried(Topic::Namespaces, name, why).needed());
    }
}

impl Kind {
    fn finding(&self, bench: &Bench, tried: &str, answer: Result<()>) -> Finding {
        let remedy = |errno| format!("{}; or {}", bench.policy.namespace(self.word, errno), self.without);
        Finding::attempt(Topic::Namespaces, self.name, tried, answer, remedy).needed()
    }
}

/// What `User::Inherit` takes.
fn privileged(bench: &Bench, answer: Result<()>) -> Finding {
    let tried = "clone3(2) with five kinds, but not CLONE_NEWUSER";
    Finding::attempt(Topic::Namespaces, "without a user ns", tried, answer, |errno| match errno {
        Errno::EPERM if !bench.host.may_mount => "CAP_SYS_ADMIN, for User::Inherit; nothing else wants it".into(),
        _ => bench.policy.namespace("user", errno),
    })
}

/// Writes the map that a sandbox gets by default, and becomes root by it.
fn id_map(bench: &Bench, remote: &Remote) -> Finding {
    let host = &bench.host;
    let (uid, gid) = if host.may_map { (spare(&host.uids), spare(&host.gids)) } else { (host.uid, host.gid) };
    let answer = write_maps(remote.pid(), uid, gid, !host.may_map).and_then(|()| {
        remote.call(nr::setresgid, &[Arg::Int(0), Arg::Int(0), Arg::Int(0)])?;
        remote.call(nr::setresuid, &[Arg::Int(0), Arg::Int(0), Arg::Int(0)]).map(drop)
    });
    let tried = format!("/proc/PID/uid_map and gid_map: root inside is uid {uid}, gid {gid} outside");
    let finding = if answer.is_ok() && (uid == 0 || gid == 0) {
        // the kernel would; a specification with such a map is refused
        Finding::new(Topic::Namespaces, ID_MAP, Outcome::Refused, format!("{tried}, which is no boundary"))
            .with_remedy("a caller that has ids beside 0, or, knowing this, IdMap::caller().allow_host_root()")
    } else {
        Finding::attempt(Topic::Namespaces, ID_MAP, &tried, answer, |errno| match errno {
            Errno::ENOENT => "a proc of the caller's pid namespace at /proc".into(),
            Errno::EPERM if !mapped(host) => "a caller whose own ids exist in its user namespace".into(),
            _ => bench.policy.security(),
        })
    };
    finding.needed()
}

/// Whether the caller's ids are any in its own user namespace.
fn mapped(host: &Host) -> bool {
    let contains = |runs: &[(u32, u32)], id: u32| runs.iter().any(|&(first, count)| id >= first && id - first < count);
    contains(&host.uids, host.uid) && contains(&host.gids, host.gid)
}

/// An id that nobody has: high in the largest run of those that exist here.
fn spare(runs: &[(u32, u32)]) -> u32 {
    const UNUSED: u32 = 0x7000_0000;
    let (first, count) = runs.iter().copied().max_by_key(|&(_, count)| count).unwrap_or((0, 1));
    let last = first.saturating_add(count.saturating_sub(1));
    UNUSED.clamp(first, last)
}

/// One id each; the map of a caller without CAP_SETGID takes setgroups(2) away first.
fn write_maps(pid: i32, uid: u32, gid: u32, deny_setgroups: bool) -> Result<()> {
    write(pid, "uid_map", &format!("0 {uid} 1\n"))?;
    if deny_setgroups {
        write(pid, "setgroups", "deny")?;
    }
    write(pid, "gid_map", &format!("0 {gid} 1\n"))
}

fn write(pid: i32, name: &str, text: &str) -> Result<()> {
    let file = OpenOptions::new().write(true).open(format!("/proc/{pid}/{name}"));
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(Errno::of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spare_id_is_one_that_exists() {
        assert_eq!(spare(&[(0, u32::MAX)]), 0x7000_0000);
        assert_eq!(spare(&[(0, 1), (1, 65536)]), 65536);
        assert_eq!(spare(&[(0x7fff_0000, 16)]), 0x7fff_0000);
        assert_eq!(spare(&[]), 0);
    }
}
