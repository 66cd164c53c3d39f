//! Control groups: what a sandbox may use, what it has used, and the handle of it all.
//!
//! ```text
//! CgroupLimits ── check ──▶ Places (which hierarchies, which files, on this host)
//!    plain data                └── lower ──▶ ops: make, set, join  ──▶ clone into the groups
//! ```
//! Contract: cgroups(7), `Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/`.

mod affinity;
mod check;
mod control;
mod controller;
mod devices;
mod directory;
mod events;
mod files;
mod group;
mod limits;
mod name;
mod parent;
mod parse;
mod place;
mod remedy;
mod stats;
mod sweep;
#[cfg(feature = "systemd")]
mod systemd;
mod update;
mod v1;
mod v2;

pub use devices::{DeviceAccess, DeviceKind, DeviceNumbers, Devices};
pub(crate) use directory::{Directory, words, write};
pub use events::{Event, Events, PressureTrigger, Resource};
pub(crate) use group::Group;
pub use limits::{CgroupLimits, ClassId, CpuIdle, IoMax, OomKill, RdmaMax};
pub use parent::CgroupParent;
pub(crate) use place::Places;
pub(crate) use remedy::{remedy, remedy_of_write};
pub use stats::{
    CpuStats, HugetlbStats, IoStats, MemoryEvents, MemoryStats, PidsStats, Pressure, PressureStats, Stall, Stats,
};
pub use sweep::{Swept, sweep};
pub(crate) use update::Refusal;
