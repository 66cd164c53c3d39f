//! `belljar::sys` on the real kernel, as root or as an ordinary user.
//!
//! What wants capabilities runs in a child process in new user and mount namespaces:
//! the test executes itself again there ([`in_new_namespaces`]). Where the machine
//! does not allow them, such a test fails and says so.

use belljar::sys::clone::CloneExec;
use belljar::sys::memfd::sealed_executable;
use belljar::sys::mount::{
    self, AttrChange, FsContext, MountAttr, MountFlags, OpenTreeFlags, Propagation, UnmountFlags,
};
use belljar::sys::namespace::{self, NamespaceFlags};
use belljar::sys::path::{self, CWD, Device, FileKind, OpenFlags, Resolve};
use belljar::sys::pidfd::PidFd;
use belljar::sys::seccomp::{Listener, Place, Response};
use belljar::sys::{Errno, socket};
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Once;
use std::thread;
use std::time::Duration;

// ---- help ---------------------------------------------------------------------------

/// No namespace at all.
const EMPTY: NamespaceFlags = NamespaceFlags::empty();

/// A directory of this test alone, removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("belljar-sys-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap_or_else(|e| panic!("cannot make {}: {e}", path.display()));
        Scratch(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn link(&self, name: &str, target: &str) {
        symlink(target, self.join(name)).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A leftover in /tmp is no reason to fail (or to panic twice).
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn c(path: impl AsRef<Path>) -> CString {
    CString::new(path.as_ref().as_os_str().as_bytes()).unwrap()
}

fn read(fd: OwnedFd) -> String {
    let mut text = String::new();
    File::from(fd).read_to_string(&mut text).unwrap();
    text
}

/// A path through an open descriptor, for the functions of `std`.
fn through(fd: &impl AsRawFd, name: &str) -> PathBuf {
    format!("/proc/self/fd/{}/{name}", fd.as_raw_fd()).into()
}

fn is_cloexec(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: F_GETFD has no argument and changes nothing.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) };
    assert_ne!(flags, -1, "F_GETFD: {}", std::io::Error::last_os_error());
    flags & libc::FD_CLOEXEC != 0
}

/// The error, or a panic that shows what came instead.
#[track_caller]
fn error<T: std::fmt::Debug>(answer: Result<T, Errno>) -> Errno {
    answer.expect_err("this should have failed")
}

/// What an `std` function failed with.
#[track_caller]
fn os_error<T: std::fmt::Debug>(answer: std::io::Result<T>) -> Errno {
    Errno(answer.expect_err("this should have failed").raw_os_error().expect("an error of the kernel"))
}

/// Raises RLIMIT_NOFILE for tests that hold many descriptors.
fn many_descriptors() {
    const NEED: u64 = 4096;
    static RAISE: Once = Once::new();
    RAISE.call_once(|| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel writes one rlimit.
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
        if limit.rlim_cur < NEED {
            limit.rlim_cur = NEED.min(limit.rlim_max);
            // SAFETY: the kernel reads one rlimit.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
        }
    });
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    assert!(limit.rlim_cur >= NEED, "this test needs {NEED} descriptors, RLIMIT_NOFILE allows {}", limit.rlim_cur);
}

/// Runs a body in a child process that is root in new user, mount, UTS and IPC namespaces. `name` is the
/// calling test's own: it is executed again, by itself.
fn in_new_namespaces(name: &str, body: fn()) {
    const INSIDE: &str = "BELLJAR_SYS_TEST_INSIDE";
    const DONE: &str = "-- the body has run --";
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == name) {
        // What the body leaves in the temporary directory goes with its namespace.
        let temp = c(std::env::temp_dir());
        mount::mount(c"temp", &temp, c"tmpfs", MountFlags::empty(), None)
            .expect("cannot mount a tmpfs in the namespace");
        body();
        println!("{DONE}");
        return;
    }
    // SAFETY: these two calls always succeed and touch no memory.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(INSIDE, name);
    enter_user_namespace(
        &mut command,
        NamespaceFlags::USER | NamespaceFlags::MOUNT | NamespaceFlags::UTS | NamespaceFlags::IPC,
        format!("0 {uid} 1"),
        format!("0 {gid} 1"),
    );
    let output = command.output().unwrap_or_else(|e| {
        panic!(
            "this test needs user and mount namespaces, which this machine does not allow here: {e} \
             (see /proc/sys/user, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns, \
             or the seccomp filter of the container around)"
        )
    });
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && stdout.contains(DONE), "{name}, inside: {}\n{stdout}\n{stderr}", output.status);
}

/// Has a command start in new namespaces, with these id maps.
fn enter_user_namespace(command: &mut Command, kinds: NamespaceFlags, uid_map: String, gid_map: String) {
    let enter = move || {
        namespace::unshare(kinds)?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", &uid_map)?;
        fs::write("/proc/self/gid_map", &gid_map)
    };
    // SAFETY: between fork and exec this makes system calls only; paths this short are
    // put on the stack, and errors of the kernel are numbers: nothing allocates or locks.
    unsafe { command.pre_exec(enter) };
}

/// Runs a body on a thread of its own to which openat2(2) is unknown.
fn without_openat2<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    let nr = u32::try_from(libc::SYS_openat2).unwrap();
    let filter = [
        // the system call's number; when it is openat2, ENOSYS, else go on
        libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 },
        libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: nr },
        libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32 },
        libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ];
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
            // SAFETY: the first call takes numbers only; the second reads the filter, whose
            // length stands beside it. Both change this thread alone.
            let answers = unsafe {
                [
                    libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
                    libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program),
                ]
            };
            assert_eq!(answers, [0, 0], "this test needs seccomp filters: {}", std::io::Error::last_os_error());
            body()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

// ---- path ---------------------------------------------------------------------------

/// A tree that tries to get out of its root, and something outside to get at.
fn hostile(name: &str) -> Scratch {
    let scratch = Scratch::new(name);
    let outside = scratch.file("outside/secret", "outside");
    scratch.file("root/outside-is-not-here", "");
    scratch.file("root/etc/passwd", "inside");
    scratch.file("root/dir/deep/file", "deep");
    scratch.link("root/absolute", "/etc/passwd");
    scratch.link("root/up", "../../../../../../../../etc/passwd");
    scratch.link("root/dir/deep/up", "../../../../../../../../etc/passwd");
    scratch.link("root/dirlink", "/dir/");
    scratch.link("root/chain", "dirlink/deep/up");
    scratch.link("root/escape", "../outside/secret");
    scratch.link("root/escape-dir", "..");
    scratch.link("root/escape-absolute", outside.to_str().unwrap());
    scratch.link("root/loop", "loop");
    scratch.link("root/dangling", "/nowhere");
    scratch
}

fn check_open_in_root(scratch: &Scratch) {
    let root = File::open(scratch.join("root")).unwrap();
    let open = |path: &CStr, flags| path::open_in_root(root.as_fd(), path, flags);
    let text = |path: &CStr| read(open(path, OpenFlags::empty()).unwrap_or_else(|e| panic!("{path:?}: {e}")));
    let fails = |path: &CStr, flags| match open(path, flags) {
        Ok(fd) => panic!("{path:?} leads to {:?}", fs::read_link(through(&fd, "").parent().unwrap())),
        Err(errno) => errno,
    };
    let none = OpenFlags::empty();

    for path in [c"/etc/passwd", c"etc/passwd", c"../etc/passwd", c"/../../etc/passwd", c"dir/../../../etc/passwd"] {
        assert_eq!(text(path), "inside", "{path:?}");
    }
    for link in [c"absolute", c"/absolute", c"up", c"dir/deep/up", c"chain", c"dirlink/../absolute"] {
        assert_eq!(text(link), "inside", "{link:?}");
    }
    assert_eq!(text(c"dirlink/deep/file"), "deep");
    for path in [c"../outside/secret", c"dir/../../outside/secret", c"escape", c"escape-absolute", c"dangling"] {
        assert_eq!(fails(path, none), Errno::ENOENT, "{path:?}");
    }
    assert_eq!(fails(&c(scratch.join("outside/secret")), none), Errno::ENOENT);
    assert_eq!(fails(c"escape-dir/outside/secret", none), Errno::ENOENT);

    // the root is its own parent, however it is put
    let own = root.metadata().unwrap();
    for path in [c"/", c"..", c".", c"../..", c"//..//..//", c"dir/..", c"escape-dir", c"escape-dir/.."] {
        let fd = open(path, OpenFlags::PATH).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        assert_eq!(path::stat(fd.as_fd()).unwrap().ino, own.ino(), "{path:?}");
        assert!(is_cloexec(fd.as_fd()));
    }

    // what a path means at its end
    assert_eq!(fails(c"", none), Errno::ENOENT);
    assert_eq!(fails(c"loop", none), Errno::ELOOP);
    assert_eq!(fails(c"etc/passwd/", none), Errno::ENOTDIR);
    assert_eq!(fails(c"absolute/", none), Errno::ENOTDIR);
    assert_eq!(fails(c"etc/passwd/more", none), Errno::ENOTDIR);
    assert_eq!(fails(c"etc/passwd", OpenFlags::DIRECTORY), Errno::ENOTDIR);
    assert_eq!(fails(c"absolute", OpenFlags::NOFOLLOW), Errno::ELOOP);
    assert_eq!(fails(c"dir", OpenFlags::WRONLY), Errno::EISDIR);
    let kind = |path: &CStr, flags| path::stat(open(path, flags).unwrap().as_fd()).unwrap().kind;
    assert_eq!(kind(c"absolute", OpenFlags::PATH | OpenFlags::NOFOLLOW), FileKind::Symlink);
    assert_eq!(kind(c"dirlink", OpenFlags::PATH | OpenFlags::NOFOLLOW), FileKind::Symlink);
    assert_eq!(kind(c"dirlink/", OpenFlags::PATH | OpenFlags::NOFOLLOW), FileKind::Directory);
    assert_eq!(kind(c"dirlink", OpenFlags::DIRECTORY), FileKind::Directory);

    // it does not create
    assert_eq!(fails(c"new", OpenFlags::CREAT | OpenFlags::WRONLY), Errno::EINVAL);
    assert!(!scratch.join("root/new").exists());

    // magic links, and the working directory as root
    let proc = File::open("/proc").unwrap();
    error(path::open_in_root(proc.as_fd(), c"self/exe", OpenFlags::PATH));
    let fd = path::open_in_root(CWD, c"/../..", OpenFlags::PATH).unwrap();
    assert_eq!(path::stat(fd.as_fd()).unwrap().ino, fs::metadata(".").unwrap().ino());
}

#[test]
fn open_in_root_cannot_escape() {
    let scratch = hostile("open-in-root");
    let root = File::open(scratch.join("root")).unwrap();
    if let Err(errno) = path::openat2(root.as_fd(), c".", OpenFlags::PATH, 0, Resolve::IN_ROOT) {
        panic!("this test is about openat2(2), which is not to be had here: {errno}");
    }
    check_open_in_root(&scratch);
}

#[test]
fn open_in_root_cannot_escape_without_openat2() {
    let scratch = hostile("open-in-root-walk");
    without_openat2(|| {
        assert_eq!(error(path::openat2(CWD, c".", OpenFlags::PATH, 0, Resolve::empty())), Errno::ENOSYS);
        check_open_in_root(&scratch);
    });
}

#[test]
fn openat2_has_the_kernels_rules() {
    let scratch = hostile("openat2");
    let root = File::open(scratch.join("root")).unwrap();
    let open = |path: &CStr, resolve| path::openat2(root.as_fd(), path, OpenFlags::empty(), 0, resolve);
    assert_eq!(read(open(c"../outside/secret", Resolve::empty()).unwrap()), "outside");
    assert_eq!(error(open(c"../outside/secret", Resolve::BENEATH)), Errno::EXDEV);
    assert_eq!(error(open(c"escape", Resolve::BENEATH)), Errno::EXDEV);
    assert_eq!(error(open(c"absolute", Resolve::NO_SYMLINKS)), Errno::ELOOP);
    assert_eq!(read(open(c"absolute", Resolve::IN_ROOT).unwrap()), "inside");
    assert_eq!(error(open(c"/proc/self/exe", Resolve::NO_MAGICLINKS)), Errno::ELOOP);
    assert_eq!(error(path::openat2(CWD, c"/proc/self/maps", OpenFlags::empty(), 0, Resolve::NO_XDEV)), Errno::EXDEV);
    assert_eq!(error(path::openat2(CWD, c".", OpenFlags::empty(), 0o600, Resolve::empty())), Errno::EINVAL);

    let flags = OpenFlags::CREAT | OpenFlags::EXCL | OpenFlags::WRONLY;
    let made = path::openat2(root.as_fd(), c"made", flags, 0o600, Resolve::BENEATH).unwrap();
    assert_eq!(path::stat(made.as_fd()).unwrap().mode & 0o077, 0);
    assert!(is_cloexec(made.as_fd()));
    File::from(made).write_all(b"made").unwrap();
    assert_eq!(fs::read(scratch.join("root/made")).unwrap(), b"made");
    assert_eq!(error(path::openat2(root.as_fd(), c"made", flags, 0o600, Resolve::BENEATH)), Errno::EEXIST);
}

#[test]
fn open_long_takes_any_length() {
    let scratch = Scratch::new("open-long");
    let name = "d".repeat(250);
    let mut path = scratch.0.to_str().unwrap().to_owned();
    let mut dir: OwnedFd = File::open(&scratch.0).unwrap().into();
    for _ in 0..20 {
        fs::create_dir(through(&dir, &name)).unwrap();
        dir = File::open(through(&dir, &name)).unwrap().into();
        path = format!("{path}/{name}");
    }
    fs::write(through(&dir, "file"), "far").unwrap();
    symlink("file", through(&dir, "link")).unwrap();
    assert!(path.len() > 4096);
    assert_eq!(os_error(File::open(format!("{path}/file"))), Errno::ENAMETOOLONG);

    let long = |tail: &str| CString::new(format!("{path}{tail}")).unwrap();
    let open = |tail: &str, flags| path::open_long(&long(tail), flags);
    let none = OpenFlags::empty();
    assert_eq!(read(open("/file", none).unwrap()), "far");
    assert_eq!(read(open("/link", none).unwrap()), "far");
    assert_eq!(read(open(&format!("{}file", "/".repeat(9000)), none).unwrap()), "far");
    assert_eq!(read(open(&format!("/{}file", "./".repeat(9000)), none).unwrap()), "far");
    for tail in ["", "/", &"/".repeat(5000), "/."] {
        let fd = open(tail, OpenFlags::PATH).unwrap();
        assert_eq!(path::stat(fd.as_fd()).unwrap().ino, path::stat(dir.as_fd()).unwrap().ino);
        assert!(is_cloexec(fd.as_fd()));
    }
    assert_eq!(error(open("/link", OpenFlags::NOFOLLOW)), Errno::ELOOP);
    assert_eq!(error(open("/file/", none)), Errno::ENOTDIR);
    assert_eq!(error(open("/nothing", none)), Errno::ENOENT);
    assert_eq!(error(open("/new", OpenFlags::CREAT | OpenFlags::WRONLY)), Errno::EINVAL);
    assert_eq!(error(open(&format!("/{}", "n".repeat(256)), none)), Errno::ENAMETOOLONG);
    assert_eq!(error(open(&format!("/{}", "n".repeat(5000)), none)), Errno::ENAMETOOLONG);
    let missing = CString::new(format!("{}/nothing/{}", scratch.0.display(), "x/".repeat(3000))).unwrap();
    assert_eq!(error(path::open_long(&missing, none)), Errno::ENOENT);
    // every length around the limit
    for length in 4090..4102 {
        let path = CString::new(format!("/{}tmp", "/".repeat(length - 4))).unwrap();
        assert_eq!(path.as_bytes().len(), length);
        let fd = path::open_long(&path, OpenFlags::PATH).unwrap_or_else(|e| panic!("{length} bytes: {e}"));
        assert_eq!(path::stat(fd.as_fd()).unwrap().ino, fs::metadata("/tmp").unwrap().ino());
    }
    assert_eq!(path::stat(path::open_long(c".", none).unwrap().as_fd()).unwrap().kind, FileKind::Directory);
    assert_eq!(error(path::open_long(c"", none)), Errno::ENOENT);
}

#[test]
fn stat_tells_what_a_file_is() {
    let scratch = Scratch::new("stat");
    let path = scratch.file("file", "content");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).unwrap();
    let file = File::open(&path).unwrap();
    let (stat, theirs) = (path::stat(file.as_fd()).unwrap(), file.metadata().unwrap());
    assert_eq!((stat.kind, stat.mode, stat.ino), (FileKind::Regular, 0o4751, theirs.ino()));
    let dev = Device { major: libc::major(theirs.dev()), minor: libc::minor(theirs.dev()) };
    assert_eq!((stat.dev, stat.rdev), (dev, Device::default()));
    let fdinfo = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).unwrap();
    let mnt_id: u64 = fdinfo.lines().find_map(|line| line.strip_prefix("mnt_id:")).unwrap().trim().parse().unwrap();
    assert_eq!(stat.mnt_id.expect("this test needs Linux 5.8"), mnt_id);

    let null = path::stat(File::open("/dev/null").unwrap().as_fd()).unwrap();
    assert_eq!((null.kind, null.rdev), (FileKind::Character, Device { major: 1, minor: 3 }));
    let (socket, _other) = socket::seqpacket_pair().unwrap();
    assert_eq!(path::stat(socket.as_fd()).unwrap().kind, FileKind::Socket);
    let (pipe, _writer) = std::io::pipe().unwrap();
    assert_eq!(path::stat(pipe.as_fd()).unwrap().kind, FileKind::Fifo);
    let here = path::stat(CWD).unwrap();
    assert_eq!((here.kind, here.ino), (FileKind::Directory, fs::metadata(".").unwrap().ino()));
}

// ---- namespace ------------------------------------------------------------------------

const KINDS: [(NamespaceFlags, &str); 8] = [
    (NamespaceFlags::TIME, "time"),
    (NamespaceFlags::MOUNT, "mnt"),
    (NamespaceFlags::CGROUP, "cgroup"),
    (NamespaceFlags::UTS, "uts"),
    (NamespaceFlags::IPC, "ipc"),
    (NamespaceFlags::USER, "user"),
    (NamespaceFlags::PID, "pid"),
    (NamespaceFlags::NET, "net"),
];

fn own_pid() -> i32 {
    std::process::id() as i32
}

#[test]
fn namespaces_are_opened_by_kind() {
    for (kind, name) in KINDS {
        let path = PathBuf::from(format!("/proc/self/ns/{name}"));
        let Ok(theirs) = fs::metadata(&path) else {
            assert_eq!(error(namespace::open_of(own_pid(), kind)), Errno::ENOENT, "{name}");
            continue;
        };
        let fd = namespace::open_of(own_pid(), kind).unwrap();
        assert_eq!(path::stat(fd.as_fd()).unwrap().ino, theirs.ino(), "{name}");
        assert!(is_cloexec(fd.as_fd()));
        let fd = namespace::open_path(&c(&path)).unwrap();
        assert_eq!(path::stat(fd.as_fd()).unwrap().ino, theirs.ino(), "{name}");
    }
    for kinds in [EMPTY, NamespaceFlags::PID | NamespaceFlags::NET, NamespaceFlags::all()] {
        assert_eq!(error(namespace::open_of(own_pid(), kinds)), Errno::EINVAL);
    }
    for pid in [0, -1, i32::MAX, i32::MIN] {
        assert_eq!(error(namespace::open_of(pid, NamespaceFlags::NET)), Errno::ENOENT, "{pid}");
    }

    let scratch = Scratch::new("open-path");
    assert_eq!(error(namespace::open_path(&c(scratch.file("file", "")))), Errno::EINVAL);
    assert_eq!(error(namespace::open_path(c"/proc/self/status")), Errno::EINVAL);
    assert_eq!(error(namespace::open_path(&c(scratch.join("nothing")))), Errno::ENOENT);
    let fifo = c(scratch.join("fifo"));
    // SAFETY: `fifo` is a C string.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    assert_eq!(error(namespace::open_path(&fifo)), Errno::EINVAL); // and does not wait for a writer
}

#[test]
fn unshare_takes_only_kinds_of_namespace() {
    for flag in [libc::CLONE_FILES, libc::CLONE_FS, libc::CLONE_VM, libc::CLONE_THREAD] {
        let flags = NamespaceFlags::from_bits_retain(flag as u64);
        assert_eq!(error(namespace::unshare(flags)), Errno::EINVAL);
    }
    namespace::unshare(EMPTY).unwrap();
    // a user namespace only for a process with one thread
    let answer = thread::spawn(|| namespace::unshare(NamespaceFlags::USER)).join().unwrap();
    assert_eq!(error(answer), Errno::EINVAL);
}

#[test]
fn namespaces_are_of_a_thread() {
    in_new_namespaces("namespaces_are_of_a_thread", || {
        let own = |kind: &str| fs::metadata(format!("/proc/thread-self/ns/{kind}")).unwrap().ino();
        let before = own("uts");
        let uts = namespace::open_of(own_pid(), NamespaceFlags::UTS).unwrap();
        let mounts = namespace::open_of(own_pid(), NamespaceFlags::MOUNT).unwrap();
        let process = PidFd::open(own_pid()).unwrap();
        thread::spawn(move || {
            namespace::unshare(NamespaceFlags::UTS | NamespaceFlags::IPC).unwrap();
            assert_ne!(own("uts"), before);
            assert_eq!(error(namespace::setns(uts.as_fd(), NamespaceFlags::NET)), Errno::EINVAL);
            assert_ne!(own("uts"), before);
            namespace::setns(uts.as_fd(), NamespaceFlags::UTS).unwrap();
            assert_eq!(own("uts"), before);

            // several at once, by the process (Linux 5.8)
            namespace::unshare(NamespaceFlags::UTS).unwrap();
            namespace::setns(process.as_fd(), NamespaceFlags::UTS | NamespaceFlags::IPC).unwrap();
            assert_eq!(own("uts"), before);
            assert_eq!(error(namespace::setns(process.as_fd(), EMPTY)), Errno::EINVAL);

            // a mount namespace is not joined while root and working directory are shared
            assert_eq!(error(namespace::setns(mounts.as_fd(), NamespaceFlags::MOUNT)), Errno::EINVAL);
            namespace::unshare(NamespaceFlags::MOUNT).unwrap();
            namespace::setns(mounts.as_fd(), NamespaceFlags::MOUNT).unwrap();
        })
        .join()
        .unwrap();
        assert_eq!(own("uts"), before);

        // a new pid namespace is for children, not for threads
        thread::spawn(|| {
            namespace::unshare(NamespaceFlags::PID).unwrap();
            assert_eq!(os_error(thread::Builder::new().spawn(|| ())), Errno::EINVAL);
            let mut child = Command::new("/bin/sh").args(["-c", "test $$ = 1"]).spawn().unwrap();
            assert!(child.wait().unwrap().success(), "the first child should be process 1");
            assert_eq!(os_error(Command::new("/bin/sh").spawn()), Errno::ENOMEM);
        })
        .join()
        .unwrap();
    });
}

// ---- mount ----------------------------------------------------------------------------

/// The options, and the propagation, of the topmost mount at a path: proc_pid_mountinfo(5).
fn mounted(path: impl AsRef<Path>) -> (Vec<String>, Vec<String>) {
    let path = path.as_ref().to_str().unwrap().to_owned();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().rfind(|line| line.split(' ').nth(4) == Some(&path));
    let fields: Vec<&str> = line.unwrap_or_else(|| panic!("nothing is mounted at {path}")).split(' ').collect();
    let optional = fields[6..].iter().take_while(|field| **field != "-").map(|field| (*field).to_owned());
    (fields[5].split(',').map(str::to_owned).collect(), optional.collect())
}

#[track_caller]
fn assert_options(path: impl AsRef<Path>, has: &[&str], lacks: &[&str]) {
    let (options, _) = mounted(path);
    for option in has {
        assert!(options.iter().any(|o| o == option), "no {option} in {options:?}");
    }
    for option in lacks {
        assert!(!options.iter().any(|o| o == option), "{option} in {options:?}");
    }
}

#[test]
fn mounts_are_made_by_descriptor() {
    in_new_namespaces("mounts_are_made_by_descriptor", || {
        let scratch = Scratch::new("mount-api");
        let place = scratch.join("place");
        fs::create_dir(&place).unwrap();
        mount::set_propagation(c"/", Propagation::Private, true).unwrap();

        // a file system, step by step, and what goes wrong
        assert_eq!(error(FsContext::open(c"no-such-type")), Errno::ENODEV);
        let fs = FsContext::open(c"tmpfs").expect("this test needs fsopen(2), Linux 5.2");
        assert!(is_cloexec(fs.as_fd()));
        assert_eq!(fs.log(), [""; 0]);
        assert_eq!(error(fs.set_string(c"nonsense", c"1")), Errno::EINVAL);
        let log = fs.log();
        assert!(log.len() == 1 && log[0].starts_with("e ") && log[0].contains("nonsense"), "{log:?}");
        assert_eq!(fs.log(), [""; 0]);
        assert_eq!(error(fs.set_flag(c"more-nonsense")), Errno::EINVAL);
        assert_eq!(error(fs.set_fd(c"size", scratch_fd(&scratch).as_fd())), Errno::EINVAL);
        let (fits, long) = (CString::new("x".repeat(255)).unwrap(), CString::new("x".repeat(256)).unwrap());
        fs.set_string(c"source", &fits).unwrap();
        assert_eq!(error(fs.set_string(c"source", &long)), Errno::EINVAL);
        assert!(!fs.log().is_empty());
        assert_eq!(error(fs.mount(MountAttr::empty())), Errno::EINVAL); // not created yet
        fs.set_string(c"size", c"1m").unwrap();
        fs.set_string(c"mode", c"0751").unwrap();
        fs.create().unwrap();
        assert_eq!(error(fs.create()), Errno::EBUSY);
        let root = fs.mount(MountAttr::NODEV | MountAttr::NOSUID).unwrap();
        assert_eq!(error(fs.mount(MountAttr::empty())), Errno::EBUSY);
        drop(fs);

        // it is there before it is anywhere
        assert!(is_cloexec(root.as_fd()));
        let stat = path::stat(root.as_fd()).unwrap();
        assert_eq!((stat.kind, stat.mode), (FileKind::Directory, 0o751));
        for name in ["data", "view", "data/below"] {
            fs::create_dir(through(&root, name)).unwrap();
        }
        fs::write(through(&root, "data/file"), "before").unwrap();
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
        mount::move_mount(root.as_fd(), CWD, &c(&place)).unwrap();
        assert_eq!(fs::read_to_string(place.join("data/file")).unwrap(), "before");
        assert_options(&place, &["rw", "nosuid", "nodev", "relatime"], &["noexec"]);

        // a clone of part of it, over an open directory
        let (file, view) = (place.join("data/file"), place.join("view"));
        assert_eq!(error(mount::open_tree(root.as_fd(), c"data", OpenTreeFlags::RECURSIVE)), Errno::EINVAL);
        let just_open = mount::open_tree(root.as_fd(), c"data", OpenTreeFlags::empty()).unwrap();
        assert!(is_cloexec(just_open.as_fd()));
        let over = path::open_long(&c(&view), OpenFlags::PATH | OpenFlags::DIRECTORY).unwrap();
        assert_eq!(error(mount::move_mount_over(just_open.as_fd(), over.as_fd())), Errno::EINVAL);
        let tree = mount::open_tree(just_open.as_fd(), c"", OpenTreeFlags::CLONE).unwrap();
        assert!(is_cloexec(tree.as_fd()));
        let read_only = AttrChange { set: MountAttr::RDONLY | MountAttr::NOATIME, ..AttrChange::default() };
        mount::mount_setattr(tree.as_fd(), c"", &read_only).expect("this test needs mount_setattr(2), Linux 5.12");
        mount::move_mount_over(tree.as_fd(), over.as_fd()).unwrap();
        assert_options(&view, &["ro", "nosuid", "nodev", "noatime"], &["relatime"]);
        assert_eq!(os_error(fs::write(view.join("file"), "no")), Errno::EROFS);
        fs::write(&file, "after").unwrap();
        assert_eq!(fs::read_to_string(view.join("file")).unwrap(), "after");

        // by path; access-time modes replace each other
        let change = |change: AttrChange<'_>| mount::mount_setattr(CWD, &c(&view), &change);
        change(AttrChange { clear: MountAttr::RDONLY, ..Default::default() }).unwrap();
        fs::write(view.join("file"), "yes").unwrap();
        change(AttrChange { set: MountAttr::STRICTATIME, ..Default::default() }).unwrap();
        assert_options(&view, &["rw"], &["noatime", "relatime"]);
        change(AttrChange { set: MountAttr::NOATIME | MountAttr::NODIRATIME, ..Default::default() }).unwrap();
        assert_options(&view, &["noatime", "nodiratime"], &["relatime"]);
        change(AttrChange { clear: MountAttr::NOATIME, ..Default::default() }).unwrap();
        assert_options(&view, &["relatime", "nodiratime"], &["noatime"]);
        let both = MountAttr::NOATIME | MountAttr::STRICTATIME;
        assert_eq!(error(change(AttrChange { set: both, ..Default::default() })), Errno::EINVAL);
        change(AttrChange::default()).unwrap();
        assert_options(&view, &["relatime", "nodiratime", "nosuid"], &["ro"]);

        // recursively; and not what is no mount, nor an id map without one
        let noexec = AttrChange { set: MountAttr::NOEXEC, recursive: true, ..Default::default() };
        mount::mount_setattr(root.as_fd(), c"", &noexec).unwrap();
        assert_options(&place, &["noexec"], &[]);
        assert_options(&view, &["noexec"], &[]);
        assert_eq!(error(mount::mount_setattr(root.as_fd(), c"data", &noexec)), Errno::EINVAL);
        assert_eq!(error(mount::mount_setattr(CWD, c"/nothing/here", &noexec)), Errno::ENOENT);
        let smuggled = MountAttr::from_bits_retain(libc::MOUNT_ATTR_IDMAP);
        assert_eq!(error(change(AttrChange { set: smuggled, ..Default::default() })), Errno::EINVAL);
        assert_eq!(error(change(AttrChange { clear: smuggled, ..Default::default() })), Errno::EINVAL);
        let no_namespace = File::open("/dev/null").unwrap();
        assert_eq!(
            error(change(AttrChange { id_map: Some(no_namespace.as_fd()), ..Default::default() })),
            Errno::EINVAL
        );

        // propagation
        let propagate = |propagation| change(AttrChange { propagation: Some(propagation), ..Default::default() });
        let propagation = || mounted(&view).1.join(" ");
        assert_eq!(propagation(), "");
        propagate(Propagation::Shared).unwrap();
        assert!(propagation().starts_with("shared:"), "{}", propagation());
        propagate(Propagation::Unbindable).unwrap();
        assert_eq!(propagation(), "unbindable");
        assert_eq!(error(mount::open_tree(CWD, &c(&view), OpenTreeFlags::CLONE)), Errno::EINVAL);
        propagate(Propagation::Private).unwrap();
        assert_eq!(propagation(), "");

        // a link is not followed, unless asked to
        symlink("/", place.join("link")).unwrap();
        let link = mount::open_tree(root.as_fd(), c"link", OpenTreeFlags::NOFOLLOW).unwrap();
        assert_eq!(path::stat(link.as_fd()).unwrap().kind, FileKind::Symlink);
        let link = mount::open_tree(root.as_fd(), c"link", OpenTreeFlags::empty()).unwrap();
        assert_eq!(path::stat(link.as_fd()).unwrap().kind, FileKind::Directory);

        // and it becomes the root
        assert_eq!(error(mount::pivot_root(&c(&scratch.0), &c(&scratch.0))), Errno::EINVAL);
        std::env::set_current_dir(&place).unwrap();
        std::mem::forget(scratch); // its name is soon no more, and it goes with the namespace
        mount::pivot_root(c".", c".").unwrap();
        mount::umount(c".", UnmountFlags::DETACH).unwrap();
        std::env::set_current_dir("/").unwrap();
        let mut names: Vec<_> = fs::read_dir("/").unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["data", "link", "view"]);
        assert_eq!(fs::read_to_string("/view/file").unwrap(), "yes");
        assert_eq!(path::stat(CWD).unwrap().ino, path::stat(root.as_fd()).unwrap().ino);
    });
}

fn scratch_fd(scratch: &Scratch) -> File {
    File::open(&scratch.0).unwrap()
}

#[test]
fn mounts_are_made_by_path() {
    in_new_namespaces("mounts_are_made_by_path", || {
        let scratch = Scratch::new("mount-path");
        let place = scratch.join("place");
        fs::create_dir(&place).unwrap();
        mount::set_propagation(c"/", Propagation::Private, true).unwrap();
        let new = |fstype: &CStr, data| mount::mount(c"test", &c(&place), fstype, MountFlags::NOSUID, data);
        assert_eq!(error(new(c"no-such-type", None)), Errno::ENODEV);
        assert_eq!(error(new(c"tmpfs", Some(c"nonsense=1"))), Errno::EINVAL);
        assert_eq!(error(mount::umount(&c(&place), UnmountFlags::empty())), Errno::EINVAL);
        new(c"tmpfs", Some(c"size=1m,mode=0700")).unwrap();
        assert_options(&place, &["rw", "nosuid", "relatime"], &["nodev"]);
        assert_eq!(fs::metadata(&place).unwrap().mode() & 0o7777, 0o700);

        // bind, alone and with what is below
        for name in ["a", "a/below", "b", "c"] {
            fs::create_dir(place.join(name)).unwrap();
        }
        let at = |name: &str| c(place.join(name));
        mount::mount(c"test", &at("a/below"), c"tmpfs", MountFlags::empty(), None).unwrap();
        fs::write(place.join("a/file"), "file").unwrap();
        fs::write(place.join("a/below/file"), "below").unwrap();
        mount::bind(&at("a"), &at("b"), false).unwrap();
        mount::bind(&at("a"), &at("c"), true).unwrap();
        assert_eq!(fs::read_to_string(place.join("b/file")).unwrap(), "file");
        assert_eq!(os_error(fs::read(place.join("b/below/file"))), Errno::ENOENT);
        assert_eq!(fs::read_to_string(place.join("c/below/file")).unwrap(), "below");
        assert_eq!(error(mount::bind(&at("a/file"), &at("b"), false)), Errno::ENOTDIR);
        assert_eq!(error(mount::bind(&at("nothing"), &at("b"), false)), Errno::ENOENT);

        // one mount, then the file system behind it
        mount::remount_bind(&at("b"), MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOATIME).unwrap();
        assert_options(place.join("b"), &["ro", "nodev", "noatime"], &["nosuid"]);
        assert_eq!(os_error(fs::write(place.join("b/file"), "no")), Errno::EROFS);
        fs::write(place.join("a/file"), "yes").unwrap();
        mount::remount(&c(&place), MountFlags::RDONLY, None).unwrap();
        assert_eq!(os_error(fs::write(place.join("c/file"), "no")), Errno::EROFS);
        mount::remount(&c(&place), MountFlags::empty(), Some(c"size=2m")).unwrap();
        fs::write(place.join("c/file"), "yes").unwrap();
        assert_eq!(error(mount::remount_bind(&at("a"), MountFlags::RDONLY)), Errno::EINVAL);

        // propagation, of one and of all
        let propagation = |name: &str| mounted(place.join(name)).1.join(" ");
        mount::set_propagation(&at("c"), Propagation::Shared, true).unwrap();
        assert!(propagation("c").starts_with("shared:") && propagation("c/below").starts_with("shared:"));
        mount::set_propagation(&at("c"), Propagation::Slave, false).unwrap();
        assert_eq!(propagation("c"), ""); // no peer to be the slave of
        assert!(propagation("c/below").starts_with("shared:"));
        mount::set_propagation(&at("c"), Propagation::Unbindable, true).unwrap();
        assert_eq!((propagation("c"), propagation("c/below")), ("unbindable".into(), "unbindable".into()));
        assert_eq!(error(mount::set_propagation(&at("a"), Propagation::Shared, false)), Errno::EINVAL);

        // unmounting
        let none = UnmountFlags::empty();
        symlink("b", place.join("link")).unwrap();
        assert_eq!(error(mount::umount(&at("link"), UnmountFlags::NOFOLLOW)), Errno::EINVAL);
        mount::umount(&at("link"), none).unwrap();
        assert_eq!(fs::read_dir(place.join("b")).unwrap().count(), 0);
        assert_eq!(error(mount::umount(&at("c"), none)), Errno::EBUSY);
        mount::umount(&at("c/below"), none).unwrap();
        let open = File::open(place.join("c/file")).unwrap();
        assert_eq!(error(mount::umount(&at("c"), none)), Errno::EBUSY);
        mount::umount(&at("c"), UnmountFlags::DETACH).unwrap();
        assert_eq!(read(open.into()), "yes");
        assert_eq!(error(mount::umount(&at("a/below"), UnmountFlags::EXPIRE)), Errno::EAGAIN);
        mount::umount(&at("a/below"), UnmountFlags::EXPIRE).unwrap();
        assert_eq!(error(mount::umount(&at("a/below"), UnmountFlags::EXPIRE)), Errno::EINVAL);
        mount::umount(&c(&place), none).unwrap();
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    });
}

#[test]
fn owners_are_seen_through_an_id_map() {
    in_new_namespaces("owners_are_seen_through_an_id_map", || {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split(|b: char| !b.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
        let version = (numbers.next().unwrap(), numbers.next().unwrap());
        assert!(version >= (6, 3), "this test needs a tmpfs that can be id-mapped, Linux 6.3; this is {release}");

        // a user namespace in which our id 0 is 1, and 0 is nobody
        let mut command = Command::new("/bin/sleep");
        command.arg("600");
        enter_user_namespace(&mut command, NamespaceFlags::USER, "1 0 1".into(), "1 0 1".into());
        let child = Killed::spawn(&mut command);
        let user = namespace::open_of(child.child.id() as i32, NamespaceFlags::USER).unwrap();

        let fs = FsContext::open(c"tmpfs").unwrap();
        fs.create().unwrap();
        let root = fs.mount(MountAttr::empty()).unwrap();
        assert_eq!(fs::metadata(through(&root, "")).unwrap().uid(), 0);
        let change = AttrChange { id_map: Some(user.as_fd()), ..Default::default() };
        mount::mount_setattr(root.as_fd(), c"", &change).unwrap();
        let nobody: u32 = fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap().trim().parse().unwrap();
        assert_eq!(fs::metadata(through(&root, "")).unwrap().uid(), nobody);
        assert_eq!(error(mount::mount_setattr(root.as_fd(), c"", &change)), Errno::EPERM); // only once
    });
}

/// A child that does not outlive its test.
struct Killed {
    child: Child,
    pidfd: PidFd,
}

impl Killed {
    fn spawn(command: &mut Command) -> Killed {
        let child = command.spawn().unwrap();
        let pidfd = PidFd::open(child.id() as i32).unwrap();
        Killed { child, pidfd }
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have been waited for, and then there is nothing left to do.
        let _ = self.pidfd.send_signal(libc::SIGKILL);
        let _ = self.pidfd.wait();
    }
}

// ---- memfd, clone ------------------------------------------------------------------------

#[test]
fn a_sealed_memfd_cannot_be_written() {
    let fd = sealed_executable(c"test", b"content").unwrap();
    assert!(is_cloexec(fd.as_fd()));
    let (path, eperm) = (format!("/proc/self/fd/{}", fd.as_raw_fd()), Errno::EPERM);
    assert_eq!(fs::read(&path).unwrap(), b"content");
    assert_ne!(fs::metadata(&path).unwrap().mode() & 0o111, 0);
    assert_eq!(os_error(File::from(fd.try_clone().unwrap()).write_all(b"no")), eperm);
    let mut again = File::options().read(true).write(true).open(&path).unwrap();
    assert_eq!(os_error(again.write_all(b"no")), eperm);
    assert_eq!(os_error(again.set_len(0)), eperm);
    assert_eq!(os_error(again.set_len(1 << 20)), eperm);
    assert_eq!(os_error(File::options().write(true).truncate(true).open(&path)), eperm);
    // SAFETY: a new mapping where the kernel puts it, or none.
    let map = unsafe {
        libc::mmap(std::ptr::null_mut(), 7, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, again.as_raw_fd(), 0)
    };
    assert_eq!(map, libc::MAP_FAILED);
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EPERM));
    // SAFETY: F_ADD_SEALS takes a number.
    assert_eq!(unsafe { libc::fcntl(again.as_raw_fd(), libc::F_ADD_SEALS, 0) }, -1);
    assert_eq!(fs::read(&path).unwrap(), b"content");
}

fn start(program: BorrowedFd<'_>, namespaces: NamespaceFlags) -> Result<(PidFd, OwnedFd), Errno> {
    let (ours, theirs) = socket::seqpacket_pair()?;
    let child = CloneExec::new(program, theirs.as_fd()).namespaces(namespaces).spawn()?;
    Ok((child.pidfd, ours))
}

#[test]
fn clone_exec_runs_a_program() {
    for (program, code) in [("/bin/true", 0), ("/bin/false", 1)] {
        let (child, _ours) = start(File::open(program).unwrap().as_fd(), EMPTY).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{program}");
        assert_eq!(error(child.wait()), Errno::ECHILD);
    }
    // O_PATH will do
    let program = path::open_long(c"/bin/true", OpenFlags::PATH).unwrap();
    assert!(start(program.as_fd(), EMPTY).unwrap().0.wait().unwrap().success());
}

#[test]
fn clone_exec_says_why_it_failed() {
    let garbage = sealed_executable(c"garbage", b"this is no program").unwrap();
    assert_eq!(error(start(garbage.as_fd(), EMPTY)), Errno::ENOEXEC);
    let empty = sealed_executable(c"empty", b"").unwrap();
    assert_eq!(error(start(empty.as_fd(), EMPTY)), Errno::ENOEXEC);
    let scratch = Scratch::new("clone-exec");
    let not_executable = File::open(scratch.file("file", "")).unwrap();
    assert_eq!(error(start(not_executable.as_fd(), EMPTY)), Errno::EACCES);
    assert_eq!(error(start(scratch_fd(&scratch).as_fd(), EMPTY)), Errno::EACCES);
    let missing_interpreter = sealed_executable(c"script", b"#!/nothing/here\n").unwrap();
    assert_eq!(error(start(missing_interpreter.as_fd(), EMPTY)), Errno::ENOENT);
    let program = File::open("/bin/true").unwrap();
    assert_eq!(error(start(program.as_fd(), NamespaceFlags::TIME)), Errno::EINVAL);
}

/// What `CloneExec` starts below: this executable again, which in that case tells what it
/// sees of itself and ends, before libtest begins.
#[used]
#[unsafe(link_section = ".init_array")]
static PROBE: extern "C" fn() = probe;

extern "C" fn probe() {
    // SAFETY: F_GETFD changes nothing, whatever the number.
    let is_open = |fd: i32| unsafe { libc::fcntl(fd, libc::F_GETFD) } != -1;
    if std::env::vars_os().next().is_some() || !is_open(3) {
        return; // an ordinary start
    }
    // SAFETY: it is open, and nothing here closes it.
    let channel = unsafe { BorrowedFd::borrow_raw(3) };
    if path::stat(channel).map(|stat| stat.kind) != Ok(FileKind::Socket) {
        return;
    }
    let fds: Vec<i32> = (0..1 << 16).filter(|fd| is_open(*fd)).collect();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let cmdline = fs::read("/proc/self/cmdline").unwrap_or_default();
    let pid = std::process::id();
    let report = format!("Fds:\t{fds:?}\nArguments:\t{cmdline:?}\nNumber:\t{pid}\n{status}");
    let sent = socket::send(channel, report.as_bytes(), &[]).is_ok();
    // SAFETY: the process ends here; nobody relies on what exit(3) would still run.
    unsafe { libc::_exit(if sent { 0 } else { 1 }) }
}

/// The probe's report, by field.
fn probed(namespaces: NamespaceFlags) -> impl Fn(&str) -> String {
    let program = File::open("/proc/self/exe").unwrap();
    let (child, ours) = start(program.as_fd(), namespaces).unwrap_or_else(|errno| panic!("{namespaces:?}: {errno}"));
    assert!(child.wait().unwrap().success());
    let mut buffer = vec![0; 1 << 16];
    let (len, _) = socket::receive(ours.as_fd(), &mut buffer, true).unwrap();
    let report = String::from_utf8(buffer[..len].to_vec()).unwrap();
    move |field| {
        let value = report.lines().find_map(|line| line.strip_prefix(&format!("{field}:\t")));
        value.unwrap_or_else(|| panic!("no {field} in {report}")).to_owned()
    }
}

#[test]
fn clone_exec_leaves_one_descriptor() {
    many_descriptors();
    // inheritable ones too, here and there, and one beyond all others
    let mut held: Vec<OwnedFd> = (0..1000).map(|_| File::open("/dev/null").unwrap().into()).collect();
    for fd in held.iter().step_by(7) {
        // SAFETY: F_SETFD takes a number; this one makes the descriptor inheritable.
        assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) }, 0);
    }
    // SAFETY: F_DUPFD takes a number and gives a new descriptor, which is ours.
    held.push(unsafe {
        let fd = libc::fcntl(held[0].as_raw_fd(), libc::F_DUPFD, 4000);
        assert!(fd >= 4000, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    });
    let report = probed(EMPTY);
    assert_eq!(report("Fds"), "[3]");
    assert_eq!(report("Arguments"), "[0]"); // one, which is empty
    drop(held);
}

#[test]
fn clone_exec_starts_with_signals_blocked_and_unhandled() {
    let report = probed(EMPTY);
    let mask = |field: &str| u64::from_str_radix(&report(field), 16).unwrap();
    let unblockable = 1u64 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1);
    assert_eq!(mask("SigBlk") | unblockable, u64::MAX);
    assert_eq!(mask("SigCgt"), 0); // what the caller ignores stays ignored
    // and the caller's own mask is back
    let own = fs::read_to_string("/proc/thread-self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).unwrap();
    assert_eq!(u64::from_str_radix(own, 16).unwrap() & 1 << (libc::SIGTERM - 1), 0);
}

#[test]
fn clone_exec_makes_namespaces() {
    let report = probed(NamespaceFlags::all().difference(NamespaceFlags::TIME));
    assert_eq!(report("Number"), "1");
    // every capability of the new user namespace, although no id is mapped in it
    let bits = |field: &str| u64::from_str_radix(&report(field), 16).unwrap();
    assert_eq!(bits("CapEff"), bits("CapBnd"));
    assert_ne!(bits("CapEff"), 0);
}

// ---- pidfd, socket -------------------------------------------------------------------------

#[test]
fn pidfd_signals_and_waits() {
    let mut sleep = Killed::spawn(Command::new("/bin/sleep").arg("600"));
    let pidfd = &sleep.pidfd;
    assert!(is_cloexec(pidfd.as_fd()));
    pidfd.send_signal(0).unwrap();
    assert_eq!(error(pidfd.send_signal(-1)), Errno::EINVAL);
    assert!(!pidfd.wait_exited(Some(Duration::from_millis(20))).unwrap());
    assert_eq!(pidfd.try_wait().unwrap(), None);
    pidfd.send_signal(libc::SIGTERM).unwrap();
    assert!(pidfd.wait_exited(None).unwrap());
    assert!(pidfd.wait_exited(Some(Duration::ZERO)).unwrap());
    let status = pidfd.wait().unwrap();
    assert_eq!((status.signal(), status.code(), status.core_dumped()), (Some(libc::SIGTERM), None, false));
    assert_eq!(error(pidfd.wait()), Errno::ECHILD);
    assert_eq!(error(pidfd.try_wait()), Errno::ECHILD);
    assert_eq!(error(pidfd.send_signal(0)), Errno::ESRCH);
    sleep.child.wait().unwrap_err();

    let exits = Killed::spawn(Command::new("/bin/sh").args(["-c", "exit 42"]));
    assert_eq!(exits.pidfd.wait().unwrap().code(), Some(42));
    assert_eq!(error(PidFd::open(i32::MAX)), Errno::ESRCH);
    assert_eq!(error(PidFd::open(0)), Errno::EINVAL);
    // somebody else's child can be waited for, not reaped
    let parent = PidFd::open(own_pid()).unwrap();
    assert!(!parent.wait_exited(Some(Duration::ZERO)).unwrap());
    assert_eq!(error(parent.wait()), Errno::ECHILD);
}

#[test]
fn packets_carry_descriptors() {
    many_descriptors();
    let (a, b) = socket::seqpacket_pair().unwrap();
    assert!(is_cloexec(a.as_fd()) && is_cloexec(b.as_fd()));
    let files: Vec<OwnedFd> =
        (0..=socket::MAX_FDS).map(|i| sealed_executable(c"packet", i.to_string().as_bytes()).unwrap()).collect();
    let borrowed: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
    assert_eq!(socket::MAX_FDS, 253);
    assert_eq!(error(socket::send(a.as_fd(), b"too many", &borrowed)), Errno::EINVAL);

    let mut buffer = [0; 64];
    assert_eq!(error(socket::receive(b.as_fd(), &mut buffer, false)), Errno::EAGAIN);
    for count in [0, 1, 2, 3, 252, 253] {
        socket::send(a.as_fd(), b"packet", &borrowed[..count]).unwrap();
        assert!(socket::wait_readable(b.as_fd(), Some(Duration::ZERO)).unwrap());
        let (len, fds) = socket::receive(b.as_fd(), &mut buffer, true).unwrap();
        assert_eq!((&buffer[..len], fds.len()), (&b"packet"[..], count));
        for (i, fd) in fds.into_iter().enumerate() {
            assert!(is_cloexec(fd.as_fd()));
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            assert_eq!(fs::read_to_string(path).unwrap(), i.to_string());
        }
    }

    // packets stay apart, and the end shows
    socket::send(a.as_fd(), b"one", &[]).unwrap();
    socket::send(a.as_fd(), b"two", &[]).unwrap();
    drop(a);
    for word in [&b"one"[..], b"two", b""] {
        let (len, fds) = socket::receive(b.as_fd(), &mut buffer, true).unwrap();
        assert_eq!((&buffer[..len], fds.len()), (word, 0));
    }
    assert_eq!(error(socket::send(b.as_fd(), b"nobody", &[])), Errno::EPIPE);
}

#[test]
fn waiting_ends_in_time() {
    let (a, b) = socket::seqpacket_pair().unwrap();
    let (other, _peer) = socket::seqpacket_pair().unwrap();
    assert!(!socket::wait_readable(b.as_fd(), Some(Duration::from_millis(20))).unwrap());
    assert_eq!(socket::wait_any(&[other.as_fd(), b.as_fd()], Some(Duration::ZERO)).unwrap(), [false, false]);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(20));
            socket::send(a.as_fd(), b"now", &[]).unwrap();
        });
        assert_eq!(socket::wait_any(&[other.as_fd(), b.as_fd()], None).unwrap(), [false, true]);
    });
}

/// A filter that notifies one call with the native ABI, and allows all others.
fn notifying(number: libc::c_long) -> Vec<u8> {
    let arch: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
    let steps: [(u16, u8, u8, u32); 6] = [
        (0x20, 0, 0, 4),
        (0x15, 0, 3, arch),
        (0x20, 0, 0, 0),
        (0x15, 0, 1, number as u32),
        (0x06, 0, 0, 0x7fc0_0000),
        (0x06, 0, 0, 0x7fff_0000),
    ];
    let bytes = |(code, jt, jf, k): (u16, u8, u8, u32)| [&code.to_ne_bytes()[..], &[jt, jf], &k.to_ne_bytes()].concat();
    steps.into_iter().flat_map(bytes).collect()
}

#[test]
fn listeners_answer_the_calls_of_a_thread() {
    let (to, from) = std::sync::mpsc::channel();
    let thread = thread::spawn(move || {
        nix::sys::prctl::set_no_new_privs().unwrap();
        assert_eq!(error(Listener::install(&[0; 8])), Errno::EINVAL);
        to.send(Listener::install(&notifying(libc::SYS_getppid)).unwrap()).unwrap();
        assert_eq!(error(Listener::install(&notifying(libc::SYS_getppid))), Errno::EBUSY);
        // whole words: of an int on the stack, where the last one is, the upper half is anything
        // SAFETY: the call takes no argument.
        let asked =
            || unsafe { libc::syscall(libc::SYS_getppid, 11usize, 12usize, 13usize, 14usize, 15usize, 16usize) };
        let ask = || match asked() {
            -1 => Err(std::io::Error::last_os_error().raw_os_error().unwrap()),
            value => Ok(value),
        };
        [(); 6].map(|()| ask())
    });
    let listener = from.recv().unwrap();
    assert!(is_cloexec(listener.as_fd()));
    let next = || {
        assert!(socket::wait_readable(listener.as_fd(), Some(Duration::from_secs(10))).unwrap());
        listener.receive().unwrap()
    };
    let first = next();
    assert_eq!((i64::from(first.number), first.arguments), (libc::SYS_getppid, [11, 12, 13, 14, 15, 16]));
    assert!(first.thread as i32 != own_pid() && first.instruction_pointer != 0);
    let process = PidFd::open(own_pid()).unwrap();
    assert!(listener.is_waiting(first.id).unwrap());
    assert_eq!(error(listener.respond(first.id, Response::Errno(Errno(0)))), Errno::EINVAL);
    listener.respond(first.id, Response::Value(-77_000)).unwrap();
    assert_eq!(error(listener.respond(first.id + 100, Response::Continue)), Errno::ENOENT);
    listener.respond(next().id, Response::Errno(Errno::EXDEV)).unwrap();
    listener.respond(next().id, Response::Continue).unwrap();
    let file = sealed_executable(c"injected", b"injected").unwrap();
    let read = |number| {
        let copy = process.copy_fd(number).unwrap();
        fs::read_to_string(format!("/proc/self/fd/{}", copy.as_raw_fd())).unwrap()
    };
    // chosen, close-on-exec, in two steps; and the lowest free one in one
    // a number of this test's own, for the descriptors are those of all tests
    let reserved = File::open("/dev/null").unwrap();
    let chosen = reserved.as_raw_fd() as u32;
    let (call, place) = (next(), Place { number: Some(chosen), close_on_exec: true });
    assert_eq!(listener.add_fd(call.id, file.as_fd(), place).unwrap(), chosen);
    assert_eq!(read(chosen), "injected");
    listener.respond(call.id, Response::Value(chosen.into())).unwrap();
    let call = next();
    let lowest = listener.add_fd_and_respond(call.id, file.as_fd(), Place::default()).or_else(|errno| {
        assert_eq!(errno, Errno::EINVAL, "before Linux 5.14");
        let number = listener.add_fd(call.id, file.as_fd(), Place::default())?;
        listener.respond(call.id, Response::Value(number.into())).map(|()| number)
    });
    let lowest = i64::from(lowest.unwrap());
    assert!(lowest > 2);
    let last = next();
    assert!(listener.is_waiting(last.id).unwrap());
    // whoever still waits is told that there is no such call
    drop(listener);
    let parent = std::os::unix::process::parent_id() as i64;
    let answers = thread.join().unwrap();
    assert_eq!(answers, [Ok(-77_000), Err(libc::EXDEV), Ok(parent), Ok(chosen.into()), Ok(lowest), Err(libc::ENOSYS)]);
    // SAFETY: the descriptor that was put into this process.
    drop(unsafe { OwnedFd::from_raw_fd(lowest as i32) });
    assert_eq!(error(process.copy_fd(1_000_000)), Errno::EBADF);
}
