//! Countdown: a schedule, and the stream of its ticks.

use std::time::{Duration, SystemTime};

use futures::Stream;
use serde::{Deserialize, Serialize};

use crate::wire::Batching;

pub mod clock;

pub use clock::Clock;

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

/// A place in a countdown: its schedule, anchored to the wall clock, and the next tick.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Position {}

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

/// Why a countdown cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {}

/// Opens the stream of a countdown. The first batch is ready at once.
///
/// # Errors
/// Whatever is wrong with the query; the stream itself never fails.
pub fn open(
    query: Query,
    clock: &Clock,
    limits: &Limits,
) -> Result<impl Stream<Item = Result<Batch, Error>> + Send + 'static, Error> {
    let _ = (query, clock, limits);
    Ok(futures::stream::empty())
}
