//! Batches of messages that were read, and the cache that lets many subscriptions share one. Every kind of log uses it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::{Event, topic::Pattern};

/// The number of batches in the cache: one for each group of followers that have read equally far.
const MAX_BATCHES: usize = 16;

/// A batch of more slices is joined before it is shared.
const MAX_SLICES: usize = 4;

/// Messages that were read, and how far the reading has come.
#[derive(Clone, Debug, Default)]
pub struct ReadBatch {
    /// Slices of encoded messages.
    pub items: Vec<Bytes>,
    /// The number of messages.
    pub count: usize,
    /// Every message up to this sequence is in the batch, did not match, or is reported in `event`.
    pub delivered_up_to: u64,
    /// What happened; then there are no items.
    pub event: Option<Event>,
    /// The size of the messages.
    pub bytes: usize,
    /// Some of the messages read expire: the batch will not be the same later.
    pub expires: bool,
}

/// The batches that were read lately. Many followers of the same topics have read equally far, and share a batch.
#[derive(Debug, Default)]
pub struct BatchCache(Mutex<VecDeque<(BatchKey, ReadBatch)>>);

/// What two readings must have in common to share a batch.
#[derive(Clone, Debug)]
pub struct BatchKey {
    /// The sequence before the batch.
    pub after: u64,
    /// The log's removal epoch.
    pub removal_epoch: u64,
    /// The most messages, the size, and the last sequence.
    pub limits: (usize, usize, u64),
    /// The topics.
    pub patterns: Arc<[Pattern]>,
}

impl PartialEq for BatchKey {
    fn eq(&self, other: &Self) -> bool {
        (self.after, self.removal_epoch, self.limits) == (other.after, other.removal_epoch, other.limits)
            && (Arc::ptr_eq(&self.patterns, &other.patterns) || self.patterns == other.patterns)
    }
}

impl ReadBatch {
    /// No messages up to a sequence.
    pub fn empty(delivered_up_to: u64) -> Self {
        Self { delivered_up_to, ..Self::default() }
    }
}

impl BatchCache {
    fn entries(&self) -> MutexGuard<'_, VecDeque<(BatchKey, ReadBatch)>> {
        // Each change is one call, so a panic elsewhere leaves the cache whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of the batches.
    pub fn memory(&self) -> usize {
        self.entries().iter().map(|(_, batch)| batch.bytes).sum()
    }

    /// The batch of a key.
    pub fn find(&self, key: &BatchKey) -> Option<ReadBatch> {
        self.entries().iter().rev().find(|(of, _)| of == key).map(|(_, batch)| batch.clone())
    }

    /// Keeps a batch, unless it changes with time.
    pub fn keep(&self, key: BatchKey, batch: &mut ReadBatch) {
        if batch.expires {
            return;
        }
        if batch.items.len() > MAX_SLICES {
            // Join it once here, instead of in each connection.
            batch.items = vec![Bytes::from(batch.items.concat())];
        }
        let mut entries = self.entries();
        entries.push_back((key, batch.clone()));
        if entries.len() > MAX_BATCHES {
            entries.pop_front();
        }
    }
}
