//! What only a remote file system shows: in virtual time, on a file that is treated as a remote one.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::os::unix::fs::FileExt;

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::{
    lines::{
        Files, OnGap, Options, Root, Start,
        history::generation::{Arrival, Generation},
    },
    stream::Batching,
};

/// A reader at the end of a remote file that has this content.
async fn at_end_of(content: &str) -> (TempDir, File, Reader) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.log");
    std::fs::write(&path, content).unwrap();
    let files = Files::new(vec![Root::new("r", directory.path())], Options::default()).unwrap();
    let query = Query {
        path: "r/app.log".into(),
        start: Start::Head,
        follow: true,
        wait_for_create: false,
        on_gap: OnGap::Fail,
        rules: Rules::default(),
        partial_flush: None,
        batching: Batching::default(),
    };
    let mut reader = Reader::open(&files.inner, query).await.unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    let (shared, identity) = (Arc::new(file.try_clone().unwrap()), reader.rotation.identity());
    reader.rotation = Rotation::generation(Generation::none(1).push(
        shared,
        identity,
        Arrival { misses_some: false, is_remote: true },
        None,
    ));
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
    reader.ended = None;
    let waited = timeout(REMOTE_CONFIRM / 2, news(&mut reader)).await;
    assert!(waited.is_err() && reader.short_since.is_some(), "{waited:?}");
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
