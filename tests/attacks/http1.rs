//! The same bounds over HTTP/1.1: headers, bodies and answers that never end, and requests that a proxy could read in
//! another way than the server.

use std::{fs, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    harness::{Server, soon},
    status_kib,
};

const GET: &str = "GET /nothing HTTP/1.1\r\nhost: localhost\r\n\r\n";

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address()).await.unwrap()
}

/// Everything that the server sends until it closes the connection.
async fn rest(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = soon("the end of a connection", socket.read_to_end(&mut bytes)).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The answers to bytes, after which the server must close the connection.
async fn answers(server: &Server, bytes: impl AsRef<[u8]>) -> String {
    let mut socket = connect(server).await;
    let _ = socket.write_all(bytes.as_ref()).await;
    rest(&mut socket).await
}

/// Another client is served.
async fn is_served(server: &Server) {
    let mut socket = connect(server).await;
    socket.write_all(GET.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    soon("an answer", socket.read_exact(&mut first)).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 404");
}

#[tokio::test]
async fn headers_that_never_end_are_cut_off() {
    let server = Server::start_with(&["--first-request", "1s"]);
    // Nothing, the beginning of a protocol, and headers that come byte by byte.
    for first in ["", "PR", "P", "GET / HTTP/1.1\r\nhost: localhost\r\n"] {
        let mut socket = connect(&server).await;
        socket.write_all(first.as_bytes()).await.unwrap();
        rest(&mut socket).await;
    }
    let mut socket = connect(&server).await;
    socket.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    soon("the end of a slow client", async {
        while socket.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    // After an answer, too.
    let mut socket = connect(&server).await;
    socket.write_all(format!("{GET}GET /").as_bytes()).await.unwrap();
    assert!(rest(&mut socket).await.starts_with("HTTP/1.1 404"));
    is_served(&server).await;
}

#[tokio::test]
async fn headers_that_are_too_large_or_too_many_are_refused() {
    let server = Server::start();
    let before = status_kib(server.id(), "VmHWM");
    let large = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "x".repeat(1024 * 1024));
    let many = format!("GET / HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "a: b\r\n".repeat(1_000));
    let long = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "x".repeat(1024 * 1024));
    for request in [large, many, long] {
        for _ in 0..20 {
            let answer = answers(&server, &request).await;
            // The client may see a reset instead, because it was still sending.
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        }
    }
    let grown = status_kib(server.id(), "VmHWM").saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB");
    is_served(&server).await;
}

#[tokio::test]
async fn a_request_that_proxies_read_in_different_ways_is_refused_or_is_the_last_one() {
    let server = Server::start();
    let head = "POST /v1/messages/a HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for fields in [
        "content-length: 2\r\ncontent-length: 3\r\n",
        "content-length: +2\r\n",
        "content-length: 2, 3\r\n",
        "content-length: 0x2\r\n",
        "content-length: -1\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "content-length : 2\r\n",
        " content-length: 2\r\n",
        "a: b\r\n content-length: 2\r\n",
    ] {
        let answer = answers(&server, format!("{head}{fields}\r\n{{}}{smuggled}")).await;
        assert!(answer.starts_with("HTTP/1.1 400") && !answer.contains("smuggled"), "{fields:?}: {answer}");
    }
    // Read as chunked, answered, and closed.
    for fields in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
        "transfer-encoding: chunked\r\n",
    ] {
        let answer = answers(&server, format!("{head}{fields}\r\n2\r\n{{}}\r\n0\r\n\r\n{smuggled}")).await;
        assert!(answer.starts_with("HTTP/1.1 ") && !answer.contains("smuggled"), "{fields:?}: {answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    }
    let old =
        "POST /v1/messages/a HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    assert!(answers(&server, format!("{old}{smuggled}")).await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn bodies_in_chunks_are_bounded_like_others() {
    let server = Server::start_with(&["--max-message", "64KiB", "--max-publish", "128KiB", "--stall", "1s"]);
    let head = "POST /v1/messages/a HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                transfer-encoding: chunked\r\n\r\n";
    for (chunk, what) in [
        ("ffffffffffffffff\r\n", "a length that overflows"),
        ("fffffffffffffffff\r\n", "a length that is too long"),
        ("x\r\n", "a length that is no number"),
        ("-1\r\n", "a negative length"),
        ("1 ;a\rb\r\n", "an extension with a line break"),
    ] {
        let answer = answers(&server, format!("{head}{chunk}{GET}{GET}")).await;
        assert!(!answer.contains("/nothing"), "{what}: {answer}");
    }
    let before = status_kib(server.id(), "VmHWM");
    for endless in [
        format!("10000\r\n{}\r\n", "x".repeat(0x10000)),
        "1\r\nx\r\n".repeat(10_000),
        format!("1;{}\r\nx\r\n", "e".repeat(1_000)).repeat(50),
    ] {
        let mut socket = connect(&server).await;
        socket.write_all(head.as_bytes()).await.unwrap();
        let (mut input, mut output) = socket.split();
        let mut answer = Vec::new();
        let send = async { while output.write_all(endless.as_bytes()).await.is_ok() {} };
        let read = async { _ = input.read_to_end(&mut answer).await };
        // The server answers, and closes the connection while the client still sends.
        soon("the end of an endless body", async { tokio::join!(send, read) }).await;
        let answer = String::from_utf8_lossy(&answer);
        // Too large, or not complete in time.
        let is_refused = answer.starts_with("HTTP/1.1 4") || answer.contains("STALLED");
        assert!(answer.is_empty() || is_refused, "{answer}");
    }
    // One that stops.
    let answer = answers(&server, format!("{head}5\r\nab")).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("STALLED"), "{answer}");
    let grown = status_kib(server.id(), "VmHWM").saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB");
    is_served(&server).await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_disconnected() {
    let server = Server::start_with(&["--stall", "1s"]);
    let line = "x".repeat(1_000) + "\n";
    fs::write(server.log_file("large.log"), line.repeat(50_000)).unwrap();
    let path = "GET /v1/lines/logs/large.log HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut socket = connect(&server).await;
    socket.write_all(path.as_bytes()).await.unwrap();
    let line = server.wait_for_log("stream ended");
    // The same limit holds for the stream and, in the kernel, for the connection: either may come first.
    assert!(line.contains("STALLED") || line.contains("CLIENT_GONE"), "{line}");
    // What has left, and then the end: the rest of the file never comes.
    let read = rest(&mut socket).await;
    assert!(read.len() < 45_000_000, "{}", read.len());
    is_served(&server).await;
}

#[tokio::test]
async fn requests_in_a_row_are_answered_one_by_one_and_hold_little() {
    let server = Server::start();
    let before = status_kib(server.id(), "VmHWM");
    let mut socket = connect(&server).await;
    let (mut input, mut output) = socket.split();
    // A stream that never ends, and requests after it, until the server takes no more.
    output.write_all(b"GET /v1/messages?topic=a HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let many = GET.repeat(1_000);
    let mut sent = 0;
    while let Ok(written) =
        tokio::time::timeout(Duration::from_secs(2), output.write_all(many.as_bytes())).await
    {
        written.unwrap();
        sent += many.len();
        assert!(sent < 256 * 1024 * 1024, "the server reads on");
    }
    let grown = status_kib(server.id(), "VmHWM").saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB");
    is_served(&server).await;
    let mut first = [0; 15];
    soon("the first answer", input.read_exact(&mut first)).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
}
