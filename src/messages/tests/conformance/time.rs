//! What a wrong clock does, and what it must not do.

use std::time::UNIX_EPOCH;

use super::*;

const ALL: &[&str] = &[">"];

const SECOND: Duration = Duration::from_secs(1);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// By how much the clock is wrong: forward, back, and as after a start without a clock that runs without power.
fn wrong(right: SystemTime) -> [(&'static str, SystemTime); 5] {
    [
        ("40 days ahead", right + 40 * DAY),
        ("30 minutes ahead", right + 1800 * SECOND),
        ("30 minutes behind", right - 1800 * SECOND),
        ("40 days behind", right - 40 * DAY),
        ("in 1970", UNIX_EPOCH + 10 * SECOND),
    ]
}

/// Messages 1 to 6, a second apart; 3 and 4 with the clock an hour ahead, 5 with the clock an hour behind. Returns their
/// times.
async fn six<K: Kind>(kind: &K) -> Vec<SystemTime> {
    let begin = kind.now();
    let mut times = Vec::new();
    for (n, topic) in (1..=6_u32).zip(["a", "b", "a", "c.d", "a", "b"]) {
        kind.pass(SECOND);
        let right = begin + n * SECOND;
        kind.set_clock(match n {
            3 | 4 => right + 3600 * SECOND,
            5 => right - 3600 * SECOND,
            _ => right,
        });
        let published = kind.log().publish(text(topic, &n.to_string())).await.unwrap();
        assert_eq!(published.time, kind.now(), "message {n}");
        times.push(published.time);
    }
    times
}

fn until(time: SystemTime) -> Stop {
    Stop { time: Some(time), ..Stop::default() }
}

pub async fn the_publish_time_is_the_wall_clock_as_it_was_read<K: Kind>() {
    let mut kind: K = make().await;
    let times = six(&kind).await;
    for _ in 0..2 {
        let mut batches = subscribe(kind.log(), query(ALL, Start::Earliest)).await.unwrap();
        let mut seen = Vec::new();
        while let Some(batch) = next(&mut batches).await {
            seen.extend(
                decode(&batch)
                    .into_iter()
                    .map(|message| SystemTime::try_from(message.publish_time.unwrap()).unwrap()),
            );
        }
        assert_eq!(seen, times);
        kind.reopen().await;
    }
}

pub async fn time_selects_and_does_not_position<K: Kind>() {
    let mut kind: K = make().await;
    let times = six(&kind).await;
    let moment = Duration::from_nanos(1);
    for _ in 0..2 {
        for (time, expected) in [
            (times[1], &["2", "3", "4", "6"][..]),
            (times[1] + moment, &["3", "4", "6"]),
            (times[2], &["3", "4"]),
            (times[3] + moment, &[]),
            (times[4], &["1", "2", "3", "4", "5", "6"]),
            (UNIX_EPOCH, &["1", "2", "3", "4", "5", "6"]),
        ] {
            for query in [query(ALL, Start::Time(time)), one_by_one(query(ALL, Start::Time(time)))] {
                assert_eq!(texts(kind.log(), query).await, expected, "from {time:?}");
            }
        }
        for (time, expected) in [
            (times[1], &["1", "2", "5"][..]),
            (times[5], &["1", "2", "5", "6"]),
            (times[2], &["1", "2", "3", "5", "6"]),
            (times[4], &["5"]),
            (times[4] - moment, &[]),
        ] {
            let query = Query { stop: until(time), ..query(ALL, Start::Earliest) };
            kind.pass(2 * SECOND);
            let query = Query { stop: Stop { caught_up: true, ..query.stop }, ..query };
            assert_eq!(texts(kind.log(), query.clone()).await, expected, "until {time:?}");
            assert_eq!(texts(kind.log(), one_by_one(query)).await, expected, "until {time:?}");
        }
        let both = Query { stop: until(times[5]), ..query(ALL, Start::Time(times[1])) };
        assert_eq!(texts(kind.log(), both).await, ["2", "6"]);
        kind.reopen().await;
    }
}

pub async fn a_start_time_selects_up_to_the_head_and_then_everything_comes<K: Kind>() {
    let kind: K = make().await;
    let times = six(&kind).await;
    let mut stream = subscribe(kind.log(), live(ALL, Start::Time(times[2]))).await.unwrap();
    assert_eq!(until_text(&mut stream, "4").await, ["3", "4"]);
    // The clock is right, or far behind: these messages are later all the same.
    publish(kind.log(), "a", "7").await;
    kind.set_clock(times[0] - 10 * DAY);
    publish(kind.log(), "a", "8").await;
    assert_eq!(until_text(&mut stream, "8").await, ["7", "8"]);
}

pub async fn a_position_keeps_its_start_time_until_it_is_past_the_head_of_the_start<K: Kind>() {
    let mut kind: K = make().await;
    let times = six(&kind).await;
    let expected = ["2", "3", "4", "6", "7", "8"];
    let start = live(ALL, Start::Time(times[1]));
    let opening = next(&mut subscribe(kind.log(), one_by_one(start)).await.unwrap()).await.unwrap();
    kind.set_clock(times[0] - DAY);
    publish_all(kind.log(), &[("a", "7"), ("b", "8")]).await;
    // Each message in a call of its own.
    let (mut seen, mut position) = (texts_in(&opening), opening.position);
    while seen.len() < expected.len() {
        let text = crate::cursor::encode(&position);
        let resumed = one_by_one(query(ALL, Start::Resume(crate::cursor::decode(&text).unwrap())));
        let mut stream = subscribe(kind.log(), resumed).await.unwrap();
        let batch = next(&mut stream).await.unwrap();
        seen.extend(texts_in(&batch));
        position = batch.position;
        if seen.len() == 3 {
            kind.reopen().await;
        }
    }
    assert_eq!(seen, expected);
    assert_eq!(position.since, None, "it is past the head of the start");
}

pub async fn a_time_to_stop_at_selects_up_to_the_head_when_the_clock_has_passed_it<K: Kind>() {
    let kind: K = make().await;
    let start = kind.now();
    let end = start + 10 * SECOND;
    let stop = Query { stop: until(end), ..query(ALL, Start::Earliest) };
    let mut stream = subscribe(kind.log(), stop.clone()).await.unwrap();
    next(&mut stream).await.unwrap();
    publish(kind.log(), "a", "1").await;
    kind.set_clock(end + SECOND / 2);
    publish(kind.log(), "a", "2 late").await;
    kind.set_clock(end);
    publish(kind.log(), "a", "3").await;
    assert_eq!(until_text(&mut stream, "3").await, ["1", "3"]);
    kind.set_clock(end + 2 * SECOND);
    publish(kind.log(), "a", "4 late").await;
    while let Some(batch) = next(&mut stream).await {
        assert_eq!(batch.count, 0);
    }
    // Now the head is fixed when the call begins.
    let mut stream = subscribe(kind.log(), one_by_one(stop)).await.unwrap();
    let mut seen = texts_in(&next(&mut stream).await.unwrap());
    kind.set_clock(end);
    publish(kind.log(), "a", "5 after the end").await;
    while let Some(batch) = next(&mut stream).await {
        seen.extend(texts_in(&batch));
    }
    assert_eq!(seen, ["1", "3"]);
}

pub async fn a_time_selects_from_one_topic_of_many<K: Kind>() {
    let mut kind: K = make().await;
    let begin = kind.now();
    // Several segments; every tenth message has a time that is an hour ahead or behind.
    for n in 0..300_u32 {
        let wrong = 3600 * SECOND * u32::from(n % 10 == 0);
        let right = begin + 10_000 * SECOND + n * SECOND;
        kind.set_clock(if n % 20 == 0 { right + wrong } else { right - wrong });
        let topic = if n % 7 == 0 { "few".to_owned() } else { format!("many.{}", n % 5) };
        publish(kind.log(), &topic, &format!("{n} {}", "x".repeat(300))).await;
    }
    let time = |n: u32| {
        let right = begin + 10_000 * SECOND + n * SECOND;
        match n % 20 {
            0 => right + 3600 * SECOND,
            10 => right - 3600 * SECOND,
            _ => right,
        }
    };
    for _ in 0..2 {
        for topics in [&["few"][..], ALL, &["few", "many.3"]] {
            for (from, to) in [(0, 299), (70, 200), (140, 150), (20, 299), (10, 150), (299, 10)] {
                let (from, to) = (time(from), time(to));
                let is_wanted = |n: &u32| {
                    let is_few = n.is_multiple_of(7);
                    let matches = topics == ALL || is_few || topics.len() == 2 && n % 5 == 3;
                    matches && time(*n) >= from && time(*n) <= to
                };
                let expected = (0..300).filter(is_wanted).map(|n| n.to_string()).collect::<Vec<_>>();
                let stop = Stop { time: Some(to), caught_up: true, ..Stop::default() };
                let query = Query { stop, ..query(topics, Start::Time(from)) };
                let seen = texts(kind.log(), query).await;
                let seen = seen.iter().map(|text| text.split(' ').next().unwrap().to_owned());
                assert_eq!(seen.collect::<Vec<_>>(), expected, "{topics:?} {from:?} {to:?}");
            }
        }
        kind.reopen().await;
    }
}

pub async fn a_time_selects_from_the_last_messages_of_topics<K: Kind>() {
    let kind: K = make().await;
    let times = six(&kind).await;
    for (time, expected) in [(times[5], &["5", "6"][..]), (times[3], &["4", "5", "6"]), (times[4], &["5"])] {
        let stop = Stop { time: Some(time), caught_up: true, ..Stop::default() };
        let query = Query { stop, ..query(ALL, Start::LastPerTopic) };
        assert_eq!(texts(kind.log(), query).await, expected);
    }
}

/// Publishes while the clock is wrong, while it is right, and before it is wrong, and lets it be right again after an hour.
/// `is_there` is asked an hour after each of the three, and two hours.
async fn through_wrong_clocks<K: Kind>(
    make: impl AsyncFn() -> K,
    publish: impl AsyncFn(&K, &str),
    is_there: impl AsyncFn(&K, &str) -> bool,
) {
    let hour = 3600 * SECOND;
    for (what, wrong) in wrong(make().await.now()) {
        let kind = make().await;
        let right = kind.now();
        publish(&kind, "before").await;
        kind.set_clock(wrong);
        publish(&kind, "while").await;
        kind.pass(hour / 2);
        assert!(is_there(&kind, "before").await && is_there(&kind, "while").await, "{what}");
        kind.set_clock(right + hour / 2);
        assert!(is_there(&kind, "before").await && is_there(&kind, "while").await, "{what}, right again");
        publish(&kind, "after").await;
        kind.pass(1799 * SECOND);
        for name in ["before", "while", "after"] {
            assert!(is_there(&kind, name).await, "{what}: {name} is gone too early");
        }
        kind.pass(2 * SECOND);
        for name in ["before", "while"] {
            assert!(!is_there(&kind, name).await, "{what}: {name} is there too long");
        }
        assert!(is_there(&kind, "after").await, "{what}");
        kind.pass(hour / 2);
        assert!(!is_there(&kind, "after").await, "{what}: it is there too long");
    }
}

pub async fn a_ttl_lasts_as_long_whatever_the_clock_shows<K: Kind>() {
    let publish = async |kind: &K, name: &str| {
        kind.log().publish(with_ttl(name, "1", 3_600_000)).await.unwrap();
    };
    let is_there = async |kind: &K, name: &str| {
        let live = texts(kind.log(), query(&[name], Start::Earliest)).await.len() == 1;
        let last = texts(kind.log(), query(&[name], Start::LastPerTopic)).await.len() == 1;
        assert_eq!(live, last);
        live
    };
    through_wrong_clocks(async || make::<K>().await, publish, is_there).await;
}

pub async fn an_id_is_known_as_long_whatever_the_clock_shows<K: Kind>() {
    let with_id = |name: &str| NewMessage { message_id: Some("id".into()), ..text(name, "1") };
    let publish = async |kind: &K, name: &str| {
        assert!(!kind.log().publish(with_id(name)).await.unwrap().duplicate);
    };
    let is_there = async |kind: &K, name: &str| kind.log().publish(with_id(name)).await.unwrap().duplicate;
    let make = async || K::make(|config| config.dedupe_window = Duration::from_secs(3600)).await;
    through_wrong_clocks(make, publish, is_there).await;
}

pub async fn a_message_is_kept_as_long_whatever_the_clock_shows<K: Kind>() {
    let publish = async |kind: &K, name: &str| _ = publish(kind.log(), name, "1").await;
    let is_there = async |kind: &K, name: &str| {
        kind.keep().await;
        !kind.log().list_topics(Some(name), 1, None).await.unwrap().topics.is_empty()
    };
    through_wrong_clocks(async || make_with::<K>(&[">=age:1h"]).await, publish, is_there).await;
}

pub async fn an_early_time_takes_no_message_before_it_along<K: Kind>() {
    let mut kind: K = make_with(&["a=age:1h"]).await;
    publish(kind.log(), "a", "1").await;
    publish(kind.log(), "b", "1").await;
    // The machine starts with a clock that is a day behind, and then again with one that is right.
    kind.reboot(kind.now() - DAY).await;
    publish(kind.log(), "a", "2 early").await;
    kind.reboot(kind.now() + DAY).await;
    publish(kind.log(), "a", "3").await;
    for _ in 0..2 {
        kind.keep().await;
        let seen = texts(kind.log(), query(&["a"], Start::Earliest)).await;
        assert_eq!(seen, ["1", "2 early", "3"], "2 is due, but those before it are not");
        kind.reopen().await;
    }
    kind.pass(3601 * SECOND);
    kind.keep().await;
    assert!(texts(kind.log(), query(&["a"], Start::Earliest)).await.is_empty());
}
