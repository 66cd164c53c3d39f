//! What of a layer's archive is not file content: headers, padding, end.
//!
//! Together with the tree it gives the archive back, byte for byte, so that a layer is
//! stored once, can be verified against its diff-id, and is exported as it came. The file is
//! gzip; in it records of a tag byte:
//!
//! ```text
//! R  u32 length, bytes                              these bytes
//! F  u16 length, path, u32 count, (u64, u64)…       the file at path: offset and length of each piece
//! ```
//! Numbers are little-endian.

use super::io_error;
use super::limits::Stop;
use crate::error::{Error, ErrorKind, Result};
use crate::sys;
use crate::sys::path::OpenFlags;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Records are cut here.
const MAX_RAW: usize = 64 * 1024;

pub(super) struct Writer {
    out: GzEncoder<BufWriter<File>>,
    raw: Vec<u8>,
}

fn failed(e: io::Error) -> Stop {
    Stop::Error(io_error("write the skeleton of a layer", &e))
}

impl Writer {
    pub fn create(path: &Path) -> Result<Writer> {
        let file = File::create_new(path).map_err(|e| io_error(format!("make {}", path.display()), &e))?;
        Ok(Writer { out: GzEncoder::new(BufWriter::new(file), Compression::fast()), raw: Vec::with_capacity(MAX_RAW) })
    }

    pub fn raw(&mut self, mut bytes: &[u8]) -> Result<(), Stop> {
        while !bytes.is_empty() {
            let n = bytes.len().min(MAX_RAW - self.raw.len());
            self.raw.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if self.raw.len() == MAX_RAW {
                self.flush_raw()?;
            }
        }
        Ok(())
    }

    fn flush_raw(&mut self) -> Result<(), Stop> {
        if !self.raw.is_empty() {
            self.out.write_all(b"R").map_err(failed)?;
            self.out.write_all(&(self.raw.len() as u32).to_le_bytes()).map_err(failed)?;
            self.out.write_all(&self.raw).map_err(failed)?;
            self.raw.clear();
        }
        Ok(())
    }

    /// The content of the file at this path of the tree belongs here.
    pub fn content(&mut self, path: &[u8], pieces: &[(u64, u64)]) -> Result<(), Stop> {
        self.flush_raw()?;
        let mut record = vec![b'F'];
        record.extend_from_slice(&(path.len() as u16).to_le_bytes());
        record.extend_from_slice(path);
        record.extend_from_slice(&(pieces.len() as u32).to_le_bytes());
        for (offset, length) in pieces {
            record.extend_from_slice(&offset.to_le_bytes());
            record.extend_from_slice(&length.to_le_bytes());
        }
        self.out.write_all(&record).map_err(failed)
    }

    pub fn finish(mut self) -> Result<(), Stop> {
        self.flush_raw()?;
        self.out.finish().and_then(|mut file| file.flush()).map_err(failed)
    }
}

/// Writes the archive of a layer, from its skeleton and its tree.
pub(super) fn assemble(skeleton: &Path, tree: BorrowedFd<'_>, out: &mut dyn Write) -> Result<()> {
    let file = File::open(skeleton).map_err(|e| io_error(format!("open {}", skeleton.display()), &e))?;
    let mut input = BufReader::new(GzDecoder::new(BufReader::new(file)));
    let damaged = |e: io::Error| match e.raw_os_error() {
        Some(_) => io_error(format!("read {}", skeleton.display()), &e),
        None => Error::new(ErrorKind::InvalidImage, format!("read {}: {e}", skeleton.display()))
            .with_hint("to remove the image and import it again: the store is damaged"),
    };
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let mut tag = [0];
        match input.read(&mut tag) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e) => return Err(damaged(e)),
        }
        match tag[0] {
            b'R' => {
                let len = u32::from_le_bytes(array(&mut input).map_err(damaged)?) as usize;
                let bytes = buffer.get_mut(..len).ok_or_else(|| damaged(io::Error::other("a record is too long")))?;
                input.read_exact(bytes).map_err(damaged)?;
                out.write_all(bytes).map_err(written)?;
            }
            b'F' => {
                let mut path = vec![0; u16::from_le_bytes(array(&mut input).map_err(damaged)?) as usize];
                input.read_exact(&mut path).map_err(damaged)?;
                let count = u32::from_le_bytes(array(&mut input).map_err(damaged)?);
                let file = open_content(tree, &path)?;
                for _ in 0..count {
                    let offset = u64::from_le_bytes(array(&mut input).map_err(damaged)?);
                    let length = u64::from_le_bytes(array(&mut input).map_err(damaged)?);
                    copy(&file, &path, offset, length, &mut buffer, out)?;
                }
            }
            _ => return Err(damaged(io::Error::other("an unknown record"))),
        }
    }
}

fn written(e: io::Error) -> Error {
    io_error("write an archive", &e)
}

fn array<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes).map(|()| bytes)
}

/// Opens a regular file of a tree, beneath it and through no link.
pub(super) fn open_content(tree: BorrowedFd<'_>, path: &[u8]) -> Result<File> {
    let name = CString::new(path).unwrap_or_default();
    sys::tree::open_beneath(tree, &name, OpenFlags::default(), true)
        .map(File::from)
        .map_err(|errno| Error::call(format!("open {} of a layer", path.escape_ascii()), errno))
}

fn copy(file: &File, path: &[u8], mut at: u64, length: u64, buffer: &mut [u8], out: &mut dyn Write) -> Result<()> {
    let end = at + length;
    while at < end {
        let most = buffer.len().min((end - at).min(usize::MAX as u64) as usize);
        let n = file.read_at(&mut buffer[..most], at).map_err(|e| io_error("read a file of a layer", &e))?;
        if n == 0 {
            return Err(Error::new(
                ErrorKind::InvalidImage,
                format!("read {} of a layer: it is shorter than its archive says", path.escape_ascii()),
            )
            .with_hint("to remove the image and import it again: the store was changed by somebody else"));
        }
        out.write_all(&buffer[..n]).map_err(written)?;
        at += n as u64;
    }
    Ok(())
}
