//! Project quotas: what a directory and all beneath it may take, where the file system counts that:
//! quotactl(2) `PRJQUOTA`, and the project of a file, ioctl `FS_IOC_FSSETXATTR` (ioctl_xfs_fsgetxattr(2)).
//!
//! ext4 counts by project if it was made with `-O quota,project` and is mounted with `prjquota`, xfs if it
//! is mounted with `prjquota`. Only the initial user namespace may set any of it.
//!
//! Contract: <https://man7.org/linux/man-pages/man2/quotactl.2.html>.

use super::Result;
use super::kernel::abi::{FS_XFLAG_PROJINHERIT, Q_GETQUOTA, Q_SETQUOTA, QIF_LIMITS, QuotaBlock};
use super::kernel::call;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What a project takes, and the most that it may take; 0 where there is no such limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProjectUse {
    /// Bytes of blocks in use.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
    /// The most bytes, a multiple of 1024.
    pub bytes_max: u64,
    /// The most files and directories.
    pub inodes_max: u64,
}

/// The project that a file or directory belongs to; 0 is that of all which have none.
///
/// # Errors
/// `ENOTTY`, `EOPNOTSUPP`: the file system has no such thing.
pub fn project(file: BorrowedFd<'_>) -> Result<u32> {
    call::fs_get_xattr(file.as_raw_fd()).map(|attributes| attributes.project)
}

/// Gives a file or directory to a project; what is made in a directory afterwards belongs to it too.
///
/// # Errors
/// `ENOTTY`, `EOPNOTSUPP`: the file system does not keep projects; `EPERM`, `EINVAL`: not in the initial user namespace.
pub fn set_project(file: BorrowedFd<'_>, project: u32, directory: bool) -> Result<()> {
    let mut attributes = call::fs_get_xattr(file.as_raw_fd())?;
    attributes.project = project;
    if directory {
        attributes.flags |= FS_XFLAG_PROJINHERIT;
    }
    call::fs_set_xattr(file.as_raw_fd(), &attributes)
}

/// What a project takes on the file system of this file. Linux 5.14.
///
/// # Errors
/// `ESRCH`: projects are not counted on it; `ENOSYS`: not in this kernel; `EPERM`: takes CAP_SYS_ADMIN.
pub fn usage(file: BorrowedFd<'_>, project: u32) -> Result<ProjectUse> {
    let mut block = QuotaBlock::default();
    call::quotactl_project(file.as_raw_fd(), Q_GETQUOTA, project, &mut block)?;
    Ok(ProjectUse {
        bytes: block.space,
        inodes: block.inodes,
        bytes_max: block.blocks_hard * 1024,
        inodes_max: block.inodes_hard,
    })
}

/// Sets the most bytes (counted up to whole KiB) and files of a project; 0 is no limit. Linux 5.14.
///
/// # Errors
/// As [`usage`].
pub fn set_limits(file: BorrowedFd<'_>, project: u32, bytes: u64, inodes: u64) -> Result<()> {
    let blocks = bytes.div_ceil(1024);
    let mut block = QuotaBlock {
        blocks_hard: blocks,
        blocks_soft: blocks,
        inodes_hard: inodes,
        inodes_soft: inodes,
        valid: QIF_LIMITS,
        ..QuotaBlock::default()
    };
    call::quotactl_project(file.as_raw_fd(), Q_SETQUOTA, project, &mut block)
}
