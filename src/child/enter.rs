//! Processes that enter a running sandbox.
//!
//! Nothing of the host joins the sandbox's namespaces: its init starts the process, as it started the
//! payload, from a Program that comes over its control socket. So there is no moment in which a process
//! inside could look into the memory or the descriptors of one that comes from outside
//! (CVE-2016-9962, CVE-2024-21626).

use super::{Child, Notifications};
use crate::error::{Error, ErrorKind, Result};
use crate::launch;
use crate::plan::compile_entry;
use crate::process::{Command, Init};
use crate::rootfs::Kept;
use crate::security::Security;
#[cfg(feature = "tokio")]
use crate::sys::Errno;
use crate::sys::socket;
use crate::testing;
use std::os::fd::AsFd;
#[cfg(feature = "tokio")]
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long after the end of a process its report may take: the init of its sandbox has only to reap it.
const REPORT_BOUND: Duration = Duration::from_secs(5);

impl Child {
    /// Starts another process in the running sandbox: in all its namespaces and its root, with the
    /// same confinement as the payload (capabilities, no_new_privs, system call filter …). The
    /// sandbox's init owns it and reaps it; at most 64 are held at once.
    ///
    /// The handle is one of that process alone: waiting, signals, limits and the exit are its own;
    /// dropping it kills the process group that it leads, and no other. Calls that its filter leaves to the host
    /// come by `notifications` of its own. It ends with
    /// the sandbox, also when that ends because its payload exits. It can be entered no further. Its pidfd tells of the end a
    /// moment before the init has reported it: [`try_wait`](Child::try_wait) may still give `None` then, and
    /// [`wait_timeout`](Child::wait_timeout) waits for the report.
    ///
    /// # Errors
    /// [`ErrorKind::NotSupported`] under [`Init::Payload`], whose init is not ours;
    /// [`ErrorKind::NotFound`] when the sandbox has ended; [`ErrorKind::Busy`] when its init does not
    /// answer within ten seconds, as when it is frozen; those of a spawn for the command.
    ///
    /// ```no_run
    /// use belljar::{Command, RootFs, Sandbox};
    ///
    /// let child = Sandbox::builder(RootFs::host()).build()?.spawn(Command::new("sleep").arg("60"))?;
    /// let exit = child.enter(Command::new("ps").arg("-e"))?.wait()?;
    /// assert!(exit.success());
    /// # Ok::<(), belljar::Error>(())
    /// ```
    pub fn enter(&self, command: &Command) -> Result<Child> {
        self.enter_as(command, None)
    }

    /// As [`enter`](Child::enter), confined by this security besides: what either of the two denies is denied. It
    /// has the capabilities that both keep, the filters of both, the lower of both's limits. It gains no new privileges. So it can never
    /// do more than the payload, whatever is given here.
    ///
    /// # Errors
    /// As [`enter`](Child::enter); a filter of the sandbox that denies seccomp(2) refuses a second one.
    pub fn enter_tighter(&self, command: &Command, security: &Security) -> Result<Child> {
        self.enter_as(command, Some(security))
    }

    fn enter_as(&self, command: &Command, tighter: Option<&Security>) -> Result<Child> {
        if self.init == Init::Payload || self.entered {
            let what = if self.entered { "a process that has entered one" } else { "a sandbox without a shim" };
            return Err(Error::new(ErrorKind::NotSupported, format!("enter {what}"))
                .with_hint("Init::Shim, and the handle that Sandbox::spawn gave"));
        }
        if self.exit.is_some() {
            return Err(Error::new(ErrorKind::NotFound, format!("enter the sandbox {}: it has ended", self.pid)));
        }
        let (program, streams) =
            compile_entry(&self.template, &self.ids, command, tighter, testing::disabled(), testing::fault())?;
        let group = self.group.of_one_that_entered();
        let running = launch::enter(self.control.as_fd(), &program)?;
        let mut child =
            Child::new(running, streams, Kept::default(), &self.template, command, self.without, self.ids.clone());
        child.entered = true;
        child.group = group;
        child.notifications = child.notifications.take().map(Notifications::of_one_that_entered);
        Ok(child)
    }

    /// The socket on which the end of a process that has entered is reported, for a reactor: what is told of the end by
    /// the pidfd is told once, and may be before there is a report.
    #[cfg(feature = "tokio")]
    pub(super) fn report_fd(&self) -> Result<Option<OwnedFd>> {
        let copy = |fd: &OwnedFd| fd.try_clone().map_err(Errno::of);
        let copy = self.entered.then(|| copy(&self.control)).transpose();
        copy.map_err(|errno| Error::call("copy the control socket", errno))
    }

    /// Whether the end has been seen, and not what the init says of it.
    #[cfg(feature = "tokio")]
    pub(super) fn awaits_report(&self) -> bool {
        self.ended.is_some() && self.exit.is_none()
    }

    /// Whether there is all that will be said of the end of a process that has entered: its init reports it only
    /// after the kernel has told us. Waits for it at most this long.
    pub(super) fn has_report(&mut self, timeout: Option<Duration>) -> bool {
        let end = *self.ended.get_or_insert_with(Instant::now) + REPORT_BOUND;
        let start = Instant::now();
        while self.reported.is_none() || self.used.is_none() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true; // the init is stuck: the status is lost
            }
            let asked = timeout.map_or(left, |timeout| timeout.saturating_sub(start.elapsed()));
            match socket::wait_readable(self.control.as_fd(), Some(left.min(asked))) {
                Ok(true) if self.hear() => {}
                Ok(false) if asked < left => return false,
                Ok(false) => {}
                _ => return true, // the sandbox is gone
            }
        }
        true
    }
}
