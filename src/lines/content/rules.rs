//! What a caller takes for a line, and which line is its last.

use super::position::{LinePosition, Within};
use crate::lines::Error;

/// A run of this many NUL bytes where a line should start is a hole: reserved space, or the offset that a writer kept
/// when its file was truncated. A shorter run may be content, as in UTF-16.
const HOLE_BYTES: usize = 64;

/// The smallest [`Rules::max_line_bytes`] that a caller may ask for.
pub const MIN_ASKED_LINE_BYTES: usize = 16;

/// The shortest line that can be too long: a cut needs room for a character.
const MIN_LINE_BYTES: usize = 4;

/// The longest delimiter that a caller may ask for.
pub const MAX_DELIMITER_BYTES: usize = 16;

/// What a line is, and where to stop.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rules {
    /// What ends a line.
    pub delimiter: Delimiter,
    /// What becomes of a line that has more than `max_line_bytes`.
    pub long_line: LongLine,
    /// The most bytes of a line: from [`MIN_ASKED_LINE_BYTES`] to
    /// [`Options::max_line_bytes`](super::super::Options::max_line_bytes), which is the default.
    pub max_line_bytes: Option<usize>,
    /// The stream ends after the line with this number, from 1.
    pub until_line: Option<u64>,
    /// The stream ends before the first line that starts at or after this offset.
    pub until_offset: Option<u64>,
}

impl Rules {
    /// The rules under the operator's limit, which applies if the caller asks for no other.
    ///
    /// # Errors
    /// [`Error::LineBytes`].
    pub(crate) fn within(self, limit: usize) -> Result<Self, Error> {
        let bytes = match self.max_line_bytes {
            None => limit,
            Some(asked) if (MIN_ASKED_LINE_BYTES..=limit).contains(&asked) => asked,
            Some(asked) => return Err(Error::LineBytes { asked, limit }),
        };
        Ok(Self { max_line_bytes: Some(bytes.max(MIN_LINE_BYTES)), ..self })
    }

    /// A line with more bytes than this is too long.
    pub(crate) fn line_limit(&self) -> usize {
        self.max_line_bytes.unwrap_or(usize::MAX)
    }
}

impl Default for Rules {
    fn default() -> Self {
        let (delimiter, long_line) = (Delimiter::default(), LongLine::default());
        Self { delimiter, long_line, max_line_bytes: None, until_line: None, until_offset: None }
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
