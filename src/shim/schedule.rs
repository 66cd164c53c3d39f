//! How the payload's process is scheduled, and how readily it is killed for want of memory.

use crate::decimal::Decimal;
use crate::procfs;
use crate::program::wire::op::schedule::{KEEP, KEEP_NICE};
use crate::sys::kernel::abi::*;
use crate::sys::kernel::{Errno, Result, call};

/// Sets the policy and the nice value, or leaves what is `KEEP`.
pub fn policy(policy: u32, nice: i64, priority: u32, times: [u64; 3]) -> Result<()> {
    let mut attr = call::sched_getattr()?;
    (attr.size, attr.flags) = (size_of::<SchedAttr>() as u32, 0);
    if policy != KEEP {
        (attr.policy, attr.priority) = (policy, priority);
        [attr.runtime, attr.deadline, attr.period] = times;
    }
    if nice != KEEP_NICE {
        attr.nice = nice as i32;
    }
    call::sched_setattr(&attr).map(drop)
}

/// Runs on these CPUs: `EINVAL` where the kernel leaves one out, which it does without a word.
pub fn cpus(mask: &[u8]) -> Result<()> {
    call::sched_setaffinity(mask)?;
    let given = call::sched_getaffinity();
    let given = given.iter().flat_map(|word| word.to_ne_bytes());
    let wanted = mask.iter().copied().chain(core::iter::repeat(0));
    if given.zip(wanted).all(|(given, wanted)| given == wanted) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Writes /proc/self/oom_score_adj.
pub fn oom_score_adj(value: i64) -> Result<()> {
    let mut digits = Decimal::new();
    let digits = digits.of(value.unsigned_abs()).to_bytes();
    let mut text = [b'-'; 24];
    text[1..=digits.len()].copy_from_slice(digits);
    let start = usize::from(value >= 0);
    procfs::write(c"self/oom_score_adj", &text[start..=digits.len()])
}
