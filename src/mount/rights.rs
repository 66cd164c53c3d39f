//! What the mounts of a plan let be written, for protections that mirror it.

use super::{Kind, Mounts, ProcSubset};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What can be done in a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// Entries can be made and removed.
    Write,
    /// Files can be written.
    WriteFiles,
    /// Devices can be used.
    Devices,
    /// Both of the first and the last.
    WriteAndDevices,
    /// The first, for message queues.
    Queues,
}

impl Mounts {
    /// The places that allow more than reading and executing.
    pub(crate) fn rights(&self) -> Vec<(PathBuf, Right)> {
        let mut all = Vec::new();
        for mount in &self.0 {
            let own = |path: &Path| path.to_owned();
            let (target, options) = (&mount.target, &mount.options);
            match &mount.kind {
                Kind::Bind { .. } | Kind::Tmpfs { .. } => match (options.read_only, options.dev) {
                    (true, true) => all.push((own(target), Right::Devices)),
                    (true, false) => {}
                    (false, true) => all.push((own(target), Right::WriteAndDevices)),
                    (false, false) => all.push((own(target), Right::Write)),
                },
                Kind::Proc => all.push((own(target), Right::WriteFiles)),
                Kind::Devpts => all.push((own(target), Right::Devices)),
                Kind::Mqueue => all.push((own(target), Right::Queues)),
                Kind::Cgroup => all.push((own(target), Right::Write)),
                Kind::Dev => {
                    all.push((own(target), Right::Devices));
                    all.push((target.join("shm"), Right::Write));
                    all.push((target.join("mqueue"), Right::Queues));
                }
                Kind::Sysfs | Kind::Mask | Kind::ReadOnly => {}
            }
        }
        all
    }
}

impl Mounts {
    /// The places with sockets of the host that the payload may talk to.
    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        let exposed = self.0.iter().filter(|mount| matches!(mount.kind, Kind::Bind { socket: true, .. }));
        exposed.map(|mount| mount.target.clone()).collect()
    }

    /// Whether files that the sandbox makes outlive it, or are those of earlier ones: binds that can be written, and read-only ones
    /// whose source belongs to an id of this kind. What is id-mapped for sure has the ids inside.
    pub(crate) fn share_files(&self, shared: fn(u32) -> bool) -> bool {
        self.0.iter().any(|mount| match &mount.kind {
            Kind::Bind { source, .. } if !mount.options.idmapped => {
                let owned = |found: std::fs::Metadata| shared(found.uid()) || shared(found.gid());
                !mount.options.read_only || std::fs::metadata(source).is_ok_and(owned)
            }
            _ => false,
        })
    }
}

/// The entries of /proc that the standard plan masks, of which one stands for all.
const MASKED: &str = "kcore";

impl Mounts {
    pub(crate) fn has_proc(&self) -> bool {
        self.0.iter().any(|mount| matches!(mount.kind, Kind::Proc))
    }

    /// Whether a /proc hides processes.
    pub(crate) fn hides_pids(&self) -> bool {
        self.0.iter().any(|mount| matches!(mount.kind, Kind::Proc) && mount.options.hide_pids.is_some())
    }

    /// Whether each /proc has the masks of the standard plan, or nothing to mask.
    pub(crate) fn masks_proc(&self) -> bool {
        let has = |target: &Path, wanted: fn(&Kind) -> bool| {
            self.0.iter().any(|mount| wanted(&mount.kind) && mount.target == target)
        };
        self.0.iter().filter(|mount| matches!(mount.kind, Kind::Proc)).all(|proc| {
            proc.options.subset == ProcSubset::Pids
                || has(&proc.target.join(MASKED), |kind| matches!(kind, Kind::Mask))
                    && has(&proc.target.join("sys"), |kind| matches!(kind, Kind::ReadOnly))
        })
    }

    /// The protections that single mounts opt out of.
    pub(crate) fn opt_outs(&self) -> Vec<(&'static str, String)> {
        let mut all = Vec::new();
        for mount in &self.0 {
            let (at, options) = (mount.target.display(), &mount.options);
            match &mount.kind {
                Kind::Bind { source, socket: true } => {
                    all.push(("sockets", format!("the host's socket {} on {at}", source.display())));
                }
                Kind::Bind { source, .. } if !options.read_only => {
                    all.push(("read-only-binds", format!("{} of the host is writable on {at}", source.display())));
                }
                Kind::Cgroup => all.push(("cgroup-files", format!("control groups on {at}"))),
                _ => {}
            }
            if options.idmapped && !options.read_only {
                all.push(("bind-ownership", format!("what root inside writes on {at} belongs to the host's root")));
            }
            if options.suid {
                all.push(("nosuid", format!("set-uid programs of {at} take effect, if new privileges are allowed")));
            }
            if options.dev {
                all.push(("nodev", format!("device files of {at} can be opened")));
            }
            if options
                .propagation
                .is_some_and(|kind| matches!(kind, super::Propagation::Shared | super::Propagation::Slave))
            {
                all.push(("private-mounts", format!("mounts below {at} spread")));
            }
        }
        all
    }
}
