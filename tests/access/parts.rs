//! Lists and subscriptions: a caller gets the part that it may read, and the server reports the part.

use std::collections::BTreeSet;

use futures::StreamExt;
use perennial::{
    client::Code,
    proto::{
        Countdown, CreateCountdownRequest, EndMessage, MessagesRequest, PublishRequest, WatchFilesRequest,
        create_countdown_request, file_change::Change, message_stream_event::Event, messages_request::Start,
    },
};

use crate::{
    harness::{
        output::{run, stderr, stdout},
        soon,
    },
    house::{House, RULES},
};

async fn publish(house: &House, topics: &[&str]) {
    let operator = house.client(Some("operator"));
    for topic in topics {
        let request = PublishRequest { topic: (*topic).into(), ..Default::default() };
        operator.publish_batch(vec![request]).await.unwrap();
    }
}

/// The topics of the messages that a caller gets, and the patterns of the event `narrowed`.
async fn read(
    house: &House,
    caller: &str,
    topics: &[&str],
) -> Result<(Vec<String>, Option<Vec<String>>), Code> {
    let request = MessagesRequest {
        topics: topics.iter().map(ToString::to_string).collect(),
        start: Some(Start::Earliest(true)),
        until_caught_up: true,
        ..Default::default()
    };
    let mut responses = Box::pin(house.client(Some(caller)).messages(request).responses());
    let (mut found, mut narrowed, mut is_first) = (Vec::new(), None, true);
    while let Some(response) = soon("a response", responses.next()).await {
        let response = response.map_err(|error| error.code())?;
        found.extend(response.messages.into_iter().map(|message| message.topic));
        for event in response.events {
            if let Some(Event::Narrowed(event)) = event.event {
                assert!(is_first && narrowed.is_none());
                narrowed = Some(event.topics);
            }
        }
        is_first = false;
    }
    Ok((found, narrowed))
}

#[tokio::test]
async fn the_message_of_a_countdown_is_shown_to_a_caller_that_may_have_messages_of_its_topic() {
    let rules = |may: &str| {
        let topics = if may.is_empty() {
            String::new()
        } else {
            format!("\n[[rule]]\nwho = ['token:clock']\nmay = ['{may}']\ntopics = ['secret.*']\n")
        };
        format!("{RULES}{topics}")
    };
    let house = House::with(&rules("publish"), &[]);
    let clock = house.client(Some("clock"));
    let create = |name: &str| CreateCountdownRequest {
        name: format!("launch.{name}"),
        target: Some(create_countdown_request::Target::Start(1_000_000)),
        on_end: Some(EndMessage { topic: "secret.a".into(), ..Default::default() }),
        ..Default::default()
    };
    let topic = |countdown: Countdown| countdown.on_end.map(|on_end| on_end.topic);
    let created = clock.create_countdown(create("a")).await.unwrap();
    assert_eq!(topic(created.countdown.unwrap()).as_deref(), Some("secret.a"));
    for (may, is_shown) in
        [("", false), ("subscribe", true), ("purge", false), ("list", false), ("publish", true)]
    {
        house.write_rules(&format!("{}# {may}\n", rules(may)));
        house.server.wait_for_log("the files of access are in use");
        let got = topic(clock.get_countdown("launch.a").await.unwrap());
        let listed = clock.list_countdowns().await.unwrap().into_iter().map(topic).collect::<Vec<_>>();
        assert_eq!(got.is_some(), is_shown, "{may}");
        assert_eq!(listed, [got], "{may}");
        let by = prost_types::Duration { seconds: 1, nanos: 0 };
        let extended = clock.extend_countdown("launch.a", by, None).await.unwrap();
        assert_eq!(topic(extended).is_some(), is_shown, "{may}");
        let denied = clock.create_countdown(create("b")).await;
        assert_eq!(denied.is_err(), may != "publish", "{may}");
    }
    // The operator sees it whatever the rules are.
    let got = house.client(Some("operator")).get_countdown("launch.a").await.unwrap();
    assert!(topic(got).is_some());
}

#[tokio::test]
async fn a_subscription_yields_what_may_be_read_and_says_so() {
    let house = House::new();
    publish(&house, &["orders.a", "secret", "state.x", "state.x.y", "orders.a.b", "bills.a"]).await;
    let read = async |topics: &[&str]| read(&house, "reader", topics).await;
    let all = ["orders.a", "state.x", "orders.a.b"].map(String::from).to_vec();
    let parts = Some(vec!["orders.>".to_owned(), "state.*".to_owned()]);
    assert_eq!(read(&[">"]).await, Ok((all.clone(), parts.clone())));
    assert_eq!(read(&["*.*", "orders.a.b"]).await.unwrap().0, all);
    assert_eq!(read(&["orders.>", "state.x"]).await, Ok((all, None)));
    assert_eq!(read(&["state.>"]).await, Ok((vec!["state.x".into()], Some(vec!["state.*".into()]))));
    for denied in [&["secret"][..], &["bills.>"], &[">", "secret"], &["$countdown.>"], &["$>"]] {
        assert_eq!(read(denied).await, Err(Code::PermissionDenied), "{denied:?}");
    }
    let output =
        run(&mut house.command("reader", &["messages", ">", "--from", "earliest", "--until-caught-up"]));
    assert!(stderr(&output).contains("a part of these topics only: orders.> state.*"), "{}", stderr(&output));
}

/// Streams of files have what a list has, also of the files that appear.
async fn watched_files(house: &House) {
    let tail = house.client(Some("tail"));
    let mut changes = tail.watch_files("logs");
    let mut seen = Vec::new();
    while seen.len() < 4 {
        for change in soon("a response", changes.next()).await.unwrap().unwrap().changes {
            let Some(Change::Added(file)) = change.change else { panic!("{change:?}") };
            seen.push(file.path);
        }
        if seen.len() == 2 {
            for name in ["d.txt", "d.log", "deep/e.txt", "deep/e.log"] {
                std::fs::write(house.server.log_file(name), "x\n").unwrap();
            }
        }
    }
    seen[2..].sort();
    assert_eq!(seen, ["logs/a.log", "logs/deep/c.log", "logs/d.log", "logs/deep/e.log"]);
    // It looks like a root without files that the caller may see.
    let absent = WatchFilesRequest { until_caught_up: true, ..WatchFilesRequest::from("absent/*") };
    let nothing = tail.watch_files(absent.clone()).map(|answer| answer.unwrap().changes.len());
    assert_eq!(soon("the end", nothing.collect::<Vec<_>>()).await.iter().sum::<usize>(), 0);
    let operator = house.client(Some("operator"));
    let refused = soon("an answer", operator.watch_files(absent).next()).await.unwrap();
    assert_eq!(refused.unwrap_err().code(), Code::NotFound);
    for name in ["d.log", "deep/e.log"] {
        std::fs::remove_file(house.server.log_file(name)).unwrap();
    }
}

#[tokio::test]
async fn a_list_shows_what_may_be_seen_on_every_page() {
    let house = House::new();
    let topics =
        (0..30).map(|n| format!("{}.t{n}", ["orders", "secret", "state"][n % 3])).collect::<Vec<_>>();
    publish(&house, &topics.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let listed = house.client(Some("reader")).list_topics("").await.unwrap();
    let listed = listed.into_iter().map(|topic| topic.name).collect::<BTreeSet<_>>();
    let expected =
        topics.iter().filter(|topic| !topic.starts_with("secret")).cloned().collect::<BTreeSet<_>>();
    assert_eq!(listed, expected);

    for name in ["a.log", "b.txt", "deep/c.log"] {
        let path = house.server.log_file(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x\n").unwrap();
    }
    let tail = house.client(Some("tail"));
    let files = async |path: &str| {
        let files = tail.list_files(path).await;
        files
            .map(|files| files.into_iter().map(|file| file.path).collect::<Vec<_>>())
            .map_err(|error| error.code())
    };
    assert_eq!(files("").await, Ok(vec!["logs/a.log".into(), "logs/deep/c.log".into()]));
    assert_eq!(files("logs/deep").await, Ok(vec!["logs/deep/c.log".into()]));
    // It looks like a directory without files that the caller may see.
    assert_eq!(files("logs/absent").await, Ok(Vec::new()));
    assert_eq!(files("absent").await, Ok(Vec::new()));
    let operator = house.client(Some("operator"));
    assert_eq!(
        operator.list_files("logs/absent").await.map_err(|error| error.code()).unwrap_err(),
        Code::NotFound
    );

    watched_files(&house).await;

    for name in ["work.a", "other"] {
        let set = run(&mut house.command("operator", &["set-consumer", name, "--to", "earliest"]));
        assert!(set.status.success(), "{}", stderr(&set));
    }
    let consumers = house.client(Some("worker")).list_consumers().await.unwrap();
    assert_eq!(consumers.iter().map(|consumer| consumer.name.as_str()).collect::<Vec<_>>(), ["work.a"]);

    for name in ["launch.a", "other"] {
        let target = Some(create_countdown_request::Target::Start(1_000));
        let request = CreateCountdownRequest { name: name.into(), target, ..Default::default() };
        operator.create_countdown(request).await.unwrap();
    }
    let listed = stdout(&run(&mut house.command("clock", &["countdown", "list"])));
    assert!(listed.contains("launch.a") && !listed.contains("other"), "{listed}");
    // A right to read alone shows nothing in a list.
    let denied = house.client(Some("writer")).list_topics("").await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
}
