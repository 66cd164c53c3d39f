//! What the kernel counts by user, and what of it a sandbox may use (`user.*` in sysctl(8), user_namespaces(7)).
//!
//! An inotify instance that is made inside counts against the user inside, and also against the user who has made the
//! sandbox's user namespace, whatever the id map: a sandbox could take all that the host's user has (128 by default), and
//! those of the host and of other sandboxes would find none left. The limit of the sandbox's own namespace bounds that.

use crate::enforce::{Enforce, Enforced, Enforcement};
use std::ffi::CStr;

/// How much of the host user's inotify(7) quota a sandbox may use.
///
/// For each user inside, of whom an ordinary payload can be only one. At best effort: it takes a user namespace of the
/// sandbox's own, and a host whose `/proc/sys` can be written; where not, [`Enforcement`] says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inotify {
    /// An eighth of `fs.inotify.max_user_instances` and `max_user_watches` of the host, at least 8 and 1024: 16 instances by
    /// the kernel's defaults.
    #[default]
    Share,
    /// So many, as far as the host's user has them left.
    Max {
        /// Instances (inotify_init(2)): beyond, `EMFILE`.
        instances: u32,
        /// Watches (inotify_add_watch(2)): beyond, `ENOSPC`.
        watches: u32,
    },
    /// Opts out: all that the host's user has.
    Inherit,
}

/// The files, beneath /proc.
const INSTANCES: &CStr = c"sys/user/max_inotify_instances";
const WATCHES: &CStr = c"sys/user/max_inotify_watches";

/// What a user has by the kernel's defaults, where the caller's own namespace has no limit to share.
const DEFAULT: [u32; 2] = [128, 65_536];
/// Of which a share is at least this.
const LEAST: [u32; 2] = [8, 1024];

impl Inotify {
    /// The limits to write. `host`: the caller's own, if limits can be written at all.
    pub(super) fn limits(self, host: Option<[u32; 2]>, report: &mut Enforcement) -> Vec<(&'static CStr, u32)> {
        let (name, enforce) = ("inotify-quota", Enforce::BestEffort);
        if self == Inotify::Inherit {
            report.push(name, enforce, Enforced::OptedOut, "all that the host's user has");
            return Vec::new();
        }
        let Some(host) = host else {
            let why = "no user namespace of the sandbox's own, or /proc/sys is read-only here";
            report.push(name, enforce, Enforced::Unavailable, why);
            return Vec::new();
        };
        let share = |i: usize| {
            let all = if host[i] > i32::MAX as u32 / 2 { DEFAULT[i] } else { host[i] };
            (all / 8).max(LEAST[i])
        };
        let (instances, watches) = match self {
            Inotify::Max { instances, watches } => (instances, watches),
            _ => (share(0), share(1)),
        };
        report.push(name, enforce, Enforced::Yes, format!("{instances} instances, {watches} watches"));
        // the kernel reads an int
        [(INSTANCES, instances), (WATCHES, watches)].map(|(file, value)| (file, value.min(i32::MAX as u32))).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_leaves_something_to_others() {
        let limits = |inotify: Inotify, host| {
            let mut report = Enforcement::default();
            let limits: Vec<_> = inotify.limits(host, &mut report).into_iter().map(|(_, value)| value).collect();
            (limits, report.get("inotify-quota").map(|one| one.enforced))
        };
        let yes = Some(Enforced::Yes);
        assert_eq!(limits(Inotify::Share, Some([128, 192_536])), (vec![16, 24_067], yes));
        assert_eq!(limits(Inotify::Share, Some([16, 100])), (vec![8, 1024], yes));
        // inside of another sandbox, whose own limits are those of its host
        assert_eq!(limits(Inotify::Share, Some([i32::MAX as u32; 2])), (vec![16, 8192], yes));
        assert_eq!(limits(Inotify::Max { instances: 0, watches: u32::MAX }, Some([128, 8192])).0, [0, i32::MAX as u32]);
        assert_eq!(limits(Inotify::Share, None), (vec![], Some(Enforced::Unavailable)));
        assert_eq!(limits(Inotify::Inherit, Some([128, 8192])), (vec![], Some(Enforced::OptedOut)));
    }
}
