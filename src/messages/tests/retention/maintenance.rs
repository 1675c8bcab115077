//! Removals that something gets in the way of: a full disk, a failing call, a reader, other tasks, time.

use std::sync::mpsc;

use tokio::runtime::Handle;

use super::*;
use embedded::format::footer::TRAILER_BYTES;

/// The number of calls that write the trim points.
const TRIM_POINT_CALLS: u64 = 5;

impl Bed {
    /// Whether a segment is prepared.
    fn is_one_prepared(&self) -> bool {
        self.disk.list(Path::new("/log")).unwrap().iter().any(|path| path.ends_with("next.segment"))
    }

    /// Fills segments with messages of "a", and the current one with messages of "b" only, so that a further segment is
    /// prepared or not. Returns the last sequence of "a".
    async fn fill_with_old(&self, is_one_prepared: bool) -> u64 {
        self.fill("a", 39).await;
        let last = self.publish("a", &"x".repeat(10_000)).await;
        self.fill("b", if is_one_prepared { 6 } else { 1 }).await;
        settle(&self.log).await;
        assert!(self.segments().len() > 4 && self.is_one_prepared() == is_one_prepared);
        last
    }

    /// Kills the server and starts another one.
    async fn kill(&mut self) {
        self.disk = self.disk.kill();
        self.config.disk = Storage::Simulated(self.disk.clone());
        self.log = Self::open(&self.config).await;
    }
}

#[tokio::test]
async fn the_prepared_segment_gives_its_room_to_the_trim_points() {
    let mut bed = Bed::new(&["a=age:1s"]).await;
    let last = bed.fill_with_old(true).await;
    bed.advance(2000);
    bed.disk.set_capacity(Some(bed.disk.used()));
    bed.enforce().await;
    assert!(bed.segments().len() <= 2, "a full disk stays full: {:?}", bed.segments());
    bed.kill().await;
    let removed = vec![removed(1, last)];
    assert_eq!(read(&bed.log, query(&["a"], from_sequence(1))).await, (vec![], removed));
}

#[tokio::test]
async fn a_removal_is_recorded_and_done_on_a_full_disk() {
    let mut bed = Bed::new(&["a=age:1s"]).await;
    let last = bed.fill_with_old(false).await;
    bed.advance(2000);
    bed.disk.set_capacity(Some(bed.disk.used()));
    bed.disk.set_max_files(Some(bed.disk.count()));
    bed.enforce().await;
    assert!(bed.segments().len() <= 2, "{:?}", bed.segments());
    bed.kill().await;
    let removed = vec![removed(1, last)];
    assert_eq!(read(&bed.log, query(&["a"], from_sequence(1))).await, (vec![], removed));
}

#[tokio::test]
async fn a_segment_that_cannot_be_freed_keeps_no_other_from_being_freed() {
    for call in TRIM_POINT_CALLS.. {
        let bed = Bed::new(&["a=age:1s"]).await;
        bed.fill("a", 40).await;
        settle(&bed.log).await;
        let before = bed.segments().len();
        bed.advance(2000);
        let start = bed.disk.calls();
        bed.disk.fail_at(start + call, Fault::Error);
        bed.enforce().await;
        let after = bed.segments().len();
        assert!(before > 4 && after <= 3, "call {call}: {after} of {before} segments are left");
        if bed.disk.calls() <= start + call {
            assert!(call > TRIM_POINT_CALLS + 4, "segments are deleted");
            return;
        }
    }
}

#[tokio::test]
async fn an_index_rebuilt_during_compaction_loses_no_message() {
    for damaged in 0..4 {
        let mut bed = Bed::new(&["few=age:1s"]).await;
        let mut expected = Vec::new();
        for n in 0..5 {
            expected.push(n.to_string());
            bed.publish("a", &n.to_string()).await;
            // The next message is in the next segment.
            bed.fill("few", 8).await;
        }
        settle(&bed.log).await;
        // The newest messages are in memory; after a restart they are read from disk.
        bed.kill().await;
        let segments = bed.segments();
        assert_eq!(segments.len(), 5);
        // Where the messages of "a" are: it is read when somebody asks for them.
        let (first, length) = segments[damaged];
        let path = Path::new("/log").join(format!("{first:020}.log"));
        let postings = usize::try_from(length).unwrap() - TRAILER_BYTES + 48;
        let postings = &bed.disk.read_file(&path)[postings..postings + 8];
        bed.disk.flip(&path, u64::from_le_bytes(postings.try_into().unwrap()), 1);
        let (runtime, log, (sender, seen)) = (Handle::current(), bed.log.clone(), mpsc::channel());
        // Before the first write to the compacted segment.
        bed.disk.before(bed.disk.calls() + TRIM_POINT_CALLS + 1, move || {
            sender.send(runtime.block_on(texts(&log, query(&["a"], Start::Earliest)))).unwrap();
        });
        bed.advance(2000);
        bed.enforce().await;
        assert_eq!(seen.recv().unwrap(), expected);
        for _ in 0..3 {
            assert_eq!(bed.texts(&["a"]).await, expected, "segment {damaged}");
            assert!(bed.segments().len() <= 3, "one segment replaces all of them: {:?}", bed.segments());
            bed.enforce().await;
            assert_eq!(bed.texts(&["a"]).await, expected, "segment {damaged}");
            bed.kill().await;
        }
    }
}

#[tokio::test]
async fn retention_is_enforced_in_time_though_there_is_always_something_else_to_do() {
    let interval = Duration::from_millis(50);
    let bed = Bed::with(&["a=age:1s"], |config| config.retention_interval = interval).await;
    bed.publish("a", "1").await;
    bed.publish("b", "2").await;
    // The maintenance is held up in a purge while another one comes and the time for retention is over.
    let ((is_held, held), (go_on, goes_on)) = (mpsc::channel(), mpsc::channel());
    bed.disk.before(bed.disk.calls(), move || {
        is_held.send(()).unwrap();
        goes_on.recv_timeout(PATIENCE).unwrap();
    });
    let purge = |topic: &'static str| {
        let log = bed.log.clone();
        tokio::spawn(async move { log.purge_topic(topic, None).await })
    };
    let first = purge("b");
    tokio::task::spawn_blocking(move || held.recv_timeout(PATIENCE)).await.unwrap().unwrap();
    let second = purge("a");
    bed.advance(2000);
    tokio::time::sleep(2 * interval).await;
    go_on.send(()).unwrap();
    assert_eq!(first.await.unwrap().unwrap(), 1);
    let removed = second.await.unwrap().unwrap();
    assert_eq!(removed, 0, "retention waits for the work to end");
}

#[tokio::test]
async fn a_topic_whose_last_message_expires_during_compaction_is_not_listed_without_messages() {
    let mut bed = Bed::new(&["few=age:1s"]).await;
    let ttl = Some(Duration::from_millis(2100));
    bed.log.publish(NewMessage { ttl, ..text("a", "1") }).await.unwrap();
    bed.publish("b", "2").await;
    bed.fill("few", 16).await;
    settle(&bed.log).await;
    let before = bed.segments();
    bed.advance(2000);
    // Between the removal of old messages and the freeing of their room.
    let clock = bed.config.clock.clone();
    bed.disk.before(bed.disk.calls() + 1, move || clock.advance(Duration::from_millis(200)));
    bed.enforce().await;
    assert_ne!(bed.segments(), before, "its segment is rewritten");
    assert!(bed.texts(&["a"]).await.is_empty(), "it has expired");
    assert_eq!(bed.topic("a").await.unwrap().messages, 1, "it is there until it is removed");
    bed.enforce().await;
    for _ in 0..2 {
        assert_eq!((bed.topic("a").await, bed.texts(&["b"]).await), (None, vec!["2".into()]));
        bed.kill().await;
    }
}

#[tokio::test]
async fn a_start_reports_no_gap_for_messages_removed_while_it_reads_them() {
    let mut bed = Bed::new(&["few=age:1s"]).await;
    for n in 0..3 {
        bed.publish("a", &n.to_string()).await;
        bed.fill("few", 8).await;
    }
    settle(&bed.log).await;
    // The newest messages are in memory; after a restart they are read from disk.
    bed.kill().await;
    let failing = Query { on_gap: OnGap::Fail, ..query(&[">"], Start::Earliest) };
    let mut stream = subscribe(&bed.log, failing).await.unwrap();
    // The next access to the disk is that of the reader, and not of maintenance, which would wait for itself.
    settle(&bed.log).await;
    let (runtime, log, (sender, purged)) = (Handle::current(), bed.log.clone(), mpsc::channel());
    bed.disk.before(bed.disk.calls(), move || {
        sender.send(runtime.block_on(log.purge_topic("few", None)).unwrap()).unwrap();
    });
    let mut texts = Vec::new();
    while let Some(batch) = next(&mut stream).await {
        texts.extend(decode(&batch).iter().map(text_of));
    }
    assert_eq!((purged.recv().unwrap(), texts), (24, vec!["0".into(), "1".into(), "2".into()]));
}
