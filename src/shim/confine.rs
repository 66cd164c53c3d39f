//! What binds the payload's process from inside: resource limits, keyring, the filter of system calls.

use crate::limits;
use crate::sys::kernel::abi::*;
use crate::sys::kernel::{Errno, Result, call};

/// Installs a filter. What has to be done before the payload is executed is done by now, or allowed by it.
pub fn seccomp(filter: &[u8]) -> Result<()> {
    limits::remember_cpu_seconds();
    // Signals are unblocked while that is surely allowed; nobody but the payload's init and the
    // host can send one yet.
    call::sigmask(SIG_SETMASK, &0)?;
    // Before Linux 5.16 a filter would switch off speculation past stores for the whole program, at
    // a price, against leaks between parts of one process: there is one payload in it, and no secret of ours.
    call::seccomp_filter(filter, SECCOMP_FILTER_FLAG_SPEC_ALLOW).map(drop)
}

/// Lowers limits, soft and hard: to raise one is for the host, and takes CAP_SYS_RESOURCE in its user namespace.
pub fn rlimits(limits: &[u8]) -> Result<()> {
    for record in limits.chunks_exact(12) {
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |n, b| n << 8 | *b as u64);
        let (resource, value) = (word(&record[..4]) as u32, word(&record[4..]));
        let [soft, hard] = call::rlimit(resource, None)?;
        call::rlimit(resource, Some([soft.min(value), hard.min(value)]))?;
    }
    Ok(())
}

/// A session keyring of its own. One counts against its user's quota of keys.
pub fn keyring(required: bool) -> Result<()> {
    match call::new_session_keyring() {
        Err(Errno::EDQUOT | Errno::EPERM | Errno::ENOSYS) if !required => Ok(()),
        answer => answer.map(drop),
    }
}
