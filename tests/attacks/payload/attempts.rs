//! The attempts by name, and those on interfaces of the kernel.

use crate::say::Line;
use crate::sys::kernel::abi::*;
use crate::sys::kernel::raw::{check, syscall6};
use crate::sys::kernel::{Errno, Result, call};
use crate::{files, sockets};
use core::ffi::CStr;
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering};

macro_rules! numbers {
    ($($name:ident = $x86_64:literal / $aarch64:literal),* $(,)?) => {
        #[allow(non_upper_case_globals)]
        pub mod nr {
            $(
                #[cfg(target_arch = "x86_64")] pub const $name: usize = $x86_64;
                #[cfg(target_arch = "aarch64")] pub const $name: usize = $aarch64;
            )*
        }
    };
}
numbers! {
    getppid = 110/173, clone = 56/220, clone3 = 435/435, ptrace = 101/117, process_vm_readv = 310/270, pidfd_getfd = 438/438,
    keyctl = 250/219, add_key = 248/217, bpf = 321/280, perf_event_open = 298/241, userfaultfd = 323/282,
    io_uring_setup = 425/425, clock_settime = 227/112, settimeofday = 170/170, swapon = 167/224, reboot = 169/142,
    init_module = 175/105, kexec_load = 246/104, acct = 163/89, name_to_handle_at = 303/264, open_by_handle_at = 304/265,
    personality = 135/92, setuid = 105/146, getuid = 102/174, geteuid = 107/175, getcwd = 79/17, connect = 42/203,
    bind = 49/200, prlimit64 = 302/261, sched_setscheduler = 144/119, mkdirat = 258/34, getpid = 39/172, clock_gettime = 228/113,
    renameat2 = 316/276, symlinkat = 266/36, fallocate = 285/47, setns = 308/268, pidfd_open = 434/434, kill = 62/129,
    listen = 50/201, sendto = 44/206, inotify_init1 = 294/26, inotify_add_watch = 254/27, timer_create = 222/107,
    mq_open = 240/180, setsockopt = 54/208, io_setup = 206/0, fcntl = 72/25,
}

/// The environment that the kernel passed.
pub static ENVIRONMENT: AtomicPtr<usize> = AtomicPtr::new(core::ptr::null_mut());

/// A call with up to six arguments.
pub fn raw(n: usize, a: &[usize]) -> Result<usize> {
    let get = |i: usize| a.get(i).copied().unwrap_or(0);
    // SAFETY: each caller passes pointers to live memory or none; a wrong one is the kernel's to refuse (EFAULT).
    check(unsafe { syscall6(n, get(0), get(1), get(2), get(3), get(4), get(5)) })
}

pub fn run(name: &[u8], argument: &CStr, line: Line) {
    let pointer = argument.as_ptr() as usize;
    match name {
        b"exit" => call::exit_group(number(argument) as i32),
        b"sleep" => drop(call::poll(&mut [], Some([number(argument) as i64, 0]))),
        b"uid" => line.value(raw(nr::getuid, &[]).unwrap_or(0) as u64),
        b"euid" => line.value(raw(nr::geteuid, &[]).unwrap_or(0) as u64),
        b"status" => files::status(argument, line),
        b"getppid" => getppid(number(argument), line),

        b"unshare-user" => line.result(call::unshare(CLONE_NEWUSER)),
        b"unshare-mount" => line.result(call::unshare(CLONE_NEWNS)),
        b"unshare-fs" => line.result(call::unshare(0x200)),
        b"clone-user" => line.result(fork(CLONE_NEWUSER)),
        b"clone" => line.result(fork(0)),
        b"clone3-user" => line.result(clone3(CLONE_NEWUSER)),
        b"clone3" => line.result(clone3(0)),
        b"setns" => {
            line.result(files::open(c"/proc/self/ns/uts", O_RDONLY).and_then(|fd| call::setns(fd, CLONE_NEWUTS)))
        }
        b"mount" => line.result(call::mount(Some(c"none"), argument, Some(c"tmpfs"), 0, None)),
        b"fsopen" => line.result(call::fsopen(c"tmpfs", 0)),
        b"open-tree" => line.result(call::open_tree(AT_FDCWD, c"/", OPEN_TREE_CLONE)),
        b"umount" => line.result(call::umount2(argument, 2)),
        b"pivot" => line.result(call::pivot_root(c".", c".")),
        b"chroot" => line.result(call::chroot(argument)),
        b"sethostname" => line.result(call::sethostname(argument.to_bytes())),
        b"settime" => line.result(raw(nr::clock_settime, &[0, [0i64, 0].as_ptr() as usize])),
        b"keyctl-session" => line.result(raw(nr::keyctl, &[0, -3isize as usize, 1])),
        b"key-add" => line.result(key_add(pointer)),
        b"key-search" => line.result(raw(nr::keyctl, &[10, -3isize as usize, c"user".as_ptr() as usize, pointer, 0])),
        b"keys" => keys(number(argument), line),
        b"inotify" => taken(number(argument), line, |_| raw(nr::inotify_init1, &[0])),
        b"mq-open" => line.result(raw(nr::mq_open, &[pointer, 0o102, 0o600, 0])),
        b"aio" => line.result(raw(nr::io_setup, &[1, [0u64].as_mut_ptr() as usize])),
        b"lease" => {
            line.result(files::open(c"/attack", O_RDONLY).and_then(|fd| raw(nr::fcntl, &[fd as usize, 1024, 0])))
        }
        b"socket-filter" => line.result(sockets::filter(number(argument))),
        b"terminals" => taken(number(argument), line, |_| files::open(c"/dev/ptmx", O_RDWR).map(|fd| fd as usize)),
        b"reopen-read" => line.result(files::reopen(number(argument), O_RDONLY)),
        b"reopen-write" => line.result(files::reopen(number(argument), O_WRONLY)),
        b"watches" => watches(number(argument), line),
        b"timers" => taken(number(argument), line, |_| {
            let mut id = 0i32;
            raw(nr::timer_create, &[1, 0, &raw mut id as usize])
        }),
        b"key-exec" => line.result(key_exec(pointer)),
        b"bpf" => line.result(raw(nr::bpf, &[0, [0u64; 16].as_ptr() as usize, 128])),
        b"perf" => line.result(raw(
            nr::perf_event_open,
            &[[1u64, 0, 0, 0, 0, 0, 0, 0].as_ptr() as usize, 0, -1isize as usize, -1isize as usize, 0],
        )),
        b"userfaultfd" => line.result(raw(nr::userfaultfd, &[0])),
        b"io-uring" => line.result(raw(nr::io_uring_setup, &[1, [0u64; 16].as_mut_ptr() as usize])),
        b"reboot" => line.result(raw(nr::reboot, &[0, 0, 0, 0])),
        b"swapon" => line.result(raw(nr::swapon, &[pointer, 0])),
        b"init-module" => line.result(raw(nr::init_module, &[pointer, 0, pointer])),
        b"kexec" => line.result(raw(nr::kexec_load, &[0, 0, 0, 0])),
        b"acct" => line.result(raw(nr::acct, &[pointer])),
        b"personality" => line.result(raw(nr::personality, &[number(argument) as usize])),
        b"rlimit" => limit(number(argument), line),
        b"rlimit-raise" => line.result(raise(number(argument) as u32)),
        b"realtime" => line.result(raw(nr::sched_setscheduler, &[0, 1, [1u32].as_ptr() as usize])),
        b"i386" => foreign(line),
        b"x32" => line.result(raw(0x4000_0000 + 39, &[])),
        b"unknown" => line.result(raw(471, &[])),
        b"ptrace" => line.result(raw(nr::ptrace, &[16, number(argument) as usize, 0, 0])),
        b"trace-me" => line.result(raw(nr::ptrace, &[0, 0, 0, 0])),
        b"ptrace-child" => line.result(ptrace_child()),
        b"vm-read" => line.result(vm_read(number(argument) as usize)),
        b"fd-steal" => line.result(fd_steal(number(argument) as i32)),
        b"race-path" => race_path(number(argument), line),
        b"kill" => line.result(call::kill(number(argument) as i32, 0)),
        b"tty-input" => line.result(tty(TIOCSTI)),
        b"tty-input-high" => line.result(tty(0xdead_beef_0000_0000 | TIOCSTI)),
        b"tty-linux" => line.result(tty(0x541c)),
        b"tty-discipline" => line.result(tty(0x5423)),
        b"tty-size" => line.result(tty(0x5413)),

        b"socket" => sockets::socket(argument, line),
        b"connect" => line.result(sockets::connect_unix(argument, false)),
        b"connect-abstract" => line.result(sockets::connect_unix(argument, true)),
        b"listen" => line.result(sockets::listen_unix(argument)),
        b"send-udp" => line.result(sockets::send_udp(argument)),
        b"bind-udp" => line.result(sockets::bind_udp(argument)),
        b"connect-ipv4" => line.result(sockets::connect_ipv4(argument)),
        b"connect-ipv6" => line.result(sockets::connect_ipv6(argument)),
        _ => files::run(name, argument, line),
    }
}

const TIOCSTI: usize = 0x5412;

/// Decimal, with a sign.
pub fn number(text: &CStr) -> i64 {
    let digits = text.to_bytes();
    let negative = digits.first() == Some(&b'-');
    let value =
        digits.iter().skip(negative.into()).fold(0i64, |n, d| n.wrapping_mul(10) + i64::from(d.wrapping_sub(b'0')));
    if negative { -value } else { value }
}

/// Nanoseconds a call, in the best of several rounds.
fn getppid(count: i64, line: Line) {
    let now = || {
        let mut time = [0i64; 2];
        let _ = raw(nr::clock_gettime, &[1, time.as_mut_ptr() as usize]);
        time[0] * 1_000_000_000 + time[1]
    };
    let mut best = i64::MAX;
    for _ in 0..50 {
        let start = now();
        for _ in 0..count {
            let _ = raw(nr::getppid, &[]);
        }
        best = best.min(now() - start);
    }
    line.value((best * 1000 / count.max(1)) as u64); // picoseconds
}

/// clone(2) like fork(2); the child ends.
fn fork(flags: u64) -> Result<usize> {
    let pid = raw(nr::clone, &[(flags | SIGCHLD as u64) as usize])?;
    if pid == 0 {
        call::exit_group(0)
    }
    call::wait4(pid as i32, 0)?;
    Ok(pid)
}

fn clone3(flags: u64) -> Result<usize> {
    let args = CloneArgs { flags, exit_signal: SIGCHLD as u64, ..CloneArgs::default() };
    let pid = raw(nr::clone3, &[&raw const args as usize, size_of::<CloneArgs>()])?;
    if pid == 0 {
        call::exit_group(0)
    }
    call::wait4(pid as i32, 0)?;
    Ok(pid)
}

fn key_add(description: usize) -> Result<usize> {
    let payload = b"secret";
    raw(
        nr::add_key,
        &[c"user".as_ptr() as usize, description, payload.as_ptr() as usize, payload.len(), -3isize as usize],
    )
}

/// Makes keys until it is refused.
fn keys(most: i64, line: Line) {
    taken(most, line, |n| key_add(numbered(b"key-00000\0", n).as_ptr() as usize));
}

/// The name with the digits of `n` at its end.
fn numbered<const N: usize>(name: &[u8; N], n: i64) -> [u8; N] {
    let (mut name, mut rest) = (*name, n);
    for digit in name[N - 6..N - 1].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    name
}

/// Takes the same thing again and again: how often there was one.
fn taken(most: i64, line: Line, mut take: impl FnMut(i64) -> Result<usize>) {
    for n in 0..most {
        if let Err(errno) = take(n) {
            return if n == 0 { line.result::<()>(Err(errno)) } else { line.value(n as u64) };
        }
    }
    line.end(b"without end")
}

/// Watches of new files, by one instance.
fn watches(most: i64, line: Line) {
    let Ok(instance) = raw(nr::inotify_init1, &[0]) else { return line.end(b"no instance") };
    taken(most, line, |n| {
        let name = numbered(b"/dev/shm/w00000\0", n);
        let path = CStr::from_bytes_with_nul(&name).map_err(|_| Errno::EINVAL)?;
        let fd = call::openat(AT_FDCWD, path, O_WRONLY | 0o100 | O_CLOEXEC, 0o600)?;
        call::close(fd)?;
        raw(nr::inotify_add_watch, &[instance, name.as_ptr() as usize, 2])
    });
}

/// Executes a program in a new session keyring, which holds a key named `belljar-test`.
fn key_exec(program: usize) -> Result<usize> {
    call::new_session_keyring()?;
    key_add(c"belljar-test".as_ptr() as usize)?;
    let arguments = [program, 0];
    let environment = ENVIRONMENT.load(Ordering::Relaxed) as usize;
    raw(crate::sys::kernel::raw::nr::execve, &[program, arguments.as_ptr() as usize, environment])
}

fn limit(resource: i64, line: Line) {
    match call::rlimit(resource as u32, None) {
        Ok([_, hard]) => line.value(hard),
        Err(errno) => line.result::<()>(Err(errno)),
    }
}

fn raise(resource: u32) -> Result<()> {
    let [_, hard] = call::rlimit(resource, None)?;
    call::rlimit(resource, Some([hard + 1, hard + 1])).map(drop)
}

/// getpid(2) by the 32-bit entrance.
fn foreign(line: Line) {
    #[cfg(target_arch = "x86_64")]
    {
        let mut answer: isize = 20;
        // SAFETY: call 20 of i386 is getpid, without arguments; r8 to r11 are clobbered.
        unsafe {
            core::arch::asm!("int 0x80", inlateout("rax") answer, lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _);
        }
        line.result(check(answer as i32 as isize));
    }
    #[cfg(not(target_arch = "x86_64"))]
    line.result::<()>(Err(Errno::ENOSYS));
}

/// PTRACE_SEIZE of an own child.
fn ptrace_child() -> Result<()> {
    let pid = raw(nr::clone, &[SIGCHLD as usize])?;
    if pid == 0 {
        let _ = call::poll(&mut [], Some([60, 0]));
        call::exit_group(0)
    }
    let seized = raw(nr::ptrace, &[0x4206, pid, 0, 0]);
    let _ = call::kill(pid as i32, SIGKILL);
    call::wait4(pid as i32, 0)?;
    seized.map(drop)
}

fn vm_read(pid: usize) -> Result<usize> {
    let mut byte = 0u8;
    let local = [&raw mut byte as usize, 1];
    let remote = [0x1000usize, 1];
    raw(nr::process_vm_readv, &[pid, local.as_ptr() as usize, 1, remote.as_ptr() as usize, 1, 0])
}

/// Opens /allowed so many times, while another process makes /secrets of it in the same memory: millions for what
/// was opened, ones for what was the secret, whose first byte is an `s`.
fn race_path(count: i64, line: Line) {
    use crate::sys::kernel::raw::nr::{mmap, munmap};
    // PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS
    let page = match raw(mmap, &[0, 4096, 3, 0x21, -1isize as usize, 0]) {
        Ok(page) => page,
        Err(errno) => return line.result::<()>(Err(errno)),
    };
    // SAFETY: the page is this program's own, zeroed, aligned, and mapped until the end of this function.
    let path = unsafe { &*(page as *const AtomicU64) };
    let [allowed, secrets] = [*b"/allowed", *b"/secrets"].map(u64::from_ne_bytes);
    path.store(allowed, Ordering::Relaxed);
    let swapper = raw(nr::clone, &[SIGCHLD as usize]).unwrap_or(0) as i32;
    if swapper == 0 {
        loop {
            path.store(secrets, Ordering::Relaxed);
            (0..500).for_each(|_| core::hint::spin_loop());
            path.store(allowed, Ordering::Relaxed);
            (0..500).for_each(|_| core::hint::spin_loop());
        }
    }
    let mut total = 0;
    for _ in 0..count {
        let Ok(fd) = raw(crate::sys::kernel::raw::nr::openat, &[AT_FDCWD as usize, page, O_RDONLY as usize]) else {
            let _ = call::poll(&mut [], Some([0, 100_000])); // a moment for the other process
            continue;
        };
        let mut byte = [0u8];
        let _ = call::read(fd as i32, &mut byte);
        let _ = call::close(fd as i32);
        total += 1_000_000 + u64::from(byte == *b"s");
    }
    let _ = call::kill(swapper, SIGKILL);
    let _ = call::wait4(swapper, 0);
    let _ = raw(munmap, &[page, 4096]);
    line.value(total)
}

fn fd_steal(pid: i32) -> Result<usize> {
    let pidfd = call::pidfd_open(pid, 0)?;
    raw(nr::pidfd_getfd, &[pidfd as usize, 0, 0])
}

/// An ioctl on a terminal of one's own, which is the controlling one.
fn tty(request: usize) -> Result<usize> {
    const TIOCSPTLCK: usize = 0x4004_5431;
    const TIOCGPTPEER: usize = 0x5441;
    const TIOCSCTTY: usize = 0x540e;
    let ioctl = |fd: i32, request: usize, argument: usize| {
        raw(crate::sys::kernel::raw::nr::ioctl, &[fd as usize, request, argument])
    };
    // opened once: the end of a controlling terminal is a SIGHUP
    static SLAVE: AtomicI32 = AtomicI32::new(-1);
    let mut slave = SLAVE.load(Ordering::Relaxed);
    if slave < 0 {
        let master = files::open(c"/dev/ptmx", O_RDWR | O_NOCTTY)?;
        ioctl(master, TIOCSPTLCK, [0i32].as_ptr() as usize)?;
        slave = ioctl(master, TIOCGPTPEER, (O_RDWR | O_NOCTTY) as usize)? as i32;
        let _ = call::setsid();
        let _ = ioctl(slave, TIOCSCTTY, 0);
        SLAVE.store(slave, Ordering::Relaxed);
    }
    let argument: [u8; 16] = *b"x\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let zero = [0u8; 16];
    let pointer = if request as u32 as usize == TIOCSTI { argument.as_ptr() } else { zero.as_ptr() };
    ioctl(slave, request, pointer as usize)
}
