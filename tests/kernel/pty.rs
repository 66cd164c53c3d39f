//! The payload's terminal.

use crate::common::*;
use crate::harness::{Need, TempDir, Test};
use belljar::{
    Child, Command, ErrorKind, Init, Mount, Mounts, Namespaces, Pty, PtySize, RootFs, Sandbox, Stdio, testing::feature,
};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

pub fn tests() -> Vec<Test> {
    const USER: &[Need] = &[Need::UserNamespaces];
    vec![
        Test::new("pty::an_interactive_shell", USER, interactive_shell),
        Test::new("pty::resize_is_told", USER, resize),
        Test::new("pty::dropping_it_hangs_up", USER, hangup),
        Test::new("pty::some_streams_only", USER, some_streams),
        Test::new("pty::instance_of_its_own", USER, own_instance),
        Test::new("pty::belongs_to_the_payload", &[Need::Root], owner),
        Test::new("pty::refused_without_devpts", USER, refusals),
        Test::new("pty::no_path_of_the_layers_is_trusted", &[Need::UserNamespaces, Need::UserOverlay], planted),
        Test::new("pty::on_old_kernels_and_as_init", USER, variants),
        Test::new("pty::failures_leave_nothing", USER, failures),
    ]
}

const PATIENCE: Duration = Duration::from_secs(20);
const SMALL: PtySize = PtySize { columns: 80, rows: 24 };

fn start(command: &mut Command) -> Fallible<(Child, Screen)> {
    let mut child = host().build()?.spawn(command)?;
    let pty = child.pty.take().ok_or("no pty")?;
    Ok((child, Screen { pty, seen: String::new() }))
}

struct Screen {
    pty: Pty,
    seen: String,
}

impl Screen {
    /// Reads until `text` has been seen, and forgets what was seen up to there.
    fn expect(&mut self, text: &str) -> Fallible<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return Ok(());
            }
            if !self.pty.wait_readable(deadline.saturating_duration_since(Instant::now()))? {
                return Err(format!("{text:?} did not come, but {:?}", self.seen).into());
            }
            let mut buffer = [0; 4096];
            match self.pty.read(&mut buffer)? {
                0 => return Err(format!("the end came before {text:?}: {:?}", self.seen).into()),
                n => self.seen += &String::from_utf8_lossy(&buffer[..n]),
            }
        }
    }

    fn say(&mut self, text: &str) -> Fallible<()> {
        Ok(self.pty.write_all(text.as_bytes())?)
    }

    fn rest(mut self) -> Fallible<String> {
        self.pty.read_to_string(&mut self.seen)?;
        Ok(self.seen)
    }
}

fn ended(child: &mut Child) -> Fallible<belljar::Exit> {
    Ok(child.wait_timeout(PATIENCE)?.ok_or("it lives on")?)
}

fn interactive_shell() -> Fallible<()> {
    let mut command = Command::new("/bin/sh");
    command.arg("-i").env("PS1", "prompt> ").env("TERM", "dumb").pty(SMALL);
    let (mut child, mut screen) = start(&mut command)?;
    screen.expect("prompt> ")?;
    assert!(!screen.seen.contains("job control"), "it is the controlling terminal");
    screen.say("echo $((6*7))\n")?;
    screen.expect("echo $((6*7))")?; // what is typed is echoed
    screen.expect("42")?;
    screen.say("tty; stty size\n")?;
    screen.expect("/dev/pts/0")?;
    screen.expect("24 80")?;
    // ^C ends the foreground job and not the shell
    screen.say("sleep 60; echo never\n")?;
    screen.expect("never")?; // the echo of it
    std::thread::sleep(Duration::from_millis(200));
    let interrupted = Instant::now();
    screen.say("\x03")?;
    screen.expect("prompt> ")?;
    assert!(interrupted.elapsed() < Duration::from_secs(30) && !screen.seen.contains("never"), "{}", screen.seen);
    // job control: ^Z stops it, and it goes on
    screen.say("cat\n")?;
    screen.expect("cat")?;
    std::thread::sleep(Duration::from_millis(200));
    screen.say("\x1a")?;
    screen.expect("prompt> ")?;
    screen.say("jobs; fg\n")?;
    screen.expect("topped")?; // bash and dash spell it alike but for the first letter
    screen.say("line\n")?;
    screen.expect("line")?; // typed
    screen.expect("line")?; // written by cat
    screen.say("\x04")?;
    screen.expect("prompt> ")?;
    screen.say("exit 7\n")?;
    let rest = screen.rest()?; // to its end
    assert!(rest.contains("exit 7"), "{rest}");
    assert_eq!(ended(&mut child)?.code(), Some(7));
    Ok(())
}

fn resize() -> Fallible<()> {
    let script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done";
    let (_child, mut screen) = start(sh(script).pty(PtySize { columns: 100, rows: 30 }))?;
    screen.expect("ready")?;
    assert_eq!(screen.pty.size()?, PtySize { columns: 100, rows: 30 });
    screen.pty.resize(PtySize { columns: 132, rows: 43 })?;
    screen.expect("43 132")?;
    assert_eq!(screen.pty.try_clone()?.size()?, PtySize { columns: 132, rows: 43 });
    Ok(())
}

fn hangup() -> Fallible<()> {
    let (mut child, screen) = start(sh("exec sleep 60").pty(SMALL))?;
    assert!(child.try_wait()?.is_none());
    drop(screen);
    assert_eq!(ended(&mut child)?.signal(), Some(1), "SIGHUP");
    let (mut child, mut screen) = start(sh("trap 'exit 9' HUP; echo ready; while :; do sleep 0.05; done").pty(SMALL))?;
    screen.expect("ready")?;
    let copy = screen.pty.try_clone()?;
    drop(screen);
    std::thread::sleep(Duration::from_millis(100));
    assert!(child.try_wait()?.is_none(), "a copy holds the line");
    drop(copy);
    assert_eq!(ended(&mut child)?.code(), Some(9));
    Ok(())
}

fn some_streams() -> Fallible<()> {
    let tests = "exec 9>/dev/tty; for n in 0 1 2; do test -t $n && echo $n yes >&9 || echo $n no >&9; done";
    let mut command = sh(tests);
    command.stdin(Stdio::Pty).stdout(Stdio::Null);
    let (mut child, screen) = start(&mut command)?;
    assert_eq!(screen.rest()?, "0 yes\r\n1 no\r\n2 no\r\n");
    assert!(ended(&mut child)?.success());
    let mut command = sh(&format!("{tests}; echo error >&2"));
    command.pty(SMALL).stderr(Stdio::Piped);
    let (mut child, screen) = start(&mut command)?;
    assert_eq!(screen.rest()?, "0 yes\r\n1 yes\r\n2 no\r\n");
    let mut error = String::new();
    child.stderr.take().ok_or("no pipe")?.read_to_string(&mut error)?;
    assert_eq!(error, "error\n");
    // the control: no terminal unless asked for
    let output = host().build()?.output(&sh("test -t 0; echo $?; (: >/dev/tty) 2>/dev/null || echo none"))?;
    assert_eq!(text(&output), "1\nnone\n");
    Ok(())
}

fn own_instance() -> Fallible<()> {
    let of_host = || -> Fallible<Vec<_>> {
        let mut names: Vec<_> = std::fs::read_dir("/dev/pts")?.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        Ok(names)
    };
    let before = of_host()?;
    let (_first, mut one) = start(sh("tty; ls /dev/pts; sleep 60").pty(SMALL))?;
    let (_second, mut two) = start(sh("tty; ls /dev/pts; sleep 60").pty(SMALL))?;
    for screen in [&mut one, &mut two] {
        screen.expect("/dev/pts/0\r\n0  ptmx")?;
    }
    assert_eq!(of_host()?, before, "nothing of it is on the host");
    // there is no console to be swapped, and no other terminal to be reached
    assert_eq!(prints(&host().build()?, "ls -d /dev/console /dev/tty0 2>/dev/null || echo none")?, "none");
    Ok(())
}

fn owner() -> Fallible<()> {
    let mut command = sh("stat -c '%u %g %a' /dev/pts/0; echo again >/dev/pts/0");
    command.uid(1000).gid(1001).pty(SMALL);
    let (mut child, screen) = start(&mut command)?;
    assert_eq!(screen.rest()?, "1000 1001 620\r\nagain\r\n");
    assert!(ended(&mut child)?.success());
    Ok(())
}

fn refusals() -> Fallible<()> {
    let plain = with_programs(Sandbox::builder(RootFs::empty()).mounts(Mounts::none())).build()?;
    let inherited = Sandbox::builder(RootFs::inherit()).namespaces(Namespaces::inherited()).build()?;
    for sandbox in [plain, inherited] {
        for command in [sh("true").pty(SMALL), sh("true").stdout(Stdio::Pty)] {
            let error = refused(sandbox.spawn(command))?;
            assert_kind(&error, ErrorKind::InvalidSpec);
            assert!(error.to_string().contains("devpts"), "{error}");
        }
    }
    // nobody would read, and it could wait for ever
    let sandbox = host().build()?;
    assert_kind(&refused(sandbox.output(sh("true").pty(SMALL)))?, ErrorKind::InvalidSpec);
    assert_kind(&refused(sandbox.status(sh("true").stdout(Stdio::Pty)))?, ErrorKind::InvalidSpec);
    let unread = sandbox.status(sh("head -c 1000000 /dev/zero").stdout(Stdio::Piped).wall_time(PATIENCE))?;
    assert!(!unread.success() && unread.verdict != belljar::Verdict::WallTimeLimit, "SIGPIPE: {unread}");
    // the least that is enough
    let mounts = Mounts::none().mount(Mount::devpts("/terminals"));
    let sandbox = with_programs(Sandbox::builder(RootFs::empty()).mounts(mounts)).build()?;
    let mut child = sandbox.spawn(sh("echo hello").pty(SMALL))?;
    let mut text = String::new();
    child.pty.take().ok_or("no pty")?.read_to_string(&mut text)?;
    assert_eq!(text, "hello\r\n");
    Ok(())
}

/// CVE-2025-52565: what the layers have at the places of terminals is not used.
fn planted() -> Fallible<()> {
    let layer = TempDir::new()?;
    program_directories(layer.path())?;
    std::fs::create_dir_all(layer.path().join("elsewhere/pts"))?;
    for name in ["elsewhere/console", "elsewhere/ptmx", "elsewhere/pts/ptmx", "elsewhere/pts/0"] {
        std::fs::write(layer.path().join(name), "planted")?;
    }
    std::fs::remove_dir(layer.path().join("dev"))?;
    std::os::unix::fs::symlink("elsewhere", layer.path().join("dev"))?;
    let sandbox = with_programs(Sandbox::builder(RootFs::dir(layer.path()))).build()?;
    let mut child = sandbox.spawn(sh("test -t 0 && echo a terminal").pty(SMALL))?;
    let pty = child.pty.take().ok_or("no pty")?;
    assert_eq!(pty.size()?, SMALL, "a terminal, and no planted file");
    let mut seen = String::new();
    (&pty).read_to_string(&mut seen)?;
    assert_eq!(seen, "a terminal\r\n");
    assert_eq!(std::fs::read_to_string(layer.path().join("elsewhere/pts/0"))?, "planted");
    Ok(())
}

fn variants() -> Fallible<()> {
    for features in [0, feature::MOUNT_API, feature::MOUNT_SETATTR] {
        for init in [Init::Shim, Init::Payload] {
            without(features, || {
                let mut child = host().init(init).build()?.spawn(sh("stty size").pty(SMALL))?;
                let mut seen = String::new();
                child.pty.take().ok_or("no pty")?.read_to_string(&mut seen)?;
                assert_eq!(seen, "24 80\r\n", "{features} {init:?}");
                assert!(ended(&mut child)?.success());
                Ok(())
            })?;
        }
    }
    Ok(())
}

fn failures() -> Fallible<()> {
    let sandbox = host().build()?;
    let error = refused(sandbox.spawn(Command::new("/no/such").pty(SMALL)))?;
    assert_kind(&error, ErrorKind::ProgramNotFound);
    let explained = sandbox.explain(sh("true").pty(SMALL))?.to_string();
    let step = explained.lines().position(|line| line.contains("open a pty")).ok_or(explained.clone())?;
    assert!(explained.contains("controlling terminal from standard stream 0"), "{explained}");
    belljar::testing::fail_at(Some(step as u32));
    let failed = sandbox.spawn(sh("true").pty(SMALL));
    belljar::testing::fail_at(None);
    assert_eq!(refused(failed)?.step().map(|step| step.name()), Some("pty"));
    Ok(())
}
