//! Limits as files of a v2 group.
//!
//! Contract: `Documentation/admin-guide/cgroup-v2.rst`.

use super::controller::{Controller, Presence, Setting, Surroundings, list, page_size};
use super::limits::{CgroupLimits, CpuIdle, OomKill};
use crate::units::{Cpus, Limit};

/// See [`CgroupLimits::settings`].
pub(super) fn settings(
    limits: &CgroupLimits,
    controller: Controller,
    around: &Surroundings<'_>,
) -> Result<Vec<Setting>, String> {
    Ok(match controller {
        Controller::Memory => memory(limits, around.running.is_none()),
        Controller::Cpu => cpu(limits),
        Controller::Cpuset => {
            let sets = [("cpuset.cpus", &limits.cpuset_cpus), ("cpuset.mems", &limits.cpuset_mems)];
            sets.iter().filter_map(|(file, set)| Some(Setting::new(*file, list(set.as_ref()?)))).collect()
        }
        Controller::Pids => limits.pids_max.iter().map(|max| Setting::new("pids.max", max)).collect(),
        Controller::Io => return io(limits, around),
        Controller::Hugetlb => {
            let file = |page: u64| format!("hugetlb.{}.max", page_size(page));
            limits.hugetlb.iter().map(|(page, max)| Setting::new(file(page.get()), bytes(max))).collect()
        }
        Controller::Rdma => rdma(limits),
        Controller::Unified => limits.unified.iter().map(|(file, value)| Setting::new(file, value)).collect(),
        // an eBPF program, not a file; and what is in every group
        Controller::Devices | Controller::Cpuacct | Controller::Freezer | Controller::PerfEvent => Vec::new(),
        Controller::NetCls | Controller::NetPrio => {
            return Err(format!("{}: cgroup v2 has none; nftables matches `socket cgroupv2`", controller.name()));
        }
    })
}

fn bytes(limit: &Limit<crate::units::Bytes>) -> String {
    match limit {
        Limit::Max => "max".into(),
        Limit::At(bytes) => bytes.get().to_string(),
    }
}

/// `new`: with what follows of a limit where nothing is said.
fn memory(limits: &CgroupLimits, new: bool) -> Vec<Setting> {
    let memory = &limits.memory;
    let limited = new && matches!(memory.max, Some(Limit::At(_)));
    let mut settings = Vec::new();
    // protections and the soft limit first, lest the hard one bite before they hold
    let files = [
        ("memory.min", &memory.min),
        ("memory.low", &memory.low),
        ("memory.high", &memory.high),
        ("memory.max", &memory.max),
        ("memory.swap.max", &memory.swap),
    ];
    for (file, limit) in files {
        settings.extend(limit.iter().map(|limit| Setting::new(file, bytes(limit))));
    }
    // a kernel without swap has no file of it
    if limited && memory.swap.is_none() {
        settings.push(Setting::new("memory.swap.max", 0).presence(Presence::IfPresent));
    }
    match memory.oom {
        Some(whom) => settings.push(Setting::new("memory.oom.group", u8::from(whom == OomKill::Group))),
        None if limited => settings.push(Setting::new("memory.oom.group", 1).presence(Presence::IfPresent)),
        None => {}
    }
    settings
}

fn cpu(limits: &CgroupLimits) -> Vec<Setting> {
    let cpu = &limits.cpu;
    let max = |max: &Limit<Cpus>| match max {
        Limit::Max => "max".into(),
        Limit::At(cpus) => {
            let (quota, period) = cpus.micros();
            format!("{} {period}", quota.unwrap_or_default())
        }
    };
    let mut settings: Vec<_> = cpu.max.iter().map(|limit| Setting::new("cpu.max", max(limit))).collect();
    settings.extend(cpu.burst.iter().map(|burst| Setting::new("cpu.max.burst", burst.as_micros())));
    // a weight cannot be written while the group is idle
    let idle = cpu.idle.map(|idle| Setting::new("cpu.idle", u8::from(idle == CpuIdle::Idle)));
    settings.extend(idle.filter(|_| cpu.idle == Some(CpuIdle::Normal)));
    settings.extend(cpu.weight.iter().map(|weight| Setting::new("cpu.weight", weight.get())));
    settings.extend(cpu.idle.filter(|idle| *idle == CpuIdle::Idle).map(|_| Setting::new("cpu.idle", 1)));
    settings
}

fn io(limits: &CgroupLimits, around: &Surroundings<'_>) -> Result<Vec<Setting>, String> {
    let mut settings = Vec::new();
    if let Some(weight) = limits.io_weight {
        settings.push(Setting::new("io.weight", weight.get()).presence(Presence::IfPresent));
        settings.push(Setting::new("io.bfq.weight", bfq_weight(weight.get())).presence(Presence::Instead));
    }
    for max in &limits.io_max {
        let device = (around.device)(&max.path).ok_or_else(|| no_device(&max.path))?;
        let mut line = format!("{}:{}", device.major, device.minor);
        let keys = [
            ("rbps", max.read.as_ref().map(bytes)),
            ("wbps", max.write.as_ref().map(bytes)),
            ("riops", max.read_operations.map(|n| n.to_string())),
            ("wiops", max.write_operations.map(|n| n.to_string())),
        ];
        for (key, value) in keys {
            line.extend(value.map(|value| format!(" {key}={value}")));
        }
        settings.push(Setting::new("io.max", line));
    }
    Ok(settings)
}

/// Why a path of `io_max` is none.
pub(super) fn no_device(path: &std::path::Path) -> String {
    format!("io_max of {}: that is on no block device of its own (tmpfs, overlay, network, btrfs)", path.display())
}

/// A weight of 1 to 10000 as BFQ has it, 1 to 1000, with the default in its place. The
/// conversion is systemd's.
pub(super) fn bfq_weight(weight: u32) -> u32 {
    if weight <= 100 { weight } else { 100 + (weight - 100) * 900 / 9900 }
}

/// The same file on v1.
pub(super) fn rdma(limits: &CgroupLimits) -> Vec<Setting> {
    let line = |(device, max): &(String, super::RdmaMax)| {
        Setting::new("rdma.max", format!("{device} hca_handle={} hca_object={}", max.handles, max.objects))
    };
    limits.rdma.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{IoMax, RdmaMax};
    use super::*;
    use crate::sys::path::Device;
    use crate::units::{Bytes, Weight};
    use std::path::Path;
    use std::time::Duration;

    fn lines(limits: CgroupLimits) -> Vec<String> {
        let device = |path: &std::path::PathBuf| (path != Path::new("/none")).then_some(Device { major: 8, minor: 16 });
        let around = Surroundings { parent: Path::new("/none"), device: &device, running: None };
        let mut lines = Vec::new();
        for controller in limits.controllers() {
            for setting in limits.settings(controller, true, &around).expect("v2 has it") {
                lines.push(format!("{} = {}", setting.file, setting.value));
            }
        }
        lines
    }

    #[test]
    fn the_files_of_limits() {
        let limits = CgroupLimits::new()
            .memory_max(Bytes::mib(1))
            .memory_low(Limit::Max)
            .cpus(0.2)
            .cpu_burst(Duration::from_millis(5))
            .cpu_weight(Weight::new(50))
            .cpuset_cpus([3, 0, 1])
            .pids_max(7)
            .io_max(IoMax::device("/dev/sdb").read(Bytes::kib(1)).write_operations(5))
            .hugetlb_max(Bytes::mib(2), Bytes::mib(4))
            .rdma_max("mlx4_0", RdmaMax { handles: Limit::At(2), objects: Limit::Max })
            .unified("memory.zswap.max", "0");
        let expected = [
            "cpu.max = 20000 100000",
            "cpu.max.burst = 5000",
            "cpu.weight = 50",
            "cpuset.cpus = 0-1,3",
            "io.max = 8:16 rbps=1024 wiops=5",
            "memory.low = max",
            "memory.max = 1048576",
            "memory.swap.max = 0",
            "memory.oom.group = 1",
            "pids.max = 7",
            "hugetlb.2MB.max = 4194304",
            "rdma.max = mlx4_0 hca_handle=2 hca_object=max",
            "memory.zswap.max = 0",
        ];
        assert_eq!(lines(limits), expected);
    }

    #[test]
    fn swap_and_oom_as_they_are_said() {
        let limits = CgroupLimits::new().memory_max(Limit::Max).swap_max(Bytes::mib(3)).oom(OomKill::Process);
        assert_eq!(lines(limits), ["memory.max = max", "memory.swap.max = 3145728", "memory.oom.group = 0"]);
    }

    #[test]
    fn an_idle_group_gets_its_weight_first() {
        let idle = CgroupLimits::new().cpu_weight(Weight::new(1)).cpu_idle(CpuIdle::Idle);
        assert_eq!(lines(idle), ["cpu.weight = 1", "cpu.idle = 1"]);
        let normal = CgroupLimits::new().cpu_weight(Weight::new(1)).cpu_idle(CpuIdle::Normal);
        assert_eq!(lines(normal), ["cpu.idle = 0", "cpu.weight = 1"]);
    }

    #[test]
    fn bfq_weights_keep_the_default() {
        assert_eq!([1, 100, 10_000].map(bfq_weight), [1, 100, 1000]);
    }
}
