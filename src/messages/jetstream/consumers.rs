//! Consumers: cursors that are kept by name in the stream, for all servers.
//!
//! As in the embedded log, a commit is the last message of the topic `$consumer.NAME`. One without content, which expires,
//! says that the consumer was deleted.

use std::{io, sync::Arc, time::Duration, time::SystemTime};

use futures::{StreamExt, TryStreamExt};
use tokio::time::Instant;

use super::{JetStream, start, subscription::Subscription};
use crate::{
    cursor,
    messages::{
        ConsumerInfo, ConsumerPage, Content, Error, Expected, LastText, NewMessage, OnGap, Position, Query,
        Sequence, Start, Stop, check_consumer,
        topic::{CONSUMER_PREFIX, Pattern},
    },
    stream::Batching,
};

/// How long the stream keeps that a consumer was deleted.
const DELETED_TTL: Duration = Duration::from_secs(60);

/// A reader that has ended is disconnected within this time, if its client has said so.
const FAREWELL: Duration = Duration::from_secs(1);

/// The time between two looks for the end of a reader.
const LOOK: Duration = Duration::from_millis(50);

/// The most consumers that are read at once.
const AT_ONCE: usize = 16;

/// The last message of the topic of a consumer.
#[derive(Debug)]
struct Commit {
    sequence: Sequence,
    time: SystemTime,
    /// `None` if the consumer was deleted; an error if nothing can be read from it.
    position: Option<Result<Position, cursor::Error>>,
}

impl JetStream {
    /// Stores a position under the name of a consumer.
    pub async fn commit_cursor(
        &self,
        consumer: &str,
        position: Position,
        may_rewind: bool,
    ) -> Result<SystemTime, Error> {
        let topic = topic_of(consumer)?;
        self.check_open()?;
        start::check(self, &position).await?;
        loop {
            let last = self.last_commit(&topic).await?;
            let mut turn = None;
            match last.as_ref().and_then(|last| last.position.as_ref()) {
                None => {
                    // Held until the new one is counted.
                    turn = Some(self.creating.lock().await);
                    self.check_room()?;
                }
                Some(before) if !may_rewind => self.check_not_behind(consumer, &position, before)?,
                Some(_) => {}
            }
            let message = NewMessage {
                topic: topic.clone(),
                content: Content::Text(cursor::encode(&position)),
                expected: last.map_or(Expected::Empty, |last| Expected::Last(last.sequence)),
                ..NewMessage::default()
            };
            let published = self.publish_own(message).await;
            drop(turn);
            match published {
                // Another commit came in between.
                Err(Error::SequenceMismatch { .. }) => {}
                result => return Ok(result?.time),
            }
        }
    }

    /// Fails if there are as many consumers as there may be.
    fn check_room(&self) -> Result<(), Error> {
        let limit = self.max_consumers;
        if self.consumers().len() < limit { Ok(()) } else { Err(Error::TooManyConsumers { limit }) }
    }

    /// Checks that a position is not before a commit. One of another history is before every position.
    fn check_not_behind(
        &self,
        consumer: &str,
        position: &Position,
        before: &Result<Position, cursor::Error>,
    ) -> Result<(), Error> {
        match before {
            Ok(before) if before.log == self.cluster.id => match before.sequence() {
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
        let commit = self.last_commit(&topic_of(consumer)?).await?;
        let position = commit.and_then(|commit| commit.position).transpose();
        position.map_err(|error| unreadable(consumer, error))
    }

    async fn last_commit(&self, topic: &str) -> Result<Option<Commit>, Error> {
        Ok(self.last_text(topic).await?.map(|LastText { sequence, time, text }| {
            let position = match text.as_deref() {
                Some("") => None,
                Some(text) => Some(cursor::decode(text)),
                None => Some(Err(cursor::Error::Malformed)),
            };
            Commit { sequence, time, position }
        }))
    }

    /// The names of the consumers, sorted, as far as the tail has them.
    fn consumers(&self) -> Vec<String> {
        let Ok(pattern) = Pattern::parse(&format!("{CONSUMER_PREFIX}>")) else { return Vec::new() };
        let topics = self.tail.own.matching(&pattern, self.now()).into_iter();
        // Those that were deleted expire; the others do not.
        let topics = topics.filter(|(_, last)| last.expires == 0);
        topics.filter_map(|(topic, _)| Some(topic.strip_prefix(CONSUMER_PREFIX)?.to_owned())).collect()
    }

    /// The consumers that `shows` names, sorted by name: at most `page_size`, after the name `after`.
    pub async fn list_consumers(
        &self,
        page_size: usize,
        after: Option<&str>,
        shows: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<ConsumerPage, Error> {
        self.barrier().await?;
        let names = self.consumers().into_iter();
        let mut names = names.filter(|name| after.is_none_or(|after| name.as_str() > after) && shows(name));
        let page = names.by_ref().take(page_size).collect::<Vec<_>>();
        let next = names.next().and_then(|_| page.last().cloned());
        let found = futures::stream::iter(page).map(async |name| self.consumer(&name).await);
        let found = found.buffered(AT_ONCE).try_collect::<Vec<_>>().await?;
        Ok(ConsumerPage { consumers: found.into_iter().flatten().collect(), next })
    }

    /// A consumer; `None` if it does not exist.
    pub async fn consumer(&self, name: &str) -> Result<Option<ConsumerInfo>, Error> {
        let Some(Commit { time, position: Some(position), .. }) = self.last_commit(&topic_of(name)?).await?
        else {
            return Ok(None);
        };
        let is_connected = self.tail.leases.is_held(name, self.now());
        Ok(Some(ConsumerInfo {
            name: name.into(),
            position,
            time,
            head: self.tail.edge().newest,
            is_connected,
        }))
    }

    /// Deletes a consumer for good.
    pub async fn delete_consumer(&self, name: &str) -> Result<(), Error> {
        let topic = topic_of(name)?;
        loop {
            let Some(Commit { sequence, position: Some(_), .. }) = self.last_commit(&topic).await? else {
                return Err(Error::NoConsumer);
            };
            let message = NewMessage {
                topic: topic.clone(),
                content: Content::Text(String::new()),
                expected: Expected::Last(sequence),
                ttl: Some(DELETED_TTL),
                ..NewMessage::default()
            };
            match self.publish_own(message).await {
                // Another commit came in between.
                Err(Error::SequenceMismatch { .. }) => {}
                result => return result.map(drop),
            }
        }
    }

    /// Moves a consumer to a start position, or creates it there.
    pub async fn set_consumer(self: &Arc<Self>, name: &str, start: Start) -> Result<ConsumerInfo, Error> {
        topic_of(name)?;
        let query = Query {
            within: None,
            topics: vec![">".into()],
            start,
            stop: Stop::default(),
            on_gap: OnGap::Skip,
            consumer: None,
            batching: Batching::default(),
        };
        let end = Instant::now() + FAREWELL;
        let lease = loop {
            match self.free_lease(name).await? {
                Some(lease) => break lease,
                None if Instant::now() >= end => return Err(Error::ConsumerConnected),
                None => tokio::time::sleep(LOOK).await,
            }
        };
        let position = Subscription::open(self.clone(), query).await?.start_position();
        // From here on the outcome is that of the commit: the consumer is not moved and reported as refused.
        lease.check().map_err(|_| Error::ConsumerConnected)?;
        let time = self.commit_cursor(name, position.clone(), true).await?;
        let (head, is_connected) = (self.tail.edge().newest, lease.check().is_err());
        Ok(ConsumerInfo { name: name.into(), position: Ok(position), time, head, is_connected })
    }
}

/// The commit of a consumer cannot be read.
fn unreadable(consumer: &str, error: cursor::Error) -> Error {
    let text = format!("the commit of the consumer `{consumer}` is {error}");
    io::Error::new(io::ErrorKind::InvalidData, text).into()
}

/// The topic of a consumer.
fn topic_of(consumer: &str) -> Result<String, Error> {
    check_consumer(consumer)?;
    Ok(format!("{CONSUMER_PREFIX}{consumer}"))
}
