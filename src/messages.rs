//! Messages: topics, patterns, and the log they live in.
//!
//! A message is acknowledged after it is on disk, and visible only then. One sequence numbers all messages of a log; a
//! stream sees those that match in that order, each once, from any place in the history and on into what is still to
//! be published. It reads from the log alone: a slow reader costs its position, and a fast one is woken when the head
//! moves. Dropping a stream ends it, and nothing else has to know.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::stream::{self, Batching};
use embedded::{Embedded, Storage};
use reader::Reader;
use topic::Pattern;

pub mod clock;
mod consumers;
mod embedded;
mod error;
pub mod json;
mod publish;
mod reader;
pub mod retention;
pub mod tools;
pub mod topic;

pub use consumers::{ConsumerInfo, ConsumerPage, MAX_CONSUMER_BYTES, check_consumer};
pub use error::{BatchError, Error};

/// The default of [`Options::max_message_bytes`].
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// What [`Options::segment_bytes`] may be: places in a segment are numbers of 32 bits, and what is smaller is mostly
/// index.
pub const SEGMENT_SIZES: std::ops::RangeInclusive<usize> = 1024 * 1024..=1024 * 1024 * 1024;

/// The default of [`Options::segment_bytes`].
const SEGMENT_BYTES: usize = 64 * 1024 * 1024;

/// The default of [`Options::max_topics`]: a topic takes about 200 bytes of memory.
const MAX_TOPICS: usize = 1_000_000;

/// The default of [`Options::dedupe_window`]: longer than any client retries without telling anyone.
const DEDUPE_WINDOW: Duration = Duration::from_secs(120);

/// The default of [`Options::max_dedupe_ids`].
const MAX_DEDUPE_IDS: usize = 100_000;

/// The default of [`Options::max_all_dedupe_ids`]: about 500 MB of memory, where so many are published within the window.
const MAX_ALL_DEDUPE_IDS: usize = 10_000_000;

/// The default of [`Options::retention_interval`]: what retention removes is gone within a minute.
const RETENTION_INTERVAL: Duration = Duration::from_secs(20);

/// What a message's time to live may be: 1 ms to 10 years.
pub const TTLS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// The most that [`Start::Last`] looks back for.
pub const MAX_LAST: u64 = 1_000_000;

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 1024;

/// The most headers of a message.
pub const MAX_HEADERS: usize = 64;

/// The longest message id, in bytes.
pub const MAX_MESSAGE_ID_BYTES: usize = 128;

/// The log: an enum, because there is to be a second kind.
#[derive(Clone, Debug)]
pub enum Log {
    /// In a directory of this machine.
    Embedded(std::sync::Arc<Embedded>),
}

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// The most that payload, key and headers of a message have together, in bytes.
    pub max_message_bytes: usize,
    /// The most topics.
    pub max_topics: usize,
    /// A segment that has so many bytes is followed by the next.
    pub segment_bytes: usize,
    /// How long a message id is remembered.
    pub dedupe_window: Duration,
    /// How many message ids are remembered a topic.
    pub max_dedupe_ids: usize,
    /// How many message ids are remembered in all.
    pub max_all_dedupe_ids: usize,
    /// What is kept for how long: the first rule whose pattern matches a topic holds; without one, all is kept.
    pub retention: Vec<retention::Rule>,
    /// How often retention is enforced.
    pub retention_interval: Duration,
    /// Where bytes go.
    pub disk: Storage,
    /// What tells the time.
    pub clock: clock::Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_message_bytes: MAX_MESSAGE_BYTES,
            max_topics: MAX_TOPICS,
            segment_bytes: SEGMENT_BYTES,
            dedupe_window: DEDUPE_WINDOW,
            max_dedupe_ids: MAX_DEDUPE_IDS,
            max_all_dedupe_ids: MAX_ALL_DEDUPE_IDS,
            retention: Vec::new(),
            retention_interval: RETENTION_INTERVAL,
            disk: Storage::default(),
            clock: clock::Clock::default(),
        }
    }
}

/// What was found when a log was opened.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// How many messages.
    pub messages: u64,
    /// In how many segments.
    pub segments: usize,
    /// Torn tails that were set aside: where, and how many bytes.
    pub torn: Vec<(PathBuf, u64)>,
    /// What is damaged, in words.
    pub damaged: Vec<String>,
    /// How many segments were of the first version of the format, and were written anew.
    pub upgraded: usize,
}

/// Why a log cannot be opened: for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system gave an error.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What.
        source: io::Error,
    },
    /// Of another version of the format.
    #[error("{}: written in version {version} of the format, {}", path.display(), remedy(*version))]
    Version {
        /// The segment.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// A segment of another log.
    #[error("{}: a segment of another log: move it away", path.display())]
    Foreign {
        /// The segment.
        path: PathBuf,
    },
}

fn remedy(version: u32) -> &'static str {
    if version == 1 {
        "which a server upgrades at its start: start perenniald over it once"
    } else {
        "by a newer server: use one that is as new"
    }
}

/// Which messages to read.
#[derive(Clone, Debug)]
pub struct Query {
    /// Patterns, as the caller gave them.
    pub topics: Vec<String>,
    /// Where to start.
    pub start: Start,
    /// Where to stop.
    pub stop: Stop,
    /// What to do when messages that come next were removed.
    pub on_gap: OnGap,
    /// The consumer to read as: its commit is where to start, unless `start` resumes.
    pub consumer: Option<String>,
    /// How the stream is cut into batches.
    pub batching: Batching,
}

/// What to do when messages that come next were removed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnGap {
    /// End with [`Error::Removed`].
    #[default]
    Fail,
    /// Go on, and tell in an event.
    Skip,
}

/// Where to start.
#[derive(Clone, Debug, Default)]
pub enum Start {
    /// With what is published from now on.
    #[default]
    New,
    /// With the oldest message.
    Earliest,
    /// With this sequence or the next higher one.
    Sequence(u64),
    /// With the first message published at this time or later.
    Time(SystemTime),
    /// With the last so many messages that match.
    Last(u64),
    /// With the last message of each topic that matches, and then with what is published.
    LastPerTopic,
    /// Behind a batch that was delivered.
    Resume(Position),
}

/// Where to stop; the first of them that is reached.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// After this sequence.
    pub sequence: Option<u64>,
    /// Before the first message published later than this.
    pub time: Option<SystemTime>,
    /// After what was there when the stream was opened.
    pub caught_up: bool,
}

/// A place in a log: the log's identity, and the sequence up to which all was delivered.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Position {
    log: [u8; 16],
    /// All up to this sequence was delivered, did not match, or was told.
    sequence: u64,
    /// The log was not that far: the stream was to start there.
    is_awaited: bool,
    /// Gaps up to this sequence were told; 0 where `sequence` says it.
    told: u64,
    /// The head at which the last messages of topics are taken, while these are delivered; else 0.
    snapshot: u64,
}

/// Messages, encoded by [`wire::message`](crate::wire::message) as `MessagesResponse.messages`, and the position after
/// them.
pub type Batch = stream::Batch<Event, Position, Progress>;

/// How far the stream of a subscription is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// The batch ends at the end of the log.
    pub caught_up: bool,
    /// The highest sequence of a topic that is not the server's own, when the batch was made; 0 if there is none.
    pub head: u64,
}

/// Something that happened to the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// These sequences are damaged on disk and are not served.
    Damaged {
        /// The first one.
        from: u64,
        /// The last one.
        to: u64,
    },
    /// Of these sequences, messages of the topics asked for were removed by retention or a purge.
    Removed {
        /// The first one that may be missing.
        from: u64,
        /// The last one that is missing.
        to: u64,
    },
}

/// A message to publish.
#[derive(Clone, Debug, Default)]
pub struct NewMessage {
    /// Its topic, as the caller gave it.
    pub topic: String,
    /// Its payload.
    pub content: Content,
    /// What it is about.
    pub key: Option<String>,
    /// Sorted by name.
    pub headers: Vec<(String, String)>,
    /// Makes publishing safe to repeat.
    pub message_id: Option<String>,
    /// The sequence that the last message of the topic must have; 0: none.
    pub expected_sequence: Option<u64>,
    /// How long it is delivered: in [`TTLS`].
    pub ttl: Option<Duration>,
}

/// A payload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Content {
    /// `Message.text`.
    Text(String),
    /// `Message.data`.
    Data(Bytes),
}

impl Default for Content {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

/// A message is on disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Published {
    /// Its place.
    pub sequence: u64,
    /// Its time.
    pub time: SystemTime,
    /// It was there already.
    pub duplicate: bool,
}

/// A topic, and what it holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// How many messages.
    pub messages: u64,
    /// How many bytes in the log.
    pub bytes: u64,
    /// Its oldest message.
    pub first: (u64, SystemTime),
    /// Its newest message.
    pub last: (u64, SystemTime),
}

/// Some topics.
#[derive(Clone, Debug)]
pub struct TopicPage {
    /// Sorted by name.
    pub topics: Vec<TopicInfo>,
    /// The name to go on after, if there are more.
    pub next: Option<String>,
}

impl Log {
    /// Opens the embedded log in a directory, or makes one. The caller sees to it that nobody else does.
    ///
    /// # Errors
    /// What keeps the log from being opened.
    pub fn open(directory: &Path, options: Options) -> Result<(Self, Opened), OpenError> {
        let (log, opened) = Embedded::open(directory, options)?;
        Ok((Self::Embedded(log.into()), opened))
    }

    /// Opens a stream of messages. The first batch is ready at once.
    ///
    /// # Errors
    /// All that can be known before the first batch.
    pub async fn subscribe(
        &self,
        query: Query,
    ) -> Result<impl Stream<Item = Result<Batch, Error>> + Send + use<>, Error> {
        let mut reader = Reader::open(self.clone(), query).await?;
        Ok(async_stream::try_stream!({
            yield reader.first().await?;
            while !reader.is_over() {
                yield reader.next().await?;
            }
        }))
    }

    /// The topics that match a pattern, sorted by name: at most `page_size`, those behind `after`.
    ///
    /// # Errors
    /// [`Error::Pattern`].
    pub fn list_topics(
        &self,
        pattern: Option<&str>,
        page_size: usize,
        after: Option<&str>,
    ) -> Result<TopicPage, Error> {
        let Self::Embedded(log) = self;
        let pattern = Pattern::parse(pattern.unwrap_or(">"));
        let pattern = pattern.map_err(|error| Error::Pattern { index: 0, error })?;
        Ok(log.topics(&pattern, page_size, after))
    }

    /// Whether a write has failed, and so nothing can be published until a restart.
    pub fn failed(&self) -> watch::Receiver<bool> {
        let Self::Embedded(log) = self;
        log.failed()
    }

    /// Takes no more messages, and waits until those that wait are on disk. Reading goes on.
    pub async fn close(&self) {
        let Self::Embedded(log) = self;
        log.close().await;
    }
}

impl Position {
    /// All up to this sequence was delivered.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

#[cfg(test)]
mod tests;
