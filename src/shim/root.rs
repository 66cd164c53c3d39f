//! The new root: where it is put together, what it is made of, and the pivot.

use crate::classic;
use crate::decimal::Decimal;
use crate::mounts;
use crate::program::wire::codec::Slot;
use crate::program::wire::op::without;
use crate::state::State;
use crate::sys::kernel::abi::*;
use crate::sys::kernel::{Errno, Result, call, path};
use core::ffi::CStr;

/// A new mount namespace is a copy whose mounts still receive the host's changes
/// (or, in the same user namespace, even share them): mount_namespaces(7).
pub fn private_mounts(state: &mut State) -> Result<()> {
    state.open_children();
    call::mount(None, c"/", None, MS_REC | MS_PRIVATE, None)
}

/// A tmpfs over `/`: lookups of `/` still give the root below, so nothing of the
/// host is hidden and no directory of the host is needed as a mount point.
#[inline(never)]
pub fn scratch(state: &mut State, bytes: u64, inodes: u64) -> Result<()> {
    let (mut size, mut nodes) = (Decimal::new(), Decimal::new());
    let options = [(c"mode", c"0700"), (c"size", size.of(bytes)), (c"nr_inodes", nodes.of(inodes))];
    match mounts::fresh(state, c"tmpfs", &options, 0) {
        Ok(tree) => {
            call::move_mount(tree, c"", AT_FDCWD, c"/", MOVE_MOUNT_F_EMPTY_PATH)?;
            state.scratch = tree;
        }
        Err(Errno::ENOSYS) => {
            let mut data = [0u8; 128];
            let data = classic::join(&mut data, options.into_iter())?;
            call::mount(Some(c"tmpfs"), c"/", Some(c"tmpfs"), 0, Some(data))?;
            // `..` of the root stays at the root, and then steps onto what is mounted there
            state.scratch = call::openat(AT_FDCWD, c"/..", O_PATH | O_DIRECTORY | O_CLOEXEC, 0)?;
        }
        Err(errno) => return Err(errno),
    }
    state.owns(state.scratch)
}

/// Opens a layer in this mount namespace, and checks that it is the directory that
/// the library saw.
pub fn open_layer(state: &mut State, layer: &CStr, dev: u64, ino: u64, to: Slot) -> Result<()> {
    let flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
    let fd = path::with_long_path(layer, |dir, layer| call::openat(dir, layer, flags, 0))?;
    mounts::Expected { dev, ino, kind: 0, rdev: 0 }.check(fd)?;
    state.set(to, fd)
}

/// Attaches a tree below the scratch, for overlayfs takes no detached tree.
pub fn stage_tree(state: &mut State, slot: Slot, name: &CStr) -> Result<()> {
    let tree = state.get(slot)?;
    attach_staged(state, tree, name)
}

/// Attaches a detached tree as the scratch's directory `name`.
pub fn attach_staged(state: &State, tree: i32, name: &CStr) -> Result<()> {
    call::mkdirat(state.scratch, name, 0o755)?;
    call::move_mount(tree, c"", state.scratch, name, MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

/// Makes a directory of the host, by descriptor, the scratch's directory `name`.
pub fn bind_staged(state: &mut State, fd: i32, name: &CStr) -> Result<()> {
    if state.may(without::MOUNT_API) {
        let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH;
        match call::open_tree(fd, c"", flags) {
            Ok(tree) => {
                let attached = attach_staged(state, tree, name);
                call::close(tree)?;
                return attached;
            }
            Err(Errno::ENOSYS) => state.without |= without::MOUNT_API,
            Err(errno) => return Err(errno),
        }
    }
    call::mkdirat(state.scratch, name, 0o755)?;
    let target = call::openat(state.scratch, name, O_PATH | O_DIRECTORY | O_CLOEXEC, 0)?;
    let bound = classic::bind(fd, target, false);
    call::close(target)?;
    bound
}

/// The directory of a persistent upper, as the scratch's `p`.
pub fn stage_upper(state: &mut State, slot: Slot) -> Result<()> {
    let fd = state.get(slot)?;
    bind_staged(state, fd, c"p")
}

/// Takes a tree as the new root.
pub fn from_tree(state: &mut State, slot: Slot, set: u64, recursive: bool) -> Result<()> {
    let change = mounts::Change { set, clear: 0, recursive, propagation: 0 };
    let at = mounts::At { root: state.scratch, path: c"root" };
    let tree = state.get(slot)?;
    call::mkdirat(state.scratch, c"root", 0o755)?;
    let over = at.open(state)?;
    state.root = mounts::place(state, tree, over, at, &change)?;
    call::close(over).map(drop)
}

/// A tmpfs as the new root, which is also where its entries are made.
pub fn from_tmpfs(state: &mut State, bytes: u64, inodes: u64, set: u64) -> Result<()> {
    let (mut size, mut nodes) = (Decimal::new(), Decimal::new());
    let options = [(c"mode", c"0755"), (c"size", size.of(bytes)), (c"nr_inodes", nodes.of(inodes))];
    state.root = mounts::fresh_staged(state, c"tmpfs", &options, set, c"root")?;
    state.view = state.root;
    state.owns(state.root)
}

/// pivot_root(2) with both arguments `.`: the old root ends up on top of the new one, and is taken away at once. No directory is needed for it.
pub fn pivot(state: &mut State) -> Result<()> {
    call::fchdir(state.root)?;
    if state.may(without::MOUNT_API) {
        // Off the root, onto any directory of the old tree, so that one umount takes both:
        // each waits for an RCU grace period. Where this fails there are just two.
        let _ = call::move_mount(state.scratch, c"", AT_FDCWD, c"/proc", MOVE_MOUNT_F_EMPTY_PATH);
    }
    let pivoted = if state.may(without::PIVOT_ROOT) { call::pivot_root(c".", c".") } else { Err(Errno::EINVAL) };
    match pivoted {
        Ok(_) => uncover(state.root)?,
        // The initramfs has no parent mount to pivot away from: cover it and chroot.
        Err(Errno::EINVAL) => {
            call::mount(Some(c"."), c"/", None, MS_MOVE, None)?;
            call::chroot(c".")?;
        }
        Err(errno) => return Err(errno),
    }
    call::chdir(c"/").map(drop)
}

/// Takes away whatever is stacked on the root, until the root itself is on top.
/// `..` of the root stays at the root, and then steps onto what is mounted there.
fn uncover(root: i32) -> Result<()> {
    let own = call::fstat(root)?.mnt_id;
    for _ in 0..64 {
        if call::statx(AT_FDCWD, c"/..", 0)?.mnt_id == own {
            return Ok(());
        }
        call::umount2(c"/..", MNT_DETACH)?;
    }
    Err(Errno::ELOOP)
}
