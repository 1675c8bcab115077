//! Frames of HTTP/2 as bytes, and a connection that sends them and keeps what the server answers.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the tests and the benches use a part of it each"
)]

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// The first bytes of a client.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Flags. The first also acknowledges settings and pings.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A health check, which the server answers whatever it holds.
pub const CHECK: &str = "/grpc.health.v1.Health/Check";

/// The largest payload of a frame.
pub const FRAME_BYTES: usize = 16 * 1024;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header, encoded without an index.
pub fn header(name: &str, value: &str) -> Vec<u8> {
    [&[0][..], &text(name), &text(value)].concat()
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    if text.len() < 127 {
        bytes.push(u8::try_from(text.len()).unwrap());
    } else {
        bytes.push(127);
        let mut rest = text.len() - 127;
        while rest >= 128 {
            bytes.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        bytes.push(u8::try_from(rest).unwrap());
    }
    bytes.extend(text.as_bytes());
    bytes
}

/// The headers of a call, as a block.
pub fn call(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "attack"),
        (":path", path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    fields.iter().flat_map(|(name, value)| header(name, value)).collect()
}

/// The headers of a call, whose request is still to come.
pub fn open(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &call(path))
}

/// A whole call with an empty message.
pub fn whole(stream: u32, path: &str) -> Vec<u8> {
    [open(stream, path), frame(DATA, END_STREAM, stream, &[0; 5])].concat()
}

/// What the server has sent.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The code of its GOAWAY.
    pub goaway: Option<u32>,
    /// Streams that it has reset.
    pub resets: usize,
    /// Streams that it has ended.
    pub ended: Vec<u32>,
    /// Acknowledged pings.
    pub pings: usize,
    /// It has closed the connection.
    pub is_closed: bool,
}

/// A connection.
pub struct Wire {
    output: OwnedWriteHalf,
    seen: watch::Receiver<Seen>,
}

impl Wire {
    /// Connects and speaks as a client does.
    pub async fn connect(server: SocketAddr) -> Self {
        let mut wire = Self::silent(server).await;
        assert!(wire.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await);
        wire
    }

    /// Connects and sends nothing.
    pub async fn silent(server: SocketAddr) -> Self {
        let (input, output) = TcpStream::connect(server).await.unwrap().into_split();
        let (sender, seen) = watch::channel(Seen::default());
        tokio::spawn(read(input, sender));
        Self { output, seen }
    }

    /// Sends bytes. False if the server has closed the connection.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        let is_sent = self.output.write_all(bytes).await.is_ok();
        is_sent && !self.seen.borrow().is_closed
    }

    /// What the server has sent.
    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits for something that the server sends.
    pub async fn saw(&mut self, what: &str, is_it: impl FnMut(&Seen) -> bool) -> Seen {
        crate::harness::soon(what, self.seen.wait_for(is_it)).await.unwrap().clone()
    }

    /// Waits until the server has closed the connection.
    pub async fn closed(&mut self) -> Seen {
        self.saw("the end of the connection", |seen| seen.is_closed).await
    }
}

/// Reads frames until the connection ends.
async fn read(mut input: OwnedReadHalf, seen: watch::Sender<Seen>) {
    let mut head = [0; 9];
    let mut payload = Vec::new();
    while input.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        payload.resize(length, 0);
        if input.read_exact(&mut payload).await.is_err() {
            break;
        }
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        seen.send_modify(|seen| match kind {
            GOAWAY => seen.goaway = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap())),
            RESET => seen.resets += 1,
            HEADERS | DATA if flags & END_STREAM != 0 => seen.ended.push(stream),
            PING => seen.pings += 1,
            _ => {}
        });
    }
    seen.send_modify(|seen| seen.is_closed = true);
}
