//! The only place where an error becomes a status: its code, its reason, its text, its details.
//!
//! Every error of every module has an arm in one of the tables below. They have no `_` arm, so that a new variant does
//! not compile without a decision on its status. No host path and no inner error leaves the server.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    countdown, lines,
    messages::{self, BatchError, Sequence, topic},
    proto::{ErrorReason, PublishError},
    stream,
};

mod shared;

/// The domain of every reason.
pub const DOMAIN: &str = "perennial";

/// The delay in RetryInfo. Clients add a growing backoff of their own.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// The most characters of what a caller sent that a text repeats: a status travels in headers, percent-encoded, and
/// many clients take 8 KiB of headers and no more.
const MAX_QUOTED: usize = 200;

/// A failure on its way to a client.
#[derive(Clone, Debug)]
pub struct Failure {
    reason: ErrorReason,
    text: String,
    field: Option<String>,
    metadata: HashMap<String, String>,
}

impl Failure {
    /// A failure with a reason, and a text that says what is wrong and what would work.
    pub fn new(reason: ErrorReason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), field: None, metadata: HashMap::new() }
    }

    /// A wrong field. `fault` continues the sentence after its name.
    pub fn field(field: &str, fault: impl AsRef<str>) -> Self {
        let text = format!("{field} {}", fault.as_ref());
        Self { field: Some(field.into()), ..Self::new(ErrorReason::InvalidField, text) }
    }

    /// Replaces the reason.
    #[must_use]
    pub fn with_reason(self, reason: ErrorReason) -> Self {
        Self { reason, ..self }
    }

    /// Adds a fact for programs.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.metadata.insert(key.into(), format!("{value}"));
        self
    }

    /// Prefixes the field with the element that contains it.
    #[must_use]
    pub fn within(mut self, element: &str) -> Self {
        if let Some(field) = &mut self.field {
            *field = format!("{element}.{field}");
        }
        self.text = format!("{element}.{}", self.text);
        self
    }

    /// The reason of the failure.
    pub fn reason(&self) -> ErrorReason {
        self.reason
    }

    /// The failure as the error of one message of a `PublishStream`.
    pub fn into_publish_error(self) -> PublishError {
        let Self { reason, text, field, metadata } = self;
        PublishError {
            code: reason.code().into(),
            reason: reason.into(),
            message: text,
            field: field.unwrap_or_default(),
            metadata,
            retry_delay: reason
                .is_retried()
                .then(|| super::field::signed_duration(RETRY_DELAY.as_nanos().cast_signed())),
        }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let Failure { reason, text, field, metadata } = failure;
        let mut details = ErrorDetails::with_error_info(reason.as_str_name(), DOMAIN, metadata);
        if let Some(field) = field {
            details.add_bad_request_violation(field, &text);
        }
        if reason.is_retried() {
            details.set_retry_info(Some(RETRY_DELAY));
        }
        Self::with_error_details(reason.code(), text, details)
    }
}

/// The range of a heartbeat, as the end of an error text.
pub const HEARTBEAT: &str = "from 100 ms to 1 h is possible";

/// The range of `partial_flush`, as the end of an error text.
pub const PARTIAL_FLUSH: &str = "from 10 ms to 1 h is possible";

/// The range of a `ttl`, as the end of an error text.
pub const TTL: &str = "from 1 ms to 10 years is possible";

impl From<stream::Error> for Failure {
    fn from(error: stream::Error) -> Self {
        use stream::Error as E;
        match error {
            E::Limit { limit } => Self::field("limit", format!("is {limit}: it must be 1 or more")),
            E::Heartbeat { heartbeat } => {
                Self::field("heartbeat", format!("is {}: {HEARTBEAT}", show(heartbeat)))
            }
            E::MaxBatch { max_batch } => {
                Self::field("max_batch", format!("is {max_batch}: from 1 to 100,000 is possible"))
            }
        }
    }
}

impl From<countdown::Error> for Failure {
    fn from(error: countdown::Error) -> Self {
        use countdown::Error as E;
        match error {
            E::IntervalTooShort { interval, min } => {
                let text = format!("is {interval:?}: it must be {} or more", show(min));
                Self::field("interval", text).with("min", format!("{min:?}"))
            }
            E::TooLong { length, max } => Self::field("interval", too_long(length, max)),
            E::FromBelowTo { from, to } => {
                Self::field("start", format!("is {from}: it must not be below `to`, {to}"))
            }
            E::StepTooSmall { step } => Self::field("step", format!("is {step}: it must be 1 or more")),
            E::WaitFirstWithUntil => Self::field(
                "wait_first",
                "is set with `until_time`: the last tick falls on the moment, so leave it out",
            ),
            E::AlignWithUntil => Self::field(
                "align",
                "is set with `until_time`: the last tick falls on the moment, so leave it out",
            ),
            E::TooManyTicks { limit } => {
                let text = format!(
                    "the countdowns of this server would have more than {limit} ticks a second: try again later, or \
                     with a longer interval",
                );
                Self::new(ErrorReason::TooManyTicks, text).with("limit", limit)
            }
            E::TooManyNumbers { left, max } => {
                let text = format!("is so short that {left} numbers are left: at most {max} are possible");
                Self::field("interval", text)
            }
            E::UntilTooFar { ahead, max } => {
                let (ahead, max) = show_lengths(ahead, max);
                let text = format!("is {ahead} ahead: at most {max} are possible, by default 10 years");
                Self::field("until_time", text)
            }
            E::PositionInvalid(fault) => Self::field("cursor", format!("{fault}: start anew"))
                .with_reason(ErrorReason::CursorMalformed),
        }
    }
}

/// The error text of a countdown that is longer than the operator allows.
fn too_long(length: Duration, max: Duration) -> String {
    let (length, max) = show_lengths(length, max);
    format!("makes the countdown {length} long: at most {max} are possible, by default 10 years")
}

/// A length and the maximum that it is over, in whole days if the latter has some.
fn show_lengths(length: Duration, max: Duration) -> (String, String) {
    const DAY: u128 = 24 * 60 * 60 * 1_000_000_000;
    if max.is_zero() || !max.as_nanos().is_multiple_of(DAY) {
        return (format!("{length:?}"), format!("{max:?}"));
    }
    let [length, max] = [length, max].map(|it| format!("{} days", it.as_nanos().div_ceil(DAY)));
    (length, max)
}

/// A short duration as text.
fn show(duration: Duration) -> String {
    if duration.subsec_nanos().is_multiple_of(1_000_000) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{duration:?}")
    }
}

impl From<lines::Error> for Failure {
    fn from(error: lines::Error) -> Self {
        use lines::Error as E;
        match error {
            E::PathInvalid { fault } => {
                let text = format!("{fault}: `ROOT/relative/path` is wanted, as ListFiles names it");
                Self::field("path", text)
            }
            E::NotFound { path } => Self::new(
                ErrorReason::FileNotFound,
                format!(
                    "there is no file {} that may be read: ListFiles tells which there are",
                    quoted(&path)
                ),
            ),
            E::LineZero => Self::field("from_line", "is 0: lines are counted from 1"),
            E::NeedsFollow { field } => {
                Self::field(field, "is set without `follow`: set `follow`, too, or leave this out")
            }
            E::PartialFlush { pause } => {
                Self::field("partial_flush", format!("is {}: {PARTIAL_FLUSH}", show(pause)))
            }
            E::DelimiterLength { bytes } => Self::field(
                "delimiter",
                format!("has {bytes} bytes: from 1 to {} are possible", lines::MAX_DELIMITER_BYTES),
            ),
            E::LineBytes { asked, limit } => {
                let text =
                    format!("is {asked}: from {} to {limit} is possible here", lines::MIN_ASKED_LINE_BYTES);
                Self::field("max_line_bytes", text)
            }
            E::NumbersUnknown => Self::field(
                "until_line",
                "needs a stream that knows its line numbers: start at the head or with `from_line`, or set `until_offset`",
            ),
            E::OffsetBeyondEnd { offset, size } => {
                let text = format!("from_offset is {offset}: the file has {size} bytes");
                Self::new(ErrorReason::OffsetBeyondEnd, text).with("size", size)
            }
            E::Mismatch => Self::new(
                ErrorReason::CursorMismatch,
                "the cursor is one of another path: give it with the path that it came with",
            ),
            E::Expired => Self::new(
                ErrorReason::CursorExpired,
                "the file that the cursor points at is gone: start anew, or set `on_gap` to ON_GAP_SKIP",
            ),
            E::PositionInvalid => Self::field("cursor", "names an impossible place: start anew")
                .with_reason(ErrorReason::CursorMalformed),
            E::Io(error) => read_error(&error),
        }
    }
}

impl From<messages::Error> for Failure {
    fn from(error: messages::Error) -> Self {
        use messages::Error as E;
        match error {
            E::Topic(error) => Self::field("topic", error.to_string()),
            E::Pattern { index, error } => Self::field(&format!("topics[{index}]"), error.to_string()),
            E::NoPatterns => Self::field("topics", "is empty: give a pattern at least, as in `orders.>`"),
            E::TooManyPatterns { count, limit } => {
                let text = format!("has {count} patterns: at most {limit} are possible");
                Self::field("topics", text).with("limit", limit)
            }
            E::LastTooMany { last } => {
                Self::field("last", format!("is {last}: from 0 to 1,000,000 is possible"))
            }
            E::PublishCount { count } => {
                Self::field("messages", format!("has {count} messages: from 1 to 10,000 are possible"))
            }
            E::TooLarge { bytes, limit } => {
                let text = format!(
                    "makes the message too large: payload, key and headers have {bytes} bytes, at most {} are possible",
                    size(limit),
                );
                Self::field("content", text).with("limit", limit)
            }
            E::KeyTooLong { bytes } => Self::field(
                "key",
                format!("has {bytes} bytes: at most {} are possible", size(messages::MAX_KEY_BYTES)),
            ),
            E::HeaderNameEmpty => Self::field("headers", "has one with an empty name: give each a name"),
            E::TooManyHeaders { count } => {
                Self::field("headers", format!("are {count}: at most {} are possible", messages::MAX_HEADERS))
            }
            E::MessageIdLength { bytes } => {
                let max = messages::MAX_MESSAGE_ID_BYTES;
                Self::field("message_id", format!("has {bytes} bytes: from 1 to {max} are possible"))
            }
            E::SequenceMismatch { expected, current } => sequence_mismatch(expected, current),
            E::TooManyTopics { limit } => {
                let text =
                    format!("there are {limit} topics, and no more are possible: use one that is there");
                Self::new(ErrorReason::TooManyTopics, text).with("limit", limit)
            }
            E::OtherLog => Self::new(
                ErrorReason::CursorMismatch,
                "the cursor is one of another log: start anew, or ask the server that it came from",
            ),
            E::Removed { oldest, newest, removed_up_to } => removed(oldest, newest, removed_up_to),
            E::TakenOver { name } => taken_over(&name),
            E::Consumer(error) => {
                let fault = name_fault(error, messages::MAX_CONSUMER_BYTES, "billing.eu");
                Self::field("consumer", fault)
            }
            E::NoConsumer => Self::new(
                ErrorReason::ConsumerNotFound,
                "there is no such consumer: ListConsumers tells which there are",
            ),
            E::CommitBehind { sequence, committed } => commit_behind(sequence, committed),
            E::NoTopic => Self::new(
                ErrorReason::TopicNotFound,
                "the topic has no messages: ListTopics tells which topics have some",
            ),
            E::Ttl { ttl } => Self::field("ttl", format!("is {}: {TTL}", show(ttl))),
            E::Ahead { newest } => {
                let text = match newest {
                    Some(newest) => format!("whose newest sequence is {newest}"),
                    None => "which holds no message".into(),
                };
                let text = format!("the cursor is ahead of the log, {text}: start anew");
                let newest = newest.map_or(0, Sequence::get);
                Self::new(ErrorReason::CursorAhead, text).with("newest", newest)
            }
            E::Full => Self::new(
                ErrorReason::LogFull,
                "there is no room on the server's disk: nothing was published; try again when there is",
            ),
            E::Failed => Self::new(
                ErrorReason::LogFailed,
                "the log cannot be written until the server is restarted; whether this message was published is not known",
            ),
            E::Closed => draining(),
            E::Io(error) => read_error(&error),
        }
    }
}

impl From<BatchError> for Failure {
    fn from(error: BatchError) -> Self {
        let BatchError { index, error } = error;
        // Other errors concern the log, and so the whole batch.
        let is_of_one = matches!(error, messages::Error::SequenceMismatch { .. });
        let failure = Self::from(error);
        match index {
            Some(index) if failure.field.is_some() => failure.within(&format!("messages[{index}]")),
            Some(index) if is_of_one => failure.with("index", index),
            _ => failure,
        }
    }
}

fn sequence_mismatch(expected: Option<Sequence>, current: Option<Sequence>) -> Failure {
    let text = match (current, expected) {
        (None, Some(expected)) => {
            format!("the topic holds no message: sequence {expected} was expected as its last one")
        }
        (Some(current), None) => {
            format!("the last message of the topic has sequence {current}: no message was expected")
        }
        (current, expected) => {
            let [current, expected] = [current, expected].map(|sequence| sequence.map_or(0, Sequence::get));
            format!("the last message of the topic has sequence {current}, not {expected} as expected")
        }
    };
    let current = current.map_or(0, Sequence::get);
    Failure::new(ErrorReason::SequenceMismatch, text).with("current", current)
}

fn removed(oldest: Option<Sequence>, newest: Sequence, removed_up_to: Sequence) -> Failure {
    let left = match oldest {
        None => "the log holds no message any more".into(),
        Some(oldest) => format!("the log has sequences {oldest} to {newest}"),
    };
    let text = format!(
        "messages up to sequence {removed_up_to} were removed before they were read, and {left}: \
         start anew, or set `on_gap` to ON_GAP_SKIP to continue with an event that reports the gap",
    );
    let failure = Failure::new(ErrorReason::CursorExpired, text).with("newest", newest);
    match oldest {
        Some(oldest) => failure.with("oldest", oldest),
        None => failure,
    }
}

/// Who resumes would take over from the other one in turn, and so on without end.
fn taken_over(consumer: &str) -> Failure {
    let text = format!("another reader came as the consumer {}: leave the stream to it", quoted(consumer));
    Failure::new(ErrorReason::ConsumerTakenOver, text)
}

fn commit_behind(sequence: Option<Sequence>, committed: Sequence) -> Failure {
    let sequence = sequence.map_or(0, Sequence::get);
    let text = format!(
        "the consumer is at sequence {committed}, and this cursor at {sequence}: \
         commit a later one, or set `allow_rewind` to move the consumer back",
    );
    Failure::new(ErrorReason::CommitBehind, text).with("committed", committed)
}

/// What is wrong with a name that is written as a topic is, but is none.
fn name_fault(error: topic::Error, max: usize, example: &str) -> String {
    use topic::Error as E;
    let possible = format!("from 1 to {max} bytes of A-Z, a-z, 0-9, `_` and `-`, with dots between");
    match error {
        E::Empty => format!("is empty: it takes {possible}, as in `{example}`"),
        E::TooLong { bytes } => format!("has {bytes} bytes: it takes {possible}"),
        E::EmptyToken => "has nothing before, between or after its dots: put something there".into(),
        E::Character { character } => format!("has {character:?} in it: it takes {possible}"),
        E::Wildcard { wildcard } | E::PartOfToken { wildcard } => {
            format!("has `{wildcard}` in it: it takes {possible}")
        }
        E::TailNotLast => format!("has `>` in it: it takes {possible}"),
        E::Reserved => format!("has `$` in it: it takes {possible}"),
    }
}

/// A size as text.
fn size(bytes: usize) -> String {
    match bytes {
        bytes if bytes >= 1024 * 1024 && bytes.is_multiple_of(1024 * 1024) => {
            format!("{} MiB", bytes / (1024 * 1024))
        }
        bytes if bytes >= 1024 && bytes.is_multiple_of(1024) => format!("{} KiB", bytes / 1024),
        bytes => format!("{bytes} bytes"),
    }
}

/// A text of the caller in backticks; only the beginning of a long one.
fn quoted(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED) {
        None => format!("`{text}`"),
        Some((end, _)) => format!("`{}…`", text.get(..end).unwrap_or_default()),
    }
}

/// Logs the error for the operator. The client learns only that it is not at fault.
fn read_error(error: &std::io::Error) -> Failure {
    tracing::error!(%error, "the server could not read its disk for a stream");
    Failure::new(ErrorReason::ReadError, "the server could not read its disk; its log has the error")
}

/// A request that could not be decoded. tonic distinguishes the causes by code, and has the sizes only in its text.
pub fn unreadable(refusal: &Status) -> Failure {
    if !matches!(refusal.code(), Code::OutOfRange | Code::ResourceExhausted) {
        let text = "the request could not be read: its bytes are not a message of this method";
        return Failure::new(ErrorReason::RequestMalformed, text);
    }
    let sizes = refusal.message().split(' ').filter_map(|word| word.parse().ok()).collect::<Vec<usize>>();
    match *sizes {
        [bytes, limit] => {
            let text = format!("the request has {bytes} bytes: at most {} are possible", size(limit));
            Failure::new(ErrorReason::RequestTooLarge, text).with("limit", limit)
        }
        _ => Failure::new(ErrorReason::RequestTooLarge, "the request is larger than is possible"),
    }
}

/// Translates the transport's error for a request that it could not decode.
pub fn explained(refusal: &Status) -> Option<Status> {
    // An error of this service has details. Other errors of the transport are not about the bytes of the request.
    let is_refusal = refusal.details().is_empty()
        && matches!(refusal.code(), Code::OutOfRange | Code::ResourceExhausted | Code::Internal);
    is_refusal.then(|| unreadable(refusal).into())
}

/// The deadline of the caller has passed.
pub fn deadline_exceeded() -> Failure {
    Failure::new(
        ErrorReason::DeadlineExceeded,
        "the deadline that the caller set has passed; a stream is resumed by its last cursor",
    )
}

/// The server shuts down, or the connection has reached its maximum age.
pub fn draining() -> Failure {
    Failure::new(
        ErrorReason::Draining,
        "the server closes this connection: connect again; the last cursor resumes",
    )
}

/// The reader took nothing for too long.
pub fn stalled(stall: Duration) -> Failure {
    let text = format!(
        "nothing was taken for {} s though something waited; the last cursor resumes",
        stall.as_secs()
    );
    Failure::new(ErrorReason::Stalled, text)
}

/// The server has as many streams as it allows.
pub fn too_many_streams(limit: usize) -> Failure {
    let text = format!("{limit} streams are open on this server, and no more are possible: try again later");
    Failure::new(ErrorReason::TooManyStreams, text).with("limit", limit)
}

#[cfg(test)]
mod tests;
