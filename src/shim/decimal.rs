//! Numbers as mount options and files of /proc have them.

use core::ffi::CStr;

/// Room for the digits of a number.
pub struct Decimal([u8; 24]);

impl Decimal {
    pub fn new() -> Decimal {
        Decimal([0; 24])
    }

    /// The digits of `n`.
    pub fn of(&mut self, mut n: u64) -> &CStr {
        let mut at = self.0.len() - 1; // the last byte stays NUL
        loop {
            at -= 1;
            self.0[at] = b'0' + (n % 10) as u8;
            n /= 10;
            if n == 0 {
                break;
            }
        }
        CStr::from_bytes_until_nul(&self.0[at..]).unwrap_or(c"0")
    }
}
