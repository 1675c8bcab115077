//! Why messages cannot be read or published.

use std::{fmt, io, time::Duration};

use super::{Sequence, incarnation::Diverged, topic};

/// Why messages cannot be read or published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The topic of a message is not valid.
    #[error("the topic {0}")]
    Topic(topic::Error),
    /// A pattern is not valid.
    #[error("the pattern {error}")]
    Pattern {
        /// The index of the pattern in the query, from 0.
        index: usize,
        /// Why it is not valid.
        error: topic::Error,
    },
    /// A subscription without a pattern.
    #[error("no pattern")]
    NoPatterns,
    /// A subscription with more patterns than [`Config::max_patterns`](super::Config::max_patterns).
    #[error("{count} patterns, at most {limit} are allowed")]
    TooManyPatterns {
        /// The number of patterns.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// A subscription that starts with more than the last [`MAX_LAST`](super::MAX_LAST) messages.
    #[error("the last {last} messages")]
    LastTooMany {
        /// The number of messages.
        last: u64,
    },
    /// The number of messages to publish at once is not in [`PUBLISH_COUNTS`](super::PUBLISH_COUNTS).
    #[error("{count} messages at once")]
    PublishCount {
        /// The number of messages.
        count: usize,
    },
    /// The message is larger than [`Config::max_message_bytes`](super::Config::max_message_bytes).
    #[error("the message has {bytes} bytes, at most {limit} are allowed")]
    TooLarge {
        /// The size of payload, key and headers.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The key is longer than [`MAX_KEY_BYTES`](super::MAX_KEY_BYTES).
    #[error("the key has {bytes} bytes")]
    KeyTooLong {
        /// The length of the key.
        bytes: usize,
    },
    /// A header has an empty name.
    #[error("the name of a header is empty")]
    HeaderNameEmpty,
    /// More than [`MAX_HEADERS`](super::MAX_HEADERS).
    #[error("{count} headers")]
    TooManyHeaders {
        /// The number of headers.
        count: usize,
    },
    /// The message id is empty, or longer than [`MAX_MESSAGE_ID_BYTES`](super::MAX_MESSAGE_ID_BYTES).
    #[error("a message id of {bytes} bytes")]
    MessageIdLength {
        /// The length of the id.
        bytes: usize,
    },
    /// The time to live is not in [`TTLS`](super::TTLS).
    #[error("a ttl of {ttl:?}")]
    Ttl {
        /// The time to live.
        ttl: Duration,
    },
    /// The topic does not hold what the publisher expected: another publisher was first. `None` means no message.
    #[error("the last sequence of the topic is {}, not {}", or_none(*current), or_none(*expected))]
    SequenceMismatch {
        /// The last sequence that the publisher expected.
        expected: Option<Sequence>,
        /// The last sequence of the topic.
        current: Option<Sequence>,
    },
    /// The message would begin a topic, and there are [`Config::max_topics`](super::Config::max_topics).
    #[error("the limit of {limit} topics is reached")]
    TooManyTopics {
        /// The limit.
        limit: usize,
    },
    /// The message would begin a topic, and there are as many that match as a quota allows.
    #[error("the limit of {limit} topics that match {quota} is reached")]
    TopicQuota {
        /// The patterns of the quota.
        quota: String,
        /// The limit.
        limit: u64,
    },
    /// The log stores as many bytes of topics that match as a quota allows.
    #[error("{used} of {limit} bytes are used of the topics that match {quota}")]
    StorageQuota {
        /// The patterns of the quota.
        quota: String,
        /// The limit.
        limit: u64,
        /// The bytes that are used.
        used: u64,
    },
    /// The position is one of another log.
    #[error("a position in another log")]
    OtherLog,
    /// The position is one of another history of the log: a copy of the log was restored, or two copies went on.
    #[error("a position in another history of the log, {}", common(.0))]
    Diverged(Diverged),
    /// The position is ahead of the log: the log has never been there.
    #[error("a position ahead of the log, whose newest sequence is {}", or_none(*newest))]
    Ahead {
        /// The newest sequence of the log; `None` if it never had a message.
        newest: Option<Sequence>,
    },
    /// The next messages of the subscription were removed before it read them, and it asked for [`OnGap::Fail`].
    ///
    /// [`OnGap::Fail`]: super::OnGap::Fail
    #[error("messages up to {removed_up_to} were removed before they were read")]
    Removed {
        /// The oldest sequence that the log holds, of any topic; `None` if it holds no message.
        oldest: Option<Sequence>,
        /// The newest sequence of the log.
        newest: Sequence,
        /// The highest removed sequence of the subscribed topics.
        removed_up_to: Sequence,
    },
    /// Another subscription reads as the same consumer now.
    #[error("another subscription reads as the consumer {name} now")]
    TakenOver {
        /// The consumer.
        name: String,
    },
    /// The name of a consumer is not valid.
    #[error("the consumer {0}")]
    Consumer(topic::Error),
    /// There are already [`Config::max_consumers`](super::Config::max_consumers).
    #[error("the limit of {limit} consumers is reached")]
    TooManyConsumers {
        /// The limit.
        limit: usize,
    },
    /// A subscription reads as the consumer, and would undo what the caller asks for with its next commit.
    #[error("a subscription reads as the consumer")]
    ConsumerConnected,
    /// There is no consumer of this name.
    #[error("no consumer")]
    NoConsumer,
    /// The commit would move the consumer back.
    #[error("a commit at {}, before the committed {committed}", or_none(*sequence))]
    CommitBehind {
        /// The sequence of the commit; `None` is the start of the log.
        sequence: Option<Sequence>,
        /// The committed sequence.
        committed: Sequence,
    },
    /// The topic is not known: it holds no message, and nothing is known of removed ones.
    #[error("a topic that the log does not know")]
    NoTopic,
    /// The disk is full; nothing was published, and a purge is not recorded yet: repeat it.
    #[error("no room on the disk, {0}")]
    Full(NeededRoom),
    /// A write or a sync failed. Whether the message is on disk is unknown; no message is accepted until a restart.
    #[error("the log cannot be written")]
    Failed,
    /// The log is closed, and accepts no more messages.
    #[error("the log is closed")]
    Closed,
    /// The cluster has not answered for as long as the server waits. Whether the message is stored is unknown.
    #[error("the cluster does not answer")]
    Unreachable,
    /// This kind of log cannot do it.
    #[error("not supported by this kind of log: {0}")]
    Unsupported(Unsupported),
    /// An I/O error while reading.
    #[error("the log cannot be read")]
    Io(#[from] io::Error),
}

/// What a log in a cluster cannot do, which the embedded log can.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unsupported {
    /// Removing the messages of a topic.
    #[error("PurgeTopic: publish messages with a `ttl`, or purge the subject with the tools of NATS")]
    Purge,
    /// Quotas of topics.
    #[error("quotas of topics: remove `stored_bytes` and `topics` from the quotas of the rules")]
    Quotas,
    /// A batch with more messages than JetStream stores at once.
    #[error("a batch of more than 1,000 messages: publish several batches")]
    LargeBatch,
    /// A second message of a topic in a batch, with an expected sequence.
    #[error(
        "`expected_sequence` on a message whose topic comes before it in the batch: set it on the first one"
    )]
    ExpectedInBatch,
    /// Two messages of a batch with the same topic and message id.
    #[error("two messages with the same `message_id` in one batch: send one of them")]
    RepeatedInBatch,
    /// Headers that JetStream cannot store.
    #[error("headers of more than 64,000 bytes: put them into the content")]
    LargeHeaders,
}

/// What the disk must have before messages can be published again.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct NeededRoom {
    /// Free bytes.
    pub bytes: u64,
    /// Files that can be created.
    pub files: u64,
}

impl fmt::Display for NeededRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, files } = self;
        write!(f, "which needs {bytes} free bytes")?;
        if *files > 0 { write!(f, " and {files} more file") } else { Ok(()) }
    }
}

fn or_none(sequence: Option<Sequence>) -> String {
    sequence.map_or_else(|| "none".into(), |sequence| sequence.to_string())
}

fn common(Diverged { last_common }: &Diverged) -> String {
    match last_common {
        None => "and where the two part is unknown".into(),
        Some(0) => "which has no message in common with it".into(),
        Some(last) => format!("which agrees with it up to {last}"),
    }
}

impl Error {
    /// The same error for another message of the same commit.
    pub(super) fn repeat(&self) -> Self {
        match self {
            Self::Full(room) => Self::Full(*room),
            Self::Io(error) => Self::Io(io::Error::new(error.kind(), error.to_string())),
            _ => Self::Failed,
        }
    }
}

/// Why a batch was not published.
#[derive(Debug, thiserror::Error)]
#[error("{}{error}", index.map_or_else(String::new, |index| format!("message {index}: ")))]
pub struct BatchError {
    /// The index of the refused message, from 0; `None` if the log refused all of them.
    pub index: Option<usize>,
    /// Why the batch was not published.
    pub error: Error,
}
