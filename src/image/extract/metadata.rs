//! Owners, modes, times and attributes of entries, as far as the caller may give them.

use super::super::archive::{Entry, Kind, split};
use super::super::limits::{FileCapabilities, Stop};
use super::super::marks::{self, STAT};
use super::directories::DEFAULT_ACL;
use super::{Extractor, failed, kept_mode};
use crate::error::Error;
use crate::flaw::FlawKind;
use crate::sys::{Errno, xattr};
use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmod, fchmodat, futimens, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

pub(super) fn chown(file: BorrowedFd<'_>, (uid, gid): (u32, u32)) -> Result<(), Stop> {
    fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(failed("set the owner of an entry"))
}

pub(super) fn time(entry: &Entry) -> TimeSpec {
    TimeSpec::new(entry.mtime.0, entry.mtime.1.into())
}

impl Extractor<'_> {
    /// All of a regular file but its content.
    pub(super) fn finish_file(&mut self, file: &File, entry: &Entry) -> Result<(), Stop> {
        if !self.privileged {
            self.keep_owner(file.as_fd(), entry, 0o400)?;
        } else if self.inherited != Some((entry.uid, entry.gid)) {
            chown(file.as_fd(), (entry.uid, entry.gid))?;
        }
        let mode = kept_mode(entry.mode, 0o400, self.privileged);
        fchmod(file, Mode::from_bits_truncate(mode)).map_err(failed("set the mode of a file"))?;
        // behind chown(2), which clears it
        self.attributes(file.as_fd(), entry).map(drop)?;
        futimens(file, &time(entry), &time(entry)).map_err(failed("set the time of a file"))
    }

    /// What an ordinary user's file should have and cannot. `own`: the bits that the user needs.
    pub(super) fn keep_owner(&mut self, file: BorrowedFd<'_>, entry: &Entry, own: u32) -> Result<(), Stop> {
        if (entry.uid, entry.gid) == (0, 0) && entry.mode | own == entry.mode {
            return Ok(());
        }
        self.left_out.owners += 1;
        let text = format!("{} {} {:o}", entry.uid, entry.gid, entry.mode);
        match xattr::set(file, STAT, text.as_bytes()) {
            Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(()), // the skeleton has it all the same
            Err(errno) => Err(Stop::Error(Error::call("keep the owner of an entry", errno))),
        }
    }

    /// All of an entry that cannot be opened without side effects: links, FIFOs, devices.
    pub(super) fn own_by_name(&mut self, entry: &Entry, path: &[u8], name: &CString) -> Result<(), Stop> {
        let privileged = self.privileged;
        self.left_out.attributes += entry.xattrs.len() as u64;
        if !privileged && (entry.uid, entry.gid) != (0, 0) {
            self.left_out.owners += 1;
        }
        let parent = self.directories.at(split(path).0)?;
        let name = name.as_c_str();
        if privileged {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
                .map_err(failed("set the owner of an entry"))?;
        }
        if entry.kind != Kind::Symlink {
            // just made by us with O_EXCL's promise, and no link
            fchmodat(parent, name, Mode::from_bits_truncate(entry.mode), FchmodatFlags::FollowSymlink)
                .map_err(failed("set the mode of an entry"))?;
        }
        utimensat(parent, name, &time(entry), &time(entry), UtimensatFlags::NoFollowSymlink)
            .map_err(failed("set the time of an entry"))
    }

    /// Sets the attributes of a file or directory. A directory's default ACL is given back: set
    /// now, whatever is made in it would inherit it.
    pub(super) fn attributes(&mut self, file: BorrowedFd<'_>, entry: &Entry) -> Result<Option<Vec<u8>>, Stop> {
        let mut default_acl = None;
        for (name, value) in &entry.xattrs {
            let shown = name.escape_ascii();
            if marks::is_reserved(name) {
                return Err(Stop::flaw(FlawKind::Attribute, format!("the attribute {shown}, which is reserved")));
            }
            let bad =
                || Stop::flaw(FlawKind::Attribute, format!("the attribute {shown}, which the kernel does not take"));
            let c_name = CString::new(name.as_slice()).map_err(|_| bad())?;
            let capability = name == b"security.capability";
            if name == DEFAULT_ACL.to_bytes() {
                if entry.kind == Kind::Directory {
                    default_acl = Some(value.clone());
                }
                continue;
            }
            let kept = name.starts_with(b"user.")
                || name == b"system.posix_acl_access"
                || (capability && entry.kind == Kind::File && self.policy.capabilities == FileCapabilities::Keep);
            let set = if kept { xattr::set(file, &c_name, value) } else { Err(Errno::EOPNOTSUPP) };
            match set {
                Ok(()) => {}
                Err(Errno::EOPNOTSUPP) => self.left_out.attributes += 1,
                Err(Errno::EPERM) if capability => self.left_out.attributes += 1,
                Err(Errno::EINVAL | Errno::ERANGE | Errno::E2BIG) => return Err(bad()),
                Err(errno) => {
                    let what = format!("set the attribute {shown} of {}", entry.path.escape_ascii());
                    let error = Error::call(what, errno);
                    return Err(Stop::Error(match errno {
                        Errno::ENOSPC => error.with_hint(
                            "a store on a file system that takes as much in attributes: ext4 with 256-byte inodes has 4 KiB a file",
                        ),
                        _ => error,
                    }));
                }
            }
        }
        Ok(default_acl)
    }
}
