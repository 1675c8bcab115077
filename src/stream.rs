//! What every generator shares: how a stream is divided into batches, and when a heartbeat is due.

use std::{sync::OnceLock, time::Duration};

use tokio::time::Instant;

/// How a stream is cut into batches: what all three streams share.
#[derive(Clone, Debug)]
pub struct Batching {
    /// End after so many items; at least 1.
    pub limit: Option<u64>,
    /// Send an empty batch when nothing was sent for so long.
    pub heartbeat: Duration,
    /// At most so many items a batch; at least 1.
    pub max_items: usize,
    /// A batch leaves when its items have so many bytes; it exceeds this by less than one item.
    pub max_bytes: usize,
}

/// The default of [`Batching::max_bytes`]: larger batches gain little throughput and cost memory a reader.
pub const BATCH_BYTES: usize = 64 * 1024;

/// The default of [`Batching::heartbeat`]: under the 30 s after which the stricter middleboxes forget a connection.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// Into how many parts a heartbeat is divided, at whose borders all those of the server leave.
const HEARTBEAT_PARTS: u32 = 16;

impl Batching {
    /// When a heartbeat is due, if nothing has been sent since. It is early by up to a 16th, so that those of many
    /// streams are due together: they are computed by one wake, and leave in one write a connection.
    pub fn heartbeat_at(&self, last_sent: Instant) -> Instant {
        static START: OnceLock<Instant> = OnceLock::new();
        let due = last_sent + self.heartbeat;
        let part = (self.heartbeat / HEARTBEAT_PARTS).as_nanos().max(1);
        let over = due.saturating_duration_since(*START.get_or_init(Instant::now)).as_nanos() % part;
        due.checked_sub(Duration::from_nanos(u64::try_from(over).unwrap_or(0))).unwrap_or(due)
    }
}

impl Default for Batching {
    fn default() -> Self {
        Self { limit: None, heartbeat: HEARTBEAT, max_items: usize::MAX, max_bytes: BATCH_BYTES }
    }
}
