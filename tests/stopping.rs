//! A server that is asked to stop stops within `--drain`, whatever hangs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

use std::fs;

use harness::{
    Server, append,
    mount::{Frozen, Mount, Silent},
    soon, until,
};
use perennial::proto::{PublishRequest, ReadLinesRequest};
use tokio::task::JoinHandle;
use tonic::{Code, Status};

mod harness;

fn read(path: &str) -> ReadLinesRequest {
    ReadLinesRequest { path: path.into(), ..Default::default() }
}

fn message(text: &str) -> PublishRequest {
    let content = perennial::proto::publish_request::Content::Text(text.into());
    PublishRequest { topic: "a".into(), content: Some(content), ..Default::default() }
}

// The wait for the end of the server blocks its thread.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "mounts: needs root"]
async fn a_second_signal_ends_the_process_at_once() {
    let mount = Mount::of_kind("ext4", "300m");
    let mut server = Server::start_in_with(mount.path(), &["--drain", "1h"]);
    let (frozen, unanswered) = hang(&server, &mount).await;
    server.terminate();
    server.wait_for_log("stopping");
    server.terminate();
    server.wait_for_log("stopped at once by a second signal");
    until_gone(&server).await;
    drop(frozen);
    assert_eq!(server.wait().code(), Some(1));
    soon("the end of the call", unanswered).await.unwrap().unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "mounts: needs root"]
async fn a_file_system_that_does_not_answer_holds_neither_other_readers_nor_the_end() {
    let mut server = Server::start_with(&["--drain", "1h"]);
    append(&server.log_file("app.log"), "1\n");
    fs::create_dir(server.log_file("silent")).unwrap();
    let silent = Silent::over(&server.log_file("silent"));
    let mut readers = Vec::new();
    for n in 0..5 {
        let mut client = server.lines().await;
        let path = format!("logs/silent/{n}.log");
        readers.push(tokio::spawn(async move { client.read_lines(read(&path)).await }));
        silent.wait_for_question();
    }
    let mut stream = server.lines().await.read_lines(read("logs/app.log")).await.unwrap().into_inner();
    assert_eq!(soon("a line", stream.message()).await.unwrap().unwrap().lines.len(), 1);
    server.terminate();
    for reader in readers {
        let ended = soon("the end of a reader", reader).await.unwrap().unwrap_err();
        assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
    }
    drop(stream);
    // The kernel keeps the threads that wait for an answer.
    until_gone(&server).await;
    drop(silent);
    assert_eq!(server.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "mounts an ext4: needs root"]
async fn a_disk_that_hangs_does_not_keep_a_server_that_must_stop() {
    let mount = Mount::of_kind("ext4", "300m");
    let mut server = Server::start_in_with(mount.path(), &["--drain", "3s"]);
    let (frozen, unanswered) = hang(&server, &mount).await;
    server.terminate();
    server.wait_for_log("connections are cut");
    server.wait_for_log("not stopped after 3s: a disk may hang");
    until_gone(&server).await;
    soon("the end of the call", unanswered).await.unwrap().unwrap_err();
    drop(frozen);
    assert_eq!(server.wait().code(), Some(1));
    server.restart();
    server.messages().await.publish(message("after")).await.unwrap();
}

/// Freezes the disk of a server, and publishes until a write hangs.
async fn hang<'a>(server: &Server, mount: &'a Mount) -> (Frozen<'a>, JoinHandle<Result<(), Status>>) {
    let mut client = server.messages().await;
    client.publish(message("before")).await.unwrap();
    let frozen = mount.freeze();
    let unanswered = tokio::spawn(async move { client.publish(message("during")).await.map(|_| ()) });
    until("a write that hangs", async || states(server.id()).contains('D')).await;
    (frozen, unanswered)
}

/// Waits until a process has ended, but for threads that the kernel does not let go.
async fn until_gone(server: &Server) {
    let is_gone = async || states(server.id()).chars().all(|state| "DZ".contains(state));
    until("the end of the other threads", is_gone).await;
}

/// The states of the threads of a process: a letter each.
fn states(process: u32) -> String {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap().filter_map(Result::ok);
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    stats.filter_map(|stat| stat.rsplit_once(") ")?.1.chars().next()).collect()
}
