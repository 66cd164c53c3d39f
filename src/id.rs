//! Names of things inside a sandbox: users, groups, paths.

use crate::error::Defect;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A user id inside the sandbox. A number, never a name: a string that does not
/// parse cannot become root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(u32);

/// A group id inside the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gid(u32);

/// A text that is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no id: decimal digits, 0 to 4294967294")]
pub struct ParseIdError(String);

macro_rules! id {
    ($ty:ident) => {
        impl $ty {
            /// The id of root.
            pub const ROOT: $ty = $ty(0);

            /// The number.
            pub const fn get(self) -> u32 {
                self.0
            }
        }

        impl From<u32> for $ty {
            fn from(id: u32) -> $ty {
                $ty(id)
            }
        }

        /// From decimal digits and nothing else: no sign, no space, no leading zero, not 4294967295 (which is
        /// "unchanged" to the kernel). What does not parse is an error, and never 0.
        impl std::str::FromStr for $ty {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<$ty, ParseIdError> {
                let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                let plain = digits && (text == "0" || !text.starts_with('0'));
                let id = text.parse().ok().filter(|id| plain && *id != u32::MAX);
                id.map($ty).ok_or_else(|| ParseIdError(text.to_owned()))
            }
        }

        impl std::fmt::Display for $ty {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}
id!(Uid);
id!(Gid);

/// A path as the kernel takes it. Interior NULs have been refused by
/// [`check_guest`] or [`check_host`] before; an unchecked one gives an empty path.
pub(crate) fn c_path(path: &Path) -> CString {
    c_string(path.as_os_str().as_bytes())
}

/// A path of the host as it is seen from the working directory of now: the sandbox's own
/// is another one. An empty path stays empty, for [`check_host`] to refuse.
pub(crate) fn absolute(path: &mut PathBuf) {
    if let Ok(absolute) = std::path::absolute(&*path) {
        *path = absolute;
    }
}

/// A string as the kernel takes it; see [`c_path`].
pub(crate) fn c_string(bytes: &[u8]) -> CString {
    CString::new(bytes).unwrap_or_default()
}

/// A defect when `path` is no absolute path inside the sandbox.
pub(crate) fn check_guest(path: &Path, role: &str, defects: &mut Vec<Defect>) {
    if !path.is_absolute() {
        defects.push(Defect::new(
            format!("{role} {path:?} is not absolute"),
            format!("a path that begins with '/', as the sandbox sees it: \"/{}\"", path.display()),
        ));
    }
    check_nul(path, role, defects);
    if path.as_os_str().len() >= libc::PATH_MAX as usize {
        defects.push(Defect::new(format!("{role} is longer than {} bytes", libc::PATH_MAX - 1), "a shorter path"));
    }
}

/// A defect when `path` cannot be a path of the host.
pub(crate) fn check_host(path: &Path, role: &str, defects: &mut Vec<Defect>) {
    if path.as_os_str().is_empty() {
        defects.push(Defect::new(format!("{role} is empty"), "the path of a file or directory of the host"));
    }
    check_nul(path, role, defects);
}

/// A defect when a string holds a NUL byte, at which the kernel would cut it.
pub(crate) fn check_nul(text: impl AsRef<std::ffi::OsStr>, role: &str, defects: &mut Vec<Defect>) {
    let text = text.as_ref();
    if text.as_bytes().contains(&0) {
        defects.push(Defect::new(format!("{role} {text:?} contains a NUL byte"), "the text without it"));
    }
}

/// Text for messages: the string with anything unprintable escaped.
pub(crate) fn show(text: &CStr) -> String {
    text.to_bytes().escape_ascii().to_string()
}
