//! Countdown: a schedule, and the stream of its ticks.
//!
//! Tick k is due at `start + k × interval`, so a countdown does not drift. Ticks come in order, each at most once, and
//! never early. A stream that is behind skips and says how many, or delivers all of them late, as the caller chose;
//! the last tick is always delivered. Each batch carries the [`Position`] behind it, and time goes on while nobody
//! listens: a stream that was resumed stands where it would stand had it never been cut. Nothing runs beside the
//! stream: who drops it has cancelled it.
//!
//! A countdown from a number follows the monotonic clock from when its stream was opened, whatever becomes of the wall
//! clock; only resuming looks at the latter again. One until a moment follows the wall clock, also when that is set:
//! back, and the next tick comes later, but none comes twice; forward, and ticks are skipped. Deadlines, quotas and
//! shutdown are the business of who polls the stream.

use std::time::{Duration, SystemTime};

use async_stream::stream;
use futures::Stream;
use tokio::time::Instant;

use crate::wire::Batching;

pub mod clock;
mod schedule;

pub use clock::Clock;
pub use schedule::Position;

/// The longest a tick is when it is encoded, with its tag: what [`Batching::max_bytes`] is divided by.
const TICK_BYTES: usize = 48;

/// The shortest heartbeat: the stream may be asked for nonsense, and must not spin.
const MIN_HEARTBEAT: Duration = Duration::from_millis(1);

/// The longest sleep: timers have bounds, and positions of strangers may lie far ahead.
const MAX_SLEEP: Duration = Duration::from_secs(3600);

/// How late it is noticed that the wall clock was set, where no clock tells.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What to count down, from the start or from a position.
#[derive(Clone, Debug)]
pub struct Query {
    /// Where the schedule comes from.
    pub start: Start,
    /// What to do when ticks could not be delivered in time.
    pub on_lag: OnLag,
    /// How the stream is cut into batches.
    pub batching: Batching,
}

/// Where a schedule comes from.
#[derive(Clone, Debug)]
pub enum Start {
    /// A new countdown.
    New(Spec),
    /// One that goes on.
    Resume(Position),
}

/// A countdown as asked for.
#[derive(Clone, Debug)]
pub struct Spec {
    /// What it runs towards.
    pub target: Target,
    /// The last number, or rather the bound that it does not pass.
    pub to: i32,
    /// The fall from tick to tick; at least 1.
    pub step: i32,
    /// The time between two ticks.
    pub interval: Duration,
    /// Pause one interval before the first number.
    pub wait_first: bool,
}

/// What a countdown runs towards.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// Down from a number, from now on.
    From(i32),
    /// To a moment, on which the last tick falls.
    Until(SystemTime),
}

/// What to do when the stream is behind.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnLag {
    /// The newest due tick, and the number left out.
    #[default]
    Skip,
    /// Every tick.
    Burst,
}

/// One number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tick {
    /// The number.
    pub remaining: i32,
    /// From this tick to the last one.
    pub remaining_time: Duration,
    /// When it was due.
    pub due: SystemTime,
}

/// Some ticks, and where they leave the reader.
#[derive(Clone, Debug)]
pub struct Batch {
    /// In order; none in a heartbeat.
    pub ticks: Vec<Tick>,
    /// How many ticks before the first one here were left out.
    pub skipped: u64,
    /// Behind this batch.
    pub position: Position,
    /// When it was made.
    pub sent: SystemTime,
}

/// The operator's limits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The shortest interval.
    pub min_interval: Duration,
    /// The longest countdown, from its first tick to its last.
    pub max_length: Duration,
}

impl Default for Limits {
    /// 1 ms, which is what timers are good for, and ten years, which outlasts the machine.
    fn default() -> Self {
        const DAY: u64 = 24 * 60 * 60;
        Self { min_interval: Duration::from_millis(1), max_length: Duration::from_secs(3652 * DAY) }
    }
}

/// Why a countdown cannot be had.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// The interval is below the operator's minimum.
    #[error("the interval of {interval:?} is shorter than the minimum of {min:?}")]
    IntervalTooShort {
        /// As asked for.
        interval: Duration,
        /// The shortest allowed.
        min: Duration,
    },
    /// From now to the last tick, or the interval alone, it is longer than the operator's maximum.
    #[error("a length of {length:?} is over the maximum of {max:?}")]
    TooLong {
        /// As asked for.
        length: Duration,
        /// The longest allowed.
        max: Duration,
    },
    /// It cannot fall to a number that is higher.
    #[error("the first number {from} is below the last number {to}")]
    FromBelowTo {
        /// The first number.
        from: i32,
        /// The last number.
        to: i32,
    },
    /// It would not fall.
    #[error("the step {step} is below 1")]
    StepTooSmall {
        /// As asked for.
        step: i32,
    },
    /// Ticks laid backward from a moment leave no room for a pause before the first.
    #[error("a countdown until a moment has no pause before its first number")]
    WaitFirstWithUntil,
    /// The number of the first tick, or the count of ticks left, does not fit an `i32`.
    #[error("{left} intervals are left until the moment, more than the maximum of {max}")]
    TooManyNumbers {
        /// Whole intervals until the moment.
        left: i64,
        /// The most there can be with this last number and step.
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
    /// No countdown of this server has such a position: it was forged, or the limits were lowered since.
    #[error("the position cannot be resumed: {0}")]
    PositionInvalid(&'static str),
}

/// Opens the stream of a countdown. The first batch is ready at once, empty if no tick is due.
///
/// # Errors
/// Whatever is wrong with the query; the stream itself never fails.
pub fn open(
    query: Query,
    clock: &Clock,
    limits: &Limits,
) -> Result<impl Stream<Item = Result<Batch, Error>> + Send + use<>, Error> {
    let mut countdown = Countdown::new(query, clock.clone(), limits)?;
    Ok(stream!({
        yield Ok(countdown.batch());
        while !countdown.is_over() {
            countdown.wait().await;
            yield Ok(countdown.batch());
        }
    }))
}

/// What a stream of ticks knows between two batches.
struct Countdown {
    position: Position,
    on_lag: OnLag,
    /// How many ticks this call may still deliver.
    allowance: u64,
    heartbeat: Duration,
    max_items: usize,
    clock: Clock,
    /// When the stream was opened, by both clocks.
    opened: (SystemTime, Instant),
    /// When the last batch was made.
    last_batch: Instant,
}

impl Countdown {
    fn new(query: Query, clock: Clock, limits: &Limits) -> Result<Self, Error> {
        let Query { start, on_lag, batching: Batching { limit, heartbeat, max_items, max_bytes } } = query;
        // In this order: ticks then are late by what passes between the two, and not early.
        let opened = (clock.wall(), clock.now());
        let position = match start {
            Start::New(spec) => Position::new(&spec, opened.0, limits)?,
            Start::Resume(position) => position.check(limits).map(|()| position)?,
        };
        Ok(Self {
            position,
            on_lag,
            allowance: limit.unwrap_or(u64::MAX),
            heartbeat: heartbeat.max(MIN_HEARTBEAT),
            max_items: max_items.min(max_bytes / TICK_BYTES).max(1),
            clock,
            opened,
            last_batch: opened.1,
        })
    }

    fn is_over(&self) -> bool {
        self.position.is_end() || self.allowance == 0
    }

    /// What is due now, and the position behind it.
    fn batch(&mut self) -> Batch {
        let now = self.clock.now();
        let at_most = usize::try_from(self.allowance).map_or(self.max_items, |left| left.min(self.max_items));
        let (ticks, skipped) = self.position.take(self.schedule_time(now), self.on_lag, at_most);
        self.allowance -= ticks.len() as u64;
        self.last_batch = now;
        Batch { ticks, skipped, position: self.position.clone(), sent: self.clock.wall() }
    }

    /// Waits until a tick is due, or a heartbeat.
    async fn wait(&self) {
        loop {
            let now = self.clock.now();
            let tick = self.position.next_due_in(self.schedule_time(now));
            let heartbeat = self.heartbeat.saturating_sub(now.saturating_duration_since(self.last_batch));
            let wait = tick.min(heartbeat);
            if wait.is_zero() {
                // A reader that is far behind always finds something due; others want the worker too.
                return tokio::task::consume_budget().await;
            }
            let looks = self.position.is_pinned() && !self.clock.notices_steps();
            self.clock.sleep_until(now + wait.min(if looks { LOOK_AGAIN } else { MAX_SLEEP })).await;
        }
    }

    /// The moment, in nanoseconds since the epoch, by which this countdown's ticks are due.
    fn schedule_time(&self, now: Instant) -> i128 {
        let (wall, monotonic) = self.opened;
        if self.position.is_pinned() {
            schedule::nanos(self.clock.wall())
        } else {
            schedule::nanos(wall + now.saturating_duration_since(monotonic))
        }
    }
}

#[cfg(test)]
mod tests;
