//! Namespaces: new, joined, inherited, seen from inside.

use crate::common::*;
use crate::harness::{Need, Test};
use belljar::testing::feature;
use belljar::{
    Cgroup, ClockOffset, IdMap, Init, Ipc, Mount, Mounts, Namespace, NamespaceKind, Namespaces, Net, Pid, RootFs,
    Sandbox, Time, User, Uts,
};
use std::time::Duration;

pub fn tests() -> Vec<Test> {
    const USER: &[Need] = &[Need::UserNamespaces];
    vec![
        Test::new("namespace::isolated_is_all_eight", USER, isolated_is_all_eight),
        Test::new("namespace::host_and_domain_name", USER, host_and_domain_name),
        Test::new("namespace::loopback_is_up_and_alone", USER, loopback_is_up_and_alone),
        Test::new("namespace::clock_offsets", USER, clock_offsets),
        Test::new("namespace::clock_offsets_with_payload_as_init", USER, clock_offsets_with_payload_as_init),
        Test::new("namespace::inherited_is_the_hosts", &[Need::Root], inherited_is_the_hosts),
        Test::new("namespace::each_kind_can_be_inherited", USER, each_kind_can_be_inherited),
        Test::new("namespace::joined_by_handle", USER, joined_by_handle),
        Test::new("namespace::joined_with_all_others_new", USER, joined_with_all_others_new),
        Test::new("namespace::joined_by_path_and_pid", &[Need::Root], joined_by_path_and_pid),
        Test::new("namespace::joined_before_the_user_namespace", &[Need::Root], joined_before_the_user_namespace),
        Test::new("namespace::joined_pid_sees_the_other", USER, joined_pid_sees_the_other),
        Test::new("namespace::joined_mount_namespace", USER, joined_mount_namespace),
        Test::new("namespace::a_handle_outlives_its_sandbox", USER, a_handle_outlives_its_sandbox),
        Test::new("namespace::container_network", USER, container_network),
        Test::new("namespace::a_dead_pid_namespace_is_refused", USER, a_dead_pid_namespace_is_refused),
        Test::new("namespace::handles_are_typed", USER, handles_are_typed),
    ]
}

fn links(sandbox: &Sandbox) -> Fallible<Vec<String>> {
    let script = "for k in user mnt pid net ipc uts cgroup time; do readlink /proc/self/ns/$k; done";
    Ok(prints(sandbox, script)?.lines().map(String::from).collect())
}

fn own_links() -> Fallible<Vec<String>> {
    NamespaceKind::ALL
        .iter()
        .map(|kind| Ok(std::fs::read_link(format!("/proc/self/ns/{}", kind.file_name()))?.display().to_string()))
        .collect()
}

fn isolated_is_all_eight() -> Fallible<()> {
    for init in [Init::Shim, Init::Payload] {
        let inside = links(&host().init(init).build()?)?;
        assert_eq!(inside.len(), 8);
        for (inside, outside) in inside.iter().zip(own_links()?) {
            assert_ne!(*inside, outside, "{init:?}");
        }
    }
    Ok(())
}

fn host_and_domain_name() -> Fallible<()> {
    let uts = Uts::New { hostname: "a-box".into(), domainname: Some("example.net".into()) };
    let sandbox = host().namespaces(Namespaces::isolated().uts(uts)).build()?;
    let names = prints(&sandbox, "uname -n; cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname")?;
    assert_eq!(names, "a-box\na-box\nexample.net");
    Ok(())
}

fn loopback_is_up_and_alone() -> Fallible<()> {
    let sandbox = host().build()?;
    // made by a thread, or where there is none by the shim itself
    loopback_is_up(&sandbox)?;
    without(feature::THREAD, || loopback_is_up(&sandbox))
}

fn loopback_is_up(sandbox: &Sandbox) -> Fallible<()> {
    let devices = prints(sandbox, "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | sort | tr '\\n' ' '")?;
    // some kernels give each namespace idle tunnel devices (net.core.fb_tunnels_only_for_init_net)
    assert!(devices.split(' ').any(|d| d == "lo"), "{devices}");
    assert!(!devices.split(' ').any(|d| d.starts_with("eth") || d.starts_with("en")), "{devices}");
    // an address of lo is in the local table only when the device is up
    assert!(prints(sandbox, "cat /proc/net/fib_trie")?.contains("127.0.0.1"));
    Ok(())
}

fn clock_of(sandbox: &Sandbox) -> Fallible<f64> {
    Ok(prints(sandbox, "cut -d' ' -f1 /proc/uptime")?.parse()?)
}

fn clock_offsets() -> Fallible<()> {
    let plain = clock_of(&host().build()?)?;
    let ahead = ClockOffset::ahead(Duration::from_secs(100_000));
    let time = Time::New { monotonic: ClockOffset::NONE, boottime: ahead };
    let shifted = clock_of(&host().namespaces(Namespaces::isolated().time(time)).build()?)?;
    assert!((shifted - plain - 100_000.0).abs() < 60.0, "{plain} {shifted}");
    let behind = ClockOffset::behind(Duration::from_secs_f64(plain / 2.0));
    let time = Time::New { monotonic: behind, boottime: behind };
    let shifted = clock_of(&host().namespaces(Namespaces::isolated().time(time)).build()?)?;
    assert!(shifted < plain, "{plain} {shifted}");
    Ok(())
}

fn clock_offsets_with_payload_as_init() -> Fallible<()> {
    let ahead = ClockOffset::ahead(Duration::from_secs(100_000));
    let time = Time::New { monotonic: ahead, boottime: ahead };
    let namespaces = Namespaces::isolated().time(time);
    let shifted = clock_of(&host().init(Init::Payload).namespaces(namespaces).build()?)?;
    let plain = clock_of(&host().build()?)?;
    assert!(shifted > plain + 90_000.0, "{plain} {shifted}");
    Ok(())
}

fn inherited_is_the_hosts() -> Fallible<()> {
    let sandbox = Sandbox::builder(RootFs::inherit()).namespaces(Namespaces::inherited()).build()?;
    let mut inside = links(&sandbox)?;
    let mut outside = own_links()?;
    assert_eq!(inside.remove(0), outside.remove(0));
    assert_eq!(inside, outside);
    Ok(())
}

fn each_kind_can_be_inherited() -> Fallible<()> {
    let isolated = Namespaces::isolated;
    let cases = [
        (2, isolated().pid(Pid::Inherit)),
        (3, isolated().net(Net::Inherit)),
        (4, isolated().ipc(Ipc::Inherit)),
        (5, isolated().uts(Uts::Inherit)),
        (6, isolated().cgroup(Cgroup::Inherit)),
        (7, isolated().time(Time::Inherit)),
    ];
    let outside = own_links()?;
    for (index, namespaces) in cases {
        // a new proc and mqueue belong to new pid and IPC namespaces: the host's root has its own
        let inside = links(&host().mounts(Mounts::none()).namespaces(namespaces).build()?)?;
        for (i, (inside, outside)) in inside.iter().zip(&outside).enumerate() {
            assert_eq!(inside == outside, i == index, "case {index}, kind {i}: {inside}");
        }
    }
    Ok(())
}

/// A sandbox that stays until its stdin closes.
fn pause(namespaces: Namespaces) -> Fallible<belljar::Child> {
    let mut command = sh("echo ready; read line");
    command.stdin(belljar::Stdio::Piped).stdout(belljar::Stdio::Piped);
    let mut child = host().namespaces(namespaces).build()?.spawn(&command)?;
    let mut ready = [0u8; 6];
    std::io::Read::read_exact(child.stdout.as_mut().ok_or("no stdout")?, &mut ready)?;
    Ok(child)
}

fn joined_by_handle() -> Fallible<()> {
    let mut first = pause(Namespaces::isolated().uts(Uts::new("first")))?;
    let namespaces = Namespaces::isolated()
        .user(User::Join(first.namespace(NamespaceKind::User)?))
        .uts(Uts::Join(first.namespace(NamespaceKind::Uts)?))
        .net(Net::Join(first.namespace(NamespaceKind::Network)?))
        .ipc(Ipc::Join(first.namespace(NamespaceKind::Ipc)?))
        .cgroup(Cgroup::Join(first.namespace(NamespaceKind::Cgroup)?))
        .time(Time::Join(first.namespace(NamespaceKind::Time)?));
    let sandbox = host().namespaces(namespaces).build()?;
    assert_eq!(prints(&sandbox, "uname -n")?, "first");
    let theirs: Vec<_> = NamespaceKind::ALL
        .iter()
        .map(|kind| std::fs::read_link(format!("/proc/{}/ns/{}", first.id(), kind.file_name())))
        .collect::<Result<_, _>>()?;
    for (i, (inside, theirs)) in links(&sandbox)?.iter().zip(theirs).enumerate() {
        let joined = !matches!(i, 1 | 2); // its own mount and pid namespaces
        assert_eq!(*inside == theirs.display().to_string(), joined, "kind {i}");
    }
    first.kill(belljar::KillScope::Tree)?;
    first.wait()?;
    Ok(())
}

fn joined_with_all_others_new() -> Fallible<()> {
    let first = pause(Namespaces::isolated())?;
    let user = User::Join(first.namespace(NamespaceKind::User)?);
    for init in [Init::Shim, Init::Payload] {
        let sandbox = host().init(init).namespaces(Namespaces::isolated().user(user.clone())).build()?;
        // PID 1 is the shim, or the payload: both by way of the relaunch
        let pid = prints(&sandbox, "echo $$")?;
        assert_eq!(pid == "1", init == Init::Payload, "{pid}");
        assert_eq!(sandbox.status(&sh("exit 7"))?.code(), Some(7));
    }
    Ok(())
}

fn joined_by_path_and_pid() -> Fallible<()> {
    let first = pause(Namespaces::isolated().uts(Uts::new("first")))?;
    let path = Namespace::from_path(format!("/proc/{}/ns/uts", first.id()));
    for uts in [path, Namespace::of_process(first.id())] {
        let namespaces = Namespaces::inherited().uts(Uts::Join(uts));
        let sandbox = host().mounts(Mounts::none()).namespaces(namespaces).build()?;
        assert_eq!(prints(&sandbox, "uname -n")?, "first");
    }
    Ok(())
}

fn joined_before_the_user_namespace() -> Fallible<()> {
    let first = pause(Namespaces::isolated().user(User::Inherit).uts(Uts::new("first")))?;
    let joined = Uts::Join(first.namespace(NamespaceKind::Uts)?);
    let namespaces = Namespaces::isolated().uts(joined).user(User::New(IdMap::shared()));
    let sandbox = host().namespaces(namespaces).build()?;
    assert_eq!(prints(&sandbox, "uname -n; tr -s ' ' < /proc/self/uid_map")?, "first\n 0 1879048192 65536");
    Ok(())
}

fn joined_pid_sees_the_other() -> Fallible<()> {
    let first = pause(Namespaces::isolated())?;
    let namespaces = Namespaces::isolated()
        .user(User::Join(first.namespace(NamespaceKind::User)?))
        .pid(Pid::Join(first.namespace(NamespaceKind::Pid)?));
    for init in [Init::Shim, Init::Payload] {
        let mounts = Mounts::none().mount(Mount::tmpfs("/tmp"));
        let sandbox = host().init(init).mounts(mounts).namespaces(namespaces.clone()).build()?;
        let pid: u32 = prints(&sandbox, "echo $$")?.parse()?;
        assert!(pid > 1, "{pid}: it is not the init of the namespace that it joined");
    }
    Ok(())
}

fn joined_mount_namespace() -> Fallible<()> {
    let mut command = sh("echo here > /tmp/marker; echo ready; read line");
    command.stdin(belljar::Stdio::Piped).stdout(belljar::Stdio::Piped);
    let mut first = host().build()?.spawn(&command)?;
    let mut ready = [0u8; 6];
    std::io::Read::read_exact(first.stdout.as_mut().ok_or("no stdout")?, &mut ready)?;
    let namespaces = Namespaces::isolated()
        .user(User::Join(first.namespace(NamespaceKind::User)?))
        .pid(Pid::Join(first.namespace(NamespaceKind::Pid)?));
    let root = RootFs::join(first.namespace(NamespaceKind::Mount)?);
    let sandbox = Sandbox::builder(root).namespaces(namespaces).build()?;
    assert_eq!(prints(&sandbox, "cat /tmp/marker")?, "here");
    Ok(())
}

fn a_handle_outlives_its_sandbox() -> Fallible<()> {
    let mut first = pause(Namespaces::isolated().uts(Uts::new("gone")))?;
    let user = first.namespace(NamespaceKind::User)?;
    let uts = first.namespace(NamespaceKind::Uts)?;
    first.kill(belljar::KillScope::Tree)?;
    first.wait()?;
    assert!(first.namespace(NamespaceKind::Uts).is_err());
    let namespaces = Namespaces::isolated().user(User::Join(user)).uts(Uts::Join(uts));
    assert_eq!(prints(&host().namespaces(namespaces).build()?, "uname -n")?, "gone");
    Ok(())
}

/// A server and a client on the loopback device, as payloads: this program itself.
pub fn peer(role: &str) -> Fallible<()> {
    use std::io::{Read, Write};
    if role == "server" {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 7777))?;
        println!("ready");
        for connection in listener.incoming() {
            connection?.write_all(b"hello from the server")?;
        }
        return Ok(());
    }
    let mut text = String::new();
    std::net::TcpStream::connect(("127.0.0.1", 7777))?.read_to_string(&mut text)?;
    print!("{text}");
    Ok(())
}

fn with_peer(namespaces: Namespaces) -> Fallible<Sandbox> {
    let own = std::env::current_exe()?;
    let builder = with_programs(Sandbox::builder(RootFs::empty())).mount(Mount::bind(own, "/peer").read_only());
    Ok(builder.namespaces(namespaces).build()?)
}

fn role(role: &str) -> belljar::Command {
    let mut command = belljar::Command::new("/peer");
    command.env("BELLJAR_TEST_PEER", role);
    command
}

fn serve(namespaces: Namespaces) -> Fallible<belljar::Child> {
    let mut child = with_peer(namespaces)?.spawn(role("server").stdout(belljar::Stdio::Piped))?;
    let mut ready = [0u8; 6];
    std::io::Read::read_exact(child.stdout.as_mut().ok_or("no stdout")?, &mut ready)?;
    Ok(child)
}

/// Network mode "container": a second sandbox in the network of a first, also after that one's end.
fn container_network() -> Fallible<()> {
    const HELLO: &[u8] = b"hello from the server";
    let mut first = serve(Namespaces::isolated())?;
    let shared = first.namespaces()?;
    let beside = || {
        Namespaces::isolated()
            .user(User::Join(shared.get(NamespaceKind::User)))
            .net(Net::Join(shared.get(NamespaceKind::Network)))
    };
    let ask = |namespaces| -> Fallible<_> { Ok(with_peer(namespaces)?.output(&role("client"))?) };
    assert_eq!(ask(beside())?.stdout, HELLO);
    assert!(!ask(Namespaces::isolated())?.exit.success(), "the control: another network has no such server");
    if Need::Root.probe().is_ok() {
        // with power over the host, the network alone is enough
        let network = Namespaces::isolated().net(Net::Join(shared.get(NamespaceKind::Network)));
        assert_eq!(ask(network)?.stdout, HELLO);
    }
    first.kill(belljar::KillScope::Tree)?;
    first.wait()?;
    assert!(!ask(beside())?.exit.success(), "the server is gone");
    let mut second = serve(beside())?; // the port is free, and `lo` still up
    assert_eq!(ask(beside())?.stdout, HELLO);
    second.kill(belljar::KillScope::Tree)?;
    second.wait()?;
    Ok(())
}

/// The kernel takes no process into a pid namespace whose init has ended: said at once, and not waited for.
fn a_dead_pid_namespace_is_refused() -> Fallible<()> {
    let mut first = pause(Namespaces::isolated())?;
    let shared = first.namespaces()?;
    first.kill(belljar::KillScope::Tree)?;
    first.wait()?;
    let namespaces = Namespaces::isolated()
        .user(User::Join(shared.get(NamespaceKind::User)))
        .pid(Pid::Join(shared.get(NamespaceKind::Pid)));
    for init in [Init::Shim, Init::Payload] {
        let mounts = Mounts::none().mount(Mount::tmpfs("/tmp"));
        let sandbox = host().init(init).mounts(mounts).namespaces(namespaces.clone()).build()?;
        let error = refused(sandbox.spawn(&sh("true")))?;
        assert_kind(&error, belljar::ErrorKind::NotFound);
    }
    Ok(())
}

fn handles_are_typed() -> Fallible<()> {
    let mut first = pause(Namespaces::isolated())?;
    let all = first.namespaces()?;
    for kind in NamespaceKind::ALL {
        let theirs = std::fs::read_link(format!("/proc/{}/ns/{}", first.id(), kind.file_name()))?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&all.fd(kind));
        assert_eq!(std::fs::read_link(format!("/proc/self/fd/{number}"))?, theirs);
    }
    let wrong = Namespaces::isolated().net(Net::Join(all.get(NamespaceKind::Uts)));
    let error = refused(host().namespaces(wrong).build()?.spawn(&sh("true")))?;
    assert_kind(&error, belljar::ErrorKind::InvalidSpec);
    assert!(error.to_string().contains("joined as a net namespace"), "{error}");
    first.kill(belljar::KillScope::Tree)?;
    first.wait()?;
    assert_eq!(refused(first.namespaces())?.kind(), belljar::ErrorKind::NotFound);
    Ok(())
}
