//! Seven of the eight kinds of namespace, each new, joined or inherited; the eighth,
//! the mount namespace, belongs to the [`RootFs`](crate::RootFs), for a root
//! cannot be without one. What a new namespace needs to know is part of its `New`.

mod id_map;
mod lease;
mod lower;

pub use id_map::{IdMap, IdRange};
pub(crate) use id_map::{Leasing, Resolved, contains as id_exists, is_shared};
pub(crate) use lease::Lease;
pub(crate) use lower::{MountNamespace, Powers};

use crate::handle::{Namespace, NamespaceKind};
use std::time::Duration;

/// The set of namespaces of a sandbox, but for the mount namespace.
///
/// The default is [`isolated`](Namespaces::isolated).
///
/// ```
/// use belljar::{Namespaces, Net, Uts};
///
/// let namespaces = Namespaces::isolated().uts(Uts::new("box")).net(Net::Inherit);
/// ```
#[derive(Clone, Debug)]
pub struct Namespaces {
    pub(crate) user: User,
    pub(crate) pid: Pid,
    pub(crate) net: Net,
    pub(crate) ipc: Ipc,
    pub(crate) uts: Uts,
    pub(crate) cgroup: Cgroup,
    pub(crate) time: Time,
}

impl Default for Namespaces {
    fn default() -> Self {
        Namespaces::isolated()
    }
}

impl Namespaces {
    /// Everything new: the caller's ids mapped by [`IdMap::automatic`], host name
    /// `belljar`, loopback only, clocks without offsets.
    pub fn isolated() -> Namespaces {
        Namespaces {
            user: User::New(IdMap::automatic()),
            pid: Pid::New,
            net: Net::New,
            ipc: Ipc::New,
            uts: Uts::new("belljar"),
            cgroup: Cgroup::New,
            time: Time::New { monotonic: ClockOffset::NONE, boottime: ClockOffset::NONE },
        }
    }

    /// Nothing new: a process of the host in all but its root. Needs CAP_SYS_ADMIN.
    pub fn inherited() -> Namespaces {
        Namespaces {
            user: User::Inherit,
            pid: Pid::Inherit,
            net: Net::Inherit,
            ipc: Ipc::Inherit,
            uts: Uts::Inherit,
            cgroup: Cgroup::Inherit,
            time: Time::Inherit,
        }
    }

    /// Sets the user namespace.
    pub fn user(mut self, user: User) -> Self {
        self.user = user;
        self
    }

    /// Sets the pid namespace.
    pub fn pid(mut self, pid: Pid) -> Self {
        self.pid = pid;
        self
    }

    /// Sets the network namespace.
    pub fn net(mut self, net: Net) -> Self {
        self.net = net;
        self
    }

    /// Sets the IPC namespace.
    pub fn ipc(mut self, ipc: Ipc) -> Self {
        self.ipc = ipc;
        self
    }

    /// Sets the UTS namespace.
    pub fn uts(mut self, uts: Uts) -> Self {
        self.uts = uts;
        self
    }

    /// Sets the cgroup namespace.
    pub fn cgroup(mut self, cgroup: Cgroup) -> Self {
        self.cgroup = cgroup;
        self
    }

    /// Sets the time namespace.
    pub fn time(mut self, time: Time) -> Self {
        self.time = time;
        self
    }
}

/// The user namespace (user_namespaces(7)): who root is inside, and what that is worth outside.
#[derive(Clone, Debug)]
pub enum User {
    /// A new one with this id map.
    New(IdMap),
    /// An existing one. All other new namespaces then belong to it.
    Join(Namespace),
    /// The caller's: needs CAP_SYS_ADMIN, and is no boundary for a payload that is root.
    Inherit,
}

/// The pid namespace (pid_namespaces(7)).
#[derive(Clone, Debug)]
pub enum Pid {
    /// A new one: its end is the end of every process in it.
    New,
    /// An existing one.
    Join(Namespace),
    /// The caller's.
    Inherit,
}

/// The network namespace (network_namespaces(7)).
#[derive(Clone, Debug)]
pub enum Net {
    /// A new one, with `lo` up and nothing else.
    New,
    /// An existing one: another sandbox's, or one of `ip netns`.
    Join(Namespace),
    /// The caller's: all its addresses, ports and abstract sockets.
    Inherit,
}

/// The IPC namespace (ipc_namespaces(7)).
#[derive(Clone, Debug)]
pub enum Ipc {
    /// A new one.
    New,
    /// An existing one.
    Join(Namespace),
    /// The caller's.
    Inherit,
}

/// The UTS namespace (uts_namespaces(7)).
#[derive(Clone, Debug)]
pub enum Uts {
    /// A new one with these names.
    New {
        /// The host name, 1 to 64 bytes.
        hostname: String,
        /// The NIS domain name, at most 64 bytes; `None` keeps the caller's.
        domainname: Option<String>,
    },
    /// An existing one.
    Join(Namespace),
    /// The caller's.
    Inherit,
}

impl Uts {
    /// A new one with this host name.
    pub fn new(hostname: impl Into<String>) -> Uts {
        Uts::New { hostname: hostname.into(), domainname: None }
    }
}

/// The cgroup namespace (cgroup_namespaces(7)): the sandbox's group as the root of the view.
#[derive(Clone, Debug)]
pub enum Cgroup {
    /// A new one.
    New,
    /// An existing one.
    Join(Namespace),
    /// The caller's.
    Inherit,
}

/// The time namespace (time_namespaces(7), Linux 5.6): two clocks, never the wall clock.
#[derive(Clone, Debug)]
pub enum Time {
    /// A new one with these offsets.
    New {
        /// Of CLOCK_MONOTONIC.
        monotonic: ClockOffset,
        /// Of CLOCK_BOOTTIME.
        boottime: ClockOffset,
    },
    /// An existing one.
    Join(Namespace),
    /// The caller's.
    Inherit,
}

/// How far a clock inside is ahead of, or behind, the host's. The resulting clock
/// may not be negative nor beyond 146 years (`ERANGE` at spawn).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    seconds: i64,
    nanoseconds: u32,
}

impl ClockOffset {
    /// The host's clock.
    pub const NONE: ClockOffset = ClockOffset { seconds: 0, nanoseconds: 0 };

    /// Ahead of the host's clock.
    pub fn ahead(by: Duration) -> ClockOffset {
        ClockOffset { seconds: i64::try_from(by.as_secs()).unwrap_or(i64::MAX), nanoseconds: by.subsec_nanos() }
    }

    /// Behind the host's clock.
    pub fn behind(by: Duration) -> ClockOffset {
        let ClockOffset { seconds, nanoseconds } = ClockOffset::ahead(by);
        match nanoseconds {
            0 => ClockOffset { seconds: -seconds, nanoseconds: 0 },
            n => ClockOffset { seconds: (-seconds).saturating_sub(1), nanoseconds: 1_000_000_000 - n },
        }
    }
}

impl Namespaces {
    /// The namespaces to join, with their kinds.
    pub(crate) fn joined(&self) -> impl Iterator<Item = (NamespaceKind, &Namespace)> {
        let user = if let User::Join(n) = &self.user { Some(n) } else { None };
        let pid = if let Pid::Join(n) = &self.pid { Some(n) } else { None };
        let net = if let Net::Join(n) = &self.net { Some(n) } else { None };
        let ipc = if let Ipc::Join(n) = &self.ipc { Some(n) } else { None };
        let uts = if let Uts::Join(n) = &self.uts { Some(n) } else { None };
        let cgroup = if let Cgroup::Join(n) = &self.cgroup { Some(n) } else { None };
        let time = if let Time::Join(n) = &self.time { Some(n) } else { None };
        [
            (NamespaceKind::User, user),
            (NamespaceKind::Pid, pid),
            (NamespaceKind::Network, net),
            (NamespaceKind::Ipc, ipc),
            (NamespaceKind::Uts, uts),
            (NamespaceKind::Cgroup, cgroup),
            (NamespaceKind::Time, time),
        ]
        .into_iter()
        .filter_map(|(kind, namespace)| Some((kind, namespace?)))
    }
}
