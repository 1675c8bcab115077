//! What a caller takes for a line, and which line is its last.

use super::position::{LinePosition, Within};
use crate::lines::Error;

/// A run of this many NUL bytes where a line should start is a hole: reserved space, or the offset that a writer kept
/// when its file was truncated. A shorter run may be content, as in UTF-16.
const HOLE_BYTES: usize = 64;

/// The smallest [`Rules::max_line_bytes`] that a caller may ask for.
pub const MIN_ASKED_LINE_BYTES: usize = 16;

/// The longest delimiter that a caller may ask for.
pub const MAX_DELIMITER_BYTES: usize = 16;

/// What a line is, and where to stop.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rules {
    /// What ends a line.
    pub delimiter: Delimiter,
    /// What becomes of a line that has more than `max_line_bytes`.
    pub long_line: LongLine,
    /// The most bytes of a line, at most [`Options::max_line_bytes`](super::super::Options::max_line_bytes).
    pub max_line_bytes: usize,
    /// The stream ends after the line with this number.
    pub until_line: Option<u64>,
    /// The stream ends before the first line that starts at or after this offset.
    pub until_offset: Option<u64>,
}

impl Rules {
    /// The longest line that a caller may ask for: at least [`MIN_ASKED_LINE_BYTES`], at most the operator's limit, which
    /// applies if the caller does not ask.
    ///
    /// # Errors
    /// [`Error::LineBytes`].
    pub fn line_bytes(asked: Option<i64>, limit: usize) -> Result<usize, Error> {
        let Some(asked) = asked else { return Ok(limit) };
        let bytes =
            usize::try_from(asked).ok().filter(|bytes| (MIN_ASKED_LINE_BYTES..=limit).contains(bytes));
        bytes.ok_or(Error::LineBytes { asked, limit })
    }
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
    /// These bytes, at least one.
    Bytes(Box<[u8]>),
}

impl Delimiter {
    /// The delimiter that a caller asks for: LF or CR LF by default. Any text is taken literally, a lone LF, too.
    ///
    /// # Errors
    /// [`Error::DelimiterLength`].
    pub fn parse(asked: Option<&str>) -> Result<Self, Error> {
        match asked {
            None => Ok(Self::Newline),
            Some(text) if (1..=MAX_DELIMITER_BYTES).contains(&text.len()) => {
                Ok(Self::Bytes(text.as_bytes().into()))
            }
            Some(text) => Err(Error::DelimiterLength { bytes: text.len() }),
        }
    }
}

impl Delimiter {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Newline => b"\n",
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// What becomes of a line that is too long.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LongLine {
    /// It is delivered in pieces.
    #[default]
    Split,
    /// Only its first piece is delivered.
    Truncate,
    /// It is reported, and not delivered.
    Skip,
}

/// Whether some NUL bytes are a hole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Hole {
    /// They are content, or there are no NUL bytes.
    No,
    /// They are a hole if nothing follows, or more NUL bytes.
    Perhaps,
    Yes,
}

impl Rules {
    /// Whether the caller asked for no line from this position on.
    pub(crate) fn is_end(&self, position: &LinePosition) -> bool {
        position.within == Within::Start
            && (self.until_offset.is_some_and(|until| position.offset >= until)
                || self.until_line.zip(position.number).is_some_and(|(until, number)| number > until))
    }

    /// Whether the NUL bytes at a position are a hole.
    pub(crate) fn hole(&self, rest: &[u8], position: &LinePosition) -> Hole {
        let is_content = self.delimiter.bytes().contains(&0) || position.within == Within::Dropped;
        if rest.first() != Some(&0) || is_content {
            return Hole::No;
        }
        match rest.iter().take(HOLE_BYTES).position(|byte| *byte != 0) {
            None if rest.len() < HOLE_BYTES && position.offset > 0 => Hole::Perhaps,
            Some(_) if position.offset > 0 => Hole::No,
            _ => Hole::Yes,
        }
    }
}
