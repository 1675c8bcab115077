//! The arithmetic compared with a count one by one, and with forged positions.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::time::{SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::{countdown::Nanos, proto};

const SECOND: Duration = Duration::from_secs(1);
const NOW: SystemTime = UNIX_EPOCH;

/// Later than any tick, and earlier.
const EVER: Moment = Moment::from_nanos(i128::MAX);
const NEVER: Moment = Moment::from_nanos(i128::MIN);

/// A tick as a client sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Tick {
    pub(crate) remaining: i32,
    pub(crate) remaining_time: Duration,
    pub(crate) due: SystemTime,
}

pub(crate) fn decode(items: &[u8]) -> Vec<Tick> {
    let response = proto::CountdownResponse::decode(items).unwrap();
    let ticks = response.ticks.into_iter().map(|tick| {
        let remaining_time = Duration::try_from(tick.remaining_duration.unwrap()).unwrap();
        let due = SystemTime::try_from(tick.due_time.unwrap()).unwrap();
        assert_eq!(SystemTime::try_from(tick.end_time.unwrap()), Ok(due + remaining_time));
        Tick { remaining: tick.remaining.unwrap(), remaining_time, due }
    });
    ticks.collect()
}

fn take(position: &mut Position, now: Moment, on_lag: OnLag, at_most: usize) -> (Vec<Tick>, u64) {
    let Taken { items, count, skipped, first_due } = position.take(now, on_lag, at_most, usize::MAX);
    let ticks = decode(&items.concat());
    assert_eq!(ticks.len(), count);
    assert_eq!(first_due, ticks.first().map(|tick| tick.due.into()));
    (ticks, skipped)
}

fn spec(target: Target) -> Spec {
    Spec { target, to: 0, step: 1, interval: SECOND, wait_first: false, align: false }
}

fn new(spec: &Spec) -> Result<Position, Error> {
    Position::new(spec, NOW.into(), &Config::default())
}

fn all(mut position: Position) -> Vec<Tick> {
    let (ticks, skipped) = take(&mut position, EVER, OnLag::Burst, usize::MAX);
    assert_eq!(skipped, 0);
    assert!(position.is_end());
    ticks
}

fn numbers(spec: &Spec) -> Vec<i32> {
    all(new(spec).unwrap()).iter().map(|tick| tick.remaining).collect()
}

#[test]
fn the_last_number_is_the_lowest_one_not_below_to() {
    assert_eq!(numbers(&Spec { step: 3, ..spec(Target::From(10)) }), [10, 7, 4, 1]);
    assert_eq!(numbers(&Spec { step: i32::MAX, ..spec(Target::From(10)) }), [10]);
}

#[test]
fn numbers_may_be_negative() {
    assert_eq!(numbers(&Spec { to: -2, ..spec(Target::From(1)) }), [1, 0, -1, -2]);
    assert_eq!(numbers(&Spec { to: i32::MIN, ..spec(Target::From(i32::MIN)) }), [i32::MIN]);
}

#[test]
fn the_widest_countdown_of_all_is_counted_without_overflow() {
    let widest = Spec { to: i32::MIN, interval: Duration::from_millis(1), ..spec(Target::From(i32::MAX)) };
    let mut position = new(&widest).unwrap();
    assert_eq!(position.count, 1 << 32);
    let (ticks, skipped) = take(&mut position, EVER, OnLag::Skip, 1);
    assert_eq!((ticks[0].remaining, skipped), (i32::MIN, (1 << 32) - 1));
}

#[test]
fn ticks_until_a_moment_are_counted_back_from_it() {
    let moment = NOW + Duration::from_millis(2500);
    let ticks = all(new(&Spec { to: 7, step: 5, ..spec(Target::Until(moment)) }).unwrap());
    let due = |ms| NOW + Duration::from_millis(ms);
    assert_eq!(ticks.iter().map(|t| t.due).collect::<Vec<_>>(), [due(500), due(1500), due(2500)]);
    assert_eq!(ticks.iter().map(|t| t.remaining).collect::<Vec<_>>(), [17, 12, 7]);
    assert_eq!(ticks.iter().map(|t| t.remaining_time.as_secs()).collect::<Vec<_>>(), [2, 1, 0]);
}

#[test]
fn a_moment_that_is_whole_intervals_ahead_has_a_tick_now() {
    assert_eq!(numbers(&spec(Target::Until(NOW + 2 * SECOND))), [2, 1, 0]);
}

#[test]
fn a_past_moment_has_one_tick_that_was_due_at_it() {
    for moment in [NOW, NOW - SECOND, NOW - 1_000_000 * SECOND] {
        let ticks = all(new(&spec(Target::Until(moment))).unwrap());
        assert_eq!(ticks, [Tick { remaining: 0, remaining_time: Duration::ZERO, due: moment }]);
    }
}

#[test]
fn setting_the_clock_back_delays_the_next_tick_and_repeats_no_tick() {
    let at = |seconds| Moment::EPOCH + Nanos::from_secs(seconds);
    let mut position = new(&spec(Target::Until(NOW + 5 * SECOND))).unwrap();
    assert_eq!(take(&mut position, at(3), OnLag::Burst, 10).0.len(), 4);
    let before = position.clone();
    for on_lag in [OnLag::Skip, OnLag::Burst] {
        assert_eq!(take(&mut position, at(1), on_lag, 10), (vec![], 0));
    }
    assert_eq!(position, before);
    assert_eq!(position.next_due(), Some(at(4)));
}

#[test]
fn each_error_has_the_requested_value_and_its_limit() {
    let max = Config::default().max_length;
    let min = Duration::from_millis(1);
    let longer = max + SECOND;
    let short = Duration::from_nanos(999_999);
    let table = [
        (Spec { step: 0, ..spec(Target::From(1)) }, Error::StepTooSmall { step: 0 }),
        (Spec { step: i32::MIN, ..spec(Target::From(1)) }, Error::StepTooSmall { step: i32::MIN }),
        (Spec { interval: short, ..spec(Target::From(1)) }, Error::IntervalTooShort { interval: short, min }),
        (Spec { interval: longer, ..spec(Target::From(0)) }, Error::TooLong { length: longer, max }),
        (
            Spec { interval: Duration::MAX, ..spec(Target::From(i32::MAX)) },
            Error::TooLong { length: Duration::MAX, max },
        ),
        (Spec { interval: max, ..spec(Target::From(2)) }, Error::TooLong { length: 2 * max, max }),
        (
            Spec { interval: max, wait_first: true, ..spec(Target::From(1)) },
            Error::TooLong { length: 2 * max, max },
        ),
        (Spec { to: 2, ..spec(Target::From(1)) }, Error::FromBelowTo { from: 1, to: 2 }),
        (
            Spec { to: i32::MAX, ..spec(Target::From(i32::MIN)) },
            Error::FromBelowTo { from: i32::MIN, to: i32::MAX },
        ),
        (Spec { wait_first: true, ..spec(Target::Until(NOW + SECOND)) }, Error::WaitFirstWithUntil),
        (Spec { align: true, ..spec(Target::Until(NOW + SECOND)) }, Error::AlignWithUntil),
        (
            Spec { to: i32::MAX - 5, step: 2, ..spec(Target::Until(NOW + 3 * SECOND)) },
            Error::TooManyNumbers { left: 3, max: 2 },
        ),
        (
            Spec { to: i32::MIN, interval: min, ..spec(Target::Until(NOW + 3_000_000 * SECOND)) },
            Error::TooManyNumbers { left: 3_000_000_000, max: i32::MAX.into() },
        ),
        (spec(Target::Until(NOW + longer)), Error::UntilTooFar { ahead: longer, max }),
    ];
    for (spec, error) in table {
        assert_eq!(new(&spec), Err(error), "{spec:?}");
    }
}

#[test]
fn values_at_the_limits_are_allowed() {
    let max = Config::default().max_length;
    for spec in [
        Spec { interval: Duration::from_millis(1), ..spec(Target::From(1)) },
        Spec { interval: max, wait_first: true, ..spec(Target::From(0)) },
        Spec { interval: max, ..spec(Target::From(1)) },
        Spec { to: i32::MAX - 5, step: 2, ..spec(Target::Until(NOW + 2 * SECOND)) },
        spec(Target::Until(NOW + max)),
    ] {
        let position = new(&spec).unwrap();
        assert_eq!(position.check(&Config::default()), Ok(()));
    }
}

#[test]
fn a_position_is_refused_after_the_operator_has_lowered_the_limits() {
    let position = new(&spec(Target::From(10))).unwrap();
    let slower = Config { min_interval: 2 * SECOND, ..Config::default() };
    let shorter = Config { max_length: 9 * SECOND, ..Config::default() };
    assert!(matches!(position.check(&slower), Err(Error::PositionInvalid(_))));
    assert!(matches!(position.check(&shorter), Err(Error::PositionInvalid(_))));
}

#[test]
fn each_field_of_a_position_is_checked() {
    let good = new(&spec(Target::From(10))).unwrap();
    let forged = [
        Position { start: FIRST_MOMENT - Nanos::new(1), ..good.clone() },
        Position { start: LAST_MOMENT - Nanos::new(1), ..good.clone() },
        Position { start: NEVER, ..good.clone() },
        Position { start: EVER, ..good.clone() },
        Position { interval: Length::new(0), ..good.clone() },
        Position { interval: Length::LONGEST, ..good.clone() },
        Position { from: i32::MIN, ..good.clone() },
        Position { step: 0, ..good.clone() },
        Position { step: i32::MIN, ..good.clone() },
        Position { step: i32::MAX, ..good.clone() },
        Position { count: 0, next: 0, ..good.clone() },
        Position { count: u64::MAX, ..good.clone() },
        Position { next: 12, ..good.clone() },
    ];
    assert_eq!(good.check(&Config::default()), Ok(()));
    for position in forged {
        let checked = position.check(&Config::default());
        assert!(matches!(checked, Err(Error::PositionInvalid(_))), "{position:?}");
    }
}

#[test]
fn a_position_takes_about_thirty_bytes_of_a_cursor() {
    let now = Moment::EPOCH + Nanos::from_secs(1_800_000_000);
    let position = Position::new(&spec(Target::From(i32::MAX / 10)), now, &Config::default()).unwrap();
    let text = crate::cursor::encode(&position);
    assert!(text.len() <= 64, "{text}");
    assert_eq!(crate::cursor::decode(&text), Ok(position));
}

/// Mostly plausible values, so that some positions pass the checks, and some edges of the type, where overflows are
/// likely.
fn edgy<T: Copy + std::fmt::Debug + 'static>(
    edges: &'static [T],
    plausible: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = T> {
    prop_oneof![1 => prop::sample::select(edges), 9 => plausible]
}

prop_compose! {
    fn hostile()(
        start in edgy(
            &[NEVER, FIRST_MOMENT, LAST_MOMENT, EVER],
            (FIRST_MOMENT.as_nanos()..LAST_MOMENT.as_nanos()).prop_map(Moment::from_nanos),
        ),
        interval in edgy(&[0, 1, u64::MAX], 1..1_000_000_000_000_u64),
        from in edgy(&[i32::MIN, 0, i32::MAX], any::<i32>()),
        step in edgy(&[i32::MIN, -1, 0, 1, i32::MAX], 1..1_000_i32),
        count in edgy(&[0, 1, 2, 1 << 32, u64::MAX], 1..1_000_000_u64),
        next in edgy(&[0, 1, 2, u64::MAX], 0..1_000_u64),
        pinned: bool,
    ) -> Position {
        Position { start, interval: Length::new(interval), from, step, count, pinned, next }
    }
}

proptest! {
    #[test]
    fn a_forged_position_never_causes_a_panic(
        mut position in hostile(),
        nows in prop::collection::vec(any::<i128>(), 0..8),
        at_most in 0..2_000_usize,
        burst: bool,
        unlimited: bool,
    ) {
        let config = if unlimited {
            Config { min_interval: Duration::ZERO, max_length: Duration::MAX, ..Config::default() }
        } else {
            Config::default()
        };
        prop_assume!(position.check(&config).is_ok());
        let on_lag = if burst { OnLag::Burst } else { OnLag::Skip };
        let near = position.start;
        let nows = nows.into_iter().map(Moment::from_nanos);
        for now in nows.chain([near, near + Nanos::new(5), NEVER, EVER]) {
            position.next_due();
            let (ticks, _) = take(&mut position, now, on_lag, at_most);
            prop_assert!(ticks.len() <= at_most);
            prop_assert!(position.next <= position.count);
        }
    }

    #[test]
    fn every_countdown_that_opens_can_be_resumed(
        from: i32, to: i32, step: i32, interval: u64, until: Option<i64>, wait_first: bool, align: bool,
        now in 0..4_000_000_000_u64,
    ) {
        let now = UNIX_EPOCH + Duration::from_secs(now);
        let target = match until {
            None => Target::From(from),
            Some(ahead) if ahead < 0 => Target::Until(now - Duration::from_nanos(ahead.unsigned_abs())),
            Some(ahead) => Target::Until(now + Duration::from_nanos(ahead.unsigned_abs())),
        };
        let spec = Spec { target, to, step, interval: Duration::from_nanos(interval), wait_first, align };
        if let Ok(position) = Position::new(&spec, now.into(), &Config::default()) {
            prop_assert_eq!(position.check(&Config::default()), Ok(()));
        }
    }

    #[test]
    fn ticks_are_equal_to_a_count_one_by_one(
        from in -50..50_i32, fall in 0..50_i32, step in 1..7_i32, interval in 1..5_000_u64,
    ) {
        let to = from - fall;
        let interval = Duration::from_millis(interval);
        let ticks = all(new(&Spec { to, step, interval, ..spec(Target::From(from)) }).unwrap());
        let (mut number, mut due, mut expected) = (from, NOW, Vec::new());
        while number >= to {
            expected.push((number, due));
            number -= step;
            due += interval;
        }
        prop_assert_eq!(ticks.iter().map(|t| (t.remaining, t.due)).collect::<Vec<_>>(), expected);
        let end = ticks.last().unwrap().due;
        prop_assert!(ticks.iter().all(|tick| tick.due + tick.remaining_time == end));
    }

    #[test]
    fn each_tick_is_delivered_or_counted_once_at_any_reading_times(
        count in 0..60_i32,
        looks in prop::collection::vec((0..4_000_u64, 0..20_usize, any::<bool>()), 0..60),
    ) {
        let mut position = new(&spec(Target::From(count))).unwrap();
        let (mut now, mut accounted) = (Moment::EPOCH, 0_u64);
        for (later, at_most, burst) in looks {
            now += Duration::from_millis(later).into();
            let on_lag = if burst { OnLag::Burst } else { OnLag::Skip };
            let (ticks, skipped) = take(&mut position, now, on_lag, at_most);
            accounted += skipped;
            for tick in ticks {
                prop_assert_eq!(i64::from(tick.remaining), i64::from(count) - i64::try_from(accounted).unwrap());
                prop_assert!(Moment::from(tick.due) <= now, "early");
                accounted += 1;
            }
            prop_assert_eq!(position.next, accounted);
            prop_assert_eq!(position.is_end(), accounted == position.count);
        }
    }
}
