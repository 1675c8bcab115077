//! Batches, and what is refused.

use super::*;

fn with_id(topic: &str, id: &str, content: &str) -> NewMessage {
    NewMessage { message_id: Some(id.into()), ..text(topic, content) }
}

#[tokio::test]
#[ignore = "needs nats-server"]
async fn a_batch_is_published_as_neighbours_or_not_at_all() {
    let bed = Bed::make(|_| ()).await;
    let last = publish(&bed.log, "b", "0").await;
    let expecting =
        |topic: &str, sequence| NewMessage { expected: Expected::from_number(sequence), ..text(topic, "x") };
    let refused = vec![text("a", "1"), expecting("b", last + 7), text("c", "2")];
    let error = bed.log.publish_batch(refused).await.unwrap_err();
    assert_eq!(error.index, Some(1));
    assert!(
        matches!(error.error, Error::SequenceMismatch { current, .. } if number(current) == last),
        "{error}"
    );
    assert_eq!(texts(&bed.log, query(&[">"], Start::Earliest)).await, ["0"]);
    let batch = (0..1_000).map(|n| text(["a", "c"][n % 2], &n.to_string())).collect();
    let published = bed.log.publish_batch(batch).await.unwrap();
    assert!(published.windows(2).all(|pair| number(pair[1].sequence) == number(pair[0].sequence) + 1));
    let seen = texts(&bed.log, query(&["a", "c"], Start::Earliest)).await;
    assert_eq!(seen, (0..1_000).map(|n| n.to_string()).collect::<Vec<_>>());
    let right = bed.log.publish_batch(vec![expecting("b", last), text("b", "y")]).await.unwrap();
    assert_eq!(right.len(), 2);
}

#[tokio::test]
#[ignore = "needs nats-server"]
async fn messages_of_a_batch_whose_ids_are_known_are_acknowledged_and_the_rest_is_published() {
    let bed = Bed::make(|_| ()).await;
    let first = bed.log.publish(with_id("a", "1", "first")).await.unwrap();
    let batch = || vec![with_id("a", "1", "again"), with_id("b", "1", "second"), with_id("a", "2", "third")];
    let published = bed.log.publish_batch(batch()).await.unwrap();
    assert_eq!(published.iter().map(|one| one.duplicate).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!((published[0].sequence, published[0].time), (first.sequence, first.time));
    let again = bed.log.publish_batch(batch()).await.unwrap();
    assert!(again.iter().all(|one| one.duplicate));
    assert_eq!(
        again.iter().map(|one| one.sequence).collect::<Vec<_>>(),
        published.iter().map(|one| one.sequence).collect::<Vec<_>>()
    );
    assert_eq!(texts(&bed.log, query(&[">"], Start::Earliest)).await, ["first", "second", "third"]);
}

#[tokio::test]
#[ignore = "needs nats-server"]
async fn what_a_cluster_cannot_do_is_refused() {
    let bed = Bed::make(|_| ()).await;
    let log = &bed.log;
    publish(log, "a", "1").await;
    let of_batch = |batch: Vec<NewMessage>| async move { log.publish_batch(batch).await.unwrap_err().error };
    let second = NewMessage { expected: Expected::from_number(1), ..text("a", "x") };
    let wide = NewMessage { headers: vec![("h".into(), "v".repeat(65_000))], ..text("a", "x") };
    for (error, expected) in [
        (of_batch(vec![text("a", "x"); 1_001]).await, Unsupported::LargeBatch),
        (of_batch(vec![text("a", "x"), second]).await, Unsupported::ExpectedInBatch),
        (of_batch(vec![with_id("a", "1", "x"); 2]).await, Unsupported::RepeatedInBatch),
        (log.publish(wide).await.unwrap_err(), Unsupported::LargeHeaders),
        (log.purge_topic("a", None).await.unwrap_err(), Unsupported::Purge),
    ] {
        assert!(matches!(error, Error::Unsupported(what) if what == expected), "{error}");
    }
    assert_eq!(texts(log, query(&[">"], Start::Earliest)).await, ["1"]);
}
