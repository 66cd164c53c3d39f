//! Processes that enter a running sandbox: started here, by its init, so that nothing of the
//! host ever joins its namespaces.
//!
//! Each comes with a socket of its own, over which the library sends its Program and holds it: the
//! words are those of the control socket. Its end is reported there, and is nobody else's.

use crate::CONTROL;
use crate::limits::{self, Limits};
use crate::payload;
use crate::program::wire::codec::Header;
use crate::program::wire::op::Op;
use crate::program::wire::report::{Report, Request, Used, cause};
use crate::receive::{self, Received};
use crate::run::Ops;
use crate::state::{self, State, report, report_failure};
use crate::sys::kernel::abi::*;
use crate::sys::kernel::{Errno, Result, call};

/// The most at once: what one poll of the shim watches.
pub const MOST: usize = 64;

/// Those that run: a table that is never touched where nobody enters.
static mut LIST: [Process; MOST] =
    [Process { pid: 0, socket: 0, executed: 0, pidfd: 0, started: 0, wall_end: 0, kill_at: 0, grace: 0, cause: 0 };
        MOST];

/// Those that run.
pub struct Entered {
    list: &'static mut [Process; MOST],
    len: usize,
    devpts: i32,
    without: u32,
    /// Whether all are stopped, on request.
    pub frozen: bool,
}

#[derive(Clone, Copy)]
struct Process {
    pid: i32,
    /// -1 when its handle was given up.
    socket: i32,
    /// The pipe that its exec closes, and its pidfd, until it has executed; -1 then.
    executed: i32,
    pidfd: i32,
    started: u64,
    /// When its wall-clock time is over; 0 is never.
    wall_end: u64,
    /// When its grace is over, once it has been told to end; 0 before.
    kill_at: u64,
    /// Between SIGTERM and SIGKILL, when the time is over; in microseconds.
    grace: u64,
    /// Who asked for its end.
    cause: u32,
}

impl Entered {
    /// Nobody. `devpts`: where terminals are had; `without`: features of the kernel not to be used.
    ///
    /// # Safety
    /// To be called once, by the only thread.
    pub unsafe fn new(devpts: i32, without: u32) -> Entered {
        // SAFETY: the only reference to the static, as this is called once.
        Entered { list: unsafe { &mut *(&raw mut LIST) }, len: 0, devpts, without, frozen: false }
    }

    /// Begins the process whose Program comes over this socket: not beside those that are stopped.
    pub fn start(&mut self, socket: i32) {
        state::set_control(socket);
        let begun = match (self.frozen, self.len) {
            (true, _) => Err(Errno::EBUSY),
            (_, MOST) => Err(Errno::EMFILE),
            _ => self.begin(socket),
        };
        match begun {
            Ok(process) => {
                self.list[self.len] = process;
                self.len += 1;
            }
            Err(errno) => {
                report_failure(0, errno, b"");
                let _ = call::close(socket); // ours since the request
            }
        }
        state::set_control(CONTROL);
    }

    /// Receives the Program and runs it in a new process.
    fn begin(&mut self, socket: i32) -> Result<Process> {
        // SAFETY: this is the only thread, and who had a Program before has a copy of its own, or has executed.
        let Received { header, bytes, slots } = unsafe { receive::program(socket, true) }?;
        let mut state = State::new(slots, 0, header.without | self.without);
        let begun = self.split(socket, &header, bytes, &mut state);
        state.slots.close(header.fds); // the new process has its own
        receive::release(bytes);
        begun
    }

    fn split(&self, socket: i32, header: &Header, bytes: &'static [u8], state: &mut State) -> Result<Process> {
        let mut gone = [PollFd { fd: socket, events: 0, revents: 0 }];
        call::poll(&mut gone, Some([0, 0]))?;
        if gone[0].revents != 0 {
            return Err(Errno::EPIPE); // who wanted it waits no longer
        }
        let mut limits = Limits::default();
        for op in Ops::of(header, bytes) {
            if let Ok(Op::Limits { wall, cpu, grace }) = op {
                limits = Limits { wall, cpu, grace };
            }
        }
        let [executed, end] = call::pipe(O_CLOEXEC)?;
        (state.devpts, state.executed) = (self.devpts, end);
        let mut pidfd = -1i32;
        let args = CloneArgs {
            flags: CLONE_PIDFD,
            pidfd: &raw mut pidfd as u64,
            exit_signal: SIGCHLD as u64,
            ..CloneArgs::default()
        };
        let split = payload::split_copy(&mut Ops::of(header, bytes), state, &args);
        let _ = call::close(end); // ours: the process has its own
        match split {
            Ok(pid) => {
                let started = limits::now();
                let wall_end = if limits.wall == 0 { 0 } else { started.saturating_add(limits.wall) };
                let grace = limits.grace;
                Ok(Process { pid, socket, executed, pidfd, started, wall_end, kill_at: 0, grace, cause: cause::NONE })
            }
            Err(errno) => {
                let _ = call::close(executed); // ours
                Err(errno)
            }
        }
    }

    /// Fills in what is to be polled; gives how many.
    pub fn watched(&self, fds: &mut [PollFd]) -> usize {
        let all = self.list[..self.len].iter().flat_map(|process| [process.socket, process.executed]);
        let mut count = 0;
        for (to, fd) in fds.iter_mut().zip(all.filter(|fd| *fd >= 0)) {
            *to = PollFd { fd, events: POLLIN, revents: 0 };
            count += 1;
        }
        count
    }

    /// Does what there is to do about one of them.
    pub fn event(&mut self, fd: i32) {
        match self.list[..self.len].iter_mut().find(|process| process.executed == fd) {
            Some(process) => process.has_executed(),
            None => self.request(fd),
        }
    }

    /// Does what the library asks on one of the sockets.
    fn request(&mut self, socket: i32) {
        let frozen = self.frozen;
        let Some(process) = self.list[..self.len].iter_mut().find(|process| process.socket == socket) else { return };
        let mut packet = [0u8; 8];
        match call::receive(socket, &mut packet, MSG_DONTWAIT, |fd| drop(call::close(fd))) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Ok(8) => match Request::decode(&packet) {
                Some(Request::Signal(SIGKILL) | Request::KillInit) => process.kill(process.pid, cause::HANDLE),
                Some(Request::Signal(signal)) => drop(call::kill(process.pid, signal)),
                Some(Request::Detach) => process.let_go(),
                Some(Request::Kill(cause)) => process.kill(-process.pid, cause),
                Some(Request::Terminate(grace)) => process.terminate(cause::HANDLE, u64::from(grace) * 1000, frozen),
                _ => process.kill(-process.pid, cause::HANDLE),
            },
            _ => {
                // closed: whoever wanted it is gone
                process.kill(-process.pid, cause::HANDLE);
                process.let_go();
            }
        }
    }

    /// How long nothing can come due.
    pub fn idle(&self) -> Option<[i64; 2]> {
        self.list[..self.len].iter().map(Process::due_at).filter(|at| *at != 0).min().map(limits::until)
    }

    /// Whether the time of one is over.
    pub fn is_due(&self) -> bool {
        let mut times = self.list[..self.len].iter().map(Process::due_at).filter(|at| *at != 0);
        times.next().is_some_and(|first| times.fold(first, u64::min) <= limits::now())
    }

    /// Ends those whose time is over.
    pub fn come(&mut self) {
        let (now, frozen) = (limits::now(), self.frozen);
        for process in self.list[..self.len].iter_mut().filter(|one| one.due_at() != 0 && one.due_at() <= now) {
            if process.kill_at != 0 {
                process.kill(-process.pid, process.cause);
            } else {
                process.terminate(cause::WALL_TIME, process.grace, frozen);
            }
        }
    }

    /// Reports the end of one of them, if `pid` is one. `cause`: why all are ended, if they are.
    pub fn exited(&mut self, pid: i32, status: i32, usage: &Rusage, cause: u32) {
        let Some(at) = self.list[..self.len].iter().position(|process| process.pid == pid) else { return };
        let mut process = self.list[at];
        process.has_executed();
        self.len -= 1;
        self.list[at] = self.list[self.len];
        if process.socket < 0 {
            return;
        }
        let told = process.kill_at != 0; // then its end is ours, whichever it is
        let cause = match (told || status & 0x7f == SIGKILL, process.cause) {
            (false, _) => cause::NONE,
            (true, cause::NONE) => cause,
            (true, own) => own,
        };
        state::set_control(process.socket);
        report(Report::Exited { status, cause }, &[]);
        let wall = limits::now().saturating_sub(process.started) as i64;
        report(Report::Used(Used { wall, ..Used::of(usage) }), &[]);
        state::set_control(CONTROL);
        process.let_go();
    }
}

impl Process {
    /// When something is to be done about it; 0 is never.
    fn due_at(&self) -> u64 {
        if self.kill_at != 0 { self.kill_at } else { self.wall_end }
    }

    /// Tells it to end, and kills it later; one that was told before can only get less time.
    fn terminate(&mut self, cause: u32, grace: u64, frozen: bool) {
        if grace == 0 {
            return self.kill(-self.pid, cause);
        }
        let end = limits::now().saturating_add(grace);
        if self.kill_at != 0 {
            self.kill_at = self.kill_at.min(end);
            return;
        }
        (self.kill_at, self.cause) = (end, cause);
        let _ = call::kill(self.pid, SIGTERM); // ESRCH: it has ended, and is reaped next
        if !frozen {
            let _ = call::kill(self.pid, SIGCONT); // else a stopped one would never hear it
        }
    }

    /// The process has executed its program, or has ended: then it has reported why before.
    fn has_executed(&mut self) {
        if self.executed < 0 {
            return;
        }
        state::set_control(self.socket);
        report(Report::Started { pid: self.pid }, &[self.pidfd]);
        state::set_control(CONTROL);
        let _ = (call::close(self.executed), call::close(self.pidfd)); // ours
        (self.executed, self.pidfd) = (-1, -1);
    }

    /// Kills it, or the process group of its session. What it has started elsewhere ends with the sandbox.
    fn kill(&mut self, pid: i32, cause: u32) {
        if self.kill_at == 0 {
            self.cause = cause;
        }
        (self.wall_end, self.kill_at) = (0, 0);
        let _ = call::kill(pid, SIGKILL); // ESRCH: it has ended, and is reaped next
        let _ = call::kill(self.pid, SIGKILL);
    }

    fn let_go(&mut self) {
        let _ = call::close(self.socket); // ours since the request
        self.socket = -1;
    }
}
