//! Walking an upper.

use super::below::{Found, is_whiteout, shown};
use super::{Change, ChangeKind, Changes, InInitLayer, Ranges, entry_error};
use crate::error::Result;
use crate::sys::kernel::abi::*;
use crate::sys::kernel::call;
use crate::sys::path::{FileKind, OpenFlags};
use crate::sys::{Errno, tree};
use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// The iterator of [`Changes::iter`]. Holds the names of the directories on the way to where it is, and no
/// descriptor of its own.
#[derive(Debug)]
pub struct ChangesIter<'a> {
    changes: &'a Changes,
    stack: Vec<Level>,
    ready: VecDeque<Result<Change>>,
}

/// A directory of the upper.
#[derive(Debug)]
struct Level {
    /// Relative to the upper; empty for its root.
    path: Vec<u8>,
    names: std::vec::IntoIter<OsString>,
    /// Where the layers have the same directory.
    parts: Vec<usize>,
}

impl<'a> ChangesIter<'a> {
    pub(super) fn new(changes: &'a Changes) -> ChangesIter<'a> {
        let mut iter = ChangesIter { changes, stack: Vec::new(), ready: VecDeque::new() };
        if let Err(errno) = iter.root() {
            iter.ready.push_back(Err(entry_error("look at", &shown(c"."), errno)));
        }
        iter
    }

    fn root(&mut self) -> Result<(), Errno> {
        let (top, parts) = self.changes.below.root()?;
        let dir = self.changes.entry(c".", OpenFlags::DIRECTORY)?;
        let own = call::fstat(dir.as_raw_fd())?;
        // the library itself gives it the owner that it can
        if top.is_some_and(|top| (top.mode ^ own.mode) & 0o7777 != 0) {
            self.ready.push_back(Ok(change(ChangeKind::MetadataChanged, c".", &own, InInitLayer::No)));
        }
        let names = tree::names(dir.as_fd())?.into_iter();
        self.stack.push(Level { path: Vec::new(), names, parts });
        Ok(())
    }

    /// Looks at one entry.
    fn visit(&mut self, path: CString, parts: &[usize]) -> Result<Option<Change>, Errno> {
        let Changes { below, .. } = self.changes;
        let entry = match self.changes.entry(&path, OpenFlags::PATH) {
            Err(Errno::ENOENT) => return Ok(None), // gone since it was listed
            answer => answer?,
        };
        let stat = call::fstat(entry.as_raw_fd())?;
        let lower = below.look_up(&path, parts)?;
        let init = match (&lower, below.init) {
            (_, None) => InInitLayer::Unknown,
            (Some(found), _) if below.is_init(found.source) => InInitLayer::Yes,
            _ => InInitLayer::No,
        };
        if is_whiteout(&stat) {
            // without a lower entry it hides nothing: a file that was made and removed again
            return Ok(lower.map(|lower| change(ChangeKind::Deleted, &path, &lower.stat, init)));
        }
        let kind = if stat.kind() == S_IFDIR {
            self.directory(&path, &stat, lower)?
        } else {
            match lower {
                None => Some(ChangeKind::Added),
                Some(lower) if self.same_content(&path, &entry, &stat, &lower)? => {
                    (!self.same_metadata(&path, &stat, &lower)?).then_some(ChangeKind::MetadataChanged)
                }
                Some(_) => Some(ChangeKind::Modified),
            }
        };
        Ok(kind.map(|kind| change(kind, &path, &stat, init)))
    }

    /// Puts a directory on the stack, and says what has happened to it.
    fn directory(&mut self, path: &CStr, stat: &Statx, lower: Option<Found>) -> Result<Option<ChangeKind>, Errno> {
        let dir = self.changes.entry(path, OpenFlags::DIRECTORY)?;
        let opaque = self.changes.below.marks.opaque(dir.as_fd())?;
        let names = tree::names(dir.as_fd())?.into_iter();
        let (kind, parts) = match lower {
            None => (Some(ChangeKind::Added), Vec::new()),
            Some(lower) if lower.stat.kind() != S_IFDIR => (Some(ChangeKind::Modified), Vec::new()),
            Some(_) if opaque => (Some(ChangeKind::Opaque), Vec::new()),
            Some(lower) => {
                let same = self.same_metadata(path, stat, &lower)?;
                ((!same).then_some(ChangeKind::MetadataChanged), lower.parts)
            }
        };
        self.stack.push(Level { path: path.to_bytes().to_vec(), names, parts });
        Ok(kind)
    }

    /// Two files of one kind with the same bytes, target or number. One that cannot be read is not the same.
    fn same_content(&self, path: &CStr, entry: &OwnedFd, stat: &Statx, lower: &Found) -> Result<bool, Errno> {
        if stat.kind() != lower.stat.kind() {
            return Ok(false);
        }
        let numbers = |stat: &Statx| (stat.rdev_major, stat.rdev_minor);
        match stat.kind() {
            S_IFREG if stat.size == lower.stat.size => {
                let own = self.regular(self.changes.entry(path, OpenFlags::empty()), stat);
                let theirs =
                    self.regular(self.changes.below.entry(lower.source, path, OpenFlags::empty()), &lower.stat);
                match (own, theirs) {
                    (Some(own), Some(theirs)) => Ok(same_bytes(own, theirs).unwrap_or(false)),
                    _ => Ok(false),
                }
            }
            S_IFREG => Ok(false),
            S_IFLNK => {
                let theirs = self.changes.below.entry(lower.source, path, OpenFlags::PATH)?;
                Ok(tree::link_target(entry.as_fd())? == tree::link_target(theirs.as_fd())?)
            }
            _ => Ok(numbers(stat) == numbers(&lower.stat)),
        }
    }

    /// The file, if it is still the one that was looked at.
    fn regular(&self, opened: Result<OwnedFd, Errno>, stat: &Statx) -> Option<File> {
        let file = opened.ok()?;
        let now = call::fstat(file.as_raw_fd()).ok()?;
        (now.kind() == S_IFREG && (now.dev(), now.ino) == (stat.dev(), stat.ino)).then(|| file.into())
    }

    fn same_metadata(&self, path: &CStr, stat: &Statx, lower: &Found) -> Result<bool, Errno> {
        let below = &lower.stat;
        let ids = self.changes.ids.as_ref();
        if (stat.mode ^ below.mode) & 0o7777 != 0
            || !same_owner(stat.uid, below.uid, ids.map(|(uids, _)| uids))
            || !same_owner(stat.gid, below.gid, ids.map(|(_, gids)| gids))
        {
            return Ok(false);
        }
        match stat.kind() {
            // any entry made in it changes a directory's time
            S_IFDIR => {}
            S_IFREG if mtime(stat) != mtime(below) => return Ok(false),
            S_IFREG => {}
            _ => return Ok(true),
        }
        let read = |fd: Result<OwnedFd, Errno>| -> Result<_, Errno> {
            let mut all = tree::attributes(fd?.as_fd())?;
            // a security module labels by the file system, not by the file
            all.retain(|name, _| !self.changes.below.marks.own(name) && name.as_c_str() != c"security.selinux");
            Ok(all)
        };
        let own = read(self.changes.entry(path, OpenFlags::empty()));
        match (own, read(self.changes.below.entry(lower.source, path, OpenFlags::empty()))) {
            (Ok(own), Ok(theirs)) => Ok(own == theirs),
            _ => Ok(true), // not for this caller to see, as little as its content
        }
    }
}

impl Iterator for ChangesIter<'_> {
    type Item = Result<Change>;

    fn next(&mut self) -> Option<Result<Change>> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            let level = self.stack.last_mut()?;
            let Some(name) = level.names.next() else {
                self.stack.pop();
                continue;
            };
            let mut path = level.path.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            let Ok(path) = CString::new(path) else { continue }; // the kernel gives no name with a NUL
            let parts = level.parts.clone();
            match self.visit(path.clone(), &parts) {
                Ok(Some(change)) => return Some(Ok(change)),
                Ok(None) => {}
                Err(errno) => return Some(Err(entry_error("look at", &shown(&path), errno))),
            }
        }
    }
}

impl std::iter::FusedIterator for ChangesIter<'_> {}

fn change(kind: ChangeKind, path: &CStr, stat: &Statx, in_init_layer: InInitLayer) -> Change {
    let file = match stat.kind() {
        S_IFREG => FileKind::Regular,
        S_IFDIR => FileKind::Directory,
        S_IFLNK => FileKind::Symlink,
        S_IFCHR => FileKind::Character,
        S_IFBLK => FileKind::Block,
        S_IFIFO => FileKind::Fifo,
        S_IFSOCK => FileKind::Socket,
        _ => FileKind::Other,
    };
    let size = matches!(file, FileKind::Regular | FileKind::Symlink).then_some(stat.size);
    Change { kind, path: shown(path), file, size, mode: u32::from(stat.mode) & 0o7777, in_init_layer }
}

fn mtime(stat: &Statx) -> (u64, u32) {
    (stat.times[6], stat.times[7] as u32) // the fourth of four: seconds, nanoseconds, padding
}

/// Equal, or equal once one of the two is shown through the sandbox's id map: a layer of the host's below an upper in
/// the sandbox's memory, or that memory's init layer below an upper of the host's.
fn same_owner(upper: u32, lower: u32, ranges: Option<&Ranges>) -> bool {
    let maps = |from: u32, to: u32| {
        let mapped = |(inside, outside, count): &(u32, u32, u32)| {
            from.checked_sub(*inside).filter(|n| n < count).and_then(|n| outside.checked_add(n)) == Some(to)
        };
        ranges.is_some_and(|ranges| ranges.iter().any(mapped))
    };
    upper == lower || maps(lower, upper) || maps(upper, lower)
}

fn same_bytes(a: impl Read, b: impl Read) -> io::Result<bool> {
    let (mut a, mut b) = (io::BufReader::with_capacity(BLOCK, a), io::BufReader::with_capacity(BLOCK, b));
    loop {
        use io::BufRead;
        let (one, other) = (a.fill_buf()?, b.fill_buf()?);
        let len = one.len().min(other.len());
        if len == 0 {
            return Ok(one.len() == other.len());
        }
        if one[..len] != other[..len] {
            return Ok(false);
        }
        a.consume(len);
        b.consume(len);
    }
}

const BLOCK: usize = 64 * 1024;
