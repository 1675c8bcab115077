//! A subscription: history and live by one path. Read the log up to its head, then wait until the head moves.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, time::Instant};

use super::{
    Batch, Error, Event, Position, Query, Start, Stop,
    embedded::{Bounds, Cut, Embedded, nanos},
    topic::Pattern,
};
use crate::wire::Batching;

/// How long after a time to come a message of that time may still be on its way to the disk.
const SETTLE: Duration = Duration::from_secs(1);

/// Reads what matches, batch by batch.
#[derive(Debug)]
pub struct Reader {
    log: Arc<Embedded>,
    head: watch::Receiver<u64>,
    patterns: Vec<Pattern>,
    batching: Batching,
    remaining: Option<u64>,
    /// All up to this sequence is dealt with.
    through: u64,
    /// No message behind this one.
    last: Option<u64>,
    /// No message of a later time.
    until: Option<SystemTime>,
    is_first: bool,
    is_over: bool,
    last_sent: Instant,
}

impl Reader {
    /// Checks a query and finds where it starts.
    pub async fn open(log: Arc<Embedded>, query: Query) -> Result<Self, Error> {
        let Query { topics, start, stop, batching, .. } = query;
        if topics.is_empty() {
            return Err(Error::NoPatterns);
        }
        let parse = |(index, text): (usize, &String)| {
            Pattern::parse(text).map_err(|error| Error::Pattern { index, error })
        };
        let patterns = topics.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
        let mut head = log.head();
        let newest = *head.borrow_and_update();
        let through = place(&log, &patterns, start, newest).await?;
        let Stop { sequence, time, caught_up } = stop;
        let last = match (sequence, caught_up) {
            (Some(sequence), true) => Some(sequence.min(newest)),
            (sequence, false) => sequence,
            (None, true) => Some(newest),
        };
        Ok(Self {
            log,
            head,
            patterns,
            remaining: batching.limit,
            batching,
            through,
            last,
            until: time,
            is_first: true,
            is_over: false,
            last_sent: Instant::now(),
        })
    }

    /// The next batch; none at the end that the caller asked for. Not to be called again after an error.
    pub async fn next(&mut self) -> Result<Option<Batch>, Error> {
        loop {
            if self.is_over {
                return Ok(None);
            }
            // A reader far behind is always ready: others want to run too.
            tokio::task::consume_budget().await;
            let head = *self.head.borrow_and_update();
            let cut = self.read(head).await?;
            self.through = self.through.max(cut.through);
            self.remaining = self.remaining.map(|left| left.saturating_sub(cut.count as u64));
            let is_at_last = self.last.is_some_and(|last| self.through >= last);
            let is_past = cut.is_past_time || self.through >= head && self.is_late();
            self.is_over = self.remaining == Some(0) || is_at_last || is_past;
            if cut.count > 0 || cut.event.is_some() || self.is_first || self.is_over {
                return Ok(Some(self.batch(cut, head)));
            }
            if self.through >= head && !self.wait().await {
                return Ok(Some(self.batch(Cut::default(), head)));
            }
        }
    }

    async fn read(&self, head: u64) -> Result<Cut, Error> {
        let last = self.last.map_or(head, |last| last.min(head));
        if self.through >= last {
            return Ok(Cut::nothing(self.through));
        }
        let remaining = self.remaining.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let bounds = Bounds {
            max_items: self.batching.max_items.min(remaining),
            max_bytes: self.batching.max_bytes,
            last,
            until: self.until.map(nanos),
        };
        Ok(self.log.read(self.through, &self.patterns, bounds).await?)
    }

    fn batch(&mut self, cut: Cut, head: u64) -> Batch {
        self.is_first = false;
        self.last_sent = Instant::now();
        Batch {
            items: cut.items,
            count: cut.count,
            events: cut.event.into_iter().collect::<Vec<Event>>(),
            position: Position {
                log: self.log.id(),
                sequence: self.through,
                is_awaited: self.through > head,
                told: 0,
                snapshot: 0,
            },
            caught_up: self.through >= head,
            head,
        }
    }

    /// No message can come any more that is not later than was asked for.
    fn is_late(&self) -> bool {
        self.until.is_some_and(|until| SystemTime::now() > until + SETTLE)
    }

    /// Waits until the head moves. False if the caller should hear before that, of nothing or of the end.
    async fn wait(&mut self) -> bool {
        let heartbeat = self.batching.heartbeat_at(self.last_sent);
        let left =
            self.until.map(|until| (until + SETTLE).duration_since(SystemTime::now()).unwrap_or_default());
        let due = left.map_or(heartbeat, |left| heartbeat.min(Instant::now() + left));
        tokio::select! {
            // The log cannot go before its readers: they hold it.
            _ = self.head.changed() => true,
            () = tokio::time::sleep_until(due) => due < heartbeat,
        }
    }
}

/// The sequence behind which a subscription starts.
async fn place(log: &Embedded, patterns: &[Pattern], start: Start, newest: u64) -> Result<u64, Error> {
    Ok(match start {
        Start::New | Start::LastPerTopic | Start::Last(0) => newest,
        Start::Earliest => 0,
        // What is not there yet is waited for.
        Start::Sequence(sequence) => sequence.saturating_sub(1),
        Start::Time(time) => log.before_time(time, newest).await?,
        Start::Last(count) => log.before_last(count, patterns, newest).await?,
        Start::Resume(position) if position.log != log.id() => return Err(Error::Mismatch),
        Start::Resume(position) if position.sequence > newest && !position.is_awaited => {
            return Err(Error::Ahead { newest });
        }
        Start::Resume(position) => position.sequence,
    })
}
