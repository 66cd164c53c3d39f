//! What a run has changed in its root: the entries of the upper, compared with the
//! layers below it.
//!
//! An upper tells by itself what was removed (whiteouts) and replaced (opaque marks), but not whether
//! an entry is new, nor whether a file that was copied up has changed at all
//! (Documentation/filesystems/overlayfs.rst). So each is looked up in the layers, merged as overlayfs
//! merges them: see [`below`]; the walk is in [`walk`], copying out in [`keep`].

mod below;
mod keep;
mod walk;

pub use keep::{Keep, KeepTotals};
pub use walk::ChangesIter;

use super::{Base, Kept, RootFs, Source, Upper};
use crate::error::{Error, ErrorKind, Result};
use crate::id::c_path;
use crate::sys::path::{FileKind, OpenFlags, open_long};
use crate::sys::tree::open_beneath;
use crate::sys::{Errno, tree};
use below::Below;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What has happened to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChangeKind {
    /// It is in no layer.
    Added,
    /// A layer has it with another content, or as another kind of file: a directory that is now a file
    /// is one such change, and what it held is gone without a further one.
    Modified,
    /// A layer has it, and it is gone. A directory is one change, whatever was in it.
    Deleted,
    /// Its content is that of the layer; its mode, owner, attributes or (unless it is a directory) time of
    /// modification are not.
    MetadataChanged,
    /// A directory was removed and made anew: nothing of the layers shows in it. What is in it now is `Added`.
    Opaque,
}

/// One entry that is not as the layers have it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// What has happened to it.
    pub kind: ChangeKind,
    /// Where, as the sandbox sees it: absolute, without `.`, `..` or links on the way.
    pub path: PathBuf,
    /// What it is now; of a deleted one, what it was.
    pub file: FileKind,
    /// Its bytes, if it is a regular file or a link.
    pub size: Option<u64>,
    /// Its permission bits, with set-user-ID, set-group-ID and sticky.
    pub mode: u32,
    /// Whether it stands on an entry of the init layer, which is true for this sandbox only.
    pub in_init_layer: InInitLayer,
}

/// Whether the entry that was changed is one of the sandbox's own init layer ([`RootFs::file`], targets of
/// mounts): a commit of the upper leaves such changes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InInitLayer {
    /// It is.
    Yes,
    /// It comes from a layer, or is new.
    No,
    /// Nobody knows: the upper was looked at without its sandbox.
    Unknown,
}

/// The ranges of an id map: first inside, first outside, count.
pub(crate) type Ranges = Vec<(u32, u32, u32)>;

/// What an upper is compared with, as it was when the sandbox was compiled.
#[derive(Clone, Debug)]
pub(crate) struct Basis {
    /// The layers, lowest first.
    layers: Vec<PathBuf>,
    /// Marks are in `user.` attributes.
    userxattr: bool,
    /// What was given to [`Upper::Persist`].
    persist: Option<PathBuf>,
    /// Whether the files of a persistent upper have the ids inside.
    idmapped: bool,
    /// The map of user ids and of group ids.
    ids: Option<(Ranges, Ranges)>,
}

impl Basis {
    pub fn new(layers: &[PathBuf], upper: &Upper, source: Source) -> Basis {
        let persist = if let Upper::Persist(path) = upper { Some(path.clone()) } else { None };
        let Source { userxattr, idmap, .. } = source;
        Basis { layers: layers.to_vec(), userxattr, persist, idmapped: idmap, ids: None }
    }
}

impl Kept {
    /// The map under which layers may be shown to the sandbox.
    pub(crate) fn with_ids(mut self, ids: Option<(Ranges, Ranges)>) -> Kept {
        if let Some(basis) = &mut self.basis {
            basis.ids = ids;
        }
        self
    }

    /// Notes the map beside a persistent upper whose files get ids of the host.
    pub(crate) fn with_note(self) -> Result<Kept> {
        if let Some(Basis { persist: Some(path), idmapped: false, ids: Some(ids), .. }) = &self.basis {
            super::persist::note(path, ids)?;
        }
        Ok(self)
    }

    /// The changes of a sandbox whose scratch this is.
    pub(crate) fn changes(&self, scratch: Option<BorrowedFd<'_>>, by_call: bool) -> Result<Changes> {
        match &self.basis {
            Some(basis) => Changes::open(basis.clone(), scratch, by_call),
            None => Err(Error::new(ErrorKind::InvalidSpec, "the changes of a sandbox that does not track them").with_hint(
                "RootFs::track_changes() on a root of layers with an upper: a discarded one is gone with its sandbox otherwise",
            )),
        }
    }
}

impl RootFs {
    /// Keeps a handle of the upper, so that [`Child::changes`](crate::Child::changes) can tell what the run has
    /// changed, also after its end. Costs one descriptor in the host and some ten microseconds; and what a
    /// discarded upper holds stays in memory until the [`Child`](crate::Child) and all its [`Changes`] are dropped.
    ///
    /// For layers with an [`Upper::Discard`] or [`Upper::Persist`].
    pub fn track_changes(mut self) -> Self {
        self.tracked = true;
        self
    }

    /// The changes in a persistent upper that no sandbox needs to use just now.
    pub(crate) fn changes(&self, source: Source, ids: Option<(Ranges, Ranges)>, by_call: bool) -> Result<Changes> {
        let (Base::Layers(layers), Some(upper @ Upper::Persist(_))) = (&self.base, &self.upper) else {
            return Err(Error::new(ErrorKind::InvalidSpec, "the changes of a sandbox without a persistent upper")
                .with_hint("Upper::Persist(path), or RootFs::track_changes() and Child::changes()"));
        };
        let kept = Kept { basis: Some(Basis::new(layers, upper, source)), ..Kept::default() };
        kept.with_ids(ids).changes(None, by_call)
    }
}

/// The changes of a sandbox's root, to iterate over and to copy out of: from
/// [`Child::changes`](crate::Child::changes) or [`Sandbox::changes`](crate::Sandbox::changes).
///
/// A handle: each iteration looks anew, in the order of the paths, a directory before what is in it. While
/// the payload runs, what it sees may be of different moments. Everything that the payload has written is
/// taken as hostile: no link is followed, no FIFO or device opened, and each path stays beneath the upper.
///
/// ```no_run
/// use belljar::{Bytes, ChangeKind, Command, Keep, RootFs, Sandbox};
///
/// let root = RootFs::dir("/srv/debian").track_changes();
/// let mut child = Sandbox::builder(root).build()?.spawn(&Command::new("make"))?;
/// child.wait()?;
/// let changes = child.changes()?;
/// let mut results = Vec::new();
/// for change in &changes {
///     let change = change?;
///     if change.kind == ChangeKind::Added && change.path.starts_with("/out") && change.size.is_some() {
///         results.push(change);
///     }
/// }
/// changes.keep(&results, "/srv/results", Keep::regular_files().bytes(Bytes::mib(10)))?;
/// # Ok::<(), belljar::Error>(())
/// ```
#[derive(Debug)]
pub struct Changes {
    upper: OwnedFd,
    below: Below,
    ids: Option<(Ranges, Ranges)>,
    /// What the ids of the upper's files stand for; `None` where they are the ids inside.
    #[cfg_attr(not(feature = "image"), allow(dead_code, reason = "images are an optional feature"))]
    written: Option<(Ranges, Ranges)>,
    by_call: bool,
}

impl Changes {
    fn open(basis: Basis, scratch: Option<BorrowedFd<'_>>, by_call: bool) -> Result<Changes> {
        let Basis { layers, userxattr, persist, ids, .. } = basis;
        let directory = OpenFlags::PATH | OpenFlags::DIRECTORY;
        let upper = match (&persist, scratch) {
            (Some(path), _) => {
                let path = path.join("upper");
                open_long(&c_path(&path), directory).map_err(|errno| open_error("upper", &path, errno))?
            }
            (None, Some(scratch)) => open_beneath(scratch, c"upper", directory, by_call)
                .map_err(|errno| open_error("discarded", Path::new("upper"), errno))?,
            (None, None) => {
                return Err(Error::new(ErrorKind::InvalidSpec, "the changes of a sandbox that does not track them")
                    .with_hint("RootFs::track_changes()"));
            }
        };
        let init = match scratch.map(|scratch| open_beneath(scratch, c"init", directory, by_call)) {
            None => below::Init::Unknown,
            Some(Ok(init)) => below::Init::Layer(init),
            Some(Err(Errno::ENOENT)) => below::Init::None,
            Some(Err(errno)) => return Err(open_error("init layer in the", Path::new("scratch"), errno)),
        };
        let below = Below::open(init, &layers, userxattr, by_call)?;
        let written = match &persist {
            Some(path) => super::persist::noted(path)?,
            None => ids.clone(), // the sandbox's own tmpfs
        };
        Ok(Changes { upper, below, ids, written, by_call })
    }

    /// The changes, one after the other; an `Err` tells of an entry that could not be looked at, and the
    /// iteration goes on behind it.
    pub fn iter(&self) -> ChangesIter<'_> {
        ChangesIter::new(self)
    }

    /// The upper itself, by name only.
    #[cfg_attr(not(feature = "image"), allow(dead_code, reason = "images are an optional feature"))]
    pub(crate) fn upper(&self) -> BorrowedFd<'_> {
        self.upper.as_fd()
    }

    /// The map by which the upper's files have their ids; `None` where they have the ids inside.
    #[cfg_attr(not(feature = "image"), allow(dead_code, reason = "images are an optional feature"))]
    pub(crate) fn written_ids(&self) -> Option<(Ranges, Ranges)> {
        self.written.clone()
    }

    /// Opens an entry of the upper.
    fn entry(&self, path: &CStr, flags: OpenFlags) -> Result<OwnedFd, Errno> {
        tree::open_beneath(self.upper.as_fd(), path, flags, self.by_call)
    }
}

impl<'a> IntoIterator for &'a Changes {
    type Item = Result<Change>;
    type IntoIter = ChangesIter<'a>;

    fn into_iter(self) -> ChangesIter<'a> {
        self.iter()
    }
}

fn open_error(what: &str, path: &Path, errno: Errno) -> Error {
    Error::call(format!("open the {what} {}", path.display()), errno)
        .with_hint("the directories that the sandbox was built of, where they were")
}

/// The failure to look at an entry of the upper.
fn entry_error(what: &str, path: &Path, errno: Errno) -> Error {
    let error = Error::call(format!("{what} {}", path.display()), errno);
    match errno {
        Errno::EACCES | Errno::EPERM => error.with_hint(
            "a caller that may read what the payload's ids have closed: root, or an id map of the caller's own id only",
        ),
        _ => error,
    }
}
