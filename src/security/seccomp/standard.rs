//! The profiles that come with the library, as data.
//!
//! They begin with the facts of Docker's default profile (`profiles/seccomp/default.json` of moby), which has been
//! tried on more programs than any other: what it allows without a capability, the plugin profile allows too,
//! but for this:
//!
//! | call | Docker's | here | why |
//! | --- | --- | --- | --- |
//! | by another ABI (i386, arm; x32) | allowed | process killed | a second, less tested entrance; opt-out: `Abi::Legacy` |
//! | `ioctl` TIOCSTI, TIOCLINUX | allowed | `EPERM` | puts input into the terminal of whoever started it (CVE-2017-5226); compared in 32 bits (CVE-2019-10063) |
//! | `ioctl` TIOCSETD | allowed | `EPERM` | loads line disciplines of the kernel, which had holes |
//! | `socket` | all families but VSOCK | UNIX, INET, INET6, and NETLINK for routes; `EAFNOSUPPORT` | each family is an attack surface of its own (ALG: CVE-2026-31431) |
//! | `socketpair` | all | UNIX; `EAFNOSUPPORT` | the same |
//! | `ptrace`, `process_vm_readv`, `process_vm_writev` | allowed | `EPERM`, unless CAP_SYS_PTRACE is kept | nothing but debuggers needs them |
//! | `io_uring_*` | allowed before Docker 25 | `EPERM` | makes sockets and opens files past a filter |
//! | `prlimit64` that sets limits by pid | allowed | `EPERM` | the sandbox's init may have the payload's uid |
//! | `unshare` without namespaces | denied | allowed | `CLONE_FS`, `CLONE_FILES` only give up sharing |
//! | `memfd_secret`, `modify_ldt`, `fanotify_mark` | allowed | `EPERM` | nearly unused |
//! | `setsockopt` SO_ATTACH_FILTER, SO_ATTACH_BPF, SO_ATTACH_REUSEPORT_CBPF and _EBPF | allowed | `EPERM` | programs for the kernel, whose memory is limited for all (`net.core.bpf_jit_limit`); to free many at once stopped a Linux 6.18 |
//! | `io_setup` | allowed | `ENOSYS` | asynchronous I/O that all processes of the machine share (`fs.aio-max-nr`) |
//! | `fcntl` F_SETLEASE | allowed | `EPERM` | holds up whoever on the host opens the file |
//! | `personality` UNAME26 | allowed | `EPERM` | the same |
//! | `socketcall` (32-bit) | allowed | `ENOSYS` | hides the family behind a pointer; libcs fall back |
//! | `clone3` | `ENOSYS` | `ENOSYS` | its flags are behind a pointer; libcs fall back to `clone` |
//! | numbers that Linux 6.19 does not have | `ENOSYS` | `ENOSYS` | libcs fall back |
//!
//! Capabilities that are kept open calls as they do there (`sys_admin`: mount, unshare, clone3 …).

use super::profile::{Argument, Condition, SeccompAction, SeccompProfile};
use crate::security::{Capabilities, Capability};
use crate::sys::Errno;

/// Allowed to everybody, in every profile.
#[rustfmt::skip]
const ALLOWED: &[&str] = &[
    // files and directories
    "access", "chdir", "chmod", "chown", "chown32", "close", "close_range", "copy_file_range", "creat", "dup", "dup2",
    "dup3", "faccessat", "faccessat2", "fadvise64", "fadvise64_64", "fallocate", "fchdir", "fchmod", "fchmodat",
    "fchmodat2", "fchown", "fchown32", "fchownat", "fcntl", "fcntl64", "fdatasync", "file_getattr", "file_setattr",
    "flock", "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64", "fsync", "ftruncate", "ftruncate64", "futimesat",
    "getcwd", "getdents", "getdents64", "lchown", "lchown32", "link", "linkat", "_llseek", "lseek", "lstat", "lstat64",
    "mkdir", "mkdirat", "mknod", "mknodat", "name_to_handle_at", "newfstatat", "open", "openat", "openat2", "pread64",
    "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readlink", "readlinkat", "readv",
    "rename", "renameat", "renameat2", "rmdir", "sendfile", "sendfile64", "splice", "stat", "stat64", "statfs",
    "statfs64", "statx", "symlink", "symlinkat", "sync", "sync_file_range", "syncfs", "tee", "truncate", "truncate64",
    "umask", "unlink", "unlinkat", "utime", "utimensat", "utimensat_time64", "utimes", "vmsplice", "write", "writev",
    "arm_fadvise64_64", "arm_sync_file_range", "sync_file_range2",
    // extended attributes
    "fgetxattr", "flistxattr", "fremovexattr", "fsetxattr", "getxattr", "getxattrat", "lgetxattr", "listxattr",
    "listxattrat", "llistxattr", "lremovexattr", "lsetxattr", "removexattr", "removexattrat", "setxattr", "setxattrat",
    // waiting for descriptors
    "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2", "epoll_wait",
    "epoll_wait_old", "eventfd", "eventfd2", "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch",
    "_newselect", "pipe", "pipe2", "poll", "ppoll", "ppoll_time64", "pselect6", "pselect6_time64", "select", "signalfd",
    "signalfd4", "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup",
    "io_submit",
    // memory
    "brk", "cachestat", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "mincore", "mlock", "mlock2",
    "mlockall", "mmap", "mmap2", "mprotect", "mremap", "mseal", "msync", "munlock", "munlockall", "munmap",
    "pkey_alloc", "pkey_free", "pkey_mprotect", "process_mrelease", "remap_file_pages",
    // processes, threads, ids
    "arch_prctl", "breakpoint", "cacheflush", "capget", "capset", "execve", "execveat", "exit", "exit_group", "fork",
    "futex", "futex_requeue", "futex_time64", "futex_wait", "futex_waitv", "futex_wake", "get_robust_list",
    "get_thread_area", "getcpu", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups",
    "getgroups32", "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getresgid", "getresgid32", "getresuid",
    "getresuid32", "getrlimit", "getrusage", "getsid", "gettid", "getuid", "getuid32", "ioprio_get", "ioprio_set",
    "kill", "pause", "pidfd_open", "pidfd_send_signal", "prctl", "restart_syscall", "rseq",
    "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam",
    "sched_getscheduler", "sched_rr_get_interval", "sched_rr_get_interval_time64", "sched_setaffinity",
    "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield", "set_robust_list", "set_thread_area",
    "set_tid_address", "set_tls", "setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32", "setgroups",
    "setgroups32", "setpgid", "setpriority", "setregid", "setregid32", "setresgid", "setresgid32", "setresuid",
    "setresuid32", "setreuid", "setreuid32", "setrlimit", "setsid", "setuid", "setuid32", "sysinfo", "times",
    "ugetrlimit", "uname", "uprobe", "uretprobe", "vfork", "wait4", "waitid", "waitpid",
    // more confinement of oneself
    "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "seccomp",
    // signals
    "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend",
    "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sigaltstack", "sigprocmask", "sigreturn",
    "tgkill", "tkill",
    // time
    "adjtimex", "alarm", "clock_adjtime", "clock_adjtime64", "clock_getres", "clock_getres_time64", "clock_gettime",
    "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64", "getitimer", "gettimeofday", "nanosleep",
    "setitimer", "time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64",
    "timer_settime", "timer_settime64", "timerfd_create", "timerfd_gettime", "timerfd_gettime64", "timerfd_settime",
    "timerfd_settime64",
    // sockets that there are
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recv", "recvfrom",
    "recvmmsg", "recvmmsg_time64", "recvmsg", "send", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown",
    // System V and POSIX IPC, of the sandbox's own namespace
    "ipc", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend",
    "mq_timedsend_time64", "mq_unlink", "msgctl", "msgget", "msgrcv", "msgsnd", "semctl", "semget", "semop",
    "semtimedop", "semtimedop_time64", "shmat", "shmctl", "shmdt", "shmget",
    // what libcs ask about the processor
    "getrandom", "riscv_flush_icache", "riscv_hwprobe",
];

/// What else Docker allows.
#[rustfmt::skip]
const CONTAINER: &[&str] = &[
    "fanotify_mark", "memfd_secret", "modify_ldt", "process_vm_readv", "process_vm_writev", "ptrace", "socketpair",
];

/// What a capability of the payload opens.
#[rustfmt::skip]
const OPENED: &[(Capability, &[&str])] = &[
    (Capability::DacReadSearch, &["open_by_handle_at"]),
    (
        Capability::SysAdmin,
        &[
            "bpf", "clone", "clone3", "fanotify_init", "fanotify_mark", "fsconfig", "fsmount", "fsopen", "fspick", "listmount",
            "mount", "mount_setattr", "move_mount", "open_tree", "open_tree_attr", "perf_event_open", "pivot_root",
            "quotactl", "quotactl_fd", "setdomainname", "sethostname", "setns", "statmount", "syslog", "umount",
            "umount2", "unshare",
        ],
    ),
    (Capability::SysBoot, &["reboot"]),
    (Capability::SysChroot, &["chroot"]),
    (Capability::SysModule, &["delete_module", "finit_module", "init_module"]),
    (Capability::SysPacct, &["acct"]),
    (
        Capability::SysPtrace,
        &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace"],
    ),
    (Capability::SysRawio, &["ioperm", "iopl"]),
    (Capability::SysTime, &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    (Capability::SysTtyConfig, &["vhangup"]),
    (Capability::SysNice, &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    (Capability::Syslog, &["syslog"]),
    (Capability::Bpf, &["bpf"]),
    (Capability::Perfmon, &["perf_event_open"]),
];

/// What a payload needs that makes namespaces of its own: a browser, bubblewrap, belljar.
#[rustfmt::skip]
const NAMESPACES: &[&str] = &[
    "chroot", "clone", "clone3", "fsconfig", "fsmount", "fsopen", "mount", "mount_setattr", "move_mount", "open_tree",
    "pivot_root", "setdomainname", "sethostname", "setns", "umount", "umount2", "unshare",
];

// <linux/sched.h>: all CLONE_NEW…; CLONE_NEWTIME (0x80) is a flag of unshare(2) only.
const CLONE_NEW: u64 = 0x7e02_0000;
const CLONE_NEWTIME: u64 = 0x80;
// <asm-generic/ioctls.h>
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;
const TIOCSETD: u64 = 0x5423;
// <asm-generic/socket.h>
const SOL_SOCKET: u64 = 1;
const SO_ATTACH_FILTER: u64 = 26;
const SO_ATTACH_BPF: u64 = 50;
const SO_ATTACH_REUSEPORT_CBPF: u64 = 51;
const SO_ATTACH_REUSEPORT_EBPF: u64 = 52;
// <linux/fcntl.h>
const F_SETLEASE: u64 = 1024;
// <linux/socket.h>, <linux/netlink.h>
const AF_UNIX: u64 = 1;
const AF_INET: u64 = 2;
const AF_INET6: u64 = 10;
const AF_NETLINK: u64 = 16;
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
const NETLINK_ROUTE: u64 = 0;
// <linux/personality.h>; all bits set asks for the present one
const PER_LINUX: u64 = 0;
const PER_LINUX32: u64 = 8;
const UNAME26: u64 = 0x2_0000;
const QUERY: u64 = 0xffff_ffff;

const ALLOW: SeccompAction = SeccompAction::Allow;
const DENY: SeccompAction = SeccompAction::Errno(Errno::EPERM);
const NO_FAMILY: SeccompAction = SeccompAction::Errno(Errno(97)); // EAFNOSUPPORT
const NO_CALL: SeccompAction = SeccompAction::Errno(Errno::ENOSYS);

/// The default.
pub(super) fn plugin(kept: Capabilities) -> SeccompProfile {
    let [family, protocol] = [Argument::int(0), Argument::int(2)];
    let mut profile = common(&[PER_LINUX, PER_LINUX32, QUERY])
        .set(["socketpair", "socket"], NO_FAMILY)
        .rule("socketpair", [family.is(AF_UNIX)], ALLOW)
        .rule("socket", [family.is(AF_NETLINK), protocol.is(NETLINK_ROUTE)], ALLOW)
        .set(["ioctl"], ALLOW)
        .set(["socketcall"], NO_CALL);
    for allowed in [AF_INET6, AF_INET, AF_UNIX] {
        profile = profile.rule("socket", [family.is(allowed)], ALLOW);
    }
    for request in [TIOCSETD, TIOCLINUX, TIOCSTI] {
        profile = profile.rule("ioctl", [Argument::int(1).is(request)], DENY);
    }
    for option in [SO_ATTACH_FILTER, SO_ATTACH_BPF, SO_ATTACH_REUSEPORT_CBPF, SO_ATTACH_REUSEPORT_EBPF] {
        profile = profile.rule("setsockopt", [Argument::int(1).is(SOL_SOCKET), Argument::int(2).is(option)], DENY);
    }
    for name in ["fcntl", "fcntl64"] {
        profile = profile.rule(name, [Argument::int(1).is(F_SETLEASE)], DENY);
    }
    profile = profile.set(["io_setup"], NO_CALL);
    opened(profile, kept)
}

/// What Docker allows.
pub(super) fn container(kept: Capabilities) -> SeccompProfile {
    let mut profile = common(&[PER_LINUX, PER_LINUX32, UNAME26, UNAME26 | PER_LINUX32, QUERY])
        .allow(CONTAINER.iter().copied())
        .set(["ioctl", "socket"], ALLOW)
        .set(["socketcall"], NO_CALL);
    for family in [AF_VSOCK, AF_ALG] {
        profile = profile.rule("socket", [Argument::int(0).is(family)], NO_FAMILY);
    }
    opened(profile, kept)
}

/// Opens what making namespaces takes.
pub(super) fn with_namespaces(profile: SeccompProfile) -> SeccompProfile {
    // what is left to the host stays so
    let names: Vec<_> = NAMESPACES.iter().copied().filter(|name| !profile.has_notice(name)).collect();
    profile.allow(names)
}

fn common(personalities: &[u64]) -> SeccompProfile {
    let none = |argument: Argument, flags: u64| -> [Condition; 1] { [argument.masked(flags, 0)] };
    let mut profile = SeccompProfile::otherwise(DENY)
        .allow(ALLOWED.iter().copied())
        .set(["clone3"], NO_CALL)
        .rule("prlimit64", [Argument::int(0).is(0)], ALLOW)
        .rule("prlimit64", [Argument::long(2).is(0)], ALLOW)
        .rule("clone", none(Argument::long(0), CLONE_NEW), ALLOW)
        .rule("unshare", none(Argument::long(0), CLONE_NEW | CLONE_NEWTIME), ALLOW);
    for personality in personalities {
        profile = profile.rule("personality", [Argument::int(0).is(*personality)], ALLOW);
    }
    profile
}

fn opened(mut profile: SeccompProfile, kept: Capabilities) -> SeccompProfile {
    for (capability, names) in OPENED {
        if kept.contains(*capability) {
            profile = profile.allow(names.iter().copied());
        }
    }
    profile
}
