//! A wrong clock and erasure: which bytes are overwritten, and when, and that no reader takes them for damage.

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
const DELAY: Duration = Duration::from_secs(600);

/// A log in whose files a purged topic "purged", an expired one "e", an old one "old" and a superseded one "state" live
/// beside each other, and beside a topic "b" of which everything is kept. The clock is not in doubt.
async fn with_all() -> Bed {
    let bed = Bed::with(&["state=last", "old=age:1s"], |config| config.removal_delay = DELAY).await;
    bed.config.clock.advance(DELAY);
    for n in 0..30 {
        let secret = |topic: &str| text(topic, &format!("{SECRET} {topic} {n} {}", "s".repeat(100)));
        let expiring = NewMessage { ttl: Some(SECOND), ..secret("e") };
        let kept = text("b", &"kept".repeat(200));
        let all = vec![secret("purged"), secret("state"), expiring, secret("old"), kept];
        bed.log.publish_batch(all).await.unwrap();
    }
    bed.log.publish(text("state", "last")).await.unwrap();
    embedded(&bed.log).settle().await;
    bed
}

impl Bed {
    /// Starts the machine again, and sets its clock.
    async fn start_again(&mut self, set: impl FnOnce(&Clock)) {
        self.log.close().await;
        self.config.clock.reboot(Duration::ZERO);
        set(&self.config.clock);
        self.log = Self::open(&self.config).await;
    }
}

fn files_of(bed: &Bed, topic: &str) -> usize {
    files_with(&bed.disk, &format!("{SECRET} {topic} ")).len()
}

async fn damage(log: &Log) -> Vec<Event> {
    let (_, events) = read(log, query(&[">"], Start::Earliest)).await;
    events.into_iter().filter(|event| matches!(event, Event::Damaged(_))).collect()
}

#[tokio::test]
async fn while_the_clock_is_in_doubt_only_purged_messages_are_erased() {
    let mut bed = with_all().await;
    for is_start in [true, false] {
        if is_start {
            bed.log.close().await;
            bed.config.clock.advance(2 * SECOND);
            bed.log = Bed::open(&bed.config).await;
        } else {
            bed.config.clock.forward(DAY);
            bed.publish("b", "after the step").await;
        }
        if is_start {
            bed.log.purge_topic("purged", None).await.unwrap();
        }
        for passed in [Duration::ZERO, 599 * SECOND] {
            bed.config.clock.advance(passed);
            bed.enforce().await;
            embedded(&bed.log).sweep().await;
            assert_eq!(files_of(&bed, "purged"), 0, "start: {is_start}, {passed:?}");
            for topic in ["e", "old", "state"] {
                assert!(files_of(&bed, topic) > 1, "{topic}, start: {is_start}, {passed:?}");
            }
        }
    }
    bed.config.clock.advance(SECOND);
    embedded(&bed.log).sweep().await;
    for topic in ["e", "old", "state"] {
        assert_eq!(files_of(&bed, topic), 0, "{topic}");
    }
    assert_eq!(damage(&bed.log).await, []);
}

#[tokio::test]
async fn a_sweep_while_the_clock_is_ahead_hides_no_message_that_is_published_after_it() {
    let mut bed = Bed::with(&[], |config| config.removal_delay = DELAY).await;
    bed.config.clock.forward(40 * DAY);
    bed.publish("b", "after the step").await;
    bed.config.clock.advance(DELAY);
    embedded(&bed.log).sweep().await;
    bed.config.clock.back(40 * DAY);
    bed.log.publish(NewMessage { ttl: Some(DAY), ..text("e", "1") }).await.unwrap();
    for _ in 0..2 {
        assert_eq!(bed.texts(&["e"]).await, ["1"]);
        bed.enforce().await;
        embedded(&bed.log).sweep().await;
        bed.config.clock.advance(DELAY);
    }
    bed.reopen().await;
    assert_eq!(bed.texts(&["e"]).await, ["1"]);
    bed.config.clock.advance(DAY);
    assert_eq!(bed.texts(&["e"]).await, [""; 0]);
}

#[tokio::test]
async fn superseded_messages_beside_purged_ones_do_not_look_damaged_without_the_rule() {
    let bed = with_all().await;
    bed.log.purge_topic("purged", None).await.unwrap();
    bed.enforce().await;
    assert_eq!(files_of(&bed, "purged"), 0);
    let disk = Storage::Simulated(bed.disk.kill());
    let (log, _) =
        Log::open(Path::new("/log"), Config { disk, retention: vec![], ..bed.config.clone() }).unwrap();
    assert_eq!(damage(&log).await, []);
}

/// Messages of "e" with a ttl of 30 days are erased while the machine runs with a clock that is 40 days ahead; then the clock
/// is set, and the server is started again. The first message of "e" and those of "b" and "c" are kept.
async fn erased_too_early() -> Bed {
    let mut bed = Bed::with(&[], |_| ()).await;
    bed.publish("e", "first").await;
    for n in 0..40 {
        let secret = NewMessage { ttl: Some(30 * DAY), ..text("e", &format!("{SECRET} {n}")) };
        let all = vec![text("b", &"b".repeat(600)), secret, text("c", &n.to_string())];
        bed.log.publish_batch(all).await.unwrap();
    }
    bed.start_again(|clock| clock.forward(40 * DAY)).await;
    embedded(&bed.log).sweep().await;
    assert_eq!(files_with(&bed.disk, SECRET).len(), 0);
    bed.config.clock.back(40 * DAY);
    bed.publish("c", "40").await;
    bed.log.close().await;
    bed.log = Bed::open(&bed.config).await;
    bed
}

#[tokio::test]
async fn a_reader_passes_over_messages_that_were_erased_by_a_wrong_clock() {
    let bed = erased_too_early().await;
    let of_c = (0..=40).map(|n| n.to_string()).collect::<Vec<_>>();
    let small = Batching { max_items: 1, ..Batching::default() };
    for topics in [&[">"][..], &["e"], &["c", "e"]] {
        for start in [Start::Earliest, Start::LastPerTopic, Start::Last(1000)] {
            for batching in [Batching::default(), small.clone()] {
                let query = Query { batching, ..query(topics, start.clone()) };
                let (messages, events) = read(&bed.log, query).await;
                let texts = messages.into_iter().map(|(_, text)| text).collect::<Vec<_>>();
                assert_eq!(events, [], "{topics:?} {start:?}");
                assert!(!texts.iter().any(|text| text.contains(SECRET)), "{topics:?} {start:?}");
                let seen = texts.into_iter().filter(|text| of_c.contains(text)).collect::<Vec<_>>();
                let expected = match (topics, &start) {
                    (["e"], _) => &[][..],
                    (_, Start::LastPerTopic) => &of_c[40..],
                    _ => &of_c,
                };
                assert_eq!(seen, expected, "{topics:?} {start:?}");
            }
        }
    }
}

#[tokio::test]
async fn messages_that_were_erased_by_a_wrong_clock_stay_erased_when_their_neighbours_are_erased_again() {
    for (short, long) in [(0, 1), (1, 0), (0, 2)] {
        let mut bed = Bed::with(&[], |_| ()).await;
        for topic in ["e", "f", "g"] {
            bed.publish(topic, "first").await;
        }
        // Three neighbours that expire, one of them soon.
        let ttl = |place| if place == short { 60 * SECOND } else { 30 * DAY };
        let secret = |place| NewMessage { ttl: Some(ttl(place)), ..text(["e", "f", "g"][place], SECRET) };
        bed.log.publish_batch((0..3).map(secret).collect()).await.unwrap();
        bed.publish("c", "kept").await;
        bed.start_again(|clock| clock.forward(40 * DAY)).await;
        embedded(&bed.log).sweep().await;
        bed.config.clock.back(40 * DAY);
        bed.publish("c", "kept").await;
        bed.reopen().await;
        assert_eq!(damage(&bed.log).await, []);
        bed.log.purge_topic(["e", "f", "g"][long], None).await.unwrap();
        bed.config.clock.advance(60 * SECOND);
        bed.enforce().await;
        embedded(&bed.log).sweep().await;
        assert_eq!(damage(&bed.log).await, [], "{short}, {long}");
        bed.reopen().await;
        assert_eq!(damage(&bed.log).await, [], "{short}, {long}");
        assert_eq!(bed.texts(&[">"]).await, ["first", "first", "kept", "kept"]);
    }
}

#[tokio::test]
async fn a_segment_with_messages_that_were_erased_by_a_wrong_clock_is_compacted() {
    let bed = erased_too_early().await;
    let before = bed.segments().len();
    bed.log.purge_topic("b", None).await.unwrap();
    bed.enforce().await;
    assert!(bed.segments().len() < before, "{before}: {:?}", bed.segments());
    assert_eq!(damage(&bed.log).await, []);
    assert_eq!(bed.texts(&["c", "e"]).await.len(), 42);
}

#[tokio::test]
async fn a_power_cut_while_a_wrong_clock_erases_leaves_no_damage() {
    let mut bed = Bed::with(&[], |_| ()).await;
    bed.publish("e", "first").await;
    let mut kept = vec!["first".to_owned()];
    for n in 0..2 {
        let secret =
            || NewMessage { ttl: Some(30 * DAY), ..text("e", &format!("{SECRET} {}", "s".repeat(300))) };
        // Long enough that the segment is not compacted.
        let long = format!("{n} {}", "c".repeat(2000));
        bed.log.publish_batch(vec![secret(), secret(), text("c", &long), secret()]).await.unwrap();
        kept.push(long);
    }
    // A purge beside messages that were erased, which have one stamp with it.
    let purged = NewMessage { ttl: Some(30 * DAY), ..text("e", SECRET) };
    bed.log.publish_batch(vec![text("p", SECRET), purged]).await.unwrap();
    bed.log.close().await;
    let right = bed.config.clock.now();
    let mut before = bed.disk.kill();
    for is_purge in [false, true] {
        for call in 0.. {
            let disk = before.kill();
            bed.config.disk = Storage::Simulated(disk.clone());
            bed.config.clock.reboot(Duration::ZERO);
            bed.config.clock.set(right + 40 * DAY);
            bed.log = Bed::open(&bed.config).await;
            let first = disk.calls();
            disk.fail_at(first + call, Fault::Power);
            if is_purge {
                let _ = bed.log.purge_topic("p", None).await;
                bed.enforce().await;
            } else {
                embedded(&bed.log).sweep().await;
            }
            let is_over = disk.calls() <= first + call;
            // A stamp can be torn only within a sector: then its message is reported as damaged.
            for seed in (0..15).filter(|seed| !Random::new(*seed).one_in(3)) {
                let disk = if is_over { disk.kill() } else { disk.lose_power(seed) };
                bed.config.disk = Storage::Simulated(disk.clone());
                bed.config.clock.reboot(Duration::ZERO);
                bed.config.clock.set(right);
                bed.log = Bed::open(&bed.config).await;
                assert_eq!(damage(&bed.log).await, [], "purge {is_purge}, call {call}, seed {seed}");
                let texts = bed.texts(&["c", "e"]).await;
                assert!(kept.iter().all(|text| texts.contains(text)), "{texts:?}");
            }
            if is_over {
                assert!(call > 5, "purge {is_purge}: {call}");
                before = disk.kill();
                break;
            }
        }
    }
}
