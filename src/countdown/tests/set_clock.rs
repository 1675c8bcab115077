//! What becomes of countdowns when the wall clock is set, and when the machine has slept.

use super::*;

const MINUTE: i128 = 60_000_000_000;

fn events(by_nanos: i128) -> Vec<Event> {
    vec![Event::ClockStepped { by_nanos }]
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_is_set_is_told_at_once_and_moves_a_countdown_until_a_moment() {
    for (by_nanos, number, skipped) in [(3_000_000_000, 7, 2), (-3_000_000_000, 9, 0)] {
        let clock = Clock::manual();
        let moment = clock.wall() + 10 * SECOND;
        let mut stream = run_by(&clock, new(spec(Target::Until(moment))));
        assert_eq!(numbers(&stream.next().await.unwrap()), [10]);
        assert!(stream.next().now_or_never().is_none());
        tokio::time::advance(Duration::from_millis(500)).await;
        clock.step(by_nanos);
        let told = stream.next().now_or_never().unwrap().unwrap();
        assert_eq!(told.events, [Event::ClockStepped { by_nanos }]);
        let batch = if told.count > 0 { told } else { stream.next().await.unwrap() };
        assert_eq!((numbers(&batch), batch.progress.skipped), (vec![number], skipped));
        let left = stream.map(|batch| numbers(&batch)).collect::<Vec<_>>().await.concat();
        assert_eq!(left, (0..number).rev().collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn a_countdown_from_a_number_does_not_care_for_the_wall_clock() {
    let clock = Clock::manual();
    let mut stream = run_by(&clock, new(spec(Target::From(10))));
    stream.next().await.unwrap();
    clock.step(3_000_000_000);
    assert!(stream.next().now_or_never().is_none());
    let batch = stream.next().await.unwrap();
    assert_eq!((numbers(&batch), batch.progress.skipped, batch.events), (vec![9], 0, vec![]));
}

#[tokio::test(start_paused = true)]
async fn an_aligned_countdown_follows_the_clock_as_one_until_a_moment_does() {
    let clock = Clock::manual();
    let mut stream =
        run_by(&clock, new(Spec { align: true, interval: 60 * SECOND, ..spec(Target::From(100)) }));
    let first = loop {
        let batch = stream.next().await.unwrap();
        if let [tick] = ticks(&batch)[..] {
            break tick;
        }
    };
    assert!(stream.next().now_or_never().is_none());
    // As after a suspend of ten minutes.
    clock.step(10 * MINUTE);
    let told = stream.next().now_or_never().unwrap().unwrap();
    assert_eq!(
        (told.events.clone(), told.progress.skipped, numbers(&told)),
        (events(10 * MINUTE), 9, vec![90])
    );
    assert_eq!(ticks(&told)[0].due, first.due + 600 * SECOND);
    clock.step(-5 * MINUTE);
    let told = stream.next().now_or_never().unwrap().unwrap();
    assert_eq!((told.events, told.count, told.progress.skipped), (events(-5 * MINUTE), 0, 0));
    let next = loop {
        let batch = stream.next().await.unwrap();
        assert_eq!(batch.events, []);
        if let [tick] = ticks(&batch)[..] {
            break tick;
        }
    };
    // What came does not come again: the clock has to catch up.
    assert_eq!((next.remaining, next.due), (89, first.due + 660 * SECOND));
    assert!(clock.wall() >= next.due);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_was_slow_is_told_the_sum_of_what_the_clock_was_set_by() {
    let clock = Clock::manual();
    let moment = clock.wall() + 3600 * SECOND;
    let mut stream = run_by(&clock, new(spec(Target::Until(moment))));
    stream.next().await.unwrap();
    for by in [10 * MINUTE, -3 * MINUTE] {
        clock.step(by);
        tokio::time::advance(SECOND).await;
    }
    assert_eq!(stream.next().now_or_never().unwrap().unwrap().events, events(7 * MINUTE));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_slewed_moves_the_ticks_and_is_not_told() {
    let clock = Clock::manual();
    let moment = clock.wall() + 1000 * SECOND;
    let mut stream = run_by(&clock, new(spec(Target::Until(moment))));
    let (begin, mut seen) = (Instant::now(), 0);
    while let Some(batch) = stream.next().await {
        assert_eq!((batch.events.len(), batch.progress.skipped), (0, 0));
        assert!(ticks(&batch).iter().all(|tick| tick.due <= batch.progress.sent));
        seen += batch.count;
        clock.step(500_000);
    }
    assert_eq!(seen, 1001);
    // 500 ppm of a thousand seconds.
    assert!((begin.elapsed().as_millis()).abs_diff(999_500) <= 5, "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_was_set_while_nobody_listened_is_no_event_but_the_ticks_follow() {
    let clock = Clock::manual();
    let moment = clock.wall() + 3600 * SECOND;
    let cut = run_by(&clock, new(spec(Target::Until(moment)))).next().await.unwrap();
    clock.step(10 * MINUTE);
    let batch = run_by(&clock, query(Start::Resume(cut.position))).next().await.unwrap();
    assert_eq!((batch.events.len(), batch.progress.skipped, numbers(&batch)), (0, 599, vec![3000]));
}

#[tokio::test(start_paused = true)]
async fn a_step_in_a_long_interval_is_told_at_once_though_only_a_heartbeat_is_near() {
    let clock = Clock::manual();
    let moment = clock.wall() + 86_400 * SECOND;
    let spec = Spec { interval: 43_200 * SECOND, ..spec(Target::Until(moment)) };
    let mut query = new(spec);
    query.batching.heartbeat = 15 * SECOND;
    let mut stream = run_by(&clock, query);
    stream.next().await.unwrap();
    assert!(stream.next().now_or_never().is_none());
    clock.step(-600 * MINUTE);
    let told = stream.next().now_or_never().unwrap().unwrap();
    assert_eq!((told.events, told.count), (events(-600 * MINUTE), 0));
    // Heartbeats go on as if nothing had happened.
    let begin = Instant::now();
    assert_eq!(stream.next().await.unwrap().count, 0);
    assert!(begin.elapsed() <= 16 * SECOND);
}
