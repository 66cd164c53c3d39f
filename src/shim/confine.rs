//! What binds the payload's process from inside: resource limits, keyring, the filter of system calls.

use crate::limits;
use crate::program::wire::op::without;
use crate::program::wire::report::given;
use crate::state::{self, State};
use crate::sys::kernel::abi::*;
use crate::sys::kernel::{Errno, Result, call};
use core::ffi::CStr;

/// Installs a filter that only notifies, and sends its listener to the library, which has it before the payload can make
/// any call; the payload's process keeps none. What is called from here on the filter does not notify.
pub fn listen(state: &State, filter: &[u8]) -> Result<()> {
    limits::remember_cpu_seconds();
    call::sigmask(SIG_SETMASK, &0)?;
    let flags = SECCOMP_FILTER_FLAG_SPEC_ALLOW | SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let killable = SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let fd = match state.may(without::WAIT_KILLABLE) {
        true => call::seccomp_filter(filter, flags | killable),
        false => Err(Errno::EINVAL),
    };
    let fd = match fd {
        Err(Errno::EINVAL) => call::seccomp_filter(filter, flags)?, // before Linux 5.19
        answer => answer?,
    };
    state::give(given::LISTENER, fd)?;
    call::close(fd).map(drop)
}

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

/// Enters a Landlock domain. Its paths are opened here, in the payload's own root. What is not there can be
/// left out: a rule only ever adds rights.
pub fn landlock(state: &State, handled: [u64; 3], mut rules: &[u8]) -> Result<()> {
    let domain = call::landlock_create_ruleset(&handled)?;
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |n, b| n << 8 | *b as u64);
    while let Some((head, rest)) = rules.split_at_checked(16) {
        let (access, kind) = (word(&head[..8]), word(&head[8..12]) as u32);
        let (bytes, rest) = rest.split_at_checked(word(&head[12..]) as usize).ok_or(Errno::EPROTO)?;
        match kind {
            LANDLOCK_RULE_PATH_BENEATH => {
                let path = CStr::from_bytes_with_nul(bytes).map_err(|_| Errno::EPROTO)?;
                match call::openat(AT_FDCWD, path, O_PATH | O_CLOEXEC, 0) {
                    Ok(fd) => {
                        beneath(domain, fd, access)?;
                        call::close(fd)?;
                    }
                    Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES | Errno::ELOOP) => {}
                    Err(errno) => return Err(errno),
                }
            }
            _ => drop(call::landlock_add_port(domain, access, word(bytes))?),
        }
        rules = rest;
    }
    if handled[0] != 0 {
        // what the host gives by descriptor it gives: a stream can be opened anew as /dev/stdout, a directory
        // be read, but not be left by its `..`
        let around = handled[0] & LANDLOCK_ACCESS_FS_RESOLVE_UNIX != 0; // the init's: what is given has no number yet
        let given = handled[0] & !LANDLOCK_ACCESS_FS_RESOLVE_UNIX;
        for fd in (0..=state.highest).chain([state.image]).chain(state.slots.open().filter(|_| around)) {
            match beneath(domain, fd, given) {
                Err(Errno::EBADF | Errno::EBADFD) => {} // pipes and sockets need no rule
                answer => answer?,
            }
        }
    }
    call::landlock_restrict_self(domain)?;
    call::close(domain).map(drop)
}

/// What an open file is open for: opened anew by its name in /proc, it is to be no more. To append cannot be said
/// there, so what is open for that is not opened anew to be written.
fn opened_for(fd: i32) -> Result<u64> {
    const READ: u64 = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE;
    const WRITE: u64 = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_TRUNCATE;
    let flags = call::fcntl(fd, F_GETFL, 0)?;
    let without = match flags & O_ACCMODE {
        O_WRONLY => READ,
        O_RDONLY => WRITE,
        _ => 0,
    };
    let appending = if flags & O_APPEND != 0 { WRITE } else { 0 };
    Ok(!(without | appending))
}

/// Rights on what a descriptor names, and all below it.
fn beneath(domain: i32, fd: i32, access: u64) -> Result<()> {
    let access = match call::fstat(fd)?.kind() {
        S_IFDIR => access,
        _ => access & LANDLOCK_ACCESS_FILE & opened_for(fd)?,
    };
    if access != 0 { call::landlock_add_path(domain, access, fd).map(drop) } else { Ok(()) }
}
