//! Medians, percentiles, and what stands above a table.

use std::time::Duration;

/// Measurements of one thing, in microseconds.
#[derive(Default, Clone)]
pub struct Sample(Vec<f64>);

impl Sample {
    pub fn push(&mut self, micros: f64) {
        let at = self.0.partition_point(|have| *have < micros);
        self.0.insert(at, micros);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    pub fn p99(&self) -> f64 {
        self.quantile(0.99)
    }

    /// The smallest value that at least this part of the sample does not exceed.
    fn quantile(&self, part: f64) -> f64 {
        let rank = (part * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(all: I) -> Sample {
        let mut values: Vec<f64> = all.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Sample(values)
    }
}

pub fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}

/// Processor, kernel, user.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = value(&read("/proc/meminfo"), "MemTotal:").unwrap_or(0) / 1024 / 1024;
    let load = read("/proc/loadavg");
    // SAFETY: geteuid takes nothing and cannot fail.
    let user = if unsafe { libc::geteuid() } == 0 { "root" } else { "an ordinary user" };
    format!(
        "{} × {cores}, {memory} GiB, Linux {}, as {user}, load {} before",
        model.unwrap_or(std::env::consts::ARCH),
        read("/proc/sys/kernel/osrelease").trim(),
        load.split(' ').next().unwrap_or("unknown"),
    )
}

/// The first number behind a name, in a file of lines like `MemTotal:  123 kB`.
pub fn value(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}
