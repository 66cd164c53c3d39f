//! The filter of system calls (seccomp(2)): compiled here, in the parent, once for a
//! sandbox; installed by the payload's own process just before its program.

mod calls;
mod compile;
#[cfg(feature = "serde")]
mod json;
mod notify;
mod profile;
mod standard;
#[cfg(test)]
mod tests;

pub(crate) use calls::name_of;
pub use compile::Abi;
pub use profile::{Argument, Condition, SeccompAction, SeccompProfile};

use super::Capabilities;
use crate::error::Defect;
use std::sync::{Arc, OnceLock};

/// Which system calls the payload may make.
///
/// The filter is installed by the payload's process after all else (with [`no_new_privs`](crate::Security)), so it
/// binds the payload and everything that it starts, also as root and in [`Init::Payload`](crate::Init::Payload).
/// Required: a kernel without seccomp gives an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Seccomp {
    /// An allow-list: what Docker's default profile has, tightened; the table of differences is in the README.
    #[default]
    Default,
    /// What Docker's default profile allows, but for foreign ABIs.
    Container,
    /// A profile of one's own.
    Custom(SeccompProfile),
    /// A profile in the JSON form of moby or of the OCI runtime specification (feature `serde`).
    /// `includes` and `excludes` are weighed with the capabilities that are kept; `SCMP_ACT_NOTIFY` is
    /// [`SeccompAction::Notify`], and `listenerPath` is not looked at.
    #[cfg(feature = "serde")]
    Json(String),
    /// Opts out: all system calls of the kernel, of all ABIs.
    Unconfined,
}

/// A filter as the kernel takes it.
pub(super) type Filter = Arc<[u8]>;

/// What a profile is compiled to.
#[derive(Default)]
pub(super) struct Filters {
    /// The one that decides.
    pub deciding: Option<Filter>,
    /// The one that notifies, and what, in words.
    pub notifying: Option<(Filter, String)>,
}

impl Seccomp {
    /// Whether there is a filter that the library answers for, and what it is.
    pub(super) fn describe(&self) -> (bool, &'static str) {
        match self {
            Seccomp::Default => (true, "the default allow-list"),
            Seccomp::Container => (true, "what Docker allows"),
            Seccomp::Custom(_) => (true, "the caller's profile"),
            #[cfg(feature = "serde")]
            Seccomp::Json(_) => (true, "the caller's profile, from JSON"),
            Seccomp::Unconfined => (false, "no filter: all system calls"),
        }
    }

    /// Whether the payload may reach keys by system calls, as far as that is known.
    pub(super) fn allows_keyctl(&self) -> bool {
        !matches!(self, Seccomp::Default | Seccomp::Container)
    }

    /// Compiles it.
    pub(super) fn compile(&self, kept: Capabilities, abi: Abi, namespaces: bool, defects: &mut Vec<Defect>) -> Filters {
        static STANDARD: OnceLock<Filter> = OnceLock::new();
        let profile = match self {
            Seccomp::Unconfined => return Filters::default(),
            Seccomp::Default if kept == Capabilities::none() && abi == Abi::Native && !namespaces => {
                // what nearly every sandbox has is compiled once for the process
                let filter = STANDARD.get_or_init(|| compile::compile(&standard::plugin(kept), abi, defects).into());
                return Filters { deciding: Some(filter.clone()), notifying: None };
            }
            Seccomp::Default => standard::plugin(kept),
            Seccomp::Container => standard::container(kept),
            Seccomp::Custom(profile) => profile.clone(),
            #[cfg(feature = "serde")]
            Seccomp::Json(text) => match json::profile(text, kept, defects) {
                Some(profile) => profile,
                None => return Filters::default(),
            },
        };
        let profile = if namespaces { standard::with_namespaces(profile) } else { profile };
        let before = defects.len();
        profile.check(defects);
        if defects.len() > before {
            return Filters::default();
        }
        let mut compiled = |profile: &SeccompProfile| compile::compile(profile, abi, defects).into();
        Filters {
            deciding: Some(compiled(&profile.deciding())),
            notifying: profile.notifying().map(|(profile, what)| (compiled(&profile), what)),
        }
    }
}
