//! Jobs of several owners, with threads that tests hold.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::{
    atomic::{AtomicUsize, Ordering},
    mpsc,
};

use futures::future::join_all;

use super::*;

/// What `hands` hands to a pool is the work of this owner.
fn by<T>(owner: Owner, hands: impl FnOnce() -> T) -> T {
    let _entered = enter(owner);
    hands()
}

/// Work that runs until the sender is dropped.
fn held(pool: &Pool) -> (mpsc::Sender<()>, Running<()>) {
    let (release, released) = mpsc::channel();
    let running = pool.run(move || {
        let _ = released.recv();
    });
    (release, running)
}

#[tokio::test]
async fn a_connection_that_asks_for_much_does_not_delay_another() {
    let pool = Pool::new(4);
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |name: &'static str| {
        let order = order.clone();
        pool.run(move || order.lock().unwrap().push(name))
    };
    // One thread of four is the share of the first connection.
    let ((release, first), many) =
        by(1, || (held(&pool), (0..100).map(|_| note("many")).collect::<Vec<_>>()));
    of(2, async { note("one").await }).await.unwrap();
    drop(release);
    first.await.unwrap();
    for done in join_all(many).await {
        done.unwrap();
    }
    let order = order.lock().unwrap();
    assert_eq!((order.len(), order.first()), (101, Some(&"one")));
}

#[tokio::test]
async fn connections_take_turns() {
    let pool = Pool::new(1);
    let order = Arc::new(Mutex::new(Vec::new()));
    let (release, first) = by(9, || held(&pool));
    let mut all = Vec::new();
    for owner in [1, 1, 1, 2, 2, 3] {
        let order = order.clone();
        all.push(by(owner, || pool.run(move || order.lock().unwrap().push(owner))));
    }
    drop(release);
    first.await.unwrap();
    join_all(all).await;
    assert_eq!(*order.lock().unwrap(), [1, 2, 3, 1, 2, 1]);
}

#[tokio::test]
async fn a_long_walk_gives_way_between_its_slices_and_ends_with_its_caller() {
    let pool = Pool::new(1);
    let steps = Arc::new(AtomicUsize::new(0));
    let counter = steps.clone();
    let endless = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(SLICE);
        ControlFlow::<()>::Continue(())
    };
    let mut walk = by(1, || pool.walk(endless));
    let waiting = Arc::new(AtomicUsize::new(0));
    let counter = waiting.clone();
    let second = by(1, || pool.run(move || counter.fetch_add(1, Ordering::Relaxed)));
    for n in 0..3 {
        let other = of(2, async { pool.run(move || n).await });
        let other = tokio::select! {
            _ = &mut walk => panic!("it has no end"),
            other = other => other.unwrap(),
        };
        assert_eq!(other, n, "done although the walk goes on");
    }
    assert_eq!(waiting.load(Ordering::Relaxed), 0, "the walk that has begun comes first");
    drop(walk);
    assert_eq!(second.await.unwrap(), 0);
    // The slice in hand is the last one.
    pool.run(|| ()).await.unwrap();
    let done = steps.load(Ordering::Relaxed);
    assert!(done > 0);
    pool.run(|| ()).await.unwrap();
    assert_eq!(steps.load(Ordering::Relaxed), done);
    let mut left = 5;
    let count = pool.walk(move || {
        left -= 1;
        if left == 0 { ControlFlow::Break("over") } else { ControlFlow::Continue(()) }
    });
    assert_eq!(count.await.unwrap(), "over");
}

#[tokio::test]
async fn work_whose_caller_is_gone_is_not_begun() {
    let pool = Pool::new(1);
    let ran = Arc::new(AtomicUsize::new(0));
    let (release, first) = held(&pool);
    for _ in 0..10 {
        let ran = ran.clone();
        drop(pool.run(move || ran.fetch_add(1, Ordering::Relaxed)));
    }
    let last = pool.run(|| 7);
    drop(release);
    first.await.unwrap();
    assert_eq!(last.await.unwrap(), 7);
    assert_eq!(ran.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn there_are_no_more_threads_than_allowed_and_a_panic_costs_none() {
    let pool = Pool::new(3);
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let work = || {
        let (now, most) = (now.clone(), most.clone());
        pool.run(move || {
            most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            std::thread::sleep(std::time::Duration::from_millis(1));
            now.fetch_sub(1, Ordering::Relaxed);
        })
    };
    assert!(pool.run(|| panic!("expected by the test")).await.is_err());
    join_all((0..50).map(|_| work())).await;
    assert!((1..=3).contains(&most.load(Ordering::Relaxed)));
    // A result comes a moment before its thread has counted the work off.
    let is_over = || pool.0.queues().running == 0;
    let over = async {
        while !is_over() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), over).await.unwrap();
    let queues = pool.0.queues();
    assert!(queues.by_owner.is_empty() && queues.turns.is_empty(), "{queues:?}");
}

#[tokio::test]
async fn stuck_threads_are_replaced_and_their_owners_have_no_more_of_them() {
    let pool = Pool::new(2);
    // Each has a thread, as in a file system that does not answer.
    let stuck = [1, 2].map(|owner| by(owner, || held(&pool)));
    let again = by(1, || pool.run(|| 1));
    let other = by(3, || pool.run(|| 3));
    assert_eq!(other.await.unwrap(), 3);
    for (release, job) in stuck {
        drop(release);
        job.await.unwrap();
    }
    assert_eq!(again.await.unwrap(), 1);
}
