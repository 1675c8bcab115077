//! What every log must do, and what the embedded log does when its disk fails.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

use std::{path::PathBuf, pin::Pin, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::{
    proto::{self, stored_message::Content as Payload},
    stream::Batching,
};
use embedded::{
    Storage,
    simulated::{Fault, Simulation},
};

mod bad_sectors;
#[cfg(feature = "jetstream")]
pub(crate) mod cluster;
mod conformance;
mod faults;
mod format;
mod generations;
mod history;
mod incarnations;
mod kept_losses;
mod live;
mod lost;
mod older_files;
mod power;
mod quotas;
mod retention;
mod rot;
mod set_consumer;
mod touched;
mod upgrade;
pub mod workload;

type Batches = Pin<Box<dyn Stream<Item = Result<Batch, Error>> + Send>>;

fn open(directory: &tempfile::TempDir) -> Log {
    open_with(directory, config()).0
}

fn open_with(directory: &tempfile::TempDir, config: Config) -> (Log, Opened) {
    Log::open(directory.path(), config).unwrap()
}

impl Log {
    pub(crate) fn embedded(&self) -> &Arc<Embedded> {
        match &self.0 {
            Kind::Embedded(log) => log,
            #[cfg(feature = "jetstream")]
            other => panic!("not an embedded log: {other:?}"),
        }
    }
}

/// Small segments, so that a test sees several.
fn config() -> Config {
    Config { segment_bytes: 128 * 1024, ..Config::default() }
}

fn on(disk: &Arc<Simulation>) -> Log {
    let config = Config { disk: Storage::Simulated(disk.clone()), ..config() };
    Log::open(Path::new("/log"), config).unwrap().0
}

fn text(topic: &str, text: &str) -> NewMessage {
    NewMessage { topic: topic.into(), content: Content::Text(text.into()), ..NewMessage::default() }
}

fn query(topics: &[&str], start: Start) -> Query {
    let topics = topics.iter().map(ToString::to_string).collect();
    Query {
        within: None,
        topics,
        start,
        stop: Stop { caught_up: true, ..Stop::default() },
        on_gap: OnGap::Skip,
        consumer: None,
        batching: Batching::default(),
    }
}

fn sequence(number: u64) -> Sequence {
    Sequence::new(number).unwrap()
}

fn from_sequence(number: u64) -> Start {
    Start::Sequence(sequence(number))
}

/// A sequence as a number; 0 for none.
fn number(sequence: impl Into<Option<Sequence>>) -> u64 {
    sequence.into().map_or(0, Sequence::get)
}

fn removed(first: u64, last: u64) -> Event {
    Event::Removed(SequenceRange::of_messages(first, last))
}
fn damaged(first: u64, last: u64) -> Event {
    Event::Damaged(SequenceRange::of_messages(first, last))
}

async fn subscribe(log: &Log, query: Query) -> Result<Batches, Error> {
    Ok(Box::pin(log.subscribe(query).await?))
}
/// The time after which a test gives up: far longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

async fn next(batches: &mut Batches) -> Option<Batch> {
    let next = tokio::time::timeout(PATIENCE, batches.next()).await;
    next.expect("a batch").transpose().unwrap()
}

fn decode(batch: &Batch) -> Vec<proto::StoredMessage> {
    let messages = proto::MessagesResponse::decode(batch.items.concat().as_slice()).unwrap().messages;
    assert_eq!(messages.len(), batch.count);
    messages
}

fn text_of(message: &proto::StoredMessage) -> String {
    match message.content.clone().unwrap() {
        Payload::Text(text) => text,
        Payload::Data(data) => format!("{data:?}"),
    }
}

/// All that a bounded query gives: sequences with texts, and events.
async fn read(log: &Log, query: Query) -> (Vec<(u64, String)>, Vec<Event>) {
    let mut batches = subscribe(log, query).await.unwrap();
    let (mut messages, mut events) = (Vec::new(), Vec::new());
    while let Some(batch) = next(&mut batches).await {
        events.extend(batch.events.clone());
        messages.extend(decode(&batch).iter().map(|m| (m.sequence.unwrap().cast_unsigned(), text_of(m))));
    }
    (messages, events)
}

async fn texts(log: &Log, query: Query) -> Vec<String> {
    let (messages, events) = read(log, query).await;
    assert_eq!(events, []);
    assert!(messages.is_sorted_by(|a, b| a.0 < b.0));
    messages.into_iter().map(|(_, text)| text).collect()
}

#[tokio::test]
async fn each_start_and_stop_is_where_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(&directory);
    let mut times = Vec::new();
    for (topic, content) in [("a", "1"), ("b", "2"), ("a", "3"), ("c.d", "4"), ("a", "5")] {
        times.push(log.publish(text(topic, content)).await.unwrap().time);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let all: &[&str] = &[">"];
    for (topics, start, expected) in [
        (all, Start::Earliest, &["1", "2", "3", "4", "5"][..]),
        (all, Start::New, &[]),
        (&["a"], Start::Earliest, &["1", "3", "5"]),
        (&["a", "c.*"], Start::Last(2), &["4", "5"]),
        (&["a"], Start::Last(9), &["1", "3", "5"]),
        (&["a"], Start::Last(0), &[]),
        (all, from_sequence(4), &["4", "5"]),
        (all, from_sequence(9), &[]),
        (all, Start::Time(times[2]), &["3", "4", "5"]),
        (all, Start::Time(times[4] + Duration::from_nanos(1)), &[]),
        (&["none"], Start::Last(3), &[]),
    ] {
        assert_eq!(texts(&log, query(topics, start.clone())).await, expected, "{topics:?} {start:?}");
    }
    let stop = Stop { sequence: Sequence::new(2), ..Stop::default() };
    assert_eq!(texts(&log, Query { stop, ..query(all, Start::Earliest) }).await, ["1", "2"]);
    let stop = Stop { time: Some(times[2]), ..Stop::default() };
    assert_eq!(texts(&log, Query { stop, ..query(all, Start::Earliest) }).await, ["1", "2", "3"]);
    let soon = SystemTime::now() + Duration::from_millis(10);
    let stop = Stop { time: Some(soon), ..Stop::default() };
    assert!(texts(&log, Query { stop, ..query(all, Start::New) }).await.is_empty());
}

#[tokio::test]
async fn a_sequence_that_is_not_there_yet_is_waited_for_also_when_resumed() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(&directory);
    let ahead = Query { stop: Stop::default(), ..query(&["a"], from_sequence(3)) };
    let mut batches = subscribe(&log, ahead.clone()).await.unwrap();
    let position = next(&mut batches).await.unwrap().position;
    let mut resumed = subscribe(&log, Query { start: Start::Resume(position), ..ahead }).await.unwrap();
    next(&mut resumed).await.unwrap();
    for n in 1..=3 {
        log.publish(text("a", &n.to_string())).await.unwrap();
    }
    for batches in [&mut batches, &mut resumed] {
        assert_eq!(text_of(&decode(&next(batches).await.unwrap())[0]), "3");
    }
}

#[tokio::test]
async fn a_batch_is_published_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(&directory);
    let wrong = NewMessage { expected: Expected::from_number(7), ..text("b", "2") };
    let error = log.publish_batch(vec![text("a", "1"), wrong.clone(), text("a", "3")]).await.unwrap_err();
    assert_eq!(error.index, Some(1));
    assert!(
        matches!(error.error, Error::SequenceMismatch { expected, current } if number(expected) == 7 && number(current) == 0)
    );
    assert!(log.list_topics(None, 10, None).await.unwrap().topics.is_empty());
    let right = NewMessage { expected: Expected::from_number(1), ..text("a", "2") };
    let published = log.publish_batch(vec![text("a", "1"), right]).await.unwrap();
    assert_eq!(published.iter().map(|p| p.sequence).collect::<Vec<_>>(), [1, 2]);
    let each = log.publish_each(vec![text("a", "3"), wrong, text("a b", "4"), text("a", "5")]).await.await;
    assert_eq!(each.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, false, true]);
    assert_eq!(texts(&log, query(&["a"], Start::Earliest)).await, ["1", "2", "3", "5"]);
}

#[tokio::test]
async fn an_id_is_published_once_within_its_window_also_after_a_restart_and_before_expected_sequence() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(&directory);
    let with_id = |content: &str| NewMessage { message_id: Some("id".into()), ..text("a", content) };
    let first = log.publish(with_id("1")).await.unwrap();
    let again = log.publish_each(vec![with_id("2"), with_id("3")]).await.await;
    for result in again {
        assert_eq!(result.unwrap(), Published { duplicate: true, ..first });
    }
    log.close().await;
    let log = open(&directory);
    let again = NewMessage { expected: Expected::from_number(0), ..with_id("4") };
    assert_eq!(log.publish(again).await.unwrap(), Published { duplicate: true, ..first });
    assert!(!log.publish(NewMessage { topic: "b".into(), ..with_id("5") }).await.unwrap().duplicate);
    assert_eq!(texts(&log, query(&[">"], Start::Earliest)).await, ["1", "5"]);
    log.close().await;
    let short = Config { dedupe_window: Duration::ZERO, ..config() };
    let (log, _) = open_with(&directory, short);
    assert!(!log.publish(with_id("6")).await.unwrap().duplicate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_go_from_history_to_live_without_a_gap_while_publishers_run() {
    const COUNT: usize = 5_000;
    let directory = tempfile::tempdir().unwrap();
    let config = Config { segment_bytes: 50_000, ..config() };
    let (log, _) = open_with(&directory, config);
    let publisher = tokio::spawn({
        let log = log.clone();
        async move {
            for n in 0..COUNT / 10 {
                let messages = (0..10).map(|m| text(["a", "b"][m % 2], &format!("{}", n * 10 + m))).collect();
                assert!(log.publish_each(messages).await.await.iter().all(Result::is_ok));
            }
        }
    });
    let readers = (0..8).map(|reader| {
        let log = log.clone();
        let topics: &[&str] = if reader % 2 == 0 { &[">"] } else { &["b"] };
        tokio::spawn(async move {
            let expected = (0..COUNT).filter(|n| reader % 2 == 0 || n % 2 == 1).map(|n| n.to_string());
            let batching = Batching { max_items: 1 + reader * 7, ..Batching::default() };
            let mut query = Query { stop: Stop::default(), batching, ..query(topics, Start::Earliest) };
            let (mut seen, expected) = (Vec::new(), expected.collect::<Vec<_>>());
            while seen.len() < expected.len() {
                let mut batches = subscribe(&log, query.clone()).await.unwrap();
                for _ in 0..50 {
                    let batch = next(&mut batches).await.unwrap();
                    seen.extend(decode(&batch).iter().map(text_of));
                    query.start = Start::Resume(batch.position);
                    if seen.len() >= expected.len() {
                        break;
                    }
                }
            }
            assert!(seen == expected, "reader {reader}");
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.unwrap();
    }
    publisher.await.unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_messages_until_there_is_room() {
    let disk = Simulation::new();
    let log = on(&disk);
    log.publish(text("a", "1")).await.unwrap();
    disk.fail_at(disk.calls(), Fault::Full);
    assert!(matches!(log.publish(text("a", "2")).await, Err(Error::Full(_))));
    assert_eq!(log.publish(text("a", "3")).await.unwrap().sequence, 2);
    log.close().await;
    assert_eq!(texts(&on(&disk), query(&["a"], Start::Earliest)).await, ["1", "3"]);
}

#[tokio::test]
async fn after_a_failed_sync_no_message_is_accepted_until_a_restart_and_reading_goes_on() {
    let disk = Simulation::new();
    let log = on(&disk);
    log.publish(text("a", "1")).await.unwrap();
    disk.fail_at(disk.calls(), Fault::Sync);
    assert!(matches!(log.publish(text("a", "2")).await, Err(Error::Failed)));
    assert!(matches!(log.publish(text("a", "3")).await, Err(Error::Failed)));
    assert!(*log.failed().borrow());
    assert_eq!(texts(&log, query(&["a"], Start::Earliest)).await, ["1"]);
    log.close().await;
    // What the page cache shows of 2 is written again before it is served: then no power cut takes it back.
    let disk = disk.kill();
    let log = on(&disk);
    log.publish(text("a", "4")).await.unwrap();
    let seen = texts(&log, query(&["a"], Start::Earliest)).await;
    assert_eq!(seen, ["1", "2", "4"]);
    for seed in 0..100 {
        let log = on(&disk.lose_power(seed));
        assert_eq!(texts(&log, query(&["a"], Start::Earliest)).await, seen, "seed {seed}");
    }
}

#[tokio::test]
async fn a_log_whose_directory_was_moved_or_replaced_accepts_no_message() {
    for is_replaced in [false, true] {
        let parent = tempfile::tempdir().unwrap();
        let [path, moved] = ["log", "moved"].map(|name| parent.path().join(name));
        let (log, _) = Log::open(&path, config()).unwrap();
        log.publish(text("a", "1")).await.unwrap();
        std::fs::rename(&path, &moved).unwrap();
        let other = is_replaced.then(|| Log::open(&path, config()).unwrap().0);
        assert!(matches!(log.publish(text("a", "2")).await, Err(Error::Failed)));
        assert!(*log.failed().borrow());
        assert_eq!(texts(&log, query(&["a"], Start::Earliest)).await, ["1"], "reading goes on");
        if let Some(other) = other {
            other.publish(text("a", "3")).await.unwrap();
        }
    }
}

fn segment(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("00000000000000000001.log")
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_set_aside_and_the_rest_is_served() {
    let source = tempfile::tempdir().unwrap();
    let log = open(&source);
    log.publish(text("a", "1")).await.unwrap();
    log.publish(text("a", "2")).await.unwrap();
    let whole = std::fs::metadata(segment(&source)).unwrap().len();
    log.publish(text("a", "3")).await.unwrap();
    log.close().await;
    let bytes = std::fs::read(segment(&source)).unwrap();
    let whole = usize::try_from(whole).unwrap();
    for cut in whole + 1..bytes.len() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(segment(&directory), &bytes[..cut]).unwrap();
        let (log, opened) = open_with(&directory, config());
        assert_eq!(opened.torn.len(), 1);
        assert_eq!(std::fs::read(&opened.torn[0].0).unwrap(), bytes[whole..cut]);
        let published = log.publish(text("a", "4")).await.unwrap();
        assert!(number(published.sequence) > 3, "a sequence that may have been seen is not given again");
        assert_eq!(texts(&log, query(&["a"], Start::Earliest)).await, ["1", "2", "4"]);
        log.close().await;
        assert_eq!(texts(&open(&directory), query(&["a"], Start::Earliest)).await, ["1", "2", "4"]);
    }
}

#[tokio::test]
async fn any_byte_that_flips_is_noticed_and_every_other_message_is_served() {
    let source = tempfile::tempdir().unwrap();
    let log = open(&source);
    for n in 1..=5 {
        log.publish(text("a", &n.to_string())).await.unwrap();
    }
    log.close().await;
    let bytes = std::fs::read(segment(&source)).unwrap();
    for at in workload::share(0..bytes.len()) {
        let directory = tempfile::tempdir().unwrap();
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(segment(&directory), &flipped).unwrap();
        // It holds the identity of the log if the header of the only segment is damaged.
        std::fs::copy(source.path().join("removed.0"), directory.path().join("removed.0")).unwrap();
        let Ok((log, opened)) = Log::open(directory.path(), config()) else { continue };
        let (messages, events) = read(&log, query(&["a"], Start::Earliest)).await;
        for (sequence, text) in &messages {
            assert_eq!(*text, sequence.to_string(), "byte {at}: a wrong payload");
        }
        let missing = 5 - messages.len();
        assert!(missing <= 1, "byte {at}: {messages:?}");
        let is_reported = !events.is_empty() || !opened.torn.is_empty();
        assert!(missing == 0 || is_reported, "byte {at}: a message is missing and no event reports it");
    }
}

#[tokio::test]
async fn a_commit_that_rots_is_replaced_by_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(&directory);
    log.publish(text("a", "1")).await.unwrap();
    let mut batches = subscribe(&log, query(&["a"], Start::Earliest)).await.unwrap();
    let position = next(&mut batches).await.unwrap().position;
    log.commit_cursor("c", position.clone(), false).await.unwrap();
    log.publish(text("a", "2")).await.unwrap();
    log.close().await;
    let mut bytes = std::fs::read(segment(&directory)).unwrap();
    let cursor = crate::cursor::encode(&position);
    let at = memchr::memmem::find(&bytes, cursor.as_bytes()).unwrap();
    bytes[at] ^= 1;
    std::fs::write(segment(&directory), bytes).unwrap();
    let log = open(&directory);
    let listed = log.list_consumers(9, None).await.unwrap().consumers;
    assert!(matches!(&listed[..], [info] if info.position.is_err()), "{listed:?}");
    let commit = tokio::time::timeout(PATIENCE, log.commit_cursor("c", position.clone(), false));
    commit.await.unwrap().unwrap();
    assert_eq!(log.list_consumers(9, None).await.unwrap().consumers[0].position, Ok(position));
}

#[test]
fn a_newer_format_is_refused_by_its_version() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async { open(&directory).close().await });
    let mut bytes = std::fs::read(segment(&directory)).unwrap();
    bytes[8] += 1;
    let checksum = crc32c::crc32c(&bytes[..48]).to_le_bytes();
    bytes[48..52].copy_from_slice(&checksum);
    std::fs::write(segment(&directory), bytes).unwrap();
    let error = Log::open(directory.path(), config()).unwrap_err();
    assert!(matches!(error, OpenError::Version { version: 4, .. }), "{error}");
}

#[derive(Clone, Debug)]
enum Step {
    Publish(Vec<(u8, u16)>, bool),
    Reopen,
    Read(u8, u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let messages = proptest::collection::vec((0_u8..6, 0_u16..2000), 1..20);
    let step = prop_oneof![
        4 => (messages, any::<bool>()).prop_map(|(messages, batch)| Step::Publish(messages, batch)),
        1 => Just(Step::Reopen),
        3 => (0_u8..8, 0_u16..300).prop_map(|(pattern, from)| Step::Read(pattern, from)),
    ];
    proptest::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_log_behaves_like_a_list(steps in steps()) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let config = Config { segment_bytes: 20_000, ..config() };
            let mut log = open_with(&directory, config.clone()).0;
            let mut model: Vec<(u64, String, String)> = Vec::new();
            for step in steps {
                match step {
                    Step::Publish(messages, is_batch) => {
                        let new = messages.iter().map(|(topic, size)| {
                            text(&format!("t.{topic}"), &"x".repeat(usize::from(*size)))
                        }).collect::<Vec<_>>();
                        let published = if is_batch {
                            log.publish_batch(new.clone()).await.unwrap()
                        } else {
                            log.publish_each(new.clone()).await.await.into_iter().map(Result::unwrap).collect()
                        };
                        for (published, new) in published.iter().zip(new) {
                            let Content::Text(content) = new.content else { panic!() };
                            model.push((number(published.sequence), new.topic, content));
                        }
                    }
                    Step::Reopen => {
                        log.close().await;
                        log = open_with(&directory, config.clone()).0;
                    }
                    Step::Read(pattern, from) => {
                        let name = if pattern < 6 { format!("t.{pattern}") } else { "t.*".into() };
                        let from = u64::from(from) + 1;
                        let batching = Batching { max_items: 7, ..Batching::default() };
                        let query = Query { batching, ..query(&[&name], from_sequence(from)) };
                        let (seen, events) = read(&log, query).await;
                        assert_eq!(events, []);
                        let matches = |topic: &str| pattern >= 6 || topic == name;
                        let expected = model.iter().filter(|(s, topic, _)| *s >= from && matches(topic));
                        let expected = expected.map(|(s, _, text)| (*s, text.clone())).collect::<Vec<_>>();
                        assert_eq!(seen, expected);
                    }
                }
            }
            let listed = log.list_topics(None, 100, None).await.unwrap().topics;
            assert_eq!(listed.iter().map(|t| t.messages).sum::<u64>(), model.len() as u64);
        });
    }
}
