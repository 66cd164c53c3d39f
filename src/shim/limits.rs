//! What a sandbox is allowed: wall-clock and CPU time, enforced here, so that it holds
//! whether or not the host waits, and after the handle is given up.
//!
//! When a limit is reached the payload gets SIGTERM, if there is a grace period, and when
//! that is over everything is killed.

use crate::meter::Meter;
use crate::program::wire::report::cause;
use crate::sys::kernel::abi::*;
use crate::sys::kernel::{Result, call};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// In microseconds; 0 is no limit.
#[derive(Clone, Copy, Default)]
pub struct Limits {
    pub wall: u64,
    pub cpu: u64,
    pub grace: u64,
}

/// Lowers RLIMIT_CPU (setrlimit(2)), for each process on its own: what the kernel holds even
/// if this process does not get to run.
pub fn cpu_seconds(soft: u64, hard: u64) -> Result<()> {
    let old = call::rlimit(RLIMIT_CPU, None)?;
    let hard = hard.min(old[1]);
    call::rlimit(RLIMIT_CPU, Some([soft.min(old[0]).min(hard), hard])).map(drop)
}

/// RLIMIT_CPU with which the payload was executed: written by its process, which shares
/// this memory until then.
static CPU_SECONDS: [AtomicU64; 2] = [AtomicU64::new(RLIM_INFINITY), AtomicU64::new(RLIM_INFINITY)];

static REMEMBERED: AtomicBool = AtomicBool::new(false);

/// To be called by the payload's process when its limits are set: before its exec, and
/// before a filter that may kill for the question.
pub fn remember_cpu_seconds() {
    if REMEMBERED.swap(true, Ordering::Relaxed) {
        return;
    }
    if let Ok([soft, hard]) = call::rlimit(RLIMIT_CPU, None) {
        CPU_SECONDS[0].store(soft, Ordering::Relaxed);
        CPU_SECONDS[1].store(hard, Ordering::Relaxed);
    }
}

/// Whether it was RLIMIT_CPU that ended a process with this signal: the kernel sends
/// SIGXCPU at the soft limit and SIGKILL at the hard one, and the process had used so much.
///
/// The kernel holds the limit by counting ticks, and counts one in full to whom it meets
/// (posix_cpu_timers_work); the usage is exact. On a busy machine they differ by some percent
/// (6 were seen).
pub fn was_cpu_seconds(signal: i32, usage: &Rusage) -> bool {
    let (limit, percent) = match signal {
        SIGXCPU => (&CPU_SECONDS[0], 50),
        // a signal that others send as well
        SIGKILL => (&CPU_SECONDS[1], 85),
        _ => return false,
    };
    let used = (usage.utime[0] + usage.stime[0]) * 100 + (usage.utime[1] + usage.stime[1]) / 10_000;
    used as u64 >= limit.load(Ordering::Relaxed).saturating_mul(percent)
}

/// The time until then, for a poll.
pub fn until(at: u64) -> [i64; 2] {
    let left = at.saturating_sub(now());
    [(left / 1_000_000) as i64, (left % 1_000_000 * 1000) as i64]
}

/// The clock that limits are measured by, in microseconds: it stands still while the machine sleeps.
pub fn now() -> u64 {
    call::clock(CLOCK_MONOTONIC).unwrap_or(0)
}

/// What has come due.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Due {
    Nothing,
    /// SIGTERM, for this reason.
    Terminate(u32),
    /// The end, for this reason.
    Kill(u32),
}

/// The limits of a running sandbox.
pub struct Watch {
    limits: Limits,
    /// When the wall-clock time is over.
    wall_end: u64,
    /// When to look at the CPU time again.
    look: u64,
    meter: Meter,
    /// When the grace is over, and of what reason; 0 before.
    kill_at: u64,
    cause: u32,
}

impl Watch {
    /// From `started` on.
    pub fn start(limits: Limits, payload: i32, started: u64, group: bool) -> Watch {
        let mut watch = Watch {
            limits,
            wall_end: started.saturating_add(limits.wall),
            look: 0,
            meter: Meter::new(payload, group && limits.cpu != 0),
            kill_at: 0,
            cause: cause::NONE,
        };
        if limits.cpu != 0 {
            watch.look = started + watch.meter.rest(limits.cpu);
        }
        watch
    }

    /// How long nothing can come due; `None`: nothing ever does.
    pub fn idle(&self) -> Option<[i64; 2]> {
        let mut at = u64::MAX;
        if self.kill_at != 0 {
            at = self.kill_at;
        } else {
            if self.limits.wall != 0 {
                at = self.wall_end;
            }
            if self.limits.cpu != 0 {
                at = at.min(self.look);
            }
        }
        if at == u64::MAX { None } else { Some(until(at)) }
    }

    /// What is due now.
    pub fn due(&mut self) -> Due {
        if self.kill_at == 0 && self.limits.wall | self.limits.cpu == 0 {
            return Due::Nothing;
        }
        let now = now();
        if self.kill_at != 0 {
            return if now >= self.kill_at { Due::Kill(self.cause) } else { Due::Nothing };
        }
        let cause = if self.limits.wall != 0 && now >= self.wall_end {
            cause::WALL_TIME
        } else if self.limits.cpu != 0 && now >= self.look {
            // a process reaped between two looks may be counted twice: only what is seen again counts
            let rest = self.meter.rest(self.limits.cpu);
            if rest != 0 || self.meter.rest(self.limits.cpu) != 0 {
                self.look = now.saturating_add(rest.max(1));
                return Due::Nothing;
            }
            cause::CPU_TIME
        } else {
            return Due::Nothing;
        };
        self.terminate(cause, self.limits.grace)
    }

    /// Begins the end: at once without a grace.
    pub fn terminate(&mut self, cause: u32, grace: u64) -> Due {
        if grace == 0 {
            return Due::Kill(cause);
        }
        let end = now().saturating_add(grace);
        match self.kill_at {
            0 => self.cause = cause,
            earlier => {
                self.kill_at = earlier.min(end);
                return Due::Nothing;
            }
        }
        self.kill_at = end;
        Due::Terminate(cause)
    }
}
