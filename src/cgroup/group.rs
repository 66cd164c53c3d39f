//! The groups of a running sandbox.

use super::controller::{Controller, V2};
use super::directory::Directory;
use super::files::Files;
use super::parse;
use super::place::Places;
use crate::sys::Errno;
use crate::units::Bytes;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The sandbox's group in each hierarchy that it is in; removed when dropped.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(super) members: Vec<Member>,
    /// The sizes that are limited.
    pub(super) huge_pages: Vec<Bytes>,
    oom: Option<OomCounter>,
    files: Files,
}

/// Counts the processes that the kernel has ended for want of memory. Open from the start: at the end the host may have no descriptor
/// left, and a verdict would lack its evidence.
#[derive(Clone, Debug)]
struct OomCounter {
    file: Arc<File>,
    /// What does not count.
    before: u64,
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
        let mut group = Group {
            members: made.into_iter().filter_map(member).collect(),
            huge_pages: places.huge_pages.clone(),
            oom: None,
            files: Files::default(),
        };
        group.oom = group.oom_counter();
        group
    }

    /// For a process that has entered the sandbox: the evidence of its end from now on, and nothing of the groups.
    pub fn of_one_that_entered(&self) -> Group {
        let before = self.oom_kills().unwrap_or_default();
        Group { oom: self.oom.clone().map(|oom| OomCounter { before, ..oom }), ..Group::default() }
    }

    fn oom_counter(&self) -> Option<OomCounter> {
        let member = self.of(Controller::Memory)?;
        // v2: of this group alone, Linux 5.2; v1 counts since 4.13
        let files: &[_] = if member.v2 { &["memory.events.local", "memory.events"] } else { &["memory.oom_control"] };
        let file = files.iter().find_map(|name| File::open(member.file(name)).ok())?;
        Some(OomCounter { file: file.into(), before: 0 })
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
        let OomCounter { file, before } = self.oom.as_ref()?;
        let mut text = [0; 1024];
        let len = file.read_at(&mut text, 0).ok()?; // ENODEV: the group is gone
        Some(parse::value(&String::from_utf8_lossy(&text[..len]), "oom_kill")?.saturating_sub(*before))
    }
}

/// The number behind a key in a file of `key value` lines.
pub(super) fn keyed(file: &Path, key: &str) -> Option<u64> {
    parse::value(&fs::read_to_string(file).ok()?, key)
}
