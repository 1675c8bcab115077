//! A message as an object: what `messages -o ndjson` prints, and what people write by hand.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use perennial::proto::{PublishRequest, publish_request::Content};
use serde::{Deserialize, de::IgnoredAny};

use crate::{arguments::Publish, output, time};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Object {
    topic: Option<String>,
    text: Option<String>,
    data: Option<String>,
    key: Option<String>,
    #[serde(default)]
    headers: HashMap<String, String>,
    message_id: Option<String>,
    expected_sequence: Option<i64>,
    ttl: Option<String>,
    /// A message that was read has this one: what is left of its time.
    expire_time: Option<Timestamp>,
    /// Those of the message that was read: the new one gets its own.
    #[serde(rename = "sequence")]
    _sequence: Option<IgnoredAny>,
    #[serde(rename = "publishTime")]
    _publish_time: Option<IgnoredAny>,
    /// No message: what the reader was told instead of some.
    gap: Option<IgnoredAny>,
}

/// The message that a line describes, with what the arguments say of all; none for a line without one.
pub fn message(line: &[u8], it: &Publish) -> Result<Option<PublishRequest>, String> {
    let Some(message) = read(line, Timestamp::now())? else { return Ok(None) };
    let message = it.complete(message);
    if message.topic.is_empty() { Err("no topic in it, and none is given".into()) } else { Ok(Some(message)) }
}

fn read(line: &[u8], now: Timestamp) -> Result<Option<PublishRequest>, String> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let object = serde_json::from_slice::<Object>(line).map_err(|error| explained(&error))?;
    if object.gap.is_some() {
        output::note("the messages read have a gap here");
        return Ok(None);
    }
    let content = match (object.text, object.data) {
        (Some(_), Some(_)) => return Err("text and data in it: a message has one of them".into()),
        (text, None) => Content::Text(text.unwrap_or_default()),
        (None, Some(data)) => {
            Content::Data(STANDARD.decode(data).map_err(|error| format!("data is not base64: {error}"))?)
        }
    };
    let ttl =
        object.ttl.as_deref().map(time::duration).transpose().map_err(|error| format!("ttl: {error}"))?;
    let left = object.expire_time.map(|end| end.duration_since(now));
    if ttl.is_none() && left.is_some_and(|left| !left.is_positive()) {
        return Ok(None);
    }
    Ok(Some(PublishRequest {
        topic: object.topic.unwrap_or_default(),
        content: Some(content),
        key: object.key,
        headers: object.headers,
        message_id: object.message_id,
        expected_sequence: object.expected_sequence,
        ttl: ttl.or(left).map(time::to_proto),
    }))
}

/// What serde says, without the line, which is told.
fn explained(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    format!("not a message: {text}, at column {}", error.column())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]

    use super::*;

    fn of(line: &str) -> Result<Option<PublishRequest>, String> {
        read(line.as_bytes(), "2026-11-23T18:00:00Z".parse().unwrap())
    }

    #[test]
    fn what_was_read_can_be_published() {
        let line = r#"{"sequence":7,"topic":"a","publishTime":"2026-11-23T17:00:00Z","key":"k","headers":{"h":"v"},
            "text":"ü","messageId":"x","expireTime":"2026-11-23T18:00:01.5Z"}"#;
        let message = of(line).unwrap().unwrap();
        let ttl = prost_types::Duration { seconds: 1, nanos: 500_000_000 };
        let expected = PublishRequest {
            topic: "a".into(),
            content: Some(Content::Text("ü".into())),
            key: Some("k".into()),
            headers: [("h".to_owned(), "v".to_owned())].into(),
            message_id: Some("x".into()),
            expected_sequence: None,
            ttl: Some(ttl),
        };
        assert_eq!(message, expected);
        let data = of(r#"{"topic":"a","data":"/w==","ttl":"1h"}"#).unwrap().unwrap();
        assert_eq!(data.content, Some(Content::Data(vec![0xff])));
        assert_eq!(data.ttl.unwrap().seconds, 3_600);
    }

    #[test]
    fn a_line_without_a_message_is_passed_over() {
        for line in ["", "  \r", r#"{"gap":{"firstSequence":1,"lastSequence":2}}"#] {
            assert_eq!(of(line), Ok(None), "{line}");
        }
        let expired = r#"{"topic":"a","text":"","expireTime":"2026-11-23T17:59:59Z"}"#;
        assert_eq!(of(expired), Ok(None));
    }

    #[test]
    fn a_line_that_is_no_message_is_told_why() {
        for (line, told) in [
            ("hello", "not a message"),
            ("[]", "not a message"),
            (r#"{"topic":"a","payload":"x"}"#, "payload"),
            (r#"{"topic":"a","text":"x","data":""}"#, "one of them"),
            (r#"{"topic":"a","data":"%"}"#, "base64"),
            (r#"{"topic":"a","ttl":"soon"}"#, "ttl"),
        ] {
            let error = of(line).unwrap_err();
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
