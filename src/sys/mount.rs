//! Mounts: the calls on descriptors of Linux 5.2, and mount(2).
//!
//! With the former a mount exists before it is anywhere: [`FsContext`] makes a new file
//! system and gives its root, [`open_tree`] clones what is mounted already, both as
//! *detached* mounts that live as long as their descriptor. [`mount_setattr`] changes
//! them, [`move_mount`] attaches them; through the descriptor one can open files
//! beneath them all along. [`mount`], [`bind`], [`remount`] and the rest go by path, on
//! every kernel.
//!
//! All of them change the mount namespace of the calling thread, and want
//! `CAP_SYS_ADMIN` in the user namespace that owns it (`EPERM` otherwise): as an
//! ordinary user, call [`unshare`](super::namespace::unshare) with `USER | MOUNT` first.
//! Mounts that came from a more privileged namespace stay locked together there, with
//! their read-only, nosuid, nodev, noexec and access-time flags.
//!
//! A function that takes a directory and a path resolves as openat(2) does:
//! [`CWD`](super::path::CWD) is the working directory, an absolute path ignores the
//! directory, and an **empty path is the descriptor itself** (`AT_EMPTY_PATH`), of
//! whatever kind the file is. Every descriptor made here is close-on-exec.
//!
//! ```no_run
//! use belljar::sys::mount::{FsContext, MountAttr, move_mount};
//! use belljar::sys::path::CWD;
//! use std::os::fd::AsFd;
//!
//! let fs = FsContext::open(c"tmpfs")?;
//! fs.set_string(c"size", c"16m")?;
//! fs.create()?;
//! let tree = fs.mount(MountAttr::NODEV | MountAttr::NOSUID)?;
//! move_mount(tree.as_fd(), CWD, c"/mnt")?;
//! # Ok::<(), belljar::sys::Errno>(())
//! ```
//!
//! Contract: <https://man7.org/linux/man-pages/man7/mount_namespaces.7.html>,
//! <https://man7.org/linux/man-pages/man2/fsopen.2.html>,
//! <https://man7.org/linux/man-pages/man2/mount.2.html>.

use super::kernel::abi::{self, *};
use super::kernel::call;
use super::{Errno, Result};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

bitflags::bitflags! {
    /// What a mount does not allow, whatever its file system does: `MOUNT_ATTR_…`.
    ///
    /// `NOATIME` and `STRICTATIME` exclude each other; neither is relatime.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct MountAttr: u64 {
        /// No writing.
        const RDONLY = MOUNT_ATTR_RDONLY;
        /// Set-user-ID, set-group-ID and file capabilities have no effect.
        const NOSUID = MOUNT_ATTR_NOSUID;
        /// Devices cannot be opened.
        const NODEV = MOUNT_ATTR_NODEV;
        /// Programs cannot be executed.
        const NOEXEC = MOUNT_ATTR_NOEXEC;
        /// Access times are never updated.
        const NOATIME = MOUNT_ATTR_NOATIME;
        /// Access times are always updated.
        const STRICTATIME = 0x20;
        /// Access times of directories are not updated.
        const NODIRATIME = 0x80;
        /// Symbolic links are not followed, Linux 5.14.
        const NOSYMFOLLOW = 0x20_0000;
    }
}

bitflags::bitflags! {
    /// Flags of a mount for mount(2), `MS_…`.
    ///
    /// What mount(2) does besides (bind, remount, propagation) are functions here.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct MountFlags: usize {
        /// MS_RDONLY.
        const RDONLY = MS_RDONLY;
        /// MS_NOSUID.
        const NOSUID = MS_NOSUID;
        /// MS_NODEV.
        const NODEV = MS_NODEV;
        /// MS_NOEXEC.
        const NOEXEC = MS_NOEXEC;
        /// MS_NOSYMFOLLOW, Linux 5.10.
        const NOSYMFOLLOW = 256;
        /// MS_NOATIME.
        const NOATIME = MS_NOATIME;
        /// MS_NODIRATIME.
        const NODIRATIME = MS_NODIRATIME;
        /// MS_RELATIME, which is the default.
        const RELATIME = MS_RELATIME;
        /// MS_STRICTATIME.
        const STRICTATIME = 1 << 24;
    }
}

bitflags::bitflags! {
    /// How [`open_tree`] opens. Empty: what is there, as `O_PATH` does.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct OpenTreeFlags: u32 {
        /// A detached clone of the mount, with the path as its root.
        const CLONE = OPEN_TREE_CLONE;
        /// With `CLONE`: and of the mounts below.
        const RECURSIVE = AT_RECURSIVE;
        /// A symbolic link as the last component is taken itself.
        const NOFOLLOW = AT_SYMLINK_NOFOLLOW;
        /// An automount point as the last component is not mounted.
        const NO_AUTOMOUNT = 0x800;
    }
}

bitflags::bitflags! {
    /// How [`umount`] unmounts.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct UnmountFlags: usize {
        /// MNT_FORCE: gives up requests under way (NFS, FUSE), at the price of data.
        const FORCE = 1;
        /// MNT_DETACH: takes the mount and those below out of the tree at once; they end when nobody uses them.
        const DETACH = MNT_DETACH;
        /// MNT_EXPIRE: the first call marks an unused mount (`EAGAIN`), the second unmounts it if it was not used between.
        const EXPIRE = 4;
        /// UMOUNT_NOFOLLOW: a symbolic link as the last component is not followed.
        const NOFOLLOW = 8;
    }
}

/// What becomes of mounts that are made and unmade below a mount and its peers:
/// mount_namespaces(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Propagation {
    /// They go neither way.
    Private,
    /// They come from the peers, and do not go to them.
    Slave,
    /// They go both ways.
    Shared,
    /// As `Private`, and the mount cannot be cloned.
    Unbindable,
}

impl Propagation {
    fn flag(self) -> usize {
        match self {
            Propagation::Private => MS_PRIVATE,
            Propagation::Slave => MS_SLAVE,
            Propagation::Shared => MS_SHARED,
            Propagation::Unbindable => MS_UNBINDABLE,
        }
    }
}

/// `flag` when the path is empty and so means the descriptor.
fn itself(path: &CStr, flag: u32) -> u32 {
    if path.is_empty() { flag } else { 0 }
}

/// A file system in the making: fsopen(2), fsconfig(2), fsmount(2).
///
/// [`open`](FsContext::open) it, set parameters, [`create`](FsContext::create),
/// [`mount`](FsContext::mount). When a step fails, [`log`](FsContext::log) says why in
/// words.
#[derive(Debug)]
pub struct FsContext(OwnedFd);

impl FsContext {
    /// Begins a file system of this type (`/proc/filesystems`):
    /// [fsopen(2)](https://man7.org/linux/man-pages/man2/fsopen.2.html), Linux 5.2.
    ///
    /// # Errors
    /// `ENODEV` (no such type), `EPERM`, `ENOSYS`, `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn open(fstype: &CStr) -> Result<FsContext> {
        let fd = call::fsopen(fstype, FSOPEN_CLOEXEC)?;
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(FsContext(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sets a parameter to a string of at most 255 bytes:
    /// [fsconfig(2)](https://man7.org/linux/man-pages/man2/fsconfig.2.html).
    ///
    /// Some types need `source`, which others only show.
    ///
    /// # Errors
    /// `EINVAL` (no such parameter, no such value, or too long), `EBUSY` (created
    /// already, or failed to), `EPERM`, and the file system's own.
    pub fn set_string(&self, key: &CStr, value: &CStr) -> Result<()> {
        call::fsconfig_string(self.0.as_raw_fd(), key, value)
    }

    /// Sets a parameter that has no value, such as `ro`.
    ///
    /// # Errors
    /// As [`set_string`](FsContext::set_string).
    pub fn set_flag(&self, key: &CStr) -> Result<()> {
        call::fsconfig_flag(self.0.as_raw_fd(), key)
    }

    /// Sets a parameter to an open file, where the type knows of such. The descriptor
    /// may be closed afterwards.
    ///
    /// # Errors
    /// As [`set_string`](FsContext::set_string); `EINVAL` also where only a string will
    /// do, `EBADF` for an `O_PATH` descriptor on a kernel that does not take these here.
    pub fn set_fd(&self, key: &CStr, fd: BorrowedFd<'_>) -> Result<()> {
        call::fsconfig_fd(self.0.as_raw_fd(), key, fd.as_raw_fd())
    }

    /// Creates the file system, or finds it where the type has one per source.
    ///
    /// # Errors
    /// `EBUSY` (done already, or it failed before), `EINVAL` (the parameters do not go
    /// together), `EPERM` (this type wants more than the user namespace has), `ENOMEM`,
    /// and the file system's own, such as `ENOENT` for its source.
    pub fn create(&self) -> Result<()> {
        call::fsconfig_create(self.0.as_raw_fd())
    }

    /// Gives the root of the created file system as a detached mount:
    /// [fsmount(2)](https://man7.org/linux/man-pages/man2/fsmount.2.html). Once only.
    ///
    /// The descriptor is as one of `O_PATH`. Unless it is attached ([`move_mount`]), the
    /// mount ends with it.
    ///
    /// # Errors
    /// `EINVAL` (not created yet, attributes that this kernel does not have, or two
    /// access-time modes), `EBUSY` (mounted already), `EPERM` (also for a proc or
    /// sysfs, where the one that is there is partly covered), `ENOSPC`
    /// (`/proc/sys/user/max_mnt_namespaces`), `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn mount(&self, attributes: MountAttr) -> Result<OwnedFd> {
        let fd = call::fsmount(self.0.as_raw_fd(), FSMOUNT_CLOEXEC, attributes.bits())?;
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Takes what the kernel has to say about the steps so far, oldest first.
    ///
    /// A message is as the kernel words it, behind `e ` (error), `w ` (warning) or `i `
    /// (information). It keeps the last eight. Empty when there are none.
    pub fn log(&self) -> Vec<String> {
        /// Not among the constants of [`Errno`].
        const EMSGSIZE: Errno = Errno(90);
        const MOST: usize = 1 << 20;
        let mut messages = Vec::new();
        let mut buffer = vec![0u8; 8192];
        loop {
            match call::read(self.0.as_raw_fd(), &mut buffer) {
                Ok(0) => return messages,
                Ok(len) => messages.push(String::from_utf8_lossy(&buffer[..len]).into_owned()),
                Err(Errno::EINTR) => {}
                // kept for a larger buffer, or lost before Linux 6.17: either way there is a next
                Err(EMSGSIZE) if buffer.len() < MOST => buffer.resize(4 * buffer.len(), 0),
                // ENODATA: no more
                Err(_) => return messages,
            }
        }
    }
}

impl AsFd for FsContext {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<FsContext> for OwnedFd {
    fn from(context: FsContext) -> OwnedFd {
        context.0
    }
}

/// Opens a path, or clones the mount there:
/// [open_tree(2)](https://man7.org/linux/man-pages/man2/open_tree.2.html), Linux 5.2.
///
/// A clone is detached: it ends with the descriptor unless [`move_mount`] attaches it.
/// Without `CLONE` no privilege is needed.
///
/// ```no_run
/// use belljar::sys::mount::{AttrChange, MountAttr, OpenTreeFlags, mount_setattr, move_mount, open_tree};
/// use belljar::sys::path::CWD;
/// use std::os::fd::AsFd;
///
/// // /usr, read-only, at /mnt
/// let tree = open_tree(CWD, c"/usr", OpenTreeFlags::CLONE | OpenTreeFlags::RECURSIVE)?;
/// let read_only = AttrChange { set: MountAttr::RDONLY, recursive: true, ..AttrChange::default() };
/// mount_setattr(tree.as_fd(), c"", &read_only)?;
/// move_mount(tree.as_fd(), CWD, c"/mnt")?;
/// # Ok::<(), belljar::sys::Errno>(())
/// ```
///
/// # Errors
/// `EPERM`. `EINVAL`: `RECURSIVE` without `CLONE`, an unbindable mount, one of another
/// mount namespace, or one with locked mounts below that are not cloned with it.
/// `ENOSPC`: `/proc/sys/user/max_mnt_namespaces`, `/proc/sys/fs/mount-max`. `ENOSYS`,
/// `EMFILE`, `ENFILE`, `ENOMEM`, and those of a path: `ENOENT`, `ENOTDIR`, `EACCES`, `ELOOP`.
pub fn open_tree(dir: BorrowedFd<'_>, path: &CStr, flags: OpenTreeFlags) -> Result<OwnedFd> {
    let flags = flags.bits() | itself(path, AT_EMPTY_PATH) | OPEN_TREE_CLOEXEC;
    let fd = call::open_tree(dir.as_raw_fd(), path, flags)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a detached mount at a path, or moves one that is attached:
/// [move_mount(2)](https://man7.org/linux/man-pages/man2/move_mount.2.html), Linux 5.2.
///
/// A symbolic link as the last component is not followed. `tree` goes on to name the mount.
///
/// # Errors
/// `EPERM`. `EINVAL`: `tree` is not the root of a mount, it or the target belongs to
/// another mount namespace, it is locked or below a shared mount, or one is unbindable and
/// the target shared; before Linux 6.15, the target is a detached mount. `ENOTDIR`: one is a directory
/// and the other is not, or as for a path. `ELOOP`: the target is in `tree`. `ENOSPC`:
/// `/proc/sys/fs/mount-max`. `ENOSYS`, `ENOMEM`, `ENOENT`, `EACCES`.
pub fn move_mount(tree: BorrowedFd<'_>, dir: BorrowedFd<'_>, path: &CStr) -> Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | itself(path, MOVE_MOUNT_T_EMPTY_PATH);
    call::move_mount(tree.as_raw_fd(), c"", dir.as_raw_fd(), path, flags).map(drop)
}

/// As [`move_mount`], over an open target: what it names cannot change meanwhile.
///
/// # Errors
/// As [`move_mount`]; `ENOENT` when the target has been removed.
pub fn move_mount_over(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    move_mount(tree, target, c"")
}

/// A change of mounts, for [`mount_setattr`]. The default changes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttrChange<'a> {
    /// Attributes to set. One of the access-time modes replaces the other.
    pub set: MountAttr,
    /// Attributes to clear, before. One of the access-time modes, either: back to relatime.
    pub clear: MountAttr,
    /// The propagation to have, if it is to change.
    pub propagation: Option<Propagation>,
    /// Whether the mounts below change too: all or none.
    pub recursive: bool,
    /// A user namespace through whose id maps owners are seen from then on. Only for a detached
    /// mount that has none yet, of a file system that allows it.
    pub id_map: Option<BorrowedFd<'a>>,
}

/// Changes the attributes of the mount at a path, or of the whole tree from there:
/// [mount_setattr(2)](https://man7.org/linux/man-pages/man2/mount_setattr.2.html), Linux 5.12.
///
/// # Errors
/// `EPERM` (also: an attribute is locked; the id map is that of the initial user
/// namespace, or the mount has one, or the file system belongs to a more privileged user
/// namespace). `EINVAL`: the path is not the root of a mount of this namespace nor
/// detached, an attribute that this kernel does not have or two access-time modes; for an
/// id map, not a user namespace, an attached mount, or a file system that does not do it.
/// `EBUSY`: files are open for writing there (`RDONLY`, `id_map`). `ENOSYS`, `ENOMEM`, and those of a path.
pub fn mount_setattr(dir: BorrowedFd<'_>, path: &CStr, change: &AttrChange<'_>) -> Result<()> {
    let (set, mut clear) = (change.set.bits(), change.clear.bits());
    // A retained unknown bit must not make the kernel read a descriptor that nobody gave.
    if (set | clear) & MOUNT_ATTR_IDMAP != 0 {
        return Err(Errno::EINVAL);
    }
    // The access-time mode is a number in a field, which is only replaced whole.
    if (set | clear) & MOUNT_ATTR_ATIME != 0 {
        clear |= MOUNT_ATTR_ATIME;
    }
    let mut attr = abi::MountAttr {
        attr_set: set,
        attr_clr: clear,
        propagation: change.propagation.map_or(0, |p| p.flag() as u64),
        userns_fd: 0,
    };
    if let Some(id_map) = change.id_map {
        attr.attr_set |= MOUNT_ATTR_IDMAP;
        attr.userns_fd = id_map.as_raw_fd() as u64;
    }
    let flags = itself(path, AT_EMPTY_PATH) | if change.recursive { AT_RECURSIVE } else { 0 };
    call::mount_setattr(dir.as_raw_fd(), path, flags, &attr).map(drop)
}

/// Mounts a new file system at a path: [mount(2)](https://man7.org/linux/man-pages/man2/mount.2.html).
///
/// `data` is the file system's own options, `key=value,…`, shorter than a page.
///
/// # Errors
/// `EPERM`, `ENODEV` (no such type), `EINVAL` (an option, or no such file system in
/// `source`), `EBUSY` (the source is in use otherwise), `ENOTBLK`, `ENOTDIR`, `ENOENT`,
/// `EACCES`, `ELOOP`, `ENAMETOOLONG`, `ENOMEM`, `ENOSPC` (`/proc/sys/fs/mount-max`).
pub fn mount(source: &CStr, target: &CStr, fstype: &CStr, flags: MountFlags, data: Option<&CStr>) -> Result<()> {
    call::mount(Some(source), target, Some(fstype), flags.bits(), data)
}

/// Makes the tree at `source` appear at `target` also: mount(2) `MS_BIND`, Linux 2.4.
///
/// The flags are those of the mount at `source`; [`remount_bind`] changes them.
///
/// # Errors
/// `EPERM`. `EINVAL`: an unbindable source, or locked mounts below when not `recursive`.
/// `ENOTDIR`: one is a directory and the other is not. Those of a path; `ENOMEM`, `ENOSPC`.
pub fn bind(source: &CStr, target: &CStr, recursive: bool) -> Result<()> {
    call::mount(Some(source), target, None, MS_BIND | rec(recursive), None)
}

/// Changes a mounted file system itself, wherever it is mounted, and this mount of it:
/// mount(2) `MS_REMOUNT`.
///
/// Flags that are not given are cleared.
///
/// # Errors
/// `EBUSY` (files are open for writing), `EINVAL` (not the root of a mount, or an
/// option), `EPERM` (a locked flag, or a file system of a more privileged user
/// namespace), `EACCES` (a read-only device), and those of a path.
pub fn remount(target: &CStr, flags: MountFlags, data: Option<&CStr>) -> Result<()> {
    call::mount(None, target, None, MS_REMOUNT | flags.bits(), data)
}

/// Changes the flags of one mount, not of its file system nor of the mounts below:
/// mount(2) `MS_REMOUNT | MS_BIND`, Linux 2.6.26.
///
/// Flags that are not given are cleared, the access-time mode is kept if none is.
///
/// # Errors
/// As [`remount`].
pub fn remount_bind(target: &CStr, flags: MountFlags) -> Result<()> {
    call::mount(None, target, None, MS_REMOUNT | MS_BIND | flags.bits(), None)
}

/// Sets the propagation of a mount: mount(2) `MS_PRIVATE` and the like, Linux 2.6.15.
///
/// A namespace's first step is often `Slave` or `Private` at `/`, recursively: until then
/// what is mounted in it may appear in the one that it was copied from.
///
/// # Errors
/// `EINVAL` (not the root of a mount), `EPERM`, `ENOMEM`, and those of a path.
pub fn set_propagation(target: &CStr, propagation: Propagation, recursive: bool) -> Result<()> {
    call::mount(None, target, None, propagation.flag() | rec(recursive), None)
}

fn rec(recursive: bool) -> usize {
    if recursive { MS_REC } else { 0 }
}

/// Unmounts what is on top at a path: [umount2(2)](https://man7.org/linux/man-pages/man2/umount.2.html).
///
/// # Errors
/// `EINVAL` (not a mount of this namespace, a locked one, or `EXPIRE` with `DETACH` or
/// `FORCE`), `EBUSY` (in use, or with mounts below; not with `DETACH`), `EAGAIN`
/// (`EXPIRE`), `EPERM`, and those of a path.
pub fn umount(target: &CStr, flags: UnmountFlags) -> Result<()> {
    call::umount2(target, flags.bits()).map(drop)
}

/// Makes `new` the root of the mount namespace, and puts the old one at `old`, beneath it:
/// [pivot_root(2)](https://man7.org/linux/man-pages/man2/pivot_root.2.html), Linux 2.3.41.
///
/// Every process of the namespace whose root or working directory was the old root gets
/// the new one. `old` may be `new`, as in `pivot_root(c".", c".")` from the new root: the old one is
/// then on top of it, until it is unmounted at `.` with [`UnmountFlags::DETACH`].
///
/// # Errors
/// `EINVAL`: `new` is not the root of a mount, `old` is not beneath it, the current root
/// is not the root of a mount (a chroot, or the initramfs), it is locked, or one of them
/// or of their parents is shared. `EBUSY`: one of them is on the current root mount.
/// `ENOTDIR`, `EPERM`, `ENOENT`, `EACCES`.
pub fn pivot_root(new: &CStr, old: &CStr) -> Result<()> {
    call::pivot_root(new, old).map(drop)
}
