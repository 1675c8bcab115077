//! Streams that begin with the last message of each topic.

use super::*;

const ALL: &[&str] = &[">"];

pub async fn the_last_message_of_each_topic_comes_in_order_before_live_messages<K: Kind>() {
    let mut kind: K = make_with(&["l.>=last"]).await;
    let all = [("b", "1"), ("a", "2"), ("l.x", "3"), ("b", "4"), ("l.x", "5"), ("c.d", "6"), ("l.y", "7")];
    publish_all(kind.log(), &all).await;
    for _ in 0..2 {
        for (topics, expected) in [
            (ALL, &["2", "4", "5", "6", "7"][..]),
            (&["b", "l.*"], &["4", "5", "7"]),
            (&["a"], &["2"]),
            (&["none"], &[]),
        ] {
            assert_eq!(texts(kind.log(), query(topics, Start::LastPerTopic)).await, expected, "{topics:?}");
        }
        kind.reopen().await;
    }
    let mut stream = subscribe(kind.log(), live(ALL, Start::LastPerTopic)).await.unwrap();
    assert_eq!(texts_in(&next(&mut stream).await.unwrap()), ["2", "4", "5", "6", "7"]);
    publish_all(kind.log(), &[("a", "8"), ("l.x", "9")]).await;
    assert_eq!(until_text(&mut stream, "9").await, ["8", "9"]);
}

pub async fn a_snapshot_can_be_resumed_after_every_batch<K: Kind>() {
    let mut kind: K = make().await;
    let mut expected = Vec::new();
    for n in 0..40 {
        publish_all(kind.log(), &[("busy", "x"), (&format!("t.{n}"), &n.to_string())]).await;
        expected.push(n.to_string());
    }
    let patterns: &[&str] = &["t.*", "new"];
    for reopens in [false, true] {
        let (mut seen, mut start, mut live_texts) = (Vec::new(), Start::LastPerTopic, Vec::new());
        for step in 0.. {
            let one = one_by_one(query(patterns, start));
            let Some(batch) = next(&mut subscribe(kind.log(), one).await.unwrap()).await else { break };
            seen.extend(texts_in(&batch));
            if step % 10 == 3 {
                let content = format!("new {step}");
                publish(kind.log(), "new", &content).await;
                live_texts.push(content);
            }
            if reopens && step % 7 == 0 {
                kind.reopen().await;
            }
            let is_done = batch.progress.caught_up && batch.position.snapshot == 0 && step > 50;
            start = Start::Resume(batch.position);
            if is_done {
                break;
            }
        }
        assert_eq!(seen[..40], expected, "each once, in order");
        assert_eq!(seen[seen.len() - live_texts.len()..], live_texts);
        kind.log().purge_topic("new", None).await.unwrap();
    }
}

pub async fn a_topic_that_changes_comes_with_its_change<K: Kind>() {
    let kind: K = make().await;
    publish_all(kind.log(), &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]).await;
    let first = with_limit(query(ALL, Start::LastPerTopic), 2);
    let begun = position(kind.log(), first).await;
    publish_all(kind.log(), &[("a", "5"), ("c", "6"), ("e", "7")]).await;
    let rest = query(ALL, Start::Resume(begun));
    assert_eq!(texts(kind.log(), rest).await, ["4", "5", "6", "7"]);
}

pub async fn a_topic_whose_last_message_has_expired_comes_with_the_one_before<K: Kind>() {
    let mut kind: K = make().await;
    publish_all(kind.log(), &[("a", "1"), ("b", "2")]).await;
    for (topic, content) in [("a", "3"), ("c", "4")] {
        kind.log().publish(with_ttl(topic, content, 1000)).await.unwrap();
    }
    let snapshot = || query(ALL, Start::LastPerTopic);
    assert_eq!(texts(kind.log(), snapshot()).await, ["2", "3", "4"]);
    kind.pass(Duration::from_secs(2));
    for _ in 0..2 {
        assert_eq!(texts(kind.log(), snapshot()).await, ["1", "2"]);
        let begun = position(kind.log(), with_limit(snapshot(), 1)).await;
        assert_eq!(texts(kind.log(), query(ALL, Start::Resume(begun))).await, ["2"]);
        kind.keep().await;
        kind.reopen().await;
    }
}

pub async fn a_snapshot_continues_after_topics_were_purged<K: Kind>() {
    let mut kind: K = make_with(&["d=age:1s"]).await;
    publish_all(kind.log(), &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("e", "5")]).await;
    let begun = position(kind.log(), with_limit(query(ALL, Start::LastPerTopic), 1)).await;
    kind.log().purge_topic("b", None).await.unwrap();
    kind.pass(Duration::from_secs(2));
    kind.keep().await;
    for _ in 0..2 {
        let rest = query(ALL, Start::Resume(begun.clone()));
        assert_eq!(texts(kind.log(), rest).await, ["3", "5"], "the state, and no gap in it");
        kind.reopen().await;
    }
}

pub async fn a_resumed_snapshot_reports_messages_lost_since<K: Kind>() {
    let mut kind: K = make().await;
    publish_all(kind.log(), &[("a", "1"), ("b", "2"), ("c", "3")]).await;
    let begun = position(kind.log(), with_limit(query(ALL, Start::LastPerTopic), 1)).await;
    publish_all(kind.log(), &[("a", "4"), ("b", "5"), ("a", "6"), ("a", "7")]).await;
    kind.log().purge_topic("a", Some(sequence(6))).await.unwrap();
    for _ in 0..2 {
        let rest = query(ALL, Start::Resume(begun.clone()));
        let (messages, events) = read(kind.log(), rest.clone()).await;
        let seen = messages.into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(events, [removed(4, 6)]);
        assert_eq!(seen, ["3", "5", "7"]);
        let failing = Query { on_gap: OnGap::Fail, ..rest };
        let result = match subscribe(kind.log(), failing).await {
            Err(error) => Err(error),
            Ok(stream) => stream.collect::<Vec<_>>().await.into_iter().collect::<Result<Vec<_>, _>>(),
        };
        assert!(
            matches!(result, Err(Error::Removed { removed_up_to, .. }) if number(removed_up_to) == 6),
            "{result:?}"
        );
        kind.reopen().await;
    }
}

pub async fn a_snapshot_of_nothing_is_empty<K: Kind>() {
    let kind: K = make().await;
    let mut stream = subscribe(kind.log(), live(ALL, Start::LastPerTopic)).await.unwrap();
    let first = next(&mut stream).await.unwrap();
    assert!(first.count == 0 && first.progress.caught_up);
    publish(kind.log(), "a", "1").await;
    assert_eq!(texts_in(&news(&mut stream).await), ["1"]);
}

pub async fn a_snapshot_ends_at_its_limit_and_stops<K: Kind>() {
    let kind: K = make().await;
    publish_all(kind.log(), &[("a", "1"), ("b", "2"), ("a", "3"), ("c", "4")]).await;
    assert_eq!(texts(kind.log(), with_limit(live(ALL, Start::LastPerTopic), 2)).await, ["2", "3"]);
    let stop = Stop { sequence: Sequence::new(3), ..Stop::default() };
    assert_eq!(texts(kind.log(), Query { stop, ..query(ALL, Start::LastPerTopic) }).await, ["2", "3"]);
}
