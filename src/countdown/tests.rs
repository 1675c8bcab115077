//! Whole streams, in virtual time.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use futures::{FutureExt, StreamExt};

use super::{
    schedule::tests::{Tick, decode},
    *,
};

mod properties;
mod set_clock;

const SECOND: Duration = Duration::from_secs(1);

/// A countdown with the defaults of a request.
fn spec(target: Target) -> Spec {
    Spec { target, to: 0, step: 1, interval: SECOND, wait_first: false, align: false }
}

fn query(start: Start) -> Query {
    // No heartbeat unless the test wants one.
    let batching = Batching { heartbeat: Duration::MAX, ..Batching::default() };
    Query { start, on_lag: OnLag::Skip, batching }
}

fn new(spec: Spec) -> Query {
    query(Start::New(spec))
}

fn run(query: Query) -> impl Stream<Item = Batch> + Unpin {
    run_by(&Clock::Tokio, query)
}

fn run_by(clock: &Clock, query: Query) -> impl Stream<Item = Batch> + Unpin + use<> {
    let stream = open(query, clock, &Config::default()).unwrap();
    Box::pin(stream.map(Result::unwrap))
}

fn ticks(batch: &Batch) -> Vec<Tick> {
    let ticks = decode(&batch.items.concat());
    assert_eq!(ticks.len(), batch.count);
    ticks
}

fn numbers(batch: &Batch) -> Vec<i32> {
    ticks(batch).iter().map(|tick| tick.remaining).collect()
}

/// Each number, and when it came, in milliseconds from now.
async fn timeline(query: Query) -> Vec<(i32, u128)> {
    let begin = Instant::now();
    let mut seen = Vec::new();
    let mut stream = run(query);
    while let Some(batch) = stream.next().await {
        let at = begin.elapsed().as_millis();
        seen.extend(ticks(&batch).iter().map(|tick| (tick.remaining, at)));
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn from_three_yields_3_2_1_0_one_a_second_the_first_at_once() {
    assert_eq!(timeline(new(spec(Target::From(3)))).await, [(3, 0), (2, 1000), (1, 2000), (0, 3000)]);
}

#[tokio::test(start_paused = true)]
async fn wait_first_pauses_before_each_number_as_async_countdown_does() {
    let classic = Spec { to: 1, wait_first: true, ..spec(Target::From(3)) };
    assert_eq!(timeline(new(classic)).await, [(3, 1000), (2, 2000), (1, 3000)]);
}

#[tokio::test(start_paused = true)]
async fn the_last_tick_of_a_countdown_until_a_moment_falls_on_that_moment() {
    let moment = Clock::Tokio.wall() + Duration::from_millis(2500);
    assert_eq!(timeline(new(spec(Target::Until(moment)))).await, [(2, 500), (1, 1500), (0, 2500)]);
}

#[tokio::test(start_paused = true)]
async fn a_countdown_until_a_past_moment_has_its_last_tick_at_once() {
    let moment = Clock::Tokio.wall() - Duration::from_millis(2500);
    let mut stream = run(new(spec(Target::Until(moment))));
    let batch = stream.next().now_or_never().unwrap().unwrap();
    assert_eq!((numbers(&batch), batch.progress.skipped, ticks(&batch)[0].due), (vec![0], 0, moment));
    assert!(stream.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_first_batch_is_ready_at_once_even_when_no_tick_is_due() {
    let moment = Clock::Tokio.wall() + Duration::from_millis(1500);
    let until = spec(Target::Until(moment));
    let waiting = Spec { wait_first: true, ..spec(Target::From(1)) };
    for spec in [until, waiting] {
        let mut stream = run(new(spec));
        let first = stream.next().now_or_never().unwrap().unwrap();
        assert_eq!(numbers(&first), [0; 0]);
        assert_eq!(numbers(&stream.next().await.unwrap()), [1]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_the_newest_tick_and_the_count_of_skipped_ticks() {
    let mut stream = run(new(spec(Target::From(10))));
    assert_eq!(numbers(&stream.next().await.unwrap()), [10]);
    tokio::time::advance(Duration::from_millis(4500)).await;
    let batch = stream.next().await.unwrap();
    assert_eq!((numbers(&batch), batch.progress.skipped), (vec![6], 3));
    assert_eq!(batch.progress.sent.duration_since(ticks(&batch)[0].due).unwrap(), Duration::from_millis(500));
    // The next tick is on time, not half a second late.
    let next = stream.next().await.unwrap();
    assert_eq!(
        (numbers(&next), next.progress.skipped, next.progress.sent),
        (vec![5], 0, ticks(&next)[0].due)
    );
}

#[tokio::test(start_paused = true)]
async fn the_last_tick_is_never_skipped() {
    let mut stream = run(new(spec(Target::From(10))));
    stream.next().await.unwrap();
    tokio::time::advance(1_000 * SECOND).await;
    let last = stream.next().await.unwrap();
    assert_eq!((numbers(&last), last.progress.skipped), (vec![0], 9));
    assert!(stream.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn with_burst_every_tick_comes_in_batches_of_at_most_max_items() {
    let mut query = Query { on_lag: OnLag::Burst, ..new(spec(Target::From(10))) };
    query.batching.max_items = 4;
    let stream = run(query);
    tokio::time::advance(1_000 * SECOND).await;
    let batches: Vec<_> = stream.map(|batch| (numbers(&batch), batch.progress.skipped)).collect().await;
    assert_eq!(batches, [(vec![10, 9, 8, 7], 0), (vec![6, 5, 4, 3], 0), (vec![2, 1, 0], 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_leaves_when_it_has_max_bytes() {
    let mut query = Query { on_lag: OnLag::Burst, ..new(spec(Target::From(5_000))) };
    query.batching.max_bytes = 1_000;
    let stream = run(query);
    tokio::time::advance(5_000 * SECOND).await;
    let batches: Vec<_> = stream.collect().await;
    for batch in batches.iter().rev().skip(1) {
        assert!((1_000..1_000 + crate::wire::tick::MAX_BYTES).contains(&batch.bytes()));
    }
    assert_eq!(batches.iter().map(|batch| batch.count).sum::<usize>(), 5_001);
}

#[tokio::test(start_paused = true)]
async fn limit_counts_the_ticks_of_this_call() {
    let mut query = new(spec(Target::From(10)));
    query.batching.limit = Some(2);
    let batches: Vec<_> = run(query).collect().await;
    assert_eq!(batches.iter().map(numbers).collect::<Vec<_>>(), [[10], [9]]);
    let mut rest = self::query(Start::Resume(batches[1].position.clone()));
    rest.batching.limit = Some(3);
    let rest: Vec<_> = run(rest).flat_map(|batch| futures::stream::iter(numbers(&batch))).collect().await;
    assert_eq!(rest, [8, 7, 6]);
}

#[tokio::test(start_paused = true)]
async fn with_burst_a_batch_does_not_exceed_the_limit() {
    let mut query = Query { on_lag: OnLag::Burst, ..new(spec(Target::From(10))) };
    query.batching.limit = Some(3);
    let stream = run(query);
    tokio::time::advance(1_000 * SECOND).await;
    assert_eq!(stream.map(|batch| numbers(&batch)).collect::<Vec<_>>().await, [[10, 9, 8]]);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_comes_when_nothing_was_sent_for_its_interval() {
    let mut query = new(Spec { interval: 10 * SECOND, ..spec(Target::From(1)) });
    query.batching.heartbeat = 4 * SECOND;
    let mut stream = run(query);
    let (mut last, mut seen) = (Instant::now(), Vec::new());
    while let Some(batch) = stream.next().await {
        // Up to a sixteenth sooner, so that the heartbeats of many streams leave together.
        let is_heartbeat = batch.count == 0;
        assert!(!is_heartbeat || (3_750..=4_001).contains(&last.elapsed().as_millis()));
        last = Instant::now();
        seen.push(numbers(&batch));
    }
    assert_eq!(seen, [vec![1], vec![], vec![], vec![0]]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_cut_after_a_heartbeat_resumes_after_it() {
    let mut query = new(Spec { interval: 10 * SECOND, ..spec(Target::From(1)) });
    query.batching.heartbeat = 4 * SECOND;
    let began = Instant::now();
    let heartbeat = run(query).skip(1).next().await.unwrap();
    assert!(heartbeat.count == 0 && began.elapsed() < 5 * SECOND);
    let rest = run(self::query(Start::Resume(heartbeat.position)));
    assert_eq!(rest.map(|batch| numbers(&batch)).collect::<Vec<_>>().await, [vec![], vec![0]]);
    assert_eq!(began.elapsed().as_millis() / 10, 1_000);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_interval_of_zero_does_not_spin() {
    let mut query = new(spec(Target::From(1)));
    query.batching.heartbeat = Duration::ZERO;
    assert!(run(query).count().await <= 1001);
}

#[tokio::test(start_paused = true)]
async fn time_goes_on_while_the_stream_is_cut() {
    let cut = run(new(spec(Target::From(10)))).next().await.unwrap();
    tokio::time::advance(Duration::from_millis(3200)).await;
    let resume = query(Start::Resume(cut.position));
    let burst = Query { on_lag: OnLag::Burst, ..resume.clone() };
    let mut stream = run(resume);
    let batch = stream.next().now_or_never().unwrap().unwrap();
    assert_eq!((numbers(&batch), batch.progress.skipped), (vec![7], 2));
    let batch = run(burst).next().await.unwrap();
    assert_eq!((numbers(&batch), batch.progress.skipped), (vec![9, 8, 7], 0));
    let next = stream.next().await.unwrap();
    assert_eq!((numbers(&next), next.progress.sent), (vec![6], ticks(&next)[0].due));
}

#[tokio::test(start_paused = true)]
async fn a_stream_cut_before_its_first_number_continues_to_wait() {
    let first = run(new(Spec { wait_first: true, ..spec(Target::From(1)) })).next().await.unwrap();
    tokio::time::advance(Duration::from_millis(400)).await;
    assert_eq!(timeline(query(Start::Resume(first.position))).await, [(1, 600), (0, 1600)]);
}

#[tokio::test(start_paused = true)]
async fn resuming_at_the_end_yields_one_empty_batch() {
    let last = run(new(spec(Target::From(1)))).collect::<Vec<_>>().await.pop().unwrap();
    let mut stream = run(query(Start::Resume(last.position.clone())));
    let batch = stream.next().now_or_never().unwrap().unwrap();
    assert_eq!((numbers(&batch), batch.progress.skipped, batch.position), (vec![], 0, last.position));
    assert!(stream.next().now_or_never().unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_ticks_does_not_drift() {
    // Not a multiple of a millisecond, the resolution of tokio's timers.
    let interval = Duration::from_micros(73_333);
    let count = 49_100;
    let length = interval * count;
    for (is_until, align) in [(false, false), (false, true), (true, false)] {
        let until = Target::Until(Clock::Tokio.wall() + length);
        let target = if is_until { until } else { Target::From(count.cast_signed()) };
        let mut stream = run(new(Spec { interval, align, ..spec(target) }));
        let (mut begin, mut k) = (None, 0);
        while let Some(batch) = stream.next().await {
            let [tick] = ticks(&batch)[..] else { continue };
            assert_eq!((tick.remaining, batch.progress.skipped), ((count - k).cast_signed(), 0));
            assert_eq!(tick.due, *begin.get_or_insert(tick.due) + interval * k);
            let late = batch.progress.sent.duration_since(tick.due).unwrap();
            assert!(late <= Duration::from_millis(2), "tick {k} is {late:?} late");
            k += 1;
        }
        assert_eq!(k, count + 1);
        assert!(length >= Duration::from_secs(3600));
    }
}

#[tokio::test(start_paused = true)]
async fn aligned_ticks_fall_on_whole_intervals_of_the_wall_clock() {
    let aligned = Spec { align: true, interval: 60 * SECOND, ..spec(Target::From(2)) };
    let minute =
        |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() / 60_000_000_000;
    for (wait_first, later) in [(false, 1), (true, 2)] {
        let begin = minute(Clock::Tokio.wall());
        let batches: Vec<_> = run(new(Spec { wait_first, ..aligned.clone() })).collect().await;
        assert_eq!(batches[0].count, 0);
        let due = batches.iter().flat_map(ticks).map(|tick| tick.due).collect::<Vec<_>>();
        let whole =
            |due: &SystemTime| SystemTime::UNIX_EPOCH + 60 * SECOND * u32::try_from(minute(*due)).unwrap();
        assert!(due.iter().all(|due| whole(due) == *due));
        assert_eq!(
            due.iter().map(|due| minute(*due) - begin).collect::<Vec<_>>(),
            [later, later + 1, later + 2]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_the_query_is_reported_before_the_first_batch() {
    let opened = |query| open(query, &Clock::Tokio, &Config::default()).err();
    let below = new(Spec { to: 4, ..spec(Target::From(3)) });
    assert_eq!(opened(below), Some(Error::FromBelowTo { from: 3, to: 4 }));
    let raised = Config { min_interval: 2 * SECOND, ..Config::default() };
    let position = run(new(spec(Target::From(3)))).next().await.unwrap().position;
    let error = open(query(Start::Resume(position)), &Clock::Tokio, &raised).err();
    assert!(matches!(error, Some(Error::PositionInvalid(_))));
}

#[tokio::test]
async fn a_stream_costs_less_than_a_kibibyte() {
    let clock = Clock::precise().unwrap();
    let stream = open(new(spec(Target::From(3))), &clock, &Config::default()).unwrap();
    let bytes = size_of_val(&stream);
    assert!(bytes <= 1024, "{bytes}");
}

#[tokio::test]
async fn the_precise_clock_counts_in_real_time_and_is_never_early() {
    let clock = Clock::precise().unwrap();
    let fast = Spec { interval: Duration::from_millis(2), ..spec(Target::From(20)) };
    for until in [false, true] {
        let begin = clock.now();
        let mut spec = fast.clone();
        if until {
            spec.target = Target::Until(clock.wall() + Duration::from_millis(40));
        }
        let stream = open(new(spec), &clock, &Config::default()).unwrap();
        let all = stream.map(Result::unwrap).collect::<Vec<_>>();
        let batches = tokio::time::timeout(20 * SECOND, all).await.unwrap();
        assert!(clock.now() - begin >= Duration::from_millis(39));
        assert_eq!(ticks(batches.last().unwrap())[0].remaining, 0);
        for batch in batches.iter().filter(|batch| batch.count > 0) {
            assert!(batch.progress.sent >= ticks(batch)[0].due, "{batch:?}");
        }
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_dropped_stream_leaves_no_sleeper() {
    let clock = Clock::precise().unwrap();
    let stream = open(new(spec(Target::From(3))), &clock, &Config::default()).unwrap();
    let mut stream = Box::pin(stream);
    stream.next().await.unwrap().unwrap();
    assert!(stream.next().now_or_never().is_none());
    assert!(format!("{clock:?}").contains("sleepers: 1"), "{clock:?}");
    drop(stream);
    assert!(format!("{clock:?}").contains("sleepers: 0"), "{clock:?}");
}
