//! The host's mounts (proc_pid_mountinfo(5)), by procfs.

use procfs::process::{MountInfo, MountInfos};
use procfs::{FromRead, ProcResult};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// All mounts that the calling thread sees, with their paths as they are: the file itself
/// writes a space as `\040`.
pub(crate) fn mounts() -> ProcResult<Vec<MountInfo>> {
    // of the thread: the process's first one may live elsewhere, or have ended
    let MountInfos(mut mounts) = MountInfos::from_file("/proc/thread-self/mountinfo")?;
    for mount in &mut mounts {
        mount.mount_point = unescape(&mount.mount_point);
    }
    Ok(mounts)
}

/// Undoes the octal escapes of `seq_path` (space, tab, newline, backslash, number sign).
fn unescape(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] if first == b'\\' => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            _ => {
                plain.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(plain).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_escapes_and_nothing_else() {
        let plain = |path| unescape(Path::new(path)).into_os_string();
        assert_eq!(plain("/a\\040b\\134c"), "/a b\\c");
        assert_eq!(plain("/a\\04"), "/a\\04");
        assert_eq!(plain("/a\\777\\"), "/a\\777\\");
    }

    #[test]
    fn the_root_is_mounted() {
        let mounts = mounts().expect("mountinfo");
        assert!(mounts.iter().any(|mount| mount.mount_point == Path::new("/")));
    }
}
