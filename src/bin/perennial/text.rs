//! Items as text: for people, or raw.

use std::io::{self, Write};

use jiff::tz::TimeZone;
use perennial::proto::{
    CountdownResponse, Message, MessageEvent, MessageGapReason, MessagesResponse, message, message_event,
};

use crate::{
    arguments::Format,
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
    if !response.events.is_empty() {
        out.flush()?;
        response.events.iter().for_each(|event| note(&message_sentence(event)));
    }
    response.messages.iter().try_for_each(|message| one_message(out, message, zone))
}

fn one_message(out: &mut Output, message: &Message, zone: &TimeZone) -> io::Result<()> {
    if out.format == Format::Text {
        write!(out.buffer, "{:>8} ", message.sequence.unwrap_or_default())?;
        if let Some(time) = message.publish_time.as_ref().and_then(time::from_proto) {
            let local = time.to_zoned(zone.clone());
            write!(out.buffer, "{} ", local.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z"))?;
        }
        out.text(message.topic.as_bytes());
        out.buffer.push(b' ');
    }
    match &message.content {
        Some(message::Content::Text(text)) => out.text(text.as_bytes()),
        Some(message::Content::Data(data)) => out.text(data),
        None => {}
    }
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
