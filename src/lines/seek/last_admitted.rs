//! Finds the start of the last lines that a filter admits, in steps: backward a part of the file at a time, and forward
//! within a part.

use std::{
    fs::File,
    io,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::locate;
use crate::{
    lines::content::{
        checkpoint::Checkpoint,
        fill::{self, Ended, Request},
        position::{HEAD, LinePosition, Within},
        pread::MAX_TRUNCATIONS,
        rules::Rules,
        split::{Bounds, End},
    },
    stream::BATCH_BYTES,
    wire::line,
};

/// The size of a part: long beside a line.
const PART_BYTES: u64 = 1024 * 1024;

/// The search. Its memory does not depend on the number of lines: a part with more lines than are wanted is read twice.
#[derive(Debug)]
pub struct LastAdmitted {
    file: Arc<File>,
    rules: Rules,
    count: u64,
    gone: Arc<AtomicBool>,
    /// How often the file was truncated during the search, which then starts again.
    truncations: usize,
    /// `None` before the size of the file is known.
    state: Option<State>,
}

#[derive(Debug)]
struct State {
    size: u64,
    /// The lines from here on were searched.
    end: u64,
    /// This many lines are still wanted.
    wanted: u64,
    best: LinePosition,
    part: Option<Part>,
}

/// A part of the file that is read.
#[derive(Debug)]
struct Part {
    begin: Checkpoint,
    /// The next read.
    request: Request,
    /// The lines that were found so far.
    found: u64,
    /// Where the first of them starts, after those to skip.
    first: Option<u64>,
    /// This many lines come before those that are wanted: known when the part is read for the second time.
    skip: u64,
}

impl LastAdmitted {
    /// A search for the last `count` lines, at least one, that the filter of `rules` admits.
    pub fn new(file: Arc<File>, count: u64, rules: Rules, gone: Arc<AtomicBool>) -> Self {
        Self { file, rules: Rules { until_line: None, ..rules }, count, gone, truncations: 0, state: None }
    }

    /// Searches for about [`SLICE`](crate::lines::content::filter::SLICE). Breaks with the start of the first of the lines
    /// that are wanted. If there are fewer, with the start of the first of them; without any, with the end of the last
    /// whole line.
    pub fn step(&mut self) -> ControlFlow<io::Result<Checkpoint>> {
        match self.advance() {
            Ok(None) => ControlFlow::Continue(()),
            Ok(Some(found)) => ControlFlow::Break(Ok(found)),
            Err(error)
                if error.kind() == io::ErrorKind::UnexpectedEof && self.truncations < MAX_TRUNCATIONS =>
            {
                self.truncations += 1;
                self.state = None;
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(Err(error)),
        }
    }

    fn advance(&mut self) -> io::Result<Option<Checkpoint>> {
        let Self { file, rules, gone, .. } = self;
        let Some(state) = &mut self.state else {
            let size = locate::size(file, gone)?;
            self.state = Some(State { size, end: size, wanted: self.count, best: HEAD, part: None });
            return Ok(None);
        };
        if let Some(mut part) = state.part.take() {
            if part.step(file, gone)? {
                state.end_part(part);
            } else {
                state.part = Some(part);
            }
            return Ok(None);
        }
        if state.end == 0 || state.wanted == 0 {
            return Checkpoint::at(&**file, state.best).map(Some);
        }
        let start = line_start(file, state.end, rules, gone)?;
        state.part = Some(Part::new(file, start, Rules { until_offset: Some(state.end), ..rules.clone() })?);
        Ok(None)
    }
}

impl State {
    /// Goes on after a part was read.
    fn end_part(&mut self, part: Part) {
        if part.found > self.wanted && part.skip == 0 {
            self.part = Some(part.again(self.wanted));
            return;
        }
        if let Some(first) = part.first {
            self.best = at(first);
        } else if self.end == self.size {
            self.best = part.request.checkpoint.line;
        }
        self.wanted = self.wanted.saturating_sub(part.found - part.skip.min(part.found));
        self.end = part.begin.line.offset;
    }
}

impl Part {
    fn new(file: &File, start: LinePosition, rules: Rules) -> io::Result<Self> {
        let request = Request {
            checkpoint: Checkpoint::at(file, start)?,
            bounds: Bounds { max_items: usize::MAX, max_bytes: BATCH_BYTES },
            rules: Arc::new(rules),
            flush: Some(End::Last),
            flush_at: None,
            end: None,
            settled: u64::MAX,
            checks_holes: false,
        };
        let begin = request.checkpoint;
        Ok(Self { begin, request, found: 0, first: None, skip: 0 })
    }

    /// The same part, to find the last `wanted` lines of it.
    fn again(self, wanted: u64) -> Self {
        let request = Request { checkpoint: self.begin, ..self.request };
        Self { request, found: 0, first: None, skip: self.found - wanted, ..self }
    }

    /// Reads on, for a slice of time. True at the end of the part.
    fn step(&mut self, file: &File, gone: &AtomicBool) -> io::Result<bool> {
        let filled = fill::fill(file, &self.request, gone)?;
        for start in line::starts(&filled.items) {
            if self.found >= self.skip {
                self.first.get_or_insert(start);
            }
            self.found += 1;
        }
        self.request.checkpoint = filled.checkpoint;
        match filled.ended {
            Ended::More | Ended::Hole(_) => Ok(false),
            Ended::End { .. } | Ended::Until | Ended::Unsettled { .. } => Ok(true),
            Ended::Truncated => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn at(offset: u64) -> LinePosition {
    LinePosition { offset, number: (offset == 0).then_some(1), within: Within::Start }
}

/// A start of a line about a part before `end`.
fn line_start(file: &File, end: u64, rules: &Rules, gone: &AtomicBool) -> io::Result<LinePosition> {
    let mut bytes = PART_BYTES;
    while let Some(from) = end.checked_sub(bytes).filter(|_| !locate::overlaps(rules.delimiter.bytes())) {
        // It need not be the second line of the file: the number only asks for the next line from there.
        let near = LinePosition { offset: from, number: Some(1), within: Within::Start };
        let (start, _) = locate::line(file, near, 2, &rules.delimiter, gone)?;
        if start.number == Some(2) && start.offset < end || gone.load(Ordering::Relaxed) {
            return Ok(at(start.offset));
        }
        // One line is longer than that.
        bytes = bytes.saturating_mul(2);
    }
    Ok(HEAD)
}
