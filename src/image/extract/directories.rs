//! The directories of a tree that is being unpacked: opened beneath its root, through no link, and given
//! owner, mode and time last, when nothing is put into them any more.
//!
//! While entries are made, each directory is the caller's own, mode 0700, without a default ACL, so that no
//! entry inherits anything. What a directory is to become waits in a file beside the tree: there may be any
//! number of them, and memory stays as it is.

use super::super::archive::{cstring, split};
use super::super::io_error;
use super::super::limits::Stop;
use super::super::marks;
use super::metadata::chown;
use super::{failed, kept_mode};
use crate::error::Error;
use crate::flaw::FlawKind;
use crate::sys::path::{FileKind, OpenFlags, stat};
use crate::sys::{Errno, tree, xattr};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fchmod, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Paths of directories that the archive does not describe: so many bytes in all.
pub(in crate::image) const MAX_IMPLICIT: usize = 8 << 20;

pub(super) const DEFAULT_ACL: &CStr = c"system.posix_acl_default";

/// What a directory is to become.
pub(super) struct Planned {
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, u32),
    /// `system.posix_acl_default`.
    pub acl: Option<Vec<u8>>,
}

/// One that the archive does not describe: the tree is to depend on the archive only.
const IMPLICIT: Planned = Planned { mode: 0o755, owner: (0, 0), mtime: (0, 0), acl: None };

pub(super) struct Directories {
    root: OwnedFd,
    privileged: bool,
    /// Those that are open: each beneath the one before.
    open: Vec<(Vec<u8>, OwnedFd)>,
    plans: BufWriter<File>,
    /// Those that the archive has not described yet.
    implicit: BTreeSet<Vec<u8>>,
    implicit_bytes: usize,
}

impl Directories {
    pub fn new(root: OwnedFd, plans: &Path, privileged: bool) -> Result<Directories, Stop> {
        let file = File::options().read(true).write(true).create_new(true).open(plans);
        let file = file.map_err(|e| io_error(format!("make {}", plans.display()), &e))?;
        // needed by nobody but us
        std::fs::remove_file(plans).map_err(|e| io_error(format!("unlink {}", plans.display()), &e))?;
        let plans = BufWriter::new(file);
        let (open, implicit) = (Vec::new(), BTreeSet::new());
        let mut directories = Directories { root, privileged, open, plans, implicit, implicit_bytes: 0 };
        // the root, unless the archive describes it
        directories.plan(b"", &IMPLICIT)?;
        Ok(directories)
    }

    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens the directory of this name in its parent, made if it is not there.
    pub fn make(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, Stop> {
        let (parent, name) = split(path);
        let name = cstring(name)?;
        let privileged = self.privileged;
        let parent = self.at(parent)?;
        let mut opaque = false;
        match mkdirat(parent, name.as_c_str(), Mode::S_IRWXU) {
            Ok(()) => {}
            // removed and made again by the same layer: what was there is not merged into it
            Err(nix::Error::EEXIST) if marks::is_whiteout(parent, &name) => {
                unlinkat(parent, name.as_c_str(), UnlinkatFlags::NoRemoveDir).map_err(failed("remove a whiteout"))?;
                mkdirat(parent, name.as_c_str(), Mode::S_IRWXU).map_err(failed("make a directory of a layer"))?;
                opaque = true;
            }
            Err(nix::Error::EEXIST) => {} // what opens as a directory below may come twice
            Err(e) => return Err(failed("make a directory of a layer")(e)),
        }
        let fd = open_directory(parent, &name).map_err(|errno| match errno {
            nix::Error::ELOOP | nix::Error::ENOTDIR => super::duplicate(),
            errno => failed("open a directory of a layer")(errno),
        })?;
        if opaque {
            marks::set_opaque(fd.as_fd(), privileged)?;
        }
        self.close_from(path);
        self.open.push((path.to_vec(), fd));
        Ok(self.last())
    }

    /// The directory at a path of the tree, made with its parents if missing.
    pub fn at(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, Stop> {
        if path.is_empty() {
            return Ok(self.root.as_fd());
        }
        self.close_from(path);
        if self.open.last().is_none_or(|(open, _)| open != path) {
            let (from, rest) = match self.open.last() {
                Some((open, fd)) => (fd.as_fd(), &path[open.len() + 1..]),
                None => (self.root.as_fd(), path),
            };
            let (fd, made) = match open_beneath(from, rest) {
                // ENOTDIR: it may be a whiteout of this layer that is in the way
                Err(Errno::ENOENT | Errno::ENOTDIR) => make_all(from, rest, path, self.privileged)?,
                answer => (answer.map_err(|errno| parent_flaw(errno, path))?, Vec::new()),
            };
            for made in made {
                self.implicit_bytes += made.len() + 64;
                if self.implicit_bytes > MAX_IMPLICIT {
                    let detail = "more directories without an entry of their own than can be remembered";
                    return Err(Stop::flaw(FlawKind::TooManyEntries, detail));
                }
                self.plan(&made, &IMPLICIT)?;
                self.implicit.insert(made);
            }
            self.open.push((path.to_vec(), fd));
        }
        Ok(self.last())
    }

    fn last(&self) -> BorrowedFd<'_> {
        self.open.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd())
    }

    /// Closes the directories that do not lie on the way to a path.
    fn close_from(&mut self, path: &[u8]) {
        let on_the_way = |open: &[u8]| path.strip_prefix(open).is_some_and(|r| r.is_empty() || r[0] == b'/');
        while self.open.last().is_some_and(|(open, _)| !on_the_way(open)) {
            self.open.pop();
        }
    }

    /// Notes what the archive says of a directory; what it says last holds.
    pub fn describe(&mut self, path: &[u8], planned: &Planned) -> Result<(), Stop> {
        if self.implicit.remove(path) {
            self.implicit_bytes -= path.len() + 64;
        }
        self.plan(path, planned)
    }

    /// A record: length of the path, path, mode, uid, gid, seconds, nanoseconds, length of the ACL, ACL.
    fn plan(&mut self, path: &[u8], planned: &Planned) -> Result<(), Stop> {
        let Planned { mode, owner, mtime, acl } = planned;
        let acl = acl.as_deref().unwrap_or_default();
        let numbers = [*mode, owner.0, owner.1, mtime.1, acl.len() as u32, path.len() as u32];
        let mut record = Vec::with_capacity(32 + path.len() + acl.len());
        numbers.iter().for_each(|number| record.extend_from_slice(&number.to_le_bytes()));
        record.extend_from_slice(&mtime.0.to_le_bytes());
        record.extend_from_slice(path);
        record.extend_from_slice(acl);
        self.plans.write_all(&record).map_err(|e| io_error("note a directory of a layer", &e).into())
    }

    /// Makes of each directory what was planned; gives the paths of those that the archive does not describe,
    /// each ended by a NUL.
    pub fn finish(self) -> Result<Vec<u8>, Stop> {
        let Directories { root, privileged, open, plans, implicit, .. } = self;
        drop(open);
        let fail = |e: std::io::Error| io_error("read the notes on the directories of a layer", &e);
        let mut file = plans.into_inner().map_err(|e| fail(e.into_error()))?;
        file.rewind().map_err(fail)?;
        let mut input = BufReader::new(file);
        let mut path = Vec::new();
        while let Some(planned) = read(&mut input, &mut path).map_err(fail)? {
            let fd;
            let directory = if path.is_empty() {
                root.as_fd()
            } else {
                fd = open_beneath(root.as_fd(), &path).map_err(|errno| parent_flaw(errno, &path))?;
                fd.as_fd()
            };
            if privileged {
                chown(directory, planned.owner)?;
            }
            if let Some(acl) = &planned.acl {
                xattr::set(directory, DEFAULT_ACL, acl)
                    .map_err(|errno| Error::call(format!("set the ACL of {}", path.escape_ascii()), errno))?;
            }
            let mode = kept_mode(planned.mode, 0o700, privileged);
            fchmod(directory, Mode::from_bits_truncate(mode)).map_err(failed("set the mode of a directory"))?;
            let time = TimeSpec::new(planned.mtime.0, planned.mtime.1.into());
            futimens(directory, &time, &time).map_err(failed("set the time of a directory"))?;
        }
        Ok(implicit.iter().flat_map(|path| path.iter().chain(&[0])).copied().collect())
    }
}

/// The next record of the notes.
fn read(input: &mut impl Read, path: &mut Vec<u8>) -> std::io::Result<Option<Planned>> {
    let mut numbers = [[0; 4]; 6];
    for (i, number) in numbers.iter_mut().enumerate() {
        match input.read_exact(number) {
            Err(e) if i == 0 && e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            answer => answer?,
        }
    }
    let [mode, uid, gid, nanos, acl, length] = numbers.map(u32::from_le_bytes);
    let mut seconds = [0; 8];
    input.read_exact(&mut seconds)?;
    path.resize(length as usize, 0);
    input.read_exact(path)?;
    let mut value = vec![0; acl as usize];
    input.read_exact(&mut value)?;
    let acl = (!value.is_empty()).then_some(value);
    Ok(Some(Planned { mode, owner: (uid, gid), mtime: (i64::from_le_bytes(seconds), nanos), acl }))
}

pub(super) fn parent_flaw(errno: Errno, path: &[u8]) -> Stop {
    let path = path.escape_ascii();
    match errno {
        Errno::ELOOP => Stop::flaw(FlawKind::Parent, format!("a directory on the way, \"{path}\", is a symbolic link")),
        Errno::ENOTDIR => Stop::flaw(FlawKind::Parent, format!("something on the way, \"{path}\", is no directory")),
        errno => Stop::Error(Error::call(format!("open the directory {path} of a layer"), errno)),
    }
}

pub(super) fn open_directory(parent: BorrowedFd<'_>, name: &CString) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, name.as_c_str(), flags, Mode::empty())
}

/// Opens a directory beneath another, through no link.
pub(super) fn open_beneath(from: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let name = CString::new(path).map_err(|_| Errno::EINVAL)?;
    match tree::open_beneath(from, &name, OpenFlags::DIRECTORY, true) {
        // a link says ENOTDIR where it is the last component
        Err(Errno::ENOTDIR) if tree::open_beneath(from, &name, OpenFlags::PATH, true).is_ok_and(|fd| is_link(&fd)) => {
            Err(Errno::ELOOP)
        }
        answer => answer,
    }
}

fn is_link(fd: &OwnedFd) -> bool {
    stat(fd.as_fd()).is_ok_and(|stat| stat.kind == FileKind::Symlink)
}

/// Makes what is missing of a path; gives the paths that it made.
fn make_all(from: BorrowedFd<'_>, rest: &[u8], path: &[u8], privileged: bool) -> Result<(OwnedFd, Vec<Vec<u8>>), Stop> {
    let mut at = from.try_clone_to_owned().map_err(|e| io_error("copy a descriptor", &e))?;
    let mut made = Vec::new();
    let mut end = path.len() - rest.len();
    for name in rest.split(|b| *b == b'/') {
        end += name.len();
        let name = cstring(name)?;
        let hidden = marks::is_whiteout(at.as_fd(), &name);
        if hidden {
            unlinkat(&at, name.as_c_str(), UnlinkatFlags::NoRemoveDir).map_err(failed("remove a whiteout"))?;
        }
        match mkdirat(&at, name.as_c_str(), Mode::S_IRWXU) {
            Ok(()) => made.push(path[..end].to_vec()),
            Err(nix::Error::EEXIST) => {}
            Err(e) => return Err(failed("make a directory of a layer")(e)),
        }
        at = open_beneath(at.as_fd(), name.to_bytes()).map_err(|errno| parent_flaw(errno, path))?;
        if hidden {
            marks::set_opaque(at.as_fd(), privileged)?;
        }
        end += 1;
    }
    Ok((at, made))
}
