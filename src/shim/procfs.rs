//! Files of a procfs, opened so that nothing mounted over them can pass for them (CVE-2019-16884, CVE-2025-52881).

use crate::sys::kernel::abi::*;
use crate::sys::kernel::{Errno, Result, call};
use core::ffi::CStr;

/// Opens a file of the /proc that this process sees: `ENOENT` where that is no procfs, `ESTALE` where the file is of
/// another mount.
pub fn open(path: &CStr, flags: i32) -> Result<i32> {
    let proc = call::openat(AT_FDCWD, c"/proc", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0)?;
    let opened = open_at(proc, path, flags);
    call::close(proc)?;
    opened
}

/// The same beneath a /proc that is open.
pub fn open_at(proc: i32, path: &CStr, flags: i32) -> Result<i32> {
    if call::fstatfs(proc)?.f_type != PROC_SUPER_MAGIC {
        return Err(Errno::ENOENT);
    }
    let file = call::openat(proc, path, flags | O_NOFOLLOW | O_CLOEXEC, 0)?;
    if call::fstat(file)?.mnt_id == call::fstat(proc)?.mnt_id {
        return Ok(file);
    }
    call::close(file)?;
    Err(Errno::ESTALE)
}

/// Writes a file of /proc at once.
pub fn write(path: &CStr, text: &[u8]) -> Result<()> {
    let file = open(path, O_WRONLY)?;
    let written = call::write_all(file, text);
    call::close(file)?;
    written
}
