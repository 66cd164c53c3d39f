//! What a sandbox may use: plain data. Ranges are checked by [`check`](super::check),
//! files are written by [`v1`](super::v1) and [`v2`](super::v2).

use super::devices::Devices;
use super::parent::CgroupParent;
use crate::units::{Bytes, Cpus, Limit, Weight};
use std::path::PathBuf;
use std::time::Duration;

/// What a sandbox may use, and what the kernel accounts for it: a control group of its own
/// in each hierarchy that this takes, on cgroup v1, v2 and hybrid hosts alike.
///
/// ```
/// use belljar::{Bytes, CgroupLimits};
///
/// let limits = CgroupLimits::new().memory_max(Bytes::mib(256)).cpus(0.2).pids_max(64);
/// ```
///
/// - What is not set is not limited, but for 128 processes and threads
///   ([`pids_max`](CgroupLimits::pids_max)), and no swap where memory is limited.
/// - What is set is required: where a layout, a kernel or the caller's rights cannot do
///   it, `build` or `spawn` fails and says why. The default of 128 alone is set where it
///   can be, and [`Child::notes`](crate::Child::notes) tells where it cannot.
/// - The shim and the payload are in the group from birth. The shim
///   counts: one process, some 100 KiB of memory.
/// - Inside, `/proc/meminfo`, `/proc/cpuinfo` and nproc(1) show the host's totals.
///
/// Contract: `Documentation/admin-guide/cgroup-v2.rst`,
/// `Documentation/admin-guide/cgroup-v1/`, cgroups(7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupLimits {
    pub(crate) without_group: bool,
    /// Made by the default, not by the caller: nothing of it is required.
    pub(crate) implied: bool,
    pub(crate) parent: CgroupParent,
    pub(crate) memory: Memory,
    pub(crate) cpu: Cpu,
    pub(crate) cpuset_cpus: Option<Vec<u32>>,
    pub(crate) cpuset_mems: Option<Vec<u32>>,
    pub(crate) pids_max: Option<Limit<u32>>,
    pub(crate) io_weight: Option<Weight>,
    pub(crate) io_max: Vec<IoMax>,
    pub(crate) hugetlb: Vec<(Bytes, Limit<Bytes>)>,
    pub(crate) rdma: Vec<(String, RdmaMax)>,
    pub(crate) devices: Option<Devices>,
    pub(crate) net_cls: Option<ClassId>,
    pub(crate) net_prio: Vec<(String, u32)>,
    pub(crate) perf_event: bool,
    pub(crate) unified: Vec<(String, String)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub max: Option<Limit<Bytes>>,
    pub high: Option<Limit<Bytes>>,
    pub low: Option<Limit<Bytes>>,
    pub min: Option<Limit<Bytes>>,
    pub swap: Option<Limit<Bytes>>,
    pub oom: Option<OomKill>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cpu {
    pub max: Option<Limit<Cpus>>,
    pub shown: bool,
    pub weight: Option<Weight>,
    pub burst: Option<Duration>,
    pub idle: Option<CpuIdle>,
}

/// Whom the out-of-memory killer ends when the group's limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OomKill {
    /// Every process of the sandbox: nothing is left half alive. The default where memory is
    /// limited. Linux 4.19, cgroup v2; on v1 the kernel knows only `Process`.
    Group,
    /// One process, the largest as a rule; the others run on.
    Process,
}

/// The scheduling class of a whole group, Linux 5.15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CpuIdle {
    /// As `SCHED_IDLE`: runs when nothing else wants to.
    Idle,
    /// By its weight.
    Normal,
}

/// A traffic class of tc(8), `major:minor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClassId {
    /// The queueing discipline.
    pub major: u16,
    /// The class in it.
    pub minor: u16,
}

/// What a group may take of an RDMA device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RdmaMax {
    /// Handles of the host channel adapter.
    pub handles: Limit<u32>,
    /// Its objects.
    pub objects: Limit<u32>,
}

/// Bounds on one block device. What is not set is not bounded.
///
/// The device is named by its node (`/dev/sda`) or by any path on it, whose file system's
/// device is meant. Of a partition the whole disk is bounded, for the kernel bounds no part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoMax {
    pub(crate) path: PathBuf,
    pub(crate) read: Option<Limit<Bytes>>,
    pub(crate) write: Option<Limit<Bytes>>,
    pub(crate) read_operations: Option<Limit<u64>>,
    pub(crate) write_operations: Option<Limit<u64>>,
}

impl IoMax {
    /// No bounds yet, on the device that `path` is or is on. Looked up by `build`.
    pub fn device(path: impl Into<PathBuf>) -> IoMax {
        IoMax { path: path.into(), read: None, write: None, read_operations: None, write_operations: None }
    }

    /// At most this many bytes are read in a second.
    pub fn read(mut self, per_second: impl Into<Limit<Bytes>>) -> Self {
        self.read = Some(per_second.into());
        self
    }

    /// At most this many bytes are written in a second. On v1 only what is written
    /// directly (O_DIRECT), for there the kernel writes the page cache back in its own name.
    pub fn write(mut self, per_second: impl Into<Limit<Bytes>>) -> Self {
        self.write = Some(per_second.into());
        self
    }

    /// At most this many read requests in a second.
    pub fn read_operations(mut self, per_second: impl Into<Limit<u64>>) -> Self {
        self.read_operations = Some(per_second.into());
        self
    }

    /// At most this many write requests in a second.
    pub fn write_operations(mut self, per_second: impl Into<Limit<u64>>) -> Self {
        self.write_operations = Some(per_second.into());
        self
    }
}

impl CgroupLimits {
    /// A group of its own, limited to 128 processes and threads; no other limit.
    pub fn new() -> CgroupLimits {
        CgroupLimits::default()
    }

    /// Opts out: no group, no limits, no accounting. The sandbox uses what the host's own
    /// group may.
    pub fn none() -> CgroupLimits {
        CgroupLimits { without_group: true, ..CgroupLimits::default() }
    }

    /// What a sandbox gets that says nothing.
    pub(crate) fn implied() -> CgroupLimits {
        CgroupLimits { implied: true, ..CgroupLimits::default() }
    }

    /// Where groups are made; below the caller's own unless set.
    pub fn parent(mut self, parent: CgroupParent) -> Self {
        self.parent = parent;
        self
    }

    /// Most memory, page cache, tmpfs and kernel memory included; from 1 MiB on, in whole
    /// pages. Beyond it the kernel reclaims, and then ends processes
    /// ([`oom`](CgroupLimits::oom)).
    ///
    /// v2 `memory.max`, v1 `memory.limit_in_bytes`.
    pub fn memory_max(mut self, max: impl Into<Limit<Bytes>>) -> Self {
        self.memory.max = Some(max.into());
        self
    }

    /// Above this the group is slowed down and reclaimed from, but nothing is ended. v2 only
    /// (`memory.high`).
    pub fn memory_high(mut self, high: impl Into<Limit<Bytes>>) -> Self {
        self.memory.high = Some(high.into());
        self
    }

    /// Below this the group is spared while others can be reclaimed from. v2 `memory.low`,
    /// v1 `memory.soft_limit_in_bytes`.
    pub fn memory_low(mut self, low: impl Into<Limit<Bytes>>) -> Self {
        self.memory.low = Some(low.into());
        self
    }

    /// Below this nothing is ever reclaimed from the group. v2 only (`memory.min`).
    pub fn memory_min(mut self, min: impl Into<Limit<Bytes>>) -> Self {
        self.memory.min = Some(min.into());
        self
    }

    /// Most swap, memory not counted; none unless set, where memory is limited.
    ///
    /// v2 `memory.swap.max`. v1 counts both together, so there `memory.memsw.limit_in_bytes`
    /// is the sum of this and [`memory_max`](CgroupLimits::memory_max), which must be given.
    pub fn swap_max(mut self, max: impl Into<Limit<Bytes>>) -> Self {
        self.memory.swap = Some(max.into());
        self
    }

    /// Whom the out-of-memory killer ends. v2 `memory.oom.group`.
    pub fn oom(mut self, whom: OomKill) -> Self {
        self.memory.oom = Some(whom);
        self
    }

    /// Most CPU time: `cpus(0.2)`, or [`Cpus::quota`]. v2 `cpu.max`, v1 `cpu.cfs_quota_us`
    /// and `cpu.cfs_period_us`.
    pub fn cpus(mut self, max: impl Into<Limit<Cpus>>) -> Self {
        self.cpu.max = Some(max.into());
        self
    }

    /// Shows the payload as many CPUs as [`cpus`](CgroupLimits::cpus) is worth, rounded up, so that
    /// nproc(1) and thread pools fit the limit: by sched_setaffinity(2), on CPUs that the caller has,
    /// in turn for one sandbox after the other. No protection: the payload may undo it, and is
    /// then still bound to its CPU time. [`cpuset_cpus`](CgroupLimits::cpuset_cpus) is one.
    pub fn cpus_as_affinity(mut self) -> Self {
        self.cpu.shown = true;
        self
    }

    /// The share of CPU time where there is not enough. v2 `cpu.weight`; on v1 `cpu.shares`,
    /// by the scheduler's own conversion: 1024 shares for every 100 of weight.
    pub fn cpu_weight(mut self, weight: Weight) -> Self {
        self.cpu.weight = Some(weight);
        self
    }

    /// CPU time that may be saved up from quiet periods and used beyond the quota; at most the quota
    /// (Linux 5.14). v2 `cpu.max.burst`, v1 `cpu.cfs_burst_us`.
    pub fn cpu_burst(mut self, burst: Duration) -> Self {
        self.cpu.burst = Some(burst);
        self
    }

    /// The scheduling class, `cpu.idle`.
    pub fn cpu_idle(mut self, idle: CpuIdle) -> Self {
        self.cpu.idle = Some(idle);
        self
    }

    /// The CPUs that it runs on, by number; sched_getaffinity(2) and nproc(1) inside show
    /// these. `cpuset.cpus`.
    pub fn cpuset_cpus(mut self, cpus: impl IntoIterator<Item = u32>) -> Self {
        self.cpuset_cpus = Some(sorted(cpus));
        self
    }

    /// The memory nodes that it allocates from. `cpuset.mems`.
    pub fn cpuset_mems(mut self, nodes: impl IntoIterator<Item = u32>) -> Self {
        self.cpuset_mems = Some(sorted(nodes));
        self
    }

    /// Most processes and threads at once, the shim among them; 128 unless set. More are
    /// refused with `EAGAIN`. `pids.max`.
    pub fn pids_max(mut self, max: impl Into<Limit<u32>>) -> Self {
        self.pids_max = Some(max.into());
        self
    }

    /// The share of each disk's time where there is not enough. v2 `io.weight`; else the
    /// `bfq.weight` of the BFQ scheduler, 100 of which stay 100 and 10000 become 1000.
    pub fn io_weight(mut self, weight: Weight) -> Self {
        self.io_weight = Some(weight);
        self
    }

    /// Bounds on a block device; once for each. v2 `io.max`, v1 `blkio.throttle.*`.
    pub fn io_max(mut self, max: IoMax) -> Self {
        self.io_max.push(max);
        self
    }

    /// Most huge pages of one size, in bytes. v2 `hugetlb.SIZE.max`, v1 `hugetlb.SIZE.limit_in_bytes`.
    pub fn hugetlb_max(mut self, page: Bytes, max: impl Into<Limit<Bytes>>) -> Self {
        self.hugetlb.push((page, max.into()));
        self
    }

    /// Most handles and objects of an RDMA device (`mlx4_0`). `rdma.max`.
    pub fn rdma_max(mut self, device: impl Into<String>, max: RdmaMax) -> Self {
        self.rdma.push((device.into(), max));
        self
    }

    /// The device nodes that may be used; without it, those that the mounts let it reach.
    pub fn devices(mut self, allowed: Devices) -> Self {
        self.devices = Some(allowed);
        self
    }

    /// Tags the sandbox's packets for tc(8) and netfilter. v1 only (`net_cls.classid`); on v2
    /// nftables matches `socket cgroupv2`.
    pub fn net_cls(mut self, class: ClassId) -> Self {
        self.net_cls = Some(class);
        self
    }

    /// The priority of packets on an interface of the host; once for each. v1 only
    /// (`net_prio.ifpriomap`).
    pub fn net_prio(mut self, interface: impl Into<String>, priority: u32) -> Self {
        self.net_prio.push((interface.into(), priority));
        self
    }

    /// Makes the group one that `perf stat --for-each-cgroup` can count: a group of the
    /// `perf_event` hierarchy on v1; on v2 every group is one.
    pub fn perf_event(mut self) -> Self {
        self.perf_event = true;
        self
    }

    /// Writes a file of the v2 group as it stands, after all others: what has no name here
    /// (`memory.zswap.max`).
    pub fn unified(mut self, file: impl Into<String>, value: impl Into<String>) -> Self {
        self.unified.push((file.into(), value.into()));
        self
    }
}

fn sorted(numbers: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let mut numbers: Vec<u32> = numbers.into_iter().collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}
