//! Walks the tables: each error that a module can give, against what its client is told.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{collections::HashSet, io, mem::discriminant};

use tonic::metadata::MetadataMap;

use super::*;
use crate::messages::{Sequence, topic};

/// What must not reach a client.
const SECRET: &str = "/srv/secret";

/// What a client reads out of a status.
struct Told {
    status: Status,
    details: ErrorDetails,
}

impl Told {
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

    /// What holds for every status.
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
        let told = Told::of(sample);
        told.check();
        assert_eq!((told.reason(), told.field()), (reason.as_str_name(), field));
    }
}

fn io_error() -> io::Error {
    io::Error::other(SECRET)
}

#[test]
fn every_error_of_a_batching_is_told() {
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
fn every_error_of_a_countdown_is_told() {
    use countdown::Error as E;
    let (short, long) = (Duration::from_micros(10), Duration::from_secs(86_400 * 4_000));
    let samples = vec![
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
    walk(samples, 10, |error| match error {
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
fn every_error_of_a_shared_countdown_is_told() {
    use countdown::shared::Error as E;
    let long = Duration::from_secs(86_400 * 4_000);
    let mut samples = ["duration", "until_time", "interval", "by"]
        .into_iter()
        .flat_map(|field| [E::NothingLeft { field }, E::TooLong { field, length: long, max: long }])
        .collect::<Vec<_>>();
    samples.extend([
        E::Name(topic::Error::Reserved),
        E::NotFound,
        E::Exists,
        E::Over { is_cancelled: true },
        E::Over { is_cancelled: false },
        E::VersionMismatch { expected: 1, current: 7 },
        E::TooMany { limit: 5 },
        E::TooManyNumbers { left: 1 << 40, max: 1 << 31 },
        E::Countdown(countdown::Error::StepTooSmall { step: 0 }),
        E::RequestIdLength { bytes: 0 },
        E::OnEnd(messages::Error::Topic(topic::Error::Empty)),
        E::HeaderReserved { name: "countdown-x".repeat(1024) },
        E::Mismatch,
        E::Ahead { version: 3 },
        E::Log(messages::Error::Full),
    ]);
    walk(samples, 16, |error| match error {
        E::Name(_) => (ErrorReason::InvalidField, Some("name")),
        E::NotFound => (ErrorReason::CountdownNotFound, None),
        E::Exists => (ErrorReason::CountdownExists, None),
        E::Over { .. } => (ErrorReason::CountdownOver, None),
        E::VersionMismatch { .. } => (ErrorReason::VersionMismatch, None),
        E::TooMany { .. } => (ErrorReason::TooManyCountdowns, None),
        E::TooManyNumbers { .. } => (ErrorReason::InvalidField, Some("by")),
        E::Countdown(_) => (ErrorReason::InvalidField, Some("step")),
        E::NothingLeft { field } | E::TooLong { field, .. } => (ErrorReason::InvalidField, Some(field)),
        E::RequestIdLength { .. } => (ErrorReason::InvalidField, Some("request_id")),
        E::OnEnd(_) => (ErrorReason::InvalidField, Some("on_end.topic")),
        E::HeaderReserved { .. } => (ErrorReason::InvalidField, Some("on_end.headers")),
        E::Mismatch => (ErrorReason::CursorMismatch, None),
        E::Ahead { .. } => (ErrorReason::CursorAhead, None),
        E::Log(_) => (ErrorReason::LogFull, None),
    });
    let mismatch = Told::of(E::VersionMismatch { expected: 1, current: 7 });
    assert_eq!(mismatch.metadata("current"), Some("7"));
}

#[test]
fn every_error_of_lines_is_told() {
    use lines::Error as E;
    let samples = vec![
        E::PathInvalid { fault: "is empty" },
        E::NotFound { path: "\u{1F4A9}".repeat(1024) },
        E::LineZero,
        E::NumbersUnknown,
        E::NeedsFollow { field: "partial_flush" },
        E::PartialFlush { pause: Duration::ZERO },
        E::DelimiterLength { bytes: 17 },
        E::LineBytes { asked: -1, limit: 1 << 20 },
        E::OffsetBeyondEnd { offset: 9, size: 7 },
        E::Mismatch,
        E::Expired,
        E::PositionInvalid,
        E::Io(io_error()),
    ];
    walk(samples, 13, |error| match error {
        E::PathInvalid { .. } => (ErrorReason::InvalidField, Some("path")),
        E::NotFound { .. } => (ErrorReason::FileNotFound, None),
        E::LineZero => (ErrorReason::InvalidField, Some("from_line")),
        E::NumbersUnknown => (ErrorReason::InvalidField, Some("until_line")),
        E::NeedsFollow { field } => (ErrorReason::InvalidField, Some(field)),
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
fn every_error_of_messages_is_told() {
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
        E::OtherLog,
        E::Removed { oldest: Sequence::new(7), newest: sequence(9), removed_up_to: sequence(6) },
        E::TakenOver { name: "billing".into() },
        E::Consumer(topic::Error::Empty),
        E::NoConsumer,
        E::CommitBehind { sequence: Sequence::new(7), committed: sequence(9) },
        E::NoTopic,
        E::Ttl { ttl: Duration::ZERO },
        E::Ahead { newest: Sequence::new(9) },
        E::Full,
        E::Failed,
        E::Closed,
        E::Io(io_error()),
    ];
    walk(samples, 26, |error| match error {
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
        E::TooManyTopics { .. } => (ErrorReason::TooManyTopics, None),
        E::OtherLog => (ErrorReason::CursorMismatch, None),
        E::Removed { .. } => (ErrorReason::CursorExpired, None),
        E::TakenOver { .. } => (ErrorReason::ConsumerTakenOver, None),
        E::Consumer(_) => (ErrorReason::InvalidField, Some("consumer")),
        E::NoConsumer => (ErrorReason::ConsumerNotFound, None),
        E::CommitBehind { .. } => (ErrorReason::CommitBehind, None),
        E::NoTopic => (ErrorReason::TopicNotFound, None),
        E::Ttl { .. } => (ErrorReason::InvalidField, Some("ttl")),
        E::Ahead { .. } => (ErrorReason::CursorAhead, None),
        E::Full => (ErrorReason::LogFull, None),
        E::Failed => (ErrorReason::LogFailed, None),
        E::Closed => (ErrorReason::Draining, None),
        E::Io(_) => (ErrorReason::ReadError, None),
    });
}

#[test]
fn every_fault_of_a_topic_says_what_would_work() {
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
        for told in [messages::Error::Topic(error), messages::Error::Consumer(error)].map(Told::of) {
            told.check();
            assert!(told.status.message().contains(':'), "{}", told.status.message());
        }
        // A consumer is no topic, and no message.
        let told = Told::of(messages::Error::Consumer(error));
        assert!(!told.status.message().contains("topic"), "{}", told.status.message());
        assert!(!told.status.message().contains("255"), "{}", told.status.message());
    }
}

#[test]
fn a_reader_behind_what_was_removed_is_told_what_is_left() {
    let text = |oldest| {
        let told = Told::of(messages::Error::Removed {
            oldest: Sequence::new(oldest),
            newest: sequence(9),
            removed_up_to: sequence(6),
        });
        told.check();
        told.status.message().to_owned()
    };
    assert!(text(7).contains("up to sequence 6") && text(7).contains("sequences 7 to 9"), "{}", text(7));
    assert!(text(0).contains("holds no message") && text(0).contains("ON_GAP_SKIP"), "{}", text(0));
}

#[test]
fn a_consumer_that_was_taken_over_is_named_and_no_client_resumes_it() {
    let told = Told::of(messages::Error::TakenOver { name: "x".repeat(5000) });
    told.check();
    assert!(told.status.message().contains("`xxx"), "{}", told.status.message());
    assert!(told.details.retry_info().is_none());
}

#[test]
fn what_ends_a_call_from_outside_is_told() {
    for failure in
        [deadline_exceeded(), draining(), stalled(Duration::from_secs(300)), too_many_streams(100_000)]
    {
        Told::of(failure).check();
    }
    assert_eq!(Told::of(too_many_streams(7)).metadata("limit"), Some("7"));
}

#[test]
fn programs_get_the_facts_too() {
    let told = Told::of(lines::Error::OffsetBeyondEnd { offset: 9, size: 7 });
    assert_eq!(told.metadata("size"), Some("7"));
    let told = Told::of(messages::Error::Ahead { newest: Sequence::new(9) });
    assert_eq!(told.metadata("newest"), Some("9"));
    let told =
        Told::of(messages::Error::SequenceMismatch { expected: Sequence::new(7), current: Sequence::new(9) });
    assert_eq!(told.metadata("current"), Some("9"));
    let told = Told::of(messages::Error::Removed {
        oldest: Sequence::new(7),
        newest: sequence(9),
        removed_up_to: sequence(6),
    });
    assert_eq!((told.metadata("oldest"), told.metadata("newest")), (Some("7"), Some("9")));
    let told = Told::of(messages::Error::CommitBehind { sequence: Sequence::new(7), committed: sequence(9) });
    assert_eq!(told.metadata("committed"), Some("9"));
    let told = Told::of(messages::Error::TooLarge { bytes: 2 << 20, limit: 1 << 20 });
    assert_eq!(told.metadata("limit"), Some("1048576"));
}

#[test]
fn a_fault_within_a_batch_names_the_message() {
    let fault = |error| Told::of(BatchError { index: Some(2), error });
    let told = fault(messages::Error::Topic(topic::Error::Empty));
    told.check();
    assert_eq!(told.field(), Some("messages[2].topic"));
    let told =
        fault(messages::Error::SequenceMismatch { expected: Sequence::new(7), current: Sequence::new(9) });
    assert_eq!(told.metadata("index"), Some("2"));
    // No message is to blame for these.
    assert_eq!(fault(messages::Error::Full).metadata("index"), None);
    assert_eq!(fault(messages::Error::TooManyTopics { limit: 1 }).metadata("index"), None);
}

#[test]
fn the_error_of_one_message_of_a_flow_holds_all_facts_of_the_status_that_publish_gives() {
    let samples = || {
        [
            messages::Error::Topic(topic::Error::Reserved),
            messages::Error::SequenceMismatch { expected: Sequence::new(7), current: Sequence::new(9) },
            messages::Error::TooManyTopics { limit: 3 },
            messages::Error::Full,
        ]
        .map(Failure::from)
    };
    for (failure, same) in samples().into_iter().zip(samples()) {
        let told = Told::of(failure);
        let error = same.into_publish_error();
        assert_eq!(Code::from(error.code), told.status.code());
        assert_eq!(error.reason().as_str_name(), told.reason());
        assert_eq!(error.message, told.status.message());
        assert_eq!(error.field, told.field().unwrap_or_default());
        assert_eq!(error.metadata, told.details.error_info().unwrap().metadata);
        let delay = told.details.retry_info().and_then(|info| info.retry_delay);
        assert_eq!(error.retry_delay.map(|delay| Duration::try_from(delay).unwrap()), delay);
    }
}

#[test]
fn exactly_the_reasons_that_pass_by_themselves_carry_retry_info() {
    assert_eq!(ErrorReason::all().count(), 28);
    for reason in ErrorReason::all() {
        let details = Status::from(Failure::new(reason, "")).get_error_details();
        assert_eq!(details.error_info().unwrap().reason, reason.as_str_name());
        assert_eq!(details.retry_info().is_some(), reason.is_retried(), "{reason:?}");
    }
}

#[test]
fn a_refusal_of_the_transport_is_explained_and_everything_else_is_left_as_it_is() {
    let told = |status: &Status| Told {
        details: explained(status).unwrap().get_error_details(),
        status: explained(status).unwrap(),
    };
    let large = told(&Status::out_of_range(
        "Error, decoded message length too large: found 65540 bytes, the limit is: 65536 bytes",
    ));
    large.check();
    assert_eq!((large.reason(), large.metadata("limit")), ("REQUEST_TOO_LARGE", Some("65536")));
    assert!(large.status.message().contains("64 KiB"));
    let malformed = told(&Status::internal("failed to decode Protobuf message"));
    malformed.check();
    assert_eq!(malformed.reason(), "REQUEST_MALFORMED");

    assert!(explained(&Status::unimplemented("")).is_none());
    assert!(explained(&Status::from(Failure::from(lines::Error::Expired))).is_none());
    assert!(explained(&Status::from(Failure::from(lines::Error::Io(io_error())))).is_none());
}
