#![expect(clippy::unwrap_used, reason = "a test")]

use clap::Parser;

use super::*;
use crate::arguments::{Arguments, Verb};

/// A printer for a command line, and where it prints to.
fn printer(line: &str, is_terminal: bool) -> (Printer, Output) {
    let arguments = Arguments::try_parse_from(["perennial"].into_iter().chain(line.split(' '))).unwrap();
    let out = Output::over(Box::new(io::sink()), arguments.output, is_terminal, false);
    match arguments.verb {
        Verb::Lines(it) => (Printer::new(&it, &out), out),
        _ => unreachable!("not lines"),
    }
}

fn whole(text: &str) -> Line {
    Line { content: Some(line::Content::Text(text.into())), ..Line::default() }
}

fn piece(text: &str) -> Line {
    Line { has_more: true, ..whole(text) }
}

fn partial(text: &str) -> Line {
    Line { partial: true, ..whole(text) }
}

fn rest(line: Line) -> Line {
    Line { continued: true, ..line }
}

/// The output for lines of the streams with these numbers.
fn printed(line: &str, is_terminal: bool, lines: &[(usize, Line)]) -> String {
    let (mut printer, mut out) = printer(line, is_terminal);
    for (source, line) in lines {
        let response = ReadLinesResponse { lines: vec![line.clone()], ..ReadLinesResponse::default() };
        printer.print(&mut out, *source, &response).unwrap();
    }
    String::from_utf8(std::mem::take(&mut out.buffer)).unwrap()
}

const ONE: &str = "lines x/a";
const TWO: &str = "lines x/a x/b";

#[test]
fn a_line_of_several_files_has_the_name_before_it() {
    let lines = [(0, whole("1")), (1, whole("2")), (0, whole("3"))];
    assert_eq!(printed(TWO, false, &lines), "x/a: 1\nx/b: 2\nx/a: 3\n");
    assert_eq!(printed(TWO, true, &lines), "a | 1\nb | 2\na | 3\n");
    assert_eq!(printed("lines x/a x/b -q", false, &lines), "1\n2\n3\n");
    assert_eq!(printed("-o raw lines x/a x/b -q", false, &lines), "1\n2\n3\n");
    assert_eq!(printed(ONE, false, &lines[..1]), "1\n");
    assert_eq!(printed("lines x/a -H", false, &lines[..1]), "x/a: 1\n");
}

#[test]
fn an_object_of_several_files_has_its_path() {
    let lines = [(1, Line { offset: Some(7), ..whole("2") })];
    assert_eq!(
        printed("-o ndjson lines x/a x/b", false, &lines),
        "{\"path\":\"x/b\",\"offset\":7,\"text\":\"2\"}\n"
    );
    assert_eq!(printed("-o ndjson lines x/a x/b -q", false, &lines), "{\"offset\":7,\"text\":\"2\"}\n");
    let (mut printer, mut out) = printer("-o ndjson lines x/a x/b", false);
    let event = LineStreamEvent {
        event: Some(perennial::proto::line_stream_event::Event::Deleted(perennial::proto::FileDeleted {})),
    };
    let response = ReadLinesResponse { events: vec![event], ..ReadLinesResponse::default() };
    printer.print(&mut out, 0, &response).unwrap();
    assert_eq!(String::from_utf8_lossy(&out.buffer), "{\"deleted\":{},\"path\":\"x/a\"}\n");
}

#[test]
fn the_pieces_of_a_long_line_are_not_mixed_with_other_lines() {
    let lines = [
        (0, piece("long ")),
        (1, whole("other")),
        (0, rest(piece("er "))),
        (1, whole("more")),
        (0, rest(whole("line"))),
    ];
    assert_eq!(printed(TWO, false, &lines), "x/b: other\nx/b: more\nx/a: long er line\n");
    let (mut printer, mut out) = printer(TWO, false);
    printer.line(&mut out, 0, &piece("long ")).unwrap();
    assert!(printer.holds(0) && !printer.holds(1));
    printer.finish(&mut out, 0);
    assert!(!printer.holds(0));
    assert_eq!(String::from_utf8_lossy(&out.buffer), "x/a: long \n");
}

#[test]
fn the_held_pieces_have_a_limit() {
    let (mut printer, mut out) = printer(TWO, false);
    let mut at = piece(&"x".repeat(HELD_BYTES / 2));
    for _ in 0..2 {
        printer.line(&mut out, 0, &at).unwrap();
        at = rest(at);
    }
    assert!(!printer.holds(0));
    printer.line(&mut out, 1, &whole("other")).unwrap();
    printer.line(&mut out, 0, &rest(whole("end"))).unwrap();
    let text = String::from_utf8_lossy(&out.buffer);
    assert!(text.starts_with("x/a: xxx") && text.ends_with("xxx\nx/b: other\nx/a: end\n"));
}

#[test]
fn an_unfinished_line_is_shown_and_continued() {
    let lines = [(0, partial("user: ")), (0, rest(whole("root")))];
    assert_eq!(printed(ONE, false, &lines), "user: root\n");
    assert_eq!(printed(TWO, false, &lines), "x/a: user: root\n");
    let cut = [(0, partial("user: ")), (1, whole("other")), (0, rest(whole("root"))), (0, whole("next"))];
    assert_eq!(printed(TWO, false, &cut), "x/a: user: \nx/b: other\nx/a: root\nx/a: next\n");
    // Only its newline came later, and it was ended already.
    let ended = [(0, partial("done")), (1, whole("other")), (0, rest(whole(""))), (0, whole("next"))];
    assert_eq!(printed(TWO, false, &ended), "x/a: done\nx/b: other\nx/a: next\n");
    // The rest never came: the file was replaced.
    let replaced = [(0, partial("half")), (0, whole("new"))];
    assert_eq!(printed(ONE, false, &replaced), "half\nnew\n");
}

#[test]
fn raw_output_is_the_bytes_of_the_file() {
    let last = Line { no_newline: true, ..whole("2") };
    let lines = [(0, whole("1")), (0, last)];
    assert_eq!(printed("-o raw lines x/a", false, &lines), "1\n2");
    assert_eq!(printed(ONE, false, &lines), "1\n2\n");
    assert_eq!(printed("-o raw lines x/a --delimiter \\0", false, &lines), "1\x002");
    assert_eq!(printed("lines x/a --delimiter \\0", false, &lines), "1\n2\n");
    // With several files each line is ended, so that two lines are never joined.
    let both = [lines[1].clone(), (1, whole("3"))];
    assert_eq!(printed("-o raw lines x/a x/b -q", false, &both), "2\n3\n");
}

#[test]
fn a_person_sees_that_a_line_was_cut() {
    let lines = [(0, Line { truncated: true, ..whole("begin") })];
    assert_eq!(printed(ONE, true, &lines), "begin …\n");
    assert_eq!(printed(ONE, false, &lines), "begin\n");
    assert_eq!(printed("-o raw lines x/a", true, &lines), "begin\n");
}

#[test]
fn a_skipped_line_is_reported() {
    let (chosen, _) = printer("lines x/a --max-line 64", false);
    let line = Line { skipped: true, offset: Some(9), ..Line::default() };
    assert_eq!(chosen.skipped(&line), "the line at byte 9 skipped: longer than 64 bytes");
    let (default, _) = printer(ONE, false);
    let line = Line { number: Some(3), ..line };
    assert_eq!(default.skipped(&line), "line 3 skipped: longer than the server's limit");
    assert_eq!(printed(ONE, false, &[(0, line)]), "");
}
