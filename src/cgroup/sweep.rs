//! Removing what owners have left that died without a chance to.

use super::control;
use super::directory::{kept, remove};
use super::name::Owner;
use crate::host::cgroups::visible;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What [`sweep`] has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swept {
    /// Groups that are gone now.
    pub removed: Vec<PathBuf>,
    /// Groups whose maker has ended, with processes in them: those of a detached sandbox, or of
    /// [`Init::Payload`](crate::Init::Payload). They are left alone.
    pub occupied: Vec<PathBuf>,
}

/// Removes the control groups of owners that have died: killed by SIGKILL, or ended without
/// dropping a [`Child`](crate::Child); and those of sandboxes that this process has
/// [detached](crate::Child::detach) and that have ended since. Nothing else outlives its owner: processes end with the shim, and
/// mounts, scratch and overlays with their namespaces.
///
/// Looked at are the groups below the caller's own, and below the group around
/// it; of these, only those that belljar has named, whose maker lived in the caller's own pid
/// and time namespaces and is certainly gone, and that are empty. So it may run at any time, beside other
/// processes that use this library.
///
/// ```
/// let swept = belljar::sweep();
/// assert!(swept.removed.len() < usize::MAX);
/// ```
pub fn sweep() -> Swept {
    let mut swept = Swept::default();
    // those of sandboxes that this process itself has detached, and that have ended
    kept().retain(|group| {
        let removed = remove(group, Duration::ZERO).is_ok();
        swept.removed.extend(removed.then(|| group.clone()));
        !removed
    });
    for hierarchy in visible() {
        sweep_below(&hierarchy.own, &mut swept);
        // the caller may sit in a leaf, and its groups beside it
        if let Some(around) = hierarchy.own.parent().filter(|around| around.starts_with(&hierarchy.root)) {
            sweep_below(around, &mut swept);
        }
    }
    swept
}

/// The same below one group.
pub(crate) fn sweep_below(group: &Path, swept: &mut Swept) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        let ended = entry.file_name().to_str().and_then(Owner::of).is_some_and(|owner| owner.has_ended());
        if !ended || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        // rmdir(2) itself is the test for emptiness; no patience, for nobody is ending here
        if remove(&path, Duration::ZERO).is_ok() {
            swept.removed.push(path);
        } else if control::is_occupied(&path) {
            swept.occupied.push(path);
        }
    }
}
