#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::HashSet,
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures::{Stream, StreamExt, TryStreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    client::test_server,
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
