//! What a Linux program expects to find, and what no plugin needs to see.

use super::{Mount, Mounts};
use crate::units::Bytes;

/// Files and directories of /proc that tell of the host or act on it.
const MASKED: [&str; 10] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];
/// Those that may be read but never written.
const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

impl Mounts {
    /// `/proc` with the masked and read-only paths of the default profile, `/dev` with the
    /// standard nodes, and a `/tmp` of 64 MiB. The default of a sandbox.
    ///
    /// Masked: `/proc/{acpi,asound,interrupts,kcore,keys,latency_stats,sched_debug,scsi,timer_list,timer_stats}`.
    /// Read-only: `/proc/{bus,fs,irq,sys,sysrq-trigger}`.
    pub fn standard() -> Mounts {
        let proc = |name: &&str| format!("/proc/{name}");
        let mut mounts = vec![Mount::proc("/proc")];
        mounts.extend(READ_ONLY.iter().map(|name| Mount::read_only_path(proc(name))));
        mounts.extend(MASKED.iter().map(|name| Mount::mask(proc(name))));
        mounts.push(Mount::dev("/dev"));
        mounts.push(Mount::tmpfs("/tmp").bytes(Bytes::mib(64)).mode(0o1777));
        Mounts(mounts)
    }

    /// The same for the host's root, whose `/sys` would tell of its hardware, its control groups and its network: it is
    /// covered.
    pub(crate) fn standard_of_host() -> Mounts {
        let mut mounts = Mounts::standard();
        mounts.0.insert(0, Mount::mask("/sys"));
        mounts
    }
}
