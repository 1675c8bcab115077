//! Reads messages in the order of their sequence: from memory where they are recent, else from a page on disk.

use std::{io, os::unix::fs::FileExt, sync::Arc, time::SystemTime};

use bytes::Bytes;
use memchr::memmem;

use super::{
    Embedded, Shared,
    block::{BLOCK_MAGIC, Block, Header},
    index::Extent,
    nanos,
};
use crate::messages::{Event, topic::Pattern};

/// How far a batch may be filled.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// At most so many messages.
    pub max_items: usize,
    /// No further message when there are so many bytes.
    pub max_bytes: usize,
    /// No message behind this sequence.
    pub last: u64,
    /// No message of a later time: in nanoseconds since 1970.
    pub until: Option<u64>,
}

/// Messages, and how far they reach.
#[derive(Debug, Default)]
pub struct Cut {
    /// Slices of encoded messages.
    pub items: Vec<Bytes>,
    /// How many messages.
    pub count: usize,
    /// Every sequence up to this one was delivered, did not match, or is told in `event`.
    pub through: u64,
    /// What happened, if there are no items.
    pub event: Option<Event>,
    /// The next message is of a later time than was asked for.
    pub is_past_time: bool,
    bytes: usize,
}

impl Embedded {
    /// Reads a batch behind the sequence `after`.
    pub async fn read(&self, after: u64, patterns: &[Pattern], bounds: Bounds) -> io::Result<Cut> {
        let next = after + 1;
        let (recent, damaged) = {
            let state = self.shared.state();
            let damaged = state.damaged.iter().find(|(_, to)| **to >= next).map(|(from, to)| (*from, *to));
            (state.recent.from(next, bounds.max_bytes), damaged)
        };
        let mut bounds = bounds;
        if let Some((from, to)) = damaged.filter(|(from, _)| *from <= bounds.last) {
            if from <= next {
                let event = Some(Event::Damaged { from, to });
                return Ok(Cut { through: to.min(bounds.last), event, ..Cut::default() });
            }
            bounds.last = from - 1;
        }
        if let Some(blocks) = recent {
            bounds.last = blocks.last().map_or(bounds.last, |block| block.last_sequence().min(bounds.last));
            return Ok(cut(&blocks, next, patterns, bounds, true).0);
        }
        let page = {
            let state = self.shared.state();
            state.index.page_of(next, patterns).and_then(|page| state.index.extent(page))
        };
        let Some(page) = page else { return Ok(Cut::nothing(bounds.last)) };
        let (shared, patterns) = (self.shared.clone(), patterns.to_vec());
        blocking(move || {
            let blocks = read_page(&page)?;
            bounds.last = bounds.last.min(page.through);
            if let Some((from, to)) =
                missing(&blocks, &page).find(|(from, _)| (next..=bounds.last).contains(from))
            {
                shared.note_damage(from, to);
                // The next read tells.
                bounds.last = from - 1;
            }
            let (cut, damaged) = cut(&blocks, next, &patterns, bounds, false);
            if let Some((from, to)) = damaged {
                shared.note_damage(from, to);
            }
            Ok(cut)
        })
        .await
    }

    /// The sequence behind which the last `count` messages that match are.
    pub async fn before_last(&self, count: u64, patterns: &[Pattern], head: u64) -> io::Result<u64> {
        let (mut page, mut left) = (usize::MAX, count);
        while left > 0 {
            let extent = {
                let state = self.shared.state();
                let before = state.index.page_before(page.min(state.index.page_count()), patterns);
                before.and_then(|before| Some((before, state.index.extent(before)?)))
            };
            let Some((before, extent)) = extent else { return Ok(0) };
            page = before;
            let patterns = patterns.to_vec();
            let sequences = blocking(move || {
                let blocks = read_page(&extent)?;
                Ok(blocks.iter().flat_map(|block| matching(block, &patterns)).collect::<Vec<_>>())
            })
            .await?;
            for sequence in sequences.into_iter().rev().filter(|sequence| *sequence <= head) {
                left -= 1;
                if left == 0 {
                    return Ok(sequence - 1);
                }
            }
        }
        Ok(head)
    }

    /// The sequence behind which the messages published at a time or later are.
    pub async fn before_time(&self, time: SystemTime, head: u64) -> io::Result<u64> {
        let time = nanos(time);
        let first = self.shared.state().index.page_at(time);
        let Some(mut page) = first else { return Ok(head) };
        loop {
            let extent = self.shared.state().index.extent(page);
            let Some(extent) = extent else { return Ok(head) };
            let found = blocking(move || {
                let blocks = read_page(&extent)?;
                Ok(blocks.iter().find(|block| block.time >= time).map(|block| block.first_sequence - 1))
            })
            .await?;
            if let Some(before) = found {
                return Ok(before.min(head));
            }
            page += 1;
        }
    }
}

impl Shared {
    fn note_damage(&self, from: u64, to: u64) {
        tracing::error!(from, to, "messages are damaged on disk and are not served");
        self.state_mut().damaged.insert(from, to);
    }
}

/// Reads a page from disk.
fn read_page(page: &Extent) -> io::Result<Vec<Arc<Block>>> {
    let mut bytes = vec![0; usize::try_from(page.end - page.start).map_err(io::Error::other)?];
    page.file.read_exact_at(&mut bytes, page.start)?;
    Ok(blocks_of(&Bytes::from(bytes)))
}

/// The blocks of a page. What is no block is passed over: its sequences are missing then.
fn blocks_of(page: &Bytes) -> Vec<Arc<Block>> {
    let mut blocks = Vec::new();
    let mut at = 0;
    while let Some(rest) = page.get(at..).filter(|rest| !rest.is_empty()) {
        let bytes = page.slice(at..);
        match Block::read(&bytes) {
            Ok(block) if !block.body.is_empty() => {
                at += Header::read(rest).map_or(rest.len(), |header| header.block_bytes());
                blocks.push(Arc::new(block));
            }
            _ => match memmem::find(rest.get(1..).unwrap_or_default(), &BLOCK_MAGIC) {
                Some(next) => at += 1 + next,
                None => break,
            },
        }
    }
    blocks
}

/// The sequences that a page should hold and does not: first and last, in order.
fn missing(blocks: &[Arc<Block>], page: &Extent) -> impl Iterator<Item = (u64, u64)> {
    let ends = blocks.iter().map(|block| block.last_sequence() + 1);
    let starts = blocks.iter().map(|block| block.first_sequence);
    let expected = std::iter::once(page.first_sequence).chain(ends);
    let found = starts.chain(std::iter::once(page.last_sequence + 1));
    expected
        .zip(found)
        .filter(|(expected, found)| expected < found)
        .map(|(expected, found)| (expected, found - 1))
}

/// The sequences of the messages of a block that match.
fn matching(block: &Block, patterns: &[Pattern]) -> Vec<u64> {
    let wanted = wanted(block, patterns);
    let entries = (block.first_sequence..).zip(&block.entries);
    let matching = entries.filter(|(_, entry)| wanted.get(entry.topic).is_some_and(|wanted| *wanted));
    matching.map(|(sequence, _)| sequence).collect()
}

/// Which topics of a block match.
fn wanted(block: &Block, patterns: &[Pattern]) -> Vec<bool> {
    block.topics.iter().map(|topic| patterns.iter().any(|pattern| pattern.matches(topic))).collect()
}

/// Cuts a batch from blocks that begin at the sequence `next` or before it. Also returns the first sequences that are
/// missing, or whose bytes are damaged; the batch ends before them.
fn cut(
    blocks: &[Arc<Block>],
    next: u64,
    patterns: &[Pattern],
    bounds: Bounds,
    is_checked: bool,
) -> (Cut, Option<(u64, u64)>) {
    let mut cut = Cut::nothing(next - 1);
    for block in blocks.iter().filter(|block| block.last_sequence() >= next) {
        if block.first_sequence > bounds.last {
            break;
        }
        if bounds.until.is_some_and(|until| block.time > until) {
            cut.is_past_time = true;
            return (cut, None);
        }
        match cut.take(block, next, &wanted(block, patterns), bounds, is_checked) {
            Taken::All => {}
            Taken::Full => return (cut, None),
            Taken::Damaged(sequence) => return (cut, Some((sequence, sequence))),
        }
    }
    // Sequences may be skipped, and a page ends before the next one begins.
    cut.through = bounds.last.max(cut.through);
    (cut, None)
}

/// How far a block was taken.
enum Taken {
    All,
    Full,
    Damaged(u64),
}

impl Cut {
    /// Nothing up to a sequence.
    pub fn nothing(through: u64) -> Self {
        Self { through, ..Self::default() }
    }

    fn take(&mut self, block: &Block, next: u64, wanted: &[bool], bounds: Bounds, is_checked: bool) -> Taken {
        let mut run = 0..0;
        let mut taken = Taken::All;
        for (sequence, entry) in (block.first_sequence..).zip(&block.entries) {
            if sequence < next {
                continue;
            }
            if sequence > bounds.last {
                break;
            }
            if wanted.get(entry.topic).is_some_and(|wanted| *wanted) {
                if self.count >= bounds.max_items || self.bytes >= bounds.max_bytes {
                    taken = Taken::Full;
                    break;
                }
                if !is_checked && !block.is_intact(entry) {
                    taken = Taken::Damaged(sequence);
                    break;
                }
                if run.end != entry.range.start {
                    self.push(block, &run);
                    run.start = entry.range.start;
                }
                run.end = entry.range.end;
                self.count += 1;
                self.bytes += entry.range.len();
            }
            self.through = sequence;
        }
        self.push(block, &run);
        taken
    }

    /// Neighbours leave as one slice.
    fn push(&mut self, block: &Block, run: &std::ops::Range<usize>) {
        if !run.is_empty() {
            self.items.push(block.body.slice(run.clone()));
        }
    }
}

/// Does something on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
