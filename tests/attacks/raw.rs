//! A client of HTTP/2 that sends what it likes, and leaves unsent and unread what it likes.

use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::Incoming,
    client::conn::http2::{Builder, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{Server, soon};

pub const PUBLISH_BATCH: &str = "/perennial.v1.MessageService/PublishBatch";

type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// A connection.
#[derive(Clone)]
pub struct Raw(SendRequest<Body>);

/// A request that is sent in part or as a whole.
pub struct Sent {
    pub headers: Vec<(&'static str, String)>,
    pub bytes: Bytes,
    pub is_whole: bool,
}

impl Sent {
    /// The bytes of a body and its end.
    pub fn whole(bytes: impl Into<Vec<u8>>) -> Self {
        Self { headers: Vec::new(), bytes: bytes.into().into(), is_whole: true }
    }

    /// The bytes of a body that has no end.
    pub fn half(bytes: impl Into<Vec<u8>>) -> Self {
        Self { is_whole: false, ..Self::whole(bytes) }
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A message with its prefix.
pub fn framed(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    [&prefix(bytes.len())[..], &bytes].concat()
}

/// The prefix of a message of this length.
pub fn prefix(length: usize) -> [u8; 5] {
    let [a, b, c, d] = u32::try_from(length).unwrap().to_be_bytes();
    [0, a, b, c, d]
}

impl Raw {
    /// Connects with this window for each stream.
    pub async fn connect(server: &Server, window: u32) -> Self {
        let socket = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        let mut builder = Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(window);
        let (sender, connection) = builder.handshake(TokioIo::new(socket)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    /// Sends a request, and gives the head of its response.
    pub async fn call(&mut self, path: &str, sent: Sent) -> http::Response<Incoming> {
        let Sent { headers, bytes, is_whole } = sent;
        let first = stream::iter([Ok(Frame::data(bytes))]);
        let body = if is_whole { first.boxed() } else { first.chain(stream::pending()).boxed() };
        let mut request = http::Request::post(format!("http://attack{path}"));
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/grpc");
        }
        for (name, value) in headers.into_iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(name, value);
        }
        let request = request.body(BodyExt::boxed_unsync(StreamBody::new(body))).unwrap();
        self.0.ready().await.unwrap();
        self.0.send_request(request).await.unwrap()
    }

    /// The status of a call that ends with its headers.
    pub async fn status(&mut self, path: &str, sent: Sent) -> Status {
        let response = soon("the head of a response", self.call(path, sent)).await;
        Status::from_header_map(response.headers()).unwrap_or_else(|| panic!("{response:?} has no status"))
    }
}

/// The code and the reason of a status.
pub fn reason(status: &Status) -> (Code, String) {
    let info = status.get_details_error_info();
    (status.code(), info.map(|info| info.reason).unwrap_or_default())
}
