//! Other clients of NATS on the same stream.

use async_nats::HeaderMap;

use super::*;

#[tokio::test]
#[ignore = "needs nats-server"]
async fn what_another_client_of_nats_publishes_is_read_as_a_message() {
    let bed = Bed::make(|_| ()).await;
    let client = bed.server.client().await;
    let mut headers = HeaderMap::new();
    headers.insert("Colour", "red");
    headers.insert("Nats-Msg-Id", "theirs");
    let sent = client.publish_with_headers("test.a.b", headers, "native".into()).await.unwrap();
    sent.await.unwrap();
    client.publish("test.no/topic", "skipped".into()).await.unwrap().await.unwrap();
    client.publish("test.a.c", b"\xff"[..].into()).await.unwrap().await.unwrap();
    let mut batches = subscribe(&bed.log, query(&[">"], Start::Earliest)).await.unwrap();
    let mut messages = Vec::new();
    while let Some(batch) = next(&mut batches).await {
        messages.extend(decode(&batch));
    }
    let [first, second] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!((first.topic.as_str(), text_of(first)), ("a.b", "native".into()));
    assert_eq!(first.headers.get("Colour").map(String::as_str), Some("red"));
    assert_eq!((first.headers.len(), first.message_id.as_deref()), (1, Some("theirs")));
    assert_eq!(second.content, Some(Payload::Data(vec![0xff])));
}

#[tokio::test]
#[ignore = "needs nats-server"]
async fn another_client_of_nats_reads_the_content_and_plain_headers() {
    let bed = Bed::make(|_| ()).await;
    let headers = [("Nats-Rollup", "all"), ("colour", "red"), ("größe", "7"), ("line", "a\r\nb")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let message = NewMessage { headers: headers.clone().into(), ..text("a", "content") };
    let published = bed.log.publish(message).await.unwrap();
    let stream = bed.server.client().await.get_stream("test").await.unwrap();
    let native = stream.get_raw_message(published.sequence.get()).await.unwrap();
    assert_eq!((native.subject.as_str(), &native.payload[..]), ("test.a", &b"content"[..]));
    assert_eq!(native.headers.get("colour").unwrap().as_str(), "red");
    assert!(native.headers.get("Nats-Rollup").is_none(), "a header of a user is no order to JetStream");
    let mut batches = subscribe(&bed.log, query(&["a"], Start::Earliest)).await.unwrap();
    let read = decode(&next(&mut batches).await.unwrap()).remove(0);
    assert_eq!(read.headers, headers.into_iter().collect());
}
