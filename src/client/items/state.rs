//! Where a stream continues: after a cursor, or after one of the items that follow it.
//!
//! The text has one form in all languages: one line of JSON, with 64-bit numbers as strings.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

use crate::client::Error;

const VERSION: u32 = 1;
/// The longest cursor of the contract.
const MAX_CURSOR_BYTES: usize = 1024;

/// A position in a stream: after the item `after` of those that follow the cursor, or after the cursor itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Place<K> {
    pub(super) cursor: Arc<str>,
    pub(super) after: Option<K>,
}

#[derive(Serialize)]
struct Written<'a, K> {
    version: u32,
    kind: &'a str,
    cursor: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<&'a K>,
}

#[derive(Deserialize)]
struct Read {
    version: u32,
    kind: String,
    cursor: String,
    after: Option<serde_json::Value>,
}

impl<K: Serialize + DeserializeOwned> Place<K> {
    pub(super) fn text(&self, kind: &str) -> String {
        let Self { cursor, after } = self;
        let written = Written { version: VERSION, kind, cursor, after: after.as_ref() };
        #[expect(clippy::expect_used, reason = "texts and numbers have a JSON form")]
        serde_json::to_string(&written).expect("a state has a JSON form")
    }

    /// Reads a state, or a bare cursor as the program `perennial` prints it. `place` is where the text was, for the error.
    pub(super) fn read(text: &str, kind: &str, place: &str) -> Result<Self, Error> {
        let refuse = |fault: String| Error::State { place: place.to_owned(), fault };
        let text = text.trim();
        if text.is_empty() {
            return Err(refuse("is empty".into()));
        }
        if !text.starts_with('{') {
            if text.len() > MAX_CURSOR_BYTES || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(refuse("is neither a state nor a cursor".into()));
            }
            return Ok(Self { cursor: text.into(), after: None });
        }
        let read: Read =
            serde_json::from_str(text).map_err(|error| refuse(format!("is damaged: {error}")))?;
        if read.version != VERSION {
            let version = read.version;
            return Err(refuse(format!("has version {version}, and this client knows version {VERSION}")));
        }
        if read.kind != kind {
            return Err(refuse(format!("is of a stream of {:?}, and not of {kind:?}", read.kind)));
        }
        if read.cursor.is_empty() {
            return Err(refuse("has no cursor".into()));
        }
        let after = read.after.map(serde_json::from_value).transpose();
        let after = after.map_err(|error| refuse(format!("has a key that is not one of {kind}: {error}")))?;
        Ok(Self { cursor: read.cursor.into(), after })
    }
}

/// A 64-bit number, which the text has as a string of digits.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Digits(pub(super) i64);

impl Serialize for Digits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| serde::de::Error::custom(NotDigits(text)))
    }
}

struct NotDigits(String);

impl fmt::Display for NotDigits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a number in a string", self.0)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;
    use crate::client::items::{countdown, lines, messages};

    fn same<K: Serialize + DeserializeOwned>(kind: &str, text: &str) {
        assert_eq!(Place::<K>::read(text, kind, "the state").unwrap().text(kind), text);
    }

    #[test]
    fn a_state_has_the_text_that_it_has_in_all_languages() {
        same::<lines::Key>(
            "lines",
            r#"{"version":1,"kind":"lines","cursor":"c","after":{"switches":0,"offset":"4711"}}"#,
        );
        same::<lines::Key>(
            "lines",
            r#"{"version":1,"kind":"lines","cursor":"c","after":{"switches":2,"offset":"1","bytes":"3"}}"#,
        );
        same::<messages::Key>(
            "messages",
            r#"{"version":1,"kind":"messages","cursor":"c","after":{"sequence":"42","publish_time":"1764622800123456789"}}"#,
        );
        same::<countdown::Key>(
            "countdown",
            r#"{"version":1,"kind":"countdown","cursor":"c","after":{"remaining":7,"version":"3"}}"#,
        );
        same::<countdown::Key>(
            "countdown",
            r#"{"version":1,"kind":"countdown","cursor":"c","after":{"remaining":7}}"#,
        );
        same::<lines::Key>("lines", r#"{"version":1,"kind":"lines","cursor":"c"}"#);
        let bare = Place::<lines::Key>::read("CURSOR\n", "lines", "f").unwrap();
        assert_eq!(bare, Place { cursor: "CURSOR".into(), after: None });
    }

    #[test]
    fn a_text_that_is_no_state_is_an_error_that_names_its_place_and_what_to_do() {
        for (text, fault) in [
            ("", "is empty"),
            (" \n", "is empty"),
            ("{", "is damaged"),
            ("a b", "neither a state nor a cursor"),
            (r#"{"version":1}"#, "is damaged"),
            (r#"{"version":9,"kind":"lines","cursor":"c"}"#, "has version 9"),
            (r#"{"version":1,"kind":"messages","cursor":"c"}"#, "is of a stream of \"messages\""),
            (r#"{"version":1,"kind":"lines","cursor":""}"#, "has no cursor"),
            (r#"{"version":1,"kind":"lines","cursor":"c","after":{"sequence":"1"}}"#, "has a key"),
            (r#"{"version":1,"kind":"lines","cursor":"c","after":{"switches":0,"offset":1}}"#, "has a key"),
        ] {
            let error = Place::<lines::Key>::read(text, "lines", "a.state").unwrap_err();
            let shown = error.to_string();
            assert!(shown.starts_with("a.state ") && shown.contains(fault), "{text}: {shown}");
            assert!(shown.contains("remove it to start from the beginning"), "{shown}");
        }
    }
}
