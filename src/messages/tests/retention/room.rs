//! A full disk, without a byte or without a file to spare, is healed from inside.

use super::*;
use crate::messages::tests::workload::{embedded, small};

/// Fills the disk until a message is refused. Returns what the log says that it needs.
async fn fill(bed: &Bed, topic: &str, bytes: u64) -> NeededRoom {
    bed.disk.set_capacity(Some(bed.disk.used() + bytes));
    for _ in 0..1000 {
        match bed.log.publish(text(topic, &"x".repeat(900))).await {
            Ok(_) => {}
            Err(Error::Full(needed)) => return needed,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the disk does not get full");
}

/// Not a byte and not a file is left.
fn leave_nothing(bed: &Bed) {
    bed.disk.set_capacity(Some(bed.disk.used()));
    bed.disk.set_max_files(Some(bed.disk.count()));
}

#[tokio::test]
async fn a_purge_on_a_full_disk_makes_room_for_messages() {
    for has_neighbours in [false, true] {
        let bed = Bed::with(&[], |_| ()).await;
        if has_neighbours {
            for n in 0..30 {
                bed.publish_text("kept", &format!("{n}")).await;
                bed.publish_text("a", &"x".repeat(900)).await;
            }
        }
        let needed = fill(&bed, "a", 40 * 1024).await;
        assert!(needed.bytes > 0);
        assert_eq!(*bed.log.needed_room().borrow(), Some(needed));
        leave_nothing(&bed);
        assert!(bed.log.purge_topic("a", None).await.unwrap() > 30);
        bed.enforce().await;
        bed.enforce().await;
        for n in 0..20 {
            let published = bed.log.publish(text("b", &format!("{n} {}", "x".repeat(500)))).await;
            published.unwrap_or_else(|error| panic!("message {n}, {has_neighbours}: {error}"));
        }
        assert_eq!(*bed.log.needed_room().borrow(), None);
        assert_eq!(bed.texts(&["kept"]).await.len(), if has_neighbours { 30 } else { 0 });
    }
}

#[tokio::test]
async fn a_purge_frees_the_files_of_messages_with_ids_within_the_dedupe_window() {
    let bed = Bed::with(&[], |config| config.dedupe_window = Duration::from_secs(3600)).await;
    let with_id = |n: usize| NewMessage { message_id: Some(n.to_string()), ..text("a", &"x".repeat(900)) };
    for n in 0..60 {
        bed.log.publish(with_id(n)).await.unwrap();
        // Its older records lie among the messages.
        let first = query(&["a"], Start::Earliest);
        let batch = next(&mut subscribe(&bed.log, first).await.unwrap()).await.unwrap();
        bed.log.commit_cursor("one", batch.position, true).await.unwrap();
    }
    embedded(&bed.log).settle().await;
    bed.disk.set_max_files(Some(bed.disk.count()));
    let segments = bed.segments().len();
    assert_eq!(bed.log.purge_topic("a", None).await.unwrap(), 60);
    bed.enforce().await;
    bed.enforce().await;
    assert!(segments >= 6 && bed.segments().len() <= 2, "{segments}, and now {:?}", bed.segments());
    for n in 0..60 {
        let published = bed.log.publish(with_id(n)).await;
        assert!(!published.unwrap_or_else(|error| panic!("message {n}: {error}")).duplicate);
    }
}

#[tokio::test]
async fn retention_on_a_full_disk_makes_room_for_messages() {
    let bed = Bed::with(&["a=age:1s"], |_| ()).await;
    fill(&bed, "a", 60 * 1024).await;
    leave_nothing(&bed);
    bed.config.clock.advance(Duration::from_secs(2));
    bed.enforce().await;
    bed.enforce().await;
    for n in 0..20 {
        let published = bed.log.publish(text("b", &"x".repeat(500))).await;
        published.unwrap_or_else(|error| panic!("message {n}: {error}"));
    }
}

#[tokio::test]
async fn a_purge_succeeds_at_whichever_call_the_disk_is_full() {
    for call in 0.. {
        let bed = Bed::with(&[], |_| ()).await;
        for n in 0..10 {
            bed.publish_text("kept", &n.to_string()).await;
            bed.publish_text("a", &"x".repeat(900)).await;
        }
        embedded(&bed.log).settle().await;
        let start = bed.disk.calls();
        bed.disk.fail_at(start + call, Fault::Full);
        match bed.log.purge_topic("a", None).await {
            Ok(count) => assert_eq!(count, 10, "call {call}"),
            // The disk wrote half of what has its room since long, which no real one does.
            Err(Error::Full(_)) => {
                assert_eq!(bed.log.purge_topic("a", None).await.unwrap(), 0);
            }
            Err(error) => panic!("call {call}: {error}"),
        }
        bed.enforce().await;
        bed.enforce().await;
        if bed.disk.calls() <= start + call {
            return;
        }
        let log = on_disk(&bed, &bed.disk.kill());
        assert!(texts(&log, query(&["a"], Start::Earliest)).await.is_empty(), "call {call}");
        assert_eq!(texts(&log, query(&["kept"], Start::Earliest)).await.len(), 10, "call {call}");
    }
}

#[tokio::test]
async fn a_segment_for_which_the_manifest_has_no_room_is_begun_when_there_is_some() {
    const SEGMENT_BYTES: usize = 4096;
    const ROOM: u64 = SEGMENT_BYTES as u64 * 9 / 8;
    let open = |disk: &Arc<Simulation>| Log::open(Path::new("/log"), small(disk, SEGMENT_BYTES)).unwrap().0;
    let source = Simulation::new();
    let log = open(&source);
    log.publish(text("kept", "0")).await.unwrap();
    log.close().await;
    // Its copies have no byte more than their content. The next run adds its incarnation.
    for name in embedded::format::manifest::NAMES {
        let path = Path::new("/log").join(name);
        let bytes = source.read_file(&path);
        let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        source.write_file(&path, &bytes[..length]);
    }
    let mut refused = 0;
    // At one of these, the disk is full once the first segment has its room.
    for sectors in 0..24 {
        let disk = source.kill();
        disk.set_capacity(Some(disk.used() + sectors * 512));
        let log = open(&disk);
        for n in 0..40 {
            match log.publish(text("a", &"x".repeat(300))).await {
                Ok(_) => {}
                Err(Error::Full(_)) => refused += 1,
                Err(error) => panic!("message {n} with {sectors} sectors: {error}"),
            }
            embedded(&log).settle().await;
            if n == 5 {
                // Room for the next segment, which is prepared when the first one is half full, and for nothing else.
                disk.set_capacity(Some(disk.used() + ROOM));
            }
        }
        log.purge_topic("a", None).await.unwrap();
        for _ in 0..2 {
            embedded(&log).enforce().await;
        }
        disk.set_capacity(Some(disk.used() + 4 * 512));
        let published = log.publish(text("kept", "1")).await;
        published.unwrap_or_else(|error| panic!("with {sectors} sectors: {error}"));
        log.close().await;
        let log = open(&disk.kill());
        assert_eq!(texts(&log, query(&["kept"], Start::Earliest)).await, ["0", "1"], "{sectors} sectors");
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn a_log_whose_last_commit_has_a_hole_is_opened_on_a_full_disk() {
    let bed = Bed::with(&[], |config| config.segment_bytes = 64 * 1024).await;
    let all = vec![text("b", "1"), text("a", &"x".repeat(3000)), text("b", "2")];
    bed.log.publish_batch(all).await.unwrap();
    let used = bed.disk.used();
    bed.log.purge_topic("a", None).await.unwrap();
    bed.enforce().await;
    assert!(bed.disk.used() < used, "the message gave its room back");
    let disk = bed.disk.kill();
    for name in ["reserve-1", "reserve-2"] {
        disk.remove(&Path::new("/log").join(name)).unwrap();
    }
    disk.set_capacity(Some(disk.used()));
    let log = on_disk(&bed, &disk);
    assert_eq!(texts(&log, query(&[">"], Start::Earliest)).await, ["1", "2"]);
    disk.set_capacity(None);
    for seed in 0..10 {
        let log = on_disk(&bed, &disk.lose_power(seed));
        assert_eq!(texts(&log, query(&[">"], Start::Earliest)).await, ["1", "2"], "seed {seed}");
    }
}

fn on_disk(bed: &Bed, disk: &Arc<Simulation>) -> Log {
    let config = Config { disk: Storage::Simulated(disk.clone()), ..bed.config.clone() };
    Log::open(Path::new("/log"), config).unwrap().0
}

#[tokio::test]
async fn health_says_that_there_is_room_again_though_nobody_publishes() {
    let bed = Bed::with(&[], |config| config.retention_interval = Duration::from_millis(20)).await;
    fill(&bed, "a", 20 * 1024).await;
    let mut needed = bed.log.needed_room();
    assert!(needed.borrow().is_some());
    bed.disk.set_capacity(None);
    let has_room = tokio::time::timeout(PATIENCE, needed.wait_for(Option::is_none)).await;
    assert!(has_room.unwrap().is_ok());
}

/// A disk with a torn tail.
async fn torn() -> Arc<Simulation> {
    let disk = Simulation::new();
    let open = |disk: &Arc<Simulation>| Log::open(Path::new("/log"), small(disk, 16 * 1024)).unwrap();
    let (log, _) = open(&disk);
    for n in 0..5 {
        log.publish(text("a", &n.to_string())).await.unwrap();
    }
    log.close().await;
    // The manifest has everything that the log has had so far.
    let (log, _) = open(&disk);
    disk.fail_at(disk.calls(), Fault::Power);
    assert!(log.publish(text("a", &"x".repeat(3000))).await.is_err());
    let is_torn = |disk: &Arc<Simulation>| open(&disk.kill()).1.torn.len() == 1;
    (0..200).map(|seed| disk.lose_power(seed)).find(is_torn).expect("a part of the write is left")
}

#[tokio::test]
async fn a_torn_tail_on_a_full_disk_is_set_aside_when_there_is_room() {
    let disk = torn().await;
    for name in ["reserve-1", "reserve-2"] {
        disk.remove(&Path::new("/log").join(name)).unwrap();
    }
    disk.set_capacity(Some(disk.used()));
    disk.set_max_files(Some(disk.count()));
    let expected = ["0", "1", "2", "3", "4"];
    for round in 0..3 {
        let (log, opened) = Log::open(Path::new("/log"), small(&disk, 16 * 1024)).unwrap();
        assert_eq!(opened.torn, [], "round {round}");
        assert_eq!(texts(&log, query(&["a"], Start::Earliest)).await, expected, "reads come up");
        assert!(matches!(log.publish(text("a", "5")).await, Err(Error::Full(_))));
        if round == 2 {
            disk.set_capacity(None);
            disk.set_max_files(None);
            let published = log.publish(text("a", "5")).await.unwrap().sequence;
            assert!(published.get() > 1_000_000, "{published}");
            let set_aside = disk.list(Path::new("/log")).unwrap();
            assert!(set_aside.iter().any(|path| path.to_str().unwrap().contains(".torn-")));
            log.close().await;
            let (log, opened) = Log::open(Path::new("/log"), small(&disk, 16 * 1024)).unwrap();
            assert_eq!((opened.torn, opened.damaged), (vec![], vec![]));
            assert_eq!(texts(&log, query(&["a"], Start::Earliest)).await, ["0", "1", "2", "3", "4", "5"]);
        } else {
            log.close().await;
        }
    }
}

#[tokio::test]
async fn a_spare_file_takes_a_torn_tail_on_a_full_disk() {
    let disk = torn().await;
    disk.set_max_files(Some(disk.count()));
    let (log, opened) = Log::open(Path::new("/log"), small(&disk, 256 * 1024)).unwrap();
    assert_eq!(opened.torn.len(), 1);
    log.publish(text("a", "5")).await.unwrap();
}

#[tokio::test]
async fn sequences_do_not_go_back_when_a_purge_erases_a_torn_tail_on_a_full_disk() {
    let torn = torn().await;
    for name in ["reserve-1", "reserve-2"] {
        torn.remove(&Path::new("/log").join(name)).unwrap();
    }
    torn.set_capacity(Some(torn.used()));
    torn.set_max_files(Some(torn.count()));
    // Also if the manifest cannot be written at the start, which is at one of these calls.
    for call in [None].into_iter().chain((0..20).map(Some)) {
        let mut disk = torn.kill();
        let mut positions = Vec::<Position>::new();
        for round in 0..3 {
            if let Some(call) = call.filter(|_| round == 0) {
                disk.fail_at(call, Fault::Full);
            }
            let opened = Log::open(Path::new("/log"), small(&disk, 16 * 1024));
            let Ok((log, _)) = opened.map_err(|_| assert!(call.is_some())) else { break };
            for position in &positions {
                let resumed = query(&["a"], Start::Resume(position.clone()));
                let resumed = subscribe(&log, resumed).await.err();
                assert!(resumed.is_none(), "round {round}, {call:?}: {resumed:?}");
            }
            let mut batches = subscribe(&log, query(&["a"], Start::Earliest)).await.unwrap();
            while let Some(batch) = next(&mut batches).await {
                positions.push(batch.position);
            }
            assert!(log.purge_topic("b", None).await.is_err(), "there is no such topic");
            disk = disk.lose_power(round);
        }
    }
}
