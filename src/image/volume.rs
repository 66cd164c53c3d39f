//! Volumes: directories that sandboxes share, or that go with one.
//!
//! ```text
//! STORE/volumes/NAME/data/    what a sandbox sees
//! STORE/volumes/NAME/lock     held (flock(2)) by whoever uses it
//! STORE/volumes/NAME/filling  held by whoever fills it; not empty while that is going on, or was interrupted
//! STORE/volumes/NAME/limit    see [`limit`](super::limit)
//! ```
//! An anonymous volume has a name that begins with a dot, which no name given may.

use super::commit::own_ids;
use super::decode;
use super::extract::extract;
use super::io_error;
use super::limit::{VolumeLimit, noted};
use super::limits::{Devices, Durability, Limits, Policy};
use super::pack::{Packing, pack};
use super::patch::copy_metadata;
use super::size::{Size, measure};
use super::store::{LOCK_SH, Store, flock, is_free, unique};
use super::view::View;
use crate::error::{Error, ErrorKind, Result};
use crate::flaw::{Flaw, FlawKind};
use crate::handle::Lease;
use crate::mount::Mount;
use crate::rootfs::{Base, RootFs};
use crate::sys::kernel::abi::{LOCK_EX, LOCK_NB};
use crate::sys::path::OpenFlags;
use crate::sys::{Errno, tree, xattr};
use nix::sys::stat::{Mode, mkdirat};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io::{BufWriter, ErrorKind as IoErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// A volume in use: it cannot be removed as long as this value, a [`Mount`] of it, a
/// [`Sandbox`](crate::Sandbox) with that mount or one of its children lives.
///
/// ```no_run
/// use belljar::image::Store;
/// use belljar::{RootFs, Sandbox};
///
/// let store = Store::open("/var/lib/bells")?;
/// let root = RootFs::image(&store, "database:1")?;
/// let data = store.volume("accounts")?; // made on first use
/// data.fill(&root, "/var/lib/data")?; // with what the image has there, if the volume is empty
/// let scratch = store.anonymous_volume()?; // gone with the sandbox
/// let sandbox =
///     Sandbox::builder(root).mount(data.mount("/var/lib/data")).mount(scratch.mount("/scratch")).build()?;
/// # Ok::<(), belljar::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Volume {
    store: Store,
    directory: PathBuf,
    name: Option<String>,
    lease: Lease,
}

/// A named volume of a store, by [`Store::volumes`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VolumeInfo {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub size: Size,
    /// Whether somebody uses it just now.
    pub usage: VolumeUsage,
    /// What it may take, where [`Volume::limit`] was said.
    pub limit: Option<VolumeLimit>,
}

/// Whether a volume is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeUsage {
    /// By a sandbox, or a handle in some process.
    InUse,
    /// By nobody.
    Free,
}

fn check_name(name: &str) -> Result<()> {
    let word = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if word && name.len() <= 128 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidSpec, format!("the volume name {name:?} is none"))
        .with_hint("1 to 128 letters, digits and \"._-\", the first a letter or digit"))
}

impl Store {
    /// The volume of this name, made on first use: empty, root's, mode 0755.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSpec`] for a name that none can have; those of making directories.
    pub fn volume(&self, name: &str) -> Result<Volume> {
        check_name(name)?;
        self.use_volume(self.path("volumes").join(name), Some(name.to_owned()))
    }

    /// A volume without a name, for one sandbox (or several): removed when the last that uses it has
    /// ended. If nobody is left to do that, the next that opens the store does.
    ///
    /// # Errors
    /// Those of making directories.
    pub fn anonymous_volume(&self) -> Result<Volume> {
        self.use_volume(self.path("volumes").join(format!(".{}", unique())), None)
    }

    /// What the image's configuration declares as volumes (`VOLUME` of a Dockerfile): an anonymous volume for each path, filled
    /// with what the image has there. To be added to a sandbox ([`SandboxBuilder::mount`](crate::SandboxBuilder::mount)), with
    /// which they go.
    ///
    /// # Errors
    /// As [`RootFs::image`] and [`Volume::fill`]; [`ErrorKind::InvalidImage`] for a path that is none.
    pub fn declared_volumes(&self, name: &str) -> Result<Vec<Mount>> {
        let (image, _lease) = self.hold(name)?;
        let root = RootFs::overlay(self.trees(&image));
        let declared = image.configuration().config().as_ref().and_then(|config| config.volumes().as_ref());
        let paths: BTreeSet<&String> = declared.into_iter().flatten().collect(); // what is around comes first
        let mut made: Vec<(PathBuf, Volume)> = Vec::new();
        for path in paths {
            let names = || Path::new(path).components().skip(1);
            let plain = names().all(|name| matches!(name, Component::Normal(_))) && names().next().is_some();
            if !path.starts_with('/') || path.contains('\0') || !plain {
                let detail = format!("it declares a volume on {path:?}");
                return Err(Error::flawed(Flaw::new(image.name(), None, FlawKind::Document, detail)));
            }
            let path = Path::new("/").join(names().collect::<PathBuf>());
            // one within another is mounted on a directory of that
            let around = made.iter().rev().find_map(|(outer, volume)| Some((path.strip_prefix(outer).ok()?, volume)));
            if let Some((rest, around)) = around {
                make_beneath(&around.path(), rest)?;
            }
            let volume = self.anonymous_volume()?;
            volume.fill(&root, &path)?;
            made.push((path, volume));
        }
        Ok(made.iter().map(|(path, volume)| volume.mount(path)).collect())
    }

    fn use_volume(&self, directory: PathBuf, name: Option<String>) -> Result<Volume> {
        let fail = |e: std::io::Error| io_error(format!("make the volume {}", directory.display()), &e);
        let _held = self.lock_shared()?; // nobody removes it before it is locked
        let make = |path: &Path, mode: u32| match DirBuilder::new().mode(mode).create(path) {
            // whatever the umask
            Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
            Err(e) if e.kind() == IoErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(e),
        };
        make(&directory, 0o700).and_then(|()| make(&directory.join("data"), 0o755)).map_err(fail)?;
        let lock = directory.join("lock");
        let file = File::options().read(true).append(true).create(true).open(&lock).map_err(fail)?;
        flock(&file, LOCK_SH).map_err(|errno| Error::call(format!("lock {}", lock.display()), errno))?;
        let lease = match name {
            Some(_) => Lease::new(file),
            None => Lease::removing(file, lock, directory.clone()),
        };
        Ok(Volume { store: self.clone(), directory, name, lease })
    }

    /// The named volumes, by name.
    ///
    /// # Errors
    /// Those of reading the store.
    pub fn volumes(&self) -> Result<Vec<VolumeInfo>> {
        let directory = self.path("volumes");
        let entries = fs::read_dir(&directory).map_err(|e| io_error(format!("read {}", directory.display()), &e))?;
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if check_name(&name).is_err() {
                continue;
            }
            let usage = if is_free(&entry.path().join("lock")) { VolumeUsage::Free } else { VolumeUsage::InUse };
            let limit = noted(&entry.path().join("limit")).map(|(_, limit)| limit);
            found.push(VolumeInfo { name, size: measure(&entry.path().join("data"))?, usage, limit });
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Removes a volume with all that is in it.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] while it is used; [`ErrorKind::NotFound`].
    pub fn remove_volume(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let directory = self.path("volumes").join(name);
        let fail = |errno| Error::call(format!("remove the volume {name}"), errno);
        let work = self.work()?; // where nobody sweeps what we are removing
        let doomed = work.path().join("volume");
        {
            let _held = self.lock_exclusive()?;
            let lock = File::open(directory.join("lock")).map_err(|e| fail(Errno::of(e)))?;
            flock(&lock, LOCK_EX | LOCK_NB).map_err(|errno| match errno {
                Errno::EAGAIN => {
                    fail(Errno::EBUSY).with_hint("the end of the sandboxes that use it, and of the handles on it")
                }
                errno => fail(errno),
            })?;
            fs::rename(&directory, &doomed).map_err(|e| fail(Errno::of(e)))?;
        }
        fs::remove_dir_all(&doomed).map_err(|e| io_error(format!("remove the volume {name}"), &e))
    }
}

impl Volume {
    /// Its name; `None` for an anonymous one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The directory of the host that it is.
    pub fn path(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The volume on a path of a sandbox, writable unless [`Mount::read_only`]. Root's sandboxes
    /// see and write it under their own ids where the file system can (id-mapped mounts, Linux
    /// 5.12), so that the volume has the ids inside.
    pub fn mount(&self, target: impl Into<PathBuf>) -> Mount {
        let mut mount = Mount::bind(self.path(), target);
        mount.options.lease = Some(self.lease.clone());
        mount
    }

    /// Fills an empty volume with what a root of layers has at a path: content, modes, owners,
    /// times, attributes, links. A volume that is not empty, and a path that is no directory of
    /// the root, are left as they are. Of several that fill at once, one does; who has the volume mounted already
    /// sees it filled; one that was interrupted is gone on with by the next.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSpec`] for a root that has no layers; those of copying: the volume is empty then.
    pub fn fill(&self, root: &RootFs, path: impl AsRef<Path>) -> Result<()> {
        let Base::Layers(layers) = &root.base else {
            return Err(Error::new(ErrorKind::InvalidSpec, "fill a volume from a root without layers")
                .with_hint("RootFs::image, RootFs::dir or RootFs::overlay"));
        };
        let data = self.path();
        let filling = data.with_file_name("filling");
        let fail = |e: std::io::Error| io_error(format!("fill {}", data.display()), &e);
        let marker = File::options().create(true).append(true).open(&filling).map_err(fail)?;
        flock(&marker, LOCK_EX).map_err(|errno| Error::call(format!("lock {}", filling.display()), errno))?;
        if !is_empty(&data)? && marker.metadata().map_err(fail)?.len() == 0 {
            return Ok(());
        }
        let view = View::open(layers.iter().cloned())?;
        let Some(node) = view.find(path.as_ref())?.filter(|node| node.is_dir()) else { return Ok(()) };
        let (uids, gids) = own_ids();
        let packing =
            Packing { uids, gids, except: BTreeSet::new(), latest: None, base: node.path.clone(), whiteouts: false };
        let work = self.store.work()?;
        let tree = work.path().join("tree");
        DirBuilder::new().mode(0o755).create(&tree).map_err(|e| io_error(format!("make {}", tree.display()), &e))?;
        let policy = Policy {
            limits: Limits { bytes: crate::units::Bytes::new(i64::MAX as u64), ..Limits::default() },
            devices: Devices::Skip,
            durability: Durability::Disk,
            ..Policy::default()
        };
        let (reader, writer) = std::io::pipe().map_err(|e| io_error("make a pipe", &e))?;
        let (feed, chunks) = decode::channel();
        std::thread::scope(|scope| {
            let packed = scope.spawn(|| pack(&view, &packing, BufWriter::with_capacity(1 << 16, writer)));
            scope.spawn(|| feed.run(reader, &policy.limits, &mut |_| {}));
            let extracted = extract(chunks, &tree, &work.path().join("skeleton.gz"), &policy, "the volume's filling");
            match packed.join() {
                Ok(Err(error)) if error.raw_os_error() != Some(libc::EPIPE) => Err(error),
                _ => extracted.map(drop),
            }
        })?;
        self.adopt(&tree)?;
        let file = File::open(&tree).map_err(|e| io_error(format!("open {}", tree.display()), &e))?;
        xattr::sync_file_system(file.as_fd()).map_err(|errno| Error::call("write back a volume", errno))?;
        let time = file.metadata().and_then(|meta| meta.modified()).map_err(fail)?;
        // what is in the volume from here on may be a part; the directory stays, for it may be mounted
        marker.set_len(1).and_then(|()| marker.sync_all()).map_err(fail)?;
        for entry in fs::read_dir(&tree).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let to = data.join(entry.file_name());
            if fs::symlink_metadata(&to).is_err() {
                fs::rename(entry.path(), to).map_err(fail)?;
            }
        }
        let directory = File::open(&data).map_err(fail)?;
        copy_metadata(file.as_fd(), &directory)?;
        directory.set_modified(time).map_err(fail)?; // of before it was emptied
        xattr::sync_file_system(file.as_fd()).map_err(|errno| Error::call("write back a volume", errno))?;
        marker.set_len(0).map_err(fail)
    }
}

/// Makes a directory and those around it, through no link that the image has brought along.
fn make_beneath(root: &Path, path: &Path) -> Result<()> {
    let fail = |errno| Error::call(format!("make {} in the volume around it", path.display()), errno);
    let mut at = OwnedFd::from(File::open(root).map_err(|e| io_error(format!("open {}", root.display()), &e))?);
    for name in path.components() {
        let name = CString::new(name.as_os_str().as_bytes()).unwrap_or_default();
        match mkdirat(&at, name.as_c_str(), Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(errno) => return Err(fail(Errno(errno as i32))),
        }
        at = tree::open_beneath(at.as_fd(), &name, OpenFlags::DIRECTORY, true).map_err(fail)?;
    }
    Ok(())
}

fn is_empty(directory: &Path) -> Result<bool> {
    let mut entries = fs::read_dir(directory).map_err(|e| io_error(format!("read {}", directory.display()), &e))?;
    Ok(entries.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_paths() {
        assert!(["a", "A.b-c_d", "0"].iter().all(|name| check_name(name).is_ok()));
        let long = "x".repeat(129);
        let wrong = ["", ".", "..", "../x", "/x", "a/b", "a b", ".hidden", "-x", "a\0", &long];
        assert!(wrong.iter().all(|name| check_name(name).is_err()));
    }
}
