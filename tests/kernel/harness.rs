//! What a test needs of the machine, and how tests are run: serially, each inside the
//! leak check, reported as *ignored* with the reason where they cannot run.
//!
//! `BELLJAR_TEST_REQUIRE` is a comma-separated list of [`Need`] names that must be met
//! here: a test that lacks one of them fails. `all` stands for every need that a machine
//! can be given (see [`ALL`]), and `-Name` takes one out again: `all,-UserOverlay`.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{env, fs, io, thread};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::unistd::geteuid;

use crate::leaks;

/// What the body of a test gives: an error of any kind fails it, as a panic does.
pub type Outcome = Result<(), Box<dyn Error>>;

/// How long teardown may go on after the body of a test has ended.
const GRACE: Duration = Duration::from_secs(2);

/// One property of the machine or the user, found out by trying, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(dead_code, reason = "the vocabulary of all domains")]
pub enum Need {
    /// Effective user 0, with the power to mount in the present user namespace.
    Root,
    /// Any other effective user.
    OrdinaryUser,
    /// This user may make a user namespace, and mount inside it.
    UserNamespaces,
    /// overlayfs can be mounted inside a new user namespace (Linux 5.11).
    UserOverlay,
    /// newuidmap and newgidmap, with a range of /etc/subuid and /etc/subgid for this user.
    NewUidmap,
    /// Pure cgroup v2, and this process may make a group below its own.
    CgroupV2,
    /// Control groups of this process's own, of v1 or v2, with limits of memory, CPU and processes.
    Groups,
    /// Hierarchies of cgroup v1 can be mounted of controllers that nobody uses.
    SpareV1,
    /// systemd as PID 1, and a bus on which this user reaches it; built with the feature `systemd`.
    Systemd,
    /// Inside the virtual machine of `.ci/vmtest`.
    Vm,
    /// This release of the kernel or a newer one.
    Kernel(u32, u32),
    /// This version of Landlock or a newer one, compiled in and switched on.
    Landlock(u32),
    /// A nice value of 0: these tests compare with what is inherited.
    OrdinaryPriority,
    /// CAP_SYS_RESOURCE, which root does not have on every machine.
    SysResource,
    /// AppArmor compiled in and switched on.
    AppArmor,
    /// SELinux compiled in and switched on.
    Selinux,
    /// A program on the search path.
    Program(&'static str),
}

/// The needs that `all` stands for.
const ALL: &str = "UserNamespaces UserOverlay NewUidmap CgroupV2 Groups SpareV1 OrdinaryPriority Program";
/// Those of which every lane has its own: a test may be meant for another lane.
const OWN: &str = "AppArmor Selinux Root OrdinaryUser Vm Landlock Kernel Systemd SysResource";

impl Need {
    fn name(self) -> String {
        format!("{self:?}").split('(').take(1).collect()
    }

    /// Whether it is met here, or why not.
    pub fn probe(self) -> Result<(), String> {
        static ANSWERS: Mutex<BTreeMap<Need, Result<(), String>>> = Mutex::new(BTreeMap::new());
        let mut answers = ANSWERS.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = answers.entry(self).or_insert_with(|| self.attempt());
        answer.clone()
    }

    fn attempt(self) -> Result<(), String> {
        match self {
            Self::Root if !geteuid().is_root() => Err(format!("running as uid {}", geteuid())),
            Self::Root => shell("unshare --mount true"),
            Self::OrdinaryUser => check(!geteuid().is_root(), "running as root"),
            Self::UserNamespaces => shell("unshare --user --map-root-user --mount true"),
            Self::UserOverlay => shell(
                "unshare --user --map-root-user --mount sh -ec '
                   mount -t tmpfs tmpfs /tmp; cd /tmp; mkdir lower upper work merged
                   mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work none merged'",
            ),
            Self::NewUidmap => shell("unshare --user --map-root-user --map-auto true"),
            Self::CgroupV2 => shell(
                "test -e /sys/fs/cgroup/cgroup.controllers || { echo not mounted >&2; exit 1; }
                 group=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/belljar-probe-$$
                 mkdir $group && rmdir $group",
            ),
            Self::Systemd if cfg!(not(feature = "systemd")) => Err("built without that feature".into()),
            Self::Systemd => shell(
                "test -d /run/systemd/system || { echo not booted with systemd >&2; exit 1; }
                 systemctl $(test $(id -u) = 0 || echo --user) show-environment >/dev/null",
            ),
            Self::Groups => crate::cgroup::attempt(),
            Self::SpareV1 => crate::cgroup::attempt_spare_v1(),
            Self::AppArmor => {
                let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
                check(enabled.trim() == "Y", "not active in this kernel")
            }
            Self::Selinux => {
                let systems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
                check(systems.contains("\tselinuxfs\n"), "not active in this kernel")
            }
            Self::Vm => check(env::var("VMTEST").is_ok_and(|v| v == "1"), "not in it"),
            Self::Kernel(major, minor) => {
                let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
                let here: Vec<u32> = release.split(['.', '-']).flat_map(str::parse).collect();
                let why = format!("running on {}", release.trim());
                check(here >= vec![major, minor], &why)
            }
            Self::OrdinaryPriority => {
                let stat = procfs::process::Process::myself().and_then(|process| process.stat());
                let nice = stat.map_err(|e| e.to_string())?.nice;
                check(nice == 0, &format!("running at nice value {nice}"))
            }
            Self::SysResource => {
                let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
                let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t"));
                let effective = effective.and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
                check(effective >> 24 & 1 == 1, "not among the effective capabilities")
            }
            Self::Landlock(version) => {
                let here = belljar::testing::landlock_version();
                check(here >= version, &format!("version {here} here"))
            }
            Self::Program(name) => {
                let path = env::var_os("PATH").unwrap_or_default();
                let found = env::split_paths(&path).any(|dir| dir.join(name).is_file());
                check(found, "not on PATH")
            }
        }
    }
}

fn check(met: bool, otherwise: &str) -> Result<(), String> {
    met.then_some(()).ok_or_else(|| otherwise.to_owned())
}

/// Tries it in a child process, which takes every trace of it along when it ends.
fn shell(script: &str) -> Result<(), String> {
    let mut command = Command::new("/bin/sh");
    let output = command.args(["-c", script]).stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("cannot run a shell: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let why = said.lines().next().unwrap_or("it failed silently");
    check(output.status.success(), why)
}

/// The needs that must be met here, by name.
fn required(list: &str) -> Result<BTreeSet<String>, String> {
    let mut required = BTreeSet::new();
    let words = list.split(',').map(str::trim);
    for word in words.filter(|word| !word.is_empty()) {
        let name = word.strip_prefix('-').unwrap_or(word);
        let mut known = ALL.split(' ').chain(OWN.split(' '));
        if word == "all" {
            required.extend(ALL.split(' ').map(String::from));
        } else if !known.any(|known| known == name) {
            return Err(format!("BELLJAR_TEST_REQUIRE: no need is named {name:?}"));
        } else if name == word {
            required.insert(name.to_owned());
        } else {
            required.remove(name);
        }
    }
    Ok(required)
}

/// One test: a name (`domain::what_holds`), what it needs, and what it does.
pub struct Test {
    name: &'static str,
    needs: &'static [Need],
    body: fn() -> Outcome,
}

impl Test {
    /// A test that runs where all of `needs` are met.
    pub fn new(name: &'static str, needs: &'static [Need], body: fn() -> Outcome) -> Self {
        Self { name, needs, body }
    }

    fn run(&self, required: &BTreeSet<String>) -> Result<Completion, Failed> {
        let (mut reasons, mut mandatory, mut elsewhere) = (Vec::new(), false, false);
        for need in self.needs {
            let Err(why) = need.probe() else { continue };
            reasons.push(format!("needs {need:?}: {why}"));
            let must = required.contains(&need.name());
            mandatory |= must;
            elsewhere |= !must && OWN.split(' ').any(|own| own == need.name());
        }
        let reasons = reasons.join("; ");
        if mandatory && !elsewhere {
            return Err(format!("{reasons} (mandatory by BELLJAR_TEST_REQUIRE)").into());
        }
        if !reasons.is_empty() {
            return Ok(Completion::ignored_with(reasons));
        }
        leaks::checked(GRACE, self.body)?;
        Ok(Completion::Completed)
    }
}

/// Runs the tests of all domains and gives the exit status of the program.
pub fn run(domains: &[fn() -> Vec<Test>]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The leak check compares the whole process before and after: one test at a time.
    arguments.test_threads = Some(1);
    let list = env::var("BELLJAR_TEST_REQUIRE").unwrap_or_default();
    let required = required(&list).unwrap_or_else(|why| panic!("{why}"));
    // With the first thread glibc installs a handler for a signal of its own.
    thread::spawn(|| ()).join().expect("does nothing");
    let trial = |test: Test| {
        let required = required.clone();
        Trial::ignorable_test(test.name, move || test.run(&required))
    };
    let tests = domains.iter().flat_map(|tests| tests());
    libtest_mimic::run(&arguments, tests.map(trial).collect()).exit_code()
}

/// Where temporary directories are made: on a file system that takes devices, set-uid bits
/// and id maps, which a VM's /tmp does not.
pub fn temp_dir() -> std::path::PathBuf {
    env::var_os("VMTEST_SCRATCH").map_or_else(env::temp_dir, Into::into)
}

/// A fresh directory below [`temp_dir`], mode 0755, removed with all in it on drop.
pub struct TempDir(PathBuf);

impl TempDir {
    /// Makes one.
    pub fn new() -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (pid, number) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = temp_dir().join(format!("belljar-test-{pid}-{number}"));
        fs::create_dir(&path)?;
        let made = Self(path);
        fs::set_permissions(made.path(), Permissions::from_mode(0o755))?; // whatever the umask
        Ok(made)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    /// Leaves it to the leak check, which reports it, when it cannot be removed.
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        // What a failed test has left mounted here may be the host's: not to be emptied.
        if !mounts.contains(&format!(" {}", self.0.display())) {
            unlock(&self.0);
            let _reported = fs::remove_dir_all(&self.0);
        }
    }
}

/// overlayfs makes its work directory with mode 0, which only root could empty.
fn unlock(dir: &Path) {
    let _reported = fs::set_permissions(dir, Permissions::from_mode(0o755));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            unlock(&entry.path());
        }
    }
}

/// The test of the harness itself.
pub fn tests() -> Vec<Test> {
    let body = || {
        let needs = &[Need::Program("no such"), Need::Kernel(9999, 0)];
        let test = Test::new("", needs, || panic!("must not run"));
        let ignored = test.run(&required("all")?);
        let Ok(Completion::Ignored { reason: Some(why) }) = ignored else {
            return Err("not ignored with a reason".into());
        };
        assert!(why.contains("; needs Kernel(9999, 0): running on "));
        assert!(test.run(&required("all,Kernel")?).is_err());
        assert!(required("all,-UserOverlays").is_err());
        Ok(())
    };
    vec![Test::new("harness::unmet_needs", &[], body)]
}
