//! Requests that never end, that announce more than they send, and that grow when they are decoded.

use futures::future::join_all;
use perennial::proto::{MessagesRequest, PublishBatchRequest, PublishRequest};
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    harness::{Server, soon, until},
    raw::{PUBLISH_BATCH, Raw, Sent, framed, prefix, reason},
    status_kib,
};

const MIB: usize = 1024 * 1024;

/// The default window of the raw client.
const WINDOW: u32 = 65_535;

/// A message of this length without its last byte.
fn but_one(length: usize) -> Vec<u8> {
    [&prefix(length)[..], &vec![0; length - 1]].concat()
}

#[tokio::test]
async fn a_request_without_its_last_byte_ends_at_the_callers_deadline() {
    let server = Server::start();
    let mut client = Raw::connect(&server, WINDOW).await;
    for path in [PUBLISH_BATCH, "/perennial.v1.LineService/ReadLines", "/grpc.health.v1.Health/Check"] {
        let status = client.status(path, Sent::half(but_one(100)).with("grpc-timeout", "100m")).await;
        assert_eq!(reason(&status), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED".into()), "{path}");
    }
    // Of a request that is complete but for the end of its stream, too.
    let whole = framed(&PublishBatchRequest::default());
    let status = client.status(PUBLISH_BATCH, Sent::half(whole).with("grpc-timeout", "100m")).await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_client_that_sends_nothing_more_is_stalled() {
    let server = Server::start_with(&["--stall", "100ms"]);
    let mut client = Raw::connect(&server, WINDOW).await;
    for bytes in [Vec::new(), prefix(100).to_vec(), but_one(100)] {
        let status = client.status(PUBLISH_BATCH, Sent::half(bytes)).await;
        assert_eq!(reason(&status), (Code::Unavailable, "STALLED".into()));
        assert!(status.message().contains("sent nothing"), "{status:?}");
    }
}

#[tokio::test]
async fn a_half_sent_request_does_not_hold_up_a_drain() {
    let mut server = Server::start_with(&["--drain", "10m"]);
    let mut client = Raw::connect(&server, WINDOW).await;
    let mut other = client.clone();
    let call = tokio::spawn(async move { client.status(PUBLISH_BATCH, Sent::half(but_one(100))).await });
    // The server has the first call when it has answered the second.
    let status = other.status("/perennial.v1.MessageService/PurgeTopic", Sent::whole(prefix(0))).await;
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    server.terminate();
    let status = soon("the end of the call", call).await.unwrap();
    assert_eq!(reason(&status), (Code::Unavailable, "DRAINING".into()));
    assert!(server.wait().success());
}

#[tokio::test]
async fn a_length_that_is_only_announced_costs_nothing() {
    const CALLS: usize = 200;
    let server = Server::start();
    let before = status_kib(server.id(), "VmData");
    let client = Raw::connect(&server, WINDOW).await;
    let announce = |mut client: Raw| async move {
        let sent = Sent::half(prefix(4 * MIB)).with("grpc-timeout", "3S");
        client.status(PUBLISH_BATCH, sent).await.code()
    };
    let watch = async {
        let mut most = 0;
        loop {
            most = most.max(status_kib(server.id(), "VmData").saturating_sub(before));
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            if most > 400 * 1024 {
                return most;
            }
        }
    };
    let calls = join_all((0..CALLS).map(|_| announce(client.clone())));
    tokio::select! {
        codes = calls => assert!(codes.iter().all(|code| *code == Code::DeadlineExceeded), "{codes:?}"),
        most = watch => panic!("{most} KiB for {CALLS} announced lengths"),
    }
}

#[tokio::test]
async fn requests_that_are_not_complete_are_bounded_for_a_connection_and_for_the_server() {
    const CALLS: usize = 24;
    for (setting, connections) in [("--max-buffered-per-connection", 1), ("--max-buffered", 2)] {
        let server = Server::start_with(&[setting, "8MiB"]);
        let mut clients = Vec::new();
        for _ in 0..connections {
            clients.push(Raw::connect(&server, WINDOW).await);
        }
        let half = |index: usize| {
            let mut client = clients[index % connections].clone();
            async move { client.status(PUBLISH_BATCH, Sent::half(but_one(MIB)).with("grpc-timeout", "10S")).await }
        };
        let statuses = soon("the ends of the calls", join_all((0..CALLS).map(half))).await;
        let full = statuses.iter().filter(|status| reason(status).1 == "BUFFERS_FULL").collect::<Vec<_>>();
        let late = statuses.iter().filter(|status| status.code() == Code::DeadlineExceeded).count();
        assert_eq!(full.len() + late, CALLS, "{statuses:?}");
        // A buffer has up to twice the bytes that have arrived.
        assert!((4..=8).contains(&late), "{late} requests of 1 MiB fit");
        for status in full {
            assert_eq!(status.code(), Code::ResourceExhausted);
            assert!(status.message().contains(setting), "{status:?}");
            assert_eq!(status.get_details_error_info().unwrap().metadata["limit"], (8 * MIB).to_string());
            assert!(status.get_details_retry_info().is_some());
        }
        // What they held is free again.
        let message = PublishRequest { topic: "a".repeat(200), ..Default::default() };
        let batch = PublishBatchRequest { messages: vec![message; 6_000] };
        assert!(framed(&batch).len() > MIB);
        until("room for a whole request", async || {
            let mut client = server.messages().await;
            client.publish_batch(batch.clone()).await.is_ok()
        })
        .await;
    }
}

#[tokio::test]
async fn elements_are_counted_before_a_request_is_decoded() {
    let server = Server::start();
    let mut client = Raw::connect(&server, WINDOW).await;
    let before = status_kib(server.id(), "VmHWM");
    // Two bytes each.
    let messages = [&prefix(4 * MIB)[..], &[0x0a, 0].repeat(2 * MIB)].concat();
    let status = client.status(PUBLISH_BATCH, Sent::whole(messages)).await;
    assert_eq!(reason(&status), (Code::InvalidArgument, "INVALID_FIELD".into()));
    assert!(status.message().contains("messages has 2097152 messages: at most 10000"), "{status:?}");
    assert_eq!(status.get_details_error_info().unwrap().metadata["limit"], "10000");
    let grown = status_kib(server.id(), "VmHWM") - before;
    assert!(grown < 64 * 1024, "{grown} KiB for a request of 4 MiB");

    let patterns = framed(&MessagesRequest { topics: vec![String::new(); 65], ..Default::default() });
    let status = client.status("/perennial.v1.MessageService/Messages", Sent::whole(patterns)).await;
    assert_eq!(reason(&status), (Code::InvalidArgument, "INVALID_FIELD".into()));
    assert!(status.message().contains("topics has 65 patterns: at most 64"), "{status:?}");
    let patterns = [&prefix(4 * MIB)[..], &[0x0a, 0].repeat(2 * MIB)].concat();
    let status = client.status("/perennial.v1.MessageService/Messages", Sent::whole(patterns)).await;
    assert_eq!(reason(&status), (Code::ResourceExhausted, "REQUEST_TOO_LARGE".into()));
    assert_eq!(status.get_details_error_info().unwrap().metadata["limit"], "65536");
}

#[tokio::test]
async fn a_method_that_takes_one_request_takes_no_second() {
    let server = Server::start();
    let mut client = Raw::connect(&server, WINDOW).await;
    let twice = framed(&PublishBatchRequest::default()).repeat(2);
    let status = client.status(PUBLISH_BATCH, Sent::whole(twice)).await;
    assert_eq!(reason(&status), (Code::InvalidArgument, "REQUEST_MALFORMED".into()));
    let status = client.status(PUBLISH_BATCH, Sent::whole(prefix(4 * MIB))).await;
    assert_eq!(reason(&status), (Code::InvalidArgument, "REQUEST_MALFORMED".into()));
}

#[tokio::test]
async fn bytes_that_are_no_message_are_malformed_for_each_service() {
    let server = Server::start();
    let mut client = Raw::connect(&server, WINDOW).await;
    let health = ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"];
    for path in [PUBLISH_BATCH, "/perennial.v1.LineService/ReadLines"].into_iter().chain(health) {
        // A field whose length is missing.
        let status = client.status(path, Sent::whole([&prefix(1)[..], &[0x0a]].concat())).await;
        assert_eq!(reason(&status), (Code::InvalidArgument, "REQUEST_MALFORMED".into()), "{path}");
    }
}

#[tokio::test]
async fn what_is_not_a_call_is_refused_as_other_servers_of_grpc_do() {
    let server = Server::start();
    let mut client = Raw::connect(&server, WINDOW).await;
    let check = "/grpc.health.v1.Health/Check";
    for kind in ["", "text/plain", "application/json", "application/grpcx"] {
        let sent = Sent::whole(prefix(0)).with("content-type", kind);
        let response = soon("a refusal", client.call(check, sent)).await;
        assert_eq!(response.status(), 415, "{kind}");
        assert_eq!(response.headers()["grpc-status"], "3");
    }
    for kind in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"] {
        let sent = Sent::whole(prefix(0)).with("content-type", kind);
        let response = soon("an answer", client.call(check, sent)).await;
        assert_eq!(response.status(), 200, "{kind}");
        assert!(!response.headers().contains_key("grpc-status"), "{kind}");
    }
    for timeout in
        ["1", "S", "123456789S", "1x", "1X", "1s", "-1S", "+1S", "1 S", "1S ", "1.5S", "1e3S", "\u{ff11}S"]
    {
        let sent = Sent::whole(prefix(0)).with("grpc-timeout", timeout);
        let response = soon("a refusal", client.call(check, sent)).await;
        assert_eq!(response.status(), 400, "{timeout}");
        assert_eq!(response.headers()["grpc-status"], "13");
    }
    for timeout in ["0S", "00n"] {
        let status = client.status(check, Sent::whole(prefix(0)).with("grpc-timeout", timeout)).await;
        assert_eq!(reason(&status), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED".into()), "{timeout}");
    }
    for path in [
        "/grpc.health.v1.Health/Nope",
        "/nope.Service/Check",
        "/",
        "//",
        "/grpc.health.v1.Health",
        "/grpc.health.v1.Health/Check/",
        "/grpc.health.v1.Health//Check",
        "/../grpc.health.v1.Health/Check",
        "/%67rpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Check?x=1",
        "/perennial.v1.MessageService/Publish?",
    ] {
        let status = client.status(path, Sent::whole(prefix(0))).await;
        assert_eq!(reason(&status), (Code::Unimplemented, "REQUEST_MALFORMED".into()), "{path}");
        assert!(status.message().contains("method") || status.message().contains("query"), "{status:?}");
    }
}

#[tokio::test]
async fn compressed_messages_are_refused_and_not_decoded() {
    let server = Server::start();
    let mut client = Raw::connect(&server, WINDOW).await;
    let before = status_kib(server.id(), "VmHWM");
    for path in ["/grpc.health.v1.Health/Check", PUBLISH_BATCH] {
        for encoding in ["gzip", "deflate", "zstd", "br", "nope"] {
            for flag in [0, 1] {
                let bytes = [&[flag][..], &prefix(60_000)[1..], &vec![0x1f; 60_000]].concat();
                let status = client.status(path, Sent::whole(bytes).with("grpc-encoding", encoding)).await;
                assert_eq!(status.code(), Code::Unimplemented, "{path} {encoding}: {status:?}");
            }
        }
        // Marked as compressed, without a name of how; or marked as something that does not exist.
        for flag in [1, 2, 255] {
            let status = client.status(path, Sent::whole([flag, 0, 0, 0, 0])).await;
            assert!([Code::Internal, Code::InvalidArgument].contains(&status.code()), "{path}: {status:?}");
        }
    }
    let grown = status_kib(server.id(), "VmHWM") - before;
    assert!(grown < 32 * 1024, "{grown} KiB");
}
