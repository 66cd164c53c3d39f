//! The handle in tokio's reactor (feature `tokio`).

use crate::common::*;
use crate::harness::{Need, Test};
use belljar::{AsyncChild, Bytes, Child, ErrorKind, Init, KillScope, Stdio, Verdict};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

pub fn tests() -> Vec<Test> {
    const USER: &[Need] = &[Need::UserNamespaces];
    vec![
        Test::new("tokio::wait_is_cancel_safe", USER, || run(wait_is_cancel_safe())),
        Test::new("tokio::streams", USER, || run(streams())),
        Test::new("tokio::output", USER, || run(output_is_bounded())),
        Test::new("tokio::kill", USER, || run(kill())),
        Test::new("tokio::drop_kills", USER, || run(drop_kills())),
        Test::new("tokio::no_thread_for_a_child", USER, || run(no_thread_for_a_child())),
        Test::new("tokio::limits", USER, || run(limits())),
        Test::new("tokio::a_report_that_comes_after_the_end", USER, || run(late_report())),
        Test::new("tokio::without_a_runtime", USER, without_a_runtime),
    ]
}

const MS: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(10);

/// Makes what a reactor makes once for the process.
pub fn once() -> std::io::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map(drop)
}

fn run(test: impl Future<Output = Fallible<()>>) -> Fallible<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(test)
}

async fn wait_is_cancel_safe() -> Fallible<()> {
    let mut child = host().build()?.spawn_async(&sh("sleep 0.3; exit 7"))?;
    for _ in 0..5 {
        assert!(timeout(10 * MS, child.wait()).await.is_err(), "it has not ended");
    }
    let exit = timeout(LONG, child.wait()).await??;
    assert_eq!(exit.verdict, Verdict::Exited(7));
    assert_eq!(timeout(LONG, child.wait()).await??, exit);
    assert_eq!(child.kill(KillScope::Tree).await?, exit);
    Ok(())
}

async fn streams() -> Fallible<()> {
    let mut command = sh("while read line; do echo \"heard $line\"; done; echo end >&2");
    command.stdin(Stdio::Piped).stdout(Stdio::Piped).stderr(Stdio::Piped);
    let mut child = host().build()?.spawn_async(&command)?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
    for word in ["one", "two"] {
        child.stdin.as_mut().ok_or("no stdin")?.write_all(format!("{word}\n").as_bytes()).await?;
        let line = timeout(LONG, lines.next_line()).await??;
        assert_eq!(line, Some(format!("heard {word}")));
    }
    // wait closes stdin, at which the payload ends
    assert!(timeout(LONG, child.wait()).await??.success());
    let mut rest = String::new();
    timeout(LONG, child.stderr.take().ok_or("no stderr")?.read_to_string(&mut rest)).await??;
    assert_eq!(rest, "end\n");
    Ok(())
}

async fn output_is_bounded() -> Fallible<()> {
    let sandbox = host().build()?;
    let spawn = |script: &str, max| {
        let mut command = sh(script);
        command.stdout(Stdio::Piped).stderr(Stdio::Piped).output_max(Bytes::new(max));
        sandbox.spawn_async(&command)
    };
    let script = "head -c 3000000 /dev/zero; head -c 2000000 /dev/zero >&2; exit 3";
    let output = timeout(LONG, spawn(script, 1 << 30)?.wait_with_output()).await??;
    assert_eq!(
        (output.exit.verdict, output.stdout.len(), output.stderr.len()),
        (Verdict::Exited(3), 3_000_000, 2_000_000)
    );
    for script in ["yes", "yes >&2", "trap '' TERM PIPE; yes & yes >&2"] {
        let output = timeout(LONG, spawn(script, 100_000)?.wait_with_output()).await??;
        assert_eq!(output.exit.verdict, Verdict::OutputLimit, "{script}");
        assert!(output.stdout.len() == 100_000 || output.stderr.len() == 100_000);
    }
    let output = timeout(LONG, spawn("head -c 1001 /dev/zero", 1000)?.wait_with_output()).await??;
    assert_eq!((output.exit.verdict, output.stdout.len()), (Verdict::OutputLimit, 1000));
    let output = timeout(LONG, spawn("echo said; (setsid sleep 60 &)", 1000)?.wait_with_output()).await??;
    assert_eq!((output.exit.verdict, output.stdout.as_slice()), (Verdict::Exited(0), &b"said\n"[..]));
    // given up, it is killed
    let future = spawn("sleep 7772001", 1000)?.wait_with_output();
    assert!(timeout(50 * MS, future).await.is_err());
    assert!(gone_within("7772001", Duration::ZERO));
    Ok(())
}

async fn kill() -> Fallible<()> {
    for init in [Init::Shim, Init::Payload] {
        let sandbox = host().init(init).build()?;
        let mut child = sandbox.spawn_async(&sh("sleep 7772002 & sleep 7772002"))?;
        let exit = timeout(LONG, child.kill(KillScope::Tree)).await??;
        assert_eq!(exit.verdict, Verdict::KilledByHandle);
        assert!(gone_within("7772002", Duration::ZERO));
    }
    // by a shim that somebody has stopped
    let mut child = host().build()?.spawn_async(&sh("sleep 60"))?;
    let shim = nix::unistd::Pid::from_raw(child.child().id() as i32);
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGSTOP)?;
    assert_eq!(timeout(LONG, child.kill(KillScope::Tree)).await??.verdict, Verdict::KilledByHandle);
    let mut child = host().build()?.spawn_async(&sh("trap 'exit 5' TERM; echo; while :; do sleep 0.01; done"))?;
    tokio::time::sleep(100 * MS).await;
    child.child_mut().terminate(LONG)?;
    assert_eq!(timeout(LONG, child.wait()).await??.verdict, Verdict::KilledByHandle);
    Ok(())
}

async fn drop_kills() -> Fallible<()> {
    let child = host().build()?.spawn_async(&sh("sleep 7772003 & sleep 7772003"))?;
    let start = Instant::now();
    drop(child);
    assert!(gone_within("7772003", Duration::ZERO));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    // so does a task that is aborted
    let child = host().build()?.spawn_async(&sh("sleep 7772004"))?;
    let task = tokio::task::spawn(async move {
        let mut child = child;
        child.wait().await
    });
    tokio::task::yield_now().await;
    task.abort();
    assert!(task.await.is_err());
    assert!(gone_within("7772004", Duration::ZERO));
    Ok(())
}

async fn no_thread_for_a_child() -> Fallible<()> {
    let threads = || std::fs::read_dir("/proc/self/task").map(Iterator::count);
    let before = threads()?;
    let sandbox = host().build()?;
    let spawn = |n: usize| sandbox.spawn_async(&sh(&format!("sleep 0.{}; exit {n}", n % 3 + 1)));
    let children = (0..30).map(spawn).collect::<belljar::Result<Vec<AsyncChild>>>()?;
    let tasks: Vec<_> =
        children.into_iter().map(|mut child| tokio::task::spawn(async move { child.wait().await })).collect();
    tokio::task::yield_now().await;
    assert_eq!(threads()?, before);
    for (n, task) in tasks.into_iter().enumerate() {
        assert_eq!(timeout(LONG, task).await???.code(), Some(n as i32));
    }
    Ok(())
}

async fn limits() -> Fallible<()> {
    let mut child = host().build()?.spawn_async(sh("sleep 60").wall_time(100 * MS))?;
    assert_eq!(timeout(LONG, child.wait()).await??.verdict, Verdict::WallTimeLimit);
    Ok(())
}

/// The pidfd of a process that has entered tells of its end once, before the init of its sandbox does.
async fn late_report() -> Fallible<()> {
    use nix::sys::signal::{Signal, kill};
    let child = host().build()?.spawn(&sh("sleep 60"))?;
    let pid = |child: &Child| nix::unistd::Pid::from_raw(child.id() as i32);
    for _ in 0..20 {
        let mut entered = AsyncChild::new(child.enter(&sh("sleep 60"))?)?;
        kill(pid(&child), Signal::SIGSTOP)?;
        kill(pid(entered.child()), Signal::SIGKILL)?;
        assert!(timeout(20 * MS, entered.wait()).await.is_err(), "nobody has reaped it");
        kill(pid(&child), Signal::SIGCONT)?;
        assert_eq!(timeout(LONG, entered.wait()).await??.verdict, Verdict::Signaled(9));
    }
    Ok(())
}

fn without_a_runtime() -> Fallible<()> {
    let error = refused(host().build()?.spawn_async(&sh("sleep 7772005")))?;
    assert_kind(&error, ErrorKind::NotSupported);
    assert!(gone_within("7772005", Duration::ZERO));
    Ok(())
}
