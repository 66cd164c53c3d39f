//! Payloads that turn against the sandbox's init.

use crate::common::*;
use crate::harness::{Need, TempDir, Test};
use belljar::{IdMap, Init, Mounts, Namespaces, Pid, RootFs, Sandbox, Stdio, User, Verdict};
use std::process::Command as Host;
use std::time::{Duration, Instant};

pub fn tests() -> Vec<Test> {
    const USER: &[Need] = &[Need::UserNamespaces];
    vec![
        Test::new("hostile::stops_whoever_enters", USER, stops_whoever_enters),
        Test::new("hostile::floods_init_with_signals", USER, floods_init),
        Test::new("hostile::limits_of_init", &[Need::UserNamespaces, Need::Program("prlimit")], limits_of_init),
        Test::new("hostile::a_layer_with_a_proc_of_its_own", USER, planted_children),
    ]
}

/// The payload and whoever enters have the same uid: init must not wait for a process that may be stopped.
fn stops_whoever_enters() -> Fallible<()> {
    let mut command = sh("echo ready; while :; do kill -STOP -1; done");
    let mut child = host().build()?.spawn(command.stdout(Stdio::Piped).wall_time(Duration::from_secs(3)))?;
    let start = Instant::now();
    let mut entered = Vec::new();
    while start.elapsed() < Duration::from_secs(2) {
        entered.push(child.enter(&sh("exec sleep 60")));
    }
    let exit = child.wait_timeout(Duration::from_secs(30))?.ok_or("it outlives its limit")?;
    assert_eq!(exit.verdict, Verdict::WallTimeLimit, "{} entered", entered.len());
    Ok(())
}

fn floods_init() -> Fallible<()> {
    let flood = "trap '' TERM; for i in 1 2 3 4; do (while :; do kill -40 1; kill -CHLD 1; done) & done; wait";
    let mut child = host().build()?.spawn(sh(flood).wall_time(Duration::from_secs(1)))?;
    let mut other = child.enter(&sh("exit 3"))?;
    assert_eq!(other.wait()?.verdict, Verdict::Exited(3));
    let exit = child.wait_timeout(Duration::from_secs(30))?.ok_or("it outlives its limit")?;
    assert_eq!(exit.verdict, Verdict::WallTimeLimit);
    Ok(())
}

fn limits_of_init() -> Fallible<()> {
    let script = "prlimit --pid 1 --nofile=2:2 2>&1; prlimit --nofile=100:100 true && echo own; kill -USR1 1; sleep 0.2; echo alive";
    let seen = prints(&host().build()?, script)?;
    assert!(seen.contains("not permitted"), "refused: {seen}");
    assert!(seen.ends_with("own\nalive"), "{seen}");
    Ok(())
}

/// Without a pid namespace init finds whom to kill in /proc: the host's, not what a layer has there.
fn planted_children() -> Fallible<()> {
    let layer = TempDir::new()?;
    program_directories(layer.path())?;
    std::fs::create_dir_all(layer.path().join("proc/thread-self"))?;
    let mut victim = Host::new("sleep").arg("60").spawn()?;
    std::fs::write(layer.path().join("proc/thread-self/children"), format!("{} ", victim.id()))?;
    let root = nix::unistd::geteuid().is_root();
    let user = if root { User::Inherit } else { User::New(IdMap::automatic()) };
    let builder = Sandbox::builder(RootFs::dir(layer.path())).mounts(Mounts::none()).init(Init::Shim);
    let sandbox = with_programs(builder).namespaces(Namespaces::isolated().user(user).pid(Pid::Inherit)).build()?;
    let ended = sandbox.status(&sh("(sleep 60 &) ; exit 5"));
    let alive = victim.try_wait()?.is_none();
    victim.kill()?;
    victim.wait()?;
    assert_eq!(ended?.code(), Some(5));
    assert!(alive, "a process of the host was killed");
    Ok(())
}
