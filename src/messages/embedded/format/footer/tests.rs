#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{collections::BTreeMap, sync::Arc};

use super::*;

type Lists = BTreeMap<Arc<str>, List>;

const RUNS: [SparseEntry; 2] = [
    SparseEntry { offset: 48, first_sequence: 3, last_sequence: 9, min_time: 4, max_time: 6 },
    SparseEntry { offset: 70_000, first_sequence: 10, last_sequence: 12, min_time: 6, max_time: 9 },
];

/// Every topic has three messages; in every other one, each of these expires. Times go back.
fn lists<'a>(names: impl IntoIterator<Item = &'a str>) -> Lists {
    let mut lists = Lists::new();
    for (n, name) in (1_u32..).zip(names) {
        let mut list = List::default();
        for (sequence, time) in [(3, 6), (4, 4), (11, 9)] {
            let expires = u64::from(n % 2) * 1_000_000_000_000;
            let offset = u32::try_from(sequence).unwrap() * 100_000 + n;
            let posting = Posting { sequence, time, expires, offset, length: n, checksum: 7 };
            list.held.add(&posting);
            list.postings.push(posting);
        }
        assert_eq!((list.held.min_time, list.held.max_time, list.held.last.time), (4, 9, 9));
        lists.insert(name.into(), list);
    }
    lists
}

fn summary(lists: &Lists) -> Summary {
    let topics = lists.len() as u64;
    let (messages, ids) = (3 * topics, 2);
    Summary {
        first_sequence: 3,
        last_sequence: 12,
        last_time: 9,
        min_time: 4,
        max_time: 9,
        messages,
        ids,
        topics,
    }
}

fn bytes_of(lists: &Lists) -> Vec<u8> {
    let topics = lists.iter().map(|(name, list)| (name.as_ref(), list.held, list.postings.as_slice()));
    [vec![1; 100], to_bytes(100, &RUNS, topics, &summary(lists), 3)].concat()
}

fn file_of(bytes: &[u8]) -> (tempfile::TempDir, File) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("segment");
    std::fs::write(&path, bytes).unwrap();
    let file = File::Real(std::fs::File::open(&path).unwrap());
    (directory, file)
}

/// Everything that a footer says; `None` if a part of it is damaged.
fn read(bytes: &[u8]) -> Option<(Vec<SparseEntry>, Lists, Summary, u64)> {
    let (_directory, file) = file_of(bytes);
    let footer = Footer::read(&file, 3).unwrap()?;
    let runs = footer.runs(&file).unwrap().ok()?;
    let ranges = footer.ranges(&file).unwrap().ok()?;
    let mut lists = Lists::new();
    for place in 0..ranges.len() {
        let range = footer.range(&file, &ranges, place).unwrap().ok()?;
        assert_eq!(ranges.first_name(place), range.records().next().map(|record| record.name));
        for record in range.records() {
            let postings = footer.postings(&file, &record).unwrap().ok()?;
            assert_eq!(ranges.find(record.name), Some(place));
            assert_eq!(range.find(record.name).map(|found| found.held), Some(record.held));
            lists.insert(record.name.into(), List { held: record.held, postings });
        }
    }
    Some((runs, lists, footer.summary, footer.blocks_end()))
}

fn is_same(one: &Lists, other: &Lists) -> bool {
    let of = |lists: &Lists| {
        let list = |(name, list): (&Arc<str>, &List)| (name.clone(), list.held, list.postings.clone());
        lists.iter().map(list).collect::<Vec<_>>()
    };
    of(one) == of(other)
}

#[test]
fn a_footer_is_read_as_it_was_written_and_no_byte_of_it_can_change() {
    let lists = lists(["a", "b.c", "b.d", "z"]);
    let bytes = bytes_of(&lists);
    let (runs, read_lists, read_summary, end) = read(&bytes).unwrap();
    assert_eq!((runs.as_slice(), read_summary, end), (&RUNS[..], summary(&lists), 100));
    assert!(is_same(&read_lists, &lists));
    for at in 100..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(read(&flipped).is_none(), "byte {at}");
    }
}

#[test]
fn topics_in_many_ranges_are_found_and_others_are_not() {
    let names = (0..2_000).map(|n| format!("topic.{:05}", n * 3)).collect::<Vec<_>>();
    let lists = lists(names.iter().map(String::as_str));
    let bytes = bytes_of(&lists);
    assert!(is_same(&read(&bytes).unwrap().1, &lists));
    let (_directory, file) = file_of(&bytes);
    let footer = Footer::read(&file, 3).unwrap().unwrap();
    assert!(footer.is_whole(&file).unwrap());
    let ranges = footer.ranges(&file).unwrap().unwrap();
    assert!(ranges.len() > 4);
    for absent in ["a", "topic.00001", "topic.04000", "z"] {
        let place = ranges.find(absent);
        let range = place.map(|place| footer.range(&file, &ranges, place).unwrap().unwrap());
        assert!(range.is_none_or(|range| range.find(absent).is_none()), "{absent}");
    }
}

#[test]
fn a_footer_of_version_2_is_checked_once_and_then_range_by_range() {
    let names = (0..1_000).map(|n| format!("topic.{n:04}")).collect::<Vec<_>>();
    let mut lists = lists(names.iter().map(String::as_str));
    let topics = || lists.iter().map(|(name, list)| (name.as_ref(), list));
    let bytes = [vec![1; 100], version2::to_bytes(100, &RUNS, topics(), &summary(&lists), 3)].concat();
    let (runs, read_lists, read_summary, end) = read(&bytes).unwrap();
    assert_eq!((read_summary.messages, read_summary.last_time, end), (3_000, 9, 100));
    // Times are those of the first block of a run, and do not fall.
    assert_eq!(runs.iter().map(|run| (run.min_time, run.max_time)).collect::<Vec<_>>(), [(4, 6), (6, 9)]);
    for list in lists.values_mut() {
        (list.held.min_time, list.held.max_time) = (list.held.first.time, list.held.last.time);
        list.postings.iter_mut().for_each(|posting| posting.time = 0);
    }
    assert!(is_same(&read_lists, &lists));

    let (directory, file) = file_of(&bytes);
    let footer = Footer::read(&file, 3).unwrap().unwrap();
    let ranges = footer.ranges(&file).unwrap().unwrap();
    assert_eq!(ranges.len(), 8);
    // A byte of a record in the third range: it is found whichever way it changes after the first check.
    let at = usize::try_from(footer.blocks_end()).unwrap() + 2 * 28 + 300 * version2::RECORD_BYTES;
    for at in [at, at + 8, at + version2::RECORD_BYTES - 1] {
        let mut flipped = bytes.clone();
        flipped[at] ^= 4;
        std::fs::write(directory.path().join("segment"), &flipped).unwrap();
        let damaged = (0..8).filter(|place| footer.range(&file, &ranges, *place).unwrap().is_err());
        assert_eq!(damaged.collect::<Vec<_>>(), [2]);
    }
}
