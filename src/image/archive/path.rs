//! Paths of archives, as a tree may have them.

use super::super::limits::Stop;
use crate::flaw::FlawKind;
use std::ffi::CString;

/// A path as the layer's tree has it: relative, without `.` and double slashes. Empty for the root.
pub(in crate::image) fn clean(path: &[u8], depth: usize) -> Result<Vec<u8>, Stop> {
    let bad = |why: &str| Stop::flaw(FlawKind::Path, why);
    if path.is_empty() {
        return Err(bad("an empty path"));
    }
    if path.starts_with(b"/") {
        return Err(bad("an absolute path"));
    }
    if path.contains(&0) {
        return Err(bad("a path that contains a NUL"));
    }
    if path.len() >= libc::PATH_MAX as usize {
        return Err(bad("a path longer than the kernel takes"));
    }
    let mut cleaned = Vec::with_capacity(path.len());
    let mut names = 0;
    for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty() && *name != b".") {
        if name == b".." {
            return Err(bad("a path with \"..\""));
        }
        if name.len() > 255 {
            return Err(bad("a name longer than 255 bytes"));
        }
        names += 1;
        if names > depth {
            return Err(Stop::flaw(FlawKind::TooDeep, format!("deeper than {depth} directories")));
        }
        if !cleaned.is_empty() {
            cleaned.push(b'/');
        }
        cleaned.extend_from_slice(name);
    }
    Ok(cleaned)
}

/// The directory of a path, empty for the root, and the name in it.
pub(in crate::image) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

pub(in crate::image) fn cstring(name: &[u8]) -> Result<CString, Stop> {
    CString::new(name).map_err(|_| Stop::flaw(FlawKind::Path, "a path that contains a NUL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_or_refused() {
        for (path, cleaned) in [("a/./b//c/", "a/b/c"), ("./", ""), (".", ""), ("...", "..."), ("a/..b", "a/..b")] {
            assert_eq!(clean(path.as_bytes(), 8).unwrap(), cleaned.as_bytes(), "{path}");
        }
        let (long, deep) = ("x".repeat(256), "x/".repeat(9));
        for path in ["", "/", "/a", "..", "a/..", "../a", "a\0", &long, &deep] {
            assert!(clean(path.as_bytes(), 8).is_err(), "{path}");
        }
        assert_eq!(split(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(split(b"a"), (&b""[..], &b"a"[..]));
    }
}
