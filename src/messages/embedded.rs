//! The embedded log: segments of commit blocks in a directory, written by one thread, read by any number.
//!
//! - Acknowledged means on disk: a publish is answered after fdatasync, and readers see a message only then.
//! - One path from history to live: a subscription reads up to the head, and then waits until it is notified. The newest
//!   commits are kept in memory, so that live subscriptions share their bytes; everything else is read from disk.
//! - Every entry has a checksum. Damaged messages are reported by their sequences, and never served.
//! - Messages are removed from the oldest end of their topic, and the log keeps the trim point of each topic for as long
//!   as a reader could ask for it.
//!
//! The rooms. Each uses those before it, and `maintenance` also gives orders to the queue of `write`:
//!
//! | room | holds |
//! |---|---|
//! | `disk` | the seam to the file system, which tests break |
//! | `format` | the bytes on disk: blocks, footers, trim points; reading them without an index |
//! | `manifest` | what must exist, twice on disk, and the history of the log |
//! | `index` | the index in memory: segments, topics, recent blocks, message ids |
//! | `read` | subscriptions, the batches that they read, consumers |
//! | `maintenance` | retention, purge, expiry, compaction, and segments prepared ahead |
//! | `write` | publishing: the queue, the committer, the commit in progress |
//! | `recovery` | what a directory holds at the start |
//! | `tools` | verify, stats, export, import, backup and restore, without a server |

use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::SystemTime,
};

use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::{mpsc, oneshot, watch};

use self::{
    disk::File,
    format::{block::Identity, clock_history::ClockHistory, scan::Scan, trim_points::TrimPointFile},
    index::{builder::IndexBuilder, cache::Cache, recent::Recent, segment::Segment, topics::Topics},
    maintenance::{
        Maintenance, Purge, Task,
        leftover::Leftover,
        room::{self, Purpose},
    },
    manifest::ManifestFile,
    read::{
        all_topics::Losses,
        consumers::{Lease, Leases},
        snapshot::SharedSnapshot,
    },
    recovery::Recovered,
    timeline::Timeline,
    write::{
        committer::Committer,
        queue::{Order, QUEUE_REQUESTS, Request, Room},
    },
};
pub use super::clock::{expiry, millis, nanos, time_of};
use super::{
    Config, Edge, Error, NeededRoom, OpenError, Opened, Sequence, Stamp,
    batch::BatchCache,
    notifier::{Notifier, Registration},
    topic::Pattern,
};
use crate::{stream::WakeGroup, supervised};

pub mod age;
pub mod disk;
mod figures;
pub mod format;
pub mod index;
pub mod maintenance;
pub mod manifest;
mod quotas;
pub mod read;
pub mod recovery;
#[cfg(test)]
mod settle;
mod timeline;
pub mod tools;
pub mod write;

pub use disk::Disk as Storage;
#[cfg(test)]
pub use disk::simulated;
pub use read::subscription::Subscription;
#[cfg(test)]
pub use settle::Turns;

/// A log in a directory.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    room: Room,
    maintenance: Maintenance,
    /// `None` once the log is closed.
    orders: Mutex<Option<mpsc::Sender<Order>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the committer, the maintenance thread and the readers share.
#[derive(Debug)]
pub struct Shared {
    identity: Identity,
    config: Config,
    directory: PathBuf,
    /// Which directory that is, should another one take its place.
    directory_id: disk::FileId,
    cache: Cache,
    manifest: ManifestFile,
    state: RwLock<State>,
    /// The newest sequence on disk; 0 for none.
    head: watch::Sender<u64>,
    failed: watch::Sender<bool>,
    /// What the disk must have before messages can be published; `None` while they can be.
    lack: watch::Sender<Option<NeededRoom>>,
    trim_point_file: Mutex<TrimPointFile>,
    /// A torn tail that could not be set aside yet.
    pending_tail: Mutex<Option<(Arc<File>, Range<u64>)>>,
    /// Files that could not be removed yet.
    leftovers: Mutex<Vec<Leftover>>,
    /// Held while messages are read from the disk: they are erased only when no reading remembers them.
    readings: RwLock<()>,
    /// The number of topics whose purged messages may still be on disk.
    owed_erasures: AtomicUsize,
    /// How long commits have waited for the disk, in seconds.
    sync_times: Histogram,
    /// The number of message ids that are remembered.
    message_ids: AtomicUsize,
    notifier: Arc<Notifier>,
    batch_cache: BatchCache,
    snapshots: SharedSnapshot,
    losses: Losses,
    timeline: Timeline,
    leases: Leases,
}

/// What readers see, and writers change.
#[derive(Debug, Default)]
pub struct State {
    /// In the order of their sequences; the last one is being written.
    segments: Vec<Arc<Segment>>,
    topics: Topics,
    recent: Recent,
    /// Ranges of sequences that are not served because their bytes are damaged: first to last.
    damaged: BTreeMap<u64, u64>,
}

impl Shared {
    /// Begins a reading from the disk.
    fn reading(&self) -> RwLockReadGuard<'_, ()> {
        self.readings.read().unwrap_or_else(PoisonError::into_inner)
    }

    // A panic of the committer leaves the state as it was after its last whole block: it only adds.
    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores the known facts about the wall clock.
    fn store_clock(&self, history: &ClockHistory) -> io::Result<()> {
        self.manifest.change_both(|manifest| manifest.clock = history.to_bytes())
    }

    /// The size at which a segment is followed by the next.
    fn segment_bytes(&self) -> u64 {
        self.config.segment_bytes as u64
    }

    fn leftovers(&self) -> MutexGuard<'_, Vec<Leftover>> {
        self.leftovers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_failed(&self) -> bool {
        *self.failed.borrow()
    }

    /// Stops accepting messages for good.
    fn fail(&self, error: &io::Error) -> Error {
        tracing::error!(%error, "the log cannot be written: publishing is refused until a restart, reading goes on");
        self.failed.send_replace(true);
        Error::Failed
    }

    /// Builds the index of a segment again from its blocks.
    fn rebuild(&self, segment: &Segment) -> io::Result<()> {
        let bytes = segment.read(0, segment.blocks_end())?;
        let scan = Scan::new(&bytes, segment.first_sequence, segment.salt());
        let mut index = IndexBuilder::new(segment.salt(), 0);
        for found in &scan.blocks {
            index.add(&found.block, found.start, found.body, found.end);
        }
        index.extend(segment.blocks_end());
        for damage in &scan.damage {
            self.note_damage(segment, damage.sequences.0, damage.sequences.1)?;
        }
        if scan.next_sequence <= segment.summary().last_sequence {
            self.note_damage(segment, scan.next_sequence, segment.summary().last_sequence)?;
        }
        let (path, file) = (segment.path.clone(), segment.file.clone());
        let rebuilt = Segment::open(path, file, segment.first_sequence, segment.replaces_up_to, index);
        self.replace(segment.id, Arc::new(rebuilt));
        Ok(())
    }
}

impl Embedded {
    /// Opens a log, or creates one, and starts the threads that write and maintain it. Call it on the runtime that reads
    /// the log.
    pub fn open(directory: &Path, config: Config) -> Result<(Self, Opened), OpenError> {
        let at = || OpenError::at(directory);
        let cache = Cache::default();
        let recovered = recovery::recover(directory, &config, &cache)?;
        let Recovered { identity, mut manifest, found, state, next_sequence, .. } = recovered;
        let Recovered { active, tail, next_before_tail, settled_up_to, unsealed, mut opened, .. } = recovered;
        let Recovered { clock_history, with_ids, .. } = recovered;
        let known_steps = clock_history.steps.clone();
        let (timeline, history) =
            recovery::clocks::timeline(&config, clock_history, &state.segments, next_sequence)
                .map_err(at())?;
        let moment = timeline.moment_of_ids();
        let dedupe = recovery::clocks::dedupe(&config, &state.segments, &with_ids, &moment).map_err(at())?;
        let has_step = history.as_ref().is_some_and(|history| history.steps != known_steps);
        if let Some(history) = history {
            manifest.clock = history.to_bytes();
        }
        let manifest = manifest::start(&config.disk, directory, manifest, &found).map_err(at())?;
        // On a full disk, the first commit writes it.
        let is_clock_stored = !has_step || manifest.is_current();
        timeline.set_boot_stored(manifest.is_current());
        let directory_id = config.disk.id_at(directory).map_err(at())?;
        // Not the last sequence on disk: a cursor that was handed out before a torn tail was cut must not be ahead. But not more
        // than the next start will know of either.
        let head = next_before_tail.filter(|_| !manifest.is_current()).unwrap_or(next_sequence) - 1;
        let trim_point_file = TrimPointFile::open(&config.disk, directory).map_err(at())?;
        let pending = tail
            .zip(active.as_ref())
            .map(|(tail, (segment, _))| (segment.file.clone(), tail.start..tail.end));
        let shared = Arc::new(Shared {
            identity,
            config,
            directory: directory.into(),
            directory_id,
            cache,
            manifest,
            state: RwLock::new(state),
            head: watch::Sender::new(head),
            failed: watch::Sender::new(false),
            lack: watch::Sender::new(None),
            trim_point_file: Mutex::new(trim_point_file),
            pending_tail: Mutex::new(pending),
            leftovers: Mutex::default(),
            readings: RwLock::default(),
            owed_erasures: AtomicUsize::default(),
            sync_times: figures::sync_times(),
            message_ids: AtomicUsize::default(),
            notifier: Arc::new(Notifier::new(head)),
            batch_cache: BatchCache::default(),
            snapshots: SharedSnapshot::default(),
            losses: Losses::default(),
            timeline,
            leases: Leases::default(),
        });
        let (orders, queue) = mpsc::channel(QUEUE_REQUESTS);
        let (maintenance, worker) = Maintenance::new(shared.clone(), orders.downgrade());
        let (segment, offset) = if let Some((segment, offset)) = active {
            // Closing the log gave its room back. If there is none now, a write will find that out.
            let _ = segment.file.allocate(offset..room::room(&shared.config));
            (Some(segment), offset)
        } else {
            match maintenance.next_segment(next_sequence, Purpose::Free) {
                Ok(segment) => {
                    let segment = Arc::new(segment);
                    shared.state_mut().segments.push(segment.clone());
                    opened.segments += 1;
                    let offset = segment.blocks_end();
                    (Some(segment), offset)
                }
                // The first commit makes it; until then the log can be read.
                Err(not_made) if disk::is_full(&not_made.error) => (None, 0),
                Err(not_made) => return Err(at()(not_made.error)),
            }
        };
        shared.apply_trim_points().map_err(at())?;
        if !shared.ensure_trim_points() {
            worker.owe_trim_points();
        }
        shared.reserve_trim_points();
        shared.reserve_manifest();
        if let Err(error) = room::fill_reserve(&shared.config.disk, directory, &shared.config) {
            tracing::warn!(%error, "there is no room for spare files: a full disk may not be freed from inside");
        }
        for segment in unsealed {
            maintenance.seal(segment);
        }
        let committer = Committer {
            shared: shared.clone(),
            maintenance: maintenance.clone(),
            segment,
            offset,
            tail,
            rolls_next: false,
            settled_up_to: if settled_up_to == 0 { offset } else { settled_up_to },
            next_sequence,
            dedupe,
            has_begun: false,
            is_clock_stored,
            buffer: Vec::new(),
        };
        start_tasks(&shared, &orders);
        let thread = |name: &str| std::thread::Builder::new().name(name.into());
        let committer = thread("committer").spawn(move || committer.run(queue)).map_err(at())?;
        let worker = thread("maintenance").spawn(move || worker.run()).map_err(at())?;
        let (orders, threads) = (Mutex::new(Some(orders)), Mutex::new(vec![committer, worker]));
        Ok((Self { shared, room: Room::default(), maintenance, orders, threads }, opened))
    }

    /// The limit of the size of a message.
    pub fn max_patterns(&self) -> usize {
        self.shared.config.max_patterns
    }

    pub fn max_message_bytes(&self) -> usize {
        self.shared.config.max_message_bytes
    }

    /// The time by the log's clock.
    pub fn now(&self) -> SystemTime {
        self.shared.timeline.now()
    }

    /// The newest sequence that can be read; 0 for none.
    pub fn head(&self) -> u64 {
        *self.shared.head.borrow()
    }

    /// The newest sequence of the users' topics.
    pub fn newest(&self) -> Option<Sequence> {
        Sequence::new(self.shared.state().topics.newest())
    }

    /// How far the log can be read now.
    pub fn edge(&self) -> Edge {
        // The committer moves both while it holds this lock, so they are of the same commit.
        let state = self.shared.state();
        Edge { head: self.head(), newest: Sequence::new(state.topics.newest()) }
    }

    /// Rises whenever messages are removed that a reader could have read. Ask after reading: messages that were removed
    /// meanwhile are then a loss.
    pub fn loss_epoch(&self) -> u64 {
        self.shared.state().topics.loss_epoch()
    }

    /// Waits until a sequence can be read.
    pub async fn reached(&self, sequence: u64) {
        // The sender lives as long as `self`.
        let _ = self.shared.head.subscribe().wait_for(|head| *head >= sequence).await;
    }

    /// Registers for messages that match. Read what the log holds already after this.
    pub fn follow(&self, patterns: &Arc<[Pattern]>, wake_group: Option<WakeGroup>) -> Registration {
        self.shared.notifier.follow(patterns, wake_group)
    }

    /// Takes the lease of a consumer. The subscription that held it ends.
    pub fn lease(&self, consumer: &str) -> Lease {
        self.shared.leases.take(consumer)
    }

    /// Takes the lease of a consumer if no subscription holds it.
    pub fn free_lease(&self, consumer: &str) -> Option<Lease> {
        self.shared.leases.take_free(consumer)
    }

    /// A subscription reads as this consumer.
    pub fn is_leased(&self, consumer: &str) -> bool {
        self.shared.leases.is_taken(consumer)
    }

    /// Whether it is known what was lost since a loss epoch.
    pub fn knows_epoch(&self, epoch: u64) -> bool {
        self.shared.state().topics.knows_epoch(epoch)
    }

    /// Becomes true when a write fails.
    pub fn failed(&self) -> watch::Receiver<bool> {
        self.shared.failed.subscribe()
    }

    /// What the disk must have before messages can be published; `None` while they can be.
    pub fn needed_room(&self) -> watch::Receiver<Option<NeededRoom>> {
        self.shared.lack.subscribe()
    }

    /// The number of topics whose purged messages may still be on disk.
    pub fn owed_erasures(&self) -> usize {
        self.shared.owed_erasures.load(Ordering::Relaxed)
    }

    /// Queues a request for the committer.
    async fn send(&self, request: Request) -> Result<(), Error> {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner).clone();
        orders.ok_or(Error::Closed)?.send(Order::Publish(request)).await.map_err(|_| Error::Closed)
    }

    /// Removes the messages of a topic for good: all that it has now, or those up to a sequence. Returns how many were
    /// removed.
    pub async fn purge_topic(&self, topic: &str, up_to: Option<Sequence>) -> Result<u64, Error> {
        // Of a topic that holds no message, the removed ones are purged.
        let last = self.shared.state().topics.last_known(topic);
        let up_to = up_to.map_or(last, |up_to| up_to.get().min(last));
        let (reply, purged) = oneshot::channel();
        self.maintenance.request(Task::Purge(Purge { topic: topic.into(), up_to, reply }));
        purged.await.unwrap_or(Err(Error::Closed))
    }

    /// The last sequence of a topic; `None` if it holds no message.
    pub fn last_of(&self, topic: &str) -> Option<Sequence> {
        let state = self.shared.state();
        state.topics.get(topic).map(|topic| Sequence::of_message(topic.held.last.sequence))
    }

    /// The last sequence of a topic, and its time; `None` if it holds no message.
    pub fn last_stamp(&self, topic: &str) -> Option<Stamp> {
        let state = self.shared.state();
        state.topics.get(topic).map(|topic| stamp(topic.held.last))
    }

    /// The number of topics that hold messages.
    pub fn topic_count(&self) -> usize {
        self.shared.state().topics.count()
    }

    /// Accepts no more messages, and waits until the queued ones are on disk.
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

fn stamp(at: format::footer::At) -> Stamp {
    Stamp { sequence: Sequence::of_message(at.sequence), time: time_of(at.time) }
}

/// Starts the tasks that go on for as long as the log exists.
fn start_tasks(shared: &Arc<Shared>, orders: &mpsc::Sender<Order>) {
    let weak = Arc::downgrade(shared);
    supervised::spawn("followers", move |is_again| notify_followers(weak.clone(), is_again));
    let (weak, orders) = (Arc::downgrade(shared), orders.downgrade());
    supervised::spawn("clock", move |_| timeline::watch(weak.clone(), orders.clone()));
}

/// Notifies followers whenever the head moves, for as long as the log exists. `is_again`: it has ended by a panic, and it is
/// not known who was notified.
async fn notify_followers(shared: Weak<Shared>, is_again: bool) {
    let Some(mut head) = shared.upgrade().map(|shared| shared.head.subscribe()) else { return };
    let mut notified_up_to = *head.borrow_and_update();
    if is_again {
        notified_up_to = 0;
        head.mark_changed();
    }
    while head.changed().await.is_ok() {
        let newest = *head.borrow_and_update();
        let Some(shared) = shared.upgrade() else { return };
        let topics = shared.state().recent.topics_after(notified_up_to);
        let notifier = shared.notifier.clone();
        // A round takes as long as the followers need: it must not keep the log alive.
        drop(shared);
        notifier.notify(newest, topics).await;
        notified_up_to = newest;
    }
}

/// The name of the segment that begins with a sequence: names sort as sequences do.
pub fn segment_name(first_sequence: u64) -> String {
    format!("{first_sequence:020}.log")
}
