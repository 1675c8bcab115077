//! Quotas of a caller, and the log of refusals.

use futures::StreamExt;
use perennial::{
    client::{Client, Code, Error},
    proto::{CountdownRequest, PublishRequest, countdown_request::Target},
};

use crate::{
    harness::{PATIENCE, output::run, soon},
    house::{House, RULES},
};

const LIMITS: &str = r#"
[[limit]]
who = ["token:clock"]
streams = 2

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
        let mut ticks = Box::pin(clock.countdown(countdown.clone()));
        soon("a response", ticks.next()).await.unwrap().unwrap();
        open.push(ticks);
    }
    let third =
        soon("a refusal", Box::pin(clock.countdown(countdown.clone())).next()).await.unwrap().unwrap_err();
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
        match soon("an answer", Box::pin(clock.countdown(countdown.clone())).next()).await.unwrap() {
            Ok(_) => break,
            Err(error) => assert!(reason(&error) == exceeded() && std::time::Instant::now() < end, "{error}"),
        }
    }
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
    let reader = house.client(Some("reader"));
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
