//! Mounts: grabbing trees, attaching them beneath the new root, new file systems,
//! masks. Each goes by the new mount API, on descriptors alone; where the kernel
//! (or a seccomp filter above us) does not know it, by mount(2) ([`crate::classic`]) on
//! `/proc/self/fd/N`, which names the same objects.

use crate::classic;
use crate::program::wire::codec::{Slot, Strings};
use crate::program::wire::op::{missing, without};
use crate::state::State;
use crate::sys::kernel::abi::*;
use crate::sys::kernel::path::{self, Canonical, Walk, walk};
use crate::sys::kernel::{Errno, Result, call};
use core::ffi::CStr;

/// What a source must be, as the library saw it; 0 for anything.
pub struct Expected {
    pub dev: u64,
    pub ino: u64,
    pub kind: u32,
    pub rdev: u64,
}

impl Expected {
    /// `ESTALE` when it is something else.
    pub fn check(&self, fd: i32) -> Result<()> {
        let stat = call::fstat(fd)?;
        let rdev = (stat.rdev_major as u64) << 32 | stat.rdev_minor as u64;
        let same = (self.ino == 0 || (stat.dev() == self.dev && stat.ino == self.ino))
            && (self.kind == 0 || stat.kind() == self.kind)
            && (self.rdev == 0 || rdev == self.rdev);
        if same { Ok(()) } else { Err(Errno::ESTALE) }
    }
}

/// A change of a mount's attributes.
pub struct Change {
    pub set: u64,
    pub clear: u64,
    pub recursive: bool,
    pub propagation: u64,
}

impl Change {
    fn is_none(&self) -> bool {
        self.set == 0 && self.clear == 0 && self.propagation == 0
    }
}

/// Clones the tree at a path into a slot; without the new API, keeps the path open.
pub fn grab(state: &mut State, source: &CStr, expected: &Expected, recursive: bool, to: Slot) -> Result<()> {
    let fd = path::with_long_path(source, |dir, p| call::openat(dir, p, O_PATH | O_CLOEXEC, 0))?;
    expected.check(fd)?;
    let tree = clone(state, fd, recursive)?;
    if tree != fd {
        call::close(fd)?;
    }
    state.set(to, tree)
}

/// A detached clone of the tree at a descriptor, or the descriptor itself.
fn clone(state: &mut State, fd: i32, recursive: bool) -> Result<i32> {
    if state.may(without::MOUNT_API) {
        let recursive = if recursive { AT_RECURSIVE } else { 0 };
        match call::open_tree(fd, c"", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | recursive) {
            Err(Errno::ENOSYS) => state.without |= without::MOUNT_API,
            answer => return answer,
        }
    }
    Ok(fd)
}

/// A place beneath a root, which can be opened anew once something is mounted there.
#[derive(Clone, Copy)]
pub struct At<'a> {
    pub root: i32,
    pub path: &'a CStr,
}

impl At<'_> {
    pub fn open(&self, state: &State) -> Result<i32> {
        state.in_root(self.root, self.path, 0)
    }
}

/// Attaches the tree in a slot beneath the new root.
pub fn attach(
    state: &mut State,
    slot: Slot,
    target: &CStr,
    directory: bool,
    missing: u32,
    change: &Change,
) -> Result<()> {
    let tree = state.get(slot)?;
    if let Some(over) = target_fd(state, target, directory, missing)? {
        match (directory, call::fstat(over)?.kind() == S_IFDIR) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            _ => {}
        }
        place(state, tree, over, At { root: state.root, path: target }, change)?;
        call::close(over)?;
    }
    state.release(slot);
    Ok(())
}

/// Puts a tree over an open target; gives a descriptor of what is there now.
pub fn place(state: &mut State, tree: i32, over: i32, at: At<'_>, change: &Change) -> Result<i32> {
    if !state.may(without::MOUNT_API) {
        classic::bind(tree, over, true)?;
        classic::uncover(state, at)?;
        classic::change(state, at, change)?;
        return at.open(state);
    }
    let changed = change.is_none() || change_tree(state, tree, change)?;
    call::move_mount(tree, c"", over, c"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)?;
    if !changed {
        classic::change(state, at, change)?;
    }
    Ok(tree)
}

/// mount_setattr(2) of a tree; false when the kernel does not have it.
fn change_tree(state: &mut State, tree: i32, change: &Change) -> Result<bool> {
    if !state.may(without::MOUNT_SETATTR) {
        return Ok(false);
    }
    let attr =
        MountAttr { attr_set: change.set, attr_clr: change.clear, propagation: change.propagation, userns_fd: 0 };
    let recursive = if change.recursive { AT_RECURSIVE } else { 0 };
    match call::mount_setattr(tree, c"", AT_EMPTY_PATH | recursive, &attr) {
        Ok(_) => Ok(true),
        Err(Errno::ENOSYS) => {
            state.without |= without::MOUNT_SETATTR;
            Ok(false)
        }
        Err(errno) => Err(errno),
    }
}

/// A new file system, mounted nowhere yet; `ENOSYS` without the new API.
pub fn fresh(state: &mut State, fstype: &CStr, options: &[(&CStr, &CStr)], set: u64) -> Result<i32> {
    if !state.may(without::MOUNT_API) {
        return Err(Errno::ENOSYS);
    }
    let fs = match call::fsopen(fstype, FSOPEN_CLOEXEC) {
        Err(Errno::ENOSYS) => {
            state.without |= without::MOUNT_API;
            return Err(Errno::ENOSYS);
        }
        answer => answer?,
    };
    let made = options
        .iter()
        .try_for_each(|(key, value)| match value.is_empty() {
            true => call::fsconfig_flag(fs, key),
            false => call::fsconfig_string(fs, key, value),
        })
        .and_then(|()| call::fsconfig_create(fs))
        .and_then(|()| call::fsmount(fs, FSMOUNT_CLOEXEC, set));
    if made.is_err() {
        state.message.read_log(fs);
    }
    call::close(fs)?;
    made
}

/// A new file system over an open target; gives a descriptor of its root.
#[inline(never)]
fn fresh_over(
    state: &mut State,
    fstype: &CStr,
    options: &[(&CStr, &CStr)],
    set: u64,
    over: i32,
    at: At<'_>,
) -> Result<i32> {
    match fresh(state, fstype, options, set) {
        Ok(tree) => {
            call::move_mount(tree, c"", over, c"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)?;
            Ok(tree)
        }
        Err(Errno::ENOSYS) => {
            let mut data = [0u8; 1024];
            let data = classic::join(&mut data, options.iter().copied())?;
            call::mount(
                Some(fstype),
                classic::ProcFd::new(over).as_cstr(),
                Some(fstype),
                classic::flags(set),
                Some(data),
            )?;
            at.open(state)
        }
        Err(errno) => Err(errno),
    }
}

/// A new file system as the scratch's directory `name`.
pub fn fresh_staged(
    state: &mut State,
    fstype: &CStr,
    options: &[(&CStr, &CStr)],
    set: u64,
    name: &CStr,
) -> Result<i32> {
    let at = At { root: state.scratch, path: name };
    call::mkdirat(state.scratch, name, 0o755)?;
    let over = at.open(state)?;
    let root = fresh_over(state, fstype, options, set, over, at)?;
    call::close(over)?;
    Ok(root)
}

/// Mounts a new file system at a target, and makes sure that it is what it should
/// be: a target that a link of the tree leads elsewhere cannot pass for /proc.
#[inline(never)]
pub fn new_fs(
    state: &mut State,
    fstype: &CStr,
    options: Strings<'static>,
    target: &CStr,
    missing: u32,
    set: u64,
    magic: i64,
) -> Result<()> {
    let Some(over) = target_fd(state, target, true, missing)? else { return Ok(()) };
    let mut pairs = [(c"", c""); 8];
    let mut count = 0;
    let mut flat = options.iter();
    while let (Some(key), Some(value)) = (flat.next(), flat.next()) {
        *pairs.get_mut(count).ok_or(Errno::E2BIG)? = (key, value);
        count += 1;
    }
    let at = At { root: state.root, path: target };
    let root = fresh_over(state, fstype, &pairs[..count], set, over, at)?;
    if magic != 0 && call::fstatfs(root)?.f_type != magic {
        return Err(Errno::ESTALE);
    }
    if fstype == c"tmpfs" {
        state.owns(root)?;
    }
    if fstype == c"devpts" {
        state.devpts = root; // for a pty; the last one mounted
    } else {
        call::close(root)?;
    }
    call::close(over).map(drop)
}

/// A new proc; where something covers a part of the host's own, the kernel refuses one to
/// a user namespace, and an empty read-only directory takes its place.
pub fn proc_or_empty(
    state: &mut State,
    options: Strings<'static>,
    target: &CStr,
    missing: u32,
    set: u64,
) -> Result<()> {
    match new_fs(state, c"proc", options, target, missing, set, PROC_SUPER_MAGIC) {
        Err(Errno::EPERM) => mask(state, target),
        answer => answer,
    }
}

/// A symbolic link in a file system made by an earlier op.
pub fn link(state: &mut State, path: &CStr, target: &CStr) -> Result<()> {
    in_parent(path, |parent, name| {
        let dir = state.in_root(state.root, parent, O_DIRECTORY)?;
        if !state.is_own(call::fstat(dir)?.dev()) {
            return Err(Errno::EROFS);
        }
        call::symlinkat(target, dir, name)?;
        call::close(dir).map(drop)
    })
}

/// Covers a path, if it is there.
pub fn mask(state: &mut State, path: &CStr) -> Result<()> {
    let at = At { root: state.root, path };
    let over = match at.open(state) {
        // what this process cannot reach the payload cannot, which has no more capabilities
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => return Ok(()),
        answer => answer?,
    };
    let directory = call::fstat(over)?.kind() == S_IFDIR;
    let cover = if directory { blank(state)? } else { null(state)? };
    let tree = clone(state, cover, false)?;
    let change = Change { set: MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOEXEC, clear: 0, recursive: false, propagation: 0 };
    place(state, tree, over, at, &change)?;
    if tree != cover {
        call::close(tree)?;
    }
    call::close(over).map(drop)
}

/// An empty read-only tmpfs, made once.
fn blank(state: &mut State) -> Result<i32> {
    if state.blank < 0 {
        let options = [(c"mode", c"0555"), (c"size", c"4096"), (c"nr_inodes", c"2")];
        let set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
        state.blank = fresh_staged(state, c"tmpfs", &options, set, c"blank")?;
    }
    Ok(state.blank)
}

/// The host's null device: a character device 1:3 (devices.txt), whatever its name says.
fn null(state: &mut State) -> Result<i32> {
    if state.null < 0 {
        let fd = call::openat(AT_FDCWD, c"/dev/null", O_PATH | O_CLOEXEC, 0)?;
        Expected { dev: 0, ino: 0, kind: S_IFCHR, rdev: 1 << 32 | 3 }.check(fd)?;
        state.null = fd;
    }
    Ok(state.null)
}

/// Mounts a path over itself, read-only with all below it, if it is there.
pub fn read_only(state: &mut State, path: &CStr) -> Result<()> {
    let at = At { root: state.root, path };
    let over = match at.open(state) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        answer => answer?,
    };
    let tree = clone(state, over, true)?;
    let change = Change { set: MOUNT_ATTR_RDONLY, clear: 0, recursive: true, propagation: 0 };
    place(state, tree, over, at, &change)?;
    if tree != over {
        call::close(tree)?;
    }
    call::close(over).map(drop)
}

/// Makes the root's own mount read-only, when nothing is to be made in it any more.
pub fn seal_root(state: &mut State) -> Result<()> {
    let change = Change { set: MOUNT_ATTR_RDONLY, clear: 0, recursive: false, propagation: 0 };
    if state.may(without::MOUNT_API) && change_tree(state, state.root, &change)? {
        return Ok(());
    }
    classic::remount(state.root, &change)
}

/// Opens a mount target; `None` when it is missing and may be.
fn target_fd(state: &State, target: &CStr, directory: bool, missing: u32) -> Result<Option<i32>> {
    match state.in_root(state.root, target, 0) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT | Errno::ENOTDIR) if missing == missing::SKIP => Ok(None),
        Err(Errno::ENOENT) if missing == missing::CREATE => create(state, state.root, target, directory).map(Some),
        Err(errno) => Err(errno),
    }
}

/// Makes a target and the directories on the way to it (also where a link leads that
/// leads nowhere yet), but only in file systems that this Program has made: never in
/// the host's, which may be mounted there.
#[inline(never)]
pub fn create(state: &State, root: i32, target: &CStr, directory: bool) -> Result<i32> {
    let mut canonical = Canonical::new();
    walk(root, target.to_bytes(), Walk::Missing, &mut canonical)?;
    let mut at = call::fcntl(root, F_DUPFD_CLOEXEC, 0)?;
    let mut names = canonical.as_cstr().to_bytes().split(|b| *b == b'/').peekable();
    while let Some(name) = names.next() {
        let wants_directory = directory || names.peek().is_some();
        let next = path::name_cstr(name, |name| open_or_make(state, at, name, wants_directory));
        call::close(at)?;
        at = next?;
    }
    Ok(at)
}

fn open_or_make(state: &State, dir: i32, name: &CStr, directory: bool) -> Result<i32> {
    let open = || call::openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
    match open() {
        Err(Errno::ENOENT) => {}
        answer => return answer,
    }
    if !state.is_own(call::fstat(dir)?.dev()) {
        return Err(Errno::EROFS);
    }
    if directory {
        call::mkdirat(dir, name, 0o755)?;
    } else {
        call::mknodat(dir, name, S_IFREG | 0o644, 0)?;
    }
    open()
}

/// Calls `f` with the directory part and the last name of a path.
pub fn in_parent<T>(path: &CStr, f: impl FnOnce(&CStr, &CStr) -> Result<T>) -> Result<T> {
    let bytes = path.to_bytes();
    let cut = bytes.iter().rposition(|b| *b == b'/').map_or(0, |n| n + 1);
    if matches!(&bytes[cut..], b"" | b"." | b"..") {
        return Err(Errno::EINVAL);
    }
    let name = CStr::from_bytes_with_nul(&path.to_bytes_with_nul()[cut..]).map_err(|_| Errno::EINVAL)?;
    path::name_cstr(&bytes[..cut], |parent| f(if parent.is_empty() { c"." } else { parent }, name))
}
