//! Functions of this program that run in a sandbox.
//!
//! A closure cannot run soundly after a clone in a host with threads: the child would share or
//! inherit locks, allocator and descriptors in whatever state they are. So the function runs in a
//! new execution of this very program, from a sealed copy of it, and gets its argument as bytes.

use super::{Command, Stdio};
use crate::error::{Error, ErrorKind, Result};
use crate::handle::Fd;
use crate::program::op::without;
use crate::sys::{Errno, memfd};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

/// A function of this program that can be run in a sandbox; [`entry!`](crate::entry) makes one.
#[derive(Debug)]
pub struct Entry {
    name: &'static str,
    function: fn(Vec<u8>) -> Vec<u8>,
}

/// What the first argument of such an execution begins with.
const MARK: &str = "belljar entry ";

/// What it says first: that this program knows its entries.
pub(crate) const READY: u8 = b'R';

/// The entries that `dispatch` was told of.
static KNOWN: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());

impl Entry {
    /// A function under a name of its own: see [`entry!`](crate::entry), which finds the name.
    pub const fn new(name: &'static str, function: fn(Vec<u8>) -> Vec<u8>) -> Entry {
        Entry { name, function }
    }

    /// The name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where this program was executed to run one of these: runs it and exits, without returning.
    /// Everywhere else it only remembers them.
    ///
    /// To be called first in `main`, before anything that is not to happen in a sandbox. That is
    /// not done behind your back, by code that runs before `main`, for most of `std` makes no
    /// promise there.
    pub fn dispatch(entries: &[&'static Entry]) {
        if let Some(name) = std::env::args_os().next().as_deref().and_then(wanted) {
            let found = entries.iter().find(|entry| entry.name.as_bytes() == name.as_bytes());
            // 125, as for what cannot be set up; 1: nobody listens any more
            std::process::exit(match found {
                None => 125,
                Some(entry) => i32::from(entry.serve().is_err()),
            });
        }
        KNOWN.lock().unwrap_or_else(PoisonError::into_inner).extend(entries.iter().map(|entry| entry.name));
    }

    /// Standard input is the socket: the argument comes as its length (u64, little-endian) and its
    /// bytes, the result goes back in the same form behind [`READY`].
    fn serve(&self) -> io::Result<()> {
        let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        socket.write_all(&[READY])?;
        let mut len = [0u8; 8];
        socket.read_exact(&mut len)?;
        let mut argument = Vec::new();
        (&socket).take(u64::from_le_bytes(len)).read_to_end(&mut argument)?;
        let result = (self.function)(argument);
        socket.write_all(&(result.len() as u64).to_le_bytes())?;
        socket.write_all(&result)
    }
}

fn wanted(first: &OsStr) -> Option<&OsStr> {
    first.as_bytes().strip_prefix(MARK.as_bytes()).map(OsStr::from_bytes)
}

impl Command {
    /// A function of this program, for [`Sandbox::call`](crate::Sandbox::call), with this command's
    /// environment, ids, limits, stdout and stderr. Standard input is taken.
    pub fn entry(entry: &'static Entry) -> Command {
        let mut command = Command::new(format!("{MARK}{}", entry.name));
        command.entry = Some(entry);
        command
    }

    /// Lends the command a standard input, for the length of a spawn.
    pub(crate) fn take_stdin(&mut self, fd: Option<OwnedFd>) {
        self.stdin = fd.map(Stdio::Fd);
    }

    /// The function that the command runs, if this program has been told of it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSpec`].
    pub(crate) fn known_entry(&self) -> Result<&'static Entry> {
        let known = |entry: &&Entry| KNOWN.lock().unwrap_or_else(PoisonError::into_inner).contains(&entry.name);
        let refuse = |what: String, hint: &str| Err(Error::new(ErrorKind::InvalidSpec, what).with_hint(hint));
        match self.entry {
            None => refuse(format!("call {:?}: it is a program", self.program), "Command::entry; or Sandbox::spawn"),
            Some(_) if self.stdin.is_some() => {
                refuse("call an entry with a standard input of its own".into(), "the argument, or Command::fd")
            }
            Some(entry) if known(&entry) => Ok(entry),
            Some(entry) => refuse(
                format!("call {}: this program would not find it when it is executed in the sandbox", entry.name),
                "Entry::dispatch(&[&…]) with all entries as the first statement of main",
            ),
        }
    }
}

/// This program, as nobody can change it: made once for the process.
pub(super) fn own_program(without: u32) -> Result<Fd> {
    static MEMFD: Mutex<Option<Arc<OwnedFd>>> = Mutex::new(None);
    static FILE: Mutex<Option<Arc<OwnedFd>>> = Mutex::new(None);
    let in_memory = without & without::MEMFD_EXEC == 0;
    let copy = if in_memory { &MEMFD } else { &FILE };
    let mut copy = copy.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(fd) = &*copy {
        return Ok(Fd::Shared(fd.clone()));
    }
    let mut own = File::open("/proc/self/exe")
        .map_err(|e| Error::call("open this program (/proc/self/exe)", Errno::of(e)).with_hint("a host with /proc"))?;
    let sealed = if in_memory { memfd::sealed_copy(c"belljar-entry", &mut own) } else { Err(Errno::EACCES) };
    let made = match sealed {
        // vm.memfd_noexec is 2
        Err(Errno::EACCES | Errno::ENOSYS) => memfd::unlinked_copy(&mut own),
        made => made,
    };
    let made = Arc::new(made.map_err(|errno| Error::call("make a copy of this program", errno))?);
    *copy = Some(made.clone());
    Ok(Fd::Shared(made))
}

/// Makes a function callable in a sandbox: a `static` [`Entry`](crate::Entry) of its name.
///
/// The function takes the bytes of its argument and gives those of its result; how they are
/// encoded is its own affair. It runs in a new process: the host's memory, descriptors and
/// threads are not there.
///
/// ```no_run
/// belljar::entry! {
///     /// Counts words.
///     fn count(text: Vec<u8>) -> Vec<u8> {
///         text.split(|b| b.is_ascii_whitespace()).filter(|w| !w.is_empty()).count().to_string().into()
///     }
/// }
///
/// fn main() -> belljar::Result<()> {
///     belljar::Entry::dispatch(&[&count]);
///     let sandbox = belljar::Sandbox::builder(belljar::RootFs::host()).build()?;
///     let reply = sandbox.call(&mut belljar::Command::entry(&count), b"one two")?;
///     assert_eq!(reply.result.as_deref(), Some(&b"2"[..]));
///     Ok(())
/// }
/// ```
///
/// **Cost**: the first call in a process copies its executable into memory, once; each call is a spawn
/// and an execution of this program. **Limits**: the program's interpreter and libraries must be in
/// the sandbox (they are in `RootFs::host()`; a static executable needs none), and `main` must begin
/// with [`Entry::dispatch`](crate::Entry::dispatch), so that a test needs `harness = false`.
#[macro_export]
macro_rules! entry {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($argument:ident: Vec<u8> $(,)?) -> Vec<u8> $body:block) => {
        $(#[$doc])*
        #[allow(non_upper_case_globals)]
        $vis static $name: $crate::Entry = {
            fn function($argument: ::std::vec::Vec<u8>) -> ::std::vec::Vec<u8> $body
            $crate::Entry::new(::core::concat!(::core::module_path!(), "::", ::core::stringify!($name)), function)
        };
    };
}
