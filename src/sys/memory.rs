//! The memory of another process: process_vm_readv(2) (Linux 3.2).
//!
//! Contract: <https://man7.org/linux/man-pages/man2/process_vm_readv.2.html>. What is read is what the other process
//! had there at some moment: it may change it at any time.

use super::Result;
use super::kernel::abi::IoVec;
use super::kernel::raw::syscall;

/// Reads from `address` on in the memory of a thread, by its number; gives how many bytes could be read, in whole
/// pages but for the first and the last.
///
/// Where the page is one that a process serves (userfaultfd(2), a file of FUSE), it waits for that process.
///
/// # Errors
/// `EFAULT` (nothing can be read there), `EPERM` (the caller may not trace the process, ptrace(2)), `ESRCH`, `ENOSYS`.
pub fn read(thread: u32, address: u64, into: &mut [u8]) -> Result<usize> {
    let local = IoVec { base: into.as_mut_ptr(), len: into.len() };
    let remote = [address, into.len() as u64];
    // SAFETY: the kernel writes at most `len` bytes into the slice, and reads two `struct iovec` of two words each; the
    // other address is not of this process.
    unsafe { syscall!(process_vm_readv, thread, &raw const local, 1, remote.as_ptr(), 1, 0) }
}
