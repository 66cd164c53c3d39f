//! Collecting what a payload writes.

use super::{Child, Exit};
use crate::error::{Error, Result};
use crate::sys::{Errno, socket};
use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::time::Duration;

/// What a payload wrote, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// All of its standard output, if that was piped.
    pub stdout: Vec<u8>,
    /// All of its standard error, if that was piped.
    pub stderr: Vec<u8>,
}

/// What was written before the end is in the pipe by then: one look is enough.
const NOW: Option<Duration> = Some(Duration::ZERO);

impl Child {
    /// Waits for the end and collects both piped streams at once. Returns when the
    /// sandbox has ended, whoever still holds its pipes open.
    ///
    /// # Errors
    /// As [`wait`](Child::wait), and those of reading a pipe.
    pub fn wait_with_output(mut self) -> Result<Output> {
        self.stdin = None;
        let mut pipes = [self.stdout.take(), self.stderr.take()];
        let mut texts = [Vec::new(), Vec::new()];
        let mut ended = false;
        while pipes.iter().any(Option::is_some) {
            let mut fds = vec![self.pidfd.as_fd()];
            fds.extend(pipes.iter().flatten().map(AsFd::as_fd));
            let ready = socket::wait_any(&fds, if ended { NOW } else { None })
                .map_err(|errno| Error::call("wait for the payload's output", errno))?;
            let mut ready_pipes = ready[1..].iter();
            let mut any = false;
            for (pipe, text) in pipes.iter_mut().zip(&mut texts) {
                if pipe.is_some() && ready_pipes.next() == Some(&true) {
                    any = true;
                    read_some(pipe, text)?;
                }
            }
            if ended && !any {
                break; // somebody outside holds the pipe; nothing more comes from the sandbox
            }
            ended = ready[0];
        }
        let [stdout, stderr] = texts;
        Ok(Output { exit: self.wait()?, stdout, stderr })
    }
}

/// One read; the pipe is dropped at its end.
fn read_some(pipe: &mut Option<PipeReader>, text: &mut Vec<u8>) -> Result<()> {
    let mut buffer = [0u8; 64 * 1024];
    let Some(reader) = pipe else { return Ok(()) };
    match reader.read(&mut buffer) {
        Ok(0) => *pipe = None,
        Ok(n) => text.extend_from_slice(&buffer[..n]),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
        Err(e) => {
            return Err(Error::call("read the payload's output", Errno(e.raw_os_error().unwrap_or(libc::EIO))));
        }
    }
    Ok(())
}
