//! What the payload may do, whatever it is: capabilities and new privileges.

mod capabilities;

pub use capabilities::{Capabilities, Capability};

use crate::program::{Builder, Op};

/// The payload's privileges. The default is none, and none to be gained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Security {
    pub(crate) capabilities: Capabilities,
    pub(crate) allow_new_privileges: bool,
}

impl Security {
    /// No capabilities, no_new_privs.
    pub fn new() -> Security {
        Security::default()
    }

    /// Opts out: keeps these capabilities, in the sandbox's user namespace.
    pub fn capabilities(mut self, kept: Capabilities) -> Self {
        self.capabilities = kept;
        self
    }

    /// Opts out of no_new_privs (PR_SET_NO_NEW_PRIVS(2const)): set-uid programs and file
    /// capabilities of mounts that allow them take effect.
    pub fn allow_new_privileges(mut self) -> Self {
        self.allow_new_privileges = true;
        self
    }

    /// Appends what follows the ids.
    pub(crate) fn lower(&self, builder: &mut Builder) {
        if !self.allow_new_privileges {
            builder.op(Op::NoNewPrivileges {});
        }
    }
}
