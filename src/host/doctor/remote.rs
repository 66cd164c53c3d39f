//! A process to attempt things in: it performs the system calls that it is told, one
//! after the other, in namespaces of its own.
//!
//! Whether a mount or an unshare works can only be found out where it has an effect, and
//! that must not be the caller's process. So a program of a few instructions is started
//! from memory; it reads from its descriptor 3 a record of seven words (the number of a
//! call and its six arguments), makes the call, writes back the answer, and ends when the
//! other end is closed. What arguments point to follows in the same record, whose address
//! the program tells first. It stands alone in its address space, with all signals
//! blocked and no other descriptor.
//!
//! Contract: clone(2), execveat(2), elf(5), syscall(2) "Architecture calling conventions".

use crate::sys::clone::{CloneExec, Cloned};
use crate::sys::kernel::abi::SIGKILL;
use crate::sys::kernel::raw::check;
use crate::sys::namespace::NamespaceFlags;
use crate::sys::{Errno, Result, memfd, socket};
use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The size of the program's buffer, and so of the largest record.
const BUFFER: usize = 4096;
/// The number of a call and its arguments.
const WORDS: usize = 7;
/// No call here takes long; a host that is this slow gets an answer all the same.
const PATIENCE: Duration = Duration::from_secs(20);

/// The program's instructions.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const CODE: &[u8] = &[
    0x48, 0x81, 0xec, 0x00, 0x10, 0x00, 0x00, //     sub rsp, 4096
    0x48, 0x89, 0xe5,                         //     mov rbp, rsp
    0x48, 0x89, 0x6d, 0x00,                   //     mov [rbp], rbp
    0xb8, 0x01, 0x00, 0x00, 0x00,             // 1:  mov eax, 1        write
    0xbf, 0x03, 0x00, 0x00, 0x00,             //     mov edi, 3
    0x48, 0x89, 0xee,                         //     mov rsi, rbp
    0xba, 0x08, 0x00, 0x00, 0x00,             //     mov edx, 8
    0x0f, 0x05,                               //     syscall
    0x31, 0xc0,                               //     xor eax, eax      read
    0xbf, 0x03, 0x00, 0x00, 0x00,             //     mov edi, 3
    0x48, 0x89, 0xee,                         //     mov rsi, rbp
    0xba, 0x00, 0x10, 0x00, 0x00,             //     mov edx, 4096
    0x0f, 0x05,                               //     syscall
    0x48, 0x85, 0xc0,                         //     test rax, rax
    0x7e, 0x24,                               //     jle 2f
    0x48, 0x8b, 0x45, 0x00,                   //     mov rax, [rbp]
    0x48, 0x8b, 0x7d, 0x08,                   //     mov rdi, [rbp+8]
    0x48, 0x8b, 0x75, 0x10,                   //     mov rsi, [rbp+16]
    0x48, 0x8b, 0x55, 0x18,                   //     mov rdx, [rbp+24]
    0x4c, 0x8b, 0x55, 0x20,                   //     mov r10, [rbp+32]
    0x4c, 0x8b, 0x45, 0x28,                   //     mov r8, [rbp+40]
    0x4c, 0x8b, 0x4d, 0x30,                   //     mov r9, [rbp+48]
    0x0f, 0x05,                               //     syscall
    0x48, 0x89, 0x45, 0x00,                   //     mov [rbp], rax
    0xeb, 0xb2,                               //     jmp 1b
    0xb8, 0xe7, 0x00, 0x00, 0x00,             // 2:  mov eax, 231      exit_group
    0x31, 0xff,                               //     xor edi, edi
    0x0f, 0x05,                               //     syscall
];

/// The program's instructions.
#[cfg(target_arch = "aarch64")]
#[rustfmt::skip]
const CODE: &[u8] = &[
    0xff, 0x07, 0x40, 0xd1, //     sub sp, sp, #1, lsl #12
    0xf3, 0x03, 0x00, 0x91, //     mov x19, sp
    0x73, 0x02, 0x00, 0xf9, //     str x19, [x19]
    0x08, 0x08, 0x80, 0xd2, // 1:  mov x8, #64       write
    0x60, 0x00, 0x80, 0xd2, //     mov x0, #3
    0xe1, 0x03, 0x13, 0xaa, //     mov x1, x19
    0x02, 0x01, 0x80, 0xd2, //     mov x2, #8
    0x01, 0x00, 0x00, 0xd4, //     svc #0
    0xe8, 0x07, 0x80, 0xd2, //     mov x8, #63       read
    0x60, 0x00, 0x80, 0xd2, //     mov x0, #3
    0xe1, 0x03, 0x13, 0xaa, //     mov x1, x19
    0x02, 0x00, 0x82, 0xd2, //     mov x2, #4096
    0x01, 0x00, 0x00, 0xd4, //     svc #0
    0x1f, 0x00, 0x00, 0xf1, //     cmp x0, #0
    0x0d, 0x01, 0x00, 0x54, //     b.le 2f
    0x68, 0x02, 0x40, 0xa9, //     ldp x8, x0, [x19]
    0x61, 0x0a, 0x41, 0xa9, //     ldp x1, x2, [x19, #16]
    0x63, 0x12, 0x42, 0xa9, //     ldp x3, x4, [x19, #32]
    0x65, 0x1a, 0x40, 0xf9, //     ldr x5, [x19, #48]
    0x01, 0x00, 0x00, 0xd4, //     svc #0
    0x60, 0x02, 0x00, 0xf9, //     str x0, [x19]
    0xee, 0xff, 0xff, 0x17, //     b 1b
    0xc8, 0x0b, 0x80, 0xd2, // 2:  mov x8, #94       exit_group
    0x00, 0x00, 0x80, 0xd2, //     mov x0, #0
    0x01, 0x00, 0x00, 0xd4, //     svc #0
];

/// The program as a static ELF file: one segment to execute, and a stack that is not.
fn image() -> Vec<u8> {
    const MACHINE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    const HEADERS: u64 = 64 + 2 * 56;
    const BASE: u64 = 0x40_0000;
    const PAGE: u64 = 0x1_0000; // the largest that either architecture has
    let size = HEADERS + CODE.len() as u64;
    let mut file = Vec::with_capacity(size as usize);
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"); // 64-bit, little-endian, version 1
    for half in [2, MACHINE] {
        file.extend(half.to_le_bytes()); // ET_EXEC, e_machine
    }
    file.extend(1u32.to_le_bytes());
    for word in [BASE + HEADERS, 64, 0] {
        file.extend(word.to_le_bytes()); // e_entry, e_phoff, e_shoff
    }
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 2, 0, 0, 0] {
        file.extend(half.to_le_bytes()); // e_ehsize, e_phentsize, e_phnum, no sections
    }
    let segments = [
        (1u32, 5u32, [0, BASE, BASE, size, size, PAGE]), // PT_LOAD, read and execute
        (0x6474_e551, 6, [0, 0, 0, 0, 0, 16]),           // PT_GNU_STACK, read and write
    ];
    for (kind, flags, words) in segments {
        file.extend(kind.to_le_bytes());
        file.extend(flags.to_le_bytes());
        words.into_iter().for_each(|word: u64| file.extend(word.to_le_bytes()));
    }
    file.extend(CODE);
    file
}

/// The program as a sealed memfd.
pub(super) fn memfd() -> Result<OwnedFd> {
    memfd::sealed_executable(c"belljar-doctor", &image())
}

/// The program as a file without a name, in the first of the usual directories that
/// allows one and lets it be executed.
pub(super) fn unlinked() -> io::Result<(OwnedFd, PathBuf)> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let others = ["/tmp", "/var/tmp", "/dev/shm", "/run"].map(PathBuf::from);
    let mut last = io::Error::from_raw_os_error(libc::EACCES);
    for directory in runtime.into_iter().chain(others) {
        match unlinked_in(&directory) {
            Ok(file) => return Ok((file.into(), directory)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn unlinked_in(directory: &Path) -> io::Result<File> {
    let mount = nix::sys::statvfs::statvfs(directory)?;
    if mount.flags().contains(nix::sys::statvfs::FsFlags::ST_NOEXEC) {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    let flags = libc::O_TMPFILE;
    let mut file = OpenOptions::new().read(true).write(true).custom_flags(flags).mode(0o755).open(directory)?;
    file.write_all(&image())?;
    // anew: what is open for writing is not executed (ETXTBSY)
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// An argument of a call.
#[derive(Clone, Copy)]
pub(super) enum Arg<'a> {
    /// A number.
    Int(u64),
    /// A pointer to this string.
    Text(&'a CStr),
    /// A pointer to these bytes.
    Bytes(&'a [u8]),
}

/// The process. Dropping it kills and reaps it, and with it go its namespaces and mounts.
pub(super) struct Remote {
    channel: OwnedFd,
    child: Cloned,
    kinds: NamespaceFlags,
    buffer: u64,
}

impl Remote {
    /// Starts it in new namespaces of these kinds, and in a cgroup if one is given.
    pub fn start(program: BorrowedFd<'_>, kinds: NamespaceFlags, cgroup: Option<BorrowedFd<'_>>) -> Result<Remote> {
        let (channel, theirs) = socket::seqpacket_pair()?;
        let mut clone = CloneExec::new(program, theirs.as_fd()).namespaces(kinds);
        if let Some(cgroup) = cgroup {
            clone = clone.cgroup(cgroup);
        }
        let child = clone.spawn()?;
        drop(theirs);
        let mut remote = Remote { channel, child, kinds, buffer: 0 };
        remote.buffer = remote.receive()?;
        Ok(remote)
    }

    /// Its number in the caller's pid namespace.
    pub fn pid(&self) -> i32 {
        self.child.pid
    }

    /// Whether it was started in new namespaces of these kinds.
    pub fn is_in(&self, kinds: NamespaceFlags) -> bool {
        self.kinds.contains(kinds)
    }

    /// Makes it perform a call.
    pub fn call(&self, number: usize, args: &[Arg<'_>]) -> Result<usize> {
        let record = record(self.buffer, number, args)?;
        socket::send(self.channel.as_fd(), &record, &[])?;
        check(self.receive()? as isize)
    }

    fn receive(&self) -> Result<u64> {
        if !socket::wait_readable(self.channel.as_fd(), Some(PATIENCE))? {
            // an answer that came later would be taken for that of the next call
            self.child.pidfd.send_signal(SIGKILL)?;
            return Err(Errno::ETIMEDOUT);
        }
        let mut word = [0; 8];
        match socket::receive(self.channel.as_fd(), &mut word, true)? {
            (8, _) => Ok(u64::from_le_bytes(word)),
            _ => Err(Errno::EPIPE),
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // ESRCH and ECHILD: it has ended, and a reaper of the host took its status
        let _ = self.child.pidfd.send_signal(SIGKILL);
        let _ = self.child.pidfd.wait();
    }
}

/// A call as the program reads it at `address`.
fn record(address: u64, number: usize, args: &[Arg<'_>]) -> Result<Vec<u8>> {
    let mut words = [0u64; WORDS];
    words[0] = number as u64;
    let mut data = Vec::new();
    if args.len() >= WORDS {
        return Err(Errno::EINVAL);
    }
    for (word, arg) in words[1..].iter_mut().zip(args) {
        let bytes = match *arg {
            Arg::Int(value) => {
                *word = value;
                continue;
            }
            Arg::Text(text) => text.to_bytes_with_nul(),
            Arg::Bytes(bytes) => bytes,
        };
        *word = address + (8 * WORDS + data.len()) as u64;
        data.extend(bytes);
        data.resize(data.len().next_multiple_of(8), 0);
    }
    let mut record: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    record.extend(data);
    if record.len() > BUFFER { Err(Errno::E2BIG) } else { Ok(record) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::kernel::raw::nr;

    #[test]
    fn pointers_lead_to_what_they_stand_for() {
        let record = record(0x1000, 7, &[Arg::Int(1), Arg::Text(c"ab"), Arg::Bytes(&[9; 3]), Arg::Text(c"")]);
        let record = record.expect("it fits");
        let word = |i: usize| u64::from_le_bytes(record[8 * i..][..8].try_into().expect("eight bytes"));
        assert_eq!((word(0), word(1), word(5), word(6)), (7, 1, 0, 0));
        let at = |i: usize, len: usize| &record[(word(i) - 0x1000) as usize..][..len];
        assert_eq!((at(2, 3), at(3, 3), at(4, 1)), (&b"ab\0"[..], &[9u8; 3][..], &b"\0"[..]));
    }

    #[test]
    fn a_record_has_at_most_six_arguments_and_a_page() {
        assert_eq!(record(0, 0, &[Arg::Int(0); 7]), Err(Errno::EINVAL));
        assert_eq!(record(0, 0, &[Arg::Bytes(&[0; BUFFER])]), Err(Errno::E2BIG));
        assert!(record(0, 0, &[Arg::Bytes(&[0; BUFFER - 8 * WORDS])]).is_ok());
    }

    #[test]
    fn calls_are_performed_by_another_process() {
        let program = memfd().expect("an executable memfd");
        let remote = Remote::start(program.as_fd(), NamespaceFlags::empty(), None).expect("a process");
        assert_eq!(remote.call(nr::getpid, &[]), Ok(remote.pid() as usize));
        let open = |path| remote.call(nr::openat, &[Arg::Int(0), Arg::Text(path), Arg::Int(0)]);
        assert_eq!(open(c"/"), Ok(0), "the lowest number, for all others are closed");
        assert_eq!(open(c"/nonexistent"), Err(Errno::ENOENT));
        assert_eq!(remote.call(nr::exit_group, &[Arg::Int(0)]), Err(Errno::EPIPE));
        assert!(remote.call(nr::getpid, &[]).is_err());
    }
}
