//! The handle for tokio (feature `tokio`): the pidfd and the pipes in its reactor.
//!
//! No thread waits for a child, and no signal is handled: the kernel makes the pidfd
//! readable when the sandbox has ended (pidfd_open(2)), and epoll(7) tells.

use super::output::{Collected, fail, output, read_rest};
use super::{AsyncNotifications, Child, Exit, KillScope, Output};
use crate::error::{Error, ErrorKind, Result};
use crate::program::cause;
use crate::sys::{Errno, reactor};
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe;

/// A running sandbox, for tokio.
///
/// **Dropping it kills every process in it**, as with [`Child`]. The drop waits until they
/// are gone, which takes about a millisecond of the thread's time; after an awaited
/// [`wait`](AsyncChild::wait) or [`kill`](AsyncChild::kill) there is nothing left to wait for.
///
/// ```no_run
/// use belljar::{Command, RootFs, Sandbox};
/// use std::time::Duration;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let sandbox = Sandbox::builder(RootFs::host()).build()?;
/// let mut child = sandbox.spawn_async(&Command::new("sleep").arg("60").wall_time(Duration::from_secs(5)))?;
/// let exit = child.wait().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AsyncChild {
    /// The pipe to the payload's standard input, if piped.
    pub stdin: Option<pipe::Sender>,
    /// The pipe from the payload's standard output, if piped.
    pub stdout: Option<pipe::Receiver>,
    /// The pipe from the payload's standard error, if piped.
    pub stderr: Option<pipe::Receiver>,
    /// The system calls that the payload's filter leaves to the host, if it does; as [`Child::notifications`].
    pub notifications: Option<AsyncNotifications>,
    /// Deregistered before the child, and with it the pidfd, is dropped.
    end: AsyncFd<OwnedFd>,
    /// Of a process that has entered: the socket to the init of its sandbox, whose report follows the end.
    report: Option<AsyncFd<OwnedFd>>,
    child: Child,
}

impl AsyncChild {
    /// Takes a running sandbox into the reactor of the current runtime.
    ///
    /// # Errors
    /// [`ErrorKind::NotSupported`] outside of a tokio runtime; `EMFILE`. The sandbox is then ended.
    ///
    /// # Panics
    /// tokio's own, in a runtime that was built without `enable_io`.
    pub fn new(mut child: Child) -> Result<AsyncChild> {
        in_a_runtime()?;
        let end = reactor::readable(child.duplicate_pidfd()?);
        let report = child.report_fd()?.map(reactor::readable).transpose();
        let receiver = |pipe: Option<io::PipeReader>| pipe.map(|p| pipe::Receiver::from_owned_fd(p.into())).transpose();
        let sender = |pipe: Option<io::PipeWriter>| pipe.map(|p| pipe::Sender::from_owned_fd(p.into())).transpose();
        Ok(AsyncChild {
            stdin: sender(child.stdin.take()).map_err(register)?,
            stdout: receiver(child.stdout.take()).map_err(register)?,
            stderr: receiver(child.stderr.take()).map_err(register)?,
            notifications: child.notifications.take().map(AsyncNotifications::new).transpose()?,
            end: end.map_err(register)?,
            report: report.map_err(register)?,
            child,
        })
    }

    /// The handle itself. Its own waits block the thread.
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// The handle itself, for [`terminate`](Child::terminate), [`freeze`](Child::freeze) and others.
    /// Its own waits block the thread.
    pub fn child_mut(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for the payload to exit and the sandbox to end. Closes `stdin` first, and `notifications`, if nobody
    /// has taken them. Without bound, unless the command has a [`wall_time`](crate::Command::wall_time).
    ///
    /// Cancel-safe: dropping the future loses nothing, and it can be called again, also after the end.
    ///
    /// # Errors
    /// As [`Child::wait`].
    pub async fn wait(&mut self) -> Result<Exit> {
        self.stdin = None;
        self.notifications = None;
        poll_fn(|context| self.poll_end(context)).await
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Result<Exit>> {
        loop {
            if let Some(exit) = self.child.try_wait()? {
                return Poll::Ready(Ok(exit));
            }
            let next = self.report.as_ref().filter(|_| self.child.awaits_report()).unwrap_or(&self.end);
            match next.poll_read_ready(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(register(error))),
                Poll::Ready(Ok(mut guard)) => match self.child.try_wait()? {
                    Some(exit) => return Poll::Ready(Ok(exit)),
                    None => guard.clear_ready(),
                },
            }
        }
    }

    /// Sends the kill, as [`Child::kill`] does, without waiting.
    ///
    /// # Errors
    /// As [`Child::kill`].
    pub fn start_kill(&mut self, scope: KillScope) -> Result<()> {
        self.child.start_kill(cause::HANDLE, scope)
    }

    /// Kills and waits. Cancel-safe: what was sent has been sent.
    ///
    /// # Errors
    /// As [`Child::kill`] and [`Child::wait`].
    pub async fn kill(&mut self, scope: KillScope) -> Result<Exit> {
        self.start_kill(scope)?;
        self.wait().await
    }

    /// Waits for the end and collects both piped streams, as [`Child::wait_with_output`]
    /// does. Dropping the future kills the sandbox.
    ///
    /// # Errors
    /// As [`Child::wait_with_output`].
    pub async fn wait_with_output(mut self) -> Result<Output> {
        self.stdin = None;
        self.notifications = None;
        let max = self.child.output_max;
        let mut pipes = [self.stdout.take(), self.stderr.take()];
        let mut texts = [Collected::new(max), Collected::new(max)];
        let mut killed = false;
        let exit = poll_fn(|context| {
            for (pipe, text) in pipes.iter_mut().zip(&mut texts) {
                if let Poll::Ready(Err(error)) = poll_read(pipe, text, context) {
                    return Poll::Ready(Err(error));
                }
            }
            if !killed && texts.iter().any(|text| text.exceeded) {
                killed = true;
                self.child.start_kill(cause::OUTPUT, KillScope::Tree)?;
            }
            self.poll_end(context)
        })
        .await?;
        for (pipe, text) in pipes.into_iter().zip(&mut texts) {
            if let Some(pipe) = pipe {
                // what is in it by now is there at once
                let pipe = io::PipeReader::from(pipe.into_nonblocking_fd().map_err(register)?);
                read_rest(&pipe, |some| text.push(some))?;
            }
        }
        Ok(output(exit, texts))
    }
}

/// Reads what is there; the pipe is dropped at its end. tokio's budget for a task bounds how
/// much one poll reads.
fn poll_read(pipe: &mut Option<pipe::Receiver>, text: &mut Collected, context: &mut Context<'_>) -> Poll<Result<()>> {
    let mut buffer = [0u8; 16 * 1024];
    while let Some(receiver) = pipe {
        let mut read = ReadBuf::new(&mut buffer);
        match Pin::new(receiver).poll_read(context, &mut read) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) if read.filled().is_empty() => *pipe = None,
            Poll::Ready(Ok(())) => text.push(read.filled()),
            Poll::Ready(Err(error)) => {
                return Poll::Ready(Err(fail("read", Errno::of(error))));
            }
        }
    }
    Poll::Ready(Ok(()))
}

/// An error outside of a runtime, where tokio itself would panic.
pub(super) fn in_a_runtime() -> Result<()> {
    if tokio::runtime::Handle::try_current().is_ok() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::NotSupported, "watch a sandbox asynchronously: no tokio runtime here")
        .with_hint("to call it from within Runtime::block_on or a task, or to enter the runtime"))
}

fn register(error: io::Error) -> Error {
    Error::call("watch a sandbox with tokio's reactor", Errno::of(error))
}
