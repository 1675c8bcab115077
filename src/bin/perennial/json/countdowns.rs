//! Countdowns and their numbers as JSON objects.

use std::{borrow::Cow, io};

use perennial::{
    json::{Base64, Object},
    proto::{
        Countdown, CountdownResponse, CountdownState, CountdownStreamEvent, EndMessage,
        countdown_stream_event::Event, end_message::Content,
    },
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{moment, sorted};
use crate::output::Output;

fn seconds(duration: &prost_types::Duration) -> String {
    // Both parts have the same sign, which zero seconds do not show.
    let sign = if duration.seconds < 0 || duration.nanos < 0 { "-" } else { "" };
    let text = format!("{sign}{}.{:09}", duration.seconds.unsigned_abs(), duration.nanos.unsigned_abs());
    format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TickObject {
    remaining: i32,
    remaining_duration: Option<String>,
    due_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i64>,
}

/// Prints the events, the state of a shared countdown after them, and the numbers.
pub fn ticks(out: &mut Output, response: &CountdownResponse) -> io::Result<()> {
    response.events.iter().try_for_each(|event| out.object(&event_object(event)))?;
    if let Some(it) = &response.countdown {
        out.object(&json!({ "countdown": CountdownObject::from(it) }))?;
    }
    if response.skipped_ticks > 0 {
        out.object(&json!({ "skippedTicks": response.skipped_ticks }))?;
    }
    response.ticks.iter().try_for_each(|tick| {
        let state = tick.state();
        out.object(&TickObject {
            remaining: tick.remaining.unwrap_or_default(),
            remaining_duration: tick.remaining_duration.as_ref().map(seconds),
            due_time: moment(&tick.due_time),
            end_time: moment(&tick.end_time),
            state: (state != CountdownState::Unspecified).then(|| state.as_str_name()),
            version: tick.version,
        })
    })
}

fn event_object(event: &CountdownStreamEvent) -> Value {
    match &event.event {
        Some(Event::ClockStepped(it)) => json!({ "clockStepped": { "by": it.by.as_ref().map(seconds) } }),
        Some(Event::Changed(it)) => {
            let mut changed = json!({
                "change": it.change().as_str_name(),
                "previousVersion": it.previous_version,
                "version": it.version,
            });
            if let Some((changed, by)) = changed.as_object_mut().zip(it.by.as_ref()) {
                changed.insert("by".into(), seconds(by).into());
            }
            json!({ "changed": changed })
        }
        None => json!({}),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CountdownObject<'a> {
    name: &'a str,
    state: &'static str,
    version: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<String>,
    remaining_duration: Option<String>,
    total_duration: Option<String>,
    interval: Option<String>,
    to: Option<i32>,
    step: Option<i32>,
    create_time: Option<String>,
    update_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_end: Option<Object<'a>>,
}

impl<'a> From<&'a Countdown> for CountdownObject<'a> {
    fn from(it: &'a Countdown) -> Self {
        Self {
            name: &it.name,
            state: it.state().as_str_name(),
            version: it.version,
            end_time: moment(&it.end_time),
            remaining_duration: it.remaining_duration.as_ref().map(seconds),
            total_duration: it.total_duration.as_ref().map(seconds),
            interval: it.interval.as_ref().map(seconds),
            to: it.to,
            step: it.step,
            create_time: moment(&it.create_time),
            update_time: moment(&it.update_time),
            on_end: it.on_end.as_ref().map(end_message),
        }
    }
}

/// The message that the server publishes at the end.
fn end_message(it: &EndMessage) -> Object<'_> {
    let (text, data) = match &it.content {
        Some(Content::Text(text)) => (Some(text.into()), None),
        Some(Content::Data(data)) => (None, Some(Base64(data.into()))),
        None => (None, None),
    };
    Object {
        topic: Some(it.topic.as_str().into()),
        key: it.key.as_deref().map(Cow::from),
        headers: sorted(&it.headers),
        text,
        data,
        ..Object::default()
    }
}

pub fn countdown(it: &Countdown) -> Value {
    json!(CountdownObject::from(it))
}

#[cfg(test)]
mod tests;
