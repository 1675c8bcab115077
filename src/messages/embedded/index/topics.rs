//! What is known of each topic in memory: how much it holds, and what was removed from it.
//!
//! Retention, a purge, and a later message where only the last one is kept all remove the oldest messages of a topic: a
//! message is removed when its sequence is below the `first_kept` of its topic. A gap is reported for `lost_up_to`, the
//! highest removed sequence that a reader could have read; superseded and expired messages do not count.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::Bound,
    sync::Arc,
};

use crate::messages::{
    embedded::format::{
        block::Block,
        footer::{At, Held, Posting},
        trim_points::{TrimPoint, TrimPoints},
    },
    retention::Rule,
    topic::{self, Pattern},
};

/// The number of topics without messages whose trim points are kept, for readers that come back.
const MAX_GONE: usize = 100_000;

/// A topic that holds messages.
#[derive(Clone, Debug, Default)]
pub struct Topic {
    /// Its messages that are not removed.
    pub held: Held,
    /// What was removed from it.
    pub trim_point: TrimPoint,
    /// Only its last message is kept.
    pub is_last_only: bool,
}

/// What is removed from the oldest end of a topic, and what is left.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trimmed {
    /// The number of removed messages.
    pub messages: u64,
    /// Their size.
    pub bytes: u64,
    /// The size of those that expire.
    pub expiring_bytes: u64,
    /// The trim point afterwards.
    pub trim_point: TrimPoint,
    /// The first message that is left; `None` if none is.
    pub first: Option<Kept>,
}

/// The first message that is left of a topic.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Its sequence and time.
    pub at: At,
    /// When it expires, in milliseconds since 1970; 0 for never.
    pub expires: u64,
}

/// All topics.
#[derive(Debug, Default)]
pub struct Topics {
    rules: Vec<Rule>,
    alive: BTreeMap<Arc<str>, Topic>,
    gone: BTreeMap<Arc<str>, TrimPoint>,
    /// No topic of users has a higher `first_kept`.
    max_first_kept: u64,
    /// No topic has a higher `lost_up_to`.
    max_lost: u64,
    /// Topics whose trim points were dropped have lost messages up to this sequence.
    forgotten_up_to: u64,
    /// Changes with every `lost_up_to`.
    loss_epoch: u64,
    /// Changes with every removal, a superseded message included.
    removal_epoch: u64,
    /// The highest sequence of a topic of users.
    newest: u64,
    /// The number of consumers, whose topics are alive.
    consumers: usize,
}

impl Topics {
    /// No topics.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules, ..Self::default() }
    }

    /// The rules of retention.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The index of the rule that applies to a topic.
    pub fn rule_of(&self, name: &str) -> Option<usize> {
        if topic::is_reserved(name) {
            return None;
        }
        self.rules.iter().position(|rule| rule.pattern.matches(name))
    }

    /// Adds what the next segment holds of a topic.
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
        let (is_last_only, first_kept) = (topic.is_last_only, topic.trim_point.first_kept);
        self.removal_epoch += u64::from(is_last_only);
        if !topic::is_reserved(name) {
            let first_kept = if is_last_only { first_kept } else { 0 };
            self.max_first_kept = self.max_first_kept.max(first_kept);
            self.newest = self.newest.max(held.last.sequence);
        }
    }

    /// Adds a block that is on disk.
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
        let trim_point = self.gone.remove(&name).unwrap_or_default();
        let rule = self.rule_of(&name).and_then(|place| self.rules.get(place));
        let is_last_only = topic::is_reserved(&name) || rule.is_some_and(|rule| rule.is_last_only);
        self.consumers += usize::from(topic::is_of_consumer(&name));
        self.alive.entry(name).or_insert(Topic { held: Held::default(), trim_point, is_last_only })
    }

    /// A topic that holds messages.
    pub fn get(&self, name: &str) -> Option<&Topic> {
        self.alive.get(name)
    }

    /// A topic that holds messages, with its shared name.
    pub fn key_value(&self, name: &str) -> Option<(&Arc<str>, &Topic)> {
        self.alive.get_key_value(name)
    }

    /// The highest sequence that a topic of users has had; 0 for none.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// The number of topics that hold messages.
    pub fn count(&self) -> usize {
        self.alive.len()
    }

    /// The number of consumers.
    pub fn consumer_count(&self) -> usize {
        self.consumers
    }

    /// The topics after a name, by name.
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
            // A topic that two patterns name is one topic.
            let unique = patterns.iter().filter_map(find).map(|(name, topic)| (name.as_ref(), (name, topic)));
            unique.collect::<BTreeMap<_, _>>().into_values()
        });
        let searched = (!literal).then(|| {
            self.alive.iter().filter(|(name, _)| patterns.iter().any(|pattern| pattern.matches(name)))
        });
        named.into_iter().flatten().chain(searched.into_iter().flatten())
    }

    /// All messages of a topic below this sequence are removed.
    pub fn first_kept(&self, name: &str) -> u64 {
        self.trim_point(name).first_kept
    }

    /// No message of a user's topic with this sequence or a higher one was removed.
    pub fn max_first_kept(&self) -> u64 {
        self.max_first_kept
    }

    /// Ids of messages of a topic up to this sequence can be published again; 0 for none.
    pub fn purged_up_to(&self, name: &str) -> u64 {
        self.trim_point(name).purged_up_to
    }

    /// What was removed from a topic.
    pub fn trim_point(&self, name: &str) -> TrimPoint {
        self.alive
            .get(name)
            .map(|topic| topic.trim_point)
            .or_else(|| self.gone.get(name).copied())
            .unwrap_or_default()
    }

    /// Changes whenever messages are removed.
    pub fn removal_epoch(&self) -> u64 {
        self.removal_epoch
    }

    /// Changes whenever messages are removed that a reader could have read.
    pub fn loss_epoch(&self) -> u64 {
        self.loss_epoch
    }

    /// The highest sequence after `after` that was lost of the topics that match; 0 for none.
    pub fn lost_up_to(&self, patterns: &[Pattern], after: u64) -> u64 {
        if self.max_lost <= after {
            return 0;
        }
        let literal = patterns.iter().all(|pattern| pattern.literal().is_some());
        let lost = if literal {
            let names = patterns.iter().filter_map(Pattern::literal);
            names.map(|name| self.trim_point(name).lost_up_to).max().unwrap_or(0)
        } else {
            let alive = self.alive.iter().map(|(name, topic)| (name, topic.trim_point.lost_up_to));
            let gone = self.gone.iter().map(|(name, trim_point)| (name, trim_point.lost_up_to));
            let lost = alive
                .chain(gone)
                .filter(|(name, lost)| *lost > after && patterns.iter().any(|pattern| pattern.matches(name)));
            // A topic whose trim point was dropped may have matched.
            lost.map(|(_, lost)| lost).max().unwrap_or(0).max(self.forgotten_up_to)
        };
        if lost > after { lost } else { 0 }
    }

    /// Removes the oldest messages of a topic, as was computed for `known`. False if the topic has changed since, so that
    /// `trimmed` does not apply to it.
    pub fn trim(&mut self, name: &str, known: &Topic, trimmed: &Trimmed) -> bool {
        let Entry::Occupied(mut entry) = self.alive.entry(name.into()) else { return false };
        let topic = entry.get_mut();
        let is_as_it_was = topic.held.last == known.held.last && topic.trim_point == known.trim_point;
        let is_longer =
            trimmed.first.is_some() && topic.trim_point == known.trim_point && !topic.is_last_only;
        if !is_as_it_was && !is_longer {
            return false;
        }
        let trim_point = trimmed.trim_point;
        self.loss_epoch += u64::from(trim_point.lost_up_to != topic.trim_point.lost_up_to);
        self.max_lost = self.max_lost.max(trim_point.lost_up_to);
        if !topic::is_reserved(name) {
            self.max_first_kept = self.max_first_kept.max(trim_point.first_kept);
        }
        topic.trim_point = trim_point;
        self.removal_epoch += 1;
        topic.held.messages = topic.held.messages.saturating_sub(trimmed.messages);
        topic.held.bytes = topic.held.bytes.saturating_sub(trimmed.bytes);
        topic.held.expiring_bytes = topic.held.expiring_bytes.saturating_sub(trimmed.expiring_bytes);
        if let Some(Kept { at, expires }) = trimmed.first {
            (topic.held.first, topic.held.first_expires) = (at, expires);
        } else {
            let (name, _) = entry.remove_entry();
            self.consumers -= usize::from(topic::is_of_consumer(&name));
            self.gone.insert(name, trim_point);
        }
        true
    }

    /// Forgets the ids of a topic's messages up to a sequence. False if they were forgotten before.
    pub fn purge_ids(&mut self, name: &str, up_to: u64) -> bool {
        let Some(topic) = self.alive.get_mut(name) else { return false };
        let is_news = topic.trim_point.purged_up_to < up_to;
        topic.trim_point.purged_up_to = topic.trim_point.purged_up_to.max(up_to);
        is_news
    }

    /// Stops counting messages that have expired after the first kept one of their topic, and leave the disk.
    pub fn forget_expired(&mut self, expired: &BTreeMap<Arc<str>, Held>) {
        for (name, expired) in expired {
            // Where only the last message is kept, the others are not counted.
            let Some(topic) = self.alive.get_mut(name).filter(|topic| !topic.is_last_only) else { continue };
            topic.held.messages = topic.held.messages.saturating_sub(expired.messages);
            topic.held.bytes = topic.held.bytes.saturating_sub(expired.bytes);
            topic.held.expiring_bytes = topic.held.expiring_bytes.saturating_sub(expired.expiring_bytes);
        }
    }

    /// Takes the trim points from disk, before any message is added.
    pub fn restore(&mut self, points: TrimPoints) {
        for (name, trim_point) in points.topics {
            self.loss_epoch += 1;
            self.max_lost = self.max_lost.max(trim_point.lost_up_to);
            if !topic::is_reserved(&name) {
                self.max_first_kept = self.max_first_kept.max(trim_point.first_kept);
            }
            self.gone.insert(name.into(), trim_point);
        }
        self.forget_up_to(points.forgotten_up_to);
    }

    /// Topics whose trim points were dropped have lost messages up to this sequence; 0 for none.
    pub fn forgotten_up_to(&self) -> u64 {
        self.forgotten_up_to
    }

    fn forget_up_to(&mut self, lost_up_to: u64) {
        self.forgotten_up_to = self.forgotten_up_to.max(lost_up_to);
        self.max_lost = self.max_lost.max(lost_up_to);
    }

    /// Drops the oldest trim points of topics that hold no message, if there are too many. No segment has a message with a
    /// sequence below `oldest`.
    pub fn forget(&mut self, oldest: u64) {
        if self.gone.len() <= MAX_GONE {
            return;
        }
        let mut points = self.gone.values().map(|trim_point| trim_point.first_kept).collect::<Vec<_>>();
        let excess = points.len() - MAX_GONE;
        let (_, limit, _) = points.select_nth_unstable(excess - 1);
        let limit = oldest.min(*limit);
        let mut lost = 0;
        self.gone.retain(|_, trim_point| {
            let is_forgotten = trim_point.first_kept <= limit;
            if is_forgotten {
                lost = lost.max(trim_point.lost_up_to);
            }
            !is_forgotten
        });
        self.forget_up_to(lost);
    }

    /// The trim points that must be known after a restart, by topic.
    pub fn trim_points(&self) -> impl Iterator<Item = (&Arc<str>, TrimPoint)> {
        let is_stored =
            |topic: &Topic| topic.trim_point != TrimPoint::default() && !topic.is_superseded_only();
        let alive = self.alive.iter().filter(move |(_, topic)| is_stored(topic));
        let alive = alive.map(|(name, topic)| (name, topic.trim_point));
        alive.chain(self.gone.iter().map(|(name, trim_point)| (name, *trim_point)))
    }
}

impl Topic {
    /// Whether only superseded messages were removed: the messages themselves show that after a restart.
    fn is_superseded_only(&self) -> bool {
        self.is_last_only && self.trim_point.lost_up_to == 0 && self.trim_point.purged_up_to == 0
    }

    /// Removes all but the last message, if only that is kept.
    fn supersede(&mut self) {
        if self.is_last_only {
            let Held { last, last_expires, last_bytes, .. } = self.held;
            let bytes = u64::from(last_bytes);
            self.trim_point.first_kept = self.trim_point.first_kept.max(last.sequence);
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
