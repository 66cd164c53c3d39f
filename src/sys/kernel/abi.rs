//! Constants and records of the kernel's user API, named as its headers name them.
#![allow(missing_docs)]

// <linux/sched.h>
pub const CLONE_VM: u64 = 0x100;
pub const CLONE_FILES: u64 = 0x400;
pub const CLONE_SIGHAND: u64 = 0x800;
pub const CLONE_VFORK: u64 = 0x4000;
pub const CLONE_PARENT: u64 = 0x8000;
pub const CLONE_PIDFD: u64 = 0x1000;
pub const CLONE_THREAD: u64 = 0x1_0000;
pub const CLONE_SYSVSEM: u64 = 0x4_0000;
pub const CLONE_CHILD_CLEARTID: u64 = 0x20_0000;
pub const CLONE_NEWTIME: u64 = 0x80;
pub const CLONE_NEWNS: u64 = 0x0002_0000;
pub const CLONE_NEWCGROUP: u64 = 0x0200_0000;
pub const CLONE_NEWUTS: u64 = 0x0400_0000;
pub const CLONE_NEWIPC: u64 = 0x0800_0000;
pub const CLONE_NEWUSER: u64 = 0x1000_0000;
pub const CLONE_NEWPID: u64 = 0x2000_0000;
pub const CLONE_NEWNET: u64 = 0x4000_0000;
pub const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
pub const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args`, clone(2).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

// <linux/bpf.h>
pub const BPF_PROG_LOAD: u32 = 5;
pub const BPF_PROG_ATTACH: u32 = 8;
pub const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
pub const BPF_CGROUP_DEVICE: u32 = 6;
pub const BPF_F_ALLOW_MULTI: u32 = 2;

// <fcntl.h>
pub const AT_FDCWD: i32 = -100;
pub const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
pub const AT_REMOVEDIR: u32 = 0x200;
pub const AT_EMPTY_PATH: u32 = 0x1000;
pub const AT_RECURSIVE: u32 = 0x8000;
pub const O_RDONLY: i32 = 0;
pub const O_WRONLY: i32 = 1;
pub const O_ACCMODE: i32 = 3;
pub const O_APPEND: i32 = 0o2000;
pub const O_RDWR: i32 = 2;
pub const O_CREAT: i32 = 0o100;
pub const O_EXCL: i32 = 0o200;
pub const O_NOCTTY: i32 = 0o400;
pub const O_TRUNC: i32 = 0o1000;
pub const O_NONBLOCK: i32 = 0o4000;
pub const O_CLOEXEC: i32 = 0o2000000;
pub const O_PATH: i32 = 0o10000000;
#[cfg(target_arch = "x86_64")]
pub const O_DIRECTORY: i32 = 0o200000;
#[cfg(target_arch = "x86_64")]
pub const O_NOFOLLOW: i32 = 0o400000;
#[cfg(target_arch = "aarch64")]
pub const O_DIRECTORY: i32 = 0o40000;
#[cfg(target_arch = "aarch64")]
pub const O_NOFOLLOW: i32 = 0o100000;
pub const F_SETFD: i32 = 2;
pub const F_GETFL: i32 = 3;
pub const F_GETFD: i32 = 1;
pub const F_DUPFD_CLOEXEC: i32 = 1030;
pub const F_OFD_SETLK: i32 = 37;
pub const FD_CLOEXEC: i32 = 1;
pub const PATH_MAX: usize = 4096;

// <linux/close_range.h>
pub const CLOSE_RANGE_UNSHARE: u32 = 2;

// <linux/openat2.h>
pub const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
pub const RESOLVE_NO_SYMLINKS: u64 = 0x04;
pub const RESOLVE_BENEATH: u64 = 0x08;
pub const RESOLVE_IN_ROOT: u64 = 0x10;

/// `struct open_how`, openat2(2).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct OpenHow {
    pub flags: u64,
    pub mode: u64,
    pub resolve: u64,
}

// <linux/mount.h>
pub const MS_RDONLY: usize = 1;
pub const MS_NOSUID: usize = 2;
pub const MS_NODEV: usize = 4;
pub const MS_NOEXEC: usize = 8;
pub const MS_REMOUNT: usize = 32;
pub const MS_NOATIME: usize = 1024;
pub const MS_NODIRATIME: usize = 2048;
pub const MS_BIND: usize = 4096;
pub const MS_MOVE: usize = 8192;
pub const MS_REC: usize = 16384;
pub const MS_UNBINDABLE: usize = 1 << 17;
pub const MS_PRIVATE: usize = 1 << 18;
pub const MS_SLAVE: usize = 1 << 19;
pub const MS_SHARED: usize = 1 << 20;
pub const MS_RELATIME: usize = 1 << 21;
pub const MNT_DETACH: usize = 2;
pub const OPEN_TREE_CLONE: u32 = 1;
pub const OPEN_TREE_CLOEXEC: u32 = 0o2000000;
pub const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x04;
pub const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
pub const FSOPEN_CLOEXEC: u32 = 1;
pub const FSMOUNT_CLOEXEC: u32 = 1;
pub const FSCONFIG_SET_FLAG: u32 = 0;
pub const FSCONFIG_SET_STRING: u32 = 1;
pub const FSCONFIG_SET_FD: u32 = 5;
pub const FSCONFIG_CMD_CREATE: u32 = 6;
pub const MOUNT_ATTR_RDONLY: u64 = 0x01;
pub const MOUNT_ATTR_NOSUID: u64 = 0x02;
pub const MOUNT_ATTR_NODEV: u64 = 0x04;
pub const MOUNT_ATTR_NOEXEC: u64 = 0x08;
pub const MOUNT_ATTR_NOATIME: u64 = 0x10;
pub const MOUNT_ATTR_ATIME: u64 = 0x70;
pub const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// `struct mount_attr`, mount_setattr(2).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct MountAttr {
    pub attr_set: u64,
    pub attr_clr: u64,
    pub propagation: u64,
    pub userns_fd: u64,
}

// <linux/magic.h>
pub const PROC_SUPER_MAGIC: i64 = 0x9fa0;
pub const SYSFS_MAGIC: i64 = 0x6265_6572;

/// The head of `struct statfs` on 64-bit machines, statfs(2).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct StatFs {
    pub f_type: i64,
    pub f_bsize: i64,
    pub f_blocks: u64,
    pub f_bfree: u64,
    pub f_bavail: u64,
    pub f_files: u64,
    pub f_ffree: u64,
    pub f_fsid: u64,
    pub f_namelen: i64,
    pub f_frsize: i64,
    pub f_flags: i64,
    pub f_spare: [i64; 4],
}
// statvfs(3) / <linux/statfs.h>: the mount's own flags in f_flags.
pub const ST_RDONLY: i64 = 1;
pub const ST_NOSUID: i64 = 2;
pub const ST_NODEV: i64 = 4;
pub const ST_NOEXEC: i64 = 8;
pub const ST_NOATIME: i64 = 1024;
pub const ST_NODIRATIME: i64 = 2048;
pub const ST_RELATIME: i64 = 4096;

// <linux/stat.h>
pub const S_IFMT: u32 = 0o170000;
pub const S_IFSOCK: u32 = 0o140000;
pub const S_IFLNK: u32 = 0o120000;
pub const S_IFREG: u32 = 0o100000;
pub const S_IFDIR: u32 = 0o040000;
pub const S_IFCHR: u32 = 0o020000;
pub const S_IFBLK: u32 = 0o060000;
pub const S_IFIFO: u32 = 0o010000;
pub const STATX_BASIC_STATS: u32 = 0x7ff;
pub const STATX_MNT_ID: u32 = 0x1000;
pub const STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;

/// `struct statx`, statx(2).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Statx {
    pub mask: u32,
    pub blksize: u32,
    pub attributes: u64,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub mode: u16,
    pub spare0: u16,
    pub ino: u64,
    pub size: u64,
    pub blocks: u64,
    pub attributes_mask: u64,
    pub times: [u64; 8],
    pub rdev_major: u32,
    pub rdev_minor: u32,
    pub dev_major: u32,
    pub dev_minor: u32,
    pub mnt_id: u64,
    pub spare: [u64; 13],
}

impl Statx {
    /// A record of zeros, for the kernel to fill.
    pub const ZERO: Statx = Statx {
        mask: 0,
        blksize: 0,
        attributes: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        mode: 0,
        spare0: 0,
        ino: 0,
        size: 0,
        blocks: 0,
        attributes_mask: 0,
        times: [0; 8],
        rdev_major: 0,
        rdev_minor: 0,
        dev_major: 0,
        dev_minor: 0,
        mnt_id: 0,
        spare: [0; 13],
    };

    /// The device in one number, to compare.
    pub fn dev(&self) -> u64 {
        (self.dev_major as u64) << 32 | self.dev_minor as u64
    }

    /// The file type bits of the mode, `S_IF…`.
    pub fn kind(&self) -> u32 {
        self.mode as u32 & S_IFMT
    }
}

// <linux/prctl.h>, <linux/securebits.h>, <linux/capability.h>
pub const PR_SET_DUMPABLE: usize = 4;
pub const PR_SET_KEEPCAPS: usize = 8;
pub const PR_SET_NAME: usize = 15;
pub const PR_CAPBSET_DROP: usize = 24;
pub const PR_SET_CHILD_SUBREAPER: usize = 36;
pub const PR_SET_NO_NEW_PRIVS: usize = 38;
pub const PR_CAP_AMBIENT: usize = 47;
pub const PR_CAP_AMBIENT_RAISE: usize = 2;
pub const PR_CAP_AMBIENT_CLEAR_ALL: usize = 4;
pub const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
pub const CAP_CHOWN: u32 = 0;
pub const CAP_KILL: u32 = 5;
pub const CAP_SETGID: u32 = 6;
pub const CAP_SETUID: u32 = 7;

// <linux/landlock.h>
pub const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
pub const LANDLOCK_RULE_PATH_BENEATH: u32 = 1;
pub const LANDLOCK_RULE_NET_PORT: u32 = 2;
pub const LANDLOCK_ACCESS_FS_EXECUTE: u64 = 1 << 0;
pub const LANDLOCK_ACCESS_FS_WRITE_FILE: u64 = 1 << 1;
pub const LANDLOCK_ACCESS_FS_READ_FILE: u64 = 1 << 2;
pub const LANDLOCK_ACCESS_FS_TRUNCATE: u64 = 1 << 14;
pub const LANDLOCK_ACCESS_FS_IOCTL_DEV: u64 = 1 << 15;
pub const LANDLOCK_ACCESS_FS_RESOLVE_UNIX: u64 = 1 << 16;
/// Rights that files have, and not directories alone.
pub const LANDLOCK_ACCESS_FILE: u64 = LANDLOCK_ACCESS_FS_EXECUTE
    | LANDLOCK_ACCESS_FS_WRITE_FILE
    | LANDLOCK_ACCESS_FS_READ_FILE
    | LANDLOCK_ACCESS_FS_TRUNCATE
    | LANDLOCK_ACCESS_FS_IOCTL_DEV
    | LANDLOCK_ACCESS_FS_RESOLVE_UNIX;

/// `struct landlock_path_beneath_attr`, which is packed.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct LandlockPathBeneath {
    pub allowed_access: u64,
    pub parent_fd: i32,
}

// <linux/keyctl.h>
pub const KEYCTL_JOIN_SESSION_KEYRING: u32 = 1;

// <linux/seccomp.h>, <linux/filter.h>
pub const SECCOMP_SET_MODE_FILTER: u32 = 1;
pub const SECCOMP_GET_NOTIF_SIZES: u32 = 3;
pub const SECCOMP_FILTER_FLAG_SPEC_ALLOW: u32 = 4;
pub const SECCOMP_FILTER_FLAG_NEW_LISTENER: u32 = 8;
pub const SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: u32 = 32;
pub const SECCOMP_IOCTL_NOTIF_RECV: usize = 0xc050_2100;
pub const SECCOMP_IOCTL_NOTIF_SEND: usize = 0xc018_2101;
pub const SECCOMP_IOCTL_NOTIF_ID_VALID: usize = 0x4008_2102;
pub const SECCOMP_IOCTL_NOTIF_ADDFD: usize = 0x4018_2103;
pub const SECCOMP_USER_NOTIF_FLAG_CONTINUE: u32 = 1;
pub const SECCOMP_ADDFD_FLAG_SETFD: u32 = 1;
pub const SECCOMP_ADDFD_FLAG_SEND: u32 = 2;

/// `struct seccomp_notif`, with the `struct seccomp_data` in it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SeccompNotif {
    pub id: u64,
    pub pid: u32,
    pub flags: u32,
    pub nr: i32,
    pub arch: u32,
    pub instruction_pointer: u64,
    pub args: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SeccompNotifResp {
    pub id: u64,
    pub val: i64,
    pub error: i32,
    pub flags: u32,
}

/// `struct seccomp_notif_addfd`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SeccompNotifAddfd {
    pub id: u64,
    pub flags: u32,
    pub srcfd: u32,
    pub newfd: u32,
    pub newfd_flags: u32,
}

/// `struct sock_fprog`: the number of instructions, 8 bytes each, and where they are.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SockFprog {
    pub len: u16,
    pub filter: *const u8,
}

// <linux/fs.h>, <linux/sockios.h>, <linux/if.h>
pub const FIONREAD: usize = 0x541b;
pub const SIOCGIFFLAGS: usize = 0x8913;
pub const SIOCSIFFLAGS: usize = 0x8914;
pub const SIOCGSKNS: usize = 0x894c;
pub const IFF_UP: u16 = 1;
pub const FUTEX_WAIT: usize = 0;
pub const AF_UNIX: i32 = 1;
pub const AF_INET: i32 = 2;
pub const SOCK_STREAM: i32 = 1;
pub const SOCK_DGRAM: i32 = 2;
pub const SOCK_SEQPACKET: i32 = 5;
pub const SOCK_CLOEXEC: i32 = 0o2000000;
pub const SOL_SOCKET: i32 = 1;
pub const SCM_RIGHTS: i32 = 1;
pub const MSG_DONTWAIT: u32 = 0x40;
pub const MSG_TRUNC: u32 = 0x20;
pub const MSG_CTRUNC: u32 = 0x08;
pub const MSG_NOSIGNAL: u32 = 0x4000;
pub const MSG_CMSG_CLOEXEC: u32 = 0x4000_0000;
pub const LOCK_EX: u32 = 2;
pub const LOCK_NB: u32 = 4;

// <linux/memfd.h>
pub const MFD_CLOEXEC: u32 = 1;
pub const MFD_ALLOW_SEALING: u32 = 2;
pub const MFD_EXEC: u32 = 0x10;
pub const F_ADD_SEALS: i32 = 1033;
pub const F_SEAL_SEAL: usize = 1;
pub const F_SEAL_SHRINK: usize = 2;
pub const F_SEAL_GROW: usize = 4;
pub const F_SEAL_WRITE: usize = 8;

// <signal.h>, <poll.h>, <sys/wait.h>
pub const SIGKILL: i32 = 9;
pub const SIGSEGV: i32 = 11;
pub const SIGCHLD: i32 = 17;
pub const SIGCONT: i32 = 18;
pub const SIGSTOP: i32 = 19;
pub const SIGTRAP: i32 = 5;
// <linux/ptrace.h>
pub const PTRACE_DETACH: usize = 17;
pub const SIG_BLOCK: u32 = 0;
pub const SIG_SETMASK: u32 = 2;
pub const SFD_CLOEXEC: u32 = 0o2000000;
pub const SFD_NONBLOCK: u32 = 0o4000;
pub const POLLIN: i16 = 1;
pub const POLLOUT: i16 = 4;
pub const POLLERR: i16 = 8;
pub const POLLHUP: i16 = 16;
pub const WNOHANG: u32 = 1;
pub const WEXITED: u32 = 4;
pub const P_PIDFD: u32 = 3;
pub const RUSAGE_CHILDREN: i32 = -1;
pub const SIGTERM: i32 = 15;
pub const SIGXCPU: i32 = 24;

// <linux/sched.h>, <linux/sched/types.h>, <linux/ioprio.h>
pub const SCHED_OTHER: u32 = 0;
pub const SCHED_FIFO: u32 = 1;
pub const SCHED_RR: u32 = 2;
pub const SCHED_BATCH: u32 = 3;
pub const SCHED_IDLE: u32 = 5;
pub const SCHED_DEADLINE: u32 = 6;
pub const IOPRIO_WHO_PROCESS: u32 = 1;
pub const IOPRIO_CLASS_RT: u32 = 1;

/// The first version of `struct sched_attr`, sched_setattr(2).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct SchedAttr {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

// <linux/time.h>, <linux/resource.h>
pub const CLOCK_MONOTONIC: i32 = 1;
pub const RLIMIT_CPU: u32 = 0;
pub const RLIM_INFINITY: u64 = u64::MAX;

/// `struct pollfd`, poll(2).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PollFd {
    pub fd: i32,
    pub events: i16,
    pub revents: i16,
}

/// `struct rusage` on 64-bit machines, getrusage(2).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Rusage {
    pub utime: [i64; 2],
    pub stime: [i64; 2],
    pub maxrss: i64,
    pub rest: [i64; 13],
}

/// `struct iovec`, readv(2).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct IoVec {
    pub base: *mut u8,
    pub len: usize,
}

/// `struct msghdr` on 64-bit Linux, recvmsg(2).
#[repr(C)]
pub struct MsgHdr {
    pub name: *mut u8,
    pub namelen: u32,
    pub iov: *mut IoVec,
    pub iovlen: usize,
    pub control: *mut u8,
    pub controllen: usize,
    pub flags: u32,
}

/// The most descriptors one SCM_RIGHTS message carries (unix(7), `SCM_MAX_FD`).
pub const SCM_MAX_FD: usize = 253;

pub const TIOCSCTTY: usize = 0x540e;
pub const TIOCGWINSZ: usize = 0x5413;
pub const TIOCSWINSZ: usize = 0x5414;
pub const TIOCGPTPEER: usize = 0x5441;
pub const TIOCSPTLCK: usize = 0x4004_5431;
pub const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// `struct winsize`, ioctl_tty(2).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct WinSize {
    pub rows: u16,
    pub columns: u16,
    pub unused: [u16; 2],
}

/// `struct fsxattr`, linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct FsXattr {
    pub flags: u32,
    pub extent_size: u32,
    pub extents: u32,
    pub project: u32,
    pub cow_extent_size: u32,
    pub unused: [u8; 8],
}

pub const FS_IOC_FSGETXATTR: usize = 0x801c_581f;
pub const FS_IOC_FSSETXATTR: usize = 0x401c_5820;
pub const FS_XFLAG_PROJINHERIT: u32 = 0x200;

/// `struct if_dqblk`, linux/quota.h. Blocks are of 1024 bytes.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct QuotaBlock {
    pub blocks_hard: u64,
    pub blocks_soft: u64,
    pub space: u64,
    pub inodes_hard: u64,
    pub inodes_soft: u64,
    pub inodes: u64,
    pub block_time: u64,
    pub inode_time: u64,
    pub valid: u32,
}

/// `QCMD(Q_GETQUOTA, PRJQUOTA)`, `QCMD(Q_SETQUOTA, PRJQUOTA)`.
pub const Q_GETQUOTA: u32 = 0x8000_0702;
pub const Q_SETQUOTA: u32 = 0x8000_0802;
/// The limits of a `QuotaBlock` are to be set.
pub const QIF_LIMITS: u32 = 5;

/// The longest value and the longest list of extended attributes, xattr(7).
pub const XATTR_MAX: usize = 64 * 1024;
