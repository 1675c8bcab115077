//! The embedded log: segments of commit blocks in a directory, written by one thread, read by anyone.
//!
//! - Acknowledged means on disk: a publish is answered after fdatasync, and readers see a message only then.
//! - One path from history to live: a reader reads up to the head, and then waits for the head to move. What was
//!   committed lately is kept in memory, so that live readers share its bytes; everything else is read from disk.
//! - Every entry has a checksum. What is damaged is told to readers by its sequences, and never served.
//!
//! The rooms: `block` is the format, `committer` writes, `open` finds what is there after a start, `reader` reads,
//! `index` knows where things are, `dedupe` knows ids, `recent` is what is kept in memory, `disk` is what tests break.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use self::{block::LogId, committer::Request, index::Index, recent::Recent};
use super::{Error, NewMessage, OpenError, Opened, Options, TopicInfo, TopicPage, topic::Pattern};

mod block;
mod committer;
mod dedupe;
mod disk;
mod index;
mod open;
mod reader;
mod recent;

pub use committer::Outcome;
pub use disk::Disk as Storage;
#[cfg(test)]
pub use disk::Faults;
pub use reader::{Bounds, Cut};

/// How many KiB of messages may wait to be written; a publisher that comes then waits.
const QUEUE_KIB: u32 = 64 * 1024;

/// How many requests may wait to be written.
const QUEUE_REQUESTS: usize = 16 * 1024;

/// A log in a directory.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
    /// None once the log is closed.
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the committer and the readers share.
#[derive(Debug)]
struct Shared {
    id: LogId,
    options: Options,
    state: RwLock<State>,
    /// The newest sequence that is on disk; 0 for none.
    head: watch::Sender<u64>,
    failed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    index: Index,
    recent: Recent,
    /// Sequences that are not served, because their bytes are damaged: first and last.
    damaged: BTreeMap<u64, u64>,
}

impl Shared {
    // A panic of the committer leaves the state behind its last whole block: it only adds.
    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_failed(&self) -> bool {
        *self.failed.borrow()
    }
}

impl Embedded {
    /// Opens a log, or makes one, and starts its committer.
    pub fn open(directory: &Path, options: Options) -> Result<(Self, Opened), OpenError> {
        let (committer, opened) = open::open(directory, options)?;
        let shared = committer.shared.clone();
        let (requests, receiver) = mpsc::channel(QUEUE_REQUESTS);
        let thread = std::thread::Builder::new()
            .name("committer".into())
            .spawn(move || committer.run(receiver))
            .map_err(|source| OpenError::Io { path: directory.into(), source })?;
        let room = Arc::new(Semaphore::new(usize::try_from(QUEUE_KIB).unwrap_or(usize::MAX)));
        let (requests, thread) = (Mutex::new(Some(requests)), Mutex::new(Some(thread)));
        Ok((Self { shared, room, requests, thread }, opened))
    }

    /// Which log it is.
    pub fn id(&self) -> LogId {
        self.shared.id
    }

    /// The most that a message has.
    pub fn max_message_bytes(&self) -> usize {
        self.shared.options.max_message_bytes
    }

    /// The newest sequence that can be read, and where to wait for a newer one.
    pub fn head(&self) -> watch::Receiver<u64> {
        self.shared.head.subscribe()
    }

    /// Whether a write has failed.
    pub fn failed(&self) -> watch::Receiver<bool> {
        self.shared.failed.subscribe()
    }

    /// Waits for room in the queue and puts messages into it, in the order of the calls. What is returned waits until
    /// they are on disk.
    pub async fn enqueue(
        &self,
        messages: Vec<NewMessage>,
        is_atomic: bool,
    ) -> Result<oneshot::Receiver<Outcome>, Error> {
        let bytes = messages.iter().map(NewMessage::bytes).sum::<usize>();
        let kib = u32::try_from(bytes / 1024).unwrap_or(u32::MAX).saturating_add(1).min(QUEUE_KIB);
        let room = self.room.clone().acquire_many_owned(kib).await.map_err(|_| Error::Closed)?;
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (reply, outcome) = oneshot::channel();
        let request = Request { messages, is_atomic, reply, room };
        requests.ok_or(Error::Closed)?.send(request).await.map_err(|_| Error::Closed)?;
        Ok(outcome)
    }

    /// The topics behind a name, by name.
    pub fn topics(&self, pattern: Option<&Pattern>, page_size: usize, after: Option<&str>) -> TopicPage {
        let state = self.shared.state();
        let matching =
            state.index.topics_after(after).filter(|(name, _)| pattern.is_none_or(|p| p.matches(name)));
        let at = |(sequence, time): (u64, u64)| (sequence, time_of(time));
        let info = |(name, topic): (&Arc<str>, &index::Topic)| TopicInfo {
            name: name.to_string(),
            messages: topic.messages,
            bytes: topic.bytes,
            first: at(topic.first),
            last: at(topic.last),
        };
        let mut topics = matching.take(page_size.saturating_add(1)).map(info).collect::<Vec<_>>();
        let has_more = topics.len() > page_size;
        topics.truncate(page_size);
        let next = topics.last().filter(|_| has_more).map(|topic| topic.name.clone());
        TopicPage { topics, next }
    }

    /// Takes no more messages, and waits until those that wait are on disk.
    pub async fn close(&self) {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && tokio::task::spawn_blocking(move || thread.join()).await.is_ok_and(|joined| joined.is_err())
        {
            tracing::error!("the committer panicked");
        }
    }
}

/// The name of the segment that begins with a sequence: names sort as sequences do.
fn segment_name(first_sequence: u64) -> String {
    format!("{first_sequence:020}.log")
}

/// Nanoseconds since 1970; 0 for what was before.
pub fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// The time so many nanoseconds after 1970.
fn time_of(nanos: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanos)
}
