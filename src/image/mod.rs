//! Layers, images and volumes: the storage side of a root file system, from tar layers to a
//! running sandbox and back.
//!
//! A [`Store`] is a directory in which each layer is kept once, unpacked into the form that
//! overlayfs reads, under the sha256 of its archive. [`Store::import`] takes images in, from an
//! OCI layout, a `docker save` archive or a plain tar; [`RootFs::image`](crate::RootFs::image)
//! runs them.
//!
//! ```no_run
//! use belljar::image::{Import, Store};
//! use belljar::{Command, RootFs, Sandbox};
//!
//! let store = Store::open("/var/lib/bells")?;
//! store.import(Import::oci_layout("debian-oci").reference("12"), "debian:12")?;
//! let sandbox = Sandbox::builder(RootFs::image(&store, "debian:12")?).build()?;
//! let output = sandbox.output(&mut Command::new("cat").arg("/etc/os-release"))?;
//! # Ok::<(), belljar::Error>(())
//! ```
//!
//! Nothing that comes from a layer is trusted: see [`Limits`], [`Devices`], and
//! [`Flaw`](crate::Flaw) for what is refused. An import that fails leaves the store as it was.
//!
//! An import runs on as many threads as there are processors, two for each layer under way
//! (one reads, hashes and decompresses, one unpacks); all have ended when it returns.

mod archive;
mod collect;
mod commit;
mod decode;
mod diff;
mod digest;
mod export;
mod extract;
mod import;
mod limit;
mod limits;
mod marks;
mod pack;
mod patch;
mod pax;
mod record;
mod run;
mod size;
mod skeleton;
mod source;
mod store;
mod verify;
mod view;
mod volume;
mod write;

pub use collect::Collected;
pub use commit::Commit;
pub use diff::{Difference, DifferenceKind};
pub use digest::Digest;
pub use export::Compression;
pub use import::{Import, Progress};
pub use limit::VolumeLimit;
pub use limits::{Devices, Durability, FileCapabilities, LeftOut, Limits};
pub use record::{Image, Layer, Platform};
pub use size::{Size, Sizes};
pub use store::Store;
pub use volume::{Volume, VolumeInfo, VolumeUsage};

use crate::error::Error;
use crate::sys::Errno;

/// The error of a call through `std`.
fn io_error(what: impl Into<String>, error: &std::io::Error) -> Error {
    match error.raw_os_error() {
        Some(errno) => Error::call(what, Errno(errno)),
        None => Error::call(format!("{}: {error}", what.into()), Errno::EIO),
    }
}
