//! Finds what is left of a topic when its head is removed.

use std::{io, sync::Arc};

use super::{
    Shared,
    footer::Held,
    page::time_at,
    segment::Segment,
    topics::{Removed, Topic},
};

/// What of a topic's head is to be removed. A message goes as soon as any of them says so; the first that is to stay
/// ends it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Limit {
    /// All up to this sequence.
    pub through: u64,
    /// At least so many messages.
    pub messages: u64,
    /// At least so many bytes.
    pub bytes: u64,
    /// What has expired at this time, in milliseconds since 1970.
    pub now: u64,
}

/// What is removed from a topic, and what is left.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trimmed {
    /// How many messages are removed.
    pub messages: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// Of these, how many bytes those have that expire.
    pub expiring_bytes: u64,
    /// What is then known of the topic as removed.
    pub removed: Removed,
    /// Sequence and time of the first message that is left, and when it expires; none if nothing is left.
    pub first: Option<((u64, u64), u64)>,
}

impl Shared {
    /// Finds what the limit removes of a topic, and what is left.
    pub fn trim(&self, name: &str, topic: &Topic, limit: Limit) -> io::Result<Trimmed> {
        let mut trimmed = Trimmed { removed: topic.removed, ..Trimmed::default() };
        let first = topic.held.first.0;
        let segments = self.state().segments.clone();
        let start = segments.partition_point(|segment| segment.first_sequence <= first).saturating_sub(1);
        for segment in segments.iter().skip(start).filter(|segment| segment.summary().last_sequence >= first)
        {
            let Some(held) = self.sound(segment.held(&self.cache, name), segment)? else { continue };
            // All of it goes, and none of it was removed before or expires: no need to look at each message.
            if held.last.0 <= limit.through && held.first.0 >= first && held.expiring_bytes == 0 {
                trimmed.take(&held);
                continue;
            }
            if self.trim_segment(segment, name, first, limit, &mut trimmed)? {
                break;
            }
        }
        let floor = trimmed.first.map_or(topic.held.last.0 + 1, |((first, _), _)| first);
        trimmed.removed.floor = trimmed.removed.floor.max(floor);
        Ok(trimmed)
    }

    /// The sequence up to which messages of a rule's topics have to go, so that the others have so many bytes at the most.
    pub fn over_total(&self, rule: usize, total: u64) -> io::Result<u64> {
        let (names, segments) = {
            let state = self.state();
            let of_rule =
                state.topics.after(None).filter(|(name, _)| state.topics.rule_of(name) == Some(rule));
            let of_rule = of_rule.map(|(name, topic)| (name.clone(), topic.held.first.0, topic.held.bytes));
            (of_rule.collect::<Vec<_>>(), state.segments.clone())
        };
        let mut over = names.iter().map(|(_, _, bytes)| bytes).sum::<u64>().saturating_sub(total);
        if over == 0 {
            return Ok(0);
        }
        for segment in &segments {
            let mut postings = Vec::new();
            for (name, first, _) in &names {
                let found = segment.postings_from(&self.cache, name, *first, usize::MAX);
                postings.extend(self.sound(found, segment)?);
            }
            postings.sort_unstable_by_key(|posting| posting.sequence);
            for posting in postings {
                over = over.saturating_sub(posting.length.into());
                if over == 0 {
                    return Ok(posting.sequence);
                }
            }
        }
        Ok(0)
    }

    /// True if a message was found that stays.
    fn trim_segment(
        &self,
        segment: &Arc<Segment>,
        name: &str,
        first: u64,
        limit: Limit,
        trimmed: &mut Trimmed,
    ) -> io::Result<bool> {
        let postings = self.sound(segment.postings(&self.cache, name), segment)?;
        for posting in postings.iter().filter(|posting| posting.sequence >= first) {
            let has_expired = posting.has_expired(limit.now);
            let is_over = posting.sequence <= limit.through
                || trimmed.messages < limit.messages
                || trimmed.bytes < limit.bytes;
            if !is_over && !has_expired {
                let time = time_at(segment, posting.offset)?;
                trimmed.first = Some(((posting.sequence, time), posting.expires));
                return Ok(true);
            }
            trimmed.messages += 1;
            trimmed.bytes += u64::from(posting.length);
            trimmed.expiring_bytes += if posting.expires == 0 { 0 } else { u64::from(posting.length) };
            if !has_expired {
                trimmed.removed.lost = trimmed.removed.lost.max(posting.sequence);
            }
        }
        Ok(false)
    }
}

impl Trimmed {
    fn take(&mut self, held: &Held) {
        self.messages += held.messages;
        self.bytes += held.bytes;
        self.removed.lost = self.removed.lost.max(held.last.0);
    }
}
