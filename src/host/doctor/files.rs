//! Mounts, attempted where they cannot be seen: in the new mount namespace of a process
//! that is root in its user namespace, as a sandbox is put together.
//!
//! Contract: mount_namespaces(7), mount(2), fsopen(2), mount_setattr(2), pivot_root(2),
//! `Documentation/filesystems/overlayfs.rst`.

use super::policy::Policy;
use super::remote::{Arg, Remote};
use super::{Bench, Finding, Topic};
use crate::sys::kernel::abi::*;
use crate::sys::kernel::raw::nr;
use crate::sys::mount::{AttrChange, OpenTreeFlags, mount_setattr, open_tree};
use crate::sys::namespace::NamespaceFlags;
use crate::sys::path::CWD;
use crate::sys::{Errno, Result};
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::AsFd;

/// One thing to try in the process, after those above it.
struct Attempt {
    name: &'static str,
    needed: bool,
    tried: &'static str,
    run: fn(&Remote) -> Result<()>,
    remedy: fn(Errno, &Policy) -> String,
}

/// Without these nothing else is tried: mounts might reach the host, or be on it.
const FIRST: [Attempt; 2] = [
    Attempt {
        name: "rights over mounts",
        needed: true,
        tried: "mount(2) MS_REC|MS_PRIVATE of /",
        run: |inside| mount(inside, None, c"/", None, MS_REC | MS_PRIVATE, None),
        remedy: |_, policy| policy.security(),
    },
    Attempt {
        name: "tmpfs",
        needed: true,
        tried: "mount(2) of a tmpfs over /",
        run: scratch,
        remedy: |errno, policy| match errno {
            Errno::ENODEV => "a kernel with CONFIG_TMPFS=y".into(),
            _ => policy.security(),
        },
    },
];

const REST: [Attempt; 9] = [
    Attempt {
        name: "proc",
        needed: true,
        tried: "mount(2) of a proc for the new pid namespace",
        run: |inside| new_fs(inside, c"proc", c"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None),
        remedy: |errno, policy| policy.proc(errno),
    },
    Attempt {
        name: "devpts",
        needed: true,
        tried: "mount(2) of a devpts",
        run: |inside| {
            new_fs(inside, c"devpts", c"pts", MS_NOSUID | MS_NOEXEC, Some(c"newinstance,ptmxmode=0666,mode=0620"))
        },
        remedy: |errno, policy| match errno {
            Errno::ENODEV => "a kernel with CONFIG_UNIX98_PTYS=y".into(),
            _ => policy.security(),
        },
    },
    Attempt {
        name: "bind mounts",
        needed: true,
        tried: "mount(2) MS_BIND|MS_REC of the host's root",
        run: |inside| {
            mkdir(inside, c"host")?;
            mount(inside, Some(c"/"), c"host", None, MS_BIND | MS_REC, None)
        },
        remedy: |_, policy| policy.security(),
    },
    Attempt {
        name: "overlayfs",
        needed: false,
        tried: "mount(2) of an overlay of one layer and an upper",
        run: overlay,
        remedy: |errno, policy| match errno {
            Errno::ENODEV => "modprobe overlay, or RootFs::host() or RootFs::empty(), which do without".into(),
            Errno::EPERM | Errno::EINVAL => {
                "Linux 5.11 to mount it in a user namespace; or RootFs::host() or RootFs::empty(), which do without"
                    .into()
            }
            _ => policy.security(),
        },
    },
    Attempt {
        name: "tmpfs attributes",
        needed: false,
        tried: "setxattr(2) of user.belljar on a tmpfs",
        run: |inside| {
            let args = [Arg::Text(c"upper"), Arg::Text(c"user.belljar"), Arg::Bytes(b"1"), Arg::Int(1), Arg::Int(0)];
            inside.call(nr::setxattr, &args).map(drop)
        },
        remedy: |_, _| {
            "Linux 6.6; until then a discarded upper cannot replace a directory of a layer, but Upper::Persist can"
                .into()
        },
    },
    Attempt {
        name: "mounts by descriptor",
        needed: false,
        tried: "fsopen(2), fsconfig(2), fsmount(2), move_mount(2) of a tmpfs",
        run: |inside| {
            let tree = detached(inside)?;
            mkdir(inside, c"tree")?;
            let flags = Arg::Int(MOVE_MOUNT_F_EMPTY_PATH.into());
            let args = [Arg::Int(tree), Arg::Text(c""), Arg::Int(CWD_FD), Arg::Text(c"tree"), flags];
            inside.call(nr::move_mount, &args).map(drop)
        },
        remedy: |_, _| "Linux 5.2, or a seccomp filter that allows them; mount(2) by path is used meanwhile".into(),
    },
    Attempt {
        name: "mount_setattr",
        needed: false,
        tried: "mount_setattr(2) MOUNT_ATTR_NODEV of the tmpfs",
        run: |inside| {
            // struct mount_attr: attr_set, attr_clr, propagation, userns_fd
            let words = [MOUNT_ATTR_NODEV, 0, 0, 0];
            let attr: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            let args = [Arg::Int(CWD_FD), Arg::Text(c"."), Arg::Int(0), Arg::Bytes(&attr), Arg::Int(attr.len() as u64)];
            inside.call(nr::mount_setattr, &args).map(drop)
        },
        remedy: |_, _| {
            "Linux 5.12, or a seccomp filter that allows it; mounts are remounted one by one meanwhile".into()
        },
    },
    Attempt {
        name: "layers by descriptor",
        needed: false,
        tried: "fsconfig(2) FSCONFIG_SET_FD of an overlay's lowerdir+",
        run: |inside| {
            let args = [Arg::Int(CWD_FD), Arg::Text(c"lower"), Arg::Int((O_PATH | O_DIRECTORY) as u64)];
            let layer = inside.call(nr::openat, &args)?;
            let fs = fsopen(inside, c"overlay")?;
            fsconfig(inside, fs, FSCONFIG_SET_FD, Some(c"lowerdir+"), layer as u64)
        },
        remedy: |_, _| "Linux 6.13; until then the names of all layers must fit into a page".into(),
    },
    // last, for it changes what all paths mean
    Attempt {
        name: "pivot_root",
        needed: false,
        tried: "pivot_root(2) into a tmpfs",
        run: |inside| {
            new_fs(inside, c"tmpfs", c"root", 0, None)?;
            inside.call(nr::chdir, &[Arg::Text(c"root")])?;
            inside.call(nr::pivot_root, &[Arg::Text(c"."), Arg::Text(c".")]).map(drop)
        },
        remedy: |errno, policy| match errno {
            Errno::EINVAL => {
                "a root that is mounted on another, not the initramfs; MS_MOVE and chroot(2) are used meanwhile".into()
            }
            _ => policy.security(),
        },
    },
];

/// `AT_FDCWD` as a word.
const CWD_FD: u64 = AT_FDCWD as i64 as u64;

/// `inside`: a process in new namespaces, if there could be one.
pub(super) fn examine(bench: &mut Bench, inside: Option<&Remote>) {
    let mut why = match inside {
        Some(_) => None,
        None => Some("there is no mount namespace to try it in".to_owned()),
    };
    for (attempt, first) in FIRST.iter().map(|a| (a, true)).chain(REST.iter().map(|a| (a, false))) {
        let mut finding = match (&why, inside) {
            (None, Some(inside)) => {
                let answer = (attempt.run)(inside);
                if first && answer.is_err() {
                    why = Some(format!("not without {:?}", attempt.name));
                }
                let remedy = |errno| (attempt.remedy)(errno, &bench.policy);
                Finding::attempt(Topic::Files, attempt.name, attempt.tried, answer, remedy)
            }
            (why, _) => Finding::untried(Topic::Files, attempt.name, why.as_deref().unwrap_or_default()),
        };
        finding.needed = attempt.needed;
        bench.push(finding);
    }
    let finding = id_mapped(bench, inside);
    bench.push(finding);
}

fn mkdir(inside: &Remote, name: &CStr) -> Result<()> {
    inside.call(nr::mkdirat, &[Arg::Int(CWD_FD), Arg::Text(name), Arg::Int(0o755)]).map(drop)
}

fn mount(
    inside: &Remote,
    source: Option<&CStr>,
    target: &CStr,
    fstype: Option<&CStr>,
    flags: usize,
    data: Option<&CStr>,
) -> Result<()> {
    let args = [or_null(source), Arg::Text(target), or_null(fstype), Arg::Int(flags as u64), or_null(data)];
    inside.call(nr::mount, &args).map(drop)
}

fn or_null(text: Option<&CStr>) -> Arg<'_> {
    text.map_or(Arg::Int(0), Arg::Text)
}

/// A new file system on a new directory of the scratch.
fn new_fs(inside: &Remote, fstype: &CStr, target: &CStr, flags: usize, data: Option<&CStr>) -> Result<()> {
    mkdir(inside, target)?;
    mount(inside, Some(fstype), target, Some(fstype), flags, data)
}

/// A tmpfs to work in. `..` of the root stays at the root, and then steps onto what is mounted there.
fn scratch(inside: &Remote) -> Result<()> {
    mount(inside, Some(c"tmpfs"), c"/", Some(c"tmpfs"), 0, Some(c"mode=0700,size=1m"))?;
    inside.call(nr::chdir, &[Arg::Text(c"/..")])?;
    [c"lower", c"upper", c"work"].into_iter().try_for_each(|name| mkdir(inside, name))
}

/// Marks are kept in `user.*` attributes where `trusted.*` ones may not be used.
fn overlay(inside: &Remote) -> Result<()> {
    let options = match inside.is_in(NamespaceFlags::USER) {
        true => c"lowerdir=lower,upperdir=upper,workdir=work,userxattr",
        false => c"lowerdir=lower,upperdir=upper,workdir=work",
    };
    new_fs(inside, c"overlay", c"merged", 0, Some(options))
}

fn fsopen(inside: &Remote, fstype: &CStr) -> Result<u64> {
    inside.call(nr::fsopen, &[Arg::Text(fstype), Arg::Int(0)]).map(|fd| fd as u64)
}

fn fsconfig(inside: &Remote, fs: u64, command: u32, key: Option<&CStr>, aux: u64) -> Result<()> {
    let args = [Arg::Int(fs), Arg::Int(command.into()), or_null(key), Arg::Int(0), Arg::Int(aux)];
    inside.call(nr::fsconfig, &args).map(drop)
}

/// A tmpfs that is nowhere.
fn detached(inside: &Remote) -> Result<u64> {
    let fs = fsopen(inside, c"tmpfs")?;
    fsconfig(inside, fs, FSCONFIG_CMD_CREATE, None, 0)?;
    inside.call(nr::fsmount, &[Arg::Int(fs), Arg::Int(0), Arg::Int(0)]).map(|fd| fd as u64)
}

/// Layers with their ids mapped, which the parent makes, if it may, from trees of the host.
fn id_mapped(bench: &Bench, inside: Option<&Remote>) -> Finding {
    const NAME: &str = "id-mapped mounts";
    let Some(inside) = inside.filter(|inside| bench.host.may_mount && inside.is_in(NamespaceFlags::USER)) else {
        let why = "only a caller with CAP_SYS_ADMIN makes them, in a user namespace";
        return Finding::untried(Topic::Files, NAME, why);
    };
    let attempt = || -> Result<()> {
        let tree = open_tree(CWD, c"/", OpenTreeFlags::CLONE)?;
        let user = File::open(format!("/proc/{}/ns/user", inside.pid())).map_err(Errno::of)?;
        mount_setattr(tree.as_fd(), c"", &AttrChange { id_map: Some(user.as_fd()), ..AttrChange::default() })
    };
    let tried = "mount_setattr(2) MOUNT_ATTR_IDMAP of a detached clone of /";
    const NOBODY: &str = "else files of the host's root belong to nobody inside";
    Finding::attempt(Topic::Files, NAME, tried, attempt(), |errno| match errno {
        Errno::ENOSYS => format!("Linux 5.12; {NOBODY}"),
        Errno::EINVAL => format!("layers on a file system that can: ext4, xfs, btrfs, tmpfs, …; {NOBODY}"),
        Errno::EPERM if !bench.policy.initial => {
            format!(
                "layers on a file system of the caller's own user namespace, or a caller in the initial one; {NOBODY}"
            )
        }
        _ => bench.policy.security(),
    })
}
