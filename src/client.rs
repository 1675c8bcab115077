//! The typed client: the same verbs as the contract, in streams that reconnect and resume by themselves.
//!
//! A stream keeps the cursor of the last response. When it is lost for a reason that may pass, it waits, sends the
//! same request with that cursor, and goes on: nothing is missed and nothing comes twice, and `limit` counts over all
//! of it. The first connection fails at once if nothing answers. Printing and arguments are left to the caller.

use std::{fmt, sync::Arc, time::Duration};

use futures::Stream;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::proto::{
    CountdownRequest, CountdownResponse, File, ListFilesRequest, ListTopicsRequest, MessagesRequest,
    MessagesResponse, PublishRequest, PublishResponse, PublishResult, ReadLinesRequest, ReadLinesResponse,
    Topic, line_service_client::LineServiceClient, message_service_client::MessageServiceClient,
};

mod error;
mod publisher;
mod resume;

pub use error::{Error, Violation};

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
    url: String,
    observer: Observer,
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
        let channel = endpoint
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .connect_lazy();
        Ok(Self { channel, url, observer: Arc::new(|_| {}) })
    }

    /// Tells each interruption and recovery of this client's streams to `observer`.
    #[must_use]
    pub fn with_observer(mut self, observer: impl Fn(&Notice<'_>) + Send + Sync + 'static) -> Self {
        self.observer = Arc::new(observer);
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

    /// The messages of topics.
    pub fn messages(
        &self,
        request: MessagesRequest,
    ) -> impl Stream<Item = Result<MessagesResponse, Error>> + Send + use<> {
        resume::stream(self.clone(), request)
    }

    /// Publishes what `messages` gives, each with an id of its own where it has none; yields the results in the same
    /// order. When the connection is lost, what was not answered is sent again under the same ids: nothing is published
    /// twice.
    pub fn publish_stream<S>(
        &self,
        messages: S,
    ) -> impl Stream<Item = Result<PublishResult, Error>> + Send + use<S>
    where
        S: Stream<Item = PublishRequest> + Send + 'static,
    {
        publisher::publish(self.clone(), messages)
    }

    /// The files that can be read, all pages of them: below a root or a directory, or all.
    pub async fn list_files(&self, path: &str) -> Result<Vec<File>, Error> {
        let mut client = LineServiceClient::new(self.channel.clone());
        let mut request = ListFilesRequest { path: path.into(), ..Default::default() };
        let mut files = Vec::new();
        loop {
            let page =
                client.list_files(request.clone()).await.map_err(|status| self.error(&status))?.into_inner();
            files.extend(page.files);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return Ok(files);
            }
        }
    }

    /// The topics that match a pattern, or all: all pages of them.
    pub async fn list_topics(&self, pattern: &str) -> Result<Vec<Topic>, Error> {
        let mut client = MessageServiceClient::new(self.channel.clone());
        let mut request = ListTopicsRequest { pattern: pattern.into(), ..Default::default() };
        let mut topics = Vec::new();
        loop {
            let page =
                client.list_topics(request.clone()).await.map_err(|status| self.error(&status))?.into_inner();
            topics.extend(page.topics);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return Ok(topics);
            }
        }
    }

    /// Whether a service serves: `perennial.v1.MessageService`, or the empty name for the server.
    pub async fn health(&self, service: &str) -> Result<ServingStatus, Error> {
        let mut client = HealthClient::new(self.channel.clone());
        let request = HealthCheckRequest { service: service.into() };
        let answer = client.check(request).await.map_err(|status| self.error(&status))?.into_inner();
        Ok(answer.status())
    }

    fn error(&self, status: &tonic::Status) -> Error {
        Error::from_status(status, &self.url)
    }

    /// Publishes one message, once: it is not repeated here. Set `message_id` to repeat it safely.
    pub async fn publish(&self, request: PublishRequest) -> Result<PublishResponse, Error> {
        let mut client = MessageServiceClient::new(self.channel.clone());
        Ok(client.publish(request).await.map_err(|status| self.error(&status))?.into_inner())
    }
}
