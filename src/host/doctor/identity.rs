//! Who the caller is, and which ids it may give to a sandbox.
//!
//! Contract: capabilities(7), user_namespaces(7), subuid(5), newuidmap(1).

use super::kernel::NO_PROCESS;
use super::remote::Remote;
use super::{Bench, Finding, Outcome, Topic};
use crate::host::{SubIds, subordinate};
use crate::sys::Errno;
use crate::sys::kernel::call;
use crate::sys::namespace::NamespaceFlags;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The capabilities that widen what a caller can do for its sandboxes.
const CAPABILITIES: [(u32, &str, &str); 7] = [
    (21, "CAP_SYS_ADMIN", "id-mapped layers, sandboxes without a user namespace"),
    (7, "CAP_SETUID", "maps of many users"),
    (6, "CAP_SETGID", "maps of many groups"),
    (0, "CAP_CHOWN", "giving files to the ids of a sandbox"),
    (12, "CAP_NET_ADMIN", "links between a sandbox's network and the host's"),
    (24, "CAP_SYS_RESOURCE", "raising limits"),
    (19, "CAP_SYS_PTRACE", "joining namespaces of other users' processes"),
];

pub(super) fn examine(bench: &mut Bench) {
    bench.push(capabilities());
    bench.push(no_new_privileges(bench));
    bench.push(own_user_namespace(bench));
    bench.push(subordinate_ids(bench));
}

fn capabilities() -> Finding {
    const NAME: &str = "capabilities";
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let effective = match call::capget() {
        Ok((effective, ..)) => effective,
        Err(errno) => {
            return Finding::attempt(Topic::Identity, NAME, "capget(2)", Err(errno), |_| {
                "a seccomp filter that allows it".into()
            });
        }
    };
    let lacking: Vec<_> = CAPABILITIES.iter().filter(|(bit, ..)| effective & (1 << bit) == 0).collect();
    let who = format!("uid {uid}, gid {gid}, CapEff {effective:x}");
    match lacking.as_slice() {
        [] => Finding::new(Topic::Identity, NAME, Outcome::Works, who),
        _ if effective == 0 => {
            Finding::new(Topic::Identity, NAME, Outcome::Restricted, format!("{who}: an ordinary user"))
                .with_remedy("nothing, for most sandboxes; root for id-mapped layers and for limits on a v1 cgroup")
        }
        lacking => {
            let names: Vec<_> = lacking.iter().map(|(_, name, _)| *name).collect();
            let uses: Vec<_> = lacking.iter().map(|(_, name, purpose)| format!("{name} for {purpose}")).collect();
            let detail = format!("{who}, without {}", names.join(", "));
            Finding::new(Topic::Identity, NAME, Outcome::Restricted, detail)
                .with_remedy(format!("{}, where that is wanted", uses.join(", ")))
        }
    }
}

fn no_new_privileges(bench: &Bench) -> Finding {
    const NAME: &str = "new privileges";
    if !bench.policy.no_new_privs {
        return Finding::new(Topic::Identity, NAME, Outcome::Works, "no_new_privs is not set");
    }
    let detail = "no_new_privs is set: set-user-ID has no effect";
    Finding::new(Topic::Identity, NAME, Outcome::Restricted, detail).with_remedy(
        "IdMap::caller(), for newuidmap cannot work; or a caller without NoNewPrivileges=, \
         in Kubernetes allowPrivilegeEscalation: true",
    )
}

fn own_user_namespace(bench: &Bench) -> Finding {
    const NAME: &str = "caller's user ns";
    if bench.policy.initial {
        return Finding::new(Topic::Identity, NAME, Outcome::Works, "the initial one");
    }
    let count: u64 = bench.host.uids.iter().map(|&(_, count)| u64::from(count)).sum();
    let detail = format!("not the initial one, as far as /proc tells; it has {count} uids");
    Finding::new(Topic::Identity, NAME, Outcome::Restricted, detail)
        .with_remedy("the initial one, where trusted.* attributes, devices or many ids are wanted")
}

/// Has newuidmap(1) and newgidmap(1) write a map, unless the caller can do it itself.
fn subordinate_ids(bench: &Bench) -> Finding {
    const NAME: &str = "subordinate ids";
    let host = &bench.host;
    if host.may_map {
        let detail = "not needed: the caller may map all ids that it has";
        return Finding::new(Topic::Identity, NAME, Outcome::Works, detail);
    }
    let granted = |path| subordinate(path, host.uid).unwrap_or_default();
    let (uids, gids) = (granted("/etc/subuid"), granted("/etc/subgid"));
    let count = |ranges: &[SubIds]| ranges.iter().map(|range| u64::from(range.count)).sum::<u64>();
    let detail = format!("{} uids of /etc/subuid, {} gids of /etc/subgid", count(&uids), count(&gids));
    let (Some(uid), Some(gid)) = (uids.first(), gids.first()) else {
        return Finding::new(Topic::Identity, NAME, Outcome::Missing, detail).with_remedy(format!(
            "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {}, for IdMap::subordinate(); \
             or IdMap::caller(), which does without",
            user(host.uid)
        ));
    };
    let helpers = ["newuidmap", "newgidmap"];
    if let Some(absent) = helpers.into_iter().find(|name| in_path(name).is_none()) {
        return Finding::new(Topic::Identity, NAME, Outcome::Missing, format!("{detail}; {absent} is not in $PATH"))
            .with_remedy("the package uidmap (Debian) or shadow-utils (Fedora), for IdMap::subordinate()");
    }
    let Some(program) = &bench.program else {
        return Finding::untried(Topic::Identity, NAME, NO_PROCESS);
    };
    let remote = match Remote::start(program.as_fd(), NamespaceFlags::USER, None) {
        Ok(remote) => remote,
        Err(errno) => {
            return Finding::untried(Topic::Identity, NAME, &format!("no user namespace to map them in: {errno}"));
        }
    };
    for (helper, own, range) in [(helpers[0], host.uid, uid), (helpers[1], host.gid, gid)] {
        if let Err(Failure { status, started }) = run(helper, remote.pid(), own, range) {
            let remedy = if started {
                helper_remedy(bench, helper)
            } else {
                "higher limits of descriptors and processes; or IdMap::caller(), which does without".into()
            };
            return Finding::new(Topic::Identity, NAME, Outcome::Refused, format!("{detail}; {helper}: {status}"))
                .with_remedy(remedy);
        }
    }
    Finding::new(Topic::Identity, NAME, Outcome::Works, format!("{detail}, mapped by newuidmap and newgidmap"))
}

/// How a helper ended, if not well.
struct Failure {
    status: String,
    started: bool,
}

/// Maps root to the caller's own id, and those from 1 on to a range.
fn run(helper: &str, pid: i32, own: u32, range: &SubIds) -> Result<(), Failure> {
    let numbers = [pid.unsigned_abs(), 0, own, 1, 1, range.first, range.count];
    let output = Command::new(helper).args(numbers.map(|number| number.to_string())).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().next().unwrap_or("without a word");
            Err(Failure { status: format!("{}, {said}", output.status), started: true })
        }
        Err(error) => Err(Failure { status: Errno::of(error).to_string(), started: false }),
    }
}

/// Why a helper fails: its rights are those of its file, and of its mount.
fn helper_remedy(bench: &Bench, helper: &str) -> String {
    if bench.policy.no_new_privs {
        return "a caller without no_new_privs, or IdMap::caller()".into();
    }
    let path = in_path(helper).unwrap_or_default();
    let nosuid = nix::sys::statvfs::statvfs(&path)
        .is_ok_and(|mount| mount.flags().contains(nix::sys::statvfs::FsFlags::ST_NOSUID));
    if nosuid {
        return format!("{} on a mount without nosuid, or IdMap::caller()", path.display());
    }
    format!(
        "what its message asks for; {} must be set-user-ID root (chmod u+s) or have cap_setuid or cap_setgid (setcap); \
         or IdMap::caller()",
        path.display()
    )
}

/// Where a program is, as execvp(3) would find it.
fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok() && file.is_file())
}

/// A user's name, or its number.
fn user(uid: u32) -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}
