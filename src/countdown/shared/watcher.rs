//! The stream of a shared countdown: how it stands, its ticks, and what is done to it.
//!
//! Ticks come while it runs, in order, each at most once, and never early. The first batch tells how it stands now;
//! whenever it is changed a batch with an event goes out at once. A stream goes on behind the [`Position`] of any batch,
//! also across changes: how many ticks were due meanwhile is told exactly. It ends when the countdown is over, and with
//! [`Error::NotFound`] when it is deleted.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use super::{Error, Phase, Snapshot};
use crate::{
    countdown::{
        Batch, Clock, Event, OnLag, Progress, Rate, Steps, roughly,
        schedule::{self, Mark, Taken},
    },
    cursor,
    stream::{Batching, Pacing},
};

/// `COUNTDOWN_STATE_RUNNING`: nothing ticks in another state.
const RUNNING: i32 = 1;

/// A place in a shared countdown.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Position {
    /// Which countdown: names are used again.
    pub(super) id: Uuid,
    /// The version that was told.
    pub(super) version: u64,
    /// How many ticks were delivered or counted, over all runs.
    pub(super) next: u64,
}

impl cursor::Position for Position {
    const KIND: cursor::Kind = cursor::Kind::Shared;
    const DECODERS: &'static [cursor::Decoder<Self>] = &[cursor::decode_fields];
}

/// How to watch.
#[derive(Clone, Debug)]
pub struct Query {
    /// Which countdown.
    pub name: String,
    /// Behind which batch to go on; none: from now on.
    pub resume: Option<Position>,
    /// What to do when ticks could not be delivered in time.
    pub on_lag: OnLag,
    /// How the stream is cut into batches.
    pub batching: Batching,
}

/// The last tick that was encoded, for all watchers, with its number in the run.
#[derive(Debug, Default)]
pub(super) struct Encoded(Mutex<Option<(u64, Bytes)>>);

impl Encoded {
    /// The tick of this number, encoded by whoever needs it first.
    fn tick(&self, number: u64, encode: impl FnOnce() -> Bytes) -> Bytes {
        // What is there is whole, whoever panicked.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((known, bytes)) if *known == number => bytes.clone(),
            _ => last.insert((number, encode())).1.clone(),
        }
    }
}

/// The run that ticks are taken from.
#[derive(Debug)]
struct Run {
    snapshot: Arc<Snapshot>,
    position: schedule::Position,
}

impl Run {
    /// That of a countdown which has one, behind so many ticks over all runs.
    fn of(snapshot: &Arc<Snapshot>, delivered: u64) -> Option<Self> {
        let mut position = snapshot.record.run()?;
        position.pass(delivered.saturating_sub(snapshot.record.ticks_before));
        Some(Self { snapshot: snapshot.clone(), position })
    }

    /// How many ticks were delivered or counted, over all runs.
    fn delivered(&self) -> u64 {
        self.snapshot.record.ticks_before.saturating_add(self.position.passed())
    }
}

/// What a stream knows between two batches.
#[derive(Debug)]
pub(super) struct Watcher {
    changes: watch::Receiver<Arc<Snapshot>>,
    id: Uuid,
    /// The version that was told last, or that the reader knew when it came.
    version: u64,
    /// None while there are no ticks, and as long as the reader only knows a version that is past.
    run: Option<Run>,
    delivered: u64,
    /// Ticks that were left out and not told yet.
    unreported: u64,
    on_lag: OnLag,
    pacing: Pacing,
    clock: Clock,
    steps: Steps,
    /// By how much the wall clock was set since the last batch.
    stepped: Option<i128>,
    _rate: Rate,
}

impl Watcher {
    /// Watches from now on, or behind a position.
    pub fn new(
        changes: watch::Receiver<Arc<Snapshot>>,
        query: Query,
        clock: &Clock,
        rate: Rate,
    ) -> Result<Self, Error> {
        let Query { resume, on_lag, batching, .. } = query;
        let clock = clock.with_wake_group(batching.wake_group);
        let snapshot = changes.borrow().clone();
        let record = &snapshot.record;
        let reading = clock.both();
        let (version, delivered) = match resume {
            Some(position) if position.id != record.id => return Err(Error::Mismatch),
            Some(position) if position.version > snapshot.version => {
                return Err(Error::Ahead { version: snapshot.version });
            }
            Some(position) => (position.version, position.next),
            None => {
                // Who comes when it is over gets the last number.
                let last = u64::from(matches!(record.phase, Phase::Ended { .. }));
                (snapshot.version, record.due_by(reading.0).saturating_sub(last))
            }
        };
        let run = (version == snapshot.version).then(|| Run::of(&snapshot, delivered)).flatten();
        Ok(Self {
            id: record.id,
            version,
            run,
            delivered,
            unreported: 0,
            on_lag,
            pacing: Pacing::new(batching, reading.1),
            clock,
            steps: Steps::at(reading),
            stepped: None,
            changes,
            _rate: rate,
        })
    }

    pub fn is_over(&self) -> bool {
        self.pacing.is_over()
    }

    /// What is to be told now, and the position behind it.
    pub fn batch(&mut self) -> Result<Batch<Position>, Error> {
        let (wall, now) = self.read_clocks();
        let newest = self.changes.borrow_and_update().clone();
        if matches!(newest.record.phase, Phase::Deleted) {
            return Err(Error::NotFound);
        }
        let stepped = self.stepped.take().map(|by_nanos| Event::ClockStepped { by_nanos });
        let mut events = stepped.into_iter().collect::<Vec<_>>();
        let (has_changed, bound) = self.look_back(&newest, wall);
        let mut taken = self.take(bound);
        if has_changed && taken.count == 0 {
            events.push(Event::Changed {
                change: newest.record.change,
                by_nanos: newest.record.by_nanos,
                previous_version: self.version,
                version: newest.version,
            });
            self.switch_to(&newest);
            taken = self.take(wall);
        }
        let is_told = self.pacing.is_first() || has_changed && self.version == newest.version;
        let skipped = taken.skipped + std::mem::take(&mut self.unreported);
        self.pacing.record(taken.count, now);
        let is_through = self.run.as_ref().is_none_or(|run| run.position.is_end());
        if self.version == newest.version && newest.record.is_over() && is_through {
            self.pacing.end();
        }
        let position = Position { id: self.id, version: self.version, next: self.delivered };
        Ok(Batch {
            items: taken.items,
            count: taken.count,
            events,
            position,
            progress: Progress {
                late: taken.first_due.map(|due| schedule::span(wall - due)),
                skipped,
                snapshot: is_told.then_some(newest),
                sent: self.clock.wall(),
            },
        })
    }

    /// Whether there is a change to tell, and up to which moment ticks are to be delivered before.
    fn look_back(&mut self, newest: &Arc<Snapshot>, wall: i128) -> (bool, i128) {
        if newest.version == self.version {
            return (false, wall);
        }
        let record = &newest.record;
        let follows = record.previous_version == self.version;
        if matches!(record.phase, Phase::Ended { .. }) {
            // The last number comes before the end is told, also to a reader who was away for longer.
            if !follows {
                // From here on the position is one in the last run, wherever the stream is cut.
                self.skip_to(record.ticks_before);
                self.version = record.previous_version;
            }
            self.run = Run::of(newest, self.delivered);
            return (true, i128::MAX);
        }
        let is_behind = follows && self.on_lag == OnLag::Burst && self.delivered < record.ticks_before;
        let update = record.update_time.as_nanosecond();
        (true, if is_behind { update } else { i128::MIN })
    }

    /// Takes ticks that were due at a moment.
    fn take(&mut self, moment: i128) -> Taken {
        let Some(run) = &mut self.run else { return Taken::default() };
        let Run { snapshot, position } = run;
        let mark = Some(Mark {
            state: RUNNING,
            version: i64::try_from(snapshot.tick_version()).unwrap_or(i64::MAX),
        });
        let range = position.ready(moment, self.on_lag, self.pacing.max_items());
        let (items, count) = if range.end - range.start == 1 {
            (snapshot.encoded.tick(range.start, || position.encode(range.clone(), 0, mark).0), 1)
        } else {
            position.encode(range.clone(), self.pacing.max_bytes(), mark)
        };
        let taken = position.taken(&range, items, count);
        self.delivered = run.delivered();
        taken
    }

    /// Goes on with what a countdown has become.
    fn switch_to(&mut self, newest: &Arc<Snapshot>) {
        self.version = newest.version;
        if matches!(newest.record.phase, Phase::Ended { .. }) {
            return;
        }
        self.skip_to(newest.record.ticks_before);
        // A tick that was due between a change and its way to the disk belongs to neither run.
        self.delivered = newest.record.ticks_before;
        self.run = Run::of(newest, self.delivered);
    }

    /// Counts the ticks up to a number as left out.
    fn skip_to(&mut self, ticks: u64) {
        self.unreported += ticks.saturating_sub(self.delivered);
        self.delivered = ticks;
    }

    /// Both clocks; takes note of a step of the wall clock.
    fn read_clocks(&mut self) -> (i128, Instant) {
        let both = self.clock.both();
        if let Some(by) = self.steps.inspect(both) {
            self.stepped = Some(self.stepped.unwrap_or(0) + by);
        }
        both
    }

    /// Waits until there is something to tell: a tick, a change, a heartbeat, or that the wall clock was set.
    pub async fn wait(&mut self) -> Result<(), Error> {
        loop {
            let (wall, now) = self.read_clocks();
            let has_changed = self.changes.borrow().version != self.version;
            let ticking = self.run.as_ref().map(|run| &run.position);
            let tick = ticking.filter(|position| !position.is_end()).map(schedule::Position::next_due);
            let heartbeat = self.pacing.heartbeat_at();
            let is_due = tick.is_some_and(|tick| tick <= wall) || heartbeat <= now;
            if has_changed || is_due || self.stepped.is_some() {
                // A reader that is far behind always finds something due; others want the worker too.
                tokio::task::consume_budget().await;
                return Ok(());
            }
            let clock = &self.clock;
            let sleep = async {
                match tick {
                    Some(tick) => clock.sleep_until_moment(tick.min(roughly(wall, heartbeat - now))).await,
                    None => clock.sleep_until(heartbeat).await,
                }
            };
            tokio::select! {
                () = sleep => {}
                // Nothing tells of it any more: it was forgotten.
                changed = self.changes.changed() => changed.map_err(|_| Error::NotFound)?,
            }
        }
    }
}
