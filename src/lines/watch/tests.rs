use std::fs;

use tempfile::TempDir;

use super::*;
use crate::lines::{identity::Identity, root::Root};

/// The thread is held before it takes the first of these events.
#[tokio::test]
#[expect(clippy::unwrap_used, reason = "a test")]
async fn events_that_were_queued_before_a_path_was_followed_are_not_about_its_files() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    let roots = Arc::new(Roots::open(vec![Root::new("r", directory.path())]).unwrap());
    let watches = Watches::new(roots, 10).unwrap();
    fs::write(path("a"), "").unwrap();
    let mut other = watches.follow(&FilePath::parse("r/a").unwrap()).unwrap();
    let held = other.followed.work();
    fs::rename(path("a"), path("a.1")).unwrap();
    // Files that were at the path before it was followed, of which one is still there.
    for name in ["b.2", "b.1"] {
        fs::write(path("b"), "").unwrap();
        fs::rename(path("b"), path(name)).unwrap();
    }
    fs::write(path("b"), "").unwrap();
    let follow = watches.follow(&FilePath::parse("r/b").unwrap()).unwrap();
    let found = follow.last();
    assert_eq!(found.identity, Identity::of(&fs::metadata(path("b")).unwrap()));
    // This event comes after all others.
    fs::write(path("a"), "").unwrap();
    let last = Identity::of(&fs::metadata(path("a")).unwrap());
    drop(held);
    while other.last().identity != last {
        tokio::time::timeout(Duration::from_secs(120), other.changed()).await.unwrap().unwrap();
        other.mark();
    }
    assert!(Arc::ptr_eq(&found, &follow.last()), "{:?}", follow.last());
    assert!(found.left().is_none());
    // Later ones are.
    fs::rename(path("b"), path("b.1")).unwrap();
    fs::write(path("b"), "").unwrap();
    let mut follow = follow;
    while follow.last().identity == found.identity {
        tokio::time::timeout(Duration::from_secs(120), follow.changed()).await.unwrap().unwrap();
        follow.mark();
    }
}

#[tokio::test]
#[expect(clippy::unwrap_used, reason = "a test")]
async fn a_follower_is_told_of_changes_after_the_last_one_that_it_marked_also_if_it_waited_before() {
    let directory = TempDir::new().unwrap();
    let roots = Arc::new(Roots::open(vec![Root::new("r", directory.path())]).unwrap());
    let watches = Watches::new(roots, 10).unwrap();
    let mut follow = watches.follow(&FilePath::parse("r/a").unwrap()).unwrap();
    let followed = follow.followed.clone();
    let mut is_told = async || {
        let is_told = {
            let changed = std::pin::pin!(follow.changed());
            futures::poll!(changed).is_ready()
        };
        (is_told, follow.mark())
    };
    let (_, first) = is_told().await;
    assert_eq!(is_told().await, (false, first));
    // This wakes the wait that was given up above.
    followed.wake();
    assert_eq!(is_told().await, (true, first + 1));
    assert_eq!(is_told().await, (false, first + 1));
    followed.wake();
    follow.mark();
    assert!(futures::poll!(std::pin::pin!(follow.changed())).is_pending(), "it was marked");
}

#[tokio::test]
#[expect(clippy::unwrap_used, reason = "a test")]
async fn a_panic_of_the_thread_ends_no_following() {
    let directory = TempDir::new().unwrap();
    let log = directory.path().join("a");
    let roots = Arc::new(Roots::open(vec![Root::new("r", directory.path())]).unwrap());
    let watches = Watches::new(roots, 10).unwrap();
    let mut follow = watches.follow(&FilePath::parse("r/a").unwrap()).unwrap();
    for _ in 0..2 {
        watches.shared.panics.store(true, Ordering::Relaxed);
        let before = follow.last().identity;
        fs::remove_file(&log).ok();
        fs::write(&log, "").unwrap();
        while follow.last().identity == before {
            follow.mark();
            tokio::time::timeout(Duration::from_secs(120), follow.changed()).await.unwrap().unwrap();
        }
        while watches.shared.panics.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The events of the directory that is gone from the path are read after another follower has found the last file.
#[tokio::test]
#[expect(clippy::unwrap_used, reason = "a test")]
async fn a_directory_that_came_and_went_unseen_in_one_that_is_gone_is_missing() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    let make = |text: &str| {
        fs::create_dir_all(path("a/b")).unwrap();
        fs::write(path("a/b/f"), text).unwrap();
    };
    let roots = Arc::new(Roots::open(vec![Root::new("r", directory.path())]).unwrap());
    let watches = Watches::new(roots, 10).unwrap();
    fs::write(path("x"), "").unwrap();
    make("1");
    let other = watches.follow(&FilePath::parse("r/x").unwrap()).unwrap();
    let mut follow = watches.follow(&FilePath::parse("r/a/b/f").unwrap()).unwrap();
    let held = other.followed.work();
    fs::rename(path("x"), path("x.1")).unwrap();
    fs::rename(path("a/b"), path("old")).unwrap();
    make("2");
    fs::rename(path("a"), path("older")).unwrap();
    make("3");
    let again = watches.follow(&FilePath::parse("r/a/b/f").unwrap()).unwrap();
    assert_eq!(again.last().identity, Identity::of(&fs::metadata(path("a/b/f")).unwrap()));
    drop(held);
    while !follow.last().arrival.misses_some {
        follow.mark();
        tokio::time::timeout(Duration::from_secs(20), follow.changed()).await.unwrap().unwrap();
    }
}
