//! The most that a volume may take: a project quota of the file system below the store.
//!
//! `STORE/volumes/NAME/limit` notes it: project, bytes, inodes, as decimal words. The project is counted by the
//! kernel, so that a volume costs nothing to measure and a payload meets `EDQUOT` (`ENOSPC` on xfs) at once.

use super::io_error;
use super::volume::Volume;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::path::OpenFlags;
use crate::sys::{Errno, quota, tree};
use crate::units::Bytes;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The most that a volume may take, by [`Volume::limit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeLimit {
    /// Bytes of blocks.
    pub bytes: Bytes,
    /// Files and directories.
    pub inodes: u64,
}

impl Volume {
    /// Bounds what may be in the volume, in bytes and in files and directories, from now on and for all who use it; again, to
    /// change it. What is in it already counts. Root's only.
    ///
    /// # Errors
    /// [`ErrorKind::NotSupported`] where the file system of the store does not count by project, with what it would
    /// take: ext4 made with `-O quota,project` or xfs, mounted with `prjquota`; Linux 5.14.
    /// [`ErrorKind::NotPermitted`] without CAP_SYS_ADMIN in the initial user namespace.
    pub fn limit(&self, bytes: Bytes, inodes: u64) -> Result<()> {
        let data = self.path();
        let root = File::open(&data).map_err(|e| io_error(format!("open {}", data.display()), &e))?;
        let project = unused(&root).map_err(|errno| failed(&data, errno))?;
        // first what tells whether it can be had at all
        quota::set_limits(root.as_fd(), project, bytes.get(), inodes).map_err(|errno| failed(&data, errno))?;
        adopt(root.as_fd(), project).map_err(|errno| failed(&data, errno))?;
        let note = self.note();
        fs::write(&note, format!("{project} {} {inodes}\n", bytes.get()))
            .map_err(|e| io_error(format!("write {}", note.display()), &e))
    }

    /// Gives a tree that is to be moved into the volume to the volume's project, if it has one.
    pub(super) fn adopt(&self, tree: &Path) -> Result<()> {
        let Some((project, _)) = noted(&self.note()) else { return Ok(()) };
        let root = File::open(tree).map_err(|e| io_error(format!("open {}", tree.display()), &e))?;
        adopt(root.as_fd(), project).map_err(|errno| failed(tree, errno))
    }

    fn note(&self) -> std::path::PathBuf {
        self.path().with_file_name("limit")
    }
}

/// What is noted: the project, and its limit.
pub(super) fn noted(path: &Path) -> Option<(u32, VolumeLimit)> {
    let text = fs::read_to_string(path).ok()?;
    let mut words = text.split_whitespace();
    let project = words.next()?.parse().ok()?;
    let bytes = Bytes::new(words.next()?.parse().ok()?);
    Some((project, VolumeLimit { bytes, inodes: words.next()?.parse().ok()? }))
}

/// The volume's project, or one that nobody has: by the inode, which is the volume's alone as long as it lives.
fn unused(root: &File) -> Result<u32, Errno> {
    let own = quota::project(root.as_fd())?;
    if own != 0 {
        return Ok(own);
    }
    let inode = root.metadata().map_or(0, |meta| meta.ino());
    let mut candidate = (inode as u32) | 0x4000_0000; // above what people write into /etc/projects
    for _ in 0..1000 {
        match quota::usage(root.as_fd(), candidate) {
            Ok(use_of) if use_of == quota::ProjectUse::default() => return Ok(candidate),
            Err(Errno::ENOENT) => return Ok(candidate), // xfs has no record of it
            Ok(_) => candidate = candidate.wrapping_add(1) | 0x4000_0000,
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EBUSY)
}

/// Gives a tree to a project, beneath its root and through no link. What is neither file nor directory takes no
/// blocks, and cannot be opened without side effects: it stays out.
fn adopt(directory: BorrowedFd<'_>, project: u32) -> Result<(), Errno> {
    quota::set_project(directory, project, true)?;
    for name in tree::names(directory)? {
        let name = CString::new(name.into_encoded_bytes()).map_err(|_| Errno::EIO)?;
        let by_name = tree::open_beneath(directory, &name, OpenFlags::PATH, true)?;
        let kind = crate::sys::path::stat(by_name.as_fd())?.kind;
        if kind == crate::sys::path::FileKind::Directory {
            adopt(tree::open_beneath(directory, &name, OpenFlags::DIRECTORY, true)?.as_fd(), project)?;
        } else if kind == crate::sys::path::FileKind::Regular {
            let file = tree::open_beneath(directory, &name, OpenFlags::empty(), true)?;
            quota::set_project(file.as_fd(), project, false)?;
        }
    }
    Ok(())
}

fn failed(data: &Path, errno: Errno) -> Error {
    let what = format!("limit the volume at {}", data.display());
    let not_counted = |why: &str| {
        Error::new(ErrorKind::NotSupported, format!("{what}: {why}")).with_hint(
            "a store on ext4 made with `mkfs.ext4 -O quota,project` or on xfs, mounted with `-o prjquota`; or a file system of the volume's own size, bound by Mount::bind",
        )
    };
    match errno {
        Errno(libc::ENOTTY) | Errno::EOPNOTSUPP => not_counted("its file system keeps no projects"),
        Errno::ESRCH => not_counted("its file system does not count what projects take"),
        Errno::ENOSYS => not_counted("before Linux 5.14 (quotactl_fd) the kernel has no way to do it by descriptor"),
        Errno(libc::ENODEV | libc::ENOTBLK) => not_counted("its file system has no quotas"),
        errno => Error::call(what, errno).with_hint("root in the initial user namespace, with CAP_SYS_ADMIN"),
    }
}
