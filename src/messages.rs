//! Messages: topics, patterns, and the log they live in.

use std::time::SystemTime;

use bytes::Bytes;
use futures::Stream;
use serde::{Deserialize, Serialize};

use crate::wire::Batching;

/// The log: an enum, because there is to be a second kind. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Log {}

/// Which messages to read.
#[derive(Clone, Debug)]
pub struct Query {
    /// Patterns, as the caller gave them.
    pub topics: Vec<String>,
    /// Where to start.
    pub start: Start,
    /// Where to stop.
    pub stop: Stop,
    /// How the stream is cut into batches.
    pub batching: Batching,
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
pub struct Position {}

/// Some messages, and where they leave the reader.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Encoded by [`wire::message`](crate::wire::message): slices of `MessagesResponse.messages`, in order.
    pub items: Vec<Bytes>,
    /// How many messages `items` holds.
    pub count: usize,
    /// What happened before them.
    pub events: Vec<Event>,
    /// Behind this batch.
    pub position: Position,
    /// The batch ends at the end of the log.
    pub caught_up: bool,
    /// The highest sequence in the log when the batch was made; 0 if it is empty.
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

/// Why messages cannot be read or published.
#[derive(Debug, thiserror::Error)]
pub enum Error {}

impl Log {
    /// Opens a stream of messages. The first batch is ready at once.
    ///
    /// # Errors
    /// All that can be known before the first batch.
    pub async fn subscribe(
        &self,
        query: Query,
    ) -> Result<impl Stream<Item = Result<Batch, Error>> + Send + 'static, Error> {
        let _ = query;
        Ok(futures::stream::empty())
    }
}
