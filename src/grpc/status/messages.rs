//! Errors of messages.

use super::{
    ErrorReason, Failure, TTL, draining, name_fault, no_storage_left, no_topic_left, quoted, read_error,
    show, size,
};
use crate::messages::{
    BatchError, Diverged, Error, MAX_CONSUMER_BYTES, MAX_HEADERS, MAX_KEY_BYTES, MAX_MESSAGE_ID_BYTES,
    NeededRoom, Sequence,
};

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Topic(error) => Self::field("topic", error.to_string()),
            Error::Pattern { index, error } => Self::field(&format!("topics[{index}]"), error.to_string()),
            Error::NoPatterns => {
                Self::field("topics", "is empty: give one or more patterns, as in `orders.>`")
            }
            Error::TooManyPatterns { count, limit } => {
                let text = format!("has {count} patterns: at most {limit} are allowed");
                Self::field("topics", text).with("limit", limit)
            }
            Error::LastTooMany { last } => {
                Self::field("last", format!("is {last}: it must be from 0 to 1,000,000"))
            }
            Error::PublishCount { count } => {
                Self::field("messages", format!("has {count} messages: it must have from 1 to 10,000"))
            }
            Error::TooLarge { bytes, limit } => {
                let limit_text = size(limit);
                let text = format!(
                    "makes the message too large: payload, key and headers have {bytes} bytes, and at most \
                     {limit_text} are allowed",
                );
                Self::field("content", text).with("limit", limit)
            }
            Error::KeyTooLong { bytes } => {
                Self::field("key", format!("has {bytes} bytes: at most {} are allowed", size(MAX_KEY_BYTES)))
            }
            Error::HeaderNameEmpty => {
                Self::field("headers", "has a header with an empty name: give each header a name")
            }
            Error::TooManyHeaders { count } => {
                Self::field("headers", format!("has {count} headers: at most {MAX_HEADERS} are allowed"))
            }
            Error::MessageIdLength { bytes } => {
                let text = format!("has {bytes} bytes: it must have from 1 to {MAX_MESSAGE_ID_BYTES}");
                Self::field("message_id", text)
            }
            Error::SequenceMismatch { expected, current } => sequence_mismatch(expected, current),
            Error::TooManyTopics { limit } => {
                let text = format!("the server's limit of {limit} topics is reached: use an existing topic");
                Self::new(ErrorReason::TooManyTopics, text).with("limit", limit)
            }
            Error::TopicQuota { quota, limit } => no_topic_left(&quota, limit),
            Error::StorageQuota { quota, limit, used } => no_storage_left(&quota, limit, used),
            Error::OtherLog => Self::new(
                ErrorReason::CursorMismatch,
                "the cursor belongs to another log: send it to the server that it came from, or start without it",
            ),
            Error::Removed { oldest, newest, removed_up_to } => removed(oldest, newest, removed_up_to),
            Error::TakenOver { name } => taken_over(&name),
            Error::Consumer(error) => {
                Self::field("consumer", name_fault(error, MAX_CONSUMER_BYTES, "billing.eu"))
            }
            Error::TooManyConsumers { limit } => {
                let text = format!(
                    "the server's limit of {limit} consumers is reached: delete one with DeleteConsumer, or use an \
                     existing one"
                );
                Self::new(ErrorReason::TooManyConsumers, text).with("limit", limit)
            }
            Error::ConsumerConnected => Self::new(
                ErrorReason::ConsumerConnected,
                "a reader is connected as this consumer, and its next commit would undo the call: end the reader first",
            ),
            Error::NoConsumer => Self::new(
                ErrorReason::ConsumerNotFound,
                "there is no consumer of this name: ListConsumers lists the consumers",
            ),
            Error::CommitBehind { sequence, committed } => commit_behind(sequence, committed),
            Error::NoTopic => Self::new(
                ErrorReason::TopicNotFound,
                "the log has never had messages of this topic, or nothing of them is left: ListTopics lists the topics that have some",
            ),
            Error::Ttl { ttl } => Self::field("ttl", format!("is {}: {TTL}", show(ttl))),
            Error::Diverged(it) => diverged(it),
            Error::Ahead { newest } => ahead(newest),
            Error::Full(room) => full(room),
            Error::Failed => Self::new(
                ErrorReason::LogFailed,
                "a write to the log failed, and the log takes no message until the server is restarted; whether this \
                 message was published is unknown",
            ),
            Error::Closed => draining(),
            Error::Unreachable => Self::new(
                ErrorReason::ClusterUnreachable,
                "the cluster that stores the messages does not answer; whether this message was published is unknown: \
                 publish it again with the same `message_id`",
            ),
            Error::Unsupported(what) => Self::new(
                ErrorReason::Unsupported,
                format!("this server keeps messages in a cluster, without {what}"),
            ),
            Error::Io(error) => read_error(&error),
        }
    }
}

impl From<BatchError> for Failure {
    fn from(error: BatchError) -> Self {
        let BatchError { index, error } = error;
        // Other errors concern the log, and so the whole batch.
        let is_of_one = matches!(
            error,
            Error::SequenceMismatch { .. } | Error::TopicQuota { .. } | Error::StorageQuota { .. }
        );
        let failure = Self::from(error);
        match index {
            Some(index) if failure.field.is_some() => failure.within(&format!("messages[{index}]")),
            Some(index) if is_of_one => failure.with("index", index),
            _ => failure,
        }
    }
}

/// An optimistic publish that lost. In the metadata as in the request, 0 is a topic without a message.
fn sequence_mismatch(expected: Option<Sequence>, current: Option<Sequence>) -> Failure {
    let expected = match expected {
        None => "no message".into(),
        Some(expected) => format!("sequence {expected}"),
    };
    let found = match current {
        None => "the topic holds no message".into(),
        Some(current) => format!("the last message of the topic has sequence {current}"),
    };
    let text = format!(
        "expected_sequence does not match: {expected} was expected, but {found}; read the topic, and publish again if it still applies"
    );
    let current = current.map_or(0, Sequence::get);
    Failure::new(ErrorReason::SequenceMismatch, text).with("current", current)
}

fn removed(oldest: Option<Sequence>, newest: Sequence, removed_up_to: Sequence) -> Failure {
    let left = match oldest {
        None => "the log holds no message now".into(),
        Some(oldest) => format!("the log holds sequences {oldest} to {newest}"),
    };
    let text = format!(
        "messages up to sequence {removed_up_to} were removed before they were read, and {left}: start without the \
         cursor, or set `on_gap` to ON_GAP_SKIP to continue after an event that reports the gap",
    );
    let failure = Failure::new(ErrorReason::CursorExpired, text).with("newest", newest);
    match oldest {
        Some(oldest) => failure.with("oldest", oldest),
        None => failure,
    }
}

fn diverged(diverged: Diverged) -> Failure {
    let (agree, remedy) = match diverged.last_common {
        None => (
            "where the two part is not known".into(),
            "start without the cursor, and take what was read since for another history",
        ),
        Some(last) => (
            format!("the two agree up to sequence {last}"),
            "start without the cursor, or set `on_gap` to ON_GAP_SKIP to continue after that sequence",
        ),
    };
    let text = format!(
        "the cursor is from another history of the log: a copy of its data was restored, or two copies went on; \
         {agree}: {remedy}"
    );
    diverged_from(diverged, text)
}

/// In the metadata, 0 is before the first message.
pub fn diverged_from(Diverged { last_common }: Diverged, text: String) -> Failure {
    let failure = Failure::new(ErrorReason::LogDiverged, text);
    match last_common {
        Some(last_common) => failure.with("last_common", last_common),
        None => failure,
    }
}

fn full(NeededRoom { bytes, files }: NeededRoom) -> Failure {
    let file = if files == 0 { "" } else { " and one more file" };
    let text = format!(
        "the server's disk is full, and nothing was published (a purge is not recorded yet): it needs {bytes} free \
         bytes{file}; try again when there is room"
    );
    Failure::new(ErrorReason::LogFull, text).with("needed_bytes", bytes).with("needed_files", files)
}

fn ahead(newest: Option<Sequence>) -> Failure {
    let holds = match newest {
        Some(newest) => format!("whose newest sequence is {newest}"),
        None => "which never had a message".into(),
    };
    let text = format!("the cursor is ahead of the log, {holds}: start without the cursor");
    let failure = Failure::new(ErrorReason::CursorAhead, text);
    match newest {
        Some(newest) => failure.with("newest", newest),
        None => failure,
    }
}

/// Without RetryInfo: two clients that resume would take over from each other without end.
fn taken_over(consumer: &str) -> Failure {
    let text = format!(
        "another reader opened a stream as the consumer {}: do not resume this one, or the two would replace each other",
        quoted(consumer)
    );
    Failure::new(ErrorReason::ConsumerTakenOver, text)
}

fn commit_behind(sequence: Option<Sequence>, committed: Sequence) -> Failure {
    let at = match sequence {
        None => "at the start of the log".into(),
        Some(sequence) => format!("at sequence {sequence}"),
    };
    let text = format!(
        "the cursor is {at}, and the consumer is already at sequence {committed}: commit a later cursor, or set \
         `rewind` to move the consumer back",
    );
    Failure::new(ErrorReason::CommitBehind, text).with("committed", committed)
}
