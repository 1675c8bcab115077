//! Where output goes: data through one buffer to stdout, and messages to stderr.
//!
//! On a terminal, control characters in text are escaped, so that a payload cannot move the cursor.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use anstream::{AutoStream, ColorChoice};
use anstyle::Style;
use rustix::{
    event::{PollFd, PollFlags, poll},
    time::Timespec,
};

use crate::arguments::Format;

mod connection;
mod harmless;
mod problem;
mod stderr;

pub use connection::Connection;
use harmless::escape_json;
pub use harmless::{escape, harmless};
pub use problem::Problem;
pub use stderr::{error, keep_clear_of, line, note, question, report, report_as};

/// The buffer is written out when it holds this many bytes, or when no item is ready.
const BUFFER_BYTES: usize = 128 * 1024;

/// The time between two checks that stdout still has a reader.
const READER_POLL: Duration = Duration::from_millis(500);

/// The style of text that is not data.
pub const NOTE: Style = Style::new().dimmed();

/// Stdout, buffered.
pub struct Output {
    pub buffer: Vec<u8>,
    pub format: Format,
    /// Whether control characters are escaped.
    pub escapes: bool,
    pub is_terminal: bool,
    pub has_colour: bool,
    stdout: Box<dyn Write>,
}

impl Output {
    pub fn new(format: Format) -> Self {
        let stdout = io::stdout().lock();
        let is_terminal = stdout.is_terminal();
        Self::over(Box::new(stdout), format, is_terminal, has_colour())
    }

    /// Writes to something else than stdout.
    pub fn over(stdout: Box<dyn Write>, format: Format, is_terminal: bool, has_colour: bool) -> Self {
        let escapes = is_terminal && format != Format::Raw;
        Self {
            buffer: Vec::with_capacity(2 * BUFFER_BYTES),
            format,
            escapes,
            is_terminal,
            has_colour,
            stdout,
        }
    }

    /// Appends text, escaped if it goes to a terminal.
    pub fn text(&mut self, bytes: &[u8]) {
        if self.escapes { escape(&mut self.buffer, bytes) } else { self.buffer.extend_from_slice(bytes) }
    }

    /// Appends an object, indented or on one line.
    pub fn object(&mut self, value: &impl serde::Serialize) -> io::Result<()> {
        let text = match self.format {
            Format::Json => serde_json::to_string_pretty(value)?,
            _ => serde_json::to_string(value)?,
        };
        if self.escapes {
            escape_json(&mut self.buffer, &text);
        } else {
            self.buffer.extend_from_slice(text.as_bytes());
        }
        self.buffer.push(b'\n');
        Ok(())
    }

    /// Writes the buffer out if it is large.
    pub fn relieve(&mut self) -> io::Result<()> {
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes the buffer out.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.stdout.write_all(&self.buffer)?;
        self.buffer.clear();
        self.stdout.flush()
    }
}

/// Whether stdout is a terminal with colours, and the environment allows them.
pub fn has_colour() -> bool {
    AutoStream::choice(&io::stdout()) != ColorChoice::Never
}

/// Ends when the reader of a pipe at stdout is gone. Without it, a quiet stream would notice only at its next item.
pub async fn reader_gone() -> io::Error {
    let is_gone = || {
        let stdout = io::stdout();
        let mut asked = [PollFd::new(&stdout, PollFlags::empty())];
        let polled = poll(&mut asked, Some(&Timespec::default()));
        polled.is_ok() && asked.iter().any(|it| it.revents().contains(PollFlags::ERR))
    };
    while !is_gone() {
        tokio::time::sleep(READER_POLL).await;
    }
    io::ErrorKind::BrokenPipe.into()
}
