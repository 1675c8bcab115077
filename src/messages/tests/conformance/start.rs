//! Where a stream starts, where it stops, and how it goes on.

use super::*;

const ALL: &[&str] = &[">"];

/// Messages 1 to 5 of two topics, a second apart.
async fn five<K: Kind>() -> (K, Vec<SystemTime>) {
    let kind: K = make().await;
    let mut times = Vec::new();
    for (topic, content) in [("a", "1"), ("b", "2"), ("a", "3"), ("c.d", "4"), ("a", "5")] {
        kind.pass(Duration::from_secs(1));
        times.push(kind.log().publish(text(topic, content)).await.unwrap().time);
    }
    (kind, times)
}

pub async fn each_start_is_where_it_says<K: Kind>() {
    let (mut kind, times) = five::<K>().await;
    let moment = Duration::from_nanos(1);
    for _ in 0..2 {
        for (topics, start, expected) in [
            (ALL, Start::New, &[][..]),
            (ALL, Start::Earliest, &["1", "2", "3", "4", "5"][..]),
            (&["a"], Start::Earliest, &["1", "3", "5"]),
            (ALL, from_sequence(1), &["1", "2", "3", "4", "5"]),
            (ALL, from_sequence(4), &["4", "5"]),
            (&["a"], from_sequence(4), &["5"]),
            (ALL, from_sequence(6), &[]),
            (ALL, Start::Time(times[0] - moment), &["1", "2", "3", "4", "5"]),
            (ALL, Start::Time(times[2]), &["3", "4", "5"]),
            (ALL, Start::Time(times[2] + moment), &["4", "5"]),
            (&["a"], Start::Time(times[1]), &["3", "5"]),
            (ALL, Start::Time(times[4] + moment), &[]),
            (ALL, Start::Time(SystemTime::UNIX_EPOCH), &["1", "2", "3", "4", "5"]),
            (ALL, Start::LastPerTopic, &["2", "4", "5"]),
        ] {
            let seen = texts(kind.log(), query(topics, start.clone())).await;
            assert_eq!(seen, expected, "{topics:?} {start:?}");
        }
        kind.reopen().await;
    }
}

pub async fn the_last_messages_are_counted_after_the_patterns<K: Kind>() {
    let (mut kind, _) = five::<K>().await;
    for _ in 0..2 {
        for (topics, last, expected) in [
            (ALL, 0, &[][..]),
            (ALL, 2, &["4", "5"][..]),
            (&["a"], 2, &["3", "5"]),
            (&["a", "b"], 3, &["2", "3", "5"]),
            (&["c.*", "b"], 1, &["4"]),
            (&["b"], 1_000_000, &["2"]),
            (ALL, 5, &["1", "2", "3", "4", "5"]),
            (&["none"], 3, &[]),
        ] {
            let seen = texts(kind.log(), query(topics, Start::Last(last))).await;
            assert_eq!(seen, expected, "{topics:?} {last}");
        }
        kind.reopen().await;
    }
    let mut live = subscribe(kind.log(), live(&["b"], Start::Last(0))).await.unwrap();
    next(&mut live).await.unwrap();
    publish(kind.log(), "b", "6").await;
    assert_eq!(texts_in(&news(&mut live).await), ["6"]);
}

pub async fn each_stop_is_where_it_says<K: Kind>() {
    let (kind, times) = five::<K>().await;
    let moment = Duration::from_nanos(1);
    let after = |sequence| Stop { sequence: Sequence::new(sequence), ..Stop::default() };
    let before = |time| Stop { time: Some(time), ..Stop::default() };
    // Messages with the last of these times have reached the disk.
    kind.pass(Duration::from_secs(2));
    for (topics, stop, expected) in [
        (ALL, after(2), &["1", "2"][..]),
        (&["a"][..], after(4), &["1", "3"]),
        (ALL, after(5), &["1", "2", "3", "4", "5"]),
        (ALL, before(times[2]), &["1", "2", "3"]),
        (&["a"], before(times[3]), &["1", "3"]),
        (ALL, before(times[2] - moment), &["1", "2"]),
        (ALL, before(times[0] - moment), &[]),
        (ALL, Stop { caught_up: true, ..Stop::default() }, &["1", "2", "3", "4", "5"]),
    ] {
        let what = format!("{topics:?} {stop:?}");
        let seen = texts(kind.log(), Query { stop, ..query(topics, Start::Earliest) }).await;
        assert_eq!(seen, expected, "{what}");
    }
    let mut stream = subscribe(kind.log(), Query { stop: after(7), ..query(ALL, Start::New) }).await.unwrap();
    publish_all(kind.log(), &[("a", "6"), ("b", "7"), ("a", "8")]).await;
    let mut seen = Vec::new();
    while let Some(batch) = next(&mut stream).await {
        seen.extend(texts_in(&batch));
    }
    assert_eq!(seen, ["6", "7"], "a sequence that is not there yet is waited for");
}

pub async fn a_sequence_to_stop_at_is_reached_by_messages_of_others<K: Kind>() {
    let kind: K = make().await;
    let stop = Stop { sequence: Sequence::new(3), ..Stop::default() };
    // No heartbeat wakes the stream.
    let batching = Batching { heartbeat: 10 * PATIENCE, ..Batching::default() };
    let query = Query { stop, batching, ..query(&["a"], Start::New) };
    let mut stream = subscribe(kind.log(), query).await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap().count, 0);
    let end = tokio::spawn(async move {
        while let Some(batch) = stream.next().await {
            assert_eq!(batch.unwrap().count, 0);
        }
    });
    publish_all(kind.log(), &[("b", "1"), ("b", "2"), ("b", "3")]).await;
    tokio::time::timeout(PATIENCE, end).await.expect("the stream ends").unwrap();
}

pub async fn the_first_stop_that_is_reached_holds<K: Kind>() {
    let (kind, times) = five::<K>().await;
    for (stop, expected) in [
        (Stop { sequence: Sequence::new(2), time: Some(times[3]), caught_up: true }, &["1", "2"][..]),
        (Stop { sequence: Sequence::new(4), time: Some(times[0]), caught_up: true }, &["1"]),
        (Stop { sequence: Sequence::new(9), time: None, caught_up: true }, &["1", "2", "3", "4", "5"]),
    ] {
        let seen = texts(kind.log(), Query { stop, ..query(ALL, Start::Earliest) }).await;
        assert_eq!(seen, expected);
    }
}

pub async fn a_limit_ends_the_stream<K: Kind>() {
    let (kind, _) = five::<K>().await;
    let limited = with_limit(live(&["a", "b"], Start::Earliest), 3);
    assert_eq!(texts(kind.log(), limited.clone()).await, ["1", "2", "3"]);
    assert_eq!(texts(kind.log(), one_by_one(limited.clone())).await, ["1", "2", "3"]);
    let mut stream = subscribe(kind.log(), with_limit(live(ALL, Start::New), 2)).await.unwrap();
    publish_all(kind.log(), &[("a", "6"), ("a", "7"), ("a", "8")]).await;
    let mut seen = Vec::new();
    while let Some(batch) = next(&mut stream).await {
        seen.extend(texts_in(&batch));
    }
    assert_eq!(seen, ["6", "7"]);
    let rest = query(&["a", "b"], Start::Resume(position(kind.log(), limited).await));
    assert_eq!(texts(kind.log(), rest).await, ["5", "6", "7", "8"]);
}

pub async fn a_stream_continues_after_exactly_the_batch_whose_position_it_is_given<K: Kind>() {
    let mut kind: K = make().await;
    let expected = (0..200).map(|n| format!("{n} {}", "x".repeat(n))).collect::<Vec<_>>();
    for (n, content) in expected.iter().enumerate() {
        publish(kind.log(), ["a", "b"][n % 2], content).await;
    }
    for max_items in [1, 7, 1000] {
        let batching = Batching { max_items, max_bytes: 3000, ..Batching::default() };
        let (mut seen, mut start) = (Vec::new(), Start::Earliest);
        while seen.len() < expected.len() {
            let one = Query { batching: batching.clone(), ..query(ALL, start) };
            let batch = next(&mut subscribe(kind.log(), one).await.unwrap()).await.unwrap();
            assert!(batch.count <= max_items && batch.count > 0);
            seen.extend(texts_in(&batch));
            start = Start::Resume(batch.position);
        }
        assert_eq!(seen, expected);
        kind.reopen().await;
    }
}

pub async fn a_stream_continues_with_other_patterns<K: Kind>() {
    let (kind, _) = five::<K>().await;
    let begun = position(kind.log(), with_limit(query(ALL, Start::Earliest), 1)).await;
    for (topics, expected) in [(ALL, &["2", "3", "4", "5"][..]), (&["b", "c.>"], &["2", "4"]), (&["d"], &[])]
    {
        let resumed = query(topics, Start::Resume(begun.clone()));
        assert_eq!(texts(kind.log(), resumed).await, expected, "{topics:?}");
    }
}

pub async fn a_sequence_to_come_is_waited_for<K: Kind>() {
    let mut kind: K = make().await;
    let ahead = live(ALL, from_sequence(4));
    let mut stream = subscribe(kind.log(), ahead.clone()).await.unwrap();
    let waiting = next(&mut stream).await.unwrap();
    assert!(waiting.progress.caught_up && number(waiting.position.sequence()) == 3);
    drop(stream);
    kind.reopen().await;
    let resumed = Query { start: Start::Resume(waiting.position), ..ahead.clone() };
    let mut streams = Vec::new();
    for query in [ahead, resumed] {
        let mut stream = subscribe(kind.log(), query).await.unwrap();
        next(&mut stream).await.unwrap();
        streams.push(stream);
    }
    publish_all(kind.log(), &[("a", "1"), ("a", "2"), ("a", "3"), ("b", "4"), ("a", "5")]).await;
    for stream in &mut streams {
        assert_eq!(until_text(stream, "5").await, ["4", "5"]);
    }
}

pub async fn a_position_of_another_log_is_refused<K: Kind>() {
    let (mut kind, other): (K, K) = (make().await, make().await);
    publish(kind.log(), "a", "1").await;
    publish(other.log(), "a", "1").await;
    let place = position(other.log(), query(ALL, Start::Earliest)).await;
    for _ in 0..2 {
        let resumed = query(ALL, Start::Resume(place.clone()));
        assert!(matches!(error(kind.log(), resumed).await, Error::OtherLog));
        kind.reopen().await;
    }
    assert!(texts(other.log(), query(ALL, Start::Resume(place))).await.is_empty());
}

pub async fn a_position_ahead_of_the_log_is_refused<K: Kind>() {
    let (kind, _) = five::<K>().await;
    let here = position(kind.log(), query(ALL, Start::Earliest)).await;
    for ahead in [
        Position { delivered_up_to: 6, ..here.clone() },
        Position { reported_up_to: 6, ..here.clone() },
        Position { delivered_up_to: 2, snapshot: 6, ..here.clone() },
        Position { delivered_up_to: 4, snapshot: 3, ..here.clone() },
    ] {
        let what = format!("{ahead:?}");
        let refused = error(kind.log(), query(ALL, Start::Resume(ahead))).await;
        assert!(matches!(refused, Error::Ahead { newest } if number(newest) == 5), "{what}: {refused}");
    }
    assert!(texts(kind.log(), query(ALL, Start::Resume(here))).await.is_empty());
}

pub async fn a_query_without_patterns_or_with_a_bad_one_is_refused<K: Kind>() {
    let kind: K = make().await;
    assert!(matches!(error(kind.log(), query(&[], Start::New)).await, Error::NoPatterns));
    for (topics, bad) in [(&["a", "b..c"][..], 1), (&["a*"], 0), (&["a", "b", "a.>.b"], 2), (&[""], 0)] {
        let refused = error(kind.log(), query(topics, Start::New)).await;
        assert!(matches!(refused, Error::Pattern { index, .. } if index == bad), "{topics:?}: {refused}");
    }
}
