//! Computes what is left of a topic when its oldest messages are removed.

use std::{io, sync::Arc};

use crate::messages::embedded::{
    Shared,
    format::footer::{At, Held},
    index::{
        block_run::time_at,
        segment::Segment,
        topics::{Kept, Topic, Trimmed},
    },
};

/// Which messages of a topic to remove, from the oldest on. A message is removed if any of these applies to it; the first
/// message to which none applies stays, and so do all after it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Limit {
    /// Messages up to this sequence.
    pub remove_up_to: u64,
    /// This many messages.
    pub messages: u64,
    /// Messages until at least this many bytes are removed.
    pub bytes: u64,
    /// Messages that have expired at this time, in milliseconds since 1970.
    pub now_millis: u64,
}

impl Shared {
    /// Computes what a limit removes from a topic, and what is left.
    pub fn trim(&self, name: &str, topic: &Topic, limit: Limit) -> io::Result<Trimmed> {
        let mut trimmed = Trimmed { trim_point: topic.trim_point, ..Trimmed::default() };
        let first = topic.held.first.sequence;
        let segments = self.state().segments.clone();
        let start = segments.partition_point(|segment| segment.first_sequence <= first).saturating_sub(1);
        for segment in segments.iter().skip(start).filter(|segment| segment.summary().last_sequence >= first)
        {
            let Some(held) = self.sound(segment.held(&self.cache, name), segment)? else { continue };
            // Everything is removed, and none of it was removed before or expires: no need to look at each message.
            if held.last.sequence <= limit.remove_up_to
                && held.first.sequence >= first
                && held.expiring_bytes == 0
            {
                trimmed.add(&held);
                continue;
            }
            if self.trim_segment(segment, name, first, limit, &mut trimmed)? {
                break;
            }
        }
        let first_kept = trimmed.first.map_or(topic.held.last.sequence + 1, |kept| kept.at.sequence);
        trimmed.trim_point.first_kept = trimmed.trim_point.first_kept.max(first_kept);
        Ok(trimmed)
    }

    /// The sequence up to which messages of a rule's topics must be removed, so that the others have at most `total` bytes;
    /// 0 for none.
    pub fn over_total(&self, rule: usize, total: u64) -> io::Result<u64> {
        let (names, segments) = {
            let state = self.state();
            let of_rule =
                state.topics.after(None).filter(|(name, _)| state.topics.rule_of(name) == Some(rule));
            let of_rule =
                of_rule.map(|(name, topic)| (name.clone(), topic.held.first.sequence, topic.held.bytes));
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

    /// Goes through the messages of one segment. True if a message was found that stays.
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
            let has_expired = posting.has_expired(limit.now_millis);
            let is_over = posting.sequence <= limit.remove_up_to
                || trimmed.messages < limit.messages
                || trimmed.bytes < limit.bytes;
            if !is_over && !has_expired {
                let time = time_at(segment, posting.offset)?;
                let at = At { sequence: posting.sequence, time };
                trimmed.first = Some(Kept { at, expires: posting.expires });
                return Ok(true);
            }
            trimmed.messages += 1;
            trimmed.bytes += u64::from(posting.length);
            trimmed.expiring_bytes += if posting.expires == 0 { 0 } else { u64::from(posting.length) };
            if !has_expired {
                trimmed.trim_point.lost_up_to = trimmed.trim_point.lost_up_to.max(posting.sequence);
            }
        }
        Ok(false)
    }
}

impl Trimmed {
    fn add(&mut self, held: &Held) {
        self.messages += held.messages;
        self.bytes += held.bytes;
        self.trim_point.lost_up_to = self.trim_point.lost_up_to.max(held.last.sequence);
    }
}
