//! Shared countdowns: they have a name, are stored in the log, and many clients can watch one.
//!
//! The last message of the topic `$countdown.NAME` is the countdown's state. A change publishes the next message, on
//! the condition that the message it was computed from is still the last one. So a change is on disk when it is
//! acknowledged, it survives a crash of the server, and of two concurrent changes the later one gets an error. The
//! state in memory follows the log, on one path for history and for new messages. A change is visible because it is in
//! the log, so another server on the same log would see it too.
//!
//! [`Countdowns`] reads and changes them, [`watcher`] is the stream of one countdown, and [`expiry`] publishes the end
//! of a countdown when it is due, also if no client watches.

use std::{sync::Arc, time::Duration};

use async_stream::try_stream;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt, future::BoxFuture, stream};

use super::{Batch, Clock, Config, Moment, Nanos};
use crate::messages::{self, Content, Expected, Log, NewMessage, Sequence, topic};
use registry::Registry;
use watcher::Watcher;

pub use error::Error;
pub use record::{Change, OnEnd, Phase, Record, Spec, Target};
pub use request::Request;
pub use watcher::{Position, Query};

mod error;
mod expiry;
mod follow;
mod record;
mod registry;
mod request;
mod watcher;

/// The prefix of the topics of shared countdowns.
const PREFIX: &str = "$countdown.";

/// The longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// The longest request id, in bytes.
pub const MAX_REQUEST_ID_BYTES: usize = 128;

/// The prefix of the names of headers that the server adds.
pub const HEADER_PREFIX: &str = "countdown";

/// The most headers of an end message. The server adds its own headers to them.
pub const MAX_HEADERS: usize = 60;

/// A page ends when its countdowns have about this size: many clients refuse a response over 4 MiB.
const MAX_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// The size of a countdown in a page, without its name and its end message.
const SNAPSHOT_BYTES: usize = 160;

/// A larger end message is not kept in memory: it is read from the log when it is due, and when the countdown is shown.
const MAX_KEPT_END_BYTES: usize = 512;

/// How many end messages are read from the log at once for a page.
const READS_AT_ONCE: usize = 16;

/// How long the record of a deletion stays in the log: every server on the log has read it by then.
const DELETED_TTL: Duration = Duration::from_secs(3600);

/// A shared countdown at one of its versions.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) name: Arc<str>,
    /// The sequence of its last change.
    pub version: u64,
    pub(crate) record: Record,
    /// The size of the end message, if the record leaves it in the log.
    end_bytes_in_log: Option<usize>,
    /// When its last message expires in the log.
    expires: Option<Moment>,
    encoded: watcher::Encoded,
}

impl Snapshot {
    /// A snapshot to keep in memory: it leaves a large end message in the log.
    fn new(name: Arc<str>, version: u64, mut record: Record, expires: Option<Moment>) -> Self {
        let end_bytes = record.on_end.as_ref().map(OnEnd::bytes);
        let end_bytes_in_log = end_bytes.filter(|bytes| *bytes > MAX_KEPT_END_BYTES);
        if end_bytes_in_log.is_some() {
            record.on_end = None;
        }
        Self { name, version, record, end_bytes_in_log, expires, encoded: watcher::Encoded::default() }
    }

    /// A snapshot to show, with its end message.
    fn complete(name: Arc<str>, version: u64, record: Record) -> Self {
        let encoded = watcher::Encoded::default();
        Self { name, version, record, end_bytes_in_log: None, expires: None, encoded }
    }

    /// The version that the ticks of its run carry.
    #[expect(clippy::expect_used, reason = "a tick with another version would be wrong data")]
    fn tick_version(&self) -> i64 {
        let version = match self.record.phase {
            Phase::Ended { .. } => self.record.previous_version,
            _ => self.version,
        };
        i64::try_from(version).expect("a larger sequence is not read from the log")
    }

    /// Its approximate size in a page.
    fn bytes(&self) -> usize {
        let end_bytes = self.record.on_end.as_ref().map(OnEnd::bytes).or(self.end_bytes_in_log);
        SNAPSHOT_BYTES + self.name.len() + end_bytes.unwrap_or(0)
    }

    /// When the server must act next: the countdown ends, or its last message expires.
    fn moment(&self) -> Option<Moment> {
        match self.record.phase {
            Phase::Running { end_time, .. } => Some(end_time.into()),
            _ => self.expires,
        }
    }
}

/// The shared countdowns of a log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Countdowns(Arc<Registry>);

/// One page of a list of countdowns.
#[derive(Clone, Debug)]
pub struct Page {
    /// Sorted by name.
    pub countdowns: Vec<Arc<Snapshot>>,
    /// The name after which the next page starts, if there are more countdowns.
    pub next: Option<String>,
}

impl Countdowns {
    /// The number of countdowns, with those that have ended and are kept.
    pub fn count(&self) -> usize {
        self.0.count()
    }

    /// Reads the countdowns of a log. The returned function gives a future: while it is polled, it follows the log and ends
    /// countdowns that are due. The future never completes. If it has ended by a panic, call the function again, with `true`.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn open(
        log: Log,
        clock: Clock,
        config: Config,
    ) -> Result<(Self, impl FnMut(bool) -> BoxFuture<'static, ()> + Send + use<>), messages::Error> {
        let registry = Arc::new(Registry::new(log, clock, config));
        let mut changes = Some(follow::load(&registry).await?);
        let of_work = registry.clone();
        let work = move |is_again| {
            let (follower, expiry, changes) = (of_work.clone(), of_work.clone(), changes.take());
            let work = async move {
                if is_again {
                    expiry.schedule_all();
                }
                tokio::join!(follow::run(follower, changes), expiry::run(expiry));
            };
            work.boxed()
        };
        Ok((Self(registry), work))
    }

    /// The time of the wall clock. The remaining duration of a running countdown is counted from it.
    pub fn now(&self) -> Moment {
        self.0.clock.wall().into()
    }

    /// Creates a countdown, unless a request with the same id already created it. Returns it, and whether it existed.
    ///
    /// # Errors
    /// The first fault of `spec`, [`Error::Exists`], [`Error::TooMany`], or [`Error::Log`].
    pub async fn create(&self, name: &str, spec: Spec) -> Result<(Arc<Snapshot>, bool), Error> {
        let registry = &*self.0;
        let topic = topic_of(name)?;
        registry.check(&spec)?;
        let record = Record::create(spec, self.now(), &registry.config)?;
        let mut reservation = None;
        loop {
            if let Some(snapshot) = registry.find(name) {
                let is_same =
                    snapshot.record.request_id.is_some() && snapshot.record.request_id == record.request_id;
                return if is_same {
                    Ok((registry.complete(snapshot).await?, true))
                } else {
                    Err(Error::Exists)
                };
            }
            if reservation.is_none() {
                reservation = Some(registry.reserve(name)?);
            }
            let last = registry.log.last_text(&topic).await?;
            let (last, text) = last.map_or((0, None), |last| (last.sequence.get(), last.text));
            let stored = text.and_then(|text| Record::from_json(&text));
            if stored.is_some_and(|stored| !matches!(stored.phase, Phase::Deleted)) {
                // Another request has just created it; or it is already removed here, and not yet from the log.
                registry.reached(last).await?;
                if registry.find(name).is_some() {
                    continue;
                }
            }
            match registry.log.publish_own(state_message(name, last, &record, None)).await {
                Ok(published) => {
                    registry.reached(published.sequence.get()).await?;
                    let snapshot = Snapshot::complete(name.into(), published.sequence.get(), record);
                    return Ok((snapshot.into(), false));
                }
                Err(messages::Error::SequenceMismatch { current, .. }) => {
                    registry.reached(current.map_or(0, Sequence::get)).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Pauses a countdown; one that is paused stays as it is.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::NotFound`], [`Error::VersionMismatch`], [`Error::Over`], or [`Error::Log`].
    pub async fn pause(&self, name: &str, expected: Option<u64>) -> Result<Arc<Snapshot>, Error> {
        self.change(name, expected, Record::pause).await
    }

    /// Resumes a paused countdown; one that runs stays as it is.
    ///
    /// # Errors
    /// The same as [`pause`](Self::pause).
    pub async fn resume(&self, name: &str, expected: Option<u64>) -> Result<Arc<Snapshot>, Error> {
        self.change(name, expected, Record::resume).await
    }

    /// Moves the end of a countdown by `by`, later or (below zero) earlier.
    ///
    /// # Errors
    /// The same as [`pause`](Self::pause), and [`Error::ByZero`], [`Error::NothingLeft`], [`Error::TooLong`] and
    /// [`Error::TooManyNumbers`].
    pub async fn extend(&self, name: &str, expected: Option<u64>, by: Nanos) -> Result<Arc<Snapshot>, Error> {
        let config = &self.0.config;
        self.change(name, expected, |record, version, now| record.extend(by, version, now, config).map(Some))
            .await
    }

    /// Ends a countdown before its time; one that was cancelled stays as it is.
    ///
    /// # Errors
    /// The same as [`pause`](Self::pause).
    pub async fn cancel(&self, name: &str, expected: Option<u64>) -> Result<Arc<Snapshot>, Error> {
        self.change(name, expected, Record::cancel).await
    }

    /// Deletes a countdown, so that its name is free. Its streams end with [`Error::NotFound`].
    ///
    /// # Errors
    /// The same as [`pause`](Self::pause), without [`Error::Over`].
    pub async fn delete(&self, name: &str, expected: Option<u64>) -> Result<(), Error> {
        self.change(name, expected, |record, version, now| Ok(Some(record.delete(version, now)))).await?;
        Ok(())
    }

    /// The snapshot of a countdown.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::NotFound`], or [`Error::Log`].
    pub async fn get(&self, name: &str) -> Result<Arc<Snapshot>, Error> {
        self.0.complete(self.find(name, 0).await?).await
    }

    /// The snapshot of a countdown, as it is in memory. One that is not there, or is older than a version, is looked for in
    /// the log first: another server may have published it.
    async fn find(&self, name: &str, version: u64) -> Result<Arc<Snapshot>, Error> {
        let topic = topic_of(name)?;
        let registry = &*self.0;
        if let Some(snapshot) = registry.find(name).filter(|snapshot| snapshot.version >= version) {
            return Ok(snapshot);
        }
        if let Some(last) = registry.log.last_text(&topic).await? {
            registry.reached(last.sequence.get()).await?;
        }
        registry.find(name).ok_or(Error::NotFound)
    }

    /// Up to `page_size` countdowns after the name `after`, sorted by name. A page of large countdowns has fewer.
    ///
    /// # Errors
    /// [`Error::Log`].
    pub async fn list(&self, page_size: usize, after: Option<&str>) -> Result<Page, Error> {
        self.list_if(page_size, after, |_| true).await
    }

    /// The same, of those that `shows` names.
    ///
    /// # Errors
    /// A fault of the log.
    pub async fn list_if(
        &self,
        page_size: usize,
        after: Option<&str>,
        shows: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Page, Error> {
        let (registry, after) = (self.0.clone(), after.map(str::to_owned));
        let first = move || {
            let snapshots = registry.list_after(after.as_deref(), page_size.saturating_add(1), shows);
            first_of(snapshots, page_size)
        };
        let (countdowns, next) = self.0.log.pool().run(first).await.map_err(messages::Error::from)?;
        let complete =
            stream::iter(countdowns).map(|snapshot| self.0.complete(snapshot)).buffered(READS_AT_ONCE);
        // One that was deleted since is left out.
        let left = complete.filter(|result| std::future::ready(!matches!(result, Err(Error::NotFound))));
        Ok(Page { countdowns: left.try_collect().await?, next })
    }

    /// Opens the stream of a countdown. The first batch is ready at once.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::NotFound`], [`Error::Mismatch`], [`Error::Diverged`], [`Error::Ahead`], and
    /// [`TooManyTicks`](super::Error::TooManyTicks), or [`Error::Log`]. The stream itself fails with [`Error::NotFound`].
    pub async fn watch(
        &self,
        query: Query,
    ) -> Result<impl Stream<Item = Result<Batch<Position>, Error>> + Send + use<>, Error> {
        self.find(&query.name, query.resume.as_ref().map_or(0, |position| position.version)).await?;
        let changes = self.0.changes(&query.name).ok_or(Error::NotFound)?;
        let interval = changes.borrow().record.interval;
        let rate = self.0.config.rates.take(interval.into())?;
        let mut watcher = Watcher::new(changes, query, &self.0.log, &self.0.clock, rate)?;
        let registry = self.0.clone();
        Ok(try_stream!({
            yield registry.completed(watcher.batch()?).await?;
            while !watcher.is_over() {
                watcher.wait().await?;
                yield registry.completed(watcher.batch()?).await?;
            }
        }))
    }

    /// Changes a countdown, if it has the expected version. Where `apply` returns `None`, nothing is to change.
    async fn change(
        &self,
        name: &str,
        expected: Option<u64>,
        apply: impl Fn(&Record, u64, Moment) -> Result<Option<Record>, Error>,
    ) -> Result<Arc<Snapshot>, Error> {
        let registry = &*self.0;
        loop {
            let known = self.find(name, expected.unwrap_or_default()).await?;
            let version = known.version;
            if let Some(expected) = expected.filter(|expected| *expected != version) {
                return Err(Error::VersionMismatch { expected, current: version });
            }
            // Each change is recorded with the end message: the log keeps only the last record.
            let snapshot = registry.complete(known).await?;
            let Some(record) = apply(&snapshot.record, version, self.now())? else { return Ok(snapshot) };
            let ttl = match record.phase {
                Phase::Deleted => Some(DELETED_TTL),
                Phase::Cancelled { .. } => Some(registry.config.keep_ended),
                _ => None,
            };
            match registry.log.publish_own(state_message(name, version, &record, ttl)).await {
                Ok(published) => {
                    registry.reached(published.sequence.get()).await?;
                    return Ok(Snapshot::complete(name.into(), published.sequence.get(), record).into());
                }
                // Its message has just expired in the log.
                Err(messages::Error::SequenceMismatch { current: None, .. }) => registry.remove(&snapshot),
                Err(messages::Error::SequenceMismatch { current, .. }) => {
                    registry.reached(current.map_or(0, Sequence::get)).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The snapshots of a page, and the name of the last one if there are more.
fn first_of(mut snapshots: Vec<Arc<Snapshot>>, page_size: usize) -> (Vec<Arc<Snapshot>>, Option<String>) {
    let mut bytes = 0;
    let fit = snapshots.iter().take(page_size).take_while(|snapshot| {
        let is_first = bytes == 0;
        bytes += snapshot.bytes();
        is_first || bytes <= MAX_PAGE_BYTES
    });
    let fit = fit.count();
    let has_more = snapshots.len() > fit;
    snapshots.truncate(fit);
    let next = snapshots.last().filter(|_| has_more).map(|last| last.name.to_string());
    (snapshots, next)
}

/// The message that records a state, to be published after the message with the sequence `version`.
fn state_message(name: &str, version: u64, record: &Record, ttl: Option<Duration>) -> NewMessage {
    NewMessage {
        topic: format!("{PREFIX}{name}"),
        content: Content::Text(record.to_json()),
        expected: Expected::from_number(version),
        ttl,
        ..NewMessage::default()
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let bytes = name.len();
    let length = if bytes > MAX_NAME_BYTES { Err(topic::Error::TooLong { bytes }) } else { Ok(()) };
    length.and_then(|()| topic::check(name)).map_err(Error::Name)
}

fn topic_of(name: &str) -> Result<String, Error> {
    check_name(name)?;
    Ok(format!("{PREFIX}{name}"))
}

#[cfg(test)]
mod tests;
