//! Purging.

use super::*;

pub async fn all_of_a_topic_is_purged_and_counted<K: Kind>() {
    let kind: K = make().await;
    publish_all(kind.log(), &[("a", "1"), ("b", "2"), ("a", "3"), ("a", "4")]).await;
    assert_eq!(kind.log().purge_topic("a", None).await.unwrap(), 3);
    assert_eq!(texts(kind.log(), query(&[">"], Start::Earliest)).await, ["2"]);
    assert_eq!(texts(kind.log(), query(&["a"], Start::Last(5))).await.len(), 0);
    assert_eq!(texts(kind.log(), query(&[">"], Start::LastPerTopic)).await, ["2"]);
    let topics = kind.log().list_topics(None, 10, None).await.unwrap().topics;
    assert_eq!(topics.iter().map(|topic| &topic.name).collect::<Vec<_>>(), ["b"]);
    publish(kind.log(), "a", "5").await;
    assert_eq!(texts(kind.log(), query(&["a"], Start::Earliest)).await, ["5"]);
    let topics = kind.log().list_topics(Some("a"), 10, None).await.unwrap().topics;
    assert_eq!(
        (topics[0].messages, number(topics[0].first.sequence), number(topics[0].last.sequence)),
        (1, 5, 5)
    );
}

pub async fn a_topic_is_purged_up_to_a_sequence<K: Kind>() {
    let kind: K = make().await;
    publish_all(kind.log(), &[("a", "1"), ("b", "2"), ("a", "3"), ("a", "4"), ("a", "5")]).await;
    for (until, count, left) in
        [(2, 1, &["3", "4", "5"][..]), (2, 0, &["3", "4", "5"]), (4, 2, &["5"]), (4, 0, &["5"])]
    {
        assert_eq!(kind.log().purge_topic("a", Some(sequence(until))).await.unwrap(), count, "up to {until}");
        assert_eq!(texts(kind.log(), query(&["a"], Start::Earliest)).await, left);
        let topic = kind.log().list_topics(Some("a"), 1, None).await.unwrap().topics.remove(0);
        assert_eq!(topic.messages, left.len() as u64);
    }
    assert_eq!(kind.log().purge_topic("a", Some(sequence(1000))).await.unwrap(), 1);
    publish(kind.log(), "a", "6").await;
    assert_eq!(texts(kind.log(), query(&["a"], Start::Earliest)).await, ["6"], "what comes later stays");
}

pub async fn a_topic_that_never_had_a_message_cannot_be_purged<K: Kind>() {
    let mut kind: K = make().await;
    publish(kind.log(), "a", "1").await;
    kind.log().purge_topic("a", None).await.unwrap();
    for _ in 0..2 {
        for up_to in [None, Some(sequence(1)), Some(sequence(9))] {
            let none = kind.log().purge_topic("a", up_to).await;
            assert_eq!(none.unwrap(), 0, "its messages are removed, up to {up_to:?}");
            let refused = kind.log().purge_topic("b", up_to).await;
            assert!(matches!(refused, Err(Error::NoTopic)), "up to {up_to:?}: {refused:?}");
        }
        kind.reopen().await;
    }
}

pub async fn only_a_topic_of_users_is_purged<K: Kind>() {
    let kind: K = make().await;
    publish(kind.log(), "a", "1").await;
    let here = position(kind.log(), query(&[">"], Start::Earliest)).await;
    kind.log().commit_cursor("b", here, false).await.unwrap();
    for topic in ["*", ">", "$consumer.b", ""] {
        assert!(matches!(kind.log().purge_topic(topic, None).await, Err(Error::Topic(_))), "{topic}");
    }
    assert_eq!(kind.log().list_consumers(9, None).await.unwrap().consumers.len(), 1);
}

pub async fn ids_of_purged_messages_can_be_published_again<K: Kind>() {
    let mut kind: K = make().await;
    let with_id = |id: &str| NewMessage { message_id: Some(id.into()), ..text("a", id) };
    let first = kind.log().publish(with_id("1")).await.unwrap();
    kind.log().publish(with_id("2")).await.unwrap();
    kind.log().purge_topic("a", Some(first.sequence)).await.unwrap();
    kind.reopen().await;
    assert!(kind.log().publish(with_id("2")).await.unwrap().duplicate);
    let again = kind.log().publish(with_id("1")).await.unwrap();
    assert!(!again.duplicate);
    assert_eq!(kind.log().publish(with_id("1")).await.unwrap(), Published { duplicate: true, ..again });
    kind.log().purge_topic("a", None).await.unwrap();
    for id in ["1", "2"] {
        assert!(!kind.log().publish(with_id(id)).await.unwrap().duplicate, "{id}");
    }
    kind.reopen().await;
    for id in ["1", "2"] {
        assert!(kind.log().publish(with_id(id)).await.unwrap().duplicate, "{id}");
    }
    assert_eq!(texts(kind.log(), query(&["a"], Start::Earliest)).await, ["1", "2"]);
}

pub async fn a_purged_message_is_a_gap_for_a_reader_that_had_not_read_it<K: Kind>() {
    let mut kind: K = make().await;
    publish_all(kind.log(), &[("a", "1"), ("a", "2"), ("b", "3"), ("a", "4")]).await;
    let begun = position(kind.log(), with_limit(query(&[">"], Start::Earliest), 1)).await;
    let done = position(kind.log(), query(&[">"], Start::Earliest)).await;
    kind.log().purge_topic("a", Some(sequence(2))).await.unwrap();
    for _ in 0..2 {
        let resumed = query(&[">"], Start::Resume(begun.clone()));
        let (messages, events) = read(kind.log(), resumed.clone()).await;
        assert_eq!(events, [removed(2, 2)]);
        assert_eq!(messages, [(3, "3".into()), (4, "4".into())]);
        let failing = Query { on_gap: OnGap::Fail, ..resumed };
        assert!(matches!(
            error(kind.log(), failing).await,
            Error::Removed { oldest, newest, removed_up_to } if number(oldest) == 3 && number(newest) == 4 && number(removed_up_to) == 2
        ));
        assert!(texts(kind.log(), query(&[">"], Start::Resume(done.clone()))).await.is_empty());
        let other = query(&["b"], Start::Resume(begun.clone()));
        assert_eq!(texts(kind.log(), other).await, ["3"], "no message of b is gone");
        kind.reopen().await;
    }
}

pub async fn a_purged_message_stays_purged_after_a_restart<K: Kind>() {
    let mut kind: K = make_with(&["c=last"]).await;
    for n in 0..30 {
        publish_all(kind.log(), &[("a", &n.to_string()), ("b", &"x".repeat(600)), ("c", "1")]).await;
    }
    kind.log().purge_topic("b", None).await.unwrap();
    kind.log().purge_topic("c", None).await.unwrap();
    kind.log().purge_topic("a", Some(sequence(70))).await.unwrap();
    for round in 0..3 {
        let seen = texts(kind.log(), query(&[">"], Start::Earliest)).await;
        assert_eq!(seen, (24..30).map(|n| n.to_string()).collect::<Vec<_>>(), "round {round}");
        let topics = kind.log().list_topics(None, 10, None).await.unwrap().topics;
        assert_eq!((topics.len(), topics[0].messages), (1, 6));
        if round == 1 {
            kind.keep().await;
        }
        kind.reopen().await;
    }
    publish(kind.log(), "c", "2").await;
    kind.reopen().await;
    assert_eq!(texts(kind.log(), query(&["c"], Start::Earliest)).await, ["2"]);
}
