//! What most tests need: a sandbox over the host's programs, and a shell in it.

use belljar::{Command, ErrorKind, Mount, Output, RootFs, Sandbox, SandboxBuilder, testing};
use std::error::Error;
use std::path::Path;

pub type Fallible<T> = Result<T, Box<dyn Error>>;

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
