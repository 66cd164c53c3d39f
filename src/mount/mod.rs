//! The mount plan: what is mounted where in the new root, in order.

mod lower;
mod owner;
mod rights;
mod standard;

pub(crate) use lower::Context;
pub(crate) use owner::Outside;
use owner::Ownership;
pub(crate) use rights::Right;

use crate::handle::Lease;
use crate::units::Bytes;
use std::path::{Path, PathBuf};

/// One mount, or one change to a path, of the plan.
///
/// Everything is `nosuid` and `nodev` unless said otherwise. Targets are paths inside
/// the sandbox and are resolved beneath its root: a link in a layer cannot lead out.
///
/// ```
/// use belljar::{Bytes, Missing, Mount};
///
/// let plugins = Mount::bind("/srv/plugins", "/plugins").read_only().missing(Missing::Error);
/// let cache = Mount::tmpfs("/var/cache").bytes(Bytes::mib(16)).mode(0o700);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub(crate) kind: Kind,
    pub(crate) target: PathBuf,
    pub(crate) options: Options,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bind { source: PathBuf, socket: bool },
    Tmpfs { bytes: Bytes, inodes: u64, mode: u32 },
    Proc,
    Sysfs,
    Devpts,
    Mqueue,
    Cgroup,
    Dev,
    Mask,
    ReadOnly,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub read_only: bool,
    pub noexec: bool,
    pub suid: bool,
    pub dev: bool,
    pub idmapped: bool,
    pub ownership: Ownership,
    pub or_empty: bool,
    pub subset: ProcSubset,
    pub hide_pids: Option<HidePids>,
    pub propagation: Option<Propagation>,
    pub missing: Missing,
    /// What is in use by it.
    pub lease: Option<Lease>,
}

/// What to do when a mount's target is not in the root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// Fail with [`ErrorKind::NotFound`](crate::ErrorKind::NotFound).
    Error,
    /// Leave the mount out.
    Skip,
    /// Make it: in the init layer, the upper or a tmpfs of the sandbox, never in a
    /// directory of the host. The default.
    #[default]
    Create,
}

/// What a proc shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProcSubset {
    /// Processes, and what the kernel tells of the whole machine. The default.
    #[default]
    All,
    /// Processes alone (`subset=pid` of proc(5), Linux 5.8): no `/proc/sys`, no `meminfo`, no `cpuinfo`. Then nothing is
    /// left to mask; but many programs look for those files, so that this is no default.
    Pids,
}

/// Whose processes a proc shows to whom (`hidepid` of proc(5), for one mount alone since Linux 5.8). One's own are those that one
/// could trace (ptrace(2)); the sandbox's init is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HidePids {
    /// Of others' processes there are the numbers, and nothing can be read.
    NoAccess,
    /// Others' processes are not there.
    Invisible,
    /// The same, also for members of the group that proc exempts.
    Ptraceable,
}

/// How mounts made later spread (mount_namespaces(7)). The sandbox's own default is private.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Neither way.
    Private,
    /// From the source's peers into the sandbox (only where the tree is shared with them).
    Slave,
    /// Among mount namespaces made from the sandbox's.
    Shared,
    /// Neither way, and never to be bound again.
    Unbindable,
}

impl Mount {
    fn new(kind: Kind, target: impl Into<PathBuf>) -> Mount {
        Mount { kind, target: target.into(), options: Options::default() }
    }

    /// A file or directory of the host, with what is mounted below it. Writable unless
    /// [`read_only`](Mount::read_only); hides what the root has there. A relative source
    /// is taken from the working directory of `build`.
    ///
    /// In a sandbox of root's, who owns the source of a writable bind is root inside, unless that is the host's root:
    /// [`map_owner`](Mount::map_owner), [`keep_owner`](Mount::keep_owner).
    ///
    /// A UNIX socket is refused here: connecting needs no write access, so a read-only
    /// bind would not protect what listens on it. See [`socket`](Mount::socket). So is a directory below which
    /// there is one at spawn, as far as `/proc/net/unix` tells: not those that are bound later, by a relative path,
    /// or in other network namespaces. To these the payload cannot connect from Linux 7.1 on (Landlock 9), to
    /// those that were bound inside the sandbox it can.
    pub fn bind(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Mount {
        Mount::new(Kind::Bind { source: source.into(), socket: false }, target)
    }

    /// A UNIX socket of the host, or a directory with some: the payload may talk to what listens there, or in a directory that
    /// sandboxes share.
    pub fn socket(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Mount {
        Mount::new(Kind::Bind { source: source.into(), socket: true }, target)
    }

    /// An empty tmpfs: 64 MiB, 8192 inodes, mode 0755 unless set.
    pub fn tmpfs(target: impl Into<PathBuf>) -> Mount {
        Mount::new(Kind::Tmpfs { bytes: Bytes::mib(64), inodes: 8192, mode: 0o755 }, target)
    }

    /// proc(5) of the sandbox's pid namespace, `noexec`. In a user namespace the kernel
    /// grants it only where the host's own `/proc` is fully visible (`EPERM` in most
    /// containers); see [`or_empty`](Mount::or_empty).
    pub fn proc(target: impl Into<PathBuf>) -> Mount {
        Mount::new(Kind::Proc, target).noexec()
    }

    /// sysfs(5) of the sandbox's network namespace, read-only and `noexec`; firmware and powercap masked.
    pub fn sysfs(target: impl Into<PathBuf>) -> Mount {
        Mount::new(Kind::Sysfs, target).noexec().read_only()
    }

    /// An instance of devpts of its own, `noexec`, with at most 64 terminals.
    pub fn devpts(target: impl Into<PathBuf>) -> Mount {
        Mount::new(Kind::Devpts, target).noexec()
    }

    /// POSIX message queues (mq_overview(7)) of the sandbox's IPC namespace, `noexec`.
    pub fn mqueue(target: impl Into<PathBuf>) -> Mount {
        Mount::new(Kind::Mqueue, target).noexec()
    }

    /// The cgroup v2 tree as the sandbox's cgroup namespace shows it, read-only and `noexec`.
    pub fn cgroup(target: impl Into<PathBuf>) -> Mount {
        Mount::new(Kind::Cgroup, target).noexec().read_only()
    }

    /// A `/dev` with `null zero full random urandom tty`, the links of `fd stdin stdout
    /// stderr ptmx core`, and `pts`, `shm` (64 MiB, `noexec`) and `mqueue` in it.
    pub fn dev(target: impl Into<PathBuf>) -> Mount {
        Mount::new(Kind::Dev, target)
    }

    /// Covers a path of the root: a file by the null device, a directory by an empty
    /// read-only tmpfs. A missing path is covered already.
    pub fn mask(path: impl Into<PathBuf>) -> Mount {
        Mount::new(Kind::Mask, path)
    }

    /// Makes a path of the root read-only, with what is mounted below. Skipped when missing.
    pub fn read_only_path(path: impl Into<PathBuf>) -> Mount {
        Mount::new(Kind::ReadOnly, path)
    }

    /// Read-only, with all submounts (mount_setattr(2), Linux 5.12; before, one remount each).
    pub fn read_only(mut self) -> Self {
        self.options.read_only = true;
        self
    }

    /// Nothing on it can be executed.
    pub fn noexec(mut self) -> Self {
        self.options.noexec = true;
        self
    }

    /// Opts out of `nosuid`. Without effect on a payload with no_new_privs.
    pub fn allow_suid(mut self) -> Self {
        self.options.suid = true;
        self
    }

    /// Opts out of `nodev`: device files of the source can be opened. In a user
    /// namespace only those of mounts that allow it already.
    pub fn allow_devices(mut self) -> Self {
        self.options.dev = true;
        self
    }

    /// Maps ids through the sandbox's map, so that the host's root is root inside and what
    /// the sandbox writes belongs to the host's ids (Linux 5.12; needs CAP_SYS_ADMIN, a new
    /// user namespace, and a file system that supports it). For binds. Opts out of a protection if the bind can be written: what the payload
    /// leaves there with a set-uid bit is the host's root's.
    pub fn idmapped(mut self) -> Self {
        self.options.idmapped = true;
        self
    }

    /// Makes the owner of the source root inside, and what root inside writes the owner's: for root's sandboxes, whose ids are
    /// otherwise strangers to the host. It is the default of a bind that can be written, where it can be had; here it is required, and for read-only binds too. All other
    /// ids stay as they are (Linux 5.12, a file system that supports it).
    ///
    /// What is private to the owner can then be read, and what the payload leaves with a set-uid bit is the owner's. The host's
    /// root is never made root inside: a source that it owns stays as it is, which is an error here.
    pub fn map_owner(mut self) -> Self {
        self.options.ownership = Ownership::Owner;
        self
    }

    /// Leaves the ids of a bind as they are: what is written belongs to the sandbox's ids of the host.
    pub fn keep_owner(mut self) -> Self {
        self.options.ownership = Ownership::AsIs;
        self
    }

    /// Sets the propagation of a bind.
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.options.propagation = Some(propagation);
        self
    }

    /// Settles for an empty read-only directory where the kernel refuses a proc: in a
    /// container whose own `/proc` is masked. Without effect on other kinds.
    pub fn or_empty(mut self) -> Self {
        self.options.or_empty = true;
        self
    }

    /// What a proc shows; all unless set. Without effect on other kinds.
    pub fn subset(mut self, subset: ProcSubset) -> Self {
        self.options.subset = subset;
        self
    }

    /// Hides others' processes in a proc: those of other users of the sandbox, and its init. Without effect on other kinds.
    ///
    /// [`Command::cpu_time`](crate::Command::cpu_time) then takes a control group that counts, for the sandbox's init
    /// does not see them either.
    pub fn hide_pids(mut self, hide: HidePids) -> Self {
        self.options.hide_pids = Some(hide);
        self
    }

    /// What to do when the target is missing.
    pub fn missing(mut self, missing: Missing) -> Self {
        self.options.missing = missing;
        self
    }

    /// The size of a tmpfs, at least one page. Without effect on other kinds.
    pub fn bytes(mut self, size: Bytes) -> Self {
        if let Kind::Tmpfs { bytes, .. } = &mut self.kind {
            *bytes = size;
        }
        self
    }

    /// The number of inodes of a tmpfs, at least 1. Without effect on other kinds.
    pub fn inodes(mut self, count: u64) -> Self {
        if let Kind::Tmpfs { inodes, .. } = &mut self.kind {
            *inodes = count;
        }
        self
    }

    /// The permission bits of a tmpfs's root, 0 to 0o7777. Without effect on other kinds.
    pub fn mode(mut self, bits: u32) -> Self {
        if let Kind::Tmpfs { mode, .. } = &mut self.kind {
            *mode = bits;
        }
        self
    }

    /// The path inside the sandbox.
    pub fn target(&self) -> &Path {
        &self.target
    }
}

/// An ordered list of mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounts(pub(crate) Vec<Mount>);

impl Default for Mounts {
    fn default() -> Self {
        Mounts::standard()
    }
}

impl Mounts {
    /// No mounts but the root.
    pub fn none() -> Mounts {
        Mounts(Vec::new())
    }

    /// Appends a mount.
    pub fn mount(mut self, mount: Mount) -> Self {
        self.0.push(mount);
        self
    }

    /// What of a store the mounts use.
    pub(crate) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.0.iter().filter_map(|mount| mount.options.lease.as_ref())
    }

    /// The mounts in order.
    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.0.iter()
    }
}

impl FromIterator<Mount> for Mounts {
    fn from_iter<I: IntoIterator<Item = Mount>>(mounts: I) -> Self {
        Mounts(mounts.into_iter().collect())
    }
}
