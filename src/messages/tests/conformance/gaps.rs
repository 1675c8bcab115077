//! Gaps: which removed messages are reported, and to which readers.

use super::*;

const ALL: &[&str] = &[">"];

/// Messages 1 to 6, of which retention has removed 1 to 3 of `a`, which has 5 too; 2 is of `b`.
async fn trimmed<K: Kind>() -> K {
    let kind: K = make_with(&["a=count:1"]).await;
    publish_all(kind.log(), &[("a", "1"), ("b", "2"), ("a", "3"), ("b", "4"), ("a", "5"), ("b", "6")]).await;
    kind.keep().await;
    kind
}

pub async fn a_reader_sees_a_gap_for_its_own_messages_that_it_could_not_read<K: Kind>() {
    let kind = trimmed::<K>().await;
    for (topics, from, gap, expected) in [
        (ALL, 1, Some((1, 3)), &[2, 4, 5, 6][..]),
        (ALL, 3, Some((3, 3)), &[4, 5, 6]),
        (ALL, 4, None, &[4, 5, 6]),
        (&["a"], 2, Some((2, 3)), &[5]),
        (&["b"], 1, None, &[2, 4, 6]),
        (&["b", "c"], 1, None, &[2, 4, 6]),
        (&["*.x"], 1, None, &[]),
    ] {
        let (messages, events) = read(kind.log(), query(topics, from_sequence(from))).await;
        let sequences = messages.into_iter().map(|(sequence, _)| sequence).collect::<Vec<_>>();
        let gap = gap.map(|(first, last)| removed(first, last));
        assert_eq!(events, gap.into_iter().collect::<Vec<_>>(), "{topics:?} from {from}");
        assert_eq!(sequences, expected, "{topics:?} from {from}");
    }
}

pub async fn a_reader_that_asked_to_fail_fails_at_once<K: Kind>() {
    let mut kind = trimmed::<K>().await;
    for _ in 0..2 {
        let failing = |topics, from| Query { on_gap: OnGap::Fail, ..query(topics, from_sequence(from)) };
        let refused = error(kind.log(), failing(ALL, 2)).await;
        assert!(
            matches!(refused, Error::Removed { oldest, newest, removed_up_to } if number(oldest) == 2 && number(newest) == 6 && number(removed_up_to) == 3),
            "{refused:?}"
        );
        assert_eq!(texts(kind.log(), failing(ALL, 4)).await, ["4", "5", "6"]);
        assert_eq!(texts(kind.log(), failing(&["b"], 1)).await, ["2", "4", "6"]);
        kind.reopen().await;
    }
}

pub async fn a_reader_that_asked_to_fail_fails_on_the_way<K: Kind>() {
    let kind: K = make_with(&["a=age:1s"]).await;
    publish_all(kind.log(), &[("a", "1"), ("a", "2"), ("b", "3"), ("a", "4")]).await;
    let failing = Query { on_gap: OnGap::Fail, ..one_by_one(live(ALL, Start::Earliest)) };
    let skipping = one_by_one(live(ALL, Start::Earliest));
    let (mut failing, mut skipping) =
        (subscribe(kind.log(), failing).await.unwrap(), subscribe(kind.log(), skipping).await.unwrap());
    for stream in [&mut failing, &mut skipping] {
        assert_eq!(texts_in(&next(stream).await.unwrap()), ["1"]);
    }
    kind.pass(Duration::from_secs(2));
    kind.keep().await;
    let ended = failing.next().await.unwrap();
    assert!(
        matches!(ended, Err(Error::Removed { newest, removed_up_to, .. }) if number(newest) == 4 && number(removed_up_to) == 4),
        "{ended:?}"
    );
    assert_eq!(next(&mut skipping).await.unwrap().events, [removed(2, 4)]);
    assert_eq!(texts_in(&next(&mut skipping).await.unwrap()), ["3"]);
}

pub async fn a_start_reports_no_gap_for_messages_removed_before_its_first_batch<K: Kind>() {
    for start in [Start::Earliest, Start::Last(4), Start::Time(SystemTime::UNIX_EPOCH)] {
        for on_gap in [OnGap::Fail, OnGap::Skip] {
            let kind: K = make().await;
            publish_all(kind.log(), &[("a", "1"), ("b", "2"), ("a", "3"), ("b", "4")]).await;
            let what = format!("{start:?} {on_gap:?}");
            let query = Query { on_gap, ..live(ALL, start.clone()) };
            let mut stream = subscribe(kind.log(), query).await.unwrap();
            kind.log().purge_topic("a", None).await.unwrap();
            let first = next(&mut stream).await.unwrap();
            assert_eq!((texts_in(&first), first.events), (vec!["2".into(), "4".into()], vec![]), "{what}");
            // A message that is removed after the first batch is a gap.
            publish_all(kind.log(), &[("a", "5")]).await;
            kind.log().purge_topic("a", None).await.unwrap();
            match (on_gap, stream.next().await.unwrap()) {
                (OnGap::Fail, Err(Error::Removed { removed_up_to, .. })) => assert_eq!(removed_up_to, 5),
                (OnGap::Skip, Ok(batch)) => assert_eq!(batch.events, [removed(5, 5)]),
                (_, other) => panic!("{what}: {other:?}"),
            }
        }
    }
}

pub async fn a_gap_is_reported_once_also_after_a_resume<K: Kind>() {
    let mut kind = trimmed::<K>().await;
    let all = one_by_one(query(ALL, from_sequence(1)));
    let mut stream = subscribe(kind.log(), all.clone()).await.unwrap();
    let at_gap = next(&mut stream).await.unwrap();
    assert_eq!((at_gap.events, at_gap.count), (vec![removed(1, 3)], 0));
    let after_gap = next(&mut stream).await.unwrap();
    assert_eq!((after_gap.events.len(), texts_in(&after_gap)), (0, vec!["2".into()]));
    drop(stream);
    for _ in 0..2 {
        for (position, expected) in
            [(&at_gap.position, &["2", "4", "5", "6"][..]), (&after_gap.position, &["4", "5", "6"])]
        {
            for on_gap in [OnGap::Skip, OnGap::Fail] {
                let resumed = Query { on_gap, start: Start::Resume(position.clone()), ..all.clone() };
                assert_eq!(texts(kind.log(), resumed).await, expected);
            }
        }
        kind.reopen().await;
    }
}

pub async fn a_caught_up_reader_of_a_quiet_topic_never_sees_a_gap<K: Kind>() {
    let mut kind: K = make_with(&["busy=count:2"]).await;
    publish_all(kind.log(), &[("quiet", "1"), ("busy", "2")]).await;
    let mut place = position(kind.log(), query(&["quiet"], Start::Earliest)).await;
    let mut stream = subscribe(kind.log(), live(&["quiet"], Start::New)).await.unwrap();
    next(&mut stream).await.unwrap();
    for round in 0..5 {
        for _ in 0..20 {
            publish(kind.log(), "busy", &"x".repeat(500)).await;
        }
        kind.keep().await;
        let resumed = Query { on_gap: OnGap::Fail, ..query(&["quiet"], Start::Resume(place.clone())) };
        assert!(texts(kind.log(), resumed).await.is_empty(), "round {round}");
        if round == 3 {
            place = position(kind.log(), query(&["quiet"], Start::Resume(place))).await;
        }
    }
    publish(kind.log(), "quiet", "last").await;
    let batch = news(&mut stream).await;
    assert_eq!((batch.events.len(), texts_in(&batch)), (0, vec!["last".into()]));
    drop(stream);
    kind.reopen().await;
    let resumed = Query { on_gap: OnGap::Fail, ..query(&["quiet"], Start::Resume(place)) };
    assert_eq!(texts(kind.log(), resumed).await, ["last"]);
}

pub async fn a_start_reports_no_gap_for_messages_removed_before_it<K: Kind>() {
    let kind = trimmed::<K>().await;
    let first = kind.log().list_topics(Some("b"), 1, None).await.unwrap().topics[0].first.time;
    for (start, count) in [
        (Start::New, 0),
        (Start::Earliest, 4),
        (Start::Last(4), 4),
        (Start::Last(100), 4),
        (Start::Time(first), 4),
        (Start::LastPerTopic, 2),
    ] {
        let asked = Query { on_gap: OnGap::Fail, ..query(ALL, start.clone()) };
        assert_eq!(texts(kind.log(), asked).await.len(), count, "{start:?}");
    }
}

pub async fn a_topic_trimmed_after_the_start_is_a_gap_also_below_what_others_had_lost<K: Kind>() {
    for (topics, on_gap) in [(ALL, OnGap::Fail), (ALL, OnGap::Skip), (&["a", "b"][..], OnGap::Skip)] {
        let kind: K = make().await;
        let four = [("b", "1"), ("b", "2"), ("b", "3"), ("b", "4")];
        publish_all(kind.log(), &four).await;
        publish_all(kind.log(), &[("a", "5"), ("a", "6"), ("b", "7")]).await;
        kind.log().purge_topic("a", None).await.unwrap();
        let asked = Query { on_gap, ..one_by_one(live(topics, Start::Earliest)) };
        let mut stream = subscribe(kind.log(), asked).await.unwrap();
        assert_eq!(texts_in(&next(&mut stream).await.unwrap()), ["1"]);
        kind.log().purge_topic("b", Some(sequence(3))).await.unwrap();
        match (on_gap, stream.next().await.unwrap()) {
            (OnGap::Fail, Err(Error::Removed { removed_up_to, .. })) => assert_eq!(removed_up_to, 3),
            (OnGap::Skip, Ok(batch)) => {
                assert_eq!((batch.events, batch.count), (vec![removed(2, 3)], 0));
                assert_eq!(until_text(&mut stream, "7").await, ["4", "7"]);
            }
            (_, other) => panic!("{topics:?}: {other:?}"),
        }
    }
}

pub async fn an_expired_message_is_not_a_gap<K: Kind>() {
    let mut kind: K = make().await;
    for content in ["1", "2"] {
        kind.log().publish(with_ttl("a", content, 1000)).await.unwrap();
    }
    publish_all(kind.log(), &[("a", "3"), ("b", "4")]).await;
    kind.pass(Duration::from_secs(2));
    for _ in 0..3 {
        let failing = Query { on_gap: OnGap::Fail, ..query(ALL, from_sequence(1)) };
        assert_eq!(texts(kind.log(), failing).await, ["3", "4"]);
        kind.keep().await;
        kind.reopen().await;
    }
}

pub async fn a_superseded_message_is_not_a_gap<K: Kind>() {
    let mut kind: K = make_with(&["a=last"]).await;
    publish_all(kind.log(), &[("a", "1"), ("b", "2"), ("a", "3"), ("a", "4")]).await;
    for _ in 0..3 {
        let failing = Query { on_gap: OnGap::Fail, ..query(ALL, from_sequence(1)) };
        assert_eq!(texts(kind.log(), failing).await, ["2", "4"], "the last one, at once");
        let topics = kind.log().list_topics(Some("a"), 1, None).await.unwrap().topics;
        assert_eq!((topics[0].messages, number(topics[0].first.sequence)), (1, 4));
        kind.keep().await;
        kind.reopen().await;
    }
    kind.log().purge_topic("a", None).await.unwrap();
    let (_, events) = read(kind.log(), query(&["a"], from_sequence(1))).await;
    assert_eq!(events, [removed(1, 4)], "a purge is");
}

pub async fn a_gap_is_reported_after_a_restart<K: Kind>() {
    let mut kind = trimmed::<K>().await;
    let early = position(kind.log(), query(&["none"], Start::Resume(start_of(&kind).await))).await;
    assert_eq!(number(early.sequence()), 6);
    for _ in 0..2 {
        kind.reopen().await;
        let (messages, events) = read(kind.log(), query(&["a"], from_sequence(1))).await;
        assert_eq!((messages, events), (vec![(5, "5".into())], vec![removed(1, 3)]));
    }
}

pub async fn a_topic_that_is_trimmed_after_the_start_has_a_gap_also_for_a_cursor<K: Kind>() {
    let mut kind: K = make().await;
    let all = [("a", "1"), ("b", "2"), ("b", "3"), ("a", "4"), ("b", "5")];
    publish_all(kind.log(), &all).await;
    kind.log().purge_topic("a", None).await.unwrap();
    let begun = position(kind.log(), with_limit(query(ALL, Start::Earliest), 1)).await;
    assert_eq!(number(begun.sequence()), 2);
    let (messages, events) = read(kind.log(), query(ALL, Start::Resume(begun.clone()))).await;
    assert_eq!((messages.len(), events), (2, vec![]), "nothing was removed since");
    kind.log().purge_topic("b", Some(sequence(3))).await.unwrap();
    let later = position(kind.log(), with_limit(query(ALL, Start::Earliest), 1)).await;
    kind.log().commit_cursor("c", begun.clone(), false).await.unwrap();
    let consumer = || Query { consumer: Some("c".into()), ..query(ALL, Start::Earliest) };
    for _ in 0..3 {
        for resumed in [query(ALL, Start::Resume(begun.clone())), consumer()] {
            let (messages, events) = read(kind.log(), resumed).await;
            assert_eq!((messages, events), (vec![(5, "5".into())], vec![removed(3, 3)]));
        }
        let (_, events) = read(kind.log(), query(ALL, Start::Resume(later.clone()))).await;
        assert_eq!(events, [], "it was removed before this reader began");
        kind.reopen().await;
    }
}

async fn start_of<K: Kind>(kind: &K) -> Position {
    let stop = Stop { sequence: Sequence::new(1), ..Stop::default() };
    position(kind.log(), Query { stop, ..query(&["none"], Start::Earliest) }).await
}

pub async fn a_topic_without_messages_has_its_gap_still<K: Kind>() {
    let mut kind: K = make_with(&["a=age:1s"]).await;
    publish_all(kind.log(), &[("a", "1"), ("a", "2"), ("b", "3")]).await;
    let begun = position(kind.log(), with_limit(query(ALL, Start::Earliest), 1)).await;
    kind.pass(Duration::from_secs(2));
    kind.keep().await;
    for _ in 0..3 {
        for topics in [ALL, &["a"]] {
            let (_, events) = read(kind.log(), query(topics, Start::Resume(begun.clone()))).await;
            assert_eq!(events, [removed(2, 2)]);
        }
        kind.keep().await;
        kind.reopen().await;
    }
    publish(kind.log(), "a", "4").await;
    kind.reopen().await;
    let (messages, events) = read(kind.log(), query(&["a"], Start::Resume(begun))).await;
    assert_eq!((messages.len(), events), (1, vec![removed(2, 2)]));
}

pub async fn an_expired_message_is_read_neither_live_nor_from_disk<K: Kind>() {
    let mut kind: K = make().await;
    let mut stream = subscribe(kind.log(), live(&["a"], Start::New)).await.unwrap();
    next(&mut stream).await.unwrap();
    kind.log().publish(with_ttl("a", "1", 1000)).await.unwrap();
    assert_eq!(texts_in(&news(&mut stream).await), ["1"]);
    kind.log().publish(with_ttl("a", "2", 1000)).await.unwrap();
    publish(kind.log(), "a", "3").await;
    kind.log().publish(with_ttl("a", "4", 5000)).await.unwrap();
    kind.pass(Duration::from_secs(2));
    assert_eq!(until_text(&mut stream, "4").await, ["3", "4"]);
    drop(stream);
    for (passed, expected) in [(0, &["3", "4"][..]), (4, &["3"])] {
        kind.pass(Duration::from_secs(passed));
        for _ in 0..2 {
            for start in
                [Start::Earliest, Start::Last(9), from_sequence(1), Start::Time(SystemTime::UNIX_EPOCH)]
            {
                assert_eq!(texts(kind.log(), query(&["a"], start)).await, expected);
            }
            kind.reopen().await;
        }
    }
}

pub async fn the_first_rule_that_matches_holds_and_others_do_not<K: Kind>() {
    let kind: K = make_with(&["a.b=count:2", "a.*=count:1", ">=count:3"]).await;
    for n in 0..5 {
        let n = n.to_string();
        publish_all(kind.log(), &[("a.b", &n), ("a.c", &n), ("d", &n)]).await;
    }
    kind.keep().await;
    for (topic, expected) in [("a.b", &["3", "4"][..]), ("a.c", &["4"]), ("d", &["2", "3", "4"])] {
        assert_eq!(texts(kind.log(), query(&[topic], Start::Earliest)).await, expected, "{topic}");
    }
}
