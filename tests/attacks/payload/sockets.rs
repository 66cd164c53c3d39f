//! Attempts on sockets.

use crate::attempts::{nr, number, raw};
use crate::say::Line;
use crate::sys::kernel::{Errno, Result, call};
use core::ffi::CStr;

/// `socket=FAMILY,TYPE,PROTOCOL`.
pub fn socket(argument: &CStr, line: Line) {
    let mut numbers = [0usize; 3];
    for (to, text) in numbers.iter_mut().zip(argument.to_bytes().split(|b| *b == b',')) {
        *to = text.iter().fold(0, |n, d| n * 10 + usize::from(d.wrapping_sub(b'0')));
    }
    line.result(raw(crate::sys::kernel::raw::nr::socket, &numbers))
}

fn connect(fd: i32, address: &[u8]) -> Result<usize> {
    let answer = raw(nr::connect, &[fd as usize, address.as_ptr() as usize, address.len()]);
    call::close(fd)?;
    answer
}

pub fn connect_unix(path: &CStr, is_abstract: bool) -> Result<usize> {
    let (address, len) = unix(path, is_abstract)?;
    connect(call::socket(1, 1, 0)?, &address[..len])
}

/// Listens there for as long as this process lives.
pub fn listen_unix(path: &CStr) -> Result<usize> {
    let (address, len) = unix(path, false)?;
    let fd = call::socket(1, 1, 0)? as usize;
    raw(nr::bind, &[fd, address.as_ptr() as usize, len])?;
    raw(nr::listen, &[fd, 8])
}

fn unix(path: &CStr, is_abstract: bool) -> Result<([u8; 110], usize)> {
    let mut address = [0u8; 110];
    address[0] = 1;
    let at = 2 + usize::from(is_abstract);
    let path = path.to_bytes();
    address.get_mut(at..at + path.len()).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(path);
    // of an abstract name the length counts
    let len = at + path.len() + usize::from(!is_abstract);
    Ok((address, len))
}

/// The loopback address, or 169.254.169.254 with a negative port.
pub fn connect_ipv4(port: &CStr) -> Result<usize> {
    let port = number(port);
    let host: [u8; 4] = if port < 0 { [169, 254, 169, 254] } else { [127, 0, 0, 1] };
    connect(call::socket(2, 1, 0)?, &ipv4(host, port.unsigned_abs() as u16))
}

fn ipv4(host: [u8; 4], port: u16) -> [u8; 16] {
    let [high, low] = port.to_be_bytes();
    [2, 0, high, low, host[0], host[1], host[2], host[3], 0, 0, 0, 0, 0, 0, 0, 0]
}

/// A socket filter that takes everything, set by this option.
pub fn filter(option: i64) -> Result<usize> {
    let fd = call::socket(2, 2, 0)?;
    // struct sock_filter: BPF_RET | BPF_K, all; struct sock_fprog: length, pointer
    let program = [0xffff_ffff_0000_0006u64];
    let fprog = [1usize, program.as_ptr() as usize];
    let answer = raw(nr::setsockopt, &[fd as usize, 1, option as usize, fprog.as_ptr() as usize, 16]);
    call::close(fd)?;
    answer
}

/// One datagram to the loopback address.
pub fn send_udp(port: &CStr) -> Result<usize> {
    let fd = call::socket(2, 2, 0)?;
    let address = ipv4([127, 0, 0, 1], number(port) as u16);
    let text = b"x";
    let answer = raw(
        nr::sendto,
        &[fd as usize, text.as_ptr() as usize, text.len(), 0, address.as_ptr() as usize, address.len()],
    );
    call::close(fd)?;
    answer.map(|_| 0)
}

/// A port of UDP for oneself; 0 for one that the kernel chooses.
pub fn bind_udp(port: &CStr) -> Result<usize> {
    let fd = call::socket(2, 2, 0)?;
    let address = ipv4([127, 0, 0, 1], number(port) as u16);
    let answer = raw(nr::bind, &[fd as usize, address.as_ptr() as usize, address.len()]);
    call::close(fd)?;
    answer
}

/// fe80::1 on interface 2.
pub fn connect_ipv6(port: &CStr) -> Result<usize> {
    let [high, low] = (number(port) as u16).to_be_bytes();
    let mut address = [0u8; 28];
    address[..4].copy_from_slice(&[10, 0, high, low]);
    address[8..10].copy_from_slice(&[0xfe, 0x80]);
    address[23] = 1;
    address[24] = 2;
    connect(call::socket(10, 1, 0)?, &address)
}
