//! How a sandbox ended, and what it cost.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// The end of a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exit {
    /// The payload's status, as wait(2) gives it.
    pub status: ExitStatus,
    /// What it cost.
    pub usage: Usage,
}

/// What a payload used. `None`: not known, never 0 for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// From the return of `spawn` until its end was noticed.
    pub wall: Duration,
    /// User CPU time of the payload and the children that it has waited for (getrusage(2)).
    pub user: Option<Duration>,
    /// System CPU time of the same.
    pub system: Option<Duration>,
    /// The largest resident set of any one of them, in bytes.
    pub max_rss: Option<u64>,
}

impl Exit {
    pub(super) fn new(status: ExitStatus, usage: Usage) -> Exit {
        Exit { status, usage }
    }

    /// Whether the payload exited with code 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// The exit code, unless a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it, if one did.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status.fmt(f)
    }
}

impl Usage {
    pub(super) fn with_wall(mut self, wall: Duration) -> Usage {
        self.wall = wall;
        self
    }
}

/// What the shim reports: microseconds, and KiB.
pub(super) fn reported(status: i32, user: i64, system: i64, maxrss: i64) -> (ExitStatus, Usage) {
    let micros = |n: i64| u64::try_from(n).ok().map(Duration::from_micros);
    let usage = Usage {
        wall: Duration::ZERO,
        user: micros(user),
        system: micros(system),
        max_rss: u64::try_from(maxrss).ok().map(|kib| kib * 1024),
    };
    (ExitStatus::from_raw(status), usage)
}
