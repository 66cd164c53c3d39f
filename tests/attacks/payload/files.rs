//! Attempts on files.

use crate::attempts::{nr, number, raw};
use crate::say::Line;
use crate::sys::kernel::abi::*;
use crate::sys::kernel::{Errno, Result, call};
use core::ffi::CStr;

/// A descriptor of one's own opened anew, by its name in /proc.
pub fn reopen(fd: i64, flags: i32) -> Result<()> {
    let mut name = *b"/proc/self/fd/0\0";
    name[14] += fd as u8;
    let path = CStr::from_bytes_with_nul(&name).map_err(|_| Errno::EINVAL)?;
    call::close(open(path, flags)?).map(drop)
}

pub fn open(path: &CStr, flags: i32) -> Result<i32> {
    call::openat(AT_FDCWD, path, flags | O_CLOEXEC, 0o666)
}

pub fn run(name: &[u8], argument: &CStr, line: Line) {
    match name {
        b"open-read" => line.result(open(argument, O_RDONLY)),
        b"open-write" => line.result(open(argument, O_WRONLY)),
        b"create" => line.result(open(argument, O_WRONLY | O_CREAT)),
        b"list" => list(argument, line),
        b"size" => size(argument, line),
        b"read" => read(argument, line),
        b"mkdir" => line.result(call::mkdirat(AT_FDCWD, argument, 0o755)),
        b"chdir" => line.result(call::chdir(argument)),
        b"walk-up" => walk_up(line),
        b"double-chroot" => line.result(double_chroot()),
        b"mknod" => line.result(call::mknodat(AT_FDCWD, argument, S_IFCHR | 0o666, 0x103)),
        b"mknod-block" => line.result(call::mknodat(AT_FDCWD, argument, 0o060000 | 0o666, 0x800)),
        b"mknod-whiteout" => line.result(call::mknodat(AT_FDCWD, argument, S_IFCHR | 0o666, 0)),
        b"write" => line.result(open(argument, O_WRONLY | 0o2000).and_then(|fd| call::write_all(fd, b"written\n"))),
        b"rename" => line.result(rename(argument)),
        b"by-handle" => line.result(by_handle()),
        b"plant-setuid" => line.result(plant(argument)),
        b"xattr" => line.result(call::setxattr(argument, c"trusted.overlay.opaque", b"y")),
        b"fill" => fill(argument, line),
        b"inodes" => inodes(argument, line),
        b"descriptors" => descriptors(line),
        b"fchdir" => line.result((3..256).find_map(|fd| call::fchdir(fd).ok()).ok_or(Errno::EBADF)),
        _ => line.end(b"no such attempt"),
    }
}

/// A line of /proc/self/status.
pub fn status(key: &CStr, mut line: Line) {
    let mut text = [0u8; 8192];
    let got = open(c"/proc/self/status", O_RDONLY).and_then(|fd| call::read(fd, &mut text));
    let found = text[..got.unwrap_or(0)].split(|b| *b == b'\n').find_map(|l| {
        let rest = l.strip_prefix(key.to_bytes())?.strip_prefix(b":")?;
        Some(rest.trim_ascii())
    });
    line.push(b"");
    match found {
        Some(value) => line.end(value),
        None => line.end(b"absent"),
    }
}

fn size(path: &CStr, line: Line) {
    match call::statx(AT_FDCWD, path, 0) {
        Ok(stat) => line.value(stat.size),
        Err(errno) => line.result::<()>(Err(errno)),
    }
}

/// How many bytes can be read.
fn read(path: &CStr, line: Line) {
    let mut text = [0u8; 4096];
    match open(path, O_RDONLY | O_NONBLOCK).and_then(|fd| call::read(fd, &mut text)) {
        Ok(n) => line.value(n as u64),
        Err(errno) => line.result::<()>(Err(errno)),
    }
}

/// The names in a directory.
fn list(path: &CStr, mut line: Line) {
    let fd = match open(path, O_RDONLY | O_DIRECTORY) {
        Ok(fd) => fd,
        Err(errno) => return line.result::<()>(Err(errno)),
    };
    let mut buffer = [0u8; 4096];
    while let Ok(n @ 1..) = call::getdents64(fd, &mut buffer) {
        let mut at = 0;
        while at < n {
            // struct linux_dirent64: inode, offset, length, type, name
            let length = u16::from_le_bytes([buffer[at + 16], buffer[at + 17]]) as usize;
            let name = buffer[at + 19..at + length].split(|b| *b == 0).next().unwrap_or_default();
            if name != b"." && name != b".." {
                line.push(b" ");
                line.push(name);
            }
            at += length;
        }
    }
    line.end(b"");
}

fn cwd(buffer: &mut [u8; 4096]) -> &[u8] {
    let n = raw(nr::getcwd, &[buffer.as_mut_ptr() as usize, buffer.len()]).unwrap_or(1);
    &buffer[..n.saturating_sub(1)]
}

/// The working directory, and where 40 times `..` leads.
fn walk_up(mut line: Line) {
    let mut buffer = [0u8; 4096];
    line.push(b" ");
    line.push(cwd(&mut buffer));
    for _ in 0..40 {
        let _ = call::chdir(c"..");
    }
    line.end(cwd(&mut buffer));
}

/// Moves a file from one directory to another, which takes a right of its own.
fn rename(path: &CStr) -> Result<usize> {
    call::chdir(path)?;
    let _ = call::mkdirat(AT_FDCWD, c"from", 0o755);
    let _ = call::mkdirat(AT_FDCWD, c"to", 0o755);
    call::mknodat(AT_FDCWD, c"from/file", S_IFREG | 0o644, 0)?;
    let at = AT_FDCWD as isize as usize;
    raw(nr::renameat2, &[at, c"from/file".as_ptr() as usize, at, c"to/file".as_ptr() as usize, 0])
}

/// The classic way out of a chroot.
fn double_chroot() -> Result<()> {
    let root = open(c"/", O_RDONLY | O_DIRECTORY)?;
    let _ = call::mkdirat(AT_FDCWD, c"/tmp/jail", 0o755);
    call::chroot(c"/tmp")?;
    call::fchdir(root)?;
    for _ in 0..40 {
        call::chdir(c"..")?;
    }
    call::chroot(c".").map(drop)
}

/// Reads the root by a handle of its inode (2 in ext4, 128 or so elsewhere): "shocker".
fn by_handle() -> Result<usize> {
    let root = open(c"/", O_RDONLY | O_DIRECTORY)?;
    // struct file_handle: bytes, type, inode and generation
    let handle: [u32; 4] = [8, 1, 2, 0];
    raw(nr::open_by_handle_at, &[root as usize, handle.as_ptr() as usize, O_RDONLY as usize])
}

fn plant(path: &CStr) -> Result<()> {
    let fd = open(path, O_WRONLY | O_CREAT)?;
    call::write_all(fd, b"#!/bin/sh\n")?;
    call::fchmod(fd, 0o6755)?;
    call::close(fd).map(drop)
}

/// Writes until it is refused; tells how many MiB fitted.
fn fill(path: &CStr, line: Line) {
    static BLOCK: [u8; 65536] = [0x5a; 65536];
    let mut written = 0u64;
    let fd = match open(path, O_WRONLY | O_CREAT) {
        Ok(fd) => fd,
        Err(errno) => return line.result::<()>(Err(errno)),
    };
    loop {
        match call::write(fd, &BLOCK) {
            Ok(n) => written += n as u64,
            Err(Errno::ENOSPC) => return line.value(written >> 20),
            Err(errno) => return line.result::<()>(Err(errno)),
        }
        if written > 2 << 30 {
            return line.end(b"without end");
        }
    }
}

/// Makes files until it is refused; tells how many fitted.
fn inodes(path: &CStr, line: Line) {
    if let Err(errno) = call::chdir(path) {
        return line.result::<()>(Err(errno));
    }
    for n in 0..1_000_000u32 {
        let mut name = *b"f0000000\0";
        let mut rest = n;
        for digit in name[1..8].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let made = CStr::from_bytes_with_nul(&name).map(|name| call::mknodat(AT_FDCWD, name, S_IFREG | 0o600, 0));
        match made {
            Ok(Ok(_)) => {}
            Ok(Err(Errno::ENOSPC)) => return line.value(n.into()),
            Ok(Err(errno)) => return line.result::<()>(Err(errno)),
            Err(_) => return line.end(b"no name"),
        }
    }
    line.end(b"without end")
}

/// The numbers that are open.
fn descriptors(mut line: Line) {
    let _ = number(c"0");
    for fd in 0..4096 {
        if call::fcntl(fd, F_GETFD, 0).is_ok() {
            line.push(b" ");
            line.number(fd as u64);
        }
    }
    line.end(b"")
}
