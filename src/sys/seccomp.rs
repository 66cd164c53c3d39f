//! User notification: filters of system calls that leave the decision to another process (seccomp(2)
//! `SECCOMP_RET_USER_NOTIF`, Linux 5.0).
//!
//! A thread that makes such a call waits in the kernel; who holds the listener receives a [`Notice`] of it and
//! responds. Contract: <https://man7.org/linux/man-pages/man2/seccomp_unotify.2.html>.
//!
//! The kernel copies the registers of the call. What they point to stays the caller's memory, which its other threads
//! can change at any time: a call that is continued after a look at it may be another call by then.

use super::kernel::abi::*;
use super::kernel::call;
use super::kernel::raw::syscall;
use super::{Errno, Result};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

/// Where notices of a filter arrive. Readable, for poll(2) and epoll(7), when there is one; hung up (`POLLHUP`,
/// Linux 5.9) when the last thread under the filter has ended (before Linux 6.11: is reaped).
///
/// Dropping it answers all calls of the filter, waiting and future ones, by `ENOSYS`.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// A system call that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notice {
    /// Names the call in all that follows; never given twice by one listener.
    pub id: u64,
    /// The thread, as the caller's pid namespace numbers it; 0 when it is not in there.
    pub thread: u32,
    /// The number of the call.
    pub number: i32,
    /// The ABI of the call, `AUDIT_ARCH_…` of <linux/audit.h>.
    pub arch: u32,
    /// The address behind the instruction that made it.
    pub instruction_pointer: u64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// How a call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// It is executed, with whatever its pointers point to then (`SECCOMP_USER_NOTIF_FLAG_CONTINUE`, Linux 5.5). No
    /// ground for a decision about what its pointers point to.
    Continue,
    /// It fails with this error, 1 to 4095.
    Errno(Errno),
    /// It gives this value. -4095 to -1 are errors to a C library.
    Value(i64),
}

/// Where a descriptor is put into the target, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its number there, in place of what is open under it; `None`: the lowest that is free.
    pub number: Option<u32>,
    /// Whether it is closed by the target's next execve(2).
    pub close_on_exec: bool,
}

/// The sizes of the kernel's own records (`SECCOMP_GET_NOTIF_SIZES`).
#[derive(Clone, Copy)]
struct Sizes {
    notif: usize,
    resp: usize,
}

fn sizes() -> Result<Sizes> {
    static SIZES: OnceLock<Sizes> = OnceLock::new();
    if let Some(sizes) = SIZES.get() {
        return Ok(*sizes);
    }
    let mut raw = [0u16; 3];
    // SAFETY: the kernel writes one `struct seccomp_notif_sizes`, three words of 16 bits.
    unsafe { syscall!(seccomp, SECCOMP_GET_NOTIF_SIZES, 0, raw.as_mut_ptr()) }?;
    let (notif, resp) = (usize::from(raw[0]), usize::from(raw[1]));
    if notif < size_of::<SeccompNotif>() || resp < size_of::<SeccompNotifResp>() {
        return Err(Errno::ENOSYS); // records of an interface that never was released
    }
    Ok(*SIZES.get_or_init(|| Sizes { notif, resp }))
}

/// Zeroed memory of at least so many bytes, aligned for the records, which have no wider field.
fn record(bytes: usize) -> Vec<u64> {
    vec![0; bytes.div_ceil(8)]
}

/// What a listener has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A call that waits; it now is the caller's to answer.
    Notice(Notice),
    /// Nothing now.
    Nothing,
    /// Nothing any more: nobody is under the filter.
    End,
}

impl Listener {
    /// Installs a filter (records of `struct sock_filter`, 8 bytes each) for the calling thread and what it starts
    /// from now on, for good; the listener of its notices. What it notifies is not to be called by whoever receives.
    ///
    /// # Errors
    /// `EACCES` (neither no_new_privs nor CAP_SYS_ADMIN), `EBUSY` (the thread is under a filter with a listener, of
    /// which the kernel takes one), `EINVAL` (no valid filter; a kernel without user notification).
    pub fn install(filter: &[u8]) -> Result<Listener> {
        let fd = call::seccomp_filter(filter, SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
        // SAFETY: the kernel has just made this descriptor for us; it is close-on-exec.
        Ok(Listener(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Receives the next notice, waiting for it without bound: to be called when the descriptor is readable.
    ///
    /// # Errors
    /// `ENOENT` (the call is gone: its thread was killed or interrupted meanwhile; or, on newer kernels, nobody
    /// is under the filter any more), `EINTR`.
    pub fn receive(&self) -> Result<Notice> {
        let mut buffer = record(sizes()?.notif);
        // SAFETY: the kernel writes one `struct seccomp_notif`, whose size it has told and the buffer has; it is zeroed,
        // as the kernel asks for.
        unsafe { syscall!(ioctl, self.0.as_raw_fd(), SECCOMP_IOCTL_NOTIF_RECV, buffer.as_mut_ptr()) }?;
        // SAFETY: the buffer is at least as long as the record, aligned to its widest field, initialised by the kernel;
        // the record is plain integers.
        let notif = unsafe { buffer.as_ptr().cast::<SeccompNotif>().read() };
        Ok(Notice {
            id: notif.id,
            thread: notif.pid,
            number: notif.nr,
            arch: notif.arch,
            instruction_pointer: notif.instruction_pointer,
            arguments: notif.args,
        })
    }

    /// Receives the next notice, if there is one: does not wait, as long as nobody else receives beside it.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn try_receive(&self) -> Result<Arrival> {
        loop {
            let mut poll = [PollFd { fd: self.0.as_raw_fd(), events: POLLIN, revents: 0 }];
            match call::poll(&mut poll, Some([0, 0])) {
                Err(Errno::EINTR) => continue,
                answer => answer?,
            };
            let [PollFd { revents, .. }] = poll;
            if revents & POLLIN != 0 {
                match self.receive() {
                    // it is gone already
                    Err(Errno::ENOENT | Errno::EINTR) => {}
                    answer => return answer.map(Arrival::Notice),
                }
            } else if revents & POLLHUP != 0 {
                return Ok(Arrival::End);
            } else if revents == 0 {
                return Ok(Arrival::Nothing);
            }
            // POLLERR alone: a signal came in between
        }
    }

    /// Whether the call still waits: false when its thread was killed, or interrupted by a signal. While it waits, its
    /// thread is the one that the notice told of, so what was learnt of that by its number before is true.
    ///
    /// # Errors
    /// None but `EINVAL`, for a descriptor that is no listener.
    pub fn is_waiting(&self, id: u64) -> Result<bool> {
        // SAFETY: the kernel reads one word.
        match unsafe { syscall!(ioctl, self.0.as_raw_fd(), SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) } {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Answers a call.
    ///
    /// # Errors
    /// `ENOENT` (it does not wait any more), `EINPROGRESS` (it has been answered), `EINVAL` ([`Response::Continue`]
    /// before Linux 5.5; an error number outside of 1 to 4095).
    pub fn respond(&self, id: u64, response: Response) -> Result<()> {
        let (val, error, flags) = match response {
            Response::Continue => (0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE),
            // 0 would be success
            Response::Errno(Errno(errno @ 1..=4095)) => (0, -errno, 0),
            Response::Errno(_) => return Err(Errno::EINVAL),
            Response::Value(value) => (value, 0, 0),
        };
        let mut buffer = record(sizes()?.resp);
        // SAFETY: the buffer is at least as long as the record and aligned to its widest field.
        unsafe { buffer.as_mut_ptr().cast::<SeccompNotifResp>().write(SeccompNotifResp { id, val, error, flags }) };
        // SAFETY: the kernel reads one `struct seccomp_notif_resp`, whose size it has told and the buffer has.
        unsafe { syscall!(ioctl, self.0.as_raw_fd(), SECCOMP_IOCTL_NOTIF_SEND, buffer.as_mut_ptr()) }.map(drop)
    }

    /// Puts a copy of a descriptor into the thread that waits (Linux 5.9), and gives its number there. The call stays
    /// to be answered.
    ///
    /// # Errors
    /// `ENOENT` (it does not wait any more), `EINPROGRESS` (answered), `EMFILE`, `EBADF` (its limit of descriptors).
    pub fn add_fd(&self, id: u64, fd: BorrowedFd<'_>, place: Place) -> Result<u32> {
        self.put_fd(id, fd, place, 0)
    }

    /// As [`add_fd`](Listener::add_fd), and answers the call by the number, in one step: a thread that ends meanwhile has
    /// got neither (`SECCOMP_ADDFD_FLAG_SEND`, Linux 5.14).
    ///
    /// # Errors
    /// `EINVAL` on older kernels, and those of [`add_fd`](Listener::add_fd).
    pub fn add_fd_and_respond(&self, id: u64, fd: BorrowedFd<'_>, place: Place) -> Result<u32> {
        self.put_fd(id, fd, place, SECCOMP_ADDFD_FLAG_SEND)
    }

    fn put_fd(&self, id: u64, fd: BorrowedFd<'_>, place: Place, flags: u32) -> Result<u32> {
        let record = SeccompNotifAddfd {
            id,
            flags: flags | place.number.map_or(0, |_| SECCOMP_ADDFD_FLAG_SETFD),
            srcfd: fd.as_raw_fd() as u32,
            newfd: place.number.unwrap_or(0),
            newfd_flags: if place.close_on_exec { O_CLOEXEC as u32 } else { 0 },
        };
        // SAFETY: the kernel reads one `struct seccomp_notif_addfd`, which this mirrors and whose size the request has.
        unsafe { syscall!(ioctl, self.0.as_raw_fd(), SECCOMP_IOCTL_NOTIF_ADDFD, &raw const record) }
            .map(|number| number as u32)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Listener {
    /// Takes a descriptor that is a listener.
    fn from(fd: OwnedFd) -> Listener {
        Listener(fd)
    }
}

impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> OwnedFd {
        listener.0
    }
}
