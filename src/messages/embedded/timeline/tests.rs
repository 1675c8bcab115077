//! The steps of a clock that a test sets.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use super::*;
use crate::messages::clock::nanos;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A log that publishes nothing but times.
struct Bed {
    clock: Clock,
    timeline: Timeline,
    stored: ClockHistory,
    times: Vec<u64>,
}

impl Bed {
    fn new() -> Self {
        let clock = Clock::manual();
        let (timeline, changed) = Timeline::new(clock.clone(), ClockHistory::default(), 1, |_, _| false);
        assert_eq!(changed, None, "a log without messages has no history");
        Self { clock, timeline, stored: ClockHistory::default(), times: Vec::new() }
    }

    /// Notices what happened to the clock, as the committer does before each commit.
    fn look(&mut self) {
        let (reading, next) = (self.timeline.read(), self.times.len() as u64 + 1);
        let stored = &mut self.stored;
        let mut store = |history: &ClockHistory| -> io::Result<()> {
            stored.clone_from(history);
            Ok(())
        };
        if self.timeline.has_slept(&reading) {
            self.timeline.record_suspension(&reading, next, &mut store).unwrap();
        }
        if let Some(step) = self.timeline.unrecorded(&reading) {
            self.timeline.record(&step, next, 1, store).unwrap();
        }
    }

    fn publish(&mut self) -> u64 {
        self.look();
        let next = self.times.len() as u64 + 1;
        let stored = &mut self.stored;
        let store = |history: &ClockHistory| -> io::Result<()> {
            stored.clone_from(history);
            Ok(())
        };
        self.timeline.record_boot(next, store);
        self.times.push(self.timeline.read().wall);
        next
    }

    fn restart(&mut self) {
        let next = self.times.len() as u64 + 1;
        let times = &self.times;
        // As for a segment with all messages.
        let latest = times.iter().max().copied().unwrap_or(0);
        let is_ahead = |moment: &Moment, before: u64| before > 1 && moment.is_ahead(1..=before - 1, latest);
        let (timeline, changed) = Timeline::new(self.clock.clone(), self.stored.clone(), next, is_ahead);
        self.timeline = timeline;
        self.stored = changed.unwrap_or_else(|| self.stored.clone());
    }

    fn age(&self, sequence: u64) -> Duration {
        let time = self.times.get(usize::try_from(sequence - 1).unwrap()).unwrap();
        Duration::from_nanos(self.timeline.moment().age(sequence, *time))
    }
}

#[test]
fn ages_follow_the_boot_clock_while_the_wall_clock_goes_forward_and_back() {
    let mut bed = Bed::new();
    bed.publish();
    bed.clock.advance(HOUR);
    for set in [Clock::forward, Clock::back, Clock::back, Clock::forward] {
        set(&bed.clock, 40 * DAY);
        let age = bed.age(1);
        assert!(bed.timeline.is_in_doubt(Duration::from_nanos(1)), "before it is recorded, too");
        bed.publish();
        assert_eq!(bed.age(1), age, "recording a step changes no age");
        bed.clock.advance(HOUR);
        assert_eq!(bed.age(1), age + HOUR);
    }
    assert_eq!((2..=5).map(|n| bed.age(n)).collect::<Vec<_>>(), [4 * HOUR, 3 * HOUR, 2 * HOUR, HOUR]);
    assert_eq!(bed.timeline.steps(), 4);
    bed.restart();
    assert_eq!(
        (1..=5).map(|n| bed.age(n)).collect::<Vec<_>>(),
        [5 * HOUR, 4 * HOUR, 3 * HOUR, 2 * HOUR, HOUR]
    );
}

#[test]
fn a_step_that_cannot_be_stored_changes_nothing() {
    let mut bed = Bed::new();
    bed.publish();
    bed.clock.forward(DAY);
    let step = bed.timeline.unrecorded(&bed.timeline.read()).unwrap();
    let full = |_: &ClockHistory| Err(io::ErrorKind::StorageFull.into());
    assert!(bed.timeline.record(&step, 2, 1, full).is_err());
    assert_eq!((bed.age(1), bed.timeline.steps()), (Duration::ZERO, 0));
    assert!(bed.timeline.unrecorded(&bed.timeline.read()).is_some());
}

#[test]
fn time_in_suspend_counts_for_ages_and_not_for_the_doubt_after_a_step() {
    let mut bed = Bed::new();
    bed.publish();
    bed.clock.suspend(DAY);
    assert!(bed.timeline.unrecorded(&bed.timeline.read()).is_none());
    assert_eq!(bed.age(1), DAY);
    assert!(bed.timeline.is_in_doubt(HOUR));
    bed.look();
    assert_eq!(bed.age(1), DAY);
    bed.clock.advance(HOUR);
    assert!(!bed.timeline.is_in_doubt(HOUR));
    bed.clock.back(DAY);
    bed.look();
    bed.clock.advance(Duration::from_secs(3599));
    assert!(bed.timeline.is_in_doubt(HOUR));
    bed.clock.advance(Duration::from_secs(1));
    assert!(!bed.timeline.is_in_doubt(HOUR));
}

#[test]
fn a_hardware_clock_that_was_wrong_in_suspend_prolongs_no_age_once_the_clock_is_set() {
    for (is_looked_at, is_restarted) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut bed = Bed::new();
        bed.publish();
        bed.clock.advance(HOUR);
        bed.publish();
        // It was an hour, in truth.
        bed.clock.suspend(40 * DAY);
        if is_looked_at {
            bed.look();
            assert_eq!([bed.age(1), bed.age(2)], [40 * DAY + HOUR, 40 * DAY], "so it seems");
        }
        if is_restarted {
            bed.restart();
        }
        let ages = if is_looked_at { [3 * HOUR, 2 * HOUR] } else { [2 * HOUR, HOUR] };
        if is_looked_at {
            bed.publish();
            bed.clock.advance(HOUR);
        }
        bed.clock.back(39 * DAY + 23 * HOUR);
        bed.look();
        for _ in 0..2 {
            assert_eq!([bed.age(1), bed.age(2)], ages, "{is_looked_at} {is_restarted}");
            if is_looked_at {
                assert_eq!(bed.age(3), HOUR, "{is_restarted}");
            }
            bed.restart();
        }
    }
}

#[test]
fn a_small_difference_is_no_step_but_many_of_them_are() {
    let mut bed = Bed::new();
    for _ in 0..10 {
        bed.clock.forward(Duration::from_millis(5));
        bed.look();
    }
    assert_eq!(bed.timeline.steps(), 2);
}

#[test]
fn a_step_over_a_restart_of_the_server_alone_is_measured() {
    for set in [Clock::forward, Clock::back] {
        let mut bed = Bed::new();
        bed.publish();
        bed.clock.advance(HOUR);
        set(&bed.clock, 40 * DAY);
        bed.restart();
        assert_eq!(bed.age(1), HOUR);
        bed.publish();
        bed.clock.advance(HOUR);
        bed.restart();
        assert_eq!([bed.age(1), bed.age(2)], [2 * HOUR, HOUR]);
    }
}

#[test]
fn restarts_with_a_message_that_was_published_while_the_clock_was_ahead_record_nothing() {
    let mut bed = Bed::new();
    bed.publish();
    bed.clock.forward(40 * DAY);
    bed.publish();
    bed.clock.back(40 * DAY);
    bed.publish();
    let steps = bed.stored.steps.clone();
    for _ in 0..3 {
        bed.clock.advance(HOUR);
        bed.restart();
        assert_eq!(bed.stored.steps, steps);
    }
    bed.clock.reboot(HOUR);
    bed.restart();
    let steps = bed.stored.steps.clone();
    bed.restart();
    assert_eq!(bed.stored.steps, steps, "once for each boot of the machine at the most");
}

#[test]
fn a_step_between_two_runs_that_publish_nothing_does_not_look_like_downtime() {
    for (set, age) in [(Clock::forward as fn(&Clock, Duration), HOUR), (Clock::back, Duration::ZERO)] {
        let mut bed = Bed::new();
        bed.publish();
        bed.clock.reboot(HOUR);
        bed.restart();
        set(&bed.clock, 40 * DAY);
        bed.restart();
        assert_eq!(bed.age(1), age, "where it is in doubt, the smaller age holds");
    }
}

#[test]
fn over_a_reboot_a_forward_change_counts_as_downtime_and_its_correction_makes_nothing_older() {
    let mut bed = Bed::new();
    bed.publish();
    bed.clock.reboot(HOUR);
    bed.restart();
    assert_eq!(bed.age(1), HOUR, "downtime");
    bed.clock.reboot(40 * DAY);
    bed.restart();
    assert_eq!(bed.age(1), 40 * DAY + HOUR, "this looks like downtime");
    bed.publish();
    bed.clock.advance(HOUR);
    let removal = bed.timeline.moment_of_removal(true);
    assert_eq!(removal.age(1, bed.times[0]), nanos_of(HOUR), "it is known to be there since the start");
    assert_eq!(removal.age(2, bed.times[1]), nanos_of(HOUR));
    bed.clock.back(40 * DAY);
    bed.look();
    assert_eq!([bed.age(1), bed.age(2)], [2 * HOUR, HOUR]);
}

#[test]
fn messages_that_are_ahead_after_a_reboot_count_as_published_then() {
    let mut bed = Bed::new();
    bed.publish();
    bed.clock.forward(40 * DAY);
    bed.publish();
    bed.clock.reboot(HOUR);
    bed.clock.back(40 * DAY);
    bed.restart();
    assert_eq!([bed.age(1), bed.age(2)], [Duration::ZERO; 2], "1 by the step that was measured");
    bed.clock.advance(HOUR);
    assert_eq!([bed.age(1), bed.age(2)], [HOUR; 2]);
    // They are still ahead, and which of the clocks was wrong is in doubt again.
    bed.clock.reboot(HOUR);
    bed.restart();
    assert_eq!([bed.age(1), bed.age(2)], [Duration::ZERO; 2]);
    bed.clock.reboot(40 * DAY);
    bed.restart();
    assert_eq!([bed.age(1), bed.age(2)], [3 * HOUR; 2], "they are not ahead any more");
}

#[test]
fn a_machine_that_starts_in_1970_keeps_its_messages_until_they_are_due() {
    let mut bed = Bed::new();
    bed.publish();
    for _ in 0..3 {
        let now = bed.clock.now();
        bed.clock.reboot(HOUR);
        bed.clock.set(time_of(nanos_of(HOUR)));
        bed.restart();
        assert_eq!(bed.age(1), Duration::ZERO);
        bed.clock.advance(HOUR);
        bed.publish();
        assert_eq!(bed.age(1), HOUR);
        bed.clock.set(now + 2 * HOUR);
        bed.look();
        bed.publish();
        bed.clock.advance(HOUR);
        let newest = bed.times.len() as u64;
        assert_eq!([bed.age(1), bed.age(newest - 1), bed.age(newest)], [2 * HOUR, HOUR, HOUR]);
    }
}

#[test]
fn a_clock_that_is_wrong_again_and_again_after_a_reboot_makes_no_message_younger_without_end() {
    let mut bed = Bed::new();
    bed.publish();
    bed.clock.reboot(HOUR);
    bed.restart();
    for _ in 0..10 {
        bed.clock.back(HOUR / 2);
        bed.look();
        bed.clock.forward(HOUR / 2);
        bed.look();
    }
    assert_eq!(bed.age(1), HOUR / 2, "once, because the clock may have been right at the lowest reading");
}

fn nanos_of(duration: Duration) -> u64 {
    nanos(std::time::UNIX_EPOCH + duration)
}

#[test]
fn of_a_clock_that_is_set_each_second_one_step_a_minute_is_logged_with_the_number_of_the_others() {
    let mut warnings = Warnings::default();
    let logged = (100..400).filter_map(|second| Some((second, warnings.take(second * 1_000_000_000)?)));
    assert_eq!(logged.collect::<Vec<_>>(), [(100, 0), (160, 59), (220, 59), (280, 59), (340, 59)]);
    assert_eq!(warnings.take(1_000_000_000_000), Some(59));
}
