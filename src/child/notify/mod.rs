//! System calls that the payload's filter leaves to the host: receiving them (seccomp_unotify(2)).

mod answer;
mod call;
#[cfg(feature = "tokio")]
mod reactor;

pub use answer::{Answer, Delivery, Grounds, Inject};
pub use call::Notification;
#[cfg(feature = "tokio")]
pub use reactor::AsyncNotifications;

use crate::error::{Error, Result};
use crate::sys::pidfd::PidFd;
use crate::sys::seccomp::{Arrival, Listener};
use crate::sys::{Errno, socket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

/// The calls of a sandbox's processes for which its filter says [`SeccompAction::Notify`](crate::SeccompAction): each
/// waits until it is answered. From [`Child::notifications`](crate::Child), once.
///
/// As an iterator it waits for each call without bound, for a payload may make none for as long as it likes;
/// [`next_within`](Notifications::next_within) has one. It ends when nobody is under the filter any more. Several
/// threads may receive at once (`&Notifications` is an iterator too), and answer in any order.
///
/// **Dropping it** answers all calls that wait, and all that will come, by `ENOSYS` (the kernel does, seccomp(2)), as soon
/// as the last [`Notification`] received from it is gone too.
///
/// The descriptor ([`AsFd`]) is readable when a call waits, and hung up at the end, for any poll, epoll or async
/// reactor; then `next_within(Duration::ZERO)`.
///
/// ```no_run
/// use belljar::{Answer, Command, Inject, RootFs, Sandbox, Seccomp, SeccompProfile, Security, sys::Errno};
/// use std::fs::File;
///
/// // the payload opens one file that it cannot see, by the hand of the host
/// let profile = SeccompProfile::standard().notify(["openat"]);
/// let security = Security::new().seccomp(Seccomp::Custom(profile));
/// let sandbox = Sandbox::builder(RootFs::host()).security(security).build()?;
/// let mut child = sandbox.spawn(Command::new("cat").arg("/broker/motd"))?;
/// let calls = child.notifications.take().ok_or("nothing is notified")?;
/// let broker = std::thread::spawn(move || {
///     calls.serve(|call| match call.read_c_string(call.arguments()[1], 4096) {
///         // what is opened is what was read here, whatever the payload's memory holds by now
///         Ok(path) if path.as_c_str() == c"/broker/motd" => match File::open("/etc/motd") {
///             Ok(file) => Answer::InjectFd(Inject::new(file)),
///             Err(_) => Answer::Errno(Errno::ENOENT),
///         },
///         // its own root has to bound it: what it opens may differ from what was read
///         Ok(_) => Answer::Allow(belljar::Grounds::RacyMemory),
///         Err(_) => Answer::Errno(Errno::EPERM),
///     })
/// });
/// child.wait()?;
/// broker.join().expect("the handler does not panic")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Notifications {
    shared: Arc<Shared>,
    /// The sandbox, whose end is the end; `None` for a process that has entered one.
    sandbox: Option<Arc<PidFd>>,
}

#[derive(Debug)]
struct Shared {
    listener: Listener,
    /// Held while one thread looks for a call and receives it: the kernel would let a second one wait for another call.
    turn: Mutex<()>,
}

impl Shared {
    fn receive(&self) -> Result<Arrival> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.listener.try_receive().map_err(|errno| fail("receive", errno))
    }
}

fn fail(verb: &str, errno: Errno) -> Error {
    Error::call(format!("{verb} a notified system call"), errno)
}

impl Notifications {
    pub(super) fn new(listener: OwnedFd, sandbox: Arc<PidFd>) -> Notifications {
        let shared = Shared { listener: listener.into(), turn: Mutex::new(()) };
        Notifications { shared: Arc::new(shared), sandbox: Some(sandbox) }
    }

    /// Those of a process that has entered a sandbox: what it has started may outlive it there.
    pub(super) fn of_one_that_entered(self) -> Notifications {
        Notifications { sandbox: None, ..self }
    }

    /// The next call, if one comes within `bound`: `Pending` if not, `Ready(None)` at the end.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn next_within(&self, bound: Duration) -> Result<Poll<Option<Notification>>> {
        self.advance(Some(bound))
    }

    /// Answers every call by what the handler says, until the end. Waits without bound, as the iterator does.
    ///
    /// A handler that panics has answered by `EPERM`.
    ///
    /// # Errors
    /// Those of [`next_within`](Notifications::next_within) and [`Notification::answer`], with the first of which it
    /// returns: that call has got `EPERM`, and later ones wait for whoever receives them.
    pub fn serve(&self, mut handler: impl FnMut(&mut Notification) -> Answer) -> Result<()> {
        for call in self {
            let mut call = call?;
            let answer = handler(&mut call);
            call.answer(answer)?;
        }
        Ok(())
    }

    fn advance(&self, bound: Option<Duration>) -> Result<Poll<Option<Notification>>> {
        let start = Instant::now();
        loop {
            // in this order: what waits at the end of the sandbox's first process may still be answered
            let over = match &self.sandbox {
                Some(sandbox) => self.wait(&[sandbox.as_fd()], Some(Duration::ZERO))?,
                None => false,
            };
            match self.shared.receive()? {
                Arrival::Notice(notice) => {
                    return Ok(Poll::Ready(Some(Notification::new(self.shared.clone(), notice))));
                }
                Arrival::End => return Ok(Poll::Ready(None)),
                Arrival::Nothing if over => return Ok(Poll::Ready(None)),
                Arrival::Nothing => {}
            }
            let left = bound.map(|bound| bound.saturating_sub(start.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Poll::Pending);
            }
            let mut fds = vec![self.as_fd()];
            fds.extend(self.sandbox.iter().map(AsFd::as_fd));
            self.wait(&fds, left)?;
        }
    }

    fn wait(&self, fds: &[BorrowedFd<'_>], bound: Option<Duration>) -> Result<bool> {
        let ready = socket::wait_any(fds, bound).map_err(|errno| fail("wait for", errno))?;
        Ok(ready.contains(&true))
    }
}

impl AsFd for Notifications {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.listener.as_fd()
    }
}

/// Waits for each call without bound.
impl Iterator for Notifications {
    type Item = Result<Notification>;

    fn next(&mut self) -> Option<Self::Item> {
        (&*self).next()
    }
}

/// Waits for each call without bound.
impl Iterator for &Notifications {
    type Item = Result<Notification>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.advance(None) {
                Ok(Poll::Pending) => {}
                Ok(Poll::Ready(call)) => return call.map(Ok),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
