//! The power goes off, at any call and between calls, also while the log is opened; what was acknowledged is there.

use super::{
    history::Fact,
    workload::{Client, DIRECTORY, for_each_seed, seeds, small},
    *,
};

/// How many calls a workload makes, about.
const CALLS: u64 = 250;

fn open(disk: &Arc<Simulation>, segment_bytes: usize) -> Result<(Log, Opened), OpenError> {
    Log::open(Path::new(DIRECTORY), small(disk, segment_bytes))
}

async fn lose_power(seed: u64) {
    let mut client = Client::new(seed);
    let segment_bytes = 4096 << client.random.index(3);
    let mut disk = Simulation::new();
    for round in 0..=client.random.below(2) {
        if !client.random.one_in(4) {
            disk.fail_at(client.random.below(CALLS), Fault::Power);
        }
        let cut = client.random.number();
        if let Ok((log, opened)) = open(&disk, segment_bytes) {
            assert_eq!(opened.damaged, [""; 0], "round {round}");
            if round > 0 {
                client.facts.push(Fact::Opened);
                client.read(&log).await;
            }
            let steps = 5 + client.random.below(40);
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
            let _ = open(&disk, segment_bytes);
            disk =
                if client.random.one_in(3) { disk.kill() } else { disk.lose_power(client.random.number()) };
        }
        client.check().unwrap_or_else(|broken| panic!("round {round}: {broken}"));
    }
    for reopened in 0..2 {
        let (log, opened) = open(&disk, segment_bytes).unwrap();
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
fn whenever_the_power_goes_off_what_was_acknowledged_is_there_once_and_in_order() {
    for_each_seed(seeds(2_000), lose_power);
}
