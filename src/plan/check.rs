//! Checking a whole specification.

use crate::cgroup::{CgroupLimits, Places};
use crate::enforce::Enforcement;
use crate::error::{Defect, Error, Result};
use crate::host::Host;
use crate::host::cgroups::{Hierarchy, visible};
use crate::mount::{Context, Mounts, Outside, Right};
use crate::namespace::{Leasing, Namespaces, Pid, Resolved, User, Uts, is_shared};
use crate::process::Init;
use crate::program::op::without;
use crate::rootfs::{Base, Ranges, RootFs, Source};
use crate::security::{Confinement, Place, Security, Surroundings};

/// What the builder has been told.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub namespaces: Namespaces,
    pub root: RootFs,
    /// The mount plan; the default's depends on the root.
    pub mounts: Option<Mounts>,
    /// Mounts behind the plan.
    pub extra: Mounts,
    pub security: Security,
    pub limits: CgroupLimits,
    pub init: Init,
}

/// The hierarchies of control groups that are to be used.
fn hierarchies() -> Vec<Hierarchy> {
    let without_v2 = crate::testing::disabled() & without::CGROUP_V2 != 0;
    visible().into_iter().filter(|hierarchy| !(hierarchy.v2 && without_v2)).collect()
}

/// A specification that has been found consistent for this host: what a `Sandbox` holds.
#[derive(Debug)]
pub(crate) struct Template {
    pub host: Host,
    pub namespaces: Namespaces,
    /// The map of a new user namespace.
    pub ids: Option<Resolved>,
    pub root: RootFs,
    pub mounts: Mounts,
    pub security: Security,
    /// The security, compiled.
    pub confinement: Confinement,
    /// Where its control groups are made.
    pub groups: Places,
    pub init: Init,
    /// What all of this protects.
    pub enforcement: Enforcement,
}

impl Template {
    /// Checks everything and reports all defects together.
    pub fn new(spec: Spec) -> Result<Template> {
        let host = Host::probe();
        let (mut defects, mut report) = (Vec::new(), Enforcement::default());
        let ids = match &spec.namespaces.user {
            User::New(map) => Some(map.resolve(&host, &mut defects)),
            User::Join(_) | User::Inherit => None,
        };
        super::report::namespaces(&spec, ids.as_ref(), &mut report);
        let Spec { namespaces, mut root, mounts, extra, security, limits, init } = spec;
        // a root that is not the sandbox's own comes with its mounts
        let own_root = root.is_new();
        let mut mounts = mounts.unwrap_or_else(|| match root.base {
            Base::Host => Mounts::standard_of_host(),
            _ if own_root => Mounts::standard(),
            _ => Mounts::none(),
        });
        mounts.0.extend(extra.0);
        mounts.make_absolute();
        root.make_absolute();
        if !own_root && !mounts.0.is_empty() {
            defects.push(Defect::new(
                "an inherited or joined mount namespace cannot get mounts: they would appear in the host or the other sandbox",
                "RootFs::host(), or Mounts::none()",
            ));
        }
        root.check(&mut defects);
        super::report::files(&root, &mounts, &mut report);
        let around = surroundings(&host, &namespaces, &root, &mounts, &security);
        let confinement = security.compile(&around, &mut report, &mut defects);
        super::report::process(&mut report);
        super::report::init(init, &mut report);
        limits.check(&mut defects);
        let groups = Places::default();
        let enforcement = report;
        let mut template =
            Template { host, namespaces, ids, root, mounts, security, confinement, groups, init, enforcement };
        template.mounts.check(template.context(0), &mut defects);
        template.settle_ids(&mut defects);
        template.check_names(&mut defects);
        if !defects.is_empty() {
            return Err(Error::spec(defects));
        }
        template.confinement.check_host()?;
        // without a pid namespace that ends with its init, the group is what ends the tree
        let tree = !matches!(template.namespaces.pid, Pid::New);
        template.groups = Places::new(&limits, &hierarchies(), tree)?;
        super::report::notes(&template.groups.notes, &mut template.enforcement);
        Ok(template)
    }

    /// Whether the sandbox gets ids of its own: not where what it leaves has to be somebody's later.
    fn settle_ids(&mut self, defects: &mut Vec<Defect>) {
        let Some(ids) = &mut self.ids else { return };
        let persists = self.root.persists();
        let leaves = persists || self.mounts.share_files(is_shared);
        match ids.lease {
            Leasing::Required if persists => defects.push(Defect::new(
                "a persistent upper belongs to ids that the next sandbox does not have",
                "IdMap::automatic(), or a discarded upper",
            )),
            Leasing::Preferred if leaves => ids.lease = Leasing::No,
            _ => {}
        }
        super::report::blocks(ids, leaves, &mut self.enforcement);
    }

    fn check_names(&self, defects: &mut Vec<Defect>) {
        let Uts::New { hostname, domainname } = &self.namespaces.uts else { return };
        for (what, name) in [("host name", Some(hostname)), ("domain name", domainname.as_ref())] {
            let Some(name) = name else { continue };
            if name.is_empty() || name.len() > 64 || name.contains('\0') {
                defects.push(Defect::new(
                    format!("the {what} {name:?} has {} bytes", name.len()),
                    "1 to 64 bytes, none of them NUL (sethostname(2))",
                ));
            }
        }
    }

    /// Whether the parent may clone and id-map trees for the sandbox.
    fn by_parent(&self, without: u32) -> bool {
        self.host.may_mount && self.ids.is_some() && without & without::MOUNT_API == 0
    }

    pub fn context(&self, without: u32) -> Context<'static> {
        let (by_parent, has_id_map) = (self.by_parent(without), self.ids.is_some());
        let initial = [&self.host.uids, &self.host.gids].iter().all(|ids| ids.as_slice() == [(0, u32::MAX)]);
        let may_map_owners =
            by_parent && has_id_map && initial && self.host.may_map && without & without::IDMAPPED == 0;
        Context { by_parent, has_id_map, may_map_owners, outside: None }
    }

    /// The sandbox's ids, as the host knows them.
    pub fn outside(&self, ids: Option<&Resolved>) -> Option<Outside> {
        let root = self.source(ids, 0).owner?;
        let ranges = |ranges: &[crate::namespace::IdRange]| ranges.iter().map(|r| (r.outside, r.count)).collect();
        ids.map(|ids| Outside { root, uids: ranges(&ids.uids), gids: ranges(&ids.gids) })
    }

    /// The id map, as first inside, first outside, count.
    pub fn ranges(ids: Option<&Resolved>) -> Option<(Ranges, Ranges)> {
        let triples =
            |ranges: &[crate::namespace::IdRange]| ranges.iter().map(|r| (r.inside, r.outside, r.count)).collect();
        ids.map(|ids| (triples(&ids.uids), triples(&ids.gids)))
    }

    pub fn source(&self, ids: Option<&Resolved>, without: u32) -> Source {
        let by_parent = self.by_parent(without);
        let outside = |ranges: &[crate::namespace::IdRange]| Resolved::outside(ranges, Resolved::setup_id(ranges));
        let initial = self.host.uids.as_slice() == [(0, u32::MAX)];
        Source {
            by_parent,
            idmap: by_parent && without & without::IDMAPPED == 0,
            userxattr: !(matches!(self.namespaces.user, User::Inherit) && initial && self.host.may_mount),
            owner: ids.and_then(|ids| Some((outside(&ids.uids)?, outside(&ids.gids)?))),
        }
    }
}

/// What a Landlock domain mirrors.
pub(super) fn surroundings(
    host: &Host,
    namespaces: &Namespaces,
    root: &RootFs,
    mounts: &Mounts,
    security: &Security,
) -> Surroundings {
    let place = |right| match right {
        Right::Write => Place::Writable,
        Right::WriteFiles => Place::Files,
        Right::Devices => Place::Devices,
        Right::WriteAndDevices => Place::WritableDevices,
        Right::Queues => Place::Queues,
    };
    let without = crate::testing::disabled() & without::LANDLOCK != 0;
    Surroundings {
        abi: if without { 0 } else { crate::sys::kernel::call::landlock_version() },
        own_mounts: root.is_new(),
        root_writable: root.is_writable(),
        places: mounts.rights().into_iter().map(|(path, right)| (path, place(right))).collect(),
        sockets: mounts.sockets(),
        may_mount: security.may_mount(),
        user_limits: host.user_limits.filter(|_| matches!(namespaces.user, User::New(_))),
        own_network: matches!(namespaces.net, crate::namespace::Net::New),
        own_pids: matches!(namespaces.pid, Pid::New),
    }
}
