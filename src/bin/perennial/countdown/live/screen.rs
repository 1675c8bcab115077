//! The part of a terminal that is drawn over and over, below what was printed before.
//!
//! Between two frames the cursor stays at the first column of the first line. A terminal that is resized keeps the cursor
//! in its line, so the next frame begins where this one did, whatever the terminal did with the lines below: it may
//! have wrapped, cut or dropped them. With the cursor below the frame, a terminal that loses rows would push the first
//! lines of the frame into its history, and show them again above the frame when it grows.
//!
//! Promises that the cursor is visible again and the drawing is gone when this is dropped, and that a frame is written in
//! one call. It leaves the modes of the terminal alone, so after a kill only the cursor has to be restored.

use std::io::{self, Write};

use super::frame::Line;

// Sequences that terminals since the VT100 understand.
const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";
const CLEAR_REST_OF_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// The lines that are drawn, if any.
pub struct Screen<W: Write> {
    out: W,
    is_drawn: bool,
}

impl<W: Write> Screen<W> {
    pub fn new(out: W) -> Self {
        Self { out, is_drawn: false }
    }

    /// Draws lines over those of the last frame.
    pub fn draw(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut frame = String::from(if self.is_drawn { "\r" } else { HIDE_CURSOR });
        frame.push_str(NO_WRAP);
        for (n, line) in lines.iter().enumerate() {
            if n > 0 {
                // A terminal in raw mode needs the \r.
                frame.push_str("\r\n");
            }
            frame.push_str(line.text());
            frame.push_str(CLEAR_REST_OF_LINE);
        }
        frame.push_str(CLEAR_BELOW);
        frame.push_str(WRAP);
        frame.push('\r');
        if lines.len() > 1 {
            frame.push_str(&format!("\x1b[{}A", lines.len() - 1));
        }
        self.is_drawn = true;
        self.write(&frame)
    }

    /// Removes the lines.
    pub fn clear(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.is_drawn) {
            return Ok(());
        }
        self.write(&format!("\r{CLEAR_BELOW}{SHOW_CURSOR}"))
    }

    fn write(&mut self, frame: &str) -> io::Result<()> {
        self.out.write_all(frame.as_bytes())?;
        self.out.flush()
    }
}

impl<W: Write> Drop for Screen<W> {
    fn drop(&mut self) {
        // Nothing is left to clear after a normal end. After an error the terminal may be gone.
        let _ = self.clear();
    }
}

#[cfg(test)]
mod tests;
