//! Large end messages: they stay in the log, and are read when they are due and when a countdown is shown.

use super::*;

const SIZE: usize = 60_000;

fn large(spec: Spec) -> Spec {
    ending(spec, &"x".repeat(SIZE))
}

fn text_of(snapshot: &Snapshot) -> &str {
    let Some(OnEnd { content: Content::Text(text), .. }) = &snapshot.record.on_end else {
        panic!("{snapshot:?}")
    };
    text
}

impl Server {
    /// The size of the end message of a countdown that is in memory.
    fn bytes_in_memory(&self, name: &str) -> usize {
        let snapshot = self.countdowns.0.find(name).unwrap();
        snapshot.record.on_end.as_ref().map_or(0, OnEnd::bytes)
    }
}

#[tokio::test]
async fn a_large_end_message_is_not_kept_in_memory_and_is_shown_by_every_call() {
    let server = Server::new().await;
    let small = ending(seconds(60), "small");
    server.create("small", small).await;
    assert_eq!(server.bytes_in_memory("small"), "ends".len() + "small".len());
    let created = server.create("launch", Spec { request_id: Some("r".into()), ..large(seconds(60)) }).await;
    assert_eq!((server.bytes_in_memory("launch"), text_of(&created).len()), (0, SIZE));
    let again =
        server.countdowns.create("launch", Spec { request_id: Some("r".into()), ..seconds(60) }).await;
    assert_eq!(text_of(&again.unwrap().0).len(), SIZE);
    for changed in [
        server.countdowns.pause("launch", None).await.unwrap(),
        server.countdowns.pause("launch", None).await.unwrap(),
        server.countdowns.resume("launch", None).await.unwrap(),
        server.countdowns.extend("launch", None, SECOND).await.unwrap(),
    ] {
        assert_eq!((server.bytes_in_memory("launch"), text_of(&changed).len()), (0, SIZE));
    }
    let server = server.restart().await;
    assert_eq!(server.bytes_in_memory("launch"), 0);
    assert_eq!(text_of(&server.countdowns.get("launch").await.unwrap()).len(), SIZE);
    let page = server.countdowns.list(10, None).await.unwrap();
    assert_eq!(page.countdowns.iter().map(|one| text_of(one).len()).collect::<Vec<_>>(), [SIZE, 5]);
    let first = server.watch("launch").next().await.unwrap();
    assert_eq!(text_of(&first.progress.snapshot.unwrap()).len(), SIZE);
    let cancelled = server.countdowns.cancel("launch", None).await.unwrap();
    assert_eq!(text_of(&cancelled).len(), SIZE);
}

#[tokio::test]
async fn large_end_messages_are_published_when_they_are_due_also_after_changes_and_a_restart() {
    let server = Server::new().await;
    for n in 0..100 {
        server.create(&format!("n{n}"), large(seconds(60))).await;
    }
    server.countdowns.extend("n7", None, 3600 * SECOND).await.unwrap();
    let server = server.restart().await;
    server.clock.step(61 * SECOND);
    for n in (0..100).filter(|n| *n != 7) {
        server.has_ended(&format!("n{n}")).await;
    }
    let published = server.published("ends").await;
    assert_eq!(published.len(), 99);
    assert!(published.iter().all(|(text, headers)| text.len() == SIZE && headers["countdown"] != "n7"));
    assert_eq!(text_of(&server.countdowns.get("n3").await.unwrap()).len(), SIZE);
    server.clock.step(3600 * SECOND);
    server.has_ended("n7").await;
    assert_eq!(server.published("ends").await.len(), 100);
}

#[tokio::test]
async fn a_countdown_that_is_deleted_or_created_again_has_no_end_message_of_another_one() {
    let server = Server::new().await;
    server.create("launch", large(seconds(60))).await;
    let known = server.countdowns.0.find("launch").unwrap();
    server.countdowns.delete("launch", None).await.unwrap();
    let gone = server.countdowns.0.complete(known.clone()).await;
    assert!(matches!(gone, Err(Error::NotFound)), "{gone:?}");
    server.create("launch", ending(seconds(60), &"y".repeat(SIZE))).await;
    let gone = server.countdowns.0.complete(known).await;
    assert!(matches!(gone, Err(Error::NotFound)), "{gone:?}");
    assert!(text_of(&server.countdowns.get("launch").await.unwrap()).starts_with('y'));
}

#[tokio::test]
async fn a_damaged_end_message_is_an_error_and_not_another_payload() {
    let server = Server::new().await;
    server.create("launch", large(seconds(60))).await;
    let path = server.directory.path().join("00000000000000000001.log");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(100).position(|window| window == [b'x'; 100]).unwrap();
    bytes[at + 50] = b'z';
    std::fs::write(&path, bytes).unwrap();
    let shown = server.countdowns.get("launch").await;
    assert!(matches!(shown, Err(Error::Log(messages::Error::Io(_)))), "{shown:?}");
    server.clock.step(61 * SECOND);
    let changed = server.countdowns.extend("launch", None, SECOND).await;
    assert!(changed.is_err(), "{changed:?}");
    assert!(server.published("ends").await.is_empty());
}
