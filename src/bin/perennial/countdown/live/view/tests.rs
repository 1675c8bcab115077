#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]
#![expect(clippy::unnecessary_wraps, reason = "as the fields of a message are")]

use clap::Parser;
use perennial::proto::{
    CountdownChange, CountdownChanged, CountdownStreamEvent, countdown_stream_event::Event,
};

use super::*;
use crate::arguments::{Arguments, Verb};

/// The time after this many milliseconds.
fn at(millis: i64) -> Zoned {
    Timestamp::from_millisecond(1_795_453_200_000 + millis).unwrap().to_zoned(jiff::tz::TimeZone::UTC)
}

fn proto(millis: i64) -> Option<prost_types::Timestamp> {
    Some(time::timestamp_to_proto(at(millis).timestamp()))
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn view(line: &str) -> View {
    let words = ["perennial", "countdown"].into_iter().chain(line.split_whitespace());
    match Arguments::try_parse_from(words).unwrap().verb {
        Verb::Countdown(it) => View::new(&it.watch, at(0).timestamp()),
        _ => unreachable!("not a countdown"),
    }
}

/// The number of a countdown from 10, at the moment it is due.
fn number(remaining: i32) -> CountdownResponse {
    let due = 1_000 * i64::from(10 - remaining);
    let tick = Tick {
        remaining: Some(remaining),
        remaining_duration: seconds(remaining.into()),
        due_time: proto(due),
        end_time: proto(10_000),
        ..Tick::default()
    };
    CountdownResponse { ticks: vec![tick], sent_time: proto(due), ..CountdownResponse::default() }
}

fn launch(state: CountdownState, version: i64, end: Option<i64>, left: i64) -> Countdown {
    Countdown {
        name: "launch".into(),
        state: state.into(),
        version: Some(version),
        end_time: end.and_then(proto),
        remaining_duration: seconds(left),
        total_duration: seconds(60),
        ..Countdown::default()
    }
}

fn left(view: &View, millis: i64) -> Option<i128> {
    view.shown(at(millis).timestamp()).left.map(|left| left.as_millis())
}

#[test]
fn the_display_keeps_running_between_numbers_and_a_late_one_does_not_set_it_back() {
    let mut view = view("10");
    assert_eq!(left(&view, 0), None);
    view.record(&number(10), &at(1));
    assert_eq!(left(&view, 1), Some(9_999));
    assert_eq!(left(&view, 4_500), Some(5_500));
    // It took three seconds to arrive.
    view.record(&number(9), &at(4_600));
    assert_eq!(left(&view, 4_700), Some(5_300));
    assert_eq!(left(&view, 11_000), Some(0));
    assert_eq!(view.shown(at(0).timestamp()).total, Some(SignedDuration::from_secs(10)));
    assert_eq!(view.shown(at(0).timestamp()).number, None);
}

#[test]
fn the_remaining_time_follows_the_clock_of_the_server() {
    let mut view = view("10");
    let mut response = number(10);
    // The server's clock is an hour slow, and the response took a millisecond.
    response.sent_time = proto(-3_600_000);
    response.ticks[0].end_time = proto(10_000 - 3_600_000);
    view.record(&response, &at(1));
    assert_eq!(left(&view, 1), Some(10_000));
    assert_eq!(left(&view, 4_001), Some(6_000));
}

#[test]
fn a_number_that_differs_from_the_remaining_seconds_is_shown() {
    let mut view = view("10 --interval 2s");
    let mut response = number(7);
    response.ticks[0].remaining_duration = seconds(14);
    view.record(&response, &at(3_000));
    assert_eq!(view.shown(at(0).timestamp()).number, Some(7));
}

#[test]
fn the_next_frame_is_due_when_the_shown_time_changes() {
    let mut view = view("10");
    assert_eq!(view.next_change(at(0).timestamp()), None);
    view.record(&number(10), &at(0));
    for (now, next) in [(-2_700, 700), (-2_000, 1_000), (0, 100), (550, 50), (9_999, 1)] {
        assert_eq!(view.next_change(at(now).timestamp()), Some(Duration::from_millis(next)), "{now}");
    }
    assert_eq!(view.next_change(at(10_000).timestamp()), None);
}

#[test]
fn a_paused_countdown_does_not_run_and_an_older_number_is_dropped() {
    let mut view = view("--name launch --lateness");
    let countdown = Some(launch(CountdownState::Running, 1, Some(60_000), 60));
    view.record(&CountdownResponse { countdown, sent_time: proto(0), ..Default::default() }, &at(0));
    assert_eq!(left(&view, 10_000), Some(50_000));
    let changed = CountdownChanged { change: CountdownChange::Paused.into(), ..CountdownChanged::default() };
    let paused = CountdownResponse {
        events: vec![CountdownStreamEvent { event: Some(Event::Changed(changed)) }],
        countdown: Some(launch(CountdownState::Paused, 2, None, 49)),
        sent_time: proto(11_000),
        ..CountdownResponse::default()
    };
    view.record(&paused, &at(11_000));
    let mut stale = number(9);
    stale.ticks[0].version = Some(1);
    view.record(&stale, &at(11_500));
    let shown = view.shown(at(20_000).timestamp());
    assert_eq!((shown.state, shown.left), (CountdownState::Paused, Some(SignedDuration::from_secs(49))));
    assert_eq!(shown.lateness, None);
    assert_eq!(shown.note.unwrap(), "17:00:11 paused, 49s left");
    assert_eq!(view.next_change(at(20_000).timestamp()), None);
    assert_eq!(view.last_line(&at(20_000)).unwrap(), "launch is paused, 49s left");
}

#[test]
fn a_lost_connection_is_shown_until_it_is_back() {
    let mut view = view("10 --lateness");
    view.record(&CountdownResponse { skipped_ticks: 3, ..number(7) }, &at(3_000));
    let note = |view: &View| view.shown(at(3_000).timestamp()).note;
    assert_eq!(note(&view).unwrap(), "17:00:03 skipped 3");
    view.connection(Some("connection lost".into()));
    assert_eq!(note(&view).unwrap(), "connection lost");
    view.connection(None);
    assert_eq!(note(&view).unwrap(), "17:00:03 skipped 3");
    assert!(view.shown(at(0).timestamp()).lateness.unwrap().contains("sent 0.000 ms late"));
}

#[test]
fn the_last_line_says_how_the_countdown_ended() {
    let mut own = view("10");
    assert_eq!(own.last_line(&at(0)), None);
    own.record(&number(10), &at(0));
    // The limit was reached.
    own.ended(at(3_000).timestamp());
    assert_eq!(own.last_line(&at(3_000)).unwrap(), "countdown is running, 7s left, ends at 17:00:10");
    own.record(&number(0), &at(10_000));
    own.ended(at(10_000).timestamp());
    assert_eq!(own.last_line(&at(10_000)).unwrap(), "countdown ended at 17:00:10");

    let mut shared = view("--name launch");
    let countdown = Some(launch(CountdownState::Cancelled, 2, None, 12));
    shared.record(&CountdownResponse { countdown, ..CountdownResponse::default() }, &at(0));
    shared.ended(at(0).timestamp());
    assert_eq!(shared.last_line(&at(0)).unwrap(), "launch was cancelled, 12s left");
}

#[test]
fn a_countdown_towards_a_moment_runs_before_the_first_number() {
    let mut view = view("--until 2026-11-23T17:00:30Z");
    view.record(&CountdownResponse { sent_time: proto(0), ..CountdownResponse::default() }, &at(0));
    assert_eq!(left(&view, 100), Some(29_900));
    assert_eq!(view.shown(at(0).timestamp()).total, Some(SignedDuration::from_secs(30)));
}
