//! Walks the tables: each error that a module can give, against the status that its client gets.
//!
//! Long because it has a sample of each error.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{collections::HashSet, io, mem::discriminant};

use tonic::metadata::MetadataMap;

use super::*;
use crate::{
    countdown, lines,
    messages::{self, BatchError, Diverged, Sequence, topic},
};

mod access;

/// A text that must not reach a client.
const SECRET: &str = "/srv/secret";

/// A status, and its details as a client decodes them.
struct Reported {
    status: Status,
    details: ErrorDetails,
}

impl Reported {
    fn of(failure: impl Into<Failure>) -> Self {
        let status = Status::from(failure.into());
        let details = status.get_error_details();
        Self { status, details }
    }

    fn reason(&self) -> &str {
        &self.details.error_info().unwrap().reason
    }

    fn metadata(&self, key: &str) -> Option<&str> {
        self.details.error_info().unwrap().metadata.get(key).map(String::as_str)
    }

    fn field(&self) -> Option<&str> {
        let violations = &self.details.bad_request()?.field_violations;
        assert_eq!(violations.len(), 1);
        Some(&violations[0].field)
    }

    /// Checks the properties of every status.
    fn check(&self) {
        let Self { status, details } = self;
        let info = details.error_info().unwrap();
        assert_eq!(info.domain, DOMAIN);
        let reason = ErrorReason::all().find(|reason| reason.as_str_name() == info.reason).unwrap();
        assert_eq!(status.code(), reason.code(), "{}", info.reason);
        assert_eq!(details.retry_info().is_some(), reason.is_retried(), "{}", info.reason);
        let text = status.message();
        assert!(text.len() > 20 && !text.ends_with('.') && !text.contains(SECRET), "{text}");
        if let Some(bad) = details.bad_request() {
            assert_eq!(bad.field_violations[0].description, text);
            let field = bad.field_violations[0].field.split(['.', '[']).next().unwrap();
            assert!(text.contains(field), "{text} does not name {field}");
        }
        let mut headers = MetadataMap::new().into_headers();
        status.add_header(&mut headers).unwrap();
        let bytes = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum::<usize>();
        assert!(bytes < 8 * 1024, "{bytes} bytes of headers");
    }
}

/// Checks samples of all variants against a table; the tables have no `_` arm, so they miss no variant.
fn walk<E: Into<Failure>>(
    samples: Vec<E>,
    variants: usize,
    table: fn(&E) -> (ErrorReason, Option<&'static str>),
) {
    let seen = samples.iter().map(discriminant).collect::<HashSet<_>>();
    assert_eq!(seen.len(), variants, "a variant has no sample");
    for sample in samples {
        let (reason, field) = table(&sample);
        let reported = Reported::of(sample);
        reported.check();
        assert_eq!((reported.reason(), reported.field()), (reason.as_str_name(), field));
    }
}

fn io_error() -> io::Error {
    io::Error::other(SECRET)
}

#[test]
fn each_error_of_batching_has_its_status() {
    use stream::Error as E;
    let samples = vec![
        E::Limit { limit: 0 },
        E::Heartbeat { heartbeat: Duration::ZERO },
        E::MaxBatch { max_batch: -1 },
    ];
    walk(samples, 3, |error| {
        let field = match error {
            E::Limit { .. } => "limit",
            E::Heartbeat { .. } => "heartbeat",
            E::MaxBatch { .. } => "max_batch",
        };
        (ErrorReason::InvalidField, Some(field))
    });
}

#[test]
fn each_error_of_a_countdown_has_its_status() {
    use countdown::Error as E;
    let (short, long) = (Duration::from_micros(10), Duration::from_secs(86_400 * 4_000));
    let samples = vec![
        E::NoTarget,
        E::SetWithName { field: "step" },
        E::IntervalTooShort { interval: short, min: Duration::from_millis(1) },
        E::TooLong { length: long, max: long },
        E::FromBelowTo { from: 1, to: 2 },
        E::StepTooSmall { step: 0 },
        E::WaitFirstWithUntil,
        E::AlignWithUntil,
        E::TooManyTicks { limit: 1_000_000 },
        E::TooManyNumbers { left: 1 << 40, max: 1 << 31 },
        E::UntilTooFar { ahead: long, max: long },
        E::PositionInvalid("its step is below 1"),
    ];
    walk(samples, 12, |error| match error {
        E::NoTarget => (ErrorReason::InvalidField, Some("target")),
        E::SetWithName { field } => (ErrorReason::InvalidField, Some(field)),
        E::IntervalTooShort { .. } | E::TooLong { .. } | E::TooManyNumbers { .. } => {
            (ErrorReason::InvalidField, Some("interval"))
        }
        E::FromBelowTo { .. } => (ErrorReason::InvalidField, Some("start")),
        E::StepTooSmall { .. } => (ErrorReason::InvalidField, Some("step")),
        E::WaitFirstWithUntil => (ErrorReason::InvalidField, Some("wait_first")),
        E::AlignWithUntil => (ErrorReason::InvalidField, Some("align")),
        E::TooManyTicks { .. } => (ErrorReason::TooManyTicks, None),
        E::UntilTooFar { .. } => (ErrorReason::InvalidField, Some("until_time")),
        E::PositionInvalid(_) => (ErrorReason::CursorMalformed, Some("cursor")),
    });
}

#[test]
fn each_error_of_a_shared_countdown_has_its_status() {
    use countdown::shared::Error as E;
    let long = Duration::from_secs(86_400 * 4_000);
    let mut samples = ["duration", "until_time", "interval", "by"]
        .into_iter()
        .flat_map(|field| [E::NothingLeft { field }, E::TooLong { field, length: long, max: long }])
        .collect::<Vec<_>>();
    samples.extend([
        E::NoTarget,
        E::Name(topic::Error::Reserved),
        E::NotFound,
        E::Exists,
        E::Over { is_cancelled: true },
        E::Over { is_cancelled: false },
        E::VersionMismatch { expected: 1, current: 7 },
        E::TooMany { limit: 5 },
        E::ByZero,
        E::TooManyNumbers { left: 1 << 40, max: 1 << 31 },
        E::Countdown(countdown::Error::StepTooSmall { step: 0 }),
        E::RequestIdLength { bytes: 0 },
        E::OnEnd(messages::Error::Topic(topic::Error::Empty)),
        E::HeaderReserved { name: "countdown-x".repeat(1024) },
        E::Mismatch,
        E::Diverged(Diverged { last_common: Some(7) }),
        E::Ahead { version: 3 },
        E::Log(messages::Error::Full(messages::NeededRoom::default())),
    ]);
    walk(samples, 19, |error| match error {
        E::NoTarget => (ErrorReason::InvalidField, Some("target")),
        E::Name(_) => (ErrorReason::InvalidField, Some("name")),
        E::NotFound => (ErrorReason::CountdownNotFound, None),
        E::Exists => (ErrorReason::CountdownExists, None),
        E::Over { .. } => (ErrorReason::CountdownOver, None),
        E::VersionMismatch { .. } => (ErrorReason::VersionMismatch, None),
        E::TooMany { .. } => (ErrorReason::TooManyCountdowns, None),
        E::TooManyNumbers { .. } | E::ByZero => (ErrorReason::InvalidField, Some("by")),
        E::Countdown(_) => (ErrorReason::InvalidField, Some("step")),
        E::NothingLeft { field } | E::TooLong { field, .. } => (ErrorReason::InvalidField, Some(field)),
        E::RequestIdLength { .. } => (ErrorReason::InvalidField, Some("request_id")),
        E::OnEnd(_) => (ErrorReason::InvalidField, Some("on_end.topic")),
        E::HeaderReserved { .. } => (ErrorReason::InvalidField, Some("on_end.headers")),
        E::Mismatch => (ErrorReason::CursorMismatch, None),
        E::Diverged(_) => (ErrorReason::LogDiverged, None),
        E::Ahead { .. } => (ErrorReason::CursorAhead, None),
        E::Log(_) => (ErrorReason::LogFull, None),
    });
    let mismatch = Reported::of(E::VersionMismatch { expected: 1, current: 7 });
    assert_eq!(mismatch.metadata("current"), Some("7"));
}

#[test]
fn each_error_of_lines_has_its_status() {
    use lines::{Error as E, PatternFault};
    let samples = vec![
        E::PathInvalid { fault: "is empty" },
        E::NotFound { path: "\u{1F4A9}".repeat(1024) },
        E::LineZero { field: "from_line" },
        E::LineZero { field: "until_line" },
        E::NumbersUnknown,
        E::NeedsFollow { field: "partial_flush" },
        E::NotInHistory { field: "last" },
        E::NeedsHistory,
        E::Globs { fault: "has no glob: set at least one".into() },
        E::Glob { index: 0, fault: "is not valid: use `logs/*`".into() },
        E::TooManyWatched { limit: 1_000_000 },
        E::TooManyFiles { limit: 100_000 },
        E::PartialFlush { pause: Duration::ZERO },
        E::DelimiterLength { bytes: 17 },
        E::LineBytes { asked: 15, limit: 1 << 20 },
        E::Pattern { field: "include", fault: PatternFault::Count(65) },
        E::Pattern { field: "include", fault: PatternFault::Size },
        E::Pattern {
            field: "include",
            fault: PatternFault::Syntax { pattern: "a(".into(), fault: "unclosed group".into() },
        },
        E::OffsetBeyondEnd { offset: 9, size: 7 },
        E::Mismatch,
        E::Expired,
        E::PositionInvalid,
        E::Io(io_error()),
    ];
    walk(samples, 20, |error| match error {
        E::PathInvalid { .. } => (ErrorReason::InvalidField, Some("path")),
        E::NotFound { .. } => (ErrorReason::FileNotFound, None),
        E::LineZero { field }
        | E::NeedsFollow { field }
        | E::NotInHistory { field }
        | E::Pattern { field, .. } => (ErrorReason::InvalidField, Some(field)),
        E::Globs { .. } | E::TooManyFiles { .. } => (ErrorReason::InvalidField, Some("globs")),
        E::Glob { .. } => (ErrorReason::InvalidField, Some("globs[0]")),
        E::TooManyWatched { .. } => (ErrorReason::TooManyWatched, None),
        E::NeedsHistory => (ErrorReason::InvalidField, Some("history")),
        E::NumbersUnknown => (ErrorReason::InvalidField, Some("until_line")),
        E::PartialFlush { .. } => (ErrorReason::InvalidField, Some("partial_flush")),
        E::DelimiterLength { .. } => (ErrorReason::InvalidField, Some("delimiter")),
        E::LineBytes { .. } => (ErrorReason::InvalidField, Some("max_line_bytes")),
        E::OffsetBeyondEnd { .. } => (ErrorReason::OffsetBeyondEnd, None),
        E::Mismatch => (ErrorReason::CursorMismatch, None),
        E::Expired => (ErrorReason::CursorExpired, None),
        E::PositionInvalid => (ErrorReason::CursorMalformed, Some("cursor")),
        E::Io(_) => (ErrorReason::ReadError, None),
    });
}

fn sequence(number: u64) -> Sequence {
    Sequence::new(number).unwrap()
}

#[test]
fn each_error_of_messages_has_its_status() {
    use messages::Error as E;
    let samples = vec![
        E::Topic(topic::Error::Reserved),
        E::Pattern { index: 3, error: topic::Error::TailNotLast },
        E::NoPatterns,
        E::TooManyPatterns { count: 65, limit: 64 },
        E::LastTooMany { last: 1_000_001 },
        E::PublishCount { count: 0 },
        E::TooLarge { bytes: 2 << 20, limit: 1 << 20 },
        E::KeyTooLong { bytes: 2_000 },
        E::HeaderNameEmpty,
        E::TooManyHeaders { count: 65 },
        E::MessageIdLength { bytes: 0 },
        E::SequenceMismatch { expected: Sequence::new(7), current: Sequence::new(9) },
        E::TooManyTopics { limit: 5 },
        E::TopicQuota { quota: "a.>".into(), limit: 5 },
        E::StorageQuota { quota: "a.>".into(), limit: 5, used: 4 },
        E::OtherLog,
        E::Removed { oldest: Sequence::new(7), newest: sequence(9), removed_up_to: sequence(6) },
        E::TakenOver { name: "billing".into() },
        E::Consumer(topic::Error::Empty),
        E::NoConsumer,
        E::TooManyConsumers { limit: 5 },
        E::ConsumerConnected,
        E::CommitBehind { sequence: Sequence::new(7), committed: sequence(9) },
        E::NoTopic,
        E::Ttl { ttl: Duration::ZERO },
        E::Ahead { newest: Sequence::new(9) },
        E::Diverged(Diverged { last_common: Some(7) }),
        E::Full(messages::NeededRoom::default()),
        E::Failed,
        E::Closed,
        E::Unreachable,
        E::Unsupported(messages::Unsupported::Purge),
        E::Io(io_error()),
    ];
    walk(samples, 33, |error| match error {
        E::Topic(_) => (ErrorReason::InvalidField, Some("topic")),
        E::Pattern { .. } => (ErrorReason::InvalidField, Some("topics[3]")),
        E::NoPatterns | E::TooManyPatterns { .. } => (ErrorReason::InvalidField, Some("topics")),
        E::LastTooMany { .. } => (ErrorReason::InvalidField, Some("last")),
        E::PublishCount { .. } => (ErrorReason::InvalidField, Some("messages")),
        E::TooLarge { .. } => (ErrorReason::InvalidField, Some("content")),
        E::KeyTooLong { .. } => (ErrorReason::InvalidField, Some("key")),
        E::HeaderNameEmpty | E::TooManyHeaders { .. } => (ErrorReason::InvalidField, Some("headers")),
        E::MessageIdLength { .. } => (ErrorReason::InvalidField, Some("message_id")),
        E::SequenceMismatch { .. } => (ErrorReason::SequenceMismatch, None),
        E::TooManyTopics { .. } | E::TopicQuota { .. } => (ErrorReason::TooManyTopics, None),
        E::StorageQuota { .. } => (ErrorReason::QuotaExceeded, None),
        E::OtherLog => (ErrorReason::CursorMismatch, None),
        E::Removed { .. } => (ErrorReason::CursorExpired, None),
        E::TakenOver { .. } => (ErrorReason::ConsumerTakenOver, None),
        E::Consumer(_) => (ErrorReason::InvalidField, Some("consumer")),
        E::NoConsumer => (ErrorReason::ConsumerNotFound, None),
        E::TooManyConsumers { .. } => (ErrorReason::TooManyConsumers, None),
        E::ConsumerConnected => (ErrorReason::ConsumerConnected, None),
        E::CommitBehind { .. } => (ErrorReason::CommitBehind, None),
        E::NoTopic => (ErrorReason::TopicNotFound, None),
        E::Ttl { .. } => (ErrorReason::InvalidField, Some("ttl")),
        E::Ahead { .. } => (ErrorReason::CursorAhead, None),
        E::Diverged(_) => (ErrorReason::LogDiverged, None),
        E::Full(_) => (ErrorReason::LogFull, None),
        E::Failed => (ErrorReason::LogFailed, None),
        E::Closed => (ErrorReason::Draining, None),
        E::Unreachable => (ErrorReason::ClusterUnreachable, None),
        E::Unsupported(_) => (ErrorReason::Unsupported, None),
        E::Io(_) => (ErrorReason::ReadError, None),
    });
}

#[test]
fn each_fault_of_a_topic_says_what_would_work() {
    use topic::Error as E;
    let samples = [
        E::Empty,
        E::TooLong { bytes: 256 },
        E::EmptyToken,
        E::Character { character: '\u{10FFFF}' },
        E::Wildcard { wildcard: '>' },
        E::PartOfToken { wildcard: '*' },
        E::TailNotLast,
        E::Reserved,
    ];
    for error in samples {
        for reported in [messages::Error::Topic(error), messages::Error::Consumer(error)].map(Reported::of) {
            reported.check();
            assert!(reported.status.message().contains(':'), "{}", reported.status.message());
        }
        // The text for a consumer speaks neither of a topic nor of its limit.
        let reported = Reported::of(messages::Error::Consumer(error));
        assert!(!reported.status.message().contains("topic"), "{}", reported.status.message());
        assert!(!reported.status.message().contains("255"), "{}", reported.status.message());
    }
}

#[test]
fn an_expired_cursor_reports_which_sequences_are_left() {
    let expired = |oldest| {
        let removed = messages::Error::Removed { oldest, newest: sequence(9), removed_up_to: sequence(6) };
        let reported = Reported::of(removed);
        reported.check();
        assert_eq!(reported.metadata("newest"), Some("9"));
        (reported.metadata("oldest").map(str::to_owned), reported.status.message().to_owned())
    };
    let (oldest, text) = expired(Sequence::new(7));
    assert_eq!(oldest.as_deref(), Some("7"));
    assert!(text.contains("up to sequence 6") && text.contains("sequences 7 to 9"), "{text}");
    // A sequence is never 0: without a message in the log there is no oldest one.
    let (oldest, text) = expired(None);
    assert_eq!(oldest, None);
    assert!(text.contains("holds no message") && text.contains("ON_GAP_SKIP"), "{text}");
}

#[test]
fn a_cursor_ahead_of_a_log_that_never_had_a_message_names_no_newest_sequence() {
    let reported = Reported::of(messages::Error::Ahead { newest: None });
    reported.check();
    assert_eq!(reported.metadata("newest"), None);
    assert!(reported.status.message().contains("never had a message"), "{}", reported.status.message());
}

#[test]
fn a_cursor_of_another_history_learns_the_last_common_sequence_where_it_is_known() {
    let of = |last_common| Reported::of(messages::Error::Diverged(Diverged { last_common }));
    let known = of(Some(0));
    known.check();
    assert_eq!(known.metadata("last_common"), Some("0"));
    assert!(known.status.message().contains("ON_GAP_SKIP"), "{}", known.status.message());
    let unknown = of(None);
    unknown.check();
    assert_eq!(unknown.metadata("last_common"), None);
    assert!(!unknown.status.message().contains("ON_GAP_SKIP"), "{}", unknown.status.message());
}

#[test]
fn a_reader_that_is_replaced_learns_the_consumer_and_gets_no_retry_info() {
    let reported = Reported::of(messages::Error::TakenOver { name: "x".repeat(5000) });
    reported.check();
    assert!(reported.status.message().contains("`xxx"), "{}", reported.status.message());
    assert!(reported.details.retry_info().is_none());
}

#[test]
fn each_end_of_a_call_from_outside_has_its_status() {
    let stall = Duration::from_secs(300);
    for failure in [
        deadline_exceeded(),
        draining(),
        stalled(stall),
        request_stalled(stall),
        too_many_streams(100_000),
        buffers_full(1 << 20, true),
        buffers_full(1 << 20, false),
        too_large(2 << 20, 1 << 20),
        too_many_elements("messages[1].headers", "headers", 65, 64),
        malformed("ends within a message"),
    ] {
        Reported::of(failure.clone()).check();
        // The body of a request fails with a status, and the stream that reads it with the failure again.
        let read = Failure::of(&Status::from(failure.clone())).unwrap();
        assert_eq!(format!("{read:?}"), format!("{failure:?}"));
    }
    assert_eq!(Reported::of(buffers_full(9, true)).metadata("limit"), Some("9"));
    assert_eq!(Reported::of(too_many_streams(7)).metadata("limit"), Some("7"));
}

#[test]
fn facts_for_programs_are_in_the_metadata() {
    let reported = Reported::of(lines::Error::OffsetBeyondEnd { offset: 9, size: 7 });
    assert_eq!(reported.metadata("size"), Some("7"));
    let reported = Reported::of(messages::Error::Ahead { newest: Sequence::new(9) });
    assert_eq!(reported.metadata("newest"), Some("9"));
    let reported = Reported::of(messages::Error::SequenceMismatch {
        expected: Sequence::new(7),
        current: Sequence::new(9),
    });
    assert_eq!(reported.metadata("current"), Some("9"));
    let reported = Reported::of(messages::Error::Removed {
        oldest: Sequence::new(7),
        newest: sequence(9),
        removed_up_to: sequence(6),
    });
    assert_eq!((reported.metadata("oldest"), reported.metadata("newest")), (Some("7"), Some("9")));
    let reported =
        Reported::of(messages::Error::CommitBehind { sequence: Sequence::new(7), committed: sequence(9) });
    assert_eq!(reported.metadata("committed"), Some("9"));
    let reported = Reported::of(messages::Error::TooLarge { bytes: 2 << 20, limit: 1 << 20 });
    assert_eq!(reported.metadata("limit"), Some("1048576"));
    let reported = Reported::of(messages::Error::TooManyPatterns { count: 101, limit: 100 });
    assert_eq!(reported.metadata("limit"), Some("100"));
    let (interval, min) = (Duration::from_micros(10), Duration::from_millis(1));
    let reported = Reported::of(countdown::Error::IntervalTooShort { interval, min });
    assert!(reported.details.error_info().unwrap().metadata.is_empty(), "no fact that is undocumented");
}

#[test]
fn a_fault_in_a_batch_names_the_message() {
    let fault = |error| Reported::of(BatchError { index: Some(2), error });
    let reported = fault(messages::Error::Topic(topic::Error::Empty));
    reported.check();
    assert_eq!(reported.field(), Some("messages[2].topic"));
    let reported =
        fault(messages::Error::SequenceMismatch { expected: Sequence::new(7), current: Sequence::new(9) });
    assert_eq!(reported.metadata("index"), Some("2"));
    // These concern no single message.
    assert_eq!(fault(messages::Error::Full(messages::NeededRoom::default())).metadata("index"), None);
    assert_eq!(fault(messages::Error::TooManyTopics { limit: 1 }).metadata("index"), None);
}

#[test]
fn the_error_of_one_message_of_a_publish_stream_has_all_facts_of_the_status_of_publish() {
    let samples = || {
        [
            messages::Error::Topic(topic::Error::Reserved),
            messages::Error::SequenceMismatch { expected: Sequence::new(7), current: Sequence::new(9) },
            messages::Error::TooManyTopics { limit: 3 },
            messages::Error::TopicQuota { quota: "a.>".into(), limit: 3 },
            messages::Error::StorageQuota { quota: "a.>".into(), limit: 3, used: 2 },
            messages::Error::Full(messages::NeededRoom::default()),
        ]
        .map(Failure::from)
    };
    for (failure, same) in samples().into_iter().zip(samples()) {
        let reported = Reported::of(failure);
        let error = same.into_publish_error();
        assert_eq!(Code::from(error.code), reported.status.code());
        assert_eq!(error.reason().as_str_name(), reported.reason());
        assert_eq!(error.message, reported.status.message());
        assert_eq!(error.field, reported.field().unwrap_or_default());
        assert_eq!(error.metadata, reported.details.error_info().unwrap().metadata);
        let delay = reported.details.retry_info().and_then(|info| info.retry_delay);
        assert_eq!(error.retry_delay.map(|delay| Duration::try_from(delay).unwrap()), delay);
    }
}

#[test]
fn exactly_the_temporary_reasons_carry_retry_info() {
    assert_eq!(ErrorReason::all().count(), 42);
    for reason in ErrorReason::all() {
        let details = Status::from(Failure::new(reason, "")).get_error_details();
        assert_eq!(details.error_info().unwrap().reason, reason.as_str_name());
        assert_eq!(details.retry_info().is_some(), reason.is_retried(), "{reason:?}");
    }
}

#[test]
fn a_refusal_of_the_transport_is_explained_and_other_errors_are_unchanged() {
    let explained_status = |status: &Status| Reported {
        details: explained(status).unwrap().get_error_details(),
        status: explained(status).unwrap(),
    };
    let large = explained_status(&Status::out_of_range(
        "Error, decoded message length too large: found 65540 bytes, the limit is: 65536 bytes",
    ));
    large.check();
    assert_eq!((large.reason(), large.metadata("limit")), ("REQUEST_TOO_LARGE", Some("65536")));
    assert!(large.status.message().contains("64 KiB"));
    let malformed = explained_status(&Status::internal("failed to decode Protobuf message"));
    malformed.check();
    assert_eq!(malformed.reason(), "REQUEST_MALFORMED");

    assert!(explained(&Status::unimplemented("")).is_none());
    assert!(explained(&Status::from(Failure::from(lines::Error::Expired))).is_none());
    assert!(explained(&Status::from(Failure::from(lines::Error::Io(io_error())))).is_none());
}
