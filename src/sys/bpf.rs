//! eBPF programs that decide which devices a cgroup may use: bpf(2), the part of it
//! that cgroup v2 needs.
//!
//! Contract: <https://man7.org/linux/man-pages/man2/bpf.2.html>,
//! `Documentation/admin-guide/cgroup-v2.rst` "Device controller". Linux 4.15.

use super::Result;
use super::kernel::abi::{
    BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI, BPF_PROG_ATTACH, BPF_PROG_LOAD, BPF_PROG_TYPE_CGROUP_DEVICE,
};
use super::kernel::raw::syscall;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`; what is left out is zero.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The same for `BPF_PROG_ATTACH`.
#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// Loads a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`: instructions of 8 bytes each.
///
/// # Errors
/// `EPERM` (CAP_SYS_ADMIN, or CAP_BPF and CAP_NET_ADMIN since Linux 5.8), `EINVAL` or `EACCES` (the
/// verifier refuses it), `E2BIG`, `ENOSYS`.
pub fn load_device_program(instructions: &[u8]) -> Result<OwnedFd> {
    let load = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: (instructions.len() / 8) as u32,
        insns: instructions.as_ptr() as u64,
        // it calls no helper that would ask for more
        license: c"MIT".as_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: the kernel reads `size_of::<Load>()` bytes of `load`, `insn_cnt` whole instructions of
    // the slice, and a C string; all outlive the call.
    let fd = unsafe { syscall!(bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>()) }?;
    // SAFETY: the kernel has just made this descriptor for us; it is close-on-exec (bpf(2)).
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches a loaded program to a cgroup (a directory of a v2 hierarchy), beside those of
/// the groups around: a device must be allowed by all. The group keeps the program.
///
/// # Errors
/// `EPERM`, `EINVAL` (not a cgroup or not such a program), `E2BIG` (64 programs).
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let attach = Attach {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the kernel reads `size_of::<Attach>()` bytes of `attach`.
    unsafe { syscall!(bpf, BPF_PROG_ATTACH, &raw const attach, size_of::<Attach>()) }.map(drop)
}
