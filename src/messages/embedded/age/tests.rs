//! Ages at moments, by steps.

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
    assert_eq!(ages, [11, 1, 90].map(|days| time(days * DAY)), "6 was published in 1970, as far as is known");
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

/// The steps of each boot of the machine, the oldest boot first.
fn boots() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let step = (0..30_u64, -50..50_i64, -50..50_i64, prop_oneof![Just(0), 200..500_u64]);
    let boot = (0..30_u64, proptest::collection::vec(step, 1..4));
    proptest::collection::vec(boot, 0..4).prop_map(|boots| {
        let of_boot = |(boot, (since, mut steps)): (u64, (u64, Vec<Numbers>))| {
            steps.sort_unstable();
            let step =
                |(up_to, shift, doubtful_shift, cap)| Step { boot, up_to, since, shift, doubtful_shift, cap };
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
        doubt in proptest::option::of((0..35_u64, 0..200_u64, any::<bool>())),
    ) {
        let moment = Moment::new(500, Corrections::new(&boots.concat(), None).into());
        let moment = match doubt {
            Some((since, ago, true)) => moment.in_doubt(since, ago),
            Some((since, by, false)) => moment.with_later(since, by),
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
