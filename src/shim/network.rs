//! The network namespace, made beside the rest of the set-up.
//!
//! The kernel takes longer to make one than to do everything else together (on Linux 6.18
//! some 350 of 700 microseconds). So a thread makes it on another processor, while this one goes on
//! with ids and mounts, and is entered by setns(2) when those are done. Where no other processor
//! has had time for it by then, this thread makes it after all.

use crate::sys::kernel::abi::*;
use crate::sys::kernel::raw::syscall;
use crate::sys::kernel::vfork::{self, Stack};
use crate::sys::kernel::{Errno, Result, call};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

/// Whether somebody makes the namespace already.
static CLAIMED: AtomicBool = AtomicBool::new(false);
/// What the thread has made: a descriptor of the namespace, or an errno below 0.
static MADE: AtomicI32 = AtomicI32::new(0);
/// Not 0 while the thread exists: the kernel clears it at its end (CLONE_CHILD_CLEARTID).
static RUNNING: AtomicU32 = AtomicU32::new(0);
/// The thread's number.
static THREAD: AtomicI32 = AtomicI32::new(0);
/// Some system calls, each a leaf.
static mut STACK: Stack<8192> = Stack::new();

/// Starts the thread. Without one (a limit of processes), the namespace is made by [`enter`].
pub fn begin() {
    RUNNING.store(1, Ordering::Relaxed);
    // SAFETY: the only reference to the static, as a Program begins one network.
    let stack = unsafe { &mut *(&raw mut STACK) };
    // SAFETY: the shim has no thread-local storage; `in_thread` needs some hundred bytes of
    // stack, touches the atomics only, and ends in exit(2).
    match unsafe { vfork::thread(&RUNNING, stack, in_thread) } {
        Ok(thread) => {
            THREAD.store(thread, Ordering::Relaxed);
            place(thread, Place::Elsewhere);
        }
        Err(_) => RUNNING.store(0, Ordering::Relaxed),
    }
}

/// Enters the namespace, when it is made.
pub fn enter() -> Result<()> {
    let stolen = !CLAIMED.swap(true, Ordering::AcqRel);
    let made = if stolen { make().map(Some) } else { Ok(None) };
    if stolen && RUNNING.load(Ordering::Acquire) != 0 {
        // it has found no processor yet: it may end on this one, while we wait
        place(THREAD.load(Ordering::Relaxed), Place::Here);
    }
    wait_for_end()?;
    if let Some(socket) = made? {
        return call::close(socket).map(drop);
    }
    match MADE.load(Ordering::Acquire) {
        errno if errno < 0 => Err(Errno(-errno)),
        fd => {
            let entered = call::setns(fd, CLONE_NEWNET);
            call::close(fd)?;
            entered.map(drop)
        }
    }
}

/// Where a thread is to run.
#[derive(PartialEq)]
enum Place {
    Here,
    Elsewhere,
}

/// Moves a thread that has not run yet to another processor, or back. A new thread stays on its
/// creator's otherwise, and would only run when that one sleeps. Afterwards it may run anywhere again.
fn place(thread: i32, place: Place) {
    let mut all = [0u64; 128];
    let mut some = [0u64; 128];
    let mut here = 0u32;
    // SAFETY: each call reads or writes one word, or at most the bytes of its mask. That they
    // fail costs time only.
    unsafe {
        let Ok(len) = syscall!(sched_getaffinity, 0, size_of_val(&all), all.as_mut_ptr()) else { return };
        let Ok(_) = syscall!(getcpu, &raw mut here, 0, 0) else { return };
        let (word, bit) = (here as usize / 64, 1 << (here % 64));
        if word >= all.len() {
            return;
        }
        some[word] = bit;
        if place == Place::Elsewhere {
            some = all;
            some[word] &= !bit;
        }
        if syscall!(sched_setaffinity, thread, len, some.as_ptr()).is_ok() {
            let _ = syscall!(sched_setaffinity, thread, len, all.as_ptr());
        }
    }
}

/// Waits until the thread has ended; futex(2).
fn wait_for_end() -> Result<()> {
    loop {
        let running = RUNNING.load(Ordering::Acquire);
        if running == 0 {
            return Ok(());
        }
        // SAFETY: the kernel reads the word, which is static, and wakes us when it has cleared it.
        match unsafe { syscall!(futex, RUNNING.as_ptr(), FUTEX_WAIT, running, 0) } {
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// # Safety
/// Takes no argument.
unsafe extern "C" fn in_thread(_: *mut u8) -> ! {
    if !CLAIMED.swap(true, Ordering::AcqRel) {
        // SIOCGSKNS gives the namespace of a socket, without a /proc to look it up in
        let made = make().and_then(|socket| {
            // SAFETY: the request takes no argument, and answers with a descriptor.
            let namespace = unsafe { syscall!(ioctl, socket, SIOCGSKNS, 0) };
            call::close(socket)?;
            namespace
        });
        MADE.store(made.map_or_else(|errno| -errno.0, |fd| fd as i32), Ordering::Release);
    }
    loop {
        // SAFETY: ends this thread; nobody but the kernel uses its stack afterwards.
        let _ = unsafe { syscall!(exit, 0) };
    }
}

/// Puts this thread into a new network namespace, with `lo` up (netdevice(7)), to which the kernel
/// then gives 127.0.0.1 and ::1. Gives a socket in it.
fn make() -> Result<i32> {
    /// `struct ifreq` with its flags.
    #[repr(C)]
    struct IfReq {
        name: [u8; 16],
        flags: u16,
        rest: [u8; 22],
    }
    call::unshare(CLONE_NEWNET)?;
    let mut request = IfReq { name: [0; 16], flags: IFF_UP, rest: [0; 22] };
    request.name[..2].copy_from_slice(b"lo");
    let socket = call::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)?;
    // SAFETY: the kernel reads one `struct ifreq` (40 bytes), which `IfReq` mirrors.
    let up = unsafe { syscall!(ioctl, socket, SIOCSIFFLAGS, &raw const request) };
    if let Err(errno) = up {
        call::close(socket)?;
        return Err(errno);
    }
    Ok(socket)
}
