//! Figures of a log for its operator.

use std::{
    io,
    sync::{PoisonError, atomic::Ordering},
    time::Instant,
};

use prometheus_client::metrics::histogram::Histogram;

use super::{
    Embedded, Shared,
    format::{block::LogId, trim_points::TrimPoint},
    index::{segment::Segment, topic::Topic},
    time_of,
};
use crate::messages::LogFigures;

/// The buckets of the time that a commit waits for the disk, in seconds.
const SYNC_BUCKETS: [f64; 12] = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

/// The time that commits wait for the disk.
pub fn sync_times() -> Histogram {
    Histogram::new(SYNC_BUCKETS)
}

impl Shared {
    /// Waits until a commit is on disk, and measures how long that takes.
    pub fn sync(&self, segment: &Segment) -> io::Result<()> {
        let start = Instant::now();
        segment.file.sync()?;
        self.sync_times.observe(start.elapsed().as_secs_f64());
        Ok(())
    }
}

/// The memory of a name of a topic, on average, with what a tree needs for it.
const NAME_BYTES: usize = 64;

/// The memory of a message id.
const ID_BYTES: usize = 50;

impl Embedded {
    /// The bytes of memory that the log holds, by what holds them. They are estimated from numbers of entries, but for bytes
    /// of messages.
    pub fn memory(&self) -> [(&'static str, u64); 7] {
        let Shared { state, cache, batch_cache, message_ids, .. } = &*self.shared;
        let (recent, topics, segments) = {
            let state = state.read().unwrap_or_else(PoisonError::into_inner);
            let (alive, gone) = (state.topics.count(), state.topics.count_all() - state.topics.count());
            let topics =
                alive * (size_of::<Topic>() + NAME_BYTES) + gone * (size_of::<TrimPoint>() + NAME_BYTES);
            (state.recent.memory(), topics, state.segments.clone())
        };
        let segments = segments.iter().map(|segment| segment.memory()).sum::<usize>();
        let bytes = |count: usize| count as u64;
        [
            ("recent_messages", bytes(recent)),
            ("topics", bytes(topics)),
            ("segments", bytes(segments)),
            ("footers", cache.memory()),
            ("batches", bytes(batch_cache.memory())),
            ("message_ids", bytes(message_ids.load(Ordering::Relaxed) * ID_BYTES)),
            ("publish_queue", bytes(self.room.used())),
        ]
    }

    /// The identity of the log.
    pub fn id(&self) -> LogId {
        self.shared.identity.id
    }

    /// The figures of the log now.
    pub fn figures(&self) -> LogFigures {
        let state = self.shared.state();
        let bytes = state.segments.iter().map(|segment| segment.blocks_end()).sum();
        let summaries = state.segments.iter().map(|segment| segment.summary());
        let oldest = summaries.filter(|summary| summary.messages > 0).map(|summary| summary.min_time).min();
        LogFigures {
            segments: state.segments.len(),
            bytes,
            topics: state.topics.count() - state.topics.consumer_count(),
            consumers: state.topics.consumer_count(),
            oldest: oldest.map(time_of),
            head: *self.shared.head.borrow(),
            has_failed: self.shared.has_failed(),
        }
    }

    /// How long commits have waited for the disk.
    pub fn sync_times(&self) -> Histogram {
        self.shared.sync_times.clone()
    }
}
