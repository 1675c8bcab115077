//! Cursors and tokens that no server has given.

use perennial::proto::{
    CountdownRequest, ListTopicsRequest, MessagesRequest, ReadLinesRequest, countdown_request::Target,
};
use tonic::{Code, Status};

use crate::{
    harness::{Server, append, soon},
    raw::reason,
};

/// Changes of a cursor: each letter is another one, a part is missing, and it is too long.
fn forged(cursor: &str) -> Vec<String> {
    let other = |index: usize| {
        let letter = if &cursor[index..=index] == "A" { "B" } else { "A" };
        format!("{}{letter}{}", &cursor[..index], &cursor[index + 1..])
    };
    let mut all = (0..cursor.len()).map(other).collect::<Vec<_>>();
    all.extend((1..cursor.len()).map(|length| cursor[..length].into()));
    all.extend([format!("{cursor}A"), cursor.repeat(2), "A".repeat(1_025), "\u{1f600}".into(), "\0".into()]);
    all
}

/// The cursor of the first response, and what becomes of all changes of it.
async fn all_are_refused<T>(
    of_first: impl AsyncFnOnce() -> String,
    with: impl AsyncFn(String) -> Result<T, Status>,
) {
    let cursor = soon("a cursor", of_first()).await;
    for forged in forged(&cursor) {
        match soon("an answer", with(forged.clone())).await {
            Ok(_) => panic!("{forged:?} was taken, and {cursor:?} was given"),
            Err(status) => {
                assert_eq!(reason(&status), (Code::InvalidArgument, "CURSOR_MALFORMED".into()), "{forged:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_cursor_that_was_changed_is_refused_by_every_stream() {
    let mut server = Server::start();
    append(&server.log_file("app.log"), "1\n");
    let lines = server.lines().await;
    let request = ReadLinesRequest { path: "logs/app.log".into(), ..Default::default() };
    let read = async |cursor| {
        let request = ReadLinesRequest { cursor, ..request.clone() };
        lines.clone().read_lines(request).await.map(tonic::Response::into_inner)
    };
    all_are_refused(
        async || read(None).await.unwrap().message().await.unwrap().unwrap().cursor,
        async |cursor| read(Some(cursor)).await,
    )
    .await;

    let messages = server.messages().await;
    let read = async |cursor| {
        let request = MessagesRequest { topics: vec![">".into()], cursor, ..Default::default() };
        messages.clone().messages(request).await.map(tonic::Response::into_inner)
    };
    all_are_refused(
        async || read(None).await.unwrap().message().await.unwrap().unwrap().cursor,
        async |cursor| read(Some(cursor)).await,
    )
    .await;

    let countdowns = server.countdown().await;
    let read = async |cursor| {
        let target = Some(Target::Start(1_000));
        let request = CountdownRequest { target, cursor, ..Default::default() };
        countdowns.clone().countdown(request).await.map(tonic::Response::into_inner)
    };
    all_are_refused(
        async || read(None).await.unwrap().message().await.unwrap().unwrap().cursor,
        async |cursor| read(Some(cursor)).await,
    )
    .await;

    for page_token in ["!", "====", "\0", "\u{ff}"] {
        let request = ListTopicsRequest { page_token: page_token.into(), ..Default::default() };
        let refused = messages.clone().list_topics(request).await.unwrap_err();
        assert_eq!(reason(&refused), (Code::InvalidArgument, "INVALID_FIELD".into()), "{page_token:?}");
    }
    drop((lines, messages, countdowns));
    server.terminate();
    assert!(server.wait().success());
    let log = server.rest_of_log();
    assert!(!log.iter().any(|line| line.contains("panicked")), "{log:?}");
}
