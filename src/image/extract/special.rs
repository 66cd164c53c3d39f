//! Entries that are more, or less, than they look: devices, and whiteouts of either form.

use super::super::archive::{Entry, Kind, cstring};
use super::super::limits::{Devices, Stop};
use super::super::marks;
use super::directories::open_directory;
use super::metadata::time;
use super::{Extractor, failed};
use crate::flaw::FlawKind;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknodat, utimensat};
use std::ffi::CString;
use std::os::fd::AsFd;

/// The numbers that Linux has (include/linux/kdev_t.h): with larger ones the device would be another.
const MAX_MAJOR: u32 = (1 << 12) - 1;
const MAX_MINOR: u32 = (1 << 20) - 1;

impl Extractor<'_> {
    /// Whether the device was made.
    pub(super) fn device(&mut self, entry: &Entry, path: &[u8], name: &CString) -> Result<bool, Stop> {
        let (kind, what) = match entry.kind {
            Kind::Character => (SFlag::S_IFCHR, "character"),
            _ => (SFlag::S_IFBLK, "block"),
        };
        let (major, minor) = entry.device;
        if entry.kind == Kind::Character && (major, minor) == (0, 0) {
            return Err(Stop::flaw(FlawKind::Device, "a character device 0:0, which overlayfs takes for a whiteout"));
        }
        if major > MAX_MAJOR || minor > MAX_MINOR {
            return Err(Stop::flaw(FlawKind::Device, format!("a {what} device {major}:{minor}, which does not exist")));
        }
        match self.policy.devices {
            Devices::Refuse => {
                Err(Stop::flaw(FlawKind::Device, format!("a {what} device {major}:{minor}, where devices are refused")))
            }
            Devices::Skip => {
                self.left_out.devices += 1;
                Ok(false)
            }
            Devices::Create => {
                let device = makedev(major.into(), minor.into());
                self.make(path, "make a device of a layer", |parent| {
                    mknodat(parent, name.as_c_str(), kind, Mode::S_IRUSR | Mode::S_IWUSR, device)
                })?;
                Ok(true)
            }
        }
    }

    /// A whiteout of the archive as overlayfs wants it.
    pub(super) fn whiteout(&mut self, entry: &Entry, parent: &[u8], hidden: &[u8]) -> Result<(), Stop> {
        if entry.size != 0 {
            return Err(Stop::flaw(FlawKind::Whiteout, "a whiteout with content"));
        }
        if hidden == marks::OPAQUE_SUFFIX {
            let privileged = self.privileged;
            let parent = self.directories.at(parent)?;
            marks::set_opaque(parent, privileged)?;
            // hidden by the mark already; the kernel would list them where nothing is merged
            return marks::remove_whiteouts(parent).map_err(failed("remove the whiteouts of an opaque directory"));
        }
        if hidden.is_empty() || hidden == b"." || hidden == b".." || hidden.starts_with(marks::PREFIX) {
            return Err(Stop::flaw(FlawKind::Whiteout, "a whiteout that names no entry of its directory"));
        }
        let name = cstring(hidden)?;
        let privileged = self.privileged;
        let parent = self.directories.at(parent)?;
        if marks::is_opaque(parent, privileged) {
            return Ok(());
        }
        match marks::make_whiteout(parent, &name) {
            Ok(()) => {
                // so that the tree depends on its archive only
                utimensat(parent, name.as_c_str(), &time(entry), &time(entry), UtimensatFlags::NoFollowSymlink)
                    .map_err(failed("set the time of a whiteout"))
            }
            // whiteouts are about lower layers only: what this one has stays, unmerged
            Err(nix::Error::EEXIST) => match open_directory(parent, &name) {
                Ok(directory) => {
                    marks::set_opaque(directory.as_fd(), privileged)?;
                    marks::remove_whiteouts(directory.as_fd())
                        .map_err(failed("remove the whiteouts of an opaque directory"))
                }
                Err(_) => Ok(()),
            },
            Err(e) => Err(failed("make a whiteout: in a user namespace it takes Linux 5.8")(e)),
        }
    }
}
