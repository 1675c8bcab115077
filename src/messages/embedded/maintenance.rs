//! The maintenance thread: prepares segments before they are needed, writes the index of full ones, and removes messages by
//! retention, purge and expiry.
//!
//! A removal takes effect for readers at once, then the trim points are written to disk, and then the room is freed: a
//! segment that holds nothing any more is deleted, and one that holds little is compacted, with its sequences kept.

use std::{
    cell::{Cell, RefCell},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering, mpsc},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use self::{erasure::Eraser, trim::Limit};
#[cfg(test)]
use super::settle::OwnTurn;
use super::{
    Shared,
    age::Moment,
    disk::File,
    format::segment_header::SEGMENT_HEADER_BYTES,
    index::{segment::Segment, topic::Topic},
    read::fetch::retrying,
    write::queue::Order,
};
use crate::messages::{Error, clock::whole};

pub mod compaction;
pub mod deletion;
pub mod due;
pub mod erasure;
pub mod leftover;
pub mod measuring;
mod purge;
mod retention;
pub mod room;
mod seal;
pub mod tails;
pub mod trim;
mod trim_file;

/// The segment that is written is followed by the next early if this fraction of its size is written and most of it is
/// removed.
const THIN: u64 = 8;

/// The number of topics that are checked under one lock, and trimmed together. Other work is done before the next ones.
pub const TOPICS_AT_ONCE: usize = 4096;

/// The longest pause between two rounds that erase purged messages.
const MAX_ROUND_INTERVAL: Duration = Duration::from_secs(20);

/// The longest time from the start to the first sweep: a server that is often started sweeps, too.
const FIRST_SWEEP: Duration = Duration::from_secs(600);

/// The pause between two looks for room while publishing is refused for want of it.
const ROOM_INTERVAL: Duration = Duration::from_secs(1);

/// Something for the maintenance thread to do.
#[derive(Debug)]
pub enum Task {
    /// Prepare the next segment.
    Prepare,
    /// Write the index of a full segment.
    Seal(Arc<Segment>),
    /// Look for room until there is some.
    WatchRoom,
    /// Remove the messages of a topic, and reply how many there were.
    Purge(Purge),
    /// Enforce retention now, and erase what was purged.
    #[cfg(test)]
    Enforce(oneshot::Sender<()>),
    /// Erase everything that is removed now.
    #[cfg(test)]
    Sweep(oneshot::Sender<()>),
    /// Reply when everything that was queued before is done.
    #[cfg(test)]
    Settle(oneshot::Sender<()>),
    /// End the thread.
    Stop,
}

/// The removal of the messages of a topic up to a sequence.
#[derive(Debug)]
pub struct Purge {
    pub topic: String,
    /// The last sequence that is removed.
    pub up_to: u64,
    /// The receiver of the number of removed messages.
    pub reply: oneshot::Sender<Result<u64, Error>>,
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
        let eraser = RefCell::new(Eraser::new(shared.state().topics.owing_erasure()));
        let (is_unwritten, is_over, put_back) = (Cell::new(false), Cell::new(false), RefCell::new(None));
        let (freed_at, removals_by_age) = (Cell::new(None), Cell::new(0));
        #[cfg(test)]
        let turn = OwnTurn::new(shared.config.turns.clone());
        let worker = Worker {
            shared,
            orders,
            queue,
            put_back,
            ready,
            is_unwritten,
            is_over,
            eraser,
            freed_at,
            removals_by_age,
            all_due_up_to: Cell::new(0),
            room_waits_since: Cell::new(None),
            #[cfg(test)]
            turn,
        };
        (maintenance, worker)
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
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The work of the maintenance thread.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    /// To begin a segment, while the log is open.
    orders: tokio::sync::mpsc::WeakSender<Order>,
    queue: mpsc::Receiver<Task>,
    /// A task that was taken from the queue too early.
    put_back: RefCell<Option<Task>>,
    ready: Arc<Mutex<Option<File>>>,
    /// There are removals that the file of trim points does not have yet.
    is_unwritten: Cell<bool>,
    /// The thread is to end.
    is_over: Cell<bool>,
    eraser: RefCell<Eraser>,
    /// The removal epoch when the room of removed messages was last freed; `None` before that.
    freed_at: Cell<Option<u64>>,
    /// The number of removals since then that follow from the age of messages alone.
    removals_by_age: Cell<u64>,
    /// Limits have removed all messages up to this sequence, those of unknown topics included.
    all_due_up_to: Cell<u64>,
    /// Since when the room of messages that are due waits because the clock is in doubt, by the clock that stops in suspend.
    room_waits_since: Cell<Option<u64>>,
    #[cfg(test)]
    turn: OwnTurn,
}

impl Worker {
    /// Has the file of trim points written before anything that relies on it.
    pub fn owe_trim_points(&self) {
        self.is_unwritten.set(true);
    }

    /// Runs on a thread of its own.
    pub fn run(self) {
        let config = &self.shared.config;
        let (interval, sweep_interval) = (config.retention_interval, config.erase_within / 2);
        // Tests decide by the interval of retention when something happens.
        let at_most = |pause: Duration| if cfg!(test) { interval } else { interval.min(pause) };
        let (round_interval, room_interval) = (at_most(MAX_ROUND_INTERVAL), at_most(ROOM_INTERVAL));
        let now = Instant::now();
        let (mut due, mut round_due, mut sweep_due, mut room_due) =
            (now, now, now + sweep_interval.min(FIRST_SWEEP), now);
        loop {
            #[cfg(test)]
            self.turn.begin();
            // Check these first: a steady stream of tasks must not starve retention and erasure.
            if Instant::now() >= due {
                self.enforce();
                self.replenish();
                if self.shared.lack.borrow().is_some() {
                    self.begin_sweep();
                }
                due = Instant::now() + interval;
            }
            if Instant::now() >= round_due {
                self.eraser.borrow_mut().begin_round(&self.shared);
                round_due = Instant::now() + round_interval;
            }
            let is_sweep_due = Instant::now() >= sweep_due;
            if is_sweep_due && !self.must_sweep_wait(sweep_due.elapsed()) {
                self.begin_sweep();
                sweep_due = Instant::now() + sweep_interval;
            }
            self.erase_a_step();
            #[cfg(test)]
            if self.turn.is_taken() {
                self.erase_all();
            }
            self.shared.owed_erasures.store(self.eraser.borrow().owed(), Ordering::Relaxed);
            let has_lack = self.shared.lack.borrow().is_some();
            if has_lack && Instant::now() >= room_due {
                self.look_for_room();
                room_due = Instant::now() + room_interval;
            }
            // The order to end may have come meanwhile.
            if self.is_over.get() {
                break;
            }
            let next = if has_lack { due.min(round_due).min(room_due) } else { due.min(round_due) };
            // A sweep that waits is tried again when something else is due.
            let next = if sweep_due > Instant::now() { next.min(sweep_due) } else { next };
            let left = if self.eraser.borrow().is_busy() && !self.is_unwritten.get() {
                Duration::ZERO
            } else {
                next.saturating_duration_since(Instant::now()).min(Duration::from_secs(3600))
            };
            let put_back = self.put_back.take();
            #[cfg(test)]
            self.turn.end();
            let task = put_back.map_or_else(|| self.queue.recv_timeout(left), Ok);
            #[cfg(test)]
            self.turn.begin();
            match task {
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
            Task::Purge(purge) => self.purge(purge),
            // It is looked for in the loop.
            Task::WatchRoom => {}
            #[cfg(test)]
            Task::Settle(reply) => _ = reply.send(()),
            #[cfg(test)]
            Task::Enforce(reply) => {
                self.enforce();
                self.eraser.borrow_mut().begin_round(&self.shared);
                self.erase_all();
                let _ = reply.send(());
            }
            #[cfg(test)]
            Task::Sweep(reply) => {
                if !self.must_sweep_wait(Duration::ZERO) {
                    self.begin_sweep();
                }
                self.erase_all();
                let _ = reply.send(());
            }
            Task::Stop => self.is_over.set(true),
        }
    }

    /// The next task, if one waits.
    fn waiting(&self) -> Option<Task> {
        self.put_back.take().or_else(|| self.queue.try_recv().ok())
    }

    /// Does what was queued meanwhile, between two slices of a long task. False if the thread is to end.
    fn let_others_in(&self) -> bool {
        while !self.is_over.get()
            && let Some(task) = self.waiting()
        {
            // A test waits for the end of the long task, too.
            #[cfg(test)]
            if matches!(task, Task::Enforce(_) | Task::Sweep(_) | Task::Settle(_)) {
                self.put_back.replace(Some(task));
                break;
            }
            self.handle(task);
        }
        !self.is_over.get()
    }

    #[cfg(test)]
    fn erase_all(&self) {
        while self.eraser.borrow().is_busy() && !self.is_unwritten.get() {
            self.erase_a_step();
        }
    }

    /// Erases in one segment, if there is something to erase and the trim points are on disk.
    fn erase_a_step(&self) {
        if !self.eraser.borrow().is_busy() || self.is_unwritten.get() {
            return;
        }
        let limit = || {
            let (reply, end) = oneshot::channel();
            self.orders.upgrade()?.blocking_send(Order::Mark(reply)).ok()?;
            #[cfg(test)]
            self.turn.end();
            let end = end.blocking_recv();
            #[cfg(test)]
            self.turn.begin();
            end.ok()
        };
        let is_round_over = self.eraser.borrow_mut().step(&self.shared, &limit);
        if is_round_over {
            self.is_unwritten.set(true);
            if let Err(error) = self.write_trim_points() {
                tracing::warn!(%error, "it cannot be recorded now that purged messages are erased");
            }
        }
    }

    /// Asks the committer whether there is room.
    fn look_for_room(&self) {
        if let Some(orders) = self.orders.upgrade() {
            let _ = orders.try_send(Order::Probe);
        }
    }

    /// Whether a sweep that is late by some time waits, because the wall clock is in doubt. A clock that is set again and
    /// again does not hold it up without end: then the sweep erases what is certainly due.
    fn must_sweep_wait(&self, late: Duration) -> bool {
        late < self.shared.config.removal_delay && self.moment_of_removal().1
    }

    /// Begins to erase everything that is removed, purged or not.
    fn begin_sweep(&self) {
        // Otherwise another rule, or none, would make superseded messages be served again after a restart.
        let mut after = None::<Arc<str>>;
        loop {
            let recorded = self.shared.state_mut().topics.record_superseded(after.as_deref(), TOPICS_AT_ONCE);
            self.is_unwritten.set(self.is_unwritten.get() || recorded.0);
            after = recorded.1;
            if after.is_none() {
                break;
            }
        }
        if self.write_trim_points().is_ok() {
            self.eraser.borrow_mut().begin_sweep(&self.shared, self.moment_of_removal().0);
        }
    }

    /// Writes the index of a segment. If that fails, its blocks are read when the log is opened.
    fn seal(&self, segment: &Arc<Segment>) {
        if let Err(error) = self.shared.seal(segment) {
            tracing::warn!(%error, path = %segment.path.display(), "the index of a segment cannot be written");
        }
    }

    /// Removes the oldest messages of a topic. Returns how many; `None` if the topic has changed meanwhile.
    fn trim_topic(
        &self,
        name: &Arc<str>,
        known: &Topic,
        limit: &Limit,
        purged: u64,
    ) -> io::Result<Option<u64>> {
        let mut trimmed = retrying(|| self.shared.trim(name, known, limit.clone()))?;
        trimmed.trim_point.purged_up_to = trimmed.trim_point.purged_up_to.max(purged);
        // Nothing is removed. (If nothing is left either, the last messages expired with a segment: the topic ends.)
        if trimmed.messages == 0 && purged == 0 && trimmed.first.is_some() {
            return Ok(Some(0));
        }
        let is_done = self.shared.state_mut().topics.trim(name, known, &trimmed);
        if is_done {
            self.is_unwritten.set(true);
            self.removals_by_age.set(self.removals_by_age.get() + u64::from(limit.is_by_age()));
        }
        Ok(is_done.then_some(trimmed.messages))
    }

    /// Removes the messages that are over a limit or expired, and then frees their room.
    ///
    /// While the wall clock is in doubt, only messages that are certainly due are removed, and no room is freed because of
    /// their age alone: it waits until the clock has had time to be set.
    fn enforce(&self) {
        if self.freed_at.get().is_none() {
            self.freed_at.set(Some(self.shared.state().topics.removal_epoch()));
        }
        let (moment, is_in_doubt) = self.moment_of_removal();
        // Messages that are certainly due make room where there is none.
        let is_in_doubt = is_in_doubt && self.shared.lack.borrow().is_none();
        let done = self.remove(&moment).and_then(|()| {
            self.write_trim_points()?;
            if is_in_doubt && !self.has_other_removals() && self.must_room_wait() {
                Ok(())
            } else {
                self.reclaim(&moment)
            }
        });
        match done {
            Ok(()) => {}
            Err(Error::Io(error)) => tracing::error!(%error, "retention cannot be enforced now"),
            Err(error) => tracing::error!(%error, "retention cannot be enforced now"),
        }
    }

    /// The moment by which messages are removed from the disk, and whether the wall clock is in doubt.
    pub(super) fn moment_of_removal(&self) -> (Moment, bool) {
        // The head first: a step of the clock may come before the next message.
        let head = *self.shared.head.borrow();
        let timeline = &self.shared.timeline;
        let is_in_doubt = timeline.is_in_doubt(self.shared.config.removal_delay);
        (timeline.moment_of_removal(is_in_doubt).up_to(head), is_in_doubt)
    }

    /// Whether messages were removed for another reason than their age, since their room was last freed.
    fn has_other_removals(&self) -> bool {
        let epoch = self.shared.state().topics.removal_epoch();
        epoch - self.freed_at.get().unwrap_or(epoch) > self.removals_by_age.get()
    }

    /// Whether room waits, because the wall clock is in doubt. A clock that is set again and again does not hold it up without
    /// end: the messages are certainly due.
    fn must_room_wait(&self) -> bool {
        let awake = self.shared.timeline.read().awake;
        let since = self.room_waits_since.get().unwrap_or(awake);
        self.room_waits_since.set(Some(since));
        awake.saturating_sub(since) < whole(self.shared.config.removal_delay)
    }

    /// Deletes segments that hold nothing any more, and compacts those that hold little.
    fn reclaim(&self, moment: &Moment) -> Result<(), Error> {
        self.freed_at.set(Some(self.shared.state().topics.removal_epoch()));
        self.removals_by_age.set(0);
        self.room_waits_since.set(None);
        self.shared.snapshots.sweep();
        while compaction::reclaim(&self.shared, moment, &|| self.let_others_in())? && self.let_others_in() {}
        self.roll_if_thin();
        let oldest = self.shared.state().segments.first().map_or(0, |segment| segment.first_sequence);
        deletion::forget(&self.shared, oldest);
        deletion::forget_losses(&self.shared, self.all_due_up_to.get())?;
        Ok(())
    }

    /// Begins the next segment if most of the current one is removed: only a full segment can be compacted.
    fn roll_if_thin(&self) {
        let active = self.shared.state().segments.last().cloned();
        let Some(active) = active else { return };
        let written = active.blocks_end().saturating_sub(SEGMENT_HEADER_BYTES as u64);
        if written * THIN < self.shared.segment_bytes() {
            return;
        }
        let live = measuring::live_bytes(&self.shared, &active, &self.shared.moment());
        if live.is_ok_and(|(live, all)| live < all / 2)
            && let Some(orders) = self.orders.upgrade()
        {
            let _ = orders.try_send(Order::Roll);
        }
    }
}
