//! Mounting overlayfs (Documentation/filesystems/overlayfs.rst).
//!
//! A layer is given by descriptor where the kernel takes that (`lowerdir+`, Linux
//! 6.13), so that neither its path nor the number of layers meets a limit of
//! length. Elsewhere the layers are bound below the scratch under short names, and
//! one option string names them relative to it: mount(2) cuts that string at a
//! page without saying so, hence the check.

use crate::decimal::Decimal;
use crate::mounts::At;
use crate::program::wire::codec::Slot;
use crate::program::wire::op::{upper, without};
use crate::root;
use crate::state::State;
use crate::sys::kernel::abi::*;
use crate::sys::kernel::{Errno, Result, call};
use core::ffi::CStr;

/// Whatever the defaults of this kernel are.
const PLAIN: [(&CStr, &CStr); 2] = [(c"redirect_dir", c"nofollow"), (c"metacopy", c"off")];

/// What to mount.
pub struct Spec<'a> {
    /// The slots of the layers, lowest first.
    pub first: Slot,
    pub count: u32,
    /// Whether the init layer (the scratch's `init`) is the topmost lower layer.
    pub init: bool,
    /// Names of the upper and work directories, relative to the scratch.
    pub upper: Option<(&'a CStr, &'a CStr)>,
    pub userxattr: bool,
    pub set: u64,
    /// The scratch's directory to mount on.
    pub name: &'a CStr,
}

/// The new root.
pub fn root(state: &mut State, first: Slot, count: u32, kind: u32, userxattr: bool, set: u64) -> Result<()> {
    let directories = match kind {
        upper::NONE => None,
        upper::SCRATCH => {
            make_upper(state, c"upper", Slot(first.0 + count as u16 - 1))?;
            call::mkdirat(state.scratch, c"work", 0o700)?;
            Some((c"upper", c"work"))
        }
        _ => Some((c"p/upper", c"p/work")),
    };
    let init = state.init >= 0;
    let spec = Spec { first, count, init, upper: directories, userxattr, set, name: c"root" };
    state.root = mount(state, &spec)?;
    for i in 0..count as u16 {
        state.release(Slot(first.0 + i));
    }
    state.owns(state.root)
}

/// An upper directory whose root looks like the topmost layer's: the merged root
/// takes its mode and owner from it.
pub fn make_upper(state: &State, name: &CStr, top: Slot) -> Result<()> {
    let stat = call::fstat(state.get(top)?)?;
    call::mkdirat(state.scratch, name, 0o755)?;
    let fd = call::openat(state.scratch, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)?;
    // An owner that the id map does not know cannot be given; it stays ours.
    match call::fchown(fd, stat.uid, stat.gid) {
        Ok(_) | Err(Errno::EINVAL | Errno::EPERM) => {}
        Err(errno) => return Err(errno),
    }
    call::fchmod(fd, stat.mode as u32 & 0o7777)?;
    call::close(fd).map(drop)
}

/// Mounts an overlay on the scratch's directory `name`; gives a descriptor of its root.
pub fn mount(state: &mut State, spec: &Spec<'_>) -> Result<i32> {
    if state.may(without::MOUNT_API) && state.may(without::LOWERDIR_FD) {
        match by_descriptor(state, spec) {
            Ok(Some(root)) => return Ok(root),
            Ok(None) => state.without |= without::LOWERDIR_FD,
            Err(errno) => return Err(errno),
        }
    }
    by_name(state, spec)
}

/// `None` when this kernel does not take layers by descriptor.
#[inline(never)]
fn by_descriptor(state: &mut State, spec: &Spec<'_>) -> Result<Option<i32>> {
    let fs = match call::fsopen(c"overlay", FSOPEN_CLOEXEC) {
        Err(Errno::ENOSYS) => return Ok(None),
        answer => answer?,
    };
    let made = configure(state, spec, fs).and_then(|taken| match taken {
        true => {
            call::fsconfig_create(fs)?;
            call::fsmount(fs, FSMOUNT_CLOEXEC, spec.set).map(Some)
        }
        false => Ok(None),
    });
    if !matches!(made, Ok(Some(_))) {
        // kept also when it is tried by name next: if that fails too, this is why
        state.message.read_log(fs);
    }
    call::close(fs)?;
    if let Some(tree) = made? {
        root::attach_staged(state, tree, spec.name)?;
        return Ok(Some(tree));
    }
    Ok(None)
}

fn configure(state: &State, spec: &Spec<'_>, fs: i32) -> Result<bool> {
    call::fsconfig_string(fs, c"source", c"overlay")?;
    let mut first = true;
    // `lowerdir+` appends below what is there: the topmost comes first
    let init = spec.init.then_some(state.init);
    let layers = (0..spec.count as u16).rev().map(|i| state.get(Slot(spec.first.0 + i)));
    for layer in init.map(Ok).into_iter().chain(layers) {
        match call::fsconfig_fd(fs, c"lowerdir+", layer?) {
            Err(Errno::EINVAL | Errno::EBADF | Errno::EOPNOTSUPP) if first => return Ok(false),
            answer => answer?,
        }
        first = false;
    }
    if let Some((upper, work)) = spec.upper {
        for (key, name) in [(c"upperdir", upper), (c"workdir", work)] {
            let fd = call::openat(state.scratch, name, O_PATH | O_DIRECTORY | O_CLOEXEC, 0)?;
            call::fsconfig_fd(fs, key, fd)?;
            call::close(fd)?;
        }
    }
    if spec.userxattr {
        call::fsconfig_flag(fs, c"userxattr")?;
    } else {
        // as userxattr has it: entries of an upper are whole, and no attribute of a layer leads elsewhere
        for (key, value) in PLAIN {
            call::fsconfig_string(fs, key, value)?;
        }
    }
    Ok(true)
}

/// The option string; mount(2) copies no more than a page, NUL included.
struct Data {
    bytes: [u8; PATH_MAX],
    len: usize,
}

impl Data {
    fn put(&mut self, text: &CStr) -> Result<()> {
        let bytes = text.to_bytes();
        if self.len + bytes.len() >= self.bytes.len() {
            return Err(Errno::E2BIG);
        }
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }
}

#[inline(never)]
fn by_name(state: &mut State, spec: &Spec<'_>) -> Result<i32> {
    let mut data = Data { bytes: [0; PATH_MAX], len: 0 };
    data.put(if spec.init { c"lowerdir=init" } else { c"lowerdir=" })?;
    for i in (0..spec.count).rev() {
        let mut name = Decimal::new();
        let name = name.of(i as u64);
        let layer = state.get(Slot(spec.first.0 + i as u16))?;
        match root::bind_staged(state, layer, name) {
            Ok(()) | Err(Errno::EEXIST) => {} // staged by an earlier op
            Err(errno) => return Err(errno),
        }
        if spec.init || i + 1 < spec.count {
            data.put(c":")?;
        }
        data.put(name)?;
    }
    if let Some((upper, work)) = spec.upper {
        for part in [c",upperdir=", upper, c",workdir=", work] {
            data.put(part)?;
        }
    }
    if spec.userxattr {
        data.put(c",userxattr")?;
    } else {
        for (key, value) in PLAIN {
            for part in [c",", key, c"=", value] {
                data.put(part)?;
            }
        }
    }
    let data = CStr::from_bytes_until_nul(&data.bytes).map_err(|_| Errno::E2BIG)?;
    call::mkdirat(state.scratch, spec.name, 0o755)?;
    call::fchdir(state.scratch)?;
    call::mount(Some(c"overlay"), spec.name, Some(c"overlay"), spec.set as usize, Some(data))?;
    At { root: state.scratch, path: spec.name }.open(state)
}

/// Takes away an overlay that was mounted on the scratch's directory `name`.
pub fn unmount(state: &State, name: &CStr) -> Result<()> {
    call::fchdir(state.scratch)?;
    call::umount2(name, MNT_DETACH).map(drop)
}
