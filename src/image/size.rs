//! How much images take.

use super::digest::Digest;
use super::io_error;
use super::store::Store;
use crate::error::Result;
use crate::units::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A size, in the two ways in which it is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// What files hold, each counted once however many names it has; holes count.
    pub bytes: Bytes,
    /// What the disk gives for it, as du(1) counts: allocated blocks, directories too.
    pub blocks: Bytes,
}

impl Default for Size {
    fn default() -> Size {
        Size { bytes: Bytes::new(0), blocks: Bytes::new(0) }
    }
}

/// The sizes of an image, by [`Store::sizes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sizes {
    /// Of the layers that no other image of the store has: what its removal gives back.
    pub own: Size,
    /// Of the layers that others have too.
    pub shared: Size,
    /// Of all its layers: own and shared. Not to be added up over images.
    pub r#virtual: Size,
}

impl std::ops::AddAssign for Size {
    fn add_assign(&mut self, other: Size) {
        self.bytes += other.bytes;
        self.blocks += other.blocks;
    }
}

impl Store {
    /// How much an image takes.
    ///
    /// # Errors
    /// As [`image`](Store::image), and those of walking the layers.
    pub fn sizes(&self, name: &str) -> Result<Sizes> {
        let image = self.image(name)?;
        let mut users: BTreeMap<Digest, BTreeSet<Digest>> = BTreeMap::new();
        for other in self.images()? {
            for layer in other.layers() {
                users.entry(*layer).or_default().insert(other.id());
            }
        }
        let mut sizes = Sizes::default();
        for layer in image.layers().iter().collect::<BTreeSet<_>>() {
            let size = measure(&self.layer_path(layer).join("tree"))?;
            sizes.r#virtual += size;
            match users.get(layer).is_some_and(|users| users.len() > 1) {
                true => sizes.shared += size,
                false => sizes.own += size,
            }
        }
        Ok(sizes)
    }
}

/// The size of a tree; nothing in it is followed.
pub(super) fn measure(tree: &Path) -> Result<Size> {
    let fail = |path: &Path, e: &std::io::Error| io_error(format!("measure {}", path.display()), e);
    let mut size = Size::default();
    let mut linked = BTreeSet::new();
    let mut directories = vec![tree.to_owned()];
    while let Some(directory) = directories.pop() {
        let own = fs::symlink_metadata(&directory).map_err(|e| fail(&directory, &e))?;
        size.blocks += Bytes::new(own.blocks() * 512);
        for entry in fs::read_dir(&directory).map_err(|e| fail(&directory, &e))? {
            let entry = entry.map_err(|e| fail(&directory, &e))?;
            let meta = entry.metadata().map_err(|e| fail(&entry.path(), &e))?;
            if meta.is_dir() {
                directories.push(entry.path());
            } else if meta.nlink() == 1 || linked.insert((meta.dev(), meta.ino())) {
                size.bytes += Bytes::new(if meta.is_file() { meta.len() } else { 0 });
                size.blocks += Bytes::new(meta.blocks() * 512);
            }
        }
    }
    Ok(size)
}
