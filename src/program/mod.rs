//! Programs: what a specification compiles to, what the shim runs, what `explain`
//! prints. One flat buffer of ordered ops ([`wire`]), built by [`Builder`].

mod builder;
mod explain;
pub(crate) mod wire;

pub(crate) use builder::{Builder, Program, strings};
pub(crate) use wire::codec::{Slot, Strings};
pub(crate) use wire::op::{self, Op};
pub(crate) use wire::report::{Report, Request, Used, cause, given};

/// The largest report of the shim.
pub(crate) const REPORT_MAX: usize = wire::report::REPORT_MAX;
