//! How deletions are written: in archives by names, in trees by what overlayfs reads.
//!
//! | | archive (OCI image-spec, "Whiteouts") | tree (Documentation/filesystems/overlayfs.rst) |
//! | --- | --- | --- |
//! | removed | an empty file `.wh.NAME` | a character device 0:0 named NAME |
//! | replaced directory | an empty file `.wh..wh..opq` in it | the attribute `overlay.opaque` = `y` |
//!
//! The attribute is `trusted.` for overlays of the initial user namespace and `user.` for all
//! others (`userxattr`, Linux 5.11). Root writes both, an ordinary user the second.

use super::limits::Stop;
use crate::error::Error;
use crate::sys::{Errno, tree, xattr};
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstatat, mknodat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;

/// Names in archives that begin so are whiteouts.
pub(super) const PREFIX: &[u8] = b".wh.";
/// Behind the prefix: the directory's own mark.
pub(super) const OPAQUE_SUFFIX: &[u8] = b".wh..opq";
/// The owner and mode that an ordinary user's file should have.
pub(super) const STAT: &CStr = c"user.belljar.stat";
const TRUSTED: &CStr = c"trusted.overlay.opaque";
const USER: &CStr = c"user.overlay.opaque";

/// Attributes that no archive may bring along: overlayfs would obey them, or the store.
pub(super) fn is_reserved(name: &[u8]) -> bool {
    [&b"trusted.overlay."[..], b"user.overlay.", b"user.belljar."].iter().any(|prefix| name.starts_with(prefix))
}

pub(super) fn set_opaque(directory: BorrowedFd<'_>, privileged: bool) -> Result<(), Stop> {
    let fail = |errno| {
        Stop::Error(
            Error::call("mark a directory of a layer as opaque", errno)
                .with_hint("a store on a file system with user attributes: ext4, xfs, btrfs; tmpfs since Linux 6.6"),
        )
    };
    if privileged {
        match xattr::set(directory, TRUSTED, b"y") {
            // root of a container has no trusted attributes, and no overlays that read them
            Ok(()) | Err(Errno::EPERM) => {}
            Err(errno) => return Err(fail(errno)),
        }
    }
    xattr::set(directory, USER, b"y").map_err(fail)
}

pub(super) fn is_opaque(directory: BorrowedFd<'_>, privileged: bool) -> bool {
    let marked = |name| tree::attribute(directory, name).is_ok_and(|value| value.as_deref() == Some(b"y"));
    marked(USER) || (privileged && marked(TRUSTED))
}

/// Needs no privilege since Linux 5.8.
pub(super) fn make_whiteout(parent: BorrowedFd<'_>, name: &CString) -> nix::Result<()> {
    mknodat(parent, name.as_c_str(), SFlag::S_IFCHR, Mode::empty(), 0)
}

pub(super) fn is_whiteout(parent: BorrowedFd<'_>, name: &CString) -> bool {
    fstatat(parent, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == 0)
}

/// Removes the whiteouts in a directory.
pub(super) fn remove_whiteouts(directory: BorrowedFd<'_>) -> nix::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut entries = Dir::from_fd(openat(directory, c".", flags, Mode::empty())?)?;
    let names: Vec<CString> = entries.iter().flatten().map(|entry| entry.file_name().to_owned()).collect();
    for name in names.iter().filter(|name| is_whiteout(directory, name)) {
        unlinkat(directory, name.as_c_str(), UnlinkatFlags::NoRemoveDir)?;
    }
    Ok(())
}
