//! The messages of `publish --json`: one JSON object per line, as `messages -o ndjson` prints it or as people write it.

use std::borrow::Cow;

use jiff::Timestamp;
use perennial::{
    json::{Base64, Number, Object},
    proto::{PublishRequest, publish_request::Content},
};

use super::source::Line;
use crate::{arguments::Publish, output, time};

/// Reads the message that a line describes, and completes it with the fields that all messages get.
pub fn message(line: &[u8], it: &Publish) -> Result<Line, String> {
    match read(line, Timestamp::now())? {
        Line::Message(message) => {
            let message = it.complete(*message);
            if message.topic.is_empty() {
                return Err("the line has no topic, and the command line has none".into());
            }
            Ok(Line::Message(message.into()))
        }
        other => Ok(other),
    }
}

fn read(line: &[u8], now: Timestamp) -> Result<Line, String> {
    if line.trim_ascii().is_empty() {
        return Ok(Line::Empty);
    }
    // The new message gets its own sequence and time, so those of the old one are ignored.
    let object = Object::read(line)?;
    if object.gap.is_some() {
        output::note("messages are missing here: the line reports a gap");
        return Ok(Line::Empty);
    }
    let content = match (object.text, object.data) {
        (Some(_), Some(_)) => {
            return Err("the line has text and data, and a message has only one of them".into());
        }
        (text, None) => Content::Text(text.map(Cow::into_owned).unwrap_or_default()),
        (None, Some(Base64(data))) => Content::Data(data.into_owned()),
    };
    let ttl =
        object.ttl.as_deref().map(time::duration).transpose().map_err(|error| format!("ttl: {error}"))?;
    // The copy of a message expires when the original does.
    let left = object.expire_time.map(|end| end.duration_since(now));
    if ttl.is_none() && left.is_some_and(|left| !left.is_positive()) {
        return Ok(Line::Expired);
    }
    let headers = object.headers.into_iter();
    let message = PublishRequest {
        topic: object.topic.map(Cow::into_owned).unwrap_or_default(),
        content: Some(content),
        key: object.key.map(Cow::into_owned),
        headers: headers.map(|(name, value)| (name.into_owned(), value.into_owned())).collect(),
        message_id: object.message_id.map(Cow::into_owned),
        expected_sequence: object.expected_sequence.map(|Number(sequence)| sequence),
        ttl: ttl.or(left).map(time::to_proto),
    };
    Ok(Line::Message(message.into()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]

    use super::*;

    fn of(line: &str) -> Result<Line, String> {
        read(line.as_bytes(), "2026-11-23T18:00:00Z".parse().unwrap())
    }

    fn message_of(line: &str) -> PublishRequest {
        match of(line).unwrap() {
            Line::Message(message) => *message,
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn a_message_that_was_read_can_be_published() {
        let line = r#"{"sequence":7,"topic":"a","publishTime":"2026-11-23T17:00:00Z","key":"k","headers":{"h":"v"},
            "text":"ü","messageId":"x","expireTime":"2026-11-23T18:00:01.5Z"}"#;
        let message = message_of(line);
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
        let data = message_of(r#"{"topic":"a","data":"/w==","ttl":"1h"}"#);
        assert_eq!(data.content, Some(Content::Data(vec![0xff])));
        assert_eq!(data.ttl.unwrap().seconds, 3_600);
    }

    #[test]
    fn a_line_without_a_message_is_skipped() {
        for line in ["", "  \r", r#"{"gap":{"firstSequence":1,"lastSequence":2}}"#] {
            assert_eq!(of(line), Ok(Line::Empty), "{line}");
        }
        let expired = r#"{"topic":"a","text":"","expireTime":"2026-11-23T17:59:59Z"}"#;
        assert_eq!(of(expired), Ok(Line::Expired));
    }

    #[test]
    fn a_line_that_is_not_a_message_is_refused_with_the_reason() {
        for (line, reason) in [
            ("hello", "not a message"),
            ("[]", "not a message"),
            (r#"{"topic":"a","payload":"x"}"#, "payload"),
            (r#"{"topic":"a","text":"x","data":""}"#, "one of them"),
            (r#"{"topic":"a","data":"%"}"#, "base64"),
            (r#"{"topic":"a","ttl":"soon"}"#, "ttl"),
        ] {
            let error = of(line).unwrap_err();
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
