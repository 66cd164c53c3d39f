//! Receiving the Program: packets on the control socket, descriptors with them.

use crate::CONTROL;
use crate::program::wire::codec::{HEADER, Header};
use crate::state::{SLOTS, Slots};
use crate::sys::kernel::raw::syscall;
use crate::sys::kernel::{Errno, Result, call};
use core::cell::Cell;

/// A Program and the descriptors that came with it.
pub struct Received {
    pub header: Header,
    pub bytes: &'static [u8],
    pub slots: Slots,
}

/// Most Programs fit here; untouched pages of it cost nothing.
const INLINE: usize = 64 * 1024;
static mut BUFFER: [u8; INLINE] = [0; INLINE];

/// Waits for the Program. The library sends it when the id maps are written, so
/// this is also the wait for those.
///
/// # Safety
/// To be called once, by the only thread.
pub unsafe fn program() -> Result<Received> {
    // SAFETY: the only reference to the static, as this is called once by the only thread.
    let mut buffer: &'static mut [u8] = unsafe { &mut *(&raw mut BUFFER) };
    let mut slots = [-1; SLOTS];
    let count = Cell::new(0);
    let mut take = |fd: i32| {
        if let Some(slot) = slots.get_mut(count.get()) {
            *slot = fd;
        }
        count.set(count.get() + 1);
    };
    let mut got = call::receive(CONTROL, buffer, 0, &mut take)?;
    let header = Header::decode(buffer.get(..HEADER).ok_or(Errno::EPROTO)?).ok_or(Errno::EPROTO)?;
    let total = header.total as usize;
    if total > buffer.len() {
        let large = map(total)?;
        large[..got].copy_from_slice(&buffer[..got]);
        buffer = large;
    }
    while got < total || count.get() < header.fds as usize {
        match call::receive(CONTROL, &mut buffer[got..], 0, &mut take)? {
            0 => return Err(Errno::EPIPE),
            // descriptors beyond one packet's worth come with one byte that is not counted
            1 if got == total => {}
            n => got += n,
        }
    }
    if got != total || count.get() > SLOTS || count.get() != header.fds as usize {
        return Err(Errno::EPROTO);
    }
    Ok(Received { header, bytes: &buffer[HEADER..total], slots })
}

/// Memory for a large Program (PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS).
fn map(len: usize) -> Result<&'static mut [u8]> {
    let len = len + 1; // room for the byte that carries further descriptors
    // SAFETY: a new anonymous mapping, which nothing else refers to and nobody unmaps.
    unsafe {
        let at = syscall!(mmap, 0, len, 3, 0x22, -1isize, 0)?;
        Ok(core::slice::from_raw_parts_mut(at as *mut u8, len))
    }
}
