//! Consumers: a cursor by a name, kept in the log.
//!
//! What a consumer has committed is the last message of a topic of the server's own, `$consumer.NAME`, of which only
//! the last message is kept: it is on disk when it is acknowledged, survives retention, and is gone when it is purged.
//! One reader at a time reads as a consumer: a second one takes over, and the first is told.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio_util::sync::CancellationToken;

use super::{
    Content, Error, Log, NewMessage, Position,
    topic::{self, Pattern},
};
use crate::{
    cursor::{self, Kind},
    wire::message,
};

/// The topics of consumers begin with this.
pub(super) const PREFIX: &str = "$consumer.";

/// The longest name of a consumer, in bytes.
pub const MAX_CONSUMER_BYTES: usize = 128;

/// A consumer, and where it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConsumerInfo {
    /// Its name.
    pub name: String,
    /// What was committed last.
    pub position: Position,
    /// When it was committed.
    pub time: SystemTime,
    /// The newest sequence of a topic that is not the server's own.
    pub head: u64,
    /// Someone reads as it now.
    pub is_connected: bool,
}

/// Some consumers.
#[derive(Clone, Debug)]
pub struct ConsumerPage {
    /// Sorted by name.
    pub consumers: Vec<ConsumerInfo>,
    /// The name to go on after, if there are more.
    pub next: Option<String>,
}

/// What a consumer has committed.
#[derive(Clone, Debug)]
struct Committed {
    sequence: u64,
    time: SystemTime,
    /// None: it is damaged on disk.
    position: Option<Position>,
}

impl Log {
    /// Keeps a position under a name; it is on disk when this returns, with the time of the commit.
    ///
    /// # Errors
    /// [`Error::Consumer`], [`Error::Mismatch`], [`Error::Ahead`], [`Error::CommitBehind`], or what is wrong with the
    /// log.
    pub async fn commit_cursor(
        &self,
        consumer: &str,
        position: Position,
        may_rewind: bool,
    ) -> Result<SystemTime, Error> {
        let Self::Embedded(log) = self;
        let topic = topic_of(consumer)?;
        position.check(log.id(), log.head())?;
        loop {
            // If what was committed cannot be read any more, it is replaced all the same.
            let last = log.last_of(&topic);
            let committed = self.committed(&topic).await?;
            let before = committed.as_ref().and_then(|committed| committed.position.as_ref());
            if let Some(committed) = before.map(Position::sequence)
                && position.sequence < committed
                && !may_rewind
            {
                return Err(Error::CommitBehind { sequence: position.sequence, committed });
            }
            let message = NewMessage {
                topic: topic.clone(),
                content: Content::Text(cursor::encode(Kind::Messages, &position)),
                expected_sequence: Some(committed.map_or(last, |committed| committed.sequence)),
                ..NewMessage::default()
            };
            match self.publish_own(message).await {
                // Someone else committed in between.
                Err(Error::SequenceMismatch { .. }) => {}
                result => return Ok(result?.time),
            }
        }
    }

    /// What a consumer has committed; none if it has not.
    pub(super) async fn consumer_position(&self, consumer: &str) -> Result<Option<Position>, Error> {
        let Self::Embedded(log) = self;
        let topic = topic_of(consumer)?;
        let last = log.last_of(&topic);
        let committed = self.committed(&topic).await?;
        // To begin elsewhere would pass over messages in silence.
        let is_unread = committed.is_none() && last > 0 && log.last_of(&topic) == last;
        let damaged =
            || io::Error::new(io::ErrorKind::InvalidData, "what a consumer has committed is damaged");
        match committed {
            Some(committed) => Ok(Some(committed.position.ok_or_else(damaged)?)),
            None if is_unread => Err(damaged().into()),
            None => Ok(None),
        }
    }

    async fn committed(&self, topic: &str) -> Result<Option<Committed>, Error> {
        Ok(self.last_text(topic).await?.map(|(sequence, time, text)| {
            let position = text.and_then(|text| cursor::decode(Kind::Messages, &text).ok());
            Committed { sequence, time, position }
        }))
    }

    /// The last message of a topic of the server's own that has not expired: its sequence, its time, and its text, if
    /// it can be read.
    pub(crate) async fn last_text(
        &self,
        topic: &str,
    ) -> Result<Option<(u64, SystemTime, Option<String>)>, Error> {
        let Self::Embedded(log) = self;
        let last = log.last_message(topic).await?;
        Ok(last.map(|(sequence, time, bytes)| {
            let text = bytes.as_ref().and_then(|bytes| message::text(bytes)).map(str::to_owned);
            (sequence, time, text)
        }))
    }

    /// The consumers, sorted by name: at most `page_size`, those behind `after`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn list_consumers(&self, page_size: usize, after: Option<&str>) -> Result<ConsumerPage, Error> {
        let Self::Embedded(log) = self;
        let after = format!("{PREFIX}{}", after.unwrap_or_default());
        let pattern = Pattern::parse(&format!("{PREFIX}>")).map_err(Error::Consumer)?;
        let page = log.topics(&pattern, page_size, Some(&after));
        let mut consumers = Vec::with_capacity(page.topics.len());
        for topic in page.topics {
            let Some(name) = topic.name.strip_prefix(PREFIX) else { continue };
            consumers.extend(self.consumer(name).await?);
        }
        let next = page.next.and_then(|topic| Some(topic.strip_prefix(PREFIX)?.to_owned()));
        Ok(ConsumerPage { consumers, next })
    }

    /// A consumer, if there is one of this name.
    ///
    /// # Errors
    /// [`Error::Consumer`], [`Error::Io`].
    pub async fn consumer(&self, name: &str) -> Result<Option<ConsumerInfo>, Error> {
        let Self::Embedded(log) = self;
        let committed = self.committed(&topic_of(name)?).await?;
        Ok(committed.and_then(|Committed { time, position, .. }| {
            let (head, is_connected) = (log.newest(), log.is_leased(name));
            Some(ConsumerInfo { name: name.into(), position: position?, time, head, is_connected })
        }))
    }

    /// Forgets a consumer, for good.
    ///
    /// # Errors
    /// [`Error::NoConsumer`], or what is wrong with the log.
    pub async fn delete_consumer(&self, name: &str) -> Result<(), Error> {
        let Self::Embedded(log) = self;
        let topic = topic_of(name)?;
        match log.purge(&topic, log.last_of(&topic)).await {
            Err(Error::NoTopic) => Err(Error::NoConsumer),
            result => result.map(|_| ()),
        }
    }

    /// Removes the messages of a topic, all or up to a sequence, for good. How many they were.
    ///
    /// # Errors
    /// [`Error::Topic`], [`Error::NoTopic`], or what is wrong with the log.
    pub async fn purge_topic(&self, topic: &str, until: Option<u64>) -> Result<u64, Error> {
        let Self::Embedded(log) = self;
        topic::check(topic).map_err(Error::Topic)?;
        let last = log.last_of(topic);
        log.purge(topic, until.map_or(last, |until| until.min(last))).await
    }
}

/// Checks the name of a consumer.
///
/// # Errors
/// [`Error::Consumer`].
pub fn check_consumer(consumer: &str) -> Result<(), Error> {
    let bytes = consumer.len();
    let length = if bytes > MAX_CONSUMER_BYTES { Err(topic::Error::TooLong { bytes }) } else { Ok(()) };
    length.and_then(|()| topic::check(consumer)).map_err(Error::Consumer)
}

/// The topic of a consumer.
fn topic_of(consumer: &str) -> Result<String, Error> {
    check_consumer(consumer)?;
    Ok(format!("{PREFIX}{consumer}"))
}

/// Who reads as which consumer.
#[derive(Clone, Debug, Default)]
pub struct Readers(Arc<Mutex<HashMap<String, CancellationToken>>>);

impl Readers {
    fn map(&self) -> MutexGuard<'_, HashMap<String, CancellationToken>> {
        // Every change is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads as a consumer from now on: whoever did so before is told.
    pub fn lease(&self, consumer: &str) -> Lease {
        let is_over = CancellationToken::new();
        if let Some(before) = self.map().insert(consumer.into(), is_over.clone()) {
            before.cancel();
        }
        Lease { readers: self.clone(), consumer: consumer.into(), is_over }
    }

    /// Someone reads as a consumer.
    pub fn is_leased(&self, consumer: &str) -> bool {
        self.map().contains_key(consumer)
    }
}

/// Reading as a consumer, until this is dropped or somebody else does.
#[derive(Debug)]
pub struct Lease {
    readers: Readers,
    consumer: String,
    is_over: CancellationToken,
}

impl Lease {
    /// Fails if someone else has taken over.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_over.is_cancelled() {
            Err(Error::TakenOver { name: self.consumer.clone() })
        } else {
            Ok(())
        }
    }

    /// Waits until someone else takes over.
    pub async fn over(&self) {
        self.is_over.cancelled().await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Once it is over, the name is another's.
        let mut readers = self.readers.map();
        if !self.is_over.is_cancelled() {
            readers.remove(&self.consumer);
        }
    }
}
