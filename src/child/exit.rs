//! How a sandbox ended, and what it cost.

use super::Verdict;
use crate::program::Used;
use crate::units::Bytes;
use std::fmt;
use std::process::ExitStatus;
use std::time::Duration;

/// The end of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exit {
    /// Why it ended.
    pub verdict: Verdict,
    /// The payload's status, as wait(2) gives it; `None` when it was lost ([`Verdict::StatusLost`]).
    pub status: Option<ExitStatus>,
    /// What it cost.
    pub usage: Usage,
}

/// What all processes of a sandbox have used together. `None`: not known here, never 0 for it.
///
/// Under [`Init::Shim`](crate::Init::Shim) it is what the shim has reaped (getrusage(2)
/// `RUSAGE_CHILDREN`): every process but those that a process of the payload let be reaped
/// unseen, by ignoring SIGCHLD. Under [`Init::Payload`](crate::Init::Payload) it is what the
/// kernel tells the one who reaps the payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// From the start of the payload to its end, as the shim saw it (CLOCK_MONOTONIC); where no shim
    /// did, from the return of `spawn` until the end was noticed.
    pub wall: Duration,
    /// CPU time in user mode.
    pub user: Option<Duration>,
    /// CPU time in the kernel.
    pub system: Option<Duration>,
    /// The largest resident set of any one process. Only under `Init::Shim`: a payload that
    /// is PID 1 has shared the host's memory before it was executed, and the kernel counts that.
    pub max_rss: Option<Bytes>,
    /// The peak of all memory together, as the sandbox's own cgroup counts it (`memory.peak`).
    pub memory_peak: Option<Bytes>,
    /// Read from block devices; what was in the page cache does not count.
    pub block_read: Option<Bytes>,
    /// Written to block devices, counted when a page is dirtied.
    pub block_written: Option<Bytes>,
    /// The most processes and threads at one time, as the sandbox's own cgroup counts them (`pids.peak`).
    pub processes_peak: Option<u64>,
    /// Context switches because a process had to wait.
    pub voluntary_switches: Option<u64>,
    /// Context switches because another process had to run.
    pub involuntary_switches: Option<u64>,
}

impl Exit {
    /// Whether the payload exited with code 0.
    pub fn success(&self) -> bool {
        self.verdict == Verdict::Exited(0)
    }

    /// The exit code, unless a signal ended the payload or the status is lost.
    pub fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.code())
    }

    /// The signal that ended it, if one did.
    pub fn signal(&self) -> Option<i32> {
        self.status.and_then(|status| std::os::unix::process::ExitStatusExt::signal(&status))
    }
}

/// The verdict in words.
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.verdict.fmt(f)
    }
}

impl Usage {
    /// From what the shim, or the kernel, has told.
    pub(super) fn of(used: &Used) -> Usage {
        let number = |n: i64| u64::try_from(n).ok();
        let micros = |n: i64| number(n).map(Duration::from_micros);
        let blocks = |n: i64| number(n).map(|n| Bytes::new(n.saturating_mul(512)));
        Usage {
            wall: micros(used.wall).unwrap_or_default(),
            user: micros(used.user),
            system: micros(used.system),
            max_rss: number(used.maxrss).map(Bytes::kib),
            block_read: blocks(used.inblock),
            block_written: blocks(used.oublock),
            voluntary_switches: number(used.nvcsw),
            involuntary_switches: number(used.nivcsw),
            ..Usage::default()
        }
    }
}
