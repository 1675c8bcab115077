//! What is known of each topic in memory: how much it holds, and what was removed from it.
//!
//! A message is removed when its sequence is below its topic's `floor`: retention, a purge, and a later message where
//! only the last is kept, all cut a topic from its head. What a reader has to be told of is `lost`, the highest
//! sequence that it could have read; being superseded or expired is not.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::Bound,
    sync::Arc,
};

use super::{
    block::Block,
    footer::{Held, Posting},
    trim::Trimmed,
};
use crate::messages::{
    retention::Rule,
    topic::{self, Pattern},
};

/// How many topics without messages are remembered for the sake of readers that come back.
const MAX_GONE: usize = 100_000;

/// What was removed from a topic. It outlives the topic's messages, and is kept on disk.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Removed {
    /// All below this sequence is removed.
    pub floor: u64,
    /// The highest sequence that retention or a purge removed.
    pub lost: u64,
    /// Ids of messages up to this sequence can be published anew.
    pub purged: u64,
}

/// What is known of a topic that holds messages.
#[derive(Clone, Debug, Default)]
pub struct Topic {
    /// Its messages: none of them is removed.
    pub held: Held,
    /// What is not there any more.
    pub removed: Removed,
    /// Only its last message is kept.
    pub is_last_only: bool,
}

/// All topics.
#[derive(Debug, Default)]
pub struct Topics {
    rules: Vec<Rule>,
    alive: BTreeMap<Arc<str>, Topic>,
    gone: BTreeMap<Arc<str>, Removed>,
    /// No topic of users has a higher floor.
    max_floor: u64,
    /// No topic has lost a higher sequence.
    max_lost: u64,
    /// What topics that are not remembered any more have lost.
    forgotten: u64,
    /// Changes with every loss.
    losses: u64,
    /// The highest sequence of a topic of users.
    newest: u64,
}

impl Topics {
    /// Without any topics.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules, ..Self::default() }
    }

    /// The rules of retention.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The place of the rule that holds for a topic.
    pub fn rule_of(&self, name: &str) -> Option<usize> {
        if topic::is_reserved(name) {
            return None;
        }
        self.rules.iter().position(|rule| rule.pattern.matches(name))
    }

    /// Takes what a segment holds of a topic.
    pub fn add_held(&mut self, name: &str, held: &Held) {
        let topic = match self.alive.get_mut(name) {
            Some(topic) => topic,
            None => self.make(name.into()),
        };
        let old = topic.held;
        topic.held = Held {
            messages: old.messages + held.messages,
            bytes: old.bytes + held.bytes,
            expiring_bytes: old.expiring_bytes + held.expiring_bytes,
            all_expired: old.all_expired.max(held.all_expired),
            ..*held
        };
        if old.messages > 0 {
            (topic.held.first, topic.held.first_expires) = (old.first, old.first_expires);
        }
        topic.supersede();
        if !topic::is_reserved(name) {
            let floor = if topic.is_last_only { topic.removed.floor } else { 0 };
            self.max_floor = self.max_floor.max(floor);
            self.newest = self.newest.max(held.last.0);
        }
    }

    /// Takes note of a block that is on disk.
    pub fn add(&mut self, block: &Block) {
        let mut held = vec![Held::default(); block.topics.len()];
        for entry in &block.entries {
            if let Some(held) = held.get_mut(entry.topic as usize) {
                held.add(&Posting::from(entry), block.time);
            }
        }
        for (name, held) in block.topics.iter().zip(&held) {
            if held.messages > 0 {
                self.add_held(name, held);
            }
        }
    }

    fn make(&mut self, name: Arc<str>) -> &mut Topic {
        let removed = self.gone.remove(&name).unwrap_or_default();
        let rule = self.rule_of(&name).and_then(|place| self.rules.get(place));
        let is_last_only = topic::is_reserved(&name) || rule.is_some_and(|rule| rule.is_last_only);
        self.alive.entry(name).or_insert(Topic { held: Held::default(), removed, is_last_only })
    }

    /// What is known of a topic that holds messages.
    pub fn get(&self, name: &str) -> Option<&Topic> {
        self.alive.get(name)
    }

    /// The same, with the name as it is shared.
    pub fn key_value(&self, name: &str) -> Option<(&Arc<str>, &Topic)> {
        self.alive.get_key_value(name)
    }

    /// The highest sequence that a topic of users has had.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// How many topics hold messages.
    pub fn count(&self) -> usize {
        self.alive.len()
    }

    /// How many topics without messages are remembered.
    pub fn gone_count(&self) -> usize {
        self.gone.len()
    }

    /// The topics behind a name, by name.
    pub fn after(&self, after: Option<&str>) -> impl Iterator<Item = (&Arc<str>, &Topic)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.alive.range::<str, _>((start, Bound::Unbounded))
    }

    /// The topics that match.
    pub fn matching<'a>(
        &'a self,
        patterns: &'a [Pattern],
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Topic)> {
        let literal = patterns.iter().all(|pattern| pattern.literal().is_some());
        let named = literal.then(|| {
            let find = |pattern: &Pattern| self.alive.get_key_value(pattern.literal()?);
            // A topic that is named twice is one topic.
            let unique = patterns.iter().filter_map(find).map(|(name, topic)| (name.as_ref(), (name, topic)));
            unique.collect::<BTreeMap<_, _>>().into_values()
        });
        let searched = (!literal).then(|| {
            self.alive.iter().filter(|(name, _)| patterns.iter().any(|pattern| pattern.matches(name)))
        });
        named.into_iter().flatten().chain(searched.into_iter().flatten())
    }

    /// All of a topic below this sequence is removed.
    pub fn floor(&self, name: &str) -> u64 {
        self.removed(name).floor
    }

    /// No message of a user's topic with this sequence or a higher one is removed.
    pub fn max_floor(&self) -> u64 {
        self.max_floor
    }

    /// Ids of messages of a topic up to this sequence can be published anew.
    pub fn purged(&self, name: &str) -> u64 {
        self.removed(name).purged
    }

    /// What was removed from a topic.
    pub fn removed(&self, name: &str) -> Removed {
        self.alive
            .get(name)
            .map(|topic| topic.removed)
            .or_else(|| self.gone.get(name).copied())
            .unwrap_or_default()
    }

    /// Changes whenever something is lost.
    pub fn losses(&self) -> u64 {
        self.losses
    }

    /// The highest sequence behind `after` that was lost of the topics that match; 0 for none.
    pub fn lost(&self, patterns: &[Pattern], after: u64) -> u64 {
        if self.max_lost <= after {
            return 0;
        }
        let literal = patterns.iter().all(|pattern| pattern.literal().is_some());
        let lost = if literal {
            let names = patterns.iter().filter_map(Pattern::literal);
            names.map(|name| self.removed(name).lost).max().unwrap_or(0)
        } else {
            let alive = self.alive.iter().map(|(name, topic)| (name, topic.removed.lost));
            let gone = self.gone.iter().map(|(name, removed)| (name, removed.lost));
            let lost = alive
                .chain(gone)
                .filter(|(name, lost)| *lost > after && patterns.iter().any(|pattern| pattern.matches(name)));
            // One that is forgotten may have matched.
            lost.map(|(_, lost)| lost).max().unwrap_or(0).max(self.forgotten)
        };
        if lost > after { lost } else { 0 }
    }

    /// Removes the head of a topic, as it was found for `known`. False if the topic has changed since, so that what is
    /// left of it is not known.
    pub fn cut(&mut self, name: &str, known: &Topic, trimmed: &Trimmed) -> bool {
        let Entry::Occupied(mut entry) = self.alive.entry(name.into()) else { return false };
        let topic = entry.get_mut();
        let is_as_it_was = topic.held.last == known.held.last && topic.removed == known.removed;
        let is_longer = trimmed.first.is_some() && topic.removed == known.removed && !topic.is_last_only;
        if !is_as_it_was && !is_longer {
            return false;
        }
        let removed = trimmed.removed;
        self.losses += u64::from(removed.lost != topic.removed.lost);
        self.max_lost = self.max_lost.max(removed.lost);
        if !topic::is_reserved(name) {
            self.max_floor = self.max_floor.max(removed.floor);
        }
        topic.removed = removed;
        topic.held.messages = topic.held.messages.saturating_sub(trimmed.messages);
        topic.held.bytes = topic.held.bytes.saturating_sub(trimmed.bytes);
        topic.held.expiring_bytes = topic.held.expiring_bytes.saturating_sub(trimmed.expiring_bytes);
        if let Some((first, expires)) = trimmed.first {
            (topic.held.first, topic.held.first_expires) = (first, expires);
        } else {
            let (name, _) = entry.remove_entry();
            self.gone.insert(name, removed);
        }
        true
    }

    /// Lets the ids of a topic's messages up to a sequence be published anew. False if they can be already.
    pub fn purge_ids(&mut self, name: &str, through: u64) -> bool {
        let Some(topic) = self.alive.get_mut(name) else { return false };
        let is_news = topic.removed.purged < through;
        topic.removed.purged = topic.removed.purged.max(through);
        is_news
    }

    /// Counts what has expired behind the head of topics no more: it leaves the disk.
    pub fn forget_expired(&mut self, expired: &BTreeMap<Arc<str>, Held>) {
        for (name, expired) in expired {
            // Where only the last message is kept, what there was of others counts no more already.
            let Some(topic) = self.alive.get_mut(name).filter(|topic| !topic.is_last_only) else { continue };
            topic.held.messages = topic.held.messages.saturating_sub(expired.messages);
            topic.held.bytes = topic.held.bytes.saturating_sub(expired.bytes);
            topic.held.expiring_bytes = topic.held.expiring_bytes.saturating_sub(expired.expiring_bytes);
        }
    }

    /// Takes what was kept on disk of a topic, before its messages are added.
    pub fn remember(&mut self, name: &str, removed: Removed) {
        self.losses += 1;
        self.max_lost = self.max_lost.max(removed.lost);
        if !topic::is_reserved(name) {
            self.max_floor = self.max_floor.max(removed.floor);
        }
        self.gone.insert(name.into(), removed);
    }

    /// What topics that are not remembered by name have lost.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Takes that from disk.
    pub fn set_forgotten(&mut self, forgotten: u64) {
        self.forgotten = self.forgotten.max(forgotten);
        self.max_lost = self.max_lost.max(forgotten);
    }

    /// Forgets topics of which nothing is on disk, the oldest first, if there are too many: `oldest` is the first
    /// sequence that any segment may hold.
    pub fn forget(&mut self, oldest: u64) {
        if self.gone.len() <= MAX_GONE {
            return;
        }
        let mut floors = self.gone.values().map(|removed| removed.floor).collect::<Vec<_>>();
        let excess = floors.len() - MAX_GONE;
        let (_, limit, _) = floors.select_nth_unstable(excess - 1);
        let limit = oldest.min(*limit);
        let mut lost = 0;
        self.gone.retain(|_, removed| {
            let is_kept = removed.floor > limit;
            lost = if is_kept { lost } else { removed.lost.max(lost) };
            is_kept
        });
        self.set_forgotten(lost);
    }

    /// All that was removed and has to be known after a restart, by name.
    pub fn all_removed(&self) -> impl Iterator<Item = (&Arc<str>, Removed)> {
        let is_told = |topic: &Topic| topic.removed != Removed::default() && !topic.is_superseded_only();
        let alive = self.alive.iter().filter(move |(_, topic)| is_told(topic));
        let alive = alive.map(|(name, topic)| (name, topic.removed));
        alive.chain(self.gone.iter().map(|(name, removed)| (name, *removed)))
    }
}

impl Topic {
    /// Nothing was removed but what the last message superseded: that is known anew after a restart.
    fn is_superseded_only(&self) -> bool {
        self.is_last_only && self.removed.lost == 0 && self.removed.purged == 0
    }

    /// Where only the last is kept, all others are removed.
    fn supersede(&mut self) {
        if self.is_last_only {
            let Held { last, last_expires, last_bytes, .. } = self.held;
            let bytes = u64::from(last_bytes);
            self.removed.floor = self.removed.floor.max(last.0);
            self.held = Held {
                messages: 1,
                bytes,
                first: last,
                first_expires: last_expires,
                expiring_bytes: if last_expires == 0 { 0 } else { bytes },
                all_expired: last_expires,
                ..self.held
            };
        }
    }
}
