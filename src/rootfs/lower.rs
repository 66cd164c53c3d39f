//! The root file system as ops.

use super::changes::Basis;
use super::persist;
use super::*;
use crate::error::{Defect, Error, ErrorKind, Result};
use crate::handle::Fd;
use crate::id::{absolute, c_path, check_host};
use crate::program::{Builder, Op, Slot, Strings, op};
use crate::sys::kernel::abi::*;
use crate::sys::kernel::{call, path};
use crate::sys::{Errno, socket};
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// overlayfs takes no more (`OVL_MAX_STACK`).
const MAX_LAYERS: usize = 500;
/// Room in the scratch beside the upper: its own directories, and the init layer's.
const SLACK_BYTES: u64 = 1 << 20;
const SLACK_INODES: u64 = 256;

/// How the sandbox comes to the host's directories.
#[derive(Clone, Copy)]
pub(crate) struct Source {
    /// The parent clones the trees, for it may, and the sandbox's root might not reach them.
    pub by_parent: bool,
    /// Their ids are mapped, so that the host's root is the sandbox's.
    pub idmap: bool,
    /// Marks are kept in `user.` attributes: only the initial user namespace may use `trusted.` ones.
    pub userxattr: bool,
    /// The host's ids of the sandbox's set-up, to own what cannot be id-mapped.
    pub owner: Option<(u32, u32)>,
}

/// A mount target that must be there before the mounts.
pub(crate) struct Target<'a> {
    pub path: &'a Path,
    pub directory: bool,
}

/// What the launch keeps while the sandbox lives.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// The lock on a persistent upper.
    pub lock: Option<File>,
    /// The lock on a block of ids, until a shim has it.
    pub block: Option<File>,
    /// What changes are told from, where they are tracked.
    pub basis: Option<Basis>,
    /// What of a store is in use.
    pub(super) leases: Vec<Lease>,
}

impl RootFs {
    /// Where writes go, with the default filled in.
    fn effective_upper(&self) -> &Upper {
        match (&self.base, &self.upper) {
            (_, Some(upper)) => upper,
            (Base::Layers(_) | Base::Empty, None) => &Upper::DEFAULT,
            _ => &Upper::None,
        }
    }

    /// Takes relative paths from the working directory of now.
    pub(crate) fn make_absolute(&mut self) {
        if let Base::Layers(layers) = &mut self.base {
            layers.iter_mut().for_each(absolute);
        }
        if let Some(Upper::Persist(path)) = &mut self.upper {
            absolute(path);
        }
    }

    pub(crate) fn check(&self, defects: &mut Vec<Defect>) {
        self.entries.iter().for_each(|entry| entry.check(defects));
        if let Base::Layers(layers) = &self.base {
            if layers.is_empty() || layers.len() > MAX_LAYERS {
                defects.push(Defect::new(
                    format!("the root has {} layers", layers.len()),
                    format!("1 to {MAX_LAYERS} layers: overlayfs takes no more; merge some"),
                ));
            }
            layers.iter().for_each(|layer| check_host(layer, "the path of a layer", defects));
        }
        match (&self.base, &self.upper) {
            (Base::Host, Some(Upper::Discard { .. } | Upper::Persist(_))) => defects.push(Defect::new(
                "the host's root cannot have an upper: it is many file systems, and overlayfs merges one",
                "RootFs::dir(\"/\") for its root file system alone, where nothing is written but what everybody may (its ids are never mapped), or RootFs::host() read-only with a Mount::tmpfs where the program writes",
            )),
            (Base::Empty, Some(Upper::Persist(_))) => defects.push(Defect::new(
                "an empty root cannot be persistent",
                "RootFs::dir(path) with an empty directory and Upper::Persist",
            )),
            (Base::Inherit | Base::Join(_), Some(_)) => defects.push(Defect::new(
                "a mount namespace that is inherited or joined cannot get an upper",
                "RootFs::host(), RootFs::dir(path) or RootFs::overlay(layers)",
            )),
            (_, Some(Upper::Discard { bytes, inodes })) if bytes.get() == 0 || *inodes == 0 => defects.push(
                Defect::new("the upper has room for nothing", "at least 1 byte and 1 inode, or Upper::None"),
            ),
            (_, Some(Upper::Persist(path))) => check_host(path, "the path of the upper", defects),
            _ => {}
        }
        let has_upper = matches!(
            (&self.base, self.effective_upper()),
            (Base::Layers(_), Upper::Discard { .. } | Upper::Persist(_))
        );
        if self.tracked && !has_upper {
            defects.push(Defect::new(
                "the changes of a root without layers and an upper cannot be tracked: there is nothing to compare",
                "RootFs::dir(path) or RootFs::overlay(layers), with Upper::Discard or Upper::Persist; for an empty root an empty directory as the layer",
            ));
        }
        if !self.entries.is_empty() && matches!(self.base, Base::Host | Base::Inherit | Base::Join(_)) {
            defects.push(Defect::new(
                "hide, file, directory, symlink and opaque need layers of the sandbox's own",
                "RootFs::dir(path) or RootFs::overlay(layers); a Mount::mask(path) hides a path of RootFs::host()",
            ));
        }
    }

    /// Whether the sandbox gets a root of its own.
    pub(crate) fn is_new(&self) -> bool {
        !matches!(self.base, Base::Inherit | Base::Join(_))
    }

    /// Whether the payload can write to it.
    pub(crate) fn is_writable(&self) -> bool {
        self.is_new() && !matches!((&self.base, self.effective_upper()), (Base::Host, _) | (_, Upper::None))
    }

    /// Whether what is written stays.
    pub(crate) fn persists(&self) -> bool {
        matches!(self.effective_upper(), Upper::Persist(_))
    }

    /// Appends the ops up to the new root, not yet pivoted into. `suid`: set-uid programs of the layers take effect.
    pub(crate) fn lower(
        &self,
        source: Source,
        targets: &[Target<'_>],
        suid: bool,
        builder: &mut Builder,
    ) -> Result<Kept> {
        const SET: u64 = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
        let mut kept = Kept::default();
        if !self.is_new() {
            return Ok(kept);
        }
        builder.op(Op::PrivateMounts {});
        builder.sources_here();
        let host = if let Base::Host = self.base { Some(grab(Path::new("/"), builder)?) } else { None };
        let (bytes, inodes) = match self.effective_upper() {
            Upper::Discard { bytes, inodes } => (bytes.get(), *inodes),
            _ => (0, 0),
        };
        let entries: u64 = self.entries.iter().map(|e| e.size() + 4096).sum();
        let layers = if let Base::Layers(layers) = &self.base { layers.as_slice() } else { &[] };
        builder.op(Op::Scratch {
            bytes: bytes.saturating_add(entries + SLACK_BYTES),
            inodes: inodes
                .saturating_add(SLACK_INODES + (self.entries.len() + layers.len() + 4 * targets.len()) as u64),
        });
        match &self.base {
            Base::Host => {
                let slot = host.unwrap_or(Slot::NONE);
                builder.op(Op::RootTree { slot, set: SET | MOUNT_ATTR_RDONLY, recursive: 1 });
            }
            Base::Empty => {
                let (bytes, inodes) = if bytes == 0 { (entries + SLACK_BYTES, SLACK_INODES) } else { (bytes, inodes) };
                builder.op(Op::RootTmpfs { bytes, inodes, set: SET });
                self.entries.iter().for_each(|entry| entry.lower(builder));
            }
            Base::Layers(layers) => {
                let set = if suid { MOUNT_ATTR_NODEV } else { SET };
                kept = self.lower_layers(layers, source, targets, set, builder)?;
            }
            Base::Inherit | Base::Join(_) => {}
        }
        Ok(kept)
    }

    /// What follows the mounts.
    pub(crate) fn lower_end(&self, builder: &mut Builder) {
        if matches!((&self.base, self.effective_upper()), (Base::Empty, Upper::None)) {
            builder.op(Op::SealRoot {});
        }
        if self.is_new() {
            builder.op(Op::Pivot {});
        }
    }

    fn lower_layers(
        &self,
        layers: &[PathBuf],
        source: Source,
        targets: &[Target<'_>],
        set: u64,
        builder: &mut Builder,
    ) -> Result<Kept> {
        let missing: Vec<_> = targets.iter().filter(|target| !layers.iter().any(|l| target.is_in(l))).collect();
        let init = !self.entries.is_empty() || !missing.is_empty();
        let upper = self.effective_upper();
        let mut kept = Kept::default();

        if let ([layer], Upper::None, false) = (layers, upper, init) {
            let slot = match source.by_parent {
                true => tree(layer, source, true, builder)?,
                false => grab(layer, builder)?,
            };
            builder.op(Op::RootTree { slot, set: set | MOUNT_ATTR_RDONLY, recursive: 1 });
            return Ok(kept);
        }
        let mut slots = Vec::with_capacity(layers.len());
        for (i, layer) in layers.iter().enumerate() {
            slots.push(if source.by_parent {
                let slot = tree(layer, source, false, builder)?;
                builder.op(Op::StageTree { slot, name: &crate::id::c_string(i.to_string().as_bytes()) });
                slot
            } else {
                open(layer, "layer", builder)?
            });
        }
        let (Some(&first), count) = (slots.first(), slots.len() as u32) else {
            return Err(Error::new(ErrorKind::InvalidSpec, "a root without layers"));
        };
        let userxattr = source.userxattr.into();
        if init {
            builder.op(Op::InitBegin { first, count, userxattr });
            self.entries.iter().for_each(|entry| entry.lower(builder));
            for target in &missing {
                builder.op(Op::Target { path: &c_path(target.path), directory: target.directory.into() });
            }
            builder.op(Op::InitEnd {});
        }
        if self.tracked || matches!(upper, Upper::Persist(_)) {
            kept.basis = Some(Basis::new(layers, upper, source));
        }
        let upper = match upper {
            Upper::None => op::upper::NONE,
            Upper::Discard { .. } => op::upper::SCRATCH,
            Upper::Persist(path) => {
                let lock = persist::prepare(path, layers.last(), source)?;
                if source.by_parent {
                    let slot = tree(path, source, false, builder)?;
                    builder.op(Op::StageTree { slot, name: c"p" });
                } else {
                    let slot = open(path, "upper", builder)?;
                    builder.op(Op::StageUpper { slot });
                }
                let own = self.entries.iter().filter_map(Entry::place).chain(missing.iter().map(|target| target.path));
                persist::note_init(path, own)?;
                kept.lock = Some(lock);
                op::upper::PERSIST
            }
        };
        builder.op(Op::Overlay { first, count, upper, userxattr, set });
        if self.tracked {
            builder.op(Op::Track {});
        }
        Ok(kept)
    }
}

impl Target<'_> {
    /// Whether a layer has it for sure: each component a directory (or at last a file),
    /// none a link. What is wrongly taken for missing costs one op.
    fn is_in(&self, layer: &Path) -> bool {
        let mut at = layer.to_owned();
        let mut names = self.path.components().skip(1).peekable();
        while let Some(name) = names.next() {
            at.push(name);
            let wants_directory = self.directory || names.peek().is_some();
            match fs::symlink_metadata(&at) {
                Ok(found) if found.is_dir() == wants_directory && (wants_directory || found.is_file()) => {}
                _ => return false,
            }
        }
        true
    }
}

/// The identity of a source, so that the sandbox can tell that it opens the same.
pub(crate) fn identity(source: &Path, what: &str) -> Result<Statx> {
    let text = c_path(source);
    path::with_long_path(&text, |dir, path| call::statx(dir, path, 0))
        .map_err(|errno| missing_source(source, what, errno))
}

fn missing_source(source: &Path, what: &str, errno: Errno) -> Error {
    Error::call(format!("open the {what} {}", source.display()), errno)
        .with_hint("a path of the host that exists and that the caller may search")
}

fn directory(source: &Path, what: &str) -> Result<Statx> {
    let stat = identity(source, what)?;
    if stat.kind() == S_IFDIR { Ok(stat) } else { Err(missing_source(source, what, Errno::ENOTDIR)) }
}

fn open(source: &Path, what: &str, builder: &mut Builder) -> Result<Slot> {
    let stat = directory(source, what)?;
    let to = builder.local();
    builder.source_op(Op::OpenLayer { path: &c_path(source), dev: stat.dev(), ino: stat.ino, to });
    Ok(to)
}

fn grab(source: &Path, builder: &mut Builder) -> Result<Slot> {
    let stat = directory(source, "root")?;
    let to = builder.local();
    let path = &c_path(source);
    builder.source_op(Op::Grab { path, dev: stat.dev(), ino: stat.ino, kind: S_IFDIR, rdev: 0, recursive: 1, to });
    Ok(to)
}

/// A tree that the parent clones. The host's own root is never id-mapped: root inside
/// could then read what only the host's root may.
fn tree(source: &Path, how: Source, recursive: bool, builder: &mut Builder) -> Result<Slot> {
    let stat = directory(source, "layer")?;
    let host_root = identity(Path::new("/"), "root")?;
    let idmap = how.idmap && (stat.dev(), stat.ino) != (host_root.dev(), host_root.ino);
    let to = builder.promise();
    let path = &c_path(source);
    builder.parent_op(Op::Tree {
        maps: Strings(b""),
        path,
        dev: stat.dev(),
        ino: stat.ino,
        kind: S_IFDIR,
        recursive: recursive.into(),
        idmap: if idmap { 2 } else { 0 },
        to,
    });
    Ok(to)
}

// The lock is sent along, so that it lasts as long as the sandbox, host or no host.
impl Kept {
    pub fn with_leases<'a>(mut self, leases: impl Iterator<Item = &'a Lease>) -> Kept {
        self.leases.extend(leases.cloned());
        self
    }

    /// The locks' descriptor for the shim. Several go as one: a socket in which the others
    /// are under way, and open as long as nobody receives them.
    pub fn send(&self, builder: &mut Builder) -> Result<Slot> {
        let locks: Vec<BorrowedFd<'_>> = self
            .lock
            .iter()
            .chain(&self.block)
            .map(|lock| lock.as_fd())
            .chain(self.leases.iter().map(|lease| lease.as_fd()))
            .collect();
        let fail = |errno| Error::call("copy the locks of what the sandbox uses", errno);
        match locks.as_slice() {
            [] => Ok(Slot::NONE),
            [lock] => {
                let copy = lock.try_clone_to_owned().map_err(|e| fail(Errno::of(e)))?;
                Ok(builder.send(Fd::Owned(copy)))
            }
            locks => {
                let (ours, theirs) = socket::seqpacket_pair().map_err(fail)?;
                for locks in locks.chunks(socket::MAX_FDS) {
                    socket::send(ours.as_fd(), b"locks", locks).map_err(fail)?;
                }
                Ok(builder.send(Fd::Owned(theirs)))
            }
        }
    }
}
