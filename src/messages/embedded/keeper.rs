//! The thread in the background: it makes segments ready before they are needed, writes the index of those that are
//! full, and removes what retention, a purge or a time to live says.
//!
//! A removal is told to readers at once, written down (`floors`), and then done: a segment of which nothing is left is
//! deleted, one of which little is left is written anew, with its sequences kept (`rewrite`).

use std::{
    cell::Cell,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::oneshot;

use super::{
    Shared,
    block::{LogId, SEGMENT_HEADER_BYTES, SegmentHeader},
    committer::Order,
    disk::File,
    floors,
    footer::TRAILER_BYTES,
    millis, nanos, read, rewrite,
    segment::{Building, Segment},
    segment_name,
    topics::Topic,
    trim::Limit,
};
use crate::messages::{Error, Options, retention::Rule};

/// The segment that is ready.
const READY: &str = "next.segment";

/// How much more than its nominal size a segment gets on disk: the last commit and the index go there too.
const SPARE: u64 = 8;

/// How many topics are looked at before others may have the log.
const TOPICS_AT_ONCE: usize = 512;

/// How often a topic that is published to all the while is tried to be purged.
const MAX_TRIES: usize = 100;

/// Something to do.
#[derive(Debug)]
pub enum Job {
    /// Make a segment ready.
    Prepare,
    /// Write the index of a segment that is full.
    Seal(Arc<Segment>),
    /// Remove a topic's messages up to a sequence, and tell how many they were.
    Purge(String, u64, oneshot::Sender<Result<u64, Error>>),
    /// Enforce retention now.
    #[cfg(test)]
    Enforce(oneshot::Sender<()>),
    /// End.
    Stop,
}

/// A way to the keeper.
#[derive(Clone, Debug)]
pub struct Keeper {
    jobs: mpsc::Sender<Job>,
    ready: Arc<Mutex<Option<File>>>,
    shared: Arc<Shared>,
}

impl Keeper {
    /// The way, and what the keeper itself needs.
    pub fn new(shared: Arc<Shared>, orders: tokio::sync::mpsc::WeakSender<Order>) -> (Self, Work) {
        let (jobs, queue) = mpsc::channel();
        let ready = Arc::new(Mutex::new(None));
        let keeper = Self { jobs, ready: ready.clone(), shared: shared.clone() };
        (keeper, Work { shared, orders, queue, ready, is_unwritten: Cell::new(false) })
    }

    /// Puts something into the keeper's hands.
    pub fn ask(&self, job: Job) {
        // It ends after everyone else.
        let _ = self.jobs.send(job);
    }

    /// Has a segment made ready, if none is.
    pub fn prepare(&self) {
        if lock(&self.ready).is_none() {
            self.ask(Job::Prepare);
        }
    }

    /// Hands over a segment that is full.
    pub fn seal(&self, segment: Arc<Segment>) {
        self.ask(Job::Seal(segment));
    }

    /// Ends the keeper when it has done what it was asked for.
    pub fn stop(&self) {
        self.ask(Job::Stop);
    }

    /// The next segment: the one that was made ready, or a new one. Its name is on disk when this returns.
    pub fn next_segment(&self, log: LogId, first_sequence: u64) -> Result<Segment, NotMade> {
        let shared = &self.shared;
        // Held until the file has its own name: the keeper would make another one under the same.
        let mut ready = lock(&self.ready);
        let not_named = |error| NotMade { error, is_named: false };
        let file = ready.take().map_or_else(|| make(shared), Ok).map_err(not_named)?;
        let header = SegmentHeader { log, first_sequence, through: 0 };
        let path = shared.directory.join(segment_name(first_sequence));
        let disk = &shared.options.disk;
        let named = file
            .write_all_at(&header.to_bytes(), 0)
            .and_then(|()| file.sync())
            .and_then(|()| disk.rename(&shared.directory.join(READY), &path));
        if let Err(error) = named {
            let _ = disk.remove(&shared.directory.join(READY));
            return Err(not_named(error));
        }
        disk.sync_directory(&shared.directory).map_err(|error| NotMade { error, is_named: true })?;
        Ok(Segment::building(path, Arc::new(file), first_sequence, 0, Building::new()))
    }
}

/// Why there is no next segment.
#[derive(Debug)]
pub struct NotMade {
    /// What went wrong.
    pub error: io::Error,
    /// It has its name, perhaps: nothing may be written to the segment before it any more.
    pub is_named: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file for a segment, with its room on the disk.
fn make(shared: &Shared) -> io::Result<File> {
    let path = shared.directory.join(READY);
    let file = shared.options.disk.create(&path)?;
    if let Err(error) = file.allocate(room(&shared.options)) {
        let _ = shared.options.disk.remove(&path);
        return Err(error);
    }
    Ok(file)
}

/// How many bytes a segment gets on disk before it is written.
pub fn room(options: &Options) -> u64 {
    let bytes = options.segment_bytes as u64;
    bytes + bytes / SPARE
}

/// No room is no failure.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// A topic that is over a limit, as it was then, and what of it is to go.
type Over = (Arc<str>, Topic, Limit);

/// The keeper at work.
#[derive(Debug)]
pub struct Work {
    shared: Arc<Shared>,
    /// To have a segment begun, while the log is open.
    orders: tokio::sync::mpsc::WeakSender<Order>,
    queue: mpsc::Receiver<Job>,
    ready: Arc<Mutex<Option<File>>>,
    /// Something was removed that is not written down yet.
    is_unwritten: Cell<bool>,
}

impl Work {
    /// Runs on a thread of its own.
    pub fn run(self) {
        let interval = self.shared.options.retention_interval;
        let mut due = Instant::now();
        loop {
            // Before what else there is to do, or it would never be done while there is.
            if Instant::now() >= due {
                self.enforce();
                due = Instant::now() + interval;
            }
            let left = due.saturating_duration_since(Instant::now()).min(Duration::from_secs(3600));
            match self.queue.recv_timeout(left) {
                Ok(Job::Prepare) => self.prepare(),
                Ok(Job::Seal(segment)) => self.seal(&segment),
                Ok(Job::Purge(topic, through, reply)) => _ = reply.send(self.purge(&topic, through)),
                #[cfg(test)]
                Ok(Job::Enforce(reply)) => {
                    self.enforce();
                    let _ = reply.send(());
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Ok(Job::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        self.give_room_back();
    }

    fn prepare(&self) {
        // The committer makes one itself where it finds none: only one of them at a time.
        let mut ready = lock(&self.ready);
        if ready.is_none() {
            match make(&self.shared) {
                Ok(file) => *ready = Some(file),
                Err(error) => tracing::warn!(%error, "there is no room for another segment of messages yet"),
            }
        }
    }

    /// Writes a segment's index behind its blocks. Where that fails, its blocks are read when the log is opened.
    fn seal(&self, segment: &Arc<Segment>) {
        if let Err(error) = self.shared.seal(segment) {
            tracing::warn!(%error, path = %segment.path.display(), "the index of a segment cannot be written");
        }
    }

    fn purge(&self, topic: &str, through: u64) -> Result<u64, Error> {
        // Perhaps this is repeated because that failed.
        self.write_down()?;
        let limit = Limit { through, now: millis(self.shared.now()), ..Limit::default() };
        let mut count = 0;
        for _ in 0..MAX_TRIES {
            let known = self.shared.state().topics.get(topic).cloned().ok_or(Error::NoTopic);
            let known = match known {
                Err(error) if count == 0 => return Err(error),
                Err(_) => return self.purged(count),
                Ok(known) => known,
            };
            let purged = through.min(known.held.last.0);
            if known.held.first.0 > through {
                // The ids of what was removed before go too.
                let is_news = self.shared.state_mut().topics.purge_ids(topic, purged);
                self.is_unwritten.set(self.is_unwritten.get() || is_news);
                return self.purged(count);
            }
            count += self.cut(topic, &known, limit, purged)?.unwrap_or(0);
        }
        // Published to so fast that its end was never found.
        Err(io::Error::from(io::ErrorKind::ResourceBusy).into())
    }

    fn purged(&self, count: u64) -> Result<u64, Error> {
        self.write_down()?;
        if count > 0 {
            self.ask_for_space();
        }
        Ok(count)
    }

    /// Writes down what was removed.
    fn write_down(&self) -> Result<(), Error> {
        if self.is_unwritten.get() {
            let Shared { options, directory, id, .. } = &*self.shared;
            let floors = floors::to_bytes(*id, &self.shared.state().topics);
            let write = || floors::write(&options.disk, directory, &floors);
            match write() {
                // What is removed frees far more than the file takes.
                Err(error) if is_full(&error) && self.give_room_back() => write()?,
                result => result?,
            }
            self.is_unwritten.set(false);
        }
        Ok(())
    }

    /// Gives back the room of the segment that was made ready. False if there is none.
    fn give_room_back(&self) -> bool {
        let mut ready = lock(&self.ready);
        let is_there = ready.take().is_some();
        if is_there {
            let _ = self.shared.options.disk.remove(&self.shared.directory.join(READY));
        }
        is_there
    }

    /// Cuts the head of a topic. How many messages went; none if the topic has changed meanwhile.
    fn cut(&self, name: &str, known: &Topic, limit: Limit, purged: u64) -> io::Result<Option<u64>> {
        let mut trimmed = read::retrying(|| self.shared.trim(name, known, limit))?;
        trimmed.removed.purged = trimmed.removed.purged.max(purged);
        // A topic whose last messages went with a segment, expired, ends here.
        if trimmed.messages == 0 && purged == 0 && trimmed.first.is_some() {
            return Ok(Some(0));
        }
        let is_done = self.shared.state_mut().topics.cut(name, known, &trimmed);
        if is_done {
            self.is_unwritten.set(true);
        }
        Ok(is_done.then_some(trimmed.messages))
    }

    /// Removes what is over any limit, and then frees the room that it takes.
    fn enforce(&self) {
        let now = self.shared.now();
        let done = self.remove(now).and_then(|()| self.write_down()).and_then(|()| self.reclaim(now));
        match done {
            Ok(()) => {}
            Err(Error::Io(error)) => tracing::error!(%error, "retention cannot be enforced now"),
            Err(error) => tracing::error!(%error, "retention cannot be enforced now"),
        }
    }

    fn remove(&self, now: SystemTime) -> Result<(), Error> {
        let rules = self.shared.state().topics.rules().to_vec();
        let throughs = rules
            .iter()
            .enumerate()
            .map(|(place, rule)| self.through(place, rule, now))
            .collect::<Result<Vec<_>, _>>()?;
        let mut after = None::<Arc<str>>;
        loop {
            let (over, last) = self.over(&rules, &throughs, after.as_deref(), millis(now));
            for (name, topic, limit) in over {
                self.cut(&name, &topic, limit, 0)?;
            }
            match last {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
    }

    /// Up to which sequence a rule removes all messages of its topics.
    fn through(&self, place: usize, rule: &Rule, now: SystemTime) -> io::Result<u64> {
        // What is published meanwhile is not old, even if all that was found is.
        let head = *self.shared.head.borrow();
        let by_age = match rule.age.and_then(|age| now.checked_sub(age)) {
            Some(oldest) => read::retrying(|| self.shared.before_time(nanos(oldest)))?.min(head),
            None => 0,
        };
        let by_total = match rule.total {
            Some(total) => read::retrying(|| self.shared.over_total(place, total))?,
            None => 0,
        };
        Ok(by_age.max(by_total))
    }

    /// Of the next topics by name, those that are over a limit; and the last name, if there are more.
    fn over(
        &self,
        rules: &[Rule],
        throughs: &[u64],
        after: Option<&str>,
        now: u64,
    ) -> (Vec<Over>, Option<Arc<str>>) {
        let state = self.shared.state();
        let (mut over, mut last, mut count) = (Vec::new(), None, 0);
        for (name, topic) in state.topics.after(after).take(TOPICS_AT_ONCE) {
            count += 1;
            last = Some(name.clone());
            let held = &topic.held;
            let rule = state.topics.rule_of(name);
            let rule = rule.and_then(|place| Some((rules.get(place)?, throughs.get(place)?)));
            let mut limit = Limit { now, ..Limit::default() };
            if let Some((rule, through)) = rule {
                limit.through = *through;
                limit.messages = rule.count.map_or(0, |most| held.messages.saturating_sub(most));
                limit.bytes = rule.bytes.map_or(0, |most| held.bytes.saturating_sub(most));
            }
            let has_expired = held.first_expires != 0 && held.first_expires <= now;
            if has_expired || limit.through >= held.first.0 || limit.messages > 0 || limit.bytes > 0 {
                over.push((name.clone(), topic.clone(), limit));
            }
        }
        (over, last.filter(|_| count == TOPICS_AT_ONCE))
    }

    /// Deletes segments of which nothing is left, and writes those anew of which little is.
    fn reclaim(&self, now: SystemTime) -> Result<(), Error> {
        rewrite::reclaim(&self.shared, now)?;
        self.ask_for_space();
        let oldest = self.shared.state().segments.first().map_or(0, |segment| segment.first_sequence);
        self.shared.state_mut().topics.forget(oldest);
        Ok(())
    }

    /// Has the segment that is written followed by the next if most of it is removed: only then its room can be freed.
    fn ask_for_space(&self) {
        let active = self.shared.state().segments.last().cloned();
        let Some(active) = active else { return };
        let written = active.blocks_end() - SEGMENT_HEADER_BYTES as u64;
        if written * SPARE < self.shared.segment_bytes() {
            return;
        }
        let live = rewrite::live_bytes(&self.shared, &active, millis(self.shared.now()));
        if live.is_ok_and(|(live, all)| live < all / 2)
            && let Some(orders) = self.orders.upgrade()
        {
            let _ = orders.try_send(Order::Roll);
        }
    }
}

impl Shared {
    /// Writes a segment's index behind its blocks, and gives the room behind it back.
    pub fn seal(&self, segment: &Arc<Segment>) -> io::Result<()> {
        // Damage is found in the blocks alone: of a segment that has some, they are read at each start.
        let is_damaged = {
            let state = self.state();
            let next = state.segments.iter().find(|next| next.first_sequence > segment.first_sequence);
            let end = next.map_or(u64::MAX, |next| next.first_sequence);
            state.damaged.range(..end).any(|(_, to)| *to >= segment.first_sequence)
        };
        let Some(footer) = segment.to_footer().filter(|_| !is_damaged) else { return Ok(()) };
        let end = segment.blocks_end();
        // The trailer comes last, when all that it tells of is on disk: else a power cut would look like damage.
        let (parts, trailer) = footer.split_at(footer.len().saturating_sub(TRAILER_BYTES));
        segment.file.write_all_at(parts, end)?;
        segment.file.set_len(end + footer.len() as u64)?;
        segment.file.sync()?;
        segment.file.write_all_at(trailer, end + parts.len() as u64)?;
        segment.file.sync()?;
        let sealed = rewrite::sealed(segment)?;
        self.replace(segment.id, Arc::new(sealed));
        Ok(())
    }

    /// Puts a segment in the place of another one.
    pub fn replace(&self, id: u64, with: Arc<Segment>) {
        let mut state = self.state_mut();
        if let Some(place) = state.segments.iter_mut().find(|segment| segment.id == id) {
            *place = with;
        }
    }
}
