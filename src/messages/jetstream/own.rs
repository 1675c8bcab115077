//! The last message of each topic of the server's own, by its sequence: the commits of consumers and the states of shared
//! countdowns.
//!
//! Every server knows them, because the tail has every message in order. A message of such a topic replaces those before it
//! in the stream (`Nats-Rollup`), so there is one of each. What a server knows up to a mark is exact: neither an old leader
//! nor a replica that lags is asked whether a topic has a message.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::time::Instant;

use super::{
    JetStream,
    cluster::{Cluster, PATIENCE, PAUSE},
    fetch::{self, Request},
    native::Stored,
    tail::Tail,
};
use crate::{
    messages::{
        BatchError, Error, LastText, NewMessage, Published, Sequence, clock::time_of, topic::Pattern,
    },
    wire::message,
};

/// The messages that are asked for at once at the start.
const GROUP: u64 = 1_000;

/// The size with which an answer ends, in bytes.
const MAX_BYTES: usize = 512 * 1024;

/// Expired entries are looked for when there are this many more than after the last look.
const LOOK_EVERY: usize = 1_000;

/// The last message of a topic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Last {
    pub sequence: u64,
    /// When JetStream stored it, in nanoseconds since 1970.
    pub time: u64,
    /// When it expires, in nanoseconds since 1970; 0 for never.
    pub expires: u64,
}

impl Last {
    fn is_live(&self, now: u64) -> bool {
        self.expires == 0 || self.expires > now
    }

    pub fn published(&self) -> SystemTime {
        time_of(self.time)
    }
}

/// The topics of the server's own.
#[derive(Debug, Default)]
pub struct Own(Mutex<Topics>);

#[derive(Debug, Default)]
struct Topics {
    last: BTreeMap<Arc<str>, Last>,
    /// Look for expired ones when there are this many.
    look_at: usize,
}

impl Own {
    fn topics(&self) -> MutexGuard<'_, Topics> {
        // Each change is one call, so a panic elsewhere leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a message, which is later than all before.
    pub fn record(&self, stored: &Stored) {
        let Stored { sequence, time, expires, .. } = *stored;
        let mut topics = self.topics();
        topics.last.insert(stored.topic.clone(), Last { sequence, time, expires });
        if topics.last.len() > topics.look_at {
            topics.last.retain(|_, last| last.is_live(time));
            topics.look_at = topics.last.len() + LOOK_EVERY;
        }
    }

    /// The last message of a topic that has not expired.
    pub fn last(&self, topic: &str, now: u64) -> Option<Last> {
        self.topics().last.get(topic).copied().filter(|last| last.is_live(now))
    }

    /// The topics that match, with their last messages that have not expired, sorted by name.
    pub fn matching(&self, pattern: &Pattern, now: u64) -> Vec<(Arc<str>, Last)> {
        let topics = self.topics();
        let from = (Bound::Included(pattern.prefix()), Bound::Unbounded);
        let from = topics.last.range::<str, _>(from);
        let of_prefix = from.take_while(|(topic, _)| topic.starts_with(pattern.prefix()));
        let matching = of_prefix.filter(|(topic, last)| pattern.matches(topic) && last.is_live(now));
        matching.map(|(topic, last)| (topic.clone(), *last)).collect()
    }

    /// An estimate of the bytes that they take.
    pub fn memory(&self) -> usize {
        self.topics().last.keys().map(|topic| topic.len() + size_of::<(Arc<str>, Last)>()).sum()
    }
}

/// Reads the messages of the server's own topics up to a mark.
pub async fn load(cluster: &Cluster, tail: &Tail, mark: u64) -> Result<(), Error> {
    let mut after = 0;
    let mut deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let request = Request {
            sequence: Some(after + 1),
            next_of: Some(cluster.subjects.of("$>")),
            batch: Some(GROUP),
            max_bytes: Some(MAX_BYTES),
            ..Request::default()
        };
        let answer = fetch::ask(cluster, &request).await?.unwrap_or_default();
        for raw in &answer {
            after = raw.sequence;
            // A replica that has the mark, or a later message, has everything before it.
            if after >= mark {
                return Ok(());
            }
            if let Some(stored) = fetch::stored(cluster, raw) {
                tail.record_own(&stored);
            }
        }
        if answer.is_empty() {
            // The mark may have expired: then this one is found.
            cluster.mark().await?;
            tokio::time::sleep(PAUSE).await;
        } else {
            deadline = Instant::now() + PATIENCE;
        }
    }
    Err(Error::Unreachable)
}

impl JetStream {
    /// Publishes a message, also to a topic of the server's own.
    pub async fn publish_own(&self, message: NewMessage) -> Result<Published, Error> {
        self.check_open()?;
        let ready = self.ready_own(message)?;
        self.publish_ready(ready).await
    }

    /// Publishes all messages or none, also to topics of the server's own.
    pub async fn publish_own_batch(&self, messages: Vec<NewMessage>) -> Result<Vec<Published>, BatchError> {
        self.publish_together(messages, Self::ready_own).await
    }

    /// The last message of a topic of the server's own that has not expired, also if another server has just published it.
    pub async fn last_text(&self, topic: &str) -> Result<Option<LastText>, Error> {
        loop {
            self.barrier().await?;
            let Some(last) = self.tail.own.last(topic, self.now()) else { return Ok(None) };
            if let Some(stored) = self.read_one(last.sequence).await? {
                let text = message::text(&stored.bytes).map(str::to_owned);
                let sequence = Sequence::of_message(last.sequence);
                return Ok(Some(LastText { sequence, time: last.published(), text }));
            }
            // Another one has replaced it; if there is no other, someone has removed it from the stream.
            self.barrier().await?;
            if self.tail.own.last(topic, self.now()) == Some(last) {
                return Ok(None);
            }
        }
    }

    /// The message of a sequence, if the stream has it.
    async fn read_one(&self, sequence: u64) -> Result<Option<Stored>, Error> {
        if let Some(stored) = self.tail.find(sequence) {
            return Ok(Some(stored));
        }
        let range = self.history.read(&self.cluster, sequence, sequence).await?;
        Ok(range.messages.iter().find(|message| message.sequence == sequence).cloned())
    }
}
