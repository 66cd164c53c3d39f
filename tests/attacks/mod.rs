//! Attacks by class: what a payload tries in a default sandbox, and what it must see.
//!
//! Each test has a control, in which the same attempt succeeds or fails otherwise (outside of any sandbox, or in one
//! with the defence opted out of), and a marker: the payload says that it has run. Races run a thousand
//! attempts ([`races`]).

mod before_exec;
mod differential;
mod files;
pub mod kernel_interfaces;
mod landlock;
mod resources;

use crate::common::*;
use crate::harness::{TempDir, Test};
use belljar::{Child, Command, RootFs, Sandbox, SandboxBuilder, Security, Stdio};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// The program of `payload/`.
const PAYLOAD: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/attack.elf"));

pub fn tests() -> Vec<Test> {
    [
        before_exec::tests(),
        differential::tests(),
        files::tests(),
        kernel_interfaces::tests(),
        landlock::tests(),
        resources::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Writes the payload to a file.
pub fn write_payload(path: &std::path::Path) -> std::io::Result<()> {
    std::fs::write(path, PAYLOAD)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

/// A root with the payload and nothing else; all the rest is the default.
fn bare() -> SandboxBuilder {
    Sandbox::builder(RootFs::empty().file_mode("/attack", 0o755, PAYLOAD))
}

/// What each attempt saw.
type Seen = BTreeMap<String, String>;

/// `attack ATTEMPT...`
fn payload(attempts: &[&str]) -> Command {
    let mut command = Command::new("/attack");
    command.args(attempts);
    command
}

/// Runs attempts in a sandbox.
fn attack(sandbox: &Sandbox, attempts: &[&str]) -> Fallible<Seen> {
    let output = sandbox.output(&payload(attempts))?;
    let seen = parse(&text(&output))?;
    if seen.len() != attempts.len() {
        return Err(format!("{} of {} attempts: {}: {seen:?}", seen.len(), attempts.len(), output.exit).into());
    }
    Ok(seen)
}

/// A payload that has made its attempts, and sleeps on what it has taken; what it saw.
fn holding(sandbox: &Sandbox, attempts: &[&str]) -> Fallible<(Child, Seen)> {
    let mut child = sandbox.spawn(payload(attempts).arg("sleep=60").stdout(Stdio::Piped))?;
    let lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
    let said = lines.take(1 + attempts.len()).collect::<Result<Vec<_>, _>>()?.join("\n");
    Ok((child, parse(&said)?))
}

/// A directory that everybody may write.
fn shared() -> Fallible<TempDir> {
    let dir = TempDir::new()?;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777))?;
    Ok(dir)
}

/// In a default sandbox.
fn inside(attempts: &[&str]) -> Fallible<Seen> {
    attack(&bare().build()?, attempts)
}

/// In one that opts out by this.
fn with(security: Security, attempts: &[&str]) -> Fallible<Seen> {
    attack(&bare().security(security).build()?, attempts)
}

/// What changes nothing where it succeeds. All else would be done to the machine that runs the tests.
const HARMLESS: &[&str] = &["by-handle", "connect", "connect-abstract", "connect-ipv4", "fchdir", "i386", "walk-up"];

/// Outside of any sandbox.
fn outside(attempts: &[&str]) -> Fallible<Seen> {
    let name = |attempt: &&str| attempt.split('=').next().unwrap_or_default().to_owned();
    if let Some(harmful) = attempts.iter().map(name).find(|name| !HARMLESS.contains(&name.as_str())) {
        return Err(format!("{harmful} is not for outside of a sandbox").into());
    }
    let (_dir, path) = payload_file()?;
    let output = std::process::Command::new(path)
        .args(attempts)
        .current_dir("/usr")
        .stdin(std::process::Stdio::null())
        .output()?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

fn payload_file() -> Fallible<(TempDir, PathBuf)> {
    let dir = TempDir::new()?;
    let path = dir.path().join("attack");
    write_payload(&path)?;
    Ok((dir, path))
}

fn parse(text: &str) -> Fallible<Seen> {
    let mut lines = text.lines();
    if lines.next() != Some("attack: here") {
        return Err(format!("the payload did not run: {text:?}").into());
    }
    Ok(lines.filter_map(|line| line.split_once(": ")).map(|(what, saw)| (what.into(), saw.trim().into())).collect())
}

/// Asserts what attempts saw: one of the words after the name, separated by `|`.
fn expect(seen: &Seen, wanted: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (attempt, words) in wanted {
        let saw = seen.get(*attempt).map(String::as_str);
        let fits = saw.is_some_and(|saw| {
            let first = saw.split(' ').next().unwrap_or_default();
            words.split('|').any(|word| word == saw || word == first)
        });
        if !fits {
            wrong.push(format!("{attempt}: wanted {words}, saw {}", saw.unwrap_or("nothing")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Tries all of `wanted` in a default sandbox.
fn refused_inside(wanted: &[(&str, &str)]) -> Fallible<()> {
    let attempts: Vec<_> = wanted.iter().map(|(attempt, _)| *attempt).collect();
    expect(&inside(&attempts)?, wanted);
    Ok(())
}

/// The payload's exit by a signal, in a sandbox.
fn signal_of(sandbox: &Sandbox, attempt: &str) -> Fallible<Option<i32>> {
    let mut command = payload(&[attempt]);
    command.stdout(Stdio::Piped);
    let output = sandbox.output(&command)?;
    assert!(text(&output).starts_with("attack: here"), "marker");
    Ok(output.exit.signal())
}
