//! The typed client: the same verbs as the contract, in streams that reconnect and resume by themselves.
//!
//! A stream keeps the cursor of the last response. When it is lost for a reason that may pass, it waits, sends the
//! same request with that cursor, and goes on: nothing is missed and nothing comes twice, and `limit` counts over all
//! of it. The first connection fails at once if nothing answers. Printing and arguments are left to the caller.

use std::{fmt, sync::Arc, time::Duration};

use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

mod address;
mod countdowns;
mod error;
mod lines;
mod messages;
mod publisher;
mod resume;
#[cfg(test)]
mod test_server;

pub use address::DEFAULT_PORT;
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
/// A host that answers none of the three SYNs sent in this time is unreachable. It is short, so that a host that is
/// back is tried again soon.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
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
    /// A client of the server at `http://HOST[:PORT]` or `HOST[:PORT]`; without a port, at 50051. An IPv6 address is in
    /// brackets. Any other address is refused ([`Error::Url`]), `https://` too: there is no TLS yet.
    ///
    /// It connects at the first call.
    pub fn connect(address: &str) -> Result<Self, Error> {
        let url = address::url(address)?;
        #[expect(clippy::expect_used, reason = "only hosts of URL characters and ports pass `address::url`")]
        let endpoint = Endpoint::from_shared(url.clone()).expect("a URL of a plain host and a port");
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

    /// Whether a service is served, by its full name; the server as a whole where it is empty.
    pub async fn health(&self, service: &str) -> Result<ServingStatus, Error> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = HealthClient::new(self.channel.clone()).check(request).await;
        Ok(answer.map_err(|status| self.error(&status))?.into_inner().status())
    }

    fn error(&self, status: &Status) -> Error {
        Error::from_status(status, &self.url)
    }
}
