//! `perennial.v1.StoredMessage`, as an item of `MessagesResponse.messages`. The log stores messages in this encoding.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BufMut;

use super::{put_length_tag, put_varint, put_varint_tag, take_varint, varint_len};

/// `MessagesResponse.messages`.
const MESSAGES: u32 = 1;

const SEQUENCE: u32 = 1;
const TOPIC: u32 = 2;
const PUBLISH_TIME: u32 = 3;
const KEY: u32 = 4;
const HEADERS: u32 = 5;
const TEXT: u32 = 6;
const DATA: u32 = 7;
const MESSAGE_ID: u32 = 8;
const EXPIRE_TIME: u32 = 9;

// The fields of `google.protobuf.Timestamp`.
const SECONDS: u32 = 1;
const NANOS: u32 = 2;

// The fields of an entry of a map.
const MAP_KEY: u32 = 1;
const MAP_VALUE: u32 = 2;

/// Every field above has a tag of one byte.
const TAG_BYTES: usize = 1;

/// A message to encode.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub(crate) sequence: u64,
    pub(crate) topic: &'a str,
    /// When it was published; not before 1970.
    pub time: SystemTime,
    pub(crate) key: Option<&'a str>,
    /// Pairs of a name and a value.
    pub headers: &'a [(String, String)],
    pub(crate) content: &'a [u8],
    /// Whether the publisher sent `content` as text. It is then valid UTF-8.
    pub is_text: bool,
    /// Makes publishing it safe to repeat.
    pub message_id: Option<&'a str>,
    /// When it expires; not before 1970.
    pub expires: Option<SystemTime>,
}

/// Appends a message as an item of `MessagesResponse.messages`.
pub fn put(out: &mut impl BufMut, message: &Message<'_>) {
    let since = since_1970(message.time);
    let expires = message.expires.map(since_1970);
    let length = TAG_BYTES
        + varint_len(message.sequence)
        + bytes_len(message.topic.as_bytes())
        + field_len(timestamp_len(since))
        + message.key.map_or(0, |key| bytes_len(key.as_bytes()))
        + message.headers.iter().map(|header| field_len(header_len(header))).sum::<usize>()
        + bytes_len(message.content)
        + message.message_id.map_or(0, |id| bytes_len(id.as_bytes()))
        + expires.map_or(0, |expires| field_len(timestamp_len(expires)));
    put_length_tag(out, MESSAGES);
    put_varint(out, length as u64);
    put_varint_tag(out, SEQUENCE);
    put_varint(out, message.sequence);
    put_bytes(out, TOPIC, message.topic.as_bytes());
    put_timestamp(out, PUBLISH_TIME, since);
    if let Some(key) = message.key {
        put_bytes(out, KEY, key.as_bytes());
    }
    for header in message.headers {
        put_length_tag(out, HEADERS);
        put_varint(out, header_len(header) as u64);
        put_bytes(out, MAP_KEY, header.0.as_bytes());
        put_bytes(out, MAP_VALUE, header.1.as_bytes());
    }
    put_bytes(out, if message.is_text { TEXT } else { DATA }, message.content);
    if let Some(id) = message.message_id {
        put_bytes(out, MESSAGE_ID, id.as_bytes());
    }
    if let Some(expires) = expires {
        put_timestamp(out, EXPIRE_TIME, expires);
    }
}

/// A decoded message. It borrows from the bytes that it was read from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Found<'a> {
    pub(crate) sequence: u64,
    pub(crate) topic: &'a str,
    /// When it was published, since 1970.
    pub time: Duration,
    pub(crate) key: Option<&'a str>,
    /// Pairs of a name and a value.
    pub headers: Vec<(&'a str, &'a str)>,
    pub(crate) content: &'a [u8],
    /// Whether the publisher sent `content` as text. It is then valid UTF-8.
    pub is_text: bool,
    /// Makes publishing it safe to repeat.
    pub message_id: Option<&'a str>,
    /// When it expires, since 1970.
    pub expires: Option<Duration>,
}

/// Reads a message that [`put`] wrote; `None` if bytes follow it.
pub fn read(mut bytes: &[u8]) -> Option<Found<'_>> {
    read_next(&mut bytes).filter(|_| bytes.is_empty())
}

/// Reads a message that [`put`] wrote, and moves after it.
pub fn read_next<'a>(bytes: &mut &'a [u8]) -> Option<Found<'a>> {
    let Field::Bytes(MESSAGES, mut message) = take(bytes)? else { return None };
    let mut found = Found::default();
    let text = |bytes| std::str::from_utf8(bytes).ok();
    while !message.is_empty() {
        match take(&mut message)? {
            Field::Number(SEQUENCE, sequence) => found.sequence = sequence,
            Field::Bytes(TOPIC, bytes) => found.topic = text(bytes)?,
            Field::Bytes(PUBLISH_TIME, bytes) => found.time = read_timestamp(bytes)?,
            Field::Bytes(KEY, bytes) => found.key = Some(text(bytes)?),
            Field::Bytes(HEADERS, bytes) => found.headers.push(read_header(bytes)?),
            Field::Bytes(TEXT, bytes) => (found.content, found.is_text) = (text(bytes)?.as_bytes(), true),
            Field::Bytes(DATA, bytes) => (found.content, found.is_text) = (bytes, false),
            Field::Bytes(MESSAGE_ID, bytes) => found.message_id = Some(text(bytes)?),
            Field::Bytes(EXPIRE_TIME, bytes) => found.expires = Some(read_timestamp(bytes)?),
            _ => return None,
        }
    }
    Some(found)
}

/// The content of a message that [`put`] wrote, if it is text.
pub fn text(bytes: &[u8]) -> Option<&str> {
    let found = read(bytes)?;
    if found.is_text { std::str::from_utf8(found.content).ok() } else { None }
}

/// The number of a field, and its value.
enum Field<'a> {
    Number(u32, u64),
    Bytes(u32, &'a [u8]),
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<Field<'a>> {
    let tag = u32::try_from(take_varint(bytes)?).ok()?;
    let value = take_varint(bytes)?;
    match tag & 7 {
        super::VARINT => Some(Field::Number(tag >> 3, value)),
        super::LENGTH_DELIMITED => {
            let (value, rest) = bytes.split_at_checked(usize::try_from(value).ok()?)?;
            *bytes = rest;
            Some(Field::Bytes(tag >> 3, value))
        }
        _ => None,
    }
}

fn read_timestamp(mut bytes: &[u8]) -> Option<Duration> {
    let (mut seconds, mut nanos) = (0, 0);
    while !bytes.is_empty() {
        match take(&mut bytes)? {
            Field::Number(SECONDS, value) => seconds = value,
            Field::Number(NANOS, value) => nanos = u32::try_from(value).ok()?,
            _ => return None,
        }
    }
    (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
}

fn read_header(mut bytes: &[u8]) -> Option<(&str, &str)> {
    let mut header = ("", "");
    while !bytes.is_empty() {
        match take(&mut bytes)? {
            Field::Bytes(MAP_KEY, bytes) => header.0 = std::str::from_utf8(bytes).ok()?,
            Field::Bytes(MAP_VALUE, bytes) => header.1 = std::str::from_utf8(bytes).ok()?,
            _ => return None,
        }
    }
    Some(header)
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn put_timestamp(out: &mut impl BufMut, field: u32, since: Duration) {
    put_length_tag(out, field);
    put_varint(out, timestamp_len(since) as u64);
    put_varint_tag(out, SECONDS);
    put_varint(out, since.as_secs());
    put_varint_tag(out, NANOS);
    put_varint(out, u64::from(since.subsec_nanos()));
}

fn put_bytes(out: &mut impl BufMut, field: u32, bytes: &[u8]) {
    put_length_tag(out, field);
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// The size of a field whose content has `bytes` bytes, with its tag and its length.
fn field_len(bytes: usize) -> usize {
    TAG_BYTES + varint_len(bytes as u64) + bytes
}

fn bytes_len(bytes: &[u8]) -> usize {
    field_len(bytes.len())
}

fn header_len((name, value): &(String, String)) -> usize {
    bytes_len(name.as_bytes()) + bytes_len(value.as_bytes())
}

fn timestamp_len(since: Duration) -> usize {
    2 * TAG_BYTES + varint_len(since.as_secs()) + varint_len(u64::from(since.subsec_nanos()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::proto;

    proptest! {
        #[test]
        fn prost_reads_an_encoded_message(
            sequence in 1..i64::MAX as u64,
            topic in "[a-z.]{0,20}",
            time in 0..4_000_000_000_000_000_000_u64,
            key in proptest::option::of(".{0,20}"),
            headers in proptest::collection::btree_map(".{0,20}", ".{0,200}", 0..4),
            content in proptest::collection::vec(any::<u8>(), 0..300),
            message_id in proptest::option::of(".{0,20}"),
            expires in proptest::option::of(0..4_000_000_000_000_u64),
        ) {
            let expires = expires.map(|expires| UNIX_EPOCH + Duration::from_millis(expires));
            let time = UNIX_EPOCH + Duration::from_nanos(time);
            let text = String::from_utf8(content.clone()).ok();
            let pairs = headers.clone().into_iter().collect::<Vec<_>>();
            let message = Message {
                sequence, topic: &topic, time, key: key.as_deref(), headers: &pairs, content: &content,
                is_text: text.is_some(), message_id: message_id.as_deref(), expires,
            };
            let mut ours = Vec::new();
            put(&mut ours, &message);
            prop_assert_eq!(super::text(&ours), text.as_deref());
            let found = super::read(&ours).unwrap();
            prop_assert_eq!((found.sequence, found.topic, found.key), (sequence, topic.as_str(), key.as_deref()));
            prop_assert_eq!((UNIX_EPOCH + found.time, found.expires), (time, expires.map(since_1970)));
            prop_assert_eq!((found.content, found.is_text), (&content[..], text.is_some()));
            prop_assert_eq!(found.message_id, message_id.as_deref());
            let found_headers = found.headers.iter().map(|(k, v)| (k.to_string(), v.to_string()));
            prop_assert_eq!(found_headers.collect::<Vec<_>>(), pairs.clone());
            let read = proto::MessagesResponse::decode(ours.as_slice()).unwrap();
            let expected = proto::StoredMessage {
                sequence: Some(sequence.cast_signed()),
                topic,
                publish_time: Some(time.into()),
                key,
                headers: headers.clone().into_iter().collect(),
                content: Some(match text {
                    Some(text) => proto::stored_message::Content::Text(text),
                    None => proto::stored_message::Content::Data(content),
                }),
                message_id,
                expire_time: expires.map(Into::into),
            };
            prop_assert_eq!(&read.messages, &vec![expected]);
            // The bytes are equal too, unless prost leaves out an empty string of a map, or zero (nano)seconds.
            let plain = headers.len() <= 1 && headers.iter().all(|(k, v)| !k.is_empty() && !v.is_empty());
            if plain && read.messages.iter().all(|m| !m.topic.is_empty() && m.publish_time.unwrap().nanos != 0
                && m.publish_time.unwrap().seconds != 0
                && m.expire_time.is_none_or(|time| time.nanos != 0 && time.seconds != 0)) {
                prop_assert_eq!(ours, read.encode_to_vec());
            }
            let _: BTreeMap<_, _> = headers;
        }
    }
}
