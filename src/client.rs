//! The typed client: the calls of the contract, with streams that reconnect and resume by themselves.
//!
//! A stream keeps the cursor of the last response. After an error that may pass ([`Error::is_retryable`]) it waits, sends
//! the same request with that cursor, and continues: no item is missed or repeated, and `limit` counts over all attempts.
//! The wait is at most about two seconds, however long the outage. The first connection fails at once if no server
//! answers. A unary call fails with [`Error::Silent`] after 30 s without an answer, and a purge after 15 minutes. Printing and arguments are left to the caller.

use std::{fmt, sync::Arc, time::Duration};

use tonic::{Response, Status, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

mod address;
mod connect;
mod countdowns;
mod credentials;
mod error;
mod lines;
mod messages;
mod publisher;
mod resume;
#[cfg(test)]
pub(crate) mod test_server;
mod token;

pub use address::DEFAULT_PORT;
pub use credentials::Credentials;
pub use error::{Error, Violation};
pub use token::Token;
pub use tonic::Code;

/// The window of a connection. Many streams share it, and a stream that is not read must not block the others.
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// The window of a stream: 64 of the largest usual batches.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Shorter than the time after which middleboxes drop an idle connection; the server uses the same.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// A connection that does not answer a ping for this time is lost.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// A host that answers none of the three SYNs sent in this time is unreachable. It is short, so that a host that is
/// back is tried again soon.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the client waits for the answer of a unary call, including the time to connect.
const UNARY_LIMIT: Duration = Duration::from_secs(30);
/// How long the answer of a purge is awaited: it waits for work on the disk that may take minutes. A connection that is
/// lost ends it earlier.
const PURGE_LIMIT: Duration = Duration::from_secs(15 * 60);
/// Above any batch, even if the operator raised the limit of a line or a message.
const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

use connect::{Connector, Server};
use token::{Authorized, Bearer};

/// An event of a stream, for the observer.
#[derive(Debug)]
pub enum Notice<'a> {
    /// The stream was lost, and is opened again after `wait`.
    Interrupted {
        /// The reason.
        error: &'a Error,
        /// The time until the next attempt.
        wait: Duration,
    },
    /// The first response after an interruption arrived.
    Resumed,
}

type Observer = Arc<dyn Fn(&Notice<'_>) + Send + Sync>;

/// A client of one server. It is cheap to clone, and all clones share a connection.
#[derive(Clone)]
pub struct Client {
    channel: Authorized,
    bearer: Bearer,
    endpoint: Arc<Endpoint>,
    connector: Connector,
    observer: Observer,
    publish_window: usize,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.server().url).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the server at `http://HOST[:PORT]`, `https://HOST[:PORT]` or `HOST[:PORT]`; without a port, at 50051.
    /// An IPv6 address is in brackets. `unix:PATH` is a socket in the file system. Any other address is refused ([`Error::Url`]).
    ///
    /// It connects at the first call.
    pub fn new(address: &str) -> Result<Self, Error> {
        Self::with_credentials(address, Credentials::default())
    }

    /// A client with credentials. If there are some for TLS, `HOST[:PORT]` is `https://HOST[:PORT]`, and `http://` is
    /// refused. A token is never sent in plain text to another machine.
    ///
    /// The files are read now, and again for each connection, so that a client that runs for long has what was renewed.
    pub fn with_credentials(address: &str, credentials: Credentials) -> Result<Self, Error> {
        let bearer = Bearer::open(credentials.token.clone())?;
        let address = address::read(address, credentials.option())?;
        if credentials.token.is_some() {
            address.check_private()?;
        }
        #[expect(clippy::expect_used, reason = "only hosts of URL characters and ports pass `address::read`")]
        let endpoint = Endpoint::from_shared(address.origin()).expect("a URL of a plain host and a port");
        let endpoint = endpoint
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_timeout(CONNECT_TIMEOUT);
        let connector = Connector::new(&address, credentials)?;
        Ok(Self {
            channel: Authorized::new(endpoint.connect_with_connector_lazy(connector.clone()), bearer.clone()),
            bearer,
            endpoint: endpoint.into(),
            connector,
            observer: Arc::new(|_| {}),
            publish_window: publisher::WINDOW_MESSAGES,
        })
    }

    /// A client with its own connection. The server limits the streams on one connection, to 256 by default.
    #[must_use]
    pub fn apart(&self) -> Self {
        let channel = self.endpoint.connect_with_connector_lazy(self.connector.clone());
        Self { channel: Authorized::new(channel, self.bearer.clone()), ..self.clone() }
    }

    fn server(&self) -> &Server {
        self.connector.server()
    }

    /// Reports each interruption and each recovery of this client's streams to `observer`.
    #[must_use]
    pub fn with_observer(mut self, observer: impl Fn(&Notice<'_>) + Send + Sync + 'static) -> Self {
        self.observer = Arc::new(observer);
        self
    }

    /// Sets the most unanswered messages of a flow of [`Self::publish_all`]; the default is 8,192, the least is 1.
    ///
    /// A small window shortens the time that a message waits in the queue; a large one keeps a distant server busy.
    #[must_use]
    pub fn with_publish_window(mut self, messages: usize) -> Self {
        self.publish_window = messages;
        self
    }

    /// The status of a service, by its full name, or of the whole server if `service` is empty.
    pub async fn health(&self, service: &str) -> Result<ServingStatus, Error> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let mut client = HealthClient::new(self.channel.clone());
        Ok(self.unary(client.check(request)).await?.status())
    }

    /// The answer of a unary call.
    fn unary<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> impl Future<Output = Result<T, Error>> {
        // No future of its own, which would hold the call twice.
        self.unary_within(UNARY_LIMIT, call)
    }

    async fn unary_within<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        resume::within(limit, call, self.server()).await.map(Response::into_inner)
    }
}

/// The items of all pages. `page` gets the token of a page, and returns its items and the token of the next page.
async fn all_pages<T, F>(mut page: impl FnMut(String) -> F) -> Result<Vec<T>, Error>
where
    F: Future<Output = Result<(Vec<T>, String), Error>>,
{
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let (items, next) = page(token).await?;
        all.extend(items);
        if next.is_empty() {
            return Ok(all);
        }
        token = next;
    }
}

#[cfg(test)]
mod tests;
