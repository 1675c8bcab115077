//! The unanswered messages of a flow, encoded once, in the frames that are sent.
//!
//! A frame is kept until its messages are answered, and is sent again unchanged over another connection: a message is
//! encoded once and never copied, however often it is sent. A frame is a `PublishStreamRequest`, whose only field is
//! `messages`, so its encoding is that of each message with the field's tag, one after another. prost writes both; only
//! the number of the field is repeated here, and a test decodes frames as the generated type.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use prost::Message as _;

use crate::{
    client::Error,
    proto::{PublishRequest, PublishStreamRequest},
};

/// The field number of `PublishStreamRequest.messages`.
const MESSAGES: u32 = 1;
/// The most unanswered bytes that a client keeps to send them again. One message may exceed it.
pub(super) const WINDOW_BYTES: usize = 16 * 1024 * 1024;
/// The most messages of a frame: far below the contract's 10,000, so that the first answers need not wait for the last
/// message.
const FRAME_MESSAGES: usize = 1_024;
/// The size of a full frame. Larger frames are not faster. One message may exceed it.
const FRAME_BYTES: usize = 256 * 1024;
/// The frames in a full window: while the server syncs one, others are encoded, sent and received.
const FRAMES_A_WINDOW: usize = 4;

/// The frames in order: first those that were sent on the open connection, then the others.
pub(super) struct Frames {
    sealed: VecDeque<Frame>,
    /// The number of sealed frames that were sent on the open connection.
    sent: usize,
    /// The frame that still takes messages.
    filling: BytesMut,
    /// The size of the last frame, which is reserved for the next one at once.
    usual_bytes: usize,
    lengths: VecDeque<usize>,
    messages: usize,
    bytes: usize,
    window_messages: usize,
    frame_messages: usize,
    /// The number of the open connection.
    call: u64,
    /// How long after it was first sent a message may be sent again.
    resend_limit: Duration,
}

/// A request of the flow, without the messages that were answered.
struct Frame {
    bytes: Bytes,
    /// When it was first sent, on any connection.
    first_sent: Option<Instant>,
    /// The number of that connection.
    first_call: u64,
    /// The server may not know the ids any more, so it is not sent again.
    is_forgotten: bool,
    /// The bytes of each message, with its tag.
    lengths: VecDeque<usize>,
}

impl Frames {
    /// With room for `window_messages` unanswered messages, at least one.
    pub(super) fn new(window_messages: usize, resend_limit: Duration) -> Self {
        let window_messages = window_messages.max(1);
        Self {
            sealed: VecDeque::new(),
            sent: 0,
            filling: BytesMut::new(),
            usual_bytes: 0,
            lengths: VecDeque::new(),
            messages: 0,
            bytes: 0,
            window_messages,
            frame_messages: (window_messages / FRAMES_A_WINDOW).clamp(1, FRAME_MESSAGES),
            call: 0,
            resend_limit,
        }
    }

    /// Whether every message was answered.
    pub(super) fn is_empty(&self) -> bool {
        self.messages == 0
    }

    pub(super) fn has_room(&self) -> bool {
        self.messages < self.window_messages && self.bytes < WINDOW_BYTES
    }

    /// Whether a frame can be sent.
    pub(super) fn is_ready(&self) -> bool {
        self.sent < self.sealed.len() || !self.lengths.is_empty()
    }

    /// Adds a message, and returns whether its frame is full now.
    pub(super) fn push(&mut self, message: &PublishRequest) -> bool {
        let before = self.filling.len();
        if before == 0 {
            self.filling.reserve(self.usual_bytes);
        }
        prost::encoding::message::encode(MESSAGES, message, &mut self.filling);
        let length = self.filling.len() - before;
        self.messages += 1;
        self.bytes += length;
        if before > 0 && self.filling.len() > FRAME_BYTES {
            let bytes = self.filling.split_to(before).freeze();
            self.close_frame(bytes);
        }
        self.lengths.push_back(length);
        let is_full = self.lengths.len() >= self.frame_messages || self.filling.len() >= FRAME_BYTES;
        if is_full {
            self.seal();
        }
        is_full
    }

    /// The next frame to send.
    pub(super) fn send(&mut self) -> Option<Bytes> {
        if self.sent == self.sealed.len() && !self.lengths.is_empty() {
            self.seal();
        }
        let now = Instant::now();
        loop {
            let frame = self.sealed.get_mut(self.sent)?;
            self.sent += 1;
            let is_old = frame.first_sent.is_some_and(|sent| now.duration_since(sent) > self.resend_limit);
            frame.is_forgotten |= is_old;
            if frame.is_forgotten {
                continue;
            }
            if frame.first_sent.is_none() {
                (frame.first_sent, frame.first_call) = (Some(now), self.call);
            }
            return Some(frame.bytes.clone());
        }
    }

    /// Whether a frame was sent on the open connection and has no answer.
    pub(super) fn awaits_answer(&self) -> bool {
        self.sent > 0
    }

    /// When the oldest message was first sent that the open connection has sent again and not answered.
    pub(super) fn oldest_sent_again(&self) -> Option<Instant> {
        let is_sent_again = |frame: &&Frame| frame.first_call != self.call && !frame.is_forgotten;
        self.sealed.front().filter(|_| self.sent > 0).filter(is_sent_again)?.first_sent
    }

    /// Removes the messages at the front that were not sent again, because the server may have forgotten their ids, and
    /// returns an error for each.
    pub(super) fn forgotten(&mut self) -> Vec<Error> {
        let mut errors = Vec::new();
        while self.sealed.front().is_some_and(|frame| frame.is_forgotten)
            && let Some(frame) = self.sealed.pop_front()
        {
            self.sent = self.sent.saturating_sub(1);
            self.messages -= frame.lengths.len();
            self.bytes -= frame.bytes.len();
            let waited = frame.first_sent.map_or(Duration::ZERO, |sent| sent.elapsed());
            let messages = PublishStreamRequest::decode(frame.bytes).unwrap_or_default().messages;
            errors.extend(messages.into_iter().map(|message| Error::OutcomeUnknown {
                message_id: message.message_id.unwrap_or_default(),
                waited,
            }));
        }
        errors
    }

    fn seal(&mut self) {
        let bytes = self.filling.split().freeze();
        self.usual_bytes = bytes.len();
        self.close_frame(bytes);
    }

    fn close_frame(&mut self, bytes: Bytes) {
        let lengths = std::mem::take(&mut self.lengths);
        self.sealed.push_back(Frame { bytes, first_sent: None, first_call: 0, is_forgotten: false, lengths });
    }

    /// Removes the first message that was sent, and returns whether there was one. [`Self::forgotten`] comes before.
    pub(super) fn answered(&mut self) -> bool {
        let Some(frame) = self.sealed.front_mut().filter(|_| self.sent > 0) else { return false };
        #[expect(clippy::expect_used, reason = "a frame is removed with its last message")]
        let length = frame.lengths.pop_front().expect("a sealed frame has a message");
        frame.bytes.advance(length);
        self.messages -= 1;
        self.bytes -= length;
        if frame.lengths.is_empty() {
            self.sealed.pop_front();
            self.sent -= 1;
        }
        true
    }

    /// Marks every unanswered message as unsent, because the connection was lost. The transport did not take the last
    /// `untaken` frames.
    pub(super) fn rewind(&mut self, untaken: usize) {
        let given = self.sealed.iter_mut().take(self.sent);
        given.rev().take(untaken).filter(|frame| frame.first_call == self.call).for_each(|frame| {
            frame.first_sent = None;
        });
        self.call += 1;
        self.sent = 0;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]

    use super::*;
    use crate::proto::publish_request::Content;

    const LONG: Duration = Duration::from_secs(60);

    fn message(text: &str) -> PublishRequest {
        let content = Some(Content::Text(text.into()));
        PublishRequest { topic: "a".into(), content, ..PublishRequest::default() }
    }

    /// The texts of the frames that are ready.
    fn sent(frames: &mut Frames) -> Vec<Vec<String>> {
        let text = |message: PublishRequest| match message.content {
            Some(Content::Text(text)) => text,
            _ => unreachable!("no text"),
        };
        std::iter::from_fn(|| frames.send())
            .map(|frame| PublishStreamRequest::decode(frame).unwrap().messages)
            .map(|messages| messages.into_iter().map(text).collect())
            .collect()
    }

    #[test]
    fn only_unanswered_messages_are_sent_again() {
        let mut frames = Frames::new(8, LONG);
        assert!(frames.is_empty() && !frames.is_ready());
        let full = ["1", "2", "3"].map(|text| frames.push(&message(text)));
        assert_eq!(full, [false, true, false]);
        assert_eq!(sent(&mut frames), [vec!["1", "2"], vec!["3"]]);
        assert!(frames.answered());
        frames.push(&message("4"));
        frames.rewind(0);
        assert_eq!(frames.oldest_sent_again(), None);
        assert_eq!(sent(&mut frames), [vec!["2"], vec!["3"], vec!["4"]]);
        assert!(frames.oldest_sent_again().is_some_and(|sent| sent <= Instant::now()));
        assert!(frames.answered() && frames.answered());
        // An answer to a message that was not sent.
        frames.rewind(0);
        assert!(!frames.answered());
        assert_eq!(sent(&mut frames), [vec!["4"]]);
        assert!(frames.answered());
        assert!(frames.is_empty() && !frames.is_ready() && frames.bytes == 0);
    }

    #[test]
    fn a_window_is_full_by_messages_or_by_bytes_and_a_frame_too() {
        let mut frames = Frames::new(2, LONG);
        frames.push(&message("1"));
        assert!(frames.has_room());
        frames.push(&message("2"));
        assert!(!frames.has_room());
        frames.send();
        frames.answered();
        assert!(frames.has_room());

        let mut frames = Frames::new(1_000, LONG);
        let large = "x".repeat(FRAME_BYTES - 100);
        for _ in 0..WINDOW_BYTES / FRAME_BYTES {
            assert!(frames.has_room());
            frames.push(&message(&large));
        }
        frames.push(&message(&large));
        assert!(!frames.has_room());
        assert!(sent(&mut frames).iter().all(|frame| frame.len() == 1));
    }

    #[test]
    fn a_message_that_was_sent_long_ago_is_not_sent_again_and_its_result_comes_in_order() {
        let mut frames = Frames::new(4, Duration::from_millis(50));
        let named = |id: &str| PublishRequest { message_id: Some(id.into()), ..message(id) };
        for id in ["1", "2", "3"] {
            frames.push(&named(id));
        }
        // A frame has a quarter of the window.
        assert_eq!(sent(&mut frames).len(), 3);
        assert!(frames.forgotten().is_empty() && frames.answered());
        frames.push(&named("4"));
        assert_eq!(sent(&mut frames), [vec!["4"]]);
        std::thread::sleep(Duration::from_millis(60));
        // The transport did not take the last one.
        frames.rewind(1);
        assert_eq!(sent(&mut frames), [vec!["4"]]);
        // The oldest were not sent again, and the last one counts as sent first by this connection.
        assert_eq!(frames.oldest_sent_again(), None);
        let unknown = frames.forgotten();
        let ids = unknown.iter().map(|error| match error {
            Error::OutcomeUnknown { message_id, .. } => message_id.as_str(),
            _ => "",
        });
        assert_eq!(ids.collect::<Vec<_>>(), ["2", "3"]);
        assert!(frames.answered() && frames.is_empty() && frames.bytes == 0);
    }
}
