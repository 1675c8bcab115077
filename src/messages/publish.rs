//! Publishing: messages are checked here, and written by the log.

use futures::future::{self, Either};

use super::{
    BatchError, Content, Error, Log, MAX_HEADERS, MAX_KEY_BYTES, MAX_MESSAGE_ID_BYTES, NewMessage, Published,
    TTLS,
    embedded::{Embedded, Mode, Outcome},
    topic,
};

impl NewMessage {
    /// What counts against the limit: payload, key and headers.
    pub(super) fn bytes(&self) -> usize {
        let content = match &self.content {
            Content::Text(text) => text.len(),
            Content::Data(data) => data.len(),
        };
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        content + self.key.as_ref().map_or(0, String::len) + headers
    }

    fn check(&self, limit: usize) -> Result<(), Error> {
        topic::check(&self.topic).map_err(Error::Topic)?;
        self.check_parts(limit)
    }

    /// Checks all but the topic.
    pub(super) fn check_parts(&self, limit: usize) -> Result<(), Error> {
        if let Some(bytes) = self.key.as_ref().map(String::len).filter(|bytes| *bytes > MAX_KEY_BYTES) {
            return Err(Error::KeyTooLong { bytes });
        }
        if self.headers.len() > MAX_HEADERS {
            return Err(Error::TooManyHeaders { count: self.headers.len() });
        }
        if self.headers.iter().any(|(name, _)| name.is_empty()) {
            return Err(Error::HeaderNameEmpty);
        }
        let id_bytes = self.message_id.as_ref().map(String::len);
        if let Some(bytes) = id_bytes.filter(|bytes| !(1..=MAX_MESSAGE_ID_BYTES).contains(bytes)) {
            return Err(Error::MessageIdLength { bytes });
        }
        if let Some(ttl) = self.ttl.filter(|ttl| !TTLS.contains(ttl)) {
            return Err(Error::Ttl { ttl });
        }
        let bytes = self.bytes();
        if bytes > limit { Err(Error::TooLarge { bytes, limit }) } else { Ok(()) }
    }
}

impl Log {
    /// Publishes a message; it is on disk when this returns.
    ///
    /// # Errors
    /// What is wrong with the message, or with the log. Dropping the future does not take the message back.
    pub async fn publish(&self, message: NewMessage) -> Result<Published, Error> {
        let mut results = self.publish_each(vec![message]).await.await;
        results.pop().unwrap_or(Err(Error::Closed))
    }

    /// Publishes a message to a topic of the server's own.
    ///
    /// # Errors
    /// [`Error::SequenceMismatch`], or what is wrong with the log.
    pub(crate) async fn publish_own(&self, message: NewMessage) -> Result<Published, Error> {
        let Self::Embedded(log) = self;
        let mut results = enqueue(log, vec![message]).await.await;
        results.pop().unwrap_or(Err(Error::Closed))
    }

    /// Publishes messages, all or none, with neighbouring sequences; they are on disk when this returns.
    ///
    /// # Errors
    /// The first message that is wrong, or what is wrong with the log.
    pub async fn publish_batch(&self, messages: Vec<NewMessage>) -> Result<Vec<Published>, BatchError> {
        for (index, message) in messages.iter().enumerate() {
            self.check(message).map_err(|error| BatchError { index, error })?;
        }
        self.publish_together(messages, Mode::All).await
    }

    /// Checks a message, but not whether there is room for it.
    ///
    /// # Errors
    /// What is wrong with the message.
    pub fn check(&self, message: &NewMessage) -> Result<(), Error> {
        let Self::Embedded(log) = self;
        message.check(log.max_message_bytes())
    }

    /// Publishes messages that were checked, also to topics of the server's own, all or none, and beyond
    /// [`Options::max_topics`](super::Options::max_topics).
    ///
    /// # Errors
    /// The message that keeps the others from being published, or what is wrong with the log.
    pub(crate) async fn publish_own_batch(
        &self,
        messages: Vec<NewMessage>,
    ) -> Result<Vec<Published>, BatchError> {
        self.publish_together(messages, Mode::Own).await
    }

    async fn publish_together(
        &self,
        messages: Vec<NewMessage>,
        mode: Mode,
    ) -> Result<Vec<Published>, BatchError> {
        let Self::Embedded(log) = self;
        let of_all = |error| BatchError { index: 0, error };
        let outcome = log.enqueue(messages, mode).await.map_err(of_all)?;
        match outcome.await.map_err(|_| of_all(Error::Closed))? {
            Outcome::Each(results) => results.into_iter().collect::<Result<_, _>>().map_err(of_all),
            Outcome::None(index, error) => Err(BatchError { index, error }),
        }
    }

    /// Publishes messages, each on its own. Waits for room in the queue, and puts them there in the order of the
    /// calls; what is returned waits until they are on disk, and gives each message's result, in order.
    pub async fn publish_each(
        &self,
        messages: Vec<NewMessage>,
    ) -> impl Future<Output = Vec<Result<Published, Error>>> + Send + use<> {
        let Self::Embedded(log) = self;
        let limit = log.max_message_bytes();
        let checks = messages.iter().map(|message| message.check(limit)).collect::<Vec<_>>();
        let good = messages.into_iter().zip(&checks).filter(|(_, check)| check.is_ok());
        let good = good.map(|(message, _)| message).collect::<Vec<_>>();
        let outcome = enqueue(log, good).await;
        async move {
            let mut results = outcome.await.into_iter();
            let result =
                |check: Result<(), Error>| check.and_then(|()| results.next().unwrap_or(Err(Error::Closed)));
            checks.into_iter().map(result).collect()
        }
    }
}

/// Queues checked messages; what is returned gives their results. All are alike refused where the log is closed.
async fn enqueue(
    log: &Embedded,
    messages: Vec<NewMessage>,
) -> impl Future<Output = Vec<Result<Published, Error>>> + Send + use<> {
    if messages.is_empty() {
        return Either::Left(future::ready(Vec::new()));
    }
    match log.enqueue(messages, Mode::Each).await {
        Err(_) => Either::Left(future::ready(Vec::new())),
        Ok(outcome) => Either::Right(async move {
            match outcome.await {
                Ok(Outcome::Each(results)) => results,
                Ok(Outcome::None(..)) | Err(_) => Vec::new(),
            }
        }),
    }
}
