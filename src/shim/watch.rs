//! PID 1: forwards signals, reaps orphans, reports the payload's exit, and ends
//! with the host.
//!
//! Its end is the sandbox's: when the init of a pid namespace exits, the kernel
//! kills every other process in it (pid_namespaces(7)). Where the sandbox has no pid
//! namespace of its own, the shim is its child subreaper and kills them itself.

use crate::CONTROL;
use crate::enter::{self, Entered};
use crate::limits::{self, Due, Limits, Watch};
use crate::meter;
use crate::payload::Payload;
use crate::program::wire::report::{Report, Request, Used, cause};
use crate::state::{State, report};
use crate::sys::kernel::abi::*;
use crate::sys::kernel::{Errno, Result, call};

/// What the shim watches: low numbers, so that all others can be closed at once.
const HOST: i32 = 4;
const SIGNALS: i32 = 5;
const CHILDREN: i32 = 6;
/// Not watched: a lock that lasts as long as this process.
const LOCK: i32 = 7;
/// Not watched: the file of the cgroup, or the proc, in which the CPU time of all processes is looked up.
pub const PROC: i32 = 8;
/// The root of the sandbox's devpts, for those who enter.
const DEVPTS: i32 = 9;

/// Ready to watch.
pub struct Watched {
    host: i32,
    signals: i32,
    children: i32,
    lock: i32,
    proc: i32,
    devpts: i32,
    init: bool,
    limits: Limits,
    /// When the payload was about to start.
    started: u64,
    /// Whether a cgroup counts the CPU time.
    counted: bool,
    keep: u64,
    without: u32,
}

impl Watched {
    /// Opens what will be watched, before there is a child to miss.
    pub fn prepare(state: &mut State, payload: &Payload) -> Result<Watched> {
        let (host, lock) = (state.get(payload.host)?, state.get(payload.lock).unwrap_or(-1));
        // All signals are blocked since before the clone; a blocked signal is delivered
        // to the signalfd even though PID 1 ignores what it does not handle.
        let signals = call::signalfd(&u64::MAX, SFD_CLOEXEC | SFD_NONBLOCK)?;
        let init = call::getpid()? == 1;
        let mut children = -1;
        if !init {
            call::prctl(PR_SET_CHILD_SUBREAPER, 1, 0)?;
            // Without CONFIG_PROC_CHILDREN the payload's session is what can be killed.
            state.open_children();
            children = state.children;
        }
        let limits = state.limits;
        let counted = state.meter >= 0;
        let proc = match counted {
            true => state.meter,
            false if init && limits.cpu != 0 => meter::open_proc(),
            false => -1,
        };
        let (devpts, keep, without) = (state.devpts, payload.keep, state.without);
        Ok(Watched {
            host,
            signals,
            children,
            lock,
            proc,
            devpts,
            init,
            limits,
            started: limits::now(),
            counted,
            keep,
            without,
        })
    }

    /// Lets go of everything else, reports the start, and watches until the payload, the host or the handle is gone.
    pub fn watch(self, payload: i32) -> ! {
        let Watched { host, signals, children, lock, proc, devpts, init, limits, started, counted, keep, without } =
            self;
        // Each copy lands above the fixed numbers first, lest it overwrite the next.
        let fixed =
            [(host, HOST), (signals, SIGNALS), (children, CHILDREN), (lock, LOCK), (proc, PROC), (devpts, DEVPTS)];
        let mut high = [-1; 6];
        for (to, (fd, _)) in high.iter_mut().zip(fixed) {
            *to = call::fcntl(fd, F_DUPFD_CLOEXEC, 16).unwrap_or(-1);
        }
        for (fd, (_, number)) in high.iter().zip(fixed) {
            if call::dup3(*fd, number, O_CLOEXEC).is_err() {
                let _ = call::close(number); // absent: poll and read will say EBADF
            }
        }
        let _ = call::close_range(DEVPTS as u32 + 1, u32::MAX, 0);
        let _ = call::close_range(0, 2, 0);
        // What is left to do here takes no privilege but to signal the payload, whatever its uid,
        // and to give those who enter their ids, capabilities and terminals.
        let _ = call::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0);
        if let Ok((_, permitted, _)) = call::capget() {
            let _ = call::capset(
                permitted & (1 << CAP_CHOWN | 1 << CAP_KILL | 1 << CAP_SETUID | 1 << CAP_SETGID | keep),
                0,
            );
        }
        let limits = Watch::start(limits, payload, started, counted);
        report(Report::Started { pid: payload }, &[]);
        // SAFETY: the only thread is here once: this function does not return.
        let entered = unsafe { Entered::new(DEVPTS, without) };
        let (cause, detached, terminated, more) = (cause::NONE, false, false, false);
        let mut tree = Tree { payload, init, started, wall: 0, detached, cause, terminated, more, limits, entered };
        loop {
            tree.turn();
        }
    }
}

/// The most that is done about one kind of event before the others are looked at.
const SOME: usize = 64;

/// A child that has ended; pid 0 where none has. One that asked its parent to trace it (PTRACE_TRACEME) stops for us at its
/// signals, which wait4 tells as well: it goes on as if nobody traced it.
fn ended(which: i32) -> Result<(i32, i32, Rusage)> {
    for _ in 0..SOME {
        let (pid, status, usage) = call::wait4(which, WNOHANG)?;
        // wait(2): stopped, by the signal in the next byte
        if pid == 0 || status & 0xff != 0x7f {
            return Ok((pid, status, usage));
        }
        let signal = status >> 8 & 0x7f;
        let _ = call::ptrace_detach(pid, if signal == SIGTRAP { 0 } else { signal }); // ESRCH: killed meanwhile
    }
    Ok((0, 0, Rusage::default()))
}

struct Tree {
    payload: i32,
    init: bool,
    started: u64,
    /// How long it has run, when it has ended.
    wall: u64,
    detached: bool,
    /// Why the payload is being ended, if it is.
    cause: u32,
    /// Whether it has been told so by SIGTERM: then its end is ours, whichever it is.
    terminated: bool,
    /// Whether there is more to reap than was at once.
    more: bool,
    limits: Watch,
    /// The other processes that the host holds.
    entered: Entered,
}

impl Tree {
    fn turn(&mut self) {
        let watched = |fd| PollFd { fd, events: POLLIN, revents: 0 };
        let mut fds = [watched(-1); 3 + 2 * enter::MOST];
        fds[..3].copy_from_slice(&[watched(SIGNALS), watched(CONTROL), watched(HOST)]);
        if self.detached {
            fds[1].fd = -1;
            fds[2].fd = -1;
        }
        let entered = self.entered.watched(&mut fds[3..]);
        let fds = &mut fds[..3 + entered];
        let idle = [self.limits.idle(), self.entered.idle()].into_iter().flatten().min();
        match call::poll(fds, if self.more { Some([0, 0]) } else { idle }) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => self.kill(cause::NONE), // blind, it can hold nothing
        }
        if fds[0].revents != 0 {
            self.signals();
        }
        if self.more {
            self.reap();
        }
        for fd in fds[3..].iter().filter(|fd| fd.revents != 0) {
            self.reap(); // what has ended by now has done so by itself
            self.entered.event(fd.fd);
        }
        if fds[1].revents != 0 {
            let _ = self.request(); // whether there was one
        }
        if fds[2].revents != 0 && !self.detached {
            while self.request() {} // its last words may have been to let go
            if !self.detached {
                self.kill(cause::HOST_DIED);
            }
        }
        let due = self.limits.due();
        self.come(due);
        if self.entered.is_due() {
            self.reap();
            self.entered.come();
        }
    }

    /// What the limits have come to.
    fn come(&mut self, due: Due) {
        match due {
            Due::Nothing => {}
            Due::Kill(cause) => self.kill(cause),
            Due::Terminate(cause) => {
                self.reap();
                self.cause = cause;
                self.terminated = true;
                let _ = call::kill(self.payload, SIGTERM);
                if !self.entered.frozen {
                    let _ = call::kill(self.payload, SIGCONT); // else a stopped one would never hear it
                }
            }
        }
    }

    /// Forwards what was sent to this process from outside; reaps on SIGCHLD. Not more than some
    /// at once: whoever floods us does not keep us from the rest.
    fn signals(&mut self) {
        let mut info = [0u8; 128]; // struct signalfd_siginfo: ssi_signo, ssi_errno, ssi_code, ssi_pid …
        for _ in 0..SOME {
            let Ok(128) = call::read(SIGNALS, &mut info) else { return };
            let word = |at: usize| i32::from_le_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
            // seen from a pid namespace, who is outside has no number
            let ours = !self.init || word(12) == 0;
            match word(0) {
                SIGCHLD => self.reap(),
                SIGCONT if self.entered.frozen => {}
                signal if ours => drop(call::kill(self.payload, signal)),
                _ => {}
            }
        }
    }

    fn reap(&mut self) {
        if let Ok((1.., status, usage)) = ended(self.payload) {
            self.over(status, &usage);
        }
        for _ in 0..SOME {
            match ended(-1) {
                Ok((pid @ 1.., status, usage)) if pid == self.payload => self.over(status, &usage),
                Ok((pid @ 1.., status, usage)) => self.entered.exited(pid, status, &usage, self.cause),
                _ => {
                    self.more = false;
                    return;
                }
            }
        }
        self.more = true;
    }

    /// Does what the host asks; false when it asks nothing.
    fn request(&mut self) -> bool {
        let mut packet = [0u8; 8];
        let mut came = -1;
        let answer = call::receive(CONTROL, &mut packet, MSG_DONTWAIT, |fd| {
            let _ = call::close(core::mem::replace(&mut came, fd)); // EBADF for the -1
        });
        match answer {
            Ok(8) => match Request::decode(&packet) {
                Some(Request::Enter) => self.entered.start(came),
                Some(Request::Signal(SIGKILL) | Request::KillInit) => self.kill_payload(cause::HANDLE),
                Some(Request::Signal(signal)) => drop(call::kill(self.payload, signal)),
                Some(Request::Detach) => self.detached = true,
                Some(Request::Freeze) => self.stop_all(SIGSTOP),
                Some(Request::Thaw) => self.stop_all(SIGCONT),
                Some(Request::Kill(cause)) => self.kill(cause),
                Some(Request::Terminate(grace)) => {
                    let due = self.limits.terminate(cause::HANDLE, u64::from(grace) * 1000);
                    self.come(due);
                }
                None => self.kill(cause::HANDLE),
            },
            // EMFILE: it wanted to pass a descriptor for which there is no room
            Err(Errno::EMFILE) => drop(call::close(came)),
            Err(Errno::EAGAIN | Errno::EINTR) => return false,
            // closed: the handle is gone, and with it whoever wanted this sandbox
            _ => self.kill(cause::HANDLE),
        }
        true
    }

    /// SIGSTOP or SIGCONT to everybody: kill(2) with -1 reaches all processes of the pid
    /// namespace but its init, and none that is being forked slips through (fork(2) starts
    /// over when a signal is pending).
    fn stop_all(&mut self, signal: i32) {
        let errno = match self.init {
            true => call::kill(-1, signal).err().map_or(0, |errno| errno.0),
            false => Errno::EOPNOTSUPP.0,
        };
        self.entered.frozen = signal == SIGSTOP && errno == 0;
        report(Report::Answer { errno }, &[]);
    }

    /// Kills the payload. One that has exited by now has done so by itself.
    fn kill_payload(&mut self, cause: u32) {
        self.reap();
        if !self.terminated {
            self.cause = cause;
        }
        let _ = call::kill(self.payload, SIGKILL); // reaped on the SIGCHLD that follows
    }

    /// Kills everything, and ends.
    fn kill(&mut self, cause: u32) -> ! {
        self.kill_payload(cause);
        if self.init {
            let _ = call::kill(-1, SIGKILL);
        }
        // one that the signal does not reach is killed by the kernel when this process ends
        let (status, usage) = self.next_dead(self.payload).unwrap_or((SIGKILL, Rusage::default()));
        self.over(status, &usage)
    }

    /// The status of a child that dies within a second. Not waited for longer: a set-uid
    /// program need not be within reach of our signals, and the kernel may hold a process.
    fn next_dead(&mut self, which: i32) -> Option<(i32, Rusage)> {
        loop {
            match ended(which) {
                Ok((0, ..)) => {}
                Ok((pid, status, usage)) => {
                    self.entered.exited(pid, status, &usage, self.cause);
                    return Some((status, usage));
                }
                Err(_) => return None,
            }
            match call::poll(&mut [PollFd { fd: SIGNALS, events: POLLIN, revents: 0 }], Some([1, 0])) {
                Ok(0) | Err(_) => return None,
                Ok(_) => while call::read(SIGNALS, &mut [0u8; 128]).is_ok() {},
            }
        }
    }

    /// Reports the payload's end, which is the sandbox's.
    fn over(&mut self, status: i32, usage: &Rusage) -> ! {
        // wait(2): the low seven bits are the signal, the next byte the code
        let signal = status & 0x7f;
        // what exited before the signal arrived has not been ended by it
        let cause = match self.cause {
            cause::NONE if limits::was_cpu_seconds(signal, usage) => cause::CPU_TIME,
            cause if signal == SIGKILL || self.terminated => cause,
            _ => cause::NONE,
        };
        report(Report::Exited { status, cause }, &[]);
        self.wall = limits::now().saturating_sub(self.started);
        self.end(if signal == 0 { status >> 8 & 0xff } else { 128 + signal });
    }

    /// Ends the sandbox. All are reaped first, so that what they used is known.
    fn end(&mut self, code: i32) -> ! {
        if self.init {
            // Once: nobody forks with a kill pending, and each call looks at all processes that there are.
            let _ = call::kill(-1, SIGKILL); // ESRCH: nobody is left
            while self.next_dead(-1).is_some() {}
        } else {
            self.kill_descendants();
        }
        if let Ok(usage) = call::getrusage(RUSAGE_CHILDREN) {
            report(Report::Used(Used { wall: self.wall as i64, ..Used::of(&usage) }), &[]);
        }
        call::exit_group(code)
    }

    /// Kills until there is no child left. Children of the dead come to this
    /// process, their subreaper, and are killed in the next round.
    #[inline(never)]
    fn kill_descendants(&mut self) {
        let mut list = [0u8; 4096];
        let _ = call::kill(-self.payload, SIGKILL); // its session's first process group
        let _ = call::kill(self.payload, SIGKILL);
        loop {
            let _ = call::rewind(CHILDREN);
            let read = call::read(CHILDREN, &mut list).unwrap_or(0);
            for word in list[..read].split(|b| *b == b' ').filter(|w| !w.is_empty()) {
                let pid = word.iter().fold(0i32, |n, d| n.wrapping_mul(10).wrapping_add((*d as i32) - 48));
                // a number cut at the end of the buffer may be another process's: leave it to the next round
                if read < list.len() || word.as_ptr_range().end < list.as_ptr_range().end {
                    let _ = call::kill(pid, SIGKILL);
                }
            }
            if self.next_dead(-1).is_none() {
                return;
            }
            // all that have died by now, before the list is looked through again
            while let Ok((pid @ 1.., status, usage)) = ended(-1) {
                self.entered.exited(pid, status, &usage, self.cause);
            }
        }
    }
}
