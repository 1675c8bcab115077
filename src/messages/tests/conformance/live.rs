//! What a stream does at the end of the log.

use super::*;

/// Soon, so that a test does not wait long.
const HEARTBEAT: Duration = Duration::from_millis(100);

fn beating(topics: &[&str], start: Start) -> Query {
    let batching = Batching { heartbeat: HEARTBEAT, ..Batching::default() };
    Query { batching, ..live(topics, start) }
}

pub async fn the_first_batch_is_ready_at_once<K: Kind>() {
    let kind: K = make().await;
    for (start, published) in [(Start::New, 0), (Start::Earliest, 0), (Start::New, 1), (Start::Earliest, 1)] {
        if published == 1 {
            publish(kind.log(), "b", "1").await;
        }
        let mut stream = subscribe(kind.log(), live(&["a"], start)).await.unwrap();
        let first = next(&mut stream).await.unwrap();
        assert!(first.count == 0 && first.events.is_empty() && first.progress.caught_up, "{first:?}");
    }
}

pub async fn history_continues_into_live_messages<K: Kind>() {
    let kind: K = make().await;
    publish_all(kind.log(), &[("a", "1"), ("b", "2"), ("a", "3")]).await;
    let mut stream = subscribe(kind.log(), live(&["a"], Start::Earliest)).await.unwrap();
    let first = next(&mut stream).await.unwrap();
    assert_eq!((texts_in(&first), first.progress.caught_up), (vec!["1".into(), "3".into()], true));
    for n in 4..30 {
        publish_all(kind.log(), &[("b", "x"), ("a", &n.to_string())]).await;
        assert_eq!(texts_in(&news(&mut stream).await), [n.to_string()]);
    }
}

pub async fn caught_up_is_set_at_the_head<K: Kind>() {
    let kind: K = make().await;
    publish_all(kind.log(), &[("a", "1"), ("a", "2"), ("a", "3")]).await;
    let mut stream = subscribe(kind.log(), one_by_one(live(&["a"], Start::Earliest))).await.unwrap();
    for expected in [false, false, true] {
        let batch = next(&mut stream).await.unwrap();
        assert_eq!((batch.progress.caught_up, number(batch.progress.head)), (expected, 3));
    }
    publish(kind.log(), "a", "4").await;
    let batch = news(&mut stream).await;
    assert!(batch.progress.caught_up && number(batch.progress.head) == 4);
}

pub async fn a_heartbeat_carries_the_head_and_moves_over_messages_of_others<K: Kind>() {
    let kind: K = make().await;
    publish(kind.log(), "a", "1").await;
    let mut stream = subscribe(kind.log(), beating(&["a"], Start::New)).await.unwrap();
    assert_eq!(number(next(&mut stream).await.unwrap().progress.head), 1);
    publish_all(kind.log(), &[("b", "2"), ("b", "3")]).await;
    let beat = loop {
        let beat = next(&mut stream).await.unwrap();
        assert!(beat.count == 0 && beat.events.is_empty());
        if number(beat.position.sequence()) == 3 {
            break beat;
        }
    };
    assert!(beat.progress.caught_up && number(beat.progress.head) == 3, "{beat:?}");
    publish(kind.log(), "a", "4").await;
    assert_eq!(texts_in(&news(&mut stream).await), ["4"]);
    let resumed = query(&[">"], Start::Resume(beat.position));
    assert_eq!(texts(kind.log(), resumed).await, ["4"], "what was passed over is not read again");
}

pub async fn a_stream_wakes_for_its_own_messages_while_others_are_published<K: Kind>() {
    let kind: K = make().await;
    let mut streams = Vec::new();
    for topics in [&["a"][..], &["b.*"], &[">"], &["c", "a"]] {
        let mut stream = subscribe(kind.log(), live(topics, Start::New)).await.unwrap();
        next(&mut stream).await.unwrap();
        streams.push(stream);
    }
    for _ in 0..20 {
        publish_all(kind.log(), &[("d", "x"), ("e.f", "x")]).await;
    }
    publish_all(kind.log(), &[("a", "1"), ("b.c", "2"), ("c", "3")]).await;
    for (stream, (last, expected)) in
        streams.iter_mut().zip([("1", &["1"][..]), ("2", &["2"]), ("3", &[]), ("3", &["1", "3"])])
    {
        let seen = until_text(stream, last).await;
        assert!(expected.is_empty() || seen == expected, "{seen:?}");
    }
}

pub async fn a_slow_reader_loses_nothing<K: Kind>() {
    let kind: K = make().await;
    let mut stream = subscribe(kind.log(), live(&["a"], Start::New)).await.unwrap();
    next(&mut stream).await.unwrap();
    let expected = (0..3000).map(|n| n.to_string()).collect::<Vec<_>>();
    for part in expected.chunks(500) {
        let messages = part.iter().map(|content| text("a", content)).collect();
        kind.log().publish_batch(messages).await.unwrap();
        publish(kind.log(), "b", &"x".repeat(100_000)).await;
    }
    assert_eq!(until_text(&mut stream, "2999").await, expected);
}

pub async fn a_time_to_stop_at_is_waited_for<K: Kind>() {
    let kind: K = make().await;
    let first = kind.log().publish(text("a", "1")).await.unwrap();
    let until = first.time + Duration::from_secs(10);
    let stop = Stop { time: Some(until), ..Stop::default() };
    let mut stream = subscribe(kind.log(), Query { stop, ..beating(&["a"], Start::Earliest) }).await.unwrap();
    assert_eq!(texts_in(&next(&mut stream).await.unwrap()), ["1"]);
    kind.pass(Duration::from_secs(10));
    publish(kind.log(), "a", "2").await;
    assert_eq!(texts_in(&news(&mut stream).await), ["2"], "published just then");
    kind.pass(Duration::from_millis(1));
    publish(kind.log(), "a", "3").await;
    assert_eq!(
        next(&mut stream).await.unwrap().count,
        0,
        "a message before the end may reach the disk later"
    );
    kind.pass(Duration::from_secs(1));
    while let Some(batch) = next(&mut stream).await {
        assert_eq!(batch.count, 0, "published later");
    }
    let stop = Stop { time: Some(until + Duration::from_secs(10)), ..Stop::default() };
    let mut quiet = subscribe(kind.log(), Query { stop, ..beating(&["q"], Start::New) }).await.unwrap();
    next(&mut quiet).await.unwrap();
    kind.pass(Duration::from_secs(60));
    while let Some(batch) = next(&mut quiet).await {
        assert_eq!(batch.count, 0);
    }
}

pub async fn a_dropped_stream_frees_what_it_held<K: Kind>() {
    let kind: K = make().await;
    let as_reader = Query { consumer: Some("reader".into()), ..live(&["a"], Start::New) };
    let mut stream = subscribe(kind.log(), as_reader).await.unwrap();
    let batch = next(&mut stream).await.unwrap();
    kind.log().commit_cursor("reader", batch.position, false).await.unwrap();
    let is_connected = async || kind.log().list_consumers(9, None).await.unwrap().consumers[0].is_connected;
    assert!(is_connected().await);
    drop(stream);
    assert!(!is_connected().await);
}
