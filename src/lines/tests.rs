//! On real files: where a stream starts, what it survives, and that nothing is missed or comes twice.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    io::Write,
    path::{Path, PathBuf},
    pin::Pin,
};

use futures::StreamExt;
use proptest::prelude::*;
use prost::Message;

use super::{
    content::{
        checkpoint::Checkpoint,
        position::{LinePosition, Within},
    },
    identity::Identity,
    *,
};
use crate::{
    proto::{self, line::Content},
    stream::Batching,
};

mod filters;

type Batches = Pin<Box<dyn Stream<Item = Result<Batch, Error>> + Send>>;

struct Log {
    directory: tempfile::TempDir,
    files: Files,
}

impl Log {
    fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = Options { max_line_bytes: 1000, rotation_grace: Duration::from_millis(50), ..options };
        Self { files: Files::new(vec![Root::new("r", directory.path())], options).unwrap(), directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn append(&self, name: &str, text: &str) {
        append(&self.path(name), text);
    }

    async fn open(&self, query: Query) -> Result<Batches, Error> {
        Ok(Box::pin(self.files.open(query).await?))
    }

    async fn all(&self, query: Query) -> Vec<String> {
        let mut batches = self.open(query).await.unwrap();
        let mut lines = Vec::new();
        while let Some(batch) = next(&mut batches).await {
            lines.extend(texts(&batch));
        }
        lines
    }
}

fn append(path: &Path, text: &str) {
    std::fs::File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
}

fn query(start: Start) -> Query {
    Query {
        path: "r/app.log".into(),
        may_read: MayRead::default(),
        start,
        history: false,
        follow: false,
        wait_for_create: false,
        on_gap: OnGap::Fail,
        rules: Rules::default(),
        patterns: Patterns::default(),
        partial_flush: None,
        batching: Batching::default(),
    }
}

fn follow(start: Start) -> Query {
    Query { follow: true, ..query(start) }
}

async fn next(batches: &mut Batches) -> Option<Batch> {
    let next = tokio::time::timeout(Duration::from_secs(120), batches.next()).await;
    next.expect("a batch within 120 s").transpose().unwrap()
}

fn decode(batch: &Batch) -> Vec<proto::Line> {
    let lines = proto::ReadLinesResponse::decode(batch.items.concat().as_slice()).unwrap().lines;
    assert_eq!(lines.len(), batch.count);
    lines
}

fn texts(batch: &Batch) -> Vec<String> {
    let text = |line: proto::Line| match line.content.unwrap() {
        Content::Text(text) => text,
        Content::Data(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
    };
    decode(batch).into_iter().map(text).collect()
}

/// Reads until a line; returns the lines and events up to its batch.
async fn read_to(batches: &mut Batches, wanted: &str) -> (Vec<String>, Vec<Event>) {
    let (mut lines, mut events) = (Vec::new(), Vec::new());
    while lines.last().is_none_or(|line| line != wanted) {
        let batch = next(batches).await.expect("the stream goes on");
        events.extend(batch.events.clone());
        lines.extend(texts(&batch));
    }
    (lines, events)
}

#[tokio::test]
async fn each_start_begins_where_it_says() {
    let log = Log::new();
    log.append("app.log", "one\ntwo\nthree");
    for (start, expected) in [
        (Start::Head, &["one", "two", "three"][..]),
        (Start::Last(2), &["two", "three"]),
        (Start::Last(9), &["one", "two", "three"]),
        (Start::Last(0), &[]),
        (Start::Line(3), &["three"]),
        (Start::Line(4), &[]),
        (Start::Offset(4), &["two", "three"]),
        (Start::Offset(5), &["wo", "three"]),
        (Start::Offset(13), &[]),
    ] {
        assert_eq!(log.all(query(start.clone())).await, expected, "{start:?}");
    }
    let error = log.open(query(Start::Offset(14))).await.err().unwrap();
    assert!(matches!(error, Error::OffsetBeyondEnd { offset: 14, size: 13 }), "{error:?}");
}

#[tokio::test]
async fn the_first_batch_leaves_at_once_though_there_is_nothing_yet() {
    let log = Log::new();
    log.append("app.log", "");
    let mut batches = log.open(follow(Start::Head)).await.unwrap();
    let first = next(&mut batches).await.unwrap();
    assert!(first.count == 0 && first.progress.caught_up);
}

#[tokio::test]
async fn a_line_in_two_writes_is_one_line() {
    let log = Log::new();
    log.append("app.log", "a\npar");
    let mut batches = log.open(follow(Start::Head)).await.unwrap();
    assert_eq!(read_to(&mut batches, "a").await.0, ["a"]);
    log.append("app.log", "t\n");
    assert_eq!(read_to(&mut batches, "part").await.0, ["part"]);
}

#[tokio::test]
async fn a_line_that_is_not_there_yet_is_waited_for_by_its_number_also_when_resumed() {
    let log = Log::new();
    log.append("app.log", "1\n2\npart");
    let mut batches = log.open(follow(Start::Line(4))).await.unwrap();
    let first = next(&mut batches).await.unwrap();
    assert_eq!(first.count, 0);
    log.append("app.log", " of 3\n4\n5\n");
    assert_eq!(read_to(&mut batches, "5").await.0, ["4", "5"]);
    let mut batches = log.open(follow(Start::Resume(first.position))).await.unwrap();
    assert_eq!(read_to(&mut batches, "5").await.0, ["4", "5"]);
}

#[tokio::test]
async fn nothing_outside_the_root_and_nothing_but_files_can_be_opened() {
    let log = Log::new();
    log.append("app.log", "x\n");
    std::fs::create_dir(log.path("dir")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", log.path("absolute")).unwrap();
    std::os::unix::fs::symlink("../../../../etc/passwd", log.path("relative")).unwrap();
    std::os::unix::fs::symlink("/proc/self/root/etc", log.path("magic")).unwrap();
    std::os::unix::fs::symlink("app.log", log.path("inside")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, log.path("fifo"), rustix::fs::Mode::RWXU).unwrap();
    for name in ["dir", "absolute", "relative", "magic/passwd", "fifo", "none", "none/none"] {
        let error = log.open(Query { path: format!("r/{name}"), ..query(Start::Head) }).await.err().unwrap();
        assert!(matches!(&error, Error::NotFound { .. }), "{name}: {error:?}");
    }
    for path in ["", "r", "r/", "r//app.log", "/r/app.log", "r/../r/app.log", "r/./app.log", "r/a\0b"] {
        let error = log.open(Query { path: path.into(), ..query(Start::Head) }).await.err().unwrap();
        assert!(matches!(error, Error::PathInvalid { .. }), "{path}: {error:?}");
    }
    let inside = Query { path: "r/inside".into(), ..query(Start::Head) };
    assert_eq!(log.all(inside).await, ["x"]);
    let listed = log.files.list(None, 10, None, SystemTime::now()).await.unwrap().files;
    assert_eq!(listed.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["r/app.log", "r/inside"]);
}

#[tokio::test]
async fn a_listing_is_paged_in_the_order_of_the_paths() {
    let log = Log::new();
    std::fs::create_dir(log.path("b")).unwrap();
    for name in ["c", "b/2", "a", "b/1"] {
        log.append(name, "x");
    }
    let (mut paths, mut after) = (Vec::new(), None);
    loop {
        let page = log.files.list(Some("r"), 3, after.as_deref(), SystemTime::now()).await.unwrap();
        paths.extend(page.files.into_iter().map(|file| file.path));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(paths, ["r/a", "r/b/1", "r/b/2", "r/c"]);
}

#[tokio::test]
async fn lines_written_late_to_a_renamed_file_come_before_those_of_the_new_one() {
    let log = Log::new();
    log.append("app.log", "1\n");
    let mut batches = log.open(follow(Start::Head)).await.unwrap();
    read_to(&mut batches, "1").await;
    std::fs::rename(log.path("app.log"), log.path("app.log.1")).unwrap();
    log.append("app.log", "3\n");
    log.append("app.log.1", "2\nhalf");
    let (lines, events) = read_to(&mut batches, "3").await;
    assert_eq!(lines, ["2", "half", "3"]);
    assert_eq!(events, [Event::Rotated { next_offset: 0 }]);
}

#[tokio::test]
async fn a_rotated_file_is_found_among_thousands_whose_names_begin_alike() {
    let log = Log::new();
    (0..1200).for_each(|n| log.append(&format!("app.log-x{n}"), ""));
    log.append("app.log", "1\n");
    let position = {
        let mut batches = log.open(query(Start::Head)).await.unwrap();
        next(&mut batches).await.unwrap().position
    };
    log.append("app.log", "2\n");
    std::fs::rename(log.path("app.log"), log.path("app.log.1")).unwrap();
    log.append("app.log", "3\n");
    let mut batches = log.open(query(Start::Resume(position))).await.unwrap();
    let (lines, _) = read_to(&mut batches, "3").await;
    assert_eq!(lines, ["2", "3"]);
}

#[tokio::test]
async fn lines_written_to_a_file_that_was_moved_to_an_unwatched_directory_are_read() {
    let log = Log::new();
    log.append("app.log", "1\n");
    let mut batches = log.open(follow(Start::Head)).await.unwrap();
    read_to(&mut batches, "1").await;
    std::fs::create_dir(log.path("old")).unwrap();
    log.append("old/app.log", "");
    // In one step: while there is no file at the path, the old one is left after the grace.
    let [path, old] = [log.path("app.log"), log.path("old/app.log")];
    rustix::fs::renameat_with(rustix::fs::CWD, path, rustix::fs::CWD, old, rustix::fs::RenameFlags::EXCHANGE)
        .unwrap();
    for number in 2..=5 {
        let quiet = tokio::time::timeout(Duration::from_millis(60), batches.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        log.append("old/app.log", &format!("{number}\n"));
        let (lines, events) = read_to(&mut batches, &number.to_string()).await;
        assert_eq!((lines, events), (vec![number.to_string()], vec![]));
    }
}

#[tokio::test]
async fn lines_written_to_a_renamed_file_after_it_was_left_come_late_also_to_a_reader_that_is_cut_then() {
    let log = Log::new();
    log.append("app.log", "1\n");
    let mut batches = log.open(follow(Start::Head)).await.unwrap();
    read_to(&mut batches, "1").await;
    std::fs::rename(log.path("app.log"), log.path("app.log.1")).unwrap();
    log.append("app.log", "2\n");
    read_to(&mut batches, "2").await;
    log.append("app.log.1", "late\nhalf");
    let (lines, events) = read_to(&mut batches, "late").await;
    assert_eq!((lines, events), (vec!["late".to_string()], vec![Event::Late { offset: 2 }]));
    let (lines, events) = {
        log.append("app.log", "3\n");
        read_to(&mut batches, "3").await
    };
    assert_eq!((lines, events), (vec!["3".to_string()], vec![Event::Rotated { next_offset: 2 }]));
    log.append("app.log.1", " a line\nlast\n");
    let cut = next(&mut batches).await.unwrap();
    assert_eq!(
        (texts(&cut), &cut.events[..]),
        (vec!["half a line".into(), "last".into()], &[Event::Late { offset: 7 }][..])
    );
    drop(batches);
    log.append("app.log", "4\n");
    for follows in [true, false] {
        let resume = Query { follow: follows, ..query(Start::Resume(cut.position.clone())) };
        let mut batches = log.open(resume).await.unwrap();
        let (lines, events) = read_to(&mut batches, "4").await;
        let expected = [Event::Resumed(Found::Moved), Event::Rotated { next_offset: 4 }];
        assert_eq!((lines, &events[..]), (vec!["4".to_string()], &expected[..]));
    }
}

#[tokio::test]
async fn a_renamed_file_that_is_written_to_for_ever_does_not_keep_its_successor_waiting() {
    let log = Log::new();
    log.append("app.log", "old\n");
    let mut batches = log.open(follow(Start::Head)).await.unwrap();
    read_to(&mut batches, "old").await;
    std::fs::rename(log.path("app.log"), log.path("app.log.1")).unwrap();
    log.append("app.log", "new\n");
    let (ends, path) = (Arc::new(std::sync::atomic::AtomicBool::new(false)), log.path("app.log.1"));
    let writer_ends = ends.clone();
    let writer = std::thread::spawn(move || {
        let mut written = 0;
        while !writer_ends.load(std::sync::atomic::Ordering::Relaxed) {
            append(&path, "old\n");
            written += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
        written
    });
    let (mut lines, _) = read_to(&mut batches, "new").await;
    ends.store(true, std::sync::atomic::Ordering::Relaxed);
    let written: usize = writer.join().unwrap();
    log.append("app.log.1", "end\n");
    lines.extend(read_to(&mut batches, "end").await.0);
    assert_eq!(lines.iter().filter(|line| *line == "old").count(), written);
}

#[tokio::test]
async fn a_file_rewritten_to_the_same_size_is_read_again() {
    let log = Log::new();
    log.append("app.log", "old\n");
    let mut batches = log.open(follow(Start::Head)).await.unwrap();
    read_to(&mut batches, "old").await;
    std::fs::write(log.path("app.log"), "new\n").unwrap();
    let (lines, events) = read_to(&mut batches, "new").await;
    assert_eq!(lines, ["new"]);
    assert!(matches!(events[..], [Event::Truncated { read_offset: 4, .. }]), "{events:?}");
}

#[tokio::test]
async fn a_deleted_file_is_reported_once_and_its_successor_is_read_also_by_a_reader_that_was_away() {
    let log = Log::new();
    log.append("app.log", "1\n");
    let mut batches = log.open(follow(Start::Head)).await.unwrap();
    read_to(&mut batches, "1").await;
    std::fs::remove_file(log.path("app.log")).unwrap();
    let reported = next(&mut batches).await.unwrap();
    assert_eq!(reported.events, [Event::Deleted]);
    let mut resumed = log.open(follow(Start::Resume(reported.position))).await.unwrap();
    assert_eq!(next(&mut resumed).await.unwrap().events, [Event::Resumed(Found::Exact)]);
    log.append("app.log", "2\n");
    for batches in [&mut batches, &mut resumed] {
        let (lines, events) = read_to(batches, "2").await;
        assert_eq!((lines, events), (vec!["2".to_string()], vec![Event::Opened { size: 2 }]));
    }
}

#[tokio::test]
async fn quiet_is_broken_by_heartbeats() {
    let log = Log::new();
    log.append("app.log", "1\n");
    let batching = Batching { heartbeat: Duration::from_millis(30), ..Batching::default() };
    let mut batches = log.open(Query { batching, ..follow(Start::Head) }).await.unwrap();
    read_to(&mut batches, "1").await;
    for _ in 0..3 {
        let beat = next(&mut batches).await.unwrap();
        assert!(beat.count == 0 && beat.progress.caught_up && beat.progress.next_offset == 2);
    }
}

#[tokio::test]
async fn a_thousand_followers_cost_one_watch_which_ends_with_them() {
    let log = Log::new();
    log.append("app.log", "1\n");
    let mut all = Vec::new();
    for _ in 0..1000 {
        let mut batches = log.open(follow(Start::Head)).await.unwrap();
        next(&mut batches).await.unwrap();
        all.push(batches);
    }
    assert_eq!(log.files.inner.watches.count(), 1);
    drop(all);
    assert_eq!(log.files.inner.watches.count(), 0);
}

/// A writer that rotates as it goes, and a reader that is cut after every few batches: each line comes once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_is_cut_again_and_again_gets_each_line_once_while_the_file_is_rotated() {
    const LINES: usize = 3_000;
    let log = Log::new();
    log.append("app.log", "line 0\n");
    let first = next(&mut log.open(follow(Start::Head)).await.unwrap()).await.unwrap();
    let directory = log.directory.path().to_path_buf();
    let writer = std::thread::spawn(move || {
        let path = |generation: usize| match generation {
            0 => directory.join("app.log"),
            n => directory.join(format!("app.log.{n}")),
        };
        for n in 1..LINES {
            if n % 400 == 0 {
                for generation in (0..8).rev() {
                    let _ = std::fs::rename(path(generation), path(generation + 1));
                }
                // Apart by more than the coarse clock of a file's birth.
                std::thread::sleep(Duration::from_millis(15));
            }
            let tail = format!(" {n}\n");
            append(&path(0), "line");
            append(&path(0), &tail);
        }
    });
    let (mut seen, mut start, mut cut) = (texts(&first), Start::Resume(first.position), 1);
    while seen.len() < LINES {
        let mut batches = log.open(follow(start)).await.unwrap();
        cut = cut % 5 + 1;
        let mut position = None;
        for _ in 0..cut {
            if seen.len() == LINES {
                break;
            }
            let batch = next(&mut batches).await.unwrap();
            seen.extend(texts(&batch));
            position = Some(batch.position);
        }
        let Some(position) = position else { break };
        start = Start::Resume(position);
    }
    writer.join().unwrap();
    let expected = (0..LINES).map(|n| format!("line {n}")).collect::<Vec<_>>();
    assert!(seen == expected, "{:?}", seen.iter().zip(&expected).find(|(seen, expected)| seen != expected));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_made_up_position_is_refused_or_read_but_never_breaks_the_reader(
        offset: u64, number: Option<u64>, within: u8, skip_to: Option<u64>, deleted: bool, own: bool,
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let log = Log::new();
            log.append("app.log", "one\ntwo\n");
            let mut batches = log.open(query(Start::Head)).await.unwrap();
            let made = next(&mut batches).await.unwrap().position;
            let identity = if own { made.identity } else { Identity::default() };
            let within = [Within::Start, Within::Continued, Within::Dropped][usize::from(within % 3)];
            let checkpoint = Checkpoint { line: LinePosition { offset, number, within }, ..made.checkpoint };
            let position = Position { identity, checkpoint, skip_to, deleted, ..made };
            if let Ok(mut batches) = log.open(query(Start::Resume(position))).await {
                while let Some(batch) = batches.next().await {
                    let Ok(batch) = batch else { break };
                    assert!(batch.count <= 2);
                }
            }
        });
    }
}
