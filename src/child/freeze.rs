//! Stopping a sandbox for a while.

use super::Child;
use crate::error::{Error, ErrorKind, Result};
use crate::process::Init;
use crate::program::Request;
use crate::sys::{Errno, socket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// The shim answers at once, unless somebody outside has stopped it.
const PATIENCE: Duration = Duration::from_secs(1);

/// A sandbox whose processes stand still, until this is dropped.
#[derive(Debug)]
pub struct Frozen<'a> {
    child: &'a mut Child,
    thawed: bool,
}

impl Child {
    /// Stops every process of the sandbox, all at once, by SIGSTOP from its PID 1: none can
    /// block or ignore it. Dropping what is returned lets them go on. While they stand still
    /// their wall-clock time runs, they can be killed, and they end with the host process.
    ///
    /// The payload can notice: parents get SIGCHLD, some calls give EINTR afterwards
    /// (signal(7)), and a process that had been stopped before goes on as well. The freezer of
    /// a control group, which nobody notices, would stop PID 1 too, and with it the limits and the
    /// end with the host: it is used under [`Init::Payload`] only, which has neither.
    ///
    /// ```no_run
    /// # use belljar::*;
    /// # let mut child = Sandbox::builder(RootFs::host()).build()?.spawn(Command::new("sleep").arg("60"))?;
    /// {
    ///     let _frozen = child.freeze()?;
    ///     // no process of the sandbox runs here
    /// }
    /// child.kill(KillScope::Tree)?;
    /// # Ok::<(), belljar::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::NotSupported`] without a pid namespace of the sandbox's own, under `Init::Payload` without a control
    /// group, and for a process that has [entered](Child::enter); [`ErrorKind::NotFound`] when it has ended;
    /// [`ErrorKind::Busy`] when the shim does not answer, or a process does not stop, within a second.
    pub fn freeze(&mut self) -> Result<Frozen<'_>> {
        self.set_frozen(true)?;
        Ok(Frozen { child: self, thawed: false })
    }

    fn set_frozen(&mut self, frozen: bool) -> Result<()> {
        match self.init {
            Init::Shim => self.ask(if frozen { Request::Freeze } else { Request::Thaw }),
            Init::Payload => self.set_group_frozen(frozen),
        }
    }

    /// Where nobody inside could do it: by the control group, where there is one.
    fn set_group_frozen(&mut self, frozen: bool) -> Result<()> {
        let what = format!("{} the sandbox {}", if frozen { "freeze" } else { "thaw" }, self.pid);
        if self.exit.is_some() {
            return Err(Error::new(ErrorKind::NotFound, format!("{what}: it has ended")));
        }
        let done = if frozen { self.group.freeze(PATIENCE) } else { self.group.thaw(PATIENCE) };
        match done {
            Ok(()) => {
                self.group_frozen = frozen;
                Ok(())
            }
            Err(Errno::ETIMEDOUT) => {
                let _ = self.group.thaw(Duration::ZERO); // all or nobody
                Err(Error::call(what, Errno::ETIMEDOUT)
                    .with_kind(ErrorKind::Busy)
                    .with_hint("again: a process waits for a device, in the kernel"))
            }
            Err(errno) => Err(Error::call(what, errno)
                .with_kind(ErrorKind::NotSupported)
                .with_hint("Init::Shim, or CgroupLimits::new() on a host that lets the caller make groups")),
        }
    }

    /// Sends a request, and waits for the answer of the shim.
    fn ask(&mut self, request: Request) -> Result<()> {
        let what = format!("{} the sandbox {}", if request == Request::Freeze { "freeze" } else { "thaw" }, self.pid);
        let refused = |errno| {
            let hint = "Init::Shim and Pid::New: its PID 1 is who can stop all processes at once";
            Error::call(&what, errno).with_kind(ErrorKind::NotSupported).with_hint(hint)
        };
        if self.entered {
            return Err(refused(Errno::EOPNOTSUPP)); // the handle of the sandbox itself is who may
        }
        let gone = || Error::new(ErrorKind::NotFound, format!("{what}: it has ended"));
        let start = Instant::now();
        self.answer = None;
        if self.exit.is_some() || self.request(request).is_err() {
            return Err(gone());
        }
        loop {
            let left = PATIENCE.saturating_sub(start.elapsed());
            let ready = socket::wait_any(&[self.control.as_fd(), self.pidfd.as_fd()], Some(left));
            let ready = ready.map_err(|errno| Error::call(&what, errno))?;
            self.hear();
            match self.answer.take() {
                Some(0) => return Ok(()),
                Some(errno) => return Err(refused(Errno(errno))),
                None if ready[1] => return Err(gone()),
                None if left.is_zero() => {
                    let error = Error::new(ErrorKind::Busy, format!("{what}: its shim does not answer"));
                    return Err(
                        error.with_hint("to see who stops processes here: SIGSTOP, ptrace(2), a cgroup freezer")
                    );
                }
                None => {}
            }
        }
    }
}

impl Frozen<'_> {
    /// Lets the processes go on.
    ///
    /// # Errors
    /// As [`Child::freeze`].
    pub fn thaw(mut self) -> Result<()> {
        self.thawed = true;
        self.child.set_frozen(false)
    }

    /// The handle, to look at the sandbox, or to kill it as it stands.
    pub fn child(&mut self) -> &mut Child {
        self.child
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if !self.thawed && self.child.exit.is_none() {
            // what cannot be thawed has ended, or is held by somebody else
            let _ = self.child.set_frozen(false);
        }
    }
}
