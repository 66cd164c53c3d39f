//! What a filter says, before it is compiled: names, conditions on arguments, actions.

use super::calls;
use crate::error::Defect;
use crate::sys::Errno;
use std::collections::BTreeMap;

/// What happens to a system call (seccomp(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SeccompAction {
    /// It is executed.
    Allow,
    /// It is not, and gives this error (1 to 4095).
    Errno(Errno),
    /// The whole process is killed by SIGSYS.
    Kill,
    /// The thread gets SIGSYS, which it may handle.
    Trap,
    /// It is executed, and written to the audit log of the host.
    Log,
    /// It waits for the answer of the host process, which receives it by [`Child::notifications`](crate::Child): executed
    /// after all, an error, a value, a descriptor. When nobody listens (any more) it gives `ENOSYS`.
    ///
    /// Takes no_new_privs, and cannot be said of the calls that start the payload's program: close, execve,
    /// execveat, exit, exit_group, prlimit64, rt_sigprocmask, seccomp, sendmsg. Under it the payload cannot install a
    /// filter with a listener of its own (`EBUSY`): the kernel takes one.
    /// Linux 5.0; put by the kernel behind what other filters deny.
    Notify,
}

impl SeccompAction {
    /// The value that the filter returns (<linux/seccomp.h>).
    pub(super) fn value(self) -> u32 {
        match self {
            SeccompAction::Allow => 0x7fff_0000,
            SeccompAction::Errno(errno) => 0x0005_0000 | (errno.0 as u32 & 0xffff),
            SeccompAction::Kill => 0x8000_0000,
            SeccompAction::Trap => 0x0003_0000,
            SeccompAction::Log => 0x7ffc_0000,
            SeccompAction::Notify => 0x7fc0_0000,
        }
    }

    pub(super) fn executes(self) -> bool {
        matches!(self, SeccompAction::Allow | SeccompAction::Log)
    }
}

/// An argument of a system call, to be compared: `Argument::int(1).is(0x5412)`.
///
/// A filter sees registers, not memory: what a pointer points to cannot be examined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument {
    index: u8,
    long: bool,
}

impl Argument {
    /// Argument `index` (0 to 5), of which the call looks at the lower 32 bits only: `int`, `unsigned int`, a
    /// descriptor, an ioctl request. The kernel ignores the upper ones, so a comparison of all 64 could be evaded.
    pub const fn int(index: u8) -> Argument {
        Argument { index, long: false }
    }

    /// Argument `index` (0 to 5) with all its 64 bits: `unsigned long`, `size_t`, flags of clone(2).
    pub const fn long(index: u8) -> Argument {
        Argument { index, long: true }
    }

    const fn compare(self, test: Test, value: u64) -> Condition {
        Condition { argument: self, test, value }
    }

    /// Holds if it has this value.
    pub const fn is(self, value: u64) -> Condition {
        self.compare(Test::Masked(u64::MAX), value)
    }

    /// Holds if it has another value.
    pub const fn is_not(self, value: u64) -> Condition {
        self.compare(Test::Not, value)
    }

    /// Holds if the bits of `mask` have this value.
    pub const fn masked(self, mask: u64, value: u64) -> Condition {
        self.compare(Test::Masked(mask), value)
    }

    /// Holds if it is less, unsigned.
    pub const fn below(self, value: u64) -> Condition {
        self.compare(Test::Below, value)
    }

    /// Holds if it is less or equal, unsigned.
    pub const fn at_most(self, value: u64) -> Condition {
        self.compare(Test::AtMost, value)
    }

    /// Holds if it is greater, unsigned.
    pub const fn above(self, value: u64) -> Condition {
        self.compare(Test::Above, value)
    }

    /// Holds if it is greater or equal, unsigned.
    pub const fn at_least(self, value: u64) -> Condition {
        self.compare(Test::AtLeast, value)
    }
}

/// A comparison of an argument; see [`Argument`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    pub(super) argument: Argument,
    pub(super) test: Test,
    pub(super) value: u64,
}

impl Condition {
    pub(super) fn index(&self) -> u8 {
        self.argument.index
    }

    pub(super) fn is_long(&self) -> bool {
        self.argument.long
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    Masked(u64),
    Not,
    Below,
    AtMost,
    Above,
    AtLeast,
}

/// Conditions that must all hold, and what happens then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub conditions: Vec<Condition>,
    pub action: SeccompAction,
}

/// A filter of one's own: an action for each system call, by name.
///
/// ```
/// use belljar::{Argument, SeccompAction, SeccompProfile};
///
/// let profile = SeccompProfile::standard()
///     .allow(["ptrace"])
///     .rule("prctl", [Argument::int(0).is(38)], SeccompAction::Kill);
/// ```
/// A number that this version of the library has no name for (Linux 6.19 has 470) gives `ENOSYS`, as on
/// a kernel that does not have it, so that a libc falls back; but a profile whose
/// [`otherwise`](SeccompProfile::otherwise) executes calls lets it through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeccompProfile {
    pub(super) otherwise: SeccompAction,
    pub(super) rules: BTreeMap<String, Vec<Rule>>,
}

impl SeccompProfile {
    /// One without rules: each call has this action. With [`SeccompAction::Allow`] it is the beginning
    /// of a deny-list, which does not hold against what kernels learn later.
    pub fn otherwise(action: SeccompAction) -> SeccompProfile {
        SeccompProfile { otherwise: action, rules: BTreeMap::new() }
    }

    /// What [`Seccomp::Default`](crate::Seccomp::Default) is for a payload without capabilities, to be changed.
    pub fn standard() -> SeccompProfile {
        super::standard::plugin(crate::security::Capabilities::none())
    }

    /// Executes these calls, whatever was said of them before.
    pub fn allow<S: Into<String>>(self, names: impl IntoIterator<Item = S>) -> SeccompProfile {
        self.set(names, SeccompAction::Allow)
    }

    /// Answers these calls by `EPERM`, whatever was said of them before.
    pub fn deny<S: Into<String>>(self, names: impl IntoIterator<Item = S>) -> SeccompProfile {
        self.set(names, SeccompAction::Errno(Errno::EPERM))
    }

    /// Sets the action of these calls, whatever was said of them before.
    pub fn set<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>, action: SeccompAction) -> SeccompProfile {
        for name in names {
            self.rules.insert(name.into(), vec![Rule { conditions: Vec::new(), action }]);
        }
        self
    }

    /// Puts a rule before those that the call has: where all conditions (at most 6) hold, this action.
    pub fn rule(
        mut self,
        name: impl Into<String>,
        conditions: impl IntoIterator<Item = Condition>,
        action: SeccompAction,
    ) -> SeccompProfile {
        let rule = Rule { conditions: conditions.into_iter().collect(), action };
        self.rules.entry(name.into()).or_default().insert(0, rule);
        self
    }

    /// What is wrong with it.
    pub(super) fn check(&self, defects: &mut Vec<Defect>) {
        for (name, rules) in &self.rules {
            if !calls::is_known(name) {
                defects.push(Defect::new(
                    format!("no system call is named {name:?}"),
                    "a name of syscalls(2): a rule for a name with a slip in it would protect nothing",
                ));
            }
            for rule in rules {
                if rule.conditions.len() > 6 {
                    defects.push(Defect::new(
                        format!("a rule of {name} has {} conditions", rule.conditions.len()),
                        "at most 6",
                    ));
                }
                check_action(rule.action, defects);
                for condition in &rule.conditions {
                    let wide = |value: u64| !condition.is_long() && value > u64::from(u32::MAX);
                    if condition.index() > 5 {
                        defects
                            .push(Defect::new(format!("argument {} of {name}", condition.index()), "arguments 0 to 5"));
                    } else if wide(condition.value) {
                        defects.push(Defect::new(
                            format!(
                                "{:#x} does not fit argument {} of {name}, an int",
                                condition.value,
                                condition.index()
                            ),
                            "32 bits, or Argument::long",
                        ));
                    }
                }
            }
        }
        check_action(self.otherwise, defects);
        self.check_notices(defects);
        // the filter is there when the payload's process executes its program
        let first = |name| self.rules.get(name).and_then(|rules| rules.first());
        let execve =
            first("execve").map_or(Some(self.otherwise), |rule| rule.conditions.is_empty().then_some(rule.action));
        if execve.is_some_and(|action| !action.executes() && action != SeccompAction::Notify) {
            defects.push(Defect::new(
                "the profile does not let the payload be executed",
                "to allow execve: the filter is installed just before it",
            ));
        }
    }
}

fn check_action(action: SeccompAction, defects: &mut Vec<Defect>) {
    if let SeccompAction::Errno(errno) = action
        && !(1..=4095).contains(&errno.0)
    {
        defects.push(Defect::new(format!("{} is no error number", errno.0), "1 to 4095 (errno(3))"));
    }
}
