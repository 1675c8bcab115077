//! How `tests/data/9cbe249` was made. To make it again, build the server of that commit, and run
//! `PERENNIALD=that/server cargo test --test upgrade -- --ignored`.

use std::{path::PathBuf, time::SystemTime};

use perennial::proto::{
    CancelCountdownRequest, CommitCursorRequest, CountdownRequest, CountdownResponse, CreateCountdownRequest,
    EndMessage, ExtendCountdownRequest, MessagesRequest, OnGap, OnLag, PauseCountdownRequest, PublishRequest,
    PurgeTopicRequest, ReadLinesRequest, countdown_request::Target, countdown_stream_event,
    create_countdown_request as create, end_message, line_stream_event, messages_request::Start,
    publish_request, read_lines_request,
};
use prost_types::Duration;
use tonic::Streaming;

use super::{Facts, Server, TempDir, all, copy, left, next};

const FAST: Option<Duration> = Some(Duration { seconds: 0, nanos: 100_000_000 });

#[tokio::test]
#[ignore = "makes the data again: needs the server of commit 9cbe249 in PERENNIALD"]
async fn the_data_of_a_server() {
    let program = PathBuf::from(std::env::var_os("PERENNIALD").expect("PERENNIALD is the server to run"));
    let directory = TempDir::new().unwrap();
    std::fs::create_dir(directory.path().join("logs")).unwrap();
    // Small files, a countdown that runs until 2118, and one that has ended and is kept until 2036: the longest there is.
    let arguments = ["--segment", "1MiB", "--max-length", "876600h", "--keep-ended", "87840h"];
    let mut server = Server::start_over_data(directory, Some(&program), &arguments);
    let mut facts = Facts::default();
    messages(&server, &mut facts).await;
    countdowns(&server, &mut facts).await;
    shared(&server, &mut facts).await;
    lines(&server, &mut facts).await;
    server.terminate();
    server.wait();
    copy(server.directory(), &left());
    facts.write(&left());
}

async fn publish(server: &Server, message: PublishRequest) {
    server.messages().await.publish(message).await.unwrap();
}

fn text(topic: &str, text: String) -> PublishRequest {
    let content = Some(publish_request::Content::Text(text));
    PublishRequest { topic: topic.into(), content, ..Default::default() }
}

async fn messages_cursor(server: &Server, request: MessagesRequest) -> String {
    next(&mut server.messages().await.messages(request).await.unwrap().into_inner()).await.cursor
}

async fn messages(server: &Server, facts: &mut Facts) {
    for n in 1..=8 {
        let topic = if n % 2 == 1 { "orders.eu" } else { "orders.us" };
        publish(server, text(topic, format!("order {n}"))).await;
    }
    let full = PublishRequest {
        content: Some(publish_request::Content::Data(vec![0, 159, 146, 150])),
        key: Some("k".into()),
        headers: [("a".into(), "b".into())].into(),
        message_id: Some("id-9".into()),
        ..text("orders.us", String::new())
    };
    publish(server, full).await;
    for (topic, content) in [("state.a", "a1"), ("state.b", "b1"), ("state.a", "a2")] {
        publish(server, text(topic, content.into())).await;
    }
    let from = |topics: &str, start| MessagesRequest {
        topics: vec![topics.into()],
        start: Some(start),
        ..Default::default()
    };
    let orders = MessagesRequest { max_batch: Some(3), ..from("orders.>", Start::Earliest(true)) };
    let after_3 = messages_cursor(server, orders).await;
    let at_end = messages_cursor(server, from("orders.>", Start::Earliest(true))).await;
    for (consumer, cursor) in [("billing", &after_3), ("audit", &at_end)] {
        let commit =
            CommitCursorRequest { consumer: consumer.into(), cursor: cursor.clone(), ..Default::default() };
        server.messages().await.commit_cursor(commit).await.unwrap();
    }
    facts.note("messages.after-3", after_3);
    let snapshot = MessagesRequest { max_batch: Some(1), ..from("state.>", Start::LastPerTopic(true)) };
    facts.note("messages.snapshot", messages_cursor(server, snapshot).await);
    let awaited = from("orders.>", Start::FromSequence(1_000));
    facts.note("messages.awaited", messages_cursor(server, awaited).await);

    let gaps = from("gaps", Start::Earliest(true));
    publish(server, text("gaps", "1".into())).await;
    let before = messages_cursor(server, gaps.clone()).await;
    publish(server, text("gaps", "2".into())).await;
    let published = server.messages().await.publish(text("gaps", "3".into())).await.unwrap().into_inner();
    facts.note("messages.last-gap", published.sequence.unwrap());
    let purge = PurgeTopicRequest { topic: "gaps".into(), until_sequence: published.sequence.map(|s| s - 1) };
    server.messages().await.purge_topic(purge).await.unwrap();
    let skip = MessagesRequest { cursor: Some(before), on_gap: OnGap::Skip.into(), ..gaps };
    facts.note("messages.gap", messages_cursor(server, skip).await);
}

async fn count(server: &Server, request: CountdownRequest) -> Streaming<CountdownResponse> {
    let request = CountdownRequest { max_batch: Some(1), on_lag: OnLag::Burst.into(), ..request };
    server.countdown().await.countdown(request).await.unwrap().into_inner()
}

/// The next response with a tick: its cursor, and the number.
async fn tick(stream: &mut Streaming<CountdownResponse>) -> (String, i32) {
    loop {
        let response = next(stream).await;
        if let Some(tick) = response.ticks.first() {
            return (response.cursor, tick.remaining.unwrap());
        }
    }
}

async fn countdowns(server: &Server, facts: &mut Facts) {
    let from =
        |start| CountdownRequest { target: Some(Target::Start(start)), interval: FAST, ..Default::default() };
    let mut stream = count(server, from(5)).await;
    tick(&mut stream).await;
    let (cursor, number) = tick(&mut stream).await;
    assert_eq!(number, 4);
    facts.note("countdown.after-4", cursor);
    facts.note("countdown.over", all(stream).await.pop().unwrap().cursor);
    let down = CountdownRequest { to: Some(-3), step: Some(2), wait_first: true, ..from(2) };
    facts.note("countdown.before-2", next(&mut count(server, down).await).await.cursor);
    let end = SystemTime::now() + std::time::Duration::from_millis(1050);
    let until = CountdownRequest { target: Some(Target::UntilTime(end.into())), ..from(0) };
    let (cursor, number) = tick(&mut count(server, until).await).await;
    facts.note("countdown.until", cursor);
    facts.note("countdown.until.number", number);
}

async fn shared(server: &Server, facts: &mut Facts) {
    let mut client = server.countdown().await;
    let named = |name: &str, target, interval| CreateCountdownRequest {
        name: name.into(),
        target: Some(target),
        interval,
        ..Default::default()
    };
    let watch =
        |name: &str| CountdownRequest { target: Some(Target::Name(name.into())), ..Default::default() };

    let hours = |hours: i64| Duration { seconds: hours * 3600, nanos: 0 };
    let ten_seconds = Some(Duration { seconds: 10, nanos: 0 });
    let running = named("running", create::Target::Duration(hours(800_000)), ten_seconds);
    client.create_countdown(running).await.unwrap();
    let by = Some(hours(1));
    let extend = ExtendCountdownRequest { name: "running".into(), by, ..Default::default() };
    client.extend_countdown(extend).await.unwrap();
    let (cursor, number) = tick(&mut count(server, watch("running")).await).await;
    facts.note("shared.running", cursor);
    facts.note("shared.running.number", number);

    client.create_countdown(named("paused", create::Target::Start(100), FAST)).await.unwrap();
    let mut stream = count(server, watch("paused")).await;
    let (before, number) = tick(&mut stream).await;
    facts.note("shared.before-pause", before);
    facts.note("shared.before-pause.number", number);
    tick(&mut stream).await;
    let (_, mut last) = tick(&mut stream).await;
    let pause = PauseCountdownRequest { name: "paused".into(), ..Default::default() };
    client.pause_countdown(pause).await.unwrap();
    let at_pause = loop {
        let response = next(&mut stream).await;
        last = response.ticks.first().map_or(last, |tick| tick.remaining.unwrap());
        let is_change = |event: &perennial::proto::CountdownStreamEvent| {
            matches!(event.event, Some(countdown_stream_event::Event::Changed(_)))
        };
        if response.events.iter().any(is_change) {
            break response.cursor;
        }
    };
    facts.note("shared.paused", at_pause);
    facts.note("shared.paused.last-number", last);

    let on_end = EndMessage {
        topic: "ends.ended".into(),
        content: Some(end_message::Content::Text("it has ended".into())),
        ..Default::default()
    };
    let ended = named("ended", create::Target::Start(3), FAST);
    client.create_countdown(CreateCountdownRequest { on_end: Some(on_end), ..ended }).await.unwrap();
    let mut stream = count(server, watch("ended")).await;
    let (cursor, number) = tick(&mut stream).await;
    facts.note("shared.ended", cursor);
    facts.note("shared.ended.number", number);
    facts.note("shared.over", all(stream).await.pop().unwrap().cursor);

    let cancelled = named("cancelled", create::Target::Duration(hours(1)), None);
    client.create_countdown(cancelled).await.unwrap();
    let cancel = CancelCountdownRequest { name: "cancelled".into(), ..Default::default() };
    client.cancel_countdown(cancel).await.unwrap();
}

async fn lines(server: &Server, facts: &mut Facts) {
    let write = |name: &str, text: &str| std::fs::write(server.log_file(name), text).unwrap();
    write("app.log", "one\ntwo\nthree\nfour\nfive\nsix\n");
    write("gone.log", "one\n");
    let read = |name: &str| ReadLinesRequest { path: format!("logs/{name}"), ..Default::default() };
    let open = async |request| server.lines().await.read_lines(request).await.unwrap().into_inner();
    let three = ReadLinesRequest { max_batch: Some(3), ..read("app.log") };
    facts.note("lines.after-3", next(&mut open(three).await).await.cursor);
    let start = Some(read_lines_request::Start::FromLine(8));
    let awaited = ReadLinesRequest { start, follow: true, ..read("app.log") };
    facts.note("lines.before-line-8", next(&mut open(awaited).await).await.cursor);
    let mut followed = open(ReadLinesRequest { follow: true, ..read("gone.log") }).await;
    next(&mut followed).await;
    std::fs::remove_file(server.log_file("gone.log")).unwrap();
    let deleted = loop {
        let response = next(&mut followed).await;
        let is_deleted = |event: &perennial::proto::LineStreamEvent| {
            matches!(event.event, Some(line_stream_event::Event::Deleted(_)))
        };
        if response.events.iter().any(is_deleted) {
            break response.cursor;
        }
    };
    facts.note("lines.deleted", deleted);
}
