//! The metrics of the log: whether messages can be published, the room that this needs, and the bytes still to be erased.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use crate::messages::Log;

/// Reads the log at each scrape.
#[derive(Debug)]
struct LogMetrics(Log);

/// Registers the metrics of a log.
pub fn register(log: Log, registry: &mut Registry) {
    registry.register_collector(Box::new(LogMetrics(log)));
}

impl Collector for LogMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let needed = *self.0.needed_room().borrow();
        let room = needed.unwrap_or_default();
        let gauges = [
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
        let steps = ConstCounter::new(self.0.clock_steps());
        let help = "How many times the wall clock was set, as far as that concerns the ages of messages";
        steps.encode(encoder.encode_descriptor("clock_steps", help, None, steps.metric_type())?)
    }
}
