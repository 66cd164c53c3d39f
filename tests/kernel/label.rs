//! The label under which the payload is executed (AppArmor, SELinux).

use crate::common::*;
use crate::harness::{Need, TempDir, Test};
use belljar::{
    Command, Enforced, ErrorKind, ExecLabel, Init, Mount, Namespaces, Pid, SandboxBuilder, Security, Stdio, User,
};

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("label::a_module_that_is_not_active", &[], not_active),
        Test::new("label::defects", &[], defects),
        Test::new("label::an_unknown_profile", &[Need::AppArmor, Need::UserNamespaces], unknown),
        Test::new(
            "label::a_profile_binds_the_payload",
            &[Need::AppArmor, Need::Root, Need::Program("apparmor_parser")],
            profile_binds,
        ),
        Test::new(
            "label::a_context_binds_the_payload",
            &[Need::Selinux, Need::Root, Need::Vm, Need::Program("checkpolicy")],
            context_binds,
        ),
        Test::new("label::written_to_a_procfs_alone", &[Need::AppArmor, Need::Root], written_to_a_procfs),
    ]
}

fn labelled(label: ExecLabel) -> SandboxBuilder {
    host().mount(Mount::tmpfs("/tmp")).security(Security::new().exec_label(label))
}

fn apparmor(name: &str) -> ExecLabel {
    ExecLabel::AppArmor(name.into())
}

fn selinux() -> ExecLabel {
    ExecLabel::Selinux("system_u:system_r:container_t:s0".into())
}

/// No kernel has both at once; here may be neither.
fn not_active() -> Fallible<()> {
    let mut absent = 0;
    for (label, name, active) in [
        (apparmor("plugin"), "AppArmor", Need::AppArmor.probe().is_ok()),
        (selinux(), "SELinux", Need::Selinux.probe().is_ok()),
    ] {
        match labelled(label).build() {
            Ok(_) => assert!(active, "{name} is not active"),
            Err(error) => {
                assert!(!active, "{error}");
                assert_kind(&error, ErrorKind::NotSupported);
                assert!(error.to_string().contains(name) && error.hint().is_some_and(|hint| hint.contains("lsm=")));
                absent += 1;
            }
        }
    }
    assert!(absent > 0, "both are active");
    // a process that enters asks the same
    let child = host().build()?.spawn(&sh("sleep 60"))?;
    let tighter = Security::new().exec_label(if Need::AppArmor.probe().is_ok() { selinux() } else { apparmor("p") });
    assert_kind(&refused(child.enter_tighter(&sh("true"), &tighter))?, ErrorKind::NotSupported);
    Ok(())
}

fn defects() -> Fallible<()> {
    for bad in ["", "two words", "x\n", "x\0", "unconfined"] {
        let error = refused(labelled(apparmor(bad)).build())?;
        assert_kind(&error, ErrorKind::InvalidSpec);
        assert_eq!(error.defects().len(), 1, "{error}");
        assert_kind(&refused(labelled(ExecLabel::Selinux(bad.into())).build())?, ErrorKind::InvalidSpec);
    }
    Ok(())
}

fn unknown() -> Fallible<()> {
    for init in [Init::Shim, Init::Payload] {
        let sandbox = labelled(apparmor("belljar-nobody-has-loaded-this")).init(init).build()?;
        let error = refused(sandbox.spawn(&sh("echo it ran")))?;
        assert_kind(&error, ErrorKind::NotFound);
        assert_eq!(error.step().map(|step| step.name()), Some("exec-label"), "{error}");
        assert!(error.to_string().contains("apparmor_parser"), "{error}");
    }
    Ok(())
}

/// A profile that is loaded for the time of a test.
struct Loaded {
    name: String,
    dir: TempDir,
}

impl Loaded {
    fn new(rules: &str) -> Fallible<Loaded> {
        let dir = TempDir::new()?;
        let name = format!("belljar-test-{}", std::process::id());
        let text = format!("profile {name} flags=(attach_disconnected) {{ {rules} }}\n");
        std::fs::write(dir.path().join("profile"), text)?;
        let loaded = Loaded { name, dir };
        loaded.parser("--replace")?;
        Ok(loaded)
    }

    fn parser(&self, what: &str) -> Fallible<()> {
        let mut command = std::process::Command::new("apparmor_parser");
        let output = command.args([what, "--skip-cache", "--quiet"]).arg(self.dir.path().join("profile")).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(format!("apparmor_parser {what}: {said}").into()) }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if let Err(error) = self.parser("--remove") {
            eprintln!("{error}");
        }
    }
}

const LOOK: &str = "cat /proc/thread-self/attr/current; touch /tmp/free && echo free; touch /tmp/denied && echo denied";

fn profile_binds() -> Fallible<()> {
    let loaded = Loaded::new("file, signal, unix, network, capability, ptrace, deny /tmp/denied w,")?;
    let name = loaded.name.clone();
    let label = format!("{name} (enforce)\nfree\n");
    // what is there of it, in all ways in which a payload comes to its program
    let inherited = Namespaces::isolated().user(User::Inherit).pid(Pid::Inherit);
    let privileged = Security::new().allow_new_privileges().exec_label(apparmor(&name));
    for (what, builder) in [
        ("by a shim", labelled(apparmor(&name))),
        ("PID 1", labelled(apparmor(&name)).init(Init::Payload)),
        ("in namespaces of the host", labelled(apparmor(&name)).namespaces(inherited)),
        ("with new privileges", labelled(apparmor(&name)).security(privileged)),
        ("without a /proc of its own", labelled(apparmor(&name)).mounts(belljar::Mounts::none())),
    ] {
        let sandbox = builder.build()?;
        let report = sandbox.enforcement();
        let line = report.get("exec-label").ok_or("not in the report")?;
        assert!(line.enforced == Enforced::Yes && line.detail.contains(&name), "{report}");
        if what.starts_with("without") {
            // nobody there to tell; that it is bound the host sees
            let child = sandbox.spawn(&sh("sleep 60"))?;
            let payload = children_of(child.id()).first().copied().ok_or("no payload")?;
            // whoever waits for an exec is told a little before the kernel has finished it
            let current = || std::fs::read_to_string(format!("/proc/{payload}/attr/current"));
            eventually(std::time::Duration::from_secs(5), || current().is_ok_and(|label| label != "unconfined\n"));
            assert_eq!(current()?.trim_end(), format!("{name} (enforce)"), "{what}");
            let shim = std::fs::read_to_string(format!("/proc/{}/attr/current", child.id()))?;
            assert_eq!(shim.trim_end(), "unconfined");
            continue;
        }
        let output = sandbox.output(&sh(LOOK))?;
        let said = text(&output);
        assert!(said.starts_with(&label) && !said.contains("\ndenied\n") && said.contains("denied"), "{what}: {said}");
    }
    let control = host().mount(Mount::tmpfs("/tmp")).build()?.output(&sh(LOOK))?;
    assert_eq!(text(&control), "unconfined\nfree\ndenied\n", "control");
    // one that enters has it too; another label is refused
    let child = labelled(apparmor(&name)).build()?.spawn(&sh("sleep 60"))?;
    let mut command = Command::new("cat");
    command.arg("/proc/self/attr/current").stdout(Stdio::Piped);
    let expected = format!("{name} (enforce)\n");
    assert_eq!(text(&child.enter(&command)?.wait_with_output()?), expected);
    let same = Security::new().exec_label(apparmor(&name));
    assert_eq!(text(&child.enter_tighter(&command, &same)?.wait_with_output()?), expected);
    assert_eq!(text(&child.enter_tighter(&command, &Security::new())?.wait_with_output()?), expected);
    let other = Security::new().exec_label(apparmor("other"));
    assert_kind(&refused(child.enter_tighter(&command, &other))?, ErrorKind::InvalidSpec);
    let plain = host().build()?.spawn(&sh("sleep 60"))?;
    assert_eq!(text(&plain.enter(&command)?.wait_with_output()?), "unconfined\n", "control");
    assert_eq!(text(&plain.enter_tighter(&command, &same)?.wait_with_output()?), expected);
    drop((child, plain));
    Ok(())
}

/// A policy for a machine of its own: everybody may do everything, but for the type `plugin_t`, which may not write to what is
/// on a tmpfs. All classes that it does not name are allowed.
fn policy() -> String {
    // in the order that the kernel numbers them, all of them
    let sids = "kernel security unlabeled fs file file_labels init any_socket port netif netmsg node igmp_packet \
        icmp_socket tcp_socket sysctl_modprobe sysctl sysctl_fs sysctl_kernel sysctl_net sysctl_net_unix sysctl_vm \
        sysctl_dev kmod policy scmp_packet devnull";
    let each = |line: &dyn Fn(&str) -> String| sids.split_whitespace().map(line).collect::<String>();
    let context = |sid: &str| match sid {
        "kernel" | "init" => format!("sid {sid} system_u:system_r:host_t\n"),
        _ => format!("sid {sid} system_u:object_r:file_t\n"),
    };
    format!(
        "class file\nclass process\nclass process2\n{}\
         class file {{ write entrypoint }}\n\
         class process {{ transition dyntransition setexec }}\n\
         class process2 {{ nnp_transition nosuid_transition }}\n\
         policycap nnp_nosuid_transition;\n\
         type host_t;\ntype plugin_t;\ntype file_t;\ntype tmpfs_t;\n\
         role system_r;\nrole system_r types {{ host_t plugin_t }};\n\
         allow host_t {{ host_t plugin_t }}:process {{ transition dyntransition setexec }};\n\
         allow host_t plugin_t:process2 {{ nnp_transition nosuid_transition }};\n\
         allow {{ host_t plugin_t }} {{ file_t tmpfs_t }}:file entrypoint;\n\
         allow host_t {{ host_t plugin_t file_t tmpfs_t }}:file write;\n\
         allow plugin_t {{ plugin_t file_t }}:file write;\n\
         user system_u roles {{ system_r }};\n{}\
         fs_use_trans tmpfs system_u:object_r:tmpfs_t;\n",
        each(&|sid| format!("sid {sid}\n")),
        each(&context),
    )
}

/// Loads it, into a kernel that has none: from here on this process is a `host_t`.
fn load(policy: &str) -> Fallible<()> {
    let dir = TempDir::new()?;
    let (text, binary) = (dir.path().join("policy.conf"), dir.path().join("policy"));
    std::fs::write(&text, policy)?;
    let mut command = std::process::Command::new("checkpolicy");
    let output = command.args(["-U", "allow", "-o"]).arg(&binary).arg(&text).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mounted = dir.path().join("selinux");
    std::fs::create_dir(&mounted)?;
    // of the whole machine, and in a namespace of its own: the leak check sees no mount
    let script = "mount -t selinuxfs selinuxfs \"$1\" && dd if=\"$2\" of=\"$1/load\" bs=1M status=none";
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "/bin/sh", "-ec", script, "load"]).args([&mounted, &binary]);
    let output = command.output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn context_binds() -> Fallible<()> {
    load(&policy())?;
    let context = |kind: &str| ExecLabel::Selinux(format!("system_u:system_r:{kind}"));
    let look =
        "tr -d '\\0' < /proc/thread-self/attr/current; echo; { echo x > /tmp/free; } 2>/dev/null && echo written";
    let seen = |builder: SandboxBuilder| -> Fallible<String> { Ok(text(&builder.build()?.output(&sh(look))?)) };
    let bound = "system_u:system_r:plugin_t\n";
    let inherited = Namespaces::isolated().user(User::Inherit).pid(Pid::Inherit);
    let privileged = Security::new().allow_new_privileges().exec_label(context("plugin_t"));
    for (what, builder) in [
        ("by a shim", labelled(context("plugin_t"))),
        ("PID 1", labelled(context("plugin_t")).init(Init::Payload)),
        ("in namespaces of the host", labelled(context("plugin_t")).namespaces(inherited)),
        ("with new privileges", labelled(context("plugin_t")).security(privileged)),
    ] {
        assert_eq!(seen(builder)?, bound, "{what}");
    }
    let control = host().mount(Mount::tmpfs("/tmp"));
    assert_eq!(seen(control)?, "system_u:system_r:host_t\nwritten\n", "control");
    // one that enters has it too
    let child = labelled(context("plugin_t")).build()?.spawn(&sh("sleep 60"))?;
    let mut command = sh(look);
    let entered = child.enter(command.stdout(Stdio::Piped))?.wait_with_output()?;
    assert_eq!(text(&entered), bound);
    // a context that the policy does not have
    let error = refused(labelled(context("nobody_t")).build()?.spawn(&sh("true")))?;
    assert_eq!(error.step().map(|step| step.name()), Some("exec-label"), "{error}");
    assert_kind(&error, ErrorKind::NotFound);
    Ok(())
}

/// A /proc that is none: nothing is written to its files, and nothing runs.
fn written_to_a_procfs() -> Fallible<()> {
    let program = std::env::current_exe()?;
    // by this program again, which is opened before
    let script = "mount -t tmpfs none /proc && mkdir -p /proc/thread-self/attr/apparmor && cd /proc/thread-self/attr &&
        touch exec apparmor/exec && \"$0\"; cat exec apparmor/exec";
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "/bin/sh", "-c", script]).arg(program);
    let output = command.env("BELLJAR_TEST_SPAWN_LABELLED", "1").output()?;
    let (said, errors) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
    assert!(
        said.starts_with("refused: open /proc to label the payload") && said.lines().count() == 1,
        "{said}{errors}"
    );
    Ok(())
}

/// What `written_to_a_procfs` runs.
pub fn spawn_labelled() -> Fallible<()> {
    let sandbox = belljar::Sandbox::builder(belljar::RootFs::empty());
    let security = Security::new().exec_label(apparmor("p"));
    match sandbox.security(security).build().and_then(|sandbox| sandbox.spawn(&sh("true"))) {
        Ok(_) => println!("it ran"),
        Err(error) => println!("refused: {error}"),
    }
    Ok(())
}
