//! Where a sandbox's group is made.

use std::path::{Path, PathBuf};

/// The group below which a sandbox's groups are made, in every hierarchy that is used.
///
/// On cgroup v2 a group that hands controllers down may have no processes of its own
/// (cgroups(7), "no internal processes"), the root group apart. So a caller that sits in the
/// group itself is in the way: it starts in a leaf of its own, or says
/// [`move_caller`](CgroupParent::move_caller).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupParent {
    pub(crate) path: Option<PathBuf>,
    pub(crate) move_caller: bool,
}

impl CgroupParent {
    /// The caller's own group: the default. As an ordinary user it must have been delegated
    /// (`Delegate=yes` of systemd).
    pub fn own() -> CgroupParent {
        CgroupParent::default()
    }

    /// This group, which exists: its path from the root of each hierarchy, as
    /// `/proc/PID/cgroup` writes it (`/machine/belljar`).
    pub fn at(path: impl AsRef<Path>) -> CgroupParent {
        CgroupParent { path: Some(path.as_ref().to_owned()), move_caller: false }
    }

    /// Where the v2 group cannot hand a controller down because the caller's process is in
    /// it, moves that process, with all its threads, into a leaf of the group named `belljar-caller-…`. Without
    /// this the process is never moved.
    pub fn move_caller(mut self) -> Self {
        self.move_caller = true;
        self
    }
}
