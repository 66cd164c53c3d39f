//! The CPU time of a whole tree: by its cgroup, where it has one that counts; else what
//! this process has reaped (getrusage(2)), and for each process that lives its own clock
//! (clock_getcpuclockid(3)) and that of the children which it has reaped itself (proc(5): stat).
//!
//! Without a cgroup what nobody reaps is not counted: children of a process that ignores SIGCHLD vanish
//! with what they used. And without a proc of the sandbox's own only the payload is seen
//! while it lives.

use crate::decimal::Decimal;
use crate::sys::kernel::abi::*;
use crate::sys::kernel::call;
use crate::watch::PROC;
use core::ffi::CStr;

/// Looks are no closer together than this, however little is left, in microseconds.
const CLOSEST: u64 = 1_000;
/// While nothing is used, looks move apart up to this.
const FARTHEST: u64 = 20_000;

/// The meter of a tree.
pub struct Meter {
    payload: i32,
    /// Whether `PROC` is the file of a cgroup, and what that had counted at the start.
    group: bool,
    before: u64,
    cpus: u64,
    /// What was used at the last look.
    last: u64,
    /// The present distance between looks when little is left.
    pause: u64,
}

/// The proc of this pid namespace, if the root has one: opened before there is anybody who
/// could put something else in its place.
pub fn open_proc() -> i32 {
    let flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW;
    let Ok(fd) = call::openat(AT_FDCWD, c"/proc", flags, 0) else { return -1 };
    let mut own = [0u8; 16];
    let ours = call::fstatfs(fd).is_ok_and(|stat| stat.f_type == PROC_SUPER_MAGIC)
        && call::readlinkat(fd, c"self", &mut own).is_ok_and(|n| &own[..n] == b"1");
    if ours {
        return fd;
    }
    let _ = call::close(fd);
    -1
}

/// A file of the host's cgroup file system; -1 if it cannot be read.
pub fn open_group(path: &CStr) -> i32 {
    call::openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0).unwrap_or(-1)
}

/// What a cgroup has counted: `usage_usec N` first in v2's cpu.stat, nanoseconds alone in
/// v1's cpuacct.usage.
fn of_group() -> u64 {
    let mut text = [0u8; 64];
    if call::rewind(PROC).is_err() {
        return 0;
    }
    let n = call::read(PROC, &mut text).unwrap_or(0);
    let line = text[..n].split(|b| *b == b'\n').next().unwrap_or_default();
    let (text, unit) = match line.strip_prefix(b"usage_usec ") {
        Some(text) => (text, 1),
        None => (line, 1000),
    };
    number(text).unwrap_or(0) as u64 / unit
}

impl Meter {
    pub fn new(payload: i32, group: bool) -> Meter {
        let before = if group { of_group() } else { 0 };
        Meter { payload, group, before, cpus: 0, last: 0, pause: CLOSEST }
    }

    /// For how long all CPUs together cannot use up the limit, in microseconds; 0 when it
    /// is used up.
    pub fn rest(&mut self, limit: u64) -> u64 {
        if self.cpus == 0 {
            self.cpus = call::cpu_count().into();
        }
        let started = call::clock(CLOCK_MONOTONIC).unwrap_or(0);
        let used = self.used();
        if used >= limit {
            return 0;
        }
        self.pause = if used == self.last { (self.pause * 2).min(FARTHEST) } else { CLOSEST };
        self.last = used;
        // looking may take a tenth of the time at most
        let cost = call::clock(CLOCK_MONOTONIC).unwrap_or(0).saturating_sub(started);
        ((limit - used) / self.cpus).max(self.pause).max(10 * cost)
    }

    /// What all have used by now.
    fn used(&self) -> u64 {
        if self.group {
            return of_group().saturating_sub(self.before);
        }
        // first: who dies after it is missed in this look, not counted twice
        let reaped = call::getrusage(RUSAGE_CHILDREN).unwrap_or_default();
        let micros = |t: [i64; 2]| (t[0] * 1_000_000 + t[1]) as u64;
        let mut used = micros(reaped.utime) + micros(reaped.stime);
        if call::rewind(PROC).is_err() {
            return used + clock_of(self.payload);
        }
        let mut entries = [0u8; 2048];
        while let Ok(n @ 1..) = call::getdents64(PROC, &mut entries) {
            let mut at = 0;
            while at + 19 < n {
                // struct linux_dirent64: ino u64, off u64, reclen u16, type u8, name
                let len = u16::from_le_bytes([entries[at + 16], entries[at + 17]]) as usize;
                let name = entries[at + 19..(at + len).min(n)].split(|b| *b == 0).next();
                if let Some(pid @ 2..) = name.and_then(number) {
                    used += clock_of(pid as i32) + reaped_by(pid as i32);
                }
                at += len.max(1);
            }
        }
        used
    }
}

/// What a process itself has used: 0 when it is gone.
fn clock_of(pid: i32) -> u64 {
    call::clock(call::cpu_clock(pid)).unwrap_or(0)
}

/// What the children that a process has reaped had used: fields 16 and 17 of its stat, in
/// hundredths of a second (USER_HZ is 100 on all machines that this runs on).
fn reaped_by(pid: i32) -> u64 {
    let mut name = [0u8; 24];
    let Some(path) = stat_path(pid, &mut name) else { return 0 };
    let Ok(fd) = call::openat(PROC, path, O_RDONLY | O_CLOEXEC, 0) else { return 0 };
    let mut text = [0u8; 512];
    let n = call::read(fd, &mut text).unwrap_or(0);
    let _ = call::close(fd);
    // the second field is a name in parentheses, which may contain anything
    let Some(end) = text[..n].iter().rposition(|b| *b == b')') else { return 0 };
    let mut fields = text[end + 1..n].split(|b| *b == b' ').skip(16 - 2);
    let mut ticks = || fields.next().and_then(number).unwrap_or(0) as u64;
    (ticks() + ticks()) * 10_000
}

/// `PID/stat`.
fn stat_path(pid: i32, buffer: &mut [u8; 24]) -> Option<&CStr> {
    let mut digits = Decimal::new();
    let pid = digits.of(pid as u32 as u64).to_bytes();
    buffer[..pid.len()].copy_from_slice(pid);
    buffer[pid.len()..pid.len() + 6].copy_from_slice(b"/stat\0");
    CStr::from_bytes_until_nul(&buffer[..]).ok()
}

/// A decimal number, and nothing else.
fn number(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0i64, |n, b| b.is_ascii_digit().then(|| n * 10 + (b - b'0') as i64))
}
