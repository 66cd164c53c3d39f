//! Starting points, by how much the payload is trusted.

use super::{Capabilities, Capability, Keyring, Landlock, Rlimits, Seccomp, Security};

/// A [`Security`] to start from; what it opts out of is in the [enforcement report](crate::Enforcement).
///
/// | | `Plugin` | `Container` | `Trusted` |
/// | --- | --- | --- | --- |
/// | capabilities in the sandbox's user namespace | none | Docker's 14 | all |
/// | new privileges (set-uid) | none | allowed | allowed |
/// | system calls | the tightened allow-list | what Docker allows | all |
/// | nested namespaces | none | none | allowed |
/// | rlimits | lowered | the host process's | the host process's |
/// | Landlock | mirrors the mounts | none | none |
/// | session keyring | new | new | the caller's |
///
/// ```no_run
/// use belljar::{Command, Profile, RootFs, Sandbox};
///
/// let builder = Sandbox::builder(RootFs::dir("/srv/debian")).security(Profile::Container.security());
/// # Ok::<(), belljar::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Untrusted code that computes: the default of a [`Sandbox`](crate::Sandbox).
    #[default]
    Plugin,
    /// What Docker allows: distributions' programs, package managers, servers that change their user.
    Container,
    /// Code of one's own, as in a test: namespaces give order, and nothing stands against an attack.
    Trusted,
}

impl Profile {
    /// The security that it stands for.
    pub fn security(self) -> Security {
        match self {
            Profile::Plugin => Security::new(),
            Profile::Container => Security::new()
                .capabilities(Capabilities::container())
                .allow_new_privileges()
                .seccomp(Seccomp::Container)
                .rlimits(Rlimits::inherited())
                .landlock(Landlock::none()),
            Profile::Trusted => Security::new()
                .capabilities(Capabilities::keep(Capability::ALL.iter().copied()))
                .allow_new_privileges()
                .allow_nested_namespaces()
                .seccomp(Seccomp::Unconfined)
                .rlimits(Rlimits::inherited())
                .landlock(Landlock::none())
                .keyring(Keyring::Inherit),
        }
    }
}

impl From<Profile> for Security {
    fn from(profile: Profile) -> Security {
        profile.security()
    }
}
