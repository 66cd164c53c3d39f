//! The compiler against an interpreter of its output, for every call and machine.

use super::calls::{self, Column};
use super::compile::*;
use super::profile::*;
use super::*;
use crate::sys::Errno;

const KILL: u32 = 0x8000_0000;
const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

/// Runs a filter as the kernel does; gives the verdict and the number of instructions.
fn run(program: &[Instruction], arch: u32, nr: u32, args: [u64; 6]) -> (u32, usize) {
    let (mut at, mut a, mut steps) = (0usize, 0u32, 0);
    loop {
        let i = program[at];
        at += 1;
        steps += 1;
        let jump = |yes: bool| if yes { i.jt as usize } else { i.jf as usize };
        match i.code {
            LD_W_ABS => {
                a = match i.k {
                    0 => nr,
                    4 => arch,
                    k => (args[((k - 16) / 8) as usize] >> (8 * (k % 8))) as u32,
                }
            }
            ALU_AND_K => a &= i.k,
            JMP_JA => at += i.k as usize,
            JMP_JEQ_K => at += jump(a == i.k),
            JMP_JGT_K => at += jump(a > i.k),
            JMP_JGE_K => at += jump(a >= i.k),
            RET_K => return (i.k, steps),
            other => unreachable!("no instruction {other:#x}"),
        }
    }
}

fn call(profile: &SeccompProfile, name: &str, args: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    let mut verdicts = Vec::new();
    for column in [Column::X86_64, Column::Aarch64] {
        if let Some(nr) = calls::number(name, column) {
            verdicts.push(run(&program(profile, Abi::Native, column), column.audit_arch(), nr, all).0);
        }
    }
    assert!(!verdicts.is_empty() && verdicts.iter().all(|v| *v == verdicts[0]), "{name}: {verdicts:x?}");
    verdicts[0]
}

#[test]
fn each_number_gets_its_own_action() {
    let profile = SeccompProfile::standard();
    for (abi, column) in [
        (Abi::Native, Column::X86_64),
        (Abi::Native, Column::Aarch64),
        (Abi::Legacy, Column::X86_64),
        (Abi::Legacy, Column::Aarch64),
    ] {
        let program = program(&profile, abi, column);
        let foreign = column.compat();
        for asked in [column, foreign] {
            let known = calls::numbers(asked);
            for nr in (0..600).chain([X32_READ, X32_READ + 500, u32::MAX - 1, u32::MAX]) {
                let (verdict, steps) = run(&program, asked.audit_arch(), nr, [0; 6]);
                assert!(steps <= 24, "{steps} instructions for {nr}");
                if asked == foreign && abi == Abi::Native {
                    assert_eq!(verdict, KILL);
                } else if asked == Column::X86_64 && nr >= X32_READ && nr != u32::MAX {
                    assert_eq!(verdict, KILL, "{nr:#x}");
                } else if !known.contains(&nr) {
                    assert_eq!(verdict, ENOSYS, "{nr}");
                }
            }
            for name in ["read", "write", "openat", "execve", "exit_group", "fstatfs", "mremap", "rt_sigreturn"] {
                let nr = calls::number(name, asked).unwrap();
                let wanted = if asked == foreign && abi == Abi::Native { KILL } else { ALLOW };
                assert_eq!(run(&program, asked.audit_arch(), nr, [0; 6]).0, wanted, "{name}");
            }
        }
        assert_eq!(run(&program, 0x1234, 0, [0; 6]).0, KILL, "an ABI nobody knows");
        assert!(program.len() < 900, "{} instructions", program.len());
    }
}
const X32_READ: u32 = 0x4000_0000;

#[test]
fn the_standard_profile_says_what_its_table_says() {
    let profile = SeccompProfile::standard();
    let mut defects = Vec::new();
    profile.check(&mut defects);
    super::standard::container(Capabilities::none()).check(&mut defects);
    assert!(defects.is_empty(), "{defects:?}");
    let no_family = 0x0005_0061;
    for (name, args, verdict) in [
        ("ioctl", &[0, 0x5401][..], ALLOW),
        ("ioctl", &[0, 0x5412], EPERM),
        ("ioctl", &[0, 0xdead_beef_0000_5412], EPERM),
        ("ioctl", &[0, 0x1_0000_541c], EPERM),
        ("ioctl", &[0, 0x5423], EPERM),
        ("socket", &[1, 1, 0], ALLOW),
        ("socket", &[2, 1, 0], ALLOW),
        ("socket", &[10, 2, 17], ALLOW),
        ("socket", &[16, 3, 0], ALLOW),
        ("socket", &[16, 3, 9], no_family),
        ("socket", &[40, 1, 0], no_family),
        ("socket", &[0x1_0000_0028, 1, 0], no_family),
        ("socket", &[38, 5, 0], no_family),
        ("socket", &[17, 3, 0], no_family),
        ("socketpair", &[1, 1, 0], ALLOW),
        ("socketpair", &[30, 1, 0], no_family),
        ("clone", &[0x11], ALLOW),
        ("clone", &[0x1000_0011], EPERM),
        ("clone", &[0x0200_0000], EPERM),
        ("clone", &[0x3d0f00], ALLOW),
        ("clone3", &[], ENOSYS),
        ("unshare", &[0x400], ALLOW),
        ("unshare", &[0x80], EPERM),
        ("unshare", &[0x1000_0000], EPERM),
        ("setns", &[], EPERM),
        ("mount", &[], EPERM),
        ("fsopen", &[], EPERM),
        ("keyctl", &[], EPERM),
        ("add_key", &[], EPERM),
        ("bpf", &[], EPERM),
        ("perf_event_open", &[], EPERM),
        ("userfaultfd", &[], EPERM),
        ("io_uring_setup", &[], EPERM),
        ("ptrace", &[], EPERM),
        ("process_vm_readv", &[], EPERM),
        ("pidfd_getfd", &[], EPERM),
        ("open_by_handle_at", &[], EPERM),
        ("personality", &[0xffff_ffff], ALLOW),
        ("personality", &[u64::MAX], ALLOW),
        ("personality", &[0x0004_0000], EPERM),
        ("reboot", &[], EPERM),
        ("kexec_load", &[], EPERM),
    ] {
        assert_eq!(call(&profile, name, args), verdict, "{name} {args:x?}");
    }
    let kept = super::standard::plugin(Capabilities::keep([crate::security::Capability::SysAdmin]));
    assert_eq!(call(&kept, "mount", &[]), ALLOW);
    assert_eq!(call(&kept, "clone", &[0x1000_0011]), ALLOW);
    let container = super::standard::container(Capabilities::none());
    assert_eq!((call(&container, "ptrace", &[]), call(&container, "socket", &[17])), (ALLOW, ALLOW));
    assert_eq!(call(&container, "socket", &[40]), no_family);
}

#[test]
fn comparisons_of_all_widths() {
    let action = SeccompAction::Errno(Errno(7));
    let values = [0u64, 1, 5, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0005, 0x5_0000_0001, u64::MAX];
    type Maker = fn(Argument, u64) -> Condition;
    type Holds = fn(u64, u64) -> bool;
    let tests: [(Maker, Holds); 6] = [
        (|a, v| a.is(v), |x, v| x == v),
        (|a, v| a.is_not(v), |x, v| x != v),
        (|a, v| a.below(v), |x, v| x < v),
        (|a, v| a.at_most(v), |x, v| x <= v),
        (|a, v| a.above(v), |x, v| x > v),
        (|a, v| a.at_least(v), |x, v| x >= v),
    ];
    for (index, (make, holds)) in tests.into_iter().enumerate() {
        for value in values {
            for x in values {
                let long = SeccompProfile::otherwise(SeccompAction::Allow).rule(
                    "read",
                    [make(Argument::long(2), value)],
                    action,
                );
                let wanted = if holds(x, value) { 0x0005_0007 } else { ALLOW };
                assert_eq!(call(&long, "read", &[9, 9, x]), wanted, "test {index}: {x:#x} with {value:#x}");
                let short = value & 0xffff_ffff;
                let int = SeccompProfile::otherwise(SeccompAction::Allow).rule(
                    "read",
                    [make(Argument::int(5), short)],
                    action,
                );
                let wanted = if holds(x & 0xffff_ffff, short) { 0x0005_0007 } else { ALLOW };
                assert_eq!(
                    call(&int, "read", &[9, 9, 9, 9, 9, x]),
                    wanted,
                    "test {index}: {x:#x} with {short:#x}, int"
                );
            }
        }
    }
    let both = SeccompProfile::otherwise(SeccompAction::Allow).rule(
        "read",
        [Argument::long(0).masked(0xff00_0000_00ff, 0x1200_0000_0034), Argument::int(1).is(1)],
        action,
    );
    assert_eq!(call(&both, "read", &[0x1299_9999_9934, 1]), 0x0005_0007);
    assert_eq!(call(&both, "read", &[0x1299_9999_9934, 2]), ALLOW);
    assert_eq!(call(&both, "read", &[0x1399_9999_9934, 1]), ALLOW);
}

#[test]
fn defects() {
    let of = |profile: SeccompProfile| {
        let mut defects = Vec::new();
        Seccomp::Custom(profile).compile(Capabilities::none(), Abi::Native, false, &mut defects);
        defects.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    let deny = SeccompProfile::otherwise(SeccompAction::Kill);
    assert!(of(deny.clone()).contains("executed"));
    assert!(of(deny.clone().allow(["execve", "raed"])).contains("\"raed\""));
    assert!(
        of(SeccompProfile::standard().rule("ioctl", [Argument::int(1).is(1 << 40)], SeccompAction::Kill))
            .contains("an int")
    );
    assert!(
        of(SeccompProfile::standard().rule("ioctl", [Argument::int(6).is(1)], SeccompAction::Kill)).contains("0 to 5")
    );
    assert!(of(SeccompProfile::standard().set(["read"], SeccompAction::Errno(Errno(0)))).contains("error number"));
    assert_eq!(of(deny.allow(["execve"])), "");
}

/// The answer of two filters: the kernel takes the one of the highest precedence (seccomp(2)).
fn stricter(a: u32, b: u32) -> u32 {
    // KILL_PROCESS is the least as a signed number, ALLOW the greatest
    if (a & 0xffff_0000) as i32 <= (b & 0xffff_0000) as i32 { a } else { b }
}

#[test]
fn two_filters_say_what_the_profile_with_notices_says() {
    let notify = SeccompAction::Notify;
    let plain = SeccompProfile::standard();
    let profile = plain.clone().notify(["openat", "mkdir", "mkdirat"]).rule("kill", [Argument::int(1).is(9)], notify);
    let rest = plain.clone().set(["read"], SeccompAction::Kill);
    let all = SeccompProfile { otherwise: notify, ..rest };
    for (profile, plain) in [(&profile, &plain), (&all, &all.deciding())] {
        let (notifying, what) = profile.notifying().unwrap();
        for (abi, column) in [
            (Abi::Native, Column::X86_64),
            (Abi::Native, Column::Aarch64),
            (Abi::Legacy, Column::X86_64),
            (Abi::Legacy, Column::Aarch64),
        ] {
            let compiled = |profile| program(profile, abi, column);
            let (first, second, before) = (compiled(&notifying), compiled(&profile.deciding()), compiled(plain));
            let mut noticed = Vec::new();
            for asked in [column, column.compat()] {
                for nr in (0..600).chain([X32_READ, X32_READ + 257, u32::MAX]) {
                    for argument in [9, 10, 9 | 1 << 32] {
                        let run = |program| run(program, asked.audit_arch(), nr, [0, argument, 0, 0, 0, 0]).0;
                        let verdict = stricter(run(&first), run(&second));
                        if verdict == notify.value() {
                            assert!(asked == column || abi == Abi::Legacy);
                            noticed.push((asked, nr, argument));
                        } else if what.contains("all") {
                            assert!(calls::numbers(asked).contains(&nr) || verdict != ALLOW, "{nr}");
                        } else {
                            assert_eq!(verdict, run(&before), "{nr} {argument:#x}");
                        }
                    }
                }
            }
            let of = |name| {
                let of = noticed.iter().filter(move |(asked, nr, _)| calls::number(name, *asked) == Some(*nr));
                of.map(|(_, _, argument)| *argument).collect::<Vec<_>>()
            };
            if what.contains("all") {
                assert!(
                    of("read").is_empty() && of("openat").is_empty() && of("ptrace").len() >= 3,
                    "{}",
                    noticed.len()
                );
            } else {
                assert_eq!(what, "kill, mkdir, mkdirat, openat");
                // an int: the lower half decides
                assert!(of("kill").starts_with(&[9, 9 | 1 << 32]) && !of("kill").contains(&10));
                assert!(of("openat").len() >= 3 && of("read").is_empty());
                assert!(first.len() < 40, "{} instructions", first.len());
            }
        }
    }
    assert!(plain.notifying().is_none());
}
