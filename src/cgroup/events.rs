//! What happens to a sandbox's groups, as it happens.
//!
//! A changed file of a cgroup is told by poll(2) with `POLLPRI` to whoever has read it before;
//! v1 tells of memory through an eventfd instead (`cgroup.event_control`). All of it is
//! behind one epoll(7) instance, which can itself be polled.
//!
//! Contract: cgroup-v2.rst ("file modified event"), cgroup-v1/memory.rst §9,
//! `Documentation/accounting/psi.rst`.

use super::controller::Controller;
use super::directory::write_to;
use super::group::Group;
use super::parse;
use crate::sys::Errno;
use crate::sys::pidfd::remaining;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Something that has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event {
    /// There was no memory to be had within the limit.
    OutOfMemory,
    /// The kernel has ended so many more processes for want of memory.
    OomKill(u64),
    /// Slowed down because of `memory_high`. v2 only.
    MemoryHigh,
    /// One more process was refused because of `pids_max`. On v1 the kernel counts it without
    /// telling: it then comes before [`Event::Empty`].
    PidsMax,
    /// More time was lost than a trigger allows.
    Pressure(PressureTrigger),
    /// No process is left. The last event.
    Empty,
}

/// A resource that can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// A CPU.
    Cpu,
    /// Memory.
    Memory,
    /// Disks.
    Io,
}

/// When pressure is told of: when some process (or all of them: `full`) lost `stall` within `window`.
///
/// The window is 500 ms to 10 s; without CAP_SYS_RESOURCE a multiple of 2 s. Linux 5.2 (the
/// latter 6.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PressureTrigger {
    resource: Resource,
    full: bool,
    stall: Duration,
    window: Duration,
}

impl PressureTrigger {
    /// Some process lost `stall` within `window`.
    pub fn some(resource: Resource, stall: Duration, window: Duration) -> PressureTrigger {
        PressureTrigger { resource, full: false, stall, window }
    }

    /// All processes lost it, at the same time.
    pub fn full(resource: Resource, stall: Duration, window: Duration) -> PressureTrigger {
        PressureTrigger { full: true, ..PressureTrigger::some(resource, stall, window) }
    }

    fn file(self) -> &'static str {
        match self.resource {
            Resource::Cpu => "cpu.pressure",
            Resource::Memory => "memory.pressure",
            Resource::Io => "io.pressure",
        }
    }

    fn line(self) -> String {
        let kind = if self.full { "full" } else { "some" };
        format!("{kind} {} {}", self.stall.as_micros(), self.window.as_micros())
    }
}

/// The events of a sandbox, one after the other; see [`Child::events`](crate::Child::events).
///
/// As an iterator it waits for the next one, and ends behind [`Event::Empty`]. Its descriptor
/// ([`AsFd`]) is readable when [`next_timeout`](Events::next_timeout) would not have to wait.
#[derive(Debug)]
pub struct Events {
    epoll: Epoll,
    /// By their numbers in `epoll`.
    sources: Vec<Source>,
    group: Option<std::path::PathBuf>,
    pending: VecDeque<Event>,
    ended: bool,
}

#[derive(Debug)]
enum Source {
    /// A file of counters, and what they were.
    Memory {
        file: File,
        high: u64,
        oom: u64,
        kills: u64,
    },
    Pids {
        file: File,
        refused: u64,
    },
    Populated {
        file: File,
    },
    /// v1: OOM by eventfd; the file has the number of kills.
    Oom {
        event: EventFd,
        file: File,
        kills: u64,
    },
    Pressure {
        _file: File,
        trigger: PressureTrigger,
    },
    /// The sandbox's first process. Its end is the end where nothing tells of an empty group; and where a
    /// group does, it may be gone before it has told (the kernel tells no more than once in 10 ms).
    Process {
        pidfd: OwnedFd,
    },
}

fn nix(error: nix::errno::Errno) -> Errno {
    Errno(error as i32)
}

fn read(file: &File) -> String {
    let mut bytes = [0; 1024];
    let len = file.read_at(&mut bytes, 0).unwrap_or(0); // a group that is gone has no text
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

fn count(text: &str, key: &str) -> u64 {
    parse::value(text, key).unwrap_or(0)
}

impl Group {
    /// Begins to watch. `process`: the sandbox's first.
    pub fn events(&self, process: OwnedFd, triggers: &[PressureTrigger]) -> Result<Events, Errno> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(nix)?;
        let group = self.members.first().map(|member| member.directory.path().to_owned());
        let mut events = Events { epoll, sources: Vec::new(), group, pending: VecDeque::new(), ended: false };
        let open = |path| File::open(path).map_err(Errno::of);
        if let Some(member) = self.of(Controller::Memory) {
            if member.v2 {
                let file = open(member.file("memory.events"))?;
                let text = read(&file);
                let (high, oom, kills) = (count(&text, "high"), count(&text, "oom"), count(&text, "oom_kill"));
                events.add(Source::Memory { file, high, oom, kills })?;
            } else {
                let file = open(member.file("memory.oom_control"))?;
                let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
                let event = EventFd::from_value_and_flags(0, flags).map_err(nix)?;
                let line = format!("{} {}", event.as_fd().as_raw_fd(), file.as_raw_fd());
                super::write(&member.file("cgroup.event_control"), line.as_bytes())?;
                let kills = count(&read(&file), "oom_kill");
                events.add(Source::Oom { event, file, kills })?;
            }
        }
        if let Some(member) = self.of(Controller::Pids) {
            let file = open(member.file("pids.events"))?;
            let refused = count(&read(&file), "max");
            events.add(Source::Pids { file, refused })?;
        }
        if let Some(member) = self.v2() {
            let file = open(member.file("cgroup.events"))?;
            read(&file);
            events.add(Source::Populated { file })?;
        }
        for trigger in triggers {
            let member = self.v2().ok_or(Errno::EOPNOTSUPP)?;
            let path = member.file(trigger.file());
            let file = OpenOptions::new().read(true).write(true).open(path).map_err(Errno::of)?;
            write_to(&file, trigger.line().as_bytes())?;
            events.add(Source::Pressure { _file: file, trigger: *trigger })?;
        }
        events.add(Source::Process { pidfd: process })?;
        Ok(events)
    }
}

impl Events {
    fn add(&mut self, source: Source) -> Result<(), Errno> {
        let (fd, flags) = match &source {
            Source::Memory { file, .. } | Source::Pids { file, .. } | Source::Populated { file } => {
                (file.as_fd(), EpollFlags::EPOLLPRI)
            }
            Source::Pressure { _file, .. } => (_file.as_fd(), EpollFlags::EPOLLPRI),
            Source::Oom { event, .. } => (event.as_fd(), EpollFlags::EPOLLIN),
            Source::Process { pidfd } => (pidfd.as_fd(), EpollFlags::EPOLLIN),
        };
        self.epoll.add(fd, EpollEvent::new(flags, self.sources.len() as u64)).map_err(nix)?;
        self.sources.push(source);
        Ok(())
    }

    /// Waits at most this long (`None`: without bound) for the next event; `None` when the
    /// time is over, and for ever behind [`Event::Empty`].
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn next_timeout(&mut self, timeout: Option<Duration>) -> crate::Result<Option<Event>> {
        self.wait(timeout).map_err(|errno| crate::Error::call("wait for events of a sandbox", errno))
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<Option<Event>, Errno> {
        let start = Instant::now();
        loop {
            if let Some(event) = self.pending.pop_front() {
                self.ended |= event == Event::Empty;
                return Ok(Some(event));
            }
            if self.ended {
                return Ok(None);
            }
            let left = remaining(start, timeout);
            // a minute at a time, for the argument is an int of milliseconds; rounded up, lest it spin
            let millis = left.map_or(60_000, |left| left.as_micros().div_ceil(1000).min(60_000));
            let mut ready = [EpollEvent::empty(); 8];
            let timeout = EpollTimeout::try_from(millis as i32).unwrap_or(EpollTimeout::ZERO);
            let ready = match self.epoll.wait(&mut ready, timeout) {
                Ok(n) => ready[..n].to_vec(),
                Err(nix::errno::Errno::EINTR) => Vec::new(),
                Err(error) => return Err(nix(error)),
            };
            let mut empty = false;
            for event in &ready {
                let gone = event.events().contains(EpollFlags::EPOLLERR);
                empty |= self.look(event.data() as usize, gone);
            }
            if empty {
                self.look_last();
            }
            if ready.is_empty() && left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
        }
    }

    /// Finds out what has changed in a source: true when nobody is left. `gone`: its group has been removed.
    fn look(&mut self, index: usize, gone: bool) -> bool {
        let Events { epoll, sources, pending, group, .. } = self;
        match &mut sources[index] {
            Source::Memory { file, high, oom, kills } => {
                let text = read(file);
                let grown = |key, was: &mut u64| {
                    let now = count(&text, key);
                    let more = now.saturating_sub(*was);
                    *was = now.max(*was);
                    more
                };
                let (high, oom, kills) = (grown("high", high), grown("oom", oom), grown("oom_kill", kills));
                pending.extend((high > 0).then_some(Event::MemoryHigh));
                pending.extend((oom > 0).then_some(Event::OutOfMemory));
                pending.extend((kills > 0).then_some(Event::OomKill(kills)));
            }
            Source::Oom { event, file, kills } => {
                // the removal of the group is told in the same way, and counts one
                let removal = u64::from(read(file).is_empty());
                // EAGAIN: somebody has read it meanwhile, which nobody else can
                let told = event.read().is_ok_and(|told| told > removal);
                pending.extend(told.then_some(Event::OutOfMemory));
                pending.extend(new_kills(file, kills));
            }
            Source::Pids { file, refused } => pending.extend(new_refusals(file, refused)),
            Source::Populated { file } => return is_empty(file),
            Source::Pressure { trigger, .. } => pending.extend((!gone).then_some(Event::Pressure(*trigger))),
            Source::Process { .. } => {
                let occupied = |sources: &[Source]| match sources.iter().find_map(Source::populated) {
                    Some(file) => !is_empty(file),
                    None => group.as_ref().is_some_and(|group| super::control::is_occupied(group)),
                };
                if !occupied(sources) {
                    return true;
                }
                // others live on, outside of a pid namespace of the sandbox's own, for whose end v1 has no event
                std::thread::sleep(Duration::from_millis(10));
                if !occupied(sources) {
                    return true;
                }
                if let (Some(_), Source::Process { pidfd }) =
                    (sources.iter().find_map(Source::populated), &sources[index])
                {
                    let _ = epoll.delete(pidfd.as_fd()); // the group tells from here on
                }
            }
        }
        false
    }

    /// When nobody is left: v1 counts a kill after it has told of the want, and tells of no refusal; what v2 has not told yet
    /// is not told any more.
    fn look_last(&mut self) {
        for index in 0..self.sources.len() {
            match &mut self.sources[index] {
                Source::Oom { file, kills, .. } => self.pending.extend(new_kills(file, kills)),
                Source::Memory { .. } | Source::Pids { .. } => drop(self.look(index, false)),
                _ => {}
            }
        }
        self.pending.push_back(Event::Empty);
    }
}

impl Source {
    fn populated(&self) -> Option<&File> {
        if let Source::Populated { file } = self { Some(file) } else { None }
    }
}

/// Whether a v2 group has nobody in it, as its `cgroup.events` says; one that is gone has nobody.
fn is_empty(file: &File) -> bool {
    parse::value(&read(file), "populated") != Some(1)
}

fn new_kills(file: &File, kills: &mut u64) -> Option<Event> {
    let now = count(&read(file), "oom_kill");
    let more = now.saturating_sub(*kills);
    *kills = now.max(*kills);
    (more > 0).then_some(Event::OomKill(more))
}

fn new_refusals(file: &File, refused: &mut u64) -> Option<Event> {
    let now = count(&read(file), "max");
    let grown = now > *refused;
    *refused = now;
    grown.then_some(Event::PidsMax)
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl Iterator for Events {
    type Item = crate::Result<Event>;

    fn next(&mut self) -> Option<crate::Result<Event>> {
        loop {
            match self.next_timeout(None) {
                Ok(Some(event)) => return Some(Ok(event)),
                Ok(None) if self.ended => return None,
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_as_the_kernel_reads_them() {
        let (stall, window) = (Duration::from_millis(150), Duration::from_secs(1));
        assert_eq!(PressureTrigger::some(Resource::Memory, stall, window).line(), "some 150000 1000000");
        assert_eq!(PressureTrigger::full(Resource::Io, stall, window).line(), "full 150000 1000000");
        assert_eq!(PressureTrigger::full(Resource::Io, stall, window).file(), "io.pressure");
    }
}
