//! Id maps: which ids of the host the ids inside stand for (user_namespaces(7)).

use crate::error::Defect;
use crate::host::{Host, SubIds, subordinate};

/// The kernel takes 340 extents (Linux 4.15).
const MAX_EXTENTS: usize = 340;
/// Written at once, in less than a page (`map_write`).
const MAX_TEXT: usize = 4095;
/// What a plain block has: as many ids as 16 bits name.
pub(super) const BLOCK: u32 = 65536;
/// Where root's blocks begin: no distribution's useradd and no systemd allocation
/// goes there (systemd's "Users, Groups, UIDs and GIDs": 1879048192 to 2147352575 are unused).
pub(super) const BLOCK_BASE: u32 = 0x7000_0000;

/// A run of ids: `inside..inside + count` stand for `outside..outside + count` of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first id inside.
    pub inside: u32,
    /// The first id of the host.
    pub outside: u32,
    /// How many, at least 1.
    pub count: u32,
}

/// Who the ids inside are outside. See the constructors; the default is [`automatic`](IdMap::automatic).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMap {
    kind: Kind,
    allow_host_root: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Automatic,
    Distinct,
    Shared,
    Caller { uid: u32, gid: u32 },
    Subordinate,
    Ranges { uids: Vec<IdRange>, gids: Vec<IdRange> },
}

impl Default for IdMap {
    fn default() -> Self {
        IdMap::automatic()
    }
}

impl IdMap {
    /// As root (CAP_SETUID): ids 0 to 65535 are an unprivileged block of the host that no other running sandbox has, as
    /// [`distinct`](IdMap::distinct) gives one; but [`shared`](IdMap::shared) for a sandbox whose files are to be somebody's
    /// when it has ended: with [`Upper::Persist`](crate::Upper::Persist), a bind that can be written, a read-only bind of what belongs
    /// to the shared block, or [`Command::directory_fd`](crate::Command::directory_fd). Shared as well, and told by
    /// [`Child::notes`](crate::Child::notes), where no block can be leased.
    ///
    /// As an ordinary user: [`caller`](IdMap::caller).
    pub fn automatic() -> IdMap {
        IdMap { kind: Kind::Automatic, allow_host_root: false }
    }

    /// As root: ids 0 to 65535 are a block of the host that no other running sandbox has, so that what the
    /// kernel counts by user (keys, inotify, message queues) is counted by sandbox. 4094 at a time, between 1879113728 and
    /// 2147352575; leased by a lock on `/run/belljar-ids` that ends with the sandbox, also when the host process is killed.
    ///
    /// It costs a spawn 4 µs, 14 with 500 sandboxes alive. An error where there is no block, and for roots with
    /// [`Upper::Persist`](crate::Upper::Persist): another spawn has other ids. What the payload writes to a bind of root's
    /// directory belongs to nobody later.
    pub fn distinct() -> IdMap {
        IdMap { kind: Kind::Distinct, allow_host_root: false }
    }

    /// As root: ids 0 to 65535 are the block that all such sandboxes share, from 1879048192 on, or the highest
    /// 65536 ids that the caller's own namespace has. What one writes belongs to the next one too.
    pub fn shared() -> IdMap {
        IdMap { kind: Kind::Shared, allow_host_root: false }
    }

    /// One id each: root inside is the caller outside. Needs no privilege and no helper;
    /// setgroups(2) is denied inside, as the kernel requires.
    pub fn caller() -> IdMap {
        IdMap::caller_as(0, 0)
    }

    /// One id each: `uid` and `gid` inside are the caller outside.
    pub fn caller_as(uid: u32, gid: u32) -> IdMap {
        IdMap { kind: Kind::Caller { uid, gid }, allow_host_root: false }
    }

    /// Root inside is the caller, and ids from 1 on are those that `/etc/subuid` and
    /// `/etc/subgid` grant the caller, written by newuidmap(1) and newgidmap(1).
    pub fn subordinate() -> IdMap {
        IdMap { kind: Kind::Subordinate, allow_host_root: false }
    }

    /// These ranges, 1 to 340 for users and for groups (340 only if the numbers are small: the
    /// kernel takes 4095 bytes of text). Written directly by a caller with
    /// CAP_SETUID and CAP_SETGID, else by newuidmap(1) and newgidmap(1).
    pub fn ranges(uids: impl IntoIterator<Item = IdRange>, gids: impl IntoIterator<Item = IdRange>) -> IdMap {
        let kind = Kind::Ranges { uids: uids.into_iter().collect(), gids: gids.into_iter().collect() };
        IdMap { kind, allow_host_root: false }
    }

    /// Opts out of a protection: lets the map contain the host's id 0. Such a user
    /// namespace is no boundary: its root may write the host's `/proc/sys` and own its files.
    pub fn allow_host_root(mut self) -> IdMap {
        self.allow_host_root = true;
        self
    }

    /// The extents for this caller.
    pub(crate) fn resolve(&self, host: &Host, defects: &mut Vec<Defect>) -> Resolved {
        let own = |outside_uid, outside_gid, uid, gid| Resolved {
            uids: vec![IdRange { inside: uid, outside: outside_uid, count: 1 }],
            gids: vec![IdRange { inside: gid, outside: outside_gid, count: 1 }],
            deny_setgroups: true,
            helper: false,
            lease: Leasing::Impossible,
        };
        let mut resolved = match &self.kind {
            Kind::Automatic | Kind::Distinct | Kind::Shared if host.may_map => {
                let (uids, gids) = (vec![block(&host.uids)], vec![block(&host.gids)]);
                let all = uids.iter().chain(&gids).all(|range| range.outside == BLOCK_BASE);
                let lease = match self.kind {
                    Kind::Distinct => Leasing::Required,
                    Kind::Automatic if all => Leasing::Preferred,
                    Kind::Automatic => Leasing::Impossible,
                    _ => Leasing::No,
                };
                if lease == Leasing::Required && !all {
                    defects.push(Defect::new(
                        "this user namespace does not have the ids from 1879048192 on, from which distinct blocks are taken",
                        "IdMap::automatic(), or IdMap::ranges of the ids that there are",
                    ));
                }
                Resolved { uids, gids, deny_setgroups: false, helper: false, lease }
            }
            Kind::Distinct => {
                defects.push(Defect::new(
                    "only root has ids to give a sandbox a block of its own",
                    "IdMap::automatic(), or IdMap::subordinate()",
                ));
                own(host.uid, host.gid, 0, 0)
            }
            Kind::Automatic | Kind::Shared => own(host.uid, host.gid, 0, 0),
            Kind::Caller { uid, gid } => own(host.uid, host.gid, *uid, *gid),
            Kind::Subordinate => Resolved {
                uids: granted("/etc/subuid", host.uid, host.uid, defects),
                gids: granted("/etc/subgid", host.uid, host.gid, defects),
                deny_setgroups: false,
                helper: !host.may_map,
                lease: Leasing::No,
            },
            Kind::Ranges { uids, gids } => {
                let single = |ranges: &[IdRange], id| matches!(ranges, [one] if one.count == 1 && one.outside == id);
                let alone = !host.may_map && single(uids, host.uid) && single(gids, host.gid);
                Resolved {
                    uids: uids.clone(),
                    gids: gids.clone(),
                    deny_setgroups: alone,
                    helper: !host.may_map && !alone,
                    lease: Leasing::No,
                }
            }
        };
        if !host.may_map {
            resolved.lease = Leasing::Impossible;
        }
        check("uid", &resolved.uids, defects);
        check("gid", &resolved.gids, defects);
        let host_root = resolved.uids.iter().chain(&resolved.gids).any(|range| range.outside == 0);
        if host_root && !self.allow_host_root {
            defects.push(Defect::new(
                "the id map contains the host's id 0: a payload that is root inside would be root outside",
                "IdMap::automatic(), ranges that leave 0 out, or, knowing this, IdMap::allow_host_root()",
            ));
        }
        resolved
    }
}

/// An id map in numbers.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub uids: Vec<IdRange>,
    pub gids: Vec<IdRange>,
    pub deny_setgroups: bool,
    pub helper: bool,
    /// Whether each spawn leases a block of its own.
    pub lease: Leasing,
}

/// Whether a sandbox has ids of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leasing {
    /// It is not wanted.
    No,
    /// The caller has no ids to give.
    Impossible,
    /// Where it can be had, and nothing speaks against it.
    Preferred,
    Required,
}

impl Resolved {
    /// The lines of `uid_map` or `gid_map`.
    pub fn text(ranges: &[IdRange]) -> Vec<u8> {
        let line = |r: &IdRange| format!("{} {} {}\n", r.inside, r.outside, r.count);
        ranges.iter().map(line).collect::<String>().into_bytes()
    }

    /// Root inside, or the first id that there is.
    pub fn setup_id(ranges: &[IdRange]) -> u32 {
        let first = ranges.first().map_or(0, |r| r.inside);
        if contains(ranges, 0) { 0 } else { first }
    }

    /// The host's id that an id inside stands for.
    pub fn outside(ranges: &[IdRange], id: u32) -> Option<u32> {
        let range = ranges.iter().find(|r| id >= r.inside && id - r.inside < r.count)?;
        Some(range.outside + (id - range.inside))
    }
}

/// Whether the host's id is of the block that sandboxes share.
pub(crate) fn is_shared(id: u32) -> bool {
    (BLOCK_BASE..BLOCK_BASE + BLOCK).contains(&id)
}

/// Whether an id exists inside.
pub(crate) fn contains(ranges: &[IdRange], id: u32) -> bool {
    Resolved::outside(ranges, id).is_some()
}

/// The block of ids that root's sandboxes get, within the ids that exist here.
fn block(own: &[(u32, u32)]) -> IdRange {
    let fits = |&(first, count): &(u32, u32)| {
        first <= BLOCK_BASE && u64::from(first) + u64::from(count) >= u64::from(BLOCK_BASE) + u64::from(BLOCK)
    };
    if own.iter().any(fits) {
        return IdRange { inside: 0, outside: BLOCK_BASE, count: BLOCK };
    }
    // inside a container: the upper part of the largest run, but never its id 0
    let (first, count) = own.iter().copied().max_by_key(|&(_, count)| count).unwrap_or((0, 1));
    let usable = BLOCK.min(count / 2).max(1);
    IdRange { inside: 0, outside: first + (count - usable), count: usable }
}

/// The caller's own id, then what a file grants it.
fn granted(path: &str, user: u32, own: u32, defects: &mut Vec<Defect>) -> Vec<IdRange> {
    let mut ranges = vec![IdRange { inside: 0, outside: own, count: 1 }];
    match subordinate(path, user) {
        Ok(granted) if !granted.is_empty() => {
            for SubIds { first, count } in granted {
                let inside = ranges.last().map_or(0, |r| r.inside.saturating_add(r.count));
                ranges.push(IdRange { inside, outside: first, count });
            }
        }
        found => {
            let why = found.err().map_or_else(String::new, |e| format!(" ({e})"));
            defects.push(Defect::new(
                format!("{path} grants uid {user} no ids{why}"),
                format!("`usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}`, or IdMap::caller()"),
            ));
        }
    }
    ranges
}

fn check(what: &str, ranges: &[IdRange], defects: &mut Vec<Defect>) {
    if ranges.is_empty() || ranges.len() > MAX_EXTENTS {
        defects.push(Defect::new(
            format!("the {what} map has {} ranges", ranges.len()),
            format!("1 to {MAX_EXTENTS} ranges (user_namespaces(7))"),
        ));
    }
    let bytes = Resolved::text(ranges).len();
    if ranges.len() <= MAX_EXTENTS && bytes > MAX_TEXT {
        defects.push(Defect::new(
            format!("the {what} map takes {bytes} bytes of text, and the kernel reads {MAX_TEXT}"),
            "fewer ranges, or smaller numbers",
        ));
    }
    let mut sides: [Vec<(u64, u64)>; 2] = Default::default();
    for range in ranges {
        let end = |first: u32| u64::from(first) + u64::from(range.count);
        // 4294967295 is no id: it means "unchanged" in the calls that set ids
        if range.count == 0 || end(range.inside) > u64::from(u32::MAX) || end(range.outside) > u64::from(u32::MAX) {
            defects.push(Defect::new(
                format!("the {what} range {range:?} is empty or goes beyond 4294967294"),
                "a count of at least 1 that ends within the ids",
            ));
        }
        sides[0].push((range.inside.into(), end(range.inside)));
        sides[1].push((range.outside.into(), end(range.outside)));
    }
    for (side, name) in sides.iter_mut().zip(["inside", "outside"]) {
        side.sort_unstable();
        if side.windows(2).any(|pair| pair[1].0 < pair[0].1) {
            defects.push(Defect::new(format!("ranges of the {what} map overlap {name}"), "ranges that share no id"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_avoids_id_zero_wherever_the_caller_lives() {
        assert_eq!(block(&[(0, u32::MAX)]), IdRange { inside: 0, outside: BLOCK_BASE, count: BLOCK });
        assert_eq!(block(&[(0, 65536)]), IdRange { inside: 0, outside: 32768, count: 32768 });
        assert_eq!(block(&[(0, 1), (1, 65536)]).outside, 32769);
    }

    #[test]
    fn overlaps_and_empty_ranges_are_defects() {
        let defects = |ranges: &[(u32, u32, u32)]| {
            let ranges: Vec<_> =
                ranges.iter().map(|&(inside, outside, count)| IdRange { inside, outside, count }).collect();
            let mut defects = Vec::new();
            check("uid", &ranges, &mut defects);
            defects.len()
        };
        assert_eq!(defects(&[(0, 1000, 1), (1, 100000, 65536)]), 0);
        assert_eq!(defects(&[(0, 1000, 2), (1, 100000, 1)]), 1);
        assert_eq!(defects(&[(0, 1000, 2), (2, 1001, 1)]), 1);
        assert_eq!(defects(&[(0, 1, 0)]), 1);
        assert_eq!(defects(&[]), 1);
        assert_eq!(defects(&[(u32::MAX, 1, 1)]), 1);
        let many: Vec<_> = (0..341).map(|i| (i, 1000 + i, 1)).collect();
        assert_eq!((defects(&many), defects(&many[..340])), (1, 0));
    }
}
