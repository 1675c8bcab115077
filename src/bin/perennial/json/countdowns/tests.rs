#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]
#![expect(clippy::unnecessary_wraps, reason = "as the fields of a message are")]

use std::sync::{Arc, Mutex};

use perennial::proto::{CountdownChange, CountdownChanged, CountdownClockStepped, Tick};

use super::*;
use crate::arguments::Format;

/// Output that a test can read.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn printed(response: &CountdownResponse) -> Vec<Value> {
    let written = Written::default();
    let mut out = Output::over(Box::new(written.clone()), Format::Ndjson, false, false);
    ticks(&mut out, response).unwrap();
    out.flush().unwrap();
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn duration(seconds: i64, nanos: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos })
}

fn launch() -> Countdown {
    Countdown {
        name: "launch".into(),
        state: CountdownState::Paused.into(),
        version: Some(3),
        remaining_duration: duration(200, 500_000_000),
        total_duration: duration(600, 0),
        interval: duration(1, 0),
        to: Some(0),
        step: Some(1),
        create_time: Some(prost_types::Timestamp { seconds: 0, nanos: 0 }),
        update_time: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
        ..Countdown::default()
    }
}

#[test]
fn durations_are_seconds_as_in_the_json_form_of_the_contract() {
    for (value, text) in [
        (duration(3, 0), "3s"),
        (duration(10, 500_000_000), "10.5s"),
        (duration(0, -500_000_000), "-0.5s"),
        (duration(-1, -1), "-1.000000001s"),
        (duration(0, 0), "0s"),
    ] {
        assert_eq!(seconds(&value.unwrap()), text);
    }
}

#[test]
fn a_countdown_is_named_as_the_contract_names_it() {
    assert_eq!(
        countdown(&launch()),
        json!({
            "name": "launch", "state": "COUNTDOWN_STATE_PAUSED", "version": 3, "remainingDuration": "200.5s",
            "totalDuration": "600s", "interval": "1s", "to": 0, "step": 1,
            "createTime": "1970-01-01T00:00:00Z", "updateTime": "1970-01-01T00:00:01Z",
        })
    );
    let content = Some(Content::Data(vec![0xff]));
    let headers = [("h".to_owned(), "1".to_owned())].into();
    let on_end = Some(EndMessage { topic: "t".into(), key: Some("k".into()), headers, content });
    let countdown = countdown(&Countdown { on_end, ..launch() });
    assert_eq!(
        countdown["onEnd"],
        json!({ "topic": "t", "key": "k", "headers": { "h": "1" }, "data": "/w==" })
    );
}

#[test]
fn events_come_first_then_the_state_then_the_numbers() {
    let changed = CountdownChanged {
        change: CountdownChange::Extended.into(),
        previous_version: Some(2),
        version: Some(3),
        by: duration(30, 0),
    };
    let stepped = CountdownClockStepped { by: duration(-3, 0) };
    let event = |event| CountdownStreamEvent { event: Some(event) };
    let tick = Tick {
        remaining: Some(0),
        remaining_duration: duration(0, 0),
        end_time: Some(prost_types::Timestamp::default()),
        state: CountdownState::Running.into(),
        version: Some(3),
        ..Tick::default()
    };
    let response = CountdownResponse {
        events: vec![event(Event::ClockStepped(stepped)), event(Event::Changed(changed))],
        countdown: Some(launch()),
        skipped_ticks: 2,
        ticks: vec![tick],
        ..CountdownResponse::default()
    };
    let objects = printed(&response);
    assert_eq!(objects[0], json!({ "clockStepped": { "by": "-3s" } }));
    let change = "COUNTDOWN_CHANGE_EXTENDED";
    assert_eq!(
        objects[1],
        json!({ "changed": { "change": change, "previousVersion": 2, "version": 3, "by": "30s" } })
    );
    assert_eq!(objects[2]["countdown"]["name"], "launch");
    assert_eq!(objects[3], json!({ "skippedTicks": 2 }));
    assert_eq!(
        objects[4],
        json!({
            "remaining": 0, "remainingDuration": "0s", "dueTime": null, "endTime": "1970-01-01T00:00:00Z",
            "state": "COUNTDOWN_STATE_RUNNING", "version": 3,
        })
    );
}
