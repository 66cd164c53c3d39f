//! The handle of a sandbox's control groups.

use super::{Child, Usage};
use crate::cgroup::{CgroupLimits, Events, PressureTrigger, Refusal, Stats, remedy_of_write};
use crate::error::{Error, ErrorKind, Result};
use crate::program::op::without;
use crate::sys::Errno;
use crate::testing;
use std::time::Duration;

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

    /// Begins to watch what happens to the sandbox's groups: want of memory, processes
    /// refused, pressure beyond these triggers, and that no process is left. What
    /// happened before is not told, but that the sandbox is empty is.
    ///
    /// ```no_run
    /// # use belljar::*;
    /// # use std::time::Duration;
    /// # let child = Sandbox::builder(RootFs::host()).limits(CgroupLimits::new()).build()?.spawn(&Command::new("true"))?;
    /// let slow = PressureTrigger::some(Resource::Memory, Duration::from_millis(100), Duration::from_secs(2));
    /// for event in child.events(&[slow])? {
    ///     if event? == Event::OutOfMemory {
    ///         // …
    ///     }
    /// }
    /// # Ok::<(), belljar::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::NotSupported`] without a control group of the sandbox's own, and for triggers without a v2
    /// group or a kernel with PSI; `EMFILE`; `EINVAL` for a trigger whose window the kernel does not take.
    pub fn events(&self, triggers: &[PressureTrigger]) -> Result<Events> {
        if self.group.is_none() {
            return Err(self.no_group("watch"));
        }
        let what = format!("watch the sandbox {}", self.pid);
        self.group.events(self.duplicate_pidfd()?, triggers).map_err(|errno| match errno {
            Errno::EOPNOTSUPP | Errno::ENOENT => Error::call(what, errno)
                .with_kind(ErrorKind::NotSupported)
                .with_hint("no triggers: pressure takes a v2 group and a kernel with PSI"),
            _ => Error::call(what, errno),
        })
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
    pub(super) fn kill_group(&self, patience: Duration) {
        let _ = self.group.kill(testing::disabled() & without::CGROUP_KILL != 0, patience);
    }
}
