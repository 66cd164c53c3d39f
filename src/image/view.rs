//! Layers seen as one, as overlayfs would show them.

use super::io_error;
use super::marks;
use crate::error::{Error, Result};
use crate::sys::path::OpenFlags;
use crate::sys::{Errno, tree};
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, fstatat};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// A stack of trees.
pub(super) struct View {
    /// Topmost first.
    layers: Vec<OwnedFd>,
    privileged: bool,
}

/// An entry that shows.
pub(super) struct Node {
    /// Relative to the root, which has an empty one.
    pub path: Vec<u8>,
    pub stat: FileStat,
    /// The layers that have it, topmost first: several only for a merged directory.
    pub layers: Vec<usize>,
}

impl Node {
    pub fn kind(&self) -> u32 {
        self.stat.st_mode & libc::S_IFMT
    }

    pub fn is_dir(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }

    pub fn name(&self) -> &[u8] {
        self.path.rsplit(|b| *b == b'/').next().unwrap_or_default()
    }

    pub fn is_whiteout(&self) -> bool {
        self.kind() == libc::S_IFCHR && self.stat.st_rdev == 0
    }
}

impl View {
    /// Of directories, lowest first.
    pub fn open(layers: impl IntoIterator<Item = PathBuf>) -> Result<View> {
        let open = |path: PathBuf| {
            File::open(&path).map(OwnedFd::from).map_err(|e| io_error(format!("open the layer {}", path.display()), &e))
        };
        let layers: Result<Vec<OwnedFd>> = layers.into_iter().map(open).collect();
        Ok(View::of(layers?))
    }

    /// Of open directories, lowest first.
    pub fn of(mut layers: Vec<OwnedFd>) -> View {
        layers.reverse();
        View { layers, privileged: nix::unistd::geteuid().is_root() }
    }

    pub fn root(&self) -> Result<Node> {
        let top = self.layers.first().ok_or_else(|| Error::call("look at no layers", Errno::EINVAL))?;
        let stat = fstatat(top, c".", AtFlags::empty()).map_err(|e| failed(b".", e))?;
        let mut layers = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            layers.push(i);
            if marks::is_opaque(layer.as_fd(), self.privileged) {
                break;
            }
        }
        Ok(Node { path: Vec::new(), stat, layers })
    }

    /// Opens an entry as the topmost layer that has it shows it; nothing is followed.
    pub fn open_node(&self, node: &Node, flags: OpenFlags) -> Result<OwnedFd> {
        let layer = node.layers.first().copied().unwrap_or(0);
        self.open_in(layer, &node.path, flags)
    }

    fn open_in(&self, layer: usize, path: &[u8], flags: OpenFlags) -> Result<OwnedFd> {
        let name = if path.is_empty() { CString::from(c".") } else { CString::new(path).unwrap_or_default() };
        let layer = &self.layers[layer];
        tree::open_beneath(layer.as_fd(), &name, flags, true)
            .map_err(|errno| Error::call(format!("open {} of a layer", path.escape_ascii()), errno))
    }

    /// The target of a symbolic link.
    pub fn link(&self, node: &Node) -> Result<Vec<u8>> {
        let fd = self.open_node(node, OpenFlags::PATH)?;
        tree::link_target(fd.as_fd())
            .map(CString::into_bytes)
            .map_err(|errno| Error::call(format!("read the link {}", node.path.escape_ascii()), errno))
    }

    pub fn is_opaque(&self, node: &Node) -> Result<bool> {
        let fd = self.open_node(node, OpenFlags::DIRECTORY)?;
        Ok(marks::is_opaque(fd.as_fd(), self.privileged))
    }

    /// What a directory shows, by name; with one layer only, whiteouts too.
    pub fn list(&self, directory: &Node) -> Result<Vec<Node>> {
        let mut found: BTreeMap<Vec<u8>, Found> = BTreeMap::new();
        for &layer in &directory.layers {
            let fd = self.open_in(layer, &directory.path, OpenFlags::DIRECTORY)?;
            let names = tree::names(fd.as_fd())
                .map_err(|errno| Error::call(format!("read {} of a layer", directory.path.escape_ascii()), errno))?;
            for name in names {
                let name = name.into_vec();
                let entry = found.entry(name.clone()).or_default();
                self.merge(entry, directory, layer, fd.as_fd(), &name)?;
            }
        }
        Ok(found.into_values().filter_map(|found| found.node).collect())
    }

    /// One entry of what a directory shows.
    fn entry(&self, directory: &Node, name: &[u8]) -> Result<Option<Node>> {
        let mut found = Found::default();
        for &layer in &directory.layers {
            let fd = self.open_in(layer, &directory.path, OpenFlags::DIRECTORY)?;
            self.merge(&mut found, directory, layer, fd.as_fd(), name)?;
        }
        Ok(found.node)
    }

    /// Adds what the next lower layer has of an entry.
    fn merge(&self, entry: &mut Found, directory: &Node, layer: usize, fd: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        if entry.closed {
            return Ok(());
        }
        let c_name = CString::new(name).unwrap_or_default();
        let stat = match fstatat(fd, c_name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(nix::Error::ENOENT) => return Ok(()), // not in this layer, or removed meanwhile
            answer => answer.map_err(|e| failed(name, e))?,
        };
        let is_dir = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let whiteout = stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == 0;
        match &mut entry.node {
            None if whiteout && self.layers.len() > 1 => entry.closed = true,
            None => {
                let mut path = directory.path.clone();
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
                entry.node = Some(Node { path, stat, layers: vec![layer] });
                entry.closed = !is_dir || self.opaque_in(layer, directory, name)?;
            }
            Some(node) if is_dir => {
                node.layers.push(layer);
                entry.closed = self.opaque_in(layer, directory, name)?;
            }
            Some(_) => entry.closed = true,
        }
        Ok(())
    }

    fn opaque_in(&self, layer: usize, directory: &Node, name: &[u8]) -> Result<bool> {
        let path = match directory.path.as_slice() {
            b"" => name.to_vec(),
            path => [path, b"/", name].concat(),
        };
        let fd = self.open_in(layer, &path, OpenFlags::DIRECTORY)?;
        Ok(marks::is_opaque(fd.as_fd(), self.privileged))
    }

    /// The entry at a path, through no link; `None` if there is none.
    pub fn find(&self, path: &std::path::Path) -> Result<Option<Node>> {
        let mut at = self.root()?;
        for name in path.components() {
            let std::path::Component::Normal(name) = name else { continue };
            if !at.is_dir() {
                return Ok(None);
            }
            match self.entry(&at, name.as_bytes())? {
                Some(node) => at = node,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }
}

#[derive(Default)]
struct Found {
    node: Option<Node>,
    /// Whether lower layers do not show through any more.
    closed: bool,
}

fn failed(name: &[u8], errno: nix::Error) -> Error {
    Error::call(format!("look at {} of a layer", name.escape_ascii()), Errno(errno as i32))
}
