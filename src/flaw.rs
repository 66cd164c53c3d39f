//! What is wrong with a layer or image that came from elsewhere.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Why a layer or image was refused: which layer, which entry of it, what kind of flaw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    layer: String,
    entry: Option<PathBuf>,
    kind: FlawKind,
    detail: String,
}

/// The kinds of flaw, for programs to match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FlawKind {
    /// A digest is not that of the content.
    Digest,
    /// A document (index, manifest, configuration) cannot be read, or contradicts itself.
    Document,
    /// The compressed stream is damaged, or of an unknown kind.
    Compression,
    /// A layer of a store is not what its archive says: something has changed it since.
    Damaged,
    /// The archive ends in the middle of an entry.
    Truncated,
    /// A header is damaged, or two sizes of one entry contradict each other, so that
    /// readers would see different entries.
    Header,
    /// A path that is absolute, contains `..`, or is longer than the kernel takes.
    Path,
    /// A directory of the path is a symbolic link or no directory.
    Parent,
    /// The target of a hard link is not a file of the same layer.
    HardLink,
    /// Two entries of one name that are not both directories.
    Duplicate,
    /// A whiteout that names no entry, or a name that is reserved for whiteouts.
    Whiteout,
    /// A device, where devices are refused; or one that would be a whiteout of overlayfs.
    Device,
    /// An extended attribute that is reserved for overlayfs or for the store.
    Attribute,
    /// An entry of a kind that a layer cannot have.
    Unsupported,
    /// More bytes than the limit.
    TooLarge,
    /// More entries than the limit.
    TooManyEntries,
    /// Deeper than the limit.
    TooDeep,
    /// More bytes from a compressed one than the limit.
    Expansion,
    /// Longer than the limit.
    TooSlow,
}

impl Flaw {
    #[cfg_attr(not(feature = "image"), allow(dead_code, reason = "images are an optional feature"))]
    pub(crate) fn new(
        layer: impl fmt::Display,
        entry: Option<&[u8]>,
        kind: FlawKind,
        detail: impl Into<String>,
    ) -> Flaw {
        let entry = entry.map(|bytes| PathBuf::from(OsStr::from_bytes(bytes)));
        Flaw { layer: layer.to_string(), entry, kind, detail: detail.into() }
    }

    /// The layer or document: its digest, or the name of its source.
    pub fn layer(&self) -> &str {
        &self.layer
    }

    /// The entry, as the archive spells it.
    pub fn entry(&self) -> Option<&Path> {
        self.entry.as_deref()
    }

    /// The kind.
    pub fn kind(&self) -> FlawKind {
        self.kind
    }

    /// The reason in words.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layer {}", self.layer)?;
        if let Some(entry) = &self.entry {
            write!(f, ": entry \"{}\"", entry.as_os_str().as_bytes().escape_ascii())?;
        }
        write!(f, ": {}", self.detail)
    }
}
