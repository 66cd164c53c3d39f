//! Reading a layer's bytes: hashed as they come, decompressed, hashed again.
//!
//! One thread does that for one layer and hands the archive's bytes in chunks to the thread
//! that unpacks; a few chunks are under way at a time, so memory is bounded.

use super::archive::Carried;
use super::digest::{Digest, Hashing};
use super::limits::{Deadline, FREE_EXPANSION, Limits, Stop};
use crate::error::Error;
use crate::flaw::FlawKind;
use crate::sys::Errno;
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

const CHUNK: usize = 256 * 1024;
/// Chunks between the two threads.
const CHUNKS: usize = 6;
/// The largest window of a zstd frame: what RFC 8878 asks every decoder to support.
const ZSTD_WINDOW: u64 = 8 << 20;

/// What the decoding thread sends.
enum Message {
    Data(Vec<u8>),
    End(Ends),
    Failed(Stop),
}

/// What is known when all has been read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// Of the bytes as they are in the source.
    pub compressed: Digest,
    /// Of the archive: the layer's diff-id.
    pub plain: Digest,
    pub plain_bytes: u64,
}

/// The archive's bytes, for the unpacking thread.
pub(super) struct Chunks {
    messages: Receiver<Message>,
    back: SyncSender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
    pub ends: Option<Ends>,
}

/// The other end, for the decoding thread.
pub(super) struct Feed {
    messages: SyncSender<Message>,
    back: Receiver<Vec<u8>>,
}

pub(super) fn channel() -> (Feed, Chunks) {
    let (to, messages) = sync_channel(CHUNKS);
    let (back, from) = sync_channel(CHUNKS + 2);
    (Feed { messages: to, back: from }, Chunks { messages, back, chunk: Vec::new(), at: 0, ends: None })
}

impl Feed {
    /// Reads all of `source`. Ends early when nobody unpacks any more.
    pub fn run(self, source: impl Read, limits: &Limits, progress: &mut dyn FnMut(u64)) {
        match self.pump(source, limits, progress) {
            Ok(Some(ends)) => drop(self.messages.send(Message::End(ends))),
            Ok(None) => {} // the unpacking thread has stopped, and knows why
            Err(stop) => drop(self.messages.send(Message::Failed(stop))),
        }
    }

    fn pump(&self, source: impl Read, limits: &Limits, progress: &mut dyn FnMut(u64)) -> Result<Option<Ends>, Stop> {
        let deadline = Deadline::new(limits);
        let source = Hashing::new(Timed { inner: source, deadline });
        let mut decoder = Decoder::new(BufReader::with_capacity(CHUNK, source))?;
        let mut plain = Hashing::new(());
        loop {
            let mut chunk = self.back.try_recv().unwrap_or_else(|_| vec![0; CHUNK]);
            chunk.resize(CHUNK, 0);
            let mut have = 0;
            while have < CHUNK {
                match decoder.read(&mut chunk[have..]) {
                    Ok(0) => break,
                    Ok(n) => have += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => {
                        deadline.check()?; // a decompressor may have wrapped what the source said
                        return Err(broken(e));
                    }
                }
            }
            chunk.truncate(have);
            plain.update(&chunk);
            let read = decoder.source().count;
            if plain.count > limits.bytes.get() {
                return Err(Stop::flaw(FlawKind::TooLarge, format!("more than {}", limits.bytes)));
            }
            if plain.count > FREE_EXPANSION && plain.count / limits.expansion.max(1) > read {
                let detail = format!("{} bytes from {read}, more than {} times as many", plain.count, limits.expansion);
                return Err(Stop::flaw(FlawKind::Expansion, detail));
            }
            deadline.check()?;
            progress(read);
            if have == 0 {
                let source = decoder.source();
                return Ok(Some(Ends { compressed: source.digest(), plain: plain.digest(), plain_bytes: plain.count }));
            }
            if self.messages.send(Message::Data(chunk)).is_err() {
                return Ok(None);
            }
        }
    }
}

fn broken(e: io::Error) -> Stop {
    match e.raw_os_error() {
        Some(errno) => Stop::Error(Error::call("read a layer", Errno(errno))),
        None => Stop::flaw(FlawKind::Compression, format!("the compressed stream is damaged: {e}")),
    }
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.chunk.len() && self.ends.is_none() {
            // full only when the other thread has gone: it needs none then
            let _ = self.back.try_send(std::mem::take(&mut self.chunk));
            self.at = 0;
            match self.messages.recv() {
                Ok(Message::Data(chunk)) => self.chunk = chunk,
                Ok(Message::End(ends)) => self.ends = Some(ends),
                Ok(Message::Failed(stop)) => return Err(io::Error::other(Carried(stop))),
                Err(_) => return Err(io::Error::other("the decoding thread has ended")),
            }
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let n = piece.len().min(buffer.len());
        buffer[..n].copy_from_slice(&piece[..n]);
        self.consume(n);
        Ok(n)
    }
}

/// A source that ends at a deadline: a decompressor may read on and on and give nothing
/// (empty members of gzip, frames of zstd to be skipped).
struct Timed<R> {
    inner: R,
    deadline: Deadline,
}

impl<R: Read> Read for Timed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.deadline.check().map_err(|stop| io::Error::other(Carried(stop)))?;
        self.inner.read(buffer)
    }
}

type Source<R> = BufReader<Hashing<R>>;

/// A decompressor, by the stream's own first bytes: media types are often wrong.
enum Decoder<R: Read> {
    Plain(Source<R>),
    Gzip(Box<MultiGzDecoder<Source<R>>>),
    Zstd(Frames<Source<R>>),
}

/// Whether these first bytes are of a compressed stream.
pub(super) fn is_compressed(first: &[u8]) -> bool {
    first.starts_with(&[0x1f, 0x8b]) || first.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skippable(first)
}

fn is_skippable(first: &[u8]) -> bool {
    first.len() >= 4 && first[0] & 0xf0 == 0x50 && first[1..4] == [0x2a, 0x4d, 0x18]
}

impl<R: Read> Decoder<R> {
    fn new(mut source: Source<R>) -> Result<Decoder<R>, Stop> {
        let first = source.fill_buf().map_err(broken)?;
        let other = [(&b"\xfd7zXZ"[..], "xz"), (b"BZh", "bzip2"), (b"\x04\x22\x4d\x18", "lz4")];
        if let Some((_, name)) = other.iter().find(|(magic, _)| first.starts_with(magic)) {
            return Err(Stop::flaw(FlawKind::Compression, format!("{name} is not supported, gzip and zstd are")));
        }
        Ok(if first.starts_with(&[0x1f, 0x8b]) {
            Decoder::Gzip(Box::new(MultiGzDecoder::new(source)))
        } else if is_compressed(first) {
            let mut decoder = FrameDecoder::new();
            decoder.set_max_window_size(ZSTD_WINDOW);
            Decoder::Zstd(Frames { decoder: Box::new(decoder), source, open: false })
        } else {
            Decoder::Plain(source)
        })
    }

    fn source(&self) -> &Hashing<R> {
        match self {
            Decoder::Plain(source) => source.get_ref(),
            Decoder::Gzip(decoder) => decoder.get_ref().get_ref(),
            Decoder::Zstd(frames) => frames.source.get_ref(),
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Plain(source) => source.read(buffer),
            Decoder::Gzip(decoder) => decoder.read(buffer),
            Decoder::Zstd(frames) => frames.read(buffer),
        }
    }
}

/// All frames of a zstd stream, one behind the other; skippable ones are skipped
/// (RFC 8878; zstd:chunked puts its table of contents into one).
struct Frames<R> {
    decoder: Box<FrameDecoder>,
    source: R,
    open: bool,
}

impl<R: BufRead> Frames<R> {
    /// Begins the next frame; false at the end of the stream.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => {
                    self.open = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = io::copy(&mut (&mut self.source).take(length.into()), &mut io::sink())?;
                    if skipped < length.into() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(e) => return Err(io::Error::other(e.to_string())),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.open && !self.begin()? {
                return Ok(0);
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                let decoded = self.decoder.decode_blocks(&mut self.source, one);
                decoded.map_err(|e| io::Error::other(e.to_string()))?;
            }
            let n = self.decoder.read(buffer)?;
            if n > 0 || buffer.is_empty() {
                return Ok(n);
            }
            self.open = false;
            let told = self.decoder.get_checksum_from_data();
            if told.is_some() && told != self.decoder.get_calculated_checksum() {
                return Err(io::Error::other("the checksum of a frame is wrong"));
            }
        }
    }
}
