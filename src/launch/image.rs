//! The embedded shim as an executable descriptor, made once for the process.

use crate::error::{Error, Result};
use crate::program::op::without;
use crate::sys::{Errno, memfd};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
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
    once(&FILE, unlinked_file).map_err(|errno| {
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

/// A file without a name, in the first directory that lets one be executed. It is
/// opened anew for reading, for a file that is open for writing is not executed (ETXTBSY).
fn unlinked_file() -> Result<OwnedFd, Errno> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let others = ["/tmp", "/var/tmp", "/dev/shm", "/run"].map(PathBuf::from);
    let mut last = Errno::EACCES;
    for directory in runtime.into_iter().chain(others) {
        match unlinked_file_in(&directory) {
            Ok(file) => return Ok(file.into()),
            Err(e) => last = Errno(e.raw_os_error().unwrap_or(libc::EIO)),
        }
    }
    Err(last)
}

fn unlinked_file_in(directory: &Path) -> io::Result<File> {
    let mount = nix::sys::statvfs::statvfs(directory)?;
    if mount.flags().contains(nix::sys::statvfs::FsFlags::ST_NOEXEC) {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    let flags = libc::O_TMPFILE;
    let mut file = OpenOptions::new().read(true).write(true).custom_flags(flags).mode(0o755).open(directory)?;
    file.write_all(SHIM)?;
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
