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
        // When contents can be used that were refused because they are not valid yet.
        let mut valid_from = None;
        loop {
            let is_asked = tokio::time::timeout(interval, asked.notified()).await.is_ok();
            let files = self.files.clone();
            let Ok(contents) = pool.run(move || Contents::read(&files)).await else { continue };
            let now = mark(&contents);
            let is_due = now == settled && valid_from.is_some_and(|from| pem::now() >= from);
            if is_asked || is_due || now != settled && seen == Some(now) {
                (settled, seen) = (now, None);
                valid_from = self.replace(contents);
            } else {
                seen = Some(now).filter(|now| *now != settled);
            }
        }
    }

    /// Uses new contents, if they can be used. If they were refused because they are not valid yet: when they are, in Unix
    /// seconds.
    pub(super) fn replace(&self, contents: Result<Contents, pem::Error>) -> Option<i64> {
        let set = contents.map_err(Error::from).and_then(|contents| Set::new(&self.files, &contents));
        let now = pem::now();
        let valid_from = set.as_ref().ok().map(|set| set.validity.not_before).filter(|from| *from > now);
        let set = set.and_then(|set| match set.not_valid(&self.files, now) {
            Some(error) if self.current.borrow().not_valid(&self.files, now).is_none() => Err(error),
            // The set in use is no better, and the new one may revoke certificates.
            Some(error) => {
                tracing::error!(%error, "connections by TLS will fail");
                Ok(set)
            }
            None => Ok(set),
        });
        self.metrics.reloaded(set.is_ok());
        match set {
            Ok(set) => {
                self.metrics.in_use(&set);
                let expires = jiff::Timestamp::from_second(set.validity.not_after).ok();
                let expires = expires.map(tracing::field::display);
                self.current.send_replace(Arc::new(set));
                tracing::info!(expires, "the new TLS files are in use");
                None
            }
            Err(error) => {
                tracing::error!(%error, "the new TLS files cannot be used: the previous ones stay in use");
                valid_from
            }
        }
    }
}
