//! The stream of a shared countdown: its state, its ticks, and its changes.
//!
//! Ticks come while the countdown runs, in order, each at most once, and never early. The first batch carries the
//! current state. Each change is sent at once, as an event. A stream can be resumed after the [`Position`] of any
//! batch, also across changes, and then reports exactly how many ticks were due meanwhile. It ends when the countdown
//! is over, and with [`Error::NotFound`] when the countdown is deleted.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use super::{Error, Phase, Snapshot};
use crate::{
    countdown::{
        Batch, Clock, Event, Moment, Nanos, OnLag, Progress, Rate, Steps, roughly,
        schedule::{self, Due, Mark, Taken},
    },
    cursor,
    messages::{Lineage, Log},
    stream::{Batching, Pacing},
};

/// `COUNTDOWN_STATE_RUNNING`: a countdown has ticks in this state only.
const RUNNING: i32 = 1;

/// A position in a shared countdown. A version is the sequence of the message with it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Position {
    /// The countdown's id: its name may be used again after it is deleted.
    pub(super) id: Uuid,
    /// The last version that was reported.
    pub(super) version: u64,
    /// How many ticks were delivered or skipped, over all runs.
    pub(super) next: u64,
    /// The last incarnations of the log at or below the version; `None` in the first version of the cursor.
    pub(super) lineage: Option<Lineage>,
}

/// The first version of [`Position`].
#[derive(Deserialize)]
struct First {
    id: Uuid,
    version: u64,
    next: u64,
}

impl From<First> for Position {
    fn from(First { id, version, next }: First) -> Self {
        Self { id, version, next, lineage: None }
    }
}

impl cursor::Position for Position {
    const KIND: cursor::Kind = cursor::Kind::Shared;
    const DECODERS: &'static [cursor::Decoder<Self>] =
        &[|bytes| cursor::decode_fields::<First>(bytes).map(Self::from), cursor::decode_fields];
}

/// Which countdown to watch, from the present or from a position.
#[derive(Clone, Debug)]
pub struct Query {
    pub(crate) name: String,
    /// The position to resume after; `None`: start now.
    pub resume: Option<Position>,
    /// What to do when ticks could not be delivered in time.
    pub on_lag: OnLag,
    /// How the stream is divided into batches.
    pub batching: Batching,
}

/// The last tick that was encoded, with its index in the run. All watchers share it.
#[derive(Debug, Default)]
pub(super) struct Encoded(Mutex<Option<(u64, Bytes)>>);

impl Encoded {
    /// The tick of this index. The first watcher that needs a tick encodes it.
    fn tick(&self, index: u64, encode: impl FnOnce() -> Bytes) -> Bytes {
        // A panic in `encode` leaves the previous tick in place.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((known, bytes)) if *known == index => bytes.clone(),
            _ => last.insert((index, encode())).1.clone(),
        }
    }
}

/// The run whose ticks the stream delivers.
#[derive(Debug)]
struct Run {
    snapshot: Arc<Snapshot>,
    position: schedule::Position,
}

impl Run {
    /// The run of a countdown, after the first `delivered` ticks of all runs; `None` if it has no run.
    fn of(snapshot: &Arc<Snapshot>, delivered: u64) -> Option<Self> {
        let mut position = snapshot.record.run()?;
        position.pass(delivered.saturating_sub(snapshot.record.ticks_before));
        Some(Self { snapshot: snapshot.clone(), position })
    }

    /// How many ticks were delivered or skipped, over all runs.
    fn delivered(&self) -> u64 {
        self.snapshot.record.ticks_before + self.position.passed()
    }
}

/// The state of a stream between two batches.
#[derive(Debug)]
pub(super) struct Watcher {
    changes: watch::Receiver<Arc<Snapshot>>,
    id: Uuid,
    /// The version that was reported last, or the version of the position that the client resumed after.
    version: u64,
    /// `None` while the countdown has no ticks, and until the client has caught up with its changes.
    run: Option<Run>,
    /// How many ticks were delivered or skipped, over all runs.
    delivered: u64,
    /// How many ticks were skipped and not reported yet.
    unreported: u64,
    on_lag: OnLag,
    pacing: Pacing,
    log: Log,
    clock: Clock,
    steps: Steps,
    /// By how much the wall clock was set after the last batch.
    stepped: Option<Nanos>,
    _rate: Rate,
}

impl Watcher {
    /// A stream that starts now, or after a position.
    pub fn new(
        changes: watch::Receiver<Arc<Snapshot>>,
        query: Query,
        log: &Log,
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
            Some(position) => {
                log.check_lineage(position.lineage, position.version).map_err(Error::Diverged)?;
                if position.version > snapshot.version {
                    return Err(Error::Ahead { version: snapshot.version });
                }
                (position.version, position.next)
            }
            None => {
                // A stream that starts after the end gets the last number.
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
            log: log.clone(),
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

    /// The ticks and the change that are due now, and the position after them.
    pub fn batch(&mut self) -> Result<Batch<Position>, Error> {
        let (wall, now) = self.read_clocks();
        let newest = self.changes.borrow_and_update().clone();
        if matches!(newest.record.phase, Phase::Deleted) {
            return Err(Error::NotFound);
        }
        let stepped = self.stepped.take().map(|by| Event::ClockStepped { by });
        let mut events = stepped.into_iter().collect::<Vec<_>>();
        let (has_changed, due) = self.ticks_before_change(&newest, wall);
        let mut taken = due.map_or_else(Taken::default, |due| self.take(due));
        if has_changed && taken.count == 0 {
            events.push(Event::Changed {
                change: newest.record.change,
                by: newest.record.by,
                previous_version: self.version,
                version: newest.version,
            });
            self.switch_to(&newest);
            taken = self.take(Due::By(wall));
        }
        let has_snapshot = self.pacing.is_first() || has_changed && self.version == newest.version;
        let skipped = taken.skipped + std::mem::take(&mut self.unreported);
        self.pacing.record(taken.count, now);
        let is_run_over = self.run.as_ref().is_none_or(|run| run.position.is_end());
        if self.version == newest.version && newest.record.is_over() && is_run_over {
            self.pacing.end();
        }
        let lineage = Some(self.log.lineage(self.version));
        let position = Position { id: self.id, version: self.version, next: self.delivered, lineage };
        Ok(Batch {
            items: taken.items,
            count: taken.count,
            events,
            position,
            progress: Progress {
                late: taken.first_due.map(|due| (wall - due).to_duration()),
                skipped,
                snapshot: has_snapshot.then_some(newest),
                sent: self.clock.wall(),
            },
        })
    }

    /// Whether there is a change to report, and the ticks that are delivered before it, if any.
    fn ticks_before_change(&mut self, newest: &Arc<Snapshot>, wall: Moment) -> (bool, Option<Due>) {
        if newest.version == self.version {
            return (false, Some(Due::By(wall)));
        }
        let record = &newest.record;
        let follows = record.previous_version == self.version;
        if matches!(record.phase, Phase::Ended { .. }) {
            // Deliver the last number before the end is reported, also if the client missed earlier changes.
            if !follows {
                // Switch to the last run now, so that a cut in the middle of it resumes there.
                self.skip_to(record.ticks_before);
                self.version = record.previous_version;
            }
            self.run = Run::of(newest, self.delivered);
            return (true, Some(Due::All));
        }
        let has_ticks_left = follows && self.on_lag == OnLag::Burst && self.delivered < record.ticks_before;
        (true, has_ticks_left.then(|| Due::By(record.update_time.into())))
    }

    /// Takes the ticks that are due.
    fn take(&mut self, due: Due) -> Taken {
        let Some(run) = &mut self.run else { return Taken::default() };
        let Run { snapshot, position } = run;
        let mark = Some(Mark { state: RUNNING, version: snapshot.tick_version() });
        let range = position.ready(due, self.on_lag, self.pacing.max_items());
        let (items, count) = if range.end - range.start == 1 {
            (snapshot.encoded.tick(range.start, || position.encode(range.clone(), 0, mark).0), 1)
        } else {
            position.encode(range.clone(), self.pacing.max_bytes(), mark)
        };
        let taken = position.taken(&range, items, count);
        self.delivered = run.delivered();
        taken
    }

    /// Continues with the run of a new version.
    fn switch_to(&mut self, newest: &Arc<Snapshot>) {
        self.version = newest.version;
        if matches!(newest.record.phase, Phase::Ended { .. }) {
            return;
        }
        // This lowers `delivered` if a tick was delivered after the change and before it was on disk: that tick belongs
        // to neither run.
        self.skip_to(newest.record.ticks_before);
        self.run = Run::of(newest, self.delivered);
    }

    /// Continues after the first `ticks` ticks of all runs, and counts those that were not delivered as skipped.
    fn skip_to(&mut self, ticks: u64) {
        self.unreported += ticks.saturating_sub(self.delivered);
        self.delivered = ticks;
    }

    /// Reads both clocks, and records a step of the wall clock.
    fn read_clocks(&mut self) -> (Moment, Instant) {
        let both = self.clock.both();
        if let Some(by) = self.steps.inspect(both) {
            self.stepped = Some(self.stepped.unwrap_or_default() + by);
        }
        both
    }

    /// Waits until a tick or a heartbeat is due, the countdown is changed, or the wall clock is set.
    pub async fn wait(&mut self) -> Result<(), Error> {
        loop {
            let (wall, now) = self.read_clocks();
            let has_changed = self.changes.borrow().version != self.version;
            let tick = self.run.as_ref().and_then(|run| run.position.next_due());
            let heartbeat = self.pacing.heartbeat_at();
            let is_due = tick.is_some_and(|tick| tick <= wall) || heartbeat <= now;
            if has_changed || is_due || self.stepped.is_some() {
                // A stream that lags far always finds a tick due; let other tasks use the worker.
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
                // The registry has removed it: its last message has expired.
                changed = self.changes.changed() => changed.map_err(|_| Error::NotFound)?,
            }
        }
    }
}
