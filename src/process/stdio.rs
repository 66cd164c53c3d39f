//! The payload's standard streams.

use super::{Command, Defaults, Ids, fds};
use crate::error::{Defect, Error, Result};
use crate::handle::Fd;
use crate::program::{Builder, Op, Slot};
use crate::pty::PtySize;
use crate::sys::Errno;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What a standard stream of the payload is.
#[derive(Debug)]
pub enum Stdio {
    /// `/dev/null` of the host, opened by the library.
    Null,
    /// A pipe to the [`Child`](crate::Child).
    Piped,
    /// The caller's own. A terminal is shared with the payload: it may push input into it
    /// (TIOCSTI) unless the host's kernel forbids that.
    Inherit,
    /// This descriptor.
    Fd(OwnedFd),
    /// A pty of the sandbox's own devpts, the same for all streams that are `Pty`; see
    /// [`Command::pty`], which also sets its size.
    Pty,
}

impl Stdio {
    /// [`Stdio::Null`], as `std` spells it.
    pub fn null() -> Stdio {
        Stdio::Null
    }

    /// [`Stdio::Piped`], as `std` spells it.
    pub fn piped() -> Stdio {
        Stdio::Piped
    }

    /// [`Stdio::Inherit`], as `std` spells it.
    pub fn inherit() -> Stdio {
        Stdio::Inherit
    }
}

impl From<OwnedFd> for Stdio {
    fn from(fd: OwnedFd) -> Stdio {
        Stdio::Fd(fd)
    }
}

impl From<File> for Stdio {
    fn from(file: File) -> Stdio {
        Stdio::Fd(file.into())
    }
}

impl From<PipeReader> for Stdio {
    fn from(pipe: PipeReader) -> Stdio {
        Stdio::Fd(pipe.into())
    }
}

impl From<PipeWriter> for Stdio {
    fn from(pipe: PipeWriter) -> Stdio {
        Stdio::Fd(pipe.into())
    }
}

/// The library's ends of the pipes.
#[derive(Default)]
pub(crate) struct Streams {
    pub stdin: Option<PipeWriter>,
    pub stdout: Option<PipeReader>,
    pub stderr: Option<PipeReader>,
}

impl Streams {
    /// Makes another user the owner of the pipes: of both ends, which are one file.
    pub(crate) fn give(&self, (uid, gid): (u32, u32)) {
        let ends = [
            self.stdin.as_ref().map(|end| end.as_fd()),
            self.stdout.as_ref().map(|end| end.as_fd()),
            self.stderr.as_ref().map(|end| end.as_fd()),
        ];
        for end in ends.into_iter().flatten() {
            // without CAP_CHOWN they stay the host's, and work by their numbers
            let _ = std::os::unix::fs::fchown(end, Some(uid), Some(gid));
        }
    }
}

/// The payload's ends.
pub(super) struct Ends {
    pub slots: [Slot; 3],
    /// The stream that becomes the controlling terminal.
    pub terminal: Option<u32>,
}

impl Command {
    /// A directory as a stream would be as good a way out as any other descriptor of one.
    pub(super) fn check_streams(&self, defects: &mut Vec<Defect>) {
        let streams = [&self.stdin, &self.stdout, &self.stderr];
        for (number, stdio) in (0..).zip(streams) {
            match stdio {
                Some(Stdio::Fd(fd)) => fds::refuse_directory(number, fd.as_fd(), defects),
                Some(Stdio::Inherit) if number == 0 => fds::refuse_directory(0, io::stdin().as_fd(), defects),
                _ => {} // a directory cannot be open for writing
            }
        }
    }

    /// Opens the streams: the payload's ends go to slots, ours are returned.
    pub(super) fn streams(&self, ids: &Ids<'_>, defaults: Defaults, builder: &mut Builder) -> Result<(Ends, Streams)> {
        let mut ours = Streams::default();
        let mut shared = Shared {
            ids: (self.payload_uid(ids), self.payload_gid(ids)),
            size: self.pty.unwrap_or_default(),
            ..Shared::NONE
        };
        let (input, output) = match (self.pty, defaults) {
            (Some(_), _) => (&Stdio::Pty, &Stdio::Pty),
            (None, Defaults::Null) => (&Stdio::Null, &Stdio::Null),
            (None, Defaults::Output) => (&Stdio::Null, &Stdio::Piped),
        };
        let pipe = || io::pipe().map_err(|e| open_error("make a pipe for the payload", &e));

        let stdin = match self.stdin.as_ref().unwrap_or(input) {
            Stdio::Piped => {
                let (read, write) = pipe()?;
                ours.stdin = Some(write);
                builder.send(Fd::Owned(read.into()))
            }
            other => plain(other, io::stdin().as_fd(), &mut shared, builder)?,
        };
        let stdout = match self.stdout.as_ref().unwrap_or(output) {
            Stdio::Piped => {
                let (read, write) = pipe()?;
                ours.stdout = Some(read);
                builder.send(Fd::Owned(write.into()))
            }
            other => plain(other, io::stdout().as_fd(), &mut shared, builder)?,
        };
        let stderr = match self.stderr.as_ref().unwrap_or(output) {
            Stdio::Piped => {
                let (read, write) = pipe()?;
                ours.stderr = Some(read);
                builder.send(Fd::Owned(write.into()))
            }
            other => plain(other, io::stderr().as_fd(), &mut shared, builder)?,
        };
        let slots = [stdin, stdout, stderr];
        let terminal = shared.pty.and_then(|pty| (0..).zip(slots).find(|(_, slot)| *slot == pty));
        Ok((Ends { slots, terminal: terminal.map(|(stream, _)| stream) }, ours))
    }
}

/// What is opened once, however many streams are it.
struct Shared {
    null: Option<Slot>,
    pty: Option<Slot>,
    size: PtySize,
    ids: (u32, u32),
}

impl Shared {
    const NONE: Shared = Shared { null: None, pty: None, size: PtySize { columns: 0, rows: 0 }, ids: (0, 0) };
}

/// A stream that is no pipe of ours.
fn plain(stdio: &Stdio, own: BorrowedFd<'_>, shared: &mut Shared, builder: &mut Builder) -> Result<Slot> {
    let copy =
        |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(|e| open_error("copy a descriptor for the payload", &e));
    Ok(match stdio {
        Stdio::Fd(fd) => builder.send(Fd::Owned(copy(fd.as_fd())?)),
        Stdio::Inherit => builder.send(Fd::Owned(copy(own)?)),
        Stdio::Null | Stdio::Piped => match shared.null {
            Some(slot) => slot,
            None => {
                let file = File::options().read(true).write(true).open("/dev/null");
                let file = file.map_err(|e| open_error("open /dev/null for the payload", &e))?;
                *shared.null.insert(builder.send(Fd::Owned(file.into())))
            }
        },
        Stdio::Pty => match shared.pty {
            Some(slot) => slot,
            None => {
                let (to, PtySize { columns, rows }) = (builder.local(), shared.size);
                builder.op(Op::Pty { rows, columns, uid: shared.ids.0, gid: shared.ids.1, to });
                *shared.pty.insert(to)
            }
        },
    })
}

fn open_error(what: &str, error: &io::Error) -> Error {
    Error::call(what, Errno::of(error))
}
