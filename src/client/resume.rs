//! One stream over many connections: what the three streams share.
//!
//! Promises that each response is given once and in order, and that `limit` counts over all attempts. A dropped stream
//! ends its call.

use std::time::Duration;

use async_stream::try_stream;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::Stream;
use tonic::{Response, Status, Streaming, transport::Channel};

use super::{Client, Error, MAX_RESPONSE_BYTES, Notice};
use crate::{
    proto::{
        CountdownRequest, CountdownResponse, MessagesRequest, MessagesResponse, ReadLinesRequest,
        ReadLinesResponse, countdown_service_client::CountdownServiceClient,
        line_service_client::LineServiceClient, message_service_client::MessageServiceClient,
    },
    wire::HEARTBEAT,
};

/// The first wait: a restarted proxy is back by then.
const MIN_WAIT: Duration = Duration::from_millis(100);
/// The longest wait: a reader is live again soon after its server is.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// So many heartbeats missed mean that the stream is lost.
const MISSED_HEARTBEATS: u32 = 3;

/// A request that can be continued.
pub(super) trait Resumable: Clone + Send + Sync + 'static {
    type Response: Send + 'static;

    fn open(
        self,
        channel: Channel,
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

            async fn open(self, channel: Channel) -> Result<Response<Streaming<$response>>, Status> {
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
    /// What to send next: it carries the last cursor, and what is left of the limit.
    request: R,
    open: Option<Streaming<R::Response>>,
    silence: Duration,
    waits: Waits,
    /// As many items as the caller asked for were given.
    complete: bool,
}

impl<R: Resumable> Call<R> {
    fn new(client: Client, request: R) -> Self {
        let heartbeat = request.heartbeat().and_then(|d| Duration::try_from(*d).ok()).unwrap_or(HEARTBEAT);
        let silence = heartbeat.saturating_mul(MISSED_HEARTBEATS);
        Self { client, request, open: None, silence, waits: Waits::default(), complete: false }
    }

    async fn next(&mut self) -> Result<Option<R::Response>, Error> {
        loop {
            match self.attempt().await {
                Ok(Some(response)) => {
                    self.took(&response);
                    return Ok(Some(response));
                }
                Ok(None) => return Ok(None),
                // All was delivered; only the OK was lost.
                Err(_) if self.complete => return Ok(None),
                Err(error) => {
                    self.open = None;
                    self.waits.wait_out(&self.client, error).await?;
                }
            }
        }
    }

    async fn attempt(&mut self) -> Result<Option<R::Response>, Error> {
        let url = &self.client.url;
        let step = async {
            let open = if let Some(open) = &mut self.open {
                open
            } else {
                let answer = self.request.clone().open(self.client.channel.clone()).await?;
                self.waits.succeeds();
                self.open.insert(answer.into_inner())
            };
            // A connection takes the time it takes; an open stream is heard of.
            Ok(tokio::time::timeout(self.silence, open.message()).await)
        };
        match step.await {
            Ok(Ok(result)) => result.map_err(|status| Error::from_status(&status, url)),
            Ok(Err(_)) => Err(Error::Silent { waited: self.silence }),
            Err(status) => Err(Error::from_status(&status, url)),
        }
    }

    fn took(&mut self, response: &R::Response) {
        self.request.continue_after(R::cursor(response));
        let items = i64::try_from(R::items(response)).unwrap_or(i64::MAX);
        if let Some(left) = self.request.limit() {
            *left = left.saturating_sub(items).max(0);
            self.complete = *left == 0;
        }
        self.waits.succeeded(&self.client);
    }
}

/// How long to wait before the next attempt: growing, with full jitter, so that the clients of a server that comes
/// back do not all come at once.
#[derive(Debug)]
pub(super) struct Waits {
    backoff: ExponentialBackoff,
    /// The server has answered: from then on a failure may be waited out.
    has_succeeded: bool,
    is_interrupted: bool,
}

impl Default for Waits {
    fn default() -> Self {
        Self { backoff: backoff(), has_succeeded: false, is_interrupted: false }
    }
}

impl Waits {
    /// The server has answered, though nothing came yet.
    pub(super) fn succeeds(&mut self) {
        self.has_succeeded = true;
    }

    /// Something came.
    pub(super) fn succeeded(&mut self, client: &Client) {
        self.has_succeeded = true;
        self.backoff = backoff();
        if std::mem::take(&mut self.is_interrupted) {
            (client.observer)(&Notice::Resumed);
        }
    }

    /// Waits, if that may help; else gives the error back.
    pub(super) async fn wait_out(&mut self, client: &Client, error: Error) -> Result<(), Error> {
        if !self.has_succeeded || !error.is_retryable() {
            return Err(error);
        }
        self.is_interrupted = true;
        let most = self.backoff.next().unwrap_or(MAX_WAIT);
        let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
        let millis = u64::try_from(most.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        let wait = Duration::from_millis(random % millis).max(MIN_WAIT / 10);
        let wait = wait + error.retry_after().unwrap_or_default();
        (client.observer)(&Notice::Interrupted { error: &error, wait });
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(MIN_WAIT)
        .with_max_delay(MAX_WAIT)
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests;
