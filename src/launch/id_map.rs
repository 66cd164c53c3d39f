//! Writing the id maps of a new user namespace (user_namespaces(7)).

use super::Failure;
use crate::sys::Errno;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::process::Command;

/// Writes both maps of the process `pid`.
pub(super) fn write(pid: i32, uid: &[u8], gid: &[u8], deny_setgroups: bool, helper: bool) -> Result<(), Failure> {
    if helper {
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
    let mut file = OpenOptions::new().write(true).open(&path).map_err(fail)?;
    match file.write(text) {
        Ok(n) if n == text.len() => Ok(()),
        Ok(_) => Err(Failure(Errno::EIO, path)),
        Err(e) => Err(fail(e)),
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
    std::fs::read(format!("/proc/{pid}/{ids}_map")).is_ok_and(|map| !map.is_empty())
}
