//! Finds how the messages of a segment that match are read: topic by topic, or by runs.

use std::{ops::ControlFlow, sync::Arc};

use crate::messages::{
    embedded::{format::footer::Held, index::cache::Plan},
    topic::Pattern,
};

/// Messages are read one by one instead of by runs if they are less than this fraction of a segment,
const NARROW: u64 = 8;

/// and if they are of at most this many topics, each of which is looked up for each batch.
const MAX_NARROW: usize = 64;

/// A search for the topics that match, which ends when they are too many to be read one by one.
pub struct Search<'a> {
    patterns: &'a [Pattern],
    topics: Vec<Arc<str>>,
    bytes: u64,
    /// Messages of more bytes are read by runs.
    most: u64,
}

impl<'a> Search<'a> {
    /// A search in a segment whose blocks have this many bytes.
    pub fn new(patterns: &'a [Pattern], bytes: u64) -> Self {
        Self { patterns, topics: Vec::new(), bytes: 0, most: bytes / NARROW }
    }

    pub fn has(&self, name: &str) -> bool {
        self.topics.iter().any(|topic| topic.as_ref() == name)
    }

    pub fn is_wide(&self) -> bool {
        self.topics.len() > MAX_NARROW || self.bytes > self.most
    }

    pub fn add(&mut self, name: &str, held: &Held) -> ControlFlow<()> {
        if self.patterns.iter().any(|pattern| pattern.matches(name)) {
            self.topics.push(name.into());
            self.bytes += held.bytes;
        }
        if self.is_wide() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    pub fn plan(self) -> Plan {
        if self.is_wide() { Plan::Runs } else { Plan::Topics(self.topics) }
    }
}
