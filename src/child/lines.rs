//! What a payload writes, line by line, while it runs.

use super::Child;
use super::output::{fail, read_rest, read_some, unblock};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::socket;
use crate::units::Bytes;
use std::collections::VecDeque;
use std::io::PipeReader;
use std::os::fd::{AsFd, OwnedFd};
use std::task::Poll;
use std::time::{Duration, Instant};

/// A line that a payload wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Line {
    /// Where it wrote it.
    pub stream: Stream,
    /// The line without its newline: any bytes, UTF-8 or not.
    pub bytes: Vec<u8>,
    /// How it ended.
    pub end: LineEnd,
}

/// One of a payload's output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// How a [`Line`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LineEnd {
    /// By a newline.
    Newline,
    /// It is longer than the bound: these are its first bytes, the rest of it is dropped.
    Truncated,
    /// By the end of the stream, or of the sandbox.
    Eof,
}

/// A streaming reader of both streams; see [`Child::lines`].
///
/// As an iterator it waits for each line without bound, for a payload may be silent for as
/// long as it likes; [`next_within`](Lines::next_within) has one.
#[derive(Debug)]
pub struct Lines {
    pidfd: OwnedFd,
    sources: [Source; 2],
    ready: VecDeque<Line>,
    max: usize,
}

#[derive(Debug)]
struct Source {
    stream: Stream,
    pipe: Option<PipeReader>,
    /// The line so far.
    partial: Vec<u8>,
    /// Whether the rest of a line is being dropped.
    dropping: bool,
}

impl Child {
    /// Reads the piped streams line by line. Takes `stdout` and `stderr`; the handle stays
    /// usable beside it. A line has at most `max` bytes (1 or more), longer ones are cut.
    ///
    /// It ends when both streams have, or the sandbox has ended, whoever still holds the pipes.
    /// Memory is bounded: two lines, and what one read gave.
    ///
    /// ```no_run
    /// # use belljar::*;
    /// # let sandbox = Sandbox::builder(RootFs::host()).build()?;
    /// let mut child = sandbox.spawn(Command::new("dmesg").stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    /// for line in child.lines(Bytes::kib(4))? {
    ///     let line = line?;
    ///     assert!(line.bytes.len() <= 4096);
    /// }
    /// child.wait()?;
    /// # Ok::<(), belljar::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSpec`] for a bound of 0; `EMFILE`.
    pub fn lines(&mut self, max: Bytes) -> Result<Lines> {
        if max.get() == 0 {
            return Err(Error::new(ErrorKind::InvalidSpec, "read lines of at most 0 bytes").with_hint("1 or more"));
        }
        let pidfd = self.duplicate_pidfd()?;
        self.stdout.iter().try_for_each(unblock)?;
        self.stderr.iter().try_for_each(unblock)?;
        let source = |stream, pipe| Source { stream, pipe, partial: Vec::new(), dropping: false };
        let sources = [source(Stream::Stdout, self.stdout.take()), source(Stream::Stderr, self.stderr.take())];
        Ok(Lines { pidfd, sources, ready: VecDeque::new(), max: usize::try_from(max.get()).unwrap_or(usize::MAX) })
    }
}

impl Lines {
    /// The next line, if one comes within `bound`: `Pending` if not, `Ready(None)` at the end.
    ///
    /// # Errors
    /// Those of reading a pipe.
    pub fn next_within(&mut self, bound: Duration) -> Result<Poll<Option<Line>>> {
        self.advance(Some(bound))
    }

    fn advance(&mut self, bound: Option<Duration>) -> Result<Poll<Option<Line>>> {
        let start = Instant::now();
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Poll::Ready(Some(line)));
            }
            let open: Vec<_> = self.sources.iter().filter_map(|source| source.pipe.as_ref()).collect();
            if open.is_empty() {
                return Ok(Poll::Ready(None));
            }
            let mut fds = vec![self.pidfd.as_fd()];
            fds.extend(open.iter().map(|pipe| pipe.as_fd()));
            let left = bound.map(|bound| bound.saturating_sub(start.elapsed()));
            let ready = socket::wait_any(&fds, left).map_err(|errno| fail("wait for", errno))?;
            if !ready.contains(&true) {
                return Ok(Poll::Pending);
            }
            let ended = ready[0];
            let mut ready_pipes = ready[1..].iter();
            for source in self.sources.iter_mut() {
                let Some(pipe) = source.pipe.take() else { continue };
                let is_ready = ready_pipes.next() == Some(&true);
                let mut over = ended;
                if ended {
                    read_rest(&pipe, |some| source.split(some, self.max, &mut self.ready))?;
                } else if is_ready {
                    over = read_some(&pipe, |some| source.split(some, self.max, &mut self.ready))? == Some(0);
                }
                match over {
                    true => source.finish(&mut self.ready),
                    false => source.pipe = Some(pipe),
                }
            }
        }
    }
}

impl Source {
    fn split(&mut self, some: &[u8], max: usize, ready: &mut VecDeque<Line>) {
        for part in some.split_inclusive(|b| *b == b'\n') {
            let (text, newline) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            if !self.dropping {
                let room = max - self.partial.len();
                self.partial.extend_from_slice(&text[..text.len().min(room)]);
                if text.len() > room {
                    self.dropping = true;
                    self.emit(LineEnd::Truncated, ready);
                } else if newline {
                    self.emit(LineEnd::Newline, ready);
                }
            }
            if newline {
                self.dropping = false;
            }
        }
    }

    fn finish(&mut self, ready: &mut VecDeque<Line>) {
        if !self.partial.is_empty() {
            self.emit(LineEnd::Eof, ready);
        }
    }

    fn emit(&mut self, end: LineEnd, ready: &mut VecDeque<Line>) {
        ready.push_back(Line { stream: self.stream, bytes: std::mem::take(&mut self.partial), end });
    }
}

impl Iterator for Lines {
    type Item = Result<Line>;

    fn next(&mut self) -> Option<Result<Line>> {
        loop {
            match self.advance(None) {
                Ok(Poll::Ready(line)) => return line.map(Ok),
                Ok(Poll::Pending) => {}
                Err(error) => {
                    // told once: a pipe that cannot be read would fail again for ever
                    self.sources.iter_mut().for_each(|source| source.pipe = None);
                    return Some(Err(error));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(parts: &[&str], max: usize) -> Vec<(String, LineEnd)> {
        let mut source = Source { stream: Stream::Stdout, pipe: None, partial: Vec::new(), dropping: false };
        let mut ready = VecDeque::new();
        parts.iter().for_each(|part| source.split(part.as_bytes(), max, &mut ready));
        source.finish(&mut ready);
        ready.into_iter().map(|line| (String::from_utf8_lossy(&line.bytes).into_owned(), line.end)).collect()
    }

    #[test]
    fn lines_are_cut_at_the_bound_wherever_reads_end() {
        use LineEnd::*;
        let line = |text: &str, end| (text.to_owned(), end);
        let whole = "ab\n\nabcd\nabcdefgh\nx\nlast";
        let expected = [
            line("ab", Newline),
            line("", Newline),
            line("abcd", Newline),
            line("abcd", Truncated),
            line("x", Newline),
            line("last", Eof),
        ];
        assert_eq!(lines(&[whole], 4), expected);
        for at in 0..whole.len() {
            let (head, tail) = whole.split_at(at);
            assert_eq!(lines(&[head, tail], 4), expected, "split at {at}");
        }
        let bytes: Vec<_> = whole.split_inclusive(|_: char| true).collect();
        assert_eq!(lines(&bytes, 4), expected);
        assert_eq!(lines(&["abcde"], 4), [line("abcd", Truncated)]);
        assert_eq!(lines(&[], 4), []);
    }
}
