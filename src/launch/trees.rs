//! Trees of the host, cloned by the parent: it may, where the sandbox's root could not
//! even search the way there; and it may map their ids.

use super::Failure;
use crate::sys::Errno;
use crate::sys::kernel::abi::*;
use crate::sys::kernel::{call, path};
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Whether the ids of a tree are mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum IdMapping {
    No,
    /// Or it fails.
    Required,
    /// Where the file system can.
    Preferred,
}

impl IdMapping {
    pub fn of(code: u32) -> IdMapping {
        match code {
            0 => IdMapping::No,
            1 => IdMapping::Required,
            _ => IdMapping::Preferred,
        }
    }
}

/// A detached tree, and what it lacks.
pub(super) struct Tree {
    pub fd: OwnedFd,
    pub note: Option<String>,
}

/// Clones the tree at `path`, whose root must be this inode (device, number, `S_IF…`), with its ids
/// mapped as in the user namespace that `through` opens.
pub(super) fn clone(
    path: &CStr,
    expected: (u64, u64, u32),
    recursive: bool,
    ids: IdMapping,
    through: impl FnOnce() -> Result<File, Failure>,
) -> Result<Tree, Failure> {
    let recursive = if recursive { AT_RECURSIVE } else { 0 };
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | recursive;
    let fd = path::with_long_path(path, |dir, path| call::open_tree(dir, path, flags))?;
    // SAFETY: the kernel has just made this descriptor for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let stat = call::fstat(fd.as_raw_fd())?;
    if (stat.dev(), stat.ino, stat.kind()) != expected {
        return Err(Failure(Errno::ESTALE, "it is not what it was when the sandbox was compiled".into()));
    }
    if ids == IdMapping::No {
        return Ok(Tree { fd, note: None });
    }
    let user = match through() {
        Ok(user) => user,
        Err(Failure(errno, _)) if ids == IdMapping::Preferred => {
            return Ok(Tree { fd, note: Some(unmapped(path, errno)) });
        }
        Err(failure) => return Err(failure),
    };
    let attr = MountAttr { attr_set: MOUNT_ATTR_IDMAP, userns_fd: user.as_raw_fd() as u64, ..MountAttr::default() };
    match call::mount_setattr(fd.as_raw_fd(), c"", AT_EMPTY_PATH | recursive, &attr) {
        Ok(_) => Ok(Tree { fd, note: None }),
        Err(errno) if ids == IdMapping::Preferred => Ok(Tree { fd, note: Some(unmapped(path, errno)) }),
        Err(errno) => Err(errno.into()),
    }
}

fn unmapped(path: &CStr, errno: Errno) -> String {
    format!("{} is not id-mapped ({}): its files have the ids of the host", path.to_string_lossy(), errno.name())
}
