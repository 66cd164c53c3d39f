//! What most tests need: a sandbox over the host's programs, and a shell in it.

use belljar::{Child, Command, ErrorKind, Mount, Output, RootFs, Sandbox, SandboxBuilder, Stdio, testing};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub type Fallible<T> = Result<T, Box<dyn Error>>;

/// How many times a race is run: a thousand, a hundred thousand with `BELLJAR_TEST_LONG=1` (or as many as it says), a hundred in
/// a virtual machine without hardware support, where each takes 50 times as long.
pub fn races() -> usize {
    match (std::env::var("BELLJAR_TEST_LONG").ok(), std::env::var_os("VMTEST")) {
        (Some(count), _) => count.parse().ok().filter(|count| *count > 1).unwrap_or(100_000),
        (None, Some(_)) => 100,
        (None, None) => 1_000,
    }
}

/// A bound in time, ten times as long in a virtual machine without hardware support.
pub fn patience(bound: Duration) -> Duration {
    if std::env::var_os("VMTEST").is_some() { bound * 10 } else { bound }
}

/// Waits until it holds, for so long at most.
pub fn eventually(bound: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() && start.elapsed() < bound {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Tells another thread to end, however this one ends: a scope waits for it.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// `/bin/sh -c script`.
pub fn sh(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script);
    command
}

/// What a script prints in a sandbox; it must succeed and print nothing on stderr.
pub fn prints(sandbox: &Sandbox, script: &str) -> Fallible<String> {
    let output = sandbox.output(&sh(script))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.exit.success() || !stderr.is_empty() {
        return Err(format!("{script:?} ended with {}: {stderr}", output.exit).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

/// The text of an output's streams.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Spawns a script, and waits for its first line, `ready`.
pub fn ready(builder: SandboxBuilder, script: &str) -> Fallible<(Child, BufReader<PipeReader>)> {
    let mut child = builder.build()?.spawn(sh(script).stdout(Stdio::Piped))?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    assert_eq!(line, "ready\n");
    Ok((child, lines))
}

/// A process with no more descriptors to be had than these, until it is dropped.
pub struct Exhausted {
    limit: (u64, u64),
    fill: Vec<File>,
}

impl Exhausted {
    pub fn but(free: usize) -> Fallible<Exhausted> {
        let limit = getrlimit(Resource::RLIMIT_NOFILE)?;
        let numbers = std::fs::read_dir("/proc/self/fd")?.flatten();
        let highest = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok()).max();
        let mut exhausted = Exhausted { limit, fill: Vec::new() };
        setrlimit(Resource::RLIMIT_NOFILE, highest.unwrap_or(2) + 1 + free as u64, limit.1)?;
        while let Ok(file) = File::open("/dev/null") {
            exhausted.fill.push(file);
        }
        exhausted.fill.truncate(exhausted.fill.len() - free);
        Ok(exhausted)
    }
}

impl Drop for Exhausted {
    fn drop(&mut self) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, self.limit.0, self.limit.1);
    }
}

/// The host's root, read-only.
pub fn host() -> SandboxBuilder {
    Sandbox::builder(RootFs::host())
}

/// The host's program directories over a root of one's own.
pub fn with_programs(builder: SandboxBuilder) -> SandboxBuilder {
    ["/usr", "/bin", "/lib", "/lib64", "/sbin"]
        .into_iter()
        .filter(|dir| Path::new(dir).exists())
        .fold(builder, |builder, dir| builder.mount(Mount::bind(dir, dir).read_only()))
}

/// Directories to hold the host's programs, so that a layer needs no making of targets.
pub fn program_directories(layer: &Path) -> Fallible<()> {
    for dir in ["usr", "bin", "lib", "lib64", "sbin", "proc", "dev", "tmp", "etc"] {
        std::fs::create_dir_all(layer.join(dir))?;
    }
    Ok(())
}

/// Runs `body` with these kernel features switched off, and on again after it.
pub fn without<T>(features: u32, body: impl FnOnce() -> Fallible<T>) -> Fallible<T> {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            testing::disable(0);
        }
    }
    testing::disable(features);
    let _restore = Restore;
    body()
}

/// The error of something that must fail.
pub fn refused<T>(result: belljar::Result<T>) -> Fallible<belljar::Error> {
    match result {
        Ok(_) => Err("it was accepted".into()),
        Err(error) => Ok(error),
    }
}

/// Asserts the kind of an error, and that its hint says something.
pub fn assert_kind(error: &belljar::Error, kind: ErrorKind) {
    assert_eq!(error.kind(), kind, "{error}");
    let hinted = error.hint().is_some() || error.defects().iter().all(|d| !d.hint().is_empty());
    assert!(hinted, "no remedy: {error}");
}

/// Whether a process with this marker among its arguments lives anywhere on the host.
pub fn alive(marker: &str) -> usize {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .filter(|cmdline| String::from_utf8_lossy(cmdline).split('\0').any(|arg| arg == marker))
        .count()
}

/// Whether all of them have ended within this time.
pub fn gone_within(marker: &str, bound: Duration) -> bool {
    let start = Instant::now();
    while alive(marker) > 0 {
        if start.elapsed() > bound {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// The processes whose parent is this one.
pub fn children_of(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().flat_map(str::parse).collect()
}

/// The state of a process, as proc(5) has it; `None` when it is gone.
pub fn state_of(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
