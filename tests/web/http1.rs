//! A client of HTTP/1.1 that shows every byte of the head, and gives chunks as they arrive.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::harness::{Server, soon};

/// A connection.
pub struct Http1(BufReader<TcpStream>);

/// The head of an answer.
#[derive(Clone, Debug)]
pub struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The value of a header; empty without one.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

impl Http1 {
    pub async fn connect(server: SocketAddr) -> Self {
        Self(BufReader::new(TcpStream::connect(server).await.unwrap()))
    }

    /// Sends bytes. False if the server has closed the connection.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.get_mut().write_all(bytes.as_ref()).await.is_ok()
    }

    /// The head of the next answer; `None` if the server has closed the connection.
    pub async fn head(&mut self) -> Option<Head> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let read = soon("a line of a head", self.0.read_line(&mut line)).await;
            if read.unwrap_or(0) == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let status = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &String| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        Some(Head { status, headers: lines[1..].iter().map(header).collect() })
    }

    /// The next chunk of a body. Empty at its end; `None` if it was cut.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut line = String::new();
        let read = soon("a chunk", self.0.read_line(&mut line)).await;
        if read.unwrap_or(0) == 0 {
            return None;
        }
        let length = usize::from_str_radix(line.trim_end(), 16).unwrap_or_else(|_| panic!("{line:?}"));
        let mut bytes = vec![0; length + 2];
        soon("the bytes of a chunk", self.0.read_exact(&mut bytes)).await.ok()?;
        bytes.truncate(length);
        Some(bytes)
    }

    /// The rest of a body.
    pub async fn body(&mut self, head: &Head) -> Vec<u8> {
        let mut body = Vec::new();
        if head.header("transfer-encoding") == "chunked" {
            while let Some(chunk) = self.chunk().await.filter(|chunk| !chunk.is_empty()) {
                body.extend(chunk);
            }
        } else {
            body.resize(head.header("content-length").parse().unwrap_or(0), 0);
            soon("a body", self.0.read_exact(&mut body)).await.unwrap();
        }
        body
    }

    /// Waits until the server has closed the connection.
    pub async fn closed(&mut self) {
        let mut rest = Vec::new();
        let _ = soon("the end of a connection", self.0.read_to_end(&mut rest)).await;
    }
}

/// The bytes of a request without a body.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        text += "host: localhost\r\n";
    }
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    (text + "\r\n").into_bytes()
}

/// The bytes of a POST.
pub fn post(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let length = body.len().to_string();
    let headers = [headers, &[("content-length", length.as_str())]].concat();
    [&request("POST", path, &headers)[..], body].concat()
}

/// One request on a connection of its own: the head and the body of its answer.
pub async fn ask(server: &Server, request: impl AsRef<[u8]>) -> (Head, String) {
    let mut client = Http1::connect(server.address()).await;
    assert!(client.send(request).await);
    let head = client.head().await.expect("an answer");
    let body = client.body(&head).await;
    (head, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn every_request_of_http_1_gets_an_answer_that_says_what_would_work() {
    let server = Server::start();
    let (head, body) = ask(&server, request("GET", "/nothing", &[])).await;
    assert_eq!((head.status, head.header("content-type")), (404, "application/problem+json"));
    let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (problem["reason"].as_str(), problem["status"].as_u64()),
        (Some("REQUEST_MALFORMED"), Some(404))
    );
    assert!(problem["detail"].as_str().unwrap().contains("/nothing"), "{body}");
    let native =
        post("/perennial.v1.MessageService/Publish", &[("content-type", "application/grpc")], &[0; 5]);
    let (head, body) = ask(&server, native).await;
    assert_eq!(head.status, 505);
    assert!(body.contains("HTTP/2") && body.contains("gRPC-Web"), "{body}");
    let (head, _) = ask(&server, "PRI\r\n\r\n").await;
    assert_eq!(head.status, 400);
    let (head, _) = ask(&server, "\u{16}\u{3}\u{1}\r\n\r\n").await;
    assert_eq!(head.status, 400);
    let (head, _) = ask(&server, "GET / HTTP/1.0\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(head.status, 200, "{head:?}");
    for (method, path, allowed) in [
        ("DELETE", "/v1/messages/demo.a", "POST"),
        ("HEAD", "/v1/countdown", "GET"),
        ("PUT", "/", "GET, HEAD"),
    ] {
        let mut client = Http1::connect(server.address()).await;
        assert!(client.send(request(method, path, &[])).await);
        let head = client.head().await.unwrap();
        assert_eq!((head.status, head.header("allow")), (405, allowed), "{method} {path}");
    }
}

#[tokio::test]
async fn a_connection_of_http_1_answers_one_request_after_the_other() {
    let server = Server::start();
    let mut client = Http1::connect(server.address()).await;
    // Byte by byte, so that the protocol is found without losing any.
    for byte in request("GET", "/a", &[]) {
        assert!(client.send([byte]).await);
    }
    let head = client.head().await.unwrap();
    assert!(String::from_utf8(client.body(&head).await).unwrap().contains("/a"));
    // Two at once.
    assert!(client.send([request("GET", "/b", &[]), request("GET", "/c", &[])].concat()).await);
    for path in ["/b", "/c"] {
        let head = client.head().await.unwrap();
        assert!(String::from_utf8(client.body(&head).await).unwrap().contains(path));
    }
}

#[tokio::test]
async fn http_2_is_found_when_its_first_bytes_come_one_by_one() {
    let server = Server::start();
    let mut client = Http1::connect(server.address()).await;
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0" {
        assert!(client.send([*byte]).await);
    }
    let mut settings = [0; 9];
    soon("the settings of the server", client.0.read_exact(&mut settings)).await.unwrap();
    assert_eq!(settings[3], 4, "{settings:?}");
}
