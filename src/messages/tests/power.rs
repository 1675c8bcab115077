//! The power fails during any call and between calls, also while the log is being opened: acknowledged messages stay.

use super::{
    history::Fact,
    workload::{Client, DIRECTORY, for_each_seed, seeds, small},
    *,
};
use crate::{messages::clock::Clock, wire::message};
use embedded::format::block::{Block, Entry};

/// How many calls a workload makes, about.
const CALLS: u64 = 150;

fn open(disk: &Arc<Simulation>, segment_bytes: usize) -> Result<(Log, Opened), OpenError> {
    open_at(disk, segment_bytes, &Clock::System)
}

fn open_at(disk: &Arc<Simulation>, segment_bytes: usize, clock: &Clock) -> Result<(Log, Opened), OpenError> {
    Log::open(Path::new(DIRECTORY), Config { clock: clock.clone(), ..small(disk, segment_bytes) })
}

async fn lose_power(seed: u64) {
    let mut client = Client::new(seed);
    let clock = Clock::manual();
    // Ids stay within the window, whatever the wall clock shows.
    client.clock = Some(clock.clone());
    let segment_bytes = 4096 << client.random.index(3);
    let mut disk = Simulation::new();
    for round in 0..=client.random.below(2) {
        if !client.random.one_in(4) {
            disk.fail_at(client.random.below(CALLS), Fault::Power);
        }
        let cut = client.random.number();
        if let Ok((log, opened)) = open_at(&disk, segment_bytes, &clock) {
            assert_eq!(opened.damaged, [""; 0], "round {round}");
            if round > 0 {
                client.facts.push(Fact::Opened);
                client.read(&log).await;
            }
            let steps = 4 + client.random.below(26);
            client.work(&log, steps).await;
            if client.random.one_in(4) {
                log.close().await;
            }
            // It runs on with the old disk, and ends there.
            disk = disk.lose_power(cut);
        } else {
            disk = disk.lose_power(cut);
        }
        // Again, while it is opened.
        while client.random.one_in(3) {
            disk.fail_at(client.random.below(12), Fault::Power);
            let _ = open_at(&disk, segment_bytes, &clock);
            disk =
                if client.random.one_in(3) { disk.kill() } else { disk.lose_power(client.random.number()) };
        }
    }
    for reopened in 0..2 {
        let (log, opened) = open_at(&disk, segment_bytes, &clock).unwrap();
        assert_eq!(opened.damaged, [""; 0]);
        assert!(reopened == 0 || opened.torn.is_empty(), "{:?}", opened.torn);
        client.facts.push(Fact::Opened);
        client.read(&log).await;
        assert!(client.work(&log, 5).await, "the disk is whole again");
        client.read(&log).await;
        log.close().await;
    }
    client.check().unwrap_or_else(|broken| panic!("{broken}"));
}

#[test]
fn after_a_power_cut_acknowledged_messages_are_there_once_and_in_order() {
    for_each_seed(seeds(400, 2_000), lose_power);
}

/// Bytes that are a block of the log's format, with one message.
fn block(sequence: u64, topic: &str) -> Vec<u8> {
    let mut body = Vec::new();
    let message = message::Message {
        sequence,
        topic,
        time: SystemTime::now(),
        key: None,
        headers: &[],
        content: b"forged",
        is_text: true,
        message_id: None,
        expires: None,
    };
    message::put(&mut body, &message);
    let (end, checksum) = (u32::try_from(body.len()).unwrap(), crc32c::crc32c(&body));
    let entry = Entry { sequence, topic: 0, start: 0, end, checksum, expires: 0 };
    let (topics, entries, body) = (vec![topic.into()], vec![entry], body.into());
    let block = Block {
        first_sequence: sequence,
        last_sequence: sequence,
        topics,
        entries,
        body,
        ..Block::default()
    };
    let mut bytes = Vec::new();
    // A publisher does not know the log's salt.
    block.put(&mut bytes, 0, 0);
    bytes
}

#[tokio::test]
async fn a_payload_that_holds_a_block_is_not_taken_for_one_when_its_commit_is_torn() {
    let disk = Simulation::new();
    let (log, _) = open(&disk, 64 * 1024).unwrap();
    let payload = [vec![0; 2000], block(5_000, "other"), vec![0; 2000]].concat();
    disk.fail_at(disk.calls(), Fault::Power);
    let new = NewMessage { content: Content::Data(payload.into()), ..text("a", "") };
    assert!(log.publish(new).await.is_err());
    for seed in 0..300 {
        let (log, opened) = open(&disk.lose_power(seed), 64 * 1024).unwrap();
        assert_eq!(opened.damaged, [""; 0], "seed {seed}");
        assert_eq!(read(&log, query(&["other"], Start::Earliest)).await, (vec![], vec![]), "seed {seed}");
    }
}

#[tokio::test]
async fn the_mark_of_a_torn_end_stays_when_the_index_of_its_segment_is_written() {
    let disk = Simulation::new();
    let (log, _) = open(&disk, 4096).unwrap();
    log.publish(text("a", "1")).await.unwrap();
    disk.fail_at(disk.calls(), Fault::Power);
    assert!(log.publish(text("a", &"2".repeat(2000))).await.is_err());
    let is_torn = |disk: &Arc<Simulation>| open(&disk.kill(), 4096).unwrap().1.torn.len() == 1;
    let torn = (0..100).map(|seed| disk.lose_power(seed)).find(is_torn);
    let torn = torn.expect("a part of the write is left");
    for (call, seed) in (0..20).flat_map(|call| (0..10).map(move |seed| (call, seed))) {
        let disk = torn.kill();
        // The next commit begins a segment, and this one gets its index.
        let (log, opened) = open(&disk, 1).unwrap();
        assert_eq!(opened.torn.len(), 1);
        disk.fail_at(disk.calls() + call, Fault::Power);
        let _ = log.publish(text("a", "3")).await;
        log.close().await;
        let (log, opened) = open(&disk.lose_power(seed), 1).unwrap();
        assert_eq!(
            opened.damaged, [""; 0],
            "call {call}, seed {seed}: a message that was never there is reported as lost"
        );
        let (messages, events) = read(&log, query(&["a"], Start::Earliest)).await;
        assert_eq!((messages[0].1.as_str(), events), ("1", vec![]), "call {call}, seed {seed}");
    }
}
