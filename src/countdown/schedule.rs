//! The arithmetic of a countdown: when each number is due, and which ticks a batch at some moment has.
//!
//! All functions are pure: the time is an argument. Tick k is due at `start + k × interval`, which is computed and never
//! accumulated, so a countdown does not drift. A client can forge a [`Position`]: [`Position::check`] establishes the
//! ranges that all other functions rely on, and after it no function overflows.

use std::{ops::Range, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Config, Error, Length, Moment, OnLag, Spec, Target};
use crate::{
    cursor,
    wire::tick::{self, Tick},
};

/// The first moment that a protobuf timestamp can express: 0001-01-01T00:00:00Z.
const FIRST_MOMENT: Moment = Moment::from_nanos(-62_135_596_800 * NANOS_PER_SECOND);

/// The last one: 9999-12-31T23:59:59.999999999Z.
const LAST_MOMENT: Moment = Moment::from_nanos(253_402_300_800 * NANOS_PER_SECOND - 1);

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// The usual size of an encoded tick: room for all ticks of a batch is reserved at once.
const TICK_BYTES: usize = 48;

/// The ticks of one batch.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Taken {
    /// Encoded, in order.
    pub(super) items: Vec<Bytes>,
    /// How many ticks there are.
    pub(super) count: usize,
    /// How many ticks before them were skipped.
    pub(super) skipped: u64,
    /// When the first of them was due.
    pub(super) first_due: Option<Moment>,
}

/// Which ticks of a countdown are due.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    /// Those that are due at this moment.
    By(Moment),
    /// All of them: the countdown has ended.
    All,
}

/// What a shared countdown adds to its ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// The number of its state.
    pub(super) state: i32,
    /// Its version.
    pub(super) version: i64,
}

/// A position in a countdown: its schedule, anchored to the wall clock, and the next tick.
///
/// Serialised it takes about 30 bytes. A client can forge it: only `check` may read its fields before they are checked.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Position {
    /// When tick 0 is due.
    start: Moment,
    /// From tick to tick; at least 1 ns.
    interval: Length,
    /// The number of tick 0.
    from: i32,
    /// The fall from tick to tick; at least 1.
    step: i32,
    /// How many ticks there are in all; at least 1, at most 2³².
    count: u64,
    /// The ticks belong to moments of the wall clock, and follow the clock when it is set.
    pinned: bool,
    /// The first tick that was neither delivered nor skipped; `count` after the last one.
    next: u64,
}

impl cursor::Position for Position {
    const KIND: cursor::Kind = cursor::Kind::Countdown;
    const DECODERS: &'static [cursor::Decoder<Self>] = &[cursor::decode_fields];
}

impl Position {
    /// The position before the first tick of a new countdown that starts at `now`.
    pub(super) fn new(spec: &Spec, now: Moment, config: &Config) -> Result<Self, Error> {
        if spec.step < 1 {
            return Err(Error::StepTooSmall { step: spec.step });
        }
        let interval = checked_interval(spec.interval, config)?;
        let position = match spec.target {
            Target::From(from) => Self::down_from(from, spec, interval, now, config)?,
            Target::Until(moment) => Self::down_to(moment.into(), spec, interval, now, config)?,
        };
        let too_long = |_| Error::TooLong { length: position.length(), max: config.max_length };
        position.check(config).map_err(too_long)?;
        Ok(position)
    }

    fn down_from(
        from: i32,
        spec: &Spec,
        interval: Length,
        now: Moment,
        config: &Config,
    ) -> Result<Self, Error> {
        let fall = u64::try_from(i64::from(from) - i64::from(spec.to))
            .map_err(|_| Error::FromBelowTo { from, to: spec.to })?;
        let last = fall / u64::from(spec.step.unsigned_abs());
        let pauses = last + u64::from(spec.wait_first);
        let length = (interval * pauses).to_duration();
        if length > config.max_length {
            return Err(Error::TooLong { length, max: config.max_length });
        }
        // To the next whole interval; one that begins now has its tick now.
        let first = if spec.align { now.round_up(interval.into()) } else { now };
        let start = if spec.wait_first { first + interval.into() } else { first };
        let count = last + 1;
        Ok(Self { start, interval, from, step: spec.step, count, pinned: spec.align, next: 0 })
    }

    fn down_to(
        moment: Moment,
        spec: &Spec,
        interval: Length,
        now: Moment,
        config: &Config,
    ) -> Result<Self, Error> {
        if spec.wait_first {
            return Err(Error::WaitFirstWithUntil);
        }
        if spec.align {
            return Err(Error::AlignWithUntil);
        }
        // A moment before the year 1 is in the past, like any other past moment.
        let moment = moment.max(FIRST_MOMENT);
        let ahead = moment - now;
        if ahead.to_duration() > config.max_length {
            return Err(Error::UntilTooFar { ahead: ahead.to_duration(), max: config.max_length });
        }
        // A past moment has the last tick alone.
        let left = ahead.whole_intervals(interval).unwrap_or(0);
        // Both the first number and the count of the numbers left must fit.
        let fall = i64::from(i32::MAX) - i64::from(spec.to);
        let max = (fall / i64::from(spec.step)).min(i64::from(i32::MAX));
        let last = i64::try_from(left).unwrap_or(i64::MAX);
        let from = i32::try_from(i64::from(spec.to) + last.min(max) * i64::from(spec.step));
        let (true, Ok(from), Ok(count)) = (last <= max, from, u64::try_from(last + 1)) else {
            return Err(Error::TooManyNumbers { left: last, max });
        };
        let start = moment - interval * left;
        Ok(Self { start, interval, from, step: spec.step, count, pinned: true, next: 0 })
    }

    /// The position before the first of `ticks` ticks, of which the last is due at `end`; `None` if no such schedule
    /// exists.
    pub(super) fn backward(end: Moment, ticks: u64, interval: Length, to: i32, step: i32) -> Option<Self> {
        let last = ticks.checked_sub(1)?;
        let fall = i64::try_from(last).ok()?.checked_mul(step.into())?;
        let from = i32::try_from(i64::from(to).checked_add(fall)?).ok()?;
        let start = end.checked_sub(interval * last)?;
        let position = Self { start, interval, from, step, count: ticks, pinned: true, next: 0 };
        let any = Config { min_interval: Duration::ZERO, max_length: Duration::MAX, ..Config::default() };
        position.check(&any).is_ok().then_some(position)
    }

    /// Checks each field, because a client can forge a position.
    pub(super) fn check(&self, config: &Config) -> Result<(), Error> {
        let refused = |what| Err(Error::PositionInvalid(what));
        let interval = Duration::from(self.interval);
        if interval.is_zero() || interval < config.min_interval {
            return refused("its interval is shorter than this server allows");
        }
        if self.step < 1 {
            return refused("its step is below 1");
        }
        if self.count == 0 || self.next > self.count {
            return refused("it names a tick that the countdown does not have");
        }
        if i128::from(self.from) - i128::from(self.count - 1) * i128::from(self.step) < i128::from(i32::MIN) {
            return refused("its numbers leave the range of int32");
        }
        let length = self.interval.checked_mul(self.count - 1).map(Duration::from);
        if interval > config.max_length || length.is_none_or(|length| length > config.max_length) {
            return refused("it is longer than this server allows");
        }
        // `start` first: only a start in range can be added to.
        if !(FIRST_MOMENT..=LAST_MOMENT).contains(&self.start) || self.end() > LAST_MOMENT {
            return refused("it leaves the years 1 to 9999");
        }
        Ok(())
    }

    /// Whether all ticks were delivered or skipped.
    pub(super) fn is_end(&self) -> bool {
        self.next >= self.count
    }

    /// From tick to tick.
    pub(super) fn interval(&self) -> Duration {
        self.interval.into()
    }

    /// Whether the schedule follows the wall clock when that is set.
    pub(super) fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// When the next tick is due; `None` after the last one.
    pub(super) fn next_due(&self) -> Option<Moment> {
        (!self.is_end()).then(|| self.due(self.next))
    }

    /// When the last tick is due.
    pub(super) fn end(&self) -> Moment {
        self.due(self.count - 1)
    }

    /// How many ticks were delivered or skipped.
    pub(super) fn passed(&self) -> u64 {
        self.next
    }

    /// Moves after the first `ticks` ticks, or to the end if there are fewer.
    pub(super) fn pass(&mut self, ticks: u64) {
        self.next = ticks.min(self.count);
    }

    /// Takes the ticks that are due at `now`, up to `at_most` ticks and about `max_bytes`, and moves after them.
    pub(super) fn take(&mut self, now: Moment, on_lag: OnLag, at_most: usize, max_bytes: usize) -> Taken {
        let range = self.ready(Due::By(now), on_lag, at_most);
        let (items, count) = self.encode(range.clone(), max_bytes, None);
        self.taken(&range, items, count)
    }

    /// The ticks to deliver, up to `at_most` of those that are due.
    pub(super) fn ready(&self, due: Due, on_lag: OnLag, at_most: usize) -> Range<u64> {
        let due = match due {
            // The wall clock may have been set back since the last call: never below `next`.
            Due::By(now) => self.due_by(now).max(self.next),
            Due::All => self.count,
        };
        if due == self.next || at_most == 0 {
            return self.next..self.next;
        }
        let room = self.next.saturating_add(u64::try_from(at_most).unwrap_or(u64::MAX));
        match on_lag {
            // The newest; past the end of the countdown that is the last one, which therefore is never left out.
            OnLag::Skip => due - 1..due,
            OnLag::Burst => self.next..due.min(room),
        }
    }

    /// Moves after the first `count` ticks of a range, which were encoded.
    pub(super) fn taken(&mut self, range: &Range<u64>, items: Bytes, count: usize) -> Taken {
        let skipped = range.start - self.next;
        self.next = range.start + count as u64;
        let first_due = (count > 0).then(|| self.due(range.start));
        let items = if count > 0 { vec![items] } else { Vec::new() };
        Taken { items, count, skipped, first_due }
    }

    /// Encodes ticks until they have `max_bytes`, but at least one; returns how many.
    pub(super) fn encode(&self, range: Range<u64>, max_bytes: usize, mark: Option<Mark>) -> (Bytes, usize) {
        if range.is_empty() {
            return (Bytes::new(), 0);
        }
        let ticks = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut out = Vec::with_capacity(ticks.saturating_mul(TICK_BYTES).min(max_bytes) + tick::MAX_BYTES);
        let (mut encoder, mut count) = (tick::TickEncoder::default(), 0);
        for k in range {
            encoder.put(&mut out, &self.tick(k, mark));
            count += 1;
            if out.len() >= max_bytes {
                break;
            }
        }
        (out.into(), count)
    }

    /// How many of all ticks are due at `now`.
    pub(super) fn due_by(&self, now: Moment) -> u64 {
        let since = now.saturating_since(self.start).whole_intervals(self.interval);
        since.map_or(0, |intervals| intervals.saturating_add(1).min(self.count))
    }

    fn due(&self, k: u64) -> Moment {
        self.start + self.interval * k
    }

    #[expect(clippy::expect_used, reason = "a tick with another number or length would be wrong data")]
    fn tick(&self, k: u64, mark: Option<Mark>) -> Tick {
        let number = i128::from(self.from) - i128::from(k) * i128::from(self.step);
        let remaining = self.interval.checked_mul(self.count - 1 - k);
        Tick {
            remaining: i32::try_from(number).expect("`check` has shown that all numbers fit"),
            remaining_nanos: remaining.expect("`check` has shown that the whole length fits").get(),
            due_nanos: self.due(k).as_nanos(),
            end_nanos: self.end().as_nanos(),
            state: mark.map(|mark| mark.state),
            version: mark.map(|mark| mark.version),
        }
    }

    /// From the first tick to the last.
    fn length(&self) -> Duration {
        (self.interval * (self.count - 1)).to_duration()
    }
}

/// An interval in the unit of a position, if it is one that the operator allows.
pub(super) fn checked_interval(interval: Duration, config: &Config) -> Result<Length, Error> {
    // An interval of nothing has no ticks to count, whatever the operator allows.
    let min = config.min_interval.max(Duration::from_nanos(1));
    if interval < min {
        return Err(Error::IntervalTooShort { interval, min });
    }
    if interval > config.max_length {
        return Err(Error::TooLong { length: interval, max: config.max_length });
    }
    // Longer than 584 years only where an operator allows that.
    let too_long = |_| Error::TooLong { length: interval, max: config.max_length };
    Length::try_from(interval).map_err(too_long)
}

#[cfg(test)]
pub(super) mod tests;
