//! Making, opening and joining namespaces: unshare(2), setns(2), `/proc/PID/ns`.
//!
//! Both calls move the calling *thread* only, not its process: use them on a thread
//! that does nothing else, or before there are others. Joining or making most kinds
//! takes effect at once; three do not:
//!
//! - `USER` needs a process with a single thread (`EINVAL` otherwise), as it changes
//!   what the credentials of the whole process mean.
//! - `PID` acts on the children that the thread makes from then on. Until it has
//!   made the first, the init of the namespace, nothing can be in it; once that has
//!   exited no more can be made (`ENOMEM`). The thread itself can make no threads any
//!   more (`EINVAL`), unless it goes back to its own pid namespace.
//! - `TIME` acts on children too, and since Linux 6.1 on a program that the thread
//!   executes. Before that version the thread can make no threads afterwards.
//!
//! Contract: <https://man7.org/linux/man-pages/man7/namespaces.7.html>,
//! <https://man7.org/linux/man-pages/man2/unshare.2.html>,
//! <https://man7.org/linux/man-pages/man2/setns.2.html>.

use super::kernel::abi::*;
use super::kernel::call;
use super::{Errno, Result};
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

bitflags::bitflags! {
    /// Kinds of namespace, as clone(2) spells them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct NamespaceFlags: u64 {
        /// CLONE_NEWTIME, Linux 5.6.
        const TIME = CLONE_NEWTIME;
        /// CLONE_NEWNS.
        const MOUNT = CLONE_NEWNS;
        /// CLONE_NEWCGROUP, Linux 4.6.
        const CGROUP = CLONE_NEWCGROUP;
        /// CLONE_NEWUTS.
        const UTS = CLONE_NEWUTS;
        /// CLONE_NEWIPC.
        const IPC = CLONE_NEWIPC;
        /// CLONE_NEWUSER.
        const USER = CLONE_NEWUSER;
        /// CLONE_NEWPID.
        const PID = CLONE_NEWPID;
        /// CLONE_NEWNET.
        const NET = CLONE_NEWNET;
    }
}

/// What statfs(2) calls the file system of namespace files, Linux 3.19.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// Moves the calling thread into new namespaces of these kinds; none does nothing.
///
/// `USER` is made first, so that the others belong to it: with it, no privilege is
/// needed where user namespaces are allowed. `USER` and `MOUNT` also give the thread
/// its own root, working directory and umask (`CLONE_FS`), `IPC` its own list of
/// System V semaphore adjustments. A new mount namespace is a copy whose mounts keep
/// their propagation: see [`Propagation`](super::mount::Propagation).
///
/// Linux 2.6.16; `USER` and `PID` 3.8, `CGROUP` 4.6, `TIME` 5.6.
///
/// ```no_run
/// use belljar::sys::namespace::{NamespaceFlags, unshare};
/// unshare(NamespaceFlags::USER | NamespaceFlags::MOUNT)?;
/// # Ok::<(), belljar::sys::Errno>(())
/// ```
///
/// # Errors
/// `EPERM`: without `USER`, no `CAP_SYS_ADMIN`; with it, a policy of the machine, a
/// chroot, or ids that the namespace around does not map. `EINVAL`: `USER` in a
/// process with several threads, a kind that this kernel does not have, or a flag
/// that is no kind of namespace. `ENOSPC`: a limit of `/proc/sys/user` or of nested
/// namespaces (32). `EUSERS`: the same before Linux 4.9. `ENOMEM`.
pub fn unshare(kinds: NamespaceFlags) -> Result<()> {
    // Other flags of unshare(2) are not for a safe function: CLONE_FILES would give
    // the thread other descriptors than those which the process believes it owns.
    if !NamespaceFlags::all().contains(kinds) {
        return Err(Errno::EINVAL);
    }
    call::unshare(kinds.bits()).map(drop)
}

/// Moves the calling thread into a namespace.
///
/// `namespace` is a namespace file ([`open_of`], [`open_path`]) of that `kind`, of
/// any kind when `kind` is empty; or, since Linux 5.8, a [`PidFd`](super::pidfd::PidFd),
/// and then `kind` may be several of that process's namespaces, joined all or none.
///
/// Linux 3.0 (`NET`, `IPC`, `UTS`); `MOUNT`, `PID`, `USER` 3.8, `CGROUP` 4.6, `TIME` 5.8.
///
/// # Errors
/// `EPERM`: no `CAP_SYS_ADMIN` over the namespace, or in the thread's own user
/// namespace (`MOUNT` wants `CAP_SYS_CHROOT` there too; `USER` only the former).
/// `EINVAL`: the file is not a namespace of that kind; `USER` from a process with
/// several threads, or the one it is in already; `PID` that is not at or below its
/// own; `MOUNT` while the thread shares its root and working directory with others,
/// as all threads do until they have unshared `MOUNT`. `EUSERS`: `TIME` from a
/// process with several threads. `ESRCH`: the process of the pidfd has been reaped.
pub fn setns(namespace: BorrowedFd<'_>, kind: NamespaceFlags) -> Result<()> {
    call::setns(namespace.as_raw_fd(), kind.bits()).map(drop)
}

/// Opens the namespace of one kind in which a process is: `/proc/PID/ns/…`, close-on-exec.
///
/// The descriptor keeps the namespace alive. `pid` is a number of the caller's
/// pid namespace, or rather of the one that its /proc shows; the answer is about the
/// first thread of the process.
///
/// ```
/// use belljar::sys::namespace::{NamespaceFlags, open_of};
/// use belljar::sys::path::stat;
/// use std::os::fd::AsFd;
/// use std::os::unix::fs::MetadataExt;
///
/// let own = open_of(std::process::id() as i32, NamespaceFlags::NET)?;
/// assert_eq!(stat(own.as_fd())?.ino, std::fs::metadata("/proc/self/ns/net")?.ino());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `EINVAL`: not exactly one kind. `ENOENT`: no such process, a kind that this kernel
/// does not have, or no /proc. `EACCES`: no right to inspect the process (ptrace(2),
/// `PTRACE_MODE_READ_FSCREDS`), or it is exiting. `EMFILE`, `ENFILE`, `ENOMEM`.
pub fn open_of(pid: i32, kind: NamespaceFlags) -> Result<OwnedFd> {
    let name = match kind {
        NamespaceFlags::TIME => "time",
        NamespaceFlags::MOUNT => "mnt",
        NamespaceFlags::CGROUP => "cgroup",
        NamespaceFlags::UTS => "uts",
        NamespaceFlags::IPC => "ipc",
        NamespaceFlags::USER => "user",
        NamespaceFlags::PID => "pid",
        NamespaceFlags::NET => "net",
        _ => return Err(Errno::EINVAL),
    };
    let path = CString::new(format!("/proc/{pid}/ns/{name}")).map_err(|_| Errno::EINVAL)?;
    open_path(&path)
}

/// Opens a namespace file by its path, close-on-exec: one of `/proc/PID/ns`, or one that was
/// bound elsewhere to keep the namespace, as `ip netns` does.
///
/// # Errors
/// `EINVAL`: it is another file. Those of
/// [open(2)](https://man7.org/linux/man-pages/man2/open.2.html): `ENOENT`, `EACCES`, ….
pub fn open_path(path: &CStr) -> Result<OwnedFd> {
    // Whatever else is there shall neither block nor become our terminal.
    let flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    let fd = call::openat(AT_FDCWD, path, flags, 0)?;
    // SAFETY: the kernel has just made this descriptor for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    match call::fstatfs(fd.as_raw_fd())?.f_type {
        NSFS_MAGIC => Ok(fd),
        _ => Err(Errno::EINVAL),
    }
}
