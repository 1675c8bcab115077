//! The ids of messages published lately: what makes a publish safe to repeat.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::block::Block;

/// Ids by topic, bounded by age and by number.
#[derive(Debug)]
pub struct Dedupe {
    window: u64,
    max_ids: usize,
    topics: HashMap<Arc<str>, Ids>,
}

#[derive(Debug, Default)]
struct Ids {
    /// Sequence and time of the message that was published under an id.
    by_id: HashMap<Arc<str>, (u64, u64)>,
    /// Oldest first.
    order: VecDeque<(u64, Arc<str>)>,
}

impl Dedupe {
    /// Remembers ids for `window`, at most `max_ids` a topic.
    pub fn new(window: Duration, max_ids: usize) -> Self {
        let window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        Self { window, max_ids, topics: HashMap::new() }
    }

    /// Sequence and time of the message with this id, if it was published within the window before `now`.
    pub fn find(&self, topic: &str, id: &str, now: u64) -> Option<(u64, u64)> {
        let found = self.topics.get(topic)?.by_id.get(id).copied()?;
        (found.1.saturating_add(self.window) >= now).then_some(found)
    }

    /// Remembers the ids of a block.
    pub fn add(&mut self, block: &Block) {
        for (sequence, entry) in (block.first_sequence..).zip(&block.entries) {
            let (Some(id), Some(topic)) = (&entry.message_id, block.topics.get(entry.topic)) else {
                continue;
            };
            let id = Arc::<str>::from(id.as_ref());
            let ids = self.topics.entry(topic.clone()).or_default();
            ids.by_id.insert(id.clone(), (sequence, block.time));
            ids.order.push_back((block.time, id));
            ids.trim(block.time.saturating_sub(self.window), self.max_ids);
        }
    }

    /// Forgets what is out of the window, in every topic.
    pub fn sweep(&mut self, now: u64) {
        let oldest = now.saturating_sub(self.window);
        self.topics.retain(|_, ids| {
            ids.trim(oldest, self.max_ids);
            !ids.order.is_empty()
        });
    }
}

impl Ids {
    fn trim(&mut self, oldest: u64, max: usize) {
        while self.order.front().is_some_and(|(time, _)| *time < oldest) || self.order.len() > max {
            let Some((time, id)) = self.order.pop_front() else { return };
            // An id that was published anew after the window stays.
            if self.by_id.get(&id).is_some_and(|(_, found)| *found == time) {
                self.by_id.remove(&id);
            }
        }
    }
}
