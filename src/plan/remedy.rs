//! What a failed op most likely means, and what helps.

use crate::error::{Error, ErrorKind, Step};
use crate::program::{Op, Program};
use crate::sys::Errno;

/// The error of op `index`.
pub(crate) fn failure(program: &Program, index: u32, errno: Errno, kernel: &str) -> Error {
    let Some(op) = program.ops().nth(index as usize) else {
        return Error::call("run the sandbox's Program", errno).with_kernel(kernel);
    };
    let error = Error::call(op.to_string(), errno)
        .at(Step::new(index, program.len(), op.name()))
        .with_kernel(kernel);
    match remedy(&op, errno) {
        Some((kind, hint)) => error.with_kind(kind).with_hint(hint),
        None => error,
    }
}

fn remedy(op: &Op<'_>, errno: Errno) -> Option<(ErrorKind, String)> {
    let _ = (op, errno);
    None
}
