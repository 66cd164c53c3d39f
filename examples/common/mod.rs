//! What the examples share: a sandbox in which a program of the host can run, this one included.

use belljar::{Mount, RootFs, Sandbox, SandboxBuilder};
use std::path::Path;

/// Where the program itself is, inside.
pub const SELF: &str = "/program";

/// An empty root with where the host keeps its programs and their libraries, read-only, and this program as
/// [`SELF`]: the plugin, client or server is another role of the same binary, so that the example is one file.
pub fn program() -> Result<SandboxBuilder, std::io::Error> {
    let mut builder = Sandbox::builder(RootFs::empty());
    for dir in ["/usr", "/lib", "/lib64", "/nix", "/gnu"] {
        if Path::new(dir).exists() {
            builder = builder.mount(Mount::bind(dir, dir).read_only());
        }
    }
    Ok(builder.mount(Mount::bind(std::env::current_exe()?, SELF).read_only()))
}
