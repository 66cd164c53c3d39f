//! What a failed op most likely means, and what helps.
//!
//! A table by op and errno, refined by a look at the host where one errno has several
//! causes: the files of `/proc/sys` are read only after something has failed.

use crate::error::{Error, ErrorKind, Step};
use crate::id::show;
use crate::program::{Op, Program, op};
use crate::sys::Errno;
use crate::sys::namespace::NamespaceFlags;
use std::fs;

/// The error of op `index`.
pub(crate) fn failure(program: &Program, index: u32, errno: Errno, kernel: &str) -> Error {
    let Some(op) = program.ops().nth(index as usize) else {
        return Error::call("run the sandbox's Program", errno).with_kernel(kernel);
    };
    let what = match op {
        Op::Exec { argv, .. } => format!("execute {}", argv.iter().next().map(show).unwrap_or_default()),
        _ => op.to_string(),
    };
    let error = Error::call(what, errno).at(Step::new(index, program.len(), op.name())).with_kernel(kernel);
    match remedy(program, &op, errno, kernel) {
        Some((kind, hint)) => error.with_kind(kind).with_hint(hint),
        None => error,
    }
}

type Remedy = Option<(ErrorKind, String)>;

fn say(kind: ErrorKind, hint: impl Into<String>) -> Remedy {
    Some((kind, hint.into()))
}

fn remedy(program: &Program, op: &Op<'_>, errno: Errno, kernel: &str) -> Remedy {
    use ErrorKind::*;
    match (op, errno) {
        (
            Op::GroupEnable { .. }
            | Op::Group { .. }
            | Op::GroupSet { .. }
            | Op::GroupDevices { .. }
            | Op::GroupJoin { .. },
            errno,
        ) => crate::cgroup::remedy(op, errno),
        // the errno is the same for a namespace and for a group that may not be entered
        (Op::Clone { flags, .. }, Errno::EACCES) if program.ops().any(|op| matches!(op, Op::GroupJoin { .. })) => {
            clone(*flags, errno).map(|(kind, hint)| {
                (kind, format!("a group that shares a delegated parent with the caller's own (cgroups(7)), or CgroupLimits::none(); {hint}"))
            })
        }
        (Op::Payload { .. } | Op::Relaunch {}, Errno::ENOMEM) if joins_pid(program) => {
            say(NotFound, "a pid namespace whose init still lives: it takes no new process any more")
        }
        (Op::Payload { .. } | Op::Relaunch {}, Errno::EAGAIN) => say(
            LimitReached,
            "a higher pids_max: the shim and the payload are two; or a higher pids.max of the host's group, or RLIMIT_NPROC",
        ),
        (Op::Clone { flags, .. }, errno) => clone(*flags, errno),
        (Op::Enter {}, Errno::ESRCH) => say(NotFound, "a sandbox that still runs: it ends when its payload does"),
        (Op::Enter {}, Errno::EMFILE) => say(LimitReached, "to let some of those that have entered end: at most 64 are held at once"),
        (Op::Enter {}, Errno::EBUSY) => say(Busy, "to let go of its Frozen first"),
        (Op::Enter {}, Errno::ETIMEDOUT) => say(Busy, "a sandbox that is neither frozen nor stopped"),
        (Op::Enter {}, Errno::EAGAIN) => say(LimitReached, "a higher limit of processes for the sandbox (pids.max, RLIMIT_NPROC)"),
        (Op::MapIds { helper: 1, .. }, Errno::ENOENT) => {
            say(NotSupported, "the package uidmap (newuidmap, newgidmap), or IdMap::caller(), which needs no helper")
        }
        (Op::MapIds { helper: 1, .. }, _) => say(
            NotPermitted,
            "ranges that /etc/subuid and /etc/subgid grant this user, newuidmap and newgidmap with their set-uid bit or capability, and a host process without no_new_privs",
        ),
        (Op::MapIds { .. }, Errno::EPERM) => restricted_user_namespaces().or_else(|| {
            say(
                NotPermitted,
                "IdMap::caller(), or a caller with CAP_SETUID and CAP_SETGID whose own namespace has all the outer ids (and CAP_SETFCAP for its id 0)",
            )
        }),
        (Op::MapIds { .. }, Errno::EINVAL) => {
            say(NotSupported, "ranges that do not overlap and whose outer ids exist in the caller's namespace (/proc/self/uid_map)")
        }
        (Op::Tree { idmap: 1, .. }, Errno::EINVAL | Errno::EPERM | Errno::EOPNOTSUPP) => say(
            NotSupported,
            "a source on a file system that can be id-mapped (ext4, xfs, btrfs; tmpfs since Linux 6.3), on Linux 5.12 or later, or the mount without idmapped()",
        ),
        (Op::Tree { .. } | Op::Grab { .. } | Op::OpenLayer { .. }, Errno::ESTALE) => {
            say(Other, "again: the source was replaced while the sandbox was being made")
        }
        (Op::Tree { .. } | Op::Grab { .. }, Errno::EINVAL) => say(
            NotSupported,
            "a source that is not on an unbindable mount and not below a mount that this user namespace may not uncover",
        ),
        (Op::OpenLayer { .. } | Op::Grab { .. }, Errno::EACCES) => {
            say(NotPermitted, "search permission (x) for the sandbox's user on every directory of the path")
        }
        (Op::Join { .. } | Op::JoinFirst { .. }, Errno::EPERM) => say(
            NotPermitted,
            "to join the user namespace that owns it as well (User::Join), or CAP_SYS_ADMIN in that one and in the caller's",
        ),
        (Op::Join { .. } | Op::JoinFirst { .. }, Errno::EINVAL) => {
            say(NotSupported, "a file of the kind's own, as /proc/PID/ns has it; a pid namespace that is the caller's or below it")
        }
        (Op::Unshare { .. } | Op::Clocks { .. }, Errno::EPERM) => restricted_user_namespaces(),
        (Op::Unshare { .. } | Op::Clocks { .. } | Op::EnterNetwork {}, Errno::ENOSPC) => {
            say(LimitReached, "higher limits in /proc/sys/user/max_*_namespaces, or this kind inherited (Namespaces)")
        }
        (Op::Clocks { .. }, Errno::EINVAL) => say(NotSupported, "Time::Inherit: this kernel has no time namespaces (Linux 5.6)"),
        (Op::Clocks { .. }, Errno::ERANGE) => say(InvalidSpec, "offsets that leave both clocks positive and below 146 years"),
        (Op::Clocks { .. }, Errno::ENOENT) => say(NotSupported, "a host with /proc, or Time::Inherit"),
        (Op::SetupIds { .. }, Errno::EINVAL) => say(InvalidSpec, "a user namespace in which id 0 is mapped"),
        (
            Op::Hostname { .. } | Op::Domainname { .. } | Op::EnterNetwork {} | Op::PrivateMounts {} | Op::Scratch { .. },
            Errno::EPERM | Errno::EACCES,
        ) => {
            restricted_user_namespaces().or_else(|| {
                say(
                    NotPermitted,
                    "a seccomp profile or security module of the host that allows mount(2) here (in Docker: --security-opt seccomp=unconfined)",
                )
            })
        }
        (Op::Overlay { .. } | Op::InitBegin { .. }, errno) => overlay(errno, kernel),
        (Op::RootTree { .. } | Op::Attach { .. } | Op::ReadOnly { .. }, Errno::EPERM) => say(
            NotPermitted,
            "to keep the flags of the source's mount: in a user namespace read-only, nosuid, nodev and noexec are locked once they are set",
        ),
        (Op::Attach { missing: op::missing::ERROR, .. } | Op::NewFs { missing: op::missing::ERROR, .. }, Errno::ENOENT) => {
            say(NotFound, "Missing::Create or Missing::Skip, or the target in a layer")
        }
        (Op::Attach { .. } | Op::NewFs { .. } | Op::ProcOrEmpty { .. } | Op::Target { .. }, Errno::EROFS | Errno::EACCES) => say(
            NotFound,
            "a target that exists: it is missing, and would have to be made in a directory of the host, which is never written; RootFs::dir or RootFs::overlay make it in the sandbox",
        ),
        (Op::Attach { .. } | Op::NewFs { .. }, Errno::ENOTDIR | Errno::EISDIR | Errno::EEXIST | Errno::ELOOP) => say(
            NotFound,
            "a target of the source's kind: a directory for a directory, a file for a file, and no link that leads nowhere",
        ),
        (Op::NewFs { fstype, .. }, errno) => new_fs(fstype.to_bytes(), errno),
        (Op::Mask { .. } | Op::Grab { .. }, Errno::ENOENT) => say(NotFound, "a host with the standard devices in /dev"),
        (Op::Mask { .. }, Errno::ESTALE) => say(NotSupported, "a host whose /dev/null is the null device"),
        (Op::File { .. } | Op::Directory { .. } | Op::Symlink { .. } | Op::Target { .. }, Errno::ENOSPC) => {
            say(LimitReached, "a larger Upper::Discard")
        }
        (Op::File { .. } | Op::Symlink { .. }, Errno::EISDIR) => say(InvalidSpec, "RootFs::hide of the directory that is there first"),
        (Op::Hide { .. }, Errno::EPERM | Errno::EOPNOTSUPP) => {
            say(NotSupported, "Mount::mask(path): whiteouts in a user namespace need Linux 5.8")
        }
        (Op::Stdio { .. }, Errno::EBADF | Errno::EINVAL | Errno::EMFILE) => {
            say(LimitReached, "lower numbers for the passed descriptors: each must be below RLIMIT_NOFILE (ulimit -n)")
        }
        (Op::Pty { .. }, Errno::ENOSPC) => say(LimitReached, "fewer ptys, or a higher kernel.pty.max and kernel.pty.reserve"),
        (Op::Pty { .. }, Errno::EINVAL | Errno::EPERM) => {
            say(InvalidSpec, "a payload whose uid and gid the sandbox's id map has")
        }
        (Op::Credentials { .. }, Errno::EINVAL) => say(InvalidSpec, "ids that the sandbox's id map has"),
        (Op::Credentials { .. }, Errno::EPERM) => {
            say(NotPermitted, "the default ids: another uid or gid takes CAP_SETUID and CAP_SETGID, which User::New gives")
        }
        (Op::Keyring { .. }, Errno::EDQUOT) => {
            say(LimitReached, "a higher kernel.keys.maxkeys, or a filter that denies keyctl (Seccomp::Default)")
        }
        (Op::Keyring { .. }, Errno::EPERM | Errno::ENOSYS) => {
            say(NotSupported, "a kernel with CONFIG_KEYS and a host that lets keyctl pass, or Keyring::Inherit")
        }
        (Op::Landlock { .. }, Errno::E2BIG) => {
            say(LimitReached, "fewer nested domains: the kernel allows 16 (Landlock::none())")
        }
        (Op::Landlock { .. }, _) => say(NotSupported, "Landlock::none()"),
        (Op::Seccomp { .. }, Errno::EINVAL | Errno::ENOSYS) => {
            say(NotSupported, "a kernel with CONFIG_SECCOMP_FILTER, or, knowing this, Seccomp::Unconfined")
        }
        (Op::ExecLabel { .. }, errno) => label(errno),
        (Op::Listen { .. }, Errno::EBUSY) => say(
            NotSupported,
            "a caller that is not itself under a filter with a listener: the kernel takes one for a process; or no SeccompAction::Notify",
        ),
        (Op::Listen { .. }, Errno::EINVAL | Errno::ENOSYS) => {
            say(NotSupported, "a kernel with CONFIG_SECCOMP_FILTER that has user notification, or no SeccompAction::Notify")
        }
        (Op::Seccomp { .. }, Errno::EACCES) => say(
            NotPermitted,
            "no_new_privs, which lets everybody install a filter: Security without allow_new_privileges()",
        ),
        (Op::Schedule { .. } | Op::IoPriority { .. }, Errno::EPERM | Errno::EACCES) => say(
            NotPermitted,
            "what the host gives: a higher RLIMIT_RTPRIO or RLIMIT_NICE of the host process, or root with User::Inherit (in a cgroup v1 cpu group also cpu.rt_runtime_us)",
        ),
        (Op::Schedule { .. }, Errno::EBUSY) => say(LimitReached, "a shorter runtime or a longer period: the CPUs have no more for this policy"),
        (Op::Schedule { .. } | Op::IoPriority { .. }, Errno::EINVAL) => {
            say(NotSupported, "a policy, and a period, that this kernel takes (/proc/sys/kernel/sched_deadline_period_*)")
        }
        (Op::Cpus { .. }, Errno::EINVAL) => say(InvalidSpec, "CPUs that there are, and that the cpuset of the sandbox's control group has"),
        (Op::OomScoreAdj { .. }, Errno::EACCES) => say(
            NotPermitted,
            "a value not below the host process's; less takes CAP_SYS_RESOURCE of the host (root with User::Inherit). And an id map with the id 0",
        ),
        (Op::OomScoreAdj { .. }, _) => say(NotFound, "a /proc in the mount plan (Mount::proc(\"/proc\")) with nothing mounted over its files"),
        (Op::WorkingDirectory { .. }, Errno::ENOENT | Errno::ENOTDIR) => {
            say(NotFound, "a working directory that exists inside the sandbox: RootFs::directory makes one")
        }
        (Op::WorkingDirectory { .. }, Errno::ELOOP) => say(InvalidSpec, "a path without links of /proc/PID/fd, cwd or root"),
        (Op::Exec { .. }, errno) => exec(program, errno),
        _ => None,
    }
}

fn clone(flags: u64, errno: Errno) -> Remedy {
    use ErrorKind::*;
    let user = flags & NamespaceFlags::USER.bits() != 0;
    match errno {
        Errno::EPERM if !user => say(NotPermitted, "User::New(IdMap::automatic()): without a user namespace of its own this takes CAP_SYS_ADMIN"),
        Errno::EPERM => restricted_user_namespaces().or_else(|| {
            say(
                NotPermitted,
                "a seccomp profile of the host that allows clone3 with namespaces (in Docker: --security-opt seccomp=unconfined), and a caller that is not in a chroot",
            )
        }),
        Errno::EACCES => say(NotPermitted, "an AppArmor or SELinux policy that lets this program make user namespaces and execute the shim; vm.memfd_noexec below 2"),
        Errno::ENOSPC => say(
            LimitReached,
            match setting("user/max_user_namespaces") {
                Some(0) => "sysctl user.max_user_namespaces=15000 (it is 0: user namespaces are switched off here)".to_owned(),
                _ => "higher limits in /proc/sys/user/max_*_namespaces, fewer sandboxes of this user, or less nesting (the kernel allows 32 levels)".to_owned(),
            },
        ),
        Errno::EAGAIN => say(LimitReached, "a higher RLIMIT_NPROC (ulimit -u) or pids.max of the host's cgroup"),
        Errno::ENOMEM => say(LimitReached, "more memory, or a pid namespace whose init still lives"),
        Errno::EINVAL => say(NotSupported, "a kernel with these namespaces: each can be inherited instead (Namespaces)"),
        Errno::ENOSYS => say(NotSupported, "Linux 5.10 or later, or a seccomp profile of the host that knows clone3 (Docker 20.10.10 or later)"),
        _ => None,
    }
}

fn joins_pid(program: &Program) -> bool {
    let pid = NamespaceFlags::PID.bits();
    program.ops().any(|op| matches!(op, Op::Join { kind, .. } | Op::JoinFirst { kind, .. } if kind == pid))
}

/// The switches by which distributions close user namespaces.
fn restricted_user_namespaces() -> Remedy {
    let hint = if setting("kernel/unprivileged_userns_clone") == Some(0) {
        "sysctl kernel.unprivileged_userns_clone=1 (user namespaces are switched off for ordinary users here)"
    } else if setting("user/max_user_namespaces") == Some(0) {
        "sysctl user.max_user_namespaces=15000 (it is 0: user namespaces are switched off here)"
    } else if setting("kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        "an AppArmor profile with `userns,` for this program, or sysctl kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu restricts user namespaces to programs with a profile)"
    } else {
        return None;
    };
    say(ErrorKind::NotPermitted, hint)
}

fn setting(name: &str) -> Option<i64> {
    fs::read_to_string(format!("/proc/sys/{name}")).ok()?.trim().parse().ok()
}

fn overlay(errno: Errno, kernel: &str) -> Remedy {
    use ErrorKind::*;
    let said = |text| kernel.contains(text);
    match errno {
        Errno::EPERM | Errno::EACCES => say(
            NotPermitted,
            "Linux 5.11 or later for an overlay in a user namespace; before that RootFs::dir(path).read_only(), or as root User::Inherit",
        ),
        Errno::ENODEV => say(NotSupported, "`modprobe overlay`: this kernel has no overlayfs loaded"),
        Errno::E2BIG => {
            say(InvalidSpec, "fewer layers: this kernel takes their names in one page (Linux 6.13 takes descriptors)")
        }
        Errno::EINVAL if said("upper") || said("workdir") => say(
            NotSupported,
            "an upper on ext4, xfs, btrfs or tmpfs: overlayfs, NFS and FUSE file systems cannot be written through an overlay",
        ),
        Errno::EINVAL if said("maximum") || said("stack") => {
            say(NotSupported, "layers that are not themselves overlays of overlays: the kernel stacks two")
        }
        Errno::EINVAL => say(
            NotSupported,
            "layers without submounts, on a file system that overlayfs can use; an upper that is not on overlayfs (inside a container: a volume or tmpfs); dmesg may say more",
        ),
        Errno::ELOOP => say(InvalidSpec, "layers and an upper of which none contains another"),
        Errno::EBUSY => say(Busy, "an upper that no other overlay uses"),
        Errno::ESTALE => say(Other, "the upper with the layers that it was first used with"),
        _ => None,
    }
}

fn new_fs(fstype: &[u8], errno: Errno) -> Remedy {
    use ErrorKind::*;
    match (fstype, errno) {
        (b"proc", Errno::EPERM) => say(
            NotPermitted,
            "a fully visible /proc on the host side, which the kernel asks for in a user namespace: in Docker --security-opt systempaths=unconfined, in Kubernetes procMount: Unmasked; or Mount::proc(…).or_empty()",
        ),
        (b"sysfs", Errno::EPERM) => say(
            NotPermitted,
            "Net::New together with User::New and a fully visible /sys on the host side, or no Mount::sysfs",
        ),
        (b"mqueue", Errno::EPERM) => say(NotPermitted, "Ipc::New together with User::New, or a /dev without mqueue"),
        (b"cgroup2", Errno::EPERM | Errno::EBUSY) => say(
            NotPermitted,
            "Cgroup::New, and a host with a cgroup v2 hierarchy that is fully visible; or no Mount::cgroup",
        ),
        (_, Errno::ENODEV) => say(NotSupported, "a kernel with this file system, or the plan without this mount"),
        (_, Errno::ESTALE) => {
            say(NotSupported, "a target that is a plain directory: something else is mounted over it")
        }
        _ => None,
    }
}

fn label(errno: Errno) -> Remedy {
    use ErrorKind::*;
    match errno {
        Errno::ENOENT => {
            say(NotFound, "an AppArmor profile that is loaded: apparmor_parser -r FILE; aa-status lists them")
        }
        Errno::EINVAL => say(NotFound, "a SELinux context that the loaded policy knows (seinfo, chcon -t)"),
        Errno::EACCES | Errno::EPERM => say(
            NotPermitted,
            "a host process whose own label may change to this one (AppArmor: change_profile; SELinux: process setexec)",
        ),
        Errno::EOPNOTSUPP => say(NotSupported, "a kernel with that security module, or no Security::exec_label"),
        Errno::ESTALE => say(NotPermitted, "a /proc of the host without anything mounted over its files"),
        _ => None,
    }
}

fn exec(program: &Program, errno: Errno) -> Remedy {
    use ErrorKind::*;
    let labelled = program.ops().any(|op| matches!(op, Op::ExecLabel { .. }));
    let init_is_payload = program.ops().any(|op| matches!(op, Op::Payload { stay: 0, .. }));
    match errno {
        Errno::ENOENT => say(
            ProgramNotFound,
            "a program that exists inside the sandbox, with its interpreter (#! line) and its dynamic loader (/lib64/ld-linux-….so): mount or add the directories that hold them",
        ),
        Errno::EACCES | Errno::EPERM if labelled => say(
            ProgramNotExecutable,
            "an exec label whose policy lets this program be executed, read and mapped, and that the host process's own may change to with no_new_privs; else a regular file with the x bit, on a mount without noexec",
        ),
        Errno::EACCES => say(
            ProgramNotExecutable,
            "a regular file with the x bit for the payload's user, on a mount without noexec, below directories that it may search",
        ),
        Errno::ENOEXEC => {
            say(ProgramNotExecutable, "an executable of this machine's architecture, or a script that begins with #!")
        }
        Errno::ETXTBSY => say(ProgramNotExecutable, "to close the program's file for writing first"),
        Errno::E2BIG => say(InvalidSpec, "fewer or shorter arguments and variables"),
        Errno::EPERM if init_is_payload => say(ProgramNotExecutable, "Init::Shim"),
        Errno::ELOOP => say(ProgramNotExecutable, "a program whose links do not lead in a circle"),
        _ => None,
    }
}
