//! Descriptors of the payload beside its streams.

use crate::error::Defect;
use crate::handle::Fd;
use crate::program::Builder;
use crate::sys::kernel::abi::S_IFDIR;
use crate::sys::kernel::call;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// The most that a command takes: the shim has places for no more.
const MOST: usize = 32;
/// The usual soft limit of open files (RLIMIT_NOFILE) is 1024.
const HIGHEST: u32 = 1023;

/// A descriptor and the number that it gets.
#[derive(Debug)]
pub(super) struct Passed {
    number: u32,
    fd: Arc<OwnedFd>,
    may_be_directory: bool,
}

impl Passed {
    pub fn new(number: u32, fd: OwnedFd, may_be_directory: bool) -> Passed {
        Passed { number, fd: Arc::new(fd), may_be_directory }
    }

    /// The number, if it opts out of the refusal of directories.
    pub fn as_directory(&self) -> Option<u32> {
        self.may_be_directory.then_some(self.number)
    }
}

pub(super) fn check(fds: &[Passed], defects: &mut Vec<Defect>) {
    if fds.len() > MOST {
        defects.push(Defect::new(
            format!("{} descriptors are passed", fds.len()),
            format!("at most {MOST}; more can follow over a socketpair"),
        ));
    }
    for (i, Passed { number, fd, may_be_directory }) in fds.iter().enumerate() {
        if !(3..=HIGHEST).contains(number) {
            defects.push(Defect::new(
                format!("a descriptor is passed as number {number}"),
                format!("a number of 3 to {HIGHEST}; 0 to 2 are Command::stdin, stdout and stderr"),
            ));
        }
        if fds[..i].iter().any(|earlier| earlier.number == *number) {
            defects.push(Defect::new(
                format!("two descriptors are passed as number {number}"),
                "a number of its own for each",
            ));
        }
        if !may_be_directory {
            refuse_directory(*number, fd.as_fd(), defects);
        }
    }
}

/// `openat(fd, "..")` leads out of any directory of the host, and on from there.
pub(super) fn refuse_directory(number: u32, fd: BorrowedFd<'_>, defects: &mut Vec<Defect>) {
    if call::fstat(fd.as_raw_fd()).is_ok_and(|stat| stat.kind() == S_IFDIR) {
        defects.push(Defect::new(
            format!("descriptor {number} is a directory of the host, from which `..` leads out of the sandbox"),
            "Mount::bind for the directory, or Command::directory_fd to pass it all the same",
        ));
    }
}

/// Puts the descriptors into slots; gives number and slot of each.
pub(super) fn lower(fds: &[Passed], builder: &mut Builder) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 * fds.len());
    for Passed { number, fd, .. } in fds {
        let slot = builder.send(Fd::Shared(fd.clone()));
        bytes.extend_from_slice(&(*number as u16).to_le_bytes()); // at most `HIGHEST`
        bytes.extend_from_slice(&slot.0.to_le_bytes());
    }
    bytes
}
