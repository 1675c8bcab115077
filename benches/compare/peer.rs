//! The peer in Rust: the three streams as one writes them with tonic and nothing else, one item a message, served by
//! tonic's own server with its defaults. `peer.proto` is its contract; what protoc would generate is written out.

use std::{
    convert::Infallible,
    future::{Future, ready},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use async_stream::try_stream;
use futures::Stream;
use prost::Message;
use tokio::{
    fs::File,
    io::{AsyncBufReadExt, BufReader},
    sync::broadcast::{self, error::RecvError},
    time::Instant,
};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    server::{Grpc, NamedService},
    transport::server::TcpIncoming,
};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

use crate::{Result, measure::now};

/// What the channel of the messages holds before slow readers lose some.
const CAPACITY: usize = 1024;

pub const READ_LINES: &str = "/bench.Peer/ReadLines";
pub const MESSAGES: &str = "/bench.Peer/Messages";
pub const PUBLISH: &str = "/bench.Peer/Publish";
pub const COUNTDOWN: &str = "/bench.Peer/Countdown";

#[derive(Clone, PartialEq, Message)]
pub struct Text {
    #[prost(string, tag = "1")]
    pub text: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Count {
    #[prost(int32, tag = "1")]
    pub from: i32,
    #[prost(int64, tag = "2")]
    pub interval_nanos: i64,
    /// When the first one is due, in nanoseconds since 1970; 0: now.
    #[prost(int64, tag = "3")]
    pub start: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Tick {
    #[prost(int32, tag = "1")]
    pub remaining: i32,
    #[prost(int64, tag = "2")]
    pub due: i64,
    #[prost(int64, tag = "3")]
    pub sent: i64,
}

/// Serves until it is killed.
pub async fn serve() -> Result<()> {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?.with_nodelay(Some(true));
    eprintln!("peer: listening on http://{}", incoming.local_addr()?);
    let peer = Peer { messages: broadcast::channel(CAPACITY).0 };
    Ok(tonic::transport::Server::builder().add_service(peer).serve_with_incoming(incoming).await?)
}

#[derive(Clone)]
struct Peer {
    messages: broadcast::Sender<String>,
}

async fn read_lines(
    request: Request<Text>,
) -> Result<Response<impl Stream<Item = Result<Text, Status>> + Send>, Status> {
    let file = File::open(request.into_inner().text).await?;
    let mut lines = BufReader::new(file).lines();
    Ok(Response::new(try_stream!({
        while let Some(text) = lines.next_line().await? {
            yield Text { text };
        }
    })))
}

fn subscribe(
    messages: &broadcast::Sender<String>,
) -> Response<impl Stream<Item = Result<Text, Status>> + Send + use<>> {
    let mut messages = messages.subscribe();
    Response::new(try_stream!({
        loop {
            match messages.recv().await {
                Ok(text) => yield Text { text },
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break,
            }
        }
    }))
}

async fn publish(
    messages: broadcast::Sender<String>,
    request: Request<Streaming<Text>>,
) -> Result<Response<Text>, Status> {
    let mut stream = request.into_inner();
    let mut count = 0_u64;
    while let Some(Text { text }) = stream.message().await? {
        // An error means that there is no receiver.
        let _ = messages.send(text);
        count += 1;
    }
    Ok(Response::new(Text { text: count.to_string() }))
}

/// A sleep until a computed moment: it does not drift, unlike a sleep for an interval.
async fn countdown(
    request: Request<Count>,
) -> Result<Response<impl Stream<Item = Result<Tick, Status>> + Send>, Status> {
    let Count { from, interval_nanos, start } = request.into_inner();
    let interval = Duration::from_nanos(interval_nanos.unsigned_abs());
    let wall = if start == 0 { now() } else { start };
    let ahead = wall - now();
    let (later, earlier) =
        (Duration::from_nanos(ahead.max(0).unsigned_abs()), (-ahead.min(0)).unsigned_abs());
    let start = Instant::now() + later - Duration::from_nanos(earlier);
    Ok(Response::new(try_stream!({
        for k in 0..from.unsigned_abs() {
            tokio::time::sleep_until(start + interval * k).await;
            let due = wall + interval_nanos * i64::from(k);
            yield Tick { remaining: from - k.cast_signed(), due, sent: now() };
        }
    })))
}

impl NamedService for Peer {
    const NAME: &'static str = "bench.Peer";
}

impl Service<http::Request<Body>> for Peer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let messages = self.messages.clone();
        Box::pin(async move {
            let texts = || Grpc::new(ProstCodec::<Text, Text>::default());
            Ok(match request.uri().path() {
                READ_LINES => texts().server_streaming(service_fn(read_lines), request).await,
                MESSAGES => {
                    let service = service_fn(move |_: Request<Text>| ready(Ok(subscribe(&messages))));
                    texts().server_streaming(service, request).await
                }
                PUBLISH => {
                    let service = service_fn(move |request| publish(messages.clone(), request));
                    texts().client_streaming(service, request).await
                }
                COUNTDOWN => {
                    let mut grpc = Grpc::new(ProstCodec::<Tick, Count>::default());
                    grpc.server_streaming(service_fn(countdown), request).await
                }
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}
