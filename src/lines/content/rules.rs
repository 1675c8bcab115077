//! What a caller takes for a line, and which line is its last.

use super::{
    filter::Filter,
    hole::{self, Nuls},
    position::{LinePosition, Within},
};
use crate::lines::Error;

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
    /// Which lines are delivered: all by default.
    pub filter: Option<Filter>,
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
        Self {
            delimiter,
            long_line,
            max_line_bytes: None,
            until_line: None,
            until_offset: None,
            filter: None,
        }
    }
}

/// What ends a line.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
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

impl Rules {
    /// Whether the caller asked for no line from this position on.
    pub(crate) fn is_end(&self, position: &LinePosition) -> bool {
        position.within == Within::Start
            && (self.until_offset.is_some_and(|until| position.offset >= until)
                || self.until_line.zip(position.number).is_some_and(|(until, number)| number > until))
    }

    /// NUL bytes are content, wherever they are: the caller chose a delimiter that has one.
    pub(crate) fn has_nul_content(&self) -> bool {
        self.delimiter.bytes().contains(&0)
    }

    /// The NUL bytes among the bytes at an offset.
    pub(crate) fn nuls(&self, bytes: &[u8], offset: u64) -> Nuls {
        if self.has_nul_content() { Nuls::Content } else { hole::find(bytes, offset == 0) }
    }
}
