//! The groups of a running sandbox.

use super::controller::{Controller, V2};
use super::directory::Directory;
use super::files::Files;
use super::parse;
use super::place::Places;
use crate::sys::Errno;
use crate::units::Bytes;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The sandbox's group in each hierarchy that it is in; removed when dropped.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(super) members: Vec<Member>,
    /// The sizes that are limited.
    pub(super) huge_pages: Vec<Bytes>,
    files: Files,
}

/// The group in one hierarchy.
#[derive(Debug)]
pub(super) struct Member {
    pub directory: Directory,
    pub v2: bool,
    controllers: Vec<Controller>,
}

impl Member {
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Group {
    /// From what was planned and what was made of it.
    pub fn new(places: &Places, made: Vec<Directory>) -> Group {
        let member = |directory: Directory| {
            let place = places.places.iter().find(|place| directory.path().parent() == Some(&place.parent))?;
            Some(Member { v2: place.v2, controllers: place.controllers.clone(), directory })
        };
        Group {
            members: made.into_iter().filter_map(member).collect(),
            huge_pages: places.huge_pages.clone(),
            files: Files::default(),
        }
    }

    /// The group that a controller is in.
    pub(super) fn of(&self, controller: Controller) -> Option<&Member> {
        let everywhere = controller.v2() == V2::InEveryGroup;
        self.members.iter().find(|m| m.controllers.contains(&controller) || everywhere && m.v2)
    }

    /// The group of the v2 tree.
    pub(super) fn v2(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.v2)
    }

    /// Removes the groups, if nothing is in any of them.
    pub fn try_remove(&mut self) -> bool {
        self.members.iter_mut().all(|member| member.directory.try_remove())
    }

    /// Leaves the groups where they are.
    pub fn keep(&mut self) {
        self.members.iter_mut().for_each(|member| member.directory.keep());
    }

    /// Whether there is any.
    pub fn is_none(&self) -> bool {
        self.members.is_empty()
    }

    /// The text of a file of a group, from a descriptor that stays open.
    pub(super) fn read(&self, member: &Member, file: &str) -> Result<Option<String>, Errno> {
        self.files.read(&member.file(file))
    }

    /// The number in a file.
    pub(super) fn number(&self, member: &Member, file: &str) -> Result<Option<u64>, Errno> {
        Ok(self.read(member, file)?.and_then(|text| text.trim().parse().ok()))
    }

    /// The most memory and the most processes that there were at once.
    pub fn peaks(&self) -> (Option<Bytes>, Option<u64>) {
        let number = |controller, v1: &str, v2: &str| -> Option<u64> {
            let member = self.of(controller)?;
            fs::read_to_string(member.file(if member.v2 { v2 } else { v1 })).ok()?.trim().parse().ok()
        };
        let memory = number(Controller::Memory, "memory.max_usage_in_bytes", "memory.peak");
        (memory.map(Bytes::new), number(Controller::Pids, "pids.peak", "pids.peak"))
    }

    /// CPU time in user mode and in the kernel.
    pub fn cpu_times(&self) -> (Option<Duration>, Option<Duration>) {
        self.cpu_stats().map_or((None, None), |stats| (stats.user, stats.system))
    }

    /// How many of its processes the kernel has ended for want of memory.
    pub fn oom_kills(&self) -> Option<u64> {
        let member = self.of(Controller::Memory)?;
        if !member.v2 {
            return keyed(&member.file("memory.oom_control"), "oom_kill"); // Linux 4.13
        }
        // of this group alone, Linux 5.2
        keyed(&member.file("memory.events.local"), "oom_kill")
            .or_else(|| keyed(&member.file("memory.events"), "oom_kill"))
    }
}

/// The number behind a key in a file of `key value` lines.
pub(super) fn keyed(file: &Path, key: &str) -> Option<u64> {
    parse::value(&fs::read_to_string(file).ok()?, key)
}
