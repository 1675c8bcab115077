#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::{Mutex, PoisonError};

use futures::TryStreamExt;
use tonic::Code;

use super::*;
use crate::{client::resume::tests::serve, proto::Line};

/// Remembers each state, and fails from one of them on.
#[derive(Default)]
struct Noted {
    states: Mutex<Vec<String>>,
    fails_at: Option<usize>,
}

impl Noted {
    fn last(&self) -> Option<String> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).last().cloned()
    }
}

impl Store for Noted {
    fn load(&self) -> Result<Option<String>, StoreError> {
        Ok(self.last())
    }

    fn save(&self, state: &str) -> Result<(), StoreError> {
        let mut states = self.states.lock().unwrap();
        if self.fails_at == Some(states.len()) {
            return Err("the disk is full".into());
        }
        states.push(state.to_owned());
        Ok(())
    }
}

/// The numbers of the next lines.
async fn take(lines: &mut Lines, count: usize) -> Vec<i64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        numbers.push(lines.next().await.unwrap().unwrap().number());
    }
    numbers
}

#[tokio::test]
async fn each_item_comes_once_over_streams_that_are_cut() {
    let (client, _) = serve(40, Some(Code::Unavailable)).await;
    let lines = client.read_lines("a/b").try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(lines.iter().map(Line::number).collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stream_with_a_store_asks_for_its_first_item_alone_and_saves_each_before_the_next() {
    let (client, calls) = serve(9, None).await;
    let store = Arc::new(Noted::default());
    let mut lines = client.read_lines("a/b").store(store.clone());
    assert_eq!(take(&mut lines, 1).await, [0]);
    // It is not done, so nothing is saved; but it has a state, after a response of one line.
    assert_eq!(store.last(), None);
    assert_eq!(lines.state().unwrap(), r#"{"version":1,"kind":"lines","cursor":"1"}"#);
    assert_eq!(take(&mut lines, 1).await, [1]);
    assert_eq!(store.last().unwrap(), r#"{"version":1,"kind":"lines","cursor":"1"}"#);
    assert_eq!(calls.load(std::sync::atomic::Ordering::SeqCst), 2);
    drop(lines);
    // The item in hand comes again.
    let mut lines = client.read_lines("a/b").store(store.clone());
    assert_eq!(take(&mut lines, 8).await, (1..9).collect::<Vec<_>>());
    assert!(lines.next().await.is_none() && lines.next().await.is_none());
    assert_eq!(store.last().unwrap(), r#"{"version":1,"kind":"lines","cursor":"9"}"#);
}

#[tokio::test]
async fn a_dropped_or_closed_stream_saves_what_is_done() {
    for is_closed in [false, true] {
        let (client, _) = serve(9, None).await;
        let store = Arc::new(Noted::default());
        let mut lines = client.read_lines("a/b").store(store.clone()).save_every(Duration::from_secs(3600));
        assert_eq!(take(&mut lines, 6).await, (0..6).collect::<Vec<_>>());
        if is_closed {
            lines.close().await.unwrap();
        } else {
            drop(lines);
        }
        // The first response has one item, the next ones have three.
        assert!(
            store.last().unwrap().contains(r#""cursor":"4","after":{"switches":0"#),
            "{:?}",
            store.last()
        );
    }
}

/// Takes a while for each save.
struct Slow(Noted);

impl Store for Slow {
    fn load(&self) -> Result<Option<String>, StoreError> {
        self.0.load()
    }

    fn save(&self, state: &str) -> Result<(), StoreError> {
        std::thread::sleep(Duration::from_millis(50));
        self.0.save(state)
    }
}

#[tokio::test]
async fn a_stream_that_is_dropped_while_it_saves_has_saved_when_it_is_gone() {
    let (client, _) = serve(9, None).await;
    let store = Arc::new(Slow(Noted::default()));
    let mut lines = client.read_lines("a/b").store(store.clone());
    assert_eq!(take(&mut lines, 3).await, [0, 1, 2]);
    // The save begins, and no caller waits for its end.
    {
        let next = std::pin::pin!(lines.next());
        assert!(futures::poll!(next).is_pending());
    }
    drop(lines);
    assert!(
        store.0.last().unwrap().contains(r#""after":{"switches":0,"offset":"20"}"#),
        "{:?}",
        store.0.last()
    );
}

#[tokio::test]
async fn a_store_that_fails_ends_the_stream() {
    let (client, _) = serve(9, None).await;
    let store = Arc::new(Noted { fails_at: Some(2), ..Noted::default() });
    let mut lines = client.read_lines("a/b").store(store.clone());
    assert_eq!(take(&mut lines, 3).await, [0, 1, 2]);
    let error = lines.next().await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "the store cannot keep the state: the disk is full");
    assert!(lines.next().await.is_none());
}

#[tokio::test]
async fn a_file_has_one_stream_at_a_time_and_is_never_taken_for_empty() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.state");
    let (client, _) = serve(9, None).await;
    let mut lines = client.read_lines("a/b").store(FileStore::new(&path));
    assert_eq!(take(&mut lines, 3).await, [0, 1, 2]);
    let mut other = client.read_lines("a/b").store(FileStore::new(&path));
    let error = other.next().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    drop(lines);
    let mut lines = client.read_lines("a/b").store(FileStore::new(&path));
    assert_eq!(take(&mut lines, 1).await, [2]);
    drop(lines);
    std::fs::write(&path, "").unwrap();
    let mut lines = client.read_lines("a/b").store(FileStore::new(&path));
    let error = lines.next().await.unwrap().unwrap_err();
    assert!(matches!(error, Error::State { .. }), "{error}");
    assert!(error.to_string().contains("a.state is empty: restore it, or remove it"), "{error}");
}

#[tokio::test]
async fn a_deadline_holds_over_all_attempts() {
    let client = Client::new("127.0.0.1:1").unwrap();
    let mut lines = client.read_lines("a/b").timeout(Duration::from_millis(300));
    let error = lines.next().await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }) && error.code() == Code::DeadlineExceeded, "{error:?}");
}

#[tokio::test]
async fn options_that_do_not_fit_together_are_an_error_before_the_call() {
    let client = Client::new("127.0.0.1:1").unwrap();
    let mut messages = client.messages("a.>").consumer("c").store(MemoryStore::new());
    let error = messages.next().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("leave out the store"), "{error}");
    let error = client.messages("a.>").commit().await.unwrap_err();
    assert!(matches!(error, Error::Options { .. }), "{error}");
}
