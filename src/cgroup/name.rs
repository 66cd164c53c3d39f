//! The names of groups, which say who made them.
//!
//! `belljar-PID-START-NS-NUMBER`: the process (its start time makes the number of a
//! process unique), the namespaces in which these two numbers mean something, and a
//! number of this group alone. So [`sweep`](crate::sweep) can tell whose maker is gone.

use crate::sys::Errno;
use crate::sys::pidfd::PidFd;
use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Who makes groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub pid: u32,
    /// Clock ticks from boot to the start of the process (proc_pid_stat(5), field 22).
    pub start: u64,
    /// The inode numbers of its pid and time namespaces.
    pub namespaces: u64,
}

/// With this every name begins.
pub(crate) const PREFIX: &str = "belljar-";
/// The leaf for the caller itself.
const CALLER: &str = "caller-";

impl Owner {
    /// This process. Looked up once, and again in a child of a fork.
    pub fn own() -> Owner {
        static OWN: Mutex<Option<Owner>> = Mutex::new(None);
        let pid = std::process::id();
        let mut own = OWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match *own {
            Some(owner) if owner.pid == pid => owner,
            _ => {
                // 0: unknown, as when the host is out of descriptors; then it is looked up again for the next name
                let owner = Owner { pid, start: start_of(pid).unwrap_or(0), namespaces: namespaces() };
                *own = Some(owner).filter(|owner| owner.start != 0);
                owner
            }
        }
    }

    /// A new name.
    pub fn name(&self) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // keyed at random by the standard library: unique beside what an earlier process
        // of the same identity may have left
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u64(NEXT.fetch_add(1, Ordering::Relaxed));
        format!("{PREFIX}{self}-{:016x}", hasher.finish())
    }

    /// The name of the leaf into which the caller itself moves.
    pub fn leaf(&self) -> String {
        format!("{PREFIX}{CALLER}{self}")
    }

    /// The owner that a name tells; `None` of names that are not ours.
    pub fn of(name: &str) -> Option<Owner> {
        let rest = name.strip_prefix(PREFIX)?;
        let rest = rest.strip_prefix(CALLER).unwrap_or(rest);
        let mut parts = rest.split('-');
        let (pid, start, namespaces) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Owner {
            pid: pid.parse().ok()?,
            start: start.parse().ok()?,
            namespaces: u64::from_str_radix(namespaces, 16).ok()?,
        })
    }

    /// Whether the owner has ended for certain. Not for one of other namespaces, of whom
    /// nothing can be known here.
    pub fn has_ended(&self) -> bool {
        if self.namespaces != Owner::own().namespaces {
            return false;
        }
        match start_of(self.pid) {
            Some(start) => self.start != 0 && start != self.start,
            // that it cannot be seen (hidepid, no /proc, no descriptor left) is not its end
            None => i32::try_from(self.pid).is_ok_and(|pid| matches!(PidFd::open(pid), Err(Errno::ESRCH))),
        }
    }
}

/// Whether a group is a leaf for callers, and not one to make groups in.
pub(crate) fn is_leaf(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with(CALLER))
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{:x}", self.pid, self.start, self.namespaces)
    }
}

/// When a process started; `None` when there is none of this number.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the name before it, in parentheses, may hold anything
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// Inode numbers of namespaces are 32 bits wide.
fn namespaces() -> u64 {
    let inode = |kind: &str| fs::metadata(format!("/proc/self/ns/{kind}")).map_or(0, |meta| meta.ino());
    inode("pid") << 32 | inode("time") & 0xffff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_owner() {
        let own = Owner::own();
        assert!(own.start > 0 && own.namespaces > 0);
        let (first, second) = (own.name(), own.name());
        assert_ne!(first, second);
        for name in [&first, &second, &own.leaf()] {
            assert_eq!(Owner::of(name), Some(own), "{name}");
        }
        assert!(is_leaf(&own.leaf()) && !is_leaf(&first));
        assert!(first.len() < 255);
        for other in ["", "belljar", "belljar-", "belljar-1", "belljar-1-2", "belljar-x-2-3-4", "docker-1-2-3-4"] {
            assert_eq!(Owner::of(other), None, "{other}");
        }
    }

    #[test]
    fn only_the_dead_have_ended() {
        let own = Owner::own();
        assert!(!own.has_ended());
        assert!(Owner { start: own.start + 1, ..own }.has_ended(), "the number is another process's");
        const NOBODY: u32 = i32::MAX as u32;
        assert!(Owner { pid: NOBODY, ..own }.has_ended());
        assert!(!Owner { pid: NOBODY, namespaces: 1, ..own }.has_ended(), "nobody knows");
        assert!(!Owner { start: 0, ..own }.has_ended(), "it did not know its own start");
    }
}
