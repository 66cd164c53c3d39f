//! The same in tokio's reactor (feature `tokio`).

use super::{Notification, Notifications};
use crate::error::{Error, Result};
use crate::sys::{Errno, reactor};
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// [`Notifications`] for tokio, from [`AsyncChild::notifications`](crate::AsyncChild).
///
/// A [`Notification`] can be answered by a task of its own; to answer it does not wait. To look at the payload's memory
/// does not either, as a rule ([`Notification::read`]).
///
/// ```no_run
/// use belljar::{Answer, Command, RootFs, Sandbox, Seccomp, SeccompProfile, Security, sys::Errno};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let profile = SeccompProfile::standard().notify(["connect"]);
/// let security = Security::new().seccomp(Seccomp::Custom(profile));
/// let sandbox = Sandbox::builder(RootFs::host()).security(security).build()?;
/// let mut child = sandbox.spawn_async(&Command::new("worker"))?;
/// let mut calls = child.notifications.take().ok_or("nothing is notified")?;
/// tokio::spawn(async move {
///     while let Ok(Some(call)) = calls.next().await {
///         let _gone = call.answer(Answer::Errno(Errno::EPERM));
///     }
/// });
/// child.wait().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AsyncNotifications {
    /// Deregistered before what they are copies of is dropped.
    ready: AsyncFd<OwnedFd>,
    sandbox: Option<AsyncFd<OwnedFd>>,
    calls: Notifications,
}

impl AsyncNotifications {
    /// Takes them into the reactor of the current runtime.
    ///
    /// # Errors
    /// [`ErrorKind::NotSupported`](crate::ErrorKind::NotSupported) outside of a tokio runtime; `EMFILE`. They are then
    /// dropped.
    ///
    /// # Panics
    /// tokio's own, in a runtime that was built without `enable_io`.
    pub fn new(calls: Notifications) -> Result<AsyncNotifications> {
        super::super::reactor::in_a_runtime()?;
        let watch = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().and_then(reactor::readable).map_err(register);
        Ok(AsyncNotifications {
            ready: watch(calls.as_fd())?,
            sandbox: calls.sandbox.as_ref().map(|fd| watch(fd.as_fd())).transpose()?,
            calls,
        })
    }

    /// The next call; `None` at the end, when nobody is under the filter any more. Without bound.
    ///
    /// Cancel-safe: dropping the future loses no call.
    ///
    /// # Errors
    /// As [`Notifications::next_within`].
    pub async fn next(&mut self) -> Result<Option<Notification>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Notification>>> {
        loop {
            if let Poll::Ready(next) = self.calls.next_within(Duration::ZERO)? {
                return Poll::Ready(Ok(next));
            }
            let mut pending = true;
            for fd in [Some(&self.ready), self.sandbox.as_ref()].into_iter().flatten() {
                match fd.poll_read_ready(context) {
                    Poll::Pending => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(register(error))),
                    // looked at once more before it is waited for
                    Poll::Ready(Ok(mut guard)) => {
                        guard.clear_ready();
                        pending = false;
                    }
                }
            }
            if pending {
                return Poll::Pending;
            }
        }
    }
}

fn register(error: io::Error) -> Error {
    Error::call("watch notified calls with tokio's reactor", Errno::of(error))
}
