//! `kill -9` of a server over and over, while clients publish and read.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::{
    clients::{Clients, LIMIT, Progress, read_afterwards},
    harness::{Server, server_command, within},
    history::History,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_message_is_read_once_and_in_order_over_8_crashes() {
    crash(8).await;
}

/// As many as `PERENNIAL_ROUNDS` says, or 200.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "200 rounds: some minutes"]
async fn every_acknowledged_message_is_read_once_and_in_order_over_200_crashes() {
    let rounds = std::env::var("PERENNIAL_ROUNDS");
    crash(rounds.map_or(200, |rounds| rounds.parse().expect("PERENNIAL_ROUNDS is a number"))).await;
}

async fn crash(rounds: usize) {
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut server = Server::start_apart();
    let clients = Clients::start(&server, &mut random).await;
    // A client whose first call finds no server gives up.
    let mut progress = clients.progress.subscribe();
    within(LIMIT, "all clients", progress.wait_for(|now| !now.contains(&0))).await.unwrap();
    for round in 0..rounds {
        let before = *progress.borrow();
        let answers = random.u64(..4).min(1) * random.u64(..600);
        // A client waits longer after each failed attempt: without this it would rarely find a server that runs.
        let waits_for_all = random.u64(..2) == 0;
        let is_due = |now: &Progress| {
            let has_come = |(now, before): (&u64, &u64)| now > before || !waits_for_all;
            Clients::answers(now) >= Clients::answers(&before) + answers
                && now.iter().zip(&before).all(has_come)
        };
        within(LIMIT, &format!("round {round}"), progress.wait_for(is_due)).await.unwrap();
        assert!(!clients.publishers.iter().any(JoinHandle::is_finished), "a publisher failed");
        assert!(!clients.readers.iter().any(JoinHandle::is_finished), "a reader failed");
        server.kill();
        if random.u64(..4) == 0 {
            kill_while_it_starts(&server, &mut random).await;
        }
        server.restart();
    }
    let mut history = clients.stop().await;
    history.readings.push(read_afterwards(&server).await);
    println!("{history}");
    history.check();
}

/// Kills a server while it starts: its changes to the data must be as safe as the data that it found.
async fn kill_while_it_starts(server: &Server, random: &mut fastrand::Rng) {
    let mut command = server_command(server.directory(), "127.0.0.1:0");
    let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    tokio::time::sleep(Duration::from_micros(random.u64(..100_000))).await;
    child.kill().unwrap();
    child.wait().unwrap();
}

impl Clients {
    /// Stops the publishers, waits until the readers have read the last message, and returns what all saw.
    pub async fn stop(self) -> History {
        self.stop.cancel();
        let mut history = History::default();
        for publisher in self.publishers {
            history.acknowledged.extend(within(LIMIT, "the last answers", publisher).await.unwrap());
        }
        self.last.send_replace(history.acknowledged.iter().map(|(_, _, sequence)| *sequence).max());
        for reader in self.readers {
            history.readings.push(within(LIMIT, "the last messages", reader).await.unwrap());
        }
        history
    }
}
