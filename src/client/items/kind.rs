//! What the three kinds of stream have in common, and what differs: which key an item has, and which items of a response
//! were handed out before.

use serde::{Serialize, de::DeserializeOwned};

use crate::client::{Error, resume::Resumable};

/// A request for a stream of items: [`CountdownRequest`](crate::proto::CountdownRequest),
/// [`ReadLinesRequest`](crate::proto::ReadLinesRequest) or [`MessagesRequest`](crate::proto::MessagesRequest).
///
/// It is implemented for these alone.
pub trait Kind: Resumable {
    /// A tick, a line or a message.
    type Item: Send + Unpin;
    /// Something that happened before the next item.
    type Event: Send + Unpin;
    /// What tells an item from the others after a cursor.
    #[doc(hidden)]
    type Key: Clone + Serialize + DeserializeOwned + Send + Unpin;
    /// What the keys depend on beside the item.
    #[doc(hidden)]
    type Track: Send + Unpin;

    #[doc(hidden)]
    const NAME: &'static str;

    #[doc(hidden)]
    fn track(&self) -> Self::Track;
    /// The consumer that the request names, if it is one.
    #[doc(hidden)]
    fn consumer(&self) -> Option<&str> {
        None
    }
    /// Takes a response. If the stream continues after the item `pending`, it removes the items and events that were handed
    /// out before. Returns whether that item is still to come.
    #[doc(hidden)]
    fn begin(
        track: &mut Self::Track,
        response: &mut Self::Response,
        pending: Option<&Self::Key>,
    ) -> Result<bool, Error>;
    #[doc(hidden)]
    fn key(track: &Self::Track, item: &Self::Item) -> Self::Key;
    /// The key that is still pending after a response, counted from the cursor of that response.
    #[doc(hidden)]
    fn moved(_: &Self::Track, key: Self::Key) -> Self::Key {
        key
    }
    /// A response is complete: keys are counted from its cursor.
    #[doc(hidden)]
    fn restart(_: &mut Self::Track) {}
    #[doc(hidden)]
    fn gap(event: &Self::Event) -> Option<Error>;
    #[doc(hidden)]
    fn parts(response: Self::Response) -> Parts<Self>;
}

/// A response, taken apart.
#[doc(hidden)]
pub struct Parts<R: Kind> {
    pub(super) skipped: i64,
    pub(super) events: Vec<R::Event>,
    pub(super) items: Vec<R::Item>,
    pub(super) cursor: String,
    pub(super) caught_up: bool,
}

/// A value of a stream with events.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value<I, E> {
    /// A tick, a line or a message.
    Item(I),
    /// Something that happened to the source before the next item. An event that this version does not know has no
    /// content.
    Event(E),
    /// Numbers of a countdown that were due and are not delivered.
    Skipped(i64),
    /// Nothing older is left: from here on the stream is live. Comes again if the stream falls behind in between.
    CaughtUp,
}
