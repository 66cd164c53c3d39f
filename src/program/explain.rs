//! Ops as text: what `explain` prints and errors quote.

use super::wire::codec::{Slot, Strings};
use super::wire::op::{self, Op, missing, upper};
use crate::id::show;
use crate::sys::kernel::abi::*;
use crate::sys::namespace::NamespaceFlags;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

impl Op<'_> {
    /// The op's name.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Op::Clone { .. } => "clone",
            Op::Enter {} => "enter",
            Op::MapIds { .. } => "map-ids",
            Op::Tree { .. } => "tree",
            Op::GroupEnable { .. } => "group-enable",
            Op::Group { .. } => "group",
            Op::GroupSet { .. } => "group-set",
            Op::GroupDevices { .. } => "group-devices",
            Op::GroupJoin { .. } => "group-join",
            Op::Affinity { .. } => "affinity",
            Op::JoinFirst { .. } => "join-first",
            Op::Join { .. } => "join",
            Op::Unshare { .. } => "unshare",
            Op::Clocks { .. } => "clocks",
            Op::Relaunch {} => "relaunch",
            Op::Signals {} => "signals",
            Op::UserLimit { .. } => "user-limit",
            Op::Bounding { .. } => "bounding",
            Op::Await {} => "await",
            Op::SetupIds { .. } => "setup-ids",
            Op::Hostname { .. } => "hostname",
            Op::Domainname { .. } => "domainname",
            Op::NewNetwork {} => "new-network",
            Op::EnterNetwork {} => "enter-network",
            Op::PrivateMounts {} => "private-mounts",
            Op::Scratch { .. } => "scratch",
            Op::OpenLayer { .. } => "open-layer",
            Op::StageTree { .. } => "stage-tree",
            Op::StageUpper { .. } => "stage-upper",
            Op::InitBegin { .. } => "init-begin",
            Op::InitEnd {} => "init-end",
            Op::Overlay { .. } => "overlay",
            Op::Track {} => "track",
            Op::RootTree { .. } => "root-tree",
            Op::RootTmpfs { .. } => "root-tmpfs",
            Op::File { .. } => "file",
            Op::Directory { .. } => "directory",
            Op::Symlink { .. } => "symlink",
            Op::Hide { .. } => "hide",
            Op::Opaque { .. } => "opaque",
            Op::Target { .. } => "target",
            Op::Grab { .. } => "grab",
            Op::Attach { .. } => "attach",
            Op::NewFs { .. } => "new-fs",
            Op::ProcOrEmpty { .. } => "proc-or-empty",
            Op::Link { .. } => "link",
            Op::Mask { .. } => "mask",
            Op::ReadOnly { .. } => "read-only",
            Op::SealRoot {} => "seal-root",
            Op::Pivot {} => "pivot",
            Op::Payload { .. } => "payload",
            Op::Limits { .. } => "limits",
            Op::CpuMeter { .. } => "cpu-meter",
            Op::CpuSeconds { .. } => "cpu-seconds",
            Op::Session {} => "session",
            Op::Stdio { .. } => "stdio",
            Op::Pty { .. } => "pty",
            Op::Terminal { .. } => "terminal",
            Op::Umask { .. } => "umask",
            Op::Credentials { .. } => "credentials",
            Op::NoNewPrivileges {} => "no-new-privileges",
            Op::Seccomp { .. } => "seccomp",
            Op::Listen { .. } => "listen",
            Op::ExecLabel { .. } => "exec-label",
            Op::Rlimits { .. } => "rlimits",
            Op::Keyring { .. } => "keyring",
            Op::Landlock { .. } => "landlock",
            Op::Schedule { .. } => "schedule",
            Op::IoPriority { .. } => "io-priority",
            Op::Cpus { .. } => "cpus",
            Op::OomScoreAdj { .. } => "oom-score-adj",
            Op::WorkingDirectory { .. } => "working-directory",
            Op::Exec { .. } => "exec",
        }
    }
}

impl Display for Op<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Op::Clone { flags, .. } => write!(f, "clone the shim into new namespaces: {}", Kinds(flags)),
            Op::Enter {} => f.write_str("ask the init of the sandbox for one more process"),
            Op::MapIds { uid, gid, deny_setgroups, helper } => {
                let text = |map: &[u8]| {
                    let lines: Vec<_> = map.split(|b| *b == b'\n').filter(|l| !l.is_empty()).collect();
                    let shown = lines.iter().take(4).map(|line| line.escape_ascii().to_string());
                    let more = if lines.len() > 4 { format!(", … ({} ranges)", lines.len()) } else { String::new() };
                    shown.collect::<Vec<_>>().join(", ") + &more
                };
                write!(
                    f,
                    "map ids{}: uid {}; gid {}",
                    on(helper, " by newuidmap and newgidmap"),
                    text(uid),
                    text(gid)
                )?;
                f.write_str(on(deny_setgroups, "; setgroups denied"))
            }
            Op::GroupEnable { group, controllers, leaf } => {
                write!(f, "let the group {} hand down {}", show(group), controllers.escape_ascii())?;
                f.write_str(on((!leaf.is_empty()).into(), ", the caller itself in a leaf of it"))
            }
            Op::Group { path, required } => {
                write!(f, "make the group {}{}", show(path), on((required == 0).into(), ", if possible"))
            }
            Op::GroupSet { file, value, presence } => {
                let file = show(file);
                let condition = match presence {
                    op::presence::IF_PRESENT => ", if it is there",
                    op::presence::INSTEAD => ", if the one before is not there",
                    _ => "",
                };
                write!(f, "write {:?} to {file}{condition}", value.escape_ascii().to_string())
            }
            Op::GroupDevices { path, program } => {
                write!(f, "restrict devices in {} ({} instructions)", show(path), program.len() / 8)
            }
            Op::Affinity { mask } | Op::Cpus { mask } => {
                let set = |cpu: &usize| mask[cpu / 8] >> (cpu % 8) & 1 == 1;
                let cpus: Vec<_> = (0..mask.len() * 8).filter(set).map(|cpu| cpu.to_string()).collect();
                write!(f, "run on CPU {}", cpus.join(", "))
            }
            Op::GroupJoin { path, v2 } => {
                write!(f, "be born in {}{}", show(path), on(v2, " (CLONE_INTO_CGROUP)"))
            }
            Op::Tree { path, recursive, idmap, maps, to, .. } => {
                let (recursive, idmap) =
                    (on(recursive, " with its submounts"), on(idmap, ", ids mapped into the sandbox"));
                let idmap = if maps.iter().next().is_some() { ", its owner as the sandbox's root" } else { idmap };
                write!(f, "clone the host's mount at {}{recursive}{idmap} into slot {to}", show(path))
            }
            Op::Join { kind, name, .. } | Op::JoinFirst { kind, name, .. } => {
                write!(f, "join the {} namespace {}", Kinds(kind), show(name))
            }
            Op::Unshare { kind } => write!(f, "unshare: {}", Kinds(kind)),
            Op::Clocks { offsets } => {
                let text = String::from_utf8_lossy(offsets).trim().replace('\n', ", ");
                write!(f, "new time namespace, offsets: {}", if text.is_empty() { "none" } else { &text })
            }
            Op::Relaunch {} => f.write_str("go on as PID 1 of the new pid namespace"),
            Op::Signals {} => f.write_str("default actions for all signals"),
            Op::UserLimit { file, value } => {
                write!(f, "limit each user of the new namespace: {} {value}", file.to_string_lossy())
            }
            Op::Bounding { capabilities: 0, .. } => f.write_str("empty the bounding set"),
            Op::Bounding { capabilities, .. } => write!(f, "shrink the bounding set to {capabilities:#x}"),
            Op::Await {} => f.write_str("wait for the id maps and the trees"),
            Op::SetupIds { uid, gid, drop_groups } => {
                write!(f, "set up as uid {uid}, gid {gid}{}; not dumpable", on(drop_groups, ", no other groups"))
            }
            Op::Hostname { name } => write!(f, "host name {}", show(name)),
            Op::Domainname { name } => write!(f, "domain name {}", show(name)),
            Op::NewNetwork {} => f.write_str("begin a network namespace with lo up, beside the next steps"),
            Op::EnterNetwork {} => f.write_str("enter the new network namespace"),
            Op::PrivateMounts {} => f.write_str("make all mounts private"),
            Op::Scratch { bytes, inodes } => {
                write!(f, "mount a private scratch tmpfs ({bytes} bytes, {inodes} inodes)")
            }
            Op::OpenLayer { path, to, .. } => write!(f, "open layer {} into slot {to}", show(path)),
            Op::StageTree { slot, name } => write!(f, "stage the tree in slot {slot} as scratch/{}", show(name)),
            Op::StageUpper { slot } => write!(f, "stage the upper directory in slot {slot}"),
            Op::InitBegin { count, .. } => write!(f, "begin the init layer over {count} layers"),
            Op::InitEnd {} => f.write_str("end the init layer"),
            Op::Overlay { first, count, upper, userxattr, set } => {
                let upper = match upper {
                    upper::NONE => "no upper",
                    upper::SCRATCH => "a discarded upper",
                    _ => "a persistent upper",
                };
                write!(
                    f,
                    "mount the overlay of {count} layers (slots from {first}, lowest first) as the root, with {upper}"
                )?;
                write!(f, "{}{}", on(userxattr, ", userxattr"), Attributes(set))
            }
            Op::Track {} => f.write_str("give the host a handle of the upper and the init layer"),
            Op::RootTree { slot, set, recursive } => {
                write!(f, "the tree in slot {slot} as the root{}{}", Attributes(set), on(recursive, ", recursively"))
            }
            Op::RootTmpfs { bytes, inodes, set } => {
                write!(f, "a tmpfs as the root ({bytes} bytes, {inodes} inodes){}", Attributes(set))
            }
            Op::File { path, mode, content } => {
                write!(f, "file {} (mode {mode:04o}, {} bytes) in the init layer", show(path), content.len())
            }
            Op::Directory { path, mode } => write!(f, "directory {} (mode {mode:04o}) in the init layer", show(path)),
            Op::Symlink { path, target } => {
                write!(f, "symbolic link {} to {} in the init layer", show(path), show(target))
            }
            Op::Hide { path } => write!(f, "hide {}", show(path)),
            Op::Opaque { path } => write!(f, "make {} opaque", show(path)),
            Op::Target { path, directory } => {
                write!(
                    f,
                    "{} {} in the init layer, as a mount target",
                    if directory != 0 { "directory" } else { "file" },
                    show(path)
                )
            }
            Op::Grab { path, recursive, to, .. } => {
                write!(f, "clone the mount at {}{} into slot {to}", show(path), on(recursive, " with its submounts"))
            }
            Op::Attach { slot, target, missing, set, clear, recursive, propagation, .. } => {
                write!(f, "mount the tree in slot {slot} on {}{}", show(target), Attributes(set))?;
                if clear != 0 {
                    write!(f, ", without{}", Attributes(clear))?;
                }
                write!(f, "{}", on(recursive, ", recursively"))?;
                match propagation as usize {
                    0 => {}
                    MS_SHARED => f.write_str(", shared")?,
                    MS_SLAVE => f.write_str(", slave")?,
                    MS_UNBINDABLE => f.write_str(", unbindable")?,
                    _ => f.write_str(", private")?,
                }
                f.write_str(if_missing(missing))
            }
            Op::NewFs { fstype, options, target, missing, set, .. } => {
                write!(f, "mount a new {} on {}{}", show(fstype), show(target), Attributes(set))?;
                write!(f, "{}{}", Options(options), if_missing(missing))
            }
            Op::ProcOrEmpty { options, target, missing, set } => {
                write!(f, "mount a new proc, or nothing if that is refused, on {}", show(target))?;
                write!(f, "{}{}{}", Attributes(set), Options(options), if_missing(missing))
            }
            Op::Link { path, target } => write!(f, "symbolic link {} to {}", show(path), show(target)),
            Op::Mask { path } => write!(f, "mask {}", show(path)),
            Op::ReadOnly { path } => write!(f, "make {} read-only", show(path)),
            Op::SealRoot {} => f.write_str("make the root read-only"),
            Op::Pivot {} => f.write_str("pivot into the new root, drop the old one"),
            Op::Payload { stay, .. } => f.write_str(match stay {
                0 => "go on as the payload itself",
                _ => "stay as PID 1; in a new process:",
            }),
            Op::Limits { wall, cpu, grace } => {
                let time = |micros| Duration::from_micros(micros);
                f.write_str("allow the sandbox")?;
                if wall != 0 {
                    write!(f, " {:?} of wall-clock time", time(wall))?;
                }
                if cpu != 0 {
                    write!(f, "{} {:?} of CPU time", if wall != 0 { " and" } else { "" }, time(cpu))?;
                }
                write!(f, ", {:?} of grace", time(grace))
            }
            Op::CpuMeter { path } => write!(f, "take the CPU time of all processes from {}", show(path)),
            Op::CpuSeconds { soft, hard } => write!(f, "RLIMIT_CPU {soft} s, at most {hard} s, for each process"),
            Op::Session {} => f.write_str("new session"),
            Op::Stdio { stdin, stdout, stderr, others, .. } => {
                write!(f, "standard streams from slots {stdin}, {stdout}, {stderr}")?;
                let word = |bytes: &[u8]| u16::from_le_bytes([bytes[0], bytes[1]]);
                for pair in others.chunks_exact(4) {
                    write!(f, ", {} from slot {}", word(pair), word(&pair[2..]))?;
                }
                f.write_str("; close all else")
            }
            Op::Pty { rows, columns, uid, gid, to } => {
                write!(f, "open a pty of the sandbox's devpts into slot {to} ({columns} columns, {rows} rows, ")?;
                write!(f, "uid {uid}, gid {gid}); its master goes to the host")
            }
            Op::Terminal { stream } => write!(f, "controlling terminal from standard stream {stream}"),
            Op::Umask { mask } => write!(f, "umask {mask:03o}"),
            Op::Credentials { uid, gid, groups, set_groups, capabilities, .. } => {
                let groups = groups.chunks_exact(4).map(|g| u32::from_le_bytes([g[0], g[1], g[2], g[3]]).to_string());
                let groups = groups.collect::<Vec<_>>().join(" ");
                write!(f, "uid {uid}, gid {gid}")?;
                if set_groups != 0 {
                    write!(f, ", groups [{groups}]")?;
                }
                match capabilities {
                    0 => f.write_str(", no capabilities"),
                    kept => write!(f, ", capabilities {kept:#x}"),
                }
            }
            Op::NoNewPrivileges {} => f.write_str("no new privileges"),
            Op::Seccomp { .. } => f.write_str("filter system calls"),
            Op::ExecLabel { value, .. } => write!(f, "label of the program: {}", value.escape_ascii()),
            Op::Listen { .. } => f.write_str("leave system calls to the host; the listener goes there"),
            Op::Rlimits { limits } => {
                let word = |at: &[u8]| at.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
                let shown =
                    limits.chunks_exact(12).map(|l| format!("{} to {}", resource(word(&l[..4])), word(&l[4..])));
                write!(f, "lower resource limits: {}", shown.collect::<Vec<_>>().join(", "))
            }
            Op::Keyring { required } => {
                write!(f, "new session keyring{}", if required == 0 { ", or none that can be reached" } else { "" })
            }
            Op::Landlock { files, ports, scopes, rules } => {
                write!(f, "enter a Landlock domain: files {files:#x}, ports {ports:#x}, scopes {scopes:#x}")?;
                landlock_rules(rules, f)
            }
            Op::Schedule { policy, nice, priority, runtime, deadline, period } => {
                let time = |nanos| Duration::from_nanos(nanos);
                match policy {
                    op::schedule::KEEP => f.write_str("schedule as before")?,
                    SCHED_BATCH => f.write_str("schedule as batch")?,
                    SCHED_IDLE => f.write_str("schedule as idle")?,
                    SCHED_FIFO => write!(f, "schedule as fifo, priority {priority}")?,
                    SCHED_RR => write!(f, "schedule as rr, priority {priority}")?,
                    SCHED_DEADLINE => {
                        let times = (time(runtime), time(deadline), time(period));
                        write!(f, "schedule as deadline, {:?} until {:?} of {:?}", times.0, times.1, times.2)?;
                    }
                    _ => f.write_str("schedule as other")?,
                }
                if nice == op::schedule::KEEP_NICE { Ok(()) } else { write!(f, ", nice {nice}") }
            }
            Op::IoPriority { priority } => {
                let class =
                    ["ordinary", "real-time", "best effort", "idle"].get(priority as usize >> 13).unwrap_or(&"?");
                write!(f, "I/O priority {class}, level {}", priority & 0x1fff)
            }
            Op::OomScoreAdj { value } => write!(f, "oom_score_adj {value}"),
            Op::WorkingDirectory { path } => write!(f, "working directory {}", show(path)),
            Op::Exec { candidates, argv, envp } => {
                write!(f, "execute {}", Listed(candidates, " or "))?;
                write!(f, ", arguments [{}], environment [{}]", Listed(argv, " "), Listed(envp, " "))
            }
        }
    }
}

fn landlock_rules(mut rules: &[u8], f: &mut Formatter<'_>) -> fmt::Result {
    let word = |at: &[u8]| at.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
    while let Some((head, rest)) = rules.split_at_checked(16) {
        let (access, kind, length) = (word(&head[..8]), word(&head[8..12]), word(&head[12..]) as usize);
        let Some((bytes, rest)) = rest.split_at_checked(length) else { break };
        match kind {
            1 => write!(f, "; {access:#x} on {}", String::from_utf8_lossy(bytes).trim_end_matches('\0'))?,
            _ => write!(f, "; {access:#x} for port {}", word(bytes))?,
        }
        rules = rest;
    }
    Ok(())
}

/// The name of a resource limit (<asm-generic/resource.h>).
fn resource(number: u64) -> &'static str {
    let names = [
        "cpu",
        "fsize",
        "data",
        "stack",
        "core",
        "rss",
        "nproc",
        "nofile",
        "memlock",
        "as",
        "locks",
        "sigpending",
        "msgqueue",
        "nice",
        "rtprio",
        "rttime",
    ];
    usize::try_from(number).ok().and_then(|n| names.get(n)).unwrap_or(&"?")
}

fn on(flag: u32, text: &'static str) -> &'static str {
    if flag != 0 { text } else { "" }
}

fn if_missing(policy: u32) -> &'static str {
    match policy {
        missing::SKIP => ", if it is there",
        missing::CREATE => ", made if missing",
        _ => "",
    }
}

impl Display for Slot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

struct Options<'a>(Strings<'a>);
impl Display for Options<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let flat: Vec<_> = self.0.iter().map(show).collect();
        for pair in flat.chunks_exact(2) {
            write!(f, ", {}", pair[0])?;
            if !pair[1].is_empty() {
                write!(f, "={}", pair[1])?;
            }
        }
        Ok(())
    }
}

struct Listed<'a>(Strings<'a>, &'static str);
impl Display for Listed<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, string) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { self.1 }, show(string))?;
        }
        Ok(())
    }
}

struct Kinds(u64);
impl Display for Kinds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let names = NamespaceFlags::from_bits_truncate(self.0).iter_names().map(|(name, _)| name.to_ascii_lowercase());
        let names = names.collect::<Vec<_>>().join(", ");
        f.write_str(if names.is_empty() { "none" } else { &names })
    }
}

struct Attributes(u64);
impl Display for Attributes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let names = [
            (MOUNT_ATTR_RDONLY, "ro"),
            (MOUNT_ATTR_NOSUID, "nosuid"),
            (MOUNT_ATTR_NODEV, "nodev"),
            (MOUNT_ATTR_NOEXEC, "noexec"),
            (MOUNT_ATTR_NOATIME, "noatime"),
        ];
        names.iter().filter(|(bit, _)| self.0 & bit != 0).try_for_each(|(_, name)| write!(f, ", {name}"))
    }
}
