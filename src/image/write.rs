//! Writing a tar archive that is the same for the same tree: ustar with pax records only where
//! ustar cannot say it, names of users and groups left out (POSIX.1-2017, pax, "ustar Interchange Format").

use super::archive::BLOCK;
use super::io_error;
use super::pax;
use crate::error::Result;
use std::io::{self, Read, Write};
use tar::{EntryType, Header};

/// Numbers beyond go into pax records: what the octal fields hold.
const MAX_ID: u64 = 0o7777777;
const MAX_SIZE: u64 = 0o77777777777;

/// One entry to write.
pub(super) struct Item<'a> {
    pub path: &'a [u8],
    pub kind: EntryType,
    pub link: &'a [u8],
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: (i64, u32),
    pub device: (u32, u32),
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

impl Default for Item<'_> {
    fn default() -> Self {
        Item {
            path: b"",
            kind: EntryType::Regular,
            link: b"",
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (0, 0),
            device: (0, 0),
            xattrs: &[],
        }
    }
}

pub(super) struct Writer<W> {
    out: W,
}

fn failed(e: io::Error) -> crate::error::Error {
    io_error("write an archive", &e)
}

impl<W: Write> Writer<W> {
    pub fn new(out: W) -> Writer<W> {
        Writer { out }
    }

    /// An entry; of a file, the content follows from `content`, which must have `item.size` bytes.
    pub fn entry(&mut self, item: &Item<'_>, content: Option<&mut dyn Read>) -> Result<()> {
        let mut records = Vec::new();
        let mut path = item.path.to_vec();
        if item.kind == EntryType::Directory && !path.ends_with(b"/") {
            path.push(b'/');
        }
        if path.len() > 100 {
            pax::record(b"path", &path, &mut records);
        }
        if item.link.len() > 100 {
            pax::record(b"linkpath", item.link, &mut records);
        }
        for (key, number, most) in
            [(&b"uid"[..], item.uid.into(), MAX_ID), (b"gid", item.gid.into(), MAX_ID), (b"size", item.size, MAX_SIZE)]
        {
            if number > most {
                pax::record(key, number.to_string().as_bytes(), &mut records);
            }
        }
        let (seconds, nanos) = item.mtime;
        let plain = u64::try_from(seconds).is_ok_and(|seconds| seconds <= MAX_SIZE);
        if nanos != 0 || !plain {
            pax::record(b"mtime", time(seconds, nanos).as_bytes(), &mut records);
        }
        for (name, value) in item.xattrs {
            pax::record(&[b"SCHILY.xattr.", name.as_slice()].concat(), value, &mut records);
        }
        if !records.is_empty() {
            let mut header = head(EntryType::XHeader, b"PaxHeaders/x", b"", records.len() as u64);
            header.set_mode(0o644);
            self.put(header)?;
            self.data(&records)?;
        }
        let mut header = head(item.kind, &path, item.link, item.size.min(MAX_SIZE));
        header.set_mode(item.mode);
        header.set_uid(u64::from(item.uid).min(MAX_ID));
        header.set_gid(u64::from(item.gid).min(MAX_ID));
        header.set_mtime(if plain { seconds as u64 } else { 0 });
        if matches!(item.kind, EntryType::Char | EntryType::Block) {
            let (major, minor) = item.device;
            header.set_device_major(major).and_then(|()| header.set_device_minor(minor)).map_err(failed)?;
        }
        self.put(header)?;
        match content {
            None => Ok(()),
            Some(content) => {
                let copied = io::copy(&mut content.take(item.size), &mut self.out).map_err(failed)?;
                if copied != item.size {
                    return Err(failed(io::Error::other(format!(
                        "\"{}\" became shorter while it was read",
                        item.path.escape_ascii()
                    ))));
                }
                self.pad(item.size)
            }
        }
    }

    /// A regular file of these bytes.
    pub fn bytes(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        let item = Item { path: path.as_bytes(), size: bytes.len() as u64, ..Item::default() };
        self.entry(&item, Some(&mut &*bytes))
    }

    fn put(&mut self, mut header: Header) -> Result<()> {
        header.set_cksum();
        self.out.write_all(header.as_bytes()).map_err(failed)
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(failed)?;
        self.pad(bytes.len() as u64)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let padding = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
        self.out.write_all(&[0; BLOCK][..padding]).map_err(failed)
    }

    /// The end of the archive.
    pub fn finish(mut self) -> Result<W> {
        self.out.write_all(&[0; 2 * BLOCK]).and_then(|()| self.out.flush()).map_err(failed)?;
        Ok(self.out)
    }
}

fn head(kind: EntryType, path: &[u8], link: &[u8], size: u64) -> Header {
    let mut header = Header::new_ustar();
    let bytes = header.as_mut_bytes();
    let (path, link) = (&path[..path.len().min(100)], &link[..link.len().min(100)]);
    bytes[..path.len()].copy_from_slice(path);
    bytes[157..157 + link.len()].copy_from_slice(link);
    header.set_entry_type(kind);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

fn time(seconds: i64, nanos: u32) -> String {
    match (seconds, nanos) {
        (_, 0) => seconds.to_string(),
        (0.., _) => format!("{seconds}.{nanos:09}").trim_end_matches('0').to_owned(),
        // towards zero: -2 s and 0.75 s is -1.25
        (_, _) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos).trim_end_matches('0').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_written() {
        for time_of in
            [(0, 0), (5, 0), (5, 1), (5, 500_000_000), (-1, 0), (-2, 750_000_000), (-1, 999_999_999), (1 << 40, 7)]
        {
            let text = time(time_of.0, time_of.1);
            assert_eq!(pax::timestamp(text.as_bytes()), Some(time_of), "{text}");
        }
    }
}
