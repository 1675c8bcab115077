//! The wall clock at a start, and the message ids that are still within the dedupe window then.

use std::{collections::HashMap, io, sync::Arc};

use crate::messages::{
    Config,
    clock::whole,
    embedded::{
        age::Moment,
        format::{block::Block, clock_history::ClockHistory, footer::At},
        index::{block_run::blocks_of, dedupe::Dedupe, segment::Segment},
        timeline::Timeline,
    },
};

/// The blocks with message ids of segments that were read, by the id of the segment. Without their bodies.
pub type WithIds = HashMap<u64, Vec<Block>>;

/// Continues the history of the wall clock. Returns it, if it must be stored.
pub fn timeline(
    config: &Config,
    history: ClockHistory,
    segments: &[Arc<Segment>],
    next_sequence: u64,
) -> io::Result<(Timeline, Option<ClockHistory>)> {
    let is_ahead = |moment: &Moment, before: u64| {
        let summaries = segments.iter().map(|segment| segment.summary());
        let mut summaries = summaries.filter(|of| of.messages > 0 && of.first_sequence < before);
        summaries.any(|of| moment.is_ahead(of.first_sequence..=of.last_sequence.min(before - 1), of.max_time))
    };
    let (timeline, history) = Timeline::new(config.clock.clone(), history, next_sequence, is_ahead);
    let last = last_before(segments, timeline.since())?;
    Ok((timeline.with_last_before_boot(last), history))
}

/// The last message before a sequence, as far as segments have it.
fn last_before(segments: &[Arc<Segment>], sequence: u64) -> io::Result<Option<At>> {
    for segment in segments.iter().rev() {
        let summary = segment.summary();
        if summary.messages == 0 || summary.first_sequence >= sequence {
            continue;
        }
        if summary.last_sequence < sequence {
            return Ok(Some(At { sequence: summary.last_sequence, time: summary.last_time }));
        }
        for place in (0..segment.run_count()).rev() {
            let Some(run) = segment.run(place).filter(|run| run.entry.first_sequence < sequence) else {
                continue;
            };
            let (blocks, _) = blocks_of(&segment.read(run.start, run.end)?, &run, segment.salt());
            let block = blocks.iter().rev().find(|block| block.first_sequence < sequence);
            if let Some(block) = block {
                return Ok(Some(At { sequence: block.last_sequence.min(sequence - 1), time: block.time }));
            }
        }
    }
    Ok(None)
}

/// Reads the message ids of the dedupe window, as they are judged at `moment`.
pub fn dedupe(
    config: &Config,
    segments: &[Arc<Segment>],
    read: &WithIds,
    moment: &Moment,
) -> io::Result<Dedupe> {
    let mut dedupe = Dedupe::new(config.dedupe_window, config.max_dedupe_ids, config.max_all_dedupe_ids);
    for segment in segments {
        if let Some(blocks) = read.get(&segment.id) {
            for block in blocks {
                dedupe.add(block, moment);
            }
            continue;
        }
        let summary = segment.summary();
        if summary.ids > 0 && summary.youngest(moment) <= whole(config.dedupe_window) {
            // Run by run: to read a segment at once takes fresh memory for all of it, which costs more than the reading.
            let mut place = 0;
            while let Some(run) = segment.run(place) {
                place += 1;
                let (blocks, _) = blocks_of(&segment.read(run.start, run.end)?, &run, segment.salt());
                for block in &blocks {
                    dedupe.add(block, moment);
                }
            }
        }
    }
    Ok(dedupe)
}
