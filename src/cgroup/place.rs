//! Where a sandbox's groups will be: limits and a host's hierarchies brought together.
//!
//! A controller is in one v1 hierarchy, or in v2, or nowhere; never in both. So a group is
//! made in each hierarchy that holds a controller of the limits, or that accounts; and in
//! v2, where there is one, also without controllers: every v2 group can be killed and
//! frozen as a whole, and born into.

use super::affinity;
use super::controller::{Controller, Setting, Surroundings, V2};
use super::directory::words;
use super::limits::CgroupLimits;
use super::name;
use super::parent::CgroupParent;
use crate::error::{Error, ErrorKind, Result};
use crate::host::cgroups::Hierarchy;
use crate::id::c_path;
use crate::program::{Builder, Op, op};
use crate::sys::kernel::call;
use crate::sys::path::Device;
use crate::units::{Bytes, Limit};
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What the default allows.
const PIDS: u32 = 128;

/// A group to be made in one hierarchy.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub v2: bool,
    /// The controllers that are the group's own.
    pub controllers: Vec<Controller>,
    /// The group around.
    pub parent: PathBuf,
    /// Whether the sandbox fails without it.
    required: bool,
    /// v2: what the group around must hand down, and does not yet.
    enable: Vec<&'static str>,
    settings: Vec<Setting>,
    /// v2: the program that decides on devices.
    devices: Option<Vec<u8>>,
}

/// The groups of a specification, on this host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    pub places: Vec<Place>,
    move_caller: bool,
    /// How many CPUs the payload is to see.
    cpus: Option<u32>,
    /// The sizes of huge pages that are limited.
    pub huge_pages: Vec<Bytes>,
    /// What the default could not have.
    pub notes: Vec<String>,
}

/// One hierarchy and the group in it below which groups are made.
struct Site<'a> {
    hierarchy: &'a Hierarchy,
    parent: PathBuf,
    /// v2: what the group around has, and what it hands down.
    available: Vec<String>,
    enabled: Vec<String>,
}

impl<'a> Site<'a> {
    fn new(hierarchy: &'a Hierarchy, parent: &CgroupParent) -> Site<'a> {
        let own = match hierarchy.own.file_name() {
            // the caller was moved there, out of its own group
            Some(file) if name::is_leaf(&file.to_string_lossy()) => hierarchy.own.parent().unwrap_or(&hierarchy.own),
            _ => &hierarchy.own,
        };
        let parent = match &parent.path {
            None => own.to_owned(),
            Some(path) => hierarchy.root.join(path.strip_prefix("/").unwrap_or(path)),
        };
        let list = |file| if hierarchy.v2 { words(&parent.join(file)) } else { Vec::new() };
        Site { hierarchy, available: list("cgroup.controllers"), enabled: list("cgroup.subtree_control"), parent }
    }

    /// Whether it has the controller, by which of its names.
    fn has(&self, controller: Controller) -> bool {
        match (self.hierarchy.v2, controller.v1(), controller.v2()) {
            (false, Some(name), _) => self.hierarchy.controllers.iter().any(|c| c == name),
            (true, _, V2::Named(name)) => self.available.iter().any(|c| c == name),
            (true, _, V2::InEveryGroup) => true,
            _ => false,
        }
    }

    /// The controller's name, where it would have to be handed down first.
    fn missing(&self, controller: Controller) -> Option<&'static str> {
        match controller.v2() {
            V2::Named(name) if self.hierarchy.v2 && !self.enabled.iter().any(|c| c == name) => Some(name),
            _ => None,
        }
    }
}

impl Places {
    /// Decides where. `tree`: a v2 group is wanted for its kill, whatever the limits.
    ///
    /// # Errors
    /// `NotSupported`, with all that this host cannot do.
    pub fn new(limits: &CgroupLimits, hierarchies: &[Hierarchy], tree: bool) -> Result<Places> {
        if limits.without_group {
            return Ok(Places::default());
        }
        let mut sites: Vec<Site<'_>> = hierarchies.iter().map(|h| Site::new(h, &limits.parent)).collect();
        // v1 has what it has; the rest is v2's
        sites.sort_by_key(|site| site.hierarchy.v2);
        let by_default = limits.pids_max.is_none();
        let mut limits = limits.clone();
        limits.pids_max.get_or_insert(Limit::At(PIDS));

        let mut draft = Draft { places: sites.iter().map(|_| None).collect(), sites: &sites };
        let mut notes = Vec::new();
        let mut lacks = Vec::new();
        for controller in limits.controllers() {
            let required = !(by_default && controller == Controller::Pids);
            let outcome = draft.limit(controller, &limits, required);
            match outcome {
                Ok(()) => {}
                Err(lack) if required => lacks.push(lack),
                Err(lack) => notes.push(format!("no limit of {PIDS} processes: {lack}")),
            }
        }
        if !lacks.is_empty() {
            return Err(Error::new(ErrorKind::NotSupported, format!("limit resources: {}", lacks.join("; ")))
                .with_hint("limits that this host has (belljar::doctor() tells its layout), or CgroupLimits::none()"));
        }
        if !limits.implied {
            [Controller::Memory, Controller::Cpuacct].into_iter().for_each(|c| draft.account(c));
            // a v1 group of it would compete with the processes around, and count nothing without a quota
            if sites.iter().any(|site| site.hierarchy.v2 && site.has(Controller::Cpu)) {
                draft.account(Controller::Cpu);
            }
        }
        if !limits.implied || tree {
            // what kills and freezes all at once
            let v2 = sites.iter().any(|site| site.hierarchy.v2);
            draft.account(if v2 { Controller::Unified } else { Controller::Freezer });
        }
        let places = draft.places.into_iter().flatten().collect();
        let huge_pages = limits.hugetlb.iter().map(|(page, _)| *page).collect();
        Ok(Places { places, move_caller: limits.parent.move_caller, cpus: limits.shown_cpus(), huge_pages, notes })
    }

    /// Appends the ops of the parent: makes the groups, and lets the sandbox be born in them.
    /// Gives the file in which one of them will count the CPU time of all processes.
    pub fn lower(&self, builder: &mut Builder) -> Option<PathBuf> {
        if self.places.is_empty() {
            return None;
        }
        let owner = name::Owner::own();
        let name = owner.name();
        for place in &self.places {
            if !place.enable.is_empty() {
                let controllers: Vec<_> = place.enable.iter().map(|name| format!("+{name}")).collect();
                let leaf = if self.move_caller { owner.leaf() } else { String::new() };
                builder.parent_op(Op::GroupEnable {
                    group: &c_path(&place.parent),
                    controllers: controllers.join(" ").as_bytes(),
                    leaf: &c_path(Path::new(&leaf)),
                });
            }
            let group = place.parent.join(&name);
            let path = c_path(&group);
            builder.parent_op(Op::Group { path: &path, required: place.required.into() });
            for setting in &place.settings {
                let file = c_path(&group.join(&setting.file));
                builder.parent_op(Op::GroupSet {
                    file: &file,
                    value: setting.value.as_bytes(),
                    presence: setting.presence.code(),
                });
            }
            if let Some(program) = &place.devices {
                builder.parent_op(Op::GroupDevices { path: &path, program });
            }
            let join: CString = if place.v2 { path } else { c_path(&group.join("tasks")) };
            builder.parent_op(Op::GroupJoin { path: &join, v2: place.v2.into() });
        }
        let counting = |place: &&Place| place.v2 || place.controllers.contains(&Controller::Cpuacct);
        let place = self.places.iter().find(counting)?;
        Some(place.parent.join(&name).join(if place.v2 { "cpu.stat" } else { "cpuacct.usage" }))
    }
}

impl Places {
    /// Appends what the shim does, before it starts anything.
    pub fn lower_inside(&self, builder: &mut Builder) {
        let mask = self.cpus.and_then(|cpus| affinity::mask(&call::sched_getaffinity(), cpus));
        if let Some(mask) = mask {
            builder.op(Op::Affinity { mask: &mask });
        }
    }
}

impl super::controller::Presence {
    fn code(self) -> u32 {
        match self {
            super::controller::Presence::Required => op::presence::REQUIRED,
            super::controller::Presence::IfPresent => op::presence::IF_PRESENT,
            super::controller::Presence::Instead => op::presence::INSTEAD,
        }
    }
}

struct Draft<'a> {
    sites: &'a [Site<'a>],
    places: Vec<Option<Place>>,
}

impl Draft<'_> {
    /// The place in a hierarchy, begun if it is the first controller there.
    fn place(&mut self, index: usize) -> &mut Place {
        let site = &self.sites[index];
        self.places[index].get_or_insert_with(|| Place {
            v2: site.hierarchy.v2,
            controllers: Vec::new(),
            parent: site.parent.clone(),
            required: false,
            enable: Vec::new(),
            settings: Vec::new(),
            devices: None,
        })
    }

    fn limit(
        &mut self,
        controller: Controller,
        limits: &CgroupLimits,
        required: bool,
    ) -> std::result::Result<(), String> {
        let index = self.sites.iter().position(|site| site.has(controller)).ok_or_else(|| self.nowhere(controller))?;
        let site = &self.sites[index];
        let enable = site.missing(controller);
        if let Some(name) = enable.filter(|_| !required) {
            let group = site.parent.display();
            return Err(format!("{group} does not hand down the controller {name} (cgroup.subtree_control)"));
        }
        let v2 = site.hierarchy.v2;
        let around = Surroundings { parent: &site.parent, device: &|path| device_of(path), running: None };
        let settings = limits.settings(controller, v2, &around)?;
        let place = self.place(index);
        place.controllers.push(controller);
        place.required |= required;
        place.enable.extend(enable);
        place.settings.extend(settings);
        if v2 && controller == Controller::Devices {
            place.devices = limits.devices.as_ref().map(|devices| devices.program());
        }
        Ok(())
    }

    /// Joins a controller for its figures, where that changes nothing for others.
    fn account(&mut self, controller: Controller) {
        let Some(index) = self.sites.iter().position(|site| site.has(controller)) else { return };
        if self.sites[index].missing(controller).is_none() {
            let place = self.place(index);
            if !place.controllers.contains(&controller) {
                place.controllers.push(controller);
            }
        }
    }

    fn nowhere(&self, controller: Controller) -> String {
        let name = controller.name();
        let v2 = self.sites.iter().find(|site| site.hierarchy.v2);
        match (controller.v2(), v2) {
            (V2::Named(_), Some(site)) => format!(
                "{name}: no v1 hierarchy has it, nor is it among {}/cgroup.controllers ({})",
                site.parent.display(),
                if site.available.is_empty() { "none".into() } else { site.available.join(" ") }
            ),
            (V2::None, Some(_)) => format!("{name}: only cgroup v1 has it; nftables matches `socket cgroupv2`"),
            _ => format!("{name}: no mounted hierarchy has it"),
        }
    }
}

/// The whole disk that a path is, or is on.
pub(super) fn device_of(path: &Path) -> Option<Device> {
    let meta = fs::metadata(path).ok()?;
    let dev = if meta.file_type().is_block_device() { meta.rdev() } else { meta.dev() };
    let (major, minor) = (libc::major(dev), libc::minor(dev));
    let sys = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    // anonymous devices (tmpfs, overlay, btrfs) have major 0, and no directory there
    if major == 0 {
        return None;
    }
    let disk = if sys.join("partition").exists() {
        fs::canonicalize(&sys).ok()?.parent()?.join("dev")
    } else {
        sys.join("dev")
    };
    let text = fs::read_to_string(disk).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some(Device { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CgroupParent, OomKill};

    fn v1(name: &str) -> Hierarchy {
        let root = PathBuf::from("/v1").join(name);
        let controllers = name.split(',').map(str::to_owned).collect();
        Hierarchy { controllers, v2: false, own: root.join("own"), root }
    }

    /// A v2 hierarchy whose own group has these controllers, and hands these down.
    fn v2(dir: &Path, available: &str, enabled: &str) -> Hierarchy {
        let own = dir.join("own");
        fs::create_dir_all(&own).expect("a directory");
        fs::write(own.join("cgroup.controllers"), available).expect("a file");
        fs::write(own.join("cgroup.subtree_control"), enabled).expect("a file");
        Hierarchy { controllers: Vec::new(), v2: true, root: dir.to_owned(), own }
    }

    struct Temp(PathBuf);
    impl Temp {
        fn new(name: &str) -> Temp {
            let path = std::env::temp_dir().join(format!("belljar-places-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).expect("a directory");
            Temp(path)
        }
    }
    impl Drop for Temp {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Where, whether required, and what must be handed down.
    type Made = (String, bool, Vec<&'static str>);

    fn places(limits: CgroupLimits, hierarchies: &[Hierarchy]) -> (Vec<Made>, Vec<String>) {
        let places = Places::new(&limits, hierarchies, false).expect("places");
        let text = |place: Place| (place.parent.display().to_string(), place.required, place.enable);
        (places.places.into_iter().map(text).collect(), places.notes)
    }

    #[test]
    fn v1_has_a_group_in_each_hierarchy_that_it_takes() {
        let host = [v1("cpu,cpuacct"), v1("pids"), v1("memory"), v1("blkio")];
        let (found, notes) = places(CgroupLimits::new().cpus(1.0), &host);
        let expected = [("/v1/cpu,cpuacct/own", true), ("/v1/pids/own", false), ("/v1/memory/own", false)];
        assert_eq!(found, expected.map(|(path, required)| (path.into(), required, Vec::new())));
        assert_eq!(notes, [""; 0]);
        let (found, _) = places(CgroupLimits::implied(), &host);
        assert_eq!(found, [("/v1/pids/own".into(), false, Vec::new())], "the default: pids alone");
        let parent = CgroupLimits::implied().parent(CgroupParent::at("/x/y"));
        assert_eq!(places(parent, &host).0[0].0, "/v1/pids/x/y");
    }

    #[test]
    fn v2_hands_down_what_is_asked_for() {
        let dir = Temp::new("v2");
        let own = dir.0.join("own").display().to_string();
        let host = [v2(&dir.0, "cpu io memory pids", "pids")];
        let (found, notes) = places(CgroupLimits::new().memory_max(Bytes::mib(1)).cpus(1.0), &host);
        assert_eq!(found, [(own.clone(), true, vec!["cpu", "memory"])]);
        assert_eq!(notes, [""; 0]);
        let (found, notes) = places(CgroupLimits::implied(), &host);
        assert_eq!((found, notes.len()), (vec![(own, false, vec![])], 0));
    }

    #[test]
    fn the_default_changes_nothing_around_and_says_what_it_lacks() {
        let dir = Temp::new("default");
        let (found, notes) = places(CgroupLimits::implied(), &[v2(&dir.0, "pids", "")]);
        assert!(found.is_empty() && notes[0].contains("subtree_control"), "{notes:?}");
        let (found, notes) = places(CgroupLimits::implied(), &[]);
        assert!(found.is_empty() && notes[0].contains("no mounted hierarchy"), "{notes:?}");
        assert!(places(CgroupLimits::none(), &[v1("pids")]).0.is_empty());
    }

    #[test]
    fn a_hybrid_splits_the_controllers_and_has_a_group_to_kill() {
        let dir = Temp::new("hybrid");
        let own = dir.0.join("own").display().to_string();
        let host = [v2(&dir.0, "cpu", "cpu"), v1("memory"), v1("pids")];
        let limits = CgroupLimits::new().cpus(1.0).memory_max(Bytes::mib(1));
        let (found, _) = places(limits, &host);
        let names: Vec<_> = found.iter().map(|(path, required, _)| (path.as_str(), *required)).collect();
        assert_eq!(names, [("/v1/memory/own", true), ("/v1/pids/own", false), (own.as_str(), true)]);
        let tree = Places::new(&CgroupLimits::implied(), &host, true).expect("places");
        assert_eq!(tree.places.len(), 2);
    }

    #[test]
    fn all_that_a_host_lacks_is_told_at_once() {
        let limits = CgroupLimits::new().memory_max(Bytes::mib(1)).oom(OomKill::Group).perf_event().cpus(1.0);
        let error = Places::new(&limits, &[v1("memory"), v1("pids")], false).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::NotSupported);
        for part in ["OomKill::Group", "perf_event", "cpu:"] {
            assert!(error.what().contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn a_caller_in_its_leaf_makes_groups_beside_it() {
        let mut host = v1("pids");
        host.own = host.own.join(name::Owner::own().leaf());
        assert_eq!(places(CgroupLimits::implied(), &[host]).0[0].0, "/v1/pids/own");
    }

    #[test]
    fn paths_on_no_disk_have_none() {
        assert_eq!(device_of(Path::new("/proc/self")), None);
        assert_eq!(device_of(Path::new("/dev/null")).filter(|d| d.major == 1), None);
        assert_eq!(device_of(Path::new("/no/such/path")), None);
    }
}
