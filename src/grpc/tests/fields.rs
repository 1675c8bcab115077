//! Every field of every request that can be wrong, and its error.

use super::*;
use crate::proto::{
    countdown_service_server::CountdownService, line_service_server::LineService,
    message_service_server::MessageService, messages_request, read_lines_request,
};

/// The reason and the field of a refusal.
fn refusal<T>(answer: Result<tonic::Response<T>, Status>) -> (String, String) {
    let status = answer.map(|_| ()).unwrap_err();
    let fields = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    let field = fields.into_iter().next().map(|violation| violation.field).unwrap_or_default();
    assert!(status.message().contains(&field), "{field}: {}", status.message());
    (reason(&status), field)
}

fn invalid(field: &str) -> (String, String) {
    ("INVALID_FIELD".into(), field.into())
}

fn malformed() -> (String, String) {
    ("CURSOR_MALFORMED".into(), "cursor".into())
}

#[expect(clippy::unnecessary_wraps, reason = "a field that is set")]
fn duration(seconds: i64, nanos: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos })
}

/// Times before 1970 or after 9999, and times that are not valid.
const TIMES: [prost_types::Timestamp; 5] = [
    prost_types::Timestamp { seconds: 253_402_300_800, nanos: 0 },
    prost_types::Timestamp { seconds: 1, nanos: 1_000_000_000 },
    prost_types::Timestamp { seconds: -1, nanos: 0 },
    prost_types::Timestamp { seconds: i64::MAX, nanos: 0 },
    prost_types::Timestamp { seconds: i64::MIN, nanos: i32::MIN },
];

#[tokio::test]
async fn every_wrong_field_of_a_countdown_is_named() {
    type Wrong = fn(&mut proto::CountdownRequest);
    let app = House::new().await.app;
    let table: [(&str, Wrong); 21] = [
        ("target", |r| r.target = None),
        ("until_time", |r| r.target = Some(Target::UntilTime(TIMES[0]))),
        ("until_time", |r| r.target = Some(Target::UntilTime(TIMES[1]))),
        ("until_time", |r| r.target = Some(Target::UntilTime(TIMES[2]))),
        ("until_time", |r| r.target = Some(Target::UntilTime(TIMES[3]))),
        ("until_time", |r| r.target = Some(Target::UntilTime(TIMES[4]))),
        ("start", |r| r.to = Some(4)),
        ("align", |r| {
            r.align = true;
            r.target = Some(Target::UntilTime(prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 }));
        }),
        ("step", |r| r.step = Some(0)),
        ("step", |r| r.step = Some(i32::MIN)),
        ("interval", |r| r.interval = duration(0, 0)),
        ("interval", |r| r.interval = duration(0, 999_999)),
        ("interval", |r| r.interval = duration(-1, 0)),
        ("interval", |r| r.interval = duration(i64::MAX, i32::MAX)),
        ("on_lag", |r| r.on_lag = 9),
        ("limit", |r| r.limit = Some(0)),
        ("heartbeat", |r| r.heartbeat = duration(0, 99_999_999)),
        ("heartbeat", |r| r.heartbeat = duration(3600, 1)),
        ("heartbeat", |r| r.heartbeat = duration(i64::MIN, i32::MIN)),
        ("max_batch", |r| r.max_batch = Some(0)),
        ("max_batch", |r| r.max_batch = Some(100_001)),
    ];
    for (field, wrong) in table {
        let mut request = from(3);
        wrong(&mut request);
        let answer = app.countdown(Request::new(request.clone())).await;
        assert_eq!(refusal(answer), invalid(field), "{request:?}");
    }
    let request = proto::CountdownRequest { cursor: Some(String::new()), ..from(3) };
    assert_eq!(refusal(app.countdown(Request::new(request)).await), malformed());
}

#[tokio::test]
async fn every_wrong_field_of_read_lines_is_named() {
    use read_lines_request::Start;
    type Wrong = fn(&mut proto::ReadLinesRequest);
    let house = House::new().await;
    house.write("a.log", "one\n");
    let table: [(&str, Wrong); 19] = [
        ("path", |r| r.path = String::new()),
        ("path", |r| r.path = "root/../a.log".into()),
        ("last", |r| r.start = Some(Start::Last(-1))),
        ("from_line", |r| r.start = Some(Start::FromLine(0))),
        ("from_line", |r| r.start = Some(Start::FromLine(-1))),
        ("from_offset", |r| r.start = Some(Start::FromOffset(-1))),
        ("until_line", |r| r.until_line = Some(0)),
        ("until_line", |r| r.until_line = Some(-1)),
        ("until_offset", |r| r.until_offset = Some(-1)),
        ("max_line_bytes", |r| r.max_line_bytes = Some(-1)),
        ("max_line_bytes", |r| r.max_line_bytes = Some(15)),
        ("max_line_bytes", |r| r.max_line_bytes = Some(i32::MAX)),
        ("on_gap", |r| r.on_gap = -1),
        ("include", |r| r.include = vec!["a".into(), "a(".into()]),
        ("exclude", |r| r.exclude = vec![String::new()]),
        ("exclude", |r| r.exclude = vec!["a".into(); 65]),
        ("limit", |r| r.limit = Some(-1)),
        ("heartbeat", |r| r.heartbeat = duration(0, 0)),
        ("max_batch", |r| r.max_batch = Some(-1)),
    ];
    let good = proto::ReadLinesRequest { path: "root/a.log".into(), ..Default::default() };
    assert!(house.app.read_lines(Request::new(good.clone())).await.is_ok());
    for (field, wrong) in table {
        let mut request = good.clone();
        wrong(&mut request);
        let answer = house.app.read_lines(Request::new(request.clone())).await;
        assert_eq!(refusal(answer), invalid(field), "{request:?}");
    }
    let request = proto::ReadLinesRequest { cursor: Some("x".into()), ..good.clone() };
    assert_eq!(refusal(house.app.read_lines(Request::new(request)).await), malformed());
    let request = proto::ReadLinesRequest { path: "root/none".into(), ..good.clone() };
    assert_eq!(refusal(house.app.read_lines(Request::new(request)).await).0, "FILE_NOT_FOUND");
    let request = proto::ReadLinesRequest { start: Some(Start::FromOffset(5)), ..good };
    assert_eq!(refusal(house.app.read_lines(Request::new(request)).await).0, "OFFSET_BEYOND_END");
}

#[tokio::test]
async fn every_wrong_field_of_watch_files_is_named() {
    type Wrong = fn(&mut proto::WatchFilesRequest);
    let house = House::new().await;
    let table: [(&str, Wrong); 14] = [
        ("globs", |r| r.globs.clear()),
        ("globs", |r| r.globs = vec!["root/a".into(); 65]),
        ("globs", |r| r.globs = vec![format!("root/{}", "a".repeat(4_096))]),
        ("globs[1]", |r| r.globs.push(String::new())),
        ("globs[1]", |r| r.globs.push("*/a.log".into())),
        ("globs[1]", |r| r.globs.push("/root/a.log".into())),
        ("globs[1]", |r| r.globs.push("root/[a".into())),
        ("globs[1]", |r| r.globs.push("root/../a".into())),
        ("globs[1]", |r| r.globs.push("root/{a,".repeat(10))),
        ("limit", |r| r.limit = Some(0)),
        ("heartbeat", |r| r.heartbeat = duration(0, 0)),
        ("heartbeat", |r| r.heartbeat = duration(3600, 1)),
        ("max_batch", |r| r.max_batch = Some(0)),
        ("max_batch", |r| r.max_batch = Some(100_001)),
    ];
    let good = proto::WatchFilesRequest { globs: vec!["root/**/*.log".into()], ..Default::default() };
    assert!(house.app.watch_files(Request::new(good.clone())).await.is_ok());
    for (field, wrong) in table {
        let mut request = good.clone();
        wrong(&mut request);
        let answer = house.app.watch_files(Request::new(request.clone())).await;
        assert_eq!(refusal(answer), invalid(field), "{request:?}");
    }
    let request = proto::WatchFilesRequest { cursor: Some("x".into()), ..good.clone() };
    assert_eq!(refusal(house.app.watch_files(Request::new(request)).await), malformed());
    let request = proto::WatchFilesRequest { globs: vec!["none/*".into()], ..good };
    assert_eq!(refusal(house.app.watch_files(Request::new(request)).await).0, "FILE_NOT_FOUND");
}

#[tokio::test]
async fn every_wrong_field_of_messages_is_named() {
    use messages_request::Start;
    type Wrong = fn(&mut proto::MessagesRequest);
    let house = House::new().await;
    let table: [(&str, Wrong); 19] = [
        ("topics", |r| r.topics.clear()),
        ("topics", |r| r.topics = vec!["a".into(); 65]),
        ("topics[1]", |r| r.topics.push("a b".into())),
        ("from_sequence", |r| r.start = Some(Start::FromSequence(0))),
        ("from_time", |r| r.start = Some(Start::FromTime(TIMES[0]))),
        ("from_time", |r| r.start = Some(Start::FromTime(TIMES[1]))),
        ("last", |r| r.start = Some(Start::Last(-1))),
        ("last", |r| r.start = Some(Start::Last(1_000_001))),
        ("until_sequence", |r| r.until_sequence = Some(0)),
        ("until_time", |r| r.until_time = Some(TIMES[2])),
        ("on_gap", |r| r.on_gap = -1),
        ("on_gap", |r| r.on_gap = 3),
        ("consumer", |r| r.consumer = Some(String::new())),
        ("consumer", |r| r.consumer = Some("a b".into())),
        ("consumer", |r| r.consumer = Some("$a".into())),
        ("consumer", |r| r.consumer = Some("a".repeat(129))),
        ("limit", |r| r.limit = Some(0)),
        ("heartbeat", |r| r.heartbeat = duration(7200, 0)),
        ("max_batch", |r| r.max_batch = Some(i32::MIN)),
    ];
    let good = proto::MessagesRequest { topics: vec!["a".into()], ..Default::default() };
    assert!(house.app.messages(Request::new(good.clone())).await.is_ok());
    for (field, wrong) in table {
        let mut request = good.clone();
        wrong(&mut request);
        let answer = house.app.messages(Request::new(request.clone())).await;
        assert_eq!(refusal(answer), invalid(field), "{request:?}");
    }
    let request = proto::MessagesRequest { cursor: Some("x".repeat(2_000)), ..good };
    assert_eq!(refusal(house.app.messages(Request::new(request)).await), malformed());
}

#[tokio::test]
async fn every_wrong_field_of_a_message_is_named_alone_and_in_a_batch() {
    type Wrong = fn(&mut proto::PublishRequest);
    let house = House::new().await;
    let table: [(&str, Wrong); 15] = [
        ("topic", |r| r.topic.clear()),
        ("topic", |r| r.topic = "a.>".into()),
        ("topic", |r| r.topic = "$countdown.a".into()),
        ("key", |r| r.key = Some("x".repeat(1025))),
        ("headers", |r| r.headers = [(String::new(), "x".into())].into()),
        ("headers", |r| r.headers = (0..65).map(|n| (n.to_string(), String::new())).collect()),
        ("message_id", |r| r.message_id = Some(String::new())),
        ("expected_sequence", |r| r.expected_sequence = Some(-1)),
        ("ttl", |r| r.ttl = duration(0, 0)),
        ("ttl", |r| r.ttl = duration(0, 999_999)),
        ("ttl", |r| r.ttl = duration(-1, 0)),
        ("ttl", |r| r.ttl = duration(1, -1)),
        ("ttl", |r| r.ttl = duration(10 * 366 * 24 * 60 * 60, 1)),
        ("ttl", |r| r.ttl = duration(i64::MAX, i32::MAX)),
        ("content", |r| {
            r.content = Some(proto::publish_request::Content::Data(vec![0; 1024 * 1024 + 1]));
        }),
    ];
    for (field, wrong) in table {
        let mut message = flow::message("a", "x");
        wrong(&mut message);
        let answer = house.app.publish(Request::new(message.clone())).await;
        assert_eq!(refusal(answer), invalid(field), "{:?}", message.topic);
        let messages = vec![flow::message("a", "x"), message];
        let answer = house.app.publish_batch(Request::new(proto::PublishBatchRequest { messages })).await;
        assert_eq!(refusal(answer), invalid(&format!("messages[1].{field}")));
    }
    for count in [0, 10_001] {
        let request = proto::PublishBatchRequest { messages: vec![flow::message("a", "x"); count] };
        assert_eq!(refusal(house.app.publish_batch(Request::new(request)).await), invalid("messages"));
    }
    // A refused batch publishes no message.
    assert_eq!(publish_one(&house).await, Some(1));
}

async fn publish_one(house: &House) -> Option<i64> {
    let published = limited(house.app.publish(Request::new(flow::message("a", "x")))).await;
    published.unwrap().into_inner().sequence
}

#[tokio::test]
async fn a_purge_accepts_one_topic_and_none_of_the_servers_own() {
    let house = House::new().await;
    let app = house.app.clone();
    let purge = |topic: &str, until_sequence| {
        let (app, topic) = (app.clone(), topic.to_owned());
        async move {
            let request = proto::PurgeTopicRequest { topic, until_sequence };
            refusal(app.purge_topic(Request::new(request)).await)
        }
    };
    for topic in ["", "a..b", "a b", "a.*", "a.>", ">", "$countdown.a", &"a".repeat(256)] {
        assert_eq!(purge(topic, None).await, invalid("topic"), "{topic}");
    }
    for until in [0, -1, i64::MIN] {
        assert_eq!(purge("a", Some(until)).await, invalid("until_sequence"), "{until}");
    }
    assert_eq!(purge("a", Some(1)).await.0, "TOPIC_NOT_FOUND");
    assert_eq!(purge("a", None).await.0, "TOPIC_NOT_FOUND");
}

#[tokio::test]
async fn a_commit_needs_a_valid_name_and_a_cursor_of_messages() {
    let mut house = House::new().await;
    let app = house.app.clone();
    let commit = |consumer: &str, cursor: &str| {
        let (app, consumer, cursor) = (app.clone(), consumer.to_owned(), cursor.to_owned());
        async move {
            let request = proto::CommitCursorRequest { consumer, cursor, rewind: false };
            refusal(app.commit_cursor(Request::new(request)).await)
        }
    };
    let delete = |consumer: &str| {
        let (app, consumer) = (app.clone(), consumer.to_owned());
        async move { refusal(app.delete_consumer(Request::new(proto::DeleteConsumerRequest { consumer })).await) }
    };
    let mut client = MessageServiceClient::new(house.connect().await);
    let request = proto::MessagesRequest { topics: vec![">".into()], ..Default::default() };
    let mut stream = limited(client.messages(request)).await.unwrap().into_inner();
    let cursor = limited(stream.message()).await.unwrap().unwrap().cursor;
    for name in ["", ".", "a.", "a b", "a/b", "*", "a.>", "a.>.b", "a*", "$a", "ä", &"a".repeat(129)] {
        assert_eq!(commit(name, &cursor).await, invalid("consumer"), "{name}");
        assert_eq!(delete(name).await, invalid("consumer"), "{name}");
    }
    assert_eq!(delete(&"a".repeat(128)).await.0, "CONSUMER_NOT_FOUND");

    let mut client = CountdownServiceClient::new(house.connect().await);
    let mut countdown = client.countdown(from(3)).await.unwrap().into_inner();
    let other = limited(countdown.message()).await.unwrap().unwrap().cursor;
    for cursor in ["", "x", &other, &"x".repeat(2_000)] {
        assert_eq!(commit("a", cursor).await, malformed(), "{cursor}");
    }
}

#[tokio::test]
async fn every_wrong_field_of_a_list_is_named() {
    let house = House::new().await;
    let page = |page_size, token: &str| {
        let page_token = token.to_owned();
        let files =
            proto::ListFilesRequest { page_size, page_token: page_token.clone(), ..Default::default() };
        let topics =
            proto::ListTopicsRequest { page_size, page_token: page_token.clone(), ..Default::default() };
        let consumers = proto::ListConsumersRequest { page_size, page_token, consumer: None };
        let app = house.app.clone();
        async move {
            [
                refusal(app.list_files(Request::new(files)).await),
                refusal(app.list_topics(Request::new(topics)).await),
                refusal(app.list_consumers(Request::new(consumers)).await),
            ]
        }
    };
    for size in [0, -1, 10_001] {
        assert_eq!(page(Some(size), "").await, [(); 3].map(|()| invalid("page_size")));
    }
    for token in ["%", "_w"] {
        assert_eq!(page(None, token).await, [(); 3].map(|()| invalid("page_token")), "{token}");
    }
    let request = proto::ListTopicsRequest { pattern: "a..b".into(), ..Default::default() };
    assert_eq!(refusal(house.app.list_topics(Request::new(request)).await), invalid("pattern"));
    let request = proto::ListFilesRequest { path: "none".into(), ..Default::default() };
    assert_eq!(refusal(house.app.list_files(Request::new(request)).await).0, "FILE_NOT_FOUND");
}

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let house = House::new().await;
    let mut names = vec!["a", "b", "c"];
    for name in &names {
        house.write(name, "");
        limited(house.app.publish(Request::new(flow::message(name, "x")))).await.unwrap();
    }
    let mut request = proto::ListTopicsRequest { page_size: Some(2), ..Default::default() };
    let mut files = proto::ListFilesRequest { page_size: Some(2), ..Default::default() };
    for expected in [vec!["a", "b"], vec!["c"]] {
        let page = house.app.list_topics(Request::new(request.clone())).await.unwrap().into_inner();
        assert_eq!(page.topics.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(), expected);
        request.page_token = page.next_page_token;
        let page = house.app.list_files(Request::new(files.clone())).await.unwrap().into_inner();
        let paths = page.files.iter().map(|file| file.path.strip_prefix("root/").unwrap());
        assert_eq!(paths.collect::<Vec<_>>(), expected);
        files.page_token = page.next_page_token;
        names.retain(|name| !expected.contains(name));
    }
    assert!(names.is_empty() && request.page_token.is_empty() && files.page_token.is_empty());
}

#[tokio::test]
async fn a_duration_out_of_range_is_reported_as_such() {
    let house = House::new().await;
    let duration = prost_types::Duration { seconds: 1 << 60, nanos: 0 };
    let create = proto::CreateCountdownRequest {
        name: "a".into(),
        target: Some(proto::create_countdown_request::Target::Duration(duration)),
        ..Default::default()
    };
    let interval = proto::CountdownRequest { interval: Some(duration), ..from(3) };
    let heartbeat = proto::CountdownRequest { heartbeat: Some(duration), ..from(3) };
    let flush = proto::ReadLinesRequest {
        path: "root/a".into(),
        partial_flush: Some(duration),
        ..Default::default()
    };
    let ttl = proto::PublishRequest { ttl: Some(duration), ..flow::message("a", "x") };
    for refused in [
        house.app.create_countdown(Request::new(create)).await.err(),
        house.app.countdown(Request::new(interval)).await.err(),
        house.app.countdown(Request::new(heartbeat)).await.err(),
        house.app.read_lines(Request::new(flush)).await.err(),
        house.app.publish(Request::new(ttl)).await.err(),
    ] {
        let text = refused.unwrap().message().to_owned();
        assert!(text.contains("is 1152921504606846976 s, which is out of range"), "{text}");
    }
}
