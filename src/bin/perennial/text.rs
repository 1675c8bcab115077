//! Items as text, for people or raw.

use std::io::{self, Write};

use jiff::{Timestamp, Zoned, tz::TimeZone};
use perennial::proto::{
    Countdown, CountdownResponse, MessageGapReason, MessageStreamEvent, MessagesResponse, StoredMessage,
    message_stream_event, stored_message::Content,
};

use crate::{
    arguments::Format,
    countdown::{
        event,
        lateness::{Lateness, Offset},
    },
    output::{Output, note},
    payload::payload,
    time,
};

/// Prints the numbers of a countdown, one per line, and its events on stderr.
pub struct Ticks {
    /// The lateness of each number is printed.
    shows_lateness: bool,
    offset: Offset,
    /// The last known state of a shared countdown.
    countdown: Option<Countdown>,
}

impl Ticks {
    /// The printer for a call that is made now.
    pub fn new(shows_lateness: bool) -> Self {
        Self { shows_lateness, offset: Offset::new(Timestamp::now()), countdown: None }
    }

    pub fn print(&mut self, out: &mut Output, response: &CountdownResponse) -> io::Result<()> {
        let now = Timestamp::now();
        self.offset.record(response, now);
        self.print_events(out, response)?;
        for tick in &response.ticks {
            write!(out.buffer, "{}", tick.remaining.unwrap_or_default())?;
            if self.shows_lateness
                && let Some(late) = Lateness::of(tick, response, self.offset.at_server(now))
            {
                write!(out.buffer, "  {}", late.in_words())?;
            }
            out.buffer.push(b'\n');
        }
        Ok(())
    }

    /// Prints what happened before the first number, after the numbers that were printed before.
    fn print_events(&mut self, out: &mut Output, response: &CountdownResponse) -> io::Result<()> {
        let (clock, now) = (Zoned::now(), response.countdown.as_ref());
        let sentence = |event| event::sentence(event, now, &clock);
        let mut sentences = response.events.iter().map(sentence).collect::<Vec<_>>();
        // The first response has the state; later ones have an event for each change.
        if self.countdown.is_none() && sentences.is_empty() {
            sentences.extend(now.map(|now| event::state_sentence(now, &clock)));
        }
        sentences.extend((response.skipped_ticks > 0).then(|| format!("skipped {}", response.skipped_ticks)));
        if !sentences.is_empty() {
            out.flush()?;
            for text in &sentences {
                note(text);
            }
        }
        if now.is_some() {
            self.countdown.clone_from(&response.countdown);
        }
        Ok(())
    }
}

pub fn messages(out: &mut Output, response: &MessagesResponse, zone: &TimeZone) -> io::Result<()> {
    message_events(out, response)?;
    response.messages.iter().try_for_each(|message| one_message(out, message, zone))
}

/// Prints the events, after the messages that were printed before.
pub fn message_events(out: &mut Output, response: &MessagesResponse) -> io::Result<()> {
    if !response.events.is_empty() {
        out.flush()?;
        response.events.iter().for_each(|event| note(&message_sentence(event)));
    }
    Ok(())
}

/// A moment in local time.
pub fn moment(time: Option<&prost_types::Timestamp>, zone: &TimeZone) -> Option<String> {
    let local = time::from_proto(time?)?.to_zoned(zone.clone());
    Some(local.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string())
}

fn one_message(out: &mut Output, message: &StoredMessage, zone: &TimeZone) -> io::Result<()> {
    if out.format == Format::Text {
        write!(out.buffer, "{:>8} ", message.sequence.unwrap_or_default())?;
        if let Some(time) = moment(message.publish_time.as_ref(), zone) {
            write!(out.buffer, "{time} ")?;
        }
        out.text(message.topic.as_bytes());
        out.buffer.push(b' ');
    }
    out.text(payload(message));
    // Any byte more would change what `-o raw` gives of bytes; a text is a line.
    let is_exact = out.format == Format::Raw && matches!(message.content, Some(Content::Data(_)));
    if !is_exact {
        out.buffer.push(b'\n');
    }
    Ok(())
}

fn message_sentence(event: &MessageStreamEvent) -> String {
    match &event.event {
        Some(message_stream_event::Event::Gap(it)) => {
            let why = match it.reason() {
                MessageGapReason::Damaged => ": they are damaged on disk",
                MessageGapReason::Removed => ": retention or a purge removed them",
                MessageGapReason::Diverged => {
                    ": the server's log was restored or forked, and what follows is its own history"
                }
                MessageGapReason::Unspecified => "",
            };
            let (from, to) = (it.first_sequence.unwrap_or(0), it.last_sequence.unwrap_or(0));
            format!("sequences {from} to {to} are missing{why}")
        }
        Some(message_stream_event::Event::Narrowed(it)) => {
            format!("you may read a part of these topics only: {}", it.topics.join(" "))
        }
        None => "an event this client does not know".into(),
    }
}
