//! Countdown: a schedule, and the stream of its ticks.
//!
//! Tick k is due at `start + k × interval`, so a countdown does not drift. Ticks come in order, each at most once, and
//! never early. A stream that lags skips ticks and reports how many, or delivers all of them late, as the caller chose;
//! the last tick is always delivered. Each batch carries the [`Position`] after it. Time goes on while a stream is cut:
//! a resumed stream continues where it would be without the cut. No task runs beside the stream: dropping the stream
//! cancels it.
//!
//! A countdown from a number follows the monotonic clock from the moment when its stream was opened, and reads the wall
//! clock again only when it is resumed. A countdown until a moment follows the wall clock, also when that is set: set
//! back, the next tick comes later, and no tick comes twice; set forward, ticks are skipped. Deadlines, quotas and
//! shutdown are left to the caller that polls the stream.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_stream::stream;
use futures::Stream;
use tokio::time::Instant;

use self::schedule::Taken;
use crate::stream::{self, Batching, Pacing};

pub mod clock;
mod nanos;
mod rate;
mod request;
mod schedule;
pub mod shared;

pub use clock::{Clock, Steps};
pub use nanos::{Length, Moment, Nanos, OutOfRange};
pub use rate::{Rate, Rates};
pub use request::{MAX_BATCH, Request};
pub use schedule::Position;

/// What to count down, from the start or from a position.
#[derive(Clone, Debug)]
pub struct Query {
    /// Where the schedule comes from.
    pub start: Start,
    /// What to do when ticks could not be delivered in time.
    pub on_lag: OnLag,
    /// How the stream is divided into batches.
    pub batching: Batching,
}

/// Where a schedule comes from.
#[derive(Clone, Debug)]
pub enum Start {
    /// A new countdown.
    New(Spec),
    /// A countdown that continues after a position.
    Resume(Position),
}

/// A countdown that starts now.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The number or the moment that it counts from or to.
    pub target: Target,
    /// The bound of the numbers: the last one is not below it.
    pub to: i32,
    /// The difference between two numbers; at least 1.
    pub step: i32,
    /// The time between two ticks.
    pub interval: Duration,
    /// Pause one interval before the first number.
    pub wait_first: bool,
    /// Put the ticks on whole intervals since 1970; only with [`Target::From`].
    pub align: bool,
}

/// What a countdown runs towards.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// Down from a number, from now on.
    From(i32),
    /// To a moment, on which the last tick falls.
    Until(SystemTime),
}

/// What to do when the stream lags.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnLag {
    /// Deliver the newest tick that is due, and report how many were skipped.
    #[default]
    Skip,
    /// Deliver every tick.
    Burst,
}

/// Ticks, and the position after them. Streams of one shared countdown share the bytes of a tick.
pub type Batch<P = Position> = stream::Batch<Event, P, Progress>;

/// How far the stream of a countdown is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// How late the first tick of the batch leaves, if it has a tick.
    pub late: Option<Duration>,
    /// How many ticks before the first one of the batch are left out.
    pub skipped: u64,
    /// The shared countdown after the batch's events: in the first batch, and whenever it has changed.
    pub snapshot: Option<Arc<shared::Snapshot>>,
    /// When the batch was made.
    pub sent: SystemTime,
}

/// Something that happened to a countdown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// The wall clock was set, or the machine has slept.
    ClockStepped {
        /// By how much it moved against the monotonic one: above zero means forward.
        by: Nanos,
    },
    /// A shared countdown has changed.
    Changed {
        /// The last change.
        change: shared::Change,
        /// By how much its end was moved, if that was the last change.
        by: Option<Nanos>,
        /// The version that the client knew.
        previous_version: u64,
        /// Its version since then.
        version: u64,
    },
}

/// What the operator allows.
#[derive(Clone, Debug)]
pub struct Config {
    /// The shortest interval.
    pub min_interval: Duration,
    /// The longest countdown: from the first tick, or from the pause before it, to the last tick.
    pub max_length: Duration,
    /// The ticks a second of all open streams. Clones share one count.
    pub rates: Rates,
    /// The most shared countdowns.
    pub max_countdowns: usize,
    /// How long a shared countdown that has ended or was cancelled is kept.
    pub keep_ended: Duration,
}

impl Default for Config {
    /// 1 ms, the accuracy of timers; ten years, longer than a machine lives; [`Rates::default`]; as many shared
    /// countdowns as take some 100 MB; and a day, long enough to ask how a countdown ended.
    fn default() -> Self {
        const DAY: u64 = 24 * 60 * 60;
        Self {
            min_interval: Duration::from_millis(1),
            max_length: Duration::from_secs(3652 * DAY),
            rates: Rates::default(),
            max_countdowns: 100_000,
            keep_ended: Duration::from_secs(DAY),
        }
    }
}

/// Why a countdown cannot be opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// The request sets no target, and no name of a shared countdown.
    #[error("no target")]
    NoTarget,
    /// The request names a shared countdown, and sets a field that the countdown itself defines.
    #[error("the field {field} is set with a name")]
    SetWithName {
        /// The name of the field.
        field: &'static str,
    },
    /// The interval is below the operator's minimum.
    #[error("the interval of {interval:?} is shorter than the minimum of {min:?}")]
    IntervalTooShort {
        /// The value asked for.
        interval: Duration,
        /// The shortest allowed.
        min: Duration,
    },
    /// The countdown, or the interval alone, is longer than the operator's maximum.
    #[error("a length of {length:?} is over the maximum of {max:?}")]
    TooLong {
        /// The value asked for.
        length: Duration,
        /// The longest allowed.
        max: Duration,
    },
    /// The first number is below the last.
    #[error("the first number {from} is below the last number {to}")]
    FromBelowTo {
        /// The first number.
        from: i32,
        /// The last number.
        to: i32,
    },
    /// The step is below 1.
    #[error("the step {step} is below 1")]
    StepTooSmall {
        /// The value asked for.
        step: i32,
    },
    /// Ticks that are computed back from a moment leave no room for a pause before the first.
    #[error("a countdown until a moment has no pause before its first number")]
    WaitFirstWithUntil,
    /// The number of the first tick, or the count of ticks left, does not fit an `i32`.
    #[error("{left} intervals are left until the moment, more than the maximum of {max}")]
    TooManyNumbers {
        /// Whole intervals until the moment.
        left: i64,
        /// The most that this last number and step allow.
        max: i64,
    },
    /// The moment is later than the operator's maximum.
    #[error("the moment is {ahead:?} ahead, more than the maximum of {max:?}")]
    UntilTooFar {
        /// From now to the moment.
        ahead: Duration,
        /// The furthest allowed.
        max: Duration,
    },
    /// Ticks are either on whole intervals of the clock, or computed back from a moment.
    #[error("a countdown until a moment cannot be aligned to the clock")]
    AlignWithUntil,
    /// All streams together would exceed the operator's maximum of ticks a second.
    #[error("all streams together would have more than {limit} ticks a second")]
    TooManyTicks {
        /// The most that the operator allows.
        limit: u64,
    },
    /// No countdown of this server has such a position: it was forged, or the limits were lowered later.
    #[error("the position cannot be resumed: {0}")]
    PositionInvalid(&'static str),
}

/// Opens the stream of a countdown. The first batch is ready at once, empty if no tick is due.
///
/// # Errors
/// The first fault of the query. The stream itself never fails.
pub fn open(
    query: Query,
    clock: &Clock,
    config: &Config,
) -> Result<impl Stream<Item = Result<Batch, Error>> + Send + use<>, Error> {
    let mut countdown = Countdown::new(query, clock, config)?;
    Ok(stream!({
        yield Ok(countdown.batch());
        while !countdown.is_over() {
            countdown.wait().await;
            yield Ok(countdown.batch());
        }
    }))
}

/// The state of a stream between two batches.
struct Countdown {
    position: Position,
    on_lag: OnLag,
    pacing: Pacing,
    clock: Clock,
    /// When the stream was opened, by both clocks.
    opened: (Moment, Instant),
    /// The readings of both clocks at the end of the wait.
    seen: Option<(Moment, Instant)>,
    steps: Steps,
    /// By how much the wall clock was set after the last batch.
    stepped: Option<Nanos>,
    _rate: Rate,
}

impl Countdown {
    fn new(query: Query, clock: &Clock, config: &Config) -> Result<Self, Error> {
        let Query { start, on_lag, batching } = query;
        let clock = clock.with_wake_group(batching.wake_group);
        let opened = clock.both();
        let position = match start {
            Start::New(spec) => Position::new(&spec, opened.0, config)?,
            Start::Resume(position) => position.check(config).map(|()| position)?,
        };
        let rate = config.rates.take(position.interval())?;
        let (pacing, steps) = (Pacing::new(batching, opened.1), Steps::at(opened));
        Ok(Self { position, on_lag, pacing, clock, opened, seen: None, steps, stepped: None, _rate: rate })
    }

    fn is_over(&self) -> bool {
        self.position.is_end() || self.pacing.is_over()
    }

    /// The ticks that are due now, and the position after them.
    fn batch(&mut self) -> Batch {
        let (time, now) = self.seen.take().unwrap_or_else(|| self.look());
        let (max_items, max_bytes) = (self.pacing.max_items(), self.pacing.max_bytes());
        let Taken { items, count, skipped, first_due } =
            self.position.take(time, self.on_lag, max_items, max_bytes);
        self.pacing.record(count, now);
        let late = first_due.map(|due| (time - due).to_duration());
        let events = self.stepped.take().map(|by| Event::ClockStepped { by }).into_iter().collect();
        let (position, sent) = (self.position.clone(), self.clock.wall());
        let progress = Progress { late, skipped, snapshot: None, sent };
        Batch { items, count, events, position, progress }
    }

    /// Waits until a tick or a heartbeat is due, or the wall clock was set.
    async fn wait(&mut self) {
        loop {
            let (time, now) = self.look();
            let heartbeat = self.pacing.heartbeat_at();
            let waiting = self.position.next_due().filter(|due| *due > time && heartbeat > now);
            let Some(due) = waiting.filter(|_| self.stepped.is_none()) else {
                self.seen = Some((time, now));
                // A stream that lags far always finds a tick due; let other tasks use the worker.
                return tokio::task::consume_budget().await;
            };
            if self.position.is_pinned() {
                self.clock.sleep_until_moment(due.min(roughly(time, heartbeat - now))).await;
            } else {
                let tick = now.checked_add((due - time).to_duration());
                self.clock.sleep_until(tick.map_or(heartbeat, |tick| tick.min(heartbeat))).await;
            }
        }
    }

    /// The moment by which this countdown's ticks are due, and the monotonic clock.
    fn look(&mut self) -> (Moment, Instant) {
        if self.position.is_pinned() {
            let both = self.clock.both();
            if let Some(by) = self.steps.inspect(both) {
                self.stepped = Some(self.stepped.unwrap_or_default() + by);
            }
            return both;
        }
        let (now, (wall, monotonic)) = (self.clock.now(), self.opened);
        (wall + now.saturating_duration_since(monotonic).into(), now)
    }
}

/// A moment after a wait, rounded up to 10 ms, so that streams that wait for about the same moment share it.
fn roughly(time: Moment, wait: Duration) -> Moment {
    const GRAIN: Nanos = Nanos::new(10_000_000);
    (time + wait.into()).round_up(GRAIN)
}

#[cfg(test)]
mod tests;
