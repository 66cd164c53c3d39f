//! The namespaces of a running sandbox, for others to join.

use super::Child;
use crate::error::{Error, ErrorKind, Result};
use crate::handle::{Namespace, NamespaceHandles, NamespaceKind};
use crate::sys::Errno;
use std::fs::File;

impl Child {
    /// One of the sandbox's namespaces, for another sandbox to join. Holding it keeps the
    /// namespace alive.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the sandbox has ended.
    pub fn namespace(&self, kind: NamespaceKind) -> Result<Namespace> {
        let ended = || Error::new(ErrorKind::NotFound, "the sandbox has ended, and its namespaces with it");
        if self.exit.is_some() {
            return Err(ended());
        }
        // The shim itself stays outside of a pid namespace that it joined: its children's is meant.
        let name = if kind == NamespaceKind::Pid { "pid_for_children" } else { kind.file_name() };
        let fd = File::open(format!("/proc/{}/ns/{name}", self.pid)).map_err(|e| {
            let errno = Errno::of(e);
            Error::call(format!("open the {} namespace of the sandbox {}", kind.file_name(), self.pid), errno)
                .with_hint("a sandbox that runs, and a host with /proc")
        })?;
        // Whoever has reaped it meanwhile, its number was its own if the process is still there.
        match self.pidfd.send_signal(0) {
            Err(Errno::ESRCH) => Err(ended()),
            _ => Ok(Namespace::from_fd(fd.into(), kind, format!("{} of sandbox {}", kind.file_name(), self.pid))),
        }
    }

    /// All eight of the sandbox's namespaces, for other sandboxes to join: what a pod, or the
    /// network mode "container", is made of. They outlive the sandbox as long as the handles are held; only a
    /// pid namespace takes no new process once its init has ended.
    ///
    /// A namespace that the sandbox has inherited is the host's. To join what a sandbox owns takes
    /// its user namespace too, or CAP_SYS_ADMIN on the host.
    ///
    /// ```no_run
    /// use belljar::{Command, Namespaces, Net, NamespaceKind, RootFs, Sandbox, User};
    ///
    /// let server = Sandbox::builder(RootFs::host()).build()?.spawn(&Command::new("server"))?;
    /// let shared = server.namespaces()?;
    /// let beside = Namespaces::isolated()
    ///     .user(User::Join(shared.get(NamespaceKind::User)))
    ///     .net(Net::Join(shared.get(NamespaceKind::Network)));
    /// let client = Sandbox::builder(RootFs::host()).namespaces(beside).build()?;
    /// client.status(Command::new("client").arg("127.0.0.1"))?;
    /// # Ok::<(), belljar::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`namespace`](Child::namespace).
    pub fn namespaces(&self) -> Result<NamespaceHandles> {
        NamespaceHandles::new(|kind| self.namespace(kind))
    }
}
