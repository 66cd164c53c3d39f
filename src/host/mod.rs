//! What this host and this caller can do, found by asking the kernel.

pub(crate) mod cgroups;
pub(crate) mod doctor;
mod mountinfo;
pub(crate) mod security_modules;
pub(crate) mod sockets;
mod subid;

pub use doctor::{Doctor, Finding, Outcome, doctor};
pub(crate) use subid::{SubIds, subordinate};

use crate::sys::kernel::abi::{PROC_SUPER_MAGIC, ST_RDONLY};
use crate::sys::kernel::call;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// The caller, as `build` finds it.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// Effective user and group.
    pub uid: u32,
    pub gid: u32,
    /// CAP_SYS_ADMIN: may clone mounts of its own namespace.
    pub may_mount: bool,
    /// CAP_SETUID and CAP_SETGID: may map any ids that it has itself.
    pub may_map: bool,
    /// The kernel's last capability (`/proc/sys/kernel/cap_last_cap`).
    pub last_capability: u32,
    /// The ids of the caller's own user namespace, as (first, count).
    pub uids: Vec<(u32, u32)>,
    pub gids: Vec<(u32, u32)>,
    /// Its `oom_score_adj` is negative: it is spared when memory runs out.
    pub spared: bool,
    /// The inotify quota (instances, watches) of the caller, if a sandbox's user namespace can get limits: /proc/sys can be
    /// written.
    pub user_limits: Option<[u32; 2]>,
}

const CAP_SETGID: u64 = 1 << 6;
const CAP_SETUID: u64 = 1 << 7;
const CAP_SYS_ADMIN: u64 = 1 << 21;

impl Host {
    pub fn probe() -> Host {
        // capget of the calling thread cannot fail with a valid header
        let effective = call::capget().map_or(0, |(effective, ..)| effective);
        let has = |set: u64| effective & set == set;
        Host {
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            may_mount: has(CAP_SYS_ADMIN),
            may_map: has(CAP_SETUID | CAP_SETGID),
            last_capability: last_capability(),
            uids: own_ids("/proc/self/uid_map"),
            gids: own_ids("/proc/self/gid_map"),
            spared: std::fs::read_to_string("/proc/self/oom_score_adj").is_ok_and(|score| score.starts_with('-')),
            user_limits: may_limit().then(|| ["instances", "watches"].map(inotify_limit)),
        }
    }
}

/// A limit of inotify that the caller's own user namespace has.
fn inotify_limit(what: &str) -> u32 {
    let text = std::fs::read_to_string(format!("/proc/sys/user/max_inotify_{what}"));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(u32::MAX)
}

/// Whether the files of such limits are there, of the procfs at /proc and not of another mount (which containers have, read-only).
fn may_limit() -> bool {
    let open = |path| {
        let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)
    };
    let (Ok(proc), Ok(file)) = (open("/proc"), open("/proc/sys/user/max_user_namespaces")) else { return false };
    let (proc, file) = (proc.as_raw_fd(), file.as_raw_fd());
    let writable =
        call::fstatfs(file).is_ok_and(|found| found.f_type == PROC_SUPER_MAGIC && found.f_flags & ST_RDONLY == 0);
    let mount = |fd| call::fstat(fd).map(|found| found.mnt_id).ok();
    writable && mount(proc) == mount(file)
}

/// The kernel knows at most 64; an unreadable /proc leaves the 41 of Linux 5.9.
fn last_capability() -> u32 {
    std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok().and_then(|s| s.trim().parse().ok()).unwrap_or(40)
}

/// The extents of a map that are inside the caller's namespace; all ids when unreadable.
fn own_ids(path: &str) -> Vec<(u32, u32)> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|_| "0 0 4294967295".into());
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().map(|w| w.parse::<u32>().ok());
            Some((words.next()??, words.nth(1)??))
        })
        .collect()
}
