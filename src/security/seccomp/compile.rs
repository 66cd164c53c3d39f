//! From a profile to classic BPF (seccomp(2), Linux' Documentation/networking/filter.rst).
//!
//! Numbers are found by a binary search: a path of some ten instructions to each. What does not depend
//! on arguments the kernel (5.11 or later) finds out at the installation, by following such paths, and then
//! does not run the filter for it at all; shorter paths make that, and the installation, cheaper.

use super::calls::{self, Column, LAST};
use super::profile::{Condition, Rule, SeccompAction, SeccompProfile, Test};
use crate::error::Defect;
use crate::sys::Errno;
use std::collections::BTreeMap;

/// How many instructions the kernel takes (BPF_MAXINSNS).
const MOST: usize = 4096;
/// The bit that marks calls of the x32 ABI, on x86_64.
const X32: u32 = 0x4000_0000;

// struct seccomp_data: nr, arch, instruction pointer, six arguments.
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

pub(super) const LD_W_ABS: u16 = 0x20;
pub(super) const ALU_AND_K: u16 = 0x54;
pub(super) const JMP_JA: u16 = 0x05;
pub(super) const JMP_JEQ_K: u16 = 0x15;
pub(super) const JMP_JGT_K: u16 = 0x25;
pub(super) const JMP_JGE_K: u16 = 0x35;
pub(super) const RET_K: u16 = 0x06;

const fn statement(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

/// Which ABIs the payload may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Abi {
    /// The machine's own. A call by another (32-bit, x32) kills the process by SIGSYS. The default.
    #[default]
    Native,
    /// Also the 32-bit one of the same processors (i386, arm), under the same names. x32 stays out.
    Legacy,
}

/// The filter, as the kernel takes it.
pub(super) fn compile(profile: &SeccompProfile, abi: Abi, defects: &mut Vec<Defect>) -> Vec<u8> {
    let program = program(profile, abi, Column::NATIVE);
    if program.len() > MOST {
        defects.push(Defect::new(
            format!("the seccomp filter has {} instructions", program.len()),
            format!("at most {MOST}: fewer rules with conditions"),
        ));
    }
    let bytes = |i: Instruction| {
        let [c0, c1] = i.code.to_ne_bytes();
        let [k0, k1, k2, k3] = i.k.to_ne_bytes();
        [c0, c1, i.jt, i.jf, k0, k1, k2, k3]
    };
    program.into_iter().flat_map(bytes).collect()
}

/// The instructions for one machine.
pub(super) fn program(profile: &SeccompProfile, abi: Abi, native: Column) -> Vec<Instruction> {
    let kill = SeccompAction::Kill.value();
    let mut code = Code::default();
    // the last instruction must return
    code.bring_near(Target::Return(kill));
    let mut foreign = Target::Return(kill);
    if abi == Abi::Legacy {
        let compat = native.compat();
        let found = code.search(&intervals(profile, compat));
        let found = code.load(NR, found);
        foreign = code.jump(JMP_JEQ_K, compat.audit_arch(), found, foreign);
    }
    let own = code.search(&intervals(profile, native));
    let own = code.load(NR, own);
    let root = code.jump(JMP_JEQ_K, native.audit_arch(), own, foreign);
    code.load(ARCH, root);
    code.reversed.reverse();
    code.reversed
}

/// What becomes of a run of numbers, from the first on.
struct Interval<'a> {
    first: u32,
    rules: &'a [Rule],
    otherwise: SeccompAction,
}

impl Interval<'_> {
    /// The one action, where no argument matters.
    fn plain(&self) -> Option<SeccompAction> {
        match self.rules.first() {
            None => Some(self.otherwise),
            Some(rule) => rule.conditions.is_empty().then_some(rule.action),
        }
    }
}

fn intervals(profile: &SeccompProfile, column: Column) -> Vec<Interval<'_>> {
    let unknown = match profile.otherwise.executes() {
        true => profile.otherwise,
        false => SeccompAction::Errno(Errno::ENOSYS),
    };
    let named: Vec<_> = profile
        .rules
        .iter()
        .filter_map(|(name, rules)| Some((calls::number(name, column)?, rules.as_slice())))
        .collect();
    let mut all = Vec::new();
    let mut next = 0;
    let mut push = |first: u32, rules, otherwise| {
        if first > next {
            all.push(Interval { first: next, rules: &[], otherwise: unknown });
        }
        all.push(Interval { first, rules, otherwise });
        next = first + 1;
    };
    for number in calls::numbers(column) {
        let rules = named.iter().find(|(n, _)| *n == number).map_or(&[][..], |(_, rules)| rules);
        push(number, rules, profile.otherwise);
    }
    if column == Column::X86_64 {
        push(X32, &[], SeccompAction::Kill);
        // -1 is no call of x32: what a debugger makes of a call to be skipped
        all.push(Interval { first: u32::MAX, rules: &[], otherwise: SeccompAction::Errno(Errno::ENOSYS) });
    } else {
        all.push(Interval { first: next.max(LAST + 1), rules: &[], otherwise: unknown });
    }
    all.dedup_by(|later, earlier| later.plain().is_some() && later.plain() == earlier.plain());
    // all numbers of x32 after the first
    if column == Column::X86_64 {
        debug_assert!(all.iter().filter(|i| i.first >= X32).count() == 2);
    }
    all
}

/// Where a jump goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    /// To any instruction that returns this.
    Return(u32),
    /// To the instruction that was appended as the so-manieth.
    At(usize),
}

/// Instructions in reverse: jumps go forward only, so what they lead to is written first, and what
/// returns the same is shared. Fewer instructions are checked and translated sooner.
#[derive(Default)]
struct Code {
    reversed: Vec<Instruction>,
    /// The last instruction that returns a value.
    returns: BTreeMap<u32, usize>,
}

impl Code {
    fn push(&mut self, instruction: Instruction) -> Target {
        self.reversed.push(instruction);
        Target::At(self.reversed.len() - 1)
    }

    /// How many instructions lie between the next to be appended and the target.
    fn distance(&self, target: Target) -> Option<usize> {
        let at = match target {
            Target::At(at) => at,
            Target::Return(value) => *self.returns.get(&value)?,
        };
        Some(self.reversed.len() - at - 1)
    }

    /// Makes a target reachable: a conditional jump spans 255 instructions.
    fn bring_near(&mut self, target: Target) -> Target {
        // the other target of the jump may need an instruction of its own behind it
        match (self.distance(target), target) {
            (Some(distance), _) if distance < u8::MAX.into() => target,
            (_, Target::Return(value)) => {
                let at = self.reversed.len();
                self.push(statement(RET_K, value));
                self.returns.insert(value, at);
                target
            }
            (distance, Target::At(_)) => self.push(statement(JMP_JA, distance.unwrap_or(0) as u32)),
        }
    }

    fn jump(&mut self, code: u16, k: u32, yes: Target, no: Target) -> Target {
        if yes == no {
            return yes;
        }
        let (yes, no) = (self.bring_near(yes), self.bring_near(no));
        let near = |target| self.distance(target).unwrap_or(0) as u8;
        let instruction = Instruction { code, jt: near(yes), jf: near(no), k };
        self.push(instruction)
    }

    /// A load of a word of `seccomp_data`, and on to the instruction appended last.
    fn load(&mut self, offset: u32, next: Target) -> Target {
        self.fall_into(next);
        self.push(statement(LD_W_ABS, offset))
    }

    /// Makes a target the next instruction.
    fn fall_into(&mut self, next: Target) {
        match next {
            Target::At(at) if at + 1 == self.reversed.len() => {}
            Target::Return(value) => drop(self.push(statement(RET_K, value))),
            Target::At(_) => {
                let distance = self.distance(next).unwrap_or(0);
                self.push(statement(JMP_JA, distance as u32));
            }
        }
    }

    /// A binary search for the interval of the number in the accumulator.
    fn search(&mut self, intervals: &[Interval<'_>]) -> Target {
        match intervals {
            [] => Target::Return(SeccompAction::Kill.value()),
            [one] => self.decide(one),
            _ => {
                let (low, high) = intervals.split_at(intervals.len() / 2);
                let first = high[0].first;
                let high = self.search(high);
                let low = self.search(low);
                self.jump(JMP_JGE_K, first, high, low)
            }
        }
    }

    /// The rules one after the other; the first whose conditions hold decides.
    fn decide(&mut self, interval: &Interval<'_>) -> Target {
        let mut next = Target::Return(interval.otherwise.value());
        for rule in interval.rules.iter().rev() {
            let mut target = Target::Return(rule.action.value());
            for condition in rule.conditions.iter().rev() {
                target = self.compare(condition, target, next);
            }
            next = target;
        }
        next
    }

    fn compare(&mut self, condition: &Condition, yes: Target, no: Target) -> Target {
        // both machines are little-endian
        let low = ARGS + 8 * u32::from(condition.index());
        let (value_low, value_high) = (condition.value as u32, (condition.value >> 32) as u32);
        let long = condition.is_long();
        if let Test::Masked(mask) = condition.test {
            let mut target = self.masked(low, mask as u32, value_low, yes, no);
            if long {
                target = self.masked(low + 4, (mask >> 32) as u32, value_high, target, no);
            }
            return target;
        }
        let (code, if_true, if_false) = match condition.test {
            Test::Above => (JMP_JGT_K, yes, no),
            Test::AtMost => (JMP_JGT_K, no, yes),
            Test::AtLeast => (JMP_JGE_K, yes, no),
            Test::Below => (JMP_JGE_K, no, yes),
            _ => (JMP_JEQ_K, no, yes),
        };
        let below = self.jump(code, value_low, if_true, if_false);
        let target = self.load(low, below);
        if !long {
            return target;
        }
        let equal = self.jump(JMP_JEQ_K, value_high, target, if_false);
        let above = match code {
            JMP_JEQ_K => equal, // another high word is another value
            _ => self.jump(JMP_JGT_K, value_high, if_true, equal),
        };
        self.load(low + 4, above)
    }

    fn masked(&mut self, offset: u32, mask: u32, value: u32, yes: Target, no: Target) -> Target {
        if mask == 0 && value == 0 {
            return yes;
        }
        let mut target = self.jump(JMP_JEQ_K, value, yes, no);
        if mask != u32::MAX {
            self.fall_into(target);
            target = self.push(statement(ALU_AND_K, mask));
        }
        self.load(offset, target)
    }
}
