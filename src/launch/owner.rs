//! User namespaces that are there for their id maps alone: mounts are seen through them (mount_setattr(2)).

use super::{Failure, Unfinished, id_map};
use crate::sys::clone::CloneExec;
use crate::sys::namespace::NamespaceFlags;
use crate::sys::{Errno, socket};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

/// Makes one with these maps: that of a shim that never gets a Program, and is gone when this returns.
pub(super) fn namespace(image: BorrowedFd<'_>, uid: &[u8], gid: &[u8]) -> Result<File, Failure> {
    let (_control, channel) = socket::seqpacket_pair()?;
    let holder = CloneExec::new(image, channel.as_fd()).namespaces(NamespaceFlags::USER).spawn()?;
    let pid = holder.pid;
    let _ends_here = Unfinished(Some(holder));
    id_map::write(pid, uid, gid, false, false)?;
    of(pid)
}

/// That of a process.
pub(super) fn of(pid: i32) -> Result<File, Failure> {
    let path = format!("/proc/{pid}/ns/user");
    File::open(&path).map_err(|e| Failure(Errno::of(e), path))
}
