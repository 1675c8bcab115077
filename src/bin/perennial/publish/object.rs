//! A message as an object: what `messages -o ndjson` prints, and what people write by hand.

use std::borrow::Cow;

use jiff::Timestamp;
use perennial::{
    messages::json::{Base64, Number, Object},
    proto::{PublishRequest, publish_request::Content},
};

use crate::{arguments::Publish, output, time};

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
    // The new message gets its own sequence and time, so those of the old one are ignored.
    let object = Object::read(line)?;
    if object.gap.is_some() {
        output::note("the messages read have a gap here");
        return Ok(None);
    }
    let content = match (object.text, object.data) {
        (Some(_), Some(_)) => return Err("text and data in it: a message has one of them".into()),
        (text, None) => Content::Text(text.map(Cow::into_owned).unwrap_or_default()),
        (None, Some(Base64(data))) => Content::Data(data.into_owned()),
    };
    let ttl =
        object.ttl.as_deref().map(time::duration).transpose().map_err(|error| format!("ttl: {error}"))?;
    // A message that was read has an expireTime: the new one lives as long as the old one would have.
    let left = object.expire_time.map(|end| end.duration_since(now));
    if ttl.is_none() && left.is_some_and(|left| !left.is_positive()) {
        return Ok(None);
    }
    let headers = object.headers.into_iter();
    Ok(Some(PublishRequest {
        topic: object.topic.map(Cow::into_owned).unwrap_or_default(),
        content: Some(content),
        key: object.key.map(Cow::into_owned),
        headers: headers.map(|(name, value)| (name.into_owned(), value.into_owned())).collect(),
        message_id: object.message_id.map(Cow::into_owned),
        expected_sequence: object.expected_sequence.map(|Number(sequence)| sequence),
        ttl: ttl.or(left).map(time::to_proto),
    }))
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
