//! Followers of which some are not asked for their lines any more.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::future::{pending, ready};

use tokio::sync::oneshot;

use super::*;
use crate::lines::content::{checkpoint::Checkpoint, fill::Ended, rules::Rules, split::Bounds};

fn wanted() -> Wanted {
    let request = Request {
        checkpoint: Checkpoint::start(),
        bounds: Bounds { max_items: 1, max_bytes: 1 },
        rules: Arc::new(Rules::default()),
        flush: None,
        flush_at: None,
        end: None,
        settled: 0,
        checks_holes: false,
    };
    Wanted { file: Identity::default(), request }
}

fn filled(size: u64) -> Filled {
    Filled::nothing(Checkpoint::start(), Ended::More, size)
}

#[tokio::test]
async fn a_follower_that_is_not_polled_holds_up_no_other() {
    let (shared, wanted) = (SharedRead::default(), wanted());
    let (answer, answered) = oneshot::channel();
    let first = shared.get(&wanted, 1, None, async { Ok(answered.await.unwrap()) });
    let mut first = Box::pin(first);
    assert!(first.as_mut().now_or_never().is_none());
    // It waits in line, and is not polled again, either.
    let mut second = Box::pin(shared.get(&wanted, 1, None, pending()));
    assert!(second.as_mut().now_or_never().is_none());
    answer.send(filled(7)).unwrap();
    assert_eq!(shared.get(&wanted, 1, None, pending()).await.unwrap().size, 7);
    assert_eq!(shared.get(&wanted, 2, None, ready(Ok(filled(8)))).await.unwrap().size, 8);
    assert_eq!(first.await.unwrap().size, 7);
    assert_eq!(second.await.unwrap().size, 7);
}

#[tokio::test]
async fn the_read_of_a_follower_that_is_gone_is_repeated() {
    let (shared, wanted) = (SharedRead::default(), wanted());
    let (gone, is_gone) = oneshot::channel::<()>();
    let read = async move {
        is_gone.await.unwrap_err();
        Err(io::Error::from(io::ErrorKind::Interrupted).into())
    };
    let mut first = Box::pin(shared.get(&wanted, 1, None, read));
    assert!(first.as_mut().now_or_never().is_none());
    let mut second = Box::pin(shared.get(&wanted, 1, None, ready(Ok(filled(9)))));
    assert!(second.as_mut().now_or_never().is_none());
    drop(first);
    drop(gone);
    assert_eq!(second.await.unwrap().size, 9);
}
