#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{cell::RefCell, rc::Rc};

use anstyle::Style;

use super::*;

/// A terminal that resizes as tmux does: it wraps lines that became too long, drops rows below the cursor before it
/// pushes rows into its history, and takes rows back from its history when it grows.
struct Terminal {
    columns: usize,
    rows: usize,
    lines: Vec<Row>,
    /// The first line that is not in the history.
    top: usize,
    /// The line of the cursor, and its column.
    cursor: (usize, usize),
}

#[derive(Clone, Default)]
struct Row {
    text: Vec<char>,
    /// The next row is the rest of this one.
    is_wrapped: bool,
}

impl Terminal {
    fn new(columns: usize, rows: usize) -> Self {
        Self { columns, rows, lines: vec![Row::default(); rows], top: 0, cursor: (0, 0) }
    }

    fn write(&mut self, text: &str) {
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            match char {
                '\r' => self.cursor.1 = 0,
                '\n' => self.newline(),
                '\x1b' => {
                    let rest = chars.as_str();
                    let end = rest.find(|char: char| char.is_ascii_alphabetic()).unwrap();
                    self.sequence(&rest[1..end], &rest[end..=end]);
                    chars = rest[end + 1..].chars();
                }
                _ => {
                    let (line, column) = self.cursor;
                    let text = &mut self.lines[line].text;
                    text.resize(text.len().max(column + 1), ' ');
                    text[column] = char;
                    self.cursor.1 = (column + 1).min(self.columns - 1);
                }
            }
        }
    }

    fn newline(&mut self) {
        self.cursor.0 += 1;
        if self.cursor.0 == self.lines.len() {
            self.lines.push(Row::default());
            self.top += 1;
        }
    }

    fn sequence(&mut self, number: &str, letter: &str) {
        let (line, column) = self.cursor;
        match letter {
            "A" => self.cursor.0 = line.saturating_sub(number.parse().unwrap()).max(self.top),
            "K" => self.lines[line].text.truncate(column),
            "J" => {
                self.lines[line].text.truncate(column);
                self.lines[line + 1..].fill(Row::default());
            }
            _ => assert!(number.starts_with('?'), "{number}{letter}"),
        }
    }

    fn resize(&mut self, columns: usize, rows: usize) {
        let lost = self.rows.saturating_sub(rows);
        let below = self.lines.len() - 1 - self.cursor.0;
        self.lines.truncate(self.lines.len() - lost.min(below));
        self.top += lost - lost.min(below);
        for _ in self.rows..rows {
            if self.top > 0 { self.top -= 1 } else { self.lines.push(Row::default()) }
        }
        (self.columns, self.rows) = (columns, rows);
        self.wrap();
    }

    fn wrap(&mut self) {
        let (mut lines, mut cursor) = (Vec::new(), 0);
        let mut whole = Vec::new();
        for (n, row) in std::mem::take(&mut self.lines).into_iter().enumerate() {
            if n == self.cursor.0 {
                cursor = lines.len();
            }
            whole.extend(row.text);
            if row.is_wrapped {
                continue;
            }
            let text = std::mem::take(&mut whole);
            let count = text.len().div_ceil(self.columns).max(1);
            for part in 0..count {
                let text = text.iter().skip(part * self.columns).take(self.columns).copied().collect();
                lines.push(Row { text, is_wrapped: part + 1 < count });
            }
        }
        while lines.len() < self.rows {
            lines.push(Row::default());
        }
        self.top = lines.len() - self.rows;
        self.cursor.0 = cursor.max(self.top);
        self.lines = lines;
    }

    fn shown(&self) -> Vec<String> {
        let text = |row: &Row| row.text.iter().collect::<String>().trim_end().to_owned();
        let mut shown = self.lines[self.top..].iter().map(text).collect::<Vec<_>>();
        let used = shown.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
        shown.truncate(used);
        shown
    }
}

/// A terminal as the stdout of a screen.
#[derive(Clone)]
struct Shared(Rc<RefCell<Terminal>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(std::str::from_utf8(bytes).unwrap());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn line(text: &str) -> Line {
    let mut line = Line::new(80, false);
    line.push(Style::new(), text);
    line
}

/// A frame of several lines on a terminal with room, and of one on another.
fn frame(terminal: &Shared) -> Vec<Line> {
    let (columns, rows) = (terminal.0.borrow().columns, terminal.0.borrow().rows);
    let wide = "#".repeat(48.min(columns - 1));
    match rows {
        ..=8 => vec![line(&wide)],
        _ => vec![line("one"), line("two"), line("three"), line(""), line(&wide)],
    }
}

#[test]
fn a_terminal_that_shrinks_and_grows_shows_one_frame_and_all_that_was_above_it() {
    let sizes = [(80, 6), (40, 24), (40, 6), (60, 3), (30, 12), (200, 50)];
    for lines_before in [2, 15, 23, 60] {
        for small in sizes {
            let terminal = Shared(Rc::new(RefCell::new(Terminal::new(80, 24))));
            let mut screen = Screen::new(terminal.clone());
            for n in 0..lines_before {
                terminal.0.borrow_mut().write(&format!("$ {n}\r\n"));
            }
            screen.draw(&frame(&terminal)).unwrap();
            for (columns, rows) in [small, (80, 24), (70, 10), small, (80, 24)] {
                terminal.0.borrow_mut().resize(columns, rows);
                screen.draw(&frame(&terminal)).unwrap();
                screen.draw(&frame(&terminal)).unwrap();
                let shown = terminal.0.borrow().shown();
                let texts = frame(&terminal).iter().map(|line| line.text().to_owned()).collect::<Vec<_>>();
                let (above, drawn) = shown.split_at(shown.len() - texts.len());
                assert_eq!(drawn, texts, "{lines_before} {small:?} {columns}x{rows}: {shown:#?}");
                assert!(
                    above.iter().all(|it| it.starts_with("$ ")),
                    "{small:?} {columns}x{rows}: {shown:#?}"
                );
            }
            drop(screen);
            let all = terminal.0.borrow().lines.clone();
            let left = all.iter().filter(|row| row.text.first() == Some(&'$')).count();
            assert_eq!(left, lines_before, "{small:?}");
            assert!(terminal.0.borrow().shown().iter().all(|it| it.starts_with("$ ")), "{small:?}");
        }
    }
}

fn written(draw: impl FnOnce(&mut Screen<&mut Vec<u8>>)) -> String {
    let mut out = Vec::new();
    let mut screen = Screen::new(&mut out);
    draw(&mut screen);
    drop(screen);
    String::from_utf8(out).unwrap()
}

#[test]
fn the_drawing_is_cleared_and_the_cursor_shown_when_the_screen_is_dropped() {
    let text = written(|screen| screen.draw(&[line("a"), line("b")]).unwrap());
    assert!(text.starts_with(HIDE_CURSOR), "{text:?}");
    assert!(text.ends_with(&format!("\r{CLEAR_BELOW}{SHOW_CURSOR}")), "{text:?}");
    assert_eq!(written(|screen| screen.clear().unwrap()), "");
}
