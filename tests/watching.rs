//! `WatchFiles`: the files that match globs, now and as they appear and go; it resumes; every limit has its error.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

mod harness;

use std::{collections::BTreeSet, fs};

use harness::{Server, append, free_port, soon, until};
use perennial::proto::{
    WatchFilesRequest, WatchFilesResponse, file_change::Change, file_stream_event::Event,
    line_service_client::LineServiceClient,
};
use tonic::{Code, Status, Streaming, transport::Endpoint};
use tonic_types::StatusExt;

fn watch(globs: &[&str]) -> WatchFilesRequest {
    WatchFilesRequest { globs: globs.iter().map(ToString::to_string).collect(), ..Default::default() }
}

fn reason(status: &Status) -> (Code, String, bool) {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
    (status.code(), reason, details.retry_info().is_some())
}

/// A client that keeps the files that it has.
struct Watcher {
    stream: Streaming<WatchFilesResponse>,
    files: BTreeSet<String>,
    added: usize,
    relists: usize,
    cursor: String,
    caught_up: bool,
}

impl Watcher {
    async fn open(server: &Server, request: WatchFilesRequest) -> Self {
        let stream = soon("a stream", server.lines().await.watch_files(request)).await.unwrap().into_inner();
        Self::of(stream)
    }

    fn of(stream: Streaming<WatchFilesResponse>) -> Self {
        let (files, cursor) = (BTreeSet::new(), String::new());
        Self { stream, files, added: 0, relists: 0, cursor, caught_up: false }
    }

    /// Continues after the last response.
    async fn resume(self, server: &Server, request: WatchFilesRequest) -> Self {
        let request = WatchFilesRequest { cursor: Some(self.cursor.clone()), ..request };
        let Self { stream, .. } = Self::open(server, request).await;
        Self { stream, ..self }
    }

    /// Takes a response; `None` at the end with OK. The number of its changes.
    async fn take(&mut self) -> Result<Option<usize>, Status> {
        let Some(response) = soon("a response", self.stream.message()).await? else { return Ok(None) };
        let WatchFilesResponse { changes, events, cursor, caught_up } = response;
        for event in events {
            assert!(matches!(event.event, Some(Event::Relisted(_))));
            self.files.clear();
            self.relists += 1;
        }
        let count = changes.len();
        for change in changes {
            match change.change.unwrap() {
                Change::Added(file) => {
                    assert!(file.size.is_some() && file.modify_time.is_some(), "{file:?}");
                    assert!(self.files.insert(file.path.clone()), "{} comes twice", file.path);
                    self.added += 1;
                }
                Change::Removed(file) => {
                    assert!(self.files.remove(&file.path), "{} was not there", file.path);
                }
            }
        }
        assert!(!cursor.is_empty());
        (self.cursor, self.caught_up) = (cursor, caught_up);
        Ok(Some(count))
    }

    /// Takes responses until it has these files.
    async fn until(&mut self, files: &[&str]) {
        let wanted = files.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        while self.files != wanted {
            assert!(self.take().await.unwrap().is_some(), "has {:?}, not {wanted:?}", self.files);
        }
    }

    async fn until_caught_up(&mut self) {
        while !self.caught_up {
            assert!(self.take().await.unwrap().is_some());
        }
    }

    /// The error that ends the stream.
    async fn end(&mut self) -> Status {
        loop {
            match self.take().await {
                Ok(response) => assert!(response.is_some(), "it ends with OK"),
                Err(status) => return status,
            }
        }
    }
}

fn write(server: &Server, name: &str) {
    let path = server.log_file(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    append(&path, "1\n");
}

#[tokio::test]
async fn a_stream_yields_the_files_that_match_and_those_that_appear_and_go() {
    let server = Server::start();
    for name in ["a.log", "a.log.1", "b.txt", "deep/er/c.log"] {
        write(&server, name);
    }
    let mut watcher = Watcher::open(&server, watch(&["logs/**/*.log", "logs/b.*"])).await;
    // The first response leaves at once.
    assert_eq!(watcher.take().await.unwrap(), Some(0));
    watcher.until(&["logs/a.log", "logs/b.txt", "logs/deep/er/c.log"]).await;
    assert!(watcher.caught_up);
    write(&server, "new/d.log");
    fs::remove_file(server.log_file("b.txt")).unwrap();
    watcher.until(&["logs/a.log", "logs/deep/er/c.log", "logs/new/d.log"]).await;
    // Writing and rotating are no changes.
    append(&server.log_file("a.log"), "2\n");
    fs::rename(server.log_file("a.log"), server.log_file("a.log.2")).unwrap();
    write(&server, "a.log");
    write(&server, "last.log");
    watcher.until(&["logs/a.log", "logs/deep/er/c.log", "logs/last.log", "logs/new/d.log"]).await;
    assert_eq!((watcher.added, watcher.relists), (5, 0));
    let mut all = Watcher::open(
        &server,
        WatchFilesRequest { include_rotated: true, until_caught_up: true, ..watch(&["logs/a.*"]) },
    )
    .await;
    while all.take().await.unwrap().is_some() {}
    assert_eq!(all.files.iter().collect::<Vec<_>>(), ["logs/a.log", "logs/a.log.1", "logs/a.log.2"]);
}

#[tokio::test]
async fn a_stream_resumes_on_a_restarted_server_after_exactly_its_last_response_or_reports_that_all_come_again()
 {
    let mut server = Server::start();
    let names = (0..50).map(|n| format!("{n:02}.log")).collect::<Vec<_>>();
    for name in &names {
        write(&server, name);
    }
    let request = WatchFilesRequest { max_batch: Some(7), ..watch(&["logs/*.log"]) };
    let mut watcher = Watcher::open(&server, request.clone()).await;
    while watcher.files.len() < 21 {
        assert!(watcher.take().await.unwrap().unwrap() <= 7);
    }
    server.kill();
    server.restart();
    let mut watcher = watcher.resume(&server, request.clone()).await;
    let all = names.iter().map(|name| format!("logs/{name}")).collect::<Vec<_>>();
    let all = all.iter().map(String::as_str).collect::<Vec<_>>();
    watcher.until(&all).await;
    assert_eq!((watcher.added, watcher.relists), (50, 0));
    // A file goes while no stream is open.
    server.kill();
    fs::remove_file(server.log_file("00.log")).unwrap();
    server.restart();
    let mut watcher = watcher.resume(&server, request.clone()).await;
    while watcher.relists == 0 {
        watcher.take().await.unwrap();
    }
    watcher.until(&all[1..]).await;
    assert_eq!(watcher.relists, 1);
    let other = WatchFilesRequest { cursor: Some(watcher.cursor.clone()), ..watch(&["logs/*"]) };
    let status = server.lines().await.watch_files(other).await.unwrap_err();
    assert_eq!(reason(&status), (Code::FailedPrecondition, "CURSOR_MISMATCH".into(), false));
}

#[tokio::test]
async fn a_limit_counts_changes_and_an_empty_response_leaves_with_each_heartbeat() {
    let server = Server::start();
    for name in ["a.log", "b.log", "c.log"] {
        write(&server, name);
    }
    let mut some = Watcher::open(&server, WatchFilesRequest { limit: Some(2), ..watch(&["logs"]) }).await;
    while some.take().await.unwrap().is_some() {}
    assert_eq!(some.files.iter().collect::<Vec<_>>(), ["logs/a.log", "logs/b.log"]);
    let heartbeat = Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 });
    let request = WatchFilesRequest { heartbeat, ..watch(&["logs"]) };
    let mut all = some.resume(&server, request).await;
    all.until(&["logs/a.log", "logs/b.log", "logs/c.log"]).await;
    assert_eq!(all.take().await.unwrap(), Some(0));
    assert_eq!(all.take().await.unwrap(), Some(0));
    assert!(all.caught_up);
}

#[tokio::test]
async fn streams_of_files_share_a_limit_and_those_that_vanish_leave_room() {
    let metrics = format!("127.0.0.1:{}", free_port());
    let server =
        Server::start_with(&["--max-watched", "6", "--max-watched-per-stream", "5", "--metrics", &metrics]);
    let watched = async || {
        let text = scrape(&metrics).await;
        let line = text.lines().find_map(|line| line.strip_prefix("perennial_files_watched "));
        line.unwrap().parse::<usize>().unwrap()
    };
    for name in ["a.log", "b.log", "c.log"] {
        write(&server, name);
    }
    let mut first = Watcher::open(&server, watch(&["logs"])).await;
    first.until_caught_up().await;
    assert_eq!(watched().await, 4);
    let status = Watcher::open(&server, watch(&["logs"])).await.end().await;
    assert_eq!(reason(&status), (Code::ResourceExhausted, "TOO_MANY_WATCHED".into(), true));
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().metadata["limit"], "6");
    assert!(status.message().contains("--max-watched"), "{status:?}");
    // A stream that the client drops is cancelled.
    drop(first);
    until("room", async || watched().await == 0).await;
    let mut second = Watcher::open(&server, watch(&["logs"])).await;
    second.until_caught_up().await;
    for name in ["d.log", "e.log"] {
        write(&server, name);
    }
    let status = second.end().await;
    assert_eq!(reason(&status), (Code::InvalidArgument, "INVALID_FIELD".into(), false));
    let details = status.get_error_details();
    assert_eq!(details.bad_request().unwrap().field_violations[0].field, "globs");
    until("room", async || watched().await == 0).await;
}

async fn scrape(address: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
    let mut text = String::new();
    soon("metrics", socket.read_to_string(&mut text)).await.unwrap();
    text
}

#[tokio::test]
async fn a_client_that_reads_nothing_loses_its_stream_and_resumes_with_every_file_once() {
    let server = Server::start_with(&["--stall", "1s"]);
    // More than the windows of HTTP/2 hold.
    for n in 0..5_000 {
        write(&server, &format!("{}/{n}.log", "a-long-name-".repeat(10)));
    }
    let endpoint = Endpoint::from_shared(server.url()).unwrap().initial_stream_window_size(64 * 1024);
    let mut client = LineServiceClient::new(endpoint.connect().await.unwrap());
    let stream = soon("a stream", client.watch_files(watch(&["logs"]))).await.unwrap().into_inner();
    let mut watcher = Watcher::of(stream);
    server.wait_for_log("STALLED");
    let status = watcher.end().await;
    assert_eq!(reason(&status), (Code::Unavailable, "STALLED".into(), true));
    let had = watcher.files.len();
    assert!(had < 5_000, "{had}");
    let mut watcher = watcher.resume(&server, watch(&["logs"])).await;
    while watcher.files.len() < 5_000 {
        watcher.take().await.unwrap();
    }
    assert_eq!((watcher.added, watcher.relists), (5_000, 0));
}

#[tokio::test]
async fn a_server_that_drains_ends_the_stream_and_its_last_cursor_resumes() {
    let mut server = Server::start();
    write(&server, "a.log");
    let mut watcher = Watcher::open(&server, watch(&["logs"])).await;
    watcher.until(&["logs/a.log"]).await;
    server.terminate();
    let status = watcher.end().await;
    assert_eq!(reason(&status), (Code::Unavailable, "DRAINING".into(), true));
    assert_eq!(server.wait().code(), Some(0));
    server.restart();
    let mut watcher = watcher.resume(&server, watch(&["logs"])).await;
    write(&server, "b.log");
    watcher.until(&["logs/a.log", "logs/b.log"]).await;
    assert_eq!((watcher.added, watcher.relists), (2, 0));
}

#[tokio::test]
async fn files_that_a_list_does_not_show_are_not_yielded() {
    let server = Server::start_with(&["--deny", "logs=*.key", "--allow", "logs=public/**"]);
    for name in ["public/a.log", "public/a.key", "other.log", "public/deep/b.log"] {
        write(&server, name);
    }
    std::os::unix::fs::symlink("/etc/passwd", server.log_file("public/passwd.log")).unwrap();
    std::os::unix::fs::symlink("a.key", server.log_file("public/key.log")).unwrap();
    let mut watcher = Watcher::open(&server, watch(&["logs/**"])).await;
    watcher.until(&["logs/public/a.log", "logs/public/deep/b.log"]).await;
    for name in ["other.log", "public/b.key", "public/z.log"] {
        write(&server, name);
    }
    watcher.until(&["logs/public/a.log", "logs/public/deep/b.log", "logs/public/z.log"]).await;
    let outside = watch(&["logs/../../etc/**"]);
    let status = server.lines().await.watch_files(outside).await.unwrap_err();
    assert_eq!(reason(&status), (Code::InvalidArgument, "INVALID_FIELD".into(), false));
    assert_eq!(status.get_error_details().bad_request().unwrap().field_violations[0].field, "globs[0]");
    let status = server.lines().await.watch_files(watch(&["logs/*", "absent/*"])).await.unwrap_err();
    assert_eq!(reason(&status), (Code::NotFound, "FILE_NOT_FOUND".into(), false));
}
