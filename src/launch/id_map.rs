//! Writing the id maps of a new user namespace (user_namespaces(7)).

use super::Failure;
use crate::sys::Errno;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Writes both maps of the process `pid`.
pub(super) fn write(pid: i32, uid: &[u8], gid: &[u8], deny_setgroups: bool, helper: bool) -> Result<(), Failure> {
    if helper {
        wait_for_exec(pid); // newuidmap may have no power but that of setting ids
        run("uid", pid, uid)?;
        return run("gid", pid, gid);
    }
    put(pid, "uid_map", uid)?;
    if deny_setgroups {
        // the kernel wants this before a gid map without CAP_SETGID: a process could else
        // leave a group that a file denies access to
        put(pid, "setgroups", b"deny")?;
    }
    put(pid, "gid_map", gid)
}

/// A map is taken in one write(2), or not at all.
fn put(pid: i32, name: &str, text: &[u8]) -> Result<(), Failure> {
    let path = format!("/proc/{pid}/{name}");
    let fail = |e: io::Error| Failure(Errno::of(e), path.clone());
    let open = || OpenOptions::new().write(true).open(&path);
    let refused = |error: &io::Error| error.kind() == ErrorKind::PermissionDenied;
    let file = open().or_else(|error| if refused(&error) && wait_for_exec(pid) { open() } else { Err(error) });
    let mut file = file.map_err(fail)?;
    match file.write(text) {
        Ok(n) if n == text.len() => Ok(()),
        Ok(_) => Err(Failure(Errno::EIO, path)),
        Err(e) => Err(fail(e)),
    }
}

/// A thread that clones with CLONE_VFORK goes on while the kernel is still about to finish the exec. Until then, since
/// Linux 7.2, the new process is not dumpable, and its files in /proc are root's (proc(5)).
const EXEC_BOUND: Duration = Duration::from_secs(1);

/// Waits until the files of a process are the caller's, as they are at once where there is nothing to wait for; `false` if they
/// never are.
fn wait_for_exec(pid: i32) -> bool {
    let end = Instant::now() + EXEC_BOUND;
    let own = nix::unistd::geteuid().as_raw();
    loop {
        match fs::metadata(format!("/proc/{pid}/uid_map")) {
            Ok(found) if found.uid() == own => return true,
            Ok(_) if Instant::now() < end => sleep(Duration::from_micros(50)),
            _ => return false,
        }
    }
}

/// newuidmap(1) and newgidmap(1), of the shadow package: set-uid programs that check
/// `/etc/subuid` and `/etc/subgid`. Waited for without a bound: each makes one write and ends.
fn run(ids: &str, pid: i32, map: &[u8]) -> Result<(), Failure> {
    let program = format!("new{ids}map");
    let map = String::from_utf8_lossy(map);
    let output = Command::new(&program).arg(pid.to_string()).args(map.split_whitespace()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Failure(Errno::EPERM, String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        // the status was lost to somebody else in this process who reaps (SIGCHLD ignored, waitpid(-1)): the map itself tells
        Err(e) if e.raw_os_error() == Some(libc::ECHILD) && has_map(pid, ids) => Ok(()),
        Err(e) => Err(Failure(Errno::of(e), format!("cannot run {program}"))),
    }
}

/// Whether this map is there: it is written once, or not at all.
fn has_map(pid: i32, ids: &str) -> bool {
    fs::read(format!("/proc/{pid}/{ids}_map")).is_ok_and(|map| !map.is_empty())
}
