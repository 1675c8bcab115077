//! A message to publish, and the acknowledgement of one.

use std::{ops::RangeInclusive, time::Duration, time::SystemTime};

use bytes::Bytes;

use super::{Error, Sequence, topic};

/// The time to live of a message: 1 ms to 10 years.
pub const TTLS: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 1024;

/// The most headers of a message.
pub const MAX_HEADERS: usize = 64;

/// The longest message id, in bytes.
pub const MAX_MESSAGE_ID_BYTES: usize = 128;

/// A message to publish.
#[derive(Clone, Debug, Default)]
pub struct NewMessage {
    /// The topic, as the caller gave it; checked when the message is published.
    pub topic: String,
    /// The payload.
    pub content: Content,
    /// A key of the caller's choice, at most [`MAX_KEY_BYTES`].
    pub key: Option<String>,
    /// Names and values, sorted by name; at most [`MAX_HEADERS`].
    pub headers: Vec<(String, String)>,
    /// 1 to [`MAX_MESSAGE_ID_BYTES`]. A message with the id of an earlier one of its topic is not published again while
    /// the log remembers the id; the earlier one is acknowledged.
    pub message_id: Option<String>,
    /// What the topic must hold for the message to be published. Checked after `message_id`.
    pub expected: Expected,
    /// How long the message is delivered, in [`TTLS`]; `None`: as long as retention keeps it.
    pub ttl: Option<Duration>,
}

/// What a topic must hold for a message to be published.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Expected {
    /// Anything.
    #[default]
    Any,
    /// No message that has not expired.
    Empty,
    /// This message as its last one.
    Last(Sequence),
}

impl Expected {
    /// The wire's form: 0 for [`Expected::Empty`], else the last sequence.
    pub fn from_number(number: u64) -> Self {
        Sequence::new(number).map_or(Self::Empty, Self::Last)
    }
}

/// A payload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Content {
    /// Valid UTF-8.
    Text(String),
    /// Any bytes.
    Data(Bytes),
}

impl Default for Content {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

/// The acknowledgement of a message: it is on disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Published {
    /// Its sequence.
    pub sequence: Sequence,
    /// When the log accepted it.
    pub time: SystemTime,
    /// The message id was known: this acknowledges the message that was published first.
    pub duplicate: bool,
}

impl NewMessage {
    /// The size that is limited: payload, key and headers.
    pub(super) fn bytes(&self) -> usize {
        let content = match &self.content {
            Content::Text(text) => text.len(),
            Content::Data(data) => data.len(),
        };
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        content + self.key.as_ref().map_or(0, String::len) + headers
    }

    /// Checks everything that does not depend on the state of the log.
    pub(super) fn check(&self, max_bytes: usize) -> Result<(), Error> {
        topic::check(&self.topic).map_err(Error::Topic)?;
        self.check_parts(max_bytes)
    }

    /// Checks everything but the topic.
    pub(super) fn check_parts(&self, max_bytes: usize) -> Result<(), Error> {
        if let Some(bytes) = self.key.as_ref().map(String::len).filter(|bytes| *bytes > MAX_KEY_BYTES) {
            return Err(Error::KeyTooLong { bytes });
        }
        if self.headers.len() > MAX_HEADERS {
            return Err(Error::TooManyHeaders { count: self.headers.len() });
        }
        if self.headers.iter().any(|(name, _)| name.is_empty()) {
            return Err(Error::HeaderNameEmpty);
        }
        let id_bytes = self.message_id.as_ref().map(String::len);
        if let Some(bytes) = id_bytes.filter(|bytes| !(1..=MAX_MESSAGE_ID_BYTES).contains(bytes)) {
            return Err(Error::MessageIdLength { bytes });
        }
        if let Some(ttl) = self.ttl.filter(|ttl| !TTLS.contains(ttl)) {
            return Err(Error::Ttl { ttl });
        }
        let bytes = self.bytes();
        if bytes > max_bytes { Err(Error::TooLarge { bytes, limit: max_bytes }) } else { Ok(()) }
    }
}

/// The numbers of messages that a caller may publish at once.
pub const PUBLISH_COUNTS: RangeInclusive<usize> = 1..=10_000;

/// Checks how many messages a caller publishes at once.
///
/// # Errors
/// [`Error::PublishCount`].
pub fn check_publish_count(count: usize) -> Result<(), Error> {
    if PUBLISH_COUNTS.contains(&count) { Ok(()) } else { Err(Error::PublishCount { count }) }
}
