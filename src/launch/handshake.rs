//! Handing the Program over, and hearing how it went.

use super::{Given, Unfinished};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::remedy::failure;
use crate::program::{Op, Program, REPORT_MAX, Report, Slot};
use crate::sys::clone::Cloned;
use crate::sys::pidfd::PidFd;
use crate::sys::{Errno, socket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// Well below the default send buffer of a UNIX socket (net.core.wmem_default, 208 KiB).
const PACKET: usize = 32 * 1024;

/// Whether the Program can be sent before there is a reader.
pub(super) fn fits(program: &Program) -> bool {
    program.bytes().len() <= PACKET
}

/// Sends the Program with the descriptors at hand, in the order of their slots.
pub(super) fn send_program(control: BorrowedFd<'_>, program: &Program) -> Result<()> {
    packets(program, |packet, fds| send(control, packet, fds))
}

/// The same to the init of a running sandbox, which may not read.
pub(super) fn send_program_until(control: BorrowedFd<'_>, program: &Program, end: Instant) -> Result<()> {
    packets(program, |packet, fds| match socket::send_until(control, packet, fds, end) {
        // it is gone, or waits no longer: what it said before is heard next
        Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
        Err(errno) => Err(failure(program, 0, errno, "")),
    })
}

/// The Program in packets, the first of which has its descriptors.
fn packets(program: &Program, mut send: impl FnMut(&[u8], &[BorrowedFd<'_>]) -> Result<()>) -> Result<()> {
    let fds: Vec<_> = program.fds.iter().map(|(_, fd)| fd.as_fd()).collect();
    let mut fds = fds.as_slice();
    program.bytes().chunks(PACKET).try_for_each(|packet| send(packet, std::mem::take(&mut fds)))
}

/// Tells the shim that its ids are mapped, and sends it the trees.
pub(super) fn go(control: BorrowedFd<'_>, program: &Program, mut trees: Vec<(Slot, OwnedFd)>) -> Result<()> {
    trees.sort_unstable_by_key(|(slot, _)| slot.0);
    debug_assert_eq!(trees.len(), program.tree_count());
    let fds: Vec<_> = trees.iter().map(|(_, fd)| fd.as_fd()).collect();
    if !program.ops().any(|op| matches!(op, Op::Await {})) {
        return Ok(());
    }
    if fds.is_empty() {
        return send(control, &[0], &[]);
    }
    fds.chunks(socket::MAX_FDS).try_for_each(|some| send(control, &[0], some))
}

fn send(control: BorrowedFd<'_>, packet: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    match socket::send(control, packet, fds) {
        // the shim is gone: what it said before is heard next
        Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
        Err(errno) => Err(Error::call("send the Program to the shim", errno)
            .with_hint("a higher RLIMIT_NOFILE: it bounds the descriptors that may be in flight")),
    }
}

/// The failure that the shim has reported by now, if it has.
pub(super) fn heard_failure(control: BorrowedFd<'_>, program: &Program) -> Option<Error> {
    let mut packet = [0u8; REPORT_MAX];
    let (len, _) = socket::receive(control, &mut packet, false).ok()?;
    match Report::decode(&packet[..len])? {
        Report::Failed { op, errno, message } => {
            Some(failure(program, op, Errno(errno), &String::from_utf8_lossy(message)))
        }
        _ => None,
    }
}

/// Waits until the payload runs, or an op has failed.
pub(super) fn wait_started(
    control: BorrowedFd<'_>,
    program: &Program,
    mut child: Unfinished,
) -> Result<(i32, PidFd, Given)> {
    let stays = program.ops().any(|op| matches!(op, Op::Payload { stay: 1, .. }));
    let mut given = Given::default();
    loop {
        match hear(control, program, &mut given)? {
            Heard::Started(_) => break,
            Heard::Given => {}
            // the new process is our child too (CLONE_PARENT); the old one ends and is reaped
            Heard::Moved(cloned) => {
                let old = std::mem::replace(&mut child, Unfinished(Some(cloned)));
                drop(old);
            }
            // without a shim that stays, the socket closes when the payload is executed
            Heard::Closed if !stays => break,
            Heard::Closed => return Err(lost(program)),
        }
    }
    match child.0.take() {
        Some(cloned) => Ok((cloned.pid, cloned.pidfd, given)),
        None => Err(lost(program)),
    }
}

/// Waits until a process that enters runs, or an op has failed. It belongs to the sandbox's init.
pub(super) fn wait_entered(control: BorrowedFd<'_>, program: &Program, end: Instant) -> Result<(Cloned, Given)> {
    let mut given = Given::default();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match socket::wait_readable(control, Some(left)) {
            Ok(true) => {}
            Ok(false) => {
                return Err(failure(program, 0, Errno::ETIMEDOUT, "").with_kind(ErrorKind::Busy));
            }
            Err(errno) => return Err(Error::call("wait for the shim", errno)),
        }
        match hear(control, program, &mut given)? {
            Heard::Started(Some(cloned)) => return Ok((cloned, given)),
            Heard::Given => {}
            Heard::Closed => return Err(failure(program, 0, Errno::ESRCH, "").with_kind(ErrorKind::NotFound)),
            Heard::Started(None) | Heard::Moved(_) => return Err(lost(program)),
        }
    }
}

enum Heard {
    /// With the process, if it is not our child.
    Started(Option<Cloned>),
    Moved(Cloned),
    Given,
    Closed,
}

/// Hears one word of the shim.
fn hear(control: BorrowedFd<'_>, program: &Program, given: &mut Given) -> Result<Heard> {
    let mut packet = [0u8; REPORT_MAX];
    let (len, mut fds) =
        socket::receive(control, &mut packet, true).map_err(|errno| Error::call("hear from the shim", errno))?;
    let mut process = || match fds.pop().map(PidFd::from) {
        Some(pidfd) => Ok(Some(Cloned { pid: pid_of(&pidfd)?, pidfd })),
        None => Ok(None),
    };
    match Report::decode(&packet[..len]) {
        Some(Report::Failed { op, errno, message }) => {
            Err(failure(program, op, Errno(errno), &String::from_utf8_lossy(message)))
        }
        Some(Report::Started { .. }) => process().map(Heard::Started),
        Some(Report::Moved) => process()?.map(Heard::Moved).ok_or_else(|| lost(program)),
        Some(Report::Given { what }) => {
            given.take(what, fds.pop().ok_or_else(|| lost(program))?);
            Ok(Heard::Given)
        }
        None if len == 0 => Ok(Heard::Closed),
        Some(Report::Exited { .. } | Report::Used(_) | Report::Answer { .. }) | None => Err(lost(program)),
    }
}

/// The shim ended without a word: it was killed from outside.
fn lost(program: &Program) -> Error {
    Error::call(format!("run the Program of {} steps: the shim ended unexpectedly", program.len()), Errno::EIO)
        .with_hint("to see who kills processes here: the out-of-memory killer (dmesg), or a supervisor")
}

/// The pid of a pidfd, as its fdinfo tells (pidfd_open(2)).
fn pid_of(pidfd: &PidFd) -> Result<i32> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd());
    let fail = |errno| Error::call(format!("look up a process in {path}"), errno);
    let info = std::fs::read_to_string(&path).map_err(|e| fail(Errno::of(e)))?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    let pid: i32 = pid.ok_or_else(|| fail(Errno::EIO))?;
    // -1: it has been reaped by now. 0 and less mean others to kill(2), and no process has the largest number.
    Ok(if pid > 0 { pid } else { i32::MAX })
}
