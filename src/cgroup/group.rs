//! The groups of a running sandbox.

use super::controller::{Controller, V2};
use super::directory::Directory;
use super::place::Places;
use std::fs;
use std::path::{Path, PathBuf};

/// The sandbox's group in each hierarchy that it is in; removed when dropped.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(super) members: Vec<Member>,
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
        Group { members: made.into_iter().filter_map(member).collect() }
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

    /// Leaves the groups where they are.
    pub fn keep(&mut self) {
        self.members.iter_mut().for_each(|member| member.directory.keep());
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
    value(&fs::read_to_string(file).ok()?, key)
}

/// The same of text.
pub(super) fn value(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}
