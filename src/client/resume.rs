//! One stream over many connections, for all three kinds of stream.
//!
//! Promises that each response is yielded once and in order, and that `limit` counts over all attempts. Dropping the
//! stream ends its call.

use std::time::Duration;

use async_stream::try_stream;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::Stream;
use tonic::{Response, Status, Streaming};

use super::{
    CONNECT_TIMEOUT, Client, Error, MAX_RESPONSE_BYTES, Notice, Observer, connect::Server, token::Authorized,
};
use crate::proto::{
    CountdownRequest, CountdownResponse, MessagesRequest, MessagesResponse, ReadLinesRequest,
    ReadLinesResponse, countdown_service_client::CountdownServiceClient,
    line_service_client::LineServiceClient, message_service_client::MessageServiceClient,
};

/// The first wait: long enough for a proxy to restart.
const MIN_WAIT: Duration = Duration::from_millis(100);
/// The longest wait, however long the outage: a reader is live again within this time after its server is back.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// The heartbeat of a request that does not ask for one: the default of the contract.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// A stream that misses this number of heartbeats is lost.
const MISSED_HEARTBEATS: u32 = 3;
/// A busy machine may pause for this time, so a short heartbeat does not shorten it.
const MIN_SILENCE: Duration = Duration::from_secs(5);

/// A request that can be resumed.
pub(super) trait Resumable: Clone + Send + Sync + 'static {
    type Response: Send + 'static;

    fn open(
        self,
        channel: Authorized,
    ) -> impl Future<Output = Result<Response<Streaming<Self::Response>>, Status>> + Send;
    fn continue_after(&mut self, cursor: &str);
    fn limit(&mut self) -> &mut Option<i64>;
    fn heartbeat(&self) -> Option<&prost_types::Duration>;
    fn cursor(response: &Self::Response) -> &str;
    fn items(response: &Self::Response) -> usize;
}

macro_rules! resumable {
    ($request:ty, $response:ty, $client:ident, $method:ident, $items:ident) => {
        impl Resumable for $request {
            type Response = $response;

            async fn open(self, channel: Authorized) -> Result<Response<Streaming<$response>>, Status> {
                $client::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES).$method(self).await
            }
            fn continue_after(&mut self, cursor: &str) {
                self.cursor = Some(cursor.to_owned());
            }
            fn limit(&mut self) -> &mut Option<i64> {
                &mut self.limit
            }
            fn heartbeat(&self) -> Option<&prost_types::Duration> {
                self.heartbeat.as_ref()
            }
            fn cursor(response: &$response) -> &str {
                &response.cursor
            }
            fn items(response: &$response) -> usize {
                response.$items.len()
            }
        }
    };
}

resumable!(CountdownRequest, CountdownResponse, CountdownServiceClient, countdown, ticks);
resumable!(ReadLinesRequest, ReadLinesResponse, LineServiceClient, read_lines, lines);
resumable!(MessagesRequest, MessagesResponse, MessageServiceClient, messages, messages);

pub(super) fn stream<R: Resumable>(
    client: Client,
    request: R,
) -> impl Stream<Item = Result<R::Response, Error>> + Send {
    let mut call = Call::new(client, request);
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
    open: Option<Streaming<R::Response>>,
    silence: Duration,
    waits: Waits,
    /// The caller got the number of items that it asked for.
    complete: bool,
}

impl<R: Resumable> Call<R> {
    fn new(client: Client, request: R) -> Self {
        let heartbeat = request.heartbeat().and_then(|d| Duration::try_from(*d).ok()).unwrap_or(HEARTBEAT);
        let silence = heartbeat.saturating_mul(MISSED_HEARTBEATS).max(MIN_SILENCE);
        let waits = Waits::new(client.observer.clone());
        Self { client, request, open: None, silence, waits, complete: false }
    }

    async fn next(&mut self) -> Result<Option<R::Response>, Error> {
        loop {
            match self.attempt().await {
                Ok(Some(response)) => {
                    self.on_response(&response);
                    return Ok(Some(response));
                }
                Ok(None) => return Ok(None),
                // Every item was delivered; only the OK was lost.
                Err(_) if self.complete => return Ok(None),
                Err(error) => {
                    self.open = None;
                    self.waits.wait_out(error).await?;
                }
            }
        }
    }

    async fn attempt(&mut self) -> Result<Option<R::Response>, Error> {
        let open = if let Some(open) = &mut self.open {
            open
        } else {
            // Connecting may take `CONNECT_TIMEOUT` before the server gets the request.
            let answer = self.request.clone().open(self.client.channel.clone());
            let answer =
                within(self.silence.saturating_add(CONNECT_TIMEOUT), answer, self.client.server()).await?;
            self.waits.answered();
            self.open.insert(answer.into_inner())
        };
        within(self.silence, open.message(), self.client.server()).await
    }

    fn on_response(&mut self, response: &R::Response) {
        self.request.continue_after(R::cursor(response));
        let items = i64::try_from(R::items(response)).unwrap_or(i64::MAX);
        if let Some(left) = self.request.limit() {
            *left = left.saturating_sub(items).max(0);
            self.complete = *left == 0;
        }
        self.waits.delivered();
    }
}

pub(super) async fn within<T>(
    limit: Duration,
    step: impl Future<Output = Result<T, Status>>,
    server: &Server,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, step).await {
        Ok(result) => result.map_err(|status| server.error(&status)),
        Err(_) => Err(Error::Silent { waited: limit }),
    }
}

/// Decides after which failures to try again and how long to wait before, and notifies the observer.
pub(super) struct Waits {
    observer: Observer,
    delays: ExponentialBackoff,
    /// The server has answered once. Before that, every failure is returned at once.
    answered: bool,
    interrupted: bool,
}

impl Waits {
    pub(super) fn new(observer: Observer) -> Self {
        Self { observer, delays: delays(), answered: false, interrupted: false }
    }

    /// Records that the server accepted a call.
    pub(super) fn answered(&mut self) {
        self.answered = true;
    }

    /// Records that a response arrived: the next failure starts with a short wait again.
    pub(super) fn delivered(&mut self) {
        self.delays = delays();
        if std::mem::take(&mut self.interrupted) {
            (self.observer)(&Notice::Resumed);
        }
    }

    /// Waits before the next attempt, or returns the error if there should be no other attempt.
    pub(super) async fn wait_out(&mut self, error: Error) -> Result<(), Error> {
        if !self.answered || !error.is_retryable() {
            return Err(error);
        }
        self.interrupted = true;
        let wait = full_jitter(self.delays.next().unwrap_or(MAX_WAIT));
        let wait = wait.max(error.retry_after().unwrap_or_default());
        (self.observer)(&Notice::Interrupted { error: &error, wait });
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

fn delays() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(MIN_WAIT)
        .with_max_delay(MAX_WAIT)
        .without_max_times()
        .build()
}

/// A random time from zero to `wait`, so that the readers of a restarted server do not all return at once.
fn full_jitter(wait: Duration) -> Duration {
    wait.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests;
