//! NATS's own client in Python beside ours on one stream.

use std::process::Stdio;

use tokio::process::Command;

use super::*;
use crate::harness::soon;

/// The messages of each side.
const EACH: usize = 50;

#[tokio::test]
#[ignore = "needs nats-server, and nats-py for python3"]
async fn the_python_client_of_nats_and_ours_read_the_same_from_one_stream() {
    let nats = Nats::start().await;
    let servers = servers(&nats);
    let mut client = servers[0].messages().await;
    let mut stream = client.messages(from_the_start("orders.>")).await.unwrap().into_inner();
    let arguments =
        [nats.hosts(), format!("{NAMESPACE}.orders.eu"), EACH.to_string(), (2 * EACH).to_string()];
    let theirs = Command::new("python3")
        .arg("tests/cluster/native.py")
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output();
    let ours = async {
        for n in 0..EACH {
            servers[1].messages().await.publish(text("orders.eu", &format!("ours {n}"))).await.unwrap();
        }
    };
    let (theirs, ()) = tokio::join!(theirs, ours);
    let theirs = theirs.expect("python3 runs");
    assert!(theirs.status.success(), "{theirs:?}");
    let read_by_them = String::from_utf8(theirs.stdout).unwrap();
    let mut read_by_us = String::new();
    while read_by_us.lines().count() < 2 * EACH {
        let response = soon("messages", stream.message()).await.unwrap().unwrap();
        for (sequence, text) in texts(&response) {
            read_by_us += &format!("{sequence} {text}\n");
        }
    }
    assert_eq!(read_by_us, read_by_them);
    for side in ["ours", "theirs"] {
        let expected = (0..EACH).map(|n| format!("{side} {n}")).collect::<Vec<_>>();
        let is_of_side = |text: &&str| text.split(' ').next() == Some(side);
        let of_side = read_by_us.lines().filter_map(|line| line.split_once(' ')).map(|(_, text)| text);
        assert_eq!(of_side.filter(is_of_side).collect::<Vec<_>>(), expected);
    }
}
