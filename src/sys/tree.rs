//! Walking and copying a tree that somebody else has written, and perhaps still writes:
//! nothing is followed, nothing blocks, nothing outside is reached.

use super::kernel::abi::*;
use super::kernel::{call, path};
use super::path::OpenFlags;
use super::{Errno, Result};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

/// Opens what is there at a relative path beneath a directory, without following any link and
/// without leaving it: openat2(2) with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS`,
/// or (`by_call` false, or where the kernel or a filter above it does not have that call) one component at a
/// time. `NOFOLLOW`, `NONBLOCK` and `NOCTTY` are implied: a FIFO or a device does not make it wait.
///
/// ```
/// use belljar::sys::{Errno, path::{OpenFlags, open_long}, tree::{names, open_beneath}};
/// use std::os::fd::AsFd;
///
/// let etc = open_long(c"/etc", OpenFlags::DIRECTORY)?;
/// assert!(names(etc.as_fd())?.contains(&"passwd".into()));
/// for by_call in [true, false] {
///     open_beneath(etc.as_fd(), c"passwd", OpenFlags::empty(), by_call)?;
///     let out = open_beneath(etc.as_fd(), c"../bin", OpenFlags::PATH, by_call);
///     assert_eq!(out.err(), Some(Errno(18))); // EXDEV
///     let proc = open_long(c"/proc", OpenFlags::DIRECTORY)?;
///     let link = open_beneath(proc.as_fd(), c"self/status", OpenFlags::empty(), by_call);
///     assert!(matches!(link.err(), Some(Errno(40 | 20)))); // ELOOP, or ENOTDIR step by step
/// }
/// # Ok::<(), Errno>(())
/// ```
///
/// # Errors
/// `ELOOP` (a link; as the last component only without `PATH`; `ENOTDIR` for one on the way, step by step), `EXDEV` (`..`), `EINVAL` (`CREAT`, an
/// absolute or an empty path), `ENAMETOOLONG` (4096 bytes or more), and those of open(2).
pub fn open_beneath(dir: BorrowedFd<'_>, path: &CStr, flags: OpenFlags, by_call: bool) -> Result<OwnedFd> {
    let bytes = path.to_bytes();
    if flags.contains(OpenFlags::CREAT) || bytes.is_empty() || bytes[0] == b'/' {
        return Err(Errno::EINVAL);
    }
    if bytes.len() >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG); // also where no call would mind: a tree may be as deep as it has inodes
    }
    if bytes.split(|b| *b == b'/').any(|name| name == b"..") {
        return Err(Errno(libc::EXDEV));
    }
    let quiet = if flags.contains(OpenFlags::PATH) { 0 } else { O_NONBLOCK | O_NOCTTY };
    let flags = flags.bits() | quiet | O_NOFOLLOW | O_CLOEXEC;
    if by_call {
        let resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
        let how = OpenHow { flags: flags as u64, mode: 0, resolve };
        match call::openat2(dir.as_raw_fd(), path, &how) {
            Err(Errno::ENOSYS | Errno::EAGAIN) => {} // not there, or a rename on the way: step by step
            // SAFETY: the kernel has just made this descriptor for us.
            answer => return answer.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
        }
    }
    let mut at: Option<OwnedFd> = None;
    let mut names = bytes.split(|b| *b == b'/').filter(|name| !name.is_empty()).peekable();
    while let Some(name) = names.next() {
        let how = if names.peek().is_some() { O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC } else { flags };
        let from = at.as_ref().map_or(dir.as_raw_fd(), AsRawFd::as_raw_fd);
        let fd = path::name_cstr(name, |name| call::openat(from, name, how, 0))?;
        // SAFETY: as above.
        at = Some(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    at.ok_or(Errno::EINVAL)
}

/// Makes a regular file for writing in a directory: a new one, or it is `EEXIST`. `mode` less the umask.
///
/// # Errors
/// Those of open(2).
pub fn create_new(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<OwnedFd> {
    let flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    let fd = call::openat(dir.as_raw_fd(), name, flags, mode)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The names in a directory that is open for reading, in order, without `.` and `..`.
///
/// # Errors
/// Those of getdents64(2).
pub fn names(dir: BorrowedFd<'_>) -> Result<Vec<OsString>> {
    let mut buffer = vec![0u8; 32 * 1024];
    let mut names = Vec::new();
    loop {
        let got = call::getdents64(dir.as_raw_fd(), &mut buffer)?;
        let mut rest = &buffer[..got];
        if rest.is_empty() {
            names.sort_unstable();
            return Ok(names);
        }
        // struct linux_dirent64: ino u64, off u64, reclen u16, type u8, name
        while let Some(head) = rest.get(..19) {
            let record;
            (record, rest) = rest
                .split_at_checked(u16::from_le_bytes([head[16], head[17]]).into())
                .filter(|(record, _)| record.len() > 19)
                .ok_or(Errno::EIO)?;
            let name = CStr::from_bytes_until_nul(&record[19..]).map_err(|_| Errno::EIO)?.to_bytes();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_vec()));
            }
        }
    }
}

/// What a symbolic link, open with `PATH | NOFOLLOW`, says.
///
/// # Errors
/// `ENOENT`: it is no link.
pub fn link_target(link: BorrowedFd<'_>) -> Result<CString> {
    let mut buffer = vec![0u8; PATH_MAX];
    let len = call::readlinkat(link.as_raw_fd(), c"", &mut buffer)?;
    buffer.truncate(len);
    CString::new(buffer).map_err(|_| Errno::EIO)
}

/// An extended attribute (xattr(7)) of an open file; `None` where there is none, or no such thing.
///
/// # Errors
/// `EPERM`, `E2BIG` for one of more than 64 KiB.
pub fn attribute(fd: BorrowedFd<'_>, name: &CStr) -> Result<Option<Vec<u8>>> {
    let mut value = vec![0u8; 256];
    loop {
        match call::fgetxattr(fd.as_raw_fd(), name, &mut value) {
            Ok(len) => {
                value.truncate(len);
                return Ok(Some(value));
            }
            Err(Errno(libc::ENODATA) | Errno::EOPNOTSUPP) => return Ok(None),
            Err(Errno(libc::ERANGE)) if value.len() < XATTR_MAX => value.resize(XATTR_MAX, 0),
            Err(errno) => return Err(errno),
        }
    }
}

/// All extended attributes of an open file that the caller may see.
///
/// # Errors
/// As [`attribute`].
pub fn attributes(fd: BorrowedFd<'_>) -> Result<BTreeMap<CString, Vec<u8>>> {
    let mut list = vec![0u8; XATTR_MAX];
    let len = match call::flistxattr(fd.as_raw_fd(), &mut list) {
        Err(Errno::EOPNOTSUPP) => 0,
        answer => answer?,
    };
    let mut all = BTreeMap::new();
    for name in list[..len].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let name = CString::new(name).map_err(|_| Errno::EIO)?;
        if let Some(value) = attribute(fd, &name)? {
            all.insert(name, value);
        }
    }
    Ok(all)
}
