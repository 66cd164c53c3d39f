//! What the shim tells the library over the control socket, one packet each.
//!
//! ```text
//! Report := kind u32 | op u32 | errno i32 | value i64 × 8 | message bytes
//! ```

use super::codec::{Field, Reader, Sink};
use crate::sys::kernel::abi::Rusage;

/// The kinds of report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Report<'a> {
    /// Op `op` failed with `errno`; `message` is what the kernel said of it, or empty.
    Failed {
        /// The number of the op in the Program, from 0.
        op: u32,
        /// errno(3).
        errno: i32,
        /// The kernel's fscontext log, or what the shim adds.
        message: &'a [u8],
    },
    /// The payload runs; `pid` is its number in the shim's pid namespace. With one that
    /// entered comes its pidfd.
    Started {
        /// The payload's pid as the shim sees it.
        pid: i32,
    },
    /// The payload has ended.
    Exited {
        /// The status word of wait(2).
        status: i32,
        /// Why it was ended, `cause::…`: decided before the signal was sent, and told only if
        /// that signal ended it.
        cause: u32,
    },
    /// The answer to a request that wants one: 0, or errno(3).
    Answer {
        /// 0 when it is done.
        errno: i32,
    },
    /// What all processes have used, told when the last one is reaped.
    Used(Used),
    /// The shim continues in a new process, whose pidfd comes with the packet.
    Moved,
    /// Something for the library, whose descriptor comes with the packet (`given::…`).
    Given {
        /// What it is.
        what: u32,
    },
}

/// What processes have used, as getrusage(2) `RUSAGE_CHILDREN` counts it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Used {
    /// From the payload's start to its end, in microseconds; 0 where nobody took the time.
    pub wall: i64,
    /// User CPU time in microseconds.
    pub user: i64,
    /// System CPU time in microseconds.
    pub system: i64,
    /// Peak resident set of the largest, in KiB.
    pub maxrss: i64,
    /// Reads from block devices, in units of 512 bytes.
    pub inblock: i64,
    /// Writes to them.
    pub oublock: i64,
    /// Context switches because it waited.
    pub nvcsw: i64,
    /// Context switches because its time was over.
    pub nivcsw: i64,
}

impl Used {
    /// From the kernel's record.
    pub fn of(usage: &Rusage) -> Used {
        let micros = |t: [i64; 2]| t[0] * 1_000_000 + t[1];
        Used {
            wall: 0,
            user: micros(usage.utime),
            system: micros(usage.stime),
            maxrss: usage.maxrss,
            inblock: usage.rest[6],
            oublock: usage.rest[7],
            nvcsw: usage.rest[11],
            nivcsw: usage.rest[12],
        }
    }
}

/// Who asked for the end of a sandbox, and why.
#[allow(missing_docs)]
pub mod cause {
    /// Nobody: it ended by itself.
    pub const NONE: u32 = 0;
    pub const HANDLE: u32 = 1;
    pub const WALL_TIME: u32 = 2;
    pub const CPU_TIME: u32 = 3;
    pub const OUTPUT: u32 = 4;
    pub const HOST_DIED: u32 = 5;
}

/// What a descriptor from the shim is.
#[allow(missing_docs)]
pub mod given {
    /// The master of the payload's pty.
    pub const PTY: u32 = 1;
    /// The scratch, with `upper` and `init` in it.
    pub const SCRATCH: u32 = 2;
    /// The listener of the payload's filter.
    pub const LISTENER: u32 = 3;
}

/// The largest report.
pub const REPORT_MAX: usize = 1024;

/// The numbers in a packet.
const VALUES: usize = 8;

impl<'a> Report<'a> {
    /// Appends the bytes.
    pub fn encode(&self, sink: &mut impl Sink) {
        let mut values = [0i64; VALUES];
        let (kind, op, errno, message): (u32, u32, i32, &[u8]) = match *self {
            Report::Failed { op, errno, message } => (1, op, errno, message),
            Report::Started { pid } => {
                values[0] = pid as i64;
                (2, 0, 0, &[])
            }
            Report::Exited { status, cause } => (3, cause, status, &[]),
            Report::Moved => (4, 0, 0, &[]),
            Report::Answer { errno } => (8, 0, errno, &[]),
            Report::Used(u) => {
                values = [u.wall, u.user, u.system, u.maxrss, u.inblock, u.oublock, u.nvcsw, u.nivcsw];
                (5, 0, 0, &[])
            }
            Report::Given { what } => (20, what, 0, &[]),
        };
        kind.put(sink);
        op.put(sink);
        (errno as u32).put(sink);
        values.iter().for_each(|v| v.put(sink));
        message.put(sink);
    }

    /// Reads a packet; `None` when it is no report.
    pub fn decode(packet: &'a [u8]) -> Option<Report<'a>> {
        let mut reader = Reader(packet);
        let r = &mut reader;
        let (kind, op, errno) = (u32::take(r)?, u32::take(r)?, u32::take(r)? as i32);
        let mut values = [0i64; VALUES];
        for value in &mut values {
            *value = i64::take(r)?;
        }
        let message = <&[u8]>::take(r)?;
        match kind {
            1 => Some(Report::Failed { op, errno, message }),
            2 => Some(Report::Started { pid: values[0] as i32 }),
            3 => Some(Report::Exited { status: errno, cause: op }),
            4 => Some(Report::Moved),
            8 => Some(Report::Answer { errno }),
            5 => {
                let [wall, user, system, maxrss, inblock, oublock, nvcsw, nivcsw] = values;
                Some(Report::Used(Used { wall, user, system, maxrss, inblock, oublock, nvcsw, nivcsw }))
            }
            20 => Some(Report::Given { what: op }),
            _ => None,
        }
    }
}

/// What the library tells the running shim: one packet of `[kind u32, value u32]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Send this signal to the payload.
    Signal(i32),
    /// Kill the payload and all its descendants for this reason (`cause::…`), then exit.
    Kill(u32),
    /// SIGTERM to the payload, and after so many milliseconds as `Kill`.
    Terminate(u32),
    /// Kill the payload alone; its end is the sandbox's.
    KillInit,
    /// Stop all processes; answered.
    Freeze,
    /// Let them go on; answered.
    Thaw,
    /// The handle is given up: outlive it and the host.
    Detach,
    /// Start one more process: its Program comes by the socket that is in the packet, over which it is
    /// then held as the payload is over this one.
    Enter,
}

impl Request {
    /// The packet.
    pub fn encode(self) -> [u8; 8] {
        let (kind, value): (u32, u32) = match self {
            Request::Signal(signal) => (1, signal as u32),
            Request::Kill(cause) => (2, cause),
            Request::Detach => (3, 0),
            Request::KillInit => (4, 0),
            Request::Terminate(grace) => (5, grace),
            Request::Freeze => (8, 0),
            Request::Thaw => (9, 0),
            Request::Enter => (6, 0),
        };
        let mut out = [0; 8];
        out[..4].copy_from_slice(&kind.to_le_bytes());
        out[4..].copy_from_slice(&value.to_le_bytes());
        out
    }

    /// Reads a packet; `None` when it is no request.
    pub fn decode(packet: &[u8]) -> Option<Request> {
        let mut reader = Reader(packet);
        match (u32::take(&mut reader)?, u32::take(&mut reader)?) {
            (1, signal) => Some(Request::Signal(signal as i32)),
            (2, cause) => Some(Request::Kill(cause)),
            (3, _) => Some(Request::Detach),
            (4, _) => Some(Request::KillInit),
            (5, grace) => Some(Request::Terminate(grace)),
            (8, _) => Some(Request::Freeze),
            (9, _) => Some(Request::Thaw),
            (6, _) => Some(Request::Enter),
            _ => None,
        }
    }
}
