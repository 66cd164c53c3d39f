//! The label under which the payload's program is executed: an AppArmor profile (aa_change_onexec(2)) or a SELinux context
//! (setexeccon(3)), written to `/proc/thread-self/attr/…/exec` (proc(5)) by the payload's own process.

use crate::enforce::Enforcement;
use crate::error::{Defect, Error, ErrorKind, Result};
use crate::handle::Fd;
use crate::host::security_modules;
use crate::program::{Builder, Op, Strings, strings};
use crate::sys::Errno;
use crate::sys::kernel::abi::{O_DIRECTORY, O_PATH, PROC_SUPER_MAGIC};
use crate::sys::kernel::call;
use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// A label of a security module of the host, for [`Security::exec_label`](crate::Security::exec_label).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExecLabel {
    /// The name of a profile that is loaded, as aa-status(8) lists it: printable ASCII without spaces, at most 1024
    /// bytes.
    AppArmor(String),
    /// A context `user:role:type[:level]` that the loaded policy knows. Letters, digits and `_.:,-`, at most 1024 bytes.
    Selinux(String),
}

/// Attribute files take a page at once.
const LONGEST: usize = 1024;

impl ExecLabel {
    fn text(&self) -> &str {
        match self {
            ExecLabel::AppArmor(text) | ExecLabel::Selinux(text) => text,
        }
    }

    fn module(&self) -> &'static str {
        match self {
            ExecLabel::AppArmor(_) => "AppArmor",
            ExecLabel::Selinux(_) => "SELinux",
        }
    }

    /// What is wrong with it.
    pub(super) fn check(&self, report: &mut Enforcement, defects: &mut Vec<Defect>) {
        let text = self.text();
        let (good, hint): (fn(u8) -> bool, _) = match self {
            ExecLabel::AppArmor(_) => {
                (|byte| byte.is_ascii_graphic(), "the name of a profile: printable ASCII without spaces")
            }
            ExecLabel::Selinux(_) => (
                |byte| byte.is_ascii_alphanumeric() || b"_.:,-".contains(&byte),
                "user:role:type or user:role:type:level, of letters, digits and _.,-",
            ),
        };
        let parts = text.split(':').take(3).filter(|part| !part.is_empty()).count();
        let whole = matches!(self, ExecLabel::AppArmor(_)) || parts == 3;
        if text.is_empty() || text.len() > LONGEST || !text.bytes().all(good) || !whole {
            defects.push(Defect::new(
                format!("{:?} is no label of {}", text.get(..80).unwrap_or(text), self.module()),
                format!("{hint}; 1 to {LONGEST} bytes"),
            ));
        } else if text == "unconfined" {
            defects.push(Defect::new("the AppArmor label unconfined confines nothing", "a profile, or no exec_label"));
        }
        report.required("exec-label", true, format!("{}: {text}", self.module()));
    }

    /// Whether the module is there.
    pub(super) fn check_host(&self) -> Result<()> {
        let there = match self {
            ExecLabel::AppArmor(_) => security_modules::apparmor(),
            ExecLabel::Selinux(_) => security_modules::selinux(),
        };
        if there {
            return Ok(());
        }
        let name = self.module();
        let running = security_modules::list().map_or_else(String::new, |list| format!(" (it runs with {list})"));
        Err(Error::new(ErrorKind::NotSupported, format!("label the payload: {name} is not active on this host"))
            .with_hint(format!(
                "a kernel booted with {} in its parameter lsm={running}; or no Security::exec_label",
                name.to_ascii_lowercase()
            )))
    }

    /// Appends the op, for the payload's own process. The /proc is the host's: what a layer has there is not looked at.
    pub(super) fn lower(&self, builder: &mut Builder) -> Result<()> {
        let fail = |errno| {
            Error::call("open /proc to label the payload", errno).with_hint("a host process with a procfs on /proc")
        };
        let proc = OpenOptions::new().read(true).custom_flags(O_PATH | O_DIRECTORY).open("/proc");
        let proc = proc.map_err(|error| fail(Errno::of(error)))?;
        if call::fstatfs(proc.as_raw_fd()).map_err(fail)?.f_type != PROC_SUPER_MAGIC {
            return Err(fail(Errno::ESTALE));
        }
        let (files, value): (&[_], _) = match self {
            // the directory of its own since Linux 5.8
            ExecLabel::AppArmor(name) => {
                (&[c"thread-self/attr/apparmor/exec", c"thread-self/attr/exec"], format!("exec {name}"))
            }
            ExecLabel::Selinux(context) => (&[c"thread-self/attr/exec"], context.clone()),
        };
        let proc = builder.send(Fd::Owned(proc.into()));
        builder.op(Op::ExecLabel { proc, files: Strings(&strings(files)), value: value.as_bytes() });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_of_their_modules_form() {
        let defects = |label: ExecLabel| {
            let (mut defects, mut report) = (Vec::new(), Enforcement::default());
            label.check(&mut report, &mut defects);
            assert!(report.get("exec-label").is_some());
            defects.len()
        };
        let apparmor = |name: &str| defects(ExecLabel::AppArmor(name.into()));
        let selinux = |context: &str| defects(ExecLabel::Selinux(context.into()));
        for good in ["plugin", "/usr/bin/man", "a//b", ":ns:profile", "docker-default", &"x".repeat(1024)] {
            assert_eq!(apparmor(good), 0, "{good}");
        }
        for bad in ["", "two words", "new\nline", "nul\0", "ümlaut", "unconfined", &"x".repeat(1025)] {
            assert_eq!(apparmor(bad), 1, "{bad}");
        }
        for good in ["system_u:system_r:container_t:s0", "u:r:t", "u:r:t:s0-s0:c0.c1023", "u:r:t:s0:c1,c2"] {
            assert_eq!(selinux(good), 0, "{good}");
        }
        for bad in ["", "u:r", "u::t:s0", ":r:t", "u:r:t s0", "u:r:t\0", "container_t"] {
            assert_eq!(selinux(bad), 1, "{bad}");
        }
    }
}
