//! The maintenance thread: prepares segments before they are needed, writes the index of full ones, and removes messages by
//! retention, purge and expiry.
//!
//! A removal takes effect for readers at once, then the trim points are written to disk, and then the room is freed: a
//! segment that holds nothing any more is deleted, and one that holds little is compacted, with its sequences kept.

use std::{
    cell::Cell,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::oneshot;

use self::trim::Limit;
use super::{
    Shared,
    disk::File,
    format::{
        footer::TRAILER_BYTES,
        segment_header::{SEGMENT_HEADER_BYTES, SegmentHeader},
        trim_points,
    },
    index::{builder::IndexBuilder, segment::Segment, topics::Topic},
    millis,
    read::fetch::retrying,
    segment_name,
    write::queue::Order,
};
use crate::messages::{Config, Error};

pub mod compaction;
mod retention;
pub mod trim;

/// The name of the prepared segment.
const READY: &str = "next.segment";

/// A segment gets this fraction more than its nominal size on disk, for the last commit and the index.
const SPARE: u64 = 8;

/// The number of topics that are checked under one lock, and trimmed together. Other work is done before the next ones.
pub const TOPICS_AT_ONCE: usize = 4096;

/// The number of times that a purge is tried on a topic that keeps changing.
const MAX_TRIES: usize = 100;

/// Something for the maintenance thread to do.
#[derive(Debug)]
pub enum Task {
    /// Prepare the next segment.
    Prepare,
    /// Write the index of a full segment.
    Seal(Arc<Segment>),
    /// Remove the messages of a topic up to a sequence, and reply how many there were.
    Purge { topic: String, up_to: u64, reply: oneshot::Sender<Result<u64, Error>> },
    /// Enforce retention now.
    #[cfg(test)]
    Enforce(oneshot::Sender<()>),
    /// Reply when everything that was queued before is done.
    #[cfg(test)]
    Settle(oneshot::Sender<()>),
    /// End the thread.
    Stop,
}

/// A handle to the maintenance thread.
#[derive(Clone, Debug)]
pub struct Maintenance {
    tasks: mpsc::Sender<Task>,
    ready: Arc<Mutex<Option<File>>>,
    shared: Arc<Shared>,
}

impl Maintenance {
    /// The handle, and the worker that runs on the thread.
    pub fn new(shared: Arc<Shared>, orders: tokio::sync::mpsc::WeakSender<Order>) -> (Self, Worker) {
        let (tasks, queue) = mpsc::channel();
        let ready = Arc::new(Mutex::new(None));
        let maintenance = Self { tasks, ready: ready.clone(), shared: shared.clone() };
        (
            maintenance,
            Worker {
                shared,
                orders,
                queue,
                ready,
                is_unwritten: Cell::new(false),
                is_over: Cell::new(false),
            },
        )
    }

    /// Queues a task.
    pub fn request(&self, job: Task) {
        // The thread ends after everything that sends tasks.
        let _ = self.tasks.send(job);
    }

    /// Prepares the next segment, if there is none.
    pub fn prepare(&self) {
        if lock(&self.ready).is_none() {
            self.request(Task::Prepare);
        }
    }

    /// Has the index of a full segment written.
    pub fn seal(&self, segment: Arc<Segment>) {
        self.request(Task::Seal(segment));
    }

    /// Ends the thread after the queued tasks.
    pub fn stop(&self) {
        self.request(Task::Stop);
    }

    /// The next segment: the prepared one, or a new one. Its name is on disk when this returns.
    pub fn next_segment(&self, first_sequence: u64) -> Result<Segment, NotMade> {
        let shared = &self.shared;
        // Keep the lock until the file has its own name: the worker would create another one under the name `READY`.
        let mut ready = lock(&self.ready);
        let not_named = |error| NotMade { error, is_named: false };
        shared.manifest.ensure().map_err(not_named)?;
        let file = ready.take().map_or_else(|| make(shared), Ok).map_err(not_named)?;
        let link = shared.manifest.link_of_next(first_sequence);
        let header =
            SegmentHeader { log: shared.identity, first_sequence, replaces_up_to: 0, link: Some(link) };
        let path = shared.directory.join(segment_name(first_sequence));
        let disk = &shared.config.disk;
        let named = file
            .write_all_at(&header.to_bytes(), 0)
            .and_then(|()| file.sync())
            .and_then(|()| disk.rename(&shared.directory.join(READY), &path));
        if let Err(error) = named {
            let _ = disk.remove(&shared.directory.join(READY));
            return Err(not_named(error));
        }
        disk.sync_directory(&shared.directory).map_err(|error| NotMade { error, is_named: true })?;
        if let Err(error) = shared.manifest.list_next(link.id, first_sequence) {
            // It must not be written without a place in the manifest, nor keep that place without its file.
            let undone = || {
                shared.manifest.mirror()?;
                disk.remove(&path)?;
                disk.sync_directory(&shared.directory)
            };
            let is_named = !is_full(&error) || undone().is_err();
            return Err(NotMade { error, is_named });
        }
        let index = IndexBuilder::new(shared.identity.salt, header.bytes());
        Ok(Segment::open(path, Arc::new(file), first_sequence, 0, index))
    }
}

/// Why there is no next segment.
#[derive(Debug)]
pub struct NotMade {
    /// The cause.
    pub error: io::Error,
    /// The new segment may have its name: then the previous one must not be written any more.
    pub is_named: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Creates the file of a segment, with its room on the disk.
fn make(shared: &Shared) -> io::Result<File> {
    let path = shared.directory.join(READY);
    let file = shared.config.disk.create(&path)?;
    if let Err(error) = file.allocate(room(&shared.config)) {
        let _ = shared.config.disk.remove(&path);
        return Err(error);
    }
    Ok(file)
}

/// The size that a segment gets on disk before it is written.
pub fn room(config: &Config) -> u64 {
    let bytes = config.segment_bytes as u64;
    bytes + bytes / SPARE
}

/// Whether the disk is full, which is not a failure of the log.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// The work of the maintenance thread.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    /// To begin a segment, while the log is open.
    orders: tokio::sync::mpsc::WeakSender<Order>,
    queue: mpsc::Receiver<Task>,
    ready: Arc<Mutex<Option<File>>>,
    /// There are removals that the file of trim points does not have yet.
    is_unwritten: Cell<bool>,
    /// The thread is to end.
    is_over: Cell<bool>,
}

impl Worker {
    /// Runs on a thread of its own.
    pub fn run(self) {
        let interval = self.shared.config.retention_interval;
        let mut due = Instant::now();
        loop {
            // Check this first: a steady stream of tasks must not starve retention.
            if Instant::now() >= due {
                self.enforce();
                due = Instant::now() + interval;
            }
            // The order to end may have come meanwhile.
            if self.is_over.get() {
                break;
            }
            let left = due.saturating_duration_since(Instant::now()).min(Duration::from_secs(3600));
            match self.queue.recv_timeout(left) {
                Ok(task) => self.handle(task),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        self.give_room_back();
    }

    fn handle(&self, task: Task) {
        match task {
            Task::Prepare => self.prepare(),
            Task::Seal(segment) => self.seal(&segment),
            Task::Purge { topic, up_to, reply } => _ = reply.send(self.purge(&topic, up_to)),
            #[cfg(test)]
            Task::Settle(reply) => _ = reply.send(()),
            #[cfg(test)]
            Task::Enforce(reply) => {
                self.enforce();
                let _ = reply.send(());
            }
            Task::Stop => self.is_over.set(true),
        }
    }

    /// Does what was queued meanwhile, between two slices of a long task. False if the thread is to end.
    fn let_others_in(&self) -> bool {
        while !self.is_over.get()
            && let Ok(task) = self.queue.try_recv()
        {
            self.handle(task);
        }
        !self.is_over.get()
    }

    fn prepare(&self) {
        // The committer creates one itself if it finds none, under the same lock.
        let mut ready = lock(&self.ready);
        if ready.is_none() {
            match make(&self.shared) {
                Ok(file) => *ready = Some(file),
                Err(error) => tracing::warn!(%error, "there is no room for the next segment yet"),
            }
        }
    }

    /// Writes the index of a segment. If that fails, its blocks are read when the log is opened.
    fn seal(&self, segment: &Arc<Segment>) {
        if let Err(error) = self.shared.seal(segment) {
            tracing::warn!(%error, path = %segment.path.display(), "the index of a segment cannot be written");
        }
    }

    fn purge(&self, topic: &str, up_to: u64) -> Result<u64, Error> {
        // An earlier purge may have failed to write its trim point, and this be its repetition.
        self.write_trim_points()?;
        let limit = Limit { remove_up_to: up_to, now_millis: millis(self.shared.now()), ..Limit::default() };
        let mut count = 0;
        for _ in 0..MAX_TRIES {
            let known = self.shared.state().topics.get(topic).cloned().ok_or(Error::NoTopic);
            let known = match known {
                Err(error) if count == 0 => return Err(error),
                Err(_) => return self.purged(count),
                Ok(known) => known,
            };
            let purged = up_to.min(known.held.last.sequence);
            if known.held.first.sequence > up_to {
                // Everything was removed before: forget the message ids too.
                let is_news = self.shared.state_mut().topics.purge_ids(topic, purged);
                self.is_unwritten.set(self.is_unwritten.get() || is_news);
                return self.purged(count);
            }
            count += self.trim_topic(&topic.into(), &known, limit, purged)?.unwrap_or(0);
        }
        // Publishers changed the topic during each try.
        Err(io::Error::from(io::ErrorKind::ResourceBusy).into())
    }

    fn purged(&self, count: u64) -> Result<u64, Error> {
        self.write_trim_points()?;
        if count > 0 {
            self.roll_if_thin();
        }
        Ok(count)
    }

    /// Writes the file of trim points, if there are removals that it does not have.
    fn write_trim_points(&self) -> Result<(), Error> {
        if self.is_unwritten.get() {
            let Shared { config, directory, .. } = &*self.shared;
            let bytes = self.shared.trim_points();
            let write = || trim_points::write(&config.disk, directory, &bytes);
            match write() {
                // The removal frees far more than the file takes.
                Err(error) if is_full(&error) && self.give_room_back() => write()?,
                result => result?,
            }
            self.is_unwritten.set(false);
        }
        Ok(())
    }

    /// Deletes the prepared segment. False if there is none.
    fn give_room_back(&self) -> bool {
        let mut ready = lock(&self.ready);
        let is_there = ready.take().is_some();
        if is_there {
            let _ = self.shared.config.disk.remove(&self.shared.directory.join(READY));
        }
        is_there
    }

    /// Removes the oldest messages of a topic. Returns how many; `None` if the topic has changed meanwhile.
    fn trim_topic(
        &self,
        name: &Arc<str>,
        known: &Topic,
        limit: Limit,
        purged: u64,
    ) -> io::Result<Option<u64>> {
        let mut trimmed = retrying(|| self.shared.trim(name, known, limit))?;
        trimmed.trim_point.purged_up_to = trimmed.trim_point.purged_up_to.max(purged);
        // Nothing is removed. (If nothing is left either, the last messages expired with a segment: the topic ends.)
        if trimmed.messages == 0 && purged == 0 && trimmed.first.is_some() {
            return Ok(Some(0));
        }
        let is_done = self.shared.state_mut().topics.trim(name, known, &trimmed);
        if is_done {
            self.is_unwritten.set(true);
        }
        Ok(is_done.then_some(trimmed.messages))
    }

    /// Removes the messages that are over a limit or expired, and then frees their room.
    fn enforce(&self) {
        let now = self.shared.now();
        let done = self.remove(now).and_then(|()| self.write_trim_points()).and_then(|()| self.reclaim(now));
        match done {
            Ok(()) => {}
            Err(Error::Io(error)) => tracing::error!(%error, "retention cannot be enforced now"),
            Err(error) => tracing::error!(%error, "retention cannot be enforced now"),
        }
    }

    /// Deletes segments that hold nothing any more, and compacts those that hold little.
    fn reclaim(&self, now: SystemTime) -> Result<(), Error> {
        self.shared.snapshots.sweep();
        while compaction::reclaim(&self.shared, now, &|| self.let_others_in())? && self.let_others_in() {}
        self.roll_if_thin();
        let oldest = self.shared.state().segments.first().map_or(0, |segment| segment.first_sequence);
        compaction::forget(&self.shared, oldest);
        Ok(())
    }

    /// Begins the next segment if most of the current one is removed: only a full segment can be compacted.
    fn roll_if_thin(&self) {
        let active = self.shared.state().segments.last().cloned();
        let Some(active) = active else { return };
        let written = active.blocks_end().saturating_sub(SEGMENT_HEADER_BYTES as u64);
        if written * SPARE < self.shared.segment_bytes() {
            return;
        }
        let live = compaction::live_bytes(&self.shared, &active, millis(self.shared.now()));
        if live.is_ok_and(|(live, all)| live < all / 2)
            && let Some(orders) = self.orders.upgrade()
        {
            let _ = orders.try_send(Order::Roll);
        }
    }
}

impl Shared {
    /// Writes the index of a segment after its blocks, and gives the unused room back.
    pub fn seal(&self, segment: &Arc<Segment>) -> io::Result<()> {
        // Only the blocks show damage, so a segment with damage gets no index, and is read at each start.
        let is_damaged = {
            let state = self.state();
            let next = state.segments.iter().find(|next| next.first_sequence > segment.first_sequence);
            let end = next.map_or(u64::MAX, |next| next.first_sequence);
            state.damaged.range(..end).any(|(_, to)| *to >= segment.first_sequence)
        };
        let Some(footer) = segment.to_footer().filter(|_| !is_damaged) else { return Ok(()) };
        let end = segment.blocks_end();
        // The trailer comes last, when the parts that it names are on disk: otherwise a power cut would look like damage.
        let (parts, trailer) = footer.split_at(footer.len().saturating_sub(TRAILER_BYTES));
        segment.file.write_all_at(parts, end)?;
        segment.file.set_len(end + footer.len() as u64)?;
        segment.file.sync()?;
        segment.file.write_all_at(trailer, end + parts.len() as u64)?;
        segment.file.sync()?;
        let sealed = compaction::sealed(segment)?;
        self.replace(segment.id, Arc::new(sealed));
        Ok(())
    }

    /// Replaces a segment by another.
    pub fn replace(&self, id: u64, with: Arc<Segment>) {
        let mut state = self.state_mut();
        if let Some(place) = state.segments.iter_mut().find(|segment| segment.id == id) {
            *place = with;
        }
    }
}
