//! How two images differ, as what they show.

use super::store::Store;
use super::view::{Node, View};
use crate::error::{Error, Result};
use crate::sys::path::OpenFlags;
use crate::sys::tree;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// One path at which two images differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where, from the root on: absolute.
    pub path: PathBuf,
    /// How.
    pub kind: DifferenceKind,
}

/// How two images differ at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DifferenceKind {
    /// Only the second has it; what is in a directory follows.
    Added,
    /// Only the first has it. A directory is one difference, whatever is in it.
    Removed,
    /// Both have it, with another content, target, device, or as another kind of file.
    Modified,
    /// Content and kind are the same; mode, owner, attributes or, unless it is a directory, the time are not.
    MetadataChanged,
}

impl fmt::Display for Difference {
    /// `A /path`, `D`, `C` as `docker diff` writes them, and `M` for metadata.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.kind {
            DifferenceKind::Added => 'A',
            DifferenceKind::Removed => 'D',
            DifferenceKind::Modified => 'C',
            DifferenceKind::MetadataChanged => 'M',
        };
        write!(f, "{letter} {}", self.path.display())
    }
}

impl Store {
    /// What turns one image into another, by path. Layers that both have are not read where
    /// nothing else shows.
    ///
    /// # Errors
    /// As [`image`](Store::image), and those of reading the layers.
    pub fn diff(&self, from: &str, to: &str) -> Result<Vec<Difference>> {
        let open = |name: &str| -> Result<(Side, crate::handle::Lease)> {
            let (image, lease) = self.hold(name)?;
            let trees = self.trees(&image);
            let view = View::open(trees.iter().cloned())?;
            Ok((Side { view, trees: trees.into_iter().rev().collect() }, lease))
        };
        let ((from, _from_lease), (to, _to_lease)) = (open(from)?, open(to)?);
        let mut differences = Vec::new();
        let (a, b) = (from.view.root()?, to.view.root()?);
        if metadata(&from, &a, &to, &b)? {
            differences.push(difference(&b, DifferenceKind::MetadataChanged));
        }
        directories(&from, &a, &to, &b, &mut differences)?;
        Ok(differences)
    }
}

/// One of the two.
struct Side {
    view: View,
    /// As the view numbers them.
    trees: Vec<PathBuf>,
}

impl Side {
    fn sources(&self, node: &Node) -> Vec<&Path> {
        node.layers.iter().map(|layer| self.trees[*layer].as_path()).collect()
    }
}

fn difference(node: &Node, kind: DifferenceKind) -> Difference {
    Difference { path: Path::new("/").join(OsStr::from_bytes(&node.path)), kind }
}

fn directories(a: &Side, left: &Node, b: &Side, right: &Node, found: &mut Vec<Difference>) -> Result<()> {
    if a.sources(left) == b.sources(right) {
        return Ok(()); // the same directories of the same layers
    }
    let (left, right) = (a.view.list(left)?, b.view.list(right)?);
    let (mut left, mut right) = (left.into_iter().filter(shows).peekable(), right.into_iter().filter(shows).peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return Ok(()),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(l), Some(r)) => l.path.cmp(&r.path),
        };
        match order {
            std::cmp::Ordering::Less => {
                found.extend(left.next().map(|node| difference(&node, DifferenceKind::Removed)));
            }
            std::cmp::Ordering::Greater => {
                if let Some(node) = right.next() {
                    added(b, &node, found)?;
                }
            }
            std::cmp::Ordering::Equal => {
                if let (Some(l), Some(r)) = (left.next(), right.next()) {
                    entries(a, &l, b, &r, found)?;
                }
            }
        }
    }
}

/// A whiteout in the lowest layer hides nothing, and overlayfs does not show it.
fn shows(node: &Node) -> bool {
    !node.is_whiteout()
}

fn added(side: &Side, node: &Node, found: &mut Vec<Difference>) -> Result<()> {
    found.push(difference(node, DifferenceKind::Added));
    if node.is_dir() {
        for child in side.view.list(node)?.iter().filter(|node| shows(node)) {
            added(side, child, found)?;
        }
    }
    Ok(())
}

fn entries(a: &Side, left: &Node, b: &Side, right: &Node, found: &mut Vec<Difference>) -> Result<()> {
    if left.is_dir() && right.is_dir() {
        if metadata(a, left, b, right)? {
            found.push(difference(right, DifferenceKind::MetadataChanged));
        }
        return directories(a, left, b, right, found);
    }
    let same_file = a.sources(left).first() == b.sources(right).first();
    if same_file {
        return Ok(());
    }
    if !same_content(a, left, b, right)? {
        found.push(difference(right, DifferenceKind::Modified));
        if right.is_dir() {
            for child in b.view.list(right)?.iter().filter(|node| shows(node)) {
                added(b, child, found)?;
            }
        }
    } else if metadata(a, left, b, right)? {
        found.push(difference(right, DifferenceKind::MetadataChanged));
    }
    Ok(())
}

fn same_content(a: &Side, left: &Node, b: &Side, right: &Node) -> Result<bool> {
    if left.kind() != right.kind() {
        return Ok(false);
    }
    Ok(match left.kind() {
        libc::S_IFREG => left.stat.st_size == right.stat.st_size && same_bytes(a, left, b, right)?,
        libc::S_IFLNK => a.view.link(left)? == b.view.link(right)?,
        libc::S_IFCHR | libc::S_IFBLK => left.stat.st_rdev == right.stat.st_rdev,
        _ => true,
    })
}

fn same_bytes(a: &Side, left: &Node, b: &Side, right: &Node) -> Result<bool> {
    let open = |side: &Side, node: &Node| side.view.open_node(node, OpenFlags::default()).map(File::from);
    let (mut left_file, mut right_file) = (open(a, left)?, open(b, right)?);
    let (mut one, mut other) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let read = |file: &mut File, buffer: &mut [u8]| {
            file.read(buffer).map_err(|e| super::io_error(format!("read {}", left.path.escape_ascii()), &e))
        };
        let n = read(&mut left_file, &mut one)?;
        if n == 0 {
            return Ok(true);
        }
        let mut have = 0;
        while have < n {
            match read(&mut right_file, &mut other[have..n])? {
                0 => return Ok(false),
                more => have += more,
            }
        }
        if one[..n] != other[..n] {
            return Ok(false);
        }
    }
}

/// Whether the metadata differ.
fn metadata(a: &Side, left: &Node, b: &Side, right: &Node) -> Result<bool> {
    let (l, r) = (&left.stat, &right.stat);
    if (l.st_mode, l.st_uid, l.st_gid) != (r.st_mode, r.st_uid, r.st_gid) {
        return Ok(true);
    }
    if !left.is_dir() && (l.st_mtime, l.st_mtime_nsec) != (r.st_mtime, r.st_mtime_nsec) {
        return Ok(true);
    }
    if !matches!(left.kind(), libc::S_IFREG | libc::S_IFDIR) {
        return Ok(false);
    }
    let attributes = |side: &Side, node: &Node| -> Result<Vec<_>> {
        let flags = if node.is_dir() { OpenFlags::DIRECTORY } else { OpenFlags::default() };
        let fd = side.view.open_node(node, flags)?;
        let fail = |errno| Error::call(format!("read the attributes of {}", node.path.escape_ascii()), errno);
        let all = tree::attributes(fd.as_fd()).map_err(fail)?;
        Ok(all.into_iter().filter(|(name, _)| !name.to_bytes().windows(9).any(|part| part == b".overlay.")).collect())
    };
    Ok(attributes(a, left)? != attributes(b, right)?)
}
