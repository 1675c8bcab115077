//! A client that watches a countdown and records what it receives.

use perennial::proto::{
    Countdown, CountdownChange, CountdownRequest, CountdownResponse, CountdownState, OnLag, Tick,
    countdown_request::Target, countdown_stream_event::Event,
};
use tonic::{Status, Streaming};

use crate::{
    calls::{Client, is, moment},
    harness::soon,
};

/// What a watcher received, over all its calls.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub ticks: Vec<Tick>,
    pub skipped: i64,
    /// What was done, with the version before and since.
    pub changes: Vec<(CountdownChange, i64, i64)>,
    /// Each state that a response had.
    pub countdowns: Vec<Countdown>,
    /// The moment since when its ticks are due, if that is known: when the countdown was paused.
    pub since: Option<i128>,
}

impl Seen {
    /// Checks what holds for every watcher.
    pub fn check(&self) {
        let versions = self.countdowns.iter().map(|it| it.version.unwrap()).collect::<Vec<_>>();
        assert!(versions.is_sorted(), "{versions:?}");
        for (first, second) in self.ticks.iter().zip(self.ticks.iter().skip(1)) {
            assert!(first.version <= second.version, "{second:?} after {first:?}");
            if first.version == second.version {
                assert!(moment(first.due_time) < moment(second.due_time), "{second:?} after {first:?}");
                assert!(first.remaining > second.remaining, "{second:?} after {first:?}");
            }
        }
        for (first, second) in self.changes.iter().zip(self.changes.iter().skip(1)) {
            assert!(first.2 <= second.1 && second.1 < second.2, "{second:?} after {first:?}");
        }
    }

    pub fn done(&self) -> Vec<CountdownChange> {
        self.changes.iter().map(|(change, ..)| *change).collect()
    }
}

pub struct Watcher {
    pub request: CountdownRequest,
    stream: Option<Streaming<CountdownResponse>>,
    pub seen: Seen,
}

impl Watcher {
    pub fn request(name: &str, on_lag: OnLag) -> CountdownRequest {
        let target = Some(Target::Name(name.into()));
        CountdownRequest { target, on_lag: on_lag.into(), ..Default::default() }
    }

    /// Watches from now on: it is subscribed when this returns.
    pub async fn start(client: &Client, request: CountdownRequest) -> Self {
        let mut watcher = Self { request, stream: None, seen: Seen::default() };
        watcher.go_on(client).await;
        let countdown = &watcher.seen.countdowns[0];
        let is_paused = is(countdown, CountdownState::Paused);
        watcher.seen.since = is_paused.then(|| moment(countdown.update_time));
        watcher
    }

    /// The same request with the last cursor.
    pub async fn go_on(&mut self, client: &Client) {
        let call = client.clone().countdown(self.request.clone()).await;
        self.stream = Some(call.unwrap().into_inner());
        let first = self.next().await.unwrap().expect("a first response");
        assert!(first.countdown.is_some(), "the first response has the state");
    }

    pub fn leave(&mut self) {
        self.stream = None;
    }

    /// The next response; none at the end.
    pub async fn next(&mut self) -> Result<Option<CountdownResponse>, Status> {
        let stream = self.stream.as_mut().expect("a stream");
        let response = soon("a response", stream.message()).await?;
        if let Some(response) = &response {
            self.note(response);
        }
        Ok(response)
    }

    fn note(&mut self, response: &CountdownResponse) {
        assert!(!response.cursor.is_empty(), "{response:?}");
        assert!(response.sent_time.is_some(), "{response:?}");
        self.request.cursor = Some(response.cursor.clone());
        self.seen.skipped += response.skipped_ticks;
        for event in &response.events {
            if let Some(Event::Changed(changed)) = &event.event {
                let versions = (changed.previous_version.unwrap(), changed.version.unwrap());
                self.seen.changes.push((changed.change(), versions.0, versions.1));
                let countdown = response.countdown.as_ref().expect("the state after the change");
                assert_eq!(countdown.version, changed.version, "{response:?}");
            }
        }
        self.seen.countdowns.extend(response.countdown.clone());
        for tick in &response.ticks {
            assert_eq!(tick.state(), CountdownState::Running, "{tick:?}");
            assert!(moment(tick.due_time) <= moment(response.sent_time), "early: {response:?}");
        }
        self.seen.ticks.extend_from_slice(&response.ticks);
    }

    /// Goes on until something has been seen.
    pub async fn until(&mut self, what: &str, has_seen: impl Fn(&Seen) -> bool) {
        let wait = async {
            while !has_seen(&self.seen) {
                let next = self.next().await.unwrap_or_else(|status| panic!("{what}: {status:?}"));
                assert!(next.is_some(), "{what}: the stream has ended");
            }
        };
        soon(what, wait).await;
    }

    /// Waits for this number of further ticks.
    pub async fn ticks(&mut self, more: usize) {
        let enough = self.seen.ticks.len() + more;
        self.until("ticks", |seen| seen.ticks.len() >= enough).await;
    }

    /// The event of a version.
    pub async fn change(&mut self, countdown: &Countdown) {
        let version = countdown.version;
        self.until("a change", |seen| seen.changes.iter().any(|change| Some(change.2) == version)).await;
    }

    /// How the stream ends.
    pub async fn end(&mut self) -> Result<(), Status> {
        while self.next().await?.is_some() {}
        self.leave();
        Ok(())
    }
}
