//! Where the messages of a flow come from, and how each is named when something is wrong with it.
//!
//! They are read by a thread, because a read of a terminal cannot be cancelled. What cannot be read is told and passed
//! over; the others are published.

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
/// Above any limit of a server: what is larger is refused before it is read.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The messages as they were read.
#[derive(Clone)]
pub struct Messages(Arc<Shared>);

struct Shared {
    /// The files, where they are files.
    files: Vec<PathBuf>,
    /// Counted from 1: where the message is that is answered next, in order.
    unanswered: Mutex<VecDeque<u64>>,
    /// How many there were, with those that could not be read.
    total: AtomicU64,
    has_failed: AtomicBool,
}

impl Messages {
    /// Begins to read.
    pub fn open(it: Publish) -> (impl Stream<Item = PublishRequest> + Send, Self) {
        let source = it.source();
        let files = if let Source::Files(files) = &source { files.clone() } else { Vec::new() };
        let this = Self(Arc::new(Shared {
            files,
            unanswered: Mutex::default(),
            total: AtomicU64::new(0),
            has_failed: AtomicBool::new(false),
        }));
        let (sender, receiver) = mpsc::channel(MESSAGES_READY);
        let reading = Reading { it, shared: this.0.clone(), sender };
        std::thread::spawn(move || match source {
            Source::Files(files) => reading.files(&files),
            Source::Objects => reading.lines(|it, line| object::message(&line, it)),
            Source::Lines | Source::Text(_) => reading.lines(|it, line| Ok(Some(it.message(content(line))))),
        });
        (ReceiverStream::new(receiver), this)
    }

    /// The next one was answered: where it was.
    pub fn answered(&self) -> u64 {
        let mut unanswered = self.0.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        unanswered.pop_front().unwrap_or_default()
    }

    /// What a place is called.
    pub fn name(&self, place: u64) -> String {
        self.0.name(place)
    }

    pub fn total(&self) -> u64 {
        self.0.total.load(Ordering::Relaxed)
    }

    /// Something could not be read, which was told.
    pub fn has_failed(&self) -> bool {
        self.0.has_failed.load(Ordering::Relaxed)
    }

    pub fn is_stdin(&self) -> bool {
        self.0.files.is_empty()
    }
}

impl Shared {
    fn name(&self, place: u64) -> String {
        let file = usize::try_from(place).ok().and_then(|place| self.files.get(place.checked_sub(1)?));
        file.map_or_else(|| format!("line {place}"), |file| file.display().to_string())
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
    /// Sends a message that was read at a place, and tells whether anybody wants more.
    fn send(&self, place: u64, message: PublishRequest) -> bool {
        self.shared.unanswered.lock().unwrap_or_else(PoisonError::into_inner).push_back(place);
        self.shared.total.fetch_add(1, Ordering::Relaxed);
        self.sender.blocking_send(message).is_ok()
    }

    fn skip(&self, text: &str) {
        self.shared.total.fetch_add(1, Ordering::Relaxed);
        self.shared.fail(text);
    }

    /// The lines of stdin, without their newline, and what is made of each.
    fn lines(&self, message: impl Fn(&Publish, Vec<u8>) -> Result<Option<PublishRequest>, String>) {
        let mut stdin = std::io::stdin().lock();
        let mut line = Vec::new();
        for place in 1.. {
            match stdin.read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => return self.shared.fail(&format!("stdin cannot be read: {error}")),
            }
            line.pop_if(|last| *last == b'\n');
            match message(&self.it, std::mem::take(&mut line)) {
                Ok(None) => {}
                Ok(Some(message)) => {
                    if !self.send(place, message) {
                        return;
                    }
                }
                Err(fault) => self.skip(&format!("{}: {fault}", self.shared.name(place))),
            }
        }
    }

    fn files(&self, files: &[PathBuf]) {
        for (path, place) in files.iter().zip(1..) {
            match file(path) {
                Ok(content) => {
                    if !self.send(place, self.it.message(content)) {
                        return;
                    }
                }
                Err(fault) => self.skip(&fault),
            }
        }
    }
}

/// The content of a file.
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
