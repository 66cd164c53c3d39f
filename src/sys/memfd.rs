//! Programs in memory: memfd_create(2), filled once and sealed.
//!
//! Contract: <https://man7.org/linux/man-pages/man2/memfd_create.2.html>.

use super::kernel::abi::*;
use super::kernel::call;
use super::{Errno, Result};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// An executable file in memory with this content, which nobody can change any more
/// (`F_SEAL_WRITE`, `_GROW`, `_SHRINK`, `_SEAL`). Executable under
/// `vm.memfd_noexec` 0 and 1 (Linux 6.3).
///
/// # Errors
/// `EACCES`: `vm.memfd_noexec` is 2. `EMFILE`, `ENOMEM`.
pub fn sealed_executable(name: &CStr, content: &[u8]) -> Result<OwnedFd> {
    let flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    let fd = match call::memfd_create(name, flags | MFD_EXEC) {
        Err(Errno::EINVAL) => call::memfd_create(name, flags)?, // before Linux 6.3
        answer => answer?,
    };
    // SAFETY: the kernel has just made this descriptor for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    call::write_all(fd.as_raw_fd(), content)?;
    let seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    call::fcntl(fd.as_raw_fd(), F_ADD_SEALS, seals)?;
    Ok(fd)
}
