//! A subscription to the stream: history and live by one path, as that of the embedded log.
//!
//! It reads the history of the stream up to where the tail begins, then from the tail up to its head, and then waits until
//! it is notified. It costs the cluster nothing while it waits.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    JetStream,
    leases::Lease,
    snapshot::Snapshot,
    start::{self, StartPoint},
    tail::Wanted,
};
use crate::{
    messages::{
        Batch, Edge, Error, Position, Progress, Query, Sequence, Stop,
        batch::ReadBatch,
        clock::{nanos, time_of},
        notifier::Registration,
        selection::Selection,
        topic::Pattern,
    },
    stream::{Pacing, alarm::Alarm},
};

/// A first batch without messages leaves when no message was found for this long.
const SEARCH: Duration = Duration::from_millis(500);

/// Reads the messages that match, batch by batch.
#[derive(Debug)]
pub struct Subscription {
    log: Arc<JetStream>,
    /// Made before anything is read, so that no message is missed between history and live.
    registration: Registration,
    lease: Option<Lease>,
    patterns: Arc<[Pattern]>,
    pacing: Pacing,
    /// Every message up to this sequence was delivered, or did not match. While there is a `snapshot`, this is about the last
    /// messages of topics only.
    delivered_up_to: u64,
    snapshot: Option<Snapshot>,
    /// Deliver no message after this sequence.
    last: Option<u64>,
    /// Deliver only messages with these times.
    selection: Selection,
    /// The end, when the clock had passed the time to stop at; `None` before that.
    head_at_end: Option<u64>,
    /// Set once for each heartbeat, not for each message, so it may elapse early.
    alarm: Alarm,
}

impl Subscription {
    /// Checks a query and finds where it starts.
    pub async fn open(log: Arc<JetStream>, query: Query) -> Result<Self, Error> {
        let patterns = query.check(log.max_patterns())?;
        let Query { start, stop, consumer, batching, .. } = query;
        log.check_open()?;
        let start = match &consumer {
            Some(consumer) => start::of_consumer(&log, consumer, start).await?,
            None => start,
        };
        let registration = log.tail.notifier.follow(&patterns, batching.wake_group);
        let Stop { sequence, time, caught_up } = stop;
        // Another server may have acknowledged messages that this one does not have yet.
        let head =
            if start::needs_head(&start) || caught_up { log.barrier().await? } else { log.tail.head() };
        let start = start::find(&log, &patterns, start, head).await?;
        let last = match (sequence.map(Sequence::get), caught_up) {
            (Some(sequence), true) => Some(sequence.min(head)),
            (sequence, false) => sequence,
            (None, true) => Some(head),
        };
        let StartPoint { delivered_up_to, since, snapshot } = start;
        let snapshot = match snapshot {
            Some(head) => Some(Snapshot::take(&log, &patterns, delivered_up_to, head, last).await?),
            None => None,
        };
        let alarm = log.tail.notifier.alarms.alarm();
        // Take the lease last, so that a failed open does not evict the current reader.
        let lease = match consumer {
            Some(consumer) => Some(log.lease(&consumer).await?),
            None => None,
        };
        Ok(Self {
            log,
            registration,
            lease,
            patterns,
            pacing: Pacing::new(batching, Instant::now()),
            delivered_up_to,
            snapshot,
            last,
            selection: Selection { since, until: time.map(nanos) },
            head_at_end: None,
            alarm,
        })
    }

    /// The last sequence to deliver, as far as it is known.
    fn end(&self) -> Option<u64> {
        self.last.into_iter().chain(self.head_at_end).min()
    }

    /// Whether the end that the caller asked for has been reached.
    pub fn is_over(&self) -> bool {
        self.pacing.is_over()
    }

    /// The first batch, which is ready at once. It reads on over what does not match, for a short time.
    pub async fn first(&mut self) -> Result<Batch, Error> {
        let until = Instant::now() + SEARCH;
        loop {
            let (read, edge) = self.read_on().await?;
            let is_at_head = self.snapshot.is_none() && self.delivered_up_to >= edge.head;
            if read.count > 0 || is_at_head || self.is_over() || Instant::now() >= until {
                return Ok(self.batch(read, edge));
            }
        }
    }

    /// The next batch: waits for messages, or until a heartbeat is due. Do not call it after an error.
    pub async fn next(&mut self) -> Result<Batch, Error> {
        let mut has_found_nothing = false;
        loop {
            let (read, edge) = self.read_on().await?;
            if read.count > 0 || self.is_over() || has_found_nothing && self.is_due() {
                return Ok(self.batch(read, edge));
            }
            has_found_nothing = true;
            if self.delivered_up_to >= edge.head && self.snapshot.is_none() && !self.wait().await? {
                self.skip_quiet();
                return Ok(self.batch(ReadBatch::default(), self.log.tail.edge()));
            }
        }
    }

    /// Whether a heartbeat is due.
    fn is_due(&self) -> bool {
        Instant::now() >= self.pacing.heartbeat_at()
    }

    /// Reads on, up to the head or until a batch is full. Returns the batch, and how far the log could be read before.
    async fn read_on(&mut self) -> Result<(ReadBatch, Edge), Error> {
        self.log.check_identity()?;
        if let Some(lease) = &self.lease {
            lease.check()?;
        }
        // A subscription that lags is always ready: let other tasks run too.
        tokio::task::consume_budget().await;
        if self.head_at_end.is_none() && self.is_past_end() {
            // A message with an earlier time may be on its way from another server.
            self.head_at_end = Some(self.log.barrier().await?);
        }
        let edge = self.log.tail.edge();
        let read =
            if self.snapshot.is_some() { self.read_snapshot().await? } else { self.read(edge.head).await? };
        self.delivered_up_to = self.delivered_up_to.max(read.delivered_up_to);
        if self.snapshot.is_none() && self.end().is_some_and(|end| self.delivered_up_to >= end) {
            self.pacing.end();
        }
        Ok((read, edge))
    }

    async fn read(&self, head: u64) -> Result<ReadBatch, Error> {
        let last = self.end().map_or(head, |end| end.min(head));
        if self.delivered_up_to >= last {
            return Ok(ReadBatch::empty(self.delivered_up_to));
        }
        let wanted = self.wanted(last);
        if let Some(batch) = self.log.tail.read(self.delivered_up_to, &wanted) {
            return Ok(batch);
        }
        let (first, up_to) = (self.delivered_up_to + 1, last.min(self.log.tail.first().saturating_sub(1)));
        let range = self.log.history.read(&self.log.cluster, first, up_to.max(first)).await?;
        let mut batch = ReadBatch::empty(self.delivered_up_to);
        let start = range.messages.partition_point(|message| message.sequence < first);
        batch.take_stored(range.messages.iter().skip(start), &wanted, range.last);
        Ok(batch)
    }

    fn wanted(&self, last: u64) -> Wanted {
        Wanted {
            patterns: self.patterns.clone(),
            max_items: self.pacing.max_items(),
            max_bytes: self.pacing.max_bytes(),
            last,
            selection: self.selection,
            now: self.log.now(),
        }
    }

    /// Reads some of the last messages of topics. Drops the snapshot when all were read.
    async fn read_snapshot(&mut self) -> Result<ReadBatch, Error> {
        let wanted = self.wanted(u64::MAX);
        let mut batch = ReadBatch::empty(self.delivered_up_to);
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.read(&self.log, &wanted, &mut batch).await?;
            if snapshot.is_read() {
                batch.delivered_up_to = snapshot.head;
                self.snapshot = None;
            }
        }
        Ok(batch)
    }

    /// The position of a subscription that has read nothing yet.
    pub fn start_position(mut self) -> Position {
        let edge = self.log.tail.edge();
        self.batch(ReadBatch::default(), edge).position
    }

    fn batch(&mut self, read: ReadBatch, Edge { head, newest }: Edge) -> Batch {
        self.pacing.record(read.count, Instant::now());
        let position = Position {
            delivered_up_to: self.delivered_up_to,
            is_awaited: self.delivered_up_to > head,
            snapshot: self.snapshot.as_ref().map_or(0, |snapshot| snapshot.head),
            since: self.selection.since.filter(|since| self.delivered_up_to < since.head),
            ..Position::start(self.log.cluster.id)
        };
        let caught_up = self.snapshot.is_none() && self.delivered_up_to >= head;
        Batch {
            items: read.items,
            count: read.count,
            events: Vec::new(),
            position,
            progress: Progress { caught_up, head: newest },
        }
    }

    /// The clock has passed the time to stop at, and messages with that time have reached the stream.
    fn is_past_end(&self) -> bool {
        self.selection.until.is_some_and(|until| self.log.now() > until + start::CLOCK_SKEW_NANOS)
    }

    /// Skips messages that do not match, up to where the notifier has come.
    fn skip_quiet(&mut self) {
        if let Some(quiet_up_to) = self.registration.quiet_up_to() {
            let quiet_up_to = self.end().map_or(quiet_up_to, |end| end.min(quiet_up_to));
            self.delivered_up_to = self.delivered_up_to.max(quiet_up_to);
        }
    }

    /// Waits until there may be something to read. False if a heartbeat or the end is due before that.
    async fn wait(&mut self) -> Result<bool, Error> {
        let heartbeat = self.pacing.heartbeat_at();
        let now = time_of(self.log.now());
        let until = self.selection.until.filter(|_| self.head_at_end.is_none());
        let until = until.map(|until| time_of(until + start::CLOCK_SKEW_NANOS));
        let left = until.map(|until| until.duration_since(now).unwrap_or_default());
        let due = left.map_or(heartbeat, |left| heartbeat.min(Instant::now() + left));
        let Self { registration, lease, log, last, alarm, .. } = self;
        // A message that does not match may be the last one: it ends the stream.
        let reached = async {
            match *last {
                Some(last) => log.tail.reached(last).await,
                None => std::future::pending().await,
            }
        };
        let over = async {
            match lease {
                Some(lease) => lease.over().await,
                None => std::future::pending().await,
            }
        };
        let mut failed = log.failed();
        let is_ready = tokio::select! {
            // In order: choosing at random costs more than looking.
            biased;
            () = registration.notified() => true,
            _ = failed.wait_for(|failed| *failed) => true,
            () = over => true,
            () = reached => true,
            () = alarm.at(due) => Instant::now() < due || due < heartbeat,
        };
        self.log.check_identity()?;
        Ok(is_ready)
    }
}
