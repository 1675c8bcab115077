//! A wrong request is refused before anything is done, with the field, the reason, and what would work.

use std::collections::HashMap;

use perennial::proto::{
    CountdownRequest, CreateCountdownRequest, EndMessage, ExtendCountdownRequest, GetCountdownRequest,
    ListCountdownsRequest, OnLag, countdown_request, create_countdown_request::Target, end_message::Content,
};
use prost_types::{Duration, Timestamp};
use tonic::{Code, Status};

use crate::{
    calls::{
        Client, Verb, assert_refused, change, change_if, create, delete, get, is_lost, list, refusal,
        running_for, span, words,
    },
    harness::Server,
    watcher::Watcher,
};

/// More than ten years, in seconds.
const LONG: i64 = 400_000_000;

fn invalid<T: std::fmt::Debug>(result: Result<T, Status>, field: &str, remedy: &str) {
    let status = result.unwrap_err();
    let expected = (Code::InvalidArgument, "INVALID_FIELD".to_owned(), Some(field.to_owned()));
    assert_eq!(refusal(&status), expected, "{status:?}");
    let text = status.message();
    assert!(text.contains(remedy), "{text:?} does not say {remedy:?}");
}

fn seconds(seconds: i64) -> Duration {
    Duration { seconds, nanos: 0 }
}

fn create_request(name: &str, target: Target) -> CreateCountdownRequest {
    CreateCountdownRequest { name: name.into(), target: Some(target), ..Default::default() }
}

#[tokio::test]
async fn each_wrong_field_of_a_countdown_to_make_is_named_with_what_would_work() {
    let server = Server::start();
    let client = server.countdown().await;
    let good = running_for("good", 60_000);
    let past = Target::UntilTime(Timestamp { seconds: 1, nanos: 0 });
    let far = Target::UntilTime(Timestamp { seconds: 99_999_999_999, nanos: 0 });
    let cases = [
        (running_for("", 1), "name", "1 to 128"),
        (running_for("a b", 1), "name", "A-Z"),
        (running_for("$a", 1), "name", "A-Z"),
        (running_for("a.*", 1), "name", "A-Z"),
        (running_for("a..b", 1), "name", "dots"),
        (running_for(&"n".repeat(129), 1), "name", "128"),
        (CreateCountdownRequest { target: None, ..good.clone() }, "target", "duration"),
        (running_for("good", 0), "duration", "above zero"),
        (create_request("good", Target::Duration(seconds(-1))), "duration", "above zero"),
        (create_request("good", Target::Duration(seconds(LONG))), "duration", "10 years"),
        (create_request("good", past), "until_time", "future"),
        (create_request("good", far), "until_time", "10 years"),
        (
            create_request("good", Target::UntilTime(Timestamp { seconds: -1, nanos: 0 })),
            "until_time",
            "RFC 3339",
        ),
        (CreateCountdownRequest { to: Some(4), ..create_request("good", Target::Start(3)) }, "start", "4"),
        (create_request("good", Target::Start(i32::MAX)), "interval", "10 years"),
        (CreateCountdownRequest { step: Some(0), ..good.clone() }, "step", "1 or more"),
        (CreateCountdownRequest { step: Some(-1), ..good.clone() }, "step", "1 or more"),
        (CreateCountdownRequest { interval: Some(span(0)), ..good.clone() }, "interval", "1 ms"),
        (CreateCountdownRequest { interval: Some(seconds(-1)), ..good.clone() }, "interval", "1 ms"),
        (CreateCountdownRequest { interval: Some(seconds(LONG)), ..good.clone() }, "interval", "10 years"),
        (
            CreateCountdownRequest { interval: Some(span(1)), ..running_for("good", 3_000_000_000) },
            "interval",
            "2147483647",
        ),
        (
            CreateCountdownRequest { request_id: Some(String::new()), ..good.clone() },
            "request_id",
            "1 to 128",
        ),
        (
            CreateCountdownRequest { request_id: Some("r".repeat(129)), ..good.clone() },
            "request_id",
            "1 to 128",
        ),
    ];
    for (request, field, remedy) in cases {
        invalid(create(&client, request).await, field, remedy);
    }
    assert!(list(&client).await.is_empty(), "a refused countdown was made");
    create(&client, good).await.expect("the server goes on");
}

#[tokio::test]
async fn each_wrong_field_of_a_message_for_the_end_is_named_with_what_would_work() {
    let server = Server::start();
    let client = server.countdown().await;
    let good = running_for("good", 60_000);
    let on_end = |on_end| CreateCountdownRequest { on_end: Some(on_end), ..good.clone() };
    let headers = |headers: Vec<(String, String)>| EndMessage {
        headers: headers.into_iter().collect::<HashMap<_, _>>(),
        ..words("over", "")
    };
    let many = (0..61).map(|n| (n.to_string(), String::new())).collect();
    let cases = [
        (on_end(EndMessage::default()), "on_end.topic", "topic"),
        (on_end(words("$countdown.good", "")), "on_end.topic", "$"),
        (on_end(words("a.*", "")), "on_end.topic", "*"),
        (on_end(EndMessage { key: Some("k".repeat(1025)), ..words("over", "") }), "on_end.key", "1 KiB"),
        (on_end(headers(many)), "on_end.headers", "60"),
        (on_end(headers(vec![(String::new(), "a".into())])), "on_end.headers", "empty"),
        (
            on_end(headers(vec![("countdown-x".into(), "a".into())])),
            "on_end.headers",
            "reserved for the server",
        ),
    ];
    for (request, field, remedy) in cases {
        invalid(create(&client, request).await, field, remedy);
    }
    let huge = create(&client, on_end(words("over", &"x".repeat(65 * 1024)))).await.unwrap_err();
    assert_refused(&huge, Code::ResourceExhausted, "REQUEST_TOO_LARGE");
    assert!(list(&client).await.is_empty(), "a refused countdown was made");
}

#[tokio::test]
async fn a_message_for_the_end_is_no_larger_than_one_to_publish() {
    let server = Server::start_with(&["--max-message", "1KiB"]);
    let client = server.countdown().await;
    let request = |bytes| CreateCountdownRequest {
        on_end: Some(EndMessage { content: Some(Content::Data(vec![0; bytes])), ..words("over", "") }),
        ..running_for("good", 1)
    };
    invalid(create(&client, request(1025)).await, "on_end.content", "1 KiB");
    create(&client, request(1024)).await.unwrap();
    crate::harness::until("the message", async || !crate::calls::messages(&server, "over").await.is_empty())
        .await;
}

#[tokio::test]
async fn each_wrong_field_of_a_change_is_named_with_what_would_work() {
    let server = Server::start();
    let client = server.countdown().await;
    create(&client, running_for("good", 60_000)).await.unwrap();
    for verb in [Verb::Pause, Verb::Resume, Verb::Extend(1), Verb::Cancel] {
        invalid(change(&client, "", verb).await, "name", "1 to 128");
        invalid(change(&client, "a b", verb).await, "name", "A-Z");
        for version in [0, -1] {
            invalid(change_if(&client, "good", verb, Some(version)).await, "version", "1 or more");
        }
        let absent = change(&client, "absent", verb).await.unwrap_err();
        assert_refused(&absent, Code::NotFound, "COUNTDOWN_NOT_FOUND");
        let other = change_if(&client, "good", verb, Some(i64::MAX)).await.unwrap_err();
        assert_refused(&other, Code::Aborted, "VERSION_MISMATCH");
    }
    let extend = async |by| {
        let request = ExtendCountdownRequest { name: "good".into(), by, version: None };
        client.clone().extend_countdown(request).await
    };
    invalid(extend(None).await, "by", "60s");
    invalid(extend(Some(span(0))).await, "by", "above zero");
    invalid(extend(Some(Duration { seconds: 1, nanos: -1 })).await, "by", "same sign");
    invalid(extend(Some(Duration { seconds: 0, nanos: 1_000_000_000 })).await, "by", "same sign");
    for by in [-60_001, -60_000] {
        invalid(extend(Some(span(by))).await, "by", "cancel");
    }
    for by in [LONG, i64::MAX] {
        invalid(extend(Some(seconds(by))).await, "by", "10 years");
    }
    invalid(extend(Some(seconds(i64::MIN))).await, "by", "cancel");
    extend(Some(span(1))).await.expect("the server goes on");
}

#[tokio::test]
async fn a_countdown_cannot_be_extended_beyond_the_largest_number() {
    let server = Server::start();
    let client = server.countdown().await;
    let fast = CreateCountdownRequest { interval: Some(span(1)), ..running_for("fast", 60_000) };
    create(&client, fast).await.unwrap();
    // 2³¹ milliseconds are less than 25 days.
    let too_far = Verb::Extend(25 * 24 * 3_600_000);
    invalid(change(&client, "fast", too_far).await, "by", "2147483647");
    change(&client, "fast", Verb::Pause).await.unwrap();
    invalid(change(&client, "fast", too_far).await, "by", "2147483647");
    change(&client, "fast", Verb::Resume).await.unwrap();
}

#[tokio::test]
async fn each_wrong_field_of_a_question_is_named_with_what_would_work() {
    let server = Server::start();
    let client = server.countdown().await;
    create(&client, running_for("good", 60_000)).await.unwrap();
    for name in ["", "a b", "$a"] {
        invalid(get(&client, name).await, "name", "A-Z");
        invalid(delete(&client, name).await, "name", "A-Z");
    }
    assert_refused(&get(&client, "absent").await.unwrap_err(), Code::NotFound, "COUNTDOWN_NOT_FOUND");
    assert_refused(&delete(&client, "absent").await.unwrap_err(), Code::NotFound, "COUNTDOWN_NOT_FOUND");
    let page = async |page_size, page_token: &str| {
        let request = ListCountdownsRequest { page_size, page_token: page_token.into() };
        client.clone().list_countdowns(request).await
    };
    for size in [0, -1, 10_001] {
        invalid(page(Some(size), "").await, "page_size", "10,000");
    }
    invalid(page(None, "?").await, "page_token", "next_page_token");
    assert_eq!(page(Some(10_000), "").await.unwrap().into_inner().countdowns.len(), 1);
}

#[tokio::test]
async fn a_watcher_cannot_change_the_schedule() {
    let server = Server::start();
    let client = server.countdown().await;
    create(&client, running_for("good", 60_000)).await.unwrap();
    let watch = Watcher::request("good", OnLag::Skip);
    let cases = [
        (CountdownRequest { to: Some(0), ..watch.clone() }, "to"),
        (CountdownRequest { step: Some(1), ..watch.clone() }, "step"),
        (CountdownRequest { interval: Some(seconds(1)), ..watch.clone() }, "interval"),
        (CountdownRequest { wait_first: true, ..watch.clone() }, "wait_first"),
        (CountdownRequest { align: true, ..watch.clone() }, "align"),
    ];
    for (request, field) in cases {
        invalid(client.clone().countdown(request).await, field, "leave it out");
    }
    invalid(client.clone().countdown(Watcher::request("", OnLag::Skip)).await, "name", "1 to 128");
    let absent = client.clone().countdown(Watcher::request("absent", OnLag::Skip)).await.unwrap_err();
    assert_refused(&absent, Code::NotFound, "COUNTDOWN_NOT_FOUND");

    let own = CountdownRequest { target: Some(countdown_request::Target::Start(60)), ..Default::default() };
    let mut stream = client.clone().countdown(own.clone()).await.unwrap().into_inner();
    let cursor = Some(stream.message().await.unwrap().unwrap().cursor);
    let watcher = Watcher::start(&client, watch.clone()).await;
    let shared = watcher.request.cursor.clone();
    for request in [CountdownRequest { cursor, ..watch }, CountdownRequest { cursor: shared, ..own }] {
        let status = client.clone().countdown(request).await.unwrap_err();
        let malformed = (Code::InvalidArgument, "CURSOR_MALFORMED".to_owned(), Some("cursor".to_owned()));
        assert_eq!(refusal(&status), malformed, "{status:?}");
    }
}

#[tokio::test]
async fn a_name_is_taken_until_it_is_deleted_and_creating_it_can_be_repeated() {
    let mut server = Server::start_apart();
    let mut client = server.countdown().await;
    let request = CreateCountdownRequest { request_id: Some("one".into()), ..running_for("good", 60_000) };
    let made = create(&client, request.clone()).await.unwrap();
    change(&client, "good", Verb::Cancel).await.unwrap();
    for is_restarted in [false, true] {
        if is_restarted {
            server.kill();
            server.restart();
            client = server.countdown().await;
        }
        for other in [None, Some("two".to_owned())] {
            let request = CreateCountdownRequest { request_id: other, ..request.clone() };
            let taken = create(&client, request).await.unwrap_err();
            assert_refused(&taken, Code::AlreadyExists, "COUNTDOWN_EXISTS");
        }
        let again = client.clone().create_countdown(request.clone()).await.unwrap().into_inner();
        assert!(again.already_existed);
        let again = again.countdown.unwrap();
        assert_eq!(again.create_time, made.create_time);
        assert!(again.version > made.version, "as it is now");
    }
    let over = change(&client, "good", Verb::Pause).await.unwrap_err();
    assert_refused(&over, Code::FailedPrecondition, "COUNTDOWN_OVER");
    delete(&client, "good").await.unwrap();
    let new = client.clone().create_countdown(request).await.unwrap().into_inner();
    assert!(!new.already_existed);
    assert!(new.countdown.unwrap().version > made.version);
}

#[tokio::test]
async fn a_call_that_reaches_no_server_has_no_reason() {
    let mut server = Server::start_apart();
    let client: Client = server.countdown().await;
    server.kill();
    let request = GetCountdownRequest { name: "good".into() };
    assert!(is_lost(&client.clone().get_countdown(request).await.unwrap_err()));
}
