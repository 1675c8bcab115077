//! Looks at the clocks while nothing is published.

use std::{sync::Weak, time::Duration};

use tokio::sync::mpsc;

use crate::messages::{
    clock::whole,
    embedded::{Shared, write::queue::Order},
};

/// The clocks are compared this often.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Has steps of the wall clock recorded while nothing is published, for as long as the log exists.
pub async fn watch(shared: Weak<Shared>, orders: mpsc::WeakSender<Order>) {
    let mut before = None::<u64>;
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        let (Some(shared), Some(orders)) = (shared.upgrade(), orders.upgrade()) else { return };
        #[cfg(test)]
        if shared.config.turns.is_some() {
            return;
        }
        let reading = shared.timeline.read();
        if shared.timeline.unrecorded(&reading).is_some() || shared.timeline.has_slept(&reading) {
            // If the queue is full, the committer looks at the clock for its next commit.
            let _ = orders.try_send(Order::LookAtClock);
        }
        // Timers stand still while the machine is suspended.
        let passed = before.replace(reading.boot).map_or(0, |before| reading.boot.saturating_sub(before));
        if passed > 5 * whole(WATCH_INTERVAL) {
            shared.timeline.wake();
        }
    }
}
