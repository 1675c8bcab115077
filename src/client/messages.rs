//! `MessageService`: reading and publishing messages, and managing topics and consumers.

use futures::Stream;

use super::{
    Client, Error, Items, MAX_RESPONSE_BYTES, PURGE_LIMIT, Publisher, all_pages, publisher, repeated,
    token::Authorized,
};
use crate::proto::{
    CommitCursorRequest, ConsumerInfo, DeleteConsumerRequest, ListConsumersRequest, ListTopicsRequest,
    MessagesRequest, PublishBatchRequest, PublishRequest, PublishResponse, PublishResult, PurgeTopicRequest,
    SetConsumerRequest, TopicInfo, message_service_client::MessageServiceClient,
};

impl Client {
    /// The messages of topics: `client.messages("orders.>").earliest()`, or of a whole [`MessagesRequest`].
    pub fn messages(&self, request: impl Into<MessagesRequest>) -> Items<MessagesRequest> {
        Items::new(self.clone(), request.into())
    }

    /// Publishes one message. With a `message_id` the call is repeated after failures that may pass. Without one it is not:
    /// after a lost connection or [`Error::Silent`] the message may have been published.
    pub async fn publish(&self, request: PublishRequest) -> Result<PublishResponse, Error> {
        if request.message_id.is_none() {
            return self.unary(self.message_client().publish(request)).await;
        }
        Ok(repeated!(self, self.unary(self.message_client().publish(request.clone()))))
    }

    /// Publishes several messages, all or none, and returns one answer for each, in their order. The call is not repeated.
    pub async fn publish_batch(&self, messages: Vec<PublishRequest>) -> Result<Vec<PublishResponse>, Error> {
        Ok(self.unary(self.message_client().publish_batch(PublishBatchRequest { messages })).await?.results)
    }

    /// A publisher: it takes messages one by one, and gives each a receipt. It needs a runtime of tokio.
    pub fn publisher(&self) -> Publisher {
        Publisher::new(self.clone())
    }

    /// Publishes a flow of messages, each on its own, and yields one result for each, in their order.
    ///
    /// [`Error::OutcomeUnknown`] is the result of one message, and others follow; after any other error the flow ends.
    ///
    /// A message without an id gets one. After a lost connection, the unanswered messages are sent again with the same
    /// ids, so that within the dedupe window of the server no message is published twice. The number of unanswered
    /// messages is bounded: `messages` is not polled while the window is full.
    pub fn publish_all(
        &self,
        messages: impl Stream<Item = PublishRequest> + Send,
    ) -> impl Stream<Item = Result<PublishResult, Error>> + Send {
        publisher::stream(self.clone(), messages, publisher::Start::AtOnce)
    }

    /// The topics that match a pattern, or all topics if it is empty, from all pages.
    pub async fn list_topics(&self, pattern: &str) -> Result<Vec<TopicInfo>, Error> {
        all_pages(self, |page_token| {
            let request =
                ListTopicsRequest { pattern: pattern.to_owned(), page_token, ..ListTopicsRequest::default() };
            let mut client = self.message_client();
            async move {
                let page = self.unary(client.list_topics(request)).await?;
                Ok((page.topics, page.next_page_token))
            }
        })
        .await
    }

    /// Removes the messages of a topic, all or up to a sequence, for good, and returns their number. On a large log the
    /// answer may take minutes, and is awaited longer than those of other calls.
    pub async fn purge_topic(&self, topic: &str, until_sequence: Option<i64>) -> Result<i64, Error> {
        let request = PurgeTopicRequest { topic: topic.to_owned(), until_sequence };
        let answer = self.unary_within(PURGE_LIMIT, self.message_client().purge_topic(request)).await?;
        answer.message_count.ok_or(Error::Protocol { fault: "its response has no message_count" })
    }

    /// Commits a cursor of [`Self::messages`] as the position of a consumer; it is on disk when this returns.
    ///
    /// Commit after the messages before the cursor were processed. Without `rewind`, a commit that would move the
    /// consumer back fails (`COMMIT_BEHIND`). The call is repeated after failures that may pass.
    pub async fn commit_cursor(&self, consumer: &str, cursor: &str, rewind: bool) -> Result<(), Error> {
        let request =
            CommitCursorRequest { consumer: consumer.to_owned(), cursor: cursor.to_owned(), rewind };
        repeated!(self, self.unary(self.message_client().commit_cursor(request.clone())));
        Ok(())
    }

    /// Sets a consumer to a start position, or creates it there, and returns it. Fails while a reader is connected as the
    /// consumer (`CONSUMER_CONNECTED`). The call is not repeated.
    pub async fn set_consumer(&self, request: SetConsumerRequest) -> Result<ConsumerInfo, Error> {
        let answer = self.unary(self.message_client().set_consumer(request)).await?;
        answer.consumer.ok_or(Error::Protocol { fault: "its response has no consumer" })
    }

    /// All consumers, ordered by name, from all pages.
    pub async fn list_consumers(&self) -> Result<Vec<ConsumerInfo>, Error> {
        all_pages(self, |page_token| {
            let request = ListConsumersRequest { page_token, ..ListConsumersRequest::default() };
            let mut client = self.message_client();
            async move {
                let page = self.unary(client.list_consumers(request)).await?;
                Ok((page.consumers, page.next_page_token))
            }
        })
        .await
    }

    /// The consumer with this name, if it exists.
    pub async fn consumer(&self, name: &str) -> Result<Option<ConsumerInfo>, Error> {
        let request =
            ListConsumersRequest { consumer: Some(name.to_owned()), ..ListConsumersRequest::default() };
        let mut found = repeated!(self, self.unary(self.message_client().list_consumers(request.clone())));
        Ok(found.consumers.pop())
    }

    /// Deletes a consumer, for good. A reader under its name continues.
    pub async fn delete_consumer(&self, consumer: &str) -> Result<(), Error> {
        let request = DeleteConsumerRequest { consumer: consumer.to_owned() };
        self.unary(self.message_client().delete_consumer(request)).await.map(drop)
    }

    fn message_client(&self) -> MessageServiceClient<Authorized> {
        MessageServiceClient::new(self.channel()).max_decoding_message_size(MAX_RESPONSE_BYTES)
    }
}
