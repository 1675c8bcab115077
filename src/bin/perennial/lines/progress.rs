//! The progress of reading: one bar for all files.
//!
//! It is shown on a terminal that does not show the lines themselves, and only if the read takes some time.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use perennial::proto::ReadLinesResponse;

use crate::output;

/// A shorter read shows no bar.
const DELAY: Duration = Duration::from_millis(500);

const TEMPLATE: &str = "{wide_bar} {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";

/// The bar, if there is a terminal to show it on.
pub struct Progress {
    bar: Option<ProgressBar>,
    ranges: Vec<Range>,
    until_offset: Option<i64>,
    start: Instant,
    is_shown: bool,
}

/// The offsets of one stream.
#[derive(Clone, Copy, Default)]
struct Range {
    /// The offset at which it began.
    first: Option<i64>,
    next: i64,
    end: i64,
}

impl Progress {
    pub fn new(follows: bool, until_offset: Option<i64>) -> Self {
        let has_reader = io::stderr().is_terminal() && !io::stdout().is_terminal();
        let bar = (has_reader && !follows).then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
            let style = ProgressStyle::with_template(TEMPLATE);
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, ranges: Vec::new(), until_offset, start: Instant::now(), is_shown: false }
    }

    /// Records a response of a stream.
    pub fn record(&mut self, source: usize, response: &ReadLinesResponse) {
        let Some(bar) = &self.bar else { return };
        if self.ranges.len() <= source {
            self.ranges.resize(source + 1, Range::default());
        }
        if let Some((range, (next, size))) =
            self.ranges.get_mut(source).zip(response.next_offset.zip(response.size))
        {
            range.record(next, self.until_offset.map_or(size, |until| until.min(size)));
        }
        let (done, all) = total(&self.ranges);
        bar.set_length(all);
        bar.set_position(done);
        if !self.is_shown && self.start.elapsed() >= DELAY {
            self.is_shown = true;
            bar.set_draw_target(ProgressDrawTarget::stderr());
            output::keep_clear_of(bar);
        }
    }

    /// Removes the bar.
    pub fn hide(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.hide();
    }
}

impl Range {
    fn record(&mut self, next: i64, end: i64) {
        // After a rotation the new file is read from its start.
        let first = self.first.unwrap_or(next).min(next);
        *self = Self { first: Some(first), next, end: end.max(next) };
    }
}

/// The bytes that were read, and those that are to be read in all.
fn total(ranges: &[Range]) -> (u64, u64) {
    let bytes = |from: i64, to: i64| u64::try_from(to.saturating_sub(from)).unwrap_or_default();
    ranges.iter().fold((0, 0), |(done, all), range| {
        let first = range.first.unwrap_or_default();
        (done + bytes(first, range.next), all + bytes(first, range.end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_the_sum_over_all_streams_from_their_starts() {
        let mut ranges = [Range::default(); 2];
        assert_eq!(total(&ranges), (0, 0));
        ranges[0].record(900, 1_000);
        ranges[1].record(0, 100);
        assert_eq!(total(&ranges), (0, 200));
        ranges[0].record(950, 1_000);
        ranges[1].record(100, 100);
        assert_eq!(total(&ranges), (150, 200));
        // Rotated: another file, from its start.
        ranges[0].record(0, 10);
        assert_eq!(total(&ranges), (100, 110));
    }
}
