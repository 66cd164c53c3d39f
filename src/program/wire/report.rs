//! What the shim tells the library over the control socket, one packet each.
//!
//! ```text
//! Report := kind u32 | op u32 | errno i32 | value i64 × 3 | message bytes
//! ```

use super::codec::{Field, Reader, Sink};

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
    /// The payload runs; `pid` is its number in the shim's pid namespace.
    Started {
        /// The payload's pid as the shim sees it.
        pid: i32,
    },
    /// The payload has ended.
    Exited {
        /// The status word of wait(2).
        status: i32,
        /// User CPU time in microseconds.
        user: i64,
        /// System CPU time in microseconds.
        system: i64,
        /// Peak resident set in KiB.
        maxrss: i64,
    },
    /// The shim continues in a new process, whose pidfd comes with the packet.
    Moved,
}

/// The largest report.
pub const REPORT_MAX: usize = 1024;

impl<'a> Report<'a> {
    /// Appends the bytes.
    pub fn encode(&self, sink: &mut impl Sink) {
        let (kind, op, errno, values, message): (u32, u32, i32, [i64; 3], &[u8]) = match *self {
            Report::Failed { op, errno, message } => (1, op, errno, [0; 3], message),
            Report::Started { pid } => (2, 0, 0, [pid as i64, 0, 0], &[]),
            Report::Exited { status, user, system, maxrss } => (3, 0, status, [user, system, maxrss], &[]),
            Report::Moved => (4, 0, 0, [0; 3], &[]),
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
        let values = [i64::take(r)?, i64::take(r)?, i64::take(r)?];
        let message = <&[u8]>::take(r)?;
        match kind {
            1 => Some(Report::Failed { op, errno, message }),
            2 => Some(Report::Started { pid: values[0] as i32 }),
            3 => Some(Report::Exited { status: errno, user: values[0], system: values[1], maxrss: values[2] }),
            4 => Some(Report::Moved),
            _ => None,
        }
    }
}

/// What the library tells the running shim: one packet of `[kind u32, value u32]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Send this signal to the payload.
    Signal(i32),
    /// Kill the payload and all its descendants, then exit.
    Kill,
    /// The handle is given up: outlive it and the host.
    Detach,
}

impl Request {
    /// The packet.
    pub fn encode(self) -> [u8; 8] {
        let (kind, value): (u32, u32) = match self {
            Request::Signal(signal) => (1, signal as u32),
            Request::Kill => (2, 0),
            Request::Detach => (3, 0),
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
            (2, _) => Some(Request::Kill),
            (3, _) => Some(Request::Detach),
            _ => None,
        }
    }
}
