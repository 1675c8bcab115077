//! Lists and single values: files, topics, consumers, countdowns, health.

use perennial::proto::{ConsumerInfo, Countdown, FileInfo, TopicInfo};
use serde_json::{Value, json};

use crate::{Failure, arguments::Format, countdown::event, json, output::Output, time};

const SERVING: &str = "SERVING";

/// Prints the files, a line each: size, modification time, creation time, whether it is growing, path.
pub fn files(files: &[FileInfo], format: Format) -> Result<u8, Failure> {
    let row = |file: &FileInfo| {
        let (modified, created) = (moment(file.modify_time.as_ref()), moment(file.create_time.as_ref()));
        let growing = if file.growing { "growing" } else { "-" };
        let size = file.size.unwrap_or_default();
        format!("{size:>14}  {modified:<20}  {created:<20}  {growing:<7}  {}", file.path)
    };
    list(files, format, |file| &file.path, row, json::file)
}

/// A time to the second in UTC, or a dash for an unknown one.
fn moment(time: Option<&prost_types::Timestamp>) -> String {
    let time = time.and_then(time::from_proto);
    time.map_or_else(|| "-".into(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// Prints the topics, a line each: messages, bytes, last sequence, name.
pub fn topics(topics: &[TopicInfo], format: Format) -> Result<u8, Failure> {
    let row = |topic: &TopicInfo| {
        format!(
            "{:>10} messages  {:>12} bytes  last {:>10}  {}",
            topic.message_count.unwrap_or_default(),
            topic.byte_count.unwrap_or_default(),
            topic.last_sequence.unwrap_or_default(),
            topic.name
        )
    };
    list(topics, format, |topic| &topic.name, row, json::topic)
}

/// Prints the consumers, a line each: sequence, newest sequence of the log, whether a reader is connected, time of the
/// last commit, name.
pub fn consumers(consumers: &[ConsumerInfo], format: Format) -> Result<u8, Failure> {
    list(consumers, format, |consumer| &consumer.name, consumer, json::consumer)
}

/// Both sequences count the messages of all topics, so their difference is not the number of messages to come.
fn consumer(it: &ConsumerInfo) -> String {
    let (sequence, newest) = (it.sequence.unwrap_or_default(), it.head_sequence.unwrap_or_default());
    let log = if sequence >= newest { "caught up".into() } else { format!("log at {newest:>10}") };
    let connected = if it.connected { "connected" } else { "-" };
    let committed = moment(it.commit_time.as_ref());
    if !it.fault.is_empty() {
        return format!("{:<35}  {connected:<9}  {committed:<20}  {}: {}", "unreadable", it.name, it.fault);
    }
    format!("after {sequence:>10}  {log:<17}  {connected:<9}  {committed:<20}  {}", it.name)
}

/// Prints the shared countdowns, a line each: state, remaining time, end, version, name.
pub fn countdowns(countdowns: &[Countdown], format: Format) -> Result<u8, Failure> {
    list(countdowns, format, |it| &it.name, countdown, json::countdowns::countdown)
}

fn countdown(it: &Countdown) -> String {
    let state = event::state(it.state());
    let left = it.remaining_duration.as_ref().map(time::duration_from_proto);
    let left = left.map_or_else(|| "-".into(), time::in_words);
    let (end, version) = (moment(it.end_time.as_ref()), it.version.unwrap_or_default());
    format!("{state:<9}  {left:>14}  {end:<20}  version {version:>6}  {}", it.name)
}

/// Prints the number of removed messages.
pub fn purged(count: i64, format: Format) -> Result<u8, Failure> {
    let object = |_: &String| json!({ "messageCount": count });
    list(&[count.to_string()], format, String::as_str, String::clone, object)
}

/// Prints the status; every status but SERVING is a failure.
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

#[cfg(test)]
mod tests {
    use super::*;
    use perennial::proto::CountdownState;

    #[test]
    fn a_consumer_shows_two_sequences_and_no_difference() {
        let mut it = ConsumerInfo {
            name: "worker".into(),
            sequence: Some(7),
            head_sequence: Some(31),
            connected: true,
            ..ConsumerInfo::default()
        };
        assert_eq!(
            consumer(&it),
            "after          7  log at         31  connected  -                     worker"
        );
        // The position also counts the server's own records.
        it.sequence = Some(32);
        assert_eq!(
            consumer(&it),
            "after         32  caught up          connected  -                     worker"
        );
    }

    #[test]
    fn a_consumer_that_cannot_be_read_shows_why() {
        let fault = "the commit is damaged or incomplete".into();
        let it = ConsumerInfo { name: "worker".into(), fault, ..ConsumerInfo::default() };
        assert_eq!(
            consumer(&it),
            "unreadable                           -          -                     worker: the commit is damaged or \
             incomplete"
        );
    }

    #[test]
    fn a_countdown_is_a_line_of_columns() {
        let end_time = Some(prost_types::Timestamp { seconds: 1_795_456_800, nanos: 0 });
        let running = Countdown {
            name: "launch".into(),
            state: CountdownState::Running.into(),
            version: Some(3),
            remaining_duration: Some(prost_types::Duration { seconds: 200, nanos: 0 }),
            end_time,
            ..Countdown::default()
        };
        assert_eq!(
            countdown(&running),
            "running            3m 20s  2026-11-23T18:00:00Z  version      3  launch"
        );
        let state = CountdownState::Cancelled.into();
        let cancelled = Countdown { state, end_time: None, ..running };
        assert_eq!(
            countdown(&cancelled),
            "cancelled          3m 20s  -                     version      3  launch"
        );
    }
}
