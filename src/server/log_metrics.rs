//! The metrics of the log: whether messages can be published, the room that this needs, the bytes still to be erased, what it
//! holds, and how long the disk takes.

use std::{sync::atomic::AtomicU64, time::UNIX_EPOCH};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        counter::ConstCounter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Registry,
};

use crate::messages::{Log, quota::QuotaUsage};

/// Reads the log at each scrape.
#[derive(Debug)]
struct LogMetrics(Log);

/// Registers the metrics of a log.
pub fn register(log: Log, registry: &mut Registry) {
    let help = "How long commits waited for the disk, in seconds";
    registry.register("log_sync_seconds", help, log.sync_times());
    registry.register_collector(Box::new(LogMetrics(log)));
}

/// The quota of topics that a value is about: its patterns.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Of {
    topics: String,
}

impl LogMetrics {
    /// What is used of the quotas of topics, and what they allow.
    fn encode_quotas(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let families = [(); 4].map(|()| Family::<Of, Gauge<u64, AtomicU64>>::default());
        let [used_topics, used_bytes, max_topics, max_bytes] = &families;
        for QuotaUsage { quota, topics, bytes } in self.0.quotas() {
            let of = Of { topics: quota.name() };
            used_topics.get_or_create(&of).set(topics);
            used_bytes.get_or_create(&of).set(bytes);
            for (family, limit) in [(max_topics, quota.topics), (max_bytes, quota.bytes)] {
                if let Some(limit) = limit {
                    family.get_or_create(&of).set(limit);
                }
            }
        }
        for (name, help, family) in [
            ("topic_quota_topics", "Topics with messages that count in a quota", used_topics),
            ("topic_quota_stored_bytes", "Bytes of messages that count in a quota", used_bytes),
            ("topic_quota_max_topics", "The topics that a quota allows", max_topics),
            ("topic_quota_max_stored_bytes", "The bytes of messages that a quota allows", max_bytes),
        ] {
            family.encode(encoder.encode_descriptor(name, help, None, family.metric_type())?)?;
        }
        Ok(())
    }
}

impl Collector for LogMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let needed = *self.0.needed_room().borrow();
        let room = needed.unwrap_or_default();
        let figures = self.0.figures();
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let gauges = [
            ("log_failed", "1 after a failed write, until a restart", u64::from(figures.has_failed)),
            ("log_size_bytes", "Bytes of the messages of the log on disk", figures.bytes),
            ("log_segments", "Segments of the log", count(figures.segments)),
            ("log_topics", "Topics with messages", count(figures.topics)),
            ("log_consumers", "Consumers that have committed a cursor", count(figures.consumers)),
            ("log_head_sequence", "The newest sequence of the log; 0 for none", figures.head),
            (
                "log_full",
                "1 while messages are refused for want of room on the disk",
                u64::from(needed.is_some()),
            ),
            ("log_needed_bytes", "Free bytes that publishing needs; 0 while it works", room.bytes),
            ("log_needed_files", "New files that publishing needs; 0 while it works", room.files),
            (
                "log_erasures_owed",
                "Topics whose purged messages may still be on the disk",
                u64::try_from(self.0.owed_erasures()).unwrap_or(u64::MAX),
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        if let Some(oldest) = figures.oldest {
            let help = "The earliest time of a message in a segment, in Unix seconds";
            let seconds = oldest.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let gauge = ConstGauge::new(seconds);
            let name = "log_oldest_timestamp_seconds";
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        self.encode_quotas(&mut encoder)?;
        let steps = ConstCounter::new(self.0.clock_steps());
        let help = "How many times the wall clock was set, as far as that concerns the ages of messages";
        steps.encode(encoder.encode_descriptor("clock_steps", help, None, steps.metric_type())?)
    }
}
