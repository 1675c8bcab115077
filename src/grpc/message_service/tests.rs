//! The translation of requests to queries, and of results to responses.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, UNIX_EPOCH};

use futures::StreamExt;

use super::*;
use crate::{
    messages::{Log, Position},
    proto::{ErrorReason, messages_request::Start as Asked},
    stream::Batching,
};

fn asked(request: proto::MessagesRequest) -> Query {
    query(request, Batching::default()).unwrap()
}

fn all() -> proto::MessagesRequest {
    proto::MessagesRequest { topics: vec![">".into()], ..Default::default() }
}

/// A position in a log without messages.
async fn position() -> Position {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path(), messages::Config::default()).unwrap().0;
    let query = Query {
        within: None,
        topics: vec![">".into()],
        start: Start::New,
        stop: Stop::default(),
        on_gap: OnGap::Fail,
        consumer: None,
        batching: Batching::default(),
    };
    let mut batches = Box::pin(log.subscribe(query).await.unwrap());
    batches.next().await.unwrap().unwrap().position
}

#[test]
fn a_start_that_is_false_means_the_same_as_none() {
    let start = |start| asked(proto::MessagesRequest { start, ..all() }).start;
    for unset in [None, Some(Asked::Earliest(false)), Some(Asked::LastPerTopic(false))] {
        assert!(matches!(start(unset), Start::New), "{unset:?}");
    }
    assert!(matches!(start(Some(Asked::Earliest(true))), Start::Earliest));
    assert!(matches!(start(Some(Asked::LastPerTopic(true))), Start::LastPerTopic));
}

#[test]
fn a_gap_ends_the_stream_unless_the_request_skips_gaps() {
    let on_gap =
        |on_gap: proto::OnGap| asked(proto::MessagesRequest { on_gap: on_gap.into(), ..all() }).on_gap;
    assert_eq!(on_gap(proto::OnGap::Unspecified), OnGap::Fail);
    assert_eq!(on_gap(proto::OnGap::Fail), OnGap::Fail);
    assert_eq!(on_gap(proto::OnGap::Skip), OnGap::Skip);
}

#[tokio::test]
async fn a_cursor_wins_over_the_start_and_the_consumer_stays() {
    let expected = position().await;
    let request = proto::MessagesRequest {
        start: Some(Asked::LastPerTopic(true)),
        cursor: Some(cursor::encode(&expected)),
        consumer: Some("billing.eu".into()),
        ..all()
    };
    let query = asked(request.clone());
    assert!(matches!(query.start, Start::Resume(position) if position == expected));
    assert_eq!(query.consumer.as_deref(), Some("billing.eu"));

    let query = asked(proto::MessagesRequest { cursor: None, ..request });
    assert!(matches!(query.start, Start::LastPerTopic));
    assert_eq!(query.consumer.as_deref(), Some("billing.eu"));
    assert_eq!(asked(all()).consumer, None);
}

#[test]
fn a_gap_is_reported_with_its_range_and_its_reason() {
    use proto::MessageGapReason as Reason;
    let [first, last] = [3, 5].map(|number| Sequence::new(number).unwrap());
    let range = SequenceRange { first, last };
    for (gap_event, reason) in [
        (Event::Damaged(range), Reason::Damaged),
        (Event::Removed(range), Reason::Removed),
        (Event::Diverged(range), Reason::Diverged),
    ] {
        let gap =
            proto::MessageGap { first_sequence: Some(3), last_sequence: Some(5), reason: reason.into() };
        assert_eq!(event(&gap_event).event, Some(proto::message_stream_event::Event::Gap(gap)));
    }
}

#[tokio::test]
async fn a_ttl_is_accepted_within_its_range_and_an_error_names_the_range() {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path(), messages::Config::default()).unwrap().0;
    let ttl = |seconds, nanos| {
        let ttl = Some(prost_types::Duration { seconds, nanos });
        let message = new_message(proto::PublishRequest { topic: "a".into(), ttl, ..Default::default() })?;
        log.check(&message).map_err(Failure::from)?;
        Ok::<_, Failure>(message.ttl)
    };
    let ten_years = *messages::TTLS.end();
    let seconds = ten_years.as_secs().cast_signed();
    assert_eq!(ttl(0, 1_000_000).unwrap(), Some(Duration::from_millis(1)));
    assert_eq!(ttl(seconds, 0).unwrap(), Some(ten_years));
    assert_eq!(new_message(proto::PublishRequest::default()).unwrap().ttl, None);
    for (seconds, nanos, shown) in [(0, 0, "is 0 ms"), (-1, 0, "is -1 s"), (0, 1_000, "is 1µs")] {
        let error = ttl(seconds, nanos).unwrap_err().into_publish_error();
        assert_eq!((error.reason(), error.field.as_str()), (ErrorReason::InvalidField, "ttl"));
        assert!(
            error.message.contains(shown) && error.message.contains("from 1 ms to 10 years"),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_listed_consumer_has_a_cursor_that_the_server_accepts() {
    let position = position().await;
    let info = ConsumerInfo {
        name: "billing".into(),
        position: Ok(position.clone()),
        time: UNIX_EPOCH + Duration::from_secs(7),
        head: Sequence::new(9),
        is_connected: true,
    };
    let shown = consumer(info);
    assert_eq!(field::position::<Position>(&shown.cursor).unwrap(), position);
    let facts = (shown.name.as_str(), shown.sequence, shown.head_sequence, shown.connected);
    assert_eq!(facts, ("billing", Some(0), Some(9), true));
    assert_eq!(shown.commit_time, Some(prost_types::Timestamp { seconds: 7, nanos: 0 }));
    assert_eq!(shown.fault, "");
}

#[test]
fn a_consumer_whose_commit_cannot_be_read_shows_why() {
    let info = ConsumerInfo {
        name: "billing".into(),
        position: Err(cursor::Error::Version { version: 9, newest: 1 }),
        time: UNIX_EPOCH,
        head: Sequence::new(9),
        is_connected: false,
    };
    let shown = consumer(info);
    assert!(shown.fault.contains("a newer server"), "{shown:?}");
    assert_eq!((shown.cursor.as_str(), shown.sequence, shown.head_sequence), ("", Some(0), Some(9)));
}

#[test]
fn a_consumer_is_set_to_a_start_that_the_request_names() {
    use set_consumer_request::Start as Asked;
    for unset in [None, Some(Asked::Earliest(false)), Some(Asked::FromNow(false))] {
        let error = start_of_consumer(unset).unwrap_err().into_publish_error();
        assert_eq!((error.reason(), error.field.as_str()), (ErrorReason::InvalidField, "start"));
        assert!(error.message.contains("`from_now`"), "{error:?}");
    }
    let error = start_of_consumer(Some(Asked::FromSequence(0))).unwrap_err().into_publish_error();
    assert_eq!(error.field, "from_sequence");
    let time = prost_types::Timestamp { seconds: -1, nanos: 0 };
    let error = start_of_consumer(Some(Asked::FromTime(time))).unwrap_err().into_publish_error();
    assert_eq!(error.field, "from_time");
    assert!(matches!(start_of_consumer(Some(Asked::FromNow(true))), Ok(Start::New)));
    assert!(matches!(start_of_consumer(Some(Asked::Earliest(true))), Ok(Start::Earliest)));
}
