//! What an operator relies on: the help, the warnings at the start, the signals.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at its first surprise")]

use std::process::Command;

use harness::Server;
use rustix::process::{Pid, Signal, kill_process};

mod harness;

// The wait for the end of the server blocks its thread, and the client needs one to close its connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn sighup_is_logged_and_ends_neither_the_server_nor_its_streams() {
    let mut server = Server::start();
    let request = perennial::proto::CountdownRequest {
        target: Some(perennial::proto::countdown_request::Target::Start(1_000_000)),
        ..Default::default()
    };
    let mut stream = server.countdown().await.countdown(request).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    for _ in 0..2 {
        let process = Pid::from_raw(server.id().cast_signed()).unwrap();
        kill_process(process, Signal::HUP).unwrap();
        server.wait_for_log("SIGHUP ignored");
    }
    stream.message().await.unwrap().expect("the stream continues");
    drop(stream);
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn metrics_on_an_address_that_others_reach_are_warned_of() {
    let server = Server::start_with(&["--metrics", "0.0.0.0:0"]);
    server.wait_for_log("can read the metrics, because there is no authentication");
}

#[test]
fn metrics_on_a_loopback_address_are_not_warned_of() {
    let mut server = Server::start_with(&["--metrics", "127.0.0.1:0"]);
    server.wait_for_log("metrics are at http://127.0.0.1:");
    server.terminate();
    server.wait();
    assert!(!server.rest_of_log().iter().any(|line| line.contains("warning")));
}

#[test]
fn the_help_begins_with_what_the_server_does_and_has_an_example_and_defaults() {
    for flag in ["-h", "--help"] {
        let help = Command::new(env!("CARGO_BIN_EXE_perenniald")).arg(flag).output().unwrap();
        // A line may end between two words of a part.
        let help = String::from_utf8(help.stdout).unwrap();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            help.starts_with("Serves time, files and messages") || help.starts_with("perenniald serves"),
            "{help}"
        );
        for part in ["perenniald --demo", "[default: 127.0.0.1:50051]", "Files:", "Messages:", "Countdowns:"]
        {
            assert!(help.contains(part), "{flag} has no {part}: {help}");
        }
    }
}
