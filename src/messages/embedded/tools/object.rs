//! The messages of an export and of an import as lines of JSON, in the form of [`json::Object`].

use std::{
    borrow::Cow,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use crate::{
    json::{Base64, Number, Object},
    messages::{Content, Expected, NewMessage, topic},
    wire::message::Found,
};

/// A message with its sequence and its time.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Its sequence.
    pub sequence: u64,
    /// When it was published: in nanoseconds since 1970.
    pub time: u64,
    /// Everything else.
    pub message: NewMessage,
}

/// Appends a message as a line.
pub fn put(out: &mut Vec<u8>, found: &Found<'_>) -> Result<(), String> {
    let (text, data) = if found.is_text {
        (Some(String::from_utf8_lossy(found.content)), None)
    } else {
        (None, Some(Base64(found.content.into())))
    };
    let object = Object {
        sequence: Some(Number(found.sequence.cast_signed())),
        topic: Some(found.topic.into()),
        publish_time: Some(timestamp(found.time)?),
        key: found.key.map(Cow::from),
        headers: found.headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        text,
        data,
        message_id: found.message_id.map(Cow::from),
        expire_time: found.expires.map(timestamp).transpose()?,
        ..Object::default()
    };
    serde_json::to_writer(&mut *out, &object).map_err(|error| error.to_string())?;
    out.push(b'\n');
    Ok(())
}

/// The time that is this long after 1970.
pub fn timestamp(since: Duration) -> Result<Timestamp, String> {
    Timestamp::try_from(UNIX_EPOCH + since).map_err(|error| error.to_string())
}

/// Reads a line. The error is the reason why a log cannot hold it.
pub fn read(line: &[u8], limit: usize) -> Result<Placed, String> {
    let object = Object::read(line)?;
    if object.gap.is_some() {
        return Err("a gap, and not a message: export the log instead of reading it".into());
    }
    if object.ttl.is_some() || object.expected_sequence.is_some() {
        return Err("ttl and expectedSequence are for publishing: a stored message has an expireTime".into());
    }
    let Object { sequence, topic, publish_time, key, headers, text, data, message_id, expire_time, .. } =
        object;
    let Number(sequence) = sequence.ok_or("`sequence` is missing")?;
    let topic = topic.ok_or("`topic` is missing")?;
    let publish_time = publish_time.ok_or("`publishTime` is missing")?;
    let sequence = u64::try_from(sequence).ok().filter(|sequence| *sequence > 0);
    let sequence = sequence.ok_or("the sequence is 1 or more")?;
    let content = match (text, data) {
        (Some(text), None) => Content::Text(text.into_owned()),
        (None, Some(Base64(data))) => Content::Data(Bytes::from(data.into_owned())),
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
        expected: Expected::Any,
        ttl: ttl.map_err(|_| "expireTime is before publishTime")?,
    };
    message.check_parts(limit).map_err(|error| error.to_string())?;
    Ok(Placed { sequence, time, message })
}

/// Checks a topic, which may be one of the server's own: an export contains them.
fn check_topic(name: &str) -> Result<(), String> {
    let fault = |error: topic::Error| format!("the topic {error}");
    let pattern = topic::Pattern::parse(name).map_err(fault)?;
    if pattern.literal().is_none() { topic::check(name).map_err(fault) } else { Ok(()) }
}

fn nanos(time: Timestamp) -> Option<u64> {
    let since = SystemTime::from(time).duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}
