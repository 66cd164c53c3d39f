//! The same attempts under other runtimes, with what each does when it is told nothing: who stops what.
//!
//! `BELLJAR_TEST_TABLE=FILE` writes the table to FILE; it is `docs/attacks.md` of the repository.

use super::*;
use crate::harness::Need;
use std::fmt::Write;

pub fn tests() -> Vec<Test> {
    const NEEDS: &[Need] = &[Need::Root, Need::UserNamespaces, Need::Program("bwrap"), Need::Program("crun")];
    vec![Test::new("attacks::differential_table", NEEDS, table)]
}

/// The attempts, of which the last ones change what later ones could see.
const ATTEMPTS: &[&str] = &[
    "mknod=/tmp/null",
    "by-handle",
    "open-write=/proc/sys/kernel/core_pattern",
    "open-write=/proc/sysrq-trigger",
    "read=/proc/interrupts",
    "open-write=/proc/1/exe",
    "open-read=/proc/1/environ",
    "tty-input",
    "tty-input-high",
    "tty-discipline",
    "io-uring",
    "aio",
    "socket-filter=26",
    "lease",
    "bpf",
    "perf",
    "userfaultfd",
    "keyctl-session",
    "ptrace-child",
    "personality=262144",
    "socket=16,3,9",
    "socket=17,3,0",
    "socket=38,5,0",
    "socket=40,1,0",
    "sethostname=owned",
    "connect-ipv4=1",
    "mount=/tmp",
    "fsopen",
    "clone-user",
    "unshare-mount",
    "unshare-user",
];

/// What runs the payload, and what it says.
struct Column {
    name: &'static str,
    seen: Result<Seen, String>,
}

fn table() -> Fallible<()> {
    let (dir, path) = payload_file()?;
    let run = |mut command: std::process::Command| -> Result<Seen, String> {
        let output = command.stdin(std::process::Stdio::null()).output().map_err(|e| e.to_string())?;
        parse(&String::from_utf8_lossy(&output.stdout))
            .map_err(|_| String::from_utf8_lossy(&output.stderr).trim().to_owned())
    };
    let mut bwrap = std::process::Command::new("bwrap");
    bwrap.args(["--unshare-all", "--die-with-parent", "--ro-bind"]).arg(&path).arg("/attack");
    bwrap.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "/attack"]).args(ATTEMPTS);
    let columns = [
        Column { name: "bubblewrap", seen: run(bwrap) },
        Column { name: "crun", seen: crun(dir.path()).map_err(|e| e.to_string()).and_then(run) },
        Column { name: "belljar", seen: inside(ATTEMPTS).map_err(|e| e.to_string()) },
    ];
    let mut text = String::from("| attempt |");
    columns.iter().try_for_each(|column| write!(text, " {} |", column.name))?;
    text.push_str("\n| --- | --- | --- | --- |\n");
    for attempt in ATTEMPTS {
        write!(text, "| `{attempt}` |")?;
        for column in &columns {
            let saw = match &column.seen {
                Ok(seen) => seen.get(*attempt).cloned().unwrap_or_else(|| "-".into()),
                Err(_) => "did not run".into(),
            };
            write!(text, " {} |", if saw.starts_with("ok") { format!("**{saw}**") } else { saw })?;
        }
        text.push('\n');
    }
    println!("{text}");
    for column in &columns {
        if let Err(why) = &column.seen {
            println!("{}: {why}", column.name);
        }
    }
    if let Some(to) = std::env::var_os("BELLJAR_TEST_TABLE") {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let version = release.split('.').take(2).collect::<Vec<_>>().join(".");
        std::fs::write(to, format!("{HEAD}\n{text}\nAs root on Linux {version}.\n"))?;
    }
    // ours: nothing of it succeeds; masked files are empty, and a network of one's own refuses
    let ours = columns[2].seen.as_ref().map_err(String::clone)?;
    let through: Vec<_> = ours.iter().filter(|(_, saw)| saw.starts_with("ok") && *saw != "ok 0").collect();
    assert!(through.is_empty(), "{through:?}");
    // control: other runtimes let some of it pass. Never outside of one: that would be done to this machine
    let others = columns[..2].iter().filter_map(|column| column.seen.as_ref().ok()).flat_map(|seen| seen.values());
    assert!(others.filter(|saw| saw.starts_with("ok")).count() > 8, "nothing passed anywhere");
    Ok(())
}

const HEAD: &str = "# Who stops what

The attempts of `tests/attacks/payload`, made by root's payload under three runtimes that were told nothing but what to run:
`bwrap --unshare-all` with /proc, /dev and a tmpfs; `crun run` with what `crun spec` writes (engines above crun add a seccomp
profile); a default `Sandbox`. Bold is what succeeded. Some of it is harmless by itself: it is what an attack goes on with.
Written by the test `attacks::differential_table`.
";

/// `crun run` with its own spec, out of sight of a hybrid layout of control groups, which it refuses.
fn crun(dir: &std::path::Path) -> Fallible<std::process::Command> {
    let root = dir.join("rootfs");
    for name in ["proc", "dev", "sys", "tmp"] {
        std::fs::create_dir_all(root.join(name))?;
    }
    write_payload(&root.join("attack"))?;
    let made = std::process::Command::new("crun").arg("spec").current_dir(dir).output()?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into_owned().into());
    }
    let spec = std::fs::read_to_string(dir.join("config.json"))?;
    let args = ["/attack"].iter().chain(ATTEMPTS).map(|word| format!("{word:?}")).collect::<Vec<_>>().join(",");
    let spec =
        spec.replace("\"terminal\": true", "\"terminal\": false").replace("\"readonly\": true", "\"readonly\": false");
    std::fs::write(dir.join("config.json"), spec.replacen("\"sh\"", &args, 1))?;
    let mut command = std::process::Command::new("unshare");
    let script = "umount -l /sys/fs/cgroup/unified 2>/dev/null; exec crun --cgroup-manager=disabled --root \"$0/state\" run --bundle \"$0\" belljar-test-$$";
    command.args(["--mount", "sh", "-c", script]).arg(dir);
    Ok(command)
}
