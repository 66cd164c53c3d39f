//! What every row runs: payloads of a few instructions, and two layers that hold them.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A static ELF64 executable: one header, one segment, the code.
fn elf(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: usize = 64 + 56;
    let size = (HEADERS + code.len()) as u64;
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let machine: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    let halves = |bytes: &mut Vec<u8>, all: &[u16]| all.iter().for_each(|v| bytes.extend(v.to_le_bytes()));
    let words = |bytes: &mut Vec<u8>, all: &[u32]| all.iter().for_each(|v| bytes.extend(v.to_le_bytes()));
    let longs = |bytes: &mut Vec<u8>, all: &[u64]| all.iter().for_each(|v| bytes.extend(v.to_le_bytes()));
    halves(&mut bytes, &[2, machine]); // ET_EXEC
    words(&mut bytes, &[1]);
    longs(&mut bytes, &[BASE + HEADERS as u64, 64, 0]);
    words(&mut bytes, &[0]);
    halves(&mut bytes, &[64, 56, 1, 0, 0, 0]);
    words(&mut bytes, &[1, 5]); // PT_LOAD, readable and executable
    longs(&mut bytes, &[0, BASE, BASE, size, size, 0x1_0000]);
    bytes.extend(code);
    bytes
}

/// exit_group(0).
#[cfg(target_arch = "x86_64")]
const TRUE: &[u8] = b"\xb8\xe7\0\0\0\x31\xff\x0f\x05";
/// ppoll of nothing, for ever.
#[cfg(target_arch = "x86_64")]
const SLEEP: &[u8] = b"\xb8\x0f\x01\0\0\x31\xff\x31\xf6\x31\xd2\x45\x31\xd2\x0f\x05\xeb\xee";
/// write(1, a byte of its own, 1), exit_group(0).
#[cfg(target_arch = "x86_64")]
const WRITE: &[u8] = b"\xb8\x01\0\0\0\xbf\x01\0\0\0\xbe\0\0\x40\0\xba\x01\0\0\0\x0f\x05\xb8\xe7\0\0\0\x31\xff\x0f\x05";

#[cfg(target_arch = "aarch64")]
const TRUE: &[u8] = &aarch64([MOV_X0_0, MOV_X8 | 94 << 5, SVC]);
#[cfg(target_arch = "aarch64")]
const SLEEP: &[u8] = &aarch64([MOV_X0_0, MOV_X0_0 | 1, MOV_X0_0 | 2, MOV_X0_0 | 3, MOV_X8 | 73 << 5, SVC, 0x17ff_fffa]);
#[cfg(target_arch = "aarch64")]
const WRITE: &[u8] = &aarch64([
    MOV_X0_0 | 1 << 5, // x0 = 1
    0xd2a0_0801,       // x1 = 0x40 << 16, where the ELF header is
    MOV_X0_0 | 1 << 5 | 2,
    MOV_X8 | 64 << 5,
    SVC,
    MOV_X0_0,
    MOV_X8 | 94 << 5,
    SVC,
]);
#[cfg(target_arch = "aarch64")]
const MOV_X0_0: u32 = 0xd280_0000; // movz, immediate at bit 5, register at bit 0
#[cfg(target_arch = "aarch64")]
const MOV_X8: u32 = 0xd280_0008;
#[cfg(target_arch = "aarch64")]
const SVC: u32 = 0xd400_0001;
#[cfg(target_arch = "aarch64")]
const fn aarch64<const N: usize>(code: [u32; N]) -> [u8; 32] {
    let mut bytes = [0; 32];
    let mut i = 0;
    while i < 4 * N {
        bytes[i] = code[i / 4].to_le_bytes()[i % 4];
        i += 1;
    }
    bytes
}

/// The directories of one run, removed with it.
pub struct World {
    pub base: PathBuf,
    /// The layers, lowest first; the payloads and `/proc` are in the second.
    pub layers: [PathBuf; 2],
    /// An empty directory of the host to mount on.
    pub scratch: PathBuf,
}

impl World {
    /// On the disk that the build is on: a temporary directory is often a tmpfs.
    pub fn new() -> io::Result<World> {
        let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("spawn-{}", std::process::id()));
        let layers = ["lower", "upper"].map(|name| base.join(name));
        let scratch = base.join("scratch");
        for path in [&layers[0].join("etc"), &layers[1].join("proc"), &layers[1].join("dev"), &scratch] {
            std::fs::create_dir_all(path)?;
        }
        std::fs::write(layers[0].join("etc/motd"), "the lower layer\n")?;
        for (name, code) in [("true", TRUE), ("sleep", SLEEP), ("write", WRITE)] {
            let path = layers[1].join(name);
            std::fs::write(&path, elf(code))?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(World { base, layers, scratch })
    }

    /// The payload on the host's side.
    pub fn payload(&self, name: &str) -> PathBuf {
        self.layers[1].join(name)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.base); // a leftover is below target/
    }
}
