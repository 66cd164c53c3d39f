//! The layers below an upper, merged as overlayfs merges them.

use super::open_error;
use crate::error::Result;
use crate::id::c_path;
use crate::sys::kernel::abi::{S_IFCHR, S_IFDIR, S_IFREG, Statx};
use crate::sys::kernel::call;
use crate::sys::path::{OpenFlags, open_long};
use crate::sys::{Errno, tree};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What is known of the init layer.
pub(super) enum Init {
    Layer(OwnedFd),
    None,
    Unknown,
}

/// The layers, topmost first.
#[derive(Debug)]
pub(super) struct Below {
    sources: Vec<OwnedFd>,
    /// Whether the first source is the init layer; `None` when nobody knows what was in it.
    pub init: Option<bool>,
    pub marks: Marks,
    by_call: bool,
}

/// Which attributes overlayfs keeps its marks in. The others of the same names are the payload's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    userxattr: bool,
}

/// What the layers have at a path.
pub(super) struct Found {
    pub stat: Statx,
    /// The source that it shows from.
    pub source: usize,
    /// If it is a directory: all the sources whose directories are merged here.
    pub parts: Vec<usize>,
}

impl Marks {
    fn name(self, user: &'static CStr, trusted: &'static CStr) -> &'static CStr {
        if self.userxattr { user } else { trusted }
    }

    /// `x` is another mark: of a directory in which a listing looks for whiteouts that are attributes.
    pub fn opaque(self, dir: BorrowedFd<'_>) -> Result<bool, Errno> {
        let name = self.name(c"user.overlay.opaque", c"trusted.overlay.opaque");
        Ok(tree::attribute(dir, name)?.is_some_and(|value| value == b"y"))
    }

    fn whiteout(self, file: BorrowedFd<'_>) -> Result<bool, Errno> {
        let name = self.name(c"user.overlay.whiteout", c"trusted.overlay.whiteout");
        Ok(tree::attribute(file, name)?.is_some())
    }

    /// Whether an attribute is one of overlayfs's own.
    pub fn own(self, name: &CStr) -> bool {
        let prefix: &[u8] = if self.userxattr { b"user.overlay." } else { b"trusted.overlay." };
        name.to_bytes().starts_with(prefix)
    }
}

/// A whiteout as the kernel makes it: a character device 0:0.
pub(super) fn is_whiteout(stat: &Statx) -> bool {
    stat.kind() == S_IFCHR && (stat.rdev_major, stat.rdev_minor) == (0, 0)
}

impl Below {
    pub fn open(init: Init, layers: &[PathBuf], userxattr: bool, by_call: bool) -> Result<Below> {
        let mut below = Below { sources: Vec::new(), init: Some(false), marks: Marks { userxattr }, by_call };
        match init {
            Init::Layer(fd) => {
                below.sources.push(fd);
                below.init = Some(true);
            }
            Init::None => {}
            Init::Unknown => below.init = None,
        }
        for layer in layers.iter().rev() {
            let fd = open_long(&c_path(layer), OpenFlags::PATH | OpenFlags::DIRECTORY);
            below.sources.push(fd.map_err(|errno| open_error("layer", layer, errno))?);
        }
        Ok(below)
    }

    /// Whether what shows from this source is the init layer's.
    pub fn is_init(&self, source: usize) -> bool {
        source == 0 && self.init == Some(true)
    }

    /// The root, in which all layers are merged.
    pub fn root(&self) -> Result<(Option<Statx>, Vec<usize>), Errno> {
        let top = self.sources.first().map(|top| call::fstat(top.as_raw_fd())).transpose()?;
        Ok((top, (0..self.sources.len()).collect()))
    }

    /// Opens an entry of a source.
    pub fn entry(&self, source: usize, path: &CStr, flags: OpenFlags) -> Result<OwnedFd, Errno> {
        let from = self.sources.get(source).ok_or(Errno::ENOENT)?;
        tree::open_beneath(from.as_fd(), path, flags, self.by_call)
    }

    /// What the layers show at a path whose directory is merged from these parts.
    pub fn look_up(&self, path: &CStr, parts: &[usize]) -> Result<Option<Found>, Errno> {
        let mut found: Option<Found> = None;
        for &source in parts {
            let entry = match self.entry(source, path, OpenFlags::PATH) {
                Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
                answer => answer?,
            };
            let stat = call::fstat(entry.as_raw_fd())?;
            if is_whiteout(&stat) || self.is_attribute_whiteout(source, path, &stat)? {
                break;
            }
            let is_directory = stat.kind() == S_IFDIR;
            match &mut found {
                // a file below a directory ends what is merged into it
                Some(_) if !is_directory => break,
                Some(found) => found.parts.push(source),
                None => found = Some(Found { stat, source, parts: vec![source] }),
            }
            if !is_directory || self.marks.opaque(self.entry(source, path, OpenFlags::DIRECTORY)?.as_fd())? {
                break;
            }
        }
        Ok(found)
    }

    /// A whiteout as a layer may have it since Linux 6.7, where no device can be made: an empty file with a mark.
    fn is_attribute_whiteout(&self, source: usize, path: &CStr, stat: &Statx) -> Result<bool, Errno> {
        if stat.kind() != S_IFREG || stat.size != 0 {
            return Ok(false);
        }
        match self.entry(source, path, OpenFlags::empty()) {
            Err(Errno::EACCES) => Ok(false), // a file of the layer that the caller may not read
            file => self.marks.whiteout(file?.as_fd()),
        }
    }
}

/// A path as the walk has it: relative, `.` for the root.
pub(super) fn shown(path: &CStr) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let relative = Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
    if path == c"." { PathBuf::from("/") } else { Path::new("/").join(relative) }
}
