//! From a specification to a Program: [`check`] finds what contradicts itself,
//! across domains and all at once; [`compile`] puts the ops in order; [`remedy`]
//! knows what a failed op most likely means.

mod check;
mod compile;
pub(crate) mod remedy;
pub(crate) mod report;

pub(crate) use check::{Spec, Template};
pub(crate) use compile::{Compiled, SpawnIds, compile, compile_entry};
