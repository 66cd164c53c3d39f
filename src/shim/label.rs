//! The label under which the payload's program is executed.

use crate::program::wire::codec::{Slot, Strings};
use crate::state::State;
use crate::sys::kernel::abi::*;
use crate::sys::kernel::{Errno, Result, call};

/// Writes the value to the first of the files that is there, beneath the host's own procfs: a thread labels only itself, and
/// keeps the label until it executes a program. Nothing else is written to, whatever is mounted over such a
/// file (CVE-2019-16884, CVE-2025-52881).
pub fn exec(state: &State, proc: Slot, files: Strings<'_>, value: &[u8]) -> Result<()> {
    let proc = state.get(proc)?;
    for file in files.iter() {
        let file = match call::openat(proc, file, O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0) {
            Err(Errno::ENOENT) => continue,
            answer => answer?,
        };
        let own =
            call::fstatfs(file)?.f_type == PROC_SUPER_MAGIC && call::fstat(file)?.mnt_id == call::fstat(proc)?.mnt_id;
        let written = if own { call::write(file, value) } else { Err(Errno::ESTALE) };
        call::close(file)?;
        // a label is taken in one write(2), or not at all
        return if written? == value.len() { Ok(()) } else { Err(Errno::EIO) };
    }
    Err(Errno::EOPNOTSUPP)
}
