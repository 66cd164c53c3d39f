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
    /// (signal(7)), and a process that had been stopped before goes on as well.
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
    /// [`ErrorKind::NotSupported`] under [`Init::Payload`] and without a pid namespace of the sandbox's
    /// own; [`ErrorKind::NotFound`] when it has ended; [`ErrorKind::Busy`] when the shim does not
    /// answer within a second.
    pub fn freeze(&mut self) -> Result<Frozen<'_>> {
        self.ask(Request::Freeze)?;
        Ok(Frozen { child: self, thawed: false })
    }

    /// Sends a request, and waits for the answer of the shim.
    fn ask(&mut self, request: Request) -> Result<()> {
        let what = format!("{} the sandbox {}", if request == Request::Freeze { "freeze" } else { "thaw" }, self.pid);
        let refused = |errno| {
            let hint = "Init::Shim and Pid::New: its PID 1 is who can stop all processes at once";
            Error::call(&what, errno).with_kind(ErrorKind::NotSupported).with_hint(hint)
        };
        if self.init == Init::Payload {
            return Err(refused(Errno::EOPNOTSUPP));
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
        self.child.ask(Request::Thaw)
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
            let _ = self.child.ask(Request::Thaw);
        }
    }
}
