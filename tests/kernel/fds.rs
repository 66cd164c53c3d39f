//! Descriptors that the payload is given, and sockets to it.

use crate::common::*;
use crate::harness::{Need, Test};
use belljar::{Command, ErrorKind, Init, Socket, SocketKind, socketpair, sys::memfd};
use std::fs::File;
use std::io::{PipeReader, Read, Write, pipe};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

pub fn tests() -> Vec<Test> {
    const USER: &[Need] = &[Need::UserNamespaces];
    vec![
        Test::new("fds::chosen_numbers_and_nothing_else", USER, chosen_numbers),
        Test::new("fds::all_numbers_at_once", USER, all_numbers),
        Test::new("fds::a_command_can_be_spawned_again", USER, spawned_again),
        Test::new("fds::refused", USER, refused_numbers),
        Test::new("fds::a_directory_leads_out", USER, directory),
        Test::new("fds::failures_are_told_without_number_3", USER, failures),
        Test::new("fds::nobody_else_has_a_copy", USER, nobody_else),
        Test::new("fds::socketpair_to_a_payload", USER, socket_to_payload),
        Test::new("fds::passed_later", &[], passed_later),
        Test::new("fds::sockets_are_bounded", &[], bounded),
    ]
}

fn file(text: &str) -> Fallible<OwnedFd> {
    Ok(memfd::sealed_executable(c"belljar-test", text.as_bytes())?)
}

fn read(mut from: PipeReader) -> Fallible<String> {
    let mut text = String::new();
    from.read_to_string(&mut text)?;
    Ok(text)
}

fn chosen_numbers() -> Fallible<()> {
    let _held = File::open("/dev/null")?;
    for init in [Init::Shim, Init::Payload] {
        let mut command = sh("cat /proc/self/fd/3; exec ls /proc/self/fd");
        command.fd(3, file("three\n")?).fd(7, file("seven")?).fd(1023, file("last")?);
        let output = host().init(init).build()?.output(&command)?;
        // ls has opened the directory as the lowest that was free
        assert_eq!(text(&output), "three\n0\n1\n1023\n2\n3\n4\n7\n", "{init:?}");
    }
    // the control: none are there unless given
    let output = host().build()?.output(&sh("exec ls /proc/self/fd"))?;
    assert_eq!(text(&output), "0\n1\n2\n3\n");
    Ok(())
}

/// Every number that the shim uses itself, in the order that is worst for copying.
fn all_numbers() -> Fallible<()> {
    for init in [Init::Shim, Init::Payload] {
        for reversed in [false, true] {
            let mut command = sh("for n in $(seq 3 34); do printf '%s:%s ' $n \"$(cat /proc/self/fd/$n)\"; done");
            let mut numbers: Vec<u32> = (3..35).collect();
            if reversed {
                numbers.reverse();
            }
            for number in numbers {
                command.fd(number, file(&number.to_string())?);
            }
            let wanted: String = (3..35).map(|n| format!("{n}:{n} ")).collect();
            assert_eq!(text(&host().init(init).build()?.output(&command)?), wanted, "{init:?}");
        }
    }
    Ok(())
}

fn spawned_again() -> Fallible<()> {
    let (reader, writer) = pipe()?;
    let mut command = sh("echo hello >&4");
    command.fd(4, writer);
    let sandbox = host().build()?;
    for _ in 0..3 {
        assert!(sandbox.status(&command)?.success());
    }
    drop(command);
    assert_eq!(read(reader)?, "hello\nhello\nhello\n");
    Ok(())
}

fn refused_numbers() -> Fallible<()> {
    let sandbox = host().build()?;
    for (numbers, word) in [(&[0, 9][..], "number 0"), (&[1024], "number 1024"), (&[5, 6, 5], "as number 5")] {
        let mut command = Command::new("true");
        for number in numbers {
            command.fd(*number, file("")?);
        }
        let error = refused(sandbox.spawn(&command))?;
        assert_kind(&error, ErrorKind::InvalidSpec);
        assert!(error.defects().len() == 1 && error.to_string().contains(word), "{error}");
    }
    let mut command = Command::new("true");
    for number in 3..36 {
        command.fd(number, file("")?);
    }
    let error = refused(sandbox.spawn(&command))?;
    assert!(error.to_string().contains("33 descriptors"), "{error}");
    Ok(())
}

/// CVE-2024-21626 by invitation: a directory of the host is a way out, whoever opened it.
fn directory() -> Fallible<()> {
    const ESCAPE: &str = "ls /proc/self/fd/3/..";
    let outside = crate::harness::TempDir::new()?;
    std::fs::create_dir(outside.path().join("given"))?;
    std::fs::write(outside.path().join("marker"), "")?;
    let sandbox = belljar::Sandbox::builder(belljar::RootFs::empty());
    let sandbox = with_programs(sandbox).build()?;
    let given = || File::open(outside.path().join("given"));
    for command in [sh(ESCAPE).fd(3, given()?), sh("ls ..").stdin(given()?)] {
        let error = refused(sandbox.spawn(command))?;
        assert_kind(&error, ErrorKind::InvalidSpec);
        assert!(error.to_string().contains("directory"), "{error}");
    }
    // the control: the call that opts out is needed, and is what it says
    let output = sandbox.output(sh("ls /proc/self/fd/3/.").directory_fd(3, given()?))?;
    assert_eq!(text(&output), "");
    // it is the Landlock domain that keeps it from being left
    let open = belljar::Security::new().landlock(belljar::Landlock::none());
    let sandbox = with_programs(belljar::Sandbox::builder(belljar::RootFs::empty())).security(open).build()?;
    let output = sandbox.output(sh(ESCAPE).directory_fd(3, given()?))?;
    assert!(text(&output).contains("marker"), "{}", text(&output));
    Ok(())
}

fn failures() -> Fallible<()> {
    for init in [Init::Shim, Init::Payload] {
        let sandbox = host().init(init).build()?;
        let error = refused(sandbox.spawn(Command::new("/no/such").fd(3, file("")?)))?;
        assert_kind(&error, ErrorKind::ProgramNotFound);
        let error = refused(sandbox.spawn(Command::new("true").fd(3, file("")?).current_dir("/no/such")))?;
        assert_eq!(error.step().map(|s| s.name()), Some("working-directory"), "{error}");
    }
    Ok(())
}

fn nobody_else() -> Fallible<()> {
    for init in [Init::Shim, Init::Payload] {
        let (reader, writer) = pipe()?;
        let mut command = sh("echo hello >&3; exec 3>&-; exec sleep 60");
        command.fd(3, writer);
        let mut child = host().init(init).build()?.spawn(&command)?;
        drop(command);
        let start = Instant::now();
        // the end comes only when the payload's copy was the last
        assert_eq!(read(reader)?, "hello\n");
        assert!(start.elapsed() < Duration::from_secs(30) && child.try_wait()?.is_none(), "{init:?}");
    }
    Ok(())
}

fn socket_to_payload() -> Fallible<()> {
    let sandbox = host().build()?;
    let (mut ours, theirs) = socketpair(SocketKind::Stream)?;
    ours.set_timeout(Some(Duration::from_secs(30)))?;
    let mut child = sandbox.spawn(sh("head -c4 <&3 | tr a-z A-Z >&3").fd(3, theirs))?;
    ours.write_all(b"ping")?;
    let mut all = String::new();
    ours.read_to_string(&mut all)?; // to the end: the payload's was the last copy
    assert_eq!(all, "PING");
    assert!(child.wait()?.success());

    let (ours, theirs) = socketpair(SocketKind::Packets)?;
    ours.set_timeout(Some(Duration::from_secs(30)))?;
    let mut child = sandbox.spawn(sh("dd bs=64 count=2").stdin(theirs.try_clone()?).stdout(theirs))?;
    let mut buffer = [0; 64];
    for packet in [&b"first"[..], b"second"] {
        ours.send(packet, &[])?;
        let got = ours.receive(&mut buffer, 0)?;
        assert_eq!(&buffer[..got.len], packet, "packets keep their bounds");
    }
    assert!(child.wait()?.success());
    assert_eq!(ours.receive(&mut buffer, 0)?.len, 0);
    Ok(())
}

fn passed_later() -> Fallible<()> {
    for kind in [SocketKind::Stream, SocketKind::Packets] {
        let (ours, theirs) = socketpair(kind)?;
        let theirs = Socket::from(theirs);
        let (reader, writer) = pipe()?;
        ours.send(b"two files", &[file("one")?.as_fd(), writer.as_fd()])?;
        drop(writer);
        let mut buffer = [0; 64];
        let mut got = theirs.receive(&mut buffer, 8)?;
        assert_eq!((&buffer[..got.len], got.fds.len()), (&b"two files"[..], 2));
        let mut writer = File::from(got.fds.pop().ok_or("no pipe")?);
        writer.write_all(b"through it")?;
        drop(writer);
        assert_eq!(read(reader)?, "through it");
        let flags = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", got.fds[0].as_raw_fd()))?;
        assert!(flags.contains("flags:\t02"), "close-on-exec: {flags}");
    }
    Ok(())
}

fn bounded() -> Fallible<()> {
    let open = || std::fs::read_dir("/proc/self/fd").map(Iterator::count);
    let (ours, theirs) = socketpair(SocketKind::Packets)?;
    let theirs = Socket::from(theirs);
    let mut buffer = [0; 16];
    let before = open()?;
    // a plugin that floods its host with descriptors: none beyond what was asked for is opened
    let null = File::open("/dev/null")?;
    for (sent, asked) in [(5, 2), (1, 0), (253, 252)] {
        theirs.send(b"x", &vec![null.as_fd(); sent])?;
        let error = refused(ours.receive(&mut buffer, asked))?;
        assert_kind(&error, ErrorKind::LimitReached);
    }
    assert_eq!(open()?, before + 1, "`null` only");
    theirs.send(&[0; 17], &[])?;
    assert_eq!(refused(ours.receive(&mut buffer, 0))?.raw_os_error(), Some(90), "EMSGSIZE");
    theirs.send(b"after all that", &[null.as_fd()])?;
    let got = ours.receive(&mut buffer, 1)?;
    assert_eq!((got.len, got.fds.len()), (14, 1));
    drop(got);
    // nothing waits for ever
    ours.set_timeout(Some(Duration::from_millis(50)))?;
    assert_eq!(refused(ours.receive(&mut buffer, 0))?.kind(), ErrorKind::TimedOut);
    let full = (0..10_000).find_map(|_| ours.send(&[0; 4096], &[]).err()).ok_or("it takes no end of packets")?;
    assert_eq!(full.kind(), ErrorKind::TimedOut, "{full}");
    assert_kind(&refused(ours.set_timeout(Some(Duration::ZERO)))?, ErrorKind::InvalidSpec);
    for error in [refused(ours.send(b"", &[null.as_fd()]))?, refused(ours.send(b"x", &vec![null.as_fd(); 254]))?] {
        assert_kind(&error, ErrorKind::InvalidSpec);
    }
    drop(theirs);
    let gone = refused(ours.send(b"x", &[]))?;
    assert_eq!(gone.raw_os_error(), Some(32), "EPIPE, and no SIGPIPE: {gone}");
    // what the program was started with: nothing there, and no socket
    assert_eq!(refused(Socket::inherited(999_999))?.kind(), ErrorKind::NotFound);
    let number = |fd: &dyn AsRawFd| fd.as_raw_fd() as u32;
    assert_eq!(refused(Socket::inherited(number(&null)))?.kind(), ErrorKind::NotFound);
    let held = OwnedFd::from(ours);
    Socket::inherited(number(&held))?;
    Ok(())
}
