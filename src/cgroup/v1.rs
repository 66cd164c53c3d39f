//! Limits as files of v1 groups, one in each hierarchy.
//!
//! Contract: `Documentation/admin-guide/cgroup-v1/`, cgroups(7).

use super::controller::{Controller, Presence, Setting, Surroundings, list, page_size};
use super::limits::{CgroupLimits, CpuIdle, OomKill};
use super::v2;
use crate::units::{Bytes, Limit};
use std::fs;
use std::path::Path;

/// See [`CgroupLimits::settings`].
pub(super) fn settings(
    limits: &CgroupLimits,
    controller: Controller,
    around: &Surroundings<'_>,
) -> Result<Vec<Setting>, String> {
    Ok(match controller {
        Controller::Memory => return memory(limits, around.running),
        Controller::Cpu => cpu(limits),
        Controller::Cpuset => return cpuset(limits, around.parent, around.running.is_none()),
        Controller::Pids => limits.pids_max.iter().map(|max| Setting::new("pids.max", max)).collect(),
        Controller::Io => return io(limits, around),
        Controller::Hugetlb => {
            let file = |page: u64| format!("hugetlb.{}.limit_in_bytes", page_size(page));
            limits.hugetlb.iter().map(|(page, max)| Setting::new(file(page.get()), bytes(max))).collect()
        }
        Controller::Rdma => v2::rdma(limits),
        Controller::Devices => limits.devices.iter().flat_map(|devices| devices.v1()).collect(),
        Controller::NetCls => {
            let class = |class: &super::ClassId| u32::from(class.major) << 16 | u32::from(class.minor);
            limits.net_cls.iter().map(|id| Setting::new("net_cls.classid", class(id))).collect()
        }
        Controller::NetPrio => {
            let line = |(interface, priority): &(String, u32)| format!("{interface} {priority}");
            limits.net_prio.iter().map(|map| Setting::new("net_prio.ifpriomap", line(map))).collect()
        }
        Controller::Cpuacct | Controller::Freezer | Controller::PerfEvent => Vec::new(),
        Controller::Unified => return Err("a raw key: cgroup v1 has no unified group".into()),
    })
}

fn bytes(limit: &Limit<Bytes>) -> String {
    match limit {
        Limit::Max => "-1".into(),
        Limit::At(bytes) => bytes.get().to_string(),
    }
}

/// Memory and swap are limited together here: `memory.memsw.limit_in_bytes` is never
/// below `memory.limit_in_bytes`, and is written behind it.
fn memory(limits: &CgroupLimits, running: Option<&Path>) -> Result<Vec<Setting>, String> {
    let memory = &limits.memory;
    if memory.high.is_some() || memory.min.is_some() {
        return Err("memory_high and memory_min: only cgroup v2 has them".into());
    }
    if memory.oom == Some(OomKill::Group) {
        return Err("OomKill::Group: only cgroup v2 has it".into());
    }
    let mut settings = Vec::new();
    settings.extend(memory.low.iter().map(|low| Setting::new("memory.soft_limit_in_bytes", bytes(low))));
    settings.extend(memory.max.iter().map(|max| Setting::new("memory.limit_in_bytes", bytes(max))));
    const BOTH: &str = "memory.memsw.limit_in_bytes";
    match (memory.swap, memory.max) {
        (Some(Limit::At(swap)), Some(Limit::At(max))) => {
            settings.push(Setting::new(BOTH, max.get().saturating_add(swap.get()).min(i64::MAX as u64)));
        }
        (Some(Limit::At(_)), _) => {
            return Err("swap_max without memory_max: cgroup v1 limits only the sum of both".into());
        }
        (Some(Limit::Max), _) => settings.push(Setting::new(BOTH, "-1")),
        // the swap that it has stays what it is
        (None, Some(Limit::At(max))) if running.is_some() => {
            let read = |file| fs::read_to_string(running?.join(file)).ok()?.trim().parse::<u64>().ok();
            if let (Some(both), Some(memory)) = (read(BOTH), read("memory.limit_in_bytes")) {
                let swap = both.saturating_sub(memory);
                // without a bound, it reads as the largest number of pages
                let unbounded = both > i64::MAX as u64 / 2;
                let sum = if unbounded { "-1".to_owned() } else { max.get().saturating_add(swap).to_string() };
                settings.push(Setting::new(BOTH, sum));
            }
        }
        // a kernel without accounting of swap has no such file
        (None, Some(max)) => settings.push(Setting::new(BOTH, bytes(&max)).presence(Presence::IfPresent)),
        (None, None) => {}
    }
    Ok(settings)
}

fn cpu(limits: &CgroupLimits) -> Vec<Setting> {
    let cpu = &limits.cpu;
    let mut settings = Vec::new();
    match cpu.max.map(|max| if let Limit::At(cpus) = max { Some(cpus.micros()) } else { None }) {
        Some(Some((quota, period))) => {
            settings.push(Setting::new("cpu.cfs_period_us", period));
            settings.push(Setting::new("cpu.cfs_quota_us", quota.unwrap_or_default()));
        }
        Some(None) => settings.push(Setting::new("cpu.cfs_quota_us", -1)),
        None => {}
    }
    settings.extend(cpu.burst.iter().map(|burst| Setting::new("cpu.cfs_burst_us", burst.as_micros())));
    let idle = |wanted| cpu.idle.filter(move |idle| *idle == wanted);
    settings.extend(idle(CpuIdle::Normal).map(|_| Setting::new("cpu.idle", 0)));
    settings.extend(cpu.weight.iter().map(|weight| Setting::new("cpu.shares", shares(weight.get()))));
    settings.extend(idle(CpuIdle::Idle).map(|_| Setting::new("cpu.idle", 1)));
    settings
}

/// A weight as shares. The scheduler itself knows only shares: `cpu.weight` sets
/// `DIV_ROUND_CLOSEST(weight * 1024, 100)` of them (kernel/sched/core.c).
pub(super) fn shares(weight: u32) -> u32 {
    (weight * 1024 + 50) / 100
}

/// A new v1 cpuset is empty, and takes no process before both lists are set: what is not
/// limited is the parent's.
fn cpuset(limits: &CgroupLimits, parent: &Path, new: bool) -> Result<Vec<Setting>, String> {
    if !new {
        let sets = [("cpuset.cpus", &limits.cpuset_cpus), ("cpuset.mems", &limits.cpuset_mems)];
        return Ok(sets.iter().filter_map(|(file, set)| Some(Setting::new(*file, list(set.as_ref()?)))).collect());
    }
    let inherited = |file: &str| {
        let read = |file: String| fs::read_to_string(parent.join(file)).ok().map(|text| text.trim().to_owned());
        let text = read(format!("cpuset.effective_{file}")).or_else(|| read(format!("cpuset.{file}")));
        text.filter(|text| !text.is_empty()).ok_or(format!("cpuset: {} has no {file} to inherit", parent.display()))
    };
    let value = |set: &Option<Vec<u32>>, file| match set {
        Some(set) => Ok(list(set)),
        None => inherited(file),
    };
    Ok(vec![
        Setting::new("cpuset.cpus", value(&limits.cpuset_cpus, "cpus")?),
        Setting::new("cpuset.mems", value(&limits.cpuset_mems, "mems")?),
    ])
}

fn io(limits: &CgroupLimits, around: &Surroundings<'_>) -> Result<Vec<Setting>, String> {
    let mut settings = Vec::new();
    if let Some(weight) = limits.io_weight {
        settings.push(Setting::new("blkio.bfq.weight", v2::bfq_weight(weight.get())).presence(Presence::IfPresent));
        // the name before Linux 5.1, and of CFQ
        settings.push(Setting::new("blkio.weight", v2::bfq_weight(weight.get()).max(10)).presence(Presence::Instead));
    }
    for max in &limits.io_max {
        let device = (around.device)(&max.path).ok_or_else(|| v2::no_device(&max.path))?;
        // 0 takes the bound away
        let amount = |limit: &Limit<u64>| if let Limit::At(n) = limit { *n } else { 0 };
        let bytes = |limit: &Limit<Bytes>| if let Limit::At(n) = limit { n.get() } else { 0 };
        let files = [
            ("read_bps", max.read.as_ref().map(bytes)),
            ("write_bps", max.write.as_ref().map(bytes)),
            ("read_iops", max.read_operations.as_ref().map(amount)),
            ("write_iops", max.write_operations.as_ref().map(amount)),
        ];
        for (file, value) in files {
            let line = |value| format!("{}:{} {value}", device.major, device.minor);
            settings.extend(value.map(|value| Setting::new(format!("blkio.throttle.{file}_device"), line(value))));
        }
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::super::{ClassId, IoMax};
    use super::*;
    use crate::sys::path::Device;
    use crate::units::Weight;
    use std::time::Duration;

    fn lines(limits: CgroupLimits) -> Result<Vec<String>, String> {
        let device = |path: &std::path::PathBuf| (path != Path::new("/none")).then_some(Device { major: 8, minor: 16 });
        let around = Surroundings { parent: Path::new("/none"), device: &device, running: None };
        let mut lines = Vec::new();
        for controller in limits.controllers() {
            for setting in limits.settings(controller, false, &around)? {
                lines.push(format!("{} = {}", setting.file, setting.value));
            }
        }
        Ok(lines)
    }

    #[test]
    fn the_files_of_limits() {
        let limits = CgroupLimits::new()
            .memory_max(Bytes::mib(1))
            .memory_low(Bytes::kib(4))
            .cpus(0.2)
            .cpu_burst(Duration::from_millis(5))
            .cpu_weight(Weight::new(50))
            .cpuset_cpus([3, 0, 1])
            .cpuset_mems([0])
            .pids_max(Limit::Max)
            .io_max(IoMax::device("/dev/sdb").read(Bytes::kib(1)).write_operations(Limit::Max))
            .hugetlb_max(Bytes::mib(2), Limit::Max)
            .net_cls(ClassId { major: 0x10, minor: 1 })
            .net_prio("eth0", 5);
        let expected = [
            "cpu.cfs_period_us = 100000",
            "cpu.cfs_quota_us = 20000",
            "cpu.cfs_burst_us = 5000",
            "cpu.shares = 512",
            "cpuset.cpus = 0-1,3",
            "cpuset.mems = 0",
            "blkio.throttle.read_bps_device = 8:16 1024",
            "blkio.throttle.write_iops_device = 8:16 0",
            "memory.soft_limit_in_bytes = 4096",
            "memory.limit_in_bytes = 1048576",
            "memory.memsw.limit_in_bytes = 1048576",
            "pids.max = max",
            "hugetlb.2MB.limit_in_bytes = -1",
            "net_cls.classid = 1048577",
            "net_prio.ifpriomap = eth0 5",
        ];
        assert_eq!(lines(limits).expect("v1 has it"), expected);
    }

    #[test]
    fn swap_is_the_sum_of_both() {
        let swap = |limits: CgroupLimits| lines(limits).map(|lines| lines.last().cloned().unwrap_or_default());
        let new = CgroupLimits::new;
        let both = |sum: &str| Ok(format!("memory.memsw.limit_in_bytes = {sum}"));
        assert_eq!(swap(new().memory_max(Bytes::mib(2)).swap_max(Bytes::mib(1))), both("3145728"));
        assert_eq!(swap(new().memory_max(Bytes::mib(2)).swap_max(Limit::Max)), both("-1"));
        assert_eq!(swap(new().memory_max(Limit::Max)), both("-1"));
        assert!(swap(new().swap_max(Bytes::mib(1))).is_err());
        assert!(swap(new().memory_max(Limit::Max).swap_max(Bytes::mib(1))).is_err());
    }

    #[test]
    fn what_v1_lacks_is_said() {
        let new = CgroupLimits::new;
        for limits in [
            new().memory_high(Bytes::mib(1)),
            new().memory_min(Bytes::mib(1)),
            new().oom(OomKill::Group),
            new().unified("memory.zswap.max", "0"),
            new().io_max(IoMax::device("/none").read(Bytes::mib(1))),
            new().cpuset_cpus([0]), // and a parent without nodes
        ] {
            assert!(lines(limits).is_err());
        }
    }

    #[test]
    fn shares_are_the_schedulers_own() {
        // the weights of sched_prio_to_weight for nice 0, and both ends
        assert_eq!([1, 100, 10_000].map(shares), [10, 1024, 102_400]);
        // and back, as cpu.weight reads
        assert!((1..=10_000).all(|weight| (shares(weight) * 100 + 512) / 1024 == weight));
    }
}
