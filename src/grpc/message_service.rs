//! `MessageService`.

use std::collections::VecDeque;

use async_stream::stream;
use futures::{FutureExt, Stream, StreamExt, stream::FuturesOrdered};
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{
    App,
    call::{self, Responses, Served},
    codec::Encoded,
    field::{self, Fields},
    status::{self, Failure},
};
use crate::{
    cursor::{self, Kind},
    messages::{
        self, Batch, Content, Event, Log, MAX_LAST, NewMessage, Published, Query, Start, Stop, TopicInfo,
    },
    proto::{
        self, message_service_server::MessageService, messages_request, publish_request, publish_result,
    },
};

/// The most messages of one request.
const MAX_PUBLISHED: usize = 10_000;

#[tonic::async_trait]
impl MessageService for App {
    type MessagesStream = Responses<Encoded>;
    type PublishStreamStream = Responses<proto::PublishStreamResponse>;

    async fn messages(
        &self,
        request: Request<proto::MessagesRequest>,
    ) -> Result<Response<Self::MessagesStream>, Status> {
        let call = self.calls.begin("Messages", &request, request.get_ref().topics.join(" "))?;
        let open = async {
            let query = query(request.into_inner(), self)?;
            self.log.subscribe(query).await.map_err(Failure::from)
        };
        let (call, batches) = call.open(open).await?;
        let responses = batches.map(|batch| {
            let batch = batch?;
            let (items, bytes) = (batch.count, batch.items.iter().map(bytes::Bytes::len).sum());
            Ok(Served { response: response(batch), items, bytes })
        });
        Ok(Response::new(call.serve(responses)))
    }

    async fn publish(
        &self,
        request: Request<proto::PublishRequest>,
    ) -> Result<Response<proto::PublishResponse>, Status> {
        let timeout = call::timeout(request.metadata());
        let answer = async {
            let message = new_message(request.into_inner())?;
            Ok(published(self.log.publish(message).await?))
        };
        self.calls.unary("Publish", timeout, answer).await
    }

    async fn publish_batch(
        &self,
        request: Request<proto::PublishBatchRequest>,
    ) -> Result<Response<proto::PublishBatchResponse>, Status> {
        let timeout = call::timeout(request.metadata());
        let answer = async {
            let messages = request.into_inner().messages;
            check_count(messages.len())?;
            let element = |(index, message)| {
                new_message(message).map_err(|failure: Failure| failure.within(&format!("messages[{index}]")))
            };
            let messages = messages.into_iter().enumerate().map(element).collect::<Result<Vec<_>, _>>()?;
            let results = self.log.publish_batch(messages).await?;
            Ok(proto::PublishBatchResponse { results: results.into_iter().map(published).collect() })
        };
        self.calls.unary("PublishBatch", timeout, answer).await
    }

    async fn publish_stream(
        &self,
        request: Request<Streaming<proto::PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let call = self.calls.begin("PublishStream", &request, "")?;
        let flow = Flow {
            log: self.log.clone(),
            ends: call.ends().clone(),
            requests: Some(request.into_inner()),
            window: self.limits.publish_window,
            batch_bytes: self.limits.batch_bytes,
            waiting: FuturesOrdered::new(),
            unanswered: 0,
            results: VecDeque::new(),
        };
        Ok(Response::new(call.serve_to_the_end(flow.answers())))
    }

    async fn list_topics(
        &self,
        request: Request<proto::ListTopicsRequest>,
    ) -> Result<Response<proto::ListTopicsResponse>, Status> {
        let timeout = call::timeout(request.metadata());
        let proto::ListTopicsRequest { pattern, page_size, page_token } = request.into_inner();
        let answer = async {
            let page_size = field::page_size(page_size)?;
            let after = field::page_after(&page_token)?;
            let pattern = Some(pattern.as_str()).filter(|pattern| !pattern.is_empty());
            let page =
                self.log.list_topics(pattern, page_size, after.as_deref()).map_err(|error| match error {
                    messages::Error::Pattern { error, .. } => Failure::field("pattern", error.to_string()),
                    error => error.into(),
                })?;
            let next_page_token = field::page_token(page.next);
            Ok(proto::ListTopicsResponse {
                topics: page.topics.into_iter().map(topic).collect(),
                next_page_token,
            })
        };
        self.calls.unary("ListTopics", timeout, answer).await
    }
}

type Results = Vec<proto::PublishResult>;

/// A `PublishStream`: messages in, results out, in order, no more than a window apart.
struct Flow<R> {
    log: Log,
    ends: CancellationToken,
    /// None when the client has sent all.
    requests: Option<R>,
    window: usize,
    /// A response leaves when its results have so many bytes.
    batch_bytes: usize,
    waiting: FuturesOrdered<futures::future::BoxFuture<'static, Results>>,
    unanswered: usize,
    results: VecDeque<proto::PublishResult>,
}

/// What a flow can do next.
enum Step {
    Request(Option<Result<proto::PublishStreamRequest, Status>>),
    Results(Results),
    Drain,
}

impl<R> Flow<R>
where
    R: Stream<Item = Result<proto::PublishStreamRequest, Status>> + Send + Unpin,
{
    /// Answers until the client has sent all, sends what cannot be read, or the server drains: what was taken is still
    /// answered then.
    fn answers(mut self) -> impl Stream<Item = Result<Served<proto::PublishStreamResponse>, Failure>> + Send {
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
                () = self.ends.cancelled() => Step::Drain,
                Some(results) = self.waiting.next(), if !self.waiting.is_empty() => Step::Results(results),
                request = requests.next(), if has_room => Step::Request(request),
            },
        };
        match step {
            Step::Drain => return Err(status::draining()),
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
        check_count(request.messages.len())?;
        self.unanswered += request.messages.len();
        let (mut good, mut checks) = (Vec::new(), Vec::new());
        for message in request.messages {
            match new_message(message) {
                Ok(message) => {
                    good.push(message);
                    checks.push(None);
                }
                Err(failure) => checks.push(Some(failure)),
            }
        }
        let results = self.log.publish_each(good).await;
        self.waiting.push_back(Box::pin(async move {
            let mut results = results.await.into_iter();
            let result = |check: Option<Failure>| match check {
                Some(failure) => result(Err(failure)),
                None => result(results.next().unwrap_or(Err(messages::Error::Closed)).map_err(Failure::from)),
            };
            checks.into_iter().map(result).collect()
        }));
        Ok(())
    }

    /// What is answered and not yet sent.
    fn response(&mut self) -> Option<Served<proto::PublishStreamResponse>> {
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
        let results = self.results.drain(..items).collect();
        Some(Served { response: proto::PublishStreamResponse { results }, items, bytes })
    }
}

fn check_count(count: usize) -> Result<(), Failure> {
    if (1..=MAX_PUBLISHED).contains(&count) {
        return Ok(());
    }
    Err(Failure::field("messages", format!("has {count} messages: from 1 to 10,000 are possible")))
}

fn result(result: Result<Published, Failure>) -> proto::PublishResult {
    let result = match result {
        Ok(done) => publish_result::Result::Published(published(done)),
        Err(failure) => publish_result::Result::Error(failure.into_publish_error()),
    };
    proto::PublishResult { result: Some(result) }
}

fn query(request: proto::MessagesRequest, app: &App) -> Result<Query, Failure> {
    let proto::MessagesRequest {
        topics,
        start,
        until_sequence,
        until_time,
        until_caught_up: caught_up,
        cursor,
        limit,
        heartbeat,
        max_batch,
    } = request;
    let max_patterns = app.limits.max_patterns;
    if topics.len() > max_patterns {
        let text = format!("has {} patterns: at most {max_patterns} are possible", topics.len());
        return Err(Failure::field("topics", text).with("limit", max_patterns));
    }
    let batching =
        field::batching(Fields { limit, heartbeat, max_batch }, app.limits.batch_bytes, usize::MAX)?;
    let start = match cursor {
        Some(cursor) => Start::Resume(field::position(Kind::Messages, &cursor)?),
        None => self::start(start)?,
    };
    let sequence = until_sequence.map(|s| field::at_least(s, 1, "until_sequence")).transpose()?;
    let time = until_time.map(|time| field::time(time, "until_time")).transpose()?;
    Ok(Query { topics, start, stop: Stop { sequence, time, caught_up }, batching })
}

fn start(start: Option<messages_request::Start>) -> Result<Start, Failure> {
    use messages_request::Start as Asked;
    Ok(match start {
        None | Some(Asked::Earliest(false)) => Start::New,
        Some(Asked::Earliest(true)) => Start::Earliest,
        Some(Asked::Sequence(sequence)) => Start::Sequence(field::at_least(sequence, 1, "sequence")?),
        Some(Asked::Time(time)) => Start::Time(field::time(time, "time")?),
        Some(Asked::Last(last)) => match u64::try_from(last) {
            Ok(last) if last <= MAX_LAST => Start::Last(last),
            _ => return Err(Failure::field("last", format!("is {last}: from 0 to 1,000,000 is possible"))),
        },
    })
}

fn response(batch: Batch) -> Encoded {
    let Batch { items, count: _, events, position, caught_up, head } = batch;
    let rest = proto::MessagesResponse {
        messages: Vec::new(),
        events: events.into_iter().map(event).collect(),
        cursor: cursor::encode(Kind::Messages, &position),
        caught_up,
        head_sequence: Some(head.cast_signed()),
    };
    Encoded::new(items, &rest)
}

fn event(event: Event) -> proto::MessageEvent {
    let Event::Damaged { from, to } = event;
    let gap = proto::MessageGap {
        from_sequence: Some(from.cast_signed()),
        to_sequence: Some(to.cast_signed()),
        reason: proto::MessageGapReason::Damaged.into(),
    };
    proto::MessageEvent { event: Some(proto::message_event::Event::Gap(gap)) }
}

fn new_message(request: proto::PublishRequest) -> Result<NewMessage, Failure> {
    let proto::PublishRequest { topic, content, key, headers, message_id, expected_sequence } = request;
    let content = match content {
        None => Content::default(),
        Some(publish_request::Content::Text(text)) => Content::Text(text),
        Some(publish_request::Content::Data(data)) => Content::Data(data.into()),
    };
    let mut headers = headers.into_iter().collect::<Vec<_>>();
    headers.sort();
    let expected_sequence =
        expected_sequence.map(|sequence| field::at_least(sequence, 0, "expected_sequence")).transpose()?;
    Ok(NewMessage { topic, content, key, headers, message_id, expected_sequence })
}

fn published(published: Published) -> proto::PublishResponse {
    let Published { sequence, time, duplicate } = published;
    proto::PublishResponse {
        sequence: Some(sequence.cast_signed()),
        publish_time: Some(time.into()),
        duplicate,
        durability: proto::Durability::Fsynced.into(),
    }
}

fn topic(topic: TopicInfo) -> proto::Topic {
    let TopicInfo { name, messages, bytes, first, last } = topic;
    proto::Topic {
        name,
        message_count: Some(messages.cast_signed()),
        bytes: Some(bytes.cast_signed()),
        first_sequence: Some(first.0.cast_signed()),
        last_sequence: Some(last.0.cast_signed()),
        first_time: Some(first.1.into()),
        last_time: Some(last.1.into()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use futures::{channel::oneshot, stream};

    use super::*;

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
            log: Log::open(directory.path(), messages::Options::default()).unwrap().0,
            ends: CancellationToken::new(),
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
