//! A host and an untrusted plugin that talk length-prefixed JSON over a socketpair.
//!
//! The plugin runs in a sandbox without network, capabilities or files of the host, under limits; it gets one
//! descriptor, number 3. Each request has a deadline, each frame a bound. Whatever the plugin does (it
//! crashes, hangs, spins, floods, forks), the host learns why it ended, from a typed verdict, and starts it anew:
//! no arguments, as root or as an ordinary user, exit status 0 if everything went as it must.

mod common;

use belljar::{
    Bytes, CgroupLimits, Child, Command, ErrorKind, Exit, KillScope, Sandbox, Socket, SocketKind, Verdict, socketpair,
};
use serde_json::{Value, json};
use std::error::Error;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

type Fallible<T> = Result<T, Box<dyn Error>>;

/// The descriptor that the plugin finds its host at.
const RPC: u32 = 3;
/// The longest frame that either side takes.
const FRAME: usize = 64 * 1024;
/// How long one answer may take.
const DEADLINE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let outcome = match std::env::args().nth(1).as_deref() {
        None => host(),
        Some("plugin") => plugin(),
        Some("sleeper") => loop {
            std::thread::sleep(Duration::from_secs(3600)); // what the plugin forks
        },
        Some(other) => Err(format!("unknown role {other:?}").into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("plugin_host: {error}");
            ExitCode::FAILURE
        }
    }
}

// ---- the host -------------------------------------------------------------------------

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
    let limits = CgroupLimits::new().memory_max(Bytes::mib(64)).swap_max(Bytes::new(0)).pids_max(64);
    let limited = common::program()?.limits(limits).build().and_then(|sandbox| {
        sandbox.status(command("sleeper").wall_time(Duration::from_millis(1)))?; // found out by trying
        Ok(sandbox)
    });
    match limited {
        Ok(sandbox) => Ok((sandbox, true)),
        Err(error) if matches!(error.kind(), ErrorKind::NotSupported | ErrorKind::NotPermitted | ErrorKind::Busy) => {
            Ok((common::program()?.build()?, false))
        }
        Err(error) => Err(error.into()),
    }
}

fn command(role: &str) -> Command {
    let mut command = Command::new(common::SELF);
    command.arg(role).cpu_time(Duration::from_millis(300)).wall_time(Duration::from_secs(4));
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
        let child = sandbox.spawn(command("plugin").fd(RPC, theirs))?; // our copy of its end goes with the command
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

// ---- the protocol ---------------------------------------------------------------------

/// A frame: the length of the text, four bytes, little-endian; the text.
fn write_frame(to: &mut impl Write, value: &Value) -> io::Result<()> {
    let text = value.to_string();
    let length = u32::try_from(text.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    to.write_all(&[&length.to_le_bytes(), text.as_bytes()].concat())
}

/// The next frame; `None` when the other end has hung up.
fn read_frame(from: &mut impl Read) -> io::Result<Option<Value>> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut length = [0; 4];
    match from.read(&mut length[..1])? {
        0 => return Ok(None),
        _ => from.read_exact(&mut length[1..])?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME {
        return Err(invalid(format!("a frame of {length} bytes"))); // nothing is allocated for it
    }
    let mut text = vec![0; length];
    from.read_exact(&mut text)?;
    serde_json::from_slice(&text).map(Some).map_err(|error| invalid(format!("no JSON: {error}")))
}

// ---- the plugin: runs in the sandbox, and is trusted with nothing -----------------------

fn plugin() -> Fallible<()> {
    let mut host = Socket::inherited(RPC)?;
    while let Some(request) = read_frame(&mut host)? {
        let (id, params) = (&request["id"], &request["params"]);
        let result = match request["method"].as_str().unwrap_or_default() {
            "add" => json!(params.as_array().into_iter().flatten().filter_map(Value::as_i64).sum::<i64>()),
            "reverse" => json!(params.as_str().unwrap_or_default().chars().rev().collect::<String>()),
            other => misbehave(other, &mut host)?,
        };
        write_frame(&mut host, &json!({ "id": id, "result": result }))?;
    }
    Ok(())
}

fn misbehave(how: &str, host: &mut Socket) -> Fallible<Value> {
    let sleep = || std::thread::sleep(Duration::from_secs(3600));
    match how {
        "crash" => std::process::abort(),
        "leave" => std::process::exit(7),
        "hang" | "dawdle" => sleep(),
        "spin" => loop {
            std::hint::spin_loop();
        },
        "flood" => loop {
            host.write_all(&[0xff; 65536])?; // the first four bytes announce a frame of 4 GiB
        },
        "nonsense" => host.write_all(b"\x05\x00\x00\x00{oops")?,
        "fork" => {
            for _ in 0..100 {
                // EAGAIN, where the number of processes is limited
                let _ = std::process::Command::new(common::SELF).arg("sleeper").spawn();
            }
            sleep();
        }
        "gorge" => {
            let mut memory: Vec<Vec<u8>> = Vec::new();
            loop {
                memory.push(vec![1; 1 << 20]);
            }
        }
        other => return Ok(json!(format!("no method {other}"))),
    }
    Ok(Value::Null)
}
