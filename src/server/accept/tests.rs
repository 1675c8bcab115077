//! Over real sockets, with short limits.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    future::{Ready, ready},
    net::SocketAddr,
    task::{Context, Poll},
};

use http_body::Frame;
use http_body_util::StreamBody;
use prometheus_client::registry::Registry;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tonic::{
    Code, Request, body::Body, client::Grpc, server::NamedService, service::Routes, transport::Channel,
};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower::Service;

use super::*;
use crate::{
    grpc::{
        self,
        call::{self, Calls},
        gate::Gate,
    },
    web::origin::Origins,
};

/// A service with a stream that neither yields nor ends, even when the server drains, and one that panics.
#[derive(Clone)]
struct Stubborn;

impl NamedService for Stubborn {
    const NAME: &'static str = "perennial.Stubborn";
}

impl Service<http::Request<Body>> for Stubborn {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let panics = request.uri().path().ends_with("Panic");
        let frames =
            futures::stream::poll_fn(move |_| -> Poll<Option<Result<Frame<bytes::Bytes>, Status>>> {
                assert!(!panics, "a fault of a generator");
                Poll::Pending
            });
        let response = http::Response::builder().header("content-type", "application/grpc");
        ready(Ok(response.body(Body::new(StreamBody::new(frames))).unwrap()))
    }
}

struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
}

impl Server {
    async fn start(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let (health, service) = tonic_health::server::health_reporter();
        health.set_service_status("", tonic_health::ServingStatus::Serving).await;
        let routes = Routes::new(service).add_service(Stubborn);
        let calls = Calls::new(call::Config::default(), shutdown.clone(), &mut Registry::default());
        let gate = Gate::new(routes, calls, &grpc::Config::default(), 1, &mut Registry::default());
        let web = Web::new(gate, Origins::default(), false, &mut Registry::default());
        let served = tokio::spawn(serve(vec![Listener::Tcp(listener)], None, web, config, shutdown.clone()));
        Self { address, shutdown, served }
    }

    async fn silent(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Whether the server accepts a new connection.
    async fn answers(&self) -> bool {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        let Ok(channel) = channel.connect().await else { return false };
        let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
        client.check(tonic_health::pb::HealthCheckRequest::default()).await.is_ok()
    }

    async fn connect(&self) -> Channel {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        channel.connect().await.unwrap()
    }

    /// A stream that only the server's limit can end.
    async fn stubborn(&self) -> tonic::Streaming<HealthCheckResponse> {
        Self::open(self.connect().await, "/perennial.Stubborn/Wait").await
    }

    async fn open(channel: Channel, path: &'static str) -> tonic::Streaming<HealthCheckResponse> {
        let mut client = Grpc::new(channel);
        client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static(path);
        let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        let request = Request::new(HealthCheckRequest::default());
        client.server_streaming(request, path, codec).await.unwrap().into_inner()
    }

    /// A stream without end: that of a service's health.
    async fn watch(&self) -> tonic::Streaming<tonic_health::pb::HealthCheckResponse> {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        let mut client = tonic_health::pb::health_client::HealthClient::new(channel.connect().await.unwrap());
        let request = tonic_health::pb::HealthCheckRequest { service: String::new() };
        let mut stream = client.watch(request).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        stream
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.unwrap()
}

/// Reads to the end of a connection.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let _ = soon(stream.read_to_end(&mut rest)).await;
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed() {
    let first_request = Duration::from_millis(50);
    let server = Server::start(Config { first_request, ..Config::default() }).await;
    closed(&mut server.silent().await).await;
}

#[tokio::test]
async fn a_connection_over_the_limit_is_closed_at_once_and_accepted_after_another_has_ended() {
    let server = Server::start(Config { max_connections: 1, ..Config::default() }).await;
    let stream = server.watch().await;
    closed(&mut server.silent().await).await;
    drop(stream);
    // The server accepts again after it has seen the end of the first connection.
    soon(async { while !server.answers().await {} }).await;
}

#[tokio::test]
async fn a_drain_ends_in_time_despite_a_silent_socket_and_an_endless_stream() {
    let drain = Duration::from_millis(300);
    let server = Server::start(Config { drain, ..Config::default() }).await;
    let (silent, mut stream) = (server.silent().await, server.stubborn().await);
    let began = Instant::now();
    server.shutdown.cancel();
    soon(server.served).await.unwrap();
    assert!(began.elapsed() >= drain * 3 / 4, "the stream had its time, but for the part of the log");
    assert!(soon(stream.message()).await.is_err());
    drop(silent);
}

#[tokio::test]
async fn a_client_that_watches_health_does_not_hold_up_a_drain() {
    let drain = Duration::from_secs(600);
    let server = Server::start(Config { drain, ..Config::default() }).await;
    let mut stream = server.watch().await;
    server.shutdown.cancel();
    assert_eq!(soon(stream.message()).await.unwrap_err().code(), Code::Unavailable);
    drop(stream);
    soon(server.served).await.unwrap();
}

#[tokio::test]
async fn an_old_connection_gets_a_goaway_and_its_streams_end() {
    let age = Duration::from_millis(100);
    let server = Server::start(Config { age, ..Config::default() }).await;
    let mut stream = server.watch().await;
    assert_eq!(soon(stream.message()).await.unwrap_err().code(), Code::Unavailable);
    assert!(!server.served.is_finished(), "only the connection has ended");
}

#[tokio::test]
async fn a_connection_without_a_stream_is_closed_when_it_has_been_idle() {
    let idle = Duration::from_millis(50);
    let server = Server::start(Config { idle, max_connections: 1, ..Config::default() }).await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut client = tonic_health::pb::health_client::HealthClient::new(channel.clone());
    client.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();
    // The limit holds until the server closes the idle connection; its client is still connected.
    soon(async { while !server.answers().await {} }).await;
    drop(channel);
}

#[tokio::test]
async fn a_panic_in_one_stream_ends_only_that_stream() {
    let server = Server::start(Config::default()).await;
    let channel = server.connect().await;
    let mut other = Server::open(channel.clone(), "/perennial.Stubborn/Wait").await;
    let mut broken = Server::open(channel.clone(), "/perennial.Stubborn/Panic").await;
    assert!(soon(broken.message()).await.is_err());
    let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
    soon(client.check(HealthCheckRequest::default())).await.unwrap();
    assert!(futures::FutureExt::now_or_never(other.message()).is_none(), "the other stream goes on");
}
