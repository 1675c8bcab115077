//! The lag of consumers, for Prometheus. The number of series is bounded, however many consumers
//! there are: those with the largest lag are listed.

use std::time::{Duration, Instant};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::sync::Mutex;

use crate::messages::{Log, Sequence};

/// The number of consumers that are listed.
const MAX_LISTED: usize = 100;

/// The number of consumers that are looked at, in the order of their names.
const MAX_READ: usize = 10_000;

/// The number of consumers that are read at once.
const PAGE: usize = 1000;

/// The lags are read again after this time, however often they are scraped.
const PAUSE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Consumer {
    consumer: String,
}

/// The metrics of consumers.
#[derive(Debug)]
pub struct ConsumerLags {
    lags: Family<Consumer, Gauge>,
    largest: Gauge,
    connected: Gauge,
    /// When they were read last.
    read_at: Mutex<Option<Instant>>,
}

impl ConsumerLags {
    /// Registers the metrics.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            lags: Family::default(),
            largest: Gauge::default(),
            connected: Gauge::default(),
            read_at: Mutex::default(),
        };
        let help = "Sequences between the cursor of a consumer and the head of the log, of the 100 with the largest lag";
        registry.register("consumer_lag_sequences", help, metrics.lags.clone());
        let help = "The largest lag of a consumer, in sequences";
        registry.register("consumer_lag_max_sequences", help, metrics.largest.clone());
        registry.register("consumers_connected", "Consumers that read now", metrics.connected.clone());
        metrics
    }

    /// Reads the lags, unless they were read just now. If they cannot be read, those before stay.
    pub async fn update(&self, log: &Log) {
        let mut read_at = self.read_at.lock().await;
        if read_at.is_some_and(|at| at.elapsed() < PAUSE) {
            return;
        }
        let (mut lags, mut after, mut connected) = (Vec::new(), None::<String>, 0);
        while lags.len() < MAX_READ {
            let Ok(page) = log.list_consumers(PAGE, after.as_deref()).await else { return };
            for consumer in page.consumers {
                connected += i64::from(consumer.is_connected);
                let head = consumer.head.map_or(0, Sequence::get);
                let sequence = consumer.position.ok().and_then(|position| position.sequence());
                let lag = head.saturating_sub(sequence.map_or(0, Sequence::get));
                lags.push((i64::try_from(lag).unwrap_or(i64::MAX), consumer.name));
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        lags.sort_unstable_by(|(one, _), (other, _)| other.cmp(one));
        self.lags.clear();
        self.largest.set(lags.first().map_or(0, |(lag, _)| *lag));
        self.connected.set(connected);
        for (lag, consumer) in lags.into_iter().take(MAX_LISTED) {
            self.lags.get_or_create(&Consumer { consumer }).set(lag);
        }
        *read_at = Some(Instant::now());
    }
}
