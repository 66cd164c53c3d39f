//! What an import takes and what it refuses: caps, and policies for what a layer may hold.

use crate::error::{Error, Result};
use crate::flaw::{Flaw, FlawKind};
use crate::units::Bytes;
use std::time::{Duration, Instant};

/// Caps on one layer. Whatever a layer claims, an import stops at the first that is reached,
/// with a [`Flaw`] that names it; memory stays bounded besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Unpacked bytes, holes of sparse files counted. Default: 64 GiB.
    pub bytes: Bytes,
    /// Entries of the archive. Default: 4,000,000.
    pub entries: u64,
    /// Names in a path. Default: 256.
    pub depth: usize,
    /// Unpacked bytes for one compressed byte, beyond the first GiB. Default: 300.
    pub expansion: u64,
    /// From the first byte to the last. Default: 1 hour.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            bytes: Bytes::gib(64),
            entries: 4_000_000,
            depth: 256,
            expansion: 300,
            time: Duration::from_secs(3600),
        }
    }
}

/// What expands more than [`Limits::expansion`] is borne up to here: a file of zeros is no bomb.
pub(super) const FREE_EXPANSION: u64 = 1 << 30;

/// What to do with the device nodes of a layer. In a sandbox they could not be opened anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Devices {
    /// Leave them out, and count them ([`LeftOut`]). The default.
    #[default]
    Skip,
    /// Fail with [`FlawKind::Device`].
    Refuse,
    /// Make them: takes CAP_MKNOD in the initial user namespace.
    Create,
}

/// What to do with `security.capability`, the capabilities of a program (capabilities(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileCapabilities {
    /// Keep them where the caller may set them, else leave them out and count them. The default:
    /// a payload with no_new_privs gains nothing by them.
    #[default]
    Keep,
    /// Leave them out, and count them.
    Drop,
}

/// Whether an import survives a power failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// A layer is on the disk before it gets its name (syncfs(2)). The default.
    #[default]
    Disk,
    /// A layer outlives its importer's end, however that comes, but a power failure
    /// can leave files empty: for stores that are thrown away, like those of tests.
    Process,
}

/// What of a layer is not in its tree. Export still has it: the archive is kept as it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Device nodes.
    pub devices: u64,
    /// Extended attributes: those of security modules, `trusted.`, and what this file system
    /// or user cannot have.
    pub attributes: u64,
    /// Owners, set-id bits and modes that an ordinary user cannot give; kept in an attribute.
    pub owners: u64,
}

/// Everything that bears on how a layer is unpacked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Policy {
    pub limits: Limits,
    pub devices: Devices,
    pub capabilities: FileCapabilities,
    pub durability: Durability,
}

/// Why unpacking stops: a flaw that still lacks its layer and entry, or an error that is complete.
#[derive(Debug)]
pub(super) enum Stop {
    Flaw(FlawKind, String),
    Error(Error),
}

impl Stop {
    pub fn flaw(kind: FlawKind, detail: impl Into<String>) -> Stop {
        Stop::Flaw(kind, detail.into())
    }

    /// The error of this entry of this layer.
    pub fn of(self, layer: &str, entry: Option<&[u8]>) -> Error {
        match self {
            Stop::Flaw(kind, detail) => Error::flawed(Flaw::new(layer, entry, kind, detail)),
            Stop::Error(error) => error,
        }
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Error(error)
    }
}

/// The clock of one layer.
#[derive(Clone, Copy)]
pub(super) struct Deadline(Instant, Duration);

impl Deadline {
    pub fn new(limits: &Limits) -> Deadline {
        Deadline(Instant::now(), limits.time)
    }

    pub fn check(&self) -> Result<(), Stop> {
        if self.0.elapsed() > self.1 {
            return Err(Stop::flaw(FlawKind::TooSlow, format!("it takes more than {:?}", self.1)));
        }
        Ok(())
    }
}
