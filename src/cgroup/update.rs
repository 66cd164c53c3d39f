//! Changing the limits of a running sandbox: all of them, or none.
//!
//! What a file takes may depend on another: v1 wants memory below memory and swap, a burst is
//! not above its quota. So what is refused with `EINVAL` is tried again when the others
//! have been written, until nothing moves any more.

use super::controller::{Controller, Presence, Setting, Surroundings, V2};
use super::directory::write;
use super::group::Group;
use super::limits::CgroupLimits;
use super::place::device_of;
use crate::sys::Errno;
use std::fs;
use std::path::PathBuf;

/// Why limits could not be changed.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// This layout, or this sandbox's groups, cannot do these things.
    Lacks(Vec<String>),
    /// The kernel did not take this file's value; the earlier values are back.
    Write(PathBuf, String, Errno),
}

/// A file that has been written, and what it held.
struct Written {
    file: PathBuf,
    before: String,
}

impl Group {
    /// Writes what is set in `limits`; the rest stays as it is.
    pub fn update(&self, limits: &CgroupLimits) -> Result<(), Refusal> {
        let settings = self.settings_of(limits)?;
        let mut written = Vec::new();
        self.write_all(&settings, &mut written).inspect_err(|_| {
            // the newest first; a value that was taken once is taken again
            let mut back: Vec<_> = written.drain(..).rev().map(|w: Written| (w.file, w.before)).collect();
            while !back.is_empty() {
                let left = back.len();
                back.retain(|(file, before)| write(file, before.as_bytes()).is_err());
                if back.len() == left {
                    return; // the kernel does not want it back: a limit below what is used meanwhile
                }
            }
        })
    }

    /// The files, as paths.
    fn settings_of(&self, limits: &CgroupLimits) -> Result<Vec<(PathBuf, Setting)>, Refusal> {
        let mut lacks = Vec::new();
        let mut settings = Vec::new();
        if limits.devices.is_some() || limits.perf_event || limits.without_group {
            lacks.push("devices, perf_event and none(): only a new sandbox can be given these".to_owned());
        }
        for controller in limits.controllers() {
            let Some(member) = self
                .of(controller)
                .filter(|_| controller.v2() != V2::InEveryGroup || controller == Controller::Unified)
            else {
                if controller != Controller::Devices && controller != Controller::PerfEvent {
                    lacks.push(format!("{}: the sandbox was not given a group of it", controller.name()));
                }
                continue;
            };
            let group = member.directory.path();
            let parent = group.parent().unwrap_or(group);
            let around = Surroundings { parent, device: &|path| device_of(path), running: Some(group) };
            match limits.settings(controller, member.v2, &around) {
                Ok(found) => settings.extend(found.into_iter().map(|s| (group.join(&s.file), s))),
                Err(lack) => lacks.push(lack),
            }
        }
        if lacks.is_empty() { Ok(settings) } else { Err(Refusal::Lacks(lacks)) }
    }

    fn write_all(&self, settings: &[(PathBuf, Setting)], written: &mut Vec<Written>) -> Result<(), Refusal> {
        let mut present = true;
        let mut pending = Vec::new();
        for (file, setting) in settings {
            if setting.presence == Presence::Instead && present {
                continue;
            }
            present = file.exists();
            if present || setting.presence != Presence::IfPresent {
                pending.push((file, setting));
            }
        }
        while !pending.is_empty() {
            let before = pending.len();
            let mut later = Vec::new();
            let mut refused = None;
            for (file, setting) in pending {
                let refuse = |errno| Refusal::Write(file.clone(), setting.value.clone(), errno);
                let text = fs::read_to_string(file).map_err(|error| refuse(Errno::of(error)))?;
                match write(file, setting.value.as_bytes()) {
                    Ok(()) => {
                        written.push(Written {
                            file: file.clone(),
                            before: earlier(&setting.file, &setting.value, &text),
                        });
                    }
                    Err(Errno::EINVAL) => {
                        refused.get_or_insert(refuse(Errno::EINVAL));
                        later.push((file, setting));
                    }
                    Err(errno) => return Err(refuse(errno)),
                }
            }
            match refused {
                Some(refusal) if later.len() == before => return Err(refusal),
                _ => pending = later,
            }
        }
        Ok(())
    }
}

/// What to write to a file that read as `text`, to undo the writing of `value`. A file with
/// a line for each device is told of the one device alone.
fn earlier(file: &str, value: &str, text: &str) -> String {
    const BY_DEVICE: [&str; 4] = ["io.max", "rdma.max", "blkio.throttle.", "net_prio.ifpriomap"];
    if !BY_DEVICE.iter().any(|name| file.starts_with(name)) {
        // an empty list is written as an empty line: a write of no bytes is none
        return if text.trim().is_empty() { "\n".into() } else { text.trim_end().to_owned() };
    }
    let device = value.split(' ').next().unwrap_or_default();
    let line = text.lines().find(|line| line.split(' ').next() == Some(device));
    match (line, file) {
        (Some(line), _) => line.to_owned(),
        (None, "io.max") => format!("{device} rbps=max wbps=max riops=max wiops=max"),
        (None, "rdma.max") => format!("{device} hca_handle=max hca_object=max"),
        (None, _) => format!("{device} 0"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_back() {
        assert_eq!(earlier("memory.max", "5", "max\n"), "max");
        assert_eq!(earlier("cpuset.cpus", "0", "\n"), "\n");
        let two = "8:0 rbps=5 wbps=max riops=max wiops=max\n8:16 rbps=7 wbps=max riops=max wiops=max\n";
        assert_eq!(earlier("io.max", "8:16 wbps=3", two), "8:16 rbps=7 wbps=max riops=max wiops=max");
        assert_eq!(earlier("io.max", "7:0 wbps=3", two), "7:0 rbps=max wbps=max riops=max wiops=max");
        assert_eq!(earlier("blkio.throttle.read_bps_device", "8:1 3", "8:16 9\n"), "8:1 0");
    }
}
