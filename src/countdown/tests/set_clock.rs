//! Countdowns when the wall clock is set, and when the machine was suspended.

use super::*;

const MINUTE: Nanos = Nanos::from_secs(60);

fn events(by: Nanos) -> Vec<Event> {
    vec![Event::ClockStepped { by }]
}

#[tokio::test(start_paused = true)]
async fn setting_the_wall_clock_is_reported_at_once_and_moves_a_countdown_until_a_moment() {
    for (by, number, skipped) in [(3, 7, 2), (-3, 9, 0)] {
        let by = Nanos::from_secs(by);
        let clock = Clock::manual();
        let moment = clock.wall() + 10 * SECOND;
        let mut stream = run_by(&clock, new(spec(Target::Until(moment))));
        assert_eq!(numbers(&stream.next().await.unwrap()), [10]);
        assert!(stream.next().now_or_never().is_none());
        tokio::time::advance(Duration::from_millis(500)).await;
        clock.step(by);
        let report = stream.next().now_or_never().unwrap().unwrap();
        assert_eq!(report.events, [Event::ClockStepped { by }]);
        let batch = if report.count > 0 { report } else { stream.next().await.unwrap() };
        assert_eq!((numbers(&batch), batch.progress.skipped), (vec![number], skipped));
        let left = stream.map(|batch| numbers(&batch)).collect::<Vec<_>>().await.concat();
        assert_eq!(left, (0..number).rev().collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn a_countdown_from_a_number_ignores_the_wall_clock() {
    let clock = Clock::manual();
    let mut stream = run_by(&clock, new(spec(Target::From(10))));
    stream.next().await.unwrap();
    clock.step(Nanos::from_secs(3));
    assert!(stream.next().now_or_never().is_none());
    let batch = stream.next().await.unwrap();
    assert_eq!((numbers(&batch), batch.progress.skipped, batch.events), (vec![9], 0, vec![]));
}

#[tokio::test(start_paused = true)]
async fn an_aligned_countdown_follows_the_wall_clock() {
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
    let report = stream.next().now_or_never().unwrap().unwrap();
    assert_eq!(
        (report.events.clone(), report.progress.skipped, numbers(&report)),
        (events(10 * MINUTE), 9, vec![90])
    );
    assert_eq!(ticks(&report)[0].due, first.due + 600 * SECOND);
    clock.step(-5 * MINUTE);
    let report = stream.next().now_or_never().unwrap().unwrap();
    assert_eq!((report.events, report.count, report.progress.skipped), (events(-5 * MINUTE), 0, 0));
    let next = loop {
        let batch = stream.next().await.unwrap();
        assert_eq!(batch.events, []);
        if let [tick] = ticks(&batch)[..] {
            break tick;
        }
    };
    // No tick comes twice: the next one waits until the clock has caught up.
    assert_eq!((next.remaining, next.due), (89, first.due + 660 * SECOND));
    assert!(clock.wall() >= next.due);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_the_sum_of_all_steps_of_the_clock() {
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
async fn a_slewed_clock_moves_the_ticks_and_is_not_reported() {
    let clock = Clock::manual();
    let moment = clock.wall() + 1000 * SECOND;
    let mut stream = run_by(&clock, new(spec(Target::Until(moment))));
    let (begin, mut seen) = (Instant::now(), 0);
    while let Some(batch) = stream.next().await {
        assert_eq!((batch.events.len(), batch.progress.skipped), (0, 0));
        assert!(ticks(&batch).iter().all(|tick| tick.due <= batch.progress.sent));
        seen += batch.count;
        clock.step(Nanos::new(500_000));
    }
    assert_eq!(seen, 1001);
    // 500 ppm of a thousand seconds.
    assert!((begin.elapsed().as_millis()).abs_diff(999_500) <= 5, "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_step_while_the_stream_was_cut_is_not_an_event_but_the_ticks_follow_it() {
    let clock = Clock::manual();
    let moment = clock.wall() + 3600 * SECOND;
    let cut = run_by(&clock, new(spec(Target::Until(moment)))).next().await.unwrap();
    clock.step(10 * MINUTE);
    let batch = run_by(&clock, query(Start::Resume(cut.position))).next().await.unwrap();
    assert_eq!((batch.events.len(), batch.progress.skipped, numbers(&batch)), (0, 599, vec![3000]));
}

#[tokio::test(start_paused = true)]
async fn a_step_is_reported_at_once_also_in_a_long_interval() {
    let clock = Clock::manual();
    let moment = clock.wall() + 86_400 * SECOND;
    let spec = Spec { interval: 43_200 * SECOND, ..spec(Target::Until(moment)) };
    let mut query = new(spec);
    query.batching.heartbeat = 15 * SECOND;
    let mut stream = run_by(&clock, query);
    stream.next().await.unwrap();
    assert!(stream.next().now_or_never().is_none());
    clock.step(-600 * MINUTE);
    let report = stream.next().now_or_never().unwrap().unwrap();
    assert_eq!((report.events, report.count), (events(-600 * MINUTE), 0));
    // Heartbeats keep their interval.
    let begin = Instant::now();
    assert_eq!(stream.next().await.unwrap().count, 0);
    assert!(begin.elapsed() <= 16 * SECOND);
}
