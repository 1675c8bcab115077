//! A slow reader costs little by TLS, too: what is encrypted and cannot be sent has a limit.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use hyper_util::rt::TokioIo;
use perennial::proto::{Line, ReadLinesRequest, line::Content, line_service_client::LineServiceClient};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};
use tonic::transport::{Channel, Endpoint};

use crate::{
    authority::Authority,
    harness::{Server, soon, until},
    renewal::{handshake, start},
};

/// The readers that take nothing.
const READERS: usize = 20;

/// The most that the server may hold for one of them. A debug build holds more than an optimised one.
const MOST_KIB: usize = 1024;

/// A socket that can be told to read nothing.
struct Tap {
    socket: TcpStream,
    valve: Arc<Valve>,
}

#[derive(Default)]
struct Valve {
    is_closed: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

impl Valve {
    fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
    }

    fn open(&self) {
        self.is_closed.store(false, Ordering::SeqCst);
        let waiting = self.waiting.lock().unwrap().take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        *self.valve.waiting.lock().unwrap() = Some(context.waker().clone());
        if self.valve.is_closed.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Tap {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

/// A connection by TLS whose socket has a valve.
async fn connect(server: &Server, authority: &Authority, valve: &Arc<Valve>) -> Channel {
    let (address, ca, valve) = (server.address(), authority.file("ca.pem"), valve.clone());
    let connector = tower::service_fn(move |_| {
        let (ca, valve) = (ca.clone(), valve.clone());
        async move {
            let socket = TcpStream::connect(address).await?;
            Ok::<_, io::Error>(TokioIo::new(handshake(Tap { socket, valve }, &ca).await))
        }
    });
    // Windows that are larger than all that the kernel holds, so that the socket is what fills.
    let endpoint = Endpoint::from_static("http://localhost");
    let endpoint = endpoint.initial_stream_window_size(1 << 28).initial_connection_window_size(1 << 28);
    endpoint.connect_with_connector(connector).await.unwrap()
}

fn request() -> ReadLinesRequest {
    ReadLinesRequest { path: "logs/app.log".into(), ..ReadLinesRequest::default() }
}

/// More than the kernel holds of a connection.
fn content() -> String {
    (0..400_000).map(|n| format!("{n} {}\n", "x".repeat(n % 100))).collect()
}

fn text(line: Line) -> String {
    match line.content {
        Some(Content::Text(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// A figure of the metrics, or 0.
async fn figure(address: &str, name: &str) -> u64 {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    soon("metrics", socket.read_to_string(&mut text)).await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |value| value.trim().parse().unwrap())
}

fn resident_kib(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn served(authority: &Authority, stall: &str) -> (Server, String) {
    authority.sign_server();
    let server = start(authority, &["--stall", stall, "--metrics", "127.0.0.1:0"]);
    let line = server.wait_for_log("metrics are at ");
    std::fs::write(server.log_file("app.log"), content()).unwrap();
    (server, line.rsplit("http://").next().unwrap().trim_end_matches("/metrics").to_owned())
}

const BYTES: &str = "perennial_bytes_total{method=\"ReadLines\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_pauses_gets_everything_when_it_continues() {
    let authority = Authority::new("ours");
    let (server, metrics) = served(&authority, "5m");
    let valve = Arc::new(Valve::default());
    let mut client = LineServiceClient::new(connect(&server, &authority, &valve).await);
    let mut lines = client.read_lines(request()).await.unwrap().into_inner();
    let mut seen = Vec::new();
    // It pauses until the server can send no more, again and again.
    for _ in 0..3 {
        valve.close();
        let mut before = 0;
        until("the server stops", async || {
            let now = figure(&metrics, BYTES).await;
            std::mem::replace(&mut before, now) == now && now > 0
        })
        .await;
        valve.open();
        for _ in 0..20 {
            let response = soon("a response", lines.message()).await.unwrap().unwrap();
            seen.extend(response.lines.into_iter().map(text));
        }
    }
    while let Some(response) = soon("a response", lines.message()).await.unwrap() {
        seen.extend(response.lines.into_iter().map(text));
    }
    let content = content();
    let expected = content.lines().collect::<Vec<_>>();
    assert_eq!(seen.len(), expected.len());
    assert!(seen.iter().zip(expected).all(|(seen, expected)| seen == expected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_take_nothing_hold_little_and_are_ended() {
    let authority = Authority::new("ours");
    let (server, metrics) = served(&authority, "300ms");
    let open = async |valve: &Arc<Valve>| {
        let mut client = LineServiceClient::new(connect(&server, &authority, valve).await);
        let lines = client.read_lines(request()).await.unwrap().into_inner();
        valve.close();
        (client, lines)
    };
    let ended = "perennial_streams_ended_total{method=\"ReadLines\",code=\"UNAVAILABLE\"}";
    // The first one warms up what is there once.
    let first = Arc::new(Valve::default());
    let _first = open(&first).await;
    until("the first one is ended", async || figure(&metrics, ended).await == 1).await;
    let before = resident_kib(&server);
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let valve = Arc::new(Valve::default());
        readers.push((open(&valve).await, valve));
    }
    let mut most = 0;
    until("all are ended", async || {
        most = most.max(resident_kib(&server));
        figure(&metrics, ended).await == 1 + READERS as u64
    })
    .await;
    assert!(
        most.saturating_sub(before) < READERS * MOST_KIB,
        "{before} KiB before, {most} KiB with {READERS} readers"
    );
    // The reason is there for a reader that continues.
    let ((_, lines), valve) = &mut readers[0];
    valve.open();
    let status = loop {
        match soon("the end", lines.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a stream that was not read to its end has ended with OK"),
            Err(status) => break status,
        }
    };
    assert!(status.message().contains("read nothing"), "{status:?}");
}
