//! Low descriptor numbers for the clone.
//!
//! The child of a clone gets a table of its own by `close_range(last needed + 1, ~0,
//! CLOSE_RANGE_UNSHARE)`, which copies only what is below. In a host with 10,000 open
//! descriptors a new socket has number 10,000, and everything would be copied and
//! closed again: 1.5 ms. So a few numbers are reserved when the library is first used,
//! usually long before a host has that many, and the child's end of the control socket
//! is moved onto one of them for the time of the clone.

use crate::sys::kernel::abi::{F_DUPFD_CLOEXEC, O_CLOEXEC};
use crate::sys::kernel::call;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, OnceLock};

/// As many spawns at once as have a low number; others take what they get.
const RESERVED: usize = 4;
static POOL: OnceLock<Pool> = OnceLock::new();

struct Pool {
    places: Vec<Mutex<OwnedFd>>,
    /// What is put there when nothing else is.
    filler: BorrowedFd<'static>,
}

/// Reserves the numbers, once for the process, with copies of `filler`.
pub(super) fn reserve(filler: BorrowedFd<'static>) {
    POOL.get_or_init(|| {
        let copy = |_| call::fcntl(filler.as_raw_fd(), F_DUPFD_CLOEXEC, 3).ok();
        // SAFETY: each descriptor is new and ours.
        let own = |fd| Mutex::new(unsafe { OwnedFd::from_raw_fd(fd) });
        Pool { places: (0..RESERVED).filter_map(copy).map(own).collect(), filler }
    });
}

/// A descriptor for the time of a clone: on a reserved number, or where it was.
pub(super) enum Low {
    Reserved { place: MutexGuard<'static, OwnedFd>, filler: BorrowedFd<'static> },
    AsIs(OwnedFd),
}

impl Low {
    /// Moves `fd` to a reserved number, if one is free.
    pub fn place(fd: OwnedFd) -> Low {
        if let Some(pool) = POOL.get() {
            let free = pool.places.iter().find_map(|place| place.try_lock().ok());
            if let Some(place) = free.filter(|place| call::dup3(fd.as_raw_fd(), place.as_raw_fd(), O_CLOEXEC).is_ok()) {
                return Low::Reserved { place, filler: pool.filler };
            }
        }
        Low::AsIs(fd)
    }
}

impl AsFd for Low {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Low::Reserved { place, .. } => place.as_fd(),
            Low::AsIs(fd) => fd.as_fd(),
        }
    }
}

impl Drop for Low {
    /// Closes the descriptor by putting the filler back in its place.
    fn drop(&mut self) {
        if let Low::Reserved { place, filler } = self {
            // dup3 onto an open number of ours fails only by EBUSY and EINTR, for races
            // that cannot be here; retried, for a control socket left open would outlive us
            for _ in 0..8 {
                if call::dup3(filler.as_raw_fd(), place.as_raw_fd(), O_CLOEXEC).is_ok() {
                    return;
                }
            }
        }
    }
}
