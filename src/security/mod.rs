//! What the payload may do, whatever it is: capabilities, new privileges, system calls.

mod capabilities;
mod label;
mod landlock;
mod profile;
mod quota;
mod rlimits;
mod seccomp;

pub use capabilities::{Capabilities, Capability, UnknownCapability};
pub use label::ExecLabel;
pub use landlock::Landlock;
pub(crate) use landlock::{Place, Surroundings};
pub use profile::Profile;
pub use quota::Inotify;
pub use rlimits::Rlimits;
pub(crate) use seccomp::name_of;
pub use seccomp::{Abi, Argument, Condition, Seccomp, SeccompAction, SeccompProfile};

use crate::enforce::{Enforce, Enforced, Enforcement};
use crate::error::{Defect, Result};
use crate::program::{Builder, Op};
use seccomp::Filters;
use std::ffi::CStr;
use std::sync::Arc;

/// The payload's privileges. The default is none, and none to be gained.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    pub(crate) capabilities: Capabilities,
    pub(crate) allow_new_privileges: bool,
    seccomp: Seccomp,
    abi: Abi,
    allow_nested_namespaces: bool,
    rlimits: Rlimits,
    inotify: Inotify,
    keyring: Keyring,
    landlock: Landlock,
    label: Option<ExecLabel>,
}

impl Security {
    /// No capabilities, no_new_privs, the default filter of system calls.
    pub fn new() -> Security {
        Security::default()
    }

    /// Opts out: keeps these capabilities, in the sandbox's user namespace. Those that stand for system
    /// calls also open these in the filters that come with the library.
    pub fn capabilities(mut self, kept: Capabilities) -> Self {
        self.capabilities = kept;
        self
    }

    /// Opts out of no_new_privs (PR_SET_NO_NEW_PRIVS(2const)): set-uid programs and file
    /// capabilities of the layers, and of mounts that allow them, take effect; those of [`RootFs::host`](crate::RootFs::host) never do. The filter of system calls is then installed
    /// before the ids are set, as the kernel wants CAP_SYS_ADMIN for it; it must let setgroups, setresgid,
    /// setresuid, capset, prctl, openat2 and fchdir pass.
    pub fn allow_new_privileges(mut self) -> Self {
        self.allow_new_privileges = true;
        self
    }

    /// Which system calls the payload may make; [`Seccomp::Default`] unless set.
    pub fn seccomp(mut self, seccomp: Seccomp) -> Self {
        self.seccomp = seccomp;
        self
    }

    /// Which ABIs it may use for them; [`Abi::Native`] unless set.
    pub fn abi(mut self, abi: Abi) -> Self {
        self.abi = abi;
        self
    }

    /// Opts out: the payload may make namespaces of its own, also user namespaces, in which it has all
    /// capabilities, and mount there. For sandboxes in sandboxes: browsers, bubblewrap.
    ///
    /// The kernel lets only a user other than 0 inside map itself ([`Command::uid`](crate::Command::uid), or
    /// [`IdMap::caller_as`](crate::IdMap::caller_as)), unless CAP_SETFCAP is kept; and a proc can be mounted in there only where the
    /// sandbox's own has no masks (`Mounts::none().mount(Mount::proc("/proc"))`).
    pub fn allow_nested_namespaces(mut self) -> Self {
        self.allow_nested_namespaces = true;
        self
    }

    /// The resource limits; [`Rlimits::standard`] unless set.
    pub fn rlimits(mut self, rlimits: Rlimits) -> Self {
        self.rlimits = rlimits;
        self
    }

    /// How much of the host user's inotify quota the payload may use; [`Inotify::Share`] unless set.
    pub fn inotify(mut self, inotify: Inotify) -> Self {
        self.inotify = inotify;
        self
    }

    /// Whose session keyring the payload has; [`Keyring::New`] unless set.
    pub fn keyring(mut self, keyring: Keyring) -> Self {
        self.keyring = keyring;
        self
    }

    /// The Landlock domain; [`Landlock::standard`] unless set.
    pub fn landlock(mut self, landlock: Landlock) -> Self {
        self.landlock = landlock;
        self
    }

    /// Executes the payload's program under this label of AppArmor or SELinux; without one it has the host process's.
    /// Required: where the module is not active, `build` fails with
    /// [`ErrorKind::NotSupported`](crate::ErrorKind::NotSupported); a label that the loaded policy does not have, or that
    /// the host process may not change to, is an error of `spawn`.
    ///
    /// With no_new_privs AppArmor lets an unconfined host process change to any profile, and a confined one to a subset of
    /// its own; SELinux asks for `nnp_transition`. The profile has to let the program itself be read and mapped.
    ///
    /// ```no_run
    /// use belljar::{ExecLabel, RootFs, Sandbox, Security};
    ///
    /// let security = Security::new().exec_label(ExecLabel::AppArmor("plugin".into()));
    /// let sandbox = Sandbox::builder(RootFs::host()).security(security).build()?;
    /// # Ok::<(), belljar::Error>(())
    /// ```
    pub fn exec_label(mut self, label: ExecLabel) -> Self {
        self.label = Some(label);
        self
    }

    /// Whether set-uid programs are to take effect.
    pub(crate) fn gains_privileges(&self) -> bool {
        self.allow_new_privileges
    }

    /// Whether the payload may mount, by itself or in a user namespace of its own.
    pub(crate) fn may_mount(&self) -> bool {
        self.allow_nested_namespaces || self.capabilities.contains(Capability::SysAdmin)
    }

    /// Turns names into what the kernel takes.
    pub(crate) fn compile(
        &self,
        around: &Surroundings,
        report: &mut Enforcement,
        defects: &mut Vec<Defect>,
    ) -> Confinement {
        let none = self.capabilities == Capabilities::none();
        report.required("capabilities", none, format!("{} in all five sets", self.capabilities));
        report.required("no-new-privileges", !self.allow_new_privileges, "set-uid programs and file capabilities");
        let (holds, what) = self.seccomp.describe();
        report.required("seccomp", holds, what);
        report.required("native-abi", self.abi == Abi::Native && holds, "a call by another ABI kills the process");
        let nested = self.may_mount() || !holds;
        report.required("nested-namespaces", !nested, "clone, unshare and setns into namespaces are refused");
        // The limit costs a spawn some 50 µs, for the kernel makes the files of /proc/sys/user anew for each namespace:
        // it stands where the filter is not known to refuse what it refuses.
        let by_filter = matches!(self.seccomp, Seccomp::Default | Seccomp::Container) && self.abi == Abi::Native;
        let limit_nested = !self.may_mount() && !by_filter && around.user_limits.is_some();
        let (limit, what) = match (self.may_mount(), by_filter, around.user_limits.is_some()) {
            (true, ..) => (Enforced::OptedOut, "the caller's limit"),
            (_, true, _) => (Enforced::NotNeeded, "the filter of system calls refuses them"),
            (_, _, true) => (Enforced::Yes, "user.max_user_namespaces is 0 inside"),
            (_, _, false) => {
                (Enforced::Unavailable, "no user namespace of the sandbox's own, or /proc/sys is read-only here")
            }
        };
        report.push("user-namespace-limit", Enforce::BestEffort, limit, what);
        let mut user_limits = self.inotify.limits(around.user_limits, report);
        if limit_nested {
            user_limits.push((c"sys/user/max_user_namespaces", 0));
        }
        report.required("rlimits", self.rlimits != Rlimits::inherited(), self.rlimits.to_string());
        let landlock = self.landlock.compile(around, report, defects);
        let Filters { deciding: filter, notifying } =
            self.seccomp.compile(self.capabilities, self.abi, self.allow_nested_namespaces, defects);
        if let Some((_, what)) = &notifying {
            report.required("notified-calls", true, format!("{what}: the host answers; ENOSYS if nobody listens"));
            if self.allow_new_privileges {
                defects.push(Defect::new(
                    "calls are notified, and new privileges allowed: the filter would come before the ids, with many calls left to make",
                    "Security without allow_new_privileges(), or no SeccompAction::Notify",
                ));
            }
        }
        let listener = notifying.map(|(filter, _)| filter);
        // keyrings count against a quota of the user's (200, keyrings(7)): without a new one, the filter has to stand
        let keyctl = filter.as_ref().is_none_or(|_| self.seccomp.allows_keyctl());
        let (enforce, keys) = if keyctl {
            (Enforce::Required, "a session keyring of its own")
        } else {
            (Enforce::BestEffort, "a session keyring of its own where the user's quota allows; keyctl is refused")
        };
        match self.keyring {
            Keyring::New => report.push("keyring", enforce, Enforced::Yes, keys),
            Keyring::Inherit => report.required("keyring", false, "the caller's session keyring"),
        }
        if let Some(label) = &self.label {
            label.check(report, defects);
        }
        Confinement {
            label: self.label.clone(),
            filter,
            listener,
            user_limits,
            landlock,
            no_new_privileges: !self.allow_new_privileges,
            rlimits: self.rlimits.bytes(),
            keyring: matches!(self.keyring, Keyring::New).then_some(keyctl),
        }
    }
}

/// Whose session keyring (session-keyring(7)) the payload has: keys of its caller are credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keyring {
    /// A new, empty one. Where the user's quota of keys is used up (200, keyrings(7)), or a filter above us
    /// denies keyctl(2), a filter of the sandbox that denies it too is enough; without one, spawn fails.
    #[default]
    New,
    /// Opts out: the caller's.
    Inherit,
}

/// A [`Security`] as ops of the payload's process. All of it is for the process that executes the payload, after it
/// has its streams: a process that enters a running sandbox takes the same.
#[derive(Debug)]
pub(crate) struct Confinement {
    label: Option<ExecLabel>,
    filter: Option<Arc<[u8]>>,
    /// The filter that only notifies.
    listener: Option<Arc<[u8]>>,
    /// Limits of the sandbox's user namespace: the file beneath /proc, the value.
    user_limits: Vec<(&'static CStr, u32)>,
    landlock: landlock::Domains,
    no_new_privileges: bool,
    rlimits: Vec<u8>,
    /// A new session keyring, and whether there is nothing else.
    keyring: Option<bool>,
}

impl Confinement {
    /// Whether to confine a process takes CAP_SYS_ADMIN: a filter or a Landlock domain without no_new_privs.
    pub fn needs_privilege(&self) -> bool {
        !self.no_new_privileges && (self.filter.is_some() || self.landlock.process.restricts())
    }

    /// The limits of the sandbox's user namespace.
    pub fn user_limits(&self) -> &[(&'static CStr, u32)] {
        &self.user_limits
    }

    /// Adds no_new_privs.
    pub fn gain_nothing(&mut self) {
        self.no_new_privileges = true;
    }

    /// Whether the filter can end a process by SIGSYS: it has a return of SECCOMP_RET_KILL_PROCESS or
    /// SECCOMP_RET_TRAP.
    pub fn kills(&self) -> bool {
        // struct sock_filter: code u16 (BPF_RET | BPF_K), jt u8, jf u8, k u32
        let returns = |step: &[u8], value: u32| step[..2] == [6, 0] && step[4..] == value.to_ne_bytes();
        let mut steps = self.filter.iter().flat_map(|filter| filter.chunks_exact(8));
        steps.any(|step| [0x8000_0000, 0x0003_0000].iter().any(|value| returns(step, *value)))
    }

    /// What the host has to have.
    pub fn check_host(&self) -> Result<()> {
        self.label.as_ref().map_or(Ok(()), ExecLabel::check_host)
    }

    /// Whether there is a label.
    pub fn labels(&self) -> bool {
        self.label.is_some()
    }

    /// Whether the two have different labels, of which a process can have one.
    pub fn labels_otherwise(&self, other: &Confinement) -> bool {
        other.label.is_some() && self.label.is_some() && self.label != other.label
    }

    /// The label of the program: while there are all descriptors, and nothing is confined yet.
    pub fn lower_label(&self, builder: &mut Builder) -> Result<()> {
        self.label.as_ref().map_or(Ok(()), |label| label.lower(builder))
    }

    /// What the sandbox's init takes upon itself, and all that runs in the sandbox: when the mounts are made.
    pub fn lower_sandbox(&self, builder: &mut Builder) {
        self.landlock.sandbox.lower(builder);
    }

    /// What takes the capabilities of the set-up.
    pub fn lower_before_ids(&self, builder: &mut Builder) {
        if let Some(required) = self.keyring {
            builder.op(Op::Keyring { required: required.into() });
        }
        if !self.no_new_privileges {
            self.landlock.process.lower(builder);
            self.filter(builder);
        }
    }

    /// What follows the ids.
    pub fn lower(&self, builder: &mut Builder) {
        if !self.rlimits.is_empty() {
            builder.op(Op::Rlimits { limits: &self.rlimits });
        }
        if self.no_new_privileges {
            builder.op(Op::NoNewPrivileges {});
        }
    }

    /// Whether system calls are left to the host.
    pub fn notifies(&self) -> bool {
        self.listener.is_some()
    }

    /// What comes when there is nothing left to do but to execute, of all that confine the process: each step may
    /// deny what those before it need.
    pub fn lower_last(all: &[&Confinement], builder: &mut Builder) {
        let all = all.iter().filter(|one| one.no_new_privileges);
        all.clone().for_each(|one| one.landlock.process.lower(builder));
        for filter in all.clone().filter_map(|one| one.listener.as_ref()) {
            builder.op(Op::Listen { filter });
        }
        all.for_each(|one| one.filter(builder));
    }

    fn filter(&self, builder: &mut Builder) {
        if let Some(filter) = &self.filter {
            builder.op(Op::Seccomp { filter });
        }
    }
}
