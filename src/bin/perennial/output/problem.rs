//! An error as it is reported: a sentence for people, or one JSON object for programs.
//!
//! The object always has the same six fields. `code` is the name of a gRPC code, also for an error that the client finds
//! by itself: INVALID_ARGUMENT for wrong usage, UNKNOWN for a fault on this machine.

use std::collections::BTreeMap;

use perennial::{
    client::{Code, Error},
    proto::PublishError,
    reason::code_name,
};
use serde::Serialize;

use crate::advice::for_commands;

/// An error, and what there is to know about it.
#[derive(Debug)]
pub struct Problem {
    code: Code,
    reason: Option<String>,
    /// The fields or options that are wrong, each with a description if there is one.
    fields: Vec<(String, String)>,
    message: String,
    metadata: BTreeMap<String, String>,
    is_retryable: bool,
    /// What the user can do about it.
    remedy: Option<String>,
    /// The code and the reason say something that the message does not.
    has_status: bool,
}

/// The JSON form.
#[derive(Serialize)]
struct Object<'a> {
    code: &'static str,
    reason: Option<&'a str>,
    field: Option<&'a str>,
    message: String,
    metadata: &'a BTreeMap<String, String>,
    retryable: bool,
}

impl Problem {
    /// A fault on this machine: a file, a pipe.
    pub fn local(message: impl Into<String>) -> Self {
        Self {
            code: Code::Unknown,
            reason: None,
            fields: Vec::new(),
            message: message.into(),
            metadata: BTreeMap::new(),
            is_retryable: false,
            remedy: None,
            has_status: false,
        }
    }

    /// Something that a command names is not there.
    pub fn missing(message: impl Into<String>) -> Self {
        Self { code: Code::NotFound, ..Self::local(message) }
    }

    /// A command that cannot be carried out as it was given.
    pub fn usage(message: impl Into<String>, option: Option<String>) -> Self {
        let fields = option.map(|option| (option, String::new())).into_iter().collect();
        Self { code: Code::InvalidArgument, fields, ..Self::local(message) }
    }

    /// A call that failed.
    pub fn call(error: &Error) -> Self {
        let text = error.to_string();
        let message =
            if text.is_empty() { "the call failed without a message".into() } else { for_commands(&text) };
        let problem = Self { code: error.code(), is_retryable: error.is_retryable(), ..Self::local(message) };
        let Error::Status { reason, violations, metadata, .. } = error else { return problem };
        let fields = violations.iter().map(|it| (it.field.clone(), for_commands(&it.description)));
        Self {
            reason: reason.clone(),
            fields: fields.collect(),
            metadata: metadata.clone(),
            has_status: true,
            ..problem
        }
    }

    /// A message of a flow that was not published.
    pub fn publish(error: &PublishError) -> Self {
        let field = (!error.field.is_empty()).then(|| (error.field.clone(), String::new()));
        Self {
            code: Code::from_i32(error.code),
            reason: Some(error.reason().as_str_name().to_owned()),
            fields: field.into_iter().collect(),
            metadata: error.metadata.clone().into_iter().collect(),
            is_retryable: error.retry_delay.is_some(),
            has_status: true,
            ..Self::local(for_commands(&error.message))
        }
    }

    /// Names the file, or whatever else the error is about, unless the message names it.
    pub fn about(mut self, subject: &str) -> Self {
        if !self.message.contains(subject) {
            self.message = format!("{subject}: {}", self.message);
        }
        self
    }

    /// Says what the user can do about it.
    pub fn with_remedy(mut self, remedy: String) -> Self {
        self.remedy = Some(remedy);
        self
    }

    /// For people: a sentence, and lines of details.
    pub fn text(&self) -> (String, Vec<String>) {
        let mut details = self.unsaid().collect::<Vec<_>>();
        if self.has_status {
            let reason = self.reason.as_ref().map_or_else(String::new, |reason| format!(", {reason}"));
            let fields = self.fields.iter().map(|(field, _)| format!(", field {field}"));
            details.push(format!("({:?}{reason}{})", self.code, fields.collect::<String>()));
        }
        details.extend(self.remedy.clone());
        (self.message.clone(), details)
    }

    /// For programs: an object on one line.
    pub fn object(&self) -> String {
        let further = self.unsaid().chain(self.remedy.clone());
        let object = Object {
            code: code_name(self.code),
            reason: self.reason.as_deref(),
            field: self.fields.first().map(|(field, _)| field.as_str()),
            message: std::iter::once(self.message.clone()).chain(further).collect::<Vec<_>>().join("; "),
            metadata: &self.metadata,
            retryable: self.is_retryable,
        };
        // Strings, a map of strings and a bool always have a JSON form.
        serde_json::to_string(&object).unwrap_or_default()
    }

    /// The descriptions of fields that the message leaves out.
    fn unsaid(&self) -> impl Iterator<Item = String> {
        let is_unsaid = |description: &String| !self.message.contains(description.as_str());
        let unsaid = self.fields.iter().filter(move |(_, description)| is_unsaid(description));
        unsaid.map(|(field, description)| format!("{field}: {description}"))
    }
}

#[cfg(test)]
mod tests {
    use perennial::client::Violation;

    use super::*;

    fn status() -> Error {
        Error::Status {
            code: Code::NotFound,
            reason: Some("FILE_NOT_FOUND".into()),
            violations: vec![Violation { field: "path".into(), description: "there is no logs/x".into() }],
            metadata: [("path".to_owned(), "logs/x".to_owned())].into(),
            message: "there is no logs/x".into(),
            retry_after: None,
            transport: false,
        }
    }

    #[test]
    fn a_failed_call_is_an_object_with_all_its_facts() {
        assert_eq!(
            Problem::call(&status()).object(),
            r#"{"code":"NOT_FOUND","reason":"FILE_NOT_FOUND","field":"path","message":"there is no logs/x","metadata":{"path":"logs/x"},"retryable":false}"#
        );
    }

    #[test]
    fn an_error_found_here_has_the_same_fields() {
        for (problem, expected) in [
            (
                Problem::local("the disk\nis full"),
                r#"{"code":"UNKNOWN","reason":null,"field":null,"message":"the disk\nis full","metadata":{},"retryable":false}"#,
            ),
            (
                Problem::usage("not a number", Some("--limit".into())),
                r#"{"code":"INVALID_ARGUMENT","reason":null,"field":"--limit","message":"not a number","metadata":{},"retryable":false}"#,
            ),
        ] {
            assert_eq!(problem.object(), expected);
        }
    }

    #[test]
    fn a_message_that_was_not_published_has_the_facts_of_its_status() {
        let error = PublishError {
            code: Code::ResourceExhausted.into(),
            reason: perennial::proto::ErrorReason::LogFull.into(),
            message: "the log is full".into(),
            metadata: [("limit".to_owned(), "9".to_owned())].into(),
            retry_delay: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            ..PublishError::default()
        };
        assert_eq!(
            Problem::publish(&error).about("line 3").object(),
            r#"{"code":"RESOURCE_EXHAUSTED","reason":"LOG_FULL","field":null,"message":"line 3: the log is full","metadata":{"limit":"9"},"retryable":true}"#
        );
    }

    #[test]
    fn people_read_a_sentence_its_details_and_the_remedy() {
        let (text, details) =
            Problem::call(&status()).about("logs/x").with_remedy("look again".into()).text();
        assert_eq!(text, "there is no logs/x");
        assert_eq!(details, ["(NotFound, FILE_NOT_FOUND, field path)", "look again"]);
        let (text, details) = Problem::local("no").about("logs/x").text();
        assert_eq!((text.as_str(), details.len()), ("logs/x: no", 0));
    }

    #[test]
    fn a_field_that_the_message_leaves_out_is_described() {
        let mut error = status();
        if let Error::Status { violations, .. } = &mut error {
            violations.push(Violation { field: "limit".into(), description: "must be above zero".into() });
        }
        assert_eq!(
            Problem::call(&error).text().1.first().map(String::as_str),
            Some("limit: must be above zero")
        );
        assert!(Problem::call(&error).object().contains("there is no logs/x; limit: must be above zero"));
    }
}
