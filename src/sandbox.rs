//! `Sandbox`: a checked specification, to spawn from any number of times.

use crate::cgroup::CgroupLimits;
use crate::child::{Child, Exit, Output, Reply};
use crate::enforce::Enforcement;
use crate::error::{Error, Result};
use crate::launch::{launch, prepare};
use crate::mount::{Mount, Mounts};
use crate::namespace::Namespaces;
use crate::plan::{Compiled, Spec, Template, compile};
use crate::process::{Command, Defaults, Init};
use crate::program::op::without;
use crate::rootfs::{Changes, RootFs};
use crate::security::Security;
use crate::sys::Errno;
use crate::testing;
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A specification that has been found consistent: a template, from which each spawn
/// makes a sandbox of its own. It holds no descriptors of its own and can be shared between threads.
///
/// ```no_run
/// use belljar::{Command, RootFs, Sandbox};
///
/// let sandbox = Sandbox::builder(RootFs::dir("/srv/debian")).build()?;
/// let output = sandbox.output(Command::new("cat").arg("/etc/os-release"))?;
/// assert!(output.exit.success());
/// # Ok::<(), belljar::Error>(())
/// ```
#[derive(Debug)]
pub struct Sandbox {
    template: Arc<Template>,
}

/// Says what a [`Sandbox`] is to be. Setters cannot fail; [`build`](SandboxBuilder::build) checks.
#[derive(Clone, Debug)]
pub struct SandboxBuilder {
    spec: Spec,
}

impl SandboxBuilder {
    /// The namespaces; [`Namespaces::isolated`] unless set.
    pub fn namespaces(mut self, namespaces: Namespaces) -> Self {
        self.spec.namespaces = namespaces;
        self
    }

    /// Replaces the mount plan; [`Mounts::standard`] unless set.
    pub fn mounts(mut self, mounts: Mounts) -> Self {
        self.spec.mounts = Some(mounts);
        self
    }

    /// Adds a mount behind the plan.
    pub fn mount(mut self, mount: Mount) -> Self {
        self.spec.extra.0.push(mount);
        self
    }

    /// What the payload may do: a [`Security`], or a [`Profile`](crate::Profile); `Profile::Plugin` unless set.
    pub fn security(mut self, security: impl Into<Security>) -> Self {
        self.spec.security = security.into();
        self
    }

    /// What it may use of memory, CPU time, processes and devices; 128 processes and threads
    /// where the host lets a group be made, unless set.
    pub fn limits(mut self, limits: CgroupLimits) -> Self {
        self.spec.limits = limits;
        self
    }

    /// Who is PID 1; [`Init::Shim`] unless set.
    pub fn init(mut self, init: Init) -> Self {
        self.spec.init = init;
        self
    }

    /// Checks everything, and starts nothing. The first call in a process makes the
    /// embedded program executable, which takes five descriptors for good.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSpec`](crate::ErrorKind::InvalidSpec) with all [`defects`](crate::Error::defects) together.
    pub fn build(self) -> Result<Sandbox> {
        prepare();
        Ok(Sandbox { template: Arc::new(Template::new(self.spec)?) })
    }
}

/// Features that this kernel has been found to lack, so that later spawns do not try.
static LACKING: AtomicU32 = AtomicU32::new(0);

impl Sandbox {
    /// Begins with the one thing that has no default: what the sandbox stands on.
    pub fn builder(root: RootFs) -> SandboxBuilder {
        SandboxBuilder {
            spec: Spec {
                root,
                namespaces: Namespaces::isolated(),
                mounts: None,
                extra: Mounts::none(),
                security: Security::new(),
                limits: CgroupLimits::implied(),
                init: Init::Shim,
            },
        }
    }

    /// Starts a program. The streams that the command leaves open are `/dev/null`.
    /// Returns when the program executes.
    ///
    /// # Errors
    /// One that names the step; nothing of the sandbox is left.
    pub fn spawn(&self, command: &Command) -> Result<Child> {
        self.spawn_with(command, Defaults::Null)
    }

    /// Starts a program, for tokio. No future: as tokio's own `Command::spawn` it takes the
    /// time of the thread, about a millisecond until the program executes; where that
    /// is too long, `spawn_blocking` a [`spawn`](Sandbox::spawn) and then [`AsyncChild::new`](crate::AsyncChild::new).
    ///
    /// # Errors
    /// As [`spawn`](Sandbox::spawn) and [`AsyncChild::new`](crate::AsyncChild::new).
    #[cfg(feature = "tokio")]
    pub fn spawn_async(&self, command: &Command) -> Result<crate::AsyncChild> {
        crate::AsyncChild::new(self.spawn(command)?)
    }

    /// Starts a program and waits for it. Pipes that the command asks for are closed, for nobody could read
    /// them; a terminal is refused, for the same reason.
    ///
    /// # Errors
    /// As [`spawn`](Sandbox::spawn) and [`Child::wait`].
    pub fn status(&self, command: &Command) -> Result<Exit> {
        command.check_unattended()?;
        let mut child = self.spawn(command)?;
        (child.stdout, child.stderr) = (None, None);
        child.wait()
    }

    /// Starts a program, waits for it, and collects what it writes. Stdout and stderr
    /// are pipes unless the command sets them.
    ///
    /// # Errors
    /// As [`spawn`](Sandbox::spawn) and [`Child::wait_with_output`].
    pub fn output(&self, command: &Command) -> Result<Output> {
        command.check_unattended()?;
        self.spawn_with(command, Defaults::Output)?.wait_with_output()
    }

    /// The changes in the persistent upper ([`Upper::Persist`](crate::Upper::Persist)), without a child: those of all
    /// runs so far. What the init layer of a run held is not known here: a change of such an entry shows as `Added`, or
    /// not at all if it was removed. [`Child::changes`] with [`RootFs::track_changes`] tells those apart.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSpec`](crate::ErrorKind::InvalidSpec): no persistent upper;
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound): no sandbox has run with it yet.
    pub fn changes(&self) -> Result<Changes> {
        let lacking = lacking();
        let by_call = lacking & without::OPENAT2 == 0;
        let ids = self.template.ids.as_ref();
        self.template.root.changes(self.template.source(ids, lacking), Template::ranges(ids), by_call)
    }

    /// What protects the sandboxes that are spawned from this: each protection, whether it is required,
    /// whether it holds. What only a launch finds out is in [`Child::enforcement`].
    pub fn enforcement(&self) -> &Enforcement {
        &self.template.enforcement
    }

    /// Runs a function of this program in the sandbox, in a process of its own, and waits for its
    /// result: see [`entry!`](crate::entry). The result is bound by [`Command::output_max`]. Without
    /// [`Command::wall_time`] a function that never ends is waited for for ever.
    ///
    /// That it did not return is no error, but told by the [`Reply`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSpec`](crate::ErrorKind::InvalidSpec) for a command that is no [`Command::entry`] or one that
    /// [`Entry::dispatch`](crate::Entry::dispatch) was not told of;
    /// [`ErrorKind::NotSupported`](crate::ErrorKind::NotSupported) when the program cannot be executed in this sandbox;
    /// as [`spawn`](Sandbox::spawn) and [`Child::wait`].
    pub fn call(&self, command: &mut Command, argument: &[u8]) -> Result<Reply> {
        command.known_entry()?;
        let (ours, theirs) = UnixStream::pair().map_err(|e| Error::call("make a socket for the call", Errno::of(e)))?;
        command.take_stdin(Some(OwnedFd::from(theirs)));
        let child = self.spawn(command);
        command.take_stdin(None);
        child?.converse(ours, argument)
    }

    /// The Program that spawning this command would run, one numbered line a step.
    ///
    /// # Errors
    /// Those of compiling: sources that are not there, ids that are not mapped.
    pub fn explain(&self, command: &Command) -> Result<Explanation> {
        let Compiled { program, .. } = compile(&self.template, command, Defaults::Null, lacking(), None)?;
        Ok(Explanation(program.to_string()))
    }

    fn spawn_with(&self, command: &Command, defaults: Defaults) -> Result<Child> {
        let mut without = lacking();
        let mut found = 0;
        loop {
            let Compiled { program, streams, kept, ids } =
                compile(&self.template, command, defaults, without, testing::fault())?;
            match launch(&program, without) {
                Ok(running) => {
                    // not again in this process; had it failed all the same, the cause would be another
                    LACKING.fetch_or(found, Ordering::Relaxed);
                    return Ok(Child::new(running, streams, kept, &self.template, command, without, ids));
                }
                Err(error) => match lacks(&error, without) {
                    // found out by trying: once more without it
                    Some(feature) => {
                        found |= feature;
                        without |= feature;
                    }
                    None => return Err(error),
                },
            }
        }
    }
}

/// The feature whose absence an error tells of, if it was used.
fn lacks(error: &Error, without: u32) -> Option<u32> {
    let feature = match (error.step()?.name(), error.raw_os_error()?) {
        // overlayfs takes id-mapped layers since Linux 5.19 only
        ("overlay" | "init-begin", libc::EINVAL) => without::IDMAPPED,
        // a security module that lets memfds be made but not executed
        ("clone", libc::EACCES) => without::MEMFD_EXEC,
        // a security module (that of Docker), or a /proc that is another one in the namespace that was joined
        ("user-limit", libc::EACCES | libc::EPERM | libc::EROFS | libc::ENOENT | libc::ESTALE) => without::USER_LIMITS,
        _ => return None,
    };
    (without & feature == 0).then_some(feature)
}

fn lacking() -> u32 {
    LACKING.load(Ordering::Relaxed) | testing::disabled()
}

/// A Program in words; see [`Sandbox::explain`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation(String);

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
