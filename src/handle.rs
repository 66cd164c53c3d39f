//! Namespaces that exist already.

use crate::error::{Defect, Error, Result};
use crate::sys::kernel::abi::{LOCK_EX, LOCK_NB};
use crate::sys::kernel::call;
use crate::sys::namespace::NamespaceFlags;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The kinds of namespace, as namespaces(7) names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum NamespaceKind {
    User,
    Mount,
    Pid,
    Network,
    Ipc,
    Uts,
    Cgroup,
    Time,
}

impl NamespaceKind {
    /// All eight.
    pub const ALL: [NamespaceKind; 8] = [
        NamespaceKind::User,
        NamespaceKind::Mount,
        NamespaceKind::Pid,
        NamespaceKind::Network,
        NamespaceKind::Ipc,
        NamespaceKind::Uts,
        NamespaceKind::Cgroup,
        NamespaceKind::Time,
    ];

    /// Its file in `/proc/PID/ns`.
    pub fn file_name(self) -> &'static str {
        match self {
            NamespaceKind::User => "user",
            NamespaceKind::Mount => "mnt",
            NamespaceKind::Pid => "pid",
            NamespaceKind::Network => "net",
            NamespaceKind::Ipc => "ipc",
            NamespaceKind::Uts => "uts",
            NamespaceKind::Cgroup => "cgroup",
            NamespaceKind::Time => "time",
        }
    }

    pub(crate) fn flag(self) -> NamespaceFlags {
        match self {
            NamespaceKind::User => NamespaceFlags::USER,
            NamespaceKind::Mount => NamespaceFlags::MOUNT,
            NamespaceKind::Pid => NamespaceFlags::PID,
            NamespaceKind::Network => NamespaceFlags::NET,
            NamespaceKind::Ipc => NamespaceFlags::IPC,
            NamespaceKind::Uts => NamespaceFlags::UTS,
            NamespaceKind::Cgroup => NamespaceFlags::CGROUP,
            NamespaceKind::Time => NamespaceFlags::TIME,
        }
    }
}

/// A namespace to join: one that a path, a process or another sandbox's child holds.
///
/// A path or pid is looked up at each spawn; a handle (from
/// [`Child::namespace`](crate::Child::namespace)) keeps its namespace alive.
#[derive(Clone, Debug)]
pub struct Namespace(Source);

#[derive(Clone, Debug)]
enum Source {
    Path(PathBuf),
    Process(u32),
    Handle(Arc<OwnedFd>, NamespaceKind, String),
}

impl Namespace {
    /// The one that a file stands for: `/proc/PID/ns/net`, or a bind of such a file (`/run/netns/NAME`).
    pub fn from_path(path: impl AsRef<Path>) -> Namespace {
        Namespace(Source::Path(path.as_ref().to_owned()))
    }

    /// The one that a process of the host is in.
    pub fn of_process(pid: u32) -> Namespace {
        Namespace(Source::Process(pid))
    }

    pub(crate) fn from_fd(fd: OwnedFd, kind: NamespaceKind, name: String) -> Namespace {
        Namespace(Source::Handle(Arc::new(fd), kind, name))
    }

    /// How messages call it.
    pub(crate) fn name(&self, kind: NamespaceKind) -> String {
        match &self.0 {
            Source::Path(path) => path.display().to_string(),
            Source::Process(pid) => format!("/proc/{pid}/ns/{}", kind.file_name()),
            Source::Handle(_, _, name) => name.clone(),
        }
    }

    /// Opens it.
    pub(crate) fn open(&self, kind: NamespaceKind) -> Result<Fd> {
        match &self.0 {
            Source::Handle(fd, own, _) if *own == kind => Ok(Fd::Shared(fd.clone())),
            Source::Handle(_, own, name) => Err(Error::spec(vec![Defect::new(
                format!("{name} is to be joined as a {} namespace", kind.file_name()),
                format!("the handle under its own kind, {}", own.file_name()),
            )])),
            _ => {
                let name = self.name(kind);
                let file = File::open(&name).map_err(|e| {
                    let errno = crate::sys::Errno::of(e);
                    Error::call(format!("open the {} namespace {name}", kind.file_name()), errno)
                        .with_hint("a process that runs, and that the caller may trace (ptrace(2), access mode checks)")
                })?;
                Ok(Fd::Owned(file.into()))
            }
        }
    }
}

/// All namespaces of one sandbox, from [`Child::namespaces`](crate::Child::namespaces). As long as it
/// or a copy of it lives, so do they.
#[derive(Clone, Debug)]
pub struct NamespaceHandles(Vec<(Arc<OwnedFd>, NamespaceKind, String)>);

impl NamespaceHandles {
    /// What `open` gives for each kind.
    pub(crate) fn new(mut open: impl FnMut(NamespaceKind) -> Result<Namespace>) -> Result<NamespaceHandles> {
        let mut all = Vec::with_capacity(NamespaceKind::ALL.len());
        for kind in NamespaceKind::ALL {
            if let Namespace(Source::Handle(fd, kind, name)) = open(kind)? {
                all.push((fd, kind, name));
            }
        }
        Ok(NamespaceHandles(all))
    }

    fn of(&self, kind: NamespaceKind) -> &(Arc<OwnedFd>, NamespaceKind, String) {
        &self.0[kind as usize] // in the order of `NamespaceKind::ALL`
    }

    /// The one of this kind, to join.
    pub fn get(&self, kind: NamespaceKind) -> Namespace {
        let (fd, kind, name) = self.of(kind).clone();
        Namespace(Source::Handle(fd, kind, name))
    }

    /// Its descriptor, for [`sys::namespace`](crate::sys::namespace) or another program.
    pub fn fd(&self, kind: NamespaceKind) -> BorrowedFd<'_> {
        self.of(kind).0.as_fd()
    }
}

/// A descriptor, of one owner or several.
#[derive(Debug)]
pub(crate) enum Fd {
    Owned(OwnedFd),
    Shared(Arc<OwnedFd>),
}

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Fd::Owned(fd) => fd.as_fd(),
            Fd::Shared(fd) => fd.as_fd(),
        }
    }
}

/// Something of a store in use: as long as a copy of the descriptor is open, in this process
/// or in a sandbox's first one, a flock(2) keeps it from being removed.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "image"), allow(dead_code, reason = "stores are an optional feature"))]
pub(crate) struct Lease(Arc<Held>);

#[derive(Debug)]
struct Held {
    /// Closed before the other is dropped: fields are in their order.
    file: OwnedFd,
    _remover: Remover,
}

/// What goes when nobody uses it any more: the locked file, and the directory to remove.
#[derive(Debug)]
struct Remover(Option<(PathBuf, PathBuf)>);

#[cfg_attr(not(feature = "image"), allow(dead_code, reason = "stores are an optional feature"))]
impl Lease {
    pub fn new(file: File) -> Lease {
        Lease(Arc::new(Held { file: file.into(), _remover: Remover(None) }))
    }

    /// One whose `directory` goes with it.
    pub fn removing(file: File, lock: PathBuf, directory: PathBuf) -> Lease {
        Lease(Arc::new(Held { file: file.into(), _remover: Remover(Some((lock, directory))) }))
    }
}

impl AsFd for Lease {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

/// The same use of the same thing.
impl PartialEq for Lease {
    fn eq(&self, other: &Lease) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Lease {}

impl Drop for Remover {
    fn drop(&mut self) {
        let Some((lock, directory)) = &self.0 else { return };
        // A sandbox that outlives us has the open file too, and with it the lock.
        let free = File::open(lock).is_ok_and(|file| call::flock(file.as_raw_fd(), LOCK_EX | LOCK_NB).is_ok());
        if free {
            let _ = std::fs::remove_dir_all(directory); // or swept by the next that opens the store
        }
    }
}
