//! What a failed op of a group most likely means, and what helps.

use crate::error::ErrorKind;
use crate::program::Op;
use crate::sys::Errno;

const DELEGATE: &str = "a group that the caller may write: `systemd-run --user --scope -p Delegate=yes`, Delegate=yes for the service, \
     root, or CgroupParent::at; or CgroupLimits::none()";

/// The remedy for an op of groups.
pub(crate) fn remedy(op: &Op<'_>, errno: Errno) -> Option<(ErrorKind, String)> {
    use ErrorKind::*;
    let say = |kind, hint: &str| Some((kind, hint.to_owned()));
    match (op, errno) {
        (_, Errno::EROFS) => say(
            NotPermitted,
            "a writable /sys/fs/cgroup: in Docker --cgroupns=private with a writable bind of it; or CgroupLimits::none()",
        ),
        (Op::GroupDevices { .. }, Errno::EPERM | Errno::EACCES) => say(
            NotPermitted,
            "CAP_SYS_ADMIN, or CAP_BPF and CAP_NET_ADMIN, in the initial user namespace; or limits without devices",
        ),
        (Op::GroupDevices { .. }, _) => say(NotSupported, "a kernel with CONFIG_CGROUP_BPF, or limits without devices"),
        (Op::GroupEnable { .. }, Errno::EBUSY) => say(
            Busy,
            "CgroupParent::own().move_caller(), a caller that is started in a leaf of its own, or CgroupParent::at another group: \
             one with processes in it cannot hand down controllers (cgroups(7), no internal processes)",
        ),
        (Op::GroupEnable { .. }, Errno::ENOENT) => {
            say(NotSupported, "controllers that /sys/fs/cgroup has, and that every group on the way hands down")
        }
        (Op::Group { .. } | Op::GroupEnable { .. } | Op::GroupJoin { .. }, Errno::EACCES | Errno::EPERM) => {
            say(NotPermitted, DELEGATE)
        }
        (Op::Group { .. }, Errno::ENOENT) => {
            say(NotFound, "a parent group that exists in this hierarchy: mkdir makes one")
        }
        (Op::Group { .. }, Errno::EAGAIN | Errno::ENOSPC) => say(
            LimitReached,
            "higher cgroup.max.descendants and cgroup.max.depth of the groups around, or belljar::sweep()",
        ),
        (Op::GroupSet { .. }, errno) => remedy_of_write(errno),
        _ => None,
    }
}

/// The same for a file of limits.
pub(crate) fn remedy_of_write(errno: Errno) -> Option<(ErrorKind, String)> {
    use ErrorKind::*;
    let (kind, hint) = match errno {
        Errno::ENOENT => (NotSupported, "a kernel that has this file (cgroup-v2.rst), or limits without it"),
        Errno::EACCES | Errno::EPERM => (NotPermitted, DELEGATE),
        Errno::ENODEV => (NotSupported, "a whole disk, whose driver takes bounds"),
        Errno::EINVAL | Errno::ERANGE | Errno::ENOSPC => {
            (InvalidSpec, "a value within those of the groups around, on CPUs and nodes that are online")
        }
        Errno::EBUSY => (Busy, "a limit above what is used already"),
        _ => return None,
    };
    Some((kind, hint.to_owned()))
}
