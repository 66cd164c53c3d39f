//! A Landlock domain for the payload (landlock(7), Linux' Documentation/userspace-api/landlock.rst).
//!
//! It says once more, in another part of the kernel, what the mounts say: where the payload may write. A
//! process in it cannot change mounts either, whatever capabilities it comes by. Rights add up along a path, so a
//! read-only place below a writable root cannot be said: there the mount alone stands.

use crate::enforce::{Enforce, Enforced, Enforcement};
use crate::error::Defect;
use crate::program::{Builder, Op};
use std::collections::BTreeSet;
use std::path::PathBuf;

// <linux/landlock.h>
const EXECUTE: u64 = 1 << 0;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_BLOCK: u64 = 1 << 11;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
const BIND_TCP: u64 = 1 << 0;
const CONNECT_TCP: u64 = 1 << 1;
const SCOPE_ABSTRACT: u64 = 1 << 0;
const SCOPE_SIGNAL: u64 = 1 << 1;

/// The first version that lets files be moved between directories (Linux 5.19): before it a domain broke rename(2).
const FILES: u32 = 2;
/// The first with ports of TCP (Linux 6.7).
const PORTS: u32 = 4;
/// The first with scopes (Linux 6.12).
const SCOPES: u32 = 6;

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
    connect: Option<BTreeSet<u16>>,
    bind: Option<BTreeSet<u16>>,
}

impl Default for Landlock {
    fn default() -> Self {
        Landlock::standard()
    }
}

impl Landlock {
    /// The default: mirrors the mount plan, and keeps abstract UNIX sockets and signals inside where the
    /// namespaces do not. At best effort: Linux 5.19 has the first, 6.12 the second, if they are compiled in.
    pub fn standard() -> Landlock {
        Landlock { files: true, enforce: None, connect: None, bind: None }
    }

    /// Opts out: no domain.
    pub fn none() -> Landlock {
        Landlock { files: false, enforce: None, connect: None, bind: None }
    }

    /// What a kernel that is too old means. Unless set, an error for ports, and a line in the report for the rest.
    pub fn enforce(mut self, enforce: Enforce) -> Landlock {
        self.enforce = Some(enforce);
        self
    }

    /// TCP connections to these ports only; Linux 6.7.
    pub fn connect_tcp(mut self, ports: impl IntoIterator<Item = u16>) -> Landlock {
        self.connect = Some(ports.into_iter().collect());
        self
    }

    /// TCP sockets bound to these ports only (0 for one that the kernel chooses); Linux 6.7. Sockets that connect
    /// without a bind are not concerned.
    pub fn bind_tcp(mut self, ports: impl IntoIterator<Item = u16>) -> Landlock {
        self.bind = Some(ports.into_iter().collect());
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
    /// The payload may mount, which a domain would forbid.
    pub may_mount: bool,
    /// It has a user namespace of its own, whose limit of others below it can be set.
    pub limits_nested: bool,
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
    pub(super) fn compile(&self, around: &Surroundings, report: &mut Enforcement, defects: &mut Vec<Defect>) -> Domain {
        let mut domain = Domain::default();
        self.compile_files(around, &mut domain, report, defects);
        self.compile_scopes(around, &mut domain, report, defects);
        if let Some(enforce) =
            (self.connect.is_some() || self.bind.is_some()).then(|| self.enforce.unwrap_or(Enforce::Required))
        {
            let name = "landlock-ports";
            if available(name, PORTS, around.abi, enforce, report, defects) {
                report.push(name, enforce, Enforced::Yes, "TCP only from and to the given ports");
                for (access, ports) in [(CONNECT_TCP, &self.connect), (BIND_TCP, &self.bind)] {
                    if let Some(ports) = ports {
                        domain.ports |= access;
                        ports.iter().for_each(|port| domain.rule(access, 2, &u64::from(*port).to_le_bytes()));
                    }
                }
            }
        }
        domain
    }

    fn compile_files(
        &self,
        around: &Surroundings,
        domain: &mut Domain,
        report: &mut Enforcement,
        defects: &mut Vec<Defect>,
    ) {
        let (name, enforce) = ("landlock-files", self.enforce.unwrap_or(Enforce::BestEffort));
        if !self.files {
            return report.push(name, enforce, Enforced::OptedOut, "no domain");
        }
        if !around.own_mounts {
            return report.push(name, enforce, Enforced::NotNeeded, "there is no mount plan to mirror");
        }
        if around.may_mount {
            return report.push(
                name,
                enforce,
                Enforced::OptedOut,
                "the payload may mount, which a domain would forbid",
            );
        }
        if !available(name, FILES, around.abi, enforce, report, defects) {
            return;
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
                    Place::Writable => write,
                    Place::Files => read | WRITE_FILE | TRUNCATE,
                    Place::Devices => read | WRITE_FILE | TRUNCATE | IOCTL_DEV,
                    Place::WritableDevices => write | IOCTL_DEV,
                };
            if rights & !root != 0 {
                domain.rule(rights, 1, crate::id::c_path(path).as_bytes_with_nul());
            }
        }
        let what = if around.root_writable {
            "no device files, no mounts"
        } else {
            "writes only to writable mounts; no device files, no mounts"
        };
        report.push(name, enforce, Enforced::Yes, what);
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
            "a newer kernel with CONFIG_SECURITY_LANDLOCK and `landlock` in lsm=, or Landlock::enforce(Enforce::BestEffort)",
        )),
        Enforce::BestEffort => report.push(name, enforce, Enforced::Unavailable, why),
    }
    false
}

/// The crate `landlock` as an oracle: the rights of each version, in the words of others.
#[cfg(test)]
mod tests {
    use super::*;
    use ::landlock::{ABI, Access, AccessFs, AccessNet, BitFlags, Scope};

    fn compiled(abi: u32) -> Domain {
        let around = Surroundings {
            abi,
            own_mounts: true,
            root_writable: false,
            places: [
                ("/w", Place::Writable),
                ("/f", Place::Files),
                ("/d", Place::Devices),
                ("/b", Place::WritableDevices),
            ]
            .map(|(path, place)| (path.into(), place))
            .into(),
            may_mount: false,
            limits_nested: false,
            own_network: false,
            own_pids: false,
        };
        let asked = Landlock::standard().connect_tcp([443]).bind_tcp([80]).enforce(Enforce::BestEffort);
        let (mut report, mut defects) = (Enforcement::default(), Vec::new());
        let domain = asked.compile(&around, &mut report, &mut defects);
        assert!(defects.is_empty());
        domain
    }

    /// Rights and object of each rule.
    fn rules(domain: &Domain) -> Vec<(u64, Vec<u8>)> {
        let (mut all, mut rest) = (Vec::new(), domain.rules.as_slice());
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
        while let Some((head, tail)) = rest.split_at_checked(16) {
            let (object, tail) = tail.split_at(word(&head[12..]) as usize);
            all.push((word(&head[..8]), object.to_vec()));
            rest = tail;
        }
        all
    }

    #[test]
    fn each_version_is_used_in_full() {
        let versions = [ABI::V2, ABI::V3, ABI::V4, ABI::V5, ABI::V6, ABI::V7, ABI::V8, ABI::V9];
        for (version, abi) in (2..).zip(versions) {
            let domain = compiled(version);
            // Not used: it would part the payload from processes that enter, which have a domain of their own.
            let all = AccessFs::from_all(abi) & !BitFlags::from(AccessFs::ResolveUnix);
            assert_eq!(domain.files, all.bits(), "files of version {version}");
            assert_eq!(domain.ports, AccessNet::from_all(abi).bits(), "ports of version {version}");
            assert_eq!(domain.scopes, Scope::from_all(abi).bits(), "scopes of version {version}");
            let read = AccessFs::from_read(abi);
            let write = all & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
            let files = read | (all & (AccessFs::WriteFile | AccessFs::Truncate));
            let ioctl = all & BitFlags::from(AccessFs::IoctlDev);
            let mut wanted = vec![
                (read.bits(), b"/\0".to_vec()),
                (write.bits(), b"/w\0".to_vec()),
                (files.bits(), b"/f\0".to_vec()),
                ((files | ioctl).bits(), b"/d\0".to_vec()),
                ((write | ioctl).bits(), b"/b\0".to_vec()),
            ];
            if version >= PORTS {
                wanted.push((AccessNet::ConnectTcp as u64, 443u64.to_le_bytes().into()));
                wanted.push((AccessNet::BindTcp as u64, 80u64.to_le_bytes().into()));
            }
            assert_eq!(rules(&domain), wanted, "rules of version {version}");
        }
        // the first breaks rename(2), and is not used; none is none
        for version in [0, 1] {
            assert!(!compiled(version).restricts());
        }
    }
}
