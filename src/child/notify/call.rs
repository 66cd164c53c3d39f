//! One notified system call: what it is, and the process that made it.

use super::{Shared, fail};
use crate::error::{Error, ErrorKind, Result};
use crate::security::name_of;
use crate::sys::pidfd::PidFd;
use crate::sys::seccomp::{Notice, Response};
use crate::sys::{Errno, memory};
use std::ffi::CString;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A system call that waits for its [`answer`](Notification::answer). Dropped without one it gets `EPERM`.
///
/// Its number, its registers and its thread are the kernel's word; all else that can be learnt of it is of the payload's
/// making. May be moved to another thread; calls may be answered in any order.
#[derive(Debug)]
pub struct Notification {
    pub(super) shared: Arc<Shared>,
    pub(super) notice: Notice,
    /// Whether something of its memory was read.
    pub(super) looked: bool,
    pub(super) answered: bool,
}

/// The page that all machines have at least: a read of one page is whole or fails.
const PAGE: u64 = 4096;

impl Notification {
    pub(super) fn new(shared: Arc<Shared>, notice: Notice) -> Notification {
        Notification { shared, notice, looked: false, answered: false }
    }

    /// The number of the call, in its ABI.
    pub fn number(&self) -> i32 {
        self.notice.number
    }

    /// Its name as in syscalls(2); `None` for a number that this version of the library has no name for.
    pub fn name(&self) -> Option<&'static str> {
        name_of(self.notice.number, self.notice.arch)
    }

    /// Its ABI, `AUDIT_ARCH_…` of <linux/audit.h>: the machine's own, unless [`Abi::Legacy`](crate::Abi::Legacy) allows
    /// the 32-bit one.
    pub fn arch(&self) -> u32 {
        self.notice.arch
    }

    /// The six registers of its arguments, used or not. Of an argument that is an int the kernel looks at the lower 32
    /// bits only: `call.arguments()[0] as i32`.
    pub fn arguments(&self) -> [u64; 6] {
        self.notice.arguments
    }

    /// The address behind the instruction that made the call.
    pub fn instruction_pointer(&self) -> u64 {
        self.notice.instruction_pointer
    }

    /// The thread that made it, as the host process numbers it (gettid(2)); 0 when its pid namespace is not below the
    /// host process's. Sure to be that thread as long as [`is_waiting`](Notification::is_waiting).
    pub fn thread(&self) -> u32 {
        self.notice.thread
    }

    /// Whether the call still waits for its answer: not after its thread was killed or interrupted.
    ///
    /// # Errors
    /// None that is known.
    pub fn is_waiting(&self) -> Result<bool> {
        self.shared.listener.is_waiting(self.notice.id).map_err(|errno| fail("look after", errno))
    }

    /// The process that made it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the call does not wait any more.
    pub fn process(&self) -> Result<PidFd> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.notice.thread)).unwrap_or_default();
        let group = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
        let process = PidFd::open(group.ok_or_else(gone)?);
        self.still(process.map_err(|errno| self.about("open a pidfd of", errno))?)
    }

    /// A copy of a descriptor of the process that made it (pidfd_getfd(2), Linux 5.6): the socket of a connect(2), to
    /// be connected by the host. Another thread of the payload may exchange what the number stands for at any time: what
    /// matters is to act on the copy.
    ///
    /// # Errors
    /// `EBADF` (it has nothing open there), `EPERM` (the host process may not trace it, ptrace(2)),
    /// [`ErrorKind::NotFound`] when the call does not wait any more.
    pub fn descriptor(&mut self, number: u32) -> Result<OwnedFd> {
        self.looked = true;
        let copy = self.process()?.copy_fd(number);
        self.still(copy.map_err(|errno| self.about(&format!("copy descriptor {number} of"), errno))?)
    }

    /// Reads memory of the process from `address` on, as much as `into` holds.
    ///
    /// What comes is what was there at that moment, and the payload can change it at the next: good to do in the
    /// payload's place what it asks ([`Answer::Value`](super::Answer), [`Answer::InjectFd`](super::Answer)), and no
    /// ground to let the call itself through ([`Grounds`](super::Grounds)). A payload that is allowed userfaultfd(2) or
    /// FUSE mounts can keep the read waiting (by default it is not).
    ///
    /// # Errors
    /// `EFAULT` (not all of it can be read), `EPERM` (the host process may not trace it: a policy of the host),
    /// [`ErrorKind::NotFound`] when the call does not wait any more.
    pub fn read(&mut self, address: u64, into: &mut [u8]) -> Result<()> {
        self.looked = true;
        let mut at = 0;
        while at < into.len() {
            let from = address.checked_add(at as u64);
            match from.map_or(Err(Errno::EFAULT), |from| self.copy(from, &mut into[at..])) {
                Ok(0) => return Err(self.about("read the memory of", Errno::EFAULT)),
                Ok(n) => at += n,
                Err(errno) => return Err(self.about("read the memory of", errno)),
            }
        }
        self.still(())
    }

    /// Reads a string that ends in a NUL, of at most `max` bytes with it: a path has [`libc::PATH_MAX`], 4096.
    ///
    /// # Errors
    /// `ENAMETOOLONG`, and those of [`read`](Notification::read).
    pub fn read_c_string(&mut self, address: u64, max: usize) -> Result<CString> {
        self.looked = true;
        let mut bytes = Vec::new();
        while bytes.len() < max {
            let from = address.wrapping_add(bytes.len() as u64);
            // not beyond the page, after which there may be nothing
            let some = (PAGE - from % PAGE).min((max - bytes.len()) as u64) as usize;
            let start = bytes.len();
            bytes.resize(start + some, 0);
            let read = self.copy(from, &mut bytes[start..]);
            let read = read.map_err(|errno| self.about("read the memory of", errno))?;
            bytes.truncate(start + read);
            if let Some(end) = bytes[start..].iter().position(|byte| *byte == 0) {
                bytes.truncate(start + end);
                let string = CString::new(bytes).map_err(|_| self.about("read the memory of", Errno::EFAULT))?;
                return self.still(string);
            }
            if read == 0 {
                return Err(self.about("read the memory of", Errno::EFAULT));
            }
        }
        Err(self.about(&format!("find the end of a string within {max} bytes in the memory of"), Errno::ENAMETOOLONG))
    }

    /// Writes into memory of the process, for a call that is answered by [`Answer::Value`](super::Answer) and gives
    /// its result there (uname(2), getcwd(2)). Where the payload itself could not write, in a private mapping, this may.
    ///
    /// # Errors
    /// As [`read`](Notification::read); `EACCES` (`/proc/PID/mem` of the payload's user is not the host
    /// process's to open). `EFAULT` and `EIO` may leave the first bytes written.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        let path = format!("/proc/{}/mem", self.notice.thread);
        let file = OpenOptions::new().write(true).open(path);
        let file = file.map_err(|error| self.about("open the memory of", Errno::of(error)))?;
        // it still waits, so what is open is its memory and nobody else's, whoever has its number later
        let file = self.still(file)?;
        file.write_all_at(bytes, address).map_err(|error| self.about("write into the memory of", Errno::of(error)))?;
        self.still(())
    }

    fn copy(&self, address: u64, into: &mut [u8]) -> Result<usize, Errno> {
        match self.notice.thread {
            0 => Err(Errno::ESRCH),
            thread => memory::read(thread, address, into),
        }
    }

    /// What was learnt of the thread by its number is true if the call still waits.
    fn still<T>(&self, found: T) -> Result<T> {
        if self.is_waiting()? { Ok(found) } else { Err(gone()) }
    }

    fn about(&self, verb: &str, errno: Errno) -> Error {
        if errno == Errno::ESRCH || self.is_waiting().is_ok_and(|waits| !waits) {
            return gone();
        }
        let error = Error::call(format!("{verb} the thread {}", self.notice.thread), errno);
        match errno {
            Errno::EPERM | Errno::EACCES => error.with_hint(
                "a host process that may trace the payload: kernel.yama.ptrace_scope below 3, and no filter or security module above it that denies this",
            ),
            _ => error,
        }
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::NotFound, "look at a notified system call: it does not wait any more")
        .with_hint("to answer it all the same, which tells Delivery::Gone")
}

/// `name(registers)`, numbers as the kernel has them.
impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name)?,
            None => write!(f, "call {}", self.notice.number)?,
        }
        let [a, b, c, d, e, last] = self.notice.arguments;
        write!(f, "({a:#x}, {b:#x}, {c:#x}, {d:#x}, {e:#x}, {last:#x}) of thread {}", self.notice.thread)
    }
}

impl Drop for Notification {
    fn drop(&mut self) {
        if !self.answered {
            // ENOENT: it is gone, which is as good; a signal of the host process may come in between, but not for ever
            for _ in 0..8 {
                match self.shared.listener.respond(self.notice.id, Response::Errno(Errno::EPERM)) {
                    Err(Errno::EINTR) => {}
                    _ => return,
                }
            }
        }
    }
}
