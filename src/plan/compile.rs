//! Putting the domains' ops in order.

use super::check::{Template, surroundings};
use crate::enforce::Enforcement;
use crate::error::{Defect, Error, ErrorKind, Result};
use crate::handle::Fd;
use crate::host::sockets;
use crate::id::c_path;
use crate::mount::Context;
use crate::namespace::{Lease, Leasing, MountNamespace, Powers, Resolved, User, id_exists};
use crate::process::{Command, Defaults, Ids, Init, Stage, Streams};
use crate::program::{Builder, Op, Program, op};
use crate::rootfs::{Base, Kept, Target};
use crate::security::{Confinement, Security};
use crate::sys::pidfd::PidFd;

/// A Program and what stays with the library while it runs.
pub(crate) struct Compiled {
    pub program: Program,
    pub streams: Streams,
    pub kept: Kept,
    pub ids: SpawnIds,
}

/// The ids of one spawn.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpawnIds {
    /// The map of a new user namespace.
    pub map: Option<Resolved>,
    /// Why the sandbox has no ids of its own, where it was to have some.
    pub shared: Option<String>,
}

impl SpawnIds {
    /// Gives the pipes to the payload, if the host may: it can then open them anew by their names, such as /dev/stdout.
    fn give(&self, streams: &Streams, template: &Template, owner: (u32, u32)) {
        let owner = match &self.map {
            Some(map) => Resolved::outside(&map.uids, owner.0).zip(Resolved::outside(&map.gids, owner.1)),
            None => matches!(template.namespaces.user, User::Inherit).then_some(owner),
        };
        if let Some(owner) = owner.filter(|_| template.host.may_map) {
            streams.give(owner);
        }
    }
}

/// Compiles a command in a sandbox. `without`: kernel features not to be used.
pub(crate) fn compile(
    template: &Template,
    command: &Command,
    defaults: Defaults,
    without: u32,
    fault: Option<u32>,
) -> Result<Compiled> {
    let Template { host, namespaces, ids, root, mounts, security, confinement, groups, init, .. } = template;
    let payload_ids = check(template, command)?;
    let mut builder = Builder::new();
    let (lease, shared) = lease(ids.as_ref().map_or(Leasing::No, |ids| ids.lease), command)?;
    let leased = lease.as_ref().zip(ids.as_ref()).map(|(lease, ids)| lease.shift(ids));
    let map = leased.or_else(|| ids.clone());
    let ids = map.as_ref();
    let mount_namespace = match &root.base {
        Base::Inherit => MountNamespace::Inherit,
        Base::Join(namespace) => MountNamespace::Join(namespace),
        _ => MountNamespace::New,
    };
    let counted = groups.lower(&mut builder);
    command.lower_early(host.spared, &mut builder);
    if counted.is_none() && mounts.hides_pids() {
        command.limits().check_unseen()?;
    }
    command.limits().lower_source(counted.as_deref(), &mut builder);
    let stay = matches!(init, Init::Shim);
    let keep = security.capabilities.bits();
    let limits = if without & op::without::USER_LIMITS == 0 { confinement.user_limits() } else { &[] };
    let powers = Powers { is_init: !stay, keep, limits };
    namespaces.lower(host, ids, &mount_namespace, powers, &mut builder)?;
    let host_root = matches!(root.base, Base::Host);
    let sockets = if host_root || mounts.binds_directories() { sockets::bound() } else { Vec::new() };
    mounts.check_sockets(&sockets)?;
    let targets = mounts.targets();
    let targets: Vec<_> = targets.into_iter().map(|(path, directory)| Target { path, directory }).collect();
    let mut kept = root
        .lower(template.source(ids, without), &targets, security.gains_privileges(), &mut builder)?
        .with_ids(Template::ranges(ids))
        .with_note()?;
    kept.block = lease.map(|lease| lease.lock);
    let kept = kept.with_leases(root.leases.iter().chain(mounts.leases()));
    // sysfs shows the network namespace in which it is mounted
    let early = mounts.uses_network();
    if early {
        namespaces.lower_network(&mut builder);
    }
    if host_root {
        // what listens on the host is not part of its files
        sockets.iter().for_each(|socket| builder.op(Op::Mask { path: &c_path(socket) }));
    }
    let outside = template.outside(ids);
    let context = Context { outside: outside.as_ref(), ..template.context(without) };
    mounts.lower(context, &mut builder)?;
    root.lower_end(&mut builder);
    if !early {
        namespaces.lower_network(&mut builder);
    }
    groups.lower_inside(&mut builder);
    let host_pidfd = PidFd::open(std::process::id() as i32)
        .map_err(|errno| Error::call("open a pidfd of the host process", errno))?;
    let streams = command.lower(
        &payload_ids,
        defaults,
        without,
        &mut builder,
        |builder| {
            let host = builder.send(Fd::Owned(host_pidfd.into()));
            let lock = kept.send(builder)?;
            confinement.lower_sandbox(builder);
            builder.op(Op::Payload { stay: stay.into(), host, lock, keep });
            confinement.lower_label(builder)
        },
        confine(vec![confinement]),
    )?;
    if !builder.fits() {
        return Err(Error::new(ErrorKind::LimitReached, "compile the sandbox: it has more than 1900 sources")
            .with_hint("fewer layers and mounts"));
    }
    let ids = SpawnIds { map, shared };
    ids.give(&streams, template, command.payload_ids(&payload_ids));
    Ok(Compiled { program: builder.finish(without, fault), streams, kept, ids })
}

/// A block of ids for this spawn, or why there is none.
fn lease(leasing: Leasing, command: &Command) -> Result<(Option<Lease>, Option<String>)> {
    let shared = |why: String| Ok((None, Some(format!("the sandbox has ids that others have too: {why}"))));
    match leasing {
        Leasing::No | Leasing::Impossible => Ok((None, None)),
        Leasing::Required => Ok((Some(Lease::take()?), None)),
        Leasing::Preferred if command.passes_directory() => shared("a directory of the host is passed to it".into()),
        Leasing::Preferred => match Lease::take() {
            Ok(lease) => Ok((Some(lease), None)),
            Err(error) => shared(error.to_string()),
        },
    }
}

/// Compiles a command for a process that enters a running sandbox of this template, which is
/// confined as the payload is, and by `tighter` besides.
pub(crate) fn compile_entry(
    template: &Template,
    ids: &SpawnIds,
    command: &Command,
    tighter: Option<&Security>,
    without: u32,
    fault: Option<u32>,
) -> Result<(Program, Streams)> {
    let mut payload_ids = check(template, command)?;
    command.limits().check_entry()?;
    if template.confinement.needs_privilege() {
        let what = "enter a sandbox whose payload may gain privileges and has a filter of system calls";
        return Err(Error::new(ErrorKind::NotSupported, what).with_hint(
            "no Security::allow_new_privileges, or Seccomp::Unconfined: such a filter takes CAP_SYS_ADMIN to install, \
             which the sandbox's init has given up",
        ));
    }
    let mut defects = Vec::new();
    let tighter = tighter.map(|security| {
        payload_ids.capabilities &= security.capabilities.bits();
        let around = surroundings(&template.host, &template.namespaces, &template.root, &template.mounts, security);
        let mut confinement = security.compile(&around, &mut Enforcement::default(), &mut defects);
        confinement.gain_nothing(); // not what the sandbox's bounding set would allow
        confinement
    });
    if template.confinement.notifies() && tighter.as_ref().is_some_and(Confinement::notifies) {
        defects.push(Defect::new(
            "both the sandbox's filter and the tighter one notify calls: the kernel takes one listener for a process",
            "a tighter Security without SeccompAction::Notify",
        ));
    }
    if tighter.as_ref().is_some_and(|tighter| template.confinement.labels_otherwise(tighter)) {
        defects.push(Defect::new(
            "a process that enters has another exec label than the sandbox, which need not be the tighter one",
            "the sandbox's own label, or none, which is the same",
        ));
    }
    if !defects.is_empty() {
        return Err(Error::spec(defects));
    }
    let labels = tighter.as_ref().filter(|_| !template.confinement.labels()).unwrap_or(&template.confinement);
    labels.check_host()?;
    let mut builder = Builder::new();
    builder.parent_op(Op::Enter {});
    let streams = command.lower(
        &payload_ids,
        Defaults::Null,
        without,
        &mut builder,
        |builder| labels.lower_label(builder),
        // the kernel takes the strictest answer of all filters, and limits are only lowered
        confine([&template.confinement].into_iter().chain(&tighter).collect()),
    )?;
    ids.give(&streams, template, command.payload_ids(&payload_ids));
    Ok((builder.finish(without, fault), streams))
}

/// What confines a process, by stages.
fn confine(all: Vec<&Confinement>) -> impl Fn(Stage, &mut Builder) {
    move |stage, builder| match stage {
        Stage::BeforeIds => all.iter().for_each(|one| one.lower_before_ids(builder)),
        Stage::AfterIds => all.iter().for_each(|one| one.lower(builder)),
        Stage::Last => Confinement::lower_last(&all, builder),
    }
}

/// Checks a command against the sandbox it is for, and gives the sandbox's ids.
fn check<'a>(template: &'a Template, command: &Command) -> Result<Ids<'a>> {
    let payload_ids = payload_ids(template);
    let has = |pick: fn(&Resolved) -> &Vec<crate::namespace::IdRange>| {
        move |id: u32| template.ids.as_ref().is_none_or(|ids| id_exists(pick(ids), id))
    };
    command.check(has(|ids| &ids.uids), has(|ids| &ids.gids), &payload_ids, template.init)?;
    command.check_terminal(template.mounts.has_devpts())?;
    Ok(payload_ids)
}

fn payload_ids(template: &Template) -> Ids<'_> {
    let Template { host, ids, namespaces, security, .. } = template;
    let (uid, gid, may_set_groups) = match (ids, &namespaces.user) {
        (Some(ids), _) => (Resolved::setup_id(&ids.uids), Resolved::setup_id(&ids.gids), !ids.deny_setgroups),
        (None, User::Join(_)) => (0, 0, false),
        (None, _) => (host.uid, host.gid, host.may_map),
    };
    let preset = template.root.preset.as_deref();
    let (uid, gid) = preset.map_or((uid, gid), |preset| (preset.uid.unwrap_or(uid), preset.gid.unwrap_or(gid)));
    Ids { uid, gid, may_set_groups, capabilities: security.capabilities.bits(), preset }
}
