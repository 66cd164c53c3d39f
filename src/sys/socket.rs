//! Sequenced-packet UNIX sockets that pass descriptors (unix(7), `SCM_RIGHTS`), and
//! waiting on descriptors (poll(2)).

use super::kernel::abi::*;
use super::kernel::call;
use super::kernel::raw::syscall;
use super::{Errno, Result};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// The most descriptors one packet carries.
pub const MAX_FDS: usize = SCM_MAX_FD;

/// A connected pair, close-on-exec.
///
/// # Errors
/// `EMFILE`, `ENFILE`.
pub fn seqpacket_pair() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1i32; 2];
    // SAFETY: the kernel writes two ints.
    unsafe { syscall!(socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds.as_mut_ptr()) }?;
    // SAFETY: both descriptors are new and ours.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// Sends one packet, with up to [`MAX_FDS`] descriptors. Never raises SIGPIPE.
///
/// # Errors
/// `EPIPE` (closed), `EMSGSIZE`, `EINVAL` (too many descriptors), `ETOOMANYREFS`
/// (more descriptors in flight than RLIMIT_NOFILE).
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let fds: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    loop {
        match call::send(socket.as_raw_fd(), bytes, &fds, 0) {
            Err(Errno::EINTR) => {}
            answer => return answer.map(drop),
        }
    }
}

/// Receives one packet, waiting for it unless `wait` is false (then `EAGAIN`).
/// Gives its length and the descriptors in it; length 0 means that the other end is closed.
///
/// # Errors
/// `EAGAIN`, `EMFILE` (descriptors were lost).
pub fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8], wait: bool) -> Result<(usize, Vec<OwnedFd>)> {
    let flags = if wait { 0 } else { MSG_DONTWAIT };
    loop {
        let mut fds = Vec::new();
        // SAFETY: each received descriptor is new and ours.
        let take = |fd| fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
        match call::receive(socket.as_raw_fd(), bytes, flags, take) {
            // told once when the other end closed with packets unread, before what it had sent
            Err(Errno::EINTR | Errno::ECONNRESET) => {}
            Ok(len) => return Ok((len, fds)),
            Err(errno) => return Err(errno),
        }
    }
}

/// Waits until a descriptor is readable or its other end is closed, at most
/// `timeout` (`None`: without bound). False when the time is over.
///
/// # Errors
/// `ENOMEM`.
pub fn wait_readable(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> Result<bool> {
    Ok(wait_any(&[fd], timeout)?[0])
}

/// Waits until at least one of the descriptors is readable or closed, and says which.
///
/// # Errors
/// `ENOMEM`.
pub fn wait_any(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> Result<Vec<bool>> {
    let start = Instant::now();
    let mut poll: Vec<PollFd> =
        fds.iter().map(|fd| PollFd { fd: fd.as_raw_fd(), events: POLLIN, revents: 0 }).collect();
    loop {
        let left = super::pidfd::remaining(start, timeout);
        let time = left.map(|t| [i64::try_from(t.as_secs()).unwrap_or(i64::MAX), t.subsec_nanos() as i64]);
        match call::poll(&mut poll, time) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(_) => return Ok(poll.iter().map(|p| p.revents != 0).collect()),
        }
    }
}
