//! What a sandbox uses and has used, as its groups count it.
//!
//! Each figure is one file of the kernel's, read by one pread(2) from a descriptor that
//! stays open. What a layout, a kernel or the limits do not provide is `None`, never 0.

use super::controller::Controller;
use super::group::Group;
use super::parse;
use crate::sys::Errno;
use crate::sys::path::Device;
use crate::units::Bytes;
use std::time::Duration;

/// The figures of a sandbox; see [`Child::stats`](crate::Child::stats). All since its
/// birth, or of now; the shim is counted in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// CPU time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes and threads.
    pub pids: PidsStats,
    /// Disks, one by one; `None` where the group has no controller of them.
    pub io: Option<Vec<IoStats>>,
    /// Huge pages by size, of the sizes that are limited.
    pub hugetlb: Vec<HugetlbStats>,
    /// Time lost by waiting (pressure stall information). Of cgroup v2 groups only.
    pub pressure: PressureStats,
}

/// CPU time. v2 `cpu.stat`, v1 `cpuacct.*` and `cpu.stat`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CpuStats {
    /// In all.
    pub usage: Option<Duration>,
    /// In user mode.
    pub user: Option<Duration>,
    /// In the kernel.
    pub system: Option<Duration>,
    /// Periods in which it wanted to run, where CPU time is limited.
    pub periods: Option<u64>,
    /// Periods in which it had used up its quota.
    pub throttled_periods: Option<u64>,
    /// How long its CPUs were held back then, together.
    pub throttled: Option<Duration>,
}

/// Memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStats {
    /// In use now, page cache and kernel memory included.
    pub current: Option<Bytes>,
    /// The most so far. v2: Linux 5.19.
    pub peak: Option<Bytes>,
    /// Swapped out now.
    pub swap: Option<Bytes>,
    /// Of `current`: heap, stacks, private mappings.
    pub anon: Option<Bytes>,
    /// Of `current`: page cache, tmpfs and shared memory among it.
    pub file: Option<Bytes>,
    /// Of `current`: the kernel's, for this sandbox. v2: Linux 5.18.
    pub kernel: Option<Bytes>,
    /// What has happened.
    pub events: MemoryEvents,
}

/// What has happened to the group's memory, and how often. v2 `memory.events`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryEvents {
    /// Reclaimed from although below `memory_low`.
    pub low: Option<u64>,
    /// Slowed down because of `memory_high`.
    pub high: Option<u64>,
    /// Came to `memory_max`.
    pub max: Option<u64>,
    /// Could not be given memory.
    pub oom: Option<u64>,
    /// Processes ended by the out-of-memory killer.
    pub oom_kill: Option<u64>,
    /// Whole groups ended by it. Linux 5.17.
    pub oom_group_kill: Option<u64>,
}

/// Processes and threads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PidsStats {
    /// Now.
    pub current: Option<u64>,
    /// The most so far. Linux 6.8.
    pub peak: Option<u64>,
    /// How often one more was refused because of `pids_max`.
    pub refused: Option<u64>,
}

/// One disk. v2 `io.stat`, v1 `blkio.throttle.io_service_bytes` and `io_serviced`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IoStats {
    /// Which.
    pub device: Device,
    /// Read.
    pub read: Option<Bytes>,
    /// Written.
    pub written: Option<Bytes>,
    /// Read requests.
    pub reads: Option<u64>,
    /// Write requests.
    pub writes: Option<u64>,
}

/// Huge pages of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HugetlbStats {
    /// The size of a page.
    pub page: Bytes,
    /// In use now.
    pub current: Option<Bytes>,
    /// How often one more was refused.
    pub refused: Option<u64>,
}

/// Pressure of the three resources. `Documentation/accounting/psi.rst`, Linux 4.20 with CONFIG_PSI.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PressureStats {
    /// Waiting for a CPU.
    pub cpu: Option<Pressure>,
    /// Waiting for memory.
    pub memory: Option<Pressure>,
    /// Waiting for disks.
    pub io: Option<Pressure>,
}

/// How much time was lost by waiting for a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pressure {
    /// Some process waited.
    pub some: Stall,
    /// All of them waited. `None` for the CPU before Linux 5.13.
    pub full: Option<Stall>,
}

/// Time lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stall {
    /// In hundredths of a percent of the last 10 seconds.
    pub average_10: u32,
    /// Of the last 60.
    pub average_60: u32,
    /// Of the last 300.
    pub average_300: u32,
    /// In all.
    pub total: Duration,
}

impl Group {
    /// Reads them all.
    pub fn stats(&self) -> Result<Stats, Errno> {
        Ok(Stats {
            cpu: self.cpu_stats()?,
            memory: self.memory_stats()?,
            pids: self.pids_stats()?,
            io: self.io_stats()?,
            hugetlb: self.hugetlb_stats()?,
            pressure: PressureStats {
                cpu: self.pressure("cpu.pressure")?,
                memory: self.pressure("memory.pressure")?,
                io: self.pressure("io.pressure")?,
            },
        })
    }

    pub(super) fn cpu_stats(&self) -> Result<CpuStats, Errno> {
        let mut stats = CpuStats::default();
        let Some(member) = self.of(Controller::Cpuacct) else { return Ok(stats) };
        // on a hybrid host the v2 group counts what it does not limit: `cpu.stat` is in every group
        let text = if member.v2 { self.read(member, "cpu.stat")? } else { None };
        if let Some(text) = text {
            let micros = |key| parse::value(&text, key).map(Duration::from_micros);
            stats.usage = micros("usage_usec");
            stats.user = micros("user_usec");
            stats.system = micros("system_usec");
            stats.throttled = micros("throttled_usec");
        } else {
            let nanos = |file| Ok(self.number(member, file)?.map(Duration::from_nanos));
            stats.usage = nanos("cpuacct.usage")?;
            stats.user = nanos("cpuacct.usage_user")?;
            stats.system = nanos("cpuacct.usage_sys")?;
        }
        if let Some(member) = self.of(Controller::Cpu)
            && let Some(text) = self.read(member, "cpu.stat")?
        {
            stats.periods = parse::value(&text, "nr_periods");
            stats.throttled_periods = parse::value(&text, "nr_throttled");
            stats.throttled =
                stats.throttled.or_else(|| parse::value(&text, "throttled_time").map(Duration::from_nanos));
        }
        Ok(stats)
    }

    pub(super) fn memory_stats(&self) -> Result<MemoryStats, Errno> {
        let mut stats = MemoryStats::default();
        let Some(member) = self.of(Controller::Memory) else { return Ok(stats) };
        let bytes = |file| Ok(self.number(member, file)?.map(Bytes::new));
        let text = self.read(member, "memory.stat")?.unwrap_or_default();
        let stat = |key| parse::value(&text, key).map(Bytes::new);
        if member.v2 {
            stats.current = bytes("memory.current")?;
            stats.peak = bytes("memory.peak")?;
            stats.swap = bytes("memory.swap.current")?;
            (stats.anon, stats.file, stats.kernel) = (stat("anon"), stat("file"), stat("kernel"));
            if let Some(text) = self.read(member, "memory.events")? {
                let count = |key| parse::value(&text, key);
                stats.events = MemoryEvents {
                    low: count("low"),
                    high: count("high"),
                    max: count("max"),
                    oom: count("oom"),
                    oom_kill: count("oom_kill"),
                    oom_group_kill: count("oom_group_kill"),
                };
            }
        } else {
            stats.current = bytes("memory.usage_in_bytes")?;
            stats.peak = bytes("memory.max_usage_in_bytes")?;
            (stats.anon, stats.file, stats.swap) = (stat("rss"), stat("cache"), stat("swap"));
            stats.kernel = bytes("memory.kmem.usage_in_bytes")?;
            stats.events.max = self.number(member, "memory.failcnt")?;
            let text = self.read(member, "memory.oom_control")?;
            stats.events.oom_kill = text.and_then(|text| parse::value(&text, "oom_kill"));
        }
        Ok(stats)
    }

    pub(super) fn pids_stats(&self) -> Result<PidsStats, Errno> {
        let Some(member) = self.of(Controller::Pids) else { return Ok(PidsStats::default()) };
        Ok(PidsStats {
            current: self.number(member, "pids.current")?,
            peak: self.number(member, "pids.peak")?,
            refused: self.read(member, "pids.events")?.and_then(|text| parse::value(&text, "max")),
        })
    }

    fn io_stats(&self) -> Result<Option<Vec<IoStats>>, Errno> {
        let Some(member) = self.of(Controller::Io) else { return Ok(None) };
        if member.v2 {
            return Ok(self.read(member, "io.stat")?.map(|text| parse::io_v2(&text)));
        }
        let bytes = self.read(member, "blkio.throttle.io_service_bytes")?;
        let operations = self.read(member, "blkio.throttle.io_serviced")?;
        Ok(bytes.map(|bytes| parse::io_v1(&bytes, &operations.unwrap_or_default())))
    }

    fn hugetlb_stats(&self) -> Result<Vec<HugetlbStats>, Errno> {
        let Some(member) = self.of(Controller::Hugetlb) else { return Ok(Vec::new()) };
        let mut stats = Vec::new();
        for page in &self.huge_pages {
            let size = super::controller::page_size(page.get());
            let (current, refused) = if member.v2 {
                let events = self.read(member, &format!("hugetlb.{size}.events"))?;
                let refused = events.and_then(|text| parse::value(&text, "max"));
                (self.number(member, &format!("hugetlb.{size}.current"))?, refused)
            } else {
                let file = |name| format!("hugetlb.{size}.{name}");
                (self.number(member, &file("usage_in_bytes"))?, self.number(member, &file("failcnt"))?)
            };
            stats.push(HugetlbStats { page: *page, current: current.map(Bytes::new), refused });
        }
        Ok(stats)
    }

    fn pressure(&self, file: &'static str) -> Result<Option<Pressure>, Errno> {
        let Some(member) = self.v2() else { return Ok(None) };
        Ok(self.read(member, file)?.and_then(|text| parse::pressure(&text)))
    }
}
