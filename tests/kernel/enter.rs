//! `Child::enter`: one more process in a running sandbox.

use crate::common::*;
use crate::harness::{Need, Test};
use belljar::{
    Capabilities, Capability, Child, Command, ErrorKind, IdMap, IdRange, Init, KillScope, Landlock, Namespaces, Output,
    Rlimits, RootFs, Sandbox, Seccomp, SeccompProfile, Security, Stdio, User, Verdict, testing,
};
use std::io::{BufRead, BufReader, Read, Write};
use std::time::{Duration, Instant};

pub fn tests() -> Vec<Test> {
    const USER: &[Need] = &[Need::UserNamespaces];
    vec![
        Test::new("enter::the_same_namespaces_and_root", USER, same_namespaces),
        Test::new("enter::the_same_confinement", USER, same_confinement),
        Test::new("enter::a_tighter_confinement", USER, tighter),
        Test::new("enter::other_ids", &[Need::Root], other_ids),
        Test::new("enter::endings_are_its_own", USER, endings),
        Test::new("enter::ends_with_the_sandbox", USER, ends_with_the_sandbox),
        Test::new("enter::dropped_handles_kill_their_process_only", USER, dropped_handles),
        Test::new("enter::nothing_of_the_host_is_seen", USER, nothing_of_the_host),
        Test::new("enter::many_at_once_and_a_limit", USER, many_at_once),
        Test::new("enter::large_programs", USER, large_programs),
        Test::new("enter::terminals", USER, terminals),
        Test::new("enter::refusals", USER, refusals),
        Test::new("enter::each_step_fails_cleanly", USER, each_step_fails),
        Test::new("enter::a_stopped_sandbox_does_not_hang_it", USER, stopped),
        Test::new("enter::usage_ends_with_the_process", USER, usage_ends),
        Test::new("enter::descriptors_that_run_out_are_named", USER, descriptors_run_out),
    ]
}

fn sleeping() -> Fallible<Child> {
    Ok(host().build()?.spawn(&sh("exec sleep 60"))?)
}

/// What a script prints in a running sandbox.
fn says(child: &Child, script: &str) -> Fallible<String> {
    let output = collect(child, &mut sh(script))?;
    assert!(output.exit.success() && output.stderr.is_empty(), "{script:?}: {}: {}", output.exit, text(&output));
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

fn collect(child: &Child, command: &mut Command) -> Fallible<Output> {
    Ok(child.enter(command.stdout(Stdio::Piped).stderr(Stdio::Piped))?.wait_with_output()?)
}

fn same_namespaces() -> Fallible<()> {
    const LOOK: &str = "cd /proc/$$/ns; for n in *; do readlink $n; done; hostname; ls -di /; cat /proc/1/comm";
    let sandbox = host().build()?;
    let mut child = sandbox.spawn(sh(&format!("{LOOK}; echo end; read x")).stdin(Stdio::Piped).stdout(Stdio::Piped))?;
    let mut payload = String::new();
    for line in BufReader::new(child.stdout.take().ok_or("piped")?).lines() {
        match line?.as_str() {
            "end" => break,
            line => payload += &format!("{line}\n"),
        }
    }
    assert!(payload.contains("\nbelljar\n"), "{payload}");
    assert_eq!(says(&child, LOOK)?, payload.trim_end());
    let host = std::fs::read_link("/proc/self/ns/user")?;
    assert!(!payload.contains(&host.display().to_string()), "control: the host's differ");
    // the pid of the handle is the host's, and the process is a child of the sandbox's init
    let entered = child.enter(&sh("exec sleep 60"))?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", entered.id()))?;
    assert!(status.contains(&format!("\nPPid:\t{}\n", child.id())), "{status}");
    Ok(())
}

fn same_confinement() -> Fallible<()> {
    const LOOK: &str = "grep -E '^(Cap|NoNewPrivs|Seccomp:|Seccomp_|Uid|Gid|Groups|Sig(Blk|Ign))' /proc/self/status; umask; \
                        echo $(ls /proc/self/fd); env; pwd";
    let sandbox = host().build()?;
    let payload = prints(&sandbox, LOOK)?;
    let child = sandbox.spawn(&sh("exec sleep 60"))?;
    assert_eq!(says(&child, LOOK)?, payload);
    assert!(payload.contains("CapBnd:\t0000000000000000") && payload.contains("NoNewPrivs:\t1"), "{payload}");
    // its own session, without a terminal
    let session = says(&child, "echo $$ $$; cut -d' ' -f5,6 /proc/$$/stat")?;
    let (own, seen) = session.split_once('\n').ok_or("two lines")?;
    assert_eq!(own, seen);
    Ok(())
}

fn tighter() -> Fallible<()> {
    const LOOK: &str =
        "grep CapEff /proc/self/status | cut -f2; ulimit -n; mkdir /tmp/d 2>/dev/null && echo made; true";
    let kept = Capabilities::keep([Capability::Chown, Capability::Kill]);
    let child = host().security(Security::new().capabilities(kept)).build()?.spawn(&sh("exec sleep 60"))?;
    let says = |security: &Security| -> Fallible<String> {
        let mut command = sh(LOOK);
        let output = child.enter_tighter(command.stdout(Stdio::Piped), security)?.wait_with_output()?;
        Ok(String::from_utf8(output.stdout)?.replace('\n', " "))
    };
    assert_eq!(collect(&child, &mut sh(LOOK))?.stdout, b"0000000000000021\n1024\nmade\n", "control");
    // what is looser adds nothing
    let loose = Security::new().capabilities(Capabilities::keep([Capability::Chown, Capability::SysAdmin]));
    let loose = loose.seccomp(Seccomp::Unconfined).rlimits(Rlimits::inherited()).allow_new_privileges();
    assert_eq!(says(&loose)?, "0000000000000001 1024 ");
    let profile = SeccompProfile::standard().deny(["mkdir", "mkdirat"]);
    let tight = Security::new().seccomp(Seccomp::Custom(profile)).rlimits(Rlimits::inherited().nofile(77));
    assert_eq!(says(&tight.clone())?, "0000000000000000 77 ");
    let error = refused(child.enter_tighter(
        &sh("true"),
        &tight.seccomp(Seccomp::Custom(SeccompProfile::standard().deny(["no_such_call"]))),
    ))?;
    assert_kind(&error, ErrorKind::InvalidSpec);
    Ok(())
}

fn other_ids() -> Fallible<()> {
    let ranges = || [IdRange { inside: 0, outside: 1_000_000, count: 2000 }];
    let namespaces = Namespaces::isolated().user(User::New(IdMap::ranges(ranges(), ranges())));
    let child = host().namespaces(namespaces).build()?.spawn(sh("exec sleep 60").uid(7).gid(7))?;
    let ids = |command: &mut Command| collect(&child, command).map(|output| text(&output));
    assert_eq!(ids(&mut sh("id -u; id -g; id -G"))?, "0\n0\n0\n");
    assert_eq!(ids(sh("id -u; id -g; id -G").uid(1000).gid(1001).groups([5u32, 6]))?, "1000\n1001\n1001 5 6\n");
    let error = refused(child.enter(sh("true").uid(5000)))?;
    assert_kind(&error, ErrorKind::InvalidSpec);
    Ok(())
}

fn endings() -> Fallible<()> {
    let mut child = sleeping()?;
    assert_eq!(child.enter(&sh("exit 7"))?.wait()?.verdict, Verdict::Exited(7));
    assert_eq!(child.enter(&sh("kill -USR1 $$"))?.wait()?.verdict, Verdict::Signaled(10));
    let mut entered = child.enter(&sh("trap 'exit 5' TERM; while :; do sleep 0.05; done"))?;
    assert!(entered.wait_timeout(Duration::from_millis(200))?.is_none());
    entered.signal(15)?;
    assert_eq!(entered.wait()?.verdict, Verdict::Exited(5));
    assert_eq!(refused(entered.signal(15))?.kind(), ErrorKind::NotFound);
    for scope in [KillScope::Init, KillScope::Tree] {
        let mut entered = child.enter(&sh("sleep 60"))?;
        entered.kill(scope)?;
        assert_eq!(entered.wait()?.verdict, Verdict::KilledByHandle);
    }
    let mut entered = child.enter(sh("sleep 60").wall_time(Duration::from_millis(100)))?;
    assert_eq!(entered.wait()?.verdict, Verdict::WallTimeLimit);
    let patient = "trap 'exit 0' TERM; while :; do sleep 0.02; done";
    let mut entered = child.enter(sh(patient).wall_time(Duration::from_millis(200)).grace(Duration::from_secs(20)))?;
    assert_eq!(entered.wait()?.verdict, Verdict::WallTimeLimit);
    let mut entered = child.enter(&sh("trap '' TERM; while :; do sleep 0.02; done"))?;
    std::thread::sleep(Duration::from_millis(100));
    entered.terminate(Duration::from_millis(100))?;
    assert_eq!(entered.wait()?.verdict, Verdict::KilledByHandle);
    let mut entered = child.enter(&sh("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"))?;
    let exit = entered.wait()?;
    assert!(exit.usage.user.is_some_and(|user| user > Duration::from_millis(10)), "{exit:?}");
    let mut entered = child.enter(sh("read x; echo got $x").stdin(Stdio::Piped).stdout(Stdio::Piped))?;
    entered.stdin.take().ok_or("piped")?.write_all(b"word\n")?;
    let mut got = String::new();
    entered.stdout.take().ok_or("piped")?.read_to_string(&mut got)?;
    assert_eq!((got.as_str(), entered.wait()?.success()), ("got word\n", true));
    assert!(child.try_wait()?.is_none(), "the sandbox runs on");
    Ok(())
}

fn ends_with_the_sandbox() -> Fallible<()> {
    let mut child = sleeping()?;
    let mut entered = child.enter(&sh("sleep 60"))?;
    child.kill(KillScope::Tree)?;
    assert_eq!(entered.wait()?.verdict, Verdict::KilledByHandle);
    child.wait()?;
    assert_eq!(refused(child.enter(&sh("true")))?.kind(), ErrorKind::NotFound);

    let mut child = host().build()?.spawn(sh("read x").stdin(Stdio::Piped))?;
    let mut entered = child.enter(&sh("sleep 60"))?;
    child.wait()?; // closes its stdin
    assert_eq!(entered.wait()?.verdict, Verdict::Signaled(9));

    // an init that is killed from outside reports nothing
    let child = sleeping()?;
    let mut entered = child.enter(&sh("sleep 60"))?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGKILL)?;
    assert_eq!(entered.wait()?.verdict, Verdict::StatusLost);
    let start = Instant::now();
    assert_eq!(refused(child.enter(&sh("true")))?.kind(), ErrorKind::NotFound);
    assert!(start.elapsed() < Duration::from_secs(2));
    Ok(())
}

fn dropped_handles() -> Fallible<()> {
    let child = sleeping()?;
    let entered = child.enter(&sh("sleep 61 & sleep 62"))?;
    let other = child.enter(&sh("exec sleep 63"))?;
    let detached = child.enter(&sh("exec sleep 64"))?;
    let sleepers = || {
        says(
            &child,
            "for p in /proc/[0-9]*; do tr '\\0' ' ' 2>/dev/null <$p/cmdline; echo; done 2>/dev/null | grep -o '^sleep .*' | sort",
        )
    };
    let until = |wanted: &str| -> Fallible<()> {
        let start = Instant::now();
        loop {
            let seen = sleepers()?.replace(" \n", "\n");
            if seen.trim_end() == wanted {
                return Ok(());
            }
            assert!(start.elapsed() < Duration::from_secs(5), "{seen:?} is not {wanted:?}");
        }
    };
    until("sleep 60\nsleep 61\nsleep 62\nsleep 63\nsleep 64")?;
    drop(detached.detach()?);
    drop(entered);
    until("sleep 60\nsleep 63\nsleep 64")?;
    drop(other);
    until("sleep 60\nsleep 64")
}

/// While others enter, the payload looks at all processes' descriptors, environment and memory.
fn nothing_of_the_host() -> Fallible<()> {
    nothing_is_seen(Landlock::standard())?;
    nothing_is_seen(Landlock::none()) // with it, siblings could not look at each other anyhow
}

fn nothing_is_seen(landlock: Landlock) -> Fallible<()> {
    // the canary of the host is a variable that cargo and CI set; a process of the watcher's own shows that it looks
    let watch = "CONTROL='seen CANARY' sleep 60 &
                 echo watching; while :; do for p in /proc/[0-9]*; do
                   [ $p = /proc/1 -o $p = /proc/$$ ] && continue
                   grep -zsE 'CANARY|^CARGO' $p/environ
                   for f in $p/fd/*; do [ -e $f ] && readlink $f; done
                   [ -r $p/exe ] && readlink $p/exe
                 done 2>/dev/null | tr '\\0' '\\n' | sort -u; echo; done";
    let sandbox = host().security(Security::new().landlock(landlock)).build()?;
    let mut child = sandbox.spawn(sh(watch).stdout(Stdio::Piped).stderr(Stdio::Null))?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("piped")?).lines();
    assert_eq!(lines.next().ok_or("no line")??, "watching");
    let reader = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
    for _ in 0..races().min(300) {
        assert!(child.enter(&Command::new("/bin/true"))?.wait()?.success());
    }
    child.kill(KillScope::Tree)?;
    child.wait()?;
    let seen = reader.join().map_err(|_| "the reader panicked")?;
    assert!(seen.iter().any(|line| line.contains("seen CANARY")), "control: the watcher looks: {seen:?}");
    for line in &seen {
        let foreign = ["CARGO", "memfd", "pidfd", "socket"].iter().any(|word| line.contains(word));
        assert!(!foreign, "{line}");
    }
    Ok(())
}

fn many_at_once() -> Fallible<()> {
    let child = sleeping()?;
    let mut entered = Vec::new();
    let error = loop {
        match child.enter(&sh("exec sleep 60")) {
            Ok(one) => entered.push(one),
            Err(error) => break error,
        }
    };
    assert_eq!(entered.len(), 64);
    assert_kind(&error, ErrorKind::LimitReached);
    drop(entered.split_off(32));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for code in 0..25 {
                    let exit = child.enter(&sh(&format!("exit {code}"))).and_then(|mut one| one.wait());
                    assert_eq!(exit.map(|exit| exit.verdict).ok(), Some(Verdict::Exited(code)));
                }
            });
        }
    });
    assert_eq!(entered.len(), 32);
    Ok(())
}

fn large_programs() -> Fallible<()> {
    let child = sleeping()?;
    let memory = || -> Fallible<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).ok_or("no VmSize")?;
        Ok(size.trim().trim_end_matches(" kB").parse()?)
    };
    let before = memory()?;
    for _ in 0..3 {
        let output = collect(&child, sh("echo ${#0} ${#1} $#").arg("name").arg("x".repeat(90_000)).args(["y"; 300]))?;
        assert_eq!(text(&output), "4 90000 301\n");
    }
    assert_eq!(memory()?, before);
    // a long list before a short one leaves nothing behind
    assert_eq!(says(&child, "echo $#")?, "0");
    Ok(())
}

fn terminals() -> Fallible<()> {
    let child = sleeping()?;
    let size = belljar::PtySize { rows: 30, columns: 90 };
    for _ in 0..2 {
        let mut entered = child.enter(sh("stty size; tty").pty(size))?;
        let mut said = String::new();
        let mut pty = entered.pty.take().ok_or("a pty")?;
        let _hung_up = pty.read_to_string(&mut said); // EIO at the end
        assert!(said.starts_with("30 90\r\n/dev/pts/"), "{said:?}");
        assert!(entered.wait()?.success());
    }
    Ok(())
}

fn refusals() -> Fallible<()> {
    let child = sleeping()?;
    let error = refused(child.enter(&Command::new("/no/such/program")))?;
    assert_kind(&error, ErrorKind::ProgramNotFound);
    let step = error.step().ok_or("a step")?;
    assert_eq!((step.name(), step.number()), ("exec", step.total()));
    assert_kind(&refused(child.enter(sh("true").current_dir("/no/such")))?, ErrorKind::NotFound);
    assert_kind(&refused(child.enter(&Command::new("")))?, ErrorKind::InvalidSpec);
    assert_kind(&refused(child.enter(sh("true").cpu_time(Duration::from_secs(1))))?, ErrorKind::InvalidSpec);
    let entered = child.enter(&sh("exec sleep 60"))?;
    assert_kind(&refused(entered.enter(&sh("true")))?, ErrorKind::NotSupported);
    let payload = host().init(Init::Payload).build()?.spawn(&sh("exec sleep 60"))?;
    assert_kind(&refused(payload.enter(&sh("true")))?, ErrorKind::NotSupported);
    let gaining = host().security(Security::new().allow_new_privileges()).build()?.spawn(&sh("exec sleep 60"))?;
    assert_kind(&refused(gaining.enter(&sh("true")))?, ErrorKind::NotSupported);
    assert_eq!(says(&child, "echo well")?, "well");
    Ok(())
}

fn each_step_fails() -> Fallible<()> {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            testing::fail_at(None);
        }
    }
    let child = Sandbox::builder(RootFs::host()).build()?.spawn(&sh("exec sleep 60"))?;
    let _restore = Restore;
    let mut failed = 0;
    loop {
        testing::fail_at(Some(failed));
        match child.enter(sh("exec sleep 60").pty(belljar::PtySize { rows: 1, columns: 1 })) {
            Ok(_) => break,
            Err(error) => {
                let step = error.step().ok_or("a step")?;
                assert_eq!((step.number(), error.raw_os_error()), (failed + 1, Some(libc::EIO)), "{error}");
                failed += 1;
            }
        }
    }
    assert!(failed >= 10, "only {failed} steps");
    testing::fail_at(None);
    assert_eq!(says(&child, "echo well")?, "well");
    Ok(())
}

fn stopped() -> Fallible<()> {
    let child = sleeping()?;
    let init = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(init, nix::sys::signal::Signal::SIGSTOP)?;
    let start = Instant::now();
    assert_kind(&refused(child.enter(&sh("true")))?, ErrorKind::Busy);
    assert!(start.elapsed() < Duration::from_secs(30));
    nix::sys::signal::kill(init, nix::sys::signal::Signal::SIGCONT)?;
    assert_eq!(says(&child, "echo well")?, "well");
    Ok(())
}

/// Whenever it is waited for.
fn usage_ends() -> Fallible<()> {
    let child = sleeping()?;
    let mut entered = child.enter(&sh("sleep 0.2"))?;
    let slept = Duration::from_secs(2);
    std::thread::sleep(slept);
    let wall = entered.wait()?.usage.wall;
    assert!(wall >= Duration::from_millis(200) && wall < slept, "{wall:?}");
    Ok(())
}

fn descriptors_run_out() -> Fallible<()> {
    let child = sleeping()?;
    let (mut entered, mut refused) = (0, 0);
    for free in 0..12 {
        let few = Exhausted::but(free)?;
        let one = child.enter(&sh("exit 3")).and_then(|mut one| one.wait());
        drop(few);
        match one {
            Ok(exit) => {
                assert_eq!(exit.verdict, Verdict::Exited(3));
                entered += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::LimitReached, "with {free} left: {error}");
                refused += 1;
            }
        }
    }
    assert!(entered > 0 && refused > 1, "{entered} entered, {refused} refused");
    Ok(())
}
