//! Quantities with their units in the type.

use std::fmt;
use std::time::Duration;

/// A number of bytes. 0 is a valid amount and never means "without limit".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(u64);

impl Bytes {
    /// `n` bytes.
    pub const fn new(n: u64) -> Bytes {
        Bytes(n)
    }

    /// `n` KiB (1024 bytes); at most `u64::MAX` bytes.
    pub const fn kib(n: u64) -> Bytes {
        Bytes(n.saturating_mul(1 << 10))
    }

    /// `n` MiB.
    pub const fn mib(n: u64) -> Bytes {
        Bytes(n.saturating_mul(1 << 20))
    }

    /// `n` GiB.
    pub const fn gib(n: u64) -> Bytes {
        Bytes(n.saturating_mul(1 << 30))
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// At most `u64::MAX` bytes.
impl std::ops::AddAssign for Bytes {
    fn add_assign(&mut self, other: Bytes) {
        self.0 = self.0.saturating_add(other.0);
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{} {unit}", self.0 >> shift);
            }
        }
        write!(f, "{} B", self.0)
    }
}

/// A bound that can be lifted: an amount, or none.
///
/// Where one is taken, the amount alone does: `memory_max(Bytes::mib(64))`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit<T> {
    /// No bound: what the host and the groups around allow.
    Max,
    /// This much.
    At(T),
}

impl From<Bytes> for Limit<Bytes> {
    fn from(amount: Bytes) -> Limit<Bytes> {
        Limit::At(amount)
    }
}

impl From<u32> for Limit<u32> {
    fn from(amount: u32) -> Limit<u32> {
        Limit::At(amount)
    }
}

impl From<u64> for Limit<u64> {
    fn from(amount: u64) -> Limit<u64> {
        Limit::At(amount)
    }
}

impl From<Cpus> for Limit<Cpus> {
    fn from(amount: Cpus) -> Limit<Cpus> {
        Limit::At(amount)
    }
}

impl From<f64> for Limit<Cpus> {
    fn from(cpus: f64) -> Limit<Cpus> {
        Limit::At(Cpus::new(cpus))
    }
}

/// The word `max`, or the amount, as cgroup v2 files have it.
impl<T: fmt::Display> fmt::Display for Limit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Max => f.write_str("max"),
            Limit::At(amount) => amount.fmt(f),
        }
    }
}

/// An amount of CPU time: so much in each period. `Cpus::new(0.2)` is a fifth of one CPU,
/// 20 ms in each 100 ms; `Cpus::new(1.5)` one and a half.
///
/// The kernel takes periods of 1 ms to 1 s and quotas from 1 ms on
/// (`Documentation/scheduler/sched-bwc.rst`); others are defects of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cpus {
    /// `None`: of a number that is no amount.
    quota: Option<Duration>,
    period: Duration,
}

impl Cpus {
    /// So many CPUs, counted over periods of 100 ms.
    pub fn new(cpus: f64) -> Cpus {
        let period = Duration::from_millis(100);
        Cpus { quota: Duration::try_from_secs_f64(cpus * period.as_secs_f64()).ok(), period }
    }

    /// `quota` of CPU time in each `period`, to the microsecond. A shorter period makes shorter pauses, at
    /// the price of more of them.
    pub const fn quota(quota: Duration, period: Duration) -> Cpus {
        Cpus { quota: Some(quota), period }
    }

    /// The quota in microseconds, if there is one, and the period.
    pub(crate) fn micros(self) -> (Option<u64>, u64) {
        let micros = |span: Duration| u64::try_from((span.as_nanos() + 500) / 1000).unwrap_or(u64::MAX);
        (self.quota.map(micros), micros(self.period))
    }
}

impl From<f64> for Cpus {
    fn from(cpus: f64) -> Cpus {
        Cpus::new(cpus)
    }
}

/// A share among groups that compete: 1 to 10000, 100 unless set. A group of weight 200
/// gets twice as much as one of 100, where there is not enough for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u32);

impl Weight {
    /// The weight of a group that has not been given one.
    pub const DEFAULT: Weight = Weight(100);

    /// This weight.
    pub const fn new(weight: u32) -> Weight {
        Weight(weight)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_quota_and_period() {
        assert_eq!(Cpus::new(0.2).micros(), (Some(20_000), 100_000));
        assert_eq!(Cpus::new(1.5).micros(), (Some(150_000), 100_000));
        assert_eq!(Cpus::new(f64::NAN).micros().0, None);
        assert_eq!(Cpus::new(-1.0).micros().0, None);
        assert_eq!(Cpus::quota(Duration::from_millis(2), Duration::from_millis(10)).micros(), (Some(2000), 10_000));
    }
}
