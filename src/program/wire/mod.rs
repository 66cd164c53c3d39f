//! What the library and the shim say to each other: the ops of a Program
//! ([`op`]), their bytes ([`codec`]) and the shim's answers ([`report`]).
//! Compiled into both, with `core` alone.

pub mod codec;
pub mod op;
pub mod report;
