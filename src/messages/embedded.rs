//! The embedded log: segments of commit blocks in a directory, written by one thread, read by anyone.
//!
//! - Acknowledged means on disk: a publish is answered after fdatasync, and readers see a message only then.
//! - One path from history to live: a reader reads up to the head, and then waits until the bell rings for it. What was
//!   committed lately is kept in memory, so that live readers share its bytes; everything else is read from disk.
//! - Every entry has a checksum. What is damaged is told to readers by its sequences, and never served.
//! - What is removed is removed from the head of topics, and what a reader could have read of it is remembered.
//!
//! The rooms: `block` and `footer` are the format, `scan` reads it without an index, `segment` with one, `topics` knows
//! what each topic holds and has lost, `floors` keeps that on disk; `draft` and `committer` write, `dedupe` knows ids,
//! `recent` is what is kept in memory, `bell` wakes followers; `read` and `cut` make batches; `keeper`, `trim` and
//! `rewrite` remove; `files` lists what is there, `open` takes it after a start, and `upgrade` writes it anew if it is of
//! the first version of the format; `disk` is what tests break.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak},
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use self::{
    bell::Bell,
    block::{Identity, LogId},
    committer::{Committer, Order, Request},
    cut::Cuts,
    keeper::{Job, Keeper},
    open::Finding,
    recent::Recent,
    scan::Scan,
    segment::{Building, Cache, Segment},
    topics::{Topic, Topics},
    trim::Limit,
};
use super::{
    Error, NewMessage, OpenError, Opened, Options, TopicInfo, TopicPage,
    consumers::{Lease, Readers},
    topic::{self, Pattern},
};

mod bell;
pub(super) mod block;
mod committer;
mod cut;
mod dedupe;
pub(super) mod disk;
pub(super) mod draft;
pub(super) mod files;
pub(super) mod floors;
pub(super) mod footer;
mod keeper;
mod open;
mod page;
mod read;
mod recent;
mod rewrite;
pub(super) mod scan;
pub(super) mod segment;
pub(super) mod topics;
mod trim;
mod upgrade;

pub use bell::Place;
pub(super) use committer::SEGMENT_MESSAGES;
pub use committer::{Mode, Outcome};
pub use cut::{Bounds, Cut};
pub use disk::Disk as Storage;
#[cfg(test)]
pub use disk::simulated;

/// How many KiB of messages may wait to be written; a publisher that comes then waits.
const QUEUE_KIB: u32 = 64 * 1024;

/// How many requests may wait to be written.
const QUEUE_REQUESTS: usize = 16 * 1024;

/// A log in a directory.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
    keeper: Keeper,
    /// None once the log is closed.
    orders: Mutex<Option<mpsc::Sender<Order>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the committer, the keeper and the readers share.
#[derive(Debug)]
struct Shared {
    identity: Identity,
    options: Options,
    directory: PathBuf,
    cache: Cache,
    state: RwLock<State>,
    /// The newest sequence that is on disk; 0 for none.
    head: watch::Sender<u64>,
    failed: watch::Sender<bool>,
    bell: Arc<Bell>,
    cuts: Cuts,
    readers: Readers,
}

#[derive(Debug, Default)]
struct State {
    /// In the order of their sequences; the last one is written.
    segments: Vec<Arc<Segment>>,
    topics: Topics,
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

    /// Now, by the log's clock.
    fn now(&self) -> SystemTime {
        self.options.clock.now()
    }

    /// How many bytes a segment has when it is followed by the next.
    fn segment_bytes(&self) -> u64 {
        self.options.segment_bytes as u64
    }

    fn has_failed(&self) -> bool {
        *self.failed.borrow()
    }

    /// Takes no more messages, for good.
    fn fail(&self, error: &io::Error) -> Error {
        tracing::error!(%error, "the log cannot be written: publishing is refused until a restart, reading goes on");
        self.failed.send_replace(true);
        Error::Failed
    }

    /// Makes a segment's index anew from its blocks.
    fn rebuild(&self, segment: &Segment) -> io::Result<()> {
        let bytes = segment.read(0, segment.blocks_end())?;
        let scan = Scan::new(&bytes, segment.first_sequence, segment.salt());
        let mut building = Building::new(segment.salt());
        for found in &scan.blocks {
            building.add(&found.block, found.start, found.body, found.end);
        }
        building.extend(segment.blocks_end());
        for damage in &scan.damage {
            self.note_damage(damage.sequences.0, damage.sequences.1);
        }
        if scan.next_sequence <= segment.summary().last_sequence {
            self.note_damage(scan.next_sequence, segment.summary().last_sequence);
        }
        let (path, file) = (segment.path.clone(), segment.file.clone());
        let rebuilt = Segment::building(path, file, segment.first_sequence, segment.through, building);
        self.replace(segment.id, Arc::new(rebuilt));
        Ok(())
    }

    /// Takes what was removed before the last end of the server out of what topics hold.
    fn settle(&self) -> io::Result<()> {
        let is_unsettled = |topic: &Topic| topic.removed.floor > topic.held.first.0;
        let unsettled = {
            let state = self.state();
            let unsettled = state.topics.after(None).filter(|(_, topic)| is_unsettled(topic));
            unsettled.map(|(name, topic)| (name.clone(), topic.clone())).collect::<Vec<_>>()
        };
        for (name, topic) in unsettled {
            let through = topic.removed.floor - 1;
            let limit = Limit { through, ..Limit::default() };
            let mut trimmed = read::retrying(|| self.trim(&name, &topic, limit))?;
            // What of it was lost, and what was superseded or had expired, is known already.
            trimmed.removed.lost = topic.removed.lost;
            self.state_mut().topics.cut(&name, &topic, &trimmed);
        }
        Ok(())
    }
}

impl Embedded {
    /// Opens a log, or makes one, and starts what writes and keeps it. To be called on the runtime that reads it.
    pub fn open(directory: &Path, options: Options) -> Result<(Self, Opened), OpenError> {
        let at = |source| OpenError::Io { path: directory.into(), source };
        let cache = Cache::default();
        let finding = open::find(directory, &options, &cache)?;
        let Finding { log, state, dedupe, next_sequence, last_time, active, unsealed, mut opened, .. } =
            finding;
        let identity = log.unwrap_or_else(Identity::new);
        // A cursor that was handed out before the torn tail was cut must not be ahead.
        let head = next_sequence - 1;
        let shared = Arc::new(Shared {
            identity,
            options,
            directory: directory.into(),
            cache,
            state: RwLock::new(state),
            head: watch::Sender::new(head),
            failed: watch::Sender::new(false),
            bell: Arc::new(Bell::new(head)),
            cuts: Cuts::default(),
            readers: Readers::default(),
        });
        let (orders, queue) = mpsc::channel(QUEUE_REQUESTS);
        let (keeper, work) = Keeper::new(shared.clone(), orders.downgrade());
        let (segment, offset) = if let Some((segment, offset)) = active {
            // Its room was given back when the log was closed; without it, room is found wanting at a write.
            let _ = segment.file.allocate(keeper::room(&shared.options));
            (segment, offset)
        } else {
            let segment = Arc::new(keeper.next_segment(next_sequence).map_err(|not| at(not.error))?);
            shared.state_mut().segments.push(segment.clone());
            opened.segments += 1;
            let offset = segment.blocks_end();
            (segment, offset)
        };
        shared.settle().map_err(at)?;
        if !floors::is_there(&shared.options.disk, directory) {
            // It also tells the log's identity and salt: without them a segment whose header is damaged is lost.
            let bytes = floors::to_bytes(identity, &shared.state().topics);
            if let Err(error) = floors::write(&shared.options.disk, directory, &bytes) {
                tracing::warn!(%error, "the list of what was removed cannot be written yet");
            }
        }
        for segment in unsealed {
            keeper.seal(segment);
        }
        let (shared_too, keeper_too, buffer) = (shared.clone(), keeper.clone(), Vec::new());
        let committer = Committer {
            shared: shared_too,
            keeper: keeper_too,
            segment,
            offset,
            next_sequence,
            last_time,
            dedupe,
            buffer,
        };
        tokio::spawn(ring(Arc::downgrade(&shared)));
        let thread = |name: &str| std::thread::Builder::new().name(name.into());
        let committer = thread("committer").spawn(move || committer.run(queue)).map_err(at)?;
        let work = thread("keeper").spawn(move || work.run()).map_err(at)?;
        let room = Arc::new(Semaphore::new(usize::try_from(QUEUE_KIB).unwrap_or(usize::MAX)));
        let (orders, threads) = (Mutex::new(Some(orders)), Mutex::new(vec![committer, work]));
        Ok((Self { shared, room, keeper, orders, threads }, opened))
    }

    /// Which log it is.
    pub fn id(&self) -> LogId {
        self.shared.identity.id
    }

    /// The most that a message has.
    pub fn max_message_bytes(&self) -> usize {
        self.shared.options.max_message_bytes
    }

    /// Now, by the log's clock.
    pub fn now(&self) -> SystemTime {
        self.shared.now()
    }

    /// The newest sequence that can be read; 0 for none.
    pub fn head(&self) -> u64 {
        *self.shared.head.borrow()
    }

    /// The newest sequence of a topic that is not the server's own; 0 for none.
    pub fn newest(&self) -> u64 {
        self.shared.state().topics.newest()
    }

    /// Waits until a sequence can be read.
    pub async fn reached(&self, sequence: u64) {
        // The sender is there as long as this is.
        let _ = self.shared.head.subscribe().wait_for(|head| *head >= sequence).await;
    }

    /// The oldest sequence that can be there; 0 for none.
    pub fn oldest(&self) -> u64 {
        let state = self.shared.state();
        let firsts = state.topics.after(None).filter(|(name, _)| !topic::is_reserved(name));
        firsts.map(|(_, topic)| topic.held.first.0).min().unwrap_or(0)
    }

    /// A place to wait for messages that match.
    pub fn follow(&self, patterns: &Arc<[Pattern]>) -> Place {
        self.shared.bell.follow(patterns)
    }

    /// Reads as a consumer from now on: whoever did so before is told.
    pub fn lease(&self, consumer: &str) -> Lease {
        self.shared.readers.lease(consumer)
    }

    /// Someone reads as a consumer.
    pub fn is_leased(&self, consumer: &str) -> bool {
        self.shared.readers.is_leased(consumer)
    }

    /// The last message of a topic that has not expired: its sequence, its time, and its bytes as a response has them,
    /// if they are not damaged.
    pub async fn last_message(&self, topic: &str) -> io::Result<Option<(u64, SystemTime, Option<Bytes>)>> {
        self.read_last(topic.into()).await
    }

    /// Changes whenever messages are removed that someone could have read.
    pub fn losses(&self) -> u64 {
        self.shared.state().topics.losses()
    }

    /// The highest sequence behind `after` that was removed of the topics that match; 0 for none.
    pub fn lost(&self, patterns: &[Pattern], after: u64) -> u64 {
        self.shared.state().topics.lost(patterns, after)
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
        mode: Mode,
    ) -> Result<oneshot::Receiver<Outcome>, Error> {
        let bytes = messages.iter().map(NewMessage::bytes).sum::<usize>();
        let kib = u32::try_from(bytes / 1024).unwrap_or(u32::MAX).saturating_add(1).min(QUEUE_KIB);
        let room = self.room.clone().acquire_many_owned(kib).await.map_err(|_| Error::Closed)?;
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (reply, outcome) = oneshot::channel();
        let order = Order::Publish(Request { messages, mode, reply, room });
        orders.ok_or(Error::Closed)?.send(order).await.map_err(|_| Error::Closed)?;
        Ok(outcome)
    }

    /// Removes the messages of a topic up to a sequence, for good; how many they were.
    pub async fn purge(&self, topic: &str, through: u64) -> Result<u64, Error> {
        let (reply, purged) = oneshot::channel();
        self.keeper.ask(Job::Purge(topic.into(), through, reply));
        purged.await.unwrap_or(Err(Error::Closed))
    }

    /// Enforces retention now, and returns when all is done.
    #[cfg(test)]
    pub async fn enforce(&self) {
        let (reply, done) = oneshot::channel();
        self.keeper.ask(Job::Enforce(reply));
        let _ = done.await;
    }

    /// The last sequence of a topic; 0 if it holds no message.
    pub fn last_of(&self, topic: &str) -> u64 {
        self.shared.state().topics.get(topic).map_or(0, |topic| topic.held.last.0)
    }

    /// The topics behind a name, by name.
    pub fn topics(&self, pattern: &Pattern, page_size: usize, after: Option<&str>) -> TopicPage {
        let state = self.shared.state();
        let matching = state.topics.after(after).filter(|(name, _)| pattern.matches(name));
        let at = |(sequence, time): (u64, u64)| (sequence, time_of(time));
        let info = |(name, topic): (&Arc<str>, &Topic)| TopicInfo {
            name: name.to_string(),
            messages: topic.held.messages,
            bytes: topic.held.bytes,
            first: at(topic.held.first),
            last: at(topic.held.last),
        };
        let mut topics = matching.take(page_size.saturating_add(1)).map(info).collect::<Vec<_>>();
        let has_more = topics.len() > page_size;
        topics.truncate(page_size);
        let next = topics.last().filter(|_| has_more).map(|topic| topic.name.clone());
        TopicPage { topics, next }
    }

    /// Takes no more messages, and waits until those that wait are on disk.
    pub async fn close(&self) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).take();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if tokio::task::spawn_blocking(move || thread.join()).await.is_ok_and(|joined| joined.is_err()) {
                tracing::error!(name, "a thread of the log panicked");
            }
        }
    }
}

/// Rings the bell whenever the head moves, while the log is there.
async fn ring(shared: Weak<Shared>) {
    let Some(mut head) = shared.upgrade().map(|shared| shared.head.subscribe()) else { return };
    let mut rung = *head.borrow_and_update();
    while head.changed().await.is_ok() {
        let newest = *head.borrow_and_update();
        let Some((bell, topics)) =
            shared.upgrade().map(|shared| (shared.bell.clone(), shared.state().recent.topics_behind(rung)))
        else {
            return;
        };
        bell.ring(newest, topics).await;
        rung = newest;
    }
}

/// The name of the segment that begins with a sequence: names sort as sequences do.
pub(super) fn segment_name(first_sequence: u64) -> String {
    format!("{first_sequence:020}.log")
}

/// Nanoseconds since 1970; 0 for what was before.
pub fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Whole milliseconds since 1970; 0 for what was before.
pub fn millis(time: SystemTime) -> u64 {
    nanos(time) / 1_000_000
}

/// Milliseconds since 1970 until a message expires, rounded up: it is there for its whole time to live.
fn expiry(time: SystemTime) -> u64 {
    nanos(time).div_ceil(1_000_000)
}

/// The time so many nanoseconds after 1970.
pub(super) fn time_of(nanos: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanos)
}
