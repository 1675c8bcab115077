//! `MessageService`.

use std::cell::RefCell;

use bytes::Bytes;
use futures::StreamExt;
use prost::Message as _;
use tonic::{Request, Response, Status, Streaming};

use super::{
    App,
    access::shows,
    body::Served,
    call::{Calls, Outgoing, Responses},
    codec::Encoded,
    field::{self, Fields},
    status::{self, Failure},
};
use crate::{
    access::{Kind, Part},
    cursor,
    messages::{
        self, Batch, ConsumerInfo, Content, Durability, Event, Expected, NewMessage, OnGap, Position,
        Progress, Published, Query, Sequence, SequenceRange, Start, Stop, TopicInfo,
    },
    proto::{
        self, message_service_server::MessageService, messages_request, publish_request, set_consumer_request,
    },
    stream::Batching,
};
use flow::Flow;

mod flow;

#[tonic::async_trait]
impl MessageService for App {
    type MessagesStream = Served;
    type PublishStreamStream = Responses<proto::PublishStreamResponse>;

    async fn messages(
        &self,
        request: Request<proto::MessagesRequest>,
    ) -> Result<Response<Self::MessagesStream>, Status> {
        let call = self.calls.begin("Messages", &request, request.get_ref().topics.join(" "))?;
        let defaults = call.batching(self.config.batch_bytes);
        let part = call.permit().map_or(Part::All, |permit| permit.topics().clone());
        let mut narrowed = narrowed(&part);
        let open = async {
            let within = match part {
                Part::All => None,
                Part::Of(patterns) => Some(patterns),
            };
            let query = Query { within, ..query(request.into_inner(), defaults)? };
            self.log.subscribe(query).await.map_err(Failure::from)
        };
        let (call, batches) = call.open(open).await?;
        let metrics = self.calls.metrics().clone();
        let responses = batches.map(move |batch| {
            let batch = batch?;
            for event in &batch.events {
                metrics.gap("Messages", gap_of(event).1.as_str_name());
            }
            // The first response says what is left out.
            Ok(response(batch, narrowed.take()))
        });
        Ok(Served::response(call.serve(responses)))
    }

    async fn publish(
        &self,
        request: Request<proto::PublishRequest>,
    ) -> Result<Response<proto::PublishResponse>, Status> {
        let publisher = self.calls.publisher("Publish", &request);
        let answer = async |request: proto::PublishRequest| {
            let published = async {
                self.calls.count_publish(publisher.as_ref(), 1, request.encoded_len())?;
                let message = new_message(request)?;
                Ok(published(self.log.publish(message).await?, self.log.durability()))
            };
            let published =
                published.await.inspect_err(|failure| Calls::not_published(publisher.as_ref(), failure));
            self.calls.metrics().published("Publish", 1, published.as_ref().err());
            published
        };
        self.calls.unary("Publish", request, answer).await
    }

    async fn publish_batch(
        &self,
        request: Request<proto::PublishBatchRequest>,
    ) -> Result<Response<proto::PublishBatchResponse>, Status> {
        let publisher = self.calls.publisher("PublishBatch", &request);
        let answer = async |request: proto::PublishBatchRequest| {
            let count = request.messages.len();
            let counted = self.calls.count_publish(publisher.as_ref(), count, request.encoded_len());
            let published = match counted {
                Ok(()) => {
                    let published = self.publish_all(request.messages).await;
                    published.inspect_err(|failure| Calls::not_published(publisher.as_ref(), failure))
                }
                Err(exceeded) => Err(exceeded),
            };
            self.calls.metrics().published("PublishBatch", count, published.as_ref().err());
            Ok(proto::PublishBatchResponse { results: published? })
        };
        self.calls.unary("PublishBatch", request, answer).await
    }

    async fn publish_stream(
        &self,
        request: Request<Streaming<proto::PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let call = self.calls.begin("PublishStream", &request, "")?;
        let flow = Flow::new(self, call.permit(), call.ends().clone(), request.into_inner());
        Ok(Response::new(call.serve_to_the_end(flow.answers())))
    }

    async fn list_topics(
        &self,
        request: Request<proto::ListTopicsRequest>,
    ) -> Result<Response<proto::ListTopicsResponse>, Status> {
        let rights = self.calls.rights(&request);
        let answer = async |request: proto::ListTopicsRequest| {
            let page_size = field::page_size(request.page_size)?;
            let after = field::page_after(&request.page_token)?;
            let pattern = Some(request.pattern.as_str()).filter(|pattern| !pattern.is_empty());
            let shows = shows(rights, Kind::Topic);
            let page = self.log.list_topics_if(pattern, page_size, after.as_deref(), shows).await;
            let page = page.map_err(|error| match error {
                messages::Error::Pattern { error, .. } => Failure::field("pattern", error.to_string()),
                error => error.into(),
            })?;
            let topics = page.topics.into_iter().map(topic).collect();
            let (topics, next) = field::page(topics, page.next, |topic| &topic.name);
            Ok(proto::ListTopicsResponse { topics, next_page_token: field::page_token(next) })
        };
        self.calls.unary("ListTopics", request, answer).await
    }

    async fn purge_topic(
        &self,
        request: Request<proto::PurgeTopicRequest>,
    ) -> Result<Response<proto::PurgeTopicResponse>, Status> {
        let answer = async |request: proto::PurgeTopicRequest| {
            let proto::PurgeTopicRequest { topic, until_sequence } = request;
            let up_to = until_sequence.map(|s| field::sequence(s, "until_sequence")).transpose()?;
            let removed = self.log.purge_topic(&topic, up_to).await?;
            Ok(proto::PurgeTopicResponse { message_count: Some(removed.cast_signed()) })
        };
        self.calls.unary("PurgeTopic", request, answer).await
    }

    async fn commit_cursor(
        &self,
        request: Request<proto::CommitCursorRequest>,
    ) -> Result<Response<proto::CommitCursorResponse>, Status> {
        let answer = async |request: proto::CommitCursorRequest| {
            let proto::CommitCursorRequest { consumer, cursor, rewind } = request;
            let position = field::position(&cursor)?;
            let time = self.log.commit_cursor(&consumer, position, rewind).await?;
            Ok(proto::CommitCursorResponse { commit_time: Some(time.into()) })
        };
        self.calls.unary("CommitCursor", request, answer).await
    }

    async fn set_consumer(
        &self,
        request: Request<proto::SetConsumerRequest>,
    ) -> Result<Response<proto::SetConsumerResponse>, Status> {
        let answer = async |request: proto::SetConsumerRequest| {
            let start = start_of_consumer(request.start)?;
            let set = self.log.set_consumer(&request.consumer, start).await?;
            Ok(proto::SetConsumerResponse { consumer: Some(consumer(set)) })
        };
        self.calls.unary("SetConsumer", request, answer).await
    }

    async fn list_consumers(
        &self,
        request: Request<proto::ListConsumersRequest>,
    ) -> Result<Response<proto::ListConsumersResponse>, Status> {
        let rights = self.calls.rights(&request);
        let answer = async |request: proto::ListConsumersRequest| {
            let page_size = field::page_size(request.page_size)?;
            let after = field::page_after(&request.page_token)?;
            let page = match request.consumer {
                None => {
                    let shows = shows(rights, Kind::Consumer);
                    self.log.list_consumers_if(page_size, after.as_deref(), shows).await?
                }
                Some(only) => {
                    let consumers = self.log.consumer(&only).await?.into_iter().collect();
                    messages::ConsumerPage { consumers, next: None }
                }
            };
            let consumers = page.consumers.into_iter().map(consumer).collect();
            let (consumers, next) = field::page(consumers, page.next, |consumer| &consumer.name);
            Ok(proto::ListConsumersResponse { consumers, next_page_token: field::page_token(next) })
        };
        self.calls.unary("ListConsumers", request, answer).await
    }

    async fn delete_consumer(
        &self,
        request: Request<proto::DeleteConsumerRequest>,
    ) -> Result<Response<proto::DeleteConsumerResponse>, Status> {
        let answer = async |request: proto::DeleteConsumerRequest| {
            self.log.delete_consumer(&request.consumer).await?;
            Ok(proto::DeleteConsumerResponse {})
        };
        self.calls.unary("DeleteConsumer", request, answer).await
    }
}

impl App {
    /// Publishes the messages of a `PublishBatch`, all or none.
    async fn publish_all(
        &self,
        messages: Vec<proto::PublishRequest>,
    ) -> Result<Vec<proto::PublishResponse>, Failure> {
        messages::check_publish_count(messages.len())?;
        let element = |(index, message)| {
            new_message(message).map_err(|failure: Failure| failure.within(&format!("messages[{index}]")))
        };
        let messages = messages.into_iter().enumerate().map(element).collect::<Result<Vec<_>, _>>()?;
        let results = self.log.publish_batch(messages).await?;
        Ok(results.into_iter().map(|done| published(done, self.log.durability())).collect())
    }
}

fn query(request: proto::MessagesRequest, defaults: Batching) -> Result<Query, Failure> {
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
        on_gap,
        consumer,
    } = request;
    let batching = field::batching(Fields { limit, heartbeat, max_batch }, defaults)?;
    let start = match cursor {
        Some(cursor) => Start::Resume(field::position(&cursor)?),
        None => self::start(start)?,
    };
    let sequence = until_sequence.map(|s| field::sequence(s, "until_sequence")).transpose()?;
    let time = until_time.map(|time| field::time(time, "until_time")).transpose()?;
    let on_gap = if field::skips_gaps(on_gap)? { OnGap::Skip } else { OnGap::Fail };
    let stop = Stop { sequence, time, caught_up };
    Ok(Query { topics, within: None, start, stop, on_gap, consumer, batching })
}

fn start(start: Option<messages_request::Start>) -> Result<Start, Failure> {
    use messages_request::Start as Asked;
    Ok(match start {
        None | Some(Asked::Earliest(false) | Asked::LastPerTopic(false)) => Start::New,
        Some(Asked::Earliest(true)) => Start::Earliest,
        Some(Asked::LastPerTopic(true)) => Start::LastPerTopic,
        Some(Asked::FromSequence(sequence)) => Start::Sequence(field::sequence(sequence, "from_sequence")?),
        Some(Asked::FromTime(time)) => Start::Time(field::time(time, "from_time")?),
        Some(Asked::Last(last)) => Start::Last(field::number(last, "last")?),
    })
}

fn start_of_consumer(start: Option<set_consumer_request::Start>) -> Result<Start, Failure> {
    use set_consumer_request::Start as Asked;
    match start {
        None | Some(Asked::Earliest(false) | Asked::FromNow(false)) => {
            let text = "is not set: set one of `earliest`, `from_now`, `from_sequence` and `from_time`";
            Err(Failure::field("start", text))
        }
        Some(Asked::Earliest(true)) => Ok(Start::Earliest),
        Some(Asked::FromNow(true)) => Ok(Start::New),
        Some(Asked::FromSequence(sequence)) => {
            Ok(Start::Sequence(field::sequence(sequence, "from_sequence")?))
        }
        Some(Asked::FromTime(time)) => Ok(Start::Time(field::time(time, "from_time")?)),
    }
}

thread_local! {
    /// The last response without events, and its encoding. Many subscriptions are at the same position, one after the other,
    /// and encoding a cursor costs more than comparing two positions.
    static LAST: RefCell<Option<(Position, Progress, Bytes)>> = const { RefCell::new(None) };
}

/// The event that says which part of a subscription the caller gets.
fn narrowed(part: &Part) -> Option<proto::MessageStreamEvent> {
    let Part::Of(patterns) = part else { return None };
    let topics = patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect();
    let event = proto::message_stream_event::Event::Narrowed(proto::SubscriptionNarrowed { topics });
    Some(proto::MessageStreamEvent { event: Some(event) })
}

fn response(batch: Batch, narrowed: Option<proto::MessageStreamEvent>) -> Outgoing<Encoded> {
    let Batch { items, count, events, position, progress } = batch;
    if narrowed.is_some() || !events.is_empty() {
        let mut rest = rest(&events, &position, progress);
        rest.events.splice(0..0, narrowed);
        return Outgoing::batch(items, count, rest.encode_to_vec().into());
    }
    let rest = LAST.with_borrow_mut(|last| match last {
        Some((of, at, rest)) if *of == position && *at == progress => rest.clone(),
        _ => {
            let rest = Bytes::from(rest(&events, &position, progress).encode_to_vec());
            *last = Some((position, progress, rest.clone()));
            rest
        }
    });
    Outgoing::batch(items, count, rest)
}

/// A response without its messages.
fn rest(events: &[Event], position: &Position, progress: Progress) -> proto::MessagesResponse {
    let Progress { caught_up, head } = progress;
    proto::MessagesResponse {
        messages: Vec::new(),
        events: events.iter().map(event).collect(),
        cursor: cursor::encode(position),
        caught_up,
        head_sequence: Some(head.map_or(0, number)),
    }
}

fn gap_of(event: &Event) -> (SequenceRange, proto::MessageGapReason) {
    match *event {
        Event::Damaged(range) => (range, proto::MessageGapReason::Damaged),
        Event::Removed(range) => (range, proto::MessageGapReason::Removed),
        Event::Diverged(range) => (range, proto::MessageGapReason::Diverged),
    }
}

fn event(event: &Event) -> proto::MessageStreamEvent {
    let (SequenceRange { first, last }, reason) = gap_of(event);
    let gap = proto::MessageGap {
        first_sequence: Some(number(first)),
        last_sequence: Some(number(last)),
        reason: reason.into(),
    };
    proto::MessageStreamEvent { event: Some(proto::message_stream_event::Event::Gap(gap)) }
}

/// A sequence of a response.
fn number(sequence: Sequence) -> i64 {
    sequence.get().cast_signed()
}

fn new_message(request: proto::PublishRequest) -> Result<NewMessage, Failure> {
    let proto::PublishRequest { topic, content, key, headers, message_id, expected_sequence, ttl } = request;
    let content = match content {
        None => Content::default(),
        Some(publish_request::Content::Text(text)) => Content::Text(text),
        Some(publish_request::Content::Data(data)) => Content::Data(data.into()),
    };
    let mut headers = headers.into_iter().collect::<Vec<_>>();
    headers.sort();
    let expected =
        expected_sequence.map(|sequence| field::number(sequence, "expected_sequence")).transpose()?;
    let expected = expected.map_or(Expected::Any, Expected::from_number);
    let ttl = ttl.map(|ttl| field::duration(ttl, "ttl", status::TTL)).transpose()?;
    Ok(NewMessage { topic, content, key, headers, message_id, expected, ttl })
}

fn published(published: Published, durability: Durability) -> proto::PublishResponse {
    let Published { sequence, time, duplicate } = published;
    proto::PublishResponse {
        sequence: Some(number(sequence)),
        publish_time: Some(time.into()),
        duplicate,
        durability: self::durability(durability).into(),
    }
}

fn durability(durability: Durability) -> proto::Durability {
    match durability {
        Durability::Fsynced => proto::Durability::Fsynced,
        Durability::Replicated => proto::Durability::Replicated,
        Durability::Buffered => proto::Durability::Buffered,
    }
}

fn topic(topic: TopicInfo) -> proto::TopicInfo {
    let TopicInfo { name, messages, bytes, first, last } = topic;
    proto::TopicInfo {
        name,
        message_count: Some(messages.cast_signed()),
        byte_count: bytes.map(u64::cast_signed),
        first_sequence: Some(number(first.sequence)),
        last_sequence: Some(number(last.sequence)),
        first_time: Some(first.time.into()),
        last_time: Some(last.time.into()),
    }
}

fn consumer(consumer: ConsumerInfo) -> proto::ConsumerInfo {
    let ConsumerInfo { name, position, time, head, is_connected } = consumer;
    let (position, fault) = match position {
        Ok(position) => (Some(position), String::new()),
        Err(error) => (None, format!("the commit is {error}")),
    };
    proto::ConsumerInfo {
        name,
        cursor: position.as_ref().map(cursor::encode).unwrap_or_default(),
        commit_time: Some(time.into()),
        sequence: Some(position.and_then(|position| position.sequence()).map_or(0, number)),
        head_sequence: Some(head.map_or(0, number)),
        connected: is_connected,
        fault,
    }
}

#[cfg(test)]
mod tests;
