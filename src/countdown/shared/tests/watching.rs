//! Streams of shared countdowns: some stay open, some start late, and some are cut and resumed.

use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn a_stream_has_the_state_then_the_ticks_then_the_end() {
    let server = Server::new().await;
    let created = server.create("launch", seconds(3)).await;
    let mut stream = server.watch("launch");
    let first = stream.next().await.unwrap();
    assert_eq!(first.progress.snapshot.unwrap().version, created.version);
    assert!(first.events.is_empty());
    let mut seen = Vec::new();
    for _ in 0..3 {
        server.clock.step(SECOND);
        let batch = stream.next_report().await;
        assert!(batch.progress.snapshot.is_none());
        let ticks = tick::tests::read(&batch.items.concat());
        let version = i64::try_from(created.version).unwrap();
        assert_eq!((ticks[0].state, ticks[0].version), (Some(1), Some(version)));
        let Phase::Running { end_time, .. } = created.record.phase else { panic!() };
        assert_eq!(ticks[0].end_nanos, end_time.as_nanosecond());
        seen.extend(numbers(&batch));
    }
    assert_eq!(seen, [2, 1, 0]);
    let last = stream.next_report().await;
    assert_eq!((changes(&last), last.count), (vec![Change::Ended], 0));
    assert!(matches!(last.progress.snapshot.unwrap().record.phase, Phase::Ended { .. }));
    assert!(stream.end().await.is_none());
    // A stream that resumes after the end has the state, and no ticks or events.
    let resume = Some(last.position);
    let mut stream = server.watch_with(Query { resume, ..query("launch") });
    let batch = stream.next().await.unwrap();
    assert_eq!(
        (batch.count, batch.progress.skipped, batch.events.len(), batch.progress.snapshot.is_some()),
        (0, 0, 0, true)
    );
    assert!(stream.end().await.is_none());
}

#[tokio::test]
async fn a_change_is_reported_at_once_and_the_ticks_follow_it() {
    let server = Server::new().await;
    server.create("launch", seconds(10)).await;
    let mut stream = server.watch("launch");
    stream.next().await.unwrap();
    let paused = server.countdowns.pause("launch", None).await.unwrap();
    let batch = stream.next_report().await;
    assert_eq!(
        (changes(&batch), batch.progress.snapshot.unwrap().version),
        (vec![Change::Paused], paused.version)
    );
    server.clock.step(3600 * SECOND);
    let resumed = server.countdowns.resume("launch", Some(paused.version)).await.unwrap();
    let batch = stream.next_report().await;
    let report = batch.events.iter().find(|event| matches!(event, Event::Changed { .. }));
    let (previous_version, version) = (paused.version, resumed.version);
    let expected = Event::Changed { change: Change::Resumed, by: None, previous_version, version };
    assert_eq!((report, batch.progress.skipped), (Some(&expected), 0));
    server.clock.step(SECOND);
    assert_eq!(numbers(&stream.next_report().await), [9]);
    server.countdowns.extend("launch", None, -5 * SECOND).await.unwrap();
    let batch = stream.next_report().await;
    assert_eq!(changes(&batch), [Change::Extended]);
    let moved = -5 * SECOND;
    assert!(matches!(batch.events.last(), Some(Event::Changed { by: Some(by), .. }) if *by == moved));
    server.clock.step(SECOND);
    assert_eq!(numbers(&stream.next_report().await), [3]);
    server.countdowns.cancel("launch", None).await.unwrap();
    assert_eq!(changes(&stream.next_report().await), [Change::Cancelled]);
    assert!(stream.end().await.is_none());
    let mut late = server.watch("launch");
    let batch = late.next().await.unwrap();
    assert_eq!((batch.count, batch.events.len()), (0, 0));
    assert!(late.end().await.is_none());
}

#[tokio::test]
async fn a_stream_that_starts_after_the_end_has_the_last_number() {
    let server = Server::new().await;
    server.create("launch", seconds(3)).await;
    server.clock.step(5 * SECOND);
    server.has_ended("launch").await;
    let mut stream = server.watch("launch");
    let batch = stream.next().await.unwrap();
    assert_eq!((numbers(&batch), batch.progress.skipped, changes(&batch)), (vec![0], 0, vec![]));
    assert!(stream.end().await.is_none());
}

#[tokio::test]
async fn the_last_number_is_never_skipped_and_comes_before_the_end_also_after_a_resume() {
    let server = Server::new().await;
    server.create("launch", spec(Target::From(10))).await;
    let mut stream = server.watch("launch");
    let first = stream.next().await.unwrap();
    server.clock.step(20 * SECOND);
    server.has_ended("launch").await;
    for mut stream in [stream, server.watch_with(Query { resume: Some(first.position), ..query("launch") })] {
        let last = stream.next_report().await;
        assert_eq!((numbers(&last), last.progress.skipped, changes(&last)), (vec![0], 9, vec![]));
        assert_eq!(changes(&stream.next_report().await), [Change::Ended]);
        assert!(stream.end().await.is_none());
    }
}

#[tokio::test]
async fn with_burst_each_number_comes_before_the_change_that_followed_it() {
    let server = Server::new().await;
    server.create("launch", seconds(10)).await;
    let mut stream = server.watch_with(Query { on_lag: OnLag::Burst, ..query("launch") });
    stream.next().await.unwrap();
    server.clock.step(3 * SECOND);
    server.countdowns.pause("launch", None).await.unwrap();
    assert_eq!(numbers(&stream.next_report().await), [9, 8, 7]);
    assert_eq!(changes(&stream.next_report().await), [Change::Paused]);
    server.countdowns.resume("launch", None).await.unwrap();
    assert_eq!(changes(&stream.next_report().await), [Change::Resumed]);
    server.clock.step(7 * SECOND);
    assert_eq!(numbers(&stream.next_report().await), [6, 5, 4, 3, 2, 1, 0]);
    assert_eq!(changes(&stream.next_report().await), [Change::Ended]);
}

#[tokio::test]
async fn a_step_of_the_clock_is_reported_with_its_size() {
    let server = Server::new().await;
    server.create("launch", seconds(10)).await;
    let mut stream = server.watch("launch");
    stream.next().await.unwrap();
    server.clock.step(-3600 * SECOND);
    let batch = stream.next().await.unwrap();
    let [Event::ClockStepped { by }] = batch.events[..] else { panic!("{batch:?}") };
    // The wall clock is stopped, so the step includes the time that the test took.
    assert!((by + 3600 * SECOND).abs() < LONG.into(), "{by:?}");
    assert_eq!((batch.count, batch.progress.skipped), (0, 0));
    server.clock.step(3605 * SECOND);
    let batch = stream.next().await.unwrap();
    assert_eq!((numbers(&batch), batch.progress.skipped, batch.events.len()), (vec![5], 4, 1));
}

#[tokio::test]
async fn deleting_a_countdown_ends_its_streams_and_its_cursors_do_not_fit_a_new_one_of_the_name() {
    let server = Server::new().await;
    server.create("launch", seconds(10)).await;
    let mut stream = server.watch("launch");
    let position = stream.next().await.unwrap().position;
    server.countdowns.delete("launch", None).await.unwrap();
    assert!(matches!(stream.end().await, Some(Error::NotFound)));
    let resumed = Query { resume: Some(position), ..query("launch") };
    assert!(matches!(server.countdowns.watch(resumed.clone()).await, Err(Error::NotFound)));
    server.create("launch", seconds(10)).await;
    assert!(matches!(server.countdowns.watch(resumed).await, Err(Error::Mismatch)));
    let position = server.watch("launch").next().await.unwrap().position;
    let ahead = Position { version: position.version + 1, ..position };
    let resumed = Query { resume: Some(ahead), ..query("launch") };
    assert!(matches!(server.countdowns.watch(resumed).await, Err(Error::Ahead { .. })));
}

#[tokio::test]
async fn a_limit_counts_the_ticks_of_one_call_and_rates_count_all_streams() {
    let server = Server::new().await;
    server.create("launch", Spec { interval: Duration::from_millis(1), ..seconds(10) }).await;
    let mut stream = server.watch_with(Query {
        on_lag: OnLag::Burst,
        batching: Batching { limit: Some(7), max_items: 5, heartbeat: Duration::MAX, ..Batching::default() },
        ..query("launch")
    });
    stream.next().await.unwrap();
    server.clock.step(SECOND);
    let (first, second) = (stream.next_report().await, stream.next_report().await);
    assert_eq!((first.count, second.count), (5, 2));
    assert!(stream.end().await.is_none());
    let config = Config { rates: crate::countdown::Rates::new(1_500), ..Config::default() };
    let (countdowns, _work) = open(&server.log, &server.clock, config).await;
    let one = countdowns.watch(query("launch")).await.unwrap();
    let refused = countdowns.watch(query("launch")).await.map(drop);
    let expected = crate::countdown::Error::TooManyTicks { limit: 1_500 };
    assert!(matches!(&refused, Err(Error::Countdown(error)) if *error == expected), "{refused:?}");
    drop(one);
    countdowns.watch(query("launch")).await.map(drop).unwrap();
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Pass(i64),
    Pause,
    Resume,
    Extend(i64),
    Leave,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let pass = || (30_000_000..2_000_000_000_i64).prop_map(Step::Pass);
    prop_oneof![
        pass(),
        pass(),
        pass(),
        Just(Step::Pause),
        Just(Step::Resume),
        (-900_000_000..3_000_000_000_i64).prop_map(Step::Extend),
        Just(Step::Leave),
        Just(Step::Restart),
    ]
}

/// A client, and the ticks that it got over all its streams.
#[derive(Default)]
struct Reader {
    stream: Option<Watching>,
    position: Option<Position>,
    accounted: u64,
    last_version: u64,
}

impl Reader {
    /// Reads until it has the first `next` ticks and the version.
    async fn read(&mut self, server: &Server, on_lag: OnLag, next: u64, version: u64) {
        let resume = self.position.clone();
        let mut stream = self
            .stream
            .take()
            .unwrap_or_else(|| server.watch_with(Query { resume, on_lag, ..query("launch") }));
        while self.position.as_ref().is_none_or(|at| at.next < next || at.version < version) {
            let Some(batch) = stream.next().await else { break };
            for event in &batch.events {
                if let Event::Changed { previous_version, version, .. } = event {
                    assert_eq!(*previous_version, self.last_version);
                    assert!(version > previous_version);
                }
            }
            self.accounted += batch.count as u64 + batch.progress.skipped;
            self.last_version = batch.position.version;
            self.position = Some(batch.position);
        }
        self.stream = Some(stream);
    }
}

async fn accounts(on_lag: OnLag, interval: u64, steps: Vec<Step>) {
    let mut server = Server::new().await;
    let spec = Spec { interval: Duration::from_nanos(interval), ..seconds(4) };
    server.create("launch", spec).await;
    let (mut stays, mut leaves) = (Reader::default(), Reader::default());
    let (mut began, mut has_left) = (None, false);
    for step in steps.into_iter().chain([Step::Pass(1)]) {
        match step {
            Step::Pass(nanos) => server.clock.step(nanos.into()),
            Step::Pause => _ = server.countdowns.pause("launch", None).await,
            Step::Resume => _ = server.countdowns.resume("launch", None).await,
            Step::Extend(by) => _ = server.countdowns.extend("launch", None, by.into()).await,
            Step::Leave => has_left = true,
            Step::Restart => {
                (stays.stream, leaves.stream) = (None, None);
                server = server.restart().await;
            }
        }
        let due = server.countdowns.now();
        let snapshot = server.countdowns.get("launch").await.unwrap();
        let is_past = snapshot.moment().is_some_and(|end| end <= due)
            && matches!(snapshot.record.phase, Phase::Running { .. });
        let snapshot = if is_past { server.has_ended("launch").await } else { snapshot };
        let next = snapshot.record.due_by(due);
        // Ticks that were due before the streams started do not belong to them.
        let start = *began.get_or_insert_with(|| {
            if matches!(snapshot.record.phase, Phase::Ended { .. }) { next - 1 } else { next }
        });
        stays.read(&server, on_lag, next, snapshot.version).await;
        assert_eq!(stays.accounted, next - start);
        if leaves.position.is_none() || !has_left {
            leaves.read(&server, on_lag, next, snapshot.version).await;
        }
        if has_left {
            leaves.stream = None;
        }
        if matches!(step, Step::Pass(1)) {
            leaves.read(&server, on_lag, next, snapshot.version).await;
            assert_eq!(leaves.accounted, next - start);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A client that stays, and a client that leaves and later resumes, both account for every tick exactly once: over
    /// pauses, extensions, the end, and restarts.
    #[test]
    fn every_tick_is_delivered_or_counted_once_over_all_changes(
        interval in prop_oneof![1_000_000..10_000_000_u64, 100_000_000..1_500_000_000_u64],
        is_burst: bool,
        steps in prop::collection::vec(step(), 1..12),
    ) {
        let on_lag = if is_burst { OnLag::Burst } else { OnLag::Skip };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(accounts(on_lag, interval, steps));
    }
}
