//! The untrusted plugin of the example `plugin_host`: a program of its own, which runs in the sandbox and is
//! trusted with nothing. It adds, reverses, and misbehaves when it is asked to.

mod protocol;

use belljar::Socket;
use protocol::{RPC, read_frame, write_frame};
use serde_json::{Value, json};
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

type Fallible<T> = Result<T, Box<dyn Error>>;

/// Where the host mounts it.
const PROGRAM: &str = "/program";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("sleeper") {
        std::thread::sleep(Duration::from_secs(3600)); // what it forks
    }
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("plugin: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Fallible<()> {
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
                let _ = std::process::Command::new(PROGRAM).arg("sleeper").spawn();
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
