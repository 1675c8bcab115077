//! The state of a shared countdown, and its changes. All functions are pure: the time is an argument.
//!
//! A [`Record`] is the last message of the topic `$countdown.NAME`, as JSON. While a countdown runs, its ticks are
//! counted back from its end: they are due at `end − j × interval`. Each change starts a new *run* of ticks after the
//! moment of the change. Ticks are counted over all runs, so that a client that was disconnected while the countdown
//! was paused, extended and resumed learns exactly how many ticks it missed. All moments are the wall clock's.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Error;
use crate::{
    countdown::{self, Config, Length, Moment, Nanos, schedule},
    messages::{Content, NewMessage},
};

/// The highest number that a tick can have.
const MAX_NUMBER: i64 = i32::MAX as i64;

/// The longest length that a record can store.
const MAX_LENGTH: Duration = Duration::from_nanos(Length::LONGEST.get());

/// The most ticks before a run. A run has at most 2³² ticks, so no countdown reaches it, and sums of ticks fit an
/// `i64`.
const MAX_TICKS_BEFORE: u64 = 1 << 62;

/// The state of a shared countdown.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Distinguishes it from other countdowns that had its name.
    pub id: Uuid,
    /// The version before the last change; 0 when it was created.
    pub previous_version: u64,
    /// The last change.
    pub change: Change,
    /// By how much its end was moved, if that was the last change.
    #[serde(rename = "byNanos", skip_serializing_if = "Option::is_none")]
    pub by: Option<Nanos>,
    /// The phase since the last change.
    #[serde(flatten)]
    pub phase: Phase,
    /// How many ticks were due before the ticks of this phase.
    pub ticks_before: u64,
    /// From its start to its end, with all extensions and without pauses.
    #[serde(rename = "totalNanos")]
    pub total: Length,
    /// The time between two ticks.
    #[serde(rename = "intervalNanos")]
    pub interval: Length,
    /// The number of the last tick.
    pub to: i32,
    /// The difference between the numbers of two ticks; at least 1.
    pub step: i32,
    pub(crate) create_time: Timestamp,
    /// The time of the last change.
    pub update_time: Timestamp,
    /// Makes it safe to repeat the request that created the countdown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The message that is published when it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_end: Option<OnEnd>,
}

/// The phase of a shared countdown's life.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "SCREAMING_SNAKE_CASE", rename_all_fields = "camelCase")]
pub enum Phase {
    /// It runs.
    Running {
        /// When its last tick is due.
        end_time: Timestamp,
        /// How many ticks this run has in all.
        ticks: u64,
    },
    /// It has no ticks until it is resumed.
    Paused {
        /// The time left.
        #[serde(rename = "remainingNanos")]
        remaining: Length,
    },
    /// It reached its end.
    Ended {
        /// When its last tick was due.
        end_time: Timestamp,
        /// How many ticks the last run had.
        ticks: u64,
    },
    /// It was cancelled before its end.
    Cancelled {
        /// The time that was left.
        #[serde(rename = "remainingNanos")]
        remaining: Length,
    },
    /// It was deleted: the name is free.
    Deleted,
}

/// A change of a shared countdown.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "each is a word of the contract")]
pub enum Change {
    Created,
    Paused,
    Resumed,
    Extended,
    Cancelled,
    Ended,
    Deleted,
}

/// A message that is published when a countdown ends.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OnEnd {
    pub(crate) topic: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// Sorted by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    #[serde(flatten, with = "content")]
    pub(crate) content: Content,
}

impl OnEnd {
    /// Its approximate size in a response.
    pub fn bytes(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum::<usize>();
        let content = match &self.content {
            Content::Text(text) => text.len(),
            Content::Data(data) => data.len(),
        };
        self.topic.len() + self.key.as_ref().map_or(0, String::len) + headers + content
    }

    /// The message to publish, without the server's headers.
    pub fn message(&self) -> NewMessage {
        let Self { topic, key, headers, content } = self.clone();
        NewMessage { topic, content, key, headers, ..NewMessage::default() }
    }
}

/// A shared countdown, as a request asks for it.
#[derive(Clone, Debug)]
pub struct Spec {
    /// How long it runs.
    pub target: Target,
    /// The number of the last tick.
    pub to: i32,
    /// The difference between the numbers of two ticks; at least 1.
    pub step: i32,
    /// The time between two ticks.
    pub interval: Duration,
    /// The message that is published when it ends.
    pub on_end: Option<OnEnd>,
    /// Makes it safe to repeat the request.
    pub request_id: Option<String>,
}

/// How long a shared countdown runs.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// For this long from now on.
    For(Duration),
    /// Until this moment.
    Until(SystemTime),
    /// For as long as it takes to count down from this number.
    From(i32),
}

/// A moment, or the closest one that a timestamp can express: a clock may show any year.
#[expect(clippy::expect_used, reason = "the moment is brought into range first")]
fn timestamp(moment: Moment) -> Timestamp {
    let bounded = moment.clamp(Timestamp::MIN.into(), Timestamp::MAX.into());
    Timestamp::from_nanosecond(bounded.as_nanos()).expect("it lies between the first and the last timestamp")
}

/// A length that was checked to be in range.
#[expect(clippy::expect_used, reason = "a clamped length would be wrong data in the log")]
fn stored(length: Nanos) -> Length {
    Length::try_from(length).expect("a length is checked before it is stored")
}

impl Record {
    /// A new countdown, which runs from `now` on.
    pub fn create(spec: Spec, now: Moment, config: &Config) -> Result<Self, Error> {
        let Spec { target, to, step, interval, on_end, request_id } = spec;
        if step < 1 {
            return Err(countdown::Error::StepTooSmall { step }.into());
        }
        let interval = schedule::checked_interval(interval, config)?;
        let length = match target {
            Target::For(duration) => duration.into(),
            Target::Until(moment) => Moment::from(moment) - now,
            Target::From(from) => {
                let fall = u64::try_from(i64::from(from) - i64::from(to))
                    .map_err(|_| countdown::Error::FromBelowTo { from, to })?;
                interval * (fall / u64::from(step.unsigned_abs()))
            }
        };
        // A length of zero is valid only for a countdown from a number to itself.
        if length < Nanos::ZERO || length == Nanos::ZERO && !matches!(target, Target::From(_)) {
            return Err(Error::NothingLeft { field: target.field() });
        }
        check_length(length, now, target.field(), config)?;
        let mut record = Self {
            id: Uuid::new_v4(),
            previous_version: 0,
            change: Change::Created,
            by: None,
            phase: Phase::Deleted,
            ticks_before: 0,
            total: stored(length),
            interval,
            to,
            step,
            create_time: timestamp(now),
            update_time: timestamp(now),
            request_id,
            on_end,
        };
        // `now` itself belongs to the run: the first number of a countdown from a number is due at once.
        record.phase = record.running(now - Nanos::new(1), now + length)?;
        Ok(record)
    }

    /// A run whose ticks are due after `after`, up to and including `end`.
    #[expect(clippy::expect_used, reason = "a run without ticks would be wrong data in the log")]
    fn running(&self, after: Moment, end: Moment) -> Result<Phase, countdown::Error> {
        let last_end = Moment::from(Timestamp::MAX);
        if end > last_end {
            let [length, max] = [end, last_end].map(|end| (end - after).to_duration());
            return Err(countdown::Error::TooLong { length, max });
        }
        let last = (end - after - Nanos::new(1)).whole_intervals(self.interval);
        let last = last.expect("a run ends after it starts");
        // Two bounds: the first number fits an `i32`, and so does the count of intervals.
        let max = ((MAX_NUMBER - i64::from(self.to)) / i64::from(self.step)).min(MAX_NUMBER);
        let left = i64::try_from(last).unwrap_or(i64::MAX);
        if left > max {
            return Err(countdown::Error::TooManyNumbers { left, max });
        }
        Ok(Phase::Running { end_time: timestamp(end), ticks: last + 1 })
    }

    /// The part that all changes at `now` share. It counts the ticks that were due; the caller sets the phase.
    fn after(&self, version: u64, change: Change, now: Moment) -> Self {
        let mut record = self.clone();
        record.ticks_before = self.due_by(now);
        record.previous_version = version;
        record.change = change;
        record.by = None;
        record.update_time = timestamp(now);
        record
    }

    /// The time left at `now`, above zero; an error if the countdown is over, or if the clock was set back so far that
    /// the length does not fit.
    fn left(&self, now: Moment) -> Result<Length, Error> {
        match self.phase {
            Phase::Running { end_time, .. } if Moment::from(end_time) > now => {
                let left = Moment::from(end_time) - now;
                let too_long = |_| countdown::Error::TooLong { length: left.to_duration(), max: MAX_LENGTH };
                Ok(Length::try_from(left).map_err(too_long)?)
            }
            Phase::Paused { remaining } => Ok(remaining),
            Phase::Cancelled { .. } => Err(Error::Over { is_cancelled: true }),
            Phase::Deleted => Err(Error::NotFound),
            Phase::Running { .. } | Phase::Ended { .. } => Err(Error::Over { is_cancelled: false }),
        }
    }

    /// Paused at `now`; `None` if it is already paused.
    pub fn pause(&self, version: u64, now: Moment) -> Result<Option<Self>, Error> {
        if matches!(self.phase, Phase::Paused { .. }) {
            return Ok(None);
        }
        let phase = Phase::Paused { remaining: self.left(now)? };
        Ok(Some(Self { phase, ..self.after(version, Change::Paused, now) }))
    }

    /// Resumed at `now`; `None` if it runs.
    pub fn resume(&self, version: u64, now: Moment) -> Result<Option<Self>, Error> {
        let left = self.left(now)?;
        if matches!(self.phase, Phase::Running { .. }) {
            return Ok(None);
        }
        let phase = self.running(now, now + left.into())?;
        Ok(Some(Self { phase, ..self.after(version, Change::Resumed, now) }))
    }

    /// With its end moved by `by`.
    pub fn extend(&self, by: Nanos, version: u64, now: Moment, config: &Config) -> Result<Self, Error> {
        if by == Nanos::ZERO {
            return Err(Error::ByZero);
        }
        let left = Nanos::from(self.left(now)?) + by;
        if left <= Nanos::ZERO {
            return Err(Error::NothingLeft { field: "by" });
        }
        check_length(left, now, "by", config)?;
        // After a step of the clock, more can be left than the countdown had in total.
        let total = (Nanos::from(self.total) + by).max(left);
        let too_long = |length: Nanos, max| Error::TooLong { field: "by", length: length.to_duration(), max };
        let new_total = Length::try_from(total).map_err(|_| too_long(total, MAX_LENGTH))?;
        if !by.can_be_stored() {
            return Err(too_long(by.abs(), Duration::from_nanos(i64::MAX.unsigned_abs())));
        }
        // Check a paused countdown too: it must be possible to resume it.
        let running = self.running(now, now + left).map_err(|error| match error {
            countdown::Error::TooManyNumbers { left, max } => Error::TooManyNumbers { left, max },
            error => error.into(),
        })?;
        let mut record = self.after(version, Change::Extended, now);
        record.phase = match self.phase {
            Phase::Running { .. } => running,
            _ => Phase::Paused { remaining: stored(left) },
        };
        (record.total, record.by) = (new_total, Some(by));
        Ok(record)
    }

    /// Cancelled at `now`; `None` if it is already cancelled.
    pub fn cancel(&self, version: u64, now: Moment) -> Result<Option<Self>, Error> {
        if matches!(self.phase, Phase::Cancelled { .. }) {
            return Ok(None);
        }
        let phase = Phase::Cancelled { remaining: self.left(now)? };
        Ok(Some(Self { phase, ..self.after(version, Change::Cancelled, now) }))
    }

    /// Ended, if its end is due at `now`.
    pub fn end(&self, version: u64, now: Moment) -> Option<Self> {
        let Phase::Running { end_time, ticks } = self.phase else { return None };
        let has_come = Moment::from(end_time) <= now;
        has_come.then(|| Self {
            phase: Phase::Ended { end_time, ticks },
            // It keeps its last run, so that a client that resumes later still gets the last number.
            ticks_before: self.ticks_before,
            ..self.after(version, Change::Ended, now)
        })
    }

    /// The record that marks it as deleted.
    #[must_use]
    pub fn delete(&self, version: u64, now: Moment) -> Self {
        Self {
            phase: Phase::Deleted,
            on_end: None,
            request_id: None,
            ..self.after(version, Change::Deleted, now)
        }
    }

    /// Whether the only change left is to delete it.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. } | Phase::Cancelled { .. } | Phase::Deleted)
    }

    /// The position before the first tick of its run, if it has one.
    pub fn run(&self) -> Option<schedule::Position> {
        let (Phase::Running { end_time, ticks } | Phase::Ended { end_time, ticks }) = self.phase else {
            return None;
        };
        let Self { interval, to, step, .. } = *self;
        schedule::Position::backward(end_time.into(), ticks, interval, to, step)
    }

    /// How many ticks are due at `now`, over all runs.
    pub fn due_by(&self, now: Moment) -> u64 {
        let here = self.run().map_or(0, |run| run.due_by(now));
        self.ticks_before + here
    }

    /// Its form in the log.
    #[expect(clippy::expect_used, reason = "an empty message would lose the countdown")]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a record is plain data, with text as its keys")
    }

    /// Reads the output of [`to_json`](Self::to_json); `None` if `text` is anything else.
    pub fn from_json(text: &str) -> Option<Self> {
        let record = serde_json::from_str::<Self>(text).ok()?;
        let has_run = matches!(record.phase, Phase::Running { .. } | Phase::Ended { .. });
        // The other functions rely on these ranges.
        let is_in_range = record.step >= 1
            && record.interval.get() >= 1
            && record.ticks_before <= MAX_TICKS_BEFORE
            && i64::try_from(record.previous_version).is_ok();
        (is_in_range && (!has_run || record.run().is_some())).then_some(record)
    }
}

impl Target {
    /// The field of the request that sets the length.
    fn field(self) -> &'static str {
        match self {
            Self::For(_) => "duration",
            Self::Until(_) => "until_time",
            Self::From(_) => "interval",
        }
    }
}

/// Checks a length from `now` on against the operator's maximum and against the range of a record.
fn check_length(length: Nanos, now: Moment, field: &'static str, config: &Config) -> Result<(), Error> {
    let until_last_moment = (Moment::from(Timestamp::MAX) - now).to_duration();
    let max = config.max_length.min(MAX_LENGTH).min(until_last_moment);
    let length = length.to_duration();
    if length > max { Err(Error::TooLong { field, length, max }) } else { Ok(()) }
}

/// A payload as fields: `text`, or `data` in base64.
mod content {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use crate::messages::Content;

    #[derive(Deserialize, Serialize)]
    #[serde(rename_all = "camelCase")]
    enum Field {
        Text(String),
        Data(String),
    }

    pub fn serialize<S: Serializer>(content: &Content, serializer: S) -> Result<S::Ok, S::Error> {
        let field = match content {
            Content::Text(text) => Field::Text(text.clone()),
            Content::Data(data) => Field::Data(STANDARD.encode(data)),
        };
        field.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Content, D::Error> {
        Ok(match Field::deserialize(deserializer)? {
            Field::Text(text) => Content::Text(text),
            Field::Data(data) => Content::Data(STANDARD.decode(data).map_err(de::Error::custom)?.into()),
        })
    }
}

#[cfg(test)]
mod tests;
