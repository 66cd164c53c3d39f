//! One function a system call, over plain integers and C strings.
//!
//! These are memory-safe but know nothing of ownership: a descriptor is a
//! number. The typed functions of [`crate::sys`] add that for the library; the
//! shim, alone in its address space, uses these as they are.
#![allow(dead_code, missing_docs)]

use super::abi::*;
use super::raw::{Errno, Result, syscall};
use core::ffi::CStr;

/// `fn name(arguments) -> i32 = call, raw arguments…;`
macro_rules! calls {
    ($( $(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*) = $nr:ident $(, $raw:expr)* ; )*) => { $(
        $(#[$doc])*
        pub fn $name($($arg: $ty),*) -> Result<i32> {
            // SAFETY: every pointer below comes from a reference that outlives the
            // call, with the length passed beside it or a terminating NUL.
            unsafe { syscall!($nr $(, $raw)*) }.map(|value| value as i32)
        }
    )* };
}

calls! {
    /// close(2).
    close(fd: i32) = close, fd as isize;
    /// close_range(2), Linux 5.9.
    close_range(first: u32, last: u32, flags: u32) = close_range, first, last, flags;
    /// dup3(2).
    dup3(old: i32, new: i32, flags: i32) = dup3, old as isize, new as isize, flags;
    /// fcntl(2) with an integer argument.
    fcntl(fd: i32, cmd: i32, arg: usize) = fcntl, fd as isize, cmd, arg;
    /// openat(2).
    openat(dir: i32, path: &CStr, flags: i32, mode: u32) = openat, dir as isize, path.as_ptr(), flags, mode;
    /// openat2(2), Linux 5.6.
    openat2(dir: i32, path: &CStr, how: &OpenHow) =
        openat2, dir as isize, path.as_ptr(), core::ptr::from_ref(how), size_of::<OpenHow>();
    /// mkdirat(2).
    mkdirat(dir: i32, path: &CStr, mode: u32) = mkdirat, dir as isize, path.as_ptr(), mode;
    /// mknodat(2).
    mknodat(dir: i32, path: &CStr, mode: u32, dev: u32) = mknodat, dir as isize, path.as_ptr(), mode, dev;
    /// unlinkat(2).
    unlinkat(dir: i32, path: &CStr, flags: u32) = unlinkat, dir as isize, path.as_ptr(), flags;
    /// symlinkat(2).
    symlinkat(target: &CStr, dir: i32, path: &CStr) = symlinkat, target.as_ptr(), dir as isize, path.as_ptr();
    /// fchmod(2).
    fchmod(fd: i32, mode: u32) = fchmod, fd as isize, mode;
    /// fchown(2).
    fchown(fd: i32, uid: u32, gid: u32) = fchown, fd as isize, uid, gid;
    /// fchmodat(2), which follows symbolic links.
    fchmodat(dir: i32, path: &CStr, mode: u32) = fchmodat, dir as isize, path.as_ptr(), mode;
    /// setxattr(2).
    setxattr(path: &CStr, name: &CStr, value: &[u8]) =
        setxattr, path.as_ptr(), name.as_ptr(), value.as_ptr(), value.len(), 0;
    /// fsetxattr(2).
    fsetxattr(fd: i32, name: &CStr, value: &[u8]) =
        fsetxattr, fd as isize, name.as_ptr(), value.as_ptr(), value.len(), 0;
    /// syncfs(2).
    syncfs(fd: i32) = syncfs, fd as isize;
    /// flock(2).
    flock(fd: i32, operation: u32) = flock, fd as isize, operation;
    /// chdir(2).
    chdir(path: &CStr) = chdir, path.as_ptr();
    /// fchdir(2).
    fchdir(fd: i32) = fchdir, fd as isize;
    /// chroot(2).
    chroot(path: &CStr) = chroot, path.as_ptr();
    /// pivot_root(2).
    pivot_root(new: &CStr, old: &CStr) = pivot_root, new.as_ptr(), old.as_ptr();
    /// umount2(2).
    umount2(path: &CStr, flags: usize) = umount2, path.as_ptr(), flags;
    /// open_tree(2), Linux 5.2.
    open_tree(dir: i32, path: &CStr, flags: u32) = open_tree, dir as isize, path.as_ptr(), flags;
    /// move_mount(2), Linux 5.2.
    move_mount(from: i32, from_path: &CStr, to: i32, to_path: &CStr, flags: u32) =
        move_mount, from as isize, from_path.as_ptr(), to as isize, to_path.as_ptr(), flags;
    /// fsopen(2), Linux 5.2.
    fsopen(fstype: &CStr, flags: u32) = fsopen, fstype.as_ptr(), flags;
    /// fsmount(2), Linux 5.2.
    fsmount(fs: i32, flags: u32, attributes: u64) = fsmount, fs as isize, flags, attributes;
    /// mount_setattr(2), Linux 5.12.
    mount_setattr(dir: i32, path: &CStr, flags: u32, attr: &MountAttr) =
        mount_setattr, dir as isize, path.as_ptr(), flags, core::ptr::from_ref(attr), size_of::<MountAttr>();
    /// unshare(2).
    unshare(flags: u64) = unshare, flags;
    /// setns(2).
    setns(fd: i32, kind: u64) = setns, fd as isize, kind;
    /// sethostname(2).
    sethostname(name: &[u8]) = sethostname, name.as_ptr(), name.len();
    /// setdomainname(2).
    setdomainname(name: &[u8]) = setdomainname, name.as_ptr(), name.len();
    /// setresuid(2).
    setresuid(uid: u32) = setresuid, uid, uid, uid;
    /// setresgid(2).
    setresgid(gid: u32) = setresgid, gid, gid, gid;
    /// setgroups(2).
    setgroups(groups: &[u32]) = setgroups, groups.len(), groups.as_ptr();
    /// setsid(2).
    setsid() = setsid;
    /// lseek(2) to the beginning.
    rewind(fd: i32) = lseek, fd as isize, 0, 0;
    /// umask(2).
    umask(mask: u32) = umask, mask;
    /// getpid(2).
    getpid() = getpid;
    /// kill(2).
    kill(pid: i32, signal: i32) = kill, pid as isize, signal;
    /// pidfd_open(2), Linux 5.3.
    pidfd_open(pid: i32, flags: u32) = pidfd_open, pid as isize, flags;
    /// pidfd_send_signal(2), Linux 5.1.
    pidfd_send_signal(pidfd: i32, signal: i32) = pidfd_send_signal, pidfd as isize, signal, 0, 0;
    /// prctl(2) with integer arguments.
    prctl(option: usize, a: usize, b: usize) = prctl, option, a, b, 0, 0;
    /// prctl(2) `PR_SET_NAME`.
    set_name(name: &CStr) = prctl, PR_SET_NAME, name.as_ptr(), 0, 0, 0;
    /// keyctl(2) `KEYCTL_JOIN_SESSION_KEYRING`: a new keyring without a name.
    new_session_keyring() = keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0;
    /// landlock_restrict_self(2), Linux 5.13.
    landlock_restrict_self(ruleset: i32) = landlock_restrict_self, ruleset as isize, 0;
    /// socket(2).
    socket(domain: i32, kind: i32, protocol: i32) = socket, domain, kind, protocol;
    /// sched_setaffinity(2) of the calling thread.
    sched_setaffinity(mask: &[u8]) = sched_setaffinity, 0, mask.len(), mask.as_ptr();
    /// sched_setattr(2) of the calling thread, Linux 3.14.
    sched_setattr(attr: &SchedAttr) = sched_setattr, 0, core::ptr::from_ref(attr), 0;
    /// ioprio_set(2) of the calling thread.
    ioprio_set(priority: u32) = ioprio_set, IOPRIO_WHO_PROCESS, 0, priority;
    /// ioprio_get(2) of the calling thread.
    ioprio_get() = ioprio_get, IOPRIO_WHO_PROCESS, 0;
    /// memfd_create(2), Linux 3.17.
    memfd_create(name: &CStr, flags: u32) = memfd_create, name.as_ptr(), flags;
    /// rt_sigprocmask(2) with a mask of 64 signals.
    sigmask(how: u32, set: &u64) = rt_sigprocmask, how, core::ptr::from_ref(set), 0, 8;
    /// signalfd4(2).
    signalfd(set: &u64, flags: u32) = signalfd4, -1isize, core::ptr::from_ref(set), 8, flags;
}

/// read(2).
pub fn read(fd: i32, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes at most `len` bytes into the slice.
    unsafe { syscall!(read, fd as isize, buffer.as_mut_ptr(), buffer.len()) }
}

/// write(2).
pub fn write(fd: i32, bytes: &[u8]) -> Result<usize> {
    // SAFETY: the kernel reads `len` bytes of the slice.
    unsafe { syscall!(write, fd as isize, bytes.as_ptr(), bytes.len()) }
}

/// Writes all of `bytes`.
pub fn write_all(fd: i32, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match write(fd, bytes) {
            Ok(0) => return Err(Errno::EIO),
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// fgetxattr(2).
pub fn fgetxattr(fd: i32, name: &CStr, value: &mut [u8]) -> Result<usize> {
    // SAFETY: `name` is a C string; the kernel writes at most `len` bytes into the slice.
    unsafe { syscall!(fgetxattr, fd as isize, name.as_ptr(), value.as_mut_ptr(), value.len()) }
}

/// flistxattr(2).
pub fn flistxattr(fd: i32, list: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes at most `len` bytes into the slice.
    unsafe { syscall!(flistxattr, fd as isize, list.as_mut_ptr(), list.len()) }
}

/// readlinkat(2).
pub fn readlinkat(dir: i32, path: &CStr, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes at most `len` bytes into the slice.
    unsafe { syscall!(readlinkat, dir as isize, path.as_ptr(), buffer.as_mut_ptr(), buffer.len()) }
}

/// getdents64(2).
pub fn getdents64(fd: i32, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes at most `len` bytes into the slice.
    unsafe { syscall!(getdents64, fd as isize, buffer.as_mut_ptr(), buffer.len()) }
}

/// statx(2), Linux 4.11; `flags` are `AT_…`.
pub fn statx(dir: i32, path: &CStr, flags: u32) -> Result<Statx> {
    let mut stat = Statx::ZERO;
    let mask = STATX_BASIC_STATS | STATX_MNT_ID;
    // SAFETY: the kernel writes one `struct statx`, which `Statx` mirrors.
    unsafe { syscall!(statx, dir as isize, path.as_ptr(), flags, mask, &raw mut stat) }?;
    Ok(stat)
}

/// statx(2) of an open descriptor.
pub fn fstat(fd: i32) -> Result<Statx> {
    statx(fd, c"", AT_EMPTY_PATH)
}

/// fstatfs(2).
pub fn fstatfs(fd: i32) -> Result<StatFs> {
    let mut stat = core::mem::MaybeUninit::<StatFs>::zeroed();
    // SAFETY: the kernel writes one `struct statfs`, which `StatFs` mirrors; all-zero
    // bytes are a valid `StatFs` besides.
    unsafe {
        syscall!(fstatfs, fd as isize, stat.as_mut_ptr())?;
        Ok(stat.assume_init())
    }
}

/// mount(2); an absent string is NULL.
pub fn mount(
    source: Option<&CStr>,
    target: &CStr,
    fstype: Option<&CStr>,
    flags: usize,
    data: Option<&CStr>,
) -> Result<()> {
    let pointer = |s: Option<&CStr>| s.map_or(core::ptr::null(), CStr::as_ptr);
    // SAFETY: each pointer is NULL or a C string that outlives the call.
    unsafe { syscall!(mount, pointer(source), target.as_ptr(), pointer(fstype), flags, pointer(data)) }?;
    Ok(())
}

/// fsconfig(2) `FSCONFIG_SET_STRING`, Linux 5.2; the value is at most 255 bytes.
pub fn fsconfig_string(fs: i32, key: &CStr, value: &CStr) -> Result<()> {
    // SAFETY: both are C strings that outlive the call.
    unsafe { syscall!(fsconfig, fs as isize, FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr(), 0) }?;
    Ok(())
}

/// fsconfig(2) `FSCONFIG_SET_FLAG`.
pub fn fsconfig_flag(fs: i32, key: &CStr) -> Result<()> {
    // SAFETY: `key` is a C string that outlives the call; a flag has no value.
    unsafe { syscall!(fsconfig, fs as isize, FSCONFIG_SET_FLAG, key.as_ptr(), 0, 0) }?;
    Ok(())
}

/// fsconfig(2) `FSCONFIG_SET_FD`.
pub fn fsconfig_fd(fs: i32, key: &CStr, fd: i32) -> Result<()> {
    // SAFETY: `key` is a C string that outlives the call.
    unsafe { syscall!(fsconfig, fs as isize, FSCONFIG_SET_FD, key.as_ptr(), 0, fd as isize) }?;
    Ok(())
}

/// fsconfig(2) `FSCONFIG_CMD_CREATE`.
pub fn fsconfig_create(fs: i32) -> Result<()> {
    // SAFETY: the command takes no pointer.
    unsafe { syscall!(fsconfig, fs as isize, FSCONFIG_CMD_CREATE, 0, 0, 0) }?;
    Ok(())
}

/// capset(2) of the calling thread: effective = permitted.
pub fn capset(permitted: u64, inheritable: u64) -> Result<()> {
    let header = [LINUX_CAPABILITY_VERSION_3, 0];
    let low = |set: u64| set as u32;
    let high = |set: u64| (set >> 32) as u32;
    let data = [low(permitted), low(permitted), low(inheritable), high(permitted), high(permitted), high(inheritable)];
    // SAFETY: version 3 reads one header and two data records of three words each.
    unsafe { syscall!(capset, header.as_ptr(), data.as_ptr()) }?;
    Ok(())
}

/// capget(2) of the calling thread: (effective, permitted, inheritable).
pub fn capget() -> Result<(u64, u64, u64)> {
    let header = [LINUX_CAPABILITY_VERSION_3, 0];
    let mut data = [0u32; 6];
    // SAFETY: version 3 writes two data records of three words each.
    unsafe { syscall!(capget, header.as_ptr(), data.as_mut_ptr()) }?;
    let set = |i: usize| data[i] as u64 | (data[i + 3] as u64) << 32;
    Ok((set(0), set(1), set(2)))
}

/// seccomp(2) `SECCOMP_SET_MODE_FILTER`, Linux 3.17: a filter of `struct sock_filter` records for the calling thread.
pub fn seccomp_filter(filter: &[u8], flags: u32) -> Result<i32> {
    let len = u16::try_from(filter.len() / 8).map_err(|_| Errno::EINVAL)?;
    let program = SockFprog { len, filter: filter.as_ptr() };
    // SAFETY: the kernel copies `len` records of 8 bytes from the slice, at any alignment.
    unsafe { syscall!(seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const program) }.map(|value| value as i32)
}

/// The version of Landlock (landlock_create_ruleset(2), Linux 5.13); 0 where there is none.
pub fn landlock_version() -> u32 {
    // SAFETY: with this flag the kernel takes no record.
    let version = unsafe { syscall!(landlock_create_ruleset, 0, 0, LANDLOCK_CREATE_RULESET_VERSION) };
    version.map_or(0, |version| version as u32)
}

/// landlock_create_ruleset(2): rights on files, on ports (version 4), and scopes (version 6). A kernel
/// that knows fewer takes a longer record whose rest is zero.
pub fn landlock_create_ruleset(handled: &[u64; 3]) -> Result<i32> {
    let used = 1 + handled.iter().rposition(|word| *word != 0).unwrap_or(0);
    // SAFETY: the kernel reads the words, whose length is passed.
    unsafe { syscall!(landlock_create_ruleset, handled.as_ptr(), 8 * used, 0) }.map(|fd| fd as i32)
}

/// landlock_add_rule(2) for a directory or file.
pub fn landlock_add_path(ruleset: i32, access: u64, fd: i32) -> Result<i32> {
    let rule = LandlockPathBeneath { allowed_access: access, parent_fd: fd };
    // SAFETY: the kernel reads one packed record of 12 bytes.
    unsafe { syscall!(landlock_add_rule, ruleset as isize, LANDLOCK_RULE_PATH_BENEATH, &raw const rule, 0) }
        .map(|value| value as i32)
}

/// landlock_add_rule(2) for a port.
pub fn landlock_add_port(ruleset: i32, access: u64, port: u64) -> Result<i32> {
    let rule = [access, port];
    // SAFETY: the kernel reads one record of two words.
    unsafe { syscall!(landlock_add_rule, ruleset as isize, LANDLOCK_RULE_NET_PORT, rule.as_ptr(), 0) }
        .map(|value| value as i32)
}

/// fcntl(2) `F_OFD_SETLK`: an exclusive lock on one byte, which lasts as long as the open file description.
pub fn lock_byte(fd: i32, at: i64) -> Result<i32> {
    // struct flock: type F_WRLCK, whence SEEK_SET; start; length; pid 0
    let lock = [1i64, at, 1, 0];
    // SAFETY: the kernel reads one `struct flock` of 32 bytes: two i16 with padding, two i64, an i32 with padding.
    unsafe { syscall!(fcntl, fd as isize, F_OFD_SETLK, lock.as_ptr()) }.map(|value| value as i32)
}

/// rt_sigprocmask(2): replaces the mask and gives the earlier one.
pub fn sigmask_swap(set: u64) -> Result<u64> {
    let mut old = 0u64;
    // SAFETY: both masks are 8 bytes, as the size argument says.
    unsafe { syscall!(rt_sigprocmask, SIG_SETMASK, &raw const set, &raw mut old, 8) }?;
    Ok(old)
}

/// rt_sigaction(2): resets a signal to its default action.
pub fn signal_default(signal: i32) -> Result<()> {
    let action = [0u64; 4]; // SIG_DFL, no flags, no restorer, empty mask
    // SAFETY: `struct kernel_sigaction` is at most four words; the mask is 8 bytes.
    unsafe { syscall!(rt_sigaction, signal, action.as_ptr(), 0, 8) }?;
    Ok(())
}

/// pipe2(2): the end to read from and the one to write to.
pub fn pipe(flags: i32) -> Result<[i32; 2]> {
    let mut ends = [-1i32; 2];
    // SAFETY: the kernel writes two ints.
    unsafe { syscall!(pipe2, ends.as_mut_ptr(), flags) }?;
    Ok(ends)
}

/// ppoll(2) without a signal mask; `None` waits without bound.
pub fn poll(fds: &mut [PollFd], timeout: Option<[i64; 2]>) -> Result<usize> {
    let time = timeout.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    // SAFETY: the kernel reads and writes `len` records of the slice and reads one timespec.
    unsafe { syscall!(ppoll, fds.as_mut_ptr(), fds.len(), time, 0, 8) }
}

/// wait4(2): (pid, status, usage); pid 0 means that nobody has exited under `WNOHANG`.
pub fn wait4(pid: i32, options: u32) -> Result<(i32, i32, Rusage)> {
    let mut status = 0i32;
    let mut usage = Rusage::default();
    // SAFETY: the kernel writes one int and one `struct rusage`, which `Rusage` mirrors.
    let pid = unsafe { syscall!(wait4, pid as isize, &raw mut status, options, &raw mut usage) }?;
    Ok((pid as i32, status, usage))
}

/// ptrace(2) `PTRACE_DETACH`: a stopped tracee goes on, with a signal if it is not 0.
pub fn ptrace_detach(pid: i32, signal: i32) -> Result<usize> {
    // SAFETY: the call reads no memory.
    unsafe { syscall!(ptrace, PTRACE_DETACH, pid as isize, 0, signal as isize) }
}

/// getrusage(2).
pub fn getrusage(who: i32) -> Result<Rusage> {
    let mut usage = Rusage::default();
    // SAFETY: the kernel writes one `struct rusage`, which `Rusage` mirrors.
    unsafe { syscall!(getrusage, who as isize, &raw mut usage) }?;
    Ok(usage)
}

/// ioctl(2) `FS_IOC_FSGETXATTR`.
pub fn fs_get_xattr(fd: i32) -> Result<FsXattr> {
    let mut attributes = FsXattr::default();
    // SAFETY: the kernel writes one `struct fsxattr`, which `FsXattr` mirrors.
    unsafe { syscall!(ioctl, fd as isize, FS_IOC_FSGETXATTR, core::ptr::from_mut(&mut attributes)) }?;
    Ok(attributes)
}

/// ioctl(2) `FS_IOC_FSSETXATTR`.
pub fn fs_set_xattr(fd: i32, attributes: &FsXattr) -> Result<()> {
    // SAFETY: the kernel reads one `struct fsxattr`, which `FsXattr` mirrors.
    unsafe { syscall!(ioctl, fd as isize, FS_IOC_FSSETXATTR, core::ptr::from_ref(attributes)) }.map(drop)
}

/// quotactl_fd(2), Linux 5.14: `Q_GETQUOTA` or `Q_SETQUOTA` of a project.
pub fn quotactl_project(fd: i32, command: u32, project: u32, block: &mut QuotaBlock) -> Result<()> {
    // SAFETY: both commands read or write one `struct if_dqblk`, which `QuotaBlock` mirrors.
    unsafe { syscall!(quotactl_fd, fd as isize, command, project, core::ptr::from_mut(block)) }.map(drop)
}

/// ioctl(2) `TIOCGWINSZ` or `TIOCSWINSZ`.
pub fn window_size(fd: i32, request: usize, size: &mut WinSize) -> Result<()> {
    // SAFETY: both requests read or write one `struct winsize`, which `WinSize` mirrors.
    unsafe { syscall!(ioctl, fd as isize, request, core::ptr::from_mut(size)) }.map(drop)
}

/// clock_gettime(2), in microseconds.
pub fn clock(id: i32) -> Result<u64> {
    let mut time = [0i64; 2];
    // SAFETY: the kernel writes one `struct timespec`, two words on 64-bit machines.
    unsafe { syscall!(clock_gettime, id as isize, time.as_mut_ptr()) }?;
    Ok(time[0] as u64 * 1_000_000 + time[1] as u64 / 1000)
}

/// The clock of all CPU time that the process `pid` has used, for [`clock`]
/// (`MAKE_PROCESS_CPUCLOCK` of the C libraries, clock_getcpuclockid(3)).
pub fn cpu_clock(pid: i32) -> i32 {
    const CPUCLOCK_SCHED: i32 = 2;
    (!pid << 3) | CPUCLOCK_SCHED
}

/// The CPUs that the caller may run on: sched_getaffinity(2); bits beyond what the kernel has are 0.
pub fn sched_getaffinity() -> [u64; 128] {
    let mut mask = [0u64; 128];
    // SAFETY: the kernel writes at most the size of the array.
    let _ = unsafe { syscall!(sched_getaffinity, 0, size_of_val(&mask), mask.as_mut_ptr()) };
    mask
}

/// The number of CPUs that the caller may run on; at least 1.
pub fn cpu_count() -> u32 {
    sched_getaffinity().iter().map(|word| word.count_ones()).sum::<u32>().max(1)
}

/// sched_getattr(2) of the calling thread, Linux 3.14.
pub fn sched_getattr() -> Result<SchedAttr> {
    let mut attr = SchedAttr::default();
    // SAFETY: the kernel writes at most the size that is passed of one record.
    unsafe { syscall!(sched_getattr, 0, &raw mut attr, size_of::<SchedAttr>(), 0) }?;
    Ok(attr)
}

/// prlimit(2) of the caller: reads a limit (soft, hard), and sets it if `new` is given.
pub fn rlimit(resource: u32, new: Option<[u64; 2]>) -> Result<[u64; 2]> {
    let mut old = [0u64; 2];
    let new = new.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    // SAFETY: the kernel reads and writes one `struct rlimit64` of two words each.
    unsafe { syscall!(prlimit64, 0, resource, new, old.as_mut_ptr()) }?;
    Ok(old)
}

/// exit_group(2).
pub fn exit_group(code: i32) -> ! {
    loop {
        // SAFETY: the process ends here.
        let _ = unsafe { syscall!(exit_group, code) };
    }
}

/// sendmsg(2) on a UNIX socket: bytes, and descriptors by SCM_RIGHTS (at most [`SCM_MAX_FD`]).
pub fn send(fd: i32, bytes: &[u8], fds: &[i32], flags: u32) -> Result<usize> {
    let mut control = Control::default();
    let controllen = control.put(fds)?;
    let mut iov = IoVec { base: bytes.as_ptr().cast_mut(), len: bytes.len() };
    let message = MsgHdr {
        name: core::ptr::null_mut(),
        namelen: 0,
        iov: &raw mut iov,
        iovlen: 1,
        control: if controllen == 0 { core::ptr::null_mut() } else { control.0.as_mut_ptr().cast() },
        controllen,
        flags: 0,
    };
    // SAFETY: the header describes the slice (only read) and `controllen` initialised bytes.
    unsafe { syscall!(sendmsg, fd as isize, &raw const message, flags | MSG_NOSIGNAL) }
}

/// recvmsg(2) on a UNIX socket; received descriptors are close-on-exec and go to
/// `each` in the order in which they were sent. `EMFILE` when some were cut off.
pub fn receive(fd: i32, bytes: &mut [u8], flags: u32, each: impl FnMut(i32)) -> Result<usize> {
    let (got, flags) = receive_most(fd, bytes, flags, SCM_MAX_FD, each)?;
    if flags & MSG_CTRUNC != 0 { Err(Errno::EMFILE) } else { Ok(got) }
}

/// As [`receive`], with room for `most` descriptors; gives the message's flags too.
pub fn receive_most(
    fd: i32,
    bytes: &mut [u8],
    flags: u32,
    most: usize,
    mut each: impl FnMut(i32),
) -> Result<(usize, u32)> {
    let mut control = Control::default();
    let mut iov = IoVec { base: bytes.as_mut_ptr(), len: bytes.len() };
    let mut message = MsgHdr {
        name: core::ptr::null_mut(),
        namelen: 0,
        iov: &raw mut iov,
        iovlen: 1,
        control: control.0.as_mut_ptr().cast(),
        controllen: if most == 0 { 0 } else { 16 + 4 * most.min(SCM_MAX_FD) },
        flags: 0,
    };
    // SAFETY: the header describes the slice and the control buffer with their lengths.
    let got = unsafe { syscall!(recvmsg, fd as isize, &raw mut message, flags | MSG_CMSG_CLOEXEC) }?;
    control.take(message.controllen, &mut each);
    Ok((got, message.flags))
}

/// A control buffer for one SCM_RIGHTS message: `struct cmsghdr` (length, level,
/// type), then the descriptors (cmsg(3)).
struct Control([u64; 2 + SCM_MAX_FD.div_ceil(2)]);

impl Default for Control {
    fn default() -> Self {
        Control([0; 2 + SCM_MAX_FD.div_ceil(2)])
    }
}

impl Control {
    fn put(&mut self, fds: &[i32]) -> Result<usize> {
        if fds.is_empty() {
            return Ok(0);
        }
        if fds.len() > SCM_MAX_FD {
            return Err(Errno::EINVAL);
        }
        self.0[0] = (16 + 4 * fds.len()) as u64;
        self.0[1] = SOL_SOCKET as u64 | (SCM_RIGHTS as u64) << 32;
        for (i, fd) in fds.iter().enumerate() {
            self.0[2 + i / 2] |= (*fd as u32 as u64) << (32 * (i % 2));
        }
        Ok((16 + 4 * fds.len()).next_multiple_of(8))
    }

    fn take(&self, len: usize, each: &mut impl FnMut(i32)) {
        if len < 16 || self.0[1] != (SOL_SOCKET as u64 | (SCM_RIGHTS as u64) << 32) {
            return;
        }
        let count = (self.0[0] as usize).min(len).saturating_sub(16) / 4;
        for i in 0..count.min(SCM_MAX_FD) {
            each((self.0[2 + i / 2] >> (32 * (i % 2))) as u32 as i32);
        }
    }
}
