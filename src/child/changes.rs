//! What a run has changed.

use super::Child;
use crate::error::Result;
use crate::program::op::without;
use crate::rootfs::Changes;
use crate::testing;
use std::os::fd::AsFd;

impl Child {
    /// What the payload has changed in its root so far; after the end, for good. Takes
    /// [`RootFs::track_changes`](crate::RootFs::track_changes), or a persistent upper.
    ///
    /// What is given is independent of this handle: it holds the upper itself, so that it may outlive the sandbox and
    /// the `Child`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSpec`](crate::ErrorKind::InvalidSpec): the changes of this sandbox are not tracked.
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound), [`ErrorKind::NotPermitted`](crate::ErrorKind::NotPermitted): a
    /// layer or the persistent upper is not what it was.
    pub fn changes(&self) -> Result<Changes> {
        let by_call = testing::disabled() & without::OPENAT2 == 0;
        self.kept.changes(self.scratch.as_ref().map(AsFd::as_fd), by_call)
    }
}
