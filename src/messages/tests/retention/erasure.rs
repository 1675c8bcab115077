//! Removed messages leave the disk: no file of the log has their bytes, whatever lives beside them.

use super::*;
use crate::messages::tests::workload::embedded;
use embedded::simulated::Random;

mod clock;

const SECRET: &str = "secret-payload";

/// A log with a topic "a" of secrets among others in every commit and segment.
async fn mixed(bed: &Bed, commits: usize) -> Vec<String> {
    let mut others = Vec::new();
    for n in 0..commits {
        let other = format!("other {n} {}", "o".repeat(300));
        let secret = text("a", &format!("{SECRET} {n} {}", "s".repeat(200)));
        let secret = NewMessage { key: Some(SECRET.into()), ..secret };
        bed.log.publish_batch(vec![text("b", &other), secret]).await.unwrap();
        others.push(other);
    }
    embedded(&bed.log).settle().await;
    others
}

/// The files that have the bytes of a text.
fn files_with(disk: &Simulation, text: &str) -> Vec<PathBuf> {
    let files = disk.list(Path::new("/log")).unwrap();
    let has = |path: &PathBuf| memchr::memmem::find(&disk.read_file(path), text.as_bytes()).is_some();
    files.into_iter().filter(has).collect()
}

/// No file has a secret, and everything else is there, also after a restart and a power cut.
async fn assert_erased(bed: &Bed, others: &[String], what: &str) {
    assert_eq!(files_with(&bed.disk, SECRET), [""; 0].map(PathBuf::from), "{what}");
    for seed in 0..4 {
        let disk = if seed == 0 { bed.disk.kill() } else { bed.disk.lose_power(seed) };
        assert_eq!(files_with(&disk, SECRET), [""; 0].map(PathBuf::from), "{what}, seed {seed}");
        let config = Config { disk: Storage::Simulated(disk), ..bed.config.clone() };
        let (log, opened) = Log::open(Path::new("/log"), config).unwrap();
        assert_eq!((opened.damaged, opened.torn), (vec![], vec![]), "{what}, seed {seed}");
        let (messages, events) = read(&log, query(&["b"], Start::Earliest)).await;
        let messages = messages.into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!((messages.as_slice(), events), (others, vec![]), "{what}, seed {seed}");
        assert_eq!(read(&log, query(&[">"], Start::Earliest)).await.0.len(), others.len(), "{what}");
        log.close().await;
    }
}

#[tokio::test]
async fn purged_messages_leave_the_disk_whatever_lives_beside_them() {
    let bed = Bed::with(&[], |_| ()).await;
    let others = mixed(&bed, 60).await;
    assert!(files_with(&bed.disk, SECRET).len() > 3, "in many segments, and in the one that is written");
    bed.log.purge_topic("a", None).await.unwrap();
    bed.enforce().await;
    assert_erased(&bed, &others, "all").await;
    // Reading while it is erased reports no damage, and publishing goes on.
    bed.log.publish(text("b", "more")).await.unwrap();
    let (messages, events) = read(&bed.log, query(&[">"], Start::Earliest)).await;
    assert_eq!((messages.len(), events), (61, vec![]));
}

#[tokio::test]
async fn messages_after_the_last_purged_one_stay() {
    let bed = Bed::with(&[], |_| ()).await;
    mixed(&bed, 60).await;
    assert_eq!(bed.log.purge_topic("a", Some(sequence(48))).await.unwrap(), 24);
    bed.enforce().await;
    for n in 0..60 {
        let found = files_with(&bed.disk, &format!("{SECRET} {n} "));
        assert_eq!(found.is_empty(), n < 24, "{n}: {found:?}");
    }
    let (messages, _) = read(&bed.log, query(&["a"], Start::Earliest)).await;
    assert_eq!(messages.len(), 36);
}

#[tokio::test]
async fn a_purge_erases_also_what_expiry_and_retention_have_removed_before() {
    for (is_reopened, up_to) in [(false, None), (true, None), (false, Some(40)), (true, Some(40))] {
        let mut bed = Bed::with(&["old=age:1s"], |_| ()).await;
        let mut others = Vec::new();
        for n in 0..20 {
            others.push(bed.publish_text("b", &format!("other {n} {}", "o".repeat(900))).await);
            let secret = format!("{SECRET} {n} {}", "s".repeat(200));
            bed.publish("old", &secret).await;
            let ttl = Some(Duration::from_secs(1));
            bed.log.publish(NewMessage { ttl, ..text("e", &secret) }).await.unwrap();
        }
        bed.advance(2000);
        bed.enforce().await;
        let what = format!("reopened: {is_reopened}, up to {up_to:?}");
        assert!(bed.topic("old").await.is_none() && bed.topic("e").await.is_none(), "{what}");
        assert!(files_with(&bed.disk, SECRET).len() > 1, "the bytes wait for a sweep: {what}");
        if is_reopened {
            bed.reopen().await;
        }
        for topic in ["old", "e"] {
            let removed = bed.log.purge_topic(topic, up_to.map(sequence)).await;
            assert_eq!(removed.unwrap(), 0, "{topic}, {what}");
        }
        assert!(matches!(bed.log.purge_topic("never", None).await, Err(Error::NoTopic)), "{what}");
        bed.enforce().await;
        if up_to.is_some() {
            for n in 0..20 {
                let found = files_with(&bed.disk, &format!("{SECRET} {n} "));
                // The messages of a round have the sequences 3 n + 1 to 3 n + 3.
                assert!(n >= 12 || found.is_empty(), "{n}, {what}: {found:?}");
                assert!(n < 14 || !found.is_empty(), "{n}, {what}");
            }
            bed.log.purge_topic("old", None).await.unwrap();
            bed.log.purge_topic("e", None).await.unwrap();
            bed.enforce().await;
        }
        assert_erased(&bed, &others, &what).await;
    }
}

#[tokio::test]
async fn an_erasure_that_the_power_cut_is_finished_after_a_restart() {
    for call in 0.. {
        let mut bed = Bed::with(&[], |_| ()).await;
        let others = mixed(&bed, 20).await;
        bed.log.purge_topic("a", None).await.unwrap();
        let start = bed.disk.calls();
        bed.disk.fail_at(start + call, Fault::Power);
        bed.enforce().await;
        if bed.disk.calls() <= start + call {
            assert!(call > 8, "the erasure makes {call} calls");
            return;
        }
        bed.disk = bed.disk.lose_power(call);
        bed.config.disk = Storage::Simulated(bed.disk.clone());
        let (log, opened) = Log::open(Path::new("/log"), bed.config.clone()).unwrap();
        assert_eq!((opened.damaged, opened.torn), (vec![], vec![]), "call {call}");
        bed.log = log;
        bed.enforce().await;
        assert_erased(&bed, &others, &format!("call {call}")).await;
    }
}

#[tokio::test]
async fn an_erasure_that_failed_is_done_the_next_time() {
    for call in 0.. {
        let mut bed = Bed::with(&[], |_| ()).await;
        let others = mixed(&bed, 12).await;
        bed.log.purge_topic("a", None).await.unwrap();
        let start = bed.disk.calls();
        bed.disk.fail_at(start + call, if call % 2 == 0 { Fault::Error } else { Fault::Full });
        bed.enforce().await;
        if bed.disk.calls() <= start + call {
            return;
        }
        if *bed.log.failed().borrow() {
            // It was the mark after the last commit.
            bed.disk = bed.disk.kill();
            bed.config.disk = Storage::Simulated(bed.disk.clone());
            bed.log = Log::open(Path::new("/log"), bed.config.clone()).unwrap().0;
        }
        bed.enforce().await;
        assert_eq!(files_with(&bed.disk, SECRET), [""; 0].map(PathBuf::from), "call {call}");
        assert_eq!(bed.texts(&["b"]).await, others, "call {call}");
    }
}

/// A log with segments in which only "a" lives, which are deleted after a purge; with a lost one; and with some that are
/// compacted. Returns what stays.
async fn with_files_to_remove(bed: &mut Bed) -> Vec<String> {
    for n in 0..40 {
        bed.publish("a", &format!("{SECRET} {n} {}", "s".repeat(500))).await;
    }
    let lost = bed.publish("c", &"c".repeat(9000)).await;
    let mut kept = Vec::new();
    for n in 0..100 {
        bed.publish("a", &format!("{SECRET} {n} {}", "s".repeat(500))).await;
        if n > 40 && n % 8 == 0 {
            kept.push(bed.publish_text("b", &n.to_string()).await);
        }
    }
    bed.log.close().await;
    let segments = bed.segments().into_iter().map(|(first, _)| first);
    let first = segments.filter(|first| *first <= lost).max().unwrap();
    bed.disk.remove(&Path::new("/log").join(embedded::segment_name(first))).unwrap();
    bed.disk.sync_directory(Path::new("/log")).unwrap();
    kept
}

#[tokio::test]
async fn files_that_cannot_be_removed_are_removed_the_next_time() {
    let mut bed = Bed::with(&[], |_| ()).await;
    let kept = with_files_to_remove(&mut bed).await;
    let before = bed.disk.kill();
    for fault in [Fault::Full, Fault::Error, Fault::Sync] {
        for call in 0.. {
            bed.disk = before.kill();
            bed.config.disk = Storage::Simulated(bed.disk.clone());
            bed.log = Bed::open(&bed.config).await;
            bed.log.purge_topic("a", None).await.unwrap();
            let start = bed.disk.calls();
            bed.disk.fail_at(start + call, fault);
            bed.enforce().await;
            let is_over = bed.disk.calls() <= start + call;
            if *bed.log.failed().borrow() {
                bed.disk = bed.disk.kill();
                bed.config.disk = Storage::Simulated(bed.disk.clone());
                bed.log = Bed::open(&bed.config).await;
            }
            for _ in 0..2 {
                bed.enforce().await;
            }
            let what = format!("{fault:?} at call {call}");
            assert_eq!(embedded(&bed.log).owed_erasures(), 0, "{what}");
            assert_eq!(files_with(&bed.disk, SECRET), [""; 0].map(PathBuf::from), "{what}");
            bed.disk = bed.disk.kill();
            let disk = Storage::Simulated(bed.disk.clone());
            let (log, opened) = Log::open(Path::new("/log"), Config { disk, ..bed.config.clone() }).unwrap();
            // Until a segment after it is removed, the lost one stays listed.
            let is_other = |damage: &&String| !damage.contains("29.log: the file is missing");
            assert_eq!(opened.damaged.iter().find(is_other), None, "{what}");
            let (messages, _) = read(&log, query(&["b"], Start::Earliest)).await;
            assert_eq!(messages.into_iter().map(|(_, text)| text).collect::<Vec<_>>(), kept, "{what}");
            if is_over {
                assert!(call > 30, "{what}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn what_expired_or_was_superseded_leaves_the_disk_in_a_sweep() {
    let bed = Bed::with(&["state=last", "old=age:1s"], |_| ()).await;
    let mut others = Vec::new();
    for n in 0..40 {
        others.push(bed.publish_text("b", &format!("{n} {}", "o".repeat(300))).await);
        let secret = format!("{SECRET} {n}");
        bed.log
            .publish(NewMessage { ttl: Some(Duration::from_secs(1)), ..text("e", &secret) })
            .await
            .unwrap();
        bed.publish_text("state", &secret).await;
        bed.publish_text("old", &secret).await;
    }
    bed.publish_text("state", "last").await;
    bed.config.clock.advance(Duration::from_secs(2));
    bed.enforce().await;
    embedded(&bed.log).sweep().await;
    assert_erased_all(&bed, &others).await;
    let calls = bed.disk.calls();
    embedded(&bed.log).sweep().await;
    assert_eq!(bed.disk.calls(), calls, "what is erased is not erased again");
}

async fn assert_erased_all(bed: &Bed, others: &[String]) {
    assert_eq!(files_with(&bed.disk, SECRET), [""; 0].map(PathBuf::from));
    // Another rule, or none, does not make superseded messages look damaged.
    let disk = bed.disk.kill();
    let config = Config { disk: Storage::Simulated(disk), retention: vec![], ..bed.config.clone() };
    let (log, opened) = Log::open(Path::new("/log"), config).unwrap();
    assert_eq!((opened.damaged, opened.torn), (vec![], vec![]));
    assert_eq!(texts(&log, query(&["b"], Start::Earliest)).await, others);
    assert_eq!(texts(&log, query(&["state"], Start::Earliest)).await, ["last"]);
}

#[tokio::test]
async fn a_purge_erases_in_damaged_segments_and_in_torn_tails() {
    let mut bed = Bed::with(&[], |_| ()).await;
    mixed(&bed, 30).await;
    bed.disk.fail_at(bed.disk.calls(), Fault::Power);
    let _ = bed.log.publish(text("a", &format!("{SECRET} torn {}", "t".repeat(3000)))).await;
    let torn = (0..200).map(|seed| bed.disk.lose_power(seed)).find(|disk| {
        let config = Config { disk: Storage::Simulated(disk.kill()), ..bed.config.clone() };
        let is_torn = Log::open(Path::new("/log"), config).unwrap().1.torn.len() == 1;
        is_torn && !files_with(disk, &format!("{SECRET} torn")).is_empty()
    });
    bed.disk = torn.expect("a part of the write is left");
    // The header of the first block: it is no record any more, and the server does not know whose bytes it has.
    let path = Path::new("/log/00000000000000000001.log");
    let block = memchr::memmem::find(&bed.disk.read_file(path), b"PBLK").unwrap();
    bed.disk.flip(path, block as u64 + 5, 1);
    // Without its index, the segment is read at the start.
    let length = bed.disk.read_file(path).len() as u64;
    bed.disk.flip(path, length - 2, 1);
    bed.config.disk = Storage::Simulated(bed.disk.clone());
    let (log, opened) = Log::open(Path::new("/log"), bed.config.clone()).unwrap();
    assert!(!opened.damaged.is_empty() && opened.torn.len() == 1);
    bed.log = log;
    let damage = read(&bed.log, query(&["b"], Start::Earliest)).await;
    bed.log.purge_topic("a", None).await.unwrap();
    bed.enforce().await;
    assert_eq!(files_with(&bed.disk, SECRET), [""; 0].map(PathBuf::from));
    assert_eq!(read(&bed.log, query(&["b"], Start::Earliest)).await, damage, "it is reported as before");
    let config = Config { disk: Storage::Simulated(bed.disk.kill()), ..bed.config.clone() };
    let (log, _) = Log::open(Path::new("/log"), config).unwrap();
    assert_eq!(read(&log, query(&["b"], Start::Earliest)).await, damage, "also after a restart");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reader_sees_a_message_half_erased() {
    let bed = Bed::with(&[], |_| ()).await;
    let mut random = Random::new(7);
    for round in 0..6 {
        mixed(&bed, 20).await;
        let readers = (0..3).map(|n| {
            let (log, topics) = (bed.log.clone(), [&["a"][..], &["b"], &[">"]][n]);
            tokio::spawn(async move {
                for _ in 0..10 {
                    let batching = Batching { max_items: 3, ..Batching::default() };
                    let (_, events) = read(&log, Query { batching, ..query(topics, Start::Earliest) }).await;
                    let is_damage = |event: &&Event| matches!(event, Event::Damaged(_));
                    assert_eq!(events.iter().find(is_damage), None);
                }
            })
        });
        let readers = readers.collect::<Vec<_>>();
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(random.below(5))).await;
            let up_to = embedded(&bed.log).head().saturating_sub(random.below(20)).max(1);
            let _ = bed.log.purge_topic("a", Some(sequence(up_to))).await;
            bed.enforce().await;
        }
        for reader in readers {
            reader.await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        }
    }
}
