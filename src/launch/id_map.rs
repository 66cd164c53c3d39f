//! Writing the id maps of a new user namespace (user_namespaces(7)).

use super::Failure;
use crate::sys::Errno;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::process::Command;

/// Writes both maps of the process `pid`.
pub(super) fn write(pid: i32, uid: &[u8], gid: &[u8], deny_setgroups: bool, helper: bool) -> Result<(), Failure> {
    if helper {
        run("newuidmap", pid, uid)?;
        return run("newgidmap", pid, gid);
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
    let fail = |e: io::Error| Failure(Errno(e.raw_os_error().unwrap_or(libc::EIO)), path.clone());
    let mut file = OpenOptions::new().write(true).open(&path).map_err(fail)?;
    match file.write(text) {
        Ok(n) if n == text.len() => Ok(()),
        Ok(_) => Err(Failure(Errno::EIO, path)),
        Err(e) => Err(fail(e)),
    }
}

/// newuidmap(1) and newgidmap(1), of the shadow package: set-uid programs that check
/// `/etc/subuid` and `/etc/subgid`. Waited for without a bound: each makes one write and ends.
fn run(program: &str, pid: i32, map: &[u8]) -> Result<(), Failure> {
    let map = String::from_utf8_lossy(map);
    let output = Command::new(program).arg(pid.to_string()).args(map.split_whitespace()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Failure(Errno::EPERM, String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        // the status was lost to somebody else in this process who reaps (SIGCHLD ignored, waitpid(-1)): the map itself tells
        Err(e) if e.raw_os_error() == Some(libc::ECHILD) && has_map(pid, program) => Ok(()),
        Err(e) => {
            let errno = Errno(e.raw_os_error().unwrap_or(libc::EIO));
            Err(Failure(errno, format!("cannot run {program}")))
        }
    }
}

/// Whether the map that this program writes is there: it is written once, or not at all.
fn has_map(pid: i32, program: &str) -> bool {
    let file = program.trim_start_matches("new").replace("idmap", "id_map");
    std::fs::read(format!("/proc/{pid}/{file}")).is_ok_and(|map| !map.is_empty())
}
