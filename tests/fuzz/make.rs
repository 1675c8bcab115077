//! Makes the inputs of the corpora that are not text: requests, and the files of logs.

use std::{fs, path::Path, time::Duration};

use perennial::{
    messages::{Content, Log, NewMessage, TTLS},
    proto::{
        CommitCursorRequest, CountdownRequest, CreateCountdownRequest, DeleteConsumerRequest,
        DeleteCountdownRequest, EndMessage, ExtendCountdownRequest, GetCountdownRequest,
        ListConsumersRequest, ListCountdownsRequest, ListFilesRequest, ListTopicsRequest, MessagesRequest,
        PauseCountdownRequest, PublishBatchRequest, PublishRequest, PublishStreamRequest, PurgeTopicRequest,
        ReadLinesRequest, SetConsumerRequest, WatchFilesRequest, countdown_request, create_countdown_request,
        messages_request, publish_request, read_lines_request, set_consumer_request,
    },
};
use prost::Message;
use tempfile::TempDir;

use crate::targets::{METHODS, log_config, pack};

/// A cursor of messages of the data that requests are answered with.
const CURSOR: &str = "AW0Boiror-N3m43M7P7eRuOKAwAAAHry1Bs";

/// A cursor of the files that match `logs/**/*.log` there.
const FILES_CURSOR: &str = "AWa8t-DoDwHNwbSJ67LCj_Xv5o7607O4gbcB9Bv72A";

#[tokio::test]
#[ignore = "makes inputs of the corpora again"]
async fn the_inputs_that_are_not_text() {
    requests();
    logs().await;
}

fn write(corpus: &str, name: &str, bytes: &[u8]) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(corpus);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(name), bytes).unwrap();
}

fn request(name: &str, message: &impl Message) {
    let method = METHODS.iter().position(|path| path.ends_with(&format!("/{name}"))).unwrap();
    let head = [u8::try_from(method).unwrap(), 0];
    write("request", name, &[&head[..], &message.encode_to_vec()].concat());
}

fn duration(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 500_000_000 }
}

fn message() -> PublishRequest {
    PublishRequest {
        topic: "orders.new".into(),
        content: Some(publish_request::Content::Text("text".into())),
        key: Some("key".into()),
        headers: [("a".into(), "b".into()), ("c".into(), String::new())].into(),
        message_id: Some("id".into()),
        expected_sequence: Some(0),
        ttl: Some(duration(60)),
    }
}

fn requests() {
    let (consumer, name) = (|| "worker".to_owned(), || "running".to_owned());
    request(
        "Countdown",
        &CountdownRequest {
            target: Some(countdown_request::Target::Start(1_000)),
            to: Some(-3),
            step: Some(2),
            interval: Some(duration(1)),
            align: true,
            limit: Some(7),
            heartbeat: Some(duration(2)),
            max_batch: Some(5),
            ..Default::default()
        },
    );
    let on_end = EndMessage { topic: "ends".into(), ..Default::default() };
    request(
        "CreateCountdown",
        &CreateCountdownRequest {
            name: "launch".into(),
            target: Some(create_countdown_request::Target::Duration(duration(1_000))),
            on_end: Some(on_end),
            request_id: Some("id".into()),
            ..Default::default()
        },
    );
    request("PauseCountdown", &PauseCountdownRequest { name: name(), version: Some(5) });
    request(
        "ExtendCountdown",
        &ExtendCountdownRequest { name: name(), by: Some(duration(5)), version: None },
    );
    request("GetCountdown", &GetCountdownRequest { name: name() });
    request("ListCountdowns", &ListCountdownsRequest { page_size: Some(2), page_token: "a".into() });
    request("DeleteCountdown", &DeleteCountdownRequest { name: name(), version: None });
    request(
        "ReadLines",
        &ReadLinesRequest {
            path: "logs/app.log".into(),
            start: Some(read_lines_request::Start::Last(3)),
            follow: true,
            long_line: 2,
            heartbeat: Some(duration(3)),
            partial_flush: Some(duration(1)),
            delimiter: Some("\n".into()),
            max_line_bytes: Some(100),
            include: vec!["GET|POST".into()],
            exclude: vec!["health".into(), "ready".into()],
            ignore_case: true,
            ..Default::default()
        },
    );
    request("ListFiles", &ListFilesRequest { path: "logs".into(), page_size: Some(5), ..Default::default() });
    request(
        "WatchFiles",
        &WatchFilesRequest {
            globs: vec!["logs/**/*.log".into()],
            include_rotated: true,
            until_caught_up: true,
            cursor: Some(FILES_CURSOR.into()),
            limit: Some(3),
            heartbeat: Some(duration(3)),
            max_batch: Some(2),
        },
    );
    request(
        "Messages",
        &MessagesRequest {
            topics: vec!["orders.*".into(), "state.>".into()],
            start: Some(messages_request::Start::FromSequence(3)),
            until_caught_up: true,
            cursor: Some(CURSOR.into()),
            consumer: Some(consumer()),
            on_gap: 2,
            ..Default::default()
        },
    );
    let data = Some(publish_request::Content::Data(vec![0, 159, 146, 150]));
    let plain = PublishRequest { topic: "a".into(), content: data, ..Default::default() };
    request("Publish", &message());
    request("PublishBatch", &PublishBatchRequest { messages: vec![message(), plain.clone()] });
    request("PublishStream", &PublishStreamRequest { messages: vec![plain, message()] });
    request("ListTopics", &ListTopicsRequest { pattern: "orders.>".into(), ..Default::default() });
    request("PurgeTopic", &PurgeTopicRequest { topic: "gaps".into(), until_sequence: Some(10) });
    let commit = CommitCursorRequest { consumer: consumer(), cursor: CURSOR.into(), rewind: true };
    request("CommitCursor", &commit);
    let start = Some(set_consumer_request::Start::FromSequence(2));
    request("SetConsumer", &SetConsumerRequest { consumer: consumer(), start });
    request("ListConsumers", &ListConsumersRequest { consumer: Some(consumer()), ..Default::default() });
    request("DeleteConsumer", &DeleteConsumerRequest { consumer: consumer() });
    frames();
}

fn frames() {
    // Frames: a whole message, the wrong length, compressed, divided, twice, and a message of groups and unknown fields.
    let publish = u8::try_from(METHODS.iter().position(|path| path.ends_with("/Publish")).unwrap()).unwrap();
    let stream = publish + 2;
    for (name, bytes) in [
        ("frame", &[publish, 1, 0, 0, 0, 0, 3, 0x0a, 1, b'a'][..]),
        ("frame-too-short", &[publish, 1, 0, 0, 0, 0, 9, 0x0a, 1, b'a']),
        ("frame-of-4-gib", &[publish, 1, 0, 0xff, 0xff, 0xff, 0xff]),
        ("frame-compressed", &[publish, 1, 1, 0, 0, 0, 3, 0x0a, 1, b'a']),
        ("frame-divided", &[stream, 3, 0, 0, 0, 0, 5, 0x0a, 3, 0x0a, 1, b'a', 0, 0, 0, 0, 0]),
        ("twice", &[publish, 4, 0x0a, 1, b'a', 0x12, 0]),
        ("stream-twice", &[stream, 4, 0x0a, 5, 0x0a, 1, b'a', 0x12, 0]),
        ("unknown-fields", &[publish, 0, 0x0a, 1, b'a', 0x9b, 6, 0x9c, 6, 0xf8, 7, 0xff, 0xff, 3, 0x12, 0]),
        ("health", &[21, 0]),
        ("watch", &[22, 0]),
        ("unknown-method", &[23, 0, 1]),
    ] {
        write("request", name, bytes);
    }
}

/// The files of a log that were written, without those that are kept in reserve. `is_cut`: without the room at their ends
/// that is kept in reserve, in which most changes would be.
fn files(directory: &Path, is_cut: bool) -> Vec<u8> {
    let mut paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    paths.sort();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let files = paths.iter().filter(|path| path.is_file() && !name(path).starts_with("reserve"));
    let content = |path: &Path| {
        let mut content = fs::read(path).unwrap();
        let used = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if is_cut {
            content.truncate(used);
        }
        content
    };
    let files = files.map(|path| (name(path), content(path))).collect::<Vec<_>>();
    pack(files.iter().map(|(name, content)| (name.as_str(), content.as_slice())))
}

fn text(topic: &str, text: String) -> NewMessage {
    NewMessage { topic: topic.into(), content: Content::Text(text), ..NewMessage::default() }
}

async fn logs() {
    // Each message begins with `#` and its sequence.
    for (name, count, bytes) in [("small", 3, 10), ("segments", 12, 600)] {
        let directory = TempDir::new().unwrap();
        let log = Log::open(directory.path(), log_config()).unwrap().0;
        for n in 1..=count {
            let topic = ["a", "b.c"][usize::from(n % 3 == 0)];
            let published = log.publish(text(topic, format!("#{n} {}", "x".repeat(bytes)))).await.unwrap();
            assert_eq!(published.sequence.get(), n);
        }
        write("log", &format!("{name}-killed"), &files(directory.path(), true));
        log.close().await;
        drop(log);
        write("log", &format!("{name}-closed"), &files(directory.path(), count == 3));
    }
    let directory = TempDir::new().unwrap();
    let log = Log::open(directory.path(), log_config()).unwrap().0;
    for n in 0..8 {
        let message = NewMessage {
            key: Some(format!("key {n}")),
            headers: vec![("a".into(), "b".into())],
            message_id: Some(format!("id {n}")),
            ttl: (n % 2 == 0).then_some(*TTLS.end()),
            ..text(["a", "b"][n % 2], format!("of topic {}", "y".repeat(300)))
        };
        log.publish(message).await.unwrap();
    }
    log.set_consumer("worker", perennial::messages::Start::Earliest).await.unwrap();
    log.purge_topic("a", None).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    log.close().await;
    write("log", "removed", &files(directory.path(), true));
    // The log of an earlier version.
    let earlier = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/9cbe249/data/messages");
    write("log", "earlier-version", &files(&earlier, true));
}
