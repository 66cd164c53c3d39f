//! A limit of CPU time shown as a number of CPUs.

use super::limits::CgroupLimits;
use crate::units::Limit;
use std::sync::atomic::{AtomicUsize, Ordering};

impl CgroupLimits {
    /// How many CPUs the payload is to see.
    pub(super) fn shown_cpus(&self) -> Option<u32> {
        match self.cpu.max {
            Some(Limit::At(cpus)) if self.cpu.shown => {
                let (quota, period) = cpus.micros();
                u32::try_from(quota?.div_ceil(period.max(1))).ok()
            }
            _ => None,
        }
    }
}

/// So many of the CPUs that are allowed, beginning at another one each time; `None` where
/// there are no more of them.
pub(super) fn mask(allowed: &[u64], cpus: u32) -> Option<Vec<u8>> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let all: Vec<usize> = (0..allowed.len() * 64).filter(|cpu| allowed[cpu / 64] >> (cpu % 64) & 1 == 1).collect();
    let cpus = cpus as usize;
    if cpus == 0 || cpus >= all.len() {
        return None;
    }
    let first = NEXT.fetch_add(cpus, Ordering::Relaxed);
    let chosen: Vec<usize> = (0..cpus).map(|n| all[first.wrapping_add(n) % all.len()]).collect();
    // the kernel reads whole words
    let mut mask = vec![0u64; chosen.iter().max()? / 64 + 1];
    chosen.iter().for_each(|cpu| mask[cpu / 64] |= 1 << (cpu % 64));
    Some(mask.iter().flat_map(|word| word.to_ne_bytes()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Cpus;
    use std::time::Duration;

    #[test]
    fn cpus_are_rounded_up() {
        let shown = |cpus: Cpus| CgroupLimits::new().cpus(cpus).cpus_as_affinity().shown_cpus();
        assert_eq!([0.2, 1.0, 1.1, 3.0].map(|n| shown(Cpus::new(n))), [1, 1, 2, 3].map(Some));
        assert_eq!(shown(Cpus::quota(Duration::from_millis(50), Duration::from_millis(20))), Some(3));
        assert_eq!(CgroupLimits::new().cpus(1.0).shown_cpus(), None, "only where it is asked for");
    }

    #[test]
    fn masks_are_of_allowed_cpus_in_turn() {
        let allowed = [0b1011_0000, 1 << 63];
        let mut seen = [0u64; 2];
        for _ in 0..8 {
            let mask = mask(&allowed, 2).expect("a part of them");
            let words: Vec<u64> =
                mask.chunks(8).map(|word| u64::from_ne_bytes(word.try_into().expect("8 bytes"))).collect();
            assert_eq!(words.iter().map(|word| word.count_ones()).sum::<u32>(), 2);
            for (index, word) in words.iter().enumerate() {
                assert_eq!(word & !allowed[index], 0);
                seen[index] |= word;
            }
        }
        assert_eq!(seen, allowed, "every one has its turn");
        assert_eq!(mask(&allowed, 4), None);
        assert_eq!(mask(&[], 1), None);
    }
}
