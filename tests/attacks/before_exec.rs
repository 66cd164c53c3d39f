//! Attacks before and around exec: what a payload inherits.

use super::*;
use crate::harness::Need;
use belljar::{Init, Uid};

const USER: &[Need] = &[Need::UserNamespaces];

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("attacks::exec_launcher_is_not_writable", USER, launcher_is_not_writable),
        Test::new("attacks::exec_inherited_directory", USER, inherited_directory),
        Test::new("attacks::exec_leaked_descriptors", USER, leaked_descriptors),
        Test::new("attacks::exec_capability_sets", USER, capability_sets),
        Test::new("attacks::exec_odd_users", &[], odd_users),
        Test::new("attacks::exec_signals", USER, signals),
        Test::new("attacks::exec_environment", USER, environment),
    ]
}

/// CVE-2019-5736: the launcher as the payload sees it, and the host's program behind it.
fn launcher_is_not_writable() -> Fallible<()> {
    let own = std::env::current_exe()?;
    let before = (std::fs::metadata(&own)?.len(), std::fs::metadata(&own)?.modified()?);
    let seen = inside(&["open-write=/proc/1/exe", "open-write=/proc/self/exe", "size=/proc/self/exe"])?;
    expect(
        &seen,
        &[
            ("open-write=/proc/1/exe", "EACCES|EPERM|ETXTBSY"),
            ("open-write=/proc/self/exe", "EROFS|ETXTBSY|EACCES"),
            ("size=/proc/self/exe", "ok"),
        ],
    );
    assert_eq!((std::fs::metadata(&own)?.len(), std::fs::metadata(&own)?.modified()?), before);
    Ok(())
}

/// CVE-2024-21626, and the walk up from where one is.
fn inherited_directory() -> Fallible<()> {
    let seen = inside(&["walk-up", "fchdir", "list=/"])?;
    assert_eq!(seen["walk-up"], "/ /", "{seen:?}");
    expect(&seen, &[("fchdir", "EBADF")]);
    let mut names: Vec<_> = seen["list=/"].split(' ').collect();
    names.sort_unstable();
    assert_eq!(names.join(" "), "attack dev proc tmp");
    // control: outside there is a directory to walk up from
    assert!(outside(&["walk-up"])?["walk-up"] != "/ /");
    Ok(())
}

fn leaked_descriptors() -> Fallible<()> {
    let held = std::fs::File::open("/")?;
    nix::fcntl::fcntl(&held, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
    for init in [Init::Shim, Init::Payload] {
        let seen = attack(&bare().init(init).build()?, &["descriptors", "fchdir"])?;
        assert_eq!(seen["descriptors"], "0 1 2", "{init:?}");
        expect(&seen, &[("fchdir", "EBADF")]);
    }
    // control: it is inherited by a process that is not confined
    assert_eq!(outside(&["fchdir"])?["fchdir"], "ok");
    Ok(())
}

/// CVE-2022-29162 and others: all five sets, for main processes with any user.
fn capability_sets() -> Fallible<()> {
    let sets = [
        "status=CapInh",
        "status=CapPrm",
        "status=CapEff",
        "status=CapBnd",
        "status=CapAmb",
        "status=NoNewPrivs",
        "status=Seccomp",
    ];
    let zero = "0000000000000000";
    let wanted = [zero, zero, zero, zero, zero, "1", "2"];
    for init in [Init::Shim, Init::Payload] {
        let seen = attack(&bare().init(init).build()?, &sets)?;
        expect(&seen, &sets.into_iter().zip(wanted).collect::<Vec<_>>());
        if nix::unistd::geteuid().is_root() {
            let sandbox = bare().init(init).build()?;
            let mut command = payload(&sets);
            let output = sandbox.output(command.uid(1000).gid(1000))?;
            expect(&parse(&text(&output))?, &sets.into_iter().zip(wanted).collect::<Vec<_>>());
        }
    }
    // control
    let keep = Security::new().capabilities(belljar::Capabilities::keep([belljar::Capability::Chown]));
    expect(&with(keep, &["status=CapEff"])?, &[("status=CapEff", "0000000000000001")]);
    Ok(())
}

/// CVE-2026-30892: there is no text from which a user 0 could come.
fn odd_users() -> Fallible<()> {
    for odd in ["", " ", "0x0", "-0", "+0", "root ", "1e0", "00000000000", "4294967296"] {
        let id: Result<Uid, _> = odd.parse();
        assert!(id.is_err(), "{odd:?}");
    }
    assert_eq!("0".parse::<Uid>().map(|uid| uid.get()).ok(), Some(0), "control");
    Ok(())
}

fn signals() -> Fallible<()> {
    let zero = "0000000000000000";
    refused_inside(&[("status=SigBlk", zero), ("status=SigIgn", zero)])
}

/// A canary of the host's environment is found nowhere.
fn environment() -> Fallible<()> {
    let seen = inside(&["read=/proc/self/environ"])?;
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(seen["read=/proc/self/environ"], format!("ok {}", path.len() + 1));
    Ok(())
}
