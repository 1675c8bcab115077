//! Reads the files of access again when they change, and when the operator asks for it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{Access, Error, Files, Policy, changes::Changes, identity::Accounts, jwt};
use crate::{
    blocking::Pool,
    pem,
    watched::{Asked, Reading, mark},
};

/// The longest pause before new contents are read a second time: a revocation takes little longer than the interval.
pub(super) const SECOND_READING: Duration = Duration::from_secs(1);

/// The contents of the files.
#[derive(Hash)]
pub struct Contents {
    pub rules: Vec<u8>,
    pub tokens: Option<Vec<u8>>,
    /// The keys of an issuer of JWTs, if the rules name their file.
    pub keys: Option<(PathBuf, Vec<u8>)>,
    /// The accounts of the machine, if the rules may name some: a rule means another account when these change.
    pub accounts: Accounts,
}

impl Contents {
    /// `etc`: the directory of the files of accounts.
    pub fn read(files: &Files, etc: &Path) -> Result<Self, pem::Error> {
        let rules = pem::read(&files.rules)?;
        let keys = jwt::keys_file(&files.rules, &rules);
        let keys = keys.map(|path| pem::read(&path).map(|content| (path, content))).transpose()?;
        let tokens = files.tokens.as_deref().map(pem::read_private).transpose()?;
        let has = |word: &[u8]| rules.windows(word.len()).any(|part| part == word);
        let accounts =
            if has(b"user:") || has(b"group:") { Accounts::read(etc) } else { Accounts::default() };
        Ok(Self { rules, tokens, keys, accounts })
    }
}

impl Access {
    /// Follows the files until it is dropped. They are read every `interval`, and at once when `asked`.
    pub async fn follow(&self, interval: Duration, asked: &Asked, pool: &Pool) {
        let mut watched = self.watched.lock().await;
        loop {
            let is_asked = watched.is_asked(interval, asked).await;
            let (files, etc) = (self.files.clone(), self.etc.clone());
            if let Ok(contents) = pool.run(move || Contents::read(&files, &etc)).await {
                let mark = mark(&contents);
                if (watched.read(mark) == Reading::Again || is_asked)
                    && let Ok(policy) = pool.run(self.policy(contents)).await
                {
                    let fault = self.replace(policy, watched.are_in_use(mark)).err();
                    watched.settle(mark, fault.is_some());
                    asked.settled(fault);
                }
            }
            if is_asked {
                asked.done();
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

    /// Uses a new policy, if there is one. The files are the `same` if the operator asked for a reload and changed none. An
    /// error says why the policy is refused.
    pub(super) fn replace(&self, policy: Result<Policy, Error>, is_same: bool) -> Result<(), String> {
        if !is_same || policy.is_err() {
            self.metrics.reloaded(policy.is_ok());
        }
        match policy {
            Ok(policy) => {
                self.metrics.in_use(&policy);
                let (rules, tokens) = (policy.rules.count(), policy.tokens.count());
                let changes = Changes::new(&self.current.borrow(), &policy);
                self.current.send_replace(Arc::new(policy));
                if is_same {
                    tracing::info!(rules, tokens, "the files of access were read again: none has changed");
                    return Ok(());
                }
                let Changes { added, removed, changed, made, revoked, others } = changes;
                tracing::info!(
                    rules,
                    tokens,
                    added,
                    removed,
                    changed,
                    tokens_made = made,
                    tokens_revoked = revoked,
                    tokens_changed = others,
                    "the files of access are in use"
                );
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "the new files of access cannot be used: the previous ones stay in use");
                Err(error.to_string())
            }
        }
    }
}
