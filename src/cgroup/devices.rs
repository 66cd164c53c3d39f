//! Which device nodes may be used: rules, and the eBPF program that stands for them on v2.
//!
//! v1 has files (`devices.allow`); v2 asks a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`
//! at each open(2) and mknod(2) of a device: 1 lets it pass, 0 gives `EPERM`.
//!
//! Contract: `Documentation/admin-guide/cgroup-v1/devices.rst`, cgroup-v2.rst "Device
//! controller", `struct bpf_cgroup_dev_ctx` in linux/bpf.h.

use super::controller::Setting;
use crate::sys::path::Device;

bitflags::bitflags! {
    /// What may be done with a device node.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct DeviceAccess: u32 {
        /// mknod(2) of it.
        const MKNOD = 1;
        /// open(2) for reading.
        const READ = 2;
        /// open(2) for writing.
        const WRITE = 4;
    }
}

/// The two kinds of device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// Block devices.
    Block,
    /// Character devices.
    Character,
}

/// Which devices of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceNumbers {
    /// All.
    Any,
    /// All of one driver.
    Major(u32),
    /// This one.
    One(Device),
}

/// An allow-list of device nodes: what no rule allows, nothing in the sandbox can open or
/// make, however it has come by the node.
///
/// ```
/// use belljar::{CgroupLimits, DeviceAccess, DeviceKind, DeviceNumbers, Devices};
/// use belljar::sys::path::Device;
///
/// let loops = DeviceNumbers::Major(7);
/// let devices = Devices::standard().allow(DeviceKind::Block, loops, DeviceAccess::READ);
/// let limits = CgroupLimits::new().devices(devices);
/// # let _ = limits;
/// ```
///
/// On v2 this takes the right to load eBPF programs: CAP_BPF and CAP_NET_ADMIN, or
/// CAP_SYS_ADMIN, in the initial user namespace; Linux 4.15.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    pub(crate) rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub kind: DeviceKind,
    pub numbers: DeviceNumbers,
    pub access: DeviceAccess,
}

/// null, zero, full, random, urandom, tty, ptmx: what the standard `/dev` has.
const STANDARD: [(u32, u32); 7] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)];
/// Pseudo-terminals (`/dev/pts/N`).
const PTS: u32 = 136;

impl Devices {
    /// No device at all; not even `/dev/null`.
    pub fn none() -> Devices {
        Devices { rules: Vec::new() }
    }

    /// Those of the standard `/dev`: null, zero, full, random, urandom, tty, and pseudo-terminals.
    pub fn standard() -> Devices {
        let all = DeviceAccess::READ | DeviceAccess::WRITE;
        let one = |(major, minor)| DeviceNumbers::One(Device { major, minor });
        let numbers = STANDARD.map(one).into_iter().chain([DeviceNumbers::Major(PTS)]);
        numbers.fold(Devices::none(), |devices, numbers| devices.allow(DeviceKind::Character, numbers, all))
    }

    /// Allows more.
    pub fn allow(mut self, kind: DeviceKind, numbers: DeviceNumbers, access: DeviceAccess) -> Self {
        self.rules.push(Rule { kind, numbers, access });
        self
    }

    /// The files of a v1 group, in the order in which they are written.
    pub(super) fn v1(&self) -> Vec<Setting> {
        let mut settings = vec![Setting::new("devices.deny", "a")];
        for Rule { kind, numbers, access } in &self.rules {
            let kind = if *kind == DeviceKind::Block { 'b' } else { 'c' };
            let numbers = match numbers {
                DeviceNumbers::Any => "*:*".into(),
                DeviceNumbers::Major(major) => format!("{major}:*"),
                DeviceNumbers::One(Device { major, minor }) => format!("{major}:{minor}"),
            };
            let letters = [(DeviceAccess::READ, 'r'), (DeviceAccess::WRITE, 'w'), (DeviceAccess::MKNOD, 'm')];
            let letters: String = letters.iter().filter(|(a, _)| access.contains(*a)).map(|(_, l)| *l).collect();
            if !letters.is_empty() {
                settings.push(Setting::new("devices.allow", format!("{kind} {numbers} {letters}")));
            }
        }
        settings
    }

    /// The eBPF program: one block of tests a rule, each of which jumps to the next rule
    /// when it does not match; nothing jumps backwards.
    pub(crate) fn program(&self) -> Vec<u8> {
        // struct bpf_cgroup_dev_ctx { access_type (access << 16 | type), major, minor }
        let mut code = Code(Vec::new());
        code.load_word(TYPE, CONTEXT, 0);
        code.copy(ACCESS, TYPE);
        code.shift_right(ACCESS, 16);
        code.and(TYPE, 0xffff);
        code.load_word(MAJOR, CONTEXT, 4);
        code.load_word(MINOR, CONTEXT, 8);
        for rule in &self.rules {
            rule.assemble(&mut code);
        }
        code.answer(0);
        code.bytes()
    }
}

impl Rule {
    fn assemble(&self, code: &mut Code) {
        let kind = if self.kind == DeviceKind::Block { 1 } else { 2 };
        let mut jumps = vec![code.unless_equal(TYPE, kind)];
        match self.numbers {
            DeviceNumbers::Any => {}
            DeviceNumbers::Major(major) => jumps.push(code.unless_equal(MAJOR, major)),
            DeviceNumbers::One(Device { major, minor }) => {
                jumps.push(code.unless_equal(MAJOR, major));
                jumps.push(code.unless_equal(MINOR, minor));
            }
        }
        // all that is asked for must be allowed
        code.copy(SCRATCH, ACCESS);
        code.and(SCRATCH, !self.access.bits());
        jumps.push(code.unless_equal(SCRATCH, 0));
        code.answer(1);
        for jump in jumps {
            code.land(jump);
        }
    }
}

// Registers: r0 is the answer, r1 the context on entry.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const SCRATCH: u8 = 1; // the context has been read by then
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// eBPF instructions: opcode u8, registers u8 (source << 4 | destination), offset i16, immediate i32
/// (`Documentation/bpf/standardization/instruction-set.rst`).
struct Code(Vec<(u8, u8, i16, i32)>);

/// A jump forward whose target is not known yet.
struct Jump(usize);

impl Code {
    /// `to = *(u32 *)(from + offset)`.
    fn load_word(&mut self, to: u8, from: u8, offset: i16) {
        self.0.push((0x61, from << 4 | to, offset, 0));
    }

    /// `to = from`, 32 bits wide.
    fn copy(&mut self, to: u8, from: u8) {
        self.0.push((0xbc, from << 4 | to, 0, 0));
    }

    /// `register &= bits`.
    fn and(&mut self, register: u8, bits: u32) {
        self.0.push((0x54, register, 0, bits as i32));
    }

    /// `register >>= bits`.
    fn shift_right(&mut self, register: u8, bits: i32) {
        self.0.push((0x74, register, 0, bits));
    }

    /// Jumps when the register has another value. By 32 bits (Linux 5.1), for a 64-bit
    /// comparison would extend the sign of the value.
    fn unless_equal(&mut self, register: u8, value: u32) -> Jump {
        self.0.push((0x56, register, 0, value as i32));
        Jump(self.0.len() - 1)
    }

    /// Makes a jump lead here.
    fn land(&mut self, Jump(at): Jump) {
        let distance = self.0.len() - at - 1; // a few instructions
        self.0[at].2 = distance as i16;
    }

    /// `return answer`.
    fn answer(&mut self, answer: i32) {
        self.0.push((0xb4, ANSWER, 0, answer));
        self.0.push((0x95, 0, 0, 0));
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * 8);
        for (code, registers, offset, immediate) in &self.0 {
            bytes.extend([*code, *registers]);
            bytes.extend(offset.to_ne_bytes());
            bytes.extend(immediate.to_ne_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an interpreter answers for one attempt.
    fn allows(devices: &Devices, kind: DeviceKind, device: (u32, u32), access: DeviceAccess) -> bool {
        let kind = if kind == DeviceKind::Block { 1u32 } else { 2 };
        let words = [access.bits() << 16 | kind, device.0, device.1];
        let mut context: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let program = devices.program();
        let machine = rbpf::EbpfVmRaw::new(Some(&program)).expect("a valid program");
        machine.execute_program(&mut context).expect("it ends") == 1
    }

    const ALL: DeviceAccess = DeviceAccess::all();

    #[test]
    fn nothing_is_allowed_by_no_rule() {
        for kind in [DeviceKind::Block, DeviceKind::Character] {
            assert!(!allows(&Devices::none(), kind, (1, 3), DeviceAccess::READ));
        }
    }

    #[test]
    fn the_standard_devices() {
        let standard = Devices::standard();
        let read_write = DeviceAccess::READ | DeviceAccess::WRITE;
        for device in STANDARD.into_iter().chain([(PTS, 0), (PTS, 77)]) {
            assert!(allows(&standard, DeviceKind::Character, device, read_write), "{device:?}");
            assert!(!allows(&standard, DeviceKind::Character, device, DeviceAccess::MKNOD), "{device:?}");
            assert!(!allows(&standard, DeviceKind::Block, device, DeviceAccess::READ), "{device:?}");
        }
        // /dev/mem, /dev/kmsg, /dev/console
        for device in [(1, 1), (1, 11), (5, 1), (10, 200), (0, 0), (u32::MAX, u32::MAX)] {
            assert!(!allows(&standard, DeviceKind::Character, device, DeviceAccess::READ), "{device:?}");
        }
    }

    #[test]
    fn every_rule_against_every_attempt() {
        let kinds = [DeviceKind::Block, DeviceKind::Character];
        let numbers = [
            DeviceNumbers::Any,
            DeviceNumbers::Major(8),
            DeviceNumbers::Major(u32::MAX),
            DeviceNumbers::One(Device { major: 8, minor: 0x8000_0001 }),
        ];
        let attempts = [(8, 0), (8, 0x8000_0001), (9, 1), (u32::MAX, 3)];
        for kind in kinds {
            for numbers in numbers {
                for bits in 0..8 {
                    let access = DeviceAccess::from_bits_truncate(bits);
                    // behind a rule that does not match, so that jumps are tried
                    let before = DeviceNumbers::One(Device { major: 77, minor: 77 });
                    let devices = Devices::none().allow(kind, before, ALL).allow(kind, numbers, access);
                    for tried in kinds {
                        for (major, minor) in attempts {
                            for asked in (1..8).map(DeviceAccess::from_bits_truncate) {
                                let number = match numbers {
                                    DeviceNumbers::Any => true,
                                    DeviceNumbers::Major(m) => m == major,
                                    DeviceNumbers::One(d) => (d.major, d.minor) == (major, minor),
                                };
                                let expected = tried == kind && number && access.contains(asked);
                                assert_eq!(allows(&devices, tried, (major, minor), asked), expected);
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_files_of_v1() {
        let devices = Devices::none()
            .allow(DeviceKind::Block, DeviceNumbers::Any, DeviceAccess::READ)
            .allow(DeviceKind::Character, DeviceNumbers::Major(136), ALL)
            .allow(DeviceKind::Character, DeviceNumbers::One(Device { major: 1, minor: 3 }), DeviceAccess::empty());
        let lines: Vec<_> = devices.v1().into_iter().map(|s| format!("{} = {}", s.file, s.value)).collect();
        assert_eq!(lines, ["devices.deny = a", "devices.allow = b *:* r", "devices.allow = c 136:* rwm"]);
    }
}
