//! The ids of messages published within the dedupe window, which make a publish safe to repeat.
//!
//! Ids are kept in slices of time, so that a whole slice is dropped when it leaves the window. Whether a message is within
//! the window follows from its age, so the ids neither outlive a wrong clock nor are forgotten early because of it. An id is represented by 128
//! bits of a keyed hash of topic and id: about 50 bytes of memory, however long the id is. Two of ten million ids collide
//! with a probability of 1 in 10^24.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use crate::messages::embedded::{
    age::Moment,
    format::{block::Block, footer::At},
};

/// The number of slices in the window: ids are forgotten late by at most one slice.
const SLICES: u64 = 8;

/// Ids by topic, bounded by age, by number a topic, and by number in all.
#[derive(Debug)]
pub struct Dedupe {
    window: u64,
    max_ids: u64,
    max_all: usize,
    keys: [RandomState; 2],
    /// Oldest first.
    slices: VecDeque<Slice>,
    topics: HashMap<Arc<str>, Count>,
    all: usize,
}

#[derive(Debug)]
struct Slice {
    first: At,
    last: At,
    ids: HashMap<Key, Seen>,
}

/// The hash of a topic and an id.
pub type Key = u128;

#[derive(Clone, Copy, Debug)]
struct Seen {
    at: At,
    /// The number of ids of the topic before this one.
    ordinal: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    ids: u64,
    last_sequence: u64,
}

impl Dedupe {
    /// Remembers ids for `window`, at most `max_ids` a topic and `max_all` together.
    pub fn new(window: Duration, max_ids: usize, max_all: usize) -> Self {
        Self {
            window: u64::try_from(window.as_nanos()).unwrap_or(u64::MAX),
            max_ids: max_ids as u64,
            max_all,
            keys: [RandomState::new(), RandomState::new()],
            slices: VecDeque::new(),
            topics: HashMap::new(),
            all: 0,
        }
    }

    /// The number of ids.
    pub fn count(&self) -> usize {
        self.all
    }

    /// The key of a topic and an id.
    pub fn key(&self, topic: &str, id: &str) -> Key {
        let [high, low] = self.keys.each_ref().map(|key| u128::from(key.hash_one((topic, id))));
        high << 64 | low
    }

    fn is_over(&self, at: At, moment: &Moment) -> bool {
        moment.age(at.sequence, at.time) > self.window
    }

    /// The sequence and the time of the message with this id, if it was published within the window at a moment.
    pub fn find(&self, key: Key, topic: &str, moment: &Moment) -> Option<(u64, u64)> {
        let seen = self.slices.iter().rev().find_map(|slice| slice.ids.get(&key))?;
        let ids = self.topics.get(topic)?.ids;
        let is_within = !self.is_over(seen.at, moment) && ids - seen.ordinal <= self.max_ids;
        is_within.then_some((seen.at.sequence, seen.at.time))
    }

    /// Remembers the ids of a block.
    pub fn add(&mut self, block: &Block, moment: &Moment) {
        for (place, id) in &block.ids {
            let entry = block.entries.get(*place as usize);
            let Some((entry, topic)) = entry.and_then(|entry| Some((entry, block.topic(entry)?))) else {
                continue;
            };
            let key = self.key(topic, id);
            let count = self.topics.entry(topic.clone()).or_default();
            let at = At { sequence: entry.sequence, time: block.time };
            let seen = Seen { at, ordinal: count.ids };
            *count = Count { ids: count.ids + 1, last_sequence: at.sequence };
            let length = (self.window / SLICES).max(1);
            let age = |at: At| moment.age(at.sequence, at.time);
            let is_full =
                self.slices.back().is_none_or(|slice| age(slice.first).saturating_sub(age(at)) >= length);
            if is_full || self.all >= self.max_all {
                self.turn(at, moment);
            }
            if let Some(slice) = self.slices.back_mut() {
                slice.last = at;
                self.all += usize::from(slice.ids.insert(key, seen).is_none());
            }
        }
    }

    /// Begins a slice, and drops those that are out of the window or over the limit.
    fn turn(&mut self, first: At, moment: &Moment) {
        self.drop_old(moment);
        let oldest = self.slices.front().map_or(first.sequence, |slice| slice.first.sequence);
        self.topics.retain(|_, count| count.last_sequence >= oldest);
        self.slices.push_back(Slice { first, last: first, ids: HashMap::new() });
    }

    fn drop_old(&mut self, moment: &Moment) {
        while self.slices.front().is_some_and(|slice| self.is_over(slice.last, moment))
            || self.all >= self.max_all
        {
            let Some(slice) = self.slices.pop_front() else { break };
            self.all -= slice.ids.len();
        }
    }

    /// Drops the slices if all are out of the window although no id is added.
    pub fn sweep(&mut self, moment: &Moment) {
        if self.slices.back().is_some_and(|slice| self.is_over(slice.last, moment)) {
            self.drop_old(moment);
            self.topics.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::embedded::format::block::Entry;

    const SECOND: u64 = 1_000_000_000;

    fn add(dedupe: &mut Dedupe, topic: &str, id: &str, sequence: u64, time: u64) {
        let entry = Entry { sequence, topic: 0, start: 0, end: 0, checksum: 0, expires: 0 };
        let (topics, ids) = (vec![topic.into()], vec![(0, id.into())]);
        dedupe.add(&Block { time, topics, entries: vec![entry], ids, ..Block::default() }, &at(time));
    }

    fn find(dedupe: &Dedupe, topic: &str, id: &str, now: u64) -> Option<u64> {
        dedupe.find(dedupe.key(topic, id), topic, &at(now)).map(|(sequence, _)| sequence)
    }

    fn at(now: u64) -> Moment {
        Moment::new(now, Arc::default())
    }

    #[test]
    fn an_id_is_known_in_its_topic_for_the_window_and_not_longer() {
        let mut dedupe = Dedupe::new(Duration::from_secs(8), 100, 1000);
        for second in 0..100 {
            add(&mut dedupe, "a", &second.to_string(), second, second * SECOND);
            for age in 0..=second {
                let found = find(&dedupe, "a", &(second - age).to_string(), second * SECOND);
                assert_eq!(found, (age <= 8).then_some(second - age), "{age} s old");
            }
            assert_eq!(find(&dedupe, "b", &second.to_string(), second * SECOND), None);
        }
        assert!(dedupe.all <= 10);
        dedupe.sweep(&at(200 * SECOND));
        assert_eq!((dedupe.all, dedupe.topics.len()), (0, 0));
        add(&mut dedupe, "b", "x", 200, 200 * SECOND);
        assert_eq!((dedupe.all, dedupe.topics.len()), (1, 1));
    }

    #[test]
    fn the_ids_of_a_topic_and_of_all_topics_are_limited() {
        let mut dedupe = Dedupe::new(Duration::from_secs(100), 3, 1000);
        (0..10).for_each(|n| add(&mut dedupe, "a", &n.to_string(), n, n));
        add(&mut dedupe, "b", "0", 10, 10);
        let known = (0..10).filter(|n| find(&dedupe, "a", &n.to_string(), 10).is_some());
        assert_eq!(known.collect::<Vec<_>>(), [7, 8, 9]);
        assert_eq!(find(&dedupe, "b", "0", 10), Some(10));

        let mut dedupe = Dedupe::new(Duration::from_secs(100), 1000, 20);
        for n in 0..1000_u64 {
            add(&mut dedupe, &(n % 7).to_string(), &n.to_string(), n, n * SECOND / 10);
            assert!(dedupe.all <= 20);
            assert_eq!(find(&dedupe, &(n % 7).to_string(), &n.to_string(), n * SECOND / 10), Some(n));
        }
    }
}
