//! The JSON form of a message, one object a line. `perennial messages -o ndjson` and `perennial log export` print it;
//! `perennial log import` and `perennial publish --from ndjson` read it.
//!
//! It is the JSON mapping of protobuf for `StoredMessage`, with one exception: a 64-bit number is printed as a number. It
//! is read as a number or as text, because other programs follow the mapping.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, IgnoredAny, Visitor},
};

/// A message as a JSON object. Fields that are `None` or empty are not printed.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Object<'a> {
    /// Its sequence in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Number>,
    /// Its topic.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<Cow<'a, str>>,
    /// The wall clock of the server when it accepted the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish_time: Option<Timestamp>,
    /// Its key.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Cow<'a, str>>,
    /// Its headers, by name.
    #[serde(borrow, default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    /// Its payload, if it is text.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Cow<'a, str>>,
    /// Its payload, if it is binary.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Base64<'a>>,
    /// Its message id.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<Cow<'a, str>>,
    /// The time from which on it is not delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_time: Option<Timestamp>,
    /// Only read: publish the message only if this is the last sequence of its topic; 0 means that the topic is empty.
    #[serde(default, skip_serializing)]
    pub expected_sequence: Option<Number>,
    /// Only read: how long the message is delivered, as a person writes it.
    #[serde(borrow, default, skip_serializing)]
    pub ttl: Option<Cow<'a, str>>,
    /// Only read: the line is not a message but an event, which says that messages are missing here.
    #[serde(default, skip_serializing)]
    pub gap: Option<IgnoredAny>,
}

impl<'a> Object<'a> {
    /// Reads one line.
    ///
    /// # Errors
    /// The reason and the column, as text for the person who wrote the line.
    pub fn read(line: &'a [u8]) -> Result<Self, String> {
        // serde would also take an array as the fields in their order.
        if !line.trim_ascii_start().starts_with(b"{") {
            return Err("not a message: a JSON object begins with `{`".into());
        }
        serde_json::from_slice(line).map_err(|error| {
            let text = error.to_string();
            // serde_json counts lines, and this is one line.
            let text = text.split(" at line ").next().unwrap_or_default();
            format!("not a message: {text}, at column {}", error.column())
        })
    }
}

/// A 64-bit integer: printed as a number, read as a number or as text.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Number(pub i64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer of 64 bits")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Number, E> {
        Ok(Number(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Number, E> {
        i64::try_from(number)
            .map(Number)
            .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
        text.parse().map(Number).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

/// Bytes, in JSON as base64 with padding.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Base64<'a>(pub Cow<'a, [u8]>);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text.as_bytes());
        let bytes = bytes.map_err(|error| de::Error::custom(format_args!("data is not base64: {error}")))?;
        Ok(Self(Cow::Owned(bytes)))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_as_it_was_printed() {
        let object = Object {
            sequence: Some(Number(i64::MAX)),
            topic: Some("a".into()),
            publish_time: Some("2026-11-23T17:00:00.000000001Z".parse().unwrap()),
            headers: BTreeMap::from([("name".into(), "\"ü\"\n".into())]),
            data: Some(Base64(vec![0, 255].into())),
            ..Object::default()
        };
        let line = serde_json::to_string(&object).unwrap();
        assert_eq!(
            line,
            r#"{"sequence":9223372036854775807,"topic":"a","publishTime":"2026-11-23T17:00:00.000000001Z","#
                .to_owned()
                + r#""headers":{"name":"\"ü\"\n"},"data":"AP8="}"#
        );
        let read = Object::read(line.as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), line);
        assert_eq!((read.sequence, read.data), (object.sequence, object.data));
    }

    #[test]
    fn a_number_may_be_text() {
        let read = Object::read(br#"{"sequence":"7000","expectedSequence":0}"#).unwrap();
        assert_eq!((read.sequence, read.expected_sequence), (Some(Number(7000)), Some(Number(0))));
        for wrong in [r#""seven""#, "1.5", "9223372036854775808", "true"] {
            let error = Object::read(format!("{{\"sequence\":{wrong}}}").as_bytes()).unwrap_err();
            assert!(error.contains("an integer of 64 bits"), "{error}");
        }
    }

    #[test]
    fn a_line_that_is_not_a_message_says_why_and_where() {
        for (line, reason) in [
            ("{", "EOF"),
            ("", "begins with `{`"),
            ("[]", "begins with `{`"),
            (r#"{"payload":"x"}"#, "unknown field `payload`"),
            (r#"{"data":"%"}"#, "not base64"),
            (r#"{"publishTime":"soon"}"#, "at column 21"),
        ] {
            let error = Object::read(line.as_bytes()).unwrap_err();
            assert!(error.starts_with("not a message: ") && !error.contains(" line "), "{error}");
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
