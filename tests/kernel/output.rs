//! What a payload writes: bounded, streamed, and never waited for in vain.

use crate::common::*;
use crate::harness::{Need, Test};
use belljar::{Bytes, ErrorKind, Init, Line, LineEnd, Stdio, Stream, Verdict};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

pub fn tests() -> Vec<Test> {
    const USER: &[Need] = &[Need::UserNamespaces];
    vec![
        Test::new("output::a_bound_for_each_stream", USER, a_bound_for_each_stream),
        Test::new("output::a_flood", USER, a_flood),
        Test::new("output::closed_pipes", USER, closed_pipes),
        Test::new("output::a_process_outside_floods_the_pipe", USER, a_process_outside),
        Test::new("output::lines", USER, lines),
        Test::new("output::lines_of_a_silent_payload", USER, lines_of_a_silent_payload),
        Test::new("output::lines_that_never_end", USER, lines_that_never_end),
        Test::new("output::lines_end_with_the_sandbox", USER, lines_end_with_the_sandbox),
    ]
}

fn a_bound_for_each_stream() -> Fallible<()> {
    let sandbox = host().build()?;
    let script = "head -c 100000 /dev/zero; head -c 100000 /dev/zero >&2; exit 3";
    let output = sandbox.output(sh(script).output_max(Bytes::new(100_000)))?;
    assert_eq!((output.exit.verdict, output.stdout.len(), output.stderr.len()), (Verdict::Exited(3), 100_000, 100_000));
    for stream in ["", ">&2"] {
        // one byte too many: while it runs, and when it had exited before anybody looked
        for then in ["sleep 60", "exit 3"] {
            let script = format!("head -c 1001 /dev/zero {stream}; {then}");
            let output = sandbox.output(sh(&script).output_max(Bytes::new(1000)))?;
            assert_eq!(output.exit.verdict, Verdict::OutputLimit, "{script}");
            let lengths = (output.stdout.len(), output.stderr.len());
            assert_eq!(lengths, if stream.is_empty() { (1000, 0) } else { (0, 1000) });
        }
    }
    let output = sandbox.output(sh("echo x; sleep 60").output_max(Bytes::new(0)))?;
    assert_eq!((output.exit.verdict, output.stdout.len()), (Verdict::OutputLimit, 0));
    let output = sandbox.output(sh("exit 0").output_max(Bytes::new(0)))?;
    assert_eq!(output.exit.verdict, Verdict::Exited(0));
    Ok(())
}

fn a_flood() -> Fallible<()> {
    for init in [Init::Shim, Init::Payload] {
        let sandbox = host().init(init).build()?;
        let script = "yes & yes >&2 & trap '' TERM PIPE; yes";
        let output = sandbox.output(sh(script).output_max(Bytes::mib(1)))?;
        assert_eq!(output.exit.verdict, Verdict::OutputLimit, "{init:?}");
        assert!(output.stdout.len() == 1 << 20 || output.stderr.len() == 1 << 20);
        assert!(output.stdout.capacity() + output.stderr.capacity() < 4 << 20, "memory is bounded");
    }
    // another limit ends it first
    let output = host().build()?.output(sh("yes >&2; echo").wall_time(Duration::from_millis(100)))?;
    assert!(matches!(output.exit.verdict, Verdict::WallTimeLimit | Verdict::OutputLimit));
    Ok(())
}

fn closed_pipes() -> Fallible<()> {
    let output = host().build()?.output(&sh("echo a; exec >&- 2>&-; sleep 0.3; exit 4"))?;
    assert_eq!((output.exit.verdict, output.stdout.as_slice()), (Verdict::Exited(4), &b"a\n"[..]));
    Ok(())
}

/// One that has got hold of the payload's pipe and goes on writing for ever.
fn a_process_outside() -> Fallible<()> {
    let mut command = sh("echo said; sleep 0.3");
    let child = host().build()?.spawn(command.stdout(Stdio::Piped))?;
    let payload = children_of(child.id());
    let [payload] = payload[..] else { return Err(format!("children: {payload:?}").into()) };
    let mut pipe = std::fs::OpenOptions::new().write(true).open(format!("/proc/{payload}/fd/1"))?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut written = true;
            while written && !stop.load(Ordering::Relaxed) {
                written = pipe.write_all(b"noise\n").is_ok();
            }
        });
        let start = Instant::now();
        let output = child.wait_with_output();
        stop.store(true, Ordering::Relaxed);
        let output = output?;
        assert!(output.stdout.starts_with(b"said\n") || output.stdout.starts_with(b"noise\n"));
        assert!(start.elapsed() < Duration::from_secs(10));
        Ok::<_, Box<dyn std::error::Error>>(())
    })
}

fn lines() -> Fallible<()> {
    let script = "echo one; echo two >&2; printf '%0100d\\n' 7; echo; printf 'no newline'";
    let mut command = sh(script);
    let mut child = host().build()?.spawn(command.stdout(Stdio::Piped).stderr(Stdio::Piped))?;
    let all = child.lines(Bytes::new(10))?.collect::<belljar::Result<Vec<Line>>>()?;
    let of = |stream| {
        let lines = all.iter().filter(move |line| line.stream == stream);
        lines.map(|line| (String::from_utf8_lossy(&line.bytes).into_owned(), line.end)).collect::<Vec<_>>()
    };
    let expected = [
        ("one", LineEnd::Newline),
        ("0000000000", LineEnd::Truncated),
        ("", LineEnd::Newline),
        ("no newline", LineEnd::Eof),
    ];
    assert_eq!(of(Stream::Stdout), expected.map(|(text, end)| (text.to_owned(), end)));
    assert_eq!(of(Stream::Stderr), [("two".to_owned(), LineEnd::Newline)]);
    assert!(child.wait()?.success());
    assert_kind(&refused(child.lines(Bytes::new(0)))?, ErrorKind::InvalidSpec);
    assert_eq!(child.lines(Bytes::new(1))?.count(), 0, "the pipes are taken");
    Ok(())
}

fn lines_of_a_silent_payload() -> Fallible<()> {
    let mut command = sh("read line; echo \"heard $line\"");
    let mut child = host().build()?.spawn(command.stdin(Stdio::Piped).stdout(Stdio::Piped))?;
    let mut lines = child.lines(Bytes::kib(1))?;
    assert_eq!(lines.next_within(Duration::from_millis(50))?, Poll::Pending);
    child.stdin.as_mut().ok_or("no stdin")?.write_all(b"this\n")?;
    let Poll::Ready(Some(line)) = lines.next_within(Duration::from_secs(10))? else { return Err("no line".into()) };
    assert_eq!(line.bytes, b"heard this");
    assert_eq!(lines.next_within(Duration::from_secs(10))?, Poll::Ready(None));
    child.wait()?;
    Ok(())
}

/// Gigabytes without a newline cost the bound.
fn lines_that_never_end() -> Fallible<()> {
    let mut command = sh("head -c 50000000 /dev/zero; echo; echo after");
    let mut child = host().build()?.spawn(command.stdout(Stdio::Piped))?;
    let all = child.lines(Bytes::kib(1))?.collect::<belljar::Result<Vec<Line>>>()?;
    let seen: Vec<_> = all.iter().map(|line| (line.bytes.len(), line.end)).collect();
    assert_eq!(seen, [(1024, LineEnd::Truncated), (5, LineEnd::Newline)]);
    child.wait()?;
    Ok(())
}

fn lines_end_with_the_sandbox() -> Fallible<()> {
    let mut command = sh("echo said; (setsid sleep 60 &); exit 0");
    let mut child = host().build()?.spawn(command.stdout(Stdio::Piped))?;
    let outside = children_of(child.id())
        .first()
        .and_then(|pid| std::fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/fd/1")).ok());
    let start = Instant::now();
    assert_eq!(child.lines(Bytes::kib(1))?.count(), 1);
    assert!(start.elapsed() < Duration::from_secs(10));
    drop(outside);
    child.wait()?;
    Ok(())
}
