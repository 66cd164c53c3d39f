//! The payload's descriptors: its streams and what else it was given, each on its
//! number, and nothing besides.

use crate::program::wire::codec::{Field, Reader, Slot};
use crate::state::{self, State};
use crate::sys::kernel::abi::{F_DUPFD_CLOEXEC, F_SETFD, FD_CLOEXEC};
use crate::sys::kernel::{Errno, Result, call};

/// The streams and the most that `Command::fd` takes beside them.
const MOST: usize = 3 + 32;

/// What goes where.
struct Places {
    /// (number in the payload, descriptor here)
    list: [(i32, i32); MOST],
    len: usize,
}

impl Places {
    fn put(&mut self, number: i32, fd: i32) -> Result<()> {
        *self.list.get_mut(self.len).ok_or(Errno::E2BIG)? = (number, fd);
        self.len += 1;
        Ok(())
    }

    fn all(&mut self) -> &mut [(i32, i32)] {
        &mut self.list[..self.len]
    }

    fn is_target(&self, fd: i32) -> bool {
        self.list[..self.len].iter().any(|(number, _)| *number == fd)
    }

    /// A copy of `fd` whose number nobody wants, or `fd` itself if that is so already. The
    /// numbers tried rise, so that a payload with high ones needs no still higher limit.
    fn aside(&self, fd: i32) -> Result<i32> {
        let mut at = fd;
        while self.is_target(at) {
            at = call::fcntl(fd, F_DUPFD_CLOEXEC, at as usize + 1)?;
        }
        Ok(at)
    }
}

/// Puts the three streams and the `others` (pairs of number and slot, two bytes each) in
/// place, and closes everything else but the control socket and the program to `keep` until
/// the exec, which move aside.
pub fn place(state: &mut State, streams: [Slot; 3], others: &[u8], keep: Slot) -> Result<()> {
    let mut places = Places { list: [(0, -1); MOST], len: 0 };
    for (number, slot) in (0..).zip(streams) {
        places.put(number, state.get(slot)?)?;
    }
    let mut reader = Reader(others);
    while let (Some(number), Some(slot)) = (u16::take(&mut reader), Slot::take(&mut reader)) {
        places.put(number.into(), state.get(slot)?)?;
    }
    let control = places.aside(state::control())?;
    call::fcntl(control, F_SETFD, FD_CLOEXEC as usize)?;
    state::set_control(control);
    if let Ok(image) = state.get(keep) {
        state.image = places.aside(image)?;
    }
    if state.executed >= 0 {
        state.executed = places.aside(state.executed)?;
    }
    for i in 0..places.len {
        places.list[i].1 = places.aside(places.list[i].1)?;
    }
    for (number, fd) in places.all() {
        call::dup3(*fd, *number, 0)?;
        state.highest = state.highest.max(*number);
    }
    close_others(&mut places, [control, state.image, state.executed])
}

/// Closes the gaps between what stays, from the lowest number up.
fn close_others(places: &mut Places, unseen: [i32; 3]) -> Result<()> {
    let mut from = 0;
    loop {
        let kept = places.all().iter().map(|(number, _)| *number).chain(unseen);
        match kept.filter(|number| *number >= from).min() {
            Some(next) => {
                if next > from {
                    call::close_range(from as u32, next as u32 - 1, 0)?;
                }
                from = next + 1;
            }
            None => return call::close_range(from as u32, u32::MAX, 0).map(drop),
        }
    }
}
