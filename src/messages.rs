//! Messages: topics, patterns, and the log that holds them.
//!
//! - A message is acknowledged after it is on disk, and readers see it only then.
//! - One sequence numbers the messages of all topics. A subscription yields the messages that match in the order of
//!   their sequence, each once, from any position in the history and on into messages that are still to be published.
//! - A subscription reads from the log alone. A slow reader costs its position and no queue; a fast one is woken when
//!   the head moves. Dropping the stream ends it.
//! - Removed or damaged messages are reported to the subscriptions that would have read them.
//!
//! This file is the facade: [`Log`] with a method for each verb. `embedded` is the log on this machine's
//! disk, and `jetstream` that in a cluster.

use std::{path::Path, sync::Arc, time::SystemTime};

use futures::{FutureExt, Stream, future::BoxFuture};
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::watch;

use crate::blocking::Pool;
use embedded::{Embedded, Subscription};
use incarnation::Incarnation;
#[cfg(feature = "jetstream")]
use jetstream::JetStream;
use quota::{QuotaUsage, TopicQuota};
use topic::Pattern;

mod batch;
pub mod clock;
mod config;
mod consumers;
mod embedded;
mod error;
mod facts;
mod incarnation;
#[cfg(feature = "jetstream")]
mod jetstream;
mod message;
mod notifier;
mod query;
pub mod quota;
pub mod retention;
mod selection;
mod sequence;
pub mod topic;

pub use config::{Config, LockFile, OpenError, Opened, SEGMENT_SIZES};
pub use consumers::{ConsumerInfo, ConsumerPage, MAX_CONSUMER_BYTES, check_consumer};
pub use embedded::tools;
pub use error::{BatchError, Error, NeededRoom, Unsupported};
pub(crate) use facts::LastText;
pub use facts::{Durability, LogFigures, Stamp, TopicInfo, TopicPage};
pub(crate) use incarnation::Lineage;
pub use incarnation::{Diverged, MAX_INCARNATIONS};
#[cfg(feature = "jetstream")]
pub use jetstream::{
    Address, AddressError, ConnectError, Credentials, DIFFERENCES, Difference, Servers, Verdict,
};
pub use message::{
    Content, Expected, MAX_HEADERS, MAX_KEY_BYTES, MAX_MESSAGE_ID_BYTES, NewMessage, PUBLISH_COUNTS,
    Published, TTLS, check_publish_count,
};
pub use query::{Batch, Event, MAX_LAST, OnGap, Position, Progress, Query, Start, Stop};
pub use sequence::{Sequence, SequenceRange};

/// A log of messages. Clones are handles to the same log.
#[derive(Clone, Debug)]
pub struct Log(Kind);

/// The kinds of logs.
#[derive(Clone, Debug)]
enum Kind {
    /// In a directory of this machine.
    Embedded(Arc<Embedded>),
    /// In a stream of NATS JetStream.
    #[cfg(feature = "jetstream")]
    JetStream(Arc<JetStream>),
}

/// How far the log can be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edge {
    /// The newest sequence that can be read; 0 for none.
    pub head: u64,
    /// The newest sequence of the users' topics, which is at or below the head.
    pub newest: Option<Sequence>,
}

/// Calls a verb of the log, whatever its kind.
macro_rules! each {
    ($kind:expr, $log:ident => $verb:expr) => {
        match $kind {
            Kind::Embedded($log) => $verb,
            #[cfg(feature = "jetstream")]
            Kind::JetStream($log) => $verb,
        }
    };
}

/// The state of a subscription, whatever the kind of its log.
enum Reading {
    Embedded(Subscription),
    #[cfg(feature = "jetstream")]
    JetStream(jetstream::Subscription),
}

impl Reading {
    async fn first(&mut self) -> Result<Batch, Error> {
        match self {
            Self::Embedded(reading) => reading.first().await,
            #[cfg(feature = "jetstream")]
            Self::JetStream(reading) => reading.first().await,
        }
    }

    async fn next(&mut self) -> Result<Batch, Error> {
        match self {
            Self::Embedded(reading) => reading.next().await,
            #[cfg(feature = "jetstream")]
            Self::JetStream(reading) => reading.next().await,
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Embedded(reading) => reading.is_over(),
            #[cfg(feature = "jetstream")]
            Self::JetStream(reading) => reading.is_over(),
        }
    }
}

impl Log {
    /// Opens the embedded log in a directory, or creates one. The caller makes sure that no other process has it open.
    ///
    /// # Errors
    /// The reason why the log cannot be opened.
    pub fn open(directory: &Path, config: Config) -> Result<(Self, Opened), OpenError> {
        let (log, opened) = Embedded::open(directory, config)?;
        Ok((Self(Kind::Embedded(log.into())), opened))
    }

    /// Opens the log in a stream of a cluster, or creates the stream.
    ///
    /// # Errors
    /// The reason why the cluster or the stream cannot be used.
    #[cfg(feature = "jetstream")]
    pub async fn connect(servers: &Servers, config: Config) -> Result<Self, ConnectError> {
        Ok(Self(Kind::JetStream(JetStream::open(servers, config).await?.into())))
    }

    /// What the acknowledgement of a message guarantees.
    pub fn durability(&self) -> Durability {
        match &self.0 {
            Kind::Embedded(_) => Durability::Fsynced,
            #[cfg(feature = "jetstream")]
            Kind::JetStream(log) => log.durability(),
        }
    }

    /// Opens a subscription. The first batch is ready at once.
    ///
    /// # Errors
    /// Everything that can be known before the first batch.
    pub async fn subscribe(
        &self,
        query: Query,
    ) -> Result<impl Stream<Item = Result<Batch, Error>> + Send + use<>, Error> {
        let mut subscription = match &self.0 {
            Kind::Embedded(log) => Reading::Embedded(Subscription::open(log.clone(), query).await?),
            #[cfg(feature = "jetstream")]
            Kind::JetStream(log) => {
                Reading::JetStream(jetstream::Subscription::open(log.clone(), query).await?)
            }
        };
        Ok(async_stream::try_stream!({
            yield subscription.first().await?;
            while !subscription.is_over() {
                yield subscription.next().await?;
            }
        }))
    }

    /// Checks a message as far as that does not depend on the state of the log.
    ///
    /// # Errors
    /// The first thing that is wrong with the message.
    pub fn check(&self, message: &NewMessage) -> Result<(), Error> {
        each!(&self.0, log => message.check(log.max_message_bytes()))
    }

    /// Publishes a message. It is on disk when this returns. Dropping the future does not take the message back.
    ///
    /// # Errors
    /// A fault of the message, or of the log.
    pub async fn publish(&self, message: NewMessage) -> Result<Published, Error> {
        each!(&self.0, log => log.publish(message).await)
    }

    /// Publishes messages, each on its own. Waits for room in the queue, and queues the messages in the order of the
    /// calls. The returned future waits until they are on disk, and yields the result of each message, in order.
    pub async fn publish_each(
        &self,
        messages: Vec<NewMessage>,
    ) -> BoxFuture<'static, Vec<Result<Published, Error>>> {
        match &self.0 {
            Kind::Embedded(log) => log.publish_each(messages).await.boxed(),
            #[cfg(feature = "jetstream")]
            Kind::JetStream(log) => log.publish_each(messages).await,
        }
    }

    /// Publishes all messages or none, with consecutive sequences. They are on disk when this returns.
    ///
    /// # Errors
    /// The first message with a fault, or a fault of the log.
    pub async fn publish_batch(&self, messages: Vec<NewMessage>) -> Result<Vec<Published>, BatchError> {
        each!(&self.0, log => log.publish_batch(messages).await)
    }

    /// Publishes a message to a topic of the server's own.
    ///
    /// # Errors
    /// [`Error::SequenceMismatch`], or a fault of the log.
    pub(crate) async fn publish_own(&self, message: NewMessage) -> Result<Published, Error> {
        each!(&self.0, log => log.publish_own(message).await)
    }

    /// Publishes all messages or none, also to topics of the server's own, and beyond [`Config::max_topics`]. The
    /// caller has checked them.
    ///
    /// # Errors
    /// The message that was refused, or a fault of the log.
    pub(crate) async fn publish_own_batch(
        &self,
        messages: Vec<NewMessage>,
    ) -> Result<Vec<Published>, BatchError> {
        each!(&self.0, log => log.publish_own_batch(messages).await)
    }

    /// The topics that match a pattern, sorted by name: at most `page_size`, after the name `after`.
    ///
    /// # Errors
    /// [`Error::Pattern`], [`Error::Io`].
    pub async fn list_topics(
        &self,
        pattern: Option<&str>,
        page_size: usize,
        after: Option<&str>,
    ) -> Result<TopicPage, Error> {
        self.list_topics_if(pattern, page_size, after, |_| true).await
    }

    /// The same, of the topics that `shows` names.
    ///
    /// # Errors
    /// [`Error::Pattern`], [`Error::Io`].
    pub async fn list_topics_if(
        &self,
        pattern: Option<&str>,
        page_size: usize,
        after: Option<&str>,
        shows: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<TopicPage, Error> {
        let pattern = Pattern::parse(pattern.unwrap_or(">"));
        let pattern = pattern.map_err(|error| Error::Pattern { index: 0, error })?;
        each!(&self.0, log => Ok(log.list_topics(pattern, page_size, after, shows).await?))
    }

    /// Removes the messages of a topic for good: all that it has now, or those up to a sequence. Returns how many were
    /// removed.
    ///
    /// # Errors
    /// [`Error::Topic`], [`Error::NoTopic`], or a fault of the log.
    pub async fn purge_topic(&self, topic: &str, up_to: Option<Sequence>) -> Result<u64, Error> {
        topic::check(topic).map_err(Error::Topic)?;
        each!(&self.0, log => log.purge_topic(topic, up_to).await)
    }

    /// Stores a position under the name of a consumer. It is on disk when this returns the time of the commit.
    ///
    /// # Errors
    /// [`Error::Consumer`], [`Error::OtherLog`], [`Error::Ahead`], [`Error::CommitBehind`] unless `may_rewind`,
    /// [`Error::TooManyConsumers`], or a fault of the log.
    pub async fn commit_cursor(
        &self,
        consumer: &str,
        position: Position,
        may_rewind: bool,
    ) -> Result<SystemTime, Error> {
        each!(&self.0, log => log.commit_cursor(consumer, position, may_rewind).await)
    }

    /// Moves a consumer to a start position, or creates it there. It is on disk when this returns.
    ///
    /// # Errors
    /// [`Error::Consumer`], [`Error::ConsumerConnected`], [`Error::TooManyConsumers`], or a fault of the log.
    pub async fn set_consumer(&self, consumer: &str, start: Start) -> Result<ConsumerInfo, Error> {
        each!(&self.0, log => log.set_consumer(consumer, start).await)
    }

    /// A consumer; `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error::Consumer`], [`Error::Io`].
    pub async fn consumer(&self, name: &str) -> Result<Option<ConsumerInfo>, Error> {
        each!(&self.0, log => log.consumer(name).await)
    }

    /// The consumers, sorted by name: at most `page_size`, after the name `after`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn list_consumers(&self, page_size: usize, after: Option<&str>) -> Result<ConsumerPage, Error> {
        self.list_consumers_if(page_size, after, |_| true).await
    }

    /// The same, of the consumers that `shows` names.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn list_consumers_if(
        &self,
        page_size: usize,
        after: Option<&str>,
        shows: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<ConsumerPage, Error> {
        each!(&self.0, log => log.list_consumers(page_size, after, shows).await)
    }

    /// Deletes a consumer for good.
    ///
    /// # Errors
    /// [`Error::Consumer`], [`Error::NoConsumer`], or a fault of the log.
    pub async fn delete_consumer(&self, name: &str) -> Result<(), Error> {
        each!(&self.0, log => log.delete_consumer(name).await)
    }

    /// The last incarnations of the log at or below a sequence.
    pub(crate) fn lineage(&self, sequence: u64) -> Lineage {
        match &self.0 {
            Kind::Embedded(log) => log.incarnations().lineage(sequence),
            #[cfg(feature = "jetstream")]
            Kind::JetStream(log) => log.lineage(),
        }
    }

    /// Checks that the log has the history of a position at a sequence. `None`: the position is from before incarnations
    /// were recorded.
    pub(crate) fn check_lineage(&self, lineage: Option<Lineage>, sequence: u64) -> Result<(), Diverged> {
        match &self.0 {
            Kind::Embedded(log) => {
                let lineage = lineage.unwrap_or_else(|| Lineage::last_of(&[Incarnation::of_log(log.id())]));
                log.incarnations().check(&lineage, sequence, log.head())
            }
            #[cfg(feature = "jetstream")]
            Kind::JetStream(log) => log.check_lineage(lineage),
        }
    }

    /// The last message of a topic of the server's own that has not expired.
    pub(crate) async fn last_text(&self, topic: &str) -> Result<Option<LastText>, Error> {
        each!(&self.0, log => log.last_text(topic).await)
    }

    /// Replaces the quotas of topics, and counts what the topics take of them. Until then, they hold for the topics that were
    /// counted.
    ///
    /// # Errors
    /// [`Error::Closed`], if the pool has ended.
    pub async fn set_quotas(&self, quotas: Vec<TopicQuota>) -> Result<(), Error> {
        each!(&self.0, log => log.set_quotas(quotas).await)
    }

    /// The quotas of topics, and what is used of each.
    pub fn quotas(&self) -> Vec<QuotaUsage> {
        each!(&self.0, log => log.quotas())
    }

    /// Becomes true when a write fails: then the log accepts no message until a restart.
    pub fn failed(&self) -> watch::Receiver<bool> {
        each!(&self.0, log => log.failed())
    }

    /// What the disk must have before messages can be published; `None` while they can be.
    pub fn needed_room(&self) -> watch::Receiver<Option<NeededRoom>> {
        each!(&self.0, log => log.needed_room())
    }

    /// The figures of the log now.
    pub fn figures(&self) -> LogFigures {
        each!(&self.0, log => log.figures())
    }

    /// The bytes of memory that the log holds, by what holds them; estimated, but for bytes of messages.
    pub fn memory(&self) -> Vec<(&'static str, u64)> {
        match &self.0 {
            Kind::Embedded(log) => log.memory().into(),
            #[cfg(feature = "jetstream")]
            Kind::JetStream(log) => log.memory(),
        }
    }

    /// How long commits have waited for the disk, in seconds.
    pub fn sync_times(&self) -> Histogram {
        each!(&self.0, log => log.sync_times())
    }

    /// The number of topics whose purged messages may still be on disk.
    pub fn owed_erasures(&self) -> usize {
        each!(&self.0, log => log.owed_erasures())
    }

    /// How many times the wall clock was set since the log was opened.
    pub fn clock_steps(&self) -> u64 {
        each!(&self.0, log => log.clock_steps())
    }

    /// Where work on what the log holds is done.
    pub(crate) fn pool(&self) -> &Pool {
        each!(&self.0, log => log.pool())
    }

    /// Accepts no more messages, and waits until the queued ones are on disk. Subscriptions go on.
    pub async fn close(&self) {
        each!(&self.0, log => log.close().await);
    }
}

#[cfg(test)]
pub(crate) mod tests;
