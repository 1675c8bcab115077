//! Rights that end while streams are open: each stream ends with the reason, and its last cursor resumes without a gap.

use std::{
    collections::BTreeSet,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use futures::{Stream, StreamExt, poll, stream};
use http::uri::PathAndQuery;
use perennial::{
    access::tokens,
    client::{Client, Credentials, Error, Notice, Token},
    proto::{
        CountdownRequest, CountdownResponse, MessagesRequest, OnLag, PublishRequest, PublishResponse,
        countdown_request::Target, file_change::Change, message_stream_event::Event, messages_request::Start,
        publish_result::Outcome,
    },
};
use tokio::sync::oneshot;
use tonic::{Code, Request, client::Grpc};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;

use crate::{
    harness::soon,
    house::{House, RULES},
};

type Ticks = Pin<Box<dyn Stream<Item = Result<CountdownResponse, Error>> + Send>>;

/// A countdown that does not end during a test.
fn countdown() -> CountdownRequest {
    CountdownRequest {
        target: Some(Target::Start(1_000_000)),
        interval: Some(prost_types::Duration { seconds: 0, nanos: 5_000_000 }),
        on_lag: OnLag::Burst.into(),
        ..Default::default()
    }
}

fn message(topic: &str) -> PublishRequest {
    PublishRequest { topic: topic.into(), ..Default::default() }
}

fn with_token(house: &House, token: &str) -> Client {
    let token = Some(Token::Text(token.into()));
    Client::with_credentials(&house.server.url(), Credentials { token, ..Credentials::default() }).unwrap()
}

/// Reads a countdown until it fails: the numbers, the last cursor and the reason.
async fn read_to_the_end(mut ticks: Ticks) -> (Vec<i32>, String, String) {
    let (mut numbers, mut cursor) = (Vec::new(), String::new());
    loop {
        match soon("a response", ticks.next()).await.unwrap() {
            Ok(response) => {
                numbers.extend(response.ticks.iter().filter_map(|tick| tick.remaining));
                cursor = response.cursor;
            }
            Err(error) => return (numbers, cursor, error.reason().unwrap_or_default().to_owned()),
        }
    }
}

/// Checks that a stream continues with the number after these.
async fn continues(client: &Client, cursor: String, numbers: &[i32]) {
    let mut ticks =
        Box::pin(client.countdown(CountdownRequest { cursor: Some(cursor), ..countdown() }).responses());
    let next = loop {
        let response = soon("a response", ticks.next()).await.unwrap().unwrap();
        if let Some(tick) = response.ticks.first() {
            break tick.remaining;
        }
    };
    assert!(numbers.windows(2).all(|pair| pair[0] == pair[1] + 1) && !numbers.is_empty());
    assert_eq!(next, numbers.last().map(|last| last - 1));
}

#[tokio::test]
async fn streams_of_a_revoked_token_end_and_resume_with_another_token() {
    let house = House::new();
    let (clock, other) = (house.client(Some("clock")), house.client(Some("operator")));
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut ticks: Ticks = Box::pin(clock.countdown(countdown()).responses());
        soon("a response", ticks.next()).await.unwrap().unwrap();
        streams.push(tokio::spawn(read_to_the_end(ticks)));
    }
    let mut kept: Ticks = Box::pin(other.countdown(countdown()).responses());
    tokens::revoke(&house.tokens_file(), "clock").unwrap();
    for stream in streams {
        let (numbers, cursor, reason) = soon("the end of a stream", stream).await.unwrap();
        assert_eq!(reason, "CREDENTIALS_REVOKED");
        continues(&other, cursor, &numbers).await;
    }
    // Streams of other callers go on.
    for _ in 0..20 {
        soon("a response", kept.next()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_stream_ends_when_its_token_expires_and_resumes_with_another_one() {
    let house = House::new();
    let expires = SystemTime::now() + Duration::from_secs(4);
    let token =
        tokens::add(&house.tokens_file(), "clock", Vec::new(), Some(expires.try_into().unwrap())).unwrap();
    house.server.wait_for_log("the files of access are in use");
    let ticks = Box::pin(with_token(&house, token.expose()).countdown(countdown()).responses());
    let (numbers, cursor, reason) = read_to_the_end(ticks).await;
    assert_eq!(reason, "CREDENTIALS_EXPIRED");
    assert!(SystemTime::now() + Duration::from_secs(1) > expires);
    continues(&house.client(Some("clock")), cursor, &numbers).await;
}

#[tokio::test]
async fn a_stream_ends_when_the_rule_is_gone_that_allowed_it() {
    let house = House::new();
    let mut ticks: Ticks = Box::pin(house.client(Some("clock")).countdown(countdown()).responses());
    soon("a response", ticks.next()).await.unwrap().unwrap();
    house.write_rules(&RULES.replace("\"count\", ", ""));
    let (numbers, cursor, reason) = read_to_the_end(ticks).await;
    assert_eq!(reason, "ACCESS_DENIED");
    house.write_rules(RULES);
    house.server.wait_for_log("the files of access are in use");
    house.server.wait_for_log("the files of access are in use");
    continues(&house.client(Some("clock")), cursor, &numbers).await;
}

#[tokio::test]
async fn a_subscription_resumes_by_itself_with_another_part_after_the_rules_have_changed() {
    let house = House::new();
    let (operator, notices) = (house.client(Some("operator")), Arc::new(Mutex::new(Vec::new())));
    let seen = notices.clone();
    let reader = house.client(Some("reader")).with_observer(move |notice| {
        if let Notice::Interrupted { error, .. } = notice {
            seen.lock().unwrap().push(error.reason().unwrap_or_default().to_owned());
        }
    });
    let publish = async |topic: &str| {
        operator.publish_batch(vec![message(topic)]).await.unwrap();
    };
    publish("orders.1").await;
    publish("bills.2").await;
    let request = MessagesRequest {
        topics: vec![">".into()],
        start: Some(Start::Earliest(true)),
        ..Default::default()
    };
    let mut responses = Box::pin(reader.messages(request).responses());
    let (mut topics, mut parts) = (Vec::new(), Vec::new());
    let mut next = async |topics: &mut Vec<String>, parts: &mut Vec<String>| {
        let response = soon("a response", responses.next()).await.unwrap().unwrap();
        topics.extend(response.messages.into_iter().map(|message| message.topic));
        for event in response.events {
            if let Some(Event::Narrowed(event)) = event.event {
                parts.push(event.topics.join(" "));
            }
        }
    };
    while topics.is_empty() {
        next(&mut topics, &mut parts).await;
    }
    house.write_rules(&RULES.replace("\"state.*\"", "\"bills.*\""));
    while parts.len() < 2 {
        next(&mut topics, &mut parts).await;
    }
    publish("bills.3").await;
    publish("state.4").await;
    publish("orders.5").await;
    while topics.len() < 3 {
        next(&mut topics, &mut parts).await;
    }
    assert_eq!(topics, ["orders.1", "bills.3", "orders.5"]);
    assert_eq!(parts, ["orders.> state.*", "orders.> bills.*"]);
    assert_eq!(*notices.lock().unwrap(), ["ACCESS_CHANGED"]);
}

#[tokio::test]
async fn a_stream_of_files_resumes_by_itself_with_the_files_that_may_be_seen_after_the_rules_have_changed() {
    let house = House::new();
    for name in ["a.log", "a.txt"] {
        std::fs::write(house.server.log_file(name), "1\n").unwrap();
    }
    let errors = Arc::new(Mutex::new(Vec::new()));
    let seen = errors.clone();
    let tail = house.client(Some("tail")).with_observer(move |notice| {
        if let Notice::Interrupted { error, .. } = notice {
            seen.lock().unwrap().push(error.reason().unwrap_or_default().to_owned());
        }
    });
    let mut responses = tail.watch_files("logs");
    let mut files = BTreeSet::new();
    let mut until = async |wanted: &str| {
        while files.iter().cloned().collect::<Vec<_>>().join(" ") != wanted {
            let response = soon("a response", responses.next()).await.unwrap().unwrap();
            if !response.events.is_empty() {
                files.clear();
            }
            for change in response.changes {
                let Some(Change::Added(file)) = change.change else { panic!("{change:?}") };
                assert!(files.insert(file.path));
            }
        }
    };
    until("logs/a.log").await;
    house.write_rules(&RULES.replace("\"logs=*.log\"", "\"logs=*.log\", \"logs=*.txt\""));
    until("logs/a.log logs/a.txt").await;
    assert_eq!(*errors.lock().unwrap(), ["ACCESS_CHANGED"]);
    house.write_rules(&RULES.replace("may = [\"read\", \"list\"]", "may = [\"read\"]"));
    let error = loop {
        if let Err(error) = soon("a response", responses.next()).await.unwrap() {
            break error;
        }
    };
    assert_eq!(error.reason(), Some("ACCESS_DENIED"));
}

#[tokio::test]
async fn each_message_of_a_flow_is_checked_by_the_rights_of_its_moment() {
    let house = House::new();
    let (sender, messages) = tokio::sync::mpsc::channel(1);
    let messages = stream::unfold(messages, async |mut messages| Some((messages.recv().await?, messages)));
    let writer = house.client(Some("writer"));
    let mut results = Box::pin(writer.publish_all(messages));
    let mut publish = async |topic: &str| {
        sender.send(message(topic)).await.unwrap();
        let result = soon("a result", results.next()).await.unwrap();
        match result.map(|result| result.outcome.unwrap()) {
            Ok(Outcome::Published(_)) => String::new(),
            Ok(Outcome::Error(error)) => format!("{} {}", error.reason().as_str_name(), error.field),
            Err(error) => error.reason().unwrap_or_default().to_owned(),
        }
    };
    assert_eq!(publish("orders.a").await, "");
    assert_eq!(publish("bills.a").await, "ACCESS_DENIED topic");
    let line = house.server.wait_for_log("denied caller=token:writer");
    assert!(line.contains("PublishStream") && line.contains("publish topic bills.a"), "{line}");
    assert_eq!(publish("orders.b").await, "");
    house.write_rules(&RULES.replace(
        "may = [\"publish\", \"purge\"]\ntopics = [\"orders.>\"]",
        "may = [\"publish\"]\ntopics = [\"bills.>\"]",
    ));
    house.server.wait_for_log("the files of access are in use");
    // The streams learn of it a moment later.
    while !publish("bills.a").await.is_empty() {}
    assert_eq!(publish("orders.a").await, "ACCESS_DENIED topic");
    tokens::revoke(&house.tokens_file(), "writer").unwrap();
    loop {
        let outcome = publish("bills.b").await;
        if !outcome.is_empty() {
            assert_eq!(outcome, "CREDENTIALS_REVOKED");
            break;
        }
    }
    let line = house.server.wait_for_log("ended caller=token:writer");
    assert!(line.contains("CREDENTIALS_REVOKED"), "{line}");
}

#[tokio::test]
async fn a_request_whose_token_is_revoked_while_it_arrives_is_refused() {
    let house = House::new();
    let channel = house.server.connect().await;
    let (finish, finished) = oneshot::channel::<PublishRequest>();
    let messages = stream::once(async { finished.await.unwrap() });
    let mut request = Request::new(messages);
    let header = format!("Bearer {}", house.token("writer")).parse().unwrap();
    request.metadata_mut().insert("authorization", header);
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static("/perennial.v1.MessageService/Publish");
    let codec = ProstCodec::<PublishRequest, PublishResponse>::default();
    let mut slow = pin!(grpc.client_streaming(request, path, codec));
    // Its headers leave with this, and its message comes later.
    assert!(poll!(slow.as_mut()).is_pending());

    let writer = house.client(Some("writer"));
    writer.publish(message("orders.first")).await.unwrap();
    tokens::revoke(&house.tokens_file(), "writer").unwrap();
    house.server.wait_for_log("the files of access are in use");
    writer.publish(message("orders.again")).await.unwrap_err();

    finish.send(message("orders.late")).unwrap();
    let refused = soon("an answer", slow).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
    let details = refused.get_details_error_info().unwrap();
    assert_eq!(details.reason, "CREDENTIALS_REVOKED");
}
