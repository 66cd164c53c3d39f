//! The store's directory, and how many processes use it at once.
//!
//! ```text
//! STORE/version              "belljar image store 1"
//! STORE/lock                 flock(2): shared while something is entered or taken hold of, exclusive for gc
//! STORE/layers/HEX/          a layer, by the sha256 of its archive (its diff-id)
//!     tree/                  what overlayfs reads
//!     skeleton.gz            the archive without the content of files
//!     layer.json             sizes and counts
//! STORE/configs/HEX          image configurations, as they came
//! STORE/images/NAME          a name and what it stands for
//! STORE/leases/HEX           layers in use by whoever holds a flock on this file
//! STORE/locks/HEX            held while this layer is being unpacked
//! STORE/tmp/                 work under way, each directory locked by its process
//! STORE/patches/HEX/         on top of an image whose archives do not describe all directories
//! STORE/volumes/NAME/        see `Volume`
//! ```
//!
//! Everything gets its place by one rename(2) of something complete, so that whoever looks sees
//! all of it or nothing. What a killed process leaves is below `tmp`, unlocked, and swept by
//! the next that opens the store.

use super::digest::Digest;
use super::io_error;
use super::limits::Durability;
use crate::error::{Error, ErrorKind, Result};
use crate::handle::Lease;
use crate::sys::kernel::abi::{LOCK_EX, LOCK_NB};
use crate::sys::kernel::call;
use crate::sys::{Errno, xattr};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind as IoErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const VERSION: &str = "belljar image store 1\n";
pub(super) const LOCK_SH: u32 = 1;

/// A directory of layers, images and volumes, safe for any number of processes and threads at once.
///
/// The directory is made with mode 0700 and belongs to one user: layers hold set-uid programs
/// and, if asked for, device nodes. Root's layers have the owners of their archives; those of
/// an ordinary user are all its own, which is root inside its sandboxes, and what the owner
/// should be is kept in an attribute (`user.belljar.stat`). The file system must take `user.`
/// attributes and whiteouts: ext4, xfs, btrfs, or tmpfs since Linux 6.6.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// A flock(2), released on drop.
pub(super) struct Lock(#[allow(dead_code, reason = "held")] File);

/// A directory below `tmp`, removed on drop unless it was moved to its place.
pub(super) struct Work {
    path: PathBuf,
    _lock: Lock,
}

impl Store {
    /// Opens a store, made if missing, and sweeps what killed processes have left in it.
    ///
    /// # Errors
    /// [`ErrorKind::NotSupported`] for a directory that is something else, or of a later version;
    /// [`ErrorKind::NotPermitted`] for another user's.
    pub fn open(path: impl AsRef<Path>) -> Result<Store> {
        let path = path.as_ref();
        let fail = |what: &str, e: &std::io::Error| {
            io_error(format!("{what} the store {}", path.display()), e)
                .with_hint("a directory that the caller owns, or a path where it may make one")
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| fail("make", &e))?;
        let root = fs::canonicalize(path).map_err(|e| fail("open", &e))?;
        let own = |path: &Path| -> Result<()> {
            let meta = fs::symlink_metadata(path).map_err(|e| fail("open", &e))?;
            let refuse = |why: String, hint| {
                Err(Error::call(format!("open the store {}: {why}", path.display()), Errno::EPERM).with_hint(hint))
            };
            if meta.uid() != nix::unistd::geteuid().as_raw() {
                let why = format!("it is uid {}'s", meta.uid());
                return refuse(why, "a store of the caller's own: what is in it would be trusted");
            }
            match (meta.is_dir(), meta.mode() & 0o022) {
                (true, 0) => Ok(()),
                (true, _) => refuse("others may write it".into(), "chmod 700: what is in it would be trusted"),
                _ => refuse("it is no directory".into(), "the store as it was made, without links"),
            }
        };
        own(&root)?;
        let store = Store { root };
        let version = store.path("version");
        match fs::read_to_string(&version) {
            Ok(text) if text == VERSION => {}
            Ok(text) => {
                return Err(Error::new(
                    ErrorKind::NotSupported,
                    format!("open the store {}: its version is {text:?}", path.display()),
                )
                .with_hint("a store of this version, or an empty directory"));
            }
            Err(e) if e.kind() == IoErrorKind::NotFound => {
                let strange = fs::read_dir(&store.root).map_err(|e| fail("read", &e))?.flatten().any(|entry| {
                    let name = entry.file_name();
                    !PARTS.iter().any(|part| name == *part)
                        && name != "lock"
                        && name != "version" // of another process, which makes it at this moment
                        && !name.as_encoded_bytes().starts_with(b".")
                });
                if strange {
                    return Err(Error::new(
                        ErrorKind::NotSupported,
                        format!("make a store in {}, which holds something else", path.display()),
                    )
                    .with_hint("an empty directory"));
                }
            }
            Err(e) => return Err(fail("read", &e)),
        }
        for part in PARTS {
            match DirBuilder::new().mode(0o700).create(store.path(part)) {
                Ok(()) => {}
                Err(e) if e.kind() == IoErrorKind::AlreadyExists => own(&store.path(part))?,
                Err(e) => return Err(fail("make", &e)),
            }
        }
        if !version.exists() {
            store.write(&version, VERSION.as_bytes(), Durability::Disk)?;
        }
        if store.has_leavings() {
            store.sweep(&store.lock_exclusive()?)?;
        }
        Ok(store)
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn path(&self, part: &str) -> PathBuf {
        self.root.join(part)
    }

    pub(super) fn layer_path(&self, layer: &Digest) -> PathBuf {
        self.root.join("layers").join(layer.hex())
    }

    pub(super) fn config_path(&self, config: &Digest) -> PathBuf {
        self.root.join("configs").join(config.hex())
    }

    pub(super) fn has_layer(&self, layer: &Digest) -> bool {
        self.layer_path(layer).join("layer.json").exists()
    }

    pub(super) fn lock_shared(&self) -> Result<Lock> {
        Lock::take(&self.path("lock"), LOCK_SH)
    }

    pub(super) fn lock_exclusive(&self) -> Result<Lock> {
        Lock::take(&self.path("lock"), LOCK_EX)
    }

    /// Waits until nobody else unpacks this layer.
    pub(super) fn lock_layer(&self, layer: &Digest) -> Result<Lock> {
        Lock::take(&self.path("locks").join(layer.hex()), LOCK_EX)
    }

    /// Takes hold of layers: they stay as long as a copy of the lease's descriptor is open,
    /// in this process or in a sandbox's. The holder must hold the store's lock.
    pub(super) fn lease(&self, key: &Digest, layers: &[Digest], _held: &Lock) -> Result<Lease> {
        let path = self.path("leases").join(key.hex());
        let text: String = layers.iter().map(|layer| layer.hex() + "\n").collect();
        // one that a power failure has left empty would hold nothing
        if fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
            self.write(&path, text.as_bytes(), Durability::Process)?;
        }
        let file = File::open(&path).map_err(|e| io_error(format!("open {}", path.display()), &e))?;
        flock(&file, LOCK_SH).map_err(|errno| Error::call(format!("lock {}", path.display()), errno))?;
        Ok(Lease::new(file))
    }

    /// Writes a file that is there completely or not at all.
    pub(super) fn write(&self, path: &Path, bytes: &[u8], durability: Durability) -> Result<()> {
        let temporary = self.path("tmp").join(format!("file.{}", unique()));
        let fail = |e: std::io::Error| {
            let _ = fs::remove_file(&temporary); // swept later if this fails too
            io_error(format!("write {}", path.display()), &e)
        };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(fail)?;
        file.write_all(bytes).map_err(fail)?;
        if durability == Durability::Disk {
            file.sync_all().map_err(fail)?;
        }
        fs::rename(&temporary, path).map_err(fail)?;
        if let (Durability::Disk, Some(parent)) = (durability, path.parent()) {
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(fail)?;
        }
        Ok(())
    }

    /// A directory of one's own to work in.
    pub(super) fn work(&self) -> Result<Work> {
        let path = self.path("tmp").join(format!("work.{}", unique()));
        let fail = |e: &std::io::Error| io_error(format!("make {}", path.display()), e);
        let _held = self.lock_shared()?; // nobody sweeps between the two
        DirBuilder::new().mode(0o700).create(&path).map_err(|e| fail(&e))?;
        let directory = File::open(&path).map_err(|e| fail(&e))?;
        flock(&directory, LOCK_EX | LOCK_NB).map_err(|errno| Error::call(format!("lock {}", path.display()), errno))?;
        Ok(Work { path, _lock: Lock(directory) })
    }

    fn has_leavings(&self) -> bool {
        let anonymous = |entry: fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b".");
        fs::read_dir(self.path("tmp")).is_ok_and(|mut entries| entries.next().is_some())
            || fs::read_dir(self.path("volumes")).is_ok_and(|entries| entries.flatten().any(anonymous))
    }

    /// Removes the work of processes that have ended.
    pub(super) fn sweep(&self, _exclusive: &Lock) -> Result<()> {
        let tmp = self.path("tmp");
        let fail = |e: &std::io::Error| io_error(format!("sweep {}", tmp.display()), e);
        for entry in fs::read_dir(&tmp).map_err(|e| fail(&e))?.flatten() {
            let path = entry.path();
            let Ok(file) = open_quietly(&path) else { continue };
            let directory = file.metadata().is_ok_and(|meta| meta.is_dir());
            // a file is written under no lock: young ones may still be
            let young = file
                .metadata()
                .and_then(|m| m.modified())
                .is_ok_and(|time| time.elapsed().is_ok_and(|age| age < std::time::Duration::from_secs(60)));
            if directory && flock(&file, LOCK_EX | LOCK_NB).is_ok() {
                fs::remove_dir_all(&path).map_err(|e| fail(&e))?;
            } else if !directory && !young {
                let _ = fs::remove_file(&path); // by somebody else meanwhile
            }
        }
        // anonymous volumes whose sandbox has outlived its maker, and ended
        for entry in fs::read_dir(self.path("volumes")).map_err(|e| fail(&e))?.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b".") && is_free(&entry.path().join("lock")) {
                fs::remove_dir_all(entry.path()).map_err(|e| fail(&e))?;
            }
        }
        Ok(())
    }
}

const PARTS: [&str; 8] = ["layers", "configs", "images", "leases", "locks", "patches", "tmp", "volumes"];

pub(super) fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.as_nanos());
    format!("{}.{time}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(super) fn flock(file: &File, operation: u32) -> Result<(), Errno> {
    loop {
        match call::flock(file.as_raw_fd(), operation) {
            Err(Errno::EINTR) => {}
            answer => return answer.map(drop),
        }
    }
}

/// Whether nobody holds this file.
pub(super) fn is_free(path: &Path) -> bool {
    open_quietly(path).is_ok_and(|file| flock(&file, LOCK_EX | LOCK_NB).is_ok())
}

/// Follows no link, and waits for no writer of a FIFO.
fn open_quietly(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

impl Lock {
    fn take(path: &Path, operation: u32) -> Result<Lock> {
        let fail = |errno| Error::call(format!("lock {}", path.display()), errno);
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
        let file = file.map_err(|e| fail(Errno::of(e)))?;
        flock(&file, operation).map_err(fail)?;
        Ok(Lock(file))
    }
}

impl Work {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the directory to its place, on the disk if so asked. False when there is one already.
    pub fn publish(self, place: &Path, durability: Durability) -> Result<bool> {
        let fail = |what: &str, errno| Error::call(format!("{what} {}", place.display()), errno);
        let disk = durability == Durability::Disk;
        if disk {
            xattr::sync_file_system(self._lock.0.as_fd()).map_err(|errno| fail("write back what is to be", errno))?;
        }
        let published = match fs::rename(&self.path, place) {
            Ok(()) => true,
            Err(e) if matches!(e.kind(), IoErrorKind::DirectoryNotEmpty | IoErrorKind::AlreadyExists) => false,
            Err(e) => return Err(io_error(format!("move to {}", place.display()), &e)),
        };
        if let (true, true, Some(parent)) = (disk, published, place.parent()) {
            File::open(parent)
                .and_then(|parent| parent.sync_all())
                .map_err(|e| io_error("write back the store", &e))?;
        }
        Ok(published)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path); // gone to its place, or swept by the next that opens the store
    }
}
