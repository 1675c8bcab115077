//! The timer in real time: tokio's virtual time does not move the kernel's timer.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};

use super::*;

/// Much longer than any test runs.
const NEVER: Duration = Duration::from_secs(3600);
/// When a test that hangs fails.
const LIMIT: Duration = Duration::from_secs(120);
/// How long before their deadline many sleeps begin. A test takes the first wait in which all of them have begun; a
/// busy machine needs a longer one.
const WAITS: [Duration; 3] = [Duration::from_millis(30), Duration::from_secs(1), Duration::from_secs(15)];

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap()
}

fn sleepers(timer: &Timer) -> usize {
    timer.monotonic.lock().queue.sleepers()
}

#[tokio::test]
async fn a_sleep_ends_at_its_deadline_and_never_early() {
    let timer = Timer::start().unwrap();
    for micros in [0, 1, 50, 999, 1_000, 20_000] {
        let deadline = Instant::now() + Duration::from_micros(micros);
        soon(timer.sleep_until(deadline, None)).await.unwrap();
        assert!(Instant::now() >= deadline);
    }
    assert_eq!(sleepers(&timer), 0);
}

#[tokio::test]
async fn an_earlier_deadline_overtakes_a_later_one() {
    let timer = Timer::start().unwrap();
    let now = Instant::now();
    let mut late = Box::pin(timer.sleep_until(now + NEVER, None));
    assert!((&mut late).now_or_never().is_none());
    soon(timer.sleep_until(now + Duration::from_millis(5), None)).await.unwrap();
    assert_eq!(sleepers(&timer), 1);
}

#[tokio::test]
async fn a_dropped_sleep_leaves_no_entry() {
    let timer = Timer::start().unwrap();
    let deadline = Instant::now() + NEVER;
    let mut sleep = Box::pin(timer.sleep_until(deadline, None));
    assert!((&mut sleep).now_or_never().is_none());
    assert_eq!(sleepers(&timer), 1);
    drop(sleep);
    assert_eq!(sleepers(&timer), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_sleepers_with_equal_and_different_deadlines_all_wake() {
    let timer = Arc::new(Timer::start().unwrap());
    let now = Instant::now();
    let tasks: FuturesUnordered<_> = (0..5_000_u64)
        .map(|n| {
            let timer = Arc::clone(&timer);
            // Most deadlines come before the earlier inserted ones; every seventh sleeper shares one deadline.
            let micros = if n % 7 == 0 { 30_000 } else { (5_000 - n) * 11 };
            tokio::spawn(async move { timer.sleep_until(now + Duration::from_micros(micros), None).await })
        })
        .collect();
    let woken: Vec<_> = soon(tasks.collect()).await;
    assert!(woken.into_iter().all(|task| task.unwrap().is_ok()));
    assert_eq!(sleepers(&timer), 0);
}

/// Now, by the clock of the timer.
fn wall(timer: &Timer) -> Moment {
    Moment::EPOCH + (timer.wall.now() - LaneMoment::default())
}

#[tokio::test]
async fn setting_the_wall_clock_ends_the_sleeps_until_its_moments() {
    let timer = Timer::start().unwrap();
    let moment = wall(&timer) + Nanos::from_secs(3_600);
    let mut sleep = Box::pin(timer.sleep_until_moment(moment, None));
    let mut other = Box::pin(timer.sleep_until(Instant::now() + NEVER, None));
    assert!((&mut sleep).now_or_never().is_none());
    assert!((&mut other).now_or_never().is_none());
    timer.wall.end_all();
    soon(sleep).await.unwrap();
    assert!(other.now_or_never().is_none());
    // New sleeps wait again.
    assert!(timer.sleep_until_moment(moment, None).now_or_never().is_none());
}

#[tokio::test]
async fn a_sleep_until_a_moment_ends_at_it_and_never_early() {
    let timer = Timer::start().unwrap();
    for micros in [-5_000, 0, 50, 20_000] {
        let moment = wall(&timer) + Nanos::new(micros * 1_000);
        while wall(&timer) < moment {
            soon(timer.sleep_until_moment(moment, None)).await.unwrap();
        }
    }
    soon(timer.sleep_until_moment(Moment::from_nanos(i128::MIN), None)).await.unwrap();
    assert!(timer.sleep_until_moment(Moment::from_nanos(i128::MAX), None).now_or_never().is_none());
}

#[tokio::test]
async fn sleepers_of_one_moment_share_an_entry_and_wake_together_in_slices() {
    let timer = Timer::start().unwrap();
    let count = 5 * SLICE + 1;
    let sleeps = WAITS.iter().find_map(|wait| {
        let deadline = Instant::now() + *wait;
        let mut sleeps: FuturesUnordered<_> = (0..count).map(|_| timer.sleep_until(deadline, None)).collect();
        (sleeps.next().now_or_never().is_none() && sleepers(&timer) == count).then_some(sleeps)
    });
    assert_eq!(timer.monotonic.lock().queue.moments(), 1);
    let woken: Vec<_> = soon(sleeps.unwrap().collect()).await;
    assert_eq!(woken.len(), count);
    assert_eq!(timer.monotonic.lock().queue.moments(), 0);
}

#[tokio::test]
async fn sleepers_of_one_group_wake_together_though_their_moments_differ() {
    let (timer, woken) = (&Timer::start().unwrap(), &Mutex::new(Vec::new()));
    let found = WAITS.iter().find_map(|wait| {
        let deadline = Instant::now() + *wait;
        let sleeps = (0..3_000_u64).map(|n| async move {
            timer.sleep_until(deadline + Duration::from_nanos(n), WakeGroup::new(n % 30 + 1)).await.unwrap();
            woken.lock().unwrap().push(n % 30 + 1);
        });
        let mut sleeps: FuturesUnordered<_> = sleeps.collect();
        let are_asleep = sleeps.next().now_or_never().is_none() && sleepers(timer) == 3_000;
        are_asleep.then_some((sleeps, deadline))
    });
    let (mut sleeps, deadline) = found.unwrap();
    woken.lock().unwrap().clear();
    // The driver runs in this thread, so all sleepers are due when it takes them out.
    std::thread::sleep(deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
    soon(async { while sleeps.next().await.is_some() {} }).await;
    let mut groups = woken.lock().unwrap().clone();
    assert_eq!(groups.len(), 3_000);
    groups.dedup();
    assert_eq!(groups.len(), 30);
}

#[test]
fn no_sleeper_hangs_when_the_runtime_of_the_driver_ends() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let timer = first.block_on(async { Timer::start().unwrap() });
    second.block_on(async {
        let mut before = Box::pin(timer.sleep_until(Instant::now() + NEVER, None));
        assert!((&mut before).now_or_never().is_none());
        first.shutdown_background();
        soon(before).await.unwrap_err();
        soon(timer.sleep_until(Instant::now() + NEVER, None)).await.unwrap_err();
    });
}

#[tokio::test]
async fn dropping_the_timer_ends_its_driver() {
    let timer = Timer::start().unwrap();
    let lanes = [&timer.monotonic, &timer.wall].map(Arc::downgrade);
    drop(timer);
    soon(async {
        while lanes.iter().any(|lane| lane.strong_count() > 0) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_driver_sleeps_while_nothing_is_due() {
    struct Count(AtomicUsize);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let timer = Timer::start().unwrap();
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    let mut idle = Box::pin(timer.sleep_until(Instant::now() + NEVER, None));
    assert!(idle.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    for _ in 0..3 {
        soon(timer.sleep_until(Instant::now() + Duration::from_millis(1), None)).await.unwrap();
    }
    assert_eq!(count.0.load(Ordering::Relaxed), 0);
}

#[test]
fn starting_without_a_runtime_is_an_error_and_no_panic() {
    assert!(Timer::start().is_err());
}
