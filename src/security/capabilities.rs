//! Capability sets (capabilities(7)).

use std::fmt;
use std::str::FromStr;

macro_rules! capabilities {
    ($($name:ident = $number:literal $kernel:literal),* $(,)?) => {
        /// A capability; its number is the kernel's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Capability { $(#[doc = concat!("`", $kernel, "` (capabilities(7)).")] $name = $number),* }

        impl Capability {
            /// All that this library has a name for, in the order of their numbers: those of Linux 5.9, which
            /// is the last kernel that has added one.
            pub const ALL: &[Capability] = &[$(Capability::$name),*];

            /// Its name in the kernel's words: `CAP_SYS_ADMIN`.
            pub fn name(self) -> &'static str {
                match self { $(Capability::$name => $kernel),* }
            }
        }
    };
}
capabilities! {
    Chown = 0 "CAP_CHOWN",
    DacOverride = 1 "CAP_DAC_OVERRIDE",
    DacReadSearch = 2 "CAP_DAC_READ_SEARCH",
    Fowner = 3 "CAP_FOWNER",
    Fsetid = 4 "CAP_FSETID",
    Kill = 5 "CAP_KILL",
    Setgid = 6 "CAP_SETGID",
    Setuid = 7 "CAP_SETUID",
    Setpcap = 8 "CAP_SETPCAP",
    LinuxImmutable = 9 "CAP_LINUX_IMMUTABLE",
    NetBindService = 10 "CAP_NET_BIND_SERVICE",
    NetBroadcast = 11 "CAP_NET_BROADCAST",
    NetAdmin = 12 "CAP_NET_ADMIN",
    NetRaw = 13 "CAP_NET_RAW",
    IpcLock = 14 "CAP_IPC_LOCK",
    IpcOwner = 15 "CAP_IPC_OWNER",
    SysModule = 16 "CAP_SYS_MODULE",
    SysRawio = 17 "CAP_SYS_RAWIO",
    SysChroot = 18 "CAP_SYS_CHROOT",
    SysPtrace = 19 "CAP_SYS_PTRACE",
    SysPacct = 20 "CAP_SYS_PACCT",
    SysAdmin = 21 "CAP_SYS_ADMIN",
    SysBoot = 22 "CAP_SYS_BOOT",
    SysNice = 23 "CAP_SYS_NICE",
    SysResource = 24 "CAP_SYS_RESOURCE",
    SysTime = 25 "CAP_SYS_TIME",
    SysTtyConfig = 26 "CAP_SYS_TTY_CONFIG",
    Mknod = 27 "CAP_MKNOD",
    Lease = 28 "CAP_LEASE",
    AuditWrite = 29 "CAP_AUDIT_WRITE",
    AuditControl = 30 "CAP_AUDIT_CONTROL",
    Setfcap = 31 "CAP_SETFCAP",
    MacOverride = 32 "CAP_MAC_OVERRIDE",
    MacAdmin = 33 "CAP_MAC_ADMIN",
    Syslog = 34 "CAP_SYSLOG",
    WakeAlarm = 35 "CAP_WAKE_ALARM",
    BlockSuspend = 36 "CAP_BLOCK_SUSPEND",
    AuditRead = 37 "CAP_AUDIT_READ",
    Perfmon = 38 "CAP_PERFMON",
    Bpf = 39 "CAP_BPF",
    CheckpointRestore = 40 "CAP_CHECKPOINT_RESTORE",
}

impl Capability {
    /// Its number.
    pub fn number(self) -> u32 {
        self as u32
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no capability's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no capability is named {0:?}")]
pub struct UnknownCapability(String);

/// By the kernel's name, in upper or lower case, with or without `CAP_`; exactly.
impl FromStr for Capability {
    type Err = UnknownCapability;

    fn from_str(text: &str) -> Result<Capability, UnknownCapability> {
        let upper = text.to_ascii_uppercase();
        let wanted = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let found = Capability::ALL.iter().find(|one| one.name().strip_prefix("CAP_") == Some(wanted));
        found.copied().ok_or_else(|| UnknownCapability(text.to_owned()))
    }
}

/// A set of capabilities: what is kept in all five sets of the payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Capabilities(u64);

impl Capabilities {
    /// None: the default.
    pub const fn none() -> Capabilities {
        Capabilities(0)
    }

    /// These and no others.
    pub fn keep(capabilities: impl IntoIterator<Item = Capability>) -> Capabilities {
        Capabilities(capabilities.into_iter().fold(0, |set, one| set | 1 << one as u8))
    }

    /// Those that Docker gives a container.
    pub fn container() -> Capabilities {
        use Capability::*;
        Capabilities::keep([
            Chown,
            DacOverride,
            Fsetid,
            Fowner,
            Mknod,
            NetRaw,
            Setgid,
            Setuid,
            Setfcap,
            Setpcap,
            NetBindService,
            SysChroot,
            Kill,
            AuditWrite,
        ])
    }

    /// Its members, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        Capability::ALL.iter().copied().filter(move |one| self.contains(*one))
    }

    /// Whether this one is kept.
    pub const fn contains(self, capability: Capability) -> bool {
        self.0 & 1 << capability as u8 != 0
    }

    /// The set as bits, bit n for the capability of number n.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// `none`, or the names with commas between.
impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("none");
        }
        self.iter().enumerate().try_for_each(|(i, one)| write!(f, "{}{one}", if i == 0 { "" } else { ", " }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (number, one) in Capability::ALL.iter().enumerate() {
            assert_eq!((one.number(), one.name().parse()), (number as u32, Ok(*one)));
        }
        // the header of this machine, where there is one
        let header = std::fs::read_to_string("/usr/include/linux/capability.h").unwrap_or_default();
        for line in header.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            if let ["#define", name, number] = words[..]
                && let (true, Ok(number)) = (name.starts_with("CAP_"), number.parse::<u32>())
            {
                assert_eq!(name.parse::<Capability>().map(Capability::number), Ok(number), "{name}");
            }
        }
        assert_eq!("sys_admin".parse(), Ok(Capability::SysAdmin));
        for bad in ["", "CAP_", "CAP_CAP_KILL", "KILL ", "0", "all"] {
            assert!(bad.parse::<Capability>().is_err(), "{bad:?}");
        }
        let set = Capabilities::keep([Capability::Kill, Capability::Chown]);
        assert_eq!(
            (set.to_string().as_str(), Capabilities::none().to_string().as_str()),
            ("CAP_CHOWN, CAP_KILL", "none")
        );
    }
}
