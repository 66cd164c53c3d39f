//! Sockets between the host and a payload, for RPC with a plugin.

use crate::error::{Error, ErrorKind, Result};
use crate::sys::Errno;
use crate::sys::kernel::abi::S_IFSOCK;
use crate::sys::kernel::call;
use crate::sys::socket::{self, Flow, MAX_FDS};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// What a socket keeps of how it was written to (socket(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    /// Bytes in order, without boundaries (`SOCK_STREAM`): for a protocol that has its own frames.
    Stream,
    /// One packet for each send, never merged or split (`SOCK_SEQPACKET`), at most some 200 KiB
    /// (`net.core.wmem_default`).
    Packets,
}

/// A connected pair of UNIX sockets: the host's end, and the plugin's, for
/// [`Command::fd`](crate::Command::fd) or as a standard stream. Both are close-on-exec.
///
/// The host reads the end of the stream when every copy of the plugin's end is closed:
/// the command's too, so drop it after the spawn.
///
/// # Errors
/// [`ErrorKind::LimitReached`]: no descriptors left (`EMFILE`, `ENFILE`).
///
/// ```
/// use belljar::{Socket, SocketKind, socketpair};
/// use std::io::{Read, Write};
///
/// let (mut host, plugin) = socketpair(SocketKind::Stream)?;
/// let mut plugin = Socket::from(plugin); // in truth in another process
/// host.write_all(b"ping")?;
/// let mut four = [0; 4];
/// plugin.read_exact(&mut four)?;
/// assert_eq!(&four, b"ping");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn socketpair(kind: SocketKind) -> Result<(Socket, OwnedFd)> {
    let pair = match kind {
        SocketKind::Stream => socket::stream_pair(),
        SocketKind::Packets => socket::seqpacket_pair(),
    };
    let (host, plugin) = pair.map_err(|errno| Error::call("make a pair of sockets", errno))?;
    Ok((Socket::from(host), plugin))
}

/// One end of a [`socketpair`]: bytes by [`Read`] and [`Write`], descriptors by
/// [`send`](Socket::send) and [`receive`](Socket::receive). Writing to an end whose other one
/// is closed is `EPIPE` and never a SIGPIPE.
///
/// Of [packets](SocketKind::Packets) a plain read gives as much as fits, and loses the rest; [`receive`](Socket::receive)
/// tells. A plain read also drops what descriptors came along.
///
/// What comes from a plugin is untrusted: give a [timeout](Socket::set_timeout), bound what is read, and
/// treat a received descriptor as one may block (a FIFO) or change under one's hands (a
/// file that the plugin maps).
#[derive(Debug)]
pub struct Socket(UnixStream);

/// What one [`Socket::receive`] has brought.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Received {
    /// The number of bytes; 0 when the other end is closed.
    pub len: usize,
    /// The descriptors that came with them, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

impl Socket {
    /// A socket that this program was started with under this number, as the plugin's end
    /// is: a copy, so that it may be taken more than once. The number itself stays open.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: nothing is open there, or no socket.
    pub fn inherited(number: u32) -> Result<Socket> {
        let what = || format!("take the socket that the program was started with as descriptor {number}");
        let missing = |errno| Error::call(what(), errno).with_kind(ErrorKind::NotFound);
        let raw = i32::try_from(number).map_err(|_| missing(Errno::EBADF))?;
        let fd = socket::inherited(raw).map_err(missing)?;
        match call::fstat(fd.as_raw_fd()) {
            Ok(stat) if stat.kind() == S_IFSOCK => Ok(Socket::from(fd)),
            Ok(_) => Err(missing(Errno(libc::ENOTSOCK)).with_hint("Command::fd with an end of a socketpair")),
            Err(errno) => Err(missing(errno)),
        }
    }

    /// The longest that one call of this end waits, to read and to write; `None`, the
    /// default, is without bound.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSpec`] for a zero timeout.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<()> {
        self.0.set_read_timeout(timeout).and_then(|()| self.0.set_write_timeout(timeout)).map_err(|e| {
            Error::call("set the timeout of a socket", errno(&e))
                .with_kind(ErrorKind::InvalidSpec)
                .with_hint("a timeout above zero, or None")
        })
    }

    /// Sends all of `bytes`, and with the first of them up to 253 descriptors, of which the
    /// other end gets copies.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSpec`]: no bytes, for descriptors travel with a byte, or too many descriptors;
    /// [`ErrorKind::TimedOut`]; [`ErrorKind::LimitReached`]: a packet too large (`EMSGSIZE`), or more
    /// descriptors in flight than RLIMIT_NOFILE (`ETOOMANYREFS`); [`ErrorKind::Other`]: closed (`EPIPE`).
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        let what = || format!("send {} bytes and {} descriptors", bytes.len(), fds.len());
        if bytes.is_empty() || fds.len() > MAX_FDS {
            return Err(Error::call(what(), Errno::EINVAL)
                .with_kind(ErrorKind::InvalidSpec)
                .with_hint(format!("at least one byte, and at most {MAX_FDS} descriptors")));
        }
        let (mut rest, mut fds) = (bytes, fds);
        while !rest.is_empty() {
            let sent = socket::send_some(self.as_fd(), rest, fds).map_err(|errno| failed(what(), errno))?;
            (rest, fds) = (&rest[sent..], &[]);
        }
        Ok(())
    }

    /// Receives some bytes of a stream, or one packet, and at most `fds` descriptors (0 to 253). Those
    /// beyond are never opened in this process.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`]; [`ErrorKind::LimitReached`]: a packet larger than `bytes` (`EMSGSIZE`), or more
    /// descriptors than `fds` or than this process may open (`EMFILE`). The packet is then lost, and the
    /// socket can be used on.
    pub fn receive(&self, bytes: &mut [u8], fds: usize) -> Result<Received> {
        let what = || "receive from a socket";
        match socket::receive_some(self.as_fd(), bytes, fds).map_err(|errno| failed(what(), errno))? {
            Flow { cut_bytes: true, .. } => Err(failed(what(), Errno(libc::EMSGSIZE)).with_hint("a larger buffer")),
            Flow { cut_fds: true, .. } => Err(failed(what(), Errno::EMFILE)
                .with_hint("to allow for more descriptors, if the other end is meant to send them")),
            Flow { len, fds, .. } => Ok(Received { len, fds }),
        }
    }

    /// Another handle of the same end.
    ///
    /// # Errors
    /// [`ErrorKind::LimitReached`] (`EMFILE`).
    pub fn try_clone(&self) -> Result<Socket> {
        self.0.try_clone().map(Socket).map_err(|e| Error::call("copy a socket", errno(&e)))
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(libc::EINVAL)) // std itself refuses a zero timeout
}

fn failed(what: impl Into<String>, errno: Errno) -> Error {
    let error = Error::call(what, errno);
    match errno.0 {
        libc::EAGAIN => error.with_kind(ErrorKind::TimedOut),
        libc::EMSGSIZE | libc::ETOOMANYREFS => error.with_kind(ErrorKind::LimitReached),
        _ => error,
    }
}

impl From<OwnedFd> for Socket {
    /// Takes a descriptor that is a UNIX socket; on any other, each call fails.
    fn from(fd: OwnedFd) -> Socket {
        Socket(UnixStream::from(fd))
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> OwnedFd {
        socket.0.into()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Read for &Socket {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(bytes)
    }
}

impl Read for Socket {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (&*self).read(bytes)
    }
}

impl Write for &Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        socket::send_some(self.as_fd(), bytes, &[]).map_err(io::Error::from)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
