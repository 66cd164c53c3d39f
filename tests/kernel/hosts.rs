//! Hosts that are closed in one way or another, made real: what belljar says there.
//!
//! Each runs this program anew ([`crate::errors::spawn_once`]) in namespaces in which
//! the switch can be set without touching the machine; those that are global are set in
//! a VM only.

use crate::common::*;
use crate::harness::{Need, Test};
use std::process::Command;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("hosts::no_user_namespaces_left", &[Need::UserNamespaces], no_user_namespaces_left),
        Test::new("hosts::user_namespaces_switched_off", &[Need::Vm, Need::Root], user_namespaces_switched_off),
        Test::new("hosts::masked_proc", &[Need::Root], masked_proc),
        Test::new("hosts::memfds_are_not_executed", &[Need::Root, Need::Kernel(6, 3)], memfds_are_not_executed),
        Test::new("hosts::read_only_cgroupfs", &[Need::Root], read_only_cgroupfs),
        Test::new("hosts::inside_a_chroot", &[Need::Root], inside_a_chroot),
        Test::new("hosts::sigchld_is_ignored", &[Need::UserNamespaces], || sigchld_is_ignored("")),
        Test::new("hosts::sigchld_is_ignored_and_helpers_map_ids", &[Need::NewUidmap], || {
            sigchld_is_ignored("BELLJAR_TEST_SUBORDINATE=1")
        }),
        Test::new("hosts::nested_in_a_sandbox", &[Need::UserNamespaces], nested),
    ]
}

/// What one spawn says when this script has run before it; `"$0"` is this program.
fn spawned_after(unshare: &[&str], script: &str) -> Fallible<String> {
    let output = Command::new("unshare")
        .args(unshare)
        .args(["sh", "-c", script])
        .arg(std::env::current_exe()?)
        .env("BELLJAR_TEST_SPAWN_ONCE", "1")
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

fn no_user_namespaces_left() -> Fallible<()> {
    let text =
        spawned_after(&["--user", "--map-root-user"], "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$0\"")?;
    assert!(text.contains("LimitReached") && text.contains("user.max_user_namespaces"), "{text}");
    // control
    let text = spawned_after(&["--user", "--map-root-user"], "exec \"$0\"")?;
    assert!(text.contains("Ok("), "{text}");
    Ok(())
}

/// Debian's switch, as an ordinary user meets it.
fn user_namespaces_switched_off() -> Fallible<()> {
    let path = "/proc/sys/kernel/unprivileged_userns_clone";
    if !std::path::Path::new(path).exists() {
        return Err(format!("{path} does not exist on this kernel").into());
    }
    let as_user = "exec setpriv --reuid=1000 --regid=1000 --clear-groups \"$0\"";
    let run = |value: &str| -> Fallible<String> {
        std::fs::write(path, value)?;
        let text = spawned_after(&["--mount"], as_user);
        std::fs::write(path, "1")?;
        text
    };
    let text = run("0")?;
    assert!(text.contains("NotPermitted") && text.contains("kernel.unprivileged_userns_clone"), "{text}");
    assert!(run("1")?.contains("Ok("), "control");
    Ok(())
}

/// As in Docker: something is mounted over a part of /proc.
fn masked_proc() -> Fallible<()> {
    let text = spawned_after(&["--mount"], "mount -t tmpfs none /proc/sys/kernel && exec \"$0\"")?;
    assert!(text.contains("NotPermitted") && text.contains("systempaths=unconfined"), "{text}");
    let script = "mount -t tmpfs none /proc/sys/kernel && BELLJAR_TEST_PROC_OR_EMPTY=1 exec \"$0\"";
    let text = spawned_after(&["--mount"], script)?;
    assert!(text.contains("Ok("), "{text}");
    Ok(())
}

/// `vm.memfd_noexec` belongs to the pid namespace.
fn memfds_are_not_executed() -> Fallible<()> {
    let script = "echo 2 > /proc/sys/vm/memfd_noexec && exec \"$0\"";
    let text = spawned_after(&["--pid", "--fork", "--mount-proc"], script)?;
    assert!(text.contains("Ok("), "{text}");
    Ok(())
}

fn read_only_cgroupfs() -> Fallible<()> {
    let script = "for m in $(grep ' - cgroup' /proc/self/mountinfo | cut -d' ' -f5); do mount -o remount,bind,ro $m || exit 9; done; exec \"$0\"";
    let text = spawned_after(&["--mount", "--cgroup"], script)?;
    assert!(text.contains("Ok("), "{text}");
    Ok(())
}

/// The kernel refuses user namespaces to a process in a chroot (user_namespaces(7)).
fn inside_a_chroot() -> Fallible<()> {
    let script = "mount --rbind / /mnt && mount -t proc proc /mnt/proc && exec chroot /mnt \"$0\"";
    let text = spawned_after(&["--mount"], script)?;
    assert!(text.contains("NotPermitted") && text.contains("chroot"), "{text}");
    Ok(())
}

/// The kernel reaps each child at its end, and nobody has the status.
fn sigchld_is_ignored(setting: &str) -> Fallible<()> {
    let text = spawned_after(&[], &format!("exec env --ignore-signal=CHLD {setting} \"$0\""))?;
    assert!(text.contains("Ok(") && text.contains("Exited(0)"), "{text}");
    Ok(())
}

/// A sandbox in a sandbox: the outer one lets it, if it is told to.
fn nested() -> Fallible<()> {
    let program = std::env::current_exe()?;
    let keep = belljar::Capabilities::keep([
        belljar::Capability::SysAdmin,
        belljar::Capability::Setuid,
        belljar::Capability::Setgid,
        belljar::Capability::NetAdmin,
        belljar::Capability::Setfcap, // to map id 0, since Linux 5.12
    ]);
    // the outer /proc without masks, or the kernel gives the inner one none
    let mounts = [belljar::Mount::proc("/proc"), belljar::Mount::dev("/dev"), belljar::Mount::tmpfs("/tmp")];
    let outer = host()
        .mounts(mounts.into_iter().collect())
        .mount(belljar::Mount::bind(&program, "/tmp/program"))
        .security(belljar::Security::new().capabilities(keep))
        .build()?;
    let mut command = belljar::Command::new("/tmp/program");
    command.env("BELLJAR_TEST_SPAWN_ONCE", "1");
    let output = outer.output(&command)?;
    assert!(text(&output).contains("Ok("), "{}", text(&output));
    Ok(())
}
