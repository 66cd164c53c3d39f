//! The payload's process: its program, arguments, environment, ids and streams.

mod command;
mod entry;
mod fds;
mod limits;
mod lower;
mod preset;
mod schedule;
mod stdio;

pub use command::Command;
pub use entry::Entry;
pub(crate) use entry::READY;
use fds::Passed;
pub(crate) use limits::Limits;
pub(crate) use lower::{Defaults, Ids, Stage};
pub use schedule::{IoPriority, SchedPolicy, Schedule};
pub use stdio::Stdio;
pub(crate) use stdio::Streams;

/// Who is PID 1 of the sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Init {
    /// The shim: it forwards signals, reaps orphans, reports the payload's exit and ends
    /// the sandbox when the host process ends. The default.
    #[default]
    Shim,
    /// The payload itself, for the last microseconds. `spawn` returns when the control socket
    /// closes at the payload's exec: a thread that forks in that moment, without an exec, delays
    /// it. The payload must reap what it inherits; signals
    /// that it has no handler for do not reach it (pid_namespaces(7)); and nothing ends it
    /// when the host process is killed.
    Payload,
}
