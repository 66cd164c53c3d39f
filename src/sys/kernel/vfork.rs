//! clone3(2) with `CLONE_VM`, on a stack of its own.
//!
//! With `CLONE_VFORK` the child borrows the caller's memory until it executes a program. The
//! caller's thread sleeps until then, so the child may use the caller's
//! frames; all other threads go on. Nothing is copied: the cost does not depend
//! on how much memory the caller has.

use super::abi::*;
use super::raw::{Result, check, nr};

/// A stack of `N` bytes for the child, a multiple of 16. It has no guard: `N` must
/// hold what the child calls.
#[repr(C, align(16))]
pub struct Stack<const N: usize>(core::mem::MaybeUninit<[u8; N]>);

impl<const N: usize> Stack<N> {
    /// An uninitialised stack.
    #[inline(always)]
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Stack<N> {
        const { assert!(N.is_multiple_of(16)) };
        Stack(core::mem::MaybeUninit::uninit())
    }
}

/// Clones a child that runs `child(argument)` and gives its pid.
///
/// # Safety
/// `child` shares all memory with the other threads of the process and has the
/// caller's thread pointer: it must not allocate, lock, unwind, touch
/// thread-local storage or `errno`, must need less than `N` bytes of stack, and must
/// end in execve or exit. `argument` must be valid for it.
pub unsafe fn vfork<const N: usize>(
    args: &mut CloneArgs,
    stack: &mut Stack<N>,
    child: unsafe extern "C" fn(*mut u8) -> !,
    argument: *mut u8,
) -> Result<i32> {
    args.flags |= CLONE_VM | CLONE_VFORK;
    // SAFETY: the caller answers for `child` and `argument`; with CLONE_VFORK `stack` is
    // not used any more when this returns.
    unsafe { on_stack(args, stack, child, argument) }
}

/// Starts a thread of this process, with the same descriptors but a root and a working
/// directory of its own. `running` becomes 0, and its futex(2) is woken, when it has ended.
///
/// # Safety
/// For a process without thread-local storage (the shim): as [`vfork`], but `child` runs
/// beside the caller, and must end in exit(2) of the thread.
pub unsafe fn thread<const N: usize>(
    running: &'static core::sync::atomic::AtomicU32,
    stack: &'static mut Stack<N>,
    child: unsafe extern "C" fn(*mut u8) -> !,
) -> Result<i32> {
    const SHARED: u64 = CLONE_VM | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    let mut args =
        CloneArgs { flags: SHARED | CLONE_CHILD_CLEARTID, child_tid: running.as_ptr() as u64, ..CloneArgs::default() };
    // SAFETY: the caller answers for `child`; the stack and the word live as long as the process.
    unsafe { on_stack(&mut args, stack, child, core::ptr::null_mut()) }
}

/// # Safety
/// As [`vfork`]; `stack` must not be used by anybody else while the child runs on it.
unsafe fn on_stack<const N: usize>(
    args: &mut CloneArgs,
    stack: &mut Stack<N>,
    child: unsafe extern "C" fn(*mut u8) -> !,
    argument: *mut u8,
) -> Result<i32> {
    args.stack = stack.0.as_mut_ptr() as u64;
    args.stack_size = N as u64;
    let answer: isize;
    // SAFETY: the kernel starts the child at the instruction behind the call with the
    // same registers, but for the stack pointer, which is the (16-byte aligned) top of
    // `stack`: `args.stack + args.stack_size`. There it calls `child`, which does not
    // return. In the caller nothing but the call's own clobbers has changed.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        core::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") nr::clone3 as isize => answer,
            in("rdi") core::ptr::from_mut(args), in("rsi") size_of::<CloneArgs>(),
            in("r12") argument, in("r13") child as usize,
            lateout("rcx") _, lateout("r11") _,
        );
        #[cfg(target_arch = "aarch64")]
        core::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x20",
            "blr x21",
            "brk #1",
            "2:",
            in("x8") nr::clone3, inlateout("x0") core::ptr::from_mut(args) => answer,
            in("x1") size_of::<CloneArgs>(),
            in("x20") argument, in("x21") child as usize,
            // the return address: written in the child only, but the compiler cannot know
            lateout("x30") _,
        );
    }
    check(answer).map(|pid| pid as i32)
}

/// clone3(2) without shared memory: an ordinary fork. 0 in the child.
///
/// # Safety
/// The child has only this thread; in a process with others it may do no more
/// than a signal handler may (signal-safety(7)).
pub unsafe fn fork(args: &CloneArgs) -> Result<i32> {
    // SAFETY: the kernel reads one `struct clone_args`; the caller answers for the rest.
    unsafe { super::raw::syscall!(clone3, core::ptr::from_ref(args), size_of::<CloneArgs>()) }.map(|pid| pid as i32)
}
