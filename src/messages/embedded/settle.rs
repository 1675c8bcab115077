//! What tests ask of the threads of a log: to do something now, and to have done everything.

use std::sync::PoisonError;

use tokio::sync::oneshot;

use super::{Embedded, maintenance::Task, write::queue::Order};

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

    /// Waits until the threads have done everything that they were asked for, and everything that follows from it.
    pub async fn settle(&self) {
        // The maintenance thread gives orders to the committer, which gives tasks to the maintenance thread; those give
        // no more orders.
        self.settle_maintenance().await;
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(orders) = orders {
            let (reply, done) = oneshot::channel();
            let _ = orders.send(Order::Settle(reply)).await;
            let _ = done.await;
        }
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
