//! Any schedule, cut at any point and read at any speed: each number is delivered or counted once, never early, and due
//! at the moment that a simple count gives.

use proptest::prelude::*;

use super::*;

/// Runs a future in virtual time, inside a case of proptest.
fn in_virtual_time<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(future)
}

/// One stream of a client: it reads `batches`, with `pause` milliseconds between them, and is then cut for `away`
/// milliseconds.
#[derive(Clone, Debug)]
struct Piece {
    batches: usize,
    pause: u64,
    away: u64,
}

prop_compose! {
    fn piece()(
        batches in 1..6_usize,
        pause in prop_oneof![3 => Just(0), 1 => 0..3_000_u64],
        away in prop_oneof![1 => Just(0), 3 => 0..6_000_u64],
    ) -> Piece {
        Piece { batches, pause, away }
    }
}

/// A countdown. Its ticks follow from it, and from the moment when it is opened.
#[derive(Clone, Debug)]
struct Case {
    from: i32,
    to: i32,
    step: i32,
    interval: Duration,
    kind: Schedule,
    on_lag: OnLag,
    heartbeat: Duration,
    max_items: usize,
}

#[derive(Clone, Copy, Debug)]
enum Schedule {
    From {
        wait_first: bool,
    },
    Aligned {
        wait_first: bool,
    },
    /// The first tick is due this many nanoseconds after the countdown is opened.
    Until {
        over: u64,
    },
}

prop_compose! {
    fn case()(
        from in -30..30_i32,
        fall in 0..30_i32,
        step in 1..5_i32,
        nanos in prop_oneof![1_000_000..3_000_000_000_u64, (1..3_000_u64).prop_map(|ms| ms * 1_000_000)],
        kind in prop_oneof![
            any::<bool>().prop_map(|wait_first| Schedule::From { wait_first }),
            any::<bool>().prop_map(|wait_first| Schedule::Aligned { wait_first }),
            (0..1_000_000_u64).prop_map(|over| Schedule::Until { over }),
        ],
        burst: bool,
        heartbeat in 1..2_000_u64,
        max_items in 1..8_usize,
    ) -> Case {
        Case {
            from, to: from - fall, step, interval: Duration::from_nanos(nanos), kind,
            on_lag: if burst { OnLag::Burst } else { OnLag::Skip },
            heartbeat: Duration::from_millis(heartbeat), max_items,
        }
    }
}

impl Case {
    /// The query, and the numbers and moments that it must yield if it is opened now.
    fn open(&self) -> (Query, Vec<(i32, SystemTime)>) {
        let Self { from, to, step, interval, kind, on_lag, heartbeat, max_items } = self.clone();
        let now = Clock::Tokio.wall();
        let mut numbers = std::iter::successors(Some(from), |number| Some(number - step))
            .take_while(|number| *number >= to)
            .collect::<Vec<_>>();
        let spec = Spec { to, step, interval, ..spec(Target::From(from)) };
        let (spec, first) = match kind {
            Schedule::From { wait_first } => (Spec { wait_first, ..spec }, now + pause(wait_first, interval)),
            Schedule::Aligned { wait_first } => {
                let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
                let over = u64::try_from(since % interval.as_nanos()).unwrap();
                let ahead = interval.saturating_sub(Duration::from_nanos(over)) * u32::from(over > 0);
                (Spec { wait_first, align: true, ..spec }, now + ahead + pause(wait_first, interval))
            }
            Schedule::Until { over } => {
                let first = now + Duration::from_nanos(over);
                let last = u32::try_from(numbers.len()).unwrap() - 1;
                // Its last number is `to`, whatever its first one is.
                numbers = (0..=last.cast_signed()).rev().map(|k| to + k * step).collect();
                (Spec { target: Target::Until(first + interval * last), ..spec }, first)
            }
        };
        let mut query = Query { on_lag, ..new(spec) };
        query.batching.heartbeat = heartbeat;
        query.batching.max_items = max_items;
        let ticks = numbers.into_iter().zip(0..).map(|(number, k)| (number, first + interval * k));
        (query, ticks.collect())
    }
}

fn pause(wait_first: bool, interval: Duration) -> Duration {
    if wait_first { interval } else { Duration::ZERO }
}

/// Compares the ticks of batches with the expected ones.
struct Account {
    expected: Vec<(i32, SystemTime)>,
    next: usize,
    burst: bool,
}

impl Account {
    fn take(&mut self, batch: &Batch) {
        self.next += usize::try_from(batch.progress.skipped).unwrap();
        assert!(batch.progress.skipped == 0 || !self.burst);
        for tick in ticks(batch) {
            let expected = self.expected[self.next];
            assert_eq!((tick.remaining, tick.due), expected);
            assert_eq!(tick.due + tick.remaining_time, self.expected.last().unwrap().1);
            assert!(tick.due <= batch.progress.sent, "early");
            self.next += 1;
        }
        // A batch has all ticks that are due, up to its size.
        let due = self.expected.iter().filter(|(_, due)| *due <= batch.progress.sent).count();
        assert!(self.next == due || self.burst && batch.count > 0 && self.next < due);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_countdown_yields_or_counts_each_number_once_over_cuts_and_slow_reads(
        case in case(),
        pieces in prop::collection::vec(piece(), 0..10),
    ) {
        in_virtual_time(async move {
            let (mut query, expected) = case.open();
            let mut account = Account { expected, next: 0, burst: case.on_lag == OnLag::Burst };
            for Piece { batches, pause, away } in pieces {
                let mut stream = run(query.clone()).take(batches);
                while let Some(batch) = stream.next().await {
                    account.take(&batch);
                    query.start = Start::Resume(batch.position);
                    tokio::time::advance(Duration::from_millis(pause)).await;
                }
                tokio::time::advance(Duration::from_millis(away)).await;
            }
            let last = run(query).map(|batch| { account.take(&batch); ticks(&batch).pop() }).collect::<Vec<_>>().await;
            let number = last.into_iter().flatten().last().map(|tick| tick.remaining);
            assert_eq!(account.next, account.expected.len());
            // The last number is never skipped; it may have come in an earlier stream.
            assert!(number.is_none_or(|number| number == account.expected.last().unwrap().0));
        });
    }
}
