//! Copies of a data directory, with the real server and client: a restored backup, two forks, and lost files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

mod harness;

use std::{path::Path, process::Command};

use harness::{Server, soon};
use perennial::proto::{
    CommitCursorRequest, CountdownRequest, CreateCountdownRequest, MessageGapReason, MessagesRequest, OnGap,
    PublishRequest, countdown_request::Target, create_countdown_request, message_stream_event::Event,
    messages_request::Start, publish_request::Content,
};
use tempfile::TempDir;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// A copy of a server's directory with `cp -r`, while the server runs or not.
fn copy_of(server: &Server) -> TempDir {
    let copy = TempDir::new().unwrap();
    let from = server.directory().join(".");
    let copied = Command::new("cp").arg("-r").arg(from).arg(copy.path()).status().unwrap();
    assert!(copied.success());
    copy
}

fn start_over(directory: TempDir) -> Server {
    Server::start_over_data(directory, None, &[])
}

async fn publish(server: &Server, name: &str, count: usize) {
    let mut client = server.messages().await;
    for n in 1..=count {
        let content = Some(Content::Text(format!("{name}-{n}")));
        let request = PublishRequest { topic: "a".into(), content, ..Default::default() };
        soon("a publish", client.publish(request)).await.unwrap();
    }
}

fn request(cursor: Option<&str>, on_gap: OnGap) -> MessagesRequest {
    MessagesRequest {
        topics: vec!["a".into()],
        start: Some(Start::Earliest(true)),
        until_caught_up: true,
        cursor: cursor.map(Into::into),
        on_gap: on_gap.into(),
        ..Default::default()
    }
}

/// What a bounded read gives.
#[derive(Debug, Default)]
struct Read {
    texts: Vec<String>,
    /// first sequence, last sequence, reason
    gaps: Vec<(i64, i64, MessageGapReason)>,
    cursor: String,
}

async fn read(server: &Server, request: MessagesRequest) -> Result<Read, Status> {
    let mut stream = server.messages().await.messages(request).await?.into_inner();
    let mut read = Read::default();
    while let Some(response) = soon("a response", stream.message()).await? {
        for event in response.events {
            let Some(Event::Gap(gap)) = event.event else { panic!("an event without content") };
            read.gaps.push((gap.first_sequence.unwrap(), gap.last_sequence.unwrap(), gap.reason()));
        }
        read.texts.extend(response.messages.into_iter().map(|message| match message.content {
            Some(perennial::proto::stored_message::Content::Text(text)) => text,
            other => panic!("{other:?}"),
        }));
        read.cursor = response.cursor;
    }
    Ok(read)
}

/// The reason of a refused call, and the last common sequence in its metadata.
fn refused(status: &Status) -> (Code, String, Option<String>) {
    let info = status.get_error_details().error_info().cloned().unwrap();
    (status.code(), info.reason, info.metadata.get("last_common").cloned())
}

fn diverged(last_common: u64) -> (Code, String, Option<String>) {
    (Code::OutOfRange, "LOG_DIVERGED".into(), Some(last_common.to_string()))
}

#[tokio::test]
async fn a_restored_backup_that_has_grown_past_a_cursor_refuses_it_or_continues_after_the_last_common_message()
 {
    let server = Server::start();
    publish(&server, "common", 50).await;
    let backup = copy_of(&server);
    publish(&server, "lost", 50).await;
    let lost = read(&server, request(None, OnGap::Fail)).await.unwrap();
    assert_eq!(lost.texts.len(), 100);

    let restored = start_over(backup);
    let ahead = read(&restored, request(Some(&lost.cursor), OnGap::Fail)).await.unwrap_err();
    assert_eq!(refused(&ahead).1, "CURSOR_AHEAD");
    publish(&restored, "new", 120).await;
    let error = read(&restored, request(Some(&lost.cursor), OnGap::Fail)).await.unwrap_err();
    assert_eq!(refused(&error), diverged(50));
    let commit = CommitCursorRequest { consumer: "c".into(), cursor: lost.cursor.clone(), rewind: true };
    let error = restored.messages().await.commit_cursor(commit).await.unwrap_err();
    assert_eq!(refused(&error), diverged(50));
    let skipped = read(&restored, request(Some(&lost.cursor), OnGap::Skip)).await.unwrap();
    assert_eq!(skipped.gaps, [(51, 100, MessageGapReason::Diverged)]);
    assert_eq!((skipped.texts.len(), skipped.texts[0].as_str()), (120, "new-1"));
    assert!(read(&restored, request(Some(&skipped.cursor), OnGap::Fail)).await.unwrap().texts.is_empty());
}

#[tokio::test]
async fn two_forks_refuse_the_cursors_of_each_other_also_those_of_shared_countdowns() {
    let server = Server::start();
    let create = CreateCountdownRequest {
        name: "launch".into(),
        target: Some(create_countdown_request::Target::Duration(prost_types::Duration {
            seconds: 3_600,
            nanos: 0,
        })),
        ..Default::default()
    };
    server.countdown().await.create_countdown(create).await.unwrap();
    publish(&server, "common", 5).await;
    let forks = [copy_of(&server), copy_of(&server)].map(start_over);
    let mut cursors = Vec::new();
    for (server, name) in forks.iter().zip(["one", "two"]) {
        publish(server, name, 9).await;
        let extend = perennial::proto::ExtendCountdownRequest {
            name: "launch".into(),
            by: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            ..Default::default()
        };
        server.countdown().await.extend_countdown(extend).await.unwrap();
        let watch = |cursor| CountdownRequest {
            target: Some(Target::Name("launch".into())),
            cursor,
            ..Default::default()
        };
        let mut stream = server.countdown().await.countdown(watch(None)).await.unwrap().into_inner();
        let countdown = soon("a response", stream.message()).await.unwrap().unwrap().cursor;
        assert!(server.countdown().await.countdown(watch(Some(countdown.clone()))).await.is_ok());
        let messages = read(server, request(None, OnGap::Fail)).await.unwrap().cursor;
        cursors.push((messages, watch(Some(countdown))));
    }
    for (server, (messages, countdown)) in forks.iter().rev().zip(cursors) {
        let error = read(server, request(Some(&messages), OnGap::Fail)).await.unwrap_err();
        assert_eq!((refused(&error).0, refused(&error).1.as_str()), (Code::OutOfRange, "LOG_DIVERGED"));
        let error = server.countdown().await.countdown(countdown).await.unwrap_err();
        assert_eq!((refused(&error).0, refused(&error).1.as_str()), (Code::OutOfRange, "LOG_DIVERGED"));
    }
}

/// Messages of 60 KB, in segments of 1 MiB.
async fn publish_segments(server: &Server) {
    let mut client = server.messages().await;
    for n in 1..=100 {
        let content = Some(Content::Text(format!("{n} {}", "x".repeat(60_000))));
        let request = PublishRequest { topic: "a".into(), content, ..Default::default() };
        soon("a publish", client.publish(request)).await.unwrap();
    }
}

fn segments(server: &Server) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(server.directory().join("data/messages")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths = paths.filter(|path| path.extension().is_some_and(|e| e == "log")).collect::<Vec<_>>();
    paths.sort();
    paths
}

fn verify(data: &Path) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perenniald"));
    let output = command.args(["log", "verify", "--data"]).arg(data).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn a_removed_segment_is_a_gap_and_verify_names_it() {
    for place in ["first", "middle", "newest"] {
        let directory = TempDir::new().unwrap();
        std::fs::create_dir_all(directory.path().join("logs")).unwrap();
        let mut server = Server::start_over_data(directory, None, &["--segment", "1MiB"]);
        publish_segments(&server).await;
        server.terminate();
        assert!(server.wait().success());
        let data = server.directory().join("data");
        assert_eq!(verify(&data).0, 0);
        let paths = segments(&server);
        let lost = match place {
            "first" => &paths[0],
            "middle" => &paths[paths.len() / 2],
            _ => &paths[paths.len() - 1],
        };
        std::fs::remove_file(lost).unwrap();
        let (code, out) = verify(&data);
        assert!(
            code == 1 && out.contains(lost.to_str().unwrap()) && out.contains("the file is missing"),
            "{out}"
        );
        server.restart();
        assert!(
            server.startup().iter().any(|line| line.contains("the file is missing")),
            "{:?}",
            server.startup()
        );
        let read = read(&server, request(None, OnGap::Fail)).await.unwrap();
        let [(first, last, MessageGapReason::Damaged)] = read.gaps[..] else { panic!("{:?}", read.gaps) };
        let sequences = read.texts.iter().map(|text| text.split(' ').next().unwrap().parse::<i64>().unwrap());
        assert!(sequences.eq((1..=100).filter(|n| !(first..=last).contains(n))), "{place}");
        let content = Some(Content::Text("new".into()));
        let new = PublishRequest { topic: "b".into(), content, ..Default::default() };
        let published = server.messages().await.publish(new).await.unwrap().into_inner();
        assert!(published.sequence > Some(100.max(if place == "newest" { last } else { 0 })));
    }
}
