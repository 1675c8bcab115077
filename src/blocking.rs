//! The one pool of threads for work that blocks or computes for long: reading files and the log, walking through lists.
//!
//! The threads are bounded. Work waits in a queue of its connection, and the queues take turns, so that a connection
//! that asks for much delays itself and not the others; besides, it never has all threads, nor all processors. A thread
//! that is stuck, as in a file system that does not answer, is replaced for the work of others. Work whose caller is gone is
//! not begun. A long walk is done in slices by [`Pool::walk`], and other long work should ask from time to time whether it
//! is still wanted.
//!
//! A task says whose work it does by [`of`] or [`enter`]; what it hands to the pool then waits in that queue.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    marker::PhantomData,
    ops::ControlFlow,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
};

use crate::{supervised, system};

/// The fewest threads: some may wait for a slow disk.
const MIN_THREADS: usize = 8;

/// The threads for each processor.
const THREADS_PER_PROCESSOR: usize = 4;

/// A connection has up to this fraction of the threads.
const SHARE: usize = 4;

/// A thread that has not ended its work after this time is stuck. Walks take much shorter slices, and long searches in files
/// are rare.
const STUCK: Duration = Duration::from_secs(1);

/// Up to this many stuck threads are replaced, for each thread of the pool.
const REPLACED: usize = 4;

/// A slice of a walk ends after this time: short beside the latency that a caller notices, and long beside a hand-over.
const SLICE: Duration = Duration::from_millis(2);

/// A thread that computes gives way after this time.
const GIVES_WAY: Duration = Duration::from_micros(250);

/// Whose work it is: the number of a connection, 0 for the server's own.
pub type Owner = u64;

thread_local! {
    static OWNER: Cell<Owner> = const { Cell::new(0) };
    /// This thread has long slices of the processor.
    static COMPUTES: Cell<bool> = const { Cell::new(false) };
    /// When this thread gave way.
    static GAVE_WAY: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Lets others have the processor if this thread has not done so for a while. Long computations call it often.
///
/// The system takes a processor from a thread that computes only at a tick of its clock, which comes every 4 ms on many
/// systems, and a task that wakes meanwhile waits for it.
pub fn give_way() {
    let now = Instant::now();
    let is_due = GAVE_WAY.get().is_none_or(|since| now.duration_since(since) >= GIVES_WAY);
    if is_due {
        std::thread::yield_now();
        GAVE_WAY.set(Some(Instant::now()));
    }
}

/// Does work here that neither blocks nor computes for long: the thread does not give way meanwhile.
pub fn short_work<T>(work: impl FnOnce() -> T) -> T {
    GAVE_WAY.set(Some(Instant::now()));
    work()
}

/// A pool. Clones share their threads.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    threads: usize,
    /// The most threads of one connection.
    share: usize,
    queues: Mutex<Queues>,
}

#[derive(Debug, Default)]
struct Queues {
    by_owner: HashMap<Owner, Queue>,
    /// The owners whose work can begin, in the order of their turns.
    turns: VecDeque<Owner>,
    /// The number of threads that run.
    running: usize,
    /// When the jobs began that run now, by their numbers.
    began: BTreeMap<u64, Instant>,
    next_number: u64,
    /// A task looks for stuck threads.
    is_watched: bool,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    running: usize,
    has_turn: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

/// Runs unless its caller is gone. True when it is done: otherwise it has a further slice.
type Job = Box<dyn FnMut() -> bool + Send>;

/// The threads of the default pool.
fn threads() -> usize {
    (processors() * THREADS_PER_PROCESSOR).max(MIN_THREADS)
}

/// A runtime for a server that uses the default pool. Its own threads have the processor before those that compute.
///
/// # Errors
/// Those of the system.
pub fn runtime() -> io::Result<Runtime> {
    // A thread that has ended its work for the pool is not free at once, and a new one would be started beside it.
    Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(2 * most_threads())
        .on_thread_start(system::answers)
        .build()
}

/// The most threads of the default pool, with those that replace stuck ones.
fn most_threads() -> usize {
    threads() * (1 + REPLACED)
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Default for Pool {
    fn default() -> Self {
        Self::new(threads())
    }
}

impl Pool {
    /// A pool of up to this many threads.
    pub fn new(threads: usize) -> Self {
        // One processor is left for the others.
        let share = (threads / SHARE).min(processors().saturating_sub(1)).max(1);
        Self(Arc::new(Shared { threads: threads.max(1), share, queues: Mutex::default() }))
    }

    /// Runs work on a thread of the pool, in its turn. Drop the result to take the work back if it has not begun.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Running<T> {
        let mut work = Some(work);
        self.add(move || work.take().map(|work| work()))
    }

    /// Adds a job that gives its result in its last slice.
    fn add<T: Send + 'static>(&self, mut slice: impl FnMut() -> Option<T> + Send + 'static) -> Running<T> {
        let (sender, receiver) = oneshot::channel();
        let mut sender = Some(sender);
        let job = move || {
            if sender.as_ref().is_none_or(oneshot::Sender::is_closed) {
                return true;
            }
            let Some(result) = slice() else { return false };
            let _ = sender.take().map(|sender| sender.send(result));
            true
        };
        let (is_new, is_watched) = {
            let mut queues = self.0.queues();
            queues.add(OWNER.get(), Box::new(job), self.0.share);
            let is_new = queues.take_thread(self.0.threads);
            (is_new, is_new || std::mem::replace(&mut queues.is_watched, true))
        };
        if is_new {
            self.start_thread();
        }
        if !is_watched {
            self.watch_threads();
        }
        Running(receiver)
    }

    /// Starts a thread that is counted.
    fn start_thread(&self) {
        let thread = Thread { shared: self.0.clone(), is_over: false };
        tokio::task::spawn_blocking(move || thread.run());
    }

    fn watch_threads(&self) {
        let pool = self.clone();
        supervised::spawn("threads", move |_| pool.clone().replace_stuck());
    }

    /// While work waits and all threads are busy, replaces those that are stuck.
    async fn replace_stuck(self) {
        loop {
            tokio::time::sleep(STUCK / 4).await;
            let mut queues = self.0.queues();
            if queues.turns.is_empty() {
                queues.is_watched = false;
                return;
            }
            let is_new = queues.take_thread(self.0.threads);
            drop(queues);
            if is_new {
                self.start_thread();
            }
        }
    }

    /// Does a long walk in slices, each in its turn, so that others have theirs in between. A walk that has begun comes
    /// before those that its owner has not begun, so that few are in hand at once. `step` does a part that is short beside
    /// a slice, and breaks with the result of the walk. Drop the result to end the walk.
    pub fn walk<T: Send + 'static>(
        &self,
        mut step: impl FnMut() -> ControlFlow<T> + Send + 'static,
    ) -> Running<T> {
        self.add(move || {
            let began = Instant::now();
            loop {
                match step() {
                    ControlFlow::Break(result) => return Some(result),
                    ControlFlow::Continue(()) if began.elapsed() >= SLICE => return None,
                    ControlFlow::Continue(()) => give_way(),
                }
            }
        })
    }
}

impl Shared {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        // No work runs under the lock, so a panic cannot leave the queues half changed.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queues {
    fn add(&mut self, owner: Owner, job: Job, share: usize) {
        let queue = self.by_owner.entry(owner).or_default();
        queue.waiting.push_back(job);
        self.give_turn(owner, share);
    }

    /// Whether one more thread is to start; it counts as running.
    fn take_thread(&mut self, threads: usize) -> bool {
        let is_new = self.running < threads
            || (self.running < threads + self.stuck() && self.running < threads * (1 + REPLACED));
        self.running += usize::from(is_new);
        is_new
    }

    /// The number of threads that are stuck.
    fn stuck(&self) -> usize {
        // The jobs began in the order of their numbers.
        self.began.values().take_while(|began| began.elapsed() >= STUCK).count()
    }

    /// Gives an owner a turn if it has work and may have one more thread.
    fn give_turn(&mut self, owner: Owner, share: usize) {
        let Some(queue) = self.by_owner.get_mut(&owner) else { return };
        let may_run = owner == 0 || queue.running < share;
        if !queue.has_turn && may_run && !queue.waiting.is_empty() {
            queue.has_turn = true;
            self.turns.push_back(owner);
        }
    }

    /// The job whose turn it is, with its number. `None` if there is none, or if there are more threads than are needed.
    fn begin(&mut self, share: usize, threads: usize) -> Option<(u64, Owner, Job)> {
        if self.running > threads && self.running > threads + self.stuck() {
            return None;
        }
        let owner = self.turns.pop_front()?;
        let queue = self.by_owner.get_mut(&owner)?;
        queue.has_turn = false;
        let job = queue.waiting.pop_front()?;
        queue.running += 1;
        self.give_turn(owner, share);
        let number = self.next_number;
        self.next_number += 1;
        self.began.insert(number, Instant::now());
        Some((number, owner, job))
    }

    /// Ends a slice of a job; `rest` is the job if it has a further one.
    fn end(&mut self, (number, owner): (u64, Owner), rest: Option<Job>, share: usize) {
        self.began.remove(&number);
        let Some(queue) = self.by_owner.get_mut(&owner) else { return };
        queue.running -= 1;
        if let Some(rest) = rest {
            queue.waiting.push_front(rest);
        }
        if queue.running == 0 && queue.waiting.is_empty() {
            self.by_owner.remove(&owner);
        } else {
            self.give_turn(owner, share);
        }
    }
}

/// A thread that runs, or will run when the system has one.
struct Thread {
    shared: Arc<Shared>,
    /// It has been counted off.
    is_over: bool,
}

impl Thread {
    /// Runs jobs until no one has a turn.
    fn run(mut self) {
        let Shared { share, threads, .. } = *self.shared;
        // It has computed nothing yet.
        GAVE_WAY.set(Some(Instant::now()));
        if !COMPUTES.replace(true) {
            system::computes();
        }
        loop {
            let mut queues = self.shared.queues();
            let Some((number, owner, mut job)) = queues.begin(share, threads) else {
                // Under the same lock, so that no job is added to a thread that ends.
                queues.running -= 1;
                let watches = !queues.turns.is_empty() && !std::mem::replace(&mut queues.is_watched, true);
                drop(queues);
                self.is_over = true;
                if watches {
                    Pool(self.shared.clone()).watch_threads();
                }
                return;
            };
            drop(queues);
            give_way();
            // The caller of work that panics sees that it is lost; the panic itself was printed.
            let is_done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut job)).unwrap_or(true);
            let rest = if is_done { None } else { Some(job) };
            self.shared.queues().end((number, owner), rest, share);
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if !self.is_over {
            self.shared.queues().running -= 1;
        }
    }
}

/// Work that waits for its turn or runs.
#[derive(Debug)]
pub struct Running<T>(oneshot::Receiver<T>);

impl<T> Future for Running<T> {
    type Output = io::Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let done = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(done.map_err(|_| io::Error::other("the work was lost: it panicked, or the server stops")))
    }
}

/// While it lives, this thread does the work of an owner.
#[derive(Debug)]
pub struct Entered {
    before: Owner,
    /// It belongs to its thread.
    _not_send: PhantomData<*const ()>,
}

/// What this thread hands to a pool is the work of this owner, until the guard is dropped.
pub fn enter(owner: Owner) -> Entered {
    Entered { before: OWNER.replace(owner), _not_send: PhantomData }
}

impl Drop for Entered {
    fn drop(&mut self) {
        OWNER.set(self.before);
    }
}

/// A future that does the work of this owner.
pub async fn of<F: Future>(owner: Owner, future: F) -> F::Output {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        let _entered = enter(owner);
        future.as_mut().poll(context)
    })
    .await
}

#[cfg(test)]
mod tests;
