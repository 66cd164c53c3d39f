//! What the Landlock domain adds: attempts that the mounts and namespaces of the sandbox would let pass.

use super::*;
use crate::harness::Need;
use belljar::{
    Child, Enforce, Enforced, ErrorKind, Landlock, Mount, Mounts, Namespaces, Net, Pid, Seccomp, testing::feature,
};

const FILES: &[Need] = &[Need::UserNamespaces, Need::Landlock(2)];
const PORTS: &[Need] = &[Need::UserNamespaces, Need::Landlock(4)];
const SCOPES: &[Need] = &[Need::UserNamespaces, Need::Landlock(6)];
const SOCKETS: &[Need] = &[Need::UserNamespaces, Need::Landlock(9)];
const UDP: &[Need] = &[Need::UserNamespaces, Need::Landlock(10)];

pub fn tests() -> Vec<Test> {
    vec![
        // on Linux 6.1 (Landlock 2) a whiteout was made all the same
        Test::new("attacks::landlock_device_files", SCOPES, device_files),
        Test::new("attacks::landlock_descriptors_are_no_more_than_they_were", FILES, descriptors_opened_anew),
        Test::new("attacks::landlock_breaks_nothing", &[Need::UserNamespaces], breaks_nothing),
        Test::new("attacks::landlock_mirrors_read_only_roots", FILES, mirrors_read_only_roots),
        Test::new("attacks::landlock_ports", PORTS, ports),
        Test::new("attacks::landlock_udp_ports", UDP, udp_ports),
        Test::new("attacks::landlock_sockets_bound_later", SOCKETS, sockets_bound_later),
        Test::new("attacks::landlock_sockets_of_another_sandbox", SOCKETS, sockets_of_another_sandbox),
        Test::new("attacks::landlock_renames_in_a_directory_that_is_passed", SOCKETS, renames_in_a_passed_directory),
        Test::new("attacks::landlock_scope_of_sockets", SCOPES, scope_of_sockets),
        Test::new(
            "attacks::landlock_scope_of_signals",
            &[Need::UserNamespaces, Need::Landlock(6), Need::OrdinaryUser],
            scope_of_signals,
        ),
        Test::new("attacks::landlock_on_an_older_kernel", &[Need::UserNamespaces], older_kernel),
    ]
}

fn without_domain() -> Security {
    Security::new().landlock(Landlock::none())
}

/// Even the one device file that a user namespace can make: a whiteout, which newer kernels (seen on Linux 7.2) count among the
/// regular files.
fn device_files() -> Fallible<()> {
    let attempts = ["mknod-whiteout=/tmp/w", "create=/tmp/f"];
    let whiteout = if Need::Landlock(9).probe().is_ok() { "EACCES|ok" } else { "EACCES" };
    expect(&inside(&attempts)?, &[("mknod-whiteout=/tmp/w", whiteout), ("create=/tmp/f", "ok")]);
    expect(&with(without_domain(), &attempts)?, &[("mknod-whiteout=/tmp/w", "ok"), ("create=/tmp/f", "ok")]);
    Ok(())
}

/// A file that the host passes by descriptor, opened anew by its name in /proc: with no other rights than it came with.
fn descriptors_opened_anew() -> Fallible<()> {
    let dir = shared()?;
    let path = dir.path().join("file");
    std::fs::write(&path, "x")?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
    let options = std::fs::OpenOptions::new;
    let attempts = ["reopen-read=9", "reopen-write=9"];
    let run = |file: std::fs::File, security: Security| -> Fallible<Seen> {
        let mut command = payload(&attempts);
        command.fd(9, file);
        let child = bare().security(security).build()?.spawn(command.stdout(Stdio::Piped))?;
        parse(&text(&child.wait_with_output()?))
    };
    for (file, read, write) in [
        (options().read(true).open(&path)?, "ok", "EACCES"),
        (options().write(true).open(&path)?, "EACCES", "ok"),
        (options().append(true).open(&path)?, "EACCES", "EACCES"),
        (options().read(true).write(true).open(&path)?, "ok", "ok"),
    ] {
        expect(&run(file.try_clone()?, Security::new())?, &[(attempts[0], read), (attempts[1], write)]);
        expect(&run(file, without_domain())?, &[(attempts[0], "ok"), (attempts[1], "ok")]);
    }
    // the same for streams
    let mut command = payload(&["reopen-write=0"]);
    command.stdin(std::fs::File::open(&path)?).stdout(Stdio::Piped);
    let output = bare().build()?.spawn(&command)?.wait_with_output()?;
    expect(&parse(&text(&output))?, &[("reopen-write=0", "EACCES")]);
    Ok(())
}

/// What a payload does with its root, its streams and its /proc works with a domain as without.
fn breaks_nothing() -> Fallible<()> {
    let dir = shared()?;
    let attempts = [
        "rename=/tmp",
        "rename=/bind",
        "create=/dev/shm/f",
        "write=/dev/null",
        "write=/dev/stdout",
        "write=/proc/self/oom_score_adj",
        "tty-size",
        "mkdir=/d",
        "fill=/bind/small",
        "size=/proc/self/exe",
    ];
    let attempts = &attempts[..8];
    let run = |security| -> Fallible<Seen> {
        let log = dir.path().join("log");
        let sandbox = bare().mount(Mount::bind(dir.path(), "/bind")).security(security).build()?;
        // a stream that is a file outside of the root
        let mut command = payload(attempts);
        command.stdout(std::fs::File::create(&log)?);
        assert!(sandbox.status(&command)?.success());
        let text = std::fs::read_to_string(&log)?;
        std::fs::remove_dir_all(dir.path().join("from"))?;
        std::fs::remove_dir_all(dir.path().join("to"))?;
        parse(&text.replace("written\n", ""))
    };
    let control = run(without_domain())?;
    assert_eq!(run(Security::new())?, control);
    let fine = attempts.iter().filter(|attempt| !attempt.contains("oom") && !attempt.contains("stdout"));
    expect(&control, &fine.map(|attempt| (*attempt, "ok")).collect::<Vec<_>>());
    Ok(())
}

/// A writable directory of the host's root by way of a mount that the plan does not know of cannot be had; what can
/// be seen is that a read-only root is read-only twice: the errno is Landlock's.
fn mirrors_read_only_roots() -> Fallible<()> {
    let (dir, _) = payload_file()?;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777))?;
    let builder = || host().mount(Mount::tmpfs("/tmp")).mount(Mount::bind(dir.path(), "/mnt"));
    let attempts = ["create=/usr/f", "create=/mnt/f", "create=/tmp/f", "open-read=/usr/bin/env"];
    let run = |security| -> Fallible<Seen> {
        let output = builder().security(security).build()?.output(Command::new("/mnt/attack").args(attempts))?;
        parse(&text(&output))
    };
    let same = [("create=/mnt/f", "ok"), ("create=/tmp/f", "ok"), ("open-read=/usr/bin/env", "ok")];
    let domain = run(Security::new())?;
    expect(&domain, &same);
    expect(&domain, &[("create=/usr/f", "EACCES|EROFS")]);
    let none = run(without_domain())?;
    expect(&none, &same);
    expect(&none, &[("create=/usr/f", "EROFS|EACCES")]);
    Ok(())
}

fn ports() -> Fallible<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let connect = format!("connect-ipv4={port}");
    let run = |landlock: Landlock| -> Fallible<Seen> {
        let namespaces = Namespaces::isolated().net(Net::Inherit);
        attack(&bare().namespaces(namespaces).security(Security::new().landlock(landlock)).build()?, &[&connect])
    };
    expect(&run(Landlock::standard().connect_tcp([]))?, &[(connect.as_str(), "EACCES")]);
    expect(&run(Landlock::standard().connect_tcp([port.wrapping_add(1)]))?, &[(connect.as_str(), "EACCES")]);
    expect(&run(Landlock::standard().connect_tcp([port]).bind_tcp([]))?, &[(connect.as_str(), "ok")]);
    expect(&run(Landlock::standard())?, &[(connect.as_str(), "ok")]);
    expect(&run(Landlock::none().connect_tcp([]))?, &[(connect.as_str(), "EACCES")]);
    Ok(())
}

fn udp_ports() -> Fallible<()> {
    let attempts = ["send-udp=4053", "send-udp=4054", "bind-udp=4055", "bind-udp=4056", "bind-udp=0"];
    let run = |landlock: Landlock| with(Security::new().landlock(landlock), &attempts);
    let all = attempts.map(|attempt| (attempt, "ok"));
    expect(&run(Landlock::standard())?, &all);
    // a socket that sends is bound first, to any port
    let refused =
        |open: &[&str]| all.map(|(attempt, _)| (attempt, if open.contains(&attempt) { "ok" } else { "EACCES" }));
    let sends = run(Landlock::standard().send_udp([4053]).bind_udp([0]))?;
    expect(&sends, &refused(&["send-udp=4053", "bind-udp=0"]));
    expect(&run(Landlock::none().bind_udp([4055]))?, &refused(&["bind-udp=4055"]));
    expect(&run(Landlock::none().send_udp([]))?, &refused(&["bind-udp=0", "bind-udp=4055", "bind-udp=4056"]));
    Ok(())
}

/// What an attempt sees in a sandbox that runs.
fn entered(child: &Child, attempts: &[&str]) -> Fallible<Seen> {
    let output = child.enter(payload(attempts).stdout(Stdio::Piped))?.wait_with_output()?;
    parse(&text(&output))
}

/// A payload that listens at `path` until it is dropped.
fn listening(sandbox: &Sandbox, path: &str) -> Fallible<Child> {
    let listen = format!("listen={path}");
    let (child, seen) = holding(sandbox, &[&listen])?;
    expect(&seen, &[(&listen, "ok")]);
    Ok(child)
}

/// A socket that appears in a bound directory when the sandbox runs already.
fn sockets_bound_later() -> Fallible<()> {
    let dir = shared()?;
    let run = |mount: Mount, security: Security| -> Fallible<Seen> {
        let child = listening(&bare().mount(mount).security(security).build()?, "/tmp/own")?;
        let path = dir.path().join("later");
        let _listener = std::os::unix::net::UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))?;
        let seen = entered(&child, &["connect=/mnt/later", "connect=/tmp/own"]);
        std::fs::remove_file(path)?;
        seen
    };
    let bind = || Mount::bind(dir.path(), "/mnt");
    for mount in [bind(), bind().read_only()] {
        let seen = run(mount.clone(), Security::new())?;
        expect(&seen, &[("connect=/mnt/later", "EACCES"), ("connect=/tmp/own", "ok")]);
        let seen = run(mount, without_domain())?;
        expect(&seen, &[("connect=/mnt/later", "ok"), ("connect=/tmp/own", "ok")]);
    }
    let typed = Mount::socket(dir.path(), "/mnt").read_only();
    expect(&run(typed, Security::new())?, &[("connect=/mnt/later", "ok"), ("connect=/tmp/own", "ok")]);
    let sandbox = bare().build()?;
    assert_eq!(sandbox.enforcement().get("landlock-sockets").map(|one| one.enforced), Some(Enforced::Yes));
    Ok(())
}

/// Sandboxes that share a directory meet there only if that is said.
fn sockets_of_another_sandbox() -> Fallible<()> {
    let dir = shared()?;
    let server = listening(&bare().mount(Mount::bind(dir.path(), "/srv")).build()?, "/srv/socket")?;
    // the socket's own permissions are not what is tried here
    std::fs::set_permissions(dir.path().join("socket"), std::fs::Permissions::from_mode(0o777))?;
    expect(&entered(&server, &["connect=/srv/socket"])?, &[("connect=/srv/socket", "ok")]);
    let other = |mount: fn(PathBuf, &'static str) -> Mount| {
        attack(&bare().mount(mount(dir.path().into(), "/mnt")).build()?, &["connect=/mnt/socket"])
    };
    expect(&other(Mount::socket)?, &[("connect=/mnt/socket", "ok")]);
    // as the directory's bind is refused while something listens there, the bind comes first
    drop(server);
    std::fs::remove_file(dir.path().join("socket"))?;
    let client = bare().mount(Mount::bind(dir.path(), "/mnt")).build()?.spawn(&payload(&["sleep=60"]))?;
    let server = listening(&bare().mount(Mount::bind(dir.path(), "/srv")).build()?, "/srv/socket")?;
    std::fs::set_permissions(dir.path().join("socket"), std::fs::Permissions::from_mode(0o777))?;
    expect(&entered(&client, &["connect=/mnt/socket"])?, &[("connect=/mnt/socket", "EACCES")]);
    drop((client, server));
    Ok(())
}

/// The domain around a sandbox takes no right that has nothing to do with sockets.
fn renames_in_a_passed_directory() -> Fallible<()> {
    let dir = shared()?;
    let sandbox = bare().build()?;
    let mut command = payload(&["rename=/proc/self/fd/9", "rename=/tmp"]);
    command.directory_fd(9, std::fs::File::open(dir.path())?);
    let seen = parse(&text(&sandbox.output(&command)?))?;
    expect(&seen, &[("rename=/proc/self/fd/9", "ok"), ("rename=/tmp", "ok")]);
    Ok(())
}

/// In the host's network namespace the host's abstract sockets can be seen.
fn scope_of_sockets() -> Fallible<()> {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("belljar-scope-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name)?;
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address)?;
    let connect = format!("connect-abstract={name}");
    let run = |security| -> Fallible<Seen> {
        attack(&bare().namespaces(Namespaces::isolated().net(Net::Inherit)).security(security).build()?, &[&connect])
    };
    expect(&run(Security::new())?, &[(connect.as_str(), "EPERM")]);
    expect(&run(without_domain())?, &[(connect.as_str(), "ok")]);
    Ok(())
}

/// In the host's pid namespace a user's payload could signal that user's processes.
fn scope_of_signals() -> Fallible<()> {
    let kill = format!("kill={}", std::process::id());
    let run = |security: Security| -> Fallible<Seen> {
        let namespaces = Namespaces::isolated().pid(Pid::Inherit);
        let builder = bare().namespaces(namespaces).mounts(Mounts::none().mount(Mount::dev("/dev")));
        attack(&builder.security(security).build()?, &[&kill])
    };
    expect(&run(Security::new())?, &[(kill.as_str(), "EPERM")]);
    expect(&run(without_domain())?, &[(kill.as_str(), "ok")]);
    Ok(())
}

/// At best effort the report says what is missing; what is required is an error.
fn older_kernel() -> Fallible<()> {
    without(feature::LANDLOCK, || {
        let sandbox = bare().build()?;
        let report = sandbox.enforcement();
        assert!(report.unavailable().any(|one| one.name == "landlock-files"), "{report}");
        expect(&attack(&sandbox, &["uid"])?, &[("uid", "ok 0")]);
        let required = Security::new().landlock(Landlock::standard().enforce(Enforce::Required));
        let error = refused(bare().security(required).build())?;
        assert_kind(&error, ErrorKind::InvalidSpec);
        // ports are asked for by name: required unless said otherwise
        let ports = Landlock::standard().connect_tcp([443]);
        assert_kind(
            &refused(bare().security(Security::new().landlock(ports.clone())).build())?,
            ErrorKind::InvalidSpec,
        );
        let sandbox = bare().security(Security::new().landlock(ports.enforce(Enforce::BestEffort))).build()?;
        assert!(sandbox.enforcement().unavailable().any(|one| one.name == "landlock-ports"));
        Ok(())
    })?;
    // without the filter the domain stands by itself
    let sandbox = bare().security(Security::new().seccomp(Seccomp::Unconfined)).build()?;
    if Need::Landlock(2).probe().is_ok() {
        assert_eq!(sandbox.enforcement().get("landlock-files").map(|one| one.enforced), Some(Enforced::Yes));
    }
    Ok(())
}
