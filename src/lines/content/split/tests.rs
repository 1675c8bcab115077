//! On memory: what a line is, whatever the chunks in which its bytes arrive.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use proptest::prelude::*;
use prost::Message;

use super::{super::position::HEAD, *};
use crate::proto::{self, line::Content};

/// Splits bytes that arrive in chunks, as a reader does; what is left at the end is flushed.
fn lines(bytes: &[u8], chunk: usize, bounds: &Bounds, rules: &Rules) -> Vec<proto::Line> {
    let mut position = HEAD;
    let (mut start, mut end) = (0, 0);
    let mut all = Vec::new();
    loop {
        let mut out = Encoded::default();
        start += split(&bytes[start..end], &mut position, bounds, rules, &mut out);
        let at_end = end == bytes.len();
        if out.count == 0 && at_end {
            start += flush(&bytes[start..], End::Last, &mut position, bounds, rules, &mut out);
        }
        if out.count == 0 && at_end {
            return all;
        }
        if out.count == 0 {
            end = (end + chunk).min(bytes.len());
        }
        assert!(out.count <= bounds.max_items);
        all.extend(proto::ReadLinesResponse::decode(out.items.as_slice()).unwrap().lines);
    }
}

fn bytes_of(line: &proto::Line) -> Vec<u8> {
    match line.content.clone().unwrap() {
        Content::Text(text) => text.into_bytes(),
        Content::Data(bytes) => bytes,
    }
}

const WIDE: Bounds = Bounds { max_items: 1000, max_bytes: 1 << 16 };

fn limit(max_line_bytes: usize) -> Rules {
    Rules { max_line_bytes: Some(max_line_bytes), ..Rules::default() }
}

#[test]
fn a_line_end_is_lf_or_cr_lf_and_nothing_else() {
    let all = lines(b"a\r\n\r\n\nb\rc\n\r", 1, &WIDE, &limit(1000));
    let contents = all.iter().map(bytes_of).collect::<Vec<_>>();
    assert_eq!(contents, [&b"a"[..], b"", b"", b"b\rc", b"\r"]);
    assert!(all[4].no_newline);
}

#[test]
fn a_cut_is_never_within_a_character() {
    let all = lines("aaaé€bbb\n".as_bytes(), 3, &WIDE, &limit(5));
    let texts = all.iter().map(|line| String::from_utf8(bytes_of(line)).unwrap()).collect::<Vec<_>>();
    assert_eq!(texts, ["aaaé", "€bb", "b"]);
    assert!(all.iter().all(|line| line.number == Some(1)));
}

proptest! {
    #[test]
    fn every_byte_is_in_one_line_whatever_the_chunks(
        bytes in proptest::collection::vec(prop_oneof![
            Just(b'\n'), Just(b'\r'), Just(b'a'), Just(0xc3), Just(0xa9), 1_u8..,
        ], 0..200),
        chunk in 1_usize..50,
        max_items in 1_usize..5,
        max_line_bytes in 4_usize..20,
    ) {
        let (bounds, rules) = (Bounds { max_items, max_bytes: 64 }, limit(max_line_bytes));
        let all = lines(&bytes, chunk, &bounds, &rules);
        prop_assert_eq!(&all, &lines(&bytes, bytes.len().max(1), &bounds, &rules));
        let (mut joined, mut naive) = (Vec::new(), Vec::new());
        for line in &all {
            let content = bytes_of(line);
            prop_assert!(content.len() <= max_line_bytes);
            let at = usize::try_from(line.offset.unwrap()).unwrap();
            prop_assert_eq!(&bytes[at..at + content.len()], content.as_slice());
            prop_assert_eq!(line.continued, !joined.is_empty());
            joined.push(content);
            if !line.has_more {
                naive.push(joined.concat());
                joined.clear();
            }
        }
        let mut expected = bytes.split(|byte| *byte == b'\n')
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line).to_vec())
            .collect::<Vec<_>>();
        // The last one has no newline: its CR is content, and where it is empty it is no line.
        let last = bytes.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        expected.pop();
        if !last.is_empty() {
            expected.push(last.to_vec());
        }
        prop_assert_eq!(naive, expected);
    }
}

/// What a line shows: its content, and its flags.
fn shown(lines: &[proto::Line]) -> Vec<String> {
    let flag = |set, name| if set { name } else { "" };
    let show = |line: &proto::Line| {
        let flags = [
            flag(line.continued, "<"),
            flag(line.has_more, ">"),
            flag(line.truncated, "!"),
            flag(line.skipped, "-"),
            flag(line.partial, "~"),
            flag(line.no_newline, "$"),
        ];
        String::from_utf8_lossy(&bytes_of(line)).into_owned() + &flags.concat()
    };
    lines.iter().map(show).collect()
}

#[test]
fn a_line_that_is_too_long_is_split_cut_or_skipped_and_the_next_one_is_whole() {
    let bytes = "short\naaaaabbbbbcc\r\nnext\ndddddé".as_bytes();
    for (long_line, expected) in [
        (LongLine::Split, &["short", "aaaaa>", "bbbbb<>", "cc<", "next", "ddddd>", "é<$"][..]),
        (LongLine::Truncate, &["short", "aaaaa!", "next", "ddddd!"]),
        (LongLine::Skip, &["short", "-", "next", "-"]),
    ] {
        for chunk in 1..20 {
            let all = lines(bytes, chunk, &WIDE, &Rules { long_line, ..limit(5) });
            assert_eq!(shown(&all), expected, "{long_line:?}, {chunk}");
            let numbers = all.iter().map(|line| line.number.unwrap()).collect::<Vec<_>>();
            assert!(numbers.is_sorted() && numbers.last() == Some(&4), "{numbers:?}");
        }
    }
}

#[test]
fn any_bytes_can_be_the_delimiter_also_across_reads() {
    for (delimiter, bytes, expected) in [
        (&b"\0"[..], &b"a\0\0b\nc\0d"[..], &["a", "", "b\nc", "d$"][..]),
        (b"\r\n", b"a\nb\r\n\r\nc\r", &["a\nb", "", "c\r$"]),
        (b"\n---\n", b"a\nb\n---\n---\n\n---\nc\n--", &["a\nb", "---\n", "c\n--$"]),
    ] {
        for chunk in 1..20 {
            let rules = Rules { delimiter: Delimiter::Bytes(delimiter.into()), ..limit(1000) };
            assert_eq!(shown(&lines(bytes, chunk, &WIDE, &rules)), expected, "{delimiter:?}, {chunk}");
        }
    }
}

#[test]
fn a_part_that_is_wanted_early_ends_with_a_character_and_without_half_a_delimiter() {
    let long = Rules { delimiter: Delimiter::Bytes(b"ab\n".as_slice().into()), ..limit(1000) };
    for (rules, part, taken) in [
        (&limit(1000), &b"abc"[..], 3),
        (&limit(1000), b"abc\r", 3),
        (&limit(1000), b"ab\xe2\x82", 2),
        (&limit(1000), b"ab\xe2\xff", 4),
        (&long, b"xxab", 2),
        (&long, b"xxa", 2),
        (&long, b"xxb", 3),
    ] {
        let (mut position, mut out) = (HEAD, Encoded::default());
        assert_eq!(flush(part, End::Partial, &mut position, &WIDE, rules, &mut out), taken, "{part:?}");
        assert_eq!((position.offset, position.within), (taken as u64, Within::Continued));
    }
}

#[test]
fn the_end_that_the_caller_asked_for_is_after_a_whole_line() {
    let bytes = b"one\ntwo\nthree\nfour\n";
    for (until_line, until_offset, expected) in [
        (Some(2), None, 2),
        (None, Some(4), 1),
        (None, Some(5), 2),
        (None, Some(0), 0),
        (Some(3), Some(5), 2),
        (Some(9), None, 4),
    ] {
        let rules = Rules { until_line, until_offset, ..limit(3) };
        let (mut position, mut out) = (HEAD, Encoded::default());
        split(bytes, &mut position, &WIDE, &rules, &mut out);
        let all = proto::ReadLinesResponse::decode(out.items.as_slice()).unwrap().lines;
        let whole = all.iter().filter(|line| !line.has_more).count();
        assert_eq!(whole, expected, "{until_line:?} {until_offset:?}");
    }
}

/// What lines are, the slow and plain way: one whole line after another, each cut as the rules say.
fn model(bytes: &[u8], rules: &Rules) -> Vec<String> {
    let delimiter = rules.delimiter.bytes();
    let strips = rules.delimiter == Delimiter::Newline;
    let (mut all, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let end = rest.windows(delimiter.len()).position(|window| window == delimiter);
        let line = &rest[..end.unwrap_or(rest.len())];
        let content = if strips && end.is_some() { line.strip_suffix(b"\r").unwrap_or(line) } else { line };
        all.extend(model_line(content, end.is_none(), rules));
        rest = end.map_or(&[], |end| &rest[end + delimiter.len()..]);
    }
    all
}

fn model_line(content: &[u8], no_newline: bool, rules: &Rules) -> Vec<String> {
    let (mut pieces, mut rest) = (Vec::new(), content);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let most = rules.line_limit();
    while rest.len() > most {
        let is_start = |at: &usize| rest[*at] & 0b1100_0000 != 0b1000_0000;
        let (piece, more) =
            rest.split_at((most - 3..=most).rev().filter(|at| *at > 0).find(is_start).unwrap_or(most));
        match rules.long_line {
            LongLine::Split => pieces.push(text(piece) + if pieces.is_empty() { ">" } else { "<>" }),
            LongLine::Truncate => return vec![text(piece) + "!"],
            LongLine::Skip => return vec!["-".into()],
        }
        rest = more;
    }
    let continued = if pieces.is_empty() { "" } else { "<" };
    pieces.push(text(rest) + continued + if no_newline { "$" } else { "" });
    pieces
}

proptest! {
    #[test]
    fn lines_are_as_the_plain_model_has_them_whatever_the_rules_and_the_chunks(
        bytes in proptest::collection::vec(prop_oneof![
            4 => Just(b'a'), 2 => Just(b'b'), 2 => Just(b'\n'), 2 => Just(b'\r'), 1 => Just(0xc3), 1 => Just(0xa9),
            1 => Just(0xff),
        ], 0..300),
        delimiter in proptest::option::of(proptest::collection::vec(
            prop_oneof![Just(b'a'), Just(b'b'), Just(b'\n'), Just(b'\r')], 1..5)),
        long_line in prop_oneof![Just(LongLine::Split), Just(LongLine::Truncate), Just(LongLine::Skip)],
        max_line_bytes in 4_usize..40,
        max_items in 1_usize..6,
        max_bytes in prop_oneof![1_usize..50, Just(1 << 16)],
        chunk in 1_usize..60,
    ) {
        let delimiter = delimiter.map_or(Delimiter::Newline, |bytes| Delimiter::Bytes(bytes.into()));
        let rules = Rules { delimiter, long_line, ..limit(max_line_bytes) };
        let all = lines(&bytes, chunk, &Bounds { max_items, max_bytes }, &rules);
        prop_assert_eq!(shown(&all), model(&bytes, &rules));
    }
}
