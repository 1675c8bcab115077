//! Consumers: cursors that the log keeps by name.

use std::time::SystemTime;

use super::{Error, Position, Sequence, topic};
use crate::cursor;

/// The longest name of a consumer, in bytes.
pub const MAX_CONSUMER_BYTES: usize = 128;

/// A consumer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConsumerInfo {
    /// Its name.
    pub name: String,
    /// The position that was committed last; an error if it is damaged on disk, or if a newer server wrote it.
    pub position: Result<Position, cursor::Error>,
    /// When it was committed.
    pub time: SystemTime,
    /// The highest sequence of the users' topics; `None` if they never had a message.
    pub head: Option<Sequence>,
    /// A subscription reads as this consumer now.
    pub is_connected: bool,
}

/// A page of a list of consumers.
#[derive(Clone, Debug)]
pub struct ConsumerPage {
    /// Sorted by name.
    pub consumers: Vec<ConsumerInfo>,
    /// The name to continue after; `None` on the last page.
    pub next: Option<String>,
}

/// Checks the name of a consumer: written as a topic, at most [`MAX_CONSUMER_BYTES`].
///
/// # Errors
/// [`Error::Consumer`].
pub fn check_consumer(consumer: &str) -> Result<(), Error> {
    let bytes = consumer.len();
    let length = if bytes > MAX_CONSUMER_BYTES { Err(topic::Error::TooLong { bytes }) } else { Ok(()) };
    length.and_then(|()| topic::check(consumer)).map_err(Error::Consumer)
}
