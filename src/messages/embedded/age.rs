//! The age of messages, which a wrong wall clock neither shortens nor prolongs for longer than it is wrong.
//!
//! A message carries the wall clock as it was when it was published. Its age is the time by the wall clock now, minus that
//! time, minus the steps that the clock made in between. Where it is in doubt whether a step applies, because the message
//! was published before the machine started, the smaller age holds. Works on memory alone, and reads no clock.

use std::{ops::RangeInclusive, sync::Arc};

use super::format::clock_history::Step;

const NANOS_PER_MILLI: i128 = 1_000_000;

/// What the steps of the clock mean for the publish times of messages, by sequence.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Corrections {
    /// In the order of their first sequences, adjacent; after the last one, times are right.
    ranges: Vec<Correction>,
    /// Times are right from this sequence on.
    right_from: u64,
}

/// The correction of the times of messages from `first` on.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Correction {
    first: u64,
    changes: Vec<Change>,
}

/// A change of a time in nanoseconds since 1970. A later time gets a later result, or the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Change {
    /// Move it.
    Shift(i128),
    /// Move it, but not beyond `cap`.
    Limit { shift: i128, cap: i128 },
    /// The same, unless that is earlier than it was.
    LimitLater { shift: i128, cap: i128 },
}

impl Change {
    /// The steps of one boot, for messages from a sequence on. `is_current`: it is the boot now. In doubt a message counts as
    /// published at the start of the boot if it was ahead of the clock; but once the machine was started again, the clock
    /// of the boot before may have been wrong instead, and the later time holds.
    fn of_boot(steps: &[Step], first: u64, is_current: bool) -> Option<Self> {
        let steps = steps.iter().filter(|step| first <= step.up_to);
        let (mut shift, mut cap) = (0_i128, None::<i128>);
        let mut is_exact = true;
        for step in steps {
            is_exact = first >= step.since;
            let by = i128::from(if is_exact { step.shift } else { step.doubtful_shift });
            shift += by;
            let limit = Some(i128::from(step.cap)).filter(|cap| *cap > 0 && !is_exact);
            cap = cap.map(|cap| cap + by).into_iter().chain(limit).min();
        }
        let change = match (cap, is_current || is_exact) {
            (None, true) => Self::Shift(shift),
            (None, false) => Self::Shift(shift.max(0)),
            (Some(cap), true) => Self::Limit { shift, cap },
            (Some(cap), false) => Self::LimitLater { shift, cap },
        };
        Some(change).filter(|change| *change != Self::Shift(0))
    }

    fn apply(self, time: i128) -> i128 {
        match self {
            Self::Shift(shift) => time + shift,
            Self::Limit { shift, cap } => (time + shift).min(cap),
            Self::LimitLater { shift, cap } => (time + shift).min(cap).max(time),
        }
    }

    /// The most by which it moves a time forward.
    fn most(self) -> i128 {
        match self {
            Self::Shift(shift) | Self::Limit { shift, .. } => shift,
            Self::LimitLater { shift, .. } => shift.max(0),
        }
    }
}

impl Correction {
    fn new(first: u64, steps: &[Step], current: Option<u64>) -> Self {
        let mut changes = Vec::<Change>::new();
        for of_boot in steps.chunk_by(|a, b| a.boot == b.boot) {
            let is_current = of_boot.first().map(|step| step.boot) == current;
            match (changes.last_mut(), Change::of_boot(of_boot, first, is_current)) {
                (_, None) => {}
                (Some(Change::Shift(before)), Some(Change::Shift(shift))) => *before += shift,
                (_, Some(change)) => changes.push(change),
            }
        }
        Self { first, changes }
    }

    fn apply(&self, time: i128) -> i128 {
        self.changes.iter().fold(time, |time, change| change.apply(time))
    }

    /// How far it moves each time; `None` if it moves times differently.
    fn shift(&self) -> Option<i128> {
        match self.changes.as_slice() {
            [] => Some(0),
            [Change::Shift(shift)] => Some(*shift),
            _ => None,
        }
    }
}

impl Corrections {
    /// What these steps mean, of which the oldest comes first. `current` is the boot now, if some of them are of that.
    pub fn new(steps: &[Step], current: Option<u64>) -> Self {
        let right_from = steps.iter().map(|step| step.up_to.saturating_add(1)).max().unwrap_or(0);
        let mut firsts =
            steps.iter().flat_map(|step| [step.since, step.up_to.saturating_add(1)]).collect::<Vec<_>>();
        firsts.push(0);
        firsts.retain(|first| *first < right_from);
        firsts.sort_unstable();
        firsts.dedup();
        let ranges = firsts.into_iter().map(|first| Correction::new(first, steps, current)).collect();
        Self { ranges, right_from }
    }

    /// `None` if the time of the message is right.
    fn of(&self, sequence: u64) -> Option<&Correction> {
        if sequence >= self.right_from {
            return None;
        }
        let after = self.ranges.partition_point(|range| range.first <= sequence);
        self.ranges.get(after.checked_sub(1)?)
    }

    /// Those of a range of sequences.
    fn of_all(&self, sequences: &RangeInclusive<u64>) -> impl Iterator<Item = &Correction> {
        static RIGHT: Correction = Correction { first: 0, changes: Vec::new() };
        let (first, last) = (*sequences.start(), *sequences.end());
        let start = self.ranges.partition_point(|range| range.first <= first).saturating_sub(1);
        let right = (last >= self.right_from).then_some(&RIGHT);
        let corrected = self.ranges.get(start..).unwrap_or_default().iter();
        corrected.filter(move |range| range.first <= last && first < self.right_from).chain(right)
    }
}

/// A moment at which ages are computed. In nanoseconds since 1970, by the wall clock after the last known step.
#[derive(Clone, Debug)]
pub struct Moment {
    now: i128,
    corrections: Arc<Corrections>,
    /// The assumption about messages of earlier boots.
    doubt: Option<Doubt>,
    /// Messages after this sequence have no age yet, and have not expired: the clock may have been set before they were
    /// published.
    up_to: u64,
    /// Messages that had expired at this moment may be erased, so they have expired, whatever their age is now.
    swept: Option<Arc<Moment>>,
}

/// The assumption about messages with a sequence below `since`, which were published before the machine started.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    since: u64,
    /// They count as published this much later,
    later: i128,
    /// and not before this time.
    earliest: i128,
}

impl Doubt {
    fn apply(self, published: i128) -> i128 {
        (published + self.later).max(self.earliest)
    }
}

impl Moment {
    /// The time `now`, with the corrections that hold then.
    pub fn new(now: u64, corrections: Arc<Corrections>) -> Self {
        Self { now: now.into(), corrections, doubt: None, up_to: u64::MAX, swept: None }
    }

    /// The same, for messages up to a sequence that was the head before this moment.
    pub fn up_to(self, head: u64) -> Self {
        Self { up_to: head, ..self }
    }

    /// The same; and what had expired at another moment has expired.
    pub fn after_sweep(self, swept: Option<Arc<Self>>) -> Self {
        Self { swept, ..self }
    }

    /// The same, if messages below the sequence `since` count as published at the earliest `ago` nanoseconds before now:
    /// that is how long they are known to be there.
    pub fn in_doubt(self, since: u64, ago: u64) -> Self {
        let earliest = self.now - i128::from(ago);
        Self { doubt: Some(Doubt { since, later: 0, earliest }), ..self }
    }

    /// The same, if messages below the sequence `since` count as published `by` nanoseconds later than they seem to be.
    pub fn with_later(self, since: u64, by: u64) -> Self {
        Self { doubt: Some(Doubt { since, later: by.into(), earliest: i128::MIN }), ..self }
    }

    /// The time, in nanoseconds since 1970.
    pub fn now(&self) -> u64 {
        u64::try_from(self.now).unwrap_or(0)
    }

    fn published(&self, sequence: u64, time: i128) -> i128 {
        let corrected = self.corrections.of(sequence).map_or(time, |correction| correction.apply(time));
        match self.doubt {
            _ if sequence > self.up_to => corrected.max(self.now),
            Some(doubt) if sequence < doubt.since => doubt.apply(corrected),
            _ => corrected,
        }
    }

    /// The age of a message in nanoseconds, by its sequence and its time; 0 if it seems to be published in the future.
    pub fn age(&self, sequence: u64, time: u64) -> u64 {
        let age = self.now - self.published(sequence, time.into());
        u64::try_from(age.max(0)).unwrap_or(u64::MAX)
    }

    /// The lowest and the highest age of messages with these sequences, and times from `min` to `max`.
    pub fn ages(&self, sequences: RangeInclusive<u64>, min: u64, max: u64) -> RangeInclusive<u64> {
        let (mut oldest, mut newest) = (i128::MAX, i128::MIN);
        for correction in self.corrections.of_all(&sequences) {
            oldest = oldest.min(correction.apply(min.into()));
            newest = newest.max(correction.apply(max.into()));
        }
        if let Some(doubt) = self.doubt {
            newest = if *sequences.start() < doubt.since { doubt.apply(newest) } else { newest };
            oldest = if *sequences.end() < doubt.since { doubt.apply(oldest) } else { oldest };
        }
        newest = if *sequences.end() > self.up_to { newest.max(self.now) } else { newest };
        oldest = if *sequences.start() > self.up_to { oldest.max(self.now) } else { oldest };
        let age = |published: i128| u64::try_from((self.now - published).max(0)).unwrap_or(u64::MAX);
        age(newest)..=age(oldest)
    }

    /// Whether a message with one of these sequences, and a time of at most `max`, may be later than now.
    pub fn is_ahead(&self, sequences: RangeInclusive<u64>, max: u64) -> bool {
        self.corrections.of_all(&sequences).any(|correction| correction.apply(max.into()) > self.now)
    }

    /// Whether a message has expired. `expires` is in milliseconds since 1970, by the clock that gave the message its time;
    /// 0 for never.
    pub fn has_expired(&self, sequence: u64, time: u64, expires: u64) -> bool {
        if expires == 0 {
            return false;
        }
        let lives = i128::from(expires) * NANOS_PER_MILLI - i128::from(time);
        self.published(sequence, time.into()) + lives <= self.now
            || self.swept.as_ref().is_some_and(|swept| swept.has_expired(sequence, time, expires))
    }

    /// How long it takes until a message expires, in nanoseconds; the highest number for never.
    pub fn until_expiry(&self, sequence: u64, time: u64, expires: u64) -> u64 {
        if expires == 0 {
            return u64::MAX;
        }
        let lives = i128::from(expires) * NANOS_PER_MILLI - i128::from(time);
        let left = self.published(sequence, time.into()) + lives - self.now;
        u64::try_from(left.max(0)).unwrap_or(u64::MAX)
    }

    /// How long it takes, at most, until all messages with these sequences have expired that expire, the last of them at
    /// `expires`.
    pub fn until_all_expired(&self, sequences: RangeInclusive<u64>, expires: u64) -> u64 {
        let left = i128::from(expires) * NANOS_PER_MILLI + self.most_shift(&sequences) - self.now;
        u64::try_from(left.max(0)).unwrap_or(u64::MAX)
    }

    fn most_shift(&self, sequences: &RangeInclusive<u64>) -> i128 {
        let most =
            |correction: &Correction| correction.changes.iter().map(|change| change.most()).sum::<i128>();
        self.corrections.of_all(sequences).map(most).max().unwrap_or(0)
    }

    /// Whether a message has expired, if that does not depend on its time.
    pub fn has_expired_at_any_time(&self, sequence: u64, expires: u64) -> Option<bool> {
        if expires == 0 {
            return Some(false);
        }
        if self.doubt.is_some_and(|doubt| sequence < doubt.since) {
            return None;
        }
        let swept = match &self.swept {
            Some(swept) => swept.has_expired_at_any_time(sequence, expires)?,
            None => false,
        };
        let shift = self.corrections.of(sequence).map_or(Some(0), Correction::shift)?;
        let has_expired = i128::from(expires) * NANOS_PER_MILLI + shift <= self.now;
        Some(swept || has_expired && sequence <= self.up_to)
    }

    /// Whether all messages with these sequences have expired that expire, the last of them at `expires`. False if that
    /// is in doubt.
    pub fn have_all_expired(&self, sequences: RangeInclusive<u64>, expires: u64) -> bool {
        if *sequences.end() > self.up_to || self.doubt.is_some_and(|doubt| *sequences.start() < doubt.since) {
            return false;
        }
        self.until_all_expired(sequences, expires) == 0
    }
}

#[cfg(test)]
mod tests;
