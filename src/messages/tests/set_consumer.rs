//! A reader that connects while its consumer is set: the consumer is moved and the call succeeds, or neither.

use std::{pin::pin, sync::mpsc};

use futures::{FutureExt, poll};

use super::{workload::embedded, *};
use crate::blocking::Pool;

async fn log_with_messages(config: Config) -> (Log, Arc<Simulation>) {
    let disk = Simulation::new();
    let config = Config { disk: Storage::Simulated(disk.clone()), ..config };
    let log = Log::open(Path::new("/log"), config).unwrap().0;
    for n in 0..4 {
        log.publish(text("a", &n.to_string())).await.unwrap();
    }
    (log, disk)
}

#[tokio::test]
async fn a_consumer_stays_if_a_reader_connects_before_its_new_position_is_stored() {
    let pool = Pool::new(1);
    let (log, _) = log_with_messages(Config { pool: pool.clone(), ..config() }).await;
    let (hold, until) = mpsc::channel::<()>();
    let busy = pool.run(move || until.recv().is_err());
    let mut set = pin!(log.set_consumer("c", Start::Last(1)));
    assert!(poll!(&mut set).is_pending(), "it waits for the thread");
    let reader = embedded(&log).lease("c");
    drop(hold);
    assert!(busy.await.unwrap());
    let refused = set.await;
    assert!(matches!(refused, Err(Error::ConsumerConnected)), "{refused:?}");
    assert_eq!(log.consumer("c").await.unwrap(), None, "it is not created");
    drop(reader);
    assert!(log.set_consumer("c", Start::Last(1)).await.is_ok());
}

#[tokio::test]
async fn a_consumer_that_is_moved_is_reported_as_moved_if_a_reader_connects_meanwhile() {
    let (log, _) = log_with_messages(config()).await;
    let held = embedded(&log).hold().await;
    // The committer has taken the order, and waits.
    let is_empty = async || {
        while embedded(&log).queued() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, is_empty()).await.unwrap();
    let mut set = pin!(log.set_consumer("c", Start::Last(1)));
    let stored = async {
        while embedded(&log).queued() == 0 {
            assert!((&mut set).now_or_never().is_none(), "the committer waits");
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, stored).await.unwrap();
    let _reader = embedded(&log).lease("c");
    drop(held);
    let set = set.await.unwrap();
    assert!(set.is_connected);
    assert_eq!(log.consumer("c").await.unwrap().unwrap().position, set.position);
    assert_eq!(texts(&log, query(&["a"], Start::Resume(set.position.unwrap()))).await, ["3"]);
}
