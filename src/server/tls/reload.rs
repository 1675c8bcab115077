//! Reads the files of TLS again when they change, and when the operator asks for it.
//!
//! The files are read from time to time and compared: that also notices a link that leads elsewhere, a mount that was
//! replaced, and a network file system. A change is used when it was seen twice, because a certificate and its key are
//! rarely replaced in one step.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;

use super::{Contents, Error, Set, Tls, mark};
use crate::{blocking::Pool, pem};

impl Tls {
    /// Follows the files until it is dropped. They are read every `interval`, and at once when `asked`.
    pub async fn follow(&self, interval: Duration, asked: &Notify, pool: &Pool) {
        // The contents that were used or refused last, and those that were seen once since.
        let (mut settled, mut seen) = (self.first, None);
        loop {
            let is_asked = tokio::time::timeout(interval, asked.notified()).await.is_ok();
            let files = self.files.clone();
            let Ok(contents) = pool.run(move || Contents::read(&files)).await else { continue };
            let now = mark(&contents);
            if !is_asked && now == settled {
                seen = None;
            } else if !is_asked && seen != Some(now) {
                seen = Some(now);
            } else {
                (settled, seen) = (now, None);
                self.replace(contents);
            }
        }
    }

    /// Uses new contents, if they can be used.
    pub(super) fn replace(&self, contents: Result<Contents, pem::Error>) {
        let set = contents.map_err(Error::from).and_then(|contents| Set::new(&self.files, &contents));
        let set = set.and_then(|set| match set.not_valid(&self.files, pem::now()) {
            Some(error) => Err(error),
            None => Ok(set),
        });
        self.metrics.reloaded(set.is_ok());
        match set {
            Ok(set) => {
                self.metrics.in_use(&set);
                let expires = jiff::Timestamp::from_second(set.validity.not_after).ok();
                let expires = expires.map(tracing::field::display);
                self.current.send_replace(Arc::new(set));
                tracing::info!(expires, "new files of TLS are in use");
            }
            Err(error) => {
                tracing::error!(%error, "the new files of TLS cannot be used: those before stay in use");
            }
        }
    }
}
