//! A message as an object on a line: the JSON form of the contract's `Message`, as the bundled client prints it.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    messages::{Content, NewMessage, topic},
    wire::message::Found,
};

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Object<'a> {
    sequence: Number,
    #[serde(borrow)]
    topic: Cow<'a, str>,
    publish_time: Timestamp,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    data: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    message_id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expire_time: Option<Timestamp>,
}

/// A number; other programs write those of 64 bits as text.
#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(untagged)]
enum Number {
    Number(u64),
    #[serde(skip_serializing)]
    #[serde(deserialize_with = "from_text")]
    Text(u64),
}

fn from_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = Cow::<str>::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

/// A message that has its place.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Its place.
    pub sequence: u64,
    /// When it was published: in nanoseconds since 1970.
    pub time: u64,
    /// All else.
    pub message: NewMessage,
}

/// Appends a message as a line.
pub fn put(out: &mut Vec<u8>, found: &Found<'_>) -> Result<(), String> {
    let text = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
    let object = Object {
        sequence: Number::Number(found.sequence),
        topic: found.topic.into(),
        publish_time: timestamp(found.time)?,
        key: found.key.map(Cow::from),
        headers: found.headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        text: found.is_text.then(|| text(found.content).into()),
        data: (!found.is_text).then(|| STANDARD.encode(found.content).into()),
        message_id: found.message_id.map(Cow::from),
        expire_time: found.expires.map(timestamp).transpose()?,
    };
    serde_json::to_writer(&mut *out, &object).map_err(|error| error.to_string())?;
    out.push(b'\n');
    Ok(())
}

/// The time so long after 1970.
pub fn timestamp(since: Duration) -> Result<Timestamp, String> {
    Timestamp::try_from(UNIX_EPOCH + since).map_err(|error| error.to_string())
}

/// Reads a line. What is wrong with it, in words, if it is no message that a log can hold.
pub fn read(line: &[u8], limit: usize) -> Result<Placed, String> {
    let object = serde_json::from_slice::<Object<'_>>(line).map_err(|error| {
        let text = error.to_string();
        // There is one line.
        text.rsplit_once(" at line ").map_or(text.clone(), |(text, _)| text.into())
    })?;
    let Object { sequence, topic, publish_time, key, headers, text, data, message_id, expire_time } = object;
    let (Number::Number(sequence) | Number::Text(sequence)) = sequence;
    if !(1..=i64::MAX.cast_unsigned()).contains(&sequence) {
        return Err(format!("the sequence is {sequence}: it is 1 or more, and fits 63 bits"));
    }
    let content = match (text, data) {
        (Some(text), None) => Content::Text(text.into_owned()),
        (None, Some(data)) => {
            let data =
                STANDARD.decode(data.as_bytes()).map_err(|error| format!("data is no base64: {error}"))?;
            Content::Data(Bytes::from(data))
        }
        _ => return Err("a message has either `text` or `data`".into()),
    };
    check_topic(&topic)?;
    let time = nanos(publish_time).ok_or("publishTime is before 1970, or after 2554")?;
    let ttl = expire_time.map(|expires| expires.duration_since(publish_time));
    let ttl = ttl.map(|ttl: SignedDuration| Duration::try_from(ttl)).transpose();
    let message = NewMessage {
        topic: topic.into_owned(),
        content,
        key: key.map(Cow::into_owned),
        headers: headers.into_iter().map(|(k, v)| (k.into_owned(), v.into_owned())).collect(),
        message_id: message_id.map(Cow::into_owned),
        expected_sequence: None,
        ttl: ttl.map_err(|_| "expireTime is before publishTime")?,
    };
    message.check_parts(limit).map_err(|error| error.to_string())?;
    Ok(Placed { sequence, time, message })
}

/// The server's own topics are as good as others: they were exported.
fn check_topic(name: &str) -> Result<(), String> {
    let fault = |error: topic::Error| format!("the topic {error}");
    let pattern = topic::Pattern::parse(name).map_err(fault)?;
    if pattern.literal().is_none() { topic::check(name).map_err(fault) } else { Ok(()) }
}

fn nanos(time: Timestamp) -> Option<u64> {
    let since = SystemTime::from(time).duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}
