//! The life of a countdown, step by step, compared with an independent calculation.
#![expect(clippy::unwrap_used, reason = "a test")]

use proptest::prelude::*;

use super::*;
use crate::countdown::OnLag;

const SECOND: Nanos = Nanos::from_secs(1);

/// 2026-11-23T18:00:00Z
const NOW: Moment = Moment::from_nanos(1_795_456_800_000_000_000);

/// Later than any tick.
const EVER: Moment = Moment::from_nanos(i128::MAX);

fn system_time(moment: Moment) -> SystemTime {
    SystemTime::UNIX_EPOCH + (moment - Moment::EPOCH).to_duration()
}

fn length(millis: u64) -> Length {
    Length::new(millis * 1_000_000)
}

fn spec(target: Target) -> Spec {
    let interval = Duration::from_secs(1);
    Spec { target, to: 0, step: 1, interval, on_end: None, request_id: None }
}

fn create(target: Target) -> Record {
    Record::create(spec(target), NOW, &Config::default()).unwrap()
}

/// The numbers of the run that are due up to a moment, and when each is due.
fn ticks(record: &Record, until: Moment) -> Vec<(i64, Nanos)> {
    let Some(mut run) = record.run() else { return Vec::new() };
    let mut ticks = Vec::new();
    while let Some(due) = run.next_due().filter(|due| *due <= until) {
        let left = (run.end() - due).whole_intervals(record.interval).unwrap();
        let number = i64::from(record.to) + i64::try_from(left).unwrap() * i64::from(record.step);
        let range = run.ready(schedule::Due::By(due), OnLag::Burst, 1);
        run.taken(&range, bytes::Bytes::new(), 1);
        ticks.push((number, due - NOW));
    }
    ticks
}

#[test]
fn a_countdown_from_a_number_has_that_number_at_once() {
    let record = create(Target::From(3));
    let expected = [(3, Nanos::ZERO), (2, SECOND), (1, 2 * SECOND), (0, 3 * SECOND)];
    assert_eq!(ticks(&record, EVER), expected);
    assert_eq!(record.total, length(3_000));
}

#[test]
fn a_countdown_with_a_length_has_its_last_tick_at_its_end() {
    let record = create(Target::For(Duration::from_millis(2500)));
    let at = |millis: i128| millis * SECOND / 1000;
    assert_eq!(ticks(&record, EVER), [(2, at(500)), (1, at(1500)), (0, at(2500))]);
    let same = create(Target::Until(system_time(NOW + at(2500))));
    assert_eq!(ticks(&same, EVER), ticks(&record, EVER));
}

#[test]
fn a_countdown_uses_its_own_step_and_last_number() {
    let spec = Spec { to: -1, step: 3, ..spec(Target::From(9)) };
    let record = Record::create(spec, NOW, &Config::default()).unwrap();
    // The numbers are counted back from the end: the last one is `to`.
    assert_eq!(ticks(&record, EVER), [(8, Nanos::ZERO), (5, SECOND), (2, 2 * SECOND), (-1, 3 * SECOND)]);
}

#[test]
fn running_and_paused_countdowns_are_extended_up_to_the_highest_number() {
    let fast = Spec { interval: Duration::from_millis(1), ..spec(Target::From(1)) };
    let running = Record::create(fast, NOW, &Config::default()).unwrap();
    let paused = running.pause(7, NOW).unwrap().unwrap();
    let milli = SECOND / 1000;
    let most = (i128::from(i32::MAX) + 1) * milli;
    for record in [running, paused] {
        let extend = |by| record.extend(by - milli, 8, NOW, &Config::default());
        let more = extend(most + Nanos::new(1)).unwrap_err();
        assert!(matches!(more, Error::TooManyNumbers { max: 2_147_483_647, .. }), "{more:?}");
        extend(most).unwrap().resume(9, NOW).unwrap();
    }
}

#[test]
fn a_pause_keeps_the_remaining_time_and_resume_continues_with_it() {
    let record = create(Target::From(3));
    let paused = record.pause(7, NOW + 14 * SECOND / 10).unwrap().unwrap();
    assert_eq!(paused.phase, Phase::Paused { remaining: length(1_600) });
    assert_eq!((paused.ticks_before, paused.previous_version, paused.change), (2, 7, Change::Paused));
    assert!(paused.run().is_none());
    assert_eq!(paused.pause(8, NOW + 5 * SECOND).unwrap(), None);
    let resumed = paused.resume(8, NOW + 100 * SECOND).unwrap().unwrap();
    assert_eq!(ticks(&resumed, EVER), [(1, 1006 * SECOND / 10), (0, 1016 * SECOND / 10)]);
    assert_eq!((resumed.ticks_before, resumed.total), (2, record.total));
    assert_eq!(resumed.resume(9, NOW + 100 * SECOND).unwrap(), None);
    assert_eq!(resumed.due_by(NOW + 200 * SECOND), 4);
}

#[test]
fn the_end_moves_later_and_earlier_while_running_and_while_paused() {
    let config = Config::default();
    let record = create(Target::For(Duration::from_secs(10)));
    let longer = record.extend(5 * SECOND, 1, NOW + SECOND / 2, &config).unwrap();
    assert_eq!((longer.total, longer.due_by(NOW + 100 * SECOND)), (length(15_000), 16));
    let shorter = longer.extend(-13 * SECOND, 2, NOW + SECOND, &config).unwrap();
    assert_eq!(ticks(&shorter, EVER), [(0, 2 * SECOND)]);
    let paused = record.pause(1, NOW + 4 * SECOND).unwrap().unwrap();
    let paused = paused.extend(SECOND, 2, NOW + 60 * SECOND, &config).unwrap();
    assert_eq!(paused.phase, Phase::Paused { remaining: length(7_000) });
    for record in [&record, &paused] {
        let nothing = record.extend(-10 * SECOND, 1, NOW + SECOND, &config);
        assert!(matches!(nothing, Err(Error::NothingLeft { field: "by" })), "{nothing:?}");
        let unmoved = record.extend(Nanos::ZERO, 1, NOW + SECOND, &config);
        assert!(matches!(unmoved, Err(Error::ByZero)), "{unmoved:?}");
        let century = record.extend(100 * 366 * 86_400 * SECOND, 1, NOW + SECOND, &config);
        assert!(matches!(century, Err(Error::TooLong { field: "by", .. })), "{century:?}");
    }
}

#[test]
fn a_countdown_ends_at_its_end_and_not_before_and_then_refuses_changes() {
    let record = create(Target::From(3));
    assert_eq!(record.end(1, NOW + 3 * SECOND - Nanos::new(1)), None);
    let ended = record.end(1, NOW + 3 * SECOND).unwrap();
    assert_eq!(ended.due_by(NOW + 3 * SECOND), 4);
    assert!(ended.is_over() && ended.end(2, NOW + 4 * SECOND).is_none());
    // It also refuses changes if its end is past and not recorded yet.
    for record in [record, ended] {
        let now = NOW + 3 * SECOND;
        let results = [
            record.pause(1, now).map(drop),
            record.resume(1, now).map(drop),
            record.extend(SECOND, 1, now, &Config::default()).map(drop),
            record.cancel(1, now).map(drop),
        ];
        for result in results {
            assert!(matches!(result, Err(Error::Over { is_cancelled: false })), "{result:?}");
        }
    }
}

#[test]
fn a_cancelled_countdown_stays_cancelled() {
    let cancelled = create(Target::From(3)).cancel(1, NOW + SECOND).unwrap().unwrap();
    assert_eq!(cancelled.phase, Phase::Cancelled { remaining: length(2_000) });
    assert_eq!(cancelled.cancel(2, NOW + SECOND).unwrap(), None);
    let resumed = cancelled.resume(2, NOW + SECOND);
    assert!(matches!(resumed, Err(Error::Over { is_cancelled: true })), "{resumed:?}");
    assert_eq!(cancelled.delete(2, NOW).phase, Phase::Deleted);
}

#[test]
fn an_impossible_countdown_is_refused_with_the_field_at_fault() {
    let config = Config::default();
    let refused = |spec: Spec| Record::create(spec, NOW, &config).unwrap_err();
    let field = |error: Error| match error {
        Error::NothingLeft { field } | Error::TooLong { field, .. } => field,
        error => panic!("{error:?}"),
    };
    assert_eq!(field(refused(spec(Target::For(Duration::ZERO)))), "duration");
    assert_eq!(field(refused(spec(Target::For(Duration::MAX)))), "duration");
    assert_eq!(field(refused(spec(Target::Until(system_time(NOW))))), "until_time");
    assert_eq!(field(refused(spec(Target::Until(SystemTime::UNIX_EPOCH)))), "until_time");
    assert_eq!(
        field(refused(Spec { interval: Duration::from_secs(86_400), ..spec(Target::From(i32::MAX)) })),
        "interval"
    );
    for (wrong, expected) in [
        (Spec { step: 0, ..spec(Target::From(1)) }, countdown::Error::StepTooSmall { step: 0 }),
        (Spec { to: 2, ..spec(Target::From(1)) }, countdown::Error::FromBelowTo { from: 1, to: 2 }),
        (
            Spec { interval: Duration::from_micros(999), ..spec(Target::From(1)) },
            countdown::Error::IntervalTooShort {
                interval: Duration::from_micros(999),
                min: config.min_interval,
            },
        ),
        (
            Spec { to: i32::MAX - 1, ..spec(Target::For(Duration::from_secs(10))) },
            countdown::Error::TooManyNumbers { left: 10, max: 1 },
        ),
    ] {
        let error = refused(wrong);
        assert!(matches!(error, Error::Countdown(error) if error == expected), "{error:?}");
    }
}

#[test]
fn a_record_is_read_back_from_json_and_other_text_is_refused() {
    let content = Content::Data(b"\x00\xff".as_slice().into());
    let headers = vec![("a".to_owned(), "b".to_owned())];
    let on_end = OnEnd { topic: "launches".into(), key: Some("7".into()), headers, content };
    let spec = Spec { on_end: Some(on_end), request_id: Some("r".into()), ..spec(Target::From(3)) };
    let record = Record::create(spec, NOW, &Config::default()).unwrap();
    let json = record.to_json();
    assert!(json.contains(r#""state":"RUNNING","endTime":"2026-11-23T18:00:03Z""#), "{json}");
    assert!(
        json.contains(r#""onEnd":{"topic":"launches","key":"7","headers":[["a","b"]],"data":"AP8="}"#),
        "{json}"
    );
    let paused = record.pause(1, NOW).unwrap().unwrap().to_json();
    assert_eq!(Record::from_json(&json), Some(record));
    assert!(Record::from_json(&paused).is_some());
    // No countdown has a schedule that leaves the range of the numbers or the years.
    for (from, to) in [
        ("\"ticks\":4", "\"ticks\":0"),
        ("\"ticks\":4", "\"ticks\":18446744073709551615"),
        ("\"step\":1", "\"step\":0"),
        ("\"intervalNanos\":1000000000", "\"intervalNanos\":0"),
        ("\"intervalNanos\":1000000000", "\"intervalNanos\":18446744073709551615"),
        ("RUNNING", "FLYING"),
        ("\"previousVersion\":0", "\"previousVersion\":9223372036854775808"),
        ("\"ticksBefore\":0", "\"ticksBefore\":18446744073709551615"),
    ] {
        let wrong = json.replace(from, to);
        assert_ne!(wrong, json);
        assert_eq!(Record::from_json(&wrong), None, "{wrong}");
    }
    // A paused countdown has no run, and its schedule is needed when it is resumed.
    for (from, to) in [("\"step\":1", "\"step\":0"), ("\"intervalNanos\":1000000000", "\"intervalNanos\":0")]
    {
        let wrong = paused.replace(from, to);
        assert_ne!(wrong, paused);
        assert_eq!(Record::from_json(&wrong), None, "{wrong}");
    }
}

#[test]
fn lengths_and_moments_that_a_record_cannot_store_are_refused_and_never_clamped() {
    let config = Config { max_length: Duration::MAX, ..Config::default() };
    let too_long = |result: Result<Record, Error>, expected: &str| {
        assert!(matches!(result, Err(Error::TooLong { field, .. }) if field == expected), "{result:?}");
    };
    let slow = |target| Spec { interval: Duration::from_secs(1 << 32), ..spec(target) };
    let create = |target| Record::create(slow(target), NOW, &config);
    too_long(create(Target::For(Duration::from_secs(1_000 * 366 * 86_400))), "duration");
    let last = Moment::from(Timestamp::MAX);
    let late = last - 10 * SECOND;
    let until = |end| Record::create(slow(Target::Until(system_time(end))), late, &config);
    assert!(until(last).is_ok());
    too_long(until(last + Nanos::new(1)), "until_time");
    let long = create(Target::For(Duration::from_nanos(u64::MAX))).unwrap();
    too_long(long.extend(Nanos::new(1), 1, NOW, &config), "by");
    too_long(long.extend(Nanos::new(1), 1, NOW + SECOND, &config), "by");
    let short = create(Target::For(Duration::from_secs(1))).unwrap();
    too_long(short.extend(Nanos::from(i64::MAX) + Nanos::new(1), 1, NOW, &config), "by");
    // The clock was set back by a thousand years.
    let paused = long.pause(1, NOW - 1_000 * 366 * 86_400 * SECOND);
    assert!(matches!(paused, Err(Error::Countdown(countdown::Error::TooLong { .. }))), "{paused:?}");
    // Too late to end within the years of a timestamp.
    let resumed = short.pause(1, NOW).unwrap().unwrap().resume(2, last);
    assert!(matches!(resumed, Err(Error::Countdown(countdown::Error::TooLong { .. }))), "{resumed:?}");
}

#[test]
fn after_a_step_back_the_total_time_is_at_least_the_remaining_time() {
    let record = create(Target::For(Duration::from_secs(10)));
    let extended = record.extend(-20 * SECOND, 1, NOW - 30 * SECOND, &Config::default()).unwrap();
    assert_eq!((extended.total, extended.left(NOW - 30 * SECOND).unwrap()), (length(20_000), length(20_000)));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Pause,
    Resume,
    Extend(i64),
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Pause),
        Just(Step::Resume),
        (-3_000_000_000..9_000_000_000_i64).prop_map(Step::Extend),
        Just(Step::Wait),
    ]
}

proptest! {
    /// The remaining time changes only by the time that passes while it runs, and by extensions. The ticks of all runs
    /// are equal to a count over time.
    #[test]
    fn the_remaining_time_and_the_ticks_due_are_exact_over_any_changes(
        length in 1..20_000_000_000_u64,
        interval in 1_000_000..3_000_000_000_u64,
        steps in prop::collection::vec((step(), 0..4_000_000_000_i64), 0..20),
    ) {
        let config = Config::default();
        let interval_span = Duration::from_nanos(interval);
        let spec = Spec { interval: interval_span, ..spec(Target::For(Duration::from_nanos(length))) };
        let mut record = Record::create(spec, NOW, &config).unwrap();
        let (mut now, mut left, mut runs, mut seen) = (NOW, Nanos::from(Length::new(length)), true, 0_u64);
        // The first tick may be due exactly at the start.
        let mut from = NOW - Nanos::new(1);
        for (version, (step, pause)) in (1..).zip(steps) {
            let later = now + pause.into();
            if runs {
                let end = now + left;
                // The number of ticks at end − j × interval that are due after a moment.
                let after = |moment: Moment| (end - moment).get() - 1;
                let after = |moment| after(moment).div_euclid(i128::from(interval)) + 1;
                seen += u64::try_from(after(from) - after(later.min(end))).unwrap();
                left = left - pause.into();
            }
            now = later;
            from = now;
            if left <= Nanos::ZERO {
                break;
            }
            prop_assert_eq!(record.due_by(now), seen);
            match step {
                Step::Pause => {
                    record = record.pause(version, now).unwrap().unwrap_or(record);
                    runs = false;
                }
                Step::Resume => {
                    record = record.resume(version, now).unwrap().unwrap_or(record);
                    runs = true;
                }
                Step::Extend(by) => match record.extend(by.into(), version, now, &config) {
                    Ok(next) => (record, left) = (next, left + by.into()),
                    Err(error) => prop_assert!(left + by.into() <= Nanos::ZERO, "{:?}", error),
                },
                Step::Wait => {}
            }
            prop_assert_eq!(Nanos::from(record.left(now).unwrap()), left);
            prop_assert_eq!(Record::from_json(&record.to_json()), Some(record.clone()));
            if let Some(run) = record.run() {
                prop_assert_eq!(run.end(), now + left);
            }
        }
    }
}
