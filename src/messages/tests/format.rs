//! Reads a log by the numbers of `docs/log-format.md`, and by nothing else of this crate.

use std::collections::BTreeMap;

use super::*;

fn number<const BYTES: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number[..BYTES].copy_from_slice(&bytes[at..at + BYTES]);
    u64::from_le_bytes(number)
}

fn size(bytes: &[u8], at: usize) -> usize {
    usize::try_from(number::<4>(bytes, at)).unwrap()
}

fn place(bytes: &[u8], at: usize) -> usize {
    usize::try_from(number::<8>(bytes, at)).unwrap()
}

fn crc(bytes: &[u8]) -> u64 {
    crc32c::crc32c(bytes).into()
}

/// The checksum at `at` is that of all before, and begins with a salt.
fn check(bytes: &[u8], at: usize, salt: u32) {
    assert_eq!(number::<4>(bytes, at), u64::from(crc32c::crc32c_append(salt, &bytes[..at])));
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

fn text<'a>(bytes: &mut &'a [u8]) -> &'a str {
    let (text, rest) = bytes[1..].split_at(bytes[0].into());
    *bytes = rest;
    std::str::from_utf8(text).unwrap()
}

fn checksum(bytes: &mut &[u8]) -> u64 {
    let checksum = number::<4>(bytes, 0);
    *bytes = &bytes[4..];
    checksum
}

/// topic, sequence, place in the file, length, checksum, expiry
type Seen = (String, u64, usize, usize, u64, u64);

#[derive(Default)]
struct Found {
    messages: Vec<Seen>,
    /// offset, first sequence, last sequence, time
    blocks: Vec<(usize, u64, u64, u64)>,
    ids: Vec<String>,
    /// id, first sequence
    incarnations: Vec<(u64, u64)>,
    end: usize,
    next_sequence: Option<u64>,
}

/// The log, and its salt. `before`: the identity and the first sequence of the segment before it.
fn header(bytes: &[u8], name: u64, before: Option<(u64, u64)>) -> ([u8; 16], u32) {
    assert_eq!(&bytes[..8], b"PRNLSEG\n");
    assert_eq!((number::<4>(bytes, 8), number::<8>(bytes, 32)), (3, name));
    check(&bytes[..52], 48, 0);
    check(&bytes[52..256], 200, 0);
    let (id, first) = before.unwrap_or_default();
    let end = if before.is_some() { name } else { 0 };
    assert_eq!([60, 68, 76].map(|at| number::<8>(bytes, at)), [id, first, end]);
    // All messages are of one run.
    let incarnations = u64::from(before.is_some());
    assert_eq!((number::<4>(bytes, 84), number::<8>(bytes, 96)), (incarnations, incarnations));
    (bytes[12..28].try_into().unwrap(), u32::try_from(number::<4>(bytes, 28)).unwrap())
}

fn records(bytes: &[u8], salt: u32) -> Found {
    let mut found = Found { end: 256, ..Found::default() };
    loop {
        let rest = &bytes[found.end..];
        if rest.starts_with(b"PEND") {
            check(rest, 12, salt);
            found.next_sequence = Some(number::<8>(rest, 4));
            found.end += 16;
        } else if rest.starts_with(b"PINC") {
            check(rest, 20, salt);
            found.incarnations.push((number::<8>(rest, 4), number::<8>(rest, 12)));
            found.end += 24;
        } else if rest.starts_with(b"PBLK") {
            block(rest, salt, &mut found);
        } else {
            return found;
        }
    }
}

fn block(rest: &[u8], salt: u32, found: &mut Found) {
    let (table_bytes, body_bytes) = (size(rest, 4), size(rest, 8));
    let body_at = 52 + table_bytes;
    let checked = crc32c::crc32c_append(crc32c::crc32c_append(salt, &rest[..48]), &rest[52..body_at]);
    assert_eq!(number::<4>(rest, 48), u64::from(checked));
    let mut table = &rest[52..body_at];
    let topics = (0..size(rest, 16)).map(|_| text(&mut table).to_owned()).collect::<Vec<_>>();
    let (first, last) = (number::<8>(rest, 24), number::<8>(rest, 32));
    let (mut sequence, mut at) = (first, body_at);
    for _ in 0..size(rest, 12) {
        let topic = topics[usize::try_from(varint(&mut table)).unwrap()].clone();
        sequence += varint(&mut table);
        let length = usize::try_from(varint(&mut table)).unwrap();
        let checksum = checksum(&mut table);
        let expires = varint(&mut table);
        assert_eq!(checksum, crc(&rest[at..at + length]));
        let decoded = proto::MessagesResponse::decode(&rest[at..at + length]).unwrap().messages;
        assert_eq!((decoded[0].sequence, &decoded[0].topic), (Some(sequence.cast_signed()), &topic));
        let id = text(&mut table).to_owned();
        assert_eq!(decoded[0].message_id.clone().unwrap_or_default(), id);
        found.ids.extend((!id.is_empty()).then_some(id));
        found.messages.push((topic, sequence, found.end + at, length, checksum, expires));
        at += length;
    }
    assert_eq!((table.len(), at, sequence), (0, body_at + body_bytes, last));
    found.blocks.push((found.end, first, last, number::<8>(rest, 40)));
    found.end += at;
}

/// The index says what the blocks say.
fn index(bytes: &[u8], salt: u32, found: &Found) {
    let trailer = &bytes[bytes.len() - 124..];
    assert_eq!(&trailer[..8], b"PRNLFOT3");
    check(trailer, 120, salt);
    let part = |at: usize| {
        let start = place(trailer, at);
        let part = &bytes[start..start + size(trailer, at + 8)];
        assert_eq!(number::<4>(trailer, at + 12), crc(part));
        part
    };
    let (runs, mut ranges) = (part(8), part(24));
    let mut records = &bytes[place(trailer, 40)..place(trailer, 24)];
    let mut postings = &bytes[place(trailer, 48)..bytes.len() - 124];
    assert_eq!(place(trailer, 8), found.end);
    let mut topics = BTreeMap::<&str, Vec<&Seen>>::new();
    found.messages.iter().for_each(|seen| topics.entry(&seen.0).or_default().push(seen));
    let (first, last) = (found.blocks.first().unwrap(), found.blocks.last().unwrap());
    let times = found.blocks.iter().map(|block| block.3);
    let (earliest, latest) = (times.clone().min().unwrap(), times.max().unwrap());
    let counts = [found.messages.len(), found.ids.len(), topics.len()].map(|count| count as u64);
    let summary = [first.1, last.2, last.3, earliest, latest, counts[0], counts[1], counts[2]];
    assert_eq!([56, 64, 72, 80, 88, 96, 104, 112].map(|at| number::<8>(trailer, at)), summary);
    block_runs(runs, found);
    let mut topics = topics.into_iter();
    while !ranges.is_empty() {
        let first_name = text(&mut ranges);
        let (mut range, others) = records.split_at(usize::try_from(varint(&mut ranges)).unwrap());
        let (mut lists, rest) = postings.split_at(usize::try_from(varint(&mut ranges)).unwrap());
        (records, postings) = (others, rest);
        assert_eq!(checksum(&mut ranges), crc(range));
        assert_eq!(text(&mut { range }), first_name);
        while !range.is_empty() {
            let (topic, messages) = topics.next().unwrap();
            assert_eq!(text(&mut range), topic);
            one_topic(&mut range, &mut lists, &messages, found, (first.1, earliest));
        }
        assert!(lists.is_empty());
    }
    assert!(records.is_empty() && postings.is_empty() && topics.next().is_none());
}

fn block_runs(runs: &[u8], found: &Found) {
    for (place, run) in runs.chunks_exact(36).enumerate() {
        let start = size(run, 0);
        let end = runs.chunks_exact(36).nth(place + 1).map_or(found.end, |next| size(next, 0));
        let within = found.blocks.iter().filter(|block| (start..end).contains(&block.0));
        let within = within.collect::<Vec<_>>();
        assert_eq!(within[0].0, start);
        let times = within.iter().map(|block| block.3);
        let (earliest, latest) = (times.clone().min().unwrap(), times.max().unwrap());
        let expected = [within[0].1, within[within.len() - 1].2, earliest, latest];
        assert_eq!([4, 12, 20, 28].map(|at| number::<8>(run, at)), expected);
        assert!(within[within.len() - 1].0 - start < 64 * 1024);
    }
}

fn one_topic(
    record: &mut &[u8],
    lists: &mut &[u8],
    messages: &[&Seen],
    found: &Found,
    (first_sequence, from): (u64, u64),
) {
    let time_of = |sequence| found.blocks.iter().find(|block| block.2 >= sequence).unwrap().3;
    let (first, last) = (messages[0], messages[messages.len() - 1]);
    let bytes = |messages: &mut dyn Iterator<Item = &&Seen>| messages.map(|seen| seen.3 as u64).sum::<u64>();
    let times = messages.iter().map(|seen| time_of(seen.1));
    let (earliest, latest) = (times.clone().min().unwrap(), times.max().unwrap());
    let expected = [
        messages.len() as u64,
        bytes(&mut messages.iter()),
        last.3 as u64,
        first.1 - first_sequence,
        last.1 - first.1,
        earliest - from,
        latest - earliest,
        time_of(first.1) - earliest,
        time_of(last.1) - earliest,
    ];
    assert_eq!(std::array::from_fn(|_| varint(record)), expected);
    let all_expired = messages.iter().map(|seen| seen.5).max().unwrap();
    assert_eq!(varint(record), all_expired);
    if all_expired > 0 {
        let expiring = bytes(&mut messages.iter().filter(|seen| seen.5 > 0));
        assert_eq!(std::array::from_fn(|_| varint(record)), [first.5, last.5, expiring]);
    }
    let (mut list, rest) = lists.split_at(usize::try_from(varint(record)).unwrap());
    *lists = rest;
    assert_eq!(checksum(record), crc(list));
    let (mut sequence, mut offset, mut time) = (0, 0, time_of(first.1));
    for seen in messages {
        sequence += varint(&mut list);
        offset += varint(&mut list);
        let length = varint(&mut list);
        let posting = (offset, length, checksum(&mut list), varint(&mut list));
        assert_eq!((sequence, posting), (seen.1, (seen.2 as u64, seen.3 as u64, seen.4, seen.5)));
        let step = varint(&mut list);
        assert_eq!(step % 2, 0, "the times of this log do not go back");
        time += step / 2;
        assert_eq!(time, time_of(sequence));
    }
    assert!(list.is_empty());
}

fn removed(bytes: &[u8], (log, salt): ([u8; 16], u32)) -> BTreeMap<String, [u64; 4]> {
    let end = 28 + usize::try_from(number::<8>(bytes, 20)).unwrap();
    check(bytes, end, 0);
    assert_eq!((&bytes[..8], number::<4>(bytes, 8)), (b"PRNLRMV\n".as_slice(), 4));
    assert!(number::<8>(bytes, 12) > 1, "the generation");
    assert_eq!((&bytes[28..44], number::<4>(bytes, 44)), (&log[..], salt.into()));
    let mut rest = &bytes[48..end];
    let epoch = |rest: &mut &[u8]| {
        let epoch = number::<8>(rest, 0);
        *rest = &rest[8..];
        epoch
    };
    assert_eq!((varint(&mut rest), epoch(&mut rest)), (0, 0));
    let epochs = (0..varint(&mut rest)).map(|_| {
        let first = epoch(&mut rest);
        first..=first + varint(&mut rest)
    });
    let epochs = epochs.collect::<Vec<_>>();
    let mut topics = BTreeMap::new();
    while !rest.is_empty() {
        topics.insert(text(&mut rest).to_owned(), std::array::from_fn(|_| varint(&mut rest)));
        let lost_at = epoch(&mut rest);
        assert!(epochs.iter().any(|run| run.contains(&lost_at)), "{lost_at} of {epochs:?}");
    }
    topics
}

/// The segments, as identity, first sequence and end, and the incarnations, in both copies of the manifest.
type Listed = (Vec<(u64, u64, u64)>, Vec<(u64, u64)>);

fn manifest(bytes: &[u8], (log, salt): ([u8; 16], u32)) -> Listed {
    assert_eq!((&bytes[..8], number::<4>(bytes, 8)), (b"PRNLMAN\n".as_slice(), 1));
    let bytes = &bytes[..size(bytes, 12)];
    check(bytes, bytes.len() - 4, 0);
    assert_eq!((&bytes[16..32], number::<4>(bytes, 32)), (&log[..], salt.into()));
    assert!(number::<8>(bytes, 36) > 0 && number::<8>(bytes, 44) <= 404);
    let mut rest = &bytes[52..bytes.len() - 4];
    let eight = |rest: &mut &[u8]| {
        let eight = number::<8>(rest, 0);
        *rest = &rest[8..];
        eight
    };
    let segments = (0..varint(&mut rest)).map(|_| (eight(&mut rest), varint(&mut rest), varint(&mut rest)));
    let segments = segments.collect::<Vec<_>>();
    assert_eq!(
        (varint(&mut rest), varint(&mut rest)),
        (0, 0),
        "none is lost, and all incarnations are listed"
    );
    let incarnations = (0..varint(&mut rest)).map(|_| (eight(&mut rest), varint(&mut rest))).collect();
    assert_eq!(rest, [0], "nothing is known of the clock");
    (segments, incarnations)
}

#[tokio::test]
async fn the_documented_format_is_enough_to_read_a_log() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = open_with(&directory, config());
    for n in 1..=400_u64 {
        let message_id = (n % 3 == 0).then(|| format!("id-{n}"));
        let ttl = (n % 5 == 0).then(|| Duration::from_secs(1000));
        let message =
            NewMessage { message_id, ttl, ..super::text(&format!("t.{}", n % 7), &"x".repeat(900)) };
        log.publish(message).await.unwrap();
    }
    log.publish_batch(vec![super::text("b", "1"), super::text("a", "2"), super::text("b", "3")])
        .await
        .unwrap();
    log.purge_topic("t.1", Some(sequence(100))).await.unwrap();
    log.close().await;

    let mut paths = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let is_segment = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "log");
    let mut paths = paths.by_ref().filter(is_segment).collect::<Vec<_>>();
    paths.sort();
    assert!(paths.len() > 2);
    let (mut sequences, mut identity) = (Vec::new(), None);
    let (mut segments, mut incarnations) = (Vec::<(u64, u64, u64)>::new(), Vec::new());
    for (place, path) in paths.iter().enumerate() {
        let bytes = std::fs::read(path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let before = segments.last_mut().map(|before| {
            before.2 = name;
            (before.0, before.1)
        });
        segments.push((number::<8>(&bytes, 52), name, 0));
        let log = header(&bytes, name, before);
        assert_eq!(*identity.get_or_insert(log), log);
        let found = records(&bytes, log.1);
        incarnations.extend(found.incarnations.iter().copied());
        sequences.extend(found.messages.iter().map(|seen| seen.1));
        if place + 1 < paths.len() {
            index(&bytes, log.1, &found);
        } else {
            assert_eq!((found.end, found.next_sequence), (bytes.len(), Some(404)));
            // The log is closed.
            segments[place].2 = 404;
        }
    }
    assert_eq!(sequences, (1..=403).collect::<Vec<_>>());
    assert_eq!(incarnations.iter().map(|(_, first)| *first).collect::<Vec<_>>(), [1]);
    for name in ["manifest.0", "manifest.1"] {
        let bytes = std::fs::read(directory.path().join(name)).unwrap();
        assert_eq!(manifest(&bytes, identity.unwrap()), (segments.clone(), incarnations.clone()), "{name}");
    }
    for copy in ["removed.0", "removed.1"] {
        let removed = removed(&std::fs::read(directory.path().join(copy)).unwrap(), identity.unwrap());
        assert_eq!(removed, BTreeMap::from([("t.1".to_owned(), [106, 99, 100, 0])]), "{copy}");
    }
}
