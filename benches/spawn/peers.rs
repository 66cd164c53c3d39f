//! The rows that are not belljar: what else starts a program with this isolation.

use crate::floor::{Floor, NAMESPACES};
use crate::rows::{Entry, Row};
use crate::world::World;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

fn ended(status: std::process::ExitStatus) -> io::Result<()> {
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("it ended with {status}"))) }
}

/// What a failed first run says of itself, in one line.
fn first_run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => "not installed".to_owned(),
        _ => e.to_string(),
    })?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false => Err(said.lines().next().map_or_else(|| output.status.to_string(), str::to_owned)),
    }
}

/// `std::process::Command` without any isolation: the cost of a process.
pub fn plain(world: &World) -> Entry {
    let payload = world.payload("true");
    Row::probe("std Command, no isolation", move || ended(Command::new(&payload).status()?))
}

/// `std::process::Command` with `pre_exec`: the same system calls as the floor's, but from
/// a fork, and with a second one for the pid namespace.
pub fn pre_exec(world: &World) -> Entry {
    let floor: &'static Floor = Box::leak(Box::new(Floor::new(world, "/true", true)));
    Row::probe("std Command, pre_exec", move || {
        let mut command = Command::new("/true");
        // SAFETY: system calls only, on memory that was there before the fork; `fork` of a
        // fork is of one thread.
        unsafe { command.pre_exec(move || isolate(floor)) };
        ended(command.status()?)
    })
}

/// In the forked child, before exec.
fn isolate(floor: &Floor) -> io::Result<()> {
    let failed = |_| io::Error::from_raw_os_error(libc::EPERM); // without allocating
    // SAFETY: unshare takes no pointer; fork duplicates this process of one thread; the
    // middle process leaves by _exit after it has waited, with no descriptors in common.
    unsafe {
        if libc::unshare(NAMESPACES) != 0 {
            return Err(io::Error::last_os_error());
        }
        floor.prepare().map_err(failed)?;
        match libc::fork() {
            -1 => return Err(io::Error::last_os_error()),
            0 => {}
            pid => {
                libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0); // std's pipe is one of them
                let mut status = 0;
                libc::waitpid(pid, &mut status, 0);
                libc::_exit(if status == 0 { 0 } else { 1 });
            }
        }
    }
    floor.enter().map_err(failed)
}

/// bubblewrap, with the overlay if it knows how (0.11), else with the layer alone, read-only.
pub fn bwrap(world: &World) -> Entry {
    let [lower, upper] = world.layers.each_ref().map(|layer| layer.to_string_lossy().into_owned());
    let help = Command::new("bwrap").arg("--help").output().map(|output| output.stdout).unwrap_or_default();
    let overlay = String::from_utf8_lossy(&help).contains("--overlay-src");
    let mut args: Vec<String> =
        ["user", "ipc", "pid", "net", "uts"].iter().map(|kind| format!("--unshare-{kind}")).collect();
    args.extend(match overlay {
        true => ["--overlay-src", &lower, "--overlay-src", &upper, "--tmp-overlay", "/"].map(str::to_owned).to_vec(),
        false => ["--ro-bind", &upper, "/"].map(str::to_owned).to_vec(),
    });
    args.extend(["--proc", "/proc", "/true"].map(str::to_owned));
    let name = if overlay { "bwrap" } else { "bwrap, a bind for the overlay" };
    match first_run(Command::new("bwrap").args(&args)) {
        Err(why) => Entry::not_run(name, why),
        Ok(()) => Row::probe(name, move || ended(Command::new("bwrap").args(&args).status()?)),
    }
}

/// crun, with a bundle of the same namespaces on the layer, read-only and without cgroups:
/// the engines above it mount overlays and make groups, not the runtime itself.
pub fn crun(world: &World) -> Entry {
    const NAME: &str = "crun, no overlay, no cgroup";
    let (bundle, state) = (world.base.join("bundle"), world.base.join("crun"));
    if let Err(why) = std::fs::create_dir_all(&bundle).and_then(|()| {
        std::fs::File::create(bundle.join("config.json"))?.write_all(config(&world.layers[1]).as_bytes())
    }) {
        return Entry::not_run(NAME, why.to_string());
    }
    let command = move |id: &str| {
        let mut command = Command::new("crun");
        command.arg("--cgroup-manager=disabled").arg("--root").arg(&state);
        command.arg("run").arg("--bundle").arg(&bundle).arg(id);
        command
    };
    // crun refuses a hybrid cgroup layout: it runs from a thread that does not see one
    let (ask, asked) = mpsc::channel::<()>();
    let (answer, answered) = mpsc::channel::<Result<(), String>>();
    std::thread::spawn(move || {
        leave_hybrid();
        let _ = answer.send(first_run(&mut command("belljar-bench-0")));
        for (n, ()) in asked.iter().enumerate() {
            let ran = command(&format!("belljar-bench-{}", n + 1)).status().and_then(ended);
            let _ = answer.send(ran.map_err(|e| e.to_string()));
        }
    });
    match answered.recv() {
        Ok(Ok(())) => {}
        Ok(Err(why)) => return Entry::not_run(NAME, why),
        Err(_) => return Entry::not_run(NAME, "its thread ended"),
    }
    Row::probe(NAME, move || {
        ask.send(()).map_err(io::Error::other)?;
        answered.recv().map_err(io::Error::other)?.map_err(io::Error::other)
    })
}

/// Takes the v2 hierarchy of a hybrid layout out of this thread's view, if there is one and we may.
fn leave_hybrid() {
    const UNIFIED: &std::ffi::CStr = c"/sys/fs/cgroup/unified";
    if !Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() {
        return;
    }
    // SAFETY: C strings and NULL; a mount namespace of this thread's own, private before
    // anything in it is changed. Without the right to it crun says what it misses.
    unsafe {
        if libc::unshare(libc::CLONE_NEWNS | libc::CLONE_FS) == 0
            && libc::mount(
                std::ptr::null(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            ) == 0
        {
            libc::umount2(UNIFIED.as_ptr(), libc::MNT_DETACH);
        }
    }
}

fn config(root: &Path) -> String {
    // SAFETY: these two take nothing and cannot fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let root = root.display();
    let map = |id: u32| format!(r#"[{{"containerID":0,"hostID":{id},"size":1}}]"#);
    let namespaces: Vec<_> = ["mount", "pid", "uts", "ipc", "network", "user"]
        .iter()
        .map(|kind| format!(r#"{{"type":"{kind}"}}"#))
        .collect();
    format!(
        r#"{{"ociVersion":"1.0.0",
"process":{{"user":{{"uid":0,"gid":0}},"args":["/true"],"env":["PATH=/"],"cwd":"/","noNewPrivileges":true}},
"root":{{"path":"{root}","readonly":true}},
"mounts":[{{"destination":"/proc","type":"proc","source":"proc"}}],
"linux":{{"namespaces":[{}],"uidMappings":{},"gidMappings":{}}}}}"#,
        namespaces.join(","),
        map(uid),
        map(gid)
    )
}

/// Removes what an interrupted run has left.
pub fn clean(world: &World) {
    let state = world.base.join("crun");
    for left in std::fs::read_dir(&state).into_iter().flatten().flatten() {
        let mut delete = Command::new("crun");
        delete.arg("--cgroup-manager=disabled").arg("--root").arg(&state).arg("delete").arg("-f").arg(left.file_name());
        let _ = delete.output(); // there is nobody to tell
    }
}

/// The hakoniwa crate, a library too.
#[cfg(peer_hakoniwa)]
pub fn hakoniwa(world: &World) -> Entry {
    use hakoniwa::{Container, Namespace};
    let mut container = Container::new();
    container.rootdir(&world.layers[1]);
    for namespace in [Namespace::Ipc, Namespace::Uts, Namespace::Network] {
        container.unshare(namespace);
    }
    Row::probe("hakoniwa, a directory for the overlay", move || {
        let status = container.command("/true").status().map_err(io::Error::other)?;
        if status.success() { Ok(()) } else { Err(io::Error::other(status.reason)) }
    })
}

#[cfg(not(peer_hakoniwa))]
pub fn hakoniwa(_: &World) -> Entry {
    Entry::not_run("hakoniwa", r#"needs RUSTFLAGS="--cfg peer_hakoniwa""#)
}
