//! Bytes change on disk: that is detected or harmless, never gives a wrong payload, and lost messages are reported.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::{
    history::{Fact, Outcome},
    workload::{Client, DIRECTORY, embedded, enforce, for_each_seed, seeds, seen, share, small},
    *,
};
use embedded::simulated::Random;

mod times;

/// By sequence: topic and text.
type Messages = BTreeMap<u64, (String, String)>;

/// A log on a disk, and what of it is there.
struct Sample {
    name: &'static str,
    disk: Arc<Simulation>,
    published: Messages,
    expected: Messages,
    is_clean: bool,
    segment_bytes: usize,
}

fn open(disk: &Arc<Simulation>, segment_bytes: usize) -> (Log, Opened) {
    Log::open(Path::new(DIRECTORY), small(disk, segment_bytes)).unwrap()
}

/// One message a commit, so that no byte belongs to two.
async fn sample(
    name: &'static str,
    segment_bytes: usize,
    topics: &[&str],
    purge: Option<u64>,
    is_clean: bool,
) -> Sample {
    let disk = Simulation::new();
    let (log, _) = open(&disk, segment_bytes);
    let mut published = Messages::new();
    for (n, topic) in topics.iter().enumerate() {
        let text = format!("{n}-text");
        let sequence = log.publish(super::text(topic, &text)).await.unwrap().sequence.get();
        published.insert(sequence, ((*topic).into(), text));
    }
    if let Some(through) = purge {
        log.purge_topic("a", Some(sequence(through))).await.unwrap();
    }
    enforce(&log).await;
    let expected = read_all(&log, name).await.0;
    let killed = disk.kill();
    log.close().await;
    let disk = if is_clean { disk } else { killed };
    Sample { name, disk, published, expected, is_clean, segment_bytes }
}

async fn read_all(log: &Log, what: &str) -> (Messages, Vec<Event>) {
    let (all, events) = seen(log, query(&[">"], Start::Earliest)).await;
    let messages = all.iter().map(|seen| (seen.sequence, (seen.topic.clone(), seen.text.clone()))).collect();
    // Topic by topic it is the same.
    for topic in all.iter().map(|seen| seen.topic.as_str()).collect::<BTreeSet<_>>() {
        let (of_topic, _) = seen(log, query(&[topic], Start::Earliest)).await;
        assert!(of_topic.iter().all(|one| all.contains(one)));
        assert_eq!(of_topic.len(), all.iter().filter(|seen| seen.topic == topic).count(), "{what}, {topic}");
    }
    (messages, events)
}

/// Opens a log, and checks that every message is there or reported.
async fn check(sample: &Sample, disk: &Arc<Simulation>, what: &str, most: usize, may_come_back: bool) {
    let name = sample.name;
    for again in [false, true] {
        let (log, opened) = open(disk, sample.segment_bytes);
        let (messages, events) = read_all(&log, &format!("{name}, {what}, {again}")).await;
        for (sequence, message) in &messages {
            assert_eq!(sample.published.get(sequence), Some(message), "{name}, {what}: a wrong payload");
            let is_expected = sample.expected.contains_key(sequence) || may_come_back;
            assert!(is_expected, "{name}, {what}: {sequence} was removed");
        }
        let missing = sample.expected.keys().filter(|sequence| !messages.contains_key(sequence));
        let missing = missing.copied().collect::<Vec<_>>();
        let is_reported = |sequence: &u64| {
            let is_in = |event: &Event| matches!(event, Event::Damaged(range) if (range.first.get()..=range.last.get()).contains(sequence));
            events.iter().any(is_in)
                || !sample.is_clean && sample.expected.keys().next_back() == Some(sequence)
        };
        assert!(
            missing.iter().all(is_reported),
            "{name}, {what}, {again}: {missing:?} {events:?} {opened:?}"
        );
        assert!(missing.len() <= most, "{name}, {what}: {missing:?} are missing");
        if sample.is_clean && !missing.is_empty() {
            assert!(opened.torn.is_empty(), "{name}, {what}: rot is taken for a torn tail");
        }
        log.close().await;
    }
    let (log, _) = open(disk, sample.segment_bytes);
    let newest = sample.published.keys().next_back().copied().unwrap_or(0);
    let sequence = log.publish(super::text("new", "new")).await.unwrap().sequence.get();
    assert!(sequence > newest, "{name}, {what}: a sequence is given twice");
    enforce(&log).await;
    let (messages, _) = read(&log, query(&["new"], Start::Earliest)).await;
    assert_eq!(messages, [(sequence, "new".into())], "{name}, {what}");
}

/// The number of bytes that mean something.
fn used(path: &Path, bytes: &[u8]) -> u64 {
    let is_reserve = path.file_name().is_some_and(|name| name.to_str().unwrap().starts_with("reserve-"));
    match bytes.get(20..28) {
        _ if is_reserve => 0,
        // What follows the content is reserved.
        Some(length) if is_trim_points(path) => 28 + u64::from_le_bytes(length.try_into().unwrap()) + 4,
        _ => bytes.len() as u64,
    }
}

fn is_trim_points(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_str().unwrap().starts_with("removed."))
}

/// In an ordinary run, a share of them.
fn flip_each_byte(sample: &Sample) {
    let files = sample.disk.list(Path::new(DIRECTORY)).unwrap();
    let places = files
        .iter()
        .flat_map(|path| (0..used(path, &sample.disk.read_file(path))).map(move |byte| (path.clone(), byte)));
    // The bytes after the mark, or after the last block, are preallocated room.
    let places = share(places).collect::<Vec<_>>();
    for_each_seed(places.len() as u64, |place| {
        let (path, byte) = &places[usize::try_from(place).unwrap()];
        async move {
            let disk = sample.disk.kill();
            disk.flip(path, *byte, 1 << (byte % 8));
            let is_floors = is_trim_points(path);
            let what = format!("byte {byte} of {}", path.display());
            check(sample, &disk, &what, 1, is_floors).await;
        }
    });
}

#[tokio::test]
async fn each_byte_of_a_segment_that_was_closed_is_checked() {
    flip_each_byte(&sample("closed", 4096, &["a", "b", "a", "few"], None, true).await);
}

#[tokio::test]
async fn each_byte_of_a_segment_that_was_not_closed_is_checked() {
    flip_each_byte(&sample("killed", 700, &["a", "b", "a"], None, false).await);
}

#[tokio::test]
async fn each_byte_of_segments_that_have_an_index_is_checked() {
    flip_each_byte(&sample("sealed", 500, &["a", "b", "a", "b", "c", "a", "b"], None, true).await);
}

#[tokio::test]
async fn each_byte_of_a_compacted_segment_and_of_the_trim_points_is_checked() {
    let topics = ["a", "last", "last", "a", "last", "last", "b", "last", "last", "last"];
    flip_each_byte(&sample("rewritten", 500, &topics, Some(1), true).await);
}

/// What a disk does to a file.
fn spoil(disk: &Arc<Simulation>, path: &Path, random: &mut Random) {
    let mut bytes = disk.read_file(path);
    let (start, length) = (random.index(bytes.len()), 1 + random.index(600));
    let end = (start + length).min(bytes.len());
    match random.below(4) {
        0 => bytes[start..end].fill(0),
        1 => bytes.truncate(start),
        2 => bytes[start..end].iter_mut().for_each(|byte| *byte ^= random.number().to_le_bytes()[0]),
        _ => {
            let other = random.index(bytes.len() - (end - start) + 1);
            bytes.copy_within(start..end, other);
        }
    }
    disk.write_file(path, &bytes);
}

async fn spoil_some(seed: u64) {
    let mut client = Client::new(seed);
    let disk = Simulation::new();
    let (log, _) = open(&disk, 4096);
    client.work(&log, 30).await;
    if client.random.one_in(2) {
        log.close().await;
    }
    let disk = disk.kill();
    let published = client.facts.iter().flat_map(|fact| match fact {
        Fact::Published { messages, .. } => messages.as_slice(),
        _ => &[],
    });
    let published = published.filter_map(|sent| match sent.outcome {
        Outcome::Done(sequence) => Some((sequence, (sent.topic.clone(), sent.text.clone()))),
        _ => None,
    });
    let published = published.collect::<Messages>();
    let newest = published.keys().next_back().copied().unwrap_or(0);
    for _ in 0..=client.random.below(2) {
        let files = disk.list(Path::new(DIRECTORY)).unwrap();
        let [one, other] = [(); 2].map(|()| files[client.random.index(files.len())].clone());
        match client.random.below(8) {
            0 => disk.remove(&one).unwrap(),
            1 => {
                let [first, second] = [&one, &other].map(|path| disk.read_file(path));
                disk.write_file(&one, &second);
                disk.write_file(&other, &first);
            }
            _ => spoil(&disk, &one, &mut client.random),
        }
    }
    for again in 0..2 {
        // A file of the log's own under the name of another is no segment: nothing is deleted, nothing is served of it.
        let (log, _) = open(&disk, 4096);
        let (messages, _) = seen(&log, query(&[">"], Start::Earliest)).await;
        for one in messages.iter().filter(|seen| seen.text != "new") {
            assert_eq!(published.get(&one.sequence), Some(&(one.topic.clone(), one.text.clone())));
        }
        let new = log.publish(super::text("new", "new")).await.unwrap();
        // A last segment that was cut off between two commits shows no trace of that.
        let is_served_twice = messages.iter().any(|seen| seen.sequence >= new.sequence.get());
        assert!(!is_served_twice, "{} of {newest}", new.sequence);
        enforce(&log).await;
        let (messages, _) = seen(&log, query(&["new"], Start::Earliest)).await;
        assert_eq!(messages.len(), again + 1);
        log.close().await;
    }
}

#[test]
fn with_any_damage_a_log_opens_serves_no_wrong_payload_and_accepts_messages() {
    for_each_seed(seeds(100, 300), spoil_some);
}

/// Three full segments with an index, of two messages each, and one that is written.
async fn segments() -> (Arc<Simulation>, Vec<PathBuf>) {
    let sample = sample("segments", 420, &["a"; 7], None, true).await;
    let mut paths = sample.disk.list(Path::new(DIRECTORY)).unwrap();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    assert_eq!(paths.len(), 4, "{paths:?}");
    (sample.disk, paths)
}

#[tokio::test]
async fn a_segment_that_ends_between_two_blocks_is_reported() {
    let (disk, paths) = segments().await;
    let bytes = disk.read_file(&paths[1]);
    let second = memchr::memmem::rfind(&bytes, b"PBLK").unwrap();
    disk.write_file(&paths[1], &bytes[..second]);
    let (log, opened) = open(&disk, 200);
    assert_eq!(opened.damaged.len(), 1);
    let (messages, events) = read(&log, query(&["a"], Start::Earliest)).await;
    assert_eq!(messages.len(), 6);
    assert_eq!(events, [damaged(4, 4)]);
}

#[tokio::test]
async fn segments_with_exchanged_names_are_reported_and_served() {
    let (disk, paths) = segments().await;
    let [first, second] = [&paths[0], &paths[2]].map(|path| disk.read_file(path));
    disk.write_file(&paths[0], &second);
    disk.write_file(&paths[2], &first);
    let (log, opened) = open(&disk, 200);
    assert_eq!(opened.damaged.len(), 2);
    assert_eq!(texts(&log, query(&["a"], Start::Earliest)).await.len(), 7);
}

#[tokio::test]
async fn an_empty_segment_with_a_damaged_header_is_neither_overwritten_nor_deleted() {
    let (disk, paths) = segments().await;
    let (log, _) = open(&disk, 1);
    // The next commit begins a segment, of which only the mark of a clean end is left.
    log.publish(super::text("b", "8")).await.unwrap();
    log.purge_topic("b", None).await.unwrap();
    log.close().await;
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
    let last = disk.list(Path::new(DIRECTORY)).unwrap().into_iter().filter(is_segment).max().unwrap();
    assert!(last > paths[3]);
    let (log, _) = open(&disk, 1);
    log.close().await;
    for path in disk.list(Path::new(DIRECTORY)).unwrap() {
        let disk = disk.kill();
        disk.flip(&path, 20, 1);
        let (log, _) = open(&disk, 200);
        log.publish(super::text("c", "9")).await.unwrap();
        enforce(&log).await;
        enforce(&log).await;
        log.close().await;
        let (log, opened) = open(&disk, 200);
        let (messages, events) = read(&log, query(&["c"], Start::Earliest)).await;
        let texts = messages.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>();
        assert_eq!(texts, ["9"], "{}: {:?}", path.display(), opened.damaged);
        // Without the header of its segment, or the record of its purge, nothing says that the erased message was purged.
        let erased = Event::Damaged(SequenceRange { first: sequence(9), last: sequence(9) });
        assert!(events.iter().all(|event| *event == erased), "{}: {events:?}", path.display());
    }
}

#[tokio::test]
async fn a_log_whose_only_header_is_damaged_keeps_its_identity_and_its_trim_points() {
    let sample = sample("purged", 4096, &["a", "a", "b"], Some(2), true).await;
    let disk = &sample.disk;
    let (log, _) = open(disk, 4096);
    let id = embedded(&log).id();
    log.close().await;
    disk.flip(&Path::new(DIRECTORY).join("00000000000000000001.log"), 20, 1);
    let (log, opened) = open(disk, 4096);
    assert_eq!((embedded(&log).id(), opened.damaged.len()), (id, 1));
    assert_eq!(texts(&log, query(&[">"], Start::Earliest)).await, ["2-text"]);
}

#[tokio::test]
async fn a_damaged_commit_of_a_consumer_is_an_error_until_it_commits_again() {
    let disk = Simulation::new();
    let (log, _) = open(&disk, 4096);
    log.publish(super::text("a", "1")).await.unwrap();
    let position = Position { delivered_up_to: 1, ..Position::start(embedded(&log).id()) };
    log.commit_cursor("one", position.clone(), false).await.unwrap();
    let path = Path::new(DIRECTORY).join("00000000000000000001.log");
    let bytes = disk.read_file(&path);
    let name = memchr::memmem::rfind(&bytes, b"$consumer.one").unwrap();
    disk.flip(&path, name as u64, 1);
    let read_as = Query { consumer: Some("one".into()), ..query(&["a"], Start::New) };
    assert!(matches!(log.subscribe(read_as.clone()).await.err(), Some(Error::Io(_))));
    let listed = log.list_consumers(9, None).await.unwrap().consumers;
    assert!(matches!(&listed[..], [info] if info.name == "one" && info.position.is_err()), "{listed:?}");
    let commit = log.commit_cursor("one", position, false);
    tokio::time::timeout(PATIENCE, commit).await.unwrap().unwrap();
    assert!(log.subscribe(read_as).await.is_ok());
}

/// Opens a log again and again, and each time has the segment that was written followed by the next one, so that all
/// that should have an index get it: damage is reported each time.
async fn reported_at_each_start(disk: &Arc<Simulation>, (first, last): (u64, u64), left: usize) {
    for start in 0..3 {
        let (log, opened) = open(disk, 1);
        assert_eq!(opened.damaged.len(), 1, "start {start}: {:?}", opened.damaged);
        log.publish(super::text("b", "new")).await.unwrap();
        enforce(&log).await;
        let (messages, events) = read(&log, query(&["a"], Start::Earliest)).await;
        assert_eq!(events, [damaged(first, last)], "start {start}");
        assert_eq!(messages.len(), left);
        log.close().await;
    }
}

#[tokio::test]
async fn damage_is_reported_at_each_start_also_in_a_full_segment() {
    for nth in 0..5 {
        let disk = sample("damaged", 4096, &["a"; 6], None, false).await.disk;
        let path = Path::new(DIRECTORY).join("00000000000000000001.log");
        let block = memchr::memmem::find_iter(&disk.read_file(&path), b"PBLK").nth(nth).unwrap() as u64;
        disk.flip(&path, block + 1, 1);
        reported_at_each_start(&disk, (nth as u64 + 1, nth as u64 + 1), 5).await;
    }
}

#[tokio::test]
async fn a_damaged_end_of_a_full_segment_without_an_index_is_reported_at_each_start() {
    let (disk, paths) = segments().await;
    let bytes = disk.read_file(&paths[1]);
    let second = memchr::memmem::rfind(&bytes, b"PBLK").unwrap();
    disk.write_file(&paths[1], &bytes[..second + 20]);
    reported_at_each_start(&disk, (4, 4), 6).await;
}

#[tokio::test]
async fn a_segment_that_was_full_is_not_written_on_when_its_index_is_damaged() {
    let (disk, paths) = segments().await;
    // The last one that is left has an index.
    disk.remove(&paths[3]).unwrap();
    let length = disk.read_file(&paths[2]).len();
    let trailer = length - embedded::format::footer::TRAILER_BYTES;
    let pages = u64::from_le_bytes(disk.read_file(&paths[2])[trailer + 8..trailer + 16].try_into().unwrap());
    disk.flip(&paths[2], pages, 1);
    let (log, opened) = open(&disk, 64 * 1024);
    // The lost segment is the other one.
    assert_eq!(opened.damaged.len(), 2, "{:?}", opened.damaged);
    log.publish(super::text("b", "new")).await.unwrap();
    let (log, opened) = open(&disk.kill(), 64 * 1024);
    assert_eq!(opened.torn, []);
    assert_eq!(read(&log, query(&["b"], Start::Earliest)).await.0[0].1, "new");
    assert_eq!(read(&log, query(&["a"], Start::Earliest)).await.0.len(), 6);
}

#[tokio::test]
async fn a_copy_of_an_earlier_block_does_not_hide_the_blocks_after_it() {
    let disk = Simulation::new();
    let (log, _) = open(&disk, 4096);
    for length in [1, 300, 1, 1, 30, 500] {
        log.publish(super::text("a", &"x".repeat(length))).await.unwrap();
    }
    let disk = disk.kill();
    let path = Path::new(DIRECTORY).join("00000000000000000001.log");
    let mut bytes = disk.read_file(&path);
    let blocks = memchr::memmem::find_iter(&bytes, b"PBLK").collect::<Vec<_>>();
    // By what its header says it reaches beyond the last one.
    bytes.copy_within(blocks[1]..blocks[1] + blocks[5] - blocks[4], blocks[4]);
    disk.write_file(&path, &bytes);
    let (log, _) = open(&disk, 4096);
    let (messages, events) = read(&log, query(&["a"], Start::Earliest)).await;
    let sequences = messages.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>();
    assert_eq!((sequences, events), (vec![1, 2, 3, 4, 6], vec![damaged(5, 5)]));
}

#[tokio::test]
async fn a_block_that_was_moved_by_some_bytes_takes_nothing_with_it_that_is_written_later() {
    for shift in (16..140).step_by(4) {
        let disk = Simulation::new();
        let (log, _) = open(&disk, 4096);
        for length in [1, 1, 300] {
            log.publish(super::text("a", &"x".repeat(length))).await.unwrap();
        }
        log.close().await;
        let path = Path::new(DIRECTORY).join("00000000000000000001.log");
        let mut bytes = disk.read_file(&path);
        let last = memchr::memmem::rfind(&bytes, b"PBLK").unwrap();
        // By its header, it now reaches into the bytes that follow it.
        bytes.copy_within(last..last + 100, last + shift);
        bytes[last + 1] ^= 1;
        disk.write_file(&path, &bytes);
        for start in 0..3 {
            let (log, opened) = open(&disk, 4096);
            assert_eq!((opened.torn, opened.damaged.len()), (vec![], 1), "by {shift}, start {start}");
            log.publish(super::text("a", "new")).await.unwrap();
            log.close().await;
        }
        let (log, _) = open(&disk, 4096);
        let (messages, events) = read(&log, query(&["a"], Start::Earliest)).await;
        let sequences = messages.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>();
        let damaged = vec![damaged(3, 3)];
        assert_eq!((sequences, events), (vec![1, 2, 4, 5, 6], damaged), "by {shift}");
    }
}

#[tokio::test]
async fn a_byte_that_flips_while_the_server_runs_is_reported_in_the_stream() {
    use std::os::unix::fs::FileExt;
    let directory = tempfile::tempdir().unwrap();
    let log = super::open(&directory);
    for n in 1..=3 {
        log.publish(text("a", &format!("payload {n}"))).await.unwrap();
    }
    log.close().await;
    // Opened again, so that nothing is held in memory.
    let log = super::open(&directory);
    let bytes = std::fs::read(segment(&directory)).unwrap();
    let payload = memchr::memmem::find(&bytes, b"payload 2").unwrap();
    let file = std::fs::File::options().write(true).open(segment(&directory)).unwrap();
    file.write_all_at(b"X", payload as u64).unwrap();
    let (messages, events) = read(&log, query(&["a"], Start::Earliest)).await;
    assert_eq!(messages, [(1, "payload 1".into()), (3, "payload 3".into())]);
    assert_eq!(events, [damaged(2, 2)]);
}
