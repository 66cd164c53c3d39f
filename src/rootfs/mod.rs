//! The root file system: what a sandbox stands on.
//!
//! Layers below (read-only, never written), an init layer of entries that are true
//! for this sandbox only, and an upper that takes the writes.

mod changes;
mod init_layer;
mod lower;
mod persist;

use crate::handle::{Lease, Namespace};
use crate::preset::Preset;
use crate::units::Bytes;
pub(crate) use changes::Ranges;
pub use changes::{Change, ChangeKind, Changes, ChangesIter, InInitLayer, Keep, KeepTotals};
use init_layer::Entry;
pub(crate) use lower::{Kept, Source, Target};
#[cfg(feature = "image")]
pub(crate) use persist::{noted as noted_ids, noted_init};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// The root file system of a sandbox, and with it its mount namespace.
///
/// ```
/// use belljar::{Bytes, RootFs, Upper};
///
/// let root = RootFs::overlay(["/srv/layers/debian", "/srv/layers/app"])
///     .hide("/etc/shadow")
///     .file("/etc/motd", "true for this sandbox only\n")
///     .upper(Upper::Discard { bytes: Bytes::mib(64), inodes: 10_000 });
/// ```
#[derive(Clone, Debug)]
pub struct RootFs {
    pub(crate) base: Base,
    pub(crate) upper: Option<Upper>,
    pub(crate) entries: Vec<Entry>,
    /// Whether a handle of the upper is kept.
    pub(crate) tracked: bool,
    /// What of a store is in use by it.
    pub(crate) leases: Vec<Lease>,
    /// What an image says of its programs.
    pub(crate) preset: Option<Arc<Preset>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Base {
    Host,
    Layers(Vec<PathBuf>),
    Empty,
    Inherit,
    Join(Namespace),
}

/// Where writes to the root go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upper {
    /// A tmpfs, gone with the sandbox.
    ///
    /// Before Linux 6.6 a tmpfs has no `user.` attributes, and a sandbox in a user
    /// namespace cannot remove a directory of a layer, or replace it by a new one (`EIO`).
    Discard {
        /// The most that can be written.
        bytes: Bytes,
        /// The most files and directories.
        inodes: u64,
    },
    /// A directory of the host, which gets subdirectories `upper` and `work`, and where the files have ids of
    /// the host a note of the map (`ids`), and of what the init layer held (`init`). Kept, and locked (flock(2)) against a second sandbox. Its file system must take
    /// `trusted.` or `user.` attributes and whiteouts: ext4, xfs, btrfs, tmpfs; not overlayfs, not NFS.
    Persist(PathBuf),
    /// Nowhere: the root is read-only.
    None,
}

impl Upper {
    /// What a root gets that names none: 256 MiB and 65536 inodes, discarded.
    pub const DEFAULT: Upper = Upper::Discard { bytes: Bytes::mib(256), inodes: 65536 };
}

impl RootFs {
    fn new(base: Base) -> RootFs {
        RootFs { base, upper: None, entries: Vec::new(), tracked: false, leases: Vec::new(), preset: None }
    }

    /// The host's own root with all its mounts, read-only. Files of the host's users are
    /// as readable as the sandbox's ids make them: root inside is not root there. Its `/sys` is covered, unless a mount plan of
    /// one's own ([`SandboxBuilder::mounts`](crate::SandboxBuilder::mounts)) takes the place of the standard one.
    pub fn host() -> RootFs {
        RootFs::new(Base::Host)
    }

    /// One directory of the host, as the only layer.
    pub fn dir(path: impl Into<PathBuf>) -> RootFs {
        RootFs::new(Base::Layers(vec![path.into()]))
    }

    /// 1 to 500 directories of the host, lowest first. Paths may be of any length; relative
    /// ones are taken from the working directory of `build`, as everywhere. What is mounted
    /// below a layer is not part of it.
    pub fn overlay<P: Into<PathBuf>>(layers: impl IntoIterator<Item = P>) -> RootFs {
        RootFs::new(Base::Layers(layers.into_iter().map(Into::into).collect()))
    }

    /// A tmpfs that holds the mounts and the entries given here, and nothing else.
    pub fn empty() -> RootFs {
        RootFs::new(Base::Empty)
    }

    /// The caller's mount namespace as it is: no root of its own, no mounts. Opts out of
    /// the isolation of the file system.
    pub fn inherit() -> RootFs {
        RootFs::new(Base::Inherit)
    }

    /// Another sandbox's mount namespace, with its root and mounts.
    pub fn join(namespace: Namespace) -> RootFs {
        RootFs::new(Base::Join(namespace))
    }

    /// Where writes go; [`Upper::DEFAULT`] for layers and the empty root, always
    /// [`Upper::None`] for the host's root.
    pub fn upper(mut self, upper: Upper) -> Self {
        self.upper = Some(upper);
        self
    }

    /// No upper: [`Upper::None`].
    pub fn read_only(self) -> Self {
        self.upper(Upper::None)
    }

    /// Hides a path of the layers by a whiteout, a directory with all that is in it.
    /// The last component is not followed if it is a link. A path that is not there is hidden already.
    pub fn hide(mut self, path: impl Into<PathBuf>) -> Self {
        self.entries.push(Entry::Hide(path.into()));
        self
    }

    /// Empties a directory of the layers by an opaque mark; makes it if missing.
    pub fn opaque(mut self, path: impl Into<PathBuf>) -> Self {
        self.entries.push(Entry::Opaque(path.into()));
        self
    }

    /// A regular file (mode 0644, owner the first uid inside), with its parents. Replaces one of the layers.
    pub fn file(self, path: impl Into<PathBuf>, content: impl Into<Vec<u8>>) -> Self {
        self.file_mode(path, 0o644, content)
    }

    /// A regular file with these permission bits (0 to 0o777).
    pub fn file_mode(mut self, path: impl Into<PathBuf>, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        self.entries.push(Entry::File { path: path.into(), mode, content: content.into() });
        self
    }

    /// A directory (mode 0755), with its parents. One that is there keeps its content.
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.entries.push(Entry::Directory { path: path.into(), mode: 0o755 });
        self
    }

    /// A symbolic link, with its parents. The target is stored as it is.
    pub fn symlink(mut self, path: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        self.entries.push(Entry::Symlink { path: path.into(), target: target.into() });
        self
    }

    /// `/etc/hosts` (hosts(5)): localhost, and these addresses and names.
    pub fn hosts<N: Into<String>>(self, names: impl IntoIterator<Item = (IpAddr, N)>) -> Self {
        let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        for (address, name) in names {
            text += &format!("{address}\t{}\n", name.into());
        }
        self.file("/etc/hosts", text)
    }

    /// `/etc/hostname` (hostname(5)). The host name itself is [`Uts::new`](crate::Uts::new).
    pub fn hostname(self, name: &str) -> Self {
        self.file("/etc/hostname", format!("{name}\n"))
    }

    /// `/etc/resolv.conf` (resolv.conf(5)) with these name servers.
    pub fn resolv_conf(self, servers: impl IntoIterator<Item = IpAddr>) -> Self {
        let text: String = servers.into_iter().map(|server| format!("nameserver {server}\n")).collect();
        self.file("/etc/resolv.conf", text)
    }
}
