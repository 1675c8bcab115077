//! The typed client: streams of items that resume by themselves, a publisher, and the other calls of the contract.
//!
//! A stream is an async generator: it hands out each item once and in order, over lost connections, restarted servers
//! and, if the program keeps its state, crashes of the program itself.
//!
//! # Count down
//! ```no_run
//! use perennial::client::Client;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new("http://127.0.0.1:50051")?;
//! let mut ticks = client.countdown(3);
//! while let Some(tick) = ticks.next().await {
//!     println!("{}", tick?.remaining());
//! }
//! # Ok(())
//! # }
//! ```
//! [`Client::countdown`] also takes the name of a shared countdown, or a whole
//! [`CountdownRequest`](crate::proto::CountdownRequest).
//!
//! # Read a file, and go on where a crash stopped
//! ```no_run
//! # use perennial::client::Client;
//! use perennial::client::FileStore;
//!
//! # async fn run(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! let mut lines = client.read_lines("demo/app.log").follow(true).store(FileStore::new("app.state"));
//! while let Some(line) = lines.next().await {
//!     println!("{}", line?.to_text());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Follow each log of a directory, also those that appear
//! ```no_run
//! # use perennial::client::Client;
//! use futures::StreamExt;
//! use perennial::proto::file_change::Change;
//!
//! # async fn run(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! let mut files = client.watch_files("demo/**/*.log");
//! while let Some(response) = files.next().await {
//!     for change in response?.changes {
//!         if let Some(Change::Added(file)) = change.change {
//!             println!("{} has {} bytes", file.path, file.size());
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Read messages, each exactly once
//! ```no_run
//! # use perennial::client::Client;
//! # fn load() -> Option<String> { None }
//! # fn store_both(text: &str, state: Option<String>) -> Result<(), std::io::Error> { Ok(()) }
//! # async fn run(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! let mut messages = client.messages("demo.>").earliest().resume(load());
//! while let Some(message) = messages.next().await {
//!     let message = message?;
//!     // The result and the state in one transaction.
//!     store_both(&message.to_text(), messages.state())?;
//! }
//! # Ok(())
//! # }
//! ```
//! Or the server keeps the position: `client.messages("demo.>").consumer("billing")`, and [`Items::commit`] after an item.
//!
//! # Publish
//! ```no_run
//! # use perennial::client::Client;
//! use perennial::proto::PublishRequest;
//!
//! # async fn run(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! let publisher = client.publisher();
//! let receipt = publisher.publish(PublishRequest::new("orders.new", "hello")).await?;
//! println!("{}", receipt.await?.sequence()); // It is on disk.
//! publisher.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is tried again
//! An error with a reason of the server is tried again if the server says when ([`Error::retry_after`]), any other one if
//! its code is that of a lost connection: [`Error::is_retryable`]. The wait is random, between 0 and 0.1 s after the first
//! failure, and up to 2 s later, however long the outage. Before the first response, this goes on for 10 s
//! ([`Client::with_connect_timeout`]), and after it without limit or for [`Items::max_outage`]. A stream that gets no
//! response for three heartbeats, and at least 5 s, continues over a new connection.
//!
//! A unary call fails with [`Error::Silent`] after 30 s without an answer, and a purge after 15 minutes. Calls that are safe
//! to repeat are repeated by the same rule, for 10 s.

use std::{env, fmt, sync::Arc, time::Duration};

use tonic::{Response, Status, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

mod address;
mod connect;
mod connections;
mod content;
mod countdowns;
mod credentials;
mod error;
mod items;
mod lines;
mod messages;
mod publisher;
mod resume;
#[cfg(test)]
pub(crate) mod test_server;
mod token;
mod waits;

pub use address::DEFAULT_PORT;
pub use credentials::Credentials;
pub use error::{Error, Violation};
pub use items::{
    CountdownEvent, FileStore, Items, Kind, Lines, MemoryStore, Messages, Store, StoreError, Ticks, Value,
    Values,
};
pub use lines::FileChanges;
pub use publisher::{Publisher, Receipt};
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
/// How long a stream, a publisher and a call that is safe to repeat try to get a first answer.
const FIRST_ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long the client waits for the answer of a unary call, including the time to connect.
const UNARY_LIMIT: Duration = Duration::from_secs(30);
/// How long the answer of a purge is awaited: it waits for work on the disk that may take minutes. A connection that is
/// lost ends it earlier.
const PURGE_LIMIT: Duration = Duration::from_secs(15 * 60);
/// Above any batch, even if the operator raised the limit of a line or a message.
const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

use connect::{Connector, Server};
use connections::Connections;
use token::{Authorized, Bearer};
use waits::{Limits, Waits, within};

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
    connections: Arc<Connections>,
    observer: Observer,
    connect_timeout: Duration,
    publish_window: usize,
    dedupe_window: Duration,
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

    /// A client of the server that the environment names: PERENNIAL_SERVER, by default `http://127.0.0.1:50051`, with the
    /// credentials of [`Credentials::from_env`].
    pub fn from_env() -> Result<Self, Error> {
        let address = env::var("PERENNIAL_SERVER").ok().filter(|it| !it.is_empty());
        Self::with_credentials(address.as_deref().unwrap_or(address::EXAMPLE), Credentials::from_env())
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
            connections: Connections::new(endpoint, connector, bearer).into(),
            observer: Arc::new(|_| {}),
            connect_timeout: FIRST_ANSWER_LIMIT,
            publish_window: publisher::WINDOW_MESSAGES,
            dedupe_window: publisher::DEDUPE_WINDOW,
        })
    }

    /// A client with its own connection. The server limits the streams on one connection, to 256 by default.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self { connections: self.connections.apart().into(), ..self.clone() }
    }

    /// The connection for a new call.
    fn channel(&self) -> Authorized {
        self.connections.current().channel
    }

    fn server(&self) -> &Server {
        self.connections.server()
    }

    /// Reports each interruption and each recovery of this client's streams to `observer`.
    #[must_use]
    pub fn with_observer(mut self, observer: impl Fn(&Notice<'_>) + Send + Sync + 'static) -> Self {
        self.observer = Arc::new(observer);
        self
    }

    /// Sets how long streams, publishers and calls that are safe to repeat try to get their first answer; the default is
    /// 10 s. Zero: the first attempt decides.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
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

    /// Sets how long the server knows the id of a message (its `--dedupe-window`); the default is 2 minutes. A message whose
    /// answer was lost is not sent again later than this time less 40 s after it was first sent: see
    /// [`Error::OutcomeUnknown`].
    #[must_use]
    pub fn with_dedupe_window(mut self, window: Duration) -> Self {
        self.dedupe_window = window;
        self
    }

    /// The status of a service, by its full name, or of the whole server if `service` is empty.
    pub async fn health(&self, service: &str) -> Result<ServingStatus, Error> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let mut client = HealthClient::new(self.channel());
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
        within(limit, call, self.server()).await.map(Response::into_inner)
    }

    /// The waits between the attempts of a call that is safe to repeat.
    fn repeats(&self) -> Waits {
        let limits = Limits { connect: self.connect_timeout, outage: Some(self.connect_timeout) };
        let mut waits = Waits::new(self.observer.clone(), limits);
        waits.begin();
        waits
    }
}

/// Makes a call that is safe to repeat, and repeats it after failures that may pass.
macro_rules! repeated {
    ($client:expr, $call:expr) => {{
        let mut waits = $client.repeats();
        loop {
            match $call.await {
                Ok(answer) => break answer,
                Err(error) => waits.wait_out(error).await?,
            }
        }
    }};
}
use repeated;

/// The items of all pages. `page` gets the token of a page, and returns its items and the token of the next page.
async fn all_pages<T, F>(client: &Client, mut page: impl FnMut(String) -> F) -> Result<Vec<T>, Error>
where
    F: Future<Output = Result<(Vec<T>, String), Error>>,
{
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let (items, next) = repeated!(client, page(token.clone()));
        all.extend(items);
        if next.is_empty() {
            return Ok(all);
        }
        token = next;
    }
}

#[cfg(test)]
mod tests;
