//! The template of `--format`: text with `{placeholders}` and `\escapes`.

use std::{collections::BTreeMap, io, str::Chars};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::tz::TimeZone;
use perennial::proto::StoredMessage;

use crate::{escape, output::Output, payload::payload, text};

/// The placeholders, for a refusal and for --help.
pub const PLACEHOLDERS: &str =
    "{sequence} {topic} {time} {key} {text} {data} {headers} {header.NAME} {id} {expire_time}";

/// A template that was parsed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Template {
    source: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Literal(Vec<u8>),
    Sequence,
    Topic,
    Time,
    Key,
    /// The unchanged payload.
    Text,
    /// The payload in base64.
    Data,
    /// All headers as an object.
    Headers,
    Header(String),
    Id,
    ExpireTime,
}

impl Template {
    /// Parses a template.
    pub fn parse(source: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut rest = source.chars();
        while let Some(char) = rest.next() {
            match char {
                '\\' => literal.push(escape::after_backslash(&mut rest)?),
                '{' if rest.as_str().starts_with('{') => {
                    rest.next();
                    literal.push(b'{');
                }
                '}' if rest.as_str().starts_with('}') => {
                    rest.next();
                    literal.push(b'}');
                }
                '}' => return Err("a } without a {; write }} for a brace".into()),
                '{' => {
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(placeholder(&mut rest)?);
                }
                _ => literal.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        // Any other end of a message is written out in the template.
        if !matches!(literal.last(), Some(b'\n' | 0)) {
            literal.push(b'\n');
        }
        parts.push(Part::Literal(literal));
        Ok(Self { source: source.to_owned(), parts })
    }

    /// The text that was parsed.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Prints a message.
    pub fn print(&self, out: &mut Output, message: &StoredMessage, zone: &TimeZone) -> io::Result<()> {
        self.parts.iter().try_for_each(|part| part.print(out, message, zone))
    }
}

fn placeholder(rest: &mut Chars<'_>) -> Result<Part, String> {
    let Some((name, after)) = rest.as_str().split_once('}') else {
        return Err("a { without a }; write {{ for a brace".into());
    };
    let part = match name {
        "sequence" => Part::Sequence,
        "topic" => Part::Topic,
        "time" => Part::Time,
        "key" => Part::Key,
        "text" => Part::Text,
        "data" => Part::Data,
        "headers" => Part::Headers,
        "id" => Part::Id,
        "expire_time" => Part::ExpireTime,
        _ => match name.strip_prefix("header.").filter(|header| !header.is_empty()) {
            Some(header) => Part::Header(header.to_owned()),
            None => return Err(format!("{{{name}}} is unknown; the placeholders are {PLACEHOLDERS}")),
        },
    };
    *rest = after.chars();
    Ok(part)
}

impl Part {
    fn print(&self, out: &mut Output, message: &StoredMessage, zone: &TimeZone) -> io::Result<()> {
        let time = |time: Option<&prost_types::Timestamp>| text::moment(time, zone).unwrap_or_default();
        match self {
            Self::Literal(bytes) => out.buffer.extend_from_slice(bytes),
            Self::Sequence => out.text(message.sequence.unwrap_or_default().to_string().as_bytes()),
            Self::Topic => out.text(message.topic.as_bytes()),
            Self::Time => out.text(time(message.publish_time.as_ref()).as_bytes()),
            Self::Key => out.text(message.key.as_deref().unwrap_or_default().as_bytes()),
            Self::Text => out.text(payload(message)),
            Self::Data => out.text(STANDARD.encode(payload(message)).as_bytes()),
            Self::Headers => {
                let sorted = message.headers.iter().collect::<BTreeMap<_, _>>();
                out.text(serde_json::to_string(&sorted)?.as_bytes());
            }
            Self::Header(name) => {
                out.text(message.headers.get(name).map(String::as_bytes).unwrap_or_default());
            }
            Self::Id => out.text(message.message_id.as_deref().unwrap_or_default().as_bytes()),
            Self::ExpireTime => out.text(time(message.expire_time.as_ref()).as_bytes()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]

    use perennial::proto::stored_message;

    use super::*;
    use crate::arguments::Format;

    fn printed(template: &str, message: &StoredMessage) -> String {
        let mut out = Output::over(Box::new(io::sink()), Format::Text, false, false);
        Template::parse(template).unwrap().print(&mut out, message, &TimeZone::UTC).unwrap();
        String::from_utf8(out.buffer).unwrap()
    }

    fn message() -> StoredMessage {
        StoredMessage {
            sequence: Some(7),
            topic: "orders.new".into(),
            publish_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 }),
            key: Some("k".into()),
            headers: [("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())].into(),
            content: Some(stored_message::Content::Text("hello".into())),
            message_id: Some("id".into()),
            ..StoredMessage::default()
        }
    }

    #[test]
    fn each_placeholder_is_a_field() {
        let all = "{sequence} {topic} {time} {key} {text} {data} {headers} {header.a} {header.x} {id} {expire_time}";
        assert_eq!(
            printed(all, &message()),
            "7 orders.new 2023-11-14T22:13:20.005+00:00 k hello aGVsbG8= {\"a\":\"1\",\"b\":\"2\"} 1  id \n"
        );
        let bytes = StoredMessage {
            content: Some(stored_message::Content::Data(vec![0xff])),
            ..StoredMessage::default()
        };
        assert_eq!(printed("{data}", &bytes), "/w==\n");
    }

    #[test]
    fn a_message_ends_with_a_newline_unless_the_template_ends_it() {
        for (template, expected) in [
            ("{text}", "hello\n"),
            ("{text}\\n", "hello\n"),
            ("{text}\\0", "hello\0"),
            ("{text}\\t", "hello\t\n"),
            ("{{{topic}}}: ü\\x21", "{orders.new}: ü!\n"),
            ("", "\n"),
        ] {
            assert_eq!(printed(template, &message()), expected, "{template}");
        }
    }

    #[test]
    fn an_unknown_placeholder_is_refused_with_the_known_ones() {
        for (template, hint) in [
            ("{seq}", "{sequence}"),
            ("{header.}", "{header.NAME}"),
            ("{text", "{{"),
            ("text}", "}}"),
            ("\\q", "\\n"),
            ("{}", "{topic}"),
        ] {
            let error = Template::parse(template).unwrap_err();
            assert!(error.contains(hint), "{template}: {error}");
        }
    }
}
