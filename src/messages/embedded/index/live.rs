//! How much of a segment is left, as it was measured last: measuring it takes a look at all its topics.

use std::sync::{Mutex, PoisonError};

/// How much of a segment is neither removed nor expired.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    /// The size of these messages, in bytes.
    pub left: u64,
    /// The size of all messages, in bytes.
    pub all: u64,
    /// The log's removal epoch before it was measured.
    pub epoch: u64,
    /// When more messages expire, by the clock that cannot be set.
    pub next_expiry: u64,
    /// All messages were purged, so their ids are of no interest any more.
    pub is_purged: bool,
}

/// What was measured last; unknown at first.
#[derive(Debug, Default)]
pub struct Measured(Mutex<Option<Live>>);

impl Measured {
    /// What was measured last.
    pub fn get(&self) -> Option<Live> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what was measured.
    pub fn set(&self, live: Live) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(live);
    }
}
