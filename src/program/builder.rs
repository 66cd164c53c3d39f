//! Putting a Program together.

use super::wire::codec::{HEADER, Header, LOCAL, NO_FAULT, Reader, SLOTS, Sink, Slot, TREES};
use super::wire::op::Op;
use crate::handle::Fd;
use std::ffi::CStr;
use std::fmt;

/// Collects ops and the descriptors that they refer to.
#[derive(Default)]
pub(crate) struct Builder {
    /// What the parent does comes first, whenever it was added.
    parent: Buffer,
    shim: Buffer,
    /// What the shim takes from the host by path, and where in its ops: see [`Builder::sources_here`].
    sources: Buffer,
    sources_at: usize,
    ops: u32,
    trees: u16,
    local: u16,
    fds: Vec<(Slot, Fd)>,
}

#[derive(Default)]
struct Buffer(Vec<u8>);

impl Sink for Buffer {
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

impl Builder {
    pub fn new() -> Builder {
        let mut builder = Builder::default();
        builder.parent.0.reserve(2048);
        builder.parent.0.resize(HEADER, 0);
        builder.shim.0.reserve(2048);
        builder
    }

    /// Appends an op of the shim.
    pub fn op(&mut self, op: Op<'_>) {
        op.encode(&mut self.shim);
        self.ops += 1;
    }

    /// Appends an op that the launch performs itself, before the shim's.
    pub fn parent_op(&mut self, op: Op<'_>) {
        op.encode(&mut self.parent);
        self.ops += 1;
    }

    /// Appends an op that opens something of the host by path.
    pub fn source_op(&mut self, op: Op<'_>) {
        op.encode(&mut self.sources);
        self.ops += 1;
    }

    /// The sources are opened here, whenever they were added: before anything is mounted
    /// that would change what their paths mean.
    pub fn sources_here(&mut self) {
        self.sources_at = self.shim.0.len();
    }

    /// A slot for a descriptor that is at hand.
    pub fn send(&mut self, fd: Fd) -> Slot {
        let slot = Slot(self.fds.len() as u16);
        self.fds.push((slot, fd));
        slot
    }

    /// A slot for a tree that the launch will clone (see [`Op::Tree`]).
    pub fn promise(&mut self) -> Slot {
        self.trees = self.trees.saturating_add(1);
        Slot(TREES.saturating_add(self.trees - 1))
    }

    /// A slot that an op of the shim fills.
    pub fn local(&mut self) -> Slot {
        self.local = self.local.saturating_add(1);
        Slot(LOCAL.saturating_add(self.local - 1))
    }

    /// Whether every descriptor has a slot of its own: there are some 2000 for sources.
    pub fn fits(&self) -> bool {
        self.fds.len() <= TREES.into()
            && TREES + self.trees.min(LOCAL) <= LOCAL
            && usize::from(LOCAL) + usize::from(self.local) <= SLOTS
    }

    /// The Program, for a kernel with all features but `without`.
    pub fn finish(self, without: u32, fault: Option<u32>) -> Program {
        let mut bytes = self.parent.0;
        let (before, after) = self.shim.0.split_at(self.sources_at);
        for part in [before, &self.sources.0, after] {
            bytes.extend_from_slice(part);
        }
        let header = Header {
            total: bytes.len() as u32,
            ops: self.ops,
            fds: self.fds.len() as u32,
            trees: self.trees.into(),
            without,
            fault: fault.unwrap_or(NO_FAULT),
        };
        bytes[..HEADER].copy_from_slice(&header.encode());
        Program { bytes, header, fds: self.fds }
    }
}

/// Strings one behind the other, as `wire::codec::Strings` reads them.
pub(crate) fn strings<S: AsRef<CStr>>(all: impl IntoIterator<Item = S>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for string in all {
        bytes.extend_from_slice(string.as_ref().to_bytes_with_nul());
    }
    bytes
}

/// A compiled Program with its descriptors.
pub(crate) struct Program {
    bytes: Vec<u8>,
    header: Header,
    /// The descriptors at hand; the trees are made by the launch.
    pub fds: Vec<(Slot, Fd)>,
}

impl Program {
    /// What the shim receives.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The number of ops.
    pub fn len(&self) -> u32 {
        self.header.ops
    }

    /// The number of trees that the shim waits for.
    pub fn tree_count(&self) -> usize {
        self.header.trees as usize
    }

    /// Whether op `index` is to fail, for tests.
    pub fn fails_at(&self, index: u32) -> bool {
        self.header.fault == index && index != NO_FAULT
    }

    /// The ops in order.
    pub fn ops(&self) -> impl Iterator<Item = Op<'_>> {
        let mut reader = Reader(&self.bytes[HEADER..]);
        std::iter::from_fn(move || Op::decode(&mut reader))
    }
}

/// Numbered lines, one an op.
impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, op) in self.ops().enumerate() {
            writeln!(f, "{:>3}  {op}", i + 1)?;
        }
        Ok(())
    }
}
