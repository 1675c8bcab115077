//! The index of topics in memory: how much each holds, and how much was removed from it.
//!
//! Retention, a purge, and a later message where only the last one is kept all remove the oldest messages of a topic: a
//! message is removed when its sequence is below the `first_kept` of its topic. A gap is reported for `lost_up_to`, the
//! highest removed sequence that a reader could have read; superseded and expired messages do not count.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use super::{
    epochs::Epochs,
    quotas::{Amount, Quotas, Share},
    topic::{Kept, Topic, Trimmed},
};
use crate::messages::{
    embedded::format::{
        block::Block,
        footer::{Held, Posting},
        trim_points::{TrimPoint, TrimPoints},
    },
    quota::TopicQuota,
    retention::Rule,
    topic,
};

mod purged;
mod walk;

/// The number of topics without messages whose trim points are kept, for readers that come back.
const MAX_GONE: usize = 100_000;

/// All topics.
#[derive(Debug, Default)]
pub struct Topics {
    rules: Vec<Rule>,
    /// Boxed, because a node of the tree is little more than half full if names come in their order.
    alive: BTreeMap<Arc<str>, Box<Topic>>,
    gone: BTreeMap<Arc<str>, TrimPoint>,
    /// No topic of users has a higher `first_kept`.
    max_first_kept: u64,
    /// No topic has a higher `lost_up_to`.
    max_lost: u64,
    /// Topics whose trim points were dropped have lost messages up to this sequence.
    forgotten_up_to: u64,
    /// The last loss epoch of these topics.
    forgotten_at: u64,
    /// Rise with every change of a `lost_up_to`.
    epochs: Epochs,
    /// Changes with every removal, a superseded message included.
    removal_epoch: u64,
    /// The highest sequence of a topic of users.
    newest: u64,
    /// The number of consumers, whose topics are alive.
    consumers: usize,
    quotas: Quotas,
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

    /// Whether only the last message of a topic is kept.
    fn is_last_only(&self, name: &str) -> bool {
        let rule = self.rule_of(name).and_then(|place| self.rules.get(place));
        topic::is_reserved(name) || rule.is_some_and(|rule| rule.is_last_only)
    }

    /// Adds what the next segment holds of a topic.
    pub fn add_held(&mut self, name: &str, held: &Held) {
        self.add_of(name, || name.into(), held);
    }

    fn add_of(&mut self, name: &str, shared: impl FnOnce() -> Arc<str>, held: &Held) {
        let (topic, before) = match self.alive.get_mut(name) {
            Some(topic) => {
                let before = topic.amount();
                (topic.as_mut(), before)
            }
            None => (self.make(shared()), Amount::default()),
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
            topic.held.min_time = old.min_time.min(held.min_time);
            topic.held.max_time = old.max_time.max(held.max_time);
        }
        topic.supersede();
        let (is_last_only, first_kept) = (topic.is_last_only, topic.trim_point.first_kept);
        let (quotas, after) = (topic.quotas, topic.amount());
        self.quotas.change(name, quotas, before, after);
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
                held.add(&Posting::without_offset(entry, block.time));
            }
        }
        for (name, held) in block.topics.iter().zip(&held) {
            if held.messages > 0 {
                self.add_of(name, || name.clone(), held);
            }
        }
    }

    fn make(&mut self, name: Arc<str>) -> &mut Topic {
        let trim_point = self.gone.remove(&name).unwrap_or_default();
        let recorded = trim_point.first_kept;
        let is_last_only = self.is_last_only(&name);
        self.consumers += usize::from(topic::is_of_consumer(&name));
        let quotas = self.quotas.mask(&name);
        let topic = Topic { recorded, held: Held::default(), trim_point, is_last_only, quotas };
        self.alive.entry(name).or_insert(Box::new(topic))
    }

    /// A topic that holds messages.
    pub fn get(&self, name: &str) -> Option<&Topic> {
        self.alive.get(name).map(Box::as_ref)
    }

    /// A topic that holds messages, with its shared name.
    pub fn key_value(&self, name: &str) -> Option<(&Arc<str>, &Topic)> {
        self.alive.get_key_value(name).map(|(name, topic)| (name, topic.as_ref()))
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
        self.alive.range::<str, _>((start, Bound::Unbounded)).map(|(name, topic)| (name, topic.as_ref()))
    }

    /// All messages of a topic below this sequence are removed.
    pub fn first_kept(&self, name: &str) -> u64 {
        self.trim_point(name).first_kept
    }

    /// The messages of a topic below this sequence can be erased: that they are removed is in the file of trim points once
    /// that has every removal, and it does not depend on the rules.
    pub fn erasable_below(&self, name: &str) -> u64 {
        match self.alive.get(name) {
            Some(topic) if topic.is_last_only && !topic::is_reserved(name) => {
                topic.trim_point.first_kept.min(topic.recorded)
            }
            _ => self.first_kept(name),
        }
    }

    /// No message of a user's topic with this sequence or a higher one was removed.
    pub fn max_first_kept(&self) -> u64 {
        self.max_first_kept
    }

    /// The last sequence of a topic, or the last removed one if it holds no message; 0 for none.
    pub fn last_known(&self, name: &str) -> u64 {
        let gone = || self.gone.get(name).map_or(0, |trim_point| trim_point.first_kept.saturating_sub(1));
        self.alive.get(name).map_or_else(gone, |topic| topic.held.last.sequence)
    }

    /// Ids of messages of a topic up to this sequence can be published again; 0 for none.
    pub fn purged_up_to(&self, name: &str) -> u64 {
        self.trim_point(name).purged_up_to
    }

    /// The highest sequence that a topic may have lost since a loss epoch, if one is given; 0 for none. What topics whose trim
    /// points were dropped have lost may have been its.
    pub fn lost_of(&self, name: &str, since: Option<u64>) -> u64 {
        let TrimPoint { lost_up_to, lost_at, .. } = self.trim_point(name);
        let losses = [(lost_up_to, lost_at), self.forgotten()].into_iter();
        let losses = losses.filter(|(_, at)| since.is_none_or(|since| *at > since));
        losses.map(|(lost_up_to, _)| lost_up_to).max().unwrap_or(0)
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

    /// Rises whenever messages are removed that a reader could have read; 0 if none was.
    pub fn loss_epoch(&self) -> u64 {
        self.epochs.last()
    }

    /// No topic has lost a message with a higher sequence.
    pub fn max_lost(&self) -> u64 {
        self.max_lost
    }

    /// The topics after a name that hold no message, and what was removed from them, by name.
    pub fn gone_after(&self, after: Option<&str>) -> impl Iterator<Item = (&Arc<str>, &TrimPoint)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.gone.range::<str, _>((start, Bound::Unbounded))
    }

    /// Removes the oldest messages of a topic, as was computed for `known`. False if the topic has changed since, so that
    /// `trimmed` does not apply to it.
    pub fn trim(&mut self, name: &str, known: &Topic, trimmed: &Trimmed) -> bool {
        let Some(topic) = self.alive.get_mut(name) else { return false };
        let is_as_it_was = topic.held.last == known.held.last && topic.trim_point == known.trim_point;
        let is_longer =
            trimmed.first.is_some() && topic.trim_point == known.trim_point && !topic.is_last_only;
        if !is_as_it_was && !is_longer {
            return false;
        }
        let (quotas, before) = (topic.quotas, topic.amount());
        let mut trim_point = trimmed.trim_point;
        if trim_point.lost_up_to != topic.trim_point.lost_up_to {
            trim_point.lost_at = self.epochs.next();
        }
        self.max_lost = self.max_lost.max(trim_point.lost_up_to);
        if !topic::is_reserved(name) {
            self.max_first_kept = self.max_first_kept.max(trim_point.first_kept);
        }
        topic.trim_point = trim_point;
        topic.recorded = trim_point.first_kept;
        self.removal_epoch += 1;
        topic.held.messages = topic.held.messages.saturating_sub(trimmed.messages);
        topic.held.bytes = topic.held.bytes.saturating_sub(trimmed.bytes);
        topic.held.expiring_bytes = topic.held.expiring_bytes.saturating_sub(trimmed.expiring_bytes);
        if let Some(Kept { at, expires }) = trimmed.first {
            (topic.held.first, topic.held.first_expires) = (at, expires);
            let after = topic.amount();
            self.quotas.change(name, quotas, before, after);
        } else if let Some((name, _)) = self.alive.remove_entry(name) {
            self.quotas.change(&name, quotas, before, Amount::default());
            self.consumers -= usize::from(topic::is_of_consumer(&name));
            self.gone.insert(name, trim_point);
        }
        true
    }

    /// Has the trim points of superseded messages recorded, too, of up to `most` topics after a name. Returns whether there are
    /// such that were not, and the name to continue after.
    pub fn record_superseded(&mut self, after: Option<&str>, most: usize) -> (bool, Option<Arc<str>>) {
        if !self.rules.iter().any(|rule| rule.is_last_only) {
            return (false, None);
        }
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut is_news, mut seen, mut last) = (false, 0, None);
        for (name, topic) in self.alive.range_mut::<str, _>((start, Bound::Unbounded)).take(most) {
            (seen, last) = (seen + 1, Some(name));
            let first_kept = topic.trim_point.first_kept;
            if topic.is_last_only && topic.recorded < first_kept && !topic::is_reserved(name) {
                topic.recorded = first_kept;
                is_news = true;
            }
        }
        (is_news, last.filter(|_| seen == most).cloned())
    }

    /// The number of topics whose trim points may have to be stored.
    pub fn count_all(&self) -> usize {
        self.alive.len() + self.gone.len()
    }

    /// Stops counting messages that have expired after the first kept one of their topic, and leave the disk.
    pub fn forget_expired(&mut self, expired: &BTreeMap<Arc<str>, Held>) {
        for (name, expired) in expired {
            // Where only the last message is kept, the others are not counted.
            let Some(topic) = self.alive.get_mut(name).filter(|topic| !topic.is_last_only) else { continue };
            let before = topic.amount();
            topic.held.messages = topic.held.messages.saturating_sub(expired.messages);
            topic.held.bytes = topic.held.bytes.saturating_sub(expired.bytes);
            topic.held.expiring_bytes = topic.held.expiring_bytes.saturating_sub(expired.expiring_bytes);
            self.quotas.change(name, topic.quotas, before, topic.amount());
        }
    }

    /// The quotas, and what the topics take of them.
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// Replaces the quotas. [`count_quotas`](Self::count_quotas) then counts the topics.
    pub fn set_quotas(&mut self, quotas: Arc<[TopicQuota]>) {
        self.quotas.set(quotas);
    }

    /// Counts up to `most` topics that were not counted since the quotas were replaced. Returns whether there are more.
    pub fn count_quotas(&mut self, most: usize) -> bool {
        if !self.quotas.is_counting() {
            return false;
        }
        let after = self.quotas.counted_up_to();
        let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let (mut seen, mut last) = (0, None);
        for (name, topic) in self.alive.range_mut::<str, _>((start, Bound::Unbounded)).take(most) {
            topic.quotas = self.quotas.mask(name);
            self.quotas.count(topic.quotas, topic.amount());
            (seen, last) = (seen + 1, Some(name));
        }
        let last = last.filter(|_| seen == most).cloned();
        let has_more = last.is_some();
        self.quotas.set_counted(last);
        has_more
    }

    /// In which quotas a new message of a topic counts.
    pub fn share(&self, name: &str) -> Share {
        if self.quotas.all().is_empty() {
            return Share::default();
        }
        let topic = self.alive.get(name);
        let share = self.quotas.share(name, topic.map(|topic| topic.quotas));
        let is_last_only = || match topic {
            Some(topic) => topic.is_last_only,
            None => self.is_last_only(name),
        };
        let replaced = || topic.map_or(0, |topic| topic.held.bytes);
        Share { replaced: (!share.is_empty() && is_last_only()).then(replaced), ..share }
    }

    /// Takes the trim points from disk, before any message is added.
    pub fn restore(&mut self, points: TrimPoints) {
        let TrimPoints { forgotten_up_to, forgotten_at, epochs, mut topics } = points;
        let last = topics.iter().map(|(_, point)| point.lost_at).max().unwrap_or(0).max(forgotten_at);
        self.epochs.restore(epochs, last);
        self.forgotten_at = forgotten_at;
        let has_lost = forgotten_up_to > 0 || topics.iter().any(|(_, point)| point.lost_up_to > 0);
        // Earlier versions of the file have epochs of no known run, or none.
        if self.epochs.runs().is_empty() && has_lost {
            self.forgotten_at = self.epochs.next();
            for (_, point) in &mut topics {
                point.lost_at = self.forgotten_at;
            }
        }
        for (name, trim_point) in topics {
            self.max_lost = self.max_lost.max(trim_point.lost_up_to);
            if !topic::is_reserved(&name) {
                self.max_first_kept = self.max_first_kept.max(trim_point.first_kept);
            }
            self.gone.insert(name, trim_point);
        }
        self.forget_up_to(forgotten_up_to);
    }

    /// Topics whose trim points were dropped have lost messages up to this sequence, 0 for none, and up to this loss epoch.
    pub fn forgotten(&self) -> (u64, u64) {
        (self.forgotten_up_to, self.forgotten_at)
    }

    /// Whether the losses of this log since an epoch are known: the epoch is one of its own.
    pub fn knows_epoch(&self, epoch: u64) -> bool {
        self.epochs.has(epoch)
    }

    /// Records that messages up to a sequence were lost of topics that are not known.
    pub fn lose_up_to(&mut self, lost_up_to: u64) {
        // Also where more was forgotten before: a loss that was known by itself until now is new to those who know that.
        self.forget_up_to(lost_up_to);
        self.forgotten_at = self.epochs.next();
    }

    fn forget_up_to(&mut self, lost_up_to: u64) {
        self.forgotten_up_to = self.forgotten_up_to.max(lost_up_to);
        self.max_lost = self.max_lost.max(lost_up_to);
    }

    /// The number of topics without messages whose trim points are known beyond those that are kept.
    pub fn excess(&self) -> usize {
        self.gone.len().saturating_sub(MAX_GONE)
    }

    /// Drops the trim points of topics that hold no message, if all messages up to `limit` have left the disk and theirs
    /// are among them.
    pub fn forget(&mut self, names: &[Arc<str>], limit: u64) {
        let (mut lost, mut lost_at) = (0, 0);
        for name in names {
            let is_over = |point: &TrimPoint| point.first_kept <= limit && !point.owes_erasure();
            if self.gone.get(name).is_some_and(is_over)
                && let Some(trim_point) = self.gone.remove(name)
            {
                lost = lost.max(trim_point.lost_up_to);
                lost_at = lost_at.max(trim_point.lost_at);
            }
        }
        self.forget_up_to(lost);
        self.forgotten_at = self.forgotten_at.max(lost_at);
    }

    /// What must be known after a restart, with the given trim points of topics.
    pub fn to_store(&self, topics: Vec<(Arc<str>, TrimPoint)>) -> TrimPoints {
        let (forgotten_up_to, forgotten_at) = self.forgotten();
        TrimPoints { forgotten_up_to, forgotten_at, epochs: self.epochs.runs().to_vec(), topics }
    }
}
