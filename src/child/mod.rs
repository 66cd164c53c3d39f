//! The handle of a running sandbox.

mod call;
mod cgroup;
mod changes;
mod enter;
mod exit;
mod freeze;
mod kill;
mod lines;
mod namespaces;
mod notify;
mod output;
#[cfg(feature = "tokio")]
mod reactor;
mod verdict;

pub use call::Reply;
pub use exit::{Exit, Usage};
pub use freeze::Frozen;
pub use kill::KillScope;
pub use lines::{Line, LineEnd, Lines, Stream};
#[cfg(feature = "tokio")]
pub use notify::AsyncNotifications;
pub use notify::{Answer, Delivery, Grounds, Inject, Notification, Notifications};
pub use output::Output;
#[cfg(feature = "tokio")]
pub use reactor::AsyncChild;
pub(crate) use verdict::Evidence;
pub use verdict::Verdict;

use crate::cgroup::Group;
use crate::enforce::Enforcement;
use crate::error::{Error, ErrorKind, Result};
use crate::launch::Running;
use crate::plan::{SpawnIds, Template, report};
use crate::process::{Command, Init, Streams};
use crate::program::op::without;
use crate::program::{REPORT_MAX, Report, Request, Used, cause};
use crate::pty::Pty;
use crate::rootfs::Kept;
use crate::sys::kernel::abi::{Rusage, SIGKILL};
use crate::sys::pidfd::PidFd;
use crate::sys::{Errno, socket};
use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A running sandbox.
///
/// **Dropping it kills every process in it**, waits until they are gone, and removes
/// what the sandbox had. [`detach`](Child::detach) opts out. When the host process ends,
/// however it does, the shim ends the sandbox too ([`Init::Shim`]).
///
/// The descriptor ([`AsFd`]) is a pidfd: readable when the sandbox has ended, for any
/// poll, epoll or async reactor.
#[derive(Debug)]
pub struct Child {
    /// The pipe to the payload's standard input, if piped.
    pub stdin: Option<PipeWriter>,
    /// The pipe from the payload's standard output, if piped.
    pub stdout: Option<PipeReader>,
    /// The pipe from the payload's standard error, if piped.
    pub stderr: Option<PipeReader>,
    /// The host's end of the payload's terminal, if it has one ([`Command::pty`](crate::Command::pty)).
    /// To be read from: a payload that has written some KiB waits for that.
    pub pty: Option<Pty>,
    /// The system calls that the payload's filter leaves to the host
    /// ([`SeccompAction::Notify`](crate::SeccompAction)), if it does. To be taken and served by a thread or task
    /// while the payload runs; until then, they wait. [`wait`](Child::wait) drops it if nobody has taken it, and they get `ENOSYS`.
    pub notifications: Option<Notifications>,
    pid: i32,
    pidfd: Arc<PidFd>,
    control: OwnedFd,
    init: Init,
    /// What it was made from, for those who enter.
    template: Arc<Template>,
    /// Whether it is a process that has entered a sandbox: its init is the parent.
    entered: bool,
    /// When the end of such a process was first seen.
    ended: Option<Instant>,
    started: Instant,
    /// What the shim reported of the payload's end: its status, and who asked for it.
    reported: Option<(ExitStatus, u32)>,
    /// What the shim answered last.
    answer: Option<i32>,
    /// What the shim reported of its cost.
    used: Option<Used>,
    /// Who asked for the end, when the shim was not to be asked (`cause::…`).
    cause: AtomicU32,
    /// Whether a seccomp filter of the sandbox kills.
    seccomp_kills: bool,
    /// The most bytes of a stream that are collected.
    output_max: u64,
    /// The protections that its command opts out of.
    opt_outs: Vec<(&'static str, String)>,
    /// What this kernel has been found to lack.
    without: u32,
    ids: SpawnIds,
    exit: Option<Exit>,
    detached: bool,
    notes: Vec<String>,
    kept: Kept,
    /// The scratch, if changes are tracked.
    scratch: Option<OwnedFd>,
    /// Whether its groups are frozen, on request.
    group_frozen: bool,
    /// Removed last, when nothing is in it.
    group: Group,
}

impl Child {
    pub(crate) fn new(
        running: Running,
        streams: Streams,
        mut kept: Kept,
        template: &Arc<Template>,
        command: &Command,
        without: u32,
        ids: SpawnIds,
    ) -> Child {
        let Running { pid, pidfd, control, given, groups, mut notes } = running;
        notes.extend(template.groups.notes.iter().cloned());
        notes.extend(ids.shared.clone());
        if template.init == Init::Shim {
            kept.block = None; // the shim holds it as long as the sandbox lasts
        }
        let pidfd = Arc::new(pidfd);
        let notifications = given.listener.map(|listener| Notifications::new(listener, pidfd.clone()));
        Child {
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            pty: given.pty.map(Pty::new),
            notifications,
            pid,
            pidfd,
            control,
            init: template.init,
            template: template.clone(),
            entered: false,
            ended: None,
            started: Instant::now(),
            reported: None,
            answer: None,
            used: None,
            cause: AtomicU32::new(cause::NONE),
            seccomp_kills: template.confinement.kills(),
            output_max: command.limits().output_max(),
            opt_outs: command.opt_outs(),
            without,
            ids,
            exit: None,
            detached: false,
            notes,
            group_frozen: false,
            group: Group::new(&template.groups, groups),
            kept,
            scratch: given.scratch,
        }
    }

    /// The pid, on the host, of the sandbox's first process: the shim, which forwards
    /// signals to the payload, or the payload itself under [`Init::Payload`].
    pub fn id(&self) -> u32 {
        self.pid as u32
    }

    /// What protects this sandbox: each protection, whether it is required, whether it holds, and why not;
    /// with what its command opts out of, and what the launch has found missing ([`notes`](Child::notes)).
    pub fn enforcement(&self) -> Enforcement {
        let mut report = self.template.enforcement.clone();
        let found = self.notes.iter().filter(|note| !self.template.groups.notes.contains(note));
        report::notes(found, &mut report);
        if self.without & without::USER_LIMITS != 0 {
            for name in ["user-namespace-limit", "inotify-quota"] {
                report.unavailable_after_all(name, "the host lets /proc/sys not be written");
            }
        }
        if let Some(why) = &self.ids.shared {
            report.unavailable_after_all("distinct-ids", why);
        }
        for (name, detail) in &self.opt_outs {
            report.opt_out(name, detail.clone());
        }
        report
    }

    /// What the specification asked for at best and this host could not give, in words.
    /// Never a protection that was asked for: those fail. The limit of 128 processes that is
    /// there by default is told of here, where the host lets no control group be made.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Waits for the payload to exit and the sandbox to end. Closes `stdin` first, as `std` does, and
    /// `notifications`, if nobody has taken them.
    /// Without bound: see [`wait_timeout`](Child::wait_timeout).
    ///
    /// That another part of this process has reaped the child is no error but a [`Verdict::StatusLost`].
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn wait(&mut self) -> Result<Exit> {
        self.stdin = None;
        self.notifications = None;
        loop {
            if let Some(exit) = self.wait_bounded(None)? {
                return Ok(exit);
            }
        }
    }

    /// The exit, if the sandbox has ended.
    ///
    /// # Errors
    /// As [`wait`](Child::wait).
    pub fn try_wait(&mut self) -> Result<Option<Exit>> {
        self.wait_bounded(Some(Duration::ZERO))
    }

    /// Waits at most this long; `None` when the sandbox still runs, which is left as it is.
    ///
    /// # Errors
    /// As [`wait`](Child::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<Exit>> {
        self.wait_bounded(Some(timeout))
    }

    fn wait_bounded(&mut self, timeout: Option<Duration>) -> Result<Option<Exit>> {
        if let Some(exit) = &self.exit {
            return Ok(Some(exit.clone()));
        }
        let fail = |errno| Error::call(format!("wait for the sandbox {}", self.pid), errno);
        if !self.pidfd.wait_exited(timeout).map_err(fail)? {
            return Ok(None);
        }
        // ECHILD: somebody else in this process has reaped it; the shim may have told us
        let own = match self.pidfd.try_wait_usage() {
            Ok(Some(own)) => Some(own),
            Ok(None) => return Ok(None),
            Err(Errno::ECHILD) => None,
            Err(errno) => return Err(fail(errno)),
        };
        self.hear();
        if self.entered && !self.has_report(timeout) {
            return Ok(None);
        }
        let exit = self.judge(own);
        self.exit = Some(exit.clone());
        Ok(Some(exit))
    }

    /// What all that is known of the end amounts to. `own` is the end of the sandbox's first process.
    fn judge(&mut self, own: Option<(ExitStatus, Rusage)>) -> Exit {
        let own_status = own.map(|(status, _)| status);
        let (status, cause) = match (self.reported, self.init) {
            (Some((status, cause)), _) => (Some(status), cause),
            // an end without a report: a signal to the shim, with which the kernel kills the rest
            (None, Init::Shim) => {
                (own_status.filter(|status| status.signal().is_some()), self.cause.load(Ordering::Relaxed))
            }
            (None, Init::Payload) => (own_status, self.cause.load(Ordering::Relaxed)),
        };
        let mut usage = match (&self.used, self.init, own) {
            (Some(used), ..) => Usage::of(used),
            (None, Init::Payload, Some((_, usage))) => Usage { max_rss: None, ..Usage::of(&Used::of(&usage)) },
            (None, ..) => Usage::default(),
        };
        if usage.wall.is_zero() {
            usage.wall = self.started.elapsed();
        }
        self.add_group_usage(&mut usage);
        // a payload that exits before the signal arrives has done so by itself
        let killed = status.is_some_and(|status| status.signal() == Some(SIGKILL));
        let cause = if self.reported.is_some() || killed { cause } else { cause::NONE };
        Exit { verdict: Verdict::of(status, cause, self.evidence(killed)), status, usage }
    }

    /// What the sandbox's own cgroup and its filter say.
    /// The group is asked only of one that was killed.
    fn evidence(&self, killed: bool) -> Evidence {
        let oom_kills = if killed { self.group.oom_kills() } else { None };
        Evidence { oom_kills, seccomp_kills: self.seccomp_kills }
    }

    /// Takes what the shim has reported. False when it has closed its end.
    fn hear(&mut self) -> bool {
        let mut packet = [0u8; REPORT_MAX];
        while let Ok((len, _)) = socket::receive(self.control.as_fd(), &mut packet, false) {
            match Report::decode(&packet[..len]) {
                Some(Report::Exited { status, cause }) => self.reported = Some((ExitStatus::from_raw(status), cause)),
                Some(Report::Used(used)) => self.used = Some(used),
                Some(Report::Answer { errno }) => self.answer = Some(errno),
                _ if len == 0 => return false,
                _ => {}
            }
        }
        true
    }

    /// Gives up the handle: the sandbox runs on, also after the host process. Its exit is
    /// reaped by whoever is then its parent. `notifications` that nobody has taken are dropped. Its control groups stay until
    /// [`sweep`](crate::sweep) finds them empty. Gives the pidfd.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the sandbox has ended; [`ErrorKind::Busy`] when the shim reads nothing any more; `EMFILE`.
    /// The handle is dropped with the error.
    pub fn detach(mut self) -> Result<OwnedFd> {
        // first what may fail: once it is let go, nobody could end it
        let pidfd = self.duplicate_pidfd()?;
        if self.init == Init::Shim {
            self.request(Request::Detach).map_err(|errno| {
                let kind = if errno == Errno::EAGAIN { ErrorKind::Busy } else { ErrorKind::NotFound };
                Error::call(format!("detach the sandbox {}", self.pid), errno).with_kind(kind)
            })?;
        }
        self.detached = true;
        self.group.keep();
        Ok(pidfd)
    }

    fn duplicate_pidfd(&self) -> Result<OwnedFd> {
        let copy = self.pidfd.as_fd().try_clone_to_owned();
        copy.map_err(|e| Error::call("copy the pidfd", Errno::of(e)))
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// A killed process is gone within microseconds, unless the kernel itself is stuck (a
/// dead NFS server): then it is left to the host's init rather than hang the caller.
const DROP_BOUND: Duration = Duration::from_secs(10);

impl Drop for Child {
    fn drop(&mut self) {
        if self.detached {
            return;
        }
        if self.exit.is_none() {
            let killed = self.kill(KillScope::Tree).is_ok();
            if killed && self.ends_within(DROP_BOUND) {
                // ECHILD: a reaper of the host was faster, which is as good
                let _ = self.pidfd.try_wait();
            }
        }
        // as a rule nothing is left in them
        if !self.group.try_remove() {
            self.kill_group(DROP_BOUND);
        }
    }
}
