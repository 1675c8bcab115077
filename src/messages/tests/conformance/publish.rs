//! Publishing: its checks, the promise of an acknowledgement, and when a publish is safe to repeat.

use super::*;

fn with_id(topic: &str, id: &str, content: &str) -> NewMessage {
    NewMessage { message_id: Some(id.into()), ..text(topic, content) }
}

fn expecting(topic: &str, sequence: u64) -> NewMessage {
    NewMessage { expected: Expected::from_number(sequence), ..text(topic, "x") }
}

pub async fn a_message_is_read_as_it_was_published<K: Kind>() {
    let mut kind: K = make().await;
    let data = Content::Data(Bytes::from_static(b"\0\xff bytes"));
    let full = NewMessage {
        topic: "a.b".into(),
        content: data,
        key: Some("key".into()),
        headers: vec![("empty".into(), String::new()), ("name".into(), "välue".into())],
        message_id: Some("id-1".into()),
        expected: Expected::from_number(0),
        ttl: Some(Duration::from_secs(60)),
    };
    let published = kind.log().publish(full.clone()).await.unwrap();
    publish(kind.log(), "a.b", "").await;
    for _ in 0..2 {
        let mut batches = subscribe(kind.log(), query(&["a.*"], Start::Earliest)).await.unwrap();
        let messages = decode(&next(&mut batches).await.unwrap());
        let seconds = |time: &prost_types::Timestamp| SystemTime::try_from(*time).unwrap();
        let message = &messages[0];
        assert_eq!(message.sequence, Some(published.sequence.get().cast_signed()));
        assert_eq!((message.topic.as_str(), message.key.as_deref()), ("a.b", Some("key")));
        assert_eq!(seconds(message.publish_time.as_ref().unwrap()), published.time);
        assert_eq!(message.content, Some(Payload::Data(b"\0\xff bytes".to_vec())));
        assert_eq!(message.message_id.as_deref(), Some("id-1"));
        let headers = message.headers.clone().into_iter().collect::<std::collections::BTreeMap<_, _>>();
        assert_eq!(headers.into_iter().collect::<Vec<_>>(), full.headers);
        let expires = seconds(message.expire_time.as_ref().unwrap());
        let ttl = expires.duration_since(published.time).unwrap();
        assert!((full.ttl.unwrap()..=Duration::from_millis(60_001)).contains(&ttl), "{ttl:?}");
        assert_eq!(messages[1].content, Some(Payload::Text(String::new())), "an empty text is a text");
        assert_eq!((&messages[1].key, &messages[1].expire_time), (&None, &None));
        kind.reopen().await;
    }
}

pub async fn an_acknowledged_message_is_there_after_a_restart<K: Kind>() {
    let mut kind: K = make().await;
    let mut expected = Vec::new();
    for round in 0..3 {
        for n in 0..50 {
            let content = format!("{round}.{n}.{}", "x".repeat(n * 20));
            publish(kind.log(), "a", &content).await;
            expected.push(content);
        }
        kind.reopen().await;
        assert_eq!(texts(kind.log(), query(&["a"], Start::Earliest)).await, expected);
    }
}

pub async fn each_limit_of_a_message_is_an_error_with_its_numbers<K: Kind>() {
    let kind = K::make(|config| config.max_message_bytes = 1000).await;
    let refuse = async |message: NewMessage| kind.log().publish(message).await.unwrap_err();
    let fitting = NewMessage {
        key: Some("k".repeat(100)),
        headers: vec![("n".repeat(50), "v".repeat(50))],
        ..text("a", &"x".repeat(800))
    };
    kind.log().publish(fitting.clone()).await.unwrap();
    let large = NewMessage { content: Content::Text("x".repeat(801)), ..fitting };
    assert!(matches!(refuse(large).await, Error::TooLarge { bytes: 1001, limit: 1000 }));
    let id = |bytes: usize| with_id("a", &"i".repeat(bytes), "x");
    kind.log().publish(id(128)).await.unwrap();
    assert!(matches!(refuse(id(129)).await, Error::MessageIdLength { bytes: 129 }));
    assert!(matches!(refuse(id(0)).await, Error::MessageIdLength { bytes: 0 }));
    let headers = |count: usize| NewMessage {
        headers: (0..count).map(|n| (format!("{n:02}"), String::new())).collect(),
        ..text("a", "x")
    };
    kind.log().publish(headers(64)).await.unwrap();
    assert!(matches!(refuse(headers(65)).await, Error::TooManyHeaders { count: 65 }));
    let nameless = NewMessage { headers: vec![(String::new(), "v".into())], ..text("a", "x") };
    assert!(matches!(refuse(nameless).await, Error::HeaderNameEmpty));
    let key = NewMessage { key: Some("k".repeat(1025)), ..text("a", "x") };
    assert!(matches!(refuse(key).await, Error::KeyTooLong { bytes: 1025 }));
}

pub async fn a_ttl_is_from_a_millisecond_to_ten_years<K: Kind>() {
    let kind: K = make().await;
    let with = |ttl: Duration| NewMessage { ttl: Some(ttl), ..text("a", "x") };
    for ttl in [*TTLS.start(), *TTLS.end()] {
        kind.log().publish(with(ttl)).await.unwrap();
    }
    for ttl in [Duration::ZERO, Duration::from_micros(999), *TTLS.end() + Duration::from_nanos(1)] {
        let refused = kind.log().publish(with(ttl)).await.unwrap_err();
        assert!(matches!(refused, Error::Ttl { ttl: refused } if refused == ttl), "{refused}");
    }
}

pub async fn an_id_is_scoped_to_its_topic_and_known_for_the_window<K: Kind>() {
    let mut kind = K::make(|config| config.dedupe_window = Duration::from_secs(10)).await;
    let first = kind.log().publish(with_id("a", "id", "1")).await.unwrap();
    assert!(!kind.log().publish(with_id("b", "id", "2")).await.unwrap().duplicate);
    kind.pass(Duration::from_secs(10));
    for _ in 0..2 {
        let again = kind.log().publish(with_id("a", "id", "3")).await.unwrap();
        assert_eq!(again, Published { duplicate: true, ..first });
        kind.keep().await;
        kind.reopen().await;
    }
    kind.pass(Duration::from_secs(1));
    let later = kind.log().publish(with_id("a", "id", "4")).await.unwrap();
    assert!(!later.duplicate && later.sequence > first.sequence);
    let again = kind.log().publish(with_id("a", "id", "5")).await.unwrap();
    assert_eq!(again, Published { duplicate: true, ..later });
    assert_eq!(texts(kind.log(), query(&[">"], Start::Earliest)).await, ["1", "2", "4"]);
}

pub async fn an_id_is_checked_before_the_expected_sequence<K: Kind>() {
    let kind: K = make().await;
    let message = NewMessage { expected: Expected::from_number(0), ..with_id("a", "id", "1") };
    let first = kind.log().publish(message.clone()).await.unwrap();
    let second = publish(kind.log(), "a", "2").await;
    assert_eq!(kind.log().publish(message.clone()).await.unwrap(), Published { duplicate: true, ..first });
    let other = NewMessage { message_id: Some("other".into()), ..message };
    let refused = kind.log().publish(other.clone()).await;
    assert!(
        matches!(refused, Err(Error::SequenceMismatch { expected, current }) if number(expected) == 0 && number(current) == second)
    );
    let right = NewMessage { expected: Expected::from_number(second), ..other };
    assert!(!kind.log().publish(right).await.unwrap().duplicate, "what was refused is not known");
}

pub async fn the_ids_of_a_topic_are_limited_also_after_a_restart<K: Kind>() {
    let mut kind = K::make(|config| config.max_dedupe_ids = 3).await;
    for n in 0..6 {
        kind.log().publish(with_id("a", &n.to_string(), "x")).await.unwrap();
        kind.log().publish(with_id("b", &n.to_string(), "x")).await.unwrap();
        if n == 4 {
            kind.reopen().await;
        }
    }
    for n in (3..6).rev() {
        assert!(kind.log().publish(with_id("a", &n.to_string(), "x")).await.unwrap().duplicate, "{n}");
    }
    kind.reopen().await;
    assert!(!kind.log().publish(with_id("b", "2", "x")).await.unwrap().duplicate);
    assert!(kind.log().publish(with_id("b", "4", "x")).await.unwrap().duplicate);
    assert!(!kind.log().publish(with_id("b", "3", "x")).await.unwrap().duplicate);
}

pub async fn an_expected_sequence_is_that_of_the_topics_last_message<K: Kind>() {
    let mut kind: K = make().await;
    let publish =
        async |kind: &K, topic: &str, sequence| kind.log().publish(expecting(topic, sequence)).await;
    assert_eq!(publish(&kind, "a", 0).await.unwrap().sequence, 1);
    assert_eq!(publish(&kind, "b", 0).await.unwrap().sequence, 2);
    for wrong in [0, 2, 3] {
        let refused = publish(&kind, "a", wrong).await;
        assert!(
            matches!(refused, Err(Error::SequenceMismatch { expected, current }) if number(current) == 1 && number(expected) == wrong)
        );
    }
    kind.reopen().await;
    let last = publish(&kind, "a", 1).await.unwrap().sequence;
    kind.log().purge_topic("a", None).await.unwrap();
    let refused = publish(&kind, "a", number(last)).await;
    assert!(
        matches!(refused, Err(Error::SequenceMismatch { current, .. }) if number(current) == 0),
        "a purged topic has none"
    );
    publish(&kind, "a", 0).await.unwrap();
}

pub async fn an_expected_sequence_ignores_expired_messages<K: Kind>() {
    let mut kind: K = make().await;
    let first = publish(kind.log(), "a", "1").await;
    kind.log().publish(with_ttl("a", "2", 100)).await.unwrap();
    kind.log().publish(with_ttl("b", "3", 100)).await.unwrap();
    kind.pass(Duration::from_millis(200));
    for _ in 0..2 {
        for topic in ["a", "b"] {
            let current = if topic == "a" { first } else { 0 };
            let refused = kind.log().publish(expecting(topic, 77)).await;
            let Err(Error::SequenceMismatch { current: found, .. }) = refused else { panic!("{refused:?}") };
            assert_eq!(number(found), current, "{topic}");
        }
        kind.reopen().await;
    }
    kind.log().publish(expecting("a", first)).await.unwrap();
    kind.log().publish(expecting("b", 0)).await.unwrap();
}

pub async fn a_batch_is_published_as_neighbours<K: Kind>() {
    let kind: K = make().await;
    let many = (0..5000).map(|n| text(["a", "b"][n % 2], &n.to_string())).collect();
    let other = tokio::spawn({
        let log = kind.log().clone();
        async move {
            for n in 0..50 {
                publish(&log, "c", &n.to_string()).await;
            }
        }
    });
    let published = kind.log().publish_batch(many).await.unwrap();
    assert!(published.windows(2).all(|pair| number(pair[1].sequence) == number(pair[0].sequence) + 1));
    assert!(published.iter().all(|one| !one.duplicate && one.time == published[0].time));
    other.await.unwrap();
    let seen = texts(kind.log(), query(&["a", "b"], Start::Earliest)).await;
    assert_eq!(seen, (0..5000).map(|n| n.to_string()).collect::<Vec<_>>());
}

pub async fn a_batch_is_refused_as_a_whole<K: Kind>() {
    let mut kind = K::make(|config| (config.max_topics, config.max_message_bytes) = (2, 100)).await;
    publish(kind.log(), "a", "1").await;
    let good = || vec![text("a", "2"), with_id("a", "id", "3"), expecting("a", 3)];
    for (bad, index) in [
        (vec![text("b", "x"), text("c", "x")], 4),
        (vec![text("a", &"x".repeat(101))], 3),
        (vec![text("a.*", "x")], 3),
        (vec![expecting("a", 3)], 3),
        (vec![expecting("b", 1)], 3),
    ] {
        let batch = good().into_iter().chain(bad).collect();
        let refused = kind.log().publish_batch(batch).await.unwrap_err();
        assert_eq!(refused.index, Some(index), "{refused}");
    }
    assert_eq!(texts(kind.log(), query(&[">"], Start::Earliest)).await, ["1"]);
    let topics = kind.log().list_topics(None, 10, None).await.unwrap().topics;
    assert_eq!((topics.len(), topics[0].messages), (1, 1));
    let published = kind.log().publish_batch(good()).await.unwrap();
    assert_eq!(published.iter().map(|one| one.sequence).collect::<Vec<_>>(), [2, 3, 4], "no gap is left");
    kind.reopen().await;
    assert_eq!(texts(kind.log(), query(&[">"], Start::Earliest)).await, ["1", "2", "3", "x"]);
}

pub async fn an_id_that_was_refused_with_its_batch_is_not_known<K: Kind>() {
    let kind: K = make().await;
    let refused = vec![with_id("a", "1", "x"), with_id("b", "1", "x"), expecting("a", 9)];
    assert_eq!(kind.log().publish_batch(refused).await.unwrap_err().index, Some(2));
    let twice = vec![with_id("a", "1", "first"), with_id("a", "1", "second"), with_id("b", "1", "third")];
    let published = kind.log().publish_batch(twice).await.unwrap();
    assert_eq!(published.iter().map(|one| one.duplicate).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(published[0].sequence, published[1].sequence);
    assert_eq!(texts(kind.log(), query(&[">"], Start::Earliest)).await, ["first", "third"]);
}

pub async fn a_flow_is_answered_message_by_message<K: Kind>() {
    let kind: K = make().await;
    let flow = vec![
        with_id("a", "1", "1"),
        text("a b", "bad"),
        with_id("a", "1", "again"),
        expecting("a", 1),
        expecting("a", 1),
        with_ttl("a", "x", 0),
        text("b", "2"),
    ];
    let results = kind.log().publish_each(flow).await.await;
    let duplicates =
        results.iter().map(|one| one.as_ref().ok().map(|one| (number(one.sequence), one.duplicate)));
    let duplicates = duplicates.collect::<Vec<_>>();
    let first = Some((1, false));
    assert_eq!(duplicates, [first, None, Some((1, true)), Some((2, false)), None, None, Some((3, false))]);
    assert!(
        matches!(results[4], Err(Error::SequenceMismatch { expected, current }) if number(expected) == 1 && number(current) == 2)
    );
}
