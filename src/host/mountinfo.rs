//! The host's mounts (proc_pid_mountinfo(5)), by procfs.

use procfs::process::{MountInfo, Process};

/// All mounts that the caller sees.
pub(crate) fn mounts() -> Result<Vec<MountInfo>, procfs::ProcError> {
    Ok(Process::myself()?.mountinfo()?.0)
}
