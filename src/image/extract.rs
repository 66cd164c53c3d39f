//! Unpacking a layer into the form that overlayfs reads.
//!
//! Everything is made by name in a directory that was opened from the tree's root without
//! following a link (openat2(2), `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`), with `O_EXCL`:
//! an entry can neither leave the tree nor write through what an earlier entry has made.
//! Directories get their modes and times last, when nothing is put into them any more.
//!
//! **Owners.** Root gives files to the ids of the archive. An ordinary user cannot: its files
//! stay its own (which is root inside its sandboxes), with the owner's read bit on files and
//! `rwx` on directories, and what they should be is kept in the attribute `user.belljar.stat`
//! (`UID GID MODE`, the mode in octal), which overlayfs copies up with the file, so that a
//! commit gives the owner back.

use super::archive::{Archive, Entry, Kind, clean};
use super::decode::{Chunks, Ends};
use super::io_error;
use super::limits::{Deadline, Devices, FileCapabilities, LeftOut, Policy, Stop};
use super::marks::{self, STAT};
use super::skeleton;
use crate::error::{Error, Result};
use crate::flaw::FlawKind;
use crate::sys::path::{FileKind, OpenFlags, stat};
use crate::sys::{Errno, tree, xattr};
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags};
use nix::sys::stat::{fchmod, fchmodat, fstatat, futimens, makedev, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, LinkatFlags, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What is remembered of directories until the end: paths of so many bytes in all.
const MAX_DIRECTORY_BYTES: usize = 24 << 20;

/// What unpacking a layer gives.
#[derive(Clone, Debug)]
pub(super) struct Unpacked {
    pub ends: Ends,
    /// Directories that the archive does not describe.
    pub implicit: BTreeSet<Vec<u8>>,
    pub entries: u64,
    pub left_out: LeftOut,
}

/// Unpacks an archive into the empty directory `tree`, and writes its skeleton.
pub(super) fn extract(chunks: Chunks, tree: &Path, skeleton: &Path, policy: &Policy, layer: &str) -> Result<Unpacked> {
    let root = File::open(tree).map_err(|e| io_error(format!("open {}", tree.display()), &e))?;
    let mut archive = Archive::new(chunks, Some(skeleton::Writer::create(skeleton)?));
    let mut extractor = Extractor {
        root: root.into(),
        policy,
        deadline: Deadline::new(&policy.limits),
        privileged: nix::unistd::geteuid().is_root(),
        open: Vec::new(),
        // the root, unless the archive describes it
        directories: vec![(Vec::new(), 0o755, (0, 0))],
        directory_bytes: 0,
        implicit: BTreeSet::new(),
        bytes: 0,
        entries: 0,
        left_out: LeftOut::default(),
    };
    match extractor.run(&mut archive) {
        Ok(ends) => {
            let Extractor { entries, left_out, implicit, .. } = extractor;
            Ok(Unpacked { ends, implicit, entries, left_out })
        }
        Err(stop) => Err(stop.of(layer, archive.path.as_deref())),
    }
}

struct Extractor<'a> {
    root: OwnedFd,
    policy: &'a Policy,
    deadline: Deadline,
    privileged: bool,
    /// Directories that are open: each beneath the one before.
    open: Vec<(Vec<u8>, OwnedFd)>,
    /// What directories are to become.
    directories: Vec<(Vec<u8>, u32, (i64, u32))>,
    directory_bytes: usize,
    /// Those that the archive has not described yet.
    implicit: BTreeSet<Vec<u8>>,
    bytes: u64,
    entries: u64,
    left_out: LeftOut,
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

fn cstring(name: &[u8]) -> Result<CString, Stop> {
    CString::new(name).map_err(|_| Stop::flaw(FlawKind::Path, "a path that contains a NUL"))
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

impl Extractor<'_> {
    fn run(&mut self, archive: &mut Archive<Chunks>) -> Result<Ends, Stop> {
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
        self.finish_directories()?;
        if let Some(skeleton) = archive.skeleton.take() {
            skeleton.finish()?;
        }
        archive.ends().ok_or_else(|| Stop::flaw(FlawKind::Truncated, "the archive has no end"))
    }

    fn entry(&mut self, entry: Entry, archive: &mut Archive<Chunks>) -> Result<(), Stop> {
        let path = clean(&entry.path, self.policy.limits.depth)?;
        if path.is_empty() {
            return match entry.kind {
                Kind::Directory => self.root_directory(&entry),
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
                if entry.link.is_empty() || entry.link.contains(&0) {
                    return Err(Stop::flaw(FlawKind::Path, "a symbolic link without a target, or with a NUL in it"));
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

    /// The tree's own root: an entry `./`.
    fn root_directory(&mut self, entry: &Entry) -> Result<(), Stop> {
        let root = self.root.try_clone().map_err(|e| io_error("copy a descriptor", &e))?;
        self.own(root.as_fd(), entry, 0o700)?;
        self.remember(Vec::new(), entry)
    }

    fn directory(&mut self, entry: &Entry, path: &[u8]) -> Result<(), Stop> {
        let (parent, name) = split(path);
        let name = cstring(name)?;
        let parent = self.parent(parent)?;
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
            nix::Error::ELOOP | nix::Error::ENOTDIR => duplicate(),
            errno => failed("open a directory of a layer")(errno),
        })?;
        if opaque {
            marks::set_opaque(fd.as_fd(), self.privileged)?;
        }
        self.own(fd.as_fd(), entry, 0o700)?;
        self.close_from(path);
        self.open.push((path.to_vec(), fd));
        self.remember(path.to_vec(), entry)
    }

    fn remember(&mut self, path: Vec<u8>, entry: &Entry) -> Result<(), Stop> {
        self.directory_bytes += path.len() + 56;
        if self.directory_bytes > MAX_DIRECTORY_BYTES {
            return Err(Stop::flaw(FlawKind::TooManyEntries, "more directories than can be remembered"));
        }
        self.implicit.remove(&path);
        self.directories.push((path, entry.mode, entry.mtime));
        Ok(())
    }

    /// Later entries of a directory's own win, as they come later.
    fn finish_directories(&mut self) -> Result<(), Stop> {
        for (path, mode, mtime) in std::mem::take(&mut self.directories) {
            let mode = if self.privileged { mode } else { mode | 0o700 };
            let fd;
            let directory = if path.is_empty() {
                self.root.as_fd()
            } else {
                fd = open_beneath(self.root.as_fd(), &path).map_err(|errno| parent_flaw(errno, &path))?;
                fd.as_fd()
            };
            fchmod(directory, Mode::from_bits_truncate(mode)).map_err(failed("set the mode of a directory"))?;
            let time = TimeSpec::new(mtime.0, mtime.1.into());
            futimens(directory, &time, &time).map_err(failed("set the time of a directory"))?;
        }
        Ok(())
    }

    fn file(&mut self, entry: &Entry, path: &[u8], archive: &mut Archive<Chunks>) -> Result<(), Stop> {
        self.bytes = self.bytes.saturating_add(entry.size);
        if self.bytes > self.policy.limits.bytes.get() {
            return Err(Stop::flaw(FlawKind::TooLarge, format!("more than {}", self.policy.limits.bytes)));
        }
        let (parent, name) = split(path);
        let c_name = cstring(name)?;
        let parent = self.parent(parent)?;
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
        self.own(file.as_fd(), entry, 0o400)?;
        fchmod(&file, Mode::from_bits_truncate(self.mode(entry, 0o400))).map_err(failed("set the mode of a file"))?;
        // behind chown(2), which clears it
        self.attributes(file.as_fd(), entry, true)?;
        let time = TimeSpec::new(entry.mtime.0, entry.mtime.1.into());
        futimens(&file, &time, &time).map_err(failed("set the time of a file"))
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
            b"" => self.root.try_clone().map_err(|e| io_error("copy a descriptor", &e))?,
            parent => open_beneath(self.root.as_fd(), parent).map_err(|errno| match errno {
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

    /// Whether the device was made.
    fn device(&mut self, entry: &Entry, path: &[u8], name: &CString) -> Result<bool, Stop> {
        let (kind, what) = match entry.kind {
            Kind::Character => (SFlag::S_IFCHR, "character"),
            _ => (SFlag::S_IFBLK, "block"),
        };
        let (major, minor) = entry.device;
        if entry.kind == Kind::Character && (major, minor) == (0, 0) {
            return Err(Stop::flaw(FlawKind::Device, "a character device 0:0, which overlayfs takes for a whiteout"));
        }
        match self.policy.devices {
            Devices::Refuse => {
                Err(Stop::flaw(FlawKind::Device, format!("a {what} device {major}:{minor}, where devices are refused")))
            }
            Devices::Skip => {
                self.left_out.devices += 1;
                Ok(false)
            }
            Devices::Create => {
                let device = makedev(major.into(), minor.into());
                self.make(path, "make a device of a layer", |parent| {
                    mknodat(parent, name.as_c_str(), kind, Mode::S_IRUSR | Mode::S_IWUSR, device)
                })?;
                Ok(true)
            }
        }
    }

    /// A whiteout of the archive as overlayfs wants it.
    fn whiteout(&mut self, entry: &Entry, parent: &[u8], hidden: &[u8]) -> Result<(), Stop> {
        if entry.size != 0 {
            return Err(Stop::flaw(FlawKind::Whiteout, "a whiteout with content"));
        }
        if hidden == marks::OPAQUE_SUFFIX {
            let privileged = self.privileged;
            let parent = self.parent(parent)?;
            marks::set_opaque(parent, privileged)?;
            // hidden by the mark already; the kernel would list them where nothing is merged
            return marks::remove_whiteouts(parent).map_err(failed("remove the whiteouts of an opaque directory"));
        }
        if hidden.is_empty() || hidden == b"." || hidden == b".." || hidden.starts_with(marks::PREFIX) {
            return Err(Stop::flaw(FlawKind::Whiteout, "a whiteout that names no entry of its directory"));
        }
        let name = cstring(hidden)?;
        let privileged = self.privileged;
        let parent = self.parent(parent)?;
        if marks::is_opaque(parent, privileged) {
            return Ok(());
        }
        match marks::make_whiteout(parent, &name) {
            Ok(()) => {
                // so that the tree depends on its archive only
                let time = TimeSpec::new(entry.mtime.0, entry.mtime.1.into());
                utimensat(parent, name.as_c_str(), &time, &time, UtimensatFlags::NoFollowSymlink)
                    .map_err(failed("set the time of a whiteout"))
            }
            // whiteouts are about lower layers only: what this one has stays, unmerged
            Err(nix::Error::EEXIST) => match open_directory(parent, &name) {
                Ok(directory) => marks::set_opaque(directory.as_fd(), privileged),
                Err(_) => Ok(()),
            },
            Err(e) => Err(failed("make a whiteout: in a user namespace it takes Linux 5.8")(e)),
        }
    }

    /// Makes something that is not there yet.
    fn make(
        &mut self,
        path: &[u8],
        what: &'static str,
        call: impl Fn(BorrowedFd<'_>) -> nix::Result<()>,
    ) -> Result<(), Stop> {
        let (parent, name) = split(path);
        let parent = self.parent(parent)?;
        match call(parent) {
            Err(nix::Error::EEXIST) => {
                replace_whiteout(parent, &cstring(name)?)?;
                call(parent).map_err(failed(what))
            }
            answer => answer.map_err(failed(what)),
        }
    }

    /// The directory at a path of the tree, made with its parents if missing.
    fn parent(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, Stop> {
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
                Err(Errno::ENOENT | Errno::ENOTDIR) => make_directories(from, rest, path, self.privileged)?,
                answer => (answer.map_err(|errno| parent_flaw(errno, path))?, Vec::new()),
            };
            // Parents that the archive does not describe are root's, mode 0755, of the epoch:
            // the tree is to depend on nothing else.
            self.directory_bytes += made.iter().map(|path| path.len() + 56).sum::<usize>();
            self.implicit.extend(made.iter().cloned());
            self.directories.extend(made.into_iter().map(|path| (path, 0o755, (0, 0))));
            self.open.push((path.to_vec(), fd));
        }
        match self.open.last() {
            Some((_, fd)) => Ok(fd.as_fd()),
            None => Ok(self.root.as_fd()),
        }
    }

    /// Closes the directories that do not lie on the way to a path.
    fn close_from(&mut self, path: &[u8]) {
        let on_the_way = |open: &[u8]| path.strip_prefix(open).is_some_and(|r| r.is_empty() || r[0] == b'/');
        while self.open.last().is_some_and(|(open, _)| !on_the_way(open)) {
            self.open.pop();
        }
    }

    fn mode(&self, entry: &Entry, own: u32) -> u32 {
        if self.privileged { entry.mode } else { entry.mode | own }
    }

    /// Owner and, for directories, attributes. `own`: the bits that an ordinary user needs.
    fn own(&mut self, file: BorrowedFd<'_>, entry: &Entry, own: u32) -> Result<(), Stop> {
        if self.privileged {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            fchown(file, Some(uid), Some(gid)).map_err(failed("set the owner of an entry"))?;
        } else if (entry.uid, entry.gid) != (0, 0) || entry.mode | own != entry.mode {
            self.left_out.owners += 1;
            let text = format!("{} {} {:o}", entry.uid, entry.gid, entry.mode);
            match xattr::set(file, STAT, text.as_bytes()) {
                Ok(()) | Err(Errno::EOPNOTSUPP) => {} // the skeleton has it all the same
                Err(errno) => return Err(Stop::Error(Error::call("keep the owner of an entry", errno))),
            }
        }
        if entry.kind == Kind::Directory { self.attributes(file, entry, false) } else { Ok(()) }
    }

    fn own_by_name(&mut self, entry: &Entry, path: &[u8], name: &CString) -> Result<(), Stop> {
        let privileged = self.privileged;
        self.left_out.attributes += entry.xattrs.len() as u64;
        if !privileged && (entry.uid, entry.gid) != (0, 0) {
            self.left_out.owners += 1;
        }
        let parent = self.parent(split(path).0)?;
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
        let time = TimeSpec::new(entry.mtime.0, entry.mtime.1.into());
        utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)
            .map_err(failed("set the time of an entry"))
    }

    fn attributes(&mut self, file: BorrowedFd<'_>, entry: &Entry, regular: bool) -> Result<(), Stop> {
        for (name, value) in &entry.xattrs {
            let shown = name.escape_ascii();
            if marks::is_reserved(name) {
                return Err(Stop::flaw(FlawKind::Attribute, format!("the attribute {shown}, which is reserved")));
            }
            let capability = name == b"security.capability";
            let kept = name.starts_with(b"user.")
                || name.starts_with(b"system.posix_acl_")
                || (capability && regular && self.policy.capabilities == FileCapabilities::Keep);
            let c_name = CString::new(name.as_slice());
            let set = match (kept, &c_name) {
                (true, Ok(c_name)) => xattr::set(file, c_name, value),
                (_, Err(_)) => return Err(Stop::flaw(FlawKind::Attribute, format!("the attribute {shown}"))),
                (false, _) => Err(Errno::EOPNOTSUPP),
            };
            match set {
                Ok(()) => {}
                Err(Errno::EOPNOTSUPP) => self.left_out.attributes += 1,
                Err(Errno::EPERM) if capability => self.left_out.attributes += 1,
                Err(errno) => {
                    let what = format!("set the attribute {shown} of {}", entry.path.escape_ascii());
                    return Err(Stop::Error(Error::call(what, errno)));
                }
            }
        }
        Ok(())
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

fn parent_flaw(errno: Errno, path: &[u8]) -> Stop {
    let path = path.escape_ascii();
    match errno {
        Errno::ELOOP => Stop::flaw(FlawKind::Parent, format!("a directory on the way, \"{path}\", is a symbolic link")),
        Errno::ENOTDIR => Stop::flaw(FlawKind::Parent, format!("something on the way, \"{path}\", is no directory")),
        errno => Stop::Error(Error::call(format!("open the directory {path} of a layer"), errno)),
    }
}

fn open_directory(parent: BorrowedFd<'_>, name: &CString) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, name.as_c_str(), flags, Mode::empty())
}

/// Opens a directory beneath another, through no link.
fn open_beneath(from: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
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
fn make_directories(
    from: BorrowedFd<'_>,
    rest: &[u8],
    path: &[u8],
    privileged: bool,
) -> Result<(OwnedFd, Vec<Vec<u8>>), Stop> {
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
