//! The events and the state of a countdown as sentences.

use jiff::Zoned;
use perennial::proto::{
    Countdown, CountdownChange, CountdownChanged, CountdownClockStepped, CountdownState,
    CountdownStreamEvent, countdown_stream_event::Event,
};

use crate::time;

/// The sentence for an event. `now` is the state after it, if that is known.
pub fn sentence(event: &CountdownStreamEvent, now: Option<&Countdown>, clock: &Zoned) -> String {
    match &event.event {
        Some(Event::ClockStepped(it)) => stepped(it),
        Some(Event::Changed(it)) => changed(*it, now, clock),
        None => "an event this client does not know".into(),
    }
}

fn stepped(it: &CountdownClockStepped) -> String {
    let by = it.by.as_ref().map(time::duration_from_proto).unwrap_or_default();
    if by.is_negative() {
        format!("clock stepped by -{}: it was set back", time::in_words(by.abs()))
    } else {
        format!("clock stepped by {}: it was set forward, or the machine slept", time::in_words(by))
    }
}

fn changed(it: CountdownChanged, now: Option<&Countdown>, clock: &Zoned) -> String {
    let left = now.and_then(left).map_or_else(String::new, |left| format!(", {left} left"));
    let ends = now.and_then(|now| end(now, clock));
    let ends_at = ends.as_ref().map_or_else(String::new, |end| format!(", ends at {end}"));
    match it.change() {
        CountdownChange::Created => format!("created{ends_at}"),
        CountdownChange::Paused => format!("paused{left}"),
        CountdownChange::Resumed => format!("resumed{left}{ends_at}"),
        CountdownChange::Extended => format!("{}{left}{ends_at}", extended(it.by)),
        CountdownChange::Cancelled => format!("cancelled{left}"),
        CountdownChange::Ended => ends.map_or_else(|| "ended".into(), |end| format!("ended at {end}")),
        CountdownChange::Unspecified => "changed in a way this client does not know".into(),
    }
}

/// The sentence for a moved end.
fn extended(by: Option<prost_types::Duration>) -> String {
    match by.as_ref().map(time::duration_from_proto) {
        Some(by) if by.is_positive() => format!("extended by {}", time::in_words(by)),
        Some(by) if by.is_negative() => format!("shortened by {}", time::in_words(by.abs())),
        _ => "its end was moved".into(),
    }
}

/// The sentence for the state of a shared countdown.
pub fn state_sentence(it: &Countdown, clock: &Zoned) -> String {
    let left = left(it).map_or_else(String::new, |left| format!(", {left} left"));
    let end = end(it, clock);
    match it.state() {
        CountdownState::Running => {
            let ends_at = end.map_or_else(String::new, |end| format!(", ends at {end}"));
            format!("{} is running{left}{ends_at}", it.name)
        }
        CountdownState::Paused => format!("{} is paused{left}", it.name),
        CountdownState::Ended => {
            end.map_or_else(|| format!("{} has ended", it.name), |end| format!("{} ended at {end}", it.name))
        }
        CountdownState::Cancelled => format!("{} was cancelled{left}", it.name),
        CountdownState::Unspecified => it.name.clone(),
    }
}

/// The state as a word.
pub fn state(state: CountdownState) -> &'static str {
    match state {
        CountdownState::Running => "running",
        CountdownState::Paused => "paused",
        CountdownState::Ended => "ended",
        CountdownState::Cancelled => "cancelled",
        CountdownState::Unspecified => "-",
    }
}

fn left(it: &Countdown) -> Option<String> {
    it.remaining_duration.as_ref().map(|left| time::in_words(time::duration_from_proto(left)))
}

fn end(it: &Countdown, clock: &Zoned) -> Option<String> {
    it.end_time.as_ref().and_then(time::from_proto).map(|end| time::on_the_wall(end, clock))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]
    #![expect(clippy::unnecessary_wraps, reason = "as the fields of a message are")]
    use super::*;

    fn seconds(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    fn launch(state: CountdownState, total: i64) -> Countdown {
        let end: jiff::Timestamp = "2026-11-23T17:00:00Z".parse().unwrap();
        let has_end = matches!(state, CountdownState::Running | CountdownState::Ended);
        Countdown {
            name: "launch".into(),
            state: state.into(),
            end_time: has_end.then(|| time::timestamp_to_proto(end)),
            remaining_duration: seconds(200),
            total_duration: seconds(total),
            ..Countdown::default()
        }
    }

    fn clock() -> Zoned {
        "2026-11-23T12:00:00+01:00[Europe/Berlin]".parse().unwrap()
    }

    #[test]
    fn each_change_has_a_sentence() {
        use CountdownState::{Cancelled, Ended, Paused, Running};
        let by = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        for (change, now, by, expected) in [
            (CountdownChange::Created, launch(Running, 600), None, "created, ends at 18:00:00"),
            (CountdownChange::Paused, launch(Paused, 600), None, "paused, 3m 20s left"),
            (CountdownChange::Resumed, launch(Running, 600), None, "resumed, 3m 20s left, ends at 18:00:00"),
            (
                CountdownChange::Extended,
                launch(Running, 630),
                by(30),
                "extended by 30s, 3m 20s left, ends at 18:00:00",
            ),
            (CountdownChange::Extended, launch(Paused, 540), by(-60), "shortened by 1m, 3m 20s left"),
            (CountdownChange::Cancelled, launch(Cancelled, 600), None, "cancelled, 3m 20s left"),
            (CountdownChange::Ended, launch(Ended, 600), None, "ended at 18:00:00"),
        ] {
            let changed = CountdownChanged { change: change.into(), by, ..CountdownChanged::default() };
            let event = CountdownStreamEvent { event: Some(Event::Changed(changed)) };
            assert_eq!(sentence(&event, Some(&now), &clock()), expected);
            let unknown = sentence(&event, None, &clock());
            assert!(expected.starts_with(&unknown) || unknown == "its end was moved", "{unknown}");
        }
    }

    #[test]
    fn a_step_of_the_clock_is_reported_with_its_direction() {
        let said = |by| {
            let stepped = CountdownClockStepped { by };
            let event = CountdownStreamEvent { event: Some(Event::ClockStepped(stepped)) };
            sentence(&event, None, &clock())
        };
        let back = Some(prost_types::Duration { seconds: -1, nanos: -500_000_000 });
        assert_eq!(said(back), "clock stepped by -1s 500ms: it was set back");
        assert_eq!(said(seconds(3_600)), "clock stepped by 1h: it was set forward, or the machine slept");
    }

    #[test]
    fn each_state_has_a_sentence() {
        use CountdownState::{Cancelled, Ended, Paused, Running};
        for (state, expected) in [
            (Running, "launch is running, 3m 20s left, ends at 18:00:00"),
            (Paused, "launch is paused, 3m 20s left"),
            (Ended, "launch ended at 18:00:00"),
            (Cancelled, "launch was cancelled, 3m 20s left"),
        ] {
            assert_eq!(state_sentence(&launch(state, 600), &clock()), expected);
        }
    }
}
