//! clone3(2) with an immediate execveat(2): a program in new namespaces, from any
//! thread of any process.
//!
//! The child shares the caller's memory until it executes (`CLONE_VM |
//! CLONE_VFORK`), so that nothing is copied, however much memory the caller has;
//! in that time it only arranges descriptors, and raises its capabilities. Since
//! Linux 5.5 (`CLONE_CLEAR_SIGHAND`; `CLONE_INTO_CGROUP` 5.7).
//!
//! Contract: <https://man7.org/linux/man-pages/man2/clone.2.html>.

use super::kernel::abi::*;
use super::kernel::raw::syscall;
use super::kernel::vfork::{Stack, vfork};
use super::kernel::{call, raw};
use super::namespace::NamespaceFlags;
use super::{Errno, Result};
use std::ffi::{CStr, c_char};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A program to start in new namespaces.
///
/// The program sees the descriptor `channel` as number 3 and
/// no other, blocked signals all, signal handlers none (ignored signals stay ignored),
/// one empty argument and no environment: it is meant for a small launcher that is told the rest over the
/// channel.
///
/// ```
/// use belljar::sys::{clone::CloneExec, memfd, namespace::NamespaceFlags, socket};
/// use std::os::fd::AsFd;
///
/// let program = std::fs::File::open("/bin/true")?;
/// let (ours, theirs) = socket::seqpacket_pair()?;
/// let child = CloneExec::new(program.as_fd(), theirs.as_fd()).spawn()?;
/// child.pidfd.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct CloneExec<'a> {
    program: BorrowedFd<'a>,
    channel: BorrowedFd<'a>,
    namespaces: NamespaceFlags,
    joins: Vec<(i32, u64)>,
    capabilities: u64,
    cgroup: Option<BorrowedFd<'a>>,
    tasks: Vec<i32>,
}

/// A started process.
#[derive(Debug)]
pub struct Cloned {
    /// Its number in the caller's pid namespace.
    pub pid: i32,
    /// The process itself.
    pub pidfd: super::pidfd::PidFd,
}

impl<'a> CloneExec<'a> {
    /// Starts `program` (a static or dynamic executable; not a script, for it has no
    /// path) with `channel` as its descriptor 3.
    pub fn new(program: BorrowedFd<'a>, channel: BorrowedFd<'a>) -> Self {
        CloneExec {
            program,
            channel,
            namespaces: NamespaceFlags::empty(),
            joins: Vec::new(),
            capabilities: u64::MAX,
            cgroup: None,
            tasks: Vec::new(),
        }
    }

    /// The namespaces to make. `TIME` cannot be made here (`EINVAL`): the program
    /// unshares it itself.
    pub fn namespaces(mut self, namespaces: NamespaceFlags) -> Self {
        self.namespaces = namespaces;
        self
    }

    /// Existing namespaces to join first, in this order, with the caller's rights. The new
    /// ones are then made by unshare(2), and `PID` cannot be among them (`EINVAL`).
    pub fn joins(mut self, namespaces: &[(BorrowedFd<'a>, NamespaceFlags)]) -> Self {
        self.joins = namespaces.iter().map(|(fd, kind)| (fd.as_raw_fd(), kind.bits())).collect();
        self
    }

    /// The capabilities (bits by number) that the program has in a new user namespace; all
    /// unless set. Each costs a system call.
    pub fn capabilities(mut self, capabilities: u64) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// The cgroup (a directory of a v2 hierarchy) to start in.
    pub fn cgroup(mut self, cgroup: BorrowedFd<'a>) -> Self {
        self.cgroup = Some(cgroup);
        self
    }

    /// The `tasks` files, open for writing, of groups of v1 hierarchies to start in: the child
    /// writes itself into each before it does anything else. (A `0` written by the one thread
    /// that moves is the way that does not wait for an RCU grace period, some 10 ms.)
    pub fn tasks(mut self, files: &[BorrowedFd<'a>]) -> Self {
        self.tasks = files.iter().map(AsRawFd::as_raw_fd).collect();
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// Those of clone3(2) and execveat(2): `EPERM` (no right to make a namespace),
    /// `ENOSPC` (a limit of `/proc/sys/user`, or 33 nested user namespaces),
    /// `EACCES` (the program's file system is `noexec`, or `vm.memfd_noexec` forbids it),
    /// `EAGAIN` (RLIMIT_NPROC, pids.max), `EBUSY`, `EACCES` or `ENOSPC` (a cgroup that cannot be entered), `EINVAL` (`TIME`; a flag that is no namespace).
    pub fn spawn(&self) -> Result<Cloned> {
        let joins = !self.joins.is_empty();
        let kinds = NamespaceFlags::all().bits();
        // retained foreign bits (CLONE_FILES) would let the child close the caller's descriptors
        let foreign = self.namespaces.bits() & !kinds != 0 || self.joins.iter().any(|(_, kind)| kind & !kinds != 0);
        let unable = NamespaceFlags::TIME | if joins { NamespaceFlags::PID } else { NamespaceFlags::empty() };
        if foreign || self.namespaces.intersects(unable) {
            return Err(Errno::EINVAL);
        }
        let (at_clone, unshare) = if joins { (0, self.namespaces.bits()) } else { (self.namespaces.bits(), 0) };
        let mut pidfd = -1i32;
        let user = self.namespaces.contains(NamespaceFlags::USER);
        let mut child = Child {
            program: self.program.as_raw_fd(),
            channel: self.channel.as_raw_fd(),
            tasks: &self.tasks,
            joins: &self.joins,
            unshare,
            raise: if user { self.capabilities } else { 0 },
            failed: None,
        };
        let mut args = CloneArgs {
            flags: at_clone | CLONE_FILES | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
            pidfd: &raw mut pidfd as u64,
            exit_signal: SIGCHLD as u64,
            ..CloneArgs::default()
        };
        if let Some(cgroup) = self.cgroup {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = cgroup.as_raw_fd() as u64;
        }
        // a few system calls, each a leaf: some hundred bytes in all
        let mut stack = Stack::<16384>::new();
        // No signal may be handled in the child, and none is lost: what arrives
        // meanwhile is delivered to this thread after the mask is back.
        let mask = call::sigmask_swap(u64::MAX)?;
        // SAFETY: `exec` keeps to what vfork demands; `child` lives in this frame, which
        // sleeps until the child has executed or ended.
        let answer = unsafe { vfork(&mut args, &mut stack, exec, (&raw mut child).cast()) };
        call::sigmask_swap(mask)?;
        let pid = answer?;
        // SAFETY: the kernel has just made this descriptor for us (CLONE_PIDFD).
        let pidfd = super::pidfd::PidFd::from(unsafe { OwnedFd::from_raw_fd(pidfd) });
        match child.failed {
            Some(errno) => {
                // it has ended without executing; whether we or a reaper of the host
                // takes its status makes no difference
                let _ = pidfd.wait();
                Err(errno)
            }
            None => Ok(Cloned { pid, pidfd }),
        }
    }
}

/// What the child needs, in the parent's frame.
struct Child<'a> {
    program: i32,
    channel: i32,
    tasks: &'a [i32],
    joins: &'a [(i32, u64)],
    unshare: u64,
    raise: u64,
    failed: Option<Errno>,
}

/// # Safety
/// `argument` points to a `Child` that outlives the call.
unsafe extern "C" fn exec(argument: *mut u8) -> ! {
    // SAFETY: `spawn` passes a pointer to its own `Child` and sleeps while we use it.
    let child = unsafe { &mut *argument.cast::<Child<'_>>() };
    if let Err(errno) = try_exec(child) {
        child.failed = Some(errno);
    }
    call::exit_group(127)
}

/// The number at which the program finds its channel.
const CHANNEL: i32 = 3;

fn try_exec(child: &Child<'_>) -> Result<()> {
    for file in child.tasks {
        call::write(*file, b"0")?;
    }
    for (fd, kind) in child.joins {
        call::setns(*fd, *kind)?;
    }
    if child.unshare != 0 {
        call::unshare(child.unshare)?;
    }
    // The table is the caller's until here; now a copy of what is needed, without the rest.
    let last = child.program.max(child.channel);
    call::close_range(last as u32 + 1, u32::MAX, CLOSE_RANGE_UNSHARE)?;
    let mut program = child.program;
    if program <= CHANNEL {
        program = call::fcntl(program, F_DUPFD_CLOEXEC, CHANNEL as usize + 1)?;
    }
    if child.channel == CHANNEL {
        call::fcntl(CHANNEL, F_SETFD, 0)?;
    } else {
        call::dup3(child.channel, CHANNEL, 0)?;
    }
    call::close_range(0, CHANNEL as u32 - 1, 0)?;
    if program > CHANNEL + 1 {
        call::close_range(CHANNEL as u32 + 1, program as u32 - 1, 0)?;
    }
    call::close_range(program as u32 + 1, u32::MAX, 0)?;
    if child.raise != 0 {
        raise_capabilities(child.raise)?;
    }
    let argv: [*const c_char; 2] = [c"".as_ptr(), std::ptr::null()];
    let envp: [*const c_char; 1] = [std::ptr::null()];
    let empty: &CStr = c"";
    // SAFETY: a C string and two NULL-terminated arrays, all alive until the call ends.
    unsafe { syscall!(execveat, program, empty.as_ptr(), argv.as_ptr(), envp.as_ptr(), AT_EMPTY_PATH) }?;
    Ok(())
}

/// An exec in a user namespace whose uid map is not written yet drops every
/// capability, as nobody is root there; ambient ones survive it (capabilities(7)).
fn raise_capabilities(wanted: u64) -> Result<()> {
    let (_, permitted, _) = call::capget()?;
    call::capset(permitted, permitted)?;
    for capability in 0..64 {
        if permitted & wanted & (1 << capability) != 0 {
            match call::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability) {
                // a capability that this kernel does not have
                Err(raw::Errno::EINVAL) => break,
                answer => answer?,
            };
        }
    }
    Ok(())
}
