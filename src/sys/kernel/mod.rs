//! The kernel's own interface, without libc and without `std`: what the library
//! and the embedded shim share. [`raw`] is the instruction, [`abi`] the
//! constants and records, [`call`] one function a system call, [`path`] the
//! resolution of paths beneath a root.
#![allow(dead_code, unused_imports)] // each of the two uses its own part

pub mod abi;
pub mod call;
pub mod path;
pub mod raw;
pub mod vfork;

pub use raw::{Errno, Result};
