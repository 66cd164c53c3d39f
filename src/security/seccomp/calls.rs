//! Names and numbers of system calls, for the native ABI and the 32-bit one beside it.

use std::collections::BTreeMap;
use std::sync::OnceLock;

/// The last number that the table knows. The architectures number alike since 403.
pub(super) const LAST: u32 = 470;

/// The column of an ABI in the table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    X86_64 = 0,
    Aarch64 = 1,
    I386 = 2,
    Arm = 3,
}

impl Column {
    /// The ABI that this crate is compiled for.
    pub const NATIVE: Column = if cfg!(target_arch = "x86_64") { Column::X86_64 } else { Column::Aarch64 };

    /// The 32-bit ABI of the same processors.
    pub const fn compat(self) -> Column {
        match self {
            Column::X86_64 | Column::I386 => Column::I386,
            Column::Aarch64 | Column::Arm => Column::Arm,
        }
    }

    /// `AUDIT_ARCH_…` of <linux/audit.h>: what a filter finds in `seccomp_data.arch`.
    pub const fn audit_arch(self) -> u32 {
        match self {
            Column::X86_64 => 0xc000_003e,
            Column::Aarch64 => 0xc000_00b7,
            Column::I386 => 0x4000_0003,
            Column::Arm => 0x4000_0028,
        }
    }
}

/// A name with its number in each ABI.
type Table = BTreeMap<&'static str, [Option<u32>; 4]>;

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let row = |line: &'static str| {
            let mut words = line.split(' ');
            let name = words.next()?;
            let mut number = || words.next().and_then(|word| word.parse().ok());
            Some((name, [number(), number(), number(), number()]))
        };
        include_str!("calls.txt").lines().filter(|line| !line.starts_with('#')).filter_map(row).collect()
    })
}

/// Whether any architecture has a call of this name.
pub(super) fn is_known(name: &str) -> bool {
    table().contains_key(name)
}

/// The number of a call, if this ABI has it.
pub(super) fn number(name: &str, column: Column) -> Option<u32> {
    table().get(name)?[column as usize]
}

/// The name of a call, by its number and the `AUDIT_ARCH_…` of its ABI; `None` for one that the table does not know.
pub(crate) fn name_of(number: i32, arch: u32) -> Option<&'static str> {
    let native = Column::NATIVE;
    let column = [native, native.compat()].into_iter().find(|column| column.audit_arch() == arch)?;
    let number = u32::try_from(number).ok()?;
    table().iter().find(|(_, row)| row[column as usize] == Some(number)).map(|(name, _)| *name)
}

/// The numbers of all calls of an ABI, in order.
pub(super) fn numbers(column: Column) -> Vec<u32> {
    let mut all: Vec<_> = table().values().filter_map(|row| row[column as usize]).collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::kernel::raw::nr;

    #[test]
    fn every_row_is_whole_and_agrees_with_the_numbers_in_use() {
        let rows: Vec<_> = include_str!("calls.txt").lines().filter(|line| !line.starts_with('#')).collect();
        assert!(rows.len() > 450 && rows.len() == table().len());
        assert!(rows.windows(2).all(|pair| pair[0].split(' ').next() < pair[1].split(' ').next()));
        for row in rows {
            let words: Vec<_> = row.split(' ').collect();
            assert!(words.len() == 5 && words[1..].iter().all(|w| *w == "-" || w.parse::<u32>().is_ok()), "{row}");
        }
        for column in [Column::X86_64, Column::Aarch64, Column::I386, Column::Arm] {
            let numbers = numbers(column);
            assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "a number twice");
            assert_eq!(numbers.iter().rfind(|n| **n < 0x1000), Some(&LAST));
        }
        for (name, used) in [("read", nr::read), ("execve", nr::execve), ("clone3", nr::clone3), ("ioctl", nr::ioctl)] {
            assert_eq!(number(name, Column::NATIVE), Some(used as u32), "{name}");
        }
        assert_eq!(name_of(nr::ioctl as i32, Column::NATIVE.audit_arch()), Some("ioctl"));
        assert_eq!(name_of(-1, Column::NATIVE.audit_arch()), None);
        assert_eq!(name_of(nr::ioctl as i32, 0), None);
        // libc's own table, where it has the call
        for (name, theirs) in [("openat2", libc::SYS_openat2), ("futex_waitv", libc::SYS_futex_waitv)] {
            assert_eq!(number(name, Column::NATIVE).map(i64::from), Some(theirs));
        }
    }
}
