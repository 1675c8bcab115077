//! Printing: data to stdout, everything else to stderr.
//!
//! Text for people is made harmless on a terminal: control characters are shown, not obeyed. Where stdout is no
//! terminal, and with `raw`, bytes leave as they came.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use perennial::proto::{
    CountdownResponse, File, Line, LineEvent, Message, MessageEvent, PublishResponse, Tick, Topic, line,
    line_event, message, message_event,
};
use serde_json::{Map, Value, json};

use crate::args::Format;

/// How much is gathered before it is written, unless there is nothing more at the moment.
const BUFFER_BYTES: usize = 256 * 1024;

/// Where data goes.
pub struct Output {
    format: Format,
    out: BufWriter<StdoutLock<'static>>,
    escapes: bool,
}

impl Output {
    /// To stdout.
    pub fn new(format: Format) -> Self {
        let stdout = io::stdout();
        let escapes = stdout.is_terminal() && format != Format::Raw;
        Self { format, out: BufWriter::with_capacity(BUFFER_BYTES, stdout.lock()), escapes }
    }

    /// Writes what was gathered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// The numbers of a countdown.
    pub fn ticks(&mut self, response: &CountdownResponse) -> io::Result<()> {
        if response.skipped > 0 && matches!(self.format, Format::Text) {
            note(&format!("{} skipped", response.skipped));
        }
        for (index, tick) in response.ticks.iter().enumerate() {
            let remaining = tick.remaining.unwrap_or_default();
            match self.format {
                Format::Text | Format::Raw => writeln!(self.out, "{remaining}")?,
                _ => {
                    let skipped = if index == 0 { response.skipped } else { 0 };
                    self.object(&tick_object(tick, response.sent_time.as_ref(), skipped))?;
                }
            }
        }
        Ok(())
    }

    /// A line.
    pub fn line(&mut self, line: &Line) -> io::Result<()> {
        let bytes = match &line.content {
            Some(line::Content::Text(text)) => text.as_bytes(),
            Some(line::Content::Raw(raw)) => raw,
            None => &[],
        };
        match self.format {
            Format::Raw => {
                self.out.write_all(bytes)?;
                if !line.splits && !line.no_newline { self.out.write_all(b"\n") } else { Ok(()) }
            }
            Format::Text => {
                self.text(bytes)?;
                if line.splits { Ok(()) } else { self.out.write_all(b"\n") }
            }
            _ => self.object(&line_object(line)),
        }
    }

    /// What happened to a file.
    pub fn line_event(&mut self, event: &LineEvent) -> io::Result<()> {
        let Some(event) = &event.event else { return Ok(()) };
        let (text, value) = match event {
            line_event::Event::Rotated(_) => ("rotated".to_string(), json!({"rotated": {}})),
            line_event::Event::Truncated(at) => (
                format!("truncated: read up to byte {}, now {}", or_0(at.read_offset), or_0(at.size)),
                json!({"truncated": {"readOffset": at.read_offset, "size": at.size}}),
            ),
            line_event::Event::Deleted(_) => {
                ("deleted: waiting for a new one".into(), json!({"deleted": {}}))
            }
            line_event::Event::Gap(gap) => (
                format!("lines are missing: {}", gap.reason),
                json!({"gap": {"reason": gap.reason, "bytes": gap.bytes}}),
            ),
        };
        self.event(&text, &value)
    }

    /// A message.
    pub fn message(&mut self, message: &Message) -> io::Result<()> {
        let bytes = match &message.content {
            Some(message::Content::Text(text)) => text.as_bytes(),
            Some(message::Content::Data(data)) => data,
            None => &[],
        };
        match self.format {
            Format::Raw => {
                self.out.write_all(bytes)?;
                self.out.write_all(b"\n")
            }
            Format::Text => {
                let time = time(message.publish_time.as_ref());
                write!(self.out, "{} {time} {} ", or_0(message.sequence), message.topic)?;
                self.text(bytes)?;
                self.out.write_all(b"\n")
            }
            _ => self.object(&message_object(message)),
        }
    }

    /// What happened to the log.
    pub fn message_event(&mut self, event: &MessageEvent) -> io::Result<()> {
        let Some(message_event::Event::Gap(gap)) = &event.event else { return Ok(()) };
        let (from, to) = (or_0(gap.from_sequence), or_0(gap.to_sequence));
        let text = format!("messages {from} to {to} are damaged on the server's disk");
        self.event(&text, &json!({"gap": {"fromSequence": from, "toSequence": to, "reason": "DAMAGED"}}))
    }

    /// A message was published.
    pub fn published(&mut self, published: &PublishResponse) -> io::Result<()> {
        let sequence = or_0(published.sequence);
        match self.format {
            Format::Text | Format::Raw => writeln!(self.out, "{sequence}"),
            _ => self.object(&object([
                ("sequence", json!(sequence)),
                ("publishTime", json!(time(published.publish_time.as_ref()))),
                ("duplicate", if published.duplicate { json!(true) } else { Value::Null }),
            ])),
        }
    }

    /// A file.
    pub fn file(&mut self, file: &File) -> io::Result<()> {
        let time = time(file.modify_time.as_ref());
        match self.format {
            Format::Raw => writeln!(self.out, "{}", file.path),
            Format::Text => {
                write!(self.out, "{:>12} {:.19}Z ", or_0(file.size), time)?;
                self.text(file.path.as_bytes())?;
                self.out.write_all(b"\n")
            }
            _ => self.object(&object([
                ("path", json!(file.path)),
                ("size", json!(file.size)),
                ("modifyTime", json!(time)),
            ])),
        }
    }

    /// A topic.
    pub fn topic(&mut self, topic: &Topic) -> io::Result<()> {
        let Topic { name, message_count, bytes, first_sequence, last_sequence, first_time, last_time } =
            topic;
        match self.format {
            Format::Raw => writeln!(self.out, "{name}"),
            Format::Text => {
                let (count, first, last) =
                    (or_0(*message_count), or_0(*first_sequence), or_0(*last_sequence));
                writeln!(self.out, "{count:>9} {first:>9} {last:>9} {:.19}Z {name}", time(last_time.as_ref()))
            }
            _ => self.object(&object([
                ("name", json!(name)),
                ("messageCount", json!(message_count)),
                ("bytes", json!(bytes)),
                ("firstSequence", json!(first_sequence)),
                ("lastSequence", json!(last_sequence)),
                ("firstTime", json!(time(first_time.as_ref()))),
                ("lastTime", json!(time(last_time.as_ref()))),
            ])),
        }
    }

    /// One word.
    pub fn word(&mut self, key: &'static str, word: &str) -> io::Result<()> {
        match self.format {
            Format::Text | Format::Raw => writeln!(self.out, "{word}"),
            _ => self.object(&object([(key, json!(word))])),
        }
    }

    /// Events are messages for people, and data for programs.
    fn event(&mut self, text: &str, value: &Value) -> io::Result<()> {
        match self.format {
            Format::Text | Format::Raw => {
                self.flush()?;
                note(text);
                Ok(())
            }
            _ => self.object(&json!({ "event": value })),
        }
    }

    fn object(&mut self, object: &Value) -> io::Result<()> {
        if self.format == Format::Json {
            serde_json::to_writer_pretty(&mut self.out, object)?;
        } else {
            serde_json::to_writer(&mut self.out, object)?;
        }
        self.out.write_all(b"\n")
    }

    fn text(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.escapes {
            return self.out.write_all(bytes);
        }
        self.out.write_all(harmless(&String::from_utf8_lossy(bytes)).as_bytes())
    }
}

/// Says something to the person, not the pipe.
pub fn note(text: &str) {
    anstream::eprintln!("-- {} --", harmless(text));
}

/// Shows control characters instead of obeying them; a tab is harmless.
pub fn harmless(text: &str) -> String {
    let show = |c: char| {
        if c.is_control() && c != '\t' { c.escape_default().to_string() } else { c.to_string() }
    };
    text.chars().map(show).collect()
}

fn or_0(number: Option<i64>) -> i64 {
    number.unwrap_or_default()
}

fn time(time: Option<&prost_types::Timestamp>) -> String {
    let time = time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok());
    time.map(|time| time.to_string()).unwrap_or_default()
}

/// Of what is set, as proto3's JSON has it.
fn object<const N: usize>(fields: [(&'static str, Value); N]) -> Value {
    let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

fn flag(is_set: bool) -> Value {
    if is_set { Value::Bool(true) } else { Value::Null }
}

fn tick_object(tick: &Tick, sent: Option<&prost_types::Timestamp>, skipped: i64) -> Value {
    let left = tick.remaining_time.as_ref();
    let left = left.map(|left| {
        let nanos = format!("{:09}", left.nanos);
        let nanos = nanos.trim_end_matches('0');
        if nanos.is_empty() { format!("{}s", left.seconds) } else { format!("{}.{nanos}s", left.seconds) }
    });
    object([
        ("remaining", json!(tick.remaining)),
        ("remainingTime", json!(left)),
        ("dueTime", json!(time(tick.due_time.as_ref()))),
        ("sentTime", json!(time(sent))),
        ("skipped", if skipped > 0 { json!(skipped) } else { Value::Null }),
    ])
}

fn line_object(line: &Line) -> Value {
    let (text, raw) = match &line.content {
        Some(line::Content::Text(text)) => (json!(text), Value::Null),
        Some(line::Content::Raw(raw)) => (Value::Null, json!(STANDARD.encode(raw))),
        None => (Value::Null, Value::Null),
    };
    object([
        ("offset", json!(line.offset)),
        ("number", json!(line.number)),
        ("text", text),
        ("raw", raw),
        ("noNewline", flag(line.no_newline)),
        ("continued", flag(line.continued)),
        ("splits", flag(line.splits)),
    ])
}

fn message_object(message: &Message) -> Value {
    let (text, data) = match &message.content {
        Some(message::Content::Text(text)) => (json!(text), Value::Null),
        Some(message::Content::Data(data)) => (Value::Null, json!(STANDARD.encode(data))),
        None => (Value::Null, Value::Null),
    };
    object([
        ("sequence", json!(message.sequence)),
        ("topic", json!(message.topic)),
        ("publishTime", json!(time(message.publish_time.as_ref()))),
        ("key", json!(message.key)),
        ("headers", if message.headers.is_empty() { Value::Null } else { json!(message.headers) }),
        ("text", text),
        ("data", data),
        ("messageId", json!(message.message_id)),
    ])
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(harmless("a\x1b[31mb\tc\u{9b}d\x7f"), "a\\u{1b}[31mb\tc\\u{9b}d\\u{7f}");
        assert_eq!(harmless("ünïcode — 日本"), "ünïcode — 日本");
    }
}
