//! A line on stderr that tells a person who waits how fast it goes.
//!
//! It is shown only where nothing else is printed on that terminal, and not for what is over at once.

use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::output;

/// What takes less long shows nothing.
const DELAY: Duration = Duration::from_millis(500);
/// Often enough for the eye.
const REDRAW: Duration = Duration::from_millis(100);

/// The line, or nothing where nobody would see it.
pub struct Rate {
    bar: Option<ProgressBar>,
    /// Since when it has something to show.
    since: Option<Instant>,
    /// What is not shown yet, and when it was shown last.
    more: u64,
    drawn: Instant,
    is_shown: bool,
}

impl Rate {
    /// After a template of indicatif, in which `{rate}` is the number a second.
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
        Self { bar, since: None, more: 0, drawn: Instant::now(), is_shown: false }
    }

    /// Somebody sees it, or will.
    pub fn is_on(&self) -> bool {
        self.bar.is_some()
    }

    /// So many more.
    pub fn took(&mut self, items: u64) {
        let Some(bar) = &self.bar else { return };
        let since = *self.since.get_or_insert_with(Instant::now);
        self.more += items;
        if self.drawn.elapsed() < REDRAW {
            return;
        }
        self.drawn = Instant::now();
        bar.inc(std::mem::take(&mut self.more));
        if !self.is_shown && since.elapsed() >= DELAY {
            self.is_shown = true;
            bar.set_draw_target(ProgressDrawTarget::stderr());
            output::keep_clear_of(bar);
        }
    }

    /// What `{msg}` stands for.
    pub fn say(&self, message: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(message);
        }
    }

    /// Takes it away, until there is more for a while.
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
    reason = "a count a second, not below zero"
)]
fn whole(rate: f64) -> u64 {
    rate as u64
}
