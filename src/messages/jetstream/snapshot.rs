//! The last message of each topic, for subscriptions that start with them.
//!
//! The topics are listed, and the last sequence of each is found, in groups as large as JetStream answers. An answer is
//! complete when it has the mark at which the snapshot is taken. The messages are then read in their order.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use tokio::time::Instant;

use super::{
    JetStream,
    cluster::{PATIENCE, PAUSE},
    fetch::{self, Request},
    tail::Wanted,
};
use crate::messages::{
    Error,
    batch::ReadBatch,
    topic::{self, Pattern},
};

/// The topics that are asked for at once; JetStream answers for 1,024 subjects.
const GROUP: usize = 1_000;

/// The last messages of topics, as they were at a head.
#[derive(Debug)]
pub struct Snapshot {
    /// The head, which the position keeps.
    pub head: u64,
    /// Their sequences that are not delivered yet.
    left: BTreeSet<u64>,
}

impl Snapshot {
    /// Finds the last messages of the topics that match, at a head, which is the sequence of a mark or a later one. Only those
    /// after a sequence that was delivered, and up to the last one to deliver.
    pub async fn take(
        log: &JetStream,
        patterns: &Arc<[Pattern]>,
        delivered_up_to: u64,
        head: u64,
        last: Option<u64>,
    ) -> Result<Self, Error> {
        let (mut topics, mut left) = (BTreeSet::new(), BTreeSet::new());
        for pattern in patterns.iter() {
            if topic::is_reserved(pattern.as_str()) {
                // One that has a later message is delivered live.
                let own = log.tail.own.matching(pattern, log.now()).into_iter();
                left.extend(own.map(|(_, last)| last.sequence).filter(|sequence| *sequence <= head));
                continue;
            }
            topics.extend(log.topics(pattern).await?.into_keys());
        }
        let topics = topics.into_iter().collect::<Vec<_>>();
        for group in topics.chunks(GROUP) {
            left.extend(last_of(log, group, head).await?);
        }
        left.retain(|sequence| *sequence > delivered_up_to && last.is_none_or(|last| *sequence <= last));
        Ok(Self { head, left })
    }

    /// Whether all were read.
    pub fn is_read(&self) -> bool {
        self.left.is_empty()
    }

    /// Adds messages to a batch, until it is full.
    pub async fn read(
        &mut self,
        log: &JetStream,
        wanted: &Wanted,
        batch: &mut ReadBatch,
    ) -> Result<(), Error> {
        while batch.count < wanted.max_items && batch.bytes < wanted.max_bytes {
            let Some(sequence) = self.left.first().copied() else { return Ok(()) };
            let range = log.history.read(&log.cluster, sequence, sequence).await?;
            let found = range.messages.iter().filter(|message| message.sequence == sequence);
            batch.take_stored(found, wanted, sequence);
            self.left.pop_first();
        }
        Ok(())
    }
}

/// The last sequences of topics at a head. JetStream ends an answer where it is too large: the next one goes on there.
async fn last_of(log: &JetStream, topics: &[String], head: u64) -> Result<Vec<u64>, Error> {
    let subjects = &log.cluster.subjects;
    let mark = subjects.mark();
    let mut last_of = topics.iter().map(|topic| subjects.of(topic)).collect::<Vec<_>>();
    last_of.push(mark.clone());
    let mut request =
        Request { last_of, up_to: Some(head), batch: Some(GROUP as u64 + 1), ..Request::default() };
    let mut found = HashMap::new();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for raw in fetch::ask(&log.cluster, &request).await?.unwrap_or_default() {
            request.sequence = Some(raw.sequence + 1);
            found.insert(raw.subject, raw.sequence);
        }
        // The mark is the newest: a replica that has it has everything before it.
        if found.remove(&mark) == Some(head) {
            return Ok(found.into_values().collect());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(Error::Unreachable)
}
