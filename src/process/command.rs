//! `Command`, in the words of `std::process::Command`.

use super::schedule::DEFAULT_UMASK;
use super::{Entry, Limits, Passed, Schedule, Stdio};
use crate::id::{Gid, Uid};
use crate::pty::PtySize;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A program to run in a sandbox.
///
/// As in `std`, setters take `&mut self` and can be chained. Unlike in `std`:
/// the program is looked up inside the sandbox, in the `PATH` of the environment given here;
/// the environment is empty but for a fixed `PATH` (or what an image sets); the streams are [`Stdio::Null`] unless set
/// ([`Sandbox::output`](crate::Sandbox::output) pipes stdout and stderr); the working directory is `/`.
///
/// ```
/// use belljar::{Command, Stdio};
///
/// let mut command = Command::new("sort");
/// command.arg("-n").env("LC_ALL", "C").stdin(Stdio::Piped).stdout(Stdio::Piped);
/// ```
#[derive(Debug)]
pub struct Command {
    pub(super) program: OsString,
    pub(super) args: Vec<OsString>,
    pub(super) arg0: Option<OsString>,
    /// Changes of the environment; `None` removes.
    pub(super) env: BTreeMap<OsString, Option<OsString>>,
    pub(super) env_cleared: bool,
    pub(super) current_dir: Option<PathBuf>,
    pub(super) uid: Option<Uid>,
    pub(super) gid: Option<Gid>,
    pub(super) groups: Option<Vec<Gid>>,
    pub(super) stdin: Option<Stdio>,
    pub(super) stdout: Option<Stdio>,
    pub(super) stderr: Option<Stdio>,
    pub(super) fds: Vec<Passed>,
    pub(super) pty: Option<PtySize>,
    pub(super) limits: Limits,
    pub(super) schedule: Schedule,
    pub(super) umask: u32,
    /// The function of this program that is to be run instead of another program.
    pub(super) entry: Option<&'static Entry>,
}

/// The `PATH` of a payload whose environment names none.
pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Command {
    /// A program: a path inside the sandbox if it contains a slash, else a name to look
    /// for in `PATH`.
    pub fn new(program: impl AsRef<OsStr>) -> Command {
        Command {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            arg0: None,
            env: BTreeMap::new(),
            env_cleared: false,
            current_dir: None,
            uid: None,
            gid: None,
            groups: None,
            stdin: None,
            stdout: None,
            stderr: None,
            fds: Vec::new(),
            pty: None,
            limits: Limits::default(),
            schedule: Schedule::standard(),
            umask: DEFAULT_UMASK,
            entry: None,
        }
    }

    /// Adds an argument.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(&mut self, args: impl IntoIterator<Item = S>) -> &mut Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets the argument that the program sees as its own name.
    pub fn arg0(&mut self, arg0: impl AsRef<OsStr>) -> &mut Self {
        self.arg0 = Some(arg0.as_ref().to_owned());
        self
    }

    /// Sets a variable of the environment.
    pub fn env(&mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.env.insert(key.as_ref().to_owned(), Some(value.as_ref().to_owned()));
        self
    }

    /// Sets variables of the environment.
    pub fn envs<K: AsRef<OsStr>, V: AsRef<OsStr>>(&mut self, vars: impl IntoIterator<Item = (K, V)>) -> &mut Self {
        for (key, value) in vars {
            self.env(key, value);
        }
        self
    }

    /// Removes a variable, also the fixed `PATH`; the program is then looked for where `PATH` would have pointed.
    pub fn env_remove(&mut self, key: impl AsRef<OsStr>) -> &mut Self {
        self.env.insert(key.as_ref().to_owned(), None);
        self
    }

    /// Removes all variables, also the fixed `PATH`.
    pub fn env_clear(&mut self) -> &mut Self {
        self.env.clear();
        self.env_cleared = true;
        self
    }

    /// The working directory, an absolute path inside the sandbox. Magic links
    /// (`/proc/self/fd/N`) are not followed: `ELOOP`.
    pub fn current_dir(&mut self, dir: impl AsRef<Path>) -> &mut Self {
        self.current_dir = Some(dir.as_ref().to_owned());
        self
    }

    /// The user id inside. Default: 0 if the sandbox has it, else its first.
    pub fn uid(&mut self, uid: impl Into<Uid>) -> &mut Self {
        self.uid = Some(uid.into());
        self
    }

    /// The group id inside. Default: 0 if the sandbox has it, else its first.
    pub fn gid(&mut self, gid: impl Into<Gid>) -> &mut Self {
        self.gid = Some(gid.into());
        self
    }

    /// The supplementary groups inside, at most 64. Default: none. Where setgroups is
    /// denied (a map of the caller's own id only) none can be given.
    pub fn groups<G: Into<Gid>>(&mut self, groups: impl IntoIterator<Item = G>) -> &mut Self {
        self.groups = Some(groups.into_iter().map(Into::into).collect());
        self
    }

    /// Standard input.
    pub fn stdin(&mut self, stdin: impl Into<Stdio>) -> &mut Self {
        self.stdin = Some(stdin.into());
        self
    }

    /// Standard output.
    pub fn stdout(&mut self, stdout: impl Into<Stdio>) -> &mut Self {
        self.stdout = Some(stdout.into());
        self
    }

    /// Standard error.
    pub fn stderr(&mut self, stderr: impl Into<Stdio>) -> &mut Self {
        self.stderr = Some(stderr.into());
        self
    }

    /// Gives the payload a terminal of this size: a pty of the sandbox's own devpts, as its
    /// controlling terminal and as every standard stream that is not set otherwise. The host's end is
    /// [`Child::pty`](crate::Child::pty). There is no `/dev/console`: nothing in a sandbox speaks to one.
    ///
    /// Takes a devpts in the mount plan ([`Mount::dev`](crate::Mount::dev) has one).
    ///
    /// ```no_run
    /// use belljar::{Command, PtySize, RootFs, Sandbox};
    /// use std::io::{Read, Write};
    ///
    /// let sandbox = Sandbox::builder(RootFs::host()).build()?;
    /// let mut child = sandbox.spawn(Command::new("sh").arg("-i").pty(PtySize::default()))?;
    /// let mut terminal = child.pty.take().ok_or("no terminal")?;
    /// terminal.write_all(b"tty; exit\n")?;
    /// let mut screen = String::new();
    /// terminal.read_to_string(&mut screen)?; // … /dev/pts/0 …
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pty(&mut self, size: PtySize) -> &mut Self {
        self.pty = Some(size);
        self
    }

    /// Gives the payload this descriptor under this number, 3 to 1023, at most 32 of them. All
    /// that is not given stays closed, and nobody else in the sandbox has a copy.
    ///
    /// A file's offset and its status flags (O_NONBLOCK, O_APPEND) are shared with the caller's descriptor of it.
    /// By its name in `/proc/self/fd` the payload may open it anew, where its permissions allow that: for no more than it was
    /// opened for, and one for appending not to be written, where there is a Landlock domain
    /// ([`Landlock::standard`](crate::Landlock::standard)); without one for anything.
    /// The command keeps its own copy, to be spawned again: whoever waits for the end of a
    /// pipe or socket drops the command first. A directory is refused, for `..` leads out of
    /// it; see [`directory_fd`](Command::directory_fd).
    ///
    /// ```
    /// use belljar::{Command, SocketKind, socketpair};
    ///
    /// let (host, plugin) = socketpair(SocketKind::Packets)?;
    /// let mut command = Command::new("/plugins/worker");
    /// command.arg("--rpc=3").fd(3, plugin);
    /// # Ok::<(), belljar::Error>(())
    /// ```
    pub fn fd(&mut self, number: u32, fd: impl Into<OwnedFd>) -> &mut Self {
        self.fds.push(Passed::new(number, fd.into(), false));
        self
    }

    /// As [`fd`](Command::fd), for a directory of the host. Opts out of the isolation of
    /// the file system: from it the payload reaches, by `..`, everything of the mount that
    /// it lies on, as far as its ids may. [`Mount::bind`](crate::Mount::bind) shows a directory without that.
    pub fn directory_fd(&mut self, number: u32, fd: impl Into<OwnedFd>) -> &mut Self {
        self.fds.push(Passed::new(number, fd.into(), true));
        self
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The program as given.
    pub fn program(&self) -> &OsStr {
        &self.program
    }
}
