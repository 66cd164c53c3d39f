//! A group that exists: removed when dropped.

use crate::sys::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long a group may stay in use by processes that are ending.
const REMOVAL: Duration = Duration::from_secs(5);

/// The directory of a group, which this process has made.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    kept: bool,
}

/// The groups that this process has left to detached sandboxes.
pub(super) fn kept() -> MutexGuard<'static, Vec<PathBuf>> {
    static KEPT: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    KEPT.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Directory {
    /// Makes it.
    pub fn make(path: &Path) -> Result<Directory, Errno> {
        fs::create_dir(path).map_err(Errno::of)?;
        Ok(Directory { path: path.to_owned(), kept: false })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it, if nothing is in it.
    pub fn try_remove(&mut self) -> bool {
        self.kept |= fs::remove_dir(&self.path).is_ok();
        self.kept
    }

    /// Leaves it where it is, for [`sweep`](super::sweep()) to remove when it is empty.
    pub fn keep(&mut self) {
        self.kept = true;
        kept().push(self.path.clone());
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.kept {
            // Nobody to tell: what cannot be removed now is what `sweep` is for.
            let _ = remove(&self.path, REMOVAL);
        }
    }
}

/// Removes a group with the groups in it. `EBUSY` is tried again until `patience` ends: a
/// process that has been reaped leaves its group a moment later.
pub(crate) fn remove(path: &Path, patience: Duration) -> Result<(), Errno> {
    let start = Instant::now();
    let mut pause = Duration::from_micros(50);
    loop {
        match fs::remove_dir(path).map_err(Errno::of) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY) => {}
            Err(errno) => return Err(errno),
        }
        // groups that a payload has made in its own
        let inner = fs::read_dir(path).into_iter().flatten().flatten();
        for entry in inner.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            remove(&entry.path(), patience.saturating_sub(start.elapsed()))?;
        }
        if start.elapsed() >= patience {
            return Err(Errno::EBUSY);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Writes a file of a group in one write(2), as the kernel wants it.
pub(crate) fn write(path: &Path, value: &[u8]) -> Result<(), Errno> {
    write_to(&OpenOptions::new().write(true).open(path).map_err(Errno::of)?, value)
}

/// The same of an open file.
pub(super) fn write_to(mut file: &File, value: &[u8]) -> Result<(), Errno> {
    match file.write(value) {
        Ok(n) if n == value.len() => Ok(()),
        Ok(_) => Err(Errno::EIO),
        Err(error) => Err(Errno::of(error)),
    }
}

/// The words of a file, such as `cgroup.controllers`; none when it cannot be read.
pub(crate) fn words(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}
