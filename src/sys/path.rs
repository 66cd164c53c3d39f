//! Opening beneath a root, opening paths of any length, and what an open file is:
//! openat2(2), statx(2).
//!
//! A path that comes from a tree which somebody else has written must not be opened
//! as it stands: `..` and symbolic links lead where they please. [`open_in_root`]
//! takes a directory for `/` while it resolves, as chroot(2) would; [`openat2`] has
//! the kernel's other rules. What is opened is a descriptor that stays what it is,
//! whatever is renamed or mounted later.
//!
//! Every descriptor made here is close-on-exec.
//!
//! Contract: <https://man7.org/linux/man-pages/man2/openat2.2.html>,
//! <https://man7.org/linux/man-pages/man7/path_resolution.7.html>,
//! <https://man7.org/linux/man-pages/man2/statx.2.html>.

use super::kernel::abi::*;
use super::kernel::{call, path};
use super::{Errno, Result};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The working directory of the calling thread, where a function takes a directory
/// for relative paths (`AT_FDCWD`).
// SAFETY: the kernel reserves this number, which is not -1, to mean the working
// directory; it never names a descriptor, so that nothing can close it.
pub const CWD: BorrowedFd<'static> = unsafe { BorrowedFd::borrow_raw(AT_FDCWD) };

bitflags::bitflags! {
    /// How to open, as open(2) spells it. Empty: for reading only.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct OpenFlags: i32 {
        /// O_WRONLY.
        const WRONLY = O_WRONLY;
        /// O_RDWR.
        const RDWR = O_RDWR;
        /// O_CREAT; only [`openat2`] takes it.
        const CREAT = O_CREAT;
        /// O_EXCL.
        const EXCL = O_EXCL;
        /// O_NOCTTY.
        const NOCTTY = O_NOCTTY;
        /// O_TRUNC.
        const TRUNC = O_TRUNC;
        /// O_APPEND.
        const APPEND = 0o2000;
        /// O_NONBLOCK: a FIFO or a device does not make the open wait.
        const NONBLOCK = O_NONBLOCK;
        /// O_DIRECTORY: `ENOTDIR` for anything else.
        const DIRECTORY = O_DIRECTORY;
        /// O_NOFOLLOW: a symbolic link as the last component is `ELOOP`, or with `PATH` itself opened.
        const NOFOLLOW = O_NOFOLLOW;
        /// O_PATH: names the file only, without opening it.
        const PATH = O_PATH;
    }
}

bitflags::bitflags! {
    /// How [`openat2`] resolves a path.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Resolve: u64 {
        /// RESOLVE_NO_XDEV: crossing a mount is `EXDEV`.
        const NO_XDEV = 0x01;
        /// RESOLVE_NO_MAGICLINKS: a link of /proc that leads to an object is `ELOOP`.
        const NO_MAGICLINKS = RESOLVE_NO_MAGICLINKS;
        /// RESOLVE_NO_SYMLINKS: any symbolic link is `ELOOP`.
        const NO_SYMLINKS = 0x04;
        /// RESOLVE_BENEATH: leaving the directory, if only for a moment, is `EXDEV`.
        const BENEATH = RESOLVE_BENEATH;
        /// RESOLVE_IN_ROOT: the directory is `/`, and its own parent.
        const IN_ROOT = RESOLVE_IN_ROOT;
        /// RESOLVE_CACHED, Linux 5.12: `EAGAIN` when the answer is not at hand.
        const CACHED = 0x20;
    }
}

/// Opens a path relative to a directory, under the kernel's rules of resolution:
/// openat2(2) itself, Linux 5.6.
///
/// `mode` is for a file that it makes, less the umask, and 0 unless `flags` has `CREAT`.
///
/// # Errors
/// Those of [open(2)](https://man7.org/linux/man-pages/man2/open.2.html), and:
/// `EXDEV` (`BENEATH`, `NO_XDEV`), `ELOOP` (`NO_SYMLINKS`, `NO_MAGICLINKS`, or more than
/// 40 links), `EAGAIN` (the kernel could not rule out that a rename led outside: try
/// again; or `CACHED`), `EINVAL` (flags that do not go together, or a mode without
/// `CREAT`), `ENOSYS` (before Linux 5.6, or a seccomp filter).
pub fn openat2(dir: BorrowedFd<'_>, path: &CStr, flags: OpenFlags, mode: u32, resolve: Resolve) -> Result<OwnedFd> {
    let flags = (flags.bits() | O_CLOEXEC) as u32;
    let how = OpenHow { flags: flags.into(), mode: mode.into(), resolve: resolve.bits() };
    let fd = call::openat2(dir.as_raw_fd(), path, &how)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens what is there at a path beneath `root`, which is `/` to it and to every
/// symbolic link on the way: neither `..` nor an absolute link leads out.
///
/// The links of /proc that lead to objects (proc_pid_fd(5)) are not followed. Where
/// openat2(2) is missing (before Linux 5.6, or under a seccomp filter that answers
/// `ENOSYS`) the path is walked one component at a time, with the same outcome, except
/// that such a link of /proc then counts as the text that it shows; a component that
/// is exchanged for a link meanwhile gives `ELOOP` or `ENOTDIR`.
///
/// ```
/// use belljar::sys::path::{OpenFlags, open_in_root, stat};
/// use std::os::fd::AsFd;
/// use std::os::unix::fs::MetadataExt;
///
/// let root = std::fs::File::open("/usr")?;
/// let inside = open_in_root(root.as_fd(), c"/../../bin", OpenFlags::PATH)?;
/// assert_eq!(stat(inside.as_fd())?.ino, std::fs::metadata("/usr/bin")?.ino());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `EINVAL` (`CREAT`, or flags that do not go together), `ENOENT`, `ENOTDIR`, `EACCES`,
/// `ELOOP` (more than 40 links, a link of /proc, or `NOFOLLOW` and a link),
/// `ENAMETOOLONG` (the path, or what it becomes when links are put in, exceeds 4095
/// bytes), `EMFILE`, and what else
/// [openat2(2)](https://man7.org/linux/man-pages/man2/openat2.2.html) gives.
pub fn open_in_root(root: BorrowedFd<'_>, path: &CStr, flags: OpenFlags) -> Result<OwnedFd> {
    existing(flags)?;
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    // The walk needs a descriptor that it can duplicate.
    let cwd;
    let root = if root.as_raw_fd() == AT_FDCWD {
        cwd = open_long(c".", OpenFlags::PATH | OpenFlags::DIRECTORY)?;
        cwd.as_fd()
    } else {
        root
    };
    // `name/` is the directory `name`, behind a link too: spelled so that the walk sees it.
    let dotted;
    let path = if path.to_bytes().ends_with(b"/") {
        dotted = CString::new([path.to_bytes(), b"."].concat()).map_err(|_| Errno::EINVAL)?;
        &dotted
    } else {
        path
    };
    let fd = path::open_in_root(root.as_raw_fd(), path, flags.bits(), true)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens what is there at a path of any length: one of `PATH_MAX` (4096) bytes or more is
/// opened piece by piece, each relative to the one before, as openat(2) allows.
///
/// Symbolic links are followed as by open(2), and the limit of 40 holds for each piece.
///
/// ```
/// use belljar::sys::path::{OpenFlags, open_long};
/// let path = std::ffi::CString::new("/".to_owned() + &"./".repeat(5000))?;
/// assert!(std::fs::File::open(path.to_str()?).is_err()); // ENAMETOOLONG
/// open_long(&path, OpenFlags::DIRECTORY)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Those of [open(2)](https://man7.org/linux/man-pages/man2/open.2.html); `ENAMETOOLONG`
/// only for a component of more than 255 bytes; `EINVAL` for `CREAT`.
pub fn open_long(path: &CStr, flags: OpenFlags) -> Result<OwnedFd> {
    existing(flags)?;
    let flags = flags.bits() | O_CLOEXEC;
    let fd = path::with_long_path(path, |dir, path| call::openat(dir, path, flags, 0))?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Refuses to create: the functions for existing files have no mode to do it with.
fn existing(flags: OpenFlags) -> Result<()> {
    if flags.contains(OpenFlags::CREAT) { Err(Errno::EINVAL) } else { Ok(()) }
}

/// A device, or the file system that a file is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Device {
    /// The driver.
    pub major: u32,
    /// Which one of its devices.
    pub minor: u32,
}

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A FIFO or pipe.
    Fifo,
    /// A socket.
    Socket,
    /// None of these: an object without a name, such as an epoll instance.
    Other,
}

/// What an open file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Stat {
    /// The file system that it is on.
    pub dev: Device,
    /// Its number there. Together with `dev` it names the file for as long as it exists.
    pub ino: u64,
    /// The kind.
    pub kind: FileKind,
    /// The permission bits, with set-user-ID, set-group-ID and sticky.
    pub mode: u32,
    /// The device that it is, if it is one.
    pub rdev: Device,
    /// The mount through which it was opened, as the first field of
    /// `/proc/self/mountinfo` (reused after an unmount); `None` before Linux 5.8.
    pub mnt_id: Option<u64>,
}

/// What an open file is: statx(2), Linux 4.11. Any descriptor will do, also an `O_PATH` one.
///
/// # Errors
/// `ENOMEM`; on network file systems and FUSE also theirs (`EIO`, `ESTALE`, …).
pub fn stat(fd: BorrowedFd<'_>) -> Result<Stat> {
    let stat = call::fstat(fd.as_raw_fd())?;
    let mode = u32::from(stat.mode);
    Ok(Stat {
        dev: Device { major: stat.dev_major, minor: stat.dev_minor },
        ino: stat.ino,
        kind: match stat.kind() {
            S_IFREG => FileKind::Regular,
            S_IFDIR => FileKind::Directory,
            S_IFLNK => FileKind::Symlink,
            S_IFCHR => FileKind::Character,
            S_IFSOCK => FileKind::Socket,
            0o060000 => FileKind::Block,
            0o010000 => FileKind::Fifo,
            _ => FileKind::Other,
        },
        mode: mode & !S_IFMT,
        rdev: Device { major: stat.rdev_major, minor: stat.rdev_minor },
        mnt_id: (stat.mask & STATX_MNT_ID != 0).then_some(stat.mnt_id),
    })
}
