//! Directories that an archive does not describe.
//!
//! Some tools write only what has changed: `d/new` without `d`. The layer's tree then has a `d`
//! of its own making, and overlayfs takes a merged directory's mode, owner and time from its topmost
//! layer. So an image with such layers gets one more on top, of nothing but these
//! directories, as the topmost layer that does describe them has them.
//!
//! `layers/HEX/implicit` lists them, each path ended by a NUL; `patches/CONFIG/` is the layer on top.

use super::digest::Digest;
use super::extract::MAX_IMPLICIT;
use super::io_error;
use super::limits::Durability;
use super::marks;
use super::record::Image;
use super::store::Store;
use super::view::{Node, View};
use crate::error::{Error, Result};
use crate::flaw::{Flaw, FlawKind};
use crate::sys::path::OpenFlags;
use crate::sys::{Errno, tree, xattr};
use nix::sys::stat::{Mode, fchmod, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

impl Store {
    /// The directories that make up an image, lowest first, as overlayfs takes them: each once.
    pub(super) fn trees(&self, image: &Image) -> Vec<PathBuf> {
        let mut trees = Vec::new();
        let patch = self.path("patches").join(image.id().hex());
        if patch.exists() {
            trees.push(patch);
        }
        for layer in image.layers().iter().rev() {
            let tree = self.layer_path(layer).join("tree");
            if !trees.contains(&tree) {
                trees.push(tree);
            }
        }
        trees.reverse();
        trees
    }

    /// Makes the layer on top, if the image needs one.
    pub(super) fn patch(&self, config: Digest, layers: &[Digest], durability: Durability) -> Result<()> {
        let mut room = MAX_IMPLICIT;
        let implicit: Result<Vec<_>> = layers.iter().rev().map(|layer| self.implicit(layer, &mut room)).collect();
        let implicit = implicit?;
        let wanted: BTreeSet<&Vec<u8>> = implicit.iter().flatten().collect();
        let place = self.path("patches").join(config.hex());
        if wanted.is_empty() || place.exists() {
            return Ok(());
        }
        let work = self.work()?;
        let view = View::open(layers.iter().map(|layer| self.layer_path(layer).join("tree")))?;
        // sorted: a directory comes before what is in it
        let mut made = BTreeMap::from([(work.path().to_owned(), view.root()?)]);
        for path in wanted {
            self.directory(&view, path, &implicit, work.path(), &mut made)?;
        }
        for (path, node) in made.iter().rev() {
            describe(&view, node, path)?;
        }
        work.publish(&place, durability).map(drop)
    }

    /// What a layer lists. All layers of an image together list no more than one alone may.
    fn implicit(&self, layer: &Digest, room: &mut usize) -> Result<BTreeSet<Vec<u8>>> {
        let path = self.layer_path(layer).join("implicit");
        let length = fs::metadata(&path).map_or(0, |meta| usize::try_from(meta.len()).unwrap_or(usize::MAX));
        *room = room.checked_sub(length).ok_or_else(|| {
            let detail = "more directories without an entry of their own than can be remembered";
            Error::flawed(Flaw::new(layer, None, FlawKind::TooManyEntries, detail))
        })?;
        match fs::read(&path) {
            Ok(bytes) => Ok(bytes.split(|b| *b == 0).filter(|path| !path.is_empty()).map(<[u8]>::to_vec).collect()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            Err(e) => Err(io_error(format!("read {}", path.display()), &e)),
        }
    }

    fn directory(
        &self,
        view: &View,
        path: &[u8],
        implicit: &[BTreeSet<Vec<u8>>],
        work: &Path,
        made: &mut BTreeMap<PathBuf, Node>,
    ) -> Result<()> {
        // all on the way, or they would be of our making in turn
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i).chain([path.len()]);
        for end in ends {
            let name = Path::new(OsStr::from_bytes(&path[..end]));
            let to = work.join(name);
            if made.contains_key(&to) {
                continue;
            }
            let Some(mut node) = view.find(name)?.filter(Node::is_dir) else { return Ok(()) };
            let told = node.layers.iter().position(|layer| !implicit[*layer].contains(&node.path));
            node.layers.drain(..told.unwrap_or(0));
            DirBuilder::new().mode(0o700).create(&to).map_err(|e| io_error(format!("make {}", to.display()), &e))?;
            made.insert(to, node);
        }
        Ok(())
    }
}

/// Gives a directory what another has.
fn describe(view: &View, node: &Node, path: &Path) -> Result<()> {
    let from = view.open_node(node, OpenFlags::DIRECTORY)?;
    copy_metadata(from.as_fd(), &File::open(path).map_err(|e| io_error(format!("open {}", path.display()), &e))?)
}

/// Gives an open directory the owner, mode, time and attributes of another.
pub(super) fn copy_metadata(from: BorrowedFd<'_>, to: &File) -> Result<()> {
    let stat = nix::sys::stat::fstat(from).map_err(failed)?;
    if nix::unistd::geteuid().is_root() {
        fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid))).map_err(failed)?;
    }
    let fail = |errno| Error::call("copy the attributes of a directory", errno);
    for (name, value) in tree::attributes(from).map_err(fail)? {
        let bytes = name.to_bytes();
        if (bytes.starts_with(b"user.") && !marks::is_reserved(bytes)) || name.as_c_str() == marks::STAT {
            xattr::set(to.as_fd(), &name, &value).map_err(fail)?;
        }
    }
    fchmod(to, Mode::from_bits_truncate(stat.st_mode & 0o7777)).map_err(failed)?;
    let time = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
    futimens(to, &time, &time).map_err(failed)
}

fn failed(errno: nix::Error) -> Error {
    Error::call("copy the metadata of a directory", Errno(errno as i32))
}
