//! The CRI log format: `TIME STREAM TAG CONTENT\n`, TIME as RFC3339 with nanoseconds, STREAM `stdout` or `stderr`, TAG `F`
//! for the end of a line and `P` for a part of one (KEP "CRI log format"; as containerd writes it).

use std::io::Write;
use std::time::SystemTime;

use jiff::Timestamp;

use crate::streams::Stream;

/// Longest content of one entry in bytes; longer lines become several entries. containerd's default.
pub(super) const MAX_CONTENT: usize = 16 * 1024;

/// Entries that are written together; its memory is bounded.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Where each entry ends.
    ends: Vec<usize>,
}

/// Takes a full batch away.
pub(super) type Flush<'a> = &'a mut dyn FnMut(&mut Batch);

impl Batch {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn lines(&self) -> u64 {
        self.ends.len() as u64
    }

    /// How many entries, and how many bytes of them, lie wholly within the first `written` bytes.
    pub(super) fn whole(&self, written: usize) -> (u64, usize) {
        let count = self.ends.partition_point(|end| *end <= written);
        let bytes = count.checked_sub(1).map_or(0, |last| self.ends[last]);
        (count as u64, bytes)
    }

    fn entry(&mut self, prefix: &Prefix, tag: u8, parts: [&[u8]; 2], flush: Flush<'_>) {
        if self.bytes.len() >= FULL {
            flush(self);
            self.clear();
        }
        // Once and for all: growing step by step would leave holes of each size.
        self.bytes.reserve_exact(CAPACITY - self.bytes.len());
        self.bytes.extend_from_slice(&prefix.bytes[..prefix.length]);
        self.bytes.extend_from_slice(&[tag, b' ']);
        self.bytes.extend_from_slice(parts[0]);
        self.bytes.extend_from_slice(parts[1]);
        self.bytes.push(b'\n');
        self.ends.push(self.bytes.len());
    }
}

/// Cuts one stream into entries, keeping an unfinished line (at most [`MAX_CONTENT`]) until it is finished or too long.
pub(super) struct Lines {
    stream: Stream,
    /// A terminal ends lines with CR LF (termios(3), ONLCR); the CR is not content.
    terminal: bool,
    pending: Vec<u8>,
}

impl Lines {
    pub(super) fn new(stream: Stream, terminal: bool) -> Self {
        Self {
            stream,
            terminal,
            pending: Vec::new(),
        }
    }

    /// Adds what was read at `now`.
    pub(super) fn push(&mut self, mut input: &[u8], now: SystemTime, batch: &mut Batch, flush: Flush<'_>) {
        let prefix = Prefix::new(now, self.stream);
        while let Some(newline) = input.iter().position(|byte| *byte == b'\n') {
            let line = self.cut(&input[..newline], &prefix, batch, flush);
            self.full(line, &prefix, batch, flush);
            input = &input[newline + 1..];
        }
        let rest = self.cut(input, &prefix, batch, flush);
        self.pending.extend_from_slice(rest);
    }

    /// The stream has ended: an unfinished line is written as a part, since no newline belongs to it.
    pub(super) fn finish(&mut self, now: SystemTime, batch: &mut Batch, flush: Flush<'_>) {
        if !self.pending.is_empty() {
            batch.entry(&Prefix::new(now, self.stream), b'P', [&self.pending, &[]], flush);
            self.pending = Vec::new();
        }
    }

    /// Writes parts until what is pending and `input` fit into one entry; returns what is left of `input`.
    fn cut<'a>(
        &mut self,
        mut input: &'a [u8],
        prefix: &Prefix,
        batch: &mut Batch,
        flush: Flush<'_>,
    ) -> &'a [u8] {
        while self.pending.len() + input.len() > MAX_CONTENT {
            let (now, later) = input.split_at(MAX_CONTENT - self.pending.len());
            batch.entry(prefix, b'P', [&self.pending, now], flush);
            self.pending.clear();
            input = later;
        }
        input
    }

    fn full(&mut self, mut line: &[u8], prefix: &Prefix, batch: &mut Batch, flush: Flush<'_>) {
        if self.terminal {
            if let Some(bare) = line.strip_suffix(b"\r") {
                line = bare;
            } else if line.is_empty() && self.pending.last() == Some(&b'\r') {
                self.pending.pop();
            }
        }
        batch.entry(prefix, b'F', [&self.pending, line], flush);
        self.pending.clear();
        self.pending.shrink_to(KEEP_PENDING);
    }
}

/// Time and stream of the entries of one read.
struct Prefix {
    bytes: [u8; 40],
    length: usize,
}

impl Prefix {
    fn new(now: SystemTime, stream: Stream) -> Self {
        let stream = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        let mut bytes = [0; 40];
        let mut cursor = &mut bytes[..];
        // A clock outside of the years -9999 to 9999 is not one.
        let now = Timestamp::try_from(now).unwrap_or(Timestamp::UNIX_EPOCH);
        // 38 bytes at the most, but for a negative year, which is cut.
        let _ = write!(cursor, "{now:.9} {stream} ");
        let length = 40 - cursor.len();
        Self { bytes, length }
    }
}

/// Bytes after which a batch is written before it takes another entry.
const FULL: usize = 32 * 1024;
/// Bytes that a batch can hold: what is not yet full, and one more entry.
const CAPACITY: usize = FULL + MAX_CONTENT + 64;
/// Bytes of unfinished line whose buffer is kept.
const KEEP_PENDING: usize = 256;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const AT: Duration = Duration::new(1_582_934_400 + 3_661, 7);

    fn feed(terminal: bool, pieces: &[&[u8]]) -> Vec<(char, Vec<u8>)> {
        let mut lines = Lines::new(Stream::Stdout, terminal);
        let mut batch = Batch::default();
        let now = SystemTime::UNIX_EPOCH + AT;
        let mut entries = Vec::new();
        for piece in pieces {
            lines.push(piece, now, &mut batch, &mut |batch| entries.extend(parse(batch)));
        }
        lines.finish(now, &mut batch, &mut |batch| entries.extend(parse(batch)));
        entries.extend(parse(&batch));
        entries
    }

    fn parse(batch: &Batch) -> Vec<(char, Vec<u8>)> {
        let mut start = 0;
        let entries = batch.ends.iter().map(|end| {
            let entry = &batch.bytes[start..*end];
            start = *end;
            let rest = entry
                .strip_prefix(b"2020-02-29T01:01:01.000000007Z stdout ")
                .unwrap();
            assert_eq!((rest[1], rest[rest.len() - 1]), (b' ', b'\n'));
            (char::from(rest[0]), rest[2..rest.len() - 1].to_vec())
        });
        entries.collect()
    }

    #[test]
    fn a_line_may_come_in_pieces_and_be_empty() {
        assert_eq!(
            feed(false, &[b"he", b"llo\n\nwor", b"ld\n"]),
            [
                ('F', b"hello".to_vec()),
                ('F', b"".to_vec()),
                ('F', b"world".to_vec())
            ]
        );
    }

    #[test]
    fn an_unfinished_last_line_is_a_part() {
        assert_eq!(
            feed(false, &[b"a\nb"]),
            [('F', b"a".to_vec()), ('P', b"b".to_vec())]
        );
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_one_entry() {
        let mut line = vec![b'x'; MAX_CONTENT];
        line.push(b'\n');
        assert_eq!(feed(false, &[&line]), [('F', line[..MAX_CONTENT].to_vec())]);
    }

    #[test]
    fn a_long_line_is_cut_at_the_limit_wherever_reads_end() {
        let mut line: Vec<u8> = (0..3 * MAX_CONTENT + 5)
            .map(|i| b'a' + u8::try_from(i % 23).unwrap())
            .collect();
        line.push(b'\n');
        let (first, second) = line.split_at(MAX_CONTENT - 3);
        let entries = feed(false, &[first, second]);
        let tags: String = entries.iter().map(|entry| entry.0).collect();
        assert_eq!(tags, "PPPF");
        assert_eq!(entries.iter().map(|entry| entry.1.len()).max(), Some(MAX_CONTENT));
        let whole: Vec<u8> = entries.into_iter().flat_map(|entry| entry.1).collect();
        assert_eq!(whole, line[..line.len() - 1]);
    }

    #[test]
    fn carriage_returns_are_content_except_at_a_terminals_line_end() {
        assert_eq!(feed(false, &[b"a\r\n"]), [('F', b"a\r".to_vec())]);
        assert_eq!(feed(true, &[b"a\rb\r", b"\n"]), [('F', b"a\rb".to_vec())]);
    }

    #[test]
    fn whole_entries_of_a_torn_write_are_told_apart() {
        let mut lines = Lines::new(Stream::Stderr, false);
        let mut batch = Batch::default();
        lines.push(b"one\ntwo\n", SystemTime::now(), &mut batch, &mut |_| ());
        let first = batch.ends[0];
        assert_eq!(batch.whole(first - 1), (0, 0));
        assert_eq!(batch.whole(first + 3), (1, first));
        assert_eq!(batch.whole(batch.bytes.len()), (2, batch.bytes.len()));
    }

    #[test]
    fn a_full_batch_is_taken_away_and_never_grows() {
        let mut lines = Lines::new(Stream::Stdout, false);
        let mut batch = Batch::default();
        let mut taken = 0;
        let input = vec![b'\n'; 10_000];
        lines.push(&input, SystemTime::now(), &mut batch, &mut |batch| {
            taken += batch.lines();
        });
        assert_eq!(taken + batch.lines(), 10_000);
        lines.push(
            &[b'x'; 3 * MAX_CONTENT],
            SystemTime::now(),
            &mut batch,
            &mut |_| (),
        );
        assert_eq!(batch.bytes.capacity(), CAPACITY);
    }
}
