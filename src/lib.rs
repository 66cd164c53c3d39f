//! An embeddable Linux isolation SDK.

mod child;
mod error;
mod handle;
mod host;
mod id;
mod launch;
mod mount;
mod namespace;
mod plan;
mod process;
mod program;
mod rootfs;
mod sandbox;
mod security;
pub mod sys;
#[doc(hidden)]
pub mod testing;
mod units;

pub use child::{Child, Exit, Output, Usage};
pub use error::{Defect, Error, ErrorKind, Result, Step};
pub use handle::{Namespace, NamespaceKind};
pub use host::{Doctor, Finding, Outcome, doctor};
pub use id::{Gid, Uid};
pub use mount::{Missing, Mount, Mounts, Propagation};
pub use namespace::{Cgroup, ClockOffset, IdMap, IdRange, Ipc, Namespaces, Net, Pid, Time, User, Uts};
pub use process::{Command, Init, Stdio};
pub use rootfs::{RootFs, Upper};
pub use sandbox::{Explanation, Sandbox, SandboxBuilder};
pub use security::{Capabilities, Capability, Security};
pub use units::Bytes;
