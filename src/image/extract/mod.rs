//! Unpacking a layer into the form that overlayfs reads.
//!
//! Everything is made by name in a directory that was opened from the tree's root without
//! following a link (openat2(2), `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`), with `O_EXCL`:
//! an entry can neither leave the tree nor write through what an earlier entry has made.
//! What makes directories is in [`directories`], what gives entries their metadata in [`metadata`],
//! devices and whiteouts are in [`special`].
//!
//! **Owners.** Root gives files to the ids of the archive. An ordinary user cannot: its files
//! stay its own (which is root inside its sandboxes), with the owner's read bit on files and
//! `rwx` on directories, and what they should be is kept in the attribute `user.belljar.stat`
//! (`UID GID MODE`, the mode in octal), which overlayfs copies up with the file, so that a
//! commit gives the owner back.

mod directories;
mod metadata;
mod special;

use super::archive::{Archive, Entry, Kind, clean, cstring, split};
use super::decode::{Chunks, Ends};
use super::io_error;
use super::limits::{Deadline, LeftOut, Policy, Stop};
use super::{marks, skeleton};
use crate::error::{Error, ErrorKind, Result};
use crate::flaw::FlawKind;
use crate::sys::{Errno, tree};
pub(super) use directories::MAX_IMPLICIT;
use directories::{DEFAULT_ACL, Directories, Planned, open_beneath, parent_flaw};
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, mknodat};
use nix::unistd::{LinkatFlags, UnlinkatFlags, getegid, geteuid, linkat, symlinkat, unlinkat};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What unpacking a layer gives.
#[derive(Clone, Debug)]
pub(super) struct Unpacked {
    pub ends: Ends,
    /// Directories that the archive does not describe: sorted paths, each ended by a NUL.
    pub implicit: Vec<u8>,
    pub entries: u64,
    pub left_out: LeftOut,
}

/// Unpacks an archive into the empty directory `tree`, and writes its skeleton.
pub(super) fn extract(chunks: Chunks, tree: &Path, skeleton: &Path, policy: &Policy, layer: &str) -> Result<Unpacked> {
    let root = File::open(tree).map_err(|e| io_error(format!("open {}", tree.display()), &e))?;
    let privileged = geteuid().is_root();
    let mut archive = Archive::new(chunks, Some(skeleton::Writer::create(skeleton)?));
    let unpack = |archive: &mut Archive<Chunks>| {
        let inherited = inherited_owner(&root)?;
        let mut extractor = Extractor {
            directories: Directories::new(root.into(), &skeleton.with_file_name("directories"), privileged)?,
            policy,
            deadline: Deadline::new(&policy.limits),
            privileged,
            inherited,
            bytes: 0,
            entries: 0,
            left_out: LeftOut::default(),
        };
        extractor.run(archive)?;
        let Extractor { directories, entries, left_out, .. } = extractor;
        let implicit = directories.finish()?;
        archive.skeleton.take().map_or(Ok(()), skeleton::Writer::finish)?;
        let ends = archive.ends().ok_or_else(|| Stop::flaw(FlawKind::Truncated, "the archive has no end"))?;
        Ok(Unpacked { ends, implicit, entries, left_out })
    };
    unpack(&mut archive).map_err(|stop: Stop| stop.of(layer, archive.path.as_deref()))
}

/// Who owns what is made in the tree, if that is known beforehand.
fn inherited_owner(root: &File) -> Result<Option<(u32, u32)>> {
    let what = "look at the tree of a layer";
    if tree::attribute(root.as_fd(), DEFAULT_ACL).map_err(|errno| Error::call(what, errno))?.is_some() {
        return Err(Error::new(ErrorKind::NotSupported, "unpack a layer where an ACL would be inherited")
            .with_hint("a store in a directory without a default ACL: setfacl -k"));
    }
    let stat = fstat(root).map_err(|errno| Error::call(what, Errno(errno as i32)))?;
    let plain = stat.st_mode & libc::S_ISGID == 0 && stat.st_gid == getegid().as_raw();
    Ok(plain.then(|| (geteuid().as_raw(), stat.st_gid)))
}

struct Extractor<'a> {
    directories: Directories,
    policy: &'a Policy,
    deadline: Deadline,
    privileged: bool,
    /// Who owns a file that has just been made, if that is sure.
    inherited: Option<(u32, u32)>,
    bytes: u64,
    entries: u64,
    left_out: LeftOut,
}

/// The mode that a file gets. `own`: the bits that an ordinary user needs.
fn kept_mode(mode: u32, own: u32, privileged: bool) -> u32 {
    if privileged { mode } else { mode | own }
}

/// A failed call on an entry.
fn failed(what: &'static str) -> impl Fn(nix::Error) -> Stop {
    move |errno| {
        Stop::Error(Error::call(what, Errno(errno as i32)).with_hint(match errno {
            nix::Error::ENOSPC | nix::Error::EDQUOT => "more room on the file system of the store",
            nix::Error::EPERM | nix::Error::EACCES => "a store that belongs to the caller",
            _ => "a store on a file system like ext4, xfs or btrfs",
        }))
    }
}

impl Extractor<'_> {
    fn run(&mut self, archive: &mut Archive<Chunks>) -> Result<(), Stop> {
        while let Some(entry) = archive.next()? {
            self.entries += 1;
            if self.entries > self.policy.limits.entries {
                let detail = format!("more than {} entries", self.policy.limits.entries);
                return Err(Stop::flaw(FlawKind::TooManyEntries, detail));
            }
            if self.entries.is_multiple_of(64) {
                self.deadline.check()?;
            }
            self.entry(entry, archive)?;
        }
        archive.path = None;
        Ok(())
    }

    fn entry(&mut self, entry: Entry, archive: &mut Archive<Chunks>) -> Result<(), Stop> {
        let path = clean(&entry.path, self.policy.limits.depth)?;
        if path.is_empty() {
            return match entry.kind {
                Kind::Directory => self.directory(&entry, &path),
                _ => Err(Stop::flaw(FlawKind::Path, "the root, as something else than a directory")),
            };
        }
        let (parent, name) = split(&path);
        if parent.split(|b| *b == b'/').any(|name| name.starts_with(marks::PREFIX)) {
            return Err(Stop::flaw(FlawKind::Whiteout, "a directory with a name that is reserved for whiteouts"));
        }
        if let Some(hidden) = name.strip_prefix(marks::PREFIX) {
            return self.whiteout(&entry, parent, hidden);
        }
        let c_name = cstring(name)?;
        match entry.kind {
            Kind::Directory => return self.directory(&entry, &path),
            Kind::File => return self.file(&entry, &path, archive),
            _ => {}
        }
        match entry.kind {
            Kind::HardLink => {
                let target = clean(&entry.link, self.policy.limits.depth)?;
                return self.hard_link(&target, &path);
            }
            Kind::Symlink => {
                if entry.link.is_empty() || entry.link.contains(&0) || entry.link.len() >= libc::PATH_MAX as usize {
                    let detail = "a symbolic link without a target, with a NUL in it, or longer than the kernel takes";
                    return Err(Stop::flaw(FlawKind::Path, detail));
                }
                let target = cstring(&entry.link)?;
                self.make(&path, "make a symbolic link of a layer", |parent| {
                    symlinkat(target.as_c_str(), parent, c_name.as_c_str())
                })?;
            }
            Kind::Fifo => self.make(&path, "make a FIFO of a layer", |parent| {
                mknodat(parent, c_name.as_c_str(), SFlag::S_IFIFO, Mode::S_IRUSR | Mode::S_IWUSR, 0)
            })?,
            _ => {
                if !self.device(&entry, &path, &c_name)? {
                    return Ok(());
                }
            }
        }
        self.own_by_name(&entry, &path, &c_name)
    }

    /// A directory, or the tree's own root: an entry `./`.
    fn directory(&mut self, entry: &Entry, path: &[u8]) -> Result<(), Stop> {
        let directory = if path.is_empty() { self.directories.root() } else { self.directories.make(path)? };
        let directory = directory.try_clone_to_owned().map_err(|e| io_error("copy a descriptor", &e))?;
        if !self.privileged {
            self.keep_owner(directory.as_fd(), entry, 0o700)?;
        }
        let acl = self.attributes(directory.as_fd(), entry)?;
        let planned = Planned { mode: entry.mode, owner: (entry.uid, entry.gid), mtime: entry.mtime, acl };
        self.directories.describe(path, &planned)
    }

    fn file(&mut self, entry: &Entry, path: &[u8], archive: &mut Archive<Chunks>) -> Result<(), Stop> {
        self.bytes = self.bytes.saturating_add(entry.size);
        if self.bytes > self.policy.limits.bytes.get() {
            return Err(Stop::flaw(FlawKind::TooLarge, format!("more than {}", self.policy.limits.bytes)));
        }
        let (parent, name) = split(path);
        let c_name = cstring(name)?;
        let parent = self.directories.at(parent)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let create = || openat(parent, c_name.as_c_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR);
        let file = match create() {
            Err(nix::Error::EEXIST) => {
                replace_whiteout(parent, &c_name)?;
                create()
            }
            made => made,
        };
        let file = File::from(file.map_err(failed("make a file of a layer"))?);
        let whole = [(0, entry.size)];
        let pieces = entry.sparse.as_deref().unwrap_or(if entry.size == 0 { &[] } else { &whole });
        if !pieces.is_empty() {
            if let Some(skeleton) = &mut archive.skeleton {
                skeleton.content(path, pieces)?;
            }
            write_pieces(&file, pieces, archive)?;
        }
        if entry.sparse.is_some() {
            file.set_len(entry.size).map_err(|e| io_error("set the length of a file", &e))?;
        }
        self.finish_file(&file, entry)
    }

    fn hard_link(&mut self, target: &[u8], path: &[u8]) -> Result<(), Stop> {
        let no_file =
            |why: &str| Stop::flaw(FlawKind::HardLink, format!("a hard link to \"{}\", {why}", target.escape_ascii()));
        let (target_parent, target_name) = split(target);
        if target_name.is_empty() || target_name.starts_with(marks::PREFIX) {
            return Err(no_file("which is no file"));
        }
        let target_name = cstring(target_name)?;
        let from = match target_parent {
            b"" => self.directories.root().try_clone_to_owned().map_err(|e| io_error("copy a descriptor", &e))?,
            parent => open_beneath(self.directories.root(), parent).map_err(|errno| match errno {
                Errno::ENOENT | Errno::ENOTDIR => no_file("which is not in this layer"),
                errno => parent_flaw(errno, parent),
            })?,
        };
        let stat = fstatat(&from, target_name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|_| no_file("which is not in this layer"))?;
        let kind = stat.st_mode & libc::S_IFMT;
        if kind == libc::S_IFDIR || (kind == libc::S_IFCHR && stat.st_rdev == 0) {
            return Err(no_file("which is no file"));
        }
        let name = cstring(split(path).1)?;
        self.make(path, "make a hard link of a layer", |parent| {
            linkat(&from, target_name.as_c_str(), parent, name.as_c_str(), LinkatFlags::empty())
        })
    }

    /// Makes something that is not there yet.
    fn make(
        &mut self,
        path: &[u8],
        what: &'static str,
        call: impl Fn(BorrowedFd<'_>) -> nix::Result<()>,
    ) -> Result<(), Stop> {
        let (parent, name) = split(path);
        let parent = self.directories.at(parent)?;
        match call(parent) {
            Err(nix::Error::EEXIST) => {
                replace_whiteout(parent, &cstring(name)?)?;
                call(parent).map_err(failed(what))
            }
            answer => answer.map_err(failed(what)),
        }
    }
}

fn duplicate() -> Stop {
    Stop::flaw(FlawKind::Duplicate, "a second entry of this name")
}

/// What stands in the way of a new entry may be a whiteout of the same layer, and nothing else.
fn replace_whiteout(parent: BorrowedFd<'_>, name: &CString) -> Result<(), Stop> {
    if !marks::is_whiteout(parent, name) {
        return Err(duplicate());
    }
    unlinkat(parent, name.as_c_str(), UnlinkatFlags::NoRemoveDir).map_err(failed("remove a whiteout"))
}

fn write_pieces(file: &File, pieces: &[(u64, u64)], archive: &mut Archive<Chunks>) -> Result<(), Stop> {
    let mut pieces = pieces.iter().copied();
    let (mut at, mut room) = pieces.next().unwrap_or_default();
    archive.content(|mut bytes| {
        while !bytes.is_empty() {
            while room == 0 {
                (at, room) = pieces.next().ok_or_else(|| Stop::flaw(FlawKind::Header, "more data than the map has"))?;
            }
            let n = bytes.len().min(room.min(usize::MAX as u64) as usize);
            file.write_all_at(&bytes[..n], at).map_err(|e| {
                io_error("write a file of a layer", &e).with_hint("more room on the file system of the store")
            })?;
            bytes = &bytes[n..];
            (at, room) = (at + n as u64, room - n as u64);
        }
        Ok(())
    })
}
