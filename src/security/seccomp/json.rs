//! Profiles in JSON: the form of moby's `profiles/seccomp` and of the OCI runtime specification
//! (`linux.seccomp` in config-linux.md).

use super::profile::{Argument, Condition, Rule, SeccompAction, SeccompProfile};
use crate::error::Defect;
use crate::security::Capabilities;
use crate::sys::Errno;
use serde_json::Value;

/// Arguments that the kernel takes as 32 bits: a comparison of 64, as the form has it, could be evaded.
const INTS: &[(&str, &[u64])] = &[
    ("fcntl", &[0, 1]),
    ("getsockopt", &[0, 1, 2]),
    ("ioctl", &[0, 1]),
    ("personality", &[0]),
    ("prctl", &[0]),
    ("setsockopt", &[0, 1, 2]),
    ("socket", &[0, 1, 2]),
    ("socketpair", &[0, 1, 2]),
];

/// Reads a profile. `architectures` and `archMap` are not looked at: that is what [`Abi`](super::Abi) says.
/// Nor are `listenerPath` and `listenerMetadata`: what is notified comes to the handle of the sandbox.
/// A rule without conditions stands behind those of the same call that have some.
pub(super) fn profile(text: &str, kept: Capabilities, defects: &mut Vec<Defect>) -> Option<SeccompProfile> {
    match read(text, kept) {
        Ok(profile) => Some(profile),
        Err(what) => {
            defects.push(Defect::new(
                format!("the JSON seccomp profile: {what}"),
                "the form of moby's default.json, or of linux.seccomp in the OCI runtime specification",
            ));
            None
        }
    }
}

fn read(text: &str, kept: Capabilities) -> Result<SeccompProfile, String> {
    let json: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let otherwise = action(&json["defaultAction"], &json["defaultErrnoRet"])?;
    let mut profile = SeccompProfile::otherwise(otherwise);
    for entry in list(&json["syscalls"], "syscalls")? {
        if !applies(entry, kept)? {
            continue;
        }
        let action = action(&entry["action"], &entry["errnoRet"])?;
        let mut names: Vec<_> = list(&entry["names"], "names")?.iter().collect();
        names.extend(Some(&entry["name"]).filter(|name| !name.is_null()));
        for name in names {
            let name = name.as_str().ok_or_else(|| format!("{name} is no name"))?;
            let conditions = list(&entry["args"], "args")?.iter().map(|arg| condition(name, arg));
            let rule = Rule { conditions: conditions.collect::<Result<_, _>>()?, action };
            let rules = profile.rules.entry(name.to_owned()).or_default();
            let at = match rule.conditions.is_empty() {
                true => rules.len(),
                false => rules.iter().position(|r| r.conditions.is_empty()).unwrap_or(rules.len()),
            };
            rules.insert(at, rule);
        }
    }
    Ok(profile)
}

fn list<'a>(value: &'a Value, what: &str) -> Result<&'a [Value], String> {
    match value {
        Value::Null => Ok(&[]),
        Value::Array(all) => Ok(all),
        other => Err(format!("{what} is no list: {other}")),
    }
}

fn action(name: &Value, errno: &Value) -> Result<SeccompAction, String> {
    let errno = match errno {
        Value::Null => Errno::EPERM,
        value => Errno(value.as_i64().and_then(|n| i32::try_from(n).ok()).ok_or_else(|| format!("errno {value}"))?),
    };
    Ok(match name.as_str() {
        Some("SCMP_ACT_ALLOW") => SeccompAction::Allow,
        Some("SCMP_ACT_ERRNO") => SeccompAction::Errno(errno),
        Some("SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" | "SCMP_ACT_KILL_PROCESS") => SeccompAction::Kill,
        Some("SCMP_ACT_TRAP") => SeccompAction::Trap,
        Some("SCMP_ACT_LOG") => SeccompAction::Log,
        Some("SCMP_ACT_NOTIFY") => SeccompAction::Notify,
        _ => return Err(format!("the action {name} is not one that belljar has")),
    })
}

fn condition(name: &str, arg: &Value) -> Result<Condition, String> {
    let number = |key: &str| match &arg[key] {
        Value::Null => Ok(0),
        // -1 is written in either way
        value => value.as_u64().or(value.as_i64().map(|n| n as u64)).ok_or_else(|| format!("{key}: {value}")),
    };
    let (index, value, second) = (number("index")?, number("value")?, number("valueTwo")?);
    let int = INTS.iter().any(|(call, indexes)| *call == name && indexes.contains(&index));
    let (argument, cut) = match (u8::try_from(index), int) {
        (Ok(index), true) => (Argument::int(index), u64::from(u32::MAX)),
        (Ok(index), false) => (Argument::long(index), u64::MAX),
        (Err(_), _) => return Err(format!("argument {index} of {name}")),
    };
    Ok(match arg["op"].as_str() {
        Some("SCMP_CMP_EQ") => argument.is(value & cut),
        Some("SCMP_CMP_NE") => argument.is_not(value & cut),
        Some("SCMP_CMP_LT") => argument.below(value & cut),
        Some("SCMP_CMP_LE") => argument.at_most(value & cut),
        Some("SCMP_CMP_GT") => argument.above(value & cut),
        Some("SCMP_CMP_GE") => argument.at_least(value & cut),
        // here the mask is the first value
        Some("SCMP_CMP_MASKED_EQ") => argument.masked(value & cut, second & cut),
        _ => return Err(format!("the comparison {}", arg["op"])),
    })
}

/// moby's `includes` and `excludes`: conditions on the container and the host.
fn applies(entry: &Value, kept: Capabilities) -> Result<bool, String> {
    let arch = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let has = |value: &Value| -> Result<bool, String> {
        let name = value.as_str().ok_or_else(|| format!("{value} is no capability"))?;
        let capability = name.parse().map_err(|_| format!("no capability is named {name:?}"))?;
        Ok(kept.contains(capability))
    };
    let (includes, excludes) = (&entry["includes"], &entry["excludes"]);
    for capability in list(&includes["caps"], "caps")? {
        if !has(capability)? {
            return Ok(false);
        }
    }
    for capability in list(&excludes["caps"], "caps")? {
        if has(capability)? {
            return Ok(false);
        }
    }
    let arches = |of: &Value| -> Result<Option<bool>, String> {
        let all = list(&of["arches"], "arches")?;
        Ok((!all.is_empty()).then(|| all.iter().any(|one| one == arch)))
    };
    if arches(includes)? == Some(false) || arches(excludes)? == Some(true) {
        return Ok(false);
    }
    // minKernel: what moby asks for (4.8) is older than what belljar runs on
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::Capability;

    #[test]
    fn a_profile_in_the_form_of_moby() {
        let text = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "archMap": [], "syscalls": [
            {"names": ["read", "execve", "chown32"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 2114060288, "op": "SCMP_CMP_MASKED_EQ"}], "excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390"]}},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["bpf", "clone"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["riscv_flush_icache"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["riscv64"]}}]}"#;
        let plain = read(text, Capabilities::none()).unwrap();
        assert_eq!(plain.rules["clone"][0].conditions, [Argument::long(0).masked(2114060288, 0)]);
        assert_eq!(plain.rules["socket"][0].conditions, [Argument::int(0).is_not(40)]);
        assert_eq!(plain.rules["clone3"][0].action, SeccompAction::Errno(Errno(38)));
        assert!(!plain.rules.contains_key("bpf") && !plain.rules.contains_key("riscv_flush_icache"));
        let admin = read(text, Capabilities::keep([Capability::SysAdmin])).unwrap();
        assert!(admin.rules["clone"][0].conditions.is_empty() && admin.rules.contains_key("bpf"));
        for bad in [
            "",
            "{}",
            r#"{"defaultAction": "SCMP_ACT_TRACE"}"#,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": 3}"#,
        ] {
            assert!(read(bad, Capabilities::none()).is_err(), "{bad}");
        }
        let slip = text.replace("\"read\"", "\"raed\"");
        let mut defects = Vec::new();
        crate::security::Seccomp::Json(slip).compile(
            Capabilities::none(),
            super::super::Abi::Native,
            false,
            &mut defects,
        );
        assert!(defects.iter().any(|d| d.to_string().contains("raed")), "{defects:?}");
    }
}
