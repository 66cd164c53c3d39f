//! Launching a Program: the parent's side.
//!
//! ```text
//! parent                                    shim (in its new namespaces)
//!   make the control groups
//!   send the Program and descriptors ──┐
//!   clone3 + execveat ─────────────────┴───▶  receive; op, op: what needs no ids
//!   write uid_map, setgroups, gid_map         │
//!   clone and id-map trees of the host        │
//!   go, with the trees ─────────────────────▶ Await; op, op, op, …
//!   wait ◀─────────────────── Failed(k, errno) or Started(pid)
//! ```
//! Whatever fails, what was made is undone: the process is killed and reaped, and
//! with it go its namespaces and mounts.

mod groups;
mod handshake;
mod id_map;
mod image;
mod low;
mod owner;
mod trees;

use crate::error::{Error, Result};
use crate::plan::remedy::failure;
use crate::program::{Op, Program, Request, Slot, given};
use crate::sys::clone::{CloneExec, Cloned};
use crate::sys::kernel::abi::SIGKILL;
use crate::sys::namespace::NamespaceFlags;
use crate::sys::pidfd::PidFd;
use crate::sys::{Errno, socket};
use groups::Groups;
use low::Low;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// A running sandbox, as the parent holds it.
#[derive(Debug)]
pub(crate) struct Running {
    pub pid: i32,
    pub pidfd: PidFd,
    /// The socket to the shim.
    pub control: OwnedFd,
    /// What the shim has made for the library.
    pub given: Given,
    /// Its control groups.
    pub groups: Vec<crate::cgroup::Directory>,
    /// What was asked for at best and could not be had.
    pub notes: Vec<String>,
}

/// What comes from inside the sandbox by descriptor.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// The master of the payload's pty.
    pub pty: Option<OwnedFd>,
    /// The scratch, with the upper and the init layer.
    pub scratch: Option<OwnedFd>,
    /// The listener of the payload's filter.
    pub listener: Option<OwnedFd>,
}

impl Given {
    fn take(&mut self, what: u32, fd: OwnedFd) {
        match what {
            given::PTY => self.pty = Some(fd),
            given::SCRATCH => self.scratch = Some(fd),
            given::LISTENER => self.listener = Some(fd),
            _ => {} // nothing that was asked for: closed
        }
    }
}

/// Makes, once for the process, what every launch uses, while descriptor numbers are low.
/// What cannot be made now is reported by the launch.
pub(crate) fn prepare() {
    if let Ok(image) = image::shim(0) {
        low::reserve(image);
    }
}

/// Why an op failed: the errno, and what else was said.
struct Failure(Errno, String);

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Failure {
        Failure(errno, String::new())
    }
}

/// Runs a Program up to the payload's first instruction. Waits for the set-up without
/// a bound of its own: each op is one or a few system calls, and ends when they do.
pub(crate) fn launch(program: &Program, without: u32) -> Result<Running> {
    let image = image::shim(without)?;
    low::reserve(image);
    let (control, theirs) = socket::seqpacket_pair().map_err(|errno| Error::call("make the control socket", errno))?;
    let mut theirs = Some(theirs);
    let mut launch = Launch {
        program,
        image,
        child: None,
        joins: Vec::new(),
        trees: Vec::new(),
        notes: Vec::new(),
        groups: Groups::default(),
    };
    // A Program that does not fit the socket waits until somebody reads it.
    let early = handshake::fits(program);
    if early {
        handshake::send_program(control.as_fd(), program)?;
    }
    for (index, op) in (0..).zip(program.ops()) {
        let done = match op {
            Op::GroupEnable { .. }
            | Op::Group { .. }
            | Op::GroupSet { .. }
            | Op::GroupDevices { .. }
            | Op::GroupJoin { .. }
            | Op::JoinFirst { .. }
            | Op::Clone { .. }
            | Op::MapIds { .. }
            | Op::Tree { .. }
                if program.fails_at(index) =>
            {
                Err(Errno::EIO.into())
            }
            Op::GroupEnable { group, controllers, leaf } => launch.groups.enable(group, controllers, leaf),
            Op::Group { path, required } => launch.groups.make(path, required != 0),
            Op::GroupSet { file, value, presence } => launch.groups.set(file, value, presence),
            Op::GroupDevices { path, program } => launch.groups.restrict_devices(path, program),
            Op::GroupJoin { path, v2 } => launch.groups.join(path, v2 != 0),
            Op::JoinFirst { kind, fd, .. } => launch.join_first(kind, fd),
            Op::Clone { flags, capabilities } => launch.clone(flags, capabilities, theirs.take()),
            Op::MapIds { uid, gid, deny_setgroups, helper } => {
                id_map::write(launch.pid()?, uid, gid, deny_setgroups != 0, helper != 0)
            }
            Op::Tree { path, dev, ino, kind, recursive, idmap, maps, to } => {
                let pid = launch.pid()?;
                let mut maps = maps.iter().map(CStr::to_bytes);
                let through = || match (maps.next(), maps.next()) {
                    (Some(uid), Some(gid)) => owner::namespace(image, uid, gid),
                    _ => owner::of(pid),
                };
                let idmap = trees::IdMapping::of(idmap);
                trees::clone(path, (dev, ino, kind), recursive != 0, idmap, through).map(|tree| {
                    launch.notes.extend(tree.note);
                    launch.trees.push((to, tree.fd));
                })
            }
            _ => break, // from here on by the shim
        };
        if let Err(Failure(errno, said)) = done {
            // a shim that has failed meanwhile is why its maps cannot be written any more
            return Err(handshake::heard_failure(control.as_fd(), program)
                .unwrap_or_else(|| failure(program, index, errno, &said)));
        }
    }
    // the groups first, to be removed last, when the child has been killed and reaped
    let Launch { groups, trees, mut notes, child, .. } = launch;
    notes.extend(groups.notes);
    let groups = groups.made;
    let child = child.ok_or_else(|| Error::call("run a Program that starts nothing", Errno::EINVAL))?;
    if !early {
        handshake::send_program(control.as_fd(), program)?;
    }
    handshake::go(control.as_fd(), program, trees)?;
    let (pid, pidfd, given) = handshake::wait_started(control.as_fd(), program, child)?;
    Ok(Running { pid, pidfd, control, given, groups, notes })
}

/// Runs a Program in one more process of a running sandbox, whose control socket this is, up to
/// its first instruction.
pub(crate) fn enter(sandbox: BorrowedFd<'_>, program: &Program) -> Result<Running> {
    if program.fails_at(0) {
        return Err(failure(program, 0, Errno::EIO, ""));
    }
    let (control, theirs) = socket::seqpacket_pair().map_err(|errno| Error::call("make the control socket", errno))?;
    let end = Instant::now() + ENTRY_BOUND;
    // What fits is there when it is asked for, so that the sandbox's init need not wait for us.
    let early = handshake::fits(program);
    if early {
        handshake::send_program_until(control.as_fd(), program, end)?;
    }
    socket::send_until(sandbox, &Request::Enter.encode(), &[theirs.as_fd()], end).map_err(|errno| match errno {
        Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN => failure(program, 0, Errno::ESRCH, ""),
        errno => failure(program, 0, errno, ""),
    })?;
    drop(theirs);
    if !early {
        handshake::send_program_until(control.as_fd(), program, end)?;
    }
    let (Cloned { pid, pidfd }, given) = handshake::wait_entered(control.as_fd(), program, end)?;
    Ok(Running { pid, pidfd, control, given, groups: Vec::new(), notes: Vec::new() })
}

/// How long the init of a running sandbox may take to start one more process: it makes
/// some twenty system calls, unless the sandbox is frozen.
const ENTRY_BOUND: Duration = Duration::from_secs(10);

struct Launch<'a> {
    program: &'a Program,
    image: BorrowedFd<'static>,
    child: Option<Unfinished>,
    joins: Vec<(BorrowedFd<'a>, NamespaceFlags)>,
    trees: Vec<(Slot, OwnedFd)>,
    notes: Vec<String>,
    /// Behind the child: a group is removed when nothing is in it.
    groups: Groups,
}

impl Launch<'_> {
    fn pid(&self) -> Result<i32> {
        let child = self.child.as_ref().and_then(|child| child.0.as_ref());
        child.map(|child| child.pid).ok_or_else(|| Error::call("run a Program without a clone", Errno::EINVAL))
    }

    fn join_first(&mut self, kind: u64, slot: Slot) -> Result<(), Failure> {
        let fd = self.program.fds.iter().find(|(s, _)| *s == slot).ok_or(Errno::EBADF)?;
        self.joins.push((fd.1.as_fd(), NamespaceFlags::from_bits_truncate(kind)));
        Ok(())
    }

    fn clone(&mut self, flags: u64, capabilities: u64, channel: Option<OwnedFd>) -> Result<(), Failure> {
        let channel = Low::place(channel.ok_or(Errno::EBADF)?);
        let namespaces = NamespaceFlags::from_bits_truncate(flags);
        let cloned = CloneExec::new(self.image, channel.as_fd())
            .joins(&self.joins)
            .namespaces(namespaces)
            .capabilities(capabilities);
        let cloned = match self.groups.v2() {
            Some(group) => cloned.cgroup(group),
            None => cloned,
        };
        let cloned = cloned.tasks(&self.groups.tasks()).spawn()?;
        self.child = Some(Unfinished(Some(cloned)));
        Ok(())
    }
}

/// A killed process is gone within microseconds, unless the kernel itself is stuck.
const UNDO_BOUND: Duration = Duration::from_secs(10);

/// A process whose set-up is not finished: dropping it kills and reaps it.
struct Unfinished(Option<Cloned>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(cloned) = &self.0 {
            // ESRCH and ECHILD: it has ended, and a reaper of the host took its status
            let _ = cloned.pidfd.send_signal(SIGKILL);
            // a set-up that the kernel holds (a dead NFS server) is left to the host's init
            if cloned.pidfd.wait_exited(Some(UNDO_BOUND)).is_ok_and(|ended| ended) {
                let _ = cloned.pidfd.try_wait();
            }
        }
    }
}
