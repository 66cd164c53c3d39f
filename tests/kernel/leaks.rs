//! What a test must leave as it found it: this process, its descendants, its mounts and
//! the places for temporary files, compared before and after by identity (proc(5):
//! mountinfo, stat, status, fd, ns).
//!
//! In the places for temporary files a name with `belljar` in it counts. With
//! `BELLJAR_TEST_ALONE` set, every name counts: nothing else of this user runs there.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use belljar::sys::pidfd::PidFd;
use nix::sys::stat::{Mode, umask};
use nix::{sys::prctl, unistd::geteuid};
use procfs::process::Stat;

use crate::harness::{Need, Outcome, TempDir, Test};

/// Runs `body` and compares: an error, a panic, or a leak that is still there when
/// `grace` is over is the `Err`, a line for each.
pub fn checked(grace: Duration, body: impl FnOnce() -> Outcome) -> Result<(), String> {
    let before = Snapshot::take();
    let mut failures = Vec::new();
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                text += &format!(": caused by: {error}");
                cause = error.source();
            }
            failures.push(text);
        }
        Err(payload) => {
            let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
            let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
            failures.push(format!("panicked: {}", text.unwrap_or_default()));
        }
    }
    let deadline = Instant::now() + grace;
    let mut leaks = before.differences(&Snapshot::take());
    while !leaks.is_empty() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
        leaks = before.differences(&Snapshot::take());
    }
    failures.extend(leaks.iter().map(|leak| format!("leak: {leak}")));
    failures.is_empty().then_some(()).ok_or(failures.join("\n"))
}

/// All that is compared, each thing under a name that tells it from every other.
#[derive(Default)]
struct Snapshot {
    /// Must be the same afterwards: nothing new, nothing gone, nothing changed.
    fixed: BTreeMap<String, String>,
    /// Must not grow: what was there before may end meanwhile.
    alive: BTreeMap<String, String>,
}

impl Snapshot {
    fn take() -> Self {
        let mut snapshot = Self::default();
        snapshot.add_mounts_and_fds();
        snapshot.add_attributes();
        snapshot.add_processes();
        snapshot.add_files();
        snapshot.add_groups();
        snapshot
    }

    fn differences(&self, after: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (name, now) in &after.fixed {
            match self.fixed.get(name) {
                None => found.push(format!("new {name} {now}")),
                Some(was) if was != now => found.push(format!("changed {name}: {was} -> {now}")),
                Some(_) => {}
            }
        }
        for (name, was) in &self.fixed {
            if !after.fixed.contains_key(name) {
                found.push(format!("gone {name} {was}"));
            }
        }
        for (name, now) in &after.alive {
            if !self.alive.contains_key(name) {
                found.push(format!("new {name} {now}"));
            }
        }
        found
    }

    fn fixed(&mut self, name: impl ToString, value: impl ToString) {
        self.fixed.insert(name.to_string(), value.to_string());
    }

    fn alive(&mut self, name: impl ToString, value: impl ToString) {
        self.alive.insert(name.to_string(), value.to_string());
    }

    fn add_mounts_and_fds(&mut self) {
        for line in read("/proc/self/mountinfo").lines() {
            // SELinux tells of it once it has a policy
            self.fixed(format!("mount {}", line.replace("seclabel,", "")), "");
        }
        // Listed first and looked at afterwards: the descriptor that lists is gone then.
        for fd in list("/proc/self/fd") {
            let inode = fs::metadata(&fd).map(|meta| (meta.dev(), meta.ino())).ok();
            let number = name(&fd);
            let flags = field(&read(format!("/proc/self/fdinfo/{number}")), "flags");
            if let Ok(target) = fs::read_link(&fd) {
                let value = format!("{} {inode:?} flags {flags}", target.display());
                self.fixed(format!("fd {number}"), value);
            }
        }
    }

    /// What code that runs between clone and exec, or a clone that shares, changes in its host.
    fn add_attributes(&mut self) {
        let links = ["/proc/self/cwd".into(), "/proc/self/root".into()];
        for link in list("/proc/self/ns").into_iter().chain(links) {
            let target = fs::read_link(&link).unwrap_or_default();
            self.fixed(link.display(), target.display());
        }
        let status = read("/proc/self/status");
        let keys = "Umask Uid Gid Groups SigBlk SigIgn SigCgt NoNewPrivs Seccomp \
                    CapInh CapPrm CapEff CapBnd CapAmb";
        for key in keys.split(' ') {
            self.fixed(key, field(&status, key));
        }
        let files = "/proc/self/cgroup /proc/self/limits /proc/self/oom_score_adj \
                     /proc/sys/kernel/hostname /proc/sys/kernel/domainname";
        for file in files.split(' ') {
            self.fixed(file, read(file));
        }
        // The /proc files of a process that is not dumpable are root's.
        let owner = fs::metadata("/proc/self/environ").map(|meta| meta.uid());
        let value = format!("{:?}, owner {:?}", prctl::get_dumpable(), owner.ok());
        self.fixed("dumpable", value);
        for (name, value) in env::vars_os() {
            self.fixed(format!("environment {name:?}"), format!("{value:?}"));
        }
        for task in list("/proc/self/task") {
            self.alive(format!("thread {}", name(&task)), read(task.join("comm")));
        }
    }

    /// Descendants, zombies among them, and orphans of this session.
    fn add_processes(&mut self) {
        let all = procfs::process::all_processes().into_iter().flatten();
        let all = all.flatten().filter_map(|process| process.stat().ok());
        let all: BTreeMap<i32, Stat> = all.map(|stat| (stat.pid, stat)).collect();
        let own = std::process::id().cast_signed();
        let session = all.get(&own).map(|stat| stat.session);
        for (pid, stat) in &all {
            let mut ancestor = stat.ppid;
            let mut seen = BTreeSet::new(); // the table is no atomic picture
            while ancestor != own && seen.insert(ancestor) {
                ancestor = all.get(&ancestor).map_or(0, |stat| stat.ppid);
            }
            let zombie = stat.state == 'Z';
            // Reparented to init or a subreaper, but still in the session it was made in.
            let parent = all.get(&stat.ppid).map(|parent| parent.session);
            let orphan = !zombie && (stat.ppid == 1 || parent != session);
            if *pid != own && (ancestor == own || orphan && Some(stat.session) == session) {
                let identity = format!("process {pid} (started at tick {})", stat.starttime);
                let zombie = if zombie { ", a zombie" } else { "" };
                let value = format!("{}, child of {}{zombie}", stat.comm, stat.ppid);
                self.alive(identity, value);
            }
        }
    }

    fn add_groups(&mut self) {
        for group in groups() {
            self.alive(format!("control group {}", group.display()), "");
        }
    }

    fn add_files(&mut self) {
        let alone = env::var_os("BELLJAR_TEST_ALONE").is_some();
        let places = ["/tmp", "/dev/shm", "/var/tmp"].map(PathBuf::from);
        let places = places.into_iter().chain([crate::harness::temp_dir()]);
        let places: BTreeSet<_> = places.flat_map(|place| place.canonicalize()).collect();
        for path in places.iter().flat_map(list) {
            let counts = alone || name(&path).contains("belljar") && !is_anothers(&name(&path));
            let meta = path.symlink_metadata().ok().filter(|_| counts);
            if let Some(meta) = meta.filter(|meta| meta.uid() == geteuid().as_raw()) {
                let identity = (meta.dev(), meta.ino());
                self.alive(format!("file {} {identity:?}", path.display()), "");
            }
        }
    }
}

/// Those below this process's own in each hierarchy, and beside it, if it sits in a leaf.
fn groups() -> Vec<PathBuf> {
    let own = read("/proc/self/cgroup");
    let mut found = Vec::new();
    for mount in read("/proc/self/mountinfo").lines().filter(|line| line.contains(" - cgroup")) {
        let point = PathBuf::from(mount.split(' ').nth(4).unwrap_or_default());
        for path in own.lines().filter_map(|line| line.splitn(3, ':').nth(2)) {
            let group = point.join(path.trim_start_matches('/'));
            found.extend(list(&group).into_iter().chain(list(group.parent().unwrap_or(&group))));
        }
    }
    // unless alone, those of this process only: others on this machine may be testing too
    let alone = env::var_os("BELLJAR_TEST_ALONE").is_some();
    let mine = if alone { "belljar-".to_owned() } else { format!("belljar-{}-", std::process::id()) };
    found.retain(|path| path.is_dir() && name(path).starts_with(&mine));
    found
}

/// Whether another test process, which is running beside this one, has made it (`TempDir`).
fn is_anothers(name: &str) -> bool {
    let maker = name.strip_prefix("belljar-test-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
    maker.is_some_and(|pid| pid != std::process::id() && Path::new(&format!("/proc/{pid}")).exists())
}

/// The entries of a directory; none if it cannot be read.
fn list(dir: impl AsRef<Path>) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn read(path: impl AsRef<Path>) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// The value behind `key:` in a file of such lines.
fn field(text: &str, key: &str) -> String {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    value.unwrap_or_default().trim().to_owned()
}

/// Keeps what `leak` makes until the checker has complained of it in these words.
fn caught<T>(words: &[&str], leak: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let mut kept = None;
    let said = checked(Duration::from_millis(100), || {
        kept = Some(leak()?);
        Ok(())
    });
    let said = said.err().unwrap_or_default();
    let told = words.iter().all(|word| said.contains(word));
    let kept = kept.filter(|_| told && said.starts_with("leak: "));
    kept.ok_or_else(|| io::Error::other(format!("not {words:?} but {said:?}")))
}

/// The tests of the checker itself: what it is relied on for, leaked on purpose.
pub fn tests() -> Vec<Test> {
    vec![
        Test::new("leaks::fds", &[], || {
            let file = caught(&["new fd ", "/dev/null"], || fs::File::open("/dev/null"))?;
            caught(&["gone fd ", "/dev/null"], move || {
                drop(file);
                Ok(())
            })?;
            Ok(())
        }),
        Test::new("leaks::errors_and_panics", &[], || {
            let panic = || resume_unwind(Box::new("on purpose")); // nothing on stderr
            let said = checked(Duration::ZERO, panic);
            assert_eq!(said, Err("panicked: on purpose".into()));
            let said = checked(Duration::ZERO, || Err("on purpose".into()));
            assert_eq!(said, Err("on purpose".into()));
            Ok(())
        }),
        Test::new("leaks::processes", &[], || {
            let mut sleep = Command::new("sleep");
            let mut child = caught(&["new process ", " sleep, "], || sleep.arg("60").spawn())?;
            child.kill()?;
            child.wait()?;
            let zombie = || {
                let child = Command::new("true").spawn()?;
                PidFd::open(child.id() as i32)?.wait_exited(None)?; // it has ended, and is not reaped
                Ok(child)
            };
            caught(&["new process ", ", a zombie"], zombie)?.wait()?;
            let mut shell = Command::new("sh");
            shell.args(["-c", "sleep 60 >/dev/null 2>&1 & echo $!"]);
            let orphan = caught(&["new process ", " sleep, "], || shell.output())?.stdout;
            let kill = format!("kill {}", String::from_utf8(orphan)?);
            assert!(Command::new("sh").args(["-c", &kill]).status()?.success());
            Ok(())
        }),
        Test::new("leaks::files", &[], || {
            let dir = caught(&["new file ", "/belljar-test-"], TempDir::new)?;
            // As overlayfs leaves its work directory; that this goes is checked around the test.
            let mut work = fs::DirBuilder::new();
            work.mode(0o000).create(dir.path().join("work"))?;
            Ok(())
        }),
        Test::new("leaks::attributes", &[], || {
            let cwd = env::current_dir()?;
            caught(&["changed /proc/self/cwd: "], || env::set_current_dir("/proc"))?;
            env::set_current_dir(cwd)?;
            let mask = caught(&["changed Umask: "], || Ok(umask(Mode::S_IRWXO)))?;
            umask(mask);
            caught(&["changed dumpable: "], || Ok(prctl::set_dumpable(false)?))?;
            Ok(prctl::set_dumpable(true)?)
        }),
        Test::new("leaks::mounts", &[Need::Root], || {
            let dir = TempDir::new()?;
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "leaked"]).arg(dir.path());
            let result = caught(&["new mount ", " - tmpfs leaked "], || mount.status());
            assert!(Command::new("umount").arg(dir.path()).status()?.success());
            result?;
            Ok(())
        }),
        Test::new("leaks::teardown_has_time", &[], || {
            let late = || thread::spawn(|| thread::sleep(Duration::from_millis(300)));
            caught(&["new thread "], || Ok(late()))?;
            let body = || {
                late();
                Ok(())
            };
            Ok(checked(Duration::from_secs(5), body)?)
        }),
    ]
}
