//! Extended headers: pax(1) "pax Header Block", with the records of GNU tar and star.

use super::archive::MAX_SEGMENTS;
use super::limits::Stop;
use crate::flaw::FlawKind;

/// The attributes of one entry, and what they may hold, names and values. The kernel lists no more than
/// 64 KiB of names (XATTR_LIST_MAX), and ext4 keeps a few KiB in all.
const MAX_ATTRIBUTES: usize = 4096;
const MAX_ATTRIBUTE_BYTES: usize = 1 << 20;

/// What pax records say of an entry. Absent fields are the header's.
#[derive(Clone, Debug, Default)]
pub(super) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<(i64, u32)>,
    /// `SCHILY.xattr.NAME`.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: SparsePax,
}

/// GNU tar's formats 0.0, 0.1 and 1.0 of sparse files.
#[derive(Clone, Debug, Default)]
pub(super) struct SparsePax {
    pub major: Option<u64>,
    pub minor: Option<u64>,
    pub name: Option<Vec<u8>>,
    pub size: Option<u64>,
    /// Pairs of offset and length, in formats 0.0 and 0.1.
    pub map: Vec<(u64, u64)>,
    offset: Option<u64>,
}

impl SparsePax {
    pub fn is_sparse(&self) -> bool {
        self.size.is_some() || self.major.is_some() || !self.map.is_empty() || self.offset.is_some()
    }
}

fn bad(detail: impl Into<String>) -> Stop {
    Stop::flaw(FlawKind::Header, detail)
}

/// A number in decimal digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with an optional sign and fraction, as (seconds, nanoseconds), rounded down.
pub(super) fn timestamp(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|b| *b == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let digit = |i: usize| fraction.get(i).map_or(0, |b| u32::from(b - b'0'));
    let nanos = (0..9).fold(0, |sum, i| sum * 10 + digit(i));
    Some(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

impl Pax {
    /// Whether it says what only one entry can have.
    pub fn is_of_one_entry(&self) -> bool {
        self.path.is_some()
            || self.link.is_some()
            || self.size.is_some()
            || self.sparse.is_sparse()
            || self.sparse.name.is_some()
    }

    /// Adds the records of one header. Strict: what a lenient reader would skip, another
    /// would take for something else.
    pub fn read(&mut self, mut bytes: &[u8]) -> Result<(), Stop> {
        while !bytes.is_empty() {
            let space =
                bytes.iter().take(20).position(|b| *b == b' ').ok_or_else(|| bad("a pax record has no length"))?;
            let len = decimal(&bytes[..space]).and_then(|len| usize::try_from(len).ok());
            let len = len.filter(|len| *len > space + 1 && *len <= bytes.len());
            let record = &bytes[..len.ok_or_else(|| bad("a pax record has a wrong length"))?];
            bytes = &bytes[record.len()..];
            let record = record[space + 1..].strip_suffix(b"\n").ok_or_else(|| bad("a pax record has no end"))?;
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(|| bad("a pax record has no value"))?;
            self.record(&record[..equals], &record[equals + 1..])?;
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), Stop> {
        let number =
            || decimal(value).ok_or_else(|| bad(format!("the pax record {} is no number", key.escape_ascii())));
        // an empty value takes an earlier one back
        let optional = || if value.is_empty() { Ok(None) } else { number().map(Some) };
        let text = (!value.is_empty()).then(|| value.to_vec());
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            self.xattrs.retain(|(known, _)| known != name);
            self.xattrs.push((name.to_vec(), value.to_vec()));
            let bytes: usize = self.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
            if self.xattrs.len() > MAX_ATTRIBUTES || bytes > MAX_ATTRIBUTE_BYTES {
                return Err(Stop::flaw(FlawKind::TooLarge, "more attributes than a file can have"));
            }
            return Ok(());
        }
        match key {
            b"path" => self.path = text,
            b"linkpath" => self.link = text,
            b"size" => self.size = optional()?,
            b"uid" => self.uid = optional()?,
            b"gid" => self.gid = optional()?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(timestamp(value).ok_or_else(|| bad("the pax record mtime is no time"))?),
            b"GNU.sparse.major" => self.sparse.major = Some(number()?),
            b"GNU.sparse.minor" => self.sparse.minor = Some(number()?),
            b"GNU.sparse.name" => self.sparse.name = text,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = Some(number()?),
            b"GNU.sparse.offset" => self.sparse.offset = Some(number()?),
            b"GNU.sparse.numbytes" => {
                let offset = self.sparse.offset.take().ok_or_else(|| bad("a pax sparse map without an offset"))?;
                self.sparse.map.push((offset, number()?));
                if self.sparse.map.len() > MAX_SEGMENTS {
                    return Err(Stop::flaw(FlawKind::TooLarge, "a sparse file in too many pieces"));
                }
            }
            b"GNU.sparse.map" => self.sparse.map = pairs(value)?,
            b"SCHILY.realsize" => {
                return Err(Stop::flaw(FlawKind::Unsupported, "a sparse file in the format of star"));
            }
            _ => {} // atime, ctime, uname, gname, comment, hdrcharset, ACLs as text, …
        }
        Ok(())
    }
}

fn pairs(value: &[u8]) -> Result<Vec<(u64, u64)>, Stop> {
    let numbers: Option<Vec<u64>> = value.split(|b| *b == b',').map(decimal).collect();
    match numbers {
        Some(numbers) if numbers.len() % 2 == 0 => Ok(numbers.chunks(2).map(|pair| (pair[0], pair[1])).collect()),
        _ => Err(bad("the pax sparse map is no list of pairs")),
    }
}

/// One record, for writing: its length counts itself.
pub(super) fn record(key: &[u8], value: &[u8], to: &mut Vec<u8>) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    to.extend_from_slice(len.to_string().as_bytes());
    for part in [b" ", key, b"=", value, b"\n"] {
        to.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Pax, Stop> {
        let mut pax = Pax::default();
        pax.read(bytes).map(|()| pax)
    }

    #[test]
    fn records_are_read_as_written() {
        for len in [1, 2, 80, 90, 91, 92, 93, 94, 95, 96, 985, 990, 995, 5000] {
            let mut bytes = Vec::new();
            record(b"path", &vec![b'x'; len], &mut bytes);
            record(b"size", b"7", &mut bytes);
            let pax = read(&bytes).unwrap();
            assert_eq!((pax.path.unwrap().len(), pax.size), (len, Some(7)));
        }
    }

    #[test]
    fn what_is_not_strict_is_refused() {
        for bytes in [
            &b"8 path=x\n"[..],
            b"11 path=x\n",
            b"x path=x\n",
            b"+10 path=x\n",
            b"8 pathx\n",
            b"9 path=x\0",
            b"3 \n",
            b"10 size=-1\n",
        ] {
            assert!(read(bytes).is_err(), "{}", bytes.escape_ascii());
        }
        assert!(read(b"9 path=x\n").is_ok() && read(b"10 path=x\n").is_ok());
    }

    #[test]
    fn times_have_signs_and_fractions() {
        let cases = [("1.5", Some((1, 500_000_000))), ("-1.25", Some((-2, 750_000_000))), ("-3", Some((-3, 0)))];
        for (text, time) in cases.into_iter().chain([
            ("", None),
            ("1e3", None),
            ("1.x", None),
            ("0.1234567899", Some((0, 123_456_789))),
        ]) {
            assert_eq!(timestamp(text.as_bytes()), time, "{text}");
        }
    }
}
