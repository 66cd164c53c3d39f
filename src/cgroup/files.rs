//! Files that are read again and again, by descriptors that stay open.

use crate::sys::Errno;
use crate::sys::kernel::call;
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

const RLIMIT_NOFILE: u32 = 7;

/// Open files by their paths; `None`: it is not there.
#[derive(Debug, Default)]
pub(super) struct Files(Mutex<HashMap<PathBuf, Option<File>>>);

impl Files {
    /// The text of a file; `None` when there is no such file, or nothing in it to be read.
    pub fn read(&self, path: &Path) -> Result<Option<String>, Errno> {
        let mut files = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(file) = files.get(path) {
            return file.as_ref().map_or(Ok(None), text);
        }
        let file = match File::open(path).map_err(Errno::of) {
            Ok(file) => Some(file),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno),
        };
        let read = file.as_ref().map_or(Ok(None), text);
        // the host keeps half of its descriptors for itself
        if file.as_ref().is_none_or(|file| (file.as_raw_fd() as u64) < soft_limit() / 2) {
            files.insert(path.to_owned(), file);
        }
        read
    }
}

fn soft_limit() -> u64 {
    call::rlimit(RLIMIT_NOFILE, None).map_or(0, |[soft, _]| soft)
}

/// One pread(2) at the beginning, which has the kernel write the file anew; more where it
/// is longer.
fn text(file: &File) -> Result<Option<String>, Errno> {
    let mut bytes = vec![0; 4096];
    let mut len = 0;
    loop {
        match file.read_at(&mut bytes[len..], len as u64).map_err(Errno::of) {
            // pressure on a kernel where it is switched off
            Err(Errno::EOPNOTSUPP) => return Ok(None),
            Err(errno) => return Err(errno),
            Ok(n) => {
                len += n;
                if n == 0 || len < bytes.len() {
                    bytes.truncate(len);
                    return Ok(Some(String::from_utf8_lossy(&bytes).into_owned()));
                }
                bytes.resize(2 * len, 0);
            }
        }
    }
}
