//! Readers from within: which queries they refuse, and, in virtual time, a file that is treated as a remote one.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{os::unix::fs::FileExt, pin::pin};

use futures::StreamExt;
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::{
    lines::{
        Delimiter, Files, OnGap, Options, Patterns, Root, Start,
        content::{cached::CACHED_BYTES, position::Within, pread::Content},
        history::generation::{Arrival, Generation},
    },
    stream::Batching,
};

fn query(start: Start) -> Query {
    Query {
        path: "r/app.log".into(),
        may_read: crate::lines::MayRead::default(),
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

/// A directory with this log, and the files below it.
fn files(content: &str) -> (TempDir, Files) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("app.log"), content).unwrap();
    let options = Options { max_line_bytes: 1000, ..Options::default() };
    let files = Files::new(vec![Root::new("r", directory.path())], options).unwrap();
    (directory, files)
}

/// The same, where one thread reads them.
fn files_of_one_thread(content: &str) -> (TempDir, Files, Pool) {
    let (directory, pool) = (files(content).0, Pool::new(1));
    let options = Options { pool: pool.clone(), ..Options::default() };
    let files = Files::new(vec![Root::new("r", directory.path())], options).unwrap();
    (directory, files, pool)
}

#[tokio::test]
async fn a_number_that_is_out_of_range_is_an_error_and_is_not_replaced() {
    let (_directory, files) = files("1\n2\n");
    let open = async |rules| Reader::open(&files.inner, Query { rules, ..query(Start::Head) }).await;
    for asked in [0, 3, 15, 1001, usize::MAX] {
        let refused = open(Rules { max_line_bytes: Some(asked), ..Rules::default() }).await;
        assert!(matches!(refused, Err(Error::LineBytes { .. })), "{asked}");
    }
    for asked in [None, Some(16), Some(1000)] {
        let reader = open(Rules { max_line_bytes: asked, ..Rules::default() }).await.unwrap();
        assert_eq!(reader.rules.line_limit(), asked.unwrap_or(1000));
    }
    let refused = open(Rules { until_line: Some(0), ..Rules::default() }).await;
    assert!(matches!(refused, Err(Error::LineZero { field: "until_line" })));
    let refused = Reader::open(&files.inner, query(Start::Line(0))).await;
    assert!(matches!(refused, Err(Error::LineZero { field: "from_line" })));
}

#[tokio::test]
async fn a_line_is_found_with_the_index_wherever_a_line_feed_ends_it() {
    let content = "1\r\n2\n3\r\n4\n";
    for (delimiter, offset, indexed) in [(None, 5, 1), (Some("\n"), 5, 1), (Some("\r\n"), 3, 0)] {
        let (_directory, files) = files(content);
        let delimiter = Delimiter::parse(delimiter).unwrap();
        let rules = Rules { delimiter, ..Rules::default() };
        let number = if indexed == 1 { 3 } else { 2 };
        let query = Query { rules, ..query(Start::Line(number)) };
        let mut reader = Reader::open(&files.inner, query).await.unwrap();
        let file = reader.rotation.file().unwrap().clone();
        reader.seek(&file).await.unwrap();
        let found = reader.checkpoint.line;
        assert_eq!((found.number, found.offset), (Some(number), offset), "{:?}", reader.rules.delimiter);
        assert_eq!(files.inner.indexes.count(), indexed, "{:?}", reader.rules.delimiter);
    }
}

#[tokio::test]
async fn a_reader_that_waits_for_its_turn_to_decompress_sends_heartbeats_and_then_the_lines() {
    use std::io::Write;

    let (directory, files) = files("3\n");
    let path = directory.path().join("app.log.1.gz");
    let mut gzip = flate2::write::GzEncoder::new(File::create(path).unwrap(), flate2::Compression::fast());
    gzip.write_all(b"1\n2\n").unwrap();
    gzip.finish().unwrap();
    let occupied = files.inner.archives.occupy();
    let batching = Batching { heartbeat: Duration::from_millis(50), ..Batching::default() };
    let query = Query { history: true, batching, ..query(Start::Head) };
    let mut reader = Reader::open(&files.inner, query.clone()).await.unwrap();
    let mut first = None;
    for _ in 0..4 {
        let batch = next(&mut reader).await;
        assert!(batch.count == 0 && !batch.progress.caught_up, "{batch:?}");
        assert_eq!(*first.get_or_insert(batch.position.clone()), batch.position);
    }
    drop(occupied);
    // So does a reader that was cut before its first line.
    let again = Query { start: Start::Resume(first.unwrap()), ..query.clone() };
    let again = Reader::open(&files.inner, again).await.unwrap();
    for mut reader in [reader, again] {
        let mut lines = 0;
        while let Some(filled) = reader.wait().await.unwrap() {
            lines += reader.batch(filled).count;
        }
        assert_eq!(lines, 3);
    }
}

/// To prove a position in a compressed file may take minutes.
#[tokio::test]
async fn a_reader_whose_position_is_searched_for_long_sends_heartbeats_with_it_and_then_the_lines() {
    let (_directory, files, pool) = files_of_one_thread("1\n2\n");
    let batching = Batching { heartbeat: Duration::from_millis(50), max_items: 1, ..Batching::default() };
    let query = Query { batching, ..query(Start::Head) };
    let position = next(&mut Reader::open(&files.inner, query.clone()).await.unwrap()).await.position;
    // The search waits for this.
    let (release, released) = std::sync::mpsc::channel::<()>();
    let occupied = pool.run(move || released.recv());
    let again = Query { start: Start::Resume(position.clone()), ..query };
    let mut batches = pin!(files.open(again).await.unwrap());
    for _ in 0..3 {
        let batch = batches.next().await.unwrap().unwrap();
        assert!(batch.count == 0 && batch.events.is_empty() && !batch.progress.caught_up, "{batch:?}");
        assert_eq!((batch.position, batch.progress.next_offset), (position.clone(), 2));
    }
    drop(release);
    assert!(occupied.await.unwrap().is_err());
    let batch = batches.next().await.unwrap().unwrap();
    assert_eq!((batch.count, batch.events), (1, vec![Event::Resumed(crate::lines::Found::Exact)]));
}

/// A reader at the end of a remote file that has this content.
async fn at_end_of(content: &str) -> (TempDir, File, Reader) {
    let (directory, files) = files(content);
    let query = Query { follow: true, ..query(Start::Head) };
    let mut reader = Reader::open(&files.inner, query).await.unwrap();
    let file = File::options().read(true).write(true).open(directory.path().join("app.log")).unwrap();
    let (shared, identity) = (Arc::new(file.try_clone().unwrap()), reader.rotation.identity());
    let arrival = Arrival { is_remote: true, ..Arrival::default() };
    reader.rotation = Rotation::generation(Generation::none(1).push(shared, identity, arrival, None));
    assert!(next(&mut reader).await.progress.caught_up);
    (directory, file, reader)
}

async fn next(reader: &mut Reader) -> Batch {
    let filled = reader.wait().await.unwrap().unwrap();
    reader.batch(filled)
}

/// The next batch that is no heartbeat.
async fn news(reader: &mut Reader) -> Batch {
    loop {
        let batch = next(reader).await;
        if batch.count > 0 || !batch.events.is_empty() {
            return batch;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_remote_file_that_is_shorter_for_a_moment_was_not_truncated() {
    let (_directory, file, mut reader) = at_end_of("1\n2\n").await;
    file.set_len(2).unwrap();
    // Virtual time does not wait for the thread that reports changes.
    reader.phase = Phase::read();
    let waited = timeout(REMOTE_CONFIRM / 2, news(&mut reader)).await;
    assert!(
        waited.is_err()
            && matches!(reader.phase, Phase::Short { .. } | Phase::Read { short_since: Some(_), .. }),
        "{waited:?}"
    );
    file.write_all_at(b"2\n3\n", 2).unwrap();
    let batch = news(&mut reader).await;
    assert_eq!((batch.count, batch.progress.next_offset, batch.events), (1, 6, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_remote_file_that_stays_shorter_was_truncated() {
    let (_directory, file, mut reader) = at_end_of("1\n2\n").await;
    file.set_len(2).unwrap();
    let since = Instant::now();
    let batch = news(&mut reader).await;
    assert_eq!((batch.count, batch.events), (1, vec![Event::Truncated { read_offset: 4, size: 2 }]));
    assert!(since.elapsed() >= REMOTE_CONFIRM);
}

#[tokio::test]
async fn a_size_from_before_a_truncation_is_not_that_of_text_that_was_cut_off() {
    let (directory, files) = files("1\n2\n");
    let mut reader = Reader::open(&files.inner, Query { follow: true, ..query(Start::Head) }).await.unwrap();
    while !next(&mut reader).await.progress.caught_up {}
    std::fs::write(directory.path().join("app.log"), "3\n").unwrap();
    // The file was truncated between the reading of its size and of its content.
    let filled = Filled::nothing(reader.checkpoint, Ended::Truncated, reader.size);
    reader.record(&filled, None, None);
    let batch = news(&mut reader).await;
    assert_eq!((batch.count, batch.events), (1, vec![Event::Truncated { read_offset: 4, size: 4 }]));
}

/// A progress bar: the CR may be the start of a delimiter.
#[tokio::test]
async fn a_part_of_which_nothing_more_can_be_flushed_is_not_read_again_and_again() {
    let (_directory, files) = files("50%\r");
    let partial_flush = Some(Duration::from_millis(20));
    let query = Query { follow: true, partial_flush, ..query(Start::Head) };
    let mut reader = Reader::open(&files.inner, query).await.unwrap();
    assert_eq!(news(&mut reader).await.count, 1);
    let waited = timeout(Duration::from_millis(500), news(&mut reader)).await;
    assert!(waited.is_err() && reader.tail.read_at.elapsed() > Duration::from_millis(200), "{waited:?}");
}

/// The next batch with lines: its events, and how many lines.
async fn lines(reader: &mut Reader) -> (Vec<Event>, usize) {
    let mut events = Vec::new();
    loop {
        let batch = news(reader).await;
        events.extend(batch.events);
        if batch.count > 0 {
            return (events, batch.count);
        }
    }
}

/// A short addition that is in memory needs no change of threads.
#[tokio::test]
async fn a_line_that_was_just_appended_does_not_wait_for_a_thread_of_the_pool() {
    let (directory, files, pool) = files_of_one_thread("1\n");
    if Cached::new(&File::open(directory.path().join("app.log")).unwrap()).stat().is_err() {
        eprintln!("not checked: the file system of temporary files has no reads that never wait");
        return;
    }
    let batching = Batching { heartbeat: Duration::from_millis(50), ..Batching::default() };
    let query = Query { follow: true, batching, ..query(Start::Head) };
    let mut reader = Reader::open(&files.inner, query).await.unwrap();
    while !next(&mut reader).await.progress.caught_up {}
    let (release, released) = std::sync::mpsc::channel::<()>();
    let occupied = pool.run(move || released.recv());
    append(&directory, "app.log", "2\n");
    assert_eq!(timeout(Duration::from_secs(10), news(&mut reader)).await.unwrap().count, 1);
    // One that is long does.
    append(&directory, "app.log", &"3\n".repeat(CACHED_BYTES));
    let mut long = Box::pin(news(&mut reader));
    assert!(timeout(Duration::from_millis(300), &mut long).await.is_err());
    drop(release);
    assert!(long.await.count > 0 && occupied.await.unwrap().is_err());
}

/// A reader that has left two files, `old/1` and then `old/2`, and is at the end of the third.
async fn after_two_rotations() -> (TempDir, Reader) {
    let (directory, files) = files("1\n");
    std::fs::create_dir(directory.path().join("old")).unwrap();
    let query = Query { follow: true, ..query(Start::Head) };
    let mut reader = Reader::open(&files.inner, query).await.unwrap();
    lines(&mut reader).await;
    for round in 1..=2 {
        let log = directory.path().join("app.log");
        std::fs::rename(&log, directory.path().join(format!("old/{round}"))).unwrap();
        std::fs::write(&log, format!("{}\n", round + 1)).unwrap();
        lines(&mut reader).await;
    }
    (directory, reader)
}

fn append(directory: &TempDir, name: &str, text: &str) {
    use std::io::Write;
    let mut file = File::options().append(true).open(directory.path().join(name)).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// How often a reader is polled within two seconds in which nothing comes.
async fn polls_while_waiting(reader: &mut Reader) -> usize {
    let mut polls = 0;
    let mut wait = pin!(news(reader));
    let counted = std::future::poll_fn(|context| {
        polls += 1;
        wait.as_mut().poll(context)
    });
    let waited = timeout(Duration::from_secs(2), counted).await;
    assert!(waited.is_err(), "{waited:?}");
    polls
}

/// The check of files that were left is due while the reader may not go to them yet.
#[tokio::test]
async fn a_reader_rests_while_it_waits_whatever_became_of_the_file_and_of_those_before() {
    for what in ["nothing", "it is renamed", "it is renamed and an empty file comes", "it is deleted"] {
        let (directory, mut reader) = after_two_rotations().await;
        let log = directory.path().join("app.log");
        match what {
            "nothing" => {}
            "it is deleted" => std::fs::remove_file(&log).unwrap(),
            _ => std::fs::rename(&log, directory.path().join("old/3")).unwrap(),
        }
        if what.contains("empty") {
            std::fs::write(&log, "").unwrap();
        } else if what != "nothing" {
            assert_eq!(news(&mut reader).await.events, [Event::Deleted]);
        }
        let polls = polls_while_waiting(&mut reader).await;
        // A renamed file is read every 20 ms; a reader that does not rest is polled thousands of times.
        assert!(polls < 600, "{what}: {polls} polls");
    }
}

/// Whether it is shorter is decided after a while.
#[tokio::test]
async fn a_reader_rests_while_a_renamed_remote_file_seems_to_be_shorter() {
    let (directory, file, mut reader) = at_end_of("1\n2\n").await;
    let log = directory.path().join("app.log");
    std::fs::rename(&log, directory.path().join("old")).unwrap();
    std::fs::write(&log, "3\n").unwrap();
    let last = reader.follow.as_ref().unwrap().last();
    let new = Arc::new(File::open(&log).unwrap());
    let identity = crate::lines::identity::Identity::of(&new.metadata().unwrap());
    let own = Generation::none(2);
    let own = own.push(
        Arc::new(file.try_clone().unwrap()),
        last.identity,
        Arrival { is_remote: true, ..Arrival::default() },
        None,
    );
    own.push(new, identity, Arrival::default(), None);
    own.leave(None);
    reader.rotation = Rotation::generation(own);
    file.set_len(2).unwrap();
    tokio::time::sleep(reader.inner.options.rotation_grace).await;
    reader.read_again(None);
    let polls = polls_while_waiting(&mut reader).await;
    assert!(polls < 600, "{polls} polls");
}

#[tokio::test]
async fn a_part_of_a_last_line_that_a_filter_leaves_out_is_asked_for_once() {
    for is_link in [false, true] {
        let (directory, files) = files("");
        let path = |name: &str| directory.path().join(name);
        let log = path("app.log");
        let point = |name: &str| {
            std::os::unix::fs::symlink(name, path("link")).unwrap();
            std::fs::rename(path("link"), &log).unwrap();
        };
        std::fs::write(path("one"), "x 1\npart").unwrap();
        if is_link {
            point("one");
        } else {
            std::fs::rename(path("one"), &log).unwrap();
        }
        let patterns = Patterns { include: vec!["x".into()], ..Patterns::default() };
        let query = Query { follow: true, patterns, ..query(Start::Head) };
        let mut reader = Reader::open(&files.inner, query).await.unwrap();
        assert_eq!(lines(&mut reader).await, (vec![], 1));
        std::fs::write(path("two"), "x 2\n").unwrap();
        if is_link {
            point("two");
        } else {
            std::fs::rename(&log, path("one")).unwrap();
            std::fs::rename(path("two"), &log).unwrap();
        }
        assert_eq!(lines(&mut reader).await, (vec![Event::Rotated { next_offset: 0 }], 1), "{is_link}");
        tokio::time::pause();
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(70)).await;
            let batch = next(&mut reader).await;
            assert_eq!((batch.count, batch.events), (0, vec![]), "{is_link}");
        }
        if !is_link {
            append(&directory, "one", " x\n");
            assert_eq!(lines(&mut reader).await, (vec![Event::Late { offset: 4 }], 1));
        }
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_line_that_is_written_to_a_file_an_hour_after_it_was_left_is_found_with_a_heartbeat() {
    let (directory, mut reader) = after_two_rotations().await;
    tokio::time::pause();
    for (name, offset) in [("old/1", 2), ("old/2", 2), ("old/1", 7)] {
        tokio::time::advance(Duration::from_secs(3600)).await;
        next(&mut reader).await;
        append(&directory, name, "late\n");
        let since = Instant::now();
        assert_eq!(lines(&mut reader).await, (vec![Event::Late { offset }], 1), "{name}");
        assert!(since.elapsed() <= Duration::from_secs(16), "{:?}", since.elapsed());
    }
    append(&directory, "app.log", "4\n");
    reader.read_again(None);
    assert_eq!(lines(&mut reader).await, (vec![Event::Rotated { next_offset: 2 }], 1));
}

#[tokio::test]
async fn a_file_that_was_left_is_held_open_for_a_minute_and_then_until_it_is_deleted() {
    let (directory, mut reader) = after_two_rotations().await;
    tokio::time::pause();
    let mut left = async |wait| {
        tokio::time::advance(wait).await;
        next(&mut reader).await;
        reader.late.count()
    };
    std::fs::remove_file(directory.path().join("old/1")).unwrap();
    assert_eq!(left(Duration::from_secs(20)).await, 2);
    assert_eq!(left(Duration::from_secs(60)).await, 1);
    std::fs::remove_file(directory.path().join("old/2")).unwrap();
    assert_eq!(left(Duration::from_secs(20)).await, 0);
}

/// A part of a line that grew between the decision to flush it and the read is not what was quiet: its writer is about to
/// write the rest.
#[tokio::test]
async fn a_part_of_a_line_that_has_just_grown_is_not_flushed_at_the_last_read_of_a_file() {
    for known in ["", "a "] {
        let (directory, files) = files(&format!("1\n{known}"));
        let query = Query { follow: true, ..query(Start::Head) };
        let mut reader = Reader::open(&files.inner, query).await.unwrap();
        lines(&mut reader).await;
        while !matches!(reader.phase, Phase::AtEnd(_)) {
            reader.read().await.unwrap();
        }
        std::fs::rename(directory.path().join("app.log"), directory.path().join("app.log.1")).unwrap();
        reader.state.notice_renamed();
        reader.state.ask_for_last_read();
        append(&directory, "app.log.1", "late ");
        reader.read_again(Some(End::Last));
        let filled = reader.read().await.unwrap();
        assert_eq!((filled.count, reader.state.is_drained()), (0, false), "{known:?}");
        append(&directory, "app.log.1", "line\n");
        assert_eq!(lines(&mut reader).await, (vec![], 1));
        assert_eq!(reader.checkpoint.line.within, Within::Start);
    }
}

#[tokio::test]
async fn a_part_of_a_line_that_has_just_grown_is_not_flushed_after_the_pause_of_the_one_before() {
    let (directory, files) = files("1\na ");
    let partial_flush = Some(Duration::from_secs(3600));
    let query = Query { follow: true, partial_flush, ..query(Start::Head) };
    let mut reader = Reader::open(&files.inner, query).await.unwrap();
    lines(&mut reader).await;
    while !matches!(reader.phase, Phase::AtEnd(_)) {
        reader.read().await.unwrap();
    }
    append(&directory, "app.log", "late ");
    reader.read_again(Some(End::Partial));
    assert_eq!(reader.read().await.unwrap().count, 0);
    let has_part = |reader: &Reader| reader.next_read().is_some();
    assert!(has_part(&reader), "it is flushed after a pause of its own");
    reader.read_again(Some(End::Partial));
    assert_eq!(reader.read().await.unwrap().count, 1);
    assert!(!has_part(&reader));
}

#[tokio::test]
async fn a_part_of_a_late_line_is_not_flushed_before_its_rest_had_time_to_come() {
    let (directory, mut reader) = after_two_rotations().await;
    tokio::time::pause();
    for (round, name) in ["old/1", "old/2"].into_iter().enumerate() {
        tokio::time::advance(Duration::from_secs(3600)).await;
        next(&mut reader).await;
        append(&directory, name, "la");
        assert_eq!(news(&mut reader).await.count, 0, "{round}");
        append(&directory, name, "te\n");
        let (_, count) = lines(&mut reader).await;
        assert_eq!((count, reader.checkpoint.line.within), (1, Within::Start), "{round}");
    }
}

/// It may have grown while the reader read late lines of another file, or by more than one batch.
#[tokio::test]
async fn a_renamed_file_that_grew_since_it_was_read_to_its_end_is_not_quiet() {
    let (directory, files) = files("1\n");
    let mut reader = Reader::open(&files.inner, Query { follow: true, ..query(Start::Head) }).await.unwrap();
    lines(&mut reader).await;
    while !matches!(reader.phase, Phase::AtEnd(_)) {
        reader.read().await.unwrap();
    }
    for text in ["half a ".into(), "line\n".repeat(20_000)] {
        let before = Instant::now();
        append(&directory, "app.log", &text);
        (reader.phase, reader.tail.is_live) = (Phase::read(), false);
        while !matches!(reader.phase, Phase::AtEnd(_)) {
            reader.read().await.unwrap();
        }
        assert!(reader.tail.quiet_since >= before);
    }
}
