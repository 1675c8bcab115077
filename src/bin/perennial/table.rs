//! What is answered at once: files, topics, health.

use perennial::proto::{Consumer, File, Topic};
use serde_json::{Value, json};

use crate::{Failure, arguments::Format, json, output::Output, time};

const SERVING: &str = "SERVING";

/// The files, a line each: size, when it was last changed and when it was made, whether it grows, path.
pub fn files(files: &[File], format: Format) -> Result<u8, Failure> {
    let row = |file: &File| {
        let (modified, created) = (moment(file.modify_time.as_ref()), moment(file.create_time.as_ref()));
        let growing = if file.growing { "growing" } else { "-" };
        let size = file.size.unwrap_or_default();
        format!("{size:>14}  {modified:<20}  {created:<20}  {growing:<7}  {}", file.path)
    };
    list(files, format, |file| &file.path, row, json::file)
}

/// A time to the second, or a dash where it is not known.
fn moment(time: Option<&prost_types::Timestamp>) -> String {
    let time = time.and_then(time::from_proto);
    time.map_or_else(|| "-".into(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// The topics, a line each: messages, bytes, last sequence, name.
pub fn topics(topics: &[Topic], format: Format) -> Result<u8, Failure> {
    let row = |topic: &Topic| {
        format!(
            "{:>10} messages  {:>12} bytes  last {:>10}  {}",
            topic.message_count.unwrap_or_default(),
            topic.bytes.unwrap_or_default(),
            topic.last_sequence.unwrap_or_default(),
            topic.name
        )
    };
    list(topics, format, |topic| &topic.name, row, json::topic)
}

/// The consumers, a line each: sequence, how far behind, whether someone reads, when it was committed, name. How far is
/// a bound: the head counts the messages of all topics, and commits.
pub fn consumers(consumers: &[Consumer], format: Format) -> Result<u8, Failure> {
    let row = |consumer: &Consumer| {
        let sequence = consumer.sequence.unwrap_or_default();
        let behind = consumer.head_sequence.unwrap_or_default().saturating_sub(sequence);
        let connected = if consumer.connected { "connected" } else { "-" };
        let committed = moment(consumer.commit_time.as_ref());
        let name = &consumer.name;
        format!("after {sequence:>10}  at most {behind:>10} behind  {connected:<9}  {committed:<20}  {name}")
    };
    list(consumers, format, |consumer| &consumer.name, row, json::consumer)
}

/// How many messages were removed.
pub fn purged(count: i64, format: Format) -> Result<u8, Failure> {
    let object = |_: &String| json!({ "messageCount": count });
    list(&[count.to_string()], format, String::as_str, String::clone, object)
}

/// The status; any but SERVING is a failure.
pub fn health(status: &str, format: Format) -> Result<u8, Failure> {
    list(&[status], format, |status| status, ToString::to_string, |status| json!({ "status": status }))?;
    Ok(u8::from(status != SERVING))
}

fn list<T>(
    items: &[T],
    format: Format,
    name: impl Fn(&T) -> &str,
    row: impl Fn(&T) -> String,
    object: impl Fn(&T) -> Value,
) -> Result<u8, Failure> {
    let mut out = Output::new(format);
    for item in items {
        match format {
            Format::Text => out.text(row(item).as_bytes()),
            Format::Raw => out.text(name(item).as_bytes()),
            Format::Json | Format::Ndjson => {
                out.object(&object(item))?;
                continue;
            }
        }
        out.buffer.push(b'\n');
    }
    out.flush()?;
    Ok(0)
}
