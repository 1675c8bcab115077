//! Finds messages: where a start is, and the last message of a topic.

use std::{io, sync::Arc};

use super::batch;
use crate::messages::{
    embedded::{
        Shared,
        age::Moment,
        format::footer::Posting,
        index::{
            block_run::{BlockTimes, blocks_of},
            cache::Plan,
            segment::Segment,
            topic::Topic,
        },
    },
    topic::Pattern,
};

impl Shared {
    /// The sequence before the last `count` messages that match, up to `head`.
    pub fn start_of_last(&self, count: u64, patterns: &[Pattern], head: u64) -> io::Result<u64> {
        let moment = self.moment();
        let mut left = usize::try_from(count).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(head);
        }
        for segment in self.segments_from(0).iter().rev() {
            let mut sequences = match self.sound(segment.plan(&self.cache, patterns), segment)?.as_ref() {
                Plan::Runs => {
                    let mut place = segment.run_count();
                    while let Some(before) = place.checked_sub(1) {
                        place = before;
                        let Some(run) = segment.run(place) else { break };
                        let (blocks, _) = blocks_of(&segment.read(run.start, run.end)?, &run, segment.salt());
                        let state = self.state();
                        let found = blocks
                            .iter()
                            .flat_map(|block| batch::matching(block, patterns, &state.topics, &moment));
                        let found = found.filter(|sequence| *sequence <= head).collect::<Vec<_>>();
                        match found.len().checked_sub(left) {
                            Some(over) => return Ok(found.get(over).map_or(head, |sequence| sequence - 1)),
                            None => left -= found.len(),
                        }
                    }
                    continue;
                }
                Plan::Topics(topics) => {
                    let (mut sequences, mut times) = (Vec::new(), BlockTimes::default());
                    for topic in topics {
                        let first_kept = self.state().topics.first_kept(topic);
                        let postings = self.sound(segment.postings(&self.cache, topic), segment)?;
                        for posting in postings.iter().filter(|posting| posting.sequence >= first_kept) {
                            if !times.has_expired(segment, posting, &moment)? {
                                sequences.push(posting.sequence);
                            }
                        }
                    }
                    sequences
                }
            };
            sequences.retain(|sequence| *sequence <= head);
            sequences.sort_unstable();
            match sequences.len().checked_sub(left) {
                Some(over) => return Ok(sequences.get(over).map_or(head, |sequence| sequence - 1)),
                None => left -= sequences.len(),
            }
        }
        Ok(0)
    }

    /// The sequence before the first message that has a time, in nanoseconds since 1970, or a later one, or that may have
    /// had one and is damaged; the highest number if there is no such message.
    pub fn before_time(&self, time: u64) -> io::Result<u64> {
        let found = self.before_readable_time(time)?;
        let unknown = self.state().unknown_damage_after(0);
        Ok(unknown.map_or(found, |(from, _)| found.min(from - 1)))
    }

    /// The same, without messages whose times no index has.
    fn before_readable_time(&self, time: u64) -> io::Result<u64> {
        for segment in self.segments_from(0) {
            if segment.summary().max_time < time || segment.summary().messages == 0 {
                continue;
            }
            for place in segment.first_run_at_time(time)..segment.run_count() {
                let Some(run) = segment.run(place) else { break };
                if run.entry.max_time < time {
                    continue;
                }
                let (blocks, missing) = blocks_of(&segment.read(run.start, run.end)?, &run, segment.salt());
                let first = blocks.iter().find(|block| block.time >= time).map(|block| block.first_sequence);
                let missing = missing.first().map(|(from, _)| *from);
                if let Some(first) = first.into_iter().chain(missing).min() {
                    return Ok(first - 1);
                }
            }
        }
        Ok(u64::MAX)
    }
}

/// The last message of a topic that has not expired, and its segment.
pub fn last_live(
    shared: &Shared,
    segments: &[Arc<Segment>],
    name: &str,
    topic: &Topic,
    moment: &Moment,
) -> io::Result<Option<(Arc<Segment>, Posting)>> {
    let holding = segments.iter().rev().filter(|segment| segment.first_sequence <= topic.held.last.sequence);
    for segment in holding.take_while(|segment| segment.summary().last_sequence >= topic.held.first.sequence)
    {
        let postings = shared.sound(segment.postings(&shared.cache, name), segment)?;
        let kept =
            postings.iter().rev().take_while(|posting| posting.sequence >= topic.trim_point.first_kept);
        let mut times = BlockTimes::default();
        for posting in kept {
            if !times.has_expired(segment, posting, moment)? {
                return Ok(Some((segment.clone(), *posting)));
            }
        }
    }
    Ok(None)
}
