//! The control groups of a launch: made, limited, and ready to be born into.

use super::Failure;
use crate::cgroup::{Directory, words, write};
use crate::program::op::presence;
use crate::sys::{Errno, bpf};
use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What has been made so far; what is not taken is removed with it.
#[derive(Default)]
pub(super) struct Groups {
    pub made: Vec<Directory>,
    /// Groups that the default would have liked to have.
    absent: Vec<PathBuf>,
    /// Whether the file of the setting before was there.
    present: bool,
    /// The v2 group to be born in.
    v2: Option<OwnedFd>,
    /// The `tasks` files of v1 groups to be born in.
    tasks: Vec<OwnedFd>,
    pub notes: Vec<String>,
}

fn path(path: &CStr) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()))
}

impl Groups {
    /// Lets a v2 group hand down controllers that it does not yet.
    pub fn enable(&mut self, group: &CStr, controllers: &[u8], leaf: &CStr) -> Result<(), Failure> {
        let file = path(group).join("cgroup.subtree_control");
        let enabled = words(&file);
        let wanted = String::from_utf8_lossy(controllers);
        if wanted.split(' ').all(|word| enabled.iter().any(|name| Some(name.as_str()) == word.strip_prefix('+'))) {
            return Ok(());
        }
        match write(&file, controllers) {
            Err(Errno::EBUSY) if !leaf.is_empty() => {
                let leaf = path(group).join(path(leaf));
                match fs::create_dir(&leaf).map_err(Errno::of) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(Failure(errno, format!("mkdir {}", leaf.display()))),
                }
                // 0: the writing process, with all its threads
                write(&leaf.join("cgroup.procs"), b"0")
                    .map_err(|errno| Failure(errno, "the caller cannot be moved into its leaf".into()))?;
                Ok(write(&file, controllers)?)
            }
            answer => Ok(answer?),
        }
    }

    pub fn make(&mut self, group: &CStr, required: bool) -> Result<(), Failure> {
        match Directory::make(path(group)) {
            Ok(directory) => self.made.push(directory),
            Err(errno) if required => return Err(errno.into()),
            Err(errno) => {
                let group = path(group);
                self.absent.push(group.to_owned());
                self.notes
                    .push(format!("no control group {}: {errno}; what it would limit is not limited", group.display()));
            }
        }
        Ok(())
    }

    fn is_absent(&self, path: &Path) -> bool {
        self.absent.iter().any(|group| path.starts_with(group))
    }

    pub fn set(&mut self, file: &CStr, value: &[u8], presence: u32) -> Result<(), Failure> {
        let file = path(file);
        if self.is_absent(file) || presence == presence::INSTEAD && self.present {
            return Ok(());
        }
        self.present = true;
        match write(file, value) {
            Err(Errno::ENOENT) if presence == presence::IF_PRESENT => {
                self.present = false;
                Ok(())
            }
            answer => Ok(answer?),
        }
    }

    pub fn restrict_devices(&mut self, group: &CStr, program: &[u8]) -> Result<(), Failure> {
        let group = path(group);
        if self.is_absent(group) {
            return Ok(());
        }
        let directory = File::open(group).map_err(Errno::of)?;
        let program = bpf::load_device_program(program)?;
        // the group keeps it from here on
        bpf::attach_device_program(directory.as_fd(), program.as_fd())?;
        Ok(())
    }

    pub fn join(&mut self, place: &CStr, v2: bool) -> Result<(), Failure> {
        let place = path(place);
        if self.is_absent(place) {
            return Ok(());
        }
        let file = OpenOptions::new().read(v2).write(!v2).open(place).map_err(Errno::of)?;
        match v2 {
            true => self.v2 = Some(file.into()),
            false => self.tasks.push(file.into()),
        }
        Ok(())
    }

    /// The v2 group to clone into.
    pub fn v2(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(AsFd::as_fd)
    }

    /// The files of v1 groups into which the child writes itself.
    pub fn tasks(&self) -> Vec<BorrowedFd<'_>> {
        self.tasks.iter().map(AsFd::as_fd).collect()
    }
}
