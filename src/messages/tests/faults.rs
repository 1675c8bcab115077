//! Each call of the disk fails in turn, or the disk is full: acknowledged messages stay, and reading goes on.

use super::{
    history::{Fact, Outcome, Sent},
    workload::{Client, DIRECTORY, KEEPS, embedded, enforce, for_each_seed, seeds, small},
    *,
};

const SEGMENT_BYTES: usize = 4096;

const FAULTS: [Fault; 3] = [Fault::Error, Fault::Full, Fault::Sync];

fn open(disk: &Arc<Simulation>) -> Result<(Log, Opened), OpenError> {
    Log::open(Path::new(DIRECTORY), small(disk, SEGMENT_BYTES))
}

/// Opened again by a process that finds what the page cache has, and then after a power cut.
async fn restart_and_check(mut client: Client, disk: Arc<Simulation>) {
    let (seed, position) = (client.random.number(), client.position.clone());
    for after_power_cut in [false, true] {
        let disk = if after_power_cut { disk.lose_power(seed) } else { disk.kill() };
        let (log, opened) = open(&disk).unwrap();
        assert_eq!(opened.damaged, [""; 0]);
        client.facts.push(Fact::Opened);
        client.read(&log).await;
        assert!(client.work(&log, 4).await, "the disk is whole again");
        client.read(&log).await;
        client.check().unwrap_or_else(|broken| panic!("{broken}"));
        if after_power_cut {
            log.close().await;
        } else {
            // Facts from here on are not about the disk that loses power.
            client.position.clone_from(&position);
            client
                .facts
                .truncate(client.facts.iter().rposition(|fact| matches!(fact, Fact::Opened)).unwrap());
        }
    }
}

async fn fail(seed: u64) {
    let mut client = Client::new(seed % 7);
    let disk = Simulation::new();
    disk.fail_at(seed / FAULTS.len() as u64, FAULTS[usize::try_from(seed).unwrap() % FAULTS.len()]);
    let log = match open(&disk) {
        Ok((log, _)) => log,
        Err(OpenError::Io { .. }) => open(&disk).unwrap().0,
        Err(error) => panic!("{error}"),
    };
    if !client.work(&log, 25).await {
        client.read(&log).await;
        client.publish(&log).await;
        let Some(Fact::Published { messages, .. }) = client.facts.last() else { panic!() };
        assert!(messages.iter().all(|sent| sent.outcome == Outcome::Unknown), "it has failed for good");
    }
    client.read(&log).await;
    client.check().unwrap_or_else(|broken| panic!("{broken}"));
    log.close().await;
    restart_and_check(client, disk.kill()).await;
}

#[test]
fn after_any_failed_call_a_restart_serves_every_acknowledged_message() {
    for_each_seed(seeds(200, 900), fail);
}

async fn fill(seed: u64) {
    let mut client = Client::new(seed);
    let disk = Simulation::new();
    let (log, _) = open(&disk).unwrap();
    client.work(&log, 5).await;
    for _ in 0..3 {
        disk.set_capacity(Some(disk.used() + client.random.below(8 * 1024)));
        assert!(client.work(&log, 10).await, "a disk that is full is no failure");
        client.read(&log).await;
        disk.set_capacity(None);
        let sent = client.facts.len();
        client.publish(&log).await;
        let is_refused = |fact: &Fact| match fact {
            Fact::Published { messages, .. } => {
                messages.iter().any(|sent: &Sent| sent.outcome == Outcome::Refused)
            }
            _ => false,
        };
        assert!(!client.facts[sent..].iter().any(is_refused), "there is room again");
    }
    client.check().unwrap_or_else(|broken| panic!("{broken}"));
    let disk = if client.random.one_in(2) { disk.kill() } else { disk.lose_power(seed) };
    restart_and_check(client, disk).await;
}

#[test]
fn a_disk_that_runs_full_refuses_until_there_is_room_and_loses_nothing() {
    for_each_seed(seeds(50, 150), fill);
}

/// Waits until the threads of the log have done everything.
async fn settle(log: &Log) {
    embedded(log).settle().await;
}

/// A log with full segments of which little is left, and one with little in it that is written.
async fn with_garbage(disk: &Arc<Simulation>) -> Log {
    let (log, _) = open(disk).unwrap();
    for n in 0..60 {
        let topic = if n % 10 == 0 { "a" } else { "few" };
        log.publish(text(topic, &format!("{n}-{}", "x".repeat(300)))).await.unwrap();
    }
    enforce(&log).await;
    for n in 60..90 {
        log.publish(text("few", &format!("{n}-{}", "x".repeat(300)))).await.unwrap();
    }
    // Everything in the current segment is kept.
    for n in 90..100 {
        log.publish(text("a", &format!("{n}-{}", "x".repeat(300)))).await.unwrap();
    }
    settle(&log).await;
    log
}

#[tokio::test]
async fn a_failure_in_maintenance_does_not_stop_publishing() {
    for call in 0..60 {
        let disk = Simulation::new();
        let log = with_garbage(&disk).await;
        let start = disk.calls();
        disk.fail_at(start + call, Fault::Error);
        enforce(&log).await;
        settle(&log).await;
        if disk.calls() <= start + call {
            assert!(call > 10, "something is done in the background");
            break;
        }
        // What could not be done is done the next time.
        enforce(&log).await;
        log.publish(text("a", "last")).await.unwrap_or_else(|error| panic!("call {call}: {error}"));
        let few = texts(&log, query(&["few"], Start::Earliest)).await;
        assert_eq!(few.len(), KEEPS("few").unwrap());
        let disk = disk.kill();
        let (log, opened) = open(&disk).unwrap();
        assert_eq!(opened.damaged, [""; 0], "call {call}");
        assert_eq!(texts(&log, query(&["few"], Start::Earliest)).await, few, "call {call}");
        assert_eq!(texts(&log, query(&["a"], Start::Earliest)).await.len(), 17);
    }
}

#[tokio::test]
async fn a_trim_point_that_could_not_be_written_is_written_the_next_time() {
    let disk = Simulation::new();
    let log = with_garbage(&disk).await;
    let last = log.publish(text("a", "last")).await.unwrap().sequence;
    settle(&log).await;
    disk.fail_at(disk.calls(), Fault::Error);
    assert!(log.purge_topic("a", Some(sequence(last.get() - 1))).await.is_err());
    assert_eq!(log.purge_topic("a", Some(sequence(last.get() - 1))).await.unwrap(), 0);
    let log = open(&disk.lose_power(1)).unwrap().0;
    assert_eq!(texts(&log, query(&["a"], Start::Earliest)).await, ["last"], "purged for good");
}

#[tokio::test]
async fn the_mark_of_a_clean_end_that_is_in_the_page_cache_alone_does_not_look_like_damage_later() {
    for seed in 0..50 {
        let disk = Simulation::new();
        let (log, _) = open(&disk).unwrap();
        log.publish(text("a", &"1".repeat(600))).await.unwrap();
        disk.fail_at(disk.calls(), Fault::Sync);
        log.close().await;
        let disk = disk.kill();
        let (log, _) = open(&disk).unwrap();
        log.publish(text("a", &"2".repeat(600))).await.unwrap();
        let (log, opened) = open(&disk.lose_power(seed)).unwrap();
        assert_eq!(opened.damaged, [""; 0], "seed {seed}");
        assert_eq!(texts(&log, query(&["a"], Start::Earliest)).await.len(), 2);
    }
}

#[tokio::test]
async fn a_commit_that_was_refused_for_want_of_room_does_not_come_back_after_a_power_cut() {
    let disk = Simulation::new();
    let config = Config { segment_bytes: 1024 * 1024, ..small(&disk, SEGMENT_BYTES) };
    let (log, _) = Log::open(Path::new(DIRECTORY), config.clone()).unwrap();
    log.publish(text("a", "1")).await.unwrap();
    // Two blocks: the first half of the write is a whole one.
    disk.fail_at(disk.calls(), Fault::Full);
    let large = (0..5).map(|_| text("a", &"2".repeat(40_000))).collect();
    let refused = log.publish_each(large).await.await;
    assert!(refused.iter().all(|result| matches!(result, Err(Error::Full(_)))));
    for seed in 0..50 {
        let disk = disk.lose_power(seed);
        let config = Config { disk: Storage::Simulated(disk), ..config.clone() };
        let (log, opened) = Log::open(Path::new(DIRECTORY), config).unwrap();
        assert_eq!((opened.torn, opened.damaged), (vec![], vec![]));
        assert_eq!(texts(&log, query(&["a"], Start::Earliest)).await, ["1"], "seed {seed}");
    }
}

#[tokio::test]
async fn segments_that_are_kept_whole_are_not_written_again() {
    let disk = Simulation::new();
    let (log, _) = open(&disk).unwrap();
    for _ in 0..200 {
        log.publish(text("a", "small")).await.unwrap();
    }
    settle(&log).await;
    let calls = disk.calls();
    enforce(&log).await;
    assert_eq!(disk.calls(), calls);
}

#[tokio::test]
async fn without_room_for_the_next_segment_a_refused_message_leaves_nothing_in_the_current_one() {
    for call in 0..24 {
        let disk = Simulation::new();
        let (log, _) = open(&disk).unwrap();
        for _ in 0..5 {
            log.publish(text("b", &"x".repeat(300))).await.unwrap();
        }
        settle(&log).await;
        disk.fail_at(disk.calls() + call, Fault::Full);
        // So that there is little left in the segment that is written, and another one is begun.
        let _ = log.purge_topic("b", None).await;
        let (mut acknowledged, mut unknown) = (Vec::new(), Vec::new());
        for n in 0..5 {
            let content = n.to_string();
            match log.publish(text("a", &content)).await {
                Ok(_) => acknowledged.push(content),
                Err(Error::Failed) => unknown.push(content),
                Err(error) => assert!(matches!(error, Error::Full(_)), "{error}"),
            }
        }
        let log = open(&disk.kill()).unwrap().0;
        let mut left = texts(&log, query(&["a"], Start::Earliest)).await;
        left.retain(|content| !unknown.contains(content));
        assert_eq!(left, acknowledged, "call {call}");
    }
}
