//! Calls of the kernel that sandboxes are made of.
//!
//! Most need no namespace to be attempted, only a process that may be lost. Contract:
//! clone(2), memfd_create(2), openat2(2), seccomp(2), landlock_create_ruleset(2).

use super::policy::PROCESSES;
use super::remote::{self, Arg, Remote};
use super::{Bench, Finding, Outcome, Topic};
use crate::sys::Errno;
use crate::sys::kernel::call;
use crate::sys::namespace::NamespaceFlags;
use crate::sys::path::{CWD, OpenFlags, Resolve, openat2};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

#[cfg(target_arch = "x86_64")]
const SYS_SECCOMP: usize = 317;
#[cfg(target_arch = "aarch64")]
const SYS_SECCOMP: usize = 277;
const SYS_LANDLOCK_CREATE_RULESET: usize = 444;
const SECCOMP_GET_ACTION_AVAIL: u64 = 2;
const SECCOMP_RET_KILL_PROCESS: u32 = 0x8000_0000;
const SECCOMP_RET_USER_NOTIF: u32 = 0x7fc0_0000;
const LANDLOCK_CREATE_RULESET_VERSION: u64 = 1;

pub(super) fn examine(bench: &mut Bench) {
    let program = program(bench);
    let process = match program {
        Some(program) => start(bench, program),
        None => {
            bench.push(Finding::untried(Topic::Kernel, CLONE, "there is no program to start").needed());
            None
        }
    };
    bench.push(open_beneath());
    match process {
        Some(process) => {
            bench.push(seccomp(&process));
            bench.push(landlock(&process));
        }
        None => {
            for name in ["seccomp filters", "Landlock"] {
                bench.push(Finding::untried(Topic::Kernel, name, NO_PROCESS));
            }
        }
    }
}

/// Why things that take a process are untried.
pub(super) const NO_PROCESS: &str = "no process can be started to try it";

/// An executable without a file: a sealed memfd, else an unlinked file.
fn program(bench: &mut Bench) -> Option<OwnedFd> {
    const NAME: &str = "executable memory";
    let errno = match remote::memfd() {
        Ok(program) => {
            let detail = "memfd_create(2) with MFD_EXEC, filled and sealed";
            bench.push(Finding::new(Topic::Kernel, NAME, Outcome::Works, detail).needed());
            return Some(program);
        }
        Err(errno) => errno,
    };
    let remedy = match bench.policy.memfd_noexec {
        Some(2) => "sysctl -w vm.memfd_noexec=1".to_owned(),
        _ => bench.policy.filtered("memfd_create").unwrap_or_else(|| "a kernel with CONFIG_MEMFD_CREATE=y".into()),
    };
    match remote::unlinked() {
        Ok((program, directory)) => {
            let detail = format!("memfd_create(2): {errno}; an unlinked file in {} instead", directory.display());
            bench.push(Finding::new(Topic::Kernel, NAME, Outcome::Restricted, detail).with_remedy(remedy).needed());
            Some(program)
        }
        Err(error) => {
            let detail = format!("memfd_create(2): {errno}; and no unlinked file: {error}");
            let remedy =
                format!("{remedy}, or a /tmp, /var/tmp, /dev/shm, /run or $XDG_RUNTIME_DIR writable without noexec");
            bench.push(Finding::new(Topic::Kernel, NAME, Outcome::Refused, detail).with_remedy(remedy).needed());
            None
        }
    }
}

const CLONE: &str = "processes by clone3";

/// A process in no new namespace. Where it can be started, others can.
fn start(bench: &mut Bench, program: OwnedFd) -> Option<Remote> {
    // no descriptor has this number; a child would fail in this call, too, as if in clone3
    let closing = call::close_range(u32::MAX, u32::MAX, 0).map(drop);
    let started = Remote::start(program.as_fd(), NamespaceFlags::empty(), None);
    let (tried, answer) = match (closing, &started) {
        (Err(errno), _) => ("close_range(2)", Err(errno)),
        (_, Err(errno)) => ("clone3(2) with CLONE_VM, CLONE_VFORK and CLONE_PIDFD, and execveat(2)", Err(*errno)),
        (_, Ok(_)) => ("a static program by clone3(2) and execveat(2), named by a pidfd", Ok(())),
    };
    let policy = &bench.policy;
    let finding = Finding::attempt(Topic::Kernel, CLONE, tried, answer, |errno| match errno {
        Errno::EAGAIN => PROCESSES.into(),
        Errno::EACCES => policy.security(),
        _ => {
            policy.filtered("clone3, close_range, unshare, mount and pivot_root").unwrap_or_else(|| "Linux 5.9".into())
        }
    });
    bench.push(finding.needed());
    let process = started.ok()?;
    bench.program = Some(Rc::new(program));
    Some(process)
}

fn open_beneath() -> Finding {
    let opened = openat2(CWD, c"/", OpenFlags::PATH, 0, Resolve::IN_ROOT | Resolve::NO_MAGICLINKS).map(drop);
    Finding::attempt(Topic::Kernel, "openat2", "openat2(2) with RESOLVE_IN_ROOT", opened, |_| {
        "Linux 5.6, or a seccomp filter that allows it; paths are walked one component at a time meanwhile".into()
    })
}

fn seccomp(process: &Remote) -> Finding {
    let available = |action: u32| {
        let args = [Arg::Int(SECCOMP_GET_ACTION_AVAIL), Arg::Int(0), Arg::Bytes(&action.to_ne_bytes())];
        process.call(SYS_SECCOMP, &args).map(drop)
    };
    let killing = available(SECCOMP_RET_KILL_PROCESS);
    if let (Ok(()), Err(errno)) = (killing, available(SECCOMP_RET_USER_NOTIF)) {
        let detail = format!("seccomp(2) has no SECCOMP_RET_USER_NOTIF: {errno}");
        return Finding::new(Topic::Kernel, "seccomp filters", Outcome::Restricted, detail)
            .with_remedy("Linux 5.0, to ask the host about a call");
    }
    let tried = "seccomp(2) with SECCOMP_RET_KILL_PROCESS and SECCOMP_RET_USER_NOTIF";
    Finding::attempt(Topic::Kernel, "seccomp filters", tried, killing, |_| {
        "a kernel with CONFIG_SECCOMP_FILTER=y".into()
    })
}

fn landlock(process: &Remote) -> Finding {
    let args = [Arg::Int(0), Arg::Int(0), Arg::Int(LANDLOCK_CREATE_RULESET_VERSION)];
    let tried = "landlock_create_ruleset(2)";
    match process.call(SYS_LANDLOCK_CREATE_RULESET, &args) {
        Ok(version) => Finding::new(Topic::Kernel, "Landlock", Outcome::Works, format!("{tried}: ABI {version}")),
        Err(errno) => Finding::attempt(Topic::Kernel, "Landlock", tried, Err(errno), |errno| match errno {
            Errno::EOPNOTSUPP => "the kernel parameter lsm=landlock,… (it is built in, but off)".into(),
            _ => "Linux 5.13 with CONFIG_SECURITY_LANDLOCK=y; sandboxes do without it".into(),
        }),
    }
}
