//! Namespaces as ops.
//!
//! Who makes and joins what, and when, follows from who owns it: a process may join
//! or make a namespace only with CAP_SYS_ADMIN in the user namespace that owns it.
//!
//! | user namespace | other new ones | joined ones |
//! | --- | --- | --- |
//! | inherited | at clone | by the shim |
//! | new | at clone, owned by it | before it is made (then pid by the shim) |
//! | joined | by the shim, after it has joined | by the shim: root before, others after the user namespace |
//!
//! Three are always left to the shim: time, which clone3 refuses with shared memory; cgroup,
//! whose root is the cgroup that its creator is in at that moment; and network, which takes
//! longest and is made beside the rest.

use super::id_map::Resolved;
use super::*;
use crate::error::Result;
use crate::handle::Fd;
use crate::host::Host;
use crate::id::c_string;
use crate::program::{Builder, Op, Slot};
use crate::sys::namespace::NamespaceFlags;
use std::ffi::CStr;
use std::fmt::Write;

/// What the set-up takes in a new user namespace: CAP_CHOWN, DAC_OVERRIDE,
/// DAC_READ_SEARCH, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_ADMIN, SYS_CHROOT,
/// SYS_ADMIN, SYS_TIME, SETFCAP (capabilities(7)). Each costs a call before the shim runs.
const SETUP: u64 = 0x1ff | 1 << 12 | 1 << 18 | 1 << 21 | 1 << 25 | 1 << 31;
/// What it takes to lower a limit of that namespace besides.
const CAP_SYS_RESOURCE: u64 = 1 << 24;

/// The mount namespace, which the root file system decides.
pub(crate) enum MountNamespace<'a> {
    New,
    Join(&'a Namespace),
    Inherit,
}

/// What the payload is and may do, as far as namespaces are concerned.
#[derive(Clone, Copy)]
pub(crate) struct Powers<'a> {
    /// No shim stays.
    pub is_init: bool,
    /// Its capabilities.
    pub keep: u64,
    /// Limits of its user namespace, none where that is not new: the file beneath /proc, the value.
    pub limits: &'a [(&'static CStr, u32)],
}

impl Namespaces {
    /// The kinds to be made.
    fn new_flags(&self, mount: &MountNamespace<'_>) -> NamespaceFlags {
        let kinds = [
            (NamespaceFlags::USER, matches!(self.user, User::New(_))),
            (NamespaceFlags::MOUNT, matches!(mount, MountNamespace::New)),
            (NamespaceFlags::PID, matches!(self.pid, Pid::New)),
            (NamespaceFlags::NET, matches!(self.net, Net::New)),
            (NamespaceFlags::IPC, matches!(self.ipc, Ipc::New)),
            (NamespaceFlags::UTS, matches!(self.uts, Uts::New { .. })),
            (NamespaceFlags::CGROUP, matches!(self.cgroup, Cgroup::New)),
            (NamespaceFlags::TIME, matches!(self.time, Time::New { .. })),
        ];
        kinds.into_iter().filter(|(_, new)| *new).map(|(kind, _)| kind).collect()
    }

    /// Appends the entry into a new network namespace: as late as its first use allows.
    pub(crate) fn lower_network(&self, builder: &mut Builder) {
        if matches!(self.net, Net::New) {
            builder.op(Op::EnterNetwork {});
        }
    }

    /// Appends the ops, up to the ids. `ids`: the map of a new user namespace.
    pub(crate) fn lower(
        &self,
        host: &Host,
        ids: Option<&Resolved>,
        mount: &MountNamespace<'_>,
        payload: Powers<'_>,
        builder: &mut Builder,
    ) -> Result<()> {
        let Powers { is_init: payload_is_init, keep, limits } = payload;
        let new = self.new_flags(mount);
        let by_shim = NamespaceFlags::TIME | NamespaceFlags::CGROUP | NamespaceFlags::NET;
        let mut joins = self.joins(mount, builder)?;
        let joins_user = matches!(self.user, User::Join(_));
        let before = ids.is_some() && !joins.is_empty();

        let at_clone = match (joins_user, before) {
            (true, _) => NamespaceFlags::empty(),
            (_, true) => new - by_shim - NamespaceFlags::PID,
            _ => new - by_shim,
        };
        if before {
            for join in joins.drain(..) {
                let (kind, fd, name) = (join.kind.flag().bits(), join.fd, c_string(join.name.as_bytes()));
                builder.parent_op(Op::JoinFirst { kind, fd, name: &name });
            }
        }
        // of a namespace that is made here, and of no other
        let setup = if limits.is_empty() { SETUP } else { SETUP | CAP_SYS_RESOURCE };
        builder.parent_op(Op::Clone { flags: at_clone.bits(), capabilities: setup | keep });
        if let Some(ids) = ids {
            builder.parent_op(Op::MapIds {
                uid: &Resolved::text(&ids.uids),
                gid: &Resolved::text(&ids.gids),
                deny_setgroups: ids.deny_setgroups.into(),
                helper: ids.helper.into(),
            });
        }

        if host.may_mount {
            // root loses its power over what the user namespace does not own on joining it
            joins.sort_by_key(|join| join.kind == NamespaceKind::User);
        }
        for join in joins {
            let name = c_string(join.name.as_bytes());
            builder.op(Op::Join { kind: join.kind.flag().bits(), fd: join.fd, name: &name });
        }
        let rest = new - at_clone - NamespaceFlags::TIME - NamespaceFlags::NET;
        if !rest.is_empty() {
            builder.op(Op::Unshare { kind: rest.bits() });
        }
        let enters_by_fork = rest.contains(NamespaceFlags::PID) || matches!(self.pid, Pid::Join(_)) && payload_is_init;
        if let Time::New { monotonic, boottime } = self.time {
            builder.op(Op::Clocks { offsets: &offsets(monotonic, boottime) });
        }
        if enters_by_fork {
            builder.op(Op::Relaunch {});
        }
        if let Uts::New { hostname, domainname } = &self.uts {
            builder.op(Op::Hostname { name: &c_string(hostname.as_bytes()) });
            if let Some(name) = domainname {
                builder.op(Op::Domainname { name: &c_string(name.as_bytes()) });
            }
        }
        if matches!(self.net, Net::New) {
            builder.op(Op::NewNetwork {});
        }
        builder.op(Op::Signals {});
        for (file, value) in limits {
            builder.op(Op::UserLimit { file, value: u64::from(*value) });
        }
        builder.op(Op::Bounding { capabilities: keep, last: host.last_capability });
        // up to here nothing needed an id: it ran while the parent wrote the maps
        if ids.is_some() {
            builder.op(Op::Await {});
        }
        builder.op(self.setup_ids(host, ids));
        Ok(())
    }

    fn joins(&self, mount: &MountNamespace<'_>, builder: &mut Builder) -> Result<Vec<Join>> {
        let mount = match mount {
            MountNamespace::Join(namespace) => Some((NamespaceKind::Mount, *namespace)),
            _ => None,
        };
        let open = |(kind, namespace): (NamespaceKind, &Namespace)| {
            let fd: Fd = namespace.open(kind)?;
            Ok(Join { kind, fd: builder.send(fd), name: namespace.name(kind) })
        };
        self.joined().chain(mount).map(open).collect()
    }

    fn setup_ids(&self, host: &Host, ids: Option<&Resolved>) -> Op<'static> {
        match (&self.user, ids) {
            (_, Some(ids)) => Op::SetupIds {
                uid: Resolved::setup_id(&ids.uids),
                gid: Resolved::setup_id(&ids.gids),
                drop_groups: (!ids.deny_setgroups).into(),
            },
            (User::Join(_), None) => Op::SetupIds { uid: 0, gid: 0, drop_groups: 2 },
            _ => Op::SetupIds { uid: host.uid, gid: host.gid, drop_groups: host.may_map.into() },
        }
    }
}

struct Join {
    kind: NamespaceKind,
    fd: Slot,
    name: String,
}

/// Lines for `/proc/PID/timens_offsets`; nothing where nothing is shifted.
fn offsets(monotonic: ClockOffset, boottime: ClockOffset) -> Vec<u8> {
    let mut text = String::new();
    for (name, offset) in [("monotonic", monotonic), ("boottime", boottime)] {
        if offset != ClockOffset::NONE {
            // writing to a String cannot fail
            let _ = writeln!(text, "{name} {} {}", offset.seconds, offset.nanoseconds);
        }
    }
    text.into_bytes()
}
