//! The lines of several streams on one stdout.
//!
//! Promises that no line contains text of two streams. With several streams, a line that arrives in pieces is held until
//! it is complete. An unfinished line is shown at once, and is ended when another stream prints; its rest is then a line
//! of its own. A single stream is printed as it arrives.

use std::io;

use perennial::proto::{Line, LineStreamEvent, ReadLinesResponse, line};

use super::{event, names};
use crate::{
    arguments::{Format, Lines},
    json,
    output::{self, NOTE, Output},
};

/// The size above which the pieces of a line are printed unfinished: eight of the server's largest pieces.
const HELD_BYTES: usize = 8 * 1024 * 1024;

/// Prints the responses of streams.
pub struct Printer {
    paths: Vec<String>,
    /// The label before each line of a stream; empty if there is none.
    labels: Vec<Vec<u8>>,
    has_names: bool,
    /// Lines of several streams are printed.
    is_shared: bool,
    /// The text after a raw line.
    delimiter: Vec<u8>,
    max_line_bytes: Option<i32>,
    pieces: Vec<Pieces>,
    /// The stream whose line is printed, but not ended.
    open: Option<usize>,
}

/// The unfinished line of a stream.
#[derive(Default)]
struct Pieces {
    held: Vec<u8>,
    /// The first piece that is held is not the beginning of its line.
    is_continued: bool,
    /// The line was ended because another stream printed.
    is_broken: bool,
}

impl Printer {
    pub fn new(it: &Lines, out: &Output) -> Self {
        let mut printer = Self {
            pieces: Vec::new(),
            paths: Vec::new(),
            labels: Vec::new(),
            has_names: it.has_names(),
            is_shared: it.is_several(),
            delimiter: it.delimiter().as_bytes().to_vec(),
            max_line_bytes: it.max_line_bytes(),
            open: None,
        };
        printer.name(out, &it.paths());
        printer
    }

    /// Takes the paths of all streams. A stream keeps its number.
    pub fn name(&mut self, out: &Output, paths: &[String]) {
        self.labels = match out.format {
            Format::Text if self.has_names && out.is_terminal => names::aligned(paths, out.has_colour),
            Format::Text if self.has_names => names::plain(paths),
            _ => vec![Vec::new(); paths.len()],
        };
        self.pieces.resize_with(paths.len(), Pieces::default);
        self.paths = paths.to_vec();
    }

    /// Prints a response of a stream: its lines to stdout, its events to stderr.
    pub fn print(&mut self, out: &mut Output, source: usize, response: &ReadLinesResponse) -> io::Result<()> {
        if matches!(out.format, Format::Json | Format::Ndjson) {
            let path = self.paths.get(source).filter(|_| self.has_names);
            return json::lines(out, response, path.map(String::as_str));
        }
        response.events.iter().try_for_each(|event| self.event(out, source, event))?;
        response.lines.iter().try_for_each(|line| self.line(out, source, line))
    }

    /// Whether pieces of a stream are held.
    pub fn holds(&self, source: usize) -> bool {
        self.pieces.get(source).is_some_and(|it| !it.held.is_empty())
    }

    /// Prints the pieces that are held of a stream, because the stream is over.
    pub fn finish(&mut self, out: &mut Output, source: usize) {
        if let Some(pieces) = self.pieces.get_mut(source)
            && !pieces.held.is_empty()
        {
            let (text, is_continued) = (std::mem::take(&mut pieces.held), pieces.is_continued);
            let piece = Line { continued: is_continued, has_more: true, ..Line::default() };
            self.put(out, source, &text, &piece);
        }
        if self.open == Some(source) && (self.is_shared || out.escapes) {
            self.break_off(out);
        }
    }

    fn event(&mut self, out: &mut Output, source: usize, event: &LineStreamEvent) -> io::Result<()> {
        event::sentence(event).map_or(Ok(()), |text| self.note(out, source, &text))
    }

    /// Prints a note about a stream, after the lines that were printed before.
    fn note(&mut self, out: &mut Output, source: usize, text: &str) -> io::Result<()> {
        if out.escapes {
            self.break_off(out);
        }
        out.flush()?;
        match self.paths.get(source) {
            Some(path) if self.is_shared => output::note(&format!("{path}: {text}")),
            _ => output::note(text),
        }
        Ok(())
    }

    fn line(&mut self, out: &mut Output, source: usize, line: &Line) -> io::Result<()> {
        if line.skipped {
            return self.note(out, source, &self.skipped(line));
        }
        let text = content(line);
        let is_shared = self.is_shared;
        let Some(pieces) = self.pieces.get_mut(source).filter(|_| is_shared) else {
            self.put(out, source, text, line);
            return Ok(());
        };
        let (is_first, grown) = (pieces.held.is_empty(), pieces.held.len() + text.len());
        if is_first && !line.has_more {
            self.put(out, source, text, line);
            return Ok(());
        }
        pieces.held.extend_from_slice(text);
        if is_first {
            pieces.is_continued = line.continued;
        }
        if !line.has_more || grown >= HELD_BYTES {
            let (text, continued) = (std::mem::take(&mut pieces.held), pieces.is_continued);
            self.put(out, source, &text, &Line { continued, content: None, ..line.clone() });
        }
        Ok(())
    }

    /// Prints a text with the flags of a line.
    fn put(&mut self, out: &mut Output, source: usize, text: &[u8], line: &Line) {
        let goes_on = line.has_more || line.partial;
        if !(line.continued && self.open == Some(source)) {
            let was_broken = self.pieces.get_mut(source).is_some_and(|it| std::mem::take(&mut it.is_broken));
            if was_broken && line.continued && text.is_empty() && !goes_on {
                return; // The line is ended already.
            }
            self.break_off(out);
            out.buffer.extend_from_slice(self.labels.get(source).map_or(&[], Vec::as_slice));
        }
        out.text(text);
        if line.truncated && out.escapes {
            let style = if out.has_colour { NOTE } else { anstyle::Style::new() };
            out.buffer.extend_from_slice(format!("{style} …{style:#}").as_bytes());
        }
        self.open = goes_on.then_some(source);
        if !(goes_on || line.no_newline && self.is_bare(out)) {
            self.end(out);
        }
    }

    /// Ends a line whose rest is still to come.
    fn break_off(&mut self, out: &mut Output) {
        if let Some(source) = self.open.take()
            && !self.is_bare(out)
        {
            self.end(out);
            if let Some(pieces) = self.pieces.get_mut(source) {
                pieces.is_broken = true;
            }
        }
    }

    fn end(&self, out: &mut Output) {
        let raw = out.format == Format::Raw;
        out.buffer.extend_from_slice(if raw { &self.delimiter } else { b"\n" });
    }

    /// Whether only the bytes of the file are printed.
    fn is_bare(&self, out: &Output) -> bool {
        out.format == Format::Raw && !self.is_shared
    }

    fn skipped(&self, line: &Line) -> String {
        let which = match (line.number, line.offset) {
            (Some(number), _) => format!("line {number}"),
            (None, offset) => format!("the line at byte {}", offset.unwrap_or_default()),
        };
        let max = self.max_line_bytes.map(|max| format!("{max} bytes"));
        format!("{which} skipped: longer than {}", max.as_deref().unwrap_or("the server's limit"))
    }
}

fn content(line: &Line) -> &[u8] {
    match &line.content {
        Some(line::Content::Text(text)) => text.as_bytes(),
        Some(line::Content::Data(raw)) => raw,
        None => &[],
    }
}

#[cfg(test)]
mod tests;
