//! How the payload's process is scheduled: policy, nice value, disk priority, CPUs, and how readily it is killed for
//! want of memory (sched(7), ioprio_set(2), sched_setaffinity(2), `oom_score_adj` of proc(5)).
//!
//! What the host process has of these is inherited through every clone. What is better than ordinary is given up by default:
//! a payload that nobody trusts is not to run before everybody else, nor to be spared when memory runs out.

use super::Command;
use crate::error::Defect;
use crate::program::{Builder, Op, op};
use crate::sys::kernel::abi::{
    IOPRIO_CLASS_RT, SCHED_BATCH, SCHED_DEADLINE, SCHED_FIFO, SCHED_IDLE, SCHED_OTHER, SCHED_RR,
};
use crate::sys::kernel::call;
use std::collections::BTreeSet;
use std::time::Duration;

/// How a payload is scheduled. The default is as the host process is, but never better than ordinary: a
/// real-time policy becomes [`SchedPolicy::Other`], a negative nice value 0, a real-time class of disk priority the
/// ordinary one, and a negative `oom_score_adj` 0.
///
/// To ask for more than the host process has takes the host's permission, which a user namespace does not give:
/// RLIMIT_RTPRIO and RLIMIT_NICE of the host process, or root with [`User::Inherit`](crate::User::Inherit). Where it is missing,
/// spawn fails with [`ErrorKind::NotPermitted`](crate::ErrorKind::NotPermitted), and [`Child::enter`](crate::Child::enter) too.
///
/// ```
/// use belljar::{Command, IoPriority, SchedPolicy, Schedule};
///
/// let background = Schedule::standard()
///     .policy(SchedPolicy::Batch)
///     .nice(10)
///     .io_priority(IoPriority::Idle)
///     .cpus([0])
///     .oom_score_adj(500);
/// let mut command = Command::new("make");
/// command.schedule(background);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    inherit: bool,
    policy: Option<SchedPolicy>,
    nice: Option<i32>,
    io: Option<IoPriority>,
    cpus: Option<BTreeSet<u32>>,
    oom_score_adj: Option<i32>,
}

/// A scheduling policy (sched(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SchedPolicy {
    /// SCHED_OTHER: the ordinary one, weighed by the nice value.
    Other,
    /// SCHED_BATCH: as `Other`, and taken to be busy without pause, so that waking does not put it before others.
    Batch,
    /// SCHED_IDLE: runs where nothing else wants to. A process can leave it again by itself, to its nice value.
    Idle,
    /// SCHED_FIFO with this priority, 1 to 99: before all ordinary processes, until it waits. Takes the host's permission.
    Fifo(u8),
    /// SCHED_RR with this priority, 1 to 99: as `Fifo`, in turn with those of the same priority. Takes the host's permission.
    RoundRobin(u8),
    /// SCHED_DEADLINE (Linux 3.14): `runtime` in each `period`, until `deadline` after its begin. 1024 ns ≤ `runtime` ≤
    /// `deadline` ≤ `period`; more than the CPUs have is refused (`EBUSY`). Takes CAP_SYS_NICE of the host; the payload
    /// cannot fork (`EAGAIN`).
    Deadline {
        /// CPU time in each period.
        runtime: Duration,
        /// When it is to have been given.
        deadline: Duration,
        /// How often.
        period: Duration,
    },
}

/// Priority at disks whose I/O scheduler knows any: bfq, mq-deadline (ioprio_set(2)). Level 0 comes first, 7 last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IoPriority {
    /// Before all others, 0 to 7. Takes the host's permission.
    RealTime(u8),
    /// The ordinary class, 0 to 7; 4 is that of nice 0.
    BestEffort(u8),
    /// When nobody else wants the disk.
    Idle,
}

impl Command {
    /// How the payload is scheduled; [`Schedule::standard`] unless set.
    pub fn schedule(&mut self, schedule: Schedule) -> &mut Self {
        self.schedule = schedule;
        self
    }

    /// The permission bits that files and directories are made without (umask(2)), 0 to 0o777; 0o022 unless set.
    pub fn umask(&mut self, bits: u32) -> &mut Self {
        self.umask = bits;
        self
    }

    /// Whether a directory of the host is passed.
    pub(crate) fn passes_directory(&self) -> bool {
        self.fds.iter().any(|passed| passed.as_directory().is_some())
    }

    /// The protections that this command opts out of.
    pub(crate) fn opt_outs(&self) -> Vec<(&'static str, String)> {
        let mut all = Vec::new();
        if self.umask & DEFAULT_UMASK != DEFAULT_UMASK {
            all.push(("umask", format!("files are made with umask {:03o}", self.umask)));
        }
        all.extend(self.schedule.opt_out().map(|what| ("ordinary-priority", what)));
        all.extend(
            self.fds
                .iter()
                .filter_map(|passed| passed.as_directory())
                .map(|number| ("directory-descriptors", format!("a directory of the host as descriptor {number}"))),
        );
        all
    }
}

/// Nobody else may write.
pub(super) const DEFAULT_UMASK: u32 = 0o022;

/// The highest number that a kernel can be built for, and one (`NR_CPUS` of x86_64).
const CPUS: u32 = 8192;

impl Schedule {
    /// The default: the host process's, but never better than ordinary.
    pub fn standard() -> Schedule {
        Schedule::default()
    }

    /// Opts out: what the host process has, also what is better than ordinary. (Processes that enter have
    /// the `oom_score_adj` of PID 1, which then has the host process's.)
    pub fn inherited() -> Schedule {
        Schedule { inherit: true, ..Schedule::default() }
    }

    /// The policy.
    pub fn policy(mut self, policy: SchedPolicy) -> Schedule {
        self.policy = Some(policy);
        self
    }

    /// The nice value, -20 (most CPU time) to 19 (least). Below that of the host process it takes the host's permission.
    pub fn nice(mut self, value: i32) -> Schedule {
        self.nice = Some(value);
        self
    }

    /// The priority at disks.
    pub fn io_priority(mut self, priority: IoPriority) -> Schedule {
        self.io = Some(priority);
        self
    }

    /// The CPUs to run on, by number, 0 to 8191. All of them must be there and allowed (by the cpuset that the sandbox
    /// is in), or spawn fails. The payload can choose others of that cpuset:
    /// [`CgroupLimits::cpuset_cpus`](crate::CgroupLimits::cpuset_cpus) binds.
    pub fn cpus(mut self, numbers: impl IntoIterator<Item = u32>) -> Schedule {
        self.cpus = Some(numbers.into_iter().collect());
        self
    }

    /// How readily it is killed when memory runs out: -1000 (never) to 1000 (first), in thousandths of the memory, added to what it uses.
    /// To go below what the host process may go takes CAP_SYS_RESOURCE of the host. Takes a `/proc` in the sandbox,
    /// and an id map with the id 0.
    pub fn oom_score_adj(mut self, value: i32) -> Schedule {
        self.oom_score_adj = Some(value);
        self
    }

    pub(super) fn check(&self, defects: &mut Vec<Defect>) {
        let mut defect = |problem: String, hint: &str| defects.push(Defect::new(problem, hint));
        match self.policy {
            Some(SchedPolicy::Fifo(priority) | SchedPolicy::RoundRobin(priority)) if !(1..=99).contains(&priority) => {
                defect(format!("the real-time priority {priority}"), "1 to 99 (sched(7))");
            }
            Some(SchedPolicy::Deadline { runtime, deadline, period })
                if runtime.as_nanos() < 1024
                    || runtime > deadline
                    || deadline > period
                    || period.as_secs() >= 1 << 33 =>
            {
                defect(
                    format!("the deadline policy with {runtime:?} until {deadline:?} of {period:?}"),
                    "1024 ns ≤ runtime ≤ deadline ≤ period (sched_setattr(2))",
                );
            }
            _ => {}
        }
        if let Some(nice) = self.nice.filter(|nice| !(-20..=19).contains(nice)) {
            defect(format!("the nice value {nice}"), "-20 to 19 (nice(2)): the kernel would cut it");
        }
        if let Some(IoPriority::RealTime(level) | IoPriority::BestEffort(level)) = self.io
            && level > 7
        {
            defect(format!("the I/O priority level {level}"), "0 to 7 (ioprio_set(2))");
        }
        if let Some(cpus) = &self.cpus
            && (cpus.is_empty() || cpus.iter().any(|cpu| *cpu >= CPUS))
        {
            defect(format!("the CPUs {cpus:?}"), "one or more of 0 to 8191");
        }
        if let Some(score) = self.oom_score_adj.filter(|score| !(-1000..=1000).contains(score)) {
            defect(format!("the oom_score_adj {score}"), "-1000 to 1000 (proc(5))");
        }
    }

    /// What of this is more than ordinary, or may be.
    pub(super) fn opt_out(&self) -> Option<String> {
        use SchedPolicy::{Deadline, Fifo, RoundRobin};
        let mut all = Vec::new();
        if self.inherit {
            all.push("what the host process has".to_owned());
        }
        if let Some(policy @ (Fifo(_) | RoundRobin(_) | Deadline { .. })) = self.policy {
            all.push(format!("the policy {policy:?}"));
        }
        all.extend(self.nice.filter(|nice| *nice < 0).map(|nice| format!("nice {nice}")));
        if let Some(io @ IoPriority::RealTime(_)) = self.io {
            all.push(format!("I/O priority {io:?}"));
        }
        all.extend(self.oom_score_adj.filter(|score| *score < 0).map(|score| format!("oom_score_adj {score}")));
        (!all.is_empty()).then(|| all.join(", "))
    }

    /// Appends what the shim does for itself and all that it starts, before it changes its ids: it may not
    /// write this file of its own afterwards. `spared`: the host process has a negative score.
    pub(super) fn lower_early(&self, spared: bool, builder: &mut Builder) {
        if spared && !self.inherit {
            builder.op(Op::OomScoreAdj { value: 0 });
        }
    }

    /// Appends what the payload's process does.
    pub(super) fn lower(&self, builder: &mut Builder) {
        let own = if self.inherit { Own::default() } else { Own::of_this_thread() };
        let policy = self.policy.or(own.real_time.then_some(SchedPolicy::Other));
        let nice = self.nice.or(own.negative.then_some(0));
        if policy.is_some() || nice.is_some() {
            let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            let (number, priority, times) = match policy {
                None => (op::schedule::KEEP, 0, [0; 3]),
                Some(SchedPolicy::Other) => (SCHED_OTHER, 0, [0; 3]),
                Some(SchedPolicy::Batch) => (SCHED_BATCH, 0, [0; 3]),
                Some(SchedPolicy::Idle) => (SCHED_IDLE, 0, [0; 3]),
                Some(SchedPolicy::Fifo(priority)) => (SCHED_FIFO, priority, [0; 3]),
                Some(SchedPolicy::RoundRobin(priority)) => (SCHED_RR, priority, [0; 3]),
                Some(SchedPolicy::Deadline { runtime, deadline, period }) => {
                    (SCHED_DEADLINE, 0, [runtime, deadline, period].map(nanos))
                }
            };
            let [runtime, deadline, period] = times;
            builder.op(Op::Schedule {
                policy: number,
                nice: nice.map_or(op::schedule::KEEP_NICE, i64::from),
                priority: priority.into(),
                runtime,
                deadline,
                period,
            });
        }
        // class << 13 | level (<linux/ioprio.h>); class 0 follows the nice value
        let io = self.io.map(|io| match io {
            IoPriority::RealTime(level) => IOPRIO_CLASS_RT << 13 | u32::from(level),
            IoPriority::BestEffort(level) => 2 << 13 | u32::from(level),
            IoPriority::Idle => 3 << 13,
        });
        if let Some(priority) = io.or(own.io_real_time.then_some(0)) {
            builder.op(Op::IoPriority { priority });
        }
        if let Some(cpus) = &self.cpus {
            // the kernel reads whole words
            let mut mask = vec![0u64; cpus.last().map_or(0, |last| *last as usize / 64 + 1)];
            cpus.iter().for_each(|cpu| mask[*cpu as usize / 64] |= 1 << (cpu % 64));
            let mask: Vec<u8> = mask.iter().flat_map(|word| word.to_ne_bytes()).collect();
            builder.op(Op::Cpus { mask: &mask });
        }
        if let Some(score) = self.oom_score_adj {
            builder.op(Op::OomScoreAdj { value: score.into() });
        }
    }
}

/// What the calling thread has that is better than ordinary: its clones inherit it.
#[derive(Default)]
struct Own {
    real_time: bool,
    negative: bool,
    io_real_time: bool,
}

impl Own {
    fn of_this_thread() -> Own {
        // neither call can fail for the caller itself; a filter of the host that denies them leaves what there is
        let attr = call::sched_getattr().unwrap_or_default();
        Own {
            real_time: matches!(attr.policy, SCHED_FIFO | SCHED_RR | SCHED_DEADLINE),
            negative: attr.nice < 0,
            io_real_time: call::ioprio_get().is_ok_and(|priority| priority as u32 >> 13 == IOPRIO_CLASS_RT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beyond_the_kernels_are_defects() {
        let defects = |schedule: Schedule| {
            let mut defects = Vec::new();
            schedule.check(&mut defects);
            defects.len()
        };
        let deadline = |runtime, deadline, period| {
            let [runtime, deadline, period] = [runtime, deadline, period].map(Duration::from_nanos);
            Schedule::standard().policy(SchedPolicy::Deadline { runtime, deadline, period })
        };
        let new = Schedule::standard;
        for good in [
            new(),
            new().nice(-20).oom_score_adj(-1000).cpus([0, 8191]),
            new().nice(19).oom_score_adj(1000).io_priority(IoPriority::BestEffort(7)),
            new().policy(SchedPolicy::Fifo(1)),
            new().policy(SchedPolicy::RoundRobin(99)),
            deadline(1024, 1024, 1024),
        ] {
            assert_eq!(defects(good.clone()), 0, "{good:?}");
        }
        for bad in [
            new().nice(-21),
            new().nice(20),
            new().oom_score_adj(-1001),
            new().oom_score_adj(1001),
            new().cpus([]),
            new().cpus([8192]),
            new().io_priority(IoPriority::RealTime(8)),
            new().io_priority(IoPriority::BestEffort(8)),
            new().policy(SchedPolicy::Fifo(0)),
            new().policy(SchedPolicy::RoundRobin(100)),
            deadline(1023, 2000, 3000),
            deadline(2000, 1999, 3000),
            deadline(2000, 3000, 2999),
        ] {
            assert_eq!(defects(bad.clone()), 1, "{bad:?}");
        }
    }
}
