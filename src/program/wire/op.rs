//! The ops: every step between `spawn` and the payload's first instruction, in
//! the order in which they run. One variant here, one arm in the shim's
//! `run.rs` (or in `launch`, for those that only the parent can do), one line
//! in `explain.rs`: that is a new capability.

use super::codec::{Field, Reader, Sink, Slot, Strings};
use core::ffi::CStr;

macro_rules! ops {
    ($lt:lifetime; $( $(#[$doc:meta])* $name:ident = $code:literal { $( $(#[$fdoc:meta])* $field:ident : $ty:ty ),* $(,)? } )*) => {
        /// One step. Flags are the kernel's own (see `sys::kernel::abi`).
        #[derive(Clone, Copy)]
        pub enum Op<$lt> { $( $(#[$doc])* $name { $( $(#[$fdoc])* $field: $ty ),* } ),* }

        impl<$lt> Op<$lt> {
            /// Appends the op's record.
            pub fn encode(&self, sink: &mut impl Sink) {
                match self { $(
                    Op::$name { $($field),* } => {
                        let mut _length = Count(0);
                        $( Field::put($field, &mut _length); )*
                        u16::put(&$code, sink);
                        0u16.put(sink);
                        _length.0.put(sink);
                        $( Field::put($field, sink); )*
                    }
                )* }
            }

            /// Reads the next record.
            pub fn decode(reader: &mut Reader<$lt>) -> Option<Op<$lt>> {
                let code = u16::take(reader)?;
                u16::take(reader)?;
                let len = u32::take(reader)?;
                let mut _body = Reader(reader.bytes(len as usize)?);
                match code {
                    $( $code => Some(Op::$name { $( $field: Field::take(&mut _body)? ),* }), )*
                    _ => None,
                }
            }
        }
    };
}

/// Measures an op's body, whose length stands before it.
struct Count(u32);
impl Sink for Count {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len() as u32;
    }
}

/// Kernel features that a Program may be told to do without, so that each
/// fallback can be made to run on a kernel that does not need it.
#[allow(missing_docs)]
pub mod without {
    /// fsopen, fsmount, open_tree, move_mount (Linux 5.2): mount(2) instead.
    pub const MOUNT_API: u32 = 1;
    /// mount_setattr (Linux 5.12): remount one mount at a time instead.
    pub const MOUNT_SETATTR: u32 = 2;
    /// openat2 (Linux 5.6): a walk by O_PATH instead.
    pub const OPENAT2: u32 = 4;
    /// `lowerdir+` by descriptor (Linux 6.13): staged binds and one option string instead.
    pub const LOWERDIR_FD: u32 = 8;
    /// MOUNT_ATTR_IDMAP (Linux 5.12; overlay layers 5.19): layers as the host has them instead.
    pub const IDMAPPED: u32 = 16;
    /// Executable memfds: an unlinked file instead.
    pub const MEMFD_EXEC: u32 = 32;
    /// `user.*` attributes on tmpfs (Linux 6.6): whiteouts one by one instead.
    pub const TMPFS_XATTR: u32 = 64;
    /// pivot_root (impossible on initramfs): MS_MOVE and chroot instead.
    pub const PIVOT_ROOT: u32 = 128;
    /// A thread beside the set-up (a limit of processes may leave no room): one thing after the other instead.
    pub const THREAD: u32 = 256;
    /// Landlock (Linux 5.13): its absence is reported, or an error.
    pub const LANDLOCK: u32 = 512;
    /// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (Linux 5.19): a signal interrupts a call that waits for its answer instead.
    pub const WAIT_KILLABLE: u32 = 1024;
    /// SECCOMP_ADDFD_FLAG_SEND (Linux 5.14): a descriptor is put into the target first, and then the call is answered.
    pub const ADDFD_SEND: u32 = 1 << 18;
    /// Limits of the sandbox's user namespace (a security module may refuse them): the caller's instead.
    pub const USER_LIMITS: u32 = 1 << 19;
    /// The v2 tree of a hybrid host: v1 alone instead.
    pub const CGROUP_V2: u32 = 1 << 16;
    /// cgroup.kill (Linux 5.14): freeze and signal instead.
    pub const CGROUP_KILL: u32 = 1 << 17;
}

/// What to do about a mount target that is not there.
#[allow(missing_docs)]
pub mod missing {
    pub const ERROR: u32 = 0;
    pub const SKIP: u32 = 1;
    pub const CREATE: u32 = 2;
}

/// What to do about a file of a control group that is not there.
#[allow(missing_docs)]
pub mod presence {
    pub const REQUIRED: u32 = 0;
    pub const IF_PRESENT: u32 = 1;
    /// Written only where the file of the op before was not there.
    pub const INSTEAD: u32 = 2;
}

/// What [`Op::Schedule`] leaves as it is.
#[allow(missing_docs)]
pub mod schedule {
    pub const KEEP: u32 = u32::MAX;
    pub const KEEP_NICE: i64 = i64::MAX;
}

/// Where an overlay's upper directory is.
#[allow(missing_docs)]
pub mod upper {
    pub const NONE: u32 = 0;
    pub const SCRATCH: u32 = 1;
    pub const PERSIST: u32 = 2;
}

ops! { 'a;
    // ---- by the parent --------------------------------------------------------
    /// clone3 of the shim into new namespaces, with the capabilities that the set-up takes.
    Clone = 1 { flags: u64, capabilities: u64 }
    /// Ask the init of a running sandbox for one more process.
    Enter = 130 {}
    /// Write uid_map, setgroups, gid_map (`helper`: through newuidmap and newgidmap).
    MapIds = 2 { uid: &'a [u8], gid: &'a [u8], deny_setgroups: u32, helper: u32 }

    /// setns into a namespace of the caller's own user namespace, before a new one is made.
    JoinFirst = 4 { kind: u64, fd: Slot, name: &'a CStr }
    /// Clone a tree of the host (`kind` is S_IFMT bits) and map its ids into the sandbox
    /// (`idmap`: 0 no, 1 yes, 2 if the file system can), or by `maps` of its own: those of uid and gid.
    Tree = 3 { path: &'a CStr, dev: u64, ino: u64, kind: u32, recursive: u32, idmap: u32, maps: Strings<'a>, to: Slot }

    // ---- control groups, by the parent -----------------------------------------
    /// Let a v2 group hand down controllers; where the caller's own process is in the way, it
    /// moves into this leaf (if it is named).
    GroupEnable = 90 { group: &'a CStr, controllers: &'a [u8], leaf: &'a CStr }
    /// Make a group; without it the sandbox fails (`required`), or what follows of it is left out.
    Group = 91 { path: &'a CStr, required: u32 }
    /// Write a file of a group.
    GroupSet = 92 { file: &'a CStr, value: &'a [u8], presence: u32 }
    /// Attach an eBPF program that decides on devices.
    GroupDevices = 93 { path: &'a CStr, program: &'a [u8] }
    /// Be born in a group: by clone3 (`v2`), or by a write to its `tasks` before the shim is executed.
    GroupJoin = 94 { path: &'a CStr, v2: u32 }

    /// Run on these CPUs (a mask, as sched_setaffinity(2) takes it): by the shim, for all that it starts.
    Affinity = 95 { mask: &'a [u8] }

    // ---- namespaces ---------------------------------------------------------
    /// setns into an existing namespace; `name` says which.
    Join = 10 { kind: u64, fd: Slot, name: &'a CStr }
    /// unshare what clone3 could not make.
    Unshare = 11 { kind: u64 }
    /// A time namespace with these offsets (`clock seconds nanoseconds` lines).
    Clocks = 12 { offsets: &'a [u8] }
    /// Continue as PID 1 of the pid namespace just unshared.
    Relaunch = 13 {}
    /// Default actions for all signals: ignored ones are inherited by every exec.
    Signals = 18 {}
    /// A limit of the user namespace that the parent has just made, for each user in it: the file beneath /proc.
    UserLimit = 114 { file: &'a CStr, value: u64 }
    /// Shrink the bounding set to these (`last`: the kernel's last capability).
    Bounding = 19 { capabilities: u64, last: u32 }
    /// Wait for the parent: the id maps, and the trees that it has cloned meanwhile.
    Await = 9 {}
    /// The ids under which the set-up works.
    /// (`drop_groups`: 0 no, 1 yes, 2 if the namespace allows it).
    SetupIds = 14 { uid: u32, gid: u32, drop_groups: u32 }
    /// sethostname.
    Hostname = 15 { name: &'a CStr }
    /// setdomainname.
    Domainname = 16 { name: &'a CStr }
    /// Begin a network namespace with `lo` up, beside what follows.
    NewNetwork = 17 {}
    /// Wait for the new network namespace and enter it.
    EnterNetwork = 8 {}

    // ---- the new root -------------------------------------------------------
    /// Cut propagation to and from the host.
    PrivateMounts = 20 {}
    /// A tmpfs of our own over `/`, in which the new root is put together.
    Scratch = 21 { bytes: u64, inodes: u64 }
    /// Open a layer by path in this mount namespace and check that it is the one meant.
    OpenLayer = 22 { path: &'a CStr, dev: u64, ino: u64, to: Slot }
    /// Attach a tree that the parent has cloned (and id-mapped) below the scratch.
    StageTree = 23 { slot: Slot, name: &'a CStr }
    /// Use this directory's `upper` and `work`, locked by the parent.
    StageUpper = 24 { slot: Slot }
    /// Begin the init layer: the layers seen through an overlay of its own.
    InitBegin = 25 { first: Slot, count: u32, userxattr: u32 }
    /// End the init layer.
    InitEnd = 26 {}
    /// Mount the overlay of `count` layers (slots from `first`, lowest first) as the new root.
    Overlay = 27 { first: Slot, count: u32, upper: u32, userxattr: u32, set: u64 }
    /// Send the scratch, which holds the upper and the init layer, to the library.
    Track = 82 {}
    /// Make a tree the new root.
    RootTree = 28 { slot: Slot, set: u64, recursive: u32 }
    /// Make a tmpfs the new root.
    RootTmpfs = 29 { bytes: u64, inodes: u64, set: u64 }

    // ---- entries of the init layer (or of an empty root) --------------------
    /// A regular file.
    File = 30 { path: &'a CStr, mode: u32, content: &'a [u8] }
    /// A directory.
    Directory = 31 { path: &'a CStr, mode: u32 }
    /// A symbolic link.
    Symlink = 32 { path: &'a CStr, target: &'a CStr }
    /// A whiteout.
    Hide = 33 { path: &'a CStr }
    /// An opaque directory.
    Opaque = 34 { path: &'a CStr }
    /// A target for a later mount, if it is missing.
    Target = 35 { path: &'a CStr, directory: u32 }

    // ---- mounts ---------------------------------------------------------------
    /// Clone the tree at a path of this mount namespace, after a check of what it is
    /// (`kind` is S_IFMT bits or 0, `rdev` major<<32|minor or 0).
    Grab = 40 { path: &'a CStr, dev: u64, ino: u64, kind: u32, rdev: u64, recursive: u32, to: Slot }
    /// Attach a tree at a target.
    Attach = 41 {
        slot: Slot, target: &'a CStr, directory: u32, missing: u32,
        set: u64, clear: u64, recursive: u32, propagation: u64,
    }
    /// A new file system at a target; `magic` is what statfs must answer, or 0.
    NewFs = 42 {
        fstype: &'a CStr, options: Strings<'a>, target: &'a CStr, missing: u32, set: u64, magic: u64,
    }
    /// A new proc at a target; where the kernel refuses it (EPERM), an empty directory.
    ProcOrEmpty = 48 { options: Strings<'a>, target: &'a CStr, missing: u32, set: u64 }
    /// A link inside a file system that an earlier op made.
    Link = 43 { path: &'a CStr, target: &'a CStr }
    /// Cover a file with the null device, a directory with an empty read-only tmpfs.
    Mask = 44 { path: &'a CStr }
    /// Make a path read-only, with what is mounted below it.
    ReadOnly = 45 { path: &'a CStr }
    /// Make the new root itself read-only.
    SealRoot = 47 {}
    /// pivot_root into the new root and drop the old one.
    Pivot = 46 {}

    // ---- the payload ----------------------------------------------------------
    /// From here on in the payload's own process (`stay`: the shim stays as PID 1), watched by `host`;
    /// `lock` stays open. `keep`: the payload's capabilities, which those who enter get too.
    Payload = 60 { stay: u32, host: Slot, lock: Slot, keep: u64 }
    /// What the shim allows the sandbox, in microseconds (0: no limit): wall-clock time, CPU time
    /// of all processes, and the time between SIGTERM and SIGKILL.
    Limits = 70 { wall: u64, cpu: u64, grace: u64 }
    /// Take the CPU time of all processes from this file of their cgroup (`cpu.stat`,
    /// `cpuacct.usage`), if it can be read.
    CpuMeter = 72 { path: &'a CStr }
    /// RLIMIT_CPU in seconds, never raised.
    CpuSeconds = 71 { soft: u64, hard: u64 }
    /// Write a label to the first of these files beneath the host's procfs that is there: that of the next exec.
    ExecLabel = 105 { proc: Slot, files: Strings<'a>, value: &'a [u8] }
    /// setsid.
    Session = 61 {}
    /// Standard streams, and `others` (number u16, slot u16); all other descriptors are closed,
    /// but for `keep` until the exec.
    Stdio = 62 { stdin: Slot, stdout: Slot, stderr: Slot, others: &'a [u8], keep: Slot }
    /// A pty of the sandbox's devpts: its master goes to the library.
    Pty = 80 { rows: u16, columns: u16, uid: u32, gid: u32, to: Slot }
    /// A standard stream as the controlling terminal.
    Terminal = 81 { stream: u32 }
    /// umask.
    Umask = 63 { mask: u32 }
    /// Groups, gid, uid; capabilities kept (a set of bits).
    Credentials = 64 { uid: u32, gid: u32, groups: &'a [u8], set_groups: u32, capabilities: u64 }
    /// no_new_privs.
    NoNewPrivileges = 65 {}
    /// The filter of system calls (an array of `struct sock_filter`).
    Seccomp = 100 { filter: &'a [u8] }
    /// A filter that only notifies; its listener goes to the library.
    Listen = 104 { filter: &'a [u8] }
    /// Resource limits, lowered to these: `(resource u32, value u64)` records.
    Rlimits = 101 { limits: &'a [u8] }
    /// A new session keyring; if not `required`, where there can be one.
    Keyring = 102 { required: u32 }
    /// A Landlock domain with these rights handled; the rules are records of
    /// `access u64, kind u32 (1 path, 2 port), length u32, bytes`.
    Landlock = 103 { files: u64, ports: u64, scopes: u64, rules: &'a [u8] }
    /// The scheduling policy and the nice value (`schedule::KEEP…`: as they are); times in nanoseconds.
    Schedule = 110 { policy: u32, nice: i64, priority: u32, runtime: u64, deadline: u64, period: u64 }
    /// The I/O priority (class << 13 | level).
    IoPriority = 111 { priority: u32 }
    /// Run on these CPUs and no fewer (a mask, as sched_setaffinity(2) takes it).
    Cpus = 112 { mask: &'a [u8] }
    /// The process's own oom_score_adj, in the /proc that it sees.
    OomScoreAdj = 113 { value: i64 }
    /// The working directory.
    WorkingDirectory = 66 { path: &'a CStr }
    /// execve of the first candidate that exists, or of the open file that was kept.
    Exec = 67 { candidates: Strings<'a>, argv: Strings<'a>, envp: Strings<'a> }
}
