//! Typed, safe system calls: what the rest of the crate stands on, and usable on
//! its own.
//!
//! Each module wraps one family of calls, without policy: [`clone`] starts a
//! program in new namespaces and cgroups, [`bpf`] restricts the devices of a cgroup,
//! [`namespace`] joins and makes them, [`mount`] is the mount API of Linux 5.2 and mount(2),
//! [`path`] opens beneath a root, [`tree`] walks what others have written, [`pidfd`] names
//! processes, [`pty`] sizes terminals, [`memfd`] holds sealed programs, [`memory`] reads that of others, [`xattr`] sets attributes, [`socket`] passes
//! descriptors, [`seccomp`] answers the system calls of others. Functions take borrowed descriptors and give owned ones; errors are
//! [`Errno`], the kernel's own.
//!
//! What cannot be made safe is not here: there is no function that runs a closure
//! between clone and exec. Such code would share the memory, the locks and the
//! threads of its process with what it was cloned from.

pub mod bpf;
pub mod clone;
mod errno;
pub(crate) mod kernel;
pub mod memfd;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod path;
pub mod pidfd;
pub mod pty;
pub mod quota;
#[cfg(feature = "tokio")]
pub(crate) mod reactor;
pub mod seccomp;
pub mod socket;
pub mod tree;
pub mod xattr;

pub use kernel::raw::{Errno, Result};
