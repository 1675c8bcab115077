//! Nodes of NATS that are killed, hang or are cut off, and servers that are restarted, under load.

use super::{history::Load, *};

/// The messages between two failures.
const SOME: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server"]
async fn nothing_is_lost_or_doubled_while_leaders_are_killed_and_hang() {
    let mut nats = Nats::start().await;
    let servers = servers(&nats);
    let load = Load::start(&servers, 4, 3);
    load.acknowledged(SOME).await;
    for _ in 0..2 {
        let leader = nats.leader(NAMESPACE).await;
        nats.kill(leader);
        load.acknowledged(SOME).await;
        nats.start_node(leader);
        load.acknowledged(SOME).await;
        let leader = nats.leader(NAMESPACE).await;
        nats.pause(leader);
        load.acknowledged(SOME).await;
        nats.resume(leader);
        load.acknowledged(SOME).await;
    }
    load.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server, and root for networks that can be cut"]
async fn nothing_is_lost_or_doubled_while_the_leader_is_cut_off() {
    let nats = Nats::start_apart().await;
    let servers = servers(&nats);
    let load = Load::start(&servers, 4, 3);
    load.acknowledged(SOME).await;
    for _ in 0..2 {
        let leader = nats.leader(NAMESPACE).await;
        nats.set_cut(leader, true);
        load.acknowledged(SOME).await;
        nats.set_cut(leader, false);
        load.acknowledged(SOME).await;
    }
    load.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server"]
async fn servers_are_restarted_one_after_the_other_without_a_loss() {
    let nats = Nats::start().await;
    let mut servers = servers(&nats);
    let load = Load::start(&servers, 4, 3);
    for server in &mut servers {
        load.acknowledged(SOME).await;
        server.terminate();
        server.wait();
        server.restart();
    }
    load.acknowledged(SOME).await;
    load.check().await;
}
