//! The messages of a flow, and the name of each for reports: the number of its line, or its file.
//!
//! A thread reads them, because a read of a terminal cannot be cancelled. A line or a file that cannot be read is
//! reported and skipped; the others are published.

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufRead, Read},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use futures::Stream;
use perennial::proto::{PublishRequest, publish_request::Content};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::object;
use crate::{
    arguments::{Publish, Source},
    output,
};

/// Messages read ahead of the flow: enough for a full frame.
const MESSAGES_READY: usize = 1_024;
/// Above any limit of a server, so that a larger file is refused before it is read.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// A line of stdin.
#[derive(Debug, PartialEq)]
pub enum Line {
    Message(Box<PublishRequest>),
    /// A message that has expired, so that no reader would get it.
    Expired,
    /// A line without a message.
    Empty,
}

/// The messages that were read.
#[derive(Clone)]
pub struct Messages(Arc<Shared>);

struct Shared {
    /// Empty if the messages come from stdin.
    files: Vec<PathBuf>,
    /// The numbers of the unanswered messages, in order: of their lines or files, counted from 1.
    unanswered: Mutex<VecDeque<u64>>,
    /// All messages, with those that could not be read.
    total: AtomicU64,
    expired: AtomicU64,
    has_failed: AtomicBool,
}

impl Messages {
    /// Starts to read.
    pub fn open(it: Publish) -> (impl Stream<Item = PublishRequest> + Send, Self) {
        let source = it.source();
        let files = if let Source::Files(files) = &source { files.clone() } else { Vec::new() };
        let this = Self(Arc::new(Shared {
            files,
            unanswered: Mutex::default(),
            total: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            has_failed: AtomicBool::new(false),
        }));
        let (sender, receiver) = mpsc::channel(MESSAGES_READY);
        let reading = Reading { it, shared: this.0.clone(), sender };
        std::thread::spawn(move || match source {
            Source::Files(files) => reading.files(&files),
            Source::Objects => reading.lines(|it, line| object::message(&line, it)),
            Source::Lines | Source::Text(_) => {
                reading.lines(|it, line| Ok(Line::Message(it.message(content(line)).into())));
            }
        });
        (ReceiverStream::new(receiver), this)
    }

    /// The number of the next message in order, which was answered.
    #[expect(clippy::expect_used, reason = "the client yields one result for each message")]
    pub fn answered(&self) -> u64 {
        let mut unanswered = self.0.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        unanswered.pop_front().expect("a result belongs to a message that was read")
    }

    /// The name of the message with a number, for a report.
    pub fn name(&self, number: u64) -> String {
        self.0.name(number)
    }

    pub fn total(&self) -> u64 {
        self.0.total.load(Ordering::Relaxed)
    }

    pub fn expired(&self) -> u64 {
        self.0.expired.load(Ordering::Relaxed)
    }

    /// Whether a message could not be read, which was reported.
    pub fn has_failed(&self) -> bool {
        self.0.has_failed.load(Ordering::Relaxed)
    }

    pub fn is_stdin(&self) -> bool {
        self.0.files.is_empty()
    }
}

impl Shared {
    fn name(&self, number: u64) -> String {
        let file = usize::try_from(number).ok().and_then(|number| self.files.get(number.checked_sub(1)?));
        file.map_or_else(|| format!("line {number}"), |file| file.display().to_string())
    }

    fn fail(&self, text: &str) {
        self.has_failed.store(true, Ordering::Relaxed);
        output::error(text);
    }
}

struct Reading {
    it: Publish,
    shared: Arc<Shared>,
    sender: mpsc::Sender<PublishRequest>,
}

impl Reading {
    /// Sends the message with a number, and returns whether more messages are wanted.
    fn send(&self, number: u64, message: PublishRequest) -> bool {
        self.shared.unanswered.lock().unwrap_or_else(PoisonError::into_inner).push_back(number);
        self.shared.total.fetch_add(1, Ordering::Relaxed);
        self.sender.blocking_send(message).is_ok()
    }

    fn skip(&self, text: &str) {
        self.shared.total.fetch_add(1, Ordering::Relaxed);
        self.shared.fail(text);
    }

    /// Reads the lines of stdin without their newline, and sends the message of each.
    fn lines(&self, message: impl Fn(&Publish, Vec<u8>) -> Result<Line, String>) {
        let mut stdin = std::io::stdin().lock();
        let mut line = Vec::new();
        for number in 1.. {
            match stdin.read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => return self.shared.fail(&format!("stdin cannot be read: {error}")),
            }
            line.pop_if(|last| *last == b'\n');
            match message(&self.it, std::mem::take(&mut line)) {
                Ok(Line::Empty) => {}
                Ok(Line::Expired) => {
                    self.shared.total.fetch_add(1, Ordering::Relaxed);
                    self.shared.expired.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Line::Message(message)) => {
                    if !self.send(number, *message) {
                        return;
                    }
                }
                Err(fault) => self.skip(&format!("{}: {fault}", self.shared.name(number))),
            }
        }
    }

    fn files(&self, files: &[PathBuf]) {
        for (path, number) in files.iter().zip(1..) {
            match file(path) {
                Ok(content) => {
                    if !self.send(number, self.it.message(content)) {
                        return;
                    }
                }
                Err(fault) => self.skip(&fault),
            }
        }
    }
}

/// Reads a file as the content of a message.
pub fn file(path: &Path) -> Result<Content, String> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes.len() as u64 > MAX_BYTES => {
            Err(format!("{} is larger than any message can be", path.display()))
        }
        Ok(bytes) => Ok(content(bytes)),
        Err(error) => {
            let error: std::io::Error = error;
            Err(format!("{} cannot be read: {error}", path.display()))
        }
    }
}

fn content(bytes: Vec<u8>) -> Content {
    match String::from_utf8(bytes) {
        Ok(text) => Content::Text(text),
        Err(bytes) => Content::Data(bytes.into_bytes()),
    }
}
