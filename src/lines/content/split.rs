//! Splits the bytes of a file into lines and encodes them, in one pass: pure, on memory alone.
//!
//! A line ends with LF or CR LF, or with the delimiter that the caller chose. A line that is too long is split into
//! pieces, cut or left out; a cut is never within a character. Whether bytes are text is checked once for all the whole
//! lines of a chunk, and line by line only where that fails. Lines that a filter does not admit are left out.

use memchr::{memchr, memmem, memrchr};

use super::{
    filter,
    hole::Nuls,
    position::{LinePosition, Within},
    rules::{Delimiter, LongLine, Rules},
};
use crate::wire::line::{self, Line, OVERHEAD_BYTES};

/// The assumed bytes of a line, to estimate how much of a chunk a batch of few lines uses.
pub const TYPICAL_LINE_BYTES: usize = 256;

/// How far a batch may be filled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bounds {
    /// The most lines.
    pub max_items: usize,
    /// No further line is added when the encoded lines have this many bytes.
    pub max_bytes: usize,
}

/// Encoded lines.
#[derive(Debug, Default)]
pub struct Encoded {
    /// One after another.
    pub items: Vec<u8>,
    /// How many.
    pub count: usize,
}

/// Why a part of a line is delivered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// No more will come: the rest is a line without a newline.
    Last,
    /// More may come, but the caller asked for the part.
    Partial,
    /// A hole follows, and then the line continues.
    Hole,
    /// The file ends, and the line continues in the next one.
    Generation,
    /// No more of the file can be read.
    Cut,
}

impl End {
    /// The file ends here.
    pub fn is_of_file(self) -> bool {
        matches!(self, Self::Last | Self::Generation | Self::Cut)
    }
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

/// Moves whole lines from `chunk`, which starts at `position`, into `out`, until it is full, the caller's end is reached,
/// or only a part of a line is left; pieces of a line that is too long count as lines. Returns how many
/// bytes were used, and moves `position`.
pub fn split(
    chunk: &[u8],
    position: &mut LinePosition,
    bounds: &Bounds,
    rules: &Rules,
    out: &mut Encoded,
) -> usize {
    match &rules.delimiter {
        Delimiter::Newline => {
            let find = |bytes: &[u8]| memchr(b'\n', bytes);
            Splitter::new(position, bounds, rules, out, 1).split(chunk, find)
        }
        Delimiter::Bytes(bytes) => {
            let finder = memmem::Finder::new(bytes);
            let find = |bytes: &[u8]| finder.find(bytes);
            Splitter::new(position, bounds, rules, out, bytes.len()).split(chunk, find)
        }
    }
}

struct Splitter<'a> {
    position: &'a mut LinePosition,
    bounds: &'a Bounds,
    rules: &'a Rules,
    out: &'a mut Encoded,
    delimiter_bytes: usize,
    /// A CR before the delimiter belongs to it.
    strips: bool,
    filter: Option<filter::Scan>,
}

impl<'a> Splitter<'a> {
    fn new(
        position: &'a mut LinePosition,
        bounds: &'a Bounds,
        rules: &'a Rules,
        out: &'a mut Encoded,
        delimiter_bytes: usize,
    ) -> Self {
        let strips = rules.delimiter == Delimiter::Newline;
        let filter = rules.filter.as_ref().map(filter::Filter::scan);
        Self { position, bounds, rules, out, delimiter_bytes, strips, filter }
    }

    fn split(&mut self, chunk: &[u8], find: impl Fn(&[u8]) -> Option<usize>) -> usize {
        // Only the bytes that fit this batch, so that each byte is checked once however small the batches are.
        let Bounds { max_bytes, max_items } = *self.bounds;
        let window = max_bytes.min(max_items.saturating_mul(TYPICAL_LINE_BYTES)).min(chunk.len());
        let (window, _) = chunk.split_at(window);
        // Cut after an LF, which is never a part of a character.
        let checked = memrchr(b'\n', window).map_or(0, |last| last + 1);
        let (lines, _) = window.split_at(checked);
        // Of a few lines that a filter admits, each is checked by itself.
        let is_selective = self.rules.filter.as_ref().is_some_and(filter::Filter::is_selective);
        let all_text = !is_selective && is_text(lines);
        if !is_selective {
            self.out.items.reserve(lines.len() + lines.len() / 4 + OVERHEAD_BYTES);
        }
        let mut used = 0;
        while !self.out.is_full(self.bounds) && !self.rules.is_end(self.position) {
            if used > 0 && self.filter.as_ref().is_some_and(|filter| filter.is_over(used)) {
                break;
            }
            used += self.skip(chunk, used);
            let rest = chunk.get(used..).unwrap_or_default();
            let taken = match find(rest) {
                Some(end) => {
                    // Within the part that was checked, a delimiter cuts between two characters, too.
                    let is_checked = all_text && used + end + self.delimiter_bytes <= checked;
                    self.line(chunk, used, rest.get(..end).unwrap_or_default(), is_checked)
                }
                None => self.part(chunk, used),
            };
            if taken == 0 {
                break;
            }
            used += taken;
        }
        used
    }

    /// Leaves out whole lines that the filter does not admit, as far as one search can find them.
    fn skip(&mut self, chunk: &[u8], start: usize) -> usize {
        let LinePosition { offset, number, within } = *self.position;
        let chunk_end = offset + chunk.len().saturating_sub(start) as u64;
        let may_end =
            self.rules.until_line.is_some() || self.rules.until_offset.is_some_and(|until| until < chunk_end);
        let Some(filter) = self.filter.as_mut().filter(|_| !may_end) else { return 0 };
        if within != Within::Start {
            return 0;
        }
        let Some((bytes, lines)) = filter.skip(chunk, start, number.is_some()) else { return 0 };
        let number = number.map(|number| number + lines);
        *self.position = LinePosition { offset: offset + bytes as u64, number, within };
        bytes
    }

    /// Whether the filter admits the line that starts here. The rest of a line is delivered if its first piece is.
    fn admits(&mut self, chunk: &[u8], start: usize, content: &[u8]) -> bool {
        if self.position.within != Within::Start {
            return true;
        }
        let Some(filter) = &mut self.filter else { return true };
        let piece = piece(content, self.rules).map_or(content.len(), <[u8]>::len);
        filter.admits(&filter::Line { chunk, start, content, piece })
    }

    /// A whole line, or its first piece.
    fn line(&mut self, chunk: &[u8], start: usize, line: &[u8], is_checked: bool) -> usize {
        let content = if self.strips { line.strip_suffix(b"\r").unwrap_or(line) } else { line };
        if self.position.within != Within::Dropped && self.admits(chunk, start, content) {
            if let Some(piece) = piece(content, self.rules) {
                return put_piece(piece, self.position, self.rules, self.out);
            }
            let is_text = is_checked || is_text(content);
            self.out.put(&Line { content, is_text, ..at(self.position) });
        }
        let bytes = line.len() + self.delimiter_bytes;
        let LinePosition { offset, number, .. } = *self.position;
        *self.position = LinePosition {
            offset: offset + bytes as u64,
            number: number.map(|number| number + 1),
            within: Within::Start,
        };
        bytes
    }

    /// A piece of a line whose end is not here.
    fn part(&mut self, chunk: &[u8], start: usize) -> usize {
        let rest = chunk.get(start..).unwrap_or_default();
        if self.position.within == Within::Dropped {
            return drop_part(rest, self.position, self.rules);
        }
        // A delimiter that is still to come is no reason to split.
        if rest.len() <= self.rules.line_limit() + self.delimiter_bytes.max("\r\n".len()) {
            return 0;
        }
        if !self.admits(chunk, start, rest) {
            self.position.within = Within::Dropped;
            return drop_part(rest, self.position, self.rules);
        }
        piece(rest, self.rules).map_or(0, |piece| put_piece(piece, self.position, self.rules, self.out))
    }
}

/// Leaves out the bytes of a line, except for those that may be the start of its delimiter.
fn drop_part(rest: &[u8], position: &mut LinePosition, rules: &Rules) -> usize {
    let bytes = rest.len().saturating_sub(rules.delimiter.bytes().len() - 1);
    position.offset += bytes as u64;
    bytes
}

/// Moves the rest of the bytes, a part of a line or nothing, into `out`. Returns how many bytes were used: none if the
/// filter does not admit the part and the file may grow, so that the line is tested again when more of it is there.
pub fn flush(
    rest: &[u8],
    end: End,
    position: &mut LinePosition,
    bounds: &Bounds,
    rules: &Rules,
    out: &mut Encoded,
) -> usize {
    let rest = if end == End::Partial { rest.get(..whole(rest, rules)).unwrap_or_default() } else { rest };
    if position.within == Within::Start && !rest.is_empty() && !admits_part(rest, rules) {
        if matches!(end, End::Last | End::Partial) {
            return 0;
        }
        position.within = Within::Dropped;
    }
    let mut used = 0;
    while !out.is_full(bounds) && used < rest.len() {
        let left = rest.get(used..).unwrap_or_default();
        if position.within == Within::Dropped {
            position.offset += left.len() as u64;
            used += left.len();
            continue;
        }
        if let Some(piece) = piece(left, rules) {
            used += put_piece(piece, position, rules, out);
            continue;
        }
        let no_newline = matches!(end, End::Last | End::Cut);
        let (partial, has_more) = (end == End::Partial, matches!(end, End::Hole | End::Generation));
        out.put(&Line {
            content: left,
            is_text: is_text(left),
            no_newline,
            partial,
            has_more,
            ..at(position)
        });
        used += left.len();
        // If the file grows later, its next byte belongs to this line.
        *position = LinePosition {
            offset: position.offset + left.len() as u64,
            within: Within::Continued,
            ..*position
        };
    }
    used
}

fn admits_part(part: &[u8], rules: &Rules) -> bool {
    let piece = piece(part, rules).map_or(part.len(), <[u8]>::len);
    let line = filter::Line { chunk: &[], start: 0, content: part, piece };
    rules.filter.as_ref().is_none_or(|filter| filter.scan().admits(&line))
}

/// How much of a part of a line can be delivered: no start of a delimiter, of a character, or of a run of NUL bytes.
fn whole(part: &[u8], rules: &Rules) -> usize {
    let part = match rules.nuls(part, u64::MAX) {
        Nuls::Begun(start) => part.get(..start).unwrap_or_default(),
        Nuls::Content | Nuls::Run(_) => part,
    };
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

/// A line at a position, with nothing in it yet.
fn at(position: &LinePosition) -> Line<'static> {
    Line {
        offset: position.offset,
        number: position.number,
        content: &[],
        is_text: true,
        no_newline: false,
        continued: position.within == Within::Continued,
        has_more: false,
        truncated: false,
        skipped: false,
        partial: false,
    }
}

fn is_text(bytes: &[u8]) -> bool {
    simdutf8::basic::from_utf8(bytes).is_ok()
}

fn put_piece(content: &[u8], position: &mut LinePosition, rules: &Rules, out: &mut Encoded) -> usize {
    let line = at(position);
    match rules.long_line {
        LongLine::Split => out.put(&Line { content, is_text: is_text(content), has_more: true, ..line }),
        LongLine::Truncate => out.put(&Line { content, is_text: is_text(content), truncated: true, ..line }),
        LongLine::Skip => out.put(&Line { skipped: true, ..line }),
    }
    let within = if rules.long_line == LongLine::Split { Within::Continued } else { Within::Dropped };
    *position = LinePosition { offset: position.offset + content.len() as u64, within, ..*position };
    content.len()
}

/// The first piece of a line that is too long.
fn piece<'a>(line: &'a [u8], rules: &Rules) -> Option<&'a [u8]> {
    let most = rules.line_limit();
    if line.len() <= most {
        return None;
    }
    // In UTF-8 at most three more bytes follow the first of a character.
    let is_start = |at: usize| line.get(at).is_some_and(|byte| byte & 0b1100_0000 != 0b1000_0000);
    let near = most.saturating_sub(3)..=most;
    let cut = near.rev().find(|at| *at > 0 && is_start(*at)).unwrap_or(most);
    line.get(..cut)
}

#[cfg(test)]
mod tests;
