//! Sparse files: the five formats in which GNU tar has written them ("Storing Sparse Files" in its manual).

use super::super::limits::Stop;
use super::super::pax::{SparsePax, decimal};
use super::{Archive, BLOCK, header, truncated};
use crate::flaw::FlawKind;
use std::io::{self, BufRead};
use tar::{EntryType, GnuExtSparseHeader, Header};

/// Pieces of one sparse file.
pub(in crate::image) const MAX_SEGMENTS: usize = 1 << 18;

/// Where the stored bytes of a sparse file go: offset and length of each piece.
pub(in crate::image) type Segments = Vec<(u64, u64)>;

impl<R: BufRead> Archive<R> {
    /// The map and the length of the present entry, if it is a sparse file. What of the map is behind the header is read.
    pub(super) fn sparse(&mut self, head: &Header, pax: SparsePax) -> Result<Option<(Segments, u64)>, Stop> {
        let gnu = head.entry_type() == EntryType::GNUSparse;
        let (map, size) = match (gnu, pax.is_sparse(), pax.major) {
            (false, false, _) => return Ok(None),
            (true, true, _) => return Err(header("two formats of sparse file in one entry")),
            (true, false, _) => self.old_sparse(head)?,
            (false, true, Some(1)) => (self.sparse_map()?, pax.size),
            (false, true, None | Some(0)) => (pax.map, pax.size),
            (false, true, Some(other)) => {
                return Err(Stop::flaw(FlawKind::Unsupported, format!("a sparse file of format {other}")));
            }
        };
        let size = size.ok_or_else(|| header("a sparse file without a size"))?;
        check(&map, size, self.left)?;
        Ok(Some((map, size)))
    }

    /// The map of GNU tar's first format: in the header, and in blocks behind it.
    fn old_sparse(&mut self, head: &Header) -> Result<(Segments, Option<u64>), Stop> {
        let gnu = head.as_gnu().ok_or_else(|| header("a sparse file whose header is not GNU's"))?;
        let mut map = Vec::new();
        let mut add = |offset: io::Result<u64>, length: io::Result<u64>| match (offset, length) {
            (Ok(offset), Ok(length)) => {
                map.push((offset, length));
                Ok(())
            }
            _ => Err(header("the map of a sparse file is damaged")),
        };
        gnu.sparse.iter().filter(|s| !s.is_empty()).try_for_each(|s| add(s.offset(), s.length()))?;
        let mut more = gnu.is_extended();
        let mut blocks = 0;
        while more {
            blocks += 1;
            if blocks > MAX_SEGMENTS / 21 {
                return Err(Stop::flaw(FlawKind::TooLarge, "a sparse file in too many pieces"));
            }
            let mut extension = GnuExtSparseHeader::new();
            extension.as_mut_bytes().copy_from_slice(&self.block()?.ok_or_else(truncated)?);
            extension.sparse().iter().filter(|s| !s.is_empty()).try_for_each(|s| add(s.offset(), s.length()))?;
            more = extension.is_extended();
        }
        Ok((map, Some(gnu.real_size().map_err(|e| header(e.to_string()))?)))
    }

    /// The map of format 1.0: decimal lines before the data, padded to a block.
    fn sparse_map(&mut self) -> Result<Segments, Stop> {
        let mut text = Vec::new();
        let mut at = 0;
        let mut number = |archive: &mut Self| -> Result<u64, Stop> {
            loop {
                if let Some(end) = text[at..].iter().position(|b| *b == b'\n') {
                    let value = decimal(&text[at..at + end]);
                    at += end + 1;
                    return value.ok_or_else(|| header("the map of a sparse file is damaged"));
                }
                // 20 digits are the most: a longer line would be searched anew with each block
                if archive.left < BLOCK as u64 || text.len() - at > BLOCK {
                    return Err(header("the map of a sparse file has no end"));
                }
                archive.left -= BLOCK as u64;
                let block = archive.block()?.ok_or_else(truncated)?;
                text.extend_from_slice(&block);
            }
        };
        let count = number(self)?;
        if count > MAX_SEGMENTS as u64 {
            return Err(Stop::flaw(FlawKind::TooLarge, "a sparse file in too many pieces"));
        }
        let mut map = Vec::new();
        for _ in 0..count {
            map.push((number(self)?, number(self)?));
        }
        Ok(map)
    }
}

/// The pieces follow each other within the file, and are as long as the data that is stored.
fn check(map: &[(u64, u64)], size: u64, stored: u64) -> Result<(), Stop> {
    let mut end = 0;
    let mut sum = 0u64;
    for &(offset, length) in map {
        let after = offset.checked_add(length).filter(|after| *after <= size);
        end = match after {
            Some(after) if offset >= end => after,
            _ => return Err(header("the map of a sparse file overlaps or exceeds it")),
        };
        sum += length;
    }
    if sum == stored { Ok(()) } else { Err(header("the map of a sparse file does not fit its data")) }
}
