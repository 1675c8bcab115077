//! The log in a stream of NATS JetStream, for those who have outgrown one machine: the same API over a cluster, and any
//! number of servers side by side.
//!
//! - Acknowledged means stored by a majority of the stream's replicas, and readable at this server.
//! - A subscription costs the cluster no consumer: one consumer a server feeds a tail that all subscriptions share, and
//!   history is read by direct get.
//! - A cursor of one server resumes at every other one over the same stream. A stream that was deleted and created again is
//!   another log.
//! - An answer of a leader or of a replica does not prove that something is absent, because it may not know yet of the
//!   newest messages. Where that matters, a mark is published first: everything that was acknowledged before has a lower
//!   sequence.
//! - Nothing removes messages but their `ttl`: a stream with limits that do is refused. So there are no gaps to report.
//!
//! | file | holds |
//! |---|---|
//! | `address` | where the cluster is, and the credentials |
//! | `cluster` | the connection, the stream and its settings, marks |
//! | `native` | a message in the form of NATS |
//! | `tail` | the newest messages, and the consumer that feeds them |
//! | `fetch` | the history |
//! | `subscription`, `start`, `snapshot` | reading |
//! | `publish`, `batch` | publishing |
//! | `own` | the topics of the server's own, in memory |
//! | `consumers`, `leases` | cursors by name, and which subscription reads as one |
//! | `topics` | the list of topics |
//! | `differences` | what is not as in the embedded log |

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::{Mutex, watch};

use self::{
    cluster::{Cluster, PATIENCE},
    fetch::History,
    tail::Tail,
};
use super::{
    Config, Diverged, Durability, Error, Incarnation, Lineage, LogFigures, NeededRoom, Sequence, Unsupported,
    clock::{Clock, nanos},
    quota::{QuotaUsage, TopicQuota},
};
use crate::{blocking::Pool, supervised};

mod address;
mod batch;
mod cluster;
mod consumers;
mod differences;
mod fetch;
mod leases;
mod native;
mod own;
mod publish;
mod snapshot;
mod start;
mod subscription;
mod tail;
mod topics;

pub use address::{Address, AddressError, Credentials, Servers};
pub use cluster::ConnectError;
pub use differences::{DIFFERENCES, Difference, Verdict};
pub use subscription::Subscription;

/// Room of a message for its headers, in bytes, below the largest payload that the cluster takes.
const HEADER_ROOM: usize = 64 * 1024;

/// A log in a stream.
#[derive(Debug)]
pub struct JetStream {
    cluster: Arc<Cluster>,
    tail: Arc<Tail>,
    history: History,
    marks: Marks,
    max_message_bytes: usize,
    max_patterns: usize,
    max_consumers: usize,
    /// Held while a consumer begins, so that this server does not exceed their limit.
    creating: Mutex<()>,
    clock: Clock,
    pool: Pool,
    failed: watch::Sender<bool>,
    needed_room: watch::Sender<Option<NeededRoom>>,
    is_closed: AtomicBool,
}

/// Lets calls that need a mark at the same time share one.
#[derive(Debug, Default)]
struct Marks {
    asked: AtomicU64,
    /// Calls up to this one have a mark, and its sequence.
    done: Mutex<(u64, u64)>,
}

impl JetStream {
    /// Connects to a cluster, and opens its stream or creates it.
    pub async fn open(servers: &Servers, config: Config) -> Result<Self, ConnectError> {
        let cluster = Arc::new(Cluster::connect(&servers.address, &servers.credentials).await?);
        let head = cluster.mark().await.map_err(|error| ConnectError::Silent(error.to_string()))?;
        let newest = Self::newest_of_users(&cluster).await.map_err(ConnectError::Silent)?;
        let tail = Arc::new(Tail::new(head, newest));
        own::load(&cluster, &tail, head).await.map_err(|error| ConnectError::Silent(error.to_string()))?;
        let failed = watch::Sender::new(false);
        let (feeding, weak, of_feed) = (cluster.clone(), Arc::downgrade(&tail), failed.clone());
        supervised::spawn("tail", move |_| tail::feed(feeding.clone(), weak.clone(), of_feed.clone()));
        let payload = cluster.client.server_info().max_payload.saturating_sub(HEADER_ROOM);
        let Config { max_message_bytes, max_patterns, max_consumers, clock, pool, .. } = config;
        Ok(Self {
            cluster,
            tail,
            history: History::default(),
            marks: Marks::default(),
            max_message_bytes: max_message_bytes.min(payload),
            max_patterns,
            max_consumers,
            creating: Mutex::default(),
            clock,
            pool,
            failed,
            needed_room: watch::Sender::new(None),
            is_closed: AtomicBool::new(false),
        })
    }

    /// The limit of the patterns of a subscription.
    pub fn max_patterns(&self) -> usize {
        self.max_patterns
    }

    /// The limit of the size of a message: that of the operator, or of the cluster.
    pub fn max_message_bytes(&self) -> usize {
        self.max_message_bytes
    }

    /// What an acknowledgement guarantees.
    pub fn durability(&self) -> Durability {
        self.cluster.durability
    }

    /// The time, in nanoseconds since 1970.
    fn now(&self) -> u64 {
        nanos(self.clock.now())
    }

    /// What a position keeps of the history: that of a stream has one incarnation.
    pub fn lineage(&self) -> Lineage {
        Lineage::last_of(&[Incarnation::of_log(self.cluster.id)])
    }

    /// Checks that a position is one of this stream.
    pub fn check_lineage(&self, lineage: Option<Lineage>) -> Result<(), Diverged> {
        if lineage == Some(self.lineage()) { Ok(()) } else { Err(Diverged { last_common: None }) }
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(Error::Closed);
        }
        if *self.failed.borrow() { Err(Error::Failed) } else { Ok(()) }
    }

    /// Fails if the stream is another one than it was.
    fn check_identity(&self) -> Result<(), Error> {
        if *self.failed.borrow() { Err(Error::OtherLog) } else { Ok(()) }
    }

    async fn mark(&self) -> Result<u64, Error> {
        self.barrier().await
    }

    /// Where the stream ends: every message that was acknowledged before the call, by whatever server, has a lower sequence,
    /// and the tail has it. It is the sequence of a mark.
    async fn barrier(&self) -> Result<u64, Error> {
        let ticket = self.marks.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut done = self.marks.done.lock().await;
        if done.0 < ticket {
            let covered = self.marks.asked.load(Ordering::SeqCst);
            *done = (covered, self.cluster.mark().await?);
        }
        let mark = done.1;
        drop(done);
        let reached = tokio::time::timeout(PATIENCE, self.tail.reached(mark)).await;
        reached.map(|()| mark).map_err(|_| Error::Unreachable)
    }

    /// Becomes true when the stream is another one than it was.
    pub fn failed(&self) -> watch::Receiver<bool> {
        self.failed.subscribe()
    }

    pub fn needed_room(&self) -> watch::Receiver<Option<NeededRoom>> {
        self.needed_room.subscribe()
    }

    pub fn figures(&self) -> LogFigures {
        LogFigures {
            segments: 0,
            bytes: 0,
            topics: 0,
            consumers: 0,
            oldest: None,
            head: self.tail.edge().newest.map_or(0, Sequence::get),
            has_failed: *self.failed.borrow(),
        }
    }

    /// The bytes of memory that the log holds, by what holds them.
    pub fn memory(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("tail", self.tail.memory() as u64),
            ("own", self.tail.own.memory() as u64),
            ("history", self.history.memory() as u64),
            ("batches", self.tail.batches.memory() as u64),
        ]
    }

    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Accepts no more messages. Subscriptions go on.
    pub async fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        if let Err(error) = self.cluster.client.flush().await {
            tracing::debug!(%error, "the connection to the cluster was not flushed");
        }
    }
}

/// The verbs of the embedded log that a cluster does not have.
#[expect(clippy::unused_async, clippy::unused_self, reason = "they are those of the embedded log")]
impl JetStream {
    pub async fn purge_topic(&self, _: &str, _: Option<Sequence>) -> Result<u64, Error> {
        Err(Error::Unsupported(Unsupported::Purge))
    }

    pub async fn set_quotas(&self, quotas: Vec<TopicQuota>) -> Result<(), Error> {
        if quotas.is_empty() { Ok(()) } else { Err(Error::Unsupported(Unsupported::Quotas)) }
    }

    pub fn quotas(&self) -> Vec<QuotaUsage> {
        Vec::new()
    }

    pub fn sync_times(&self) -> Histogram {
        Histogram::new([1.0])
    }

    pub fn owed_erasures(&self) -> usize {
        0
    }

    pub fn clock_steps(&self) -> u64 {
        0
    }
}
