//! Calling a function in a sandbox: the talk with the program that runs it.

use super::{Child, Exit};
use crate::error::{Error, ErrorKind, Result};
use crate::process::READY;
use crate::program::cause;
use crate::sys::Errno;
use nix::errno::Errno as NixErrno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How a call ended; see [`Sandbox::call`](crate::Sandbox::call).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reply {
    /// What the function gave; `None` when it did not return: it panicked, exited, was ended by a limit.
    pub result: Option<Vec<u8>>,
    /// How its process ended, and what it cost.
    pub exit: Exit,
}

/// How long a process that has given its result may take to exit, before it is killed.
const EXIT_BOUND: Duration = Duration::from_secs(5);

/// One side of the talk.
struct Talk<'a> {
    socket: UnixStream,
    /// What is still to be sent.
    header: [u8; 8],
    sent: usize,
    argument: &'a [u8],
    /// What has come.
    heard: Vec<u8>,
    most: u64,
}

impl Talk<'_> {
    fn left(&self) -> &[u8] {
        match self.header.get(self.sent..) {
            Some(header) if !header.is_empty() => header,
            _ => self.argument.get(self.sent - self.header.len()..).unwrap_or_default(),
        }
    }

    /// Sends what the socket takes. One that is closed takes nothing more.
    fn send(&mut self) -> io::Result<()> {
        while !self.left().is_empty() {
            match (&self.socket).write(self.left()) {
                Ok(n) => self.sent += n,
                Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                    self.sent = self.header.len() + self.argument.len();
                }
                Err(e) => return settled(e),
            }
        }
        Ok(())
    }

    /// Takes what has come; true at the end. Never more than the bound and a buffer.
    fn hear(&mut self) -> io::Result<bool> {
        let mut buffer = [0u8; 64 * 1024];
        while self.within() {
            match (&self.socket).read(&mut buffer) {
                Ok(0) => return Ok(true),
                Ok(n) => self.heard.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(true),
                Err(e) => return settled(e).map(|()| false),
            }
        }
        Ok(true)
    }

    fn within(&self) -> bool {
        (self.heard.len() as u64).saturating_sub(9) <= self.most && self.announced().is_none_or(|len| len <= self.most)
    }

    fn ready(&self) -> bool {
        self.heard.first() == Some(&READY)
    }

    fn announced(&self) -> Option<u64> {
        Some(u64::from_le_bytes(self.heard.get(1..9)?.try_into().ok()?))
    }

    /// The result, when it has come whole.
    fn result(&self) -> Option<&[u8]> {
        let len = usize::try_from(self.announced()?).ok()?;
        self.heard.get(9..)?.get(..len).filter(|_| self.ready())
    }
}

/// Nothing more for now is no error.
fn settled(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}

impl Child {
    /// Sends the argument and collects the result of the entry that the child runs.
    pub(crate) fn converse(mut self, socket: UnixStream, argument: &[u8]) -> Result<Reply> {
        let fail = |e: io::Error| Error::call("talk to the called function", Errno::of(e));
        // nobody could answer them beside this talk
        self.notifications = None;
        socket.set_nonblocking(true).map_err(fail)?;
        let header = (argument.len() as u64).to_le_bytes();
        let mut talk = Talk { socket, header, sent: 0, argument, heard: Vec::new(), most: self.output_max };
        loop {
            let writes = if talk.left().is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            let mut fds = [
                PollFd::new(talk.socket.as_fd(), PollFlags::POLLIN | writes),
                PollFd::new(self.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(NixErrno::EINTR) => {}
                Err(errno) => return Err(fail(errno.into())),
            }
            let over = fds[1].any().unwrap_or(false);
            talk.send().map_err(fail)?;
            // what it wrote before its end is in the socket by then
            if talk.hear().map_err(fail)? || over || talk.result().is_some() {
                break;
            }
        }
        if !talk.within() {
            self.kill_for(cause::OUTPUT, super::KillScope::Tree)?;
        }
        let result = talk.result().map(<[u8]>::to_vec);
        let exit = match self.wait_timeout(EXIT_BOUND)? {
            Some(exit) => exit,
            // it has closed its socket or given its result, and goes on nevertheless
            None if result.is_some() => {
                self.kill(super::KillScope::Tree)?;
                self.wait()?
            }
            None => self.wait()?,
        };
        if !talk.ready() && exit.code().is_some() {
            return Err(Error::new(
                ErrorKind::NotSupported,
                format!("call a function: the program did not come to Entry::dispatch ({exit})"),
            )
            .with_hint("its interpreter and libraries in the sandbox (RootFs::host() has them), or a static executable; Entry::dispatch as the first statement of main"));
        }
        Ok(Reply { result, exit })
    }
}
