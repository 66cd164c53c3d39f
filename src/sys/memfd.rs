//! Programs in memory: memfd_create(2), filled once and sealed; and in files without a name, where
//! memfds may not be executed.
//!
//! Contract: <https://man7.org/linux/man-pages/man2/memfd_create.2.html>.

use super::kernel::abi::*;
use super::kernel::call;
use super::{Errno, Result};
use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// An executable file in memory with this content, which nobody can change any more
/// (`F_SEAL_WRITE`, `_GROW`, `_SHRINK`, `_SEAL`). Executable under
/// `vm.memfd_noexec` 0 and 1 (Linux 6.3).
///
/// # Errors
/// `EACCES`: `vm.memfd_noexec` is 2. `EMFILE`, `ENOMEM`.
pub fn sealed_executable(name: &CStr, content: &[u8]) -> Result<OwnedFd> {
    sealed_copy(name, &mut { content })
}

/// The same, with all that can be read.
///
/// # Errors
/// Those of reading besides.
pub fn sealed_copy(name: &CStr, content: &mut impl Read) -> Result<OwnedFd> {
    let flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    let fd = match call::memfd_create(name, flags | MFD_EXEC) {
        Err(Errno::EINVAL) => call::memfd_create(name, flags)?, // before Linux 6.3
        answer => answer?,
    };
    // SAFETY: the kernel has just made this descriptor for us.
    let mut file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    io::copy(content, &mut file).map_err(Errno::of)?;
    let fd = OwnedFd::from(file);
    let seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    call::fcntl(fd.as_raw_fd(), F_ADD_SEALS, seals)?;
    Ok(fd)
}

/// An executable file without a name, in the first directory that lets one be executed, of
/// `$XDG_RUNTIME_DIR`, `/tmp`, `/var/tmp`, `/dev/shm` and `/run`. It is
/// opened anew for reading, for a file that is open for writing is not executed (`ETXTBSY`).
///
/// # Errors
/// Those of the last directory.
pub fn unlinked_copy(content: &mut (impl Read + Seek)) -> Result<OwnedFd> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let others = ["/tmp", "/var/tmp", "/dev/shm", "/run"].map(PathBuf::from);
    let mut last = Errno::EACCES;
    for directory in runtime.into_iter().chain(others) {
        match unlinked_copy_in(&directory, content) {
            Ok(file) => return Ok(file.into()),
            Err(e) => last = Errno::of(e),
        }
    }
    Err(last)
}

fn unlinked_copy_in(directory: &Path, content: &mut (impl Read + Seek)) -> io::Result<File> {
    let mount = nix::sys::statvfs::statvfs(directory)?;
    if mount.flags().contains(nix::sys::statvfs::FsFlags::ST_NOEXEC) {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    let mut file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o755).open(directory)?;
    content.rewind()?;
    io::copy(content, &mut file)?;
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
