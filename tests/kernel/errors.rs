//! Errors, `explain`, and that nothing is left when a step fails.

use crate::common::*;
use crate::harness::{Need, TempDir, Test};
use belljar::{
    ErrorKind, IdMap, IdRange, Init, Mount, Mounts, Namespaces, Net, Pid, RootFs, Sandbox, Time, Upper, User, Uts,
    testing,
};

pub fn tests() -> Vec<Test> {
    const USER: &[Need] = &[Need::UserNamespaces];
    const OVERLAY: &[Need] = &[Need::UserNamespaces, Need::UserOverlay];
    vec![
        Test::new("errors::all_defects_together", &[], all_defects_together),
        Test::new("errors::each_step_fails_cleanly", OVERLAY, each_step_fails_cleanly),
        Test::new("errors::each_step_fails_cleanly_without_new_calls", USER, each_step_fails_without_new_calls),
        Test::new("errors::display_is_one_line_with_a_remedy", USER, display),
        Test::new("errors::kernel_message_of_a_file_system", OVERLAY, kernel_message),
        Test::new("errors::explain_is_golden", &[], explain_is_golden),
        Test::new("errors::explain_is_what_fails", USER, explain_is_what_fails),
        Test::new("errors::doctor_finds_what_works", USER, doctor),
    ]
}

fn all_defects_together() -> Fallible<()> {
    let range = IdRange { inside: 0, outside: 0, count: 0 };
    let namespaces = Namespaces::isolated().user(User::New(IdMap::ranges([range], []))).uts(Uts::new("x".repeat(65)));
    let root = RootFs::overlay(Vec::<String>::new())
        .hide("relative")
        .file_mode("/f", 0o7777, "")
        .symlink("/l", "")
        .upper(Upper::Discard { bytes: belljar::Bytes::new(0), inodes: 0 });
    let error = refused(
        Sandbox::builder(root)
            .namespaces(namespaces)
            .mount(Mount::tmpfs("relative"))
            .mount(Mount::bind("", "/x\0y"))
            .mount(Mount::tmpfs("/"))
            .build(),
    )?;
    assert_kind(&error, ErrorKind::InvalidSpec);
    let all = error.to_string();
    for part in [
        "0 layers",
        "\"relative\" is not absolute",
        "mode 7777",
        "no target",
        "room for nothing",
        "65 bytes",
        "NUL byte",
        "is empty",
        "would hide the root",
        "id 0",
        "has 0 ranges",
    ] {
        assert!(all.contains(part), "{part:?} is missing in: {all}");
    }
    assert!(!all.contains('\n'));
    for (builder, part) in [
        (Sandbox::builder(RootFs::host().upper(Upper::DEFAULT)), "one"),
        (Sandbox::builder(RootFs::host().hide("/etc")), "layers of the sandbox's own"),
        (Sandbox::builder(RootFs::inherit()).mount(Mount::tmpfs("/x")), "cannot get mounts"),
        (Sandbox::builder(RootFs::empty().upper(Upper::Persist("/x".into()))), "persistent"),
        (
            Sandbox::builder(RootFs::host())
                .namespaces(Namespaces::inherited())
                .mount(Mount::bind("/etc", "/x").idmapped()),
            "id-mapped",
        ),
    ] {
        let error = refused(builder.build())?;
        assert_kind(&error, ErrorKind::InvalidSpec);
        assert!(error.to_string().contains(part), "{error}");
    }
    Ok(())
}

/// A sandbox with an op of nearly every kind.
fn rich(dir: &TempDir) -> Fallible<belljar::SandboxBuilder> {
    let (low, high) = (dir.path().join("low"), dir.path().join("high"));
    for layer in [&low, &high] {
        program_directories(layer)?;
    }
    let root = RootFs::overlay([low, high])
        .hostname("x")
        .directory("/a")
        .symlink("/l", "a")
        .hide("/etc/none")
        .opaque("/etc")
        .upper(Upper::Persist(dir.path().join("upper")));
    let namespaces = Namespaces::isolated().uts(Uts::New { hostname: "h".into(), domainname: Some("d".into()) });
    Ok(with_programs(Sandbox::builder(root)).namespaces(namespaces))
}

struct Faults;
impl Drop for Faults {
    fn drop(&mut self) {
        testing::fail_at(None);
    }
}

/// Fails every step in turn. The harness's leak check sees that nothing remains.
fn fail_each(builder: impl Fn() -> Fallible<belljar::SandboxBuilder>, least: u32) -> Fallible<()> {
    for init in [Init::Shim, Init::Payload] {
        let sandbox = builder()?.init(init).build()?;
        assert!(sandbox.status(&sh("true"))?.success(), "control: without a fault it runs");
        let lines: Vec<_> = sandbox.explain(&sh("true"))?.to_string().lines().map(String::from).collect();
        assert!(lines.len() as u32 >= least, "{lines:#?}");
        let _restore = Faults;
        for (index, line) in lines.iter().enumerate() {
            testing::fail_at(Some(index as u32));
            let error = refused(sandbox.spawn(&sh("true"))).map_err(|e| format!("step {}: {e}", index + 1))?;
            let step = error.step().ok_or_else(|| format!("no step: {error}"))?;
            assert_eq!((step.number(), step.total()), (index as u32 + 1, lines.len() as u32), "{error}");
            assert_eq!(error.raw_os_error(), Some(5), "{error}");
            let words = error.what().split(' ').next().unwrap_or_default().to_owned();
            assert!(line.contains(&words), "{line:?} is not {error}");
        }
        testing::fail_at(None);
        assert!(sandbox.status(&sh("true"))?.success());
    }
    Ok(())
}

fn each_step_fails_cleanly() -> Fallible<()> {
    let dir = TempDir::new()?;
    fail_each(|| rich(&dir), 60)
}

fn each_step_fails_without_new_calls() -> Fallible<()> {
    without(!0, || fail_each(|| Ok(host()), 50))
}

fn display() -> Fallible<()> {
    let error = refused(host().build()?.spawn(&belljar::Command::new("/no/such/program")))?;
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    let shape =
        text.starts_with("step ") && text.contains(" of ") && text.contains("execute /no/such/program: ENOENT (");
    assert!(shape && text.contains("; try: "), "{text}");
    assert!(format!("{error:?}").contains("ProgramNotFound"));
    let io: std::io::Error = error.into();
    assert_eq!(io.kind(), std::io::ErrorKind::NotFound);
    Ok(())
}

/// What `hosts` runs this program anew for: prints how one spawn went.
pub fn spawn_once() {
    let map = match std::env::var_os("BELLJAR_TEST_SUBORDINATE") {
        Some(_) => IdMap::subordinate(),
        None => IdMap::caller().allow_host_root(),
    };
    let namespaces = Namespaces::isolated().user(User::New(map));
    let mut builder = host().namespaces(namespaces);
    let mut script = "test -d /proc/self";
    if std::env::var_os("BELLJAR_TEST_PROC_OR_EMPTY").is_some() {
        builder = builder.mounts(Mounts::none().mount(Mount::proc("/proc").or_empty()));
        script = "test -d /proc && test ! -e /proc/self";
    }
    let result = builder.build().and_then(|sandbox| sandbox.status(&sh(script)));
    match result {
        Ok(exit) if !exit.success() => println!("the payload failed: {exit}"),
        result => println!("{result:?}"),
    }
}

fn kernel_message() -> Fallible<()> {
    let dir = TempDir::new()?;
    let layer = dir.path().join("layer");
    program_directories(&layer)?;
    // the upper inside of the layer: overlayfs says why not
    let root = RootFs::dir(&layer).upper(Upper::Persist("/proc/self".into()));
    let error = refused(with_programs(Sandbox::builder(root)).build()?.spawn(&sh("true")))?;
    assert!(error.to_string().contains("/proc/self"), "{error}");
    // overlayfs refuses file systems with name comparison of their own, and says so
    let root = RootFs::overlay([layer.as_path(), std::path::Path::new("/proc/sys/kernel")]);
    match with_programs(Sandbox::builder(root)).build()?.spawn(&sh("true")) {
        Ok(_) => return Err("an overlay of sysctls was accepted".into()),
        Err(error) => {
            assert_eq!(error.step().map(|s| s.name()), Some("overlay"), "{error}");
            assert!(error.hint().is_some(), "{error}");
            // the log of the context exists since 5.2, and overlayfs writes to it since 6.5
            if crate::harness::Need::Kernel(6, 13).probe().is_ok() {
                assert!(error.kernel_message().is_some_and(|m| m.contains("overlay")), "{error}");
            }
        }
    }
    // that refusal was about those layers, and others are id-mapped as before
    if crate::harness::Need::Kernel(5, 19).probe().is_ok() {
        let sandbox = with_programs(Sandbox::builder(RootFs::dir(&layer))).build()?;
        assert_eq!(prints(&sandbox, "touch /made && echo mine")?, "mine");
    }
    Ok(())
}

fn explain_is_golden() -> Fallible<()> {
    // a program in which nothing depends on the machine
    let namespaces = Namespaces::isolated()
        .user(User::New(IdMap::ranges(
            [IdRange { inside: 0, outside: 100_000, count: 10 }],
            [IdRange { inside: 0, outside: 200_000, count: 20 }],
        )))
        .net(Net::Inherit)
        .pid(Pid::New)
        .time(Time::Inherit);
    let root = RootFs::empty().file("/etc/motd", "hello").hide("/x");
    let sandbox = Sandbox::builder(root)
        .namespaces(namespaces)
        .limits(belljar::CgroupLimits::none())
        .security(belljar::Security::new().landlock(belljar::Landlock::none()).inotify(belljar::Inotify::Inherit))
        .mounts(
            Mounts::none()
                .mount(Mount::proc("/proc"))
                .mount(Mount::tmpfs("/tmp").mode(0o1777))
                .mount(Mount::mask("/m")),
        )
        .build()?;
    let mut command = belljar::Command::new("/bin/true");
    command.arg("one argument").env_clear().env("K", "v").uid(1).gid(2).current_dir("/tmp");
    let explained = sandbox.explain(&command)?.to_string();
    let golden = include_str!("explain.golden");
    let helper = explained.replace(" by newuidmap and newgidmap", ""); // as an ordinary user
    assert_eq!(helper, golden, "what is explained has changed; if it should, this is the new text:\n{helper}");
    Ok(())
}

fn explain_is_what_fails() -> Fallible<()> {
    let sandbox = host().mount(Mount::tmpfs("/no/such/target").missing(belljar::Missing::Error)).build()?;
    let error = refused(sandbox.spawn(&sh("true")))?;
    let step = error.step().ok_or("no step")?;
    let explained = sandbox.explain(&sh("true"))?.to_string();
    let line = explained.lines().nth(step.number() as usize - 1).ok_or("no such line")?;
    assert!(line.ends_with(error.what()), "{line} / {error}");
    Ok(())
}

fn doctor() -> Fallible<()> {
    let doctor = belljar::doctor();
    let text = doctor.to_string();
    assert!(text.lines().count() > 10, "{text}");
    Ok(())
}
