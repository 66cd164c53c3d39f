//! The payload's terminal: a pty of the sandbox's own devpts (pts(4)).

use crate::program::wire::codec::Slot;
use crate::program::wire::report::{Report, given};
use crate::state::{State, report};
use crate::sys::kernel::abi::*;
use crate::sys::kernel::raw::syscall;
use crate::sys::kernel::{Errno, Result, call};

/// Opens a pty in the devpts that this Program has mounted: by its descriptor, for a path
/// would be what the layers make of it. The master goes to the library, the payload's end
/// (TIOCGPTPEER, Linux 4.13) into a slot, owned by the payload's ids as grantpt(3) does it.
pub fn open(state: &mut State, rows: u16, columns: u16, uid: u32, gid: u32, to: Slot) -> Result<()> {
    if state.devpts < 0 {
        return Err(Errno::ENODEV);
    }
    let master = call::openat(state.devpts, c"ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC, 0)?;
    let unlocked = 0i32;
    // SAFETY: the kernel reads one int.
    unsafe { syscall!(ioctl, master, TIOCSPTLCK, &raw const unlocked) }?;
    // SAFETY: the argument is open flags, not a pointer.
    let peer = unsafe { syscall!(ioctl, master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC) }? as i32;
    call::fchown(peer, uid, gid)?;
    call::window_size(master, TIOCSWINSZ, &mut WinSize { rows, columns, ..WinSize::default() })?;
    report(Report::Given { what: given::PTY }, &[master]);
    call::close(master)?;
    state.set(to, peer)
}

/// Makes a standard stream the controlling terminal of this new session.
pub fn control(stream: u32) -> Result<()> {
    // SAFETY: the argument is a flag, not a pointer: 0, do not steal it from another session.
    unsafe { syscall!(ioctl, stream, TIOCSCTTY, 0) }.map(drop)
}
