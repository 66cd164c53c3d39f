//! The host's end of a payload's terminal.

use crate::error::{Error, Result};
use crate::sys::{Errno, pty, socket};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// The size of a terminal, in characters. 80 × 24 by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PtySize {
    /// Characters in a row.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

impl Default for PtySize {
    fn default() -> Self {
        PtySize { columns: 80, rows: 24 }
    }
}

/// The master of a pseudoterminal (pty(7)) whose other end is the payload's terminal, from
/// [`Child::pty`](crate::Child::pty).
///
/// It comes from the sandbox's own instance of devpts: opened inside and passed out by
/// descriptor, so that no path of the sandbox is ever trusted. What the payload can do
/// with its terminal (push input by TIOCSTI, change its modes) it does to itself.
///
/// Reading gives what the payload writes, and the end (0 bytes) when it is closed on that side by everyone;
/// a write is what a user types: `\x03` interrupts, `\x04` ends the input, and the kernel echoes. Reads and
/// writes wait without bound: poll the descriptor, or ask [`wait_readable`](Pty::wait_readable) first. **Dropping it**
/// hangs up: the session's leader, the payload, gets SIGHUP; so take it from a child that is to be
/// [detached](crate::Child::detach).
///
/// Output for a real terminal is to be filtered: escape sequences of an untrusted program act on whoever shows them.
#[derive(Debug)]
pub struct Pty(File);

impl Pty {
    pub(crate) fn new(master: OwnedFd) -> Pty {
        Pty(master.into())
    }

    /// The present size.
    ///
    /// # Errors
    /// None that is known on a pty.
    pub fn size(&self) -> Result<PtySize> {
        let (rows, columns) = pty::size(self.as_fd()).map_err(|errno| Error::call("ask a pty for its size", errno))?;
        Ok(PtySize { columns, rows })
    }

    /// Changes the size, of which the foreground process group is told by SIGWINCH.
    ///
    /// # Errors
    /// None that is known on a pty.
    pub fn resize(&self, size: PtySize) -> Result<()> {
        pty::resize(self.as_fd(), size.rows, size.columns).map_err(|errno| Error::call("resize a pty", errno))
    }

    /// Waits until a read would not wait, at most this long. False when the time is over.
    ///
    /// # Errors
    /// [`ErrorKind::LimitReached`](crate::ErrorKind::LimitReached) (`ENOMEM`).
    pub fn wait_readable(&self, timeout: Duration) -> Result<bool> {
        socket::wait_readable(self.as_fd(), Some(timeout)).map_err(|errno| Error::call("wait for a pty", errno))
    }

    /// Another handle of the same master, say for a second thread. The last one hangs up.
    ///
    /// # Errors
    /// [`ErrorKind::LimitReached`](crate::ErrorKind::LimitReached) (`EMFILE`).
    pub fn try_clone(&self) -> Result<Pty> {
        let copy = |e: io::Error| Error::call("copy a pty", Errno::of(e));
        self.0.try_clone().map(Pty).map_err(copy)
    }
}

impl AsFd for Pty {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Pty> for OwnedFd {
    fn from(pty: Pty) -> OwnedFd {
        pty.0.into()
    }
}

impl Read for &Pty {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match (&self.0).read(bytes) {
            // how a master tells that nobody has the other end open
            Err(e) if e.raw_os_error() == Some(libc::EIO) => Ok(0),
            answer => answer,
        }
    }
}

impl Read for Pty {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (&*self).read(bytes)
    }
}

impl Write for &Pty {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // nothing is held back
    }
}

impl Write for Pty {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
