//! Leases of id blocks: a block that no other running sandbox of this machine has.
//!
//! What the kernel counts by user (keys, inotify instances, message queues, pending signals) it then counts by sandbox,
//! and files of one belong to nobody in another. A lease is an OFD lock (fcntl(2)) on one byte of a file: it ends with
//! the last process that has it open, however that ends, and the shim is one of them.

use super::id_map::{BLOCK, BLOCK_BASE, Resolved};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::Errno;
use crate::sys::kernel::call;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many blocks there are behind the first, which all others share: up to 2147352575, where systemd's unused
/// range ends.
const BLOCKS: u32 = (2_147_352_576 - BLOCK_BASE) / BLOCK - 1;

/// Where the locks are; root's directories first.
const FILES: [&str; 3] = ["/run/belljar-ids", "/dev/shm/belljar-ids", "/tmp/belljar-ids"];

/// A block that is taken as long as this file is open.
#[derive(Debug)]
pub(crate) struct Lease {
    pub lock: File,
    number: u32,
}

impl Lease {
    /// Takes a free block: each process looks in a place of its own first.
    pub fn take() -> Result<Lease> {
        static START: OnceLock<u32> = OnceLock::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let lock = open().map_err(|errno| {
            Error::call(format!("open {} to take ids from", FILES[0]), errno)
                .with_hint("a writable /run, or IdMap::shared()")
        })?;
        let start = START.get_or_init(|| std::process::id().wrapping_mul(0x9e37_79b1) % BLOCKS);
        for _ in 0..BLOCKS {
            let number = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % BLOCKS + 1;
            match call::lock_byte(lock.as_raw_fd(), i64::from(number)) {
                Ok(_) => return Ok(Lease { lock, number }),
                Err(Errno::EAGAIN | Errno::EACCES) => {}
                Err(errno) => return Err(Error::call(format!("take block {number} of the ids"), errno)),
            }
        }
        Err(Error::new(ErrorKind::LimitReached, format!("all {BLOCKS} blocks of ids are taken"))
            .with_hint("fewer sandboxes at a time, or IdMap::shared()"))
    }

    /// The map of this block.
    pub fn shift(&self, ids: &Resolved) -> Resolved {
        let mut ids = ids.clone();
        for range in ids.uids.iter_mut().chain(&mut ids.gids) {
            range.outside = BLOCK_BASE + self.number * BLOCK;
        }
        ids
    }
}

/// A file of our own: in a directory that others can write, one that is not root's is theirs.
fn open() -> Result<File, Errno> {
    let mut last = Errno::ENOENT;
    for path in FILES {
        let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags)
            .open(path);
        match opened.and_then(|file| Ok((file.metadata()?, file))) {
            Ok((found, file)) if found.is_file() && found.uid() == nix::unistd::geteuid().as_raw() => return Ok(file),
            Ok(_) => last = Errno::EACCES,
            Err(e) => last = Errno::of(e),
        }
    }
    Err(last)
}
