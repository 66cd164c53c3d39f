//! What binds the payload's process from inside: the filter of system calls.

use crate::limits;
use crate::sys::kernel::abi::*;
use crate::sys::kernel::{Result, call};

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
