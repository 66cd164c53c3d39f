//! What is around the caller: filters, security modules, limits, a container.
//!
//! Nothing here keeps a sandbox from starting by itself; it tells where to look when
//! something is refused. Contract: seccomp(2), apparmor(7), getrlimit(2), ptrace(2)
//! "Yama", kernel_lockdown(7).

use super::policy::sysctl;
use super::{Bench, Finding, Outcome, Topic};
use procfs::FromRead;
use procfs::process::{LimitValue, Limits};
use std::fs;

pub(super) fn examine(bench: &mut Bench) {
    bench.push(seccomp(bench));
    bench.push(security_module(bench));
    bench.push(container(bench));
    bench.push(limits());
    bench.push(yama());
    bench.push(lockdown());
}

fn finding(name: &'static str, outcome: Outcome, detail: impl Into<String>) -> Finding {
    Finding::new(Topic::Surroundings, name, outcome, detail)
}

fn seccomp(bench: &Bench) -> Finding {
    const NAME: &str = "caller's seccomp";
    let policy = &bench.policy;
    if policy.seccomp == 0 {
        return finding(NAME, Outcome::Works, "no filter");
    }
    let count = policy.seccomp_filters.map_or_else(String::new, |count| format!(", number of filters {count}"));
    let detail = format!("mode {}{count}: sandboxes inherit it", policy.seccomp);
    let remedy = policy.filtered("it").unwrap_or_else(|| "a caller outside of it".into());
    finding(NAME, Outcome::Restricted, detail).with_remedy(format!("if something above is refused, {remedy}"))
}

fn security_module(bench: &Bench) -> Finding {
    const NAME: &str = "security modules";
    let policy = &bench.policy;
    let modules = fs::read_to_string("/sys/kernel/security/lsm").ok();
    let modules = modules.map_or_else(|| "unknown modules (no securityfs)".to_owned(), |list| list.trim().to_owned());
    if policy.strips_user_namespaces() {
        let detail = format!("{modules}; AppArmor takes the capabilities in user namespaces of unconfined programs");
        return finding(NAME, Outcome::Restricted, detail).with_remedy(policy.security());
    }
    match policy.profile() {
        Some(profile) => {
            let detail = format!("{modules}; the caller's AppArmor profile is {profile}");
            finding(NAME, Outcome::Restricted, detail).with_remedy(policy.security())
        }
        _ if policy.selinux => finding(NAME, Outcome::Restricted, format!("{modules}; SELinux enforces"))
            .with_remedy("if something above is refused, `ausearch -m avc` shows what was denied"),
        _ => finding(NAME, Outcome::Works, format!("{modules}; none is known to confine the caller")),
    }
}

fn container(bench: &Bench) -> Finding {
    match &bench.policy.container {
        None => finding("container", Outcome::Works, "none to be seen"),
        Some(name) => finding("container", Outcome::Restricted, name.as_str()).with_remedy(
            "if something above is refused, in Docker: --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
             --security-opt systempaths=unconfined",
        ),
    }
}

/// What a few sandboxes take: descriptors (a pidfd, a socket, three pipes each), processes.
const FEW: u64 = 128;

fn limits() -> Finding {
    const NAME: &str = "limits";
    let limits = match Limits::from_file("/proc/self/limits") {
        Ok(limits) => limits,
        Err(error) => {
            return finding(NAME, Outcome::Untried, format!("/proc/self/limits cannot be read: {error}"));
        }
    };
    let (files, processes) = (limits.max_open_files, limits.max_processes);
    let show = |value: LimitValue| match value {
        LimitValue::Unlimited => "unlimited".to_owned(),
        LimitValue::Value(value) => value.to_string(),
    };
    let small = |value: LimitValue| matches!(value, LimitValue::Value(value) if value < FEW);
    let detail = format!(
        "RLIMIT_NOFILE {} of {}, RLIMIT_NPROC {} of {}",
        show(files.soft_limit),
        show(files.hard_limit),
        show(processes.soft_limit),
        show(processes.hard_limit)
    );
    if small(files.soft_limit) || small(processes.soft_limit) {
        return finding(NAME, Outcome::Restricted, detail)
            .with_remedy("ulimit -n 1024, ulimit -u 4096; LimitNOFILE=, LimitNPROC= of systemd");
    }
    finding(NAME, Outcome::Works, detail)
}

/// Yama decides about tracing inside a sandbox too; the library itself traces nothing.
fn yama() -> Finding {
    const NAME: &str = "ptrace";
    let scope = sysctl("kernel/yama/ptrace_scope");
    let detail = match scope {
        None => "no Yama: a payload may trace its own processes".to_owned(),
        Some(scope) => format!("kernel.yama.ptrace_scope is {scope}"),
    };
    match scope {
        None | Some(0 | 1) => finding(NAME, Outcome::Works, detail),
        Some(_) => finding(NAME, Outcome::Restricted, detail)
            .with_remedy("sysctl -w kernel.yama.ptrace_scope=1, for debuggers in sandboxes; nothing else wants it"),
    }
}

fn lockdown() -> Finding {
    const NAME: &str = "lockdown";
    let Some(text) = fs::read_to_string("/sys/kernel/security/lockdown").ok() else {
        return finding(NAME, Outcome::Works, "not in this kernel, or no securityfs");
    };
    match chosen(&text) {
        Some("none") => finding(NAME, Outcome::Works, "none"),
        mode => finding(NAME, Outcome::Restricted, mode.unwrap_or("unknown").to_owned())
            .with_remedy("nothing: sandboxes do without what it forbids"),
    }
}

/// The word in brackets of `[none] integrity confidentiality`.
fn chosen(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_in_brackets() {
        assert_eq!(chosen("[none] integrity confidentiality\n"), Some("none"));
        assert_eq!(chosen("none integrity [confidentiality]"), Some("confidentiality"));
        assert_eq!(chosen("none [integrity"), None);
        assert_eq!(chosen(""), None);
    }
}
