//! Signals to a sandbox, and its end on request.

use super::Child;
use crate::error::{Error, ErrorKind, Result};
use crate::process::Init;
use crate::program::{Request, cause};
use crate::sys::kernel::abi::SIGKILL;
use crate::sys::{Errno, socket};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Whom [`Child::kill`] signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KillScope {
    /// The payload alone. The others end when it has: its end is the sandbox's.
    Init,
    /// Every process at once.
    Tree,
}

/// How long the shim has to react: it is stopped if it does not.
const KILL_BOUND: Duration = Duration::from_millis(500);

impl Child {
    /// Sends a signal to the payload. By the shim, so that it arrives also where PID 1
    /// would ignore it; a payload that is PID 1 itself must have a handler for it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the sandbox has ended (`ESRCH`); [`ErrorKind::Busy`] when the shim reads
    /// nothing any more; `EINVAL` for no signal (1 to 64).
    pub fn signal(&self, signal: i32) -> Result<()> {
        let fail = |errno: Errno| {
            let kind = if errno == Errno::ESRCH { ErrorKind::NotFound } else { ErrorKind::Other };
            Error::call(format!("send signal {signal} to the sandbox {}", self.pid), errno).with_kind(kind)
        };
        if !(1..=64).contains(&signal) {
            return Err(fail(Errno::EINVAL));
        }
        if self.exit.is_some() {
            return Err(fail(Errno::ESRCH));
        }
        match self.init {
            Init::Shim => self.request(Request::Signal(signal)).map_err(|errno| match errno {
                Errno::EAGAIN => fail(errno).with_kind(ErrorKind::Busy), // it is stopped from outside
                _ => fail(Errno::ESRCH),
            }),
            Init::Payload => {
                if signal == SIGKILL && !self.ends_within(Duration::ZERO) {
                    self.cause.store(cause::HANDLE, Ordering::Relaxed);
                }
                self.pidfd.send_signal(signal).map_err(fail)
            }
        }
    }

    pub(super) fn request(&self, request: Request) -> Result<(), Errno> {
        // a shim that is stopped from outside does not read: no wait for it
        socket::try_send(self.control.as_fd(), &request.encode())
    }

    /// Kills (SIGKILL); [`wait`](Child::wait) then tells. A sandbox that has ended already is
    /// left alone, and a payload that exits before the signal arrives has [exited](crate::Verdict::Exited).
    ///
    /// In a pid namespace that is joined or inherited, it is the shim that finds and kills
    /// the payload's descendants; a control group ([`CgroupLimits`](crate::CgroupLimits)) holds also those
    /// that the shim cannot see.
    ///
    /// # Errors
    /// `EPERM`, if the host process has changed its user since.
    pub fn kill(&mut self, scope: KillScope) -> Result<()> {
        self.kill_for(cause::HANDLE, scope)
    }

    /// Asks the payload to end, by SIGTERM, and kills everything when `grace` is over: returns
    /// at once, the shim keeps the time; [`wait`](Child::wait) tells. Whichever way the payload
    /// ends in that time, the verdict is [`Verdict::KilledByHandle`](crate::Verdict::KilledByHandle). A later call can only
    /// shorten the time.
    ///
    /// # Errors
    /// [`ErrorKind::NotSupported`] under [`Init::Payload`], where there is nobody to keep the time;
    /// [`ErrorKind::Busy`] when the shim reads nothing any more.
    pub fn terminate(&mut self, grace: Duration) -> Result<()> {
        if self.init == Init::Payload {
            return Err(Error::new(ErrorKind::NotSupported, "terminate a payload that is PID 1 with a grace period")
                .with_hint("Init::Shim; or Child::signal, Child::wait_timeout and Child::kill"));
        }
        if grace < Duration::from_millis(1) {
            return self.kill(KillScope::Tree);
        }
        match self.request(Request::Terminate(u32::try_from(grace.as_millis()).unwrap_or(u32::MAX))) {
            Err(Errno::EAGAIN) => Err(Error::call(format!("terminate the sandbox {}", self.pid), Errno::EAGAIN)
                .with_kind(ErrorKind::Busy)
                .with_hint("Child::kill, which does not depend on a shim that somebody has stopped")),
            // a shim that is gone has ended the sandbox
            _ => Ok(()),
        }
    }

    /// Kills for a reason, which is recorded before the signal is sent.
    pub(super) fn kill_for(&mut self, cause: u32, scope: KillScope) -> Result<()> {
        if self.exit.is_some() {
            return Ok(());
        }
        if !(self.ask_to_kill(cause, scope) && self.ends_within(KILL_BOUND)) {
            self.kill_by_force(cause)?;
        }
        if scope == KillScope::Tree {
            // what is not below a PID 1 of the sandbox's own, or forks faster than it is found
            self.kill_group(KILL_BOUND);
        }
        Ok(())
    }

    /// As `kill_for`, without waiting for the shim to react: one that somebody has stopped is continued.
    #[cfg(feature = "tokio")]
    pub(super) fn start_kill(&mut self, cause: u32, scope: KillScope) -> Result<()> {
        if self.exit.is_some() {
            return Ok(());
        }
        if self.ask_to_kill(cause, scope) {
            let _ = self.pidfd.send_signal(crate::sys::kernel::abi::SIGCONT); // EPERM: then it was not stopped by one of ours either
            return Ok(());
        }
        self.kill_by_force(cause)
    }

    /// Whether the shim has been asked.
    fn ask_to_kill(&self, cause: u32, scope: KillScope) -> bool {
        let request = match scope {
            KillScope::Init => Request::KillInit,
            KillScope::Tree => Request::Kill(cause),
        };
        self.init == Init::Shim && self.request(request).is_ok()
    }

    pub(super) fn ends_within(&self, bound: Duration) -> bool {
        self.pidfd.wait_exited(Some(bound)).is_ok_and(|ended| ended)
    }

    /// Kills the first process, and with it, by the kernel, the others of its pid namespace.
    fn kill_by_force(&self, cause: u32) -> Result<()> {
        if !self.ends_within(Duration::ZERO) {
            self.cause.store(cause, Ordering::Relaxed);
        }
        let killed = self.pidfd.send_signal(SIGKILL);
        if self.group_frozen {
            let _ = self.group.thaw(Duration::ZERO); // in a v1 freezer nobody dies
        }
        match killed {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(Error::call(format!("kill the sandbox {}", self.pid), errno)),
        }
    }
}
