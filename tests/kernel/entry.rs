//! `entry!` and `Sandbox::call`: functions of this program in a sandbox.

use crate::common::*;
use crate::harness::{Need, Test};
use belljar::testing::feature;
use belljar::{Bytes, Command, Entry, ErrorKind, Init, RootFs, Sandbox, Stdio, Verdict};
use std::time::Duration;

pub fn tests() -> Vec<Test> {
    const USER: &[Need] = &[Need::UserNamespaces];
    vec![
        Test::new("entry::argument_and_result", USER, argument_and_result),
        Test::new("entry::runs_in_the_sandbox", USER, runs_in_the_sandbox),
        Test::new("entry::endings", USER, endings),
        Test::new("entry::limits", USER, limits),
        Test::new("entry::refusals", USER, refusals),
        Test::new("entry::threads_of_the_host", USER, threads),
    ]
}

/// To be known before `main` does anything else.
pub fn dispatch() {
    Entry::dispatch(&[&reverse, &look, &end, &large, &hold]);
}

/// Makes what is made once for the process.
pub fn once() -> belljar::Result<belljar::Reply> {
    host().build()?.call(&mut Command::entry(&reverse), b"")
}

belljar::entry! {
    fn reverse(bytes: Vec<u8>) -> Vec<u8> {
        bytes.into_iter().rev().collect()
    }
}

belljar::entry! {
    fn look(_nothing: Vec<u8>) -> Vec<u8> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_else(|e| e.to_string());
        let write = std::fs::OpenOptions::new().write(true).open("/proc/self/exe");
        format!(
            "{}{}{} {:?} {:?} {:?}",
            read("/proc/sys/kernel/hostname"),
            read("/proc/1/comm"),
            std::process::id() > 1,
            std::fs::read_link("/proc/self/exe"),
            write.map_err(|e| e.raw_os_error().is_some()).err(),
            std::env::vars().map(|(key, _)| key).collect::<Vec<_>>(),
        )
        .into_bytes()
    }
}

belljar::entry! {
    fn end(how: Vec<u8>) -> Vec<u8> {
        match how.as_slice() {
            b"panic" => panic!("as asked"),
            b"exit" => std::process::exit(3),
            b"abort" => std::process::abort(),
            b"loop" => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            _ => Vec::new(),
        }
    }
}

belljar::entry! {
    fn large(size: Vec<u8>) -> Vec<u8> {
        vec![7; String::from_utf8_lossy(&size).parse().unwrap_or(0)]
    }
}

belljar::entry! {
    /// Leaves a process behind that holds the socket.
    fn hold(_nothing: Vec<u8>) -> Vec<u8> {
        let child = std::process::Command::new("sleep").arg("60").stdin(std::process::Stdio::inherit()).spawn();
        child.map(|_| b"held".to_vec()).unwrap_or_default()
    }
}

belljar::entry! {
    fn unknown(bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }
}

fn quietly(entry: &'static Entry) -> Command {
    let mut command = Command::entry(entry);
    command.stderr(Stdio::Null);
    command
}

fn argument_and_result() -> Fallible<()> {
    let check = |sandbox: &Sandbox| -> Fallible<()> {
        for argument in [&b""[..], b"abc", &vec![9; 3 << 20]] {
            let reply = sandbox.call(&mut Command::entry(&reverse), argument)?;
            let wanted: Vec<u8> = argument.iter().rev().copied().collect();
            assert!(reply.result == Some(wanted) && reply.exit.success(), "{:?}", reply.exit);
        }
        Ok(())
    };
    check(&host().build()?)?;
    check(&host().init(Init::Payload).build()?)?;
    without(feature::MEMFD_EXEC, || check(&host().build()?))
}

fn runs_in_the_sandbox() -> Fallible<()> {
    let reply = host().build()?.call(Command::entry(&look).env("MINE", "1"), b"")?;
    let seen = String::from_utf8(reply.result.ok_or("no result")?)?;
    assert!(seen.starts_with("belljar\nbelljar\ntrue Ok(\"/memfd:"), "{seen}");
    assert!(seen.ends_with(" Some(true) [\"MINE\", \"PATH\"]"), "{seen}");
    Ok(())
}

fn endings() -> Fallible<()> {
    let sandbox = host().build()?;
    let ended = |how: &str| -> Fallible<Verdict> {
        let reply = sandbox.call(&mut quietly(&end), how.as_bytes())?;
        assert_eq!(reply.result, None);
        Ok(reply.exit.verdict)
    };
    assert_eq!(ended("panic")?, Verdict::Exited(101));
    assert_eq!(ended("exit")?, Verdict::Exited(3));
    assert_eq!(ended("abort")?, Verdict::Signaled(6));
    assert_eq!(sandbox.call(&mut Command::entry(&end), b"")?.result, Some(Vec::new()));
    // a process that outlives the function ends with the sandbox
    assert_eq!(sandbox.call(&mut quietly(&hold), b"")?.result, Some(b"held".to_vec()));
    Ok(())
}

fn limits() -> Fallible<()> {
    let sandbox = host().build()?;
    let reply = sandbox.call(Command::entry(&end).wall_time(Duration::from_millis(300)), b"loop")?;
    assert_eq!((reply.result, reply.exit.verdict), (None, Verdict::WallTimeLimit));
    let bounded = |size: &str| {
        let mut command = Command::entry(&large);
        sandbox.call(command.output_max(Bytes::kib(100)), size.as_bytes())
    };
    assert_eq!(bounded("102400")?.result.map(|r| r.len()), Some(102_400));
    for size in ["102401", "50000000"] {
        let reply = bounded(size)?;
        assert_eq!(reply.result, None);
        // one that has sent all of it and ended has ended by itself
        assert!(matches!(reply.exit.verdict, Verdict::OutputLimit | Verdict::Exited(0)), "{:?}", reply.exit);
    }
    Ok(())
}

fn refusals() -> Fallible<()> {
    let sandbox = host().build()?;
    let kind = |command: &mut Command| refused(sandbox.call(command, b"")).map(|error| error.kind());
    assert_eq!(kind(&mut Command::new("true"))?, ErrorKind::InvalidSpec);
    assert_eq!(kind(&mut Command::entry(&unknown))?, ErrorKind::InvalidSpec);
    assert_eq!(kind(Command::entry(&reverse).stdin(Stdio::Null))?, ErrorKind::InvalidSpec);
    let empty = Sandbox::builder(RootFs::empty()).build()?;
    let error = refused(empty.call(&mut Command::entry(&reverse), b""))?;
    assert_kind(&error, ErrorKind::ProgramNotFound);
    assert_eq!(error.step().map(|step| step.name()), Some("exec"));
    Ok(())
}

fn threads() -> Fallible<()> {
    let sandbox = host().build()?;
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..8u8)
            .map(|n| {
                let sandbox = &sandbox;
                scope.spawn(move || {
                    (0..5).all(|_| {
                        let reply = sandbox.call(&mut Command::entry(&reverse), &[n, 1]);
                        reply.is_ok_and(|reply| reply.result == Some(vec![1, n]))
                    })
                })
            })
            .collect();
        assert!(callers.into_iter().all(|caller| caller.join().unwrap_or(false)));
    });
    Ok(())
}
