//! Items as text: for people, or raw.

use std::io::{self, Write};

use jiff::tz::TimeZone;
use perennial::proto::{
    CountdownResponse, Message, MessageEvent, MessageGapReason, MessagesResponse, message_event,
};

use crate::{
    arguments::Format,
    messages::template,
    output::{Output, note},
    time,
};

pub fn ticks(out: &mut Output, response: &CountdownResponse) -> io::Result<()> {
    if response.skipped > 0 {
        note(&format!("skipped {}", response.skipped));
    }
    response.ticks.iter().try_for_each(|tick| writeln!(out.buffer, "{}", tick.remaining.unwrap_or_default()))
}

pub fn messages(out: &mut Output, response: &MessagesResponse, zone: &TimeZone) -> io::Result<()> {
    message_events(out, response)?;
    response.messages.iter().try_for_each(|message| one_message(out, message, zone))
}

/// Says what happened, behind what was printed before.
pub fn message_events(out: &mut Output, response: &MessagesResponse) -> io::Result<()> {
    if !response.events.is_empty() {
        out.flush()?;
        response.events.iter().for_each(|event| note(&message_sentence(event)));
    }
    Ok(())
}

/// A moment as it is on the wall.
pub fn moment(time: Option<&prost_types::Timestamp>, zone: &TimeZone) -> Option<String> {
    let local = time::from_proto(time?)?.to_zoned(zone.clone());
    Some(local.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string())
}

fn one_message(out: &mut Output, message: &Message, zone: &TimeZone) -> io::Result<()> {
    if out.format == Format::Text {
        write!(out.buffer, "{:>8} ", message.sequence.unwrap_or_default())?;
        if let Some(time) = moment(message.publish_time.as_ref(), zone) {
            write!(out.buffer, "{time} ")?;
        }
        out.text(message.topic.as_bytes());
        out.buffer.push(b' ');
    }
    out.text(template::payload(message));
    out.buffer.push(b'\n');
    Ok(())
}

fn message_sentence(event: &MessageEvent) -> String {
    match &event.event {
        Some(message_event::Event::Gap(it)) => {
            let why = match it.reason() {
                MessageGapReason::Damaged => ": they are damaged on disk",
                MessageGapReason::Removed => ": retention or a purge removed them",
                MessageGapReason::Unspecified => "",
            };
            let (from, to) = (it.from_sequence.unwrap_or(0), it.to_sequence.unwrap_or(0));
            format!("sequences {from} to {to} are missing{why}")
        }
        None => "an event this client does not know".into(),
    }
}
