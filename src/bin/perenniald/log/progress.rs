//! The progress of a tool that reads the whole log: a bar on stderr, if that is a terminal and the read takes some time.

use std::{
    cell::Cell,
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A shorter read shows no bar.
const DELAY: Duration = Duration::from_millis(500);

const TEMPLATE: &str = "{wide_bar} {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";

/// The bar, if there is a terminal to show it on.
pub struct Progress {
    bar: Option<ProgressBar>,
    start: Instant,
    is_shown: Cell<bool>,
}

impl Progress {
    pub fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
            let style = ProgressStyle::with_template(TEMPLATE);
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, start: Instant::now(), is_shown: Cell::new(false) }
    }

    /// Records how many bytes of all were read.
    pub fn record(&self, done: u64, all: u64) {
        let Some(bar) = &self.bar else { return };
        bar.set_length(all);
        bar.set_position(done);
        if !self.is_shown.get() && self.start.elapsed() >= DELAY {
            self.is_shown.set(true);
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    /// Does something that prints, without the bar in its way.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Removes the bar.
    pub fn hide(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
