//! Values out of range, before the kernel sees them.

use super::limits::CgroupLimits;
use crate::error::Defect;
use crate::units::{Bytes, Limit, Weight};
use std::path::Component;

/// Least memory with which the shim and a small program start.
const LEAST_MEMORY: Bytes = Bytes::mib(1);

/// Most CPUs and memory nodes a kernel is built for.
const MOST_CPUS: u32 = 8192;

impl CgroupLimits {
    /// Finds what contradicts itself, or no kernel would take.
    pub(crate) fn check(&self, defects: &mut Vec<Defect>) {
        let mut defect = |what: String, hint: &str| defects.push(Defect::new(what, hint));
        if self.without_group && *self != CgroupLimits::none() {
            defect("CgroupLimits::none() is given limits".into(), "CgroupLimits::new()");
        }
        if let Some(path) = &self.parent.path {
            let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
            if !path.is_absolute() || !plain {
                defect(
                    format!("the parent group {path:?} is no path of a group"),
                    "a path as /proc/PID/cgroup writes it",
                );
            }
        }
        if let Some(Limit::At(max)) = self.memory.max
            && max < LEAST_MEMORY
        {
            defect(format!("memory_max {max}: nothing can start in it"), "at least 1 MiB");
        }
        if let (Some(Limit::At(max)), Some(Limit::At(min))) = (self.memory.max, self.memory.min)
            && min > max
        {
            defect(format!("memory_min {min} is above memory_max {max}"), "memory_min below memory_max");
        }
        self.check_cpu(&mut defect);
        for (what, set) in [("cpuset_cpus", &self.cpuset_cpus), ("cpuset_mems", &self.cpuset_mems)] {
            if set.as_ref().is_some_and(|set| set.is_empty() || set.iter().any(|number| *number >= MOST_CPUS)) {
                defect(
                    format!("{what} is empty or has a number above {}", MOST_CPUS - 1),
                    "numbers of /sys/devices/system",
                );
            }
        }
        // PID_MAX_LIMIT
        if let Some(Limit::At(max)) = self.pids_max
            && !(1..=4_194_304).contains(&max)
        {
            defect(format!("pids_max {max}"), "1 to 4194304, or Limit::Max; the shim is one");
        }
        for (what, weight) in [("cpu_weight", self.cpu.weight), ("io_weight", self.io_weight)] {
            if weight.is_some_and(|weight: Weight| !(1..=10_000).contains(&weight.get())) {
                defect(format!("{what} is out of range"), "1 to 10000");
            }
        }
        self.check_io(&mut defect);
        for (page, _) in &self.hugetlb {
            if !page.get().is_power_of_two() || *page < Bytes::kib(4) {
                defect(format!("huge pages of {page}"), "a size of /sys/kernel/mm/hugepages, such as Bytes::mib(2)");
            }
        }
        for (device, max) in &self.rdma {
            let amounts = [max.handles, max.objects];
            let fits = amounts.iter().all(|amount| !matches!(amount, Limit::At(n) if *n > i32::MAX as u32));
            if !is_word(device) || !fits {
                defect(format!("rdma_max of {device:?}"), "a name of /sys/class/infiniband, and amounts below 2^31");
            }
        }
        for (interface, _) in &self.net_prio {
            if !is_word(interface) || interface.len() > 15 {
                defect(format!("net_prio of {interface:?}"), "a network interface of the host");
            }
        }
        for (file, value) in &self.unified {
            let plain = file.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) && file.contains('.');
            if !plain || file.starts_with("cgroup.") || file.starts_with('.') || value.contains('\0') {
                defect(
                    format!("the raw key {file:?}"),
                    "a file of a controller (memory.zswap.max); those of cgroup.* are belljar's own",
                );
            }
        }
    }

    fn check_cpu(&self, defect: &mut impl FnMut(String, &str)) {
        let mut bound = None;
        if let Some(Limit::At(cpus)) = self.cpu.max {
            match cpus.micros() {
                // 1 µs more than 2^44 is where the scheduler's own arithmetic ends
                (Some(quota @ 1000..=0xfff_ffff_ffff), 1000..=1_000_000) => bound = Some(quota),
                (Some(quota), period) => defect(
                    format!("cpus: {quota} µs in each {period} µs"),
                    "a period of 1 ms to 1 s and a quota from 1 ms on: cpus(0.01) or more",
                ),
                (None, _) => defect("cpus: not an amount".into(), "a number above 0, such as 0.5"),
            }
        }
        if self.cpu.shown && bound.is_none() {
            defect("cpus_as_affinity without cpus".into(), "cpus() with a number");
        }
        if let Some(burst) = self.cpu.burst {
            let micros = burst.as_micros();
            if bound.is_none_or(|quota| micros > quota.into()) {
                defect(format!("cpu_burst of {micros} µs"), "cpus() with a quota that is not below the burst");
            }
        }
    }

    fn check_io(&self, defect: &mut impl FnMut(String, &str)) {
        for max in &self.io_max {
            let path = max.path.display();
            let bytes = [max.read, max.write];
            let operations = [max.read_operations, max.write_operations];
            if max.path.as_os_str().is_empty() || max.path.as_os_str().as_encoded_bytes().contains(&0) {
                defect(format!("io_max of {path:?}"), "a block device, or a path on one");
            }
            if bytes.iter().all(Option::is_none) && operations.iter().all(Option::is_none) {
                defect(format!("io_max of {path} bounds nothing"), "read, write, read_operations or write_operations");
            }
            let zero = bytes.contains(&Some(Limit::At(Bytes::new(0)))) || operations.contains(&Some(Limit::At(0)));
            // the kernel's counters of operations are 32 bits wide
            let wide = operations.iter().any(|n| matches!(n, Some(Limit::At(n)) if *n >= u32::MAX.into()));
            if zero || wide {
                defect(
                    format!("io_max of {path} is out of range"),
                    "1 or more, operations below 4294967295, or Limit::Max",
                );
            }
        }
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Cpus;
    use crate::{ClassId, IoMax, RdmaMax};
    use std::time::Duration;

    fn defects(limits: CgroupLimits) -> usize {
        let mut found = Vec::new();
        limits.check(&mut found);
        found.len()
    }

    #[test]
    fn what_is_in_range() {
        let limits = CgroupLimits::new()
            .memory_max(Bytes::mib(1))
            .memory_min(Bytes::kib(4))
            .swap_max(Bytes::new(0))
            .cpus(0.01)
            .cpu_burst(Duration::from_millis(1))
            .cpu_weight(Weight::new(10_000))
            .cpuset_cpus([0])
            .pids_max(Limit::Max)
            .io_max(IoMax::device("/dev/null").read(Bytes::new(1)).read_operations(Limit::Max))
            .hugetlb_max(Bytes::mib(2), Bytes::new(0))
            .rdma_max("mlx4_0", RdmaMax { handles: Limit::Max, objects: Limit::At(1) })
            .net_cls(ClassId { major: 1, minor: 2 })
            .unified("memory.zswap.max", "0");
        assert_eq!(defects(limits), 0);
        assert_eq!(defects(CgroupLimits::none()), 0);
    }

    #[test]
    fn what_is_out_of_range() {
        let new = CgroupLimits::new;
        let all = [
            new().memory_max(Bytes::kib(1023)),
            new().memory_max(Bytes::mib(1)).memory_min(Bytes::mib(2)),
            new().cpus(0.0),
            new().cpus(0.009),
            new().cpus(-1.0),
            new().cpus(f64::INFINITY),
            new().cpus(Cpus::quota(Duration::from_millis(1), Duration::from_secs(2))),
            new().cpu_burst(Duration::from_millis(1)),
            new().cpus(0.1).cpu_burst(Duration::from_millis(11)),
            new().cpus_as_affinity(),
            new().cpu_weight(Weight::new(0)),
            new().io_weight(Weight::new(10_001)),
            new().cpuset_cpus([]),
            new().cpuset_mems([8192]),
            new().pids_max(0),
            new().pids_max(4_194_305),
            new().io_max(IoMax::device("/dev/null")),
            new().io_max(IoMax::device("").read(Bytes::new(1))),
            new().io_max(IoMax::device("/dev/null").write_operations(0)),
            new().io_max(IoMax::device("/dev/null").write_operations(u64::from(u32::MAX))),
            new().hugetlb_max(Bytes::new(3), Limit::Max),
            new().rdma_max("a b", RdmaMax { handles: Limit::Max, objects: Limit::Max }),
            new().net_prio("eth0\n1", 1),
            new().unified("cgroup.procs", "0"),
            new().unified("../memory.max", "0"),
            new().unified("nodot", "0"),
            new().parent(crate::CgroupParent::at("relative")),
            new().parent(crate::CgroupParent::at("/a/../b")),
            CgroupLimits::none().pids_max(3),
        ];
        for (index, limits) in all.into_iter().enumerate() {
            assert_eq!(defects(limits), 1, "number {index}");
        }
    }
}
