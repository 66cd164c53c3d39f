//! Collecting what a payload writes, up to a bound.

use super::{Child, Exit, KillScope, Verdict};
use crate::error::{Error, Result};
use crate::program::cause;
use crate::sys::{Errno, socket};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;

/// What a payload wrote, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// Its standard output, if that was piped: all of it, or the first
    /// [`output_max`](crate::Command::output_max) bytes when the verdict is [`Verdict::OutputLimit`].
    pub stdout: Vec<u8>,
    /// Its standard error, in the same way.
    pub stderr: Vec<u8>,
}

/// The bytes of one stream, up to a bound.
#[derive(Debug)]
pub(super) struct Collected {
    pub bytes: Vec<u8>,
    max: u64,
    /// Whether there was more.
    pub exceeded: bool,
}

impl Collected {
    pub fn new(max: u64) -> Collected {
        Collected { bytes: Vec::new(), max, exceeded: false }
    }

    /// Takes what fits and drops the rest.
    pub fn push(&mut self, some: &[u8]) {
        let room = usize::try_from(self.max - self.bytes.len() as u64).unwrap_or(usize::MAX);
        self.exceeded |= some.len() > room;
        self.bytes.extend_from_slice(&some[..some.len().min(room)]);
    }
}

/// The end and the bytes together: what was cut off is told, also where the payload
/// had exited before it could be killed for it.
pub(super) fn output(mut exit: Exit, [stdout, stderr]: [Collected; 2]) -> Output {
    if (stdout.exceeded || stderr.exceeded) && matches!(exit.verdict, Verdict::Exited(_) | Verdict::Signaled(_)) {
        exit.verdict = Verdict::OutputLimit;
    }
    Output { exit, stdout: stdout.bytes, stderr: stderr.bytes }
}

impl Child {
    /// Waits for the end and collects both piped streams at once, each up to
    /// [`output_max`](crate::Command::output_max) bytes; beyond, the sandbox is killed. Closes `stdin` first,
    /// and `notifications`, if nobody has taken them.
    ///
    /// Returns when the sandbox has ended, whoever still holds its pipes open: what is in
    /// them by then is taken, and no more. A sandbox that does not end is waited for without bound, unless
    /// it has a [`wall_time`](crate::Command::wall_time).
    ///
    /// # Errors
    /// As [`wait`](Child::wait), and those of reading a pipe.
    pub fn wait_with_output(mut self) -> Result<Output> {
        self.stdin = None;
        self.notifications = None;
        let mut pipes = [self.stdout.take(), self.stderr.take()];
        pipes.iter().flatten().try_for_each(unblock)?;
        let mut texts = [Collected::new(self.output_max), Collected::new(self.output_max)];
        let mut killed = false;
        while pipes.iter().any(Option::is_some) {
            let mut fds = vec![self.pidfd.as_fd()];
            fds.extend(pipes.iter().flatten().map(AsFd::as_fd));
            let ready = socket::wait_any(&fds, None).map_err(|errno| fail("wait for", errno))?;
            let ended = ready[0];
            let mut ready = ready[1..].iter();
            for (pipe, text) in pipes.iter_mut().zip(&mut texts) {
                let Some(reader) = pipe else { continue };
                let ready = ready.next() == Some(&true);
                if ended {
                    read_rest(reader, |some| text.push(some))?;
                    *pipe = None;
                } else if ready && read_some(reader, |some| text.push(some))? == Some(0) {
                    *pipe = None;
                }
            }
            if !killed && !ended && texts.iter().any(|text| text.exceeded) {
                killed = true;
                self.kill_for(cause::OUTPUT, KillScope::Tree)?;
            }
        }
        Ok(output(self.wait()?, texts))
    }
}

/// Has reads of a pipe wait for nothing. That it was readable is no promise: the payload may open its end for reading
/// (`/proc/self/fd/1`, if the pipe is its uid's) and take back what it has written.
pub(super) fn unblock(pipe: &PipeReader) -> Result<()> {
    fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|errno| fail("read", Errno(errno as i32)))?;
    Ok(())
}

/// One read of a pipe that does not block; 0 at its end, `None` when there is nothing.
pub(super) fn read_some(mut pipe: &PipeReader, take: impl FnOnce(&[u8])) -> Result<Option<usize>> {
    let mut buffer = [0u8; 16 * 1024];
    loop {
        match pipe.read(&mut buffer) {
            Ok(n) => {
                take(&buffer[..n]);
                return Ok(Some(n));
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(fail("read", Errno::of(e))),
        }
    }
}

/// What is in the pipe of a sandbox that has ended. What somebody outside writes
/// into it from now on is not the payload's.
pub(super) fn read_rest(pipe: &PipeReader, mut take: impl FnMut(&[u8])) -> Result<()> {
    let mut left = socket::readable_bytes(pipe.as_fd()).map_err(|errno| fail("read", errno))?;
    while left > 0 {
        match read_some(pipe, |some| take(&some[..some.len().min(left)]))? {
            None | Some(0) => return Ok(()),
            Some(n) => left = left.saturating_sub(n),
        }
    }
    Ok(())
}

pub(super) fn fail(verb: &str, errno: Errno) -> Error {
    Error::call(format!("{verb} the payload's output"), errno)
}

#[cfg(test)]
mod tests {
    use super::{Collected, read_some, unblock};
    use std::io::Write;

    #[test]
    fn a_bound_is_exact() {
        let mut text = Collected::new(4);
        text.push(b"ab");
        text.push(b"cd");
        assert_eq!((text.bytes.as_slice(), text.exceeded), (&b"abcd"[..], false));
        text.push(b"");
        assert!(!text.exceeded);
        text.push(b"e");
        assert_eq!((text.bytes.as_slice(), text.exceeded), (&b"abcd"[..], true));
    }

    #[test]
    fn output_that_is_taken_back_is_not_waited_for() {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        unblock(&reader).expect("it is ours");
        let mut text = Collected::new(4);
        writer.write_all(b"ab").expect("there is room");
        assert_eq!(read_some(&reader, |some| text.push(some)).expect("a read"), Some(2));
        assert_eq!(read_some(&reader, |some| text.push(some)).expect("a read"), None, "and no wait for more");
        drop(writer);
        assert_eq!(read_some(&reader, |some| text.push(some)).expect("a read"), Some(0));
    }
}
