//! The layout of the display: from the state of a countdown to lines of a given width. It does not draw them.

use anstyle::{AnsiColor, Style};
use jiff::{SignedDuration, Zoned};
use perennial::proto::CountdownState;

use super::digits;
use crate::{countdown::event, output::NOTE, time};

const NAME: Style = Style::new().bold();
const RUNNING: Style = AnsiColor::Green.on_default();
const LAST_SECONDS: Style = AnsiColor::Yellow.on_default().bold();
const PAUSED: Style = AnsiColor::Yellow.on_default();
const CANCELLED: Style = AnsiColor::Red.on_default();
const PLAIN: Style = Style::new();

/// The remaining time below which tenths of a second are shown.
pub const TENTHS: SignedDuration = SignedDuration::from_secs(10);
/// A longer bar is no easier to read.
const MAX_BAR_COLUMNS: usize = 40;
/// The width of the bar in a single line.
const SMALL_BAR_COLUMNS: usize = 20;
/// The margin before each of several lines.
const MARGIN: &str = "  ";
/// The digits, an empty line, the bar and the line below it.
const LARGE_ROWS: usize = digits::ROWS + 3;

/// The size of a terminal.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub columns: usize,
    pub rows: usize,
}

/// The content of a frame.
#[derive(Clone, Debug)]
pub struct Shown {
    pub name: Option<String>,
    pub state: CountdownState,
    /// `None` until it is known.
    pub left: Option<SignedDuration>,
    pub total: Option<SignedDuration>,
    pub end: Option<jiff::Timestamp>,
    /// The last number, unless it equals the remaining seconds.
    pub number: Option<i32>,
    pub lateness: Option<String>,
    /// The last event.
    pub note: Option<String>,
}

/// A line that is cut at the width of the terminal.
#[derive(Clone, Debug)]
pub struct Line {
    text: String,
    width: usize,
    room: usize,
    has_colour: bool,
}

impl Line {
    pub fn new(columns: usize, has_colour: bool) -> Self {
        Self { text: String::new(), width: 0, room: columns, has_colour }
    }

    /// Appends as much text as fits, without control characters.
    pub fn push(&mut self, style: Style, text: &str) {
        let free = self.room.saturating_sub(self.width);
        let text = text.chars().filter(|char| !char.is_control()).take(free).collect::<String>();
        self.width += text.chars().count();
        if self.has_colour && !text.is_empty() {
            self.text += &format!("{style}{text}{style:#}");
        } else {
            self.text += &text;
        }
    }

    pub fn text(&self) -> &str {
        &self.text
    }
}

/// The lines for a terminal: fewer than it has rows, and a single one if it is narrow or short.
pub fn frame(it: &Shown, size: Size, has_colour: bool, clock: &Zoned) -> Vec<Line> {
    let left = it.left.map_or_else(|| "-:--".into(), clock_face);
    let room = size.columns.saturating_sub(MARGIN.len());
    let further = [it.lateness.as_ref(), it.note.as_ref()].into_iter().flatten().collect::<Vec<_>>();
    let scale = [2, 1].into_iter().find(|scale| digits::width(&left, *scale) <= room);
    let line = || Line::new(size.columns, has_colour);
    let Some(scale) = scale.filter(|_| LARGE_ROWS + further.len() < size.rows && it.left.is_some()) else {
        return vec![single(it, &left, line(), clock)];
    };
    let with = |style, text: &str| {
        let mut line = line();
        line.push(PLAIN, MARGIN);
        line.push(style, text);
        line
    };
    let mut lines = digits::lines(&left, scale).iter().map(|row| with(style(it), row)).collect::<Vec<_>>();
    lines.push(line());
    let mut below = with(PLAIN, "");
    // After the bar: ` 100 %`.
    bar(&mut below, it, MAX_BAR_COLUMNS.min(room.saturating_sub(6)));
    lines.push(below);
    let mut below = with(PLAIN, "");
    words(&mut below, it, clock);
    lines.push(below);
    lines.extend(further.into_iter().map(|text| with(NOTE, text)));
    lines
}

/// Everything in one line: the most important part comes first, because the end may be cut.
fn single(it: &Shown, left: &str, mut line: Line, clock: &Zoned) -> Line {
    line.push(style(it), left);
    if line.room >= 3 * SMALL_BAR_COLUMNS {
        line.push(PLAIN, MARGIN);
        bar(&mut line, it, SMALL_BAR_COLUMNS);
    }
    line.push(PLAIN, MARGIN);
    words(&mut line, it, clock);
    for text in [&it.lateness, &it.note].into_iter().flatten() {
        line.push(NOTE, " · ");
        line.push(NOTE, text);
    }
    line
}

fn words(line: &mut Line, it: &Shown, clock: &Zoned) {
    if let Some(name) = &it.name {
        line.push(NAME, name);
        line.push(NOTE, " · ");
    }
    line.push(style(it), event::state(it.state));
    if let (CountdownState::Running, Some(end)) = (it.state, it.end) {
        line.push(NOTE, &format!(" · ends at {}", time::on_the_wall(end, clock)));
    }
    if let Some(number) = it.number {
        line.push(NOTE, &format!(" · number {number}"));
    }
}

/// The share of the total time that has passed.
fn bar(line: &mut Line, it: &Shown, columns: usize) {
    let share = match it.left.zip(it.total) {
        Some((left, total)) if total.is_positive() => {
            1.0 - (left.as_secs_f64() / total.as_secs_f64()).clamp(0.0, 1.0)
        }
        _ => 0.0,
    };
    let done = portion(share, columns);
    line.push(style(it), &"█".repeat(done));
    line.push(NOTE, &"░".repeat(columns - done));
    line.push(NOTE, &format!(" {:>3} %", portion(share, 100)));
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of a small whole"
)]
fn portion(share: f64, whole: usize) -> usize {
    ((share * whole as f64) as usize).min(whole)
}

fn style(it: &Shown) -> Style {
    match it.state {
        CountdownState::Running if it.left.is_some_and(|left| left < TENTHS) => LAST_SECONDS,
        CountdownState::Running | CountdownState::Ended => RUNNING,
        CountdownState::Paused => PAUSED,
        CountdownState::Cancelled => CANCELLED,
        CountdownState::Unspecified => PLAIN,
    }
}

/// The remaining time as a clock shows it: `1:02:03`. It is rounded up, so that it is zero only at the end.
fn clock_face(left: SignedDuration) -> String {
    if left < TENTHS {
        let tenths = time::ceiling(left, 100_000_000);
        return if tenths < 100 { format!("0:{:02}.{}", tenths / 10, tenths % 10) } else { "0:10".into() };
    }
    let seconds = time::ceiling(left, 1_000_000_000);
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}:{seconds:02}"),
        (0, hours) => format!("{hours}:{minutes:02}:{seconds:02}"),
        (days, hours) => format!("{days}d {hours:02}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests;
