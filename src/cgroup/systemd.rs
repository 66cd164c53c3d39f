//! A delegated scope, asked of systemd.
//!
//! systemd owns the cgroup tree of its host: who wants to make groups asks it for a unit
//! whose groups it then leaves alone (`Delegate=yes`). For a process that runs already that is a transient scope
//! with the process in it; only systemd may move it there.
//!
//! Contract: org.freedesktop.systemd1(5) `StartTransientUnit`, systemd.scope(5),
//! <https://systemd.io/CGROUP_DELEGATION>.

use super::name::Owner;
use super::parent::CgroupParent;
use crate::error::{Error, ErrorKind, Result};
use std::time::{Duration, Instant};
use zbus::Connection;
use zbus::zvariant::{ObjectPath, Value};

/// How long systemd may take.
const PATIENCE: Duration = Duration::from_secs(10);

impl CgroupParent {
    /// Has systemd move this process, with all its threads, into a scope of its own that is
    /// delegated to its user, by name `belljar-….scope`: the user's own systemd, or for root the
    /// system's. Groups are then made in that scope, with the process itself in a leaf of it
    /// ([`move_caller`](CgroupParent::move_caller)). Does nothing but that when it is there already.
    ///
    /// To be called once, early: by a program that was not started in a delegated unit. An ordinary user
    /// is delegated cpu, memory and pids as a rule. The call runs its own short-lived
    /// thread, on which it may wait for D-Bus whatever runtime the caller is in.
    ///
    /// ```no_run
    /// # use belljar::*;
    /// let limits = CgroupLimits::new().parent(CgroupParent::systemd_scope()?).memory_max(Bytes::mib(64));
    /// # let _ = limits;
    /// # Ok::<(), belljar::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::NotSupported`] without a reachable systemd (no bus, a container), and when it refuses;
    /// [`ErrorKind::Busy`] when it does not do it within ten seconds.
    pub fn systemd_scope() -> Result<CgroupParent> {
        let scope = format!("belljar-{}.scope", Owner::own());
        let there = || {
            let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            own.lines().any(|line| line.split('/').any(|part| part == scope))
        };
        if !there() {
            let asked = std::thread::scope(|thread| thread.spawn(|| ask(&scope)).join());
            match asked {
                Ok(Ok(())) => {}
                Ok(Err(said)) => return Err(refused(&scope, &said)),
                Err(_) => return Err(refused(&scope, "the connection to the bus broke")),
            }
            // the answer is a job that has been queued
            let start = Instant::now();
            while !there() {
                if start.elapsed() > PATIENCE {
                    return Err(Error::new(ErrorKind::Busy, format!("be moved to {scope}: systemd has not done it"))
                        .with_hint("`systemctl --user list-jobs`, or for root `systemctl list-jobs`"));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(CgroupParent::own().move_caller())
    }
}

fn refused(scope: &str, said: &str) -> Error {
    Error::new(ErrorKind::NotSupported, format!("ask systemd for {scope}: {said}"))
        .with_hint("a session of systemd (XDG_RUNTIME_DIR, DBUS_SESSION_BUS_ADDRESS), or CgroupParent::own()")
}

/// The one call, on a runtime of its own.
fn ask(scope: &str) -> std::result::Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let call = async {
        let bus = match nix::unistd::geteuid().is_root() {
            true => Connection::system().await?,
            false => Connection::session().await?,
        };
        let properties: [(&str, Value<'_>); 4] = [
            ("Description", Value::from("A program and its sandboxes")),
            ("Delegate", Value::from(true)),
            ("CollectMode", Value::from("inactive-or-failed")),
            ("PIDs", Value::from(vec![std::process::id()])),
        ];
        let auxiliary: [(&str, Vec<(&str, Value<'_>)>); 0] = [];
        let answer = bus
            .call_method(
                Some("org.freedesktop.systemd1"),
                "/org/freedesktop/systemd1",
                Some("org.freedesktop.systemd1.Manager"),
                "StartTransientUnit",
                &(scope, "fail", &properties[..], &auxiliary[..]),
            )
            .await?;
        answer.body().deserialize::<ObjectPath<'_>>().map(drop)
    };
    let bounded = async {
        let answer = tokio::time::timeout(PATIENCE, call).await;
        answer.map_err(|_| "no answer from the bus".to_owned())?.map_err(|error: zbus::Error| error.to_string())
    };
    runtime.block_on(bounded)
}
