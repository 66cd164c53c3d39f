//! Switches for tests: kernel features to do without, and a step to fail.

use std::sync::atomic::{AtomicU32, Ordering};

static DISABLED: AtomicU32 = AtomicU32::new(0);
static FAULT: AtomicU32 = AtomicU32::new(u32::MAX);

/// Features as [`disable`] takes them.
pub use crate::program::op::without as feature;

/// Makes all later spawns of this process do without these kernel features, so that
/// their fallbacks run. No fallback is weaker than what it stands for.
pub fn disable(features: u32) {
    DISABLED.store(features, Ordering::Relaxed);
}

/// Makes step `index` (from 0) of all later spawns of this process fail with `EIO`.
pub fn fail_at(index: Option<u32>) {
    FAULT.store(index.unwrap_or(u32::MAX), Ordering::Relaxed);
}

pub(crate) fn disabled() -> u32 {
    DISABLED.load(Ordering::Relaxed)
}

pub(crate) fn fault() -> Option<u32> {
    Some(FAULT.load(Ordering::Relaxed)).filter(|index| *index != u32::MAX)
}

/// The version of Landlock that this kernel has switched on, 0 for none.
pub fn landlock_version() -> u32 {
    crate::sys::kernel::call::landlock_version()
}
