//! The options of one stream.

use std::{sync::Arc, time::Duration};

use super::store::Store;

/// What a stream does beside its request.
#[derive(Clone)]
pub(super) struct Options {
    pub(super) store: Option<Arc<dyn Store>>,
    /// The state to continue from.
    pub(super) state: Option<String>,
    /// The caller keeps the state, also if there is none yet.
    pub(super) is_kept: bool,
    pub(super) save_every: Duration,
    pub(super) commit_every: Option<Duration>,
    pub(super) timeout: Option<Duration>,
    pub(super) connect_timeout: Duration,
    pub(super) max_outage: Option<Duration>,
}

impl Options {
    pub(super) fn new(connect_timeout: Duration) -> Self {
        Self {
            store: None,
            state: None,
            is_kept: false,
            save_every: Duration::ZERO,
            commit_every: None,
            timeout: None,
            connect_timeout,
            max_outage: None,
        }
    }
}
