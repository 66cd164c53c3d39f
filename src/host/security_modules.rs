//! Which security modules (LSM) of the kernel are active: `Documentation/admin-guide/LSM/index.rst`.

use std::fs;

/// Whether AppArmor is: a module can be built in and not be in the kernel's list.
pub(crate) fn apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|answer| answer.trim() == "Y")
}

/// Whether SELinux is: its file system is registered with it (selinuxfs).
pub(crate) fn selinux() -> bool {
    let file_systems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    file_systems.lines().any(|line| line.split_whitespace().last() == Some("selinuxfs"))
}

/// The kernel's own list, where securityfs is mounted.
pub(crate) fn list() -> Option<String> {
    Some(fs::read_to_string("/sys/kernel/security/lsm").ok()?.trim().to_owned())
}
