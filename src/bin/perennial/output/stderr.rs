//! The output on stderr: errors, notes between two dashes, and the command that resumes.

use std::{
    io::{self, Write},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use anstyle::{AnsiColor, Style};
use indicatif::ProgressBar;

use super::{
    NOTE, Problem,
    harmless::{escape_json, harmless},
};
use crate::arguments::Format;

const ERROR: Style = AnsiColor::Red.on_default().bold();

/// A bar on stderr, which is hidden while a message is written.
static BAR: OnceLock<ProgressBar> = OnceLock::new();

/// Errors are printed as JSON.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Writes no message over this bar from now on.
pub fn keep_clear_of(bar: &ProgressBar) {
    // There is one bar in a run.
    let _ = BAR.set(bar.clone());
}

/// Prints errors from now on in the way that fits a format: as JSON with `-o json` and `-o ndjson`.
pub fn report_as(format: Format) {
    IS_JSON.store(matches!(format, Format::Json | Format::Ndjson), Ordering::Relaxed);
}

/// Prints an error: a sentence with details below it, or an object on one line.
pub fn report(problem: &Problem) {
    write(|| {
        if IS_JSON.load(Ordering::Relaxed) {
            let mut line = Vec::new();
            escape_json(&mut line, &problem.object());
            line.push(b'\n');
            return io::stderr().write_all(&line);
        }
        let (text, details) = problem.text();
        writeln!(anstream::stderr(), "{ERROR}error:{ERROR:#} {}", harmless(&text))?;
        details.iter().try_for_each(|detail| writeln!(io::stderr(), "  {}", harmless(detail)))
    });
}

/// Prints an error of this machine.
pub fn error(text: &str) {
    report(&Problem::local(text));
}

/// Prints what happened, as `-- text --`.
pub fn note(text: &str) {
    write(|| writeln!(anstream::stderr(), "{NOTE}-- {} --{NOTE:#}", harmless(text)));
}

/// Prints a line without changes: it is meant to be copied.
pub fn line(text: &str) {
    write(|| writeln!(io::stderr(), "{text}"));
}

/// Asks a question; the answer is typed on the same line.
pub fn question(text: &str) -> Question {
    write(|| write!(io::stderr(), "{}", harmless(text)));
    Question { is_answered: false }
}

/// A question on the last line of a terminal. Dropped without an answer, it ends that line, so that a shell's prompt
/// has a line of its own.
#[must_use = "a question that is dropped ends its line"]
pub struct Question {
    is_answered: bool,
}

impl Question {
    /// The answer was typed, and has ended the line.
    pub fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if !self.is_answered {
            line("");
        }
    }
}

fn write(write: impl FnOnce() -> io::Result<()>) {
    // A stderr that cannot be written to leaves nowhere to report that.
    let write = || {
        let _ = write();
    };
    match BAR.get() {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}
