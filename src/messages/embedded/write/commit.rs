//! A commit in progress: messages get their sequences, and their bytes as readers will see them.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::queue::Outcome;
use crate::{
    messages::{
        Content, Error, NewMessage,
        embedded::{
            age::Moment,
            expiry,
            format::block::{Block, Entry, place_of},
            index::{
                dedupe::Key,
                quotas::{Added, Change, Share},
            },
            time_of,
        },
        topic,
    },
    wire::message,
};

/// The size of a body at which a block is closed: a reader reads a block as a whole.
const BLOCK_BYTES: usize = 64 * 1024;

/// Requests and their outcomes, which are not on disk yet.
pub struct Commit {
    pub builder: CommitBuilder,
    /// Expiry is judged at this moment,
    pub moment: Moment,
    /// and message ids at this one.
    pub moment_of_ids: Moment,
    /// Why nothing can be published now.
    pub refused: Option<Error>,
    pub answers: Vec<(oneshot::Sender<Outcome>, Outcome, OwnedSemaphorePermit)>,
}

/// Collects the messages of a commit.
#[derive(Debug, Default)]
pub struct CommitBuilder {
    /// The time of the commit, in nanoseconds since 1970.
    pub time: u64,
    /// The sequence of the next message.
    pub next_sequence: u64,
    blocks: Vec<Block>,
    open: OpenBlock,
    closed_bytes: usize,
    /// The last message of each topic.
    lasts: HashMap<Arc<str>, Last>,
    ids: HashMap<Key, u64>,
    new_topics: usize,
    /// The consumers among the new topics.
    new_consumers: usize,
    /// What its messages take of the quotas.
    added: Added,
    undo: Vec<Undo>,
}

/// The last message of a topic in a commit.
#[derive(Clone, Copy, Debug)]
struct Last {
    sequence: u64,
    bytes: u64,
}

/// The block that is being filled.
#[derive(Debug, Default)]
struct OpenBlock {
    topics: Vec<Arc<str>>,
    places: HashMap<Arc<str>, u32>,
    entries: Vec<Entry>,
    ids: Vec<(u32, Box<str>)>,
    body: Vec<u8>,
}

/// What takes a message back.
#[derive(Debug)]
struct Undo {
    topic: Arc<str>,
    last: Option<Last>,
    id: Option<Key>,
    is_new: bool,
    share: Share,
    change: Change,
    body: usize,
    topics: usize,
}

/// A state of a commit to come back to.
#[derive(Clone, Copy, Debug)]
pub struct Savepoint(usize);

impl CommitBuilder {
    /// A commit without messages.
    pub fn new(time: u64, next_sequence: u64) -> Self {
        Self { time, next_sequence, ..Self::default() }
    }

    /// The size of its messages.
    pub fn bytes(&self) -> usize {
        self.closed_bytes + self.open.body.len()
    }

    /// The last sequence of a topic in the commit.
    pub fn last(&self, topic: &str) -> Option<u64> {
        self.lasts.get(topic).map(|last| last.sequence)
    }

    /// The sequence of the message with an id, if it is in the commit.
    pub fn find(&self, key: Key) -> Option<u64> {
        self.ids.get(&key).copied()
    }

    /// The number of topics that begin with the commit.
    pub fn new_topics(&self) -> usize {
        self.new_topics
    }

    /// The number of consumers that begin with the commit.
    pub fn new_consumers(&self) -> usize {
        self.new_consumers
    }

    /// What the messages take of the quotas.
    pub fn added(&self) -> &Added {
        &self.added
    }

    /// What the last message takes of the quotas, until it cannot be taken back.
    pub fn last_change(&self) -> Change {
        self.undo.last().map(|undo| undo.change).unwrap_or_default()
    }

    /// Adds a message and returns its sequence. `is_new`: the topic holds no message.
    pub fn push(
        &mut self,
        topic: Arc<str>,
        new: &NewMessage,
        id: Option<Key>,
        is_new: bool,
        share: Share,
    ) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let (body, topics) = (self.open.body.len(), self.open.topics.len());
        let bytes = self.open.push(topic.clone(), sequence, self.time, new);
        let last = self.lasts.insert(topic.clone(), Last { sequence, bytes });
        let replaced = share.replaced.map_or(0, |kept| last.map_or(kept, |last| last.bytes));
        let change = Change {
            topics: i64::from(is_new),
            bytes: bytes.cast_signed().saturating_sub_unsigned(replaced),
        };
        self.added.add(&share, change);
        self.new_topics += usize::from(is_new);
        self.new_consumers += usize::from(is_new && topic::is_of_consumer(&topic));
        if let Some(key) = id {
            self.ids.insert(key, sequence);
        }
        self.undo.push(Undo { topic, last, id, is_new, share, change, body, topics });
        sequence
    }

    /// A state to come back to with [`roll_back`](Self::roll_back), until the block is closed.
    pub fn savepoint(&mut self) -> Savepoint {
        Savepoint(self.undo.len())
    }

    /// Takes back the messages that were added after a savepoint.
    pub fn roll_back(&mut self, savepoint: Savepoint) {
        while self.undo.len() > savepoint.0 {
            let Some(Undo { topic, last, id, is_new, share, change, body, topics }) = self.undo.pop() else {
                return;
            };
            self.added.take_back(&share, change);
            self.new_topics -= usize::from(is_new);
            self.new_consumers -= usize::from(is_new && topic::is_of_consumer(&topic));
            match last {
                Some(last) => self.lasts.insert(topic, last),
                None => self.lasts.remove(&topic),
            };
            if let Some(key) = id {
                self.ids.remove(&key);
            }
            self.next_sequence -= 1;
            self.open.pop(body, topics);
        }
    }

    /// Closes the current block if it is large enough. Messages that were added before this cannot be taken back.
    pub fn close_if_full(&mut self) {
        if self.open.body.len() >= BLOCK_BYTES {
            self.close();
        }
        self.undo.clear();
    }

    fn close(&mut self) {
        let OpenBlock { topics, entries, ids, body, .. } = std::mem::take(&mut self.open);
        if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
            self.closed_bytes += body.len();
            let (first_sequence, last_sequence, body) = (first.sequence, last.sequence, Bytes::from(body));
            let time = self.time;
            self.blocks.push(Block { first_sequence, last_sequence, time, topics, entries, ids, body });
        }
    }

    /// The blocks of the commit.
    pub fn finish(mut self) -> Vec<Block> {
        self.close();
        self.blocks
    }
}

impl OpenBlock {
    /// Adds a message and returns its size.
    fn push(&mut self, topic: Arc<str>, sequence: u64, time: u64, new: &NewMessage) -> u64 {
        let place = *self.places.entry(topic.clone()).or_insert_with(|| {
            self.topics.push(topic);
            place_of(self.topics.len() - 1)
        });
        if let Some(id) = &new.message_id {
            self.ids.push((place_of(self.entries.len()), id.as_str().into()));
        }
        let (content, is_text) = match &new.content {
            Content::Text(text) => (text.as_bytes(), true),
            Content::Data(data) => (data.as_ref(), false),
        };
        let published = time_of(time);
        let expires = new.ttl.map_or(0, |ttl| expiry(published + ttl));
        let start = self.body.len();
        message::put(
            &mut self.body,
            &message::Message {
                sequence,
                topic: &new.topic,
                time: published,
                key: new.key.as_deref(),
                headers: &new.headers,
                content,
                is_text,
                message_id: new.message_id.as_deref(),
                expires: (expires != 0)
                    .then(|| SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(expires)),
            },
        );
        let checksum = crc32c::crc32c(self.body.get(start..).unwrap_or_default());
        let (start, end) = (place_of(start), place_of(self.body.len()));
        self.entries.push(Entry { sequence, topic: place, start, end, checksum, expires });
        u64::from(end - start)
    }

    fn pop(&mut self, body: usize, topics: usize) {
        self.entries.pop();
        let count = place_of(self.entries.len());
        self.ids.retain(|(place, _)| *place < count);
        self.body.truncate(body);
        for topic in self.topics.drain(topics..) {
            self.places.remove(&topic);
        }
    }
}
