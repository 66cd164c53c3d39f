//! Many sandboxes in one event loop, by one thread and without an async runtime: here with
//! mio. A `Child` is a descriptor that becomes readable when its sandbox has ended, and its
//! pipes are descriptors as well; nothing else is needed.
//!
//! ```text
//! cargo run --example reactor
//! ```

use belljar::{Child, Command, RootFs, Sandbox, Stdio};
use mio::unix::{SourceFd, pipe::Receiver};
use mio::{Events, Interest, Poll, Token};
use std::error::Error;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ChildStdout;
use std::time::Duration;

/// A sandbox in the loop: token 2n is its end, 2n + 1 its output.
struct Watched {
    child: Child,
    output: Receiver,
    said: Vec<u8>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let sandbox = Sandbox::builder(RootFs::host()).build()?;
    let mut poll = Poll::new()?;
    let mut all = Vec::new();
    for n in 0..8usize {
        let script = format!("sleep 0.0{}; echo \"I am process $$ of sandbox {n}\"; exit {n}", 9 - n);
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).stdout(Stdio::Piped).wall_time(Duration::from_secs(10));
        let mut child = sandbox.spawn(&command)?;
        let pipe = OwnedFd::from(child.stdout.take().ok_or("no stdout")?);
        let mut output = Receiver::from(ChildStdout::from(pipe));
        output.set_nonblocking(true)?;
        poll.registry().register(&mut SourceFd(&child.as_fd().as_raw_fd()), Token(2 * n), Interest::READABLE)?;
        poll.registry().register(&mut output, Token(2 * n + 1), Interest::READABLE)?;
        all.push(Some(Watched { child, output, said: Vec::new() }));
    }
    let mut events = Events::with_capacity(64);
    let mut failed = 0;
    while all.iter().any(Option::is_some) {
        poll.poll(&mut events, None)?; // each has a wall_time: it ends
        for event in &events {
            let (n, is_end) = (event.token().0 / 2, event.token().0 % 2 == 0);
            let Some(watched) = &mut all[n] else { continue };
            drain(&mut watched.output, &mut watched.said)?;
            if is_end && let Some(exit) = watched.child.try_wait()? {
                // what it wrote is in the pipe by now, whoever else holds that open
                drain(&mut watched.output, &mut watched.said)?;
                print!("{exit}: {}", String::from_utf8_lossy(&watched.said));
                failed += usize::from(exit.code() != Some(n as i32) || watched.said.is_empty());
                poll.registry().deregister(&mut SourceFd(&watched.child.as_fd().as_raw_fd()))?;
                all[n] = None;
            }
        }
    }
    if failed == 0 { Ok(()) } else { Err(format!("{failed} sandboxes ended otherwise").into()) }
}

/// Reads until there is no more: epoll(7) tells of an edge once.
fn drain(output: &mut Receiver, said: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
    let mut buffer = [0u8; 4096];
    loop {
        match output.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => said.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
}
