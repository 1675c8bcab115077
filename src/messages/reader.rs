//! A subscription: history and live by one path. Read the log up to its head, then wait until the bell rings.
//!
//! A stream that begins with the last message of each topic reads these first, as they were at a head that its position
//! keeps, and then goes on behind that head.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, Sleep};

use super::{
    Batch, Error, Event, Log, OnGap, Position, Progress, Query, Start, Stop,
    consumers::Lease,
    embedded::{Bounds, Cut, Embedded, Place, millis, nanos},
    topic::Pattern,
};
use crate::stream::Pacing;

/// How long after a time to come a message of that time may still be on its way to the disk.
const SETTLE: Duration = Duration::from_secs(1);

/// How many of the last messages of topics are looked for at once: what a slow reader of a snapshot holds.
const LASTS_AT_ONCE: usize = 4096;

/// Reads what matches, batch by batch.
#[derive(Debug)]
pub struct Reader {
    log: Arc<Embedded>,
    /// Taken before anything is read, so that nothing is missed between history and live.
    place: Place,
    lease: Option<Lease>,
    patterns: Arc<[Pattern]>,
    pacing: Pacing,
    on_gap: OnGap,
    /// All up to this sequence is dealt with; of the last messages of topics, while `snapshot` is there.
    through: u64,
    snapshot: Option<Snapshot>,
    /// Gaps up to this sequence were told, or are none.
    told: u64,
    /// What the log had lost when gaps were last looked for.
    losses: Option<u64>,
    /// No message behind this one.
    last: Option<u64>,
    /// No message of a later time.
    until: Option<SystemTime>,
    /// Armed once a heartbeat, and not at each message: it may be early.
    alarm: Pin<Box<Sleep>>,
}

/// The last messages of topics, as they were at a head.
#[derive(Debug)]
struct Snapshot {
    /// The head, kept in the position.
    head: u64,
    /// None behind this one.
    last: u64,
    /// The next of them.
    next: VecDeque<(u64, Arc<str>)>,
    /// `next` holds all that are left.
    is_all: bool,
}

impl Reader {
    /// Checks a query and finds where it starts.
    pub async fn open(log: Log, query: Query) -> Result<Self, Error> {
        let Query { topics, start, stop, on_gap, consumer, batching } = query;
        let patterns = parse(&topics)?;
        let start = read_as(&log, consumer.as_deref(), start).await?;
        let Log::Embedded(log) = log;
        let place = log.follow(&patterns);
        let newest = log.head();
        let place_in_log = find(&log, &patterns, start, newest).await?;
        let Stop { sequence, time, caught_up } = stop;
        let last = match (sequence, caught_up) {
            (Some(sequence), true) => Some(sequence.min(newest)),
            (sequence, false) => sequence,
            (None, true) => Some(newest),
        };
        let mut reader = Self {
            log,
            place,
            lease: None,
            patterns,
            pacing: Pacing::new(batching, Instant::now()),
            on_gap,
            through: place_in_log.through,
            snapshot: None,
            told: place_in_log.told,
            losses: None,
            last,
            until: time,
            alarm: Box::pin(tokio::time::sleep_until(Instant::now())),
        };
        if let Some(head) = place_in_log.snapshot {
            reader.begin_snapshot(head).await?;
        }
        // All that fails at once fails before the first batch.
        if on_gap == OnGap::Fail {
            reader.gap(reader.through)?;
        }
        // Nobody is sent away for the sake of one that cannot read.
        reader.lease = consumer.map(|consumer| reader.log.lease(&consumer));
        Ok(reader)
    }

    async fn begin_snapshot(&mut self, head: u64) -> Result<(), Error> {
        let mut last = self.last.map_or(head, |last| last.min(head));
        if let Some(until) = self.until {
            last = last.min(self.log.before_time(until + Duration::from_nanos(1), head).await?);
        }
        self.snapshot = Some(Snapshot { head, last, next: VecDeque::new(), is_all: false });
        Ok(())
    }

    /// Whether the end that the caller asked for has been reached.
    pub fn is_over(&self) -> bool {
        self.pacing.is_over()
    }

    /// The first batch, which is ready at once.
    pub async fn first(&mut self) -> Result<Batch, Error> {
        let (cut, head) = self.look().await?;
        Ok(self.batch(cut, head))
    }

    /// The next batch: waits for messages or events, or until a heartbeat is due. Do not call it after an error.
    pub async fn next(&mut self) -> Result<Batch, Error> {
        loop {
            let (cut, head) = self.look().await?;
            if cut.count > 0 || cut.event.is_some() || self.is_over() {
                return Ok(self.batch(cut, head));
            }
            if self.through >= head && self.snapshot.is_none() && !self.wait().await {
                self.pass_over_quiet();
                return Ok(self.batch(Cut::default(), self.log.head()));
            }
        }
    }

    /// Reads on, up to the head or until a batch is full, and returns that with the head.
    async fn look(&mut self) -> Result<(Cut, u64), Error> {
        if let Some(lease) = &self.lease {
            lease.check()?;
        }
        // A reader far behind is always ready: others want to run too.
        tokio::task::consume_budget().await;
        let head = self.log.head();
        let is_snapshot = self.snapshot.is_some();
        let cut = if is_snapshot { self.read_snapshot().await? } else { self.read(head).await? };
        // Looked for after the reading, which leaves out what was removed meanwhile.
        let gap = if is_snapshot { None } else { self.gap(self.through)? };
        if let Some(gap) = gap {
            return Ok((Cut { event: Some(gap), ..Cut::nothing(self.through) }, head));
        }
        self.through = self.through.max(cut.through);
        let is_at_last = self.snapshot.is_none() && self.last.is_some_and(|last| self.through >= last);
        let is_past = cut.is_past_time || self.through >= head && self.is_late();
        if is_at_last || is_past {
            self.pacing.end();
        }
        Ok((cut, head))
    }

    async fn read(&self, head: u64) -> Result<Cut, Error> {
        let last = self.last.map_or(head, |last| last.min(head));
        if self.through >= last {
            return Ok(Cut::nothing(self.through));
        }
        Ok(self.log.read(self.through, &self.patterns, self.bounds(last)).await?)
    }

    /// Reads some of the last messages of topics. The snapshot is gone when all were read.
    async fn read_snapshot(&mut self) -> Result<Cut, Error> {
        let Some(snapshot) = &mut self.snapshot else { return Ok(Cut::nothing(self.through)) };
        if snapshot.next.is_empty() && !snapshot.is_all {
            let (patterns, after, last) = (&self.patterns, self.through, snapshot.last);
            let now = millis(self.log.now());
            let lasts = self.log.lasts(patterns, after, last, LASTS_AT_ONCE, now).await?;
            snapshot.is_all = lasts.len() < LASTS_AT_ONCE;
            snapshot.next = lasts.into();
        }
        let (last, wanted) = (snapshot.last, snapshot.next.iter().cloned().collect::<Vec<_>>());
        let mut cut = if wanted.is_empty() {
            Cut::nothing(self.through)
        } else {
            self.log.read_each(wanted, self.bounds(last)).await?
        };
        let Some(snapshot) = &mut self.snapshot else { return Ok(cut) };
        while snapshot.next.front().is_some_and(|(sequence, _)| *sequence <= cut.through) {
            snapshot.next.pop_front();
        }
        if snapshot.next.is_empty() && snapshot.is_all {
            cut.through = snapshot.head;
            self.told = self.told.max(snapshot.head);
            self.snapshot = None;
        }
        Ok(cut)
    }

    fn bounds(&self, last: u64) -> Bounds {
        Bounds {
            max_items: self.pacing.max_items(),
            max_bytes: self.pacing.max_bytes(),
            last,
            until: self.until.map(nanos),
            now: millis(self.log.now()),
        }
    }

    /// Messages that match, behind a sequence, that were removed and of which the reader was not told.
    fn gap(&mut self, through: u64) -> Result<Option<Event>, Error> {
        // What was lost behind a snapshot is looked for when it was read.
        if self.snapshot.is_some() {
            return Ok(None);
        }
        let losses = self.log.losses();
        if self.losses.replace(losses) == Some(losses) {
            return Ok(None);
        }
        let after = through.max(self.told);
        let last = self.last.unwrap_or(u64::MAX);
        let lost = self.log.lost(&self.patterns, after).min(last);
        if lost <= after {
            return Ok(None);
        }
        if self.on_gap == OnGap::Fail {
            let (oldest, newest) = (self.log.oldest(), self.log.head());
            return Err(Error::Removed { oldest, newest, through: lost });
        }
        self.told = lost;
        Ok(Some(Event::Removed { from: after + 1, to: lost }))
    }

    fn batch(&mut self, cut: Cut, head: u64) -> Batch {
        self.pacing.record(cut.count, Instant::now());
        let position = Position {
            log: self.log.id(),
            sequence: self.through,
            is_awaited: self.through > head,
            told: if self.told > self.through { self.told } else { 0 },
            snapshot: self.snapshot.as_ref().map_or(0, |snapshot| snapshot.head),
        };
        Batch {
            items: cut.items,
            count: cut.count,
            events: cut.event.into_iter().collect(),
            position,
            progress: Progress {
                caught_up: self.snapshot.is_none() && self.through >= head,
                head: self.log.newest(),
            },
        }
    }

    /// No message can come any more that is not later than was asked for.
    fn is_late(&self) -> bool {
        self.until.is_some_and(|until| self.log.now() > until + SETTLE)
    }

    /// Moves behind messages that are none of this reader's.
    fn pass_over_quiet(&mut self) {
        if let Some(through) = self.place.quiet_through() {
            self.through = self.through.max(self.last.map_or(through, |last| last.min(through)));
        }
    }

    /// Waits until there is something to read. False if the caller should hear before that, of nothing or of the end.
    async fn wait(&mut self) -> bool {
        let heartbeat = self.pacing.heartbeat_at();
        let left =
            self.until.map(|until| (until + SETTLE).duration_since(self.log.now()).unwrap_or_default());
        let due = left.map_or(heartbeat, |left| heartbeat.min(Instant::now() + left));
        let Self { place, lease, log, last, alarm, .. } = self;
        if alarm.is_elapsed() || alarm.deadline() > due {
            alarm.as_mut().reset(due);
        }
        let over = async {
            match lease {
                Some(lease) => lease.over().await,
                None => std::future::pending().await,
            }
        };
        // Messages of others bring the end of a stream that stops at a sequence.
        let reached = async {
            match *last {
                Some(last) => log.reached(last).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = place.rung() => true,
            () = over => true,
            () = reached => true,
            () = alarm.as_mut() => Instant::now() < due || due < heartbeat,
        }
    }
}

fn parse(topics: &[String]) -> Result<Arc<[Pattern]>, Error> {
    if topics.is_empty() {
        return Err(Error::NoPatterns);
    }
    let parse = |(index, text): (usize, &String)| {
        Pattern::parse(text).map_err(|error| Error::Pattern { index, error })
    };
    topics.iter().enumerate().map(parse).collect()
}

/// A consumer begins where it has committed, unless the reader says where.
async fn read_as(log: &Log, consumer: Option<&str>, start: Start) -> Result<Start, Error> {
    let Some(consumer) = consumer else { return Ok(start) };
    let committed = log.consumer_position(consumer).await?;
    Ok(match (start, committed) {
        (Start::Resume(position), _) | (_, Some(position)) => Start::Resume(position),
        (start, None) => start,
    })
}

/// Where a subscription starts.
#[derive(Clone, Copy, Debug)]
struct Beginning {
    through: u64,
    told: u64,
    snapshot: Option<u64>,
}

async fn find(
    log: &Embedded,
    patterns: &Arc<[Pattern]>,
    start: Start,
    newest: u64,
) -> Result<Beginning, Error> {
    let now = millis(log.now());
    // Who asks for what there is has no gap in what was removed before.
    let at = |through| Beginning { through, told: log.lost(patterns, through), snapshot: None };
    Ok(match start {
        Start::New | Start::Last(0) => at(newest),
        Start::Earliest => at(0),
        Start::Time(time) => at(log.before_time(time, newest).await?),
        Start::Last(count) => at(log.before_last(count, patterns, newest, now).await?),
        Start::LastPerTopic => Beginning { snapshot: Some(newest), ..at(0) },
        // What is not there yet is waited for.
        Start::Sequence(sequence) => {
            Beginning { through: sequence.saturating_sub(1), told: 0, snapshot: None }
        }
        Start::Resume(position) => {
            position.check(log.id(), newest)?;
            let Position { sequence, told, snapshot, .. } = position;
            Beginning { through: sequence, told, snapshot: Some(snapshot).filter(|head| *head > 0) }
        }
    })
}

impl Position {
    /// It is one in this log, whose newest sequence is `newest`.
    pub(super) fn check(&self, log: [u8; 16], newest: u64) -> Result<(), Error> {
        let Self { log: of, sequence, is_awaited, told, snapshot } = self;
        if *of != log {
            return Err(Error::Mismatch);
        }
        let is_ahead = *sequence > newest && !is_awaited;
        // A gap is told only of what was there.
        if is_ahead || *told > newest || *snapshot > newest || *snapshot > 0 && sequence > snapshot {
            return Err(Error::Ahead { newest });
        }
        Ok(())
    }
}
