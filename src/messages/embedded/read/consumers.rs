//! Consumers: cursors that are kept by name in the log itself.
//!
//! The commit of a consumer is the last message of the topic `$consumer.NAME`, which belongs to the server. Only the last
//! message of such a topic is kept, so a commit is on disk when it is acknowledged, survives retention, and is gone when
//! the topic is purged. One subscription at a time reads as a consumer: a second one takes the lease, and the first ends.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio_util::sync::CancellationToken;

use crate::{
    cursor,
    messages::{
        ConsumerInfo, ConsumerPage, Content, Error, Expected, LastText, NewMessage, Position, Sequence,
        check_consumer,
        embedded::Embedded,
        topic::{CONSUMER_PREFIX, Pattern},
    },
    wire::message,
};

/// The commit of a consumer, as the log has it.
#[derive(Clone, Debug)]
struct Commit {
    sequence: Sequence,
    time: SystemTime,
    /// An error if it is damaged on disk, or if a newer server wrote it.
    position: Result<Position, cursor::Error>,
}

impl Embedded {
    /// Stores a position under the name of a consumer. It is on disk when this returns the time of the commit.
    pub async fn commit_cursor(
        &self,
        consumer: &str,
        position: Position,
        may_rewind: bool,
    ) -> Result<SystemTime, Error> {
        let topic = topic_of(consumer)?;
        self.check(&position)?;
        loop {
            let last = self.last_of(&topic);
            let commit = self.last_commit(&topic).await?;
            if let Some(commit) = commit.as_ref().filter(|_| !may_rewind) {
                self.check_not_behind(consumer, &position, commit)?;
            }
            let last = commit.map(|commit| commit.sequence).or(last);
            let message = NewMessage {
                topic: topic.clone(),
                content: Content::Text(cursor::encode(&position)),
                expected: last.map_or(Expected::Empty, Expected::Last),
                ..NewMessage::default()
            };
            match self.publish_own(message).await {
                // Another commit came in between.
                Err(Error::SequenceMismatch { .. }) => {}
                result => return Ok(result?.time),
            }
        }
    }

    /// Checks that a position is not before a commit. One that nothing can read from any more, because it is damaged or
    /// of another history, is before every position.
    fn check_not_behind(&self, consumer: &str, position: &Position, commit: &Commit) -> Result<(), Error> {
        match &commit.position {
            Ok(before) if self.check(before).is_ok() => match before.sequence() {
                Some(committed) if position.sequence() < Some(committed) => {
                    Err(Error::CommitBehind { sequence: position.sequence(), committed })
                }
                _ => Ok(()),
            },
            Err(error @ cursor::Error::Version { .. }) => Err(unreadable(consumer, *error)),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The position that a consumer has committed; `None` if it has not.
    pub async fn consumer_position(&self, consumer: &str) -> Result<Option<Position>, Error> {
        let topic = topic_of(consumer)?;
        let last = self.last_of(&topic);
        let commit = self.last_commit(&topic).await?;
        // To start elsewhere would skip messages in silence.
        let is_unreadable = commit.is_none() && last.is_some() && self.last_of(&topic) == last;
        match commit {
            Some(commit) => commit.position.map(Some).map_err(|error| unreadable(consumer, error)),
            None if is_unreadable => Err(unreadable(consumer, cursor::Error::Malformed)),
            None => Ok(None),
        }
    }

    async fn last_commit(&self, topic: &str) -> Result<Option<Commit>, Error> {
        Ok(self.last_text(topic).await?.map(|LastText { sequence, time, text }| {
            let position = text.ok_or(cursor::Error::Malformed).and_then(|text| cursor::decode(&text));
            Commit { sequence, time, position }
        }))
    }

    /// The last message of a topic of the server's own that has not expired.
    pub async fn last_text(&self, topic: &str) -> Result<Option<LastText>, Error> {
        let last = self.read_last(topic.into()).await?;
        Ok(last.map(|(sequence, time, bytes)| {
            let text = bytes.as_ref().and_then(|bytes| message::text(bytes)).map(str::to_owned);
            LastText { sequence: Sequence::of_message(sequence), time, text }
        }))
    }

    /// The consumers that `shows` names, sorted by name: at most `page_size`, after the name `after`.
    pub async fn list_consumers(
        &self,
        page_size: usize,
        after: Option<&str>,
        shows: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<ConsumerPage, Error> {
        let after = format!("{CONSUMER_PREFIX}{}", after.unwrap_or_default());
        let pattern = Pattern::parse(&format!("{CONSUMER_PREFIX}>")).map_err(Error::Consumer)?;
        let shows = move |topic: &str| topic.strip_prefix(CONSUMER_PREFIX).is_some_and(&shows);
        let page = self.list_topics(pattern, page_size, Some(&after), shows).await?;
        let mut consumers = Vec::with_capacity(page.topics.len());
        for topic in &page.topics {
            let Some(name) = topic.name.strip_prefix(CONSUMER_PREFIX) else { continue };
            consumers.extend(self.consumer(name).await?);
        }
        let next = page.next.and_then(|topic| Some(topic.strip_prefix(CONSUMER_PREFIX)?.to_owned()));
        Ok(ConsumerPage { consumers, next })
    }

    /// A consumer; `None` if it does not exist. A commit that cannot be read is a part of the answer: the consumer exists,
    /// and no reader can continue with it.
    pub async fn consumer(&self, name: &str) -> Result<Option<ConsumerInfo>, Error> {
        let topic = topic_of(name)?;
        let last = self.last_stamp(&topic);
        let (time, position) = match (self.last_commit(&topic).await?, last) {
            (Some(Commit { time, position, .. }), _) => (time, position),
            // Its block is damaged.
            (None, Some(last)) if self.last_stamp(&topic) == Some(last) => {
                (last.time, Err(cursor::Error::Malformed))
            }
            (None, _) => return Ok(None),
        };
        let (head, is_connected) = (self.newest(), self.is_leased(name));
        Ok(Some(ConsumerInfo { name: name.into(), position, time, head, is_connected }))
    }

    /// Deletes a consumer for good.
    pub async fn delete_consumer(&self, name: &str) -> Result<(), Error> {
        match self.purge_topic(&topic_of(name)?, None).await {
            // It was deleted before.
            Ok(0) | Err(Error::NoTopic) => Err(Error::NoConsumer),
            result => result.map(|_| ()),
        }
    }
}

/// The commit of a consumer cannot be read.
fn unreadable(consumer: &str, error: cursor::Error) -> Error {
    let text = format!("the commit of the consumer `{consumer}` is {error}");
    io::Error::new(io::ErrorKind::InvalidData, text).into()
}

/// The topic of a consumer.
pub(super) fn topic_of(consumer: &str) -> Result<String, Error> {
    check_consumer(consumer)?;
    Ok(format!("{CONSUMER_PREFIX}{consumer}"))
}

/// The leases of consumers that subscriptions hold.
#[derive(Clone, Debug, Default)]
pub struct Leases(Arc<Mutex<HashMap<String, CancellationToken>>>);

impl Leases {
    fn map(&self) -> MutexGuard<'_, HashMap<String, CancellationToken>> {
        // Each change is one call, so a panic elsewhere leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lease of a consumer. The subscription that held it ends.
    pub fn take(&self, consumer: &str) -> Lease {
        let is_over = CancellationToken::new();
        if let Some(before) = self.map().insert(consumer.into(), is_over.clone()) {
            before.cancel();
        }
        self.lease(consumer, is_over)
    }

    /// Takes the lease of a consumer if no subscription holds it.
    pub fn take_free(&self, consumer: &str) -> Option<Lease> {
        let is_over = CancellationToken::new();
        match self.map().entry(consumer.into()) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(free) => free.insert(is_over.clone()),
        };
        Some(self.lease(consumer, is_over))
    }

    fn lease(&self, consumer: &str, is_over: CancellationToken) -> Lease {
        Lease { leases: self.clone(), consumer: consumer.into(), is_over }
    }

    /// A subscription reads as this consumer.
    pub fn is_taken(&self, consumer: &str) -> bool {
        self.map().contains_key(consumer)
    }
}

/// The right to read as a consumer, until this is dropped or another subscription takes it.
#[derive(Debug)]
pub struct Lease {
    leases: Leases,
    consumer: String,
    is_over: CancellationToken,
}

impl Lease {
    /// Fails if another subscription has taken the lease.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_over.is_cancelled() {
            Err(Error::TakenOver { name: self.consumer.clone() })
        } else {
            Ok(())
        }
    }

    /// Waits until another subscription takes the lease.
    pub async fn over(&self) {
        self.is_over.cancelled().await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Once it is over, the entry is another subscription's.
        let mut leases = self.leases.map();
        if !self.is_over.is_cancelled() {
            leases.remove(&self.consumer);
        }
    }
}
