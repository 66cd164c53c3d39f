//! What a notified system call may be answered.

use super::{Notification, Shared, fail};
use crate::error::{Error, ErrorKind, Result};
use crate::program::op::without;
use crate::sys::Errno;
use crate::sys::kernel::abi::S_IFDIR;
use crate::sys::kernel::call;
use crate::sys::seccomp::{Place, Response};
use crate::testing;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// The answer to a [`Notification`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Answer {
    /// It is executed after all, by the payload's own process and with its rights; what other filters and Landlock deny
    /// stays denied. The [`Grounds`] say what the decision rests on. Linux 5.5.
    Allow(Grounds),
    /// It fails with this error, 1 to 4095.
    Errno(Errno),
    /// It gives this value, and is not executed. -4095 to -1 are errors to a C library: [`Answer::Errno`] says it.
    Value(i64),
    /// It gives the number of a descriptor that is put into the payload's process, and is not executed. Linux 5.9.
    InjectFd(Inject),
}

/// What it rests on that a call is let through.
///
/// The kernel has copied the registers of the call, but what its pointers point to is read anew when it is executed:
/// until then any thread of the payload, or another process that shares the memory, can replace it. A path that was looked
/// at here and found harmless is another path then (seccomp_unotify(2), "Design goals").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grounds {
    /// The number of the call and its integer arguments, or nothing at all. Refused for a call of whose memory
    /// something was read ([`Notification::read`]). What a descriptor's number stands for can be
    /// replaced (dup2(2)) as memory can.
    Registers,
    /// Also what is not sure to stay: the payload's memory, what its descriptors stand for. **No protection**: who
    /// wants past it gets past it. For calls that may fail or succeed as they like, because other walls (the root,
    /// Landlock, the other rules) hold them.
    RacyMemory,
}

/// A descriptor to be put into the payload's process: a copy, which shares offset and status flags with this one.
#[derive(Debug)]
pub struct Inject {
    fd: OwnedFd,
    place: Place,
    may_be_directory: bool,
}

/// What has become of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// The call has got it.
    Delivered,
    /// The call does not wait any more: its thread was killed, or a signal interrupted it (before Linux 5.19 any,
    /// after which it may make the call again, and that is notified anew; since then one that ends it).
    Gone,
}

impl Inject {
    /// This descriptor, under the lowest number that is free. It stays open when the payload's process executes another
    /// program.
    pub fn new(fd: impl Into<OwnedFd>) -> Inject {
        Inject { fd: fd.into(), place: Place::default(), may_be_directory: false }
    }

    /// As [`new`](Inject::new), for a directory of the host: its `..` leads out of the sandbox, to all that the
    /// payload's user may reach there.
    pub fn directory(fd: impl Into<OwnedFd>) -> Inject {
        Inject { may_be_directory: true, ..Inject::new(fd) }
    }

    /// Under this number, in place of what the payload has open there.
    pub fn number(mut self, number: u32) -> Inject {
        self.place.number = Some(number);
        self
    }

    /// Closed when the payload's process executes another program, as O_CLOEXEC does.
    pub fn close_on_exec(mut self) -> Inject {
        self.place.close_on_exec = true;
        self
    }
}

impl Notification {
    /// Answers the call, and lets go of it.
    ///
    /// That the call is gone is no error but [`Delivery::Gone`]. A payload that has no room for a descriptor gets
    /// `EMFILE` (or `EBADF`, for a number beyond its limit), as from the kernel.
    ///
    /// # Errors
    /// The call then has got `EPERM`. [`ErrorKind::InvalidSpec`]: an error number outside of 1 to 4095,
    /// [`Grounds::Registers`] after its memory was read, a directory that was not given as
    /// [`Inject::directory`]; [`ErrorKind::NotSupported`]: a kernel without this answer.
    pub fn answer(mut self, answer: Answer) -> Result<Delivery> {
        self.check(&answer)?;
        let (shared, id) = (self.shared.clone(), self.notice.id);
        let respond = |response| ended(retried(|| shared.listener.respond(id, response)));
        let delivered = match answer {
            Answer::Allow(_) => respond(Response::Continue),
            Answer::Errno(errno) => respond(Response::Errno(errno)),
            Answer::Value(value) => respond(Response::Value(value)),
            Answer::InjectFd(inject) => match ended(put(&shared, id, &inject)) {
                Err(errno @ (Errno::EMFILE | Errno::EBADF)) => respond(Response::Errno(errno)),
                answer => answer,
            },
        };
        // if it failed, the drop answers
        self.answered = delivered.is_ok();
        delivered
            .map_err(|errno| fail("answer", errno).with_hint("Linux 5.5 for Answer::Allow, 5.9 for Answer::InjectFd"))
    }

    fn check(&self, answer: &Answer) -> Result<()> {
        let (what, hint) = match answer {
            Answer::Allow(Grounds::Registers) if self.looked => (
                "a call is allowed on the ground of its registers after its memory was read",
                "Grounds::RacyMemory, if other walls hold the call; or to do for the payload what was read (Value, InjectFd)",
            ),
            Answer::Errno(errno) if !(1..=4095).contains(&errno.0) => {
                ("a call is answered by an error number that is none", "1 to 4095 (errno(3))")
            }
            Answer::InjectFd(inject) if !inject.may_be_directory && is_directory(&inject.fd) => (
                "a directory of the host is put into the payload, from which `..` leads out of the sandbox",
                "Inject::directory, to do it all the same",
            ),
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::InvalidSpec, what).with_hint(hint))
    }
}

fn is_directory(fd: &OwnedFd) -> bool {
    call::fstat(fd.as_raw_fd()).is_ok_and(|stat| stat.kind() == S_IFDIR)
}

/// In one step, or, before Linux 5.14, in two: a thread that ends between them has got a descriptor, and nothing else.
fn put(shared: &Shared, id: u64, inject: &Inject) -> Result<(), Errno> {
    let (fd, listener) = (inject.fd.as_fd(), &shared.listener);
    if testing::disabled() & without::ADDFD_SEND == 0 {
        match retried(|| listener.add_fd_and_respond(id, fd, inject.place)) {
            Err(Errno::EINVAL) => {}
            answer => return answer.map(drop),
        }
    }
    let number = retried(|| listener.add_fd(id, fd, inject.place))?;
    retried(|| listener.respond(id, Response::Value(number.into())))
}

fn retried<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            answer => return answer,
        }
    }
}

/// That the call is gone is no failure.
fn ended(answer: Result<(), Errno>) -> Result<Delivery, Errno> {
    match answer {
        Ok(()) => Ok(Delivery::Delivered),
        Err(Errno::ENOENT | Errno::ESRCH) => Ok(Delivery::Gone),
        Err(errno) => Err(errno),
    }
}
