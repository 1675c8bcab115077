//! How much of the files is read: one bar for all, for a person who waits.
//!
//! It is shown only where it does not stand between the lines, and not for a read that is over at once.

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

/// A bar, or nothing where nobody would see it.
pub struct Progress {
    bar: Option<ProgressBar>,
    places: Vec<Place>,
    until_offset: Option<i64>,
    start: Instant,
    is_shown: bool,
}

/// How far one of the streams is, in bytes.
#[derive(Clone, Copy, Default)]
struct Place {
    /// Where it began.
    first: Option<i64>,
    next: i64,
    end: i64,
}

impl Progress {
    pub fn new(sources: usize, follows: bool, until_offset: Option<i64>) -> Self {
        let has_reader = io::stderr().is_terminal() && !io::stdout().is_terminal();
        let bar = (has_reader && !follows).then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
            let style = ProgressStyle::with_template(TEMPLATE);
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self {
            bar,
            places: vec![Place::default(); sources],
            until_offset,
            start: Instant::now(),
            is_shown: false,
        }
    }

    /// Takes note of a response of a stream.
    pub fn took(&mut self, source: usize, response: &ReadLinesResponse) {
        let Some(bar) = &self.bar else { return };
        if let Some((place, (next, size))) =
            self.places.get_mut(source).zip(response.next_offset.zip(response.size))
        {
            place.took(next, self.until_offset.map_or(size, |until| until.min(size)));
        }
        let (done, all) = total(&self.places);
        bar.set_length(all);
        bar.set_position(done);
        if !self.is_shown && self.start.elapsed() >= DELAY {
            self.is_shown = true;
            bar.set_draw_target(ProgressDrawTarget::stderr());
            output::keep_clear_of(bar);
        }
    }

    /// Takes the bar away.
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

impl Place {
    fn took(&mut self, next: i64, end: i64) {
        // After a rotation the new file is read from its start.
        let first = self.first.unwrap_or(next).min(next);
        *self = Self { first: Some(first), next, end: end.max(next) };
    }
}

/// How many bytes were read, of how many to read.
fn total(places: &[Place]) -> (u64, u64) {
    let bytes = |from: i64, to: i64| u64::try_from(to.saturating_sub(from)).unwrap_or_default();
    places.iter().fold((0, 0), |(done, all), place| {
        let first = place.first.unwrap_or_default();
        (done + bytes(first, place.next), all + bytes(first, place.end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_counts_from_where_a_stream_began_and_over_all() {
        let mut places = [Place::default(); 2];
        assert_eq!(total(&places), (0, 0));
        places[0].took(900, 1_000);
        places[1].took(0, 100);
        assert_eq!(total(&places), (0, 200));
        places[0].took(950, 1_000);
        places[1].took(100, 100);
        assert_eq!(total(&places), (150, 200));
        // Rotated: another file, from its start.
        places[0].took(0, 10);
        assert_eq!(total(&places), (100, 110));
    }
}
