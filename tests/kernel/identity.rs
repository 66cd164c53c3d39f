//! Users and groups: who the ids inside are.

use crate::common::*;
use crate::harness::{Need, TempDir, Test};
use belljar::{Capabilities, Capability, ErrorKind, IdMap, IdRange, Mount, Mounts, Namespaces, Security, User};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

pub fn tests() -> Vec<Test> {
    const USER: &[Need] = &[Need::UserNamespaces];
    vec![
        Test::new("identity::callers_own_id", USER, callers_own_id),
        Test::new("identity::setgroups_is_denied_for_the_callers_own_id", USER, setgroups_is_denied),
        Test::new("identity::roots_default_is_an_unprivileged_block", &[Need::Root], roots_default),
        Test::new("identity::the_hosts_root_is_refused_unless_named", USER, host_root_is_refused),
        Test::new("identity::ranges_and_payload_ids", &[Need::Root], ranges_and_payload_ids),
        Test::new("identity::340_extents", &[Need::Root], extents_340),
        Test::new("identity::subordinate_ids", &[Need::OrdinaryUser, Need::NewUidmap], subordinate_ids),
        Test::new("identity::an_id_that_is_not_mapped", USER, unmapped_id),
        Test::new("identity::no_capabilities_and_none_to_gain", USER, no_capabilities),
        Test::new("identity::kept_capabilities", USER, kept_capabilities),
        Test::new("identity::setuid_programs_have_no_effect", &[Need::Root], setuid_programs),
        Test::new(
            "identity::setuid_programs_of_a_layer",
            &[Need::Root, Need::UserOverlay, Need::Kernel(5, 19)],
            setuid_programs_of_a_layer,
        ),
    ]
}

fn callers_own_id() -> Fallible<()> {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let map = IdMap::caller_as(1234, 2345);
    let map = if uid == 0 { map.allow_host_root() } else { map };
    let sandbox = host().namespaces(Namespaces::isolated().user(User::New(map))).build()?;
    let seen = prints(&sandbox, "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '")?;
    assert_eq!(seen, format!("1234\n2345\n 1234 {uid} 1\n 2345 {gid} 1"));
    Ok(())
}

fn setgroups_is_denied() -> Fallible<()> {
    let map = IdMap::caller().allow_host_root();
    let sandbox = host().namespaces(Namespaces::isolated().user(User::New(map))).build()?;
    assert_eq!(prints(&sandbox, "cat /proc/self/setgroups")?, "deny");
    let error = refused(sandbox.spawn(sh("true").groups([0u32])))?;
    assert_kind(&error, ErrorKind::InvalidSpec);
    Ok(())
}

fn roots_default() -> Fallible<()> {
    let sandbox = host().build()?;
    let maps = "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '";
    let map = prints(&sandbox, maps)?;
    let (uids, gids) = map.split_once('\n').ok_or("one line")?;
    let first: u32 = uids.split(' ').nth(2).ok_or("no map")?.parse()?;
    assert!(uids == gids && uids == format!(" 0 {first} 65536") && first > 1_879_048_192, "{map}");
    let shared = Namespaces::isolated().user(User::New(IdMap::shared()));
    let map = prints(&host().namespaces(shared).build()?, maps)?;
    assert_eq!(map, " 0 1879048192 65536\n 0 1879048192 65536");
    assert_eq!(prints(&sandbox, "id -G")?, "0");
    // a file of the host that only its root may read
    let dir = TempDir::new()?;
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "x")?;
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600))?;
    let sandbox = host().mounts(Mounts::none()).build()?; // without a /tmp of its own
    assert!(sandbox.status(&sh(&format!("test -e {}", secret.display())))?.success());
    let output = sandbox.output(&sh(&format!("cat {}", secret.display())))?;
    assert!(text(&output).contains("Permission denied"), "{}", text(&output));
    Ok(())
}

fn host_root_is_refused() -> Fallible<()> {
    let range = IdRange { inside: 0, outside: 0, count: 10 };
    let map = IdMap::ranges([range], [range]);
    let error = refused(host().namespaces(Namespaces::isolated().user(User::New(map.clone()))).build())?;
    assert_kind(&error, ErrorKind::InvalidSpec);
    assert!(error.to_string().contains("allow_host_root"), "{error}");
    if nix::unistd::geteuid().is_root() {
        let map = map.allow_host_root();
        let sandbox = host().namespaces(Namespaces::isolated().user(User::New(map))).build()?;
        assert_eq!(prints(&sandbox, "tr -s ' ' < /proc/self/uid_map")?, " 0 0 10");
    }
    Ok(())
}

fn ranges_and_payload_ids() -> Fallible<()> {
    let range = |inside, outside, count| IdRange { inside, outside, count };
    let map = IdMap::ranges([range(0, 300_000, 1000), range(5000, 400_000, 10)], [range(0, 500_000, 2000)]);
    let sandbox = host().namespaces(Namespaces::isolated().user(User::New(map))).build()?;
    let mut command = sh("id -u; id -g; id -G; grep -E '^(Uid|Gid):' /proc/self/status");
    command.uid(5003).gid(17).groups([18u32, 19]);
    let output = sandbox.output(&command)?;
    assert_eq!(text(&output), "5003\n17\n17 18 19\nUid:\t5003\t5003\t5003\t5003\nGid:\t17\t17\t17\t17\n");
    // what it writes belongs, on the host, to the mapped id
    let dir = TempDir::new()?;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777))?;
    let sandbox = host()
        .namespaces(
            Namespaces::isolated().user(User::New(IdMap::ranges([range(0, 300_000, 9)], [range(0, 500_000, 9)]))),
        )
        .mount(Mount::bind(dir.path(), "/mnt"))
        .build()?;
    assert!(sandbox.status(sh("echo x > /mnt/file").uid(7).gid(8))?.success());
    let file = std::fs::metadata(dir.path().join("file"))?;
    assert_eq!((file.uid(), file.gid()), (300_007, 500_008));
    Ok(())
}

fn extents_340() -> Fallible<()> {
    let ranges: Vec<_> = (0..340).map(|i| IdRange { inside: i, outside: 10_000 + 2 * i, count: 1 }).collect();
    let map = IdMap::ranges(ranges.clone(), ranges.clone());
    let sandbox = host().namespaces(Namespaces::isolated().user(User::New(map))).build()?;
    assert_eq!(prints(&sandbox, "wc -l < /proc/self/uid_map; id -u")?, "340\n0");
    let long = (0..340).map(|i| IdRange { inside: i, outside: 1_000_000 + 2 * i, count: 1 });
    let map = IdMap::ranges(long, ranges.clone());
    let error = refused(host().namespaces(Namespaces::isolated().user(User::New(map))).build())?;
    assert!(error.to_string().contains("4095"), "{error}");
    let more = (0..341).map(|i| IdRange { inside: i, outside: 10_000 + 2 * i, count: 1 });
    let map = IdMap::ranges(more, ranges);
    assert_kind(
        &refused(host().namespaces(Namespaces::isolated().user(User::New(map))).build())?,
        ErrorKind::InvalidSpec,
    );
    Ok(())
}

fn subordinate_ids() -> Fallible<()> {
    let map = IdMap::subordinate();
    let sandbox = host().namespaces(Namespaces::isolated().user(User::New(map))).build()?;
    let lines = prints(&sandbox, "wc -l < /proc/self/uid_map; id -u")?;
    assert_eq!(lines, "2\n0");
    let output = sandbox.output(sh("id -u; id -G").uid(33).gid(44).groups([55u32]))?;
    assert_eq!(text(&output), "33\n44 55\n");
    // a range that nobody granted
    let stolen = IdRange { inside: 0, outside: 4_000_000_000, count: 5 };
    let map = IdMap::ranges([stolen], [stolen]);
    let sandbox = host().namespaces(Namespaces::isolated().user(User::New(map))).build()?;
    let error = refused(sandbox.spawn(&sh("true")))?;
    assert_kind(&error, ErrorKind::NotPermitted);
    assert_eq!(error.step().map(|step| step.name()), Some("map-ids"), "{error}");
    Ok(())
}

fn unmapped_id() -> Fallible<()> {
    let sandbox = host().build()?;
    let error = refused(sandbox.spawn(sh("true").uid(70_000).gid(70_001)))?;
    assert_kind(&error, ErrorKind::InvalidSpec);
    assert_eq!(error.defects().len(), 2, "{error}");
    Ok(())
}

fn no_capabilities() -> Fallible<()> {
    let seen = prints(&host().build()?, "grep -E '^(Cap|NoNewPrivs)' /proc/self/status | cut -f2")?;
    let zero = "0000000000000000";
    assert_eq!(seen, [zero, zero, zero, zero, zero, "1"].join("\n"));
    Ok(())
}

fn kept_capabilities() -> Fallible<()> {
    let keep = Capabilities::keep([Capability::Chown, Capability::NetBindService]);
    let sandbox = host().security(Security::new().capabilities(keep)).build()?;
    let set = "0000000000000401";
    let script = "grep -E '^Cap' /proc/self/status | cut -f2";
    assert_eq!(prints(&sandbox, script)?, [set; 5].join("\n"));
    if nix::unistd::geteuid().is_root() {
        // also for a payload that is not root inside
        let output = sandbox.output(sh(script).uid(1000).gid(1000))?;
        assert_eq!(text(&output).trim(), [set; 5].join("\n"));
    }
    Ok(())
}

/// A set-uid program of a layer, whose owner is root inside: without effect unless new privileges are allowed.
fn setuid_programs_of_a_layer() -> Fallible<()> {
    let layer = TempDir::new()?;
    let path = layer.path().join("attack");
    crate::attacks::write_payload(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4755))?;
    let run = |root: belljar::RootFs, security: Security| -> Fallible<String> {
        let sandbox = belljar::Sandbox::builder(root).security(security).build()?;
        let mut command = belljar::Command::new("/attack");
        Ok(text(&sandbox.output(command.arg("euid").uid(1000).gid(1000))?))
    };
    let container = || belljar::Profile::Container.security();
    for root in [belljar::RootFs::dir(layer.path()), belljar::RootFs::dir(layer.path()).upper(belljar::Upper::None)] {
        assert_eq!(run(root.clone(), Security::new())?, "attack: here\neuid: ok 1000\n");
        assert_eq!(run(root, container())?, "attack: here\neuid: ok 0\n");
    }
    Ok(())
}

fn setuid_programs() -> Fallible<()> {
    let dir = TempDir::new()?;
    let program = dir.path().join("id");
    std::fs::copy("/usr/bin/id", &program)?;
    std::os::unix::fs::chown(&program, Some(1_879_048_192), Some(1_879_048_192))?; // root inside
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o6755))?;
    let bind = Mount::bind(dir.path(), "/mnt").allow_suid();
    let run = |security| -> Fallible<String> {
        let sandbox = host().mount(bind.clone()).security(security).build()?;
        Ok(text(&sandbox.output(belljar::Command::new("/mnt/id").arg("-u").uid(1000).gid(1000))?))
    };
    assert_eq!(run(Security::new())?, "1000\n");
    // control: with both protections opted out of, the bit works
    assert_eq!(run(Security::new().allow_new_privileges())?, "0\n");
    Ok(())
}
