//! Reads the settings again while the server runs: when the file of `--config` changes, and at SIGHUP.
//!
//! Some settings apply at once; for the others a restart is needed, and the log says for which. A file that is wrong changes
//! nothing: the values before stay in use, the log says what is wrong, and a metric is 1 until the file is right again.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::sync::{Mutex, Notify};

use super::config::{self, Config, Setting};
use crate::{
    grpc::call::Calls,
    watched::{Asked, Reading, Watched},
};

/// The settings that apply at once.
const LIVE: [&str; 6] =
    ["log", "max-streams", "stall", "max-buffered", "max-buffered-per-connection", "max-unsent"];

/// Changes the filter of the log. An error says what is wrong with the filter.
pub type SetLog = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// The parts of a reload that the program of the server has.
#[derive(Clone)]
pub struct Reload {
    /// Notified when the operator asks for it.
    pub asked: Arc<Notify>,
    /// Changes the filter of the log.
    pub set_log: SetLog,
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reload").field("asked", &self.asked).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Outcome {
    outcome: &'static str,
}

/// The settings as they were read last.
#[derive(Debug)]
struct State {
    watched: Watched,
    read: Vec<Setting>,
}

/// Follows the settings of a running server. A clone continues where another one ended by a panic.
#[derive(Clone, Debug)]
pub struct Follower {
    /// The settings that the server started with.
    started: Vec<Setting>,
    state: Arc<Mutex<State>>,
    config: Config,
    calls: Calls,
    reload: Reload,
    is_refused: Gauge,
    need_restart: Gauge,
    reloads: Family<Outcome, Counter>,
}

impl Follower {
    /// Registers the metrics.
    pub fn new(config: Config, calls: Calls, reload: Reload, registry: &mut Registry) -> Self {
        // The file may have changed since it was read: a log that is large opens for long.
        let state = State { watched: Watched::new(config.file_mark), read: config.settings.clone() };
        let follower = Self {
            started: config.settings.clone(),
            state: Arc::new(state.into()),
            config,
            calls,
            reload,
            is_refused: Gauge::default(),
            need_restart: Gauge::default(),
            reloads: Family::default(),
        };
        let help = "1 while the settings cannot be used and those before are in use";
        registry.register("config_refused", help, follower.is_refused.clone());
        let help = "Settings that were changed and need a restart";
        registry.register("config_restart_needed", help, follower.need_restart.clone());
        registry.register("config_reloads", "New settings, by outcome", follower.reloads.clone());
        follower
    }

    /// Follows the settings until it is dropped. They are read every `interval`, and at once when `asked`.
    pub async fn follow(self, interval: Duration, asked: &Asked) {
        let path = self.config.file.clone();
        let mut state = self.state.lock().await;
        loop {
            let is_asked = state.watched.is_asked(interval, asked).await;
            let mark = config::mark(read(path.as_deref()).await.as_deref());
            if is_asked && state.watched.are_in_use(mark) {
                tracing::info!("the settings were read again: none has changed");
            } else if state.watched.read(mark) == Reading::Again || is_asked {
                asked.settled(self.read_again(&mut state, mark).await.err());
            }
            if is_asked {
                asked.done();
            }
        }
    }

    /// Reads the settings, whose file has this mark. An error says why they are refused.
    async fn read_again(&self, state: &mut State, mark: u64) -> Result<(), String> {
        let config = self.config.clone();
        let read = tokio::task::spawn_blocking(move || config.read_again());
        let new = read.await.map_err(|error| error.to_string());
        let new = new.and_then(|new| new.map_err(|error| error.to_string()));
        let new = new.and_then(|new| (self.reload.set_log)(&new.log).map(|()| new));
        let outcome = if new.is_ok() { "used" } else { "refused" };
        self.reloads.get_or_create(&Outcome { outcome }).inc();
        self.is_refused.set(i64::from(new.is_err()));
        state.watched.settle(new.as_ref().map_or(mark, |new| new.file_mark), new.is_err());
        match new {
            Ok(new) => {
                self.apply(state, &new);
                Ok(())
            }
            Err(error) => {
                tracing::error!(error, "the new settings cannot be used: the previous ones stay in use");
                Err(error)
            }
        }
    }

    fn apply(&self, state: &mut State, new: &Config) {
        self.calls.set_config(new.calls);
        let mut changes = 0;
        for (before, now) in
            state.read.iter().zip(&new.settings).filter(|(one, other)| one.value != other.value)
        {
            changes += 1;
            let (setting, before) = (&now.name, before.value.as_deref().unwrap_or("not set"));
            let now = now.value.as_deref().unwrap_or("not set");
            if LIVE.contains(&setting.as_str()) {
                tracing::info!(setting, before, now, "a setting has changed, and applies now");
            } else {
                tracing::warn!(setting, before, now, "a setting has changed: restart the server to use it");
            }
        }
        if changes == 0 {
            tracing::info!("the file of settings has changed, and no setting has");
        }
        let waits = |(started, now): &(&Setting, &Setting)| {
            started.value != now.value && !LIVE.contains(&now.name.as_str())
        };
        let waiting = self.started.iter().zip(&new.settings).filter(waits).count();
        self.need_restart.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        state.read.clone_from(&new.settings);
    }
}

/// The content of a file; `None` without one, or if it cannot be read.
async fn read(path: Option<&Path>) -> Option<Vec<u8>> {
    tokio::fs::read(path?).await.ok()
}

#[cfg(test)]
mod tests;
