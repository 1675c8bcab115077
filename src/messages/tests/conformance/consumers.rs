//! Consumers: a position by a name.

use super::*;

fn reading(consumer: &str, query: Query) -> Query {
    Query { consumer: Some(consumer.into()), ..query }
}

async fn places<K: Kind>(kind: &K) -> Vec<Position> {
    publish_all(kind.log(), &[("a", "1"), ("a", "2"), ("a", "3"), ("a", "4")]).await;
    let mut places = Vec::new();
    let mut stream = subscribe(kind.log(), one_by_one(query(&["a"], Start::Earliest))).await.unwrap();
    while let Some(batch) = next(&mut stream).await {
        places.push(batch.position);
    }
    places
}

pub async fn a_consumer_continues_where_it_has_committed<K: Kind>() {
    let mut kind: K = make().await;
    let places = places(&kind).await;
    let asked = |start| reading("c", query(&["a"], start));
    assert_eq!(texts(kind.log(), asked(Start::Last(1))).await, ["4"], "without a commit, at the start");
    kind.log().commit_cursor("c", places[1].clone(), false).await.unwrap();
    for _ in 0..2 {
        for start in [Start::Earliest, Start::New, Start::LastPerTopic, from_sequence(1)] {
            assert_eq!(texts(kind.log(), asked(start)).await, ["3", "4"]);
        }
        let other = reading("d", query(&["a"], Start::Earliest));
        assert_eq!(texts(kind.log(), other).await.len(), 4);
        kind.reopen().await;
    }
}

pub async fn a_position_wins_over_the_commit<K: Kind>() {
    let kind: K = make().await;
    let places = places(&kind).await;
    kind.log().commit_cursor("c", places[0].clone(), false).await.unwrap();
    let asked = reading("c", query(&["a"], Start::Resume(places[2].clone())));
    assert_eq!(texts(kind.log(), asked).await, ["4"]);
}

pub async fn a_commit_behind_is_refused_unless_it_rewinds<K: Kind>() {
    let mut kind: K = make().await;
    let places = places(&kind).await;
    let commit = async |kind: &K, place: usize, may_rewind| {
        kind.log().commit_cursor("c", places[place].clone(), may_rewind).await
    };
    commit(&kind, 2, false).await.unwrap();
    commit(&kind, 2, false).await.expect("the same position is not a rewind");
    for _ in 0..2 {
        let refused = commit(&kind, 1, false).await;
        assert!(
            matches!(refused, Err(Error::CommitBehind { sequence, committed }) if sequence == places[1].sequence() && Some(committed) == places[2].sequence()),
            "{refused:?}"
        );
        kind.reopen().await;
    }
    commit(&kind, 1, true).await.unwrap();
    assert_eq!(texts(kind.log(), reading("c", query(&["a"], Start::New))).await, ["3", "4"]);
    kind.pass(Duration::from_secs(1));
    let time = commit(&kind, 3, false).await.unwrap();
    let consumers = kind.log().list_consumers(9, None).await.unwrap().consumers;
    assert_eq!((consumers[0].time, consumers[0].position.as_ref().unwrap()), (time, &places[3]));
}

pub async fn a_commit_is_checked_as_a_position_is<K: Kind>() {
    let (kind, other): (K, K) = (make().await, make().await);
    let here = places(&kind).await.remove(3);
    let there = places(&other).await.remove(3);
    let refused = kind.log().commit_cursor("c", there, true).await;
    assert!(matches!(refused, Err(Error::OtherLog)), "{refused:?}");
    let ahead = Position { delivered_up_to: 5, ..here };
    let refused = kind.log().commit_cursor("c", ahead, true).await;
    assert!(matches!(refused, Err(Error::Ahead { newest }) if number(newest) == 4), "{refused:?}");
    assert!(kind.log().list_consumers(9, None).await.unwrap().consumers.is_empty());
}

pub async fn a_waiting_subscription_ends_when_another_takes_its_consumer<K: Kind>() {
    let kind: K = make().await;
    let asked = reading("c", live(&["a"], Start::New));
    let mut first = subscribe(kind.log(), asked.clone()).await.unwrap();
    next(&mut first).await.unwrap();
    let waiting = tokio::spawn(async move { first.next().await.unwrap() });
    let other = reading("other", live(&["a"], Start::New));
    let mut undisturbed = subscribe(kind.log(), other).await.unwrap();
    let mut second = subscribe(kind.log(), asked).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert!(matches!(ended, Err(Error::TakenOver { name }) if name == "c"));
    publish(kind.log(), "a", "1").await;
    for stream in [&mut second, &mut undisturbed] {
        assert_eq!(texts_in(&news(stream).await), ["1"]);
    }
}

pub async fn a_busy_subscription_ends_when_another_takes_its_consumer<K: Kind>() {
    let kind: K = make().await;
    places(&kind).await;
    let asked = reading("c", one_by_one(query(&["a"], Start::Earliest)));
    let mut first = subscribe(kind.log(), asked.clone()).await.unwrap();
    assert_eq!(texts_in(&next(&mut first).await.unwrap()), ["1"]);
    let second = subscribe(kind.log(), asked).await.unwrap();
    assert!(matches!(first.next().await.unwrap(), Err(Error::TakenOver { .. })));
    assert!(first.next().await.is_none());
    let messages = second.map(|batch| batch.unwrap().count).collect::<Vec<_>>().await;
    assert_eq!(messages.into_iter().sum::<usize>(), 4);
}

pub async fn a_request_that_fails_takes_nothing_over<K: Kind>() {
    let (kind, other): (K, K) = (make().await, make().await);
    let there = places(&other).await.remove(0);
    places(&kind).await;
    kind.log().purge_topic("a", Some(sequence(2))).await.unwrap();
    let mut first = subscribe(kind.log(), reading("c", live(&["a"], Start::New))).await.unwrap();
    next(&mut first).await.unwrap();
    for bad in [
        query(&["a"], Start::Resume(there)),
        query(&["a..b"], Start::New),
        Query { on_gap: OnGap::Fail, ..query(&["a"], from_sequence(1)) },
    ] {
        error(kind.log(), reading("c", bad)).await;
    }
    publish(kind.log(), "a", "5").await;
    assert_eq!(texts_in(&news(&mut first).await), ["5"]);
}

pub async fn a_consumer_is_connected_while_someone_reads<K: Kind>() {
    let kind: K = make().await;
    let places = places(&kind).await;
    kind.log().commit_cursor("c", places[1].clone(), false).await.unwrap();
    let info = async || kind.log().list_consumers(9, None).await.unwrap().consumers.remove(0);
    let before = info().await;
    assert!(!before.is_connected && before.name == "c" && before.position == Ok(places[1].clone()));
    assert!(number(before.head) >= 4);
    let asked = reading("c", live(&["a"], Start::New));
    let first = subscribe(kind.log(), asked.clone()).await.unwrap();
    assert!(info().await.is_connected);
    let second = subscribe(kind.log(), asked).await.unwrap();
    drop(first);
    assert!(info().await.is_connected, "the second one reads still");
    drop(second);
    assert!(!info().await.is_connected);
}

pub async fn consumers_are_listed_page_by_page<K: Kind>() {
    let mut kind: K = make().await;
    let place = places(&kind).await.remove(0);
    let mut names = (0..12).map(|n| format!("c.{n}")).chain(["a".into(), "z-9".into()]).collect::<Vec<_>>();
    for name in &names {
        kind.log().commit_cursor(name, place.clone(), false).await.unwrap();
    }
    names.sort();
    for page_size in [1, 5, 14, 100] {
        let (mut seen, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = kind.log().list_consumers(page_size, after.as_deref()).await.unwrap();
            assert!(page.consumers.len() <= page_size);
            seen.extend(page.consumers.into_iter().map(|consumer| consumer.name));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, names, "{page_size} a page");
        kind.reopen().await;
    }
}

pub async fn a_deleted_consumer_starts_again<K: Kind>() {
    let mut kind: K = make().await;
    let places = places(&kind).await;
    assert!(matches!(kind.log().delete_consumer("c").await, Err(Error::NoConsumer)));
    kind.log().commit_cursor("c", places[2].clone(), false).await.unwrap();
    let mut stream = subscribe(kind.log(), reading("c", live(&["a"], Start::New))).await.unwrap();
    next(&mut stream).await.unwrap();
    kind.log().delete_consumer("c").await.unwrap();
    publish(kind.log(), "a", "5").await;
    assert_eq!(texts_in(&news(&mut stream).await), ["5"], "the reader is not disturbed");
    drop(stream);
    for _ in 0..2 {
        assert!(matches!(kind.log().delete_consumer("c").await, Err(Error::NoConsumer)));
        assert!(kind.log().list_consumers(9, None).await.unwrap().consumers.is_empty());
        assert_eq!(texts(kind.log(), reading("c", query(&["a"], Start::Last(1)))).await, ["5"]);
        kind.reopen().await;
    }
    kind.log().commit_cursor("c", places[0].clone(), false).await.expect("the first commit");
    kind.reopen().await;
    let consumers = kind.log().list_consumers(9, None).await.unwrap().consumers;
    assert_eq!(consumers[0].position, Ok(places[0].clone()));
}

pub async fn a_consumer_survives_restarts_and_retention<K: Kind>() {
    let mut kind: K = make_with(&[">=age:1ms count:1"]).await;
    let places = places(&kind).await;
    for place in &places {
        kind.log().commit_cursor("c", place.clone(), false).await.unwrap();
        kind.pass(Duration::from_secs(400 * 24 * 60 * 60));
        publish(kind.log(), "b", &"x".repeat(9000)).await;
        kind.keep().await;
        kind.reopen().await;
        let consumers = kind.log().list_consumers(9, None).await.unwrap().consumers;
        assert_eq!((consumers.len(), consumers[0].position.as_ref().unwrap()), (1, place));
    }
}

pub async fn a_consumer_continues_within_a_snapshot<K: Kind>() {
    let mut kind: K = make().await;
    publish_all(kind.log(), &[("a", "1"), ("b", "2"), ("c", "3"), ("a", "4")]).await;
    let asked = || reading("c", one_by_one(query(&[">"], Start::LastPerTopic)));
    let mut seen = Vec::new();
    for n in 0..3 {
        let mut stream = subscribe(kind.log(), asked()).await.unwrap();
        let batch = next(&mut stream).await.unwrap();
        seen.extend(texts_in(&batch));
        kind.log().commit_cursor("c", batch.position, false).await.unwrap();
        drop(stream);
        publish(kind.log(), "b", &format!("new {n}")).await;
        kind.reopen().await;
    }
    assert_eq!(seen, ["2", "3", "4"]);
    assert_eq!(texts(kind.log(), asked()).await, ["new 0", "new 1", "new 2"]);
}

pub async fn a_consumer_has_a_name_like_a_topic<K: Kind>() {
    let kind: K = make().await;
    let place = places(&kind).await.remove(0);
    for name in ["a", "a.b-c_9", &"n".repeat(128)] {
        kind.log().commit_cursor(name, place.clone(), false).await.unwrap();
    }
    for name in ["", "a..b", "a.*", "$a", "a b", &"n".repeat(129)] {
        let refused = kind.log().commit_cursor(name, place.clone(), false).await;
        assert!(matches!(refused, Err(Error::Consumer(_))), "{name:?}: {refused:?}");
        let refused = error(kind.log(), reading(name, query(&["a"], Start::New))).await;
        assert!(matches!(refused, Error::Consumer(_)), "{name:?}: {refused:?}");
        assert!(matches!(kind.log().delete_consumer(name).await, Err(Error::Consumer(_))));
    }
}

pub async fn a_consumer_is_set_to_any_start<K: Kind>() {
    let mut kind: K = make().await;
    let places = places(&kind).await;
    kind.pass(Duration::from_secs(1));
    publish(kind.log(), "a", "5").await;
    let time = kind.log().list_topics(Some("a"), 1, None).await.unwrap().topics[0].last.time;
    for (start, expected) in [
        (Start::Earliest, &["1", "2", "3", "4", "5"][..]),
        (from_sequence(3), &["3", "4", "5"]),
        (Start::Time(time), &["5"]),
        (Start::New, &[]),
    ] {
        let before = kind.log().consumer("c").await.unwrap();
        let set = kind.log().set_consumer("c", start.clone()).await.unwrap();
        assert_ne!(Some(&set), before.as_ref());
        kind.reopen().await;
        let found = kind.log().consumer("c").await.unwrap().unwrap();
        assert_eq!((found.position, found.time), (set.position, set.time), "{start:?}");
        let asked = reading("c", query(&["a"], Start::Earliest));
        assert_eq!(texts(kind.log(), asked).await, expected, "{start:?}");
    }
    // A reader commits from there on, forward only.
    kind.log().set_consumer("c", Start::Earliest).await.unwrap();
    kind.log().commit_cursor("c", places[1].clone(), false).await.unwrap();
    let refused = kind.log().set_consumer("c..d", Start::New).await;
    assert!(matches!(refused, Err(Error::Consumer(_))), "{refused:?}");
}

pub async fn a_consumer_that_is_set_to_now_misses_nothing_later<K: Kind>() {
    let kind: K = make().await;
    places(&kind).await;
    kind.log().set_consumer("c", Start::New).await.unwrap();
    kind.log().set_consumer("later", from_sequence(9)).await.unwrap();
    publish_all(kind.log(), &[("a", "new"), ("a", "newer")]).await;
    assert_eq!(texts(kind.log(), reading("c", query(&["a"], Start::New))).await, ["new", "newer"]);
    let sequences = publish_all(kind.log(), &[("a", "8"), ("a", "9")]).await;
    let (messages, _) = read(kind.log(), reading("later", query(&["a"], Start::New))).await;
    let expected = sequences.into_iter().filter(|sequence| *sequence >= 9).collect::<Vec<_>>();
    assert_eq!(messages.into_iter().map(|(sequence, _)| sequence).collect::<Vec<_>>(), expected);
}

pub async fn a_consumer_that_is_set_sees_the_gaps_after_the_call_only<K: Kind>() {
    let kind: K = make().await;
    places(&kind).await;
    kind.log().purge_topic("a", Some(sequence(1))).await.unwrap();
    let failing = || Query { on_gap: OnGap::Fail, ..reading("c", query(&["a"], Start::New)) };
    kind.log().set_consumer("c", Start::Earliest).await.unwrap();
    assert_eq!(texts(kind.log(), failing()).await, ["2", "3", "4"]);
    kind.log().purge_topic("a", Some(sequence(2))).await.unwrap();
    let refused = error(kind.log(), failing()).await;
    assert!(matches!(refused, Error::Removed { removed_up_to, .. } if removed_up_to == 2), "{refused:?}");
    kind.log().set_consumer("c", from_sequence(2)).await.unwrap();
    let refused = error(kind.log(), failing()).await;
    assert!(matches!(refused, Error::Removed { .. }), "{refused:?}");
}

pub async fn a_consumer_is_not_set_while_a_reader_is_connected<K: Kind>() {
    let kind: K = make().await;
    places(&kind).await;
    let asked = reading("c", live(&["a"], Start::Earliest));
    let mut stream = subscribe(kind.log(), asked.clone()).await.unwrap();
    next(&mut stream).await.unwrap();
    let refused = kind.log().set_consumer("c", Start::Earliest).await;
    assert!(matches!(refused, Err(Error::ConsumerConnected)), "{refused:?}");
    assert!(kind.log().consumer("c").await.unwrap().is_none());
    publish(kind.log(), "a", "5").await;
    assert_eq!(texts_in(&news(&mut stream).await), ["5"], "the reader is not disturbed");
    // A reader that ends during the call is waited for.
    let (set, ()) = tokio::join!(kind.log().set_consumer("c", Start::Earliest), async { drop(stream) });
    assert!(!set.unwrap().is_connected);
    let mut stream = subscribe(kind.log(), asked).await.unwrap();
    assert_eq!(texts_in(&news(&mut stream).await).first().map(String::as_str), Some("1"));
}

pub async fn consumers_have_a_limit_that_holds_after_a_restart<K: Kind>() {
    let mut kind = K::make(|config| (config.max_consumers, config.max_topics) = (3, 1)).await;
    let places = places(&kind).await;
    let commit = async |kind: &K, name: &str, place: &Position| {
        kind.log().commit_cursor(name, place.clone(), false).await
    };
    for name in ["a", "b"] {
        commit(&kind, name, &places[0]).await.expect("consumers take no room of the topics");
    }
    kind.log().set_consumer("c", Start::New).await.unwrap();
    for _ in 0..2 {
        let refused = commit(&kind, "d", &places[0]).await;
        assert!(matches!(refused, Err(Error::TooManyConsumers { limit: 3 })), "{refused:?}");
        let refused = kind.log().set_consumer("d", Start::New).await;
        assert!(matches!(refused, Err(Error::TooManyConsumers { limit: 3 })), "{refused:?}");
        commit(&kind, "a", &places[1]).await.expect("a consumer that exists");
        kind.log().set_consumer("c", Start::Earliest).await.expect("a consumer that exists");
        publish(kind.log(), "a", "5").await;
        kind.reopen().await;
    }
    kind.log().delete_consumer("b").await.unwrap();
    commit(&kind, "d", &places[0]).await.expect("a place is free");
    kind.reopen().await;
    assert!(matches!(commit(&kind, "b", &places[0]).await, Err(Error::TooManyConsumers { .. })));
    let names = kind.log().list_consumers(9, None).await.unwrap().consumers;
    assert_eq!(names.into_iter().map(|info| info.name).collect::<Vec<_>>(), ["a", "c", "d"]);
    // Of concurrent commits of new consumers, as many succeed as there is room for.
    kind.log().delete_consumer("c").await.unwrap();
    let commits = (0..20).map(|n| kind.log().commit_cursor(["x", "y"][n % 2], places[0].clone(), false));
    let results = futures::future::join_all(commits).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 10, "one of the two, ten times");
}
