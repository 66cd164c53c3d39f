//! What the examples share: a sandbox in which a program of the host can run, such as this one.

use belljar::{Mount, RootFs, Sandbox, SandboxBuilder};
use std::path::Path;

/// Where the program is, inside.
pub const PROGRAM: &str = "/program";

/// An empty root with where the host keeps its programs and their libraries, read-only, and this one of them as
/// [`PROGRAM`].
pub fn program(path: &Path) -> Result<SandboxBuilder, std::io::Error> {
    let mut builder = Sandbox::builder(RootFs::empty());
    for dir in ["/usr", "/lib", "/lib64", "/nix", "/gnu"] {
        if Path::new(dir).exists() {
            builder = builder.mount(Mount::bind(dir, dir).read_only());
        }
    }
    Ok(builder.mount(Mount::bind(path, PROGRAM).read_only()))
}
