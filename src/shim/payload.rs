//! Starting the payload.

use crate::CONTROL;
use crate::limits;
use crate::program::wire::codec::{Slot, Strings};
use crate::program::wire::op::without;
use crate::run::{self, Ops};
use crate::state::{self, State};
use crate::sys::kernel::abi::*;
use crate::sys::kernel::raw::syscall;
use crate::sys::kernel::vfork::{Stack, fork, vfork};
use crate::sys::kernel::{Errno, Result, call, path};
use crate::watch;
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, Ordering};

/// How the payload is to be started, and what stays with the shim.
pub struct Payload {
    /// Whether the shim stays as PID 1.
    pub stay: bool,
    /// A pidfd of the host process.
    pub host: Slot,
    /// A lock to hold.
    pub lock: Slot,
    /// The payload's capabilities.
    pub keep: u64,
}

/// Set by the payload's process when one of its ops failed; it shares our memory
/// until it has executed its program.
static FAILED: AtomicBool = AtomicBool::new(false);

/// The stack of the payload's process until it executes: resolving a path takes some
/// 30 KiB of it. Static, so that what is not touched costs nothing.
static mut STACK: Stack<{ 256 * 1024 }> = Stack::new();

/// Ends a process whose op failed, after the report.
pub fn failed() -> ! {
    FAILED.store(true, Ordering::Relaxed);
    call::exit_group(125)
}

/// Splits off the payload's process, or goes on as the payload itself.
pub fn start(ops: &mut Ops, state: &mut State, payload: &Payload) -> Result<()> {
    call::fcntl(CONTROL, F_SETFD, FD_CLOEXEC as usize)?;
    if !payload.stay {
        return Ok(());
    }
    let watched = watch::Watched::prepare(state, payload)?;
    let mut args = CloneArgs { exit_signal: SIGCHLD as u64, ..CloneArgs::default() };
    let mut child = (ops, state);
    // SAFETY: the only reference to the static: the payload is started once, by the only thread.
    let stack = unsafe { &mut *(&raw mut STACK) };
    // SAFETY: this is the only thread of the process, without thread-local storage; the
    // child runs the rest of the Program on `child`, which outlives the clone because
    // this frame sleeps until the child has executed or ended.
    let pid = unsafe { vfork(&mut args, stack, in_child, (&raw mut child).cast()) }?;
    state::set_control(CONTROL); // the child may have moved its own
    if FAILED.load(Ordering::Relaxed) {
        call::exit_group(125); // the child has reported
    }
    watched.watch(pid)
}

/// Runs the rest of a Program in a process with a copy of this memory, while this one goes on: whatever runs in the sandbox
/// may stop a process that enters it (they have the same uid), and who sleeps until it executes sleeps as long.
pub fn split_copy(ops: &mut Ops, state: &mut State, args: &CloneArgs) -> Result<i32> {
    // SAFETY: this is the only thread, so the child is a whole process.
    match unsafe { fork(args) }? {
        0 => run::rest(ops, state),
        pid => Ok(pid),
    }
}

/// # Safety
/// `argument` points to the pair of `start`.
unsafe extern "C" fn in_child(argument: *mut u8) -> ! {
    // SAFETY: `start` passes a pointer to its pair, and sleeps while we use it.
    let (ops, state) = unsafe { &mut *argument.cast::<(&mut Ops, &mut State)>() };
    run::rest(ops, state)
}

/// Resolves the directory without magic links: `/proc/self/fd/N` may lead anywhere.
pub fn working_directory(state: &State, directory: &CStr) -> Result<()> {
    let root = call::openat(AT_FDCWD, c"/", O_PATH | O_DIRECTORY | O_CLOEXEC, 0)?;
    let fd = path::open_in_root(root, directory, O_PATH | O_DIRECTORY, state.may(without::OPENAT2))?;
    call::fchdir(fd)?;
    call::close(fd)?;
    call::close(root)?;
    Ok(())
}

/// Most arguments and variables: beyond, the kernel's own limit (ARG_MAX) is near.
const POINTERS: usize = 8192;
static mut TABLE: [*const core::ffi::c_char; POINTERS] = [core::ptr::null(); POINTERS];

/// execve(2) of the first candidate that is there, as execvp(3) searches, or of the program that
/// was kept open.
pub fn exec(state: &State, candidates: Strings<'static>, argv: Strings<'static>, envp: Strings<'static>) -> Result<()> {
    // SAFETY: the only reference to the static: the process that had it before has executed or ended.
    let pointers = unsafe { &mut *(&raw mut TABLE) };
    let mut used = 0;
    let mut list = |strings: Strings<'static>| -> Result<usize> {
        let start = used;
        for string in strings.iter() {
            *pointers.get_mut(used).ok_or(Errno::E2BIG)? = string.as_ptr();
            used += 1;
        }
        *pointers.get_mut(used).ok_or(Errno::E2BIG)? = core::ptr::null();
        used += 1;
        Ok(start)
    };
    let (argv, envp) = (list(argv)?, list(envp)?);
    limits::remember_cpu_seconds();
    match call::sigmask(SIG_SETMASK, &0) {
        Err(Errno::EPERM | Errno::ENOSYS) => {} // by a filter that was installed with an empty mask
        answer => drop(answer?),
    }
    let (argv, envp) = (&raw const pointers[argv], &raw const pointers[envp]);
    if state.image >= 0 {
        // SAFETY: an empty C string and two NULL-terminated arrays of C strings, all 'static.
        let tried = unsafe { syscall!(execveat, state.image, c"".as_ptr(), argv, envp, AT_EMPTY_PATH) };
        return tried.and(Err(Errno::EIO)); // execveat does not return in success
    }
    let mut answer = Errno::ENOENT;
    for program in candidates.iter() {
        // SAFETY: a C string and two NULL-terminated arrays of C strings, all 'static.
        let tried = unsafe { syscall!(execve, program.as_ptr(), argv, envp) };
        match tried {
            // goes on as execvp does: a file that may not be run does not hide one behind it
            Err(Errno::EACCES) => answer = Errno::EACCES,
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => return Err(errno),
            Ok(_) => return Err(Errno::EIO), // execve does not return in success
        }
    }
    Err(answer)
}
