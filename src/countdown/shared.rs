//! Shared countdowns: named, in the log, watched by anybody.
//!
//! How one stands is the last message of the topic `$countdown.NAME`; a change is the next one, published under the
//! condition that the one that it was made from is still the last. So changes are on disk when they are acknowledged,
//! survive any end of the server, and of two that race one is told that it came too late. What is known here follows
//! the log, by one path for what was there at the start and for what comes: whoever changes a countdown sees it
//! because it is in the log, and so would another server over the same log.
//!
//! [`Countdowns`] answers and changes; [`watch`] is the stream of one; the [`expiry`] publishes ends when they have come,
//! whether or not somebody watches.

use std::{sync::Arc, time::Duration};

use async_stream::try_stream;
use futures::Stream;

use super::{Batch, Clock, Config, schedule};
use crate::messages::{self, Content, Expected, Log, NewMessage, Sequence, topic};
use registry::Registry;
use watcher::Watcher;

pub use error::Error;
pub use record::{Change, OnEnd, Phase, Record, Spec, Target};
pub use watcher::{Position, Query};

mod error;
mod expiry;
mod follow;
mod record;
mod registry;
mod watcher;

/// The topics of shared countdowns begin with this.
const PREFIX: &str = "$countdown.";

/// The longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// The longest request id, in bytes.
pub const MAX_REQUEST_ID_BYTES: usize = 128;

/// The names of headers that the server adds begin with this.
pub const HEADER_PREFIX: &str = "countdown";

/// The most headers of a message that is published at the end: the server's own are added.
pub const MAX_HEADERS: usize = 60;

/// A page ends when its countdowns take so many bytes: many clients take 4 MiB a response and no more.
const MAX_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// What a countdown takes in a page beside its name and what it publishes at its end.
const SNAPSHOT_BYTES: usize = 160;

/// How long what was deleted stays in the log: every server over it has seen it by then.
const DELETED_TTL: Duration = Duration::from_secs(3600);

/// A shared countdown at one of its versions.
#[derive(Debug)]
pub struct Snapshot {
    /// Its name.
    pub name: Arc<str>,
    /// The sequence of its last change.
    pub version: u64,
    /// Its state.
    pub record: Record,
    /// When the log forgets it, in nanoseconds since 1970.
    forgotten: Option<i128>,
    encoded: watcher::Encoded,
}

impl Snapshot {
    fn new(name: Arc<str>, version: u64, record: Record, forgotten: Option<i128>) -> Self {
        Self { name, version, record, forgotten, encoded: watcher::Encoded::default() }
    }

    /// The version under which the ticks of its run are due.
    fn tick_version(&self) -> u64 {
        match self.record.phase {
            Phase::Ended { .. } => self.record.previous_version,
            _ => self.version,
        }
    }

    /// About how many bytes it takes in a page.
    fn bytes(&self) -> usize {
        SNAPSHOT_BYTES + self.name.len() + self.record.on_end.as_ref().map_or(0, OnEnd::bytes)
    }

    /// When there is something to do about it: it ends, or is forgotten.
    fn moment(&self) -> Option<i128> {
        match self.record.phase {
            Phase::Running { end_time, .. } => Some(end_time.as_nanosecond()),
            _ => self.forgotten,
        }
    }
}

/// The shared countdowns of a log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Countdowns(Arc<Registry>);

/// Some countdowns.
#[derive(Clone, Debug)]
pub struct Page {
    /// Sorted by name.
    pub countdowns: Vec<Arc<Snapshot>>,
    /// The name to go on after, if there are more.
    pub next: Option<String>,
}

impl Countdowns {
    /// Reads how the countdowns of a log stand. What is returned beside them follows the log and ends what has come to
    /// its end, for as long as it is polled, and never ends by itself.
    ///
    /// # Errors
    /// What keeps the log from being read.
    pub async fn open(
        log: Log,
        clock: Clock,
        config: Config,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<>), messages::Error> {
        let registry = Arc::new(Registry::new(log, clock, config));
        let changes = follow::load(&registry).await?;
        let (follower, expiry) = (registry.clone(), registry.clone());
        let work = async move {
            tokio::join!(follow::run(follower, changes), expiry::run(expiry));
        };
        Ok((Self(registry), work))
    }

    /// The moment by the wall clock, in nanoseconds since 1970: for what is left of a countdown that runs.
    pub fn now(&self) -> i128 {
        schedule::nanos(self.0.clock.wall())
    }

    /// Creates a countdown, unless this was done by the same request before; whether it was.
    ///
    /// # Errors
    /// What is wrong with the request, [`Error::Exists`], [`Error::TooMany`], or what is wrong with the log.
    pub async fn create(&self, name: &str, spec: Spec) -> Result<(Arc<Snapshot>, bool), Error> {
        let registry = &*self.0;
        let topic = topic_of(name)?;
        registry.check(&spec)?;
        let record = Record::create(spec, self.now(), &registry.config)?;
        let mut place = None;
        loop {
            if let Some(snapshot) = registry.find(name) {
                let is_same =
                    snapshot.record.request_id.is_some() && snapshot.record.request_id == record.request_id;
                return if is_same { Ok((snapshot, true)) } else { Err(Error::Exists) };
            }
            if place.is_none() {
                place = Some(registry.place(name)?);
            }
            let last = registry.log.last_text(&topic).await?;
            let (last, text) = last.map_or((0, None), |last| (last.sequence.get(), last.text));
            let there = text.and_then(|text| Record::from_json(&text));
            if there.is_some_and(|there| !matches!(there.phase, Phase::Deleted)) {
                // Somebody else was a little faster; or it is forgotten here, and will be by the log.
                registry.reached(last).await?;
                if registry.find(name).is_some() {
                    continue;
                }
            }
            match registry.log.publish_own(state_message(name, last, &record, None)).await {
                Ok(published) => {
                    registry.reached(published.sequence.get()).await?;
                    let snapshot = Snapshot::new(name.into(), published.sequence.get(), record, None);
                    return Ok((snapshot.into(), false));
                }
                Err(messages::Error::SequenceMismatch { current, .. }) => {
                    registry.reached(current.map_or(0, Sequence::get)).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Stops a countdown for a while.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::NotFound`], [`Error::VersionMismatch`], [`Error::Over`], or what is wrong with the log.
    pub async fn pause(&self, name: &str, expected: Option<u64>) -> Result<Arc<Snapshot>, Error> {
        self.change(name, expected, Record::pause).await
    }

    /// Lets a paused countdown go on.
    ///
    /// # Errors
    /// As of [`pause`](Self::pause).
    pub async fn resume(&self, name: &str, expected: Option<u64>) -> Result<Arc<Snapshot>, Error> {
        self.change(name, expected, Record::resume).await
    }

    /// Moves the end of a countdown by so many nanoseconds.
    ///
    /// # Errors
    /// As of [`pause`](Self::pause), and [`Error::NothingLeft`], [`Error::TooLong`] and [`Error::TooManyNumbers`].
    pub async fn extend(&self, name: &str, expected: Option<u64>, by: i128) -> Result<Arc<Snapshot>, Error> {
        let config = &self.0.config;
        self.change(name, expected, |record, version, now| record.extend(by, version, now, config).map(Some))
            .await
    }

    /// Ends a countdown before its time.
    ///
    /// # Errors
    /// As of [`pause`](Self::pause).
    pub async fn cancel(&self, name: &str, expected: Option<u64>) -> Result<Arc<Snapshot>, Error> {
        self.change(name, expected, Record::cancel).await
    }

    /// Forgets a countdown, for good.
    ///
    /// # Errors
    /// As of [`pause`](Self::pause), without [`Error::Over`].
    pub async fn delete(&self, name: &str, expected: Option<u64>) -> Result<(), Error> {
        self.change(name, expected, |record, version, now| Ok(Some(record.delete(version, now)))).await?;
        Ok(())
    }

    /// The snapshot of a countdown.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::NotFound`].
    pub fn get(&self, name: &str) -> Result<Arc<Snapshot>, Error> {
        check_name(name)?;
        self.0.find(name).ok_or(Error::NotFound)
    }

    /// The countdowns, sorted by name: at most `page_size`, or fewer that are large, those behind `after`.
    pub fn list(&self, page_size: usize, after: Option<&str>) -> Page {
        let mut countdowns = self.0.behind(after, page_size.saturating_add(1));
        let mut bytes = 0;
        let fit = countdowns.iter().take(page_size).take_while(|snapshot| {
            let is_first = bytes == 0;
            bytes += snapshot.bytes();
            is_first || bytes <= MAX_PAGE_BYTES
        });
        let fit = fit.count();
        let has_more = countdowns.len() > fit;
        countdowns.truncate(fit);
        let next = countdowns.last().filter(|_| has_more).map(|last| last.name.to_string());
        Page { countdowns, next }
    }

    /// Opens the stream of a countdown. The first batch is ready at once.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::NotFound`], [`Error::Mismatch`], [`Error::Ahead`], and
    /// [`TooManyTicks`](super::Error::TooManyTicks). The stream itself fails with [`Error::NotFound`].
    pub fn watch(
        &self,
        query: Query,
    ) -> Result<impl Stream<Item = Result<Batch<Position>, Error>> + Send + use<>, Error> {
        check_name(&query.name)?;
        let changes = self.0.changes(&query.name).ok_or(Error::NotFound)?;
        let interval = Duration::from_nanos(changes.borrow().record.interval_nanos);
        let rate = self.0.config.rates.take(interval)?;
        let mut watcher = Watcher::new(changes, query, &self.0.clock, rate)?;
        Ok(try_stream!({
            yield watcher.batch()?;
            while !watcher.is_over() {
                watcher.wait().await?;
                yield watcher.batch()?;
            }
        }))
    }

    /// Does something to a countdown, if it is as expected: none is done where it is so already.
    async fn change(
        &self,
        name: &str,
        expected: Option<u64>,
        what: impl Fn(&Record, u64, i128) -> Result<Option<Record>, Error>,
    ) -> Result<Arc<Snapshot>, Error> {
        let registry = &*self.0;
        loop {
            let snapshot = self.get(name)?;
            let version = snapshot.version;
            if let Some(expected) = expected.filter(|expected| *expected != version) {
                return Err(Error::VersionMismatch { expected, current: version });
            }
            let Some(record) = what(&snapshot.record, version, self.now())? else { return Ok(snapshot) };
            let ttl = match record.phase {
                Phase::Deleted => Some(DELETED_TTL),
                Phase::Cancelled { .. } => Some(registry.config.keep_ended),
                _ => None,
            };
            match registry.log.publish_own(state_message(name, version, &record, ttl)).await {
                Ok(published) => {
                    registry.reached(published.sequence.get()).await?;
                    return Ok(Snapshot::new(name.into(), published.sequence.get(), record, None).into());
                }
                // The log has forgotten it a little sooner.
                Err(messages::Error::SequenceMismatch { current: None, .. }) => registry.forget(&snapshot),
                Err(messages::Error::SequenceMismatch { current, .. }) => {
                    registry.reached(current.map_or(0, Sequence::get)).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The state of a countdown, as the message that follows the one of `version`.
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

/// The topic of a countdown.
fn topic_of(name: &str) -> Result<String, Error> {
    check_name(name)?;
    Ok(format!("{PREFIX}{name}"))
}

#[cfg(test)]
mod tests;
