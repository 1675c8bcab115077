//! The typed client: the same verbs as the contract, in streams that reconnect and resume by themselves.
//!
//! A stream keeps the cursor of the last response. When it is lost for a reason that may pass, it waits, sends the
//! same request with that cursor, and goes on: nothing is missed and nothing comes twice, and `limit` counts over all
//! of it. The first connection fails at once if nothing answers. Printing and arguments are left to the caller.

use std::{fmt, sync::Arc, time::Duration};

use futures::Stream;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::proto::{
    CommitCursorRequest, Consumer, CountdownRequest, CountdownResponse, DeleteConsumerRequest, File,
    ListConsumersRequest, ListFilesRequest, ListTopicsRequest, MessagesRequest, MessagesResponse,
    PublishBatchRequest, PublishRequest, PublishResponse, PublishResult, PurgeTopicRequest, ReadLinesRequest,
    ReadLinesResponse, Topic, line_service_client::LineServiceClient,
    message_service_client::MessageServiceClient,
};

mod error;
mod publisher;
mod resume;

pub use error::{Error, Violation};
pub use tonic::Code;

/// Of a connection: many streams share it, and an unread one must not hold up the others.
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// Of a stream: 64 of the largest usual batches in flight.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Under the time after which middleboxes forget a connection, as the server does.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// A ping unanswered for so long means that the connection is gone.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// A host that does not answer a SYN for so long is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Above any batch, also where the operator raised the limit of a line or a message.
const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

/// What befell a stream, told to the observer.
#[derive(Debug)]
pub enum Notice<'a> {
    /// The stream was lost, and is opened again after `wait`.
    Interrupted {
        /// Why.
        error: &'a Error,
        /// How long until the next attempt.
        wait: Duration,
    },
    /// A response arrived again.
    Resumed,
}

type Observer = Arc<dyn Fn(&Notice<'_>) + Send + Sync>;

/// A client of one server; cheap to clone, all clones share a connection.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    endpoint: Arc<Endpoint>,
    url: String,
    observer: Observer,
    publish_window: usize,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the server at `url`; `http://` is assumed where there is no scheme. It connects at the first call.
    pub fn connect(url: &str) -> Result<Self, Error> {
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let endpoint = Endpoint::from_shared(url.clone()).map_err(|_| Error::Url { url: url.clone() })?;
        let endpoint = endpoint
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT);
        Ok(Self {
            channel: endpoint.connect_lazy(),
            endpoint: endpoint.into(),
            url,
            observer: Arc::new(|_| {}),
            publish_window: publisher::WINDOW_MESSAGES,
        })
    }

    /// The same over a connection of its own: one carries as many streams at once as the server allows, 256 by default.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self { channel: self.endpoint.connect_lazy(), ..self.clone() }
    }

    /// Tells each interruption and recovery of this client's streams to `observer`.
    #[must_use]
    pub fn with_observer(mut self, observer: impl Fn(&Notice<'_>) + Send + Sync + 'static) -> Self {
        self.observer = Arc::new(observer);
        self
    }

    /// Leaves at most so many messages of a flow of [`Self::publish_all`] unanswered; 8,192 by default, at least 1.
    ///
    /// Fewer wait less long in the queue before them; more keep a server busy that is far away.
    #[must_use]
    pub fn with_publish_window(mut self, messages: usize) -> Self {
        self.publish_window = messages;
        self
    }

    /// The numbers of a countdown.
    pub fn countdown(
        &self,
        request: CountdownRequest,
    ) -> impl Stream<Item = Result<CountdownResponse, Error>> + Send + use<> {
        resume::stream(self.clone(), request)
    }

    /// The lines of a file.
    pub fn lines(
        &self,
        request: ReadLinesRequest,
    ) -> impl Stream<Item = Result<ReadLinesResponse, Error>> + Send + use<> {
        resume::stream(self.clone(), request)
    }

    /// The messages of topics; read as a consumer, the place is committed by the caller, with [`Self::commit_cursor`].
    pub fn messages(
        &self,
        request: MessagesRequest,
    ) -> impl Stream<Item = Result<MessagesResponse, Error>> + Send + use<> {
        resume::stream(self.clone(), request)
    }

    /// Publishes one message, once: it is not repeated here. Set `message_id` to repeat it safely.
    pub async fn publish(&self, request: PublishRequest) -> Result<PublishResponse, Error> {
        let answer = self.message_client().publish(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.error(&status))
    }

    /// Publishes several messages, all or none; one answer for each, in their order. It is not repeated here.
    pub async fn publish_batch(&self, messages: Vec<PublishRequest>) -> Result<Vec<PublishResponse>, Error> {
        let answer = self.message_client().publish_batch(PublishBatchRequest { messages }).await;
        Ok(answer.map_err(|status| self.error(&status))?.into_inner().results)
    }

    /// Publishes a flow of messages, each on its own; one result for each, in their order.
    ///
    /// A message without an id is given one, and what was unanswered when a connection was lost is sent again with
    /// the same ids: within the dedupe window of the server nothing is published twice. What is unanswered is
    /// bounded: `messages` is not polled while the window is full.
    pub fn publish_all(
        &self,
        messages: impl Stream<Item = PublishRequest> + Send,
    ) -> impl Stream<Item = Result<PublishResult, Error>> + Send {
        publisher::stream(self.clone(), messages)
    }

    /// The files below a root or a directory, or of all roots where `path` is empty: all pages.
    pub async fn list_files(&self, path: &str) -> Result<Vec<File>, Error> {
        let mut client =
            LineServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE_BYTES);
        let mut request = ListFilesRequest { path: path.to_owned(), ..ListFilesRequest::default() };
        let mut files = Vec::new();
        loop {
            let answer = client.list_files(request.clone()).await;
            let page = answer.map_err(|status| self.error(&status))?.into_inner();
            files.extend(page.files);
            if page.next_page_token.is_empty() {
                return Ok(files);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// The topics that match a pattern, or all where it is empty: all pages.
    pub async fn list_topics(&self, pattern: &str) -> Result<Vec<Topic>, Error> {
        let mut client = self.message_client();
        let mut request = ListTopicsRequest { pattern: pattern.to_owned(), ..ListTopicsRequest::default() };
        let mut topics = Vec::new();
        loop {
            let answer = client.list_topics(request.clone()).await;
            let page = answer.map_err(|status| self.error(&status))?.into_inner();
            topics.extend(page.topics);
            if page.next_page_token.is_empty() {
                return Ok(topics);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Removes the messages of a topic, all or up to a sequence, for good: how many they were.
    pub async fn purge_topic(&self, topic: &str, until_sequence: Option<i64>) -> Result<i64, Error> {
        let request = PurgeTopicRequest { topic: topic.to_owned(), until_sequence };
        let answer = self.message_client().purge_topic(request).await;
        let answer = answer.map_err(|status| self.error(&status))?.into_inner();
        Ok(answer.message_count.unwrap_or_default())
    }

    /// Keeps a cursor of [`Self::messages`] under the name of a consumer; it is on disk when this returns.
    ///
    /// Commit after what the cursor stands behind was dealt with. Without `rewind`, a commit that would move the
    /// consumer back fails (`COMMIT_BEHIND`). It is safe to repeat.
    pub async fn commit_cursor(&self, consumer: &str, cursor: &str, rewind: bool) -> Result<(), Error> {
        let request =
            CommitCursorRequest { consumer: consumer.to_owned(), cursor: cursor.to_owned(), rewind };
        let answer = self.message_client().commit_cursor(request).await;
        answer.map(drop).map_err(|status| self.error(&status))
    }

    /// All consumers, by name: all pages.
    pub async fn list_consumers(&self) -> Result<Vec<Consumer>, Error> {
        let mut client = self.message_client();
        let mut request = ListConsumersRequest::default();
        let mut consumers = Vec::new();
        loop {
            let answer = client.list_consumers(request.clone()).await;
            let page = answer.map_err(|status| self.error(&status))?.into_inner();
            consumers.extend(page.consumers);
            if page.next_page_token.is_empty() {
                return Ok(consumers);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// A consumer, if there is one of this name.
    pub async fn consumer(&self, name: &str) -> Result<Option<Consumer>, Error> {
        let request =
            ListConsumersRequest { consumer: Some(name.to_owned()), ..ListConsumersRequest::default() };
        let answer = self.message_client().list_consumers(request).await;
        Ok(answer.map_err(|status| self.error(&status))?.into_inner().consumers.pop())
    }

    /// Forgets a consumer, for good. Who reads under its name is not disturbed.
    pub async fn delete_consumer(&self, consumer: &str) -> Result<(), Error> {
        let request = DeleteConsumerRequest { consumer: consumer.to_owned() };
        let answer = self.message_client().delete_consumer(request).await;
        answer.map(drop).map_err(|status| self.error(&status))
    }

    /// Whether a service is served, by its full name; the server as a whole where it is empty.
    pub async fn health(&self, service: &str) -> Result<ServingStatus, Error> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = HealthClient::new(self.channel.clone()).check(request).await;
        Ok(answer.map_err(|status| self.error(&status))?.into_inner().status())
    }

    fn message_client(&self) -> MessageServiceClient<Channel> {
        MessageServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE_BYTES)
    }

    fn error(&self, status: &Status) -> Error {
        Error::from_status(status, &self.url)
    }
}
