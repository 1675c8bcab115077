//! What retention, expiry and purges leave, compared with a model.

use super::*;
use crate::messages::{clock::Clock, retention::Rule};

mod clock;
mod erasure;
mod files;
mod list;
mod maintenance;
mod many_topics;
mod recorded;
mod room;

/// A log in memory. Its clock moves only when a test moves it, and retention runs only when a test asks for it.
pub struct Bed {
    pub disk: Arc<Simulation>,
    pub config: Config,
    pub log: Log,
}

impl Bed {
    async fn new(rules: &[&str]) -> Self {
        Self::with(rules, |_| ()).await
    }

    pub async fn with(rules: &[&str], set: impl FnOnce(&mut Config)) -> Self {
        let disk = Simulation::new();
        let mut config = Config {
            segment_bytes: 8 * 1024,
            dedupe_window: Duration::from_secs(1),
            retention: rules.iter().map(|rule| rule.parse::<Rule>().unwrap()).collect(),
            retention_interval: Duration::from_secs(3600),
            disk: Storage::Simulated(disk.clone()),
            removal_delay: Duration::ZERO,
            clock: Clock::manual(),
            ..Config::default()
        };
        set(&mut config);
        let log = Self::open(&config).await;
        Self { disk, config, log }
    }

    /// Retention is enforced at once after a start, and when this returns.
    pub async fn open(config: &Config) -> Log {
        let log = Log::open(Path::new("/log"), config.clone()).unwrap().0;
        enforce(&log).await;
        log
    }

    pub async fn reopen(&mut self) {
        self.log.close().await;
        self.log = Self::open(&self.config).await;
    }

    pub async fn enforce(&self) {
        enforce(&self.log).await;
    }

    fn advance(&self, milliseconds: u64) {
        self.config.clock.advance(Duration::from_millis(milliseconds));
    }

    pub async fn publish(&self, topic: &str, content: &str) -> u64 {
        self.log.publish(text(topic, content)).await.unwrap().sequence.get()
    }

    /// Fills segments with a topic's messages. The threads of the log keep pace, so that it is always the same calls of
    /// the disk that come in the same order.
    pub async fn fill(&self, topic: &str, messages: usize) {
        for _ in 0..messages {
            self.publish(topic, &"x".repeat(1000)).await;
            settle(&self.log).await;
        }
    }

    /// The segments, by name, and their lengths.
    pub fn segments(&self) -> Vec<(u64, u64)> {
        let paths = self.config.disk.list(Path::new("/log")).unwrap();
        let mut segments = Vec::new();
        for path in paths {
            let name = path.file_name().unwrap().to_str().unwrap();
            if let Some(sequence) = name.strip_suffix(".log") {
                let length = self.config.disk.open(&path, false).unwrap().len().unwrap();
                segments.push((sequence.parse().unwrap(), length));
            }
        }
        segments.sort_unstable();
        segments
    }

    pub async fn texts(&self, topics: &[&str]) -> Vec<String> {
        texts(&self.log, query(topics, Start::Earliest)).await
    }

    /// Publishes a text, and returns it.
    pub async fn publish_text(&self, topic: &str, content: &str) -> String {
        self.publish(topic, content).await;
        content.into()
    }

    pub async fn topic(&self, name: &str) -> Option<TopicInfo> {
        self.log.list_topics(Some(name), 10, None).await.unwrap().topics.pop()
    }
}

/// Waits until the threads of the log have done everything.
pub async fn settle(log: &Log) {
    let log = log.embedded();
    log.settle().await;
}

pub async fn enforce(log: &Log) {
    let log = log.embedded();
    log.enforce().await;
}
