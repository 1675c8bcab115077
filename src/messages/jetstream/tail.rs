//! The newest messages of the stream, which all subscriptions of this server share.
//!
//! One ordered consumer feeds the tail, however many subscriptions there are. They are woken by the notifier that the
//! embedded log uses, and those that have read equally far share a batch. The head is the sequence up to which the tail has
//! seen every message. A consumer may die in silence: a watchdog compares the head with the last sequence of the stream,
//! and starts another consumer where the tail ends.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_nats::jetstream::{self, consumer::DeliverPolicy, consumer::pull::OrderedConfig};
use futures::{Stream, StreamExt};
use tokio::sync::watch;

use super::{
    cluster::{Cluster, PAUSE, identity},
    leases::Leases,
    native::{self, Stored},
    own::Own,
};
use crate::messages::{
    Edge, Sequence,
    batch::{BatchCache, BatchKey, ReadBatch},
    notifier::Notifier,
    selection::Selection,
    topic::{self, Pattern},
};

/// The most bytes that the tail holds, and the most messages.
const MAX_BYTES: usize = 64 * 1024 * 1024;
const MAX_MESSAGES: usize = 200_000;

/// The most messages that arrive before subscriptions are woken.
const MAX_ARRIVALS: usize = 512;

/// How often the head is compared with the stream.
const WATCH: Duration = Duration::from_secs(5);

/// What a subscription wants of the messages after a sequence.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub patterns: Arc<[Pattern]>,
    pub max_items: usize,
    pub max_bytes: usize,
    /// The last sequence.
    pub last: u64,
    pub selection: Selection,
    /// The time now, in nanoseconds since 1970: expired messages are left out.
    pub now: u64,
}

/// The newest messages.
#[derive(Debug)]
pub struct Tail {
    state: RwLock<State>,
    head: watch::Sender<u64>,
    pub notifier: Arc<Notifier>,
    pub batches: BatchCache,
    pub own: Own,
    pub leases: Leases,
    /// Messages of other clients of NATS whose subject is no topic.
    skipped: AtomicU64,
}

#[derive(Debug)]
struct State {
    messages: VecDeque<Stored>,
    bytes: usize,
    /// The tail has every message from this sequence on.
    first: u64,
    /// The newest sequence of users' topics.
    newest: Option<Sequence>,
}

/// A message as it arrives; `None` if it is not of a topic.
#[derive(Debug)]
struct Arrival {
    sequence: u64,
    stored: Option<Stored>,
}

impl Tail {
    /// A tail after a sequence; `newest` is the newest one of users' topics there.
    pub fn new(head: u64, newest: Option<Sequence>) -> Self {
        Self {
            state: RwLock::new(State { messages: VecDeque::new(), bytes: 0, first: head + 1, newest }),
            head: watch::Sender::new(head),
            notifier: Arc::new(Notifier::new(head)),
            batches: BatchCache::default(),
            own: Own::default(),
            leases: Leases::default(),
            skipped: AtomicU64::new(0),
        }
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        // A panic leaves at most fewer messages than there could be, which are then read from the stream.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sequence up to which the tail has seen every message.
    pub fn head(&self) -> u64 {
        *self.head.borrow()
    }

    pub fn edge(&self) -> Edge {
        let state = self.state();
        Edge { head: self.head(), newest: state.newest }
    }

    /// The lowest sequence from which the tail has every message.
    pub fn first(&self) -> u64 {
        self.state().first
    }

    pub fn memory(&self) -> usize {
        self.state().bytes
    }

    /// Counts a message of another client of NATS whose subject is no topic, and reports the first one.
    fn skip(&self, subject: &str) {
        if self.skipped.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(subject, "messages are skipped whose subject is no topic: this is the first one");
        }
    }

    /// Waits until the tail has seen a sequence.
    pub async fn reached(&self, sequence: u64) {
        // The sender lives as long as `self`.
        let _ = self.head.subscribe().wait_for(|head| *head >= sequence).await;
    }

    /// A message, if the tail has it.
    pub fn find(&self, sequence: u64) -> Option<Stored> {
        let state = self.state();
        let place = state.messages.binary_search_by_key(&sequence, |message| message.sequence);
        place.ok().and_then(|place| state.messages.get(place)).cloned()
    }

    /// Records a message of a topic of the server's own.
    pub fn record_own(&self, stored: &Stored) {
        self.own.record(stored);
        self.leases.record(stored);
    }

    /// Reads messages after a sequence. `None`: the tail does not have all of them any more.
    pub fn read(&self, after: u64, wanted: &Wanted) -> Option<ReadBatch> {
        let is_shared = wanted.selection.has_all_after(after);
        let limits = (wanted.max_items, wanted.max_bytes, wanted.last);
        let key = BatchKey { after, removal_epoch: 0, limits, patterns: wanted.patterns.clone() };
        if is_shared && let Some(batch) = self.batches.find(&key) {
            return Some(batch);
        }
        let state = self.state();
        if after + 1 < state.first {
            return None;
        }
        let start = state.messages.partition_point(|message| message.sequence <= after);
        let mut batch = ReadBatch::empty(after);
        batch.take_stored(state.messages.iter().skip(start), wanted, wanted.last);
        drop(state);
        if is_shared && batch.count > 0 {
            self.batches.keep(key, &mut batch);
        }
        Some(batch)
    }

    /// Adds messages, and wakes the subscriptions that want them.
    async fn add(&self, arrivals: Vec<Arrival>) {
        let Some(head) = arrivals.last().map(|last| last.sequence) else { return };
        let topics = self.insert(arrivals, head);
        self.notifier.notify(head, Some(topics)).await;
    }

    /// Adds messages, and moves the head. Returns their topics.
    fn insert(&self, arrivals: Vec<Arrival>, head: u64) -> HashSet<Arc<str>> {
        let mut topics = HashSet::new();
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for stored in arrivals.into_iter().filter_map(|arrival| arrival.stored) {
            topics.insert(stored.topic.clone());
            if topic::is_reserved(&stored.topic) {
                self.record_own(&stored);
            } else {
                state.newest = Sequence::new(stored.sequence);
            }
            state.bytes += stored.bytes.len();
            state.messages.push_back(stored);
        }
        while (state.bytes > MAX_BYTES || state.messages.len() > MAX_MESSAGES)
            && let Some(oldest) = state.messages.pop_front()
        {
            state.bytes -= oldest.bytes.len();
            state.first = oldest.sequence + 1;
        }
        // Both move while the lock is held, so that an edge is of one moment.
        self.head.send_replace(head);
        topics
    }
}

impl ReadBatch {
    /// Adds the messages that are wanted, until the batch is full. The messages are all that the stream has up to
    /// `known_up_to`.
    pub fn take_stored<'a>(
        &mut self,
        messages: impl Iterator<Item = &'a Stored>,
        wanted: &Wanted,
        known_up_to: u64,
    ) {
        let last = wanted.last.min(known_up_to);
        for message in messages.take_while(|message| message.sequence <= last) {
            if self.count >= wanted.max_items || self.bytes >= wanted.max_bytes {
                return;
            }
            self.delivered_up_to = message.sequence;
            let has_expired = message.expires != 0 && message.expires <= wanted.now;
            let is_wanted = wanted.patterns.iter().any(|pattern| pattern.matches(&message.topic));
            if has_expired || !is_wanted || !wanted.selection.has(message.sequence, message.time) {
                continue;
            }
            self.expires |= message.expires != 0;
            self.count += 1;
            self.bytes += message.bytes.len();
            self.items.push(message.bytes.clone());
        }
        self.delivered_up_to = self.delivered_up_to.max(last);
    }
}

/// Feeds the tail for as long as it exists, or until the stream is another one: then this marks the log as failed.
pub async fn feed(cluster: Arc<Cluster>, tail: Weak<Tail>, failed: watch::Sender<bool>) {
    loop {
        match follow(&cluster, &tail).await {
            Ok(End::Dropped) => return,
            Ok(End::OtherStream) => {
                tracing::error!(
                    stream = cluster.name,
                    "the stream was deleted, or has gone back to an older state: restart the server to use the new one"
                );
                failed.send_replace(true);
                return;
            }
            Ok(End::Stalled) => {
                tracing::warn!("the consumer of the stream has stalled, and is created again");
            }
            Err(fault) => tracing::warn!(fault, "the stream is followed again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Why a consumer is left.
enum End {
    /// The log is gone.
    Dropped,
    /// The stream has another identity, or fewer messages than it had.
    OtherStream,
    /// The consumer gets no more messages.
    Stalled,
}

/// Follows the stream by one consumer.
async fn follow(cluster: &Cluster, tail: &Weak<Tail>) -> Result<End, String> {
    let Some(head) = tail.upgrade().map(|tail| tail.head()) else { return Ok(End::Dropped) };
    if let Some(end) = other_stream(cluster, head).await? {
        return Ok(end);
    }
    let mut arrivals = consume(cluster, head + 1).await?.ready_chunks(MAX_ARRIVALS);
    let mut watch = tokio::time::interval_at(tokio::time::Instant::now() + WATCH, WATCH);
    let mut head_before = head;
    loop {
        let next = tokio::select! {
            next = arrivals.next() => Some(next.ok_or("the consumer has ended")?),
            _ = watch.tick() => None,
        };
        let Some(tail) = tail.upgrade() else { return Ok(End::Dropped) };
        if let Some(messages) = next {
            let messages = messages.into_iter().map(|message| arrival(cluster, &tail, &message?));
            tail.add(messages.collect::<Result<_, String>>()?).await;
        } else {
            let head = tail.head();
            drop(tail);
            if head == head_before
                && let Ok(info) = cluster.info().await
            {
                if identity(&info) != cluster.id {
                    return Ok(End::OtherStream);
                }
                if info.state.last_sequence > head {
                    return Ok(End::Stalled);
                }
            }
            head_before = head;
        }
    }
}

/// Whether the stream is another one than it was, or ends before the head.
async fn other_stream(cluster: &Cluster, head: u64) -> Result<Option<End>, String> {
    let is_other = identity(&cluster.info().await?) != cluster.id;
    // The leader may not know yet of messages that this server has seen: only a mark shows where the stream ends.
    let has_gone_back = !is_other && cluster.mark().await.map_err(|error| error.to_string())? <= head;
    Ok((is_other || has_gone_back).then_some(End::OtherStream))
}

/// Messages of the stream from a sequence on.
async fn consume(
    cluster: &Cluster,
    first: u64,
) -> Result<impl Stream<Item = Result<jetstream::Message, String>>, String> {
    let stream =
        cluster.context.get_stream_no_info(&cluster.name).await.map_err(|error| error.to_string())?;
    let config = OrderedConfig {
        description: Some("the tail of a perenniald".into()),
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: first },
        ..OrderedConfig::default()
    };
    let consumer = stream.create_consumer(config).await.map_err(|error| error.to_string())?;
    let messages = consumer.messages().await.map_err(|error| error.to_string())?;
    Ok(messages.map(|message| message.map_err(|error| error.to_string())))
}

fn arrival(cluster: &Cluster, tail: &Tail, message: &jetstream::Message) -> Result<Arrival, String> {
    let info = message.info().map_err(|error| error.to_string())?;
    let (sequence, time) = (info.stream_sequence, SystemTime::from(info.published));
    let topic = cluster.subjects.topic_of_any(&message.subject);
    let stored =
        topic.map(|topic| native::read(sequence, &topic, time, message.headers.as_ref(), &message.payload));
    if stored.is_none() && !cluster.subjects.is_own(&message.subject) {
        tail.skip(&message.subject);
    }
    Ok(Arrival { sequence, stored })
}
