//! One stream over many connections, for all kinds of stream.
//!
//! Promises that each response is yielded once and in order, and that `limit` counts over all attempts. Dropping the
//! stream ends its call.

use std::time::Duration;

use async_stream::try_stream;
use futures::Stream;
use tonic::{Response, Status, Streaming};

use super::{
    Client, Error, MAX_RESPONSE_BYTES,
    connections::Connection,
    token::Authorized,
    waits::{Limits, Waits, within},
};
use crate::proto::{
    CountdownRequest, CountdownResponse, MessagesRequest, MessagesResponse, ReadLinesRequest,
    ReadLinesResponse, WatchFilesRequest, WatchFilesResponse,
    countdown_service_client::CountdownServiceClient, line_service_client::LineServiceClient,
    message_service_client::MessageServiceClient,
};

/// The heartbeat of a request that does not ask for one: the default of the contract.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// A stream that misses this number of heartbeats is lost.
const MISSED_HEARTBEATS: u32 = 3;
/// A busy machine may pause for this time, so a short heartbeat does not shorten it.
const MIN_SILENCE: Duration = Duration::from_secs(5);
/// The first response of an attempt may take longer by this, because the connection is made before it.
const CONNECT_ALLOWANCE: Duration = Duration::from_secs(10);

/// A request that can be resumed.
pub trait Resumable: Clone + Send + Sync + Unpin + 'static {
    /// What the server sends.
    type Response: Send + 'static;

    fn open(
        self,
        channel: Authorized,
    ) -> impl Future<Output = Result<Response<Streaming<Self::Response>>, Status>> + Send;
    fn cursor(&mut self) -> &mut Option<String>;
    fn limit(&mut self) -> &mut Option<i64>;
    fn max_batch(&mut self) -> &mut Option<i32>;
    fn heartbeat(&self) -> Option<&prost_types::Duration>;
    fn cursor_of(response: &Self::Response) -> &str;
    fn items_of(response: &Self::Response) -> usize;
}

macro_rules! resumable {
    ($request:ty, $response:ty, $client:ident, $method:ident, $items:ident) => {
        impl Resumable for $request {
            type Response = $response;

            async fn open(self, channel: Authorized) -> Result<Response<Streaming<$response>>, Status> {
                $client::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES).$method(self).await
            }
            fn cursor(&mut self) -> &mut Option<String> {
                &mut self.cursor
            }
            fn limit(&mut self) -> &mut Option<i64> {
                &mut self.limit
            }
            fn max_batch(&mut self) -> &mut Option<i32> {
                &mut self.max_batch
            }
            fn heartbeat(&self) -> Option<&prost_types::Duration> {
                self.heartbeat.as_ref()
            }
            fn cursor_of(response: &$response) -> &str {
                &response.cursor
            }
            fn items_of(response: &$response) -> usize {
                response.$items.len()
            }
        }
    };
}

resumable!(CountdownRequest, CountdownResponse, CountdownServiceClient, countdown, ticks);
resumable!(ReadLinesRequest, ReadLinesResponse, LineServiceClient, read_lines, lines);
resumable!(WatchFilesRequest, WatchFilesResponse, LineServiceClient, watch_files, changes);
resumable!(MessagesRequest, MessagesResponse, MessageServiceClient, messages, messages);

/// The responses to a request. With `probes`, the first one has one item at most, so that from it on there is a cursor
/// after each item.
pub(super) fn stream<R: Resumable>(
    client: Client,
    request: R,
    limits: Limits,
    probes: bool,
) -> impl Stream<Item = Result<R::Response, Error>> + Send + use<R> {
    let mut call = Call::new(client, request, limits, probes);
    try_stream!({
        while let Some(response) = call.next().await? {
            yield response;
        }
    })
}

struct Call<R: Resumable> {
    client: Client,
    /// The request to send next, with the last cursor and the rest of the limit.
    request: R,
    open: Option<Open<R>>,
    silence: Duration,
    waits: Waits,
    /// The next call is for one response alone.
    probes: bool,
    /// The caller got the number of items that it asked for.
    complete: bool,
}

struct Open<R: Resumable> {
    responses: Streaming<R::Response>,
    connection: Connection,
    has_answered: bool,
}

impl<R: Resumable> Call<R> {
    fn new(client: Client, request: R, limits: Limits, probes: bool) -> Self {
        let heartbeat = request.heartbeat().and_then(|d| Duration::try_from(*d).ok()).unwrap_or(HEARTBEAT);
        let silence = heartbeat.saturating_mul(MISSED_HEARTBEATS).max(MIN_SILENCE);
        let waits = Waits::new(client.observer.clone(), limits);
        Self { client, request, open: None, silence, waits, probes, complete: false }
    }

    async fn next(&mut self) -> Result<Option<R::Response>, Error> {
        loop {
            match self.attempt().await {
                Ok(Some(response)) => {
                    self.on_response(&response)?;
                    return Ok(Some(response));
                }
                Ok(None) => return Ok(None),
                // Every item was delivered; only the OK was lost.
                Err(_) if self.complete => return Ok(None),
                Err(error) => self.lost(error).await?,
            }
        }
    }

    async fn attempt(&mut self) -> Result<Option<R::Response>, Error> {
        if self.open.is_none() {
            self.open().await?;
        }
        let wait = self.wait();
        let Some(open) = &mut self.open else { return Ok(None) };
        let next = within(wait, open.responses.message(), self.client.server()).await;
        if matches!(next, Err(Error::Silent { .. })) {
            self.client.connections.retire(&open.connection);
        }
        next
    }

    async fn open(&mut self) -> Result<(), Error> {
        self.waits.begin();
        let connection = self.client.connections.current();
        let mut request = self.request.clone();
        if self.probes {
            *request.limit() = Some(1);
            *request.max_batch() = Some(1);
        }
        let answer = request.open(connection.channel.clone());
        let answer = within(self.wait(), answer, self.client.server()).await;
        if matches!(answer, Err(Error::Silent { .. })) {
            self.client.connections.retire(&connection);
        }
        self.open = Some(Open { responses: answer?.into_inner(), connection, has_answered: false });
        Ok(())
    }

    /// How long the next response is awaited.
    fn wait(&self) -> Duration {
        if self.open.as_ref().is_some_and(|open| open.has_answered) {
            return self.silence;
        }
        let wait = self.silence.saturating_add(CONNECT_ALLOWANCE);
        self.waits.rest().map_or(wait, |rest| wait.min(rest))
    }

    async fn lost(&mut self, error: Error) -> Result<(), Error> {
        self.open = None;
        self.waits.wait_out(error).await
    }

    fn on_response(&mut self, response: &R::Response) -> Result<(), Error> {
        let cursor = R::cursor_of(response);
        if cursor.is_empty() {
            return Err(Error::Protocol { fault: "a response has no cursor" });
        }
        *self.request.cursor() = Some(cursor.to_owned());
        let items = i64::try_from(R::items_of(response)).unwrap_or(i64::MAX);
        if let Some(left) = self.request.limit() {
            *left = left.saturating_sub(items).max(0);
            self.complete = *left == 0;
        }
        self.waits.delivered();
        self.open.iter_mut().for_each(|open| open.has_answered = true);
        if std::mem::take(&mut self.probes) && !self.complete {
            self.open = None;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests;
