//! Reads the files of access again when they change, and when the operator asks for it.
//!
//! As with the files of TLS, a change is used when it was seen twice, because a file is not always replaced in one step. The
//! second reading follows within a second, so that a revocation takes little longer than the interval.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::sync::Notify;

use super::{Access, Error, Files, Policy, jwt};
use crate::{blocking::Pool, pem};

/// A change that was seen once is read again after this time, if the interval is not shorter.
const SECOND_READING: Duration = Duration::from_secs(1);

/// The contents of the files.
#[derive(Hash)]
pub struct Contents {
    pub rules: Vec<u8>,
    pub tokens: Option<Vec<u8>>,
    /// The keys of an issuer of JWTs, if the rules name their file.
    pub keys: Option<(PathBuf, Vec<u8>)>,
}

impl Contents {
    pub fn read(files: &Files) -> Result<Self, pem::Error> {
        let rules = pem::read(&files.rules)?;
        let keys = jwt::keys_file(&files.rules, &rules);
        let keys = keys.map(|path| pem::read(&path).map(|content| (path, content))).transpose()?;
        Ok(Self { rules, keys, tokens: files.tokens.as_deref().map(pem::read_private).transpose()? })
    }
}

/// A number that is another one for other contents.
pub fn mark(contents: &Result<Contents, pem::Error>) -> u64 {
    let mut hasher = DefaultHasher::new();
    contents.hash(&mut hasher);
    hasher.finish()
}

impl Access {
    /// Follows the files until it is dropped. They are read every `interval`, and at once when `asked`.
    pub async fn follow(&self, interval: Duration, asked: &Notify, pool: &Pool) {
        // The contents that were used or refused last, and those that were seen once since.
        let (mut settled, mut seen) = (self.first, None);
        loop {
            let pause = if seen.is_some() { interval.min(SECOND_READING) } else { interval };
            let is_asked = tokio::time::timeout(pause, asked.notified()).await.is_ok();
            let files = self.files.clone();
            let Ok(contents) = pool.run(move || Contents::read(&files)).await else { continue };
            let now = mark(&contents);
            if is_asked || now != settled && seen == Some(now) {
                let Ok(policy) = pool.run(self.policy(contents)).await else { continue };
                (settled, seen) = (now, None);
                self.replace(policy);
            } else {
                seen = Some(now).filter(|now| *now != settled);
            }
        }
    }

    /// Makes the policy of new contents. Large files take a while.
    pub(super) fn policy(
        &self,
        contents: Result<Contents, pem::Error>,
    ) -> impl FnOnce() -> Result<Policy, Error> + Send + 'static {
        let (files, roots, before) = (self.files.clone(), self.roots.clone(), self.current.borrow().clone());
        move || Policy::new(&files, &contents?, &roots, Some(&before))
    }

    /// Uses a new policy, if there is one.
    pub(super) fn replace(&self, policy: Result<Policy, Error>) {
        self.metrics.reloaded(policy.is_ok());
        match policy {
            Ok(policy) => {
                self.metrics.in_use(&policy);
                let (rules, tokens) = (policy.rules.count(), policy.tokens.count());
                self.current.send_replace(Arc::new(policy));
                tracing::info!(rules, tokens, "the files of access are in use");
            }
            Err(error) => {
                tracing::error!(%error, "the new files of access cannot be used: the previous ones stay in use");
            }
        }
    }
}
