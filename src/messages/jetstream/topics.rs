//! The topics of the stream, as its leader knows them.

use std::collections::BTreeMap;

use async_nats::jetstream::stream::RawMessageErrorKind;
use futures::{TryStreamExt, stream::FuturesOrdered};
use tokio::time::Instant;

use super::{
    JetStream,
    cluster::{PATIENCE, PAUSE},
};
use crate::messages::{Error, Sequence, Stamp, TopicInfo, TopicPage, topic::Pattern};

/// The most topics of a page whose messages are asked for at once.
const AT_ONCE: usize = 16;

/// An end of the messages of a topic.
#[derive(Clone, Copy, Debug)]
enum End {
    First,
    Last,
}

impl JetStream {
    /// The topics that match a pattern, sorted by name: at most `page_size`, after the name `after`, and of those that `shows`
    /// names.
    pub async fn list_topics(
        &self,
        pattern: Pattern,
        page_size: usize,
        after: Option<&str>,
        shows: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<TopicPage, Error> {
        self.check_identity()?;
        let topics = self.topics(&pattern).await?;
        let is_after = |name: &str| after.is_none_or(|after| name > after);
        let mut shown = topics.into_iter().filter(|(name, _)| is_after(name) && shows(name));
        let page = shown.by_ref().take(page_size).collect::<Vec<_>>();
        let next = shown.next().and_then(|_| page.last().map(|(name, _)| name.clone()));
        let (mut topics, mut waiting) = (Vec::with_capacity(page.len()), FuturesOrdered::new());
        for (name, messages) in page {
            if waiting.len() >= AT_ONCE {
                topics.extend(waiting.try_next().await?);
            }
            waiting.push_back(self.topic_info(name, messages));
        }
        while let Some(info) = waiting.try_next().await? {
            topics.push(info);
        }
        let topics = topics.into_iter().flatten().collect();
        Ok(TopicPage { topics, next })
    }

    /// The topics of users that match, and how many messages each has.
    pub(super) async fn topics(&self, pattern: &Pattern) -> Result<BTreeMap<String, u64>, Error> {
        if pattern.as_str().starts_with('$') {
            return Ok(BTreeMap::new());
        }
        let filter = self.cluster.subjects.of(pattern.as_str());
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.subjects(&filter).await {
                Ok(subjects) => {
                    let topics = subjects.into_iter().filter_map(|(subject, messages)| {
                        let topic = self.cluster.subjects.topic(&subject)?;
                        Some((topic.to_owned(), messages))
                    });
                    return Ok(topics.collect());
                }
                Err(fault) => tracing::debug!(fault, "the topics are asked for again"),
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Error::Unreachable)
    }

    async fn subjects(&self, filter: &str) -> Result<Vec<(String, u64)>, String> {
        let stream = self.cluster.context.get_stream_no_info(&self.cluster.name).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let subjects = stream.info_with_subjects(filter).await.map_err(|error| error.to_string())?;
        let subjects = subjects.map_ok(|(subject, messages)| (subject, messages as u64));
        subjects.try_collect().await.map_err(|error| error.to_string())
    }

    /// `None` if its messages have gone meanwhile.
    async fn topic_info(&self, name: String, messages: u64) -> Result<Option<TopicInfo>, Error> {
        let subject = self.cluster.subjects.of(&name);
        let (first, last) = (self.first_stamp(&subject).await?, self.last_stamp(&subject).await?);
        Ok(first.zip(last).map(|(first, last)| TopicInfo { name, messages, bytes: None, first, last }))
    }

    /// The last sequence of a topic; 0 if it holds no message.
    pub(super) async fn last_of(&self, topic: &str) -> Result<u64, Error> {
        let last = self.last_stamp(&self.cluster.subjects.of(topic)).await?;
        Ok(last.map_or(0, |last| last.sequence.get()))
    }

    async fn first_stamp(&self, subject: &str) -> Result<Option<Stamp>, Error> {
        self.stamp(subject, End::First).await
    }

    async fn last_stamp(&self, subject: &str) -> Result<Option<Stamp>, Error> {
        self.stamp(subject, End::Last).await
    }

    /// Asks the leader for a message until it answers.
    async fn stamp(&self, subject: &str, end: End) -> Result<Option<Stamp>, Error> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let stream = self.cluster.context.get_stream_no_info(&self.cluster.name).await;
            let stream = stream.map_err(|_| Error::Unreachable)?;
            let message = match end {
                End::First => stream.get_first_raw_message_by_subject(subject, 1).await,
                End::Last => stream.get_last_raw_message_by_subject(subject).await,
            };
            match message {
                Ok(message) => {
                    let sequence = Sequence::of_message(message.sequence);
                    return Ok(Some(Stamp { sequence, time: message.time.into() }));
                }
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => return Ok(None),
                Err(error) => tracing::debug!(%error, "a topic is asked for again"),
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Error::Unreachable)
    }

    /// The newest sequence of users' topics, for the start.
    pub(super) async fn newest_of_users(
        cluster: &super::cluster::Cluster,
    ) -> Result<Option<Sequence>, String> {
        let stream =
            cluster.context.get_stream_no_info(&cluster.name).await.map_err(|error| error.to_string())?;
        match stream.get_last_raw_message_by_subject(&cluster.subjects.of(">")).await {
            Ok(message) => Ok(Sequence::new(message.sequence)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}
