//! The `syscall` instruction and the numbers it takes, for x86_64 and aarch64.
//!
//! Nothing here touches libc, `errno` or thread-local storage, so the same file
//! serves the library and the embedded shim. A raw call answers `-errno` in
//! `-4095..=-1` (syscall(2), "Architecture calling conventions").

/// A kernel error number, as errno(3) lists them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl core::fmt::Debug for Errno {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Errno({})", self.0)
    }
}

macro_rules! errnos {
    ($($name:ident = $value:literal),* $(,)?) => {
        impl Errno { $(#[doc = concat!("errno(3) `", stringify!($name), "`.")] pub const $name: Errno = Errno($value);)* }
    };
}
errnos! {
    EPERM = 1, ENOENT = 2, ESRCH = 3, EINTR = 4, EIO = 5, E2BIG = 7, ENOEXEC = 8, EBADF = 9, ECHILD = 10,
    EAGAIN = 11, ENOMEM = 12, EACCES = 13, EFAULT = 14, EBUSY = 16, EEXIST = 17, EXDEV = 18, ENODEV = 19, ENOTDIR = 20,
    EISDIR = 21, EINVAL = 22, EMFILE = 24, ETXTBSY = 26, EFBIG = 27, ENOSPC = 28, EROFS = 30, EPIPE = 32,
    ERANGE = 34, ENAMETOOLONG = 36, ENOSYS = 38, ELOOP = 40, ENODATA = 61, EPROTO = 71, EOVERFLOW = 75, EBADFD = 77, EUSERS = 87, EDQUOT = 122,
    EOPNOTSUPP = 95, ECONNRESET = 104, ENOTCONN = 107, ETIMEDOUT = 110, ESTALE = 116,
}

/// What a system call gives: a value, or why not.
pub type Result<T> = core::result::Result<T, Errno>;

/// Turns a raw return value into a result.
pub fn check(ret: isize) -> Result<usize> {
    if (-4095..0).contains(&ret) { Err(Errno(-ret as i32)) } else { Ok(ret as usize) }
}

macro_rules! numbers {
    ($($name:ident = $x86_64:literal / $aarch64:literal),* $(,)?) => {
        /// System call numbers, named as `<asm/unistd.h>` does.
        #[allow(dead_code, non_upper_case_globals, missing_docs)]
        pub mod nr {
            $(
                #[cfg(target_arch = "x86_64")] pub const $name: usize = $x86_64;
                #[cfg(target_arch = "aarch64")] pub const $name: usize = $aarch64;
            )*
        }
    };
}
numbers! {
    read = 0/63, write = 1/64, close = 3/57, lseek = 8/62, mmap = 9/222, munmap = 11/215, rt_sigaction = 13/134,
    rt_sigprocmask = 14/135, ioctl = 16/29, getpid = 39/172, socket = 41/198, sendmsg = 46/211,
    recvmsg = 47/212, socketpair = 53/199, execve = 59/221, exit = 60/93, wait4 = 61/260, ptrace = 101/117, kill = 62/129, fcntl = 72/25,
    flock = 73/32, ftruncate = 77/46, chdir = 80/49, fchdir = 81/50, fchmod = 91/52, fchown = 93/55,
    umask = 95/166, getrusage = 98/165, setsid = 112/157, setgroups = 116/159, setresuid = 117/147, setresgid = 119/149,
    capget = 125/90, capset = 126/91, fstatfs = 138/44, pivot_root = 155/41, prctl = 157/167,
    futex = 202/98, pipe2 = 293/59, getcpu = 309/168, sched_getaffinity = 204/123, sched_setaffinity = 203/122,
    sched_setattr = 314/274, sched_getattr = 315/275, ioprio_set = 251/30, ioprio_get = 252/31,
    chroot = 161/51, mount = 165/40, umount2 = 166/39, sethostname = 170/161, setdomainname = 171/162,
    clock_gettime = 228/113, openat = 257/56, mkdirat = 258/34, mknodat = 259/33, fchownat = 260/54, newfstatat = 262/79,
    setxattr = 188/5, fsetxattr = 190/7, fgetxattr = 193/10,
    flistxattr = 196/13, getdents64 = 217/61, exit_group = 231/94, waitid = 247/95,
    unlinkat = 263/35, symlinkat = 266/36, readlinkat = 267/78, fchmodat = 268/53, ppoll = 271/73,
    unshare = 272/97, signalfd4 = 289/74, dup3 = 292/24, prlimit64 = 302/261, keyctl = 250/219, setns = 308/268,
    seccomp = 317/277, memfd_create = 319/279, bpf = 321/280, execveat = 322/281, statx = 332/291,
    pidfd_send_signal = 424/424,
    open_tree = 428/428, move_mount = 429/429, fsopen = 430/430, fsconfig = 431/431, fsmount = 432/432,
    pidfd_open = 434/434, clone3 = 435/435, close_range = 436/436, openat2 = 437/437,
    syncfs = 306/267, quotactl_fd = 443/443,
    process_vm_readv = 310/270,
    pidfd_getfd = 438/438, landlock_create_ruleset = 444/444, landlock_add_rule = 445/445, landlock_restrict_self = 446/446, mount_setattr = 442/442,
}

/// Enters the kernel with up to six arguments.
///
/// # Safety
/// The arguments must be what the call `n` documents: pointers valid for the
/// access the kernel makes, and effects that the process can bear.
#[cfg(target_arch = "x86_64")]
#[inline]
pub unsafe fn syscall6(n: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let ret: isize;
    // SAFETY: the instruction clobbers rcx and r11 only (x86-64 psABI, A.2.1);
    // the caller answers for the arguments.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") n as isize => ret,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    ret
}

/// Enters the kernel with up to six arguments.
///
/// # Safety
/// As on x86_64.
#[cfg(target_arch = "aarch64")]
#[inline]
pub unsafe fn syscall6(n: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let ret: isize;
    // SAFETY: `svc 0` clobbers x0 only; the caller answers for the arguments.
    unsafe {
        core::arch::asm!(
            "svc 0",
            in("x8") n, inlateout("x0") a as isize => ret,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack)
        );
    }
    ret
}

/// `syscall!(name, arguments…)`: checks the answer. Unsafe to call, as
/// [`syscall6`] is.
macro_rules! syscall {
    ($n:ident) => { $crate::sys::kernel::raw::syscall!(@ $n, 0, 0, 0, 0, 0, 0) };
    ($n:ident, $a:expr) => { $crate::sys::kernel::raw::syscall!(@ $n, $a, 0, 0, 0, 0, 0) };
    ($n:ident, $a:expr, $b:expr) => { $crate::sys::kernel::raw::syscall!(@ $n, $a, $b, 0, 0, 0, 0) };
    ($n:ident, $a:expr, $b:expr, $c:expr) => { $crate::sys::kernel::raw::syscall!(@ $n, $a, $b, $c, 0, 0, 0) };
    ($n:ident, $a:expr, $b:expr, $c:expr, $d:expr) => { $crate::sys::kernel::raw::syscall!(@ $n, $a, $b, $c, $d, 0, 0) };
    ($n:ident, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr) => { $crate::sys::kernel::raw::syscall!(@ $n, $a, $b, $c, $d, $e, 0) };
    ($n:ident, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr) => { $crate::sys::kernel::raw::syscall!(@ $n, $a, $b, $c, $d, $e, $f) };
    (@ $n:ident, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr) => {
        $crate::sys::kernel::raw::check($crate::sys::kernel::raw::syscall6(
            $crate::sys::kernel::raw::nr::$n, $a as usize, $b as usize, $c as usize, $d as usize, $e as usize, $f as usize,
        ))
    };
}
pub(crate) use syscall;
