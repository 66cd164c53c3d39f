//! Setting extended attributes, which [`tree`](super::tree) reads, and writing a whole file system
//! back: xattr(7), syncfs(2).
//!
//! Contract: <https://man7.org/linux/man-pages/man7/xattr.7.html>,
//! <https://man7.org/linux/man-pages/man2/syncfs.2.html>.

use super::Result;
use super::kernel::call;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sets an attribute, made if missing: fsetxattr(2).
///
/// # Errors
/// `EOPNOTSUPP` (the file system or the kind of file has none of this name space),
/// `EPERM` (`security.` and `trusted.` take capabilities; `user.` only regular files and
/// directories), `ENOSPC`, `ERANGE`, `E2BIG`.
pub fn set(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<()> {
    call::fsetxattr(file.as_raw_fd(), name, value).map(drop)
}

/// Writes back all that is unwritten on the file system of this file: syncfs(2), Linux 2.6.39.
///
/// # Errors
/// `EIO`, `ENOSPC`, `EDQUOT`: something could not be written since (Linux 5.8).
pub fn sync_file_system(file: BorrowedFd<'_>) -> Result<()> {
    call::syncfs(file.as_raw_fd()).map(drop)
}
