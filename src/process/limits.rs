//! What a run is allowed: time and output.

use super::{Command, Init};
use crate::error::{Defect, Error, Result};
use crate::id::c_path;
use crate::program::{Builder, Op};
use crate::units::Bytes;
use std::path::Path;
use std::time::Duration;

/// The limits of one command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    wall: Option<Duration>,
    cpu: Option<Duration>,
    grace: Duration,
    output: Option<Bytes>,
}

/// What is collected of a stream unless the command says otherwise.
const OUTPUT_MAX: Bytes = Bytes::mib(64);

impl Command {
    /// Ends the sandbox when it has run for so long, measured from the payload's start by
    /// CLOCK_MONOTONIC, to the millisecond: [`Verdict::WallTimeLimit`](crate::Verdict::WallTimeLimit).
    /// The shim enforces it, whether or not anybody waits, and after
    /// [`detach`](crate::Child::detach) too. More than 0; none unless set. Time in which the
    /// sandbox is frozen counts.
    ///
    /// ```no_run
    /// use belljar::{Command, RootFs, Sandbox, Verdict};
    /// use std::time::Duration;
    ///
    /// let sandbox = Sandbox::builder(RootFs::host()).build()?;
    /// let exit = sandbox.status(Command::new("sleep").arg("60").wall_time(Duration::from_millis(50)))?;
    /// assert_eq!(exit.verdict, Verdict::WallTimeLimit);
    /// # Ok::<(), belljar::Error>(())
    /// ```
    pub fn wall_time(&mut self, limit: Duration) -> &mut Self {
        self.limits.wall = Some(limit);
        self
    }

    /// Ends the sandbox when its processes together have used so much CPU time, user and
    /// system: [`Verdict::CpuTimeLimit`](crate::Verdict::CpuTimeLimit). More than 0; none unless set.
    ///
    /// The shim looks again when all CPUs together could have used up the rest: at the limit every
    /// 1 to 20 ms, so that a busy tree overruns by some milliseconds a CPU.
    ///
    /// A control group of the sandbox that counts CPU time is exact, whatever the payload does: it takes
    /// [`CgroupLimits::new`](crate::CgroupLimits::new), on a host that lets groups be made. Else the shim sums over
    /// all processes of the sandbox's pid namespace, living and reaped. Then children of a process
    /// that ignores SIGCHLD escape the sum when they have ended; what living processes' reaped
    /// children used is known to the kernel's 10 ms only; and it takes a `/proc` of the sandbox's own,
    /// as [`Mounts::standard`](crate::Mounts::standard) has it: without one, or without a pid
    /// namespace, only the payload and what has been reaped counts.
    ///
    /// Behind it stands RLIMIT_CPU (setrlimit(2)), by which the kernel ends any single process
    /// one to two seconds after the limit and the grace period, and which is never raised.
    pub fn cpu_time(&mut self, limit: Duration) -> &mut Self {
        self.limits.cpu = Some(limit);
        self
    }

    /// How long the payload has between SIGTERM and SIGKILL when
    /// a [`wall_time`](Command::wall_time) or [`cpu_time`](Command::cpu_time) is over. Zero unless
    /// set: SIGKILL at once. Whichever way it ends in that time, the verdict is the limit's.
    pub fn grace(&mut self, period: Duration) -> &mut Self {
        self.limits.grace = period;
        self
    }

    /// The most bytes of each stream that [`Sandbox::output`](crate::Sandbox::output) and
    /// [`Child::wait_with_output`](crate::Child::wait_with_output) collect; 64 MiB unless set. A payload that
    /// writes more is killed: [`Verdict::OutputLimit`](crate::Verdict::OutputLimit). No other reader is bound by it.
    pub fn output_max(&mut self, limit: Bytes) -> &mut Self {
        self.limits.output = Some(limit);
        self
    }
}

impl Limits {
    /// The most bytes to collect of a stream.
    pub fn output_max(&self) -> u64 {
        self.output.unwrap_or(OUTPUT_MAX).get()
    }

    pub(super) fn check(&self, init: Init, defects: &mut Vec<Defect>) {
        for (what, limit) in [("wall-clock", self.wall), ("CPU", self.cpu)] {
            let Some(limit) = limit else { continue };
            if limit < Duration::from_millis(1) {
                defects.push(Defect::new(format!("{limit:?} of {what} time"), "a millisecond or more"));
            }
            if init == Init::Payload {
                defects.push(Defect::new(
                    format!("nobody can hold a payload that is PID 1 to a limit of {what} time"),
                    "Init::Shim, whose shim does; or Child::wait_timeout and Child::kill",
                ));
            }
        }
    }

    /// What is asked of a process that enters: its CPU time is part of the sandbox's.
    pub(crate) fn check_entry(&self) -> Result<()> {
        if self.cpu.is_none() {
            return Ok(());
        }
        Err(Error::spec(vec![Defect::new(
            "a limit of CPU time for a process that enters: the sandbox's counts all of its processes",
            "Command::cpu_time with Sandbox::spawn, or Command::wall_time",
        )]))
    }

    /// What is asked of a sandbox whose processes its init may not see.
    pub(crate) fn check_unseen(&self) -> Result<()> {
        if self.cpu.is_none() {
            return Ok(());
        }
        Err(Error::spec(vec![Defect::new(
            "a limit of CPU time, for processes that Mount::hide_pids hides from the sandbox's init too",
            "CgroupLimits::new(), whose group counts them, where the host lets groups be made; or no hide_pids",
        )]))
    }

    /// Where the CPU time of all processes is counted, if a control group does.
    pub fn lower_source(&self, file: Option<&Path>, builder: &mut Builder) {
        if let Some(file) = file.filter(|_| self.cpu.is_some()) {
            builder.source_op(Op::CpuMeter { path: &c_path(file) });
        }
    }

    /// What the shim enforces.
    pub(super) fn lower(&self, builder: &mut Builder) {
        if self.wall.is_some() || self.cpu.is_some() {
            let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            let limit = |time: Option<Duration>| time.map_or(0, micros);
            builder.op(Op::Limits { wall: limit(self.wall), cpu: limit(self.cpu), grace: micros(self.grace) });
        }
    }

    /// What the kernel enforces.
    pub(super) fn lower_payload(&self, builder: &mut Builder) {
        if let Some(limit) = self.cpu {
            // a second later than the shim, which tells why
            let soft = limit.saturating_add(self.grace).as_secs().saturating_add(2);
            builder.op(Op::CpuSeconds { soft, hard: soft.saturating_add(1) });
        }
    }
}
