//! The UNIX sockets of the host that have a path (unix(7)): connecting to one takes no write access to
//! its file system, so what a sandbox can reach by its path it can talk to.
//!
//! `/proc/net/unix` lists those of the caller's network namespace, by the path with which they were bound. Not
//! found are sockets of other network namespaces, those bound by a relative path, and those that are bound later.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The paths of sockets that there are now, without links on the way.
pub(crate) fn bound() -> Vec<PathBuf> {
    let text = fs::read("/proc/net/unix").unwrap_or_default();
    let mut directories = HashMap::new();
    let mut all: Vec<_> = paths(&text).into_iter().filter_map(|path| plain(&path, &mut directories)).collect();
    all.sort();
    all.dedup();
    all
}

/// The path with its directory resolved; `None` where nothing is.
fn plain(path: &Path, directories: &mut HashMap<PathBuf, Option<PathBuf>>) -> Option<PathBuf> {
    let (parent, name) = (path.parent()?, path.file_name()?);
    let resolved = directories.entry(parent.to_owned()).or_insert_with(|| fs::canonicalize(parent).ok());
    let path = resolved.as_ref()?.join(name);
    // one that cannot be looked at cannot be told to be gone
    match fs::symlink_metadata(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        _ => Some(path),
    }
}

/// `Num: RefCount Protocol Flags Type St Inode Path`, of which the last may be absent, or begin with `@`.
fn paths(text: &[u8]) -> Vec<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let path = |line: &[u8]| {
        let mut rest = line;
        for _ in 0..7 {
            rest = rest.trim_ascii_start();
            rest = &rest[rest.iter().position(|b| *b == b' ')?..];
        }
        let path = rest.strip_prefix(b" ")?;
        path.starts_with(b"/").then(|| PathBuf::from(std::ffi::OsStr::from_bytes(path)))
    };
    text.split(|b| *b == b'\n').filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_net_unix() {
        let text = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01  4242 /run/with space\n\
            0000000000000000: 00000002 00000000 00010000 0001 01  4243 @abstract\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 76859\n\
            0000000000000000: 00000002 00000000 00000000 0002 01     7 /dev/log\n\
            0000000000000000: 00000002 00000000 00010000 0001 01  4244 relative\n";
        assert_eq!(paths(text), [Path::new("/run/with space"), Path::new("/dev/log")]);
    }

    #[test]
    fn one_that_is_there_is_found() {
        let path = std::env::temp_dir().join(format!("belljar-socket-{}", std::process::id()));
        let Ok(_listener) = std::os::unix::net::UnixListener::bind(&path) else { return };
        let found = bound();
        fs::remove_file(&path).ok();
        assert!(found.contains(&path), "{found:?}");
        assert!(!bound().contains(&path), "gone");
    }
}
