//! `PublishStream`: messages in, their results out.

use std::{collections::VecDeque, sync::Arc};

use async_stream::stream;
use futures::{FutureExt, Stream, StreamExt, stream::FuturesOrdered};
use prost::Message as _;
use tonic::Status;

use super::{new_message, published};
use crate::{
    grpc::{
        App,
        call::{AllowedTopics, Calls, Ends, Outgoing, Permit, RefusedMessages},
        status::{self, Failure},
    },
    messages::{self, Durability, Log, Published},
    proto::{self, publish_result},
};

type Results = Vec<proto::PublishResult>;

/// A `PublishStream`: reads messages and yields their results in order, with up to a window of unanswered messages.
pub struct Flow<R> {
    log: Log,
    calls: Calls,
    permit: Option<Arc<Permit>>,
    /// Those of the audit log.
    topics: AllowedTopics,
    ends: Ends,
    /// `None` after the client has closed its side, or when nothing more is read.
    requests: Option<R>,
    window: usize,
    /// A response leaves when its results have this many bytes.
    batch_bytes: usize,
    waiting: FuturesOrdered<futures::future::BoxFuture<'static, Results>>,
    unanswered: usize,
    results: VecDeque<proto::PublishResult>,
}

/// The next step of a flow.
enum Step {
    Request(Option<Result<proto::PublishStreamRequest, Status>>),
    Results(Results),
    End(Failure),
}

impl<R> Flow<R>
where
    R: Stream<Item = Result<proto::PublishStreamRequest, Status>> + Send + Unpin,
{
    /// A flow that reads `requests` until the call must end.
    pub fn new(app: &App, permit: Option<Arc<Permit>>, ends: Ends, requests: R) -> Self {
        Self {
            log: app.log.clone(),
            calls: app.calls.clone(),
            permit,
            topics: AllowedTopics::default(),
            ends,
            requests: Some(requests),
            window: app.config.publish_window,
            batch_bytes: app.config.batch_bytes,
            waiting: FuturesOrdered::new(),
            unanswered: 0,
            results: VecDeque::new(),
        }
    }

    /// Answers until the client closes its side, sends a request that cannot be decoded, or the call must end. Messages
    /// that were read are answered first.
    pub fn answers(
        mut self,
    ) -> impl Stream<Item = Result<Outgoing<proto::PublishStreamResponse>, Failure>> + Send {
        stream!({
            let mut failure = None;
            while self.requests.is_some() || !self.waiting.is_empty() {
                if let Err(wrong) = self.step().await {
                    failure = Some(wrong);
                    self.requests = None;
                }
                while let Some(response) = self.response() {
                    yield Ok(response);
                }
            }
            if let Some(failure) = failure {
                yield Err(failure);
            }
        })
    }

    async fn step(&mut self) -> Result<(), Failure> {
        let has_room = self.unanswered < self.window;
        let step = match &mut self.requests {
            None => Step::Results(self.waiting.next().await.unwrap_or_default()),
            Some(requests) => tokio::select! {
                biased;
                failure = self.ends.reached() => Step::End(failure),
                Some(results) = self.waiting.next(), if !self.waiting.is_empty() => Step::Results(results),
                request = requests.next(), if has_room => Step::Request(request),
            },
        };
        match step {
            Step::End(failure) => return Err(failure),
            Step::Request(Some(Ok(request))) => self.publish(request).await?,
            Step::Request(Some(Err(refusal))) => return Err(status::unreadable(&refusal)),
            Step::Request(None) => self.requests = None,
            Step::Results(results) => {
                self.results.extend(results);
                while let Some(Some(results)) = self.waiting.next().now_or_never() {
                    self.results.extend(results);
                }
            }
        }
        Ok(())
    }

    async fn publish(&mut self, request: proto::PublishStreamRequest) -> Result<(), Failure> {
        messages::check_publish_count(request.messages.len())?;
        let count = request.messages.len();
        self.unanswered += count;
        let (mut good, mut refusals) = (Vec::with_capacity(count), Vec::new());
        let mut denied = RefusedMessages::default();
        for (index, message) in request.messages.into_iter().enumerate() {
            let allowed =
                self.calls.check_message(self.permit.as_deref(), &message.topic, || message.encoded_len());
            match allowed {
                Ok(()) => {
                    if let Some(permit) = &self.permit {
                        permit.allowed_topic(&mut self.topics, &message.topic);
                    }
                    match new_message(message) {
                        Ok(message) => good.push(message),
                        Err(failure) => refusals.push((index, failure)),
                    }
                }
                Err(failure) => {
                    denied.add(&failure, message.topic);
                    refusals.push((index, failure));
                }
            }
        }
        let permit = self.permit.clone();
        if let Some(permit) = &permit {
            permit.refused_messages(&denied);
        }
        let (results, durability) = (self.log.publish_each(good).await, self.log.durability());
        self.waiting.push_back(Box::pin(async move {
            let (mut results, mut refusals) = (results.await.into_iter(), refusals.into_iter().peekable());
            let mut refused = RefusedMessages::default();
            let result = |index| {
                let published = match refusals.next_if(|(of, _)| *of == index) {
                    Some((_, failure)) => Err(failure),
                    None => results.next().unwrap_or(Err(messages::Error::Closed)).map_err(Failure::from),
                };
                result(published.inspect_err(|failure| refused.add_if_quota(failure)), durability)
            };
            let results = (0..count).map(result).collect();
            if let Some(permit) = permit {
                permit.refused_messages(&refused);
            }
            results
        }));
        Ok(())
    }

    /// A response of results that are ready, if there are any.
    fn response(&mut self) -> Option<Outgoing<proto::PublishStreamResponse>> {
        let mut bytes = 0;
        let fits = |result: &&proto::PublishResult| {
            let fits = bytes < self.batch_bytes.max(1);
            bytes += if fits { result.encoded_len() } else { 0 };
            fits
        };
        let items = self.results.iter().take_while(fits).count();
        if items == 0 {
            return None;
        }
        self.unanswered = self.unanswered.saturating_sub(items);
        let results = self.results.drain(..items).collect::<Vec<_>>();
        let refusals = results.iter().filter_map(|result| match &result.outcome {
            Some(publish_result::Outcome::Error(error)) => Some(error.reason()),
            _ => None,
        });
        let mut refused = 0;
        for reason in refusals {
            refused += 1;
            self.calls.metrics().refused("PublishStream", reason, 1);
        }
        Some(Outgoing { response: proto::PublishStreamResponse { results }, items: items - refused, bytes })
    }
}

fn result(result: Result<Published, Failure>, durability: Durability) -> proto::PublishResult {
    let result = match result {
        Ok(done) => publish_result::Outcome::Published(published(done, durability)),
        Err(failure) => publish_result::Outcome::Error(failure.into_publish_error()),
    };
    proto::PublishResult { outcome: Some(result) }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::{channel::oneshot, stream};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::grpc::call;

    #[tokio::test]
    async fn a_flow_with_a_full_window_reads_nothing_until_something_is_answered() {
        const WINDOW: usize = 10;
        let directory = tempfile::tempdir().unwrap();
        let read = Arc::new(AtomicUsize::new(0));
        let counter = read.clone();
        let request = proto::PublishRequest { topic: "a".into(), ..proto::PublishRequest::default() };
        let requests = stream::repeat_with(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok(proto::PublishStreamRequest { messages: vec![request.clone()] })
        });
        // The disk takes its time with a whole window of messages.
        let (synced, sync) = oneshot::channel::<Results>();
        let mut flow = Flow {
            log: Log::open(directory.path(), messages::Config::default()).unwrap().0,
            calls: Calls::new(
                call::Config::default(),
                CancellationToken::new(),
                &mut prometheus_client::registry::Registry::default(),
            ),
            permit: None,
            topics: AllowedTopics::default(),
            ends: Ends::with_connection(CancellationToken::new()),
            requests: Some(requests),
            window: WINDOW,
            batch_bytes: 1,
            waiting: FuturesOrdered::new(),
            unanswered: WINDOW,
            results: VecDeque::new(),
        };
        flow.waiting.push_back(sync.map(Result::unwrap).boxed());
        assert!(flow.step().now_or_never().is_none());
        assert_eq!(read.load(Ordering::Relaxed), 0);

        synced.send(vec![proto::PublishResult::default(); WINDOW]).unwrap();
        flow.step().await.unwrap();
        assert!(flow.response().is_some());
        flow.step().await.unwrap();
        assert_eq!(read.load(Ordering::Relaxed), 1);
    }
}
