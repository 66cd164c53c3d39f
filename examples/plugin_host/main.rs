//! A host and an untrusted plugin, a program of its own (`plugin.rs`), that talk length-prefixed JSON over a socketpair.
//!
//! The plugin runs in a sandbox without network, capabilities or files of the host, under limits; it gets one
//! descriptor, number 3. Each request has a deadline, each frame a bound. Whatever the plugin does (it
//! crashes, hangs, spins, floods, forks), the host learns why it ended, from a typed verdict, and starts it anew:
//! no arguments, as root or as an ordinary user, exit status 0 if everything went as it must.

#[path = "../common/mod.rs"]
mod common;
mod protocol;

use belljar::{
    Bytes, CgroupLimits, Child, Command, ErrorKind, Exit, KillScope, Sandbox, Socket, SocketKind, Verdict, socketpair,
};
use protocol::{RPC, read_frame, write_frame};
use serde_json::{Value, json};
use std::error::Error;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

type Fallible<T> = Result<T, Box<dyn Error>>;

/// How long one answer may take.
const DEADLINE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match host() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("plugin_host: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The plugin's program: an argument, or the example `plugin` of the same build. `cargo run --example plugin_host`
/// builds one of them only, so the other is built here if it is missing.
fn plugin_path() -> Fallible<PathBuf> {
    if let Some(path) = std::env::args_os().nth(1) {
        return Ok(path.into());
    }
    let beside = std::env::current_exe()?.with_file_name("plugin");
    if !beside.exists() {
        let cargo = std::env::var_os("CARGO").ok_or("no plugin: cargo build --example plugin, or name one")?;
        let mut build = std::process::Command::new(cargo);
        build.args(["build", "--quiet", "--example", "plugin"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        if !build.status()?.success() || !beside.exists() {
            return Err(format!("cargo has not built {}", beside.display()).into());
        }
    }
    Ok(beside)
}

fn host() -> Fallible<()> {
    let (sandbox, memory) = sandbox()?;
    let mut host = Host { sandbox, plugin: None, started: 0 };

    println!("it works:        2 + 40 = {}", host.call("add", json!([2, 40]))?);
    println!("                 reversed: {}", host.call("reverse", json!("tacocat, backwards"))?);

    // Each misbehaviour, and what the host must learn of it. One with a deadline ends by the host's own hand.
    let killed: &[Verdict] = &[Verdict::KilledByHandle];
    let mut misbehaviours = vec![
        ("crash", &[Verdict::Signaled(6)][..]), // SIGABRT
        ("leave", &[Verdict::Exited(7)]),
        ("hang", killed),
        ("flood", killed),
        ("nonsense", killed),
        // where a hundred programs take long to start, their CPU time is over first
        ("fork", &[Verdict::KilledByHandle, Verdict::CpuTimeLimit]),
        ("spin", &[Verdict::CpuTimeLimit]),
        ("dawdle", &[Verdict::WallTimeLimit]),
    ];
    if memory {
        misbehaviours.push(("gorge", &[Verdict::OomKilled]));
    } else {
        println!("                 (no memory limit here: no cgroup can be made)");
    }
    for (method, expected) in misbehaviours {
        let (failure, exit) = host.provoke(method)?;
        println!("{:<16} {failure}; verdict: {}", format!("{method}:"), exit.verdict);
        if !expected.contains(&exit.verdict) {
            return Err(format!("{method} ended with {:?} and not with {expected:?}", exit.verdict).into());
        }
        let answer = host.call("add", json!([20, 22]))?; // by a new one
        if answer != json!(42) {
            return Err(format!("after {method} it answers {answer}").into());
        }
    }
    let started = host.started;
    let exit = host.plugin.take().ok_or("there is no plugin to end")?.close()?;
    println!("hung up:         verdict: {}; {started} plugins were started in all", exit.verdict);
    if exit.success() { Ok(()) } else { Err("it did not end when its host hung up".into()) }
}

/// The sandbox, and whether memory is limited: not on every host a cgroup can be made from here.
fn sandbox() -> Fallible<(Sandbox, bool)> {
    let plugin = plugin_path()?;
    let limits = CgroupLimits::new().memory_max(Bytes::mib(64)).swap_max(Bytes::new(0)).pids_max(64);
    let limited = common::program(&plugin)?.limits(limits).build().and_then(|sandbox| {
        sandbox.status(command().arg("sleeper").wall_time(Duration::from_millis(1)))?; // found out by trying
        Ok(sandbox)
    });
    match limited {
        Ok(sandbox) => Ok((sandbox, true)),
        Err(error) if matches!(error.kind(), ErrorKind::NotSupported | ErrorKind::NotPermitted | ErrorKind::Busy) => {
            Ok((common::program(&plugin)?.build()?, false))
        }
        Err(error) => Err(error.into()),
    }
}

fn command() -> Command {
    let mut command = Command::new(common::PROGRAM);
    command.cpu_time(Duration::from_millis(300)).wall_time(Duration::from_secs(4));
    command
}

/// Keeps a plugin running, one at a time.
struct Host {
    sandbox: Sandbox,
    plugin: Option<Plugin>,
    started: u32,
}

impl Host {
    fn plugin(&mut self) -> Fallible<&mut Plugin> {
        if self.plugin.is_none() {
            self.plugin = Some(Plugin::start(&self.sandbox)?);
            self.started += 1;
        }
        self.plugin.as_mut().ok_or_else(|| "no plugin".into())
    }

    fn call(&mut self, method: &str, params: Value) -> Fallible<Value> {
        Ok(self.plugin()?.call(method, params, DEADLINE)?)
    }

    /// Asks for something that must fail, ends what is left, and says how both went.
    fn provoke(&mut self, method: &str) -> Fallible<(Failure, Exit)> {
        // what a limit is to end has the time to run into it
        let patience = if matches!(method, "spin" | "dawdle" | "gorge") { Duration::from_secs(10) } else { DEADLINE };
        let failed = self.plugin()?.call(method, Value::Null, patience);
        let plugin = self.plugin.take().ok_or("no plugin")?;
        let exit = plugin.end()?;
        match failed {
            Err(failure) => Ok((failure, exit)),
            Ok(answer) => Err(format!("{method} answered {answer}").into()),
        }
    }
}

/// A running plugin. Dropping it would kill it, too.
struct Plugin {
    child: Child,
    socket: Socket,
    next_id: u64,
}

impl Plugin {
    fn start(sandbox: &Sandbox) -> Fallible<Plugin> {
        let (socket, theirs) = socketpair(SocketKind::Stream)?;
        let child = sandbox.spawn(command().fd(RPC, theirs))?; // our copy of its end goes with the command
        Ok(Plugin { child, socket, next_id: 1 })
    }

    fn call(&mut self, method: &str, params: Value, patience: Duration) -> Result<Value, Failure> {
        let id = self.next_id;
        self.next_id += 1;
        let deadline = Instant::now() + patience;
        let request = json!({ "id": id, "method": method, "params": params });
        write_frame(&mut Until { socket: &self.socket, deadline }, &request).map_err(Failure::of)?;
        let answer = read_frame(&mut Until { socket: &self.socket, deadline }).map_err(Failure::of)?;
        let answer = answer.ok_or(Failure::Closed)?;
        match (answer.get("id").and_then(Value::as_u64), answer.get("result")) {
            (Some(answered), Some(result)) if answered == id => Ok(result.clone()),
            _ => Err(Failure::Protocol(format!("no answer to request {id}"))),
        }
    }

    /// Ends a plugin that is of no use any more: at once, unless it is ending by itself.
    fn end(mut self) -> Fallible<Exit> {
        if let Some(exit) = self.child.wait_timeout(Duration::from_millis(100))? {
            return Ok(exit);
        }
        self.child.kill(KillScope::Tree)?; // with all that it has forked
        Ok(self.child.wait()?)
    }

    /// Hangs up, upon which a plugin ends by itself.
    fn close(mut self) -> Fallible<Exit> {
        drop(self.socket);
        Ok(self.child.wait_timeout(Duration::from_secs(10))?.ok_or("it goes on without a host")?)
    }
}

/// Why a call failed.
#[derive(Debug)]
enum Failure {
    TimedOut,
    Closed,
    Protocol(String),
}

impl Failure {
    fn of(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Failure::TimedOut,
            io::ErrorKind::InvalidData => Failure::Protocol(error.to_string()),
            _ => Failure::Closed, // EPIPE, a frame that is cut off
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::TimedOut => f.write_str("no answer in time"),
            Failure::Closed => f.write_str("the connection broke"),
            Failure::Protocol(what) => write!(f, "not the protocol ({what})"),
        }
    }
}

impl Error for Failure {}

/// Reads and writes until a moment, however many pieces it takes: a plugin that sends a byte
/// now and then cannot keep its host waiting.
struct Until<'a> {
    socket: &'a Socket,
    deadline: Instant,
}

impl Until<'_> {
    fn arm(&self) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.socket.set_timeout(Some(left)).map_err(io::Error::from)
    }
}

impl Read for Until<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.arm()?;
        self.socket.read(bytes)
    }
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.arm()?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
