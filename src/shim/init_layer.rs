//! The init layer: entries that are true for this sandbox only, between the given
//! layers and the upper.
//!
//! They are made through an overlay of the layers with the init layer as its
//! upper, so it is the kernel that copies up the parents (with their owners,
//! modes, ACLs) and resolves links across layers. What overlayfs has no call for
//! (a whiteout of a whole directory, an opaque mark) is written into the init
//! layer itself. An empty root has no layers: there the entries are just made.

use crate::mounts::{create, in_parent};
use crate::overlay;
use crate::program::wire::codec::Slot;
use crate::program::wire::op::without;
use crate::state::State;
use crate::sys::kernel::abi::*;
use crate::sys::kernel::path::{self, Canonical, Walk, walk};
use crate::sys::kernel::{Errno, Result, call};
use core::ffi::CStr;

/// Mounts the view.
pub fn begin(state: &mut State, first: Slot, count: u32, userxattr: bool) -> Result<()> {
    overlay::make_upper(state, c"init", Slot(first.0 + count as u16 - 1))?;
    call::mkdirat(state.scratch, c"init-work", 0o700)?;
    state.layers = (first, count);
    state.userxattr = userxattr;
    mount_view(state)?;
    state.init = call::openat(state.scratch, c"init", O_PATH | O_DIRECTORY | O_CLOEXEC, 0)?;
    Ok(())
}

fn mount_view(state: &mut State) -> Result<()> {
    let (first, count) = state.layers;
    let upper = Some((c"init", c"init-work"));
    let userxattr = state.userxattr;
    let spec = overlay::Spec { first, count, init: false, upper, userxattr, set: 0, name: c"view" };
    state.view = overlay::mount(state, &spec)?;
    state.owns(state.view)
}

/// Runs `f`, and once more after the directories of the layers on the way to `path` have
/// been adopted, if it was refused: an owner whom the id map does not know leaves even
/// root inside without power over a directory, also to copy it up.
fn adopting(state: &mut State, path: &CStr, f: impl Fn(&State) -> Result<()>) -> Result<()> {
    match f(state) {
        Err(Errno::EACCES | Errno::EPERM | Errno::EOVERFLOW) if state.init >= 0 => {
            adopt(state, path)?;
            f(state)
        }
        answer => answer,
    }
}

/// Makes the directories on the way to `path` in the init layer, with the modes that they
/// have but owned by root inside, and mounts the view anew, which then merges them.
#[inline(never)]
fn adopt(state: &mut State, path: &CStr) -> Result<()> {
    let bytes = path.to_bytes();
    let parent = bytes.iter().rposition(|b| *b == b'/').unwrap_or(0);
    // the way to the entry, and (if it is a link, and followed) to where it leads
    for way in [&bytes[..parent], bytes] {
        let mut canonical = Canonical::new();
        walk(state.view, way, Walk::Missing, &mut canonical)?;
        let names = canonical.as_cstr().to_bytes();
        for cut in (1..=names.len()).filter(|&cut| cut == names.len() || names[cut] == b'/') {
            let found = path::name_cstr(&names[..cut], |prefix| adopt_one(state, prefix));
            match found {
                Ok(true) => {}
                Ok(false) | Err(Errno::ENOENT) => break,
                Err(errno) => return Err(errno),
            }
        }
    }
    call::close(state.view)?;
    overlay::unmount(state, c"view")?;
    call::unlinkat(state.scratch, c"view", AT_REMOVEDIR)?;
    mount_view(state)
}

/// True when it is a directory, which the init layer then has too.
fn adopt_one(state: &State, path: &CStr) -> Result<bool> {
    let stat = call::statx(state.view, path, AT_SYMLINK_NOFOLLOW)?;
    if stat.kind() != S_IFDIR {
        return Ok(false);
    }
    match call::mkdirat(state.init, path, stat.mode as u32 & 0o7777) {
        Ok(_) | Err(Errno::EEXIST) => Ok(true),
        Err(errno) => Err(errno),
    }
}

/// Takes the view away; the init layer stays, as a lower layer to be.
pub fn end(state: &mut State) -> Result<()> {
    call::close(state.view)?;
    state.view = -1;
    overlay::unmount(state, c"view")
}

/// Makes the parents of an entry and calls `f` with the directory and the last name.
fn entry(state: &State, path: &CStr, f: impl FnOnce(i32, &CStr) -> Result<()>) -> Result<()> {
    in_parent(path, |parent, name| {
        let dir = create(state, state.view, parent, true)?;
        let made = f(dir, name);
        call::close(dir)?;
        made
    })
}

/// Removes what is in the way of an entry; a directory is not.
fn replace(dir: i32, name: &CStr) -> Result<()> {
    match call::unlinkat(dir, name, 0) {
        Err(Errno::ENOENT) => Ok(()),
        answer => answer.map(drop),
    }
}

/// A regular file with this content.
pub fn file(state: &mut State, path: &CStr, mode: u32, content: &[u8]) -> Result<()> {
    adopting(state, path, |state| make_file(state, path, mode, content))
}

fn make_file(state: &State, path: &CStr, mode: u32, content: &[u8]) -> Result<()> {
    entry(state, path, |dir, name| {
        replace(dir, name)?;
        let fd = call::openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)?;
        call::write_all(fd, content)?;
        call::fchmod(fd, mode)?;
        call::close(fd).map(drop)
    })
}

/// A directory; one that is there keeps its content.
pub fn directory(state: &mut State, path: &CStr, mode: u32) -> Result<()> {
    adopting(state, path, |state| make_directory(state, path, mode))
}

fn make_directory(state: &State, path: &CStr, mode: u32) -> Result<()> {
    let fd = create(state, state.view, path, true)?;
    if call::fstat(fd)?.kind() != S_IFDIR {
        return Err(Errno::ENOTDIR);
    }
    call::close(fd)?;
    let fd = path::open_in_root(state.view, path, O_RDONLY | O_DIRECTORY, state.may(without::OPENAT2))?;
    call::fchmod(fd, mode)?;
    call::close(fd).map(drop)
}

/// A symbolic link.
pub fn symlink(state: &mut State, path: &CStr, target: &CStr) -> Result<()> {
    adopting(state, path, |state| make_symlink(state, path, target))
}

fn make_symlink(state: &State, path: &CStr, target: &CStr) -> Result<()> {
    entry(state, path, |dir, name| {
        replace(dir, name)?;
        call::symlinkat(target, dir, name).map(drop)
    })
}

/// A mount's target.
pub fn target(state: &mut State, path: &CStr, directory: bool) -> Result<()> {
    adopting(state, path, |state| make_target(state, path, directory))
}

fn make_target(state: &State, path: &CStr, directory: bool) -> Result<()> {
    let fd = create(state, state.view, path, directory)?;
    call::close(fd).map(drop)
}

/// A whiteout; a path that is not there is hidden already.
pub fn hide(state: &mut State, path: &CStr) -> Result<()> {
    adopting(state, path, |state| make_hide(state, path))
}

#[inline(never)]
fn make_hide(state: &State, path: &CStr) -> Result<()> {
    let mut canonical = Canonical::new();
    match walk(state.view, path.to_bytes(), Walk::NoFollow, &mut canonical) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        answer => answer?,
    }
    in_parent(canonical.as_cstr(), |parent, name| {
        let dir = match call::openat(state.view, parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0) {
            Err(Errno::ENOENT) => return Ok(()),
            answer => answer?,
        };
        let hidden = match call::unlinkat(dir, name, 0) {
            Err(Errno::ENOENT) => Ok(()),
            Err(Errno::EISDIR) => hide_directory(state, dir, parent, name),
            answer => answer.map(drop),
        };
        call::close(dir)?;
        hidden
    })
}

/// A whiteout over a directory of the layers: one device file, however large the tree is.
fn hide_directory(state: &State, dir: i32, parent: &CStr, name: &CStr) -> Result<()> {
    if state.init < 0 {
        return call::unlinkat(dir, name, AT_REMOVEDIR).map(drop);
    }
    copy_up(dir)?;
    let own = call::openat(state.init, parent, O_PATH | O_DIRECTORY | O_CLOEXEC, 0)?;
    // a directory that an earlier entry made in the init layer itself must be empty
    match call::unlinkat(own, name, AT_REMOVEDIR) {
        Ok(_) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    call::mknodat(own, name, S_IFCHR, 0)?;
    call::close(own).map(drop)
}

/// Setting the mode that it has already makes overlayfs copy a directory up.
fn copy_up(dir: i32) -> Result<()> {
    let mode = call::fstat(dir)?.mode as u32 & 0o7777;
    call::fchmod(dir, mode).map(drop)
}

/// An opaque directory: nothing of the layers shows in it.
pub fn opaque(state: &mut State, path: &CStr) -> Result<()> {
    adopting(state, path, |state| make_opaque(state, path))
}

#[inline(never)]
fn make_opaque(state: &State, path: &CStr) -> Result<()> {
    let made = create(state, state.view, path, true)?;
    call::close(made)?;
    if state.init < 0 {
        return Ok(());
    }
    let mut canonical = Canonical::new();
    walk(state.view, path.to_bytes(), Walk::Follow, &mut canonical)?;
    let dir = call::openat(state.view, canonical.as_cstr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)?;
    copy_up(dir)?;
    let own = call::openat(state.init, canonical.as_cstr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)?;
    // the mark is read in the form for which the overlay is mounted
    let mark = if state.userxattr { c"user.overlay.opaque" } else { c"trusted.overlay.opaque" };
    if !state.may(without::TMPFS_XATTR) || call::fsetxattr(own, mark, b"y").is_err() {
        whiteout_each(dir, own)?;
    }
    call::close(own)?;
    call::close(dir).map(drop)
}

/// The same by a whiteout for each name, where tmpfs has no such attributes.
#[inline(never)]
fn whiteout_each(dir: i32, own: i32) -> Result<()> {
    let mut buffer = [0u8; 4096];
    loop {
        let got = call::getdents64(dir, &mut buffer)?;
        if got == 0 {
            return Ok(());
        }
        let mut at = 0;
        while at < got {
            // struct linux_dirent64: ino u64, off u64, reclen u16, type u8, name
            let len = u16::from_le_bytes([buffer[at + 16], buffer[at + 17]]) as usize;
            let name = CStr::from_bytes_until_nul(&buffer[at + 19..at + len]).map_err(|_| Errno::EPROTO)?;
            if name != c"." && name != c".." {
                match call::mknodat(own, name, S_IFCHR, 0) {
                    Ok(_) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(errno),
                }
            }
            at += len;
        }
    }
}
