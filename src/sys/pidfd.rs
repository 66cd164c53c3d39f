//! Processes by descriptor: a number can be reused, a pidfd cannot.
//!
//! pidfd_open(2) (Linux 5.3), pidfd_send_signal(2) (5.1), waitid(2) `P_PIDFD` (5.4), pidfd_getfd(2) (5.6).
//! Contract: <https://man7.org/linux/man-pages/man2/pidfd_open.2.html>.

use super::kernel::abi::*;
use super::kernel::call;
use super::kernel::raw::syscall;
use super::{Errno, Result};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// A process. Readable, for poll(2) and epoll(7), when it has exited.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// The process `pid` of the caller's pid namespace.
    ///
    /// # Errors
    /// `ESRCH` (no such process), `EINVAL` (not a thread group leader).
    pub fn open(pid: i32) -> Result<PidFd> {
        let fd = call::pidfd_open(pid, 0)?;
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(PidFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends a signal; 0 only checks.
    ///
    /// # Errors
    /// `ESRCH` (it has been reaped), `EPERM`, `EINVAL` (no such signal).
    pub fn send_signal(&self, signal: i32) -> Result<()> {
        call::pidfd_send_signal(self.0.as_raw_fd(), signal).map(drop)
    }

    /// A copy of a descriptor of the process (pidfd_getfd(2), Linux 5.6), close-on-exec: both mean the same open file,
    /// offset and all.
    ///
    /// # Errors
    /// `EPERM` (the caller may not trace the process, ptrace(2)), `EBADF` (nothing is open there), `ESRCH`, `EMFILE`.
    pub fn copy_fd(&self, number: u32) -> Result<OwnedFd> {
        // SAFETY: the call takes no pointer.
        let fd = unsafe { syscall!(pidfd_getfd, self.0.as_raw_fd(), number, 0) }?;
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }

    /// Waits until the process has exited, at most `timeout` (`None`: without bound).
    /// True when it has. Does not reap: the process need not be a child.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn wait_exited(&self, timeout: Option<Duration>) -> Result<bool> {
        super::socket::wait_readable(self.as_fd(), timeout)
    }

    /// Waits for a child and reaps it.
    ///
    /// # Errors
    /// `ECHILD`: not a child of this process, or reaped already by somebody else in it.
    pub fn wait(&self) -> Result<ExitStatus> {
        loop {
            match self.reap(0) {
                Ok(Some((status, _))) => return Ok(status),
                Ok(None) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Reaps a child that has exited; `None` when it still runs.
    ///
    /// # Errors
    /// As [`wait`](PidFd::wait).
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        Ok(self.reap(WNOHANG)?.map(|(status, _)| status))
    }

    /// As [`try_wait`](PidFd::try_wait), with what the child and those that it has waited for
    /// have used.
    pub(crate) fn try_wait_usage(&self) -> Result<Option<(ExitStatus, Rusage)>> {
        self.reap(WNOHANG)
    }

    fn reap(&self, options: u32) -> Result<Option<(ExitStatus, Rusage)>> {
        // siginfo_t on 64-bit machines: signo, errno, code, (padding), pid, uid, status, …
        let mut info = [0i32; 32];
        let mut usage = Rusage::default();
        let fd = self.0.as_raw_fd();
        // SAFETY: the kernel writes one siginfo_t of 128 bytes, and one `struct rusage`, which `Rusage` mirrors.
        unsafe { syscall!(waitid, P_PIDFD, fd, info.as_mut_ptr(), options | WEXITED, &raw mut usage) }?;
        let (code, pid, status) = (info[2], info[4], info[6]);
        let status = match (pid, code) {
            (0, _) => return Ok(None),
            (_, libc::CLD_EXITED) => (status & 0xff) << 8,
            (_, libc::CLD_DUMPED) => status | 0x80,
            _ => status,
        };
        Ok(Some((ExitStatus::from_raw(status), usage)))
    }
}

/// What is left of a span that began at `start`; `None` stays unbounded.
pub(crate) fn remaining(start: Instant, timeout: Option<Duration>) -> Option<Duration> {
    timeout.map(|span| span.saturating_sub(start.elapsed()))
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for PidFd {
    /// Takes a descriptor that is a pidfd.
    fn from(fd: OwnedFd) -> PidFd {
        PidFd(fd)
    }
}

impl From<PidFd> for OwnedFd {
    fn from(pidfd: PidFd) -> OwnedFd {
        pidfd.0
    }
}
