//! The part of a terminal that is drawn again and again, below what was printed before.
//!
//! Promises that the cursor is visible again and the drawing is gone when this is dropped, and that a frame is written at
//! once. The modes of the terminal are left alone, so nothing is left to restore after a kill but the cursor.

use std::io::{self, Write};

use super::frame::Line;

// What terminals since the VT100 understand.
const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";
const CLEAR_LINE_BEHIND: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// The lines that are drawn, if any.
pub struct Screen<W: Write> {
    out: W,
    widths: Vec<usize>,
    is_cursor_hidden: bool,
}

impl<W: Write> Screen<W> {
    pub fn new(out: W) -> Self {
        Self { out, widths: Vec::new(), is_cursor_hidden: false }
    }

    /// Draws over what was drawn before, on a terminal of so many columns.
    pub fn draw(&mut self, lines: &[Line], columns: usize) -> io::Result<()> {
        let mut frame = self.home(columns);
        if !self.is_cursor_hidden {
            frame.push_str(HIDE_CURSOR);
        }
        frame.push_str(NO_WRAP);
        for (n, line) in lines.iter().enumerate() {
            if n > 0 {
                // A terminal in raw mode does not return by itself.
                frame.push_str("\r\n");
            }
            frame.push_str(line.text());
            frame.push_str(CLEAR_LINE_BEHIND);
        }
        frame.push_str(CLEAR_BELOW);
        frame.push_str(WRAP);
        // A ^C that the terminal echoes must not wrap.
        frame.push('\r');
        self.is_cursor_hidden = true;
        self.widths = lines.iter().map(Line::width).collect();
        self.write(&frame)
    }

    /// Takes all away.
    pub fn clear(&mut self, columns: usize) -> io::Result<()> {
        let mut frame = self.home(columns);
        if !self.widths.is_empty() {
            frame.push_str(CLEAR_BELOW);
        }
        if self.is_cursor_hidden {
            frame.push_str(SHOW_CURSOR);
        }
        self.is_cursor_hidden = false;
        self.widths.clear();
        self.write(&frame)
    }

    /// To the first column of the first line.
    fn home(&self, columns: usize) -> String {
        if self.widths.is_empty() {
            return String::new();
        }
        // A terminal that became narrower has wrapped what was drawn.
        let rows = self.widths.iter().map(|width| width.div_ceil(columns.max(1)).max(1)).sum::<usize>();
        if rows > 1 { format!("\r\x1b[{}A", rows - 1) } else { "\r".into() }
    }

    fn write(&mut self, frame: &str) -> io::Result<()> {
        self.out.write_all(frame.as_bytes())?;
        self.out.flush()
    }
}

impl<W: Write> Drop for Screen<W> {
    fn drop(&mut self) {
        // It was cleared, unless something went wrong: then nobody can be told.
        let _ = self.clear(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]
    use anstyle::Style;

    use super::*;

    fn line(text: &str) -> Line {
        let mut line = Line::new(80, false);
        line.push(Style::new(), text);
        line
    }

    fn drawn(draw: impl FnOnce(&mut Screen<&mut Vec<u8>>)) -> String {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out);
        draw(&mut screen);
        drop(screen);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_cursor_is_shown_again_and_the_drawing_goes_whatever_happens() {
        let text = drawn(|screen| screen.draw(&[line("a"), line("b")], 80).unwrap());
        assert!(text.starts_with(HIDE_CURSOR), "{text:?}");
        assert!(text.ends_with(&format!("\r\x1b[1A{CLEAR_BELOW}{SHOW_CURSOR}")), "{text:?}");
        assert_eq!(drawn(|screen| screen.clear(80).unwrap()), "");
    }

    #[test]
    fn a_frame_is_drawn_over_the_one_before_also_where_that_was_wrapped() {
        let text = drawn(|screen| {
            screen.draw(&[line("12345678"), line("b")], 80).unwrap();
            screen.draw(&[line("c")], 4).unwrap();
        });
        assert!(text.contains(&format!("\r\x1b[2A{NO_WRAP}c{CLEAR_LINE_BEHIND}{CLEAR_BELOW}")), "{text:?}");
    }
}
