//! A follower of a path: it waits for changes, and dropping it ends what only it needed.

use std::{
    io,
    sync::{Arc, Weak, atomic::Ordering},
};

use tokio::sync::watch;
use tokio_util::sync::ReusableBoxFuture;

use super::{Shared, followed::Followed};
use crate::lines::{history::generation::Generation, identity::Identity, shared_read::SharedRead};

/// One follower of a path. Dropping the last one removes the watches of the path.
#[derive(Debug)]
pub struct Follow {
    shared: Weak<Shared>,
    pub(super) followed: Arc<Followed>,
    changed: watch::Receiver<u64>,
    /// The change that [`mark`](Self::mark) returned last.
    marked: u64,
    /// The next change after that. It is kept while a follower has other things to do, because to register again
    /// with each heartbeat would cost more than the rest of the waiting.
    next: Option<ReusableBoxFuture<'static, bool>>,
}

impl Follow {
    /// `followed` counts it already.
    pub(super) fn new(shared: Weak<Shared>, followed: Arc<Followed>) -> Self {
        let changed = followed.subscribe();
        let (marked, next) = (*changed.borrow(), None);
        Self { shared, followed, changed, marked, next }
    }

    /// There is a file at the path.
    pub fn exists(&self) -> bool {
        self.followed.exists()
    }

    /// The generation that came to the path last. It has no file if no file came yet.
    pub fn last(&self) -> Arc<Generation> {
        self.followed.last()
    }

    /// See [`Followed::find`].
    pub fn find(&self, identity: &Identity) -> Option<Arc<Generation>> {
        self.followed.find(identity)
    }

    /// Marks all changes so far as seen, and returns the number of the last one. Later changes are reported.
    pub fn mark(&mut self) -> u64 {
        let version = *self.changed.borrow_and_update();
        if std::mem::replace(&mut self.marked, version) != version {
            self.next = None;
        }
        version
    }

    /// Waits until something changed since [`mark`](Self::mark). Cancelling it loses nothing.
    ///
    /// # Errors
    /// If the thread that watches files has ended.
    pub async fn changed(&mut self) -> io::Result<()> {
        let Self { changed, next, .. } = self;
        let next = next.get_or_insert_with(|| {
            let mut changed = changed.clone();
            ReusableBoxFuture::new(async move { changed.changed().await.is_ok() })
        });
        let is_changed = next.await;
        self.next = None;
        let lives = self.shared.upgrade().is_some_and(|shared| !shared.ends.load(Ordering::Acquire));
        if is_changed && lives {
            Ok(())
        } else {
            Err(io::Error::other("the thread that watches files has ended"))
        }
    }

    pub fn shared_read(&self) -> &SharedRead {
        &self.followed.shared_read
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        {
            let mut table = shared.table();
            if self.followed.remove_follower() > 0 {
                return;
            }
            // A new one for the same path may be in the table already.
            let path = &self.followed.path;
            if table.followed.get(path).is_some_and(|other| Arc::ptr_eq(other, &self.followed)) {
                table.followed.remove(path);
            }
        }
        let watches = self.followed.work().take_watches();
        for watch in watches {
            shared.unwatch(&self.followed, Some(watch));
        }
    }
}
