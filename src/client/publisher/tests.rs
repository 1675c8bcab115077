#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::HashSet,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use tokio::task::unconstrained;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    client::{Client, Error, test_server},
    grpc::codec::Encoded,
    proto::{
        self, ListTopicsRequest, ListTopicsResponse, MessagesRequest, PublishBatchRequest,
        PublishBatchResponse, PublishRequest, PublishResponse, PublishResult, PublishStreamRequest,
        PublishStreamResponse,
        message_service_server::{MessageService, MessageServiceServer},
        publish_request::Content,
        publish_result,
    },
};

type Answers = Pin<Box<dyn Stream<Item = Result<PublishStreamResponse, Status>> + Send>>;

/// The texts that were published, and their ids.
#[derive(Default)]
struct Log {
    texts: Vec<String>,
    ids: HashSet<String>,
    repeated: usize,
    calls: usize,
}

/// Publishes each id once. It cuts the first four calls after a frame that it does not answer.
#[derive(Clone, Default)]
struct Cutting(Arc<Mutex<Log>>);

impl Cutting {
    fn take(&self, frame: PublishStreamRequest) -> PublishStreamResponse {
        let mut log = self.0.lock().unwrap();
        let mut results = Vec::new();
        for message in frame.messages {
            let Some(Content::Text(text)) = message.content else { panic!("no text") };
            if log.ids.insert(message.message_id.unwrap()) {
                log.texts.push(text);
            } else {
                log.repeated += 1;
            }
            let published = publish_result::Outcome::Published(PublishResponse::default());
            results.push(PublishResult { outcome: Some(published) });
        }
        PublishStreamResponse { results }
    }
}

#[tonic::async_trait]
impl MessageService for Cutting {
    type MessagesStream = futures::stream::Empty<Result<Encoded, Status>>;
    type PublishStreamStream = Answers;

    async fn publish_stream(
        &self,
        request: Request<Streaming<PublishStreamRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let call = {
            let mut log = self.0.lock().unwrap();
            log.calls += 1;
            log.calls
        };
        let this = self.clone();
        let answers = request.into_inner().enumerate().map(move |(n, frame)| {
            let answer = this.take(frame?);
            if call < 5 && n == call % 2 { Err(Status::unavailable("cut")) } else { Ok(answer) }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn messages(&self, _: Request<MessagesRequest>) -> Result<Response<Self::MessagesStream>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn publish(&self, _: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn publish_batch(
        &self,
        _: Request<PublishBatchRequest>,
    ) -> Result<Response<PublishBatchResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn list_topics(
        &self,
        _: Request<ListTopicsRequest>,
    ) -> Result<Response<ListTopicsResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn purge_topic(
        &self,
        _: Request<proto::PurgeTopicRequest>,
    ) -> Result<Response<proto::PurgeTopicResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn commit_cursor(
        &self,
        _: Request<proto::CommitCursorRequest>,
    ) -> Result<Response<proto::CommitCursorResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn set_consumer(
        &self,
        _: Request<proto::SetConsumerRequest>,
    ) -> Result<Response<proto::SetConsumerResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn list_consumers(
        &self,
        _: Request<proto::ListConsumersRequest>,
    ) -> Result<Response<proto::ListConsumersResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn delete_consumer(
        &self,
        _: Request<proto::DeleteConsumerRequest>,
    ) -> Result<Response<proto::DeleteConsumerResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[tokio::test]
async fn unanswered_messages_are_sent_again_and_published_once_in_order() {
    let server = Cutting::default();
    let routes = tonic::service::Routes::new(MessageServiceServer::new(server.clone()));
    let client = test_server::serve(routes).await;
    let expected = (0..20_000).map(|n| n.to_string()).collect::<Vec<_>>();
    let messages = expected.clone().into_iter().map(|text| PublishRequest {
        topic: "a".into(),
        content: Some(Content::Text(text)),
        ..PublishRequest::default()
    });
    let results = client.publish_all(futures::stream::iter(messages)).try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(results.len(), expected.len());
    let log = server.0.lock().unwrap();
    assert_eq!(log.texts, expected);
    assert!(log.calls == 5 && log.repeated > 0, "{} calls, {} repeated", log.calls, log.repeated);
}

fn message(n: usize) -> PublishRequest {
    PublishRequest::new("a", n.to_string())
}

async fn cutting() -> (Cutting, Client) {
    let server = Cutting::default();
    let routes = tonic::service::Routes::new(MessageServiceServer::new(server.clone()));
    let client = test_server::serve(routes).await;
    (server, client)
}

#[tokio::test]
async fn flush_waits_for_every_receipt_and_close_too() {
    let (server, client) = cutting().await;
    let publisher = client.publisher();
    publisher.flush().await.unwrap();
    let mut receipts = Vec::new();
    // More than have room without an answer.
    for n in 0..10_000 {
        receipts.push(publisher.publish(message(n)).await.unwrap());
    }
    publisher.flush().await.unwrap();
    for receipt in receipts {
        // Otherwise tokio lets a task that never waits receive only some of them.
        unconstrained(receipt).now_or_never().unwrap().unwrap();
    }
    let last = publisher.publish(message(10_000)).await.unwrap();
    publisher.close().await.unwrap();
    last.now_or_never().unwrap().unwrap();
    let expected = (0..=10_000).map(|n| n.to_string()).collect::<Vec<_>>();
    assert_eq!(server.0.lock().unwrap().texts, expected);
}

#[tokio::test]
async fn a_publisher_without_messages_calls_nothing() {
    let (server, client) = cutting().await;
    client.publisher().close().await.unwrap();
    assert_eq!(server.0.lock().unwrap().calls, 0);
}

#[tokio::test]
async fn flush_and_close_report_why_the_publisher_has_failed() {
    let client = Client::new("127.0.0.1:1").unwrap().with_connect_timeout(Duration::from_millis(300));
    let publisher = client.publisher();
    let receipt = publisher.publish(message(0)).await.unwrap();
    let is_unreachable = |error: &Error| matches!(error, Error::Unreachable { .. });
    assert!(is_unreachable(&publisher.flush().await.unwrap_err()));
    assert!(is_unreachable(&receipt.await.unwrap_err()));
    assert!(is_unreachable(&publisher.publish(message(1)).await.unwrap_err()));
    assert!(is_unreachable(&publisher.close().await.unwrap_err()));
}

#[tokio::test]
async fn a_receipt_of_a_publisher_that_was_dropped_is_an_error() {
    let (_, client) = cutting().await;
    let publisher = client.publisher();
    let receipt = publisher.publish(message(0)).await.unwrap();
    drop(publisher);
    assert!(matches!(receipt.await, Err(Error::PublisherEnded)));
}
