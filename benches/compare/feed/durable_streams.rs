//! The `durable-streams` server, a durable append log over HTTP/1.1, as a process, and what one asks of it.
//!
//! It keeps the bytes of each stream as one file, without a message's topic, time or sequence, and a read is a range of that
//! file. So its replay is the floor of what a copy to a socket costs. Here a stream is a topic, and an append a message.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use bytes::{Buf, BytesMut};
use memchr::memmem;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::load::{Load, Messages, SIZE};
use crate::{Result, directory, process::Process};

const LISTENING: &str = "listening on http://";

/// How to get it.
const INSTALL: &str =
    "no durable-streams-server: cargo install durable-streams, or set BENCH_DURABLE_STREAMS";

/// The stream that is read as a whole.
const EVERYTHING: &str = "everything";

/// How much is read from the socket at once.
const READ: usize = 256 * 1024;

/// How many messages an append has when a stream is filled.
const FILL_FRAME: u64 = 1_000;

/// The path of the server: from the environment, or from `PATH`.
fn program() -> Option<PathBuf> {
    if let Some(given) = std::env::var_os("BENCH_DURABLE_STREAMS").map(PathBuf::from) {
        return given.is_file().then_some(given);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|place| place.join("durable-streams-server")).find(|file| file.is_file())
}

/// Why it can't run here, if it can't.
pub fn missing() -> Option<&'static str> {
    program().is_none().then_some(INSTALL)
}

/// A running server; dropping it ends it.
pub struct Server {
    process: Process,
    address: String,
    data: TempDir,
}

impl Server {
    /// Starts one on data that are there already, or on an empty directory.
    pub fn open(data: TempDir) -> Result<Self> {
        // It prints the port that it was given, so it cannot be given 0.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$@" >&2"#, "sh"]).arg(program().ok_or(INSTALL)?);
        command.args(["--port", &port, "--data-dir"]).arg(data.path());
        let (process, line) = Process::start("durable-streams-server", command, LISTENING)?;
        let address = line.split_whitespace().next().unwrap_or_default().to_owned();
        Ok(Self { process, address, data })
    }

    /// Starts an empty one.
    pub fn start() -> Result<Self> {
        Self::open(directory()?)
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Where its data are.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// Asks it to stop, waits until it has, and hands out its data.
    pub fn stop(self) -> Result<TempDir> {
        self.process.stop()?;
        Ok(self.data)
    }

    /// Kills it without a word, and hands out its data.
    pub fn kill(self) -> TempDir {
        drop(self.process);
        self.data
    }

    /// A connection of its own.
    pub async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, input: BytesMut::with_capacity(2 * READ) })
    }
}

/// A connection that is kept alive, with one request at a time. It does less for an answer than any HTTP library, so that
/// what is measured is the server.
pub struct Connection {
    stream: TcpStream,
    input: BytesMut,
}

impl Connection {
    /// Sends a request, and returns the length of the answer's body, which is read and dropped.
    async fn ask(&mut self, method: &str, stream: &str, body: &[u8]) -> Result<u64> {
        let head = format!(
            "{method} /{stream} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/octet-stream\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        self.stream.write_all(&[head.as_bytes(), body].concat()).await?;
        let length = self.head().await?;
        let mut left = length;
        loop {
            let read = left.min(self.input.len() as u64);
            self.input.advance(usize::try_from(read)?);
            left -= read;
            if left == 0 {
                return Ok(length);
            }
            self.read().await?;
        }
    }

    /// Reads the head of an answer, and returns the length of its body. An answer that is no success is an error.
    async fn head(&mut self) -> Result<u64> {
        const END: &[u8] = b"\r\n\r\n";
        let end = loop {
            if let Some(end) = memmem::find(&self.input, END) {
                break end + END.len();
            }
            self.read().await?;
        };
        let head = self.input.split_to(end);
        let head = str::from_utf8(&head)?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        if !status.starts_with('2') {
            return Err(format!("durable-streams-server: {head}").into());
        }
        let length = head.lines().filter_map(|line| line.split_once(':'));
        let length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        Ok(length.map(|(_, value)| value.trim().parse()).next().transpose()?.unwrap_or_default())
    }

    async fn read(&mut self) -> Result<()> {
        self.input.reserve(READ);
        if self.stream.read_buf(&mut self.input).await? == 0 {
            return Err("durable-streams-server closed the connection".into());
        }
        Ok(())
    }
}

/// Fills the stream that is read as a whole, and returns how many messages it has then.
pub async fn fill(connection: &mut Connection, messages: &Messages, load: &Load) -> Result<u64> {
    connection.ask("PUT", EVERYTHING, &[]).await?;
    let mut body = Vec::new();
    for number in 0..load.messages {
        body.extend_from_slice(&messages.nth(number).1);
        if (number + 1).is_multiple_of(FILL_FRAME) || number + 1 == load.messages {
            connection.ask("POST", EVERYTHING, &body).await?;
            body.clear();
        }
    }
    Ok(load.messages)
}

/// Publishes one after the other until a moment, each to the stream of its topic, and returns how long each took, in
/// nanoseconds.
pub async fn publish_singly(
    connection: &mut Connection,
    messages: &Messages,
    first: u64,
    end: Instant,
) -> Result<Vec<i64>> {
    let (mut took, mut number) = (Vec::new(), first);
    while Instant::now() < end {
        let (topic, payload) = messages.nth(number);
        let start = Instant::now();
        connection.ask("POST", str::from_utf8(&topic)?, &payload).await?;
        took.push(i64::try_from(start.elapsed().as_nanos())?);
        number += 1;
    }
    Ok(took)
}

/// Makes the streams of these topics.
pub async fn create(connection: &mut Connection, messages: &Messages, topics: usize) -> Result<()> {
    for number in 0..topics {
        connection.ask("PUT", str::from_utf8(&messages.nth(number as u64).0)?, &[]).await?;
    }
    Ok(())
}

/// Reads everything, and returns the number of messages.
pub async fn replay(connection: &mut Connection) -> Result<u64> {
    Ok(connection.ask("GET", EVERYTHING, &[]).await? / SIZE as u64)
}
