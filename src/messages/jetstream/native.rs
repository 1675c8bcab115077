//! A message in the form of NATS: a subject, headers and a payload, which programs that use NATS directly read and write.
//!
//! The topic `orders.eu` of the namespace `shop` is the subject `shop.orders.eu`. The payload is the content, and a header
//! is a header. A name or a value that NATS could not carry, or would take for its own, is percent-encoded in a header
//! `Perennial-Header`. The log's own topics, which begin with `$`, are the subjects below `shop-own`, so that no filter of
//! users' topics has them.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_nats::HeaderMap;
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::{
    messages::{
        Content, Expected, NewMessage,
        clock::{nanos, time_of},
        topic,
    },
    wire::message::{self, Message},
};

/// The key.
const KEY: &str = "Perennial-Key";

/// `data`: the content is bytes, although it may be valid UTF-8.
const CONTENT: &str = "Perennial-Content";
const DATA: &str = "data";

/// A header that NATS could not carry: `NAME=VALUE`, both percent-encoded.
const HEADER: &str = "Perennial-Header";

/// The time to live in nanoseconds; NATS keeps whole seconds.
const TTL: &str = "Perennial-Ttl";

/// The subject of marks, below that of the log's own topics.
const MARK: &str = "mark";

/// The headers that JetStream acts on.
const ROLLUP: &str = "Nats-Rollup";
const MESSAGE_ID: &str = "Nats-Msg-Id";
const NATS_TTL: &str = "Nats-TTL";
const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
/// A sequence that no message has.
const IMPOSSIBLE: &str = "9223372036854775807";
const EXPECTED_ID: &str = "Nats-Expected-Last-Msg-Id";

/// What the names of headers begin with that JetStream, or this file, gives a meaning.
const RESERVED: [&str; 2] = ["nats-", "perennial-"];

/// The first character of a message id that a server made up, because the publisher gave none.
const MADE_UP: char = '~';

/// The bytes that a message id is written with as they are.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b':');

/// The largest headers that JetStream stores, in bytes, less some room for those that it adds.
pub const MAX_HEADER_BYTES: usize = 64_000;

/// A message of the stream, as subscriptions read it.
#[derive(Clone, Debug)]
pub struct Stored {
    pub sequence: u64,
    pub topic: Arc<str>,
    /// When JetStream stored it, in nanoseconds since 1970.
    pub time: u64,
    /// When it expires, in nanoseconds since 1970; 0 for never.
    pub expires: u64,
    /// As an item of `MessagesResponse.messages`.
    pub bytes: Bytes,
}

/// The subjects of a namespace.
#[derive(Clone, Debug)]
pub struct Subjects {
    users: String,
    own: String,
}

impl Subjects {
    pub fn new(namespace: &str) -> Self {
        Self { users: format!("{namespace}."), own: format!("{namespace}-own.") }
    }

    /// The subjects of all topics: those of users, and the log's own.
    pub fn all(&self) -> [String; 2] {
        [format!("{}>", self.users), format!("{}>", self.own)]
    }

    /// The subject of a topic, or the filter of a pattern.
    pub fn of(&self, topic: &str) -> String {
        match topic.strip_prefix('$') {
            Some(own) => format!("{}{own}", self.own),
            None => format!("{}{topic}", self.users),
        }
    }

    /// The topic of a subject of users; `None` if no topic has this name.
    pub fn topic<'a>(&self, subject: &'a str) -> Option<&'a str> {
        subject.strip_prefix(&self.users).filter(|name| topic::check(name).is_ok())
    }

    /// The topic of a subject of users, or one of the server's own that has a state; `None` for every other subject.
    pub fn topic_of_any<'a>(&self, subject: &'a str) -> Option<Cow<'a, str>> {
        let Some(own) = subject.strip_prefix(&self.own) else {
            return self.topic(subject).map(Cow::Borrowed);
        };
        (own != MARK && topic::check(own).is_ok()).then(|| format!("${own}").into())
    }

    /// The subject of marks.
    pub fn mark(&self) -> String {
        format!("{}{MARK}", self.own)
    }

    /// Whether a subject is one of the log's own.
    pub fn is_own(&self, subject: &str) -> bool {
        subject.starts_with(&self.own)
    }
}

/// The message id of a message in the stream. JetStream knows ids of the whole stream, so it has the topic; and every
/// message has one, so that publishing it can be repeated when the cluster has not answered.
pub fn id_of(message: &NewMessage) -> String {
    match &message.message_id {
        Some(id) => format!("{}/{}", message.topic, utf8_percent_encode(id, PLAIN)),
        None => format!("{MADE_UP}{}", uuid::Uuid::new_v4().simple()),
    }
}

/// The message id that the publisher gave.
fn given_id(id: &str, topic: &str) -> Option<String> {
    if id.strip_prefix(MADE_UP).is_some_and(|id| uuid::Uuid::try_parse(id).is_ok()) {
        return None;
    }
    // Another client of NATS may give any id.
    let scoped = id.strip_prefix(topic).and_then(|id| id.strip_prefix('/'));
    scoped.map_or_else(|| Some(id.into()), decode)
}

fn decode(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(Into::into)
}

/// The payload of a message.
pub fn payload(message: &NewMessage) -> Bytes {
    match &message.content {
        Content::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
        Content::Data(data) => data.clone(),
    }
}

/// The headers of a message, with its id.
pub fn headers(message: &NewMessage, id: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(MESSAGE_ID, id);
    if let Some(key) = &message.key {
        headers.insert(KEY, utf8_percent_encode(key, PLAIN).to_string());
    }
    if let Content::Data(data) = &message.content
        && std::str::from_utf8(data).is_ok()
    {
        headers.insert(CONTENT, DATA);
    }
    if let Some(ttl) = message.ttl {
        headers.insert(TTL, ttl.as_nanos().to_string());
        // Readers leave it out from the nanosecond on; JetStream removes it a little later.
        headers.insert(NATS_TTL, format!("{}s", ttl.as_secs() + 2));
    }
    match message.expected {
        Expected::Any => {}
        Expected::Empty => headers.insert(EXPECTED, "0"),
        Expected::Last(sequence) => headers.insert(EXPECTED, sequence.to_string()),
    }
    for (name, value) in &message.headers {
        if is_plain(name, value) {
            headers.insert(name.as_str(), value.as_str());
        } else {
            let [name, value] = [name, value].map(|text| utf8_percent_encode(text, PLAIN));
            headers.append(HEADER, format!("{name}={value}"));
        }
    }
    headers
}

/// Makes a message replace those before it of its subject.
pub fn replace(headers: &mut HeaderMap) {
    headers.insert(ROLLUP, "sub");
}

/// Lets a message be stored only if this is the last sequence of its subject.
pub fn expect(headers: &mut HeaderMap, sequence: u64) {
    headers.insert(EXPECTED, sequence.to_string());
}

/// The headers of a message with the same id, which is acknowledged if the id is known, and never stored.
///
/// A stream with replicas looks at the id first, and then at the expected sequence; one without looks at the expected sequence
/// before it looks at the id, and at the last id after both. The last id must not be used where there are replicas: it is
/// looked at after the id was noted, so that the message itself would be refused for the rest of the window.
pub fn probe(headers: &HeaderMap, is_replicated: bool) -> HeaderMap {
    let mut probe = HeaderMap::new();
    if let Some(id) = headers.get(MESSAGE_ID) {
        probe.insert(MESSAGE_ID, id.clone());
    }
    if is_replicated {
        probe.insert(EXPECTED, IMPOSSIBLE);
    } else {
        // No message has this id: each has a topic, or a number.
        probe.insert(EXPECTED_ID, "none");
    }
    probe
}

/// The size of headers as NATS writes them.
pub fn header_bytes(headers: &HeaderMap) -> usize {
    const FIRST_LINE: usize = "NATS/1.0\r\n\r\n".len();
    const SEPARATORS: usize = ": \r\n".len();
    let sizes = headers.iter().flat_map(|(name, values)| {
        let name = <HeaderNameText as AsRef<str>>::as_ref(name).len();
        values.iter().map(move |value| name + value.as_str().len() + SEPARATORS)
    });
    FIRST_LINE + sizes.sum::<usize>()
}

type HeaderNameText = async_nats::HeaderName;

/// Whether NATS carries a header as it is, and gives it no meaning of its own.
fn is_plain(name: &str, value: &str) -> bool {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let is_reserved = RESERVED
        .iter()
        .any(|reserved| name.get(..reserved.len()).is_some_and(|start| start.eq_ignore_ascii_case(reserved)));
    let is_of_value = |c: char| c == ' ' || c.is_ascii_graphic();
    name.chars().all(is_of_name)
        && !is_reserved
        && !value.is_empty()
        && value.chars().all(is_of_value)
        && value.trim() == value
}

/// Reads a message of a topic, which Perennial or another client of NATS has published.
pub fn read(
    sequence: u64,
    topic: &str,
    time: SystemTime,
    native: Option<&HeaderMap>,
    payload: &[u8],
) -> Stored {
    let none = HeaderMap::new();
    let native = native.unwrap_or(&none);
    let last = |name: &'static str| native.get_last(name).map(async_nats::HeaderValue::as_str);
    let mut headers = Vec::new();
    for (name, values) in native.iter() {
        let name: &str = name.as_ref();
        let is_reserved = RESERVED.iter().any(|reserved| {
            name.get(..reserved.len()).is_some_and(|start| start.eq_ignore_ascii_case(reserved))
        });
        if !is_reserved {
            let values = values.iter().map(async_nats::HeaderValue::as_str).collect::<Vec<_>>();
            headers.push((name.to_owned(), values.join(", ")));
        }
    }
    for header in native.get_all(HEADER) {
        if let Some((name, value)) = header.as_str().split_once('=')
            && let (Some(name), Some(value)) = (decode(name), decode(value))
        {
            headers.push((name, value));
        }
    }
    headers.sort();
    let key = last(KEY).and_then(decode);
    let message_id = last(MESSAGE_ID).and_then(|id| given_id(id, topic));
    let expires = ttl(last(TTL), last(NATS_TTL)).map(|ttl| time + ttl);
    let mut bytes = Vec::with_capacity(payload.len() + topic.len() + 64);
    let message = Message {
        sequence,
        topic,
        time,
        key: key.as_deref(),
        headers: &headers,
        content: payload,
        is_text: last(CONTENT) != Some(DATA) && std::str::from_utf8(payload).is_ok(),
        message_id: message_id.as_deref(),
        expires,
    };
    message::put(&mut bytes, &message);
    Stored {
        sequence,
        topic: topic.into(),
        time: nanos(time),
        expires: expires.map_or(0, nanos),
        bytes: bytes.into(),
    }
}

/// The time to live, from our header or that of NATS: a number of seconds, or a number with a unit.
fn ttl(ours: Option<&str>, native: Option<&str>) -> Option<Duration> {
    if let Some(nanos) = ours.and_then(|ttl| ttl.parse().ok()) {
        return Some(Duration::from_nanos(nanos));
    }
    let native = native?;
    let seconds = native.parse().ok().map(Duration::from_secs);
    seconds.or_else(|| crate::units::parse_duration(native).ok())
}

impl Stored {
    /// When JetStream stored it.
    pub fn published(&self) -> SystemTime {
        time_of(self.time)
    }
}
