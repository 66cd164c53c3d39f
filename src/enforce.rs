//! What must hold and what may be missing; and the report of what does.

use std::fmt;

/// Whether a protection that this kernel cannot give is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Enforce {
    /// It is an error, of `build` or of `spawn`.
    Required,
    /// The sandbox starts without, and the [`Enforcement`] report says so.
    BestEffort,
}

/// What has become of a protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Enforced {
    /// It holds.
    Yes,
    /// The specification opts out of it, in whole or in part.
    OptedOut,
    /// It was wanted, but this host does not have it.
    Unavailable,
    /// It would add nothing to the others here.
    NotNeeded,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Protection {
    /// Its name: `seccomp`, `landlock-files`, `network-namespace` …
    pub name: &'static str,
    /// What happens where it cannot be had.
    pub enforce: Enforce,
    /// Whether it holds.
    pub enforced: Enforced,
    /// What it is here, or why it is not.
    pub detail: String,
}

/// What protects a sandbox, protection by protection: those that are required, which hold or there would be no
/// sandbox; those that were opted out of; and those at best effort, with the reason where they are missing.
///
/// `Display` prints a line for each. With the feature `serde` it is a sequence of records.
///
/// ```no_run
/// use belljar::{Enforced, RootFs, Sandbox};
///
/// let sandbox = Sandbox::builder(RootFs::dir("/srv/debian")).build()?;
/// let report = sandbox.enforcement();
/// assert!(report.get("seccomp").is_some_and(|seccomp| seccomp.enforced == Enforced::Yes));
/// for missing in report.iter().filter(|one| one.enforced == Enforced::Unavailable) {
///     eprintln!("{}: {}", missing.name, missing.detail);
/// }
/// # Ok::<(), belljar::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Enforcement(Vec<Protection>);

impl Enforcement {
    /// The protections, in the order in which they come to bear.
    pub fn iter(&self) -> impl Iterator<Item = &Protection> {
        self.0.iter()
    }

    /// The protection of this name; the first, if there are several.
    pub fn get(&self, name: &str) -> Option<&Protection> {
        self.0.iter().find(|one| one.name == name)
    }

    /// Those that the specification opts out of.
    pub fn opted_out(&self) -> impl Iterator<Item = &Protection> {
        self.iter().filter(|one| one.enforced == Enforced::OptedOut)
    }

    /// Those that were wanted, and are not there.
    pub fn unavailable(&self) -> impl Iterator<Item = &Protection> {
        self.iter().filter(|one| one.enforced == Enforced::Unavailable)
    }

    pub(crate) fn push(&mut self, name: &'static str, enforce: Enforce, enforced: Enforced, detail: impl Into<String>) {
        self.0.push(Protection { name, enforce, enforced, detail: detail.into() });
    }

    /// That a protection was opted out of after all: by a command.
    pub(crate) fn opt_out(&mut self, name: &'static str, detail: String) {
        match self.0.iter_mut().find(|one| one.name == name && one.enforced == Enforced::Yes) {
            Some(one) => (one.enforced, one.detail) = (Enforced::OptedOut, detail),
            None => self.required(name, false, detail),
        }
    }

    /// That a protection at best effort cannot be had after all.
    pub(crate) fn unavailable_after_all(&mut self, name: &str, why: &str) {
        for one in self.0.iter_mut().filter(|one| one.name == name && one.enforced == Enforced::Yes) {
            (one.enforced, one.detail) = (Enforced::Unavailable, why.into());
        }
    }

    /// A required protection, or that it was opted out of.
    pub(crate) fn required(&mut self, name: &'static str, holds: bool, detail: impl Into<String>) {
        let enforced = if holds { Enforced::Yes } else { Enforced::OptedOut };
        self.push(name, Enforce::Required, enforced, detail);
    }
}

impl fmt::Display for Enforced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Enforced::Yes => "enforced",
            Enforced::OptedOut => "opted out",
            Enforced::Unavailable => "unavailable",
            Enforced::NotNeeded => "not needed",
        })
    }
}

impl fmt::Display for Enforcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for one in &self.0 {
            let enforce = match one.enforce {
                Enforce::Required => "required",
                Enforce::BestEffort => "best effort",
            };
            writeln!(f, "{:<20} {:<12} {enforce:<12} {}", one.name, one.enforced, one.detail)?;
        }
        Ok(())
    }
}
