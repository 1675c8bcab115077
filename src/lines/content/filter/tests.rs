//! On memory: which lines a filter admits, against one search a line.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use proptest::prelude::*;
use prost::Message;
use regex_automata::{Input, meta::Regex};

use super::*;
use crate::{
    lines::{
        Delimiter, LongLine, Rules,
        content::{
            position::{HEAD, Within},
            split::{Bounds, Encoded, End, flush, split},
        },
    },
    proto::{self, line::Content},
};

fn patterns(include: &[&str], exclude: &[&str]) -> Patterns {
    let owned = |patterns: &[&str]| patterns.iter().map(|it| (*it).to_owned()).collect();
    Patterns { include: owned(include), exclude: owned(exclude), ..Patterns::default() }
}

fn rules(patterns: &Patterns, delimiter: Delimiter, max_line_bytes: usize) -> Rules {
    let filter = Engines::default().filter(patterns, &delimiter).unwrap();
    Rules { filter, delimiter, max_line_bytes: Some(max_line_bytes), ..Rules::default() }
}

/// The lines that a filter admits of bytes that arrive in chunks, in batches of a few lines.
fn admitted(bytes: &[u8], chunk: usize, max_items: usize, rules: &Rules) -> Vec<proto::Line> {
    let bounds = Bounds { max_items, max_bytes: 1 << 16 };
    let mut position = HEAD;
    let (mut start, mut end) = (0, 0);
    let mut all = Vec::new();
    loop {
        let mut out = Encoded::default();
        let used = split(&bytes[start..end], &mut position, &bounds, rules, &mut out);
        start += used;
        let at_end = end == bytes.len();
        if rules.is_end(&position) && out.count == 0 {
            return all;
        }
        if used == 0 && at_end {
            let used = flush(&bytes[start..], End::Last, &mut position, &bounds, rules, &mut out);
            start += used;
            if used == 0 {
                return all;
            }
        }
        if used == 0 {
            end = (end + chunk).min(bytes.len());
        }
        assert!(out.count <= max_items && position.offset == start as u64);
        let number = memchr::memchr_iter(b'\n', &bytes[..start]).count() as u64 + 1;
        let is_lines = *rules.delimiter.bytes() == *b"\n";
        assert!(!is_lines || position.within != Within::Start || position.number == Some(number));
        all.extend(proto::ReadLinesResponse::decode(out.items.as_slice()).unwrap().lines);
    }
}

fn content(line: &proto::Line) -> Vec<u8> {
    match line.content.clone().unwrap() {
        Content::Text(text) => text.into_bytes(),
        Content::Data(bytes) => bytes,
    }
}

/// The same from the lines of an unfiltered read: each is searched by itself.
fn naive(lines: &[proto::Line], bytes: &[u8], include: &[&str], exclude: &[&str]) -> Vec<proto::Line> {
    let build = |pattern: &&str| {
        let syntax = regex_automata::util::syntax::Config::new().utf8(false);
        let config = Regex::config().utf8_empty(false);
        Regex::builder().syntax(syntax).configure(config).build(pattern).unwrap()
    };
    let (include, exclude) =
        (include.iter().map(build).collect::<Vec<_>>(), exclude.iter().map(build).collect::<Vec<_>>());
    let mut all = Vec::new();
    let mut is_in = false;
    for (n, line) in lines.iter().enumerate() {
        if !line.continued {
            let rest = lines[n..].iter().skip(1).take_while(|next| next.continued);
            let length = content(line).len() + rest.map(|line| content(line).len()).sum::<usize>();
            let start = usize::try_from(line.offset.unwrap()).unwrap();
            let whole = &bytes[start..start + length];
            let has = |regex: &Regex| regex.is_match(Input::new(whole).range(..content(line).len()));
            is_in = (include.is_empty() || include.iter().any(has)) && !exclude.iter().any(has);
        }
        if is_in {
            all.push(line.clone());
        }
    }
    all
}

const SAMPLES: [&str; 25] = [
    "a",
    "b+",
    "^a",
    "b$",
    "^$",
    "a.b",
    "a[^b]b",
    r"\s",
    r"\bb\b",
    r"\Ba",
    "é",
    "(?i)É",
    r"(?-u)\xc3",
    r"(?m)^b",
    r"(?m)a$",
    r"(?R)a$",
    r"(?R)^b",
    r"(?Rm)a$",
    r"(?Rm)^b",
    r"\r(?Rm:^)",
    r"\r",
    r"a\nb",
    r"(?s)a.*b",
    r"x*",
    r"\z",
];

fn sample() -> impl Strategy<Value = Vec<&'static str>> {
    proptest::collection::vec(proptest::sample::select(SAMPLES.to_vec()), 0..3)
}

proptest! {
    #[test]
    fn a_filter_admits_the_lines_that_a_search_of_each_line_finds_whatever_the_chunks(
        bytes in proptest::collection::vec(prop_oneof![
            3 => Just(b'\n'), 1 => Just(b'\r'), 4 => Just(b'a'), 4 => Just(b'b'), 1 => Just(b' '),
            1 => Just(0xc3), 1 => Just(0xa9), 1 => 1_u8..,
        ], 0..200),
        include in sample(),
        exclude in sample(),
        chunk in 1_usize..300,
        max_items in 1_usize..5,
        max_line_bytes in prop_oneof![4_usize..20, Just(1000)],
        delimiter in prop_oneof![Just(None), Just(Some("\n")), Just(Some("b\n"))],
    ) {
        let delimiter = Delimiter::parse(delimiter).unwrap();
        let of = |include: &[&str], exclude: &[&str]| {
            rules(&patterns(include, exclude), delimiter.clone(), max_line_bytes)
        };
        let lines = admitted(&bytes, bytes.len().max(1), 1000, &of(&[], &[]));
        let expected = naive(&lines, &bytes, &include, &exclude);
        let found = admitted(&bytes, chunk, max_items, &of(&include, &exclude));
        prop_assert_eq!(&found, &expected);
        // The end of the lines that are wanted does not change which of them match.
        let until = Rules { until_offset: Some(bytes.len() as u64 / 2), ..of(&include, &exclude) };
        let before = expected.iter().filter(|line| line.offset.unwrap() < until.until_offset.unwrap().cast_signed());
        let before = &expected[..before.count()];
        let found = admitted(&bytes, chunk, max_items, &until);
        let starts = |lines: &[proto::Line]| lines.iter().filter(|line| !line.continued).count();
        prop_assert!(expected.starts_with(&found) && starts(&found) == starts(before));
    }
}

/// Such a CR is content, and ends the line for an anchor that takes CR and LF for its ends.
#[test]
fn a_carriage_return_before_a_line_feed_that_ends_lines_by_itself() {
    let delimiter = Delimiter::parse(Some("\n")).unwrap();
    for pattern in [r"\r(?Rm:^)", r"a(?Rm:$)"] {
        let lines =
            admitted(b"a\r\nb\n", 100, 100, &rules(&patterns(&[pattern], &[]), delimiter.clone(), 100));
        assert_eq!(lines.iter().map(content).collect::<Vec<_>>(), [b"a\r"], "{pattern}");
    }
}

#[test]
fn literals_and_case() {
    let log = "a.b\nA.B\naxb\nÄ(\nä(\n";
    let found = |text: &str, are_literal, ignore_case| {
        let patterns = Patterns { are_literal, ignore_case, ..patterns(&[text], &[]) };
        let lines = admitted(log.as_bytes(), 5, 100, &rules(&patterns, Delimiter::Newline, 100));
        lines.iter().map(|line| String::from_utf8(content(line)).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(found("a.b", false, false), ["a.b", "axb"]);
    assert_eq!(found("a.b", true, false), ["a.b"]);
    assert_eq!(found("a.b", true, true), ["a.b", "A.B"]);
    assert_eq!(found("ä(", true, true), ["Ä(", "ä("]);
}

#[test]
fn a_long_line_is_delivered_whole_or_not_by_its_first_piece() {
    let long = format!("{}needle{}\n", "x".repeat(100), "y".repeat(100));
    for long_line in [LongLine::Split, LongLine::Truncate, LongLine::Skip] {
        for (max_line_bytes, pattern, is_in) in [
            (64, "needle", false),
            (106, "needle", true),
            (64, "x", true),
            (64, "x$", false),
            (105, "e", true),
        ] {
            let rules =
                Rules { long_line, ..rules(&patterns(&[pattern], &[]), Delimiter::Newline, max_line_bytes) };
            for chunk in [1, 70, 1000] {
                let lines = admitted(format!("{long}needle x\n").as_bytes(), chunk, 100, &rules);
                let pieces = lines.iter().filter(|line| line.number == Some(1)).count();
                let expected =
                    if long_line == LongLine::Split { 206_usize.div_ceil(max_line_bytes) } else { 1 };
                assert_eq!(pieces, if is_in { expected } else { 0 }, "{pattern} {max_line_bytes} {chunk}");
            }
        }
    }
}

#[test]
fn a_part_that_is_not_admitted_is_left_to_be_tested_again() {
    let rules = rules(&patterns(&["ERROR"], &[]), Delimiter::Newline, 100);
    let bounds = Bounds { max_items: 10, max_bytes: 1000 };
    for (end, part, used) in [
        (End::Partial, "ERR", 0),
        (End::Last, "ERR", 0),
        (End::Partial, "ERROR", 5),
        (End::Last, "an ERROR", 8),
    ] {
        let (mut position, mut out) = (HEAD, Encoded::default());
        assert_eq!(flush(part.as_bytes(), end, &mut position, &bounds, &rules, &mut out), used, "{part}");
        assert_eq!(out.count, usize::from(used > 0));
        let within = if used > 0 { Within::Continued } else { Within::Start };
        assert_eq!(position.within, within, "{part}");
    }
    // A hole is passed, and the line with it.
    let (mut position, mut out) = (HEAD, Encoded::default());
    assert_eq!(flush(b"ERR", End::Hole, &mut position, &bounds, &rules, &mut out), 3);
    assert_eq!((out.count, position.within), (0, Within::Dropped));
}

#[test]
fn patterns_that_cannot_be_used_are_refused() {
    let refused = |include: &[&str], exclude: &[&str]| {
        let patterns = patterns(include, exclude);
        match Engines::default().filter(&patterns, &Delimiter::Newline) {
            Err(Error::Pattern { field, fault }) => (field, fault),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(&["a"; 65], &[]), ("include", PatternFault::Count(65)));
    assert_eq!(refused(&[&"a".repeat(4000)], &[&"b".repeat(97)]), ("exclude", PatternFault::Bytes(4097)));
    assert_eq!(refused(&["a"], &["b", ""]), ("exclude", PatternFault::Empty));
    let (field, fault) = refused(&["ok", "a(b"], &[]);
    assert_eq!(
        (field, fault.to_string()),
        ("include", "the pattern a(b: unclosed group at byte 1".to_owned())
    );
    // A text counts by how it overlaps itself.
    for fine in ["ab".repeat(20), "a b c d ".repeat(20), format!("{}b", "a".repeat(200)), "x".repeat(4000)] {
        let is_fine = Engines::default().filter(&patterns(&[&fine], &[]), &Delimiter::Newline).is_ok();
        assert_eq!(is_fine, fine.len() < 4000, "{fine}");
    }
    for too_large in [r"\w{1000}", "(a{1000}){1000}", "((a{100}){100}){100}", "a[ab]{2000}"] {
        assert_eq!(refused(&[], &[too_large]), ("exclude", PatternFault::Size), "{too_large}");
    }
    assert!(matches!(refused(&[&"(".repeat(2000)], &[]), (_, PatternFault::Syntax { .. })));
    for fine in [r"\w+\s+\d{1,3}", "(?i)error|warn(ing)?", r"\w{5}", r"^\S+ \S+ \[[^\]]+\]"] {
        assert!(
            Engines::default().filter(&patterns(&[fine; 2], &[fine]), &Delimiter::Newline).is_ok(),
            "{fine}"
        );
    }
}

#[test]
fn equal_filters_share_an_engine_and_different_ones_have_a_bound() {
    const MOST: usize = 2 * 1024 * 1024;
    let engines = Engines::up_to(MOST);
    let filter = |text: &str| engines.filter(&patterns(&[text], &[]), &Delimiter::Newline).unwrap().unwrap();
    let (one, other) = (filter("a+b"), filter("a+b"));
    assert!(one == other && Arc::ptr_eq(&one.0.engine(), &other.0.engine()));
    assert_eq!(engines.kept().0, 1);
    let used = filter("used[0-9]");
    let mut most = 0;
    let filters = (0..40).map(|n| {
        let filter = filter(&format!(r"{n}x\w\d\W{{3}}"));
        used.scan();
        most = most.max(engines.kept().1);
        filter
    });
    let filters = filters.collect::<Vec<_>>();
    let (kept, bytes) = engines.kept();
    assert!(most > MOST / 2 && most <= MOST && bytes <= MOST, "{most} {bytes}");
    assert!(kept > 1 && kept < 40, "{kept}");
    // The one that is used all the time was kept. One that was given up is compiled again, and finds the same.
    let is_kept = |filter: &Filter| filter.0.engine.lock().unwrap().upgrade().is_some();
    assert!(is_kept(&used) && !is_kept(&one) && !is_kept(&filters[0]));
    let finds = |filter: &Filter, text: &str| {
        let line = Line { chunk: &[], start: 0, content: text.as_bytes(), piece: text.len() };
        filter.scan().admits(&line)
    };
    for (n, filter) in filters.iter().enumerate().step_by(13) {
        assert!(finds(filter, &format!("a {n}xé7---")) && !finds(filter, &format!("{n}xé7--a")), "{n}");
    }
    assert!(is_kept(&filters[0]) && engines.kept().1 <= MOST);
}
