//! Receiving the Program: packets on the control socket, descriptors with them.

use crate::CONTROL;
use crate::program::wire::codec::{HEADER, Header, Slot, TREES};
use crate::state::{Slots, State};
use crate::sys::kernel::abi::{POLLIN, PollFd};
use crate::sys::kernel::raw::syscall;
use crate::sys::kernel::{Errno, Result, call};

/// A Program and the descriptors that came with it.
pub struct Received {
    pub header: Header,
    pub bytes: &'static [u8],
    pub slots: Slots,
}

/// Most Programs fit here; untouched pages of it cost nothing.
const INLINE: usize = 64 * 1024;
static mut BUFFER: [u8; INLINE] = [0; INLINE];

/// Receives a Program, and the descriptors that the parent had at hand. `bounded`: not for longer than
/// five seconds between its packets.
///
/// # Safety
/// To be called by the only thread, when nothing of the Program before is used any more.
pub unsafe fn program(socket: i32, bounded: bool) -> Result<Received> {
    // SAFETY: the only reference to the static, as the caller answers for the one before.
    let mut buffer: &'static mut [u8] = unsafe { &mut *(&raw mut BUFFER) };
    // SAFETY: as above.
    let mut slots = unsafe { Slots::take() };
    match fill(socket, bounded, &mut slots, &mut buffer) {
        Ok((header, total)) => Ok(Received { header, bytes: &buffer[HEADER..total], slots }),
        Err(errno) => {
            slots.close(u32::MAX);
            release(&buffer[HEADER..]);
            Err(errno)
        }
    }
}

/// Fills the buffer, or a larger one in its place. Gives the header and the length.
fn fill(socket: i32, bounded: bool, slots: &mut Slots, buffer: &mut &'static mut [u8]) -> Result<(Header, usize)> {
    let mut into = Into { slots, next: 0 };
    let mut got = next(socket, bounded, buffer, &mut into)?;
    let header = Header::decode(buffer[..got].get(..HEADER).ok_or(Errno::EPROTO)?).ok_or(Errno::EPROTO)?;
    let total = header.total as usize;
    if total > buffer.len() {
        let large = map(total)?;
        large[..got].copy_from_slice(&buffer[..got]);
        *buffer = large;
    }
    while got < total {
        match next(socket, bounded, &mut buffer[got..total], &mut into)? {
            0 => return Err(Errno::EPIPE),
            n => got += n,
        }
    }
    if into.next as u32 != header.fds || total < HEADER {
        return Err(Errno::EPROTO);
    }
    Ok((header, total))
}

fn next(socket: i32, bounded: bool, buffer: &mut [u8], into: &mut Into<'_>) -> Result<usize> {
    if bounded {
        match call::poll(&mut [PollFd { fd: socket, events: POLLIN, revents: 0 }], Some([5, 0])) {
            Ok(0) => return Err(Errno::ETIMEDOUT),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    call::receive(socket, buffer, 0, |fd| into.put(fd))
}

/// Waits for the parent's word that the id maps are written, and for the trees that it has
/// cloned meanwhile: packets of one byte, with as many descriptors as fit each.
pub fn trees(state: &mut State) -> Result<()> {
    let end = u32::from(TREES) + state.trees;
    let mut into = Into { slots: &mut state.slots, next: TREES };
    loop {
        match call::receive(CONTROL, &mut [0u8; 8], 0, |fd| into.put(fd))? {
            0 => return Err(Errno::EPIPE),
            _ if u32::from(into.next) >= end => return Ok(()),
            _ => {}
        }
    }
}

/// Slots to fill one after the other.
struct Into<'a> {
    slots: &'a mut Slots,
    next: u16,
}

impl Into<'_> {
    fn put(&mut self, fd: i32) {
        // one too many is noticed by the count
        let _ = self.slots.set(Slot(self.next), fd);
        self.next += 1;
    }
}

/// Gives back the memory of a Program that needed more than the buffer.
pub fn release(bytes: &'static [u8]) {
    let (start, len) = (bytes.as_ptr() as usize - HEADER, bytes.len() + HEADER);
    if start != (&raw const BUFFER) as usize {
        // SAFETY: the mapping of `map`, of which nothing is used any more.
        let _ = unsafe { syscall!(munmap, start, len) };
    }
}

/// Memory for a large Program (PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS).
fn map(len: usize) -> Result<&'static mut [u8]> {
    // SAFETY: a new anonymous mapping, which nothing else refers to and nobody unmaps.
    unsafe {
        let at = syscall!(mmap, 0, len, 3, 0x22, -1isize, 0)?;
        Ok(core::slice::from_raw_parts_mut(at as *mut u8, len))
    }
}
