//! Computes the rest of topics when their oldest messages are removed.
//!
//! Topics are taken in the order of their names, many at once, and segments one after another. So each part of an index is
//! read once for many topics, and what is removed as a whole is not looked at.

use std::{io, sync::Arc};

use super::due::Due;
use crate::messages::embedded::{
    Shared,
    age::Moment,
    format::footer::{At, Found, Held, Posting},
    index::{
        block_run::{BlockTimes, blocks_of},
        segment::Segment,
        topic::{Kept, Topic, Trimmed},
    },
};

/// Which messages of a topic to remove, from the oldest on. A message is removed if any of these applies to it; the first
/// message to which none applies stays, and so do all after it.
#[derive(Clone, Debug, Default)]
pub struct Limit {
    /// Messages up to this sequence.
    pub remove_up_to: u64,
    /// Messages that are older than a rule allows.
    pub due: Arc<Due>,
    /// This many messages.
    pub messages: u64,
    /// Messages until at least this many bytes are removed.
    pub bytes: u64,
    /// Messages that have expired at this moment.
    pub expired: Option<Moment>,
}

impl Limit {
    /// Whether all messages with sequences from `first` to `last` are over the limit, whatever their number and size.
    pub fn has_all(&self, first: u64, last: u64) -> bool {
        last <= self.remove_up_to || self.due.has_all(first.max(self.remove_up_to.saturating_add(1)), last)
    }

    /// Whether messages are over the limit only because of their age.
    pub fn is_by_age(&self) -> bool {
        self.remove_up_to == 0 && self.messages == 0 && self.bytes == 0
    }
}

/// A topic that is over a limit, as it was then.
pub type Over = (Arc<str>, Topic, Limit);

/// The known facts about a topic so far.
struct Progress<'a> {
    over: &'a Over,
    trimmed: Trimmed,
    /// The first message that is left is known, or that none is.
    is_done: bool,
}

impl<'a> Progress<'a> {
    fn new(over: &'a Over) -> Self {
        let (_, topic, limit) = over;
        let held = &topic.held;
        let mut trimmed = Trimmed { trim_point: topic.trim_point, ..Trimmed::default() };
        // Where no message is left, the index need not be read, unless the last message does not count as lost.
        let At { sequence, time } = held.last;
        let expired = limit.expired.as_ref();
        let has_expired = expired.is_some_and(|moment| moment.has_expired(sequence, time, held.last_expires));
        let is_done = limit.has_all(held.first.sequence, sequence) && !has_expired;
        if is_done {
            trimmed.add(held);
            trimmed.expiring_bytes = held.expiring_bytes;
        }
        Self { over, trimmed, is_done }
    }

    fn first(&self) -> u64 {
        self.over.1.held.first.sequence
    }

    /// Whether a segment may have messages of the topic that matter.
    fn concerns(&self, segment: &Segment) -> bool {
        let last = self.over.1.held.last.sequence;
        !self.is_done && self.first() <= segment.summary().last_sequence && segment.first_sequence <= last
    }

    /// Takes what a segment holds of the topic.
    fn take(
        &mut self,
        segment: &Segment,
        held: &Held,
        times: &mut BlockTimes,
        postings: impl FnOnce() -> Found<Vec<Posting>>,
    ) -> Found<()> {
        let (_, _, limit) = self.over;
        let trimmed = &mut self.trimmed;
        let is_over = limit.has_all(held.first.sequence, held.last.sequence)
            || trimmed.messages.saturating_add(held.messages) <= limit.messages
            || trimmed.bytes.saturating_add(held.bytes) <= limit.bytes;
        // None of it was removed before, and none expires: no need to look at each message.
        if is_over && held.first.sequence >= self.over.1.held.first.sequence && held.expiring_bytes == 0 {
            trimmed.add(held);
            return Ok(Ok(()));
        }
        let postings = match postings()? {
            Ok(postings) => postings,
            Err(damaged) => return Ok(Err(damaged)),
        };
        for posting in postings.iter().filter(|posting| posting.sequence >= self.over.1.held.first.sequence) {
            let has_expired = match &limit.expired {
                Some(moment) => times.has_expired(segment, posting, moment)?,
                None => false,
            };
            let is_over = limit.has_all(posting.sequence, posting.sequence)
                || trimmed.messages < limit.messages
                || trimmed.bytes < limit.bytes;
            if !is_over && !has_expired {
                let at = match posting.sequence {
                    first if first == held.first.sequence => held.first,
                    sequence => At { sequence, time: times.publish_time(segment, posting)? },
                };
                trimmed.first = Some(Kept { at, expires: posting.expires });
                self.is_done = true;
                break;
            }
            trimmed.messages += 1;
            trimmed.bytes += u64::from(posting.length);
            trimmed.expiring_bytes += if posting.expires == 0 { 0 } else { u64::from(posting.length) };
            if !has_expired {
                trimmed.trim_point.lost_up_to = trimmed.trim_point.lost_up_to.max(posting.sequence);
            }
        }
        Ok(Ok(()))
    }

    fn finish(mut self) -> Trimmed {
        let last = self.over.1.held.last.sequence;
        let first_kept = self.trimmed.first.map_or(last + 1, |kept| kept.at.sequence);
        let trim_point = &mut self.trimmed.trim_point;
        trim_point.first_kept = trim_point.first_kept.max(first_kept);
        self.trimmed
    }
}

impl Shared {
    /// Computes the messages that a limit removes from a topic, and the rest.
    pub fn trim(&self, name: &Arc<str>, topic: &Topic, limit: Limit) -> io::Result<Trimmed> {
        let trimmed = self.trim_all(&[(name.clone(), topic.clone(), limit)])?;
        trimmed.into_iter().next().ok_or_else(|| io::Error::other("a topic has no result"))
    }

    /// Computes the messages that limits remove from topics, which are sorted by name, and the rest of each.
    pub fn trim_all(&self, over: &[Over]) -> io::Result<Vec<Trimmed>> {
        let mut topics = over.iter().map(Progress::new).collect::<Vec<_>>();
        let segments = self.state().segments.clone();
        let first = topics.iter().filter(|topic| !topic.is_done).map(Progress::first).min();
        let start = segments.partition_point(|segment| Some(segment.first_sequence) <= first);
        let start = if first.is_some() { start.saturating_sub(1) } else { segments.len() };
        for segment in segments.iter().skip(start) {
            let mut concerned = topics.iter_mut().filter(|topic| topic.concerns(segment)).collect::<Vec<_>>();
            if concerned.is_empty() {
                if topics.iter().all(|topic| topic.is_done) {
                    break;
                }
                continue;
            }
            let names = concerned.iter().map(|topic| topic.over.0.clone()).collect::<Vec<_>>();
            let mut times = BlockTimes::default();
            let read = segment.find_all(&self.cache, &names, |place, held, postings| {
                let topic =
                    concerned.get_mut(place).ok_or_else(|| io::Error::other("there is no such topic"))?;
                topic.take(segment, held, &mut times, postings)
            });
            self.sound(read, segment)?;
        }
        Ok(topics.into_iter().map(Progress::finish).collect())
    }

    /// The sequence up to which messages of a rule's topics must be removed, so that the others have at most `total` bytes;
    /// 0 for none.
    pub fn over_total(&self, rule: usize, total: u64) -> io::Result<u64> {
        let (mut bytes, mut first) = (0_u64, u64::MAX);
        self.for_each_topic(|topics, name, topic| {
            if topics.rule_of(name) == Some(rule) {
                bytes += topic.held.bytes;
                first = first.min(topic.held.first.sequence);
            }
        });
        let mut over = bytes.saturating_sub(total);
        if over == 0 {
            return Ok(0);
        }
        let segments = self.state().segments.clone();
        let start = segments.partition_point(|segment| segment.first_sequence <= first).saturating_sub(1);
        for segment in segments.iter().skip(start) {
            // All of it goes: its index has the sum.
            if over > segment.blocks_end() {
                over = over.saturating_sub(self.bytes_of_rule(segment, rule)?);
                continue;
            }
            if let Some(sequence) = self.remove_in(segment, rule, &mut over)? {
                return Ok(sequence);
            }
        }
        Ok(0)
    }

    /// The size of the messages of a rule's topics in a segment that are not removed.
    fn bytes_of_rule(&self, segment: &Arc<Segment>, rule: usize) -> io::Result<u64> {
        let mut bytes = 0;
        let mut partly = Vec::new();
        let mut place = 0;
        while let Some(slice) = self.sound(segment.slice(&self.cache, place), segment)? {
            place += 1;
            let state = self.state();
            slice.for_each(|name, held| {
                let known = state.topics.get(name).filter(|_| state.topics.rule_of(name) == Some(rule));
                let first = known.map_or(u64::MAX, |topic| topic.held.first.sequence);
                if first <= held.first.sequence {
                    bytes += held.bytes;
                } else if first <= held.last.sequence {
                    partly.push((name.to_owned(), first));
                }
            });
        }
        for (name, first) in partly {
            let postings = self.sound(segment.postings_from(&self.cache, &name, first, |_| true), segment)?;
            bytes += postings.iter().map(|posting| u64::from(posting.length)).sum::<u64>();
        }
        Ok(bytes)
    }

    /// The sequence of the message of a rule's topics in a segment with which `over` bytes are removed; `None` if it is in
    /// a later segment. Subtracts the bytes before it.
    fn remove_in(&self, segment: &Arc<Segment>, rule: usize, over: &mut u64) -> io::Result<Option<u64>> {
        for place in 0..segment.run_count() {
            let Some(run) = segment.run(place) else { break };
            let bytes = segment.read(run.start, run.end)?;
            let (blocks, _) = blocks_of(&bytes, &run, segment.salt());
            for block in &blocks {
                let state = self.state();
                let first = |name: &Arc<str>| {
                    let known = state.topics.get(name).filter(|_| state.topics.rule_of(name) == Some(rule));
                    known.map_or(u64::MAX, |topic| topic.held.first.sequence)
                };
                let firsts = block.topics.iter().map(first).collect::<Vec<_>>();
                drop(state);
                for entry in &block.entries {
                    let first = firsts.get(entry.topic as usize).copied().unwrap_or(u64::MAX);
                    if entry.sequence >= first {
                        *over = over.saturating_sub((entry.end - entry.start).into());
                    }
                    if *over == 0 {
                        return Ok(Some(entry.sequence));
                    }
                }
            }
        }
        Ok(None)
    }
}

impl Trimmed {
    fn add(&mut self, held: &Held) {
        self.messages += held.messages;
        self.bytes += held.bytes;
        self.trim_point.lost_up_to = self.trim_point.lost_up_to.max(held.last.sequence);
    }
}
