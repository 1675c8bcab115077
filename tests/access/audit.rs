//! The audit log, and the metrics of refusals.

use std::collections::BTreeSet;

use futures::{StreamExt, stream};
use perennial::{
    access::tokens,
    proto::{
        CountdownRequest, MessagesRequest, PublishBatchRequest, PublishRequest, PublishStreamRequest,
        countdown_request::Target,
    },
};
use serde_json::Value;
use tonic::Code;

use crate::{
    denied::call,
    harness::{free_port, soon},
    house::{House, RULES},
    quotas::{metrics, of},
};

fn message(topic: &str) -> PublishRequest {
    PublishRequest { topic: topic.into(), ..Default::default() }
}

/// The value of a metric; 0 where it is absent.
fn value(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}

#[tokio::test]
async fn a_denial_names_the_first_need_that_no_rule_allows_and_the_messages_are_counted() {
    let address = format!("127.0.0.1:{}", free_port());
    let house = House::with(RULES, &["--metrics", &address]);
    let mut messages = vec![message("orders.a"); 30];
    messages.extend(["bills.x", "bills.y"].map(message));
    let mut client = house.server.messages().await;
    let batch = PublishBatchRequest { messages };
    let denied = client.publish_batch(of(&house, "writer", batch)).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let line = house.server.wait_for_log("denied caller=token:writer");
    assert!(line.contains(r#"needs=["publish topic bills.x"]"#) && line.contains("messages=2"), "{line}");

    client.publish(of(&house, "writer", message("bills.x"))).await.unwrap_err();
    let line = house.server.wait_for_log("denied caller=token:writer");
    assert!(line.contains(r#"needs=["publish topic bills.x"]"#) && !line.contains("messages="), "{line}");

    let topics = (0..30).map(|n| format!("orders.{n}")).chain((0..3).map(|n| format!("bills.{n}")));
    let request = MessagesRequest { topics: topics.collect(), ..Default::default() };
    client.messages(of(&house, "reader", request)).await.unwrap_err();
    let line = house.server.wait_for_log("denied caller=token:reader");
    assert!(line.contains(r#"needs=["subscribe topic bills.0"]"#) && line.contains("patterns=3"), "{line}");

    let found = metrics(&address);
    for (method, expected) in [("PublishBatch", 32), ("Publish", 1)] {
        let name = format!("perennial_refusals_total{{method=\"{method}\",reason=\"ACCESS_DENIED\"}}");
        assert_eq!(value(&found, &name), expected, "{found}");
    }
}

#[tokio::test]
async fn a_stream_that_ends_for_its_credentials_is_counted_once() {
    let address = format!("127.0.0.1:{}", free_port());
    let house = House::with(RULES, &["--metrics", &address]);
    let clock = house.client(Some("clock"));
    let countdown = CountdownRequest { target: Some(Target::Start(1_000_000)), ..Default::default() };
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut ticks = Box::pin(clock.countdown(countdown.clone()).responses());
        soon("a response", ticks.next()).await.unwrap().unwrap();
        open.push(ticks);
    }
    tokens::revoke(&house.tokens_file(), "clock").unwrap();
    for mut ticks in open {
        while let Some(Ok(_)) = soon("the end of a stream", ticks.next()).await {}
    }
    let name = r#"perennial_access_credentials_refused_total{reason="REVOKED"}"#;
    assert_eq!(value(&metrics(&address), name), 3);
}

#[tokio::test]
async fn the_topics_of_a_stream_that_is_allowed_are_logged_once_each() {
    let house = House::with(RULES, &["--log", "info,audit=debug"]);
    let messages =
        |topics: &[&str]| PublishStreamRequest { messages: topics.iter().map(|it| message(it)).collect() };
    let requests =
        [messages(&["orders.a", "orders.b", "orders.a"]), messages(&["orders.b", "bills.a", "orders.c"])];
    let mut client = house.server.messages().await;
    let requests = of(&house, "writer", stream::iter(requests));
    let mut responses = client.publish_stream(requests).await.unwrap().into_inner();
    while let Some(response) = soon("results", responses.next()).await {
        response.unwrap();
    }
    // A batch with many messages to few topics names each topic.
    let batch = PublishBatchRequest {
        messages: ["orders.d"; 30].into_iter().chain(["orders.e"]).map(message).collect(),
    };
    client.publish_batch(of(&house, "writer", batch)).await.unwrap();
    drop((client, responses));
    house.server.terminate();
    let log = house.server.rest_of_log();
    let lines = log.iter().filter(|line| line.contains("allowed caller=token:writer"));
    let needs = lines.map(|line| line.split("needs=").nth(1).unwrap().to_owned()).collect::<Vec<_>>();
    let expected = [
        r#"["publish topics"]"#,
        r#"["publish topic orders.a"]"#,
        r#"["publish topic orders.b"]"#,
        r#"["publish topic orders.c"]"#,
        r#"["publish topic orders.d", "publish topic orders.e"]"#,
    ];
    assert_eq!(needs, expected);
}

#[tokio::test]
async fn the_topics_of_a_stream_are_logged_up_to_a_number() {
    let house = House::with(RULES, &["--log", "info,audit=debug"]);
    let messages = (0..1_500).map(|n| message(&format!("orders.{n}"))).collect();
    let requests = of(&house, "writer", stream::iter([PublishStreamRequest { messages }]));
    let mut client = house.server.messages().await;
    let mut responses = client.publish_stream(requests).await.unwrap().into_inner();
    while let Some(response) = soon("results", responses.next()).await {
        response.unwrap();
    }
    drop((client, responses));
    house.server.terminate();
    let log = house.server.rest_of_log();
    let topics = log.iter().filter_map(|line| line.split("publish topic orders.").nth(1));
    assert_eq!(topics.collect::<BTreeSet<_>>().len(), 1_000);
    let more = log
        .iter()
        .filter(|line| line.contains("allowed caller=token:writer") && line.contains("topics=1000"));
    assert_eq!(more.count(), 1);
}

#[tokio::test]
async fn lines_of_the_audit_log_have_their_target_in_json_and_reflection_is_one() {
    let house = House::with(RULES, &["--log", "info,audit=debug", "--log-format", "json"]);
    let channel = house.server.connect().await;
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    call(&channel, path, Vec::new(), Some(house.token("nobody"))).await.unwrap_err();
    let line = house.server.wait_for_log("allowed");
    let line = serde_json::from_str::<Value>(&line).unwrap();
    assert_eq!((&line["target"], &line["caller"]), (&"audit".into(), &"token:nobody".into()), "{line}");
    assert!(line["path"].as_str().unwrap().contains("ServerReflection"), "{line}");
    house.client(Some("reader")).list_files("").await.unwrap_err();
    let line = serde_json::from_str::<Value>(&house.server.wait_for_log("denied")).unwrap();
    assert_eq!((&line["target"], &line["level"]), (&"audit".into(), &"INFO".into()), "{line}");
    drop(channel);
    house.server.terminate();
    let log = house.server.rest_of_log();
    let ended = log.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    assert!(
        ended.filter(|line| line["message"] != "allowed").all(|line| line.get("target").is_none()),
        "{log:?}"
    );
}
