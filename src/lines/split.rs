//! Splits the bytes of a file into lines and encodes them, in one pass: pure, on memory alone.
//!
//! A line ends with LF or CR LF. A line longer than the limit is split into pieces, never within a character. Whether
//! bytes are text is checked once for all the whole lines of a chunk, and line by line only where that fails.

use memchr::{memchr, memrchr};
use serde::{Deserialize, Serialize};

use crate::wire::line::{self, Line, OVERHEAD_BYTES};

/// What one line is taken to have, to tell how much of a chunk a batch of few lines will use.
const TYPICAL_LINE_BYTES: usize = 256;

/// How far a batch may be filled.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "each is a most")]
pub struct Bounds {
    /// At most so many lines.
    pub max_items: usize,
    /// No further line when the encoded ones have so many bytes.
    pub max_bytes: usize,
    /// A longer line is split.
    pub max_line_bytes: usize,
}

/// Where the next byte stands: what a position needs to know.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Place {
    /// In bytes from the start of the file.
    pub offset: u64,
    /// The number of the line it belongs to, where known.
    pub number: Option<u64>,
    /// It stands within a line of which a piece was delivered.
    pub continued: bool,
}

/// Encoded lines.
#[derive(Debug, Default)]
pub struct Encoded {
    /// One after another.
    pub items: Vec<u8>,
    /// How many.
    pub count: usize,
}

impl Encoded {
    /// No further line fits.
    pub fn is_full(&self, bounds: &Bounds) -> bool {
        self.count >= bounds.max_items || self.items.len() >= bounds.max_bytes
    }
}

/// Moves whole lines from `chunk`, which stands at `place`, into `out`, until it is full or only a part of a line is
/// left; pieces of a line that is too long count as lines. Returns how many bytes were used, and moves `place`.
pub fn split(chunk: &[u8], place: &mut Place, bounds: &Bounds, out: &mut Encoded) -> usize {
    // What this batch can take, so that a byte is looked at once however small the batches are.
    let window = bounds.max_bytes.min(bounds.max_items.saturating_mul(TYPICAL_LINE_BYTES)).min(chunk.len());
    let (window, _) = chunk.split_at(window);
    let checked = memrchr(b'\n', window).map_or(0, |last| last + 1);
    let (lines, _) = window.split_at(checked);
    let all_text = is_text(lines);
    out.items.reserve(lines.len() + lines.len() / 4 + OVERHEAD_BYTES);
    let mut used = 0;
    while !out.is_full(bounds) {
        let rest = chunk.get(used..).unwrap_or_default();
        let taken = match memchr(b'\n', rest) {
            Some(end) => {
                let (line, _) = rest.split_at(end);
                let content = line.strip_suffix(b"\r").unwrap_or(line);
                if let Some(piece) = piece(content, bounds) {
                    put_piece(piece, place, out)
                } else {
                    let is_text = (all_text && used + end < checked) || is_text(content);
                    put_line(content, end + 1, is_text, place, out)
                }
            }
            // A CR LF that is still to come is no reason to split.
            None if rest.len() > bounds.max_line_bytes + "\r\n".len() => match piece(rest, bounds) {
                Some(piece) => put_piece(piece, place, out),
                None => break,
            },
            None => break,
        };
        used += taken;
    }
    used
}

/// Moves what is left at the end of a file, a part of a line or nothing, into `out`. Returns how many bytes were used.
pub fn flush(rest: &[u8], place: &mut Place, bounds: &Bounds, out: &mut Encoded) -> usize {
    let mut used = 0;
    while !out.is_full(bounds) {
        let left = rest.get(used..).unwrap_or_default();
        if left.is_empty() {
            break;
        }
        if let Some(piece) = piece(left, bounds) {
            used += put_piece(piece, place, out);
            continue;
        }
        let line = Line { content: left, is_text: is_text(left), no_newline: true, ..at(place) };
        line::put(&mut out.items, &line);
        out.count += 1;
        used += left.len();
        // Should the file go on after all, its next byte belongs to this line.
        *place = Place { offset: place.offset + left.len() as u64, continued: true, ..*place };
    }
    used
}

/// A line at a place, with nothing in it yet.
fn at(place: &Place) -> Line<'static> {
    Line {
        offset: place.offset,
        number: place.number,
        content: &[],
        is_text: true,
        no_newline: false,
        continued: place.continued,
        splits: false,
        truncated: false,
        skipped: false,
        partial: false,
    }
}

fn is_text(bytes: &[u8]) -> bool {
    simdutf8::basic::from_utf8(bytes).is_ok()
}

fn put_line(content: &[u8], bytes: usize, is_text: bool, place: &mut Place, out: &mut Encoded) -> usize {
    line::put(&mut out.items, &Line { content, is_text, ..at(place) });
    out.count += 1;
    place.offset += bytes as u64;
    place.number = place.number.map(|number| number + 1);
    place.continued = false;
    bytes
}

fn put_piece(content: &[u8], place: &mut Place, out: &mut Encoded) -> usize {
    line::put(&mut out.items, &Line { content, is_text: is_text(content), splits: true, ..at(place) });
    out.count += 1;
    place.offset += content.len() as u64;
    place.continued = true;
    content.len()
}

/// The first piece of a line that is too long.
fn piece<'a>(line: &'a [u8], bounds: &Bounds) -> Option<&'a [u8]> {
    if line.len() <= bounds.max_line_bytes {
        return None;
    }
    // UTF-8 puts at most three more bytes behind a character's first.
    let is_start = |at: usize| line.get(at).is_some_and(|byte| byte & 0b1100_0000 != 0b1000_0000);
    let near = bounds.max_line_bytes.saturating_sub(3)..=bounds.max_line_bytes;
    let cut = near.rev().find(|at| *at > 0 && is_start(*at)).unwrap_or(bounds.max_line_bytes);
    line.get(..cut)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::proto::{self, line::Content};

    /// Splits bytes that arrive in chunks, as a reader does; what is left at the end is flushed.
    fn lines(bytes: &[u8], chunk: usize, bounds: &Bounds) -> Vec<proto::Line> {
        let mut place = Place { offset: 0, number: Some(1), continued: false };
        let (mut start, mut end) = (0, 0);
        let mut all = Vec::new();
        loop {
            let mut out = Encoded::default();
            start += split(&bytes[start..end], &mut place, bounds, &mut out);
            let at_end = end == bytes.len();
            if out.count == 0 && at_end {
                start += flush(&bytes[start..], &mut place, bounds, &mut out);
            }
            if out.count == 0 && at_end {
                return all;
            }
            if out.count == 0 {
                end = (end + chunk).min(bytes.len());
            }
            assert!(out.count <= bounds.max_items);
            all.extend(proto::ReadLinesResponse::decode(out.items.as_slice()).unwrap().lines);
        }
    }

    fn bytes_of(line: &proto::Line) -> Vec<u8> {
        match line.content.clone().unwrap() {
            Content::Text(text) => text.into_bytes(),
            Content::Raw(bytes) => bytes,
        }
    }

    const WIDE: Bounds = Bounds { max_items: 1000, max_bytes: 1 << 16, max_line_bytes: 1 << 20 };

    #[test]
    fn a_line_end_is_lf_or_cr_lf_and_nothing_else() {
        let all = lines(b"a\r\n\r\n\nb\rc\n\r", 1, &WIDE);
        let contents = all.iter().map(bytes_of).collect::<Vec<_>>();
        assert_eq!(contents, [&b"a"[..], b"", b"", b"b\rc", b"\r"]);
        assert!(all[4].no_newline);
    }

    #[test]
    fn a_cut_is_never_within_a_character() {
        let bounds = Bounds { max_line_bytes: 5, ..WIDE };
        let all = lines("aaaé€bbb\n".as_bytes(), 3, &bounds);
        let texts = all.iter().map(|line| String::from_utf8(bytes_of(line)).unwrap()).collect::<Vec<_>>();
        assert_eq!(texts, ["aaaé", "€bb", "b"]);
        assert!(all.iter().all(|line| line.number == Some(1)));
    }

    proptest! {
        #[test]
        fn every_byte_is_in_one_line_whatever_the_chunks(
            bytes in proptest::collection::vec(prop_oneof![
                Just(b'\n'), Just(b'\r'), Just(b'a'), Just(0xc3), Just(0xa9), any::<u8>(),
            ], 0..200),
            chunk in 1_usize..50,
            max_items in 1_usize..5,
            max_line_bytes in 4_usize..20,
        ) {
            let bounds = Bounds { max_items, max_bytes: 64, max_line_bytes };
            let all = lines(&bytes, chunk, &bounds);
            prop_assert_eq!(&all, &lines(&bytes, bytes.len().max(1), &bounds));
            let (mut joined, mut naive) = (Vec::new(), Vec::new());
            for line in &all {
                let content = bytes_of(line);
                prop_assert!(content.len() <= max_line_bytes);
                let at = usize::try_from(line.offset.unwrap()).unwrap();
                prop_assert_eq!(&bytes[at..at + content.len()], content.as_slice());
                prop_assert_eq!(line.continued, !joined.is_empty());
                joined.push(content);
                if !line.splits {
                    naive.push(joined.concat());
                    joined.clear();
                }
            }
            let mut expected = bytes.split(|byte| *byte == b'\n')
                .map(|line| line.strip_suffix(b"\r").unwrap_or(line).to_vec())
                .collect::<Vec<_>>();
            // The last one has no newline: its CR is content, and where it is empty it is no line.
            let last = bytes.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
            expected.pop();
            if !last.is_empty() {
                expected.push(last.to_vec());
            }
            prop_assert_eq!(naive, expected);
        }
    }
}
