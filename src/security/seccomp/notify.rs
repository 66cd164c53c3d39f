//! Profiles with [`SeccompAction::Notify`]: two filters, of which one only notifies.
//!
//! The listener of a filter has to leave the payload's process, and to send it takes calls under that very filter. So what is
//! notified has a filter of its own, which lets everything else pass: it is installed first, its listener
//! is sent to the host, and then comes the filter that decides on the rest, to which what is notified is allowed. Of all
//! filters the kernel takes the strictest answer, and an error is stricter than a notice (seccomp(2)).

use super::profile::{Rule, SeccompAction, SeccompProfile};
use crate::error::Defect;

/// What the payload's process still calls when the filter that notifies is installed: the host cannot answer before it
/// has the listener, nor before the program is executed.
const STILL_CALLED: [&str; 9] =
    ["close", "execve", "execveat", "exit", "exit_group", "prlimit64", "rt_sigprocmask", "seccomp", "sendmsg"];

impl SeccompProfile {
    /// Leaves these calls to the host process, whatever was said of them before: see [`SeccompAction::Notify`].
    pub fn notify<S: Into<String>>(self, names: impl IntoIterator<Item = S>) -> SeccompProfile {
        self.set(names, SeccompAction::Notify)
    }

    fn map(&self, action: impl Fn(SeccompAction) -> SeccompAction) -> SeccompProfile {
        let rule = |rule: &Rule| Rule { conditions: rule.conditions.clone(), action: action(rule.action) };
        let rules = self.rules.iter().map(|(name, rules)| (name.clone(), rules.iter().map(rule).collect()));
        SeccompProfile { otherwise: action(self.otherwise), rules: rules.collect() }
    }

    /// The profile of the filter that decides.
    pub(super) fn deciding(&self) -> SeccompProfile {
        self.map(|action| if action == SeccompAction::Notify { SeccompAction::Allow } else { action })
    }

    /// The profile of the filter that notifies, and what it does in words; `None` where nothing is notified.
    pub(super) fn notifying(&self) -> Option<(SeccompProfile, String)> {
        let mut names: Vec<_> =
            self.rules.iter().filter(|(_, rules)| rules.iter().any(notifies)).map(|(name, _)| name.as_str()).collect();
        if self.otherwise == SeccompAction::Notify {
            names.push("all that no rule names");
        }
        if names.is_empty() {
            return None;
        }
        let only = |action| if action == SeccompAction::Notify { action } else { SeccompAction::Allow };
        let mut profile = self.map(only);
        if profile.otherwise == SeccompAction::Allow {
            profile.rules.retain(|_, rules| rules.iter().any(notifies)); // the others' conditions do not matter here
        }
        Some((profile, names.join(", ")))
    }

    pub(super) fn has_notice(&self, name: &str) -> bool {
        self.rules.get(name).is_some_and(|rules| rules.iter().any(notifies))
    }

    /// Finds what would leave the payload's process waiting for an answer that nobody can give.
    pub(super) fn check_notices(&self, defects: &mut Vec<Defect>) {
        for name in STILL_CALLED {
            let rules = self.rules.get(name);
            let falls_through = rules.is_none_or(|rules| rules.iter().all(|rule| !rule.conditions.is_empty()));
            if self.has_notice(name) || falls_through && self.otherwise == SeccompAction::Notify {
                defects.push(Defect::new(
                    format!("{name} is notified, which is still called before the payload's program runs"),
                    format!("an answer of the filter's own for {name} (allow, deny, set)"),
                ));
            }
        }
    }
}

fn notifies(rule: &Rule) -> bool {
    rule.action == SeccompAction::Notify
}
