//! The protocol of NATS, as much of it as a benchmark speaks: text lines, and payloads after them. It does less for a
//! message than any client library, so that what is measured is the server.

use bytes::{Buf, BytesMut};
use memchr::memchr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::Result;

/// How much is read from the socket at once.
const READ: usize = 256 * 1024;

const CONNECT: &str = concat!(
    r#"CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1,"#,
    r#""lang":"rust","version":"0","name":"bench"}"#,
    "\r\nPING\r\n"
);

/// What a server of JetStream says of itself to a consumer, in a header without a message.
const FLOW_CONTROL: &[u8] = b"NATS/1.0 100 FlowControl Request";
const STALLED: &[u8] = b"Nats-Consumer-Stalled: ";
const STATUS: &[u8] = b"NATS/1.0 ";

const NO_RESPONDERS: &[u8] = b"NATS/1.0 503";

/// The subscription to what answers requests.
pub const INBOX_ID: usize = 0;

/// A message that came.
#[derive(Clone, Copy)]
pub struct Msg<'a> {
    /// The number of the subscription.
    pub id: usize,
    pub reply: &'a [u8],
    pub payload: &'a [u8],
}

pub struct Connection {
    stream: TcpStream,
    input: BytesMut,
    output: BytesMut,
    /// No other connection has it.
    port: u16,
    requests: u64,
}

impl Connection {
    /// Connects to an address, and subscribes to the inbox of the connection.
    pub async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let port = stream.local_addr()?.port();
        let (input, output) = (BytesMut::with_capacity(2 * READ), CONNECT.as_bytes().into());
        let mut connection = Self { stream, input, output, port, requests: 0 };
        connection.subscribe(&format!("_INBOX.{port}.*"), INBOX_ID);
        connection.flush().await?;
        Ok(connection)
    }

    /// A number that no other connection has.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Subscribes; what comes has this number. 0 is the inbox.
    pub fn subscribe(&mut self, subject: &str, id: usize) {
        self.output.extend(format!("SUB {subject} {id}\r\n").into_bytes());
    }

    /// Ends a subscription.
    pub fn unsubscribe(&mut self, id: usize) {
        self.output.extend(format!("UNSUB {id}\r\n").into_bytes());
    }

    /// Queues a message, whose answer comes to the inbox.
    pub fn request(&mut self, subject: &[u8], payload: &[u8]) {
        self.requests += 1;
        let reply = format!(" _INBOX.{}.{} {}\r\n", self.port, self.requests, payload.len());
        for part in [b"PUB ", subject, reply.as_bytes(), payload, b"\r\n"] {
            self.output.extend_from_slice(part);
        }
    }

    /// Sends what was queued.
    pub async fn flush(&mut self) -> Result<()> {
        while !self.output.is_empty() {
            self.stream.write_buf(&mut self.output).await?;
        }
        Ok(())
    }

    /// Sends one request, and waits for its answer; nothing else may be on its way.
    pub async fn ask(&mut self, subject: &[u8], payload: &[u8]) -> Result<Vec<u8>> {
        self.request(subject, payload);
        self.flush().await?;
        let mut answer = None;
        while answer.is_none() {
            self.receive(|msg| {
                if msg.id == INBOX_ID {
                    answer = Some(msg.payload.to_vec());
                }
                Ok(())
            })
            .await?;
        }
        answer.ok_or_else(|| "no answer".into())
    }

    /// Waits until something came, and hands over each whole message. Flow control and pings are answered here.
    ///
    /// Dropped while it waits, it loses nothing.
    pub async fn receive(&mut self, mut take: impl FnMut(Msg<'_>) -> Result<()>) -> Result<()> {
        loop {
            let mut used = 0;
            while let Some(length) = self.frame(used, &mut take)? {
                used += length;
            }
            self.input.advance(used);
            if used > 0 {
                return self.flush().await;
            }
            self.input.reserve(READ);
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err("nats-server closed the connection".into());
            }
        }
    }

    /// Handles the item at an offset of the input, and returns its length, if it is whole.
    fn frame(&mut self, at: usize, take: &mut impl FnMut(Msg<'_>) -> Result<()>) -> Result<Option<usize>> {
        let rest = self.input.get(at..).unwrap_or_default();
        let Some(end) = memchr(b'\n', rest) else { return Ok(None) };
        let (line, body) = rest.split_at(end + 1);
        let line = line.trim_ascii_end();
        let (verb, arguments) = line.split_at(line.iter().position(|b| *b == b' ').unwrap_or(line.len()));
        match verb {
            b"MSG" | b"HMSG" => {}
            b"PING" => {
                self.output.extend_from_slice(b"PONG\r\n");
                return Ok(Some(end + 1));
            }
            b"-ERR" => return Err(String::from_utf8_lossy(line).into()),
            _ => return Ok(Some(end + 1)),
        }
        let Arguments { id, reply, head, total } =
            Arguments::parse(arguments, verb == b"HMSG").ok_or("a line that is no message")?;
        let Some((content, _)) = body.split_at_checked(total + 2) else { return Ok(None) };
        let (header, payload) = content.get(..total).unwrap_or_default().split_at(head);
        if header.starts_with(NO_RESPONDERS) {
            return Err("no responders: is JetStream on?".into());
        }
        if header.starts_with(STATUS) {
            let to =
                if header.starts_with(FLOW_CONTROL) { reply } else { stalled(header).unwrap_or_default() };
            if !to.is_empty() {
                self.output.extend([b"PUB ", to, b" 0\r\n\r\n"].concat());
            }
        } else {
            take(Msg { id, reply, payload })?;
        }
        Ok(Some(end + 1 + total + 2))
    }
}

/// Where a heartbeat says that an answer to flow control went missing.
fn stalled(header: &[u8]) -> Option<&[u8]> {
    let (_, subject) = header.split_at_checked(memchr::memmem::find(header, STALLED)? + STALLED.len())?;
    subject.get(..memchr(b'\r', subject)?)
}

/// `subject id [reply] [header bytes] total bytes`.
struct Arguments<'a> {
    id: usize,
    reply: &'a [u8],
    head: usize,
    total: usize,
}

impl<'a> Arguments<'a> {
    fn parse(arguments: &'a [u8], has_header: bool) -> Option<Self> {
        let mut words = arguments.trim_ascii_start().split(|byte| *byte == b' ');
        let (_, id) = (words.next()?, number(words.next()?)?);
        let mut last = words.next_back()?;
        let total = number(last)?;
        let head = if has_header {
            last = words.next_back()?;
            number(last)?
        } else {
            0
        };
        let reply = words.next().unwrap_or_default();
        (head <= total).then_some(Self { id, reply, head, total })
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    digits.iter().try_fold(0_usize, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| usize::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}
