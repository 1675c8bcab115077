//! A subscription: history and live by one path. It reads the log up to the head, then waits until it is notified.
//!
//! A subscription that starts with the last message of each topic reads these first, as they were at a head that its
//! position keeps, and continues after that head.

use std::{io, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::{
    batch::Bounds,
    consumers::Lease,
    snapshot::Source,
    start::{self, Before},
};
use crate::{
    blocking::Running,
    messages::{
        Batch, Edge, Error, Event, OnGap, Position, Progress, Query, Sequence, SequenceRange, Stop,
        batch::ReadBatch,
        embedded::{Embedded, nanos, time_of},
        notifier::Registration,
        selection::Selection,
        topic::Pattern,
    },
    stream::{Pacing, alarm::Alarm},
};

/// A message reaches the disk up to this long after the time that it carries.
const SETTLE: Duration = Duration::from_secs(1);

/// A batch without messages may leave when the last messages of topics are not found in this time.
const SEARCH: Duration = Duration::from_millis(20);

/// The last messages of up to this many topics are found before the first batch leaves.
const SMALL: usize = 4096;

/// The number of times that a fresh start is tried while retention removes messages: far more than one run can disturb.
const START_TRIES: u32 = 10_000;

/// Reads the messages that match, batch by batch.
#[derive(Debug)]
pub struct Subscription {
    log: Arc<Embedded>,
    /// Made before anything is read, so that no message is missed between history and live.
    registration: Registration,
    lease: Option<Lease>,
    patterns: Arc<[Pattern]>,
    pacing: Pacing,
    on_gap: OnGap,
    /// Every message up to this sequence was delivered, did not match, or was reported. While there is a `snapshot`, this
    /// is about the last messages of topics only.
    delivered_up_to: u64,
    snapshot: Option<Snapshot>,
    /// The messages of another history that the caller has read, until that is reported.
    diverged: Option<SequenceRange>,
    /// Gaps up to this sequence were reported.
    reported_up_to: u64,
    /// What was lost before the subscription started, if it had a fresh start.
    before: Option<Before>,
    /// Set until a fresh start has read its first message.
    first_message: Option<FirstMessage>,
    /// The log's loss epoch when the subscription last looked for gaps.
    loss_epoch: Option<u64>,
    /// Deliver no message after this sequence.
    last: Option<u64>,
    /// Deliver only messages with these times.
    selection: Selection,
    /// The head when the clock had passed the time to stop at; `None` before that.
    head_at_end: Option<u64>,
    /// The last batch said that the caller has caught up.
    is_told: bool,
    /// The clock was set, or the machine was suspended.
    clock_changes: watch::Receiver<u64>,
    /// Set once for each heartbeat, not for each message, so it may elapse early.
    alarm: Alarm,
}

/// A fresh start has not read its first message yet. Messages that are removed meanwhile are not a gap, because the caller has
/// asked for what the log holds, and not for a sequence: the start is then tried again.
#[derive(Debug)]
struct FirstMessage {
    /// The head at the start: messages after it are live.
    head: u64,
    tries_left: u32,
}

/// The last messages of topics, as they were at a head.
#[derive(Debug)]
struct Snapshot {
    /// The head, which the position keeps.
    head: u64,
    /// Deliver no message after this sequence.
    last: u64,
    source: Search,
}

/// The search for the last messages of topics, which takes some time where there are many topics.
#[derive(Debug)]
enum Search {
    Begun(Running<io::Result<Source>>),
    Done(Source),
}

impl Subscription {
    /// Checks a query and finds where it starts.
    pub async fn open(log: Arc<Embedded>, query: Query) -> Result<Self, Error> {
        let patterns = query.check(log.max_patterns())?;
        let Query { start, stop, on_gap, consumer, batching, .. } = query;
        let start = start::start_of_consumer(&log, consumer.as_deref(), start).await?;
        let registration = log.follow(&patterns, batching.wake_group);
        let head = log.head();
        let start = start::find(&log, &patterns, start, on_gap, head).await?;
        let Stop { sequence, time, caught_up } = stop;
        let last = match (sequence.map(Sequence::get), caught_up) {
            (Some(sequence), true) => Some(sequence.min(head)),
            (sequence, false) => sequence,
            (None, true) => Some(head),
        };
        let (clock_changes, alarm) = (log.clock_changes(), log.shared.notifier.alarms.alarm());
        let mut subscription = Self {
            log,
            registration,
            lease: None,
            patterns,
            pacing: Pacing::new(batching, Instant::now()),
            on_gap,
            delivered_up_to: start.delivered_up_to,
            snapshot: None,
            diverged: start.diverged,
            reported_up_to: start.reported_up_to,
            before: start.before,
            first_message: start.is_fresh.then_some(FirstMessage { head, tries_left: START_TRIES }),
            loss_epoch: None,
            last,
            selection: Selection { since: start.since, until: time.map(nanos) },
            head_at_end: None,
            is_told: false,
            clock_changes,
            alarm,
        };
        if let Some(head) = start.snapshot {
            subscription.begin_snapshot(head).await?;
        }
        // Fail before the first batch if possible.
        if on_gap == OnGap::Fail
            && subscription.first_message.is_none()
            && let Some(gap) = subscription.gap(subscription.log.loss_epoch()).await?
        {
            return Err(subscription.removed(gap).await);
        }
        // Take the lease last, so that a failed open does not evict the current reader.
        subscription.lease = consumer.map(|consumer| subscription.log.lease(&consumer));
        Ok(subscription)
    }

    async fn begin_snapshot(&mut self, head: u64) -> Result<(), Error> {
        let last = self.last.map_or(head, |last| last.min(head));
        let search = self.log.find_snapshot(&self.patterns, head);
        let source = if self.log.topic_count() > SMALL {
            Search::Begun(search)
        } else {
            Search::Done(found(search.await)?)
        };
        self.snapshot = Some(Snapshot { head, last, source });
        Ok(())
    }

    /// The last sequence to deliver, as far as it is known.
    fn end(&self) -> Option<u64> {
        self.last.into_iter().chain(self.head_at_end).min()
    }

    /// Whether the end that the caller asked for has been reached.
    pub fn is_over(&self) -> bool {
        self.pacing.is_over()
    }

    /// The first batch, which is ready at once.
    pub async fn first(&mut self) -> Result<Batch, Error> {
        let (read, edge) = self.read_on().await?;
        Ok(self.batch(read, edge))
    }

    /// The next batch: waits for messages or events, or until a heartbeat is due. Do not call it after an error.
    pub async fn next(&mut self) -> Result<Batch, Error> {
        let mut has_found_nothing = false;
        loop {
            let (read, edge) = self.read_on().await?;
            // That the caller has caught up is news, too: what was left may be a gap, or not match.
            let has_caught_up = !self.is_told && self.has_caught_up(edge.head);
            let has_news = read.count > 0 || read.event.is_some() || has_caught_up || self.is_over();
            if has_news || has_found_nothing && self.is_due() {
                return Ok(self.batch(read, edge));
            }
            has_found_nothing = true;
            if self.has_caught_up(edge.head) && !self.wait().await {
                self.skip_quiet();
                return Ok(self.batch(ReadBatch::default(), self.log.edge()));
            }
        }
    }

    /// Whether everything up to this head was delivered, did not match, or was reported.
    fn has_caught_up(&self, head: u64) -> bool {
        self.snapshot.is_none() && self.delivered_up_to >= head
    }

    /// Whether a heartbeat is due.
    fn is_due(&self) -> bool {
        Instant::now() >= self.pacing.heartbeat_at()
    }

    /// Reads on, up to the head or until a batch is full. Returns the batch, and how far the log could be read before.
    async fn read_on(&mut self) -> Result<(ReadBatch, Edge), Error> {
        if let Some(lease) = &self.lease {
            lease.check()?;
        }
        // A subscription that lags is always ready: let other tasks run too.
        tokio::task::consume_budget().await;
        let edge = self.log.edge();
        if self.head_at_end.is_none() && self.is_past_end() {
            self.head_at_end = Some(edge.head);
        }
        if let Some(range) = self.diverged.take() {
            let event = Some(Event::Diverged(range));
            return Ok((ReadBatch { event, ..ReadBatch::empty(self.delivered_up_to) }, edge));
        }
        let is_snapshot = self.snapshot.is_some();
        if self.first_message.is_some() {
            let before = start::lost_before(&self.log, &self.patterns, self.delivered_up_to).await?;
            (self.loss_epoch, self.before) = (Some(before.epoch), Some(before));
        }
        let read = if is_snapshot { self.read_snapshot().await? } else { self.read(edge.head).await? };
        // Look for gaps after reading, because reading skips what was removed meanwhile.
        let loss_epoch = self.log.loss_epoch();
        let gap = if is_snapshot { None } else { self.gap(loss_epoch).await? };
        if let Some(gap) = gap {
            let nothing = ReadBatch::empty(self.delivered_up_to);
            match &mut self.first_message {
                Some(first) if first.tries_left > 0 => {
                    first.tries_left -= 1;
                    return Ok((nothing, edge));
                }
                _ if self.on_gap == OnGap::Fail => return Err(self.removed(gap).await),
                _ => {
                    self.reported_up_to = gap.last.get();
                    return Ok((ReadBatch { event: Some(Event::Removed(gap)), ..nothing }, edge));
                }
            }
        }
        self.delivered_up_to = self.delivered_up_to.max(read.delivered_up_to);
        let is_at_head = self.first_message.as_ref().is_some_and(|first| self.delivered_up_to >= first.head);
        if read.count > 0 || is_at_head {
            self.first_message = None;
        }
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
        let limits = (self.pacing.max_items(), self.pacing.max_bytes(), last);
        let is_shared = self.selection.has_all_after(self.delivered_up_to);
        let known =
            if is_shared { self.log.read_again(self.delivered_up_to, &self.patterns, limits) } else { None };
        match known {
            Some(batch) => Ok(batch),
            None => Ok(self.log.read(self.delivered_up_to, &self.patterns, self.bounds(last)).await?),
        }
    }

    /// Reads some of the last messages of topics. Drops the snapshot when all were read.
    async fn read_snapshot(&mut self) -> Result<ReadBatch, Error> {
        let nothing = ReadBatch::empty(self.delivered_up_to);
        let Some(Snapshot { head, last, source }) = &mut self.snapshot else { return Ok(nothing) };
        let (head, last) = (*head, *last);
        if let Search::Begun(search) = source {
            match tokio::time::timeout(SEARCH, search).await {
                Ok(done) => *source = Search::Done(found(done)?),
                // The caller comes back, unless a heartbeat is due.
                Err(_) => return Ok(nothing),
            }
        }
        let Search::Done(source) = source else { return Ok(nothing) };
        let (log, source, after) = (self.log.clone(), source.clone(), self.delivered_up_to);
        let mut read = log.read_snapshot(source, &self.patterns, after, head, self.bounds(last)).await?;
        if read.delivered_up_to >= last && read.event.is_none() {
            read.delivered_up_to = head;
            self.reported_up_to = self.reported_up_to.max(head);
            self.snapshot = None;
        }
        Ok(read)
    }

    fn bounds(&self, last: u64) -> Bounds {
        Bounds {
            max_items: self.pacing.max_items(),
            max_bytes: self.pacing.max_bytes(),
            last,
            selection: self.selection,
            moment: self.log.moment(),
        }
    }

    /// The removed messages that match, and that the subscription has neither read nor reported.
    async fn gap(&mut self, loss_epoch: u64) -> io::Result<Option<SequenceRange>> {
        // Messages that were lost after the snapshot's head are reported when the snapshot has been read.
        if self.snapshot.is_some() || self.loss_epoch.replace(loss_epoch) == Some(loss_epoch) {
            return Ok(None);
        }
        let after = self.delivered_up_to.max(self.reported_up_to);
        // Only up to there is it a question which topics have lost their messages since the start.
        self.before = self.before.filter(|before| before.lost_up_to > after);
        let lost_up_to = match self.before {
            Some(before) => self.log.lost_since(before.epoch, &self.patterns, after).await?,
            None => self.log.lost_up_to(&self.patterns, after).await?,
        };
        let lost_up_to = lost_up_to.min(self.end().unwrap_or(u64::MAX));
        Ok((lost_up_to > after).then(|| SequenceRange::of_messages(after + 1, lost_up_to)))
    }

    async fn removed(&self, gap: SequenceRange) -> Error {
        let newest = Sequence::of_message(self.log.head());
        match self.log.oldest().await {
            Ok(oldest) => Error::Removed { oldest, newest, removed_up_to: gap.last },
            Err(error) => error.into(),
        }
    }

    /// The position of a subscription that has read nothing yet.
    pub fn start_position(mut self) -> Position {
        let edge = self.log.edge();
        self.batch(ReadBatch::default(), edge).position
    }

    fn batch(&mut self, read: ReadBatch, Edge { head, newest }: Edge) -> Batch {
        self.pacing.record(read.count, Instant::now());
        let known_up_to = self.delivered_up_to.max(self.reported_up_to);
        let before = self.before.filter(|before| before.lost_up_to > known_up_to);
        let mut position = Position {
            delivered_up_to: self.delivered_up_to,
            is_awaited: self.delivered_up_to > head,
            reported_up_to: if known_up_to > self.delivered_up_to { known_up_to } else { 0 },
            snapshot: self.snapshot.as_ref().map_or(0, |snapshot| snapshot.head),
            since: self.selection.since.filter(|since| self.delivered_up_to < since.head),
            lost_before: before.map_or(0, |before| before.epoch),
            ..Position::start(self.log.id())
        };
        position.lineage = self.log.incarnations().lineage(position.reference());
        self.is_told = self.has_caught_up(head);
        Batch {
            items: read.items,
            count: read.count,
            events: read.event.into_iter().collect(),
            position,
            progress: Progress { caught_up: self.is_told, head: newest },
        }
    }

    /// The clock has passed the time to stop at, and messages with that time have reached the disk.
    fn is_past_end(&self) -> bool {
        self.selection.until.is_some_and(|until| self.log.now() > time_of(until) + SETTLE)
    }

    /// Skips messages that do not match, up to where the notifier has come.
    fn skip_quiet(&mut self) {
        if let Some(quiet_up_to) = self.registration.quiet_up_to() {
            let quiet_up_to = self.end().map_or(quiet_up_to, |end| end.min(quiet_up_to));
            self.delivered_up_to = self.delivered_up_to.max(quiet_up_to);
        }
    }

    /// Waits until there may be something to read. False if a heartbeat or the end is due before that.
    async fn wait(&mut self) -> bool {
        let heartbeat = self.pacing.heartbeat_at();
        let until = self.selection.until.map(|until| time_of(until) + SETTLE);
        let left = until.map(|until| until.duration_since(self.log.now()).unwrap_or_default());
        let due = left.map_or(heartbeat, |left| heartbeat.min(Instant::now() + left));
        let Self { registration, lease, log, last, alarm, clock_changes, .. } = self;
        let over = async {
            match lease {
                Some(lease) => lease.over().await,
                None => std::future::pending().await,
            }
        };
        // A message that does not match may be the last one: it ends the stream.
        let reached = async {
            match *last {
                Some(last) => log.reached(last).await,
                None => std::future::pending().await,
            }
        };
        let clock_changed = async {
            match until {
                Some(_) => _ = clock_changes.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // In order: choosing at random costs more than looking.
            biased;
            () = registration.notified() => true,
            () = clock_changed => true,
            () = over => true,
            () = reached => true,
            () = alarm.at(due) => Instant::now() < due || due < heartbeat,
        }
    }
}

/// What a search has found.
fn found(search: io::Result<io::Result<Source>>) -> io::Result<Source> {
    search?
}
