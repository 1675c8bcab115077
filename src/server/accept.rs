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
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncWrite, sync::Semaphore, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Status;

use super::{
    listen::{Accepted, Listener},
    tls::{Client, Tls},
};
use crate::{
    grpc::{
        call::{Backlog, LogLimit, Peer},
        status,
    },
    web::Web,
};
use activity::{Activity, Busy, Tracked};
use addresses::Addresses;
use protocol::Protocol;
use socket::Socket;
use streams::Streams;
use turns::Turns;
use wakes::Wakes;

mod activity;
mod addresses;
mod escape;
mod output;
pub(super) mod protocol;
mod socket;
mod streams;
mod turns;
mod wakes;

/// The send buffer of a stream, or of a connection of HTTP/1.1, in bytes: the memory of a stalled reader, besides its window.
const SEND_BUFFER_BYTES: usize = 16 * 1024;

/// The pause after an error of accept, as when no descriptor is left: accepting again at once would spin.
const NO_DESCRIPTOR_PAUSE: Duration = Duration::from_millis(50);

/// The lines about refused connections: at once, and then a second.
const REFUSAL_LINES: (u32, u32) = (10, 1);

/// How long a connection without a stream may take to close.
const FAREWELL: Duration = Duration::from_secs(1);

/// The part of the time for the drain that is left for the log when connections are cut, and the most of it.
const LEFT_FOR_LOG: (u32, Duration) = (4, Duration::from_secs(5));

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
    web: Web,
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
            web.calls().metrics().connection_refused(limit);
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
        let (web, config, killed) = (web.clone(), config.clone(), killed.clone());
        tracker.spawn(async move {
            let connection = async move {
                let entered = entering.await;
                if let Some((newcomer, socket, client)) = entered {
                    serve_connection(newcomer, (socket, client), web, config).await;
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
            (Accepted::Unix(stream), _) => return Some((self, stream.into(), None)),
            (Accepted::Tcp(stream), None) => return Some((self, stream.into(), None)),
            (Accepted::Tcp(stream), Some(tls)) => (stream, tls),
        };
        let accepted = self.ends.run_until_cancelled(tls.accept(stream, config.handshake)).await?;
        match accepted {
            Ok((stream, client)) => Some((self, stream.into(), client)),
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
    web: Web,
    config: Arc<Config>,
) {
    let (backlog, peer) = (web.calls().backlog(), newcomer.peer);
    let served = serve_requests(newcomer, socket, web, config, backlog.clone());
    tokio::select! {
        () = served => {}
        bytes = backlog.closed() => {
            tracing::info!(%peer, bytes, "connection closed: its client reads too little");
        }
    }
}

async fn serve_requests(
    Newcomer { number, peer, since, ends }: Newcomer,
    (mut socket, mut client): (Socket, Option<Client>),
    web: Web,
    config: Arc<Config>,
    backlog: Arc<Backlog>,
) {
    let activity = Arc::new(Activity::new(since));
    let mut connection = web.calls().connection(number, peer, ends.clone());
    if let Some(client) = &client {
        connection.identities = client.identities();
    }
    connection.is_exposed = matches!(peer, Peer::Address(address)
        if socket.is_plain_tcp() && !config.may_be_exposed && !address.ip().to_canonical().is_loopback());
    let protocol = tokio::select! {
        protocol = socket.protocol() => protocol,
        () = ends.cancelled() => return,
        _ = refused(&mut client) => return,
        () = tokio::time::sleep_until(since + config.first_request) => return,
    };
    let Ok(protocol) = protocol else { return };
    // The client's certificate is no longer accepted. Until the client has seen the GOAWAY, HTTP/2 lets it begin calls.
    let is_refused = AtomicBool::new(false);
    let service = service_fn(|request: http::Request<Incoming>| {
        let (busy, held) = (Busy::new(activity.clone()), backlog.of_stream());
        let (web, connection, backlog) = (web.clone(), connection.clone(), backlog.clone());
        let is_refused = is_refused.load(Ordering::Relaxed);
        async move {
            let response = if is_refused {
                Status::from(status::draining()).into_http()
            } else {
                web.serve(&connection, &backlog, request).await
            };
            Ok::<_, Infallible>(response.map(|body| Tracked::new(body, held, busy)))
        }
    });
    let wakes = Wakes::new();
    let of_streams = wakes.of_streams();
    let streams = Streams::new(of_streams.clone());
    let starter = streams.starter();
    let stall = web.calls().config().stall;
    if protocol == Protocol::Http1 {
        socket.escape_targets();
        if let Err(error) = socket.close_after(stall) {
            tracing::debug!(%peer, %error, "a client that reads nothing will not be disconnected");
        }
    }
    let (input, output) = output::collect(socket);
    let input = TokioIo::new(input);
    let streams = (streams, of_streams);
    let line =
        Line { peer, ends: &ends, client, config: &config, activity: &activity, is_refused: &is_refused };
    match protocol {
        Protocol::Http1 => {
            let protocol = protocol::http1(&config).serve_connection(input, service);
            let turns = Turns::new(protocol, streams, output, wakes, backlog.clone());
            line.serve(turns, http1::Connection::graceful_shutdown).await;
        }
        Protocol::Http2 => {
            let protocol = protocol::http2(&config, starter).serve_connection(input, service);
            let turns = Turns::new(protocol, streams, output, wakes, backlog.clone());
            line.serve(turns, http2::Connection::graceful_shutdown).await;
        }
    }
}

/// What decides when a connection ends.
struct Line<'a> {
    peer: Peer,
    ends: &'a CancellationToken,
    client: Option<Client>,
    config: &'a Config,
    activity: &'a Activity,
    is_refused: &'a AtomicBool,
}

impl Line<'_> {
    /// Serves a connection until it ends. `finish` has its protocol take no more requests.
    async fn serve<P: Future, T: AsyncWrite + Unpin>(
        mut self,
        turns: Turns<P, T>,
        finish: impl FnOnce(Pin<&mut P>),
    ) {
        let Self { peer, ends, config, activity, is_refused, .. } = self;
        let mut served = pin!(turns);
        let old = Instant::now() + jittered(config.age);
        let expiry = self.client.as_ref().and_then(Client::expires).unwrap_or(old);
        loop {
            // A request changes the time of the next inspection without waking this task.
            let inspect = activity.idle_at(config).min(Instant::now() + config.idle).min(old).min(expiry);
            tokio::select! {
                // An error means that the client went away, or did not speak its protocol.
                () = &mut served => return,
                () = ends.cancelled() => break,
                error = refused(&mut self.client) => {
                    tracing::info!(%peer, %error, "connection ended: its client certificate is no longer accepted");
                    is_refused.store(true, Ordering::Relaxed);
                    break;
                }
                () = tokio::time::sleep_until(inspect) => {}
            }
            if let Some(client) = self.client.as_ref().filter(|_| Instant::now() >= expiry && expiry < old) {
                client.has_expired();
                tracing::info!(%peer, "connection ended: its client certificate has expired");
                is_refused.store(true, Ordering::Relaxed);
                break;
            }
            if activity.is_idle(config) || Instant::now() >= old {
                break;
            }
        }
        // The streams end with their cursor, and the client learns that it must open no more here.
        ends.cancel();
        served.change(finish);
        let may_finish = activity.is_busy() && !is_refused.load(Ordering::Relaxed);
        let limit = if may_finish { config.drain } else { FAREWELL };
        let _ = tokio::time::timeout(limit, served).await;
    }
}

/// Ends when the client's certificate is no longer accepted.
async fn refused(client: &mut Option<Client>) -> rustls::Error {
    match client {
        Some(client) => client.refused().await,
        None => std::future::pending().await,
    }
}

/// A duration ± 10 %, so that connections that were opened together do not end together.
fn jittered(duration: Duration) -> Duration {
    duration.saturating_mul(fastrand::u32(90..=110)) / 100
}

#[cfg(test)]
mod tests;
