//! Why this host refuses: the switches, limits and security modules that lie behind an
//! errno, and what to do about each.
//!
//! None of them decides a finding. An attempt does that, and what is read here explains
//! its failure. Contract: user_namespaces(7), namespaces(7), proc_sys_user(5), proc_sys_kernel(5),
//! `Documentation/admin-guide/sysctl/vm.rst`, apparmor.d(5).

use crate::host::{Host, mountinfo};
use crate::sys::Errno;
use procfs::process::MountInfo;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// What the host says of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Policy {
    /// `kernel.unprivileged_userns_clone`, of Debian and Arch kernels.
    pub userns_clone: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, Ubuntu 23.10 and later.
    pub apparmor_userns: Option<u64>,
    /// The caller's AppArmor profile and its mode, when AppArmor is on.
    pub apparmor: Option<String>,
    /// Whether the caller has CAP_SYS_ADMIN.
    pub admin: bool,
    /// Whether SELinux enforces.
    pub selinux: bool,
    /// `vm.memfd_noexec`, Linux 6.3.
    pub memfd_noexec: Option<u64>,
    /// The caller's seccomp mode (2: a filter), and the number of filters (Linux 5.9).
    pub seccomp: u64,
    pub seccomp_filters: Option<u64>,
    /// Whether the caller gains nothing by execve(2).
    pub no_new_privs: bool,
    /// The caller's root is not that of its mount namespace.
    pub chroot: bool,
    /// The caller's user namespace is the initial one.
    pub initial: bool,
    /// The kind of container around, if one can be made out.
    pub container: Option<String>,
    /// What covers parts of the host's /proc; `None` where no whole and writable one is to be seen.
    pub proc_covers: Option<Vec<PathBuf>>,
    /// The caller's program, for rules that name it.
    pub program: PathBuf,
}

/// The initial user namespace has a fixed inode (`PROC_USER_INIT_INO`, Linux 3.8).
const INITIAL: &str = "user:[4026531837]";

impl Policy {
    pub fn read(host: &Host) -> Policy {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let field = |name| status_field(&status, name);
        let mounts = mountinfo::mounts().unwrap_or_default();
        Policy {
            userns_clone: sysctl("kernel/unprivileged_userns_clone"),
            apparmor_userns: sysctl("kernel/apparmor_restrict_unprivileged_userns"),
            apparmor: apparmor(),
            admin: host.may_mount,
            selinux: number("/sys/fs/selinux/enforce") == Some(1),
            memfd_noexec: sysctl("vm/memfd_noexec"),
            seccomp: field("Seccomp").unwrap_or(0),
            seccomp_filters: field("Seccomp_filters"),
            no_new_privs: field("NoNewPrivs") == Some(1),
            chroot: !mounts.is_empty() && !mounts.iter().any(|mount| mount.mount_point == Path::new("/")),
            initial: fs::read_link("/proc/thread-self/ns/user").is_ok_and(|name| name == Path::new(INITIAL)),
            container: container(|path| path.exists(), |name| std::env::var_os(name)),
            proc_covers: proc_covers(&mounts),
            program: std::env::current_exe().unwrap_or_else(|_| "/path/to/program".into()),
        }
    }

    /// Why a new user namespace is refused.
    pub fn user_namespace(&self, errno: Errno) -> String {
        match errno {
            Errno::ENOSPC | Errno::EUSERS => limit("user"),
            Errno::EINVAL => "a kernel with CONFIG_USER_NS=y".into(),
            Errno::EAGAIN => PROCESSES.into(),
            Errno::ENOSYS => self.filtered("clone3").unwrap_or_else(|| "Linux 5.9".into()),
            _ if self.userns_clone == Some(0) => "sysctl -w kernel.unprivileged_userns_clone=1".into(),
            _ if self.chroot => "a caller outside of the chroot: within one the kernel makes no user namespace".into(),
            _ => self.confined().unwrap_or_else(|| {
                "a caller outside of what confines this one: a chroot, or a security module (see the kernel's log)"
                    .into()
            }),
        }
    }

    /// Why a new namespace of another kind is refused, inside a user namespace.
    pub fn namespace(&self, kind: &str, errno: Errno) -> String {
        match errno {
            Errno::ENOSPC | Errno::EUSERS => limit(kind),
            Errno::EINVAL => format!("a kernel with CONFIG_{}_NS=y", kind.to_uppercase()),
            Errno::EAGAIN => PROCESSES.into(),
            _ => self.security(),
        }
    }

    /// Why root inside a user namespace is refused what only needs capabilities there.
    pub fn security(&self) -> String {
        self.confined().unwrap_or_else(|| {
            "a caller outside of what confines this one: a Landlock domain, or another security module \
             (see the kernel's log)"
                .into()
        })
    }

    /// What is known to confine the caller.
    fn confined(&self) -> Option<String> {
        if self.strips_user_namespaces() {
            return Some(format!(
                "an AppArmor profile `profile belljar {} flags=(unconfined) {{ userns, }}` in /etc/apparmor.d, \
                 loaded by apparmor_parser -r, or sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
                self.program.display()
            ));
        }
        if let Some(profile) = self.profile() {
            let seccomp = if self.seccomp == 2 { " --security-opt seccomp=unconfined" } else { "" };
            return Some(format!(
                "an AppArmor profile that allows userns, mount and pivot_root, unlike {profile:?}; \
                 in Docker --security-opt apparmor=unconfined{seccomp}"
            ));
        }
        let selinux = || "an SELinux policy that allows it: `ausearch -m avc` shows what was denied".into();
        self.filtered("clone3, unshare, mount and pivot_root").or_else(|| self.selinux.then(selinux))
    }

    /// AppArmor takes all capabilities in user namespaces from unprivileged programs
    /// that have no profile (Ubuntu 23.10).
    pub fn strips_user_namespaces(&self) -> bool {
        let bare = self.apparmor.as_deref().is_none_or(|label| label == "unconfined");
        self.apparmor_userns.is_some_and(|value| value != 0) && bare && !self.admin
    }

    /// The AppArmor profile that confines the caller: one may be there only to give rights.
    pub fn profile(&self) -> Option<&str> {
        self.apparmor.as_deref().filter(|label| !label.ends_with("unconfined") && !label.ends_with("(unconfined)"))
    }

    /// What to do about a seccomp filter, if there is one.
    pub fn filtered(&self, calls: &str) -> Option<String> {
        (self.seccomp == 2).then(|| {
            format!(
                "a seccomp filter that allows {calls}: in Docker --security-opt seccomp=unconfined, \
                 in Kubernetes seccompProfile Unconfined"
            )
        })
    }

    /// Why proc cannot be mounted in a user namespace (Linux 4.2: only where the caller
    /// sees all of one already, that nothing be uncovered).
    pub fn proc(&self, errno: Errno) -> String {
        const UNMASK: &str = "in Docker --security-opt systempaths=unconfined, in Kubernetes procMount: Unmasked, \
                              or Mounts::none() with the mounts wanted, without Mount::proc";
        match self.proc_covers.as_deref() {
            _ if errno != Errno::EPERM => self.security(),
            None => format!("a whole and writable proc in the caller's mount namespace; {UNMASK}"),
            Some([]) => self.security(),
            Some(covers) => {
                let shown: Vec<_> = covers.iter().take(3).map(|path| path.display().to_string()).collect();
                let more = if covers.len() > 3 { format!(" and {} more", covers.len() - 3) } else { String::new() };
                format!("a /proc that nothing covers (here {}{more} does); {UNMASK}", shown.join(", "))
            }
        }
    }
}

/// For `EAGAIN` of clone(2).
pub(super) const PROCESSES: &str = "a higher RLIMIT_NPROC (ulimit -u, LimitNPROC=) or pids.max (TasksMax=)";

/// For `ENOSPC` of a kind: the limit of the caller's user namespace, or one further out.
fn limit(kind: &str) -> String {
    let name = format!("user.max_{kind}_namespaces");
    match sysctl(&name.replace('.', "/")) {
        Some(value) => format!("sysctl -w {name}=31000, here and in all user namespaces around (it is {value})"),
        None => format!("a higher {name}, here and in all user namespaces around"),
    }
}

/// A number below `/proc/sys`; `None` where this kernel has no such switch.
pub(super) fn sysctl(name: &str) -> Option<u64> {
    number(Path::new("/proc/sys").join(name))
}

fn number(path: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A number of `/proc/PID/status`.
fn status_field(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.trim().parse().ok()
}

fn apparmor() -> Option<String> {
    if fs::read_to_string("/sys/module/apparmor/parameters/enabled").ok()?.trim() != "Y" {
        return None;
    }
    // the second before Linux 5.8
    let files = ["/proc/thread-self/attr/apparmor/current", "/proc/thread-self/attr/current"];
    let label = files.iter().find_map(|path| fs::read_to_string(path).ok())?;
    Some(label.trim().to_owned())
}

/// What leaves traces of itself in its containers. Heuristic: nobody has to.
fn container(exists: impl Fn(&Path) -> bool, variable: impl Fn(&str) -> Option<OsString>) -> Option<String> {
    if variable("KUBERNETES_SERVICE_HOST").is_some() {
        return Some("Kubernetes (KUBERNETES_SERVICE_HOST is set)".into());
    }
    let files = [("/.dockerenv", "Docker"), ("/run/.containerenv", "Podman"), ("/dev/lxd/sock", "LXD")];
    if let Some((path, name)) = files.iter().find(|(path, _)| exists(Path::new(path))) {
        return Some(format!("{name} ({path} is there)"));
    }
    variable("container").map(|value| format!("{} (by the variable `container`)", value.to_string_lossy()))
}

/// What is mounted below the full proc mounts, but for the mount points that the kernel
/// keeps empty for that purpose; of that mount which has the least.
/// `None` where there is no full and writable proc mount.
fn proc_covers(mounts: &[MountInfo]) -> Option<Vec<PathBuf>> {
    const MOUNT_POINTS: [&str; 4] = ["sys/fs/binfmt_misc", "fs/nfsd", "openprom", "fs/xfs/xqm"];
    // the read-only flag is locked in a user namespace, and a new proc would not have it
    let writable = |mount: &MountInfo| mount.mount_options.contains_key("rw");
    let procs = mounts.iter().filter(|mount| mount.fs_type == "proc" && mount.root == "/" && writable(mount));
    let covers = procs.map(|proc| {
        let below = mounts.iter().filter(|mount| mount.pid == proc.mnt_id && mount.mnt_id != proc.mnt_id);
        let covers = below.filter_map(|mount| {
            let inner = mount.mount_point.strip_prefix(&proc.mount_point).ok()?;
            let empty = MOUNT_POINTS.iter().any(|point| inner == Path::new(point));
            (!empty).then(|| mount.mount_point.clone())
        });
        covers.collect::<Vec<_>>()
    });
    covers.min_by_key(Vec::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts(lines: &[&str]) -> Vec<MountInfo> {
        lines.iter().map(|line| MountInfo::from_line(line).expect("a line of mountinfo")).collect()
    }

    #[test]
    fn masks_cover_proc_and_its_own_mount_points_do_not() {
        const PROC: &str = "22 1 0:21 / /proc rw,relatime - proc proc rw";
        const BINFMT: &str = "30 22 0:30 / /proc/sys/fs/binfmt_misc rw - binfmt_misc binfmt_misc rw";
        const MASK: &str = "31 22 0:31 / /proc/scsi ro - tmpfs tmpfs ro";
        const READ_ONLY: &str = "32 22 0:21 /sys /proc/sys ro - proc proc rw";
        const SEALED: &str = "23 1 0:21 / /proc ro,relatime - proc proc rw";
        const OTHER: &str = "40 1 0:40 / /mnt/proc rw - proc proc rw";
        let covers = |lines: &[&str]| {
            proc_covers(&mounts(lines)).map(|c| c.iter().map(|p| p.display().to_string()).collect::<Vec<_>>())
        };
        assert_eq!(covers(&[]), None);
        assert_eq!(covers(&[READ_ONLY]), None, "a part of a proc is no proc");
        assert_eq!(covers(&[SEALED]), None);
        assert_eq!(covers(&[PROC, BINFMT]), Some(vec![]));
        assert_eq!(covers(&[PROC, MASK, READ_ONLY]), Some(vec!["/proc/scsi".into(), "/proc/sys".into()]));
        assert_eq!(covers(&[PROC, MASK, OTHER]), Some(vec![]), "one that is not covered is enough");
    }

    #[test]
    fn the_cause_nearest_at_hand_is_named() {
        let plain = Policy::default();
        assert!(plain.user_namespace(Errno::EPERM).contains("a chroot"));
        assert!(plain.security().contains("Landlock"));
        assert!(plain.user_namespace(Errno::ENOSPC).contains("user.max_user_namespaces"));
        assert!(plain.namespace("net", Errno::ENOSPC).contains("user.max_net_namespaces"));
        let filtered = Policy { seccomp: 2, ..Policy::default() };
        assert!(filtered.user_namespace(Errno::EPERM).contains("seccomp=unconfined"));
        assert!(filtered.user_namespace(Errno::ENOSYS).contains("clone3"));
        let debian = Policy { userns_clone: Some(0), ..filtered.clone() };
        assert!(debian.user_namespace(Errno::EPERM).contains("unprivileged_userns_clone=1"));
        let ubuntu = Policy { apparmor_userns: Some(1), program: "/opt/app".into(), ..Policy::default() };
        assert!(ubuntu.security().contains("profile belljar /opt/app flags=(unconfined) { userns, }"));
        assert!(!Policy { admin: true, ..ubuntu.clone() }.security().contains("AppArmor"));
        let allowed = Policy { apparmor: Some("belljar (unconfined)".into()), ..ubuntu };
        assert!(!allowed.security().contains("AppArmor"));
        let docker = Policy { apparmor: Some("docker-default (enforce)".into()), ..filtered };
        assert!(docker.security().contains("apparmor=unconfined --security-opt seccomp=unconfined"));
        let jail = Policy { chroot: true, ..Policy::default() };
        assert!(jail.user_namespace(Errno::EPERM).contains("chroot"));
    }

    #[test]
    fn covers_of_proc_are_named() {
        let policy = Policy { proc_covers: Some(vec!["/proc/a".into(); 5]), ..Policy::default() };
        assert!(policy.proc(Errno::EPERM).contains("/proc/a, /proc/a, /proc/a and 2 more"));
        let none = Policy { proc_covers: None, ..Policy::default() };
        assert!(none.proc(Errno::EPERM).contains("a whole and writable proc"));
    }

    #[test]
    fn fields_of_status_by_their_whole_name() {
        let status = "Name:\tx\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\nCapEff:\t1ff\n";
        assert_eq!(status_field(status, "Seccomp"), Some(2));
        assert_eq!(status_field(status, "Seccomp_filters"), Some(3));
        assert_eq!(status_field(status, "NoNew"), None);
        assert_eq!(status_field(status, "CapEff"), None);
    }

    #[test]
    fn containers_by_their_traces() {
        let nothing = |_: &str| None;
        assert_eq!(container(|_| false, nothing), None);
        let docker = container(|path| path == Path::new("/.dockerenv"), nothing);
        assert!(docker.is_some_and(|name| name.starts_with("Docker")));
        let nspawn = container(|_| false, |name| (name == "container").then(|| "systemd-nspawn".into()));
        assert!(nspawn.is_some_and(|name| name.starts_with("systemd-nspawn")));
    }
}
