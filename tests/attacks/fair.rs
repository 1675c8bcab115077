//! A connection that asks for much work waits for it by itself.

use std::{
    fs::File,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use perennial::proto::{ListFilesRequest, ReadLinesRequest, read_lines_request::Start};
use tokio::task::JoinSet;

use crate::{
    harness::{Server, append, free_port, soon, until},
    scrape, status_kib,
};

/// Calls at once, of one connection.
const CALLS: usize = 200;

/// Does the work of one connection, and when that has `begun` the work of another; gives how much of the first was done
/// when the other had its answer.
async fn done_before<W: Future<Output = ()> + Send + 'static>(
    server: &Server,
    work: impl Fn() -> W,
    begun: impl AsyncFn(usize) -> bool,
    other: impl Future<Output = ()>,
) -> usize {
    let done = Arc::new(AtomicUsize::new(0));
    let mut calls = JoinSet::new();
    for work in std::iter::repeat_with(work).take(CALLS) {
        let done = done.clone();
        calls.spawn(async move {
            work.await;
            done.fetch_add(1, Ordering::Relaxed);
        });
    }
    until("the begin of the work", async || begun(done.load(Ordering::Relaxed)).await).await;
    soon("the answer of the other connection", other).await;
    let before = done.load(Ordering::Relaxed);
    let threads = status_kib(server.id(), "Threads");
    assert!(threads < 100, "{threads} threads");
    soon("all answers", async { while calls.join_next().await.is_some() {} }).await;
    assert_eq!(done.load(Ordering::Relaxed), CALLS);
    before
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_lists_many_files_does_not_delay_another() {
    let server = Server::start();
    std::fs::create_dir(server.log_file("many")).unwrap();
    std::fs::create_dir(server.log_file("few")).unwrap();
    for n in 0..5_000 {
        File::create(server.log_file(&format!("many/{n}.log"))).unwrap();
    }
    append(&server.log_file("few/a.log"), "1\n");
    let (many, mut few) = (server.lines().await, server.lines().await);
    let list = move || {
        let mut client = many.clone();
        async move {
            let request =
                ListFilesRequest { path: "logs/many".into(), page_size: Some(1), ..Default::default() };
            client.list_files(request).await.unwrap();
        }
    };
    let other = async {
        let request = ListFilesRequest { path: "logs/few".into(), ..Default::default() };
        assert_eq!(few.list_files(request).await.unwrap().into_inner().files.len(), 1);
    };
    let before = done_before(&server, list, async |done| done > 0, other).await;
    assert!(before < CALLS * 3 / 4, "{before} of {CALLS} listings came first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_searches_long_files_does_not_delay_another() {
    let metrics = format!("127.0.0.1:{}", free_port());
    let server = Server::start_with(&["--metrics", &metrics]);
    let mut file = File::create(server.log_file("long.log")).unwrap();
    let line = format!("{}\n", "x".repeat(99));
    for _ in 0..50 {
        file.write_all(line.repeat(1_000).as_bytes()).unwrap();
    }
    append(&server.log_file("short.log"), "1\n2\n");
    let (long, mut short) = (server.lines().await, server.lines().await);
    let request = |path: &str, last| ReadLinesRequest {
        path: path.into(),
        start: Some(Start::Last(last)),
        limit: Some(1),
        ..Default::default()
    };
    let search = move || {
        let mut client = long.clone();
        async move {
            let mut lines =
                client.read_lines(request("logs/long.log", 1_000_000_000)).await.unwrap().into_inner();
            while lines.message().await.unwrap().is_some() {}
        }
    };
    let other = async {
        let mut lines = short.read_lines(request("logs/short.log", 1)).await.unwrap().into_inner();
        while lines.message().await.unwrap().is_some() {}
    };
    let begun = async |_| {
        let open = |line: &&str| line.starts_with("perennial_streams_open{method=\"ReadLines\"}");
        let text = scrape(&metrics).await;
        text.lines().find(open).is_some_and(|line| line.ends_with(&format!(" {CALLS}")))
    };
    let before = done_before(&server, search, begun, other).await;
    assert!(before < CALLS * 3 / 4, "{before} of {CALLS} searches came first");
}
