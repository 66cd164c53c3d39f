//! A command-line runner over the public API, in the manner of bubblewrap.
//!
//! ```text
//! run [--rootfs DIR | --layer DIR... | --host | --empty]
//!     [--upper DIR | --scratch SIZE | --read-only]
//!     [--hide PATH]... [--bind SRC:DST[:ro]]... [--tmpfs DST[:SIZE]]...
//!     [--hostname NAME] [--net none|host] [--map HOSTID:COUNT]
//!     [--user UID[:GID]] [--env K=V]... [--cwd DIR] [--init shim|payload]
//!     [--profile plugin|container|trusted] [--timeout SECS] [--cpu-time SECS] [--grace SECS]
//!     [--memory SIZE] [--swap SIZE] [--cpus N] [--pids N]
//!     [--io-max PATH:rbps=SIZE,wbps=SIZE,riops=N,wiops=N]... [--device PATH[:rwm]]...
//!     [--stats] [--explain] -- CMD ARGS...
//! ```
//! SIZE takes a suffix K, M or G (powers of 1024). Without a root option: `--host`.
//! `--stats` prints usage and verdict on stderr at the end.
//! The exit status is the payload's, 128 + n when signal n ended it, 124 after
//! `--timeout` or `--cpu-time`, 125 for a set-up error, which is printed on stderr.
//! When its time is over the payload gets SIGTERM if there is a `--grace`, and SIGKILL when that is over.

use belljar::{
    Bytes, CgroupLimits, Child, Command, Devices, Exit, IdMap, IdRange, Init, KillScope, Mount, Namespaces, Net,
    Profile, RootFs, Sandbox, Stdio, Upper, User, Uts, Verdict,
};
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::ExitCode;
use std::time::Duration;

#[path = "run/limits.rs"]
mod limits;

type Fallible<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("run: {error}");
            ExitCode::from(125)
        }
    }
}

fn run() -> Fallible<u8> {
    let options = Options::parse(std::env::args_os().skip(1))?;
    let sandbox = options.sandbox()?;
    let command = options.command()?;
    if options.explain {
        print!("{}", sandbox.explain(&command)?);
        return Ok(0);
    }
    let mut child = sandbox.spawn(&command)?;
    for note in child.notes() {
        eprintln!("run: note: {note}");
    }
    let exit = match options.timeout.filter(|_| !options.shim_keeps_time()) {
        None => child.wait()?,
        Some(span) => match child.wait_timeout(span)? {
            Some(exit) => exit,
            None => {
                child.kill(KillScope::Tree)?;
                let exit = child.wait()?;
                options.report(&child, &exit);
                return Ok(124);
            }
        },
    };
    options.report(&child, &exit);
    Ok(status(&exit))
}

fn status(exit: &Exit) -> u8 {
    if matches!(exit.verdict, Verdict::WallTimeLimit | Verdict::CpuTimeLimit) {
        return 124;
    }
    match (exit.code(), exit.signal()) {
        (Some(code), _) => code as u8, // wait(2) gives 8 bits
        (None, Some(signal)) => 128 + signal as u8,
        (None, None) => 125,
    }
}

#[derive(Default)]
struct Options {
    root: Option<RootFs>,
    layers: Vec<OsString>,
    upper: Option<Upper>,
    hide: Vec<OsString>,
    mounts: Vec<Mount>,
    hostname: Option<String>,
    host_net: bool,
    map: Option<(u32, u32)>,
    user: Option<(u32, Option<u32>)>,
    env: Vec<(OsString, OsString)>,
    cwd: Option<OsString>,
    init: Init,
    profile: Profile,
    limits: Option<CgroupLimits>,
    devices: Option<Devices>,
    stats: bool,
    timeout: Option<Duration>,
    cpu_time: Option<Duration>,
    grace: Duration,
    explain: bool,
    argv: Vec<OsString>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = OsString>) -> Fallible<Options> {
        let mut options = Options::default();
        while let Some(arg) = args.next() {
            let name = arg.to_str().ok_or("an option that is not UTF-8")?.to_owned();
            if name == "--" {
                options.argv = args.collect();
                break;
            }
            let mut value = || args.next().ok_or_else(|| format!("{name} wants a value"));
            match name.as_str() {
                "--rootfs" => options.set_root(RootFs::dir(value()?))?,
                "--layer" => options.layers.push(value()?),
                "--host" => options.set_root(RootFs::host())?,
                "--empty" => options.set_root(RootFs::empty())?,
                "--upper" => options.set_upper(Upper::Persist(value()?.into()))?,
                "--scratch" => {
                    let bytes = size(&value()?)?;
                    options.set_upper(Upper::Discard { bytes, inodes: 65536 })?;
                }
                "--read-only" => options.set_upper(Upper::None)?,
                "--hide" => options.hide.push(value()?),
                "--bind" => options.mounts.push(bind(&value()?)?),
                "--tmpfs" => options.mounts.push(tmpfs(&value()?)?),
                "--profile" => {
                    options.profile = match text(value()?)?.as_str() {
                        "plugin" => Profile::Plugin,
                        "container" => Profile::Container,
                        "trusted" => Profile::Trusted,
                        other => {
                            return Err(format!("--profile takes plugin, container or trusted, not {other}").into());
                        }
                    }
                }
                "--hostname" => options.hostname = Some(text(value()?)?),
                "--net" => {
                    options.host_net = match text(value()?)?.as_str() {
                        "none" => false,
                        "host" => true,
                        other => return Err(format!("--net takes none or host, not {other}").into()),
                    }
                }
                "--map" => {
                    let value = text(value()?)?;
                    let (first, count) = value.split_once(':').ok_or("--map takes HOSTID:COUNT")?;
                    options.map = Some((first.parse()?, count.parse()?));
                }
                "--user" => {
                    let value = text(value()?)?;
                    options.user = Some(match value.split_once(':') {
                        Some((uid, gid)) => (number(uid)?, Some(number(gid)?)),
                        None => (number(&value)?, None),
                    });
                }
                "--env" => options.env.push(split(&value()?, b'=').ok_or("--env takes K=V")?),
                "--cwd" => options.cwd = Some(value()?),
                "--init" => {
                    options.init = match text(value()?)?.as_str() {
                        "shim" => Init::Shim,
                        "payload" => Init::Payload,
                        other => return Err(format!("--init takes shim or payload, not {other}").into()),
                    }
                }
                "--timeout" => options.timeout = Some(seconds(value()?)?),
                "--cpu-time" => options.cpu_time = Some(seconds(value()?)?),
                "--grace" => options.grace = seconds(value()?)?,
                "--memory" | "--swap" | "--cpus" | "--pids" | "--io-max" => {
                    let limits = options.limits.take().unwrap_or_else(limits::begin);
                    options.limits = Some(limits::option(&limits, &name, &value()?)?);
                }
                "--device" => options.devices = Some(limits::device(options.devices.take(), value()?)?),
                "--stats" => options.stats = true,
                "--explain" => options.explain = true,
                other => return Err(format!("unknown option {other}").into()),
            }
        }
        if options.argv.is_empty() {
            return Err("no command: run [options] -- CMD ARGS...".into());
        }
        Ok(options)
    }

    /// A payload that is PID 1 has nobody inside to keep the time; nor has a time of nothing.
    fn shim_keeps_time(&self) -> bool {
        self.init == Init::Shim && self.timeout.is_none_or(|span| span >= Duration::from_millis(1))
    }

    fn set_root(&mut self, root: RootFs) -> Fallible<()> {
        match self.root.replace(root) {
            None => Ok(()),
            Some(_) => Err("more than one of --rootfs, --host, --empty".into()),
        }
    }

    fn set_upper(&mut self, upper: Upper) -> Fallible<()> {
        match self.upper.replace(upper) {
            None => Ok(()),
            Some(_) => Err("more than one of --upper, --scratch, --read-only".into()),
        }
    }

    fn sandbox(&self) -> Fallible<Sandbox> {
        let mut root = match (&self.root, self.layers.as_slice()) {
            (Some(_), [_, ..]) => return Err("--layer goes with no other root".into()),
            (Some(root), []) => root.clone(),
            (None, []) => RootFs::host(),
            (None, layers) => RootFs::overlay(layers),
        };
        if let Some(upper) = &self.upper {
            root = root.upper(upper.clone());
        }
        for path in &self.hide {
            root = root.hide(path);
        }
        let mut namespaces = Namespaces::isolated();
        if let Some(hostname) = &self.hostname {
            namespaces = namespaces.uts(Uts::new(hostname));
        }
        if self.host_net {
            namespaces = namespaces.net(Net::Inherit);
        }
        if let Some((outside, count)) = self.map {
            let range = [IdRange { inside: 0, outside, count }];
            namespaces = namespaces.user(User::New(IdMap::ranges(range, range)));
        }
        let builder = Sandbox::builder(root).namespaces(namespaces).init(self.init);
        let mut builder = builder.security(self.profile.security());
        let limits = match (&self.limits, &self.devices) {
            (limits, Some(devices)) => Some(limits.clone().unwrap_or_else(limits::begin).devices(devices.clone())),
            (limits, None) => limits.clone(),
        };
        if let Some(limits) = limits {
            builder = builder.limits(limits);
        }
        Ok(self.mounts.iter().cloned().fold(builder, |builder, mount| builder.mount(mount)).build()?)
    }

    fn report(&self, child: &Child, exit: &Exit) {
        if self.stats {
            eprint!("{}", limits::report(child, exit));
        }
    }

    fn command(&self) -> Fallible<Command> {
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).envs(self.env.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::Inherit).stdout(Stdio::Inherit).stderr(Stdio::Inherit);
        if let Some(span) = self.timeout.filter(|_| self.shim_keeps_time()) {
            command.wall_time(span);
        }
        if let Some(span) = self.cpu_time {
            command.cpu_time(span);
        }
        command.grace(self.grace);
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid.unwrap_or(uid));
        }
        Ok(command)
    }
}

fn seconds(value: OsString) -> Fallible<Duration> {
    Ok(Duration::try_from_secs_f64(text(value)?.parse()?)?)
}

fn text(value: OsString) -> Fallible<String> {
    value.into_string().map_err(|value| format!("{value:?} is not UTF-8").into())
}

/// Digits only: what does not parse must never become 0.
fn number(text: &str) -> Fallible<u32> {
    match text.bytes().all(|b| b.is_ascii_digit()) {
        true => Ok(text.parse().map_err(|e| format!("{text:?} is no id: {e}"))?),
        false => Err(format!("{text:?} is no id: digits only").into()),
    }
}

fn size(value: &OsStr) -> Fallible<Bytes> {
    let text = value.to_str().ok_or("a size that is not UTF-8")?;
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let count: u64 = digits.parse().map_err(|e| format!("{text:?} is no size: {e}"))?;
    count.checked_mul(1 << shift).map(Bytes::new).ok_or_else(|| format!("{text:?} is too large").into())
}

/// Splits at the first `by`.
fn split(value: &OsStr, by: u8) -> Option<(OsString, OsString)> {
    let bytes = value.as_bytes();
    let at = bytes.iter().position(|b| *b == by)?;
    Some((OsString::from_vec(bytes[..at].to_vec()), OsString::from_vec(bytes[at + 1..].to_vec())))
}

fn bind(value: &OsStr) -> Fallible<Mount> {
    let (source, rest) = split(value, b':').ok_or("--bind takes SRC:DST[:ro]")?;
    match split(&rest, b':') {
        None => Ok(Mount::bind(source, rest)),
        Some((target, mode)) if mode == "ro" => Ok(Mount::bind(source, target).read_only()),
        Some((_, mode)) => Err(format!("--bind takes SRC:DST[:ro], not {mode:?}").into()),
    }
}

fn tmpfs(value: &OsStr) -> Fallible<Mount> {
    Ok(match split(value, b':') {
        None => Mount::tmpfs(value).mode(0o1777),
        Some((target, bytes)) => Mount::tmpfs(target).mode(0o1777).bytes(size(&bytes)?),
    })
}
