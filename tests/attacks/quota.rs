//! `--max-streams` counts every call of every service.

use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt;

use crate::harness::{Server, soon};

#[tokio::test]
async fn streams_of_health_and_reflection_count_and_a_check_is_answered_at_the_limit() {
    let server = Server::start_with(&["--max-streams", "3"]);
    let channel = server.connect().await;
    let mut health = HealthClient::new(channel.clone());
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        soon("the health", stream.message()).await.unwrap().unwrap();
        open.push(stream);
    }
    let refused = health.watch(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    let info = refused.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["limit"].as_str()), ("TOO_MANY_STREAMS", "3"));
    let request = perennial::proto::MessagesRequest { topics: vec!["a".into()], ..Default::default() };
    let refused = server.messages().await.messages(request).await.unwrap_err();
    assert_eq!(refused.get_details_error_info().unwrap().reason, "TOO_MANY_STREAMS");
    health.check(HealthCheckRequest::default()).await.unwrap();
    drop(open);
    crate::harness::until("a free place", async || health.watch(HealthCheckRequest::default()).await.is_ok())
        .await;
}

#[tokio::test]
async fn a_stream_of_another_service_ends_at_its_deadline() {
    let server = Server::start();
    let mut health = HealthClient::new(server.connect().await);
    let mut request = tonic::Request::new(HealthCheckRequest::default());
    request.metadata_mut().insert("grpc-timeout", "300m".parse().unwrap());
    let mut stream = health.watch(request).await.unwrap().into_inner();
    soon("the health", stream.message()).await.unwrap().unwrap();
    let ended = soon("the end", stream.message()).await.unwrap_err();
    assert_eq!(ended.code(), Code::DeadlineExceeded, "{ended:?}");
}
