//! The interpreter: one arm an op.

use crate::decimal::Decimal;
use crate::program::wire::codec::{Header, NO_FAULT, Reader};
use crate::program::wire::op::{Op, without};
use crate::program::wire::report::{Report, given};
use crate::receive::Received;
use crate::state::{State, report, report_failure};
use crate::sys::kernel::{Errno, Result, call};
use crate::{
    confine, descriptors, identity, init_layer, label, limits, meter, mounts, network, overlay, payload, procfs, pty,
    receive, root, schedule,
};

/// The ops still to run.
pub struct Ops {
    reader: Reader<'static>,
    /// The number of the next op.
    pub next: u32,
    total: u32,
    fault: u32,
}

impl Ops {
    /// The ops of a Program.
    pub fn of(header: &Header, bytes: &'static [u8]) -> Ops {
        Ops { reader: Reader(bytes), next: 0, total: header.ops, fault: header.fault }
    }
}

impl Iterator for Ops {
    type Item = Result<Op<'static>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.total {
            return None;
        }
        let op = Op::decode(&mut self.reader).ok_or(Errno::EPROTO);
        let number = self.next;
        self.next += 1;
        if number == self.fault && self.fault != NO_FAULT {
            return Some(Err(Errno::EIO));
        }
        Some(op)
    }
}

/// Runs a Program. A failing op is reported by its number and ends the process,
/// and with it (as nothing outside refers to them) all namespaces and mounts.
pub fn program(received: Received) -> ! {
    let Received { header, bytes, slots } = received;
    let mut ops = Ops::of(&header, bytes);
    let mut state = State::new(slots, header.trees, header.without);
    call::umask(0).unwrap_or_default(); // umask(2) always succeeds
    rest(&mut ops, &mut state)
}

/// Runs what is left of a Program.
pub fn rest(ops: &mut Ops, state: &mut State) -> ! {
    loop {
        state.message.clear();
        let failed = match ops.next() {
            Some(Ok(op)) => step(op, ops, state).err(),
            Some(Err(errno)) => Some(errno),
            None => Some(Errno::EPROTO), // every Program ends in `Exec`
        };
        if let Some(errno) = failed {
            report_failure(ops.next.saturating_sub(1), errno, state.message.as_bytes());
            payload::failed();
        }
    }
}

fn step(op: Op<'static>, ops: &mut Ops, state: &mut State) -> Result<()> {
    match op {
        // the parent has done these
        Op::Clone { .. } | Op::Enter {} | Op::JoinFirst { .. } | Op::MapIds { .. } | Op::Tree { .. } => Ok(()),
        Op::Affinity { mask } => call::sched_setaffinity(mask).map(drop),
        Op::GroupEnable { .. }
        | Op::Group { .. }
        | Op::GroupSet { .. }
        | Op::GroupDevices { .. }
        | Op::GroupJoin { .. } => Ok(()),

        Op::Join { kind, fd, name: _ } => identity::join(state, kind, fd),
        Op::Unshare { kind } => call::unshare(kind).map(drop),
        Op::Clocks { offsets } => identity::clocks(state, offsets),
        Op::Relaunch {} => identity::relaunch(),
        Op::Signals {} => identity::signals(),
        Op::UserLimit { file, value } => procfs::write(file, Decimal::new().of(value).to_bytes()),
        Op::Bounding { capabilities, last } => identity::bounding(capabilities, last),
        Op::Await {} => receive::trees(state),
        Op::SetupIds { uid, gid, drop_groups } => identity::setup_ids(uid, gid, drop_groups),
        Op::Hostname { name } => call::sethostname(name.to_bytes()).map(drop),
        Op::Domainname { name } => call::setdomainname(name.to_bytes()).map(drop),
        Op::NewNetwork {} => {
            if state.may(without::THREAD) {
                network::begin();
            }
            Ok(())
        }
        Op::EnterNetwork {} => network::enter(),

        Op::PrivateMounts {} => root::private_mounts(state),
        Op::Scratch { bytes, inodes } => root::scratch(state, bytes, inodes),
        Op::OpenLayer { path, dev, ino, to } => root::open_layer(state, path, dev, ino, to),
        Op::StageTree { slot, name } => root::stage_tree(state, slot, name),
        Op::StageUpper { slot } => root::stage_upper(state, slot),
        Op::InitBegin { first, count, userxattr } => init_layer::begin(state, first, count, userxattr != 0),
        Op::InitEnd {} => init_layer::end(state),
        Op::Overlay { first, count, upper, userxattr, set } => {
            overlay::root(state, first, count, upper, userxattr != 0, set)
        }
        Op::Track {} => {
            report(Report::Given { what: given::SCRATCH }, &[state.scratch]);
            Ok(())
        }
        Op::RootTree { slot, set, recursive } => root::from_tree(state, slot, set, recursive != 0),
        Op::RootTmpfs { bytes, inodes, set } => root::from_tmpfs(state, bytes, inodes, set),

        Op::File { path, mode, content } => init_layer::file(state, path, mode, content),
        Op::Directory { path, mode } => init_layer::directory(state, path, mode),
        Op::Symlink { path, target } => init_layer::symlink(state, path, target),
        Op::Hide { path } => init_layer::hide(state, path),
        Op::Opaque { path } => init_layer::opaque(state, path),
        Op::Target { path, directory } => init_layer::target(state, path, directory != 0),

        Op::Grab { path, dev, ino, kind, rdev, recursive, to } => {
            mounts::grab(state, path, &mounts::Expected { dev, ino, kind, rdev }, recursive != 0, to)
        }
        Op::Attach { slot, target, directory, missing, set, clear, recursive, propagation } => {
            let change = mounts::Change { set, clear, recursive: recursive != 0, propagation };
            mounts::attach(state, slot, target, directory != 0, missing, &change)
        }
        Op::NewFs { fstype, options, target, missing, set, magic } => {
            mounts::new_fs(state, fstype, options, target, missing, set, magic as i64)
        }
        Op::ProcOrEmpty { options, target, missing, set } => {
            mounts::proc_or_empty(state, options, target, missing, set)
        }
        Op::Link { path, target } => mounts::link(state, path, target),
        Op::Mask { path } => mounts::mask(state, path),
        Op::ReadOnly { path } => mounts::read_only(state, path),
        Op::SealRoot {} => mounts::seal_root(state),
        Op::Pivot {} => root::pivot(state),

        Op::Payload { stay, host, lock, keep } => {
            payload::start(ops, state, &payload::Payload { stay: stay != 0, host, lock, keep })
        }
        Op::Limits { wall, cpu, grace } => {
            state.limits = limits::Limits { wall, cpu, grace };
            Ok(())
        }
        Op::CpuMeter { path } => {
            state.meter = meter::open_group(path);
            Ok(())
        }
        Op::CpuSeconds { soft, hard } => limits::cpu_seconds(soft, hard),
        Op::Session {} => call::setsid().map(drop),
        Op::Stdio { stdin, stdout, stderr, others, keep } => {
            descriptors::place(state, [stdin, stdout, stderr], others, keep)
        }
        Op::Pty { rows, columns, uid, gid, to } => pty::open(state, rows, columns, uid, gid, to),
        Op::Terminal { stream } => pty::control(stream),
        Op::Umask { mask } => call::umask(mask).map(drop),
        Op::Credentials { uid, gid, groups, set_groups, capabilities } => {
            identity::credentials(uid, gid, (set_groups != 0).then_some(groups), capabilities)
        }
        Op::NoNewPrivileges {} => identity::no_new_privileges(),
        Op::Seccomp { filter } => confine::seccomp(filter),
        Op::ExecLabel { proc, files, value } => label::exec(state, proc, files, value),
        Op::Listen { filter } => confine::listen(state, filter),
        Op::Rlimits { limits } => confine::rlimits(limits),
        Op::Keyring { required } => confine::keyring(required != 0),
        Op::Landlock { files, ports, scopes, rules } => confine::landlock(state, [files, ports, scopes], rules),
        Op::Schedule { policy, nice, priority, runtime, deadline, period } => {
            schedule::policy(policy, nice, priority, [runtime, deadline, period])
        }
        Op::IoPriority { priority } => call::ioprio_set(priority).map(drop),
        Op::Cpus { mask } => schedule::cpus(mask),
        Op::OomScoreAdj { value } => schedule::oom_score_adj(value),
        Op::WorkingDirectory { path } => payload::working_directory(state, path),
        Op::Exec { candidates, argv, envp } => payload::exec(state, candidates, argv, envp),
    }
}
