//! Quotas of a caller, and the log of refusals.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use futures::{StreamExt, stream};
use perennial::{
    client::{Client, Code, Error},
    proto::{
        CountdownRequest, PublishBatchRequest, PublishRequest, PublishStreamRequest,
        countdown_request::Target, publish_result::Outcome,
    },
};
use tonic::{Request, Status};
use tonic_types::StatusExt;

use crate::{
    harness::{PATIENCE, free_port, output::run, soon, until},
    house::{House, RULES},
};

const LIMITS: &str = r#"
[[limit]]
who = ["token:clock"]
streams = 2

[[limit]]
who = ["token:tail"]
streams = 1

[[limit]]
who = ["token:writer"]
publishes = 5

[[limit]]
who = ["token:reader"]
calls = 1

[[limit]]
who = ["token:operator"]
bytes = "1KiB"
"#;

fn reason(error: &Error) -> (Code, String) {
    (error.code(), error.reason().unwrap_or_default().to_owned())
}

fn exceeded() -> (Code, String) {
    (Code::ResourceExhausted, "QUOTA_EXCEEDED".into())
}

async fn publish(client: &Client, text: &str, count: usize) -> Result<(), Error> {
    let message = PublishRequest {
        topic: "orders.a".into(),
        content: Some(perennial::proto::publish_request::Content::Text(text.into())),
        ..Default::default()
    };
    client.publish_batch(vec![message; count]).await.map(drop)
}

#[tokio::test]
async fn each_quota_of_a_caller_is_enforced_and_has_a_time_to_try_again() {
    let house = House::with(&format!("{RULES}{LIMITS}"), &[]);
    let clock = house.client(Some("clock"));
    let countdown = CountdownRequest { target: Some(Target::Start(1_000_000)), ..Default::default() };
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut ticks = Box::pin(clock.countdown(countdown.clone()).responses());
        soon("a response", ticks.next()).await.unwrap().unwrap();
        open.push(ticks);
    }
    let third = soon("a refusal", Box::pin(clock.countdown(countdown.clone()).responses()).next())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(reason(&third), exceeded());
    assert!(
        third.to_string().contains("token:clock may have 2 open streams") && third.is_retryable(),
        "{third}"
    );
    let line = house.server.wait_for_log("denied");
    assert!(line.contains("caller=token:clock") && line.contains("QUOTA_EXCEEDED"), "{line}");
    drop(open.pop());
    // Its place is free when the server has noticed.
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        match soon("an answer", Box::pin(clock.countdown(countdown.clone()).responses()).next())
            .await
            .unwrap()
        {
            Ok(_) => break,
            Err(error) => assert!(reason(&error) == exceeded() && std::time::Instant::now() < end, "{error}"),
        }
    }
    let tail = house.client(Some("tail"));
    let mut files = tail.watch_files("logs");
    soon("a response", files.next()).await.unwrap().unwrap();
    let second = soon("a refusal", tail.watch_files("logs").next()).await.unwrap().unwrap_err();
    assert_eq!(reason(&second), exceeded());
    let writer = house.client(Some("writer"));
    publish(&writer, "x", 5).await.unwrap();
    assert_eq!(reason(&publish(&writer, "x", 5).await.unwrap_err()), exceeded());
    let line = house.server.wait_for_log("denied caller=token:writer");
    assert!(line.contains("QUOTA_EXCEEDED") && line.contains("PublishBatch"), "{line}");
    let operator = house.client(Some("operator"));
    publish(&operator, &"x".repeat(5_000), 1).await.unwrap();
    let error = publish(&operator, &"x".repeat(1_000), 1).await.unwrap_err();
    assert!(
        reason(&error) == exceeded() && error.to_string().contains("1024 published bytes a second"),
        "{error}"
    );
    // A client that may wait would repeat the call when it is allowed again.
    let reader = house.client(Some("reader")).with_connect_timeout(Duration::ZERO);
    let calls = [reader.list_topics("").await, reader.list_topics("").await, reader.list_topics("").await];
    assert!(calls.iter().any(|answer| answer.as_ref().is_err_and(|error| reason(error) == exceeded())));
    let line = house.server.wait_for_log("refused peer");
    assert!(line.contains("caller=token:reader") && line.contains("QUOTA_EXCEEDED"), "{line}");
    // Other callers have their own.
    publish(&writer, "x", 1).await.ok();
    assert!(house.client(Some("tail")).list_files("").await.is_ok());
}

#[tokio::test]
async fn a_refusal_is_logged_with_the_caller_and_what_it_needed_and_without_its_token() {
    let house = House::with(RULES, &["--log", "info,audit=debug"]);
    run(&mut house.command("reader", &["publish", "orders.new", "payload-text"]));
    let line = house.server.wait_for_log("denied");
    for part in ["caller=token:reader", "127.0.0.1:", "publish topic orders.new", "ACCESS_DENIED"] {
        assert!(line.contains(part), "{line}");
    }
    assert!(!line.contains("payload-text") && !line.contains(&house.token("reader")[..20]), "{line}");
    run(house.command("reader", &["topics"]).env("PERENNIAL_TOKEN", "perennial_wrong"));
    let line = house.server.wait_for_log("refused peer");
    assert!(line.contains("CREDENTIALS_INVALID") && !line.contains("perennial_wrong"), "{line}");
    run(&mut house.command("reader", &["topics"]));
    let line = house.server.wait_for_log("allowed");
    assert!(line.contains("caller=token:reader") && line.contains("list topics"), "{line}");
}

const TOPIC_QUOTAS: &str = r#"
[[quota]]
topics = ["orders.>"]
topic_count = 2
stored_bytes = "4KiB"
"#;

fn message(topic: &str, size: usize) -> PublishRequest {
    PublishRequest {
        topic: topic.into(),
        content: Some(perennial::proto::publish_request::Content::Text("x".repeat(size))),
        ..Default::default()
    }
}

/// A request of the writer.
fn of_writer<T>(house: &House, message: T) -> Request<T> {
    of(house, "writer", message)
}

/// A request of a caller.
pub fn of<T>(house: &House, caller: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let token = format!("Bearer {}", house.token(caller));
    request.metadata_mut().insert("authorization", token.parse().unwrap());
    request
}

/// Code, reason, the subject of the quota, and whether to try again.
fn facts(status: &Status) -> (Code, String, String, bool) {
    let details = status.get_error_details();
    let violation = &details.quota_failure().unwrap().violations[0];
    assert_eq!(violation.description, status.message());
    let reason = details.error_info().unwrap().reason.clone();
    let delay = details.retry_info().and_then(|info| info.retry_delay);
    (status.code(), reason, violation.subject.clone(), delay.is_some_and(|delay| !delay.is_zero()))
}

/// The metrics of a server.
pub fn metrics(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn quotas_of_topics_hold_for_each_way_to_publish_and_are_reloaded() {
    let address = format!("127.0.0.1:{}", free_port());
    let house = House::with(&format!("{RULES}{TOPIC_QUOTAS}"), &["--metrics", &address]);
    let mut writer = house.server.messages().await;
    for topic in ["orders.a", "orders.b"] {
        writer.publish(of_writer(&house, message(topic, 1))).await.unwrap();
    }
    // For a topic that is one too many, waiting does not help; for bytes it helps, if retention removes some.
    let too_many = (Code::ResourceExhausted, "TOO_MANY_TOPICS".into(), "topics orders.>".into(), false);
    let too_large = (Code::ResourceExhausted, "QUOTA_EXCEEDED".into(), "topics orders.>".into(), true);
    for (messages, expected) in [
        (vec![message("orders.c", 1)], &too_many),
        (vec![message("orders.a", 5_000)], &too_large),
        (vec![message("orders.a", 1), message("orders.c", 1)], &too_many),
        (vec![message("orders.b", 2_500), message("orders.a", 2_500)], &too_large),
    ] {
        if let [one] = &messages[..] {
            let status = writer.publish(of_writer(&house, one.clone())).await.unwrap_err();
            assert_eq!(facts(&status), *expected, "{status}");
        }
        let batch = PublishBatchRequest { messages };
        let status = writer.publish_batch(of_writer(&house, batch)).await.unwrap_err();
        assert_eq!(facts(&status), *expected, "{status}");
    }
    let messages = vec![message("orders.a", 5_000), message("orders.c", 1), message("orders.b", 1)];
    let requests = stream::iter([PublishStreamRequest { messages }]);
    let mut responses = writer.publish_stream(of_writer(&house, requests)).await.unwrap().into_inner();
    let mut results = Vec::new();
    while let Some(response) = soon("results", responses.next()).await {
        results.extend(response.unwrap().results.into_iter().map(|result| match result.outcome.unwrap() {
            Outcome::Published(_) => String::new(),
            Outcome::Error(error) => {
                format!("{} {}", error.reason().as_str_name(), error.retry_delay.is_some())
            }
        }));
    }
    assert_eq!(results, ["QUOTA_EXCEEDED true", "TOO_MANY_TOPICS false", ""]);
    let mut methods = Vec::new();
    while methods.len() < 8 {
        let line = house.server.wait_for_log("denied caller=token:writer");
        assert!(line.contains(r#"needs=["publish topic orders.>"]"#), "{line}");
        let method = line.split("method=\"").nth(1).unwrap().split('"').next().unwrap();
        methods.push((method.to_owned(), line.contains("TOO_MANY_TOPICS")));
    }
    let expected = [
        ("Publish", true),
        ("PublishBatch", true),
        ("Publish", false),
        ("PublishBatch", false),
        ("PublishBatch", true),
        ("PublishBatch", false),
        ("PublishStream", false),
        ("PublishStream", true),
    ];
    assert_eq!(methods, expected.map(|(method, is_count)| (method.to_owned(), is_count)));
    let found = metrics(&address);
    for line in [
        "perennial_topic_quota_topics{topics=\"orders.>\"} 2",
        "perennial_topic_quota_max_topics{topics=\"orders.>\"} 2",
        "perennial_topic_quota_max_stored_bytes{topics=\"orders.>\"} 4096",
    ] {
        assert!(found.lines().any(|known| known == line), "{line}: {found}");
    }
    house.write_rules(RULES);
    until("no quota", async || !metrics(&address).contains("topic_quota_topics{")).await;
    writer.publish(of_writer(&house, message("orders.c", 5_000))).await.unwrap();
    // New quotas count the topics and messages that the log already has.
    house.write_rules(&format!("{RULES}{TOPIC_QUOTAS}"));
    let line = "topic_quota_topics{topics=\"orders.>\"} 3";
    until("the quota", async || metrics(&address).contains(line)).await;
    let status = writer.publish(of_writer(&house, message("orders.c", 1))).await.unwrap_err();
    assert_eq!(facts(&status), too_large);
    // There are three topics already: the error does not call the limit the number that exists.
    let status = writer.publish(of_writer(&house, message("orders.d", 1))).await.unwrap_err();
    assert!(status.message().contains("limit of 2"), "{}", status.message());
}

#[tokio::test]
async fn messages_of_one_request_that_are_refused_are_one_line_with_their_number() {
    let house = House::new();
    let messages = (0..1_000).map(|n| message(&format!("bills.{n}"), 1)).collect();
    let requests = stream::iter([PublishStreamRequest { messages }]);
    let mut writer = house.server.messages().await;
    let mut responses = writer.publish_stream(of_writer(&house, requests)).await.unwrap().into_inner();
    let mut refused = 0;
    while let Some(response) = soon("results", responses.next()).await {
        refused += response.unwrap().results.len();
    }
    assert_eq!(refused, 1_000);
    let line = house.server.wait_for_log("denied caller=token:writer");
    for part in ["publish topic bills.0", "ACCESS_DENIED", "messages=1000"] {
        assert!(line.contains(part), "{line}");
    }
    drop((writer, responses));
    house.server.terminate();
    assert!(!house.server.rest_of_log().iter().any(|line| line.contains("denied caller")));
}

#[tokio::test]
async fn quotas_of_topics_hold_after_a_restart() {
    let mut house = House::with(&format!("{RULES}{TOPIC_QUOTAS}"), &[]);
    for topic in ["orders.a", "orders.b"] {
        house.client(Some("writer")).publish(message(topic, 1)).await.unwrap();
    }
    house.server.kill();
    house.server.restart();
    let writer = house.client(Some("writer"));
    let error = writer.publish(message("orders.c", 1)).await.unwrap_err();
    assert_eq!(reason(&error).1, "TOO_MANY_TOPICS");
    writer.publish(message("orders.a", 1)).await.unwrap();
}
