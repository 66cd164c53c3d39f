//! What the library and the shim say to each other: the ops of a Program
//! ([`op`]), their bytes ([`codec`]) and the shim's answers ([`report`]).
//! Compiled into both, with `core` alone.
#![allow(dead_code)] // each side encodes what the other decodes

pub mod codec;
pub mod op;
pub mod report;
