//! Readers that follow a log: ours, over a connection that may be cut, and GNU `tail -F`. Both hand over whole lines
//! as they come.

use std::{
    net::{Shutdown, TcpStream},
    path::Path,
    process::Stdio,
    time::Duration,
};

use bytes::BytesMut;
use memchr::memchr;
use perennial::proto::{ReadLinesRequest, ReadLinesResponse, line::Content};
use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStdout, Command},
    time::{Instant, timeout_at},
};
use tonic::Streaming;

use crate::{
    Result,
    measure::between,
    process::{Server, call},
};

/// Our method.
pub const READ_LINES: &str = "/perennial.v1.LineService/ReadLines";

/// The name of the log that is followed.
pub const LOG: &str = "app.log";

/// A reader that receives no line for this time receives no more.
pub const SILENCE: Duration = Duration::from_secs(5);

/// Takes the lines that a follower reads, without their newline.
pub trait Sink {
    fn take(&mut self, line: &[u8]);

    /// Whether it has all that it waits for.
    fn is_full(&self) -> bool;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Perennial,
    /// With connections that are cut at random.
    PerennialCut,
    Tail,
}

impl Reader {
    pub fn name(self) -> &'static str {
        match self {
            Self::Perennial => "perennial",
            Self::PerennialCut => "perennial, cut and resumed",
            Self::Tail => "tail -F",
        }
    }

    pub fn is_ours(self) -> bool {
        self != Self::Tail
    }
}

/// A reader at work; dropping it ends it.
pub enum Follower<'a> {
    Ours(Box<Ours<'a>>),
    Tail(Box<Tail>),
}

impl<'a> Follower<'a> {
    /// Follows [`LOG`] in a directory, which has to be the root of the server, from its head.
    pub async fn open(reader: Reader, directory: &Path, server: Option<&'a Server>) -> Result<Self> {
        let Some(server) = server.filter(|_| reader.is_ours()) else {
            return Self::tail(&directory.join(LOG));
        };
        let cuts = (reader == Reader::PerennialCut).then(|| Cuts::new(server.id().into()));
        Ok(Self::Ours(Box::new(Ours::open(server, cuts).await?)))
    }

    /// `tail -F` of a file, from its head.
    pub fn tail(path: &Path) -> Result<Self> {
        Ok(Self::Tail(Box::new(Tail::open(path)?)))
    }

    /// Reads until the sink is full, or until no line came for `silence`; returns whether it is full.
    pub async fn fill(&mut self, sink: &mut (impl Sink + Send), silence: Duration) -> Result<bool> {
        let mut end = Instant::now() + silence;
        while !sink.is_full() {
            let Ok(lines) = timeout_at(end, self.read(sink)).await else { return Ok(false) };
            if lines? > 0 {
                end = Instant::now() + silence;
            }
        }
        Ok(true)
    }

    /// Reads what comes next, and returns how many lines that were.
    async fn read(&mut self, sink: &mut (impl Sink + Send)) -> Result<usize> {
        match self {
            Self::Ours(ours) => ours.read(sink).await,
            Self::Tail(tail) => tail.read(sink).await,
        }
    }
}

/// When to cut the connection.
#[derive(Debug)]
struct Cuts {
    random: fastrand::Rng,
    next: Instant,
}

impl Cuts {
    /// How long a connection lives.
    const LIFE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(200));

    fn new(seed: u64) -> Self {
        let mut cuts = Self { random: fastrand::Rng::with_seed(seed), next: Instant::now() };
        cuts.plan();
        cuts
    }

    fn plan(&mut self) {
        self.next = Instant::now() + between(&mut self.random, Self::LIFE);
    }
}

pub struct Ours<'a> {
    server: &'a Server,
    request: ReadLinesRequest,
    stream: Streaming<ReadLinesResponse>,
    socket: TcpStream,
    cuts: Option<Cuts>,
}

impl<'a> Ours<'a> {
    async fn open(server: &'a Server, cuts: Option<Cuts>) -> Result<Self> {
        let request =
            ReadLinesRequest { path: format!("logs/{LOG}"), follow: true, ..ReadLinesRequest::default() };
        let (channel, socket) = server.connect_to_cut().await?;
        let stream = call(&channel, READ_LINES, request.clone()).await?;
        Ok(Self { server, request, stream, socket, cuts })
    }

    async fn read(&mut self, sink: &mut impl Sink) -> Result<usize> {
        let Some(response) = self.response().await? else { return Ok(0) };
        for line in &response.lines {
            sink.take(content(line.content.as_ref()));
        }
        self.request.cursor = Some(response.cursor);
        Ok(response.lines.len())
    }

    /// The next response, or none if the connection was cut before.
    async fn response(&mut self) -> Result<Option<ReadLinesResponse>> {
        let response = match &self.cuts {
            None => self.stream.message().await?,
            // A stream that always has something ready would never let the clock decide.
            Some(cuts) if cuts.next <= Instant::now() => return self.cut().await,
            Some(cuts) => match timeout_at(cuts.next, self.stream.message()).await {
                Ok(response) => response?,
                Err(_) => return self.cut().await,
            },
        };
        Ok(Some(response.ok_or("the stream ended")?))
    }

    /// Ends the connection in the middle of whatever it carries, and goes on with the last cursor on a new one.
    async fn cut(&mut self) -> Result<Option<ReadLinesResponse>> {
        self.socket.shutdown(Shutdown::Both)?;
        let (channel, socket) = self.server.connect_to_cut().await?;
        self.stream = call(&channel, READ_LINES, self.request.clone()).await?;
        self.socket = socket;
        if let Some(cuts) = &mut self.cuts {
            cuts.plan();
        }
        Ok(None)
    }
}

/// The bytes of a line.
pub fn content(content: Option<&Content>) -> &[u8] {
    match content {
        Some(Content::Text(text)) => text.as_bytes(),
        Some(Content::Data(raw)) => raw,
        None => &[],
    }
}

/// GNU tail with its default settings, from the head of the file.
pub struct Tail {
    stdout: ChildStdout,
    unfinished: BytesMut,
    _child: Child,
}

impl Tail {
    fn open(path: &Path) -> Result<Self> {
        let mut command = Command::new("tail");
        command.args(["-F", "-n", "+1"]).arg(path).kill_on_drop(true);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        Ok(Self { stdout, unfinished: BytesMut::with_capacity(1 << 16), _child: child })
    }

    async fn read(&mut self, sink: &mut impl Sink) -> Result<usize> {
        if self.stdout.read_buf(&mut self.unfinished).await? == 0 {
            return Err("tail ended".into());
        }
        let mut lines = 0;
        while let Some(end) = memchr(b'\n', &self.unfinished) {
            let line = self.unfinished.split_to(end + 1);
            sink.take(line.strip_suffix(b"\n").unwrap_or(&line));
            lines += 1;
        }
        Ok(lines)
    }
}
