//! The bytes of a Program.
//!
//! ```text
//! Program := Header, Op × count
//! Header  := magic u32 | total bytes u32 | ops u32 | descriptors u32 | trees u32 | without u32 | fault u32
//! Op      := code u16 | 0 u16 | body bytes u32 | body (the op's fields in order)
//! field   := u32 | u64 | i64 (little-endian) | Slot u16
//!          | string: u32 length with NUL, bytes | bytes: u32 length, bytes
//! ```
//! Nothing is aligned and nothing points: the buffer can be sent anywhere.

use core::ffi::CStr;

/// `b"BJ01"`: the shim is embedded, so a mismatch can only be corruption.
pub const MAGIC: u32 = u32::from_le_bytes(*b"BJ01");
/// Bytes of the header.
pub const HEADER: usize = 28;
/// The first slot of a descriptor that the parent makes while the shim starts.
pub const TREES: u16 = 64;
/// The first slot that the shim's own ops fill.
pub const LOCAL: u16 = 2048;
/// The number of slots.
pub const SLOTS: usize = 4096;
/// No op is made to fail.
pub const NO_FAULT: u32 = u32::MAX;

/// The number of a place for a descriptor in the shim's table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot(pub u16);

impl Slot {
    /// No descriptor.
    pub const NONE: Slot = Slot(u16::MAX);
}

/// The head of a Program.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub struct Header {
    pub total: u32,
    pub ops: u32,
    /// Descriptors sent along; they fill the slots from 0 on.
    pub fds: u32,
    /// Descriptors sent when the parent has made them; they fill the slots from [`TREES`] on.
    pub trees: u32,
    /// Kernel features not to be used, `without::…`.
    pub without: u32,
    /// The op that is made to fail with `EIO`, for tests; or [`NO_FAULT`].
    pub fault: u32,
}

impl Header {
    /// The bytes.
    pub fn encode(&self) -> [u8; HEADER] {
        let words = [MAGIC, self.total, self.ops, self.fds, self.trees, self.without, self.fault];
        let mut out = [0; HEADER];
        for (i, word) in words.iter().enumerate() {
            out[4 * i..4 * i + 4].copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// From the first bytes of a Program.
    pub fn decode(bytes: &[u8]) -> Option<Header> {
        let mut reader = Reader(bytes);
        let mut word = || u32::take(&mut reader);
        (word()? == MAGIC).then_some(())?;
        Some(Header { total: word()?, ops: word()?, fds: word()?, trees: word()?, without: word()?, fault: word()? })
    }
}

/// Where encoded bytes go.
pub trait Sink {
    /// Appends bytes.
    fn put(&mut self, bytes: &[u8]);
}

/// The bytes not read yet.
#[derive(Clone, Copy)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next `n` bytes.
    pub fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }
}

/// A field of an op.
pub trait Field<'a>: Sized {
    /// Appends the bytes.
    fn put(&self, sink: &mut impl Sink);
    /// Reads it back; `None` when the bytes are not of this form.
    fn take(reader: &mut Reader<'a>) -> Option<Self>;
}

macro_rules! integers {
    ($($ty:ty),*) => { $(
        impl<'a> Field<'a> for $ty {
            fn put(&self, sink: &mut impl Sink) {
                sink.put(&self.to_le_bytes());
            }
            fn take(reader: &mut Reader<'a>) -> Option<Self> {
                Some(<$ty>::from_le_bytes(reader.bytes(size_of::<$ty>())?.try_into().ok()?))
            }
        }
    )* };
}
integers!(u16, u32, u64, i64);

impl<'a> Field<'a> for Slot {
    fn put(&self, sink: &mut impl Sink) {
        self.0.put(sink);
    }
    fn take(reader: &mut Reader<'a>) -> Option<Self> {
        u16::take(reader).map(Slot)
    }
}

impl<'a> Field<'a> for &'a [u8] {
    fn put(&self, sink: &mut impl Sink) {
        (self.len() as u32).put(sink);
        sink.put(self);
    }
    fn take(reader: &mut Reader<'a>) -> Option<Self> {
        let len = u32::take(reader)?;
        reader.bytes(len as usize)
    }
}

impl<'a> Field<'a> for &'a CStr {
    fn put(&self, sink: &mut impl Sink) {
        self.to_bytes_with_nul().put(sink);
    }
    fn take(reader: &mut Reader<'a>) -> Option<Self> {
        CStr::from_bytes_with_nul(<&[u8]>::take(reader)?).ok()
    }
}

/// A sequence of C strings, one behind the other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Strings<'a>(pub &'a [u8]);

impl<'a> Strings<'a> {
    /// The strings in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a CStr> + use<'a> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let string = CStr::from_bytes_until_nul(rest).ok()?;
            rest = &rest[string.count_bytes() + 1..];
            Some(string)
        })
    }
}

impl<'a> Field<'a> for Strings<'a> {
    fn put(&self, sink: &mut impl Sink) {
        self.0.put(sink);
    }
    fn take(reader: &mut Reader<'a>) -> Option<Self> {
        <&[u8]>::take(reader).map(Strings)
    }
}
