//! What is known of the log in memory: where pages of blocks begin, and in which pages each topic occurs.
//!
//! A page is a run of blocks of a segment, of [`PAGE_BYTES`] or a little more: it is read as a whole. A page costs 48
//! bytes; a topic costs its name and four bytes for each page that it occurs in.

use std::{collections::BTreeMap, fs::File, ops::Bound, sync::Arc};

use super::block::Block;
use crate::messages::topic::Pattern;

/// How much of a segment is read at once: a batch or two, so that little is read in vain for a slow or narrow reader.
pub const PAGE_BYTES: u64 = 64 * 1024;

/// A run of blocks.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    segment: usize,
    start: u64,
    end: u64,
    first_sequence: u64,
    last_sequence: u64,
    time: u64,
}

/// Where the bytes of a page are.
#[derive(Clone, Debug)]
pub struct Extent {
    /// The segment.
    pub file: Arc<File>,
    /// Its first byte.
    pub start: u64,
    /// Behind its last byte.
    pub end: u64,
    /// The sequences that it holds, all of them.
    pub first_sequence: u64,
    /// The last of them.
    pub last_sequence: u64,
    /// No other page holds a sequence from here to this one.
    pub through: u64,
}

/// What is known of a topic. Times are in nanoseconds since 1970.
#[derive(Clone, Debug, Default)]
pub struct Topic {
    /// How many messages.
    pub messages: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Sequence and time of the oldest.
    pub first: (u64, u64),
    /// Sequence and time of the newest.
    pub last: (u64, u64),
    pages: Vec<u32>,
}

/// What is known of the log.
#[derive(Debug, Default)]
pub struct Index {
    segments: Vec<Arc<File>>,
    pages: Vec<Page>,
    topics: BTreeMap<Arc<str>, Topic>,
}

impl Index {
    /// Begins a segment.
    pub fn add_segment(&mut self, file: Arc<File>) {
        self.segments.push(file);
    }

    /// Takes note of a block of the newest segment.
    pub fn add(&mut self, block: &Block, start: u64, end: u64) {
        let segment = self.segments.len().saturating_sub(1);
        match self.pages.last_mut() {
            Some(page)
                if page.segment == segment
                    && page.end == start
                    && page.last_sequence + 1 == block.first_sequence
                    && page.end - page.start < PAGE_BYTES =>
            {
                page.end = end;
                page.last_sequence = block.last_sequence();
            }
            _ => {
                let (first_sequence, last_sequence, time) =
                    (block.first_sequence, block.last_sequence(), block.time);
                self.pages.push(Page { segment, start, end, first_sequence, last_sequence, time });
            }
        }
        let page = u32::try_from(self.pages.len() - 1).unwrap_or(u32::MAX);
        for (sequence, entry) in (block.first_sequence..).zip(&block.entries) {
            let Some(name) = block.topics.get(entry.topic) else { continue };
            if !self.topics.contains_key(name) {
                let first = (sequence, block.time);
                self.topics.insert(name.clone(), Topic { first, ..Topic::default() });
            }
            let Some(topic) = self.topics.get_mut(name) else { continue };
            topic.messages += 1;
            topic.bytes += entry.range.len() as u64;
            topic.last = (sequence, block.time);
            if topic.pages.last() != Some(&page) {
                topic.pages.push(page);
            }
        }
    }

    /// What is known of a topic.
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    /// How many topics there are.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// The topics behind a name, by name.
    pub fn topics_after(&self, after: Option<&str>) -> impl Iterator<Item = (&Arc<str>, &Topic)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.topics.range::<str, _>((start, Bound::Unbounded))
    }

    /// The page that holds a sequence, or the first one behind it, and in which any of the patterns occurs.
    pub fn page_of(&self, sequence: u64, patterns: &[Pattern]) -> Option<usize> {
        let page = self.pages.partition_point(|page| page.first_sequence <= sequence).saturating_sub(1);
        self.next_page(page, patterns)
    }

    /// The first page from this one on in which any of the patterns occurs. Only literal patterns are looked up: a
    /// wildcard may match topics without number.
    fn next_page(&self, page: usize, patterns: &[Pattern]) -> Option<usize> {
        let next = |pattern: &Pattern| match pattern.literal() {
            None => (page < self.pages.len()).then_some(page),
            Some(topic) => {
                let pages = &self.topics.get(topic)?.pages;
                let at =
                    pages.partition_point(|found| usize::try_from(*found).is_ok_and(|found| found < page));
                usize::try_from(*pages.get(at)?).ok()
            }
        };
        patterns.iter().filter_map(next).min()
    }

    /// The last page before this one in which any of the patterns occurs.
    pub fn page_before(&self, page: usize, patterns: &[Pattern]) -> Option<usize> {
        let before = |pattern: &Pattern| match pattern.literal() {
            None => page.min(self.pages.len()).checked_sub(1),
            Some(topic) => {
                let pages = &self.topics.get(topic)?.pages;
                let at =
                    pages.partition_point(|found| usize::try_from(*found).is_ok_and(|found| found < page));
                usize::try_from(*pages.get(at.checked_sub(1)?)?).ok()
            }
        };
        patterns.iter().filter_map(before).max()
    }

    /// How many pages there are.
    pub fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// The last page that begins before a time, in which the first message of that time or later may be.
    pub fn page_at(&self, time: u64) -> Option<usize> {
        if self.pages.is_empty() {
            return None;
        }
        Some(self.pages.partition_point(|page| page.time < time).saturating_sub(1))
    }

    /// Where a page is.
    pub fn extent(&self, page: usize) -> Option<Extent> {
        let Page { segment, start, end, first_sequence, last_sequence, .. } = *self.pages.get(page)?;
        let next = self.pages.get(page + 1).map_or(u64::MAX, |next| next.first_sequence);
        let file = self.segments.get(segment)?.clone();
        Some(Extent { file, start, end, first_sequence, last_sequence, through: next.saturating_sub(1) })
    }
}
