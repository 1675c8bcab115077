//! Why messages cannot be read or published.

use std::{io, time::Duration};

use super::topic;

/// Why messages cannot be read or published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The topic of a message.
    #[error("the topic {0}")]
    Topic(topic::Error),
    /// A pattern of a subscription.
    #[error("the pattern {error}")]
    Pattern {
        /// Its place in the list.
        index: usize,
        /// What is wrong with it.
        error: topic::Error,
    },
    /// A subscription without patterns.
    #[error("no pattern")]
    NoPatterns,
    /// More than [`Options::max_message_bytes`].
    #[error("the message has {bytes} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Payload, key and headers.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// More than [`MAX_KEY_BYTES`].
    #[error("the key has {bytes} bytes")]
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A header without a name.
    #[error("a header's name is empty")]
    HeaderNameEmpty,
    /// More than [`MAX_HEADERS`].
    #[error("{count} headers")]
    TooManyHeaders {
        /// How many.
        count: usize,
    },
    /// Empty, or more than [`MAX_MESSAGE_ID_BYTES`].
    #[error("a message id of {bytes} bytes")]
    MessageIdLength {
        /// Its length.
        bytes: usize,
    },
    /// Someone else published first.
    #[error("the last message of the topic has sequence {current}, not {expected}")]
    SequenceMismatch {
        /// As asked for.
        expected: u64,
        /// As it is; 0: there is none.
        current: u64,
    },
    /// One topic more than [`Options::max_topics`].
    #[error("there are {limit} topics")]
    TooManyTopics {
        /// The most.
        limit: usize,
    },
    /// The position is one of another log.
    #[error("a position in another log")]
    Mismatch,
    /// Messages that come next were removed, and the reader did not ask to skip them.
    #[error("messages up to {through} were removed before they were read")]
    Removed {
        /// The oldest sequence that is there, of the topics asked for or not; 0 if there is none.
        oldest: u64,
        /// The newest sequence.
        newest: u64,
        /// The newest one of the topics asked for that was removed.
        through: u64,
    },
    /// Another reader came under the same consumer.
    #[error("another reader came under the consumer {name}")]
    TakenOver {
        /// The consumer.
        name: String,
    },
    /// Not a name for a consumer.
    #[error("the consumer {0}")]
    Consumer(topic::Error),
    /// There is no such consumer.
    #[error("no consumer")]
    NoConsumer,
    /// A commit would move the consumer back.
    #[error("a commit at {sequence}, where {committed} is committed")]
    CommitBehind {
        /// As asked for.
        sequence: u64,
        /// As it is.
        committed: u64,
    },
    /// The topic has no messages.
    #[error("a topic without messages")]
    NoTopic,
    /// Out of [`TTLS`](super::TTLS).
    #[error("a ttl of {ttl:?}")]
    Ttl {
        /// As asked for.
        ttl: Duration,
    },
    /// The log has never been that far.
    #[error("a position ahead of the log, whose newest sequence is {newest}")]
    Ahead {
        /// As it is.
        newest: u64,
    },
    /// No room on the disk: nothing was published.
    #[error("no room on the disk")]
    Full,
    /// A write went wrong; whether the message is on disk is not known.
    #[error("the log cannot be written")]
    Failed,
    /// The log takes no more messages.
    #[error("the log is closed")]
    Closed,
    /// The file system gave an error while reading.
    #[error("reading went wrong")]
    Io(#[from] io::Error),
}

impl Error {
    /// The same for another message of a commit.
    pub(super) fn repeat(&self) -> Self {
        match self {
            Self::Full => Self::Full,
            _ => Self::Failed,
        }
    }
}

/// Why a batch was not published.
#[derive(Debug, thiserror::Error)]
#[error("message {index}: {error}")]
pub struct BatchError {
    /// The message, from 0; none where all were refused alike.
    pub index: usize,
    /// What is wrong with it.
    pub error: Error,
}
