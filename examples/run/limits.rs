//! The runner's options of control groups, and its `--stats`.

use super::{Fallible, size, text};
use belljar::sys::path::Device;
use belljar::{
    Bytes, CgroupLimits, CgroupParent, Child, DeviceAccess, DeviceKind, DeviceNumbers, Devices, Exit, IoMax,
};
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::time::Duration;

/// Takes an option of limits; `None` when it is none.
pub fn option(limits: &CgroupLimits, name: &str, value: &OsStr) -> Fallible<CgroupLimits> {
    let limits = limits.clone();
    let word = || text(value.to_owned());
    Ok(match name {
        "--memory" => limits.memory_max(size(value)?),
        "--swap" => limits.swap_max(size(value)?),
        "--cpus" => limits.cpus(word()?.parse::<f64>()?),
        "--pids" => limits.pids_max(word()?.parse::<u32>()?),
        _ => limits.io_max(io_max(&word()?)?),
    })
}

/// With these options a group is required, and this process may be moved for it: it is
/// nobody else's.
pub fn begin() -> CgroupLimits {
    CgroupLimits::new().parent(CgroupParent::own().move_caller())
}

/// `PATH:KEY=N,...` with the keys of `io.max`.
fn io_max(value: &str) -> Fallible<IoMax> {
    let (path, bounds) = value.rsplit_once(':').ok_or("--io-max takes PATH:rbps=SIZE,wbps=SIZE,riops=N,wiops=N")?;
    let mut max = IoMax::device(path);
    for bound in bounds.split(',') {
        max = match bound.split_once('=') {
            Some(("rbps", n)) => max.read(size(OsStr::new(n))?),
            Some(("wbps", n)) => max.write(size(OsStr::new(n))?),
            Some(("riops", n)) => max.read_operations(n.parse::<u64>()?),
            Some(("wiops", n)) => max.write_operations(n.parse::<u64>()?),
            _ => return Err(format!("--io-max knows rbps, wbps, riops and wiops, not {bound:?}").into()),
        };
    }
    Ok(max)
}

/// `PATH[:rwm]`: one device node; the standard ones are allowed beside it.
pub fn device(devices: Option<Devices>, value: OsString) -> Fallible<Devices> {
    let value = text(value)?;
    let (path, letters) = value.split_once(':').unwrap_or((&value, "rw"));
    let mut access = DeviceAccess::empty();
    for letter in letters.chars() {
        access |= match letter {
            'r' => DeviceAccess::READ,
            'w' => DeviceAccess::WRITE,
            'm' => DeviceAccess::MKNOD,
            _ => return Err(format!("--device takes PATH[:rwm], not {value:?}").into()),
        };
    }
    let meta = std::fs::metadata(path).map_err(|error| format!("{path}: {error}"))?;
    let kind = match meta.file_type() {
        kind if kind.is_block_device() => DeviceKind::Block,
        kind if kind.is_char_device() => DeviceKind::Character,
        _ => return Err(format!("{path} is no device").into()),
    };
    // gnu_dev_major(3) and gnu_dev_minor(3)
    let dev = meta.rdev();
    let major = ((dev >> 8) & 0xfff | (dev >> 32) & !0xfff) as u32;
    let minor = (dev & 0xff | (dev >> 12) & !0xff) as u32;
    let numbers = DeviceNumbers::One(Device { major, minor });
    Ok(devices.unwrap_or_else(Devices::standard).allow(kind, numbers, access))
}

/// What `--stats` prints at the end: what is not known is left out.
pub fn report(child: &Child, exit: &Exit) -> String {
    let usage = &exit.usage;
    let mut lines =
        vec![format!("verdict    {}", exit.verdict), format!("wall       {:.3} s", usage.wall.as_secs_f64())];
    let mut add = |name: &str, value: Option<String>| lines.extend(value.map(|value| format!("{name:<10} {value}")));
    let seconds = |span: Option<Duration>| span.map(|span| format!("{:.3} s", span.as_secs_f64()));
    let bytes = |bytes: Option<Bytes>| bytes.map(|bytes| format!("{} KiB", bytes.get() >> 10));
    let stats = child.stats().unwrap_or_default();
    add("user", seconds(stats.cpu.user.or(usage.user)));
    add("system", seconds(stats.cpu.system.or(usage.system)));
    add("throttled", seconds(stats.cpu.throttled));
    add("memory", bytes(usage.memory_peak).map(|peak| peak + " at most"));
    add("largest", bytes(usage.max_rss));
    add("processes", usage.processes_peak.map(|n| format!("{n} at most")));
    add("refused", stats.pids.refused.map(|n| format!("{n} processes")));
    add("oom kills", stats.memory.events.oom_kill.map(|n| n.to_string()));
    for disk in stats.io.unwrap_or_default() {
        let Device { major, minor } = disk.device;
        add(&format!("disk {major}:{minor}"), bytes(disk.read).map(|n| n + " read"));
        add(&format!("disk {major}:{minor}"), bytes(disk.written).map(|n| n + " written"));
    }
    lines.into_iter().map(|line| format!("run: {line}\n")).collect()
}
