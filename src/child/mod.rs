//! The handle of a running sandbox.

mod exit;
mod output;

pub use exit::{Exit, Usage};
pub use output::Output;

use crate::error::{Error, ErrorKind, Result};
use crate::handle::{Namespace, NamespaceKind};
use crate::launch::Running;
use crate::process::{Init, Streams};
use crate::program::{REPORT_MAX, Report, Request};
use crate::rootfs::Kept;
use crate::sys::kernel::abi::SIGKILL;
use crate::sys::pidfd::PidFd;
use crate::sys::{Errno, socket};
use std::fs::File;
use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// A running sandbox.
///
/// **Dropping it kills every process in it**, waits until they are gone, and removes
/// what the sandbox had. [`detach`](Child::detach) opts out. When the host process ends,
/// however it does, the shim ends the sandbox too ([`Init::Shim`]).
///
/// The descriptor ([`AsFd`]) is a pidfd: readable when the sandbox has ended, for any
/// poll, epoll or async reactor.
#[derive(Debug)]
pub struct Child {
    /// The pipe to the payload's standard input, if piped.
    pub stdin: Option<PipeWriter>,
    /// The pipe from the payload's standard output, if piped.
    pub stdout: Option<PipeReader>,
    /// The pipe from the payload's standard error, if piped.
    pub stderr: Option<PipeReader>,
    pid: i32,
    pidfd: PidFd,
    control: OwnedFd,
    init: Init,
    started: Instant,
    /// What the shim reported of the payload's end.
    reported: Option<(ExitStatus, Usage)>,
    exit: Option<Exit>,
    detached: bool,
    notes: Vec<String>,
    _kept: Kept,
}

impl Child {
    pub(crate) fn new(running: Running, streams: Streams, kept: Kept, init: Init) -> Child {
        let Running { pid, pidfd, control, notes } = running;
        Child {
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            pid,
            pidfd,
            control,
            init,
            started: Instant::now(),
            reported: None,
            exit: None,
            detached: false,
            notes,
            _kept: kept,
        }
    }

    /// The pid, on the host, of the sandbox's first process: the shim, which forwards
    /// signals to the payload, or the payload itself under [`Init::Payload`].
    pub fn id(&self) -> u32 {
        self.pid as u32
    }

    /// What the specification asked for at best and this host could not give, in words.
    /// Never a protection: those fail.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// One of the sandbox's namespaces, for another sandbox to join. Holding it keeps the
    /// namespace alive.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the sandbox has ended.
    pub fn namespace(&self, kind: NamespaceKind) -> Result<Namespace> {
        // The shim itself stays outside of a pid namespace that it joined: its children's is meant.
        let name = if kind == NamespaceKind::Pid { "pid_for_children" } else { kind.file_name() };
        let fd = File::open(format!("/proc/{}/ns/{name}", self.pid)).map_err(|e| {
            let errno = Errno(e.raw_os_error().unwrap_or(libc::EIO));
            Error::call(format!("open the {} namespace of the sandbox {}", kind.file_name(), self.pid), errno)
        })?;
        // the pid is still ours as long as we have not reaped it
        if self.exit.is_some() {
            return Err(Error::new(ErrorKind::NotFound, "the sandbox has ended, and its namespaces with it"));
        }
        Ok(Namespace::from_fd(fd.into(), format!("{} of sandbox {}", kind.file_name(), self.pid)))
    }

    /// Waits for the payload to exit and the sandbox to end. Closes `stdin` first, as `std` does.
    /// Without bound: see [`wait_timeout`](Child::wait_timeout).
    ///
    /// # Errors
    /// [`ErrorKind::StatusLost`] when another part of this process has reaped the child
    /// and the shim had not reported its exit.
    pub fn wait(&mut self) -> Result<Exit> {
        self.stdin = None;
        loop {
            if let Some(exit) = self.wait_bounded(None)? {
                return Ok(exit);
            }
        }
    }

    /// The exit, if the sandbox has ended.
    ///
    /// # Errors
    /// As [`wait`](Child::wait).
    pub fn try_wait(&mut self) -> Result<Option<Exit>> {
        self.wait_bounded(Some(Duration::ZERO))
    }

    /// Waits at most this long; `None` when the sandbox still runs, which is left as it is.
    ///
    /// # Errors
    /// As [`wait`](Child::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<Exit>> {
        self.wait_bounded(Some(timeout))
    }

    fn wait_bounded(&mut self, timeout: Option<Duration>) -> Result<Option<Exit>> {
        if let Some(exit) = &self.exit {
            return Ok(Some(exit.clone()));
        }
        let fail = |errno| Error::call(format!("wait for the sandbox {}", self.pid), errno);
        if !self.pidfd.wait_exited(timeout).map_err(fail)? {
            return Ok(None);
        }
        // ECHILD: somebody else in this process has reaped it; the shim may have told us
        let own = match self.pidfd.try_wait() {
            Ok(Some(status)) => Some(status),
            Ok(None) => return Ok(None),
            Err(Errno::ECHILD) => None,
            Err(errno) => return Err(fail(errno)),
        };
        self.hear();
        let wall = self.started.elapsed();
        let exit = match (self.reported.take(), own) {
            (Some((status, usage)), _) => Exit::new(status, usage.with_wall(wall)),
            (None, Some(status)) => Exit::new(status, Usage::default().with_wall(wall)),
            (None, None) => {
                return Err(Error::new(
                    ErrorKind::StatusLost,
                    format!("wait for the sandbox {}: its status was taken by somebody else in this process", self.pid),
                )
                .with_hint("no waitpid(-1) and no SIGCHLD set to SIG_IGN in the host, or Init::Shim, which reports the status itself"));
            }
        };
        self.exit = Some(exit.clone());
        Ok(Some(exit))
    }

    /// Takes what the shim has reported.
    fn hear(&mut self) {
        let mut packet = [0u8; REPORT_MAX];
        while let Ok((len, _)) = socket::receive(self.control.as_fd(), &mut packet, false) {
            match Report::decode(&packet[..len]) {
                Some(Report::Exited { status, user, system, maxrss }) => {
                    self.reported = Some(exit::reported(status, user, system, maxrss));
                }
                _ if len == 0 => return,
                _ => {}
            }
        }
    }

    /// Sends a signal to the payload. By the shim, so that it arrives also where PID 1
    /// would ignore it; a payload that is PID 1 itself must have a handler for it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the sandbox has ended (`ESRCH`); `EINVAL` for no signal (1 to 64).
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
            Init::Shim => self.request(Request::Signal(signal)).map_err(|_| fail(Errno::ESRCH)),
            Init::Payload => self.pidfd.send_signal(signal).map_err(fail),
        }
    }

    fn request(&self, request: Request) -> Result<(), Errno> {
        socket::send(self.control.as_fd(), &request.encode(), &[])
    }

    /// Kills every process of the sandbox (SIGKILL); [`wait`](Child::wait) then tells. One
    /// that has ended already is left alone.
    ///
    /// In a pid namespace that is joined or inherited, it is the shim that finds and kills
    /// the payload's descendants.
    ///
    /// # Errors
    /// `EPERM`, if the host process has changed its user since.
    pub fn kill(&mut self) -> Result<()> {
        if self.exit.is_some() {
            return Ok(());
        }
        if self.init == Init::Shim && self.request(Request::Kill).is_ok() {
            // PID 1 ends at once, and the kernel kills the rest; a bound, should it be stopped
            let ended = self.pidfd.wait_exited(Some(Duration::from_millis(500)));
            if ended.is_ok_and(|ended| ended) {
                return Ok(());
            }
        }
        match self.pidfd.send_signal(SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(Error::call(format!("kill the sandbox {}", self.pid), errno)),
        }
    }

    /// Gives up the handle: the sandbox runs on, also after the host process. Its exit is
    /// reaped by whoever is then its parent. Gives the pidfd.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the sandbox has ended.
    pub fn detach(mut self) -> Result<OwnedFd> {
        if self.init == Init::Shim {
            self.request(Request::Detach).map_err(|errno| {
                Error::call(format!("detach the sandbox {}", self.pid), errno).with_kind(ErrorKind::NotFound)
            })?;
        }
        self.detached = true;
        self.pidfd
            .as_fd()
            .try_clone_to_owned()
            .map_err(|e| Error::call("copy the pidfd", Errno(e.raw_os_error().unwrap_or(libc::EIO))))
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// A killed process is gone within microseconds, unless the kernel itself is stuck (a
/// dead NFS server): then it is left to the host's init rather than hang the caller.
const DROP_BOUND: Duration = Duration::from_secs(10);

impl Drop for Child {
    fn drop(&mut self) {
        if self.detached || self.exit.is_some() {
            return;
        }
        let killed = self.kill().is_ok();
        if killed && self.pidfd.wait_exited(Some(DROP_BOUND)).is_ok_and(|ended| ended) {
            // ECHILD: a reaper of the host was faster, which is as good
            let _ = self.pidfd.try_wait();
        }
    }
}
