//! A wrong clock and the embedded log: what stays on the disk and for how long, reboots, and the order of writes.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// For this long the clock is in doubt.
const DELAY: Duration = Duration::from_secs(600);

/// A second less.
const ALMOST: Duration = Duration::from_secs(599);

async fn bed(rules: &[&str]) -> Bed {
    let bed = Bed::with(rules, |config| config.removal_delay = DELAY).await;
    // The time in which nothing is removed is over.
    bed.config.clock.advance(DELAY);
    bed
}

impl Bed {
    fn clock(&self) -> &Clock {
        &self.config.clock
    }

    /// Starts the machine again, with a wall clock that `set` sets.
    async fn start_machine(&mut self, down: Duration, set: impl FnOnce(&Clock)) {
        self.log.close().await;
        self.clock().reboot(down);
        set(self.clock());
        self.log = Self::open(&self.config).await;
    }

    async fn count(&self, topic: &str) -> usize {
        read(&self.log, query(&[topic], Start::Earliest)).await.0.len()
    }
}

#[tokio::test]
async fn messages_that_are_due_are_gone_at_once_and_leave_the_disk_when_the_clock_is_not_in_doubt() {
    let mut bed = bed(&["a=age:1h"]).await;
    for is_start in [true, false] {
        bed.fill("a", 40).await;
        let before = bed.segments();
        assert!(before.len() > 4);
        let is_kept = |bed: &Bed| {
            let after = bed.segments();
            before.iter().all(|(name, _)| after.iter().any(|(other, _)| other == name))
        };
        if is_start {
            bed.log.close().await;
            bed.clock().advance(2 * HOUR);
            bed.log = Bed::open(&bed.config).await;
        } else {
            bed.clock().advance(2 * HOUR);
            bed.clock().forward(DAY);
            bed.publish("b", "after the step").await;
        }
        bed.enforce().await;
        assert_eq!((bed.count("a").await, bed.topic("a").await), (0, None), "no reader gets them");
        assert!(is_kept(&bed));
        bed.clock().advance(ALMOST);
        bed.enforce().await;
        assert!(is_kept(&bed), "start: {is_start}");
        bed.clock().advance(Duration::from_secs(1));
        bed.enforce().await;
        assert!(bed.segments().len() <= 2, "start: {is_start}: {:?}", bed.segments());
    }
}

#[tokio::test]
async fn a_clock_that_is_set_again_and_again_does_not_keep_due_messages_on_the_disk() {
    let bed = bed(&["a=age:1h"]).await;
    bed.fill("a", 40).await;
    bed.clock().advance(2 * HOUR);
    for _ in 0..4 {
        bed.clock().back(Duration::from_secs(1));
        bed.publish("b", "after the step").await;
        bed.enforce().await;
        bed.clock().advance(DELAY / 2);
    }
    assert!(bed.segments().len() <= 3, "{:?}", bed.segments());
}

#[tokio::test]
async fn limits_that_do_not_depend_on_the_clock_free_room_while_it_is_in_doubt() {
    let bed = bed(&["a=count:3", "b=last"]).await;
    bed.clock().back(HOUR);
    bed.fill("a", 40).await;
    bed.enforce().await;
    assert!(bed.segments().len() <= 3, "{:?}", bed.segments());
    bed.fill("b", 40).await;
    bed.enforce().await;
    assert!(bed.segments().len() <= 4, "{:?}", bed.segments());
    bed.log.purge_topic("a", None).await.unwrap();
    bed.enforce().await;
    assert!(bed.segments().len() <= 3, "{:?}", bed.segments());
}

#[tokio::test]
async fn a_machine_that_starts_with_a_clock_that_is_ahead_loses_nothing_once_it_is_set() {
    let mut bed = bed(&["a=age:30d"]).await;
    bed.fill("a", 40).await;
    bed.clock().advance(DAY);
    bed.fill("a", 1).await;
    let before = bed.segments();
    bed.start_machine(HOUR, |clock| clock.forward(40 * DAY)).await;
    bed.enforce().await;
    assert_eq!((bed.count("a").await, bed.segments().len()), (41, before.len()), "the clock is in doubt");
    bed.publish("b", "wakes the committer").await;
    bed.clock().advance(DELAY / 2);
    bed.clock().back(40 * DAY);
    for _ in 0..3 {
        bed.clock().advance(DELAY);
        bed.enforce().await;
        bed.publish("b", "2").await;
    }
    assert_eq!(bed.count("a").await, 41);
    bed.clock().advance(29 * DAY);
    bed.enforce().await;
    assert_eq!(bed.count("a").await, 1, "those of the first day are due");
    bed.clock().advance(DAY);
    bed.enforce().await;
    assert_eq!(bed.count("a").await, 0);
}

#[tokio::test]
async fn a_machine_that_starts_in_1970_removes_nothing_early_and_is_right_when_ntp_has_set_its_clock() {
    let mut bed = bed(&["a=age:7d"]).await;
    let ttl = Some(7 * DAY);
    bed.log.publish(NewMessage { ttl, ..text("a", "1") }).await.unwrap();
    for start in 0..3 {
        let now = bed.clock().now();
        bed.start_machine(HOUR, |clock| clock.set(SystemTime::UNIX_EPOCH + Duration::from_secs(9))).await;
        bed.log.publish(NewMessage { ttl, ..text("a", "in 1970") }).await.unwrap();
        // Once it runs for longer than the clock is in doubt.
        bed.clock().advance(if start == 1 { 2 * DELAY } else { DELAY / 2 });
        bed.enforce().await;
        assert_eq!(bed.count("a").await, 2 + 2 * start);
        bed.clock().set(now + 2 * HOUR);
        bed.log.publish(NewMessage { ttl, ..text("a", "right again") }).await.unwrap();
        bed.clock().advance(2 * DELAY);
        bed.enforce().await;
        assert_eq!(bed.count("a").await, 3 + 2 * start);
    }
    bed.clock().advance(6 * DAY + 23 * HOUR);
    bed.enforce().await;
    assert!(bed.count("a").await > 0);
    bed.clock().advance(HOUR);
    bed.enforce().await;
    assert_eq!(bed.count("a").await, 0);
}

#[tokio::test]
async fn a_step_over_a_restart_of_the_server_changes_no_age() {
    for set in [Clock::forward, Clock::back] {
        let mut bed = bed(&["a=age:1h"]).await;
        let with_id = NewMessage { message_id: Some("id".into()), ..text("b", "1") };
        bed.log.publish(with_id.clone()).await.unwrap();
        bed.log.publish(NewMessage { ttl: Some(HOUR), ..text("c", "1") }).await.unwrap();
        bed.publish("a", "1").await;
        bed.log.close().await;
        set(bed.clock(), 40 * DAY);
        bed.log = Bed::open(&bed.config).await;
        assert_eq!(embedded_of(&bed.log).clock_steps(), 1);
        assert!(bed.log.publish(with_id.clone()).await.unwrap().duplicate);
        bed.clock().advance(Duration::from_secs(2));
        assert!(!bed.log.publish(with_id).await.unwrap().duplicate, "the window is over");
        bed.clock().advance(Duration::from_secs(3597));
        bed.enforce().await;
        assert_eq!((bed.count("a").await, bed.count("c").await), (1, 1));
        bed.clock().advance(Duration::from_secs(2));
        bed.enforce().await;
        assert_eq!((bed.count("a").await, bed.count("c").await), (0, 0));
    }
}

fn embedded_of(log: &Log) -> &Embedded {
    log.embedded()
}

#[tokio::test]
async fn time_in_suspend_is_age_once_the_clock_has_had_time_to_be_set() {
    let bed = bed(&["a=age:1h"]).await;
    bed.publish("a", "1").await;
    let expiring = NewMessage { ttl: Some(HOUR), ..text("b", "1") };
    bed.log.publish(expiring).await.unwrap();
    bed.clock().suspend(2 * HOUR);
    for passed in [Duration::ZERO, ALMOST] {
        bed.clock().advance(passed);
        bed.publish("c", "after the suspension").await;
        bed.enforce().await;
        assert_eq!((bed.count("a").await, bed.count("b").await), (1, 0));
    }
    bed.clock().advance(Duration::from_secs(1));
    bed.enforce().await;
    assert_eq!((bed.count("a").await, embedded_of(&bed.log).clock_steps()), (0, 0));
}

#[tokio::test]
async fn a_hardware_clock_that_was_wrong_in_suspend_removes_nothing_once_the_clock_is_set() {
    let mut bed = bed(&["a=age:30d"]).await;
    bed.fill("a", 40).await;
    let before = bed.segments();
    bed.clock().suspend(40 * DAY);
    bed.enforce().await;
    bed.publish("b", "wakes the committer").await;
    bed.clock().advance(DELAY / 2);
    bed.enforce().await;
    let after = bed.segments();
    let is_kept = |(name, _): &(u64, u64)| after.iter().any(|(other, _)| other == name);
    assert!(bed.count("a").await == 40 && before.iter().all(is_kept), "the clock is in doubt");
    bed.clock().back(40 * DAY);
    for _ in 0..3 {
        bed.publish("b", "2").await;
        bed.clock().advance(DELAY);
        bed.enforce().await;
        bed.reopen().await;
    }
    assert_eq!(bed.count("a").await, 40);
    bed.clock().advance(30 * DAY);
    bed.enforce().await;
    bed.clock().advance(DELAY);
    bed.enforce().await;
    assert_eq!(bed.count("a").await, 0);
}

#[tokio::test]
async fn an_idle_log_notices_that_its_clock_was_set_or_that_the_machine_slept() {
    for (go_on, steps) in [(Clock::forward as fn(&Clock, Duration), 1), (Clock::suspend, 0)] {
        let bed = bed(&[]).await;
        bed.publish("a", "1").await;
        let end = bed.clock().now() + HOUR;
        let stop = Stop { time: Some(end), ..Stop::default() };
        let batching = Batching { heartbeat: 10 * PATIENCE, ..Batching::default() };
        let query = Query { stop, batching, ..query(&["a"], Start::Earliest) };
        let mut stream = subscribe(&bed.log, query).await.unwrap();
        assert_eq!(next(&mut stream).await.unwrap().count, 1);
        go_on(bed.clock(), DAY);
        while let Some(batch) = next(&mut stream).await {
            assert_eq!(batch.count, 0, "the time to stop at has passed");
        }
        assert_eq!(embedded_of(&bed.log).clock_steps(), steps);
    }
}

#[tokio::test]
async fn a_step_is_on_disk_before_a_message_is_published_after_it() {
    for (call, seed) in (0..24).flat_map(|call| (0..3).map(move |seed| (call, seed))) {
        let mut bed = Bed::with(&["a=age:1h"], |config| config.retention_interval = HOUR).await;
        bed.publish("a", "1").await;
        settle(&bed.log).await;
        bed.clock().forward(40 * DAY);
        bed.disk.fail_at(bed.disk.calls() + call, Fault::Power);
        let is_published = bed.log.publish(text("a", "2")).await.is_ok();
        let disk = bed.disk.lose_power(seed);
        bed.config.disk = Storage::Simulated(disk.clone());
        bed.disk = disk;
        // Another boot: the step is known only if it was recorded.
        bed.clock().reboot(Duration::ZERO);
        bed.clock().back(40 * DAY);
        bed.log = Bed::open(&bed.config).await;
        let seen = bed.texts(&["a"]).await;
        assert!(seen.len() > usize::from(is_published), "call {call}, seed {seed}");
        // The clock is right again: 2 was published in the future, and 1 counts as published then, or earlier.
        bed.clock().advance(HOUR + Duration::from_secs(1));
        enforce(&bed.log).await;
        assert_eq!(bed.count("a").await, 0, "call {call}, seed {seed}: {seen:?} outlives the wrong clock");
    }
}

#[tokio::test]
async fn a_step_that_a_full_disk_cannot_record_refuses_messages_until_there_is_room() {
    let bed = bed(&["a=age:1h"]).await;
    bed.publish("a", "1").await;
    settle(&bed.log).await;
    bed.clock().back(DAY);
    bed.disk.fail_at(bed.disk.calls(), Fault::Full);
    assert!(matches!(bed.log.publish(text("a", "2")).await, Err(Error::Full(_))));
    bed.publish("a", "3").await;
    assert_eq!((bed.count("a").await, embedded_of(&bed.log).clock_steps()), (2, 1));
    bed.clock().advance(HOUR + Duration::from_secs(1));
    bed.enforce().await;
    assert_eq!(bed.count("a").await, 0);
}

#[tokio::test]
async fn a_step_over_a_restart_is_on_disk_before_a_message_is_published_although_the_disk_was_full() {
    let mut opened = 0;
    for call in 0..40 {
        let bed = Bed::with(&[], |_| ()).await;
        bed.publish("a", "1").await;
        bed.log.close().await;
        bed.clock().back(DAY);
        bed.disk.fail_at(bed.disk.calls() + call, Fault::Full);
        let Ok((log, _)) = Log::open(Path::new("/log"), bed.config.clone()) else { continue };
        opened += 1;
        let ttl = Some(HOUR);
        let mut published = Err(Error::Closed);
        for _ in 0..2 {
            if published.is_err() {
                published = log.publish(NewMessage { ttl, ..text("a", "2") }).await;
            }
        }
        // A full disk may fail a sync, too; then nothing is published until a restart.
        assert!(matches!(published, Ok(_) | Err(Error::Failed)), "call {call}: {published:?}");
        if published.is_err() {
            continue;
        }
        let disk = Storage::Simulated(bed.disk.kill());
        let (log, _) = Log::open(Path::new("/log"), Config { disk, ..bed.config.clone() }).unwrap();
        let count = async || read(&log, query(&["a"], Start::Earliest)).await.0.len();
        assert_eq!(count().await, 2, "call {call}");
        bed.clock().advance(HOUR + Duration::from_secs(1));
        assert_eq!(count().await, 1, "call {call}");
    }
    assert!(opened > 0);
}

fn with_id(id: &str) -> NewMessage {
    NewMessage { message_id: Some(id.into()), ..text("ids", id) }
}

#[tokio::test]
async fn ids_are_known_for_their_window_although_the_machine_starts_with_a_clock_that_is_ahead() {
    for (down, ahead) in [(Duration::ZERO, 40 * DAY), (HOUR, DAY), (3 * DAY, Duration::ZERO)] {
        let mut bed = Bed::with(&[], |config| {
            (config.dedupe_window, config.removal_delay) = (HOUR, DELAY);
        })
        .await;
        let is_known = async |bed: &Bed, id: &str| bed.log.publish(with_id(id)).await.unwrap().duplicate;
        assert!(!is_known(&bed, "old").await);
        bed.clock().advance(HOUR + Duration::from_secs(1));
        assert!(!is_known(&bed, "new").await);
        bed.fill("a", 40).await;
        bed.start_machine(down, |clock| clock.forward(ahead)).await;
        let what = format!("down {down:?}, ahead {ahead:?}");
        assert!(is_known(&bed, "new").await, "{what}");
        bed.log.purge_topic("a", None).await.unwrap();
        bed.clock().advance(2 * DELAY);
        bed.enforce().await;
        bed.reopen().await;
        assert!(is_known(&bed, "new").await, "{what}, compacted");
        bed.clock().back(ahead);
        bed.clock().advance(4 * ALMOST);
        bed.reopen().await;
        assert!(is_known(&bed, "new").await, "{what}, the clock is right");
        assert!(!is_known(&bed, "old").await, "{what}: its window was over");
        bed.clock().advance(Duration::from_secs(5));
        assert!(!is_known(&bed, "new").await, "{what}: its window is over");
    }
}

#[tokio::test]
async fn a_boot_that_a_full_disk_cannot_record_is_recorded_with_a_later_message() {
    let mut published = 0;
    for call in 0..20 {
        let bed = Bed::with(&[], |_| ()).await;
        bed.publish("a", "1").await;
        bed.log.close().await;
        bed.clock().reboot(Duration::ZERO);
        bed.disk.fail_at(bed.disk.calls() + call, Fault::Full);
        let Ok((log, _)) = Log::open(Path::new("/log"), bed.config.clone()) else { continue };
        for _ in 0..2 {
            let _ = log.publish(text("a", "2")).await;
        }
        if *log.failed().borrow() {
            continue;
        }
        published += 1;
        // The step is measured only if the boot is the same.
        bed.clock().forward(DAY);
        let disk = Storage::Simulated(bed.disk.kill());
        let (log, _) = Log::open(Path::new("/log"), Config { disk, ..bed.config.clone() }).unwrap();
        assert_eq!(embedded_of(&log).clock_steps(), 1, "call {call}");
    }
    assert!(published > 0);
}

#[tokio::test]
async fn while_the_clock_is_in_doubt_segments_in_which_nothing_expires_are_measured_once() {
    let mut bed = bed(&[]).await;
    bed.fill("a", 20).await;
    bed.start_machine(HOUR, |_| ()).await;
    // A purge has room freed, although the clock is in doubt.
    bed.publish("b", "1").await;
    bed.log.purge_topic("b", None).await.unwrap();
    bed.enforce().await;
    let measured = embedded_of(&bed.log).measured_until();
    assert!(measured.len() >= 2 && measured.iter().all(|until| *until == Some(u64::MAX)), "{measured:?}");
}

#[tokio::test]
async fn a_removal_in_a_run_after_an_undone_one_is_a_gap_whatever_the_clock_shows() {
    for has_later_removal in [false, true] {
        let mut bed = bed(&[]).await;
        for topic in ["a", "b", "c", "x", "y"] {
            bed.publish(topic, topic).await;
        }
        bed.log.purge_topic("x", None).await.unwrap();
        bed.log.close().await;
        let behind = bed.clock().now();
        let copy = bed.disk.kill();
        // The removal of "y" is undone, and so is everything that was removed before this reader began.
        bed.start_machine(DAY, |_| ()).await;
        bed.log.purge_topic("y", None).await.unwrap();
        let topics = &["a", "b", "y"];
        let batching = Batching { limit: Some(1), ..Batching::default() };
        let first = Query { batching, ..query(topics, Start::Earliest) };
        let mut batches = subscribe(&bed.log, first).await.unwrap();
        let mut position = None;
        while let Some(batch) = next(&mut batches).await {
            position = Some(batch.position);
        }
        bed.config.disk = Storage::Simulated(copy);
        bed.start_machine(HOUR, |clock| clock.set(behind)).await;
        bed.log.purge_topic("b", None).await.unwrap();
        bed.start_machine(DAY, |clock| clock.forward(DAY)).await;
        if has_later_removal {
            bed.log.purge_topic("c", None).await.unwrap();
            bed.reopen().await;
        }
        let (messages, events) = read(&bed.log, query(topics, Start::Resume(position.unwrap()))).await;
        assert_eq!(messages, [(5, "y".into())], "{has_later_removal}");
        assert_eq!(events, [removed(2, 2)], "{has_later_removal}");
    }
}

#[tokio::test]
async fn a_purge_while_the_clock_is_ahead_takes_no_later_message_along() {
    let mut bed = bed(&[]).await;
    bed.publish("a", "1").await;
    let expiring = NewMessage { ttl: Some(HOUR), ..text("a", "2") };
    bed.log.publish(expiring).await.unwrap();
    bed.publish("a", "3").await;
    bed.start_machine(Duration::ZERO, |clock| clock.forward(2 * HOUR)).await;
    assert_eq!(bed.log.purge_topic("a", Some(sequence(1))).await.unwrap(), 1);
    bed.clock().back(2 * HOUR);
    bed.publish("b", "after the step").await;
    for _ in 0..2 {
        assert_eq!(bed.texts(&["a"]).await, ["2", "3"]);
        bed.reopen().await;
    }
}
