//! Why a sandbox ended: one [`Verdict`], each from a source of the kernel's or a record
//! of our own, never from the number of a signal alone.
//!
//! | verdict | source |
//! | --- | --- |
//! | `Exited`, `Signaled` | the payload's status (wait(2)) |
//! | `OomKilled` | SIGKILL, nobody here asked for it, and the cgroup's own `oom_kill` counter (cgroups(7)) |
//! | `WallTimeLimit`, `OutputLimit`, `KilledByHandle`, `HostDied` | the record of who asked, written before the signal is sent |
//! | `CpuTimeLimit` | the same record; or SIGXCPU or SIGKILL at the RLIMIT_CPU in force, by the payload's rusage |
//! | `SeccompKilled` | SIGSYS, and a filter that kills |
//! | `StatusLost` | nobody has the status any more |

use crate::program::cause;
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Why a sandbox ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The payload exited with this code (0 to 255), by itself: also if a kill was on its way.
    Exited(i32),
    /// This signal ended the payload, and none of the reasons below did: it came from the
    /// payload's own processes, from [`Child::signal`](crate::Child::signal), or from outside.
    Signaled(i32),
    /// The kernel ended it because its cgroup was out of memory. Without a cgroup of the
    /// sandbox's own nobody can tell, and the verdict is `Signaled(9)`. The group counts all its processes: a
    /// payload that is killed by a signal 9 of somebody else's after another of its processes was ended for want
    /// of memory is told so too.
    OomKilled,
    /// It was still running when its wall-clock time was over.
    WallTimeLimit,
    /// It had used up its CPU time.
    CpuTimeLimit,
    /// It wrote more than it may.
    OutputLimit,
    /// A seccomp filter of the sandbox ended it: SIGSYS, and there is a filter that kills. The
    /// kernel does not tell its SIGSYS from one that a process sends itself (seccomp(2), signal(7)).
    SeccompKilled,
    /// [`Child::kill`](crate::Child::kill) ended it.
    KilledByHandle,
    /// The process that started it is gone: told to one that holds the handle nevertheless, after a fork.
    HostDied,
    /// It has ended; its status was taken by another wait in this process (a `waitpid(-1)`,
    /// or SIGCHLD set to SIG_IGN). Never so under [`Init::Shim`](crate::Init::Shim), which
    /// reports the status itself, unless the shim was killed from outside.
    StatusLost,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Exited(code) => write!(f, "exited with code {code}"),
            Verdict::Signaled(signal) => write!(f, "ended by signal {signal}"),
            Verdict::OomKilled => f.write_str("killed, out of memory"),
            Verdict::WallTimeLimit => f.write_str("ended, its wall-clock time was over"),
            Verdict::CpuTimeLimit => f.write_str("ended, its CPU time was used up"),
            Verdict::OutputLimit => f.write_str("ended, it wrote too much"),
            Verdict::SeccompKilled => f.write_str("killed by a seccomp filter"),
            Verdict::KilledByHandle => f.write_str("killed by its handle"),
            Verdict::HostDied => f.write_str("killed, its host process is gone"),
            Verdict::StatusLost => f.write_str("ended; its status was taken by another wait in this process"),
        }
    }
}

/// What is known of an end besides the status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// Processes of the sandbox's own cgroup that the kernel has killed for want of memory;
    /// `None` without such a cgroup.
    pub oom_kills: Option<u64>,
    /// Whether a seccomp filter of the sandbox kills.
    pub seccomp_kills: bool,
}

impl Verdict {
    /// From the payload's status, the record of who asked for its end (`cause::…`), and the evidence.
    pub(super) fn of(status: Option<ExitStatus>, cause: u32, evidence: Evidence) -> Verdict {
        let Some(status) = status else { return Verdict::StatusLost };
        match cause {
            cause::HANDLE => return Verdict::KilledByHandle,
            cause::WALL_TIME => return Verdict::WallTimeLimit,
            cause::CPU_TIME => return Verdict::CpuTimeLimit,
            cause::OUTPUT => return Verdict::OutputLimit,
            cause::HOST_DIED => return Verdict::HostDied,
            _ => {}
        }
        match (status.code(), status.signal()) {
            (Some(code), _) => Verdict::Exited(code),
            (None, Some(libc::SIGKILL)) if evidence.oom_kills.is_some_and(|n| n > 0) => Verdict::OomKilled,
            (None, Some(libc::SIGSYS)) if evidence.seccomp_kills => Verdict::SeccompKilled,
            (None, Some(signal)) => Verdict::Signaled(signal),
            (None, None) => Verdict::StatusLost, // a stopped process has not ended
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verdict_has_its_own_evidence() {
        let killed = Some(ExitStatus::from_raw(9));
        let none = Evidence::default();
        let oom = |n| Evidence { oom_kills: Some(n), ..none };
        let filter = Evidence { seccomp_kills: true, ..none };
        let cases = [
            (Some(ExitStatus::from_raw(3 << 8)), cause::NONE, oom(1), Verdict::Exited(3)),
            (killed, cause::NONE, none, Verdict::Signaled(9)),
            (killed, cause::NONE, oom(0), Verdict::Signaled(9)),
            (killed, cause::NONE, oom(1), Verdict::OomKilled),
            (killed, cause::HANDLE, oom(1), Verdict::KilledByHandle),
            (killed, cause::WALL_TIME, none, Verdict::WallTimeLimit),
            (killed, cause::CPU_TIME, none, Verdict::CpuTimeLimit),
            (killed, cause::OUTPUT, none, Verdict::OutputLimit),
            (killed, cause::HOST_DIED, none, Verdict::HostDied),
            (Some(ExitStatus::from_raw(31)), cause::NONE, none, Verdict::Signaled(31)),
            (Some(ExitStatus::from_raw(31 | 0x80)), cause::NONE, filter, Verdict::SeccompKilled),
            (Some(ExitStatus::from_raw(9)), cause::NONE, filter, Verdict::Signaled(9)),
            (None, cause::HANDLE, none, Verdict::StatusLost),
        ];
        for (status, cause, evidence, verdict) in cases {
            assert_eq!(Verdict::of(status, cause, evidence), verdict, "{status:?} {cause} {evidence:?}");
        }
    }
}
