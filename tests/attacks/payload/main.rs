//! What the attack tests run in a sandbox: a small static program without libc, so that it
//! runs in an empty root and says exactly what the kernel answered.
//!
//! ```text
//! attack ATTEMPT[=ARGUMENT]...       # as root: cargo run --example run -- --empty --bind attack:/attack:ro -- /attack unshare-user
//! ```
//! One line an attempt: `ATTEMPT=ARGUMENT: ok`, `… : ok NUMBER`, or `… : EPERM`. The first line is `attack: here`, the
//! marker that it has run at all. `BELLJAR_TEST_PAYLOAD=FILE` makes the test program write this program to FILE.

#![no_std]
#![no_main]

mod attempts;
mod files;
#[path = "../../../src/shim/memory.rs"]
mod memory;
mod say;
mod sockets;
#[path = "../../../src/sys"]
mod sys {
    #[allow(dead_code)]
    pub mod kernel;
}

use core::ffi::{CStr, c_char};
use core::sync::atomic::Ordering;
use say::Line;
use sys::kernel::call;

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(".globl _start", "_start:", "xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {main}", "ud2", main = sym main);
#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(".globl _start", "_start:", "mov x29, xzr", "mov x30, xzr", "mov x0, sp", "bl {main}", "brk #1", main = sym main);

/// `stack` is what the kernel leaves there: the count, the arguments, NULL, the environment.
extern "C" fn main(stack: *const usize) -> ! {
    Line::new(b"attack").end(b"here");
    // SAFETY: the kernel puts the count first (System V ABI, "Initial Stack and Register State").
    let count = unsafe { *stack };
    // SAFETY: behind the arguments and their NULL comes the environment.
    attempts::ENVIRONMENT.store(unsafe { stack.add(2 + count) }.cast_mut(), Ordering::Relaxed);
    for i in 1..count {
        // SAFETY: pointers to C strings follow, `count` of them.
        let word = unsafe { CStr::from_ptr(*stack.add(1 + i) as *const c_char) };
        let bytes = word.to_bytes();
        let cut = bytes.iter().position(|b| *b == b'=').unwrap_or(bytes.len());
        let argument = &bytes[(cut + 1).min(bytes.len())..];
        let line = Line::new(bytes);
        // the rest of a C string is one
        let c_argument = CStr::from_bytes_with_nul(&word.to_bytes_with_nul()[bytes.len() - argument.len()..]);
        match c_argument {
            Ok(argument) => attempts::run(&bytes[..cut], argument, line),
            Err(_) => line.end(b"no argument"),
        }
    }
    call::exit_group(0)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    call::exit_group(99)
}
