//! The mount plan as ops.

use super::*;
use crate::error::{Defect, Error, ErrorKind, Result};
use crate::id::{absolute, c_path, c_string, check_guest, check_host};
use crate::program::{Builder, Op, Slot, Strings, op, strings};
use crate::sys::Errno;
use crate::sys::kernel::abi::*;
use crate::sys::kernel::{call, path};
use std::ffi::CStr;

/// The device files of a standard /dev, with their numbers (devices.txt).
const NODES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// Its links.
const LINKS: [(&str, &CStr); 6] = [
    ("fd", c"/proc/self/fd"),
    ("stdin", c"/proc/self/fd/0"),
    ("stdout", c"/proc/self/fd/1"),
    ("stderr", c"/proc/self/fd/2"),
    ("ptmx", c"pts/ptmx"),
    ("core", c"/proc/kcore"),
];

/// What the plan needs to know of the sandbox.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    /// The parent may clone trees of the host, and map their ids.
    pub by_parent: bool,
    /// Whether there is an id map to map ids through.
    pub has_id_map: bool,
    /// The kernel and the caller can map the owners of binds.
    pub may_map_owners: bool,
    /// The sandbox's ids, when it is spawned.
    pub outside: Option<&'a Outside>,
}

impl Mounts {
    /// Takes relative sources from the working directory of now.
    pub(crate) fn make_absolute(&mut self) {
        for mount in &mut self.0 {
            if let Kind::Bind { source, .. } = &mut mount.kind {
                absolute(source);
            }
        }
    }

    pub(crate) fn check(&self, context: Context<'_>, defects: &mut Vec<Defect>) {
        for mount in &self.0 {
            mount.check(context, defects);
        }
    }

    /// Whether there is an instance of devpts, of which a terminal can be had.
    pub(crate) fn has_devpts(&self) -> bool {
        self.0
            .iter()
            .any(|mount| matches!(mount.kind, Kind::Dev | Kind::Devpts) && mount.options.missing != Missing::Skip)
    }

    /// Whether a mount shows the network namespace that it is made in.
    pub(crate) fn uses_network(&self) -> bool {
        self.0.iter().any(|mount| matches!(mount.kind, Kind::Sysfs))
    }

    /// The targets that must be made beforehand if they are missing: those that lie in the
    /// root itself and not in an earlier mount.
    pub(crate) fn targets(&self) -> Vec<(&Path, bool)> {
        let mut targets = Vec::new();
        for (i, mount) in self.0.iter().enumerate() {
            let covered = self.0[..i].iter().any(|earlier| {
                !matches!(earlier.kind, Kind::Mask | Kind::ReadOnly) && mount.target.starts_with(&earlier.target)
            });
            if covered || mount.options.missing != Missing::Create {
                continue;
            }
            if let Some(directory) = mount.wants_directory() {
                targets.push((mount.target.as_path(), directory));
            }
        }
        targets
    }

    /// Whether a directory of the host is bound, in which there could be sockets.
    pub(crate) fn binds_directories(&self) -> bool {
        let directory = |source: &Path| std::fs::metadata(source).is_ok_and(|found| found.is_dir());
        self.0.iter().any(|mount| matches!(&mount.kind, Kind::Bind { source, socket: false } if directory(source)))
    }

    /// Refuses binds that expose one of these sockets of the host, unless by [`Mount::socket`].
    pub(crate) fn check_sockets(&self, sockets: &[PathBuf]) -> Result<()> {
        for mount in &self.0 {
            let Kind::Bind { source, socket: false } = &mount.kind else { continue };
            let Ok(plain) = std::fs::canonicalize(source) else { continue };
            // a later mount may lie over it
            let hidden = |socket: &Path| {
                let inside = socket.strip_prefix(&plain).map(|rest| mount.target.join(rest));
                inside.is_ok_and(|inside| {
                    let later = self.0.iter().skip_while(|one| !std::ptr::eq(*one, mount)).skip(1);
                    later.filter(|one| !matches!(one.kind, Kind::ReadOnly)).any(|one| inside.starts_with(&one.target))
                })
            };
            let exposed = sockets.iter().filter(|path| **path != plain && path.starts_with(&plain) && !hidden(path));
            let exposed: Vec<_> = exposed.map(|path| path.display().to_string()).collect();
            if let Some(first) = exposed.first() {
                let more = if exposed.len() > 1 { format!(" and {} more", exposed.len() - 1) } else { String::new() };
                return Err(Error::new(
                    ErrorKind::InvalidSpec,
                    format!(
                        "the bind of {} on {} exposes the socket {first}{more}",
                        source.display(),
                        mount.target.display()
                    ),
                )
                .with_hint(
                    "a directory without sockets, Mount::mask over them, or Mount::socket(directory, target), if the payload may talk to what listens there: a read-only bind does not prevent it",
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn lower(&self, context: Context<'_>, builder: &mut Builder) -> Result<()> {
        self.0.iter().try_for_each(|mount| mount.lower(context, builder))
    }
}

impl Mount {
    fn check(&self, context: Context<'_>, defects: &mut Vec<Defect>) {
        check_guest(&self.target, "the target of a mount", defects);
        let root = self.target.components().all(|c| !matches!(c, std::path::Component::Normal(_)));
        if root && !matches!(self.kind, Kind::ReadOnly) {
            defects.push(Defect::new(
                format!("a mount on {:?} would hide the root", self.target),
                "a RootFs for the root, and targets below it",
            ));
        }
        match &self.kind {
            Kind::Bind { source, .. } => {
                check_host(source, "the source of a bind", defects);
                if self.options.ownership == Ownership::Owner && !context.may_map_owners {
                    defects.push(Defect::new(
                        format!("the owner of the bind on {:?} cannot be mapped", self.target),
                        "a new user namespace, and root of the host (not of a container) as the caller; or the bind without map_owner()",
                    ));
                }
                if self.options.idmapped && !(context.has_id_map && context.by_parent) {
                    defects.push(Defect::new(
                        format!("the bind on {:?} cannot be id-mapped", self.target),
                        "a new user namespace and a caller with CAP_SYS_ADMIN, or the bind without idmapped()",
                    ));
                }
            }
            Kind::Tmpfs { bytes, inodes, mode } if bytes.get() == 0 || *inodes == 0 || *mode > 0o7777 => {
                defects.push(Defect::new(
                    format!("the tmpfs on {:?} has {bytes}, {inodes} inodes, mode {mode:o}", self.target),
                    "at least 1 byte, 1 inode and a mode of 0 to 0o7777; for the kernel 0 means without limit",
                ));
            }
            _ => {}
        }
    }

    /// Whether the target is a directory; `None` when nothing is to be made, or nothing is known.
    fn wants_directory(&self) -> Option<bool> {
        match &self.kind {
            Kind::Mask | Kind::ReadOnly => None,
            Kind::Bind { source, .. } => std::fs::metadata(source).ok().map(|found| found.is_dir()),
            _ => Some(true),
        }
    }

    fn attributes(&self) -> u64 {
        let options = &self.options;
        let mut set = 0;
        for (bit, wanted) in [
            (MOUNT_ATTR_RDONLY, options.read_only),
            (MOUNT_ATTR_NOSUID, !options.suid),
            (MOUNT_ATTR_NODEV, !options.dev),
            (MOUNT_ATTR_NOEXEC, options.noexec),
        ] {
            if wanted {
                set |= bit;
            }
        }
        set
    }

    fn missing_code(&self) -> u32 {
        match self.options.missing {
            Missing::Error => op::missing::ERROR,
            Missing::Skip => op::missing::SKIP,
            Missing::Create => op::missing::CREATE,
        }
    }

    fn lower(&self, context: Context<'_>, builder: &mut Builder) -> Result<()> {
        let set = self.attributes();
        match &self.kind {
            Kind::Bind { source, socket } => return self.lower_bind(source, *socket, context, builder),
            Kind::Tmpfs { bytes, inodes, mode } => {
                self.new_fs(c"tmpfs", &tmpfs_options(*bytes, *inodes, *mode), set, 0, builder);
            }
            Kind::Proc if self.options.or_empty => {
                let (target, missing) = (&c_path(&self.target), self.missing_code());
                let options = flat(&self.proc_options());
                builder.op(Op::ProcOrEmpty { options: Strings(&options), target, missing, set });
            }
            Kind::Proc => self.new_fs(c"proc", &self.proc_options(), set, PROC_SUPER_MAGIC, builder),
            Kind::Sysfs => {
                self.new_fs(c"sysfs", &[], set, SYSFS_MAGIC, builder);
                for path in ["firmware", "devices/virtual/powercap"] {
                    builder.op(Op::Mask { path: &c_path(&self.target.join(path)) });
                }
            }
            Kind::Devpts => {
                self.new_fs(c"devpts", &devpts_options(), set & !MOUNT_ATTR_NODEV, DEVPTS_SUPER_MAGIC, builder)
            }
            Kind::Mqueue => self.new_fs(c"mqueue", &[], set, 0, builder),
            Kind::Cgroup => self.new_fs(c"cgroup2", &[], set, 0, builder),
            Kind::Dev => self.lower_dev(context, builder)?,
            Kind::Mask => builder.op(Op::Mask { path: &c_path(&self.target) }),
            Kind::ReadOnly => builder.op(Op::ReadOnly { path: &c_path(&self.target) }),
        }
        Ok(())
    }

    fn new_fs(&self, fstype: &CStr, options: &[(&str, String)], set: u64, magic: i64, builder: &mut Builder) {
        builder.op(Op::NewFs {
            fstype,
            options: Strings(&flat(options)),
            target: &c_path(&self.target),
            missing: self.missing_code(),
            set,
            magic: magic as u64,
        });
    }

    fn proc_options(&self) -> Vec<(&'static str, String)> {
        let mut all = Vec::new();
        if let Some(hide) = self.options.hide_pids {
            let value = match hide {
                HidePids::NoAccess => "noaccess",
                HidePids::Invisible => "invisible",
                HidePids::Ptraceable => "ptraceable",
            };
            all.push(("hidepid", value.into()));
        }
        if self.options.subset == ProcSubset::Pids {
            all.push(("subset", "pid".into()));
        }
        all
    }

    fn lower_bind(&self, source: &Path, socket: bool, context: Context<'_>, builder: &mut Builder) -> Result<()> {
        let fail = |errno| {
            Error::call(
                format!("open the source {} of the mount on {}", source.display(), self.target.display()),
                errno,
            )
            .with_hint("a path of the host that exists and that the caller may search")
        };
        let text = c_path(source);
        let stat = path::with_long_path(&text, |dir, path| call::statx(dir, path, 0)).map_err(fail)?;
        if stat.kind() == S_IFSOCK && !socket {
            return Err(fail(Errno::EPERM).with_kind(ErrorKind::InvalidSpec).with_hint(
                "Mount::socket(source, target), if the payload may talk to what listens there: a read-only bind would not prevent it",
            ));
        }
        let slot = if context.by_parent {
            let maps = self.owner_maps(source, &stat, context)?;
            // what a store owns is the sandbox's as far as the file system can
            let idmap = match (self.options.idmapped, &self.options.lease) {
                (true, _) => 1,
                (false, Some(_)) => 2,
                (false, None) if maps.is_empty() => 0,
                (false, None) => {
                    if self.options.ownership == Ownership::Owner {
                        1
                    } else {
                        2
                    }
                }
            };
            let to = builder.promise();
            builder.parent_op(Op::Tree {
                path: &text,
                dev: stat.dev(),
                ino: stat.ino,
                kind: stat.kind(),
                recursive: 1,
                idmap,
                maps: Strings(&maps),
                to,
            });
            to
        } else {
            grab(&text, &stat, 0, builder)
        };
        let propagation = match self.options.propagation {
            None => 0,
            Some(Propagation::Private) => MS_PRIVATE,
            Some(Propagation::Slave) => MS_SLAVE,
            Some(Propagation::Shared) => MS_SHARED,
            Some(Propagation::Unbindable) => MS_UNBINDABLE,
        };
        builder.op(Op::Attach {
            slot,
            target: &c_path(&self.target),
            directory: (stat.kind() == S_IFDIR).into(),
            missing: self.missing_code(),
            set: self.attributes(),
            clear: 0,
            recursive: 1,
            propagation: propagation as u64,
        });
        Ok(())
    }

    /// Through which maps the owner of the source is seen; nothing for the ids as they are.
    fn owner_maps(&self, source: &Path, stat: &Statx, context: Context<'_>) -> Result<Vec<u8>> {
        let options = &self.options;
        let wanted = match options.ownership {
            Ownership::Owner => true,
            Ownership::IfWritten => !options.read_only && matches!(stat.kind(), S_IFDIR | S_IFREG),
            Ownership::AsIs => false,
        };
        let Some(outside) = context.outside.filter(|_| wanted && context.may_map_owners) else { return Ok(Vec::new()) };
        if options.idmapped || options.lease.is_some() {
            return Ok(Vec::new());
        }
        if options.ownership == Ownership::Owner && stat.uid == 0 {
            let what = format!("map the owner of {}: it belongs to the host's root", source.display());
            return Err(Error::new(ErrorKind::InvalidSpec, what)
                .with_hint("a source that another user owns; the host's root is never made the sandbox's"));
        }
        Ok(owner::maps((stat.uid, stat.gid), outside).map_or_else(Vec::new, strings))
    }

    fn lower_dev(&self, context: Context<'_>, builder: &mut Builder) -> Result<()> {
        let options = tmpfs_options(Bytes::kib(64), 64, 0o755);
        let set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
        self.new_fs(c"tmpfs", &options, set, 0, builder);
        let inside = |name: &str| self.target.join(name);
        for (name, major, minor) in NODES {
            // a device file cannot be made in a user namespace: the host's own is bound,
            // after a look at its numbers
            let source = c_string(format!("/dev/{name}").as_bytes());
            let rdev = major << 32 | minor;
            let slot = device(&source, rdev, builder)?;
            builder.op(Op::Attach {
                slot,
                target: &c_path(&inside(name)),
                directory: 0,
                missing: op::missing::CREATE,
                set: MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
                clear: 0,
                recursive: 0,
                propagation: 0,
            });
        }
        let below = [
            Mount::devpts(inside("pts")),
            Mount::tmpfs(inside("shm")).mode(0o1777).noexec(),
            Mount::mqueue(inside("mqueue")),
        ];
        below.iter().try_for_each(|mount| mount.lower(context, builder))?;
        for (name, target) in LINKS {
            builder.op(Op::Link { path: &c_path(&inside(name)), target });
        }
        Ok(())
    }
}

/// Options as an op has them.
fn flat(options: &[(&str, String)]) -> Vec<u8> {
    strings(options.iter().flat_map(|(key, value)| [c_string(key.as_bytes()), c_string(value.as_bytes())]))
}

fn tmpfs_options(bytes: Bytes, inodes: u64, mode: u32) -> Vec<(&'static str, String)> {
    vec![("size", bytes.get().to_string()), ("nr_inodes", inodes.to_string()), ("mode", format!("{mode:04o}"))]
}

/// At most so many terminals at a time: all instances of the machine share kernel.pty.max (4096).
const TERMINALS: u32 = 64;

fn devpts_options() -> Vec<(&'static str, String)> {
    vec![
        ("newinstance", String::new()),
        ("max", TERMINALS.to_string()),
        ("ptmxmode", "0666".into()),
        ("mode", "0620".into()),
    ]
}

/// A device file of the host, checked by its numbers.
fn device(source: &CStr, rdev: u64, builder: &mut Builder) -> Result<Slot> {
    let stat = call::statx(AT_FDCWD, source, 0).map_err(|errno| {
        Error::call(format!("open the host's device {}", source.to_string_lossy()), errno)
            .with_hint("a /dev with the standard devices, or Mounts without Mount::dev")
    })?;
    Ok(grab(source, &stat, rdev, builder))
}

/// The shim opens the source in its own mount namespace and checks that it is the same.
fn grab(source: &CStr, stat: &Statx, rdev: u64, builder: &mut Builder) -> Slot {
    let to = builder.local();
    let recursive = (stat.kind() == S_IFDIR).into();
    builder.source_op(Op::Grab {
        path: source,
        dev: stat.dev(),
        ino: stat.ino,
        kind: stat.kind(),
        rdev,
        recursive,
        to,
    });
    to
}
