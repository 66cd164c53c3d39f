//! The report of what protects a sandbox: what the domains say of themselves, put together.

use super::check::Spec;
use crate::enforce::{Enforce, Enforced, Enforcement};
use crate::mount::Mounts;
use crate::namespace::{Cgroup, Ipc, Leasing, Net, Pid, Resolved, Time, User, Uts};
use crate::process::Init;
use crate::rootfs::{Base, RootFs};

/// The lines on namespaces and ids.
pub(super) fn namespaces(spec: &Spec, ids: Option<&Resolved>, report: &mut Enforcement) {
    let namespaces = &spec.namespaces;
    let mut line = |name, new: bool, detail: &str| {
        report.required(name, new, if new { detail } else { "joined or inherited" });
    };
    line("mount-namespace", spec.root.is_new(), "new; no mount propagates either way");
    line("user-namespace", matches!(namespaces.user, User::New(_)), "new");
    line("pid-namespace", matches!(namespaces.pid, Pid::New), "new: its end is the end of every process in it");
    line("network-namespace", matches!(namespaces.net, Net::New), "new: a loopback device and nothing else");
    line("ipc-namespace", matches!(namespaces.ipc, Ipc::New), "new");
    line("uts-namespace", matches!(namespaces.uts, Uts::New { .. }), "new");
    line("cgroup-namespace", matches!(namespaces.cgroup, Cgroup::New), "new");
    line("time-namespace", matches!(namespaces.time, Time::New { .. }), "new");
    match ids {
        Some(ids) => {
            let root = ids.uids.iter().chain(&ids.gids).any(|range| range.outside == 0);
            let first = ids.uids.first().map_or(0, |range| range.outside);
            let what = if root {
                "the map contains the host's id 0".into()
            } else {
                match ids.lease {
                    Leasing::No | Leasing::Impossible => {
                        format!("the host's id 0 is not mapped; ids inside begin at {first} outside")
                    }
                    _ => "the host's id 0 is not mapped".into(),
                }
            };
            report.required("unprivileged-ids", !root, what);
        }
        None => report.required("unprivileged-ids", false, "the ids of another user namespace"),
    }
}

/// The line on whose the ids are. `leaves`: files of the sandbox's are to be somebody's when it has ended.
pub(super) fn blocks(ids: &Resolved, leaves: bool, report: &mut Enforcement) {
    let own = "a block of ids that no other running sandbox has";
    let (enforce, enforced, detail) = match ids.lease {
        Leasing::Required => (Enforce::Required, Enforced::Yes, own),
        Leasing::Preferred => (Enforce::BestEffort, Enforced::Yes, own),
        Leasing::Impossible => {
            let why = "the caller has no ids to give each sandbox a block of its own";
            (Enforce::BestEffort, Enforced::Unavailable, why)
        }
        Leasing::No => {
            let what = match leaves {
                true => "ids that other sandboxes have too: files of the host are written",
                false => "ids that other sandboxes may have too",
            };
            (Enforce::BestEffort, Enforced::OptedOut, what)
        }
    };
    report.push("distinct-ids", enforce, enforced, detail);
}

/// The lines on the root and the mounts.
pub(super) fn files(root: &RootFs, mounts: &Mounts, report: &mut Enforcement) {
    match &root.base {
        Base::Inherit | Base::Join(_) => report.required("root", false, "the host's, or another sandbox's, as it is"),
        Base::Host => report.required("root", true, "the host's files, read-only; the old root is detached"),
        _ => report.required("root", true, "its own; layers are never written; the old root is detached"),
    }
    if root.persists() {
        report.required("discarded-upper", false, "what is written stays in a directory of the host");
    }
    let masked = mounts.masks_proc();
    if mounts.has_proc() {
        let what = if masked { "dangerous entries masked or read-only" } else { "without masks" };
        report.required("proc-masks", masked, what);
        if mounts.hides_pids() {
            report.required("hidden-processes", true, "others' processes cannot be seen in /proc");
        }
    }
    let opt_outs = mounts.opt_outs();
    if root.is_new() && !opt_outs.iter().any(|(name, _)| *name == "sockets") {
        let what = match root.base {
            Base::Host => "the host's that there are at spawn are masked",
            _ => "binds of the host's that there are at spawn are refused",
        };
        report.required("sockets", true, what);
    }
    for (name, detail) in opt_outs {
        report.required(name, false, detail);
    }
}

/// The lines on what a [`Command`](crate::Command) can opt out of.
pub(super) fn process(report: &mut Enforcement) {
    report.required("umask", true, "022: what is made is not for others to write");
    report.required(
        "ordinary-priority",
        true,
        "no better policy, nice value, I/O priority or oom_score_adj than ordinary",
    );
}

/// The line on PID 1.
pub(super) fn init(init: Init, report: &mut Enforcement) {
    let shim = matches!(init, Init::Shim);
    let what = if shim {
        "the shim: ends with the host process"
    } else {
        "the payload: nothing ends it with the host process"
    };
    report.required("init", shim, what);
}

/// What could not be had of what is tried by default, in words.
pub(crate) fn notes<'a>(notes: impl IntoIterator<Item = &'a String>, report: &mut Enforcement) {
    for note in notes {
        report.push("host", Enforce::BestEffort, Enforced::Unavailable, note);
    }
}
