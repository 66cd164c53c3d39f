//! Error numbers as text.

use super::Errno;
use std::borrow::Borrow;
use std::fmt;

impl Errno {
    /// The symbolic name, as errno(3) has it: `ENOENT`, or `errno 4095` for a number that has none.
    pub fn name(self) -> String {
        match nix::errno::Errno::from_raw(self.0) {
            nix::errno::Errno::UnknownErrno => format!("errno {}", self.0),
            errno => format!("{errno:?}"),
        }
    }

    /// What the kernel said; `EIO` for an error that is not the kernel's.
    pub(crate) fn of(error: impl Borrow<std::io::Error>) -> Errno {
        error.borrow().raw_os_error().map_or(Errno::EIO, Errno)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), nix::errno::Errno::from_raw(self.0).desc())
    }
}

impl std::error::Error for Errno {}

impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> Self {
        std::io::Error::from_raw_os_error(errno.0)
    }
}
