//! Which ticks a watcher must have received: computed from the state of a countdown after each change.

use perennial::proto::{Countdown, CountdownState};

use crate::{
    calls::{is, length, moment},
    watcher::Seen,
};

/// The states of a countdown: after its creation, and after each change.
#[derive(Debug, Default)]
pub struct History(Vec<Countdown>);

impl History {
    pub fn push(&mut self, countdown: Countdown) {
        let last = self.0.last().and_then(|last| last.version);
        assert!(countdown.version > last, "{countdown:?} after version {last:?}");
        self.0.push(countdown);
    }

    pub fn last(&self) -> &Countdown {
        self.0.last().unwrap()
    }

    /// Each version that ticks. Its ticks are due after the first moment and up to the second.
    fn stretches(&self) -> impl Iterator<Item = (&Countdown, i128, i128)> {
        self.0.iter().enumerate().filter(|(_, it)| is(it, CountdownState::Running)).map(|(n, it)| {
            let (from, end) = (moment(it.update_time), moment(it.end_time));
            // One that counts from a number has its first tick at once.
            let from = if n == 0 { from - 1 } else { from };
            let next = self.0.get(n + 1).map_or(end, |next| moment(next.update_time));
            (it, from, next.min(end))
        })
    }

    /// How many ticks were due after a moment.
    pub fn due_after(&self, moment: i128) -> usize {
        let count = |(countdown, from, until): (&Countdown, i128, i128)| {
            let (end, interval) = (super::calls::moment(countdown.end_time), length(countdown.interval));
            let passed = |at: i128| (end - at.min(end)).div_euclid(interval);
            // Those at `end − j × interval` after the one moment, up to the other.
            let from = from.max(moment);
            if from >= until {
                return 0;
            }
            let first = passed(from) + i128::from((end - from) % interval != 0);
            let beyond = passed(until) + i128::from((end - until) % interval != 0);
            usize::try_from(first - beyond).unwrap()
        };
        self.stretches().map(count).sum()
    }

    /// All that was due since a watcher came was delivered to it or counted, once.
    pub fn check(&self, seen: &Seen) {
        seen.check();
        let (mut extra, mut extra_skipped) = (0, 0);
        let mut last = None;
        for tick in &seen.ticks {
            let (countdown, from, until) = self
                .stretches()
                .find(|(countdown, ..)| countdown.version == tick.version)
                .unwrap_or_else(|| panic!("a tick of no version: {tick:?}"));
            let (due, end) = (moment(tick.due_time), moment(countdown.end_time));
            assert_eq!(tick.end_time, countdown.end_time, "{tick:?}");
            assert_eq!(length(tick.remaining_duration), end - due, "{tick:?}");
            assert!(due > from && (end - due) % length(countdown.interval) == 0, "{tick:?} of {countdown:?}");
            let left = (end - due) / length(countdown.interval);
            let remaining = i128::from(countdown.to()) + left * i128::from(countdown.step());
            assert_eq!(i128::from(tick.remaining.unwrap()), remaining, "{tick:?}");
            if due > until {
                // Delivered after the change was made and before it was on disk. The ticks that it left out after the change
                // count as skipped.
                extra += 1;
                let known =
                    last.filter(|(version, _)| *version == tick.version).map_or(until, |(_, due)| due);
                extra_skipped += (due - known.max(until) - 1) / length(countdown.interval);
            }
            last = Some((tick.version, due));
        }
        let skipped = i128::from(seen.skipped) - extra_skipped;
        let accounted = seen.ticks.len() - extra + usize::try_from(skipped).unwrap();
        let due = self.due_after(seen.since.expect("it was paused when the watcher came"));
        assert_eq!(
            accounted,
            due,
            "{} ticks, {extra} of them extra; {} skipped, {extra_skipped} of them extra",
            seen.ticks.len(),
            seen.skipped
        );
    }
}
