//! A Landlock domain for the payload (landlock(7), Linux' Documentation/userspace-api/landlock.rst).
//!
//! It says once more, in another part of the kernel, what the mounts say: where the payload may write. A
//! process in it cannot change mounts either, whatever capabilities it comes by. Rights add up along a path, so a
//! read-only place below a writable root cannot be said: there the mount alone stands.
//!
//! A process that enters a sandbox takes a domain of its own, beside the payload's. What is to hold between the sandbox and the
//! host, but not within the sandbox, is therefore a domain around both, which the sandbox's init takes and all inherit: whoever is
//! in it may connect to sockets that were bound in it.

#[cfg(test)]
mod tests;

use crate::enforce::{Enforce, Enforced, Enforcement};
use crate::error::Defect;
use crate::program::{Builder, Op};
use crate::sys::kernel::abi::{
    LANDLOCK_ACCESS_FS_EXECUTE as EXECUTE, LANDLOCK_ACCESS_FS_IOCTL_DEV as IOCTL_DEV,
    LANDLOCK_ACCESS_FS_READ_FILE as READ_FILE, LANDLOCK_ACCESS_FS_RESOLVE_UNIX as RESOLVE_UNIX,
    LANDLOCK_ACCESS_FS_TRUNCATE as TRUNCATE, LANDLOCK_ACCESS_FS_WRITE_FILE as WRITE_FILE,
};
use std::collections::BTreeSet;
use std::path::PathBuf;

// <linux/landlock.h>: those of directories; those of files are the shim's too
const READ_DIR: u64 = 1 << 3;
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_BLOCK: u64 = 1 << 11;
const REFER: u64 = 1 << 13;
const BIND_TCP: u64 = 1 << 0;
const CONNECT_TCP: u64 = 1 << 1;
const BIND_UDP: u64 = 1 << 2;
const CONNECT_SEND_UDP: u64 = 1 << 3;
const SCOPE_ABSTRACT: u64 = 1 << 0;
const SCOPE_SIGNAL: u64 = 1 << 1;

/// The first version that lets files be moved between directories (Linux 5.19): before it a domain broke rename(2).
const FILES: u32 = 2;
/// The first with ports of TCP (Linux 6.7).
const PORTS: u32 = 4;
/// The first with scopes (Linux 6.12).
const SCOPES: u32 = 6;
/// The first with UNIX sockets by their paths (Linux 7.1).
const SOCKETS: u32 = 9;
/// The first with ports of UDP (Linux 7.2).
const UDP: u32 = 10;

/// What a Landlock domain adds to the other protections.
///
/// ```
/// use belljar::{Landlock, Security};
///
/// // of TCP, nothing but connections to port 443
/// let security = Security::new().landlock(Landlock::standard().connect_tcp([443]).bind_tcp([]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landlock {
    files: bool,
    enforce: Option<Enforce>,
    sockets: Option<Enforce>,
    tcp: Ports,
    udp: Ports,
}

/// The ports of a protocol that may be used; `None` is all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ports {
    bind: Option<BTreeSet<u16>>,
    connect: Option<BTreeSet<u16>>,
}

impl Default for Landlock {
    fn default() -> Self {
        Landlock::standard()
    }
}

impl Landlock {
    /// The default: mirrors the mount plan, keeps the UNIX sockets of the host that have a path out of reach, but for those of
    /// [`Mount::socket`](crate::Mount::socket), and keeps abstract UNIX sockets and signals inside where the
    /// namespaces do not. At best effort: Linux 5.19 has the first, 7.1 the second, 6.12 the third, if they are compiled in.
    pub fn standard() -> Landlock {
        Landlock { files: true, ..Landlock::none() }
    }

    /// Opts out: no domain.
    pub fn none() -> Landlock {
        Landlock { files: false, enforce: None, sockets: None, tcp: Ports::default(), udp: Ports::default() }
    }

    /// What a kernel that is too old means. Unless set, an error for ports, and a line in the report for the rest.
    /// Sockets with a path are not concerned: [`sockets`](Landlock::sockets).
    pub fn enforce(mut self, enforce: Enforce) -> Landlock {
        self.enforce = Some(enforce);
        self
    }

    /// What it means that a kernel before Linux 7.1 cannot refuse connections to UNIX sockets that are bound in a
    /// directory of the host after the spawn; a line in the report unless set.
    pub fn sockets(mut self, enforce: Enforce) -> Landlock {
        self.sockets = Some(enforce);
        self
    }

    /// TCP connections to these ports only; Linux 6.7.
    pub fn connect_tcp(mut self, ports: impl IntoIterator<Item = u16>) -> Landlock {
        self.tcp.connect = Some(ports.into_iter().collect());
        self
    }

    /// TCP sockets bound to these ports only (0 for one that the kernel chooses); Linux 6.7. Sockets that connect
    /// without a bind are not concerned.
    pub fn bind_tcp(mut self, ports: impl IntoIterator<Item = u16>) -> Landlock {
        self.tcp.bind = Some(ports.into_iter().collect());
        self
    }

    /// UDP datagrams to these ports only, by connect(2) or by an address with each; Linux 7.2. What comes in is not
    /// concerned.
    pub fn send_udp(mut self, ports: impl IntoIterator<Item = u16>) -> Landlock {
        self.udp.connect = Some(ports.into_iter().collect());
        self
    }

    /// UDP sockets bound to these ports only; Linux 7.2. A socket that sends without a bind is bound to a port that the
    /// kernel chooses, which is port 0 here.
    pub fn bind_udp(mut self, ports: impl IntoIterator<Item = u16>) -> Landlock {
        self.udp.bind = Some(ports.into_iter().collect());
        self
    }
}

/// What the rest of the specification says of files and processes.
pub(crate) struct Surroundings {
    /// The version that the kernel has, 0 for none.
    pub abi: u32,
    /// The root and the mounts are the sandbox's own.
    pub own_mounts: bool,
    /// Whether the root takes writes.
    pub root_writable: bool,
    /// Places with rights of their own.
    pub places: Vec<(PathBuf, Place)>,
    /// Sockets of the host, and directories with some, that the payload may talk to.
    pub sockets: Vec<PathBuf>,
    /// The payload may mount, which a domain would forbid.
    pub may_mount: bool,
    /// The inotify quota (instances, watches) of the caller, if the sandbox has a user namespace of its own whose limits can be
    /// set.
    pub user_limits: Option<[u32; 2]>,
    /// It has a network namespace, and a pid namespace, of its own.
    pub own_network: bool,
    pub own_pids: bool,
}

/// What a mount lets be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// All that a directory allows.
    Writable,
    /// Files that are there may be written: /proc.
    Files,
    /// The same, and they are devices.
    Devices,
    /// A writable directory with devices.
    WritableDevices,
    /// Message queues, which mq_open(3) finds by no path beneath the root: only a rule of their own allows them.
    Queues,
}

/// What a [`Landlock`] is compiled to.
#[derive(Debug, Default)]
pub(super) struct Domains {
    /// Of the sandbox's init, and so around all that runs in it.
    pub sandbox: Domain,
    /// Of the payload, and of each process that enters.
    pub process: Domain,
}

/// A domain, as the shim makes it.
#[derive(Debug, Default)]
pub(super) struct Domain {
    files: u64,
    ports: u64,
    scopes: u64,
    rules: Vec<u8>,
}

impl Domain {
    /// Whether there is anything in it.
    pub fn restricts(&self) -> bool {
        self.files | self.ports | self.scopes != 0
    }

    pub fn lower(&self, builder: &mut Builder) {
        let Domain { files, ports, scopes, rules } = self;
        if self.restricts() {
            builder.op(Op::Landlock { files: *files, ports: *ports, scopes: *scopes, rules });
        }
    }

    /// `access u64 | kind u32 (1 path, 2 port) | length u32 | bytes`
    fn rule(&mut self, access: u64, kind: u32, bytes: &[u8]) {
        self.rules.extend(access.to_le_bytes());
        self.rules.extend(kind.to_le_bytes());
        self.rules.extend((bytes.len() as u32).to_le_bytes());
        self.rules.extend(bytes);
    }
}

impl Landlock {
    pub(super) fn compile(
        &self,
        around: &Surroundings,
        report: &mut Enforcement,
        defects: &mut Vec<Defect>,
    ) -> Domains {
        let Domains { mut sandbox, mut process } = Domains::default();
        if self.compile_files(around, &mut process, report, defects) {
            self.compile_sockets(around, &mut sandbox, report, defects);
        }
        self.compile_scopes(around, &mut process, report, defects);
        let tcp = ("landlock-ports", PORTS, [BIND_TCP, CONNECT_TCP], "TCP only from and to the given ports");
        let udp = ("landlock-udp-ports", UDP, [BIND_UDP, CONNECT_SEND_UDP], "UDP only from and to the given ports");
        for (Ports { bind, connect }, (name, since, access, what)) in [(&self.tcp, tcp), (&self.udp, udp)] {
            let asked = access.into_iter().zip([bind, connect]).filter_map(|(bit, ports)| Some((bit, ports.as_ref()?)));
            let enforce = self.enforce.unwrap_or(Enforce::Required);
            if asked.clone().count() == 0 || !available(name, since, around.abi, enforce, report, defects) {
                continue;
            }
            report.push(name, enforce, Enforced::Yes, what);
            for (bit, ports) in asked {
                process.ports |= bit;
                ports.iter().for_each(|port| process.rule(bit, 2, &u64::from(*port).to_le_bytes()));
            }
        }
        Domains { sandbox, process }
    }

    /// Whether there is a mount plan that the payload cannot change, so that rules by paths mean something.
    fn compile_files(
        &self,
        around: &Surroundings,
        domain: &mut Domain,
        report: &mut Enforcement,
        defects: &mut Vec<Defect>,
    ) -> bool {
        let (name, enforce) = ("landlock-files", self.enforce.unwrap_or(Enforce::BestEffort));
        let without = match self.files {
            false => Some((Enforced::OptedOut, "no domain")),
            _ if !around.own_mounts => Some((Enforced::NotNeeded, "there is no mount plan to mirror")),
            _ if around.may_mount => Some((Enforced::OptedOut, "the payload may mount, which a domain would forbid")),
            _ => None,
        };
        if let Some((enforced, why)) = without {
            report.push(name, enforce, enforced, why);
            return false;
        }
        if !available(name, FILES, around.abi, enforce, report, defects) {
            return true;
        }
        let since = [(2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)];
        domain.files =
            since.iter().filter(|(abi, _)| *abi <= around.abi).fold((1 << 13) - 1, |all, (_, bit)| all | bit);
        let handled = domain.files;
        let read = EXECUTE | READ_FILE | READ_DIR;
        let write = handled & !(MAKE_CHAR | MAKE_BLOCK | IOCTL_DEV);
        let root = if around.root_writable { write } else { read };
        domain.rule(root, 1, b"/\0");
        for (path, place) in &around.places {
            let rights = handled
                & match place {
                    Place::Writable | Place::Queues => write,
                    Place::Files => read | WRITE_FILE | TRUNCATE,
                    Place::Devices => read | WRITE_FILE | TRUNCATE | IOCTL_DEV,
                    Place::WritableDevices => write | IOCTL_DEV,
                };
            if rights & !root != 0 || *place == Place::Queues {
                domain.rule(rights, 1, crate::id::c_path(path).as_bytes_with_nul());
            }
        }
        let what = if around.root_writable {
            "no device files, no mounts"
        } else {
            "writes only to writable mounts; no device files, no mounts"
        };
        report.push(name, enforce, Enforced::Yes, what);
        true
    }

    /// Who is outside of a domain cannot be connected to from inside by the path of a socket, except where a rule
    /// says so. Every domain forbids files to be moved between directories unless it allows that in words (REFER).
    fn compile_sockets(
        &self,
        around: &Surroundings,
        domain: &mut Domain,
        report: &mut Enforcement,
        defects: &mut Vec<Defect>,
    ) {
        let (name, enforce) = ("landlock-sockets", self.sockets.unwrap_or(Enforce::BestEffort));
        if !available(name, SOCKETS, around.abi, enforce, report, defects) {
            return;
        }
        domain.files = REFER | RESOLVE_UNIX;
        domain.rule(REFER, 1, b"/\0");
        for path in &around.sockets {
            domain.rule(RESOLVE_UNIX, 1, crate::id::c_path(path).as_bytes_with_nul());
        }
        report.push(name, enforce, Enforced::Yes, "no UNIX socket of the host's by its path, but by Mount::socket");
    }

    fn compile_scopes(
        &self,
        around: &Surroundings,
        domain: &mut Domain,
        report: &mut Enforcement,
        defects: &mut Vec<Defect>,
    ) {
        let (name, enforce) = ("landlock-scopes", self.enforce.unwrap_or(Enforce::BestEffort));
        if !self.files {
            return;
        }
        let scopes =
            if around.own_network { 0 } else { SCOPE_ABSTRACT } | if around.own_pids { 0 } else { SCOPE_SIGNAL };
        if scopes == 0 {
            return report.push(
                name,
                enforce,
                Enforced::NotNeeded,
                "the network and pid namespaces are the sandbox's own",
            );
        }
        if available(name, SCOPES, around.abi, enforce, report, defects) {
            domain.scopes = scopes;
            report.push(name, enforce, Enforced::Yes, "abstract UNIX sockets and signals stay inside");
        }
    }
}

/// Whether the kernel has it; if not, that is a defect or a line of the report.
fn available(
    name: &'static str,
    wanted: u32,
    abi: u32,
    enforce: Enforce,
    report: &mut Enforcement,
    defects: &mut Vec<Defect>,
) -> bool {
    if abi >= wanted {
        return true;
    }
    let has = if abi == 0 { "no Landlock".to_owned() } else { format!("version {abi} of Landlock") };
    let why = format!("this kernel has {has}, and it takes version {wanted}");
    match enforce {
        Enforce::Required => defects.push(Defect::new(
            format!("{name} cannot be enforced: {why}"),
            "a newer kernel with CONFIG_SECURITY_LANDLOCK and `landlock` in lsm=, or Enforce::BestEffort for it",
        )),
        Enforce::BestEffort => report.push(name, enforce, Enforced::Unavailable, why),
    }
    false
}
