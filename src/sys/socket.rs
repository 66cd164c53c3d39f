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
    pair(SOCK_SEQPACKET)
}

/// A connected pair of stream sockets, close-on-exec.
///
/// # Errors
/// `EMFILE`, `ENFILE`.
pub fn stream_pair() -> Result<(OwnedFd, OwnedFd)> {
    pair(SOCK_STREAM)
}

fn pair(kind: i32) -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1i32; 2];
    // SAFETY: the kernel writes two ints.
    unsafe { syscall!(socketpair, AF_UNIX, kind | SOCK_CLOEXEC, 0, fds.as_mut_ptr()) }?;
    // SAFETY: both descriptors are new and ours.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// A copy, close-on-exec, of what is open under a number: what the program was started
/// with, usually. Whose the number is stays open to question; the copy is the caller's.
///
/// # Errors
/// `EBADF` (nothing is open there), `EMFILE`.
pub fn inherited(number: i32) -> Result<OwnedFd> {
    let fd = call::fcntl(number, F_DUPFD_CLOEXEC, 3)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
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

/// As [`send`], but waits for room at most until `end`.
///
/// # Errors
/// `ETIMEDOUT`, and those of [`send`].
pub(crate) fn send_until(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>], end: Instant) -> Result<()> {
    let fds: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    loop {
        match call::send(socket.as_raw_fd(), bytes, &fds, MSG_DONTWAIT) {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let left = end.saturating_duration_since(Instant::now());
                let time = Some([i64::try_from(left.as_secs()).unwrap_or(i64::MAX), left.subsec_nanos() as i64]);
                let mut poll = [PollFd { fd: socket.as_raw_fd(), events: POLLOUT, revents: 0 }];
                match call::poll(&mut poll, time) {
                    Ok(0) => return Err(Errno::ETIMEDOUT),
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno),
                }
            }
            answer => return answer.map(drop),
        }
    }
}

/// As [`send`], but does not wait for room.
///
/// # Errors
/// `EAGAIN` (the other side does not read), and those of [`send`].
pub(crate) fn try_send(socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<()> {
    call::send(socket.as_raw_fd(), bytes, &[], MSG_DONTWAIT).map(drop)
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

/// Sends bytes, and descriptors with the first of them; gives how many bytes went. Never raises SIGPIPE.
///
/// # Errors
/// As [`send`], and `EAGAIN` when the socket's timeout is over.
pub fn send_some(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize> {
    let fds: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    loop {
        match call::send(socket.as_raw_fd(), bytes, &fds, 0) {
            Err(Errno::EINTR | Errno::ECONNRESET) => {} // as in `receive`; then it is EPIPE
            answer => return answer,
        }
    }
}

/// What one [`receive_some`] has brought.
#[derive(Debug)]
pub struct Flow {
    /// The number of bytes; 0 when the other end is closed.
    pub len: usize,
    /// The descriptors that came with them.
    pub fds: Vec<OwnedFd>,
    /// The packet was longer than the buffer; the rest is lost.
    pub cut_bytes: bool,
    /// There were more descriptors than asked for, or than could be opened; those are lost.
    pub cut_fds: bool,
}

/// Receives bytes, and at most `most` descriptors: the kernel opens no more. Waits as long as the
/// socket's timeout allows.
///
/// # Errors
/// `EAGAIN` when the socket's timeout is over.
pub fn receive_some(socket: BorrowedFd<'_>, bytes: &mut [u8], most: usize) -> Result<Flow> {
    loop {
        let mut fds = Vec::new();
        // SAFETY: each received descriptor is new and ours.
        let take = |fd| fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
        match call::receive_most(socket.as_raw_fd(), bytes, 0, most.min(MAX_FDS), take) {
            Err(Errno::EINTR | Errno::ECONNRESET) => {} // as in `receive`
            Ok((len, flags)) => {
                let (cut_bytes, cut_fds) = (flags & MSG_TRUNC != 0, flags & MSG_CTRUNC != 0);
                return Ok(Flow { len, fds, cut_bytes, cut_fds });
            }
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

/// The bytes that can be read from a pipe or socket now (ioctl(2) `FIONREAD`).
///
/// # Errors
/// `ENOTTY` (not such a descriptor).
pub fn readable_bytes(fd: BorrowedFd<'_>) -> Result<usize> {
    let mut count = 0i32;
    // SAFETY: the kernel writes one int.
    unsafe { syscall!(ioctl, fd.as_raw_fd(), FIONREAD, &raw mut count) }?;
    Ok(usize::try_from(count).unwrap_or(0))
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
