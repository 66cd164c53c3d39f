//! The shim: the one program that a sandbox starts with. It runs the Program
//! that the library sends it, becomes PID 1, and starts the payload.
//!
//! A linked library may run almost nothing between clone and exec, for it shares
//! the memory, locks and threads of its host. So that window holds one execveat
//! of this program, and everything else happens here: one thread, no allocator,
//! no libc, a few pages of memory.
//!
//! ```text
//! _start → main → receive the Program → run each op → Payload → watch (PID 1)
//!                                                        └────→ the payload's ops → execve
//! ```
//! Descriptors: 3 is the control socket, all others arrive with the Program.

#![no_std]
#![no_main]

#[path = "../program"]
mod program {
    pub mod wire;
}
#[path = "../sys"]
mod sys {
    pub mod kernel;
}
mod classic;
mod confine;
mod decimal;
mod descriptors;
mod enter;
mod identity;
mod init_layer;
mod label;
mod limits;
mod memory;
mod meter;
mod mounts;
mod network;
mod overlay;
mod payload;
mod procfs;
mod pty;
mod receive;
mod root;
mod run;
mod schedule;
mod state;
mod watch;

use sys::kernel::call;

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(".globl _start", "_start:", "xor ebp, ebp", "and rsp, -16", "call {main}", "ud2", main = sym main);
#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(".globl _start", "_start:", "mov x29, xzr", "mov x30, xzr", "bl {main}", "brk #1", main = sym main);

/// The socket to the library.
pub const CONTROL: i32 = 3;

extern "C" fn main() -> ! {
    let _ = call::set_name(c"belljar"); // a label for ps, nothing hangs on it
    // SAFETY: this is the only thread, and there was no Program before.
    match unsafe { receive::program(CONTROL, false) } {
        Ok(received) => run::program(received),
        Err(errno) => {
            state::report_failure(0, errno, b"the Program did not arrive whole");
            call::exit_group(125)
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    state::report_failure(u32::MAX, sys::kernel::Errno::EIO, b"the shim panicked");
    call::exit_group(125)
}
