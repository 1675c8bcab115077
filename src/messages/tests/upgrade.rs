//! Logs of version 1 of the format, written here byte by byte as its servers did; and a commit of a later version.

use bytes::BufMut;

use super::*;
use crate::messages::clock::Clock;

const LOG: [u8; 16] = *b"a log's identity";

fn header(first_sequence: u64) -> Vec<u8> {
    let mut out = b"PRNLSEG\n".to_vec();
    out.put_u32_le(1);
    out.put_slice(&LOG);
    out.put_u64_le(first_sequence);
    out.put_u32_le(crc32c::crc32c(&out));
    out
}

/// A block of messages of topic `a`, each with its sequence as its text.
fn block(sequences: std::ops::RangeInclusive<u64>, time: u64) -> Vec<u8> {
    let (mut table, mut body, mut count) = (b"\x01a".to_vec(), Vec::new(), 0);
    let first_sequence = *sequences.start();
    for sequence in sequences {
        let (start, text) = (body.len(), sequence.to_string());
        let message = crate::wire::message::Message {
            sequence,
            topic: "a",
            time: SystemTime::UNIX_EPOCH + Duration::from_nanos(time),
            key: None,
            headers: &[],
            content: text.as_bytes(),
            is_text: true,
            message_id: Some("id"),
            expires: None,
        };
        crate::wire::message::put(&mut body, &message);
        table.put_u32_le(0);
        table.put_u32_le(u32::try_from(body.len() - start).unwrap());
        table.put_u32_le(crc32c::crc32c(&body[start..]));
        table.put_slice(b"\x02id");
        count += 1;
    }
    let mut out = b"PBLK".to_vec();
    for size in [table.len(), body.len(), count, 1] {
        out.put_u32_le(u32::try_from(size).unwrap());
    }
    out.put_u64_le(first_sequence);
    out.put_u64_le(time);
    out.put_u32_le(crc32c::crc32c_append(crc32c::crc32c(&out), &table));
    [out, table, body].concat()
}

fn write(directory: &tempfile::TempDir, first_sequence: u64, parts: &[Vec<u8>]) -> PathBuf {
    let path = directory.path().join(format!("{first_sequence:020}.log"));
    std::fs::write(&path, parts.concat()).unwrap();
    path
}

async fn sequences(log: &Log) -> (Vec<u64>, Vec<Event>) {
    let (messages, events) = read(log, query(&["a"], Start::Earliest)).await;
    assert!(messages.iter().all(|(sequence, text)| *text == sequence.to_string()));
    (messages.into_iter().map(|(sequence, _)| sequence).collect(), events)
}

#[tokio::test]
async fn a_log_of_version_1_is_converted_with_its_identity_sequences_and_times() {
    let directory = tempfile::tempdir().unwrap();
    let first = write(&directory, 1, &[header(1), block(1..=3, 5_000), block(4..=4, 6_000)]);
    // The second one was torn, and the first one half done when the power went.
    let tail = &block(8..=9, 8_000)[..47];
    write(&directory, 5, &[header(5), block(5..=7, 7_000), tail.to_vec()]);
    std::fs::write(first.with_extension("new"), "PRNLSEG").unwrap();

    let (log, opened) = open_with(&directory, config());
    // New messages go to a segment of today's version.
    assert_eq!((opened.upgraded, opened.messages, opened.segments), (2, 7, 3));
    assert_eq!(opened.damaged, Vec::<String>::new());
    assert_eq!(std::fs::read(&opened.torn[0].0).unwrap(), tail);
    let embedded = log.embedded();
    assert_eq!(embedded.id(), LOG);
    assert_eq!(sequences(&log).await, ((1..=7).collect(), vec![]));
    let topic = &log.list_topics(None, 10, None).await.unwrap().topics[0];
    let time = |nanos| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
    let [first, last] = [topic.first, topic.last].map(|stamp| (number(stamp.sequence), stamp.time));
    assert_eq!((first, last), ((1, time(5_000)), (7, time(7_000))));
    assert!(number(log.publish(text("b", "x")).await.unwrap().sequence) > 1_000_000);
    log.close().await;

    let (log, opened) = open_with(&directory, config());
    assert_eq!((opened.upgraded, opened.messages, opened.torn.len()), (0, 8, 0));
    assert_eq!(sequences(&log).await, ((1..=7).collect(), vec![]));
}

#[tokio::test]
async fn damage_in_version_1_is_reported_and_everything_else_is_kept() {
    let blocks = [block(1..=2, 5), block(3..=3, 5), block(4..=5, 6)];
    let whole = [header(1), blocks.concat()].concat();
    let second = header(1).len() + blocks[0].len();
    for at in (0..whole.len()).step_by(3) {
        let directory = tempfile::tempdir().unwrap();
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        write(&directory, 1, &[flipped]);
        write(&directory, 6, &[header(6), block(6..=6, 7)]);
        // Of the first twelve bytes each says that it is no such segment, or one of a newer version.
        let Ok((log, opened)) = Log::open(directory.path(), config()) else {
            assert!((8..12).contains(&at), "byte {at}");
            continue;
        };
        let (found, events) = sequences(&log).await;
        if at < 12 {
            assert!(!opened.damaged.is_empty(), "byte {at}");
        } else if at < 40 {
            assert_eq!(found, [1, 2, 3, 4, 5, 6], "byte {at}");
        } else {
            let lost = 6 - found.len();
            assert!((1..=2).contains(&lost) && !events.is_empty(), "byte {at}: {found:?} {events:?}");
            assert!(at < second || found[..2] == [1, 2], "byte {at}");
        }
        log.close().await;
    }
}

#[tokio::test]
async fn a_time_selects_from_a_log_of_version_1_and_from_what_is_published_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let time = |nanos| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
    for first in [1, 11, 21] {
        let blocks = (0..5).map(|n| block(first + n..=first + n, (first + n) * 1_000_000));
        write(&directory, first, &[vec![header(first)], blocks.collect()].concat());
    }
    let clock = Clock::manual();
    let config = || Config { clock: clock.clone(), ..config() };
    // They have sequences beyond those of the old servers, and are before, between and after their messages.
    let log = open_with(&directory, config()).0;
    for nanos in [12_500_000, 500_000, 90_000_000] {
        clock.set(time(nanos));
        log.publish(text("a", &nanos.to_string())).await.unwrap();
    }
    log.close().await;
    let all = [1, 2, 3, 4, 5, 11, 12, 13, 14, 15, 21, 22, 23, 24, 25, 12_500_000, 500_000, 90_000_000];
    let published = |n: u64| if n > 100 { n } else { n * 1_000_000 };
    for _ in 0..2 {
        let log = open_with(&directory, config()).0;
        for (from, until) in [(0, 99), (3, 22), (12, 12), (11, 99), (26, 99), (0, 0), (0, 12)] {
            let (from, until) = (from * 1_000_000, until * 1_000_000 + 600_000);
            let stop = Stop { time: Some(time(until)), caught_up: true, ..Stop::default() };
            let (seen, _) = read(&log, Query { stop, ..query(&["a"], Start::Time(time(from))) }).await;
            let seen = seen.into_iter().map(|(_, text)| text).collect::<Vec<_>>();
            let is_wanted = |n: &u64| (from..=until).contains(&published(*n));
            let expected = all.into_iter().filter(is_wanted).map(|n| n.to_string()).collect::<Vec<_>>();
            assert_eq!(seen, expected, "{from} to {until}");
        }
        log.close().await;
    }
}

/// The position of a consumer, as a later version writes it.
#[derive(serde::Deserialize, serde::Serialize)]
struct Later(Position, u64);

impl crate::cursor::Position for Later {
    const KIND: crate::cursor::Kind = crate::cursor::Kind::Messages;
    const DECODERS: &'static [crate::cursor::Decoder<Self>] = &[
        |_| None,
        |bytes| crate::cursor::decode_fields(bytes).map(|before| Self(before, 0)),
        crate::cursor::decode_fields,
    ];
}

#[tokio::test]
async fn a_commit_of_a_newer_server_is_not_called_damaged_and_only_a_rewind_replaces_it() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(&directory);
    log.publish(text("a", "1")).await.unwrap();
    let mut batches = subscribe(&log, query(&["a"], Start::Earliest)).await.unwrap();
    let position = next(&mut batches).await.unwrap().position;
    let later = crate::cursor::encode(&Later(position.clone(), 7));
    log.publish_own(text("$consumer.c", &later)).await.unwrap();
    let as_consumer = || Query { consumer: Some("c".into()), ..query(&["a"], Start::Earliest) };
    let refused = subscribe(&log, as_consumer()).await.err().unwrap();
    assert!(
        matches!(&refused, Error::Io(error) if error.to_string().contains("a newer server")),
        "{refused:?}"
    );
    // The list reports it, and does not leave it out.
    let listed = log.list_consumers(9, None).await.unwrap().consumers;
    let is_newer = |info: &ConsumerInfo| matches!(info.position, Err(crate::cursor::Error::Version { .. }));
    assert!(matches!(&listed[..], [info] if info.name == "c" && is_newer(info)), "{listed:?}");
    assert!(is_newer(&log.consumer("c").await.unwrap().unwrap()));
    assert!(matches!(log.commit_cursor("c", position.clone(), false).await, Err(Error::Io(_))));
    log.commit_cursor("c", position, true).await.unwrap();
    assert!(subscribe(&log, as_consumer()).await.is_ok());
}
