//! The handle of a sandbox's control groups.

use super::{Child, Usage};
use crate::cgroup::{CgroupLimits, Refusal, Stats, remedy_of_write};
use crate::error::{Error, ErrorKind, Result};
use crate::program::op::without;
use crate::sys::Errno;
use crate::testing;
use std::time::Duration;

/// A killed process leaves its group within microseconds of its end.
const KILL: Duration = Duration::from_secs(10);

impl Child {
    /// What the sandbox uses and has used, as its control groups count it: also after its
    /// end, until this handle is dropped. A figure that is not to be had is `None`.
    ///
    /// Groups that account for CPU time, memory and processes are made when limits are given
    /// ([`CgroupLimits::new`](crate::CgroupLimits::new) is enough); a sandbox that says nothing has only what
    /// its default group counts. The first call opens some 5 to 15 descriptors, which
    /// stay open until the handle is dropped, unless the process has used up half of
    /// RLIMIT_NOFILE; later ones are one pread(2) each.
    ///
    /// # Errors
    /// [`ErrorKind::NotSupported`] without a control group of the sandbox's own; `EMFILE`.
    pub fn stats(&self) -> Result<Stats> {
        if self.group.is_none() {
            return Err(self.no_group("read the figures of"));
        }
        let fail = |errno: Errno| Error::call(format!("read the figures of the sandbox {}", self.pid), errno);
        self.group.stats().map_err(fail)
    }

    /// Changes the limits of the running sandbox: those that are set, all or none. The
    /// default of 128 processes is not set by this.
    ///
    /// Lowering memory below what is in use makes the kernel reclaim, and on v2 then end
    /// processes; on v1 it is refused (`EBUSY`).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSpec`] for values out of range; [`ErrorKind::NotSupported`] for limits of
    /// controllers that the sandbox was not given a group of, and for those that only a new sandbox can be given
    /// (devices); else what the kernel says of a file. Everything is then as it was before.
    pub fn update(&mut self, limits: &CgroupLimits) -> Result<()> {
        if self.group.is_none() {
            return Err(self.no_group("change the limits of"));
        }
        let mut defects = Vec::new();
        limits.check(&mut defects);
        if !defects.is_empty() {
            return Err(Error::spec(defects));
        }
        self.group.update(limits).map_err(|refusal| match refusal {
            Refusal::Lacks(lacks) => {
                let what = format!("change the limits of the sandbox {}: {}", self.pid, lacks.join("; "));
                Error::new(ErrorKind::NotSupported, what).with_hint("these limits, at any value, when it is spawned")
            }
            Refusal::Write(file, value, errno) => {
                let error = Error::call(format!("write {value:?} to {}", file.display()), errno);
                match remedy_of_write(errno) {
                    Some((kind, hint)) => error.with_kind(kind).with_hint(hint),
                    None => error,
                }
            }
        })
    }

    fn no_group(&self, what: &str) -> Error {
        let error =
            Error::new(ErrorKind::NotSupported, format!("{what} the sandbox {}: it has no control group", self.pid));
        error.with_hint(
            "CgroupLimits::new(), on a host that lets the caller make groups (Child::notes, belljar::doctor())",
        )
    }

    /// What the groups know better than whoever reaped: the peaks of all processes together, and
    /// the CPU time of a sandbox whose shim could not report.
    pub(super) fn add_group_usage(&self, usage: &mut Usage) {
        let peaks = self.group.peaks();
        (usage.memory_peak, usage.processes_peak) = peaks;
        if usage.user.is_none() && usage.system.is_none() {
            (usage.user, usage.system) = self.group.cpu_times();
        }
    }

    /// Ends what is left in the groups: what a payload has started outside of a pid
    /// namespace of its own. What cannot be ended keeps its group; `sweep` finds it.
    pub(super) fn kill_group(&self) {
        let _ = self.group.kill(testing::disabled() & without::CGROUP_KILL != 0, KILL);
    }
}
