#![expect(clippy::unwrap_used, reason = "a test")]

use clap::Parser;
use perennial::proto::OnGap;

use super::*;
use crate::{
    arguments::{Arguments, Verb},
    quote,
};

fn parsed(line: &str) -> Lines {
    let words = ["perennial", "lines"].into_iter().chain(line.split(' '));
    match Arguments::try_parse_from(words).unwrap().verb {
        Verb::Lines(lines) => lines,
        _ => unreachable!("not lines"),
    }
}

fn request(line: &str) -> ReadLinesRequest {
    let lines = parsed(line);
    lines.request("a/b", None, Format::Text)
}

#[test]
fn each_option_is_a_field_of_the_request() {
    let plain = ReadLinesRequest { path: "a/b".into(), ..ReadLinesRequest::default() };
    assert_eq!(request("a/b"), plain);
    let follow = ReadLinesRequest { follow: true, ..plain.clone() };
    assert_eq!(request("a/b -f"), follow);
    let wait = ReadLinesRequest { wait_for_create: true, ..follow.clone() };
    for line in ["a/b -F", "a/b --wait-for-create", "a/b -f --wait-for-create"] {
        assert_eq!(request(line), wait, "{line}");
    }
    let all = "a/b -n 5 -f --until-line 7 --until-offset 0 --long-line truncate --max-line 64 \
               --partial-flush 200ms --delimiter \\0 --on-gap skip --limit 3 --max-batch 2 --heartbeat 1s";
    let expected = ReadLinesRequest {
        start: Some(Start::Last(5)),
        on_gap: OnGap::Skip.into(),
        until_line: Some(7),
        until_offset: Some(0),
        long_line: LongLine::Truncate.into(),
        limit: Some(3),
        heartbeat: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        max_batch: Some(2),
        partial_flush: Some(prost_types::Duration { seconds: 0, nanos: 200_000_000 }),
        delimiter: Some("\0".into()),
        max_line_bytes: Some(64),
        ..follow
    };
    assert_eq!(request(all), expected);
    let whole = ReadLinesRequest { history: true, ..plain };
    assert_eq!(request("a/b --history"), whole);
}

#[test]
fn a_filter_is_the_fields_of_the_request_and_is_kept_by_the_command_that_continues() {
    let request = |line: &str| {
        let asked = request(line);
        (asked.include, asked.exclude, asked.literal_patterns, asked.ignore_case)
    };
    let owned = |patterns: &[&str]| patterns.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    let given = "a/b --grep a --grep -b --exclude c";
    assert_eq!(request(given), (owned(&["a", "-b"]), owned(&["c"]), false, false));
    let inverted = "a/b --grep a --exclude c -v -i --fixed-strings";
    assert_eq!(request(inverted), (vec![], owned(&["a", "c"]), true, true));
    let words = quote::command(&parsed(&format!("{inverted} --grep -b$")).words("a/b", 2, "C"));
    let expected = "lines a/b --grep=a '--grep=-b$' --exclude=c -v -i --fixed-strings --cursor C";
    assert_eq!(words, expected);
    for line in ["a/b -v", "a/b --grep"] {
        let words = ["perennial", "lines"].into_iter().chain(line.split(' '));
        assert_eq!(Arguments::try_parse_from(words).unwrap_err().exit_code(), 2, "{line}");
    }
}

#[test]
fn raw_lines_keep_their_carriage_returns() {
    let delimiter = |line: &str| parsed(line).request("a/b", None, Format::Raw).delimiter;
    assert_eq!(delimiter("a/b").as_deref(), Some("\n"));
    assert_eq!(delimiter("a/b --delimiter \\0").as_deref(), Some("\0"));
}

#[test]
fn n_is_what_it_is_in_tail() {
    for (given, expected) in [
        ("10", Tail::Last(10)),
        ("0", Tail::Last(0)),
        ("-3", Tail::Last(3)),
        ("+7", Tail::FromLine(7)),
        ("+1", Tail::FromLine(1)),
        ("+0", Tail::FromLine(1)),
    ] {
        assert_eq!(tail(given).unwrap(), expected, "{given}");
    }
    for wrong in ["", "+", "-", "--3", "++3", "+-3", "3k", "99999999999999999999"] {
        assert!(tail(wrong).unwrap_err().contains("try 10"), "{wrong}");
    }
    assert_eq!(request("a/b -n +7").start, Some(Start::FromLine(7)));
    assert_eq!(request("a/b --tail 3").start, Some(Start::Last(3)));
}

#[test]
fn a_delimiter_is_read_as_it_is_written() {
    for (given, expected) in [
        ("\\0", "\0"),
        ("\\r\\n", "\r\n"),
        ("\\n---\\n", "\n---\n"),
        ("\\x1e", "\x1e"),
        ("\\t\\\\", "\t\\"),
        ("§", "§"),
        ("\\xc2\\xa7", "§"),
    ] {
        assert_eq!(unescape(given).unwrap(), expected, "{given}");
        assert_eq!(unescape(&escape(expected)).unwrap(), expected, "{given}");
    }
    for (wrong, why) in [
        ("", "0 bytes"),
        ("12345678901234567", "17 bytes"),
        ("\\", "at the end"),
        ("\\q", "\\q is unknown"),
        ("\\x1", "is not a byte"),
        ("\\x+1", "is not a byte"),
        ("\\xff", "not UTF-8"),
    ] {
        assert!(unescape(wrong).unwrap_err().contains(why), "{wrong}");
    }
}

#[test]
fn the_command_that_continues_has_all_that_still_matters() {
    let words = |line: &str| quote::command(&parsed(line).words("a/b", 2, "C"));
    assert_eq!(words("a/b -n 5"), "lines a/b --cursor C");
    assert_eq!(words("a/b c/d -F -n 5"), "lines a/b -H -F --cursor C");
    assert_eq!(words("a/b c/d -q"), "lines a/b --cursor C");
    assert_eq!(
        words(
            "a/b --until-line 9 --until-offset 99 --long-line skip --max-line 16 --partial-flush 1s --delimiter \\0"
        ),
        "lines a/b --until-line 9 --until-offset 99 --long-line skip --max-line 16 --partial-flush 1s \
         --delimiter '\\0' --cursor C"
    );
    let with_file = |line: &str| quote::command(&parsed(line).words_with_file(2, "F"));
    assert_eq!(
        with_file("a/b c/d -f -q -n 5 --max-batch 1 --limit 9 --resume F"),
        "lines a/b c/d -q -f --limit 9 --max-batch 1 --resume F"
    );
    assert_eq!(with_file("a/b --limit 9 --resume F"), "lines a/b --limit 7 --resume F");
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let refused = |line: &str, format| parsed(line).check(format).unwrap_err();
    assert!(refused("a/b c/d a/b", Format::Text).contains("a/b is given twice"));
    assert!(refused("a/b c/d --cursor C", Format::Text).contains("--resume"));
    assert!(refused("a/b c/d", Format::Raw).contains("--no-names"));
    assert!(parsed("a/b c/d -q").check(Format::Raw).is_ok());
    for line in ["a/b -q -H", "a/b --cursor C --resume F", "a/b --until-line 0", "a/b -n 1 --from-line 2"] {
        let words = ["perennial", "lines"].into_iter().chain(line.split(' '));
        assert_eq!(Arguments::try_parse_from(words).unwrap_err().exit_code(), 2, "{line}");
    }
}
