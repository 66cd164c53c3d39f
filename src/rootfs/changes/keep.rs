//! Copying changes out of a sandbox.
//!
//! The payload chose the names, the kinds and the sizes of what it left: a result may be planted as a link to
//! a file of the host, as a FIFO that never ends, as a set-uid program (CVE-2024-28185, CVE-2024-28189 are of
//! this class). So the source is opened beneath the upper without following anything, only once it is known
//! to be a regular file; the copy is made as a new file, beneath the destination, by and for the caller.

use super::below::shown;
use super::{Change, ChangeKind, Changes, entry_error};
use crate::error::{Defect, Error, ErrorKind, Result};
use crate::id::{c_path, c_string};
use crate::sys::Errno;
use crate::sys::kernel::abi::*;
use crate::sys::kernel::call;
use crate::sys::path::{OpenFlags, open_long};
use crate::sys::tree::{create_new, link_target, open_beneath};
use crate::units::Bytes;
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

/// What [`Changes::keep`] copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    bytes: Bytes,
    directories: bool,
    symlinks: bool,
    set_id: bool,
}

/// What [`Changes::keep`] has copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeepTotals {
    /// Regular files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Directories that were asked for; those on the way to a file are not counted.
    pub directories: u64,
}

impl Keep {
    /// Regular files only, 256 MiB of them at most, without set-user-ID, set-group-ID and sticky bits.
    pub const fn regular_files() -> Keep {
        Keep { bytes: Bytes::mib(256), directories: false, symlinks: false, set_id: false }
    }

    /// The most bytes in all.
    pub const fn bytes(mut self, bytes: Bytes) -> Keep {
        self.bytes = bytes;
        self
    }

    /// Directories too: each is made, and what is in it is not copied unless it is chosen itself.
    pub const fn directories(mut self) -> Keep {
        self.directories = true;
        self
    }

    /// Symbolic links too, as they are. They say what the payload wanted: follow none of them.
    pub const fn symlinks(mut self) -> Keep {
        self.symlinks = true;
        self
    }

    /// Keeps set-user-ID, set-group-ID and sticky bits: with the caller as the owner, a set-uid
    /// program of the payload's runs as the caller.
    pub const fn set_id_bits(mut self) -> Keep {
        self.set_id = true;
        self
    }
}

impl Changes {
    /// Copies chosen changes to the same paths below `destination`, a directory that is made if it is
    /// missing. All of it or nothing: what was made is removed when one fails.
    ///
    /// Copies belong to the caller and have the mode of the original less the caller's umask. A file that is
    /// there already is an error, and nothing in `destination` is followed either.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSpec`]: a change that is a deletion, or of a kind that `keep` does not allow; FIFOs,
    /// sockets and devices never are. [`ErrorKind::LimitReached`]: more bytes than allowed. [`ErrorKind::Busy`]: a
    /// file that is there already. [`ErrorKind::NotFound`]: it is gone, or is another kind of file by now.
    pub fn keep<'a>(
        &self,
        chosen: impl IntoIterator<Item = &'a Change>,
        destination: impl AsRef<Path>,
        keep: Keep,
    ) -> Result<KeepTotals> {
        let path = destination.as_ref();
        let fail = |e: io::Error| {
            let errno = Errno::of(e);
            Error::call(format!("make the destination {}", path.display()), errno)
                .with_hint("a directory that the caller may write")
        };
        fs::create_dir_all(path).map_err(fail)?;
        let directory = OpenFlags::PATH | OpenFlags::DIRECTORY;
        let root = open_long(&c_path(path), directory).map_err(|errno| fail(errno.into()))?;
        let mut copy = Copy { changes: self, keep, root, made: Vec::new(), totals: KeepTotals::default() };
        for change in chosen {
            copy.one(change)?; // what was made so far goes when `copy` does
        }
        copy.made.clear();
        Ok(copy.totals)
    }
}

struct Copy<'c> {
    changes: &'c Changes,
    keep: Keep,
    root: OwnedFd,
    /// What to remove if it fails: paths, and whether they are directories.
    made: Vec<(CString, bool)>,
    totals: KeepTotals,
}

impl Copy<'_> {
    fn one(&mut self, change: &Change) -> Result<()> {
        let path = relative(&change.path)?;
        let refuse = |what: &str, hint: &str| {
            Err(Error::spec(vec![Defect::new(format!("{} is {what}", change.path.display()), hint)]))
        };
        if change.kind == ChangeKind::Deleted {
            return refuse("deleted: there is nothing to copy", "changes of other kinds");
        }
        let look = |errno| entry_error("copy", &change.path, errno);
        let source = self.changes.entry(&path, OpenFlags::PATH).map_err(look)?;
        let stat = call::fstat(source.as_raw_fd()).map_err(look)?;
        match stat.kind() {
            S_IFREG => self.file(&path, &stat),
            S_IFDIR if self.keep.directories => {
                self.directory(&path)?;
                self.totals.directories += 1;
                Ok(())
            }
            S_IFLNK if self.keep.symlinks => {
                let target = link_target(source.as_fd()).map_err(look)?;
                let (dir, name) = self.parent(&path)?;
                call::symlinkat(&target, dir.as_raw_fd(), &name).map_err(|errno| made_error(&path, errno))?;
                self.made.push((path, false));
                self.totals.symlinks += 1;
                Ok(())
            }
            S_IFDIR => refuse("a directory", "regular files, or Keep::directories()"),
            S_IFLNK => refuse("a symbolic link", "regular files, or Keep::symlinks()"),
            S_IFIFO => refuse("a FIFO", "regular files: FIFOs are never opened"),
            S_IFSOCK => refuse("a socket", "regular files"),
            _ => refuse("a device", "regular files: devices are never opened"),
        }
    }

    fn file(&mut self, path: &CStr, stat: &Statx) -> Result<()> {
        let most = self.keep.bytes;
        let left = most.get().saturating_sub(self.totals.bytes);
        let too_much = || {
            Error::new(ErrorKind::LimitReached, format!("copy {}: more than {} in all", shown(path).display(), most))
                .with_hint("Keep::bytes, if so much is wanted")
        };
        if stat.size > left {
            return Err(too_much()); // also a hole, which takes no room in the upper, before anything is read
        }
        let look = |errno| entry_error("copy", &shown(path), errno);
        let source = self.changes.entry(path, OpenFlags::empty()).map_err(look)?;
        let now = call::fstat(source.as_raw_fd()).map_err(look)?;
        if now.kind() != S_IFREG || (now.dev(), now.ino) != (stat.dev(), stat.ino) {
            return Err(look(Errno::ESTALE).with_kind(ErrorKind::NotFound));
        }
        let (dir, name) = self.parent(path)?;
        let mode = u32::from(stat.mode);
        let file = create_new(dir.as_fd(), &name, mode & 0o777).map_err(|errno| made_error(path, errno))?;
        self.made.push((path.to_owned(), false));
        let mut file = File::from(file);
        let failed = |e: io::Error| look(Errno::of(e));
        // one byte more, to notice a file that grows while it is read
        let copied = io::copy(&mut File::from(source).take(left.saturating_add(1)), &mut file).map_err(failed)?;
        if copied > left {
            return Err(too_much());
        }
        if self.keep.set_id && mode & 0o7000 != 0 {
            let given = u32::from(call::fstat(file.as_raw_fd()).map_err(look)?.mode) & 0o777;
            call::fchmod(file.as_raw_fd(), given | mode & 0o7000).map_err(look)?;
        }
        self.totals.files += 1;
        self.totals.bytes += copied;
        Ok(())
    }

    /// The directory to make an entry in, and the entry's name.
    fn parent(&mut self, path: &CStr) -> Result<(OwnedFd, CString)> {
        let bytes = path.to_bytes();
        match bytes.iter().rposition(|b| *b == b'/') {
            None => Ok((self.open(c".")?, path.to_owned())),
            Some(cut) => Ok((self.directory(&c_string(&bytes[..cut]))?, c_string(&bytes[cut + 1..]))),
        }
    }

    /// Makes a directory with those on the way to it.
    fn directory(&mut self, path: &CStr) -> Result<OwnedFd> {
        match self.open(path) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            answer => return answer,
        }
        let (parent, name) = self.parent(path)?;
        match call::mkdirat(parent.as_raw_fd(), &name, 0o755) {
            Ok(_) => self.made.push((path.to_owned(), true)),
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(made_error(path, errno)),
        }
        self.open(path)
    }

    fn open(&self, path: &CStr) -> Result<OwnedFd> {
        let flags = OpenFlags::PATH | OpenFlags::DIRECTORY;
        open_beneath(self.root.as_fd(), path, flags, self.changes.by_call).map_err(|errno| made_error(path, errno))
    }
}

impl Drop for Copy<'_> {
    fn drop(&mut self) {
        while let Some((path, is_directory)) = self.made.pop() {
            let flags = if is_directory { AT_REMOVEDIR } else { 0 };
            if let Ok((parent, name)) = self.parent(&path) {
                // best effort, for the error that led here is the one to be told
                let _ = call::unlinkat(parent.as_raw_fd(), &name, flags);
            }
        }
    }
}

fn made_error(path: &CStr, errno: Errno) -> Error {
    let error = Error::call(format!("make {} in the destination", shown(path).display()), errno);
    match errno.0 {
        libc::EEXIST => error.with_kind(ErrorKind::Busy).with_hint("a destination that does not have it yet"),
        libc::ELOOP | libc::ENOTDIR => error
            .with_kind(ErrorKind::Busy)
            .with_hint("a destination in which nothing else stands in the way: links are not followed"),
        _ => error,
    }
}

/// The path below the upper. Whoever made the change up: it stays below.
fn relative(path: &Path) -> Result<CString> {
    let mut names = path.components();
    let rooted = names.next() == Some(Component::RootDir);
    if !rooted
        || path.as_os_str().as_bytes().contains(&0)
        || !names.clone().all(|name| matches!(name, Component::Normal(_)))
    {
        return Err(Error::spec(vec![Defect::new(
            format!("{path:?} is no path of a change"),
            "a Change as it was told",
        )]));
    }
    Ok(match names.as_path() {
        rest if rest.as_os_str().is_empty() => c".".to_owned(),
        rest => c_path(rest),
    })
}
