//! Reads the files of TLS again when they change, and when the operator asks for it.

use std::{sync::Arc, time::Duration};

use super::{Contents, Error, Set, Tls};
use crate::{
    blocking::Pool,
    pem,
    watched::{Asked, Reading, mark},
};

/// Why new files are refused.
pub(super) struct Refused {
    fault: String,
    /// If it is that they are not valid yet: when they are, in Unix seconds.
    pub(super) valid_from: Option<i64>,
}

impl Tls {
    /// Follows the files until it is dropped. They are read every `interval`, and at once when `asked`.
    pub async fn follow(&self, interval: Duration, asked: &Asked, pool: &Pool) {
        let mut watched = self.watched.lock().await;
        // When contents can be used that were refused because they are not valid yet.
        let mut valid_from = None;
        loop {
            let is_asked = watched.is_asked(interval, asked).await;
            let files = self.files.clone();
            if let Ok(contents) = pool.run(move || Contents::read(&files)).await {
                let mark = mark(&contents);
                let is_due = match watched.read(mark) {
                    Reading::Same => valid_from.is_some_and(|from| pem::now() >= from),
                    Reading::New => false,
                    Reading::Again => true,
                };
                if is_asked && watched.are_in_use(mark) {
                    tracing::info!("the TLS files were read again: none has changed");
                } else if is_asked || is_due {
                    let refused = self.replace(contents).err();
                    watched.settle(mark, refused.is_some());
                    valid_from = refused.as_ref().and_then(|refused| refused.valid_from);
                    asked.settled(refused.map(|refused| refused.fault));
                }
            }
            if is_asked {
                asked.done();
            }
        }
    }

    /// Uses new contents, if they can be used.
    pub(super) fn replace(&self, contents: Result<Contents, pem::Error>) -> Result<(), Refused> {
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
                let changed = set.marks.changed(&self.current.borrow().marks);
                let changed = (!changed.is_empty()).then_some(changed);
                self.current.send_replace(Arc::new(set));
                tracing::info!(changed, expires, "the new TLS files are in use");
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "the new TLS files cannot be used: the previous ones stay in use");
                Err(Refused { fault: error.to_string(), valid_from })
            }
        }
    }
}
