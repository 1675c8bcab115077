//! What tests ask of the threads of a log: to do something now, to have done everything, and to take turns.

use std::{
    cell::RefCell,
    sync::{Arc, PoisonError, mpsc},
};

use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};

use super::{Embedded, maintenance::Task, write::queue::Order};

/// Makes the threads of a log take turns: one does all that it was asked for before another begins. So a test that waits for
/// them before it asks for more has the same calls of the disk in the same order each time. Nothing happens because time
/// passes.
#[derive(Clone, Debug, Default)]
pub struct Turns(Arc<Mutex<()>>);

impl Turns {
    /// Waits for a turn.
    pub fn take(&self) -> Turn {
        Turn { _guard: self.0.clone().blocking_lock_owned() }
    }
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _guard: OwnedMutexGuard<()>,
}

/// The turn of a thread that gives it away while it waits for another one.
#[derive(Debug)]
pub struct OwnTurn {
    turns: Option<Turns>,
    held: RefCell<Option<Turn>>,
}

impl OwnTurn {
    /// Without turns, nothing waits.
    pub fn new(turns: Option<Turns>) -> Self {
        Self { turns, held: RefCell::default() }
    }

    /// Waits for a turn, unless the thread has it.
    pub fn begin(&self) {
        if let Some(turns) = self.turns.as_ref().filter(|_| self.held.borrow().is_none()) {
            self.held.replace(Some(turns.take()));
        }
    }

    /// Ends the turn.
    pub fn end(&self) {
        self.held.take();
    }

    /// The threads take turns.
    pub fn is_taken(&self) -> bool {
        self.turns.is_some()
    }
}

impl Embedded {
    /// Enforces retention now. Everything that follows from it is done when this returns.
    pub async fn enforce(&self) {
        let (reply, done) = oneshot::channel();
        self.maintenance.request(Task::Enforce(reply));
        let _ = done.await;
        self.settle().await;
    }

    /// Erases everything that is removed now.
    pub async fn sweep(&self) {
        let (reply, done) = oneshot::channel();
        self.maintenance.request(Task::Sweep(reply));
        let _ = done.await;
        self.settle().await;
    }

    /// Whether a commit would wait for another thread.
    pub fn is_busy(&self) -> bool {
        self.shared.state.try_write().is_err()
    }

    /// Has a step of the wall clock recorded, as happens each second where the threads do not take turns.
    pub async fn look_at_clock(&self) {
        self.order(Order::LookAtClock).await;
        self.settle().await;
    }

    /// Makes the committer wait until the sender is dropped: it then takes all requests that are queued by then for one
    /// commit.
    pub async fn hold(&self) -> mpsc::Sender<()> {
        let (sender, until) = mpsc::channel();
        self.order(Order::Hold(until)).await;
        sender
    }

    /// The number of requests that the committer has not taken yet.
    pub fn queued(&self) -> usize {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.as_ref().map_or(0, |orders| orders.max_capacity() - orders.capacity())
    }

    async fn order(&self, order: Order) {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(orders) = orders {
            let _ = orders.send(order).await;
        }
    }

    /// Waits until the threads have done everything that they were asked for, and everything that follows from it.
    pub async fn settle(&self) {
        // The maintenance thread gives orders to the committer, which gives tasks to the maintenance thread; those give
        // no more orders.
        self.settle_maintenance().await;
        let (reply, done) = oneshot::channel();
        self.order(Order::Settle(reply)).await;
        let _ = done.await;
        self.settle_maintenance().await;
    }

    async fn settle_maintenance(&self) {
        let (reply, done) = oneshot::channel();
        self.maintenance.request(Task::Settle(reply));
        let _ = done.await;
    }

    /// Whether the log has recorded all steps of the wall clock.
    pub fn has_noticed_clock(&self) -> bool {
        self.shared.timeline.unrecorded(&self.shared.timeline.read()).is_none()
    }

    /// The time at which maintenance measures each full segment again, by the clock that cannot be set; `None` if it has not
    /// measured the segment.
    pub fn measured_until(&self) -> Vec<Option<u64>> {
        let segments = self.shared.state().segments.clone();
        let full = segments.split_last().map_or(&[][..], |(_, full)| full);
        full.iter().map(|segment| segment.live.get().map(|live| live.next_expiry)).collect()
    }
}
