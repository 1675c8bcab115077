//! The typed client: the same verbs as the contract, in streams that reconnect and resume by themselves.
//!
//! A stream keeps the cursor of the last response. When it is lost for a reason that may pass, it waits, sends the
//! same request with that cursor, and goes on: nothing is missed and nothing comes twice, and `limit` counts over all
//! of it. The first connection fails at once if nothing answers. Printing and arguments are left to the caller.

use std::{fmt, sync::Arc, time::Duration};

use futures::Stream;
use tonic::transport::{Channel, Endpoint};

use crate::proto::{
    CountdownRequest, CountdownResponse, MessagesRequest, MessagesResponse, PublishRequest, PublishResponse,
    ReadLinesRequest, ReadLinesResponse, message_service_client::MessageServiceClient,
};

mod error;
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

    /// Publishes one message, once: it is not repeated here. Set `message_id` to repeat it safely.
    pub async fn publish(&self, request: PublishRequest) -> Result<PublishResponse, Error> {
        let mut client = MessageServiceClient::new(self.channel.clone());
        Ok(client
            .publish(request)
            .await
            .map_err(|status| Error::from_status(&status, &self.url))?
            .into_inner())
    }
}
