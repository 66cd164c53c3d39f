//! What an image says of the programs that run from it: defaults of a `Command`.

use std::ffi::OsString;
use std::path::PathBuf;

/// Defaults, each taken where the command says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Preset {
    /// What messages call the image.
    pub name: String,
    /// The program and its fixed arguments (`ENTRYPOINT`), and arguments that others replace (`CMD`).
    pub entrypoint: Vec<OsString>,
    pub arguments: Vec<OsString>,
    pub env: Vec<(OsString, OsString)>,
    pub current_dir: Option<PathBuf>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub groups: Vec<u32>,
}
