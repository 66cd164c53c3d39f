//! Pseudoterminals by descriptor: their window size (ioctl_tty(2)).

use super::Result;
use super::kernel::abi::{TIOCGWINSZ, TIOCSWINSZ, WinSize};
use super::kernel::call;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Rows and columns of a terminal.
///
/// # Errors
/// `ENOTTY`.
pub fn size(terminal: BorrowedFd<'_>) -> Result<(u16, u16)> {
    let mut size = WinSize::default();
    call::window_size(terminal.as_raw_fd(), TIOCGWINSZ, &mut size)?;
    Ok((size.rows, size.columns))
}

/// Sets rows and columns; the foreground process group gets SIGWINCH if they change.
///
/// # Errors
/// `ENOTTY`.
pub fn resize(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<()> {
    let mut size = WinSize { rows, columns, ..WinSize::default() };
    call::window_size(terminal.as_raw_fd(), TIOCSWINSZ, &mut size)
}
