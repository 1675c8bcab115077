//! Streams of items: ticks, lines or messages, one by one, which resume at the item.
//!
//! An item is *done* when the caller asks for the next one. What is handed out is counted, so that a lost connection
//! repeats nothing, wherever it was cut. To continue after a crash of the program, keep the state: in a [`Store`], or, in one
//! transaction with the result of an item, the text of [`Items::state`].

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::Stream;

use super::{Client, Error, resume};
use crate::proto::{CountdownRequest, MessagesRequest, ReadLinesRequest};

pub(super) mod countdown;
mod keeper;
mod kind;
mod lines;
mod messages;
mod options;
mod reader;
mod state;
mod store;
mod walk;

pub use countdown::CountdownEvent;
pub use kind::{Kind, Value};
pub use store::{FileStore, MemoryStore, Store, StoreError};

use options::Options;
use reader::Reader;
use walk::Events as Wanted;

/// Ticks of a countdown.
pub type Ticks = Items<CountdownRequest>;
/// Lines of a file.
pub type Lines = Items<ReadLinesRequest>;
/// Messages of topics.
pub type Messages = Items<MessagesRequest>;

/// A stream of items. It connects when the first one is asked for; the methods that take `self` are for before.
///
/// Dropping it ends the call: the server notices at once. What is done is saved before, by a write that may block for the
/// time that the store takes; [`Self::close`] does not block, and reports errors.
pub struct Items<R: Kind> {
    reader: Reader<R>,
}

/// A stream of items and, in their places, events, skipped numbers, and the change to live: see [`Items::with_events`].
pub struct Values<R: Kind> {
    reader: Reader<R>,
}

impl<R: Kind> Items<R> {
    pub(super) fn new(client: Client, request: R) -> Self {
        Self { reader: Reader::new(client, request) }
    }

    fn with(mut self, set: impl FnOnce(&mut R)) -> Self {
        set(&mut self.reader.request);
        self
    }

    fn options(&mut self) -> &mut Options {
        &mut self.reader.options
    }

    /// Ends the stream after this number of items.
    #[must_use]
    pub fn limit(self, items: i64) -> Self {
        self.with(|request| *request.limit() = Some(items))
    }

    /// Keeps the state in a store, and continues from the state that is there. It is saved when an item is done, before the
    /// next one is handed out.
    #[must_use]
    pub fn store(mut self, store: impl Store) -> Self {
        self.options().store = Some(Arc::new(store));
        self
    }

    /// Saves to the store at most once in this time, and at the end. After a kill, the items of up to this time come again.
    #[must_use]
    pub fn save_every(mut self, interval: Duration) -> Self {
        self.options().save_every = interval;
        self
    }

    /// Continues from a state that [`Self::state`] returned, or from a bare cursor, as the program `perennial` prints it.
    /// With `None` the stream starts where the request says, and has a state after each item.
    ///
    /// A text that is no state is an error of the stream ([`Error::State`]), and never a fresh start.
    #[must_use]
    pub fn resume(mut self, state: Option<String>) -> Self {
        self.options().state = state;
        self.options().is_kept = true;
        self
    }

    /// Ends the stream with [`Error::Deadline`] after this time, over all attempts, from the first item asked for.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options().timeout = Some(timeout);
        self
    }

    /// How long the stream tries to get its first response; zero: it tries once. The default is that of the client, 10 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options().connect_timeout = timeout;
        self
    }

    /// Ends the stream with its last error when there is no response for this time after a failure. Without this, it tries
    /// for ever.
    #[must_use]
    pub fn max_outage(mut self, outage: Duration) -> Self {
        self.options().max_outage = Some(outage);
        self
    }

    /// The items with events, skipped numbers and [`Value::CaughtUp`] in their places. Without this, events are left out,
    /// and a gap is an error ([`Error::LineGap`], [`Error::MessageGap`]).
    #[must_use]
    pub fn with_events(mut self) -> Values<R> {
        self.reader.events = Wanted::Wanted;
        Values { reader: self.reader }
    }

    /// The responses as they are: each has a batch of items, and the cursor after them. The options for states, commits and
    /// the deadline are for items, and have no effect here.
    pub fn responses(self) -> impl Stream<Item = Result<R::Response, Error>> + Send + use<R> {
        let Reader { client, request, .. } = &self.reader;
        resume::stream(client.clone(), request.clone(), self.reader.limits(), false)
    }
}

macro_rules! stream {
    ($name:ident, $item:ty, $unwrap:expr) => {
        impl<R: Kind> $name<R> {
            /// The next one; `None` at the end. It may be dropped and called again: nothing is lost.
            pub async fn next(&mut self) -> Option<Result<$item, Error>> {
                std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
            }

            /// Where the stream continues, as text for [`Items::resume`]: after the item that was handed out last. Save it
            /// in one transaction with the result of that item, and the item is processed exactly once.
            ///
            /// It is `None` before the first response was handed out, or, with a store or [`Items::resume`], before the
            /// first item.
            pub fn state(&self) -> Option<String> {
                self.reader.state()
            }

            /// The numbers of a countdown, up to now, that were due and are not delivered.
            pub fn skipped(&self) -> i64 {
                self.reader.skipped()
            }

            /// Commits, for a stream with a consumer, that everything up to the item that was handed out last is processed.
            ///
            /// A commit can only name the end of a response. Items of a response that is not complete come again after a
            /// crash; `max_batch` 1 in the request makes each item a response.
            pub async fn commit(&mut self) -> Result<(), Error> {
                self.reader.commit().await
            }

            /// Ends the stream, saves and commits what is done, and reports whether that failed. The item that was handed
            /// out last is not done.
            pub async fn close(mut self) -> Result<(), Error> {
                self.reader.begin_close();
                match self.next().await {
                    Some(Err(error)) => Err(error),
                    Some(Ok(_)) | None => Ok(()),
                }
            }
        }

        impl<R: Kind> Stream for $name<R> {
            type Item = Result<$item, Error>;

            fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
                let unwrap = $unwrap;
                loop {
                    match ready!(self.reader.poll_value(context)) {
                        Some(Ok(value)) => {
                            if let Some(item) = unwrap(value) {
                                return Poll::Ready(Some(Ok(item)));
                            }
                        }
                        Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                        None => return Poll::Ready(None),
                    }
                }
            }
        }

        impl<R: Kind> fmt::Debug for $name<R> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).field("kind", &R::NAME).finish_non_exhaustive()
            }
        }
    };
}

stream!(Items, R::Item, |value| match value {
    Value::Item(item) => Some(item),
    // Events are left out: the reader makes none.
    Value::Event(_) | Value::Skipped(_) | Value::CaughtUp => None,
});
stream!(Values, Value<R::Item, R::Event>, Some);

#[cfg(test)]
mod tests;
