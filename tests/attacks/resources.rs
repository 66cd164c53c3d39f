//! Attacks on what is shared: limits of processes. What control groups bound is tested beside them.

use super::*;
use crate::harness::Need;
use belljar::{
    Bytes, Child, Enforced, IdMap, Inotify, Mount, Namespaces, Rlimits, Seccomp, Stdio, User, testing::feature,
};

const USER: &[Need] = &[Need::UserNamespaces];

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("attacks::resources_limits_of_processes", USER, limits_of_processes),
        Test::new("attacks::resources_quota_of_a_sibling", &[Need::Root, Need::UserNamespaces], quota_of_a_sibling),
        Test::new("attacks::resources_inotify_of_a_sibling", USER, inotify_of_a_sibling),
        Test::new("attacks::resources_ids_of_a_sibling", &[Need::Root, Need::UserNamespaces], ids_of_a_sibling),
        Test::new("attacks::resources_traced_by_its_init", USER, traced_by_its_init),
        Test::new("attacks::resources_leases_end", &[Need::Root, Need::UserNamespaces], leases_end),
        Test::new("attacks::resources_limits_are_only_lowered", USER, only_lowered),
    ]
}

// <asm-generic/resource.h>: fsize 1, core 4, nofile 7, memlock 8, sigpending 11, msgqueue 12, nice 13, rtprio 14.

fn own(resource: usize) -> Fallible<u64> {
    let text = std::fs::read_to_string("/proc/self/limits")?;
    let line = text.lines().nth(1 + resource).ok_or("no such limit")?;
    let hard = line[26..].split_whitespace().nth(1).ok_or("no value")?;
    Ok(if hard == "unlimited" { u64::MAX } else { hard.parse()? })
}

fn limits_of_processes() -> Fallible<()> {
    let attempts = ["rlimit=1", "rlimit=4", "rlimit=7", "rlimit=8", "rlimit=11", "rlimit=12", "rlimit=13", "rlimit=14"];
    let seen = inside(&attempts)?;
    let standard = [4u64 << 30, 1, 1024, 8 << 20, 1024, 256 << 10, 20, 0];
    for ((attempt, most), resource) in attempts.iter().zip(standard).zip([1, 4, 7, 8, 11, 12, 13, 14]) {
        assert_eq!(seen[*attempt], format!("ok {}", most.min(own(resource)?)), "{attempt}");
    }
    // each timer has a signal that could become pending
    let (_child, seen) = holding(&bare().build()?, &["timers=5000"])?;
    assert_eq!(seen["timers=5000"], format!("ok {}", own(11)?.min(1024)));
    // nobody inside raises one again
    refused_inside(&[("rlimit-raise=7", "EPERM"), ("rlimit-raise=4", "EPERM"), ("realtime", "EPERM")])?;
    // control: the caller's
    let inherited = with(Security::new().rlimits(Rlimits::inherited()), &["rlimit=7"])?;
    assert_eq!(inherited["rlimit=7"], format!("ok {}", own(7)?));
    // a file that is too large
    let small = Security::new().rlimits(Rlimits::standard().fsize(Bytes::mib(2)));
    assert_eq!(signal_of(&bare().security(small).build()?, "fill=/dev/shm/x")?, Some(25)); // SIGXFSZ
    Ok(())
}

fn only_lowered() -> Fallible<()> {
    let most = own(7)?;
    let wide = Security::new().rlimits(Rlimits::standard().nofile(u32::MAX));
    let seen = with(wide, &["rlimit=7"])?;
    assert_eq!(seen["rlimit=7"], format!("ok {}", most.min(u32::MAX.into())));
    Ok(())
}

fn with_map(map: IdMap) -> SandboxBuilder {
    let open = Security::new().seccomp(Seccomp::Unconfined);
    bare().namespaces(Namespaces::isolated().user(User::New(map))).security(open)
}

/// The kernel counts keys by user: one sandbox can use up what all of the same outer user have.
fn quota_of_a_sibling() -> Fallible<()> {
    let sibling = |map: fn() -> IdMap| -> Fallible<String> {
        let (_greedy, seen) = holding(&with_map(map()).build()?, &["keys=2000"])?;
        assert!(seen["keys=2000"].starts_with("ok "), "it uses up its quota: {seen:?}");
        Ok(attack(&with_map(map()).build()?, &["key-add=x"])?["key-add=x"].clone())
    };
    assert_eq!(sibling(IdMap::automatic)?, "ok");
    assert_eq!(sibling(IdMap::distinct)?, "ok");
    // control: with the same ids; more than once, for keys of sandboxes that have ended go at any moment
    let mut seen = Vec::new();
    while seen.len() < 10 && seen.last().is_none_or(|last| last != "EDQUOT") {
        seen.push(sibling(IdMap::shared)?);
    }
    assert_eq!(seen.last().map(String::as_str), Some("EDQUOT"), "{seen:?}");
    Ok(())
}

/// Instances of inotify count against the user who has made the sandbox too, whatever the id map.
fn inotify_of_a_sibling() -> Fallible<()> {
    let limit = |what: &str| -> Fallible<u64> {
        Ok(std::fs::read_to_string(format!("/proc/sys/user/max_inotify_{what}"))?.trim().parse()?)
    };
    let (instances, watches) = (limit("instances")?, limit("watches")?);
    let share = |all: u64, least: u64| (all / 8).max(least);
    // others of this user's have some, so what is left is not known; but it is less than all
    assert!((16..1000).contains(&instances), "this test would not reach the limit of {instances}");
    let attempts = ["inotify=1000", "inotify=1"];
    let small = Security::new().inotify(Inotify::Max { instances: 2, watches: 3 });
    {
        let (_greedy, seen) = holding(&bare().build()?, &attempts[..1])?;
        assert_eq!(seen["inotify=1000"], format!("ok {}", share(instances, 8)));
        expect(&inside(&attempts[1..])?, &[("inotify=1", "without")]);
        assert_eq!(bare().build()?.enforcement().get("inotify-quota").map(|one| one.enforced), Some(Enforced::Yes));
        let seen = with(small, &["inotify=9", "watches=9"])?;
        expect(&seen, &[("inotify=9", "ok 2")]);
        let seen = with(Security::new().inotify(Inotify::Max { instances: 2, watches: 3 }), &["watches=9"])?;
        expect(&seen, &[("watches=9", "ok 3")]);
        assert!(share(watches, 1024) >= 1024);
    }
    // controls: the typed opt-out, and a host whose limits cannot be set; nothing is left for anybody
    let inherited = Security::new().inotify(Inotify::Inherit);
    let nothing_left = || -> Fallible<()> {
        let (_greedy, seen) = holding(&bare().security(inherited.clone()).build()?, &attempts[..1])?;
        let taken: u64 = seen["inotify=1000"].trim_start_matches("ok ").parse()?;
        assert!(taken > share(instances, 8), "{taken}");
        expect(&inside(&attempts[1..])?, &[("inotify=1", "EMFILE")]);
        Ok(())
    };
    nothing_left()?;
    crate::common::without(feature::USER_LIMITS, || {
        let sandbox = bare().build()?;
        let (child, seen) = holding(&sandbox, &attempts[..1])?;
        assert_ne!(seen["inotify=1000"], format!("ok {}", share(instances, 8)));
        assert!(child.enforcement().unavailable().any(|one| one.name == "inotify-quota"));
        Ok(())
    })
}

/// Ids are a sandbox's own, but where what it leaves has to be somebody's.
fn ids_of_a_sibling() -> Fallible<()> {
    let dir = TempDir::new()?;
    let first = |builder: SandboxBuilder| -> Fallible<(u64, Enforced)> {
        let sandbox = builder.build()?;
        let child = sandbox.spawn(&payload(&["sleep=60"]))?;
        let line = child.enforcement().get("distinct-ids").map(|one| one.enforced);
        Ok((outer(&child)?, line.ok_or("not in the report")?))
    };
    let bind = || Mount::bind(dir.path(), "/mnt");
    const SHARED: u64 = 1_879_048_192;
    for (builder, own) in [
        (bare(), true),
        (bare().mount(bind().read_only()), true),
        (bare().mount(bind()), false),
        (bare().namespaces(Namespaces::isolated().user(User::New(IdMap::shared()))), false),
    ] {
        let (first, line) = first(builder)?;
        assert_eq!((first != SHARED, line == Enforced::Yes), (own, own));
    }
    if Need::Kernel(5, 12).probe().is_ok() {
        let (first, line) = first(bare().mount(bind().idmapped()))?;
        assert!(first != SHARED && line == Enforced::Yes);
    }
    // what an earlier sandbox owns is to be read by the next
    std::os::unix::fs::chown(dir.path(), Some(SHARED as u32), Some(SHARED as u32))?;
    assert_eq!(first(bare().mount(bind().read_only()))?, (SHARED, Enforced::OptedOut));
    // a directory that comes with the command
    let mut command = payload(&["sleep=60"]);
    command.directory_fd(9, std::fs::File::open(dir.path())?);
    let child = bare().build()?.spawn(&command)?;
    assert_eq!(outer(&child)?, SHARED);
    assert!(child.notes().iter().any(|note| note.contains("directory")), "{:?}", child.notes());
    assert_eq!(child.enforcement().get("distinct-ids").map(|one| one.enforced), Some(Enforced::Unavailable));
    Ok(())
}

/// PTRACE_TRACEME makes a tracer of the sandbox's init, which is told of each signal then: no end, and no wrong one.
fn traced_by_its_init() -> Fallible<()> {
    let sandbox = bare().security(belljar::Profile::Container.security()).build()?;
    let mut command = payload(&["trace-me", "clone", "exit=3"]);
    let output = sandbox.output(command.stdout(Stdio::Piped))?;
    expect(&parse(&text(&output))?, &[("trace-me", "ok"), ("clone", "ok")]);
    assert_eq!(output.exit.code(), Some(3), "{}", output.exit);
    // and a deadly one arrives
    let (mut child, seen) = holding(&sandbox, &["trace-me"])?;
    expect(&seen, &[("trace-me", "ok")]);
    child.signal(nix::sys::signal::Signal::SIGTERM as i32)?;
    assert_eq!(child.wait()?.signal(), Some(15));
    refused_inside(&[("trace-me", "EPERM")])
}

fn outer(child: &Child) -> Fallible<u64> {
    let map = std::fs::read_to_string(format!("/proc/{}/uid_map", child.id()))?;
    Ok(map.split_whitespace().nth(1).ok_or("no map")?.parse()?)
}

/// Blocks are distinct, given back, and taken from nobody who still has one.
fn leases_end() -> Fallible<()> {
    let sandbox = with_map(IdMap::distinct()).build()?;
    let spawn = || -> Fallible<(Child, u64)> {
        let child = sandbox.spawn(&payload(&["sleep=60"]))?;
        let first = outer(&child)?;
        Ok((child, first))
    };
    let running: Vec<_> = (0..8).map(|_| spawn()).collect::<Fallible<_>>()?;
    let mut blocks: Vec<_> = running.iter().map(|(_, first)| *first).collect();
    blocks.sort_unstable();
    blocks.dedup();
    assert_eq!(blocks.len(), 8, "{blocks:?}");
    assert!(
        blocks
            .iter()
            .all(|first| (1_879_113_728..2_147_352_576).contains(first) && (first - 1_879_048_192) % 65_536 == 0)
    );
    // another process sees them as taken
    let locks = std::fs::read_to_string("/proc/locks")?;
    let taken = |first: u64| {
        let number = (first - 1_879_048_192) / 65_536;
        locks.lines().any(|line| line.contains("OFDLCK") && line.ends_with(&format!(" {number} {number}")))
    };
    assert!(blocks.iter().all(|first| taken(*first)), "{locks}");
    drop(running);
    let locks = std::fs::read_to_string("/proc/locks")?;
    let number = (blocks[0] - 1_879_048_192) / 65_536;
    assert!(
        !locks.lines().any(|line| line.contains("OFDLCK") && line.ends_with(&format!(" {number} {number}"))),
        "{locks}"
    );
    let error = refused(
        Sandbox::builder(RootFs::dir("/usr").upper(belljar::Upper::Persist("/srv/up".into())))
            .namespaces(Namespaces::isolated().user(User::New(IdMap::distinct())))
            .build(),
    )?;
    assert!(error.to_string().contains("persistent upper"), "{error}");
    Ok(())
}
