//! Freezing, thawing and killing a whole group.
//!
//! v2 does each by one file: `cgroup.freeze` (Linux 5.2) and `cgroup.kill` (5.14), whatever
//! forks meanwhile. v1 has a freezer, whose frozen processes die only when they are thawed:
//! so all are frozen, signalled and thawed, until none is left.

use super::controller::Controller;
use super::directory::write;
use super::group::{Group, Member, keyed};
use crate::sys::Errno;
use crate::sys::kernel::abi::SIGKILL;
use crate::sys::pidfd::PidFd;
use std::fs;
use std::time::{Duration, Instant};

/// Between two looks at a state that the kernel is about to change.
const PAUSE: Duration = Duration::from_micros(500);

impl Group {
    /// Stops every process where it is, and its use of CPU time. Returns when all have
    /// stopped; `ETIMEDOUT` when one has not (it is in the kernel, waiting for a device).
    /// `EOPNOTSUPP` where no hierarchy can freeze.
    pub fn freeze(&self, patience: Duration) -> Result<(), Errno> {
        self.set_frozen(true, patience)
    }

    /// Lets them go on.
    pub fn thaw(&self, patience: Duration) -> Result<(), Errno> {
        self.set_frozen(false, patience)
    }

    fn set_frozen(&self, frozen: bool, patience: Duration) -> Result<(), Errno> {
        let member = self.v2().or_else(|| self.of(Controller::Freezer)).ok_or(Errno::EOPNOTSUPP)?;
        let start = Instant::now();
        let has_stopped = |member: &Member| match member.v2 {
            true => keyed(&member.file("cgroup.events"), "frozen") == Some(frozen.into()),
            false => {
                let state = fs::read_to_string(member.file("freezer.state")).unwrap_or_default();
                state.trim() == if frozen { "FROZEN" } else { "THAWED" }
            }
        };
        loop {
            match (member.v2, frozen) {
                (true, _) => write(&member.file("cgroup.freeze"), if frozen { b"1" } else { b"0" })?,
                // written again: a process that was between two states has been missed
                (false, true) => write(&member.file("freezer.state"), b"FROZEN")?,
                (false, false) => write(&member.file("freezer.state"), b"THAWED")?,
            }
            if has_stopped(member) {
                return Ok(());
            }
            if start.elapsed() >= patience {
                return Err(Errno::ETIMEDOUT);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Sends SIGKILL to every process of it, and waits until none is left. `without_file`:
    /// as on a kernel without `cgroup.kill`.
    pub fn kill(&self, without_file: bool, patience: Duration) -> Result<(), Errno> {
        let Some(member) = self.v2().or_else(|| self.of(Controller::Freezer)).or(self.members.first()) else {
            return Ok(());
        };
        let start = Instant::now();
        let by_file = member.v2 && !without_file && write(&member.file("cgroup.kill"), b"1").is_ok();
        while !pids(member).is_empty() {
            if start.elapsed() >= patience {
                return Err(Errno::EBUSY);
            }
            if !by_file {
                // where it cannot be frozen, the loop is all there is
                let _ = self.freeze(Duration::from_millis(100));
                for pid in pids(member) {
                    kill_member(member, pid);
                }
                let _ = self.thaw(Duration::ZERO);
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

/// The processes of a group, as the caller's pid namespace numbers them. Those it does not
/// see are 0 there, and left out.
fn pids(member: &Member) -> Vec<i32> {
    let text = fs::read_to_string(member.file("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
}

/// A number may have been given to another process since it was read: so it is taken hold of,
/// and looked up again.
fn kill_member(member: &Member, pid: i32) {
    if let Ok(process) = PidFd::open(pid)
        && pids(member).contains(&pid)
    {
        // ESRCH: it has ended by itself
        let _ = process.send_signal(SIGKILL);
    }
}

/// Whether there is a process in a group, also one that the caller cannot see.
pub(super) fn is_occupied(group: &std::path::Path) -> bool {
    fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|text| !text.is_empty())
}
