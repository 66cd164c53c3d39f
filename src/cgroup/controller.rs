//! The controllers, and what a host's files of them are given: one [`Setting`] a file.

use super::limits::CgroupLimits;
use super::{v1, v2};
use crate::sys::path::Device;
use std::path::{Path, PathBuf};

/// The controllers (v1 calls them subsystems).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Controller {
    Cpu,
    Cpuacct,
    Cpuset,
    Io,
    Memory,
    Pids,
    Devices,
    Freezer,
    Hugetlb,
    Rdma,
    NetCls,
    NetPrio,
    PerfEvent,
    /// Of the v2 group itself.
    Unified,
}

impl Controller {
    pub const ALL: [Controller; 14] = [
        Controller::Cpu,
        Controller::Cpuacct,
        Controller::Cpuset,
        Controller::Io,
        Controller::Memory,
        Controller::Pids,
        Controller::Devices,
        Controller::Freezer,
        Controller::Hugetlb,
        Controller::Rdma,
        Controller::NetCls,
        Controller::NetPrio,
        Controller::PerfEvent,
        Controller::Unified,
    ];

    /// Its name as `/proc/cgroups` has it.
    pub fn v1(self) -> Option<&'static str> {
        Some(match self {
            Controller::Cpu => "cpu",
            Controller::Cpuacct => "cpuacct",
            Controller::Cpuset => "cpuset",
            Controller::Io => "blkio",
            Controller::Memory => "memory",
            Controller::Pids => "pids",
            Controller::Devices => "devices",
            Controller::Freezer => "freezer",
            Controller::Hugetlb => "hugetlb",
            Controller::Rdma => "rdma",
            Controller::NetCls => "net_cls",
            Controller::NetPrio => "net_prio",
            Controller::PerfEvent => "perf_event",
            Controller::Unified => return None,
        })
    }

    /// Its name in `cgroup.controllers`, or why it has none there.
    pub fn v2(self) -> V2 {
        match self {
            Controller::Cpu => V2::Named("cpu"),
            Controller::Cpuset => V2::Named("cpuset"),
            Controller::Io => V2::Named("io"),
            Controller::Memory => V2::Named("memory"),
            Controller::Pids => V2::Named("pids"),
            Controller::Hugetlb => V2::Named("hugetlb"),
            Controller::Rdma => V2::Named("rdma"),
            Controller::Cpuacct
            | Controller::Devices
            | Controller::Freezer
            | Controller::PerfEvent
            | Controller::Unified => V2::InEveryGroup,
            Controller::NetCls | Controller::NetPrio => V2::None,
        }
    }

    /// How messages call it.
    pub fn name(self) -> &'static str {
        self.v1().unwrap_or("cgroup v2")
    }
}

/// How v2 has a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum V2 {
    /// By this name, where the group above hands it down.
    Named(&'static str),
    InEveryGroup,
    None,
}

/// What to do where a file is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Required,
    /// The default's: nothing is lost without it.
    IfPresent,
    /// Required where the setting before was not present; otherwise not written.
    Instead,
}

/// One file of a group, and what is written to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub file: String,
    pub value: String,
    pub presence: Presence,
}

impl Setting {
    pub fn new(file: impl Into<String>, value: impl ToString) -> Setting {
        Setting { file: file.into(), value: value.to_string(), presence: Presence::Required }
    }

    pub fn presence(mut self, presence: Presence) -> Setting {
        self.presence = presence;
        self
    }
}

/// Where a limit's numbers come from, beside the limits: the host.
pub(crate) struct Surroundings<'a> {
    /// The group around, in this hierarchy.
    pub parent: &'a Path,
    /// The device of a path of `io_max`.
    pub device: &'a dyn Fn(&PathBuf) -> Option<Device>,
    /// The group itself, when it exists: then nothing is written but what is said.
    pub running: Option<&'a Path>,
}

impl CgroupLimits {
    /// The controllers that the limits are set by.
    pub(crate) fn controllers(&self) -> Vec<Controller> {
        let memory = &self.memory;
        let memory = [memory.max, memory.high, memory.low, memory.min, memory.swap];
        let cpu = &self.cpu;
        let wanted = |controller| match controller {
            Controller::Cpu => cpu.max.is_some() || cpu.weight.is_some() || cpu.burst.is_some() || cpu.idle.is_some(),
            Controller::Cpuset => self.cpuset_cpus.is_some() || self.cpuset_mems.is_some(),
            Controller::Io => self.io_weight.is_some() || !self.io_max.is_empty(),
            Controller::Memory => memory.iter().any(Option::is_some) || self.memory.oom.is_some(),
            Controller::Pids => self.pids_max.is_some(),
            Controller::Devices => self.devices.is_some(),
            Controller::Hugetlb => !self.hugetlb.is_empty(),
            Controller::Rdma => !self.rdma.is_empty(),
            Controller::NetCls => self.net_cls.is_some(),
            Controller::NetPrio => !self.net_prio.is_empty(),
            Controller::PerfEvent => self.perf_event,
            Controller::Unified => !self.unified.is_empty(),
            Controller::Cpuacct | Controller::Freezer => false,
        };
        Controller::ALL.into_iter().filter(|controller| wanted(*controller)).collect()
    }

    /// The files of one controller in the order in which they are written; an error says
    /// what this layout does not have.
    pub(crate) fn settings(
        &self,
        controller: Controller,
        on_v2: bool,
        around: &Surroundings<'_>,
    ) -> Result<Vec<Setting>, String> {
        if on_v2 { v2::settings(self, controller, around) } else { v1::settings(self, controller, around) }
    }
}

/// Numbers as the kernel lists them: `0-2,5` (cpuset(7), "List format").
pub(crate) fn list(numbers: &[u32]) -> String {
    let mut text = String::new();
    let mut rest = numbers;
    while let Some(&first) = rest.first() {
        let run = rest.iter().zip(first..).take_while(|(a, b)| **a == *b).count();
        let last = rest[run - 1];
        let comma = if text.is_empty() { "" } else { "," };
        text += &if run == 1 { format!("{comma}{first}") } else { format!("{comma}{first}-{last}") };
        rest = &rest[run..];
    }
    text
}

/// A size as hugetlb files are named: `2MB`, `1GB`, `64KB`.
pub(crate) fn page_size(bytes: u64) -> String {
    match bytes {
        1.. if bytes >= 1 << 30 => format!("{}GB", bytes >> 30),
        _ if bytes >= 1 << 20 => format!("{}MB", bytes >> 20),
        _ => format!("{}KB", bytes >> 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_sizes() {
        assert_eq!(list(&[0]), "0");
        assert_eq!(list(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(list(&[]), "");
        assert_eq!([64 << 10, 2 << 20, 1 << 30].map(page_size), ["64KB", "2MB", "1GB"]);
    }
}
