//! Items as JSON objects, with the field names of the contract's JSON form.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    io,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use perennial::{
    json::{Base64, Number, Object},
    proto::{
        ConsumerInfo, FileInfo, LineStreamEvent, MessageStreamEvent, MessagesResponse, PublishResponse,
        ReadLinesResponse, StoredMessage, TopicInfo, line, line_stream_event, message_stream_event,
        stored_message,
    },
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{output::Output, time};

pub mod countdowns;

type Time = Option<prost_types::Timestamp>;

fn moment(time: &Time) -> Option<String> {
    time.as_ref().and_then(time::from_proto).map(|time| time.to_string())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "they are fields of the message")]
struct LineObject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    offset: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_newline: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    continued: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    has_more: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    skipped: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

/// Prints the events and lines, with their path if there are several files.
pub fn lines(out: &mut Output, response: &ReadLinesResponse, path: Option<&str>) -> io::Result<()> {
    response.events.iter().try_for_each(|event| {
        let mut object = line_event(event);
        if let (Some(path), Some(fields)) = (path, object.as_object_mut()) {
            fields.insert("path".into(), path.into());
        }
        out.object(&object)
    })?;
    response.lines.iter().try_for_each(|line| {
        let (text, data) = match &line.content {
            Some(line::Content::Text(text)) => (Some(text.as_str()), None),
            Some(line::Content::Data(data)) => (None, Some(STANDARD.encode(data))),
            None => (None, None),
        };
        out.object(&LineObject {
            path,
            offset: line.offset,
            number: line.number,
            text,
            data,
            no_newline: line.no_newline,
            continued: line.continued,
            has_more: line.has_more,
            truncated: line.truncated,
            skipped: line.skipped,
            partial: line.partial,
        })
    })
}

fn line_event(event: &LineStreamEvent) -> Value {
    use line_stream_event::Event;
    match &event.event {
        Some(Event::Rotated(it)) => json!({ "rotated": { "nextOffset": it.next_offset } }),
        Some(Event::Truncated(it)) => {
            json!({ "truncated": { "readOffset": it.read_offset, "size": it.size } })
        }
        Some(Event::Deleted(_)) => json!({ "deleted": {} }),
        Some(Event::Gap(it)) => {
            let mut gap = json!({ "reason": it.reason().as_str_name(), "byteCount": it.byte_count });
            if let Some(fields) = gap.as_object_mut().filter(|_| !it.file.is_empty()) {
                fields.extend([
                    ("file".to_owned(), it.file.as_str().into()),
                    ("fault".to_owned(), it.fault.as_str().into()),
                    ("unconfirmedOffset".to_owned(), it.unconfirmed_offset.into()),
                ]);
            }
            json!({ "gap": gap })
        }
        Some(Event::Opened(it)) => json!({ "opened": { "size": it.size } }),
        Some(Event::Hole(it)) => json!({ "hole": { "offset": it.offset, "byteCount": it.byte_count } }),
        Some(Event::Late(it)) => json!({ "late": { "offset": it.offset } }),
        Some(Event::Resumed(it)) => json!({ "resumed": { "found": it.found().as_str_name() } }),
        None => json!({}),
    }
}

pub fn messages(out: &mut Output, response: &MessagesResponse) -> io::Result<()> {
    response.events.iter().try_for_each(|event| out.object(&message_event(event)))?;
    response.messages.iter().try_for_each(|message| out.object(&message_object(message)))
}

fn message_object(message: &StoredMessage) -> Object<'_> {
    let (text, data) = match &message.content {
        Some(stored_message::Content::Text(text)) => (Some(text.into()), None),
        Some(stored_message::Content::Data(data)) => (None, Some(Base64(data.into()))),
        None => (None, None),
    };
    Object {
        sequence: message.sequence.map(Number),
        topic: Some(message.topic.as_str().into()),
        publish_time: message.publish_time.as_ref().and_then(time::from_proto),
        key: message.key.as_deref().map(Cow::from),
        headers: sorted(&message.headers),
        text,
        data,
        message_id: message.message_id.as_deref().map(Cow::from),
        expire_time: message.expire_time.as_ref().and_then(time::from_proto),
        ..Object::default()
    }
}

fn sorted(headers: &HashMap<String, String>) -> BTreeMap<Cow<'_, str>, Cow<'_, str>> {
    headers.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn message_event(event: &MessageStreamEvent) -> Value {
    match &event.event {
        Some(message_stream_event::Event::Gap(it)) => json!({ "gap": {
            "firstSequence": it.first_sequence,
            "lastSequence": it.last_sequence,
            "reason": it.reason().as_str_name(),
        } }),
        Some(message_stream_event::Event::Narrowed(it)) => json!({ "narrowed": { "topics": it.topics } }),
        None => json!({}),
    }
}

pub fn published(response: &PublishResponse) -> Value {
    json!({
        "sequence": response.sequence,
        "publishTime": moment(&response.publish_time),
        "duplicate": response.duplicate,
        "durability": response.durability().as_str_name(),
    })
}

pub fn consumer(consumer: &ConsumerInfo) -> Value {
    json!({
        "name": consumer.name,
        "cursor": consumer.cursor,
        "commitTime": moment(&consumer.commit_time),
        "sequence": consumer.sequence,
        "headSequence": consumer.head_sequence,
        "connected": consumer.connected,
        "fault": consumer.fault,
    })
}

pub fn file(file: &FileInfo) -> Value {
    json!({
        "path": file.path,
        "size": file.size,
        "modifyTime": moment(&file.modify_time),
        "createTime": moment(&file.create_time),
        "growing": file.growing,
    })
}

pub fn topic(topic: &TopicInfo) -> Value {
    json!({
        "name": topic.name,
        "messageCount": topic.message_count,
        "byteCount": topic.byte_count,
        "firstSequence": topic.first_sequence,
        "lastSequence": topic.last_sequence,
        "firstTime": moment(&topic.first_time),
        "lastTime": moment(&topic.last_time),
    })
}
