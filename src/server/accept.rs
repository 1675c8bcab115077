//! The accept path: from a listening socket to requests, by TLS and over hyper.
//!
//! tonic's server is not used, because it lacks what long streams need: limits on streams and resets, a small send buffer,
//! a GOAWAY for old connections whose streams then end with their cursor, a drain that silent sockets and endless streams
//! cannot delay, and a pause when descriptors run out.

use std::{
    convert::Infallible,
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::TaskTracker,
};
use tonic::{Status, body::Body};

use super::{
    listen::{Accepted, Listener},
    tls::{Client, Tls},
};
use crate::grpc::{
    body::trailers,
    call::{Backlog, Held, LogLimit, Peer},
    gate::Gate,
    status,
};
use addresses::Addresses;
use socket::Socket;
use streams::{Starter, Streams};
use turns::Turns;
use wakes::Wakes;

mod addresses;
mod output;
mod socket;
mod streams;
mod turns;
mod wakes;

/// The send buffer of a stream, in bytes: the memory of a stalled reader, besides its window.
const SEND_BUFFER_BYTES: usize = 16 * 1024;

/// hyper ends a connection after it has reset this many of its streams for errors of the client (CVE-2025-8671).
const MAX_LOCAL_RESETS: usize = 1024;

/// hyper ends a connection with this many streams that the client reset before they were served (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 64;

/// The largest headers of a request, together.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// The flow-control windows of a stream and of a connection: enough for a PublishStream at full speed.
const WINDOWS_BYTES: (u32, u32) = (1024 * 1024, 4 * 1024 * 1024);

/// The pause after an error of accept, as when no descriptor is left: accepting again at once would spin.
const NO_DESCRIPTOR_PAUSE: Duration = Duration::from_millis(50);

/// The lines about refused connections: at once, and then a second.
const REFUSAL_LINES: (u32, u32) = (10, 1);

/// How long a connection without a stream may take to close.
const FAREWELL: Duration = Duration::from_secs(1);

/// The part of the time for the drain that is left for the log when connections are cut, and the most of it.
const LEFT_FOR_LOG: (u32, Duration) = (4, Duration::from_secs(5));

/// The prefix of the paths whose streams end by themselves, with their cursor, when their connection must end.
const RESUMABLE: &str = "/perennial.";

/// The operator's limits on connections.
#[derive(Clone, Debug)]
pub struct Config {
    /// Up to this many connections are open. A further one is closed at once.
    pub max_connections: usize,
    /// Up to this many of them are of one address, of one network of IPv6 (a /64), or of one account of this machine.
    pub max_connections_per_address: usize,
    /// Up to this many streams are open on a connection.
    pub max_streams: u32,
    /// A new connection whose handshake of TLS is not complete after this long is closed.
    pub handshake: Duration,
    /// A new connection without a request for this long is closed.
    pub first_request: Duration,
    /// A connection without a stream for this long is closed.
    pub idle: Duration,
    /// A connection of this age, ± 10 %, is closed after its streams have ended.
    pub age: Duration,
    /// A quiet client is pinged this often.
    pub ping_interval: Duration,
    /// A client that does not answer a ping for this long is disconnected.
    pub ping_timeout: Duration,
    /// Whether secrets may arrive in plain text from other machines.
    pub may_be_exposed: bool,
    /// How long the server may take to stop. Connections whose streams have not ended are cut a little before that.
    pub drain: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_connections: usize::MAX,
            max_connections_per_address: usize::MAX,
            max_streams: 256,
            handshake: Duration::from_secs(10),
            first_request: Duration::from_secs(30),
            idle: Duration::from_secs(300),
            age: Duration::from_secs(3600),
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(20),
            may_be_exposed: false,
            drain: Duration::from_secs(20),
        }
    }
}

/// Serves connections until `shutdown`, then ends them within the time for the drain. Without `tls`, and on sockets in the file
/// system, in plain text.
pub async fn serve(
    listeners: Vec<Listener>,
    tls: Option<Arc<Tls>>,
    gate: Gate,
    config: Config,
    shutdown: CancellationToken,
) {
    let config = Arc::new(config);
    let room = Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS)));
    let tracker = TaskTracker::new();
    let killed = CancellationToken::new();
    let addresses = Addresses::new(config.max_connections_per_address);
    let refusals = Arc::new(LogLimit::new(REFUSAL_LINES.0, REFUSAL_LINES.1));
    let mut number = 0;
    while let Some(accepted) = shutdown.run_until_cancelled(accept_any(&listeners, number)).await {
        let (stream, peer) = accepted;
        let tls = tls.clone().filter(|_| matches!(stream, Accepted::Tcp(_)));
        let room = room.clone().try_acquire_owned();
        let of_address = addresses.enter(peer);
        let limit = if room.is_err() { "--max-connections" } else { "--max-connections-per-address" };
        let (Ok(room), Some(of_address)) = (room, of_address) else {
            gate.calls().metrics().connection_refused(limit);
            if let Some(left_out) = refusals.admit() {
                let left_out = (left_out > 0).then_some(left_out);
                tracing::warn!(%peer, limit, left_out, "connection refused: the limit is reached");
            }
            continue;
        };
        number += 1;
        let newcomer = Newcomer { number, peer, since: Instant::now(), ends: shutdown.child_token() };
        // In a box, whose memory is free after the handshake.
        let entering = Box::pin(newcomer.enter(stream, tls, config.clone(), refusals.clone()));
        let (gate, config, killed) = (gate.clone(), config.clone(), killed.clone());
        tracker.spawn(async move {
            let connection = async move {
                let entered = entering.await;
                if let Some((newcomer, socket, client)) = entered {
                    serve_connection(newcomer, (socket, client), gate, config).await;
                }
            };
            killed.run_until_cancelled(connection).await;
            drop((room, of_address));
        });
    }
    drop(listeners);
    tracker.close();
    let left = (config.drain / LEFT_FOR_LOG.0).min(LEFT_FOR_LOG.1);
    let limit = config.drain.saturating_sub(left);
    if tokio::time::timeout(limit, tracker.wait()).await.is_err() {
        tracing::warn!(connections = tracker.len(), "the drain took too long: connections are cut");
        killed.cancel();
        tracker.wait().await;
    }
}

/// The next connection of any listener. After each connection another one is asked first, so that none waits for the others.
async fn accept_any(listeners: &[Listener], turn: u64) -> (Accepted, Peer) {
    if let [listener] = listeners {
        return accept(listener).await;
    }
    let first = usize::try_from(turn).unwrap_or(0) % listeners.len().max(1);
    let (before, after) = listeners.split_at(first);
    let all = after.iter().chain(before).map(|listener| Box::pin(accept(listener)));
    futures::future::select_all(all).await.0
}

/// The next connection. Skips errors that concern one connection, and pauses after others.
async fn accept(listener: &Listener) -> (Accepted, Peer) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "a connection cannot be accepted");
                tokio::time::sleep(NO_DESCRIPTOR_PAUSE).await;
            }
        }
    }
}

fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::ConnectionAborted | Kind::ConnectionReset | Kind::ConnectionRefused)
}

/// A connection that was accepted.
#[derive(Debug)]
struct Newcomer {
    number: u64,
    peer: Peer,
    since: Instant,
    /// Cancelled when the connection must end.
    ends: CancellationToken,
}

impl Newcomer {
    /// The socket after the handshake of TLS, if there is one. `None` if it failed, or the server drains meanwhile.
    async fn enter(
        self,
        stream: Accepted,
        tls: Option<Arc<Tls>>,
        config: Arc<Config>,
        refusals: Arc<LogLimit>,
    ) -> Option<(Self, Socket, Option<Client>)> {
        let (stream, tls) = match (stream, tls) {
            (Accepted::Unix(stream), _) => return Some((self, Socket::Unix(stream), None)),
            (Accepted::Tcp(stream), None) => return Some((self, Socket::Plain(stream), None)),
            (Accepted::Tcp(stream), Some(tls)) => (stream, tls),
        };
        let accepted = self.ends.run_until_cancelled(tls.accept(stream, config.handshake)).await?;
        match accepted {
            Ok((stream, client)) => Some((self, Socket::Secure(Box::new(stream)), client)),
            Err(refusal) => {
                if let Some(left_out) = refusals.admit() {
                    let left_out = (left_out > 0).then_some(left_out);
                    tracing::info!(peer = %self.peer, %refusal, left_out, "connection refused: no handshake of TLS");
                }
                None
            }
        }
    }
}

/// Serves a connection until it ends, or the transport holds too much for its client.
async fn serve_connection(
    newcomer: Newcomer,
    socket: (Socket, Option<Client>),
    gate: Gate,
    config: Arc<Config>,
) {
    let (backlog, peer) = (gate.calls().backlog(), newcomer.peer);
    let served = serve_requests(newcomer, socket, gate, config, backlog.clone());
    tokio::select! {
        () = served => {}
        bytes = backlog.closed() => {
            tracing::info!(%peer, bytes, "connection closed: its client reads too little");
        }
    }
}

async fn serve_requests(
    Newcomer { number, peer, since, ends }: Newcomer,
    (socket, mut client): (Socket, Option<Client>),
    gate: Gate,
    config: Arc<Config>,
    backlog: Arc<Backlog>,
) {
    let activity = Arc::new(Activity::new(since));
    let mut connection = gate.calls().connection(number, peer, ends.clone());
    if let Some(client) = &client {
        connection.identities = client.identities();
    }
    connection.is_exposed = matches!((&socket, peer), (Socket::Plain(_), Peer::Address(address))
        if !config.may_be_exposed && !address.ip().to_canonical().is_loopback());
    // The client's certificate is no longer accepted. Until the client has seen the GOAWAY, HTTP/2 lets it begin calls.
    let is_refused = AtomicBool::new(false);
    let service = service_fn(|request: http::Request<Incoming>| {
        let (busy, held) = (Busy::new(activity.clone()), backlog.of_stream());
        let (gate, connection) = (gate.clone(), connection.clone());
        let is_refused = is_refused.load(Ordering::Relaxed);
        let ends_by_itself = request.uri().path().starts_with(RESUMABLE);
        let ends = (!ends_by_itself).then(|| Box::pin(connection.ends.clone().cancelled_owned()));
        async move {
            let response = if is_refused {
                Status::from(status::draining()).into_http()
            } else {
                gate.serve(&connection, request).await
            };
            Ok::<_, Infallible>(response.map(|body| Tracked { body, ends, held, _busy: busy }))
        }
    });
    let wakes = Wakes::new();
    let of_streams = wakes.of_streams();
    let streams = Streams::new(of_streams.clone());
    let (input, output) = output::collect(socket);
    let protocol = builder(&config, streams.starter()).serve_connection(TokioIo::new(input), service);
    let mut served = pin!(Turns::new(protocol, (streams, of_streams), output, wakes, backlog.clone()));
    let old = Instant::now() + jittered(config.age);
    let expiry = client.as_ref().and_then(Client::expires).unwrap_or(old);
    loop {
        // A request changes the time of the next inspection without waking this task.
        let inspect = activity.idle_at(&config).min(Instant::now() + config.idle).min(old).min(expiry);
        tokio::select! {
            // An error means that the client went away, or did not speak HTTP/2.
            () = &mut served => return,
            () = ends.cancelled() => break,
            error = refused(&mut client) => {
                tracing::info!(%peer, %error, "connection ended: its client certificate is no longer accepted");
                is_refused.store(true, Ordering::Relaxed);
                break;
            }
            () = tokio::time::sleep_until(inspect) => {}
        }
        if let Some(client) = client.as_ref().filter(|_| Instant::now() >= expiry && expiry < old) {
            client.has_expired();
            tracing::info!(%peer, "connection ended: its client certificate has expired");
            is_refused.store(true, Ordering::Relaxed);
            break;
        }
        if activity.is_idle(&config) || Instant::now() >= old {
            break;
        }
    }
    // The streams end with their cursor, and a GOAWAY tells the client to open no more.
    ends.cancel();
    served.change(http2::Connection::graceful_shutdown);
    let may_finish = activity.is_busy() && !is_refused.load(Ordering::Relaxed);
    let limit = if may_finish { config.drain } else { FAREWELL };
    let _ = tokio::time::timeout(limit, served).await;
}

/// Ends when the client's certificate is no longer accepted.
async fn refused(client: &mut Option<Client>) -> rustls::Error {
    match client {
        Some(client) => client.refused().await,
        None => std::future::pending().await,
    }
}

fn builder(config: &Config, starter: Starter) -> http2::Builder<Starter> {
    let mut builder = http2::Builder::new(starter);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.max_streams)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_local_error_reset_streams(MAX_LOCAL_RESETS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(WINDOWS_BYTES.0)
        .initial_connection_window_size(WINDOWS_BYTES.1)
        .keep_alive_interval(config.ping_interval)
        .keep_alive_timeout(config.ping_timeout);
    builder
}

/// A duration ± 10 %, so that connections that were opened together do not end together.
fn jittered(duration: Duration) -> Duration {
    duration.saturating_mul(fastrand::u32(90..=110)) / 100
}

/// The activity of a connection.
#[derive(Debug)]
struct Activity {
    since: Instant,
    /// The number of requests.
    requests: AtomicU64,
    /// The number of requests whose response has not ended.
    open: AtomicUsize,
    /// When the last response ended, in milliseconds after `since`.
    last: AtomicU64,
}

impl Activity {
    fn new(since: Instant) -> Self {
        let (requests, open, last) = (AtomicU64::new(0), AtomicUsize::new(0), AtomicU64::new(0));
        Self { since, requests, open, last }
    }

    fn is_busy(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// When the connection will have been idle for too long, if nothing happens.
    fn idle_at(&self, config: &Config) -> Instant {
        let last = self.since + Duration::from_millis(self.last.load(Ordering::Relaxed));
        if self.requests.load(Ordering::Relaxed) == 0 {
            self.since + config.first_request
        } else if self.is_busy() {
            Instant::now() + config.idle
        } else {
            last + config.idle
        }
    }

    fn is_idle(&self, config: &Config) -> bool {
        !self.is_busy() && self.idle_at(config) <= Instant::now()
    }
}

/// Counts a request while it is answered.
#[derive(Debug)]
struct Busy(Arc<Activity>);

impl Busy {
    fn new(activity: Arc<Activity>) -> Self {
        activity.requests.fetch_add(1, Ordering::Relaxed);
        activity.open.fetch_add(1, Ordering::Relaxed);
        Self(activity)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last.store(now, Ordering::Relaxed);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of a response. The connection is busy until it is dropped.
struct Tracked {
    body: Body,
    /// Ends a stream that does not observe the end of its connection, as those of health and reflection. Otherwise a
    /// client that watches the health would delay each drain to its limit.
    ends: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    held: Held,
    _busy: Busy,
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        // A last frame of the stream goes first, such as NOT_SERVING.
        let at_end = frame.is_pending()
            && self.ends.as_mut().is_some_and(|ends| ends.as_mut().poll(context).is_ready());
        if !at_end {
            match &frame {
                Poll::Ready(Some(Ok(frame))) => self.held.gave(frame.data_ref().map_or(0, Bytes::len)),
                Poll::Pending => self.held.waits(),
                Poll::Ready(_) => {}
            }
            return frame;
        }
        self.body = Body::empty();
        self.ends = None;
        Poll::Ready(Some(trailers(&status::draining().into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
