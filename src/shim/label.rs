//! The label under which the payload's program is executed.

use crate::procfs;
use crate::program::wire::codec::{Slot, Strings};
use crate::state::State;
use crate::sys::kernel::abi::O_WRONLY;
use crate::sys::kernel::{Errno, Result, call};

/// Writes the value to the first of the files that is there, beneath the host's own procfs: a thread labels only
/// itself, and keeps the label until it executes a program.
pub fn exec(state: &State, proc: Slot, files: Strings<'_>, value: &[u8]) -> Result<()> {
    let proc = state.get(proc)?;
    for file in files.iter() {
        let file = match procfs::open_at(proc, file, O_WRONLY) {
            Err(Errno::ENOENT) => continue,
            answer => answer?,
        };
        let written = call::write(file, value);
        call::close(file)?;
        // a label is taken in one write(2), or not at all
        return if written? == value.len() { Ok(()) } else { Err(Errno::EIO) };
    }
    Err(Errno::EOPNOTSUPP)
}
