//! Reading a tar archive entry by entry: tar(5), pax(1), and the extensions of GNU tar.
//!
//! The fields of a header are parsed by the `tar` crate; where entries begin and end is
//! decided here, once, and strictly: an archive on whose entries two readers could disagree
//! (a damaged header, a size where no data belongs, data behind the end) is refused.

mod path;
mod sparse;

use super::limits::Stop;
use super::pax::Pax;
use super::skeleton;
use crate::error::Error;
use crate::flaw::FlawKind;
use crate::sys::Errno;
pub(super) use path::{clean, cstring, split};
pub(super) use sparse::{MAX_SEGMENTS, Segments};
use std::io::{self, BufRead, Seek};
use tar::{EntryType, Header};

pub(super) const BLOCK: usize = 512;
/// The most that one extended header may hold: attributes of 64 KiB each are legal.
const MAX_EXTENDED: u64 = 1 << 20;
/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    HardLink,
    Symlink,
    Character,
    Block,
    Directory,
    Fifo,
}

/// One entry, its content still to be read.
#[derive(Debug)]
pub(super) struct Entry {
    /// As the archive spells it.
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: Kind,
    /// Permission bits, set-ids and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    /// The length of the file, holes counted.
    pub size: u64,
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the stored bytes go in a sparse file.
    pub sparse: Option<Segments>,
}

/// An archive being read. What is not the content of a file also goes to the skeleton.
pub(super) struct Archive<R> {
    input: R,
    pub skeleton: Option<skeleton::Writer>,
    global: Pax,
    /// Content of the present entry still to be read, and the padding behind it.
    left: u64,
    padding: usize,
    /// Bytes read in all.
    pub position: u64,
    /// The path of the entry being read, for messages.
    pub path: Option<Vec<u8>>,
}

fn header(detail: impl Into<String>) -> Stop {
    Stop::flaw(FlawKind::Header, detail)
}

fn truncated() -> Stop {
    Stop::flaw(FlawKind::Truncated, "the archive ends in the middle of an entry")
}

/// The reason that a reader of ours put into an I/O error, or the error itself.
pub(super) fn stop(what: &str, error: io::Error) -> Stop {
    match error.downcast::<Carried>() {
        Ok(Carried(stop)) => stop,
        Err(error) => Stop::Error(Error::call(what, Errno::of(error))),
    }
}

/// A reason to stop, carried through `std::io`.
#[derive(Debug)]
pub(super) struct Carried(pub Stop);

impl std::fmt::Display for Carried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for Carried {}

impl<R: BufRead> Archive<R> {
    pub fn new(input: R, skeleton: Option<skeleton::Writer>) -> Archive<R> {
        Archive { input, skeleton, global: Pax::default(), left: 0, padding: 0, position: 0, path: None }
    }

    /// The next entry; `None` at the end of the archive, when all of the input has been read.
    pub fn next(&mut self) -> Result<Option<Entry>, Stop> {
        self.finish_entry()?;
        let mut pax = None::<Pax>;
        let (mut long_path, mut long_link) = (None, None);
        self.path = None;
        loop {
            let Some(block) = self.block()? else {
                return match (&pax, &long_path, &long_link) {
                    (None, None, None) => Ok(None),
                    _ => Err(truncated()),
                };
            };
            if block.iter().all(|b| *b == 0) {
                if pax.is_some() || long_path.is_some() || long_link.is_some() {
                    return Err(header("the archive ends behind an extended header"));
                }
                return self.end().map(|()| None);
            }
            let head = Header::from_byte_slice(&block);
            check_sum(head)?;
            let kind = head.entry_type();
            let size = head.entry_size().map_err(|e| header(e.to_string()))?;
            match kind {
                EntryType::XHeader if pax.is_some() => return Err(header("two pax headers for one entry")),
                EntryType::XHeader => {
                    let mut records = self.global.clone();
                    records.read(&self.extended(size)?)?;
                    pax = Some(records);
                }
                EntryType::XGlobalHeader if pax.is_some() => {
                    return Err(header("a global pax header behind a local one"));
                }
                EntryType::XGlobalHeader => {
                    let bytes = self.extended(size)?;
                    self.global.read(&bytes)?;
                    if self.global.is_of_one_entry() {
                        return Err(header("a global pax header that gives all entries one path, target, size or map"));
                    }
                }
                EntryType::GNULongName if long_path.is_none() => long_path = Some(self.long(size)?),
                EntryType::GNULongLink if long_link.is_none() => long_link = Some(self.long(size)?),
                EntryType::GNULongName | EntryType::GNULongLink => return Err(header("two long names for one entry")),
                _ => {
                    let pax = pax.unwrap_or_else(|| self.global.clone());
                    return self.entry(head, kind, size, pax, long_path, long_link).map(Some);
                }
            }
        }
    }

    fn entry(
        &mut self,
        head: &Header,
        kind: EntryType,
        size: u64,
        pax: Pax,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, Stop> {
        if long_path.is_some() && pax.path.is_some() || long_link.is_some() && pax.link.is_some() {
            return Err(header("two long names for one entry, one of GNU's and one of pax"));
        }
        let mut path = pax.path.or(long_path).unwrap_or_else(|| head.path_bytes().into_owned());
        if let Some(name) = pax.sparse.name.clone() {
            path = name;
        }
        self.path = Some(path.clone());
        let link =
            pax.link.or(long_link).or_else(|| head.link_name_bytes().map(|l| l.into_owned())).unwrap_or_default();
        let number = |field: io::Result<u64>| field.map_err(|e| header(e.to_string()));
        let id = |pax: Option<u64>, field: io::Result<u64>| {
            let id = match pax {
                Some(id) => id,
                None => number(field)?,
            };
            // the last number means "unchanged" to chown(2)
            u32::try_from(id)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| header(format!("the id {id} does not exist")))
        };
        let (uid, gid) = (id(pax.uid, head.uid())?, id(pax.gid, head.gid())?);
        let mtime = match pax.mtime {
            Some(time) => time,
            None => (number(head.mtime())? as i64, 0), // base-256 fields are signed
        };
        let mode = head.mode().map_err(|e| header(e.to_string()))? & 0o7777;
        let stored = pax.size.unwrap_or(size);
        if stored > i64::MAX as u64 {
            return Err(header(format!("the size {stored} does not exist")));
        }
        let kind = match kind {
            EntryType::Regular if path.ends_with(b"/") && head.as_bytes()[156] == 0 => Kind::Directory, // before POSIX
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Link => Kind::HardLink,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Char => Kind::Character,
            EntryType::Block => Kind::Block,
            EntryType::Directory => Kind::Directory,
            EntryType::Fifo => Kind::Fifo,
            other => {
                let byte = other.as_byte();
                return Err(Stop::flaw(FlawKind::Unsupported, format!("an entry of type '{}'", byte.escape_ascii())));
            }
        };
        if kind != Kind::File && stored != 0 {
            return Err(header(format!("{stored} bytes of data for an entry that has none")));
        }
        self.left = stored;
        self.padding = (BLOCK - (stored % BLOCK as u64) as usize) % BLOCK;
        // damaged fields are no device, and 0:0 is refused
        let device = |field: io::Result<Option<u32>>| field.ok().flatten().unwrap_or(0);
        let mut entry = Entry {
            path,
            link,
            kind,
            mode,
            uid,
            gid,
            mtime,
            size: stored,
            device: (device(head.device_major()), device(head.device_minor())),
            xattrs: pax.xattrs,
            sparse: None,
        };
        if let Some((map, size)) = self.sparse(head, pax.sparse)? {
            if kind != Kind::File {
                return Err(header("a sparse map for an entry that is no file"));
            }
            entry.size = size;
            entry.sparse = Some(map);
        }
        Ok(entry)
    }

    /// Reads the content of the present entry, piece by piece. It is not in the skeleton.
    pub fn content(&mut self, mut each: impl FnMut(&[u8]) -> Result<(), Stop>) -> Result<(), Stop> {
        while self.left > 0 {
            let piece = self.input.fill_buf().map_err(|e| stop("read the archive", e))?;
            if piece.is_empty() {
                return Err(truncated());
            }
            let n = piece.len().min(self.left.min(usize::MAX as u64) as usize);
            each(&piece[..n])?;
            self.input.consume(n);
            self.left -= n as u64;
            self.position += n as u64;
        }
        Ok(())
    }

    fn finish_entry(&mut self) -> Result<(), Stop> {
        let mut rest = self.left + self.padding as u64;
        (self.left, self.padding) = (0, 0);
        while rest > 0 {
            rest -= self.pass(rest)?;
        }
        Ok(())
    }

    /// Passes some bytes on to the skeleton; gives how many.
    fn pass(&mut self, most: u64) -> Result<u64, Stop> {
        let piece = self.input.fill_buf().map_err(|e| stop("read the archive", e))?;
        if piece.is_empty() {
            return Err(truncated());
        }
        let n = piece.len().min(most.min(usize::MAX as u64) as usize);
        if let Some(skeleton) = &mut self.skeleton {
            skeleton.raw(&piece[..n])?;
        }
        self.input.consume(n);
        self.position += n as u64;
        Ok(n as u64)
    }

    /// The next block; `None` when the input ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Stop> {
        let mut block = [0; BLOCK];
        let mut have = 0;
        while have < BLOCK {
            let piece = self.input.fill_buf().map_err(|e| stop("read the archive", e))?;
            if piece.is_empty() {
                return if have == 0 { Ok(None) } else { Err(truncated()) };
            }
            let n = piece.len().min(BLOCK - have);
            block[have..have + n].copy_from_slice(&piece[..n]);
            self.input.consume(n);
            have += n;
        }
        self.position += BLOCK as u64;
        if let Some(skeleton) = &mut self.skeleton {
            skeleton.raw(&block)?;
        }
        Ok(Some(block))
    }

    fn extended(&mut self, size: u64) -> Result<Vec<u8>, Stop> {
        if size > MAX_EXTENDED {
            return Err(Stop::flaw(
                FlawKind::TooLarge,
                format!("an extended header of {size} bytes, where {MAX_EXTENDED} are the most"),
            ));
        }
        let mut bytes = Vec::with_capacity((size as usize).next_multiple_of(BLOCK));
        while bytes.len() < size as usize {
            bytes.extend_from_slice(&self.block()?.ok_or_else(truncated)?);
        }
        bytes.truncate(size as usize);
        Ok(bytes)
    }

    fn long(&mut self, size: u64) -> Result<Vec<u8>, Stop> {
        let mut name = self.extended(size)?;
        if name.last() == Some(&0) {
            name.pop();
        }
        if name.contains(&0) {
            return Err(header("a long name that contains a NUL"));
        }
        Ok(name)
    }

    /// Behind the end there may be zeros only: what one reader skips, another unpacks.
    fn end(&mut self) -> Result<(), Stop> {
        while let Some(block) = self.tail()? {
            if block.iter().any(|b| *b != 0) {
                return Err(header("data behind the end of the archive"));
            }
        }
        Ok(())
    }

    /// A block, or less than one at the end of the input.
    fn tail(&mut self) -> Result<Option<Vec<u8>>, Stop> {
        let piece = self.input.fill_buf().map_err(|e| stop("read the archive", e))?;
        if piece.is_empty() {
            return Ok(None);
        }
        let bytes = piece.to_vec();
        self.pass(bytes.len() as u64)?;
        Ok(Some(bytes))
    }
}

impl<R: BufRead + Seek> Archive<R> {
    /// Leaves out the present entry's content, unread.
    pub fn seek_content(&mut self) -> Result<(), Stop> {
        let by = i64::try_from(self.left).map_err(|_| header("a size that does not exist"))?;
        self.input.seek_relative(by).map_err(|e| stop("seek in the archive", e))?;
        self.position += self.left;
        self.left = 0;
        Ok(())
    }
}

fn check_sum(head: &Header) -> Result<(), Stop> {
    let bytes = head.as_bytes();
    let outside = |i: usize| !(148..156).contains(&i);
    let sum: u32 = bytes.iter().enumerate().map(|(i, b)| if outside(i) { u32::from(*b) } else { 32 }).sum();
    // some old programs summed signed characters
    let signed: i32 = bytes.iter().enumerate().map(|(i, b)| if outside(i) { i32::from(*b as i8) } else { 32 }).sum();
    match head.cksum() {
        Ok(told) if told == sum || i64::from(told) == i64::from(signed) => Ok(()),
        _ => Err(header("the checksum of a header is wrong")),
    }
}

impl Archive<super::decode::Chunks> {
    /// What is known when the archive has been read.
    pub fn ends(&self) -> Option<super::decode::Ends> {
        self.input.ends
    }
}
