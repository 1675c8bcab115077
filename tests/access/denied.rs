//! Each method without the right to call it: the same denial, whether the thing exists or not.

use bytes::{Buf, BufMut, Bytes};
use futures::{StreamExt, stream};
use http::uri::PathAndQuery;
use perennial::proto::{self, create_countdown_request};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};
use tonic_types::StatusExt;

use crate::{
    harness::soon,
    house::{CALLERS, House, RULES},
};

/// Bytes as they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(bytes.copy_to_bytes(bytes.remaining())))
    }
}

/// Calls a method with a request. The first response, or the status.
pub async fn call(
    channel: &Channel,
    path: &str,
    request: Vec<u8>,
    token: Option<&str>,
) -> Result<Bytes, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let messages = stream::iter([Bytes::from(request)]);
    let mut request = Request::new(messages);
    if let Some(token) = token {
        let header = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", header);
    }
    let path = PathAndQuery::try_from(path).unwrap();
    let mut responses = soon("an answer", grpc.streaming(request, path, Raw)).await?.into_inner();
    soon("a response", responses.next()).await.unwrap_or(Ok(Bytes::new()))
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// The paths of all methods of a contract.
fn methods(set: &[u8], package: &str) -> Vec<String> {
    let files = FileDescriptorSet::decode(set).unwrap().file.into_iter();
    let services = files.filter(|file| file.package() == package).flat_map(|file| file.service);
    let paths = services.flat_map(|service| {
        let path = |method: &prost_types::MethodDescriptorProto| {
            format!("/{package}.{}/{}", service.name(), method.name())
        };
        service.method.iter().map(path).collect::<Vec<_>>()
    });
    paths.collect()
}

#[tokio::test]
async fn no_method_of_any_service_can_be_called_without_a_right_except_health() {
    let house = House::with(&RULES.replace("nowhere", "$countdown.x"), &[]);
    let channel = house.server.connect().await;
    let own = methods(proto::FILE_DESCRIPTOR_SET, "perennial.v1");
    assert!(own.len() >= 22, "{own:?}");
    // A request without a field has no name that a rule has. `nobody` may publish to a topic of the server's own alone.
    let of_publishing = |path: &str| path.contains("/Publish");
    for path in &own {
        let stranger = call(&channel, path, Vec::new(), None).await.unwrap_err();
        assert_eq!(
            (stranger.code(), reason(&stranger).as_str()),
            (Code::Unauthenticated, "CREDENTIALS_MISSING"),
            "{path}"
        );
        let known = call(&channel, path, Vec::new(), Some(house.token("nobody"))).await;
        if path.ends_with("PublishStream") || path.ends_with("PublishBatch") {
            // These are about messages, of which there is none.
            assert!(known.is_err_and(|status| status.code() == Code::InvalidArgument), "{path}");
            continue;
        }
        let known = known.unwrap_err();
        assert_eq!(
            (known.code(), reason(&known).as_str()),
            (Code::PermissionDenied, "ACCESS_DENIED"),
            "{path}"
        );
        assert!(known.message().contains("token:nobody"), "{known:?}");
        assert!(!of_publishing(path) || known.message().starts_with("topic "), "{known:?}");
    }
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        assert_eq!(call(&channel, &path, Vec::new(), None).await.unwrap_err().code(), Code::Unauthenticated);
        // A caller who has some right may see the contract.
        let known = call(&channel, &path, Vec::new(), Some(house.token("nobody"))).await.unwrap_err();
        assert_eq!((known.code(), known.message()), (Code::InvalidArgument, "invalid MessageRequest"));
    }
    assert_eq!(
        call(&channel, "/other/Method", Vec::new(), None).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    call(&channel, "/grpc.health.v1.Health/Check", Vec::new(), None).await.unwrap();
    // A wrong token does not stop a probe.
    call(&channel, "/grpc.health.v1.Health/Check", Vec::new(), Some("wrong")).await.unwrap();
}

/// A request, and who may make it.
struct Case {
    path: &'static str,
    request: Vec<u8>,
    caller: &'static str,
}

fn case(path: &'static str, request: &impl Message, caller: &'static str) -> Case {
    Case { path, request: request.encode_to_vec(), caller }
}

/// Requests about a thing of this name.
fn cases(name: &str) -> Vec<Case> {
    let [topic, consumer, countdown] = ["orders", "work", "launch"].map(|kind| format!("{kind}.{name}"));
    let file = format!("logs/{name}.log");
    let on_end = |topic: &str| proto::EndMessage { topic: topic.into(), ..Default::default() };
    let create = |end: Option<&str>| proto::CreateCountdownRequest {
        name: countdown.clone(),
        target: Some(create_countdown_request::Target::Start(1_000_000)),
        on_end: end.map(on_end),
        ..Default::default()
    };
    vec![
        case(
            "/perennial.v1.MessageService/Messages",
            &proto::MessagesRequest { topics: vec![topic.clone()], ..Default::default() },
            "reader",
        ),
        case(
            "/perennial.v1.MessageService/Messages",
            &proto::MessagesRequest {
                topics: vec![topic.clone()],
                consumer: Some(consumer.clone()),
                ..Default::default()
            },
            "operator",
        ),
        case(
            "/perennial.v1.MessageService/Publish",
            &proto::PublishRequest { topic: topic.clone(), ..Default::default() },
            "writer",
        ),
        case(
            "/perennial.v1.MessageService/PurgeTopic",
            &proto::PurgeTopicRequest { topic, until_sequence: None },
            "writer",
        ),
        case(
            "/perennial.v1.MessageService/SetConsumer",
            &proto::SetConsumerRequest {
                consumer: consumer.clone(),
                start: Some(proto::set_consumer_request::Start::Earliest(true)),
            },
            "worker",
        ),
        case(
            "/perennial.v1.MessageService/ListConsumers",
            &proto::ListConsumersRequest { consumer: Some(consumer.clone()), ..Default::default() },
            "worker",
        ),
        case(
            "/perennial.v1.MessageService/DeleteConsumer",
            &proto::DeleteConsumerRequest { consumer },
            "worker",
        ),
        case(
            "/perennial.v1.LineService/ReadLines",
            &proto::ReadLinesRequest { path: file, ..Default::default() },
            "tail",
        ),
        case(
            "/perennial.v1.LineService/WatchFiles",
            &proto::WatchFilesRequest { globs: vec![format!("logs/{name}*.log")], ..Default::default() },
            "tail",
        ),
        case("/perennial.v1.CountdownService/CreateCountdown", &create(None), "clock"),
        // The end of a countdown publishes, which needs a right of its own.
        case("/perennial.v1.CountdownService/CreateCountdown", &create(Some("orders.end")), "operator"),
        case(
            "/perennial.v1.CountdownService/GetCountdown",
            &proto::GetCountdownRequest { name: countdown.clone() },
            "clock",
        ),
        case(
            "/perennial.v1.CountdownService/DeleteCountdown",
            &proto::DeleteCountdownRequest { name: countdown.clone(), version: None },
            "clock",
        ),
    ]
}

#[tokio::test]
async fn a_denial_is_the_same_whether_the_thing_exists_or_not() {
    let house = House::new();
    let channel = house.server.connect().await;
    std::fs::write(house.server.log_file("there.log"), "a\n").unwrap();
    // The operator creates everything.
    for case in
        cases("there").iter().filter(|case| !case.path.contains("Delete") && !case.path.contains("Purge"))
    {
        let answer = made(&house, &channel, case, "operator").await;
        assert!(answer.is_ok() || case.path.contains("Countdown"), "{}: {answer:?}", case.path);
    }
    let mut denials = 0;
    for (there, absent) in cases("there").iter().zip(cases("absent").iter()) {
        for caller in CALLERS.iter().filter(|caller| ![there.caller, "operator"].contains(*caller)) {
            let [there, absent] =
                [made(&house, &channel, there, caller).await, made(&house, &channel, absent, caller).await]
                    .map(|answer| {
                        answer.map_err(|status| (status.code(), status.message().replace("absent", "there")))
                    });
            let (code, text) = there.clone().unwrap_err();
            assert_eq!(code, Code::PermissionDenied, "{caller}: {text}");
            assert_eq!(there, absent);
            denials += 1;
        }
    }
    assert!(denials > 50);
    for case in cases("there") {
        let answer = made(&house, &channel, &case, case.caller).await;
        let is_allowed = !answer.is_err_and(|status| status.code() == Code::PermissionDenied);
        assert!(is_allowed, "{}: {}", case.path, case.caller);
    }
}

/// Requests with a cursor of another caller, for a thing that a caller may not have: the denial is that without a cursor.
#[tokio::test]
async fn a_cursor_grants_nothing() {
    let house = House::new();
    let channel = house.server.connect().await;
    std::fs::write(house.server.log_file("a.log"), "a\n").unwrap();
    let operator = house.client(Some("operator"));
    let message = proto::PublishRequest { topic: "orders.a".into(), ..Default::default() };
    operator.publish(message).await.unwrap();
    let start = Some(create_countdown_request::Target::Start(1_000_000));
    let countdown =
        proto::CreateCountdownRequest { name: "launch.a".into(), target: start, ..Default::default() };
    operator.create_countdown(countdown).await.unwrap();
    let messages =
        |cursor| proto::MessagesRequest { topics: vec!["orders.a".into()], cursor, ..Default::default() };
    let lines = |cursor| proto::ReadLinesRequest { path: "logs/a.log".into(), cursor, ..Default::default() };
    let ticks = |cursor| proto::CountdownRequest {
        target: Some(proto::countdown_request::Target::Name("launch.a".into())),
        cursor,
        ..Default::default()
    };
    let first = |path, request: Vec<u8>| {
        let (channel, token) = (channel.clone(), house.token("operator").to_owned());
        async move { call(&channel, path, request, Some(&token)).await.unwrap() }
    };
    let files =
        |cursor| proto::WatchFilesRequest { globs: vec!["logs/a.log".into()], cursor, ..Default::default() };
    let [of_messages, of_lines, of_files, of_ticks] = [
        "/perennial.v1.MessageService/Messages",
        "/perennial.v1.LineService/ReadLines",
        "/perennial.v1.LineService/WatchFiles",
        "/perennial.v1.CountdownService/Countdown",
    ];
    let cursor = first(of_messages, messages(None).encode_to_vec()).await;
    let cursor_of_messages = Some(proto::MessagesResponse::decode(cursor).unwrap().cursor);
    let cursor = first(of_lines, lines(None).encode_to_vec()).await;
    let cursor_of_lines = Some(proto::ReadLinesResponse::decode(cursor).unwrap().cursor);
    let cursor = first(of_files, files(None).encode_to_vec()).await;
    let cursor_of_files = Some(proto::WatchFilesResponse::decode(cursor).unwrap().cursor);
    let cursor = first(of_ticks, ticks(None).encode_to_vec()).await;
    let cursor_of_ticks = Some(proto::CountdownResponse::decode(cursor).unwrap().cursor);
    for (path, with, without, may) in [
        (
            of_messages,
            messages(cursor_of_messages.clone()).encode_to_vec(),
            messages(None).encode_to_vec(),
            "reader",
        ),
        (of_lines, lines(cursor_of_lines).encode_to_vec(), lines(None).encode_to_vec(), "tail"),
        (of_files, files(cursor_of_files).encode_to_vec(), files(None).encode_to_vec(), "tail"),
        (of_ticks, ticks(cursor_of_ticks).encode_to_vec(), ticks(None).encode_to_vec(), "clock"),
    ] {
        for caller in CALLERS.iter().filter(|caller| **caller != "operator") {
            let mut denials = Vec::new();
            for request in [&with, &without] {
                let answer = call(&channel, path, request.clone(), Some(house.token(caller))).await;
                denials.push(answer.map(drop).map_err(|status| (status.code(), status.message().to_owned())));
            }
            assert_eq!(denials[0], denials[1], "{path} {caller}");
            assert_eq!(denials[0].is_ok(), *caller == may, "{path} {caller}");
        }
    }
    // A cursor of other topics does not widen what a pattern yields.
    let request =
        proto::MessagesRequest { topics: vec![">".into()], cursor: cursor_of_messages, ..Default::default() };
    let answer = call(&channel, of_messages, request.encode_to_vec(), Some(house.token("worker"))).await;
    assert_eq!(answer.unwrap_err().code(), Code::PermissionDenied);
}

async fn made(house: &House, channel: &Channel, case: &Case, caller: &str) -> Result<Bytes, Status> {
    call(channel, case.path, case.request.clone(), Some(house.token(caller))).await
}
