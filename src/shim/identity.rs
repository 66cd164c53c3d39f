//! Namespaces, clocks, ids and capabilities.

use crate::program::wire::codec::Slot;
use crate::program::wire::report::Report;
use crate::state::{State, report};
use crate::sys::kernel::abi::*;
use crate::sys::kernel::{Errno, Result, call, vfork};

/// setns(2) into the namespace in a slot.
pub fn join(state: &mut State, kind: u64, fd: Slot) -> Result<()> {
    if kind == CLONE_NEWNS {
        state.open_children();
    }
    if kind == CLONE_NEWNS && state.proc_self < 0 {
        // the /proc that will be seen then need not know this process
        state.proc_self = call::openat(AT_FDCWD, c"/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC, 0).unwrap_or(-1);
    }
    call::setns(state.get(fd)?, kind)?;
    state.release(fd);
    Ok(())
}

/// A new time namespace with these offsets (time_namespaces(7)). They can be
/// written only while nobody is inside: the creator itself stays outside until it
/// joins by setns. It has to, for before Linux 6.3 a process that is not in the time
/// namespace of its children cannot clone with shared memory (EINVAL).
pub fn clocks(state: &mut State, offsets: &[u8]) -> Result<()> {
    call::unshare(CLONE_NEWTIME)?;
    if state.proc_self < 0 {
        state.proc_self = call::openat(AT_FDCWD, c"/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC, 0)?;
    }
    if !offsets.is_empty() {
        let fd = call::openat(state.proc_self, c"timens_offsets", O_WRONLY | O_CLOEXEC, 0)?;
        let written = call::write_all(fd, offsets);
        call::close(fd)?;
        written?;
    }
    let fd = call::openat(state.proc_self, c"ns/time_for_children", O_RDONLY | O_CLOEXEC, 0)?;
    let joined = call::setns(fd, CLONE_NEWTIME);
    call::close(fd)?;
    joined.map(drop)
}

/// After unshare(CLONE_NEWPID) only children are in the new namespace. Goes on as
/// such a child, made the library's own child by CLONE_PARENT; this process ends.
pub fn relaunch() -> Result<()> {
    let mut pidfd = -1i32;
    let args = CloneArgs { flags: CLONE_PARENT | CLONE_PIDFD, pidfd: &raw mut pidfd as u64, ..CloneArgs::default() };
    // SAFETY: this is the only thread, so the child is a whole process.
    if unsafe { vfork::fork(&args) }? != 0 {
        report(Report::Moved, &[pidfd]);
        call::exit_group(0);
    }
    Ok(())
}

/// Takes on the ids of the set-up: in a user namespace whose map does not hold the
/// caller's own id, nothing can be created before this (EOVERFLOW). From here on
/// the process is not dumpable: its memory and descriptors are closed to ptrace.
pub fn setup_ids(uid: u32, gid: u32, drop_groups: u32) -> Result<()> {
    match (drop_groups, drop_groups != 0 && call::setgroups(&[]).is_err()) {
        (1, true) => return Err(Errno::EPERM),
        _ => {}
    }
    call::setresgid(gid)?;
    call::setresuid(uid)?;
    call::prctl(PR_SET_DUMPABLE, 0, 0)?;
    Ok(())
}

/// Default actions for all signals: clone3 has reset handlers, but what the host ignores
/// stays ignored through every exec.
pub fn signals() -> Result<()> {
    for signal in (1..=64).filter(|signal| !matches!(*signal, SIGKILL | SIGSTOP)) {
        call::signal_default(signal)?;
    }
    Ok(())
}

/// Takes all other capabilities out of the bounding set, for this process and all after it.
pub fn bounding(keep: u64, last: u32) -> Result<()> {
    for capability in (0..=last).filter(|c| keep & (1 << c) == 0) {
        match call::prctl(PR_CAPBSET_DROP, capability as usize, 0) {
            // a process without CAP_SETPCAP (an ordinary user in the host's user
            // namespace) cannot shrink the bounding set; it has nothing to raise either
            Err(Errno::EPERM) if call::capget()?.1 == 0 => break,
            answer => answer?,
        };
    }
    Ok(())
}

/// The payload's ids and capabilities, in the one order that works: groups, gid, uid
/// (which drops the rest), then what is kept.
#[inline(never)]
pub fn credentials(uid: u32, gid: u32, groups: Option<&[u8]>, keep: u64) -> Result<()> {
    if let Some(bytes) = groups {
        let mut ids = [0u32; 64];
        let count = bytes.len() / 4;
        for (id, raw) in ids.iter_mut().zip(bytes.chunks_exact(4)) {
            *id = u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]);
        }
        call::setgroups(ids.get(..count).ok_or(Errno::EINVAL)?)?;
    }
    call::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
    call::setresgid(gid)?;
    if keep != 0 {
        call::prctl(PR_SET_KEEPCAPS, 1, 0)?; // cleared by execve
    }
    call::setresuid(uid)?;
    call::capset(keep, keep)?;
    for capability in (0..64).filter(|c| keep & (1 << c) != 0) {
        call::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability as usize)?;
    }
    Ok(())
}

/// prctl(2) PR_SET_NO_NEW_PRIVS.
pub fn no_new_privileges() -> Result<()> {
    call::prctl(PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}
