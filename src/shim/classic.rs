//! Mounts by mount(2) alone, for where the new mount API is not to be had: a
//! descriptor is named by `/proc/self/fd/N`, attributes are changed by remounting, one
//! mount at a time.

use crate::decimal::Decimal;
use crate::mounts::{At, Change};
use crate::state::State;
use crate::sys::kernel::abi::*;
use crate::sys::kernel::{Errno, Result, call};
use core::ffi::CStr;

/// `/proc/self/fd/N`: what mount(2) takes for a descriptor.
pub struct ProcFd([u8; 40]);

impl ProcFd {
    pub fn new(fd: i32) -> ProcFd {
        let mut bytes = [0u8; 40];
        let mut digits = Decimal::new();
        let digits = digits.of(fd as u64).to_bytes();
        bytes[..14].copy_from_slice(b"/proc/self/fd/");
        bytes[14..14 + digits.len()].copy_from_slice(digits);
        ProcFd(bytes)
    }

    pub fn as_cstr(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }
}

/// mount(2) MS_BIND of one descriptor over another.
pub fn bind(source: i32, over: i32, recursive: bool) -> Result<()> {
    let flags = MS_BIND | if recursive { MS_REC } else { 0 };
    call::mount(Some(ProcFd::new(source).as_cstr()), ProcFd::new(over).as_cstr(), None, flags, None)
}

/// Changes a mount by remounting it, and what is mounted below it one by one: the
/// way before mount_setattr(2).
#[inline(never)]
pub fn change(state: &State, at: At<'_>, change: &Change) -> Result<()> {
    let top = at.open(state)?;
    remount(top, change)?;
    if change.recursive {
        let mut below = Below::new(call::fstat(top)?.mnt_id);
        below.each(|path| {
            let fd = call::openat(state.scratch, path, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0)?;
            remount(fd, change)?;
            call::close(fd).map(drop)
        })?;
    }
    call::close(top).map(drop)
}

/// One remount. What the mount has already is kept: in a user namespace the flags
/// that it came with are locked, and leaving one out is EPERM.
pub fn remount(fd: i32, change: &Change) -> Result<()> {
    let name = ProcFd::new(fd);
    let has = call::fstatfs(fd)?.f_flags;
    let mut kept = (has & (ST_RDONLY | ST_NOSUID | ST_NODEV | ST_NOEXEC | ST_NOATIME | ST_NODIRATIME)) as usize;
    if has & ST_RELATIME != 0 {
        kept |= MS_RELATIME;
    }
    let wanted = (kept | flags(change.set)) & !flags(change.clear);
    if change.set != 0 || change.clear != 0 {
        call::mount(None, name.as_cstr(), None, MS_REMOUNT | MS_BIND | wanted, None)?;
    }
    if change.propagation != 0 {
        call::mount(None, name.as_cstr(), None, change.propagation as usize, None)?;
    }
    Ok(())
}

/// MOUNT_ATTR_… as MS_…: the first four have the same values.
pub fn flags(attributes: u64) -> usize {
    let low = attributes & (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    low as usize | if attributes & MOUNT_ATTR_NOATIME != 0 { MS_NOATIME } else { 0 }
}

/// The mounts below one, from `/proc/self/mountinfo` (proc_pid_mountinfo(5)), which
/// lists a parent before its children.
struct Below {
    ids: [u64; 512],
    len: usize,
}

impl Below {
    fn new(top: u64) -> Below {
        let mut below = Below { ids: [0; 512], len: 1 };
        below.ids[0] = top;
        below
    }

    /// Calls `f` with each mount point, relative to the scratch.
    fn each(&mut self, mut f: impl FnMut(&CStr) -> Result<()>) -> Result<()> {
        let fd = call::openat(AT_FDCWD, c"/proc/self/mountinfo", O_RDONLY | O_CLOEXEC, 0)?;
        let mut buffer = [0u8; 2 * PATH_MAX];
        let mut len = 0;
        loop {
            let got = call::read(fd, &mut buffer[len..])?;
            len += got;
            let mut start = 0;
            while let Some(end) = buffer[start..len].iter().position(|b| *b == b'\n') {
                self.line(&buffer[start..start + end], &mut f)?;
                start += end + 1;
            }
            buffer.copy_within(start..len, 0);
            len -= start;
            if got == 0 {
                return call::close(fd).map(drop);
            }
            if len == buffer.len() {
                return Err(Errno::ENAMETOOLONG);
            }
        }
    }

    fn line(&mut self, line: &[u8], f: &mut impl FnMut(&CStr) -> Result<()>) -> Result<()> {
        let mut fields = line.split(|b| *b == b' ');
        let number = |field: Option<&[u8]>| {
            field.map_or(0, |digits| digits.iter().fold(0u64, |n, d| n.wrapping_mul(10).wrapping_add((*d as u64) - 48)))
        };
        let (id, parent) = (number(fields.next()), number(fields.next()));
        let Some(point) = fields.nth(2) else { return Ok(()) };
        if !self.ids[..self.len].contains(&parent) {
            return Ok(());
        }
        *self.ids.get_mut(self.len).ok_or(Errno::ENOSPC)? = id;
        self.len += 1;
        // octal escapes of space, tab, newline and backslash
        let mut path = [0u8; PATH_MAX];
        let (mut from, mut to) = (1, 0); // without the leading slash
        while from < point.len() && to < PATH_MAX - 1 {
            if point[from] == b'\\' && from + 3 < point.len() {
                path[to] = point[from + 1..from + 4].iter().fold(0u8, |n, d| n.wrapping_mul(8).wrapping_add(d - 48));
                from += 4;
            } else {
                path[to] = point[from];
                from += 1;
            }
            to += 1;
        }
        f(CStr::from_bytes_until_nul(&path).map_err(|_| Errno::ENAMETOOLONG)?)
    }
}

/// A recursive bind of the host's `/` copies the scratch that lies over it, too.
pub fn uncover(state: &State, at: At<'_>) -> Result<()> {
    let scratch = call::fstat(state.scratch)?.dev();
    loop {
        let top = at.open(state)?;
        let covered = call::fstat(top)?.dev() == scratch;
        if covered {
            call::umount2(ProcFd::new(top).as_cstr(), MNT_DETACH)?;
        }
        call::close(top)?;
        if !covered {
            return Ok(());
        }
    }
}

/// Options as mount(2) takes them: `key=value,key`.
pub fn join<'b, 'o>(buffer: &'b mut [u8], options: impl Iterator<Item = (&'o CStr, &'o CStr)>) -> Result<&'b CStr> {
    let mut len = 0;
    let mut put = |bytes: &[u8]| -> Result<()> {
        // the last byte stays NUL
        if len + bytes.len() >= buffer.len() {
            return Err(Errno::E2BIG);
        }
        buffer[len..len + bytes.len()].copy_from_slice(bytes);
        len += bytes.len();
        Ok(())
    };
    for (i, (key, value)) in options.enumerate() {
        if i > 0 {
            put(b",")?;
        }
        put(key.to_bytes())?;
        if !value.is_empty() {
            put(b"=")?;
            put(value.to_bytes())?;
        }
    }
    CStr::from_bytes_until_nul(buffer).map_err(|_| Errno::E2BIG)
}
