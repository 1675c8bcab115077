//! The log in a stream of three real nats-servers.

pub use nats::Nats;

use super::{conformance::Kind as _, *};
use crate::messages::{Credentials, Servers};

#[path = "../../../tests/harness/nats.rs"]
#[expect(dead_code, clippy::cast_possible_truncation, reason = "each test uses a part of it")]
mod nats;

mod batches;
mod consumers;
mod failures;
mod native;
mod reading;

impl Nats {
    /// A log of a perenniald over this cluster.
    pub async fn log(&self, config: Config) -> Log {
        let address = format!("nats://{}/test", self.hosts()).parse().unwrap();
        let servers = Servers { address, credentials: Credentials::default() };
        Log::connect(&servers, config).await.unwrap()
    }
}

/// A log over a cluster of its own.
pub struct Bed {
    server: Nats,
    config: Config,
    log: Log,
}

impl conformance::Kind for Bed {
    async fn make(set: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        set(&mut config);
        let server = Nats::start().await;
        let log = server.log(config.clone()).await;
        Self { server, config, log }
    }

    fn log(&self) -> &Log {
        &self.log
    }

    async fn reopen(&mut self) {
        self.log.close().await;
        self.log = self.server.log(self.config.clone()).await;
    }

    /// The clock of the server cannot be set.
    fn pass(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn set_clock(&self, _: SystemTime) {
        unreachable!("the clock of nats-server cannot be set")
    }

    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    async fn reboot(&mut self, _: SystemTime) {
        unreachable!("the clock of nats-server cannot be set")
    }

    /// There is no retention.
    async fn keep(&self) {}
}

async fn publish(log: &Log, topic: &str, content: &str) -> u64 {
    log.publish(text(topic, content)).await.unwrap().sequence.get()
}

fn live(topics: &[&str], start: Start) -> Query {
    Query { stop: Stop::default(), ..query(topics, start) }
}

/// The texts up to one, from a stream that goes on.
async fn until_text(batches: &mut Batches, last: &str) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.last().is_none_or(|seen| seen != last) {
        seen.extend(decode(&next(batches).await.unwrap()).iter().map(text_of));
    }
    seen
}
