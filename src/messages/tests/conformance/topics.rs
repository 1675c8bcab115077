//! Topics, patterns, the sequence, and lists.

use super::*;

pub async fn a_topic_is_tokens_joined_by_dots<K: Kind>() {
    let kind: K = make().await;
    let longest = "a".repeat(255);
    for topic in ["a", "A-z_0.9", "a.b.c.d.e", &longest] {
        publish(kind.log(), topic, "x").await;
    }
    for topic in ["", "a..b", ".a", "a.", "a b", "ä", "a.*", ">", "a/b", "$a", &"a".repeat(256)] {
        let result = kind.log().publish(text(topic, "x")).await;
        assert!(matches!(result, Err(Error::Topic(_))), "{topic:?}: {result:?}");
    }
    assert_eq!(texts(kind.log(), query(&[">"], Start::Earliest)).await.len(), 4);
}

pub async fn users_cannot_publish_to_topics_of_the_server<K: Kind>() {
    let kind: K = make().await;
    for topic in ["$a", "$consumer.a", "$"] {
        let refused = kind.log().publish(text(topic, "x")).await;
        assert!(matches!(refused, Err(Error::Topic(topic::Error::Reserved))), "{refused:?}");
        let refused = kind.log().publish_batch(vec![text("a", "x"), text(topic, "x")]).await.unwrap_err();
        assert!(matches!(
            refused,
            BatchError { index: Some(1), error: Error::Topic(topic::Error::Reserved) }
        ));
    }
    assert!(texts(kind.log(), query(&[">"], Start::Earliest)).await.is_empty());
}

pub async fn wildcards_do_not_match_topics_of_the_server<K: Kind>() {
    let kind: K = make().await;
    publish(kind.log(), "a.b", "1").await;
    let here = position(kind.log(), query(&[">"], Start::Earliest)).await;
    kind.log().commit_cursor("b", here, false).await.unwrap();
    publish(kind.log(), "a.b", "2").await;
    for topics in [&[">"][..], &["*.*"], &["*.b"], &["*", "*.>", ">"]] {
        assert_eq!(texts(kind.log(), query(topics, Start::Earliest)).await, ["1", "2"], "{topics:?}");
        assert_eq!(texts(kind.log(), query(topics, Start::LastPerTopic)).await, ["2"], "{topics:?}");
        assert_eq!(texts(kind.log(), query(topics, Start::Last(2))).await, ["1", "2"], "{topics:?}");
    }
}

pub async fn a_pattern_subscription_gets_each_message_once<K: Kind>() {
    let kind: K = make().await;
    let all = [("a.b", "1"), ("a", "2"), ("a.c.d", "3"), ("b.b", "4"), ("a.b", "5")];
    publish_all(kind.log(), &all).await;
    for (topics, expected) in [
        (&["a.*", "a.b", "*.b", "a.>"][..], &["1", "3", "4", "5"][..]),
        (&["a.*"], &["1", "5"]),
        (&["*"], &["2"]),
        (&["a.>"], &["1", "3", "5"]),
        (&["*.b"], &["1", "4", "5"]),
        (&["a", "a", "a"], &["2"]),
        (&["a.*.d"], &["3"]),
        (&["c"], &[]),
    ] {
        assert_eq!(texts(kind.log(), query(topics, Start::Earliest)).await, expected, "{topics:?}");
    }
}

pub async fn one_sequence_numbers_all_topics_and_is_never_reused<K: Kind>() {
    let mut kind: K = make_with(&["a=age:1ms"]).await;
    let mut last = 0;
    for round in 0..4 {
        for topic in ["a", "b", "a", "c"] {
            let sequence = publish(kind.log(), topic, "x").await;
            assert!(sequence > last && (last > 0 || sequence == 1), "{sequence} after {last}");
            last = sequence;
        }
        kind.pass(Duration::from_secs(1));
        kind.keep().await;
        if round > 0 {
            for topic in ["b", "c"] {
                kind.log().purge_topic(topic, None).await.unwrap();
            }
        }
        kind.reopen().await;
    }
}

pub async fn topics_are_listed_with_what_they_hold<K: Kind>() {
    let mut kind: K = make().await;
    let first = kind.log().publish(text("a", "1")).await.unwrap();
    publish(kind.log(), "b", "2").await;
    kind.pass(Duration::from_secs(1));
    let last = kind.log().publish(text("a", "3")).await.unwrap();
    for _ in 0..2 {
        let topics = kind.log().list_topics(Some("a"), 10, None).await.unwrap().topics;
        let [TopicInfo { name, messages, bytes, first: oldest, last: newest }] = &topics[..] else {
            panic!("{topics:?}")
        };
        assert_eq!((name.as_str(), *messages), ("a", 2));
        assert_eq!((oldest.sequence, oldest.time), (first.sequence, first.time));
        assert_eq!((newest.sequence, newest.time), (last.sequence, last.time));
        assert!(bytes.is_none_or(|bytes| (2..200).contains(&bytes)), "{bytes:?}");
        kind.reopen().await;
    }
    assert!(matches!(kind.log().list_topics(Some("a.."), 10, None).await, Err(Error::Pattern { .. })));
    assert!(kind.log().list_topics(Some("c"), 10, None).await.unwrap().topics.is_empty());
}

pub async fn topics_are_listed_page_by_page<K: Kind>() {
    let kind: K = make().await;
    let mut names = (0..25).map(|n| format!("t.{n}")).collect::<Vec<_>>();
    for name in names.iter().rev().chain(["a".to_owned(), "z".to_owned()].iter()) {
        publish(kind.log(), name, "x").await;
    }
    names.sort();
    for page_size in [1, 7, 25, 26] {
        let (mut seen, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = kind.log().list_topics(Some("t.*"), page_size, after.as_deref()).await.unwrap();
            assert!(page.topics.len() <= page_size && !page.topics.is_empty());
            seen.extend(page.topics.into_iter().map(|topic| topic.name));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, names, "{page_size} a page");
    }
}

pub async fn topics_of_the_server_are_listed_only_by_name<K: Kind>() {
    let kind: K = make().await;
    publish(kind.log(), "a", "1").await;
    let here = position(kind.log(), query(&[">"], Start::Earliest)).await;
    kind.log().commit_cursor("b", here, false).await.unwrap();
    for pattern in [None, Some(">"), Some("*")] {
        let topics = kind.log().list_topics(pattern, 10, None).await.unwrap().topics;
        assert_eq!(topics.iter().map(|topic| &topic.name).collect::<Vec<_>>(), ["a"], "{pattern:?}");
    }
}

pub async fn a_topic_more_than_the_limit_is_refused<K: Kind>() {
    let kind = K::make(|config| config.max_topics = 3).await;
    publish_all(kind.log(), &[("a", "1"), ("b", "2")]).await;
    let refused = kind.log().publish_batch(vec![text("c", "3"), text("d", "4")]).await.unwrap_err();
    assert!(matches!(refused, BatchError { index: Some(1), error: Error::TooManyTopics { limit: 3 } }));
    publish_all(kind.log(), &[("c", "5"), ("a", "6")]).await;
    let refused = kind.log().publish(text("d", "7")).await;
    assert!(matches!(refused, Err(Error::TooManyTopics { limit: 3 })));
    kind.log().purge_topic("b", None).await.unwrap();
    publish(kind.log(), "d", "8").await;
}
