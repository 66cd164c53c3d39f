//! A test harness: a server and a client, each in a sandbox of its own, that share one network namespace.
//!
//! [`two_services_talk`] is what stands in a test function: it starts both, lets them talk, and tears them down by
//! leaving the scope. Ten of them run at once, all on port 8080, for each pair has a loopback device that nobody
//! else sees; no port is chosen, no container engine asked, and nothing is left. No arguments, as root or as an
//! ordinary user.

mod common;

use belljar::{Bytes, Child, Command, NamespaceKind, Namespaces, Net, Sandbox, Stdio, User};
use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::task::Poll;
use std::time::{Duration, Instant};

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Of every server: they do not get into each other's way.
const ADDRESS: (&str, u16) = ("127.0.0.1", 8080);
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => harness(),
        ["server", name] => server(name),
        ["client", text] => client(text),
        _ => Err("unknown role".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("test_harness: {error}");
            ExitCode::FAILURE
        }
    }
}

fn harness() -> Fallible<()> {
    const PAIRS: usize = 10;
    let start = Instant::now();
    let results: Vec<Fallible<String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..PAIRS).map(|number| scope.spawn(move || two_services_talk(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("it panicked".into()))).collect()
    });
    let mut failed = 0;
    for (number, result) in results.iter().enumerate() {
        match result {
            Ok(said) => println!("test pair_{number} ... ok: {said}"),
            Err(error) => {
                failed += 1;
                println!("test pair_{number} ... FAILED: {error}");
            }
        }
    }
    println!("{} passed, {failed} failed, at once on port {}, in {:.0?}", PAIRS - failed, ADDRESS.1, start.elapsed());
    if failed == 0 { Ok(()) } else { Err("some failed".into()) }
}

/// The test function.
fn two_services_talk(number: usize) -> Fallible<String> {
    let server = Service::start(number)?;
    let client = server.beside()?;
    let output = client
        .output(Command::new(common::PROGRAM).args(["client", &format!("question {number}")]).wall_time(PATIENCE))?;
    let said = String::from_utf8(output.stdout)?;
    let expected = format!("server {number} heard \"question {number}\"");
    if !output.exit.success() || said != expected {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{said:?} instead of {expected:?}; the client {}: {errors}", output.exit.verdict).into());
    }
    Ok(said)
} // the server's sandbox ends here, with all that is in it, also after a failed assertion

/// A server that is ready, in a sandbox with a network of its own.
struct Service {
    child: Child,
}

impl Service {
    fn start(number: usize) -> Fallible<Service> {
        let sandbox = common::program(&std::env::current_exe()?)?.build()?;
        let mut command = Command::new(common::PROGRAM);
        command.args(["server", &number.to_string()]).stdout(Stdio::piped()).wall_time(PATIENCE);
        let mut child = sandbox.spawn(&command)?;
        // readiness is a line on its stdout, waited for with a bound
        match child.lines(Bytes::kib(1))?.next_within(PATIENCE)? {
            Poll::Ready(Some(line)) if line.bytes == b"ready" => Ok(Service { child }),
            other => Err(format!("the server is not ready: {other:?}").into()),
        }
    }

    /// A sandbox of its own in the same network. Its user namespace comes along, for it owns the network.
    fn beside(&self) -> Fallible<Sandbox> {
        let shared = self.child.namespaces()?;
        let namespaces = Namespaces::isolated()
            .user(User::Join(shared.get(NamespaceKind::User)))
            .net(Net::Join(shared.get(NamespaceKind::Network)));
        Ok(common::program(&std::env::current_exe()?)?.namespaces(namespaces).build()?)
    }
}

// ---- what is tested: they run in the sandboxes ---------------------------------------

fn server(name: &str) -> Fallible<()> {
    let listener = TcpListener::bind(ADDRESS)?;
    println!("ready");
    for connection in listener.incoming() {
        let mut connection = connection?;
        let mut question = String::new();
        connection.read_to_string(&mut question)?;
        write!(connection, "server {name} heard {question:?}")?;
    }
    Ok(())
}

fn client(question: &str) -> Fallible<()> {
    let mut connection = TcpStream::connect(ADDRESS)?;
    connection.write_all(question.as_bytes())?;
    connection.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    print!("{answer}");
    Ok(())
}
