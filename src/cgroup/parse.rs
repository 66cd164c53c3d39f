//! The text of cgroup files.

use super::stats::{IoStats, Pressure, Stall};
use crate::sys::path::Device;
use crate::units::Bytes;
use std::time::Duration;

/// The number behind a key, in lines of `key value`.
pub(super) fn value(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// `MAJOR:MINOR`.
fn device(text: &str) -> Option<Device> {
    let (major, minor) = text.split_once(':')?;
    Some(Device { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`, a line for each device.
pub(super) fn io_v2(text: &str) -> Vec<IoStats> {
    let line = |line: &str| {
        let (number, rest) = line.split_once(' ')?;
        let key = |key: &str| {
            let word = rest.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))?;
            word.parse::<u64>().ok()
        };
        Some(IoStats {
            device: device(number)?,
            read: key("rbytes").map(Bytes::new),
            written: key("wbytes").map(Bytes::new),
            reads: key("rios"),
            writes: key("wios"),
        })
    };
    text.lines().filter_map(line).collect()
}

/// Lines of `8:0 Read 1`, in one file for bytes and one for requests.
pub(super) fn io_v1(bytes: &str, operations: &str) -> Vec<IoStats> {
    let mut all: Vec<IoStats> = Vec::new();
    for (text, of_bytes) in [(bytes, true), (operations, false)] {
        for line in text.lines() {
            let mut words = line.split(' ');
            let (Some(device), Some(kind), Some(Ok(n))) =
                (words.next().and_then(device), words.next(), words.next().map(str::parse::<u64>))
            else {
                continue; // the line of totals
            };
            let index = all.iter().position(|stats| stats.device == device).unwrap_or_else(|| {
                all.push(IoStats { device, ..IoStats::default() });
                all.len() - 1
            });
            let stats = &mut all[index];
            match (kind, of_bytes) {
                ("Read", true) => stats.read = Some(Bytes::new(n)),
                ("Write", true) => stats.written = Some(Bytes::new(n)),
                ("Read", false) => stats.reads = Some(n),
                ("Write", false) => stats.writes = Some(n),
                _ => {}
            }
        }
    }
    all
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same of `full`.
pub(super) fn pressure(text: &str) -> Option<Pressure> {
    let stall = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let key = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let hundredths = |name| {
            let (whole, part) = key(name)?.split_once('.')?;
            Some(whole.parse::<u32>().ok()? * 100 + part.parse::<u32>().ok()?)
        };
        Some(Stall {
            average_10: hundredths("avg10")?,
            average_60: hundredths("avg60")?,
            average_300: hundredths("avg300")?,
            total: Duration::from_micros(key("total")?.parse().ok()?),
        })
    };
    Some(Pressure { some: stall("some")?, full: stall("full") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_whole_words() {
        let text = "oom 1\noom_kill 2\noom_group_kill x\n";
        assert_eq!((value(text, "oom"), value(text, "oom_kill")), (Some(1), Some(2)));
        assert_eq!((value(text, "oom_group_kill"), value(text, "kill"), value("", "oom")), (None, None, None));
    }

    #[test]
    fn disks_of_v2() {
        let stats = io_v2("8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n7:1 \nx\n254:16 wbytes=7\n");
        assert_eq!(stats.len(), 3);
        assert_eq!((stats[0].read, stats[0].reads), (Some(Bytes::new(4096)), Some(1)));
        assert_eq!((stats[1].device, stats[1].read), (Device { major: 7, minor: 1 }, None));
        assert_eq!((stats[2].written, stats[2].writes), (Some(Bytes::new(7)), None));
    }

    #[test]
    fn disks_of_v1() {
        let bytes = "8:0 Read 4096\n8:0 Write 5\n8:0 Total 4101\n7:0 Read 1\nTotal 4102\n";
        let stats = io_v1(bytes, "8:0 Read 2\n8:0 Write 1\nTotal 3\n");
        assert_eq!(stats.len(), 2);
        assert_eq!((stats[0].read, stats[0].written), (Some(Bytes::new(4096)), Some(Bytes::new(5))));
        assert_eq!((stats[0].reads, stats[0].writes, stats[1].reads), (Some(2), Some(1), None));
        assert_eq!(io_v1("Total 0\n", ""), []);
    }

    #[test]
    fn pressure_of_some_and_all() {
        let text =
            "some avg10=1.23 avg60=0.00 avg300=99.99 total=1500000\nfull avg10=0.01 avg60=0.00 avg300=0.00 total=2\n";
        let pressure = pressure(text).expect("pressure");
        assert_eq!((pressure.some.average_10, pressure.some.average_300), (123, 9999));
        assert_eq!(pressure.some.total, Duration::from_millis(1500));
        assert_eq!(pressure.full.map(|stall| stall.average_10), Some(1));
        let some = super::pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n").expect("pressure");
        assert_eq!(some.full, None);
        assert_eq!(super::pressure(""), None);
    }
}
