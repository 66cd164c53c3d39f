//! One line of output an attempt, in one write(2).

use crate::sys::kernel::{Errno, call};

pub struct Line {
    bytes: [u8; 4096],
    len: usize,
}

/// Names of the errors that the tests look for; others are `E` and the number.
const NAMES: &[(i32, &[u8])] = &[
    (1, b"EPERM"),
    (2, b"ENOENT"),
    (3, b"ESRCH"),
    (5, b"EIO"),
    (6, b"ENXIO"),
    (9, b"EBADF"),
    (11, b"EAGAIN"),
    (12, b"ENOMEM"),
    (13, b"EACCES"),
    (14, b"EFAULT"),
    (16, b"EBUSY"),
    (17, b"EEXIST"),
    (18, b"EXDEV"),
    (19, b"ENODEV"),
    (20, b"ENOTDIR"),
    (21, b"EISDIR"),
    (22, b"EINVAL"),
    (24, b"EMFILE"),
    (25, b"ENOTTY"),
    (26, b"ETXTBSY"),
    (27, b"EFBIG"),
    (28, b"ENOSPC"),
    (30, b"EROFS"),
    (38, b"ENOSYS"),
    (40, b"ELOOP"),
    (93, b"EPROTONOSUPPORT"),
    (95, b"EOPNOTSUPP"),
    (97, b"EAFNOSUPPORT"),
    (101, b"ENETUNREACH"),
    (110, b"ETIMEDOUT"),
    (111, b"ECONNREFUSED"),
    (122, b"EDQUOT"),
    (126, b"ENOKEY"),
];

impl Line {
    pub fn new(what: &[u8]) -> Line {
        let mut line = Line { bytes: [0; 4096], len: 0 };
        line.push(what);
        line.push(b":");
        line
    }

    pub fn push(&mut self, text: &[u8]) {
        let room = text.len().min(self.bytes.len() - self.len - 1);
        self.bytes[self.len..self.len + room].copy_from_slice(&text[..room]);
        self.len += room;
    }

    pub fn number(&mut self, mut n: u64) {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (n % 10) as u8;
            n /= 10;
            if n == 0 {
                break;
            }
        }
        self.push(&digits[at..]);
    }

    pub fn end(mut self, text: &[u8]) {
        self.push(b" ");
        self.push(text);
        self.bytes[self.len] = b'\n';
        let _ = call::write_all(1, &self.bytes[..self.len + 1]);
    }

    pub fn value(mut self, n: u64) {
        self.push(b" ok ");
        self.number(n);
        self.len_end();
    }

    fn len_end(mut self) {
        self.bytes[self.len] = b'\n';
        let _ = call::write_all(1, &self.bytes[..self.len + 1]);
    }

    pub fn result<T>(mut self, result: Result<T, Errno>) {
        match result {
            Ok(_) => self.end(b"ok"),
            Err(errno) => match NAMES.iter().find(|(number, _)| *number == errno.0) {
                Some((_, name)) => self.end(name),
                None => {
                    self.push(b" E");
                    self.number(errno.0 as u64);
                    self.len_end();
                }
            },
        }
    }
}
