//! The calls, saves and commits of one stream, and the order in which they happen.
//!
//! A value is handed out only after what was done before it is saved. Nothing is lost if a caller stops to wait for a
//! value: the step in hand goes on when the caller asks again.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures::{future::BoxFuture, stream::BoxStream};
use tokio::time::Sleep;

use super::{
    keeper::{Keeper, load},
    kind::Kind,
    options::Options,
    state::Place,
    walk::{Events, ValueOf, Walk},
};
use crate::client::{Client, Error, resume, waits::Limits};

/// How long the commit at the end of a stream may take.
const LAST_COMMIT_LIMIT: Duration = Duration::from_secs(2);

pub(super) struct Reader<R: Kind> {
    pub(super) client: Client,
    pub(super) request: R,
    pub(super) options: Options,
    pub(super) events: Events,
    phase: Phase<R>,
    responses: Option<BoxStream<'static, Result<R::Response, Error>>>,
    walk: Option<Walk<R>>,
    keeper: Option<Keeper>,
    /// A save or a commit, which must end before the next value.
    chore: Option<BoxFuture<'static, Result<(), Error>>>,
    committed: Option<Arc<str>>,
    committed_at: Instant,
    deadline: Option<Pin<Box<Sleep>>>,
    alarm: Option<Pin<Box<Sleep>>>,
}

enum Phase<R: Kind> {
    New,
    Opening(BoxFuture<'static, Result<Option<Place<R::Key>>, Error>>),
    Open,
    /// The stream has ended, and the last save and the last commit run.
    Closing(Option<Error>),
    Closed,
}

impl<R: Kind> Reader<R> {
    pub(super) fn new(client: Client, request: R) -> Self {
        let options = Options::new(client.connect_timeout);
        Self {
            client,
            request,
            options,
            events: Events::Unwanted,
            phase: Phase::New,
            responses: None,
            walk: None,
            keeper: None,
            chore: None,
            committed: None,
            committed_at: Instant::now(),
            deadline: None,
            alarm: None,
        }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits { connect: self.options.connect_timeout, outage: self.options.max_outage }
    }

    /// The state with the item that the caller has.
    pub(super) fn state(&self) -> Option<String> {
        Some(self.walk.as_ref()?.position()?.text(R::NAME))
    }

    pub(super) fn skipped(&self) -> i64 {
        self.walk.as_ref().map_or(0, |walk| walk.skipped)
    }

    pub(super) fn poll_value(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<ValueOf<R>, Error>>> {
        loop {
            if let Some(chore) = &mut self.chore {
                let outcome = ready!(chore.as_mut().poll(context));
                self.chore = None;
                self.keeper.iter_mut().for_each(Keeper::ended);
                if let Err(error) = outcome {
                    self.failed(error);
                }
            }
            match &mut self.phase {
                Phase::New => {
                    let opening = self.begin();
                    self.phase = Phase::Opening(opening);
                }
                Phase::Opening(opening) => match ready!(opening.as_mut().poll(context)) {
                    Ok(place) => self.open(place),
                    Err(error) => self.failed(error),
                },
                Phase::Open => {
                    if let Some(value) = ready!(self.poll_open(context)) {
                        return Poll::Ready(Some(Ok(value)));
                    }
                }
                Phase::Closing(error) => {
                    let error = error.take();
                    self.phase = Phase::Closed;
                    if let Some(error) = error {
                        return Poll::Ready(Some(Err(error)));
                    }
                }
                Phase::Closed => return Poll::Ready(None),
            }
        }
    }

    /// Checks the options, and finds the state that the stream continues from.
    fn begin(&mut self) -> BoxFuture<'static, Result<Option<Place<R::Key>>, Error>> {
        if let Some(timeout) = self.options.timeout {
            self.deadline = Some(Box::pin(tokio::time::sleep(timeout)));
        }
        let Options { store, is_kept, save_every, commit_every, .. } = &self.options;
        let fault = match self.request.consumer() {
            Some(_) if store.is_some() || *is_kept => {
                Some("a consumer keeps its position on the server: leave out the store and the state")
            }
            None if commit_every.is_some() => Some("commit_every is for a stream with a consumer"),
            _ => None,
        };
        if let Some(fault) = fault {
            return Box::pin(std::future::ready(Err(Error::Options { fault })));
        }
        self.keeper = store.clone().map(|store| Keeper::new(store, *save_every));
        let cursor = self.request.cursor().clone().filter(|cursor| !cursor.is_empty());
        let start = cursor.map(|cursor| Place { cursor: cursor.into(), after: None });
        let (store, state) = (self.options.store.clone(), self.options.state.clone());
        Box::pin(async move {
            let (text, name) = match (state, store) {
                (Some(state), _) => (Some(state), "the state".into()),
                (None, Some(store)) => blocking(move || load(store.as_ref())).await?,
                (None, None) => (None, String::new()),
            };
            text.map_or(Ok(start), |text| Place::read(&text, R::NAME, &name).map(Some))
        })
    }

    fn open(&mut self, place: Option<Place<R::Key>>) {
        let mut request = self.request.clone();
        *request.cursor() = place.as_ref().map(|place| place.cursor.to_string());
        // The server would count items that were handed out before.
        let is_pending = place.as_ref().is_some_and(|place| place.after.is_some());
        let limit = if is_pending { request.limit().take() } else { None };
        let is_tracked = self.options.store.is_some() || self.options.is_kept;
        let probes = is_tracked && place.is_none();
        let responses = resume::stream(self.client.clone(), request, self.limits(), probes);
        self.responses = Some(Box::pin(responses));
        self.walk = Some(Walk::new(&self.request, place, limit));
        self.committed_at = Instant::now();
        self.phase = Phase::Open;
    }

    /// The next value; `None` if there is something else to do first.
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<Option<ValueOf<R>>> {
        if self.finish_item() {
            return Poll::Ready(None);
        }
        match &mut self.walk {
            Some(walk) if !walk.is_over() => {
                if let Some(value) = walk.next() {
                    return Poll::Ready(Some(value));
                }
                if let Some(had_items) = walk.finish_response() {
                    self.keeper.iter_mut().for_each(|keeper| keeper.changed(had_items));
                    return Poll::Ready(None);
                }
            }
            _ => {
                self.ended();
                return Poll::Ready(None);
            }
        }
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            self.failed(Error::Deadline { after: self.options.timeout.unwrap_or_default() });
            return Poll::Ready(None);
        }
        match self.responses.as_mut().map(|responses| responses.as_mut().poll_next(context)) {
            Some(Poll::Ready(Some(Ok(response)))) => {
                let begun = self.walk.as_mut().map_or(Ok(()), |walk| walk.begin(response, self.events));
                begun.unwrap_or_else(|error| self.failed(error));
            }
            Some(Poll::Ready(Some(Err(error)))) => self.failed(error),
            Some(Poll::Ready(None)) | None => self.ended(),
            Some(Poll::Pending) => return self.poll_alarm(context),
        }
        Poll::Ready(None)
    }

    /// The item that the caller has is done. Returns whether there is something to do before the next one.
    fn finish_item(&mut self) -> bool {
        let is_done = self.walk.as_mut().is_some_and(Walk::finish_item);
        if let Some(keeper) = self.keeper.as_mut().filter(|_| is_done) {
            keeper.changed(true);
        }
        self.start_chore()
    }

    /// Waits for the next save or commit that is due.
    fn poll_alarm(&mut self, context: &mut Context<'_>) -> Poll<Option<ValueOf<R>>> {
        let due = self.keeper.as_ref().and_then(Keeper::due).into_iter().chain(self.commit_due()).min();
        let Some(due) = due else { return Poll::Pending };
        let due = tokio::time::Instant::from_std(due);
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if alarm.deadline() != due {
            alarm.as_mut().reset(due);
        }
        alarm.as_mut().poll(context).map(|()| None)
    }

    /// Starts a save or a commit that is due.
    fn start_chore(&mut self) -> bool {
        let now = Instant::now;
        if self.keeper.as_ref().and_then(Keeper::due).is_some_and(|due| due <= now()) {
            self.start_save();
        } else if self.commit_due().is_some_and(|due| due <= now()) {
            let commit = self.done_cursor().map(|cursor| self.commit_of(cursor));
            self.chore = commit.map(|commit| Box::pin(commit) as _);
        }
        self.chore.is_some()
    }

    fn start_save(&mut self) {
        if let Some(save) = self.save() {
            self.chore = Some(Box::pin(blocking(save)));
        }
    }

    /// The save of what is done, if there is something new.
    fn save(&mut self) -> Option<impl FnOnce() -> Result<(), Error> + Send + use<R>> {
        let keeper = self.keeper.as_mut().filter(|keeper| keeper.is_unsaved())?;
        let state = self.walk.as_ref()?.done()?.text(R::NAME);
        keeper.save(state)
    }

    fn done_cursor(&self) -> Option<Arc<str>> {
        Some(self.walk.as_ref()?.done()?.cursor.clone())
    }

    /// When the next commit of a stream that commits by itself is due, if there is something new.
    fn commit_due(&self) -> Option<Instant> {
        let every = self.options.commit_every?;
        let is_new = self.done_cursor().is_some_and(|cursor| Some(&cursor) != self.committed.as_ref());
        is_new.then(|| self.committed_at + every)
    }

    fn commit_of(&mut self, cursor: Arc<str>) -> impl Future<Output = Result<(), Error>> + Send + use<R> {
        let (client, consumer) = (self.client.clone(), self.request.consumer().map(str::to_owned));
        self.committed = Some(cursor.clone());
        self.committed_at = Instant::now();
        async move {
            match consumer {
                Some(consumer) => client.commit_cursor(&consumer, &cursor, false).await,
                None => Ok(()),
            }
        }
    }

    /// Commits what is done, and the item that the caller has.
    pub(super) async fn commit(&mut self) -> Result<(), Error> {
        if self.request.consumer().is_none() {
            return Err(Error::Options { fault: "commit is for a stream with a consumer" });
        }
        let position = self.walk.as_ref().and_then(Walk::position);
        let cursor = position.map(|place| place.cursor.clone());
        let Some(cursor) = cursor.filter(|cursor| Some(cursor) != self.committed.as_ref()) else {
            return Ok(());
        };
        let before = self.committed.clone();
        let outcome = self.commit_of(cursor).await;
        if outcome.is_err() {
            self.committed = before;
        }
        outcome
    }

    fn failed(&mut self, error: Error) {
        // An error of the last save or commit does not replace the one that ended the stream.
        let first = match &mut self.phase {
            Phase::Closing(before) => before.take(),
            _ => None,
        };
        self.close(first.or(Some(error)));
    }

    fn ended(&mut self) {
        self.close(None);
    }

    /// Ends the call, which the server notices at once, and then starts the last save and the last commit.
    fn close(&mut self, error: Option<Error>) {
        self.responses = None;
        let is_failing = error.is_some();
        self.phase = Phase::Closing(error);
        let (save, commit) = (self.save(), self.last_commit());
        if save.is_none() && commit.is_none() {
            return;
        }
        self.chore = Some(Box::pin(async move {
            if let Some(save) = save {
                blocking(save).await?;
            }
            match commit {
                // A failure that is on its way is not replaced by that of the commit.
                Some(commit) => commit.await.or_else(|error| if is_failing { Ok(()) } else { Err(error) }),
                None => Ok(()),
            }
        }));
    }

    fn last_commit(&mut self) -> Option<impl Future<Output = Result<(), Error>> + Send + use<R>> {
        self.commit_due()?;
        let commit = self.done_cursor().map(|cursor| self.commit_of(cursor))?;
        Some(async move {
            let silent = Err(Error::Silent { waited: LAST_COMMIT_LIMIT });
            tokio::time::timeout(LAST_COMMIT_LIMIT, commit).await.unwrap_or(silent)
        })
    }

    /// Ends the stream before its end. What is done is saved and committed when the future has ended.
    pub(super) fn begin_close(&mut self) {
        match self.phase {
            Phase::Closing(_) | Phase::Closed => {}
            Phase::New | Phase::Opening(_) | Phase::Open => {
                let running = self.chore.take();
                self.close(None);
                let last = self.chore.take();
                self.chore = Some(Box::pin(async move {
                    if let Some(running) = running {
                        running.await?;
                    }
                    match last {
                        Some(last) => last.await,
                        None => Ok(()),
                    }
                }));
            }
        }
    }
}

impl<R: Kind> Drop for Reader<R> {
    fn drop(&mut self) {
        // First, so that the server notices at once.
        self.responses = None;
        if matches!(self.phase, Phase::Closing(_) | Phase::Closed) {
            return;
        }
        if let Some(save) = self.save() {
            // A destructor cannot report an error. Without this save, items come again.
            let _ = save();
        }
        if let Some(commit) = self.last_commit()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(commit);
        }
    }
}

/// Runs what blocks on a thread for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Options { fault: "the runtime ends" }),
        },
    }
}
