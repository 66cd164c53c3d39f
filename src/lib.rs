//! An embeddable Linux isolation SDK: namespaces, layered root file systems and mounts,
//! composed by a typed builder into a [`Sandbox`], whose [`spawn`](Sandbox::spawn) gives a
//! [`Child`].
//!
//! ```no_run
//! use belljar::{Command, Mount, RootFs, Sandbox};
//!
//! let sandbox = Sandbox::builder(RootFs::host()).mount(Mount::tmpfs("/srv")).build()?;
//! let output = sandbox.output(Command::new("sh").arg("-c").arg("id; hostname; touch /srv/x"))?;
//! assert!(output.exit.success());
//! # Ok::<(), belljar::Error>(())
//! ```
//!
//! - **What it stands on** is the one thing without a default: a [`RootFs`].
//! - **Everything else** has the safe default: [`Namespaces::isolated`], [`Mounts::standard`],
//!   no capabilities ([`Security`]), [`Init::Shim`]. Each opt-out is a call with a name.
//! - **Failures** are one [`Error`]: the step, the object, the errno, the kernel's message, a
//!   remedy. [`Sandbox::explain`] prints the steps, [`doctor()`] what this host can do.
//! - **The wrappers** over clone, mount and pivot_root are public in [`sys`].
//!
//! The library never prints, never panics on input, installs no signal handler, and does not
//! touch its host's working directory, umask, environment, namespaces or dumpable flag.
//! Linux 5.10 or later, x86_64 and aarch64.

mod cgroup;
mod child;
mod enforce;
mod error;
mod flaw;
mod handle;
mod host;
mod id;
#[cfg(feature = "image")]
pub mod image;
mod launch;
mod mount;
mod namespace;
mod plan;
mod preset;
mod process;
mod program;
mod pty;
mod rootfs;
mod sandbox;
mod security;
mod socket;
pub mod sys;
#[doc(hidden)]
pub mod testing;
mod units;

pub use cgroup::{
    CgroupLimits, CgroupParent, ClassId, CpuIdle, CpuStats, DeviceAccess, DeviceKind, DeviceNumbers, Devices, Event,
    Events, HugetlbStats, IoMax, IoStats, MemoryEvents, MemoryStats, OomKill, PidsStats, Pressure, PressureStats,
    PressureTrigger, RdmaMax, Resource, Stall, Stats, Swept, sweep,
};
pub use child::{
    Answer, Child, Delivery, Exit, Frozen, Grounds, Inject, KillScope, Line, LineEnd, Lines, Notification,
    Notifications, Output, Reply, Stream, Usage, Verdict,
};
#[cfg(feature = "tokio")]
pub use child::{AsyncChild, AsyncNotifications};
pub use enforce::{Enforce, Enforced, Enforcement, Protection};
pub use error::{Defect, Error, ErrorKind, Result, Step};
pub use flaw::{Flaw, FlawKind};
pub use handle::{Namespace, NamespaceHandles, NamespaceKind};
pub use host::{Doctor, Finding, Outcome, doctor};
pub use id::{Gid, ParseIdError, Uid};
pub use mount::{HidePids, Missing, Mount, Mounts, ProcSubset, Propagation};
pub use namespace::{Cgroup, ClockOffset, IdMap, IdRange, Ipc, Namespaces, Net, Pid, Time, User, Uts};
pub use process::{Command, Entry, Init, IoPriority, SchedPolicy, Schedule, Stdio};
pub use pty::{Pty, PtySize};
pub use rootfs::{Change, ChangeKind, Changes, ChangesIter, InInitLayer, Keep, KeepTotals, RootFs, Upper};
pub use sandbox::{Explanation, Sandbox, SandboxBuilder};
pub use security::{
    Abi, Argument, Capabilities, Capability, Condition, ExecLabel, Inotify, Keyring, Landlock, Profile, Rlimits,
    Seccomp, SeccompAction, SeccompProfile, Security, UnknownCapability,
};
pub use socket::{Received, Socket, SocketKind, socketpair};
pub use sys::path::FileKind;
pub use units::{Bytes, Cpus, Limit, Weight};

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
