//! The one pool of threads for work that blocks or computes for long: reading files and the log, walking through lists.
//!
//! The threads are bounded. Work waits in a queue of its connection, and the queues take turns, so that a connection
//! that asks for much delays itself and not the others; besides, it never has all threads. Work whose caller is gone is
//! not begun. A long walk is done in slices by [`Pool::walk`], and other long work should ask from time to time whether it
//! is still wanted.
//!
//! A task says whose work it does by [`of`] or [`enter`]; what it hands to the pool then waits in that queue.

use std::{
    cell::Cell,
    collections::{HashMap, VecDeque},
    io,
    marker::PhantomData,
    ops::ControlFlow,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

/// The fewest threads: some may wait for a slow disk.
const MIN_THREADS: usize = 8;

/// The threads for each processor.
const THREADS_PER_PROCESSOR: usize = 4;

/// A connection has up to this fraction of the threads.
const SHARE: usize = 4;

/// A slice of a walk ends after this time: short beside the latency that a caller notices, and long beside a hand-over.
const SLICE: Duration = Duration::from_millis(2);

/// A thread that computes gives way after this time.
const GIVES_WAY: Duration = Duration::from_micros(250);

/// Whose work it is: the number of a connection, 0 for the server's own.
pub type Owner = u64;

thread_local! {
    static OWNER: Cell<Owner> = const { Cell::new(0) };
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

/// The most threads of the default pool.
pub fn threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors * THREADS_PER_PROCESSOR).max(MIN_THREADS)
}

impl Default for Pool {
    fn default() -> Self {
        Self::new(threads())
    }
}

impl Pool {
    /// A pool of up to this many threads.
    pub fn new(threads: usize) -> Self {
        let share = (threads / SHARE).max(1);
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
        let is_new = self.0.queues().add(OWNER.get(), Box::new(job), self.0.share, self.0.threads);
        if is_new {
            let thread = Thread { shared: self.0.clone(), is_over: false };
            tokio::task::spawn_blocking(move || thread.run());
        }
        Running(receiver)
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
    /// Adds a job. True if one more thread is to take it; that thread counts as running.
    fn add(&mut self, owner: Owner, job: Job, share: usize, threads: usize) -> bool {
        let queue = self.by_owner.entry(owner).or_default();
        queue.waiting.push_back(job);
        self.give_turn(owner, share);
        let is_new = self.running < threads;
        self.running += usize::from(is_new);
        is_new
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

    /// The job whose turn it is.
    fn begin(&mut self, share: usize) -> Option<(Owner, Job)> {
        let owner = self.turns.pop_front()?;
        let queue = self.by_owner.get_mut(&owner)?;
        queue.has_turn = false;
        let job = queue.waiting.pop_front()?;
        queue.running += 1;
        self.give_turn(owner, share);
        Some((owner, job))
    }

    /// Ends a slice of a job; `rest` is the job if it has a further one.
    fn end(&mut self, owner: Owner, rest: Option<Job>, share: usize) {
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
        let share = self.shared.share;
        // It has computed nothing yet.
        GAVE_WAY.set(Some(Instant::now()));
        loop {
            let mut queues = self.shared.queues();
            let Some((owner, mut job)) = queues.begin(share) else {
                // Under the same lock, so that no job is added to a thread that ends.
                queues.running -= 1;
                drop(queues);
                self.is_over = true;
                return;
            };
            drop(queues);
            give_way();
            // The caller of work that panics sees that it is lost; the panic itself was printed.
            let is_done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut job)).unwrap_or(true);
            let rest = if is_done { None } else { Some(job) };
            self.shared.queues().end(owner, rest, share);
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
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use futures::future::join_all;

    use super::*;

    /// What `hands` hands to a pool is the work of this owner.
    fn by<T>(owner: Owner, hands: impl FnOnce() -> T) -> T {
        let _entered = enter(owner);
        hands()
    }

    /// Work that runs until the sender is dropped.
    fn held(pool: &Pool) -> (mpsc::Sender<()>, Running<()>) {
        let (release, released) = mpsc::channel();
        let running = pool.run(move || {
            let _ = released.recv();
        });
        (release, running)
    }

    #[tokio::test]
    async fn a_connection_that_asks_for_much_does_not_delay_another() {
        let pool = Pool::new(4);
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |name: &'static str| {
            let order = order.clone();
            pool.run(move || order.lock().unwrap().push(name))
        };
        // One thread of four is the share of the first connection.
        let ((release, first), many) =
            by(1, || (held(&pool), (0..100).map(|_| note("many")).collect::<Vec<_>>()));
        of(2, async { note("one").await }).await.unwrap();
        drop(release);
        first.await.unwrap();
        for done in join_all(many).await {
            done.unwrap();
        }
        let order = order.lock().unwrap();
        assert_eq!((order.len(), order.first()), (101, Some(&"one")));
    }

    #[tokio::test]
    async fn connections_take_turns() {
        let pool = Pool::new(1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let (release, first) = by(9, || held(&pool));
        let mut all = Vec::new();
        for owner in [1, 1, 1, 2, 2, 3] {
            let order = order.clone();
            all.push(by(owner, || pool.run(move || order.lock().unwrap().push(owner))));
        }
        drop(release);
        first.await.unwrap();
        join_all(all).await;
        assert_eq!(*order.lock().unwrap(), [1, 2, 3, 1, 2, 1]);
    }

    #[tokio::test]
    async fn a_long_walk_gives_way_between_its_slices_and_ends_with_its_caller() {
        let pool = Pool::new(1);
        let steps = Arc::new(AtomicUsize::new(0));
        let counter = steps.clone();
        let endless = move || {
            counter.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(SLICE);
            ControlFlow::<()>::Continue(())
        };
        let mut walk = by(1, || pool.walk(endless));
        let waiting = Arc::new(AtomicUsize::new(0));
        let counter = waiting.clone();
        let second = by(1, || pool.run(move || counter.fetch_add(1, Ordering::Relaxed)));
        for n in 0..3 {
            let other = of(2, async { pool.run(move || n).await });
            let other = tokio::select! {
                _ = &mut walk => panic!("it has no end"),
                other = other => other.unwrap(),
            };
            assert_eq!(other, n, "done although the walk goes on");
        }
        assert_eq!(waiting.load(Ordering::Relaxed), 0, "the walk that has begun comes first");
        drop(walk);
        assert_eq!(second.await.unwrap(), 0);
        // The slice in hand is the last one.
        pool.run(|| ()).await.unwrap();
        let done = steps.load(Ordering::Relaxed);
        assert!(done > 0);
        pool.run(|| ()).await.unwrap();
        assert_eq!(steps.load(Ordering::Relaxed), done);
        let mut left = 5;
        let count = pool.walk(move || {
            left -= 1;
            if left == 0 { ControlFlow::Break("over") } else { ControlFlow::Continue(()) }
        });
        assert_eq!(count.await.unwrap(), "over");
    }

    #[tokio::test]
    async fn work_whose_caller_is_gone_is_not_begun() {
        let pool = Pool::new(1);
        let ran = Arc::new(AtomicUsize::new(0));
        let (release, first) = held(&pool);
        for _ in 0..10 {
            let ran = ran.clone();
            drop(pool.run(move || ran.fetch_add(1, Ordering::Relaxed)));
        }
        let last = pool.run(|| 7);
        drop(release);
        first.await.unwrap();
        assert_eq!(last.await.unwrap(), 7);
        assert_eq!(ran.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn there_are_no_more_threads_than_allowed_and_a_panic_costs_none() {
        let pool = Pool::new(3);
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = || {
            let (now, most) = (now.clone(), most.clone());
            pool.run(move || {
                most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_millis(1));
                now.fetch_sub(1, Ordering::Relaxed);
            })
        };
        assert!(pool.run(|| panic!("expected by the test")).await.is_err());
        join_all((0..50).map(|_| work())).await;
        assert!((1..=3).contains(&most.load(Ordering::Relaxed)));
        // A result comes a moment before its thread has counted the work off.
        let is_over = || pool.0.queues().running == 0;
        let over = async {
            while !is_over() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), over).await.unwrap();
        let queues = pool.0.queues();
        assert!(queues.by_owner.is_empty() && queues.turns.is_empty(), "{queues:?}");
    }
}
