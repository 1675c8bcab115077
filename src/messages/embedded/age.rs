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

/// What is done to the times of messages from `first` on.
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
    /// Messages with a sequence below the first number count as published at the second or later.
    doubt: Option<(u64, i128)>,
    /// Messages after this sequence have no age yet, and have not expired: the clock may have been set before they were
    /// published.
    up_to: u64,
    /// Messages that had expired at this moment may be erased, so they have expired, whatever their age is now.
    swept: Option<Arc<Moment>>,
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
        Self { doubt: Some((since, earliest)), ..self }
    }

    /// The time, in nanoseconds since 1970.
    pub fn now(&self) -> u64 {
        u64::try_from(self.now).unwrap_or(0)
    }

    fn published(&self, sequence: u64, time: i128) -> i128 {
        let corrected = self.corrections.of(sequence).map_or(time, |correction| correction.apply(time));
        match self.doubt {
            _ if sequence > self.up_to => corrected.max(self.now),
            Some((since, earliest)) if sequence < since => corrected.max(earliest),
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
        if let Some((since, earliest)) = self.doubt {
            newest = if *sequences.start() < since { newest.max(earliest) } else { newest };
            oldest = if *sequences.end() < since { oldest.max(earliest) } else { oldest };
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
        if self.doubt.is_some_and(|(since, _)| sequence < since) {
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
        if *sequences.end() > self.up_to || self.doubt.is_some_and(|(since, _)| *sequences.start() < since) {
            return false;
        }
        self.until_all_expired(sequences, expires) == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 24 * 3600 * 1_000_000_000;

    /// A step whose messages were all published in the same boot.
    fn exact(up_to: u64, shift: i64) -> Step {
        Step { boot: 1, up_to, since: 0, shift, doubtful_shift: 0, cap: 0 }
    }

    fn at(now: i64, steps: &[Step]) -> Moment {
        Moment::new(now.cast_unsigned(), Corrections::new(steps, Some(1)).into())
    }

    fn time(time: i64) -> u64 {
        time.cast_unsigned()
    }

    #[test]
    fn without_steps_an_age_is_a_difference_and_never_negative() {
        let moment = at(10 * DAY, &[]);
        assert_eq!(moment.age(1, time(3 * DAY)), time(7 * DAY));
        assert_eq!(moment.age(1, time(11 * DAY)), 0);
    }

    #[test]
    fn a_clock_that_was_ahead_and_is_right_again_changes_no_age() {
        // Message 1 on day 50, message 2 on day 51 with the clock 40 days ahead, message 3 on day 52; now it is day 55.
        let steps = [exact(1, 40 * DAY), exact(2, -40 * DAY)];
        let moment = at(55 * DAY, &steps);
        let ages = [(1, 50), (2, 91), (3, 52)].map(|(sequence, day)| moment.age(sequence, time(day * DAY)));
        assert_eq!(ages, [5, 4, 3].map(|days| time(days * DAY)));
        // The same, while the clock is wrong.
        let moment = at(91 * DAY, &steps[..1]);
        assert_eq!([moment.age(1, time(50 * DAY)), moment.age(2, time(91 * DAY))], [time(DAY), 0]);
    }

    #[test]
    fn a_message_expires_after_its_ttl_whatever_the_clock_shows() {
        let day = |day: i64| u64::try_from(day * DAY / 1_000_000).unwrap_or_default();
        for shift in [-30 * DAY, -DAY, DAY, 30 * DAY] {
            // Published on day 100 with a ttl of 2 days; the clock was set on the same day.
            for (days, is_over) in [(0, false), (1, false), (2, true), (3, true)] {
                let moment = at((100 + days) * DAY + shift, &[exact(7, shift)]);
                assert_eq!(moment.has_expired(7, time(100 * DAY), day(102)), is_over, "{shift} {days}");
                assert_eq!(moment.has_expired_at_any_time(7, day(102)), Some(is_over));
                assert_eq!(moment.have_all_expired(3..=7, day(102)), is_over);
            }
        }
        assert!(!at(DAY, &[]).has_expired(1, 0, 0));
    }

    #[test]
    fn a_message_that_is_ahead_at_a_start_counts_as_published_then() {
        // Messages up to 5 on day 90 and before; the machine starts on day 60.
        let start = Step { boot: 1, up_to: 5, since: 6, shift: 0, doubtful_shift: 0, cap: time(60 * DAY) };
        let moment = at(61 * DAY, &[start]);
        assert_eq!(moment.age(5, time(90 * DAY)), time(DAY));
        assert_eq!(moment.age(4, time(50 * DAY)), time(11 * DAY), "this one was not ahead");
        let day = |day: i64| u64::try_from(day * DAY / 1_000_000).unwrap_or_default();
        assert!(!moment.has_expired(5, time(90 * DAY), day(92)));
        assert_eq!(moment.has_expired_at_any_time(5, day(92)), None);
        assert!(at(62 * DAY, &[start]).has_expired(5, time(90 * DAY), day(92)));
        // In 1970, and then NTP sets the clock.
        let day = 20_000;
        let start = Step { cap: time(DAY), ..start };
        let ntp = Step { boot: 1, up_to: 5, since: 6, shift: day * DAY, doubtful_shift: day * DAY, cap: 0 };
        assert_eq!(at((day + 3) * DAY, &[start, ntp]).age(5, time((day - 9) * DAY)), time(2 * DAY));
    }

    #[test]
    fn a_start_with_a_clock_that_is_behind_makes_no_message_older_at_the_next_start() {
        // Messages up to 5 on day 90 and before; then the machine starts in 1970, publishes 6, and starts again on day 91.
        let start = Step { boot: 1, up_to: 5, since: 6, shift: 0, doubtful_shift: 0, cap: time(DAY) };
        let moment = Moment::new(time(91 * DAY), Corrections::new(&[start], None).into());
        let ages = [(4, 80), (5, 90), (6, 1)].map(|(sequence, day)| moment.age(sequence, time(day * DAY)));
        assert_eq!(
            ages,
            [11, 1, 90].map(|days| time(days * DAY)),
            "6 was published in 1970, as far as is known"
        );
    }

    #[test]
    fn in_doubt_no_message_is_older_than_it_is_known_to_be_there() {
        let moment = at(100 * DAY, &[]).in_doubt(6, time(DAY));
        assert_eq!(moment.age(5, time(60 * DAY)), time(DAY));
        assert_eq!(moment.age(5, time(99 * DAY) + 1), time(DAY) - 1);
        assert_eq!(moment.age(6, time(60 * DAY)), time(40 * DAY));
        assert_eq!(moment.ages(4..=7, time(60 * DAY), time(61 * DAY)), time(DAY)..=time(40 * DAY));
        assert!(!moment.have_all_expired(5..=6, 1) && moment.have_all_expired(6..=6, 1));
        assert!(!moment.has_expired(5, time(60 * DAY), 62 * 24 * 3600 * 1000));
    }

    #[test]
    fn a_moment_says_nothing_of_messages_that_are_published_after_it() {
        // The clock was 40 days ahead, and is right on day 60 when message 6 is published.
        let moment = at(100 * DAY, &[]).up_to(5);
        let (published, expires) = (time(60 * DAY), 62 * 24 * 3600 * 1000);
        assert_eq!([5, 6].map(|sequence| moment.age(sequence, published)), [time(40 * DAY), 0]);
        assert_eq!(moment.ages(4..=6, published, published), 0..=time(40 * DAY));
        assert_eq!(moment.ages(6..=7, published, published), 0..=0);
        let later = at(61 * DAY, &[]).after_sweep(Some(moment.clone().into()));
        for moment in [&moment, &later] {
            for (sequence, has_expired) in [(5, true), (6, false)] {
                assert_eq!(moment.has_expired(sequence, published, expires), has_expired);
                assert_eq!(moment.has_expired_at_any_time(sequence, expires), Some(has_expired));
            }
        }
        assert!(moment.have_all_expired(4..=5, expires) && !moment.have_all_expired(5..=6, expires));
    }

    /// Up to, shift, doubtful shift, cap.
    type Numbers = (u64, i64, i64, u64);

    /// Steps by boot.
    fn boots() -> impl Strategy<Value = Vec<Vec<Step>>> {
        let step = (0..30_u64, -50..50_i64, -50..50_i64, prop_oneof![Just(0), 200..500_u64]);
        let boot = (0..30_u64, proptest::collection::vec(step, 1..4));
        proptest::collection::vec(boot, 0..4).prop_map(|boots| {
            let of_boot = |(boot, (since, mut steps)): (u64, (u64, Vec<Numbers>))| {
                steps.sort_unstable();
                let step = |(up_to, shift, doubtful_shift, cap)| Step {
                    boot,
                    up_to,
                    since,
                    shift,
                    doubtful_shift,
                    cap,
                };
                steps.into_iter().map(step).collect()
            };
            (0..).zip(boots).map(of_boot).collect()
        })
    }

    proptest! {
        #[test]
        fn corrections_are_the_steps_one_after_another(
            boots in boots(), is_current: bool, sequence in 0..35_u64, published in 300..500_u64, now in 300..600_u64,
            lives in 1..100_u64,
        ) {
            let current = (boots.len() as u64).checked_sub(1).filter(|_| is_current);
            let mut expected = i128::from(published);
            for steps in &boots {
                let mut changed = expected;
                let mut is_doubtful = false;
                for step in steps.iter().filter(|step| sequence <= step.up_to) {
                    if sequence >= step.since {
                        changed += i128::from(step.shift);
                    } else {
                        is_doubtful = true;
                        changed += i128::from(step.doubtful_shift);
                        changed = if step.cap > 0 { changed.min(step.cap.into()) } else { changed };
                    }
                }
                let is_over = steps.first().map(|step| step.boot) != current;
                expected = if is_doubtful && is_over { changed.max(expected) } else { changed };
            }
            let steps = boots.concat();
            let moment = Moment::new(now, Corrections::new(&steps, current).into());
            let age = u64::try_from((i128::from(now) - expected).max(0)).unwrap_or_default();
            prop_assert_eq!(moment.age(sequence, published), age);
            prop_assert_eq!(moment.is_ahead(sequence..=sequence, published), expected > i128::from(now));
            // In milliseconds, as expiry times are.
            let in_millis = |step: &Step| {
                let (shift, doubtful_shift) = (step.shift * 1_000_000, step.doubtful_shift * 1_000_000);
                Step { shift, doubtful_shift, cap: step.cap * 1_000_000, ..*step }
            };
            let steps = steps.iter().map(in_millis).collect::<Vec<_>>();
            let moment = Moment::new(now * 1_000_000, Corrections::new(&steps, current).into());
            let has_expired = moment.has_expired(sequence, published * 1_000_000, published + lives);
            prop_assert_eq!(has_expired, expected + i128::from(lives) <= i128::from(now));
            if let Some(always) = moment.has_expired_at_any_time(sequence, published + lives) {
                prop_assert_eq!(always, has_expired);
            }
            prop_assert_eq!(moment.until_expiry(sequence, published * 1_000_000, published + lives) == 0, has_expired);
            if moment.have_all_expired(0..=sequence, published + lives) {
                prop_assert!(has_expired);
            }
        }

        #[test]
        fn the_ages_of_many_messages_include_that_of_each(
            boots in boots(), first in 0..30_u64, count in 0..10_u64, min in 300..400_u64, more in 0..50_u64,
            doubt in proptest::option::of((0..35_u64, 0..200_u64)),
        ) {
            let moment = Moment::new(500, Corrections::new(&boots.concat(), None).into());
            let moment = match doubt {
                Some((since, ago)) => moment.in_doubt(since, ago),
                None => moment,
            };
            let (last, max) = (first + count, min + more);
            let ages = moment.ages(first..=last, min, max);
            for sequence in first..=last {
                for time in [min, max] {
                    prop_assert!(ages.contains(&moment.age(sequence, time)), "{:?} {}", ages, sequence);
                }
            }
            if first == last && doubt.is_none() {
                prop_assert_eq!((*ages.start(), *ages.end()), (moment.age(first, max), moment.age(first, min)));
            }
        }
    }
}
