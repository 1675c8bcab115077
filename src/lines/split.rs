//! Splits the bytes of a file into lines and encodes them, in one pass: pure, on memory alone.
//!
//! A line ends with LF or CR LF, or with the delimiter that the caller chose. A line that is too long is split into
//! pieces, cut or left out; a cut is never within a character. Whether bytes are text is checked once for all the whole
//! lines of a chunk, and line by line only where that fails.

use memchr::{memchr, memmem, memrchr};
use serde::{Deserialize, Serialize};

use crate::wire::line::{self, Line, OVERHEAD_BYTES};

/// What one line is taken to have, to tell how much of a chunk a batch of few lines will use.
pub const TYPICAL_LINE_BYTES: usize = 256;

/// A run of so many NUL bytes where a line should begin is a hole: something that was reserved, or a writer's offset
/// behind a truncation. A shorter one may be content, as in UTF-16.
const HOLE_BYTES: usize = 64;

/// What lines are, to one caller.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rules {
    /// What ends a line.
    pub delimiter: Delimiter,
    /// What becomes of a line that is too long.
    pub long_line: LongLine,
    /// A line with more bytes is too long. Limited by [`Options::max_line_bytes`](super::Options::max_line_bytes).
    pub max_line_bytes: usize,
    /// End behind the line with this number.
    pub until_line: Option<u64>,
    /// End before the first line at or behind this offset.
    pub until_offset: Option<u64>,
}

impl Default for Rules {
    fn default() -> Self {
        let (delimiter, long_line) = (Delimiter::default(), LongLine::default());
        Self { delimiter, long_line, max_line_bytes: usize::MAX, until_line: None, until_offset: None }
    }
}

/// What ends a line.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Delimiter {
    /// LF or CR LF.
    #[default]
    Newline,
    /// These bytes; at least one.
    Bytes(Box<[u8]>),
}

/// What becomes of a line that is too long.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LongLine {
    /// It is delivered in pieces.
    #[default]
    Split,
    /// Its beginning is delivered.
    Truncate,
    /// It is told and not delivered.
    Skip,
}

/// How far a batch may be filled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bounds {
    /// At most so many lines.
    pub max_items: usize,
    /// No further line when the encoded ones have so many bytes.
    pub max_bytes: usize,
}

/// Where the next byte stands: what a position needs to know.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Place {
    /// In bytes from the start of the file.
    pub offset: u64,
    /// The number of the line it belongs to, where known.
    pub number: Option<u64>,
    /// What was delivered of the line it stands in.
    pub within: Within,
}

/// What was delivered of a line.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Within {
    /// Nothing: it begins here.
    #[default]
    Start,
    /// What comes before, and what follows is delivered too.
    Continued,
    /// All that will be: what follows is left out.
    Dropped,
}

/// The head of a file.
pub const HEAD: Place = Place { offset: 0, number: Some(1), within: Within::Start };

/// Encoded lines.
#[derive(Debug, Default)]
pub struct Encoded {
    /// One after another.
    pub items: Vec<u8>,
    /// How many.
    pub count: usize,
}

/// Whether some NUL bytes are a hole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hole {
    /// They are content, or there are none.
    No,
    /// They are, if nothing or more of them follows.
    Perhaps,
    /// They are.
    Yes,
}

/// What the end of the bytes means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// No more will come: what is left is a line without a newline.
    Last,
    /// More may come, but what is left is wanted now.
    Partial,
    /// A hole comes, and then the line goes on.
    Hole,
}

impl Encoded {
    /// No further line fits.
    pub fn is_full(&self, bounds: &Bounds) -> bool {
        self.count >= bounds.max_items || self.items.len() >= bounds.max_bytes
    }

    fn put(&mut self, line: &Line<'_>) {
        line::put(&mut self.items, line);
        self.count += 1;
    }
}

impl Rules {
    /// The caller asked for no line from here on.
    pub fn is_end(&self, place: &Place) -> bool {
        place.within == Within::Start
            && (self.until_offset.is_some_and(|until| place.offset >= until)
                || self.until_line.zip(place.number).is_some_and(|(until, number)| number > until))
    }

    fn delimiter_bytes(&self) -> &[u8] {
        match &self.delimiter {
            Delimiter::Newline => b"\n",
            Delimiter::Bytes(bytes) => bytes,
        }
    }

    /// Whether the NUL bytes that stand where a line should begin are a hole.
    pub fn hole(&self, rest: &[u8], place: &Place) -> Hole {
        if rest.first() != Some(&0) || self.delimiter_bytes().contains(&0) || place.within == Within::Dropped
        {
            return Hole::No;
        }
        match rest.iter().take(HOLE_BYTES).position(|byte| *byte != 0) {
            None if rest.len() < HOLE_BYTES && place.offset > 0 => Hole::Perhaps,
            Some(_) if place.offset > 0 => Hole::No,
            _ => Hole::Yes,
        }
    }
}

/// Moves whole lines from `chunk`, which stands at `place`, into `out`, until it is full, the caller's end is reached,
/// a hole comes, or only a part of a line is left; pieces of a line that is too long count as lines. Returns how many
/// bytes were used, and moves `place`.
pub fn split(chunk: &[u8], place: &mut Place, bounds: &Bounds, rules: &Rules, out: &mut Encoded) -> usize {
    match &rules.delimiter {
        Delimiter::Newline => {
            let find = |bytes: &[u8]| memchr(b'\n', bytes);
            Splitter { place, bounds, rules, out, delimiter_bytes: 1, strips: true }.split(chunk, find)
        }
        Delimiter::Bytes(bytes) => {
            let finder = memmem::Finder::new(bytes);
            let find = |bytes: &[u8]| finder.find(bytes);
            Splitter { place, bounds, rules, out, delimiter_bytes: bytes.len(), strips: false }
                .split(chunk, find)
        }
    }
}

struct Splitter<'a> {
    place: &'a mut Place,
    bounds: &'a Bounds,
    rules: &'a Rules,
    out: &'a mut Encoded,
    delimiter_bytes: usize,
    /// A CR before the delimiter belongs to it.
    strips: bool,
}

impl Splitter<'_> {
    fn split(&mut self, chunk: &[u8], find: impl Fn(&[u8]) -> Option<usize>) -> usize {
        // What this batch can take, so that a byte is looked at once however small the batches are.
        let Bounds { max_bytes, max_items } = *self.bounds;
        let window = max_bytes.min(max_items.saturating_mul(TYPICAL_LINE_BYTES)).min(chunk.len());
        let (window, _) = chunk.split_at(window);
        // Cut behind an LF, which is never a part of a character.
        let checked = memrchr(b'\n', window).map_or(0, |last| last + 1);
        let (lines, _) = window.split_at(checked);
        let all_text = is_text(lines);
        self.out.items.reserve(lines.len() + lines.len() / 4 + OVERHEAD_BYTES);
        let mut used = 0;
        while !self.out.is_full(self.bounds) && !self.rules.is_end(self.place) {
            let rest = chunk.get(used..).unwrap_or_default();
            if rest.first() == Some(&0) && self.rules.hole(rest, self.place) != Hole::No {
                break;
            }
            let taken = match find(rest) {
                Some(end) => {
                    // Within the part that was checked, a delimiter cuts between two characters, too.
                    let is_checked = all_text && used + end + self.delimiter_bytes <= checked;
                    self.line(rest.get(..end).unwrap_or_default(), is_checked)
                }
                None => self.part(rest),
            };
            if taken == 0 {
                break;
            }
            used += taken;
        }
        used
    }

    /// A whole line, or its first piece.
    fn line(&mut self, line: &[u8], is_checked: bool) -> usize {
        let content = if self.strips { line.strip_suffix(b"\r").unwrap_or(line) } else { line };
        if self.place.within != Within::Dropped {
            if let Some(piece) = piece(content, self.rules) {
                return put_piece(piece, self.place, self.rules, self.out);
            }
            let is_text = is_checked || is_text(content);
            self.out.put(&Line { content, is_text, ..at(self.place) });
        }
        let bytes = line.len() + self.delimiter_bytes;
        let Place { offset, number, .. } = *self.place;
        *self.place = Place {
            offset: offset + bytes as u64,
            number: number.map(|number| number + 1),
            within: Within::Start,
        };
        bytes
    }

    /// A piece of a line whose end is not here.
    fn part(&mut self, rest: &[u8]) -> usize {
        if self.place.within == Within::Dropped {
            return drop_part(rest, self.place, self.rules);
        }
        // A delimiter that is still to come is no reason to split.
        if rest.len() <= self.rules.max_line_bytes + self.delimiter_bytes.max("\r\n".len()) {
            return 0;
        }
        piece(rest, self.rules).map_or(0, |piece| put_piece(piece, self.place, self.rules, self.out))
    }
}

/// Leaves out what is here of a line, but what may be the beginning of its delimiter.
fn drop_part(rest: &[u8], place: &mut Place, rules: &Rules) -> usize {
    let bytes = rest.len().saturating_sub(rules.delimiter_bytes().len() - 1);
    place.offset += bytes as u64;
    bytes
}

/// Moves what is left at the end of the bytes, a part of a line or nothing, into `out`. Returns how many bytes were
/// used.
pub fn flush(
    rest: &[u8],
    end: End,
    place: &mut Place,
    bounds: &Bounds,
    rules: &Rules,
    out: &mut Encoded,
) -> usize {
    let rest = if end == End::Partial { rest.get(..whole(rest, rules)).unwrap_or_default() } else { rest };
    let mut used = 0;
    while !out.is_full(bounds) && used < rest.len() {
        let left = rest.get(used..).unwrap_or_default();
        if place.within == Within::Dropped {
            place.offset += left.len() as u64;
            used += left.len();
            continue;
        }
        if let Some(piece) = piece(left, rules) {
            used += put_piece(piece, place, rules, out);
            continue;
        }
        let (no_newline, partial, has_more) = (end == End::Last, end == End::Partial, end == End::Hole);
        out.put(&Line { content: left, is_text: is_text(left), no_newline, partial, has_more, ..at(place) });
        used += left.len();
        // Should the file go on after all, its next byte belongs to this line.
        *place = Place { offset: place.offset + left.len() as u64, within: Within::Continued, ..*place };
    }
    used
}

/// How much of a part of a line can be given away: no beginning of a delimiter, nor of a character.
fn whole(part: &[u8], rules: &Rules) -> usize {
    let delimiter: &[u8] = match &rules.delimiter {
        Delimiter::Newline => b"\r\n",
        Delimiter::Bytes(bytes) => bytes,
    };
    let begun = (1..delimiter.len())
        .rev()
        .find(|bytes| delimiter.get(..*bytes).is_some_and(|begun| part.ends_with(begun)))
        .unwrap_or(0);
    let (part, _) = part.split_at(part.len() - begun);
    match part.utf8_chunks().last() {
        // At most three bytes can begin a character without being one.
        Some(last) if is_begun(last.invalid()) => part.len() - last.invalid().len(),
        _ => part.len(),
    }
}

/// These invalid bytes are so only because their character is not complete.
fn is_begun(invalid: &[u8]) -> bool {
    std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none())
}

/// A line at a place, with nothing in it yet.
fn at(place: &Place) -> Line<'static> {
    Line {
        offset: place.offset,
        number: place.number,
        content: &[],
        is_text: true,
        no_newline: false,
        continued: place.within == Within::Continued,
        has_more: false,
        truncated: false,
        skipped: false,
        partial: false,
    }
}

fn is_text(bytes: &[u8]) -> bool {
    simdutf8::basic::from_utf8(bytes).is_ok()
}

fn put_piece(content: &[u8], place: &mut Place, rules: &Rules, out: &mut Encoded) -> usize {
    let line = at(place);
    match rules.long_line {
        LongLine::Split => out.put(&Line { content, is_text: is_text(content), has_more: true, ..line }),
        LongLine::Truncate => out.put(&Line { content, is_text: is_text(content), truncated: true, ..line }),
        LongLine::Skip => out.put(&Line { skipped: true, ..line }),
    }
    let within = if rules.long_line == LongLine::Split { Within::Continued } else { Within::Dropped };
    *place = Place { offset: place.offset + content.len() as u64, within, ..*place };
    content.len()
}

/// The first piece of a line that is too long.
fn piece<'a>(line: &'a [u8], rules: &Rules) -> Option<&'a [u8]> {
    let most = rules.max_line_bytes;
    if line.len() <= most {
        return None;
    }
    // UTF-8 puts at most three more bytes behind a character's first.
    let is_start = |at: usize| line.get(at).is_some_and(|byte| byte & 0b1100_0000 != 0b1000_0000);
    let near = most.saturating_sub(3)..=most;
    let cut = near.rev().find(|at| *at > 0 && is_start(*at)).unwrap_or(most);
    line.get(..cut)
}

#[cfg(test)]
mod tests;
