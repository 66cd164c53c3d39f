//! What the shim knows while it runs a Program.

use crate::CONTROL;
use crate::limits::Limits;
use crate::program::wire::codec::{SLOTS, Sink, Slot};
use crate::program::wire::op::without;
use crate::program::wire::report::{REPORT_MAX, Report};
use crate::sys::kernel::abi::*;
use crate::sys::kernel::{Errno, Result, call, path};
use core::ffi::CStr;
use core::sync::atomic::{AtomicI32, Ordering};

static mut TABLE: Table = Table { used: 0, fds: [0; SLOTS] };

/// Descriptors, each plus one, so that 0 is none and an unused page is never touched, not even
/// read: each page fault is half a microsecond.
struct Table {
    /// Beyond, all are 0.
    used: usize,
    fds: [i32; SLOTS],
}

/// The places for descriptors.
pub struct Slots(&'static mut Table);

impl Slots {
    /// The table, empty.
    ///
    /// # Safety
    /// To be called by the only thread, when what it gave before is not used any more.
    pub unsafe fn take() -> Slots {
        // SAFETY: the only reference to the static, as the caller answers for the one before.
        let table = unsafe { &mut *(&raw mut TABLE) };
        table.fds[..table.used].fill(0);
        table.used = 0;
        Slots(table)
    }

    /// Closes the `count` descriptors that came with the Program.
    pub fn close(&mut self, count: u32) {
        for fd in self.0.fds.iter_mut().take(count as usize).filter(|fd| **fd > 0) {
            let _ = call::close(*fd - 1); // open: it has come with a packet
            *fd = 0;
        }
    }

    /// What is in the slots.
    pub fn open(&self) -> impl Iterator<Item = i32> {
        self.0.fds[..self.0.used].iter().filter(|fd| **fd > 0).map(|fd| fd - 1)
    }

    fn get(&self, slot: Slot) -> Result<i32> {
        match self.0.fds.get(slot.0 as usize) {
            Some(fd) if *fd > 0 => Ok(*fd - 1),
            _ => Err(Errno::EBADF),
        }
    }

    /// Puts a descriptor, or -1 for none, into a slot.
    pub fn set(&mut self, slot: Slot, fd: i32) -> Result<()> {
        let place = slot.0 as usize;
        *self.0.fds.get_mut(place).ok_or(Errno::EBADF)? = fd + 1;
        self.0.used = self.0.used.max(place + 1);
        Ok(())
    }
}

/// The state between ops.
pub struct State {
    pub slots: Slots,
    /// How many trees the parent makes while this process starts.
    pub trees: u32,
    /// Features not to be used (`wire::op::without`), extended when the kernel lacks one.
    pub without: u32,
    /// This process in the /proc of the host, when it is needed.
    pub proc_self: i32,
    /// The list of its children there, where it is no init.
    pub children: i32,
    /// The tmpfs in which the root is put together.
    pub scratch: i32,
    /// The new root.
    pub root: i32,
    /// Where entries of the init layer are made: the init overlay, or an empty root.
    pub view: i32,
    /// The init layer's own directory, beneath the overlay `view`; -1 for an empty root.
    pub init: i32,
    /// The slots of the layers under the init layer.
    pub layers: (Slot, u32),
    /// Whether overlays keep their marks in `user.` attributes.
    pub userxattr: bool,
    /// `/dev/null` of the host, verified, and an empty read-only tmpfs: for masks.
    pub null: i32,
    pub blank: i32,
    /// The devices of the file systems that this Program has made: targets may be created there.
    pub own: [u64; 32],
    pub own_len: usize,
    /// The root of the devpts that was mounted last.
    pub devpts: i32,
    /// The file in which its cgroup counts CPU time, or -1.
    pub meter: i32,
    /// What the sandbox is allowed.
    pub limits: Limits,
    /// The program to execute, where it is no path; -1 for one that is.
    pub image: i32,
    /// The end of a pipe that the exec is to close, if somebody waits for it.
    pub executed: i32,
    /// The highest number of the payload's descriptors.
    pub highest: i32,
    /// What the kernel said of the last failure.
    pub message: Message,
}

impl State {
    pub fn new(slots: Slots, trees: u32, without: u32) -> State {
        State {
            slots,
            trees,
            without,
            proc_self: -1,
            children: -1,
            scratch: -1,
            root: -1,
            view: -1,
            init: -1,
            layers: (Slot(0), 0),
            userxattr: false,
            null: -1,
            blank: -1,
            own: [0; 32],
            own_len: 0,
            devpts: -1,
            meter: -1,
            limits: Limits::default(),
            image: -1,
            executed: -1,
            highest: 2,
            message: Message::new(),
        }
    }

    /// Opens the list of this process's children (CONFIG_PROC_CHILDREN), for one that is no init: before the root
    /// changes, for the /proc of a layer may be anything.
    pub fn open_children(&mut self) {
        const NONBLOCK: i32 = 0o4000;
        if self.children >= 0 || call::getpid().is_ok_and(|pid| pid == 1) {
            return;
        }
        let flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | NONBLOCK;
        let Ok(fd) = call::openat(AT_FDCWD, c"/proc/thread-self/children", flags, 0) else { return };
        if call::fstatfs(fd).is_ok_and(|stat| stat.f_type == PROC_SUPER_MAGIC) {
            self.children = fd;
        } else {
            let _ = call::close(fd); // ours
        }
    }

    /// Whether a kernel feature may be tried.
    pub fn may(&self, feature: u32) -> bool {
        self.without & feature == 0
    }

    /// The descriptor in a slot.
    pub fn get(&self, slot: Slot) -> Result<i32> {
        self.slots.get(slot)
    }

    /// Puts a descriptor into a slot.
    pub fn set(&mut self, slot: Slot, fd: i32) -> Result<()> {
        self.slots.set(slot, fd)
    }

    /// Closes the descriptor in a slot.
    pub fn release(&mut self, slot: Slot) {
        if let Ok(fd) = self.slots.get(slot) {
            let _ = call::close(fd); // close cannot fail in a way that matters for O_PATH and mounts
            let _ = self.slots.set(slot, -1); // the slot exists: it has just been read
        }
    }

    /// Remembers a file system as made here.
    pub fn owns(&mut self, fd: i32) -> Result<()> {
        let dev = call::fstat(fd)?.dev();
        if !self.is_own(dev) && self.own_len < self.own.len() {
            self.own[self.own_len] = dev;
            self.own_len += 1;
        }
        Ok(())
    }

    /// Whether a file system was made here.
    pub fn is_own(&self, dev: u64) -> bool {
        self.own[..self.own_len].contains(&dev)
    }

    /// Opens a path beneath the new root.
    pub fn in_root(&self, root: i32, target: &CStr, flags: i32) -> Result<i32> {
        path::open_in_root(root, target, O_PATH | flags, self.may(without::OPENAT2))
    }
}

/// A message of bounded length.
pub struct Message {
    bytes: [u8; 512],
    len: usize,
}

impl Message {
    pub const fn new() -> Message {
        Message { bytes: [0; 512], len: 0 }
    }

    pub fn clear(&mut self) {
        self.len = 0;
    }

    pub fn push(&mut self, bytes: &[u8]) {
        let room = bytes.len().min(self.bytes.len() - self.len);
        self.bytes[self.len..self.len + room].copy_from_slice(&bytes[..room]);
        self.len += room;
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Takes what the kernel logged in a file system context (fsopen(2)): lines of
    /// `e text`, `w text` or `i text`, one a read.
    pub fn read_log(&mut self, fs: i32) {
        let mut line = [0u8; 256];
        while let Ok(n) = call::read(fs, &mut line) {
            let text = line[..n].strip_prefix(b"e ").unwrap_or(&line[..n]);
            if n == 0 || self.len == self.bytes.len() {
                return;
            }
            if self.len > 0 {
                self.push(b"; ");
            }
            self.push(text.strip_suffix(b"\n").unwrap_or(text));
        }
    }
}

/// A buffer on the stack to encode a report into.
struct Packet {
    bytes: [u8; REPORT_MAX],
    len: usize,
}

impl Sink for Packet {
    fn put(&mut self, bytes: &[u8]) {
        let end = (self.len + bytes.len()).min(REPORT_MAX);
        self.bytes[self.len..end].copy_from_slice(&bytes[..end - self.len]);
        self.len = end;
    }
}

/// Where the control socket is. Moved by a payload that wants its number: a process that
/// shares our memory, so that whoever started it puts this back.
static CONTROL_AT: AtomicI32 = AtomicI32::new(CONTROL);

/// The control socket.
pub fn control() -> i32 {
    CONTROL_AT.load(Ordering::Relaxed)
}

/// Says where the control socket is from now on.
pub fn set_control(fd: i32) {
    CONTROL_AT.store(fd, Ordering::Relaxed);
}

/// Sends a report. When nobody listens any more there is nobody to tell.
#[inline(never)]
pub fn report(report: Report<'_>, fds: &[i32]) {
    let _ = send(report, fds);
}

/// Sends a descriptor (`given::…`), without which the library could not do its part.
pub fn give(what: u32, fd: i32) -> Result<()> {
    send(Report::Given { what }, &[fd])
}

fn send(report: Report<'_>, fds: &[i32]) -> Result<()> {
    let mut packet = Packet { bytes: [0; REPORT_MAX], len: 0 };
    report.encode(&mut packet);
    call::send(control(), &packet.bytes[..packet.len], fds, MSG_NOSIGNAL).map(drop)
}

/// Reports that an op failed.
pub fn report_failure(op: u32, errno: Errno, message: &[u8]) {
    report(Report::Failed { op, errno: errno.0, message }, &[]);
}
