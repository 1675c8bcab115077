//! Reads the files of TLS again when they change, and when the operator asks for it.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;

use super::{Contents, Error, Set, Tls};
use crate::{
    blocking::Pool,
    pem,
    watched::{Reading, Watched, mark},
};

impl Tls {
    /// Follows the files until it is dropped. They are read every `interval`, and at once when `asked`.
    pub async fn follow(&self, interval: Duration, asked: &Notify, pool: &Pool) {
        let mut watched = Watched::new(self.first);
        // When contents can be used that were refused because they are not valid yet.
        let mut valid_from = None;
        loop {
            let is_asked = watched.is_asked(interval, asked).await;
            let files = self.files.clone();
            let Ok(contents) = pool.run(move || Contents::read(&files)).await else { continue };
            let mark = mark(&contents);
            let is_due = match watched.read(mark) {
                Reading::Same => valid_from.is_some_and(|from| pem::now() >= from),
                Reading::New => false,
                Reading::Again => true,
            };
            if is_asked || is_due {
                watched.settle(mark);
                valid_from = self.replace(contents);
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
