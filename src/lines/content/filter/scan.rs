//! One pass through the lines of a chunk: which of them a filter admits.

use std::{sync::Arc, time::Instant};

use memchr::{memchr, memchr_iter, memrchr};

use super::{
    SLICE, TESTED_BYTES,
    engines::Engine,
    pattern::{Caches, Pattern},
};

/// The text that is searched at once, if it has whole lines: long beside the start of a search, and short beside
/// [`TESTED_BYTES`], because a search does not yield.
const REGION_BYTES: usize = 8 * 1024;

/// Tests the lines of a chunk, in order. When it is dropped, its thread keeps the caches of its searches.
#[derive(Debug)]
pub struct Scan {
    engine: Arc<Engine>,
    include: Search,
    exclude: Search,
    /// Up to here, the chunk has whole lines that can be searched together.
    end: usize,
    /// No CR is among them, so that a match in the chunk is one in its line. `None` until a line is tested.
    is_exact: Option<bool>,
    began: Instant,
}

#[derive(Debug)]
struct Search {
    caches: Option<Caches>,
    /// The end of the next match in the whole lines; [`usize::MAX`] if there is no other one; `None` if it is not known.
    next: Option<usize>,
}

/// A line in a chunk.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    pub chunk: &'a [u8],
    /// Where it starts.
    pub start: usize,
    /// Its content, or the part that is known.
    pub content: &'a [u8],
    /// How much of that is delivered first.
    pub piece: usize,
}

impl Scan {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        let search = |pattern: Option<&Pattern>, caches: Option<Caches>| Search {
            caches: caches.or_else(|| pattern.map(Pattern::caches)),
            next: None,
        };
        let [include, exclude] = engine.take_caches();
        let include = search(engine.include.as_ref(), include);
        let exclude = search(engine.exclude.as_ref(), exclude);
        Self { engine, include, exclude, end: 0, is_exact: None, began: Instant::now() }
    }

    /// Whether a line is delivered. A line is tested by the piece of it that is delivered first.
    pub fn admits(&mut self, line: &Line<'_>) -> bool {
        self.search_from(line.chunk, line.start);
        let Self { engine, include, exclude, end, is_exact, .. } = self;
        let rest = || line.chunk.get(line.start..*end).unwrap_or_default();
        let is_exact = *is_exact.get_or_insert_with(|| memchr(b'\r', rest()).is_none());
        let include = engine.include.as_ref().is_none_or(|it| include.has(it, line, *end, is_exact));
        include && !engine.exclude.as_ref().is_some_and(|it| exclude.has(it, line, *end, is_exact))
    }

    /// How many bytes from `start`, where a line starts, are whole lines that are not delivered; and how many lines.
    pub fn skip(&mut self, chunk: &[u8], start: usize, counts: bool) -> Option<(usize, u64)> {
        self.search_from(chunk, start);
        let end = self.end;
        let pattern = self.engine.include.as_ref().filter(|it| it.has_chunks() && start < end)?;
        let next = self.include.next(pattern, chunk, start, end).min(end);
        let lines = chunk.get(start..next)?;
        let bytes = memrchr(b'\n', lines)? + 1;
        let counted = lines.get(..bytes).filter(|_| counts);
        let count = counted.map_or(0, |lines| memchr_iter(b'\n', lines).count());
        Some((bytes, count as u64))
    }

    /// Whether the scan has taken its slice of time, and would go on with the next lines from here.
    pub fn is_over(&self, start: usize) -> bool {
        start >= self.end && self.began.elapsed() >= SLICE
    }

    /// Moves on to the next whole lines of the chunk, if `start` is after those before.
    fn search_from(&mut self, chunk: &[u8], start: usize) {
        if start < self.end {
            return;
        }
        let ahead = chunk.get(start..).unwrap_or_default();
        let ahead = ahead.get(..REGION_BYTES).unwrap_or(ahead);
        self.end = start + memrchr(b'\n', ahead).map_or(0, |last| last + 1);
        (self.include.next, self.exclude.next, self.is_exact) = (None, None, None);
    }
}

impl Search {
    /// The end of the next match at or after the start of a line.
    fn next(&mut self, pattern: &Pattern, chunk: &[u8], start: usize, end: usize) -> usize {
        match self.next {
            Some(next) if next >= start => next,
            _ => {
                let lines = chunk.get(..end).unwrap_or_default();
                let caches = self.caches.as_mut();
                let next = caches.and_then(|caches| pattern.find(caches, lines, start..end));
                *self.next.insert(next.unwrap_or(usize::MAX))
            }
        }
    }

    fn has(&mut self, pattern: &Pattern, line: &Line<'_>, end: usize, is_exact: bool) -> bool {
        let Line { chunk, start, content, piece } = *line;
        let line_end = start + content.len();
        if pattern.has_chunks() && line_end < end {
            // A CR that is not content may be between the content and the line feed.
            let next = self.next(pattern, chunk, start, end);
            if next > line_end + 1 || next > line_end && is_exact {
                return false;
            }
            if is_exact && piece >= content.len() {
                return true;
            }
        }
        let caches = self.caches.as_mut();
        caches.is_some_and(|caches| pattern.matches(caches, content, piece.min(TESTED_BYTES)))
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        self.engine.keep_caches([self.include.caches.take(), self.exclude.caches.take()]);
    }
}
