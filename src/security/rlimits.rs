//! Resource limits of the payload's processes (getrlimit(2)).

use crate::units::Bytes;
use std::collections::BTreeMap;
use std::fmt;

/// Limits that each process of the payload has, soft and hard alike, so that it cannot raise them. A
/// limit is only ever lowered: where the host process has less, that stays.
///
/// They are the second line: what a whole sandbox may use is the business of control groups.
///
/// ```
/// use belljar::{Bytes, Rlimits};
///
/// let limits = Rlimits::standard().nofile(64).fsize(Bytes::mib(16));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rlimits(BTreeMap<u32, u64>);

// <asm-generic/resource.h>
const FSIZE: u32 = 1;
const DATA: u32 = 2;
const STACK: u32 = 3;
const CORE: u32 = 4;
const NPROC: u32 = 6;
const NOFILE: u32 = 7;
const MEMLOCK: u32 = 8;
const AS: u32 = 9;
const SIGPENDING: u32 = 11;
const MSGQUEUE: u32 = 12;
const NICE: u32 = 13;
const RTPRIO: u32 = 14;

const NAMES: [(u32, &str); 12] = [
    (FSIZE, "fsize"),
    (DATA, "data"),
    (STACK, "stack"),
    (CORE, "core"),
    (NPROC, "nproc"),
    (NOFILE, "nofile"),
    (MEMLOCK, "memlock"),
    (AS, "as"),
    (SIGPENDING, "sigpending"),
    (MSGQUEUE, "msgqueue"),
    (NICE, "nice"),
    (RTPRIO, "rtprio"),
];

impl Default for Rlimits {
    fn default() -> Self {
        Rlimits::standard()
    }
}

impl Rlimits {
    /// The default: no core files, 1024 descriptors, files of at most 4 GiB, 8 MiB of locked memory, 256 KiB of
    /// POSIX message queues, 1024 pending signals, no real-time priority and no nice value below 0. What the kernel counts by user, the
    /// queues and signals, counts against the host's user too, of whose own (800 KiB, some ten thousand) these are a part.
    pub fn standard() -> Rlimits {
        Rlimits::inherited()
            .no_core()
            .nofile(1024)
            .fsize(Bytes::gib(4))
            .memlock(Bytes::mib(8))
            .msgqueue(Bytes::kib(256))
            .sigpending(1024)
            .nice(0)
            .rtprio(0)
    }

    /// Opts out: those of the host process.
    pub fn inherited() -> Rlimits {
        Rlimits(BTreeMap::new())
    }

    fn with(mut self, resource: u32, value: u64) -> Rlimits {
        self.0.insert(resource, value);
        self
    }

    /// No core files. The limit is 1 byte: for the kernel that means that a crash does not start the
    /// host's core handler either, which 0 does not prevent (core(5)).
    pub fn no_core(self) -> Rlimits {
        self.with(CORE, 1)
    }

    /// Core files up to this size (RLIMIT_CORE).
    pub fn core(self, bytes: Bytes) -> Rlimits {
        self.with(CORE, bytes.get())
    }

    /// The size of a file that a process writes (RLIMIT_FSIZE): beyond it SIGXFSZ or `EFBIG`.
    pub fn fsize(self, bytes: Bytes) -> Rlimits {
        self.with(FSIZE, bytes.get())
    }

    /// How many descriptors a process may have (RLIMIT_NOFILE): one more than the highest number.
    pub fn nofile(self, count: u32) -> Rlimits {
        self.with(NOFILE, count.into())
    }

    /// Memory that may not be swapped (RLIMIT_MEMLOCK).
    pub fn memlock(self, bytes: Bytes) -> Rlimits {
        self.with(MEMLOCK, bytes.get())
    }

    /// POSIX message queues of the sandbox's user (RLIMIT_MSGQUEUE).
    pub fn msgqueue(self, bytes: Bytes) -> Rlimits {
        self.with(MSGQUEUE, bytes.get())
    }

    /// The address space of a process (RLIMIT_AS). Programs that reserve much and use little, as Go and Java
    /// do, fail with less than they reserve.
    pub fn address_space(self, bytes: Bytes) -> Rlimits {
        self.with(AS, bytes.get())
    }

    /// The data segment of a process (RLIMIT_DATA): what it writes to of its own.
    pub fn data(self, bytes: Bytes) -> Rlimits {
        self.with(DATA, bytes.get())
    }

    /// The stack of a process's first thread (RLIMIT_STACK), also the default of others.
    pub fn stack(self, bytes: Bytes) -> Rlimits {
        self.with(STACK, bytes.get())
    }

    /// The processes and threads of the sandbox's user (RLIMIT_NPROC): before Linux 5.14 of all sandboxes that
    /// have the same outer user.
    pub fn nproc(self, count: u32) -> Rlimits {
        self.with(NPROC, count.into())
    }

    /// Queued signals of the sandbox's user (RLIMIT_SIGPENDING).
    pub fn sigpending(self, count: u32) -> Rlimits {
        self.with(SIGPENDING, count.into())
    }

    /// The lowest nice value that a process without CAP_SYS_NICE may take (RLIMIT_NICE), -20 to 19; others are cut to that.
    pub fn nice(self, lowest: i32) -> Rlimits {
        self.with(NICE, (20 - lowest.clamp(-20, 19)) as u64)
    }

    /// The highest real-time priority that a process without CAP_SYS_NICE may take (RLIMIT_RTPRIO).
    pub fn rtprio(self, priority: u32) -> Rlimits {
        self.with(RTPRIO, priority.into())
    }

    /// `(resource u32, value u64)` records.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0
            .iter()
            .flat_map(|(resource, value)| [&resource.to_le_bytes()[..], &value.to_le_bytes()].concat())
            .collect()
    }
}

/// `core 1, nofile 1024 …`, in the words of getrlimit(2).
impl fmt::Display for Rlimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the host process's");
        }
        for (i, (resource, value)) in self.0.iter().enumerate() {
            let name = NAMES.iter().find(|(number, _)| number == resource).map_or("?", |(_, name)| name);
            write!(f, "{}{name} {value}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
