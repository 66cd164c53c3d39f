//! What works here, found by attempting it: never by the kernel's version or name.
//!
//! Each attempt is made by a process of its own, in namespaces of its own (`remote`);
//! only what leaves no trace is asked of the kernel by the caller itself. Switches and
//! limits are read as well, but to explain a failure and not to predict one (`policy`).

mod cgroups;
mod files;
mod identity;
mod kernel;
mod namespaces;
mod policy;
mod remote;
mod surroundings;

use crate::host::Host;
use crate::sys::Errno;
use policy::Policy;
use std::fmt;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// What [`doctor`] has found. Its `Display` is a report of one line a finding, with the
/// remedies below.
///
/// ```no_run
/// let doctor = belljar::doctor();
/// if !doctor.can_spawn() {
///     eprintln!("{doctor}");
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Doctor {
    findings: Vec<Finding>,
}

/// One thing that sandboxes use, and whether it works here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    topic: Topic,
    name: &'static str,
    outcome: Outcome,
    detail: String,
    remedy: Option<String>,
    needed: bool,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It works.
    Works,
    /// It works, but with less than there could be; the detail says what is lacking.
    Restricted,
    /// The kernel has it, but not for this caller: a privilege, a policy or a limit is in
    /// the way (`EPERM`, `EACCES`, `ENOSPC` and the like).
    Refused,
    /// This kernel or machine does not have it (`ENOSYS`, `EINVAL`, `ENODEV` and the like).
    Missing,
    /// It could not be attempted, because of an earlier finding.
    Untried,
}

/// The parts of a report, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topic {
    Kernel,
    Namespaces,
    Identity,
    Files,
    Cgroups,
    Surroundings,
}

/// Finds out what this kernel, this machine and this caller can do, by attempting it.
///
/// Takes some ten milliseconds. Starts about ten short-lived processes, one after
/// the other, and makes and removes a control group `belljar-doctor-…` in each hierarchy where
/// that is allowed; it leaves nothing behind, and changes nothing of the calling process. Safe
/// in a process with threads. The answer holds for the calling thread's credentials, at
/// this moment: it is meant for people and for start-up checks, not for every spawn.
///
/// Contract: user_namespaces(7), mount_namespaces(7), cgroups(7), seccomp(2), landlock(7). Where
/// no process can be started (before Linux 5.9, or under a seccomp filter without clone3(2))
/// most findings are [`Outcome::Untried`].
///
/// ```
/// let doctor = belljar::doctor();
/// assert!(doctor.findings().iter().any(|finding| finding.name() == "user namespace"));
/// ```
pub fn doctor() -> Doctor {
    let host = Host::probe();
    let mut bench = Bench { policy: Policy::read(&host), host, program: None, findings: Vec::new() };
    kernel::examine(&mut bench);
    let inside = namespaces::examine(&mut bench);
    identity::examine(&mut bench);
    files::examine(&mut bench, inside.as_ref());
    cgroups::examine(&mut bench);
    surroundings::examine(&mut bench);
    Doctor { findings: bench.findings }
}

/// What the examinations share.
struct Bench {
    policy: Policy,
    host: Host,
    /// The program of `remote`, if processes can be started at all.
    program: Option<Rc<OwnedFd>>,
    findings: Vec<Finding>,
}

impl Bench {
    fn push(&mut self, finding: Finding) {
        self.findings.push(finding);
    }
}

impl Doctor {
    /// All findings, in the order of the report.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Whether a sandbox with the default [`Namespaces`](crate::Namespaces) and
    /// [`Mounts`](crate::Mounts) can be started by this caller: nothing that it
    /// [needs](Finding::is_needed) fails. When it is false, sandboxes with less may still start.
    pub fn can_spawn(&self) -> bool {
        self.findings.iter().all(|finding| !finding.needed || finding.outcome.is_usable())
    }

    /// The findings for which [`can_spawn`](Doctor::can_spawn) is false, most fundamental
    /// first, without those that were untried because of them.
    pub fn blockers(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.is_blocker())
    }
}

impl Finding {
    fn new(topic: Topic, name: &'static str, outcome: Outcome, detail: impl Into<String>) -> Finding {
        Finding { topic, name, outcome, detail: detail.into(), remedy: None, needed: false }
    }

    /// The finding of an attempt; `remedy` is for its failure.
    fn attempt(
        topic: Topic,
        name: &'static str,
        tried: &str,
        answer: Result<(), Errno>,
        remedy: impl FnOnce(Errno) -> String,
    ) -> Finding {
        match answer {
            Ok(()) => Finding::new(topic, name, Outcome::Works, tried),
            Err(errno) => {
                Finding::new(topic, name, Outcome::of(errno), format!("{tried}: {errno}")).with_remedy(remedy(errno))
            }
        }
    }

    fn untried(topic: Topic, name: &'static str, why: &str) -> Finding {
        Finding::new(topic, name, Outcome::Untried, why)
    }

    fn with_remedy(mut self, remedy: impl Into<String>) -> Finding {
        self.remedy = Some(remedy.into());
        self
    }

    fn needed(mut self) -> Finding {
        self.needed = true;
        self
    }

    /// The part of the report that it belongs to, such as `namespaces`.
    pub fn topic(&self) -> &'static str {
        match self.topic {
            Topic::Kernel => "kernel interfaces",
            Topic::Namespaces => "namespaces",
            Topic::Identity => "identity",
            Topic::Files => "file systems",
            Topic::Cgroups => "control groups",
            Topic::Surroundings => "surroundings",
        }
    }

    /// Its name, such as `user namespace`; no two have the same.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How it ended.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// What was tried, and what came of it: an errno by name (errno(3)), a number, a path.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// What helps, where something is lacking: a command, a setting, or how to do without. One line.
    pub fn remedy(&self) -> Option<&str> {
        self.remedy.as_deref()
    }

    fn is_blocker(&self) -> bool {
        self.needed && matches!(self.outcome, Outcome::Refused | Outcome::Missing)
    }

    /// Whether a sandbox with the default settings cannot start without it.
    pub fn is_needed(&self) -> bool {
        self.needed
    }
}

impl Outcome {
    fn of(errno: Errno) -> Outcome {
        match errno {
            Errno::ENOSYS | Errno::EINVAL | Errno::ENODEV | Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EBADF => {
                Outcome::Missing
            }
            _ => Outcome::Refused,
        }
    }

    /// Whether it can be used, if with restrictions.
    pub fn is_usable(self) -> bool {
        matches!(self, Outcome::Works | Outcome::Restricted)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Outcome::Works => "works",
            Outcome::Restricted => "restricted",
            Outcome::Refused => "refused",
            Outcome::Missing => "missing",
            Outcome::Untried => "untried",
        })
    }
}

impl fmt::Display for Finding {
    /// `user namespace: refused: clone3(2) with CLONE_NEWUSER: EPERM (…); try: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.name, self.outcome, self.detail)?;
        self.remedy.as_ref().map_or(Ok(()), |remedy| write!(f, "; try: {remedy}"))
    }
}

impl fmt::Display for Doctor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.blockers().map(Finding::name).collect();
        match names.as_slice() {
            [] => writeln!(f, "Sandboxes with the default settings can be started here.")?,
            names => writeln!(
                f,
                "Sandboxes with the default settings cannot be started here, for want of: {}.",
                names.join(", ")
            )?,
        }
        let mut topic = None;
        for finding in &self.findings {
            if topic.replace(finding.topic) != Some(finding.topic) {
                writeln!(f, "\n{}", finding.topic())?;
            }
            let mark = if finding.is_blocker() { '!' } else { ' ' };
            writeln!(f, "{mark} {:10}  {:22}  {}", finding.outcome, finding.name, finding.detail)?;
            if let Some(remedy) = &finding.remedy {
                writeln!(f, "{:38}try: {remedy}", "")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(findings: Vec<Finding>) -> Doctor {
        Doctor { findings }
    }

    #[test]
    fn only_what_is_needed_and_fails_is_in_the_way() {
        let finding = |outcome| Finding::new(Topic::Kernel, "x", outcome, "tried");
        assert!(report(vec![finding(Outcome::Missing), finding(Outcome::Restricted).needed()]).can_spawn());
        for outcome in [Outcome::Missing, Outcome::Refused, Outcome::Untried] {
            assert!(!report(vec![finding(outcome).needed()]).can_spawn(), "{outcome}");
        }
    }

    #[test]
    fn a_report_names_topics_once_and_remedies_below() {
        let answer = Err(Errno::EPERM);
        let bad = Finding::attempt(Topic::Namespaces, "b", "tried it", answer, |_| "this".into()).needed();
        let text = report(vec![Finding::new(Topic::Kernel, "a", Outcome::Works, "fine"), bad]).to_string();
        assert_eq!(
            text,
            "Sandboxes with the default settings cannot be started here, for want of: b.\n\
             \nkernel interfaces\n  works       a                       fine\n\
             \nnamespaces\n! refused     b                       tried it: EPERM (Operation not permitted)\n\
             \x20                                     try: this\n"
        );
    }

    #[test]
    fn names_are_unique_and_failures_have_remedies() {
        let doctor = doctor();
        let mut names: Vec<_> = doctor.findings().iter().map(Finding::name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        for finding in doctor.findings() {
            let failed = matches!(finding.outcome, Outcome::Missing | Outcome::Refused);
            assert!(!failed || finding.remedy.is_some(), "{finding}");
        }
    }
}
