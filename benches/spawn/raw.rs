//! System calls without libc, for the child that shares this process's memory: it may
//! write nothing but its own stack, so not even `errno`.

/// The `syscall` instruction (syscall(2), "Architecture calling conventions").
///
/// # Safety
/// The arguments must be what the call `n` documents.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub unsafe fn call(n: i64, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let ret: isize;
    // SAFETY: the instruction clobbers rcx and r11 only; the caller answers for the arguments.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") n as isize => ret,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            lateout("rcx") _, lateout("r11") _, options(nostack)
        );
    }
    ret
}

/// # Safety
/// As on x86_64.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub unsafe fn call(n: i64, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let ret: isize;
    // SAFETY: `svc 0` clobbers x0 only; the caller answers for the arguments.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") n, inlateout("x0") a as isize => ret,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, options(nostack)
        );
    }
    ret
}

/// A stack for the child.
pub struct Stack(Vec<u128>);

impl Stack {
    pub fn new() -> Stack {
        Stack(vec![0; 4096])
    }
}

/// clone(2) with `CLONE_VM | CLONE_VFORK | flags`: runs `child(argument)` and gives its pid,
/// or a negative errno, when the child has executed or ended.
///
/// # Safety
/// `child` shares this process's memory and this thread's thread pointer: it may do
/// nothing but system calls, and must end in execve or exit.
pub unsafe fn vfork(
    flags: i32,
    stack: &mut Stack,
    child: unsafe extern "C" fn(*mut u8) -> !,
    argument: *mut u8,
) -> isize {
    let flags = (flags | libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD) as isize;
    let top = stack.0.as_mut_ptr_range().end;
    let pid: isize;
    // SAFETY: the child starts behind the instruction with the same registers but for the
    // stack pointer, the (16-byte aligned) top of `stack`, and calls `child`, which does
    // not return. In the parent nothing but the call's own clobbers has changed.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        std::arch::asm!(
            "syscall", "test rax, rax", "jnz 2f", "xor ebp, ebp", "mov rdi, r12", "call r13", "ud2", "2:",
            inlateout("rax") libc::SYS_clone as isize => pid,
            in("rdi") flags, in("rsi") top, in("rdx") 0, in("r10") 0, in("r8") 0,
            in("r12") argument, in("r13") child as usize,
            lateout("rcx") _, lateout("r11") _,
        );
        #[cfg(target_arch = "aarch64")]
        std::arch::asm!(
            "svc 0", "cbnz x0, 2f", "mov x29, xzr", "mov x30, xzr", "mov x0, x20", "blr x21", "brk #1", "2:",
            in("x8") libc::SYS_clone, inlateout("x0") flags => pid,
            in("x1") top, in("x2") 0, in("x3") 0, in("x4") 0,
            in("x20") argument, in("x21") child as usize,
            lateout("x30") _,
        );
    }
    pid
}
