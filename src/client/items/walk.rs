//! Hands out the values of responses in order, and knows which of them are done.

use std::{collections::VecDeque, sync::Arc, vec};

use super::{
    kind::{Kind, Parts, Value},
    state::Place,
};
use crate::client::Error;

/// A value of a stream of this kind.
pub(super) type ValueOf<R> = Value<<R as Kind>::Item, <R as Kind>::Event>;

/// A stream of values, without its calls.
pub(super) struct Walk<R: Kind> {
    track: R::Track,
    /// The cursor after which the keys of the items are unique; `None` before the first response is done.
    base: Option<Arc<str>>,
    /// The item of the state that the stream continues from, while it is still to come.
    pending: Option<R::Key>,
    /// The rest of the caller's limit, if the server does not count it.
    rest: Option<i64>,
    response: Option<Response<R>>,
    /// The position with the item in the caller's hand.
    hand: Option<Place<R::Key>>,
    /// The caller has an item.
    holds: bool,
    /// The position after what is done.
    done: Option<Place<R::Key>>,
    /// Numbers of a countdown that were due and are not delivered.
    pub(super) skipped: i64,
    is_live: bool,
}

/// A response that is being handed out.
struct Response<R: Kind> {
    /// What is before the items.
    before: VecDeque<ValueOf<R>>,
    items: vec::IntoIter<R::Item>,
    had_items: bool,
    cursor: Arc<str>,
    /// The key that is still pending after this response.
    pending: Option<R::Key>,
    has_caught_up: bool,
}

/// What becomes of events.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Events {
    /// They are values.
    Wanted,
    /// They are left out, and a gap is an error.
    Unwanted,
}

impl<R: Kind> Walk<R> {
    /// Of a stream that continues at `place`. `limit` is the caller's, if the server does not count it.
    pub(super) fn new(request: &R, place: Option<Place<R::Key>>, limit: Option<i64>) -> Self {
        Self {
            track: request.track(),
            base: place.as_ref().map(|place| place.cursor.clone()),
            pending: place.as_ref().and_then(|place| place.after.clone()),
            rest: limit,
            response: None,
            hand: None,
            holds: false,
            done: place,
            skipped: 0,
            is_live: false,
        }
    }

    /// Takes a response. The one before must be finished.
    pub(super) fn begin(&mut self, mut response: R::Response, events: Events) -> Result<(), Error> {
        let is_pending = R::begin(&mut self.track, &mut response, self.pending.as_ref())?;
        let pending = self.pending.clone().filter(|_| is_pending);
        let pending = pending.map(|key| R::moved(&self.track, key));
        if !is_pending {
            self.pending = None;
        }
        let Parts { skipped, events: happened, items, cursor, caught_up } = R::parts(response);
        let mut before = VecDeque::new();
        self.skipped = self.skipped.saturating_add(skipped);
        match events {
            Events::Wanted => {
                before.extend((skipped > 0).then_some(Value::Skipped(skipped)));
                before.extend(happened.into_iter().map(Value::Event));
            }
            Events::Unwanted => {
                if let Some(gap) = happened.iter().find_map(R::gap) {
                    return Err(gap);
                }
            }
        }
        let has_caught_up = caught_up && !self.is_live && events == Events::Wanted;
        self.is_live = caught_up;
        let had_items = !items.is_empty();
        let (items, cursor) = (items.into_iter(), cursor.into());
        self.response = Some(Response { before, items, had_items, cursor, pending, has_caught_up });
        Ok(())
    }

    /// The next value of the response; `None` if there is no response, or it is handed out.
    pub(super) fn next(&mut self) -> Option<ValueOf<R>> {
        let response = self.response.as_mut()?;
        if let Some(value) = response.before.pop_front() {
            return Some(value);
        }
        if let Some(item) = response.items.next() {
            let place = if response.items.as_slice().is_empty() {
                Some(Place { cursor: response.cursor.clone(), after: response.pending.clone() })
            } else {
                // While a key is pending, it stays: the items before it are of an older file, and come again after a
                // crash. A key of such an item would give up what was handed out before.
                let after = self.pending.clone().unwrap_or_else(|| R::key(&self.track, &item));
                self.base.clone().map(|cursor| Place { cursor, after: Some(after) })
            };
            (self.hand, self.holds) = (place, true);
            self.rest.iter_mut().for_each(|rest| *rest -= 1);
            return Some(Value::Item(item));
        }
        std::mem::take(&mut response.has_caught_up).then_some(Value::CaughtUp)
    }

    /// The caller asks for the next value: the item that it has is done. Returns whether it had one.
    pub(super) fn finish_item(&mut self) -> bool {
        if !std::mem::take(&mut self.holds) {
            return false;
        }
        // Items of the first response have no position before its last item.
        if let Some(place) = self.hand.take() {
            self.done = Some(place);
        }
        true
    }

    /// Every value of the response was handed out and is done. Returns whether it had items; `None` without a response.
    pub(super) fn finish_response(&mut self) -> Option<bool> {
        let Response { had_items, cursor, pending, .. } = self.response.take()?;
        R::restart(&mut self.track);
        self.base = Some(cursor.clone());
        self.pending.clone_from(&pending);
        self.done = Some(Place { cursor, after: pending });
        Some(had_items)
    }

    /// The caller got the number of items that it asked for, and the server does not count them.
    pub(super) fn is_over(&self) -> bool {
        self.rest.is_some_and(|rest| rest <= 0)
    }

    /// The position after what is done.
    pub(super) fn done(&self) -> Option<&Place<R::Key>> {
        self.done.as_ref()
    }

    /// The position with the item that the caller has.
    pub(super) fn position(&self) -> Option<&Place<R::Key>> {
        self.hand.as_ref().or(self.done.as_ref())
    }
}

#[cfg(test)]
mod tests;
