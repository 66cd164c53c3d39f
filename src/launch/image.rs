//! The embedded shim as an executable descriptor, made once for the process.

use crate::error::{Error, Result};
use crate::program::op::without;
use crate::sys::{Errno, memfd};
use std::io::Cursor;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

static SHIM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/shim.elf"));

/// The shim: a sealed memfd, or an unlinked file where memfds may not be executed
/// (`vm.memfd_noexec` = 2).
pub(super) fn shim(without: u32) -> Result<BorrowedFd<'static>> {
    static MEMFD: OnceLock<OwnedFd> = OnceLock::new();
    static FILE: OnceLock<OwnedFd> = OnceLock::new();
    if without & without::MEMFD_EXEC == 0 {
        match once(&MEMFD, || memfd::sealed_executable(c"belljar", SHIM)) {
            Err(Errno::EACCES | Errno::ENOSYS) => {}
            Err(errno) => return Err(Error::call("make a memfd for the shim", errno)),
            Ok(fd) => return Ok(fd),
        }
    }
    once(&FILE, || memfd::unlinked_copy(&mut Cursor::new(SHIM))).map_err(|errno| {
        Error::call("make an executable file for the shim", errno).with_hint(
            "vm.memfd_noexec 0 or 1, or a writable /tmp, /var/tmp, /dev/shm or $XDG_RUNTIME_DIR without noexec",
        )
    })
}

/// The descriptor in the cell, made by the first caller that succeeds.
fn once(
    cell: &'static OnceLock<OwnedFd>,
    make: impl FnOnce() -> Result<OwnedFd, Errno>,
) -> Result<BorrowedFd<'static>, Errno> {
    if let Some(fd) = cell.get() {
        return Ok(fd.as_fd());
    }
    let made = make()?;
    Ok(cell.get_or_init(|| made).as_fd())
}
