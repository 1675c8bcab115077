//! A line on stderr that shows a person how fast a command goes.
//!
//! It is shown only if nothing else is printed on that terminal, and only for commands that take a while.

use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::output;

/// Commands that end earlier show nothing.
const DELAY: Duration = Duration::from_millis(500);
/// The time between redraws: short enough to look smooth.
const REDRAW: Duration = Duration::from_millis(100);

/// The line, or nothing if it would not be seen.
pub struct Rate {
    bar: Option<ProgressBar>,
    /// The time of the first item.
    since: Option<Instant>,
    /// The items that are not shown yet.
    unshown: u64,
    /// The time of the last redraw.
    drawn: Instant,
    is_shown: bool,
}

impl Rate {
    /// A line by a template of indicatif, in which `{rate}` is the number of items per second.
    pub fn new(template: &str, has_reader: bool) -> Self {
        let bar = has_reader.then(|| {
            let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                // A String takes anything.
                let _ = write!(out, "{}/s", HumanCount(whole(state.per_sec())));
            };
            let style = ProgressStyle::with_template(template);
            let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner()).with_key("rate", rate);
            ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_style(style)
        });
        Self { bar, since: None, unshown: 0, drawn: Instant::now(), is_shown: false }
    }

    /// Whether the line is shown, or will be.
    pub fn is_on(&self) -> bool {
        self.bar.is_some()
    }

    /// Counts further items.
    pub fn add(&mut self, items: u64) {
        let Some(bar) = &self.bar else { return };
        let since = *self.since.get_or_insert_with(Instant::now);
        self.unshown += items;
        if self.drawn.elapsed() < REDRAW {
            return;
        }
        self.drawn = Instant::now();
        bar.inc(std::mem::take(&mut self.unshown));
        if !self.is_shown && since.elapsed() >= DELAY {
            self.is_shown = true;
            bar.set_draw_target(ProgressDrawTarget::stderr());
            output::keep_clear_of(bar);
        }
    }

    /// Sets the text for `{msg}`.
    pub fn set_message(&self, message: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(message);
        }
    }

    /// Removes the line until further items arrive.
    pub fn hide(&mut self) {
        self.since = None;
        if std::mem::take(&mut self.is_shown)
            && let Some(bar) = &self.bar
        {
            bar.finish_and_clear();
            bar.set_draw_target(ProgressDrawTarget::hidden());
            bar.reset();
        }
    }
}

impl Drop for Rate {
    fn drop(&mut self) {
        self.hide();
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is not negative, and its fraction is not shown"
)]
fn whole(rate: f64) -> u64 {
    rate as u64
}
