//! Whose the files of a bind are: the owner of its source is root inside.
//!
//! In a user namespace of root's, ids inside are an unprivileged block of the host: what a payload writes to a
//! bound directory would belong to nobody whom the host knows, and it could write only where everybody may. An id-mapped mount
//! (mount_setattr(2), Linux 5.12) exchanges two ids, and leaves all others: the owner of the source, and the one that root
//! inside is. The host's root is never exchanged: a set-uid program that the payload leaves in the bind would be root's.

use std::ffi::CString;

/// How the files of a bind are owned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// By the source's owner if it can be written, and if that is possible.
    #[default]
    IfWritten,
    /// By the source's owner, or spawn fails.
    Owner,
    /// By the ids as they are.
    AsIs,
}

/// The ids of a sandbox, as the host knows them.
pub(crate) struct Outside {
    /// Root, or the first user and group that there are.
    pub root: (u32, u32),
    /// All of them: first, count.
    pub uids: Vec<(u32, u32)>,
    pub gids: Vec<(u32, u32)>,
}

/// The maps of the user namespace through which a mount is seen; `None` where there is nothing to exchange.
pub(super) fn maps(owner: (u32, u32), outside: &Outside) -> Option<[CString; 2]> {
    let foreign = |id: u32, own: &[(u32, u32)]| {
        id != 0 && id != u32::MAX && !own.iter().any(|(first, count)| id >= *first && id - first < *count)
    };
    if !foreign(owner.0, &outside.uids) {
        return None;
    }
    // a group without a meaning of its own, root's, stays: new files are of the sandbox's
    let group = if foreign(owner.1, &outside.gids) { owner.1 } else { outside.root.1 };
    Some([exchange(owner.0, outside.root.0), exchange(group, outside.root.1)])
}

/// All ids as they are, but for these two.
fn exchange(a: u32, b: u32) -> CString {
    let (low, high) = (a.min(b), a.max(b));
    let lines = if low == high {
        vec![(0, 0, u32::MAX)]
    } else {
        // 4294967295 is no id
        vec![
            (0, 0, low),
            (low, high, 1),
            (low + 1, low + 1, high - low - 1),
            (high, low, 1),
            (high + 1, high + 1, u32::MAX - high - 1),
        ]
    };
    let lines = lines.iter().filter(|(.., count)| *count > 0);
    let text: String = lines.map(|(inside, outside, count)| format!("{inside} {outside} {count}\n")).collect();
    crate::id::c_string(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ids_are_exchanged_and_the_hosts_root_never_is() {
        let outside = Outside { root: (7000, 7000), uids: vec![(7000, 100)], gids: vec![(7000, 100)] };
        let text = |owner| maps(owner, &outside).map(|maps| maps.map(|map| map.into_string().unwrap_or_default()));
        let swap = "0 0 1000\n1000 7000 1\n1001 1001 5999\n7000 1000 1\n7001 7001 4294960294\n";
        let all = "0 0 4294967295\n";
        assert_eq!(text((1000, 1000)), Some([swap.into(), swap.into()]));
        assert_eq!(text((1000, 0)), Some([swap.into(), all.into()]), "root's group stays");
        assert_eq!(
            text((1, 6999)).map(|maps| maps[1].clone()).as_deref(),
            Some("0 0 6999\n6999 7000 1\n7000 6999 1\n7001 7001 4294960294\n")
        );
        for own in [(0, 0), (0, 1000), (7000, 1), (7050, 1), (u32::MAX, 1)] {
            assert_eq!(text(own), None, "{own:?}");
        }
    }
}
