//! Paths resolved beneath a root, so that neither `..` nor a symbolic link of the
//! tree can lead out of it; and paths longer than the kernel takes at once.
//!
//! openat2(2) with `RESOLVE_IN_ROOT` does it in one call since Linux 5.6. Where
//! that is missing, or where the caller needs the canonical path, [`walk`] takes
//! one component at a time with `O_PATH | O_NOFOLLOW` and reads the links itself.
//!
//! Functions with buffers of a path's length are not inlined: each page of a frame is
//! touched on entry, and most callers never come so far.
#![allow(dead_code)]

use super::abi::*;
use super::call;
use super::raw::{Errno, Result};
use core::ffi::CStr;

/// Symbolic links followed before `ELOOP`, as path_resolution(7) has it.
const MAX_LINKS: u32 = 40;

/// Opens `path` beneath `root` with `flags` (`O_CLOEXEC` is added).
pub fn open_in_root(root: i32, path: &CStr, flags: i32, use_openat2: bool) -> Result<i32> {
    if use_openat2 {
        let how =
            OpenHow { flags: (flags | O_CLOEXEC) as u64, mode: 0, resolve: RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
        // A rename somewhere on the way makes the kernel answer EAGAIN: openat2(2).
        for _ in 0..64 {
            match call::openat2(root, path, &how) {
                Err(Errno::EAGAIN) => continue,
                Err(Errno::ENOSYS) => break,
                answer => return answer,
            }
        }
    }
    open_by_walk(root, path, flags)
}

#[inline(never)]
fn open_by_walk(root: i32, path: &CStr, flags: i32) -> Result<i32> {
    let mut canonical = Canonical::new();
    let how = if flags & O_NOFOLLOW == 0 { Walk::Follow } else { Walk::NoFollow };
    walk(root, path.to_bytes(), how, &mut canonical)?;
    canonical.open(root, flags)
}

/// A path beneath a root without `.`, `..`, symbolic links or a leading slash.
pub struct Canonical {
    bytes: [u8; PATH_MAX],
    len: usize,
}

impl Canonical {
    /// The root itself.
    pub fn new() -> Self {
        Canonical { bytes: [0; PATH_MAX], len: 0 }
    }

    /// The path, `.` for the root itself.
    pub fn as_cstr(&self) -> &CStr {
        if self.len == 0 {
            return c".";
        }
        // The byte after the path is always NUL: `push` and `pop` keep it so.
        CStr::from_bytes_until_nul(&self.bytes[..=self.len]).unwrap_or(c".")
    }

    fn push(&mut self, name: &[u8]) -> Result<()> {
        let at = if self.len == 0 { 0 } else { self.len + 1 };
        if at + name.len() + 1 >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if at > 0 {
            self.bytes[self.len] = b'/';
        }
        self.bytes[at..at + name.len()].copy_from_slice(name);
        self.len = at + name.len();
        self.bytes[self.len] = 0;
        Ok(())
    }

    fn pop(&mut self) {
        self.len = self.bytes[..self.len].iter().rposition(|b| *b == b'/').unwrap_or(0);
        self.bytes[self.len] = 0;
    }

    /// Opens the path component by component, refusing any link that has appeared since.
    fn open(&self, root: i32, flags: i32) -> Result<i32> {
        let mut at = call::fcntl(root, F_DUPFD_CLOEXEC, 0)?;
        let mut names = self.bytes[..self.len].split(|b| *b == b'/').filter(|n| !n.is_empty()).peekable();
        while let Some(name) = names.next() {
            let last = names.peek().is_none();
            let how = if last { flags } else { O_PATH | O_DIRECTORY };
            let next = name_cstr(name, |name| call::openat(at, name, how | O_NOFOLLOW | O_CLOEXEC, 0));
            let _ = call::close(at); // an O_PATH descriptor of ours: nothing to lose
            at = next?;
            if last {
                return Ok(at);
            }
        }
        let last = call::openat(at, c".", flags | O_CLOEXEC, 0);
        let _ = call::close(at);
        last
    }
}

impl Default for Canonical {
    fn default() -> Self {
        Self::new()
    }
}

/// How a [`walk`] takes what it finds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// Follows every link; everything must be there.
    Follow,
    /// Follows every link but the last component, which may also be missing.
    NoFollow,
    /// Follows every link, also one that leads nowhere yet; anything may be missing.
    Missing,
}

/// Resolves `path` beneath `root`.
#[inline(never)]
pub fn walk(root: i32, path: &[u8], how: Walk, out: &mut Canonical) -> Result<()> {
    // What is still to be resolved: the unread tail of the path, behind the targets
    // of the links met so far, right-aligned so that a target can be put before it.
    let mut rest = [0u8; 2 * PATH_MAX];
    if path.len() >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    let mut at = rest.len() - path.len();
    rest[at..].copy_from_slice(path);
    let mut links = 0;
    out.len = 0;
    out.bytes[0] = 0;
    loop {
        while at < rest.len() && rest[at] == b'/' {
            at += 1;
        }
        if at == rest.len() {
            return Ok(());
        }
        let end = rest[at..].iter().position(|b| *b == b'/').map_or(rest.len(), |n| at + n);
        let last = rest[end..].iter().all(|b| *b == b'/');
        let (start, stop) = (at, end);
        at = end;
        match &rest[start..stop] {
            b"." => continue,
            b".." => {
                out.pop();
                continue;
            }
            name => out.push(name)?,
        }
        if last && how == Walk::NoFollow {
            return Ok(());
        }
        let fd = match out.open(root, O_PATH) {
            Err(Errno::ENOENT) if how == Walk::Missing => continue,
            answer => answer?,
        };
        let kind = call::fstat(fd).map(|s| s.kind());
        let mut target = [0u8; PATH_MAX];
        let link = match kind {
            Ok(S_IFLNK) => Some(read_link(fd, &mut target)),
            Ok(S_IFDIR) => None,
            Ok(_) if !last => Some(Err(Errno::ENOTDIR)),
            Ok(_) => None,
            Err(errno) => Some(Err(errno)),
        };
        let _ = call::close(fd);
        if let Some(length) = link {
            let target = &target[..length?];
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::ELOOP);
            }
            if target.len() >= at {
                return Err(Errno::ENAMETOOLONG);
            }
            out.pop();
            if target.first() == Some(&b'/') {
                out.len = 0;
                out.bytes[0] = 0;
            }
            at -= target.len();
            rest[at..at + target.len()].copy_from_slice(target);
        }
    }
}

/// Reads a link, but no magic one (`/proc/PID/fd/N`, `cwd`, `root`, `exe`): what that
/// leads to is not what its text says. Plain links of procfs are relative (`self/mounts`).
#[inline(never)]
fn read_link(fd: i32, target: &mut [u8]) -> Result<usize> {
    let len = call::readlinkat(fd, c"", target)?;
    let text = &target[..len];
    let procfs = call::fstatfs(fd)?.f_type == PROC_SUPER_MAGIC;
    if procfs && (text.first() == Some(&b'/') || text.contains(&b':')) {
        return Err(Errno::ELOOP);
    }
    Ok(len)
}

/// Calls `f` with `name` as a C string of at most `PATH_MAX` bytes.
#[inline(never)]
pub fn name_cstr<T>(name: &[u8], f: impl FnOnce(&CStr) -> Result<T>) -> Result<T> {
    let mut buffer = [0u8; PATH_MAX];
    if name.len() >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    buffer[..name.len()].copy_from_slice(name);
    f(CStr::from_bytes_with_nul(&buffer[..=name.len()]).map_err(|_| Errno::EINVAL)?)
}

/// Calls `f` with a directory and a path that together name `path`, which may be
/// longer than `PATH_MAX`: the front of it is opened piece by piece.
#[inline(never)]
pub fn with_long_path<T>(path: &CStr, f: impl FnOnce(i32, &CStr) -> Result<T>) -> Result<T> {
    let bytes = path.to_bytes();
    if bytes.len() < PATH_MAX {
        return f(AT_FDCWD, path);
    }
    let mut dir = AT_FDCWD;
    let mut at = 0;
    let close = |dir: i32| {
        if dir != AT_FDCWD {
            let _ = call::close(dir); // an O_PATH descriptor of ours
        }
    };
    while bytes.len() - at >= PATH_MAX {
        let window = &bytes[at..at + PATH_MAX - 1];
        let Some(cut) = window.iter().rposition(|b| *b == b'/').filter(|cut| *cut > 0) else {
            close(dir);
            return Err(Errno::ENAMETOOLONG);
        };
        let next = name_cstr(&window[..cut], |p| call::openat(dir, p, O_PATH | O_DIRECTORY | O_CLOEXEC, 0));
        close(dir);
        dir = next?;
        at += cut;
        while bytes.get(at) == Some(&b'/') {
            at += 1;
        }
    }
    let answer = match CStr::from_bytes_with_nul(&path.to_bytes_with_nul()[at..]) {
        Ok(tail) if !tail.is_empty() => f(dir, tail),
        _ => f(dir, c"."),
    };
    close(dir);
    answer
}
